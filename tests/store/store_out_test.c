/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that go to devices and come back, and devices that fail. */
#include "store/out_tools.h"
#include "support/rng.h"

TestSuite(store_out, .init = open_with_device, .fini = close_store);

Test(store_out, more_than_the_budget_is_stored_and_comes_back)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	save_all();
	settle();
	cr_assert_gt(out_stats().segments, 0);
	cr_assert_gt(out_stats().live_bytes, (uint64_t)(PAGES * 4096 - BUDGET));
	cr_assert_eq(vmem_store_total_account(store, &a), 0);
	cr_assert_eq(a.pages, PAGES);
	cr_assert_leq(a.segment_bytes, (uint64_t)BUDGET);
	cr_assert_eq(stats_of(0).written_bytes, stats_of(0).taken_bytes);
	expect_all();
	cr_assert_gt(out_stats().loads, 0);
	cr_assert_eq(out_stats().lost, 0);
}

Test(store_out, drops_need_no_device_and_give_its_room_back)
{
	save_all();
	settle();
	atomic_store(&device.read_error, -VMEM_EIO);
	for (uint32_t i = 0; i < PAGES; i++)
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
	work();
	cr_assert_eq(stats_of(0).taken_bytes, 0);
	cr_assert_eq(out_stats().segments, 0);
	cr_assert_eq(atomic_load(&device.reads), 0);
}

Test(store_out, a_vm_that_is_dropped_gives_its_room_back)
{
	uint32_t old = vm;

	save_all();
	settle();
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
	cr_assert_eq(vmem_store_drop_vm(store, old), 0);
	work();
	cr_assert_eq(stats_of(0).taken_bytes, 0);
}

Test(store_out, without_a_token_it_is_not_now)
{
	struct vmemt_page page;

	save_all();
	settle();
	cr_assert_eq(vmem_store_load(store, vm, 0, first_out(), page.bytes, NULL), -VMEM_EAGAIN);
	cr_assert_eq(vmem_store_peek(store, vm, 0, first_out(), page.bytes, NULL), -VMEM_EAGAIN);
}

Test(store_out, what_cannot_be_written_stays_in_memory)
{
	uint32_t saved = 0;

	atomic_store(&device.write_error, -VMEM_EIO);
	while (saved < PAGES && !save_page(vm, VMEMT_PAGE_NOISE, saved * EDITS, &ref[saved])) {
		saved++;
		work();
	}
	cr_assert_lt(saved, PAGES);
	for (int turn = 0; !stats_of(0).is_bad; turn++) {
		cr_assert_lt(turn, TURNS);
		work();
	}
	settle();
	cr_assert_geq(stats_of(0).write_errors, 4);
	cr_assert_eq(stats_of(0).taken_bytes, 0);
	cr_assert_eq(out_stats().segments, 0);
	expect_all();
}

Test(store_out, what_one_device_refuses_goes_to_another)
{
	add(&second, 32 * MIB, -1);
	atomic_store(&device.write_error, -VMEM_ENOMEM);
	save_all();
	settle();
	cr_assert_gt(stats_of(0).write_errors, 4);
	cr_assert_eq(stats_of(0).is_bad, 0);
	cr_assert_eq(stats_of(0).taken_bytes, 0);
	cr_assert_gt(stats_of(1).taken_bytes, 0);
	expect_all();
	atomic_store(&device.write_error, 0);
	write_one();
	cr_assert_gt(stats_of(0).taken_bytes, 0);
}

Test(store_out, what_one_place_refuses_goes_to_another)
{
	save_some();
	atomic_store(&device.bad_place, UINT64_MAX);
	write_one();
	cr_assert_eq(stats_of(0).write_errors, 1);
	cr_assert_eq(out_stats().segments, 1);
	expect_all();
}

/* Callers call again while there is more to do: not for what only the device can do. */
Test(store_out, a_device_that_never_answers_leaves_nothing_to_do)
{
	save_all();
	settle();
	atomic_store(&device.hold, 1);
	vmem_store_write_out(store, 64 * MIB);
	for (int turn = 0; vmem_store_work(store, 1000000, now_ns); turn++)
		cr_assert_lt(turn, TURNS);
	cr_assert_eq(out_stats().writing, VMEMI_WRITES);
	cr_assert_leq(atomic_load(&store->out->scratches), 2); /* none of them is sparse */
}

