/* SPDX-License-Identifier: BSD-2-Clause */
/* A pretend processor: it remembers each translation that it has made, and each entry on the way, until an invalidation
 * that covers it. What it remembers must always be right: then no access gets what was taken away, and no walk goes
 * through a table that is gone. */
#include "ept/ept_model.h"

#define PAGE UINT64_C(4096)

static int present(const struct vmemt_ept_world *w, uint64_t entry)
{
	if (w->caps.format == VMEM_EPT_AMD)
		return (entry & VMEM_EPT_AMD_PRESENT) != 0;
	if (w->caps.format == VMEM_EPT_VTD)
		return (entry & (VMEM_EPT_VTD_READ | VMEM_EPT_VTD_WRITE)) != 0;
	return (entry & (VMEM_EPT_INTEL_READ | VMEM_EPT_INTEL_WRITE | VMEM_EPT_INTEL_EXEC |
			 (w->caps.caps & VMEM_EPT_CAP_MBEC ? VMEM_EPT_INTEL_EXEC_USER : 0))) != 0;
}

static uint32_t rights_of(const struct vmemt_ept_world *w, uint64_t entry)
{
	uint32_t rights = (uint32_t)(entry & 7);

	if (w->caps.format == VMEM_EPT_AMD) {
		rights = VMEM_EPT_READ | (uint32_t)(entry & VMEM_EPT_AMD_WRITE);
		return rights | (entry & VMEM_EPT_AMD_NO_EXEC ? 0 : VMEM_EPT_EXEC);
	}
	if (w->caps.format == VMEM_EPT_VTD)
		return rights & 3;
	if (w->caps.caps & VMEM_EPT_CAP_MBEC && entry & VMEM_EPT_INTEL_EXEC_USER)
		rights |= VMEM_EPT_EXEC_USER;
	return rights;
}

static uint64_t *entry_at(const struct vmemt_ept_world *w, uint64_t table, uint64_t gpa,
			  uint32_t level)
{
	return vmemt_ept_table(&w->memory, table) + (gpa >> (12 + 9 * (level - 1)) & 511);
}

static uint64_t address_of(uint64_t entry, uint32_t level)
{
	return entry & VMEM_EPT_ADDRESS & ~(VMEM_EPT_LEVEL_BYTES(level) - 1);
}

static struct vmemt_ept_cached *remember(struct vmemt_ept_world *w, enum vmemt_ept_kind kind,
					 uint64_t gpa, uint32_t level)
{
	uint64_t bytes = VMEM_EPT_LEVEL_BYTES(level);
	struct vmemt_ept_cached *c;
	uint32_t i;

	gpa &= ~(bytes - 1);
	for (i = 0; i < w->cached; i++) {
		c = &w->cache[i];
		if (c->kind == kind && c->gpa == gpa && c->level == level)
			break;
	}
	if (i == w->cached && w->cached < VMEMT_EPT_CACHED)
		w->cached++;
	else if (i == w->cached)
		i = (uint32_t)(vmemt_rand(&w->rng) % VMEMT_EPT_CACHED);
	c = &w->cache[i];
	*c = (struct vmemt_ept_cached){ .kind = kind, .level = level, .gpa = gpa, .bytes = bytes };
	return c;
}

/* Sets bits of the leaf at @gpa, in the tables and in the list. */
static void used(struct vmemt_ept_world *w, uint64_t *entry, uint64_t gpa, uint32_t level,
		 int write)
{
	int amd = w->caps.format == VMEM_EPT_AMD;
	uint64_t size = VMEM_EPT_LEVEL_BYTES(level), start = gpa & ~(size - 1);
	uint32_t i;

	*entry |= amd ? VMEM_EPT_AMD_ACCESSED : VMEM_EPT_INTEL_ACCESSED;
	if (write)
		*entry |= amd ? VMEM_EPT_AMD_DIRTY : VMEM_EPT_INTEL_DIRTY;
	vmemt_ept_cut(w, start);
	vmemt_ept_cut(w, start + size);
	i = vmemt_ept_first(w, start);
	VMEMT_HOLDS(i < w->extents && w->extent[i].gpa == start && w->extent[i].level == level);
	w->extent[i].flags |= VMEM_EPT_LEAF_ACCESSED | (write ? VMEM_EPT_LEAF_DIRTY : 0);
	vmemt_ept_join(w, start, size);
}

/* Where a walk to @gpa begins: at the root, or below something remembered. */
static uint32_t begin(struct vmemt_ept_world *w, uint64_t gpa, uint64_t *table, uint32_t *rights)
{
	uint32_t level = w->opts.levels;

	*table = vmem_ept_pointer(w->ept) & VMEM_EPT_ADDRESS;
	*rights = 15;
	for (uint32_t i = 0; i < w->cached; i++) {
		const struct vmemt_ept_cached *c = &w->cache[i];

		if (c->kind == VMEMT_EPT_UPPER && gpa - c->gpa < c->bytes && c->level <= level) {
			*table = c->hpa;
			*rights = c->rights;
			level = c->level - 1;
		}
	}
	return level;
}

static int overlaps(uint64_t gpa, uint64_t bytes, uint64_t other, uint64_t other_bytes)
{
	return gpa < other + other_bytes && other < gpa + bytes;
}

