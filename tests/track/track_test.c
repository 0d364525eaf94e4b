/* SPDX-License-Identifier: BSD-2-Clause */
/* The tracker: options, feeds, ages up to the last one and beyond, states, victims, refault distances. */
#include <string.h>
#include "track/track_tools.h"

static struct vmemt_fail_alloc memory;

static void periods(vmem_track *t, uint32_t count)
{
	while (count--)
		vmem_track_period(t);
}

/* One search to its end. @return pages named */
static uint64_t search(vmem_track *t, const struct vmem_track_want *want,
		       struct vmem_track_run *ret_first)
{
	static struct vmem_track_run runs[64];
	struct vmem_track_cursor cursor = { 0 };
	uint64_t pages = 0;
	size_t count;
	int again;

	ret_first->count = 0;
	do {
		again = vmem_track_victims(t, want, &cursor, runs, 64, &count);
		cr_assert_geq(again, 0);
		if (count && !ret_first->count)
			*ret_first = runs[0];
		for (size_t i = 0; i < count; i++)
			pages += runs[i].count;
	} while (again);
	return pages;
}

Test(track, options)
{
	struct vmem_track_opts opts = { .size = sizeof(opts), .flags = 2, .pages = 1 };
	struct vmem_track_stats small = { .size = 1 };
	vmem_track *t = (vmem_track *)&opts;

	cr_assert_eq(vmem_track_new(&t, &opts), -VMEM_EINVAL);
	opts.flags = 0;
	opts.pages = 0;
	cr_assert_eq(vmem_track_new(&t, &opts), -VMEM_EINVAL);
	opts.pages = VMEM_TRACK_MAX_PAGES + 1;
	cr_assert_eq(vmem_track_new(&t, &opts), -VMEM_EINVAL);
	opts.pages = 1;
	opts.size = 1;
	cr_assert_eq(vmem_track_new(&t, &opts), -VMEM_EINVAL);
	opts.size = sizeof(opts);
	cr_assert_eq(vmem_track_new(&t, NULL), -VMEM_EINVAL);
	cr_assert_eq(vmem_track_new(NULL, &opts), -VMEM_EINVAL);
	cr_assert_eq((void *)t, (void *)&opts);
	cr_assert_eq(vmem_track_new(&t, &opts), 0);
	cr_assert_eq(vmem_track_get_stats(t, NULL), -VMEM_EINVAL);
	cr_assert_eq(vmem_track_get_stats(t, &small), -VMEM_EINVAL);
	vmem_track_free(t);
	vmem_track_free(NULL);
}

Test(track, no_memory)
{
	struct vmem_track_opts opts = { .size = sizeof(opts), .pages = 1000 };
	long n = 0;

	for (;; n++) {
		vmem_track *t = NULL;
		int err;

		vmemt_fail_alloc_init(&memory);
		memory.fail_after = n;
		opts.allocator = &memory.allocator;
		err = vmem_track_new(&t, &opts);
		cr_assert_eq(err, memory.failed ? -VMEM_ENOMEM : 0);
		cr_assert_eq(t == NULL, err != 0);
		vmem_track_free(t);
		cr_assert_eq(memory.live_bytes, 0);
		if (!memory.failed)
			break;
	}
	cr_assert_eq(n, 2);
}

/* 2 bytes a page and 1 %, and what a tracker has once. */
Test(track, memory)
{
	enum { PAGES = 1 << 20 };
	vmem_track *t = vmemt_track_new(&memory, PAGES, 0);

	cr_assert_eq(vmemt_track_stats(t).bytes, (uint64_t)memory.live_bytes);
	cr_assert_leq(memory.live_bytes, 2 * PAGES + PAGES / 50 + 16 * 1024);
	vmemt_track_done(t, &memory);
}

