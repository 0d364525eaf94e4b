/* SPDX-License-Identifier: BSD-2-Clause */
/* Taking cold pages out, in the order of a page's way:
 *
 *   resident --ages--> victims --take--> staging --settle--> store
 *
 * Each step works on one region, in batches, under the lock of reclaim, which serving a fault never
 * takes. */
#ifndef VMEMI_RECLAIM_H
#define VMEMI_RECLAIM_H
#include "linux/reclaim/savers.h"
#include <sys/uio.h>

/* Pages that are discarded together: who touches one of them meanwhile waits for all. */
#define VMEMI_SCATTER_BATCH 128
#define VMEMI_BATCH 512  /* pages handled between two looks at the budget */
#define VMEMI_RUN_MAX 64 /* pages of one UFFDIO_MOVE: others wait that long */
#define VMEMI_RUN_MIN 16 /* from here on a run is moved, to begin with */
#define VMEMI_SEARCH_RUNS 64
#define VMEMI_SCATTER_SPAN 8192 /* pages over which one write-protection reaches: 32 MiB */

/* What each way of taking pages out cost of late; adapts vmemi_cost_run_min(). Guard: the caller's,
 * one writer; readers of the figures may see them a little old. */
struct vmemi_cost {
	/* ns a page; 0: not measured */
	_Atomic uint64_t run_ns[7];    /* moved in runs of 1, 2-3, 4-7 .. 64 */
	_Atomic uint64_t scattered_ns; /* write-protected, copied and discarded */
	_Atomic uint32_t run_min;      /* shortest run that is moved */
	_Atomic uint32_t decisions;
};

/* A reclaim loop's working memory, so that it allocates nothing while it works. */
struct vmemi_reclaim {
	struct vmemi_host *host;
	/* The lock: who comes takes the next ticket, and its turn is when that is being served. So a loop
	 * that comes back at once lets others in before. Atomic; a futex; guards all below. */
	_Atomic uint32_t next_ticket, serving;
	struct vmemi_cost cost;
	struct vmemi_savers savers; /* with a guard of their own */
	struct vmemi_huge_pace huge;
	uint64_t staging_pages; /* most that the second chance may hold */
	uint64_t since_gain;    /* pages taken since any frame was really freed */
	uint64_t dropped;       /* clean pages dropped, ever */
	unsigned idle_sweeps;   /* sweeps in a row that found nothing */
	bool store_has_work; /* when it was last asked: pages to encode anew, segments to compact */
	bool store_is_full;  /* in the last round it took no more */
	uint32_t scattered_count, clean_count;
	uint64_t scattered[VMEMI_SCATTER_BATCH]; /* victims, ascending */
	uint64_t clean[VMEMI_SCATTER_BATCH];
	struct iovec ranges[VMEMI_BATCH];
};

int vmemi_reclaim_new(struct vmemi_reclaim **ret_reclaim, struct vmemi_host *host);
void vmemi_reclaim_free(struct vmemi_reclaim *rc);

/* The lock of reclaim. Its holder may wait for a fault to be answered (bringing back a page whose load is
 * slow), so who serves faults only ever tries; others sleep until it is their turn. */
bool vmemi_reclaim_try(struct vmemi_reclaim *rc);
void vmemi_reclaim_enter(struct vmemi_reclaim *rc);
void vmemi_reclaim_leave(struct vmemi_reclaim *rc);

/* A round: makes room until @target bytes are free, or nothing more is to be had, or about @max_pages
 * were handled, or it is the savers' turn. Returns how many pages came further on their way out (0: nothing
 * more is to be had, if nothing is with the savers). */
uint64_t vmemi_reclaim_round(struct vmemi_reclaim *rc, uint64_t target, uint64_t max_pages);

/* So little is left that who reclaims saves too. Any thread. */
bool vmemi_reclaim_is_urgent(const struct vmemi_host *host);

/* The steps, for one region; the caller has entered. Each returns pages handled. */

/* Moves the run [first, first + count) out, all plain resident. */
unsigned vmemi_take_run(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t first,
			unsigned count);
/* Takes rc->scattered out by write-protect, copy and discard. */
unsigned vmemi_take_scattered(struct vmemi_reclaim *rc, struct vmem_region *r);
/* Makes [first, last] writable again, but for pages that must stay protected. r->batching is set. */
void vmemi_take_unprotect(struct vmem_region *r, uint64_t first, uint64_t last);
/* Drops rc->clean, whose refs are valid. */
unsigned vmemi_take_clean(struct vmemi_reclaim *rc, struct vmem_region *r);
/* Takes the pages of [first, first + count) that can go, whatever their ages. */
unsigned vmemi_take_range(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t first,
			  uint64_t count);
/* The same in pieces: puts pages on their ways, which may leave some in rc ... */
unsigned vmemi_take_offer(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t first,
			  uint64_t count);
/* ... and takes those. */
unsigned vmemi_take_flush(struct vmemi_reclaim *rc, struct vmem_region *r);
/* Takes about @want pages of @min_age and above, mostly of the class that is missed less. */
uint64_t vmemi_take_older(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t want,
			  uint32_t min_age);
/* Takes pages that are cold by the threshold from all regions that ask for it. Returns how many staged
 * pages should be saved, to make room for more. */
uint64_t vmemi_take_ahead(struct vmemi_reclaim *rc);
/* Begins the next sample of what is in use, where one is asked for and it is time. */
void vmemi_sample_tick(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t now_ns);
/* Takes about @want of the coldest pages; in an emergency also those of this period. */
uint64_t vmemi_take_cold(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t want,
			 bool emergency);

/* Saves staged pages into the store, oldest first, until @want were looked at. */
struct vmemi_settled vmemi_settle(struct vmem_region *r, uint64_t want);
/* Saves one page if it is staged; any thread, no lock. 0 (also when it was not), -VMEM_ENOSPC,
 * -VMEM_ENOMEM. */
int vmemi_settle_page(struct vmem_region *r, uint64_t page, struct vmemi_settled *result);
/* Names staged pages to the savers, oldest first, so that about @want are with them. */
void vmemi_settle_name(struct vmemi_savers *s, struct vmem_region *r, uint64_t want);
/* Saves the staged pages of [first, first + count); the lock is not held, but for freeing what they leave
 * in staging. 0, -VMEM_ENOSPC, -VMEM_ENOMEM. */
int vmemi_settle_range(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t first,
		       uint64_t count, uint64_t *ret_pages);

/* Gives back what pages of [first, first + count) hold and nobody needs: copies in staging, refs. Returns
 * the frames freed. */
uint64_t vmemi_tidy(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t first,
		    uint64_t count);

/* Books what @pages taken by a run of @run pages (0: scattered) cost. */
void vmemi_cost_book(struct vmemi_cost *c, unsigned run, unsigned pages, uint64_t ns);
/* The shortest run to move now. */
unsigned vmemi_cost_run_min(struct vmemi_cost *c);
/* Whether to move @victims of a KVM guest one by one, with @hot pages in use among them. */
bool vmemi_cost_prefers_moves(const struct vmemi_cost *c, uint64_t victims, uint64_t hot);

#endif
