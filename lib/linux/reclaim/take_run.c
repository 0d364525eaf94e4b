/* SPDX-License-Identifier: BSD-2-Clause */
/* Taking a run of pages out by UFFDIO_MOVE: one call, no copy, atomic for the guest. */
#include "linux/backing/backing.h"
#include "linux/kernel/pagemap.h"
#include "linux/reclaim/reclaim.h"
#include "linux/region/dirty.h"

#define DOUBT_TRIES 1000 /* to move a page back */
#define DOUBTS 4         /* of pages in a row that came back, before the last stays */

/* The kernel said that there is a page in the way. It says that of one, too, that it has moved itself; which then
 * comes back to where it was. 0: it has left; else why it has not. */
static int resolve_doubt(struct vmem_region *r, uint64_t page)
{
	const struct vmemi_kernel *k = r->host->k;
	int error = -VMEM_EAGAIN;

	vmemi_dirty_mark(r, page); /* it comes back writable */
	for (unsigned i = 0; i < DOUBT_TRIES && (error == -VMEM_EAGAIN || error == -VMEM_ENOMEM);
	     i++)
		error = vmemi_private_move_back(r, page);
	switch (error) {
	case 0: return -VMEM_EAGAIN;
	case 1: return -VMEM_EEXIST;
	case -VMEM_ENOENT: return error;
	case -VMEM_EAGAIN:
	case -VMEM_ENOMEM: /* it cannot be moved now; where it is can be seen */
		return vmemi_pagemap_has(k, (uintptr_t)vmemi_region_place(r, page)) &&
				       !vmemi_pagemap_has(k, (uintptr_t)vmemi_region_page(r, page))
			       ? 0
			       : error;
	default: return 0; /* nothing is where it was, and what is in staging is held there */
	}
}

static void keep_in_place(struct vmem_region *r, uint64_t page, int error)
{
	bool stuck = false;

	if (error == -VMEM_ENOENT) { /* nothing was there */
		vmemi_region_end(r, page, VMEMI_PAGE_TAKE_HOLE, 0);
		return;
	}
	if (error != -VMEM_EAGAIN && error != -VMEM_ENOMEM) { /* those pass */
		vmemi_tally(&r->counters.unmovable, 1);
		stuck = true;
	}
	vmemi_region_end(r, page, VMEMI_PAGE_TAKE_UNDO, 0);
	if (stuck)
		vmemi_page_set_add(&r->ages.stuck, page);
}

/* Moves pages that have been taken (staged, leaving), one call where nothing is in the way. */
static unsigned move(struct vmem_region *r, uint64_t first, unsigned count)
{
	unsigned taken = 0, doubts = 0;

	while (count) {
		size_t done;
		int error = vmemi_uffd_move(&r->host->staging, vmemi_region_place(r, first),
					    vmemi_region_page(r, first),
					    (size_t)count * VMEM_PAGE_SIZE, &done);
		unsigned pages = (unsigned)(done / VMEM_PAGE_SIZE);

		vmemi_region_end_run(r, first, pages, VMEMI_PAGE_TAKE_DONE);
		taken += pages;
		first += pages;
		count -= pages;
		if (!error || !count)
			continue;
		if (error == -VMEM_EEXIST)
			error = resolve_doubt(r, first);
		if (error == -VMEM_EAGAIN && ++doubts < DOUBTS)
			continue;
		if (error)
			keep_in_place(r, first, error);
		else
			vmemi_region_end(r, first, VMEMI_PAGE_TAKE_DONE, 0);
		taken += !error;
		doubts = 0;
		first++;
		count--;
	}
	return taken;
}

unsigned vmemi_take_run(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t first,
			unsigned count)
{
	uint64_t start = rc->host->k->clock_ns();
	unsigned taken = 0, run;

	vmemi_huge_left(r, first, count);
	for (unsigned i = 0; i < count;
	     i += run + 1) { /* where somebody was faster: go round the page */
		run = vmemi_region_step_run(r, first + i, count - i, VMEMI_PAGE_TAKE, NULL);
		taken += move(r, first + i, run);
	}
	vmemi_cost_book(&rc->cost, count, taken, rc->host->k->clock_ns() - start);
	vmemi_tally(&r->counters.taken_run, taken);
	return taken;
}
