/* SPDX-License-Identifier: BSD-2-Clause */
/* Any messages, in any order, with what may be in rings between them, for the back end of a vhost-user balloon: in one
 * process, over a socket. No descriptor is left open, and nothing waits. The first byte of a step says what it is. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/fuzz_input.h"
#include "support/send_fds.h"
#include "vhost-user-balloon/vhost_client.h"
#include "vhost-user-balloon/vhost_closer.h"

#define BYTES UINT64_C(0x40000) /* of memory */
#define GPA UINT64_C(0x100000)
#define USER UINT64_C(0x7f0000000000)
#define RING_AT(queue) ((queue)*UINT64_C(4096))
#define MOST_STEPS 256
#define MOST_OPEN 96 /* descriptors that are looked at */

enum step {
	STEP_MESSAGE,
	STEP_BYTES,
	STEP_MEMORY,
	STEP_KICK,
	STEP_SET_UP,
	STEP_CUT,
	STEP_TARGET,
	STEPS
};

static struct vhost_client client;
static int memory, kicks[VHOST_QUEUES], other, ours, theirs, requests[2];
static const char *over;
static uint64_t now;

static void on_event(void *context, int event)
{
	(void)context;
	require(event >= 0 && event < 16);
}

/* Until it has nothing more to do; that comes soon. */
static void serve(void)
{
	for (int i = 0; i < 10000 && !over; i++) {
		struct pollfd fds[VHOST_CLIENT_FDS];
		uint32_t count = vhost_client_fds(&client, fds);

		if (poll(fds, count, 0) == 0 && !vhost_client_is_busy(&client))
			return;
		now += 1000000;
		over = vhost_client_serve(&client, fds, now);
	}
	require(over != NULL);
}

/* Nothing of the answers is looked at, but they are taken away. */
static void send_bytes(const void *bytes, size_t count, const int *fds, uint32_t fd_count)
{
	char answer[512];

	(void)!vmemt_send_fds(theirs, bytes, count, fds, fd_count, MSG_NOSIGNAL | MSG_DONTWAIT);
	serve();
	while (recv(theirs, answer, sizeof(answer), MSG_DONTWAIT) > 0)
		;
}

static void message(uint32_t request, uint32_t flags, const void *payload, uint32_t size,
		    const int *fds, uint32_t fd_count)
{
	struct vhost_message m = { .header = { request, VHOST_VERSION | flags, size } };
	uint8_t bytes[sizeof(m.header) + sizeof(m.payload.bytes)];

	memcpy(bytes, &m.header, sizeof(m.header));
	memcpy(bytes + sizeof(m.header), payload, size);
	send_bytes(bytes, sizeof(m.header) + size, fds, fd_count);
}

/* Sizes that pass, mostly. */
static void any_message(struct input *in)
{
	static const uint8_t sizes[] = { 0, 8, 8, 8, 40, 72, 16, 20, 28, 40 };
	uint32_t request = (uint32_t)take(in, 1) % 42, form = (uint32_t)take(in, 1);
	uint32_t size = sizes[form % 10], fd_count = (form / 10) % 3;
	struct vhost_message m = { 0 };
	int fds[2] = { memory, memory };

	if (request == VHOST_SET_VRING_KICK || request == VHOST_SET_VRING_CALL)
		fds[0] = kicks[form % VHOST_QUEUES];
	else if (request == VHOST_SET_BACKEND_REQ_FD)
		fds[0] = requests[0];
	else if (request != VHOST_SET_MEM_TABLE)
		fds[0] = other;
	for (uint32_t i = 0; i < size; i++)
		m.payload.bytes[i] = (uint8_t)take(in, 1);
	message(request, form & 0x80 ? VHOST_NEED_REPLY : 0, m.payload.bytes, size, fds, fd_count);
}

static void any_bytes(struct input *in)
{
	uint8_t bytes[32];
	size_t count = 1 + take(in, 1) % sizeof(bytes);
	const int fds[9] = { other, other, other, other, other, other, other, other, other };
	uint32_t fd_count = (uint32_t)take(in, 1) % 32;

	for (size_t i = 0; i < count && i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)take(in, 1);
	send_bytes(bytes, count, fds, fd_count < 10 ? fd_count : 0);
}

