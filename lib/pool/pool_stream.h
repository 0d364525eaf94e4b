/* SPDX-License-Identifier: BSD-2-Clause */
/* Segments, the streams that own them, and how room in them is asked for. pool_internal.h says how their locks
 * nest and how loads stay apart from those that free a segment. */
#ifndef VMEMI_POOL_STREAM_H
#define VMEMI_POOL_STREAM_H
#include <stdatomic.h>
#include <stdbool.h>
#include <vmem/pool.h>
#include "base/lock.h"
#include "pool/pool_object.h"

/* --- Segments (pool_segment.c) --- */
#define VMEMI_SEGMENT_BITS 24u
#define VMEMI_SEGMENT_CHUNK_SHIFT 5u
#define VMEMI_PIN_WRITER (UINT64_C(1) << 32) /* in pins: one that fills in reserved room */
/* In pins: one that reads its copy on a device. Two counts, as there are two copies while it moves to another device. */
#define VMEMI_PIN_DEVICE(copy) (UINT64_C(1) << ((copy) ? 56 : 48))
#define VMEMI_PINS_DEVICE(copy) (VMEMI_PIN_DEVICE(copy) * 255)

enum vmemi_segment_state {
	VMEMI_SEGMENT_NONE,     /* has no memory; in the list of numbers */
	VMEMI_SEGMENT_SPARE,    /* has memory and no objects; in the reserve, or in hand */
	VMEMI_SEGMENT_OPEN,     /* of a stream, being appended to */
	VMEMI_SEGMENT_SEALED,   /* of a stream, full */
	VMEMI_SEGMENT_OUT,      /* of a stream, on a device: has no memory */
	VMEMI_SEGMENT_DRAINING, /* has no objects, and waits for its pins to go */
};

/* Segments are named by number, 0 is none. The first cache line is what loads use. */
struct vmemi_segment {
	/* atomic; readers, VMEMI_PIN_WRITER for each writer, VMEMI_PIN_DEVICE() for each load from a device */
	_Alignas(64) _Atomic uint64_t pins;
	/* atomic; written under pool, while there are no objects, else under stream; NULL with objects: OUT */
	unsigned char *_Atomic memory;
	_Atomic uint32_t stream;     /* atomic; the stream's lock for writing */
	struct vmemi_digest *digest; /* OUT: stream; then whoever puts it away */
	uint64_t place;              /* as digest; the owner's name of its copy */

	_Alignas(64) uint8_t state; /* OPEN, SEALED: stream; else pool */
	uint8_t class;              /* stream; of lost, see vmemi_stream_settle() */
	bool leaving;               /* stream; SEALED, and being written to a device */
	bool stays;                 /* stream; SEALED, and damaged: never written */
	bool transit;               /* stream; was opened as VMEMI_HEAD_TRANSIT */
	bool waits; /* stream; transit, SEALED, and not on its way out yet: counted in the stream and the pool */
	_Atomic bool is_out; /* atomic; written under stream: whether it is OUT */
	uint8_t copy;        /* stream; 0 or 1: which pins are of readers of its copy */
	uint32_t used;       /* stream; grains appended */
	uint32_t live;       /* stream; grains of live objects */
	uint32_t lost;       /* stream; grains that compaction would win */
	/* atomic; written under work, with 0 under stream; below this grain, compaction has moved everything */
	_Atomic uint32_t scanned;
	uint32_t older, younger;             /* stream; OUT: in the list of those */
	uint32_t class_previous, class_next; /* stream; in the list of its class, if not 0 */
	uint32_t next;                       /* pool; in the list of its state */
	uint32_t
		born; /* stream; of two segments of the pool the one that was opened first has less */
	uint64_t sequence; /* stream; age, not decreasing from older to younger */
	_Atomic uint32_t
		heat; /* atomic; OUT: when it was read last << 16 | blocks, see vmemi_pool_heat() */
};

enum vmemi_segment_purpose {
	VMEMI_FOR_SAVE, /* leaves one of the budget to each of the others; from the reserve only */
	VMEMI_FOR_COMPACTION,  /* may use all of it; from the allocator too */
	VMEMI_FOR_REPLACEMENT, /* leaves one to compaction; from the allocator too */
};

/* A budget of this many segments or more has one held back, so that compaction can always begin, and, where
 * objects are encoded anew, one for that, which makes room too. */
#define VMEMI_HOLD_BACK_FROM 8u

/* --- Streams (pool_stream.c) --- */
#define VMEMI_STREAM_BITS 16u
#define VMEMI_STREAMS 65535u
#define VMEMI_STREAM_CHUNK_SHIFT 3u

/* Segments are in classes by what compaction would win: the tail and dead objects of a sealed one, the
 * dead objects of an open one. A class is slightly wider than the longest tail, so that class 0, which
 * compaction leaves alone, is all that a segment without dead objects can be in. */
#define VMEMI_CLASS_GRAINS 1040u
#define VMEMI_CLASSES 64u
_Static_assert(VMEMI_CLASS_GRAINS *VMEMI_GRAIN_BYTES > VMEMI_OBJECT_MAX_BYTES,
	       "class 0 too narrow");
_Static_assert(VMEMI_SEGMENT_GRAINS / VMEMI_CLASS_GRAINS < VMEMI_CLASSES, "too few classes");

enum vmemi_head {
	VMEMI_HEAD_NEW, /* takes saves */
	VMEMI_HEAD_MOVED, /* takes what compaction moves: objects that live long, apart from new ones */
	VMEMI_HEAD_TRANSIT, /* takes what is to leave memory as soon as the segment is full */
	VMEMI_HEADS
};

struct vmemi_stream {
	_Alignas(64) struct vmemi_lock lock; /* guards all that follows but rank and the atomic */
	uint32_t id;
	bool exists;
	uint32_t open[VMEMI_HEADS];
	uint32_t oldest, youngest; /* segments */
	uint32_t segments;
	uint64_t sequence; /* of the youngest segment */
	uint64_t objects;
	uint64_t payload_bytes;
	uint64_t used, live, lost; /* grains, sums over the segments with memory */
	uint32_t out_first;        /* segments that are out, youngest first */
	uint32_t out_segments;
	uint64_t out_live; /* grains of live objects in them */
	uint64_t compactions;
	uint64_t moved_bytes;
	_Atomic uint32_t waiting; /* atomic; segments in transit that wait to leave */
	uint32_t dropped;         /* objects, since vmemi_pool_look(); no more than are too many */
	bool at_rest;             /* there were few: compaction goes on to less lost */
	_Atomic uint64_t corrupt; /* atomic */
	uint64_t classes;         /* bit c: class_first[c] is not 0 */
	uint32_t class_first[VMEMI_CLASSES];

	uint32_t next_free; /* work; id + 1, of streams that do not exist */
	uint64_t passed;    /* work; the pool's pass in which compaction could do nothing here */
	uint32_t rank; /* written under stream and pool, read under either; 0: nothing to compact */
	uint32_t rank_previous, rank_next; /* pool; stream ids + 1 */
};

/* Room for objects. */
struct vmemi_request {
	const uint16_t *grains; /* of each object, in order */
	uint32_t count;
	uint32_t before;        /* the segment that they are moved from; 0: they are new */
	bool transit;           /* new, for VMEMI_HEAD_TRANSIT */
	bool replaces;          /* not moved, but encoded anew: compaction goes first */
	uint32_t payload_bytes; /* of new objects */
};

/* Room for the first @count of them, in a row. A writer's pin is held on the segment. */
struct vmemi_place {
	struct vmemi_segment *segment;
	uint32_t number;
	uint32_t grain;
	uint32_t count;
};

#endif
