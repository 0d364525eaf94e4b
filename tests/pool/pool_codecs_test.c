/* SPDX-License-Identifier: BSD-2-Clause */
/* Codecs of the caller's own: their contexts, and what the pool does with a table that is wrong or a
 * codec that misbehaves. */
#include "base/opts.h"
#include "pool/pool_tools.h"

/* Keeps a page's first half if the second is zero. Its context must be its own, as initialised. */
struct half_context {
	uint64_t magic;
	uint64_t zero[3];
	uint64_t users; /* plain: two at once would be seen by the checks on it */
};

#define MAGIC UINT64_C(0x68616c66)

static int half_init(void *context)
{
	struct half_context *c = context;

	cr_assert_eq((uintptr_t)context % 64, 0);
	cr_assert(!c->magic && !c->zero[0] && !c->zero[1] && !c->zero[2] && !c->users);
	c->magic = MAGIC;
	return 0;
}

static void half_enter(struct half_context *c)
{
	cr_assert_eq(c->magic, MAGIC);
	cr_assert_eq(c->users++, 0);
}

static size_t half_encode(void *context, void *dst, size_t capacity, const void *page,
			  const void *reference)
{
	static const unsigned char zeros[2048];
	size_t bytes = 0;

	half_enter(context);
	cr_assert_null(reference);
	if (capacity >= 2048 && !memcmp((const char *)page + 2048, zeros, 2048)) {
		memcpy(dst, page, 2048);
		bytes = 2048;
	}
	((struct half_context *)context)->users--;
	return bytes;
}

static int half_decode(void *context, void *page, const void *src, size_t bytes,
		       const void *reference)
{
	half_enter(context);
	cr_assert_null(reference);
	memcpy(page, src, 2048);
	memset((char *)page + 2048, 0, 2048);
	((struct half_context *)context)->users--;
	return bytes == 2048 ? 0 : -VMEM_EBADMSG;
}

static const struct vmem_codec half = {
	.size = sizeof(half),
	.name = "half",
	.id = VMEM_CODEC_USER,
	.context_bytes = sizeof(struct half_context),
	.context_init = half_init,
	.encode = half_encode,
	.decode = half_decode,
};

/* While the slot for saves is in use, loads still get a context, and while the allocator is at work,
 * saves do. */
static vmem_pool *nested_pool;
static uint32_t nested_stream;
static vmem_pool_handle nested_handle; /* to be loaded meanwhile, or 0 */
static unsigned nested;

static void make_half(struct vmemt_page *page, uint64_t seed)
{
	vmemt_page_make(page, VMEMT_PAGE_NOISE, seed);
	memset(page->bytes + 2048, 0, 2048);
}

static size_t loading_encode(void *context, void *dst, size_t capacity, const void *page,
			     const void *reference)
{
	struct vmemt_page want, back;

	if (nested_handle) {
		nested++;
		make_half(&want, 1);
		cr_assert_eq(vmem_pool_load_page(nested_pool, nested_handle, back.bytes), 0);
		cr_assert_arr_eq(back.bytes, want.bytes, VMEM_PAGE_SIZE);
	}
	return half_encode(context, dst, capacity, page, reference);
}

static void save_half(vmem_pool *pool, uint32_t stream, uint64_t seed, vmem_pool_handle *ret_handle)
{
	struct vmemt_page page;

	make_half(&page, seed);
	cr_assert_eq(vmem_pool_save_page(pool, stream, 0, page.bytes, 2048, ret_handle), 0);
}

static void *saving_alloc(void *context, size_t bytes, size_t align)
{
	(void)context;
	if (nested_handle) {
		nested++;
		save_half(nested_pool, nested_stream, 1, &nested_handle);
	}
	return vmemi_alloc_default()->alloc(NULL, bytes, align);
}

