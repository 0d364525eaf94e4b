/* SPDX-License-Identifier: BSD-2-Clause */
/* vmem-vhost-user-balloon and clients that say what cannot be, in every way that was thought of: each loses its
 * connection at most, and the next good client is served. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/deadline.h"
#include "support/rng.h"
#include "support/send_fds.h"
#include "support/slow.h"
#include "vhost/back_end.h"
#include "vhost/vhost_peer.h"

static struct back_end back;
static struct vhost_peer peer;
static const uint32_t all = 1000; /* steps */

static void begin(uint32_t steps)
{
	vhost_peer_open(&peer, back.socket);
	(void)vhost_peer_set_up(&peer, steps);
}

/* The back end has closed the connection because of what it was sent, and this is what it says of it. NULL: not so. */
static void is_refused(const char *why)
{
	static double count;
	double before = count;
	cJSON *status;
	const char *text;

	vhost_peer_until_closed(&peer);
	vhost_peer_close(&peer);
	status = back_end_ask(&back, "status");
	count = cJSON_GetNumberValue(cJSON_GetObjectItem(status, "refused"));
	text = cJSON_GetStringValue(cJSON_GetObjectItem(status, "refused_for"));
	if (why && (count == before || strcmp(text, why) != 0))
		printf("refused for \"%s\", not for \"%s\"\n", count == before ? "nothing" : text,
		       why);
	assert(why ? count > before && strcmp(text, why) == 0 : count == before);
	cJSON_Delete(status);
}

/* The one after it is served. */
static void next_is_served(const char *after)
{
	printf("%s\n", after);
	begin(all);
	vhost_peer_is_served(&peer);
	vhost_peer_close(&peer);
}

static bool is_known(uint32_t request)
{
	return (request >= VHOST_GET_FEATURES && request <= VHOST_SET_MEM_TABLE) ||
	       (request >= VHOST_SET_VRING_NUM && request <= VHOST_SET_VRING_ENABLE) ||
	       request == VHOST_SET_BACKEND_REQ_FD || request == VHOST_GET_CONFIG ||
	       request == VHOST_SET_CONFIG || request == VHOST_RESET_DEVICE;
}

/* Of a header with a length that is none of most messages. */
static const char *why_header(uint32_t request, uint32_t size)
{
	if (!is_known(request))
		return "it was not offered";
	return request == VHOST_SET_BACKEND_REQ_FD && size <= 8 ? NULL : "its length is wrong";
}

static void headers(void)
{
	static const uint32_t sizes[] = { 1, 7, 9, 300, 4096, 0x7fffffff, 0xffffffff };
	static const uint32_t flags[] = { 0, 2, 3, VHOST_VERSION | VHOST_REPLY };

	for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (uint32_t request = 0; request < 48; request += 1 + i) {
			const struct vhost_header h = { request, VHOST_VERSION, sizes[i] };

			/* A length that some message may have: then a truncated one. */
			begin(3);
			vhost_peer_send(&peer, &h, sizeof(h), NULL, 0);
			shutdown(peer.socket, SHUT_WR);
			is_refused(why_header(request, sizes[i]));
		}
	for (uint32_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		const struct vhost_header h = { VHOST_GET_FEATURES, flags[i], 0 };

		begin(0);
		vhost_peer_send(&peer, &h, sizeof(h), NULL, 0);
		is_refused("its flags are not those of a request of version 1");
	}
	next_is_served("headers");
}

/* After each message, and in the middle of each. */
static void goes_away(void)
{
	uint32_t steps;

	begin(0);
	steps = vhost_peer_set_up(&peer, 0);
	vhost_peer_close(&peer);

	for (uint32_t i = 0; i <= steps; i++) {
		begin(i);
		vhost_peer_close(&peer);
		begin(i);
		vhost_peer_send(&peer, "\005\000\000\000\001", 5, NULL, 0);
		vhost_peer_close(&peer);
	}
	next_is_served("gone at every step");
}

static const char in_no_memory[] = "a region is in no file in memory (memfd, tmpfs, hugetlbfs)";

