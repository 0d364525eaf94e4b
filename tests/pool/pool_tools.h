/* SPDX-License-Identifier: BSD-2-Clause */
/* What Criterion tests of the pool share: pools over an allocator that counts, pages by seed. */
#ifndef VMEMT_POOL_TOOLS_H
#define VMEMT_POOL_TOOLS_H
#include <criterion/criterion.h>
#include <vmem/pool.h>
#include "pool/pool_internal.h"
#include "support/pages.h"
#include "support/fail_alloc.h"

#define SEGMENT VMEM_POOL_SEGMENT_BYTES
#define HEADER ((uint32_t)sizeof(struct vmemi_object_header))

static struct vmemt_fail_alloc heap, segments; /* of the pools of this test */

static inline void expect_sound(vmem_pool *pool)
{
	const char *wrong = vmemi_pool_check(pool);

	cr_assert_null(wrong, "%s", wrong);
}

/* @opts: NULL, or all but the allocators. */
static inline vmem_pool *pool_open(const struct vmem_pool_opts *opts)
{
	struct vmem_pool_opts full = { .size = sizeof(full) };
	vmem_pool *pool = NULL;

	if (opts)
		full = *opts;
	vmemt_fail_alloc_init(&heap);
	vmemt_fail_alloc_init(&segments);
	full.allocator = &heap.allocator;
	full.segments = &segments.allocator;
	full.cpu = vmem_cpu_detect();
	cr_assert_eq(vmem_pool_new(&pool, &full), 0);
	return pool;
}

/* Frees it, and nothing leaks. */
static inline void pool_close(vmem_pool *pool)
{
	expect_sound(pool);
	vmem_pool_free(pool);
	cr_assert_eq(heap.live_bytes, 0);
	cr_assert_eq(segments.live_bytes, 0);
}

static inline uint32_t stream_open(vmem_pool *pool)
{
	uint32_t stream = UINT32_MAX;

	cr_assert_eq(vmem_pool_stream_new(pool, &stream), 0);
	return stream;
}

static inline int try_save(vmem_pool *pool, uint32_t stream, enum vmemt_page_kind kind,
			   uint64_t seed, vmem_pool_handle *ret_handle)
{
	struct vmemt_page page;

	vmemt_page_make(&page, kind, seed);
	return vmem_pool_save_page(pool, stream, 0, page.bytes, VMEM_PAGE_SIZE, ret_handle);
}

static inline vmem_pool_handle save(vmem_pool *pool, uint32_t stream, enum vmemt_page_kind kind,
				    uint64_t seed)
{
	vmem_pool_handle handle = 0;

	cr_assert_eq(try_save(pool, stream, kind, seed, &handle), 0);
	cr_assert(handle && handle <= UINT32_MAX);
	return handle;
}

static inline void expect_page(vmem_pool *pool, vmem_pool_handle handle, enum vmemt_page_kind kind,
			       uint64_t seed)
{
	struct vmemt_page page;

	memset(page.bytes, 0x77, sizeof(page.bytes));
	cr_assert_eq(vmem_pool_load_page(pool, handle, page.bytes), 0);
	cr_assert(vmemt_page_is(page.bytes, kind, seed));
}

static inline struct vmem_pool_stats stats_of(vmem_pool *pool)
{
	struct vmem_pool_stats stats = { .size = sizeof(stats) };

	cr_assert_eq(vmem_pool_get_stats(pool, &stats), 0);
	return stats;
}

/* Makes the index so large that dropping a stream of some thousand objects walks the stream's segments
 * rather than the index. */
static inline void make_index_large(vmem_pool *pool)
{
	uint32_t stream = stream_open(pool);
	vmem_pool_handle handle;

	for (uint32_t i = 0; i < 200000; i++)
		cr_assert_eq(vmem_pool_save_bytes(pool, stream, &i, sizeof(i), &handle), 0);
	cr_assert_eq(vmem_pool_stream_drop(pool, stream), 0);
}

/* What an object of so many bytes takes in its segment. */
static inline uint64_t footprint(uint64_t bytes)
{
	return (HEADER + bytes + 3) / 4 * 4;
}

#endif
