/* SPDX-License-Identifier: BSD-2-Clause */
/* Loads of deltas that are out: of two objects, which are read at the same time. */
#include "store/out_tools.h"
#include "store/out_ways.h"
#include "store/store_internal.h"

enum { SECOND = 1000000000 };

static uint32_t fails; /* which read, from 1 on; 0: none */

static int fail_one(struct vmemt_memory_device *m, const struct vmem_device_request *r)
{
	(void)m;
	(void)r;
	return fails && !--fails ? -VMEM_EIO : 0;
}

static void open_deltas(uint32_t depth)
{
	open_store(0);
	vmemt_memory_device_init(&device, 32 * MIB, depth);
	cr_assert_eq(vmem_store_add_device(store, &device.device, NULL, NULL), 0);
	save_deltas();
	device.spoil = fail_one;
}

static void open_deep(void)
{
	open_deltas(32);
}

TestSuite(store_out_delta, .init = open_deep, .fini = close_store);

static uint32_t queued(void)
{
	uint32_t n;

	pthread_mutex_lock(&device.lock);
	n = device.count;
	pthread_mutex_unlock(&device.lock);
	return n;
}

static int end_load(vmem_store_token token)
{
	struct vmem_store_event event = { .token = 0 };

	atomic_store(&device.hold, 0);
	for (int turn = 0; !poll_loaded(&event, 1); turn++)
		cr_assert_lt(turn, TURNS);
	cr_assert_eq(event.token, token);
	return event.result;
}

/* The reads of a load that wait for room at the device. */
static uint32_t waiting(void)
{
	return (uint32_t)__builtin_popcountll(atomic_load(&store->out->waiting));
}

/* Begins the load of a delta from @from on, of which two objects are out; the device is held. Returns its number. */
static uint32_t begin_delta(uint32_t from, struct vmemt_page *page, vmem_store_token *token)
{
	for (uint32_t i = from; i < SOME; i++) {
		memset(page, 0x77, sizeof(*page));
		atomic_store(&device.hold, 1);
		if (vmem_store_load(store, vm, i, ref[i], page->bytes, token) != -VMEM_EINPROGRESS)
			continue;
		if (queued() + waiting() == 2)
			return i;
		cr_assert_eq(end_load(*token), 0);
	}
	cr_assert_fail("no delta is out");
	return 0;
}

static bool is_right(const struct vmemt_page *page, uint32_t i)
{
	return is_page(page, VMEMT_PAGE_TEXT, version_of(i));
}

Test(store_out_delta, both_objects_are_read_at_once)
{
	struct vmemt_page page;
	vmem_store_token token;
	uint32_t i = begin_delta(0, &page, &token);
	uint64_t before = atomic_load(&device.reads);

	cr_assert_eq(page.bytes[100], 0x77);
	cr_assert_eq(end_load(token), 0);
	cr_assert(is_right(&page, i));
	cr_assert_eq(atomic_load(&device.reads), before + 2);
	expect_deltas();
}

Test(store_out_delta, either_read_may_fail_once)
{
	for (uint32_t which = 1, from = 0; which <= 2; which++) {
		struct vmemt_page page;
		vmem_store_token token;
		uint32_t i = begin_delta(from, &page, &token);

		fails = which;
		cr_assert_eq(end_load(token), 0);
		cr_assert(is_right(&page, i));
		cr_assert_eq(out_stats().lost, 0);
		cr_assert_eq(stats_of(0).read_errors, which);
		from = i + 1;
	}
	expect_deltas();
}

Test(store_out_delta, both_reads_may_fail_for_good)
{
	struct vmemt_page page;
	vmem_store_token token;

	(void)begin_delta(0, &page, &token);
	atomic_store(&device.read_error, -VMEM_EIO);
	cr_assert_eq(end_load(token), -VMEM_EIO);
	cr_assert_eq(page.bytes[100], 0x77);
	cr_assert_eq(out_stats().lost, 1);
	cr_assert_eq(stats_of(0).read_errors, 6);
	atomic_store(&device.read_error, 0);
	expect_deltas();
}

/* One of the two, whichever comes first or second, in all of its tries. */
static int spoil_place(struct vmemt_memory_device *m, const struct vmem_device_request *r)
{
	static uint64_t place = UINT64_MAX;
	static uint32_t seen;

	(void)m;
	if (fails && ++seen == fails)
		place = r->offset;
	return r->offset == place ? -VMEM_EIO : 0;
}

static void lose_one(uint32_t which)
{
	struct vmemt_page page;
	vmem_store_token token;

	device.spoil = spoil_place;
	(void)begin_delta(0, &page, &token);
	fails = which;
	cr_assert_eq(end_load(token), -VMEM_EIO);
	cr_assert_eq(page.bytes[100], 0x77);
	cr_assert_eq(out_stats().lost, 1);
	device.spoil = NULL;
	expect_deltas();
}

Test(store_out_delta, the_first_read_may_fail_for_good)
{
	lose_one(1);
}

Test(store_out_delta, the_second_read_may_fail_for_good)
{
	lose_one(2);
}

static int go_once(struct vmemt_memory_device *m, const struct vmem_device_request *r)
{
	(void)r;
	m->spoil = NULL;
	return -VMEM_ENODEV;
}

