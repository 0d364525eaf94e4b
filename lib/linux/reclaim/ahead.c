/* SPDX-License-Identifier: BSD-2-Clause */
/* Taking pages ahead of need, in regions that ask for it, while the budget is not tight: what is colder than
 * the threshold, which the controller (vmem/threshold.h) sets so that few of them come back from the store.
 * Faults alone do not show that a page in place is in use: to take it is the test. So it is done at a
 * pace, once a period, which doubles while hardly any come back from staging, and else halves. */
#include "linux/reclaim/reclaim.h"

#define PACE_LEAST 16
#define PACE_PART 128 /* of the pages of a region, at most */
#define RETURN_PERCENT 10

static bool is_due(struct vmem_region *r)
{
	struct vmem_track_stats stats = { .size = sizeof(stats) };

	vmem_track_get_stats(r->ages.track, &stats);
	if (stats.periods == r->ages.ahead_period)
		return false;
	r->ages.ahead_period = stats.periods;
	return true;
}

static uint64_t next_pace(const struct vmem_region *r)
{
	const struct vmemi_ages *ages = &r->ages;
	uint64_t most = r->pages / PACE_PART > PACE_LEAST ? r->pages / PACE_PART : PACE_LEAST;
	uint64_t pace;

	if (vmemi_ages_return_percent(ages, vmemi_ages_choose(ages)) > RETURN_PERCENT)
		pace = ages->pace / 2;
	else
		pace = ages->pace * 2;
	return pace < PACE_LEAST ? PACE_LEAST : pace < most ? pace : most;
}

static uint64_t take_ahead(struct vmemi_reclaim *rc, struct vmem_region *r)
{
	uint32_t age = vmem_threshold_age(r->ages.threshold);
	uint64_t taken;

	if (!is_due(r) || age >= VMEM_TRACK_AGES)
		return 0;
	r->ages.pace = next_pace(r);
	taken = vmemi_take_older(rc, r, r->ages.pace, age);
	vmemi_tally(&r->counters.taken_ahead, taken);
	return taken;
}

uint64_t vmemi_take_ahead(struct vmemi_reclaim *rc)
{
	uint32_t slots = atomic_load(&rc->host->region_slots);
	uint64_t staged = 0, pages = 0, limit;

	for (uint32_t i = 0; i < slots; i++) {
		struct vmem_region *r = atomic_load(&rc->host->regions[i]);

		if (!r || !(r->opts.flags & VMEM_REGION_PROACTIVE) || vmemi_region_is_quiet(r))
			continue;
		take_ahead(rc, r);
		staged += vmemi_region_count(r, VMEM_PAGE_STAGED);
		pages += r->pages;
	}
	limit = rc->staging_pages < pages / 16 ? rc->staging_pages : pages / 16;
	if (staged <= limit / 2)
		return 0;
	return staged - limit / 2 < VMEMI_BATCH ? staged - limit / 2 : VMEMI_BATCH;
}
