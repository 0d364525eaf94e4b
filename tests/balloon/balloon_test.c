/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages, blocks, ranges, queues, and what a guest may try. */
#include "balloon/balloon_tools.h"

#define MANY 20000u

Test(balloon, options)
{
	struct vmem_balloon_opts o = { .size = sizeof(o), .features = UINT64_C(1) << 40 };
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer) - 1 };
	struct vmemt_balloon t = { 0 };
	vmem_balloon *b = NULL;

	cr_assert_eq(vmem_balloon_new(&b, &o), -VMEM_EINVAL);
	o.features = VMEM_BALLOON_F_FREE_PAGE_HINT; /* no guard */
	cr_assert_eq(vmem_balloon_new(&b, &o), -VMEM_EINVAL);
	o.features = 0;
	o.flags = 1u << 31;
	cr_assert_eq(vmem_balloon_new(&b, &o), -VMEM_EINVAL);
	o.flags = 0;
	o.map = 9;
	cr_assert_eq(vmem_balloon_new(&b, &o), -VMEM_EINVAL);
	o.map = VMEM_BALLOON_MAP_GIVEN; /* all are 0 */
	cr_assert_eq(vmem_balloon_new(&b, &o), -VMEM_EINVAL);
	cr_assert_null(b);
	vmemt_balloon_new(&t, MODERN);
	buffer.size = 1;
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), -VMEM_EINVAL);
	cr_assert_eq(vmem_balloon_give(t.b, NULL), -VMEM_EINVAL);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_QUEUES, NULL, 0), -VMEM_EINVAL);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, NULL, 4), -VMEM_EINVAL);
	vmemt_balloon_end(&t);
	vmem_balloon_free(NULL);
}

Test(balloon, ram)
{
	const uint64_t end = UINT64_C(1) << 44;
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, MODERN); /* pages 0 .. 4095 */
	cr_assert_eq(vmem_balloon_add_ram(t.b, 4095 * PAGE, PAGE, PAGE), -VMEM_EEXIST);
	cr_assert_eq(vmem_balloon_add_ram(t.b, 4096 * PAGE, 0, PAGE), -VMEM_EINVAL);
	cr_assert_eq(vmem_balloon_add_ram(t.b, 4096 * PAGE, PAGE, 2 * PAGE), -VMEM_EINVAL);
	cr_assert_eq(vmem_balloon_add_ram(t.b, 4096 * PAGE, PAGE, 3 * PAGE), -VMEM_EINVAL);
	cr_assert_eq(vmem_balloon_add_ram(t.b, 4097 * PAGE, 2 * PAGE, 2 * PAGE), -VMEM_EINVAL);
	cr_assert_eq(vmem_balloon_add_ram(t.b, end - PAGE, 2 * PAGE, PAGE), -VMEM_ERANGE);
	cr_assert_eq(vmem_balloon_add_ram(t.b, UINT64_MAX - PAGE + 1, PAGE, PAGE), -VMEM_ERANGE);
	cr_assert_eq(vmem_balloon_add_ram(t.b, end - PAGE, PAGE, PAGE), 0);
	for (uint64_t i = 0; i < VMEM_BALLOON_RAMS - 2; i++)
		cr_assert_eq(vmem_balloon_add_ram(t.b, (6000 - 2 * i) * PAGE, PAGE, PAGE), 0);
	cr_assert_eq(vmem_balloon_add_ram(t.b, 8000 * PAGE, PAGE, PAGE), -VMEM_ENOSPC);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, UINT32_MAX, 1);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 5980, 9);
	cr_assert_eq(vmem_balloon_has(t.b, end - PAGE), 1);
	cr_assert_eq(vmem_balloon_has(t.b, 5984 * PAGE), 1);
	cr_assert_eq(vmem_balloon_has(t.b, 5985 * PAGE), -VMEM_ERANGE);
	cr_assert_eq(vmemt_counters(&t).outside, 4);
	vmemt_balloon_end(&t);
}

