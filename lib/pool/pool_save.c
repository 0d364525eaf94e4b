/* SPDX-License-Identifier: BSD-2-Clause */
/* Saving objects, and encoding one anew.
 *
 * A save encodes into a slot of its own, takes room under the stream's lock, copies without it and
 * publishes the index entry; its writer's pin keeps compaction out of the segment meanwhile. Where that
 * takes a segment from the allocator it gives up the slot first, and encodes again. */
#include "base/mem.h"
#include "pool/pool_internal.h"
#include "pool/pool_slot.h"

#define NO_SLOT UINT32_MAX

/* An object on its way in. */
struct save {
	const void *page;    /* to be encoded; NULL: the payload is the caller's */
	uint32_t wish;       /* for the page: the id of a codec, or 0 */
	uint32_t max_bytes;  /* for the page */
	uint32_t checksum;   /* of the page, or the bytes */
	const void *payload; /* the caller's, in the slot, or the word */
	uint32_t bytes;
	uint32_t codec;
	struct vmemi_origin origin;
	bool transit;
	uint32_t slot;
	uint64_t word;
};

static void write_object(unsigned char *to, uint32_t handle, const struct save *o)
{
	const struct vmemi_object_header header = {
		.handle = handle,
		.checksum = o->checksum,
		.bytes = (uint16_t)o->bytes,
		.form = (uint8_t)VMEMI_FORM(o->codec, o->origin.extra),
	};
	const uint32_t zero = 0; /* what the last grain has beyond the payload */

	memcpy(to, &header, sizeof(header));
	memcpy(to + (vmemi_object_grains(o->bytes) - 1) * VMEMI_GRAIN_BYTES, &zero, sizeof(zero));
	memcpy(to + sizeof(header), o->payload, o->bytes);
	to += vmemi_object_grains(o->bytes) * VMEMI_GRAIN_BYTES;
	if (o->origin.extra)
		memcpy(to, &o->origin.key, sizeof(o->origin.key));
	if (o->origin.extra == VMEMI_EXTRA_KEY_VM)
		memcpy(to + sizeof(o->origin.key), &o->origin.vm, sizeof(o->origin.vm));
}

static int append(struct vmem_pool *p, struct vmemi_stream *s, const struct save *o,
		  uint32_t handle)
{
	uint16_t grains = (uint16_t)(vmemi_object_grains(o->bytes) + o->origin.extra);
	/* What only passes through is not worth another look. */
	enum vmemi_mark mark = o->transit ? VMEMI_MARK_SETTLED : VMEMI_MARK_NEW;
	struct vmemi_request request = {
		.grains = &grains, .count = 1, .payload_bytes = o->bytes, .transit = o->transit
	};
	struct vmemi_place place;
	int err = vmemi_stream_reserve(p, s, &request, &place);

	if (err)
		return err;
	write_object(place.segment->memory + place.grain * VMEMI_GRAIN_BYTES, handle, o);
	/* The bytes are there for whoever sees the entry, or sees that the writer has left. */
	atomic_store_explicit(vmemi_index_at(p, handle),
			      vmemi_entry_make(place.number, place.grain, o->bytes,
					       VMEMI_FORM(o->codec, o->origin.extra)) |
				      (uint64_t)mark << VMEMI_ENTRY_MARK_SHIFT,
			      memory_order_release);
	atomic_fetch_sub_explicit(&place.segment->pins, VMEMI_PIN_WRITER, memory_order_release);
	return 0;
}

/* Encodes by a codec of the caller's table, in a slot. False when it gets too long. */
static bool encode(struct vmem_pool *p, const struct vmem_codec *codec, struct save *o)
{
	size_t capacity = o->max_bytes < VMEM_PAGE_SIZE ? o->max_bytes : VMEM_PAGE_SIZE - 1, bytes;
	uint32_t slot = vmemi_slot_take(p, vmemi_slots_to_encode(p, codec));

	bytes = codec->encode(vmemi_slot_context(p, slot, codec), vmemi_slot_result(p, slot),
			      capacity, o->page, NULL);
	if (!bytes || bytes > capacity) {
		vmemi_slot_give(p, slot);
		return false;
	}
	o->slot = slot;
	o->payload = vmemi_slot_result(p, slot);
	o->bytes = (uint32_t)bytes;
	o->codec = codec->id;
	return true;
}

