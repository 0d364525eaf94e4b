/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside of an allocator of slots.
 *
 *   device -> chunks of 64 clusters -> clusters of 512 slots -> a table, if one of them is taken
 *
 * A slot is in one of four states: free; taken; freed, but to be discarded first; cut off, which is free beyond the end
 * of a device that has shrunk. Bits of the table say what is not free, and of that, what is in the other two.
 *
 * Fast: a cursor has a cluster, whose state says so. What was free there when it came is used and `held` since,
 * and it takes by clearing a bit of `held` with a plain store; anybody gives back by clearing one of `used`, with an atomic
 * operation that does not return what was there: the processor has one for that, and says if nothing is left. Then he
 * looks at the cluster's state: seldom he is asked to tell, under the lock. All else is done under the lock: which
 * cluster a cursor gets, tables that come and go, and taking from a cluster that somebody else's cursor has, where
 * nothing else is left.
 *
 * For that the cursor is stopped (slots_seat.c). It clears its bit, then looks at `stop`; who stops it sets `stop`,
 * has all threads pass a memory barrier, then looks at `held`: either he sees that the bit has gone, or the taker
 * sees `stop`. The taker may leave out the barrier because the other pays for both, by membarrier(2); where the
 * environment has none, each take pays with an atomic operation. (Asymmetric Dekker: Dice, Huang, Yang, 2001.)
 *
 * A table goes when all its slots are free or cut off and no cursor has it, under the lock. Who gives the last slot
 * back touches the table no more after that. He, and the cursor that leaves, look at each other's mark after having
 * set their own, so one of them sees that the cluster is empty. The same holds for VMEMI_SLOTS_TELL: set, then the bits
 * are looked at once more, so that whoever freed later sees it. It says that something is believed of the cluster that
 * does not hold once a slot is freed there: the length of its longest run; that it has no room, and so that the
 * device is full; or that what is free there has been cut off. */
#ifndef VMEMI_SLOTS_INTERNAL_H
#define VMEMI_SLOTS_INTERNAL_H
#include <stdatomic.h>
#include <stdbool.h>
#include <vmem/slots.h>
#include "base/alloc.h"
#include "base/bits.h"
#include "base/lock.h"

#define VMEMI_SLOTS_WORDS (VMEM_SLOTS_CLUSTER / 64)
#define VMEMI_SLOTS_CHUNK 64u /* clusters */
#define VMEMI_SLOTS_LONGEST_UNKNOWN VMEM_SLOTS_CLUSTER
#define VMEMI_SLOTS_AHEAD \
	96u /* slots: 12 lines of owners, ten takes where one slot in ten is free */

enum vmemi_slots_stop {
	VMEMI_SLOTS_RUNNING,
	VMEMI_SLOTS_STOPPING, /* the cursor has to leave, but what it holds is its own */
	VMEMI_SLOTS_STOPPED   /* likewise, and nothing is held, whatever `held` says */
};

/* Of a cluster: what those must know who give back there. */
enum vmemi_slots_state {
	VMEMI_SLOTS_CURSOR = 1,   /* has it: slots that are held are not taken */
	VMEMI_SLOTS_DISCARDS = 2, /* slots there are to be discarded, or were a moment ago */
	VMEMI_SLOTS_TELL = 4      /* they tell, under the lock, that they have freed something */
};

struct vmemi_slots_table {
	_Alignas(64) _Atomic uint64_t used[VMEMI_SLOTS_WORDS]; /* atomic; not free */
	_Atomic uint64_t held[VMEMI_SLOTS_WORDS];    /* but free; written by the cursor's owner */
	_Atomic uint64_t discard[VMEMI_SLOTS_WORDS]; /* written under the lock */
	_Atomic uint64_t cut[VMEMI_SLOTS_WORDS];     /* likewise */
	_Atomic uint32_t stop; /* written under the lock; enum vmemi_slots_stop */
	uint32_t seen;         /* lock; if STOPPED: the first slot that was held; 512: none */
	uint32_t shy; /* lock; so many are taken under the lock before a cursor has it again */
	/* Of a taken slot; of the first of a run to be discarded: slot of the next + 1, and the run's length. Of one
	 * that has been given up: the next table. */
	_Atomic uint64_t owner[VMEM_SLOTS_CLUSTER];
};

