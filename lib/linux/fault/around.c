/* SPDX-License-Identifier: BSD-2-Clause */
/* Fault-around: neighbours that left together come back together. A fault costs tens of
 * microseconds, a neighbour one or two; but a neighbour that nobody touches takes a frame from a page
 * that somebody would. So the window doubles with each fault near a recent one, and halves with each
 * fault elsewhere, down to nothing for random access. (As the kernel's swap read-ahead does by hits;
 * here hits cannot be seen.) */
#include "linux/fault/serve.h"

#define RECENT (sizeof(((struct vmem_region *)0)->recent) / sizeof(_Atomic uint64_t))

/* Adapts the window to where this fault is. Races between faults only blur it. */
static unsigned adapt(struct vmem_region *r, uint64_t page)
{
	unsigned log2 = atomic_load_explicit(&r->around_log2, memory_order_relaxed);
	uint64_t near = UINT64_C(2) << log2;
	unsigned hit = RECENT;

	for (unsigned i = 0; i < RECENT; i++) {
		uint64_t recent = atomic_load_explicit(&r->recent[i], memory_order_relaxed);

		if (page - recent + near <= 2 * near)
			hit = i;
	}
	if (hit < RECENT) {
		if (UINT64_C(1) << log2 < r->opts.fault_around_pages)
			log2++;
	} else {
		hit = atomic_fetch_add_explicit(&r->recent_next, 1, memory_order_relaxed) % RECENT;
		log2 -= log2 > 0;
	}
	atomic_store_explicit(&r->recent[hit], page, memory_order_relaxed);
	atomic_store_explicit(&r->around_log2, log2, memory_order_relaxed);
	return log2;
}

/* Brings back [first, first + count), all staged and claimed, by one copy. */
static void install_run(struct vmem_region *r, uint64_t first, unsigned count, const uint64_t *old)
{
	size_t done = 0;

	vmemi_uffd_copy(r->uffd, vmemi_region_page(r, first), vmemi_region_place(r, first),
			(size_t)count * VMEM_PAGE_SIZE, false, &done);
	done /= VMEM_PAGE_SIZE;
	for (unsigned i = 0; i < count; i++) {
		if (i < done) {
			vmemi_region_end(r, first + i, VMEMI_PAGE_ARRIVE, 0);
			vmemi_tally(&r->counters.prefetched, 1);
		} else {
			vmemi_region_end(r, first + i, VMEMI_PAGE_RETURN, old[i]);
		}
	}
	if (done < count)
		vmemi_uffd_wake(r->uffd, vmemi_region_page(r, first + done),
				(count - done) * VMEM_PAGE_SIZE);
}

static unsigned claim_run(struct vmem_region *r, uint64_t first, uint64_t end, uint64_t *old)
{
	struct vmemi_frames *frames = &r->host->frames;
	unsigned count = 0;

	while (first + count < end) {
		uint64_t page = first + count;

		if (vmemi_page_state(vmemi_region_word(r, page)) != VMEM_PAGE_STAGED ||
		    !vmemi_frames_take(frames, 1, atomic_load(&frames->reserve_bytes) / 2))
			break;
		if (!vmemi_region_step(r, page, VMEMI_PAGE_FETCH, 0, &old[count])) {
			atomic_fetch_sub(&frames->resident_pages, 1);
			break;
		}
		if (vmemi_page_state(old[count]) != VMEM_PAGE_STAGED) { /* stored meanwhile */
			vmemi_region_end(r, page, VMEMI_PAGE_RETURN, old[count]);
			vmemi_uffd_wake(r->uffd, vmemi_region_page(r, page), VMEM_PAGE_SIZE);
			break;
		}
		count++;
	}
	return count;
}

/* Pages of [first, end). False: no frames are left for this. */
static bool bring_range(struct vmem_region *r, uint64_t first, uint64_t end, bool write, bool zero)
{
	uint64_t old[64];

	while (first < end) {
		unsigned run = claim_run(r, first, end, old);
		enum vmem_page_state state;

		if (run) {
			install_run(r, first, run, old);
			first += run;
			continue;
		}
		state = vmemi_page_state(vmemi_region_word(r, first));
		if (state == VMEM_PAGE_STORED || (state == VMEM_PAGE_ABSENT && zero)) {
			struct vmemi_fault f = { .page = first, .write = write };

			if (vmemi_serve(r, &f) == VMEMI_NO_FRAME)
				return false;
		}
		first++;
	}
	return true;
}

void vmemi_serve_around(struct vmem_region *r, uint64_t page, bool write)
{
	unsigned log2;
	uint64_t start, end;
	bool zero;

	if (r->opts.fault_around_pages < 2)
		return;
	log2 = adapt(r, page);
	if (!log2)
		return;
	/* Untouched pages only where memory is being filled in order: all around are there or fresh. */
	zero = log2 >= 3;
	start = page >> log2 << log2;
	end = start + (UINT64_C(1) << log2);
	if (end > r->pages)
		end = r->pages;
	if (bring_range(r, page + 1, end, write, zero))
		bring_range(r, start, page, write, zero);
}
