/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/region_metrics.h
 *  What vmem_region_get_metrics() tells of a region. */
#ifndef VMEM_REGION_METRICS_H
#define VMEM_REGION_METRICS_H
#include <vmem/common.h>
VMEM_BEGIN_DECLS

/** Counters since attach, and gauges of now. */
struct vmem_region_metrics {
	size_t size; /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t bytes;
	uint64_t pages[16]; /**< pages by enum vmem_page_state, now; with room for states to come */
	uint64_t pinned_pages;
	uint64_t staging_copies; /**< pages in place whose copy in staging is not freed yet */
	uint64_t faults; /**< served: the sum of the next five, faults_source and faults_mapped */
	uint64_t faults_zero;   /**< on absent pages */
	uint64_t faults_staged; /**< came back from staging */
	uint64_t faults_stored; /**< came back from the store */
	uint64_t faults_write;  /**< first write to a clean page, or to one that was being taken */
	uint64_t faults_redundant; /**< the page was there already */
	uint64_t prefetched;       /**< pages brought back beside a faulting one */
	uint64_t stalls;           /**< faults that waited for a free frame */
	uint64_t stall_ns;         /**< how long those waited */
	uint64_t lost;             /**< pages poisoned */
	uint64_t fault_p50_ns;     /**< from the fault's arrival in the library to its answer */
	uint64_t fault_p99_ns;
	uint64_t fault_max_ns;
	uint64_t taken_run;       /**< pages taken out by UFFDIO_MOVE */
	uint64_t taken_scattered; /**< pages taken out by write-protect, copy and discard */
	uint64_t taken_clean;     /**< clean pages dropped */
	uint64_t taken_undone;  /**< pages written while they were being taken, and left in place */
	uint64_t unmovable;     /**< pages that the kernel held */
	uint64_t saved;         /**< pages that went into the store */
	uint64_t rejected;      /**< pages that the store refused */
	uint64_t discarded;     /**< pages discarded by the VMM */
	uint64_t feed_asked;    /**< times that a feed (<vmem/feed.h>) was asked */
	uint64_t feed_failed;   /**< and did not answer */
	uint64_t feed_pages;    /**< pages that it found used */
	uint64_t feed_ns;       /**< time that it took */
	uint64_t faults_source; /**< faults: came from the source */
	uint64_t
		working_set_pages; /**< known to have been used in the last 60 periods of about a second */
	uint64_t cold_age;         /**< the cold threshold in periods; 240: none is cold */
	uint64_t cold_pages;  /**< not used for so long, wherever they are */
	uint64_t taken_ahead; /**< pages taken by VMEM_REGION_PROACTIVE */
	/** part of faults: on pages of a file that were in place, but not mapped here yet */
	uint64_t faults_mapped;
	uint64_t taken_unmapped; /**< pages of a file taken out by unmapping them */
	uint64_t blocked_ns;     /**< waiting for faults and calls, summed; see docs/design.md */
	uint64_t pressure_ns;    /**< while any waited: "some" of the kernel's PSI */
	uint64_t pressure_avg10_ppm; /**< its share of the last 10 s, in parts per million */
	uint64_t pressure_avg60_ppm; /**< of the last minute; both change every 2 s */
	/** Bytes in use of those in place, by vmem_region_opts.active_samples: up fast, down slowly, as ESX has it;
	 *  0 before the first period has ended */
	uint64_t active_bytes;
	uint64_t active_now_bytes;  /**< by the last period alone */
	uint64_t active_low_bytes;  /**< between this and the next is what is so, with 95 % */
	uint64_t active_high_bytes; /**< (in the last period; Wilson's interval) */
	uint64_t active_samples;    /**< pages that this rests on */
	uint64_t sampled;           /**< pages taken out for it, ever */
	uint64_t sampled_touched;   /**< of them, touched: a fault each */
	uint64_t sampled_ns;        /**< time that taking them out took */
	uint64_t peers;             /**< mappings of its file that are served too: <vmem/peer.h> */
	uint64_t faults_peer;       /**< that they met */
	uint64_t huge_bytes; /**< in huge pages of 2 MiB now, as far as is known: <vmem/huge.h> */
	uint64_t huge_collapsed; /**< huge pages made */
	uint64_t huge_split;     /**< of those, made pages of 4 KiB again */
	uint64_t huge_failed; /**< times that the kernel would not make one; they are tried again */
	/** pages that were lost and then discarded, and are an error to a peer still: its kernel would not change that */
	uint64_t peer_errors_left;
};

VMEM_END_DECLS
#endif
