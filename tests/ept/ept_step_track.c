/* SPDX-License-Identifier: BSD-2-Clause */
/* Random harvests, logs of writes, and drains of the processor's own log: see ept_step.h. */
#include <string.h>
#include "ept/ept_step.h"

#define PAGE UINT64_C(4096)
#define M2 VMEM_EPT_LEVEL_BYTES(2)

enum { ENDED = 77 }; /* what the callback of a harvest ends it with */

/* --- What is asked for --- */

static void draw_harvest(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	c->how = (enum vmemt_ept_harvest)vmemt_ept_draw(w, 4);
	c->flags = (uint32_t)vmemt_ept_draw(w, 4); /* VMEM_EPT_CLEAR_* */
	if (c->how != VMEMT_EPT_BITMAPS && one_of(w, 2))
		c->flags = (c->flags & VMEM_EPT_CLEAR_ACCESSED) | VMEM_EPT_PRUNE;
	if (!(c->flags & VMEM_EPT_CLEAR_DIRTY) && one_of(w, 2))
		c->flags |= VMEM_EPT_STALE_FINE;
	c->stop_after = UINT64_MAX;
	if (c->how == VMEMT_EPT_LEAVES && one_of(w, 4))
		c->stop_after = 1 + vmemt_ept_draw(w, 8);
	if (c->how >= VMEMT_EPT_LEAVES && one_of(w, 3)) {
		c->gpa = 0;
		c->bytes = w->top;
	}
}

void vmemt_ept_track_draw(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	if (c->operation == VMEMT_EPT_HARVEST)
		draw_harvest(w, c);
	if (c->how < VMEMT_EPT_LEAVES && c->bytes > VMEMT_EPT_BITMAP * PAGE)
		c->bytes = VMEMT_EPT_BITMAP * PAGE;
	if (c->how < VMEMT_EPT_LEAVES &&
	    (c->operation == VMEMT_EPT_HARVEST || c->operation == VMEMT_EPT_LOG_COLLECT))
		c->gpa &= ~(64 * PAGE - 1);
	if (c->operation == VMEMT_EPT_LOG_WRITE)
		c->bytes = PAGE;
	if (c->operation == VMEMT_EPT_LOG_START && c->level == 2 &&
	    ((c->gpa | c->bytes) & (M2 - 1)))
		c->level = 1;
}

/* --- What must come of it --- */

/* What may be written without the right to cannot be logged. */
static int expect_log_start(const struct vmemt_ept_world *w, const struct vmemt_ept_call *c)
{
	for (uint32_t i = vmemt_ept_first(w, c->gpa); i < w->extents; i++) {
		const struct vmemt_ept_extent *e = &w->extent[i];

		if (e->gpa >= c->gpa + c->bytes)
			break;
		if (e->level && e->flags & (VMEM_EPT_LEAF_PAGING_WRITE |
					    VMEM_EPT_LEAF_SHADOW_STACK | VMEM_EPT_LEAF_SUBPAGE))
			return -VMEM_ENOTSUP;
	}
	return 0;
}

int vmemt_ept_track_expect(const struct vmemt_ept_world *w, const struct vmemt_ept_call *c)
{
	uint32_t i = vmemt_ept_first(w, c->gpa);

	switch (c->operation) {
	case VMEMT_EPT_HARVEST: return w->opts.flags & VMEM_EPT_AD ? 0 : -VMEM_ENOTSUP;
	case VMEMT_EPT_LOG_START: return expect_log_start(w, c);
	case VMEMT_EPT_LOG_WRITE:
		return i < w->extents && w->extent[i].gpa <= c->gpa && w->extent[i].logged
			       ? 0
			       : -VMEM_ENOENT;
	default: return 0;
	}
}

/* --- The call --- */

static void add_leaf(struct vmemt_ept_told *told, uint64_t gpa, uint64_t bytes, uint32_t bits)
{
	told->leaves++;
	told->last = gpa;
	told->hash = (told->hash ^ gpa ^ bytes ^ bits) * UINT64_C(0x9e3779b97f4a7c15);
}

static int take_leaf(void *context, uint64_t gpa, uint64_t bytes, uint32_t bits)
{
	struct vmemt_ept_call *c = context;

	add_leaf(&c->got, gpa, bytes, bits);
	return c->got.leaves == c->stop_after ? ENDED : 0;
}

