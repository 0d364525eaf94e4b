/* SPDX-License-Identifier: BSD-2-Clause */
/* Deltas whose memory is damaged, and those that are loaded while all who may encode wait. */
#include "pool/delta_tools.h"

enum { HANDLE_BITS = 32, CHECK_BITS = 8, BITS = HANDLE_BITS + CHECK_BITS };

/* A bit of the reference's handle, then of its check. */
static void flip(vmem_pool *pool, vmem_pool_handle delta, unsigned bit)
{
	uint32_t bytes;
	unsigned char *object = vmemi_pool_object_bytes(pool, delta, &bytes);
	size_t at = bit < HANDLE_BITS ? HEADER + bit / 8
				      : offsetof(struct vmemi_object_header, reference_check);

	object[at] ^= (unsigned char)(1u << bit % 8);
}

static uint32_t believed(vmem_pool *pool, vmem_pool_handle delta)
{
	return vmemi_entry_reference(pool, vmemi_entry_of(pool, delta));
}

Test(pool_delta, check_of_a_reference_is_the_crc)
{
	/* Polynomial 07, begun with 0, at the end with 55; bytes from the highest. */
	static const uint32_t handles[] = { 0, 1, 0x31323334, UINT32_MAX };

	for (size_t i = 0; i < sizeof(handles) / sizeof(*handles); i++) {
		unsigned char crc = 0;

		for (int byte = 3; byte >= 0; byte--) {
			crc ^= (unsigned char)(handles[i] >> 8 * byte);
			for (int bit = 0; bit < 8; bit++)
				crc = (unsigned char)(crc << 1 ^ (crc & 0x80 ? 0x07 : 0));
		}
		cr_assert_eq(vmemi_reference_check(handles[i]), crc ^ 0x55);
	}
}

Test(pool_delta, up_to_three_bits_are_seen)
{
	vmem_pool *pool = open_with_deltas();
	struct pair pair = make_pair(pool);

	cr_assert_eq(believed(pool, pair.like), pair.base);
	for (unsigned a = 0; a < BITS; a++) {
		flip(pool, pair.like, a);
		cr_assert_eq(believed(pool, pair.like), 0);
		for (unsigned b = a + 1; b < BITS; b++) {
			flip(pool, pair.like, b);
			cr_assert_eq(believed(pool, pair.like), 0);
			for (unsigned c = b + 1; c < BITS; c++) {
				flip(pool, pair.like, c);
				cr_assert_eq(believed(pool, pair.like), 0);
				flip(pool, pair.like, c);
			}
			flip(pool, pair.like, b);
		}
		flip(pool, pair.like, a);
	}
	expect_like(pool, pair.like, 1, 20);
	pool_close(pool);
}

/* Each delta has one bit of its own flipped. */
static void expect_damage(vmem_pool *pool, uint32_t stream, const vmem_pool_handle like[BITS])
{
	struct vmemi_dropped dropped = { .reference = 1 };
	struct vmemt_page page;

	for (unsigned bit = 0; bit < BITS; bit++) {
		cr_assert_eq(vmem_pool_load_page(pool, like[bit], page.bytes), -VMEM_EBADMSG);
		cr_assert_eq(vmemi_pool_drop_of(pool, stream, like[bit], &dropped), 0);
		cr_assert_eq(dropped.codec, VMEM_CODEC_DELTA);
		cr_assert_eq(dropped.reference, 0, "bit %u", bit);
	}
	expect_sound(pool);
}

static uint32_t make_deltas(vmem_pool *pool, vmem_pool_handle like[BITS],
			    vmem_pool_handle *ret_base)
{
	uint32_t stream = stream_open(pool);
	struct vmemi_described d;
	struct vmemi_held held;
	struct vmemt_page page;

	make_like(&page, 1, 0);
	*ret_base = save_page(pool, stream, &page);
	for (unsigned i = 0; i < BITS; i++) {
		make_like(&page, 1, i + 1);
		like[i] = save_page(pool, stream, &page);
	}
	seal(pool, stream);
	for (unsigned i = 0; i < BITS; i++) {
		cr_assert(vmemi_pool_hold(pool, stream, like[i], &held, &d));
		cr_assert_eq(make_delta(pool, &held, 1, i + 1, *ret_base), 0);
		vmemi_pool_let_go(pool, &held);
	}
	return stream;
}

Test(pool_delta, a_damaged_reference_is_not_dropped)
{
	vmem_pool *pool = open_with_deltas();
	vmem_pool_handle like[BITS], base;
	uint32_t stream = make_deltas(pool, like, &base);

	for (unsigned bit = 0; bit < BITS; bit++)
		flip(pool, like[bit], bit);
	expect_damage(pool, stream, like);
	expect_like(pool, base, 1, 0);
	pool_close(pool);
}

Test(pool_delta, compaction_makes_no_damage_whole)
{
	vmem_pool *pool = open_with_deltas();
	vmem_pool_handle like[BITS], base;
	uint32_t stream = make_deltas(pool, like, &base);

	for (unsigned bit = 0; bit < BITS; bit++)
		flip(pool, like[bit], bit);
	seal(pool, stream); /* the segment with the deltas */
	for (vmem_pool_handle h = base; h <= like[BITS - 1] + 2 * FILLER; h++)
		if (h > like[BITS - 1] && h % 8)
			cr_assert_eq(vmem_pool_drop(pool, h), 0);
	while (vmem_pool_work(pool, 1 << 20))
		;
	cr_assert_gt(stats_of(pool).moved_bytes, 0);
	expect_damage(pool, stream, like);
	expect_like(pool, base, 1, 0);
	pool_close(pool);
}

