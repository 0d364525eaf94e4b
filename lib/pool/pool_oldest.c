/* SPDX-License-Identifier: BSD-2-Clause */
/* Walking over a stream by age: see pool_oldest.h. A segment is entered under the stream's lock, and pinned as
 * by a load; then it is walked from header to header without one. Objects do not change where they lie, but
 * room that a writer has taken and not filled yet has no header: the walk waits a moment for writers to leave,
 * and ends if they do not. What others append meanwhile is behind the end that was read under the lock. */
#include "pool/pool_oldest.h"
#include "pool/pool_internal.h"

#define WRITER_WAITS 1000u

/* Where the walk is. */
struct walk {
	struct vmem_pool *pool;
	struct vmemi_stream *stream;
	uint32_t number; /* of a segment; 0: none */
	uint32_t at, end;
	const unsigned char *memory; /* of the segment, while it is pinned */
};

static struct vmemi_segment *segment_of(const struct walk *w)
{
	return vmemi_segment_at(w->pool, w->number);
}

/* At the object that the cursor names, or, if it lies elsewhere by now, at the oldest: what is between is not to
 * be left out. Stream locked. */
static void begin_at(struct walk *w, uint64_t cursor)
{
	uint64_t entry = vmemi_entry_of(w->pool, (uint32_t)cursor);

	w->number = w->stream->oldest;
	w->at = 0;
	/* Under the lock of the stream that it is in, an object stays. */
	if (vmemi_entry_is_live(entry) && vmemi_entry_segment(entry) == cursor >> 32 &&
	    vmemi_segment_is_of(vmemi_segment_at(w->pool, vmemi_entry_segment(entry)),
				w->stream->id) &&
	    vmemi_segment_at(w->pool, vmemi_entry_segment(entry))->memory) {
		w->number = vmemi_entry_segment(entry);
		w->at = vmemi_entry_grain(entry);
	}
}

/* To the next younger segment. Compaction may have emptied this one meanwhile, or it has gone out: then to the
 * oldest again, as its objects may be anywhere. Stream locked. */
static void step(struct walk *w)
{
	const struct vmemi_segment *seg = segment_of(w);

	bool gone = seg->state == VMEMI_SEGMENT_DRAINING || seg->state == VMEMI_SEGMENT_OUT;

	w->number = gone ? w->stream->oldest : seg->younger;
	w->at = 0;
}

/* Pins the segment, if nobody writes to it. Stream locked. */
static bool pin(struct walk *w)
{
	struct vmemi_segment *seg = segment_of(w);

	/* Acquire: what the last writer wrote is read next. */
	if (atomic_load_explicit(&seg->pins, memory_order_acquire) >= VMEMI_PIN_WRITER)
		return false;
	atomic_fetch_add(&seg->pins, 1);
	w->end = seg->used;
	w->memory = seg->memory;
	return true;
}

static void unpin(struct walk *w)
{
	atomic_fetch_sub_explicit(&segment_of(w)->pins, 1, memory_order_release);
}

/* Enters the first segment, or, from a pinned one, the next. False: there is none, or there are writers. */
static bool enter(struct walk *w, uint64_t cursor)
{
	struct walk from = *w;
	bool pinned = false;

	for (uint32_t n = 0; !pinned && n < WRITER_WAITS; n++) {
		if (n)
			vmemi_relax(&w->pool->env);
		*w = from;
		vmemi_lock(&w->stream->lock);
		if (!w->stream->exists)
			w->number = 0;
		else if (w->number)
			step(w);
		else
			begin_at(w, cursor);
		pinned = w->number && pin(w);
		vmemi_unlock(&w->stream->lock);
		if (!w->number)
			break;
	}
	if (from.number)
		unpin(&from);
	return pinned;
}

/* The next live object of the segment. 0: none. After a damaged header each grain is tried, until the index
 * says that an object begins there. */
static uint32_t next(struct walk *w, uint32_t *looks)
{
	bool damaged = false;

	while (w->at < w->end) {
		struct vmemi_found found = vmemi_object_at(w->pool, w->memory, w->number, w->at);

		damaged |= !found.grains;
		w->at += damaged && !found.handle ? 1 : found.grains;
		*looks -= *looks != 0;
		if (found.handle)
			return found.handle;
	}
	return 0;
}

uint32_t vmemi_pool_oldest(vmem_pool *p, struct vmemi_oldest *o, uint32_t *handles,
			   uint32_t capacity)
{
	struct walk w = { .pool = p, .stream = vmemi_stream_at(p, o->stream) };
	uint64_t from = o->cursor;
	uint32_t count = 0;

	o->cursor = 0;
	while (w.stream && enter(&w, from)) {
		uint32_t handle;

		while ((handle = next(&w, &o->looks)) != 0) {
			if (count == capacity || !o->looks) {
				o->cursor = (uint64_t)w.number << 32 | handle;
				unpin(&w);
				return count;
			}
			if (o->is_wanted(o->context, handle))
				handles[count++] = handle;
		}
	}
	return count;
}
