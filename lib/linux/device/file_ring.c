/* SPDX-License-Identifier: BSD-2-Clause */
/* A device on a file, by io_uring. A request has one entry in the ring at a time, so that neither of its queues ever
 * overflows; its tag is the number of its slot. What the kernel has done waits in the ring until complete() takes it.
 *
 * The ring's two queues are guarded by q.lock; entering the kernel, which may copy data, is not: `entering` counts
 * who is about to. */
#include "linux/device/device_file.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>

#define PIECE (UINT64_C(1) << 30) /* of registered memory, the kernel's limit */
#define PIECES 64

static uint8_t opcode_of(const struct vmemi_request *s, bool is_fixed)
{
	if (s->r.op == VMEM_DEVICE_READ)
		return is_fixed ? IORING_OP_READ_FIXED : IORING_OP_READ;
	return is_fixed ? IORING_OP_WRITE_FIXED : IORING_OP_WRITE;
}

/* Reading or writing what is left of a request. */
static void set_transfer(const struct vmemi_file_ring *b, const struct vmemi_request *s,
			 struct io_uring_sqe *e)
{
	uint64_t bytes = s->r.bytes - s->done;
	uintptr_t at = (uintptr_t)s->r.data + s->done;
	uint64_t inside = at - b->fixed;
	bool is_fixed = b->fixed && at >= b->fixed && inside < b->fixed_bytes &&
			bytes <= b->fixed_bytes - inside &&
			inside / PIECE == (inside + bytes - 1) / PIECE;

	e->opcode = opcode_of(s, is_fixed);
	e->off = s->r.offset + s->done;
	e->addr = at;
	e->len = (uint32_t)bytes; /* at most max_bytes */
	e->buf_index = is_fixed ? (uint16_t)(inside / PIECE) : 0;
}

/* With q.lock held. */
static void start(struct vmemi_device_file *f, struct vmemi_request *s)
{
	struct vmemi_file_ring *b = &f->by.ring;
	struct io_uring_sqe e = { .fd = f->fd, .user_data = vmemi_request_number(&f->q, s) };

	switch (s->r.op) {
	case VMEM_DEVICE_FLUSH:
		e.opcode = IORING_OP_FSYNC;
		e.fsync_flags = IORING_FSYNC_DATASYNC;
		break;
	case VMEM_DEVICE_DISCARD:
		e.opcode = IORING_OP_FALLOCATE;
		e.off = s->r.offset;
		e.addr = s->r.bytes;
		e.len = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
		break;
	default: set_transfer(b, s, &e);
	}
	vmemi_ring_queue(&b->ring, &e);
}

/* Nobody is in the kernel, nor will be: what it has not taken fails. With q.lock held. */
static void fail_queued(struct vmemi_device_file *f)
{
	uint64_t number;

	while (vmemi_ring_take_back(&f->by.ring.ring, &number))
		vmemi_requests_done(&f->q, &f->q.slots[number], -VMEM_EIO);
}

/* Submits what is queued, and unlocks q.lock, which is held. */
static void submit_and_unlock(struct vmemi_device_file *f)
{
	struct vmemi_file_ring *b = &f->by.ring;
	int error;

	if (vmemi_ring_has_queued(&b->ring) && !b->is_dead) {
		b->entering++;
		pthread_mutex_unlock(&f->q.lock);
		error = vmemi_ring_submit(&b->ring);
		pthread_mutex_lock(&f->q.lock);
		b->entering--;
		if (error && error != -EAGAIN)
			b->is_dead = true;
	}
	if (b->is_dead && !b->entering)
		fail_queued(f);
	/* Where the kernel is out of memory, who looks for completions tries again. */
	f->q.more = vmemi_ring_has_queued(&b->ring) && !b->entering;
	vmemi_requests_tell(&f->q);
	pthread_mutex_unlock(&f->q.lock);
}

