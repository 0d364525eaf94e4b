/* SPDX-License-Identifier: BSD-2-Clause */
/* Segments that go out: see pool_out.h. One is chosen under its stream's lock and pinned as by a reader; its digest
 * is made without a lock, as its objects do not change; when it is written, one step under the lock takes it from
 * the lists and its memory from sight. What is dropped or moved meanwhile is dead in the copy, too. */
#include "base/mem.h"
#include "pool/pool_internal.h"

#define LOOK_STREAMS 64u /* for the oldest segment */
#define LOOK_SEGMENTS 8u /* of each */
#define LOOK_WAITING 64u
#define LOOK_WAITING_STREAMS 1024u
#define SPARSE_SHIFT 3u              /* an eighth: copy what is live only */
#define READERS UINT64_C(0xffffffff) /* in pins */
#define AHEAD 16u                    /* objects */

/* --- Choosing --- */

/* The oldest that can leave. 0: none. Stream locked. */
static uint32_t oldest_of(struct vmem_pool *p, const struct vmemi_stream *s)
{
	uint32_t n = s->exists ? s->oldest : 0;

	for (uint32_t looks = 0; n && looks < LOOK_SEGMENTS; looks++) {
		struct vmemi_segment *seg = vmemi_segment_at(p, n);

		/* Acquire: what the last writer wrote is read next. */
		if (seg->state == VMEMI_SEGMENT_SEALED && !seg->leaving && !seg->stays &&
		    atomic_load_explicit(&seg->pins, memory_order_acquire) < VMEMI_PIN_WRITER)
			return n;
		n = seg->younger;
	}
	return 0;
}

/* One in transit, which are among the youngest. 0: none, or not yet. Stream locked. */
static uint32_t waiting_of(struct vmem_pool *p, const struct vmemi_stream *s)
{
	uint32_t n = s->exists && atomic_load_explicit(&s->waiting, memory_order_relaxed)
			     ? s->youngest
			     : 0;

	for (uint32_t looks = 0; n && looks < LOOK_WAITING; looks++) {
		const struct vmemi_segment *seg = vmemi_segment_at(p, n);

		if (seg->waits &&
		    atomic_load_explicit(&seg->pins, memory_order_acquire) < VMEMI_PIN_WRITER)
			return n;
		n = seg->older;
	}
	return 0;
}

/* A stream that has one. NULL: none of those that were looked at. */
static struct vmemi_stream *waiting_stream(struct vmem_pool *p, uint32_t *hand)
{
	uint32_t streams = atomic_load_explicit(&p->stream_count, memory_order_acquire);

	if (!vmemi_pool_waiting(p))
		return NULL;
	for (uint32_t looks = 0; looks < LOOK_WAITING_STREAMS && looks < streams; looks++) {
		struct vmemi_stream *s = vmemi_stream_at(p, (*hand)++ % streams);
		uint32_t n;

		if (!atomic_load_explicit(&s->waiting, memory_order_relaxed))
			continue;
		vmemi_lock(&s->lock);
		n = waiting_of(p, s);
		vmemi_unlock(&s->lock);
		if (n)
			return s;
	}
	return NULL;
}

/* The stream that has it. NULL: none. */
static struct vmemi_stream *oldest_stream(struct vmem_pool *p, uint32_t *hand)
{
	uint32_t streams = atomic_load_explicit(&p->stream_count, memory_order_acquire);
	uint32_t now = atomic_load_explicit(&p->born, memory_order_relaxed), best_age = 0;
	struct vmemi_stream *best = NULL;

	for (uint32_t looks = 0; looks < LOOK_STREAMS && looks < streams; looks++) {
		struct vmemi_stream *s = vmemi_stream_at(p, (*hand)++ % streams);
		uint32_t n, age;

		vmemi_lock(&s->lock);
		n = oldest_of(p, s);
		age = n ? now - vmemi_segment_at(p, n)->born : 0;
		vmemi_unlock(&s->lock);
		if (n && (!best || age > best_age)) {
			best = s;
			best_age = age;
		}
	}
	return best;
}

static bool choose(struct vmem_pool *p, uint32_t *hand, bool waiting, struct vmemi_leaving *l)
{
	struct vmemi_stream *s = waiting_stream(p, hand);
	uint32_t n;

	if (!s && !waiting)
		s = oldest_stream(p, hand);
	if (!s)
		return false;
	vmemi_lock(&s->lock);
	n = waiting_of(p, s);
	if (!n && !waiting)
		n = oldest_of(p, s);
	if (n) {
		struct vmemi_segment *seg = vmemi_segment_at(p, n);

		vmemi_stream_leaving(p, s, n, true);
		atomic_fetch_add(&seg->pins, 1);
		*l = (struct vmemi_leaving){ .number = n, .memory = seg->memory };
	}
	vmemi_unlock(&s->lock);
	return n != 0;
}

/* --- The digest --- */

