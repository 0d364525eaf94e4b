/* SPDX-License-Identifier: BSD-2-Clause */
/* The default allocator, the checks on a caller's, and the allocator that counts. */
#include <criterion/criterion.h>
#include <string.h>
#include "base/alloc.h"
#include "support/fail_alloc.h"

#define NEVER_THERE ((size_t)1 << 62)

Test(alloc, default_is_taken_for_none)
{
	struct vmem_allocator a;

	cr_assert_eq(vmemi_alloc_take(&a, NULL), 0);
	cr_assert_eq(memcmp(&a, vmemi_alloc_default(), sizeof(a)), 0);
}

Test(alloc, callers_own_is_copied)
{
	struct vmemt_fail_alloc f;
	struct vmem_allocator given, a;

	vmemt_fail_alloc_init(&f);
	given = f.allocator;
	cr_assert_eq(vmemi_alloc_take(&a, &given), 0);
	memset(&given, 0, sizeof(given));
	vmemi_free(&a, vmemi_alloc(&a, 10, 8), 10, 8);
	cr_assert_eq(f.calls, 1);
	cr_assert_eq(f.live_bytes, 0);
}

Test(alloc, incomplete_is_refused)
{
	struct vmemt_fail_alloc f;
	struct vmem_allocator broken, a;

	vmemt_fail_alloc_init(&f);
	broken = f.allocator;
	broken.size = offsetof(struct vmem_allocator, free);
	cr_assert_eq(vmemi_alloc_take(&a, &broken), -VMEM_EINVAL);
	broken = f.allocator;
	broken.alloc = NULL;
	cr_assert_eq(vmemi_alloc_take(&a, &broken), -VMEM_EINVAL);
	broken = f.allocator;
	broken.free = NULL;
	cr_assert_eq(vmemi_alloc_take(&a, &broken), -VMEM_EINVAL);
}

Test(alloc, newer_is_refused_only_if_it_uses_what_is_new)
{
	struct {
		struct vmem_allocator known;
		void *unknown;
	} newer = { .known = *vmemi_alloc_default() };
	struct vmem_allocator a;

	newer.known.size = sizeof(newer);
	cr_assert_eq(vmemi_alloc_take(&a, &newer.known), 0);
	newer.unknown = &newer;
	cr_assert_eq(vmemi_alloc_take(&a, &newer.known), -VMEM_E2BIG);
}

Test(alloc, default_aligns)
{
	const struct vmem_allocator *a = vmemi_alloc_default();

	for (size_t align = 1; align <= 65536; align *= 2) {
		for (size_t bytes = 1; bytes <= 65536; bytes *= 16) {
			unsigned char *memory = vmemi_alloc(a, bytes, align);

			cr_assert_not_null(memory);
			cr_assert_eq((uintptr_t)memory % align, 0u, "%zu bytes to %zu", bytes,
				     align);
			memset(memory, 0xff, bytes);
			vmemi_free(a, memory, bytes, align);
		}
	}
}

Test(alloc, default_refuses_what_there_is_not)
{
	const struct vmem_allocator *a = vmemi_alloc_default();

	cr_assert_null(vmemi_alloc(a, NEVER_THERE, 1));
	cr_assert_null(vmemi_alloc(a, NEVER_THERE, 4096));
}

Test(alloc, zeroed)
{
	struct vmemt_fail_alloc f;
	unsigned char *memory;

	vmemt_fail_alloc_init(&f); /* its memory is not zero */
	memory = vmemi_zalloc(&f.allocator, 1000, 64);
	cr_assert_not_null(memory);
	for (size_t i = 0; i < 1000; i++)
		cr_assert_eq(memory[i], 0, "byte %zu", i);
	vmemi_free(&f.allocator, memory, 1000, 64);
	f.fail_after = f.calls;
	cr_assert_null(vmemi_zalloc(&f.allocator, 1000, 64));
	vmemi_free(&f.allocator, NULL, 1000, 64);
	cr_assert_eq(f.live_bytes, 0);
}

Test(counting, counts_what_is_out)
{
	struct vmemt_fail_alloc f;
	struct vmemi_counting_allocator c;
	const struct vmem_allocator *a = &c.allocator;
	void *first, *second;

	vmemt_fail_alloc_init(&f);
	vmemi_counting_init(&c, &f.allocator);
	first = vmemi_alloc(a, 100, 8);
	second = vmemi_alloc(a, 4096, 4096);
	cr_assert_eq(c.bytes, 4196u);
	cr_assert_eq(f.live_bytes, 4196);
	f.fail_after = f.calls;
	cr_assert_null(vmemi_alloc(a, 50, 8));
	cr_assert_eq(c.bytes, 4196u, "a failed allocation was counted");
	vmemi_free(a, first, 100, 8);
	cr_assert_eq(c.bytes, 4096u);
	vmemi_free(a, second, 4096, 4096);
	cr_assert_eq(c.bytes, 0u);
	cr_assert_eq(f.live_bytes, 0);
}
