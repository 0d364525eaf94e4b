/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/pool.h
 *  The compression pool: give it a page, get a handle; give it the handle, get the page back.
 *
 *  Objects are appended to segments of 256 KiB, one open segment per stream (a VM, or a NUMA node
 *  of one), in grains of 4 bytes, without size classes. Dead bytes are counted per segment; sparse
 *  segments are compacted; segments age as wholes. A handle leads to its object through an index
 *  entry of 8 bytes, so objects move without their owners noticing. Holds no reference counts.
 *  After the XNU compressor's c_seg (osfmk/vm/vm_compressor.h) and log-structured storage
 *  (Rosenblum and Ousterhout, SOSP 1991). */
#ifndef VMEM_POOL_H
#define VMEM_POOL_H
#include <vmem/allocator.h>
#include <vmem/codec.h>
#include <vmem/common.h>
#include <vmem/env.h>
VMEM_BEGIN_DECLS

/** Bytes of a segment: the unit in which the pool takes memory and, later, writes to a device. */
#define VMEM_POOL_SEGMENT_BYTES 262144u

typedef struct vmem_pool vmem_pool; /* opaque */

/** A stored object: 1..2^32-1. 0 is never a handle. */
typedef uint64_t vmem_pool_handle;

/** Options. Fields are only ever added at the end. */
struct vmem_pool_opts {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t flags; /**< 0; an unknown bit is -VMEM_EINVAL */
	/** for tables; NULL: libc (freestanding: -VMEM_EINVAL) */
	const struct vmem_allocator *allocator;
	/** for segments (256 KiB, page-aligned); NULL: as allocator */
	const struct vmem_allocator *segments;
	const struct vmem_env *env; /**< NULL: pthread and no log (freestanding: no locks) */
	uint64_t budget_bytes;      /**< most bytes of segments, 0: no limit. Of 8 segments or more,
	                                 one is held back so that compaction can always begin */
	/** for pages; raw and fill are always there. NULL: LZ4 (freestanding: none) */
	const struct vmem_codec *const *codecs;
	uint32_t codec_count; /**< 0..13 */
	/** saves that encode at once, 1..64, 0: 8; more wait in turn. Loads that decode with a context,
	 *  or a delta, share theirs and have one more, of 64 one for themselves */
	uint32_t parallel;
	uint32_t cpu;              /**< VMEM_CPU_* that may be used */
	uint32_t reserve_segments; /**< kept ready so that a save need not allocate, 0: 2 */
};

/** Counters, of the pool or of one stream. All bytes are physical. */
struct vmem_pool_stats {
	size_t size;            /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t objects;       /**< live objects */
	uint64_t live_bytes;    /**< their bytes with headers and grain */
	uint64_t payload_bytes; /**< their bytes alone */
	uint64_t dead_bytes;    /**< of dropped objects in segments not yet compacted */
	uint64_t segments;      /**< segments that hold objects, open ones included */
	uint64_t segment_bytes; /**< memory taken for segments, the reserve included (pool only) */
	uint64_t index_bytes;   /**< memory of the handle index (pool only) */
	uint64_t metadata_bytes; /**< tables and contexts, without the index (pool only) */
	uint64_t compactions;    /**< segments emptied by compaction since the start */
	uint64_t moved_bytes;    /**< copied by compaction since the start */
	uint64_t corrupt;        /**< loads that failed their checksum since the start */
	/** room at the ends of open segments, each for new objects of its stream alone */
	uint64_t open_bytes;
};

/** Make an empty pool.
 *  @param[out] ret_pool  set only on success
 *  @param opts  NULL: all defaults
 *  @return 0, -VMEM_EINVAL (bad options, a codec twice), -VMEM_E2BIG, -VMEM_ENOMEM, or what the
 *          context_init of a codec returned
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_pool_new(vmem_pool **ret_pool, const struct vmem_pool_opts *opts) VMEM_NODISCARD;

/** Free it with all that it holds. NULL is fine.
 *  @threads exclusive
 *  @since 1.0 */
VMEM_API void vmem_pool_free(vmem_pool *pool);

/** Open a stream: objects of one stream lie together and age together.
 *  @param[out] ret_stream  0..65534
 *  @return 0, -VMEM_ENOSPC (65535 streams), -VMEM_ENOMEM
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_pool_stream_new(vmem_pool *pool, uint32_t *ret_stream) VMEM_NODISCARD;

/** Drop all objects of a stream and the stream. Takes time by segments, not by objects' bytes.
 *  No call that uses the stream or one of its handles may run at the same time.
 *  @return 0, -VMEM_ENOENT
 *  @threads any, but see above
 *  @since 1.0 */