/* The encoding of what leaves is final. The entry must be what it was: the handle may be another object's. */
static void settle_mark(struct vmem_pool *p, uint32_t handle, uint64_t entry)
{
	uint64_t settled = (entry & ~VMEMI_ENTRY_MARK) | (uint64_t)VMEMI_MARK_SETTLED
								 << VMEMI_ENTRY_MARK_SHIFT;

	if (vmemi_entry_mark(entry) < VMEMI_MARK_SETTLED)
		atomic_compare_exchange_strong(vmemi_index_at(p, handle), &entry, settled);
}

static void digest_add(struct vmem_pool *p, struct vmemi_digest *d, const unsigned char *memory,
		       uint32_t grain, const struct vmemi_found *found)
{
	const unsigned char *object = memory + grain * VMEMI_GRAIN_BYTES;
	struct vmemi_object_header header;

	memcpy(&header, object, sizeof(header));
	d->entry[d->count++] = (struct vmemi_digest_entry){
		.handle = found->handle,
		.checksum = header.checksum,
		.reference = vmemi_object_reference(object, found->entry),
		.grain = (uint16_t)grain,
		.at = (uint16_t)grain,
	};
	settle_mark(p, found->handle, found->entry);
}

/* Whether the header says what the index says: one that does not is damaged. */
static bool is_sound(const unsigned char *object, const struct vmemi_found *found)
{
	struct vmemi_object_header header;

	memcpy(&header, object, sizeof(header));
	return header.handle == found->handle && header.bytes == vmemi_entry_bytes(found->entry) &&
	       header.form == vmemi_entry_form(found->entry);
}

/* Where the next header stands is known when one has come from memory that nobody has touched for long. Objects
 * that were saved one after the other mostly have handles in a row: so the header of one further on is fetched ahead. */
static void fetch_ahead(const struct vmem_pool *p, const struct vmemi_leaving *l, uint32_t handle)
{
	uint64_t entry = vmemi_entry_of(p, (uint64_t)handle + AHEAD);

	if (vmemi_entry_is_live(entry) && vmemi_entry_segment(entry) == l->number)
		__builtin_prefetch(l->memory + vmemi_entry_grain(entry) * VMEMI_GRAIN_BYTES);
}

/* Counts the live objects, and with @d, which has room for *@count, enters them. False: a header is damaged. */
static bool walk(struct vmem_pool *p, const struct vmemi_leaving *l, uint32_t used,
		 struct vmemi_digest *d, uint32_t *count)
{
	uint32_t most = *count, found_count = 0, handle = 0;

	for (uint32_t at = 0; at < used;) {
		struct vmemi_found found = vmemi_object_at(p, l->memory, l->number, at);

		handle = found.handle ? found.handle : handle + 1; /* of what is dead a guess */
		fetch_ahead(p, l, handle);
		if (!found.grains ||
		    (found.handle && !is_sound(l->memory + at * VMEMI_GRAIN_BYTES, &found)))
			return false;
		if (found.handle && found_count < most) {
			if (d)
				digest_add(p, d, l->memory, at, &found);
			found_count++;
		}
		at += found.grains;
	}
	*count = found_count;
	return true;
}

/* 0, -VMEM_ENOMEM, -VMEM_EBADMSG (a header is damaged), -VMEM_ENOENT (nothing is live any more). */
static int make_digest(struct vmem_pool *p, struct vmemi_leaving *l, uint32_t used)
{
	uint32_t count = UINT32_MAX;
	size_t bytes;

	if (!walk(p, l, used, NULL, &count))
		return -VMEM_EBADMSG;
	if (!count)
		return -VMEM_ENOENT;
	bytes = sizeof(*l->digest) + count * sizeof(l->digest->entry[0]);
	l->digest = vmemi_alloc(&p->tables.allocator, bytes, _Alignof(struct vmemi_digest));
	if (!l->digest)
		return -VMEM_ENOMEM;
	l->digest->count = 0;
	l->digest->capacity = count;
	(void)walk(p, l, used, l->digest, &count); /* some may have been dropped since */
	return l->digest->count ? 0 : -VMEM_ENOENT;
}

/* --- Sparse ones --- */

/* Copies what is live, one after the other. Returns the grains. */
static uint32_t pack(struct vmemi_leaving *l, unsigned char *scratch)
{
	uint32_t to = 0;

	for (uint32_t i = 0; i < l->digest->count; i++) {
		struct vmemi_digest_entry *e = &l->digest->entry[i];
		const unsigned char *from = l->memory + e->grain * VMEMI_GRAIN_BYTES;
		struct vmemi_object_header header;
		uint32_t grains;

		memcpy(&header, from, sizeof(header));
		grains = vmemi_header_grains(&header);
		memcpy(scratch + to * VMEMI_GRAIN_BYTES, from, grains * VMEMI_GRAIN_BYTES);
		e->at = (uint16_t)to;
		to += grains;
	}
	return to;
}

