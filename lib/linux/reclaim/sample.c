/* SPDX-License-Identifier: BSD-2-Clause */
/* Taking the pages of a sample out, to see which are touched: see region/active.h. */
#include "linux/reclaim/reclaim.h"
#include "linux/region/table.h"

#define PART 64 /* of what is in place, at most */
#define GROUP 64

static bool is_in_place(const struct vmem_region *r, uint64_t page)
{
	enum vmem_page_state state = vmemi_page_state(vmemi_region_word(r, page));

	return state == VMEM_PAGE_RESIDENT || state == VMEM_PAGE_CLEAN || state == VMEM_PAGE_SHARED;
}

/* Who has no copy of it here: it would have to be asked for again, and that says nothing of the guest. */
static bool would_go_to_its_source(const struct vmem_region *r, uint64_t page)
{
	uint64_t word = vmemi_region_word(r, page);

	return vmemi_page_state(word) == VMEM_PAGE_CLEAN && !vmemi_page_ref(word);
}

/* Pages in place have not gone, or have come back. Who came back on demand was noted before it was in place: what is
 * not known to be accessed after a harvest was never away. Returns how many. */
static uint32_t drop_not_taken(struct vmem_region *r, uint32_t first, uint32_t count)
{
	struct vmemi_active *a = &r->ages.active;
	uint64_t here = 0;
	uint32_t dropped = 0;

	for (uint32_t i = 0; i < count; i++)
		here |= (uint64_t)is_in_place(r, a->pages[first + i]) << i;
	vmemi_ages_harvest(r);
	for (; here; here &= here - 1)
		dropped +=
			vmemi_ages_unsample(r, a->pages[first + (unsigned)__builtin_ctzll(here)]);
	return dropped;
}

/* The choice is made where the tracker knows all, and each page is marked before it goes. */
static void begin(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t now_ns)
{
	uint64_t in_place =
		vmemi_region_count(r, VMEM_PAGE_RESIDENT) + vmemi_region_count(r, VMEM_PAGE_CLEAN);
	struct vmemi_active *a = &r->ages.active;
	uint32_t left;

	vmemi_ages_harvest(r);
	vmemi_active_choose(a, r->ages.track, in_place / PART, now_ns);
	for (uint32_t i = 0; i < a->count; i++)
		vmemi_ages_sample(r, a->pages[i]);
	left = a->count;
	for (uint32_t i = 0; i < a->count; i++)
		if (would_go_to_its_source(r, a->pages[i]))
			left -= vmemi_ages_unsample(r, a->pages[i]);
		else
			vmemi_take_offer(rc, r, a->pages[i], 1);
	vmemi_take_flush(rc, r);
	for (uint32_t i = 0; i < a->count; i += GROUP)
		left -= drop_not_taken(r, i, a->count - i < GROUP ? a->count - i : GROUP);
	vmemi_tally(&a->taken, left);
	vmemi_tally(&a->ns, rc->host->k->clock_ns() - now_ns);
}

void vmemi_sample_tick(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t now_ns)
{
	struct vmemi_active *a = &r->ages.active;

	if (!a->pages || !(r->can_move || r->can_scatter))
		return;
	vmemi_active_tell(a, r->ages.track);
	if (now_ns - a->begun_ns >= a->period_ns && !vmemi_region_is_quiet(r))
		begin(rc, r, now_ns);
}