static void descriptors(void)
{
	const uint64_t queue = 0, none = 0x100;
	struct vhost_table table = vhost_peer_table();
	const char *const too_many = "more descriptors than any message has";
	int fds[20], pipe_fds[2];

	assert(pipe(pipe_fds) == 0);
	for (int i = 0; i < 20; i++)
		fds[i] = pipe_fds[0];
	for (uint32_t count = 0; count <= 20; count += count == 2 ? 7 : 1) {
		begin(5);
		vhost_peer_ask(&peer, VHOST_SET_MEM_TABLE, &table, 40, fds, count);
		is_refused(count == 1  ? in_no_memory
			   : count > 2 ? too_many
				       : "it does not come with a descriptor for each region");
		begin(5);
		vhost_peer_ask(&peer, VHOST_SET_VRING_KICK, &queue, 8, fds, count);
		is_refused(count == 1  ? "what it is to be kicked with is no eventfd"
			   : count > 2 ? too_many
				       : "its descriptor is missing, or one too many");
		if (!count)
			continue;
		begin(5);
		vhost_peer_ask(&peer, VHOST_SET_FEATURES, &queue, 8, fds, count);
		is_refused(count > 2 ? too_many : "it comes with descriptors");
	}
	begin(5);
	vhost_peer_number(&peer, VHOST_SET_VRING_KICK, none);
	is_refused("a queue without a descriptor to be kicked with; polling was not offered");
	begin(5);
	vhost_peer_ask(&peer, VHOST_SET_BACKEND_REQ_FD, NULL, 0, NULL, 0);
	is_refused("its descriptor is missing");
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	next_is_served("descriptors");
}

static void table_is_refused(const struct vhost_table *t, const int *fds, const char *why)
{
	begin(5);
	vhost_peer_ask(&peer, VHOST_SET_MEM_TABLE, t,
		       (uint32_t)(8 + (t->count ? t->count : 1) * sizeof(t->region[0])), fds,
		       t->count);
	is_refused(why);
}

static void one_region(uint64_t gpa, uint64_t bytes, uint64_t user, uint64_t offset, int fd,
		       const char *why)
{
	const struct vhost_table t = { .count = 1, .region = { { gpa, bytes, user, offset } } };

	table_is_refused(&t, &fd, why);
}

