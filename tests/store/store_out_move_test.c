/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices that are taken away: what is there moves to others, or home, and nothing is lost that can be read. */
#include "store/out_tools.h"
#include "support/rng.h"

TestSuite(store_out_move, .init = open_with_device, .fini = close_store);

enum { SECOND = 1000000000 };

static int remove_once(uint32_t number)
{
	work();
	settle();
	return vmem_store_remove_device(store, number);
}

static void remove_all(uint32_t number)
{
	int rc;

	for (int turn = 0; (rc = remove_once(number)) == -VMEM_EBUSY; turn++)
		cr_assert_lt(turn, TURNS);
	cr_assert_eq(rc, 0);
}

static void expect_sound(void)
{
	const char *wrong;

	settle();
	wrong = vmemi_store_check(store);
	cr_assert_null(wrong, "%s", wrong);
}

/* As many as are out now. */
static uint32_t count_lost(void)
{
	struct vmemt_page page;
	uint32_t lost = 0;

	for (uint32_t i = 0; i < PAGES; i++) {
		int rc = ref[i] ? load(ref[i], page.bytes) : 0;

		cr_assert(rc == -VMEM_EIO || !ref[i] ||
			  (!rc && is_page(&page, VMEMT_PAGE_NOISE, i * EDITS)));
		lost += rc != 0;
	}
	return lost;
}

Test(store_out_move, what_is_there_moves_to_another)
{
	struct vmem_store_device_stats stats = { .size = sizeof(stats) };
	uint64_t out;

	save_all();
	settle();
	out = out_stats().segments;
	add(&second, 32 * MIB, 0);
	cr_assert_eq(vmem_store_remove_device(store, 0), -VMEM_EBUSY);
	cr_assert_eq(stats_of(0).is_leaving, 1);
	remove_all(0);
	cr_assert(atomic_load(&device.closed));
	cr_assert_eq(out_stats().moved, out);
	cr_assert_eq(out_stats().came_home, 0);
	cr_assert_geq(out_stats().segments, out);
	cr_assert_geq(stats_of(1).written_bytes, stats_of(1).taken_bytes);
	cr_assert_eq(vmem_store_get_device_stats(store, 0, &stats), -VMEM_ENOENT);
	cr_assert_eq(vmem_store_remove_device(store, 0), -VMEM_ENOENT);
	expect_all();
	expect_sound();
}

Test(store_out_move, nothing_new_goes_there)
{
	uint64_t written;

	save_all();
	settle();
	written = stats_of(0).written_bytes;
	cr_assert_eq(vmem_store_remove_device(store, 0), -VMEM_EBUSY);
	vmem_store_write_out(store, MIB);
	work();
	settle();
	cr_assert_eq(stats_of(0).written_bytes, written);
	cr_assert_eq(atomic_load(&device.closed), 0);
	expect_all();
}

Test(store_out_move, without_another_it_comes_home)
{
	save_some();
	for (int i = 0; i < 4; i++)
		write_one();
	cr_assert_eq(out_stats().segments, 4);
	remove_all(0);
	cr_assert_eq(out_stats().came_home, 4);
	cr_assert_eq(out_stats().segments, 0);
	expect_all();
	cr_assert_eq(out_stats().loads, 0);
	expect_sound();
}

Test(store_out_move, without_room_it_stays_until_there_is)
{
	save_all();
	settle();
	for (int i = 0; i < 50; i++)
		cr_assert_eq(remove_once(0), -VMEM_EBUSY);
	cr_assert_gt(out_stats().no_room, 0);
	cr_assert_gt(out_stats().segments, 0);
	expect_all();
	vmem_store_set_budget(store, 64 * MIB);
	now_ns += SECOND;
	remove_all(0);
	cr_assert_eq(out_stats().segments, 0);
	expect_all();
	expect_sound();
}

