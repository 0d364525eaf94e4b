/* SPDX-License-Identifier: BSD-2-Clause */
/* Loading objects, and looking at them. Loads take no lock: pool_internal.h says how they and the freeing
 * of a segment stay apart.
 *
 * A delta is decoded together with its reference, which is found by its handle like any object. An owner
 * may replace a delta and then drop the reference while a load is between the two: then the delta's entry
 * has changed, and the load starts over. */
#include "base/mem.h"
#include "pool/pool_internal.h"
#include "pool/pool_slot.h"

#define NO_SLOT UINT32_MAX

/* --- Holding --- */

/* Pins the segment of an object. False: there is none of that stream. */
static bool hold(struct vmem_pool *p, uint32_t stream, vmem_pool_handle handle,
		 struct vmemi_held *h)
{
	uint64_t entry = vmemi_entry_of(p, handle), again;

	while (vmemi_entry_is_live(entry)) {
		struct vmemi_segment *seg = vmemi_segment_at(p, vmemi_entry_segment(entry));
		bool same;

		atomic_fetch_add(&seg->pins, 1);
		again = atomic_load(vmemi_index_at(p, (uint32_t)handle));
		same = vmemi_entry_is_same(again, entry);
		if (same && vmemi_segment_is_of(seg, stream)) {
			*h = (struct vmemi_held){ seg, (uint32_t)handle, entry };
			return true;
		}
		atomic_fetch_sub_explicit(&seg->pins, 1, memory_order_release);
		if (same)
			return false;
		entry = again;
	}
	return false;
}

bool vmemi_pool_is_current(const vmem_pool *p, const struct vmemi_held *h)
{
	return vmemi_entry_is_same(vmemi_entry_of(p, h->handle), h->entry);
}

void vmemi_pool_let_go(vmem_pool *p, const struct vmemi_held *h)
{
	(void)p;
	atomic_fetch_sub_explicit(&h->segment->pins, 1, memory_order_release);
}

void vmemi_pool_corrupt_of(struct vmem_pool *p, uint32_t stream, vmem_pool_handle handle)
{
	atomic_fetch_add_explicit(&p->corrupt, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&vmemi_stream_at(p, stream)->corrupt, 1, memory_order_relaxed);
	vmemi_pool_note(p, (uint32_t)handle, stream);
}

static int release(struct vmem_pool *p, const struct vmemi_held *h, int err)
{
	if (err == -VMEM_EBADMSG)
		vmemi_pool_corrupt_of(p, atomic_load(&h->segment->stream), h->handle);
	vmemi_pool_let_go(p, h);
	return err;
}

/* --- Decoding --- */

/* The payload, if the header is what the index says. */
static const unsigned char *payload_of(const struct vmemi_held *h, uint32_t *ret_checksum)
{
	const unsigned char *object =
		h->segment->memory + vmemi_entry_grain(h->entry) * VMEMI_GRAIN_BYTES;
	struct vmemi_object_header header;

	memcpy(&header, object, sizeof(header));
	if (header.handle != h->handle || header.bytes != vmemi_entry_bytes(h->entry) ||
	    header.codec != vmemi_entry_codec(h->entry) ||
	    (header.reference_check && header.codec != VMEM_CODEC_DELTA))
		return NULL;
	*ret_checksum = header.checksum;
	return object + sizeof(header);
}

static bool needs_slot(const struct vmem_codec *codec)
{
	return codec->context_bytes && !(codec->flags & VMEM_CODEC_DECODE_WITHOUT_CONTEXT);
}

/* With the checksum compared. @slot: only used if the codec needs one. 0, -VMEM_EBADMSG. */
static int decode(struct vmem_pool *p, const struct vmemi_held *h, uint32_t slot, void *page)
{
	const struct vmem_codec *codec = p->codec[vmemi_entry_codec(h->entry)];
	uint32_t checksum;
	const unsigned char *payload = payload_of(h, &checksum);
	void *context = needs_slot(codec) ? vmemi_slot_context(p, slot, codec) : NULL;

	if (!payload || codec->decode(context, page, payload, vmemi_entry_bytes(h->entry), NULL) ||
	    vmemi_pool_checksum(p, page) != checksum)
		return -VMEM_EBADMSG;
	return 0;
}

