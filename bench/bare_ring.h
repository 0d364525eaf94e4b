/* SPDX-License-Identifier: BSD-2-Clause */
/* Bare io_uring: what a read or a write costs with nothing around it. One thread. */
#ifndef BENCH_BARE_RING_H
#define BENCH_BARE_RING_H
#include <linux/io_uring.h>
#include <stddef.h>
#include <stdint.h>

#define BARE_RING_DEPTH 8u /* requests in flight at most */

struct bare_ring {
	int fd, file;
	int is_fixed; /* bare_ring_fix() */
	uint32_t *sq_tail, *cq_head, *cq_tail;
	uint32_t sq_mask, cq_mask, queued;
	struct io_uring_sqe *entries;
	struct io_uring_cqe *results;
};

/* All reads and writes are of @param file. It stays until the process ends. @return 0, -errno */
int bare_ring_open(struct bare_ring *ring, int file);

/* Pins memory once, where all reads and writes are from then on, instead of for each of them anew.
 * @return 0, or -errno: it is refused, and they go on as before */
int bare_ring_fix(struct bare_ring *ring, void *memory, size_t bytes);

/* A read or write, with its number, for the next bare_ring_enter(). */
void bare_ring_read(struct bare_ring *ring, void *to, uint32_t bytes, uint64_t offset,
		    uint32_t number);
void bare_ring_write(struct bare_ring *ring, const void *from, uint32_t bytes, uint64_t offset,
		     uint32_t number);
/* Submits what is queued, and waits until @param least are done. @return 0, -errno */
int bare_ring_enter(struct bare_ring *ring, uint32_t least);
/* Takes one that is done. @return 1, or 0: none; *ret_result: bytes, or -errno */
int bare_ring_pop(struct bare_ring *ring, uint32_t *ret_number, int32_t *ret_result);

#endif