/* What is to be kept of the page. 0, -VMEM_ENOENT (no such codec), -VMEM_EFBIG. */
static int encode_page(struct vmem_pool *p, struct save *o)
{
	const struct vmem_codec *codec;

	codec = o->wish > VMEM_CODEC_MAX ? NULL : o->wish ? p->codec[o->wish] : p->first_codec;
	if (!codec)
		return -VMEM_ENOENT;
	if ((!o->wish || o->wish == VMEM_CODEC_FILL) && o->max_bytes >= sizeof(o->word) &&
	    vmem_page_same_filled(o->page, &o->word)) {
		o->payload = &o->word;
		o->bytes = sizeof(o->word);
		o->codec = VMEM_CODEC_FILL;
		return 0;
	}
	if (codec->id != VMEM_CODEC_FILL && codec->id != VMEM_CODEC_RAW &&
	    codec->id != VMEM_CODEC_DELTA && encode(p, codec, o))
		return 0;
	if (o->max_bytes < VMEM_PAGE_SIZE)
		return -VMEM_EFBIG;
	o->payload = o->page;
	o->bytes = VMEM_PAGE_SIZE;
	o->codec = VMEM_CODEC_RAW;
	return 0;
}

/* Encodes and appends, without the allocator. -VMEM_EAGAIN: the reserve is empty. */
static int try_save(struct vmem_pool *p, struct vmemi_stream *s, struct save *o, uint32_t handle)
{
	int err = 0;

	o->slot = NO_SLOT;
	if (o->page)
		err = encode_page(p, o);
	if (!err)
		err = append(p, s, o, handle);
	if (o->slot != NO_SLOT)
		vmemi_slot_give(p, o->slot);
	return err;
}

static int save(struct vmem_pool *p, struct vmemi_stream *s, struct save *o,
		vmem_pool_handle *ret_handle)
{
	uint32_t handle;
	int err = vmemi_handle_new(p, &handle);

	if (err)
		return err;
	do { /* until no other save takes what this one has put into the reserve */
		err = try_save(p, s, o, handle);
		if (err != -VMEM_EAGAIN)
			break;
		err = vmemi_segment_fill(p, 1);
	} while (!err);
	if (err) {
		vmemi_handle_free(p, handle);
		if (err != -VMEM_EFBIG) /* room would not help */
			atomic_fetch_or_explicit(&p->refused,
						 err == -VMEM_ENOSPC ? VMEMI_REFUSED_BY_BUDGET
								     : VMEMI_REFUSED,
						 memory_order_relaxed);
		return err;
	}
	*ret_handle = handle;
	return 0;
}

uint32_t vmemi_pool_checksum(const vmem_pool *p, const void *page)
{
	return (uint32_t)p->hash(page, VMEM_PAGE_SIZE, 0);
}

int vmemi_pool_save_of(vmem_pool *p, uint32_t stream, struct vmemi_page_save *page,
		       vmem_pool_handle *ret_handle)
{
	struct vmemi_stream *s = vmemi_stream_at(p, stream);
	struct save o = { .page = page->page,
			  .wish = page->codec,
			  .max_bytes = page->max_bytes,
			  .checksum = page->checksum,
			  .origin = page->origin,
			  .transit = page->transit };
	int err = s ? save(p, s, &o, ret_handle) : -VMEM_ENOENT;

	if (!err)
		page->codec = o.codec;
	return err;
}

int vmem_pool_save_page(vmem_pool *p, uint32_t stream, uint32_t codec, const void *page,
			uint32_t max_bytes, vmem_pool_handle *ret_handle)
{
	struct vmemi_page_save save_of = { .page = page, .codec = codec, .max_bytes = max_bytes };

	if (!page || (uintptr_t)page % sizeof(uint64_t) || !max_bytes ||
	    max_bytes > VMEM_PAGE_SIZE || !ret_handle)
		return -VMEM_EINVAL;
	save_of.checksum = vmemi_pool_checksum(p, page);
	return vmemi_pool_save_of(p, stream, &save_of, ret_handle);
}

int vmem_pool_save_bytes(vmem_pool *p, uint32_t stream, const void *data, uint32_t bytes,
			 vmem_pool_handle *ret_handle)
{
	struct vmemi_stream *s = vmemi_stream_at(p, stream);
	struct save o = { .payload = data, .bytes = bytes };

	if (!data || !bytes || bytes > VMEM_PAGE_SIZE || !ret_handle)
		return -VMEM_EINVAL;
	if (!s)
		return -VMEM_ENOENT;
	o.checksum = (uint32_t)p->hash(data, bytes, 0);
	return save(p, s, &o, ret_handle);
}

/* --- Encoding anew --- */

void vmemi_pool_will_replace(vmem_pool *p)
{
	p->replaces = true;
}

uint32_t vmemi_pool_encode(vmem_pool *p, uint32_t codec_id, const void *page, const void *reference,
			   void *dst, uint32_t capacity)
{
	const struct vmem_codec *codec = codec_id > VMEM_CODEC_MAX ? NULL : p->codec[codec_id];
	uint32_t slot;
	size_t bytes;

	if (!codec || !capacity || capacity > VMEM_PAGE_SIZE)
		return 0;
	slot = vmemi_slot_take(p, vmemi_slots_to_encode(p, codec));
	bytes = codec->encode(vmemi_slot_context(p, slot, codec), dst, capacity, page, reference);
	vmemi_slot_give(p, slot);
	return bytes > capacity ? 0 : (uint32_t)bytes;
}