Test(store_out, places_of_failed_writes_are_room_again)
{
	vmemt_store_close(store, &heap);
	open_store(VMEM_STORE_AS_SAVED);
	add(&device, 2 * MIB, 0);
	save_some();
	for (int i = 0; i < 7; i++) /* the last place is left */
		write_one();
	atomic_store(&device.hold, 1);
	vmem_store_write_out(store, 2 * MIB);
	work();
	cr_assert_gt(out_stats().no_room, 0);
	atomic_store(&device.write_error, -VMEM_ENOMEM);
	atomic_store(&device.hold, 0);
	settle();
	cr_assert_eq(out_stats().segments, 7);
	atomic_store(&device.write_error, 0);
	write_one();
	cr_assert_eq(out_stats().segments, 8);
	expect_all();
}

Test(store_out, of_several_devices_none_is_waited_for_long)
{
	struct vmemt_page page;
	vmem_store_token token;

	save_all();
	settle();
	cr_assert_eq(vmem_store_load(store, vm, 0, first_out(), page.bytes, &token),
		     -VMEM_EINPROGRESS);
	vmem_store_wait(store, 1000000000);
	cr_assert_eq(atomic_load(&device.waited_ns), 1000000000);
	add(&second, 4 * MIB, 0);
	vmem_store_wait(store, 1000000000);
	cr_assert_leq(atomic_load(&device.waited_ns), 1000000);
	for (int turn = 0; !poll_loaded(&(struct vmem_store_event){ 0 }, 1); turn++)
		cr_assert_lt(turn, TURNS);
}

Test(store_out, the_greater_priority_is_filled_first)
{
	add(&second, 4 * MIB, 1);
	save_all();
	settle();
	cr_assert_gt(stats_of(1).taken_bytes, (uint64_t)(3 * MIB));
	cr_assert_gt(stats_of(0).taken_bytes, 0);
	expect_all();
}

Test(store_out, a_device_that_vanishes_loses_what_is_there_and_nothing_else)
{
	struct vmemt_page page;
	uint32_t lost = 0;

	save_all();
	settle();
	atomic_store(&device.submit_error, -VMEM_ENODEV);
	for (uint32_t i = 0; i < PAGES; i++) {
		int rc = load(ref[i], page.bytes);

		cr_assert(rc == -VMEM_EIO || (!rc && is_page(&page, VMEMT_PAGE_NOISE, i * EDITS)));
		lost += rc != 0;
	}
	cr_assert_gt(lost, 0);
	cr_assert_eq(out_stats().lost, lost);
	for (int turn = 0; !stats_of(0).is_bad; turn++) {
		cr_assert_lt(turn, TURNS);
		vmem_store_write_out(store, MIB);
		work();
	}
	atomic_store(&device.submit_error, 0);
	expect_all();
}

/* What is read is not what was written, in three ways: each is an error, and the page is there again when it is. */
Test(store_out, wrong_bytes_are_no_page)
{
	struct vmemt_page page;
	vmem_store_ref r;

	save_all();
	settle();
	r = first_out();
	atomic_store(&device.corrupt, 1);
	cr_assert_eq(load(r, page.bytes), -VMEM_EIO);
	atomic_store(&device.corrupt, 0);
	atomic_store(&device.short_reads, 1);
	cr_assert_eq(load(r, page.bytes), -VMEM_EIO);
	atomic_store(&device.short_reads, 0);
	atomic_store(&device.read_error, -VMEM_EIO);
	cr_assert_eq(load(r, page.bytes), -VMEM_EIO);
	atomic_store(&device.read_error, 0);
	cr_assert_eq(out_stats().lost, 3);
	expect_all();
}

/* So many reads are as they should be, so many that follow are not; with which error, 0: other bytes. */
static int spared, spoiled, spoil_error;

static int spoil(struct vmemt_memory_device *m, const struct vmem_device_request *r)
{
	(void)m;
	if (spared-- > 0 || spoiled-- <= 0)
		return 0;
	memset(r->data, 0x5a, r->bytes);
	return spoil_error;
}

/* Unless the device says that it is gone; a want of memory says nothing of the page. */
Test(store_out, what_could_not_be_read_is_read_again)
{
	static const int errors[] = { 0, -VMEM_EIO, -VMEM_ENOMEM, -VMEM_ENODEV };
	struct vmemt_page page;
	uint64_t lost = 0;

	save_all();
	settle();
	device.spoil = spoil;
	for (uint32_t i = 0; i < 4; i++)
		for (int times = 1; times <= 3; times++) {
			bool gone = (times == 3 && errors[i] != -VMEM_ENOMEM) ||
				    errors[i] == -VMEM_ENODEV;

			spared = 0;
			spoiled = times;
			spoil_error = errors[i];
			cr_assert_eq(load(first_out(), page.bytes), gone ? -VMEM_EIO : 0);
			lost += gone;
			cr_assert_eq(out_stats().lost, lost);
		}
	cr_assert_eq(stats_of(0).read_errors, 2 * (1 + 2 + 3) + 3);
	spoiled = 0;
	device.spoil = NULL;
	expect_all();
}

