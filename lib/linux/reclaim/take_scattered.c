/* SPDX-License-Identifier: BSD-2-Clause */
/* Taking scattered pages out: a wide range is write-protected at once, the victims are copied into
 * staging, and discarded by one vectored call. Two or three flushes of the other cores' TLBs serve a
 * whole batch.
 *
 * Until its copy is made, a victim is only marked: a write to it cancels. Then it is staged and LEAVING:
 * who writes to it now waits until it is gone, and finds it missing. Pages of the range that are
 * no victims and are written meanwhile fault once, and are made writable by the handler. */
#include "linux/backing/backing.h"
#include "linux/reclaim/reclaim.h"
#include "linux/region/dirty.h"

/* Whether a page must stay protected: a ref depends on it, or may by the time that it has arrived. What
 * is away now, and comes while `batching` is set, comes without. */
static bool stays_protected(struct vmem_region *r, uint64_t page)
{
	enum vmem_page_state state = vmemi_page_state(vmemi_region_word(r, page));

	/* And all that may not be written unseen, here or when it has come. */
	return state == VMEM_PAGE_CLEAN || state == VMEM_PAGE_SHARED ||
	       state == VMEM_PAGE_ARRIVING || vmemi_dirty_is_watched(r, page);
}

void vmemi_take_unprotect(struct vmem_region *r, uint64_t first, uint64_t last)
{
	uint64_t start = first;

	for (uint64_t page = first; page <= last + 1; page++) {
		if (page <= last && !stays_protected(r, page))
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

/* Copies one that was not written yet. Cancelled or not, it stays mapped until we let go of it: the copy
 * cannot meet a hole, and wait there for a fault that only reclaim could make room for. */
static bool copy_one(struct vmem_region *r, uint64_t page)
{
	size_t done;

	return (vmemi_region_word(r, page) & VMEMI_PAGE_LEAVING) &&
	       !vmemi_uffd_copy(&r->host->staging, vmemi_region_place(r, page),
				vmemi_region_page(r, page), VMEM_PAGE_SIZE, false, &done);
}

/* Copies them all, and takes those that were not written meanwhile; lets go of the others. */
static void copy(struct vmemi_reclaim *rc, struct vmem_region *r)
{
	uint32_t copied = 0, kept = 0;
	uint64_t old;

	for (uint32_t i = 0; i < rc->scattered_count; i++) {
		if (copy_one(r, rc->scattered[i]))
			rc->scattered[copied++] = rc->scattered[i];
		else
			vmemi_region_end(r, rc->scattered[i], VMEMI_PAGE_UNMARK, 0);
	}
	for (uint32_t i = 0; i < copied; i++) {
		uint64_t page = rc->scattered[i];

		/* Allowed while the mark is there, which alone vouches for the copy. */
		if (vmemi_region_step(r, page, VMEMI_PAGE_TAKE, 0, &old)) {
			vmemi_frames_force(&r->host->frames, 1); /* it is there until discarded */
			rc->scattered[kept++] = page;
		} else {
			vmemi_region_end(r, page, VMEMI_PAGE_UNMARK, 0);
		}
	}
	rc->scattered_count = kept;
}

/* Frees the frames of @pages, ascending, by one call. Returns how many went, from the first on. */
static uint32_t release(struct vmem_region *r, const uint64_t *pages, uint32_t count)
{
	uint32_t gone = r->backing->release(r, pages, count);

	vmemi_frames_untake(&r->host->frames, count); /* what stays is counted by its state */
	return gone;
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
	atomic_store(&r->batching, 1);
	if (vmemi_uffd_protect(r->uffd, vmemi_region_page(r, first),
			       (last - first + 1) * VMEM_PAGE_SIZE, true)) {
		for (uint32_t i = 0; i < rc->scattered_count; i++)
			vmemi_region_end(r, rc->scattered[i], VMEMI_PAGE_UNMARK, 0);
		rc->scattered_count = 0;
	}
	copy(rc, r);
	taken = release(r, rc->scattered, rc->scattered_count);
	for (uint32_t i = 0; i < rc->scattered_count; i++)
		vmemi_region_end(r, rc->scattered[i],
				 i < taken ? VMEMI_PAGE_TAKE_DONE : VMEMI_PAGE_TAKE_UNDO, 0);
	vmemi_take_unprotect(r, first, last);
	atomic_store(&r->batching, 0);
	rc->scattered_count = 0;
	vmemi_cost_book(&rc->cost, 0, taken, rc->host->k->clock_ns() - start);
	vmemi_tally(&r->counters.taken_scattered, taken);
	return taken;
}

unsigned vmemi_take_clean(struct vmemi_reclaim *rc, struct vmem_region *r)
{
	enum vmemi_page_event done =
		r->backing->one_frame ? VMEMI_PAGE_PUNCH_DONE : VMEMI_PAGE_DROP_DONE;
	uint32_t kept = 0, taken;
	uint64_t old;

	for (uint32_t i = 0; i < rc->clean_count; i++) {
		if (!vmemi_region_step(r, rc->clean[i], VMEMI_PAGE_DROP, 0, &old))
			continue;
		if (!vmemi_region_can_load(r, old)) { /* since it was chosen */
			vmemi_region_end(r, rc->clean[i], VMEMI_PAGE_DROP_UNDO, 0);
			continue;
		}
		vmemi_frames_force(&r->host->frames, 1); /* it is there until discarded */
		rc->clean[kept++] = rc->clean[i];
	}
	rc->clean_count = 0;
	if (!kept)
		return 0;
	taken = release(r, rc->clean, kept);
	for (uint32_t i = 0; i < kept; i++)
		vmemi_region_end(r, rc->clean[i], i < taken ? done : VMEMI_PAGE_DROP_UNDO, 0);
	rc->dropped += taken;
	vmemi_tally(&r->counters.taken_clean, taken);
	vmemi_region_note_clean(r, 0, (int32_t)taken);
	vmemi_host_freed(r->host);
	return taken;
}
