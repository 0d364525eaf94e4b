/* SPDX-License-Identifier: BSD-2-Clause */
/* The builds of the passes: all that this processor can run give what a loop over bytes gives, for random
 * contents, also those that a tracker never has. */
#include <string.h>
#include "track/track_tools.h"

enum { WORDS = 73, /* more than a group */ PAGES = WORDS * 64, ROUNDS = 1000 };

static const struct {
	uint32_t cpu;
	const struct vmemi_track_scan *scan;
} builds[] = {
	{ 0, &vmemi_track_scan_plain },
#if defined(__x86_64__)
	{ VMEM_CPU_SSE2, &vmemi_track_scan_sse2 },
	{ VMEM_CPU_AVX2, &vmemi_track_scan_avx2 },
	{ VMEM_CPU_AVX512, &vmemi_track_scan_avx512 },
	{ VMEM_CPU_AVX512_VBMI2, &vmemi_track_scan_vbmi2 },
#endif
};

static struct vmemt_fail_alloc memory;
static uint64_t state;

/* Bytes near each other, so that borders are met. */
static void fill(uint8_t *bytes, size_t count)
{
	uint8_t base = (uint8_t)vmemt_rand(&state), spread = (uint8_t)vmemt_rand(&state);

	if (vmemt_rand(&state) & 1)
		spread &= 3;
	for (size_t i = 0; i < count; i++)
		bytes[i] = (uint8_t)(base + (vmemt_rand(&state) >> 32 & spread));
}

/* Where words are found by what is known of them, all that have victims must be there, and no other. */
static void check_match(vmem_track *t, const struct vmemi_track_scan *scan)
{
	struct vmemi_track_match wanted = {
		.low = (uint8_t)(vmemt_rand(&state) % VMEM_TRACK_AGES),
		.high = (uint8_t)(vmemt_rand(&state) % 3 ? vmemt_rand(&state) % VMEM_TRACK_AGES
							 : 0),
		.skip = (uint8_t)(VMEMI_TRACK_SPECIAL | (vmemt_rand(&state) & vmemt_rand(&state))),
	};
	struct vmemi_track_matches got;
	uint32_t first = (uint32_t)(vmemt_rand(&state) % WORDS);
	uint32_t words = (uint32_t)(vmemt_rand(&state) % (WORDS - first)) + 1;
	uint32_t count, at = 0;

	if (words > VMEMI_TRACK_GROUP - first % VMEMI_TRACK_GROUP)
		words = VMEMI_TRACK_GROUP - first % VMEMI_TRACK_GROUP;
	count = scan->match(t, first, words, &wanted, &got);
	for (uint32_t word = first; word < first + words; word++) {
		uint64_t able = 0, older = 0, clean = 0;

		for (uint32_t bit = 0; bit < 64; bit++) {
			uint8_t age = (uint8_t)(vmemi_track_now(t) - t->stamps[word * 64 + bit]);
			uint8_t page = t->states[word * 64 + bit];

			able |= (uint64_t)(age >= wanted.low && !(page & wanted.skip)) << bit;
			older |= (uint64_t)(wanted.high && age >= wanted.high) << bit;
			clean |= (uint64_t) !(page & VMEM_TRACK_WRITTEN) << bit;
		}
		if (!able)
			continue;
		cr_assert(at < count && first + got.at[at] == word);
		cr_assert_eq(got.words[at].able, able);
		cr_assert_eq(got.words[at].older, older);
		cr_assert_eq(got.words[at].clean, clean);
		at++;
	}
	cr_assert_eq(at, count);
}