/* The page that a delta was made against. 0, -VMEM_EBADMSG. */
static int read_reference(struct vmem_pool *p, const struct vmemi_held *delta, uint32_t slot,
			  uint32_t *ret_damaged)
{
	uint32_t stream = atomic_load_explicit(&delta->segment->stream, memory_order_relaxed);
	uint32_t reference = vmemi_object_reference(p, delta->entry), codec;
	int err = -VMEM_EBADMSG;
	struct vmemi_held h;

	if (!reference || !hold(p, stream, reference, &h))
		return err;
	codec = vmemi_entry_codec(h.entry);
	if (codec && codec != VMEM_CODEC_DELTA) {
		err = decode(p, &h, slot, vmemi_slot_reference(p, slot));
		if (err)
			*ret_damaged = reference;
	}
	vmemi_pool_let_go(p, &h);
	return err;
}

/* 0, -VMEM_EBADMSG. */
static int decode_delta(struct vmem_pool *p, const struct vmemi_held *h, uint32_t slot, void *page,
			uint32_t *ret_damaged)
{
	const struct vmem_codec *codec = p->codec[VMEM_CODEC_DELTA];
	const uint32_t before = sizeof(uint32_t); /* the payload: the reference's handle */
	uint32_t checksum;
	const unsigned char *payload = payload_of(h, &checksum);

	if (!payload || read_reference(p, h, slot, ret_damaged) ||
	    codec->decode(needs_slot(codec) ? vmemi_slot_context(p, slot, codec) : NULL, page,
			  payload + before, vmemi_entry_bytes(h->entry) - before,
			  vmemi_slot_reference(p, slot)) ||
	    vmemi_pool_checksum(p, page) != checksum)
		return -VMEM_EBADMSG;
	return 0;
}

/* @slot: the caller's, or NO_SLOT. 0, -VMEM_EBADMSG, -VMEM_ENOENT (bytes, not a page).
 * @ret_damaged: the handle of what is, if something is. */
static int read_page(struct vmem_pool *p, const struct vmemi_held *h, uint32_t slot, void *page,
		     uint32_t *ret_damaged)
{
	uint32_t codec = vmemi_entry_codec(h->entry);
	bool is_delta = codec == VMEM_CODEC_DELTA;
	bool take = slot == NO_SLOT && codec && (is_delta || needs_slot(p->codec[codec]));
	int err = -VMEM_ENOENT;

	*ret_damaged = h->handle;
	if (take)
		slot = vmemi_slot_take(p, VMEMI_SLOT_ANY);
	if (codec)
		err = is_delta ? decode_delta(p, h, slot, page, ret_damaged)
			       : decode(p, h, slot, page);
	if (take)
		vmemi_slot_give(p, slot);
	return err;
}

/* Whether the object was replaced since it was held, so that a delta's reference may be gone. */
static bool was_replaced(const struct vmem_pool *p, const struct vmemi_held *h)
{
	return vmemi_entry_codec(h->entry) == VMEM_CODEC_DELTA && !vmemi_pool_is_current(p, h);
}

/* As read_page(), of an object that is held from then on: @h without a segment: there is none. With
 * -VMEM_EBADMSG @h has the handle of what is damaged. */
static int hold_and_read(vmem_pool *p, uint32_t stream, vmem_pool_handle handle, uint32_t slot,
			 void *page, struct vmemi_held *h)
{
	uint32_t damaged;
	int err;

	while (hold(p, stream, handle, h)) {
		err = read_page(p, h, slot, page, &damaged);
		if (err != -VMEM_EBADMSG || !was_replaced(p, h)) {
			h->handle = damaged;
			return err;
		}
		vmemi_pool_let_go(p, h);
	}
	h->segment = NULL;
	return -VMEM_ENOENT;
}

int vmemi_pool_load_of(vmem_pool *p, uint32_t stream, vmem_pool_handle handle, void *page)
{
	struct vmemi_held h;
	int err = hold_and_read(p, stream, handle, NO_SLOT, page, &h);

	return h.segment ? release(p, &h, err) : err;
}

int vmem_pool_load_page(vmem_pool *p, vmem_pool_handle handle, void *page)
{
	return vmemi_pool_load_of(p, VMEMI_ANY_STREAM, handle, page);
}

int vmemi_pool_equal(vmem_pool *p, uint32_t stream, vmem_pool_handle handle, const void *page)
{
	uint32_t slot = vmemi_slot_take(p, p->encode_slots);
	unsigned char *found = vmemi_slot_result(p, slot);
	struct vmemi_held h;
	int err = hold_and_read(p, stream, handle, slot, found, &h);
	int equal = !err && !memcmp(found, page, VMEM_PAGE_SIZE);

	if (h.segment)
		vmemi_pool_let_go(p, &h);
	vmemi_slot_give(p, slot);
	return err ? err : equal;
}

