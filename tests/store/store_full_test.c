/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices that have no space: what they are asked for, and when again. */
#include "store/out.h"
#include "store/out_tools.h"
#include "store/store_internal.h"
#include "support/rng.h"

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

/* --- Devices all of whose slots are taken --- */

enum { SMALL = 8 * MIB };

static void open_small(uint64_t bytes, uint32_t flags)
{
	vmemt_store_close(store, &heap);
	open_store(VMEM_STORE_AS_SAVED);
	vmemt_memory_device_init(&device, bytes, 32);
	device.device.flags |= flags;
	cr_assert_eq(vmem_store_add_device(store, &device.device, NULL, NULL), 0);
	memset(ref, 0, sizeof(ref));
}

static void drop_one(uint32_t i)
{
	cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
	ref[i] = 0;
}

/* Saves pages from the @n-th on until neither the budget nor a device has room for more. Returns how many there are. */
static uint32_t save_from(uint32_t n)
{
	uint32_t refused = 0;

	while (refused < 100) {
		cr_assert_lt(n, PAGES);
		if (save_page(vm, VMEMT_PAGE_NOISE, n * EDITS, &ref[n])) {
			refused++;
			work();
			settle();
		} else {
			refused = 0;
			n++;
		}
	}
	return n;
}

static uint32_t save_until_full(void)
{
	return save_from(0);
}

/* Three of five pages, from the @n-th on. */
static void thin_out_from(uint32_t n)
{
	for (uint32_t i = n; i < PAGES; i++)
		if (ref[i] && i % 5 < 3)
			drop_one(i);
}

static void thin_out(void)
{
	thin_out_from(0);
}

/* Until as many pages more are stored, those of refs that are 0. */
static void save_more(uint32_t count)
{
	for (uint32_t i = 0; count; i++) {
		cr_assert_lt(i, PAGES);
		if (ref[i])
			continue;
		ref[i] = save(vm, VMEMT_PAGE_NOISE, i * EDITS); /* fails if it never has room */
		count--;
	}
}

static void expect_sound(void)
{
	const char *wrong;

	settle();
	wrong = vmemi_store_check(store);
	cr_assert_null(wrong, "%s", wrong);
}

Test(store_full, what_is_dead_on_a_full_device_is_room)
{
	uint32_t live;

	open_small(SMALL, 0);
	(void)save_until_full();
	cr_assert_eq(out_stats().packed, 0);
	live = (uint32_t)(out_stats().live_bytes / VMEM_PAGE_SIZE);
	thin_out();
	save_more(live / 2);
	cr_assert_gt(out_stats().packed, 0);
	expect_all();
	expect_sound();
}

/* Random pages are dropped, and others saved. */
static void replace_some(uint32_t count, uint64_t *rng)
{
	for (uint32_t n = 0; n < count;) {
		uint32_t i = (uint32_t)(vmemt_rand(rng) % PAGES);

		if (ref[i]) {
			drop_one(i);
			n++;
		}
	}
	for (uint32_t n = 0; n < count;) {
		uint32_t i = (uint32_t)(vmemt_rand(rng) % PAGES);

		if (!ref[i]) {
			ref[i] = save(vm, VMEMT_PAGE_NOISE, i * EDITS);
			n++;
		}
	}
}

/* All that is full in memory should leave. */
static void ask(int turns)
{
	while (turns-- > 0) {
		vmem_store_write_out(store, BUDGET);
		work();
		settle();
	}
	vmem_store_write_out(store, 0);
}

/* Nothing is read or written for what should leave. */
static void expect_rest(void)
{
	uint64_t packed = 0;

	for (int seconds = 0, still = 0; still < 3; seconds++) {
		cr_assert_lt(seconds, 100);
		ask(1000);
		still = out_stats().packed == packed ? still + 1 : 0;
		packed = out_stats().packed;
	}
}

