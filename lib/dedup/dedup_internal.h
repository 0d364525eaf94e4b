/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside the table.
 *
 * A page's `mix` is made of its hash and its domain, 32 bits. The low bits of the mix name a group; a
 * group is a small hash table of its own, some cache lines in a row. All groups have the same number of
 * lines or one more:
 *
 *   level 8:  256 groups of 0, 1, 2 ... 15 lines
 *   level 9:  512 groups of 8, 9 ... 15 lines
 *   level 10: 1024 groups ...
 *
 * The table grows by giving one line to one group, in the order of their numbers, up to which `moved`
 * tells; a group of 15 lines that gets one more is split into two of 8. That is linear hashing with
 * partial expansions (Litwin, VLDB 1980; Larson, VLDB 1980): plain linear hashing, which splits single
 * buckets, leaves those that are not yet split with twice the load of those that are, so that at 0.86 on
 * average most of them overflow. Here loads differ by an eighth. A step rewrites a kilobyte.
 *
 * Groups are kept in chunks, in arrays by level and by whether the number of lines is odd: what a step
 * reads and what it writes are always two arrays. Chunks of the one are freed as those of the other are
 * made. Arrays of pointers to chunks stay until the table is freed, so that a prefetch needs no lock.
 *
 * What does not fit into its group, and counts that do not fit into 8 bits, are in the stripe's spill. In a
 * table of a few hundred entries no group has a line, and all of them are there.
 *
 * Locks: one for each stripe, the lowest 4 bits of the mix, whatever the level. It guards the lines of
 * its groups, its spill and its counters. Nobody holds two. `resizing` is taken by whoever changes the
 * geometry, and left alone by who finds it taken; that one then takes the lock of the stripe it moves. A
 * group's lines change places under its stripe's lock only, so whoever has that sees a geometry that is
 * right for it. Neither the allocator nor a callback is called with a lock held. */
#ifndef VMEMI_DEDUP_INTERNAL_H
#define VMEMI_DEDUP_INTERNAL_H
#include <stdatomic.h>
#include <stdbool.h>
#include <vmem/dedup.h>
#include "base/alloc.h"
#include "base/hash.h"
#include "base/lock.h"
#include "dedup/dedup_group.h"
#include "dedup/dedup_spill.h"

#define VMEMI_DEDUP_STRIPES (1u << VMEMI_DEDUP_STRIPE_BITS)
#define VMEMI_DEDUP_LEVEL_FIRST VMEMI_DEDUP_LOW_BITS /* an entry does not hold these bits */
#define VMEMI_DEDUP_LEVEL_LAST 26u
#define VMEMI_DEDUP_LINES_SPLIT 16u /* a group of as many becomes two of half */
#define VMEMI_DEDUP_CANDIDATES 8u   /* that one find compares at the most */

/* --- The table --- */

struct vmemi_dedup_stripe {
	_Alignas(VMEMI_DEDUP_LINE_BYTES) struct vmemi_lock lock;
	/* All else: the lock. */
	struct vmemi_dedup_spill spill;
	uint32_t hints;
	uint32_t shared;
	uint64_t references;
};

typedef _Atomic(vmemi_dedup_entry *) vmemi_dedup_chunk;

/* moved : 32 | lines : 8 | level : 8. Groups below moved have one line more; a group of level has the
 * lowest `level` bits of the mix as its number. */
typedef uint64_t vmemi_dedup_geometry;

struct vmem_dedup {
	/* Constant. */
	struct vmem_env env;
	struct vmem_dedup_opts opts; /* the callbacks and the seed */
	vmemi_hash_fn hash;
	uint32_t hash_mask; /* all ones; less in tests, so that hashes collide */

	struct vmemi_counting_allocator memory;
	_Atomic vmemi_dedup_geometry
		geometry;          /* atomic, written with resizing and a stripe's lock */
	_Atomic uint32_t resizing; /* atomic; see above */
	_Atomic uint64_t entries;  /* atomic */
	/* atomic, written with resizing; by level and lines & 1 */
	_Atomic(vmemi_dedup_chunk *) chunks[VMEMI_DEDUP_LEVEL_LAST - VMEMI_DEDUP_LEVEL_FIRST + 1]
					   [2];
	/* atomic; counters */
	_Atomic uint64_t compares, compares_different, hints_stale, refused;
	struct vmemi_dedup_stripe stripe[VMEMI_DEDUP_STRIPES];
};

