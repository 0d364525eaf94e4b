/* SPDX-License-Identifier: BSD-2-Clause */
/* From staging into the store. A page is read where it lies in staging: while it is READING nobody
 * changes or frees it there, not even the fault that wins the page back meanwhile. */
#include "linux/discard/discard.h"
#include "linux/reclaim/reclaim.h"

/* A page that the store refused goes back into place by its own frame: out here it costs as much, and
 * every touch a fault. It is left alone for a long while. */
static void put_back(struct vmem_region *r, uint64_t page)
{
	uint64_t old;
	size_t done;

	vmemi_tally(&r->counters.rejected, 1);
	atomic_store_explicit(&r->heat[page], VMEMI_HEAT_STUCK, memory_order_relaxed);
	if (!r->can_move)
		return;
	vmemi_frames_force(&r->host->frames, 1);
	if (!vmemi_region_step(r, page, VMEMI_PAGE_FETCH, 0, &old)) {
		atomic_fetch_sub(&r->host->frames.resident_pages, 1);
		return;
	}
	if (vmemi_page_state(old) == VMEM_PAGE_STAGED && !(old & VMEMI_PAGE_READING) &&
	    !vmemi_uffd_move(r->uffd, vmemi_region_page(r, page), vmemi_region_place(r, page),
			     VMEM_PAGE_SIZE, &done))
		vmemi_region_end(r, page, VMEMI_PAGE_ARRIVE_MOVED, 0);
	else
		vmemi_region_end(r, page, VMEMI_PAGE_RETURN, old);
	vmemi_uffd_wake(r->uffd, vmemi_region_page(r, page), VMEM_PAGE_SIZE);
}

/* Saves one page if it is staged. 0 (also when it was not), -VMEM_ENOSPC, -VMEM_ENOMEM. */
static int settle_page(struct vmem_region *r, uint64_t page, struct vmemi_settled *result)
{
	struct vmemi_host *host = r->host;
	vmem_store_ref ref;
	uint64_t old;
	int error;

	if (vmemi_page_state(vmemi_region_word(r, page)) != VMEM_PAGE_STAGED ||
	    !vmemi_region_step(r, page, VMEMI_PAGE_STORE, 0, &old))
		return 0;
	error = vmem_store_save(host->store, r->vm, vmemi_region_key(r, page),
				vmemi_region_place(r, page), &ref);
	if (!error && vmemi_region_step(r, page, VMEMI_PAGE_STORED, ref, &old)) {
		vmemi_tally(&r->counters.saved, 1);
		result->saved++;
		return 0;
	}
	if (!error) { /* touched meanwhile: it is back in the guest, and this copy is stale */
		vmem_store_drop(host->store, r->vm, ref);
		vmemi_region_step(r, page, VMEMI_PAGE_RELEASE, 0, &old);
		return 0;
	}
	if (!vmemi_region_step(r, page, VMEMI_PAGE_STORE_UNDO, 0, &old)) {
		vmemi_region_step(r, page, VMEMI_PAGE_RELEASE, 0, &old);
	} else if (error == -VMEM_EFBIG) {
		result->refused++;
		put_back(r, page);
	}
	return error == -VMEM_EFBIG ? 0 : error;
}

struct vmemi_settled vmemi_settle(struct vmem_region *r, uint64_t want)
{
	struct vmemi_settled result = { 0 };
	uint64_t page = r->settle_hand;

	/* The hand follows the clock's, which stages in the same order: so the oldest come first. */
	for (uint64_t seen = 0; seen < r->pages && result.saved + result.refused < want; seen++) {
		if (atomic_load_explicit(&r->count[VMEM_PAGE_STAGED], memory_order_relaxed) <= 0)
			break;
		/* Not what was refused not long ago, and could not be put back. */
		if (atomic_load_explicit(&r->heat[page], memory_order_relaxed) <= VMEMI_HEAT_MAX &&
		    settle_page(r, page, &result)) {
			result.full = true;
			break;
		}
		page = page + 1 < r->pages ? page + 1 : 0;
	}
	r->settle_hand = page;
	return result;
}

int vmemi_settle_range(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t first,
		       uint64_t count, uint64_t *ret_pages)
{
	struct vmemi_settled result = { 0 };
	int error = 0;

	for (uint64_t page = first; page < first + count && !error; page++) {
		error = settle_page(r, page, &result);
		if (page % VMEMI_BATCH == VMEMI_BATCH - 1)
			vmemi_staging_free(rc, r);
	}
	vmemi_staging_free(rc, r);
	*ret_pages = result.saved;
	return error;
}

/* Frees the places of @count pages and lets go of them. */
static void free_places(struct vmemi_reclaim *rc, struct vmem_region *r, const uint64_t *pages,
			unsigned count)
{
	size_t n = 0, gone;
	uint64_t old;

	for (unsigned i = 0; i < count; i++) {
		unsigned char *place = vmemi_region_place(r, pages[i]);
		struct iovec *last = &rc->ranges[n ? n - 1 : 0];

		if (n && (unsigned char *)last->iov_base + last->iov_len == place)
			last->iov_len += VMEM_PAGE_SIZE;
		else
			rc->ranges[n++] = (struct iovec){ place, VMEM_PAGE_SIZE };
	}
	gone = vmemi_discard_ranges(r->host, rc->ranges, n) / VMEM_PAGE_SIZE;
	for (unsigned i = 0; i < count; i++) {
		if (i < gone)
			vmemi_region_step(r, pages[i], VMEMI_PAGE_FREED, 0, &old);
		else
			atomic_fetch_or(&r->to_free[pages[i] / 64], UINT64_C(1) << pages[i] % 64);
	}
}

uint64_t vmemi_staging_free(struct vmemi_reclaim *rc, struct vmem_region *r)
{
	uint64_t pages[VMEMI_BATCH], total = 0, after;
	unsigned count = 0;

	for (uint64_t i = 0; i < (r->pages + 63) / 64; i++) {
		uint64_t bits;

		if (!atomic_load_explicit(&r->to_free[i], memory_order_relaxed))
			continue;
		for (bits = atomic_exchange(&r->to_free[i], 0); bits; bits &= bits - 1) {
			uint64_t page = i * 64 + (uint64_t)__builtin_ctzll(bits);

			/* In use again since: its bit comes back when it may be freed. */
			if (!vmemi_page_step(vmemi_region_word(r, page), VMEMI_PAGE_FREED, 0,
					     &after))
				continue;
			pages[count++] = page;
			if (count == VMEMI_BATCH) {
				free_places(rc, r, pages, count);
				total += count;
				count = 0;
			}
		}
	}
	if (count)
		free_places(rc, r, pages, count);
	total += count;
	if (total)
		vmemi_host_freed(r->host);
	return total;
}
