/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside the scanner.
 *
 * A range has a byte of state and 16 bits of its last hash for each page. In the table, a page is named
 * by its index: ranges are given blocks of 4096 indices, in a row; a hint's key is the index plus 1.
 *
 * A hint whose page has changed is an orphan. The 16 bits tell: they are the upper ones of the mix that
 * the hint is filed under. An orphan that is met is dropped, and when they are more than a part of all
 * hints, groups of the table are searched for them as the scan goes on.
 *
 * Guards: all belongs to the scan, which is serial, with two exceptions. The array `ranges` is changed
 * under the lock, as breaks read it. States are atomic, as a break makes MERGED to SEEN at any time, under
 * the lock too. No callback is called with it held. */
#ifndef VMEMI_SHARE_INTERNAL_H
#define VMEMI_SHARE_INTERNAL_H
#include <stdatomic.h>
#include <stdbool.h>
#include <vmem/dedup.h>
#include <vmem/share.h>
#include "base/alloc.h"
#include "base/lock.h"
#include "dedup/dedup_internal.h"

#define VMEMI_SHARE_BLOCK_SHIFT 12u
#define VMEMI_SHARE_BLOCKS_MAX ((1u << (32 - VMEMI_SHARE_BLOCK_SHIFT)) - 1)
#define VMEMI_SHARE_BATCH 16u

/* --- The state of a page: kind : 2 | rung : 2 | passes to skip : 3 --- */

enum vmemi_share_kind {
	VMEMI_SHARE_NEW,    /* nothing is known of it */
	VMEMI_SHARE_SEEN,   /* its check is that of the last visit */
	VMEMI_SHARE_HINTED, /* so it is, and there is a hint */
	VMEMI_SHARE_MERGED,
};

/* A page on rung r is visited every 2^r passes. */
#define VMEMI_SHARE_RUNGS 4u

static inline uint8_t vmemi_share_state_of(enum vmemi_share_kind kind, uint32_t rung)
{
	return (uint8_t)(kind | rung << 2 | ((1u << rung) - 1) << 4);
}

static inline enum vmemi_share_kind vmemi_share_kind_of(uint8_t state)
{
	return (enum vmemi_share_kind)(state & 3);
}

static inline uint32_t vmemi_share_rung_of(uint8_t state)
{
	return state >> 2 & 3;
}

static inline uint32_t vmemi_share_skip_of(uint8_t state)
{
	return state >> 4;
}

#define VMEMI_SHARE_SKIP_ONE (1u << 4)

struct vmemi_share_range {
	uint64_t first; /* key */
	uint64_t pages;
	uint32_t block; /* its first one */
	uint32_t domain;
	bool on;
	uint64_t hinted;         /* pages of this kind */
	_Atomic uint64_t merged; /* atomic; the same */
	_Atomic uint8_t *state;  /* atomic */
	uint16_t *check;         /* upper half of the mix */
};

/* A page. */
struct vmemi_share_page {
	struct vmemi_share_range *range;
	uint64_t offset;
};

static inline uint64_t vmemi_share_key(struct vmemi_share_page p)
{
	return p.range->first + p.offset;
}

/* What its hints are filed as. */
static inline uint32_t vmemi_share_index(struct vmemi_share_page p)
{
	return (uint32_t)(((uint64_t)p.range->block << VMEMI_SHARE_BLOCK_SHIFT) + p.offset + 1);
}

static inline uint8_t vmemi_share_state(struct vmemi_share_page p)
{
	return atomic_load_explicit(&p.range->state[p.offset], memory_order_relaxed);
}

/* A page that is being visited. */
struct vmemi_share_visit {
	struct vmemi_share_page page;
	struct vmemi_share_page other; /* with which it is to be joined; it is protected too */
	const void *bytes;
	void *buffer; /* NULL if there is a callback page() */
	uint32_t hash;
	uint32_t mix;
	uint32_t rung;
	uint8_t state; /* when it was read */
	bool is_protected;
	bool over;  /* refused, or torn: it is not compared any more */
	bool again; /* an equal one may not be joined now: it is looked up again in the next pass */
};

struct vmem_share {
	struct vmem_env env;
	struct vmem_share_opts opts; /* constant */
	struct vmem_share_limits limits;
	struct vmemi_counting_allocator memory;
	vmem_dedup *dedup;
	struct vmemi_lock lock; /* see above */

	struct vmemi_share_range **ranges; /* lock for writing and in breaks; by first key */
	uint32_t range_count;              /* the same */
	uint32_t range_capacity;
	struct vmemi_share_range **blocks; /* by block, NULL: unused */
	uint32_t block_capacity;
	uint64_t pages; /* of all ranges */

	uint64_t cursor; /* key from which on the pass is not done */
	uint64_t passed; /* pages of this pass so far, with those not visited */
	uint64_t pass_started_ns;
	bool in_pass;
	uint64_t not_before_ns;

	uint64_t orphans;
	uint32_t sweep; /* next group that is searched for them */
	struct vmemi_dedup_hint hints[VMEMI_DEDUP_HINTS];

	unsigned char
		*buffers; /* a page each: of the batch, of another page, of an object; or NULL */
	struct vmemi_share_visit visits[VMEMI_SHARE_BATCH];

	/* Atomic, counters. */
	_Atomic uint64_t merged, passes, pass_ns, visited, skipped, changed, merges, breaks,
		refused, torn, compares, compares_different;
};

static inline void vmemi_share_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* --- Ranges (share_range.c) --- */

/* The first range that ends behind @key, as a number; range_count if there is none. */
uint32_t vmemi_share_range_from(const struct vmem_share *s, uint64_t key);

/* The page of an index; .range NULL if there is none. */
struct vmemi_share_page vmemi_share_page_at(const struct vmem_share *s, uint32_t index);

void vmemi_share_ranges_free(struct vmem_share *s);

/* --- Joining (share_join.c) --- */

/* The callbacks of the table; their page is a struct vmemi_share_visit. */
int vmemi_share_compare(void *share, uint32_t id, const void *visit);
int vmemi_share_compare_hint(void *share, uint32_t index, const void *visit);

/* The bytes of a page, perhaps in @buffer, or NULL. */
const void *vmemi_share_bytes(const struct vmem_share *s, struct vmemi_share_page page,
			      void *buffer);

/* What the table has found for a visited page: joins it. */
void vmemi_share_join(struct vmem_share *s, struct vmemi_share_visit *v, int found, uint32_t id);

/* Makes it not HINTED any more; its hint is an orphan if @orphan. */
void vmemi_share_unhint(struct vmem_share *s, struct vmemi_share_page page,
			enum vmemi_share_kind kind, uint32_t rung, bool orphan);

static inline bool vmemi_share_hint_is_good(struct vmemi_share_page page, uint32_t mix)
{
	return page.range && vmemi_share_kind_of(vmemi_share_state(page)) == VMEMI_SHARE_HINTED &&
	       page.range->check[page.offset] == mix >> 16;
}

/* For tests: what is wrong in a scanner at rest, or NULL. (share_check.c) */
const char *vmemi_share_check(struct vmem_share *s);

#endif
