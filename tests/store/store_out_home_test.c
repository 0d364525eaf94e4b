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
	struct vmemt_page page;

	return vmem_store_load(store, vm, 0, ref[i], page.bytes, NULL) == -VMEM_EAGAIN;
}

/* So many pages that are out, one after the other; by loads, or by peeks. */
static void touch(uint32_t first, uint32_t pages, bool peeks)
{
	struct vmem_store_event event;
	vmem_store_token token;
	struct vmemt_page page;

	for (uint32_t i = first; i < first + pages; i++) {
		int rc = peeks ? vmem_store_peek(store, vm, 7, ref[i], page.bytes, &token)
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
static uint32_t count_out(uint32_t first, uint32_t pages)
{
	uint32_t out = 0;

	for (uint32_t i = first; i < first + pages; i++)
		out += is_out(i);
	return out;
}

enum { MANY = 40 }; /* of one segment: two blocks each */

Test(store_out_home, what_is_read_often)
{
	uint64_t reads;

	open_room();
	cr_assert_eq(count_out(0, MANY), MANY);
	for (int turn = 0; count_out(0, MANY); turn++) {
		cr_assert_lt(turn, 100);
		touch(0, MANY, false);
		work();
		settle();
	}
	cr_assert_gt(out_stats().came_home, 0);
	reads = atomic_load(&device.reads);
	touch(0, MANY, false);
	cr_assert_eq(atomic_load(&device.reads), reads);
	cr_assert_gt(out_stats().segments, 0);
	expect_all();
	cr_assert_null(vmemi_store_check(store));
}

/* Each page twice: with that, reading them whole would have been cheaper. Once is not enough. */
Test(store_out_home, what_is_read_once_stays)
{
	open_room();
	touch(0, MANY, false);
	work();
	settle();
	cr_assert_eq(out_stats().came_home, 0);
}

Test(store_out_home, what_is_read_seldom_stays)
{
	open_room();
	for (int turn = 0; turn < 100; turn++) {
		touch(0, MANY / 2, false);
		now_ns += UINT64_C(60) * SECOND;
		work();
		settle();
	}
	cr_assert_eq(out_stats().came_home, 0);
}

Test(store_out_home, peeks_bring_nothing_home)
{
	open_room();
	for (int turn = 0; turn < 10; turn++) {
		touch(0, MANY, true);
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
		touch(0, MANY, false);
		work();
		settle();
	}
	cr_assert_eq(out_stats().came_home, 0);
}

/* It is as young as what is saved now: others leave before it. */
Test(store_out_home, what_came_home_does_not_leave_first)
{
	open_room();
	for (int turn = 0; count_out(0, MANY); turn++) {
		cr_assert_lt(turn, 100);
		touch(0, MANY, false);
		work();
		settle();
	}
	for (int i = 0; i < 4; i++)
		write_one();
	cr_assert_eq(count_out(0, MANY), 0);
	expect_all();
	cr_assert_null(vmemi_store_check(store));
}

Test(store_out_home, what_cannot_be_read_whole_stays)
{
	open_room();
	for (int turn = 0; turn < 3; turn++)
		touch(0, MANY, false);
	atomic_store(&device.read_error, -VMEM_EIO);
	work();
	settle();
	atomic_store(&device.read_error, 0);
	cr_assert_eq(out_stats().came_home, 0);
	cr_assert_eq(stats_of(0).unreadable_bytes, 0);
	expect_all();
	cr_assert_null(vmemi_store_check(store));
}
