/* SPDX-License-Identifier: BSD-2-Clause */
/* Segments that go out, over a device that is an array of their copies. */
#include "pool/delta_tools.h"
#include "pool/leave_tools.h"
#include "support/rng.h"

enum { PAGES = 4000 };

/* As a load from a device does it: one object after the other. */
static int load(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle, void *page,
		unsigned *reads)
{
	static unsigned char window[VMEMI_PIECES][VMEM_PAGE_SIZE * 2];
	struct vmemi_piece pieces[VMEMI_PIECES] = { { 0 } };
	struct vmemi_located w;
	uint32_t missing;
	int err;

	for (*reads = 0;; ++*reads) {
		err = vmemi_pool_load_pieces(pool, stream, handle, page, pieces, &missing);
		if (err != -VMEM_EAGAIN)
			return err;
		cr_assert_lt(*reads, VMEMI_PIECES);
		cr_assert_eq(vmemi_pool_locate(pool, stream, missing, &w), 0);
		cr_assert(w.offset + w.bytes <= copies[w.place].blocks * VMEMI_OUT_BLOCK);
		memcpy(window[*reads], copies[w.place].bytes + w.offset, w.bytes);
		pieces[*reads] =
			(struct vmemi_piece){ w.handle, w.checksum, w.entry, window[*reads] };
		vmemi_pool_located_end(pool, &w);
	}
}

static void expect_out(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle,
		       enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page page;
	unsigned reads;

	memset(page.bytes, 0x77, sizeof(page.bytes));
	cr_assert_eq(load(pool, stream, handle, page.bytes, &reads), 0);
	cr_assert(vmemt_page_is(page.bytes, kind, seed));
}

static uint32_t fill(vmem_pool *pool, vmem_pool_handle handle[PAGES])
{
	uint32_t stream = stream_open(pool);

	for (uint32_t i = 0; i < PAGES; i++)
		handle[i] = save_named(pool, stream, VMEMT_PAGE_TEXT, i);
	return stream;
}

static struct vmemi_out_stats out_of(vmem_pool *pool)
{
	struct vmemi_out_stats stats;

	vmemi_pool_out_stats(pool, &stats);
	return stats;
}

Test(pool_out, the_oldest_go_first_and_free_their_memory)
{
	static vmem_pool_handle handle[PAGES];
	vmem_pool *pool = pool_open(NULL);
	uint64_t before, live = 0;
	struct vmemt_page page;
	uint32_t stream;

	with_devices(pool);
	stream = fill(pool, handle);
	before = out_of(pool).memory_bytes;
	live = stats_of(pool).live_bytes;
	for (uint32_t n = 1; n <= 4; n++) {
		cr_assert(leave(pool));
		cr_assert_eq(out_of(pool).segments, n);
		cr_assert_eq(out_of(pool).memory_bytes, before - n * SEGMENT);
		expect_sound(pool);
	}
	cr_assert_eq(stats_of(pool).live_bytes + out_of(pool).live_bytes, live);
	cr_assert_eq(stats_of(pool).objects, PAGES);
	cr_assert_eq(vmemi_pool_load_of(pool, stream, handle[0], page.bytes), -VMEM_EAGAIN);
	expect_page(pool, handle[PAGES - 1], VMEMT_PAGE_TEXT, PAGES - 1);
	for (uint32_t i = 0; i < PAGES; i++)
		expect_out(pool, stream, handle[i], VMEMT_PAGE_TEXT, i);
	while (leave(pool))
		;
	for (uint32_t i = 0; i < PAGES; i++)
		expect_out(pool, stream, handle[i], VMEMT_PAGE_TEXT, i);
	pool_close(pool);
}

