/* SPDX-License-Identifier: BSD-2-Clause */
/* Each allocation fails once in turn: what fails has changed nothing and leaves nothing. */
#include <criterion/criterion.h>
#include "slots/slots_tools.h"

static struct vmemt_fail_alloc memory;

/* 0, or the first error; all else goes on. */
static int live(void)
{
	struct vmem_slots_opts opts = { .size = sizeof(opts), .allocator = &memory.allocator };
	struct vmem_slots_device d = { .size = sizeof(d),
				       .count = 65 * CLUSTER,
				       .max_count = 200 * CLUSTER };
	struct vmem_slots_cursor c = { 0 };
	int err, first = 0;
	vmem_slots *s = NULL;
	uint64_t slot;
	uint32_t device;

	err = vmem_slots_new(&s, &opts);
	if (err)
		return err;
	first = err = vmem_slots_add(s, &d, &device);
	for (unsigned i = 0; i < 3 && !err; i++) {
		int taken = vmem_slots_take(s, &c, CLUSTER, i, &slot);

		first = first ? first : taken;
		cr_assert_null(vmemi_slots_check(s));
		if (taken) /* there is memory again */
			cr_assert_eq(vmem_slots_take(s, &c, CLUSTER, i, &slot), 0);
	}
	if (!err) {
		int grown = vmem_slots_resize(s, device, 200 * CLUSTER, NULL);

		first = first ? first : grown;
		cr_assert_null(vmemi_slots_check(s));
		cr_assert_eq(vmemt_slots_stats(s, device).count, (grown ? 65 : 200) * CLUSTER);
		cr_assert_eq(vmemt_slots_stats(s, device).taken, 3 * CLUSTER);
	}
	vmem_slots_free(s);
	return first;
}

Test(slots_fault, each_allocation)
{
	long n = 0;

	for (;; n++) {
		int err;

		vmemt_fail_alloc_init(&memory);
		memory.fail_after = n;
		err = live();
		cr_assert_eq(err, memory.failed ? -VMEM_ENOMEM : 0);
		cr_assert_eq(memory.live_bytes, 0);
		if (!memory.failed)
			break;
	}
	cr_assert_gt(n, 8);
}

/* Without memory for a table, slots of clusters that have one are taken. */
Test(slots_fault, goes_on_where_there_are_tables)
{
	struct vmem_slots_cursor c = { 0 }, other = { 0 };
	vmem_slots *s = vmemt_slots_new(&memory);
	uint64_t slot;

	vmemt_slots_add(s, 4, 0, 0);
	cr_assert_eq(vmem_slots_take(s, &c, 1, 0, &slot), 0);
	for (unsigned i = 1; i < CLUSTER; i++) {
		memory.fail_after = memory.calls;
		cr_assert_eq(vmem_slots_take(s, &other, 1, 0, &slot), 0);
		cr_assert_lt(slot, CLUSTER);
	}
	memory.fail_after = memory.calls;
	cr_assert_eq(vmem_slots_take(s, &other, 1, 0, &slot), -VMEM_ENOMEM);
	memory.fail_after = -1;
	cr_assert_eq(vmem_slots_take(s, &other, 1, 0, &slot), 0);
	cr_assert_null(vmemi_slots_check(s));
	vmem_slots_free(s);
	cr_assert_eq(memory.live_bytes, 0);
}
