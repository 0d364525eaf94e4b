/* SPDX-License-Identifier: BSD-2-Clause */
/* Fault-around: neighbours that left together come back together. A fault costs tens of
 * microseconds, a neighbour one or two; but a neighbour that nobody touches takes a frame from a page
 * that somebody would. So each of the last places has a window, which doubles with each fault near it. A
 * fault elsewhere takes over the smallest window, and halves it: random access soon has none, and takes
 * none from those who go in order beside it. (As the kernel's swap read-ahead does by hits; here hits
 * cannot be seen.) */
#include "linux/fault/serve.h"
#include "linux/backing/backing.h"

#define RECENT (sizeof(((struct vmem_region *)0)->recent) / sizeof(_Atomic uint64_t))
#define PIECE 16 /* pages brought between two looks at who waits */

/* A place is a page and the binary logarithm of its window. */
static uint64_t place(uint64_t page, unsigned log2)
{
	return page << 8 | log2;
}

static unsigned log2_of(uint64_t recent)
{
	return recent & 255;
}

static bool is_near(uint64_t page, uint64_t recent)
{
	uint64_t near = UINT64_C(2) << log2_of(recent);

	return page - (recent >> 8) + near <= 2 * near;
}

/* The window of this fault. Races between faults only blur it. */
static unsigned adapt(struct vmem_region *r, uint64_t page)
{
	unsigned first = atomic_load_explicit(&r->recent_next, memory_order_relaxed), least = first;
	uint64_t recent[RECENT];
	unsigned log2;

	for (unsigned k = 0; k < RECENT; k++) {
		unsigned i = (first + k) % RECENT;

		recent[i] = atomic_load_explicit(&r->recent[i], memory_order_relaxed);
		if (is_near(page, recent[i])) {
			log2 = log2_of(recent[i]);
			log2 += UINT64_C(1) << log2 < r->opts.fault_around_pages;
			atomic_store_explicit(&r->recent[i], place(page, log2),
					      memory_order_relaxed);
			return log2;
		}
		if (log2_of(recent[i]) < log2_of(recent[least]))
			least = i;
	}
	log2 = log2_of(recent[least]);
	log2 -= log2 > 0;
	atomic_store_explicit(&r->recent[least], place(page, log2), memory_order_relaxed);
	atomic_store_explicit(&r->recent_next, (least + 1) % RECENT, memory_order_relaxed);
	return log2;
}

/* Brings back [first, first + count), all staged and claimed, by one copy. */
static void install_run(struct vmem_region *r, uint64_t first, unsigned count, const uint64_t *old)
{
	size_t done = 0;

	r->backing->unstage(r, &r->own, first, count, &done);
	done /= VMEM_PAGE_SIZE;
	for (unsigned i = 0; i < count; i++) {
		if (i < done) {
			vmemi_backing_returned(r, first + i, old[i]);
			vmemi_tally(&r->counters.prefetched, 1);
		} else {
			vmemi_region_end(r, first + i, VMEMI_PAGE_RETURN, old[i]);
		}
	}
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
			vmemi_frames_untake(frames, 1);
			break;
		}
		if (vmemi_page_state(old[count]) != VMEM_PAGE_STAGED) { /* stored meanwhile */
			vmemi_region_end(r, page, VMEMI_PAGE_RETURN, old[count]);
			break;
		}
		count++;
	}
	return count;
}

/* Pages of [first, end). False: no frames are left for this. */
static bool bring_range(const struct vmemi_around *a, uint64_t first, uint64_t end)
{
	struct vmem_region *r = a->region;
	uint64_t old[PIECE];

	while (first < end) {
		unsigned run = claim_run(r, first, end, old);
		enum vmem_page_state state;

		if (run) {
			install_run(r, first, run, old);
			first += run;
			continue;
		}
		state = vmemi_page_state(vmemi_region_word(r, first));
		if (state == VMEM_PAGE_STORED || (state == VMEM_PAGE_ABSENT && a->zero)) {
			struct vmemi_fault f = { .page = first, .write = a->write };

			if (vmemi_serve(r, &f) == VMEMI_NO_FRAME)
				return false;
		}
		first++;
	}
	return true;
}

bool vmemi_around_begin(struct vmemi_around *a, struct vmem_region *r, uint64_t page, bool write)
{
	unsigned log2 = r->opts.fault_around_pages < 2 ? 0 : adapt(r, page);
	uint64_t first = page >> log2 << log2, pages = UINT64_C(1) << log2;

	*a = (struct vmemi_around){
		.region = r,
		.page = page,
		.first = first,
		.pages = pages < r->pages - first ? pages : r->pages - first,
		.done = 1,
		.write = write,
		/* Only where memory is being filled in order: all around are there or fresh. */
		.zero = log2 >= 3,
	};
	return a->pages > 1;
}

bool vmemi_around_some(struct vmemi_around *a)
{
	/* Round the window, from the page on. */
	uint64_t offset = a->page - a->first + a->done;
	bool behind = offset >= a->pages;
	uint64_t at = a->first + offset - (behind ? a->pages : 0);
	uint64_t end = behind ? a->page : a->first + a->pages;

	bool more = false;

	if (end - at > PIECE)
		end = at + PIECE;
	a->done += end - at;
	/* First counted, then looked: quiesce does it the other way round. */
	atomic_fetch_add(&a->region->bringing, 1);
	if (!vmemi_region_is_quiet(a->region))
		more = bring_range(a, at, end) && a->done < a->pages;
	atomic_fetch_sub(&a->region->bringing, 1);
	return more;
}