Test(pool_codecs, whoever_waits_keeps_nobody_waiting)
{
	struct vmem_codec loading = half;
	const struct vmem_codec *const table[] = { &loading };
	struct vmem_allocator saving = *vmemi_alloc_default();
	struct vmem_pool_opts opts = { .size = sizeof(opts),
				       .segments = &saving,
				       .codecs = table,
				       .codec_count = 1,
				       .parallel = 1,
				       .reserve_segments = 1 };
	vmem_pool_handle handle;
	uint32_t stream;

	loading.encode = loading_encode;
	saving.alloc = saving_alloc;
	nested_handle = 0;
	cr_assert_eq(vmem_pool_new(&nested_pool, &opts), 0);
	nested_stream = stream_open(nested_pool);
	stream = stream_open(nested_pool);
	save_half(nested_pool, nested_stream, 1, &handle);
	nested_handle = handle;
	for (uint64_t i = 0; i < 200; i++) /* more than a segment */
		save_half(nested_pool, stream, i, &handle);
	cr_assert_gt(nested, 200);
	expect_sound(nested_pool);
	vmem_pool_free(nested_pool);
}

static vmem_pool *pool_with(const struct vmem_codec *const *codecs, uint32_t count)
{
	struct vmem_pool_opts opts = {
		.size = sizeof(opts), .codecs = codecs, .codec_count = count, .parallel = 3
	};

	return pool_open(&opts);
}

static int codec_of(vmem_pool *pool, vmem_pool_handle handle)
{
	uint32_t codec, bytes;

	cr_assert_eq(vmem_pool_describe(pool, handle, &codec, &bytes), 0);
	return (int)codec;
}

Test(pool_codecs, ones_own_with_context)
{
	const struct vmem_codec *const table[] = { &half, vmem_codec_lz4() };
	vmem_pool *pool = pool_with(table, 2);
	uint32_t stream = stream_open(pool);
	struct vmemt_page page, back;
	vmem_pool_handle handle;

	/* The first of the table, then raw; LZ4 when asked for by name. */
	vmemt_page_make(&page, VMEMT_PAGE_NOISE, 1);
	memset(page.bytes + 2048, 0, 2048);
	cr_assert_eq(vmem_pool_save_page(pool, stream, 0, page.bytes, 4096, &handle), 0);
	cr_assert_eq(codec_of(pool, handle), VMEM_CODEC_USER);
	cr_assert_eq(vmem_pool_load_page(pool, handle, back.bytes), 0);
	cr_assert_arr_eq(back.bytes, page.bytes, VMEM_PAGE_SIZE);
	cr_assert_eq(codec_of(pool, save(pool, stream, VMEMT_PAGE_TEXT, 1)), VMEM_CODEC_RAW);
	vmemt_page_make(&page, VMEMT_PAGE_TEXT, 1);
	cr_assert_eq(vmem_pool_save_page(pool, stream, VMEM_CODEC_LZ4, page.bytes, 4096, &handle),
		     0);
	cr_assert_eq(codec_of(pool, handle), VMEM_CODEC_LZ4);
	expect_page(pool, handle, VMEMT_PAGE_TEXT, 1);
	pool_close(pool);
}

Test(pool_codecs, none)
{
	const struct vmem_codec *const table[] = { NULL };
	vmem_pool *pool = pool_with(table, 0);
	uint32_t stream = stream_open(pool);

	for (uint64_t seed = 0; seed < 50; seed++) {
		enum vmemt_page_kind kind = (enum vmemt_page_kind)(seed % VMEMT_PAGE_KINDS);
		vmem_pool_handle handle = save(pool, stream, kind, seed);

		cr_assert_eq(codec_of(pool, handle),
			     kind <= VMEMT_PAGE_WORD ? VMEM_CODEC_FILL : VMEM_CODEC_RAW);
		expect_page(pool, handle, kind, seed);
	}
	pool_close(pool);
}

Test(pool_codecs, asked_for_by_name)
{
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool);
	struct vmemt_page page;
	vmem_pool_handle handle;
	static const struct {
		enum vmemt_page_kind kind;
		uint32_t ask;
		uint32_t get;
	} cases[] = {
		{ VMEMT_PAGE_ZERO, VMEM_CODEC_RAW, VMEM_CODEC_RAW },
		{ VMEMT_PAGE_ZERO, VMEM_CODEC_LZ4, VMEM_CODEC_LZ4 },
		{ VMEMT_PAGE_ZERO, VMEM_CODEC_FILL, VMEM_CODEC_FILL },
		{ VMEMT_PAGE_TEXT, VMEM_CODEC_FILL, VMEM_CODEC_RAW },
		{ VMEMT_PAGE_NOISE, VMEM_CODEC_LZ4, VMEM_CODEC_RAW },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		vmemt_page_make(&page, cases[i].kind, 1);
		cr_assert_eq(
			vmem_pool_save_page(pool, stream, cases[i].ask, page.bytes, 4096, &handle),
			0);
		cr_assert_eq(codec_of(pool, handle), (int)cases[i].get);
		expect_page(pool, handle, cases[i].kind, 1);
	}
	pool_close(pool);
}

