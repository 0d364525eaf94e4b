/* SPDX-License-Identifier: BSD-2-Clause */
/* Objects that are encoded anew under their handle, and deltas. */
#include "pool/delta_tools.h"

static uint32_t codec_of(vmem_pool *pool, vmem_pool_handle handle)
{
	uint32_t codec = 0, bytes;

	cr_assert_eq(vmem_pool_describe(pool, handle, &codec, &bytes), 0);
	return codec;
}

Test(pool_replace, a_delta)
{
	vmem_pool *pool = open_with_deltas();
	struct vmem_pool_stats before, after;
	struct vmemi_dropped dropped;
	struct pair pair = make_pair(pool);
	uint32_t codec, bytes;

	expect_like(pool, pair.like, 1, 20);
	cr_assert_eq(vmem_pool_describe(pool, pair.like, &codec, &bytes), 0);
	cr_assert(codec == VMEM_CODEC_DELTA && bytes == 4 + 20 * sizeof(struct vmemt_patch));
	expect_sound(pool);
	before = stats_of(pool);
	cr_assert_eq(before.objects, FILLER + 2);
	cr_assert_eq(vmemi_pool_drop_of(pool, pair.stream, pair.like, &dropped), 0);
	cr_assert(dropped.codec == VMEM_CODEC_DELTA && dropped.reference == pair.base);
	after = stats_of(pool);
	cr_assert_eq(before.live_bytes - after.live_bytes, footprint(bytes));
	cr_assert_eq(before.payload_bytes - after.payload_bytes, bytes);
	expect_like(pool, pair.base, 1, 0);
	pool_close(pool);
}

Test(pool_replace, equal_looks_at_every_byte)
{
	vmem_pool *pool = open_with_deltas();
	struct pair pair = make_pair(pool);
	struct vmemt_page page;

	make_like(&page, 1, 20);
	cr_assert_eq(vmemi_pool_equal(pool, pair.stream, pair.like, page.bytes), 1);
	cr_assert_eq(vmemi_pool_equal(pool, pair.stream, pair.base, page.bytes), 0);
	cr_assert_eq(vmemi_pool_equal(pool, pair.stream + 1, pair.like, page.bytes), -VMEM_ENOENT);
	page.bytes[VMEM_PAGE_SIZE - 1] ^= 1;
	cr_assert_eq(vmemi_pool_equal(pool, pair.stream, pair.like, page.bytes), 0);
	pool_close(pool);
}

Test(pool_replace, a_delta_moves_with_compaction)
{
	vmem_pool *pool = open_with_deltas();
	struct pair pair = make_pair(pool);
	vmem_pool_handle other;

	for (other = 1; other <= FILLER; other++)
		if (other != pair.base && other != pair.like && other % 4)
			cr_assert_eq(vmem_pool_drop(pool, other), 0);
	while (vmem_pool_work(pool, 1 << 20))
		;
	cr_assert(stats_of(pool).moved_bytes > 0);
	expect_like(pool, pair.like, 1, 20);
	expect_like(pool, pair.base, 1, 0);
	pool_close(pool);
}

Test(pool_replace, a_damaged_reference_is_told_for_all_that_need_it)
{
	vmem_pool *pool = open_with_deltas();
	struct pair pair = make_pair(pool);
	struct vmemt_page page;
	uint32_t bytes;

	vmemi_pool_object_bytes(pool, pair.base, &bytes)[HEADER + 100] ^= 1;
	cr_assert_eq(vmem_pool_load_page(pool, pair.base, page.bytes), -VMEM_EBADMSG);
	cr_assert_eq(vmem_pool_load_page(pool, pair.like, page.bytes), -VMEM_EBADMSG);
	vmemi_pool_object_bytes(pool, pair.base, &bytes)[HEADER + 100] ^= 1;
	expect_like(pool, pair.like, 1, 20);
	pool_close(pool);
}

Test(pool_replace, a_reference_that_is_gone_is_an_error)
{
	vmem_pool *pool = open_with_deltas();
	struct pair pair = make_pair(pool);
	struct vmemt_page page;

	cr_assert_eq(vmem_pool_drop(pool, pair.base), 0);
	cr_assert_eq(vmem_pool_load_page(pool, pair.like, page.bytes), -VMEM_EBADMSG);
	/* Its handle may be another page's. */
	cr_assert_eq(save(pool, pair.stream, VMEMT_PAGE_NOISE, 5), pair.base);
	cr_assert_eq(vmem_pool_load_page(pool, pair.like, page.bytes), -VMEM_EBADMSG);
	pool_close(pool);
}

Test(pool_replace, a_delta_is_no_reference)
{
	vmem_pool *pool = open_with_deltas();
	struct pair pair = make_pair(pool);
	struct vmemi_described d;
	struct vmemi_held held;
	struct vmemt_page page;

	make_like(&page, 1, 21);
	pair.base = save_page(pool, pair.stream, &page);
	seal(pool, pair.stream);
	cr_assert(vmemi_pool_hold(pool, pair.stream, pair.base, &held, &d));
	cr_assert_eq(make_delta(pool, &held, 1, 21, pair.like), 0);
	vmemi_pool_let_go(pool, &held);
	cr_assert_eq(vmem_pool_load_page(pool, pair.base, page.bytes), -VMEM_EBADMSG);
	pool_close(pool);
}

