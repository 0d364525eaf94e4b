/* SPDX-License-Identifier: BSD-2-Clause */
/* What a device and a driver make of rings that the other side has filled badly, each kind by itself. */
#include <criterion/criterion.h>

#include "ring_tools.h"

#define SIZE 8u

static struct guest guest;
static struct split_ring_device device;
static struct vmem_balloon_piece pieces[PIECES];
static struct split_ring_buffer buffer = { .pieces = pieces, .most = PIECES };

static void begin(uint64_t features)
{
	struct split_ring_device_opts opts;

	cr_assert_eq(guest_make(&guest, SIZE), 0);
	opts = guest_opts(&guest, features);
	cr_assert_eq(split_ring_device_start(&device, &opts), 0);
}

static void describe(uint32_t i, uint64_t gpa, uint32_t bytes, uint32_t flags, uint32_t next)
{
	((struct split_ring_descriptor *)guest.parts.descriptors)[i] =
		(struct split_ring_descriptor){ gpa, bytes, (uint16_t)flags, (uint16_t)next };
}

static void offer(uint32_t head)
{
	uint16_t index = split_ring_load_index(guest.parts.available);

	split_ring_store(guest.parts.available, SPLIT_RING_ENTRIES + index % SIZE, (uint16_t)head);
	split_ring_store_index(guest.parts.available, (uint16_t)(index + 1));
}

static uint32_t used_head(uint32_t i)
{
	return ((uint32_t *)guest.parts.used)[1 + 2 * i];
}

/* The chain that begins at 0 is refused, and goes back. */
static void expect_malformed(void)
{
	uint64_t before = device.malformed;
	uint16_t used = split_ring_load_index(guest.parts.used);

	offer(0);
	cr_assert_eq(split_ring_device_take(&device, &buffer), -VMEM_EBADMSG);
	cr_assert_eq(device.malformed, before + 1);
	cr_assert_eq(split_ring_load_index(guest.parts.used), (uint16_t)(used + 1));
	cr_assert_eq(used_head(used % SIZE), 0);
	cr_assert_eq(split_ring_device_take(&device, &buffer), 0);
}

static void end(void)
{
	guest_free(&guest);
}

Test(ring, parts_that_are_no_ring_are_refused, .fini = end)
{
	struct split_ring_device_opts opts;
	struct split_ring_slot slots[SIZE];
	struct split_ring_driver driver;

	begin(0);
	static const uint32_t sizes[] = { 0, 3, SIZE + 1, SPLIT_RING_MOST + 1, 65536, UINT32_MAX };
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		opts = guest_opts(&guest, 0);
		opts.parts.size = sizes[i];
		cr_assert_eq(split_ring_device_start(&device, &opts), -VMEM_EINVAL);
		cr_assert_eq(split_ring_driver_start(&driver, &opts.parts, slots, 0), -VMEM_EINVAL);
	}
	for (int part = 0; part < 3; part++) {
		opts = guest_opts(&guest, 0);
		if (part == 0)
			opts.parts.descriptors = (uint8_t *)opts.parts.descriptors + 8;
		else if (part == 1)
			opts.parts.available = (uint8_t *)opts.parts.available + 1;
		else
			opts.parts.used = (uint8_t *)opts.parts.used + 2;
		cr_assert_eq(split_ring_device_start(&device, &opts), -VMEM_EINVAL);
	}
}

Test(ring, a_chain_that_is_a_circle_ends, .fini = end)
{
	begin(0);
	describe(0, GUEST_GPA, 16, SPLIT_RING_D_NEXT, 1);
	describe(1, GUEST_GPA, 16, SPLIT_RING_D_NEXT, 0);
	expect_malformed();
	describe(0, GUEST_GPA, 16, SPLIT_RING_D_NEXT, 0);
	expect_malformed();
	describe(0, GUEST_GPA, 0, SPLIT_RING_D_NEXT, 0);
	expect_malformed();
}

Test(ring, a_chain_longer_than_the_room_is_refused, .fini = end)
{
	begin(0);
	for (uint32_t i = 0; i < SIZE; i++)
		describe(i, GUEST_GPA + i, 1, i + 1 < SIZE ? SPLIT_RING_D_NEXT : 0, i + 1);
	buffer.most = SIZE;
	offer(0);
	cr_assert_eq(split_ring_device_take(&device, &buffer), 1);
	cr_assert_eq(buffer.readable, SIZE);
	split_ring_device_return(&device, buffer.head, 0);
	buffer.most = SIZE - 1;
	expect_malformed();
}

