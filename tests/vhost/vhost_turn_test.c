/* SPDX-License-Identifier: BSD-2-Clause */
/* What a turn of the back end does for a client is bounded, whatever fills its queues and however often it kicks; and
 * between two turns commands are answered. Work is counted by what it leaves: counters of the balloon, and rings. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/rng.h"
#include "support/slow.h"
#include "vhost/turns.h"

enum { INFLATE, DEFLATE, STATS, REPORT };

#define RING SPLIT_RING_MOST
#define SECOND_NS UINT64_C(1000000000)
#define CHAIN VHOST_PIECES /* descriptors of the longest */

/* Of a turn: parts, each of so many page numbers or pages; buffers of a queue, and those that it came back to. */
#define PARTS UINT64_C(16)
#define NUMBERS ((uint64_t)VMEM_BALLOON_WORK_ENTRIES)
#define PAGES ((uint64_t)VMEM_BALLOON_WORK_PAGES)
#define BUFFERS (64 + 2)
#define MESSAGES 16
/* In so many turns each queue is looked at: no buffer here has more parts than a chain has pieces. */
#define TURNS_TO_STATS (3 * (CHAIN / PARTS + 2))

static struct turns t;
static atomic_bool over; /* says to refill_on() */
static uint64_t random_state;

/* --- What was done --- */

struct work {
	uint64_t numbers, pages; /* that were looked at */
	uint16_t returned[TURNS_QUEUES];
};

static struct work look(void)
{
	struct vmem_balloon_counters c = { .size = sizeof(c) };
	struct work w;

	assert(vmem_balloon_get_counters(t.server.client.balloon, &c) == 0);
	w.numbers = c.inflated + c.inflated_twice + c.deflated + c.not_inflated;
	w.pages = c.reported + c.free_inflated;
	for (uint32_t i = 0; i < TURNS_QUEUES; i++)
		w.returned[i] = split_ring_load_index(turns_used(&t, i));
	return w;
}

/* A turn within its bounds. Returns what of them it took, of PARTS * PAGES; adds the buffers it returned. */
static uint64_t turn(uint64_t *returned)
{
	struct work before = look(), after;
	uint64_t took;

	turns_turn(&t);
	after = look();
	took = (after.numbers - before.numbers) * (PAGES / NUMBERS) + after.pages - before.pages;
	assert(took <= PARTS * PAGES);
	for (uint32_t i = 0; i < TURNS_QUEUES; i++) {
		uint16_t n = (uint16_t)(after.returned[i] - before.returned[i]);

		assert(n <= BUFFERS);
		returned[i] += n;
	}
	return took;
}

/* --- What a queue is flooded with --- */

/* Buffers, by the descriptor that they begin with. */
enum { WHOLE, LONG, ENTRY, NOTHING, CIRCLE, INDIRECT, OUTSIDE, WRONG_WAY, SCATTERED, KINDS };
#define HEAVY 2 /* the first ones */
#define AT(kind) ((uint16_t)((kind)*CHAIN))

static void describe(uint32_t queue, uint32_t at, uint64_t gpa, uint64_t bytes, uint16_t flags,
		     uint32_t next)
{
	turns_descriptors(&t, queue)[at] = (struct split_ring_descriptor){
		gpa, (uint32_t)bytes, (uint16_t)(flags ^ (queue == REPORT) * SPLIT_RING_D_WRITE),
		(uint16_t)next
	};
}

static void describe_chain(uint32_t queue, uint32_t at, uint64_t gpa, uint64_t bytes,
			   uint64_t stride)
{
	for (uint32_t i = 0; i < CHAIN; i++)
		describe(queue, at + i, gpa + i % 3 * stride, bytes,
			 i + 1 < CHAIN ? SPLIT_RING_D_NEXT : 0, at + i + 1);
}

