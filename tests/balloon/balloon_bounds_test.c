/* SPDX-License-Identifier: BSD-2-Clause */
/* How much of a buffer a call looks at, and what becomes of one that the guest changes between two calls. */
#include "balloon/balloon_tools.h"

#define MANY 20000u /* entries: more than a call looks at */
#define GIB (UINT64_C(1) << 30)
#define FAR_GFN (GIB * 64 / PAGE) /* no RAM from here on */

/* The buffer's next part is all that a call does: it is not over yet. */
static void give_part(struct vmemt_balloon *t, const struct vmem_balloon_buffer *buffer)
{
	cr_assert_eq(vmem_balloon_give(t->b, buffer), -VMEM_EAGAIN);
	while (vmem_balloon_take_ranges(t->b, &(struct vmem_balloon_range){ 0 }, 1))
		;
	cr_assert_eq(vmem_balloon_take_done(t->b, &(struct vmem_balloon_done){ 0 }), 0);
}

/* 16 MiB at 0, and 4 GiB at 4 GiB. */
static void make_large(struct vmemt_balloon *t, uint64_t features)
{
	vmemt_balloon_make(t, features, PAGE);
	cr_assert_eq(vmem_balloon_add_ram(t->b, 4 * GIB, 4 * GIB, PAGE), 0);
	vmemt_balloon_start(t, features);
}

/* Ranges one by one, and ranges that go on where the one before ended. */
Test(balloon_bounds, entries)
{
	static uint64_t entries[MANY];
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .bytes = entries,
					      .count = sizeof(entries) };

	for (uint64_t apart = 1; apart <= 2; apart++) {
		struct vmemt_balloon t = { 0 };

		for (uint64_t i = 0; i < MANY; i++)
			entries[i] = VMEM_BALLOON_RANGE(FAR_GFN + i * apart, 1);
		vmemt_balloon_new(&t, VMEM_BALLOON_F_RANGES | MODERN);
		give_part(&t, &buffer);
		cr_assert_eq(vmemt_counters(&t).outside, VMEM_BALLOON_WORK_ENTRIES);
		cr_assert_eq(vmem_balloon_give(t.b, &buffer), 0);
		cr_assert_eq(vmemt_counters(&t).outside, MANY);
		vmemt_balloon_end(&t);
	}
}

Test(balloon_bounds, pages_of_entries)
{
	const uint64_t gfn = 4 * GIB / PAGE, most = VMEM_BALLOON_WORK_PAGES;
	const uint64_t entries[] = { VMEM_BALLOON_RANGE(gfn, most - 5),
				     VMEM_BALLOON_RANGE(gfn + most, most + 7) };
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .bytes = entries,
					      .count = sizeof(entries) };
	struct vmemt_balloon t = { 0 };

	make_large(&t, VMEM_BALLOON_F_RANGES | MODERN);
	give_part(&t, &buffer);
	cr_assert_eq(vmemt_counters(&t).inflated, most);
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), -VMEM_EAGAIN);
	cr_assert_eq(vmemt_counters(&t).inflated, 2 * most);
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), 0);
	cr_assert_eq(vmemt_counters(&t).inflated, 2 * most + 2);
	vmemt_balloon_end(&t);
}

/* Pieces that are looked at, and those that are only counted. */
Test(balloon_bounds, pieces)
{
	static struct vmem_balloon_piece pieces[MANY];
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .queue = VMEM_BALLOON_REPORT,
					      .pieces = pieces,
					      .piece_count = MANY };
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	give_part(&t, &buffer);
	cr_assert_eq(vmemt_counters(&t).malformed, VMEM_BALLOON_WORK_ENTRIES);
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), 0);
	cr_assert_eq(vmemt_counters(&t).malformed, MANY);
	cr_assert_eq(vmem_balloon_take_done(t.b, &(struct vmem_balloon_done){ 0 }), 1);
	for (uint64_t i = 0; i < MANY; i++)
		pieces[i] = (struct vmem_balloon_piece){ .gpa = PAGE, .bytes = 3 * PAGE };
	buffer.queue = VMEM_BALLOON_HINT;
	give_part(&t, &buffer);
	cr_assert_eq(vmemt_counters(&t).hints_late, 3 * VMEM_BALLOON_WORK_ENTRIES);
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), 0);
	cr_assert_eq(vmemt_counters(&t).hints_late, 3 * MANY);
	vmemt_balloon_end(&t);
}