int vmem_pool_load_bytes(vmem_pool *p, vmem_pool_handle handle, void *data, uint32_t capacity,
			 uint32_t *ret_bytes)
{
	const unsigned char *payload;
	uint32_t bytes, checksum;
	struct vmemi_held h;

	if (!hold(p, VMEMI_ANY_STREAM, handle, &h))
		return -VMEM_ENOENT;
	bytes = vmemi_entry_bytes(h.entry);
	if (vmemi_entry_codec(h.entry))
		return release(p, &h, -VMEM_ENOENT);
	if (bytes > capacity)
		return release(p, &h, -VMEM_ERANGE);
	payload = payload_of(&h, &checksum);
	if (!payload || (uint32_t)p->hash(payload, bytes, 0) != checksum)
		return release(p, &h, -VMEM_EBADMSG);
	memcpy(data, payload, bytes);
	*ret_bytes = bytes;
	return release(p, &h, 0);
}

/* --- Describing --- */

int vmem_pool_describe(vmem_pool *p, vmem_pool_handle handle, uint32_t *ret_codec,
		       uint32_t *ret_bytes)
{
	uint64_t entry = vmemi_entry_of(p, handle);

	if (!vmemi_entry_is_live(entry))
		return -VMEM_ENOENT;
	*ret_codec = vmemi_entry_codec(entry);
	*ret_bytes = vmemi_entry_bytes(entry);
	return 0;
}

bool vmemi_pool_hold(vmem_pool *p, uint32_t stream, vmem_pool_handle handle,
		     struct vmemi_held *ret_held, struct vmemi_described *ret_described)
{
	struct vmemi_described d = { 0 };

	if (!hold(p, stream, handle, ret_held))
		return false;
	d.stream = atomic_load_explicit(&ret_held->segment->stream, memory_order_relaxed);
	d.codec = vmemi_entry_codec(ret_held->entry);
	d.bytes = vmemi_entry_bytes(ret_held->entry);
	d.mark = (enum vmemi_mark)vmemi_entry_mark(ret_held->entry);
	if (!d.codec || !payload_of(ret_held, &d.checksum)) {
		vmemi_pool_let_go(p, ret_held);
		return false;
	}
	*ret_described = d;
	return true;
}

int vmemi_pool_checksum_of(vmem_pool *p, uint32_t stream, vmem_pool_handle handle,
			   uint32_t *ret_checksum)
{
	struct vmemi_held h;
	bool whole;

	if (!hold(p, stream, handle, &h))
		return -VMEM_ENOENT;
	whole = payload_of(&h, ret_checksum) != NULL;
	vmemi_pool_let_go(p, &h);
	return whole ? 0 : -VMEM_EBADMSG;
}

bool vmemi_pool_is_whole(vmem_pool *p, const struct vmemi_held *h)
{
	uint32_t slot = vmemi_slot_take(p, VMEMI_SLOT_ANY), damaged;
	int err = read_page(p, h, slot, vmemi_slot_result(p, slot), &damaged);

	vmemi_slot_give(p, slot);
	return !err;
}

int vmemi_pool_read(vmem_pool *p, const struct vmemi_held *h, void *page)
{
	uint32_t damaged;

	return read_page(p, h, NO_SLOT, page, &damaged);
}

uint32_t vmemi_pool_next(const vmem_pool *p, uint32_t first, uint32_t max, uint32_t *ret_next,
			 enum vmemi_mark *ret_mark)
{
	uint32_t end = vmemi_index_end(p);

	for (uint32_t handle = first ? first : 1; handle < end; handle++) {
		uint64_t entry =
			atomic_load_explicit(vmemi_index_at(p, handle), memory_order_relaxed);

		if (vmemi_entry_is_live(entry) && vmemi_entry_mark(entry) < VMEMI_MARK_SETTLED &&
		    vmemi_entry_codec(entry)) {
			*ret_next = handle + 1;
			*ret_mark = (enum vmemi_mark)vmemi_entry_mark(entry);
			return handle;
		}
		if (!--max) {
			*ret_next = handle + 1;
			return 0;
		}
	}
	*ret_next = 0;
	return 0;
}

void vmemi_pool_mark(vmem_pool *p, vmem_pool_handle handle, enum vmemi_mark mark)
{
	uint64_t entry = vmemi_entry_of(p, handle);

	if (vmemi_entry_is_live(entry))
		atomic_compare_exchange_strong(vmemi_index_at(p, (uint32_t)handle), &entry,
					       (entry & ~VMEMI_ENTRY_MARK) |
						       (uint64_t)mark << VMEMI_ENTRY_MARK_SHIFT);
}
