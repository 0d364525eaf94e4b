/* SPDX-License-Identifier: BSD-2-Clause */
/* The list of extents: see ept_model.h. */
#include "ept/ept_model.h"
#include <string.h>

#define PAGE UINT64_C(4096)

/* --- The list --- */

uint32_t vmemt_ept_first(const struct vmemt_ept_world *w, uint64_t gpa)
{
	uint32_t low = 0, high = w->extents;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (w->extent[middle].gpa + w->extent[middle].bytes > gpa)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static void insert(struct vmemt_ept_world *w, uint32_t at, const struct vmemt_ept_extent *e)
{
	VMEMT_HOLDS(w->extents < VMEMT_EPT_EXTENTS);
	memmove(w->extent + at + 1, w->extent + at, (w->extents - at) * sizeof(*e));
	w->extent[at] = *e;
	w->extents++;
}

static void remove_at(struct vmemt_ept_world *w, uint32_t at, uint32_t count)
{
	w->extents -= count;
	memmove(w->extent + at, w->extent + at + count, (w->extents - at) * sizeof(*w->extent));
}

static uint64_t value_at(const struct vmemt_ept_extent *e, uint64_t offset)
{
	return e->value + (e->level ? offset : offset / PAGE * e->step);
}

/* The extent is two from @gpa on, which is no place inside a leaf. */
static void divide(struct vmemt_ept_world *w, uint32_t at, uint64_t gpa)
{
	struct vmemt_ept_extent e = w->extent[at];
	uint64_t offset = gpa - e.gpa;

	if (!offset || offset == e.bytes)
		return;
	w->extent[at].bytes = offset;
	e.value = value_at(&e, offset);
	e.gpa = gpa;
	e.bytes -= offset;
	insert(w, at + 1, &e);
}

/* No leaf crosses @gpa: that one becomes smaller ones. */
void vmemt_ept_cut(struct vmemt_ept_world *w, uint64_t gpa)
{
	for (;;) {
		uint32_t at = vmemt_ept_first(w, gpa);
		struct vmemt_ept_extent *e = &w->extent[at];
		uint64_t leaf, start;

		if (at == w->extents || e->gpa >= gpa)
			return;
		leaf = e->level ? VMEM_EPT_LEVEL_BYTES(e->level) : PAGE;
		start = gpa & ~(leaf - 1);
		if (start == gpa) {
			divide(w, at, gpa);
			return;
		}
		divide(w, at, start);
		at = vmemt_ept_first(w, gpa);
		divide(w, at, start + leaf);
		w->extent[at].level--;
	}
}

/* Extents end where the leaf does that crosses @gpa, without splitting it. */
void vmemt_ept_cut_at_leaves(struct vmemt_ept_world *w, uint64_t gpa)
{
	uint32_t i = vmemt_ept_first(w, gpa);
	uint64_t leaf;

	if (i == w->extents || w->extent[i].gpa >= gpa)
		return;
	leaf = w->extent[i].level ? VMEM_EPT_LEVEL_BYTES(w->extent[i].level) : PAGE;
	if (gpa & (leaf - 1))
		vmemt_ept_cut(w, (gpa & ~(leaf - 1)) + leaf);
	vmemt_ept_cut(w, gpa & ~(leaf - 1));
}

int vmemt_ept_overlaps(const struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes,
		       uint32_t mapped_only)
{
	for (uint32_t i = vmemt_ept_first(w, gpa); i < w->extents; i++) {
		if (w->extent[i].gpa >= gpa + bytes)
			break;
		if (w->extent[i].level || !mapped_only)
			return 1;
	}
	return 0;
}

void vmemt_ept_punch(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes)
{
	uint32_t from, to;

	vmemt_ept_cut(w, gpa);
	vmemt_ept_cut(w, gpa + bytes);
	from = vmemt_ept_first(w, gpa);
	to = vmemt_ept_first(w, gpa + bytes);
	remove_at(w, from, to - from);
}

void vmemt_ept_put(struct vmemt_ept_world *w, const struct vmemt_ept_extent *e)
{
	insert(w, vmemt_ept_first(w, e->gpa), e);
}

static int alike(const struct vmemt_ept_extent *a, const struct vmemt_ept_extent *b)
{
	return a->rights == b->rights && a->type == b->type && a->flags == b->flags &&
	       a->logged == b->logged;
}

/* Makes extents of those that go on in each other one, so that the list stays short. */
void vmemt_ept_join(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes)
{
	uint32_t at = vmemt_ept_first(w, gpa);

	at -= at > 0;
	while (at + 1 < w->extents && w->extent[at].gpa <= gpa + bytes) {
		struct vmemt_ept_extent *a = &w->extent[at], *b = a + 1;

		if (a->gpa + a->bytes == b->gpa && a->level == b->level && alike(a, b) &&
		    a->step == b->step && value_at(a, a->bytes) == b->value) {
			a->bytes += b->bytes;
			remove_at(w, at + 1, 1);
		} else {
			at++;
		}
	}
}

/* Leaves above @level become leaves of it. The range is cut before. */
void vmemt_ept_lower(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes, uint32_t level)
{
	for (uint32_t i = vmemt_ept_first(w, gpa); i < w->extents; i++) {
		if (w->extent[i].gpa >= gpa + bytes)
			break;
		if (w->extent[i].level > level)
			w->extent[i].level = level;
	}
}

/* Into a range that is empty: leaves as large as fit, up to @most. */
void vmemt_ept_put_leaves(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes,
			  const struct vmemt_ept_extent *like, uint32_t most)
{
	uint64_t end = gpa + bytes;
	struct vmemt_ept_extent e = *like;

	while (gpa < end) {
		uint64_t leaf;

		e.level = most;
		while (((gpa | e.value) & (VMEM_EPT_LEVEL_BYTES(e.level) - 1)) ||
		       end - gpa < VMEM_EPT_LEVEL_BYTES(e.level))
			e.level--;
		leaf = VMEM_EPT_LEVEL_BYTES(e.level);
		e.gpa = gpa;
		if (e.level == most) {
			e.bytes = (end - gpa) & ~(leaf - 1);
		} else {
			uint64_t next = VMEM_EPT_LEVEL_BYTES(e.level + 1);
			uint64_t stop = (gpa & ~(next - 1)) + next;

			/* Never larger ones: gpa and hpa differ below their size. */
			if ((gpa ^ e.value) & (next - 1))
				stop = end;
			e.bytes = ((stop < end ? stop : end) - gpa) & ~(leaf - 1);
		}
		vmemt_ept_put(w, &e);
		e.value += e.bytes;
		gpa += e.bytes;
	}
}

/* Whether leaves of @level - 1 fill [@gpa, one leaf of @level), alike and in a row; then they become one. */
static uint64_t merge_one(struct vmemt_ept_world *w, uint64_t gpa, uint32_t level)
{
	const uint32_t ad = VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY;
	uint64_t bytes = VMEM_EPT_LEVEL_BYTES(level), at = gpa;
	uint32_t i = vmemt_ept_first(w, gpa);
	struct vmemt_ept_extent one;
	uint32_t flags = 0;

	if (i == w->extents || w->extent[i].gpa > gpa || w->extent[i].level != level - 1)
		return 0;
	one = w->extent[i];
	one.value += gpa - one.gpa;
	if (one.logged || one.flags & VMEM_EPT_LEAF_SUBPAGE ||
	    (w->opts.flags & VMEM_EPT_NO_EXEC_LARGE &&
	     one.rights & (VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER)))
		return 0;
	if (one.value & (bytes - 1))
		return 0;
	for (; at < gpa + bytes; i++) {
		struct vmemt_ept_extent e = w->extent[i];

		if (i == w->extents || e.gpa > at || e.level != level - 1 ||
		    value_at(&e, at - e.gpa) != one.value + (at - gpa))
			return 0;
		flags |= e.flags & ad;
		e.flags = (e.flags & ~ad) | (one.flags & ad);
		if (!alike(&e, &one))
			return 0;
		at = e.gpa + e.bytes;
	}
	vmemt_ept_punch(w, gpa, bytes);
	one.gpa = gpa;
	one.bytes = bytes;
	one.level = level;
	one.flags |= flags;
	vmemt_ept_put(w, &one);
	vmemt_ept_merged(w, gpa, level, flags);
	return 1;
}

uint64_t vmemt_ept_merge_tables(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes,
				uint32_t level)
{
	uint64_t made = 0;

	for (uint32_t to = 2; to <= level; to++) {
		uint64_t size = VMEM_EPT_LEVEL_BYTES(to), end = gpa + bytes, at;

		for (at = (gpa + size - 1) & ~(size - 1); at + size <= end; at += size) {
			uint32_t i = vmemt_ept_first(w, at);

			if (i == w->extents)
				break;
			if (w->extent[i].gpa >= at + size) /* a hole */
				at = (w->extent[i].gpa & ~(size - 1)) - size;
			else
				made += merge_one(w, at, to);
		}
	}
	return made;
}

/* --- Tables against list --- */

static void compare_page(struct vmemt_ept_world *w, uint64_t gpa)
{
	struct vmem_ept_leaf leaf = { 0 };
	uint64_t payload = 1234;
	uint32_t i = vmemt_ept_first(w, gpa);
	const struct vmemt_ept_extent *e = &w->extent[i];
	int err = vmem_ept_translate(w->ept, gpa, &leaf, &payload);

	if (i == w->extents || e->gpa > gpa) {
		VMEMT_HOLDS(err == -VMEM_ENOENT && payload == UINT64_MAX);
	} else if (!e->level) {
		VMEMT_HOLDS(err == -VMEM_ENOENT && payload == value_at(e, gpa - e->gpa));
	} else {
		VMEMT_HOLDS(err == 0);
		VMEMT_HOLDS(leaf.hpa == value_at(e, gpa - e->gpa));
		VMEMT_HOLDS(leaf.level == e->level);
		VMEMT_HOLDS(leaf.rights == e->rights);
		VMEMT_HOLDS(leaf.type == e->type);
		VMEMT_HOLDS(leaf.flags == e->flags);
	}
}

static void compare_run(struct vmemt_ept_world *w, const struct vmem_ept_run *run, uint64_t stop)
{
	uint64_t at = run->gpa, end = run->gpa + run->bytes;

	VMEMT_HOLDS(run->bytes && end <= w->top);
	while (at < end && at < stop) {
		uint32_t i = vmemt_ept_first(w, at);
		const struct vmemt_ept_extent *e = &w->extent[i];
		uint64_t offset = at - run->gpa;

		VMEMT_HOLDS(i < w->extents && e->gpa <= at && run->leaf.level == e->level);
		if (e->level) {
			VMEMT_HOLDS(run->payload == UINT64_MAX);
			VMEMT_HOLDS(run->leaf.hpa + offset == value_at(e, at - e->gpa));
			VMEMT_HOLDS(run->leaf.rights == e->rights && run->leaf.type == e->type);
			VMEMT_HOLDS(run->leaf.flags == e->flags);
			at = e->gpa + e->bytes;
		} else {
			VMEMT_HOLDS(run->payload + offset / PAGE * run->step ==
				    value_at(e, at - e->gpa));
			at += PAGE;
		}
	}
}

/* All that is mapped or noted in a range, and nothing else. */
void vmemt_ept_compare(struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes)
{
	struct vmem_ept_run run = { .size = sizeof(run) };
	uint64_t at = gpa, stop = gpa + bytes;

	for (uint32_t i = 0; i < 6 && bytes; i++)
		compare_page(w, gpa + vmemt_rand(&w->rng) % (bytes / PAGE) * PAGE);
	compare_page(w, gpa);
	compare_page(w, stop - PAGE);
	vmemt_ept_judge(w, gpa);
	vmemt_ept_judge(w, gpa + vmemt_rand(&w->rng) % (bytes / PAGE) * PAGE);
	while (at < stop) {
		uint32_t i = vmemt_ept_first(w, at);
		int err = vmem_ept_next(w->ept, at, &run);

		if (i == w->extents) {
			VMEMT_HOLDS(err == -VMEM_ENOENT);
			return;
		}
		VMEMT_HOLDS(err == 0);
		VMEMT_HOLDS(run.gpa == (w->extent[i].gpa > at ? w->extent[i].gpa : at));
		compare_run(w, &run, stop);
		at = run.gpa + run.bytes;
	}
}

void vmemt_ept_compare_all(struct vmemt_ept_world *w)
{
	struct vmem_ept_stats stats = { .size = sizeof(stats) };
	uint64_t leaves[VMEM_EPT_LEVELS + 1] = { 0 }, tables = 0;

	vmemt_ept_join(w, 0, w->top);
	vmemt_ept_compare(w, 0, w->top);
	for (uint32_t i = 0; i < w->extents; i++) {
		const struct vmemt_ept_extent *e = &w->extent[i];

		if (!e->level || e->rights)
			leaves[e->level] +=
				e->bytes / (e->level ? VMEM_EPT_LEVEL_BYTES(e->level) : PAGE);
	}
	VMEMT_HOLDS(vmem_ept_get_stats(w->ept, &stats) == 0);
	VMEMT_HOLDS(stats.payloads == leaves[0]);
	for (uint32_t i = 0; i < VMEM_EPT_LEVELS; i++) {
		VMEMT_HOLDS(stats.leaves[i] == leaves[i + 1]);
		tables += stats.tables[i];
	}
	VMEMT_HOLDS(tables + stats.waiting == w->memory.live);
	vmemt_ept_judge_all(w, &stats);
	vmemt_ept_uppers_compare_all(w);
	vmemt_ept_cached_check(w, 0, w->top);
}
