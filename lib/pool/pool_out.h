/* SPDX-License-Identifier: BSD-2-Clause */
/* Segments that are out: on a device, with no memory. The pool does no I/O; its owner, the store, writes a
 * segment that the pool names, and reads the bytes of objects for loads.
 *
 * A segment that is out keeps its number, its stream and the index entries of its objects, so that handles lead
 * to it as before. Of its objects a digest is left in memory, 16 bytes each: what a drop needs (the checksum, by
 * which the table of equal pages is asked, and the reference of a delta), and where an object lies in the copy.
 *
 *                                                    .--- move_end: elsewhere
 *                                                    v  |
 *   SEALED --leave_begin--> leaving --leave_end--> OUT --home_end--> SEALED
 *                              |                    |
 *                              '---- last object dropped ----> DRAINING: the owner is told with vacate(),
 *                                                              once no load reads the copy any more
 *
 * While it leaves it is loaded from memory as ever; its memory is free once the copy is written and no reader is
 * in it. Objects that are out do not move and are not encoded anew. */
#ifndef VMEMI_POOL_OUT_H
#define VMEMI_POOL_OUT_H
#include <stdbool.h>
#include <vmem/pool.h>

#define VMEMI_OUT_BLOCK 4096u /* in which a copy is written and read */
#define VMEMI_OUT_BLOCKS (VMEM_POOL_SEGMENT_BYTES / VMEMI_OUT_BLOCK)
#define VMEMI_OUT_OBJECT_BLOCKS 3u /* that an object may touch */
#define VMEMI_PIECES 2u            /* objects that a load needs: a delta and its reference */

/* Both positions in grains. */
struct vmemi_digest_entry {
	uint32_t handle;
	uint32_t checksum;
	uint32_t reference; /* of a delta, else or if damaged 0 */
	uint16_t grain;     /* in memory, as the index says */
	uint16_t at;        /* in the copy: less, if what is dead was left out */
};

struct vmemi_digest {
	uint32_t count;    /* objects that were live when it left */
	uint32_t capacity; /* entries that there is room for */
	uint32_t blocks;   /* of the copy */
	struct vmemi_digest_entry entry[];
};

/* Of the pool's owner. */
struct vmemi_pool_devices {
	/* A copy is not used any more; @place may be VMEMI_PLACE_LOST. Called by vmem_pool_work() and vmemi_pool_maintain(), no lock held. */
	void (*vacate)(void *context, uint64_t place, uint32_t blocks);
	void *context;
};

/* --- For the pool --- */

/* By the grain of the index. NULL: none. */
const struct vmemi_digest_entry *vmemi_digest_find(const struct vmemi_digest *d, uint32_t grain);
/* How many its object has, if it is there still; else 0. */
uint32_t vmemi_digest_grains(const vmem_pool *pool, uint32_t segment,
			     const struct vmemi_digest_entry *e);
void vmemi_digest_free(vmem_pool *pool, struct vmemi_digest *d); /* NULL is fine */

/* The checksum of an object that is out. As vmemi_pool_locate(). Any thread. */
int vmemi_out_checksum(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle,
		       uint32_t *ret_checksum);

/* --- For the owner --- */

/* Before the first segment leaves. */
void vmemi_pool_set_devices(vmem_pool *pool, const struct vmemi_pool_devices *devices);

/* A segment on its way out. */
struct vmemi_leaving {
	uint32_t number;
	struct vmemi_digest *digest;
	unsigned char *memory; /* of the segment */
	const void *data;      /* to be written: it, or the scratch; aligned to a page */
	uint32_t bytes;        /* a multiple of VMEMI_OUT_BLOCK */
};

/* Takes the oldest full segment of one of some streams, from *@hand on, which is set to where to go on; one in transit
 * goes before. Where more
 * than an eighth of it is dead or empty, the live objects are copied to @scratch (of a segment's size; NULL: never).
 * False: there is none. Serial. */
bool vmemi_pool_leave_begin(vmem_pool *pool, uint32_t *hand, void *scratch,
			    struct vmemi_leaving *ret_leaving);
/* The same of a segment in transit only. */
bool vmemi_pool_leave_waiting(vmem_pool *pool, uint32_t *hand, void *scratch,
			      struct vmemi_leaving *ret_leaving);
