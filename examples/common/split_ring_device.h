/* SPDX-License-Identifier: BSD-2-Clause */
/* The device's side of a split virtqueue (VIRTIO 1.3, 2.7), in the memory of a guest that is not trusted. Each field
 * of the guest's is read once; a chain of descriptors has an end; work of a call is bounded by the pieces that the
 * caller has room for. Needs no libc and allocates nothing. One thread at a time uses a ring.
 *
 *      again:
 *      while ((got = split_ring_device_take(&ring, &buffer)) != 0)
 *              if (got > 0)
 *                      split_ring_device_read(&ring, &buffer, 0, bytes, sizeof(bytes)), work,
 *                      split_ring_device_return(&ring, buffer.head, 0);
 *              else if (got == -VMEM_EIO)
 *                      the queue is over
 *      if (split_ring_device_listen(&ring))
 *              goto again;
 *      if (split_ring_device_must_notify(&ring))
 *              notify the driver */
#ifndef SPLIT_RING_DEVICE_H
#define SPLIT_RING_DEVICE_H
#include <stdbool.h>
#include <stddef.h>

#include "split_ring.h"

struct split_ring_device_opts {
	struct split_ring_parts parts; /* checked by the caller to be guest memory, all of them */
	uint64_t features;             /* SPLIT_RING_F_* that were negotiated */
	uint16_t next_available;       /* index that the device looks at next; of a fresh ring 0 */
	uint16_t
		next_used; /* index that it writes next; of a fresh ring 0; of another one notify once at the start */
	/* Where guest memory is: as many bytes in a row from @gpa on as are asked for, or fewer, which is said in
	 * @bytes. NULL: nothing is there. */
	void *(*translate)(void *context, uint64_t gpa, uint64_t *bytes);
	void *context;
};

struct split_ring_device {
	struct split_ring_device_opts o;
	uint16_t next_available;
	uint16_t next_used;
	uint16_t told_used; /* next_used when the driver was last asked whether it wants to know */
	uint32_t taken;     /* and not returned */
	bool broken;
	uint64_t malformed; /* chains that were returned unread */
};

/* A buffer of the driver: pieces to read, then pieces to write. */
struct split_ring_buffer {
	struct vmem_balloon_piece *pieces; /* of the caller */
	uint32_t most;     /* so many it has room for; a longer chain is malformed */
	uint32_t readable; /* the first ones */
	uint32_t writable; /* those behind them */
	uint64_t readable_bytes;
	uint64_t writable_bytes;
	uint16_t head; /* says which one, when it is returned */
};

/* @return 0, -VMEM_EINVAL (size, alignment) */
int split_ring_device_start(struct split_ring_device *ring,
			    const struct split_ring_device_opts *opts);

/* The next buffer. Pieces to read are known to be addresses, not to be guest memory; see split_ring_device_read().
 * @return 1; 0: there is none; -VMEM_EBADMSG: its chain was malformed, it was counted and returned, call again;
 *         -VMEM_EIO: the ring makes no sense, now and until it is started anew */
int split_ring_device_take(struct split_ring_device *ring, struct split_ring_buffer *buffer);

/* Copy of the bytes to read. @offset in them.
 * @return how many, at most @most; -VMEM_EFAULT: not all of that is guest memory */
int64_t split_ring_device_read(const struct split_ring_device *ring,
			       const struct split_ring_buffer *buffer, uint64_t offset, void *bytes,
			       uint32_t most);

/* Give a buffer back, into which @written bytes were written. */
void split_ring_device_return(struct split_ring_device *ring, uint16_t head, uint32_t written);

/* Whether the driver wants to be notified of what was returned since the last such question. */
bool split_ring_device_must_notify(struct split_ring_device *ring);

/* From now on the driver shall notify of new buffers. @return whether there are some already: take them */
bool split_ring_device_listen(struct split_ring_device *ring);

/* From now on it need not. */
void split_ring_device_be_quiet(struct split_ring_device *ring);

#endif
