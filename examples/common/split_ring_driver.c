/* SPDX-License-Identifier: BSD-2-Clause */
/* The driver's side. Which descriptors are free is kept in memory that the device does not see. */
#include "split_ring_driver.h"

#include <string.h>

int split_ring_driver_start(struct split_ring_driver *ring, const struct split_ring_parts *parts,
			    struct split_ring_slot *slots, uint64_t features)
{
	if (!split_ring_parts_good(parts))
		return -VMEM_EINVAL;
	*ring = (struct split_ring_driver){ .parts = *parts,
					    .slots = slots,
					    .features = features & SPLIT_RING_F_EVENT_IDX,
					    .free_count = (uint16_t)parts->size };
	for (uint32_t i = 0; i < parts->size; i++)
		slots[i] = (struct split_ring_slot){ .next = (uint16_t)(i + 1) };
	memset(parts->descriptors, 0, SPLIT_RING_DESCRIPTORS_BYTES(parts->size));
	memset(parts->available, 0, SPLIT_RING_AVAILABLE_BYTES(parts->size));
	memset(parts->used, 0, SPLIT_RING_USED_BYTES(parts->size));
	return 0;
}

int split_ring_driver_add(struct split_ring_driver *ring, const struct vmem_balloon_piece *pieces,
			  uint32_t readable, uint32_t writable, uint32_t token)
{
	struct split_ring_descriptor *descriptors = ring->parts.descriptors;
	uint32_t count = readable + writable;
	uint16_t head = ring->free, i = head;

	if (!count || count < readable)
		return -VMEM_EINVAL;
	if (count > ring->free_count)
		return -VMEM_ENOSPC;
	for (uint32_t k = 0; k < count; k++)
		if (pieces[k].bytes > UINT32_MAX)
			return -VMEM_EINVAL;
	for (uint32_t k = 0; k < count; k++) {
		uint32_t flags = (k + 1 < count ? SPLIT_RING_D_NEXT : 0) |
				 (k >= readable ? SPLIT_RING_D_WRITE : 0);

		descriptors[i] =
			(struct split_ring_descriptor){ pieces[k].gpa, (uint32_t)pieces[k].bytes,
							(uint16_t)flags, ring->slots[i].next };
		i = ring->slots[i].next;
	}
	ring->free = i;
	ring->free_count = (uint16_t)(ring->free_count - count);
	ring->slots[head].length = (uint16_t)count;
	ring->slots[head].token = token;
	split_ring_store(ring->parts.available,
			 SPLIT_RING_ENTRIES + ring->next_available % ring->parts.size, head);
	split_ring_store_index(ring->parts.available, ++ring->next_available);
	return 0;
}

bool split_ring_driver_must_kick(struct split_ring_driver *ring)
{
	uint16_t before = ring->kicked;

	/* The device writes what it wants, then looks at the index: here it is the other way round. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	ring->kicked = ring->next_available;
	if (ring->features & SPLIT_RING_F_EVENT_IDX)
		return split_ring_passed(split_ring_load(ring->parts.used,
							 SPLIT_RING_ENTRIES + 4 * ring->parts.size),
					 before, ring->next_available);
	return before != ring->next_available &&
	       !(split_ring_load(ring->parts.used, SPLIT_RING_FLAGS) & SPLIT_RING_QUIET);
}

int split_ring_driver_take(struct split_ring_driver *ring, uint32_t *ret_token,
			   uint32_t *ret_written)
{
	const uint32_t *entry =
		(const uint32_t *)ring->parts.used + 1 + 2 * (ring->next_used % ring->parts.size);
	struct split_ring_slot *slot;
	uint32_t head;
	uint16_t last;

	if (split_ring_load_index(ring->parts.used) == ring->next_used)
		return 0;
	head = __atomic_load_n(&entry[0], __ATOMIC_RELAXED);
	ring->next_used++;
	if (head >= ring->parts.size || !ring->slots[head].length)
		return -VMEM_EBADMSG;
	slot = &ring->slots[head];
	*ret_token = slot->token;
	*ret_written = __atomic_load_n(&entry[1], __ATOMIC_RELAXED);
	last = (uint16_t)head;
	for (uint16_t k = 1; k < slot->length; k++)
		last = ring->slots[last].next;
	ring->free_count = (uint16_t)(ring->free_count + slot->length);
	slot->length = 0;
	ring->slots[last].next = ring->free;
	ring->free = (uint16_t)head;
	return 1;
}

bool split_ring_driver_listen(struct split_ring_driver *ring)
{
	void *available = ring->parts.available;

	if (ring->features)
		split_ring_store(available, SPLIT_RING_ENTRIES + ring->parts.size, ring->next_used);
	else
		split_ring_store(available, SPLIT_RING_FLAGS, 0);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return split_ring_load_index(ring->parts.used) != ring->next_used;
}

void split_ring_driver_be_quiet(struct split_ring_driver *ring)
{
	/* With events an index that was passed already says the same. */
	if (!ring->features)
		split_ring_store(ring->parts.available, SPLIT_RING_FLAGS, SPLIT_RING_QUIET);
}
