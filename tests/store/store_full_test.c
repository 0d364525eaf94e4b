/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices that have no space: what they are asked for, and when again. */
#include "store/out_tools.h"

TestSuite(store_full, .init = open_with_device, .fini = close_store);

/* A write in vain, and none that looks like writing after it. */
static void find_no_space(void)
{
	uint64_t errors, waited;

	write_one();
	errors = stats_of(0).write_errors;
	cr_assert(errors && stats_of(0).is_full && !stats_of(0).is_bad);
	waited = out_stats().saves_waited;
	for (int turn = 0; turn < 900; turn++) { /* below a second */
		vmem_store_write_out(store, 4 * MIB);
		work();
		cr_assert_eq(out_stats().writing, 0);
		cr_assert_eq(vmem_store_poll(store, NULL, 0), 0);
	}
	cr_assert_eq(stats_of(0).write_errors, errors);
	cr_assert_eq(out_stats().saves_waited, waited);
	cr_assert_eq(out_stats().segments, 0);
}

Test(store_full, a_device_without_space_is_tried_again_after_a_second)
{
	uint64_t errors;

	save_some();
	atomic_store(&device.write_error, -VMEM_ENOSPC);
	for (int i = 0; i < 2; i++) {
		find_no_space();
		errors = stats_of(0).write_errors;
		now_ns += 1000000000;
		write_one();
		cr_assert_gt(stats_of(0).write_errors, errors);
	}
	atomic_store(&device.write_error, 0);
	work(); /* its second begins */
	now_ns += 1000000000;
	write_one();
	cr_assert_eq(stats_of(0).is_full, 0);
	cr_assert_geq(out_stats().segments, 1);
	expect_all();
}

/* Where the device is told of them, once that is done; and without a clock. */
static void space_that_is_given_back(bool discards)
{
	uint64_t errors;

	vmemt_store_close(store, &heap);
	open_store(VMEM_STORE_AS_SAVED);
	vmemt_memory_device_init(&device, 32 * MIB, 32);
	device.device.flags |= discards ? VMEM_DEVICE_CAN_DISCARD : 0;
	cr_assert_eq(vmem_store_add_device(store, &device.device, NULL, NULL), 0);
	save_some();
	write_one();
	cr_assert_eq(out_stats().segments, 1);
	atomic_store(&device.write_error, -VMEM_ENOSPC);
	write_one();
	errors = stats_of(0).write_errors;
	cr_assert(errors && stats_of(0).is_full);
	atomic_store(&device.write_error, 0);
	for (int turn = 0; turn < 10; turn++) {
		vmem_store_write_out(store, VMEM_POOL_SEGMENT_BYTES);
		(void)vmem_store_work(store, 1000000, 0);
		cr_assert_eq(vmem_store_poll(store, NULL, 0), 0);
	}
	cr_assert_eq(out_stats().segments, 1);
	for (uint32_t i = 0; out_stats().segments; i++) {
		cr_assert_lt(i, PAGES / 5);
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
		ref[i] = 0;
		vmemi_pool_maintain(store->pool);
	}
	for (int turn = 0; !out_stats().segments; turn++) {
		cr_assert_lt(turn, TURNS);
		vmem_store_write_out(store, VMEM_POOL_SEGMENT_BYTES);
		(void)vmem_store_work(store, 1000000, 0);
		cr_assert_eq(vmem_store_poll(store, NULL, 0), 0);
	}
	cr_assert_eq(stats_of(0).write_errors, errors);
	cr_assert_eq(stats_of(0).is_full, 0);
	expect_all();
}

Test(store_full, a_device_without_space_is_tried_again_when_something_is_given_back)
{
	space_that_is_given_back(false);
}

Test(store_full, space_that_is_discarded_is_tried_again)
{
	space_that_is_given_back(true);
}