/* After that, what is known of words is exact. */
static void check_settle(vmem_track *t, const struct vmemi_track_scan *scan)
{
	uint8_t before[PAGES], now = vmemi_track_now(t);

	memcpy(before, t->stamps, PAGES);
	scan->settle(t, 0, WORDS);
	for (uint32_t word = 0; word < WORDS; word++) {
		uint8_t oldest = 0, any = 0, all = 0xff;

		for (uint32_t page = word * 64; page < word * 64 + 64; page++) {
			uint8_t age = (uint8_t)(now - before[page]);

			if (age > VMEMI_TRACK_OLDEST)
				age = VMEMI_TRACK_OLDEST;
			cr_assert_eq((uint8_t)(now - t->stamps[page]), age);
			any |= t->states[page];
			all &= t->states[page];
			if (!(t->states[page] & VMEMI_TRACK_SPECIAL) && age > oldest)
				oldest = age;
		}
		cr_assert_eq((uint8_t)(now - t->oldest[word]), oldest);
		cr_assert_eq(vmemi_track_kind(t, word), any & VMEMI_TRACK_SPECIAL ? VMEMI_TRACK_ANY
							: any > VMEM_TRACK_WRITTEN || any != all
								? VMEMI_TRACK_MIXED
								: any);
	}
}

Test(track_scan, match_and_settle)
{
	static const uint8_t masks[] = { 0, VMEM_TRACK_WRITTEN, (uint8_t)~VMEMI_TRACK_SPECIAL,
					 0xf0 };
	uint32_t detected = vmem_cpu_detect();

	state = vmemt_seed("track_scan");
	for (uint32_t round = 0; round < ROUNDS; round++) {
		vmem_track *t = vmemt_track_new(&memory, PAGES, 0);
		uint64_t kinds = vmemt_rand(&state);

		for (size_t b = 0; b < sizeof(builds) / sizeof(builds[0]); b++) {
			if (builds[b].cpu & ~detected)
				continue;
			t->periods = vmemt_rand(&state);
			fill(t->stamps, PAGES);
			fill(t->states, PAGES);
			for (uint32_t i = 0; i < PAGES; i++)
				if (kinds >> i / 64 % 16 & 1)
					t->states[i] &= masks[round % 4];
			check_settle(t, builds[b].scan);
			check_match(t, builds[b].scan);
		}
		vmem_track_free(t);
	}
}

/* The same feeds into a tracker of each build. */
Test(track_scan, touch)
{
	enum { BUILDS = sizeof(builds) / sizeof(builds[0]) };
	struct vmemt_fail_alloc allocators[BUILDS];
	vmem_track *t[BUILDS];
	uint32_t count = 0, detected = vmem_cpu_detect();

	state = vmemt_seed("track_scan_touch");
	for (uint32_t b = 0; b < BUILDS; b++) {
		if (builds[b].cpu & ~detected)
			continue;
		t[count] = vmemt_track_new(&allocators[count], PAGES, builds[b].cpu);
		cr_assert_eq(t[count]->scan, builds[b].scan);
		count++;
	}
	cr_assert_geq(count, 1);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		uint64_t accessed[WORDS], written[WORDS], page = vmemt_rand(&state) % PAGES;
		uint64_t clear = vmemt_rand(&state) & 0xff, set = vmemt_rand(&state) & clear & 0xff;

		for (uint32_t i = 0; i < WORDS; i++) {
			accessed[i] = vmemt_rand(&state) & vmemt_rand(&state) & vmemt_rand(&state);
			written[i] = accessed[i] & vmemt_rand(&state) & vmemt_rand(&state);
			accessed[i] |= round % 16 ? 0 : UINT64_MAX;
		}
		for (uint32_t b = 0; b < count; b++) {
			cr_assert_eq(vmem_track_feed_bitmap(t[b], 0, PAGES, accessed, written), 0);
			cr_assert_eq(vmem_track_mark(t[b], page, 1, (uint32_t)clear, (uint32_t)set),
				     0);
			vmem_track_period(t[b]);
			cr_assert_eq(memcmp(t[b]->stamps, t[0]->stamps, 2 * PAGES), 0);
			cr_assert_eq(memcmp(t[b]->oldest, t[0]->oldest, WORDS), 0);
			cr_assert_eq(memcmp(t[b]->kinds, t[0]->kinds, (WORDS + 63) / 64 * 16), 0);
			cr_assert_eq(memcmp(t[b]->present, t[0]->present, sizeof(t[0]->present)),
				     0);
			cr_assert_eq(memcmp(t[b]->promotions, t[0]->promotions,
					    sizeof(t[0]->promotions)),
				     0);
		}
	}
	for (uint32_t b = 0; b < count; b++)
		vmemt_track_done(t[b], &allocators[b]);
}

