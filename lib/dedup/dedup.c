/* SPDX-License-Identifier: BSD-2-Clause */
/* The table from content to id: making it, entering, counting references. How it all fits together is
 * said in dedup_internal.h. */
#include "base/opts.h"
#include "dedup/dedup_internal.h"

/* Spilled entries of a stripe, at the most: far more than honest hashes make. */
#define SPILLED_MIN 64u
#define SPILLED_PER_GROUP 8u

/* --- The mix --- */

/* A permutation of 32 bits in which each bit of the result depends on each of @x (Wellons, "Prospecting
 * for hash functions", 2018: lowbias32, as improved by TheIronBorn). */
static uint32_t permute(uint32_t x)
{
	x ^= x >> 16;
	x *= UINT32_C(0x21f0aaad);
	x ^= x >> 15;
	x *= UINT32_C(0xd35a2d97);
	x ^= x >> 15;
	return x;
}

/* Permutations and exclusive or only: for one hash, two domains never have the same mix. */
uint32_t vmemi_dedup_mix(const struct vmem_dedup *d, uint32_t domain, uint32_t hash)
{
	return permute((hash & d->hash_mask) ^ permute(domain ^ d->opts.seed));
}

void vmemi_dedup_truncate(struct vmem_dedup *d, uint32_t bits)
{
	d->hash_mask = (uint32_t)((UINT64_C(1) << bits) - 1);
}

uint32_t vmem_dedup_hash(const vmem_dedup *d, const void *page)
{
	return (uint32_t)d->hash(page, VMEM_PAGE_SIZE, 0);
}

/* --- Making --- */

static int make_stripes(struct vmem_dedup *d)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < VMEMI_DEDUP_STRIPES; i++)
		err = vmemi_lock_init(&d->stripe[i].lock, &d->env);
	return err;
}

static int take_opts(struct vmem_dedup *d, const struct vmem_dedup_opts *opts)
{
	if (opts->flags || !opts->compare || !opts->release)
		return -VMEM_EINVAL;
	d->opts = *opts;
	d->hash = vmemi_hash_choose(opts->cpu);
	d->hash_mask = UINT32_MAX;
	return vmemi_env_take(&d->env, opts->env);
}

int vmem_dedup_new(vmem_dedup **ret_dedup, const struct vmem_dedup_opts *given)
{
	struct vmem_allocator allocator;
	struct vmem_dedup_opts opts;
	struct vmem_dedup *d;
	int err = ret_dedup ? vmemi_opts_take(&opts, sizeof(opts), given) : -VMEM_EINVAL;

	if (!err)
		err = vmemi_alloc_take(&allocator, opts.allocator);
	if (err)
		return err;
	d = vmemi_zalloc(&allocator, sizeof(*d), _Alignof(struct vmem_dedup));
	if (!d)
		return -VMEM_ENOMEM;
	vmemi_counting_init(&d->memory, &allocator);
	vmemi_dedup_resize_init(d);
	err = take_opts(d, &opts);
	if (!err)
		err = make_stripes(d);
	if (err)
		vmem_dedup_free(d);
	else
		*ret_dedup = d;
	return err;
}

void vmem_dedup_free(vmem_dedup *d)
{
	struct vmem_allocator allocator;

	if (!d)
		return;
	for (uint32_t i = 0; i < VMEMI_DEDUP_STRIPES; i++) {
		struct vmemi_dedup_spill *spill = &d->stripe[i].spill;

		vmemi_free(&d->memory.allocator, spill->entries,
			   spill->capacity * sizeof(*spill->entries), VMEMI_DEDUP_LINE_BYTES);
		vmemi_lock_destroy(&d->stripe[i].lock);
	}
	vmemi_dedup_resize_destroy(d);
	allocator = d->memory.inner;
	vmemi_free(&allocator, d, sizeof(*d), _Alignof(struct vmem_dedup));
}

/* --- Entering --- */

/* Whether a stripe's spill has so many entries that their hashes must collide. While the table is too full,
 * because who makes it grow does not get the processor, there may be any number. Locked. */
static bool collide(const struct vmem_dedup *d, const struct vmemi_dedup_at *at)
{
	uint32_t groups = 1u << (at->where.level - VMEMI_DEDUP_STRIPE_BITS);

	return at->stripe->spill.whole >= SPILLED_MIN + groups * SPILLED_PER_GROUP &&
	       !vmemi_dedup_too_full(d);
}

/* 0, -VMEM_EEXIST, -VMEM_ENOSPC, -VMEM_EAGAIN (the spill must grow first). Locked. */
static int put(const struct vmem_dedup *d, struct vmemi_dedup_at *at, uint32_t id, uint32_t count)
{
	struct vmemi_dedup_spill *spill = &at->stripe->spill;
	struct vmemi_dedup_slot slot;

	if (vmemi_dedup_slot_find(at, id, !count, &slot))
		return -VMEM_EEXIST;
	if (!vmemi_dedup_group_put(at->group, at->mix, vmemi_dedup_entry_of(at->mix, id, count))) {
		if (collide(d, at))
			return -VMEM_ENOSPC;
		if (!vmemi_dedup_spill_room(spill))
			return -VMEM_EAGAIN;
		vmemi_dedup_spill_put(spill, (struct vmemi_dedup_spilled){ at->mix, id, count,
									   VMEMI_DEDUP_WHOLE });
	}
	at->stripe->hints += !count;
	at->stripe->shared += count != 0;
	at->stripe->references += count;
	return 0;
}

