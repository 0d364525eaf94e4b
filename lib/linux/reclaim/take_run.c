/* SPDX-License-Identifier: BSD-2-Clause */
/* Taking a run of pages out by UFFDIO_MOVE: one call, no copy, atomic for the guest. */
#include "linux/reclaim/reclaim.h"

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
	unsigned taken = 0;

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
		if (error && count) {
			keep_in_place(r, first, error);
			first++;
			count--;
		}
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