/* Pages for all memory, and for so much of a device: that is room for ever, whatever is dropped and saved. */
static void expect_to_last(uint32_t percent, int rounds, uint32_t flags)
{
	uint64_t rng = vmemt_seed("store_full");
	uint32_t pages, live;

	open_small(SMALL, flags);
	pages = save_until_full();
	live = (uint32_t)(out_stats().live_bytes / VMEM_PAGE_SIZE);
	for (uint32_t left = live / 100 * (100 - percent); left;) {
		uint32_t i = (uint32_t)(vmemt_rand(&rng) % pages);

		if (ref[i]) {
			drop_one(i);
			left--;
		}
	}
	while (rounds--)
		replace_some(pages / 10, &rng);
	cr_assert_gt(out_stats().packed, 0);
	expect_all();
	expect_sound();
	expect_rest();
	expect_all();
}

Test(store_full, a_small_device_lasts)
{
	expect_to_last(40, 50, 0);
}

/* What is free is in gaps, each too small for a segment. */
Test(store_full, a_small_device_lasts_until_it_is_nearly_full)
{
	expect_to_last(65, 30, 0);
}

/* Gaps that are tried are not discarded, nor are they waited for. */
Test(store_full, a_small_device_that_discards_lasts_until_it_is_nearly_full)
{
	expect_to_last(65, 30, VMEM_DEVICE_CAN_DISCARD);
	cr_assert_leq(atomic_load(&device.discards), stats_of(0).written_bytes);
}

static void open_sparse(void)
{
	open_small(SMALL, 0);
	(void)save_until_full();
	thin_out();
	work(); /* what is empty is given back */
}

static void ask_until_packed(void)
{
	for (int turn = 0; !out_stats().packed; turn++) {
		cr_assert_lt(turn, TURNS);
		ask(1);
	}
	ask(100);
	expect_all();
	expect_sound();
}

Test(store_full, nothing_is_packed_before_something_should_leave)
{
	open_sparse();
	ask(0);
	for (int turn = 0; turn < 100; turn++)
		work();
	cr_assert_eq(atomic_load(&device.reads), 0);
	ask_until_packed();
}

/* Each device is looked at. */
Test(store_full, what_is_dead_on_a_second_device_is_packed)
{
	uint32_t on_first;

	open_small(SMALL / 2, 0);
	(void)save_until_full();
	settle();
	on_first = (uint32_t)(out_stats().live_bytes / VMEM_PAGE_SIZE);
	add(&second, SMALL / 2, 0);
	for (uint32_t i = on_first; i < PAGES; i++)
		if (!ref[i]) {
			(void)save_from(i);
			break;
		}
	thin_out_from(on_first + VMEM_POOL_SEGMENT_BYTES / VMEM_PAGE_SIZE);
	work();
	ask_until_packed();
	cr_assert_gt(atomic_load(&second.reads), 0);
}

Test(store_full, what_is_dead_is_packed_after_the_first_device_was_taken_away)
{
	open_small(SMALL, 0);
	add(&second, SMALL, 0);
	cr_assert_eq(vmem_store_remove_device(store, 0), 0);
	(void)save_until_full();
	thin_out();
	work();
	ask_until_packed();
}

Test(store_full, what_is_packed_once_is_not_packed_again)
{
	open_sparse();
	expect_rest();
	cr_assert_gt(out_stats().packed, 0);
	expect_all();
}

/* Nor is it tried as fast as the device answers. */
Test(store_full, what_cannot_be_read_is_not_packed)
{
	open_sparse();
	atomic_store(&device.read_error, -VMEM_EIO);
	ask(500);
	cr_assert(atomic_load(&device.reads) && atomic_load(&device.reads) < 200);
	cr_assert_eq(out_stats().packed, 0);
	ask(5000); /* the less often, the longer it lasts */
	cr_assert_lt(atomic_load(&device.reads), 200);
	atomic_store(&device.read_error, 0);
	ask_until_packed();
}

static uint64_t bad_offset; /* of the first read; UINT64_MAX: not known yet */

static int spoil(struct vmemt_memory_device *m, const struct vmem_device_request *r)
{
	(void)m;
	if (bad_offset == UINT64_MAX)
		bad_offset = r->offset;
	return r->offset == bad_offset ? -VMEM_EIO : 0;
}

Test(store_full, one_that_cannot_be_read_holds_up_no_others)
{
	open_sparse();
	bad_offset = UINT64_MAX;
	device.spoil = spoil;
	for (int turn = 0; !out_stats().packed; turn++) {
		cr_assert_lt(turn, 1000);
		ask(1);
	}
	device.spoil = NULL;
	ask_until_packed();
}

