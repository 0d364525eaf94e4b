/* SPDX-License-Identifier: BSD-2-Clause */
/* The controller alone: when an interval ends, what is best for it, percentile, spike, the first time,
 * forgetting, bad intervals; what it refuses. */
#include <string.h>
#include <vmem/threshold.h>
#include "track/track_tools.h"

#define MINUTE UINT64_C(60000000000)
#define SET UINT64_C(1000000) /* 0.2 % a minute: 2000 promotions */

static struct vmemt_fail_alloc memory;
static struct vmem_track_histogram h;
static uint64_t now;

static vmem_threshold *make(struct vmem_threshold_opts opts)
{
	vmem_threshold *th = NULL;

	vmemt_fail_alloc_init(&memory);
	opts.size = sizeof(opts);
	opts.allocator = &memory.allocator;
	memset(&h, 0, sizeof(h));
	h.size = sizeof(h);
	now = 1000 * MINUTE;
	cr_assert_eq(vmem_threshold_new(&th, &opts, now), 0);
	cr_assert_eq(vmem_threshold_age(th), VMEM_TRACK_AGES);
	cr_assert_eq(vmem_threshold_update(th, &h, SET, now), 0);
	return th;
}

static void done(vmem_threshold *th)
{
	vmem_threshold_free(th);
	cr_assert_eq(memory.live_bytes, 0);
}

/* A minute with so many promotions at an age. @return the threshold */
static uint32_t minute(vmem_threshold *th, uint32_t age, uint64_t promotions)
{
	now += MINUTE;
	h.pages[age] += promotions;
	cr_assert_eq(vmem_threshold_update(th, &h, SET, now), 1);
	return vmem_threshold_age(th);
}

Test(threshold, refused)
{
	struct vmem_threshold_opts good = { .size = sizeof(good), .wait_ns = 1 }, bad[6];
	vmem_threshold *th = (vmem_threshold *)&good;

	for (int i = 0; i < 6; i++)
		bad[i] = good;
	bad[0].flags = 1;
	bad[1].interval_ns = 61 * MINUTE;
	bad[2].interval_ns = 1;
	bad[3].objective_ppm = 1000001;
	bad[4].percentile = 101;
	bad[5].min_age = VMEM_TRACK_AGES;
	for (int i = 0; i < 6; i++)
		cr_assert_eq(vmem_threshold_new(&th, &bad[i], 0), -VMEM_EINVAL);
	cr_assert_eq(vmem_threshold_new(NULL, &good, 0), -VMEM_EINVAL);
	cr_assert_eq((void *)th, (void *)&good);
	th = make(good);
	cr_assert_eq(vmem_threshold_update(th, NULL, SET, now), -VMEM_EINVAL);
	cr_assert_eq(vmem_threshold_update(th, &h, SET, now - 1), -VMEM_EINVAL);
	cr_assert_eq(vmem_threshold_update(th, &h, VMEM_TRACK_MAX_PAGES + 1, now), -VMEM_EINVAL);
	h.size = 8;
	cr_assert_eq(vmem_threshold_update(th, &h, SET, now), -VMEM_EINVAL);
	h.size = sizeof(h);
	minute(th, 7, 10);
	h.pages[7] = 9;
	cr_assert_eq(vmem_threshold_update(th, &h, SET, now), -VMEM_EINVAL);
	done(th);
	vmemt_fail_alloc_init(&memory);
	memory.fail_after = 0;
	good.allocator = &memory.allocator;
	cr_assert_eq(vmem_threshold_new(&th, &good, 0), -VMEM_ENOMEM);
	vmem_threshold_free(NULL);
}

