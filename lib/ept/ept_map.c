/* SPDX-License-Identifier: BSD-2-Clause */
/* Filling a range with leaves, or with payloads.
 *
 * A range is cut into runs: entries in a row of one table, of the largest level that alignment allows. The first pass goes
 * over the runs, refuses what it meets, and counts the tables that are missing; the second writes. A run that is the
 * whole range, in a table that is there, is written at once. A new table is filled with its run and what is around it,
 * then linked. Guard: serial calls. */
#include "ept/ept_leaf.h"
#include "ept/ept_runs.h"
#include "ept/ept_tree.h"

struct put {
	struct vmemi_ept_call *c;
	uint64_t gpa, end;
	uint64_t bits[4]; /* of the entries of levels 1..3 */
	uint64_t delta;   /* address minus gpa */
	uint64_t aligned; /* what must be aligned for larger leaves, besides the gpa */
	uint64_t payload, step;
	uint32_t largest;
	bool leaves; /* not payloads */
	bool replace;
	bool clean; /* nothing was met in any entry */
};

/* Entries in a row: count of them at slot. */
struct run {
	uint64_t gpa;
	uint64_t *slot;
	uint64_t count;
	uint32_t level;
};

static uint32_t level_at(const struct put *p, uint64_t gpa)
{
	uint32_t level = p->largest;

	while (level > 1 && (((gpa | p->aligned) & (vmemi_ept_bytes(level) - 1)) ||
			     p->end - gpa < vmemi_ept_bytes(level)))
		level--;
	return level;
}

static void run_at(const struct put *p, uint64_t gpa, uint32_t level, uint64_t *slot, struct run *r)
{
	uint64_t fit = (p->end - gpa) >> vmemi_ept_shift(level);
	uint64_t room = VMEM_EPT_ENTRIES - vmemi_ept_index(gpa, level);

	r->gpa = gpa;
	r->slot = slot;
	r->count = fit < room ? fit : room;
	r->level = level;
}

/* Whether something is mapped below a table. */
static bool maps_below(const vmem_ept *ept, uint64_t entry, uint32_t level)
{
	struct vmemi_ept_tree tree;

	vmemi_ept_tree_begin(ept, &tree, entry & VMEM_EPT_ADDRESS, level - 1);
	while (vmemi_ept_tree_next(ept, &tree))
		for (uint32_t i = 0; i < VMEM_EPT_ENTRIES; i++)
			if (vmemi_ept_is_leaf(vmemi_ept_load(&tree.table[i])))
				return true;
	return false;
}

/* Nothing may be mapped in a run. */
static int refuse_mapped(struct put *p, const struct run *r)
{
	for (uint64_t i = 0; i < r->count; i++) {
		uint64_t entry = vmemi_ept_load(r->slot + i);

		if (vmemi_ept_is_leaf(entry) || (r->level > 1 && vmemi_ept_is_table(entry) &&
						 maps_below(p->c->ept, entry, r->level)))
			return vmemi_ept_fail(p->c, -VMEM_EEXIST, VMEM_EPT_MAPPED,
					      r->gpa + (i << vmemi_ept_shift(r->level)));
	}
	return 0;
}

static int look_at_run(struct put *p, const struct run *r)
{
	if (vmemi_ept_is_empty(vmemi_ept_any_of(r->slot, r->count)))
		return 0;
	p->clean = false;
	return p->replace ? 0 : refuse_mapped(p, r);
}

/* Takes what an entry was out of the counts, and what is below it out of the tables. */
static void forget(struct put *p, uint64_t entry, uint64_t gpa, uint32_t level)
{
	vmem_ept *ept = p->c->ept;

	if (vmemi_ept_is_payload(entry)) {
		ept->payload_pages -= vmemi_ept_bytes(level) >> VMEM_PAGE_SHIFT;
	} else if (level > 1 && vmemi_ept_is_table(entry)) {
		vmemi_ept_retire_tree(p->c, entry & VMEM_EPT_ADDRESS, level - 1, gpa);
	} else if (entry & ept->present) {
		ept->leaves[level - 1]--;
		vmemi_ept_owe(p->c, gpa, vmemi_ept_bytes(level));
	}
}

static uint64_t entry_at(const struct put *p, uint64_t gpa, uint32_t level)
{
	if (p->leaves)
		return p->bits[level] + gpa + p->delta;
	return vmemi_ept_payload_entry(p->c->ept,
				       p->payload + ((gpa - p->gpa) >> VMEM_PAGE_SHIFT) * p->step);
}

