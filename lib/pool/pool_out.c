/* SPDX-License-Identifier: BSD-2-Clause */
/* Objects of segments that are out: the digest, where a load finds them, and how a segment moves or comes home. See
 * pool_out.h. Digests are read under the stream's lock; who reads from a device has a pin of its own kind on the
 * segment, and with it the copy stays, as memory does with a reader's. */
#include "pool/pool_out.h"
#include "base/mem.h"
#include "pool/pool_internal.h"

static size_t digest_bytes(uint32_t count)
{
	return sizeof(struct vmemi_digest) + count * sizeof(struct vmemi_digest_entry);
}

void vmemi_digest_free(vmem_pool *p, struct vmemi_digest *d)
{
	if (d)
		vmemi_free(&p->tables.allocator, d, digest_bytes(d->capacity),
			   _Alignof(struct vmemi_digest));
}

const struct vmemi_digest_entry *vmemi_digest_find(const struct vmemi_digest *d, uint32_t grain)
{
	uint32_t low = 0, high = d->count;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (d->entry[middle].grain < grain)
			low = middle + 1;
		else
			high = middle;
	}
	return low < d->count && d->entry[low].grain == grain ? &d->entry[low] : NULL;
}

uint32_t vmemi_digest_grains(const vmem_pool *p, uint32_t segment,
			     const struct vmemi_digest_entry *e)
{
	uint64_t entry = vmemi_entry_of(p, e->handle);

	return vmemi_entry_is_live(entry) && vmemi_entry_segment(entry) == segment &&
			       vmemi_entry_grain(entry) == e->grain
		       ? vmemi_entry_grains(entry)
		       : 0;
}

void vmemi_pool_set_devices(vmem_pool *p, const struct vmemi_pool_devices *devices)
{
	p->devices = *devices;
}

/* --- Loads --- */

/* The stream of an object that is out, locked, with its entries in the index and the digest. As vmemi_pool_locate(). */
static int lock_object(struct vmem_pool *p, uint32_t stream, vmem_pool_handle handle,
		       struct vmemi_stream **ret_stream, uint64_t *ret_entry,
		       const struct vmemi_digest_entry **ret_found)
{
	struct vmemi_stream *s = vmemi_object_lock(p, stream, handle, ret_entry);
	struct vmemi_segment *seg;
	int err = -VMEM_EAGAIN;

	if (!s)
		return -VMEM_ENOENT;
	seg = vmemi_segment_at(p, vmemi_entry_segment(*ret_entry));
	if (!seg->memory) {
		*ret_found = vmemi_digest_find(seg->digest, vmemi_entry_grain(*ret_entry));
		err = *ret_found ? 0 : -VMEM_EBADMSG;
	}
	if (err)
		vmemi_unlock(&s->lock);
	*ret_stream = s;
	return err;
}

int vmemi_pool_locate(vmem_pool *p, uint32_t stream, vmem_pool_handle handle,
		      struct vmemi_located *w)
{
	const struct vmemi_digest_entry *e;
	struct vmemi_segment *seg;
	struct vmemi_stream *s;
	uint64_t entry;
	int err = lock_object(p, stream, handle, &s, &entry, &e);

	if (err)
		return err;
	seg = vmemi_segment_at(p, vmemi_entry_segment(entry));
	if (seg->place == VMEMI_PLACE_LOST) {
		err = -VMEM_EIO;
	} else {
		*w = (struct vmemi_located){
			.segment = seg,
			.place = seg->place,
			.offset = e->at * VMEMI_GRAIN_BYTES,
			.bytes = (uint32_t)sizeof(struct vmemi_object_header) +
				 vmemi_entry_bytes(entry),
			.handle = (uint32_t)handle,
			.checksum = e->checksum,
			.entry = entry,
			.reference = e->reference,
			.copy = seg->copy,
			.copy_blocks = seg->digest->blocks,
		};
		atomic_fetch_add(&seg->pins, VMEMI_PIN_DEVICE(seg->copy));
	}
	vmemi_unlock(&s->lock);
	return err;
}

static void unpin(struct vmemi_segment *seg, uint32_t copy)
{
	atomic_fetch_sub_explicit(&seg->pins, VMEMI_PIN_DEVICE(copy), memory_order_release);
}

void vmemi_pool_located_end(vmem_pool *p, const struct vmemi_located *w)
{
	(void)p;
	unpin(w->segment, w->copy);
}

