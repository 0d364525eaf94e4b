/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/snapshot.h
 *  For snapshots and migration: where the pages of a region are, without touching them; a time in which
 *  they stay there; and a region as a stream of bytes, and back, within the budget (page by page, when they are
 *  touched: <vmem/snapshot_source.h>). Linux only.
 *
 *  The stream. All numbers have their least significant byte first; sums are XXH3-64, with the seed that is
 *  named. A header of 64 bytes:
 *     0  "VMEMSNAP"
 *     8  u32 version, 1; u32 page size, 4096
 *    16  u64 guest physical address of the region; u64 its bytes
 *    32  24 bytes of 0
 *    56  u64 sum of the above, seed 0
 *  Then frames, in the order of their pages, which are numbered in the region from 0. What is in none is
 *  zeros. A head of 40 bytes:
 *     0  u32 kind; u32 state: where the pages were (enum vmem_page_state)
 *     8  u64 first page; u64 how many
 *    24  u64 word
 *    32  u64 sum of the above, seeded with the sum of the frame before, or of the header; in a frame with
 *        contents of what follows the head, before the contents, seeded with that
 *  By kind:
 *    'P'  1 to 16 pages with contents; word is 0, state resident, staged or stored. A sum of each page
 *         follows, seed its number; then their bytes
 *    'W'  pages that repeat the word, which is not 0; states as above
 *    'L'  pages whose bytes were gone when they were saved; state poisoned, word 0
 *    'E'  the end: first is the region's pages, how many those in all frames, word the number of frames
 *         before, state 0 */
#ifndef VMEM_SNAPSHOT_H
#define VMEM_SNAPSHOT_H
#include <vmem/common.h>
#include <vmem/region.h>
VMEM_BEGIN_DECLS

/** Go over pages by their state, in runs of one state, ascending. Takes no lock and no page: where states
 *  change meanwhile (see vmem_region_quiesce()), each page is told as it was at some moment of the call.
 *  @param gpa,bytes  rounded outwards to pages
 *  @param states  which are told: a bit for each, 1 << enum vmem_page_state
 *  @param run  called for each run; not 0 ends the call, which returns that. It may call what is for any
 *              thread
 *  @return 0, -VMEM_EINVAL, -VMEM_ERANGE, or what @p run returned
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_region_iterate(vmem_region *region, uint64_t gpa, uint64_t bytes, uint32_t states,
				 int (*run)(void *context, uint64_t gpa, uint64_t bytes,
					    enum vmem_page_state state),
				 void *context);

/** From the return of this call on the library changes no page's state by itself: nothing is taken out,
 *  stored, or brought back ahead of need. Contents are at rest if the VMM has stopped the guest and its
 *  devices. Calls nest, and each region has a count of its own.
 *
 *  Faults are served still, from the reserve of frames that reclaim keeps. When that is used up and no
 *  other region has anything to give, they wait until vmem_region_resume(), or for a larger budget
 *  (VMEM_MANAGER_STUCK tells). Meanwhile vmem_region_stage(), vmem_region_stage_pages() and
 *  vmem_region_store() return -VMEM_EBUSY; other calls change what they are asked to.
 *  @return 0, -VMEM_EINVAL (NULL, or too deep)
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_region_quiesce(vmem_region *region) VMEM_NODISCARD;

/** The end of one vmem_region_quiesce(). @return 0, -VMEM_EINVAL (it is not quiesced) @threads any
 *  @since 1.0 */
VMEM_API int vmem_region_resume(vmem_region *region);

/** Save too what has lost pages: without it vmem_snapshot_save() ends with -VMEM_EIO at the first page whose
 *  bytes are gone; with it they are told in the stream, and poisoned where that is loaded. */
#define VMEM_SNAPSHOT_LOST_TOO (UINT64_C(1) << 0)

/** Options. Fields are only ever added at the end. */
struct vmem_snapshot_save_opts {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t flags; /**< VMEM_SNAPSHOT_*; an unknown bit is -VMEM_EINVAL */

	/** Take the next bytes of the stream, at most 64 KiB at a time. No lock is held: it may block, and call what
	 *  is for any thread. @return 0; anything else ends the save, which returns it */
	int (*write)(void *context, const void *bytes, size_t count);
	/** So much of the region is done; about every 4 MiB of it and at the end. May be NULL.
	 *  @return 0; anything else ends the save, which returns it */
	int (*progress)(void *context, uint64_t done_bytes, uint64_t region_bytes);
	void *context; /**< for both */
};

/** Options. Fields are only ever added at the end. */
struct vmem_snapshot_load_opts {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t flags; /**< 0 */

	/** Give exactly so many of the next bytes, at most 64 KiB. No lock is held, as with write.
	 *  @return 1, 0 (the stream ends before that many), or a negative error, which ends the load, and which
	 *          that returns */
	int (*read)(void *context, void *bytes, size_t count);
	/** As in struct vmem_snapshot_save_opts. May be NULL. */
	int (*progress)(void *context, uint64_t done_bytes, uint64_t region_bytes);
	void *context; /**< for both */
};

/** What was saved or loaded. */
struct vmem_snapshot_stats {
	size_t size;           /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t stream_bytes; /**< written or read */
	uint64_t pages;        /**< with contents in the stream */
	uint64_t pages_same;   /**< of one repeated word, not 0 */
	uint64_t pages_lost;   /**< poisoned */
	/** of all these: saved: how many were in place; loaded: how many came into place */
	uint64_t pages_in_place;
};

