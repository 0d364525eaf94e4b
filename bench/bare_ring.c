/* SPDX-License-Identifier: BSD-2-Clause */
#include "bare_ring.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static uint32_t *word_at(void *rings, uint32_t offset)
{
	return (uint32_t *)(void *)((unsigned char *)rings + offset);
}

int bare_ring_open(struct bare_ring *ring, int file)
{
	struct io_uring_params p = { .flags = 0 };
	size_t sq, cq;
	uint32_t *array;
	void *rings;

	*ring = (struct bare_ring){ .file = file };
	ring->fd = (int)syscall(SYS_io_uring_setup, BARE_RING_DEPTH, &p);
	if (ring->fd < 0)
		return -errno;
	if (!(p.features & IORING_FEAT_SINGLE_MMAP))
		return -ENOTSUP;
	sq = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
	cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	rings = mmap(NULL, sq > cq ? sq : cq, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
		     ring->fd, IORING_OFF_SQ_RING);
	ring->entries = mmap(NULL, p.sq_entries * sizeof(*ring->entries), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQES);
	if (rings == MAP_FAILED || ring->entries == MAP_FAILED)
		return -errno;
	ring->sq_tail = word_at(rings, p.sq_off.tail);
	ring->cq_head = word_at(rings, p.cq_off.head);
	ring->cq_tail = word_at(rings, p.cq_off.tail);
	ring->results = (struct io_uring_cqe *)(void *)word_at(rings, p.cq_off.cqes);
	ring->sq_mask = p.sq_entries - 1;
	ring->cq_mask = p.cq_entries - 1;
	array = word_at(rings, p.sq_off.array);
	for (uint32_t i = 0; i < p.sq_entries; i++)
		array[i] = i;
	return 0;
}

int bare_ring_fix(struct bare_ring *ring, void *memory, size_t bytes)
{
	struct iovec all = { .iov_base = memory, .iov_len = bytes };

	if (syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS, &all, 1) != 0)
		return -errno;
	ring->is_fixed = 1;
	return 0;
}

static void queue(struct bare_ring *ring, const struct io_uring_sqe *entry)
{
	uint32_t tail = *ring->sq_tail;

	ring->entries[tail & ring->sq_mask] = *entry;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	ring->queued++;
}

void bare_ring_read(struct bare_ring *ring, void *to, uint32_t bytes, uint64_t offset,
		    uint32_t number)
{
	const uint8_t opcode = ring->is_fixed ? IORING_OP_READ_FIXED : IORING_OP_READ;

	queue(ring, &(struct io_uring_sqe){ .opcode = opcode,
					    .fd = ring->file,
					    .addr = (uintptr_t)to,
					    .len = bytes,
					    .off = offset,
					    .user_data = number });
}

void bare_ring_write(struct bare_ring *ring, const void *from, uint32_t bytes, uint64_t offset,
		     uint32_t number)
{
	const uint8_t opcode = ring->is_fixed ? IORING_OP_WRITE_FIXED : IORING_OP_WRITE;

	queue(ring, &(struct io_uring_sqe){ .opcode = opcode,
					    .fd = ring->file,
					    .addr = (uintptr_t)from,
					    .len = bytes,
					    .off = offset,
					    .user_data = number });
}

int bare_ring_enter(struct bare_ring *ring, uint32_t least)
{
	while (ring->queued || least) {
		long n = syscall(SYS_io_uring_enter, ring->fd, ring->queued, least,
				 least ? IORING_ENTER_GETEVENTS : 0, NULL, 0);

		if (n >= 0) {
			ring->queued -= (uint32_t)n;
			if (!ring->queued)
				return 0;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

int bare_ring_pop(struct bare_ring *ring, uint32_t *ret_number, int32_t *ret_result)
{
	uint32_t head = *ring->cq_head;
	const struct io_uring_cqe *c = &ring->results[head & ring->cq_mask];

	if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
		return 0;
	*ret_number = (uint32_t)c->user_data;
	*ret_result = c->res;
	__atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
	return 1;
}
