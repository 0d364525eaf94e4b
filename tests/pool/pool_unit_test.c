/* SPDX-License-Identifier: BSD-2-Clause */
/* The pool's calls one by one: what they keep, count and refuse. */
#include "pool/pool_tools.h"
#include "pool/pool_of.h"

Test(pool, defaults_work)
{
	vmem_pool *pool = NULL;
	vmem_pool_handle handle;
	uint32_t codec, bytes;

	cr_assert_eq(vmem_pool_new(&pool, NULL), 0);
	handle = save(pool, stream_open(pool), VMEMT_PAGE_TEXT, 1);
	expect_page(pool, handle, VMEMT_PAGE_TEXT, 1);
	cr_assert_eq(vmem_pool_describe(pool, handle, &codec, &bytes), 0);
	cr_assert_eq(codec, VMEM_CODEC_LZ4);
	cr_assert_eq(vmem_pool_work(pool, 0), 0);
	vmem_pool_free(pool);
	vmem_pool_free(NULL);
}

Test(pool, every_kind_of_page)
{
	static const uint32_t codecs[] = { VMEM_CODEC_FILL, VMEM_CODEC_FILL, VMEM_CODEC_FILL,
					   VMEM_CODEC_LZ4, VMEM_CODEC_RAW };
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool);

	for (uint64_t seed = 0; seed < 500; seed++) {
		enum vmemt_page_kind kind = (enum vmemt_page_kind)(seed % VMEMT_PAGE_KINDS);
		vmem_pool_handle handle = save(pool, stream, kind, seed);
		uint32_t codec, bytes;

		expect_page(pool, handle, kind, seed);
		cr_assert_eq(vmem_pool_describe(pool, handle, &codec, &bytes), 0);
		cr_assert_eq(codec, codecs[kind]);
		if (codec == VMEM_CODEC_FILL)
			cr_assert_eq(bytes, 8);
		if (codec == VMEM_CODEC_RAW)
			cr_assert_eq(bytes, VMEM_PAGE_SIZE);
		if (codec == VMEM_CODEC_LZ4)
			cr_assert(bytes > 500 && bytes < 2500);
		if (seed % 2)
			cr_assert_eq(vmem_pool_drop(pool, handle), 0);
		expect_sound(pool);
	}
	cr_assert_eq(stats_of(pool).objects, 250);
	pool_close(pool);
}

Test(pool, bytes_of_every_length)
{
	static unsigned char data[VMEM_PAGE_SIZE], back[VMEM_PAGE_SIZE + 1];
	static vmem_pool_handle handles[VMEM_PAGE_SIZE + 1];
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool), bytes, codec;
	uint64_t state = 3, live = 0;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)vmemt_rand(&state);
	for (uint32_t n = 1; n <= VMEM_PAGE_SIZE; n++) {
		cr_assert_eq(vmem_pool_save_bytes(pool, stream, data, n, &handles[n]), 0);
		live += footprint(n);
	}
	cr_assert_eq(stats_of(pool).live_bytes, live);
	expect_sound(pool);
	for (uint32_t n = 1; n <= VMEM_PAGE_SIZE; n++) {
		memset(back, 0x77, sizeof(back));
		cr_assert_eq(vmem_pool_load_bytes(pool, handles[n], back, n - 1, &bytes),
			     -VMEM_ERANGE);
		cr_assert_eq(vmem_pool_load_bytes(pool, handles[n], back, n, &bytes), 0);
		cr_assert_eq(bytes, n);
		cr_assert_arr_eq(back, data, n);
		cr_assert_eq(back[n], 0x77);
		cr_assert_eq(vmem_pool_describe(pool, handles[n], &codec, &bytes), 0);
		cr_assert(codec == 0 && bytes == n);
	}
	pool_close(pool);
}

