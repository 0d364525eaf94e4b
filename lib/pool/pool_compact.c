/* SPDX-License-Identifier: BSD-2-Clause */
/* Background work: compaction, and the log.
 *
 * One step takes the worst segment of the worst stream and moves a batch of its live objects to the
 * stream's open segment: gather (no lock, the source is pinned), take room (stream's lock), copy (no
 * lock), publish (stream's lock; what was dropped meanwhile is dead where it lies). Objects never
 * change, so that a load may read either copy. The segment that has lost most gives most for what is
 * copied: greedy cleaning (Rosenblum and Ousterhout, SOSP 1991, section 3.5).
 *
 * A segment explains itself by its headers, so that it is walked from object to object. Where a header
 * is damaged the walk ends, and the index, read as a whole, tells what is left.
 *
 * Guarded by the lock `work`, which a step holds throughout. */
#include "base/mem.h"
#include "pool/pool_internal.h"

#define LOOK_STREAMS 64u /* a call */
#define BATCH_BYTES 32768u

/* Where objects are taken from. A reader's pin is held. */
struct source {
	struct vmemi_stream *stream;
	struct vmemi_segment *segment;
	const unsigned char *memory; /* its, which stays while it is pinned */
	uint32_t number;
	bool empty; /* detached: its last object has left */
};

/* --- Choosing --- */

/* The worst segment that nobody is writing to. Stream locked. */
static uint32_t worst_segment(struct vmem_pool *p, struct vmemi_stream *s)
{
	for (uint64_t classes = s->classes; classes;) {
		uint32_t class = 63u - (uint32_t)__builtin_clzll(classes);

		classes &= ~(UINT64_C(1) << class);
		for (uint32_t n = s->class_first[class]; n;) {
			struct vmemi_segment *seg = vmemi_segment_at(p, n);

			/* Acquire: what the last writer wrote is read next. */
			if (atomic_load_explicit(&seg->pins, memory_order_acquire) <
			    VMEMI_PIN_WRITER)
				return n;
			n = seg->class_next;
		}
	}
	return 0;
}

/* The worst stream that was not passed by, or NULL. */
static struct vmemi_stream *worst_stream(struct vmem_pool *p)
{
	struct vmemi_stream *worst = NULL;

	vmemi_lock(&p->lock);
	for (uint64_t ranks = p->ranks; ranks && !worst;) {
		uint32_t rank = 63u - (uint32_t)__builtin_clzll(ranks);

		ranks &= ~(UINT64_C(1) << rank);
		for (uint32_t id = p->rank_first[rank]; id && !worst;) {
			struct vmemi_stream *s = vmemi_stream_at(p, id - 1);

			if (s->passed != p->pass)
				worst = s;
			id = s->rank_next;
		}
	}
	vmemi_unlock(&p->lock);
	return worst;
}

/* False: nothing is worth moving, or nothing can be moved now. */
static bool choose(struct vmem_pool *p, struct source *src)
{
	struct vmemi_stream *s;
	uint32_t n = 0;

	while (!n && (s = worst_stream(p)) != NULL) {
		vmemi_lock(&s->lock);
		if (vmemi_stream_untidy(s)) {
			n = worst_segment(p, s);
			if (!n)
				s->passed = p->pass; /* writers are in the way */
		}
		if (n) {
			*src = (struct source){ .stream = s,
						.segment = vmemi_segment_at(p, n),
						.number = n };
			vmemi_stream_seal(p, s, n);
			atomic_fetch_add(&src->segment->pins, 1);
			src->memory = src->segment->memory;
		}
		vmemi_stream_rank(p, s, true);
		vmemi_unlock(&s->lock);
	}
	return n != 0;
}

/* --- Gathering --- */

static void batch_add(struct vmemi_batch *b, uint32_t handle, uint64_t entry)
{
	b->handle[b->count] = handle;
	b->entry[b->count] = entry;
	b->grains[b->count] = (uint16_t)vmemi_entry_grains(entry);
	b->count++;
}

/* Walks the segment from where the last batch ended. Returns where this one ends. */
static uint32_t gather(struct vmem_pool *p, const struct source *src, uint32_t max_grains)
{
	struct vmemi_batch *b = &p->batch;
	uint32_t at = atomic_load_explicit(&src->segment->scanned, memory_order_relaxed);
	uint32_t end = src->segment->used, grains = 0;

	b->count = 0;
	while (at < end && b->count < VMEMI_BATCH_OBJECTS && grains < max_grains) {
		struct vmemi_found found = vmemi_object_at(p, src->memory, src->number, at);

		if (!found.grains)
			return end; /* damaged */
		if (found.handle) {
			batch_add(b, found.handle, found.entry);
			grains += found.grains;
		}
		at += found.grains;
	}
	return at < end ? at : end; /* the length of a dead object may be damaged */
}