/* --- What is counted and logged --- */

static uint64_t logged[8], logs;

static void keep_log(void *context, enum vmem_log_code code, uint64_t a, uint64_t b)
{
	(void)context;
	(void)b;
	if (code == VMEM_LOG_CORRUPT_OBJECT)
		logged[logs++ % 8] = a;
}

/* One load that fails: it counts once, and @damaged is told. */
static void expect_bad(vmem_pool *pool, vmem_pool_handle handle, vmem_pool_handle damaged)
{
	uint64_t corrupt = stats_of(pool).corrupt;
	struct vmemt_page page;

	logs = 0;
	cr_assert_eq(vmem_pool_load_page(pool, handle, page.bytes), -VMEM_EBADMSG);
	cr_assert_eq(stats_of(pool).corrupt, corrupt + 1);
	vmem_pool_work(pool, 0);
	cr_assert_eq(logs, 1);
	cr_assert_eq(logged[0], damaged);
}

Test(pool_delta, each_load_that_fails_counts_once)
{
	const struct vmem_codec *codecs[] = { vmem_codec_lz4(), vmemt_patch_codec() };
	const struct vmem_env env = { .size = sizeof(env), .log = keep_log };
	struct vmem_pool_opts opts = {
		.size = sizeof(opts), .env = &env, .codecs = codecs, .codec_count = 2
	};
	vmem_pool *pool = pool_open(&opts);
	struct vmem_pool_stats stats = { .size = sizeof(stats) };
	vmem_pool_handle like[BITS], base;
	uint32_t stream = make_deltas(pool, like, &base), bytes;

	vmemi_pool_object_bytes(pool, base, &bytes)[HEADER + 100] ^= 1;
	for (unsigned i = 0; i < BITS; i++)
		expect_bad(pool, like[i], base);
	expect_bad(pool, base, base);
	vmemi_pool_object_bytes(pool, base, &bytes)[HEADER + 100] ^= 1;
	vmemi_pool_object_bytes(pool, like[3], &bytes)[HEADER + 4] ^= 1;
	expect_bad(pool, like[3], like[3]);
	flip(pool, like[4], 2);
	expect_bad(pool, like[4], like[4]);
	cr_assert_eq(vmem_pool_stream_get_stats(pool, stream, &stats), 0);
	cr_assert_eq(stats.corrupt, BITS + 3);
	pool_close(pool);
}

/* --- Slots --- */

static vmem_pool *nested_pool;
static vmem_pool_handle nested_delta; /* to be loaded while a save encodes, or 0 */
static unsigned nested;

static size_t loading_encode(void *context, void *dst, size_t capacity, const void *page,
			     const void *reference)
{
	(void)context;
	(void)dst;
	(void)capacity;
	(void)page;
	(void)reference;
	if (nested_delta) {
		nested++;
		expect_like(nested_pool, nested_delta, 1, 20);
	}
	return 0;
}

static int no_decode(void *context, void *page, const void *src, size_t bytes,
		     const void *reference)
{
	(void)context;
	(void)page;
	(void)src;
	(void)bytes;
	(void)reference;
	return -VMEM_EBADMSG;
}

/* No codec has a context: the reference needs a place all the same. */
Test(pool_delta, no_load_waits_for_a_save)
{
	const struct vmem_codec loading = { .size = sizeof(loading),
					    .name = "loading",
					    .id = VMEM_CODEC_USER,
					    .encode = loading_encode,
					    .decode = no_decode };
	const struct vmem_codec *const codecs[] = { &loading, vmemt_patch_codec() };
	struct vmem_pool_opts opts = {
		.size = sizeof(opts), .codecs = codecs, .codec_count = 2, .parallel = 1
	};
	struct vmemi_described d;
	struct vmemi_held held;
	struct vmemt_page page;
	vmem_pool_handle base, like;
	uint32_t stream;

	nested_delta = 0;
	nested = 0;
	nested_pool = pool_open(&opts);
	stream = stream_open(nested_pool);
	make_like(&page, 1, 0);
	base = save_page(nested_pool, stream, &page);
	make_like(&page, 1, 20);
	like = save_page(nested_pool, stream, &page);
	seal(nested_pool, stream);
	cr_assert(vmemi_pool_hold(nested_pool, stream, like, &held, &d));
	cr_assert_eq(make_delta(nested_pool, &held, 1, 20, base), 0);
	vmemi_pool_let_go(nested_pool, &held);
	nested_delta = like;
	save(nested_pool, stream, VMEMT_PAGE_NOISE, 1);
	cr_assert_eq(nested, 1);
	pool_close(nested_pool);
}

static size_t careless_encode(void *context, void *dst, size_t capacity, const void *page,
			      const void *reference)
{
	if (reference)
		return vmemt_patch_encode(context, dst, capacity, page, reference);
	memset(dst, 1, 8);
	return 8;
}

Test(pool_delta, none_without_a_reference)
{
	struct vmem_codec careless = *vmemt_patch_codec();
	const struct vmem_codec *const codecs[] = { &careless };
	struct vmem_pool_opts opts = { .size = sizeof(opts), .codecs = codecs, .codec_count = 1 };
	vmem_pool *pool;
	vmem_pool_handle handle;
	uint32_t codec, bytes;

	careless.encode = careless_encode;
	pool = pool_open(&opts);
	handle = save(pool, stream_open(pool), VMEMT_PAGE_TEXT, 1);
	cr_assert_eq(vmem_pool_describe(pool, handle, &codec, &bytes), 0);
	cr_assert_eq(codec, VMEM_CODEC_RAW);
	expect_page(pool, handle, VMEMT_PAGE_TEXT, 1);
	pool_close(pool);
}
