/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations on tables and on the list of extents: what is to be expected of a call is found from the list
 * before it is made; a call that fails must leave each byte of each table as it was. */
#include <string.h>
#include "ept/ept_model.h"

#define PAGE UINT64_C(4096)
#define M2 VMEM_EPT_LEVEL_BYTES(2)
#define G1 VMEM_EPT_LEVEL_BYTES(3)
#define AD (VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY)

enum operation {
	MAP,
	UNMAP,
	PROTECT,
	SET_TYPE,
	SPLIT,
	MERGE,
	PAYLOAD,
	INSTALL,
	HARVEST,
	LOG_START,
	LOG_WRITE,
	LOG_COLLECT,
	LOG_STOP,
	OPERATIONS
};

enum { BITMAP_PAGES = 2048, LIVE_MOST = 300, SAVED_MOST = 64 };

struct call {
	enum operation operation;
	uint64_t gpa, bytes;
	struct vmem_ept_leaf leaf;
	uint32_t flags, clear, set, level;
	uint64_t payload, step;
	const uint64_t *expected; /* of install */
	uint64_t bitmap[BITMAP_PAGES / 64], dirty[BITMAP_PAGES / 64];
	uint64_t want[BITMAP_PAGES / 64], want_dirty[BITMAP_PAGES / 64];
};

/* --- What is asked for --- */

