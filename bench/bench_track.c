/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-track: a period of a guest of 1 TiB: its accesses as a bitmap, its end, both histograms, and a search
 * for the hundredth of all pages that is the best to take. In each period other pages are accessed: at random,
 * or in runs of up to 512 pages. bench_track_policy.c and bench_track_feeds.c have the rest.
 * ours   vmem_track_*; the bytes are those of the arrays, two a page, whether they had to be read or not
 * limit  a plain read of as many bytes */
#include "bench_track.h"
#include "harness.h"
#include "machine.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <vmem/track.h>

#define PAGES (UINT64_C(1) << 28)
#define PERIODS 60        /* before the first that counts: until ages are spread */
#define SPARE_WORDS 65536 /* of a bitmap: other pages each period */
#define RUNS 65536
#define LONGEST 512 /* run of pages that are accessed together */

enum { FEW, SCATTERED, IN_RUNS, MANY, BYTES, METRICS };
enum { CASES = BYTES };

static const unsigned percent[CASES] = { 1, 10, 10, 50 };

struct track_bench {
	uint64_t pages, random;
	uint64_t *accessed[CASES]; /* bitmaps */
	vmem_track *track[CASES];
	struct vmem_track_cursor cursor[CASES];
	struct vmem_track_run *runs;
	uint64_t *arrays; /* as many bytes as a tracker has */
	volatile uint64_t sum;
};

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static int feed(struct track_bench *bench, int which)
{
	const uint64_t from = next_random(&bench->random) % SPARE_WORDS;

	vmem_track_period(bench->track[which]);
	return vmem_track_feed_bitmap(bench->track[which], 0, bench->pages,
				      bench->accessed[which] + from, NULL);
}

/* A period. @return 0, or an error */
static int period(struct track_bench *bench, int which)
{
	struct vmem_track_want want = { .size = sizeof(want),
					.pages = bench->pages / 100,
					.min_age = 2 };
	struct vmem_track_histogram ages = { .size = sizeof(ages) }, promotions = ages;
	uint64_t found = 0;
	int result = feed(bench, which), again = 1;

	if (result || (result = vmem_track_get_ages(bench->track[which], &ages)) != 0 ||
	    (result = vmem_track_get_promotions(bench->track[which], &promotions)) != 0)
		return result;
	while (again == 1) {
		size_t count;

		again = vmem_track_victims(bench->track[which], &want, &bench->cursor[which],
					   bench->runs, RUNS, &count);
		for (size_t i = 0; again >= 0 && i < count; i++)
			found += bench->runs[i].count;
	}
	return again < 0 ? again : found < want.pages ? -EIO : 0;
}

static int measure_ours(void *context, double *values)
{
	struct track_bench *bench = context;
	struct vmem_track_stats stats = { .size = sizeof(stats) };
	int result = 0;

	for (int which = 0; which < CASES && result == 0; which++) {
		const uint64_t start = machine_thread_cpu_ns();

		result = period(bench, which);
		values[which] =
			2e9 * (double)bench->pages / (double)(machine_thread_cpu_ns() - start);
	}
	if (result == 0)
		result = vmem_track_get_stats(bench->track[0], &stats);
	values[BYTES] = (double)stats.bytes / (double)bench->pages;
	return result;
}

static int measure_limit(void *context, double *values)
{
	struct track_bench *bench = context;
	const uint64_t start = machine_thread_cpu_ns();
	uint64_t sums[4] = { 0 };

	for (size_t i = 0; i < bench->pages / 4; i += 4)
		for (size_t n = 0; n < 4; n++)
			sums[n] += bench->arrays[i + n];
	bench->sum = sums[0] + sums[1] + sums[2] + sums[3];
	values[FEW] = 2e9 * (double)bench->pages / (double)(machine_thread_cpu_ns() - start);
	values[SCATTERED] = values[IN_RUNS] = values[MANY] = values[FEW];
	return 0;
}

static void access_scattered(struct track_bench *bench, uint64_t *bitmap, size_t words,
			     unsigned per_cent)
{
	for (size_t i = 0; i < words; i++)
		for (unsigned bit = 0; bit < 64; bit++)
			if (next_random(&bench->random) % 100 < per_cent)
				bitmap[i] |= UINT64_C(1) << bit;
}

/* Runs of 1 .. LONGEST pages, and as much between them as makes it so many per cent. */
static void access_runs(struct track_bench *bench, uint64_t *bitmap, size_t words,
			unsigned per_cent)
{
	size_t page = 0;

	for (;;) {
		size_t end;

		page += next_random(&bench->random) % (LONGEST * (100 - per_cent) / per_cent + 1);
		end = page + 1 + next_random(&bench->random) % LONGEST;
		if (end > words * 64)
			return;
		for (; page < end; page++)
			bitmap[page / 64] |= UINT64_C(1) << page % 64;
	}
}

static int prepare(struct track_bench *bench, int which)
{
	const size_t words = (size_t)bench->pages / 64 + SPARE_WORDS;
	struct vmem_track_opts opts = { .size = sizeof(opts),
					.pages = bench->pages,
					.cpu = vmem_cpu_detect() };
	int result;

	bench->accessed[which] = (void *)machine_map(words * sizeof(uint64_t));
	if (!bench->accessed[which])
		return -ENOMEM;
	(which == IN_RUNS ? access_runs : access_scattered)(bench, bench->accessed[which], words,
							    percent[which]);
	result = vmem_track_new(&bench->track[which], &opts);
	if (result == 0)
		result =
			vmem_track_mark(bench->track[which], 0, bench->pages, VMEM_TRACK_ABSENT, 0);
	for (int i = 0; i < PERIODS && result == 0; i++)
		result = feed(bench, which);
	return result;
}

static int body(struct bench *bench)
{
	static const struct bench_metric metrics[METRICS] = {
		[FEW] = { "scan_bytes_per_s", "B/s", "accessed=1", 1 },
		[SCATTERED] = { "scan_bytes_per_s", "B/s", "accessed=10 scattered", 1 },
		[IN_RUNS] = { "scan_bytes_per_s", "B/s", "accessed=10 runs", 1 },
		[MANY] = { "scan_bytes_per_s", "B/s", "accessed=50", 1 },
		[BYTES] = { "bytes_per_page", "bytes", NULL, 0 },
	};
	static struct track_bench state = { .random = 88172645463325252 };
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = METRICS,
		.context = &state,
		.ours = { "libvmem", measure_ours, NULL },
		.limit = { "plain-read", measure_limit, NULL },
	};
	int result = 0;

	machine_pin(1);
	state.pages = bench_quick(bench) ? PAGES / 4 : PAGES;
	machine_warm(11 * (size_t)state.pages);
	state.arrays = (void *)machine_map((size_t)state.pages * 2);
	state.runs = malloc(RUNS * sizeof(*state.runs));
	if (!state.arrays || !state.runs)
		return -ENOMEM;
	memset(state.arrays, 1, (size_t)state.pages * 2);
	for (int which = 0; which < CASES && result == 0; which++)
		result = prepare(&state, which);
	if (result == 0)
		result = bench_compare(bench, &comparison);
	if (result == 0)
		result = bench_track_policy(bench);
	return result ? result : bench_track_feeds(bench);
}

int main(int argc, char **argv)
{
	return bench_main(argc, argv, "track", body);
}