Test(store_out_move, what_cannot_be_read_stays_and_is_tried_again)
{
	save_all();
	settle();
	add(&second, 32 * MIB, 0);
	atomic_store(&device.read_error, -VMEM_EIO);
	for (int turn = 0; turn < 50; turn++)
		cr_assert_eq(remove_once(0), -VMEM_EBUSY);
	cr_assert_eq(stats_of(0).unreadable_bytes, stats_of(0).taken_bytes);
	cr_assert_eq(stats_of(1).taken_bytes, 0);
	cr_assert_gt(count_lost(), 0);
	atomic_store(&device.read_error, 0);
	expect_all();
	now_ns += SECOND;
	remove_all(0);
	expect_all();
	expect_sound();
}

/* Those pages are errors, all others right; what is lost can be dropped and stored anew. */
static void give_up(void)
{
	uint32_t lost;
	int rc;

	lost = count_lost();
	cr_assert_gt(lost, 0);
	while ((rc = vmem_store_abandon_device(store, 0)) == -VMEM_EBUSY) {
		work();
		settle();
	}
	cr_assert_eq(rc, 0);
	cr_assert(atomic_load(&device.closed));
	cr_assert_gt(out_stats().given_up, 0);
	cr_assert_eq(count_lost(), lost);
	expect_sound();
	add(&second, 32 * MIB, 0);
	for (uint32_t i = 0; i < PAGES; i++) {
		vmem_store_ref again = save(vm, VMEMT_PAGE_NOISE, i * EDITS);

		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
		ref[i] = again;
	}
	cr_assert_eq(count_lost(), 0);
	expect_sound();
}

Test(store_out_move, what_cannot_be_read_is_given_up_when_that_is_said)
{
	save_all();
	settle();
	atomic_store(&device.read_error, -VMEM_EIO);
	give_up();
}

Test(store_out_move, a_device_that_has_vanished_is_given_up)
{
	save_all();
	settle();
	atomic_store(&device.submit_error, -VMEM_ENODEV);
	cr_assert_eq(remove_once(0), -VMEM_EBUSY);
	cr_assert_eq(remove_once(0), -VMEM_EBUSY);
	give_up();
}

Test(store_out_move, what_can_be_read_is_not_given_up)
{
	save_all();
	settle();
	for (int turn = 0; turn < 50; turn++) {
		cr_assert_eq(vmem_store_abandon_device(store, 0), -VMEM_EBUSY);
		work();
		settle();
	}
	cr_assert_eq(out_stats().given_up, 0);
	add(&second, 32 * MIB, 0);
	now_ns += SECOND;
	remove_all(0);
	cr_assert_eq(out_stats().given_up, 0);
	expect_all();
}

Test(store_out_move, what_one_place_refuses_goes_to_another)
{
	save_all();
	settle();
	add(&second, 32 * MIB, 0);
	atomic_store(&second.bad_place, UINT64_MAX);
	remove_all(0);
	cr_assert_geq(stats_of(1).write_errors, 1);
	expect_all();
	expect_sound();
}

/* Nor is that device bad for it. */
Test(store_out_move, what_no_place_takes_comes_home)
{
	int turn = 0, rc;

	save_some();
	for (int i = 0; i < 4; i++)
		write_one();
	add(&second, 32 * MIB, 0);
	atomic_store(&second.write_error, -VMEM_ENOMEM);
	while ((rc = remove_once(0)) == -VMEM_EBUSY)
		cr_assert_lt(turn++, 100);
	cr_assert_eq(rc, 0);
	cr_assert_eq(out_stats().came_home, 4);
	cr_assert_eq(stats_of(1).is_bad, 0);
	cr_assert_eq(stats_of(1).taken_bytes, 0);
	expect_all();
	expect_sound();
}