/* Feeds keep the age of the oldest page of each word exact, where no state is special: a search looks at
 * words that have victims, and at no other. */
Test(track_scan, oldest_is_exact)
{
	uint32_t detected = vmem_cpu_detect();

	state = vmemt_seed("track_scan_oldest");
	for (size_t b = 0; b < sizeof(builds) / sizeof(builds[0]); b++) {
		vmem_track *t;

		if (builds[b].cpu & ~detected)
			continue;
		t = vmemt_track_full(&memory, PAGES, builds[b].cpu);
		for (uint32_t round = 0; round < ROUNDS; round++) {
			uint64_t accessed[WORDS];

			for (uint32_t i = 0; i < WORDS; i++) {
				accessed[i] = vmemt_rand(&state) & vmemt_rand(&state);
				if (round % 4)
					accessed[i] &= vmemt_rand(&state) & vmemt_rand(&state);
			}
			vmem_track_period(t);
			cr_assert_eq(vmem_track_feed_bitmap(t, 0, PAGES, accessed, NULL), 0);
			for (uint32_t word = 0; word < WORDS; word++) {
				uint8_t oldest = 0;

				for (uint32_t i = word * 64; i < word * 64 + 64; i++) {
					uint8_t age = (uint8_t)(vmemi_track_now(t) - t->stamps[i]);

					oldest = age > oldest ? age : oldest;
				}
				cr_assert_eq((uint8_t)(vmemi_track_now(t) - t->oldest[word]),
					     oldest);
			}
		}
		vmemt_track_done(t, &memory);
	}
}

/* A feed gives the same wherever it begins, with pages in all states. */
Test(track_scan, touch_in_parts)
{
	struct vmemt_fail_alloc allocators[2];
	uint32_t detected = vmem_cpu_detect();

	state = vmemt_seed("track_scan_parts");
	for (size_t b = 0; b < sizeof(builds) / sizeof(builds[0]); b++) {
		vmem_track *whole, *parts;

		if (builds[b].cpu & ~detected)
			continue;
		whole = vmemt_track_full(&allocators[0], PAGES, builds[b].cpu);
		parts = vmemt_track_full(&allocators[1], PAGES, builds[b].cpu);
		for (uint32_t round = 0; round < ROUNDS; round++) {
			uint64_t accessed[WORDS], written[WORDS], page = vmemt_rand(&state) % PAGES;
			uint32_t cut = (uint32_t)(vmemt_rand(&state) % (WORDS + 1));
			uint32_t mark = (uint32_t)vmemt_rand(&state) & 0xff;

			for (uint32_t i = 0; i < WORDS; i++) {
				accessed[i] = vmemt_rand(&state) & vmemt_rand(&state);
				written[i] = vmemt_rand(&state) % 4 ? 0 : accessed[i];
			}
			cr_assert_eq(vmem_track_mark(whole, page, 1, 0xff, mark), 0);
			cr_assert_eq(vmem_track_mark(parts, page, 1, 0xff, mark), 0);
			cr_assert_eq(vmem_track_feed_bitmap(whole, 0, PAGES, accessed, written), 0);
			cr_assert_eq(vmem_track_feed_bitmap(parts, cut * 64, (WORDS - cut) * 64,
							    accessed + cut, written + cut),
				     0);
			cr_assert_eq(vmem_track_feed_bitmap(parts, 0, cut * 64, accessed, written),
				     0);
			vmem_track_period(whole);
			vmem_track_period(parts);
			cr_assert_eq(memcmp(parts->stamps, whole->stamps, 2 * PAGES), 0);
			cr_assert_eq(memcmp(parts->present, whole->present, sizeof(whole->present)),
				     0);
		}
		vmemt_track_done(whole, &allocators[0]);
		vmemt_track_done(parts, &allocators[1]);
	}
}
