/* SPDX-License-Identifier: BSD-2-Clause */
/* One io_uring: see ring.h. The kernel reads and writes the rings at any time: acquire what it has moved,
 * release what we move. */
#include "linux/device/ring.h"
#include "base/mem.h"
#include <errno.h>
#include <sys/mman.h>

#define FEATURES (IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP)
#define PROBED 256
#define NO_PROGRESS 1000 /* turns without an error in which nothing is taken */

static const uint8_t needed[] = { IORING_OP_NOP,        IORING_OP_READ,        IORING_OP_WRITE,
				  IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED, IORING_OP_FSYNC,
				  IORING_OP_FALLOCATE };

static uint32_t load(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static void store(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* All of @needed came with 5.6, but somebody may have restricted them. */
static int probe(const struct vmemi_ring *r)
{
	union {
		struct io_uring_probe head;
		unsigned char bytes[sizeof(struct io_uring_probe) +
				    PROBED * sizeof(struct io_uring_probe_op)];
	} p;
	int error;

	memset(&p, 0, sizeof(p));
	error = r->k->ring_register(r->fd, IORING_REGISTER_PROBE, &p, PROBED);
	if (error)
		return error;
	for (size_t i = 0; i < sizeof(needed); i++)
		if (needed[i] >= p.head.ops_len ||
		    !(p.head.ops[needed[i]].flags & IO_URING_OP_SUPPORTED))
			return -EOPNOTSUPP;
	return 0;
}

static int map(struct vmemi_ring *r, const struct io_uring_params *p)
{
	size_t sq = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
	size_t cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
	void *entries;
	int error;

	r->rings_bytes = sq > cq ? sq : cq;
	error = r->k->map_file(&r->rings, r->rings_bytes, PROT_READ | PROT_WRITE, r->fd,
			       IORING_OFF_SQ_RING);
	if (error)
		return error;
	r->entries_bytes = p->sq_entries * sizeof(struct io_uring_sqe);
	error = r->k->map_file(&entries, r->entries_bytes, PROT_READ | PROT_WRITE, r->fd,
			       IORING_OFF_SQES);
	if (error)
		return error;
	r->entries = entries;
	/* A child that wrote to them would speak for us. */
	r->k->madvise(r->rings, r->rings_bytes, MADV_DONTFORK);
	r->k->madvise(r->entries, r->entries_bytes, MADV_DONTFORK);
	return 0;
}

/* Entry i of the queue is always entries[i]. */
static void set_up(struct vmemi_ring *r, const struct io_uring_params *p)
{
	unsigned char *base = r->rings;
	uint32_t *array = (uint32_t *)(void *)(base + p->sq_off.array);

	r->sq_head = (uint32_t *)(void *)(base + p->sq_off.head);
	r->sq_tail = (uint32_t *)(void *)(base + p->sq_off.tail);
	r->cq_head = (uint32_t *)(void *)(base + p->cq_off.head);
	r->cq_tail = (uint32_t *)(void *)(base + p->cq_off.tail);
	r->results = (struct io_uring_cqe *)(void *)(base + p->cq_off.cqes);
	r->sq_mask = p->sq_entries - 1;
	r->cq_mask = p->cq_entries - 1;
	for (uint32_t i = 0; i < p->sq_entries; i++)
		array[i] = i;
}

/* A filter may allow setting up, and not entering. */
static int try_it(struct vmemi_ring *r)
{
	struct io_uring_sqe nop = { .opcode = IORING_OP_NOP, .user_data = 1 };
	uint64_t tag;
	int32_t result;
	int n;

	vmemi_ring_queue(r, &nop);
	do
		n = r->k->ring_enter(r->fd, 1, 1, IORING_ENTER_GETEVENTS);
	while (n == -EINTR && vmemi_ring_has_queued(r));
	if (n < 0 && n != -EINTR)
		return n;
	return vmemi_ring_pop(r, &tag, &result) && tag == 1 ? result : -EIO;
}

int vmemi_ring_open(struct vmemi_ring *r, const struct vmemi_kernel *k, uint32_t count)
{
	struct io_uring_params p = { 0 };
	int error;

	*r = (struct vmemi_ring){ .k = k };
	r->fd = k->ring_setup(count, &p);
	if (r->fd < 0)
		return r->fd;
	error = (p.features & FEATURES) == FEATURES ? probe(r) : -EOPNOTSUPP;
	if (!error)
		error = map(r, &p);
	if (!error) {
		set_up(r, &p);
		error = try_it(r);
	}
	if (error)
		vmemi_ring_close(r);
	return error;
}

void vmemi_ring_close(struct vmemi_ring *r)
{
	if (r->entries)
		r->k->munmap(r->entries, r->entries_bytes);
	if (r->rings)
		r->k->munmap(r->rings, r->rings_bytes);
	r->k->close(r->fd);
	r->fd = -1;
}

void vmemi_ring_queue(struct vmemi_ring *r, const struct io_uring_sqe *entry)
{
	uint32_t tail = load(r->sq_tail);

	r->entries[tail & r->sq_mask] = *entry;
	store(r->sq_tail, tail + 1);
}

bool vmemi_ring_pop(struct vmemi_ring *r, uint64_t *ret_tag, int32_t *ret_result)
{
	uint32_t head = load(r->cq_head);
	const struct io_uring_cqe *c = &r->results[head & r->cq_mask];

	if (head == load(r->cq_tail))
		return false;
	*ret_tag = c->user_data;
	*ret_result = c->res;
	store(r->cq_head, head + 1);
	return true;
}

static uint32_t queued(const struct vmemi_ring *r)
{
	uint32_t head = load(r->sq_head); /* first: it never passes the tail */

	return load(r->sq_tail) - head;
}

bool vmemi_ring_has_queued(const struct vmemi_ring *r)
{
	return queued(r) != 0;
}

/* Several threads may submit at once: the kernel gives each of them what is there. */
int vmemi_ring_submit(struct vmemi_ring *r)
{
	uint32_t count;

	for (int turn = 0; (count = queued(r)) != 0;) {
		int n = r->k->ring_enter(r->fd, count, 0, 0);

		if (n > 0 || n == -EINTR)
			continue;
		if (n == -EAGAIN || n == -EBUSY || n == -ENOMEM || (!n && ++turn >= NO_PROGRESS))
			return -EAGAIN;
		if (n)
			return n;
	}
	return 0;
}

bool vmemi_ring_take_back(struct vmemi_ring *r, uint64_t *ret_tag)
{
	uint32_t tail = load(r->sq_tail);

	if (tail == load(r->sq_head))
		return false;
	*ret_tag = r->entries[(tail - 1) & r->sq_mask].user_data;
	store(r->sq_tail, tail - 1);
	return true;
}
