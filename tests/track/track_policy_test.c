/* SPDX-License-Identifier: BSD-2-Clause */
/* Guests of known habits, minute by minute, with the tracker and the controller as a host would use them.
 * Promotions stay within the objective in 95 % of the minutes; of the cold memory that an oracle would
 * find (who knows all accesses to come, and takes the lowest threshold that keeps the objective in the
 * minute) at least 70 % is found. And victims are better than pages at random. */
#include <stdlib.h>
#include <string.h>
#include <vmem/threshold.h>
#include "track/track_tools.h"

#define MINUTE UINT64_C(60000000000)

enum {
	PAGES = 1 << 16,
	WORDS = PAGES / 64,
	MINUTES = 400,
	LEARN = 60, /* minutes before it counts: the percentile needs some */
	OBJECTIVE = 2000,
};

struct guest {
	uint64_t accessed[WORDS];
	uint64_t random;
	uint32_t minute;
};

static struct vmemt_fail_alloc memory;

static uint32_t below(struct guest *g, uint32_t limit)
{
	return (uint32_t)((vmemt_rand(&g->random) >> 32) * limit >> 32);
}

static void touch(struct guest *g, uint32_t page)
{
	page %= PAGES;
	g->accessed[page / 64] |= UINT64_C(1) << page % 64;
}

/* Of the even pages, number n is chosen with a chance of about 1 / n, wherever it is; the odd ones are hardly
 * ever used. */
static void zipf(struct guest *g)
{
	for (uint32_t i = 0; i < 20000; i++) {
		uint32_t scale = below(g, 16), rank = (1u << scale) + below(g, 1u << scale) - 1;

		touch(g, rank * 40503u * 2);
	}
	if (g->minute % 4 == 0)
		touch(g, below(g, PAGES) | 1);
}

static void hot_set(struct guest *g, uint32_t first, uint32_t pages)
{
	for (uint32_t i = 0; i < pages * 6; i++)
		touch(g, first + below(g, pages));
}

/* The set that is in use moves on to other pages every 100 minutes. */
static void phases(struct guest *g)
{
	hot_set(g, g->minute / 100 * 14000, 12000);
	if (g->minute % 5 == 0)
		touch(g, below(g, PAGES));
}

/* A set that is in use, a scan that comes round every 40 minutes, too fast to be cold in between, and
 * pages that are hardly ever used. */
static void scan(struct guest *g)
{
	hot_set(g, 0, 16000);
	for (uint32_t i = 0; i < 100; i++)
		touch(g, 16000 + (g->minute * 100 + i) % 4000);
	if (g->minute % 4 == 0)
		touch(g, below(g, PAGES));
}

struct result {
	uint32_t minutes, kept; /* within the objective */
	uint64_t cold, oracle;  /* pages, of all minutes */
};

static uint64_t sum_from(const uint64_t *pages, uint32_t age)
{
	uint64_t sum = 0;

	for (; age < VMEM_TRACK_AGES; age++)
		sum += pages[age];
	return sum;
}

/* One minute that has been lived through with threshold @age. */
static void judge(struct result *r, uint32_t age, const struct vmem_track_histogram *ages,
		  const uint64_t promotions[VMEM_TRACK_AGES], uint64_t working_set)
{
	uint64_t most = working_set * OBJECTIVE / 1000000;
	uint32_t best = VMEM_TRACK_AGES;

	while (best > 1 && sum_from(promotions, best - 1) <= most)
		best--;
	r->minutes++;
	r->kept += sum_from(promotions, age) <= most;
	r->cold += sum_from(ages->pages, age);
	r->oracle += sum_from(ages->pages, best);
}

static struct result live(void (*minute)(struct guest *g), uint64_t seed)
{
	static struct guest g;
	struct vmem_threshold_opts opts = { .size = sizeof(opts), .objective_ppm = OBJECTIVE };
	struct vmem_track_histogram ages = { .size = sizeof(ages) }, before = ages, after = ages;
	struct result r = { 0 };
	vmem_track *t = vmemt_track_full(&memory, PAGES, vmem_cpu_detect());
	vmem_threshold *th;