static void any_memory(struct input *in)
{
	uint8_t bytes[64];
	uint64_t at = take(in, 3) % (BYTES - sizeof(bytes));
	size_t count = 1 + take(in, 1) % sizeof(bytes);

	for (size_t i = 0; i < count && i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)take(in, 1);
	(void)!pwrite(memory, bytes, count, (off_t)at);
}

static void kick(uint32_t queue)
{
	(void)!write(kicks[queue % VHOST_QUEUES], &(uint64_t){ 1 }, 8);
	serve();
}

static void set_up_queue(uint64_t queue)
{
	const struct vhost_vring_state size = { (uint32_t)queue, 16 }, on = { (uint32_t)queue, 1 };
	const uint64_t at = USER + RING_AT(queue);
	const struct vhost_vring_address address = { .index = (uint32_t)queue,
						     .descriptors = at,
						     .used = at + 1024,
						     .available = at + 2048 };

	message(VHOST_SET_VRING_NUM, 0, &size, sizeof(size), NULL, 0);
	message(VHOST_SET_VRING_ADDR, 0, &address, sizeof(address), NULL, 0);
	message(VHOST_SET_VRING_CALL, 0, &queue, sizeof(queue), &other, 1);
	message(VHOST_SET_VRING_KICK, 0, &queue, sizeof(queue), &kicks[queue], 1);
	message(VHOST_SET_VRING_ENABLE, 0, &on, sizeof(on), NULL, 0);
}

static void set_up(uint64_t features)
{
	const struct vhost_table table = { .count = 1, .region = { { GPA, BYTES, USER, 0 } } };

	features |= VMEM_VIRTIO_F_VERSION_1 | VHOST_F_PROTOCOL_FEATURES;
	message(VHOST_SET_FEATURES, 0, &features, sizeof(features), NULL, 0);
	message(VHOST_SET_MEM_TABLE, 0, &table, 40, &memory, 1);
	for (uint64_t i = 0; i < 4; i++)
		set_up_queue(i);
}

static void step(struct input *in)
{
	switch (take(in, 1) % STEPS) {
	case STEP_MESSAGE: any_message(in); break;
	case STEP_BYTES: any_bytes(in); break;
	case STEP_MEMORY: any_memory(in); break;
	case STEP_KICK: kick((uint32_t)take(in, 1)); break;
	case STEP_SET_UP: set_up(take(in, 1) & 0x37); break;
	case STEP_CUT: (void)!ftruncate(memory, (off_t)(take(in, 1) * 4096 % BYTES)); break;
	default:
		(void)vhost_client_set_target(&client, take(in, 1), take(in, 1), now);
		serve();
		break;
	}
}

static void make_files(void)
{
	memory = memfd_create("fuzz", MFD_CLOEXEC);
	other = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (uint32_t i = 0; i < VHOST_QUEUES; i++)
		kicks[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	require(memory >= 0 && other >= 0 && kicks[VHOST_QUEUES - 1] >= 0);
}

static int count_open(void)
{
	int count = 0;

	for (int fd = 0; fd < MOST_OPEN; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const struct vhost_client_opts opts = { .features = 0x37,
						       .map = VMEM_BALLOON_MAP_NEGOTIATED,
						       .most_memory = UINT64_C(1) << 30,
						       .event = on_event };
	struct input in = { data, bytes };
	int ends[2], open_before = count_open();

	make_files();
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, requests) == 0);
	require(ftruncate(memory, (off_t)BYTES) == 0);
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
	ours = ends[0];
	theirs = ends[1];
	now = 1;
	over = vhost_client_begin(&client, &opts, ours);
	require(!over);
	for (int i = 0; i < MOST_STEPS && in.left && !over; i++)
		step(&in);
	vhost_client_end(&client);
	while (vhost_closer_count())
		sched_yield();
	close(theirs);
	close(requests[0]);
	close(requests[1]);
	close(memory);
	close(other);
	for (uint32_t i = 0; i < VHOST_QUEUES; i++)
		close(kicks[i]);
	require(count_open() == open_before);
	return 0;
}