/* --- Moving --- */

/* The headers of the copies are written anew, but for the checksum and the check of a reference: one that was
 * damaged is whole again, and these decide whether the object is. */
static void copy_batch(const struct vmemi_batch *b, uint32_t first, const struct source *src,
		       const struct vmemi_place *place)
{
	unsigned char *to = place->segment->memory + place->grain * VMEMI_GRAIN_BYTES;

	for (uint32_t i = first; i < first + place->count; i++) {
		const unsigned char *from =
			src->memory + vmemi_entry_grain(b->entry[i]) * VMEMI_GRAIN_BYTES;
		struct vmemi_object_header header;
		uint32_t bytes = b->grains[i] * VMEMI_GRAIN_BYTES;

		memcpy(&header, from, sizeof(header));
		memcpy(to, from, bytes);
		header.handle = b->handle[i];
		header.bytes = (uint16_t)vmemi_entry_bytes(b->entry[i]);
		header.form = (uint8_t)vmemi_entry_form(b->entry[i]);
		if (VMEMI_FORM_CODEC(header.form) != VMEM_CODEC_DELTA)
			header.reference_check = 0;
		memcpy(to, &header, sizeof(header));
		to += bytes;
	}
}

/* Lets the entries lead to the copies. Returns the bytes moved. */
static uint64_t publish_batch(struct vmem_pool *p, uint32_t first, struct source *src,
			      const struct vmemi_place *place)
{
	const struct vmemi_batch *b = &p->batch;
	struct vmemi_stream *s = src->stream;
	uint32_t grain = place->grain;
	bool place_empty = false;
	uint64_t moved = 0;

	vmemi_lock(&s->lock);
	for (uint32_t i = first; i < first + place->count; i++) {
		_Atomic uint64_t *entry = vmemi_index_at(p, b->handle[i]);
		uint64_t now = atomic_load_explicit(entry, memory_order_relaxed);

		if (vmemi_entry_is_same(now, b->entry[i])) {
			atomic_store(entry, vmemi_entry_move(now, place->number, grain));
			src->empty |= vmemi_stream_remove(p, s, src->number, b->grains[i]);
			moved += b->grains[i] * VMEMI_GRAIN_BYTES;
		} else {
			place_empty |= vmemi_stream_remove(p, s, place->number, b->grains[i]);
		}
		grain += b->grains[i];
	}
	s->moved_bytes += moved;
	s->compactions += src->empty;
	vmemi_stream_rank(p, s, true);
	vmemi_unlock(&s->lock);
	atomic_fetch_add_explicit(&p->moved_bytes, moved, memory_order_relaxed);
	atomic_fetch_add_explicit(&p->compactions, src->empty, memory_order_relaxed);
	atomic_fetch_sub_explicit(&place->segment->pins, VMEMI_PIN_WRITER, memory_order_release);
	if (place_empty)
		vmemi_segment_put(p, place->number);
	return moved;
}

/* Moves the batch. False: there was no room for all of it. */
static bool move_batch(struct vmem_pool *p, struct source *src, uint64_t *moved)
{
	const struct vmemi_batch *b = &p->batch;
	struct vmemi_place place;

	for (uint32_t first = 0; first < b->count; first += place.count) {
		struct vmemi_request request = { .grains = b->grains + first,
						 .count = b->count - first,
						 .before = src->number };
		int err = vmemi_stream_reserve(p, src->stream, &request, &place);

		if (err) /* -VMEM_EAGAIN: all of it was dropped meanwhile */
			return err == -VMEM_EAGAIN;
		copy_batch(b, first, src, &place);
		*moved += publish_batch(p, first, src, &place);
	}
	return true;
}

/* Whether objects are left that the walk did not come by. */
static bool left_over(const struct source *src)
{
	bool left;

	vmemi_lock(&src->stream->lock);
	left = src->segment->state == VMEMI_SEGMENT_SEALED;
	vmemi_unlock(&src->stream->lock);
	return left;
}