/* Whatever the order, and with some named twice, ranges come sorted and joined. */
Test(balloon, ranges_are_joined)
{
	struct vmemt_balloon t = { 0 };
	uint32_t gfns[600];
	struct vmem_balloon_range r[3];

	vmemt_balloon_new(&t, MODERN);
	for (uint32_t i = 0; i < 300; i++) {
		gfns[i] = 1000 + i * 7 % 300; /* 7 and 300 have no common divisor */
		gfns[300 + i] = 400 - i;
	}
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, gfns, sizeof(gfns)), 0);
	gfns[0] = 3000;
	gfns[1] = 1000;
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, gfns, 8), 0);
	cr_assert_eq(vmem_balloon_take_ranges(t.b, r, 3), 3);
	cr_assert_eq(r[0].gpa, 101 * PAGE);
	cr_assert_eq(r[0].bytes, 300 * PAGE);
	cr_assert_eq(r[1].gpa, 1000 * PAGE);
	cr_assert_eq(r[1].bytes, 300 * PAGE);
	cr_assert_eq(r[2].gpa, 3000 * PAGE);
	vmemt_no_range(&t);
	cr_assert_eq(vmemt_counters(&t).inflated_twice, 1);
	cr_assert_eq(vmemt_progress(&t).pages, 601);
	vmemt_balloon_end(&t);
}

/* Page numbers at the ends of 32 bits do not follow each other. */
Test(balloon, numbers_do_not_wrap)
{
	const uint32_t up[] = { UINT32_MAX, 0, 1 }, down[] = { 2, 1, 0, UINT32_MAX };
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, MODERN);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, up, sizeof(up)), 0);
	vmemt_one_range(&t, VMEM_BALLOON_DISCARD, 0, 2);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, down, sizeof(down)), 0);
	vmemt_one_range(&t, VMEM_BALLOON_DISCARD, 2, 1);
	cr_assert_eq(vmemt_counters(&t).outside, 2);
	vmemt_balloon_end(&t);
}

static void inflate_all_but_one(struct vmemt_balloon *t, uint32_t first, uint32_t pages,
				uint32_t one)
{
	for (uint32_t i = 0; i < pages; i++)
		if (i != one)
			vmemt_move_pages(t, VMEM_BALLOON_INFLATE, first + i, 1);
}

/* A block is released when all of it is in the balloon, whatever lies between. */
Test(balloon, blocks)
{
	static const uint64_t blocks[] = { 2, 16, 64, 512 };

	for (size_t i = 0; i < sizeof(blocks) / sizeof(*blocks); i++) {
		uint32_t n = (uint32_t)blocks[i], missing = 4 * n + n / 2;
		struct vmemt_balloon t = { 0 };

		vmemt_balloon_make(&t, VMEM_BALLOON_F_MUST_TELL_HOST | MODERN, n * PAGE);
		vmemt_balloon_start(&t, VMEM_BALLOON_F_MUST_TELL_HOST | MODERN);
		inflate_all_but_one(&t, 4 * n, n, n / 2);
		vmemt_no_range(&t);
		cr_assert_eq(vmemt_progress(&t).partial, n - 1);
		vmemt_balloon_sound(t.b);
		cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, &missing, 4), 0);
		vmemt_one_range(&t, VMEM_BALLOON_DISCARD, 4 * n, n);
		vmemt_one_done(&t, VMEM_BALLOON_INFLATE);
		cr_assert_eq(vmemt_progress(&t).partial, 0);
		cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_DEFLATE, &missing, 4), 0);
		vmemt_one_range(&t, VMEM_BALLOON_RETURN, missing, 1);
		vmemt_one_done(&t, VMEM_BALLOON_DEFLATE);
		cr_assert_eq(vmemt_progress(&t).partial, n - 1);
		vmemt_balloon_end(&t);
	}
}

