/* SPDX-License-Identifier: BSD-2-Clause */
/* The pool for an owner of many streams that keeps references to objects: the store.
 *
 * Calls on an object of one stream: an object of another one, which a handle from outside may lead to
 * since its own was dropped, is none. And changing how an object is encoded, under its handle. Deltas begin
 * with the handle of their reference, an object of the same stream that is no delta; that it stays there
 * for as long as they do is the owner's business. */
#ifndef VMEMI_POOL_OF_H
#define VMEMI_POOL_OF_H
#include <stdbool.h>
#include <vmem/pool.h>

struct vmemi_piece;

#define VMEMI_ANY_STREAM UINT32_MAX

/* Whether the table of codecs has it. */
bool vmemi_pool_has_codec(const vmem_pool *pool, uint32_t codec);

/* Whether compaction goes before other work: a save has found no room since vmem_pool_work() was called last,
 * or a fourteenth of all segments' bytes is lost. Any thread. */
bool vmemi_pool_is_untidy(vmem_pool *pool);

/* Objects will be encoded anew: saves leave room of the budget for that. Before the first save. */
void vmemi_pool_will_replace(vmem_pool *pool);

/* Refills and trims what saves take from without asking the allocator, as vmem_pool_work() does. */
void vmemi_pool_maintain(vmem_pool *pool);

/* For the next calls of vmem_pool_work(): streams that had hardly any drops since this was called last are at rest,
 * and compaction goes on in them until nearly nothing is lost. Never called: none is. Any thread. */
void vmemi_pool_look(vmem_pool *pool);

/* All handles are smaller. */
uint32_t vmemi_pool_handles_end(const vmem_pool *pool);

/* The checksum of a page, as it goes with every object. */
uint32_t vmemi_pool_checksum(const vmem_pool *pool, const void *page);

/* Who saves a page, and by what name of theirs. Kept with the object, for vmemi_pool_neighbours(). */
struct vmemi_origin {
	uint64_t key;
	uint32_t vm;    /* if @extra says so */
	uint32_t extra; /* VMEMI_EXTRA_* of pool_object.h; 0: not kept */
};

/* A page to be saved. */
struct vmemi_page_save {
	const void *page;
	uint32_t checksum;
	uint32_t max_bytes;
	uint32_t codec; /* or 0; then the one that was used */
	bool transit; /* it goes to a segment that leaves as soon as it is full: vmemi_pool_waiting() */
	struct vmemi_origin origin;
};

/* As vmem_pool_save_page(). Any thread. */
int vmemi_pool_save_of(vmem_pool *pool, uint32_t stream, struct vmemi_page_save *page,
		       vmem_pool_handle *ret_handle);

/* Bytes that a live object takes, with its header and grain; 0: there is none. Any thread. */
uint32_t vmemi_pool_object_size(const vmem_pool *pool, vmem_pool_handle handle);

/* As vmem_pool_load_page(). -VMEM_ENOENT too if the object is not in @stream; -VMEM_EAGAIN: it is out, or what
 * it was made against is (pool_out.h). Any thread. */
int vmemi_pool_load_of(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle, void *page);

/* 1 if an object has the bytes of @page, 0 if not, or if they are out; -VMEM_ENOENT, -VMEM_EBADMSG, which is for who loads it to
 * count and note. Any thread. */
int vmemi_pool_equal(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle, const void *page);

/* The checksum of an object's page, as it was when it was saved. 0, -VMEM_ENOENT, -VMEM_EBADMSG (the header
 * is damaged). Any thread. */
int vmemi_pool_checksum_of(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle,
			   uint32_t *ret_checksum);

/* What was dropped. */
struct vmemi_dropped {
	uint32_t codec;
	vmem_pool_handle reference; /* of a delta; else, or if it is damaged, 0 */
};

/* As vmem_pool_drop(). -VMEM_ENOENT too if the object is not in @stream: of several drops of one object
 * one succeeds. @ret_dropped: set on success only; may be NULL. Any thread. */
int vmemi_pool_drop_of(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle,
		       struct vmemi_dropped *ret_dropped);

