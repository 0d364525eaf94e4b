/* SPDX-License-Identifier: BSD-2-Clause */
/* A pretend processor, or many that each remember something else: each translation that was made, and each entry on the way,
 * until an invalidation that covers it, and it goes on using all of them. What is remembered must be right (then no access gets
 * what was taken away), or the change that made it wrong must have said so; and what is read by way of something that is
 * wrong must be covered by what is still owed, since else it would stay. It sets accessed and dirty bits in whatever table it
 * reads. Entries are in buckets by 2 MiB, larger ones in the first. */
#include "ept/ept_model.h"

#define PAGE UINT64_C(4096)
#define REGION VMEM_EPT_LEVEL_BYTES(2)

static int overlaps(uint64_t gpa, uint64_t bytes, uint64_t other, uint64_t other_bytes)
{
	return gpa < other + other_bytes && other < gpa + bytes;
}

/* --- What it remembers --- */

static uint32_t *bucket_of(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes)
{
	uint64_t hash = gpa / REGION * UINT64_C(0x9e3779b97f4a7c15) >> 32;

	return &w->bucket[bytes > REGION ? 0 : 1 + hash % (VMEMT_EPT_BUCKETS - 1)];
}

/* Goes over what touches a range; @each returns whether it is to be forgotten. */
typedef int (*each_cached)(struct vmemt_ept_world *w, struct vmemt_ept_cached *c);

static void over_bucket(struct vmemt_ept_world *w, uint32_t *link, uint64_t gpa, uint64_t bytes,
			each_cached each)
{
	while (*link) {
		uint32_t number = *link;
		struct vmemt_ept_cached *c = &w->cache[number - 1];

		if (!overlaps(c->gpa, c->bytes, gpa, bytes) || !each(w, c)) {
			link = &c->next;
			continue;
		}
		*link = c->next;
		c->next = w->cache_free;
		w->cache_free = number;
		w->cached--;
	}
}

/* A bucket may be met twice. */
static void over_range(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes, each_cached each)
{
	if (bytes / REGION >= VMEMT_EPT_BUCKETS) {
		for (uint32_t i = 0; i < VMEMT_EPT_BUCKETS; i++)
			over_bucket(w, &w->bucket[i], gpa, bytes, each);
		return;
	}
	over_bucket(w, &w->bucket[0], gpa, bytes, each);
	for (uint64_t at = gpa & ~(REGION - 1); at < gpa + bytes; at += REGION)
		over_bucket(w, bucket_of(w, at, REGION), gpa, bytes, each);
}

static uint32_t number_new(struct vmemt_ept_world *w)
{
	uint32_t number = w->cache_free, room = w->cache_room ? 2 * w->cache_room : 1024;

	if (!number) {
		w->cache = realloc(w->cache, room * sizeof(*w->cache));
		VMEMT_HOLDS(w->cache);
		for (uint32_t i = w->cache_room; i < room; i++)
			w->cache[i].next = i + 1 < room ? i + 2 : 0;
		number = w->cache_room + 1;
		w->cache_room = room;
	}
	w->cache_free = w->cache[number - 1].next;
	w->cached++;
	return number;
}

static int same(const struct vmemt_ept_cached *a, const struct vmemt_ept_cached *b)
{
	return a->kind == b->kind && a->gpa == b->gpa && a->level == b->level && a->hpa == b->hpa &&
	       a->rights == b->rights && a->type == b->type && a->bits == b->bits &&
	       a->until == b->until;
}

static void remember(struct vmemt_ept_world *w, const struct vmemt_ept_cached *c)
{
	uint32_t *link = bucket_of(w, c->gpa, c->bytes), first = *link, number;

	for (number = first; number; number = w->cache[number - 1].next)
		if (same(&w->cache[number - 1], c))
			return;
	number = number_new(w);
	w->cache[number - 1] = *c;
	w->cache[number - 1].next = first;
	*link = number;
}

/* --- Whether it is right --- */

static int rights_right(const struct vmemt_ept_world *w, uint32_t cached, uint32_t now)
{
	/* A DMA remapping unit need not look again before it faults. */
	return w->caps.format == VMEM_EPT_VTD ? cached == now : !(cached & ~now);
}

