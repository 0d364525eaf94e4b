/* SPDX-License-Identifier: BSD-2-Clause */
/* Taking scattered pages out: a wide range is write-protected at once, the victims are copied into
 * staging, and discarded by one vectored call. Two or three flushes of the other cores' TLBs serve a
 * whole batch.
 *
 * Until its copy is made, a victim is only marked: a write to it cancels. Then it is staged and LEAVING:
 * who writes to it now waits for the end of the batch, and finds it missing. Pages of the range that are
 * no victims and are written meanwhile fault once, and are made writable by the handler. */
#include "linux/discard/discard.h"
#include "linux/reclaim/reclaim.h"

/* Makes [first, last] writable again, but for pages that must stay protected because a ref depends on
 * it (clean), or that may become so while this runs (anything that can arrive from the store). */
static void unprotect_range(struct vmem_region *r, uint64_t first, uint64_t last)
{
	uint64_t start = first;

	for (uint64_t page = first; page <= last + 1; page++) {
		uint64_t word = page <= last ? vmemi_region_word(r, page) : 0;
		enum vmem_page_state state = vmemi_page_state(word);
		bool writable = page <= last &&
				(state == VMEM_PAGE_RESIDENT || state == VMEM_PAGE_ABSENT ||
				 (state == VMEM_PAGE_STAGED && (word & VMEMI_PAGE_LEAVING)));

		if (writable)
			continue;
		if (page > start)
			vmemi_uffd_protect(r->uffd, vmemi_region_page(r, start),
					   (page - start) * VMEM_PAGE_SIZE, false);
		start = page + 1;
	}
}

/* Marks the victims. Those that somebody else is at fall out. */
static void mark(struct vmemi_reclaim *rc, struct vmem_region *r)
{
	uint32_t kept = 0;
	uint64_t old;

	for (uint32_t i = 0; i < rc->scattered_count; i++)
		if (vmemi_region_step(r, rc->scattered[i], VMEMI_PAGE_MARK, 0, &old))
			rc->scattered[kept++] = rc->scattered[i];
	rc->scattered_count = kept;
}

/* Copies them, and takes those that were not written meanwhile. */
static void copy(struct vmemi_reclaim *rc, struct vmem_region *r)
{
	uint32_t kept = 0;
	uint64_t old;

	for (uint32_t i = 0; i < rc->scattered_count; i++) {
		uint64_t page = rc->scattered[i];
		size_t done;
		int error =
			vmemi_uffd_copy(&r->host->staging, vmemi_region_place(r, page),
					vmemi_region_page(r, page), VMEM_PAGE_SIZE, false, &done);

		if (error) {
			vmemi_region_step(r, page, VMEMI_PAGE_UNMARK, 0, &old);
			continue;
		}
		rc->scattered[kept++] = page;
	}
	rc->scattered_count = kept;
	kept = 0;
	for (uint32_t i = 0; i < rc->scattered_count; i++) {
		uint64_t page = rc->scattered[i], word = vmemi_region_word(r, page);

		/* Only a mark that is still there vouches for the copy. */
		if ((word & VMEMI_PAGE_LEAVING) &&
		    vmemi_region_step(r, page, VMEMI_PAGE_TAKE, 0, &old))
			rc->scattered[kept++] = page;
	}
	rc->scattered_count = kept;
}

/* Discards @pages, ascending, by one call. Returns how many went, from the first on. */
static uint32_t discard(struct vmemi_reclaim *rc, struct vmem_region *r, const uint64_t *pages,
			uint32_t count)
{
	size_t n = 0, bytes;

	for (uint32_t i = 0; i < count; i++) {
		unsigned char *address = vmemi_region_page(r, pages[i]);
		struct iovec *last = &rc->ranges[n ? n - 1 : 0];

		if (n && (unsigned char *)last->iov_base + last->iov_len == address)
			last->iov_len += VMEM_PAGE_SIZE;
		else
			rc->ranges[n++] = (struct iovec){ address, VMEM_PAGE_SIZE };
	}
	bytes = vmemi_discard_ranges(r->host, rc->ranges, n);
	return (uint32_t)(bytes / VMEM_PAGE_SIZE);
}

unsigned vmemi_take_scattered(struct vmemi_reclaim *rc, struct vmem_region *r)
{
	uint64_t start = rc->host->k->clock_ns(), first, last;
	uint32_t taken;

	mark(rc, r);
	if (!rc->scattered_count)
		return 0;
	first = rc->scattered[0];
	last = rc->scattered[rc->scattered_count - 1];
	if (vmemi_uffd_protect(r->uffd, vmemi_region_page(r, first),
			       (last - first + 1) * VMEM_PAGE_SIZE, true)) {
		uint64_t old;

		for (uint32_t i = 0; i < rc->scattered_count; i++)
			vmemi_region_step(r, rc->scattered[i], VMEMI_PAGE_UNMARK, 0, &old);
		rc->scattered_count = 0;
	}
	copy(rc, r);
	taken = discard(rc, r, rc->scattered, rc->scattered_count);
	unprotect_range(r, first, last);
	for (uint32_t i = 0; i < rc->scattered_count; i++)
		vmemi_region_end(r, rc->scattered[i],
				 i < taken ? VMEMI_PAGE_TAKE_DONE : VMEMI_PAGE_TAKE_UNDO, 0);
	/* Who wrote to a page after it was taken waits without an answer until now. */
	vmemi_uffd_wake(r->uffd, vmemi_region_page(r, first), (last - first + 1) * VMEM_PAGE_SIZE);
	rc->scattered_count = 0;
	vmemi_cost_book(&rc->cost, 0, taken, rc->host->k->clock_ns() - start);
	vmemi_tally(&r->counters.taken_scattered, taken);
	return taken;
}

unsigned vmemi_take_clean(struct vmemi_reclaim *rc, struct vmem_region *r)
{
	uint32_t kept = 0, taken;
	uint64_t old, first, last;

	for (uint32_t i = 0; i < rc->clean_count; i++)
		if (vmemi_region_step(r, rc->clean[i], VMEMI_PAGE_DROP, 0, &old))
			rc->clean[kept++] = rc->clean[i];
	rc->clean_count = 0;
	if (!kept)
		return 0;
	first = rc->clean[0];
	last = rc->clean[kept - 1];
	taken = discard(rc, r, rc->clean, kept);
	for (uint32_t i = 0; i < kept; i++)
		vmemi_region_end(r, rc->clean[i],
				 i < taken ? VMEMI_PAGE_DROP_DONE : VMEMI_PAGE_DROP_UNDO, 0);
	vmemi_uffd_wake(r->uffd, vmemi_region_page(r, first), (last - first + 1) * VMEM_PAGE_SIZE);
	rc->dropped += taken;
	vmemi_tally(&r->counters.taken_clean, taken);
	vmemi_region_note_clean(r, 0, (int32_t)taken);
	return taken;
}