struct vmemi_slots_cluster {
	_Atomic(struct vmemi_slots_table *) table; /* changes under the lock */
	_Atomic uint32_t state;                    /* changes under the lock; VMEMI_SLOTS_* */
	uint32_t longest; /* lock; no free run is longer, as long as nobody tells */
};

struct vmemi_slots_chunk {
	struct vmemi_slots_cluster cluster[VMEMI_SLOTS_CHUNK];
	uint64_t room; /* lock; those with a table that may have free slots; of others it is told */
	uint64_t empty; /* lock; those without a table, not cut off */
};

struct vmemi_slots_device {
	uint64_t hint;     /* lock; where to look for the next cluster */
	uint64_t discards; /* lock; slots */
	uint64_t tables;   /* lock */
	bool full;         /* lock; nothing is free */
	/* Read by all who give back: on lines of the cache that are seldom written to. */
	_Alignas(128) _Atomic uint64_t
		clusters;         /* changes under the lock; those beyond are cut off */
	_Atomic uint64_t at_once; /* likewise; in those before it a slot is free once given back */
	uint32_t discard_least;   /* constant; 0: none */
	int32_t priority;         /* constant */
	uint64_t most;            /* constant; clusters */
	_Atomic(struct vmemi_slots_chunk *)
		chunk[]; /* made as it grows, and there until it is removed */
};

struct vmem_slots {
	struct vmemi_counting_allocator memory;
	struct vmem_env env;
	bool fences; /* constant; cursors cannot be stopped without their help */
	struct vmemi_lock lock;
	_Atomic(struct vmemi_slots_device *) device[VMEM_SLOTS_DEVICES];
	uint32_t order[VMEM_SLOTS_DEVICES]; /* lock; devices, by priority */
	uint32_t devices;                   /* lock */
	uint64_t discard_last; /* lock; first slot + 1 of the run freed last, 0: none */
	struct vmemi_slots_table *given_up; /* lock */
};

/* Where a slot is. */
struct vmemi_slots_place {
	struct vmemi_slots_device *device;
	struct vmemi_slots_chunk *chunk;
	struct vmemi_slots_cluster *cluster;
	uint64_t number; /* of the cluster on its device */
};

/* False: there is no such slot. */
static inline bool vmemi_slots_find(const vmem_slots *s, uint64_t slot,
				    struct vmemi_slots_place *ret)
{
	uint64_t device = slot >> VMEM_SLOTS_NUMBER_BITS;
	uint64_t cluster = VMEM_SLOT_NUMBER(slot) / VMEM_SLOTS_CLUSTER;

	if (device >= VMEM_SLOTS_DEVICES)
		return false;
	ret->device = atomic_load_explicit(&s->device[device], memory_order_acquire);
	if (!ret->device || cluster >= ret->device->most)
		return false;
	ret->chunk = atomic_load_explicit(&ret->device->chunk[cluster / VMEMI_SLOTS_CHUNK],
					  memory_order_acquire);
	if (!ret->chunk)
		return false;
	ret->cluster = &ret->chunk->cluster[cluster % VMEMI_SLOTS_CHUNK];
	ret->number = cluster;
	return true;
}

/* Bits of word @word that belong to the run of @count from slot @first of its cluster on. */
static inline uint64_t vmemi_slots_mask(uint32_t first, uint32_t count, uint32_t word)
{
	uint32_t start = word * 64, end = first + count, from, to;

	if (end <= start || first >= start + 64)
		return 0;
	from = first > start ? first - start : 0;
	to = end < start + 64 ? end - start : 64;
	return (~UINT64_C(0) >> (64 - (to - from))) << from;
}

/* What is free by the cursor's leave. A slot that is taken is never among it. */
static inline uint64_t vmemi_slots_held(const struct vmemi_slots_table *t, uint32_t word)
{
	if (atomic_load_explicit(&t->stop, memory_order_acquire) == VMEMI_SLOTS_STOPPED)
		return 0;
	return atomic_load_explicit(&t->held[word], memory_order_acquire);
}

/* Slots of a word that are free. */
static inline uint64_t vmemi_slots_free(const struct vmemi_slots_table *t, uint32_t word)
{
	return ~atomic_load_explicit(&t->used[word], memory_order_acquire) |
	       vmemi_slots_held(t, word);
}

