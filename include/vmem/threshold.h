/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/threshold.h
 *  From which age on pages are cold, so that not too many of them come back: the controller of
 *  Lagar-Cavilla et al., "Software-defined far memory in warehouse-scale computers", ASPLOS 2019, 4.3.
 *  For each interval past it finds the lowest threshold that would have kept promotions (accesses of pages
 *  that were cold) within an objective, a share of the working set a minute. The threshold for the next
 *  interval is a percentile of those, or that of the last interval if it was higher (a spike). It is some
 *  ages more while more intervals miss the objective than the percentile leaves out, which the past did not
 *  tell then. In the first time nothing is cold, because little is known. Time is an argument. */
#ifndef VMEM_THRESHOLD_H
#define VMEM_THRESHOLD_H
#include <vmem/track.h>
VMEM_BEGIN_DECLS

typedef struct vmem_threshold vmem_threshold; /* opaque */

/** Options. Fields are only ever added at the end. */
struct vmem_threshold_opts {
	size_t size;                            /**< sizeof(*this) as the caller compiled it */
	uint64_t flags;                         /**< 0; an unknown bit is -VMEM_EINVAL */
	const struct vmem_allocator *allocator; /**< NULL: libc (freestanding: -VMEM_EINVAL) */
	uint64_t interval_ns;                   /**< 0: a minute; from a millisecond to an hour */
	uint64_t wait_ns;                       /**< nothing is cold before; 0: ten intervals */
	uint32_t
		objective_ppm; /**< promotions a minute, of a million pages of working set; 0: 2000 */
	uint32_t percentile;   /**< of the best thresholds of past intervals; 0: 98, up to 100 */
	uint32_t min_age;      /**< thresholds are not lower; 0: 1 */
	uint32_t history;      /**< about so many intervals count; 0: 1440 */
};

/** Make a controller.
 *  @param[out] ret_threshold  set only on success
 *  @param now_ns  any clock that does not go back
 *  @return 0, -VMEM_EINVAL (bad options), -VMEM_E2BIG, -VMEM_ENOMEM
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_threshold_new(vmem_threshold **ret_threshold,
				const struct vmem_threshold_opts *opts,
				uint64_t now_ns) VMEM_NODISCARD;

/** Free it. NULL is fine. @threads exclusive @since 1.0 */
VMEM_API void vmem_threshold_free(vmem_threshold *threshold);

/** Tell what happened; at least once an interval. The first call sets where counting begins.
 *  @param promotions    since the start of the tracker, as vmem_track_get_promotions() gives them
 *  @param working_set_pages  now
 *  @return 1 (an interval has ended, the age may be another), 0 (not yet), -VMEM_EINVAL (time or promotions
 *  went back, or the histogram has another size)
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_threshold_update(vmem_threshold *threshold,
				   const struct vmem_track_histogram *promotions,
				   uint64_t working_set_pages, uint64_t now_ns);

/** Pages of this age and above are cold: min_age of a search for victims. VMEM_TRACK_AGES: none is.
 *  @threads serial @since 1.0 */
VMEM_API uint32_t vmem_threshold_age(const vmem_threshold *threshold);

VMEM_END_DECLS
#endif