Test(ring, descriptors_that_are_not_there_are_refused, .fini = end)
{
	begin(0);
	describe(0, GUEST_GPA, 16, SPLIT_RING_D_NEXT, SIZE);
	expect_malformed();
	describe(0, GUEST_GPA, 16, SPLIT_RING_D_NEXT, UINT16_MAX);
	expect_malformed();
}

Test(ring, pieces_to_read_come_first, .fini = end)
{
	begin(0);
	describe(0, GUEST_GPA, 16, SPLIT_RING_D_NEXT | SPLIT_RING_D_WRITE, 1);
	describe(1, GUEST_GPA, 16, 0, 0);
	expect_malformed();
}

Test(ring, an_address_beyond_the_last_one_is_refused, .fini = end)
{
	begin(0);
	describe(0, UINT64_MAX - 15, 17, SPLIT_RING_D_WRITE, 0);
	expect_malformed();
	describe(0, UINT64_MAX, UINT32_MAX, 0, 0);
	expect_malformed();
}

/* Ranges of any length may be named; only what is read must be memory. */
Test(ring, bytes_outside_memory_are_not_read, .fini = end)
{
	static const struct vmem_balloon_piece bad[] = {
		{ 0, 16 },         { GUEST_GPA - 1, 16 },   { GUEST_END - 15, 16 },
		{ GUEST_END, 16 }, { UINT64_MAX - 64, 16 },
	};
	uint8_t bytes[64];

	begin(0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		describe(0, GUEST_GPA, 8, SPLIT_RING_D_NEXT, 1);
		describe(1, bad[i].gpa, (uint32_t)bad[i].bytes, 0, 0);
		offer(0);
		cr_assert_eq(split_ring_device_take(&device, &buffer), 1);
		cr_assert_eq(split_ring_device_read(&device, &buffer, 0, bytes, sizeof(bytes)),
			     -VMEM_EFAULT);
		cr_assert_eq(split_ring_device_read(&device, &buffer, 0, bytes, 8), 8);
		split_ring_device_return(&device, buffer.head, 0);
	}
}

Test(ring, a_piece_of_4_gib_is_read_only_as_far_as_there_is_room, .fini = end)
{
	uint8_t bytes[64];

	begin(0);
	describe(0, GUEST_GPA + DATA_AT, UINT32_MAX, 0, 0);
	offer(0);
	cr_assert_eq(split_ring_device_take(&device, &buffer), 1);
	cr_assert_eq(buffer.readable_bytes, UINT32_MAX);
	cr_assert_eq(split_ring_device_read(&device, &buffer, 0, bytes, sizeof(bytes)), 64);
	cr_assert_eq(split_ring_device_read(&device, &buffer, UINT32_MAX, bytes, 64), 0);
	cr_assert_eq(split_ring_device_read(&device, &buffer, UINT64_MAX, bytes, 64), 0);
}

Test(ring, bytes_are_put_together_over_pieces_and_rows, .fini = end)
{
	uint8_t bytes[40], *data;

	begin(0);
	data = guest_at(&guest, GUEST_GPA + DATA_AT);
	memset(data, 'a', 8);
	memset(guest.rows[0] + ROW_BYTES - 8, 'b', 8);
	memset(guest.rows[1], 'c', 8);
	describe(0, GUEST_GPA + DATA_AT, 8, SPLIT_RING_D_NEXT, 5);
	describe(5, GUEST_GPA + ROW_BYTES - 8, 16, SPLIT_RING_D_NEXT, 2);
	describe(2, GUEST_GPA, 0x2000, SPLIT_RING_D_WRITE, 0);
	offer(0);
	cr_assert_eq(split_ring_device_take(&device, &buffer), 1);
	cr_assert_eq(buffer.readable, 2);
	cr_assert_eq(buffer.writable, 1);
	cr_assert_eq(buffer.readable_bytes, 24);
	cr_assert_eq(buffer.pieces[2].bytes, 0x2000);
	cr_assert_eq(split_ring_device_read(&device, &buffer, 0, bytes, sizeof(bytes)), 24);
	cr_assert_eq(memcmp(bytes, "aaaaaaaabbbbbbbbcccccccc", 24), 0);
	cr_assert_eq(split_ring_device_read(&device, &buffer, 6, bytes, 5), 5);
	cr_assert_eq(memcmp(bytes, "aabbb", 5), 0);
}

Test(ring, an_index_that_jumps_ends_the_ring, .fini = end)
{
	begin(0);
	split_ring_store_index(guest.parts.available, SIZE + 1);
	cr_assert_eq(split_ring_device_take(&device, &buffer), -VMEM_EIO);
	split_ring_store_index(guest.parts.available, 0);
	cr_assert_eq(split_ring_device_take(&device, &buffer), -VMEM_EIO);
	cr_assert_eq(split_ring_device_listen(&device), false);
}

