/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/foreign.h
 *  Memory of another process, served by this one (a pager). That process registers private anonymous memory
 *  with a userfaultfd of its own (MISSING, with UFFD_FEATURE_EVENT_REMOVE) and hands the descriptor over with
 *  a list of ranges, as Firecracker does when it loads a snapshot; examples/pager speaks that form. Linux only.
 *
 *  Its pages are absent (zeros), with their source (vmem_region_opts.read_source), or in place: they are served,
 *  and never taken out again, because the kernel lets nobody discard another process's memory. They count in the
 *  budget as used, and no reclaim can change that: where it is used up, faults of foreign memory wait like all
 *  others, until the budget grows, other regions give, or the process removes pages.
 *
 *  What the process removes itself (MADV_DONTNEED of a balloon, munmap) is zeros from then on; its source is not
 *  asked for that again. Without UFFD_FEATURE_EVENT_REMOVE nobody hears of that, and the source's bytes may come back.
 *
 *  When this process dies while another holder has the descriptor (Firecracker itself keeps it), who touches a
 *  missing page waits; a successor that gets the descriptor can attach the ranges anew and go on, but it does not
 *  know what was removed before.
 *
 *  While a process removes pages without pause the kernel may refuse to fill any of its pages; its source may then be
 *  asked for a page more than once, about 200 times a second, and handlers read what it removes, but other processes
 *  have their turns all the same.
 *
 *  Of the calls on regions these return -VMEM_ENOTSUP: vmem_region_read(), _write(), _discard(), _stage(),
 *  _stage_pages(), _store(), _evict_all(), _dirty_start(), _grow(), _add_peer(), _set_source(), vmem_snapshot_save(),
 *  _load() and _restore() (give vmem_snapshot_read_page() as read_source instead); and vmem_region_detach()
 *  -VMEM_EINVAL, because all ranges of a process leave together. Working sets are recorded and replayed as of own
 *  memory. VMEM_MANAGER_ASYNC_WP does nothing to it; its feed is VMEM_FEED_FAULTS. */
#ifndef VMEM_FOREIGN_H
#define VMEM_FOREIGN_H
#include <vmem/common.h>
#include <vmem/manager.h>
#include <vmem/region.h>
VMEM_BEGIN_DECLS

typedef struct vmem_foreign vmem_foreign; /* opaque: what one process has handed over */

#define VMEM_FOREIGN_RANGES_MAX 32u

/** Options. Fields are only ever added at the end. */
struct vmem_foreign_opts {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t flags; /**< 0 */
	int32_t uffd; /**< the process's userfaultfd; duplicated, so it may be closed afterwards */
	uint32_t count; /**< ranges, 1..VMEM_FOREIGN_RANGES_MAX */
	/** One for each range, all of one VM. hva: its address in that process. Of the flags VMEM_REGION_FROM_SOURCE; besides
	 *  gpa, bytes, fault_around_pages, fault_deadline_ms, on_lost, context and read_source all is 0. */
	const struct vmem_region_opts *const *ranges;
};

/** Counters since attach, and gauges of now. */
struct vmem_foreign_metrics {
	size_t size;            /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t gone;          /**< 1: the process is known to have ended */
	uint64_t remove_events; /**< removals and unmappings by the process */
	uint64_t removed_pages; /**< pages of them that were in place, or with the source */
	uint64_t sent_back;     /**< faults that were too many at a time, and had to be repeated */
	uint64_t strays;        /**< messages about what was not handed over: left unanswered */
};

