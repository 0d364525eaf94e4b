/* SPDX-License-Identifier: BSD-2-Clause */
/* Giving slots back, at once or after they have been discarded. See slots_internal.h. */
#include "slots/slots_unused.h"
#include "slots/slots_internal.h"

void vmemi_slots_give_up(vmem_slots *s, const struct vmemi_slots_place *p)
{
	uint64_t bit = UINT64_C(1) << p->number % VMEMI_SLOTS_CHUNK;
	struct vmemi_slots_table *t = atomic_load(&p->cluster->table);

	if (!t || vmemi_slots_has(p->cluster, VMEMI_SLOTS_CURSOR))
		return;
	for (uint32_t word = 0; word < VMEMI_SLOTS_WORDS; word++)
		if (atomic_load(&t->used[word]) & ~atomic_load(&t->cut[word]))
			return;
	atomic_store(&p->cluster->table, NULL);
	p->chunk->room &= ~bit;
	if (p->number < atomic_load(&p->device->clusters)) {
		p->chunk->empty |= bit;
		p->device->full = false;
	}
	p->device->tables--;
	atomic_store(&t->owner[0], (uintptr_t)s->given_up);
	s->given_up = t;
}

/* Whether all slots of the run are taken. */
static bool are_taken(const struct vmemi_slots_table *t, uint32_t at, uint32_t count)
{
	for (uint32_t word = at / 64; word < VMEMI_SLOTS_WORDS; word++)
		if (~vmemi_slots_taken(t, word) & vmemi_slots_mask(at, count, word))
			return false;
	return true;
}

static void set(_Atomic uint64_t *words, uint32_t at, uint32_t count)
{
	for (uint32_t word = at / 64; word < VMEMI_SLOTS_WORDS; word++)
		atomic_fetch_or(&words[word], vmemi_slots_mask(at, count, word));
}

static void clear(_Atomic uint64_t *words, uint32_t at, uint32_t count)
{
	for (uint32_t word = at / 64; word < VMEMI_SLOTS_WORDS; word++)
		atomic_fetch_and(&words[word], ~vmemi_slots_mask(at, count, word));
}

/* The run is taken or was to be discarded, and belongs to nobody now. The lock is held. */
static void become_free(vmem_slots *s, const struct vmemi_slots_place *p, uint32_t at,
			uint32_t count)
{
	struct vmemi_slots_table *t = atomic_load(&p->cluster->table);

	if (p->number >= atomic_load(&p->device->clusters)) {
		set(t->cut, at, count);
	} else {
		clear(t->used, at, count);
		vmemi_slots_room(p);
	}
	vmemi_slots_give_up(s, p);
}

/* Last in, first out: what has just been freed is discarded together. The lock is held. */
static void become_discard(vmem_slots *s, const struct vmemi_slots_place *p, uint64_t slot,
			   uint32_t count)
{
	struct vmemi_slots_table *t = atomic_load(&p->cluster->table);
	uint32_t at = slot % VMEM_SLOTS_CLUSTER;

	atomic_store(&t->owner[at], s->discard_last << 10 | count);
	s->discard_last = slot + 1;
	vmemi_slots_mark(p->cluster, VMEMI_SLOTS_DISCARDS, 0);
	set(t->discard, at, count);
	p->device->discards += count;
}

/* Runs, and what is beyond the end. @least: from so many on they are to be discarded; 0: none are. */
static int give_slowly(vmem_slots *s, const struct vmemi_slots_place *p, uint64_t slot,
		       uint32_t count, uint32_t least)
{
	uint32_t at = slot % VMEM_SLOTS_CLUSTER;
	const struct vmemi_slots_table *t;
	int result = 0;

	vmemi_lock(&s->lock);
	t = atomic_load(&p->cluster->table);
	if (!t || !are_taken(t, at, count))
		result = -VMEM_ENOENT;
	else if (least && count >= least)
		become_discard(s, p, slot, count);
	else
		become_free(s, p, at, count);
	vmemi_unlock(&s->lock);
	return result;
}

/* Slots of this cluster have been given back where that is to be told, or nothing was left of its word. */
static __attribute__((noinline)) int tell(vmem_slots *s, uint64_t slot)
{
	struct vmemi_slots_place p;

	vmemi_lock(&s->lock);
	/* Who comes late finds no table any more, or another. */
	if (vmemi_slots_find(s, slot, &p) && atomic_load(&p.cluster->table)) {
		if (p.number >= atomic_load(&p.device->clusters)) {
			vmemi_slots_cut_off(s, &p);
		} else {
			vmemi_slots_room(&p);
			vmemi_slots_give_up(s, &p);
		}
	}
	vmemi_unlock(&s->lock);
	return 0;
}

static __attribute__((noinline)) int give_run(vmem_slots *s, uint64_t slot, uint32_t count,
					      bool unused)
{
	struct vmemi_slots_place p;

	if (!count || count > VMEM_SLOTS_CLUSTER - slot % VMEM_SLOTS_CLUSTER)
		return -VMEM_EINVAL;
	if (!vmemi_slots_find(s, slot, &p))
		return -VMEM_ENOENT;
	return give_slowly(s, &p, slot, count, unused ? 0 : p.device->discard_least);
}

