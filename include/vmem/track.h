/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/track.h
 *  How long each page was not accessed, and which are the best to take. Time is counted in periods: the
 *  caller says when one ends, gives in what was accessed, from wherever it knows that (accessed bits of
 *  page tables, a dirty log, faults, samples), and asks. The age of a page is the number of periods that
 *  ended since its last access. Does nothing by itself, knows no clock, touches no guest memory.
 *
 *  Memory: 2.02 bytes a page, and 16 KiB. To end a period costs a sixteenth of a pass over the ages; to feed
 *  costs by the page that was accessed, and to search by the groups of 64 pages that have victims;
 *  histograms are kept as they change and are never counted again. */
#ifndef VMEM_TRACK_H
#define VMEM_TRACK_H
#include <vmem/allocator.h>
#include <vmem/common.h>
VMEM_BEGIN_DECLS

#define VMEM_TRACK_AGES 240u /**< ages are 0 .. 239; the last one stands for all above */
#define VMEM_TRACK_MAX_PAGES (UINT64_C(1) << 36) /**< 256 TiB */

/** The state of a page: these bits, and 0xf0, which are the caller's own. */
#define VMEM_TRACK_WRITTEN 0x01u /**< written since the caller cleared this: not clean */
#define VMEM_TRACK_ABSENT 0x02u  /**< has no contents: in no histogram. All pages at first */
#define VMEM_TRACK_AWAY 0x04u    /**< was taken and is not back: ages on, is no victim */
#define VMEM_TRACK_KEPT 0x08u    /**< pinned, or not to be taken for another reason: is no victim */

typedef struct vmem_track vmem_track; /* opaque */

/** A sample lasts until the next call of vmem_track_sample(), however many periods that is: for periods that are
 *  shorter than it takes to see what is in use. Without it, a sample ends with the period. */
#define VMEM_TRACK_LONG_SAMPLES (UINT64_C(1) << 0)

/** Options. Fields are only ever added at the end. */
struct vmem_track_opts {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t flags; /**< VMEM_TRACK_LONG_SAMPLES, or 0; an unknown bit is -VMEM_EINVAL */
	const struct vmem_allocator *allocator; /**< NULL: libc (freestanding: -VMEM_EINVAL) */
	uint64_t pages;                         /**< 1 .. VMEM_TRACK_MAX_PAGES */
	uint64_t seed;                          /**< of the sampler's random numbers */
	uint32_t cpu;                           /**< VMEM_CPU_*: what may be used */
};

/** Pages by age. */
struct vmem_track_histogram {
	size_t size; /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t pages[VMEM_TRACK_AGES]; /**< [a]: of age a; the last: and above */
};

/** Counters. */
struct vmem_track_stats {
	size_t size;       /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t pages;    /**< as in the options, or what it has grown to */
	uint64_t present;  /**< not absent */
	uint64_t away;     /**< taken, not back */
	uint64_t periods;  /**< that have ended */
	uint64_t accesses; /**< pages found accessed, once a page and period */
	uint64_t taken;    /**< by vmem_track_take() */
	uint64_t returned; /**< accessed while they were away */
	uint64_t bytes;    /**< memory of the tracker */
};

/** Make a tracker; all pages are absent.
 *  @param[out] ret_track  set only on success
 *  @return 0, -VMEM_EINVAL (no pages, too many, bad options), -VMEM_E2BIG, -VMEM_ENOMEM
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_track_new(vmem_track **ret_track,
			    const struct vmem_track_opts *opts) VMEM_NODISCARD;

/** More pages, all of them absent. Copies 2.02 bytes a page; old and new arrays are both there meanwhile. Shadows
 *  from before say nothing any more.
 *  @return 0, -VMEM_EINVAL (less than now, too many), -VMEM_ENOMEM; on error nothing has changed
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_track_grow(vmem_track *track, uint64_t pages) VMEM_NODISCARD;

/** Free it. NULL is fine. @threads exclusive @since 1.0 */
VMEM_API void vmem_track_free(vmem_track *track);