/* Counts and notes a corrupt object of a stream that exists, as a load that finds one does. Any thread. */
void vmemi_pool_corrupt_of(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle);

/* --- An object that is looked at more closely --- */

/* While it is held its bytes stay, though it may be dropped. */
struct vmemi_held {
	struct vmemi_segment *segment;
	uint32_t handle;
	uint64_t entry;
	const unsigned char *object; /* its header */
	/* where that comes from a device, and may change while it is read; NULL: it lies in memory */
	const struct vmemi_piece *piece;
};

/* --- Walking over all handles, for who looks at one object after the other, in passes --- */

enum vmemi_mark {
	VMEMI_MARK_NEW,       /* saved since the last pass */
	VMEMI_MARK_SEEN,      /* there was one before */
	VMEMI_MARK_SETTLED,   /* its encoding is final */
	VMEMI_MARK_REFERENCE, /* so it is, and a delta was made against it */
};

/* What is said of it. */
struct vmemi_described {
	uint32_t stream;
	uint32_t codec;
	uint32_t bytes;    /* encoded */
	uint32_t checksum; /* of the page */
	enum vmemi_mark mark;
};

/* False: there is no such object of a page in memory, or its header is damaged. Any thread. */
bool vmemi_pool_hold(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle,
		     struct vmemi_held *ret_held, struct vmemi_described *ret_described);
/* Whether its segment is full: it can be replaced. */
bool vmemi_pool_is_sealed(vmem_pool *pool, const struct vmemi_held *held);
/* Whether it was not dropped, moved or replaced since. */
bool vmemi_pool_is_current(const vmem_pool *pool, const struct vmemi_held *held);
void vmemi_pool_let_go(vmem_pool *pool, const struct vmemi_held *held);
/* As vmemi_pool_load_of(). */
int vmemi_pool_read(vmem_pool *pool, const struct vmemi_held *held, void *page);
/* Whether it can be read, or could be if the reference of a delta were not out. */
bool vmemi_pool_is_whole(vmem_pool *pool, const struct vmemi_held *held);

/* Encodes a page by a codec of the table, against @reference if that is not NULL. Bytes, or 0: more than
 * @capacity (at most 4096), or there is no such codec. Any thread. */
uint32_t vmemi_pool_encode(vmem_pool *pool, uint32_t codec, const void *page, const void *reference,
			   void *dst, uint32_t capacity);

/* A page, encoded. */
struct vmemi_encoded {
	uint32_t codec;
	uint32_t bytes;
	const void *payload;
	uint32_t reference; /* of a delta, a handle, which goes before the payload; else 0 */
};

/* Puts other bytes of the same page in place of an object. Together with compaction, serial. 0, -VMEM_ENOENT
 * (it was dropped), -VMEM_EAGAIN (its segment is still being filled, or it was moved), -VMEM_ENOSPC,
 * -VMEM_ENOMEM, -VMEM_EINVAL (too long). */
int vmemi_pool_replace(vmem_pool *pool, const struct vmemi_held *held,
		       const struct vmemi_encoded *encoded);

/* The next handle from @first on that is live and not settled; 0: none. At most @max are looked at;
 * @ret_next: where to go on, 0 at the end of all. Any thread. */
uint32_t vmemi_pool_next(const vmem_pool *pool, uint32_t first, uint32_t max, uint32_t *ret_next,
			 enum vmemi_mark *ret_mark);
/* Marks a live object; nothing if it was changed meanwhile. Any thread. */
void vmemi_pool_mark(vmem_pool *pool, vmem_pool_handle handle, enum vmemi_mark mark);

/* For tests: where the header of an object is, and how many bytes it has with its payload. NULL: no such
 * object. The pool must be at rest. */
unsigned char *vmemi_pool_object_bytes(vmem_pool *pool, vmem_pool_handle handle,
				       uint32_t *ret_bytes);
/* For tests: walks everything. NULL, or what is wrong. The pool must be at rest. */
const char *vmemi_pool_check(vmem_pool *pool);

#endif
