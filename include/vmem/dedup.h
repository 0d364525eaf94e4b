/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/dedup.h
 *  From content to an id: which page has been seen before, and how often it is used.
 *
 *  The hash of a page finds candidates, comparing bytes decides, always; the bytes come through
 *  callbacks, and no lock is held meanwhile. An entry is either a shared object with a count of
 *  references, or a hint: the key of a page that is neither shared nor protected, recorded so that the
 *  next page like it can be joined with it (Waldspurger, OSDI 2002, section 4).
 *
 *  Pages are shared inside a sharing domain only. Equal pages of two domains never meet, even if hashes
 *  collide: for a given hash, no two domains have the same place in the table. Domain 0 is for pages
 *  that are not shared with anything; all calls refuse it.
 *
 *  Memory: 10 to 11 bytes an entry in large tables, below 12 from 10,000 entries on; 2 KiB and 16 locks
 *  when empty. Grows and shrinks a group of cache lines at a time. Of the hash only 32 bits are used, and
 *  only those are needed again to drop a reference. */
#ifndef VMEM_DEDUP_H
#define VMEM_DEDUP_H
#include <vmem/allocator.h>
#include <vmem/common.h>
#include <vmem/env.h>
VMEM_BEGIN_DECLS

typedef struct vmem_dedup vmem_dedup; /* opaque */

/** Options. Fields are only ever added at the end. */
struct vmem_dedup_opts {
	size_t size;                            /**< sizeof(*this) as the caller compiled it */
	uint64_t flags;                         /**< 0; an unknown bit is -VMEM_EINVAL */
	const struct vmem_allocator *allocator; /**< NULL: libc (freestanding: -VMEM_EINVAL) */
	const struct vmem_env *env;             /**< NULL: pthread (freestanding: no locks) */
	uint32_t cpu;                           /**< VMEM_CPU_* that vmem_dedup_hash() may use */
	/** any number, best a random one: a guest that does not know it cannot tell which pages
	 *  of others share a group with its own */
	uint32_t seed;
	void *context; /**< handed to each callback */

	/** Whether the shared object @p id has the bytes of @p page (as it was given to find).
	 *  The object cannot go away meanwhile. No lock is held.
	 *  @return 1 if so, 0 if not, or a negative VMEM error */
	int (*compare)(void *context, uint32_t id, const void *page);

	/** The same for a hint. NULL: find does not look at hints.
	 *  @return 1 if so, 0 if not, -VMEM_ENOENT (the page of @p key is not any more what it was
	 *          when it was recorded: the hint is dropped), or another negative VMEM error */
	int (*compare_hint)(void *context, uint32_t key, const void *page);

	/** The object @p id will soon be compared: a good time to prefetch it. May be NULL. */
	void (*prefetch)(void *context, uint32_t id);

	/** The last reference to @p id went while a find was comparing with it, so that no
	 *  vmem_dedup_drop() has returned 0: free the object. */
	void (*release)(void *context, uint32_t id);
};

/** What a find has found. */
enum vmem_dedup_found {
	VMEM_DEDUP_NONE = 0,   /**< nothing equal is known */
	VMEM_DEDUP_SHARED = 1, /**< an equal object; the caller has a reference to it now */
	VMEM_DEDUP_HINT = 2    /**< an equal page of which only a hint is recorded */
};

/** One page of vmem_dedup_find_many(). */
struct vmem_dedup_item {
	uint32_t domain;  /**< sharing domain */
	uint32_t hash;    /**< low 32 bits of the XXH3-64 of the page */
	const void *page; /**< handed to the callbacks, not read by the table */
	uint32_t id; /**< set when result is not 0 and not negative: an id, or the key of a hint */
	int32_t result; /**< what vmem_dedup_find() would have returned */
};

/** Counters. */
struct vmem_dedup_stats {
	size_t size;          /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t entries;     /**< hints and shared objects */
	uint64_t hints;       /**< of them hints */
	uint64_t shared;      /**< of them shared objects */
	uint64_t references;  /**< to all shared objects */
	uint64_t saved_pages; /**< references - shared */
	uint64_t bytes;       /**< memory of the table */
	uint64_t spilled;     /**< entries beside their place, because that was full */
	uint64_t compares;    /**< calls of the two compare callbacks since the start */
	uint64_t compares_different; /**< of them those that found a difference */
	uint64_t hints_stale;        /**< hints dropped as -VMEM_ENOENT since the start */
	uint64_t refused;            /**< adds and hints that found no room since the start */
};

/** Make an empty table.
 *  @param[out] ret_dedup  set only on success
 *  @param opts  compare and release must be there
 *  @return 0, -VMEM_EINVAL (bad options), -VMEM_E2BIG, -VMEM_ENOMEM
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_dedup_new(vmem_dedup **ret_dedup,
			    const struct vmem_dedup_opts *opts) VMEM_NODISCARD;

/** Free it. Objects are not released. NULL is fine. @threads exclusive @since 1.0 */
VMEM_API void vmem_dedup_free(vmem_dedup *dedup);

