/* SPDX-License-Identifier: BSD-2-Clause */
/* The driver's side of a split virtqueue (VIRTIO 1.3, 2.7): in memory that the caller gives, with chains of ordinary
 * descriptors. Needs no libc and allocates nothing. The device is not trusted: it cannot return what it was not given.
 * One thread at a time uses a ring. */
#ifndef SPLIT_RING_DRIVER_H
#define SPLIT_RING_DRIVER_H
#include <stdbool.h>

#include "split_ring.h"

/* What the driver knows of a descriptor; the device does not see it. */
struct split_ring_slot {
	uint16_t next;   /* free, or in its chain */
	uint16_t length; /* of the chain that begins here and is the device's; 0: none does */
	uint32_t token;
};

struct split_ring_driver {
	struct split_ring_parts parts;
	uint64_t features; /* SPLIT_RING_F_EVENT_IDX, or 0 */
	struct split_ring_slot *slots;
	uint16_t free;       /* the first free one */
	uint16_t free_count; /* how many are */
	uint16_t next_available;
	uint16_t next_used;
	uint16_t
		kicked; /* next_available when the device was last asked whether it wants to know */
};

/* Begins with an empty ring; writes all of its memory.
 * @slots    one for each entry
 * @return 0, -VMEM_EINVAL (size, alignment) */
int split_ring_driver_start(struct split_ring_driver *ring, const struct split_ring_parts *parts,
			    struct split_ring_slot *slots, uint64_t features);

/* Make a buffer available: @readable pieces, then @writable ones, as the device sees their addresses.
 * @return 0, -VMEM_ENOSPC (not so many descriptors are free), -VMEM_EINVAL (no piece, or one of 4 GiB and more) */
int split_ring_driver_add(struct split_ring_driver *ring, const struct vmem_balloon_piece *pieces,
			  uint32_t readable, uint32_t writable, uint32_t token);

/* Whether the device wants to be notified of what was added since the last such question. */
bool split_ring_driver_must_kick(struct split_ring_driver *ring);

/* A buffer that the device has returned.
 * @return 1; 0: there is none; -VMEM_EBADMSG: one that it does not have */
int split_ring_driver_take(struct split_ring_driver *ring, uint32_t *ret_token,
			   uint32_t *ret_written);

/* From now on the device shall notify of what it returns; a fresh ring asks for it. @return whether there is something
 * already: take it */
bool split_ring_driver_listen(struct split_ring_driver *ring);

/* From now on it need not. */
void split_ring_driver_be_quiet(struct split_ring_driver *ring);

#endif
