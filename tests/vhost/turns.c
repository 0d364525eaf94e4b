/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "turns.h"

#include <assert.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/send_fds.h"

#define USER UINT64_C(0x7f0000000000)
#define RING_AT(queue) ((queue)*UINT64_C(0x100000))
#define AVAILABLE_AT UINT64_C(0x80000)
#define USED_AT UINT64_C(0xa0000)
#define FEATURES                                                                                   \
	(VMEM_BALLOON_F_MUST_TELL_HOST | VMEM_BALLOON_F_STATS_VQ | VMEM_BALLOON_F_PAGE_REPORTING | \
	 VMEM_VIRTIO_F_VERSION_1)
#define TURN_NS 1000000

static uint64_t now_ns;

/* The server's clock. */
uint64_t vhost_now_ns(void)
{
	return now_ns += TURN_NS;
}

static void connect_client(struct turns *t)
{
	int ends[2];

	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
	t->socket = ends[0];
	assert(!vhost_client_begin(&t->server.client, &t->server.o.client, ends[1]));
	t->server.has_client = true;
}

static void connect_commanders(struct turns *t)
{
	int ends[2];

	vhost_control_begin(&t->control, -1);
	for (uint32_t i = 0; i < TURNS_COMMANDERS; i++) {
		assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) ==
		       0);
		t->command[i] = ends[0];
		t->control.peer[i].fd = ends[1];
	}
}

void turns_begin(struct turns *t)
{
	memset(t, 0, sizeof(*t));
	t->server.o = (struct vhost_options){ .quiet = true,
					      .client = { .features = FEATURES,
							  .map = VMEM_BALLOON_MAP_NEGOTIATED,
							  .most_memory = TURNS_BYTES } };
	vhost_server_begin(&t->server);
	connect_client(t);
	connect_commanders(t);
	t->memory = memfd_create("turns", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert(t->memory >= 0 && ftruncate(t->memory, (off_t)TURNS_BYTES) == 0);
	t->map = mmap(NULL, TURNS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		      t->memory, 0);
	assert(t->map != MAP_FAILED);
	for (uint32_t i = 0; i < TURNS_QUEUES; i++) {
		t->kick[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		assert(t->kick[i] >= 0);
	}
}

void turns_end(struct turns *t)
{
	close(t->socket);
	vhost_server_end(&t->server);
	vhost_control_end(&t->control);
	for (uint32_t i = 0; i < TURNS_COMMANDERS; i++)
		close(t->command[i]);
	for (uint32_t i = 0; i < TURNS_QUEUES; i++)
		close(t->kick[i]);
	munmap(t->map, TURNS_BYTES);
	close(t->memory);
}

void turns_send(struct turns *t, uint32_t request, const void *payload, uint32_t size, int fd)
{
	const struct vhost_header header = { request, VHOST_VERSION, size };
	uint8_t bytes[sizeof(header) + sizeof(struct vhost_table)];

	assert(size <= sizeof(struct vhost_table));
	memcpy(bytes, &header, sizeof(header));
	if (size)
		memcpy(bytes + sizeof(header), payload, size);
	assert(vmemt_send_fds(t->socket, bytes, sizeof(header) + size, &fd, fd >= 0,
			      MSG_NOSIGNAL) == (ssize_t)(sizeof(header) + size));
}

bool turns_take_answer(struct turns *t, struct vhost_message *m)
{
	if (recv(t->socket, &m->header, sizeof(m->header), 0) != sizeof(m->header))
		return false;
	assert(m->header.size <= sizeof(m->payload.bytes));
	assert(recv(t->socket, m->payload.bytes, m->header.size, 0) == m->header.size);
	return true;
}

void turns_set_up(struct turns *t, uint64_t protocol)
{
	const uint64_t features = FEATURES | VHOST_F_PROTOCOL_FEATURES;
	const struct vhost_table table = { .count = 1, .region = { { 0, TURNS_BYTES, USER, 0 } } };

	turns_send(t, VHOST_SET_PROTOCOL_FEATURES, &protocol, sizeof(protocol), -1);
	turns_send(t, VHOST_SET_FEATURES, &features, sizeof(features), -1);
	turns_send(t, VHOST_SET_MEM_TABLE, &table, 8 + sizeof(table.region[0]), t->memory);
	turns_settle(t);
}

void turns_place(struct turns *t, uint32_t queue, uint32_t size, uint16_t base)
{
	const uint64_t at = USER + RING_AT(queue), number = queue;
	const struct vhost_vring_state sizes = { queue, size }, from = { queue, base };
	const struct vhost_vring_address address = { .index = queue,
						     .descriptors = at,
						     .available = at + AVAILABLE_AT,
						     .used = at + USED_AT };

	turns_send(t, VHOST_SET_VRING_NUM, &sizes, sizeof(sizes), -1);
	turns_send(t, VHOST_SET_VRING_BASE, &from, sizeof(from), -1);
	turns_send(t, VHOST_SET_VRING_ADDR, &address, sizeof(address), -1);
	turns_send(t, VHOST_SET_VRING_KICK, &number, sizeof(number), t->kick[queue]);
	turns_settle(t);
}

void turns_enable(struct turns *t, uint32_t queue)
{
	const struct vhost_vring_state on = { queue, 1 };

	turns_send(t, VHOST_SET_VRING_ENABLE, &on, sizeof(on), -1);
	turns_settle(t);
}

struct split_ring_descriptor *turns_descriptors(const struct turns *t, uint32_t queue)
{
	return (struct split_ring_descriptor *)(void *)(t->map + RING_AT(queue));
}

void *turns_available(const struct turns *t, uint32_t queue)
{
	return t->map + RING_AT(queue) + AVAILABLE_AT;
}

void *turns_used(const struct turns *t, uint32_t queue)
{
	return t->map + RING_AT(queue) + USED_AT;
}

void turns_kick(struct turns *t, uint32_t queue)
{
	assert(write(t->kick[queue], &(uint64_t){ 1 }, 8) == 8);
}

bool turns_is_busy(struct turns *t)
{
	struct pollfd fds[VHOST_CLIENT_FDS];

	if (!t->server.has_client)
		return false;
	return vhost_client_is_busy(&t->server.client) ||
	       poll(fds, vhost_client_fds(&t->server.client, fds), 0) > 0;
}

void turns_turn(struct turns *t)
{
	assert(vhost_server_turn(&t->server, &t->control));
}

void turns_settle(struct turns *t)
{
	while (turns_is_busy(t))
		turns_turn(t);
}

void turns_tell(struct turns *t, uint32_t commander, const char *line)
{
	size_t bytes = strlen(line);

	assert(send(t->command[commander], line, bytes, MSG_NOSIGNAL) == (ssize_t)bytes);
}

int turns_told(struct turns *t, uint32_t commander)
{
	static const char good[] = "{\"ok\":true";
	char text[16384];
	ssize_t n = recv(t->command[commander], text, sizeof(text), 0);

	if (n <= 0)
		return -1;
	assert(text[n - 1] == '\n');
	return (size_t)n >= sizeof(good) && memcmp(text, good, sizeof(good) - 1) == 0;
}
