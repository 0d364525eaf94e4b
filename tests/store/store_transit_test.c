/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that do not compress, which only pass through memory on their way to a device. */
#include "store/out_tools.h"
#include "store/store_internal.h"
#include "support/rng.h"

enum { LIMIT = 3000, TEXTS = 400, NOISES = 11 * 63, FEW = 8 };

/* So much of what passes is in memory at the most: what waits, is written, or is being filled. */
enum { IN_MEMORY = (4 + VMEMI_WRITES + 2) * VMEM_POOL_SEGMENT_BYTES };

static void open_limited(uint64_t flags, uint64_t budget_bytes)
{
	const struct vmem_store_opts opts = { .size = sizeof(opts),
					      .flags = flags,
					      .allocator = &heap.allocator,
					      .budget_bytes = budget_bytes,
					      .cold_after_ms = 1,
					      .max_object_bytes = LIMIT };

	vmemt_fail_alloc_init(&heap);
	cr_assert_eq(vmem_store_new(&store, &opts), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
	memset(ref, 0, sizeof(ref));
}

static void open_with_room(void)
{
	open_limited(VMEM_STORE_AS_SAVED, 0);
	add(&device, 32 * MIB, 0);
}

TestSuite(store_transit, .init = open_with_room, .fini = close_store);

static struct vmem_store_account account(void)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	cr_assert_eq(vmem_store_vm_account(store, vm, &a), 0);
	return a;
}

static void save_noise(uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		ref[i] = save(vm, VMEMT_PAGE_NOISE, i * EDITS);
}

Test(store_transit, they_leave_first_and_are_pages_as_others)
{
	static vmem_store_ref text[TEXTS];
	struct vmemt_page page;

	add(&second, 4 * MIB, -1);
	for (uint32_t i = 0; i < TEXTS; i++)
		text[i] = save(vm, VMEMT_PAGE_TEXT, i * EDITS);
	cr_assert_eq(out_stats().passed, 0);
	save_noise(NOISES);
	work();
	settle();
	cr_assert_eq(out_stats().passed, NOISES);
	cr_assert_eq(out_stats().segments, NOISES / 63); /* no page more fits into the last */
	cr_assert_eq(account().pages, NOISES + TEXTS);
	cr_assert_eq(account().pages_raw, NOISES);
	cr_assert_eq(account().rejects, 0);
	for (uint32_t i = 0; i < TEXTS; i++) { /* older, and in memory */
		cr_assert_eq(vmem_store_load(store, vm, 0, text[i], page.bytes, NULL), 0);
		cr_assert(is_page(&page, VMEMT_PAGE_TEXT, i * EDITS));
	}
	expect_all();
	cr_assert_null(vmemi_store_check(store));
	for (uint32_t i = 0; i < NOISES; i++)
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
	work();
	cr_assert_eq(stats_of(0).taken_bytes, 0);
	cr_assert_eq(account().pages_raw, 0);
}

Test(store_transit, they_are_no_bytes_of_the_account_once_they_are_out)
{
	const struct vmem_store_vm_opts capped = { .size = sizeof(capped),
						   .vm_bytes = 20 * MIB,
						   .cap_percent = 25 };

	cr_assert_eq(vmem_store_add_vm(store, &capped, &vm), 0);
	save_noise(PAGES); /* more than twice its cap */
	settle();
	cr_assert_lt(account().physical_bytes, (uint64_t)VMEM_POOL_SEGMENT_BYTES);
	cr_assert_eq(account().logical_bytes, (uint64_t)PAGES * 4096);
	expect_all();
}

Test(store_transit, equal_ones_are_one_while_they_are_in_memory)
{
	vmem_store_ref first = save(vm, VMEMT_PAGE_NOISE, EDITS);

	cr_assert_eq(save(vm, VMEMT_PAGE_NOISE, EDITS), first);
	cr_assert_eq(account().pages_equal, 1);
	cr_assert_eq(account().pages_raw, 1); /* of the other it is said that it is equal */
	cr_assert_eq(out_stats().passed, 1);
	cr_assert_eq(vmem_store_drop(store, vm, first), 0);
	expect(first, VMEMT_PAGE_NOISE, EDITS);
}

/* Its write was not answered in time; once the device has let go of its memory, it waits as before. */
Test(store_transit, those_that_were_late_leave_after_all)
{
	atomic_store(&device.hold, 1);
	save_noise(2 * 64);
	work();
	cr_assert_gt(out_stats().writing, 0);
	now_ns += UINT64_C(31000000000);
	work();
	cr_assert_eq(out_stats().writing, 0);
	cr_assert_eq(out_stats().segments, 0);
	atomic_store(&device.hold, 0);
	cr_assert_eq(vmem_store_poll(store, NULL, 0), 0);
	work();
	cr_assert_null(vmemi_store_check(store));
	cr_assert_gt(vmemi_pool_waiting(store->pool), 0);
	add(&second, 4 * MIB, 0);
	work();
	settle();
	cr_assert_gt(out_stats().segments, 0);
	expect_all();
}

