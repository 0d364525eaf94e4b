/* SPDX-License-Identifier: BSD-2-Clause */
/* Segments that are read often come home. */
#include "store/out_tools.h"
#include "support/rng.h"

TestSuite(store_out_home, .init = open_with_device, .fini = close_store);

enum { SECOND = 1000000000 };

/* All is out that can be, and the budget has room for it. */
static void open_room(void)
{
	save_all();
	settle();
	vmem_store_set_budget(store, 64 * MIB);
}

static bool is_out(uint32_t i)
{
	uint32_t checksum;

	return !vmemi_out_checksum(store->pool, VMEMI_ANY_STREAM, vmemi_ref_payload(ref[i]),
				   &checksum);
}

/* Every so many of the first pages, far from each other: hardly one lies in what was read for another. By loads, or
 * by peeks. Each takes two blocks of its segment, which has 63 of them: it is hot with 128 blocks. */
enum { MANY = 600, JUMP = 221 };

static void touch(uint32_t step, bool peeks)
{
	struct vmem_store_event event;
	vmem_store_token token;
	struct vmemt_page page;

	for (uint32_t n = 0, i = 0; n < MANY; n++, i = (i + JUMP) % MANY) {
		int rc;

		if (i % step)
			continue;
		rc = peeks ? vmem_store_peek(store, vm, 7, ref[i], page.bytes, &token)
			   : vmem_store_load(store, vm, 7, ref[i], page.bytes, &token);
		for (int turn = 0; rc == -VMEM_EINPROGRESS; turn++) {
			cr_assert_lt(turn, TURNS);
			if (vmem_store_poll(store, &event, 1) && event.type == VMEM_STORE_LOADED)
				rc = event.result;
		}
		cr_assert_eq(rc, 0);
		cr_assert(is_page(&page, VMEMT_PAGE_NOISE, i * EDITS));
	}
}

/* Of these pages, those that are out. */
static uint32_t count_out(void)
{
	uint32_t out = 0;

	for (uint32_t i = 0; i < MANY; i++)
		out += is_out(i);
	return out;
}

static void touch_until_home(void)
{
	cr_assert_eq(count_out(), MANY);
	for (int turn = 0; count_out(); turn++) {
		cr_assert_lt(turn, 100);
		touch(1, false);
		work();
		settle();
	}
}

Test(store_out_home, what_is_read_often)
{
	uint64_t reads;

	open_room();
	touch_until_home();
	cr_assert_gt(out_stats().came_home, 0);
	reads = atomic_load(&device.reads);
	touch(1, false);
	cr_assert_eq(atomic_load(&device.reads), reads);
	cr_assert_gt(out_stats().segments, 0);
	expect_all();
	cr_assert_null(vmemi_store_check(store));
}

Test(store_out_home, what_is_read_once_stays)
{
	open_room();
	touch(2, false);
	work();
	settle();
	cr_assert_eq(out_stats().came_home, 0);
}

Test(store_out_home, what_is_read_seldom_stays)
{
	open_room();
	for (int turn = 0; turn < 20; turn++) {
		touch(2, false);
		now_ns += UINT64_C(120) * SECOND;
		work();
		settle();
	}
	cr_assert_eq(out_stats().came_home, 0);
}

Test(store_out_home, peeks_bring_nothing_home)
{
	open_room();
	for (int turn = 0; turn < 10; turn++) {
		touch(1, true);
		work();
		settle();
	}
	cr_assert_eq(out_stats().came_home, 0);
}

Test(store_out_home, without_room_nothing_comes)
{
	save_all();
	settle();
	atomic_store(&device.write_error, -VMEM_ENOMEM);
	for (int turn = 0; turn < 10; turn++) {
		touch(1, false);
		work();
		settle();
	}
	cr_assert_eq(out_stats().came_home, 0);
}

/* It is as young as what is saved now: others leave before it. */
Test(store_out_home, what_came_home_does_not_leave_first)
{
	open_room();
	touch_until_home();
	for (int i = 0; i < 4; i++)
		write_one();
	cr_assert_eq(count_out(), 0);
	expect_all();
	cr_assert_null(vmemi_store_check(store));
}

Test(store_out_home, what_cannot_be_read_whole_stays)
{
	open_room();
	for (int turn = 0; turn < 3; turn++)
		touch(1, false);
	atomic_store(&device.read_error, -VMEM_EIO);
	work();
	settle();
	atomic_store(&device.read_error, 0);
	cr_assert_eq(out_stats().came_home, 0);
	cr_assert_eq(stats_of(0).unreadable_bytes, 0);
	expect_all();
	cr_assert_null(vmemi_store_check(store));
}