Test(pool_out, drops_need_no_device_and_the_last_gives_back_the_copy)
{
	static vmem_pool_handle handle[PAGES];
	vmem_pool *pool = pool_open(NULL);
	struct vmemt_page page;
	uint32_t stream, checksum;

	with_devices(pool);
	stream = fill(pool, handle);
	while (leave(pool))
		;
	vmemt_page_make(&page, VMEMT_PAGE_TEXT, 7);
	cr_assert_eq(vmemi_pool_checksum_of(pool, stream, handle[7], &checksum), 0);
	cr_assert_eq(checksum, vmemi_pool_checksum(pool, page.bytes));
	cr_assert_eq(vmemi_pool_equal(pool, stream, handle[7], page.bytes), 0);
	for (uint32_t i = 0; i < PAGES; i++) {
		cr_assert_eq(vmem_pool_drop(pool, handle[i]), 0);
		if (i % 256 == 0)
			expect_sound(pool);
	}
	(void)vmem_pool_work(pool, 0);
	expect_sound(pool);
	cr_assert_eq(out_of(pool).segments, 0);
	for (uint32_t i = 0; i < COPIES; i++)
		cr_assert_null(copies[i].bytes);
	pool_close(pool);
}

Test(pool_out, a_copy_stays_while_it_is_read)
{
	static vmem_pool_handle handle[PAGES];
	vmem_pool *pool = pool_open(NULL);
	struct vmemi_located w;
	uint32_t stream;

	with_devices(pool);
	stream = fill(pool, handle);
	cr_assert(leave(pool));
	cr_assert_eq(vmemi_pool_locate(pool, stream, handle[0], &w), 0);
	cr_assert_eq(vmem_pool_stream_drop(pool, stream), 0);
	(void)vmem_pool_work(pool, 0);
	cr_assert_not_null(copies[w.place].bytes);
	vmemi_pool_located_end(pool, &w);
	(void)vmem_pool_work(pool, 0);
	cr_assert_null(copies[w.place].bytes);
	pool_close(pool);
}

Test(pool_out, memory_stays_while_it_is_read)
{
	static vmem_pool_handle handle[PAGES];
	vmem_pool *pool = pool_open(NULL);
	struct vmemi_described d;
	struct vmemi_leaving l;
	struct vmemi_held held;
	struct vmemt_page page;
	uint32_t stream;

	with_devices(pool);
	stream = fill(pool, handle);
	cr_assert(vmemi_pool_leave_begin(pool, &hand, NULL, &l));
	cr_assert(vmemi_pool_hold(pool, stream, handle[0], &held, &d));
	cr_assert(vmemi_pool_leave_end(pool, &l, write_copy(&l)));
	cr_assert_not(vmemi_pool_leave_freed(pool, &l));
	cr_assert_eq(vmemi_pool_read(pool, &held, page.bytes), 0);
	cr_assert(vmemt_page_is(page.bytes, VMEMT_PAGE_TEXT, 0));
	vmemi_pool_let_go(pool, &held);
	cr_assert(vmemi_pool_leave_freed(pool, &l));
	pool_close(pool);
}

Test(pool_out, what_is_not_written_stays)
{
	static vmem_pool_handle handle[PAGES];
	vmem_pool *pool = pool_open(NULL);
	struct vmemi_leaving l, again;

	with_devices(pool);
	(void)fill(pool, handle);
	cr_assert(vmemi_pool_leave_begin(pool, &hand, scratch, &l));
	cr_assert(vmemi_pool_leave_begin(pool, &hand, scratch, &again));
	cr_assert_neq(l.number, again.number);
	vmemi_pool_leave_cancel(pool, &again);
	vmemi_pool_leave_cancel(pool, &l);
	expect_sound(pool);
	for (uint32_t i = 0; i < PAGES; i++)
		expect_page(pool, handle[i], VMEMT_PAGE_TEXT, i);
	cr_assert(leave(pool));
	pool_close(pool);
}

Test(pool_out, a_segment_dropped_on_its_way_leaves_its_place)
{
	static vmem_pool_handle handle[PAGES];
	vmem_pool *pool = pool_open(NULL);
	struct vmemi_leaving l;
	uint32_t stream;

	with_devices(pool);
	stream = fill(pool, handle);
	cr_assert(vmemi_pool_leave_begin(pool, &hand, scratch, &l));
	cr_assert_eq(vmem_pool_stream_drop(pool, stream), 0);
	cr_assert_not(vmemi_pool_leave_end(pool, &l, 0));
	expect_sound(pool);
	(void)vmem_pool_work(pool, 0);
	pool_close(pool);
}