static void memory(void)
{
	const char *const pages = "a region is empty, or not of whole pages";
	const char *const beyond_file = "a region goes beyond the end of its file";
	const char *const beyond_space = "a region goes beyond the end of the address space";
	const char *const too_much = "there is more memory than is allowed (--most-memory)";
	const char *const overlap = "two regions overlap";
	int file = memfd_create("hostile", MFD_CLOEXEC), null = open("/dev/null", O_RDWR);
	int disk = open("/etc/passwd", O_RDONLY), read_only, fds[8];
	const uint64_t bytes = PEER_BYTES;
	struct vhost_table t = { .count = 2 };
	char path[64];

	assert(ftruncate(file, (off_t)bytes) == 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	read_only = open(path, O_RDONLY);
	assert(read_only >= 0);
	one_region(0, 0, 0, 0, file, pages);
	one_region(0, bytes + 4096, 0, 0, file, beyond_file);
	one_region(0, bytes, 0, 4096, file, beyond_file);
	one_region(0, bytes, 0, UINT64_MAX - 4095, file, beyond_file);
	one_region(100, bytes, 0, 0, file, pages);
	one_region(0, 100, 0, 0, file, pages);
	one_region(UINT64_MAX - 4095, bytes, 0, 0, file, beyond_space);
	one_region(UINT64_C(1) << 44, bytes, 0, 0, file, beyond_space);
	one_region(0, bytes, UINT64_MAX - 4095, 0, file, beyond_space);
	one_region(0, UINT64_MAX - 4095, 0, 0, file, too_much);
	one_region(0, bytes, 0, 0, null, in_no_memory);
	one_region(0, 4096, 0, 0, disk, in_no_memory);
	one_region(0, bytes, 0, 0, read_only, "a region cannot be mapped for reading and writing");
	assert(ftruncate(file, INT64_C(1) << 40) == 0);
	one_region(0, UINT64_C(1) << 40, 0, 0, file, too_much); /* --most-memory */

	for (int i = 0; i < 8; i++)
		fds[i] = file;
	t.region[0] = (struct vhost_table_region){ 0, bytes, 0, 0 };
	t.region[1] = (struct vhost_table_region){ bytes - 4096, bytes, 2 * bytes, bytes };
	table_is_refused(&t, fds, overlap);
	t.region[1] = (struct vhost_table_region){ bytes, bytes, bytes - 4096, bytes };
	table_is_refused(&t, fds, overlap);
	t.region[1] = (struct vhost_table_region){ bytes, bytes, bytes, bytes - 4096 };
	table_is_refused(&t, fds, overlap);
	t.count = 0;
	table_is_refused(&t, fds, "it has no region, or more than 8");
	close(file);
	close(null);
	close(disk);
	close(read_only);
	next_is_served("memory");
}

static void one_queue(uint64_t descriptors, uint64_t available, uint64_t used, uint32_t size)
{
	const struct vhost_vring_address a = { .descriptors = descriptors,
					       .available = available,
					       .used = used };
	const uint64_t queue = 0;

	begin(6);
	vhost_peer_state(&peer, VHOST_SET_VRING_NUM, 0, size);
	vhost_peer_ask(&peer, VHOST_SET_VRING_ADDR, &a, sizeof(a), NULL, 0);
	vhost_peer_state(&peer, VHOST_SET_VRING_ENABLE, 0, 1);
	vhost_peer_ask(&peer, VHOST_SET_VRING_KICK, &queue, 8, &peer.kick[0], 1);
	is_refused("a queue is not in guest memory, or not aligned");
}

static void queues(void)
{
	static const uint32_t requests[] = { VHOST_SET_VRING_NUM, VHOST_SET_VRING_BASE,
					     VHOST_GET_VRING_BASE, VHOST_SET_VRING_ENABLE };
	static const uint32_t indices[] = { 5, 6, 255, 256, 0x10000, 0xffffffff };
	static const uint32_t sizes[] = { 0, 3, 15, 65536, 0xffffffff };
	const uint64_t user = PEER_USER, end = PEER_USER + PEER_BYTES;

	for (uint32_t i = 0; i < 6; i++)
		for (uint32_t j = 0; j < 4; j++) {
			begin(6);
			vhost_peer_state(&peer, requests[j], indices[i], 1);
			is_refused("there is no such queue");
		}
	for (uint32_t i = 0; i < 5; i++) {
		begin(6);
		vhost_peer_state(&peer, VHOST_SET_VRING_NUM, 0, sizes[i]);
		is_refused("the size of a queue is no power of two up to 32768");
	}
	one_queue(0, user, user, 16);
	one_queue(user, 0, user, 16);
	one_queue(user, user, 0, 16);
	one_queue(end - 16, user, user, 16);
	one_queue(user, end - 16, user, 16);
	one_queue(user, user, end - 16, 16);
	one_queue(user + 8, user, user, 16);
	one_queue(user, user + 1, user, 16);
	one_queue(user, user, user + 2, 16);
	one_queue(user - 16, user, user, 16);
	one_queue(UINT64_MAX - 15, user, user, 16);
	begin(6); /* neither size nor address */
	vhost_peer_state(&peer, VHOST_SET_VRING_ENABLE, 0, 1);
	vhost_peer_ask(&peer, VHOST_SET_VRING_KICK, &(uint64_t){ 0 }, 8, &peer.kick[0], 1);
	is_refused("a queue is kicked that has no size or no address");
	next_is_served("queues");
}

/* What a driver does with its ring. */
static void rings(void)
{
	const uint64_t one = 1;
	uint8_t *ring;

	begin(all); /* more than there are entries */
	ring = peer.map + PEER_RING_AT(0);
	split_ring_store_index(ring + 1024, 60000);
	assert(write(peer.kick[0], &one, 8) == 8);
	is_refused("a queue makes no sense");
	begin(all); /* an entry that is none */
	ring = peer.map + PEER_RING_AT(0);
	split_ring_store(ring + 1024, SPLIT_RING_ENTRIES, 12345);
	split_ring_store_index(ring + 1024, 1);
	assert(write(peer.kick[0], &one, 8) == 8);
	is_refused("a queue makes no sense");

	begin(all); /* these are returned unread */
	vhost_peer_give(&peer, 0, PEER_GPA, 1024, SPLIT_RING_D_NEXT); /* a circle */
	vhost_peer_give(&peer, 0, 0, 1024, 0);                        /* outside */
	vhost_peer_give(&peer, 0, PEER_GPA + PEER_BYTES - 512, 1024, 0);
	vhost_peer_give(&peer, 0, UINT64_MAX - 511, 1024, 0);
	vhost_peer_give(&peer, 0, PEER_GPA, 0xffffffff, 0);
	vhost_peer_give(&peer, 0, PEER_GPA, 0, 0);
	vhost_peer_give(&peer, 0, PEER_GPA, 1024, SPLIT_RING_D_INDIRECT);
	vhost_peer_give(&peer, 1, PEER_GPA, 1024, SPLIT_RING_D_WRITE);
	vhost_peer_give(&peer, 3, UINT64_MAX - 4095, 4096, SPLIT_RING_D_WRITE);
	vhost_peer_give(&peer, 3, 0, 0x80000000, SPLIT_RING_D_WRITE);
	vhost_peer_until_returned(&peer, 0);
	vhost_peer_until_returned(&peer, 1);
	vhost_peer_until_returned(&peer, 3);
	/* 2 MiB of page numbers that are none: much work, in parts. */
	vhost_peer_give(&peer, 0, PEER_GPA, (uint32_t)PEER_BYTES, 0);
	assert(back_end_status(&back, "client") == 1);
	vhost_peer_until_returned(&peer, 0);
	vhost_peer_is_served(&peer);
	vhost_peer_close(&peer);
	next_is_served("rings");
}

/* Changes of mind while queues run. */
static void changes(void)
{
	struct vhost_table table = vhost_peer_table();

	begin(all);
	table.region[0].gpa += PEER_PAGE;
	vhost_peer_ask(&peer, VHOST_SET_MEM_TABLE, &table, 40, &peer.memory, 1);
	is_refused("other memory while queues run");
	begin(all); /* the same again is fine */
	table = vhost_peer_table();
	vhost_peer_ask(&peer, VHOST_SET_MEM_TABLE, &table, 40, &peer.memory, 1);
	vhost_peer_is_served(&peer);
	vhost_peer_number(&peer, VHOST_SET_FEATURES, PEER_FEATURES & ~UINT64_C(2));
	is_refused("other features while queues run");
	begin(3);
	vhost_peer_number(&peer, VHOST_SET_FEATURES, ~UINT64_C(0));
	is_refused("features that were not offered");
	begin(3);
	vhost_peer_number(&peer, VHOST_SET_PROTOCOL_FEATURES, ~UINT64_C(0));
	is_refused("protocol features that were not offered");
	begin(all); /* a new size for a queue that runs: it is another driver's */
	VMEMT_UNTIL(back_end_status(&back, "driver") == 1);
	vhost_peer_state(&peer, VHOST_SET_VRING_NUM, 0, 32);
	VMEMT_UNTIL(back_end_status(&back, "driver") == 0);
	assert(back_end_status(&back, "client") == 1);
	vhost_peer_close(&peer);
	begin(all);                                         /* it cuts its memory off */
	VMEMT_UNTIL(back_end_status(&back, "driver") == 1); /* it has looked at the file */
	assert(ftruncate(peer.memory, 0) == 0);
	assert(write(peer.kick[0], &(uint64_t){ 1 }, 8) == 8);
	is_refused("it has cut its memory off");
	next_is_served("changes");
}

/* --- Many pages that are gone --- */

#define CUT_RING 32768u
#define CUT_CHAIN \
	1024u /* pieces of a buffer, each on a page of its own, no two beside each other */
#define CUT_GPA UINT64_C(0x10000000)
#define CUT_USER UINT64_C(0x600000000000)
#define CUT_BYTES (2 * PEER_PAGE * CUT_RING)
#define CUT_AT(queue) (PEER_BYTES + (queue)*PEER_BYTES) /* of the ring */
#define CUT_AVAILABLE UINT64_C(0x80000)
#define CUT_USED UINT64_C(0xa0000)

static void cut_queue(uint32_t queue, uint32_t size)
{
	const uint64_t at = PEER_USER + CUT_AT(queue), number = queue;
	const struct vhost_vring_address a = { .index = queue,
					       .descriptors = at,
					       .available = at + CUT_AVAILABLE,
					       .used = at + CUT_USED };

	vhost_peer_state(&peer, VHOST_SET_VRING_NUM, queue, size);
	vhost_peer_ask(&peer, VHOST_SET_VRING_ADDR, &a, sizeof(a), NULL, 0);
	vhost_peer_ask(&peer, VHOST_SET_VRING_KICK, &number, 8, &peer.kick[queue], 1);
	vhost_peer_state(&peer, VHOST_SET_VRING_ENABLE, queue, 1);
}

static void cut_fill(uint8_t *ring)
{
	struct split_ring_descriptor *d = (struct split_ring_descriptor *)(void *)ring;

	for (uint32_t i = 0; i < CUT_RING; i++)
		d[i] = (struct split_ring_descriptor){ CUT_GPA + 2 * i * PEER_PAGE, 4,
						       (i + 1) % CUT_CHAIN ? SPLIT_RING_D_NEXT : 0,
						       (uint16_t)(i + 1) };
	for (uint32_t i = 0; i < CUT_RING / CUT_CHAIN; i++)
		split_ring_store(ring + CUT_AVAILABLE, SPLIT_RING_ENTRIES + i,
				 (uint16_t)(i * CUT_CHAIN));
	split_ring_store_index(ring + CUT_AVAILABLE, CUT_RING / CUT_CHAIN);
}

/* More of them than a process may have mappings, and all in one turn. */
static void cut(void)
{
	const struct vhost_table table = { .count = 2,
					   .region = { { PEER_GPA, 3 * PEER_BYTES, PEER_USER, 0 },
						       { CUT_GPA, CUT_BYTES, CUT_USER, 0 } } };
	int fds[2] = { 0, memfd_create("cut", MFD_CLOEXEC) };
	struct vhost_message m;
	uint8_t *ring;

	begin(5);
	fds[0] = peer.memory;
	assert(ftruncate(fds[0], (off_t)(3 * PEER_BYTES)) == 0);
	assert(ftruncate(fds[1], (off_t)CUT_BYTES) == 0);
	ring = mmap(NULL, PEER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, peer.memory,
		    (off_t)CUT_AT(0));
	assert(ring != MAP_FAILED);
	cut_fill(ring);
	vhost_peer_ask(&peer, VHOST_SET_MEM_TABLE, &table, 72, fds, 2);
	cut_queue(0, CUT_RING);
	assert(vhost_peer_ask(&peer, VHOST_GET_FEATURES, NULL, 0, NULL, 0) &&
	       vhost_peer_answer(&peer, &m)); /* it has looked at the files */
	assert(ftruncate(fds[1], 0) == 0);
	cut_queue(1, PEER_RING); /* now there is a driver */
	is_refused("it has cut its memory off");
	munmap(ring, PEER_BYTES);
	close(fds[1]);
	next_is_served("cut");
}

/* Descriptors that would make who uses them wait. */
static void waits(void)
{
	const uint64_t full = UINT64_MAX - 1, queue = 0;
	int ends[2], pipe_ends[2], event = eventfd(0, EFD_CLOEXEC), sent = 0;
	char junk[4096] = { 0 };

	begin(all); /* an eventfd that has no room */
	assert(write(event, &full, sizeof(full)) == sizeof(full));
	vhost_peer_ask(&peer, VHOST_SET_VRING_CALL, &queue, 8, &event, 1);
	vhost_peer_is_served(&peer);
	close(event);
	/* a pipe that is full, and a socket */
	assert(pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK) == 0);
	while (write(pipe_ends[1], junk, sizeof(junk)) > 0)
		;
	assert(fcntl(pipe_ends[1], F_SETFL, 0) == 0);
	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
	while (send(ends[1], junk, sizeof(junk), MSG_DONTWAIT) > 0)
		;
	vhost_peer_ask(&peer, VHOST_SET_VRING_CALL, &queue, 8, &pipe_ends[1], 1);
	vhost_peer_is_served(&peer);
	vhost_peer_ask(&peer, VHOST_SET_VRING_CALL, &queue, 8, &ends[1], 1);
	vhost_peer_ask(&peer, VHOST_SET_VRING_ERR, &queue, 8, &ends[1], 1); /* not kept */
	vhost_peer_ask(&peer, VHOST_SET_BACKEND_REQ_FD, NULL, 0, &ends[1], 1);
	vhost_peer_is_served(&peer);
	assert(back_end_number(&back, "target 1M", NULL, "ok") == 1);
	vhost_peer_is_served(&peer);
	assert(back_end_number(&back, "target 0", NULL, "ok") == 1);
	vhost_peer_close(&peer);
	/* what is of no use as such */
	begin(all);
	vhost_peer_ask(&peer, VHOST_SET_VRING_CALL, &queue, 8, &peer.memory, 1);
	is_refused("what it is to be notified by is no eventfd, socket or pipe");
	begin(all);
	vhost_peer_ask(&peer, VHOST_SET_BACKEND_REQ_FD, NULL, 0, &pipe_ends[1], 1);
	is_refused("what requests are to be sent to is no socket");
	close(ends[0]);
	close(ends[1]);
	close(pipe_ends[0]);
	close(pipe_ends[1]);

	begin(0); /* questions, and no answer is read */
	while (sent < 1000000 && vhost_peer_ask(&peer, VHOST_GET_FEATURES, NULL, 0, NULL, 0))
		sent++;
	assert(sent < 1000000);
	is_refused("it does not read answers");
	next_is_served("what would wait");
}