/* Slots of a word that somebody has taken. */
static inline uint64_t vmemi_slots_taken(const struct vmemi_slots_table *t, uint32_t word)
{
	return ~(vmemi_slots_free(t, word) |
		 atomic_load_explicit(&t->discard[word], memory_order_relaxed) |
		 atomic_load_explicit(&t->cut[word], memory_order_relaxed));
}

static inline bool vmemi_slots_any_free(const struct vmemi_slots_table *t)
{
	uint64_t bits = 0;

	for (uint32_t word = 0; word < VMEMI_SLOTS_WORDS; word++)
		bits |= ~atomic_load(&t->used[word]);
	return bits != 0;
}

static inline bool vmemi_slots_any_discards(const struct vmemi_slots_table *t)
{
	uint64_t bits = 0;

	for (uint32_t word = 0; word < VMEMI_SLOTS_WORDS; word++)
		bits |= atomic_load_explicit(&t->discard[word], memory_order_relaxed);
	return bits != 0;
}

/* Of cursors, all under the lock. The cursor's cluster is this one from now on. */
void vmemi_slots_sit(struct vmem_slots_cursor *c, const struct vmemi_slots_place *p,
		     uint64_t first);
/* What the cursor holds is free for all, and the other way round. It has a cluster, and is not STOPPED. */
void vmemi_slots_put_back(struct vmem_slots_cursor *c);
void vmemi_slots_hold(struct vmem_slots_cursor *c);
/* The cursor has no cluster any more. */
void vmemi_slots_leave(vmem_slots *s, struct vmem_slots_cursor *c);
/* What a cursor holds there is free for all, whoever's it is. False: it cannot be stopped. */
bool vmemi_slots_stop(vmem_slots *s, const struct vmemi_slots_place *p);

/* Under the lock: slots have become free, or the cursor has gone: the table goes if all are. */
void vmemi_slots_give_up(vmem_slots *s, const struct vmemi_slots_place *p);
/* Likewise, of a cluster beyond the end: what is free there is cut off. */
void vmemi_slots_cut_off(vmem_slots *s, const struct vmemi_slots_place *p);
/* Likewise: what is read after that of what is free shows what was freed by those who have not seen it. */
static inline void vmemi_slots_mark(struct vmemi_slots_cluster *c, uint32_t set, uint32_t clear)
{
	uint32_t state = atomic_load_explicit(&c->state, memory_order_relaxed);

	if (((state | set) & ~clear) != state)
		atomic_store(&c->state, (state | set) & ~clear);
}

static inline bool vmemi_slots_has(const struct vmemi_slots_cluster *c, uint32_t state)
{
	return (atomic_load_explicit(&c->state, memory_order_relaxed) & state) != 0;
}

/* Likewise: no free run is longer, or who frees tells. */
static inline void vmemi_slots_know(struct vmemi_slots_cluster *c, uint32_t longest)
{
	c->longest = longest;
	vmemi_slots_mark(c, longest == VMEMI_SLOTS_LONGEST_UNKNOWN ? 0 : VMEMI_SLOTS_TELL,
			 longest == VMEMI_SLOTS_LONGEST_UNKNOWN ? VMEMI_SLOTS_TELL : 0);
}

/* Likewise: there is something to be taken in this cluster, which has a table. Nobody need tell any more. */
static inline void vmemi_slots_room(const struct vmemi_slots_place *p)
{
	p->chunk->room |= UINT64_C(1) << p->number % VMEMI_SLOTS_CHUNK;
	p->device->full = false;
	vmemi_slots_know(p->cluster, VMEMI_SLOTS_LONGEST_UNKNOWN);
}
/* Slots of a device that are taken or to be discarded. The lock is held. */
uint64_t vmemi_slots_count_taken(const struct vmemi_slots_device *d);
/* Slots in clusters from @cluster on that are not cut off: free ones as well, as a cursor may still take them. */
uint64_t vmemi_slots_count_left(const struct vmemi_slots_device *d, uint64_t cluster);

/* For tests, at rest: NULL, or what is wrong. */
const char *vmemi_slots_check(const vmem_slots *s);

#endif
