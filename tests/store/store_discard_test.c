/* SPDX-License-Identifier: BSD-2-Clause */
/* What is given back is discarded on devices that can, before it is written again. */
#include "store/out_tools.h"
#include "support/rng.h"

static void open_discarding(uint64_t bytes)
{
	open_store(VMEM_STORE_AS_SAVED);
	vmemt_memory_device_init(&device, bytes, 32);
	device.device.flags = VMEM_DEVICE_CAN_DISCARD;
	cr_assert_eq(vmem_store_add_device(store, &device.device, NULL, NULL), 0);
}

static void open_32(void)
{
	open_discarding(32 * MIB);
}

TestSuite(store_discard, .init = open_32, .fini = close_store);

static uint64_t drop_all(void)
{
	uint64_t taken;

	settle();
	taken = stats_of(0).taken_bytes;
	for (uint32_t i = 0; i < PAGES; i++)
		if (ref[i])
			cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
	memset(ref, 0, sizeof(ref));
	return taken;
}

Test(store_discard, what_was_given_back)
{
	uint64_t taken;

	save_all();
	taken = drop_all();
	cr_assert_gt(taken, (uint64_t)MIB);
	cr_assert_eq(atomic_load(&device.discards), 0);
	for (int turn = 0; atomic_load(&device.discards) < taken; turn++) {
		cr_assert_lt(turn, TURNS);
		work();
		cr_assert_eq(vmem_store_poll(store, NULL, 0), 0);
	}
	cr_assert_eq(atomic_load(&device.discards), taken);
	cr_assert_eq(stats_of(0).taken_bytes, 0);
}

/* A full device: only what has been discarded is room. */
Test(store_discard, is_not_written_before_that_is_over)
{
	uint64_t writes;

	vmemt_store_close(store, &heap);
	open_discarding(2 * MIB);
	save_some();
	for (int i = 0; i < 8; i++)
		write_one();
	cr_assert_eq(stats_of(0).taken_bytes, (uint64_t)(2 * MIB));
	(void)drop_all();
	save_some();
	atomic_store(&device.hold, 1);
	writes = atomic_load(&device.writes);
	vmem_store_write_out(store, MIB);
	for (int i = 0; i < 100; i++) {
		work();
		cr_assert_eq(vmem_store_poll(store, NULL, 0), 0);
		cr_assert_eq(out_stats().writing, 0);
	}
	cr_assert_eq(atomic_load(&device.writes), writes);
	atomic_store(&device.hold, 0);
	for (int turn = 0; out_stats().segments < 4; turn++) {
		cr_assert_lt(turn, TURNS);
		work();
		settle();
	}
	expect_all();
}

Test(store_discard, may_fail)
{
	atomic_store(&device.discard_error, -VMEM_ENOTSUP);
	save_all();
	for (int round = 0; round < 3; round++) {
		(void)drop_all();
		save_all();
		settle();
	}
	cr_assert_gt(atomic_load(&device.discards), 0);
	expect_all();
}

Test(store_discard, a_device_that_leaves_is_not_discarded)
{
	uint64_t before;
	int rc;

	save_all();
	(void)drop_all();
	vmemi_pool_maintain(store->pool);
	before = atomic_load(&device.discards);
	while ((rc = vmem_store_remove_device(store, 0)) == -VMEM_EBUSY)
		work();
	cr_assert_eq(rc, 0);
	cr_assert_eq(atomic_load(&device.discards), before);
}

Test(store_discard, random_operations)
{
	uint64_t state = vmemt_seed("store_discard");

	vmemt_store_close(store, &heap);
	open_discarding(8 * MIB);
	memset(ref, 0, sizeof(ref));
	for (uint32_t step = 0; step < 15000; step++) {
		uint32_t i = (uint32_t)(vmemt_rand(&state) % (PAGES / 2));
		uint64_t seed = vmemt_rand(&state) % (PAGES * 2) * EDITS;

		churn(i, VMEMT_PAGE_NOISE, seed, vmemt_rand(&state) % 2);
		if (step % 16 == 0)
			work();
		if (step % 512 == 0)
			vmem_store_write_out(store, MIB);
	}
	cr_assert_gt(atomic_load(&device.discards), 0);
	settle();
	cr_assert_null(vmemi_store_check(store));
}
