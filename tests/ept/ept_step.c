/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations on tables and on the list of extents: what is to be expected of a call is found from the list
 * before it is made; a call that fails must leave each byte of each table as it was. */
#include <string.h>
#include "ept/ept_internal.h"
#include "ept/ept_step.h"

#define PAGE UINT64_C(4096)
#define M2 VMEM_EPT_LEVEL_BYTES(2)
#define G1 VMEM_EPT_LEVEL_BYTES(3)
#define AD (VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY)

enum { LIVE_MOST = 300, SAVED_MOST = 64 };

/* --- What is asked for --- */

static void draw_range(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	static const uint64_t borders[] = { 0, M2, G1, G1 * 512, G1 * 512 * 512, UINT64_MAX };
	uint32_t most = w->failing || w->ranges == VMEMT_EPT_MIDDLE ? 9 : 10;
	uint64_t border = borders[vmemt_ept_draw(w, 6)], at, bytes;

	border = border < w->top ? border : w->top;
	switch (w->ranges == VMEMT_EPT_SMALL ? 0 : vmemt_ept_draw(w, most)) {
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

static void draw_leaf(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
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

/* Steps of any length, also such as run beyond what a payload can be. */
static void draw_payload(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	c->payload = vmemt_ept_draw(w, UINT64_C(1) << (one_of(w, 4) ? 59 : 57));
	c->step = vmemt_ept_draw(w, 3);
	if (one_of(w, 4))
		c->step = vmemt_ept_draw(w, UINT64_MAX) >> vmemt_ept_draw(w, 64);
	if (c->operation == VMEMT_EPT_PAYLOAD && c->bytes > VMEMT_EPT_BITMAP * PAGE)
		c->bytes = VMEMT_EPT_BITMAP * PAGE;
}

/* The payload at a place; UINT64_MAX: nothing is there. */
static uint64_t payload_at(const struct vmemt_ept_world *w, uint64_t gpa)
{
	uint32_t i = vmemt_ept_first(w, gpa);

	if (i == w->extents || w->extent[i].gpa > gpa)
		return UINT64_MAX;
	return w->extent[i].value + (gpa - w->extent[i].gpa) / PAGE * w->extent[i].step;
}

static void draw_install(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	if (!c->leaf.level || one_of(w, 2))
		c->leaf.level = 1;
	c->bytes = VMEM_EPT_LEVEL_BYTES(c->leaf.level);
	/* Payloads that are alike may be one entry or a table. */
	if (vmemt_ept_overlaps(w, c->gpa & ~(c->bytes - 1), c->bytes, 0) &&
	    !vmemt_ept_overlaps(w, c->gpa & ~(c->bytes - 1), c->bytes, 1))
		c->bytes = PAGE;
	if (c->bytes == PAGE)
		c->leaf.level = 1;
	c->gpa &= ~(c->bytes - 1);
	c->leaf.hpa &= ~(c->bytes - 1);
	if (one_of(w, 2))
		c->payload = payload_at(w, c->gpa);
	c->expected = one_of(w, 2) ? &c->payload : NULL;
}

/* Often where there is a large leaf to split, or many small ones in a row to merge: they do nothing elsewhere. */
static void draw_large(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	int merge = c->operation == VMEMT_EPT_MERGE;
	uint32_t level = merge ? c->level : c->level + 1;
	uint64_t size = VMEM_EPT_LEVEL_BYTES(level);

	for (uint32_t i = 0; i < 8 && w->extents && w->ranges != VMEMT_EPT_SMALL; i++) {
		const struct vmemt_ept_extent *e = &w->extent[vmemt_ept_draw(w, w->extents)];

		if (merge ? e->level != level - 1 || e->bytes < size / 8 : e->level != level)
			continue;
		c->gpa = (e->gpa + e->bytes / 2) & ~(size - 1);
		c->bytes = size;
		return;
	}
}

static void draw_call(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	memset(c, 0, sizeof(*c));
	if (vmemt_ept_draw(w, 3))
		c->operation = (enum vmemt_ept_operation)vmemt_ept_draw(w, VMEMT_EPT_OPERATIONS);
	draw_range(w, c);
	draw_leaf(w, c);
	c->flags = one_of(w, 2) ? VMEM_EPT_REPLACE : 0;
	c->clear = (uint32_t)(vmemt_ept_draw(w, 16) & vmemt_ept_draw(w, 16));
	c->set = one_of(w, 2) ? vmemt_ept_draw_rights(w) & (uint32_t)vmemt_ept_draw(w, 16) : 0;
	c->level = (uint32_t)vmemt_ept_draw(w, 2) + 1;
	draw_payload(w, c);
	if (c->operation == VMEMT_EPT_MERGE)
		c->level++;
	else if (c->bytes >= G1 && !one_of(w, 256))
		c->level = 2;
	if (c->operation >= VMEMT_EPT_HARVEST)
		vmemt_ept_track_draw(w, c);
	else if (c->operation == VMEMT_EPT_MERGE || c->operation == VMEMT_EPT_SPLIT)
		draw_large(w, c);
	else if (c->operation == VMEMT_EPT_INSTALL)
		draw_install(w, c);
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

static uint32_t protected_rights(const struct vmemt_ept_extent *e, const struct vmemt_ept_call *c)
{
	return (e->rights & ~c->clear) | c->set;
}

static int expect_protect(const struct vmemt_ept_world *w, const struct vmemt_ept_call *c)
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

static int expect_install(const struct vmemt_ept_world *w, const struct vmemt_ept_call *c)
{
	if (rights_error(w, c->leaf.rights) ||
	    !level_possible(w, c->leaf.level, c->leaf.rights, c->leaf.flags))
		return -VMEM_ENOTSUP;
	if (vmemt_ept_overlaps(w, c->gpa, c->bytes, c->leaf.level == 1))
		return -VMEM_EEXIST;
	return c->expected && *c->expected != payload_at(w, c->gpa) ? -VMEM_EAGAIN : 0;
}

static int expect_payload(const struct vmemt_ept_world *w, const struct vmemt_ept_call *c)
{
	const uint64_t most = (UINT64_C(1) << VMEM_EPT_PAYLOAD_BITS) - 1;
	uint64_t last = c->payload;

	for (uint64_t page = 1; page < c->bytes / PAGE && last <= most; page++)
		last = c->step > most ? c->step : last + c->step;
	if (last > most)
		return -VMEM_EINVAL;
	return !c->flags && vmemt_ept_overlaps(w, c->gpa, c->bytes, 1) ? -VMEM_EEXIST : 0;
}

static int expect(const struct vmemt_ept_world *w, const struct vmemt_ept_call *c)
{
	switch (c->operation) {
	case VMEMT_EPT_MAP:
		if (rights_error(w, c->leaf.rights))
			return -VMEM_ENOTSUP;
		return !c->flags && vmemt_ept_overlaps(w, c->gpa, c->bytes, 1) ? -VMEM_EEXIST : 0;
	case VMEMT_EPT_PAYLOAD: return expect_payload(w, c);
	case VMEMT_EPT_PROTECT: return expect_protect(w, c);
	case VMEMT_EPT_MERGE: return level_possible(w, c->level, 0, 0) ? 0 : -VMEM_ENOTSUP;
	case VMEMT_EPT_INSTALL: return expect_install(w, c);
	default: return vmemt_ept_track_expect(w, c);
	}
}

/* --- The call --- */

static int install(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	int err = vmem_ept_install(w->ept, c->gpa, &c->leaf, c->expected);

	if (!err && w->opts.flags & VMEM_EPT_CACHES_ABSENT) {
		w->change.flush = VMEM_EPT_FLUSH_RANGES;
		w->change.range_count = 1;
		w->change.ranges[0] = (struct vmem_ept_range){ c->gpa, c->bytes };
	}
	return err;
}

static int call(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	uint64_t gpa = c->gpa, bytes = c->bytes;
	struct vmem_ept_change *change = &w->change;

	memset(change, 0, sizeof(*change));
	change->size = sizeof(*change);
	switch (c->operation) {
	case VMEMT_EPT_MAP: return vmem_ept_map(w->ept, gpa, bytes, &c->leaf, c->flags, change);
	case VMEMT_EPT_UNMAP: return vmem_ept_unmap(w->ept, gpa, bytes, change);
	case VMEMT_EPT_PROTECT:
		return vmem_ept_protect(w->ept, gpa, bytes, c->clear, c->set, change);
	case VMEMT_EPT_SET_TYPE:
		return vmem_ept_set_type(w->ept, gpa, bytes, c->leaf.type,
					 c->leaf.flags & VMEM_EPT_LEAF_IGNORE_PAT, change);
	case VMEMT_EPT_SPLIT: return vmem_ept_split(w->ept, gpa, bytes, c->level, change);
	case VMEMT_EPT_MERGE: return vmem_ept_merge(w->ept, gpa, bytes, c->level, change);
	case VMEMT_EPT_PAYLOAD:
		return vmem_ept_set_payload(w->ept, gpa, bytes, c->payload, c->step, c->flags,
					    change);
	case VMEMT_EPT_INSTALL: return install(w, c);
	default: return vmemt_ept_track_call(w, c);
	}
}

/* Each allocation fails once in turn, then none does. */
static int call_failing(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
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
		VMEMT_HOLDS(c->operation == VMEMT_EPT_INSTALL ||
			    w->change.reason == VMEM_EPT_NO_MEMORY);
		VMEMT_HOLDS(c->operation == VMEMT_EPT_INSTALL ||
			    (!w->change.flush && !w->change.epoch));
		VMEMT_HOLDS(vmemt_ept_memory_same(&w->memory));
	}
}

/* A quota that may be too small: the call is refused only if what it then takes would exceed it. */
static int call_quota(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	uint64_t quota = w->memory.live + vmemt_ept_draw(w, 4);
	int err;

	vmemt_ept_memory_save(&w->memory);
	w->ept->max_tables = quota;
	err = call(w, c);
	w->ept->max_tables = UINT64_MAX;
	VMEMT_HOLDS(w->memory.live <= quota);
	if (err != -VMEM_ENOSPC)
		return err;
	VMEMT_HOLDS(c->operation == VMEMT_EPT_INSTALL || w->change.reason == VMEM_EPT_QUOTA);
	VMEMT_HOLDS(!w->change.flush && !w->change.epoch);
	VMEMT_HOLDS(vmemt_ept_memory_same(&w->memory));
	err = w->failing ? call_failing(w, c) : call(w, c);
	VMEMT_HOLDS(w->memory.live > quota);
	return err;
}

static int try_call(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	if (w->quota && one_of(w, 2))
		return call_quota(w, c);
	return w->failing ? call_failing(w, c) : call(w, c);
}

/* --- The same on the list --- */

static void change_extent(const struct vmemt_ept_call *c, struct vmemt_ept_extent *e)
{
	uint32_t type = c->leaf.type, ignore = c->leaf.flags & VMEM_EPT_LEAF_IGNORE_PAT;

	if (c->operation == VMEMT_EPT_PROTECT) {
		e->rights = protected_rights(e, c);
		if (c->clear & (VMEM_EPT_READ | VMEM_EPT_WRITE) || c->set & VMEM_EPT_WRITE)
			e->logged = 0;
	} else if (c->operation == VMEMT_EPT_SET_TYPE) {
		e->type = type;
		e->flags = (e->flags & ~VMEM_EPT_LEAF_IGNORE_PAT) | ignore;
	}
}

/* Each leaf above the level that the range touches, also where it sticks out. */
void vmemt_ept_split_leaves(struct vmemt_ept_world *w, const struct vmemt_ept_call *c,
			    uint32_t level)
{
	uint64_t span = VMEM_EPT_LEVEL_BYTES(level + 1), from = c->gpa & ~(span - 1);
	uint64_t to = (c->gpa + c->bytes + span - 1) & ~(span - 1);

	vmemt_ept_cut(w, from);
	vmemt_ept_cut(w, to);
	vmemt_ept_lower(w, from, to - from, level);
}

static void apply_to_extents(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	uint64_t end = c->gpa + c->bytes;

	if (w->caps.format == VMEM_EPT_VTD && c->operation == VMEMT_EPT_SET_TYPE)
		return; /* there is none, and nothing is split for it */
	if (c->operation == VMEMT_EPT_PROTECT && w->opts.flags & VMEM_EPT_NO_EXEC_LARGE &&
	    c->set & (VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER))
		vmemt_ept_split_leaves(w, c, 1);
	vmemt_ept_cut(w, c->gpa);
	vmemt_ept_cut(w, end);
	for (uint32_t i = vmemt_ept_first(w, c->gpa); i < w->extents; i++) {
		struct vmemt_ept_extent *e = &w->extent[i];

		if (e->gpa >= end)
			break;
		if (e->level)
			change_extent(c, e);
	}
}

static void apply(struct vmemt_ept_world *w, struct vmemt_ept_call *c)
{
	struct vmemt_ept_extent e = { .gpa = c->gpa,
				      .bytes = c->bytes,
				      .value = c->leaf.hpa,
				      .rights = c->leaf.rights,
				      .type = c->leaf.type,
				      .flags = c->leaf.flags };
	uint32_t most = c->leaf.level ? c->leaf.level : 3;

	switch (c->operation) {
	case VMEMT_EPT_MAP:
	case VMEMT_EPT_INSTALL:
		vmemt_ept_punch(w, c->gpa, c->bytes);
		while (!level_possible(w, most, e.rights, e.flags))
			most--;
		vmemt_ept_put_leaves(w, c->gpa, c->bytes, &e, most);
		if (e.flags & AD)
			vmemt_ept_uppers_used(w, c->gpa, c->bytes);
		break;
	case VMEMT_EPT_UNMAP: vmemt_ept_punch(w, c->gpa, c->bytes); break;
	case VMEMT_EPT_PAYLOAD:
		vmemt_ept_punch(w, c->gpa, c->bytes);
		e = (struct vmemt_ept_extent){
			.gpa = c->gpa, .bytes = c->bytes, .value = c->payload, .step = c->step
		};
		vmemt_ept_put(w, &e);
		break;
	case VMEMT_EPT_MERGE:
		VMEMT_HOLDS(vmemt_ept_merge_tables(w, c->gpa, c->bytes, c->level) ==
			    w->change.leaves);
		break;
	case VMEMT_EPT_SPLIT: vmemt_ept_split_leaves(w, c, c->level); break;
	case VMEMT_EPT_PROTECT:
	case VMEMT_EPT_SET_TYPE: apply_to_extents(w, c); break;
	default: vmemt_ept_track_apply(w, c); break;
	}
	vmemt_ept_join(w, c->gpa, c->bytes);
}

/* --- A step --- */

static void after(struct vmemt_ept_world *w, const struct vmemt_ept_call *c)
{
	vmemt_ept_owe(w);
	vmemt_ept_uppers_compare(w, c->gpa);
	vmemt_ept_cached_check(w, c->gpa, c->bytes);
}

/* So that neither memory nor the list runs out. */
static void make_room(struct vmemt_ept_world *w)
{
	struct vmemt_ept_call c = { .operation = VMEMT_EPT_UNMAP, .gpa = 0, .bytes = w->top };

	if (w->extents < VMEMT_EPT_EXTENTS / 2 && w->memory.live < LIVE_MOST && !one_of(w, 400))
		return;
	VMEMT_HOLDS(call(w, &c) == 0);
	apply(w, &c);
	after(w, &c);
	vmemt_ept_tell(w, w->pending_count, 1);
	VMEMT_HOLDS(w->memory.live == 1);
}

/* Where it was, and where something is still owed. */
static void accesses(struct vmemt_ept_world *w, const struct vmemt_ept_call *c)
{
	const struct vmem_ept_range *owed;

	for (uint32_t i = 0; i < 4; i++)
		vmemt_ept_access(w, c->gpa + vmemt_rand(&w->rng) % c->bytes);
	if (!w->pending_count)
		return;
	owed = &w->pending[vmemt_rand(&w->rng) % w->pending_count].change.ranges[0];
	if (owed->bytes)
		vmemt_ept_access(w, owed->gpa + vmemt_rand(&w->rng) % owed->bytes);
}

void vmemt_ept_step(struct vmemt_ept_world *w)
{
	struct vmemt_ept_call c;
	int expected, saved, err;

	make_room(w);
	draw_call(w, &c);
	expected = expect(w, &c);
	saved = expected && w->memory.live <= SAVED_MOST && one_of(w, 2);
	if (c.operation == VMEMT_EPT_MERGE)
		vmemt_ept_before_merge(w, c.gpa, c.bytes);
	if (saved)
		vmemt_ept_memory_save(&w->memory);
	err = try_call(w, &c);
	if (err != expected) {
		fprintf(stderr, "operation %d of %#llx at %#llx: %d, not %d; reason %u\n",
			c.operation, (unsigned long long)c.bytes, (unsigned long long)c.gpa, err,
			expected, w->change.reason);
		abort();
	}
	if (expected) {
		VMEMT_HOLDS(!saved || vmemt_ept_memory_same(&w->memory));
		VMEMT_HOLDS(!w->change.flush && !w->change.epoch);
	} else {
		apply(w, &c);
	}
	after(w, &c);
	vmemt_ept_tell_some(w);
	vmemt_ept_compare(w, c.gpa, c.bytes);
	if (w->processor)
		accesses(w, &c);
}