/* What is to be written, with zeros up to the end of the last block. */
static void choose_bytes(struct vmemi_leaving *l, uint32_t used, uint32_t live, void *scratch)
{
	bool sparse = scratch && live + (VMEMI_SEGMENT_GRAINS >> SPARSE_SHIFT) < used;
	unsigned char *data = sparse ? scratch : l->memory;
	uint32_t bytes = (sparse ? pack(l, scratch) : used) * VMEMI_GRAIN_BYTES;
	uint32_t rest = -bytes % VMEMI_OUT_BLOCK;

	memset(data + bytes, 0, rest);
	l->data = data;
	l->bytes = bytes + rest;
	l->digest->blocks = l->bytes / VMEMI_OUT_BLOCK;
}

/* --- Leaving --- */

static struct vmemi_stream *stream_of(struct vmem_pool *p, const struct vmemi_leaving *l)
{
	return vmemi_stream_at(p, atomic_load_explicit(&vmemi_segment_at(p, l->number)->stream,
						       memory_order_relaxed));
}

/* Its pin is left. */
static void stop_pinned(struct vmem_pool *p, struct vmemi_leaving *l, bool stays)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, l->number);
	struct vmemi_stream *s = stream_of(p, l);

	vmemi_lock(&s->lock);
	if (stays && seg->state == VMEMI_SEGMENT_SEALED)
		seg->stays = true;
	vmemi_stream_leaving(p, s, l->number, false);
	vmemi_unlock(&s->lock);
	vmemi_digest_free(p, l->digest);
	l->digest = NULL;
}

static void stop(struct vmem_pool *p, struct vmemi_leaving *l, bool stays)
{
	stop_pinned(p, l, stays);
	atomic_fetch_sub_explicit(&vmemi_segment_at(p, l->number)->pins, 1, memory_order_release);
}

static bool leave_begin(vmem_pool *p, uint32_t *hand, bool waiting, void *scratch,
			struct vmemi_leaving *l)
{
	struct vmemi_segment *seg;
	struct vmemi_stream *s;
	uint32_t used, live;
	int err;

	do {
		if (!choose(p, hand, waiting, l))
			return false;
		seg = vmemi_segment_at(p, l->number);
		s = stream_of(p, l);
		vmemi_lock(&s->lock);
		used = seg->used;
		live = seg->live;
		vmemi_unlock(&s->lock);
		err = make_digest(p, l, used);
		if (err)
			stop(p, l, err == -VMEM_EBADMSG);
	} while (err == -VMEM_EBADMSG);
	if (err)
		return false;
	choose_bytes(l, used, live, scratch);
	return true;
}

bool vmemi_pool_leave_begin(vmem_pool *p, uint32_t *hand, void *scratch, struct vmemi_leaving *l)
{
	return leave_begin(p, hand, false, scratch, l);
}

bool vmemi_pool_leave_waiting(vmem_pool *p, uint32_t *hand, void *scratch, struct vmemi_leaving *l)
{
	return leave_begin(p, hand, true, scratch, l);
}

uint32_t vmemi_pool_waiting(const vmem_pool *p)
{
	return atomic_load_explicit(&p->waiting, memory_order_relaxed);
}

bool vmemi_pool_leave_end(vmem_pool *p, struct vmemi_leaving *l, uint64_t place)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, l->number);
	struct vmemi_stream *s = stream_of(p, l);
	bool left;

	vmemi_lock(&s->lock);
	left = seg->state == VMEMI_SEGMENT_SEALED;
	if (left) {
		seg->digest = l->digest;
		seg->place = place;
		vmemi_stream_out(p, s, l->number);
	}
	vmemi_unlock(&s->lock);
	if (!left)
		vmemi_digest_free(p, l->digest);
	l->digest = NULL;
	/* Sequentially consistent: then the pins are read. */
	atomic_fetch_sub(&seg->pins, 1);
	return left;
}

bool vmemi_pool_leave_freed(vmem_pool *p, struct vmemi_leaving *l)
{
	if (atomic_load(&vmemi_segment_at(p, l->number)->pins) & READERS)
		return false;
	vmemi_segment_recycle(p, l->memory);
	l->memory = NULL;
	return true;
}

void vmemi_pool_leave_cancel(vmem_pool *p, struct vmemi_leaving *l)
{
	stop(p, l, false);
}

void vmemi_pool_leave_expire(vmem_pool *p, struct vmemi_leaving *l)
{
	stop_pinned(p, l, true);
}

void vmemi_pool_leave_unpin(vmem_pool *p, uint32_t number)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);
	struct vmemi_stream *s =
		vmemi_stream_at(p, atomic_load_explicit(&seg->stream, memory_order_relaxed));

	/* Pinned, it is this stream's, or nobody's: the number was not used again. */
	vmemi_lock(&s->lock);
	seg->stays = false;
	vmemi_stream_leaving(p, s, number, false); /* one in transit waits again */
	vmemi_unlock(&s->lock);
	atomic_fetch_sub_explicit(&seg->pins, 1, memory_order_release);
}
