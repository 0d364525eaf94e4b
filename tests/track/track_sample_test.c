/* SPDX-License-Identifier: BSD-2-Clause */
/* The sampler: its pages are random and of those that are there; its interval is Wilson's, and holds what
 * it is of; the averages go up fast and down slowly. */
#include <math.h>
#include <string.h>
#include "track/track_tools.h"

static struct vmemt_fail_alloc memory;
static uint64_t sample[VMEM_TRACK_MAX_SAMPLE];

static struct vmem_track_estimate estimate(const vmem_track *t)
{
	struct vmem_track_estimate e = { .size = sizeof(e) };

	cr_assert_eq(vmem_track_get_estimate(t, &e), 0);
	return e;
}

/* A period in which @accessed of @count samples were. */
static void answered(vmem_track *t, size_t count, size_t accessed)
{
	cr_assert_eq(vmem_track_sample(t, sample, count), count);
	cr_assert_eq(vmem_track_sample_accessed(t, accessed), 0);
	vmem_track_period(t);
}

Test(track_sample, refused)
{
	vmem_track *t = vmemt_track_new(&memory, 1000, 0);
	struct vmem_track_estimate e = { .size = sizeof(e) };

	cr_assert_eq(vmem_track_sample(t, sample, 10), 0); /* all are absent */
	cr_assert_eq(vmem_track_sample_accessed(t, 0), -VMEM_EINVAL);
	cr_assert_eq(vmem_track_mark(t, 0, 1000, VMEM_TRACK_ABSENT, 0), 0);
	cr_assert_eq(vmem_track_sample(t, sample, VMEM_TRACK_MAX_SAMPLE + 1), 0);
	cr_assert_eq(vmem_track_sample(t, sample, 0), 0);
	cr_assert_eq(vmem_track_sample(t, sample, 10), 10);
	cr_assert_eq(vmem_track_sample_accessed(t, 11), -VMEM_EINVAL);
	cr_assert_eq(vmem_track_get_estimate(t, &e), -VMEM_ENOENT);
	vmem_track_period(t); /* without an answer */
	cr_assert_eq(vmem_track_get_estimate(t, &e), -VMEM_ENOENT);
	cr_assert_eq(vmem_track_sample_accessed(t, 1), -VMEM_EINVAL);
	vmemt_track_done(t, &memory);
}

/* Each page that is there as often as any other (chi-square), no other one ever. */
Test(track_sample, random_pages)
{
	enum { PAGES = 4000, THERE = 1000 };
	static uint32_t hits[PAGES];
	vmem_track *t = vmemt_track_new(&memory, PAGES, 0);
	double mean, sum = 0;
	size_t got = 0;

	memset(hits, 0, sizeof(hits));
	cr_assert_eq(vmem_track_mark(t, 1000, 2000, VMEM_TRACK_ABSENT, 0), 0);
	cr_assert_eq(vmem_track_take(t, 2000, 1000, NULL), 0);
	for (int i = 0; i < 10; i++) {
		size_t count = vmem_track_sample(t, sample, 20000);

		got += count;
		for (size_t s = 0; s < count; s++)
			hits[sample[s]]++;
	}
	cr_assert_eq(got, 200000);
	mean = 200000.0 / THERE;
	for (int page = 0; page < PAGES; page++) {
		if (page < 1000 || page >= 2000)
			cr_assert_eq(hits[page], 0);
		else
			sum += (hits[page] - mean) * (hits[page] - mean) / mean;
	}
	cr_assert(fabs(sum - THERE) < 6 * sqrt(2.0 * THERE), "chi-square %.0f", sum);
	vmemt_track_done(t, &memory);
}

/* Beside the formula in floating point. */
Test(track_sample, interval)
{
	enum { PAGES = 1 << 20 };
	static const size_t counts[] = { 1, 2, 10, 100, 999, 65536 };
	vmem_track *t = vmemt_track_full(&memory, PAGES, vmem_cpu_detect());

	for (int c = 0; c < 6; c++) {
		size_t n = counts[c];

		for (size_t a = 0; a <= n; a += 1 + n / 50) {
			double z = 1.959964, share = (double)a / (double)n, nn = (double)n;
			double middle = (share + z * z / (2 * nn)) / (1 + z * z / nn);
			double half = z / (1 + z * z / nn) *
				      sqrt(share * (1 - share) / nn + z * z / (4 * nn * nn));
			struct vmem_track_estimate e;

			answered(t, n, a);
			e = estimate(t);
			cr_assert_float_eq((double)e.working_set, share * PAGES, 1);
			cr_assert_float_eq((double)e.low, (middle - half) * PAGES, PAGES * 3e-4);
			cr_assert_float_eq((double)e.high, (middle + half) * PAGES, PAGES * 3e-4);
			cr_assert(e.low <= e.working_set && e.working_set <= e.high);
			cr_assert_leq(e.high, PAGES);
		}
	}
	vmemt_track_done(t, &memory);
}