/* The lowest threshold that keeps the objective: to the page. */
Test(threshold, best)
{
	struct vmem_threshold_opts opts = { .wait_ns = 1, .history = 1 };
	vmem_threshold *th = make(opts);

	cr_assert_eq(minute(th, 50, 2000), 1);
	done(th);
	th = make(opts);
	cr_assert_eq(minute(th, 50, 2001), 51);
	done(th);
	th = make(opts);
	h.pages[20] = 1000;
	cr_assert_eq(minute(th, 100, 1001), 21);
	done(th);
	th = make(opts);
	cr_assert_eq(minute(th, 239, 2001), VMEM_TRACK_AGES); /* nothing can be cold */
	done(th);
	/* Twice the time, twice the promotions. */
	th = make(opts);
	now += MINUTE;
	cr_assert_eq(minute(th, 50, 4000), 1);
	done(th);
	opts.min_age = 9;
	th = make(opts);
	cr_assert_eq(minute(th, 50, 0), 9);
	done(th);
	opts.objective_ppm = 500;
	th = make(opts);
	cr_assert_eq(minute(th, 50, 501), 51);
	done(th);
}

Test(threshold, when)
{
	vmem_threshold *th = make((struct vmem_threshold_opts){ .wait_ns = 3 * MINUTE });

	now += MINUTE - 1;
	cr_assert_eq(vmem_threshold_update(th, &h, SET, now), 0);
	now++;
	cr_assert_eq(vmem_threshold_update(th, &h, SET, now), 1);
	cr_assert_eq(vmem_threshold_age(th), VMEM_TRACK_AGES);
	cr_assert_eq(minute(th, 5, 0), VMEM_TRACK_AGES);
	cr_assert_eq(minute(th, 5, 0), 1); /* the time has come */
	done(th);
}

/* 98 of 100 minutes were content with 31; a worse one counts for as long as it lasts. */
Test(threshold, percentile_and_spike)
{
	vmem_threshold *th = make((struct vmem_threshold_opts){ .wait_ns = 1 });

	for (int i = 0; i < 100; i++)
		cr_assert_eq(minute(th, 30, 5000), 31);
	cr_assert_eq(minute(th, 80, 5000), 81);
	cr_assert_eq(minute(th, 80, 5000), 81);
	cr_assert_eq(minute(th, 30, 5000), 31); /* 2 of 103 */
	cr_assert_eq(minute(th, 80, 5000), 81);
	cr_assert_eq(minute(th, 30, 5000), 81); /* 3 of 105: often enough to be heeded */
	cr_assert_eq(minute(th, 10, 0), 81);
	for (int i = 0; i < 60; i++)
		minute(th, 10, 0);
	cr_assert_eq(minute(th, 10, 0), 31); /* 3 of 167 */
	done(th);
}

/* Old minutes count less and less. */
Test(threshold, forgets)
{
	vmem_threshold *th = make((struct vmem_threshold_opts){ .wait_ns = 1, .history = 100 });

	for (int i = 0; i < 500; i++)
		cr_assert_eq(minute(th, 60, 5000), 61);
	for (int i = 0; i < 400; i++)
		minute(th, 20, 5000);
	cr_assert_eq(minute(th, 20, 5000), 21);
	done(th);
}

/* A guest whose pages come back ever later: the past never knows. Bad minutes do not go on, and what they
 * have cost is given back in good ones. */
Test(threshold, bad_intervals_add_up)
{
	vmem_threshold *th = make((struct vmem_threshold_opts){ .wait_ns = 1 });
	uint32_t bad = 0, age;

	minute(th, 20, 5000);
	for (age = 21; age < 121; age++) {
		bad += age >= vmem_threshold_age(th);
		minute(th, age, 5000);
	}
	cr_assert_leq(bad, 8);
	cr_assert_gt(bad, 3); /* a few are forgiven */
	for (int i = 0; i < 2000; i++)
		minute(th, 30, 5000);
	cr_assert_leq(minute(th, 30, 5000), 121);
	for (int i = 0; i < 6000; i++)
		minute(th, 30, 5000);
	cr_assert_eq(minute(th, 30, 5000), 31);
	done(th);
}
