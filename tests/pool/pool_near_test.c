/* SPDX-License-Identifier: BSD-2-Clause */
/* Who saved the pages beside one that is read from a copy. */
#include "pool/leave_tools.h"
#include "support/rng.h"

enum { PAGES = 1500, MOST = 8 };

static vmem_pool *pool;
static uint32_t stream;
static vmem_pool_handle handle[PAGES]; /* 0: dropped */

static void open_pool(void)
{
	pool = pool_open(NULL);
	with_devices(pool);
	stream = stream_open(pool);
	for (uint32_t i = 0; i < PAGES; i++)
		handle[i] = save_named(pool, stream, VMEMT_PAGE_TEXT, i);
}

static void close_pool(void)
{
	pool_close(pool);
}

TestSuite(pool_near, .init = open_pool, .fini = close_pool);

static void drop(uint32_t i)
{
	cr_assert_eq(vmem_pool_drop(pool, handle[i]), 0);
	handle[i] = 0;
}

static bool is_out(uint32_t i, struct vmemi_located *w)
{
	if (!handle[i] || vmemi_pool_locate(pool, stream, handle[i], w))
		return false;
	vmemi_pool_located_end(pool, w);
	return true;
}

/* The blocks of its object. */
static struct vmemi_stretch blocks_of(const struct vmemi_located *w)
{
	uint32_t first = w->offset / VMEMI_OUT_BLOCK;
	uint32_t end = (w->offset + w->bytes + VMEMI_OUT_BLOCK - 1) / VMEMI_OUT_BLOCK;

	return (struct vmemi_stretch){ .offset = first * VMEMI_OUT_BLOCK,
				       .bytes = (end - first) * VMEMI_OUT_BLOCK,
				       .data = copies[w->place].bytes + first * VMEMI_OUT_BLOCK };
}

static bool lies_in(uint32_t i, uint64_t place, const struct vmemi_stretch *read)
{
	struct vmemi_located w;

	return is_out(i, &w) && w.place == place && w.offset >= read->offset &&
	       w.offset + vmemi_entry_grains(w.entry) * VMEMI_GRAIN_BYTES <=
		       read->offset + read->bytes;
}

/* They are those that an object by object search finds. */
static void expect_neighbours(uint32_t i, const struct vmemi_located *w)
{
	struct vmemi_stretch read = blocks_of(w);
	struct vmemi_neighbour near[PAGES];
	uint32_t expected = 0, count;
	struct vmemi_located held;

	cr_assert_eq(vmemi_pool_locate(pool, stream, handle[i], &held), 0);
	count = vmemi_pool_neighbours(pool, &held, &read, near, PAGES);
	vmemi_pool_located_end(pool, &held);
	for (uint32_t other = 0; other < PAGES; other++) {
		struct vmemi_origin origin = origin_of(other);
		uint32_t found = 0;

		for (uint32_t n = 0; n < count; n++) {
			uint32_t no_vm = VMEMI_NO_VM;

			if (near[n].handle != handle[other])
				continue;
			found++;
			cr_assert_eq(near[n].key, origin.key);
			cr_assert_eq(near[n].vm,
				     origin.extra == VMEMI_EXTRA_KEY_VM ? origin.vm : no_vm);
		}
		cr_assert_eq(found, (uint32_t)(other != i && origin.extra &&
					       lies_in(other, w->place, &read)));
		expected += found;
	}
	cr_assert_eq(count, expected);
	cr_assert_leq(vmemi_pool_neighbours(pool, w, &read, near, 1), 1);
}

/* Of every so many pages. Returns how many were out. */
static uint32_t expect_all(uint32_t step)
{
	struct vmemi_located w;
	uint32_t out = 0;

	for (uint32_t i = 0; i < PAGES; i += step)
		if (is_out(i, &w)) {
			expect_neighbours(i, &w);
			out++;
		}
	return out;
}