/* Samples of sets that are known: the interval holds the size in 95 % of the cases, about. */
Test(track_sample, holds)
{
	enum { PAGES = 100000, TRIES = 2000, SAMPLES = 100 };
	static const uint32_t sets[] = { 1000, 10000, 30000, 50000, 90000 };
	vmem_track *t = vmemt_track_full(&memory, PAGES, vmem_cpu_detect());
	uint64_t state = vmemt_seed("track_sample");

	t->sampler.random = vmemt_rand(&state);
	for (int s = 0; s < 5; s++) {
		uint32_t held = 0;

		for (int i = 0; i < TRIES; i++) {
			size_t accessed = 0;
			struct vmem_track_estimate e;

			cr_assert_eq(vmem_track_sample(t, sample, SAMPLES), SAMPLES);
			for (int n = 0; n < SAMPLES; n++)
				accessed += sample[n] < sets[s];
			cr_assert_eq(vmem_track_sample_accessed(t, accessed), 0);
			vmem_track_period(t);
			e = estimate(t);
			held += e.low <= sets[s] && sets[s] <= e.high;
		}
		/* Between 91.8 and 98.2 % for these numbers; deviation 0.5 %. */
		cr_assert(held > TRIES * 0.9 && held < TRIES * 0.995, "%u: %u", sets[s], held);
	}
	vmemt_track_done(t, &memory);
}

Test(track_sample, active)
{
	enum { PAGES = 1 << 20 };
	vmem_track *t = vmemt_track_full(&memory, PAGES, vmem_cpu_detect());
	uint64_t before;

	for (int i = 0; i < 50; i++)
		answered(t, 100, 10);
	cr_assert_float_eq((double)estimate(t).active, 0.1 * PAGES, 0.001 * PAGES);
	/* Up at once, in the same period, as far as the answers go. */
	cr_assert_eq(vmem_track_sample(t, sample, 100), 100);
	cr_assert_eq(vmem_track_sample_accessed(t, 5), 0);
	cr_assert_float_eq((double)estimate(t).active, 0.1 * PAGES, 0.001 * PAGES);
	cr_assert_eq(vmem_track_sample_accessed(t, 90), 0);
	cr_assert_float_eq((double)estimate(t).active, 0.5 * PAGES, 0.001 * PAGES);
	cr_assert_float_eq((double)estimate(t).working_set, 0.1 * PAGES, 1); /* not ended */
	vmem_track_period(t);
	for (int i = 0; i < 6; i++)
		answered(t, 100, 90);
	cr_assert_gt((double)estimate(t).active, 0.88 * PAGES);
	/* Down slowly: by less than an eighth a period, and to the end. */
	for (int i = 0; i < 200; i++)
		answered(t, 100, 90);
	before = estimate(t).active;
	for (int i = 0; i < 100; i++) {
		uint64_t now;

		answered(t, 100, 0);
		now = estimate(t).active;
		cr_assert(now <= before && now + 2 >= before - before / 8);
		before = now;
	}
	cr_assert_lt(before, PAGES / 1000);
	vmemt_track_done(t, &memory);
}

/* A sample that lasts for several periods; and samples that say nothing. */
Test(track_sample, long_and_spoiled)
{
	enum { PAGES = 1 << 16 };
	struct vmem_track_opts opts = { .size = sizeof(opts),
					.flags = VMEM_TRACK_LONG_SAMPLES,
					.pages = PAGES };
	vmem_track *t;

	cr_assert_eq(vmem_track_new(&t, &opts), 0);
	cr_assert_eq(vmem_track_mark(t, 0, PAGES, VMEM_TRACK_ABSENT, 0), 0);
	cr_assert_eq(vmem_track_sample_spoiled(t, 1), -VMEM_EINVAL);
	cr_assert_eq(vmem_track_sample(t, sample, 100), 100);
	cr_assert_eq(vmem_track_sample_accessed(t, 25), 0);
	for (int i = 0; i < 10; i++)
		vmem_track_period(t);
	cr_assert_eq(vmem_track_get_estimate(t, &(struct vmem_track_estimate){ .size = 8 }),
		     -VMEM_ENOENT);
	cr_assert_eq(vmem_track_sample_spoiled(t, 76), -VMEM_EINVAL);
	cr_assert_eq(vmem_track_sample_spoiled(t, 50), 0);
	cr_assert_eq(vmem_track_sample_accessed(t, 51), -VMEM_EINVAL);
	cr_assert_eq(vmem_track_sample(t, sample, 10), 10);
	cr_assert_eq(estimate(t).working_set, PAGES / 2);
	cr_assert_eq(estimate(t).samples, 50);
	/* All of them: no answer, and what was known stays. */
	cr_assert_eq(vmem_track_sample_accessed(t, 0), 0);
	cr_assert_eq(vmem_track_sample_spoiled(t, 10), 0);
	cr_assert_eq(vmem_track_sample(t, sample, 10), 10);
	cr_assert_eq(estimate(t).working_set, PAGES / 2);
	vmem_track_free(t);
}
