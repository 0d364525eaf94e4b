/* SPDX-License-Identifier: BSD-2-Clause */
/* Out of memory: making an index fails and leaves nothing; adding to one never fails, it only keeps less,
 * and grows when there is memory again. */
#include "similar/similar_tools.h"

enum { PAGES = 12000 };

static struct vmemt_fail_alloc memory;

Test(similar_fault, each_allocation_of_new)
{
	struct vmem_similar_opts opts = { .size = sizeof(opts), .allocator = &memory.allocator };
	long n = 0;

	for (;; n++) {
		vmem_similar *s = NULL;
		int err;

		vmemt_fail_alloc_init(&memory);
		memory.fail_after = n;
		err = vmem_similar_new(&s, &opts);
		cr_assert_eq(err, memory.failed ? -VMEM_ENOMEM : 0);
		cr_assert_eq(s == NULL, err != 0);
		vmem_similar_free(s);
		cr_assert_eq(memory.live_bytes, 0);
		if (!memory.failed)
			break;
	}
	cr_assert_gt(n, 2);
}

/* Each allocation once, at any time: growing the first chunk, more chunks, their table, shrinking. */
Test(similar_fault, each_allocation_of_use)
{
	uint32_t ids[VMEM_SIMILAR_CANDIDATES];
	struct vmem_similar_sketch sketch;

	for (long n = 3;; n++) {
		vmem_similar *s = vmemt_similar_new(&memory, 0);

		memory.fail_after = n;
		for (uint32_t page = 0; page < PAGES; page++) {
			sketch = vmemt_sketch(page);
			vmem_similar_add(s, &sketch, page);
			cr_assert_geq(vmem_similar_find(s, &sketch, ids), 1);
			cr_assert_eq(ids[0], page);
		}
		cr_assert_eq(vmemi_similar_check(s), 0);
		cr_assert_gt(s->lines, PAGES * 2 / 10); /* one failure is made good */
		for (uint32_t page = 0; page < PAGES; page++) {
			sketch = vmemt_sketch(page);
			vmem_similar_forget(s, &sketch, page);
		}
		cr_assert_eq(vmemi_similar_check(s), 0);
		cr_assert_eq(vmemt_similar_stats(s).entries, 0);
		vmem_similar_free(s);
		cr_assert_eq(memory.live_bytes, 0);
		if (!memory.failed)
			break;
		cr_assert_eq(memory.failed, 1);
	}
}

static void *no_alloc(void *context, size_t bytes, size_t align)
{
	(void)context;
	(void)bytes;
	(void)align;
	return NULL;
}

/* Never any more, then again. */
Test(similar_fault, no_memory_for_long)
{
	vmem_similar *s = vmemt_similar_new(&memory, 0);
	void *(*alloc)(void *, size_t, size_t) = s->memory.inner.alloc;
	uint32_t ids[VMEM_SIMILAR_CANDIDATES];
	struct vmem_similar_sketch sketch;
	uint64_t bytes = vmemt_similar_stats(s).bytes;

	s->memory.inner.alloc = no_alloc;
	for (uint32_t page = 0; page < PAGES; page++) {
		sketch = vmemt_sketch(page);
		vmem_similar_add(s, &sketch, page);
		cr_assert_geq(vmem_similar_find(s, &sketch, ids), 1);
		cr_assert_eq(ids[0], page);
	}
	cr_assert_eq(vmemt_similar_stats(s).bytes, bytes);
	cr_assert_leq(vmemt_similar_stats(s).entries, 160);
	cr_assert_eq(vmemi_similar_check(s), 0);
	s->memory.inner.alloc = alloc;
	for (uint32_t page = 0; page < PAGES; page++) {
		sketch = vmemt_sketch(page);
		vmem_similar_add(s, &sketch, page);
	}
	cr_assert_gt(s->lines, PAGES * 2 / 10);
	cr_assert_eq(vmemi_similar_check(s), 0);
	vmem_similar_free(s);
	cr_assert_eq(memory.live_bytes, 0);
}
