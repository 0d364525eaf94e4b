/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/share.h
 *  Finds equal pages that stay mapped, and joins them. A scanner over callbacks: it knows nothing of page
 *  tables, so it serves a VMM as well as a hypervisor that owns them.
 *
 *  Pages are visited in passes. The first page with some content leaves a hint; the next one like it is
 *  protected together with the first, compared, and both are joined with a shared object; all further
 *  ones join that. Protect, compare, commit: a page that changes while it is compared is not joined. The
 *  first pass finds every duplicate. Later, a page that was found changed is visited in every second
 *  pass only, then every fourth, then every eighth, until it is found as it was (after KSM's smart scan).
 *
 *  Memory: 3 bytes a page, and an entry of <vmem/dedup.h> for each page that is unshared and calm, and
 *  for each object. No lock is held while pages are read. Time is an argument. */
#ifndef VMEM_SHARE_H
#define VMEM_SHARE_H
#include <vmem/allocator.h>
#include <vmem/common.h>
#include <vmem/env.h>
VMEM_BEGIN_DECLS

typedef struct vmem_share vmem_share; /* opaque */

/** How fast the scanner goes: as the slowest of these says. */
struct vmem_share_limits {
	size_t size;               /**< sizeof(*this) as the caller compiled it */
	uint64_t pages_per_second; /**< visited at the most; 0: no limit */
	uint64_t pass_ns;          /**< a pass takes at least so long; 0: no limit */
	uint32_t cpu_percent; /**< of one processor, 1..100, as env's cpu_time_ns says; 0: 100 */
	/** what a visit costs: budgets are reckoned by it, and cpu_percent where there is no such clock; 0: 1000 */
	uint32_t page_ns;
};

/** Options. Fields are only ever added at the end. Callbacks get the caller's keys of pages and ids of
 *  objects; they return 0 or a negative VMEM error. All are called by vmem_share_scan() only, without
 *  locks, and may call vmem_share_break(). */
struct vmem_share_opts {
	size_t size;                            /**< sizeof(*this) as the caller compiled it */
	uint64_t flags;                         /**< 0; an unknown bit is -VMEM_EINVAL */
	const struct vmem_allocator *allocator; /**< NULL: libc (freestanding: -VMEM_EINVAL) */
	const struct vmem_env *env;             /**< NULL: pthread (freestanding: no locks) */
	uint32_t cpu;                           /**< VMEM_CPU_* that may be used */
	uint32_t seed; /**< as in struct vmem_dedup_opts: best a random number */
	const struct vmem_share_limits *limits; /**< NULL: none */
	void *context;                          /**< handed to each callback */

	/** Where the 4096 bytes of a page are, aligned to 8; NULL: it is absent or cannot be shared now.
	 *  They are read until the next callback for this page, and may change meanwhile. */
	const void *(*page)(void *context, uint64_t key);
	/** Instead of page, if that is NULL: copies the bytes.
	 *  @return 0, or negative: absent or not to be shared now */
	int (*read)(void *context, uint64_t key, void *buffer);
	/** Where the 4096 bytes of a shared object are; not NULL. */
	const void *(*object)(void *context, uint32_t id);
	/** Instead of object, if that is NULL: copies the bytes. @return 0, or negative: do not join */
	int (*read_object)(void *context, uint32_t id, void *buffer);

	/** The bytes of the page may not change from now on until it is unprotected or merged: writes
	 *  wait. @return 0, or negative: not now (pinned, dirty, gone) */
	int (*protect)(void *context, uint64_t key);
	void (*unprotect)(void *context, uint64_t key);

	/** Makes a shared object with the bytes of the page @p key, which is protected. The page itself
	 *  is not joined yet. @p hash is to be kept with the object, for vmem_share_break().
	 *  @param[out] ret_id  1..2^32-1, of no other object
	 *  @return 0, or negative */
	int (*make)(void *context, uint64_t key, uint32_t hash, uint32_t *ret_id);
	/** Joins a protected page with an object whose bytes are equal: its own frame is free now, and
	 *  writes to it are allowed again, but lead to a copy and vmem_share_break().
	 *  @return 0, or negative: it stays as it is, still protected */
	int (*merge)(void *context, uint64_t key, uint32_t id);
	/** No page uses the object any more: free it. */
	void (*release)(void *context, uint32_t id);
};

/** Counters. All but the first three are since the start. */
struct vmem_share_stats {
	size_t size;          /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t objects;     /**< shared objects */
	uint64_t merged;      /**< pages that use them */
	uint64_t saved_pages; /**< merged - objects */
	uint64_t bytes;       /**< memory of the scanner and its table */
	uint64_t passes;      /**< ended */
	uint64_t pass_ns;     /**< how long the last one took, by the caller's clock */
	uint64_t visited;     /**< pages read and hashed */
	uint64_t skipped;     /**< by the ladder, because they keep changing */
	uint64_t changed;     /**< found changed since the visit before */
	uint64_t merges;      /**< pages joined */
	uint64_t breaks;      /**< pages that left */
	uint64_t refused;     /**< protect, make or merge said no */
	uint64_t torn;  /**< changed between being looked up and being protected: not joined */
	uint64_t hints; /**< unshared pages recorded now */
	uint64_t hints_stale;        /**< hints dropped because their page had changed */
	uint64_t compares;           /**< of two pages */
	uint64_t compares_different; /**< of them those that found a difference */
};

/** Make a scanner without pages.
 *  @param[out] ret_share  set only on success
 *  @return 0, -VMEM_EINVAL (bad options or limits), -VMEM_E2BIG, -VMEM_ENOMEM
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_share_new(vmem_share **ret_share,
			    const struct vmem_share_opts *opts) VMEM_NODISCARD;

/** Free it. Objects are not released, pages stay merged. NULL is fine. @threads exclusive @since 1.0 */
VMEM_API void vmem_share_free(vmem_share *share);

/** Scan @p pages pages with keys from @p first_key on, from now on.
 *  @param domain  they are joined with pages of the same sharing domain only; not 0
 *  @return 0, -VMEM_EEXIST (overlaps another range), -VMEM_ENOSPC (2^32-1 pages in all), -VMEM_ENOMEM,
 *          -VMEM_EINVAL
 *  @threads serial with vmem_share_scan(), and together with vmem_share_break()
 *  @since 1.0 */
VMEM_API int vmem_share_add_range(vmem_share *share, uint64_t first_key, uint64_t pages,
				  uint32_t domain) VMEM_NODISCARD;

/** Forget a range. Its merged pages must have left by vmem_share_break().
 *  @return 0, -VMEM_ENOENT (no range begins there), -VMEM_EBUSY (pages of it are merged)
 *  @threads serial with vmem_share_scan(), and together with vmem_share_break()
 *  @since 1.0 */
VMEM_API int vmem_share_remove_range(vmem_share *share, uint64_t first_key);

/** Switch the scanning of a range off (0) and on (1); what is merged stays so.
 *  @return 0, -VMEM_ENOENT, -VMEM_EINVAL
 *  @threads serial with vmem_share_scan(), and together with vmem_share_break()
 *  @since 1.0 */
VMEM_API int vmem_share_switch_range(vmem_share *share, uint64_t first_key, int on);

/** Change the limits. NULL: none.
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG
 *  @threads serial with vmem_share_scan()
 *  @since 1.0 */
VMEM_API int vmem_share_set_limits(vmem_share *share, const struct vmem_share_limits *limits);

/** Scan on, as far as the limits and the budget allow.
 *  @param now_ns  the caller's clock, monotonic
 *  @param budget_ns  about how long it may take: one page for each page_ns of it, at least 16
 *  @param[out] ret_next_ns  when to call again: not before, it would do nothing. May be NULL
 *  @return pages visited
 *  @threads serial
 *  @since 1.0 */
VMEM_API uint64_t vmem_share_scan(vmem_share *share, uint64_t now_ns, uint64_t budget_ns,
				  uint64_t *ret_next_ns);

/** A page has left its object: it was written to, or went away. Allocates nothing and takes short locks
 *  only. If it was the last, release is not called: the caller frees the object.
 *  @param hash  as it was given to make
 *  @param[out] ret_left  references to the object that are left; 0: free it
 *  @return 0, -VMEM_ENOENT (no such page, or it was not merged with this object)
 *  @threads any, also from within the callbacks
 *  @since 1.0 */
VMEM_API int vmem_share_break(vmem_share *share, uint64_t key, uint32_t id, uint32_t hash,
			      uint32_t *ret_left) VMEM_NODISCARD;

/** Counters. @return 0, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_share_get_stats(vmem_share *share, struct vmem_share_stats *stats);

VMEM_END_DECLS
#endif