static void fill_run(const struct put *p, const struct run *r)
{
	if (p->leaves || !p->step) {
		vmemi_ept_fill(r->slot, r->count, entry_at(p, r->gpa, r->level),
			       p->leaves ? vmemi_ept_bytes(r->level) : 0);
		return;
	}
	for (uint64_t i = 0; i < r->count; i++)
		vmemi_ept_store(r->slot + i, entry_at(p, r->gpa + (i << VMEM_PAGE_SHIFT), 1));
}

static void replace_run(struct put *p, const struct run *r)
{
	for (uint64_t i = 0; i < r->count; i++) {
		uint64_t gpa = r->gpa + (i << vmemi_ept_shift(r->level));
		uint64_t entry = __atomic_exchange_n(r->slot + i, entry_at(p, gpa, r->level),
						     __ATOMIC_RELAXED);

		if (!vmemi_ept_is_empty(entry))
			forget(p, entry, gpa, r->level);
	}
}

static void count_run(struct put *p, const struct run *r)
{
	uint64_t bytes = r->count << vmemi_ept_shift(r->level);
	vmem_ept *ept = p->c->ept;

	vmemi_ept_written(ept, r->slot, r->count);
	p->c->change->leaves += r->count;
	if (!p->leaves) {
		ept->payload_pages += bytes >> VMEM_PAGE_SHIFT;
		return;
	}
	ept->leaves[r->level - 1] += r->count;
	if (ept->flags & VMEM_EPT_CACHES_ABSENT)
		vmemi_ept_owe(p->c, r->gpa, bytes);
}

static void write_run(struct put *p, const struct run *r)
{
	if (p->clean)
		fill_run(p, r);
	else
		replace_run(p, r);
	count_run(p, r);
}

/* Tables below an entry of @level in which nothing is, to hold [gpa, end): one for each entry that is not a leaf. */
static uint64_t tables_below(const struct put *p, uint64_t gpa, uint64_t end, uint32_t level)
{
	uint64_t tables = 0;

	for (; level > 1; level--) {
		uint32_t shift = vmemi_ept_shift(level);
		uint64_t first = gpa >> shift, last = (end - 1) >> shift;
		uint64_t whole_first = (gpa + vmemi_ept_bytes(level) - 1) >> shift;
		uint64_t whole_end = end >> shift;

		tables += last - first + 1;
		if (level <= p->largest && !(p->aligned & (vmemi_ept_bytes(level) - 1)) &&
		    whole_end > whole_first)
			tables -= whole_end - whole_first;
	}
	return tables;
}

static int look(struct put *p, uint64_t *ret_tables)
{
	struct vmemi_ept_path path;
	uint64_t gpa = p->gpa;
	struct run r;
	int err;

	for (*ret_tables = 0; gpa < p->end;) {
		uint32_t level = level_at(p, gpa);
		uint64_t next;

		vmemi_ept_descend(p->c->ept, gpa, level, &path);
		if (path.level == level) {
			run_at(p, gpa, level, path.slots[level], &r);
			if ((err = look_at_run(p, &r)) != 0)
				return err;
			gpa += r.count << vmemi_ept_shift(level);
			continue;
		}
		if (!vmemi_ept_is_empty(path.entry)) {
			p->clean = false;
			if (!p->replace && vmemi_ept_is_leaf(path.entry))
				return vmemi_ept_fail(p->c, -VMEM_EEXIST, VMEM_EPT_MAPPED, gpa);
		}
		next = (gpa | (vmemi_ept_bytes(path.level) - 1)) + 1;
		next = next < p->end ? next : p->end;
		*ret_tables += tables_below(p, gpa, next, path.level);
		gpa = next;
	}
	return 0;
}

/* A table for the run and what is not there around it, filled once. */
static void link_run(struct put *p, const struct vmemi_ept_path *path, struct run *r)
{
	uint64_t hpa, *table = vmemi_ept_table_new(p->c->ept, r->level, &hpa);
	uint64_t before = vmemi_ept_index(r->gpa, r->level);

	r->slot = table + before;
	vmemi_ept_fill(table, before, p->c->ept->absent, 0);
	fill_run(p, r);
	vmemi_ept_fill(r->slot + r->count, VMEM_EPT_ENTRIES - before - r->count, p->c->ept->absent,
		       0);
	vmemi_ept_written(p->c->ept, table, VMEM_EPT_ENTRIES);
	vmemi_ept_link(path->slots[path->level], vmemi_ept_table_entry(p->c->ept, hpa));
	vmemi_ept_written(p->c->ept, path->slots[path->level], 1);
	count_run(p, r);
}

