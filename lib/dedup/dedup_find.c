/* SPDX-License-Identifier: BSD-2-Clause */
/* Finding an equal object. Under the lock, a reference is taken to each candidate, so that none goes
 * away; then they are compared without it; then all references but that to the equal one are given
 * back. Hints have no references: what a callback says of one is true when it says it. */
#include "dedup/dedup_internal.h"

#define WINDOW 16u /* items of find_many() that are under way at once */

struct candidates {
	uint32_t count;
	uint32_t shared; /* the first so many are objects, the rest hints */
	uint32_t id[VMEMI_DEDUP_CANDIDATES];
};

/* --- Collecting. Locked --- */

/* 0, -VMEM_EAGAIN: it cannot be counted before the spill grows. */
static int take_candidate(const struct vmemi_dedup_at *at, struct vmemi_dedup_slot slot,
			  struct candidates *c)
{
	uint32_t count = vmemi_dedup_slot_count(at, slot);
	int err;

	if (count == UINT32_MAX || c->shared == VMEMI_DEDUP_CANDIDATES)
		return 0;
	err = vmemi_dedup_slot_set_count(at, slot, count + 1);
	if (err)
		return err;
	at->stripe->references++;
	c->id[c->shared++] = slot.spilled ? slot.spilled->id : vmemi_dedup_entry_id(*slot.entry);
	return 0;
}

static int collect_shared(const struct vmemi_dedup_at *at, struct candidates *c)
{
	struct vmemi_dedup_walk walk = vmemi_dedup_walk_of(at->group, at->mix);
	struct vmemi_dedup_slot slot = { .entry = NULL };
	int err = 0;

	while ((slot.entry = vmemi_dedup_walk_next(&walk)))
		if (vmemi_dedup_entry_count(*slot.entry) && take_candidate(at, slot, c))
			err = -VMEM_EAGAIN;
	while (!walk.lines_left &&
	       (slot.spilled = vmemi_dedup_spill_next(&at->stripe->spill, at->mix,
						      VMEMI_DEDUP_WHOLE, slot.spilled)))
		if (slot.spilled->count)
			take_candidate(at, slot, c);
	c->count = c->shared;
	return err;
}

static void collect_hints(const struct vmemi_dedup_at *at, struct candidates *c)
{
	struct vmemi_dedup_walk walk = vmemi_dedup_walk_of(at->group, at->mix);
	struct vmemi_dedup_spilled *spilled = NULL;
	vmemi_dedup_entry *entry;

	while (c->count < VMEMI_DEDUP_CANDIDATES && (entry = vmemi_dedup_walk_next(&walk)))
		if (!vmemi_dedup_entry_count(*entry))
			c->id[c->count++] = vmemi_dedup_entry_id(*entry);
	while (c->count < VMEMI_DEDUP_CANDIDATES && !walk.lines_left &&
	       (spilled = vmemi_dedup_spill_next(&at->stripe->spill, at->mix, VMEMI_DEDUP_WHOLE,
						 spilled)))
		if (!spilled->count)
			c->id[c->count++] = spilled->id;
}

/* --- Giving back. Not locked --- */

static void give_back(struct vmem_dedup *d, uint32_t mix, uint32_t id)
{
	uint32_t left = 1;

	/* It is there: the reference is ours. */
	if (!vmemi_dedup_drop(d, mix, id, &left) && !left)
		d->opts.release(d->opts.context, id);
}

static void collect(struct vmem_dedup *d, uint32_t mix, struct candidates *c)
{
	for (bool again = true;; again = false) {
		struct vmemi_dedup_at at = vmemi_dedup_lock(d, mix);
		int err;

		c->shared = 0;
		err = collect_shared(&at, c);
		if (d->opts.compare_hint)
			collect_hints(&at, c);
		vmemi_dedup_unlock(&at);
		if (!err || !again || vmemi_dedup_spill_grow(d, at.stripe, VMEMI_DEDUP_CANDIDATES))
			return;
		for (uint32_t i = 0; i < c->shared; i++)
			give_back(d, mix, c->id[i]);
	}
}

/* --- Comparing. Not locked --- */