static void keep_every_fourth(vmem_pool *pool, const vmem_pool_handle *handle)
{
	for (uint32_t i = 0; i < PAGES; i++)
		if (i % 4)
			cr_assert_eq(vmem_pool_drop(pool, handle[i]), 0);
}

Test(pool_out, only_what_is_live_is_copied_from_a_sparse_one)
{
	static vmem_pool_handle handle[PAGES];
	vmem_pool *pool = pool_open(NULL);
	struct vmemi_leaving l;
	uint32_t stream;

	with_devices(pool);
	stream = fill(pool, handle);
	keep_every_fourth(pool, handle);
	cr_assert(vmemi_pool_leave_begin(pool, &hand, scratch, &l));
	cr_assert_eq(l.data, scratch);
	cr_assert_lt(l.bytes, SEGMENT / 3);
	cr_assert(vmemi_pool_leave_end(pool, &l, write_copy(&l)));
	cr_assert(vmemi_pool_leave_freed(pool, &l));
	for (uint32_t i = 0; i < PAGES; i += 4)
		expect_out(pool, stream, handle[i], VMEMT_PAGE_TEXT, i);
	expect_sound(pool);
	pool_close(pool);
}

Test(pool_out, what_comes_home_is_as_it_was)
{
	static vmem_pool_handle handle[PAGES];
	vmem_pool *pool = pool_open(NULL);
	struct vmemi_homing h;
	struct vmemi_located w;
	uint32_t stream;

	with_devices(pool);
	stream = fill(pool, handle);
	keep_every_fourth(pool, handle);
	while (leave(pool))
		;
	for (uint32_t i = 0; i < PAGES; i += 8)
		cr_assert_eq(vmem_pool_drop(pool, handle[i]), 0);
	for (uint32_t i = 4; i < PAGES; i += 8) {
		int err = vmemi_pool_locate(pool, stream, handle[i], &w);

		if (err) /* it is home already, or never went */
			continue;
		vmemi_pool_located_end(pool, &w);
		cr_assert_eq(vmemi_pool_home_begin(pool, vmemi_entry_segment(w.entry), &h), 0);
		memcpy(h.memory, copies[h.place].bytes, h.bytes);
		cr_assert(vmemi_pool_home_end(pool, &h));
		cr_assert(vmemi_pool_home_vacated(pool, &h));
		vacate(&copies, h.place, h.bytes / VMEMI_OUT_BLOCK);
		expect_sound(pool);
	}
	cr_assert_eq(out_of(pool).segments, 0);
	for (uint32_t i = 4; i < PAGES; i += 8)
		expect_page(pool, handle[i], VMEMT_PAGE_TEXT, i);
	while (vmem_pool_work(pool, 1 << 20))
		;
	for (uint32_t i = 4; i < PAGES; i += 8)
		expect_page(pool, handle[i], VMEMT_PAGE_TEXT, i);
	pool_close(pool);
}

/* Any bytes may come from a device: an error each, never a page. */
Test(pool_out, what_was_not_written_is_no_page)
{
	static vmem_pool_handle handle[PAGES];
	uint64_t state = vmemt_seed("pool_out");
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream, damaged = 0;
	struct vmemt_page page;

	with_devices(pool);
	stream = fill(pool, handle);
	while (leave(pool))
		;
	for (uint32_t i = 0; i < PAGES; i++) {
		struct vmemi_located w;
		unsigned char *at;
		unsigned reads;
		int err;

		if (vmemi_pool_locate(pool, stream, handle[i], &w))
			continue;
		vmemi_pool_located_end(pool, &w);
		at = copies[w.place].bytes + w.offset + vmemt_rand(&state) % w.bytes;
		*at ^= (unsigned char)(1u << vmemt_rand(&state) % 8);
		err = load(pool, stream, handle[i], page.bytes, &reads);
		cr_assert(err == -VMEM_EBADMSG ||
			  (!err && vmemt_page_is(page.bytes, VMEMT_PAGE_TEXT, i)));
		damaged += err != 0;
	}
	cr_assert_gt(damaged, PAGES / 2);
	pool_close(pool);
}

