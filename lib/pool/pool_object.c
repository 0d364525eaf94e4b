/* SPDX-License-Identifier: BSD-2-Clause */
/* Objects: dropping them, and walking over them. */
#include "base/mem.h"
#include "pool/pool_internal.h"

/* --- Drop --- */

struct vmemi_stream *vmemi_object_lock(struct vmem_pool *p, uint32_t stream,
				       vmem_pool_handle handle, uint64_t *ret_entry)
{
	uint64_t entry = vmemi_entry_of(p, handle);

	while (vmemi_entry_is_live(entry)) {
		struct vmemi_segment *seg = vmemi_segment_at(p, vmemi_entry_segment(entry));
		uint32_t id = atomic_load_explicit(&seg->stream, memory_order_relaxed);
		struct vmemi_stream *s = vmemi_stream_at(p, id);

		vmemi_lock(&s->lock);
		/* Compaction may have moved it, another drop been faster: under the lock of the
		 * stream that it is in, it stays. */
		entry = vmemi_entry_of(p, handle);
		if (vmemi_entry_is_live(entry)) {
			seg = vmemi_segment_at(p, vmemi_entry_segment(entry));
			if (atomic_load_explicit(&seg->stream, memory_order_relaxed) == id) {
				if (vmemi_segment_is_of(seg, stream)) {
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

uint32_t vmemi_object_reference(const unsigned char *object, uint64_t entry)
{
	struct vmemi_object_header header;
	uint32_t reference;

	if (vmemi_entry_codec(entry) != VMEM_CODEC_DELTA ||
	    vmemi_entry_bytes(entry) <= sizeof(reference))
		return 0;
	memcpy(&header, object, sizeof(header));
	memcpy(&reference, object + sizeof(header), sizeof(reference));
	return vmemi_reference_check(reference) == header.reference_check ? reference : 0;
}

uint32_t vmemi_entry_reference(const struct vmem_pool *p, uint64_t entry)
{
	const struct vmemi_segment *seg = vmemi_segment_at(p, vmemi_entry_segment(entry));
	const unsigned char *memory = seg->memory;
	const struct vmemi_digest_entry *e;

	if (memory)
		return vmemi_object_reference(memory + vmemi_entry_grain(entry) * VMEMI_GRAIN_BYTES,
					      entry);
	e = vmemi_digest_find(seg->digest, vmemi_entry_grain(entry));
	return e && vmemi_entry_codec(entry) == VMEM_CODEC_DELTA ? e->reference : 0;
}

int vmemi_pool_drop_of(vmem_pool *p, uint32_t stream, vmem_pool_handle handle,
		       struct vmemi_dropped *ret_dropped)
{
	uint64_t entry;
	struct vmemi_stream *s = vmemi_object_lock(p, stream, handle, &entry);
	struct vmemi_dropped dropped;
	uint32_t segment;
	bool empty;

	if (!s)
		return -VMEM_ENOENT;
	segment = vmemi_entry_segment(entry);
	dropped =
		(struct vmemi_dropped){ vmemi_entry_codec(entry), vmemi_entry_reference(p, entry) };
	atomic_store(vmemi_index_at(p, (uint32_t)handle), VMEMI_ENTRY_TAKEN);
	s->objects--;
	s->payload_bytes -= vmemi_entry_bytes(entry);
	vmemi_stream_dropped(s);
	empty = vmemi_stream_remove(p, s, segment, vmemi_entry_grains(entry));
	vmemi_unlock(&s->lock);
	vmemi_handle_free(p, (uint32_t)handle);
	if (empty)
		vmemi_segment_put(p, segment);
	if (ret_dropped)
		*ret_dropped = dropped;
	return 0;
}

int vmem_pool_drop(vmem_pool *p, vmem_pool_handle handle)
{
	return vmemi_pool_drop_of(p, VMEMI_ANY_STREAM, handle, NULL);
}

/* --- Walking --- */

struct vmemi_found vmemi_object_at(const struct vmem_pool *p, const unsigned char *memory,
				   uint32_t segment, uint32_t grain)
{
	struct vmemi_object_header header;
	uint64_t entry;

	/* A damaged length may lead to where no object can begin. */
	if (grain * VMEMI_GRAIN_BYTES + sizeof(header) > VMEM_POOL_SEGMENT_BYTES)
		return (struct vmemi_found){ .grains = 0 };
	memcpy(&header, memory + grain * VMEMI_GRAIN_BYTES, sizeof(header));
	entry = vmemi_entry_of(p, header.handle);
	if (vmemi_entry_is_live(entry) && vmemi_entry_segment(entry) == segment &&
	    vmemi_entry_grain(entry) == grain)
		return (struct vmemi_found){ vmemi_entry_grains(entry), header.handle, entry };
	if (!header.bytes || header.bytes > VMEM_PAGE_SIZE)
		return (struct vmemi_found){ .grains = 0 };
	return (struct vmemi_found){ .grains = vmemi_header_grains(&header) };
}

uint32_t vmemi_pool_object_size(const vmem_pool *p, vmem_pool_handle handle)
{
	uint64_t entry = vmemi_entry_of(p, handle);

	return vmemi_entry_is_live(entry) ? vmemi_entry_grains(entry) * VMEMI_GRAIN_BYTES : 0;
}

/* --- For tests --- */

unsigned char *vmemi_pool_object_bytes(struct vmem_pool *p, vmem_pool_handle handle,
				       uint32_t *ret_bytes)
{
	uint64_t entry = vmemi_entry_of(p, handle);

	if (!vmemi_entry_is_live(entry) || !vmemi_segment_at(p, vmemi_entry_segment(entry))->memory)
		return NULL;
	*ret_bytes = (uint32_t)sizeof(struct vmemi_object_header) + vmemi_entry_bytes(entry);
	return vmemi_segment_at(p, vmemi_entry_segment(entry))->memory +
	       vmemi_entry_grain(entry) * VMEMI_GRAIN_BYTES;
}
