/* SPDX-License-Identifier: BSD-2-Clause */
/* What the header says, one thing after the other. */
#include <criterion/criterion.h>
#include "slots/slots_tools.h"
#include "slots/slots_unused.h"

static struct vmemt_fail_alloc memory;
static struct vmem_slots_cursor cursor;
static vmem_slots *slots;

static void begin(void)
{
	slots = vmemt_slots_new(&memory);
	cursor = (struct vmem_slots_cursor){ 0 };
}

static void end(void)
{
	cr_assert_null(vmemi_slots_check(slots), "%s", vmemi_slots_check(slots));
	vmem_slots_free(slots);
	cr_assert_eq(memory.live_bytes, 0);
}

TestSuite(slots, .init = begin, .fini = end);

static uint64_t take(uint32_t count, uint64_t owner)
{
	uint64_t slot = VMEM_SLOTS_NONE;

	cr_assert_eq(vmem_slots_take(slots, &cursor, count, owner, &slot), 0);
	return slot;
}

Test(slots, wrong_arguments)
{
	struct vmem_slots_opts opts = { .size = sizeof(opts), .flags = 1 };
	struct vmem_slots_device d = { .size = sizeof(d), .count = 2 * CLUSTER };
	struct vmem_slots_stats stats = { .size = sizeof(stats) };
	uint64_t slot, other;
	uint32_t device;
	vmem_slots *s;

	cr_assert_eq(vmem_slots_new(NULL, NULL), -VMEM_EINVAL);
	cr_assert_eq(vmem_slots_new(&s, &opts), -VMEM_EINVAL);
	cr_assert_eq(vmem_slots_take(slots, &cursor, 1, 0, &slot), -VMEM_ENOSPC);
	cr_assert_eq(vmem_slots_get_stats(slots, 0, &stats), -VMEM_EINVAL);
	cr_assert_eq(vmem_slots_resize(slots, 0, CLUSTER, NULL), -VMEM_EINVAL);
	cr_assert_eq(vmem_slots_remove(slots, 32), -VMEM_EINVAL);
	cr_assert_eq(vmem_slots_next(slots, 0, &slot, NULL), -VMEM_ENOENT);
	d.count++;
	cr_assert_eq(vmem_slots_add(slots, &d, &device), -VMEM_EINVAL);
	d.count = 0;
	cr_assert_eq(vmem_slots_add(slots, &d, &device), -VMEM_EINVAL);
	d.count = UINT64_C(1) << 37;
	cr_assert_eq(vmem_slots_add(slots, &d, &device), -VMEM_EINVAL);
	d.count = 2 * CLUSTER;
	d.max_count = CLUSTER;
	cr_assert_eq(vmem_slots_add(slots, &d, &device), -VMEM_EINVAL);
	d.max_count = 0;
	d.discard_least = 513;
	cr_assert_eq(vmem_slots_add(slots, &d, &device), -VMEM_EINVAL);
	d.discard_least = 0;
	cr_assert_eq(vmem_slots_add(slots, &d, &device), 0);
	cr_assert_eq(device, 0);
	cr_assert_eq(vmem_slots_resize(slots, 0, 3 * CLUSTER, NULL), -VMEM_EINVAL);
	cr_assert_eq(vmem_slots_take(slots, &cursor, 0, 0, &slot), -VMEM_EINVAL);
	cr_assert_eq(vmem_slots_take(slots, &cursor, CLUSTER + 1, 0, &slot), -VMEM_EINVAL);
	slot = take(4, 9);
	cr_assert_eq(vmem_slots_give(slots, slot, 0), -VMEM_EINVAL);
	cr_assert_eq(vmem_slots_give(slots, slot, CLUSTER + 1), -VMEM_EINVAL);
	cr_assert_eq(vmem_slots_give(slots, slot, 5), -VMEM_ENOENT);
	cr_assert_eq(vmem_slots_give(slots, VMEM_SLOT(1, 0), 1), -VMEM_ENOENT);
	cr_assert_eq(vmem_slots_give(slots, VMEM_SLOT(0, 2 * CLUSTER), 1), -VMEM_ENOENT);
	cr_assert_eq(vmem_slots_give(slots, VMEM_SLOTS_NONE, 1), -VMEM_ENOENT);
	cr_assert_eq(vmem_slots_owner(slots, slot + 4, &other), -VMEM_ENOENT);
	cr_assert_eq(vmem_slots_discarded(slots, slot, 4), -VMEM_ENOENT);
	cr_assert_eq(vmem_slots_give(slots, slot, 4), 0);
	cr_assert_eq(vmem_slots_give(slots, slot, 4), -VMEM_ENOENT);
	cr_assert_eq(vmem_slots_give(slots, slot, 1), -VMEM_ENOENT);
}