/* A walk now finds the same table, with no fewer rights, through entries that are accessed. */
static int upper_right(const struct vmemt_ept_world *w, const struct vmemt_ept_cached *c)
{
	uint64_t table = vmem_ept_pointer(w->ept) & VMEM_EPT_ADDRESS;
	uint64_t bits = vmemt_ept_bits(w, c->bits);
	uint32_t rights = 15;

	for (uint32_t level = w->opts.levels; level >= c->level; level--) {
		uint64_t entry = *vmemt_ept_entry(w, table, c->gpa, level);

		if (!vmemt_ept_is_table(w, entry, level) || bits & ~entry)
			return 0;
		rights &= vmemt_ept_rights(w, entry);
		table = vmemt_ept_address(entry, 1);
	}
	return table == c->hpa && !(c->rights & ~rights);
}

/* The memory type as it is in an entry, with the bit that ignores the PAT. */
static uint32_t type_bits(const struct vmemt_ept_world *w, const struct vmemt_ept_extent *e)
{
	if (w->caps.format == VMEM_EPT_INTEL)
		return e->type | (e->flags & VMEM_EPT_LEAF_IGNORE_PAT ? 8 : 0);
	return e->type == VMEM_EPT_UC ? 3 : e->type == VMEM_EPT_WT ? 1 : 0;
}

static uint32_t type_of(const struct vmemt_ept_world *w, uint64_t entry)
{
	if (w->caps.format == VMEM_EPT_VTD)
		return 0;
	return (uint32_t)(entry >> VMEM_EPT_INTEL_TYPE_SHIFT) &
	       (w->caps.format == VMEM_EPT_AMD ? 3 : 15);
}

static int translation_right(const struct vmemt_ept_world *w, const struct vmemt_ept_cached *c)
{
	uint64_t at = c->gpa;

	while (at < c->gpa + c->bytes) {
		uint32_t i = vmemt_ept_first(w, at);
		const struct vmemt_ept_extent *e = &w->extent[i];

		if (i == w->extents || e->gpa > at || !e->level || (c->bits & ~e->flags) ||
		    e->value + (at - e->gpa) != c->hpa + (at - c->gpa) ||
		    c->type != type_bits(w, e) || !rights_right(w, c->rights, e->rights))
			return 0;
		at = e->gpa + e->bytes;
	}
	return 1;
}

static int absence_right(const struct vmemt_ept_world *w, const struct vmemt_ept_cached *c)
{
	uint32_t i = vmemt_ept_first(w, c->gpa);
	const struct vmemt_ept_extent *e = &w->extent[i];

	return i == w->extents || e->gpa > c->gpa || !e->level || !e->rights;
}

static int is_right(const struct vmemt_ept_world *w, const struct vmemt_ept_cached *c)
{
	if (c->kind == VMEMT_EPT_UPPER)
		return upper_right(w, c);
	return c->kind == VMEMT_EPT_TRANSLATION ? translation_right(w, c) : absence_right(w, c);
}

static int check_cached(struct vmemt_ept_world *w, struct vmemt_ept_cached *c)
{
	if (c->until || is_right(w, c))
		return 0;
	fprintf(stderr,
		"kind %d, level %u, %#llx to %#llx, rights %u, bits %u is wrong, and not owed\n",
		c->kind, c->level, (unsigned long long)c->gpa, (unsigned long long)c->hpa,
		c->rights, c->bits);
	abort();
}

static int covers(const struct vmem_ept_change *change, const struct vmemt_ept_cached *c)
{
	if (change->flush == VMEM_EPT_FLUSH_ALL)
		return 1;
	for (uint32_t r = 0; r < change->range_count; r++)
		if (overlaps(c->gpa, c->bytes, change->ranges[r].gpa, change->ranges[r].bytes))
			return 1;
	return 0;
}

static int excuse(struct vmemt_ept_world *w, struct vmemt_ept_cached *c)
{
	if (!c->until && !is_right(w, c))
		c->until = w->pending[w->pending_count - 1].number;
	return 0;
}

void vmemt_ept_excuse(struct vmemt_ept_world *w, const struct vmem_ept_range *range)
{
	over_range(w, range->gpa, range->bytes, excuse);
}

