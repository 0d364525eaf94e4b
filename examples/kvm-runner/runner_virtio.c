/* SPDX-License-Identifier: BSD-2-Clause */
/* The registers of the balloon's transport (VIRTIO 1.3, 4.2.2). The guest is not trusted: what makes no sense changes
 * nothing, and reads as 0. */
#include "runner_balloon.h"
#include "runner_vcpu.h"
#include "virtio_registers.h"

#define VENDOR 0x6d656d76u /* "vmem" */
#define RING_MOST 1024u

/* Only the low part, which is pinned: what is read from there is there. */
static void *translate(void *context, uint64_t gpa, uint64_t *bytes)
{
	struct balloon *b = context;
	uint64_t end = b->vm->layout.pinned_bytes;

	if (gpa >= end)
		return NULL;
	*bytes = *bytes < end - gpa ? *bytes : end - gpa;
	return b->vm->hva + gpa;
}

static void *translate_all(struct balloon *b, uint64_t gpa, uint64_t bytes)
{
	uint64_t there = bytes;
	void *memory = translate(b, gpa, &there);

	return there == bytes ? memory : NULL;
}

static void start_queue(struct balloon *b, struct balloon_queue *q)
{
	const struct split_ring_device_opts opts = {
		.parts = { translate_all(b, q->descriptors, SPLIT_RING_DESCRIPTORS_BYTES(q->size)),
			   translate_all(b, q->available, SPLIT_RING_AVAILABLE_BYTES(q->size)),
			   translate_all(b, q->used, SPLIT_RING_USED_BYTES(q->size)), q->size },
		.features = b->driver_features & b->offered,
		.translate = translate,
		.context = b,
	};

	if (!q->ready && q->size <= RING_MOST)
		q->ready = split_ring_device_start(&q->ring, &opts) == 0;
}

static void set_half(uint64_t *address, uint32_t half, uint32_t value)
{
	*address = half ? (*address & UINT32_MAX) | (uint64_t)value << 32
			: (*address & ~(uint64_t)UINT32_MAX) | value;
}

static void set_status(struct balloon *b, uint32_t value)
{
	if (value == 0) {
		for (uint32_t i = 0; i < BALLOON_QUEUES; i++)
			b->queues[i] = (struct balloon_queue){ 0 };
		b->interrupt = 0;
		b->driver_features = 0;
		b->broken = false;
		b->part = false;
	}
	if (b->driver_features & ~b->offered) /* 2.2.2: not with these */
		value &= ~VMEM_VIRTIO_FEATURES_OK;
	vmem_balloon_set_status(b->core, value, &b->status);
}

static void set_queue_register(struct balloon *b, uint32_t offset, uint32_t value)
{
	struct balloon_queue *q;

	if (b->queue_select >= BALLOON_QUEUES)
		return;
	q = &b->queues[b->queue_select];
	switch (offset) {
	case VIRTIO_QUEUE_READY:
		if (value)
			start_queue(b, q);
		else
			q->ready = false;
		return;
	case VIRTIO_QUEUE_SIZE: q->size = q->ready ? q->size : value; return;
	default: break;
	}
	if (q->ready)
		return;
	switch (offset & ~4u) {
	case VIRTIO_QUEUE_DESCRIPTORS: set_half(&q->descriptors, offset & 4, value); break;
	case VIRTIO_QUEUE_AVAILABLE: set_half(&q->available, offset & 4, value); break;
	case VIRTIO_QUEUE_USED: set_half(&q->used, offset & 4, value); break;
	default: break;
	}
}

/* What comes too late is counted by the core, and changes nothing. */
static void set_features(struct balloon *b, uint32_t value)
{
	uint64_t features = b->driver_features;

	if (b->driver_features_select >= 2)
		return;
	set_half(&features, b->driver_features_select, value);
	if (vmem_balloon_set_features(b->core, features) == 0 &&
	    !(b->status & VMEM_VIRTIO_FEATURES_OK))
		b->driver_features = features;
}

static void set_register(struct balloon *b, uint32_t offset, uint32_t value)
{
	switch (offset) {
	case VIRTIO_DEVICE_FEATURES_SELECT: b->device_features_select = value; break;
	case VIRTIO_DRIVER_FEATURES_SELECT: b->driver_features_select = value; break;
	case VIRTIO_DRIVER_FEATURES: set_features(b, value); break;
	case VIRTIO_QUEUE_SELECT: b->queue_select = value; break;
	case VIRTIO_QUEUE_NOTIFY: balloon_notify(b, value); break;
	case VIRTIO_INTERRUPT_ACK: b->interrupt &= ~value; break;
	case VIRTIO_STATUS: set_status(b, value); break;
	default:
		if (offset >= VIRTIO_CONFIG)
			(void)vmem_balloon_config_write(b->core, offset - VIRTIO_CONFIG, &value,
							sizeof(value));
		else
			set_queue_register(b, offset, value);
	}
}

void balloon_set_register(struct balloon *b, uint32_t offset, uint32_t value)
{
	pthread_mutex_lock(&b->lock);
	set_register(b, offset, value);
	balloon_look_at_events(b);
	pthread_mutex_unlock(&b->lock);
}

static uint32_t get_register(const struct balloon *b, uint32_t offset)
{
	bool queue = b->queue_select < BALLOON_QUEUES;
	enum vmem_balloon_queue what;
	uint32_t value = 0;

	switch (offset) {
	case VIRTIO_MAGIC: return VIRTIO_MAGIC_VALUE;
	case VIRTIO_VERSION: return 2;
	case VIRTIO_DEVICE: return VIRTIO_DEVICE_BALLOON;
	case VIRTIO_VENDOR: return VENDOR;
	case VIRTIO_DEVICE_FEATURES:
		return b->device_features_select < 2
			       ? (uint32_t)(b->offered >> 32 * b->device_features_select)
			       : 0;
	case VIRTIO_QUEUE_SIZE_MOST:
		return queue && vmem_balloon_queue_of(b->core, b->queue_select, &what) == 0
			       ? RING_MOST
			       : 0;
	case VIRTIO_QUEUE_READY: return queue && b->queues[b->queue_select].ready;
	case VIRTIO_INTERRUPT_STATUS: return b->interrupt;
	case VIRTIO_STATUS: return b->status | (b->broken ? VIRTIO_STATUS_NEEDS_RESET : 0);
	case VIRTIO_GENERATION: return b->generation;
	default:
		if (offset >= VIRTIO_CONFIG)
			(void)vmem_balloon_config_read(b->core, offset - VIRTIO_CONFIG, &value,
						       sizeof(value));
		return value;
	}
}

uint32_t balloon_get_register(struct balloon *b, uint32_t offset)
{
	uint32_t value;

	pthread_mutex_lock(&b->lock);
	value = get_register(b, offset);
	pthread_mutex_unlock(&b->lock);
	return value;
}
