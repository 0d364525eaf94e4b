/* SPDX-License-Identifier: BSD-2-Clause */
/* Objects: save, load, describe, drop.
 *
 * A save encodes into a slot of its own, takes room under the stream's lock, copies without it and
 * publishes the index entry; its writer's pin keeps compaction out of the segment meanwhile. Where that
 * takes a segment from the allocator it gives up the slot first, and encodes again. Loads take no lock:
 * pool_internal.h says how they and the freeing of a segment stay apart. */
#include "base/mem.h"
#include "pool/pool_internal.h"
#include "pool/pool_of.h"

#define NO_SLOT UINT32_MAX
#define ANY_STREAM UINT32_MAX

/* An object on its way in. */
struct save {
	const void *page;    /* to be encoded; NULL: the payload is the caller's */
	uint32_t wish;       /* for the page: the id of a codec, or 0 */
	uint32_t max_bytes;  /* for the page */
	uint32_t checksum;   /* of the page, or the bytes */
	const void *payload; /* the caller's, in the slot, or the word */
	uint32_t bytes;
	uint32_t codec;
	uint32_t slot;
	uint64_t word;
};

/* --- Slots --- */

/* One of the @usable slots that is idle. Waits when there is none. */
static uint32_t slot_take(struct vmem_pool *p, uint64_t usable)
{
	uint64_t idle = atomic_load_explicit(&p->idle_slots, memory_order_relaxed);

	for (;;) {
		uint64_t one = idle & usable & -(idle & usable);

		if (!one) {
			vmemi_relax(&p->env);
			idle = atomic_load_explicit(&p->idle_slots, memory_order_relaxed);
		} else if (atomic_compare_exchange_weak_explicit(&p->idle_slots, &idle, idle & ~one,
								 memory_order_acquire,
								 memory_order_relaxed)) {
			return (uint32_t)__builtin_ctzll(one);
		}
	}
}

static void slot_give(struct vmem_pool *p, uint32_t slot)
{
	atomic_fetch_or_explicit(&p->idle_slots, UINT64_C(1) << slot, memory_order_release);
}

static unsigned char *slot_at(const struct vmem_pool *p, uint32_t slot)
{
	return p->slots + slot * p->slot_bytes;
}

static void *slot_context(const struct vmem_pool *p, uint32_t slot, const struct vmem_codec *codec)
{
	return codec->context_bytes ? slot_at(p, slot) + p->context_at[codec->id] : NULL;
}

/* --- Save --- */

static void write_object(unsigned char *to, uint32_t handle, const struct save *o)
{
	const struct vmemi_object_header header = {
		.handle = handle,
		.checksum = o->checksum,
		.bytes = (uint16_t)o->bytes,
		.codec = (uint8_t)o->codec,
	};
	const uint32_t zero = 0; /* what the last grain has beyond the payload */

	memcpy(to, &header, sizeof(header));
	memcpy(to + (vmemi_object_grains(o->bytes) - 1) * VMEMI_GRAIN_BYTES, &zero, sizeof(zero));
	memcpy(to + sizeof(header), o->payload, o->bytes);
}

static int append(struct vmem_pool *p, struct vmemi_stream *s, const struct save *o,
		  uint32_t handle)
{
	uint16_t grains = (uint16_t)vmemi_object_grains(o->bytes);
	struct vmemi_request request = { .grains = &grains, .count = 1, .payload_bytes = o->bytes };
	struct vmemi_place place;
	int err = vmemi_stream_reserve(p, s, &request, &place);

	if (err)
		return err;
	write_object(place.segment->memory + place.grain * VMEMI_GRAIN_BYTES, handle, o);
	/* The bytes are there for whoever sees the entry, or sees that the writer has left. */
	atomic_store_explicit(vmemi_index_at(p, handle),
			      vmemi_entry_make(place.number, place.grain, o->bytes, o->codec),
			      memory_order_release);
	atomic_fetch_sub_explicit(&place.segment->pins, VMEMI_PIN_WRITER, memory_order_release);
	return 0;
}