int vmemi_dedup_enter(struct vmem_dedup *d, uint32_t mix, uint32_t id, uint32_t count)
{
	int err;

	do {
		struct vmemi_dedup_at at = vmemi_dedup_lock(d, mix);

		err = put(d, &at, id, count);
		if (!err)
			atomic_fetch_add_explicit(&d->entries, 1, memory_order_relaxed);
		vmemi_dedup_unlock(&at);
	} while (err == -VMEM_EAGAIN &&
		 !(err = vmemi_dedup_spill_grow(d, vmemi_dedup_stripe_of(d, mix), 1)));
	if (err && err != -VMEM_EEXIST)
		atomic_fetch_add_explicit(&d->refused, 1, memory_order_relaxed);
	vmemi_dedup_grow(d);
	return err;
}

int vmem_dedup_add(vmem_dedup *d, uint32_t domain, uint32_t hash, uint32_t id)
{
	if (!domain || !id)
		return -VMEM_EINVAL;
	return vmemi_dedup_enter(d, vmemi_dedup_mix(d, domain, hash), id, 1);
}

/* --- Counting --- */

/* 0, -VMEM_ENOENT, -VMEM_ENOSPC, -VMEM_EAGAIN (the spill must grow first). Locked. */
static int take(const struct vmemi_dedup_at *at, uint32_t id)
{
	struct vmemi_dedup_slot slot;
	uint32_t count;
	int err;

	if (!vmemi_dedup_slot_find(at, id, false, &slot))
		return -VMEM_ENOENT;
	count = vmemi_dedup_slot_count(at, slot);
	if (count == UINT32_MAX)
		return -VMEM_ENOSPC;
	err = vmemi_dedup_slot_set_count(at, slot, count + 1);
	at->stripe->references += !err;
	return err;
}

int vmem_dedup_take(vmem_dedup *d, uint32_t domain, uint32_t hash, uint32_t id)
{
	uint32_t mix;
	int err;

	if (!domain || !id)
		return -VMEM_EINVAL;
	mix = vmemi_dedup_mix(d, domain, hash);
	do {
		struct vmemi_dedup_at at = vmemi_dedup_lock(d, mix);

		err = take(&at, id);
		vmemi_dedup_unlock(&at);
	} while (err == -VMEM_EAGAIN &&
		 !(err = vmemi_dedup_spill_grow(d, vmemi_dedup_stripe_of(d, mix), 1)));
	return err;
}

int vmemi_dedup_drop(struct vmem_dedup *d, uint32_t mix, uint32_t id, uint32_t *ret_left)
{
	struct vmemi_dedup_at at = vmemi_dedup_lock(d, mix);
	struct vmemi_dedup_slot slot;
	bool found = vmemi_dedup_slot_find(&at, id, false, &slot);

	if (found) {
		uint32_t left = vmemi_dedup_slot_count(&at, slot) - 1;

		if (left) {
			vmemi_dedup_slot_set_count(&at, slot, left);
		} else {
			vmemi_dedup_slot_remove(d, &at, slot);
			at.stripe->shared--;
		}
		at.stripe->references--;
		*ret_left = left;
	}
	vmemi_dedup_unlock(&at);
	return found ? 0 : -VMEM_ENOENT;
}

int vmem_dedup_drop(vmem_dedup *d, uint32_t domain, uint32_t hash, uint32_t id, uint32_t *ret_left)
{
	if (!domain || !ret_left)
		return -VMEM_EINVAL;
	return vmemi_dedup_drop(d, vmemi_dedup_mix(d, domain, hash), id, ret_left);
}

int vmem_dedup_move(vmem_dedup *d, uint32_t domain, uint32_t hash, uint32_t old_id, uint32_t new_id,
		    uint32_t references)
{
	struct vmemi_dedup_slot slot, other;
	struct vmemi_dedup_at at;
	int err = 0;

	if (!domain || !new_id)
		return -VMEM_EINVAL;
	at = vmemi_dedup_lock(d, vmemi_dedup_mix(d, domain, hash));
	if (!vmemi_dedup_slot_find(&at, old_id, false, &slot))
		err = -VMEM_ENOENT;
	else if (references != vmemi_dedup_slot_count(&at, slot))
		err = -VMEM_EBUSY;
	else if (vmemi_dedup_slot_find(&at, new_id, false, &other))
		err = -VMEM_EEXIST;
	else
		vmemi_dedup_slot_set_id(&at, slot, new_id);
	vmemi_dedup_unlock(&at);
	return err;
}

/* --- Counters --- */

int vmem_dedup_get_stats(vmem_dedup *d, struct vmem_dedup_stats *ret_stats)
{
	struct vmem_dedup_stats stats = { .size = sizeof(stats) };

	for (uint32_t i = 0; i < VMEMI_DEDUP_STRIPES; i++) {
		struct vmemi_dedup_stripe *s = &d->stripe[i];

		vmemi_lock(&s->lock);
		stats.hints += s->hints;
		stats.shared += s->shared;
		stats.references += s->references;
		stats.spilled += s->spill.whole;
		vmemi_unlock(&s->lock);
	}
	stats.entries = stats.hints + stats.shared;
	stats.saved_pages = stats.references - stats.shared;
	stats.bytes = sizeof(*d) + atomic_load_explicit(&d->memory.bytes, memory_order_relaxed);
	stats.compares = atomic_load_explicit(&d->compares, memory_order_relaxed);
	stats.compares_different =
		atomic_load_explicit(&d->compares_different, memory_order_relaxed);
	stats.hints_stale = atomic_load_explicit(&d->hints_stale, memory_order_relaxed);
	stats.refused = atomic_load_explicit(&d->refused, memory_order_relaxed);
	return vmemi_opts_give(ret_stats, &stats, sizeof(stats));
}