	opts.allocator = &memory.allocator;
	g.random = seed;
	cr_assert_eq(vmem_threshold_new(&th, &opts, 0), 0);
	cr_assert_eq(vmem_threshold_update(
			     th, &(struct vmem_track_histogram){ .size = sizeof(ages) }, 0, 0),
		     0);
	for (g.minute = 0; g.minute < MINUTES; g.minute++) {
		uint64_t promotions[VMEM_TRACK_AGES], working_set;
		uint32_t age = vmem_threshold_age(th);

		/* Two periods a minute. What is cold is cold at the start of a period. */
		cr_assert_eq(vmem_track_get_promotions(t, &before), 0);
		cr_assert_eq(vmem_track_get_ages(t, &ages), 0);
		for (int half = 0; half < 2; half++) {
			memset(g.accessed, 0, sizeof(g.accessed));
			minute(&g);
			vmem_track_period(t);
			cr_assert_eq(vmem_track_feed_bitmap(t, 0, PAGES, g.accessed, NULL), 0);
		}
		cr_assert_eq(vmem_track_get_promotions(t, &after), 0);
		for (uint32_t i = 0; i < VMEM_TRACK_AGES; i++)
			promotions[i] = after.pages[i] - before.pages[i];
		working_set = vmem_track_working_set(t, 4);
		if (g.minute >= LEARN)
			judge(&r, age, &ages, promotions, working_set);
		cr_assert_eq(
			vmem_threshold_update(th, &after, working_set, (g.minute + 1) * MINUTE), 1);
	}
	vmem_threshold_free(th);
	vmemt_track_done(t, &memory);
	return r;
}

static void check(const char *name, void (*minute)(struct guest *g))
{
	struct result r = live(minute, vmemt_seed(name));

	fprintf(stderr,
		"%s: objective kept in %.1f %% of the minutes, %.1f %% of the cold memory found\n",
		name, 100.0 * r.kept / r.minutes, 100.0 * (double)r.cold / (double)r.oracle);
	cr_assert_geq(r.kept * 100, r.minutes * 95);
	cr_assert_gt(r.oracle,
		     (uint64_t)r.minutes * PAGES / 20); /* there was something to be found */
	cr_assert_geq(r.cold * 100, r.oracle * 70);
}

Test(track_policy, zipf)
{
	check("zipf", zipf);
}

Test(track_policy, phases)
{
	check("phases", phases);
}

Test(track_policy, scan)
{
	check("scan", scan);
}

/* A quarter of all pages must go: those that the tracker names come back less often than pages at random,
 * at most half as often. */
Test(track_policy, emergency_beats_chance)
{
	static struct guest g;
	static struct vmem_track_run runs[PAGES];
	struct vmem_track_want want = {
		.size = sizeof(want),
		.flags = VMEM_TRACK_EMERGENCY,
		.pages = PAGES / 4,
		.min_age = 200,
	};
	struct vmem_track_cursor cursor = { 0 };
	vmem_track *t = vmemt_track_full(&memory, PAGES, vmem_cpu_detect());
	uint64_t back = 0, chance = 0, taken = 0;
	size_t count;
	int again;

	g.random = vmemt_seed("emergency");
	for (int i = 0; i < 30; i++) {
		memset(g.accessed, 0, sizeof(g.accessed));
		zipf(&g);
		vmem_track_period(t);
		cr_assert_eq(vmem_track_feed_bitmap(t, 0, PAGES, g.accessed, NULL), 0);
	}
	do {
		again = vmem_track_victims(t, &want, &cursor, runs, PAGES, &count);
		for (size_t i = 0; i < count; i++) {
			cr_assert_eq(vmem_track_take(t, runs[i].first, runs[i].count, NULL), 0);
			taken += runs[i].count;
		}
	} while (again == 1);
	cr_assert_eq(taken, PAGES / 4);
	memset(g.accessed, 0, sizeof(g.accessed));
	zipf(&g);
	for (uint32_t page = 0; page < PAGES; page++)
		if (g.accessed[page / 64] >> page % 64 & 1) {
			back += (vmemt_state(t, page) & VMEM_TRACK_AWAY) != 0;
			chance++;
		}
	chance /= 4; /* of a quarter of all pages, a quarter of those accessed */
	fprintf(stderr, "emergency: %u came back, by chance it had been %u\n", (unsigned)back,
		(unsigned)chance);
	cr_assert_gt(chance, 500);
	cr_assert_lt(back * 2, chance);
	vmemt_track_done(t, &memory);
}