/* One after the other, each with its owner, to the last; and again what was freed. */
Test(slots, each_slot_once)
{
	uint32_t device = vmemt_slots_add(slots, 3, 0, 0);
	static uint8_t seen[3 * CLUSTER];
	uint64_t slot, owner;

	for (uint64_t i = 0; i < 3 * CLUSTER; i++) {
		slot = take(1, i * 7);
		cr_assert_eq(VMEM_SLOT_DEVICE(slot), device);
		cr_assert_eq(seen[VMEM_SLOT_NUMBER(slot)]++, 0);
		cr_assert_eq(vmem_slots_owner(slots, slot, &owner), 0);
		cr_assert_eq(owner, i * 7);
	}
	cr_assert_eq(vmem_slots_take(slots, &cursor, 1, 0, &slot), -VMEM_ENOSPC);
	cr_assert_eq(vmem_slots_give(slots, VMEM_SLOT(device, 700), 1), 0);
	cr_assert_eq(take(1, 5), VMEM_SLOT(device, 700));
	cr_assert_eq(vmem_slots_set_owner(slots, VMEM_SLOT(device, 700), 6), 0);
	cr_assert_eq(vmem_slots_next(slots, VMEM_SLOT(device, 700), &slot, &owner), 0);
	cr_assert(slot == VMEM_SLOT(device, 700) && owner == 6);
	cr_assert_eq(vmemt_slots_stats(slots, device).taken, 3 * CLUSTER);
}

/* What is taken through one cursor lies side by side, whatever another takes. */
Test(slots, cursors_keep_apart)
{
	struct vmem_slots_cursor other = { 0 };
	uint64_t first, slot, theirs;

	vmemt_slots_add(slots, 4, 0, 0);
	first = take(1, 0);
	for (uint64_t i = 1; i < CLUSTER; i++) {
		cr_assert_eq(vmem_slots_take(slots, &other, 1, 0, &theirs), 0);
		slot = take(1, 0);
		cr_assert_eq(slot, first + i);
		cr_assert_neq(slot / CLUSTER, theirs / CLUSTER);
	}
}

/* The last free slots are in the cluster of another cursor, and are found there. */
Test(slots, from_another_cursors_cluster)
{
	struct vmem_slots_cursor other = { 0 };
	uint64_t slot;

	vmemt_slots_add(slots, 1, 0, 0);
	cr_assert_eq(vmem_slots_take(slots, &other, 1, 0, &slot), 0);
	for (uint64_t i = 1; i < CLUSTER; i += 2) {
		take(1, 0);
		cr_assert_eq(vmem_slots_take(slots, &other, i + 1 < CLUSTER, 0, &slot),
			     i + 1 < CLUSTER ? 0 : -VMEM_EINVAL);
	}
	cr_assert_eq(vmem_slots_take(slots, &cursor, 1, 0, &slot), -VMEM_ENOSPC);
	vmem_slots_cursor_end(slots, &other);
}

static int barriers, barrier_error;

static int count_barrier(void *context)
{
	(void)context;
	barriers++;
	return barrier_error;
}

static void begin_with_barrier(struct vmem_slots_cursor *other, uint64_t *ret_slot)
{
	struct vmem_env env = *vmemi_env_default();

	vmem_slots_free(slots);
	env.barrier = count_barrier;
	slots = vmemt_slots_new_in(&memory, &env);
	vmemt_slots_add(slots, 1, 0, 0);
	cr_assert_eq(vmem_slots_take(slots, other, 1, 0, ret_slot), 0);
	barriers = 0;
}

/* Others are asked for a barrier when their cursors have the last slots, and not for each slot. */
Test(slots, barriers_are_rare)
{
	struct vmem_slots_cursor other = { 0 };
	uint64_t slot, last = 0;

	begin_with_barrier(&other, &slot);
	for (uint64_t i = 1; i < CLUSTER; i++) {
		cr_assert_eq(vmem_slots_take(slots, i % 2 ? &cursor : &other, 1, i, &slot), 0);
		cr_assert_null(vmemi_slots_check(slots), "%s", vmemi_slots_check(slots));
		cr_assert_eq(vmem_slots_owner(slots, slot, &last), 0);
		cr_assert_eq(last, i);
	}
	cr_assert_eq(vmemt_slots_stats(slots, 0).taken, CLUSTER);
	cr_assert(barriers >= 1 && barriers <= 10, "%d barriers", barriers);
	vmem_slots_cursor_end(slots, &other);
}