Test(ring, more_buffers_than_entries_end_the_ring, .fini = end)
{
	begin(0);
	describe(0, GUEST_GPA, 1, 0, 0);
	for (uint32_t i = 0; i < SIZE; i++) {
		offer(0); /* again and again: each is returned once */
		cr_assert_eq(split_ring_device_take(&device, &buffer), 1);
	}
	offer(0);
	cr_assert_eq(split_ring_device_take(&device, &buffer), -VMEM_EIO);
	for (uint32_t i = 0; i < 2 * SIZE; i++)
		split_ring_device_return(&device, 0, 0);
	cr_assert_eq(split_ring_load_index(guest.parts.used), SIZE);
}

Test(ring, a_head_that_is_no_descriptor_ends_the_ring, .fini = end)
{
	begin(0);
	offer(SIZE);
	cr_assert_eq(split_ring_device_take(&device, &buffer), -VMEM_EIO);
}

static void describe_in_table(uint32_t i, uint32_t flags, uint32_t next)
{
	struct split_ring_descriptor *table = guest_at(&guest, GUEST_GPA + DATA_AT);

	table[i] = (struct split_ring_descriptor){ GUEST_GPA + DATA_AT + 4096 + 8 * i, 8,
						   (uint16_t)flags, (uint16_t)next };
}

Test(ring, a_table_of_descriptors_is_followed_if_that_was_agreed, .fini = end)
{
	begin(SPLIT_RING_F_INDIRECT);
	describe_in_table(0, SPLIT_RING_D_NEXT, 2);
	describe_in_table(2, SPLIT_RING_D_WRITE, 0);
	describe(0, GUEST_GPA, 4, SPLIT_RING_D_NEXT, 1);
	describe(1, GUEST_GPA + DATA_AT, 48, SPLIT_RING_D_INDIRECT | SPLIT_RING_D_WRITE, 0);
	offer(0);
	cr_assert_eq(split_ring_device_take(&device, &buffer), 1);
	cr_assert_eq(buffer.readable, 2);
	cr_assert_eq(buffer.writable, 1);
	cr_assert_eq(buffer.readable_bytes, 12);
	split_ring_device_return(&device, buffer.head, 0);
	device.o.features = 0;
	expect_malformed();
}

Test(ring, a_bad_table_is_refused, .fini = end)
{
	static const struct {
		uint64_t gpa;
		uint32_t bytes, flags;
	} bad[] = {
		{ GUEST_GPA + DATA_AT, 0, SPLIT_RING_D_INDIRECT },
		{ GUEST_GPA + DATA_AT, 24, SPLIT_RING_D_INDIRECT },
		{ GUEST_GPA + DATA_AT, 48, SPLIT_RING_D_INDIRECT | SPLIT_RING_D_NEXT },
		{ GUEST_GPA + ROW_BYTES - 16, 32, SPLIT_RING_D_INDIRECT }, /* not in one row */
		{ GUEST_END - 16, 32, SPLIT_RING_D_INDIRECT },
		{ 0, 16, SPLIT_RING_D_INDIRECT },
		{ UINT64_MAX - 7, 16, SPLIT_RING_D_INDIRECT },
		{ GUEST_GPA + DATA_AT, UINT32_MAX & ~15u, SPLIT_RING_D_INDIRECT },
	};
	struct split_ring_descriptor *table;

	begin(SPLIT_RING_F_INDIRECT);
	describe_in_table(0, 0, 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		describe(0, bad[i].gpa, bad[i].bytes, bad[i].flags, 1);
		describe(1, GUEST_GPA, 4, 0, 0);
		expect_malformed();
	}
	describe(0, GUEST_GPA + DATA_AT, 48, SPLIT_RING_D_INDIRECT, 0);
	table = guest_at(&guest, GUEST_GPA + DATA_AT);
	table[0] = (struct split_ring_descriptor){ GUEST_GPA + DATA_AT + 4096, 16,
						   SPLIT_RING_D_INDIRECT, 0 };
	expect_malformed();                         /* a table in a table */
	describe_in_table(0, SPLIT_RING_D_NEXT, 3); /* beyond its end */
	expect_malformed();
	describe_in_table(0, SPLIT_RING_D_NEXT, 0);
	expect_malformed();
}