/* How many of these wait to leave. Any thread. */
uint32_t vmemi_pool_waiting(const vmem_pool *pool);
/* It has been written to @place, and is out. False: it has become empty meanwhile, @place is the caller's. Once, or
 * vmemi_pool_leave_cancel(). Any thread. */
bool vmemi_pool_leave_end(vmem_pool *pool, struct vmemi_leaving *leaving, uint64_t place);
/* After leave_end() was true: its memory is free. False: a reader is in it, ask again. Any thread. */
bool vmemi_pool_leave_freed(vmem_pool *pool, struct vmemi_leaving *leaving);
/* It has not been written, and stays. Any thread. */
void vmemi_pool_leave_cancel(vmem_pool *pool, struct vmemi_leaving *leaving);

/* As vmemi_pool_leave_cancel(), but its memory is still read. It does not leave before vmemi_pool_leave_unpin(). Any
 * thread. */
void vmemi_pool_leave_expire(vmem_pool *pool, struct vmemi_leaving *leaving);
void vmemi_pool_leave_unpin(vmem_pool *pool, uint32_t number);

/* An object that is out. Its copy stays until vmemi_pool_located_end(). */
struct vmemi_located {
	struct vmemi_segment *segment;
	uint64_t place;
	uint32_t offset; /* bytes, of its header in the copy */
	uint32_t bytes;  /* with its header */
	uint32_t handle;
	uint32_t checksum;
	uint64_t entry;
	uint32_t reference;   /* of a delta, else 0 */
	uint32_t copy;        /* for the pins */
	uint32_t copy_blocks; /* of the whole copy */
};

/* 0, -VMEM_ENOENT (no such object), -VMEM_EAGAIN (it is in memory), -VMEM_EBADMSG (its digest is damaged), -VMEM_EIO
 * (its copy is lost). Takes the stream's lock for a moment, and allocates nothing. Any thread. */
int vmemi_pool_locate(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle,
		      struct vmemi_located *ret_located);
void vmemi_pool_located_end(vmem_pool *pool, const struct vmemi_located *located);
/* What an object is made against, in memory or out; 0: nothing, or there is no such object. Any thread. */
uint32_t vmemi_pool_reference(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle);

/* An object's bytes, read from a device. */
struct vmemi_piece {
	uint32_t handle; /* 0: none */
	uint32_t checksum;
	uint64_t entry;
	const unsigned char *object; /* its header */
};

/* As vmemi_pool_load_of(), with objects that were read from a device. -VMEM_EAGAIN: *@ret_missing, the object or
 * its reference, is out and not among them. Counts nothing. Any thread. */
int vmemi_pool_load_pieces(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle, void *page,
			   const struct vmemi_piece pieces[VMEMI_PIECES], uint32_t *ret_missing);

/* A page that lies beside one that was read. */
struct vmemi_neighbour {
	uint32_t handle;
	uint32_t vm; /* VMEMI_NO_VM: the one whose stream it is */
	uint64_t key;
};

#define VMEMI_NO_VM UINT32_MAX

/* Bytes of a copy that were read. */
struct vmemi_stretch {
	uint32_t offset, bytes; /* in the copy */
	const unsigned char *data;
};

/* Pages beside an object that is located, whose owners are known and whose objects lie wholly in what was read: up
 * to @max, those after it first. What comes from a device is a hint. Takes the stream's lock. Any thread. */
uint32_t vmemi_pool_neighbours(vmem_pool *pool, const struct vmemi_located *located,
			       const struct vmemi_stretch *read, struct vmemi_neighbour *ret,
			       uint32_t max);

/* So many blocks of its copy have been read for a load. Returns how many in all, of which half is forgotten with each
 * step of @time; at most 65535. Any thread. */
uint32_t vmemi_pool_heat(const struct vmemi_located *located, uint32_t blocks, uint16_t time);

/* The blocks of the copy of a segment at @place, and those that it would have without what is dead. False: there is none.
 * Any thread. */
bool vmemi_pool_copy_blocks(vmem_pool *pool, uint32_t number, uint64_t place, uint32_t *ret_blocks,
			    uint32_t *ret_live);