static int refusal(void)
{
	vmem_store_ref r;
	int rc = 0;

	for (uint64_t i = 0; !rc; i++) {
		cr_assert_lt(i, TURNS);
		rc = save_page(vm, VMEMT_PAGE_NOISE, (1000 + i) * EDITS, &r);
		work();
	}
	settle();
	return rc;
}

Test(store_transit, without_a_device_they_are_refused)
{
	vmem_store_ref r;

	close_store();
	open_limited(VMEM_STORE_AS_SAVED, 0);
	cr_assert_eq(save_page(vm, VMEMT_PAGE_NOISE, 0, &r), -VMEM_EFBIG);
	cr_assert_eq(account().rejects, 1);
	add(&device, 2 * MIB, 0);
	cr_assert_eq(save_page(vm, VMEMT_PAGE_NOISE, 0, &r), 0);
	cr_assert_eq(refusal(), -VMEM_EFBIG); /* it is full */
	cr_assert_gt(out_stats().no_room, 0);
	cr_assert_eq(save_page(vm, VMEMT_PAGE_TEXT, 0, &r), 0);
}

Test(store_transit, a_device_that_fails_is_none)
{
	vmem_store_ref r;

	atomic_store(&device.write_error, -VMEM_EIO);
	cr_assert_eq(refusal(), -VMEM_EFBIG);
	cr_assert_eq(stats_of(0).is_bad, 1);
	cr_assert_leq(account().physical_bytes, (uint64_t)IN_MEMORY);
	cr_assert_eq(save_page(vm, VMEMT_PAGE_NOISE, 0, &r), -VMEM_EFBIG);
}

Test(store_transit, a_worn_device_is_none)
{
	const struct vmem_store_device_opts opts = { .size = sizeof(opts),
						     .wear_bytes_per_day =
							     VMEM_POOL_SEGMENT_BYTES - 1 };
	vmem_store_ref r;

	close_store();
	open_limited(VMEM_STORE_AS_SAVED, 0);
	vmemt_memory_device_init(&device, 32 * MIB, 32);
	cr_assert_eq(vmem_store_add_device(store, &device.device, &opts, NULL), 0);
	cr_assert_eq(save_page(vm, VMEMT_PAGE_NOISE, 0, &r), -VMEM_EFBIG);
}

/* They are not kept in memory instead. */
Test(store_transit, a_slow_device_holds_them_up)
{
	vmem_store_ref r;
	uint32_t count = 0;
	int rc;

	atomic_store(&device.hold, 1);
	while (!(rc = save_page(vm, VMEMT_PAGE_NOISE, count * EDITS, &r)))
		ref[count++] = r;
	cr_assert_eq(rc, -VMEM_ENOSPC);
	cr_assert_gt(out_stats().saves_waited, 0);
	cr_assert_leq(account().physical_bytes, (uint64_t)IN_MEMORY);
	cr_assert_eq(save_page(vm, VMEMT_PAGE_TEXT, 0, &r), 0);
	atomic_store(&device.hold, 0);
	for (; count < NOISES * 2; count++)
		ref[count] = save(vm, VMEMT_PAGE_NOISE, count * EDITS);
	settle();
	expect_all();
	cr_assert_null(vmemi_store_check(store));
}

/* A few that fill no segment leave when memory is short. */
Test(store_transit, the_budget_is_kept)
{
	struct vmem_store_account total = { .size = sizeof(total) };
	struct vmemt_page page;

	close_store();
	open_limited(VMEM_STORE_AS_SAVED, 2 * MIB);
	add(&device, 32 * MIB, 0);
	for (uint32_t i = 0; i < PAGES; i++)
		ref[i] = save(vm, i < FEW ? VMEMT_PAGE_NOISE : VMEMT_PAGE_TEXT, i * EDITS);
	settle();
	cr_assert_eq(vmem_store_total_account(store, &total), 0);
	cr_assert_leq(total.segment_bytes, (uint64_t)(2 * MIB));
	cr_assert_eq(vmem_store_load(store, vm, 0, ref[0], page.bytes, NULL), -VMEM_EAGAIN);
	for (uint32_t i = 0; i < PAGES; i++)
		expect(ref[i], i < FEW ? VMEMT_PAGE_NOISE : VMEMT_PAGE_TEXT, i * EDITS);
}

/* With all that goes on in a store besides. */
Test(store_transit, random_operations)
{
	uint64_t state = vmemt_seed("store_transit");

	close_store();
	open_limited(0, BUDGET);
	add(&device, 64 * MIB, 0);
	for (uint32_t step = 0; step < 20000; step++) {
		uint32_t i = (uint32_t)(vmemt_rand(&state) % PAGES);
		enum vmemt_page_kind kind = i % 4 ? VMEMT_PAGE_TEXT : VMEMT_PAGE_NOISE;
		uint64_t seed = vmemt_rand(&state) % (PAGES * 2);

		churn(i, kind, seed, vmemt_rand(&state) % 2);
		if (step % 16 == 0)
			work();
		if (step % 4096 == 0) {
			const char *wrong;

			settle();
			wrong = vmemi_store_check(store);
			cr_assert_null(wrong, "%s", wrong);
		}
	}
	cr_assert_gt(out_stats().passed, 1000);
	cr_assert_eq(out_stats().lost, 0);
}