static void expect_refused(const struct vmem_codec *codec)
{
	const struct vmem_codec *const table[] = { codec };
	struct vmem_pool_opts opts = { .size = sizeof(opts), .codecs = table, .codec_count = 1 };
	vmem_pool *pool = NULL;

	vmemt_fail_alloc_init(&heap);
	opts.allocator = &heap.allocator;
	cr_assert_eq(vmem_pool_new(&pool, &opts), -VMEM_EINVAL);
	cr_assert_eq(heap.live_bytes, 0);
}

Test(pool_codecs, wrong_ones_are_refused)
{
	struct vmem_codec wrong = half;

	expect_refused(NULL);
	expect_refused(vmem_codec_raw()); /* there already */
	wrong.size = VMEMI_BYTES_TO(struct vmem_codec, decode) - 1;
	expect_refused(&wrong);
	wrong = half;
	wrong.id = 0;
	expect_refused(&wrong);
	wrong.id = VMEM_CODEC_MAX + 1;
	expect_refused(&wrong);
	wrong = half;
	wrong.flags = 2;
	expect_refused(&wrong);
	wrong = half;
	wrong.encode = NULL;
	expect_refused(&wrong);
	wrong = half;
	wrong.decode = NULL;
	expect_refused(&wrong);
	wrong = half;
	wrong.context_bytes = SIZE_MAX;
	expect_refused(&wrong);
}

static int contexts, contexts_most;

static int count_init(void *context)
{
	(void)context;
	if (contexts == contexts_most)
		return -VMEM_ENOTSUP;
	contexts++;
	return 0;
}

static int count_other_init(void *context)
{
	return count_init(context);
}

static void count_end(void *context)
{
	(void)context;
	contexts--;
}

/* All that were made, also when one of them cannot be. */
Test(pool_codecs, contexts_are_ended)
{
	struct vmem_codec codec = half, other = half;
	const struct vmem_codec *const table[] = { &codec, &other };
	struct vmem_pool_opts opts = { .size = sizeof(opts), .codecs = table, .codec_count = 2 };
	vmem_pool *pool = NULL;
	int err;

	codec.context_init = count_init;
	other.context_init = count_other_init;
	codec.context_end = other.context_end = count_end;
	other.id = VMEM_CODEC_USER + 3;
	contexts_most = 0;
	do {
		vmemt_fail_alloc_init(&heap);
		opts.allocator = &heap.allocator;
		err = vmem_pool_new(&pool, &opts);
		cr_assert(err == 0 || err == -VMEM_ENOTSUP);
		if (!err) {
			cr_assert_eq(contexts, contexts_most);
			vmem_pool_free(pool);
		}
		cr_assert_eq(contexts, 0);
		cr_assert_eq(heap.live_bytes, 0);
		contexts_most++;
	} while (err);
	cr_assert_geq(contexts_most, 17);
}

/* Which is made and ended once. */
Test(pool_codecs, codecs_that_share_a_context)
{
	struct vmem_codec codec = half, other = half;
	const struct vmem_codec *const table[] = { &codec, &other };
	struct vmem_pool_opts opts = {
		.size = sizeof(opts), .codecs = table, .codec_count = 2, .parallel = 1
	};
	vmem_pool *pool;

	codec.context_init = other.context_init = count_init;
	codec.context_end = other.context_end = count_end;
	other.id = VMEM_CODEC_USER + 3;
	contexts = 0;
	contexts_most = 2; /* one more slot is for decoding */
	pool = pool_open(&opts);
	cr_assert_eq(contexts, 2);
	pool_close(pool);
	cr_assert_eq(contexts, 0);
}