static int ring_submit(void *context, const struct vmem_device_request *requests, uint32_t count)
{
	struct vmemi_device_file *f = context;
	int result = vmemi_device_file_take(f, requests, count, start);

	submit_and_unlock(f);
	return result;
}

static int ring_complete(void *context, struct vmem_device_completion *completions, uint32_t max)
{
	struct vmemi_device_file *f = context;
	struct vmemi_file_ring *b = &f->by.ring;
	uint64_t number;
	int32_t result;
	uint32_t n;

	pthread_mutex_lock(&f->q.lock);
	n = vmemi_requests_pop(&f->q, completions, max);
	while (n < max && vmemi_ring_pop(&b->ring, &number, &result)) {
		struct vmemi_request *s = &f->q.slots[number];

		s->error = vmemi_device_file_step(f, s, result);
		if (s->error == -VMEM_EAGAIN)
			start(f, s);
		else
			vmemi_requests_give(&f->q, s, &completions[n++]);
	}
	submit_and_unlock(f);
	return (int)n;
}

static int ring_wait(void *context, uint64_t timeout_ns)
{
	struct vmemi_device_file *f = context;

	return vmemi_requests_wait(&f->q, f->by.ring.epoll, timeout_ns);
}

static int ring_fd(void *context)
{
	struct vmemi_device_file *f = context;

	return f->by.ring.epoll;
}

static int ring_register_buffers(void *context, void *memory, uint64_t bytes)
{
	struct vmemi_device_file *f = context;
	struct vmemi_file_ring *b = &f->by.ring;
	struct iovec pieces[PIECES];
	unsigned count = 0;
	int error;

	if (b->fixed)
		return -VMEM_EEXIST;
	if (!memory || !bytes)
		return -VMEM_EFAULT;
	if (bytes > PIECES * PIECE)
		return -VMEM_ENOMEM;
	for (uint64_t at = 0; at < bytes; at += PIECE)
		pieces[count++] =
			(struct iovec){ (unsigned char *)memory + at,
					bytes - at < PIECE ? (size_t)(bytes - at) : PIECE };
	error = b->ring.k->ring_register(b->ring.fd, IORING_REGISTER_BUFFERS, pieces, count);
	if (error)
		return error == -ENOMEM   ? -VMEM_ENOMEM
		       : error == -EFAULT ? -VMEM_EFAULT
					  : -VMEM_ENOTSUP;
	pthread_mutex_lock(&f->q.lock);
	b->fixed = (uintptr_t)memory;
	b->fixed_bytes = bytes;
	pthread_mutex_unlock(&f->q.lock);
	return 0;
}

static void ring_close(void *context)
{
	struct vmemi_device_file *f = context;
	struct vmemi_file_ring *b = &f->by.ring;
	struct vmem_device_completion rest[16];

	while (f->q.in_flight) {
		if (!ring_complete(f, rest, 16))
			ring_wait(f, VMEM_DEVICE_FOREVER);
	}
	f->k->close(b->epoll);
	vmemi_ring_close(&b->ring);
	vmemi_device_file_free(f);
}

const struct vmem_device_ops vmemi_file_ring_ops = {
	.size = sizeof(struct vmem_device_ops),
	.submit = ring_submit,
	.complete = ring_complete,
	.wait = ring_wait,
	.fd = ring_fd,
	.register_buffers = ring_register_buffers,
	.close = ring_close,
};

int vmemi_file_ring_open(struct vmemi_device_file *f)
{
	struct vmemi_file_ring *b = &f->by.ring;
	int error;

	*b = (struct vmemi_file_ring){ .epoll = -1 };
	error = vmemi_ring_open(&b->ring, f->k, f->device.depth);
	if (error)
		return error;
	b->epoll = f->k->epoll((const int[]){ b->ring.fd, f->q.event }, 2);
	if (b->epoll < 0) {
		vmemi_ring_close(&b->ring);
		return b->epoll;
	}
	f->device.ops = &vmemi_file_ring_ops;
	return 0;
}