static inline uint32_t vmemi_dedup_level(vmemi_dedup_geometry g)
{
	return (uint32_t)g & 0xff;
}

static inline uint32_t vmemi_dedup_lines(vmemi_dedup_geometry g)
{
	return (uint32_t)g >> 8 & 0xff;
}

static inline uint32_t vmemi_dedup_moved(vmemi_dedup_geometry g)
{
	return (uint32_t)(g >> 32);
}

/* Groups in a chunk: at most a 32nd part of all, so that a chunk is a small part of the table; at most 64,
 * which makes a chunk as many pages as a group has lines. */
static inline uint32_t vmemi_dedup_chunk_shift(uint32_t level)
{
	return level < 11 ? level - 5 : 6;
}

/* Level, lines and number of the group that a mix is in. */
struct vmemi_dedup_where {
	uint32_t level;
	uint32_t lines;
	uint32_t number;
};

static inline struct vmemi_dedup_where vmemi_dedup_where(vmemi_dedup_geometry g, uint32_t mix)
{
	struct vmemi_dedup_where w = { vmemi_dedup_level(g), vmemi_dedup_lines(g), 0 };

	w.number = mix & ((1u << w.level) - 1);
	if (w.number < vmemi_dedup_moved(g) && ++w.lines == VMEMI_DEDUP_LINES_SPLIT) {
		w.lines /= 2;
		w.number = mix & ((1u << ++w.level) - 1);
	}
	return w;
}

/* Where the address of its chunk stands. NULL: there is none, as a group without lines needs none. */
static inline vmemi_dedup_chunk *vmemi_dedup_chunk_at(const struct vmem_dedup *d,
						      struct vmemi_dedup_where w)
{
	vmemi_dedup_chunk *chunks;

	if (!w.lines)
		return NULL;
	chunks = atomic_load_explicit(&d->chunks[w.level - VMEMI_DEDUP_LEVEL_FIRST][w.lines & 1],
				      memory_order_acquire);

	return chunks ? &chunks[w.number >> vmemi_dedup_chunk_shift(w.level)] : NULL;
}

/* With the chunk's address, from which a group's follows. */
static inline struct vmemi_dedup_group vmemi_dedup_group_in(vmemi_dedup_entry *chunk,
							    struct vmemi_dedup_where w)
{
	uint32_t in_chunk = w.number & ((1u << vmemi_dedup_chunk_shift(w.level)) - 1);

	return (struct vmemi_dedup_group){ chunk + in_chunk * w.lines * VMEMI_DEDUP_LINE_ENTRIES,
					   w.lines };
}

static inline struct vmemi_dedup_group vmemi_dedup_group_at(const struct vmem_dedup *d,
							    struct vmemi_dedup_where w)
{
	vmemi_dedup_chunk *place = vmemi_dedup_chunk_at(d, w);

	if (!place)
		return (struct vmemi_dedup_group){ NULL, 0 };
	return vmemi_dedup_group_in(atomic_load_explicit(place, memory_order_relaxed), w);
}

/* A mix's place, its stripe locked. */
struct vmemi_dedup_at {
	struct vmemi_dedup_stripe *stripe;
	struct vmemi_dedup_group group;
	struct vmemi_dedup_where where;
	uint32_t mix;
};

/* The mix of a page. For one hash, it differs between any two domains. */
uint32_t vmemi_dedup_mix(const struct vmem_dedup *d, uint32_t domain, uint32_t hash);

static inline struct vmemi_dedup_stripe *vmemi_dedup_stripe_of(struct vmem_dedup *d, uint32_t mix)
{
	return &d->stripe[mix & (VMEMI_DEDUP_STRIPES - 1)];
}