Test(track, ages)
{
	vmem_track *t = vmemt_track_new(&memory, 100, 0);
	struct vmem_track_histogram h = { .size = sizeof(h) };
	uint64_t page = 7, other = 8;

	cr_assert_eq(vmemt_track_stats(t).present, 0);
	cr_assert_eq(vmem_track_feed_list(t, &page, 1, 0), 0);
	cr_assert_eq(vmemt_state(t, 7), 0);
	for (uint32_t i = 0; i < 1000; i++) {
		cr_assert_eq(vmemt_age(t, 7), i < 239 ? i : 239);
		cr_assert_eq(vmem_track_working_set(t, i + 1), 1);
		cr_assert_eq(vmem_track_working_set(t, i < 240 ? i : 0), 0);
		vmem_track_period(t);
	}
	cr_assert_eq(vmem_track_feed_list(t, &other, 1, VMEM_TRACK_WRITTEN), 0);
	cr_assert_eq(vmemt_state(t, 8), VMEM_TRACK_WRITTEN);
	cr_assert_eq(vmem_track_get_ages(t, &h), 0);
	cr_assert(h.pages[0] == 1 && h.pages[239] == 1);
	/* A promotion from the last age; the first access of the other page was none. */
	cr_assert_eq(vmem_track_feed_list(t, &page, 1, 0), 0);
	cr_assert_eq(vmem_track_get_promotions(t, &h), 0);
	for (uint32_t age = 0; age < VMEM_TRACK_AGES; age++)
		cr_assert_eq(h.pages[age], age == 239);
	cr_assert_eq(vmemt_track_stats(t).accesses, 3);
	cr_assert_eq(vmemt_track_stats(t).periods, 1000);
	vmemt_track_done(t, &memory);
}

Test(track, what_is_refused)
{
	vmem_track *t = vmemt_track_full(&memory, 100, 0);
	uint64_t pages[] = { 5, 100 }, bits[2] = { UINT64_MAX, UINT64_MAX };
	uint64_t distance;

	vmem_track_period(t);
	cr_assert_eq(vmem_track_feed_list(t, pages, 2, 0), -VMEM_ERANGE);
	cr_assert_eq(vmem_track_feed_list(t, pages, 1, VMEM_TRACK_AWAY), -VMEM_EINVAL);
	cr_assert_eq(vmem_track_feed_bitmap(t, 1, 10, bits, bits), -VMEM_EINVAL);
	cr_assert_eq(vmem_track_feed_bitmap(t, 64, 37, bits, bits), -VMEM_ERANGE);
	cr_assert_eq(vmem_track_feed_bitmap(t, UINT64_MAX - 63, 64, bits, bits), -VMEM_ERANGE);
	cr_assert_eq(vmem_track_mark(t, 0, 101, 0, 0), -VMEM_ERANGE);
	cr_assert_eq(vmem_track_mark(t, 50, UINT64_MAX - 10, 0, 0), -VMEM_ERANGE);
	cr_assert_eq(vmem_track_mark(t, 0, 1, 0x100, 0), -VMEM_EINVAL);
	cr_assert_eq(vmem_track_take(t, 100, 1, NULL), -VMEM_ERANGE);
	cr_assert_eq(vmem_track_refault(t, 100, 0, &distance), -VMEM_ERANGE);
	cr_assert_eq(vmem_track_refault(t, 0, 1u << 22, &distance), -VMEM_EINVAL);
	for (uint64_t page = 0; page < 100; page++)
		cr_assert(vmemt_age(t, page) == 1 && !vmemt_state(t, page));
	/* Bits beyond the range do not count. */
	cr_assert_eq(vmem_track_feed_bitmap(t, 64, 20, bits, NULL), 0);
	for (uint64_t page = 0; page < 100; page++)
		cr_assert_eq(vmemt_age(t, page), page < 64 || page >= 84);
	vmemt_track_done(t, &memory);
}

