/* SPDX-License-Identifier: BSD-2-Clause */
/* Inside the pool. Three tables: the index leads from a handle to its object, segments hold the
 * objects, streams own segments.
 *
 * Locks, in the order in which they nest:
 *   work    compaction, making and dropping streams; one step at a time
 *   stream  one each: its segments, their counts, and every change of an index entry that is live
 *   pool    memory of segments and the budget, and the ranking of streams
 * No lock is held while the allocator, a codec or the caller's memory is at work, but `work`; no slot
 * for encoding while the allocator is.
 *
 * Loads take none of them. They announce themselves in the segment, then look again:
 *
 *   a load                                 whoever takes the object out of the segment
 *     read the entry: segment S              change the entry
 *     S.pins += 1                            (the last object: S is detached)
 *     read the entry again                   read S.pins
 *     the same: the object stays until       0: S is freed
 *       S.pins -= 1; else undo, start over   else S drains, work() looks again
 *
 * All four accesses in the middle are sequentially consistent, so that either the load sees the
 * changed entry, or the other side sees the pin. Giving up the pin is a release, which the acquiring
 * read of pins == 0 pairs with: no byte of S is read after it was freed. The table of segments never
 * moves, so that a pin that comes too late touches nothing but a counter.
 *
 * A segment that goes out (pool_out.h) loses its memory while it has objects. That is the same again with
 * another word: S.memory becomes NULL, then S.pins is read; a load pins S, then reads S.memory. */
#ifndef VMEMI_POOL_INTERNAL_H
#define VMEMI_POOL_INTERNAL_H
#include <stdatomic.h>
#include <stdbool.h>
#include <vmem/pool.h>
#include "base/alloc.h"
#include "base/hash.h"
#include "base/lock.h"
#include "pool/pool_object.h"
#include "pool/pool_of.h"
#include "pool/pool_out.h"
#include "pool/pool_stream.h"
#include "pool/pool_table.h"

#define VMEMI_BATCH_OBJECTS 64u
#define VMEMI_CORRUPT_NOTES 8u
enum { VMEMI_REFUSED = 1, VMEMI_REFUSED_BY_BUDGET = 2 };

/* Objects on their way from one segment to another. */
struct vmemi_batch {
	uint32_t count;
	uint32_t handle[VMEMI_BATCH_OBJECTS];
	uint64_t entry[VMEMI_BATCH_OBJECTS];
	uint16_t grains[VMEMI_BATCH_OBJECTS];
};

struct vmem_pool {
	/* Constant. */
	struct vmem_allocator segment_allocator;
	struct vmem_env env;
	vmemi_hash_fn hash;
	struct vmem_codec codec_copy[VMEM_CODEC_MAX + 1];   /* by id; id 0: there is none */
	const struct vmem_codec *codec[VMEM_CODEC_MAX + 1]; /* its copy, or NULL */
	const struct vmem_codec *first_codec;               /* of the caller's table, else raw */
	size_t context_at[VMEM_CODEC_MAX + 1];              /* in a slot */
	unsigned char *slots;                               /* pool_slot.h */
	size_t slot_bytes;
	uint32_t slot_count;
	uint32_t contexts_made; /* of VMEM_CODEC_MAX a slot, one after the other */
	uint64_t taken_bytes;   /* by them, besides what is in the slots */
	uint64_t encode_slots;  /* a bit each: those that are not kept for decoding */
	uint32_t decoders;      /* a bit for each codec whose contexts only decode, but in slot 0 */
	uint32_t reserve_target;
	bool replaces; /* objects are encoded anew */

	struct vmemi_pool_devices devices; /* before the first segment leaves */

	struct vmemi_counting_allocator tables;
	struct vmemi_table index;      /* of _Atomic uint64_t */
	struct vmemi_table segments;   /* of struct vmemi_segment */
	struct vmemi_table streams;    /* of struct vmemi_stream */
	_Atomic uint32_t stream_count; /* atomic, written under work: ids ever used */

	_Alignas(64) _Atomic uint64_t free_handles; /* atomic; times pushed << 32 | first */
	_Atomic uint32_t index_chunks;              /* atomic, written under index_adding */
	_Atomic bool index_adding; /* atomic; a thread makes a chunk's handles free */
	_Alignas(64) _Atomic uint64_t idle_slots; /* atomic; a bit each */