static inline struct vmemi_dedup_at vmemi_dedup_lock(struct vmem_dedup *d, uint32_t mix)
{
	struct vmemi_dedup_at at = { .stripe = vmemi_dedup_stripe_of(d, mix), .mix = mix };

	vmemi_lock(&at.stripe->lock);
	at.where = vmemi_dedup_where(atomic_load_explicit(&d->geometry, memory_order_acquire), mix);
	at.group = vmemi_dedup_group_at(d, at.where);
	return at;
}

static inline void vmemi_dedup_unlock(const struct vmemi_dedup_at *at)
{
	vmemi_unlock(&at->stripe->lock);
}

/* --- Growing and shrinking (dedup_resize.c) --- */

void vmemi_dedup_resize_init(struct vmem_dedup *d);
void vmemi_dedup_resize_destroy(struct vmem_dedup *d);

/* Whether it should grow. */
bool vmemi_dedup_too_full(const struct vmem_dedup *d);

/* Called after an entry was made: grows by a few lines if the table is too full. */
void vmemi_dedup_grow(struct vmem_dedup *d);

/* Makes room for @more in a stripe's spill. Not locked. 0, -VMEM_ENOMEM. */
int vmemi_dedup_spill_grow(struct vmem_dedup *d, struct vmemi_dedup_stripe *s, uint32_t more);

/* Entries of this group that were spilled go where there is room now. Locked. */
void vmemi_dedup_refill(struct vmemi_dedup_stripe *s, struct vmemi_dedup_group group,
			struct vmemi_dedup_where where);

/* --- Entries wherever they are (dedup_slot.c). Locked, all of them --- */

/* An entry in its group, or else spilled. */
struct vmemi_dedup_slot {
	vmemi_dedup_entry *entry;
	struct vmemi_dedup_spilled *spilled;
};

/* Whether it was found. */
bool vmemi_dedup_slot_find(const struct vmemi_dedup_at *at, uint32_t id, bool hint,
			   struct vmemi_dedup_slot *ret_slot);

uint32_t vmemi_dedup_slot_count(const struct vmemi_dedup_at *at, struct vmemi_dedup_slot slot);

/* Not to 0. 0, -VMEM_EAGAIN (it does not fit into 8 bits, and the spill must grow first). */
int vmemi_dedup_slot_set_count(const struct vmemi_dedup_at *at, struct vmemi_dedup_slot slot,
			       uint32_t count);

void vmemi_dedup_slot_set_id(const struct vmemi_dedup_at *at, struct vmemi_dedup_slot slot,
			     uint32_t id);

/* The count is below 255. */
void vmemi_dedup_slot_remove(struct vmem_dedup *d, const struct vmemi_dedup_at *at,
			     struct vmemi_dedup_slot slot);

/* --- By mix. Not locked, all of them --- */

/* Makes an entry; @count 0: a hint. As vmem_dedup_add(). (dedup.c) */
int vmemi_dedup_enter(struct vmem_dedup *d, uint32_t mix, uint32_t id, uint32_t count);

/* As vmem_dedup_drop(). (dedup.c) */
int vmemi_dedup_drop(struct vmem_dedup *d, uint32_t mix, uint32_t id, uint32_t *ret_left);

/* As vmem_dedup_forget_hint(). (dedup_hint.c) */
int vmemi_dedup_forget(struct vmem_dedup *d, uint32_t mix, uint32_t key);

struct vmemi_dedup_hint {
	uint32_t mix;
	uint32_t key;
};

/* At most so many of a group are told at once; of more, which only colliding hashes make, some. */
#define VMEMI_DEDUP_HINTS 160u

/* The hints of group *@number, which goes on to the next one and, after the last, back to 0. While the
 * table grows or shrinks, groups may be met twice or not at all. Returns how many. (dedup_hint.c) */
uint32_t vmemi_dedup_hints(struct vmem_dedup *d, uint32_t *number,
			   struct vmemi_dedup_hint hints[VMEMI_DEDUP_HINTS]);

/* --- For tests --- */

/* Uses only so many bits of hashes from now on. The table must be empty. */
void vmemi_dedup_truncate(struct vmem_dedup *d, uint32_t bits);

/* Walks a table at rest. NULL, or what is wrong. Takes no lock. */
const char *vmemi_dedup_check(struct vmem_dedup *d);

#endif
