/* SPDX-License-Identifier: BSD-2-Clause */
/* The controller of the cold threshold on recorded traces (guest_traces.h), replayed minute by minute.
 * ours   vmem_threshold as it comes: of the minutes, how many kept promotions within the objective, 0.2 % of
 *        the working set of two minutes; and how much was cold
 * limit  an oracle that knows all accesses to come. It may take a page as soon as it is accessed for the
 *        last time, and choose those that it takes one by one: in each minute as many as the objective
 *        allows come back, and those are the ones that were away for longest; and all pages in those 5 %
 *        of the minutes that give most. No policy that keeps the objective in 95 % finds more.
 * peer   the one age that finds most in all of the trace, of those that keep the objective in 95 % of the
 *        minutes: it knows the future too, but sees no more of a page than its age
 * Cold memory is counted at the end of each minute. The first hour does not count. Then, victims: each hour a
 * quarter of all pages is to go, and the share of them that comes back within ten minutes.
 * ours   vmem_track_victims in an emergency
 * peer   pages at random */
#include "bench_track.h"
#include "guest_traces.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <vmem/threshold.h>
#include <vmem/trace.h>

#define MINUTE_NS UINT64_C(60000000000)
#define LEARN 60u
#define OBJECTIVE_PPM 2000u
#define WINDOW 2u /* minutes of the working set */

#define HOUR 60u
#define BACK_WITHIN 10u /* minutes */

enum { KEPT, FOUND, PER_TRACE };

/* A quarter of all pages, as if taken. */
struct taken {
	uint64_t pages[TRACE_PAGES / 64]; /* that have not come back */
	uint64_t count, back;             /* of all hours */
};

/* What is measured of a trace; the same each time. */
struct finding {
	double ours[PER_TRACE], fixed[PER_TRACE];
	double back, random_back;
};

struct policy {
	struct guest_trace trace;
	vmem_track *track;
	vmem_threshold *threshold;
	struct vmem_track_histogram ages, promotions, before;
	uint32_t minute, kept;
	uint64_t cold, oracle; /* pages times minutes */
	uint64_t extra
		[TRACE_MINUTES];    /* what the oracle gains where it need not keep the objective */
	uint32_t last[TRACE_PAGES]; /* minute of the last access of a page, and 1 */
	uint32_t returned
		[TRACE_MINUTES]; /* pages that are accessed in this minute, by what was gained */
	/* With one age all the time. */
	uint32_t fixed_kept[VMEM_TRACK_AGES];
	uint64_t fixed_cold[VMEM_TRACK_AGES];
	struct taken best, random;
	struct vmem_track_cursor cursor;
	uint64_t seed;
};

static uint64_t sum_from(const struct vmem_track_histogram *h, uint32_t age)
{
	uint64_t sum = 0;

	for (; age < VMEM_TRACK_AGES; age++)
		sum += h->pages[age];
	return sum;
}

/* Minutes that count from @first to before @end. */
static uint32_t counted(uint32_t first, uint32_t end)
{
	if (first < LEARN)
		first = LEARN;
	return end > first ? end - first : 0;
}

/* The oracle's part of what came back in this minute: the longest times away. */
static void choose(struct policy *p, uint64_t allowed)
{
	for (uint32_t gain = TRACE_MINUTES; gain-- > 0;) {
		uint64_t pages = p->returned[gain] < allowed ? p->returned[gain] : allowed;

		p->oracle += pages * gain;
		p->extra[p->minute] += (p->returned[gain] - pages) * gain;
		allowed -= pages;
	}
}

static int compare_extra(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return (a < b) - (a > b);
}

/* What comes back in no minute, and in the best of those in which the objective may be missed. */
static void end_oracle(struct policy *p)
{
	for (uint32_t page = 0; page < TRACE_PAGES; page++)
		p->oracle += counted(p->last[page], p->minute);
	qsort(p->extra, TRACE_MINUTES, sizeof(*p->extra), compare_extra);
	for (uint32_t i = 0; i < (TRACE_MINUTES - LEARN) / 20; i++)
		p->oracle += p->extra[i];
}

static void see_back(struct taken *taken, uint32_t page)
{
	const uint64_t bit = UINT64_C(1) << page % 64;

	taken->back += (taken->pages[page / 64] & bit) != 0;
	taken->pages[page / 64] &= ~bit;
}

/* @return whether it was not there before */
static int take(struct taken *taken, uint64_t page)
{
	const uint64_t bit = UINT64_C(1) << page % 64;

	if (taken->pages[page / 64] & bit)
		return 0;
	taken->pages[page / 64] |= bit;
	taken->count++;
	return 1;
}

