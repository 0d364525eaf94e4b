/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations beside a naive model: an age and a state a page, and all counted anew. */
#include <string.h>
#include "track/track_tools.h"

enum { PAGES = 700, ROUNDS = 20, STEPS = 100000, RUNS = 9 };

struct model {
	uint32_t pages;
	struct model_page {
		uint32_t age;
		uint8_t state;
	} page[PAGES];
	uint64_t promotions[VMEM_TRACK_AGES], taken, returned, accesses;
};

static struct vmemt_fail_alloc memory;
static struct model m;
static uint64_t state;
static const uint32_t cpus[] = { 0, VMEM_CPU_SSE2, VMEM_CPU_AVX2, VMEM_CPU_AVX512,
				 VMEM_CPU_AVX512_VBMI2 };

static uint32_t below(uint32_t limit)
{
	return (uint32_t)(vmemt_rand(&state) >> 32) % limit;
}

static void model_touch(uint32_t page, int written)
{
	struct model_page *p = &m.page[page];

	if (written)
		p->state |= VMEM_TRACK_WRITTEN;
	if (p->state & VMEM_TRACK_ABSENT) {
		m.accesses++;
	} else {
		m.returned += (p->state & VMEM_TRACK_AWAY) != 0;
		m.accesses += p->age || p->state & VMEM_TRACK_AWAY;
		if (p->age)
			m.promotions[p->age]++;
	}
	p->state &= (uint8_t) ~(VMEM_TRACK_ABSENT | VMEM_TRACK_AWAY);
	p->age = 0;
}

static void model_mark(uint32_t page, uint32_t clear, uint32_t set)
{
	struct model_page *p = &m.page[page];
	uint8_t after = (uint8_t)((p->state & ~clear) | set);

	if (p->state & ~after & VMEM_TRACK_ABSENT)
		p->age = 0;
	p->state = after;
}

/* --- Operations --- */

static void feed_bitmap(vmem_track *t)
{
	uint64_t accessed[PAGES / 64 + 1], written[PAGES / 64 + 1];
	uint32_t first = below(m.pages / 64 + 1) * 64, count = below(m.pages - first + 1);
	uint32_t dense = below(4), which = below(4);

	for (uint32_t i = 0; i < PAGES / 64 + 1; i++) {
		accessed[i] = vmemt_rand(&state);
		written[i] = vmemt_rand(&state) & vmemt_rand(&state);
		for (uint32_t n = 0; n < dense; n++)
			accessed[i] &= vmemt_rand(&state) & vmemt_rand(&state);
		for (uint32_t n = 0; n < dense; n++)
			written[i] &= vmemt_rand(&state) & vmemt_rand(&state);
	}
	cr_assert_eq(vmem_track_feed_bitmap(t, first, count, which == 1 ? NULL : accessed,
					    which == 2 ? NULL : written),
		     0);
	for (uint32_t i = 0; i < count; i++) {
		int w = which != 2 && written[i / 64] >> i % 64 & 1;

		if (w || (which != 1 && accessed[i / 64] >> i % 64 & 1))
			model_touch(first + i, w);
	}
}

static void feed_list(vmem_track *t)
{
	uint64_t pages[8];
	uint32_t count = below(9), written = below(2);

	for (uint32_t i = 0; i < count; i++)
		pages[i] = below(m.pages);
	cr_assert_eq(vmem_track_feed_list(t, pages, count, written), 0);
	for (uint32_t i = 0; i < count; i++)
		model_touch((uint32_t)pages[i], (int)written);
}

static void mark(vmem_track *t)
{
	uint32_t first = below(m.pages), count = below(3) ? below(4) : below(m.pages - first + 1);
	uint32_t clear = below(256) & below(256), set = below(256) & below(256) & below(256);

	if (count > m.pages - first)
		count = m.pages - first;
	cr_assert_eq(vmem_track_mark(t, first, count, clear, set), 0);
	for (uint32_t i = 0; i < count; i++)
		model_mark(first + i, clear, set);
}

