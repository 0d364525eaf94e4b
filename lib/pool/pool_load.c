/* SPDX-License-Identifier: BSD-2-Clause */
/* Loading objects, and looking at them. Loads take no lock: pool_internal.h says how they and the freeing
 * of a segment stay apart.
 *
 * The bytes of an object that is out come with the call (pool_out.h). A delta is decoded together with its reference, which is found by its handle like any object. An owner
 * may replace a delta and then drop the reference while a load is between the two: then the delta's entry
 * has changed, and the load starts over. */
#include "base/mem.h"
#include "pool/pool_internal.h"
#include "pool/pool_slot.h"

#define NO_SLOT UINT32_MAX

/* --- Holding --- */

/* Pins the segment of an object. 0, -VMEM_ENOENT (there is none of that stream), -VMEM_EAGAIN (it is out). */
static int hold(struct vmem_pool *p, uint32_t stream, vmem_pool_handle handle, struct vmemi_held *h)
{
	uint64_t entry = vmemi_entry_of(p, handle), again;

	while (vmemi_entry_is_live(entry)) {
		struct vmemi_segment *seg = vmemi_segment_at(p, vmemi_entry_segment(entry));
		const unsigned char *memory = NULL;
		bool same, is_of = false;

		atomic_fetch_add(&seg->pins, 1);
		again = atomic_load(vmemi_index_at(p, (uint32_t)handle));
		same = vmemi_entry_is_same(again, entry);
		if (same && vmemi_segment_is_of(seg, stream)) {
			is_of = true;
			memory = atomic_load(&seg->memory);
		}
		if (memory) {
			*h = (struct vmemi_held){ .segment = seg,
						  .handle = (uint32_t)handle,
						  .entry = entry,
						  .object = memory + vmemi_entry_grain(entry) *
									     VMEMI_GRAIN_BYTES };
			return 0;
		}
		atomic_fetch_sub_explicit(&seg->pins, 1, memory_order_release);
		if (same)
			return is_of ? -VMEM_EAGAIN : -VMEM_ENOENT;
		entry = again;
	}
	return -VMEM_ENOENT;
}

bool vmemi_pool_is_current(const vmem_pool *p, const struct vmemi_held *h)
{
	return vmemi_entry_is_same(vmemi_entry_of(p, h->handle), h->entry);
}