/* Encodes by a codec of the caller's table, in a slot. False when it gets too long. */
static bool encode(struct vmem_pool *p, const struct vmem_codec *codec, struct save *o)
{
	size_t capacity = o->max_bytes < VMEM_PAGE_SIZE ? o->max_bytes : VMEM_PAGE_SIZE - 1, bytes;
	uint32_t slot = slot_take(p, p->encode_slots);

	bytes = codec->encode(slot_context(p, slot, codec), slot_at(p, slot), capacity, o->page,
			      NULL);
	if (!bytes || bytes > capacity) {
		slot_give(p, slot);
		return false;
	}
	o->slot = slot;
	o->payload = slot_at(p, slot);
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
	if (codec->id != VMEM_CODEC_FILL && codec->id != VMEM_CODEC_RAW && encode(p, codec, o))
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
	if (o->page) {
		err = encode_page(p, o);
		if (!err)
			o->checksum = (uint32_t)p->hash(o->page, VMEM_PAGE_SIZE, 0);
	}
	if (!err)
		err = append(p, s, o, handle);
	if (o->slot != NO_SLOT)
		slot_give(p, o->slot);
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
		if (err == -VMEM_ENOSPC)
			atomic_store_explicit(&p->refused, 1, memory_order_relaxed);
		return err;
	}
	*ret_handle = handle;
	return 0;
}