Test(ring, a_driver_takes_back_only_what_it_gave, .fini = end)
{
	static const struct vmem_balloon_piece given[2] = { { GUEST_GPA, 8 }, { GUEST_GPA, 8 } };
	struct split_ring_slot slots[SIZE];
	struct split_ring_driver driver;
	uint32_t *used, token, written;

	begin(0);
	used = guest.parts.used;
	cr_assert_eq(split_ring_driver_start(&driver, &guest.parts, slots, 0), 0);
	cr_assert_eq(split_ring_driver_add(&driver, given, 1, 1, 7), 0); /* entries 0 and 1 */
	cr_assert_eq(split_ring_driver_take(&driver, &token, &written), 0);
	used[1] = 1; /* of the chain, not its head */
	used[3] = SIZE;
	used[5] = UINT32_MAX;
	used[7] = 0;
	used[8] = 5;
	used[9] = 0; /* a second time */
	split_ring_store_index(guest.parts.used, 5);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(split_ring_driver_take(&driver, &token, &written), -VMEM_EBADMSG);
	cr_assert_eq(split_ring_driver_take(&driver, &token, &written), 1);
	cr_assert_eq(token, 7);
	cr_assert_eq(written, 5);
	cr_assert_eq(split_ring_driver_take(&driver, &token, &written), -VMEM_EBADMSG);
	cr_assert_eq(split_ring_driver_take(&driver, &token, &written), 0);
	cr_assert_eq(driver.free_count, SIZE);
}

Test(ring, a_driver_says_what_does_not_fit, .fini = end)
{
	struct vmem_balloon_piece given[SIZE + 1] = { { 0, UINT64_C(1) << 32 } };
	struct split_ring_slot slots[SIZE];
	struct split_ring_driver driver;

	begin(0);
	cr_assert_eq(split_ring_driver_start(&driver, &guest.parts, slots, 0), 0);
	cr_assert_eq(split_ring_driver_add(&driver, given, 0, 0, 0), -VMEM_EINVAL);
	cr_assert_eq(split_ring_driver_add(&driver, given, 1, 0, 0), -VMEM_EINVAL);
	cr_assert_eq(split_ring_driver_add(&driver, given, 1, SIZE, 0), -VMEM_ENOSPC);
	cr_assert_eq(split_ring_driver_add(&driver, given, UINT32_MAX, 2, 0), -VMEM_EINVAL);
	given[0].bytes = UINT32_MAX;
	cr_assert_eq(split_ring_driver_add(&driver, given, 1, SIZE - 1, 0), 0);
	cr_assert_eq(split_ring_driver_add(&driver, given, 1, 0, 0), -VMEM_ENOSPC);
}

/* Without and with events: told once of what is new, and not when that is not wanted. */
static void expect_notifications(uint64_t features)
{
	static const struct vmem_balloon_piece given = { GUEST_GPA, 8 };
	struct split_ring_slot slots[SIZE];
	struct split_ring_driver driver;
	uint32_t token, written;

	begin(features);
	cr_assert_eq(split_ring_driver_start(&driver, &guest.parts, slots, features), 0);
	for (uint32_t i = 0; i < 70000; i++) { /* also when 16 bits come to their end */
		cr_assert_not(split_ring_driver_must_kick(&driver));
		cr_assert_not(split_ring_device_listen(&device));
		cr_assert_eq(split_ring_driver_add(&driver, &given, 1, 0, i), 0);
		cr_assert(split_ring_driver_must_kick(&driver));
		cr_assert_not(split_ring_driver_must_kick(&driver));
		cr_assert(split_ring_device_listen(&device));
		cr_assert_eq(split_ring_device_take(&device, &buffer), 1);
		split_ring_device_be_quiet(&device);
		cr_assert_eq(split_ring_driver_add(&driver, &given, 1, 0, i), 0);
		cr_assert_not(split_ring_driver_must_kick(&driver));
		cr_assert_not(split_ring_driver_listen(&driver));
		split_ring_device_return(&device, buffer.head, 0);
		cr_assert(split_ring_device_must_notify(&device));
		cr_assert_not(split_ring_device_must_notify(&device));
		cr_assert(split_ring_driver_listen(&driver));
		cr_assert_eq(split_ring_driver_take(&driver, &token, &written), 1);
		cr_assert_eq(token, i);
		split_ring_driver_be_quiet(&driver);
		cr_assert_eq(split_ring_device_take(&device, &buffer), 1);
		split_ring_device_return(&device, buffer.head, 0);
		cr_assert_not(split_ring_device_must_notify(&device));
		cr_assert_eq(split_ring_driver_take(&driver, &token, &written), 1);
	}
}

Test(ring, who_wants_no_notifications_gets_none, .fini = end)
{
	expect_notifications(0);
}

Test(ring, who_wants_no_notifications_gets_none_with_events, .fini = end)
{
	expect_notifications(SPLIT_RING_F_EVENT_IDX);
}