/* Until the next round: each try is a read, and wear. */
Test(store_out_move, what_nobody_takes_is_passed_by)
{
	uint64_t reads;

	save_all();
	settle();
	add(&second, 32 * MIB, 0);
	atomic_store(&second.write_error, -VMEM_ENOMEM);
	for (int turn = 0; turn < 50; turn++)
		cr_assert_eq(remove_once(0), -VMEM_EBUSY);
	reads = atomic_load(&device.reads);
	for (int turn = 0; turn < 50; turn++)
		cr_assert_eq(remove_once(0), -VMEM_EBUSY);
	cr_assert_eq(atomic_load(&device.reads), reads);
	atomic_store(&second.write_error, 0);
	now_ns += SECOND;
	remove_all(0);
	expect_all();
	expect_sound();
}

/* Each number is a new one, of any number of devices. */
Test(store_out_move, devices_come_and_go)
{
	static struct vmemt_memory_device m[3];
	uint32_t number = 0, next;
	long bytes = 0;

	save_all();
	for (int i = 0; i < 16; i++) {
		struct vmemt_memory_device *d = &m[i % 3];

		vmemt_memory_device_init(d, 12 * MIB, 8);
		cr_assert_eq(vmem_store_add_device(store, &d->device, NULL, &next), 0);
		cr_assert_gt(next, number);
		remove_all(number);
		number = next;
		if (i == 4)
			bytes = heap.live_bytes;
	}
	cr_assert_leq(heap.live_bytes, bytes + MIB);
	expect_all();
	expect_sound();
}

Test(store_out_move, pages_are_dropped_while_they_move)
{
	save_all();
	settle();
	add(&second, 32 * MIB, 0);
	cr_assert_eq(vmem_store_remove_device(store, 0), -VMEM_EBUSY);
	for (int step = 0; step < 40; step++) {
		struct vmemt_memory_device *held = step % 2 ? &device : &second;

		if (!atomic_load(&device.closed) || held == &second)
			atomic_store(&held->hold, 1);
		work();
		for (uint32_t i = (uint32_t)step * (PAGES / 40);
		     i < (uint32_t)(step + 1) * (PAGES / 40); i++) {
			cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
			ref[i] = 0;
		}
		atomic_store(&device.hold, 0);
		atomic_store(&second.hold, 0);
		settle();
	}
	remove_all(0);
	cr_assert_eq(stats_of(1).taken_bytes, 0);
	expect_sound();
}

Test(store_out_move, a_store_is_freed_while_it_moves)
{
	for (int to = 0; to < 2; to++) {
		save_all();
		settle();
		add(&second, 32 * MIB, 0);
		cr_assert_eq(vmem_store_remove_device(store, 0), -VMEM_EBUSY);
		atomic_store(to ? &second.hold : &device.hold, 1);
		work();
		for (int i = 0; i < 10; i++)
			(void)vmem_store_poll(store, NULL, 0);
		cr_assert_gt(out_stats().writing, 0);
		vmem_store_free(store);
		cr_assert_eq(heap.live_bytes, 0);
		cr_assert(atomic_load(&second.closed) && !atomic_load(&second.wrong));
		open_with_device();
	}
}

/* A device that a thread waits for is not closed under it: its hold is what that thread has. */
Test(store_out_move, one_that_is_used_is_not_closed)
{
	struct vmemi_out_device *d = &store->out->device[0];

	save_some();
	cr_assert(vmemi_out_hold(d));
	cr_assert_eq(vmem_store_remove_device(store, 0), -VMEM_EBUSY);
	cr_assert(!atomic_load(&device.closed));
	vmemi_out_release(d);
	cr_assert_eq(vmem_store_remove_device(store, 0), 0);
	cr_assert(!vmemi_out_hold(d));
	add(&device, 32 * MIB, 0);
	cr_assert(vmemi_out_hold(d));
	vmemi_out_release(d);
}

static struct vmemt_memory_device many[64 + 1];
static uint32_t number_of[64 + 1], used;