/* It is told to go. */
static void is_left(void)
{
	begin(all);
	VMEMT_UNTIL(back_end_status(&back, "driver") == 1);
	assert(back_end_number(&back, "leave", NULL, "ok") == 1);
	is_refused(NULL);
	VMEMT_UNTIL(back_end_status(&back, "client") == 0);
	assert(back_end_number(&back, "leave", NULL, "ok") == 0);
	next_is_served("left");
}

static void any_message(uint64_t *random)
{
	static const uint32_t sizes[] = { 0, 8, 8, 8, 40, 12, 16, 72, 268 };
	struct vhost_message m = { .header = { (uint32_t)(vmemt_rand(random) % 42),
					       VHOST_VERSION | (vmemt_rand(random) & 8),
					       sizes[vmemt_rand(random) % 9] } };
	uint8_t bytes[sizeof(m.header) + sizeof(m.payload.bytes)];
	int fds[3] = { peer.memory, peer.kick[0], peer.call[0] };
	uint32_t first = (uint32_t)(vmemt_rand(random) % 3);

	for (uint32_t i = 0; i < sizeof(m.payload.bytes); i++)
		m.payload.bytes[i] = vmemt_rand(random) % 4 ? 0 : (uint8_t)vmemt_rand(random);
	if (vmemt_rand(random) % 2)
		m.payload.number = vmemt_rand(random) % 6;
	memcpy(bytes, &m.header, sizeof(m.header));
	memcpy(bytes + sizeof(m.header), m.payload.bytes, sizeof(m.payload.bytes));
	(void)vhost_peer_send(&peer, bytes, sizeof(m.header) + m.header.size, fds + first,
			      (uint32_t)(vmemt_rand(random) % 2));
}

