/* SPDX-License-Identifier: BSD-2-Clause */
/* Whose pages lie beside one that was read from a device. The digest tells which objects are there, and where; under
 * the stream's lock none of them goes. Who saved them stands behind them in what was read, which may be anything:
 * what the header says must be what the digest says, and more is not believed. */
#include "base/mem.h"
#include "pool/pool_internal.h"

/* What is asked for. */
struct search {
	const struct vmemi_located *located;
	const struct vmemi_stretch *read;
	struct vmemi_neighbour *found;
	uint32_t count, max;
};

/* Whether it can be decoded with no other read. Stream locked. */
static bool is_whole(const struct vmem_pool *p, const struct search *q,
		     const struct vmemi_digest_entry *e)
{
	uint64_t entry = vmemi_entry_of(p, e->reference);

	return !e->reference || e->reference == q->located->handle ||
	       (vmemi_entry_is_live(entry) &&
		vmemi_segment_at(p, vmemi_entry_segment(entry))->memory);
}

/* Adds the object, if its owner is known. False: it does not lie in what was read. Stream locked. */
static bool look_at(const struct vmem_pool *p, struct search *q, const struct vmemi_digest_entry *e)
{
	uint32_t from = e->at * VMEMI_GRAIN_BYTES, after, extra;
	uint64_t entry = vmemi_entry_of(p, e->handle);
	struct vmemi_neighbour n = { .handle = e->handle, .vm = VMEMI_NO_VM };
	struct vmemi_object_header header;
	const unsigned char *object;

	if (from < q->read->offset || from >= q->read->offset + q->read->bytes)
		return false;
	if (!vmemi_digest_grains(p, vmemi_entry_segment(q->located->entry), e))
		return true;
	after = vmemi_entry_grains(entry) * VMEMI_GRAIN_BYTES;
	if (from + after > q->read->offset + q->read->bytes)
		return false;
	object = q->read->data + from - q->read->offset;
	memcpy(&header, object, sizeof(header));
	extra = VMEMI_FORM_EXTRA(header.form);
	if (extra < VMEMI_EXTRA_KEY || header.handle != e->handle ||
	    header.checksum != e->checksum || header.bytes != vmemi_entry_bytes(entry) ||
	    header.form != vmemi_entry_form(entry) || !is_whole(p, q, e))
		return true;
	object += after - extra * VMEMI_GRAIN_BYTES;
	memcpy(&n.key, object, sizeof(n.key));
	if (extra == VMEMI_EXTRA_KEY_VM)
		memcpy(&n.vm, object + sizeof(n.key), sizeof(n.vm));
	q->found[q->count++] = n;
	return true;
}

static void search(const struct vmem_pool *p, const struct vmemi_digest *d, struct search *q)
{
	const struct vmemi_digest_entry *own =
		vmemi_digest_find(d, vmemi_entry_grain(q->located->entry));
	uint32_t at = own ? (uint32_t)(own - d->entry) : d->count;

	for (uint32_t i = at + 1; i < d->count && q->count < q->max; i++)
		if (!look_at(p, q, &d->entry[i]))
			break;
	for (uint32_t i = own ? at : 0; i > 0 && q->count < q->max; i--)
		if (!look_at(p, q, &d->entry[i - 1]))
			break;
}

uint32_t vmemi_pool_neighbours(vmem_pool *p, const struct vmemi_located *located,
			       const struct vmemi_stretch *read, struct vmemi_neighbour *ret,
			       uint32_t max)
{
	struct vmemi_segment *seg = located->segment;
	struct vmemi_stream *s = vmemi_stream_at(
		p, atomic_load_explicit(&seg->stream, memory_order_relaxed)); /* it is pinned */
	struct search q = { .located = located, .read = read, .found = ret, .max = max };

	vmemi_lock(&s->lock);
	if (seg->state == VMEMI_SEGMENT_OUT && seg->place == located->place)
		search(p, seg->digest, &q);
	vmemi_unlock(&s->lock);
	return q.count;
}