Test(track, victims_refused)
{
	vmem_track *t = vmemt_track_full(&memory, 100, 0);
	const struct vmem_track_want good = { .size = sizeof(good), .pages = 1 };
	struct vmem_track_want bad[7] = { good, good, good, good, good, good, good };
	struct vmem_track_cursor cursor = { 0 };
	struct vmem_track_run run;
	size_t count = 77;

	bad[0].pages = 0;
	bad[1].min_age = VMEM_TRACK_AGES;
	bad[2].run_pages = 3;
	bad[3].run_pages = 128;
	bad[4].skip = 0x100;
	bad[5].flags = 2;
	bad[6].size = 3;
	for (int i = 0; i < 7; i++)
		cr_assert_eq(vmem_track_victims(t, &bad[i], &cursor, &run, 1, &count),
			     -VMEM_EINVAL);
	cr_assert_eq(vmem_track_victims(t, &good, NULL, &run, 1, &count), -VMEM_EINVAL);
	cr_assert_eq(vmem_track_victims(t, &good, &cursor, &run, 0, &count), -VMEM_EINVAL);
	cr_assert_eq(vmem_track_victims(t, &good, &cursor, NULL, 1, &count), -VMEM_EINVAL);
	cr_assert_eq(vmem_track_victims(t, NULL, &cursor, &run, 1, &count), -VMEM_EINVAL);
	cr_assert_eq(count, 77);
	/* A spoilt cursor does no harm. */
	memset(&cursor, 0xff, sizeof(cursor));
	cr_assert_eq(vmem_track_victims(t, &good, &cursor, &run, 1, &count), 0);
	cr_assert(count == 1 && run.count == 1 && run.first < 100);
	cursor = (struct vmem_track_cursor){ .word = 2 };
	cr_assert_eq(vmem_track_victims(t, &good, &cursor, &run, 1, &count), 0);
	cr_assert(count == 1 && run.count == 1 && run.first < 100);
	vmemt_track_done(t, &memory);
}

Test(track, victims_in_order)
{
	vmem_track *t = vmemt_track_full(&memory, 1024, vmem_cpu_detect());
	struct vmem_track_want want = { .size = sizeof(want), .pages = 16, .min_age = 10 };
	struct vmem_track_run first;
	uint64_t all[16], other[16] = { 0 };

	/* 256 .. 511 old, the second half of them written; the rest young. */
	for (int i = 0; i < 16; i++)
		all[i] = i / 4 == 1 ? 0 : UINT64_MAX;
	other[6] = other[7] = UINT64_MAX;
	cr_assert_eq(vmem_track_feed_bitmap(t, 0, 1024, NULL, other), 0);
	periods(t, 20);
	cr_assert_eq(vmem_track_feed_bitmap(t, 0, 1024, all, NULL), 0);
	periods(t, 2);
	cr_assert_eq(search(t, &want, &first), 16);
	cr_assert_eq(first.first, 256);
	cr_assert_eq(vmem_track_mark(t, 300, 1, 0, VMEM_TRACK_KEPT), 0);
	want.pages = 64;
	want.run_pages = 64;
	cr_assert_eq(search(t, &want, &first), 64);
	cr_assert_eq(first.first, 320); /* the clean run; then a written one, too */
	want.pages = 128;
	cr_assert_eq(search(t, &want, &first), 128);
	cr_assert(first.first == 320 && first.count == 128);
	want.pages = 1000;
	cr_assert_eq(search(t, &want, &first), 192);
	want.run_pages = 0;
	cr_assert_eq(search(t, &want, &first), 255);
	cr_assert_eq(vmem_track_mark(t, 256, 10, 0, 0x40), 0);
	want.skip = 0x40;
	cr_assert_eq(search(t, &want, &first), 245);
	/* In an emergency the young ones too, after these. */
	want.flags = VMEM_TRACK_EMERGENCY;
	cr_assert_eq(search(t, &want, &first), 1000);
	cr_assert_eq(first.first, 266);
	want.flags = 0;
	/* Nothing is cold: nothing is even looked at. */
	want.min_age = 30;
	want.scan_pages = 1;
	struct vmem_track_cursor cursor = { 0 };
	size_t count;

	cr_assert_eq(vmem_track_victims(t, &want, &cursor, &first, 1, &count), 0);
	cr_assert_eq(count, 0);
	vmemt_track_done(t, &memory);
}

