/* SPDX-License-Identifier: BSD-2-Clause */
/* The device's side. What is read from the ring is copied first and judged then, so a guest that changes it meanwhile
 * changes nothing. */
#include "split_ring_device.h"

#include <string.h>

/* A chain while it is followed. */
struct walk {
	const uint8_t *table; /* of descriptors */
	uint32_t count;       /* in it */
	bool indirect;
};

int split_ring_device_start(struct split_ring_device *ring,
			    const struct split_ring_device_opts *opts)
{
	if (!split_ring_parts_good(&opts->parts) || !opts->translate)
		return -VMEM_EINVAL;
	*ring = (struct split_ring_device){ .o = *opts,
					    .next_available = opts->next_available,
					    .next_used = opts->next_used,
					    .told_used = opts->next_used };
	return 0;
}

/* From memory that changes under us: the copy is what counts from here on. */
static struct split_ring_descriptor descriptor_at(const struct walk *walk, uint32_t i)
{
	struct split_ring_descriptor d;

	memcpy(&d, walk->table + i * sizeof(d), sizeof(d));
	__asm__ volatile("" : "+m"(d) : : "memory");
	return d;
}

/* 2.7.5.3: the table is the guest's like any bytes; it lies in one row. */
static int enter_indirect(const struct split_ring_device *ring, struct walk *walk,
			  const struct split_ring_descriptor *d)
{
	uint64_t bytes = d->bytes;
	const void *table;

	if (!(ring->o.features & SPLIT_RING_F_INDIRECT) || walk->indirect ||
	    d->flags & SPLIT_RING_D_NEXT || !d->bytes ||
	    d->bytes % sizeof(struct split_ring_descriptor))
		return -VMEM_EBADMSG;
	table = ring->o.translate(ring->o.context, d->gpa, &bytes);
	if (!table || bytes < d->bytes)
		return -VMEM_EBADMSG;
	*walk = (struct walk){ .table = table,
			       .count = d->bytes / (uint32_t)sizeof(struct split_ring_descriptor),
			       .indirect = true };
	return 0;
}

static int add_piece(struct split_ring_buffer *b, const struct split_ring_descriptor *d)
{
	bool write = d->flags & SPLIT_RING_D_WRITE;

	/* What the device writes comes last (2.7.4.2); no address goes around the end of the world. */
	if (b->readable + b->writable == b->most || (!write && b->writable) ||
	    d->gpa + d->bytes < d->gpa)
		return -VMEM_EBADMSG;
	b->pieces[b->readable + b->writable] = (struct vmem_balloon_piece){ d->gpa, d->bytes };
	b->readable += !write;
	b->writable += write;
	*(write ? &b->writable_bytes : &b->readable_bytes) += d->bytes;
	return 0;
}

/* Ends after so many steps as there is room for pieces: a circle runs out of it. */
static int follow(const struct split_ring_device *ring, struct split_ring_buffer *b)
{
	struct walk walk = { .table = ring->o.parts.descriptors, .count = ring->o.parts.size };
	uint32_t i = b->head;
	int err;

	for (;;) {
		struct split_ring_descriptor d = descriptor_at(&walk, i);

		if (d.flags & SPLIT_RING_D_INDIRECT) {
			err = enter_indirect(ring, &walk, &d);
			i = 0;
		} else {
			err = add_piece(b, &d);
			if (!err && !(d.flags & SPLIT_RING_D_NEXT))
				return 0;
			i = d.next;
		}
		if (!err && i >= walk.count)
			err = -VMEM_EBADMSG;
		if (err)
			return err;
	}
}

