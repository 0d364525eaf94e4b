/* SPDX-License-Identifier: BSD-2-Clause */
/* Huge pages of private memory: blocks of 512 pages, aligned in host and in guest physical addresses, that the
 * kernel is asked to keep in one frame of 2 MiB (MADV_COLLAPSE).
 *
 *   pieces --all in place, not cold, there is time--> whole --pages wanted, or some have gone--> pieces
 *
 * What is known of a block is a belief. The kernel splits a huge page whenever it likes, and whoever takes,
 * discards or protects a page of one splits it without asking; so nothing but speed may depend on it. One thing must be
 * done in time: pages that are discarded out of a huge frame give no memory back before the frame itself is split,
 * so who does that splits it first (vmemi_huge_break()).
 *
 * While a block is believed whole its pages are no victims: the tracker has them as kept. It is made pieces when too
 * few other pages are to be had. While others are to be had all the time, one block now and then is *tried*: split, and a
 * few of its pages taken. If some of those come back it is in use, still kept, and made whole again when there is time;
 * otherwise its other pages follow.
 *
 * Guard: the lock of reclaim, but for what is atomic. */
#ifndef VMEMI_HUGE_H
#define VMEMI_HUGE_H
#include "linux/kernel/kernel.h"
#include <stdatomic.h>

#define VMEMI_HUGE_PAGES 512u
#define VMEMI_HUGE_BYTES (UINT64_C(512) * VMEM_PAGE_SIZE)

struct vmem_region;
struct vmem_region_opts;
struct vmemi_host;
struct vmemi_reclaim;

/* What a block's frame may be: SOON is set before it is made huge. */
enum { VMEMI_HUGE_PIECES, VMEMI_HUGE_SOON, VMEMI_HUGE_WHOLE };

enum { VMEMI_HUGE_FREE, VMEMI_HUGE_KEPT, VMEMI_HUGE_TRIED, VMEMI_HUGE_IN_USE };

#define VMEMI_HUGE_TRIAL 8 /* pages that are taken of a block that is tried */

struct vmemi_huge_block {
	_Atomic uint8_t whole; /* atomic; who splits it, or is about to, makes it PIECES before */
	uint8_t kept;          /* VMEMI_HUGE_FREE, or its pages are no victims, and why */
	uint8_t wait;          /* passes until it is tried again */
	uint8_t fails;         /* in a row; so it is put off for longer and longer */
};

struct vmemi_huge {
	struct vmemi_huge_block *blocks; /* NULL: huge pages are not asked for */
	uint64_t lead;                   /* pages before the first block */
	uint64_t hand;                   /* block to be looked at next */
	uint64_t check;                  /* whole block whose pages are to be looked at next */
	uint64_t victim;                 /* block from which on to look for one to split */
	uint64_t pass_ns;                /* when the pass began */
	uint64_t pressed;                /* pages that others gave since a block was tried */
	uint64_t tried;                  /* block that is on trial */
	uint64_t trial_end_ns;           /* until then; 0: none is */
	uint64_t trial_seed;             /* by which its pages were chosen */
	uint32_t trial_taken;            /* bit set: that one went */
	int pagemap;                     /* /proc/self/pagemap; -1: the kernel does not tell */
	_Atomic uint64_t whole;          /* atomic; blocks */
	_Atomic uint64_t collapsed, split, failed; /* atomic; counters */
};

/* In the reclaim loop's memory: how busy others are. */
struct vmemi_huge_pace {
	uint32_t fault_reads;
	uint32_t slot;          /* region that comes first */
	uint64_t rest_until_ns; /* no work before */
};

/* Whether the kernel can make huge pages when it is told to. */
bool vmemi_huge_is_known(const struct vmemi_kernel *k, void *memory);

/* Why a region with these options, which are checked, cannot have huge pages, or "". */
const char *vmemi_huge_why(const struct vmemi_host *host, const struct vmem_region_opts *o);

/* If its options ask for them. 0, -VMEM_ENOMEM. */
int vmemi_huge_init(struct vmem_region *r);
void vmemi_huge_destroy(struct vmem_region *r);

/* What is mapped besides, and how much of that is in front, so that a mapping can be shifted to where blocks at @gpa
 * are aligned. */
static inline uint64_t vmemi_huge_shift(uintptr_t memory, uint64_t gpa)
{
	return (gpa - memory) % VMEMI_HUGE_BYTES;
}

/* Pages that are about to be discarded, ascending: huge frames that they are part of are split. Any thread. */
void vmemi_huge_break(struct vmem_region *r, const uint64_t *pages, uint32_t count);

/* Pages that are about to be moved out, which splits as well; fewer than a block has. */
void vmemi_huge_left(struct vmem_region *r, uint64_t first, unsigned count);

/* Whether a page in place is no victim because its block is whole. */
bool vmemi_huge_keeps(const struct vmem_region *r, uint64_t page);

/* Finds out about blocks that are whole no longer; and where there is time, makes others whole. Each round. */
void vmemi_huge_check(struct vmemi_reclaim *rc);
void vmemi_huge_work(struct vmemi_reclaim *rc);

/* About @want pages are going to be taken from the region: perhaps it is time to try a block. */
void vmemi_huge_press(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t want);

/* Makes whole blocks victims, the oldest first, until about @pages are. Returns how many are. */
uint64_t vmemi_huge_give(struct vmem_region *r, uint64_t pages);

#endif
