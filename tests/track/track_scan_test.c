/* SPDX-License-Identifier: BSD-2-Clause */
/* The builds of the passes: all that this processor can run give what a loop over bytes gives, for random
 * contents, also those that a tracker never has. */
#include <string.h>
#include "track/track_tools.h"

enum { WORDS = 9, PAGES = WORDS * 64, ROUNDS = 4000 };

static const struct {
	uint32_t cpu;
	const struct vmemi_track_scan *scan;
} builds[] = {
	{ 0, &vmemi_track_scan_plain },
#if defined(__x86_64__)
	{ VMEM_CPU_SSE2, &vmemi_track_scan_sse2 },
	{ VMEM_CPU_AVX2, &vmemi_track_scan_avx2 },
	{ VMEM_CPU_AVX512, &vmemi_track_scan_avx512 },
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

static void check_match(vmem_track *t, const struct vmemi_track_scan *scan)
{
	struct vmemi_track_match wanted = {
		.low = (uint8_t)(vmemt_rand(&state) % VMEM_TRACK_AGES),
		.high = (uint8_t)(vmemt_rand(&state) % 3 ? vmemt_rand(&state) % VMEM_TRACK_AGES
							 : 0),
		.skip = (uint8_t)(vmemt_rand(&state) & vmemt_rand(&state)),
	};
	struct vmemi_track_matched got[WORDS];

	scan->match(t, 0, WORDS, &wanted, got);
	for (uint32_t i = 0; i < PAGES; i++) {
		uint8_t age = (uint8_t)(vmemi_track_now(t) - t->stamps[i]);
		int able = age >= wanted.low && !(t->states[i] & wanted.skip);
		int older = wanted.high && age >= wanted.high;

		cr_assert_eq(got[i / 64].able >> i % 64 & 1, able);
		cr_assert_eq(got[i / 64].older >> i % 64 & 1, older);
		cr_assert_eq(got[i / 64].clean >> i % 64 & 1, !(t->states[i] & VMEM_TRACK_WRITTEN));
	}
}

static void check_settle(vmem_track *t, const struct vmemi_track_scan *scan)
{
	uint8_t before[PAGES], now = vmemi_track_now(t);

	memcpy(before, t->stamps, PAGES);
	scan->settle(t->stamps, WORDS, now);
	for (uint32_t i = 0; i < PAGES; i++) {
		uint8_t age = (uint8_t)(now - before[i]);

		if (age > VMEMI_TRACK_OLDEST)
			age = VMEMI_TRACK_OLDEST;
		cr_assert_eq((uint8_t)(now - t->stamps[i]), age);
	}
}

Test(track_scan, match_and_settle)
{
	uint32_t detected = vmem_cpu_detect();

	state = vmemt_seed("track_scan");
	for (uint32_t round = 0; round < ROUNDS; round++) {
		vmem_track *t = vmemt_track_new(&memory, PAGES, 0);

		for (size_t b = 0; b < sizeof(builds) / sizeof(builds[0]); b++) {
			if (builds[b].cpu & ~detected)
				continue;
			t->periods = vmemt_rand(&state);
			fill(t->stamps, PAGES);
			fill(t->states, PAGES);
			check_match(t, builds[b].scan);
			check_settle(t, builds[b].scan);
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