Test(pool, pages_and_bytes_are_not_confused)
{
	static _Alignas(8) unsigned char data[VMEM_PAGE_SIZE];
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool), bytes;
	vmem_pool_handle page = save(pool, stream, VMEMT_PAGE_NOISE, 1), other;

	cr_assert_eq(vmem_pool_save_bytes(pool, stream, data, VMEM_PAGE_SIZE, &other), 0);
	cr_assert_eq(vmem_pool_load_page(pool, other, data), -VMEM_ENOENT);
	cr_assert_eq(vmem_pool_load_bytes(pool, page, data, VMEM_PAGE_SIZE, &bytes), -VMEM_ENOENT);
	pool_close(pool);
}

Test(pool, no_such_handle)
{
	static _Alignas(8) unsigned char data[VMEM_PAGE_SIZE];
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool), codec, bytes;
	vmem_pool_handle mine = save(pool, stream, VMEMT_PAGE_TEXT, 1), dropped;
	vmem_pool_handle wrong[] = { 0, 0, 9000, UINT32_MAX, UINT64_C(1) << 32, UINT64_MAX };

	dropped = save(pool, stream, VMEMT_PAGE_TEXT, 2);
	cr_assert_eq(vmem_pool_drop(pool, dropped), 0);
	wrong[1] = dropped;
	wrong[4] |= mine; /* not taken for its low half */
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		cr_assert_eq(vmem_pool_load_page(pool, wrong[i], data), -VMEM_ENOENT);
		cr_assert_eq(vmem_pool_load_bytes(pool, wrong[i], data, 9, &bytes), -VMEM_ENOENT);
		cr_assert_eq(vmem_pool_describe(pool, wrong[i], &codec, &bytes), -VMEM_ENOENT);
		cr_assert_eq(vmem_pool_drop(pool, wrong[i]), -VMEM_ENOENT);
	}
	expect_page(pool, mine, VMEMT_PAGE_TEXT, 1);
	pool_close(pool);
}

Test(pool, refuses_wrong_arguments)
{
	static _Alignas(8) unsigned char data[VMEM_PAGE_SIZE + 8];
	vmem_pool *pool = pool_open(NULL);
	uint32_t s = stream_open(pool);
	vmem_pool_handle h = 5;

	cr_assert_eq(vmem_pool_save_page(pool, s, 0, NULL, 4096, &h), -VMEM_EINVAL);
	cr_assert_eq(vmem_pool_save_page(pool, s, 0, data + 4, 4096, &h), -VMEM_EINVAL);
	cr_assert_eq(vmem_pool_save_page(pool, s, 0, data, 0, &h), -VMEM_EINVAL);
	cr_assert_eq(vmem_pool_save_page(pool, s, 0, data, 4097, &h), -VMEM_EINVAL);
	cr_assert_eq(vmem_pool_save_page(pool, s + 1, 0, data, 4096, &h), -VMEM_ENOENT);
	cr_assert_eq(vmem_pool_save_page(pool, UINT32_MAX, 0, data, 4096, &h), -VMEM_ENOENT);
	cr_assert_eq(vmem_pool_save_page(pool, s, VMEM_CODEC_ZSTD, data, 4096, &h), -VMEM_ENOENT);
	cr_assert_eq(vmem_pool_save_page(pool, s, 16, data, 4096, &h), -VMEM_ENOENT);
	cr_assert_eq(vmem_pool_save_bytes(pool, s, NULL, 1, &h), -VMEM_EINVAL);
	cr_assert_eq(vmem_pool_save_bytes(pool, s, data, 0, &h), -VMEM_EINVAL);
	cr_assert_eq(vmem_pool_save_bytes(pool, s, data, 4097, &h), -VMEM_EINVAL);
	cr_assert_eq(vmem_pool_save_bytes(pool, s + 1, data, 9, &h), -VMEM_ENOENT);
	cr_assert_eq(h, 5);
	cr_assert_eq(stats_of(pool).objects, 0);
	pool_close(pool);
}

