/* SPDX-License-Identifier: BSD-2-Clause */
/* Which pages go, and which way each. The tracker names the oldest (ages.h says of which class);
 * neighbours among them leave together as a run, others are collected. */
#include "linux/backing/backing.h"
#include "linux/reclaim/reclaim.h"

/* Of what is wanted, this part comes from the class that is spared, to see whether that is still right. */
#define PROBE_PART 32
/* Searches for one class, where much of what they name cannot go. */
#define SEARCHES 4

enum fate { STAYS, GOES, GOES_CLEAN };

/* What is stored of a clean page may lie where it cannot be read any more, as far as is known. Then its bytes are in
 * place only, and leave as those of any resident page. */
static void distrust(struct vmem_region *r, uint64_t page, uint64_t word)
{
	uint64_t old;

	if (vmemi_page_state(word) == VMEM_PAGE_CLEAN && !vmemi_region_can_load(r, word) &&
	    vmemi_region_step(r, page, VMEMI_PAGE_DISTRUST, 0, &old))
		vmemi_region_drop_ref(r, old);
}

static enum fate fate_of(struct vmem_region *r, uint64_t page)
{
	uint64_t word;

	distrust(r, page, vmemi_region_word(r, page));
	word = vmemi_region_word(r, page);
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
		     vmemi_ages_is_hot(&r->ages, page);
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
	return r->backing->take(rc, r);
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
			  uint64_t count)
{
	unsigned run = 0, run_min = vmemi_cost_run_min(&rc->cost), taken = 0;

	for (uint64_t page = first; page < first + count; page++) {
		enum fate fate = fate_of(r, page);

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
			  uint64_t count)
{
	unsigned taken = vmemi_take_offer(rc, r, first, count);

	return taken + vmemi_take_flush(rc, r);
}

/* What a search has found, until enough is on its way. */
struct catch
{
	uint64_t taken;
	uint64_t end; /* of the last run offered */
};

static uint64_t caught(const struct vmemi_reclaim *rc, const struct catch *c)
{
	return c->taken + rc->scattered_count + rc->clean_count;
}

/* All but what the guest has only just got. */
static void offer_run(struct vmemi_reclaim *rc, struct vmem_region *r, struct catch *c,
		      uint64_t first, uint64_t end)
{
	for (uint64_t fresh; first < end; first = fresh + 1) {
		fresh = vmemi_ages_next_fresh(&r->ages, first, end);
		c->taken += vmemi_take_offer(rc, r, first, fresh - first);
	}
}

static void offer_runs(struct vmemi_reclaim *rc, struct vmem_region *r, struct catch *c,
		       const struct vmem_track_run *runs, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (runs[i].first < c->end) /* batches are ascending */
			c->taken += vmemi_take_flush(rc, r);
		c->end = runs[i].first + runs[i].count;
		offer_run(rc, r, c, runs[i].first, c->end);
	}
}

/* Some pages that are named cannot go just now, so a few more are looked at than are wanted. */
static uint64_t take_oldest(struct vmemi_reclaim *rc, struct vmem_region *r,
			    const struct vmemi_wanted *wanted)
{
	struct vmem_track_run runs[VMEMI_SEARCH_RUNS];
	struct vmemi_wanted next = *wanted;
	struct catch c = { 0 };
	int more = 1;

	for (unsigned i = 0; i < SEARCHES && caught(rc, &c) < wanted->pages;) {
		size_t count = 0;

		next.pages = wanted->pages - caught(rc, &c);
		more = vmemi_ages_victims(r, &next, runs, VMEMI_SEARCH_RUNS, &count);
		if (more < 0 || (!more && !count))
			break;
		offer_runs(rc, r, &c, runs, count);
		i += !more || !count;
	}
	c.taken += vmemi_take_flush(rc, r);
	vmemi_ages_harvest(r);
	return c.taken;
}

uint64_t vmemi_take_older(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t want,
			  uint32_t min_age)
{
	enum vmemi_ages_class first = vmemi_ages_choose(&r->ages);
	struct vmemi_wanted wanted = {
		.of = first == VMEMI_CLASS_NEW ? VMEMI_CLASS_PROVEN : VMEMI_CLASS_NEW,
		.pages = want / PROBE_PART,
		.min_age = min_age,
	};
	uint64_t taken = take_oldest(rc, r, &wanted);

	wanted.of = first;
	wanted.pages = taken < want ? want - taken : 0;
	return taken + take_oldest(rc, r, &wanted);
}

uint64_t vmemi_take_cold(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t want,
			 bool emergency)
{
	struct vmemi_wanted any = {
		.of = VMEMI_CLASSES,
		.min_age = vmemi_ages_least(r),
		.emergency = emergency,
	};
	uint64_t taken;
	uint32_t young;

	vmemi_ages_tick(r, rc->host->k->clock_ns());
	vmemi_huge_press(rc, r, want);
	taken = vmemi_take_older(rc, r, want, any.min_age);
	/* A class that comes and goes within a period is older than it looks: rather that than the other. */
	young = r->ages.arrivals ? any.min_age : 0;
	for (; young && taken < want / 2 + 1 && taken < want; young--) {
		vmemi_ages_hurry(r, rc->host->k->clock_ns());
		taken += vmemi_take_older(rc, r, want - taken, any.min_age);
	}
	if (taken < want / 2 + 1) {
		any.pages = taken < want ? want - taken : 0;
		vmemi_huge_give(r, any.pages); /* what is in huge pages was spared so far */
		taken += take_oldest(rc, r, &any);
	}
	if (!taken)
		vmemi_ages_hurry(r, rc->host->k->clock_ns());
	return taken;
}