/** The hash that all other calls want: the low 32 bits of XXH3-64 (seed 0) of a page of 4096 bytes.
 *  @threads any
 *  @since 1.0 */
VMEM_API uint32_t vmem_dedup_hash(const vmem_dedup *dedup, const void *page);

/** Tell that a find will come soon, so that memory is under way meanwhile. Takes no lock.
 *  @threads any
 *  @since 1.0 */
VMEM_API void vmem_dedup_prefetch(const vmem_dedup *dedup, uint32_t domain, uint32_t hash);

/** Look for an object or hint equal to a page, objects first. At most 8 are compared: where so many
 *  have one hash, equal ones may be missed.
 *  @param hash  low 32 bits of the XXH3-64 of the page
 *  @param page  handed to the callbacks, not read by the table
 *  @param[out] ret_id  with VMEM_DEDUP_SHARED the object, to which the caller has a reference now;
 *                      with VMEM_DEDUP_HINT the key; else unchanged
 *  @return enum vmem_dedup_found, -VMEM_EINVAL (domain 0), or, if nothing equal was found, the first
 *          error of a callback
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_dedup_find(vmem_dedup *dedup, uint32_t domain, uint32_t hash, const void *page,
			     uint32_t *ret_id) VMEM_NODISCARD;

/** Find many, with prefetches. Items do not see each other: equal ones of which none is known are all
 *  not found.
 *  @return the number of items whose result is VMEM_DEDUP_SHARED
 *  @threads any
 *  @since 1.0 */
VMEM_API uint32_t vmem_dedup_find_many(vmem_dedup *dedup, struct vmem_dedup_item *items,
				       uint32_t count);

/** Enter a shared object, with one reference. Does not look whether an equal one is there.
 *  @param id  1..2^32-1
 *  @return 0, -VMEM_EEXIST (the same id under the same hash), -VMEM_ENOSPC (too many entries of one
 *          place, as only colliding hashes make: leave the page unshared), -VMEM_ENOMEM, -VMEM_EINVAL
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_dedup_add(vmem_dedup *dedup, uint32_t domain, uint32_t hash,
			    uint32_t id) VMEM_NODISCARD;

/** Take one more reference to an object to which the caller has one.
 *  @return 0, -VMEM_ENOENT, -VMEM_ENOMEM (for a count of 255 and more), -VMEM_ENOSPC (2^32-1
 *          references), -VMEM_EINVAL
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_dedup_take(vmem_dedup *dedup, uint32_t domain, uint32_t hash,
			     uint32_t id) VMEM_NODISCARD;

/** Drop a reference. Allocates nothing. With the last one the entry is gone: who gets 0 frees the
 *  object, and no find has it or will have it.
 *  @param[out] ret_left  references left; one may be that of a find which is still comparing
 *  @return 0, -VMEM_ENOENT, -VMEM_EINVAL
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_dedup_drop(vmem_dedup *dedup, uint32_t domain, uint32_t hash, uint32_t id,
			     uint32_t *ret_left) VMEM_NODISCARD;

/** Give an object another id, if there are exactly @p references to it, those of finds that are
 *  comparing included: then all holders of the old id are known to the caller.
 *  @return 0, -VMEM_ENOENT, -VMEM_EBUSY (another number of references), -VMEM_EEXIST, -VMEM_EINVAL
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_dedup_move(vmem_dedup *dedup, uint32_t domain, uint32_t hash, uint32_t old_id,
			     uint32_t new_id, uint32_t references) VMEM_NODISCARD;

/** Record an unshared page.
 *  @param key  1..2^32-1; keys of hints and ids of objects may be the same numbers
 *  @return 0, -VMEM_EEXIST, -VMEM_ENOSPC, -VMEM_ENOMEM, -VMEM_EINVAL, as vmem_dedup_add()
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_dedup_hint(vmem_dedup *dedup, uint32_t domain, uint32_t hash,
			     uint32_t key) VMEM_NODISCARD;

/** Drop a hint. @return 0, -VMEM_ENOENT, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_dedup_forget_hint(vmem_dedup *dedup, uint32_t domain, uint32_t hash,
				    uint32_t key);

/** Turn a hint into a shared object, with one reference. Allocates nothing.
 *  @return 0, -VMEM_ENOENT (no such hint), -VMEM_EEXIST (the id under the same hash), -VMEM_EINVAL
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_dedup_promote(vmem_dedup *dedup, uint32_t domain, uint32_t hash, uint32_t key,
				uint32_t id) VMEM_NODISCARD;

/** Give memory back after many entries have gone; entering does the growing by itself.
 *  @param max_lines  about this many cache lines of entries are given up at the most
 *  @return 1 if there is more to do now, else 0; never fails
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_dedup_work(vmem_dedup *dedup, uint32_t max_lines);

/** Counters. @return 0, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_dedup_get_stats(vmem_dedup *dedup, struct vmem_dedup_stats *stats);

VMEM_END_DECLS
#endif
