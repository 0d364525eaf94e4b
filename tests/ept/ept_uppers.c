/* SPDX-License-Identifier: BSD-2-Clause */
/* Which upper entries have no accessed bit: those that a harvest has cleared, until something below them is used. So it is
 * known what a harvest that prunes passes over, and that it passes over nothing else. */
#include "ept/ept_model.h"

static int overlaps(const struct vmemt_ept_upper *u, uint64_t gpa, uint64_t bytes)
{
	return u->gpa < gpa + bytes && gpa < u->gpa + VMEM_EPT_LEVEL_BYTES(u->level);
}

static int is_unused(const struct vmemt_ept_world *w, uint64_t gpa, uint32_t level)
{
	for (uint32_t i = 0; i < w->unused_count; i++)
		if (w->unused[i].level == level && overlaps(&w->unused[i], gpa, 1))
			return 1;
	return 0;
}

int vmemt_ept_upper_unused(const struct vmemt_ept_world *w, uint64_t gpa)
{
	for (uint32_t i = 0; i < w->unused_count; i++)
		if (overlaps(&w->unused[i], gpa, 1))
			return 1;
	return 0;
}

void vmemt_ept_uppers_used(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes)
{
	for (uint32_t i = 0; i < w->unused_count;) {
		const struct vmemt_ept_upper *u = &w->unused[i];
		uint64_t from = gpa > u->gpa ? gpa : u->gpa, end = u->gpa;

		end += VMEM_EPT_LEVEL_BYTES(u->level);
		end = end < gpa + bytes ? end : gpa + bytes;
		if (from < end && vmemt_ept_overlaps(w, from, end - from, 1))
			w->unused[i] = w->unused[--w->unused_count];
		else
			i++;
	}
}

void vmemt_ept_upper_walked(struct vmemt_ept_world *w, uint64_t gpa, uint32_t level)
{
	for (uint32_t i = 0; i < w->unused_count; i++)
		if (w->unused[i].level == level && overlaps(&w->unused[i], gpa, 1)) {
			w->unused[i] = w->unused[--w->unused_count];
			return;
		}
}

/* Where the harvest went, of the table of @level at @base: down where the bit was set, and it was cleared in what lies
 * in the range as a whole. */
static void clear_below(struct vmemt_ept_world *w, uint64_t table, uint32_t level, uint64_t base,
			const struct vmem_ept_range *range, uint64_t last)
{
	uint64_t bytes = VMEM_EPT_LEVEL_BYTES(level);

	for (uint32_t i = 0; i < VMEM_EPT_ENTRIES; i++) {
		uint64_t gpa = base + i * bytes, entry;

		if (gpa + bytes <= range->gpa)
			continue;
		if (gpa >= range->gpa + range->bytes || gpa > last)
			break;
		entry = *vmemt_ept_entry(w, table, gpa, level);
		if (!vmemt_ept_is_table(w, entry, level) || is_unused(w, gpa, level))
			continue;
		if (gpa >= range->gpa && gpa + bytes <= range->gpa + range->bytes) {
			VMEMT_HOLDS(w->unused_count < VMEMT_EPT_TABLES);
			w->unused[w->unused_count++] =
				(struct vmemt_ept_upper){ .gpa = gpa, .level = level };
		}
		if (level > 2)
			clear_below(w, vmemt_ept_address(entry, 1), level - 1, gpa, range, last);
	}
}

void vmemt_ept_uppers_clear(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes, uint64_t last)
{
	const struct vmem_ept_range range = { gpa, bytes };

	clear_below(w, vmem_ept_pointer(w->ept) & VMEM_EPT_ADDRESS, w->opts.levels, 0, &range,
		    last);
}

/* Each that is said to be unused is so, where there still is a table; on the way to @gpa, those that are not said to be so
 * are used. */
void vmemt_ept_uppers_compare(struct vmemt_ept_world *w, uint64_t gpa)
{
	uint64_t accessed = vmemt_ept_bits(w, VMEM_EPT_LEAF_ACCESSED);

	for (uint32_t i = 0; i < w->unused_count;) {
		const struct vmemt_ept_upper *u = &w->unused[i];
		const uint64_t *slot = vmemt_ept_slot(w, u->gpa, u->level);

		if (slot && vmemt_ept_is_table(w, *slot, u->level)) {
			VMEMT_HOLDS(!(*slot & accessed));
			i++;
		} else {
			w->unused[i] = w->unused[--w->unused_count];
		}
	}
	for (uint32_t level = w->opts.levels; level > 1; level--) {
		const uint64_t *slot = vmemt_ept_slot(w, gpa, level);

		if (!slot || !vmemt_ept_is_table(w, *slot, level))
			break;
		VMEMT_HOLDS(!(~*slot & accessed) || is_unused(w, gpa, level));
	}
}

static void compare_below(const struct vmemt_ept_world *w, uint64_t table, uint32_t level,
			  uint64_t base)
{
	uint64_t accessed = vmemt_ept_bits(w, VMEM_EPT_LEAF_ACCESSED);

	for (uint32_t i = 0; i < VMEM_EPT_ENTRIES; i++) {
		uint64_t gpa = base + i * VMEM_EPT_LEVEL_BYTES(level);
		uint64_t entry = *vmemt_ept_entry(w, table, gpa, level);

		if (!vmemt_ept_is_table(w, entry, level))
			continue;
		VMEMT_HOLDS(!(~entry & accessed) || is_unused(w, gpa, level));
		if (level > 2)
			compare_below(w, vmemt_ept_address(entry, 1), level - 1, gpa);
	}
}

void vmemt_ept_uppers_compare_all(struct vmemt_ept_world *w)
{
	vmemt_ept_uppers_compare(w, 0);
	compare_below(w, vmem_ept_pointer(w->ept) & VMEM_EPT_ADDRESS, w->opts.levels, 0);
}
