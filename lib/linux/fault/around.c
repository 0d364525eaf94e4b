/* SPDX-License-Identifier: BSD-2-Clause */
/* Fault-around: pages come back beside one that faulted. A fault costs tens of microseconds, a neighbour one
 * or two; but a neighbour that nobody touches takes a frame from a page that somebody would. Which: neighbours.c. */
#include "linux/fault/serve.h"
#include "linux/backing/backing.h"
#include "linux/region/dirty.h"

#define PIECE 16 /* pages brought between two looks at who waits */

/* Brings back [first, first + count), all staged and claimed, by one copy. */
static void install_run(struct vmem_region *r, uint64_t first, unsigned count, const uint64_t *old)
{
	size_t done = 0;

	r->backing->unstage(r, &r->own, first, count, vmemi_dirty_protects(r, first, false), &done);
	done /= VMEM_PAGE_SIZE;
	for (unsigned i = 0; i < count; i++) {
		if (i < done) {
			vmemi_backing_returned(r, first + i, old[i]);
			vmemi_tally(&r->counters.prefetched, 1);
			vmemi_touched(&r->touches, first + i);
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
		    vmemi_active_has(&r->ages.active, page) ||
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
		if (vmemi_active_has(&r->ages.active, first)) {
			first++; /* whether somebody touches it is to be seen */
			continue;
		}
		if (state == VMEM_PAGE_STORED || (state == VMEM_PAGE_ABSENT && a->plan.zero)) {
			struct vmemi_fault f = { .page = first, .write = a->write };

			if (vmemi_serve(r, &f) == VMEMI_NO_FRAME)
				return false;
		}
		first++;
	}
	return true;
}

/* The same without the page that the plan leaves out, which is noted if it was away. */
static bool bring_but_one(struct vmemi_around *a, uint64_t first, uint64_t end)
{
	uint64_t one = a->plan.left_out;
	enum vmem_page_state state;

	if (one < first || one >= end)
		return bring_range(a, first, end);
	state = vmemi_page_state(vmemi_region_word(a->region, one));
	if (one != a->page && (state == VMEM_PAGE_STAGED || state == VMEM_PAGE_STORED ||
			       (state == VMEM_PAGE_ABSENT && a->plan.zero)))
		vmemi_neighbours_leave_out(&a->region->neighbours, &a->plan);
	return bring_range(a, first, one) && bring_range(a, one + 1, end);
}

bool vmemi_around_begin(struct vmemi_around *a, struct vmem_region *r, uint64_t page, bool write)
{
	*a = (struct vmemi_around){ .region = r, .page = page, .write = write };
	return r->opts.fault_around_pages > 1 &&
	       vmemi_neighbours_fault(&r->neighbours, page, &a->plan);
}

/* Pages at a distance from each other. */
static bool bring_stride(struct vmemi_around *a)
{
	uint64_t end = a->done + PIECE < a->plan.count ? a->done + PIECE : a->plan.count;

	for (; a->done < end; a->done++) {
		uint64_t page = a->plan.first + (uint64_t)a->plan.stride * a->done;

		if (!bring_but_one(a, page, page + 1))
			return false;
	}
	return a->done < a->plan.count;
}

/* Round the window, from the page on. */
static bool bring_window(struct vmemi_around *a)
{
	uint64_t first = a->plan.first, count = a->plan.count, offset, at, end;
	bool behind;

	a->done += !a->done; /* the page itself */
	offset = a->page - first + a->done;
	behind = offset >= count;
	at = first + offset - (behind ? count : 0);
	end = behind ? a->page : first + count;
	if (end - at > PIECE)
		end = at + PIECE;
	a->done += end - at;
	return bring_but_one(a, at, end) && a->done < count;
}

bool vmemi_around_some(struct vmemi_around *a)
{
	bool more = false;

	/* First counted, then looked: quiesce does it the other way round. */
	atomic_fetch_add(&a->region->bringing, 1);
	if (!vmemi_region_is_quiet(a->region))
		more = a->plan.kind == VMEMI_NEIGHBOURS_STRIDE ? bring_stride(a) : bring_window(a);
	atomic_fetch_sub(&a->region->bringing, 1);
	return more;
}