static void take_and_refault(vmem_track *t)
{
	uint32_t first = below(m.pages), count = below(m.pages - first + 1) % 20, shadow, page;
	uint64_t before = m.taken, distance;

	cr_assert_eq(vmem_track_take(t, first, count, &shadow), 0);
	for (uint32_t i = 0; i < count; i++) {
		struct model_page *p = &m.page[first + i];

		if (!(p->state & (VMEM_TRACK_ABSENT | VMEM_TRACK_AWAY))) {
			p->state |= VMEM_TRACK_AWAY;
			m.taken++;
		}
	}
	page = below(m.pages);
	cr_assert_eq(vmem_track_refault(t, page, shadow, &distance), 0);
	cr_assert_eq(distance, m.taken - before);
	model_touch(page, 0);
}

static void period(vmem_track *t)
{
	vmem_track_period(t);
	for (uint32_t i = 0; i < m.pages; i++)
		m.page[i].age += m.page[i].age < VMEM_TRACK_AGES - 1;
}

/* --- Victims --- */

static uint8_t seen[PAGES]; /* pages that this search has named */

/* The age of a run for @want: of its youngest page; -1 if it cannot be taken. */
static int run_age(uint32_t first, const struct vmem_track_want *want, int *ret_clean)
{
	uint32_t run = want->run_pages ? want->run_pages : 1, age = VMEM_TRACK_AGES;

	*ret_clean = 1;
	for (uint32_t page = first; page < first + run; page++) {
		if (page >= m.pages || m.page[page].state & (want->skip | VMEMI_TRACK_SPECIAL))
			return -1;
		if (m.page[page].age < age)
			age = m.page[page].age;
		*ret_clean &= !(m.page[page].state & VMEM_TRACK_WRITTEN);
	}
	return (int)age;
}

/* A named run can be taken, and was not named before. @return its age */
static int check_named(uint32_t first, const struct vmem_track_want *want)
{
	uint32_t run = want->run_pages ? want->run_pages : 1;
	int clean, age = run_age(first, want, &clean);

	cr_assert_eq(first % run, 0);
	cr_assert_geq(age, want->flags ? 0 : (int)want->min_age);
	for (uint32_t page = first; page < first + run; page++) {
		cr_assert_eq(seen[page], 0);
		seen[page] = 1;
	}
	return age;
}

/* What was named, beside what was not: none of those is better. */
static void check_search(const struct vmem_track_want *want, uint64_t found, int youngest)
{
	uint32_t run = want->run_pages ? want->run_pages : 1,
		 least = want->flags ? 0 : want->min_age;
	uint64_t older = 0;
	int clean, age;

	for (uint32_t first = 0; first < m.pages; first += run) {
		age = run_age(first, want, &clean);
		if (age < (int)least || seen[first])
			continue;
		cr_assert_geq(found, want->pages, "page %u of age %d is left", first, age);
		/* In an emergency: only after all that is cold. */
		cr_assert(youngest >= (int)want->min_age || age < (int)want->min_age);
		older += age > youngest ? run : 0;
	}
	/* Steps are as wide as was wanted: singles are nearly the oldest. */
	if (run == 1 && !want->skip && found)
		cr_assert_leq(older, want->pages / 8,
			      "%u older than %d left, wanted %u, threshold %u", (unsigned)older,
			      youngest, (unsigned)want->pages, want->min_age);
}

/* Clean ones before the others, where all are of one age. */
static void check_clean_first(const struct vmem_track_want *want, int youngest)
{
	uint32_t run = want->run_pages ? want->run_pages : 1;
	int written_named = 0, clean_left = 0, clean;

	for (uint32_t first = 0; first < m.pages; first += run)
		if (run_age(first, want, &clean) == youngest) {
			written_named |= !clean && seen[first];
			clean_left |= clean && !seen[first];
		}
	cr_assert(!(written_named && clean_left));
}