VMEM_API int vmem_pool_stream_drop(vmem_pool *pool, uint32_t stream);

/** Save a page. Encodes without holding a lock, then appends.
 *  @param codec  an id from the table, or 0: fill if one word, else the first codec of the table
 *  @param page  4096 bytes, aligned to 8
 *  @param max_bytes  an encoding longer than this is refused with -VMEM_EFBIG;
 *                    4096: what does not compress is kept raw
 *  @return 0, -VMEM_EFBIG, -VMEM_ENOSPC (budget), -VMEM_ENOMEM, -VMEM_ENOENT (stream or codec), -VMEM_EINVAL
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_pool_save_page(vmem_pool *pool, uint32_t stream, uint32_t codec, const void *page,
				 uint32_t max_bytes, vmem_pool_handle *ret_handle) VMEM_NODISCARD;

/** Save @p bytes (1..4096) as they are.
 *  @return 0, -VMEM_ENOSPC, -VMEM_ENOMEM, -VMEM_ENOENT, -VMEM_EINVAL
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_pool_save_bytes(vmem_pool *pool, uint32_t stream, const void *data,
				  uint32_t bytes, vmem_pool_handle *ret_handle) VMEM_NODISCARD;

/** Load a page saved by vmem_pool_save_page(), verified against its checksum. Takes no lock.
 *  @param page  4096 bytes, aligned to 8; on -VMEM_EBADMSG its content is unspecified. If a codec
 *               decodes with a context, a fault on it must not wait for another load of this pool
 *  @return 0, -VMEM_EBADMSG, -VMEM_ENOENT (no such handle, or not a page)
 *  @threads any; not together with the drop of the same handle
 *  @since 1.0 */
VMEM_API int vmem_pool_load_page(vmem_pool *pool, vmem_pool_handle handle,
				 void *page) VMEM_NODISCARD;

/** Load bytes saved by vmem_pool_save_bytes(), verified against their checksum.
 *  @param capacity  at least what was saved
 *  @return 0, -VMEM_EBADMSG, -VMEM_ENOENT, -VMEM_ERANGE (capacity)
 *  @threads any; not together with the drop of the same handle
 *  @since 1.0 */
VMEM_API int vmem_pool_load_bytes(vmem_pool *pool, vmem_pool_handle handle, void *data,
				  uint32_t capacity, uint32_t *ret_bytes) VMEM_NODISCARD;

/** What a handle's object is, without decoding it.
 *  @param[out] ret_codec  enum vmem_codec_id, 0 for bytes
 *  @param[out] ret_bytes  encoded bytes
 *  @return 0, -VMEM_ENOENT
 *  @threads any; not together with the drop of the same handle
 *  @since 1.0 */
VMEM_API int vmem_pool_describe(vmem_pool *pool, vmem_pool_handle handle, uint32_t *ret_codec,
				uint32_t *ret_bytes);

/** Drop an object. A segment whose last object goes becomes a reserve; vmem_pool_work() frees those
 *  that are too many.
 *  @return 0, -VMEM_ENOENT
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_pool_drop(vmem_pool *pool, vmem_pool_handle handle);

/** Background work: frees what readers have left, refills the reserve, compacts sparse segments, the
 *  one that has lost most first. Called until it returns 0, it leaves at most 2 % of what is stored lost
 *  to dead objects, tails and grain, and in open segments up to 32.5 KiB each to dead objects, until a
 *  save finds no room. A stream with objects has one open segment or two, whose ends (open_bytes) no other
 *  stream can use: the least that it takes is a segment. Where objects come and go at random, moving 6
 *  bytes for each that is saved keeps what is lost below 10 %.
 *  @param max_bytes  about this many bytes are moved at the most
 *  @return 1 if there is more to do now, else 0; never fails
 *  @threads serial, and together with any other call
 *  @since 1.0 */
VMEM_API int vmem_pool_work(vmem_pool *pool, uint64_t max_bytes);

/** Change the budget. What is over it stays until dropped; saves that need another segment get
 *  -VMEM_ENOSPC, those that fit into an open one do not.
 *  @threads any
 *  @since 1.0 */
VMEM_API void vmem_pool_set_budget(vmem_pool *pool, uint64_t budget_bytes);

/** Counters of the pool. @return 0, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_pool_get_stats(vmem_pool *pool, struct vmem_pool_stats *stats);

/** Counters of one stream. @return 0, -VMEM_ENOENT, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_pool_stream_get_stats(vmem_pool *pool, uint32_t stream,
					struct vmem_pool_stats *stats);

VMEM_END_DECLS
#endif
