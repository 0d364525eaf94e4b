/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/balloon_protocol.h
 *  What both sides of the virtio memory balloon agree on (VIRTIO 1.3, 5.5): features, queues, the layout of the
 *  configuration space, statistics. */
#ifndef VMEM_BALLOON_PROTOCOL_H
#define VMEM_BALLOON_PROTOCOL_H
#include <vmem/common.h>
VMEM_BEGIN_DECLS

/** Features (5.5.3). */
#define VMEM_BALLOON_F_MUST_TELL_HOST (UINT64_C(1) << 0) /**< pages are used after the host knows */
#define VMEM_BALLOON_F_STATS_VQ (UINT64_C(1) << 1)
#define VMEM_BALLOON_F_DEFLATE_ON_OOM (UINT64_C(1) << 2)
#define VMEM_BALLOON_F_FREE_PAGE_HINT (UINT64_C(1) << 3)
#define VMEM_BALLOON_F_PAGE_POISON (UINT64_C(1) << 4)
#define VMEM_BALLOON_F_PAGE_REPORTING (UINT64_C(1) << 5)
#define VMEM_VIRTIO_F_VERSION_1 (UINT64_C(1) << 32) /**< without it the driver is a legacy one */
#ifdef VMEM_EXPERIMENTAL
/** Ours, in no specification: entries of the inflate and deflate queues are 8 bytes, little-endian: the first page
 *  number in the low 40 bits, the number of pages in the high 24. */
#define VMEM_BALLOON_F_RANGES (UINT64_C(1) << 22)
#define VMEM_BALLOON_RANGE(first, pages) ((uint64_t)(first) | (uint64_t)(pages) << 40)
#define VMEM_BALLOON_RANGE_PAGES ((UINT32_C(1) << 24) - 1) /**< most of an entry */
#endif

/** A part of a buffer that the device may write: its place says something, not its bytes. Stays as it is. */
struct vmem_balloon_piece {
	uint64_t gpa;
	uint64_t bytes;
};

/** Bits of the device status (2.1). 0 resets. */
#define VMEM_VIRTIO_DRIVER_OK 4u
#define VMEM_VIRTIO_FEATURES_OK 8u

/** What a queue is for. Its number is another matter: see enum vmem_balloon_queue_map. */
enum vmem_balloon_queue {
	VMEM_BALLOON_INFLATE, /**< page numbers that the guest gives up */
	VMEM_BALLOON_DEFLATE, /**< page numbers that it takes back */
	VMEM_BALLOON_STATS,   /**< statistics */
	VMEM_BALLOON_HINT,    /**< command ids, and ranges that were free when a command began */
	VMEM_BALLOON_REPORT,  /**< ranges that are free until they are acknowledged */
	VMEM_BALLOON_QUEUES,
};

/** How queues are numbered; implementations differ. */
enum vmem_balloon_queue_map {
	VMEM_BALLOON_MAP_SPEC,    /**< as in enum vmem_balloon_queue, always (5.5.2) */
	VMEM_BALLOON_MAP_OFFERED, /**< one after the other, those of features offered (QEMU, crosvm) */
	VMEM_BALLOON_MAP_NEGOTIATED, /**< those of features negotiated (what Linux drivers expect) */
	VMEM_BALLOON_MAP_GIVEN,      /**< as the options say */
};
#define VMEM_BALLOON_NO_QUEUE UINT32_MAX

/** Numbers the queues. Inflate and deflate are always there, the others with their features.
 *  @param given        for VMEM_BALLOON_MAP_GIVEN: VMEM_BALLOON_QUEUES numbers; else not looked at
 *  @param[out] ret_numbers  VMEM_BALLOON_QUEUES of them; VMEM_BALLOON_NO_QUEUE: there is no such queue
 *  @return 0, -VMEM_EINVAL (map; two given numbers are the same)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_balloon_number_queues(enum vmem_balloon_queue_map map, uint64_t offered,
					uint64_t negotiated, const uint32_t *given,
					uint32_t *ret_numbers);

/** Offsets in the configuration space (5.5.4). Fields are 4 bytes, little-endian, for legacy drivers too. */
#define VMEM_BALLOON_CONFIG_TARGET 0u  /**< num_pages: how many the host wants */
#define VMEM_BALLOON_CONFIG_ACTUAL 4u  /**< how many the driver says it has given; it writes this */
#define VMEM_BALLOON_CONFIG_HINT_ID 8u /**< free_page_hint_cmd_id */
#define VMEM_BALLOON_CONFIG_POISON 12u /**< poison_val; the driver writes this */
#define VMEM_BALLOON_CONFIG_BYTES 16u

/** Command ids of hints that are none (5.5.6.6). */
#define VMEM_BALLOON_HINT_STOP 0u
#define VMEM_BALLOON_HINT_DONE 1u
#define VMEM_BALLOON_HINT_FIRST 2u /**< the least one that is */

/** Tags of statistics: those of the specification (5.5.6.3) and of Linux 6.12. Bytes, unless said. An entry is the
 *  tag in 2 bytes and the value in 8, little-endian, in legacy mode the guest's order. */
enum vmem_balloon_tag {
	VMEM_BALLOON_SWAP_IN,
	VMEM_BALLOON_SWAP_OUT,
	VMEM_BALLOON_MAJOR_FAULTS, /**< a number */
	VMEM_BALLOON_MINOR_FAULTS, /**< a number */
	VMEM_BALLOON_FREE,
	VMEM_BALLOON_TOTAL,
	VMEM_BALLOON_AVAILABLE,
	VMEM_BALLOON_CACHES,
	VMEM_BALLOON_HUGETLB_ALLOCS,   /**< a number */
	VMEM_BALLOON_HUGETLB_FAILS,    /**< a number */
	VMEM_BALLOON_OOM_KILLS,        /**< a number */
	VMEM_BALLOON_ALLOC_STALLS,     /**< a number */
	VMEM_BALLOON_SCANNED_ASYNC,    /**< pages looked at by reclaim in the background */
	VMEM_BALLOON_SCANNED_DIRECT,   /**< by reclaim in who allocates */
	VMEM_BALLOON_RECLAIMED_ASYNC,  /**< pages */
	VMEM_BALLOON_RECLAIMED_DIRECT, /**< pages */
	VMEM_BALLOON_TAGS,
};
#define VMEM_BALLOON_STAT_BYTES 10u

VMEM_END_DECLS
#endif
