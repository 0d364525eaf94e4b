/* SPDX-License-Identifier: BSD-2-Clause */
/* Which pages go, and which way each. A clock hand goes round a region: a page that came back by a
 * fault has heat, loses one unit at each pass, and goes when it has none (Corbato's clock, with a
 * count instead of a bit). Neighbouring victims leave together as a run; others are collected. */
#include "linux/reclaim/reclaim.h"

enum fate { STAYS, GOES, GOES_CLEAN };

static enum fate fate_of(struct vmem_region *r, uint64_t page, unsigned max_heat)
{
	uint64_t word = vmemi_region_word(r, page);
	unsigned heat = atomic_load_explicit(&r->heat[page], memory_order_relaxed);

	if (heat > max_heat)
		return STAYS;
	if (vmemi_page_state(word) == VMEM_PAGE_RESIDENT && !vmemi_page_ref(word) &&
	    !(word & VMEMI_PAGE_FLAGS))
		return GOES;
	if (vmemi_page_state(word) == VMEM_PAGE_CLEAN &&
	    !(word & (VMEMI_PAGE_LEAVING | VMEMI_PAGE_PINNED)))
		return GOES_CLEAN;
	return STAYS;
}

/* Pages among the collected victims that the guest is likely to use soon. */
static uint64_t hot_between(struct vmemi_reclaim *rc, struct vmem_region *r)
{
	uint64_t first = rc->scattered[0], last = rc->scattered[rc->scattered_count - 1], n = 0;

	for (uint64_t page = first; page <= last; page++) {
		enum vmem_page_state state = vmemi_page_state(vmemi_region_word(r, page));

		n += (state == VMEM_PAGE_RESIDENT || state == VMEM_PAGE_CLEAN) &&
		     atomic_load_explicit(&r->heat[page], memory_order_relaxed);
	}
	return n;
}

/* Moves the collected victims instead, those that are neighbours together. */
static unsigned move_collected(struct vmemi_reclaim *rc, struct vmem_region *r)
{
	unsigned taken = 0, run;

	for (uint32_t i = 0; i < rc->scattered_count; i += run) {
		run = 1;
		while (i + run < rc->scattered_count && run < VMEMI_RUN_MAX &&
		       rc->scattered[i + run] == rc->scattered[i] + run)
			run++;
		taken += vmemi_take_run(rc, r, rc->scattered[i], run);
	}
	rc->scattered_count = 0;
	return taken;
}

static unsigned take_collected(struct vmemi_reclaim *rc, struct vmem_region *r)
{
	/* Faults that are signals are no KVM guest's. */
	if (rc->scattered_count && r->can_move && r->opts.fault_way == VMEM_FAULT_THREAD &&
	    vmemi_cost_prefers_moves(&rc->cost, rc->scattered_count, hot_between(rc, r)))
		return move_collected(rc, r);
	return vmemi_take_scattered(rc, r);
}

/* Puts the run that ends before @end on its way. */
static unsigned dispatch(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t end,
			 unsigned run, unsigned run_min)
{
	unsigned taken = 0;

	if (!run)
		return 0;
	if (r->can_move && (run >= run_min || !r->can_scatter))
		return vmemi_take_run(rc, r, end - run, run);
	if (!r->can_scatter)
		return 0;
	for (uint64_t page = end - run; page < end; page++) {
		if (rc->scattered_count == VMEMI_SCATTER_BATCH ||
		    (rc->scattered_count && page - rc->scattered[0] >= VMEMI_SCATTER_SPAN))
			taken += take_collected(rc, r);
		rc->scattered[rc->scattered_count++] = page;
	}
	return taken;
}

unsigned vmemi_take_offer(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t first,
			  uint64_t count, unsigned max_heat)
{
	unsigned run = 0, run_min = vmemi_cost_run_min(&rc->cost), taken = 0;

	for (uint64_t page = first; page < first + count; page++) {
		enum fate fate = fate_of(r, page, max_heat);

		if (run && (fate != GOES || page % VMEMI_RUN_MAX == 0)) {
			taken += dispatch(rc, r, page, run, run_min);
			run = 0;
		}
		if (fate == GOES) {
			run++;
		} else if (fate == GOES_CLEAN) {
			if (rc->clean_count == VMEMI_SCATTER_BATCH)
				taken += vmemi_take_clean(rc, r);
			rc->clean[rc->clean_count++] = page;
		}
	}
	return taken + dispatch(rc, r, first + count, run, run_min);
}

unsigned vmemi_take_flush(struct vmemi_reclaim *rc, struct vmem_region *r)
{
	return vmemi_take_clean(rc, r) + take_collected(rc, r);
}

unsigned vmemi_take_range(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t first,
			  uint64_t count, unsigned max_heat)
{
	unsigned taken = vmemi_take_offer(rc, r, first, count, max_heat);

	return taken + vmemi_take_flush(rc, r);
}

/* What does not compress, or could not be moved, will not so soon: it cools in every 16th pass only. */
#define STUCK_COOLS_EVERY 16

static void cool(struct vmem_region *r, uint64_t first, uint64_t count)
{
	unsigned most = r->passes % STUCK_COOLS_EVERY ? VMEMI_HEAT_MAX : UINT8_MAX;

	for (uint64_t page = first; page < first + count; page++) {
		uint8_t heat = atomic_load_explicit(&r->heat[page], memory_order_relaxed);

		/* A touch between the two is lost: it counts for one pass. */
		if (heat && heat <= most)
			atomic_store_explicit(&r->heat[page], (uint8_t)(heat - 1),
					      memory_order_relaxed);
	}
}

unsigned vmemi_clock_take(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t want,
			  unsigned max_heat)
{
	unsigned taken = 0;

	for (uint64_t seen = 0; seen < r->pages;) {
		uint64_t first = r->take_hand, count = VMEMI_RUN_MAX - first % VMEMI_RUN_MAX;

		if (count > r->pages - first)
			count = r->pages - first;
		taken += vmemi_take_offer(rc, r, first, count, max_heat);
		cool(r, first, count);
		seen += count;
		r->take_hand = first + count < r->pages ? first + count : 0;
		r->passes += !r->take_hand;
		if (taken + rc->scattered_count + rc->clean_count >= want)
			break;
		if (!r->take_hand) /* batches are ascending */
			taken += vmemi_take_flush(rc, r);
	}
	return taken + vmemi_take_flush(rc, r);
}