/** Write a region as a stream. Each page is read where it is: none comes into place for it, none becomes
 *  younger, and no frame is taken but for a buffer of 17 pages, counted as metadata. Pages of zeros cost
 *  nothing, those of one repeated word next to nothing; pages that are stored are written decoded.
 *
 *  Each page is as it was at one moment. For all to be of the same one, the VMM stops the guest and its
 *  devices, and calls vmem_region_quiesce(), for which reclaim moves nothing that was just looked at.
 *  @param[out] stats  set only on success; may be NULL
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_ENOMEM, -VMEM_EIO (a page's bytes are gone, see
 *          VMEM_SNAPSHOT_LOST_TOO; or its source did not give them now), or what write or progress returned
 *  @threads any, but not in a callback of the manager or a region
 *  @since 1.0 */
VMEM_API int vmem_snapshot_save(vmem_region *region, const struct vmem_snapshot_save_opts *opts,
				struct vmem_snapshot_stats *stats) VMEM_NODISCARD;

/** Fill a region that was just attached, and that is absent as a whole, from a stream of one with the same
 *  guest physical addresses. Pages that were in place come into place as far as the budget's reserve stays
 *  free; others go straight into the store, and what does not fit there into place as room is made.
 *
 *  The stream need not be trusted: whatever it says, an error is all that comes of it (sums find damage, not
 *  malice). After an error the region has some of the pages; detach it, or discard all of it before another
 *  attempt.
 *  @param[out] stats  set only on success; may be NULL
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_ENOMEM, -VMEM_EEXIST (not all of the region is absent),
 *          -VMEM_ERANGE (another region's), -VMEM_EBADMSG (no such stream, damaged or cut short),
 *          -VMEM_ENOTSUP (of another version), -VMEM_ENOSPC (the budget cannot hold it, even compressed),
 *          -VMEM_EIO, or what read or progress returned
 *  @threads any, but not in a callback of the manager or a region; the guest does not run yet
 *  @since 1.0 */
VMEM_API int vmem_snapshot_load(vmem_region *region, const struct vmem_snapshot_load_opts *opts,
				struct vmem_snapshot_stats *stats) VMEM_NODISCARD;

/** Track which pages are written from now on, for live migration. What is not absent counts as written, so that
 *  the first round tells all of it. Costs the guest a fault for the first write to a page after each round, and
 *  a bit a page of memory, which stays until the region is detached.
 *
 *  What writes without a fault is not seen: pages are dirty as long as they are pinned, and once more after
 *  that; what is neither done by a processor nor pinned has to be told by vmem_region_dirty_mark().
 *
 *  Memory in a file (VMEM_REGION_FILE): what peers write (<vmem/peer.h>) is told too, also of one that is added meanwhile, and
 *  of one that was removed or has died, up to then. Each mapping has a fault of its own for its first write. Before Linux 6.4 a
 *  page that is mapped by a read counts as written.
 *  @return 0, -VMEM_EINVAL, -VMEM_ENOTSUP (no VMEM_KERNEL_WP, VMEM_MANAGER_ASYNC_WP, or memory of another process), -VMEM_EBUSY (begun already),
 *          -VMEM_ENOMEM
 *  @threads serial with vmem_region_dirty_stop()
 *  @since 1.0 */
VMEM_API int vmem_region_dirty_start(vmem_region *region) VMEM_NODISCARD;

/** Tell pages whose bytes have changed since they were last told, in runs, ascending, and forget that: by a write,
 *  a discard, or a call. Read after they were told (vmem_region_read()), they may have changed once more: then the
 *  next round tells them too. A round while the guest and its devices are stopped is the last.
 *  May tell pages that have not changed. Waits for pages that somebody is at. What the kernel refuses to write-protect, time and
 *  again (it has no memory, such as that of a peer's memory cgroup), is told in each round until it can be: whoever waits for
 *  rounds to become small should have a limit of his own.
 *  @param gpa,bytes  rounded outwards to pages
 *  @param run  called for each run, with no lock held, so that it may read and send it. Not 0 ends the round,
 *              which returns that; this run and those after it stay for the next
 *  @param[out] ret_pages  how many were told; set only on success; may be NULL
 *  @return 0, -VMEM_EINVAL (not begun), -VMEM_ERANGE, -VMEM_EIO, or what @p run returned
 *  @threads one round at a time for a page; else any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_region_dirty_round(vmem_region *region, uint64_t gpa, uint64_t bytes,
				     int (*run)(void *context, uint64_t gpa, uint64_t bytes),
				     void *context, uint64_t *ret_pages) VMEM_NODISCARD;

/** Pages were written by what is not seen: they are told in the next round, and not discarded by hints (<vmem/discard.h>). To be
 *  called after the write.
 *  @param gpa,bytes  rounded outwards to pages
 *  @return 0, -VMEM_EINVAL (neither this nor a guard of hints has begun), -VMEM_ERANGE
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_region_dirty_mark(vmem_region *region, uint64_t gpa, uint64_t bytes);

/** Track no longer. Peers have one more fault for the first write to each page.
 *  @return 0, -VMEM_EINVAL (not begun) @threads serial with vmem_region_dirty_start(), and not
 *  together with a round
 *  @since 1.0 */
VMEM_API int vmem_region_dirty_stop(vmem_region *region);

VMEM_END_DECLS
#endif
