/* SPDX-License-Identifier: BSD-2-Clause */
/* The balloon of a VM: libvmem's device core behind the registers of virtio-mmio, which are ports here, and what it
 * hands out discarded in the VM's region. Its lock is held by one vCPU, in a hypercall, or by the main thread. */
#ifndef RUNNER_BALLOON_H
#define RUNNER_BALLOON_H
#include <vmem/balloon_host.h>
#include <vmem/discard.h>

#include "common/split_ring_device.h"
#include "runner_vm.h"

#define BALLOON_QUEUES 5u
#define BALLOON_PIECES 64u       /* most of a buffer */
#define BALLOON_READ_MOST 65536u /* bytes of a buffer; a longer one is returned unread */
#define BALLOON_TURN_PARTS 16u   /* of buffers, each up to a GiB: a notification does no more */

struct balloon_queue {
	uint32_t size;
	bool ready;
	bool due;             /* there may be buffers */
	uint64_t descriptors; /* guest physical */
	uint64_t available;
	uint64_t used;
	struct split_ring_device ring;
};

/* One way of the balloon, for the result. */
struct balloon_way {
	uint64_t asked_ns; /* 0: was not */
	uint64_t begun_ns; /* the first page of it went */
	uint64_t done_ns;  /* the last one */
};

struct balloon {
	struct vm *vm;
	pthread_mutex_t lock;
	vmem_balloon *core;
	vmem_discard *discard;

	/* Registers. */
	uint64_t offered; /* features */
	uint32_t device_features_select;
	uint32_t driver_features_select;
	uint64_t driver_features;
	uint32_t queue_select;
	uint32_t status;
	bool broken; /* until the driver resets it */
	uint32_t generation;
	uint32_t interrupt; /* VIRTIO_INTERRUPT_* */
	struct balloon_queue queues[BALLOON_QUEUES];
	/* The buffer at hand: until it is done no other is looked at. */
	bool part;
	uint32_t parts_left; /* of this turn */
	struct vmem_balloon_buffer given;
	struct vmem_balloon_piece pieces[BALLOON_PIECES];
	uint8_t *bytes; /* BALLOON_READ_MOST of them */

	_Atomic uint64_t pages;    /* in it */
	_Atomic uint64_t reported; /* pages, so far */
	uint64_t target;           /* pages that are asked for now */
	uint64_t pages_most;       /* that it had */
	uint64_t
		bad_buffers; /* malformed chains, buffers that are too long or elsewhere, rings that broke */
	uint64_t stalls;
	uint64_t leaks; /* looks that found pages taken back that are asked for */
	uint64_t asked_stats_ns, tried_again_ns;
	struct balloon_way in, out;
};

/* Make the VM's balloon. Returns 0, or a negative VMEM error after a message. */
int balloon_create(struct vm *vm);
void balloon_destroy(struct vm *vm);

/* The main thread, again and again: asks for pages, and back at the time for that. */
void balloon_tick(struct vm *vm, uint64_t now_ns);

/* Bytes that are in the balloon, if there is one, and that were reported free; any thread. */
uint64_t balloon_bytes(const struct vm *vm);
uint64_t balloon_reported_bytes(const struct vm *vm);

/* The registers, on a vCPU's thread. */
void balloon_set_register(struct balloon *b, uint32_t offset, uint32_t value);
uint32_t balloon_get_register(struct balloon *b, uint32_t offset);

/* For the registers. The lock is held. */
void balloon_notify(struct balloon *b, uint32_t number);
void balloon_look_at_events(struct balloon *b);

/* What is known. */
struct balloon_sample {
	struct vmem_balloon_progress progress;
	struct vmem_balloon_counters counters;
	struct vmem_balloon_guest guest;
	struct vmem_discard_metrics discard;
};
void balloon_sample(struct balloon *b, struct balloon_sample *sample);

/* A line for people. */
void balloon_print(struct vm *vm);

#endif