/** End a period: all pages are one period older. @threads serial @since 1.0 */
VMEM_API void vmem_track_period(vmem_track *track);

/* --- Feeds. A page that is accessed has age 0, and is neither absent nor away any more. --- */

/** Give in what was accessed in a range, as bitmaps: bit i of word j is page first + 64 j + i.
 *  @param first     a multiple of 64
 *  @param count     pages of the range; bits beyond it do not count
 *  @param accessed  or NULL: none but those written
 *  @param written   or NULL: none. What was written counts as accessed
 *  @return 0, -VMEM_EINVAL (first), -VMEM_ERANGE
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_track_feed_bitmap(vmem_track *track, uint64_t first, uint64_t count,
				    const uint64_t *accessed, const uint64_t *written);

/** Give in pages that were accessed, in any order, also several times.
 *  @param state  VMEM_TRACK_WRITTEN: they were written; or 0
 *  @return 0, -VMEM_EINVAL (state), -VMEM_ERANGE (one of them: nothing was done)
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_track_feed_list(vmem_track *track, const uint64_t *pages, size_t count,
				  uint32_t state);

/** Change the state of pages: clear bits, then set bits. A page that is no longer absent has age 0; one
 *  that comes back by clearing VMEM_TRACK_AWAY keeps its age (it was not accessed).
 *  @return 0, -VMEM_EINVAL (bits beyond 0xff), -VMEM_ERANGE
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_track_mark(vmem_track *track, uint64_t first, uint64_t count, uint32_t clear,
			     uint32_t set);

/* --- Answers --- */

/** Age and state of a page. @return 0, -VMEM_ERANGE @threads serial @since 1.0 */
VMEM_API int vmem_track_page(const vmem_track *track, uint64_t page, uint32_t *ret_age,
			     uint32_t *ret_state);

/** Pages by their age now: how many would be cold at which threshold.
 *  @return 0, -VMEM_EINVAL @threads serial @since 1.0 */
VMEM_API int vmem_track_get_ages(const vmem_track *track, struct vmem_track_histogram *ages);

/** Accesses since the start by the age that the page had: how many promotions each threshold would have
 *  caused, without trying it (Lagar-Cavilla et al., "Software-defined far memory", ASPLOS 2019, 4.2).
 *  First accesses of absent pages, and further ones in a period, do not count.
 *  @return 0, -VMEM_EINVAL @threads serial @since 1.0 */
VMEM_API int vmem_track_get_promotions(const vmem_track *track,
				       struct vmem_track_histogram *promotions);

/** Pages that were accessed within a window: in this period or one of the `window_periods` - 1 before.
 *  @threads serial @since 1.0 */
VMEM_API uint64_t vmem_track_working_set(const vmem_track *track, uint32_t window_periods);

/** Counters. @return 0, -VMEM_EINVAL @threads serial @since 1.0 */
VMEM_API int vmem_track_get_stats(const vmem_track *track, struct vmem_track_stats *stats);

/* --- Victims --- */

#define VMEM_TRACK_EMERGENCY 1u /**< of vmem_track_want: younger ones too, when there are no more */
#define VMEM_TRACK_MAX_RUN 64u

/** What to look for. Fields are only ever added at the end. */
struct vmem_track_want {
	size_t size;         /**< sizeof(*this) as the caller compiled it */
	uint64_t flags;      /**< VMEM_TRACK_EMERGENCY, or 0 */
	uint64_t pages;      /**< how many, at least 1 */
	uint64_t scan_pages; /**< the most that are looked at in a call; 0: 1 Mi pages */
	uint32_t min_age;    /**< the cold threshold: 0 .. VMEM_TRACK_AGES - 1 */
	uint32_t run_pages;  /**< only whole aligned runs of 2, 4 .. 64 pages; 0, 1: singles too */
	uint32_t skip;       /**< states to pass over, besides absent, away and kept */
};

/** Where a search stands. All zero before the first one; the fields are the library's. */
struct vmem_track_cursor {
	uint64_t period, found, factor, word, words_left, left;
	uint32_t low, high, stage, part, partial;
};