/* What failed is not tried again, and what comes after it does not make up for it. */
Test(store_out_delta, the_device_is_gone_for_one_of_them)
{
	struct vmemt_page page;
	vmem_store_token token;

	(void)begin_delta(0, &page, &token);
	device.spoil = go_once;
	cr_assert_eq(end_load(token), -VMEM_EIO);
	cr_assert_eq(page.bytes[100], 0x77);
	cr_assert_eq(stats_of(0).read_errors, 1);
	cr_assert_eq(out_stats().lost, 1);
	expect_deltas();
}

Test(store_out_delta, wrong_bytes_are_read_again)
{
	struct vmemt_page page;
	vmem_store_token token;
	uint32_t i = begin_delta(0, &page, &token);

	atomic_store(&device.corrupt, 1);
	cr_assert_eq(end_load(token), -VMEM_EIO);
	cr_assert_eq(out_stats().lost, 1);
	atomic_store(&device.corrupt, 0);
	cr_assert_eq(load(ref[i], page.bytes), 0);
	cr_assert(is_right(&page, i));
	expect_deltas();
}

Test(store_out_delta, a_device_that_takes_neither)
{
	struct vmemt_page page;
	vmem_store_token token;
	uint32_t i = begin_delta(0, &page, &token);

	cr_assert_eq(end_load(token), 0);
	/* Another load of it is served by what was read, unless that has been needed since. */
	for (uint32_t n = 0; n < SOME; n++)
		if (n != i)
			(void)load(ref[n], page.bytes);
	atomic_store(&device.submit_error, -VMEM_EIO);
	cr_assert_eq(load(ref[i], page.bytes), -VMEM_EIO);
	cr_assert_eq(out_stats().lost, 1);
	cr_assert_eq(stats_of(0).read_errors, 2);
	atomic_store(&device.submit_error, 0);
	expect_deltas();
}

static void time_goes_by(void)
{
	work();
	now_ns += UINT64_C(31) * SECOND;
	work();
}

static void expect_lost(vmem_store_token token)
{
	struct vmem_store_event event = { .token = 0 };

	cr_assert_eq(poll_loaded(&event, 1), 1);
	cr_assert(event.token == token && event.result == -VMEM_EIO);
	cr_assert_eq(out_stats().lost, 1);
}

/* Each read's memory is the device's until it is answered. */
Test(store_out_delta, neither_read_is_answered)
{
	struct vmemt_page page;
	vmem_store_token token;

	(void)begin_delta(0, &page, &token);
	time_goes_by();
	expect_lost(token);
	cr_assert_eq(vmemi_out_stuck_at(store->out, 0), 2);
	for (uint32_t n = 0; n < queued(); n++)
		for (uint32_t i = 0; i < VMEMI_READS; i++)
			cr_assert_neq(store->out->window[i / 2].piece[i % 2].buffer,
				      device.queue[n].data);
	atomic_store(&device.hold, 0);
	cr_assert_eq(vmem_store_poll(store, NULL, 0), 0);
	work();
	cr_assert_eq(vmemi_out_stuck_at(store->out, 0), 0);
	cr_assert_eq(page.bytes[100], 0x77);
	expect_deltas();
}

static void open_narrow(void)
{
	open_deltas(1);
}

TestSuite(store_out_narrow, .init = open_narrow, .fini = close_store);

/* The second read waits until the first one is over. */
Test(store_out_narrow, a_device_of_one_request_is_enough)
{
	expect_deltas();
	cr_assert_gt(atomic_load(&device.reads), out_stats().loads);
}

static int hold_next(struct vmemt_memory_device *m, const struct vmem_device_request *r)
{
	(void)r;
	atomic_store(&m->hold, 1);
	return 0;
}

/* One has been read, the other never is. */
Test(store_out_narrow, the_second_read_is_not_answered)
{
	struct vmemt_page page;
	vmem_store_token token;

	(void)begin_delta(0, &page, &token);
	device.spoil = hold_next;
	atomic_store(&device.hold, 0);
	work();
	cr_assert_eq(queued(), 1);
	cr_assert_eq(waiting(), 0);
	time_goes_by();
	expect_lost(token);
	cr_assert_eq(vmemi_out_stuck_at(store->out, 0), 1);
	device.spoil = NULL;
	atomic_store(&device.hold, 0);
	work();
	cr_assert_eq(page.bytes[100], 0x77);
	expect_deltas();
}

/* Both at the same time: one that flies, and one that waits. */
Test(store_out_narrow, one_is_not_answered_and_one_not_begun)
{
	struct vmemt_page page;
	vmem_store_token token;

	(void)begin_delta(0, &page, &token);
	cr_assert_eq(waiting(), 1);
	time_goes_by();
	expect_lost(token);
	cr_assert_eq(vmemi_out_stuck_at(store->out, 0), 1);
	atomic_store(&device.hold, 0);
	work();
	expect_deltas();
}

Test(store_out_narrow, what_waits_may_fail)
{
	uint64_t lost = 0;

	for (uint32_t i = 0; i < SOME; i++) {
		struct vmemt_page page;
		vmem_store_token token;

		atomic_store(&device.hold, 1);
		if (vmem_store_load(store, vm, i, ref[i], page.bytes, &token) ==
		    -VMEM_EINPROGRESS) {
			atomic_store(&device.submit_error, -VMEM_EIO);
			lost += end_load(token) == -VMEM_EIO; /* of those that had to wait */
			atomic_store(&device.submit_error, 0);
		}
	}
	atomic_store(&device.hold, 0);
	cr_assert_gt(lost, 0);
	cr_assert_eq(out_stats().lost, lost);
	expect_deltas();
}
