/* SPDX-License-Identifier: BSD-2-Clause */
/* Each allocation fails once in turn: what fails has changed nothing and leaves nothing. */
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
