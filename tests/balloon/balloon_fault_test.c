/* SPDX-License-Identifier: BSD-2-Clause */
/* Each allocation fails once in turn: what fails has changed nothing and leaves nothing. */
#include <vmem/balloon_driver.h>
#include "balloon/balloon_tools.h"

Test(balloon_fault, each_allocation)
{
	struct vmemt_fail_alloc memory;
	struct vmem_balloon_opts opts = { .size = sizeof(opts), .allocator = &memory.allocator };
	uint64_t rams = 0;
	long n = 0;

	for (;; n++) {
		vmem_balloon *b = NULL;
		int err;

		vmemt_fail_alloc_init(&memory);
		memory.fail_after = n;
		err = vmem_balloon_new(&b, &opts);
		for (rams = 0; !err && rams < 3; rams++)
			err = vmem_balloon_add_ram(b, rams << 30, UINT64_C(1) << 30,
						   PAGE << (9 * (rams % 3)));
		cr_assert_eq(err, memory.failed ? -VMEM_ENOMEM : 0);
		if (b) {
			memory.fail_after = -1;
			cr_assert_eq(vmem_balloon_add_ram(b, UINT64_C(5) << 30, PAGE, PAGE), 0);
			if (err) /* the one that failed is not there */
				cr_assert_eq(vmem_balloon_has(b, (rams - 1) << 30), -VMEM_ERANGE);
			vmemt_balloon_sound(b);
		}
		vmem_balloon_free(b);
		cr_assert_eq(memory.live_bytes, 0);
		if (!err)
			break;
	}
	cr_assert_gt(n, 12);
}

static uint64_t take(void *context, uint64_t most, uint64_t *ret_gfn)
{
	(void)context;
	(void)most;
	(void)ret_gfn;
	return 0;
}

static void give(void *context, uint64_t gfn, uint64_t pages)
{
	(void)context;
	(void)gfn;
	(void)pages;
}

Test(balloon_fault, each_allocation_of_a_driver)
{
	struct vmem_balloon_guest_memory m = { .size = sizeof(m), .take = take, .give = give };
	struct vmemt_fail_alloc memory;
	struct vmem_balloon_driver_opts opts = {
		.size = sizeof(opts), .allocator = &memory.allocator, .memory = &m, .max_spans = 10
	};
	long n = 0;
	int err;

	do {
		vmem_balloon_driver *d = NULL;

		vmemt_fail_alloc_init(&memory);
		memory.fail_after = n++;
		err = vmem_balloon_driver_new(&d, &opts);
		cr_assert_eq(err, memory.failed ? -VMEM_ENOMEM : 0);
		cr_assert_eq(!d, err != 0);
		vmem_balloon_driver_free(d);
		cr_assert_eq(memory.live_bytes, 0);
	} while (err);
	cr_assert_eq(n, 5);
}