Test(pool, refuses_wrong_options)
{
	struct vmem_pool_opts opts = { .size = sizeof(opts), .flags = 1 };
	struct {
		struct vmem_pool_opts opts;
		uint64_t tail;
	} newer = { .opts.size = sizeof(newer), .tail = 1 };
	vmem_pool *pool = NULL;

	cr_assert_eq(vmem_pool_new(NULL, NULL), -VMEM_EINVAL);
	cr_assert_eq(vmem_pool_new(&pool, &opts), -VMEM_EINVAL);
	opts = (struct vmem_pool_opts){ .size = sizeof(opts), .parallel = 65 };
	cr_assert_eq(vmem_pool_new(&pool, &opts), -VMEM_EINVAL);
	opts = (struct vmem_pool_opts){ .size = sizeof(opts), .codec_count = 1 };
	cr_assert_eq(vmem_pool_new(&pool, &opts), -VMEM_EINVAL);
	opts = (struct vmem_pool_opts){ .size = 4 };
	cr_assert_eq(vmem_pool_new(&pool, &opts), -VMEM_EINVAL);
	cr_assert_eq(vmem_pool_new(&pool, &newer.opts), -VMEM_E2BIG);
	cr_assert_null(pool);
}

Test(pool, max_bytes)
{
	struct vmemt_page page;
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool), codec, bytes, again;
	vmem_pool_handle handle = 0;

	vmemt_page_make(&page, VMEMT_PAGE_TEXT, 9);
	cr_assert_eq(vmem_pool_save_page(pool, stream, 0, page.bytes, 4096, &handle), 0);
	cr_assert_eq(vmem_pool_describe(pool, handle, &codec, &bytes), 0);
	for (uint32_t max = 1; max < bytes; max++)
		cr_assert_eq(vmem_pool_save_page(pool, stream, 0, page.bytes, max, &handle),
			     -VMEM_EFBIG);
	/* LZ4 may want a little more room than it ends up using. */
	cr_assert_eq(vmem_pool_save_page(pool, stream, 0, page.bytes, bytes + 16, &handle), 0);
	cr_assert_eq(vmem_pool_describe(pool, handle, &codec, &again), 0);
	cr_assert_eq(again, bytes);

	vmemt_page_make(&page, VMEMT_PAGE_NOISE, 9);
	cr_assert_eq(vmem_pool_save_page(pool, stream, 0, page.bytes, 4095, &handle), -VMEM_EFBIG);
	cr_assert_eq(vmem_pool_save_page(pool, stream, VMEM_CODEC_RAW, page.bytes, 4095, &handle),
		     -VMEM_EFBIG);
	vmemt_page_make(&page, VMEMT_PAGE_WORD, 9);
	cr_assert_eq(vmem_pool_save_page(pool, stream, 0, page.bytes, 7, &handle), -VMEM_EFBIG);
	cr_assert_eq(vmem_pool_save_page(pool, stream, 0, page.bytes, 8, &handle), 0);
	cr_assert_eq(stats_of(pool).objects, 3);
	pool_close(pool);
}

Test(pool, handles_are_used_again)
{
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool);
	uint64_t index;

	(void)save(pool, stream, VMEMT_PAGE_ZERO, 0);
	index = stats_of(pool).index_bytes;
	for (int i = 0; i < 20000; i++)
		cr_assert_eq(vmem_pool_drop(pool, save(pool, stream, VMEMT_PAGE_ZERO, 0)), 0);
	cr_assert_eq(stats_of(pool).index_bytes, index);
	pool_close(pool);
}

Test(pool, handles_of_another_stream)
{
	struct vmemt_page page, before;
	vmem_pool *pool = pool_open(NULL);
	uint32_t own = stream_open(pool), other = stream_open(pool);
	struct vmemi_dropped dropped = { .codec = 99 };
	vmem_pool_handle handle = save(pool, other, VMEMT_PAGE_TEXT, 1);

	vmemt_page_make(&page, VMEMT_PAGE_NOISE, 0);
	before = page;
	cr_assert_eq(vmemi_pool_load_of(pool, own, handle, page.bytes), -VMEM_ENOENT);
	cr_assert_eq(memcmp(&page, &before, sizeof(page)), 0);
	cr_assert_eq(vmemi_pool_drop_of(pool, own, handle, &dropped), -VMEM_ENOENT);
	cr_assert_eq(dropped.codec, 99);
	cr_assert_eq(vmemi_pool_load_of(pool, other, handle, page.bytes), 0);
	cr_assert(vmemt_page_is(page.bytes, VMEMT_PAGE_TEXT, 1));
	cr_assert_eq(vmemi_pool_drop_of(pool, other, handle, &dropped), 0);
	cr_assert(dropped.codec == VMEM_CODEC_LZ4 && !dropped.reference);
	cr_assert_eq(vmemi_pool_drop_of(pool, other, handle, NULL), -VMEM_ENOENT);
	pool_close(pool);
}