static void search(vmem_track *t, struct vmem_track_cursor *cursor)
{
	struct vmem_track_want want = {
		.size = sizeof(want),
		.flags = below(2) * VMEM_TRACK_EMERGENCY,
		.pages = 1 + below(below(2) ? PAGES : 30),
		.scan_pages = below(2) ? 0 : below(PAGES),
		.min_age = below(4) ? below(20) : below(VMEM_TRACK_AGES),
		.run_pages = below(2) ? 0 : 1u << below(7),
		.skip = below(4) ? 0 : below(256),
	};
	struct vmem_track_run runs[RUNS];
	int again = 1, youngest = VMEM_TRACK_AGES;
	uint64_t found = 0;
	uint32_t run = want.run_pages ? want.run_pages : 1;

	memset(seen, 0, sizeof(seen));
	for (uint32_t calls = 0; again; calls++) {
		size_t count = RUNS + 1;

		again = vmem_track_victims(t, &want, cursor, runs, 1 + below(RUNS), &count);
		cr_assert(again == 0 || again == 1);
		cr_assert_leq(count, RUNS);
		cr_assert_lt(calls, 20000);
		for (size_t i = 0; i < count; i++) {
			cr_assert_eq(runs[i].count % run, 0);
			for (uint64_t at = 0; at < runs[i].count; at += run) {
				int age = check_named((uint32_t)(runs[i].first + at), &want);

				youngest = age < youngest ? age : youngest;
				found += run;
			}
		}
	}
	cr_assert_lt(found, want.pages + run);
	check_search(&want, found, youngest);
	check_clean_first(&want, youngest);
}

/* --- All of it --- */

static void compare(const vmem_track *t)
{
	struct vmem_track_histogram ages = { .size = sizeof(ages) }, want = ages, got = ages;
	struct vmem_track_stats stats = vmemt_track_stats(t);
	uint64_t present = 0, away = 0, window = below(VMEM_TRACK_AGES + 10), within = 0;

	memset(want.pages, 0, sizeof(want.pages));
	for (uint32_t page = 0; page < m.pages; page++) {
		struct model_page *p = &m.page[page];

		cr_assert_eq(vmemt_state(t, page), p->state);
		if (p->state & VMEM_TRACK_ABSENT)
			continue;
		cr_assert_eq(vmemt_age(t, page), p->age);
		want.pages[p->age]++;
		present++;
		away += (p->state & VMEM_TRACK_AWAY) != 0;
		within += p->age < window;
	}
	cr_assert_eq(vmem_track_get_ages(t, &got), 0);
	cr_assert_eq(memcmp(got.pages, want.pages, sizeof(got.pages)), 0);
	cr_assert_eq(vmem_track_get_promotions(t, &got), 0);
	cr_assert_eq(memcmp(got.pages, m.promotions, sizeof(got.pages)), 0);
	cr_assert_eq(vmem_track_working_set(t, (uint32_t)window), within);
	cr_assert_eq(stats.present, present);
	cr_assert_eq(stats.away, away);
	cr_assert_eq(stats.accesses, m.accesses);
	cr_assert_eq(stats.taken, m.taken);
	cr_assert_eq(stats.returned, m.returned);
	cr_assert_eq(stats.bytes, (uint64_t)memory.live_bytes);
}

static void step(vmem_track *t, struct vmem_track_cursor *cursor, uint32_t pace)
{
	uint32_t op = below(100);

	if (op < pace)
		period(t);
	else if (op < 60)
		feed_list(t);
	else if (op < 62)
		feed_bitmap(t);
	else if (op < 75)
		mark(t);
	else if (op < 98)
		take_and_refault(t);
	else
		search(t, cursor);
}

Test(track_model, random)
{
	uint32_t steps = STEPS, detected = vmem_cpu_detect();

	state = vmemt_seed("track_model");
	for (uint32_t round = 0; round < ROUNDS; round++) {
		uint32_t cpu = cpus[round % 5] & detected, pace = round % 3 ? 8 : 55;
		struct vmem_track_cursor cursor = { 0 };
		vmem_track *t;
		const char *wrong;

		memset(&m, 0, sizeof(m));
		m.pages = 1 + below(PAGES);
		for (uint32_t i = 0; i < m.pages; i++)
			m.page[i].state = VMEM_TRACK_ABSENT;
		t = vmemt_track_new(&memory, m.pages, cpu);
		for (uint32_t i = 0; i < steps; i++) {
			step(t, &cursor, pace);
			if (i % 32 == 0)
				compare(t);
			if (i % 4096 == 0) {
				wrong = vmemi_track_check(t);
				cr_assert(!wrong, "%s", wrong ? wrong : "");
			}
		}
		vmemt_track_done(t, &memory);
	}
}