/* An object that lay there before, of the same handle: whole, but not this one. */
Test(pool_out, an_older_copy_is_no_page)
{
	static vmem_pool_handle handle[PAGES];
	vmem_pool *pool = pool_open(NULL);
	struct vmemi_object_header header;
	struct vmemi_located w;
	struct vmemt_page page;
	uint32_t stream;
	unsigned reads;
	unsigned char *at;

	with_devices(pool);
	stream = stream_open(pool);
	for (uint32_t i = 0; i < PAGES / 8; i++)
		handle[i] = save(pool, stream, VMEMT_PAGE_NOISE, i);
	cr_assert(leave(pool));
	cr_assert_eq(vmemi_pool_locate(pool, stream, handle[0], &w), 0);
	vmemi_pool_located_end(pool, &w);
	vmemt_page_make(&page, VMEMT_PAGE_NOISE, 12345);
	at = copies[w.place].bytes + w.offset;
	memcpy(&header, at, sizeof(header));
	header.checksum = vmemi_pool_checksum(pool, page.bytes);
	memcpy(at, &header, sizeof(header));
	memcpy(at + sizeof(header), page.bytes, VMEM_PAGE_SIZE);
	cr_assert_eq(load(pool, stream, handle[0], page.bytes, &reads), -VMEM_EBADMSG);
	pool_close(pool);
}

Test(pool_out, a_delta_and_its_reference_are_read_one_after_the_other)
{
	vmem_pool *pool = open_with_deltas();
	struct pair pair = make_pair(pool);
	struct vmemt_page expected, page;
	struct vmemi_dropped dropped;
	unsigned reads;

	with_devices(pool);
	seal(pool, pair.stream);
	while (leave(pool))
		;
	make_like(&expected, 1, 20);
	cr_assert_eq(load(pool, pair.stream, pair.like, page.bytes, &reads), 0);
	cr_assert_eq(reads, 2);
	cr_assert_eq(memcmp(&page, &expected, sizeof(page)), 0);
	cr_assert_eq(vmemi_pool_drop_of(pool, pair.stream, pair.like, &dropped), 0);
	cr_assert_eq(dropped.reference, pair.base);
	expect_sound(pool);
	pool_close(pool);
}

Test(pool_out, a_delta_in_memory_needs_its_reference_alone)
{
	vmem_pool *pool = open_with_deltas();
	struct vmemt_page expected, page;
	struct vmemi_described d;
	struct vmemi_held held;
	struct pair pair = make_pair(pool);
	unsigned reads;

	with_devices(pool);
	cr_assert(leave(pool)); /* the first segment, with the reference */
	cr_assert_eq(vmemi_pool_load_of(pool, pair.stream, pair.base, page.bytes), -VMEM_EAGAIN);
	cr_assert(vmemi_pool_hold(pool, pair.stream, pair.like, &held, &d));
	cr_assert_eq(vmemi_pool_read(pool, &held, page.bytes), -VMEM_EAGAIN);
	vmemi_pool_let_go(pool, &held);
	make_like(&expected, 1, 20);
	cr_assert_eq(load(pool, pair.stream, pair.like, page.bytes, &reads), 0);
	cr_assert_eq(reads, 1);
	cr_assert_eq(memcmp(&page, &expected, sizeof(page)), 0);
	pool_close(pool);
}