int split_ring_device_take(struct split_ring_device *ring, struct split_ring_buffer *b)
{
	const struct split_ring_parts *p = &ring->o.parts;
	uint16_t there;

	if (ring->broken)
		return -VMEM_EIO;
	there = (uint16_t)(split_ring_load_index(p->available) - ring->next_available);
	if (!there)
		return 0;
	b->readable = b->writable = 0;
	b->readable_bytes = b->writable_bytes = 0;
	b->head =
		split_ring_load(p->available, SPLIT_RING_ENTRIES + ring->next_available % p->size);
	/* More than there are entries, or one that is no descriptor and so can never be returned. */
	if (there > p->size - ring->taken || b->head >= p->size) {
		ring->broken = true;
		return -VMEM_EIO;
	}
	ring->next_available++;
	ring->taken++;
	if (follow(ring, b) == 0)
		return 1;
	ring->malformed++;
	split_ring_device_return(ring, b->head, 0);
	return -VMEM_EBADMSG;
}

/* Out of one piece, from @offset in it. */
static int read_piece(const struct split_ring_device *ring, const struct vmem_balloon_piece *piece,
		      uint64_t offset, uint8_t *bytes, uint64_t count)
{
	while (count) {
		uint64_t row = count;
		const uint8_t *from = ring->o.translate(ring->o.context, piece->gpa + offset, &row);

		if (!from || !row || row > count)
			return -VMEM_EFAULT;
		memcpy(bytes, from, row);
		bytes += row;
		offset += row;
		count -= row;
	}
	return 0;
}

int64_t split_ring_device_read(const struct split_ring_device *ring,
			       const struct split_ring_buffer *b, uint64_t offset, void *bytes,
			       uint32_t most)
{
	uint8_t *to = bytes;
	uint32_t got = 0;

	for (uint32_t i = 0; i < b->readable && got < most; i++) {
		const struct vmem_balloon_piece *piece = &b->pieces[i];
		uint64_t count;

		if (offset >= piece->bytes) {
			offset -= piece->bytes;
			continue;
		}
		count = piece->bytes - offset;
		count = count < most - got ? count : most - got;
		if (read_piece(ring, piece, offset, to + got, count) != 0)
			return -VMEM_EFAULT;
		got += (uint32_t)count;
		offset = 0;
	}
	return got;
}

void split_ring_device_return(struct split_ring_device *ring, uint16_t head, uint32_t written)
{
	const struct split_ring_parts *p = &ring->o.parts;
	uint32_t *entry;

	if (!ring->taken) /* nor was it ever started, perhaps */
		return;
	entry = (uint32_t *)p->used + 1 + 2 * (ring->next_used % p->size);
	ring->taken--;
	__atomic_store_n(&entry[0], (uint32_t)head, __ATOMIC_RELAXED);
	__atomic_store_n(&entry[1], written, __ATOMIC_RELAXED);
	split_ring_store_index(p->used, ++ring->next_used);
}

bool split_ring_device_must_notify(struct split_ring_device *ring)
{
	const struct split_ring_parts *p = &ring->o.parts;
	uint16_t before = ring->told_used;

	/* The driver writes what it wants, then looks at the index: here it is the other way round. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	ring->told_used = ring->next_used;
	if (!(ring->o.features & SPLIT_RING_F_EVENT_IDX))
		return before != ring->next_used &&
		       !(split_ring_load(p->available, SPLIT_RING_FLAGS) & SPLIT_RING_QUIET);
	return split_ring_passed(split_ring_load(p->available, SPLIT_RING_ENTRIES + p->size),
				 before, ring->next_used);
}

bool split_ring_device_listen(struct split_ring_device *ring)
{
	const struct split_ring_parts *p = &ring->o.parts;

	if (ring->broken)
		return false;
	if (ring->o.features & SPLIT_RING_F_EVENT_IDX)
		split_ring_store(p->used, SPLIT_RING_ENTRIES + 4 * p->size, ring->next_available);
	else
		split_ring_store(p->used, SPLIT_RING_FLAGS, 0);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return split_ring_load_index(p->available) != ring->next_available;
}

void split_ring_device_be_quiet(struct split_ring_device *ring)
{
	/* With events an index that was passed already says the same. */
	if (!(ring->o.features & SPLIT_RING_F_EVENT_IDX))
		split_ring_store(ring->o.parts.used, SPLIT_RING_FLAGS, SPLIT_RING_QUIET);
}
