/* SPDX-License-Identifier: BSD-2-Clause */
/* The object itself, owners and sums. slots_internal.h says how it works. */
#include "slots/slots_internal.h"
#include "base/mem.h"
#include "base/opts.h"

int vmem_slots_new(vmem_slots **ret_slots, const struct vmem_slots_opts *opts)
{
	struct vmemi_counting_allocator memory;
	struct vmem_allocator allocator;
	struct vmem_slots_opts o;
	vmem_slots *s;
	int err;

	if (!ret_slots)
		return -VMEM_EINVAL;
	if ((err = vmemi_opts_take(&o, sizeof(o), opts)) != 0 ||
	    (err = vmemi_alloc_take(&allocator, o.allocator)) != 0)
		return err;
	if (o.flags)
		return -VMEM_EINVAL;
	vmemi_counting_init(&memory, &allocator);
	s = vmemi_zalloc(&allocator, sizeof(*s), _Alignof(vmem_slots));
	if (!s)
		return -VMEM_ENOMEM;
	vmemi_counting_init(&s->memory, &allocator);
	err = vmemi_env_take(&s->env, o.env);
	if (!err)
		err = vmemi_lock_init(&s->lock, &s->env);
	/* Tried out here, where it also gets ready. */
	s->fences =
		!err && s->env.lock_new && (!s->env.barrier || s->env.barrier(s->env.context) != 0);
	if (err) {
		vmemi_free(&allocator, s, sizeof(*s), _Alignof(vmem_slots));
		return err;
	}
	*ret_slots = s;
	return 0;
}

void vmem_slots_work(vmem_slots *s)
{
	struct vmemi_slots_table *t, *next;

	vmemi_lock(&s->lock);
	t = s->given_up;
	s->given_up = NULL;
	vmemi_unlock(&s->lock);
	for (; t; t = next) {
		next = (void *)(uintptr_t)atomic_load_explicit(&t->owner[0], memory_order_relaxed);
		vmemi_free(&s->memory.allocator, t, sizeof(*t), _Alignof(struct vmemi_slots_table));
	}
}

/* The slot's entry, if it is taken. */
static _Atomic uint64_t *entry_of(const vmem_slots *s, uint64_t slot)
{
	uint32_t at = slot % VMEM_SLOTS_CLUSTER;
	uint64_t bit = UINT64_C(1) << at % 64;
	struct vmemi_slots_table *t;
	struct vmemi_slots_place p;

	if (!vmemi_slots_find(s, slot, &p))
		return NULL;
	t = atomic_load_explicit(&p.cluster->table, memory_order_acquire);
	if (!t || !(vmemi_slots_taken(t, at / 64) & bit))
		return NULL;
	return &t->owner[at];
}

int vmem_slots_owner(const vmem_slots *s, uint64_t slot, uint64_t *ret_owner)
{
	_Atomic uint64_t *entry = entry_of(s, slot);

	if (!entry)
		return -VMEM_ENOENT;
	*ret_owner = atomic_load_explicit(entry, memory_order_relaxed);
	return 0;
}

int vmem_slots_set_owner(vmem_slots *s, uint64_t slot, uint64_t owner)
{
	_Atomic uint64_t *entry = entry_of(s, slot);

	if (!entry)
		return -VMEM_ENOENT;
	atomic_store_explicit(entry, owner, memory_order_relaxed);
	return 0;
}

/* The first taken slot of a table from @at on; 512: none. */
static uint32_t first_taken(const struct vmemi_slots_table *t, uint32_t at)
{
	uint64_t taken;

	for (uint32_t word = at / 64; word < VMEMI_SLOTS_WORDS; word++) {
		taken = vmemi_slots_taken(t, word);
		if (word == at / 64)
			taken &= ~UINT64_C(0) << at % 64;
		if (taken)
			return word * 64 + (uint32_t)__builtin_ctzll(taken);
	}
	return VMEM_SLOTS_CLUSTER;
}

/* Goes on until clusters without a chunk. The lock is held. */
static int next_taken(const vmem_slots *s, uint64_t slot, uint64_t *ret_slot, uint64_t *ret_owner)
{
	uint32_t at = slot % VMEM_SLOTS_CLUSTER;
	struct vmemi_slots_place p;

	for (; vmemi_slots_find(s, slot, &p); slot += VMEM_SLOTS_CLUSTER - at, at = 0) {
		const struct vmemi_slots_table *t = atomic_load(&p.cluster->table);
		uint32_t found = t ? first_taken(t, at) : VMEM_SLOTS_CLUSTER;

		if (found < VMEM_SLOTS_CLUSTER) {
			*ret_slot = slot - at + found;
			if (ret_owner)
				*ret_owner = atomic_load(&t->owner[found]);
			return 0;
		}
		if (p.number + 1 >= p.device->most) /* the next number is another device's */
			break;
	}
	return -VMEM_ENOENT;
}

int vmem_slots_next(vmem_slots *s, uint64_t slot, uint64_t *ret_slot, uint64_t *ret_owner)
{
	int err;

	vmemi_lock(&s->lock);
	err = next_taken(s, slot, ret_slot, ret_owner);
	vmemi_unlock(&s->lock);
	return err;
}

/* Slots of a device that are in clusters from @cluster on, and neither cut off nor, unless @free, free. */
static uint64_t count(const struct vmemi_slots_device *d, uint64_t cluster, bool free)
{
	const struct vmemi_slots_table *t;
	const struct vmemi_slots_chunk *c;
	uint64_t slots = 0;

	for (; cluster < d->most; cluster++) {
		c = atomic_load(&d->chunk[cluster / VMEMI_SLOTS_CHUNK]);
		if (!c)
			break;
		t = atomic_load(&c->cluster[cluster % VMEMI_SLOTS_CHUNK].table);
		for (uint32_t word = 0; t && word < VMEMI_SLOTS_WORDS; word++)
			slots += vmemi_bits_set(~(atomic_load(&t->cut[word]) |
						  (free ? 0 : vmemi_slots_free(t, word))));
	}
	return slots;
}

uint64_t vmemi_slots_count_taken(const struct vmemi_slots_device *d)
{
	return count(d, 0, false);
}

uint64_t vmemi_slots_count_left(const struct vmemi_slots_device *d, uint64_t cluster)
{
	return count(d, cluster, true);
}

int vmem_slots_get_stats(vmem_slots *s, uint32_t device, struct vmem_slots_stats *stats)
{
	const struct vmemi_slots_device *d =
		device < VMEM_SLOTS_DEVICES ? atomic_load(&s->device[device]) : NULL;
	struct vmem_slots_stats now;

	if (!d)
		return -VMEM_EINVAL;
	vmemi_lock(&s->lock);
	now = (struct vmem_slots_stats){
		.count = atomic_load(&d->clusters) * VMEM_SLOTS_CLUSTER,
		.taken = vmemi_slots_count_taken(d),
		.discards = d->discards,
		.tables = d->tables,
		.bytes = sizeof(*s) + atomic_load(&s->memory.bytes),
	};
	vmemi_unlock(&s->lock);
	return vmemi_opts_give(stats, &now, sizeof(now));
}
