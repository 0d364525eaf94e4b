/* SPDX-License-Identifier: BSD-2-Clause */
/* A queue as the client sets it up, and its ring while it runs. */
#ifndef VHOST_QUEUE_H
#define VHOST_QUEUE_H
#include <stdbool.h>

#include "common/split_ring_device.h"
#include "vhost_memory.h"

struct vhost_queue {
	uint32_t size;
	uint16_t base; /* index of the next buffer, when it starts */
	bool has_address, enabled, started;
	struct vhost_vring_address address;
	int kick, call; /* descriptors, or -1 */
	uint32_t life; /* counts starts: what was taken in an earlier one is not returned in this */
	bool due;      /* there may be buffers */
	bool returned; /* some were returned, and nobody was notified yet */
	struct split_ring_device ring;
};

void vhost_queue_begin(struct vhost_queue *q);
void vhost_queue_end(struct vhost_queue *q);

/* Takes a descriptor over, in place of the one before; -1: none. */
void vhost_queue_set_fd(int *slot, int fd);

/* Of a queue that stands still. NULL, or why not. */
const char *vhost_queue_set_size(struct vhost_queue *q, uint32_t size);
const char *vhost_queue_set_base(struct vhost_queue *q, uint32_t base);
void vhost_queue_set_address(struct vhost_queue *q, const struct vhost_vring_address *address);
/* NULL, or why not. */
const char *vhost_queue_set_kick(struct vhost_queue *q, int fd);
const char *vhost_queue_set_call(struct vhost_queue *q, int fd);

/* Starts the ring, where everything is there for it: all of it must be guest memory. NULL, or why not. */
const char *vhost_queue_start(struct vhost_queue *q, const struct vhost_memory *memory);

/* @return the index of the next buffer */
uint16_t vhost_queue_stop(struct vhost_queue *q);

/* Whether buffers may be taken. */
bool vhost_queue_runs(const struct vhost_queue *q);

/* The client has kicked. */
void vhost_queue_read_kick(struct vhost_queue *q);

/* Notifies the driver of what was returned, if it wants to know. @return 0, -1: it cannot be told */
int vhost_queue_notify(struct vhost_queue *q);

#endif