static void describe_all(uint32_t queue)
{
	bool reports = queue == REPORT;
	uint64_t all = reports ? TURNS_FREE_AT : TURNS_DATA_AT;

	describe(queue, AT(WHOLE), all, reports ? 3 * TURNS_GIB : TURNS_DATA_BYTES, 0, 0);
	describe_chain(queue, AT(LONG), all, reports ? TURNS_GIB : VHOST_COPY / CHAIN,
		       reports ? TURNS_GIB : TURNS_PAGE);
	describe(queue, AT(ENTRY), all, 10, 0, 0);
	describe(queue, AT(NOTHING), all, 0, 0, 0);
	describe(queue, AT(CIRCLE), all, 4, SPLIT_RING_D_NEXT, AT(CIRCLE));
	describe(queue, AT(INDIRECT), all, 16 * RING, SPLIT_RING_D_INDIRECT, 0);
	describe(queue, AT(OUTSIDE), UINT64_C(1) << 43, TURNS_GIB, 0, 0);
	describe(queue, AT(WRONG_WAY), all, TURNS_PAGE, SPLIT_RING_D_WRITE, 0);
	describe_chain(queue, AT(SCATTERED), all, 1, 3 * TURNS_PAGE);
}

/* Page numbers that are RAM, over and over. */
static void fill_data(void)
{
	uint32_t *numbers = (uint32_t *)(void *)(t.map + TURNS_DATA_AT);

	for (uint32_t i = 0; i < TURNS_DATA_BYTES / sizeof(*numbers); i++)
		numbers[i] =
			(uint32_t)(TURNS_FREE_AT / TURNS_PAGE + i % (3 * TURNS_GIB / TURNS_PAGE));
}

/* As many as there is room for, and one kick more than is needed. */
static void refill(uint32_t queue)
{
	uint16_t used = split_ring_load_index(turns_used(&t, queue));

	split_ring_store_index(turns_available(&t, queue), (uint16_t)(used + RING));
	turns_kick(&t, queue);
}

/* Also while a turn is under way. */
static void *refill_on(void *unused)
{
	while (!over)
		for (uint32_t i = 0; i < TURNS_QUEUES; i++)
			refill(i);
	return unused;
}

/* @random: of all kinds; else the one. */
static void put(uint32_t queue, uint32_t i, bool random, uint32_t kind)
{
	uint16_t head = AT(random ? vmemt_rand(&random_state) % KINDS : kind);

	split_ring_store(turns_available(&t, queue), SPLIT_RING_ENTRIES + i, head);
}

static void begin(void)
{
	memset(&t, 0, sizeof(t));
	turns_begin(&t);
	turns_set_up(&t, 0);
	fill_data();
	for (uint32_t i = 0; i < TURNS_QUEUES; i++) {
		describe_all(i);
		turns_place(&t, i, RING, 0);
		turns_enable(&t, i);
	}
}

/* --- Commands meanwhile --- */

static void ask_at_once(uint32_t i)
{
	static const char *const lines[] = { "target 1G\n", "status\n", "target 0 1M\n", "\n" };

	turns_tell(&t, 0, lines[i % 4]);
}

/* @asked: turns since statistics were asked for. */
static void look_at_answers(uint32_t i, uint32_t *asked)
{
	assert(turns_told(&t, 0) == (i % 4 != 3));
	if ((*asked)++ && turns_told(&t, 1) == 1)
		*asked = 0;
	assert(*asked <= TURNS_TO_STATS);
}

/* Turns that are full of it. @return the most that one took */
static uint64_t flood(bool random, uint32_t kind, uint32_t turns, uint64_t *returned)
{
	uint64_t most = 0, took;
	uint32_t asked = 0;

	for (uint32_t queue = 0; queue < TURNS_QUEUES; queue++)
		for (uint32_t i = 0; i < RING; i++)
			put(queue, i, random, kind);
	for (uint32_t i = 0; i < turns; i++) {
		for (uint32_t queue = 0; queue < TURNS_QUEUES; queue++)
			refill(queue);
		ask_at_once(i);
		if (!asked)
			turns_tell(&t, 1, "stats\n");
		took = turn(returned);
		most = took > most ? took : most;
		look_at_answers(i, &asked);
		assert(t.server.has_client);
	}
	return most;
}

/* --- Floods --- */