/* Free pages: whole blocks only, and not those of which a page is in the balloon. */
Test(balloon, reports_of_blocks)
{
	struct vmemt_balloon t = { 0 };
	struct vmem_balloon_range r[3];

	vmemt_balloon_make(&t, ALL_FEATURES | MODERN, 512 * PAGE);
	vmemt_balloon_start(&t, ALL_FEATURES | MODERN);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 1030, 1);
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_REPORT, 100 * PAGE, 2000 * PAGE), 0);
	cr_assert_eq(vmem_balloon_take_ranges(t.b, r, 3), 2);
	cr_assert_eq(r[0].gpa, 512 * PAGE);
	cr_assert_eq(r[0].bytes, 512 * PAGE);
	cr_assert_eq(r[1].gpa, 1536 * PAGE);
	cr_assert_eq(r[1].bytes, 512 * PAGE);
	cr_assert_eq(vmemt_counters(&t).unaligned, 412 + 511 + 52);
	cr_assert_eq(vmemt_counters(&t).free_inflated, 1);
	cr_assert_eq(vmemt_counters(&t).reported, 1024);
	vmemt_balloon_end(&t);
}

/* Each page that a piece has a part of is counted, once. */
Test(balloon, pages_of_pieces)
{
	static const struct {
		uint64_t gpa, bytes, unaligned, reported;
	} cases[] = {
		{ 100, 200, 1, 0 },
		{ PAGE / 2, PAGE, 2, 0 },
		{ PAGE - 1, 2, 2, 0 },
		{ 8 * PAGE, 1, 1, 0 },
		{ 8 * PAGE - 1, 8 * PAGE + 2, 2, 8 },
		{ 8 * PAGE, 8 * PAGE, 0, 8 },
		{ 1, 16 * PAGE - 1, 8, 8 },
		{ 16 * PAGE, 15 * PAGE, 7, 8 },
		{ 24 * PAGE, 16 * PAGE, 7, 8 }, /* a page of the second block is in the balloon */
	};
	struct vmemt_balloon t = { 0 };
	uint64_t unaligned = 0, reported = 0;

	vmemt_balloon_make(&t, ALL_FEATURES | MODERN, 8 * PAGE);
	vmemt_balloon_start(&t, ALL_FEATURES | MODERN);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 33, 1);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		cr_assert_eq(
			vmemt_give_piece(&t, VMEM_BALLOON_REPORT, cases[i].gpa, cases[i].bytes), 0);
		unaligned += cases[i].unaligned;
		reported += cases[i].reported;
		cr_assert_eq(vmemt_counters(&t).unaligned, unaligned, "piece %zu", i);
		cr_assert_eq(vmemt_counters(&t).reported, reported, "piece %zu", i);
		if (cases[i].reported)
			cr_assert_eq(
				vmem_balloon_take_ranges(t.b, &(struct vmem_balloon_range){ 0 }, 1),
				1);
	}
	vmemt_balloon_end(&t);
}

/* Blocks of 1 GiB, of which a call looks at one. */
Test(balloon, blocks_of_1_gib)
{
	const uint64_t gib = UINT64_C(1) << 30;
	struct vmemt_balloon t = { 0 };
	struct vmem_balloon_piece piece = { .gpa = 16 * gib + gib / 2, .bytes = 3 * gib };
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .queue = VMEM_BALLOON_REPORT,
					      .pieces = &piece,
					      .piece_count = 1 };
	struct vmem_balloon_range r;
	uint64_t bytes = 0;
	int err, calls = 0;

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	cr_assert_eq(vmem_balloon_add_ram(t.b, 16 * gib, 4 * gib, gib), 0);
	do {
		err = vmem_balloon_give(t.b, &buffer);
		while (vmem_balloon_take_ranges(t.b, &r, 1)) {
			cr_assert_eq(r.gpa % gib, 0);
			bytes += r.bytes;
		}
		cr_assert_lt(++calls, 10);
	} while (err == -VMEM_EAGAIN);
	cr_assert_eq(err, 0);
	cr_assert_eq(bytes, 2 * gib);
	vmemt_balloon_sound(t.b);
	vmem_balloon_free(t.b);
}