void vmemt_ept_cached_check(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes)
{
	if (w->cached)
		over_range(w, gpa, bytes, check_cached);
}

static int forget(struct vmemt_ept_world *w, struct vmemt_ept_cached *c)
{
	(void)w;
	(void)c;
	return 1;
}

void vmemt_ept_forget(struct vmemt_ept_world *w, const struct vmem_ept_range *range)
{
	over_range(w, range->gpa, range->bytes, forget);
}

static int need_not_be_accessed(struct vmemt_ept_world *w, struct vmemt_ept_cached *c)
{
	(void)w;
	c->bits &= ~(uint32_t)VMEM_EPT_LEAF_ACCESSED;
	return 0;
}

/* Accessed bits of a range were cleared, and what is remembered of it may stay. */
void vmemt_ept_stale_fine(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes)
{
	over_range(w, gpa, bytes, need_not_be_accessed);
}

/* --- Page-modification logging --- */

void vmemt_ept_drain(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes)
{
	uint64_t got[VMEMT_EPT_BITMAP / 64] = { 0 }, want[VMEMT_EPT_BITMAP / 64] = { 0 };
	uint32_t outside = 1234, beyond = 0;

	VMEMT_HOLDS(bytes <= VMEMT_EPT_BITMAP * PAGE);
	VMEMT_HOLDS(vmem_ept_pml_drain(w->pml, w->pml_index, gpa, bytes, got, &outside) ==
		    w->log_count);
	for (uint64_t i = 0; i < w->log_count; i++) {
		uint64_t page = (w->logged[i] - gpa) / PAGE;

		if (w->logged[i] < gpa || w->logged[i] >= gpa + bytes)
			beyond++;
		else
			want[page / 64] |= UINT64_C(1) << page % 64;
	}
	VMEMT_HOLDS(outside == beyond);
	for (uint32_t i = 0; i < VMEMT_EPT_BITMAP / 64; i++)
		VMEMT_HOLDS(got[i] == want[i]);
	w->log_count = 0;
	w->pml_index = VMEM_EPT_PML_ENTRIES - 1;
}

static void log_write(struct vmemt_ept_world *w, uint64_t gpa)
{
	if (w->caps.format != VMEM_EPT_INTEL)
		return;
	gpa &= ~(PAGE - 1);
	w->pml[w->pml_index--] = gpa;
	w->logged[w->log_count++] = gpa;
	if (w->pml_index >= VMEM_EPT_PML_ENTRIES) /* full: it has run below 0 */
		vmemt_ept_drain(w, gpa & ~(REGION - 1), REGION);
}

/* --- Accesses --- */

struct walk {
	uint64_t gpa, table;
	uint32_t level, rights, bits;
	int live; /* the tables are those that there are, not such as were left out */
};

/* At the root, or below something remembered, wherever that leads. */
static void begin(struct vmemt_ept_world *w, uint64_t gpa, struct walk *walk)
{
	uint32_t *starts[] = { &w->bucket[0], bucket_of(w, gpa & ~(REGION - 1), REGION) };
	uint32_t found = 1;

	*walk = (struct walk){ .gpa = gpa,
			       .table = vmem_ept_pointer(w->ept) & VMEM_EPT_ADDRESS,
			       .level = w->opts.levels,
			       .rights = 15,
			       .bits = VMEM_EPT_LEAF_ACCESSED,
			       .live = 1 };
	for (uint32_t s = 0; s < 2; s++)
		for (uint32_t n = *starts[s]; n; n = w->cache[n - 1].next) {
			const struct vmemt_ept_cached *c = &w->cache[n - 1];

			if (c->kind != VMEMT_EPT_UPPER || gpa - c->gpa >= c->bytes ||
			    vmemt_rand(&w->rng) % ++found)
				continue;
			walk->table = c->hpa;
			walk->level = c->level - 1;
			walk->rights = c->rights;
			walk->bits = c->bits;
		}
	if (walk->level < w->opts.levels) {
		const uint64_t *slot = vmemt_ept_slot(w, gpa, walk->level + 1);

		walk->live = slot && vmemt_ept_is_table(w, *slot, walk->level + 1) &&
			     vmemt_ept_address(*slot, 1) == walk->table;
	}
}