static void come_or_go(uint64_t *state)
{
	uint32_t i = (uint32_t)(vmemt_rand(state) % 3);
	int rc;

	if (used < 64 && (vmemt_rand(state) % 4 == 0 || used < 2)) {
		vmemt_memory_device_init(&many[used], 8 * MIB, 8);
		cr_assert_eq(
			vmem_store_add_device(store, &many[used].device, NULL, &number_of[used]),
			0);
		used++;
	}
	if (i + 2 > used || atomic_load(&many[used - 2 - i].closed))
		return;
	rc = vmem_store_remove_device(store, number_of[used - 2 - i]);
	cr_assert(rc == 0 || rc == -VMEM_EBUSY);
	cr_assert_eq(atomic_load(&many[used - 2 - i].closed), rc == 0);
	now_ns += SECOND;
}

/* At the end there is one, with something that was elsewhere. */
static void move_all(void)
{
	uint64_t moved;

	for (uint64_t i = 0; i < 300; i++)
		(void)save(vm, VMEMT_PAGE_NOISE, i * EDITS);
	for (int turn = 0; !out_stats().segments; turn++) {
		cr_assert_lt(turn, TURNS);
		write_one();
	}
	moved = out_stats().moved;
	vmemt_memory_device_init(&many[used], 32 * MIB, 8);
	cr_assert_eq(vmem_store_add_device(store, &many[used].device, NULL, &number_of[used]), 0);
	for (uint32_t i = 0; i < used; i++)
		if (!atomic_load(&many[i].closed))
			remove_all(number_of[i]);
	cr_assert_gt(out_stats().moved, moved);
}

/* Deltas, equal pages and a group, beside devices that come and go. */
Test(store_out_move, random_operations)
{
	const struct vmem_store_vm_opts group = { .size = sizeof(group),
						  .sharing = VMEM_STORE_SHARE_GROUP,
						  .group = 5 };
	uint64_t state = vmemt_seed("store_out_move");
	uint32_t mine;

	vmemt_store_close(store, &heap);
	open_store(0);
	cr_assert_eq(vmem_store_add_vm(store, &group, &mine), 0);
	vm = mine;
	memset(ref, 0, sizeof(ref));
	used = 0;
	come_or_go(&state);
	for (uint32_t step = 0; step < 10000; step++) {
		uint32_t i = (uint32_t)(vmemt_rand(&state) % PAGES);
		uint64_t seed = vmemt_rand(&state) % (PAGES * 2);

		churn(i, VMEMT_PAGE_TEXT, seed, vmemt_rand(&state) % 3 == 0);
		if (step % 16 == 0)
			work();
		if (step % 256 == 0)
			vmem_store_write_out(store, MIB);
		if (step % 64 == 0)
			come_or_go(&state);
		if (step % 2048 == 0)
			expect_sound();
	}
	move_all();
	for (uint32_t i = 0; i < PAGES; i++)
		if (ref[i])
			expect(ref[i], VMEMT_PAGE_TEXT, seed_of[i]);
	expect_sound();
	cr_assert_eq(out_stats().lost, 0);
}

static _Atomic int over, answers, missed;

static void *watch(void *arg)
{
	struct vmem_store_device_stats stats = { .size = sizeof(stats) };

	(void)arg;
	while (!atomic_load(&over)) {
		if (vmem_store_get_device_stats(store, 0, &stats))
			atomic_fetch_add(&missed, 1);
		atomic_fetch_add(&answers, 1);
	}
	return NULL;
}

/* It is about to go again and again, but somebody holds it. */
Test(store_out_move, a_device_that_stays_after_all_is_there_all_the_time)
{
	struct vmem_store_device_stats stats = { .size = sizeof(stats) };
	pthread_t thread;

	cr_assert(vmemi_out_hold(&store->out->device[0]));
	cr_assert_eq(pthread_create(&thread, NULL, watch, NULL), 0);
	while (atomic_load(&answers) < 200000)
		cr_assert_eq(vmem_store_remove_device(store, 0), -VMEM_EBUSY);
	atomic_store(&over, 1);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(atomic_load(&missed), 0);
	vmemi_out_release(&store->out->device[0]);
	remove_all(0);
	cr_assert_eq(vmem_store_get_device_stats(store, 0, &stats), -VMEM_ENOENT);
}