bool vmemi_pool_is_sealed(vmem_pool *p, const struct vmemi_held *held)
{
	struct vmemi_stream *s = vmemi_stream_at(
		p, atomic_load_explicit(&held->segment->stream, memory_order_relaxed));
	bool sealed;

	vmemi_lock(&s->lock);
	sealed = held->segment->state == VMEMI_SEGMENT_SEALED && !held->segment->leaving;
	vmemi_unlock(&s->lock);
	return sealed;
}

/* The object's header again, with what is new. */
static void write_replacement(unsigned char *to, const struct vmemi_held *held, uint32_t bytes,
			      const struct vmemi_encoded *e)
{
	struct vmemi_object_header header;
	uint32_t extra = VMEMI_FORM_EXTRA(vmemi_entry_form(held->entry));
	const uint32_t zero = 0;

	memcpy(to + vmemi_object_grains(bytes) * VMEMI_GRAIN_BYTES,
	       held->object +
		       vmemi_object_grains(vmemi_entry_bytes(held->entry)) * VMEMI_GRAIN_BYTES,
	       extra * VMEMI_GRAIN_BYTES);
	memcpy(&header, held->object, sizeof(header));
	header.bytes = (uint16_t)bytes;
	header.form = (uint8_t)VMEMI_FORM(e->codec, extra);
	header.reference_check = e->reference ? vmemi_reference_check(e->reference) : 0;
	memcpy(to, &header, sizeof(header));
	to += sizeof(header);
	memcpy(to + (bytes - 1) / VMEMI_GRAIN_BYTES * VMEMI_GRAIN_BYTES, &zero, sizeof(zero));
	if (e->reference) {
		memcpy(to, &e->reference, sizeof(e->reference));
		to += sizeof(e->reference);
	}
	memcpy(to, e->payload, e->bytes);
}

/* Lets the entry lead to the replacement, unless the object was dropped; then that is dead. */
static bool publish_replacement(struct vmem_pool *p, struct vmemi_stream *s,
				const struct vmemi_held *held, uint64_t entry,
				const struct vmemi_place *place)
{
	_Atomic uint64_t *at = vmemi_index_at(p, held->handle);
	uint32_t old_number = vmemi_entry_segment(held->entry), emptied;
	uint64_t old = held->entry;
	bool done, empty;

	vmemi_lock(&s->lock);
	done = vmemi_entry_is_same(atomic_load_explicit(at, memory_order_relaxed), old);
	if (done) {
		atomic_store(at, entry);
		s->payload_bytes += (uint64_t)vmemi_entry_bytes(entry) - vmemi_entry_bytes(old);
	}
	emptied = done ? old_number : place->number;
	empty = vmemi_stream_remove(p, s, emptied, vmemi_entry_grains(done ? old : entry));
	vmemi_unlock(&s->lock);
	atomic_fetch_sub_explicit(&place->segment->pins, VMEMI_PIN_WRITER, memory_order_release);
	if (empty)
		vmemi_segment_put(p, emptied);
	return done;
}

int vmemi_pool_replace(vmem_pool *p, const struct vmemi_held *held, const struct vmemi_encoded *e)
{
	struct vmemi_stream *s = vmemi_stream_at(
		p, atomic_load_explicit(&held->segment->stream, memory_order_relaxed));
	uint32_t bytes = e->bytes + (e->reference ? (uint32_t)sizeof(e->reference) : 0);
	uint32_t extra = VMEMI_FORM_EXTRA(vmemi_entry_form(held->entry));
	uint16_t grains = (uint16_t)(vmemi_object_grains(bytes) + extra);
	struct vmemi_request request = { .grains = &grains,
					 .count = 1,
					 .before = vmemi_entry_segment(held->entry),
					 .replaces = true };
	struct vmemi_place place;
	uint64_t entry;
	int err;

	if (!e->bytes || bytes > VMEM_PAGE_SIZE)
		return -VMEM_EINVAL;
	err = vmemi_stream_reserve(p, s, &request, &place);
	if (err)
		return err;
	write_replacement(place.segment->memory + place.grain * VMEMI_GRAIN_BYTES, held, bytes, e);
	entry = vmemi_entry_make(place.number, place.grain, bytes, VMEMI_FORM(e->codec, extra)) |
		(uint64_t)VMEMI_MARK_SETTLED << VMEMI_ENTRY_MARK_SHIFT;
	return publish_replacement(p, s, held, entry, &place) ? 0 : -VMEM_ENOENT;
}