static void anything(uint64_t *random)
{
	int rounds = VMEMT_SLOW ? 100 : 400;

	for (int i = 0; i < rounds; i++) {
		begin((uint32_t)(vmemt_rand(random) % 32));
		for (uint64_t n = vmemt_rand(random) % 16; n; n--)
			any_message(random);
		for (uint64_t n = vmemt_rand(random) % 4; n; n--) /* and what is in its rings */
			peer.map[PEER_RING_AT(0) + vmemt_rand(random) % (4 * PEER_PAGE)] =
				(uint8_t)vmemt_rand(random);
		(void)!write(peer.kick[0], &(uint64_t){ 1 }, 8);
		vhost_peer_close(&peer);
	}
	next_is_served("anything");
}

/* Descriptors that the back end has open, without a client and what threads still close of one. */
static int count_open(void)
{
	char path[64];
	int count = 0;
	DIR *folder;

	VMEMT_UNTIL(back_end_status(&back, "client") == 0);
	VMEMT_UNTIL(back_end_status(&back, "closing") == 0);
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)back.pid);
	folder = opendir(path);
	assert(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

int main(void)
{
	uint64_t random = vmemt_seed("vhost_hostile");
	int open_before;

	setvbuf(stdout, NULL, _IOLBF, 0);
	back_end_start(&back, "--quiet", "--most-memory=64G", "--stats-every=0");
	next_is_served("nothing");
	open_before = count_open();
	headers();
	goes_away();
	descriptors();
	memory();
	queues();
	rings();
	changes();
	cut();
	waits();
	is_left();
	anything(&random);
	VMEMT_UNTIL(count_open() == open_before); /* some are closed by a thread */
	return back_end_stop(&back, SIGTERM);
}