void vmemi_pool_let_go(vmem_pool *p, const struct vmemi_held *h)
{
	(void)p;
	if (h->segment) /* else it is a copy of the caller's */
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

/* The payload, if the header is what the index says, and the digest where it comes from a device. */
static const unsigned char *payload_of(const struct vmemi_held *h, uint32_t *ret_checksum)
{
	struct vmemi_object_header header;

	memcpy(&header, h->object, sizeof(header));
	if (header.handle != h->handle || header.bytes != vmemi_entry_bytes(h->entry) ||
	    header.form != vmemi_entry_form(h->entry) ||
	    (header.reference_check && VMEMI_FORM_CODEC(header.form) != VMEM_CODEC_DELTA) ||
	    (h->piece && header.checksum != h->piece->checksum))
		return NULL;
	*ret_checksum = header.checksum;
	return h->object + sizeof(header);
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

/* One of the two that were read from a device, or NULL. */
static const struct vmemi_piece *piece_of(const struct vmemi_piece *pieces, uint32_t handle)
{
	for (uint32_t i = 0; pieces && i < VMEMI_PIECES; i++)
		if (pieces[i].handle == handle)
			return &pieces[i];
	return NULL;
}

/* As hold(), of a piece if there is one, which has no segment then; -VMEM_EBADMSG: it is not what was written. */
static int hold_piece(struct vmem_pool *p, uint32_t stream, vmem_pool_handle handle,
		      const struct vmemi_piece *pieces, struct vmemi_held *h)
{
	const struct vmemi_piece *piece = piece_of(pieces, (uint32_t)handle);
	uint32_t checksum;

	if (!piece)
		return hold(p, stream, handle, h);
	*h = (struct vmemi_held){ .handle = piece->handle,
				  .entry = piece->entry,
				  .object = piece->object,
				  .piece = piece };
	return payload_of(h, &checksum) ? 0 : -VMEM_EBADMSG;
}

/* Where the bytes of a load come from, and what it lacks. */
struct reading {
	uint32_t stream;
	const struct vmemi_piece *pieces; /* VMEMI_PIECES of them, or NULL */
	uint32_t damaged;                 /* with -VMEM_EBADMSG: what is */
	uint32_t missing;                 /* with -VMEM_EAGAIN: what is out */
};

/* The page that a delta was made against. 0, -VMEM_EBADMSG, -VMEM_EAGAIN. */
static int read_reference(struct vmem_pool *p, const struct vmemi_held *delta, uint32_t slot,
			  struct reading *r)
{
	uint32_t stream =
		delta->segment ? atomic_load_explicit(&delta->segment->stream, memory_order_relaxed)
			       : r->stream;
	uint32_t reference = vmemi_object_reference(delta->object, delta->entry), codec;
	struct vmemi_held h;
	int err;

	if (!reference)
		return -VMEM_EBADMSG;
	err = hold_piece(p, stream, reference, r->pieces, &h);
	if (err) {
		r->missing = reference;
		return err == -VMEM_EAGAIN ? err : -VMEM_EBADMSG;
	}
	err = -VMEM_EBADMSG;
	codec = vmemi_entry_codec(h.entry);
	if (codec && codec != VMEM_CODEC_DELTA) {
		err = decode(p, &h, slot, vmemi_slot_reference(p, slot));
		if (err)
			r->damaged = reference;
	}
	vmemi_pool_let_go(p, &h);
	return err;
}

/* 0, -VMEM_EBADMSG, -VMEM_EAGAIN. */
static int decode_delta(struct vmem_pool *p, const struct vmemi_held *h, uint32_t slot, void *page,
			struct reading *r)
{
	int err = -VMEM_EBADMSG;
	const struct vmem_codec *codec = p->codec[VMEM_CODEC_DELTA];
	const uint32_t before = sizeof(uint32_t); /* the payload: the reference's handle */
	uint32_t checksum;
	const unsigned char *payload = payload_of(h, &checksum);

	if (payload)
		err = read_reference(p, h, slot, r);
	if (err)
		return err;
	if (codec->decode(needs_slot(codec) ? vmemi_slot_context(p, slot, codec) : NULL, page,
			  payload + before, vmemi_entry_bytes(h->entry) - before,
			  vmemi_slot_reference(p, slot)) ||
	    vmemi_pool_checksum(p, page) != checksum)
		return -VMEM_EBADMSG;
	return 0;
}

/* @slot: the caller's, or NO_SLOT. 0, -VMEM_EBADMSG, -VMEM_ENOENT (bytes, not a page), -VMEM_EAGAIN. */
static int read_page(struct vmem_pool *p, const struct vmemi_held *h, uint32_t slot, void *page,
		     struct reading *r)
{
	uint32_t codec = vmemi_entry_codec(h->entry);
	bool is_delta = codec == VMEM_CODEC_DELTA;
	bool take = slot == NO_SLOT && codec && (is_delta || needs_slot(p->codec[codec]));
	int err = -VMEM_ENOENT;

	r->damaged = h->handle;
	if (take)
		slot = vmemi_slot_take(p, VMEMI_SLOT_ANY);
	if (codec)
		err = is_delta ? decode_delta(p, h, slot, page, r) : decode(p, h, slot, page);
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
	struct reading r = { .stream = stream };
	int err;

	while (!(err = hold(p, stream, handle, h))) {
		err = read_page(p, h, slot, page, &r);
		if (err != -VMEM_EBADMSG || !was_replaced(p, h)) {
			h->handle = r.damaged;
			return err;
		}
		vmemi_pool_let_go(p, h);
	}
	h->segment = NULL;
	return err;
}

int vmemi_pool_load_of(vmem_pool *p, uint32_t stream, vmem_pool_handle handle, void *page)
{
	struct vmemi_held h;
	int err = hold_and_read(p, stream, handle, NO_SLOT, page, &h);

	return h.segment ? release(p, &h, err) : err;
}

int vmemi_pool_load_pieces(vmem_pool *p, uint32_t stream, vmem_pool_handle handle, void *page,
			   const struct vmemi_piece pieces[VMEMI_PIECES], uint32_t *ret_missing)
{
	struct reading r = { .stream = stream, .pieces = pieces };
	struct vmemi_held h;
	int err;

	while (!(err = hold_piece(p, stream, handle, pieces, &h))) {
		err = read_page(p, &h, NO_SLOT, page, &r);
		if (err != -VMEM_EBADMSG || !h.segment || !was_replaced(p, &h)) {
			vmemi_pool_let_go(p, &h);
			*ret_missing = r.missing;
			return err;
		}
		vmemi_pool_let_go(p, &h);
	}
	*ret_missing = (uint32_t)handle;
	return err;
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
	return err == -VMEM_EAGAIN ? 0 : err ? err : equal;
}

int vmem_pool_load_bytes(vmem_pool *p, vmem_pool_handle handle, void *data, uint32_t capacity,
			 uint32_t *ret_bytes)
{
	const unsigned char *payload;
	uint32_t bytes, checksum;
	struct vmemi_held h;

	if (hold(p, VMEMI_ANY_STREAM, handle, &h))
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

	if (hold(p, stream, handle, ret_held))
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
	int err = hold(p, stream, handle, &h);

	while (err == -VMEM_EAGAIN) {
		err = vmemi_out_checksum(p, stream, handle, ret_checksum);
		if (err != -VMEM_EAGAIN)
			return err;
		err = hold(p, stream, handle, &h); /* it has come home */
	}
	if (err)
		return err;
	whole = payload_of(&h, ret_checksum) != NULL;
	vmemi_pool_let_go(p, &h);
	return whole ? 0 : -VMEM_EBADMSG;
}

bool vmemi_pool_is_whole(vmem_pool *p, const struct vmemi_held *h)
{
	uint32_t slot = vmemi_slot_take(p, VMEMI_SLOT_ANY);
	struct reading r = { .stream = VMEMI_ANY_STREAM };
	int err = read_page(p, h, slot, vmemi_slot_result(p, slot), &r);

	vmemi_slot_give(p, slot);
	return !err || err == -VMEM_EAGAIN;
}

int vmemi_pool_read(vmem_pool *p, const struct vmemi_held *h, void *page)
{
	struct reading r = { .stream = VMEMI_ANY_STREAM };

	return read_page(p, h, NO_SLOT, page, &r);
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
