/* SPDX-License-Identifier: BSD-2-Clause */
/* An io_uring (Axboe, "Efficient IO with io_uring", 2019), as far as devices need it: entries are queued, submitted,
 * and what they came to is taken out. The system calls are in the kernel's table, so that tests can refuse them, which
 * is why this is not liburing.
 * Guard: one thread at a time queues, pops or takes back; any number at the same time are in vmemi_ring_submit(). */
#ifndef VMEMI_RING_H
#define VMEMI_RING_H
#include <linux/io_uring.h>
#include <stdbool.h>
#include "linux/kernel/kernel.h"

struct vmemi_ring {
	const struct vmemi_kernel *k;
	int fd;
	void *rings;
	size_t rings_bytes;
	struct io_uring_sqe *entries;
	size_t entries_bytes;
	uint32_t *sq_head,
		*sq_tail; /* atomic: the kernel moves the heads of this, and the tail of that */
	uint32_t *cq_head, *cq_tail;
	uint32_t sq_mask, cq_mask;
	struct io_uring_cqe *results;
};

/* With room for @count entries and as many results, and tried. 0, or an error number of the kernel's, negated. */
int vmemi_ring_open(struct vmemi_ring *r, const struct vmemi_kernel *k, uint32_t count);
void vmemi_ring_close(struct vmemi_ring *r);

/* At most as many entries may be queued, submitted and not popped as the ring was opened for. */
void vmemi_ring_queue(struct vmemi_ring *r, const struct io_uring_sqe *entry);
bool vmemi_ring_pop(struct vmemi_ring *r, uint64_t *ret_tag, int32_t *ret_result);

/* Whether some are queued that the kernel has not taken. */
bool vmemi_ring_has_queued(const struct vmemi_ring *r);
/* Submits all that are queued. 0; -EAGAIN (some are still queued: later), or an error after which it will never be
 * better. */
int vmemi_ring_submit(struct vmemi_ring *r);
/* The newest entry that the kernel has not taken is so no more. Nobody is in vmemi_ring_submit(). */
bool vmemi_ring_take_back(struct vmemi_ring *r, uint64_t *ret_tag);

#endif
