/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/feed.h
 *  From where a region knows which pages are in use. Faults on pages that were taken out always say it, for
 *  nothing. What says it of pages in place is asked for besides, once a period, if it is there: then pages
 *  that are in use need not be taken out to be known.
 *
 *  How much is in use, not which, is told by samples (vmem_region_opts.active_samples): at the start of a period random
 *  pages in place are taken out, as vmem_region_stage_pages() does, and those that are touched in it are counted; what
 *  the VMM pins, fetches or discards does not count. Its price is a fault for each page that is touched: with 100 pages in 30 s some
 *  milliseconds a minute. Those that are not touched stay in staging. Needs a region of which pages can be taken
 *  out. */
#ifndef VMEM_FEED_H
#define VMEM_FEED_H
#include <vmem/region.h>
VMEM_BEGIN_DECLS

/** Where accesses are known from, the cheapest first. */
enum vmem_feed {
	VMEM_FEED_FAULTS = 0,    /**< faults on pages that were taken out, and no more */
	VMEM_FEED_DIRTY_LOG = 1, /**< also vmem_region_opts.dirty_log: writes */
};

/** The feed that a region uses: the cheapest of those that it has.
 *  @return enum vmem_feed
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_region_feed(const vmem_region *region);

/** Its name: "faults", "dirty log".
 *  @threads any
 *  @since 1.0 */
VMEM_API const char *vmem_region_feed_name(const vmem_region *region);

VMEM_END_DECLS
#endif