static int is_owed(const struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes)
{
	for (uint32_t i = 0; i < w->owed_count; i++)
		if (overlaps(gpa, bytes, w->owed[i].gpa, w->owed[i].bytes))
			return 1;
	return 0;
}

void vmemt_ept_access(struct vmemt_ept_world *w, uint64_t gpa)
{
	int ad = (w->opts.flags & VMEM_EPT_AD) != 0;
	struct vmemt_ept_cached *c;
	uint64_t table, *entry;
	uint32_t rights, level;

	if (is_owed(w, gpa, 1)) /* what it does there is not told by the list */
		return;
	level = begin(w, gpa, &table, &rights);
	for (;; level--) {
		uint64_t large = VMEM_EPT_INTEL_LARGE; /* of all formats */

		entry = entry_at(w, table, gpa, level);
		if (!present(w, *entry)) {
			if (w->opts.flags & VMEM_EPT_CACHES_ABSENT)
				remember(w, VMEMT_EPT_ABSENCE, gpa, 1);
			return;
		}
		rights &= rights_of(w, *entry);
		if (level == 1 || (level <= 3 && *entry & large))
			break;
		table = address_of(*entry, 1);
		if (ad)
			*entry |= w->caps.format == VMEM_EPT_AMD ? VMEM_EPT_AMD_ACCESSED
								 : VMEM_EPT_INTEL_ACCESSED;
		c = remember(w, VMEMT_EPT_UPPER, gpa, level);
		c->rights = rights;
		c->hpa = table;
	}
	if (ad)
		used(w, entry, gpa, level, rights & VMEM_EPT_WRITE && vmemt_rand(&w->rng) % 2);
	c = remember(w, VMEMT_EPT_TRANSLATION, gpa, level);
	c->rights = rights;
	c->hpa = address_of(*entry, level);
	c->type = (uint32_t)(*entry >> VMEM_EPT_INTEL_TYPE_SHIFT & 7);
}

void vmemt_ept_owe(struct vmemt_ept_world *w, const struct vmem_ept_change *change)
{
	VMEMT_HOLDS(change->flush <= VMEM_EPT_FLUSH_ALL);
	VMEMT_HOLDS(change->range_count <= VMEM_EPT_RANGES);
	if (change->flush == VMEM_EPT_FLUSH_NONE)
		return;
	if (change->flush == VMEM_EPT_FLUSH_ALL) {
		w->owed[0] = (struct vmem_ept_range){ 0, w->top };
		w->owed_count = 1;
		return;
	}
	VMEMT_HOLDS(w->owed_count + change->range_count <= VMEMT_EPT_OWED);
	for (uint32_t r = 0; r < change->range_count; r++)
		w->owed[w->owed_count++] = change->ranges[r];
}

void vmemt_ept_invalidate(struct vmemt_ept_world *w)
{
	for (uint32_t i = 0; w->owed_count && i < w->cached;) {
		struct vmemt_ept_cached *c = &w->cache[i];

		if (is_owed(w, c->gpa, c->bytes))
			*c = w->cache[--w->cached];
		else
			i++;
	}
	w->owed_count = 0;
}

/* A walk now finds the same table, with no fewer rights. */
static void upper_right(const struct vmemt_ept_world *w, const struct vmemt_ept_cached *c)
{
	uint64_t table = vmem_ept_pointer(w->ept) & VMEM_EPT_ADDRESS;
	uint32_t rights = 15;

	for (uint32_t level = w->opts.levels; level >= c->level; level--) {
		uint64_t entry = *entry_at(w, table, c->gpa, level);

		VMEMT_HOLDS(present(w, entry));
		VMEMT_HOLDS(level > 3 || !(entry & VMEM_EPT_INTEL_LARGE));
		rights &= rights_of(w, entry);
		table = address_of(entry, 1);
	}
	VMEMT_HOLDS(table == c->hpa);
	VMEMT_HOLDS(!(c->rights & ~rights));
}

static void translation_right(const struct vmemt_ept_world *w, const struct vmemt_ept_cached *c)
{
	uint64_t at = c->gpa;

	while (at < c->gpa + c->bytes) {
		uint32_t i = vmemt_ept_first(w, at);
		const struct vmemt_ept_extent *e = &w->extent[i];

		VMEMT_HOLDS(i < w->extents && e->gpa <= at && e->level);
		VMEMT_HOLDS(e->value + (at - e->gpa) == c->hpa + (at - c->gpa));
		VMEMT_HOLDS(!(c->rights & ~e->rights));
		VMEMT_HOLDS(w->caps.format != VMEM_EPT_INTEL || c->type == e->type);
		at = e->gpa + e->bytes;
	}
}

void vmemt_ept_cached_right(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes)
{
	for (uint32_t n = 0; n < w->cached; n++) {
		const struct vmemt_ept_cached *c = &w->cache[n];
		uint32_t i;

		if (!overlaps(c->gpa, c->bytes, gpa, bytes) || is_owed(w, c->gpa, c->bytes))
			continue;
		i = vmemt_ept_first(w, c->gpa);
		if (c->kind == VMEMT_EPT_UPPER)
			upper_right(w, c);
		else if (c->kind == VMEMT_EPT_TRANSLATION)
			translation_right(w, c);
		else if (c->kind == VMEMT_EPT_ABSENCE)
			VMEMT_HOLDS(i == w->extents || w->extent[i].gpa > c->gpa ||
				    !w->extent[i].level || !w->extent[i].rights);
	}
}