static void take_at_random(struct policy *p, uint64_t count)
{
	while (count > 0) {
		/* Knuth, MMIX. */
		p->seed = p->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		count -= (uint64_t)take(&p->random, (p->seed >> 33) % TRACE_PAGES);
	}
}

/* Names a quarter of all pages, twice. */
static int take_quarter(struct policy *p)
{
	struct vmem_track_want want = { .size = sizeof(want),
					.flags = VMEM_TRACK_EMERGENCY,
					.pages = TRACE_PAGES / 4,
					.min_age = VMEM_TRACK_AGES - 1 };
	uint64_t before = p->best.count;
	int again;

	do {
		struct vmem_track_run run;
		size_t found;

		again = vmem_track_victims(p->track, &want, &p->cursor, &run, 1, &found);
		for (uint64_t i = 0; again >= 0 && found > 0 && i < run.count; i++)
			take(&p->best, run.first + i);
	} while (again == 1);
	take_at_random(p, p->best.count - before);
	return again;
}

/* Each hour, and what came back of it a while later is forgotten. */
static int live_emergency(struct policy *p)
{
	if (p->minute % HOUR == BACK_WITHIN) {
		memset(p->best.pages, 0, sizeof(p->best.pages));
		memset(p->random.pages, 0, sizeof(p->random.pages));
	}
	return p->minute >= LEARN && p->minute % HOUR == 0 ? take_quarter(p) : 0;
}

static int look_at_pages(struct policy *p)
{
	memset(p->returned, 0, sizeof(p->returned));
	for (uint32_t page = 0; page < TRACE_PAGES; page++) {
		uint32_t age, state;
		int result = vmem_track_page(p->track, page, &age, &state);

		if (result != 0)
			return result;
		if (age > 0)
			continue;
		p->returned[counted(p->last[page], p->minute)]++;
		p->last[page] = p->minute + 1;
		see_back(&p->best, page);
		see_back(&p->random, page);
	}
	return 0;
}

static void judge_fixed(struct policy *p, uint64_t allowed)
{
	uint64_t promotions = 0, cold = 0;

	for (uint32_t age = VMEM_TRACK_AGES; age-- > 0;) {
		promotions += p->promotions.pages[age] - p->before.pages[age];
		cold += p->ages.pages[age];
		p->fixed_kept[age] += promotions <= allowed;
		p->fixed_cold[age] += cold;
	}
}

static int judge(struct policy *p)
{
	const uint64_t allowed = vmem_track_working_set(p->track, WINDOW) * OBJECTIVE_PPM / 1000000;
	const uint32_t age = vmem_threshold_age(p->threshold);
	int result = look_at_pages(p);

	if (result != 0 || p->minute < LEARN)
		return result;
	p->kept += sum_from(&p->promotions, age) - sum_from(&p->before, age) <= allowed;
	p->cold += sum_from(&p->ages, age);
	judge_fixed(p, allowed);
	choose(p, allowed);
	return live_emergency(p);
}

/* @return 1, 0 (the trace ends), or an error */
static int live_minute(struct policy *p, const struct vmem_trace_reader *reader)
{
	int result;

	vmem_track_period(p->track);
	p->before = p->promotions;
	result = vmem_trace_replay(p->track, reader);
	if (result != 1)
		return result;
	result = vmem_track_get_ages(p->track, &p->ages);
	if (result == 0)
		result = vmem_track_get_promotions(p->track, &p->promotions);
	if (result == 0)
		result = judge(p);
	if (result == 0)
		result = vmem_threshold_update(p->threshold, &p->promotions,
					       vmem_track_working_set(p->track, WINDOW),
					       ++p->minute * MINUTE_NS);
	return result < 0 ? result : 1;
}

static int live(struct policy *p)
{
	const struct vmem_track_opts opts = { .size = sizeof(opts),
					      .pages = TRACE_PAGES,
					      .cpu = vmem_cpu_detect() };
	const struct vmem_threshold_opts threshold_opts = { .size = sizeof(threshold_opts),
							    .objective_ppm = OBJECTIVE_PPM };
	const struct vmem_trace_reader reader = { .size = sizeof(reader),
						  .context = &p->trace,
						  .read = guest_trace_read };
	int result = vmem_trace_load(&p->track, &opts, &reader);

	p->ages.size = p->promotions.size = sizeof(p->ages);
	if (result == 0)
		result = vmem_threshold_new(&p->threshold, &threshold_opts, 0);
	if (result == 0)
		result = vmem_threshold_update(p->threshold, &p->promotions, 0, 0);
	if (result == 0)
		while ((result = live_minute(p, &reader)) == 1)
			;
	if (result != 0)
		return result;
	end_oracle(p);
	return p->minute == TRACE_MINUTES ? 0 : -EIO;
}