/* However many blocks become whole by a list, a call makes no more due than it says. */
Test(balloon, lists_of_blocks)
{
	const uint64_t gib = UINT64_C(1) << 30,
		       features = VMEM_BALLOON_F_MUST_TELL_HOST | VMEM_BALLOON_F_RANGES | MODERN;
	struct vmemt_balloon t = { 0 };
	struct vmem_balloon_range r;
	uint64_t entries[3];
	int calls = 0, err;
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .bytes = entries,
					      .count = sizeof(entries) };

	vmemt_balloon_make(&t, features, PAGE);
	cr_assert_eq(vmem_balloon_add_ram(t.b, 4 * gib, 3 * gib, gib), 0);
	vmemt_balloon_start(&t, features);
	for (uint64_t i = 0; i < 3; i++) {
		buffer.token = i;
		entries[0] = VMEM_BALLOON_RANGE((4 + i) << 18, (1 << 18) - 1);
		entries[1] = entries[2] = 0;
		buffer.count = 8;
		while (vmem_balloon_give(t.b, &buffer) == -VMEM_EAGAIN)
			;
	}
	for (uint64_t i = 0; i < 3; i++)
		entries[i] = VMEM_BALLOON_RANGE(((5 + i) << 18) - 1, 1);
	buffer.count = sizeof(entries);
	buffer.token = 9;
	while ((err = vmem_balloon_give(t.b, &buffer)) == -VMEM_EAGAIN) {
		calls++;
		cr_assert_eq(vmem_balloon_take_ranges(t.b, &r, 1), 1);
		cr_assert_eq(r.bytes, gib);
		vmemt_no_range(&t);
	}
	cr_assert_eq(err, 0);
	cr_assert_eq(calls, 2);
	vmemt_one_range(&t, VMEM_BALLOON_DISCARD, 6 << 18, 1 << 18);
	vmem_balloon_free(t.b);
}

static bool there(uint64_t features, uint32_t queue)
{
	static const uint64_t of[VMEM_BALLOON_QUEUES] = { 0, 0, VMEM_BALLOON_F_STATS_VQ,
							  VMEM_BALLOON_F_FREE_PAGE_HINT,
							  VMEM_BALLOON_F_PAGE_REPORTING };

	return !of[queue] || (features & of[queue]);
}

static const uint32_t given_numbers[VMEM_BALLOON_QUEUES] = { 9, 3, 7, 0, 5 };

static uint32_t number_of(uint32_t map, uint64_t offered, uint64_t set, uint32_t queue)
{
	uint32_t number = 0;

	if (map == VMEM_BALLOON_MAP_GIVEN)
		return given_numbers[queue];
	for (uint32_t q = 0; q < queue; q++)
		number += map == VMEM_BALLOON_MAP_SPEC ||
			  there(map == VMEM_BALLOON_MAP_OFFERED ? offered : set, q);
	return number;
}

static void check_queues(struct vmemt_balloon *t, uint64_t offered, uint64_t set)
{
	uint32_t found[16], gfn = 0;
	enum vmem_balloon_queue queue;

	for (uint32_t i = 0; i < 16; i++)
		found[i] = vmem_balloon_queue_of(t->b, i, &queue) ? VMEM_BALLOON_NO_QUEUE : queue;
	for (uint32_t q = 0; q < VMEM_BALLOON_QUEUES; q++) {
		bool is = there(set, q);
		uint32_t at = 0;

		while (at < 16 && found[at] != q)
			at++;
		cr_assert_eq(at, is ? number_of(t->opts.map, offered, set, q) : 16);
		cr_assert_eq(vmemt_give(t, q, &gfn, sizeof(gfn)), is ? 0 : -VMEM_EPERM);
		while (vmem_balloon_take_ranges(t->b, &(struct vmem_balloon_range){ 0 }, 1))
			;
	}
	cr_assert_eq(vmem_balloon_queue_of(t->b, VMEM_BALLOON_NO_QUEUE, &queue), -VMEM_ENOENT);
}

/* Each set of features that is offered, each part of it that is taken, each map: queues are where the map says, and only
 * those work. */
Test(balloon, all_features_and_maps)
{
	for (uint64_t offered = 0; offered <= ALL_FEATURES; offered++)
		for (uint64_t set = 0; set <= offered; set++)
			for (uint32_t map = 0;
			     (set & ~offered) == 0 && map <= VMEM_BALLOON_MAP_GIVEN; map++) {
				struct vmemt_balloon t = { .opts.map = map };

				memcpy(t.opts.numbers, given_numbers, sizeof(given_numbers));
				vmemt_balloon_make(&t, offered | MODERN, PAGE);
				cr_assert(vmemt_balloon_start(&t, set | MODERN) &
					  VMEM_VIRTIO_DRIVER_OK);
				check_queues(&t, offered, set);
				vmemt_balloon_end(&t);
			}
}