/* Of the tables of slots only what is used, and what a cursor has. */
Test(store_out, what_is_not_out_any_more_takes_no_memory)
{
	struct vmem_slots_stats before = { .size = sizeof(before) }, after = before;

	save_all();
	settle();
	cr_assert_eq(vmem_slots_get_stats(store->out->slots, 0, &before), 0);
	for (uint32_t i = 0; i < PAGES; i++)
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
	for (int turn = 0; turn < 3; turn++)
		work();
	cr_assert_eq(vmem_slots_get_stats(store->out->slots, 0, &after), 0);
	cr_assert_eq(after.taken, 0);
	cr_assert_lt(after.bytes, before.bytes);
}

/* A delta is read anew with its reference. */
Test(store_out, what_could_not_be_read_of_a_delta_is_read_again)
{
	uint64_t reads;

	vmemt_store_close(store, &heap);
	open_store(0);
	add(&device, 32 * MIB, 0);
	memset(ref, 0, sizeof(ref));
	for (uint32_t i = 0; i < PAGES; i++)
		ref[i] = save(vm, VMEMT_PAGE_TEXT, i);
	for (int turn = 0; turn < 64; turn++)
		work();
	vmem_store_write_out(store, 8 * MIB);
	for (int turn = 0; turn < 64; turn++)
		work();
	settle();
	cr_assert_gt(out_stats().segments, 0);
	device.spoil = spoil;
	spoil_error = 0;
	reads = atomic_load(&device.reads);
	for (uint32_t i = 0; i < PAGES; i++) {
		spared = (int)(i % 2);
		spoiled = (int)(i % 3);
		expect(ref[i], VMEMT_PAGE_TEXT, i);
	}
	for (uint32_t i = 0; i < PAGES; i++)
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
	work();
	cr_assert_eq(stats_of(0).taken_bytes, 0); /* no read holds any of it */
	cr_assert_gt(atomic_load(&device.reads), reads);
	cr_assert_eq(out_stats().lost, 0);
	spoiled = 0;
	device.spoil = NULL;
}

Test(store_out, a_device_that_never_answers_holds_its_loads_only)
{
	struct vmemt_page page[VMEMI_WINDOWS + 1];
	struct vmem_store_event event[4];
	vmem_store_token token;
	vmem_store_ref r;
	uint32_t n, over = 0;

	save_all();
	settle();
	r = first_out();
	memset(page, 0x77, sizeof(page));
	atomic_store(&device.hold, 1);
	for (n = 0; n < VMEMI_WINDOWS; n++)
		cr_assert_eq(vmem_store_load(store, vm, n, r, page[n].bytes, &token),
			     -VMEM_EINPROGRESS);
	cr_assert_eq(vmem_store_load(store, vm, n, r, page[n].bytes, &token), -VMEM_EAGAIN);
	cr_assert_eq(vmem_store_poll(store, event, 4), 0);
	cr_assert_eq(vmem_store_drop(store, vm, r), -VMEM_EBUSY);
	cr_assert_eq(vmem_store_drop_vm(store, vm), -VMEM_EBUSY);
	expect(ref[PAGES - 1], VMEMT_PAGE_NOISE, (PAGES - 1) * EDITS);
	for (n = 0; n < VMEMI_WINDOWS; n++)
		cr_assert_eq(page[n].bytes[100], 0x77);
	atomic_store(&device.hold, 0);
	for (int turn = 0; over < VMEMI_WINDOWS; turn++) {
		cr_assert_lt(turn, TURNS);
		n = poll_loaded(event, 4);
		for (uint32_t i = 0; i < n; i++)
			cr_assert_eq(event[i].result, 0);
		over += n;
	}
	cr_assert_eq(vmem_store_drop(store, vm, r), 0);
}

Test(store_out, a_store_is_freed_with_all_in_flight)
{
	struct vmemt_page page;
	vmem_store_token token;

	save_all();
	atomic_store(&device.hold, 1);
	vmem_store_write_out(store, MIB);
	work();
	cr_assert_gt(out_stats().writing, 0);
	cr_assert_eq(vmem_store_load(store, vm, 0, first_out(), page.bytes, &token),
		     -VMEM_EINPROGRESS);
	vmem_store_free(store);
	cr_assert_eq(heap.live_bytes, 0);
	open_with_device();
}