int vmemi_slots_give_unused(vmem_slots *s, uint64_t slot, uint32_t count)
{
	return give_run(s, slot, count, true);
}

/* What vmemi_slots_find() says, of slots that are free at once when they are given back one by one. */
static inline bool find_at_once(const vmem_slots *s, uint64_t slot, struct vmemi_slots_place *ret)
{
	uint64_t device = slot >> VMEM_SLOTS_NUMBER_BITS;

	if (device >= VMEM_SLOTS_DEVICES)
		return false;
	ret->number = VMEM_SLOT_NUMBER(slot) / VMEM_SLOTS_CLUSTER;
	ret->device = atomic_load_explicit(&s->device[device], memory_order_acquire);
	if (!ret->device ||
	    ret->number >= atomic_load_explicit(&ret->device->at_once, memory_order_acquire))
		return false;
	ret->chunk = atomic_load_explicit(&ret->device->chunk[ret->number / VMEMI_SLOTS_CHUNK],
					  memory_order_acquire);
	ret->cluster = &ret->chunk->cluster[ret->number % VMEMI_SLOTS_CHUNK];
	return true;
}

/* A used slot of a cluster with such a state is not taken, but free by the cursor's leave or to be discarded. */
static bool is_set_apart(const struct vmemi_slots_table *t, uint32_t word, uint64_t bit)
{
	if (atomic_load_explicit(&t->discard[word], memory_order_relaxed) & bit)
		return true;
	/* A cursor is seldom stopped. */
	return atomic_load_explicit(&t->held[word], memory_order_acquire) & bit &&
	       vmemi_slots_held(t, word) & bit;
}

/* Nothing here leaves the registers: the addresses of places stay with the functions above. */
int vmem_slots_give(vmem_slots *s, uint64_t slot, uint32_t count)
{
	uint32_t word = slot % VMEM_SLOTS_CLUSTER / 64;
	uint64_t bit = UINT64_C(1) << slot % 64;
	struct vmemi_slots_table *t;
	struct vmemi_slots_place p;

	if (count != 1 || !find_at_once(s, slot, &p))
		return give_run(s, slot, count, false);
	t = atomic_load_explicit(&p.cluster->table, memory_order_acquire);
	if (!t || !(atomic_load_explicit(&t->used[word], memory_order_acquire) & bit))
		return -VMEM_ENOENT;
	if (vmemi_slots_has(p.cluster, VMEMI_SLOTS_CURSOR | VMEMI_SLOTS_DISCARDS) &&
	    is_set_apart(t, word, bit))
		return -VMEM_ENOENT;
	/* Who clears the last bit that kept a table there touches it no more. Written like this it is one
	 * instruction, and no loop. */
	if (!(atomic_fetch_and(&t->used[word], ~bit) & ~bit) &&
	    !(atomic_load(&p.cluster->state) & VMEMI_SLOTS_CURSOR))
		return tell(s, slot);
	return atomic_load(&p.cluster->state) & VMEMI_SLOTS_TELL ? tell(s, slot) : 0;
}

int vmem_slots_discard_next(vmem_slots *s, uint64_t *ret_slot, uint32_t *ret_count)
{
	struct vmemi_slots_place p;
	uint64_t slot, entry;

	vmemi_lock(&s->lock);
	slot = s->discard_last - 1;
	if (s->discard_last && vmemi_slots_find(s, slot, &p)) {
		entry = atomic_load(
			&atomic_load(&p.cluster->table)->owner[slot % VMEM_SLOTS_CLUSTER]);
		s->discard_last = entry >> 10;
		*ret_slot = slot;
		*ret_count = (uint32_t)(entry & 1023);
	}
	vmemi_unlock(&s->lock);
	return slot == VMEM_SLOTS_NONE ? -VMEM_ENOENT : 0;
}

static int discarded(vmem_slots *s, uint64_t slot, uint32_t count)
{
	uint32_t at = slot % VMEM_SLOTS_CLUSTER;
	struct vmemi_slots_table *t;
	struct vmemi_slots_place p;

	if (!vmemi_slots_find(s, slot, &p) || !(t = atomic_load(&p.cluster->table)))
		return -VMEM_ENOENT;
	for (uint32_t word = at / 64; word < VMEMI_SLOTS_WORDS; word++)
		if (~atomic_load(&t->discard[word]) & vmemi_slots_mask(at, count, word))
			return -VMEM_ENOENT;
	clear(t->discard, at, count);
	if (!vmemi_slots_any_discards(t))
		vmemi_slots_mark(p.cluster, 0, VMEMI_SLOTS_DISCARDS);
	p.device->discards -= count;
	become_free(s, &p, at, count);
	return 0;
}

int vmem_slots_discarded(vmem_slots *s, uint64_t slot, uint32_t count)
{
	int result;

	if (!count || count > VMEM_SLOTS_CLUSTER - slot % VMEM_SLOTS_CLUSTER)
		return -VMEM_EINVAL;
	vmemi_lock(&s->lock);
	result = discarded(s, slot, count);
	vmemi_unlock(&s->lock);
	return result;
}