/* Where there is no barrier any more, the cursor's slots stay its own until it goes on. */
Test(slots, barrier_that_fails)
{
	struct vmem_slots_cursor other = { 0 };
	uint64_t first, slot;

	begin_with_barrier(&other, &first);
	barrier_error = -1;
	cr_assert_eq(vmem_slots_take(slots, &cursor, 1, 0, &slot), -VMEM_ENOSPC);
	cr_assert_eq(vmem_slots_take(slots, &cursor, 8, 0, &slot), -VMEM_ENOSPC);
	barrier_error = 0; /* and nobody has kept in mind that nothing was found */
	cr_assert_eq(vmem_slots_take(slots, &cursor, 1, 0, &slot), 0);
	cr_assert_eq(vmem_slots_give(slots, slot, 1), 0);
	cr_assert_eq(vmem_slots_take(slots, &other, 1, 0, &slot), 0);
	cr_assert_eq(vmem_slots_give(slots, slot, 1), 0);
}

/* Nor are they cut off. */
Test(slots, barrier_that_fails_while_a_device_shrinks)
{
	struct vmem_slots_cursor other = { 0 };
	uint64_t first, slot, left;

	begin_with_barrier(&other, &first);
	barrier_error = -1;
	cr_assert_eq(vmem_slots_resize(slots, 0, 0, &left), -VMEM_EBUSY);
	cr_assert_eq(left, CLUSTER);
	cr_assert_eq(vmem_slots_resize(slots, 0, CLUSTER, NULL), 0);
	cr_assert_null(vmemi_slots_check(slots), "%s", vmemi_slots_check(slots));
	cr_assert_eq(vmem_slots_give(slots, first, 1), 0);
	cr_assert_eq(vmem_slots_give(slots, first, 1), -VMEM_ENOENT);
	cr_assert_eq(vmem_slots_take(slots, &cursor, 1, 0, &slot), 0);
	cr_assert_eq(slot, first);
	for (uint64_t i = 1; i < CLUSTER; i++)
		cr_assert_eq(vmem_slots_take(slots, &other, 1, 0, &slot), 0);
	cr_assert_eq(vmem_slots_take(slots, &other, 1, 0, &slot), -VMEM_ENOSPC);
	barrier_error = 0;
}

/* The greater priority first, and equal ones in turn. */
Test(slots, priorities)
{
	uint32_t slow = vmemt_slots_add(slots, 2, -1, 0), fast = vmemt_slots_add(slots, 3, 5, 0);
	uint32_t twin = vmemt_slots_add(slots, 3, 5, 0);
	uint64_t of[3] = { 0 }, slot = 0;

	for (uint64_t i = 1; i <= 6; i++) {
		for (unsigned k = 0; k < CLUSTER; k++) {
			slot = take(1, 0);
			of[VMEM_SLOT_DEVICE(slot)]++;
		}
		cr_assert(!of[slow] && of[fast] + of[twin] == i * CLUSTER);
		cr_assert(i % 2 || of[fast] == of[twin]);
	}
	cr_assert_eq(VMEM_SLOT_DEVICE(take(1, 0)), slow);
	cr_assert_eq(vmem_slots_give(slots, slot, 1), 0);
	vmem_slots_cursor_end(slots, &cursor);
	cr_assert_eq(take(1, 0), slot);
}

/* Devices that are left out are, wherever the cursor is; what is to be discarded there is no hope. */
Test(slots, all_but_some_devices)
{
	uint32_t fast = vmemt_slots_add(slots, 1, 5, 8), slow = vmemt_slots_add(slots, 1, -1, 0);
	uint64_t slot, run;

	cr_assert_eq(VMEM_SLOT_DEVICE(take(1, 0)), fast);
	cr_assert_eq(vmem_slots_take_except(slots, &cursor, 1u << fast, 1, 7, &slot), 0);
	cr_assert_eq(VMEM_SLOT_DEVICE(slot), slow);
	vmem_slots_cursor_end(slots, &cursor);
	run = take(8, 0);
	cr_assert_eq(VMEM_SLOT_DEVICE(run), fast);
	cr_assert_eq(vmem_slots_take_except(slots, &cursor, 1u << fast, 8, 7, &slot), 0);
	cr_assert_eq(VMEM_SLOT_DEVICE(slot), slow);
	cr_assert_eq(vmem_slots_take_except(slots, &cursor, 1u << slow, CLUSTER, 7, &slot),
		     -VMEM_ENOSPC);
	cr_assert_eq(vmem_slots_take_except(slots, &cursor, UINT32_MAX, 1, 7, &slot), -VMEM_ENOSPC);
	cr_assert_eq(vmem_slots_take_except(slots, &cursor, 0, 0, 7, &slot), -VMEM_EINVAL);
	cr_assert_eq(vmem_slots_give(slots, run, 8), 0);
	cr_assert_eq(vmem_slots_take_except(slots, &cursor, 1u << fast, CLUSTER, 7, &slot),
		     -VMEM_ENOSPC);
	cr_assert_eq(vmem_slots_take_except(slots, &cursor, 1u << slow, CLUSTER, 7, &slot),
		     -VMEM_EAGAIN);
}

