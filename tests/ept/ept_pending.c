/* SPDX-License-Identifier: BSD-2-Clause */
/* A caller that puts off what changes owe: it collects them, over any other calls, and tells processors of the oldest ones
 * later, all of their ranges at a time; and the builder then or later still, by the epoch of the last of them. Until it
 * does, tables that became leaves are there, and processors set bits in them, which then are those of what is mapped there. */
#include "ept/ept_model.h"

static void over_ranges(struct vmemt_ept_world *w, const struct vmem_ept_change *change,
			void (*each)(struct vmemt_ept_world *w, const struct vmem_ept_range *range))
{
	const struct vmem_ept_range all = { 0, w->top };

	if (change->flush == VMEM_EPT_FLUSH_ALL)
		each(w, &all);
	for (uint32_t r = 0; r < change->range_count; r++)
		each(w, &change->ranges[r]);
}

void vmemt_ept_owe(struct vmemt_ept_world *w)
{
	const struct vmem_ept_change *change = &w->change;

	VMEMT_HOLDS(change->flush <= VMEM_EPT_FLUSH_ALL);
	VMEMT_HOLDS(change->range_count <= VMEM_EPT_RANGES);
	VMEMT_HOLDS((change->range_count > 0) == (change->flush == VMEM_EPT_FLUSH_RANGES));
	VMEMT_HOLDS(!change->epoch || change->flush != VMEM_EPT_FLUSH_NONE);
	for (uint32_t r = 1; r < change->range_count; r++)
		VMEMT_HOLDS(change->ranges[r - 1].gpa + change->ranges[r - 1].bytes <
			    change->ranges[r].gpa);
	if (change->flush == VMEM_EPT_FLUSH_NONE)
		return;
	VMEMT_HOLDS(w->pending_count < VMEMT_EPT_PENDING);
	w->pending[w->pending_count++] =
		(struct vmemt_ept_pending){ .change = *change, .number = ++w->changes };
	over_ranges(w, change, vmemt_ept_excuse);
}

/* --- Tables that became leaves --- */

/* Which tables there are below entries of levels 2 and 3 of a range. */
void vmemt_ept_before_merge(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes)
{
	uint64_t end = gpa + bytes;

	w->before_count = 0;
	for (uint32_t level = 2; level <= 3; level++) {
		uint64_t size = VMEM_EPT_LEVEL_BYTES(level);

		for (uint64_t at = (gpa + size - 1) & ~(size - 1); at + size <= end; at += size) {
			const uint64_t *slot = vmemt_ept_slot(w, at, level);

			if (!slot || !vmemt_ept_is_table(w, *slot, level))
				continue;
			VMEMT_HOLDS(w->before_count < VMEMT_EPT_TABLES);
			w->before[w->before_count++] = (struct vmemt_ept_upper){
				.gpa = at, .level = level, .hpa = vmemt_ept_address(*slot, 1)
			};
		}
	}
}

void vmemt_ept_merged(struct vmemt_ept_world *w, uint64_t gpa, uint32_t level, uint32_t bits)
{
	uint32_t i = 0;

	while (i < w->before_count && (w->before[i].gpa != gpa || w->before[i].level != level))
		i++;
	VMEMT_HOLDS(i < w->before_count && w->merged_count < VMEMT_EPT_TABLES);
	w->merged[w->merged_count++] =
		(struct vmemt_ept_merged){ .gpa = gpa,
					   .bytes = VMEM_EPT_LEVEL_BYTES(level),
					   .hpa = w->before[i].hpa,
					   .epoch = w->change.epoch,
					   .bits = bits };
}

void vmemt_ept_marked(struct vmemt_ept_world *w, uint64_t table, uint32_t bits)
{
	for (uint32_t i = 0; i < w->merged_count; i++)
		if (w->merged[i].hpa == table)
			w->merged[i].bits |= bits;
}

/* Its bits become those of all that is mapped there now. */
static void take_over(struct vmemt_ept_world *w, const struct vmemt_ept_merged *m)
{
	uint64_t end = m->gpa + m->bytes;

	if (!m->bits || !(w->opts.flags & VMEM_EPT_AD))
		return;
	vmemt_ept_cut_at_leaves(w, m->gpa);
	vmemt_ept_cut_at_leaves(w, end);
	for (uint32_t i = vmemt_ept_first(w, m->gpa); i < w->extents; i++) {
		if (w->extent[i].gpa >= end)
			break;
		if (w->extent[i].level)
			w->extent[i].flags |= m->bits;
	}
	if (m->bits & VMEM_EPT_LEAF_ACCESSED)
		vmemt_ept_uppers_used(w, m->gpa, m->bytes);
	vmemt_ept_join(w, m->gpa, m->bytes);
}

static void flushed(struct vmemt_ept_world *w, uint64_t epoch)
{
	struct vmem_ept_stats stats = { .size = sizeof(stats) };
	uint32_t left = 0, all = w->merged_count;

	vmem_ept_flushed(w->ept, epoch);
	for (uint32_t i = 0; i < all; i++)
		if (w->merged[i].epoch <= epoch)
			take_over(w, &w->merged[i]);
	for (uint32_t i = 0; i < all; i++) {
		struct vmemt_ept_merged m = w->merged[i];

		if (m.epoch > epoch) {
			w->merged[left++] = m;
			continue;
		}
		vmemt_ept_compare(w, m.gpa, m.bytes);
		vmemt_ept_uppers_compare(w, m.gpa);
	}
	w->merged_count = left;
	VMEMT_HOLDS(vmem_ept_get_stats(w->ept, &stats) == 0);
	VMEMT_HOLDS(w->pending_count || stats.waiting == 0);
}

/* --- What is told --- */

void vmemt_ept_tell(struct vmemt_ept_world *w, uint32_t count, int is_flushed)
{
	uint64_t epoch = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct vmemt_ept_pending *p = &w->pending[i];

		epoch = p->change.epoch ? p->change.epoch : epoch;
		if (!p->told)
			over_ranges(w, &p->change, vmemt_ept_forget);
		p->told = 1;
	}
	if (!is_flushed)
		return;
	w->pending_count -= count;
	for (uint32_t i = 0; i < w->pending_count; i++)
		w->pending[i] = w->pending[i + count];
	if (epoch)
		flushed(w, epoch);
}

/* Now and then, and before there are too many: a step has two changes. */
void vmemt_ept_tell_some(struct vmemt_ept_world *w)
{
	if (one_of(w, 64))
		vmemt_ept_tell(w, w->pending_count, 1);
	else if (w->pending_count > VMEMT_EPT_PENDING - 2)
		vmemt_ept_tell(w, 2 + (uint32_t)vmemt_ept_draw(w, VMEMT_EPT_PENDING - 2), 1);
	else if (one_of(w, 12))
		vmemt_ept_tell(w, (uint32_t)vmemt_ept_draw(w, w->pending_count + 1), one_of(w, 2));
}