Test(balloon, maps_differ)
{
	const uint64_t offered = VMEM_BALLOON_F_STATS_VQ | VMEM_BALLOON_F_PAGE_REPORTING;
	uint32_t n[VMEM_BALLOON_QUEUES];

	cr_assert_eq(vmem_balloon_number_queues(VMEM_BALLOON_MAP_SPEC, offered,
						VMEM_BALLOON_F_PAGE_REPORTING, NULL, n),
		     0);
	cr_assert_eq(n[VMEM_BALLOON_REPORT], 4);
	cr_assert_eq(n[VMEM_BALLOON_STATS], VMEM_BALLOON_NO_QUEUE);
	cr_assert_eq(vmem_balloon_number_queues(VMEM_BALLOON_MAP_OFFERED, offered,
						VMEM_BALLOON_F_PAGE_REPORTING, NULL, n),
		     0);
	cr_assert_eq(n[VMEM_BALLOON_REPORT], 3);
	cr_assert_eq(vmem_balloon_number_queues(VMEM_BALLOON_MAP_NEGOTIATED, offered,
						VMEM_BALLOON_F_PAGE_REPORTING, NULL, n),
		     0);
	cr_assert_eq(n[VMEM_BALLOON_REPORT], 2);
}

Test(balloon, configuration_space)
{
	struct vmemt_balloon t = { 0 };
	uint8_t bytes[64];

	vmemt_balloon_make(&t, VMEM_BALLOON_F_FREE_PAGE_HINT | MODERN, PAGE);
	vmemt_balloon_start(&t, MODERN);
	cr_assert_eq(vmem_balloon_config_bytes(t.b), 12);
	memset(bytes, 0xff, sizeof(bytes));
	cr_assert_eq(vmem_balloon_config_read(t.b, 0, bytes, 64), -VMEM_ERANGE);
	for (size_t i = 0; i < sizeof(bytes); i++)
		cr_assert_eq(bytes[i], 0);
	cr_assert_eq(vmem_balloon_config_read(t.b, UINT32_MAX, bytes, 4), -VMEM_ERANGE);
	cr_assert_eq(vmem_balloon_config_write(t.b, UINT32_MAX, bytes, 4), -VMEM_ERANGE);
	cr_assert_eq(vmem_balloon_config_write(t.b, 8, bytes, 8), -VMEM_ERANGE);
	memset(bytes, 0xff, sizeof(bytes));
	cr_assert_eq(vmem_balloon_config_write(t.b, 0, bytes, 4), -VMEM_EPERM);
	cr_assert_eq(vmemt_config(&t, VMEM_BALLOON_CONFIG_TARGET), 0);
	cr_assert_eq(vmem_balloon_config_write(t.b, VMEM_BALLOON_CONFIG_ACTUAL, bytes, 4), 0);
	cr_assert_eq(vmemt_progress(&t).actual, UINT32_MAX);
	vmemt_balloon_end(&t);
}