uint32_t vmemi_pool_reference(vmem_pool *p, uint32_t stream, vmem_pool_handle handle)
{
	uint64_t entry;
	struct vmemi_stream *s = vmemi_object_lock(p, stream, handle, &entry);
	uint32_t reference;

	if (!s)
		return 0;
	reference = vmemi_entry_reference(p, entry);
	vmemi_unlock(&s->lock);
	return reference;
}

int vmemi_out_checksum(vmem_pool *p, uint32_t stream, vmem_pool_handle handle,
		       uint32_t *ret_checksum)
{
	const struct vmemi_digest_entry *e;
	struct vmemi_stream *s;
	uint64_t entry;
	int err = lock_object(p, stream, handle, &s, &entry, &e);

	if (err)
		return err;
	*ret_checksum = e->checksum;
	vmemi_unlock(&s->lock);
	return 0;
}

/* --- Segments that are out --- */

/* The stream of a segment that is out, locked. NULL: it is not. */
static struct vmemi_stream *lock_out(struct vmem_pool *p, uint32_t number)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);
	struct vmemi_stream *s;
	uint32_t id;

	if (!seg)
		return NULL;
	id = atomic_load_explicit(&seg->stream, memory_order_relaxed);
	s = vmemi_stream_at(p, id);
	if (!s)
		return NULL;
	vmemi_lock(&s->lock);
	/* If it is out and of this stream, it stays both under the lock. One that is another stream's by now is told by
	 * the second word, which was written before the first. */
	if (atomic_load_explicit(&seg->is_out, memory_order_acquire) &&
	    atomic_load_explicit(&seg->stream, memory_order_relaxed) == id)
		return s;
	vmemi_unlock(&s->lock);
	return NULL;
}

static bool is_vacated(const struct vmemi_segment *seg, uint32_t copy)
{
	return !(atomic_load(&seg->pins) & VMEMI_PINS_DEVICE(copy));
}

uint32_t vmemi_pool_heat(const struct vmemi_located *w, uint32_t blocks, uint16_t time)
{
	_Atomic uint32_t *heat = &w->segment->heat;
	uint32_t was = atomic_load_explicit(heat, memory_order_relaxed), now;

	do {
		uint16_t steps = (uint16_t)(time - (was >> 16));

		if (steps > UINT16_MAX / 2) { /* another thread knows of a later time */
			time = (uint16_t)(was >> 16);
			steps = 0;
		}
		now = (steps < 16 ? (was & UINT16_MAX) >> steps : 0) + blocks;
		now = now < UINT16_MAX ? now : UINT16_MAX;
	} while (!atomic_compare_exchange_weak_explicit(heat, &was, (uint32_t)time << 16 | now,
							memory_order_relaxed,
							memory_order_relaxed));
	return now;
}

/* --- To another device --- */

int vmemi_pool_move_begin(vmem_pool *p, uint32_t number, uint64_t place, struct vmemi_moving *m)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);
	struct vmemi_stream *s = lock_out(p, number);
	bool there = s && seg->place == place;

	if (there) {
		*m = (struct vmemi_moving){ .number = number,
					    .bytes = seg->digest->blocks * VMEMI_OUT_BLOCK,
					    .place = place,
					    .segment = seg,
					    .copy = seg->copy };
		atomic_fetch_add(&seg->pins, VMEMI_PIN_DEVICE(seg->copy));
	}
	if (s)
		vmemi_unlock(&s->lock);
	return there ? 0 : -VMEM_ENOENT;
}

bool vmemi_pool_copy_blocks(vmem_pool *p, uint32_t number, uint64_t place, uint32_t *ret_blocks,
			    uint32_t *ret_live)
{
	const struct vmemi_segment *seg = vmemi_segment_at(p, number);
	struct vmemi_stream *s = lock_out(p, number);
	bool there = s && seg->place == place;

	if (there) {
		*ret_blocks = seg->digest->blocks;
		*ret_live = (seg->live * VMEMI_GRAIN_BYTES + VMEMI_OUT_BLOCK - 1) / VMEMI_OUT_BLOCK;
	}
	if (s)
		vmemi_unlock(&s->lock);
	return there;
}

/* What is live, as often as it is looked at less; at most UINT16_MAX. */
static uint32_t count_live(const struct vmem_pool *p, const struct vmemi_moving *m)
{
	const struct vmemi_digest *d = m->segment->digest;
	uint32_t count = 0;

	for (uint32_t i = 0; i < d->count; i++)
		count += vmemi_digest_grains(p, m->number, &d->entry[i]) != 0;
	return count;
}

/* Moves objects down, in their order, and enters them in @d. Returns how many grains they have; 0: nothing is live, or
 * one is not what was written. */
