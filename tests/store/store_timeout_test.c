/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices that never answer: what waits for them goes on without, and their memory stays theirs. */
#include "store/out_tools.h"
#include "support/rng.h"

TestSuite(store_timeout, .init = open_with_device, .fini = close_store);

enum { SECOND = 1000000000 };

/* Long enough; what had not been seen before is seen first. */
static void time_goes_by(void)
{
	work();
	now_ns += UINT64_C(31) * SECOND;
	work();
}

static void answer(void)
{
	atomic_store(&device.hold, 0);
	cr_assert_eq(vmem_store_poll(store, NULL, 0), 0);
	work();
	settle();
}

static void expect_sound(void)
{
	const char *wrong;

	settle();
	wrong = vmemi_store_check(store);
	cr_assert_null(wrong, "%s", wrong);
}

Test(store_timeout, a_write_leaves_its_segment_in_memory)
{
	save_some();
	atomic_store(&device.hold, 1);
	vmem_store_write_out(store, MIB);
	work();
	cr_assert_eq(out_stats().writing, 4);
	cr_assert_eq(stats_of(0).is_bad, 0);
	time_goes_by();
	cr_assert_eq(stats_of(0).is_bad, 1);
	cr_assert_eq(stats_of(0).write_errors, 4);
	cr_assert_eq(out_stats().writing, 0);
	cr_assert_eq(out_stats().segments, 0);
	expect_all();
	answer(); /* of no consequence any more */
	cr_assert_eq(stats_of(0).taken_bytes, 0);
	expect_all();
	expect_sound();
}

/* Whoever reaps them is between taking them and saying so. */
Test(store_timeout, what_is_being_answered_is_not_over)
{
	uint32_t use[VMEMI_WRITES];

	save_some();
	atomic_store(&device.hold, 1);
	vmem_store_write_out(store, MIB);
	work();
	cr_assert_eq(out_stats().writing, 4);
	for (uint32_t i = 0; i < VMEMI_WRITES; i++)
		use[i] = atomic_exchange(&store->out->write[i].flight, 0);
	time_goes_by();
	cr_assert_eq(out_stats().writing, 4);
	cr_assert_eq(stats_of(0).is_bad, 0);
	for (uint32_t i = 0; i < VMEMI_WRITES; i++) {
		cr_assert_eq(atomic_load(&store->out->write[i].flight), 0);
		atomic_store(&store->out->write[i].flight, use[i]);
	}
	answer();
	cr_assert_eq(out_stats().segments, 4);
	expect_all();
	expect_sound();
}

/* More writes than are in flight together would be: none of them holds up those of another device. */
Test(store_timeout, others_are_used)
{
	save_some();
	atomic_store(&device.hold, 1);
	vmem_store_write_out(store, 2 * MIB);
	work();
	cr_assert_eq(out_stats().writing, VMEMI_WRITES);
	add(&second, 32 * MIB, -1);
	time_goes_by();
	for (uint32_t i = 0; i < PAGES / 5; i++)
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
	save_all();
	cr_assert_gt(stats_of(1).taken_bytes, (uint64_t)(4 * MIB));
	cr_assert_eq(stats_of(0).taken_bytes, 0);
	answer();
	expect_all();
	expect_sound();
}

static vmem_store_token begin_load(vmem_store_ref r, void *page)
{
	vmem_store_token token;

	cr_assert_eq(vmem_store_load(store, vm, 1, r, page, &token), -VMEM_EINPROGRESS);
	return token;
}

static void expect_events(uint32_t count, int result)
{
	struct vmem_store_event event;

	for (int turn = 0; count; turn++) {
		cr_assert_lt(turn, TURNS);
		if (!vmem_store_poll(store, &event, 1) || event.type != VMEM_STORE_LOADED)
			continue;
		cr_assert_eq(event.result, result);
		count--;
	}
}

/* What the device has is nobody else's. */
static void expect_own_buffers(void)
{
	cr_assert_gt(device.count, 0);
	for (uint32_t n = 0; n < device.count; n++)
		for (uint32_t i = 0; i < VMEMI_READS; i++) {
			const unsigned char *data = device.queue[n].data;
			const struct vmemi_window *w = &store->out->window[i / VMEMI_PIECES];
			const unsigned char *buffer = w->piece[i % VMEMI_PIECES].buffer;

			cr_assert(data < buffer || data >= buffer + VMEMI_PIECE_BYTES);
		}
}