/* More than one chunk of the index, and each handle leads to its own. */
Test(pool, many_handles)
{
	enum { COUNT = 40000 };
	static vmem_pool_handle handles[COUNT];
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool), bytes, value;

	for (uint32_t i = 0; i < COUNT; i++)
		cr_assert_eq(vmem_pool_save_bytes(pool, stream, &i, sizeof(i), &handles[i]), 0);
	expect_sound(pool);
	for (uint32_t i = 0; i < COUNT; i++) {
		cr_assert_eq(vmem_pool_load_bytes(pool, handles[i], &value, sizeof(value), &bytes),
			     0);
		cr_assert_eq(value, i);
	}
	/* 8 bytes an object, in chunks of 64 KiB, and two levels above. */
	cr_assert_lt(stats_of(pool).index_bytes, COUNT * 8 + 65536 + 16384);
	pool_close(pool);
}

Test(pool, counters)
{
	vmem_pool *pool = pool_open(NULL);
	struct vmem_pool_stats stats, own = { .size = sizeof(own) };
	uint32_t one = stream_open(pool), two = stream_open(pool);
	vmem_pool_handle raw = save(pool, one, VMEMT_PAGE_NOISE, 1);

	(void)save(pool, one, VMEMT_PAGE_ZERO, 1);
	(void)save(pool, two, VMEMT_PAGE_ZERO, 1);
	stats = stats_of(pool);
	cr_assert_eq(stats.objects, 3);
	cr_assert_eq(stats.payload_bytes, 4096 + 8 + 8);
	cr_assert_eq(stats.live_bytes, footprint(4096) + 2 * footprint(8));
	cr_assert_eq(stats.dead_bytes, 0);
	cr_assert_eq(stats.segments, 2);
	cr_assert_eq(stats.segment_bytes, 2 * SEGMENT);
	cr_assert_eq(stats.segment_bytes, (uint64_t)segments.live_bytes);
	cr_assert_eq(stats.metadata_bytes + stats.index_bytes, (uint64_t)heap.live_bytes);

	cr_assert_eq(vmem_pool_drop(pool, raw), 0);
	cr_assert_eq(vmem_pool_stream_get_stats(pool, one, &own), 0);
	cr_assert_eq(own.objects, 1);
	cr_assert_eq(own.payload_bytes, 8);
	cr_assert_eq(own.live_bytes, footprint(8));
	cr_assert_eq(own.dead_bytes, footprint(4096));
	cr_assert_eq(own.segments, 1);
	cr_assert_eq(vmem_pool_stream_get_stats(pool, 2, &own), -VMEM_ENOENT);
	own.size = 0;
	cr_assert_eq(vmem_pool_stream_get_stats(pool, one, &own), -VMEM_EINVAL);
	cr_assert_eq(vmem_pool_get_stats(pool, &own), -VMEM_EINVAL);
	pool_close(pool);
}

Test(pool, a_segment_goes_with_its_last_object)
{
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool);
	vmem_pool_handle handle = save(pool, stream, VMEMT_PAGE_TEXT, 1);

	cr_assert_eq(vmem_pool_drop(pool, handle), 0);
	cr_assert_eq(stats_of(pool).segments, 0);
	cr_assert_eq(stats_of(pool).dead_bytes, 0);
	cr_assert_eq(stats_of(pool).segment_bytes, SEGMENT); /* in the reserve */
	handle = save(pool, stream, VMEMT_PAGE_TEXT, 2);
	cr_assert_eq(segments.calls, 1);
	expect_page(pool, handle, VMEMT_PAGE_TEXT, 2);
	pool_close(pool);
}