Test(store_full, what_is_read_wrong_is_not_packed)
{
	open_sparse();
	atomic_store(&device.corrupt, 1);
	ask(500);
	cr_assert_gt(atomic_load(&device.reads), 0);
	cr_assert_eq(out_stats().packed, 0);
	cr_assert(vmemi_store_can_load(store, vm, first_out())); /* others can be read */
	atomic_store(&device.corrupt, 0);
	ask_until_packed();
}

Test(store_full, what_cannot_be_written_anew_stays_as_it_is)
{
	uint64_t writes;

	open_sparse();
	atomic_store(&device.write_error, -VMEM_ENOMEM);
	writes = atomic_load(&device.writes);
	ask(500);
	cr_assert_gt(atomic_load(&device.writes), writes);
	cr_assert_eq(out_stats().packed, 0);
	cr_assert_eq(out_stats().came_home, 0);
	atomic_store(&device.write_error, 0);
	ask_until_packed();
}

/* With what was kept free there. */
Test(store_full, a_full_device_can_be_taken_away)
{
	open_sparse();
	ask_until_packed();
	add(&second, 12 * MIB, 0); /* of which it has more than a quarter */
	for (int turn = 0; vmem_store_remove_device(store, 0) == -VMEM_EBUSY; turn++) {
		cr_assert_lt(turn, TURNS);
		work();
		settle();
	}
	cr_assert(atomic_load(&device.closed));
	expect_all();
	expect_sound();
}

static int damages; /* that are left */

static int damage(struct vmemt_memory_device *m, const struct vmem_device_request *r)
{
	unsigned char *data = r->data;

	(void)m;
	if (r->op == VMEM_DEVICE_READ && r->offset == bad_offset && damages-- > 0)
		for (uint64_t at = 0; at < r->bytes; at += 16)
			data[at] ^= 4;
	return 0;
}

/* What could not be packed goes as it is. */
Test(store_full, nothing_is_given_up_because_it_could_not_be_packed)
{
	open_sparse();
	atomic_store(&device.hold, 1);
	for (int turn = 0; !out_stats().writing; turn++) {
		cr_assert_lt(turn, TURNS);
		vmem_store_write_out(store, BUDGET);
		work();
	}
	cr_assert_eq(device.count, 1);
	cr_assert_eq(device.queue[0].op, VMEM_DEVICE_READ);
	bad_offset = device.queue[0].offset;
	damages = 3; /* as often as it is read */
	device.spoil = damage;
	add(&second, 12 * MIB, 0);
	cr_assert_eq(vmem_store_abandon_device(store, 0), -VMEM_EBUSY);
	atomic_store(&device.hold, 0);
	for (int turn = 0; vmem_store_abandon_device(store, 0) == -VMEM_EBUSY; turn++) {
		cr_assert_lt(turn, TURNS);
		work();
		settle();
	}
	cr_assert_leq(damages, 0);
	cr_assert_eq(out_stats().given_up, 0);
	expect_all();
	expect_sound();
}

/* Nor is anything kept free where nothing can be written. */
Test(store_full, no_space_is_kept_on_a_device_without_space)
{
	struct vmemi_out *out;
	struct vmemt_memory_device *has_it;

	open_small(SMALL / 2, 0);
	add(&second, SMALL / 2, 0);
	out = store->out;
	for (uint32_t i = 0; out->spare == VMEM_SLOTS_NONE; i++)
		ref[i] = save(vm, VMEMT_PAGE_NOISE, i * EDITS);
	has_it = VMEM_SLOT_DEVICE(out->spare) ? &second : &device;
	atomic_store(&has_it->write_error, -VMEM_ENOSPC);
	for (int turn = 0; !stats_of(has_it == &second).is_full; turn++) {
		cr_assert_lt(turn, TURNS);
		write_one();
	}
	work();
	cr_assert(out->spare == VMEM_SLOTS_NONE ||
		  VMEM_SLOT_DEVICE(out->spare) != (has_it == &second));
	atomic_store(&has_it->write_error, 0);
	expect_all();
	expect_sound();
}
