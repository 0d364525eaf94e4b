/* SPDX-License-Identifier: BSD-2-Clause */
/* The controller of the cold threshold: a histogram of the best thresholds of past intervals. Its guard
 * is the caller's. */
#include <vmem/threshold.h>
#include "base/alloc.h"
#include "base/mem.h"
#include "base/opts.h"

#define MINUTE_NS UINT64_C(60000000000)
#define HOUR_NS (60 * MINUTE_NS)
#define MS_NS 1000000u
#define MILLION 1000000u
#define THRESHOLDS (VMEM_TRACK_AGES + 1) /* the last one: nothing is cold */
/* Bad intervals in a short time that are forgiven, and the ages that each further one adds. */
#define FORGIVEN 3u
#define STEP 4u

struct vmem_threshold {
	struct vmem_threshold_opts opts; /* all set */
	struct vmem_allocator allocator;
	uint64_t start_ns, interval_ns;   /* of the controller, and of this interval */
	uint64_t before[VMEM_TRACK_AGES]; /* promotions up to the start of the interval */
	uint32_t past[THRESHOLDS];        /* intervals by their best threshold */
	uint32_t past_count;
	uint32_t debt; /* of bad intervals; good ones pay it back */
	uint32_t age;
	int begun;
};

/* @working_set x objective x @interval; less than a page is lost. */
static uint64_t allowed(const struct vmem_threshold *th, uint64_t working_set, uint64_t interval)
{
	uint64_t minute = working_set * th->opts.objective_ppm;

	return minute < UINT64_MAX / (HOUR_NS / MS_NS)
		       ? minute * (interval / MS_NS) / (MINUTE_NS / MS_NS) / MILLION
		       : minute / MILLION * (interval / MS_NS) / (MINUTE_NS / MS_NS);
}

/* The lowest threshold with not more promotions than were allowed. */
static uint32_t best(const struct vmem_threshold *th, const uint64_t now[VMEM_TRACK_AGES],
		     uint64_t most)
{
	uint32_t age = VMEM_TRACK_AGES;
	uint64_t sum = 0;

	while (age > th->opts.min_age) {
		sum += now[age - 1] - th->before[age - 1];
		if (sum > most)
			break;
		age--;
	}
	return age;
}

/* What is old counts half. An odd one is added to the next threshold above: so all are forgotten some time,
 * also those that were best once only, and percentiles stay. */
static void forget_half(struct vmem_threshold *th)
{
	uint32_t odd = 0;

	th->past_count = 0;
	for (uint32_t i = 0; i < THRESHOLDS; i++) {
		uint32_t count = th->past[i] + odd;

		th->past[i] = count / 2;
		th->past_count += th->past[i];
		odd = count % 2;
	}
}

static void remember(struct vmem_threshold *th, uint32_t age)
{
	if (th->past_count >= th->opts.history)
		forget_half(th);
	th->past[age]++;
	th->past_count++;
}

/* The lowest threshold that is not below the best of so many per cent of the intervals. */
static uint32_t percentile(const struct vmem_threshold *th)
{
	uint64_t sum = 0, least = (uint64_t)th->past_count * th->opts.percentile;
	uint32_t age = 0;

	for (;; age++) {
		sum += th->past[age];
		if (sum * 100 >= least)
			return age;
	}
}

/* What has happened with the threshold as it was. If the best thresholds of the past say little about what
 * comes, as while a guest's pages grow old for the first time, too many intervals are bad: each of them
 * costs as much as the others may pay back if no more are bad than the percentile leaves out. */
static void settle_debt(struct vmem_threshold *th, const uint64_t now[VMEM_TRACK_AGES],
			uint64_t most)
{
	const uint32_t cost = th->opts.percentile, pays = 100 - cost ? 100 - cost : 1;
	const uint32_t limit = (FORGIVEN + VMEM_TRACK_AGES / STEP) * cost;
	uint64_t sum = 0;

	for (uint32_t age = th->age; age < VMEM_TRACK_AGES; age++)
		sum += now[age] - th->before[age];
	if (sum > most)
		th->debt = th->debt + cost < limit ? th->debt + cost : limit;
	else
		th->debt = th->debt > pays ? th->debt - pays : 0;
}