	/* Atomic, all of them. */
	_Atomic uint64_t corrupt;
	_Atomic uint64_t noted;                             /* objects, ever */
	_Atomic uint64_t corrupt_note[VMEMI_CORRUPT_NOTES]; /* handle << 16 | stream, to log */
	_Atomic uint32_t refused; /* saves, since work() last looked: VMEMI_REFUSED_* */
	_Atomic uint64_t compactions;
	_Atomic uint64_t moved_bytes;
	_Atomic uint64_t lost;    /* grains, sum over the streams */
	_Atomic uint32_t born;    /* segments opened, ever */
	_Atomic uint32_t waiting; /* segments in transit, sum over the streams */

	/* Guarded by lock. */
	_Alignas(64) struct vmemi_lock lock;
	uint64_t budget_bytes;
	uint64_t in_use; /* segments with memory outside the reserve */
	uint64_t reserve_count;
	uint32_t reserve_first;
	uint32_t draining_first;
	uint32_t vacated_first;             /* were out, and have no objects and no pins any more */
	uint32_t number_first;              /* segments without memory */
	uint32_t number_count;              /* numbers ever used */
	uint64_t ranks;                     /* bit r: rank_first[r] is not 0 */
	uint32_t rank_first[VMEMI_CLASSES]; /* stream ids + 1 */

	/* Guarded by work. */
	struct vmemi_lock work;
	uint32_t stream_free; /* id + 1 of a stream that was dropped */
	uint64_t pass;        /* grows whenever streams that were passed by are worth another try */
	uint32_t looked;      /* streams from here on are to be looked at: vmemi_pool_look() */
	struct vmemi_batch batch;
};

#define VMEMI_INDEX_CHUNK_SHIFT 13u

static inline _Atomic uint64_t *vmemi_index_at(const struct vmem_pool *p, uint32_t handle)
{
	return vmemi_table_at(&p->index, handle, sizeof(_Atomic uint64_t), VMEMI_INDEX_CHUNK_SHIFT);
}

static inline struct vmemi_segment *vmemi_segment_at(const struct vmem_pool *p, uint32_t number)
{
	return vmemi_table_at(&p->segments, number, sizeof(struct vmemi_segment),
			      VMEMI_SEGMENT_CHUNK_SHIFT);
}

/* NULL: never made. Whether it exists now is told under its lock. */
static inline struct vmemi_stream *vmemi_stream_at(const struct vmem_pool *p, uint32_t id)
{
	if (id >= atomic_load_explicit(&p->stream_count, memory_order_acquire))
		return NULL;
	return vmemi_table_at(&p->streams, id, sizeof(struct vmemi_stream),
			      VMEMI_STREAM_CHUNK_SHIFT);
}

/* The entry of a handle, live or not. */
static inline uint64_t vmemi_entry_of(const struct vmem_pool *p, vmem_pool_handle handle)
{
	_Atomic uint64_t *entry = handle <= UINT32_MAX ? vmemi_index_at(p, (uint32_t)handle) : NULL;

	return entry ? atomic_load_explicit(entry, memory_order_acquire) : VMEMI_ENTRY_TAKEN;
}

/* Whether the segment is of the stream that is asked for. An object in it stays, so that it is of one. */
static inline bool vmemi_segment_is_of(const struct vmemi_segment *seg, uint32_t stream)
{
	return stream == VMEMI_ANY_STREAM ||
	       atomic_load_explicit(&seg->stream, memory_order_relaxed) == stream;
}

/* What stands in a segment at a grain where an object begins. */
struct vmemi_found {
	uint32_t grains; /* to the next object; 0: the header is damaged */
	uint32_t handle; /* 0: a dead object */
	uint64_t entry;  /* of the handle */
};

/* The reference of a delta, whose header is at @object; 0: no delta, or its handle is damaged. */
uint32_t vmemi_object_reference(const unsigned char *object, uint64_t entry);
/* The same wherever it is. Its stream is locked, or the pool at rest. */
uint32_t vmemi_entry_reference(const struct vmem_pool *p, uint64_t entry);

/* The stream that has a live object, locked, and the object's entry. NULL: there is none of @stream. */
struct vmemi_stream *vmemi_object_lock(struct vmem_pool *p, uint32_t stream,
				       vmem_pool_handle handle, uint64_t *ret_entry);

