/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/working_set.h
 *  Recorded working sets: which pages a guest touched, in the order in which it first did, kept in a file, and
 *  brought back many at a time before the guest runs again, instead of by a fault each. (Ustiugov et al.,
 *  REAP, ASPLOS 2021.) Linux only.
 *
 *      vmem_region_evict_all(region, NULL);             or a region that was just restored
 *      vmem_working_set_record_start(region, NULL);
 *      ... the guest runs ...
 *      vmem_working_set_record_stop(region, &set);
 *      vmem_working_set_save(set, write, file);
 *      ... another day, in another process ...
 *      vmem_working_set_load(&set, NULL, read, file);
 *      vmem_working_set_replay(region, set, NULL, NULL);
 *
 *  The file: the 8 bytes "VMEMWSET", then numbers, then the checksum of these, 8 bytes, least significant
 *  first. Numbers and checksum are as in <vmem/trace.h>. The numbers: version, 1; page size, 4096; the region's
 *  guest physical address in pages; its pages; pages that were not recorded for want of room; then runs of
 *  pages in the order of their first touch: how many, and where the first is, counted from the end of the run
 *  before (the first run: from 0), n >= 0 as 2n, -n as 2n - 1. A run of 0 pages, without a place, is the end. */
#ifndef VMEM_WORKING_SET_H
#define VMEM_WORKING_SET_H
#include <vmem/allocator.h>
#include <vmem/common.h>
#include <vmem/region.h>
VMEM_BEGIN_DECLS

/** A set of pages of a region, in an order. Does not change, and needs neither the region nor its manager. */
typedef struct vmem_working_set vmem_working_set;

/** Options. Fields are only ever added at the end. */
struct vmem_working_set_record_opts {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t flags; /**< 0 */
	/** most pages; what is touched first after them is only counted. 0: all of the region */
	uint64_t max_pages;
};

/** Record from now on which pages are touched. Seen are faults, and what the library brings beside them
 *  (vmem_region_opts.fault_around_pages), which the guest then touches without one; not seen is what was in place
 *  before. A page counts once. Costs 4 bytes for each of max_pages and a bit for each page of the region, which
 *  are counted as metadata and given back at the end.
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_EBUSY (begun already), -VMEM_ENOTSUP (a region of 16 TiB and
 *          more), -VMEM_ENOMEM
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_working_set_record_start(
	vmem_region *region, const struct vmem_working_set_record_opts *opts) VMEM_NODISCARD;

/** Record no longer.
 *  @param[out] ret_set  what was recorded, to be freed by the caller; memory of the manager's allocator, which
 *                       the budget does not count. NULL: it is thrown away
 *  @return 0, -VMEM_EINVAL (not begun), -VMEM_ENOMEM (it goes on)
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_working_set_record_stop(vmem_region *region, vmem_working_set **ret_set);

/** @param set  NULL: nothing @threads exclusive @since 1.0 */
VMEM_API void vmem_working_set_free(vmem_working_set *set);

/** What a set is. */
struct vmem_working_set_info {
	size_t size;           /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t region_gpa;   /**< of the region that it was recorded from */
	uint64_t region_bytes; /**< likewise */
	uint64_t pages;        /**< in it */
	uint64_t runs;         /**< that they make, in their order */
	uint64_t missed_pages; /**< touched, but not recorded for want of room */
};

/** @param[out] info  @return 0, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_working_set_get_info(const vmem_working_set *set,
				       struct vmem_working_set_info *info);

/** Tell the runs of a set in their order.
 *  @param run  called for each; not 0 ends the call, which returns that
 *  @return 0, -VMEM_EINVAL, or what @p run returned
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_working_set_iterate(const vmem_working_set *set,
				      int (*run)(void *context, uint64_t gpa, uint64_t bytes),
				      void *context);

/** Write a set as a file.
 *  @param write  takes up to 256 bytes. Returns 0; anything else ends the call, which returns it
 *  @return 0, -VMEM_EINVAL, or what @p write returned
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_working_set_save(const vmem_working_set *set,
				   int (*write)(void *context, const void *bytes, size_t count),
				   void *context) VMEM_NODISCARD;

/** Options. Fields are only ever added at the end. */
struct vmem_working_set_load_opts {
	size_t size;                            /**< sizeof(*this) as the caller compiled it */
	uint64_t flags;                         /**< 0 */
	const struct vmem_allocator *allocator; /**< NULL: libc; must outlive the set */
	uint64_t max_pages;                     /**< more is -VMEM_ERANGE; 0: any number */
};

/** Read a set from a file, which need not be trusted: memory is taken for what was read, 8 bytes a run, not
 *  for what the file says that will come.
 *  @param read  gives exactly so many of the next bytes; asks for few at a time. Returns 1, 0 (the end came before
 *               that many), or a negative error, which ends the call, and which that returns
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_ENOMEM, -VMEM_EBADMSG (no such file, damaged or cut short),
 *          -VMEM_ENOTSUP (of another version or page size), -VMEM_ERANGE, or what @p read returned
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_working_set_load(vmem_working_set **ret_set,
				   const struct vmem_working_set_load_opts *opts,
				   int (*read)(void *context, void *bytes, size_t count),
				   void *context) VMEM_NODISCARD;

/** Options. Fields are only ever added at the end. */
struct vmem_working_set_replay_opts {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t flags; /**< 0 */
	/** So many pages of the set have been looked at; after each 8 MiB of them and at the end. May be NULL. No lock
	 *  is held. @return 0; anything else ends the replay, which returns it: the way to cancel */
	int (*progress)(void *context, uint64_t done_pages, uint64_t set_pages);
	void *context; /**< for progress */
};

/** What a replay did. */
struct vmem_working_set_stats {
	size_t size;    /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t pages; /**< of the set, that were looked at */
	uint64_t
		brought; /**< of them, that were away and came back; others were in place, or are absent */
};

/** Bring the pages of a set back, in its order, as vmem_region_fetch() does: whatever is stored, staged or with the
 *  caller, into frames above the reserve only. The order holds between pieces of 64 MiB; within one it is that of
 *  addresses, so that what was touched by several processors in turn comes in runs. The guest may run.
 *
 *  Where the budget cannot hold all, the pages that are touched first come, and the rest by faults.
 *  @param[out] stats  set also on -VMEM_ENOSPC and where progress ended it; may be NULL
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_ENOMEM, -VMEM_ERANGE (recorded from a region at another place or of
 *          another size), -VMEM_ENOSPC (not all fit), or what progress returned
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_working_set_replay(vmem_region *region, const vmem_working_set *set,
				     const struct vmem_working_set_replay_opts *opts,
				     struct vmem_working_set_stats *stats) VMEM_NODISCARD;

VMEM_END_DECLS
#endif
