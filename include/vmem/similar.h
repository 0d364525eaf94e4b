/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/similar.h
 *  Which earlier pages are like this one, to make a delta against. A page is sketched as up to eight
 *  features: least hashes of its windows of 64 bytes, in eight classes by their hash (after Broder, "On the
 *  resemblance and containment of documents", 1997). Windows begin at one of 16 words, chosen by what it is:
 *  pages that share a feature have 64 bytes in common, wherever they stand among the multiples of 8. Of a page
 *  that is added the four least features are kept; a page that looks for others does it by all of its own.
 *
 *  The index is a hint. It keeps the latest page of a feature, drops what is crowded out, and may name
 *  pages that have nothing in common with this one, are gone, or are other pages by now. The caller
 *  checks that a candidate is there, and takes it only if the delta is worth it. One index serves one
 *  sharing domain.
 *
 *  Memory: 64 bytes for 10 features, 4 to 9 of them used; 1.2 KiB when empty. Grows and shrinks a few
 *  lines a call; vmem_similar_work() does it when no calls come. */
#ifndef VMEM_SIMILAR_H
#define VMEM_SIMILAR_H
#include <vmem/allocator.h>
#include <vmem/common.h>
VMEM_BEGIN_DECLS

#define VMEM_SIMILAR_FEATURES 8u   /**< of a sketch */
#define VMEM_SIMILAR_KEPT 4u       /**< features of a page that the index keeps, the first ones */
#define VMEM_SIMILAR_CANDIDATES 4u /**< that a find gives at the most */

typedef struct vmem_similar vmem_similar; /* opaque */

/** What a page looks like. Means something to the process that made it, not beyond. */
struct vmem_similar_sketch {
	uint32_t feature
		[VMEM_SIMILAR_FEATURES]; /**< by their hashes, the least first; 0 at the end: none */
};

/** Options. Fields are only ever added at the end. */
struct vmem_similar_opts {
	size_t size;                            /**< sizeof(*this) as the caller compiled it */
	uint64_t flags;                         /**< 0; an unknown bit is -VMEM_EINVAL */
	const struct vmem_allocator *allocator; /**< NULL: libc (freestanding: -VMEM_EINVAL) */
	uint64_t max_bytes; /**< the table does not grow beyond; 0: no limit. Never below 1 KiB */
};

/** Counters. */
struct vmem_similar_stats {
	size_t size;      /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t entries; /**< features in the table */
	uint64_t bytes;   /**< memory of the index */
	uint64_t crowded; /**< entries dropped for want of room since the start */
};

/** Make an empty index.
 *  @param[out] ret_similar  set only on success
 *  @param opts  NULL: all defaults
 *  @return 0, -VMEM_EINVAL (bad options), -VMEM_E2BIG, -VMEM_ENOMEM
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_similar_new(vmem_similar **ret_similar,
			      const struct vmem_similar_opts *opts) VMEM_NODISCARD;

/** Free it. NULL is fine. @threads exclusive @since 1.0 */
VMEM_API void vmem_similar_free(vmem_similar *similar);

/** Sketch a page. Windows of one repeated 64-bit word do not count: a page of nothing else has no
 *  feature.
 *  @param page  4096 bytes
 *  @threads any
 *  @since 1.0 */
VMEM_API void vmem_similar_sketch(const void *page, struct vmem_similar_sketch *ret_sketch);

/** Name pages that may be like the sketched one: those that share most features first, then by the least.
 *  @param[out] ret_ids  as many as are returned, all different
 *  @return 0..VMEM_SIMILAR_CANDIDATES
 *  @threads serial
 *  @since 1.0 */
VMEM_API uint32_t vmem_similar_find(const vmem_similar *similar,
				    const struct vmem_similar_sketch *sketch,
				    uint32_t ret_ids[VMEM_SIMILAR_CANDIDATES]);

/** Enter a page as a candidate for others, in the place of earlier ones with the same features. Without
 *  memory to grow, other entries are dropped instead.
 *  @param id  any number that the caller knows the page by
 *  @threads serial
 *  @since 1.0 */
VMEM_API void vmem_similar_add(vmem_similar *similar, const struct vmem_similar_sketch *sketch,
			       uint32_t id);

/** Drop what is known of a page under these features: with its own sketch all, with that of a page for
 *  which find named it in vain what led there. Allocates nothing.
 *  @threads serial
 *  @since 1.0 */
VMEM_API void vmem_similar_forget(vmem_similar *similar, const struct vmem_similar_sketch *sketch,
				  uint32_t id);

/** Give memory back after entries have gone, or with a lower limit; or grow as far as adds have not yet.
 *  @param max_lines  so many lines are merged or split at the most
 *  @return 1 if there is more to do now, else 0; never fails
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_similar_work(vmem_similar *similar, uint32_t max_lines);

/** Change the limit of the table to what so many pages need, in place of one in bytes: for who does not forget
 *  the pages that go. It is lowered only to what a quarter more of them need.
 *  @threads serial
 *  @since 1.0 */
VMEM_API void vmem_similar_set_pages(vmem_similar *similar, uint64_t pages);

/** Change the limit of the table; a larger table shrinks by a few lines with each add, forget and
 *  vmem_similar_work().
 *  @threads serial
 *  @since 1.0 */
VMEM_API void vmem_similar_set_limit(vmem_similar *similar, uint64_t max_bytes);

/** Counters. @return 0, -VMEM_EINVAL @threads serial @since 1.0 */
VMEM_API int vmem_similar_get_stats(const vmem_similar *similar, struct vmem_similar_stats *stats);

VMEM_END_DECLS
#endif