static void conclude(const struct policy *p, struct finding *finding)
{
	const double minutes = TRACE_MINUTES - LEARN;
	uint32_t best = VMEM_TRACK_AGES - 1;

	while (best > 0 && p->fixed_kept[best - 1] >= 0.95 * minutes)
		best--;
	finding->ours[KEPT] = p->kept / minutes;
	finding->ours[FOUND] = (double)p->cold / (double)p->oracle;
	finding->fixed[KEPT] = p->fixed_kept[best] / minutes;
	finding->fixed[FOUND] = (double)p->fixed_cold[best] / (double)p->oracle;
	finding->back = (double)p->best.back / (double)p->best.count;
	finding->random_back = (double)p->random.back / (double)p->random.count;
}

static int find(enum guest_trace_habit habit, struct finding *finding)
{
	struct policy *p = calloc(1, sizeof(*p));
	int result;

	if (!p)
		return -ENOMEM;
	result = guest_trace_make(&p->trace, habit);
	if (result == 0)
		result = live(p);
	if (result == 0)
		conclude(p, finding);
	vmem_threshold_free(p->threshold);
	vmem_track_free(p->track);
	guest_trace_free(&p->trace);
	free(p);
	return result;
}

static int measure_ours(void *context, double *values)
{
	const struct finding *findings = context;

	for (uint32_t i = 0; i < TRACE_HABITS * PER_TRACE; i++)
		values[i] = findings[i / PER_TRACE].ours[i % PER_TRACE];
	return 0;
}

static int measure_fixed(void *context, double *values)
{
	const struct finding *findings = context;

	for (uint32_t i = 0; i < TRACE_HABITS * PER_TRACE; i++)
		values[i] = findings[i / PER_TRACE].fixed[i % PER_TRACE];
	return 0;
}

static int measure_back(void *context, double *values)
{
	const struct finding *findings = context;

	for (uint32_t i = 0; i < TRACE_HABITS; i++)
		values[i] = findings[i].back;
	return 0;
}

static int measure_random(void *context, double *values)
{
	const struct finding *findings = context;

	for (uint32_t i = 0; i < TRACE_HABITS; i++)
		values[i] = findings[i].random_back;
	return 0;
}

static int measure_limit(void *context, double *values)
{
	(void)context;
	for (uint32_t i = 0; i < TRACE_HABITS * PER_TRACE; i++)
		values[i] = 1;
	return 0;
}

static int compare_policy(struct bench *bench, struct finding *findings)
{
	static const struct bench_metric metrics[TRACE_HABITS * PER_TRACE] = {
		{ "objective_kept_share", "share", "zipf", 1 },
		{ "cold_found_share", "share", "zipf", 1 },
		{ "objective_kept_share", "share", "heavy-tail", 1 },
		{ "cold_found_share", "share", "heavy-tail", 1 },
		{ "objective_kept_share", "share", "phases", 1 },
		{ "cold_found_share", "share", "phases", 1 },
		{ "objective_kept_share", "share", "scan", 1 },
		{ "cold_found_share", "share", "scan", 1 },
	};
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = TRACE_HABITS * PER_TRACE,
		.rounds = 1, /* the same each time */
		.context = findings,
		.ours = { "libvmem", measure_ours, NULL },
		.peer = { "fixed-age", measure_fixed, NULL },
		.limit = { "oracle", measure_limit, NULL },
	};

	return bench_compare(bench, &comparison);
}

static int compare_victims(struct bench *bench, struct finding *findings)
{
	static const struct bench_metric metrics[TRACE_HABITS] = {
		{ "victims_back_share", "share", "zipf", 0 },
		{ "victims_back_share", "share", "heavy-tail", 0 },
		{ "victims_back_share", "share", "phases", 0 },
		{ "victims_back_share", "share", "scan", 0 },
	};
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = TRACE_HABITS,
		.rounds = 1, /* the same each time */
		.context = findings,
		.ours = { "libvmem", measure_back, NULL },
		.peer = { "random", measure_random, NULL },
	};

	return bench_compare(bench, &comparison);
}

int bench_track_policy(struct bench *bench)
{
	struct finding findings[TRACE_HABITS];
	int result = 0;

	for (uint32_t habit = 0; habit < TRACE_HABITS && result == 0; habit++)
		result = find((enum guest_trace_habit)habit, &findings[habit]);
	if (result == 0)
		result = compare_policy(bench, findings);
	return result ? result : compare_victims(bench, findings);
}
