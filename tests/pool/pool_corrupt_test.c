/* SPDX-License-Identifier: BSD-2-Clause */
/* Bytes of segments that change behind the pool's back: a load says so or is right all the same,
 * nothing else suffers, and compaction and dropping still end with nothing left over. */
#include "pool/pool_tools.h"

#define MAX_LOGGED 64u

static uint64_t logged[MAX_LOGGED][2];
static unsigned logged_count;

static void keep_log(void *context, enum vmem_log_code code, uint64_t a, uint64_t b)
{
	(void)context;
	cr_assert_eq(code, VMEM_LOG_CORRUPT_OBJECT);
	cr_assert_lt(logged_count, MAX_LOGGED);
	logged[logged_count][0] = a;
	logged[logged_count++][1] = b;
}

static struct vmem_env env;

static vmem_pool *pool_with_log(void)
{
	struct vmem_pool_opts opts = { .size = sizeof(opts), .env = &env };

	env = *vmemi_env_default();
	env.log = keep_log;
	logged_count = 0;
	return pool_open(&opts);
}

static bool was_logged(vmem_pool_handle handle, uint32_t stream)
{
	for (unsigned i = 0; i < logged_count; i++)
		if (logged[i][0] == handle && logged[i][1] == stream)
			return true;
	return false;
}

/* Every byte of the object, each of its bits, and all of them. */
static void flip_everywhere(vmem_pool *pool, vmem_pool_handle handle, enum vmemt_page_kind kind,
			    uint64_t seed)
{
	uint64_t refused = stats_of(pool).corrupt;
	uint32_t bytes;
	unsigned char *object = vmemi_pool_object_bytes(pool, handle, &bytes);

	for (uint32_t at = 0; at < bytes; at++) {
		for (unsigned bit = 0; bit <= 8; bit++) {
			unsigned char flip = (unsigned char)(bit < 8 ? 1u << bit : 0xffu);
			struct vmemt_page page;
			int err;

			object[at] = (unsigned char)(object[at] ^ flip);
			err = vmem_pool_load_page(pool, handle, page.bytes);
			if (err)
				refused++;
			else /* LZ4 may say the same thing in two ways; a header may not */
				cr_assert(at >= HEADER && vmemt_page_is(page.bytes, kind, seed));
			cr_assert(!err || err == -VMEM_EBADMSG);
			object[at] = (unsigned char)(object[at] ^ flip);
		}
	}
	cr_assert_eq(stats_of(pool).corrupt, refused);
	expect_page(pool, handle, kind, seed);
}

Test(pool_corrupt, every_bit_of_a_page)
{
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool);

	for (int kind = 0; kind < VMEMT_PAGE_KINDS; kind++)
		flip_everywhere(pool, save(pool, stream, (enum vmemt_page_kind)kind, 5),
				(enum vmemt_page_kind)kind, 5);
	pool_close(pool);
}

