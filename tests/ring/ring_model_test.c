/* SPDX-License-Identifier: BSD-2-Clause */
/* A driver and a device at one ring, in any order: each buffer arrives as it was given, once, and comes back once. */
#include <criterion/criterion.h>

#include "ring_tools.h"
#include "support/rng.h"

enum { STEPS = 200000, CHAIN = 5, TOKENS = 1024 };

/* A buffer of the driver. Pieces lie anywhere in the upper parts of memory. */
struct given {
	struct vmem_balloon_piece pieces[CHAIN];
	uint32_t readable, writable;
	uint32_t written;
	enum { FREE, MADE, TAKEN, RETURNED } stage;
};

struct model {
	struct guest guest;
	struct split_ring_device device;
	struct split_ring_driver driver;
	struct split_ring_slot *slots;
	struct given given[TOKENS]; /* by token */
	uint32_t order[TOKENS];     /* tokens as they were made available */
	uint32_t order_count;
	struct {
		uint32_t token;
		uint16_t head;
	} held[TOKENS]; /* by the device */
	uint32_t held_count;
	uint64_t rng;
};

static void give(struct model *m)
{
	uint32_t token = (uint32_t)(vmemt_rand(&m->rng) % TOKENS);
	struct given *g = &m->given[token];
	uint32_t count, was_free = m->driver.free_count;
	int err;

	if (g->stage != FREE)
		return;
	g->readable = (uint32_t)(vmemt_rand(&m->rng) % (CHAIN + 1));
	g->writable = (uint32_t)(vmemt_rand(&m->rng) % (CHAIN + 1 - g->readable));
	count = g->readable + g->writable;
	for (uint32_t i = 0; i < count; i++)
		g->pieces[i] = (struct vmem_balloon_piece){
			GUEST_GPA + DATA_AT + vmemt_rand(&m->rng) % (ROW_BYTES + 1000),
			vmemt_rand(&m->rng) % 300
		};
	err = split_ring_driver_add(&m->driver, g->pieces, g->readable, g->writable, token);
	cr_assert_eq(err, count == 0 ? -VMEM_EINVAL : count > was_free ? -VMEM_ENOSPC : 0);
	if (err)
		return;
	g->stage = MADE;
	m->order[m->order_count++] = token;
}

static void check_bytes(struct model *m, const struct given *g, const struct split_ring_buffer *b)
{
	uint8_t got[CHAIN * 300];
	uint32_t from = (uint32_t)(vmemt_rand(&m->rng) % 700), at = 0, n = 0;
	int64_t count = split_ring_device_read(&m->device, b, from, got, sizeof(got));

	for (uint32_t i = 0; i < g->readable; i++)
		for (uint64_t k = 0; k < g->pieces[i].bytes; k++, at++)
			if (at >= from)
				cr_assert_eq(got[n++],
					     *(uint8_t *)guest_at(&m->guest, g->pieces[i].gpa + k));
	cr_assert_eq(count, n);
}

static void take(struct model *m)
{
	struct vmem_balloon_piece pieces[CHAIN];
	struct split_ring_buffer b = { .pieces = pieces, .most = CHAIN };
	int got = split_ring_device_take(&m->device, &b);
	struct given *g = &m->given[m->order[0]];

	cr_assert_eq(got, m->order_count != 0);
	if (!got)
		return;
	cr_assert_eq(b.readable, g->readable);
	cr_assert_eq(b.writable, g->writable);
	cr_assert_eq(memcmp(pieces, g->pieces, (b.readable + b.writable) * sizeof(*pieces)), 0);
	check_bytes(m, g, &b);
	g->stage = TAKEN;
	m->held[m->held_count].token = m->order[0];
	m->held[m->held_count++].head = b.head;
	memmove(m->order, m->order + 1, --m->order_count * sizeof(*m->order));
}

