/* SPDX-License-Identifier: BSD-2-Clause */
/* What the back end has taken comes back once, to the ring that it was taken from: queues stop and start again and the
 * device is reset in the middle of buffers that are taken and not returned, in any order. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <assert.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/rng.h"
#include "support/slow.h"
#include "vhost/turns.h"

enum { INFLATE, DEFLATE, STATS, REPORT };

#define RING 16u
#define MUCH UINT32_C(0x180000) /* bytes: more page numbers than a turn has parts for */

static struct turns t;
static bool by_stopping; /* how the client resets: all stops, and begins at 0 */

/* A queue as the driver knows it. */
static struct queue {
	bool out[RING]; /* the device has the buffer of this number */
	uint16_t given, seen;
} queues[TURNS_QUEUES];

/* --- A driver --- */

/* Whatever the buffers hold makes the device work for it, in many turns or in one. */
static void describe(uint32_t queue, uint16_t head, bool much)
{
	struct split_ring_descriptor d = { TURNS_DATA_AT, much ? MUCH : 1024, 0, 0 };

	if (queue == STATS)
		d.bytes = 10;
	if (queue == REPORT)
		d = (struct split_ring_descriptor){ TURNS_FREE_AT,
						    (uint32_t)(much ? 3 * TURNS_GIB : TURNS_PAGE),
						    SPLIT_RING_D_WRITE, 0 };
	turns_descriptors(&t, queue)[head] = d;
}

static void give(uint32_t queue, uint16_t head, bool much)
{
	struct queue *q = &queues[queue];

	assert(!q->out[head]);
	q->out[head] = true;
	describe(queue, head, much);
	split_ring_store(turns_available(&t, queue), SPLIT_RING_ENTRIES + q->given % RING, head);
	split_ring_store_index(turns_available(&t, queue), ++q->given);
	turns_kick(&t, queue);
}

/* Takes what was returned: each is the device's until then. */
static void look(uint32_t queue)
{
	const uint32_t *used = turns_used(&t, queue);
	struct queue *q = &queues[queue];

	for (uint16_t now = split_ring_load_index(used); q->seen != now; q->seen++) {
		uint32_t head = used[1 + 2 * (q->seen % RING)];

		assert(head < RING && q->out[head]);
		q->out[head] = false;
	}
}

static uint32_t count_out(uint32_t queue)
{
	uint32_t count = 0;

	look(queue);
	for (uint32_t i = 0; i < RING; i++)
		count += queues[queue].out[i];
	return count;
}

static void turn(void)
{
	if (turns_is_busy(&t))
		turns_turn(&t);
	assert(t.server.has_client);
	for (uint32_t i = 0; i < TURNS_QUEUES; i++)
		look(i);
}

/* --- A ring's lives --- */

/* An empty ring; nothing of the one before comes to it. */
static void clear(uint32_t queue)
{
	queues[queue] = (struct queue){ .given = 0 };
	split_ring_store_index(turns_available(&t, queue), 0);
	split_ring_store_index(turns_used(&t, queue), 0);
}

static void start(uint32_t queue, uint16_t base)
{
	turns_place(&t, queue, RING, base);
	turns_enable(&t, queue);
}

static uint16_t stop(uint32_t queue)
{
	const struct vhost_vring_state which = { queue, 0 };
	struct vhost_message m;

	turns_send(&t, VHOST_GET_VRING_BASE, &which, sizeof(which), -1);
	while (!turns_take_answer(&t, &m))
		turn();
	assert(m.header.request == VHOST_GET_VRING_BASE && m.payload.state.index == queue);
	/* What was taken and not returned is to be taken again. */
	assert(m.payload.state.number == split_ring_load_index(turns_used(&t, queue)));
	return (uint16_t)m.payload.state.number;
}

static void start_all(void)
{
	for (uint32_t i = 0; i < TURNS_QUEUES; i++) {
		clear(i);
		start(i, 0);
	}
}

/* And begins anew, with empty rings. */
static void reset(void)
{
	if (by_stopping)
		for (uint32_t i = 0; i < TURNS_QUEUES; i++)
			(void)stop(i);
	else
		turns_send(&t, VHOST_RESET_DEVICE, NULL, 0, -1);
	turns_settle(&t);
	for (uint32_t i = 0; i < TURNS_QUEUES; i++)
		look(i);
	start_all();
}

static void ask_stats(void)
{
	(void)vmem_balloon_ask_stats(t.server.client.balloon);
	turns_kick(&t, STATS); /* a turn in which it is returned */
	turn();
}

