/* SPDX-License-Identifier: BSD-2-Clause */
/* Copies of segments that move from one place to another, or are lost. */
#include "pool/leave_tools.h"

enum { PAGES = 4000 };

static uint32_t fill(vmem_pool *pool, vmem_pool_handle handle[PAGES])
{
	uint32_t stream = stream_open(pool);

	for (uint32_t i = 0; i < PAGES; i++)
		handle[i] = save(pool, stream, VMEMT_PAGE_TEXT, i);
	return stream;
}

static uint32_t first_out(vmem_pool *pool, uint32_t stream, const vmem_pool_handle handle[PAGES],
			  struct vmemi_located *w)
{
	uint32_t i = 0;

	while (i < PAGES && vmemi_pool_locate(pool, stream, handle[i], w))
		i++;
	cr_assert_lt(i, PAGES);
	return i;
}

/* Loads go on: the old copy is read by those that were there before, the new one by others. */
Test(pool_move, a_copy_that_has_moved_stays_until_its_readers_are_gone)
{
	static vmem_pool_handle handle[PAGES];
	vmem_pool *pool = pool_open(NULL);
	struct vmemi_located before, after;
	struct vmemi_homing h;
	struct vmemi_moving m;
	uint32_t stream, i;
	uint64_t place;

	with_devices(pool);
	stream = fill(pool, handle);
	while (leave(pool))
		;
	i = first_out(pool, stream, handle, &before);
	cr_assert_eq(vmemi_pool_move_begin(pool, vmemi_entry_segment(before.entry),
					   before.place + 1, &m),
		     -VMEM_ENOENT);
	cr_assert_eq(
		vmemi_pool_move_begin(pool, vmemi_entry_segment(before.entry), before.place, &m),
		0);
	place = write_copy(
		&(struct vmemi_leaving){ .data = copies[m.place].bytes, .bytes = m.bytes });
	cr_assert(vmemi_pool_move_end(pool, &m, place));
	cr_assert_eq(vmemi_pool_locate(pool, stream, handle[i], &after), 0);
	cr_assert_eq(after.place, place);
	cr_assert(!vmemi_pool_move_vacated(pool, &m));
	vmemi_pool_located_end(pool, &before);
	cr_assert(vmemi_pool_move_vacated(pool, &m));
	vacate(&copies, m.place, m.bytes / VMEMI_OUT_BLOCK);
	vmemi_pool_located_end(pool, &after);
	cr_assert_eq(vmemi_pool_home_begin(pool, m.number, &h), 0);
	memcpy(h.memory, copies[h.place].bytes, h.bytes);
	cr_assert(vmemi_pool_home_end(pool, &h));
	cr_assert(vmemi_pool_home_vacated(pool, &h));
	vacate(&copies, h.place, h.bytes / VMEMI_OUT_BLOCK);
	expect_page(pool, handle[i], VMEMT_PAGE_TEXT, i);
	expect_sound(pool);
	pool_close(pool);
}

/* Its objects are errors, and can be dropped. One that was dropped while it moved has gone. */
Test(pool_move, a_copy_may_be_lost)
{
	static vmem_pool_handle handle[PAGES];
	vmem_pool *pool = pool_open(NULL);
	struct vmemi_moving m;
	struct vmemi_located w;
	uint32_t stream, lost = 0;

	with_devices(pool);
	stream = fill(pool, handle);
	while (leave(pool))
		;
	(void)first_out(pool, stream, handle, &w);
	vmemi_pool_located_end(pool, &w);
	cr_assert_eq(vmemi_pool_move_begin(pool, vmemi_entry_segment(w.entry), w.place, &m), 0);
	cr_assert(vmemi_pool_move_end(pool, &m, VMEMI_PLACE_LOST));
	cr_assert(vmemi_pool_move_vacated(pool, &m));
	vacate(&copies, m.place, m.bytes / VMEMI_OUT_BLOCK);
	for (uint32_t i = 0; i < PAGES; i++) {
		int err = vmemi_pool_locate(pool, stream, handle[i], &w);

		lost += err == -VMEM_EIO;
		if (!err)
			vmemi_pool_located_end(pool, &w);
	}
	cr_assert_gt(lost, 0);
	(void)first_out(pool, stream, handle, &w);
	cr_assert_eq(vmemi_pool_move_begin(pool, vmemi_entry_segment(w.entry), w.place, &m), 0);
	vmemi_pool_located_end(pool, &w);
	for (uint32_t i = 0; i < PAGES; i++)
		cr_assert_eq(vmem_pool_drop(pool, handle[i]), 0);
	cr_assert(!vmemi_pool_move_end(pool, &m, COPIES));
	while (vmem_pool_work(pool, 1 << 20))
		;
	vmemi_pool_maintain(pool);
	for (uint32_t i = 0; i < COPIES; i++)
		cr_assert_null(copies[i].bytes);
	expect_sound(pool);
	pool_close(pool);
}