Test(pool_near, are_those_in_the_blocks_that_were_read)
{
	while (leave(pool))
		;
	cr_assert_gt(expect_all(7), 20);
	for (uint32_t i = 0; i < PAGES; i += 2)
		drop(i);
	cr_assert_gt(expect_all(7), 10);
	/* The same pages under the same handles, elsewhere. */
	for (uint32_t i = PAGES; i-- > 0;)
		if (i % 2 == 0)
			handle[i] = save_named(pool, stream, VMEMT_PAGE_TEXT, i);
	cr_assert_gt(expect_all(7), 10);
}

Test(pool_near, are_told_of_sparse_copies_and_after_they_were_at_home)
{
	struct vmemi_located w;
	struct vmemi_homing h;

	for (uint32_t i = 0; i < PAGES; i++)
		if (i % 4 > 1)
			drop(i);
	while (leave(pool))
		;
	cr_assert_gt(expect_all(4), 10);
	for (uint32_t i = 0; i < PAGES; i++) {
		if (!is_out(i, &w))
			continue;
		cr_assert_eq(vmemi_pool_home_begin(pool, vmemi_entry_segment(w.entry), &h), 0);
		memcpy(h.memory, copies[h.place].bytes, h.bytes);
		cr_assert(vmemi_pool_home_end(pool, &h));
		cr_assert(vmemi_pool_home_vacated(pool, &h));
		vacate(&copies, h.place, h.bytes / VMEMI_OUT_BLOCK);
	}
	while (vmem_pool_work(pool, 1 << 20))
		;
	expect_sound(pool);
	while (leave(pool))
		;
	cr_assert_gt(expect_all(4), 10);
	for (uint32_t i = 0; i < PAGES; i++)
		if (handle[i] && !is_out(i, &w))
			expect_page(pool, handle[i], VMEMT_PAGE_TEXT, i);
}

/* Another form of the same page, with the same name. */
Test(pool_near, are_told_of_pages_that_were_encoded_anew)
{
	uint32_t replaced = 0;

	for (uint32_t i = 0; i < PAGES / 4; i++) {
		struct vmemt_page page;
		unsigned char bytes[VMEM_PAGE_SIZE];
		struct vmemi_encoded e = { .codec = VMEM_CODEC_LZ4, .payload = bytes };
		struct vmemi_described d;
		struct vmemi_held held;

		vmemt_page_make(&page, VMEMT_PAGE_TEXT, i);
		e.bytes = vmemi_pool_encode(pool, e.codec, page.bytes, NULL, bytes, sizeof(bytes));
		cr_assert_gt(e.bytes, 0);
		cr_assert(vmemi_pool_hold(pool, stream, handle[i], &held, &d));
		if (vmemi_pool_is_sealed(pool, &held))
			replaced += !vmemi_pool_replace(pool, &held, &e);
		vmemi_pool_let_go(pool, &held);
	}
	cr_assert_gt(replaced, 20);
	expect_sound(pool);
	while (leave(pool))
		;
	cr_assert_gt(expect_all(3), 20);
}

static void expect_no_neighbours(void)
{
	struct vmemi_neighbour near[MOST];
	struct vmemi_located w;

	for (uint32_t i = 0; i < PAGES; i++) {
		struct vmemi_stretch read;

		if (!is_out(i, &w))
			continue;
		read = blocks_of(&w);
		cr_assert_eq(vmemi_pool_neighbours(pool, &w, &read, near, MOST), 0);
	}
}

/* Anything may come from a device: of what is not as it was written nobody is told. */
Test(pool_near, are_not_told_of_damaged_objects)
{
	uint64_t state = vmemt_seed("pool_near");
	struct vmemi_located w;

	while (leave(pool))
		;
	for (uint32_t i = 0; i < PAGES; i++) {
		if (!is_out(i, &w))
			continue;
		copies[w.place].bytes[w.offset + vmemt_rand(&state) % (HEADER - 1)] ^=
			(unsigned char)(1u << vmemt_rand(&state) % 7);
	}
	expect_no_neighbours();
	for (uint32_t place = 0; place < COPIES; place++)
		for (uint32_t at = 0; copies[place].bytes && at < copies[place].blocks * 4096; at++)
			copies[place].bytes[at] = (unsigned char)vmemt_rand(&state);
	expect_no_neighbours();
}