/* Upper entries say that something below was accessed, for harvests that look there only. */
static void mark_accessed(const struct put *p, const struct vmemi_ept_path *path, uint32_t level)
{
	const vmem_ept *ept = p->c->ept;

	if (!p->leaves || !(p->bits[1] & (ept->accessed | ept->dirty)))
		return;
	for (; level <= ept->levels; level++)
		if (!(vmemi_ept_load(path->slots[level]) & ept->accessed)) {
			vmemi_ept_change(ept, path->slots[level], ~UINT64_C(0), ept->accessed);
			vmemi_ept_written(ept, path->slots[level], 1);
		}
}

static void write_all(struct put *p)
{
	struct vmemi_ept_path path;
	uint64_t gpa = p->gpa;
	struct run r;

	while (gpa < p->end) {
		uint32_t level = level_at(p, gpa);

		vmemi_ept_descend(p->c->ept, gpa, level, &path);
		mark_accessed(p, &path, path.level + 1);
		while (path.level > level + 1 ||
		       (path.level > level && !vmemi_ept_is_empty(path.entry)))
			vmemi_ept_push_down(p->c, gpa, &path);
		run_at(p, gpa, level, path.slots[level], &r);
		if (path.level > level)
			link_run(p, &path, &r);
		else
			write_run(p, &r);
		gpa += r.count << vmemi_ept_shift(level);
	}
}

static int put_range(struct put *p)
{
	uint32_t level = level_at(p, p->gpa);
	struct vmemi_ept_path path;
	uint64_t tables;
	struct run r;
	int err;

	vmemi_ept_descend(p->c->ept, p->gpa, level, &path);
	if (path.level == level) {
		run_at(p, p->gpa, level, path.slots[level], &r);
		if (r.count << vmemi_ept_shift(level) == p->end - p->gpa) {
			if ((err = look_at_run(p, &r)) != 0)
				return err;
			mark_accessed(p, &path, level + 1);
			write_run(p, &r);
			return 0;
		}
	}
	if ((err = look(p, &tables)) != 0 ||
	    (tables && (err = vmemi_ept_take(p->c, tables, p->gpa)) != 0))
		return err;
	write_all(p);
	return 0;
}

static __attribute__((noinline)) int map_refuse(struct vmemi_ept_call *c, uint64_t gpa,
						const struct vmem_ept_leaf *leaf, uint32_t flags)
{
	const vmem_ept *ept = c->ept;
	int err;

	if (!vmemi_ept_leaf_fits(ept, leaf)) {
		err = vmemi_ept_leaf_check(ept, leaf, &c->change->reason);
		c->change->at = gpa;
		return err;
	}
	if ((flags & ~VMEM_EPT_REPLACE) || leaf->level > 3)
		return vmemi_ept_fail(c, -VMEM_EINVAL, VMEM_EPT_BAD_CALL, gpa);
	if (leaf->hpa & (VMEM_PAGE_SIZE - 1))
		return vmemi_ept_fail(c, -VMEM_EINVAL, VMEM_EPT_UNALIGNED, gpa);
	if (leaf->hpa >= ept->host_end)
		return vmemi_ept_fail(c, -VMEM_ERANGE, VMEM_EPT_HOST_WIDTH, gpa);
	return vmemi_ept_fail(c, -VMEM_ERANGE, VMEM_EPT_HOST_WIDTH,
			      gpa + (ept->host_end - leaf->hpa));
}

static inline int map_check(struct vmemi_ept_call *c, uint64_t gpa, uint64_t bytes,
			    const struct vmem_ept_leaf *leaf, uint32_t flags)
{
	const vmem_ept *ept = c->ept;

	if (vmemi_ept_leaf_fits(ept, leaf) && !(flags & ~VMEM_EPT_REPLACE) && leaf->level <= 3 &&
	    !(leaf->hpa & (VMEM_PAGE_SIZE - 1)) && leaf->hpa < ept->host_end &&
	    bytes <= ept->host_end - leaf->hpa)
		return 0;
	return map_refuse(c, gpa, leaf, flags);
}

/* Rights and type, flags and level. */
static inline void properties(const struct vmem_ept_leaf *leaf, uint64_t of[2])
{
	of[0] = leaf->rights | (uint64_t)leaf->type << 32;
	of[1] = leaf->flags | (uint64_t)leaf->level << 32;
}

/* No more than a table's worth, in a table that is there, on nothing, of a leaf like the last. That is all that there is
 * to do for it; true: it is done. */
