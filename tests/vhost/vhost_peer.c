/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "vhost_peer.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/deadline.h"
#include "support/send_fds.h"

void vhost_peer_open(struct vhost_peer *p, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	memset(p, 0, sizeof(*p));
	strcpy(address.sun_path, path);
	p->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert(connect(p->socket, (struct sockaddr *)&address, sizeof(address)) == 0);
	p->memory = memfd_create("peer", MFD_CLOEXEC);
	assert(p->memory >= 0 && ftruncate(p->memory, (off_t)PEER_BYTES) == 0);
	p->map = mmap(NULL, PEER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, p->memory, 0);
	assert(p->map != MAP_FAILED);
	memset(p->map, 0x5a, PEER_RING_AT(0));
	memset(p->map + PEER_RING_AT(0), 0, PEER_BYTES - PEER_RING_AT(0)); /* all is there */
	for (uint32_t i = 0; i < PEER_QUEUES; i++) {
		p->kick[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		p->call[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
}

void vhost_peer_close(struct vhost_peer *p)
{
	close(p->socket);
	munmap(p->map, PEER_BYTES);
	close(p->memory);
	for (uint32_t i = 0; i < PEER_QUEUES; i++) {
		close(p->kick[i]);
		close(p->call[i]);
	}
}

bool vhost_peer_send(struct vhost_peer *p, const void *bytes, size_t count, const int *fds,
		     uint32_t fd_count)
{
	return vmemt_send_fds(p->socket, bytes, count, fds, fd_count, MSG_NOSIGNAL) ==
	       (ssize_t)count;
}

bool vhost_peer_ask(struct vhost_peer *p, uint32_t request, const void *payload, uint32_t size,
		    const int *fds, uint32_t fd_count)
{
	struct vhost_message m = { .header = { request, VHOST_VERSION, size } };
	uint8_t bytes[sizeof(m.header) + sizeof(m.payload.bytes)];

	assert(size <= sizeof(m.payload.bytes));
	memcpy(bytes, &m.header, sizeof(m.header));
	if (size)
		memcpy(bytes + sizeof(m.header), payload, size);
	return vhost_peer_send(p, bytes, sizeof(m.header) + size, fds, fd_count);
}

bool vhost_peer_number(struct vhost_peer *p, uint32_t request, uint64_t number)
{
	return vhost_peer_ask(p, request, &number, sizeof(number), NULL, 0);
}

bool vhost_peer_state(struct vhost_peer *p, uint32_t request, uint32_t index, uint32_t number)
{
	const struct vhost_vring_state state = { index, number };

	return vhost_peer_ask(p, request, &state, sizeof(state), NULL, 0);
}

/* False: closed. */
static bool receive(struct vhost_peer *p, void *bytes, size_t count)
{
	uint64_t end_ms = vmemt_now_ms() + VMEMT_DEADLINE_MS;
	size_t got = 0;

	while (got < count) {
		struct pollfd readable = { .fd = p->socket, .events = POLLIN };
		ssize_t n;

		VMEMT_NOT_AFTER(end_ms, "an answer");
		if (poll(&readable, 1, 1000) <= 0)
			continue;
		n = recv(p->socket, (uint8_t *)bytes + got, count - got, 0);
		if (n <= 0)
			return false;
		got += (size_t)n;
	}
	return true;
}

bool vhost_peer_answer(struct vhost_peer *p, struct vhost_message *m)
{
	if (!receive(p, &m->header, sizeof(m->header)))
		return false;
	assert(m->header.size <= sizeof(m->payload.bytes));
	return receive(p, m->payload.bytes, m->header.size);
}

void vhost_peer_until_closed(struct vhost_peer *p)
{
	char byte;

	while (receive(p, &byte, 1))
		;
}

struct vhost_table vhost_peer_table(void)
{
	return (struct vhost_table){ .count = 1,
				     .region = { { PEER_GPA, PEER_BYTES, PEER_USER, 0 } } };
}

#define TABLE_BYTES(count) ((uint32_t)(8 + (count) * sizeof(struct vhost_table_region)))

static bool ask_number(struct vhost_peer *p, uint32_t request, uint64_t *ret)
{
	struct vhost_message m;

	if (!vhost_peer_ask(p, request, NULL, 0, NULL, 0) || !vhost_peer_answer(p, &m))
		return false;
	*ret = m.payload.number;
	return true;
}

static struct vhost_vring_address ring_address(uint32_t queue)
{
	uint64_t at = PEER_USER + PEER_RING_AT(queue);

	return (struct vhost_vring_address){
		.index = queue, .descriptors = at, .available = at + 1024, .used = at + 2048
	};
}

static void set_up_queue(struct vhost_peer *p, uint32_t queue, uint32_t step)
{
	struct vhost_vring_address address = ring_address(queue);
	uint64_t number = queue;

	switch (step) {
	case 0: vhost_peer_state(p, VHOST_SET_VRING_NUM, queue, PEER_RING); break;
	case 1: vhost_peer_state(p, VHOST_SET_VRING_BASE, queue, 0); break;
	case 2: vhost_peer_ask(p, VHOST_SET_VRING_ADDR, &address, sizeof(address), NULL, 0); break;
	case 3:
		vhost_peer_ask(p, VHOST_SET_VRING_CALL, &number, sizeof(number), &p->call[queue],
			       1);
		break;
	case 4:
		vhost_peer_ask(p, VHOST_SET_VRING_KICK, &number, sizeof(number), &p->kick[queue],
			       1);
		break;
	default: vhost_peer_state(p, VHOST_SET_VRING_ENABLE, queue, 1); break;
	}
}

#define QUEUE_STEPS 6u
#define FIRST_STEPS 6u

uint32_t vhost_peer_set_up(struct vhost_peer *p, uint32_t steps)
{
	struct vhost_table table = vhost_peer_table();
	uint64_t number = 0;

	for (uint32_t step = 0; step < steps && step < FIRST_STEPS; step++)
		switch (step) {
		case 0: vhost_peer_ask(p, VHOST_SET_OWNER, NULL, 0, NULL, 0); break;
		case 1: ask_number(p, VHOST_GET_FEATURES, &number); break;
		case 2: ask_number(p, VHOST_GET_PROTOCOL_FEATURES, &number); break;
		case 3: vhost_peer_number(p, VHOST_SET_PROTOCOL_FEATURES, 0x220); break;
		case 4: vhost_peer_number(p, VHOST_SET_FEATURES, PEER_FEATURES); break;
		default:
			vhost_peer_ask(p, VHOST_SET_MEM_TABLE, &table, TABLE_BYTES(1), &p->memory,
				       1);
			break;
		}
	for (uint32_t step = FIRST_STEPS;
	     step < steps && step < FIRST_STEPS + PEER_QUEUES * QUEUE_STEPS; step++)
		set_up_queue(p, (step - FIRST_STEPS) / QUEUE_STEPS,
			     (step - FIRST_STEPS) % QUEUE_STEPS);
	return FIRST_STEPS + PEER_QUEUES * QUEUE_STEPS;
}

void vhost_peer_give(struct vhost_peer *p, uint32_t queue, uint64_t gpa, uint32_t bytes,
		     uint16_t flags)
{
	uint8_t *ring = p->map + PEER_RING_AT(queue);
	uint16_t head = p->given[queue] % PEER_RING;
	const uint64_t one = 1;

	((struct split_ring_descriptor *)(void *)ring)[head] =
		(struct split_ring_descriptor){ gpa, bytes, flags, head };
	split_ring_store(ring + 1024, SPLIT_RING_ENTRIES + head, head);
	split_ring_store_index(ring + 1024, ++p->given[queue]);
	assert(write(p->kick[queue], &one, sizeof(one)) == sizeof(one));
}

void vhost_peer_until_returned(struct vhost_peer *p, uint32_t queue)
{
	VMEMT_UNTIL(split_ring_load_index(p->map + PEER_RING_AT(queue) + 2048) == p->given[queue]);
}

uint64_t vhost_peer_file_bytes(const struct vhost_peer *p)
{
	struct stat st;

	assert(fstat(p->memory, &st) == 0);
	return (uint64_t)st.st_blocks * 512;
}

void vhost_peer_is_served(struct vhost_peer *p)
{
	uint32_t *numbers = (uint32_t *)(void *)(p->map + PEER_DATA_AT(0));
	uint64_t before;

	for (uint32_t i = 0; i < 256; i++)
		numbers[i] = (uint32_t)(PEER_GPA / PEER_PAGE) + i;
	memset(p->map, 0x5a, 256 * PEER_PAGE);
	before = vhost_peer_file_bytes(p);
	vhost_peer_give(p, 0, PEER_GPA + PEER_DATA_AT(0), 1024, 0);
	vhost_peer_until_returned(p, 0);
	assert(vhost_peer_file_bytes(p) + 256 * PEER_PAGE <= before);
	vhost_peer_give(p, 1, PEER_GPA + PEER_DATA_AT(0), 1024, 0);
	vhost_peer_until_returned(p, 1);
}