Test(balloon_bounds, pages_of_pieces)
{
	const uint64_t most = VMEM_BALLOON_WORK_PAGES;
	const struct vmem_balloon_piece pieces[] = { { 4 * GIB, (most - 5) * PAGE },
						     { 6 * GIB, (most + 7) * PAGE } };
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .queue = VMEM_BALLOON_REPORT,
					      .pieces = pieces,
					      .piece_count = 2 };
	struct vmemt_balloon t = { 0 };

	make_large(&t, ALL_FEATURES | MODERN);
	give_part(&t, &buffer);
	cr_assert_eq(vmemt_counters(&t).reported, most);
	give_part(&t, &buffer);
	cr_assert_eq(vmemt_counters(&t).reported, 2 * most);
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), 0);
	cr_assert_eq(vmemt_counters(&t).reported, 2 * most + 2);
	vmemt_balloon_end(&t);
}

/* Of statistics 256 entries are read. */
Test(balloon_bounds, statistics)
{
	static uint8_t bytes[300 * VMEM_BALLOON_STAT_BYTES];
	struct vmem_balloon_guest g = { .size = sizeof(g) };
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	bytes[255 * VMEM_BALLOON_STAT_BYTES] = VMEM_BALLOON_FREE;
	bytes[256 * VMEM_BALLOON_STAT_BYTES] = VMEM_BALLOON_TOTAL;
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_STATS, bytes, sizeof(bytes)), 0);
	cr_assert_eq(vmem_balloon_get_guest(t.b, &g), 0);
	cr_assert_eq(g.known, 1u << VMEM_BALLOON_SWAP_IN | 1u << VMEM_BALLOON_FREE);
	cr_assert_eq(vmemt_counters(&t).malformed, 1);
	vmemt_balloon_end(&t);
}

/* An entry that has become less than what was done of it is over. */
Test(balloon_bounds, entry_that_shrinks)
{
	const uint64_t gfn = 4 * GIB / PAGE, most = VMEM_BALLOON_WORK_PAGES;
	uint64_t entry = VMEM_BALLOON_RANGE(gfn, most + 500);
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .bytes = &entry,
					      .count = sizeof(entry) };
	struct vmemt_balloon t = { 0 };

	make_large(&t, VMEM_BALLOON_F_RANGES | MODERN);
	give_part(&t, &buffer);
	entry = VMEM_BALLOON_RANGE(gfn, 10);
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), 0);
	vmemt_no_range(&t);
	cr_assert_eq(vmemt_counters(&t).inflated, most);
	cr_assert_eq(vmemt_counters(&t).outside, 0);
	vmemt_balloon_end(&t);
}

Test(balloon_bounds, piece_that_shrinks)
{
	struct vmem_balloon_piece piece = { 4 * GIB, (VMEM_BALLOON_WORK_PAGES + 500) * PAGE };
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .queue = VMEM_BALLOON_REPORT,
					      .pieces = &piece,
					      .piece_count = 1 };
	struct vmemt_balloon t = { 0 };

	make_large(&t, ALL_FEATURES | MODERN);
	give_part(&t, &buffer);
	piece.bytes = 10 * PAGE;
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), 0);
	vmemt_no_range(&t);
	cr_assert_eq(vmemt_counters(&t).reported, VMEM_BALLOON_WORK_PAGES);
	cr_assert_eq(vmemt_counters(&t).outside, 0);
	vmemt_balloon_end(&t);
}