static inline bool map_again(vmem_ept *ept, uint64_t gpa, uint64_t bytes,
			     const struct vmem_ept_leaf *leaf, struct vmem_ept_change *change)
{
	uint64_t of[2], *slot, pages = bytes >> VMEM_PAGE_SHIFT;

	properties(leaf, of);
	if (of[0] != ept->last_leaf[0] || of[1] != ept->last_leaf[1] ||
	    change->size != sizeof(*change) || ((gpa | bytes | leaf->hpa) & (VMEM_PAGE_SIZE - 1)) ||
	    gpa >= ept->quick_end || bytes > ept->quick_end - gpa || pages >= VMEM_EPT_ENTRIES ||
	    pages - 1 >= VMEM_EPT_ENTRIES - vmemi_ept_index(gpa, 1) || leaf->hpa >= ept->host_end ||
	    bytes > ept->host_end - leaf->hpa)
		return false;
	slot = vmemi_ept_quick_slot(ept, gpa);
	if (!slot)
		return false;
	if (pages == 1) {
		if (!vmemi_ept_is_empty(vmemi_ept_load(slot)))
			return false;
		vmemi_ept_store(slot, ept->last_bits + leaf->hpa);
	} else {
		if (!vmemi_ept_is_empty(vmemi_ept_any_of(slot, pages)))
			return false;
		vmemi_ept_fill(slot, pages, ept->last_bits + leaf->hpa, VMEM_PAGE_SIZE);
	}
	ept->leaves[0] += pages;
	vmemi_ept_change_init(change);
	change->leaves = pages;
	return true;
}

/* Leaves like this one need no more than their entry written. */
static void remember(vmem_ept *ept, const struct vmem_ept_leaf *leaf, uint64_t bits)
{
	if ((leaf->flags & (VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY)) ||
	    (ept->flags & (VMEM_EPT_WRITE_BACK | VMEM_EPT_CACHES_ABSENT)))
		return;
	properties(leaf, ept->last_leaf);
	ept->last_bits = bits;
}

static int map_leaves(struct vmemi_ept_call *c, uint64_t gpa, uint64_t bytes,
		      const struct vmem_ept_leaf *leaf, uint32_t flags)
{
	struct put p = {
		.c = c,
		.gpa = gpa,
		.end = gpa + bytes,
		.delta = leaf->hpa - gpa,
		.aligned = leaf->hpa - gpa,
		.largest = vmemi_ept_largest(c->ept, leaf),
		.leaves = true,
		.replace = flags & VMEM_EPT_REPLACE,
		.clean = true,
	};

	for (uint32_t level = 1; level <= 3; level++)
		p.bits[level] = vmemi_ept_leaf_bits(c->ept, leaf, level);
	remember(c->ept, leaf, p.bits[1]);
	return put_range(&p);
}

/* Not inlined: the registers that it needs are no concern of map_again(). */
static __attribute__((noinline)) int map_any(vmem_ept *ept, uint64_t gpa, uint64_t bytes,
					     const struct vmem_ept_leaf *leaf, uint32_t flags,
					     struct vmem_ept_change *change)
{
	struct vmemi_ept_call c;
	int err = vmemi_ept_begin(&c, ept, gpa, bytes, change);

	if (!err && !leaf)
		err = vmemi_ept_fail(&c, -VMEM_EINVAL, VMEM_EPT_BAD_CALL, gpa);
	if (!err && (err = map_check(&c, gpa, bytes, leaf, flags)) == 0)
		err = map_leaves(&c, gpa, bytes, leaf, flags);
	return vmemi_ept_end(&c, err);
}

int vmem_ept_map(vmem_ept *ept, uint64_t gpa, uint64_t bytes, const struct vmem_ept_leaf *leaf,
		 uint32_t flags, struct vmem_ept_change *change)
{
	if (leaf && change && !(flags & ~VMEM_EPT_REPLACE) &&
	    map_again(ept, gpa, bytes, leaf, change))
		return 0;
	return map_any(ept, gpa, bytes, leaf, flags, change);
}

int vmem_ept_set_payload(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint64_t payload,
			 uint64_t step, uint32_t flags, struct vmem_ept_change *change)
{
	const uint64_t most = (UINT64_C(1) << VMEM_EPT_PAYLOAD_BITS) - 1;
	struct vmemi_ept_call c;
	struct put p;
	int err = vmemi_ept_begin(&c, ept, gpa, bytes, change);

	if (!err && ((flags & ~VMEM_EPT_REPLACE) || payload > most ||
		     (step && (bytes >> VMEM_PAGE_SHIFT) - 1 > (most - payload) / step)))
		err = vmemi_ept_fail(&c, -VMEM_EINVAL, VMEM_EPT_BAD_CALL, gpa);
	if (err)
		return vmemi_ept_end(&c, err);
	p = (struct put){
		.c = &c,
		.gpa = gpa,
		.end = gpa + bytes,
		.payload = payload,
		.step = step,
		.largest = step ? 1 : 3,
		.replace = flags & VMEM_EPT_REPLACE,
		.clean = true,
	};
	return vmemi_ept_end(&c, put_range(&p));
}
