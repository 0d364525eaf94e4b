/* SPDX-License-Identifier: BSD-2-Clause */
/* Which pages to bring beside one that faulted, judged from the faults alone. Pure but for its own memory;
 * any thread, signal handlers too: all is atomic and relaxed, and races only blur it.
 *
 *   near    a fault near a recent one: the aligned window around it, which doubles with each
 *   stride  three faults at equal distances: further ones at that distance, twice as many each time
 *   dense   a block of 16 pages with three faults more than twice the mean of all blocks: its other pages
 *
 * Whether that pays cannot be seen, because pages that were brought do not fault. So now and then one page of
 * a window is left out: if it faults before long, the window paid. Each kind has a score of that, by
 * which its windows shrink, and which turns it off but for a trial now and then. */
#ifndef VMEMI_NEIGHBOURS_H
#define VMEMI_NEIGHBOURS_H
#include "linux/region/arrays.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define VMEMI_NEIGHBOURS_BLOCK 16 /* pages */
#define VMEMI_NEIGHBOURS_NONE UINT64_MAX

enum vmemi_neighbours_kind {
	VMEMI_NEIGHBOURS_NEAR,
	VMEMI_NEIGHBOURS_STRIDE,
	VMEMI_NEIGHBOURS_DENSE,
	VMEMI_NEIGHBOURS_KINDS
};

struct vmemi_neighbours {
	_Atomic uint64_t pages;   /* atomic; of the region, at most 2^32; only grows */
	uint32_t most;            /* pages a window */
	_Atomic uint8_t *density; /* [blocks of pages] epoch and count */
	/* all atomic */
	_Atomic uint64_t places[8]; /* of near faults: page, log2 of the window */
	_Atomic uint32_t places_next;
	_Atomic uint32_t history[16]; /* faults that were near nothing */
	_Atomic uint32_t history_next;
	_Atomic uint64_t streams[8]; /* next page, stride, log2 of the window */
	_Atomic uint32_t streams_next;
	_Atomic uint64_t left_out[64]; /* pages, by hash: page, when, kind */
	_Atomic uint32_t faults;       /* the time of all this */
	_Atomic uint32_t plans[VMEMI_NEIGHBOURS_KINDS];
	_Atomic uint8_t score[VMEMI_NEIGHBOURS_KINDS]; /* 0..255: the share of windows that paid */
};

struct vmemi_neighbours_plan {
	enum vmemi_neighbours_kind kind;
	bool zero;         /* absent pages too */
	uint64_t first;    /* page */
	int64_t stride;    /* from each page to the next */
	uint64_t count;    /* of pages */
	uint64_t left_out; /* one of them that is not to be brought, or VMEMI_NEIGHBOURS_NONE */
};

/* Zeroed memory; @most: a power of two. 0, -VMEM_ENOMEM. */
int vmemi_neighbours_init(struct vmemi_neighbours *a, struct vmemi_arrays *arrays, uint64_t pages,
			  uint32_t most);
void vmemi_neighbours_destroy(struct vmemi_neighbours *a, struct vmemi_arrays *arrays);
/* So many pages from now on. */
static inline void vmemi_neighbours_grow(struct vmemi_neighbours *a, uint64_t pages)
{
	atomic_store_explicit(&a->pages, pages, memory_order_relaxed);
}

/* A fault on @page. True: there are pages to bring, all of them in the region. */
bool vmemi_neighbours_fault(struct vmemi_neighbours *a, uint64_t page,
			    struct vmemi_neighbours_plan *ret_plan);

/* The page that a plan leaves out was away indeed, and stayed so: if it faults, the plan paid. */
void vmemi_neighbours_leave_out(struct vmemi_neighbours *a,
				const struct vmemi_neighbours_plan *plan);

#endif