static void drop_a_stream(bool large_index)
{
	static vmem_pool_handle kept[100], gone[1000];
	static _Alignas(8) unsigned char page[VMEM_PAGE_SIZE];
	struct vmem_pool_stats own = { .size = sizeof(own) };
	vmem_pool *pool = pool_open(NULL);
	uint32_t keep, drop, again;

	if (large_index)
		make_index_large(pool);
	keep = stream_open(pool);
	drop = stream_open(pool);
	for (uint64_t i = 0; i < 1000; i++) {
		gone[i] = save(pool, drop, VMEMT_PAGE_TEXT, i);
		if (i % 10 == 0)
			kept[i / 10] = save(pool, keep, VMEMT_PAGE_TEXT, i);
	}
	cr_assert_eq(vmem_pool_stream_drop(pool, drop), 0);
	expect_sound(pool);
	cr_assert_eq(stats_of(pool).objects, 100);
	cr_assert_eq(vmem_pool_stream_drop(pool, drop), -VMEM_ENOENT);
	cr_assert_eq(vmem_pool_stream_get_stats(pool, drop, &own), -VMEM_ENOENT);
	cr_assert_eq(vmem_pool_save_bytes(pool, drop, page, 9, &gone[0]), -VMEM_ENOENT);
	cr_assert_eq(vmem_pool_stream_drop(pool, 77), -VMEM_ENOENT);
	for (uint64_t i = 0; i < 1000; i++)
		cr_assert_eq(vmem_pool_load_page(pool, gone[i], page), -VMEM_ENOENT);
	for (uint64_t i = 0; i < 100; i++)
		expect_page(pool, kept[i], VMEMT_PAGE_TEXT, i * 10);
	again = stream_open(pool);
	cr_assert_eq(again, drop);
	cr_assert_eq(vmem_pool_stream_get_stats(pool, again, &own), 0);
	cr_assert_eq(own.objects, 0);
	pool_close(pool);
}

Test(pool, a_stream_goes_with_all_its_objects)
{
	drop_a_stream(false);
	drop_a_stream(true);
}

Test(pool, as_many_streams_as_promised)
{
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream;

	for (uint32_t i = 0; i < VMEMI_STREAMS; i++)
		cr_assert_eq(stream_open(pool), i);
	cr_assert_eq(vmem_pool_stream_new(pool, &stream), -VMEM_ENOSPC);
	cr_assert_eq(vmem_pool_stream_drop(pool, 4711), 0);
	cr_assert_eq(stream_open(pool), 4711);
	pool_close(pool);
}

/* A pin, as a load holds it, keeps the segment's memory; the next work() frees it. */
Test(pool, a_segment_outlives_its_readers)
{
	struct vmem_pool_opts opts = { .size = sizeof(opts), .reserve_segments = 1 };
	vmem_pool *pool = pool_open(&opts);
	uint32_t stream = stream_open(pool), bytes;
	vmem_pool_handle handle = save(pool, stream, VMEMT_PAGE_TEXT, 1);
	unsigned char *object = vmemi_pool_object_bytes(pool, handle, &bytes), first = object[12];
	struct vmemi_segment *seg = vmemi_segment_at(pool, 1);

	cr_assert_eq(vmem_pool_work(pool, 0), 0);
	cr_assert_eq(segments.live_bytes, 2 * SEGMENT);
	atomic_fetch_add(&seg->pins, 1);
	cr_assert_eq(vmem_pool_drop(pool, handle), 0);
	cr_assert_eq(vmem_pool_work(pool, 1 << 20), 0);
	cr_assert_eq(seg->state, VMEMI_SEGMENT_DRAINING);
	cr_assert_eq(segments.live_bytes, 2 * SEGMENT);
	cr_assert_eq(object[12], first);
	atomic_fetch_sub(&seg->pins, 1);
	cr_assert_eq(vmem_pool_work(pool, 0), 0);
	cr_assert_eq(segments.live_bytes, SEGMENT);
	pool_close(pool);
}