/* As a program has it that was built before there was an end. */
Test(pool_codecs, a_table_without_an_end)
{
	struct vmem_codec codec = half;
	const struct vmem_codec *const table[] = { &codec };
	struct vmem_pool_opts opts = { .size = sizeof(opts), .codecs = table, .codec_count = 1 };

	codec.size = VMEMI_BYTES_TO(struct vmem_codec, decode);
	codec.context_end = count_end;
	contexts = 0;
	pool_close(pool_open(&opts));
	cr_assert_eq(contexts, 0);
}

static int failing_init(void *context)
{
	(void)context;
	return -VMEM_ENOTSUP;
}

Test(pool_codecs, a_context_that_cannot_be_made)
{
	struct vmem_codec failing = half;
	const struct vmem_codec *const table[] = { &failing };
	struct vmem_pool_opts opts = { .size = sizeof(opts), .codecs = table, .codec_count = 1 };
	vmem_pool *pool = NULL;

	failing.context_init = failing_init;
	vmemt_fail_alloc_init(&heap);
	opts.allocator = &heap.allocator;
	cr_assert_eq(vmem_pool_new(&pool, &opts), -VMEM_ENOTSUP);
	cr_assert_null(pool);
	cr_assert_eq(heap.live_bytes, 0);
}

/* Says that it wrote more than it had room for: the page is kept raw. */
static size_t boasting_encode(void *context, void *dst, size_t capacity, const void *page,
			      const void *reference)
{
	(void)context;
	(void)dst;
	(void)page;
	(void)reference;
	return capacity + 1;
}

Test(pool_codecs, a_codec_that_overstates)
{
	struct vmem_codec boasting = half;
	const struct vmem_codec *const table[] = { &boasting };
	vmem_pool_handle handle;
	vmem_pool *pool;

	boasting.encode = boasting_encode;
	pool = pool_with(table, 1);
	handle = save(pool, stream_open(pool), VMEMT_PAGE_TEXT, 1);
	cr_assert_eq(codec_of(pool, handle), VMEM_CODEC_RAW);
	expect_page(pool, handle, VMEMT_PAGE_TEXT, 1);
	pool_close(pool);
}

/* --- What contexts take elsewhere --- */

static uint64_t taken_by(const struct vmem_codec *codec, int (*init)(void *))
{
	static _Alignas(64) unsigned char context[1 << 16];
	uint64_t taken;

	memset(context, 0, sizeof(context));
	cr_assert_leq(codec->context_bytes, sizeof(context));
	cr_assert_eq(init(context), 0);
	taken = codec->taken_bytes(context);
	codec->context_end(context);
	return taken;
}

/* Of codecs that are not the first, one context encodes and the others only decode; zstd and delta share
 * them. As the first, it encodes in all. */
Test(pool_codecs, metadata_has_what_contexts_take)
{
	const struct vmem_codec *lz4 = vmem_codec_lz4(), *zstd = vmem_codec_zstd(1);
	const struct vmem_codec *delta = vmem_codec_delta(1);
	const struct vmem_codec *const tables[][3] = { { lz4, zstd, delta }, { zstd, delta, lz4 } };
	uint64_t full = taken_by(zstd, zstd->context_init);
	uint64_t decoder = taken_by(zstd, zstd->decoder_init);

	cr_assert(decoder > 0 && full > decoder);
	for (int zstd_first = 0; zstd_first < 2; zstd_first++) {
		struct vmem_pool_stats stats = { .size = sizeof(stats) };
		struct vmemt_fail_alloc own_heap;
		struct vmem_pool_opts opts = { .size = sizeof(opts),
					       .allocator = &own_heap.allocator,
					       .codecs = tables[zstd_first],
					       .codec_count = 3,
					       .parallel = 4 };
		vmem_pool *pool;

		vmemt_fail_alloc_init(&own_heap);
		cr_assert_eq(vmem_pool_new(&pool, &opts), 0);
		cr_assert_eq(vmem_pool_get_stats(pool, &stats), 0);
		cr_assert_eq(stats.metadata_bytes + stats.index_bytes -
				     (uint64_t)own_heap.live_bytes,
			     full + 4 * (zstd_first ? full : decoder));
		vmem_pool_free(pool);
	}
}