/* Ages to be added for debts. */
static uint32_t margin(const struct vmem_threshold *th)
{
	const uint32_t cost = th->opts.percentile;

	return th->debt > FORGIVEN * cost ? (th->debt - FORGIVEN * cost) * STEP / cost : 0;
}

int vmem_threshold_update(vmem_threshold *th, const struct vmem_track_histogram *promotions,
			  uint64_t working_set, uint64_t now_ns)
{
	const uint64_t *now;
	uint64_t interval, most;
	uint32_t last, next;

	if (!promotions || promotions->size != sizeof(*promotions) || now_ns < th->interval_ns ||
	    working_set > VMEM_TRACK_MAX_PAGES)
		return -VMEM_EINVAL;
	now = promotions->pages;
	for (uint32_t age = 0; age < VMEM_TRACK_AGES; age++)
		if (now[age] < th->before[age])
			return -VMEM_EINVAL;
	interval = now_ns - th->interval_ns;
	if (th->begun && interval < th->opts.interval_ns)
		return 0;
	if (th->begun) {
		most = allowed(th, working_set, interval < HOUR_NS ? interval : HOUR_NS);
		settle_debt(th, now, most);
		last = best(th, now, most);
		remember(th, last);
		next = percentile(th);
		next = (last > next ? last : next) + margin(th);
		if (now_ns - th->start_ns < th->opts.wait_ns || next > VMEM_TRACK_AGES)
			next = VMEM_TRACK_AGES;
		th->age = next;
	}
	memcpy(th->before, now, sizeof(th->before));
	th->interval_ns = now_ns;
	if (th->begun)
		return 1;
	th->begun = 1;
	return 0;
}

uint32_t vmem_threshold_age(const vmem_threshold *th)
{
	return th->age;
}

static int take_opts(struct vmem_threshold_opts *o, const struct vmem_threshold_opts *given)
{
	int err = vmemi_opts_take(o, sizeof(*o), given);

	if (err)
		return err;
	o->interval_ns = o->interval_ns ? o->interval_ns : MINUTE_NS;
	o->wait_ns = o->wait_ns ? o->wait_ns : 10 * o->interval_ns;
	o->objective_ppm = o->objective_ppm ? o->objective_ppm : 2000;
	o->percentile = o->percentile ? o->percentile : 98;
	o->min_age = o->min_age ? o->min_age : 1;
	o->history = o->history ? o->history : 1440;
	return o->flags || o->interval_ns < MS_NS || o->interval_ns > HOUR_NS ||
			       o->objective_ppm > MILLION || o->percentile > 100 ||
			       o->min_age >= VMEM_TRACK_AGES || o->history > INT32_MAX
		       ? -VMEM_EINVAL
		       : 0;
}

int vmem_threshold_new(vmem_threshold **ret_threshold, const struct vmem_threshold_opts *given,
		       uint64_t now_ns)
{
	struct vmem_threshold_opts opts;
	struct vmem_allocator allocator;
	struct vmem_threshold *th;
	int err = ret_threshold ? take_opts(&opts, given) : -VMEM_EINVAL;

	if (!err)
		err = vmemi_alloc_take(&allocator, opts.allocator);
	if (err)
		return err;
	th = vmemi_zalloc(&allocator, sizeof(*th), _Alignof(struct vmem_threshold));
	if (!th)
		return -VMEM_ENOMEM;
	th->opts = opts;
	th->allocator = allocator;
	th->start_ns = th->interval_ns = now_ns;
	th->age = VMEM_TRACK_AGES;
	*ret_threshold = th;
	return 0;
}

void vmem_threshold_free(vmem_threshold *th)
{
	struct vmem_allocator allocator;

	if (!th)
		return;
	allocator = th->allocator;
	vmemi_free(&allocator, th, sizeof(*th), _Alignof(struct vmem_threshold));
}