static void begin(bool stopping)
{
	uint32_t *numbers;

	turns_begin(&t);
	numbers = (uint32_t *)(void *)(t.map + TURNS_DATA_AT);
	by_stopping = stopping;
	for (uint32_t i = 0; i < MUCH / sizeof(*numbers); i++)
		numbers[i] = (uint32_t)(TURNS_FREE_AT / TURNS_PAGE) + i;
	turns_set_up(&t, VHOST_PROTOCOL_F_RESET_DEVICE);
	start_all();
}

/* In the end all comes back, but the one that waits for a question; and that too. */
static void end(void)
{
	if (!count_out(STATS))
		give(STATS, 0, false);
	turns_settle(&t);
	for (uint32_t i = 0; i < TURNS_QUEUES; i++)
		assert(count_out(i) == (i == STATS));
	ask_stats();
	assert(!count_out(STATS));
	turns_end(&t);
}

/* --- Cases --- */

/* The buffer of statistics is held; its queue goes on where it was, and is asked once. */
static void held(void)
{
	uint16_t base;

	begin(false);
	give(STATS, 3, false);
	turns_settle(&t);
	assert(count_out(STATS) == 1);
	base = stop(STATS);
	assert(base == 0);
	ask_stats(); /* nobody is there to be asked */
	assert(count_out(STATS) == 1);
	start(STATS, base);
	ask_stats();
	assert(!count_out(STATS) && queues[STATS].seen == 1);
	ask_stats();
	assert(split_ring_load_index(turns_used(&t, STATS)) == 1);
	end();
}

/* It is held, and what comes afterwards is another ring. */
static void held_and_reset(bool stopping)
{
	begin(stopping);
	give(STATS, 3, false);
	turns_settle(&t);
	reset();
	ask_stats();
	assert(split_ring_load_index(turns_used(&t, STATS)) == 0);
	give(STATS, 5, false);
	turns_settle(&t);
	assert(count_out(STATS) == 1);
	ask_stats();
	assert(!count_out(STATS) && queues[STATS].seen == 1);
	end();
}

static void until_in_work(void)
{
	while (!t.server.client.part) {
		assert(turns_is_busy(&t));
		turn();
	}
}

/* A buffer is in work: the answer waits for it, and those behind it wait for the queue. */
static void in_work(uint32_t queue)
{
	uint16_t base;

	begin(false);
	give(queue, 0, true);
	give(queue, 1, true);
	give(queue, 2, true);
	until_in_work();
	base = stop(queue);
	assert(base >= 1 && base <= 3);
	turns_settle(&t);
	assert(split_ring_load_index(turns_used(&t, queue)) == base);
	start(queue, base);
	turns_settle(&t);
	assert(!count_out(queue) && queues[queue].seen == 3);
	end();
}

static void in_work_and_reset(uint32_t queue, bool stopping)
{
	begin(stopping);
	give(queue, 0, true);
	give(queue, 1, true);
	until_in_work();
	reset();
	turns_settle(&t);
	assert(split_ring_load_index(turns_used(&t, queue)) == 0);
	give(queue, 0, false);
	turns_settle(&t);
	assert(queues[queue].given == split_ring_load_index(turns_used(&t, queue)));
	end();
}

/* After a reset nothing is taken from a queue before it is switched on. */
static void switched_on(void)
{
	begin(false);
	turns_send(&t, VHOST_RESET_DEVICE, NULL, 0, -1);
	turns_settle(&t);
	for (uint32_t i = 0; i < TURNS_QUEUES; i++) {
		clear(i);
		turns_place(&t, i, RING, 0);
	}
	give(INFLATE, 0, false);
	turns_settle(&t);
	assert(count_out(INFLATE) == 1);
	for (uint32_t i = 0; i < TURNS_QUEUES; i++)
		turns_enable(&t, i);
	turns_settle(&t);
	assert(!count_out(INFLATE));
	end();
}

static struct vmem_balloon_progress progress(void)
{
	struct vmem_balloon_progress p = { .size = sizeof(p) };

	assert(vmem_balloon_get_progress(t.server.client.balloon, &p) == 0);
	return p;
}

static uint16_t stopped_at[TURNS_QUEUES];

static void stop_all(void)
{
	for (uint32_t i = 0; i < TURNS_QUEUES; i++)
		stopped_at[i] = stop(i);
}

/* What a client says that pauses and goes on; it says all but the rings' indices when its guest has rebooted, too. */
static void go_on(bool anew)
{
	turns_set_up(&t, VHOST_PROTOCOL_F_RESET_DEVICE);
	for (uint32_t i = 0; i < TURNS_QUEUES; i++) {
		if (anew)
			clear(i);
		start(i, anew ? 0 : stopped_at[i]);
	}
	turns_settle(&t);
}