/* All windows at once; then again, and the pages of another device can be loaded meanwhile. */
Test(store_timeout, loads_are_errors_and_others_are_not)
{
	static struct vmemt_page page[VMEMI_WINDOWS];
	vmem_store_ref r;
	struct vmemt_page one;

	save_all();
	settle();
	r = first_out();
	atomic_store(&device.hold, 1);
	memset(page, 0x77, sizeof(page));
	for (uint32_t n = 0; n < VMEMI_WINDOWS; n++)
		(void)begin_load(r, page[n].bytes);
	cr_assert_eq(vmem_store_load(store, vm, 1, r, one.bytes, &(vmem_store_token){ 0 }),
		     -VMEM_EAGAIN);
	time_goes_by();
	expect_events(VMEMI_WINDOWS, -VMEM_EIO);
	expect_own_buffers();
	for (uint32_t n = 0; n < VMEMI_WINDOWS; n++)
		(void)begin_load(r, page[n].bytes); /* at once, and not after another time */
	expect_events(VMEMI_WINDOWS, -VMEM_EIO);
	cr_assert_eq(out_stats().lost, 2 * VMEMI_WINDOWS);
	cr_assert_eq(vmem_store_drop(store, vm, r), 0);
	for (uint32_t i = 0; i < PAGES; i++)
		ref[i] = ref[i] == r ? 0 : ref[i];
	answer();
	for (uint32_t n = 0; n < VMEMI_WINDOWS; n++)
		for (uint32_t at = 0; at < 4096; at++)
			cr_assert_eq(page[n].bytes[at], 0x77);
	expect_all();
	expect_sound();
}

Test(store_timeout, loads_from_another_device_go_on)
{
	static struct vmemt_page page[VMEMI_WINDOWS];
	vmem_store_ref first;

	vmemt_store_close(store, &heap);
	open_store(VMEM_STORE_AS_SAVED);
	add(&device, 2 * MIB, 0);
	add(&second, 32 * MIB, -1);
	save_all();
	settle();
	first = first_out(); /* the oldest, and so on the first device */
	cr_assert_gt(stats_of(1).taken_bytes, 0);
	atomic_store(&device.hold, 1);
	for (uint32_t n = 0; n < VMEMI_WINDOWS; n++)
		(void)begin_load(first, page[n].bytes);
	time_goes_by();
	expect_events(VMEMI_WINDOWS, -VMEM_EIO);
	atomic_store(&device.waited_ns, 0);
	vmem_store_wait(store, 1000); /* nothing of the other one is in flight */
	cr_assert_eq(atomic_load(&device.waited_ns), 1000);
	atomic_store(&device.waited_ns, 0);
	atomic_fetch_add(&store->out->device[1].flying, 1); /* as if */
	vmem_store_wait(store, 1000);
	atomic_fetch_sub(&store->out->device[1].flying, 1);
	cr_assert_eq(atomic_load(&device.waited_ns), 0);
	cr_assert_eq(atomic_load(&second.waited_ns), 1000);
	for (uint32_t i = 0; i < PAGES; i++) {
		struct vmemt_page one;
		int rc = load(ref[i], one.bytes);

		cr_assert(rc == -VMEM_EIO || (!rc && is_page(&one, VMEMT_PAGE_NOISE, i * EDITS)));
	}
	cr_assert_gt(atomic_load(&second.reads), 0);
	answer();
	expect_all();
}

Test(store_timeout, a_load_that_waits_for_room_is_over_too)
{
	static struct vmemt_page page[4];
	vmem_store_ref r;

	vmemt_store_close(store, &heap);
	open_with_narrow_device();
	save_all();
	settle();
	r = first_out();
	atomic_store(&device.hold, 1);
	for (int i = 0; i < 4; i++)
		(void)begin_load(r, page[i].bytes);
	time_goes_by();
	expect_events(4, -VMEM_EIO);
	answer();
	expect_all();
}

/* It fails, and the next one is not answered for now. */
static int fail_and_hold(struct vmemt_memory_device *m, const struct vmem_device_request *r)
{
	(void)r;
	atomic_store(&m->hold, 1);
	m->spoil = NULL;
	return -VMEM_EIO;
}

Test(store_timeout, each_read_of_a_load_has_its_time)
{
	struct vmemt_page page;

	save_all();
	settle();
	atomic_store(&device.hold, 1);
	(void)begin_load(first_out(), page.bytes);
	work();
	now_ns += UINT64_C(20) * SECOND;
	work();
	device.spoil = fail_and_hold;
	atomic_store(&device.hold, 0);
	work();
	cr_assert_eq(atomic_load(&device.hold), 1);
	now_ns += UINT64_C(20) * SECOND;
	work();
	cr_assert_eq(out_stats().lost, 0);
	atomic_store(&device.hold, 0);
	expect_events(1, 0);
}

/* The pages are all there: they are loaded once there is memory, and the time of a load ends. */
Test(store_timeout, a_device_without_memory_is_asked_again)
{
	struct vmemt_page page;

	save_all();
	settle();
	for (int refuses = 0; refuses < 2; refuses++) {
		_Atomic int *error = refuses ? &device.submit_error : &device.read_error;

		atomic_store(error, -VMEM_ENOMEM);
		(void)begin_load(first_out(), page.bytes);
		for (int i = 0; i < 100; i++)
			cr_assert_eq(vmem_store_poll(store, NULL, 0), 0);
		cr_assert_eq(out_stats().lost, 0);
		atomic_store(error, 0);
		expect_events(1, 0);
	}
	atomic_store(&device.submit_error, -VMEM_ENOMEM);
	(void)begin_load(first_out(), page.bytes);
	time_goes_by();
	expect_events(1, -VMEM_EIO);
	cr_assert_eq(out_stats().lost, 1);
	atomic_store(&device.submit_error, 0);
	expect_all(); /* it has nothing in flight that it could answer, and is asked again */
}