/* A segment on its way from one place to another. */
struct vmemi_moving {
	uint32_t number;
	uint32_t bytes; /* to be read from @place on, and written elsewhere as they are */
	uint64_t place; /* where it is */
	struct vmemi_segment *segment;
	uint32_t copy;               /* for the pins */
	struct vmemi_digest *digest; /* of what was packed; NULL: it goes as it is */
};

#define VMEMI_PLACE_LOST \
	UINT64_MAX /* of a segment whose copy is gone: its objects can be dropped only */

/* 0, -VMEM_ENOENT (it is not out, or not at @place). Its copy stays until the end. Of one segment one at a time, homing
 * included. Any thread. */
int vmemi_pool_move_begin(vmem_pool *pool, uint32_t number, uint64_t place,
			  struct vmemi_moving *ret_moving);
/* Packs what was read of the copy, @data: what is live goes to its beginning, and zeros behind it to the end of a block.
 * Then *@ret_bytes are to be written. 0, -VMEM_ENOENT (nothing is live), -VMEM_ENOMEM, -VMEM_EBADMSG (it is not what was
 * written; nothing has changed but @data). Once. Any thread. */
int vmemi_pool_move_pack(vmem_pool *pool, struct vmemi_moving *moving, void *data,
			 uint32_t *ret_bytes);
/* Its copy is at @place from now on, or VMEMI_PLACE_LOST. False: it was dropped meanwhile, @place is the caller's. Once,
 * or vmemi_pool_move_cancel(). Any thread. */
bool vmemi_pool_move_end(vmem_pool *pool, struct vmemi_moving *moving, uint64_t place);
/* After move_end() was true: the old copy is not used any more, moving->place is the caller's. False: ask again. */
bool vmemi_pool_move_vacated(vmem_pool *pool, const struct vmemi_moving *moving);
void vmemi_pool_move_cancel(vmem_pool *pool, struct vmemi_moving *moving);

/* A segment on its way home. */
struct vmemi_homing {
	uint32_t number;
	unsigned char *memory; /* to be read into: @bytes from @place on */
	uint32_t bytes;
	uint64_t place;
	struct vmemi_segment *segment;
	uint32_t copy; /* for the pins */
	bool is_young; /* the owner's; at home it is not the oldest of its stream, but as young as can be */
};

/* 0, -VMEM_ENOENT (it is not out), -VMEM_ENOSPC (budget), -VMEM_ENOMEM. Of one segment one at a time. Serial. */
int vmemi_pool_home_begin(vmem_pool *pool, uint32_t number, struct vmemi_homing *ret_homing);
/* It has been read: its objects are in memory; false: it was dropped meanwhile. Headers are those that were written,
 * whatever was read. Once, or vmemi_pool_home_cancel(). */
bool vmemi_pool_home_end(vmem_pool *pool, struct vmemi_homing *homing);
/* After home_end() was true: its copy is not used any more, @place is the caller's. False: ask again. */
bool vmemi_pool_home_vacated(vmem_pool *pool, const struct vmemi_homing *homing);
void vmemi_pool_home_cancel(vmem_pool *pool, struct vmemi_homing *homing);
/* The same, but its memory is still written to: it is given back after that. */
void vmemi_pool_home_expire(vmem_pool *pool, const struct vmemi_homing *homing);
void vmemi_pool_home_recycle(vmem_pool *pool, unsigned char *memory);

struct vmemi_out_stats {
	uint64_t segments;     /* that are out */
	uint64_t live_bytes;   /* of objects in them, with headers and grain */
	uint64_t memory_bytes; /* of segments in memory, less the reserve */
	uint64_t budget_bytes; /* 0: none */
};

/* How many segments are to leave so that the budget has room for what comes: a sixteenth of it, and what saves leave
 * to compaction. 0 without a budget. */
uint32_t vmemi_pool_wanted_out(vmem_pool *pool);

void vmemi_pool_out_stats(vmem_pool *pool, struct vmemi_out_stats *stats);

/* Memory of segments that are kept for saves to come, and hold nothing. Any thread. */
uint64_t vmemi_pool_spare_bytes(vmem_pool *pool);

#endif