Test(pool_out, a_damaged_segment_stays_in_memory)
{
	static vmem_pool_handle handle[PAGES];
	vmem_pool *pool = pool_open(NULL);
	struct vmemi_leaving l;
	unsigned char *object;
	uint32_t bytes, stream;

	with_devices(pool);
	stream = fill(pool, handle);
	object = vmemi_pool_object_bytes(pool, handle[0], &bytes);
	object[9] ^= 0x7f; /* the length */
	cr_assert(vmemi_pool_leave_begin(pool, &hand, scratch, &l));
	cr_assert_neq(l.number, vmemi_entry_segment(vmemi_entry_of(pool, handle[0])));
	vmemi_pool_leave_cancel(pool, &l);
	object[9] ^= 0x7f;
	cr_assert_eq(vmem_pool_stream_drop(pool, stream), 0);
	pool_close(pool);
}

Test(pool_out, without_memory_for_a_digest_nothing_leaves)
{
	static vmem_pool_handle handle[PAGES];
	vmem_pool *pool = pool_open(NULL);
	struct vmemi_leaving l;

	with_devices(pool);
	(void)fill(pool, handle);
	heap.fail_after = heap.calls = 0;
	cr_assert_not(vmemi_pool_leave_begin(pool, &hand, scratch, &l));
	heap.fail_after = -1;
	expect_sound(pool);
	cr_assert(leave(pool));
	pool_close(pool);
}

/* Random drops, saves, departures and homecomings against a plain list. */
Test(pool_out, random_operations)
{
	static vmem_pool_handle handle[PAGES];
	static uint64_t seed_of[PAGES];
	uint64_t state = vmemt_seed("pool_out"), next_seed = 1;
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool);

	with_devices(pool);
	for (uint32_t step = 0; step < 20000; step++) {
		uint32_t i = (uint32_t)(vmemt_rand(&state) % PAGES);
		struct vmemi_located w;
		struct vmemi_homing h;

		if (!handle[i]) {
			seed_of[i] = next_seed++;
			handle[i] = save(pool, stream, VMEMT_PAGE_TEXT, seed_of[i]);
		} else if (vmemt_rand(&state) % 2) {
			expect_out(pool, stream, handle[i], VMEMT_PAGE_TEXT, seed_of[i]);
		} else {
			cr_assert_eq(vmem_pool_drop(pool, handle[i]), 0);
			handle[i] = 0;
		}
		if (step % 400 == 399 && out_of(pool).segments < COPIES / 2)
			(void)leave(pool);
		if (step % 900 == 899 && handle[i] &&
		    !vmemi_pool_locate(pool, stream, handle[i], &w)) {
			vmemi_pool_located_end(pool, &w);
			cr_assert_eq(vmemi_pool_home_begin(pool, vmemi_entry_segment(w.entry), &h),
				     0);
			memcpy(h.memory, copies[h.place].bytes, h.bytes);
			cr_assert(vmemi_pool_home_end(pool, &h));
			vacate(&copies, h.place, h.bytes / VMEMI_OUT_BLOCK);
		}
		if (step % 500 == 0) {
			(void)vmem_pool_work(pool, 65536);
			expect_sound(pool);
		}
	}
	for (uint32_t i = 0; i < PAGES; i++)
		if (handle[i])
			expect_out(pool, stream, handle[i], VMEMT_PAGE_TEXT, seed_of[i]);
	pool_close(pool);
}

/* So that who asks may drop it: the reference is on a device, and drops need none. */
Test(pool_out, a_delta_without_its_reference_in_memory_is_whole)
{
	vmem_pool *pool = open_with_deltas();
	struct vmemi_described d;
	struct vmemi_held held;
	struct vmemt_page page;
	struct pair pair;

	with_devices(pool);
	pair = make_pair(pool);
	cr_assert(leave(pool));
	cr_assert_eq(vmemi_pool_load_of(pool, pair.stream, pair.base, page.bytes), -VMEM_EAGAIN);
	cr_assert(vmemi_pool_hold(pool, pair.stream, pair.like, &held, &d));
	cr_assert_eq(vmemi_pool_read(pool, &held, page.bytes), -VMEM_EAGAIN);
	cr_assert(vmemi_pool_is_whole(pool, &held));
	vmemi_pool_let_go(pool, &held);
	pool_close(pool);
}
