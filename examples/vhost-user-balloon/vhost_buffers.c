/* SPDX-License-Identifier: BSD-2-Clause */
/* From queues to the balloon and back. A buffer that lies in a row is given to the balloon where the guest wrote it,
 * which reads each byte once; what does not is copied. */
#include "vhost_client.h"

#define TURN_BUFFERS 64 /* of a queue in one turn */
#define TURN_PARTS 16   /* of all buffers of all queues in one turn */

/* Which queue, in which of its lives, and which buffer. */
static uint64_t token_of(const struct vhost_client *c, uint32_t queue, uint16_t head)
{
	return (uint64_t)c->queue[queue].life << 32 | queue << 16 | head;
}

static void give_back(struct vhost_client *c, uint64_t token)
{
	struct vhost_queue *q = &c->queue[token >> 16 & 0xffff];

	if (!q->started || q->life != token >> 32)
		return;
	split_ring_device_return(&q->ring, (uint16_t)token, 0);
	q->returned = true;
}

void vhost_client_drain(struct vhost_client *c)
{
	struct vmem_balloon_done done;

	/* What could not be given back is counted by it, and tried again; the guest has given it all the same. */
	(void)vmem_discard_drain(c->discard, c->balloon);
	while (vmem_balloon_take_done(c->balloon, &done))
		give_back(c, done.token);
}

/* True: it is done, or nobody's any more. */
static bool give(struct vhost_client *c)
{
	while (c->parts_left) {
		int err = vmem_balloon_give(c->balloon, &c->buffer);

		c->parts_left--;
		if (!err)
			return true;
		if (err != -VMEM_EAGAIN) { /* no driver yet, or none of its features: unread */
			give_back(c, c->buffer.token);
			return true;
		}
		vhost_client_drain(c);
	}
	return false;
}

/* Where what the driver wrote can be read. False: it makes no sense. */
static bool find_bytes(struct vhost_client *c, struct vhost_queue *q,
		       const struct split_ring_buffer *b)
{
	uint64_t row = b->readable_bytes;
	int64_t got;

	c->buffer.bytes = NULL;
	c->buffer.count = b->readable_bytes;
	if (!b->readable_bytes)
		return true;
	if (b->readable == 1) {
		c->buffer.bytes = vhost_memory_at(&c->memory, b->pieces[0].gpa, &row);
		if (c->buffer.bytes && row == b->readable_bytes)
			return true;
	}
	if (b->readable_bytes > VHOST_COPY)
		return false;
	got = split_ring_device_read(&q->ring, b, 0, c->copy, (uint32_t)b->readable_bytes);
	c->buffer.bytes = c->copy;
	return got == (int64_t)b->readable_bytes;
}

static void take_over(struct vhost_client *c, uint32_t number, enum vmem_balloon_queue kind,
		      const struct split_ring_buffer *b)
{
	struct vhost_queue *q = &c->queue[number];

	c->buffer = (struct vmem_balloon_buffer){ .size = sizeof(c->buffer),
						  .queue = kind,
						  .token = token_of(c, number, b->head),
						  .now_ns = c->now_ns,
						  .pieces = c->pieces + b->readable,
						  .piece_count = b->writable };
	if (!find_bytes(c, q, b)) {
		q->ring.malformed++;
		give_back(c, c->buffer.token);
		return;
	}
	c->part = !give(c);
}

static const char *work_queue(struct vhost_client *c, uint32_t number)
{
	struct vhost_queue *q = &c->queue[number];
	enum vmem_balloon_queue kind;

	if (vmem_balloon_queue_of(c->balloon, number, &kind) != 0) {
		q->due = false; /* not before there is a driver; then all are looked at */
		return NULL;
	}
	for (int i = 0; i < TURN_BUFFERS && c->parts_left && !c->memory.lost; i++) {
		struct split_ring_buffer b = { .pieces = c->pieces, .most = VHOST_PIECES };
		int got = split_ring_device_take(&q->ring, &b);

		if (got == -VMEM_EIO)
			return "a queue makes no sense";
		if (got > 0)
			take_over(c, number, kind, &b);
		else if (got == -VMEM_EBADMSG)
			q->returned = true;
		else if (!split_ring_device_listen(&q->ring)) {
			q->due = false;
			break;
		}
	}
	return NULL;
}

/* One after the other, from where the last turn came to its end: none keeps the others from being looked at. */
static const char *work_queues(struct vhost_client *c)
{
	uint32_t first = c->first;
	const char *why = NULL;

	for (uint32_t i = 0; i < VHOST_QUEUES && !why && !c->part && c->parts_left; i++) {
		uint32_t number = (first + i) % VHOST_QUEUES;

		if (!c->queue[number].due || !vhost_queue_runs(&c->queue[number]))
			continue;
		why = work_queue(c, number);
		c->first = (number + 1) % VHOST_QUEUES;
	}
	return why;
}

const char *vhost_client_work(struct vhost_client *c)
{
	const char *why = NULL;

	c->parts_left = TURN_PARTS;
	if (c->part)
		c->part = !give(c);
	if (c->driver_ok)
		why = work_queues(c);
	if (why)
		return why;
	if (!c->part)
		vhost_client_drain(c);
	for (uint32_t i = 0; i < VHOST_QUEUES; i++)
		if (c->queue[i].returned && vhost_queue_notify(&c->queue[i]) != 0)
			why = "it cannot be notified";
	return c->memory.lost ? "it has cut its memory off" : why;
}