/* Moves them: the index tells which they are. */
static bool salvage(struct vmem_pool *p, struct source *src, uint64_t *moved)
{
	uint32_t end = vmemi_index_end(p), stream = src->stream->id;
	struct vmemi_batch *b = &p->batch;

	b->count = 0;
	for (uint32_t handle = 1; handle < end; handle++) {
		uint64_t entry =
			atomic_load_explicit(vmemi_index_at(p, handle), memory_order_acquire);

		if (!vmemi_entry_is_live(entry) || vmemi_entry_segment(entry) != src->number)
			continue;
		if (vmemi_object_at(p, src->memory, src->number, vmemi_entry_grain(entry)).handle !=
		    handle)
			vmemi_pool_note(p, handle, stream);
		batch_add(b, handle, entry);
		if (b->count == VMEMI_BATCH_OBJECTS) {
			if (!move_batch(p, src, moved))
				return false;
			b->count = 0;
		}
	}
	return move_batch(p, src, moved);
}

/* Lets go of the source; it was perhaps emptied by us, and is then ours to put away. */
static void leave(struct vmem_pool *p, const struct source *src)
{
	atomic_fetch_sub_explicit(&src->segment->pins, 1, memory_order_release);
	if (src->empty) {
		vmemi_segment_put(p, src->number);
		p->pass++; /* there is room for others */
	}
}

/* False: there is nothing to do now. */
static bool compact_step(struct vmem_pool *p, uint64_t max_bytes, uint64_t *moved)
{
	uint32_t max_grains =
		(uint32_t)((max_bytes < BATCH_BYTES ? max_bytes : BATCH_BYTES) / VMEMI_GRAIN_BYTES);
	struct source src;
	uint32_t end;
	bool fits;

	if (!choose(p, &src))
		return false;
	end = gather(p, &src, max_grains ? max_grains : 1);
	fits = move_batch(p, &src, moved);
	if (fits && end == src.segment->used && left_over(&src))
		fits = salvage(p, &src, moved);
	if (fits)
		atomic_store_explicit(&src.segment->scanned, end, memory_order_relaxed);
	else
		src.stream->passed = p->pass;
	leave(p, &src);
	return true;
}

/* --- Log --- */

void vmemi_pool_note(struct vmem_pool *p, uint32_t handle, uint32_t stream)
{
	uint64_t n = atomic_fetch_add_explicit(&p->noted, 1, memory_order_relaxed);

	atomic_store_explicit(&p->corrupt_note[n % VMEMI_CORRUPT_NOTES],
			      (uint64_t)handle << VMEMI_STREAM_BITS | stream, memory_order_relaxed);
}

static void log_notes(struct vmem_pool *p)
{
	uint64_t used, budget;

	for (uint32_t i = 0; i < VMEMI_CORRUPT_NOTES; i++) {
		uint64_t note =
			atomic_exchange_explicit(&p->corrupt_note[i], 0, memory_order_relaxed);

		if (note)
			vmemi_log(&p->env, VMEM_LOG_CORRUPT_OBJECT, note >> VMEMI_STREAM_BITS,
				  note & (VMEMI_STREAMS));
	}
	if (!(atomic_exchange_explicit(&p->refused, 0, memory_order_relaxed) &
	      VMEMI_REFUSED_BY_BUDGET))
		return;
	vmemi_lock(&p->lock);
	used = (p->in_use + p->reserve_count) * VMEM_POOL_SEGMENT_BYTES;
	budget = p->budget_bytes;
	vmemi_unlock(&p->lock);
	vmemi_log(&p->env, VMEM_LOG_BUDGET_EXCEEDED, used, budget);
}

void vmemi_pool_look(vmem_pool *p)
{
	vmemi_lock(&p->work);
	p->looked = 0;
	vmemi_unlock(&p->work);
}

/* Looks at the next streams. Work locked. */
static void look(struct vmem_pool *p)
{
	for (uint32_t n = 0; n < LOOK_STREAMS; n++) {
		struct vmemi_stream *s = vmemi_stream_at(p, p->looked);

		if (!s) {
			p->looked = UINT32_MAX; /* until the next call */
			return;
		}
		vmemi_lock(&s->lock);
		vmemi_stream_look(p, s);
		vmemi_unlock(&s->lock);
		p->looked++;
	}
}

int vmem_pool_work(vmem_pool *p, uint64_t max_bytes)
{
	uint64_t moved = 0;
	bool more = true;

	log_notes(p);
	vmemi_segment_maintain(p);
	for (bool first = true; more && moved < max_bytes; first = false) {
		vmemi_lock(&p->work);
		p->pass += first;
		if (first)
			look(p);
		more = compact_step(p, max_bytes - moved, &moved);
		vmemi_unlock(&p->work);
		log_notes(p);
	}
	vmemi_segment_maintain(p);
	vmemi_lock(&p->lock);
	more = more && p->ranks;
	vmemi_unlock(&p->lock);
	return more;
}
