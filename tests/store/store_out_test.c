/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that go to devices and come back, and devices that fail. */
#include <criterion/criterion.h>
#include "pool/pool_of.h"
#include "store/memory_device.h"
#include "store/model_pages.h"
#include "store/store_close.h"
#include "support/rng.h"

enum { MIB = 1 << 20, BUDGET = 4 * MIB, PAGES = 3000, TURNS = 100000 };

static struct vmemt_fail_alloc heap;
static struct vmemt_memory_device device, second;
static vmem_store *store;
static uint32_t vm;
static vmem_store_ref ref[PAGES]; /* 0: not stored */
static uint64_t now_ns;

static void open_store(uint64_t flags)
{
	const struct vmem_store_opts opts = { .size = sizeof(opts),
					      .flags = flags,
					      .allocator = &heap.allocator,
					      .budget_bytes = BUDGET,
					      .cold_after_ms = 1 };

	vmemt_fail_alloc_init(&heap);
	cr_assert_eq(vmem_store_new(&store, &opts), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
}

static void add(struct vmemt_memory_device *m, uint64_t bytes, int32_t priority)
{
	const struct vmem_store_device_opts opts = { .size = sizeof(opts), .priority = priority };

	vmemt_memory_device_init(m, bytes, 32);
	cr_assert_eq(vmem_store_add_device(store, &m->device, &opts, NULL), 0);
}

static void open_with_device(void)
{
	open_store(VMEM_STORE_AS_SAVED);
	add(&device, 32 * MIB, 0);
}

static struct vmem_store_out_stats out_stats(void)
{
	struct vmem_store_out_stats stats = { .size = sizeof(stats) };

	cr_assert_eq(vmem_store_get_out_stats(store, &stats), 0);
	return stats;
}

static struct vmem_store_device_stats stats_of(uint32_t number)
{
	struct vmem_store_device_stats stats = { .size = sizeof(stats) };

	cr_assert_eq(vmem_store_get_device_stats(store, number, &stats), 0);
	return stats;
}

static void work(void)
{
	now_ns += 1000000;
	(void)vmem_store_work(store, 1000000, now_ns);
}

/* Until no write is in flight. */
static void settle(void)
{
	for (int turn = 0; out_stats().writing; turn++) {
		cr_assert_lt(turn, TURNS);
		cr_assert_eq(vmem_store_poll(store, NULL, 0), 0);
	}
	vmemi_pool_maintain(store->pool); /* vmem_store_work() would begin others */
}

static void close_store(void)
{
	atomic_store(&device.hold, 0);
	settle();
	vmemt_store_close(store, &heap);
	cr_assert_eq(atomic_load(&device.wrong), 0);
	cr_assert(atomic_load(&device.closed));
}

static int save_page(uint32_t of, enum vmemt_page_kind kind, uint64_t seed, vmem_store_ref *ret_ref)
{
	struct vmemt_page page;

	make_page(&page, kind, seed);
	return vmem_store_save(store, of, seed, page.bytes, ret_ref);
}

/* Goes on until it is saved. */
static vmem_store_ref save(uint32_t of, enum vmemt_page_kind kind, uint64_t seed)
{
	vmem_store_ref result = 0;
	int rc;

	for (int turn = 0; (rc = save_page(of, kind, seed, &result)) == -VMEM_ENOSPC; turn++) {
		cr_assert_lt(turn, TURNS);
		work();
	}
	cr_assert_eq(rc, 0);
	return result;
}

static void save_all(void)
{
	for (uint32_t i = 0; i < PAGES; i++)
		ref[i] = save(vm, VMEMT_PAGE_NOISE, i * EDITS);
}

/* With the event of its token, if it takes time. */
static int load(vmem_store_ref r, void *page)
{
	struct vmem_store_event event = { .token = 0 };
	vmem_store_token token = 0;
	int rc = vmem_store_load(store, vm, 7, r, page, &token);

	if (rc != -VMEM_EINPROGRESS)
		return rc;
	for (int turn = 0; !vmem_store_poll(store, &event, 1); turn++) {
		cr_assert_lt(turn, TURNS);
		vmem_store_wait(store, 1000000);
	}
	cr_assert(event.token == token && event.type == VMEM_STORE_LOADED && event.key == 7);
	return event.result;
}

static void expect(vmem_store_ref r, enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page page;
	int rc;

	memset(&page, 0x77, sizeof(page));
	rc = load(r, page.bytes);
	cr_assert_eq(rc, 0, "page %lu: %d", (unsigned long)seed, rc);
	cr_assert(is_page(&page, kind, seed));
}

static void expect_all(void)
{
	for (uint32_t i = 0; i < PAGES; i++)
		if (ref[i])
			expect(ref[i], VMEMT_PAGE_NOISE, i * EDITS);
}

/* One that is out. */
static vmem_store_ref first_out(void)
{
	struct vmemt_page page;

	for (uint32_t i = 0; i < PAGES; i++)
		if (ref[i] &&
		    vmem_store_load(store, vm, 0, ref[i], page.bytes, NULL) == -VMEM_EAGAIN)
			return ref[i];
	cr_assert_fail("nothing is out");
	return 0;
}

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
	atomic_store(&device.write_error, -VMEM_ENOSPC);
	save_all();
	settle();
	cr_assert_eq(stats_of(0).is_bad, 1);
	cr_assert_eq(stats_of(0).taken_bytes, 0);
	cr_assert_gt(stats_of(1).taken_bytes, 0);
	expect_all();
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
		n = vmem_store_poll(store, event, 4);
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

Test(store_out, no_more_is_written_in_a_day_than_may_be)
{
	const struct vmem_store_device_opts opts = { .size = sizeof(opts),
						     .wear_bytes_per_day = MIB };
	uint64_t written;

	vmemt_store_close(store, &heap);
	open_store(VMEM_STORE_AS_SAVED);
	vmemt_memory_device_init(&device, 32 * MIB, 32);
	cr_assert_eq(vmem_store_add_device(store, &device.device, &opts, NULL), 0);
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
		vmem_device_close(&device.device);
	}
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
	open_store(VMEM_STORE_AS_SAVED);
	vmemt_memory_device_init(&device, 32 * MIB, 1);
	cr_assert_eq(vmem_store_add_device(store, &device.device, NULL, NULL), 0);
	save_all();
	settle();
	for (uint32_t i = 0; i < VMEMI_WINDOWS; i++)
		cr_assert_eq(vmem_store_load(store, vm, i, first_out(), page[i].bytes, &token),
			     -VMEM_EINPROGRESS);
	for (int turn = 0; over < VMEMI_WINDOWS; turn++) {
		cr_assert_lt(turn, TURNS);
		if (vmem_store_poll(store, &event, 1)) {
			cr_assert_eq(event.result, 0);
			over++;
		}
	}
}

/* Deltas, equal pages and a group: what is alike is stored together, and comes back whatever of it is out. */
Test(store_out, random_operations)
{
	static uint64_t seed_of[PAGES];
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