/* Nothing before the driver is there; nothing new after; a legacy one may begin early. */
Test(balloon, order_of_things)
{
	struct vmemt_balloon t = { 0 };
	enum vmem_balloon_queue queue;
	uint32_t status, gfn = 3;

	vmemt_balloon_make(&t, MODERN | VMEM_BALLOON_F_STATS_VQ, PAGE);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, &gfn, 4), -VMEM_EPERM);
	vmem_balloon_set_status(t.b, 3, &status);
	cr_assert_eq(vmem_balloon_set_features(t.b, MODERN | VMEM_BALLOON_F_PAGE_POISON), 0);
	vmem_balloon_set_status(t.b, 3 | VMEM_VIRTIO_FEATURES_OK, &status);
	cr_assert_eq(status, 3); /* that was not offered */
	vmem_balloon_set_status(t.b, 3 | VMEM_VIRTIO_DRIVER_OK, &status);
	cr_assert_eq(status, 3);
	cr_assert_eq(vmem_balloon_set_features(t.b, MODERN), 0);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, &gfn, 4), -VMEM_EPERM);
	vmem_balloon_set_status(t.b, 3 | VMEM_VIRTIO_FEATURES_OK, &status);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, &gfn, 4), -VMEM_EPERM);
	vmem_balloon_set_status(t.b, VMEM_VIRTIO_DRIVER_OK, &status);
	cr_assert_eq(status, 3 | VMEM_VIRTIO_FEATURES_OK | VMEM_VIRTIO_DRIVER_OK);
	cr_assert_eq(vmem_balloon_set_features(t.b, MODERN | VMEM_BALLOON_F_STATS_VQ), -VMEM_EBUSY);
	cr_assert_eq(vmem_balloon_set_features(t.b, MODERN), 0);
	cr_assert_eq(vmemt_counters(&t).late_writes, 1);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_STATS, &gfn, 4), -VMEM_EPERM);
	cr_assert_eq(vmemt_counters(&t).unexpected, 4);
	vmem_balloon_set_status(t.b, 0, &status);
	cr_assert_eq(status, 0);
	cr_assert_eq(vmem_balloon_queue_of(t.b, 1, &queue), -VMEM_ENOENT);
	vmem_balloon_set_status(t.b, 3, NULL);
	/* Bits of the transport are not looked at. */
	cr_assert_eq(vmem_balloon_set_features(t.b, UINT64_C(1) << 28 | UINT64_C(1) << 41), 0);
	cr_assert_eq(vmem_balloon_queue_of(t.b, 1, &queue), 0);
	cr_assert_eq(queue, VMEM_BALLOON_DEFLATE);
	cr_assert_eq(vmem_balloon_queue_of(t.b, 2, &queue), -VMEM_ENOENT);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, &gfn, 4), 0);
	vmemt_one_range(&t, VMEM_BALLOON_DISCARD, 3, 1);
	vmemt_balloon_end(&t);
}

/* A buffer of any length is worked off in bounded parts, and a reset in the middle leaves nothing. */
Test(balloon, long_buffers_and_reset)
{
	static uint32_t gfns[MANY];
	struct vmem_balloon_buffer buffer = {
		.size = sizeof(buffer), .token = 77, .bytes = gfns, .count = sizeof(gfns)
	};
	struct vmemt_balloon t = { 0 };
	struct vmem_balloon_range r;

	vmemt_balloon_new(&t, MODERN);
	for (uint32_t i = 0; i < MANY; i++)
		gfns[i] = i % 4096;
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), -VMEM_EAGAIN);
	cr_assert_eq(vmemt_counters(&t).inflated_twice, VMEM_BALLOON_WORK_ENTRIES - 4096);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_DEFLATE, gfns, 4), -VMEM_EINVAL);
	buffer.count = 4; /* it has become shorter meanwhile */
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), -VMEM_EINVAL);
	buffer.count = sizeof(gfns);
	vmemt_one_range(&t, VMEM_BALLOON_DISCARD, 0, 4096);
	cr_assert_eq(vmem_balloon_take_done(t.b, &(struct vmem_balloon_done){ 0 }), 0);
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), 0);
	cr_assert_eq(vmemt_counters(&t).inflated_twice, MANY - 4096);
	vmem_balloon_set_status(t.b, 0, NULL);
	cr_assert(vmemt_event(&t, VMEM_BALLOON_EVENT_RESET));
	cr_assert_eq(vmem_balloon_take_ranges(t.b, &r, 1), 0);
	cr_assert_eq(vmem_balloon_take_done(t.b, &(struct vmem_balloon_done){ 0 }), 0);
	cr_assert_eq(vmemt_progress(&t).pages, 0);
	vmemt_balloon_sound(t.b);
	vmemt_balloon_start(&t, MODERN);
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), -VMEM_EAGAIN);
	vmem_balloon_set_status(t.b, 0, NULL); /* with ranges left */
	cr_assert_eq(vmem_balloon_take_ranges(t.b, &r, 1), 0);
	vmemt_balloon_start(&t, MODERN);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 0, 4096);
	vmemt_balloon_end(&t);
}