Test(pool_replace, what_was_dropped_meanwhile_stays_so)
{
	vmem_pool *pool = open_with_deltas();
	uint32_t stream = stream_open(pool);
	struct vmemi_described d;
	struct vmemi_held held;
	struct vmemt_page page;
	vmem_pool_handle handle;

	make_like(&page, 1, 20);
	handle = save_page(pool, stream, &page);
	seal(pool, stream);
	cr_assert(vmemi_pool_hold(pool, stream, handle, &held, &d));
	cr_assert_eq(vmem_pool_drop(pool, handle), 0);
	cr_assert_eq(make_delta(pool, &held, 1, 20, 2), -VMEM_ENOENT);
	cr_assert_eq(save(pool, stream, VMEMT_PAGE_NOISE, 7), handle);
	cr_assert_eq(make_delta(pool, &held, 1, 20, 2), -VMEM_ENOENT);
	vmemi_pool_let_go(pool, &held);
	expect_page(pool, handle, VMEMT_PAGE_NOISE, 7);
	pool_close(pool);
}

Test(pool_replace, not_in_a_segment_that_is_being_filled)
{
	vmem_pool *pool = open_with_deltas();
	uint32_t stream = stream_open(pool);
	struct vmemi_described d;
	struct vmemi_held held;
	struct vmemt_page page;
	vmem_pool_handle handle;

	make_like(&page, 1, 20);
	handle = save_page(pool, stream, &page);
	cr_assert(vmemi_pool_hold(pool, stream, handle, &held, &d));
	cr_assert_eq(make_delta(pool, &held, 1, 20, 2), -VMEM_EAGAIN);
	vmemi_pool_let_go(pool, &held);
	expect_like(pool, handle, 1, 20);
	pool_close(pool);
}

Test(pool_replace, all_of_a_segment)
{
	vmem_pool *pool = open_with_deltas();
	struct pair pair = make_pair(pool);
	uint64_t segments_before = stats_of(pool).segments;
	uint32_t next = 0, handle;
	enum vmemi_mark mark;
	struct vmemt_page page;

	do { /* raw pages, which take more */
		struct vmemi_encoded e = { .codec = VMEM_CODEC_RAW,
					   .bytes = VMEM_PAGE_SIZE,
					   .payload = page.bytes };
		struct vmemi_described d;
		struct vmemi_held held;

		handle = vmemi_pool_next(pool, next, 100, &next, &mark);
		if (!handle)
			continue;
		cr_assert_eq(mark, VMEMI_MARK_NEW);
		cr_assert(vmemi_pool_hold(pool, pair.stream, handle, &held, &d));
		cr_assert_eq(vmemi_pool_read(pool, &held, page.bytes), 0);
		if (vmemi_pool_replace(pool, &held, &e) == 0)
			cr_assert_eq(codec_of(pool, handle), VMEM_CODEC_RAW);
		vmemi_pool_let_go(pool, &held);
	} while (next);
	while (vmem_pool_work(pool, 1 << 20))
		;
	expect_sound(pool);
	cr_assert(stats_of(pool).segments > segments_before);
	expect_like(pool, pair.like, 1, 20);
	for (uint64_t i = 0; i < FILLER; i++)
		expect_page(pool, i + 3, VMEMT_PAGE_TEXT, i + 1000);
	pool_close(pool);
}

Test(pool_replace, marks)
{
	vmem_pool *pool = open_with_deltas();
	uint32_t stream = stream_open(pool), next, seen = 0;
	vmem_pool_handle first = save(pool, stream, VMEMT_PAGE_TEXT, 1);
	vmem_pool_handle second = save(pool, stream, VMEMT_PAGE_NOISE, 2);
	enum vmemi_mark mark;

	cr_assert_eq(vmemi_pool_next(pool, 0, 1000000, &next, &mark), first);
	cr_assert_eq(mark, VMEMI_MARK_NEW);
	vmemi_pool_mark(pool, first, VMEMI_MARK_SEEN);
	cr_assert_eq(vmemi_pool_next(pool, 0, 1000000, &next, &mark), first);
	cr_assert_eq(mark, VMEMI_MARK_SEEN);
	vmemi_pool_mark(pool, first, VMEMI_MARK_SETTLED);
	cr_assert_eq(vmemi_pool_next(pool, 0, 1000000, &next, &mark), second);
	cr_assert_eq(vmemi_pool_next(pool, next, 1000000, &next, &mark), 0);
	cr_assert_eq(next, 0);
	cr_assert_eq(vmemi_pool_next(pool, 0, 1, &next, &mark), 0);
	cr_assert_eq(next, first + 1);
	expect_page(pool, first, VMEMT_PAGE_TEXT, 1);
	/* Those of a page that comes after it begin anew. */
	cr_assert_eq(vmem_pool_drop(pool, first), 0);
	cr_assert_eq(save(pool, stream, VMEMT_PAGE_TEXT, 3), first);
	for (next = 0; vmemi_pool_next(pool, next, 1000000, &next, &mark);)
		seen += mark == VMEMI_MARK_NEW;
	cr_assert_eq(seen, 2);
	vmemi_pool_mark(pool, 1000000, VMEMI_MARK_SEEN);
	pool_close(pool);
}