/* @memory: of the segment, which is pinned, or its stream locked. No writer may be in it. */
struct vmemi_found vmemi_object_at(const struct vmem_pool *p, const unsigned char *memory,
				   uint32_t segment, uint32_t grain);

/* A handle of its own, TAKEN. 0, -VMEM_ENOMEM. Any thread. */
int vmemi_handle_new(struct vmem_pool *p, uint32_t *ret_handle);
/* Gives back one that is TAKEN. Any thread. */
void vmemi_handle_free(struct vmem_pool *p, uint32_t handle);
/* Makes the memory of the next chunk of handles ready, unless it is. 0, -VMEM_ENOMEM. Any thread. */
int vmemi_index_provide(struct vmem_pool *p);
uint32_t vmemi_index_end(const struct vmem_pool *p); /* all handles are smaller */

/* An empty segment with memory, in hand. 0, -VMEM_ENOSPC; for a save -VMEM_EAGAIN (the reserve has none:
 * see vmemi_segment_fill()), for compaction -VMEM_ENOMEM. No lock held. */
int vmemi_segment_get(struct vmem_pool *p, enum vmemi_segment_purpose purpose,
		      uint32_t *ret_number);
/* Whether the budget has one that compaction can get. */
bool vmemi_segment_is_left(struct vmem_pool *p);
/* Fills the reserve up to @least. 0, -VMEM_ENOSPC, -VMEM_ENOMEM. No lock and no slot held. */
int vmemi_segment_fill(struct vmem_pool *p, uint32_t least);
/* Takes back one without objects, to the reserve or to drain. No lock held. Calls no allocator: a drop
 * may serve a fault. */
void vmemi_segment_put(struct vmem_pool *p, uint32_t number);
/* Frees what is in the reserve beyond its target or the budget. No lock held. */
void vmemi_segment_trim(struct vmem_pool *p);
/* Takes back what has drained, and trims or fills the reserves. No lock held. */
void vmemi_segment_maintain(struct vmem_pool *p);
/* Memory of a segment that has gone out, counted in in_use: to the reserve, or free. No lock held. */
void vmemi_segment_recycle(struct vmem_pool *p, unsigned char *memory);
/* Takes the memory of a segment in hand for another: the number is free. No lock held. */
unsigned char *vmemi_segment_take_memory(struct vmem_pool *p, uint32_t number);

/* Any thread. 0, -VMEM_ENOENT, -VMEM_ENOSPC; for new objects -VMEM_EAGAIN (the reserve is empty), for
 * moved ones -VMEM_ENOMEM, -VMEM_EAGAIN (request->before has become empty). */
int vmemi_stream_reserve(struct vmem_pool *p, struct vmemi_stream *s,
			 const struct vmemi_request *request, struct vmemi_place *ret_place);
/* Takes grains of a live object out of a segment. Stream locked. True if that was the last: the
 * segment is detached, and goes to vmemi_segment_put() once the lock is released. */
bool vmemi_stream_remove(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number,
			 uint32_t grains);
/* Detaches a segment with all that is in it. Stream locked. */
void vmemi_stream_detach(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number);
/* A sealed segment has been written: it has no memory from now on. Stream locked. */
void vmemi_stream_out(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number);
/* One that is out has its memory again, and is the oldest, or as young as those that are being filled. Stream locked. */
void vmemi_stream_home(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number,
		       unsigned char *memory, bool is_young);
/* Whether a sealed segment is being written. Stream locked. */
void vmemi_stream_leaving(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number,
			  bool leaving);
/* Seals a segment if it is open. Stream locked. */
void vmemi_stream_seal(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number);
/* Whether more is lost than should be. Stream locked. */
bool vmemi_stream_untidy(const struct vmemi_stream *s);
/* The owner has dropped an object. Stream locked. */
void vmemi_stream_dropped(struct vmemi_stream *s);
/* Whether it has been at rest since the last call. Stream locked. */
void vmemi_stream_look(struct vmem_pool *p, struct vmemi_stream *s);
/* Ranks the stream by its worst segment. With @lower, down as well; otherwise only up, so that a stream
 * does not change its rank with every object. Stream locked. */
void vmemi_stream_rank(struct vmem_pool *p, struct vmemi_stream *s, bool lower);

/* Notes a damaged object, for work() to log once it holds no lock. Any thread. */
void vmemi_pool_note(struct vmem_pool *p, uint32_t handle, uint32_t stream);

#endif