/* A table comes with the first slot of a cluster and goes with the last. */
Test(slots, memory_of_what_is_taken)
{
	uint32_t device = vmemt_slots_add(slots, 1 << 15, 0, 0);
	uint64_t empty = vmemt_slots_stats(slots, device).bytes, slot;

	/* 64 GiB, and the object itself. */
	cr_assert_lt((double)empty / (double)((UINT64_C(1) << 15) * CLUSTER), 0.04);
	cr_assert_eq(vmemt_slots_stats(slots, device).tables, 0);
	slot = take(CLUSTER, 3);
	cr_assert_eq(vmemt_slots_stats(slots, device).tables, 1);
	cr_assert_leq(vmemt_slots_stats(slots, device).bytes - empty, CLUSTER * 35 / 4);
	cr_assert_eq(vmem_slots_give(slots, slot, CLUSTER - 1), 0);
	cr_assert_eq(vmem_slots_give(slots, slot + CLUSTER - 1, 1), 0);
	vmem_slots_cursor_end(slots, &cursor);
	cr_assert_eq(vmemt_slots_stats(slots, device).tables, 0);
	vmem_slots_work(slots);
	cr_assert_eq(vmemt_slots_stats(slots, device).bytes, empty);
}

/* Also where no cursor is, whichever slot is the last. */
Test(slots, table_goes_with_its_last_slot)
{
	uint32_t device = vmemt_slots_add(slots, 1, 0, 0);
	uint64_t first;

	for (uint32_t last = 0; last < CLUSTER; last += 73) {
		first = take(CLUSTER, 3);
		vmem_slots_cursor_end(slots, &cursor);
		for (uint32_t i = 1; i <= CLUSTER; i++) {
			cr_assert_eq(vmemt_slots_stats(slots, device).tables, 1);
			cr_assert_eq(vmem_slots_give(slots, first + (last + i) % CLUSTER, 1), 0);
		}
		cr_assert_eq(vmemt_slots_stats(slots, device).tables, 0);
		cr_assert_null(vmemi_slots_check(slots), "%s", vmemi_slots_check(slots));
	}
}

/* What was freed in a run is nobody's before it has been discarded. */
Test(slots, discards)
{
	uint32_t device = vmemt_slots_add(slots, 1, 0, 8), count;
	uint64_t run = take(16, 1), rest = take(496, 2), slot, other;

	cr_assert_eq(vmem_slots_give(slots, run + 1, 1), 0); /* too short */
	cr_assert_eq(vmem_slots_discard_next(slots, &slot, &count), -VMEM_ENOENT);
	cr_assert_eq(vmem_slots_give(slots, run + 8, 8), 0);
	cr_assert_eq(vmem_slots_give(slots, rest, 9), 0);
	cr_assert_eq(vmem_slots_give(slots, run + 8, 8), -VMEM_ENOENT);
	cr_assert_eq(vmem_slots_give(slots, run + 8, 1), -VMEM_ENOENT);
	cr_assert_eq(vmem_slots_owner(slots, run + 8, &other), -VMEM_ENOENT);
	cr_assert_eq(vmemt_slots_stats(slots, device).discards, 17);
	cr_assert_eq(take(1, 7), run + 1);
	cr_assert_eq(vmem_slots_take(slots, &cursor, 1, 0, &slot), -VMEM_EAGAIN);
	cr_assert_eq(vmem_slots_discard_next(slots, &slot, &count), 0);
	cr_assert(slot == rest && count == 9);
	cr_assert_eq(vmem_slots_discard_next(slots, &slot, &count), 0);
	cr_assert(slot == run + 8 && count == 8);
	cr_assert_eq(vmem_slots_discard_next(slots, &slot, &count), -VMEM_ENOENT);
	cr_assert_eq(vmem_slots_take(slots, &cursor, 1, 0, &slot), -VMEM_EAGAIN);
	cr_assert_eq(vmem_slots_discarded(slots, run + 7, 8), -VMEM_ENOENT);
	cr_assert_eq(vmem_slots_discarded(slots, run + 8, 8), 0);
	cr_assert_eq(vmem_slots_discarded(slots, run + 8, 8), -VMEM_ENOENT);
	cr_assert_eq(take(8, 7), run + 8);
	cr_assert_eq(vmem_slots_next(slots, run, &slot, &other), 0);
	cr_assert(slot == run && other == 1);
	cr_assert_eq(vmem_slots_next(slots, rest, &slot, &other), 0);
	cr_assert(slot == rest + 9 && other == 2);
}