/* Compares with one. 1, 0, or a negative error. */
static int compare(struct vmem_dedup *d, uint32_t mix, const struct candidates *c, uint32_t n,
		   const void *page)
{
	bool hint = n >= c->shared;
	int equal = hint ? d->opts.compare_hint(d->opts.context, c->id[n], page)
			 : d->opts.compare(d->opts.context, c->id[n], page);

	atomic_fetch_add_explicit(&d->compares, 1, memory_order_relaxed);
	if (!equal)
		atomic_fetch_add_explicit(&d->compares_different, 1, memory_order_relaxed);
	if (equal == -VMEM_ENOENT && hint) {
		if (!vmemi_dedup_forget(d, mix, c->id[n]))
			atomic_fetch_add_explicit(&d->hints_stale, 1, memory_order_relaxed);
		return 0;
	}
	return equal;
}

static int choose(struct vmem_dedup *d, uint32_t mix, const struct candidates *c, const void *page,
		  uint32_t *ret_id)
{
	int found = VMEM_DEDUP_NONE;

	for (uint32_t i = 0; i < c->count; i++) {
		int equal = found > 0 ? 0 : compare(d, mix, c, i, page);

		if (equal > 0) {
			found = i < c->shared ? VMEM_DEDUP_SHARED : VMEM_DEDUP_HINT;
			*ret_id = c->id[i];
			continue;
		}
		if (equal < 0 && !found)
			found = equal;
		if (i < c->shared)
			give_back(d, mix, c->id[i]);
	}
	return found;
}

/* --- Public --- */

void vmem_dedup_prefetch(const vmem_dedup *d, uint32_t domain, uint32_t hash)
{
	uint32_t mix = vmemi_dedup_mix(d, domain, hash);
	struct vmemi_dedup_where w =
		vmemi_dedup_where(atomic_load_explicit(&d->geometry, memory_order_acquire), mix);
	vmemi_dedup_chunk *place = vmemi_dedup_chunk_at(d, w);
	vmemi_dedup_entry *chunk = place ? atomic_load_explicit(place, memory_order_relaxed) : NULL;

	/* It may be gone by now: an address that is only prefetched may be any. */
	if (chunk)
		__builtin_prefetch(vmemi_dedup_group_in(chunk, w).entries +
				   (size_t)vmemi_dedup_home(mix, w.lines) *
					   VMEMI_DEDUP_LINE_ENTRIES);
}

int vmem_dedup_find(vmem_dedup *d, uint32_t domain, uint32_t hash, const void *page,
		    uint32_t *ret_id)
{
	struct candidates c;
	uint32_t mix;

	if (!domain || !ret_id)
		return -VMEM_EINVAL;
	mix = vmemi_dedup_mix(d, domain, hash);
	collect(d, mix, &c);
	return choose(d, mix, &c, page, ret_id);
}

/* Up to WINDOW items. */
static uint32_t find_window(vmem_dedup *d, struct vmem_dedup_item *items, uint32_t count)
{
	struct candidates c[WINDOW];
	uint32_t found = 0;

	for (uint32_t i = 0; i < count; i++)
		vmem_dedup_prefetch(d, items[i].domain, items[i].hash);
	for (uint32_t i = 0; i < count; i++) {
		c[i].count = c[i].shared = 0;
		if (items[i].domain)
			collect(d, vmemi_dedup_mix(d, items[i].domain, items[i].hash), &c[i]);
		for (uint32_t n = 0; d->opts.prefetch && n < c[i].shared; n++)
			d->opts.prefetch(d->opts.context, c[i].id[n]);
	}
	for (uint32_t i = 0; i < count; i++) {
		struct vmem_dedup_item *item = &items[i];

		item->result = -VMEM_EINVAL;
		if (item->domain)
			item->result = choose(d, vmemi_dedup_mix(d, item->domain, item->hash),
					      &c[i], item->page, &item->id);
		found += item->result == VMEM_DEDUP_SHARED;
	}
	return found;
}

uint32_t vmem_dedup_find_many(vmem_dedup *d, struct vmem_dedup_item *items, uint32_t count)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < count; i += WINDOW)
		found += find_window(d, items + i, count - i < WINDOW ? count - i : WINDOW);
	return found;
}