/** Pages in a row. */
struct vmem_track_run {
	uint64_t first;
	uint64_t count;
};

/** Name the best pages to take: the coldest first, by steps of the histogram of ages; of each step the
 *  clean ones first. (A run counts as its youngest page does, and is clean if all its pages are.) Each
 *  call looks at no more than scan_pages and goes on where the last one stopped. Nothing changes: the
 *  caller takes the pages (vmem_track_take) or leaves them. A search that a period overtakes begins again.
 *  @param cursor         kept by the caller, also from one search to the next, which begins where this ends
 *  @param[out] runs      room for max_runs (at least 1) of them
 *  @param[out] ret_runs  as many as there are; may be 0
 *  @return 1 (call again for more), 0 (what was wanted was named, or there is no more),
 *  -VMEM_EINVAL (nothing was set)
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_track_victims(const vmem_track *track, const struct vmem_track_want *want,
				struct vmem_track_cursor *cursor, struct vmem_track_run *runs,
				size_t max_runs, size_t *ret_runs);

/** Say that pages were taken: they are away. Pages that are absent or away already stay as they are.
 *  @param[out] ret_shadow  VMEM_TRACK_SHADOW_BITS bits for the caller to keep with the pages; may be NULL
 *  @return 0, -VMEM_ERANGE
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_track_take(vmem_track *track, uint64_t first, uint64_t count,
			     uint32_t *ret_shadow);

#define VMEM_TRACK_SHADOW_BITS 22u

/** Say that a page was accessed after it was taken, with the shadow kept from then.
 *  @param[out] ret_distance  the refault distance: about how many pages were taken in between (to 1 part in
 *  2 million of the pages tracked). With that many frames more the page had not gone.
 *  @return 0, -VMEM_ERANGE, -VMEM_EINVAL (no such shadow)
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_track_refault(vmem_track *track, uint64_t page, uint32_t shadow,
				uint64_t *ret_distance);

/* --- The sampler: how much is in use, where nothing says which (Waldspurger, "Memory resource management
 * in VMware ESX Server", OSDI 2002, 5.3) --- */

#define VMEM_TRACK_MAX_SAMPLE 65536u

/** What samples say. All in pages, of those that are present and not away. */
struct vmem_track_estimate {
	size_t size; /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t
		working_set; /**< by the share of samples that were accessed, in the last period with answers */
	uint64_t low, high; /**< holds what is so with 95 % (Wilson's interval) */
	uint64_t
		active; /**< up fast, down slowly: the largest of the slow average, the fast one, and the
			      fast one with this period so far */
	uint64_t samples; /**< that the first three rest on */
};

/** Choose random pages for this period. The caller arranges to see whether they are accessed.
 *  @param[out] ret_pages  as many as are returned; a page may be there twice
 *  @param count           up to VMEM_TRACK_MAX_SAMPLE; ESX takes 100
 *  @return how many: fewer than count where nearly all pages are absent or away, 0 at count 0 or too large
 *  @threads serial
 *  @since 1.0 */
VMEM_API size_t vmem_track_sample(vmem_track *track, uint64_t *ret_pages, size_t count);

/** Say how many of the samples of this period were accessed so far. May be said several times in a period:
 *  the last one counts when it ends. Which ones they were may be given in as a list besides.
 *  @return 0, -VMEM_EINVAL (no samples, or more accessed than there are)
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_track_sample_accessed(vmem_track *track, size_t accessed);

/** Say that @p count of the samples of this period say nothing: they could not be watched, or came back unused.
 *  @return 0, -VMEM_EINVAL (there are not so many that were not accessed)
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_track_sample_spoiled(vmem_track *track, size_t count);

/** The estimate now. @return 0, -VMEM_EINVAL, -VMEM_ENOENT (no period with answers yet) @threads serial @since 1.0 */
VMEM_API int vmem_track_get_estimate(const vmem_track *track, struct vmem_track_estimate *estimate);

VMEM_END_DECLS
#endif
