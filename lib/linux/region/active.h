/* SPDX-License-Identifier: BSD-2-Clause */
/* How much of a region is in use, by samples: a few random pages are taken out, and those that are touched
 * before the next sample are counted (Waldspurger, OSDI 2002, 5.3). The tracker does the sums; here is which pages
 * they are, and what became of each. Only where it was asked for.
 *
 * A page of the sample is told apart by VMEMI_AGES_SAMPLED from before it is taken until it comes back. To come
 * back unasked, beside a page that faulted, would spoil it: so fault-around passes over `out`. */
#ifndef VMEMI_ACTIVE_H
#define VMEMI_ACTIVE_H
#include "linux/region/page_set.h"
#include <vmem/track.h>

#define VMEMI_ACTIVE_MOST 4096 /* pages of a sample */

struct vmemi_active {
	/* Guard: the lock of reclaim. */
	uint64_t *
		pages; /* the sample, ascending; NULL: not asked for. The pointer does not change */
	uint32_t most, count;
	uint32_t accessed; /* of them */
	uint64_t period_ns, begun_ns;

	struct vmemi_page_set out; /* any thread reads; without `pages` not there */
	_Atomic uint64_t
		samples; /* atomic; gauges: of the last sample; and what it says, in pages */
	_Atomic uint64_t active, now, low, high;
	_Atomic uint64_t taken, touched, ns; /* atomic; counters: what it costs */
};

/* @most: pages of a sample, 0: none is ever taken. 0, -VMEM_ENOMEM. */
int vmemi_active_init(struct vmemi_active *a, const struct vmem_allocator *allocator,
		      struct vmemi_arrays *arrays, uint64_t pages, uint32_t most,
		      uint64_t period_ns);
void vmemi_active_destroy(struct vmemi_active *a, const struct vmem_allocator *allocator,
			  struct vmemi_arrays *arrays);

/* Any thread. Whether a page is of the sample, and had better not come back unasked. */
static inline bool vmemi_active_has(const struct vmemi_active *a, uint64_t page)
{
	return a->pages && vmemi_page_set_has(&a->out, page);
}

/* --- The caller holds the lock of reclaim --- */

/* So many pages from now on. */
void vmemi_active_grow(struct vmemi_active *a, uint64_t pages);
/* A page with VMEMI_AGES_SAMPLED came back: it was accessed; or it says nothing. Pages of samples that are over
 * do not count. */
void vmemi_active_saw(struct vmemi_active *a, vmem_track *track, uint64_t page, bool accessed);
/* Ends the sample that there is, if any, and chooses another one of at most @count pages, each once. */
void vmemi_active_choose(struct vmemi_active *a, vmem_track *track, uint64_t count,
			 uint64_t now_ns);
/* Tells the tracker what was accessed so far, and shows what follows. */
void vmemi_active_tell(struct vmemi_active *a, vmem_track *track);

#endif