int vmem_pool_save_page(vmem_pool *p, uint32_t stream, uint32_t codec, const void *page,
			uint32_t max_bytes, vmem_pool_handle *ret_handle)
{
	struct vmemi_stream *s = vmemi_stream_at(p, stream);
	struct save o = { .page = page, .wish = codec, .max_bytes = max_bytes };

	if (!page || (uintptr_t)page % sizeof(uint64_t) || !max_bytes ||
	    max_bytes > VMEM_PAGE_SIZE || !ret_handle)
		return -VMEM_EINVAL;
	if (!s)
		return -VMEM_ENOENT;
	return save(p, s, &o, ret_handle);
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

/* --- Load --- */

/* An object that stays where it is. */
struct held {
	struct vmemi_segment *segment;
	uint32_t handle;
	uint64_t entry;
};

/* The entry of a handle, live or not. */
static uint64_t look_up(const struct vmem_pool *p, vmem_pool_handle handle)
{
	_Atomic uint64_t *entry = handle <= UINT32_MAX ? vmemi_index_at(p, (uint32_t)handle) : NULL;

	return entry ? atomic_load_explicit(entry, memory_order_acquire) : VMEMI_ENTRY_TAKEN;
}

/* Whether the segment is of the stream that is asked for. An object in it stays, so that it is of one. */
static bool is_of(const struct vmemi_segment *seg, uint32_t stream)
{
	return stream == ANY_STREAM ||
	       atomic_load_explicit(&seg->stream, memory_order_relaxed) == stream;
}

/* Pins the segment of an object. False: there is none of that stream. */
static bool hold(struct vmem_pool *p, uint32_t stream, vmem_pool_handle handle, struct held *h)
{
	uint64_t entry = look_up(p, handle), again;

	while (vmemi_entry_is_live(entry)) {
		struct vmemi_segment *seg = vmemi_segment_at(p, vmemi_entry_segment(entry));
		bool same;

		atomic_fetch_add(&seg->pins, 1);
		again = atomic_load(vmemi_index_at(p, (uint32_t)handle));
		same = again == entry;
		if (same && is_of(seg, stream)) {
			*h = (struct held){ seg, (uint32_t)handle, entry };
			return true;
		}
		atomic_fetch_sub_explicit(&seg->pins, 1, memory_order_release);
		if (same)
			return false;
		entry = again;
	}
	return false;
}

void vmemi_pool_corrupt_of(struct vmem_pool *p, uint32_t stream, vmem_pool_handle handle)
{
	atomic_fetch_add_explicit(&p->corrupt, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&vmemi_stream_at(p, stream)->corrupt, 1, memory_order_relaxed);
	vmemi_pool_note(p, (uint32_t)handle, stream);
}

static int release(struct vmem_pool *p, const struct held *h, int err)
{
	if (err == -VMEM_EBADMSG)
		vmemi_pool_corrupt_of(p, atomic_load(&h->segment->stream), h->handle);
	atomic_fetch_sub_explicit(&h->segment->pins, 1, memory_order_release);
	return err;
}

/* The payload, if the header is what the index says. */
static const unsigned char *payload_of(const struct held *h, uint32_t *ret_checksum)
{
	const unsigned char *object =
		h->segment->memory + vmemi_entry_grain(h->entry) * VMEMI_GRAIN_BYTES;
	struct vmemi_object_header header;

	memcpy(&header, object, sizeof(header));
	if (header.handle != h->handle || header.bytes != vmemi_entry_bytes(h->entry) ||
	    header.codec != vmemi_entry_codec(h->entry) || header.flags)
		return NULL;
	*ret_checksum = header.checksum;
	return object + sizeof(header);
}

static int decode(struct vmem_pool *p, const struct held *h, void *page)
{
	const struct vmem_codec *codec = p->codec[vmemi_entry_codec(h->entry)];
	uint32_t bytes = vmemi_entry_bytes(h->entry), checksum, slot;
	const unsigned char *payload = payload_of(h, &checksum);
	int err;

	if (!payload)
		return -VMEM_EBADMSG;
	if (!codec->context_bytes || codec->flags & VMEM_CODEC_DECODE_WITHOUT_CONTEXT) {
		err = codec->decode(NULL, page, payload, bytes, NULL);
	} else {
		slot = slot_take(p, UINT64_MAX);
		err = codec->decode(slot_context(p, slot, codec), page, payload, bytes, NULL);
		slot_give(p, slot);
	}
	if (err || (uint32_t)p->hash(page, VMEM_PAGE_SIZE, 0) != checksum)
		return -VMEM_EBADMSG;
	return 0;
}

int vmemi_pool_load_of(vmem_pool *p, uint32_t stream, vmem_pool_handle handle, void *page)
{
	struct held h;

	if (!hold(p, stream, handle, &h))
		return -VMEM_ENOENT;
	return release(p, &h, vmemi_entry_codec(h.entry) ? decode(p, &h, page) : -VMEM_ENOENT);
}

int vmem_pool_load_page(vmem_pool *p, vmem_pool_handle handle, void *page)
{
	return vmemi_pool_load_of(p, ANY_STREAM, handle, page);
}

int vmem_pool_load_bytes(vmem_pool *p, vmem_pool_handle handle, void *data, uint32_t capacity,
			 uint32_t *ret_bytes)
{
	const unsigned char *payload;
	uint32_t bytes, checksum;
	struct held h;

	if (!hold(p, ANY_STREAM, handle, &h))
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

int vmem_pool_describe(vmem_pool *p, vmem_pool_handle handle, uint32_t *ret_codec,
		       uint32_t *ret_bytes)
{
	uint64_t entry = look_up(p, handle);

	if (!vmemi_entry_is_live(entry))
		return -VMEM_ENOENT;
	*ret_codec = vmemi_entry_codec(entry);
	*ret_bytes = vmemi_entry_bytes(entry);
	return 0;
}

/* --- Drop --- */

/* The stream that has the object now, locked, and the object's entry. NULL: there is none of @stream. */
static struct vmemi_stream *lock_owner(struct vmem_pool *p, uint32_t stream,
				       vmem_pool_handle handle, uint64_t *ret_entry)
{
	uint64_t entry = look_up(p, handle);

	while (vmemi_entry_is_live(entry)) {
		struct vmemi_segment *seg = vmemi_segment_at(p, vmemi_entry_segment(entry));
		uint32_t id = atomic_load_explicit(&seg->stream, memory_order_relaxed);
		struct vmemi_stream *s = vmemi_stream_at(p, id);

		vmemi_lock(&s->lock);
		/* Compaction may have moved it, another drop been faster: under the lock of the
		 * stream that it is in, it stays. */
		entry = look_up(p, handle);
		if (vmemi_entry_is_live(entry)) {
			seg = vmemi_segment_at(p, vmemi_entry_segment(entry));
			if (atomic_load_explicit(&seg->stream, memory_order_relaxed) == id) {
				if (is_of(seg, stream)) {
					*ret_entry = entry;
					return s;
				}
				entry = VMEMI_ENTRY_TAKEN;
			}
		}
		vmemi_unlock(&s->lock);
	}
	return NULL;
}

int vmemi_pool_drop_of(vmem_pool *p, uint32_t stream, vmem_pool_handle handle, uint32_t *ret_codec)
{
	uint64_t entry;
	struct vmemi_stream *s = lock_owner(p, stream, handle, &entry);
	uint32_t bytes, segment;
	bool empty;

	if (!s)
		return -VMEM_ENOENT;
	bytes = vmemi_entry_bytes(entry);
	segment = vmemi_entry_segment(entry);
	atomic_store(vmemi_index_at(p, (uint32_t)handle), VMEMI_ENTRY_TAKEN);
	s->objects--;
	s->payload_bytes -= bytes;
	empty = vmemi_stream_remove(p, s, segment, vmemi_object_grains(bytes));
	vmemi_unlock(&s->lock);
	vmemi_handle_free(p, (uint32_t)handle);
	if (empty)
		vmemi_segment_put(p, segment);
	if (ret_codec)
		*ret_codec = vmemi_entry_codec(entry);
	return 0;
}

int vmem_pool_drop(vmem_pool *p, vmem_pool_handle handle)
{
	return vmemi_pool_drop_of(p, ANY_STREAM, handle, NULL);
}

/* --- Walking --- */

struct vmemi_found vmemi_object_at(const struct vmem_pool *p, uint32_t segment, uint32_t grain)
{
	struct vmemi_object_header header;
	uint64_t entry;

	/* A damaged length may lead to where no object can begin. */
	if (grain * VMEMI_GRAIN_BYTES + sizeof(header) > VMEM_POOL_SEGMENT_BYTES)
		return (struct vmemi_found){ .grains = 0 };
	memcpy(&header, vmemi_segment_at(p, segment)->memory + grain * VMEMI_GRAIN_BYTES,
	       sizeof(header));
	entry = look_up(p, header.handle);
	if (vmemi_entry_is_live(entry) && vmemi_entry_segment(entry) == segment &&
	    vmemi_entry_grain(entry) == grain)
		return (struct vmemi_found){ vmemi_object_grains(vmemi_entry_bytes(entry)),
					     header.handle, entry };
	if (!header.bytes || header.bytes > VMEM_PAGE_SIZE)
		return (struct vmemi_found){ .grains = 0 };
	return (struct vmemi_found){ .grains = vmemi_object_grains(header.bytes) };
}

/* --- For tests --- */

unsigned char *vmemi_pool_object_bytes(struct vmem_pool *p, vmem_pool_handle handle,
				       uint32_t *ret_bytes)
{
	uint64_t entry = look_up(p, handle);

	if (!vmemi_entry_is_live(entry))
		return NULL;
	*ret_bytes = (uint32_t)sizeof(struct vmemi_object_header) + vmemi_entry_bytes(entry);
	return vmemi_segment_at(p, vmemi_entry_segment(entry))->memory +
	       vmemi_entry_grain(entry) * VMEMI_GRAIN_BYTES;
}
