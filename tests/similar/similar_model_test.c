/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations beside a map that forgets nothing. What the index may miss, and name wrongly, is
 * computed, not guessed. */
#include <math.h>
#include <string.h>
#include "similar/similar_tools.h"

enum { FEATURES = 1 << 18, STEPS = 240000 };

static struct vmemt_fail_alloc memory;
static uint32_t latest[FEATURES]; /* the model: feature to id + 1; 0: none */
static uint64_t state;

/* Feature number @n of the model, as a feature. An odd factor: no two are the same. */
static uint32_t feature_of(uint32_t n)
{
	uint32_t feature = (n + 1) * 2654435761u;

	return feature ^ feature >> 15;
}

/* Any four features, all different; few of them are used often. */
static void choose(uint32_t numbers[4], struct vmem_similar_sketch *sketch)
{
	for (int i = 0; i < 4; i++) {
		uint64_t r = vmemt_rand(&state);

		numbers[i] = (uint32_t)(r >> 32) % (r & 3 ? FEATURES : FEATURES / 64);
		numbers[i] = (numbers[i] & ~UINT32_C(3)) | (uint32_t)i;
		sketch->feature[i] = feature_of(numbers[i]);
	}
	for (uint32_t i = 4; i < VMEM_SIMILAR_FEATURES; i++)
		sketch->feature[i] = 0;
}

/* Of entries in lines of 10 whose entries are `mean` on average, by chance (Poisson): the share for which
 * there is no room. */
static double lost_share(double mean)
{
	double p = exp(-mean), lost = 0;

	for (int n = 1; n < 60; n++) {
		p *= mean / n;
		if (n > 10)
			lost += (n - 10) * p;
	}
	return lost / mean;
}

/* How often a feature that was never added names something, by what is in the table: entries are taken
 * for it with 2^-(bits that are known). */
static double false_share(const vmem_similar *s)
{
	double sum = 0;

	for (uint32_t line = 0; line < s->lines; line++)
		for (uint32_t i = 0; i < vmemi_similar_line_at(s, line)->used; i++) {
			uint32_t tag = vmemi_similar_line_at(s, line)->tag[i];

			sum += ldexp(1, __builtin_clz(tag) - 31);
		}
	return sum / s->lines;
}

static void check_false(const vmem_similar *s)
{
	enum { TRIES = 200000 };
	double want = false_share(s) * TRIES;
	unsigned named = 0;

	for (uint32_t n = 0; n < TRIES; n++) {
		struct vmem_similar_sketch one = { { feature_of(FEATURES + n) } };
		uint32_t ids[VMEM_SIMILAR_CANDIDATES];

		named += vmem_similar_find(s, &one, ids);
	}
	cr_assert_leq(named, want + 6 * sqrt(want) + 1, "%u, not %.1f", named, want);
	cr_assert_lt(want / TRIES, 0.005); /* of one feature */
}

/* All features of the model by themselves. Returns how many the index has. */
static uint64_t check_all(const vmem_similar *s, uint64_t *ret_there, uint64_t *ret_wrong)
{
	uint32_t ids[VMEM_SIMILAR_CANDIDATES];
	uint64_t found = 0;

	*ret_there = *ret_wrong = 0;
	for (uint32_t n = 0; n < FEATURES; n++) {
		struct vmem_similar_sketch one = { { feature_of(n) } };
		uint32_t named = vmem_similar_find(s, &one, ids);

		*ret_there += latest[n] != 0;
		found += latest[n] && named && ids[0] + 1 == latest[n];
		*ret_wrong += named && ids[0] + 1 != latest[n];
	}
	return found;
}

Test(similar_model, random)
{
	vmem_similar *s = vmemt_similar_new(&memory, 0);
	uint64_t there, wrong, found, dropped = 0;

	state = vmemt_seed("similar_model");
	memset(latest, 0, sizeof(latest));
	for (uint32_t step = 0; step < STEPS; step++) {
		struct vmem_similar_sketch sketch;
		uint32_t numbers[4], id;

		choose(numbers, &sketch);
		/* Mostly added, then mostly forgotten, then added again. */
		if (vmemt_rand(&state) % 8 < (step / (STEPS / 3) % 2 ? 1u : 7u)) {
			vmem_similar_add(s, &sketch, step);
			for (int i = 0; i < 4; i++) /* are kept */
				latest[numbers[i]] = step + 1;
		} else {
			id = latest[numbers[vmemt_rand(&state) % 4]];
			if (!id)
				continue;
			vmem_similar_forget(s, &sketch, id - 1);
			for (int i = 0; i < 4; i++) {
				dropped += latest[numbers[i]] == id;
				if (latest[numbers[i]] == id)
					latest[numbers[i]] = 0;
			}
		}
		if (step % (STEPS / 12) == 0)
			cr_assert_eq(vmemi_similar_check(s), 0);
	}
	cr_assert_gt(dropped, 1000); /* else the run has shown little */
	cr_assert_gt(vmemt_similar_stats(s).crowded, 0);

	/* A line has at most 9 entries on average, 9.5 while lines are being split. What was crowded out
	 * before the last doubling, and the one before, was half as much and a quarter. What is not
	 * there was crowded out, or an entry of another feature was taken for it. */
	found = check_all(s, &there, &wrong);
	cr_assert_gt((double)found, (double)there * (1 - 2 * lost_share(9.5)) * 0.99,
		     "%llu of %llu", (unsigned long long)found, (unsigned long long)there);
	cr_assert_geq(found + vmemt_similar_stats(s).crowded + there / 100, there);
	cr_assert_lt(wrong, FEATURES / 100);
	check_false(s);
	vmem_similar_free(s);
	cr_assert_eq(memory.live_bytes, 0);
}

/* Features that are never used twice, and never forgotten: what is crowded out is what has to be. */
Test(similar_model, growing)
{
	vmem_similar *s = vmemt_similar_new(&memory, 0);
	double lost = 0;

	state = vmemt_seed("similar_model_growing");
	for (uint32_t n = 0; n < FEATURES / 2; n++) {
		struct vmem_similar_sketch sketch = { { 0 } };

		for (uint32_t i = 0; i < 2; i++)
			sketch.feature[i] = (uint32_t)(vmemt_rand(&state) % UINT32_MAX) + 1;
		vmem_similar_add(s, &sketch, n);
	}
	/* What was lost until each doubling, and would be until the next. */
	for (uint32_t lines = s->lines; lines; lines /= 2)
		lost += lost_share(9.5) * 9.5 * lines;
	cr_assert_lt((double)vmemt_similar_stats(s).crowded, lost + 6 * sqrt(lost), "%.0f", lost);
	cr_assert_gt((double)vmemt_similar_stats(s).crowded,
		     lost / 4); /* the bound is worth something */
	cr_assert_eq(vmemi_similar_check(s), 0);
	check_false(s);
	vmem_similar_free(s);
}