/* Sets bits of the leaf, and those of the list: of what is mapped there, or of the table if that was merged. */
static void use(struct vmemt_ept_world *w, const struct walk *walk, uint64_t *entry, int write)
{
	uint32_t bits = VMEM_EPT_LEAF_ACCESSED | (write ? VMEM_EPT_LEAF_DIRTY : 0), i;
	uint64_t size = VMEM_EPT_LEVEL_BYTES(walk->level), start = walk->gpa & ~(size - 1);

	if (write && (~*entry & vmemt_ept_bits(w, VMEM_EPT_LEAF_DIRTY)))
		log_write(w, walk->gpa);
	*entry |= vmemt_ept_bits(w, bits);
	if (!walk->live) {
		vmemt_ept_marked(w, walk->table, bits);
		return;
	}
	vmemt_ept_cut(w, start);
	vmemt_ept_cut(w, start + size);
	i = vmemt_ept_first(w, start);
	VMEMT_HOLDS(i < w->extents && w->extent[i].gpa == start &&
		    w->extent[i].level == walk->level);
	w->extent[i].flags |= bits;
	vmemt_ept_join(w, start, size);
}

/* If it is wrong from the beginning, it must be forgotten with something that is still owed. */
static void learn(struct vmemt_ept_world *w, const struct walk *walk, struct vmemt_ept_cached *c)
{
	c->bytes = VMEM_EPT_LEVEL_BYTES(c->level);
	c->gpa = walk->gpa & ~(c->bytes - 1);
	for (uint32_t i = w->pending_count; !is_right(w, c) && !c->until; i--) {
		if (i == 0)
			check_cached(w, c);
		else if (!w->pending[i - 1].told && covers(&w->pending[i - 1].change, c))
			c->until = w->pending[i - 1].number;
	}
	remember(w, c);
}

static void learn_leaf(struct vmemt_ept_world *w, const struct walk *walk, uint64_t *entry)
{
	struct vmemt_ept_cached c = { .kind = VMEMT_EPT_TRANSLATION,
				      .rights = walk->rights,
				      .level = walk->level };

	if (w->opts.flags & VMEM_EPT_AD) {
		use(w, walk, entry, walk->rights & VMEM_EPT_WRITE && vmemt_rand(&w->rng) % 2);
		c.bits = VMEM_EPT_LEAF_ACCESSED;
		if (*entry & vmemt_ept_bits(w, VMEM_EPT_LEAF_DIRTY))
			c.bits |= VMEM_EPT_LEAF_DIRTY;
	}
	c.hpa = vmemt_ept_address(*entry, walk->level);
	c.type = type_of(w, *entry);
	learn(w, walk, &c);
}

static void learn_upper(struct vmemt_ept_world *w, struct walk *walk, uint64_t *entry)
{
	struct vmemt_ept_cached c = { .kind = VMEMT_EPT_UPPER,
				      .rights = walk->rights,
				      .level = walk->level,
				      .bits = walk->bits };

	if (walk->live)
		vmemt_ept_upper_walked(w, walk->gpa, walk->level);
	*entry |= vmemt_ept_bits(w, VMEM_EPT_LEAF_ACCESSED);
	c.hpa = walk->table = vmemt_ept_address(*entry, 1);
	walk->level--;
	learn(w, walk, &c);
}

void vmemt_ept_access(struct vmemt_ept_world *w, uint64_t gpa)
{
	struct vmemt_ept_cached none = { .kind = VMEMT_EPT_ABSENCE, .level = 1 };
	struct walk walk;

	for (begin(w, gpa, &walk);;) {
		uint64_t *entry = vmemt_ept_entry(w, walk.table, gpa, walk.level);

		if (!vmemt_ept_present(w, *entry)) {
			if (w->opts.flags & VMEM_EPT_CACHES_ABSENT)
				learn(w, &walk, &none);
			return;
		}
		walk.rights &= vmemt_ept_rights(w, *entry);
		if (!vmemt_ept_is_table(w, *entry, walk.level)) {
			learn_leaf(w, &walk, entry);
			return;
		}
		learn_upper(w, &walk, entry);
	}
}
