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

struct vmem_threshold {
	struct vmem_threshold_opts opts; /* all set */
	struct vmem_allocator allocator;
	uint64_t start_ns, interval_ns;   /* of the controller, and of this interval */
	uint64_t before[VMEM_TRACK_AGES]; /* promotions up to the start of the interval */
	uint32_t past[THRESHOLDS];        /* intervals by their best threshold */
	uint32_t past_count;
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

static void remember(struct vmem_threshold *th, uint32_t age)
{
	if (th->past_count >= th->opts.history) {
		th->past_count = 0;
		for (uint32_t i = 0; i < THRESHOLDS; i++) {
			th->past[i] = (th->past[i] + 1) / 2;
			th->past_count += th->past[i];
		}
	}
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

int vmem_threshold_update(vmem_threshold *th, const struct vmem_track_histogram *promotions,
			  uint64_t working_set, uint64_t now_ns)
{
	const uint64_t *now;
	uint64_t interval;
	uint32_t last, usual;

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
		last = best(th, now,
			    allowed(th, working_set, interval < HOUR_NS ? interval : HOUR_NS));
		remember(th, last);
		usual = percentile(th);
		th->age = now_ns - th->start_ns < th->opts.wait_ns ? VMEM_TRACK_AGES
			  : last > usual                           ? last
								   : usual;
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