Test(pool_corrupt, every_bit_of_bytes)
{
	static const unsigned char data[] = "not a page, but still kept with a checksum";
	vmem_pool *pool = pool_open(NULL);
	vmem_pool_handle handle;
	unsigned char back[sizeof(data)], *object;
	uint32_t stream = stream_open(pool), bytes, length;

	cr_assert_eq(vmem_pool_save_bytes(pool, stream, data, sizeof(data), &handle), 0);
	object = vmemi_pool_object_bytes(pool, handle, &bytes);
	cr_assert_eq(bytes, HEADER + sizeof(data));
	for (uint32_t bit = 0; bit < bytes * 8; bit++) {
		object[bit / 8] ^= (unsigned char)(1u << bit % 8);
		cr_assert_eq(vmem_pool_load_bytes(pool, handle, back, sizeof(back), &length),
			     -VMEM_EBADMSG);
		object[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	cr_assert_eq(vmem_pool_load_bytes(pool, handle, back, sizeof(back), &length), 0);
	cr_assert_arr_eq(back, data, sizeof(data));
	cr_assert_eq(stats_of(pool).corrupt, bytes * 8);
	pool_close(pool);
}

/* Loads count; work() logs, the latest few. */
Test(pool_corrupt, is_logged_by_work)
{
	vmem_pool *pool = pool_with_log();
	struct vmem_pool_stats own = { .size = sizeof(own) };
	uint32_t one = stream_open(pool), two = stream_open(pool), bytes;
	vmem_pool_handle handle = save(pool, two, VMEMT_PAGE_TEXT, 1);
	struct vmemt_page page;

	(void)save(pool, one, VMEMT_PAGE_TEXT, 1);
	vmemi_pool_object_bytes(pool, handle, &bytes)[HEADER + 20] ^= 1;
	for (unsigned i = 0; i < 20; i++)
		cr_assert_eq(vmem_pool_load_page(pool, handle, page.bytes), -VMEM_EBADMSG);
	cr_assert_eq(logged_count, 0);
	(void)vmem_pool_work(pool, 0);
	cr_assert_eq(logged_count, VMEMI_CORRUPT_NOTES);
	cr_assert(was_logged(handle, two));
	(void)vmem_pool_work(pool, 0);
	cr_assert_eq(logged_count, VMEMI_CORRUPT_NOTES);
	cr_assert_eq(vmem_pool_stream_get_stats(pool, two, &own), 0);
	cr_assert_eq(own.corrupt, 20);
	cr_assert_eq(vmem_pool_stream_get_stats(pool, one, &own), 0);
	cr_assert_eq(own.corrupt, 0);
	pool_close(pool);
}

enum { COUNT = 3000 };
static vmem_pool_handle handles[COUNT];
static bool damaged[COUNT];

/* Whoever is told that an object is damaged may do something about its stream. */
static vmem_pool *logging_pool;
static unsigned reactions;

static void react(void *context, enum vmem_log_code code, uint64_t a, uint64_t b)
{
	uint32_t stream;

	(void)context;
	(void)code;
	(void)a;
	(void)b;
	reactions++;
	cr_assert_eq(vmem_pool_stream_new(logging_pool, &stream), 0);
	cr_assert_eq(vmem_pool_stream_drop(logging_pool, stream), 0);
	(void)vmem_pool_work(logging_pool, 1 << 16);
}

Test(pool_corrupt, the_log_may_call_the_pool)
{
	vmem_pool *pool = logging_pool = pool_with_log();
	uint32_t stream = stream_open(pool), bytes;
	uint64_t state = 14;

	pool->env.log = react;
	for (uint32_t i = 0; i < 3 * 63; i++) {
		vmem_pool_handle handle = save(pool, stream, VMEMT_PAGE_NOISE, i);

		if (i % 3 == 0)
			cr_assert_eq(vmem_pool_drop(pool, handle), 0);
		if (i % 63 == 31)
			vmemi_pool_object_bytes(pool, handle, &bytes)[0] ^=
				(unsigned char)(1 + vmemt_rand(&state) % 255);
	}
	while (vmem_pool_work(pool, 1 << 16))
		;
	cr_assert_eq(reactions, 3);
	pool_close(pool);
}

/* A pool of text pages; headers of some objects, live and dropped, are overwritten. */
static void make_damage(vmem_pool *pool, uint32_t stream, uint64_t *state)
{
	static unsigned char *headers[COUNT];
	uint32_t bytes;

	for (uint32_t i = 0; i < COUNT; i++) {
		handles[i] = save(pool, stream, VMEMT_PAGE_TEXT, i);
		headers[i] = vmemi_pool_object_bytes(pool, handles[i], &bytes);
		damaged[i] = false;
	}
	for (uint32_t i = 0; i < COUNT; i++) {
		if (vmemt_rand(state) % 3)
			continue;
		cr_assert_eq(vmem_pool_drop(pool, handles[i]), 0);
		handles[i] = 0;
	}
	for (uint32_t i = 0; i < COUNT; i++) {
		if (vmemt_rand(state) % 40)
			continue;
		for (uint32_t k = 0; k < HEADER; k++)
			headers[i][k] = (unsigned char)vmemt_rand(state);
		damaged[i] = true;
	}
}

static void expect_all(vmem_pool *pool)
{
	struct vmemt_page page;

	for (uint32_t i = 0; i < COUNT; i++) {
		if (!handles[i])
			continue;
		if (damaged[i])
			cr_assert_eq(vmem_pool_load_page(pool, handles[i], page.bytes),
				     -VMEM_EBADMSG);
		else
			expect_page(pool, handles[i], VMEMT_PAGE_TEXT, i);
	}
}

/* The walk from header to header fails, the index does not: everything is moved, and what was whole
 * still is. */
Test(pool_corrupt, compaction_gets_past_damaged_headers)
{
	vmem_pool *pool = pool_with_log();
	uint32_t stream = stream_open(pool);
	uint64_t state = 11;

	make_damage(pool, stream, &state);
	while (vmem_pool_work(pool, 1 << 16))
		;
	cr_assert_eq(vmemi_stream_at(pool, stream)->classes, 0);
	for (uint32_t i = 0; i < COUNT; i++)
		cr_assert_eq(was_logged(handles[i], stream), handles[i] && damaged[i], "%u", i);
	expect_sound(pool); /* the copies have headers that can be walked again */
	expect_all(pool);
	for (uint32_t i = 0; i < COUNT; i++)
		if (handles[i])
			cr_assert_eq(vmem_pool_drop(pool, handles[i]), 0);
	cr_assert_eq(stats_of(pool).objects, 0);
	cr_assert_eq(stats_of(pool).segments, 0);
	pool_close(pool);
}

/* The length of a dead object at the end of a full segment, so that the next one would begin so close to
 * the end that its header is not all in the segment, or would begin beyond the end while a live one was
 * stepped over. */
static void damage_length_at_the_end(unsigned bytes_of_last, unsigned damaged_length)
{
	vmem_pool *pool = pool_with_log();
	uint32_t stream = stream_open(pool), last = SEGMENT - 63 * (uint32_t)footprint(4096), bytes;
	static unsigned char data[VMEM_PAGE_SIZE];
	unsigned char *object;
	uint16_t length = (uint16_t)damaged_length;

	for (uint32_t i = 0; i < 63; i++)
		handles[i] = save(pool, stream, VMEMT_PAGE_NOISE, i);
	/* A dead one, and another that fills the segment to its last grain. */
	if (bytes_of_last)
		last -= (uint32_t)footprint(bytes_of_last);
	cr_assert_eq(vmem_pool_save_bytes(pool, stream, data, last - HEADER, &handles[63]), 0);
	if (bytes_of_last)
		cr_assert_eq(vmem_pool_save_bytes(pool, stream, data, bytes_of_last, &handles[64]),
			     0);
	cr_assert_eq(vmemi_segment_at(pool, 1)->used, VMEMI_SEGMENT_GRAINS);
	for (uint32_t i = 65; i < 70; i++)
		handles[i] = save(pool, stream, VMEMT_PAGE_NOISE, i);
	object = vmemi_pool_object_bytes(pool, handles[63], &bytes);
	cr_assert_eq(vmem_pool_drop(pool, handles[63]), 0);
	memcpy(object + 8, &length, sizeof(length));
	for (uint32_t i = 0; i < 30; i++)
		cr_assert_eq(vmem_pool_drop(pool, handles[i]), 0);
	for (int calls = 0; vmem_pool_work(pool, 1 << 20); calls++)
		cr_assert_lt(calls, 100);
	for (uint32_t i = 30; i < 63; i++)
		expect_page(pool, handles[i], VMEMT_PAGE_NOISE, i);
	if (bytes_of_last)
		cr_assert_eq(vmem_pool_drop(pool, handles[64]), 0);
	cr_assert_eq(stats_of(pool).dead_bytes, bytes_of_last ? footprint(bytes_of_last) : 0);
	pool_close(pool);
}

Test(pool_corrupt, a_header_that_would_not_fit)
{
	uint32_t bytes = SEGMENT - 63 * (uint32_t)footprint(4096) - HEADER;

	damage_length_at_the_end(0, bytes - 4);
	damage_length_at_the_end(0, bytes - 8);
}

Test(pool_corrupt, a_length_beyond_the_end)
{
	damage_length_at_the_end(100, 4096);
}

/* Where the checksum and the bytes are whole, the copy is. */
Test(pool_corrupt, compaction_mends_headers)
{
	vmem_pool *pool = pool_with_log();
	uint32_t stream = stream_open(pool), bytes;
	unsigned char *object;
	struct vmemt_page page;

	for (uint32_t i = 0; i < 3 * 63; i++)
		handles[i] = save(pool, stream, VMEMT_PAGE_NOISE, i);
	object = vmemi_pool_object_bytes(pool, handles[50], &bytes);
	object[0] ^= 0x40; /* handle */
	object[9] ^= 0x80; /* length */
	cr_assert_eq(vmem_pool_load_page(pool, handles[50], page.bytes), -VMEM_EBADMSG);
	for (uint32_t i = 0; i < 40; i++)
		cr_assert_eq(vmem_pool_drop(pool, handles[i]), 0);
	while (vmem_pool_work(pool, 1 << 20))
		;
	for (uint32_t i = 40; i < 3 * 63; i++)
		expect_page(pool, handles[i], VMEMT_PAGE_NOISE, i);
	pool_close(pool);
}

static void drop_damaged_stream(bool large_index)
{
	vmem_pool *pool = pool_with_log();
	uint32_t stream = stream_open(pool), keep = stream_open(pool);
	vmem_pool_handle kept = save(pool, keep, VMEMT_PAGE_TEXT, 99);
	uint64_t state = 12;
	struct vmemt_page page;

	if (large_index)
		make_index_large(pool);
	make_damage(pool, stream, &state);
	cr_assert_eq(vmem_pool_stream_drop(pool, stream), 0);
	expect_sound(pool); /* among others: all handles but one are free */
	cr_assert_eq(stats_of(pool).objects, 1);
	for (uint32_t i = 0; i < COUNT; i++)
		cr_assert_eq(vmem_pool_load_page(pool, handles[i], page.bytes), -VMEM_ENOENT);
	expect_page(pool, kept, VMEMT_PAGE_TEXT, 99);
	pool_close(pool);
}

Test(pool_corrupt, a_stream_with_damaged_headers_goes_whole)
{
	drop_damaged_stream(false);
	drop_damaged_stream(true);
}

/* Whole segments of noise. */
Test(pool_corrupt, nothing_is_trusted)
{
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool);
	uint64_t state = 13;
	struct vmemt_page page;

	for (uint32_t i = 0; i < COUNT; i++)
		handles[i] = save(pool, stream, VMEMT_PAGE_TEXT, i);
	for (uint32_t n = 1; n <= pool->number_count; n++) {
		unsigned char *memory = vmemi_segment_at(pool, n)->memory;

		for (uint32_t at = 0; memory && at < SEGMENT; at++)
			memory[at] = (unsigned char)vmemt_rand(&state);
	}
	for (uint32_t i = 0; i < COUNT; i++)
		cr_assert_eq(vmem_pool_load_page(pool, handles[i], page.bytes), -VMEM_EBADMSG);
	for (uint32_t i = 0; i < COUNT; i += 2)
		cr_assert_eq(vmem_pool_drop(pool, handles[i]), 0);
	while (vmem_pool_work(pool, 1 << 20))
		;
	cr_assert_eq(stats_of(pool).objects, COUNT / 2);
	for (uint32_t i = 1; i < COUNT; i += 2)
		cr_assert_eq(vmem_pool_load_page(pool, handles[i], page.bytes), -VMEM_EBADMSG);
	cr_assert_eq(vmem_pool_stream_drop(pool, stream), 0);
	pool_close(pool);
}
