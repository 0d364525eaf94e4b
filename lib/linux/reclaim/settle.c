/* SPDX-License-Identifier: BSD-2-Clause */
/* From staging into the store. A page is read where it lies in staging: while it is READING nobody
 * changes or frees it there, not even the fault that wins the page back meanwhile. */
#include "linux/backing/backing.h"
#include "linux/reclaim/reclaim.h"
#include "linux/region/dirty.h"

/* A page that the store refused goes back into place: out here it costs as much, and every touch a fault.
 * It is left alone for a long while. It needs no frame but its own; where the kernel cannot move that, a
 * second one until the copy in staging is freed, which the floor has room for. */
static void put_back(struct vmem_region *r, uint64_t page)
{
	uint64_t old;
	size_t done;
	int error;

	vmemi_tally(&r->counters.rejected, 1);
	vmemi_frames_force(&r->host->frames, 1);
	if (!vmemi_region_step(r, page, VMEMI_PAGE_FETCH, 0, &old)) {
		vmemi_frames_untake(&r->host->frames, 1);
		return;
	}
	vmemi_dirty_mark(r, page); /* it comes writable */
	if (vmemi_page_state(old) != VMEM_PAGE_STAGED || (old & VMEMI_PAGE_READING))
		error = -VMEM_EAGAIN; /* somebody was faster, or is at it */
	else if (r->can_move)
		error = vmemi_private_move_back(r, page);
	else
		error = r->backing->unstage(r, &r->own, page, 1, false, &done);
	if (error < 0) {
		vmemi_region_end(r, page, VMEMI_PAGE_RETURN, old);
		return;
	}
	if (r->can_move)
		vmemi_region_end(r, page, error ? VMEMI_PAGE_ARRIVE : VMEMI_PAGE_ARRIVE_MOVED, 0);
	else
		vmemi_backing_returned(r, page, old);
	vmemi_page_set_add(&r->ages.stuck, page);
}

/* The bytes of a page that is being saved cannot be had: a fault on it finds out why. */
static void look_into(struct vmem_region *r, uint64_t page)
{
	struct vmemi_fault f = { .page = page, .force = true };
	uint64_t old;

	if (!vmemi_region_step(r, page, VMEMI_PAGE_STORE_UNDO, 0, &old))
		vmemi_region_step(r, page, VMEMI_PAGE_RELEASE, 0, &old);
	else
		vmemi_serve(r, &f);
}

int vmemi_settle_page(struct vmem_region *r, uint64_t page, struct vmemi_settled *result)
{
	struct vmemi_host *host = r->host;
	_Alignas(64) unsigned char buffer[VMEM_PAGE_SIZE];
	const void *bytes;
	vmem_store_ref ref;
	uint64_t old;
	int error;

	if (vmemi_page_state(vmemi_region_word(r, page)) != VMEM_PAGE_STAGED ||
	    !vmemi_region_step(r, page, VMEMI_PAGE_STORE, 0, &old))
		return 0;
	bytes = r->backing->bytes(r, page, buffer);
	if (!bytes) {
		look_into(r, page);
		return 0;
	}
	error = vmem_store_save(host->store, r->vm, vmemi_region_key(r, page), bytes, &ref);
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

/* Pages to settle until what they left in staging is freed. */
static uint64_t piece_of(const struct vmem_region *r)
{
	return r->can_move ? VMEMI_BATCH : VMEMI_SCATTER_BATCH; /* see put_back() */
}

struct vmemi_settled vmemi_settle(struct vmem_region *r, uint64_t want)
{
	struct vmemi_settled result = { 0 };
	uint64_t page = r->settle_hand;

	if (want > piece_of(r))
		want = piece_of(r);
	/* The hand follows the search for victims, in a circle too: so the oldest come first, more or less. */
	for (uint64_t seen = 0; seen < r->pages && result.saved + result.refused < want; seen++) {
		if (seen % 64 == 0 && !vmemi_region_count(r, VMEM_PAGE_STAGED))
			break;
		if (vmemi_settle_page(r, page, &result)) {
			result.full = true;
			break;
		}
		page = page + 1 < r->pages ? page + 1 : 0;
	}
	r->settle_hand = page;
	return result;
}

void vmemi_settle_name(struct vmemi_savers *s, struct vmem_region *r, uint64_t want)
{
	uint64_t pages[VMEMI_SAVERS_PIECE], page = r->settle_hand;
	uint32_t n = 0;

	if (want > piece_of(r))
		want = piece_of(r);
	for (uint64_t seen = 0; seen < r->pages && want; seen++) {
		if (seen % 64 == 0 && !vmemi_region_count(r, VMEM_PAGE_STAGED))
			break;
		if (vmemi_page_state(vmemi_region_word(r, page)) == VMEM_PAGE_STAGED) {
			pages[n++] = page;
			want--;
		}
		if (n == VMEMI_SAVERS_PIECE) {
			vmemi_savers_add(s, r, pages, n);
			n = 0;
		}
		page = page + 1 < r->pages ? page + 1 : 0;
	}
	if (n)
		vmemi_savers_add(s, r, pages, n);
	r->settle_hand = page;
}

/* As vmemi_settle_page(), and waits for who is at it already. */
static int settle_for_good(struct vmem_region *r, uint64_t page, struct vmemi_settled *result)
{
	bool others = false;
	int error;

	do {
		error = vmemi_settle_page(r, page, result);
		if (vmemi_page_state(vmemi_region_word(r, page)) != VMEM_PAGE_STORING)
			break;
		others = true;
		vmemi_host_wait(r->host);
	} while (!error);
	result->saved += others && vmemi_page_state(vmemi_region_word(r, page)) == VMEM_PAGE_STORED;
	return error;
}

int vmemi_settle_range(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t first,
		       uint64_t count, uint64_t *ret_pages)
{
	struct vmemi_settled result = { 0 };
	uint64_t piece = piece_of(r), n;
	int error = 0;

	for (; count && !error; first += n, count -= n) {
		n = count < piece ? count : piece;
		for (uint64_t page = first; page < first + n && !error; page++)
			error = settle_for_good(r, page, &result);
		vmemi_reclaim_enter(rc);
		vmemi_tidy(rc, r, first, n);
		vmemi_reclaim_leave(rc);
	}
	*ret_pages = result.saved;
	return error;
}

uint64_t vmemi_tidy(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t first, uint64_t count)
{
	uint64_t end = (first + count + 63) / 64, bits, pages[VMEMI_BATCH], total = 0, word;
	unsigned n = 0;

	(void)rc; /* its lock is what matters */
	for (uint64_t group = first / 64; (bits = vmemi_page_set_take(&r->waste, &group, end));
	     group++) {
		for (; bits; bits &= bits - 1) {
			uint64_t page = group * 64 + (uint64_t)__builtin_ctzll(bits);

			/* What is in use again comes back here when it no longer is. */
			if (vmemi_region_step(r, page, VMEMI_PAGE_SHED, 0, &word))
				vmemi_region_drop_ref(r, word);
			if (!r->backing->begin_free(r, page))
				continue;
			pages[n++] = page;
			if (n == VMEMI_BATCH) {
				total += r->backing->free_staged(r, pages, n);
				n = 0;
			}
		}
	}
	if (n)
		total += r->backing->free_staged(r, pages, n);
	if (total)
		vmemi_host_freed(r->host);
	return total;
}