/* No call looks at more than it may. */
Test(track, victims_bounded)
{
	enum { PAGES = 64 * 100 };
	vmem_track *t = vmemt_track_full(&memory, PAGES, 0);
	struct vmem_track_want want = {
		.size = sizeof(want), .pages = 1, .scan_pages = 640, .min_age = 5
	};
	struct vmem_track_cursor cursor = { 0 };
	struct vmem_track_run run;
	uint64_t page = PAGES - 1;
	uint64_t bits[100];
	size_t count;

	periods(t, 9);
	memset(bits, 0xff, sizeof(bits));
	cr_assert_eq(vmem_track_feed_bitmap(t, 0, PAGES - 1, bits, NULL), 0);
	for (int call = 0; call < 9; call++) {
		cr_assert_eq(vmem_track_victims(t, &want, &cursor, &run, 1, &count), 1);
		cr_assert_eq(count, 0);
		cr_assert_eq(cursor.word, (uint64_t)(call + 1) * 10);
	}
	cr_assert_eq(vmem_track_victims(t, &want, &cursor, &run, 1, &count), 0);
	cr_assert(count == 1 && run.first == page && run.count == 1);
	vmemt_track_done(t, &memory);
}

/* Pages taken in between, as coarse as 22 bits must be for all pages of the tracker. */
Test(track, refault_distance)
{
	enum { PAGES = 1 << 23, GRAIN = 4 };
	vmem_track *t = vmemt_track_full(&memory, PAGES, vmem_cpu_detect());
	uint32_t first, shadow;
	uint64_t distance;

	cr_assert_eq(t->shadow_shift, 2);
	cr_assert_eq(vmem_track_take(t, 0, 1, &first), 0);
	cr_assert_eq(vmem_track_take(t, 1, 1001, NULL), 0);
	cr_assert_eq(vmem_track_refault(t, 0, first, &distance), 0);
	cr_assert(distance <= 1002 && distance + GRAIN >= 1002);
	cr_assert_eq(vmemt_track_stats(t).returned, 1);
	cr_assert_eq(vmemt_track_stats(t).away, 1001);
	cr_assert_eq(vmemt_age(t, 0), 0);
	/* As long as all pages were not taken twice, it does not come round. */
	cr_assert_eq(vmem_track_take(t, 0, 1, &first), 0);
	cr_assert_eq(vmem_track_take(t, 0, PAGES, &shadow), 0);
	cr_assert_eq(vmem_track_mark(t, 0, PAGES, VMEM_TRACK_AWAY, 0), 0);
	cr_assert_eq(vmem_track_take(t, 1, PAGES - GRAIN, &shadow), 0);
	cr_assert_eq(vmem_track_refault(t, 0, first, &distance), 0);
	cr_assert_gt(distance, 2 * (uint64_t)PAGES - 1100);
	vmemt_track_done(t, &memory);
}

/* Taken pages age on, are no victims, and count as promotions when they are accessed. */
Test(track, away)
{
	vmem_track *t = vmemt_track_full(&memory, 64, 0);
	struct vmem_track_want want = { .size = sizeof(want), .pages = 64, .min_age = 1 };
	struct vmem_track_histogram h = { .size = sizeof(h) };
	struct vmem_track_run first;
	uint64_t page = 3, bits = 1 << 4 | 1 << 5;

	periods(t, 2);
	cr_assert_eq(vmem_track_take(t, 0, 8, NULL), 0);
	periods(t, 2);
	cr_assert_eq(vmemt_age(t, 3), 4);
	cr_assert_eq(search(t, &want, &first), 56);
	cr_assert_eq(vmem_track_feed_list(t, &page, 1, 0), 0);
	cr_assert_eq(vmem_track_feed_bitmap(t, 0, 64, &bits, NULL), 0);
	cr_assert_eq(vmem_track_get_promotions(t, &h), 0);
	cr_assert_eq(h.pages[4], 3);
	cr_assert_eq(vmemt_track_stats(t).away, 5);
	cr_assert_eq(vmemt_track_stats(t).returned, 3);
	/* Moved back without an access: as old as before. */
	cr_assert_eq(vmem_track_mark(t, 0, 1, VMEM_TRACK_AWAY, 0), 0);
	cr_assert_eq(vmemt_age(t, 0), 4);
	cr_assert_eq(search(t, &want, &first), 57);
	vmemt_track_done(t, &memory);
}