static int harvest(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	struct vmem_ept_harvest h = { .size = sizeof(h), .context = c };
	int err;

	h.accessed = c->how <= VMEMT_EPT_BITMAP_ONE ? c->got.accessed : NULL;
	h.dirty = c->how == VMEMT_EPT_BITMAPS ? c->got.dirty : NULL;
	h.leaf = c->how == VMEMT_EPT_LEAVES ? take_leaf : NULL;
	err = vmem_ept_harvest(w->ept, c->gpa, c->bytes, c->flags, &h, &w->change);
	c->got.accessed_pages = h.accessed_pages;
	c->got.dirty_pages = h.dirty_pages;
	c->got.cleared = w->change.leaves;
	VMEMT_HOLDS(!(c->flags & VMEM_EPT_STALE_FINE) || w->change.flush == VMEM_EPT_FLUSH_NONE);
	VMEMT_HOLDS((err == ENDED) == (c->got.leaves == c->stop_after));
	VMEMT_HOLDS(err != ENDED || w->change.at == c->got.last);
	return err == ENDED ? 0 : err;
}

/* It is owed by the caller to a DMA remapping unit. */
static int log_write(struct vmemt_ept_world *w, const struct vmemt_ept_call *c)
{
	int err = vmem_ept_log_write(w->ept, c->gpa);
	uint64_t leaf;

	if (err || w->caps.format != VMEM_EPT_VTD)
		return err;
	leaf = VMEM_EPT_LEVEL_BYTES(w->extent[vmemt_ept_first(w, c->gpa)].level);
	w->change.flush = VMEM_EPT_FLUSH_RANGES;
	w->change.range_count = 1;
	w->change.ranges[0] = (struct vmem_ept_range){ c->gpa & ~(leaf - 1), leaf };
	return 0;
}

int vmemt_ept_track_call(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	uint64_t gpa = c->gpa, bytes = c->bytes;

	switch (c->operation) {
	case VMEMT_EPT_HARVEST: return harvest(w, c);
	case VMEMT_EPT_LOG_START:
		return vmem_ept_log_start(w->ept, gpa, bytes, c->level, &w->change);
	case VMEMT_EPT_LOG_WRITE: return log_write(w, c);
	case VMEMT_EPT_LOG_COLLECT:
		return vmem_ept_log_collect(w->ept, gpa, bytes, c->got.accessed, &w->change);
	case VMEMT_EPT_LOG_STOP: return vmem_ept_log_stop(w->ept, gpa, bytes, &w->change);
	default: vmemt_ept_drain(w, gpa, bytes); return 0;
	}
}

/* --- The same on the list --- */

/* Sets what lies in the range of the call. Returns how many pages. */
static uint64_t mark(const struct vmemt_ept_call *c, uint64_t *bitmap, uint64_t gpa, uint64_t bytes)
{
	uint64_t end = gpa + bytes, stop = c->gpa + c->bytes;

	gpa = gpa > c->gpa ? gpa : c->gpa;
	end = end < stop ? end : stop;
	for (uint64_t at = gpa; bitmap && at < end; at += PAGE)
		bitmap[(at - c->gpa) / PAGE / 64] |= UINT64_C(1) << (at - c->gpa) / PAGE % 64;
	return (end - gpa) / PAGE;
}

/* Whether its leaves lie in the range, or (where it is cut at leaves) are the one that sticks out. */
static int inside(const struct vmemt_ept_call *c, const struct vmemt_ept_extent *e)
{
	return e->gpa >= c->gpa && e->gpa + e->bytes <= c->gpa + c->bytes;
}

/* Bits that are told. */
static uint32_t asked(const struct vmemt_ept_call *c)
{
	const uint32_t both = VMEM_EPT_CLEAR_ACCESSED | VMEM_EPT_CLEAR_DIRTY;
	uint32_t bits = c->flags & VMEM_EPT_PRUNE ? VMEM_EPT_CLEAR_ACCESSED : both;

	return c->how == VMEMT_EPT_LEAVES && c->flags & both ? bits & c->flags : bits;
}

static uint32_t bits_of(uint32_t leaf_flags)
{
	return (leaf_flags & VMEM_EPT_LEAF_ACCESSED ? VMEM_EPT_CLEAR_ACCESSED : 0) |
	       (leaf_flags & VMEM_EPT_LEAF_DIRTY ? VMEM_EPT_CLEAR_DIRTY : 0);
}

/* As many leaves of the extent as are still told. */
static uint64_t call_leaves(struct vmemt_ept_world *w, struct vmemt_ept_call *c, uint32_t i,
			    uint32_t bits)
{
	uint64_t size = VMEM_EPT_LEVEL_BYTES(w->extent[i].level), gpa = w->extent[i].gpa;
	uint64_t count = w->extent[i].bytes / size, room = c->stop_after - c->want.leaves;

	if (count > room) {
		count = room;
		vmemt_ept_cut(w, gpa + count * size);
	}
	for (uint64_t n = 0; n < count; n++)
		add_leaf(&c->want, gpa + n * size, size, bits);
	return count;
}