static int overlaps(const struct vmemt_ept_world *w, uint64_t gpa, uint64_t bytes,
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

static void draw_range(struct vmemt_ept_world *w, struct call *c)
{
	static const uint64_t borders[] = { 0, M2, G1, G1 * 512, G1 * 512 * 512, UINT64_MAX };
	uint64_t border = borders[vmemt_ept_draw(w, 6)], at, bytes;

	border = border < w->top ? border : w->top;
	switch (w->narrow ? 0 : vmemt_ept_draw(w, w->failing ? 9 : 10)) {
	case 0: /* some pages, anywhere near */
	case 1:
	case 2:
	case 3:
		at = border + (vmemt_ept_draw(w, 64) - 32) * PAGE;
		bytes = (1 + vmemt_ept_draw(w, 24)) * PAGE;
		break;
	case 4: /* anything up to three tables */
		at = border + (vmemt_ept_draw(w, 2048) - 1024) * PAGE;
		bytes = (1 + vmemt_ept_draw(w, 1024)) * PAGE;
		break;
	case 5:
	case 6: /* whole large pages */
	case 7:
	case 8:
		at = border + (vmemt_ept_draw(w, 4) - 2) * M2;
		bytes = (1 + vmemt_ept_draw(w, 2)) * M2;
		break;
	default:
		at = border + (vmemt_ept_draw(w, 2) - 1) * G1;
		bytes = G1 + vmemt_ept_draw(w, 2) * M2;
		break;
	}
	if (border == 0 && at > w->top) /* before the first page */
		at = 0 - at;
	if (at >= w->top)
		at = w->top - (bytes < w->top ? bytes : w->top);
	c->gpa = at;
	c->bytes = bytes < w->top - at ? bytes : w->top - at;
}

static void draw_leaf(struct vmemt_ept_world *w, struct call *c)
{
	uint64_t room = (UINT64_C(1) << w->caps.physical_bits) - 3 * G1;

	c->leaf.hpa = vmemt_ept_draw(w, room / G1) * G1 + c->gpa % G1;
	if (one_of(w, 4))
		c->leaf.hpa = vmemt_ept_draw(w, room / M2) * M2 + c->gpa % M2;
	else if (one_of(w, 4))
		c->leaf.hpa = vmemt_ept_draw(w, room / PAGE) * PAGE;
	c->leaf.rights = vmemt_ept_draw_rights(w);
	c->leaf.type = vmemt_ept_draw_type(w);
	c->leaf.flags =
		w->caps.format == VMEM_EPT_INTEL && one_of(w, 4) ? VMEM_EPT_LEAF_IGNORE_PAT : 0;
	if (w->opts.flags & VMEM_EPT_AD && one_of(w, 3))
		c->leaf.flags |= VMEM_EPT_LEAF_ACCESSED;
	if (w->opts.flags & VMEM_EPT_AD && one_of(w, 3))
		c->leaf.flags |= AD;
	c->leaf.flags |= vmemt_ept_draw_rare(w);
	c->leaf.level = (uint32_t)vmemt_ept_draw(w, 4);
	/* Not a million leaves at a time. */
	if (c->bytes >= G1 && c->leaf.level == 1 && !one_of(w, 256))
		c->leaf.level = 2;
}

static void draw_call(struct vmemt_ept_world *w, struct call *c)
{
	memset(c, 0, sizeof(*c));
	c->operation = vmemt_ept_draw(w, 3) ? (enum operation)vmemt_ept_draw(w, OPERATIONS) : MAP;
	draw_range(w, c);
	draw_leaf(w, c);
	c->flags = one_of(w, 2) ? VMEM_EPT_REPLACE : 0;
	c->clear = (uint32_t)(vmemt_ept_draw(w, 16) & vmemt_ept_draw(w, 16));
	c->set = one_of(w, 2) ? vmemt_ept_draw_rights(w) & (uint32_t)vmemt_ept_draw(w, 16) : 0;
	c->level = (uint32_t)vmemt_ept_draw(w, 2) + 1;
	c->payload = vmemt_ept_draw(w, UINT64_C(1) << 57);
	c->step = vmemt_ept_draw(w, 3);
	if (c->operation == MERGE)
		c->level++;
	else if (c->bytes >= G1 && !one_of(w, 256))
		c->level = 2;
	if ((c->operation == PAYLOAD || c->operation >= HARVEST) && c->bytes > BITMAP_PAGES * PAGE)
		c->bytes = BITMAP_PAGES * PAGE;
	if (c->operation == HARVEST || c->operation == LOG_COLLECT)
		c->gpa &= ~(64 * PAGE - 1);
	if (c->operation == INSTALL) {
		if (!c->leaf.level || one_of(w, 2))
			c->leaf.level = 1;
		c->bytes = VMEM_EPT_LEVEL_BYTES(c->leaf.level);
		/* Payloads that are alike may be one entry or a table. */
		if (overlaps(w, c->gpa & ~(c->bytes - 1), c->bytes, 0) &&
		    !overlaps(w, c->gpa & ~(c->bytes - 1), c->bytes, 1))
			c->bytes = PAGE;
		if (c->bytes == PAGE)
			c->leaf.level = 1;
		c->gpa &= ~(c->bytes - 1);
		c->leaf.hpa &= ~(c->bytes - 1);
		c->expected = one_of(w, 2) ? &c->payload : NULL;
	}
	if (c->operation == LOG_WRITE)
		c->bytes = PAGE;
	if (c->operation == LOG_START && c->level == 2 && ((c->gpa | c->bytes) & (M2 - 1)))
		c->level = 1;
}

/* --- What must come of it --- */

static int rights_error(const struct vmemt_ept_world *w, uint32_t rights)
{
	uint32_t exec = VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER;

	if (!rights)
		return 0;
	if (!(rights & VMEM_EPT_READ)) {
		if (rights & VMEM_EPT_WRITE)
			return -VMEM_EINVAL;
		return w->caps.format == VMEM_EPT_INTEL && w->caps.caps & VMEM_EPT_CAP_EXEC_ONLY
			       ? 0
			       : -VMEM_ENOTSUP;
	}
	if (w->caps.format == VMEM_EPT_AMD && !(rights & exec) &&
	    !(w->caps.caps & VMEM_EPT_CAP_NO_EXEC))
		return -VMEM_ENOTSUP;
	return 0;
}

static uint32_t protected_rights(const struct vmemt_ept_extent *e, const struct call *c)
{
	return (e->rights & ~c->clear) | c->set;
}

static int expect_protect(const struct vmemt_ept_world *w, const struct call *c)
{
	for (uint32_t i = vmemt_ept_first(w, c->gpa); i < w->extents; i++) {
		if (w->extent[i].gpa >= c->gpa + c->bytes)
			break;
		if (w->extent[i].level && rights_error(w, protected_rights(&w->extent[i], c)))
			return rights_error(w, protected_rights(&w->extent[i], c));
	}
	return 0;
}

static int level_possible(const struct vmemt_ept_world *w, uint32_t level, uint32_t rights,
			  uint32_t flags)
{
	if (level > 1 && flags & VMEM_EPT_LEAF_SUBPAGE)
		return 0;
	if (level > 1 && w->opts.flags & VMEM_EPT_NO_EXEC_LARGE &&
	    rights & (VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER))
		return 0;
	return level == 1 || (level == 2 && w->caps.caps & VMEM_EPT_CAP_2M) ||
	       (level == 3 && w->caps.caps & VMEM_EPT_CAP_1G);
}

static int expect_install(const struct vmemt_ept_world *w, const struct call *c)
{
	uint32_t i = vmemt_ept_first(w, c->gpa);
	uint64_t there = UINT64_MAX;

	if (rights_error(w, c->leaf.rights) ||
	    !level_possible(w, c->leaf.level, c->leaf.rights, c->leaf.flags))
		return -VMEM_ENOTSUP;
	if (overlaps(w, c->gpa, c->bytes, c->leaf.level == 1))
		return -VMEM_EEXIST;
	if (i < w->extents && w->extent[i].gpa <= c->gpa)
		there = w->extent[i].value + (c->gpa - w->extent[i].gpa) / PAGE * w->extent[i].step;
	return c->expected && *c->expected != there ? -VMEM_EAGAIN : 0;
}

/* What may be written without the right to cannot be logged. */
static int expect_log_start(const struct vmemt_ept_world *w, const struct call *c)
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

static int expect(const struct vmemt_ept_world *w, struct call *c)
{
	switch (c->operation) {
	case MAP:
		if (rights_error(w, c->leaf.rights))
			return -VMEM_ENOTSUP;
		return !c->flags && overlaps(w, c->gpa, c->bytes, 1) ? -VMEM_EEXIST : 0;
	case PAYLOAD: return !c->flags && overlaps(w, c->gpa, c->bytes, 1) ? -VMEM_EEXIST : 0;
	case PROTECT: return expect_protect(w, c);
	case MERGE: return level_possible(w, c->level, 0, 0) ? 0 : -VMEM_ENOTSUP;
	case INSTALL: return expect_install(w, c);
	case HARVEST: return w->opts.flags & VMEM_EPT_AD ? 0 : -VMEM_ENOTSUP;
	case LOG_START: return expect_log_start(w, c);
	case LOG_WRITE: {
		uint32_t i = vmemt_ept_first(w, c->gpa);

		return i < w->extents && w->extent[i].gpa <= c->gpa && w->extent[i].logged
			       ? 0
			       : -VMEM_ENOENT;
	}
	default: return 0;
	}
}

/* --- The call --- */

static uint32_t harvest_flags(const struct call *c)
{
	return c->clear & (VMEM_EPT_CLEAR_ACCESSED | VMEM_EPT_CLEAR_DIRTY);
}

/* What the processor remembers may stay, if accessed bits alone are cleared. */
static uint32_t stale_fine(const struct call *c)
{
	return harvest_flags(c) & VMEM_EPT_CLEAR_DIRTY || !c->flags ? 0 : VMEM_EPT_STALE_FINE;
}

static int harvest(struct vmemt_ept_world *w, struct call *c)
{
	struct vmem_ept_harvest h = { .size = sizeof(h), .accessed = c->bitmap, .dirty = c->dirty };

	int err = vmem_ept_harvest(w->ept, c->gpa, c->bytes, harvest_flags(c) | stale_fine(c), &h,
				   &w->change);

	VMEMT_HOLDS(!stale_fine(c) || w->change.flush == VMEM_EPT_FLUSH_NONE);
	return err;
}

static int call(struct vmemt_ept_world *w, struct call *c)
{
	uint64_t gpa = c->gpa, bytes = c->bytes;
	struct vmem_ept_change *change = &w->change;

	memset(change, 0, sizeof(*change));
	change->size = sizeof(*change);
	switch (c->operation) {
	case MAP: return vmem_ept_map(w->ept, gpa, bytes, &c->leaf, c->flags, change);
	case UNMAP: return vmem_ept_unmap(w->ept, gpa, bytes, change);
	case PROTECT: return vmem_ept_protect(w->ept, gpa, bytes, c->clear, c->set, change);
	case SET_TYPE:
		return vmem_ept_set_type(w->ept, gpa, bytes, c->leaf.type,
					 c->leaf.flags & VMEM_EPT_LEAF_IGNORE_PAT, change);
	case SPLIT: return vmem_ept_split(w->ept, gpa, bytes, c->level, change);
	case MERGE: return vmem_ept_merge(w->ept, gpa, bytes, c->level, change);
	case PAYLOAD:
		return vmem_ept_set_payload(w->ept, gpa, bytes, c->payload, c->step, c->flags,
					    change);
	case INSTALL:
		if (w->opts.flags & VMEM_EPT_CACHES_ABSENT) {
			change->flush = VMEM_EPT_FLUSH_RANGES;
			change->range_count = 1;
			change->ranges[0] = (struct vmem_ept_range){ gpa, bytes };
		}
		return vmem_ept_install(w->ept, gpa, &c->leaf, c->expected);
	case HARVEST: return harvest(w, c);
	case LOG_START: return vmem_ept_log_start(w->ept, gpa, bytes, c->level, change);
	case LOG_WRITE: return vmem_ept_log_write(w->ept, gpa);
	case LOG_COLLECT: return vmem_ept_log_collect(w->ept, gpa, bytes, c->bitmap, change);
	default: return vmem_ept_log_stop(w->ept, gpa, bytes, change);
	}
}

/* Each allocation fails once in turn, then none does. */
static int call_failing(struct vmemt_ept_world *w, struct call *c)
{
	for (long n = 0;; n++) {
		int err;

		vmemt_ept_memory_save(&w->memory);
		w->memory.fail_after = n;
		w->memory.failed = 0;
		err = call(w, c);
		w->memory.fail_after = -1;
		if (!w->memory.failed)
			return err;
		VMEMT_HOLDS(err == -VMEM_ENOMEM);
		VMEMT_HOLDS(c->operation == INSTALL || w->change.reason == VMEM_EPT_NO_MEMORY);
		VMEMT_HOLDS(c->operation == INSTALL || (!w->change.flush && !w->change.epoch));
		VMEMT_HOLDS(vmemt_ept_memory_same(&w->memory));
	}
}

/* --- The same on the list --- */

static void mark(const struct call *c, uint64_t *bitmap, uint64_t gpa, uint64_t bytes)
{
	uint64_t end = gpa + bytes, stop = c->gpa + c->bytes;

	gpa = gpa > c->gpa ? gpa : c->gpa;
	for (end = end < stop ? end : stop; gpa < end; gpa += PAGE)
		bitmap[(gpa - c->gpa) / PAGE / 64] |= UINT64_C(1) << (gpa - c->gpa) / PAGE % 64;
}

/* Whether its leaves lie in the range, or (where it is cut at leaves) are the one that sticks out. */
static int inside(const struct call *c, const struct vmemt_ept_extent *e)
{
	return e->gpa >= c->gpa && e->gpa + e->bytes <= c->gpa + c->bytes;
}

/* Extents end where leaves do that stick out of the range, without splitting one. */
static void cut_at_leaves(struct vmemt_ept_world *w, uint64_t gpa)
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

static void track_extent(struct call *c, struct vmemt_ept_extent *e)
{
	uint32_t flags = harvest_flags(c);

	if (c->operation == HARVEST) {
		if (e->flags & VMEM_EPT_LEAF_ACCESSED)
			mark(c, c->want, e->gpa, e->bytes);
		if (e->flags & VMEM_EPT_LEAF_DIRTY)
			mark(c, c->want_dirty, e->gpa, e->bytes);
		if (inside(c, e) && flags & VMEM_EPT_CLEAR_ACCESSED)
			e->flags &= ~VMEM_EPT_LEAF_ACCESSED;
		if (inside(c, e) && flags & VMEM_EPT_CLEAR_DIRTY)
			e->flags &= ~VMEM_EPT_LEAF_DIRTY;
	} else if (c->operation == LOG_WRITE) {
		e->rights |= VMEM_EPT_WRITE;
	} else if (c->operation == LOG_COLLECT && e->logged) {
		if (e->rights & VMEM_EPT_WRITE)
			mark(c, c->want, e->gpa, e->bytes);
		if (inside(c, e))
			e->rights &= ~VMEM_EPT_WRITE;
	} else if (c->operation == LOG_STOP && e->logged && inside(c, e)) {
		e->rights |= VMEM_EPT_WRITE;
		e->logged = 0;
	}
}

static void change_extent(const struct call *c, struct vmemt_ept_extent *e)
{
	uint32_t type = c->leaf.type, ignore = c->leaf.flags & VMEM_EPT_LEAF_IGNORE_PAT;

	if (c->operation == PROTECT) {
		e->rights = protected_rights(e, c);
		if (c->clear & (VMEM_EPT_READ | VMEM_EPT_WRITE) || c->set & VMEM_EPT_WRITE)
			e->logged = 0;
	} else if (c->operation == SET_TYPE) {
		e->type = type;
		e->flags = (e->flags & ~VMEM_EPT_LEAF_IGNORE_PAT) | ignore;
	} else if (c->operation == LOG_START && e->rights & VMEM_EPT_WRITE && !e->logged) {
		e->rights &= ~VMEM_EPT_WRITE;
		e->logged = 1;
	}
}

/* Each leaf above the level that the range touches, also where it sticks out. */
static void split_leaves(struct vmemt_ept_world *w, const struct call *c, uint32_t level)
{
	uint64_t span = VMEM_EPT_LEVEL_BYTES(level + 1), from = c->gpa & ~(span - 1);
	uint64_t to = (c->gpa + c->bytes + span - 1) & ~(span - 1);

	vmemt_ept_cut(w, from);
	vmemt_ept_cut(w, to);
	vmemt_ept_lower(w, from, to - from, level);
}

static void apply_to_extents(struct vmemt_ept_world *w, struct call *c)
{
	uint64_t end = c->gpa + c->bytes;
	int track = c->operation >= HARVEST && c->operation != LOG_START;

	if (w->caps.format == VMEM_EPT_VTD && c->operation == SET_TYPE)
		return; /* there is none, and nothing is split for it */
	if (c->operation == PROTECT && w->opts.flags & VMEM_EPT_NO_EXEC_LARGE &&
	    c->set & (VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER))
		split_leaves(w, c, 1);
	if (track) {
		cut_at_leaves(w, c->gpa);
		cut_at_leaves(w, end);
	} else {
		vmemt_ept_cut(w, c->gpa);
		vmemt_ept_cut(w, end);
	}
	for (uint32_t i = vmemt_ept_first(w, c->gpa); i < w->extents; i++) {
		struct vmemt_ept_extent *e = &w->extent[i];

		if (e->gpa >= end)
			break;
		if (e->level && track)
			track_extent(c, e);
		else if (e->level)
			change_extent(c, e);
	}
}

static void apply(struct vmemt_ept_world *w, struct call *c)
{
	struct vmemt_ept_extent e = { .gpa = c->gpa,
				      .bytes = c->bytes,
				      .value = c->leaf.hpa,
				      .rights = c->leaf.rights,
				      .type = c->leaf.type,
				      .flags = c->leaf.flags };
	uint32_t most = c->leaf.level ? c->leaf.level : 3;

	switch (c->operation) {
	case MAP:
	case INSTALL:
		vmemt_ept_punch(w, c->gpa, c->bytes);
		while (!level_possible(w, most, e.rights, e.flags))
			most--;
		vmemt_ept_put_leaves(w, c->gpa, c->bytes, &e, most);
		break;
	case UNMAP: vmemt_ept_punch(w, c->gpa, c->bytes); break;
	case PAYLOAD:
		vmemt_ept_punch(w, c->gpa, c->bytes);
		e = (struct vmemt_ept_extent){
			.gpa = c->gpa, .bytes = c->bytes, .value = c->payload, .step = c->step
		};
		vmemt_ept_put(w, &e);
		break;
	case MERGE:
		VMEMT_HOLDS(vmemt_ept_merge_tables(w, c->gpa, c->bytes, c->level) ==
			    w->change.leaves);
		break;
	case SPLIT: split_leaves(w, c, c->level); break;
	case LOG_START:
		split_leaves(w, c, c->level);
		apply_to_extents(w, c);
		break;
	default: apply_to_extents(w, c); break;
	}
	vmemt_ept_join(w, c->gpa, c->bytes);
}

/* --- A step --- */

/* What is owed is done, and what waited for it is free. */
static void flushed(struct vmemt_ept_world *w)
{
	struct vmem_ept_stats stats = { .size = sizeof(stats) };

	vmemt_ept_invalidate(w);
	if (!w->epoch)
		return;
	vmem_ept_flushed(w->ept, w->epoch);
	w->epoch = 0;
	VMEMT_HOLDS(vmem_ept_get_stats(w->ept, &stats) == 0 && stats.waiting == 0);
}

/* So that neither memory nor the list runs out. */
static void make_room(struct vmemt_ept_world *w)
{
	struct call c = { .operation = UNMAP, .gpa = 0, .bytes = w->top };

	if (w->extents < VMEMT_EPT_EXTENTS / 2 && w->memory.live < LIVE_MOST && !one_of(w, 400))
		return;
	VMEMT_HOLDS(call(w, &c) == 0);
	apply(w, &c);
	vmemt_ept_owe(w, &w->change);
	w->epoch = w->change.epoch ? w->change.epoch : w->epoch;
	flushed(w);
	VMEMT_HOLDS(w->memory.live == 1);
}

void vmemt_ept_step(struct vmemt_ept_world *w)
{
	struct call c;
	int expected, saved, err;

	make_room(w);
	draw_call(w, &c);
	expected = expect(w, &c);
	saved = expected && w->memory.live <= SAVED_MOST;
	if (saved)
		vmemt_ept_memory_save(&w->memory);
	err = w->failing ? call_failing(w, &c) : call(w, &c);
	if (err != expected) {
		fprintf(stderr, "operation %d of %#llx at %#llx: %d, not %d; reason %u\n",
			c.operation, (unsigned long long)c.bytes, (unsigned long long)c.gpa, err,
			expected, w->change.reason);
		abort();
	}
	if (expected) {
		VMEMT_HOLDS(!saved || vmemt_ept_memory_same(&w->memory));
		VMEMT_HOLDS(c.operation == INSTALL || (!w->change.flush && !w->change.epoch));
	} else {
		apply(w, &c);
		VMEMT_HOLDS(memcmp(c.bitmap, c.want, sizeof(c.want)) == 0);
		VMEMT_HOLDS(memcmp(c.dirty, c.want_dirty, sizeof(c.dirty)) == 0);
	}
	vmemt_ept_owe(w, &w->change);
	if (w->change.epoch)
		w->epoch = w->change.epoch;
	/* Bits that a processor sets in a merged table come back with the flush; and so do those that were there. */
	if (c.operation == MERGE || w->owed_count > VMEMT_EPT_OWED - 2 * VMEM_EPT_RANGES ||
	    one_of(w, 4)) {
		flushed(w);
		vmemt_ept_cached_right(w, 0, w->top);
	} else if (one_of(w, 2)) {
		vmemt_ept_invalidate(w);
	}
	vmemt_ept_cached_right(w, c.gpa, c.bytes);
	vmemt_ept_compare(w, c.gpa, c.bytes);
	for (uint32_t i = 0; w->processor && i < 4; i++)
		vmemt_ept_access(w, c.gpa + vmemt_rand(&w->rng) % c.bytes);
}
