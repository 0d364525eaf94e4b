/* SPDX-License-Identifier: BSD-2-Clause */
/* Which pages reclaim takes: the oldest, those that are not missed, and none that cannot go. No thread
 * runs: what is taken is asked for here, and pages are used by vmem_region_resolve(). */
#include "linux/guest.h"

#define PAGE VMEM_PAGE_SIZE
#define PAGES UINT64_C(2048)
#define HALF (PAGES / 2)

static vmem_manager *manager;
static vmem_region *region;

static void make(void)
{
	manager = vmemt_manager(0);
	region = vmemt_region(manager, 0, PAGES, 0);
}

static void end(void)
{
	vmemt_check(manager, region);
	vmemt_end(manager, region);
}

static void use(uint64_t first, uint64_t count)
{
	for (uint64_t page = first; page < first + count; page++)
		assert(!vmem_region_resolve(region, page * PAGE, 1));
}

static void next_period(void)
{
	vmemi_ages_harvest(region);
	vmemi_ages_hurry(region, manager->host.k->clock_ns());
}

static uint64_t take(uint64_t want)
{
	uint64_t taken;

	vmemi_reclaim_enter(manager->reclaim);
	vmemi_tidy(manager->reclaim, region, 0, PAGES);
	vmemt_let_go(region);
	taken = vmemi_take_cold(manager->reclaim, region, want, false);
	vmemi_reclaim_leave(manager->reclaim);
	return taken;
}

static uint64_t in_place(uint64_t first, uint64_t count)
{
	uint64_t n = 0;

	for (uint64_t page = first; page < first + count; page++)
		n += vmemt_state(region, page) == VMEM_PAGE_RESIDENT;
	return n;
}

/* Saves what is staged there. */
static void store(uint64_t first, uint64_t count)
{
	assert(!vmem_region_store(region, first * PAGE, count * PAGE, NULL));
}

/* Contents that the store takes: pages written here, and not zeros. */
static void fill(uint64_t first, uint64_t count)
{
	struct vmemt_page p;

	for (uint64_t page = first; page < first + count; page++) {
		vmemt_make(&p, page, 1);
		assert(!vmem_region_write(region, page * PAGE, &p, PAGE));
	}
}

static void oldest_first(void)
{
	make();
	use(HALF, HALF);
	next_period();
	use(0, HALF);
	next_period();
	assert(take(HALF) == HALF);
	assert(in_place(0, HALF) == HALF && in_place(HALF, HALF) == 0);
	end();
}

/* Nothing that came in this period goes, but in an emergency. */
static void youngest_in_an_emergency(void)
{
	make();
	next_period();
	use(0, PAGES);
	vmemi_reclaim_enter(manager->reclaim);
	/* The accesses of all pages end the period: one more. */
	vmemi_ages_tick(region, manager->host.k->clock_ns());
	vmemi_reclaim_leave(manager->reclaim);
	assert(take(HALF) == HALF);
	use(0, PAGES); /* half of them come back */
	vmemi_ages_harvest(region);
	region->ages.arrivals = 0;
	assert(!vmem_track_feed_list(region->ages.track, (uint64_t[]){ 0 }, 1, 0));
	vmemi_reclaim_enter(manager->reclaim);
	vmemi_tidy(manager->reclaim, region, 0, PAGES);
	assert(vmemi_take_cold(manager->reclaim, region, PAGES, true) > HALF);
	vmemi_reclaim_leave(manager->reclaim);
	end();
}

/* The first half comes back from staging: it is in use. The second comes from the store. */
static void prove_first_half(void)
{
	fill(0, PAGES);
	vmemt_stage(region, 0, PAGES);
	vmemi_ages_harvest(region);
	use(0, HALF);
	vmemi_ages_harvest(region);
	store(HALF, HALF);
	vmemi_ages_harvest(region);
	use(HALF, HALF);
	next_period();
}

static void what_is_not_missed_first(void)
{
	const uint64_t want = HALF / 2, most = want / 16;

	make();
	prove_first_half();
	assert(vmemi_ages_choose(&region->ages) == VMEMI_CLASS_NEW);
	assert(vmemi_ages_is_hot(&region->ages, 0) && !vmemi_ages_is_hot(&region->ages, HALF));
	assert(take(want) >= want - most);
	/* A few of the others are tried. */
	assert(in_place(0, HALF) >= HALF - most && in_place(0, HALF) < HALF);
	end();
}

/* The guest turns to the second half: the first, though proven, gives way. */
static void proven_pages_give_way(void)
{
	unsigned turns = 0;

	make();
	prove_first_half();
	while (vmemi_ages_choose(&region->ages) == VMEMI_CLASS_NEW) {
		assert(++turns < 100);
		take(HALF / 2);
		for (uint64_t page = HALF; page < PAGES; page++) /* these are missed */
			if (vmemt_state(region, page) == VMEM_PAGE_STAGED)
				use(page, 1);
		vmemi_ages_harvest(region);
		store(0, HALF); /* and these are not */
		next_period();
	}
	assert(take(HALF / 2));
	assert(in_place(0, HALF) < HALF / 2 + HALF / 16);
	end();
}

static void held_pages_stay(void)
{
	make();
	use(0, PAGES);
	assert(!vmem_region_pin(region, 0, HALF * PAGE));
	vmemi_page_set_add(&region->ages.stuck, PAGES - 1);
	next_period();
	assert(take(PAGES) == HALF - 1);
	assert(in_place(0, HALF) == HALF && in_place(PAGES - 1, 1) == 1);
	assert(take(PAGES) == 0);
	assert(!vmem_region_unpin(region, 0, HALF * PAGE));
	assert(take(PAGES) == HALF);
	/* What is stuck is tried again after many periods, each of which takes its time. */
	for (unsigned i = 0; i < 2000 && in_place(PAGES - 1, 1); i++) {
		region->ages.release_ns = 0;
		take(1);
	}
	assert(!in_place(PAGES - 1, 1));
	end();
}

/* A page that came back beside another is not the oldest for having been away. */
static void neighbours_are_fresh(void)
{
	uint32_t age, state;

	make();
	use(0, PAGES);
	next_period();
	assert(take(HALF) == HALF);
	for (unsigned i = 0; i < 10; i++)
		next_period();
	for (uint64_t page = 0; page < PAGES; page++) {
		struct vmemi_fault f = { .page = page };

		if (vmemt_state(region, page) == VMEM_PAGE_STAGED)
			assert(vmemi_serve(region, &f) == VMEMI_SERVED);
	}
	vmemi_ages_harvest(region);
	assert(!vmem_track_page(region->ages.track, 0, &age, &state));
	assert(!age && !(state & VMEM_TRACK_AWAY));
	end();
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE);
	oldest_first();
	youngest_in_an_emergency();
	what_is_not_missed_first();
	proven_pages_give_way();
	held_pages_stay();
	neighbours_are_fresh();
	return 0;
}