static void harvest_extent(struct vmemt_ept_world *w, struct vmemt_ept_call *c, uint32_t i)
{
	uint32_t bits = bits_of(w->extent[i].flags) & asked(c), clear;
	uint64_t count = w->extent[i].bytes / VMEM_EPT_LEVEL_BYTES(w->extent[i].level);
	int one = c->how <= VMEMT_EPT_BITMAP_ONE, both = c->how == VMEMT_EPT_BITMAPS;
	struct vmemt_ept_extent *e;

	if (!bits || (c->flags & VMEM_EPT_PRUNE && vmemt_ept_upper_unused(w, w->extent[i].gpa)))
		return;
	if (c->how == VMEMT_EPT_LEAVES && !(count = call_leaves(w, c, i, bits)))
		return;
	e = &w->extent[i];
	if (bits & VMEM_EPT_CLEAR_ACCESSED)
		c->want.accessed_pages += mark(c, one ? c->want.accessed : NULL, e->gpa, e->bytes);
	if (bits & VMEM_EPT_CLEAR_DIRTY)
		c->want.dirty_pages += mark(c, both ? c->want.dirty : NULL, e->gpa, e->bytes);
	clear = bits & c->flags;
	if (!clear || !inside(c, e))
		return;
	c->want.cleared += count;
	e->flags &= ~((clear & VMEM_EPT_CLEAR_ACCESSED ? VMEM_EPT_LEAF_ACCESSED : 0) |
		      (clear & VMEM_EPT_CLEAR_DIRTY ? VMEM_EPT_LEAF_DIRTY : 0));
}

static void log_extent(struct vmemt_ept_call *c, struct vmemt_ept_extent *e)
{
	if (c->operation == VMEMT_EPT_LOG_START && e->rights & VMEM_EPT_WRITE && !e->logged) {
		e->rights &= ~VMEM_EPT_WRITE;
		e->logged = 1;
	} else if (c->operation == VMEMT_EPT_LOG_WRITE) {
		e->rights |= VMEM_EPT_WRITE;
	} else if (c->operation == VMEMT_EPT_LOG_COLLECT && e->logged) {
		if (e->rights & VMEM_EPT_WRITE)
			mark(c, c->want.accessed, e->gpa, e->bytes);
		if (inside(c, e))
			e->rights &= ~VMEM_EPT_WRITE;
	} else if (c->operation == VMEMT_EPT_LOG_STOP && e->logged && inside(c, e)) {
		e->rights |= VMEM_EPT_WRITE;
		e->logged = 0;
	}
}

/* Where upper entries without their bit begin and end. */
static void cut_at_uppers(struct vmemt_ept_world *w, const struct vmemt_ept_call *c)
{
	for (uint32_t n = 0; c->flags & VMEM_EPT_PRUNE && n < w->unused_count; n++) {
		vmemt_ept_cut(w, w->unused[n].gpa);
		vmemt_ept_cut(w, w->unused[n].gpa + VMEM_EPT_LEVEL_BYTES(w->unused[n].level));
	}
}

/* Upper entries on the way to the leaf that it ended at are accessed again. */
static void harvested(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	int ended = c->want.leaves == c->stop_after;
	const uint32_t clear = VMEM_EPT_CLEAR_ACCESSED;

	if (c->flags & VMEM_EPT_PRUNE && c->flags & clear)
		vmemt_ept_uppers_clear(w, c->gpa, c->bytes, ended ? c->want.last : UINT64_MAX);
	if (c->flags & VMEM_EPT_PRUNE && ended)
		vmemt_ept_uppers_used(w, c->want.last, 1);
	if (c->flags & VMEM_EPT_STALE_FINE && c->flags & clear)
		vmemt_ept_stale_fine(w, c->gpa, c->bytes);
	VMEMT_HOLDS(memcmp(&c->got, &c->want, sizeof(c->got)) == 0);
	vmemt_ept_join(w, 0, w->top);
}

void vmemt_ept_track_apply(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	uint64_t end = c->gpa + c->bytes;

	if (c->operation == VMEMT_EPT_LOG_START) {
		vmemt_ept_split_leaves(w, c, c->level);
		vmemt_ept_cut(w, c->gpa);
		vmemt_ept_cut(w, end);
	}
	vmemt_ept_cut_at_leaves(w, c->gpa);
	vmemt_ept_cut_at_leaves(w, end);
	if (c->operation == VMEMT_EPT_HARVEST)
		cut_at_uppers(w, c);
	for (uint32_t i = vmemt_ept_first(w, c->gpa); i < w->extents; i++) {
		struct vmemt_ept_extent *e = &w->extent[i];

		if (e->gpa >= end)
			break;
		if (e->level && c->operation == VMEMT_EPT_HARVEST)
			harvest_extent(w, c, i);
		else if (e->level)
			log_extent(c, e);
	}
	if (c->operation == VMEMT_EPT_HARVEST)
		harvested(w, c);
	VMEMT_HOLDS(memcmp(c->got.accessed, c->want.accessed, sizeof(c->got.accessed)) == 0);
}
