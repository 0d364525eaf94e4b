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

/** Where accesses are known from. */
enum vmem_feed {
	VMEM_FEED_FAULTS =
		0, /**< private memory: faults on pages that were taken out, and no more */
	VMEM_FEED_DIRTY_LOG = 1, /**< besides faults, vmem_region_opts.dirty_log: writes */
	/** A file: faults on pages that were taken out, or that this mapping has not touched since they came (MINOR).
	 *  To take a page out is to unmap it, and it comes back in its own frame: without a copy, and without a second
	 *  frame; the fault itself costs as much as in private memory. */
	VMEM_FEED_MINOR_FAULTS = 2,
	VMEM_FEED_ASYNC_WP = 3, /**< besides faults, VMEM_MANAGER_ASYNC_WP: writes */
	/** Besides faults, where the kernel has idle bits (CONFIG_IDLE_PAGE_TRACKING, /sys/kernel/mm/page_idle/bitmap) and
	 *  this process may use them and know its frames (root, CAP_SYS_ADMIN): reads and writes, by the guest (KVM) and
	 *  all others who map the frame, this process too: what it reads of guest memory counts, so that a device's or a scan's
	 *  accesses look like the guest's. The bit is of the frame, not of the page: one that has just come, or has got
	 *  another frame, looks used once. Always so do frames that are on none of the kernel's LRU lists as long as that lasts,
	 *  and the pages of a huge page but the first where the kernel does not map it as one, or is older than 6.7; else all
	 *  of a huge page is used, or none. An access is not seen if the processor still has the translation from
	 *  before the page was marked, or if somebody else marks the frame after it. */
	VMEM_FEED_IDLE_BITS = 4
};

/** The feed that a region uses: the cheapest of those that see pages in place, if it has one, else its faults.
 *  @return enum vmem_feed
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_region_feed(const vmem_region *region);

/** Its name: "faults", "dirty log", "minor faults", "asynchronous write-protect", "idle bits".
 *  @threads any
 *  @since 1.0 */
VMEM_API const char *vmem_region_feed_name(const vmem_region *region);

#define VMEM_FEED_SEES_READS 1u
#define VMEM_FEED_SEES_WRITES 2u
#define VMEM_FEED_SEES_IN_PLACE 4u /**< without: pages that were taken out, or unmapped, alone */

/** What a feed is to a region. */
struct vmem_feed_info {
	size_t size;      /**< sizeof(*this) as the caller compiled it; set before the call */
	const char *name; /**< static */
	uint32_t sees;    /**< VMEM_FEED_SEES_* */
	int32_t error;    /**< 0: the region can have it; or why not: -VMEM_ENOTSUP */
	uint32_t used;    /**< 1: it is in use; faults are, besides any other */
	uint32_t reserved;
	uint64_t pages; /**< accesses that it told of, since attach */
	uint64_t asked; /**< times that it was asked; 0: it comes by itself */
	uint64_t ns;    /**< time that that took */
};

/** Tell what @p feed is to @p region.
 *  @param feed  enum vmem_feed
 *  @return 0, -VMEM_EINVAL (no such feed)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_region_feed_info(const vmem_region *region, int feed,
				   struct vmem_feed_info *info);

VMEM_END_DECLS
#endif