/* A tracker that grows goes on as one that was as large from the beginning. */
static void grow_to(uint64_t from, uint64_t to)
{
	struct vmem_track_opts opts = { .size = sizeof(opts), .pages = from, .seed = 5 };
	struct vmem_track_histogram one = { .size = sizeof(one) }, other = one;
	vmem_track *small, *large;
	uint32_t age[2], state[2];

	cr_assert_eq(vmem_track_new(&small, &opts), 0);
	opts.pages = to;
	cr_assert_eq(vmem_track_new(&large, &opts), 0);
	for (uint32_t i = 0; i < 700; i++) {
		uint64_t page = i * 37 % from;

		if (i == 300) {
			cr_assert_eq(vmem_track_grow(small, to), 0);
			cr_assert_null(vmemi_track_check(small));
		}
		if (i > 300 && i % 2)
			page = from + i * 41 % (to - from);
		cr_assert_eq(vmem_track_feed_list(small, &page, 1, i % 3 == 0), 0);
		cr_assert_eq(vmem_track_feed_list(large, &page, 1, i % 3 == 0), 0);
		if (i % 5 == 0) {
			cr_assert_eq(vmem_track_take(small, page / 2, 1, NULL), 0);
			cr_assert_eq(vmem_track_take(large, page / 2, 1, NULL), 0);
		}
		vmem_track_period(small);
		vmem_track_period(large);
		/* None may come round, however its slice was moved. */
		if (i >= 300 && i < 340)
			cr_assert_null(vmemi_track_check(small));
	}
	cr_assert_null(vmemi_track_check(small));
	for (uint64_t page = 0; page < to; page++) {
		cr_assert_eq(vmem_track_page(small, page, &age[0], &state[0]), 0);
		cr_assert_eq(vmem_track_page(large, page, &age[1], &state[1]), 0);
		cr_assert_eq(state[0], state[1]);
		cr_assert(state[0] & VMEM_TRACK_ABSENT || age[0] == age[1]);
	}
	cr_assert_eq(vmem_track_get_ages(small, &one), 0);
	cr_assert_eq(vmem_track_get_ages(large, &other), 0);
	cr_assert_eq(memcmp(&one, &other, sizeof(one)), 0);
	cr_assert_eq(vmem_track_get_promotions(small, &one), 0);
	cr_assert_eq(vmem_track_get_promotions(large, &other), 0);
	cr_assert_eq(memcmp(&one, &other, sizeof(one)), 0);
	vmem_track_free(small);
	vmem_track_free(large);
}

Test(track, grows)
{
	struct vmem_track_opts opts = { .size = sizeof(opts), .pages = 100 };
	struct vmem_track_stats stats = { .size = sizeof(stats) };
	vmem_track *t;

	grow_to(1, 2);
	grow_to(60, 64);
	grow_to(64, 65);
	grow_to(1000, 4096);
	grow_to(4090, 9000);
	vmemt_fail_alloc_init(&memory);
	opts.allocator = &memory.allocator;
	cr_assert_eq(vmem_track_new(&t, &opts), 0);
	cr_assert_eq(vmem_track_grow(t, 99), -VMEM_EINVAL);
	cr_assert_eq(vmem_track_grow(t, VMEM_TRACK_MAX_PAGES + 1), -VMEM_EINVAL);
	memory.fail_after = memory.calls;
	cr_assert_eq(vmem_track_grow(t, 101), -VMEM_ENOMEM);
	cr_assert_eq(vmem_track_get_stats(t, &stats), 0);
	cr_assert_eq(stats.pages, 100);
	memory.fail_after = -1;
	cr_assert_eq(vmem_track_grow(t, 100), 0);
	cr_assert_eq(vmem_track_grow(t, 101), 0);
	cr_assert_eq(vmem_track_mark(t, 100, 1, VMEM_TRACK_ABSENT, 0), 0);
	cr_assert_eq(vmem_track_get_stats(t, &stats), 0);
	cr_assert_eq(stats.pages, 101);
	vmem_track_free(t);
	cr_assert_eq(memory.live_bytes, 0);
}