/* It may be left out of account for good: nothing that it has is touched before it is closed. */
Test(store_timeout, a_device_that_is_given_up)
{
	uint32_t lost = 0;
	int rc;

	save_all();
	settle();
	add(&second, 32 * MIB, 0);
	atomic_store(&device.hold, 1);
	while ((rc = vmem_store_abandon_device(store, 0)) == -VMEM_EBUSY) {
		work();
		now_ns += UINT64_C(31) * SECOND;
		cr_assert_lt(now_ns, UINT64_C(100000) * SECOND);
		/* The first ones; of others nobody waits to see that they are not answered either. */
		cr_assert_leq(atomic_load(&store->out->device[0].flying), VMEMI_WRITES);
	}
	cr_assert_eq(rc, 0);
	cr_assert(atomic_load(&device.closed));
	cr_assert_gt(out_stats().given_up, 0);
	for (uint32_t i = 0; i < PAGES; i++) {
		struct vmemt_page page;

		rc = load(ref[i], page.bytes);
		cr_assert(rc == -VMEM_EIO || (!rc && is_page(&page, VMEMT_PAGE_NOISE, i * EDITS)));
		lost += rc != 0;
	}
	cr_assert_gt(lost, 0);
	expect_sound();
}

Test(store_timeout, what_was_coming_home_stays)
{
	save_some();
	for (int i = 0; i < 4; i++)
		write_one();
	atomic_store(&device.hold, 1);
	cr_assert_eq(vmem_store_remove_device(store, 0), -VMEM_EBUSY);
	work();
	cr_assert_eq(out_stats().writing, 4);
	time_goes_by();
	cr_assert_eq(out_stats().came_home, 0);
	cr_assert_eq(out_stats().segments, 4);
	for (uint32_t i = 0; i < 40; i++) /* some while the device has the memory */
		if (ref[i]) {
			cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
			ref[i] = 0;
		}
	answer();
	expect_all();
	expect_sound();
	now_ns += SECOND;
	while (vmem_store_remove_device(store, 0) == -VMEM_EBUSY) {
		work();
		settle();
	}
	expect_all();
	expect_sound();
}

Test(store_timeout, discards_hold_nobody_up)
{
	vmemt_store_close(store, &heap);
	open_store(VMEM_STORE_AS_SAVED);
	vmemt_memory_device_init(&device, 32 * MIB, 32);
	device.device.flags = VMEM_DEVICE_CAN_DISCARD;
	cr_assert_eq(vmem_store_add_device(store, &device.device, NULL, NULL), 0);
	save_all();
	settle();
	atomic_store(&device.hold, 1);
	for (uint32_t i = 0; i < PAGES; i++)
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
	work(); /* gives them back, */
	work(); /* and begins to discard them */
	time_goes_by();
	cr_assert_eq(vmem_store_remove_device(store, 0), 0);
	cr_assert(atomic_load(&device.closed));
}

Test(store_timeout, a_store_is_freed_with_what_is_late)
{
	static struct vmemt_page page[4];

	save_all();
	settle();
	atomic_store(&device.hold, 1);
	for (int i = 0; i < 4; i++)
		(void)begin_load(first_out(), page[i].bytes);
	vmem_store_write_out(store, MIB);
	work();
	time_goes_by();
	vmem_store_free(store);
	cr_assert_eq(heap.live_bytes, 0);
	open_with_device();
}

Test(store_timeout, is_an_option)
{
	struct vmem_store_device_opts opts = { .size = sizeof(opts), .timeout_ms = 100000 };

	vmemt_store_close(store, &heap);
	open_store(VMEM_STORE_AS_SAVED);
	vmemt_memory_device_init(&device, 32 * MIB, 32);
	cr_assert_eq(vmem_store_add_device(store, &device.device, &opts, NULL), 0);
	save_some();
	atomic_store(&device.hold, 1);
	vmem_store_write_out(store, MIB);
	work();
	time_goes_by();
	time_goes_by();
	cr_assert_eq(stats_of(0).is_bad, 0);
	time_goes_by();
	time_goes_by();
	cr_assert_eq(stats_of(0).is_bad, 1);
	answer();
	vmemt_memory_device_init(&second, 8 * MIB, 4);
	opts.reserved2 = 1;
	cr_assert_eq(vmem_store_add_device(store, &second.device, &opts, NULL), -VMEM_EINVAL);
	vmem_device_close(&second.device);
}