/* Leftover bytes, no bytes, more buffers than a batch has room for. */
Test(balloon, odd_buffers)
{
	struct vmemt_balloon t = { 0 };
	struct vmem_balloon_range r[3];
	struct vmem_balloon_done done;
	uint8_t bytes[7] = { 1 };
	uint32_t n = 0;

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, bytes, 7), 0);
	vmemt_one_range(&t, VMEM_BALLOON_DISCARD, 1, 1);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, NULL, 0), 0);
	cr_assert_eq(vmemt_counters(&t).malformed, 2);
	for (uint32_t i = 2; i < VMEM_BALLOON_BATCH; i++)
		cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_REPORT, UINT64_MAX - i, i + 2), 0);
	cr_assert_eq(vmemt_counters(&t).malformed, VMEM_BALLOON_BATCH);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, bytes, 4), -VMEM_EAGAIN);
	while (vmem_balloon_take_done(t.b, &done))
		cr_assert_eq(done.token, ++n);
	cr_assert_eq(n, VMEM_BALLOON_BATCH);
	/* All there is: not a page of RAM is left out, nor one outside touched. */
	cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_REPORT, 0, UINT64_MAX), 0);
	cr_assert_eq(vmem_balloon_take_ranges(t.b, r, 3), 2);
	cr_assert_eq(r[0].bytes, PAGE);
	cr_assert_eq(r[1].gpa, 2 * PAGE);
	cr_assert_eq(r[1].bytes, 4094 * PAGE);
	vmemt_balloon_end(&t);
}

Test(balloon, spans)
{
	struct vmemt_balloon t = { 0 };
	const uint64_t entries[] = { VMEM_BALLOON_RANGE(16, 2048),
				     VMEM_BALLOON_RANGE(4000, VMEM_BALLOON_RANGE_PAGES),
				     VMEM_BALLOON_RANGE((UINT64_C(1) << 40) - 1, 5),
				     VMEM_BALLOON_RANGE(3, 0) };
	struct vmem_balloon_range r[3];

	vmemt_balloon_new(&t, VMEM_BALLOON_F_RANGES | MODERN);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, entries, sizeof(entries)), 0);
	cr_assert_eq(vmem_balloon_take_ranges(t.b, r, 3), 2);
	cr_assert_eq(r[0].gpa, 16 * PAGE);
	cr_assert_eq(r[0].bytes, 2048 * PAGE);
	cr_assert_eq(r[1].gpa, 4000 * PAGE);
	cr_assert_eq(r[1].bytes, 96 * PAGE);
	cr_assert_eq(vmemt_counters(&t).outside, VMEM_BALLOON_RANGE_PAGES - 96 + 5);
	vmemt_balloon_end(&t);
}

/* The ranges in the balloon, one after the other. */
Test(balloon, iterates)
{
	struct vmemt_balloon t = { 0 };
	struct vmem_balloon_range r;

	vmemt_balloon_new(&t, MODERN);
	cr_assert_eq(vmem_balloon_add_ram(t.b, 100000 * PAGE, 70 * PAGE, PAGE), 0);
	cr_assert_eq(vmem_balloon_next(t.b, 0, &r), -VMEM_ENOENT);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 60, 200);
	vmemt_move_pages(&t, VMEM_BALLOON_INFLATE, 100000, 70);
	cr_assert_eq(vmem_balloon_next(t.b, 0, &r), 0);
	cr_assert_eq(r.gpa, 60 * PAGE);
	cr_assert_eq(r.bytes, 200 * PAGE);
	cr_assert_eq(vmem_balloon_next(t.b, 100 * PAGE, &r), 0);
	cr_assert_eq(r.gpa, 100 * PAGE);
	cr_assert_eq(r.bytes, 160 * PAGE);
	cr_assert_eq(vmem_balloon_next(t.b, 260 * PAGE, &r), 0);
	cr_assert_eq(r.gpa, 100000 * PAGE);
	cr_assert_eq(r.bytes, 70 * PAGE);
	cr_assert_eq(vmem_balloon_next(t.b, 100070 * PAGE, &r), -VMEM_ENOENT);
	vmemt_balloon_end(&t);
}