/* The first segment that is out, in which each third page is live. Its page @i. */
static uint32_t thin_out(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle[PAGES],
			 struct vmemi_located *w, struct vmemi_moving *m)
{
	uint32_t i;

	with_devices(pool);
	while (leave(pool))
		;
	for (i = 0; i < PAGES; i++)
		if (i % 3) {
			cr_assert_eq(vmem_pool_drop(pool, handle[i]), 0);
			handle[i] = 0;
		}
	i = first_out(pool, stream, handle, w);
	cr_assert_eq(vmemi_pool_move_begin(pool, vmemi_entry_segment(w->entry), w->place, m), 0);
	return i;
}

static void expect_rest(vmem_pool *pool, uint32_t stream, const vmem_pool_handle handle[PAGES])
{
	for (uint32_t i = 0; i < PAGES; i++) {
		struct vmemi_located w;
		struct vmemi_piece piece[VMEMI_PIECES] = { { .handle = 0 } };
		struct vmemt_page page;
		uint32_t missing;

		if (!handle[i])
			continue;
		if (vmemi_pool_locate(pool, stream, handle[i], &w)) {
			expect_page(pool, handle[i], VMEMT_PAGE_TEXT, i);
			continue;
		}
		piece[0] = (struct vmemi_piece){ w.handle, w.checksum, w.entry,
						 copies[w.place].bytes + w.offset };
		cr_assert_eq(vmemi_pool_load_pieces(pool, stream, handle[i], page.bytes, piece,
						    &missing),
			     0);
		cr_assert(vmemt_page_is(&page, VMEMT_PAGE_TEXT, i));
		vmemi_pool_located_end(pool, &w);
	}
}

/* Who reads the old copy goes on; what is dropped on the way is dead in the new one. */
Test(pool_move, a_copy_is_packed_on_its_way)
{
	static vmem_pool_handle handle[PAGES];
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = fill(pool, handle), i, blocks, live, bytes;
	struct vmemi_located before;
	struct vmemi_moving m;
	uint64_t place;

	i = thin_out(pool, stream, handle, &before, &m);
	cr_assert(vmemi_pool_copy_blocks(pool, m.number, m.place, &blocks, &live));
	cr_assert_eq(blocks * VMEMI_OUT_BLOCK, m.bytes);
	cr_assert(!vmemi_pool_copy_blocks(pool, m.number, m.place + 1, &blocks, &live));
	memcpy(scratch, copies[m.place].bytes, m.bytes);
	cr_assert_eq(vmemi_pool_move_pack(pool, &m, scratch, &bytes), 0);
	cr_assert_eq(bytes, live * VMEMI_OUT_BLOCK);
	cr_assert_lt(live, blocks / 2);
	place = write_copy(&(struct vmemi_leaving){ .data = scratch, .bytes = bytes });
	cr_assert_eq(vmem_pool_drop(pool, handle[i]), 0);
	handle[i] = 0;
	cr_assert(vmemi_pool_move_end(pool, &m, place));
	cr_assert(!vmemi_pool_move_vacated(pool, &m));
	vmemi_pool_located_end(pool, &before);
	cr_assert(vmemi_pool_move_vacated(pool, &m));
	vacate(&copies, m.place, m.bytes / VMEMI_OUT_BLOCK);
	expect_sound(pool);
	expect_rest(pool, stream, handle);
	pool_close(pool);
}

Test(pool_move, what_is_not_what_was_written_is_not_packed)
{
	static vmem_pool_handle handle[PAGES];
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = fill(pool, handle), bytes = 7;
	struct vmemi_located w;
	struct vmemi_moving m;

	(void)thin_out(pool, stream, handle, &w, &m);
	memcpy(scratch, copies[m.place].bytes, m.bytes);
	scratch[w.offset + 5] ^= 1; /* in the checksum */
	cr_assert_eq(vmemi_pool_move_pack(pool, &m, scratch, &bytes), -VMEM_EBADMSG);
	cr_assert_eq(bytes, 7);
	/* And what is packed may stay where it is. */
	memcpy(scratch, copies[m.place].bytes, m.bytes);
	cr_assert_eq(vmemi_pool_move_pack(pool, &m, scratch, &bytes), 0);
	vmemi_pool_move_cancel(pool, &m);
	vmemi_pool_located_end(pool, &w);
	expect_sound(pool);
	expect_rest(pool, stream, handle);
	pool_close(pool);
}
