/* SPDX-License-Identifier: BSD-2-Clause */
/* The client keeps its end of each descriptor, so none is trusted to behave: nothing here waits for one. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "vhost_queue.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vhost_channel.h"
#include "vhost_closer.h"

void vhost_queue_begin(struct vhost_queue *q)
{
	*q = (struct vhost_queue){ .kick = -1, .call = -1 };
}

void vhost_queue_set_fd(int *slot, int fd)
{
	if (*slot >= 0)
		vhost_close(*slot);
	*slot = fd;
}

void vhost_queue_end(struct vhost_queue *q)
{
	vhost_queue_set_fd(&q->kick, -1);
	vhost_queue_set_fd(&q->call, -1);
	q->started = false;
}

const char *vhost_queue_set_size(struct vhost_queue *q, uint32_t size)
{
	if (!size || size > SPLIT_RING_MOST || size & (size - 1))
		return "the size of a queue is no power of two up to 32768";
	q->size = size;
	return NULL;
}

const char *vhost_queue_set_base(struct vhost_queue *q, uint32_t base)
{
	if (base > UINT16_MAX)
		return "an index has 16 bits";
	q->base = (uint16_t)base;
	return NULL;
}

void vhost_queue_set_address(struct vhost_queue *q, const struct vhost_vring_address *address)
{
	q->address = *address;
	q->has_address = true;
}

const char *vhost_queue_set_kick(struct vhost_queue *q, int fd)
{
	if (fd < 0)
		return "a queue without a descriptor to be kicked with; polling was not offered";
	/* Of an eventfd a read can be asked not to wait, whoever else reads it. */
	if (!vhost_channel_fd_is(fd, "anon_inode:[eventfd]"))
		return "what it is to be kicked with is no eventfd";
	vhost_queue_set_fd(&q->kick, fd);
	return NULL;
}

/* User-Mode Linux has a socket. A file could be of a file system that does not answer. */
const char *vhost_queue_set_call(struct vhost_queue *q, int fd)
{
	if (fd >= 0 && !vhost_channel_fd_is(fd, "anon_inode:[eventfd]") &&
	    !vhost_channel_fd_is(fd, "socket:[") && !vhost_channel_fd_is(fd, "pipe:["))
		return "what it is to be notified by is no eventfd, socket or pipe";
	vhost_queue_set_fd(&q->call, fd);
	return NULL;
}

/* All bytes of a part in one row. */
static void *part(const struct vhost_memory *memory, uint64_t user, uint64_t bytes)
{
	uint64_t row = bytes;
	void *at = vhost_memory_at_user(memory, user, &row);

	return at && row == bytes ? at : NULL;
}

static void *translate(void *context, uint64_t gpa, uint64_t *bytes)
{
	return vhost_memory_at(context, gpa, bytes);
}

const char *vhost_queue_start(struct vhost_queue *q, const struct vhost_memory *memory)
{
	const struct vhost_vring_address *a = &q->address;
	struct split_ring_device_opts opts = {
		.next_available = q->base,
		.translate = translate,
		.context = (void *)(uintptr_t)memory,
	};

	if (q->started || q->kick < 0 || !q->enabled)
		return NULL;
	if (!q->size || !q->has_address)
		return "a queue is kicked that has no size or no address";
	opts.parts = (struct split_ring_parts){
		part(memory, a->descriptors, SPLIT_RING_DESCRIPTORS_BYTES(q->size)),
		part(memory, a->available, SPLIT_RING_AVAILABLE_BYTES(q->size)),
		part(memory, a->used, SPLIT_RING_USED_BYTES(q->size)),
		q->size,
	};
	if (!split_ring_parts_good(&opts.parts))
		return "a queue is not in guest memory, or not aligned";
	opts.next_used = split_ring_load_index(opts.parts.used);
	if (split_ring_device_start(&q->ring, &opts) != 0)
		return "a queue cannot be started";
	q->started = true;
	q->due = true;
	q->life++;
	return NULL;
}

uint16_t vhost_queue_stop(struct vhost_queue *q)
{
	/* One that is held comes again when the queue does. */
	if (q->started)
		q->base = (uint16_t)(q->ring.next_available - q->ring.taken);
	q->started = q->due = false;
	vhost_queue_set_fd(&q->kick, -1);
	return q->base;
}

bool vhost_queue_runs(const struct vhost_queue *q)
{
	return q->started && q->enabled;
}

void vhost_queue_read_kick(struct vhost_queue *q)
{
	uint64_t count;
	struct iovec data = { &count, sizeof(count) };

	q->due = true;
	if (preadv2(q->kick, &data, 1, -1, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP)
		return;
	fcntl(q->kick, F_SETFL, fcntl(q->kick, F_GETFL) | O_NONBLOCK);
	(void)!read(q->kick, &count, sizeof(count));
}

int vhost_queue_notify(struct vhost_queue *q)
{
	const uint64_t one = 1;

	q->returned = false;
	if (q->call < 0 || !split_ring_device_must_notify(&q->ring))
		return 0;
	/* Where there is no room, what is there already will wake the driver. */
	return vhost_channel_tell(q->call, &one, sizeof(one)) < 0 ? -1 : 0;
}