/* Out of turn. */
static void put_back(struct model *m)
{
	struct given *g;
	uint32_t i;

	if (!m->held_count)
		return;
	i = (uint32_t)(vmemt_rand(&m->rng) % m->held_count);
	g = &m->given[m->held[i].token];
	g->stage = RETURNED;
	g->written = (uint32_t)vmemt_rand(&m->rng);
	split_ring_device_return(&m->device, m->held[i].head, g->written);
	m->held[i] = m->held[--m->held_count];
}

static void collect(struct model *m)
{
	uint32_t token = TOKENS, written = 0;

	while (split_ring_driver_take(&m->driver, &token, &written) == 1) {
		cr_assert_lt(token, TOKENS);
		cr_assert_eq(m->given[token].stage, RETURNED);
		cr_assert_eq(written, m->given[token].written);
		m->given[token].stage = FREE;
	}
}

static void run(uint32_t size, uint64_t features, uint64_t seed)
{
	struct model *m = calloc(1, sizeof(*m));
	struct split_ring_device_opts opts;

	cr_assert(m && guest_make(&m->guest, size) == 0);
	m->rng = seed;
	m->slots = calloc(size, sizeof(*m->slots));
	cr_assert(m->slots);
	for (uint32_t i = 0; i < ROW_BYTES; i++)
		m->guest.rows[1][i] = (uint8_t)vmemt_rand(&m->rng);
	opts = guest_opts(&m->guest, features);
	cr_assert_eq(split_ring_driver_start(&m->driver, &m->guest.parts, m->slots, features), 0);
	cr_assert_eq(split_ring_device_start(&m->device, &opts), 0);
	for (uint32_t i = 0; i < STEPS; i++)
		switch (vmemt_rand(&m->rng) % 4) {
		case 0: give(m); break;
		case 1: take(m); break;
		case 2: put_back(m); break;
		default: collect(m); break;
		}
	while (m->order_count || m->held_count) {
		if (m->order_count)
			take(m);
		put_back(m);
	}
	collect(m);
	cr_assert_eq(m->driver.free_count, size);
	cr_assert_eq(m->device.malformed, 0);
	free(m->slots);
	guest_free(&m->guest);
	free(m);
}

Test(ring_model, each_buffer_arrives_and_comes_back_once)
{
	static const uint32_t sizes[] = { 1, 2, 8, 64, 1024 };
	uint64_t seed = vmemt_seed("ring_model");

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		run(sizes[i], i % 2 ? SPLIT_RING_F_EVENT_IDX : 0, seed + i);
}

/* As large as they may be, once around. */
Test(ring_model, the_largest_ring_works)
{
	const struct vmem_balloon_piece piece = { GUEST_GPA, 1 };
	struct vmem_balloon_piece got;
	struct split_ring_buffer b = { .pieces = &got, .most = 1 };
	struct split_ring_slot *slots = calloc(SPLIT_RING_MOST, sizeof(*slots));
	struct split_ring_device_opts opts;
	struct split_ring_device device;
	struct split_ring_driver driver;
	struct guest guest;
	uint32_t token, written;

	cr_assert(slots && guest_make(&guest, SPLIT_RING_MOST) == 0);
	opts = guest_opts(&guest, 0);
	cr_assert_eq(split_ring_driver_start(&driver, &guest.parts, slots, 0), 0);
	cr_assert_eq(split_ring_device_start(&device, &opts), 0);
	for (int round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < SPLIT_RING_MOST; i++)
			cr_assert_eq(split_ring_driver_add(&driver, &piece, 1, 0, i), 0);
		cr_assert_eq(split_ring_driver_add(&driver, &piece, 1, 0, 0), -VMEM_ENOSPC);
		while (split_ring_device_take(&device, &b) == 1)
			split_ring_device_return(&device, b.head, 0);
		for (uint32_t i = 0; i < SPLIT_RING_MOST; i++) {
			cr_assert_eq(split_ring_driver_take(&driver, &token, &written), 1);
			cr_assert_eq(token, i);
		}
	}
	free(slots);
	guest_free(&guest);
}