/* The balloon holds what it held, and the driver is told then of the target that has changed. */
static void paused(void)
{
	struct vmem_balloon_counters c = { .size = sizeof(c) };
	struct vhost_header told;
	int ends[2];

	begin(false);
	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
	turns_send(&t, VHOST_SET_BACKEND_REQ_FD, NULL, 0, ends[1]);
	close(ends[1]);
	give(STATS, 3, false);
	give(INFLATE, 0, false);
	turns_settle(&t);
	assert(progress().pages == 256 && recv(ends[0], &told, sizeof(told), 0) == sizeof(told));
	stop_all();
	turns_tell(&t, 0, "target 2M\n");
	while (turns_told(&t, 0) < 0)
		turns_turn(&t);
	assert(t.server.client.config_due && recv(ends[0], &told, sizeof(told), 0) < 0);
	go_on(false);
	assert(recv(ends[0], &told, sizeof(told), 0) == sizeof(told));
	close(ends[0]);
	assert(progress().driver && progress().pages == 256);
	give(DEFLATE, 0, false);
	turns_settle(&t);
	assert(vmem_balloon_get_counters(t.server.client.balloon, &c) == 0);
	assert(c.deflated == 256 && !c.not_inflated && !c.resets && !progress().pages);
	end();
}

/* All memory is the guest's again, and the driver that comes is served. */
static void another_driver_comes(void)
{
	go_on(true);
	assert(progress().driver && !progress().pages);
	give(INFLATE, 0, false);
	turns_settle(&t);
	assert(progress().pages == 256);
	end();
}

static void rebooted(void)
{
	begin(false);
	give(INFLATE, 0, false);
	turns_settle(&t);
	stop_all();
	another_driver_comes();
}

/* User-Mode Linux stops nothing when its driver goes: the next one's rings begin anew, in the middle of a buffer too. */
static void reloaded(void)
{
	for (uint32_t turns = 0; turns < 6; turns++) {
		begin(false);
		give(INFLATE, 0, false);
		give(DEFLATE, 0, false);
		for (uint32_t i = 0; i < turns; i++)
			turn();
		another_driver_comes();
	}
}

/* So it is when a driver with other features comes, wherever its rings go on. */
static void other_features(void)
{
	const uint64_t features = VMEM_VIRTIO_F_VERSION_1 | VHOST_F_PROTOCOL_FEATURES;

	begin(false);
	give(INFLATE, 0, false);
	turns_settle(&t);
	stop_all();
	turns_send(&t, VHOST_SET_FEATURES, &features, sizeof(features), -1);
	turns_settle(&t);
	assert(t.server.has_client && !progress().driver && !progress().pages);
	turns_end(&t);
}

static void any_give(uint64_t *random)
{
	uint32_t queue = (uint32_t)(vmemt_rand(random) % TURNS_QUEUES);
	uint16_t head = (uint16_t)(vmemt_rand(random) % RING);

	if (!queues[queue].out[head])
		give(queue, head, vmemt_rand(random) % 8 == 0);
}

/* The same ring again, or another one. */
static void any_stop(uint64_t *random)
{
	uint32_t queue = (uint32_t)(vmemt_rand(random) % TURNS_QUEUES);
	uint16_t base = stop(queue);

	for (uint64_t n = vmemt_rand(random) % 3; n; n--)
		turn();
	look(queue);
	if (vmemt_rand(random) % 2) {
		clear(queue);
		base = 0;
	}
	start(queue, base);
}

static void any_order(uint64_t *random, bool stopping)
{
	int steps = VMEMT_SLOW ? 500 : 3000;

	begin(stopping);
	for (int i = 0; i < steps; i++)
		switch (vmemt_rand(random) % 16) {
		case 0: any_stop(random); break;
		case 1: reset(); break;
		case 2: ask_stats(); break;
		case 3:
		case 4:
		case 5:
		case 6: turn(); break;
		default: any_give(random); break;
		}
	end();
}

int main(void)
{
	uint64_t random = vmemt_seed("vhost_return");

	held();
	held_and_reset(false);
	held_and_reset(true);
	for (uint32_t queue = INFLATE; queue <= DEFLATE; queue++) {
		in_work(queue);
		in_work_and_reset(queue, false);
		in_work_and_reset(queue, true);
	}
	switched_on();
	paused();
	rebooted();
	reloaded();
	other_features();
	any_order(&random, false);
	any_order(&random, true);
	return 0;
}