/* What nothing was written to is free at once. */
Test(slots, unused_runs_are_not_discarded)
{
	uint32_t device = vmemt_slots_add(slots, 1, 0, 1), count;
	uint64_t run = take(16, 1), rest = take(496, 2), slot;

	cr_assert_eq(vmemi_slots_give_unused(slots, run + 4, 8), 0);
	cr_assert_eq(vmemi_slots_give_unused(slots, run + 4, 8), -VMEM_ENOENT);
	cr_assert_eq(vmemi_slots_give_unused(slots, run, 1), 0);
	cr_assert_eq(vmemi_slots_give_unused(slots, rest, 497), -VMEM_EINVAL);
	cr_assert_eq(vmemt_slots_stats(slots, device).discards, 0);
	cr_assert_eq(vmem_slots_discard_next(slots, &slot, &count), -VMEM_ENOENT);
	cr_assert_eq(take(8, 3), run + 4);
	cr_assert_eq(vmemi_slots_give_unused(slots, run + 1, 15), 0);
	cr_assert_eq(vmemi_slots_give_unused(slots, rest, 496), 0);
	cr_assert_eq(vmemt_slots_stats(slots, device).taken, 0);
}

/* A device shrinks once what is beyond has been moved, and grows again. */
Test(slots, shrink_and_grow)
{
	uint32_t device = vmemt_slots_add(slots, 4, 0, 0);
	uint64_t first = take(CLUSTER, 1), second = take(CLUSTER, 2), slot = 0, owner, left;

	cr_assert_eq(vmem_slots_give(slots, first, CLUSTER), 0);
	cr_assert_eq(vmem_slots_give(slots, second + 3, CLUSTER - 3), 0);
	cr_assert_eq(vmem_slots_resize(slots, device, CLUSTER, &left), -VMEM_EBUSY);
	cr_assert_eq(left, 3);
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(vmem_slots_next(slots, VMEM_SLOT(device, CLUSTER), &slot, &owner), 0);
		cr_assert(slot == second + i && owner == 2);
		cr_assert_lt(take(1, owner), VMEM_SLOT(device, CLUSTER));
		cr_assert_eq(vmem_slots_give(slots, slot, 1), 0);
		cr_assert_eq(vmem_slots_give(slots, slot, 1), -VMEM_ENOENT);
	}
	cr_assert_eq(vmem_slots_resize(slots, device, CLUSTER, &left), 0);
	cr_assert_eq(vmemt_slots_stats(slots, device).taken, 3);
	cr_assert_eq(vmem_slots_take(slots, &cursor, CLUSTER, 0, &slot), -VMEM_ENOSPC);
	cr_assert_eq(vmem_slots_resize(slots, device, 8 * CLUSTER, &left), 0);
	for (unsigned i = 0; i < 7; i++)
		take(CLUSTER, 4);
	cr_assert_eq(vmem_slots_take(slots, &cursor, CLUSTER, 0, &slot), -VMEM_ENOSPC);
	cr_assert_eq(vmem_slots_remove(slots, device), -VMEM_EBUSY);
	cr_assert_eq(vmem_slots_resize(slots, device, 0, &left), -VMEM_EBUSY);
	while (!vmem_slots_next(slots, VMEM_SLOT(device, 0), &slot, NULL))
		cr_assert_eq(vmem_slots_give(slots, slot, 1), 0);
	cr_assert_eq(vmem_slots_resize(slots, device, 0, &left), 0);
	cr_assert_eq(vmem_slots_remove(slots, device), -VMEM_EBUSY);
	vmem_slots_cursor_end(slots, &cursor);
	cr_assert_eq(vmem_slots_remove(slots, device), 0);
	cr_assert_eq(vmemt_slots_add(slots, 1, 0, 0), device);
}
