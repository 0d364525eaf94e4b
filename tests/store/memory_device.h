/* SPDX-License-Identifier: BSD-2-Clause */
/* A device in memory that does what a test wants; mapped if the test sets that flag. Requests are done when they are completed, so that data which was
 * let go too early is seen; those that are held are never done. */
#ifndef VMEMT_MEMORY_DEVICE_H
#define VMEMT_MEMORY_DEVICE_H
#include <pthread.h>
#include <stdatomic.h>
#include <vmem/device.h>

#define VMEMT_DEVICE_DEPTH 64u

struct vmemt_memory_device {
	struct vmem_device device;
	unsigned char *bytes;
	pthread_mutex_t lock;
	struct vmem_device_request queue[VMEMT_DEVICE_DEPTH]; /* lock */
	uint32_t count;                                       /* lock */

	/* Atomic; what goes wrong. */
	_Atomic int hold;         /* nothing is completed */
	_Atomic int submit_error; /* of each request */
	_Atomic int write_error, read_error;
	_Atomic int refuse_map;
	_Atomic int short_reads; /* reads leave half of the bytes as they were, and say nothing */
	_Atomic int corrupt;     /* a bit of each block that is read is flipped */
	/* Called after each read that has not failed, with the bytes that it is about to hand out, which it may change; an
	 * error number is the read's. NULL: none. Set while nothing is in flight. */
	int (*spoil)(struct vmemt_memory_device *m, const struct vmem_device_request *r);
	_Atomic uint64_t
		bad_place; /* writes to the offset of the next one fail: UINT64_MAX, then that + 1 */

	_Atomic int discard_error;
	_Atomic uint64_t discards;             /* bytes */
	_Atomic uint64_t writes, reads, wrong; /* wrong: requests that nobody may make */
	_Atomic uint64_t registered, maps;     /* calls */
	_Atomic uint64_t waited_ns;            /* by the last wait() */
	_Atomic int hold_close;                /* close() does not return */
	_Atomic int closing, closed;
};

/* With a depth of 1..VMEMT_DEVICE_DEPTH. Its memory is freed by close(), which leaves the structure. */
void vmemt_memory_device_init(struct vmemt_memory_device *m, uint64_t bytes, uint32_t depth);

#endif
