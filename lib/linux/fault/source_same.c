/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages in place whose bytes the source has too, as the VMM says: they become clean. A run of them is claimed,
 * write-protected in all mappings, and only then called clean, so that every write after that is seen. */
#include "linux/backing/peers.h"
#include "linux/region/table.h"
#include <vmem/source.h>

#define RUN 64
#define TRIES 1000 /* while reclaim makes a range writable again, which is over in no time */

struct run {
	struct vmem_region *r;
	uint64_t page[RUN]; /* claimed, neighbours */
	uint64_t old[RUN];  /* their words before */
	unsigned count;
	uint64_t clean; /* pages that are now, of all runs */
};

static bool may_be_clean(uint64_t word)
{
	return vmemi_page_state(word) == VMEM_PAGE_RESIDENT &&
	       !(word & (VMEMI_PAGE_PINNED | VMEMI_PAGE_READING));
}

/* Claims pages of [page, end), up to one that is not meant. */
static void claim(struct run *run, uint64_t page, uint64_t end)
{
	struct vmem_region *r = run->r;

	for (run->count = 0; run->count < RUN && page < end; run->count++, page++) {
		uint64_t *old = &run->old[run->count];

		if (!may_be_clean(vmemi_region_word(r, page)) ||
		    !vmemi_region_step(r, page, VMEMI_PAGE_CLAIM, 0, old))
			return;
		run->page[run->count] = page;
		if (!may_be_clean(*old)) {
			vmemi_region_end(r, page, VMEMI_PAGE_RETURN, *old);
			return;
		}
	}
}

/* How many of the claimed pages can be written nowhere now, from the first on. */
static unsigned protect(struct run *run)
{
	struct vmem_region *r = run->r;

	if (vmemi_uffd_protect(r->uffd, vmemi_region_page(r, run->page[0]),
			       run->count * VMEM_PAGE_SIZE, true))
		return 0;
	return vmemi_peers_protect(r, run->page, run->count);
}

/* Ends the claims. False: not now. */
static bool end(struct run *run)
{
	struct vmem_region *r = run->r;
	/* Who makes a wide range writable leaves out what is claimed, if it looks at it later than this. */
	bool busy = atomic_load(&r->batching);
	unsigned held = busy ? 0 : protect(run);
	uint64_t old;

	for (unsigned i = 0; i < run->count; i++) {
		if (i < held &&
		    vmemi_region_step(r, run->page[i], VMEMI_PAGE_ARRIVE_SAME, 0, &old)) {
			vmemi_region_drop_ref(r, old); /* a stale one */
			run->clean++;
		} else {
			vmemi_region_end(r, run->page[i], VMEMI_PAGE_RETURN, run->old[i]);
		}
	}
	return !busy;
}

int vmem_region_same_as_source(vmem_region *region, uint64_t gpa, uint64_t bytes,
			       uint64_t *ret_pages)
{
	struct run run = { .r = region };
	uint64_t first, count;
	unsigned tries = TRIES;
	int error = vmemi_region_span(region, gpa, bytes, false, &first, &count);

	if (error)
		return error;
	if (region->foreign)
		return -VMEM_ENOTSUP;
	if (!region->source || !(region->opts.flags & VMEM_REGION_SOURCE_STAYS))
		return -VMEM_EINVAL;
	if (!region->can_write_protect)
		return -VMEM_ENOTSUP;
	for (uint64_t page = first; page < first + count;) {
		claim(&run, page, first + count);
		if (!run.count) {
			page++;
		} else if (end(&run) || !tries--) {
			page += run.count;
			tries = TRIES;
		} else {
			vmemi_host_wait(region->host);
		}
	}
	if (ret_pages)
		*ret_pages = run.clean;
	return 0;
}