/* Then saves are refused, and it is seen. */
Test(store_out, a_device_slower_than_saves_is_seen)
{
	vmem_store_ref r;
	uint64_t seed = 0;

	atomic_store(&device.hold, 1);
	while (!save_page(vm, VMEMT_PAGE_NOISE, seed * EDITS, &r)) {
		seed++;
		work();
	}
	cr_assert_gt(out_stats().saves_waited, 0);
	cr_assert_gt(out_stats().writing, 0);
	cr_assert_eq(out_stats().segments, 0);
}

Test(store_out, a_full_device_is_seen_and_goes_on_when_there_is_room)
{
	uint32_t saved = 0;

	vmemt_store_close(store, &heap);
	open_store(VMEM_STORE_AS_SAVED);
	add(&device, 2 * MIB, 0);
	while (saved < PAGES && !save_page(vm, VMEMT_PAGE_NOISE, saved * EDITS, &ref[saved])) {
		saved++;
		work();
	}
	settle();
	cr_assert_lt(saved, PAGES);
	cr_assert_gt(out_stats().no_room, 0);
	expect_all();
	for (uint32_t i = 0; i < saved; i++)
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
	memset(ref, 0, sizeof(ref));
	for (uint32_t i = 0; i < saved; i++)
		ref[i] = save(vm, VMEMT_PAGE_NOISE, i * EDITS);
	settle();
	expect_all();
}

static void open_with_limit(uint64_t wear_bytes_per_day)
{
	const struct vmem_store_device_opts opts = { .size = sizeof(opts),
						     .wear_bytes_per_day = wear_bytes_per_day };

	vmemt_store_close(store, &heap);
	open_store(VMEM_STORE_AS_SAVED);
	vmemt_memory_device_init(&device, 32 * MIB, 32);
	cr_assert_eq(vmem_store_add_device(store, &device.device, &opts, NULL), 0);
}

Test(store_out, a_limit_below_a_segment_is_reached_at_once)
{
	open_with_limit(VMEM_POOL_SEGMENT_BYTES - 1);
	cr_assert_eq(stats_of(0).is_worn, 1);
	save_some();
	write_one();
	cr_assert_eq(stats_of(0).written_bytes, 0);
}

/* Whatever the clock says then. */
Test(store_out, the_first_work_does_not_begin_a_new_day)
{
	uint64_t written;
	vmem_store_ref r;

	open_with_limit(MIB);
	for (uint64_t i = 0; !stats_of(0).is_worn; i++) {
		cr_assert_lt(i, TURNS);
		(void)save_page(vm, VMEMT_PAGE_NOISE, i * EDITS, &r);
	}
	settle();
	written = stats_of(0).written_bytes;
	cr_assert_gt(written, 0);
	now_ns = UINT64_C(864000000000000);
	write_one();
	cr_assert_eq(stats_of(0).written_bytes, written);
}

Test(store_out, failed_writes_wear_too)
{
	open_with_limit(8 * MIB);
	save_some();
	atomic_store(&device.write_error, -VMEM_EIO);
	write_one();
	cr_assert_eq(stats_of(0).write_errors, 3);
	cr_assert_lt(stats_of(0).wear_left_bytes,
		     (uint64_t)(8 * MIB - 2 * VMEM_POOL_SEGMENT_BYTES));
}

Test(store_out, no_more_is_written_in_a_day_than_may_be)
{
	uint64_t written;

	open_with_limit(MIB);
	for (uint32_t i = 0; i < PAGES && !save_page(vm, VMEMT_PAGE_NOISE, i * EDITS, &ref[i]); i++)
		work();
	settle();
	written = stats_of(0).written_bytes;
	cr_assert(written && written <= MIB);
	cr_assert_eq(stats_of(0).is_worn, 1);
	cr_assert_lt(stats_of(0).wear_left_bytes, (uint64_t)MIB);
	expect_all();
	now_ns += UINT64_C(86400000000000);
	for (int turn = 0; stats_of(0).written_bytes == written; turn++) {
		cr_assert_lt(turn, TURNS);
		work();
	}
	settle();
	expect_all();
}

