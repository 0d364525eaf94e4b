/* SPDX-License-Identifier: BSD-2-Clause */
/* The controller of the cold threshold on recorded traces (guest_traces.h), replayed minute by minute.
 * ours   vmem_threshold as it comes: of the minutes, how many kept promotions within the objective, 0.2 % of
 *        the working set of two minutes; and how much was cold
 * limit  an oracle that knows all accesses to come. It may take a page as soon as it is accessed for the
 *        last time, and choose those that it takes one by one: in each minute as many as the objective
 *        allows come back, and those are the ones that were away for longest; and all pages in those 5 %
 *        of the minutes that give most. No policy that keeps the objective in 95 % finds more.
 * Cold memory is counted at the end of each minute. The first hour does not count. */
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

enum { KEPT, FOUND, PER_TRACE };

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
	}
	return 0;
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
	choose(p, allowed);
	return 0;
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

static int measure_ours(void *context, double *values)
{
	int result = 0;

	(void)context;
	for (uint32_t habit = 0; habit < TRACE_HABITS && result == 0; habit++) {
		struct policy *p = calloc(1, sizeof(*p));

		if (!p)
			return -ENOMEM;
		result = guest_trace_make(&p->trace, (enum guest_trace_habit)habit);
		if (result == 0)
			result = live(p);
		values[habit * PER_TRACE + KEPT] = (double)p->kept / (TRACE_MINUTES - LEARN);
		values[habit * PER_TRACE + FOUND] = (double)p->cold / (double)p->oracle;
		vmem_threshold_free(p->threshold);
		vmem_track_free(p->track);
		guest_trace_free(&p->trace);
		free(p);
	}
	return result;
}

static int measure_limit(void *context, double *values)
{
	(void)context;
	for (uint32_t i = 0; i < TRACE_HABITS * PER_TRACE; i++)
		values[i] = 1;
	return 0;
}

int bench_track_policy(struct bench *bench)
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
		.ours = { "libvmem", measure_ours, NULL },
		.limit = { "oracle", measure_limit, NULL },
	};

	return bench_compare(bench, &comparison);
}
