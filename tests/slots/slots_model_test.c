/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations beside an array of states. A run that is free within a cluster is found, always; what is not
 * free is not; and the invariants hold. */
#include <criterion/criterion.h>
#include "slots/slots_tools.h"

enum { DEVICES = 3, MOST = 12, STEPS = 60000, CURSORS = 4, DISCARD = 32 };
enum state { FREE, TAKEN, DISCARDED };

static struct {
	uint64_t clusters; /* of its device */
	uint8_t state[MOST * CLUSTER];
	uint64_t owner[MOST * CLUSTER];
} model[DEVICES];
static const uint32_t discard_least[DEVICES] = { 0, DISCARD, 1 };

static struct vmemt_fail_alloc memory;
static struct vmem_slots_cursor cursor[CURSORS];
static vmem_slots *slots;
static uint64_t rng;

static uint32_t below(uint32_t n)
{
	return (uint32_t)(vmemt_rand(&rng) % n);
}

/* Whether @count slots in a row are free within a cluster. */
static bool has_run(uint32_t device, uint32_t count)
{
	uint32_t run = 0;

	for (uint64_t i = 0; i < model[device].clusters * CLUSTER; i++) {
		run = i % CLUSTER ? run : 0;
		run = model[device].state[i] == FREE ? run + 1 : 0;
		if (run >= count)
			return true;
	}
	return false;
}

static bool any_discards(uint32_t except)
{
	for (uint32_t d = 0; d < DEVICES; d++)
		for (uint64_t i = 0; i < MOST * CLUSTER; i++)
			if (!(except >> d & 1) && model[d].state[i] == DISCARDED)
				return true;
	return false;
}

static void take(uint32_t count)
{
	uint64_t slot, owner = vmemt_rand(&rng), number;
	struct vmem_slots_cursor *c = &cursor[below(CURSORS)];
	uint32_t except = below(4) ? 0 : below(1 << DEVICES), device;
	int err = except ? vmem_slots_take_except(slots, c, except, count, owner, &slot)
			 : vmem_slots_take(slots, c, count, owner, &slot);

	if (err) {
		cr_assert_eq(err, any_discards(except) ? -VMEM_EAGAIN : -VMEM_ENOSPC);
		for (uint32_t d = 0; d < DEVICES; d++)
			cr_assert(except >> d & 1 || !has_run(d, count), "a run of %u is free",
				  count);
		return;
	}
	device = VMEM_SLOT_DEVICE(slot);
	number = VMEM_SLOT_NUMBER(slot);
	cr_assert_lt(device, DEVICES);
	cr_assert(!(except >> device & 1));
	cr_assert_leq(number + count, model[device].clusters * CLUSTER);
	cr_assert_eq(number / CLUSTER, (number + count - 1) / CLUSTER);
	for (uint64_t i = number; i < number + count; i++) {
		cr_assert_eq(model[device].state[i], FREE);
		model[device].state[i] = TAKEN;
		model[device].owner[i] = owner;
	}
}

static void give(void)
{
	uint32_t device = below(DEVICES), number = below(MOST * CLUSTER), count = 1 + below(80);
	bool taken = true, is_discard;
	int err;

	if (below(4))
		count = 1;
	if (count > CLUSTER - number % CLUSTER)
		count = CLUSTER - number % CLUSTER;
	for (uint32_t i = number; i < number + count; i++)
		taken &= model[device].state[i] == TAKEN;
	is_discard = discard_least[device] && count >= discard_least[device];
	err = vmem_slots_give(slots, VMEM_SLOT(device, number), count);
	cr_assert_eq(err, taken ? 0 : -VMEM_ENOENT);
	for (uint32_t i = number; taken && i < number + count; i++)
		model[device].state[i] = is_discard ? DISCARDED : FREE;
}

static void discard(void)
{
	uint32_t count;
	uint64_t slot;

	if (vmem_slots_discard_next(slots, &slot, &count))
		return;
	for (uint64_t i = VMEM_SLOT_NUMBER(slot); i < VMEM_SLOT_NUMBER(slot) + count; i++) {
		cr_assert_eq(model[VMEM_SLOT_DEVICE(slot)].state[i], DISCARDED);
		model[VMEM_SLOT_DEVICE(slot)].state[i] = FREE;
	}
	cr_assert_eq(vmem_slots_discarded(slots, slot, count), 0);
}

static void resize(void)
{
	uint32_t device = below(DEVICES);
	uint64_t clusters = below(MOST + 1), left = 0, ours = 0;
	int err;

	for (uint64_t i = clusters * CLUSTER; i < MOST * CLUSTER; i++)
		ours += model[device].state[i] != FREE;
	err = vmem_slots_resize(slots, device, clusters * CLUSTER, &left);
	if (clusters > model[device].clusters) {
		cr_assert_eq(err, 0);
	} else {
		cr_assert_eq(left, ours);
		cr_assert_eq(err, ours ? -VMEM_EBUSY : 0);
	}
	model[device].clusters = clusters;
}

static void compare(void)
{
	uint64_t slot, owner;

	for (uint32_t d = 0; d < DEVICES; d++) {
		slot = VMEM_SLOT(d, 0);
		for (uint64_t i = 0; i < MOST * CLUSTER; i++) {
			if (model[d].state[i] != TAKEN)
				continue;
			cr_assert_eq(vmem_slots_next(slots, slot, &slot, &owner), 0);
			cr_assert_eq(slot, VMEM_SLOT(d, i));
			cr_assert_eq(owner, model[d].owner[i]);
			slot++;
		}
		cr_assert_eq(vmem_slots_next(slots, slot, &slot, NULL), -VMEM_ENOENT);
	}
}

/* Now more is taken, now more given back. */
static void step(uint32_t i)
{
	uint32_t more = i / 4000 % 2 ? 30 : 55, choice = below(100);

	if (choice < more)
		take(below(3) ? 1 : below(8) ? 64 : 1 + below(CLUSTER));
	else if (choice < 92)
		give();
	else if (choice < 98)
		discard();
	else if (choice < 99)
		vmem_slots_cursor_end(slots, &cursor[below(CURSORS)]);
	else if (!below(10))
		resize();
	else
		vmem_slots_work(slots);
	if (i % 16 == 0)
		cr_assert_null(vmemi_slots_check(slots), "step %u: %s", i,
			       vmemi_slots_check(slots));
}

static void random_operations(const struct vmem_env *env)
{
	rng = vmemt_seed("slots_model");
	slots = vmemt_slots_new_in(&memory, env);
	for (uint32_t d = 0; d < DEVICES; d++) {
		model[d].clusters = MOST / 4;
		cr_assert_eq(vmemt_slots_add(slots, MOST / 4, (int32_t)d / 2, discard_least[d]), d);
	}
	for (uint32_t i = 0; i < STEPS; i++) {
		step(i);
		if (i % 500 == 0)
			compare();
	}
	compare();
	vmem_slots_free(slots);
	cr_assert_eq(memory.live_bytes, 0);
}

Test(slots_model, random_operations)
{
	random_operations(NULL);
}

Test(slots_model, without_a_barrier)
{
	struct vmem_env env;

	random_operations(vmemt_slots_no_barrier(&env));
}