Test(store_out, plain_text_outlives_nobody_unasked)
{
	struct vmem_store_device_opts opts = { .size = sizeof(opts) };

	vmemt_memory_device_init(&second, 8 * MIB, 4);
	second.device.flags = VMEM_DEVICE_OUTLIVES;
	cr_assert_eq(vmem_store_add_device(store, &second.device, NULL, NULL), -VMEM_EPERM);
	opts.flags = VMEM_STORE_DEVICE_PLAIN << 1;
	cr_assert_eq(vmem_store_add_device(store, &second.device, &opts, NULL), -VMEM_EINVAL);
	opts.flags = 0;
	second.device.size_bytes = MIB;
	second.device.flags = 0;
	cr_assert_eq(vmem_store_add_device(store, &second.device, &opts, NULL), -VMEM_EINVAL);
	second.device.size_bytes = 8 * MIB;
	second.device.flags = VMEM_DEVICE_OUTLIVES | VMEM_DEVICE_ENCRYPTED;
	cr_assert_eq(vmem_store_add_device(store, &second.device, &opts, NULL), 0);
}

Test(store_out, each_allocation_of_a_first_device_may_fail)
{
	for (long n = 0;; n++) {
		int rc;

		vmemt_store_close(store, &heap);
		open_store(VMEM_STORE_AS_SAVED);
		vmemt_memory_device_init(&device, 32 * MIB, 4);
		heap.calls = heap.failed = 0;
		heap.fail_after = n;
		rc = vmem_store_add_device(store, &device.device, NULL, NULL);
		heap.fail_after = -1;
		if (!heap.failed) {
			cr_assert_eq(rc, 0);
			break;
		}
		cr_assert_eq(rc, -VMEM_ENOMEM);
		cr_assert_eq(atomic_load(&device.registered), 0);
		vmem_device_close(&device.device);
	}
	cr_assert_eq(atomic_load(&device.registered), 1);
	save_all();
	settle();
	expect_all();
}

/* Of several loads on a device that takes one request at a time, all end. */
Test(store_out, a_device_that_is_full_is_asked_again)
{
	struct vmemt_page page[VMEMI_WINDOWS];
	struct vmem_store_event event;
	vmem_store_token token;
	uint32_t over = 0;

	vmemt_store_close(store, &heap);
	open_with_narrow_device();
	save_all();
	settle();
	for (uint32_t i = 0; i < VMEMI_WINDOWS; i++)
		cr_assert_eq(vmem_store_load(store, vm, i, first_out(), page[i].bytes, &token),
			     -VMEM_EINPROGRESS);
	for (int turn = 0; over < VMEMI_WINDOWS; turn++) {
		cr_assert_lt(turn, TURNS);
		if (poll_loaded(&event, 1)) {
			cr_assert_eq(event.result, 0);
			over++;
		}
	}
}

/* Deltas, equal pages and a group: what is alike is stored together, and comes back whatever of it is out. */
Test(store_out, random_operations)
{
	const struct vmem_store_vm_opts group = { .size = sizeof(group),
						  .sharing = VMEM_STORE_SHARE_GROUP,
						  .group = 5 };
	uint64_t state = vmemt_seed("store_out");
	uint32_t other, of[PAGES];
	uint64_t written = 0;

	vmemt_store_close(store, &heap);
	open_store(0);
	add(&device, 64 * MIB, 0);
	cr_assert_eq(vmem_store_add_vm(store, &group, &vm), 0);
	cr_assert_eq(vmem_store_add_vm(store, &group, &other), 0);
	memset(ref, 0, sizeof(ref));
	for (uint32_t step = 0; step < 30000; step++) {
		uint32_t i = (uint32_t)(vmemt_rand(&state) % PAGES), mine = vm;

		if (!ref[i]) {
			of[i] = vmemt_rand(&state) % 2 ? vm : other;
			seed_of[i] = vmemt_rand(&state) % (PAGES * 2);
			ref[i] = save(of[i], VMEMT_PAGE_TEXT, seed_of[i]);
		} else if (vmemt_rand(&state) % 3) {
			vm = of[i];
			expect(ref[i], VMEMT_PAGE_TEXT, seed_of[i]);
			vm = mine;
		} else {
			cr_assert_eq(vmem_store_drop(store, of[i], ref[i]), 0);
			ref[i] = 0;
		}
		if (step % 16 == 0)
			work();
		if (step % 512 == 0)
			vmem_store_write_out(store, MIB);
		if (step % 4096 == 0) {
			const char *wrong;

			settle();
			wrong = vmemi_store_check(store);
			cr_assert_null(wrong, "%s", wrong);
		}
		written = stats_of(0).written_bytes;
	}
	cr_assert_gt(written, 0);
	cr_assert_eq(out_stats().lost, 0);
}