static uint32_t pack_down(const struct vmem_pool *p, const struct vmemi_moving *m,
			  unsigned char *data, struct vmemi_digest *d)
{
	const struct vmemi_digest *from = m->segment->digest;
	uint32_t to = 0;

	for (uint32_t i = 0; i < from->count; i++) {
		const struct vmemi_digest_entry *e = &from->entry[i];
		const unsigned char *object = data + e->at * VMEMI_GRAIN_BYTES;
		uint32_t grains = vmemi_digest_grains(p, m->number, e);
		struct vmemi_object_header header;

		if (!grains)
			continue;
		memcpy(&header, object, sizeof(header));
		if (header.handle != e->handle || header.checksum != e->checksum)
			return 0;
		memmove(data + to * VMEMI_GRAIN_BYTES, object, grains * VMEMI_GRAIN_BYTES);
		d->entry[d->count] = *e;
		d->entry[d->count++].at = (uint16_t)to;
		to += grains;
	}
	return to;
}

int vmemi_pool_move_pack(vmem_pool *p, struct vmemi_moving *m, void *data, uint32_t *ret_bytes)
{
	/* The digest stays while its copy is pinned, and nothing that is dead in it lives again. */
	uint32_t count = count_live(p, m), bytes, rest;
	struct vmemi_digest *d;

	if (!count)
		return -VMEM_ENOENT;
	d = vmemi_alloc(&p->tables.allocator, digest_bytes(count), _Alignof(struct vmemi_digest));
	if (!d)
		return -VMEM_ENOMEM;
	*d = (struct vmemi_digest){ .capacity = count };
	bytes = pack_down(p, m, data, d) * VMEMI_GRAIN_BYTES;
	if (!bytes) {
		vmemi_digest_free(p, d);
		return count_live(p, m) ? -VMEM_EBADMSG : -VMEM_ENOENT;
	}
	rest = -bytes % VMEMI_OUT_BLOCK;
	memset((unsigned char *)data + bytes, 0, rest);
	d->blocks = (bytes + rest) / VMEMI_OUT_BLOCK;
	m->digest = d;
	*ret_bytes = bytes + rest;
	return 0;
}

bool vmemi_pool_move_end(vmem_pool *p, struct vmemi_moving *m, uint64_t place)
{
	struct vmemi_digest *digest = m->digest; /* that nobody needs any more */
	struct vmemi_stream *s = lock_out(p, m->number);

	if (s) {
		if (m->digest) {
			digest = m->segment->digest;
			m->segment->digest = m->digest;
		}
		m->segment->place = place;
		m->segment->copy = !m->copy;
		vmemi_unlock(&s->lock);
	}
	m->digest = NULL;
	vmemi_digest_free(p, digest);
	unpin(m->segment, m->copy);
	return s != NULL;
}

bool vmemi_pool_move_vacated(vmem_pool *p, const struct vmemi_moving *m)
{
	(void)p;
	return is_vacated(m->segment, m->copy);
}

void vmemi_pool_move_cancel(vmem_pool *p, struct vmemi_moving *m)
{
	vmemi_digest_free(p, m->digest);
	m->digest = NULL;
	unpin(m->segment, m->copy);
}

/* --- Home --- */

int vmemi_pool_home_begin(vmem_pool *p, uint32_t number, struct vmemi_homing *h)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);
	struct vmemi_stream *s = lock_out(p, number);
	uint32_t spare;
	int err;

	if (!s)
		return -VMEM_ENOENT;
	*h = (struct vmemi_homing){ .number = number,
				    .bytes = seg->digest->blocks * VMEMI_OUT_BLOCK,
				    .place = seg->place,
				    .segment = seg,
				    .copy = seg->copy };
	atomic_fetch_add(&seg->pins, VMEMI_PIN_DEVICE(seg->copy));
	atomic_store_explicit(&seg->heat, 0,
			      memory_order_relaxed); /* if it fails, not soon again */
	vmemi_unlock(&s->lock);
	err = vmemi_segment_get(p, VMEMI_FOR_REPLACEMENT, &spare);
	if (err)
		unpin(seg, h->copy);
	else
		h->memory = vmemi_segment_take_memory(p, spare);
	return err;
}

/* Moves the object to where the index says that it is, and writes its header as it was. What is wrong in the bytes
 * of an object is for its checksum to tell, but drops believe headers. */