/* All queues full of what is much work: a turn takes all that it may, and no more; no queue is left out. */
static void heavy(void)
{
	uint32_t turns = VMEMT_SLOW ? 150 : 600;

	for (uint32_t kind = 0; kind < HEAVY; kind++) {
		uint64_t returned[TURNS_QUEUES] = { 0 };

		begin();
		assert(flood(false, kind, turns, returned) >= PARTS * PAGES * 9 / 10);
		for (uint32_t i = 0; i < TURNS_QUEUES; i++)
			assert(returned[i]);
		turns_end(&t);
	}
}

/* ... of what is none, or makes no sense. */
static void light(void)
{
	for (uint32_t kind = HEAVY; kind < KINDS; kind++) {
		uint64_t returned[TURNS_QUEUES] = { 0 };

		begin();
		(void)flood(false, kind, 50, returned);
		for (uint32_t i = 0; i < TURNS_QUEUES; i++)
			assert(returned[i] >= 50);
		turns_end(&t);
	}
}

static void mixed(void)
{
	uint64_t returned[TURNS_QUEUES] = { 0 };
	pthread_t thread;

	begin();
	over = false;
	assert(pthread_create(&thread, NULL, refill_on, NULL) == 0);
	(void)flood(true, 0, VMEMT_SLOW ? 200 : 500, returned);
	over = true;
	pthread_join(thread, NULL);
	turns_end(&t);
}

/* It goes in the middle of a buffer: the next turn is without it. */
static void goes(void)
{
	uint64_t returned[TURNS_QUEUES] = { 0 };

	begin();
	(void)flood(false, WHOLE, 1, returned);
	assert(t.server.client.part);
	shutdown(t.socket, SHUT_RDWR);
	turns_turn(&t);
	assert(!t.server.has_client);
	turns_end(&t);
}

/* Messages without end. */
static void talks(void)
{
	struct vhost_message m;
	int answers, all = 0;

	begin();
	for (int i = 0; i < 3 * MESSAGES; i++)
		turns_send(&t, VHOST_GET_FEATURES, NULL, 0, -1);
	for (int i = 0; i < 3; i++) {
		turns_tell(&t, 0, "status\n");
		turns_turn(&t);
		assert(turns_told(&t, 0) == 1);
		for (answers = 0; turns_take_answer(&t, &m); answers++)
			;
		assert(answers && answers <= MESSAGES);
		all += answers;
	}
	assert(all == 3 * MESSAGES);
	turns_end(&t);
}

/* --- What could not be given back --- */

static struct vmem_discard_counts tried_again(void)
{
	struct vmem_discard_metrics m = { .size = sizeof(m) };

	t.server.tried_again_ns -= SECOND_NS;
	turns_tell(&t, 0, "\n"); /* something to do */
	turns_turn(&t);
	assert(!vmem_discard_get_metrics(t.server.client.discard, &m));
	assert(m.inflated.failed == TURNS_PAGE);
	return m.retried;
}

/* The kernel refuses holes in a file that is sealed. Each second it is tried again, while there is a driver. */
static void refused(void)
{
	const struct vhost_vring_state inflate = { INFLATE, 0 };

	begin();
	t.map[TURNS_FREE_AT] = 1;
	assert(!fcntl(t.memory, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	describe(INFLATE, AT(ENTRY), TURNS_DATA_AT, 4, 0, 0);
	put(INFLATE, 0, false, ENTRY);
	split_ring_store_index(turns_available(&t, INFLATE), 1);
	turns_kick(&t, INFLATE);
	turns_settle(&t);
	for (uint64_t i = 1; i <= 3; i++)
		assert(tried_again().failed == i * TURNS_PAGE);
	turns_tell(&t, 0, "\n"); /* not a second later */
	turns_turn(&t);
	turns_send(&t, VHOST_GET_VRING_BASE, &inflate, sizeof(inflate), -1);
	turns_settle(&t);
	assert(tried_again().asked == 3 * TURNS_PAGE);
	turns_end(&t);
}

int main(void)
{
	random_state = vmemt_seed("vhost_turn");
	heavy();
	light();
	mixed();
	goes();
	talks();
	refused();
	return 0;
}