/** Serve the memory of a process from now on. All or nothing: on failure its faults are left unanswered, for
 *  another pager; but messages may have been read by then: if the process may have removed memory meanwhile,
 *  nobody is to attach the descriptor again, since what was removed would come back from its source.
 *  Who waits already for a page of it is served, too. 64 processes at a time.
 *  @param[out] ret_foreign  set only on success
 *  @return 0, -VMEM_EINVAL (bad options; no userfaultfd; nothing is mapped there), -VMEM_E2BIG, -VMEM_EEXIST
 *          (ranges overlap, by address or guest physical address; or the userfaultfd was
 *          handed over before, here or with a peer), -VMEM_ENOTSUP (max_bytes, active_samples or dirty_log are
 *          given; huge pages of hugetlbfs; shared memory, or of a file, where what is removed is not gone (found out
 *          from Linux 5.13 on); a userfaultfd with features that cannot be served: fork and remap events, SIGBUS),
 *          -VMEM_EBUSY (registered with another userfaultfd; or it removes memory without pause, so that its ranges could not
 *          be judged in the 10000 tries that a call has, or has them in more than 65536 mappings: try again when it does
 *          not, if what it has removed by then may come back from its source; nobody else is kept from anything), -VMEM_ENOSPC
 *          (processes or regions), -VMEM_ENOMEM, -VMEM_EIO
 *  @threads serial for the manager
 *  @since 1.0 */
VMEM_API int vmem_foreign_attach(vmem_foreign **ret_foreign, vmem_manager *manager,
				 const struct vmem_foreign_opts *opts) VMEM_NODISCARD;

/** The region of range @p index. @return NULL: no such range, or it was detached @threads any @since 1.0 */
VMEM_API vmem_region *vmem_foreign_region(vmem_foreign *foreign, uint32_t index);

/** Stop serving. VMEM_DETACH_RESTORE: every page that is with its source is brought first, then the process goes on by
 *  itself, and needs no pager any more. VMEM_DETACH_DISCARD: the process has ended, or is to: pages that are not in
 *  place become errors (SIGBUS), never zeros. When the process has ended either does, and nothing is asked of sources.
 *  No other call on it or its regions may run.
 *  @return 0: @p foreign is gone, and all its regions. 1: likewise, but RESTORE met pages that are lost: to touch one
 *          stays an error (SIGBUS), all others are in place; when a source misses its deadline four times in a row,
 *          all that is with it is lost. -VMEM_EINVAL. -VMEM_EIO, on a kernel without
 *          UFFDIO_POISON (6.6): RESTORE, pages are lost; DISCARD of a process that lives. All other pages are in place
 *          after RESTORE then, and what is not detached yet is served still. -VMEM_EBUSY: the kernel refused to fill its
 *          pages for a region's fault_deadline_ms, in all, and for as long as the call took besides, or, DISCARD, to make
 *          them errors, because it removes memory without pause or its cgroup has no more. What is not detached yet is
 *          served still, and nothing is lost but what DISCARD has made errors: try again, or end the process first
 *  @threads exclusive for the object, serial for the manager
 *  @since 1.0 */
VMEM_API int vmem_foreign_detach(vmem_foreign *foreign, uint32_t how);

/** Whether the process's memory is gone, asked of the kernel now. Nobody is told when a process ends: ask when
 *  its socket or pidfd says so, or from time to time.
 *  @return 1: gone, vmem_foreign_detach() ends it; 0: it lives
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_foreign_is_gone(vmem_foreign *foreign);

/** Counters. @return 0, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_foreign_get_metrics(vmem_foreign *foreign, struct vmem_foreign_metrics *metrics);

/** A file that has the bytes of a range, as the context of vmem_source_file_read(). */
struct vmem_source_file {
	int32_t fd;        /**< to be read by pread(); stays open while the region is attached */
	uint32_t reserved; /**< 0 */
	uint64_t gpa;      /**< of the region */
	uint64_t offset;   /**< in the file, of the page at gpa */
};

/** A vmem_region_opts.read_source over a file, such as the memory file of a snapshot; @p context is a struct
 *  vmem_source_file. For regions of any kind.
 *  @return 0, -VMEM_EIO (also where the file ends), -VMEM_EINVAL
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_source_file_read(void *context, uint64_t gpa, void *buffer);

VMEM_END_DECLS
#endif
