/* SPDX-License-Identifier: BSD-2-Clause */
/* What both sides of a split virtqueue agree on (VIRTIO 1.3, 2.7). Needs no libc. Both sides run on little-endian
 * machines, so the fields are what they are in memory. */
#ifndef SPLIT_RING_H
#define SPLIT_RING_H
#include <stdint.h>

#include <vmem/balloon_protocol.h> /* struct vmem_balloon_piece: a place in guest memory */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are little-endian");

#define SPLIT_RING_MOST 32768u /* entries of a ring; always a power of two */

/* Features of any device. */
#define SPLIT_RING_F_INDIRECT (UINT64_C(1) << 28)
#define SPLIT_RING_F_EVENT_IDX (UINT64_C(1) << 29)

/* 2.7.5 */
struct split_ring_descriptor {
	uint64_t gpa;
	uint32_t bytes;
	uint16_t flags; /* SPLIT_RING_D_* */
	uint16_t next;
};
#define SPLIT_RING_D_NEXT 1u
#define SPLIT_RING_D_WRITE 2u
#define SPLIT_RING_D_INDIRECT 4u

/* 2.7.6: flags, index, entries of 2 bytes, used_event. 2.7.8: flags, index, entries of 8 bytes, avail_event. All are
 * counted in 16 bits here. */
#define SPLIT_RING_FLAGS 0u
#define SPLIT_RING_INDEX 1u
#define SPLIT_RING_ENTRIES 2u
#define SPLIT_RING_QUIET 1u /* flag: I do not want to be notified */

/* Sizes of the three parts, and what their addresses are multiples of. */
#define SPLIT_RING_DESCRIPTORS_BYTES(size) (UINT64_C(16) * (size))
#define SPLIT_RING_AVAILABLE_BYTES(size) (UINT64_C(6) + UINT64_C(2) * (size))
#define SPLIT_RING_USED_BYTES(size) (UINT64_C(6) + UINT64_C(8) * (size))
#define SPLIT_RING_DESCRIPTORS_ALIGN 16u
#define SPLIT_RING_AVAILABLE_ALIGN 2u
#define SPLIT_RING_USED_ALIGN 4u

/* A ring in memory, each part where this side sees it. */
struct split_ring_parts {
	void *descriptors;
	void *available;
	void *used;
	uint32_t size;
};

static inline int split_ring_parts_good(const struct split_ring_parts *p)
{
	return p->size && p->size <= SPLIT_RING_MOST && !(p->size & (p->size - 1)) &&
	       p->descriptors && p->available && p->used &&
	       !((uintptr_t)p->descriptors % SPLIT_RING_DESCRIPTORS_ALIGN) &&
	       !((uintptr_t)p->available % SPLIT_RING_AVAILABLE_ALIGN) &&
	       !((uintptr_t)p->used % SPLIT_RING_USED_ALIGN);
}

/* Fields of a ring are read and written once each. */
static inline uint16_t split_ring_load(const void *part, uint32_t at)
{
	return __atomic_load_n((const uint16_t *)part + at, __ATOMIC_RELAXED);
}

static inline void split_ring_store(void *part, uint32_t at, uint16_t value)
{
	__atomic_store_n((uint16_t *)part + at, value, __ATOMIC_RELAXED);
}

/* The index of the other side: what it counts is seen after it. */
static inline uint16_t split_ring_load_index(const void *part)
{
	return __atomic_load_n((const uint16_t *)part + SPLIT_RING_INDEX, __ATOMIC_ACQUIRE);
}

/* The index of this side: what it counts was written before it. */
static inline void split_ring_store_index(void *part, uint16_t index)
{
	__atomic_store_n((uint16_t *)part + SPLIT_RING_INDEX, index, __ATOMIC_RELEASE);
}

/* Whether the index has gone past @event on its way from @before to @now (2.7.7.2). */
static inline int split_ring_passed(uint16_t event, uint16_t before, uint16_t now)
{
	return (uint16_t)(now - event - 1u) < (uint16_t)(now - before);
}

#endif