static void unpack(struct vmem_pool *p, uint32_t number, unsigned char *memory,
		   const struct vmemi_digest_entry *e)
{
	uint64_t entry = vmemi_entry_of(p, e->handle);
	unsigned char *to = memory + e->grain * VMEMI_GRAIN_BYTES;
	struct vmemi_object_header header = {
		.handle = e->handle,
		.checksum = e->checksum,
		.bytes = (uint16_t)vmemi_entry_bytes(entry),
		.form = (uint8_t)vmemi_entry_form(entry),
		.reference_check = e->reference ? vmemi_reference_check(e->reference) : 0,
	};

	if (!vmemi_digest_grains(p, number, e))
		return;
	memmove(to, memory + e->at * VMEMI_GRAIN_BYTES,
		vmemi_entry_grains(entry) * VMEMI_GRAIN_BYTES);
	memcpy(to, &header, sizeof(header));
	if (e->reference)
		memcpy(to + sizeof(header), &e->reference, sizeof(e->reference));
}

/* What lies between live objects is made one dead object after the other: a walk comes by. */
static void bury(unsigned char *memory, uint32_t from, uint32_t to)
{
	const uint32_t least = vmemi_object_grains(1), most = vmemi_object_grains(VMEM_PAGE_SIZE);

	while (from + least <= to) {
		struct vmemi_object_header header = { .handle = 0 };
		uint32_t grains = to - from < most ? to - from : most;

		if (to - from - grains && to - from - grains < least)
			grains -= least;
		header.bytes = (uint16_t)(grains * VMEMI_GRAIN_BYTES - sizeof(header));
		memcpy(memory + from * VMEMI_GRAIN_BYTES, &header, sizeof(header));
		from += grains;
	}
}

static void unpack_all(struct vmem_pool *p, uint32_t number, unsigned char *memory, uint32_t used)
{
	const struct vmemi_digest *d = vmemi_segment_at(p, number)->digest;
	uint32_t end = used;

	for (uint32_t i = d->count; i-- > 0;) /* objects move up only */
		unpack(p, number, memory, &d->entry[i]);
	for (uint32_t i = d->count; i-- > 0;) {
		uint64_t entry = vmemi_entry_of(p, d->entry[i].handle);

		if (!vmemi_digest_grains(p, number, &d->entry[i]))
			continue;
		bury(memory, d->entry[i].grain + vmemi_entry_grains(entry), end);
		end = d->entry[i].grain;
	}
	bury(memory, 0, end);
}

bool vmemi_pool_home_end(vmem_pool *p, struct vmemi_homing *h)
{
	struct vmemi_stream *s = lock_out(p, h->number);
	struct vmemi_digest *digest = NULL;

	if (s) {
		digest = h->segment->digest;
		unpack_all(p, h->number, h->memory, h->segment->used);
		h->segment->digest = NULL;
		vmemi_stream_home(p, s, h->number, h->memory, h->is_young);
		vmemi_unlock(&s->lock);
	}
	unpin(h->segment, h->copy);
	if (!s)
		vmemi_segment_recycle(p, h->memory);
	vmemi_digest_free(p, digest);
	return s != NULL;
}

bool vmemi_pool_home_vacated(vmem_pool *p, const struct vmemi_homing *h)
{
	(void)p;
	return is_vacated(h->segment, h->copy);
}

void vmemi_pool_home_cancel(vmem_pool *p, struct vmemi_homing *h)
{
	unpin(h->segment, h->copy);
	vmemi_segment_recycle(p, h->memory);
}

void vmemi_pool_home_expire(vmem_pool *p, const struct vmemi_homing *h)
{
	(void)p;
	unpin(h->segment, h->copy);
}

void vmemi_pool_home_recycle(vmem_pool *p, unsigned char *memory)
{
	vmemi_segment_recycle(p, memory);
}

/* --- Counters --- */

void vmemi_pool_out_stats(vmem_pool *p, struct vmemi_out_stats *stats)
{
	uint32_t streams = atomic_load_explicit(&p->stream_count, memory_order_acquire);

	*stats = (struct vmemi_out_stats){ 0 };
	for (uint32_t id = 0; id < streams; id++) {
		struct vmemi_stream *s = vmemi_stream_at(p, id);

		vmemi_lock(&s->lock);
		stats->segments += s->out_segments;
		stats->live_bytes += s->out_live * VMEMI_GRAIN_BYTES;
		vmemi_unlock(&s->lock);
	}
	vmemi_lock(&p->lock);
	stats->memory_bytes = p->in_use * VMEM_POOL_SEGMENT_BYTES;
	stats->budget_bytes = p->budget_bytes;
	vmemi_unlock(&p->lock);
}
