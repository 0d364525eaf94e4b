/* SPDX-License-Identifier: BSD-2-Clause */
/* Each allocation, and each lock that is made, fails once in turn until none fails any more: every call
 * works or changes nothing, what is stored stays readable, and nothing leaks. */
#include "pool/pool_tools.h"
#include "support/fail_locks.h"

enum { SMALL = 9000 /* more than a chunk of the index */, PAGES = 200 };

static vmem_pool_handle small[SMALL], pages[PAGES];
static struct vmemt_fail_locks locks;

static vmem_pool *open_pool(void)
{
	struct vmem_pool_opts opts = { .size = sizeof(opts),
				       .allocator = &heap.allocator,
				       .segments = &heap.allocator,
				       .env = &locks.env };
	vmem_pool *pool = NULL;
	int err;

	err = vmem_pool_new(&pool, &opts);
	cr_assert(err == 0 || err == -VMEM_ENOMEM);
	cr_assert_eq(err == 0, pool != NULL);
	return pool;
}

/* Tries again once: only one allocation fails. */
#define TWICE(call)                                       \
	do {                                              \
		int err_ = (call);                        \
                                                          \
		if (err_) {                               \
			cr_assert_eq(err_, -VMEM_ENOMEM); \
			expect_sound(pool);               \
			cr_assert_eq((call), 0);          \
		}                                         \
	} while (0)

static void scenario(vmem_pool *pool)
{
	uint32_t one, two, bytes, value;

	TWICE(vmem_pool_stream_new(pool, &one));
	TWICE(vmem_pool_stream_new(pool, &two));
	for (uint32_t i = 0; i < SMALL; i++)
		TWICE(vmem_pool_save_bytes(pool, one, &i, sizeof(i), &small[i]));
	for (uint32_t i = 0; i < PAGES; i++)
		TWICE(try_save(pool, two, VMEMT_PAGE_NOISE, i, &pages[i]));
	for (uint32_t i = 0; i < SMALL; i += 2)
		cr_assert_eq(vmem_pool_drop(pool, small[i]), 0);
	for (uint32_t i = 0; i < PAGES; i += 3)
		cr_assert_eq(vmem_pool_drop(pool, pages[i]), 0);
	while (vmem_pool_work(pool, 1 << 20))
		;
	while (vmem_pool_work(pool, 1 << 20)) /* if the one failure has stopped it */
		;
	expect_sound(pool);
	for (uint32_t i = 1; i < SMALL; i += 2) {
		cr_assert_eq(vmem_pool_load_bytes(pool, small[i], &value, sizeof(value), &bytes),
			     0);
		cr_assert_eq(value, i);
	}
	for (uint32_t i = 0; i < PAGES; i++)
		if (i % 3)
			expect_page(pool, pages[i], VMEMT_PAGE_NOISE, i);
	cr_assert_eq(vmem_pool_stream_drop(pool, one), 0);
	expect_sound(pool);
}

static void run(long fail_at, long lock_fail_at)
{
	vmem_pool *pool;

	vmemt_fail_alloc_init(&heap);
	heap.fail_after = fail_at;
	vmemt_fail_locks_init(&locks);
	locks.fail_after = lock_fail_at;
	pool = open_pool();
	if (pool)
		scenario(pool);
	vmem_pool_free(pool);
	cr_assert_eq(heap.live_bytes, 0);
	cr_assert_eq(locks.live, 0);
}

Test(pool_fault, every_allocation)
{
	long n = 0;

	do
		run(n++, -1);
	while (heap.failed);
	cr_assert_eq(n, 21, "%ld", n); /* the last run had none to fail */
}

Test(pool_fault, every_lock)
{
	long n = 0;

	do
		run(-1, n++);
	while (locks.failed);
	cr_assert_eq(n, 5); /* the pool's two, one for each stream; the last run had none to fail */
}

static int refuses; /* memory for segments */

static void *alloc_segment(void *context, size_t bytes, size_t align)
{
	return refuses ? NULL : segments.allocator.alloc(context, bytes, align);
}

static vmem_pool *pool_that_runs_dry(void)
{
	struct vmem_allocator allocator;
	struct vmem_pool_opts opts = { .size = sizeof(opts), .segments = &allocator };
	vmem_pool *pool = NULL;

	vmemt_fail_alloc_init(&heap);
	vmemt_fail_alloc_init(&segments);
	opts.allocator = &heap.allocator;
	allocator = segments.allocator;
	allocator.alloc = alloc_segment;
	cr_assert_eq(vmem_pool_new(&pool, &opts), 0);
	return pool;
}

/* Compaction asks the allocator itself. When that has nothing, nothing is left of the attempt. */
Test(pool_fault, compaction_without_memory)
{
	vmem_pool *pool = pool_that_runs_dry();
	uint32_t stream = stream_open(pool);
	vmem_pool_handle first = save(pool, stream, VMEMT_PAGE_NOISE, 0), handle = first;
	int err = 0;

	while (stats_of(pool).segments < 20)
		handle = save(pool, stream, VMEMT_PAGE_NOISE, 1);
	refuses = 1;
	while (!err) /* what is in reserve */
		err = try_save(pool, stream, VMEMT_PAGE_NOISE, 1, &handle);
	cr_assert_eq(err, -VMEM_ENOMEM);
	for (vmem_pool_handle h = first; h <= handle; h++)
		if (h % 8)
			cr_assert_eq(vmem_pool_drop(pool, h), 0);
	for (int i = 0; i < 10; i++)
		vmem_pool_work(pool, 1 << 20);
	expect_sound(pool);
	refuses = 0;
	for (int i = 0; i < 2000; i++)
		save(pool, stream, VMEMT_PAGE_NOISE, 1);
	while (vmem_pool_work(pool, 1 << 20))
		;
	pool_close(pool);
}
