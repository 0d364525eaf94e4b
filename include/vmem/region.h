/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/region.h
 *  Guest memory that the VMM mapped and keeps owning, attached to a manager, which from then on
 *  takes cold pages out of it and brings them back when they are touched. Linux only.
 *
 *  Private anonymous memory, or with VMEM_REGION_FILE a shared mapping of a file in memory (memfd, tmpfs).
 *  Refused by name: private file mappings, other shared memory, mlocked memory, hugetlbfs (-VMEM_ENOTSUP).
 *  Attached memory gets MADV_DONTFORK (until VMEM_DETACH_RESTORE), MADV_UNMERGEABLE, MADV_DONTDUMP and
 *  (but for VMEM_REGION_HUGE) MADV_NOHUGEPAGE; the VMM must not undo them, nor call madvise(MADV_DONTNEED) or mmap() over it
 *  (vmem_region_discard() does the first). */
#ifndef VMEM_REGION_H
#define VMEM_REGION_H
#include <vmem/common.h>
#include <vmem/manager.h>
#include <vmem/page_state.h>
#include <vmem/region_metrics.h>
#include <vmem/store.h>
VMEM_BEGIN_DECLS

typedef struct vmem_region vmem_region; /* opaque */

/** How faults on a region reach the library. */
enum vmem_fault_way {
	/** A thread of the manager (or its step). For everything, KVM guests too. */
	VMEM_FAULT_THREAD = 0,
	/** The faulting thread, by SIGBUS and vmem_fault_sigbus(). Fastest, but only for memory that the
	 *  kernel never touches on the guest's behalf: not for KVM guests. With a budget, or a store with
	 *  slow loads, some other thread must work: the manager's, or one of the VMM's that steps it. */
	VMEM_FAULT_SIGBUS = 1
};

/** All asynchronous DMA into this memory (io_uring, vhost, VFIO, O_DIRECT by other threads) is pinned with
 *  vmem_region_pin(). Then scattered pages may be taken by write-protect, copy and discard, which is
 *  several times cheaper than one UFFDIO_MOVE each; without it a DMA in flight would land nowhere. On
 *  kernels without UFFDIO_MOVE (before 6.8) pages are taken out only if this is said. */
#define VMEM_REGION_DMA_PINNED (UINT64_C(1) << 0)

/** Absent pages are with the source from the beginning: see <vmem/source.h>. */
#define VMEM_REGION_FROM_SOURCE (UINT64_C(1) << 1)

/** The source goes on giving the same bytes (blocks of an image that does not change): a page that has come
 *  from it and was not written since is dropped and asked for again, and takes nothing in the store.
 *  Without this a page that has arrived is not asked for again. */
#define VMEM_REGION_SOURCE_STAYS (UINT64_C(1) << 2)

/** Take pages that are cold by the threshold (<vmem/threshold.h>: few of them come back) and save them also while
 *  the budget is not tight, slowly. It needs about five minutes to know them. Without it, memory is left to the
 *  guest while there is room. */
#define VMEM_REGION_PROACTIVE (UINT64_C(1) << 8)

/** The memory is a MAP_SHARED mapping of the file @c file_fd in memory. The budget counts the file's blocks.
 *  Needs VMEM_KERNEL_FILES; and VMEM_REGION_DMA_PINNED, or nothing is taken out: the kernel does not tell who
 *  holds a page of a file. Nobody else may change the file, and others who map it are peers (<vmem/peer.h>), or
 *  what they map is pinned (docs/requirements.md). Give it F_SEAL_SHRINK: if it shrinks, what lay behind is a SIGBUS;
 *  and F_SEAL_SEAL where peers are not trusted: one that adds F_SEAL_FUTURE_WRITE keeps every page from leaving. */
#define VMEM_REGION_FILE (UINT64_C(1) << 3)

/** Keep what is in use in huge pages of 2 MiB, where there is time: see <vmem/huge.h>. Private memory only. */
#define VMEM_REGION_HUGE (UINT64_C(1) << 12)

/** Options. Fields are only ever added at the end. */
struct vmem_region_opts {
	size_t size;        /**< sizeof(*this) as the caller compiled it */
	uint64_t flags;     /**< VMEM_REGION_*; an unknown bit is -VMEM_EINVAL */
	uint64_t gpa;       /**< guest physical address of the first byte, page-aligned */
	void *hva;          /**< where it is mapped, page-aligned (attach only) */
	uint64_t bytes;     /**< page multiple, 1 page .. 16 TiB */
	uint32_t fault_way; /**< enum vmem_fault_way */
	/** most pages brought back by one fault, power of two, 1..64; 0: 16; 1: off */
	uint32_t fault_around_pages;
	uint64_t fault_deadline_ms; /**< a load that takes longer is given up and the page poisoned;
	                                     1..86400000, 0: 10000 */
	/** NULL: a VM of its own; else a region of the same VM, of this manager */
	vmem_region *same_vm_as;

	/** A page's bytes are gone (checksum, I/O error, deadline) and it is being poisoned. Called on a path
	 *  that serves faults, with VMEM_FAULT_SIGBUS in the signal handler: it must not touch guest memory,
	 *  block or call back. May be NULL. */
	void (*on_lost)(void *context, uint64_t gpa, int error);
	void *context; /**< for on_lost, dirty_log and read_source */

	/** who may share stored pages with it: enum vmem_store_sharing of <vmem/store.h>; with
	 *  same_vm_as the same as there */
	uint32_t sharing;
	uint32_t reserved;      /**< 0 */
	uint64_t sharing_group; /**< its name, any number; 0 without VMEM_STORE_SHARE_GROUP */

	/** Which pages the guest has written since the last call: sets bit i of the bitmap for the page at
	 *  gpa + i pages, as KVM_GET_DIRTY_LOG does for a slot (or from a dirty ring). All bits are 0 before. Returns
	 *  0, or a negative error: then it counts for nothing. Called by who reclaims, about once a second, more
	 *  often when pages come and go fast. It must not touch guest memory, wait for the guest or call back. With
	 *  it, pages that are written stay, without having to be missed first. May be NULL. See <vmem/feed.h>. */
	int (*dirty_log)(void *context, uint64_t gpa, uint64_t bytes, uint64_t *bitmap);

	/** Give the bytes of a page that is with the source. @p buffer is one page, to be filled before the
	 *  call returns. May take its time: it is called by a thread that serves no other faults (see
	 *  vmem_manager_opts.source_threads), or, where the manager's threads do not run, by who steps or
	 *  waits; and by vmem_region_read(), once in each call. It must not touch guest memory, nor call
	 *  the library but for vmem_region_source_done().
	 *  0: the bytes are there. -VMEM_EINPROGRESS: vmem_region_source_done() will be called. Another error,
	 *  or none of them before fault_deadline_ms: the page is lost. A call that does not return keeps its thread.
	 *  Once none of them has returned for the deadline (at least 100 ms), and half as much again at most, pages that
	 *  wait to be asked for are lost too: what may take long had better be -VMEM_EINPROGRESS. Calls are waited for by
	 *  vmem_region_detach() and vmem_manager_thread_stop(), however long. NULL: there is no source. */
	int (*read_source)(void *context, uint64_t gpa, void *buffer);

	/** attach with VMEM_REGION_FILE: the file, O_RDWR; may be closed afterwards. Its position (lseek(2)), which all
	 *  duplicates share, is moved during attach and vmem_region_grow(), and then set back */
	int32_t file_fd;
	uint32_t reserved_file; /**< 0 */
	uint64_t file_offset;   /**< in the file, of the first byte; page-aligned */

	/** Estimate how much is in use: of so many random pages, taken out in each period, those that are touched are
	 *  counted. Up to 4096, and a 64th of what is in place; ESX takes 100. 0: no estimate. See <vmem/feed.h>. */
	uint32_t active_samples;
	uint32_t active_period_ms; /**< 100..3600000; 0: 30000 */

	/** what it may grow to by vmem_region_grow() of <vmem/grow.h>; page multiple, bytes .. 16 TiB; 0: bytes.
	 *  No other region may have these guest addresses, host addresses or parts of the file */
	uint64_t max_bytes;
};

/** Attach memory. Pages that are present are resident, others absent. The guest must not run yet.
 *  @param[out] ret_region  set only on success
 *  @return 0, -VMEM_EINVAL (unaligned, bad options; not the file that is mapped there), -VMEM_E2BIG,
 *          -VMEM_EEXIST (overlaps a region, in guest physical addresses of the VM, in host addresses or in the
 *          file), -VMEM_ENOTSUP (memory of a kind that cannot be paged; see vmem_region_why(); files on this
 *          kernel; VMEM_REGION_HUGE: see vmem_region_huge_why()), -VMEM_EBUSY (has a userfaultfd of somebody else), -VMEM_EPERM,
 *          -VMEM_ENOSPC (256 regions), -VMEM_ENOMEM, -VMEM_EIO
 *  @threads serial for the manager
 *  @since 1.0 */
VMEM_API int vmem_region_attach(vmem_region **ret_region, vmem_manager *manager,
				const struct vmem_region_opts *opts) VMEM_NODISCARD;

/** Map @p opts->bytes of private anonymous memory, or with VMEM_REGION_FILE of a new file in memory that is
 *  sealed against a change of its size, and attach it. hva, file_fd and file_offset are ignored. With max_bytes
 *  the mapping and the file are so long; what the region has not grown to has no access.
 *  @return as vmem_region_attach()
 *  @threads serial for the manager
 *  @since 1.0 */
VMEM_API int vmem_region_alloc(vmem_region **ret_region, vmem_manager *manager,
			       const struct vmem_region_opts *opts) VMEM_NODISCARD;

/** Why memory cannot be attached, in words: "mlocked memory", "private file mapping", ... or "" if it can.
 *  Shared memory is named too, although some can with VMEM_REGION_FILE.
 *  @threads any
 *  @since 1.0 */
VMEM_API const char *vmem_region_why(const void *hva, uint64_t bytes);

#define VMEM_DETACH_RESTORE 0u /**< bring every page back first; it must fit */
#define VMEM_DETACH_DISCARD \
	1u /**< the guest is gone: drop everything. Memory of vmem_region_alloc() is
                                    unmapped, attached memory is left without access (never as zeros) */

/** Detach. No thread may touch the memory, and no other call on the region may run, until it returns
 *  (with RESTORE the guest may run, if its faults come to a thread). Peers end with it: with RESTORE they find all
 *  in place, with DISCARD all they touch is an error (where the kernel has UFFDIO_POISON). Calls of read_source() are
 *  over then: one that hangs must be ended by the VMM, for this waits for it. RESTORE gives up what its source does
 *  not give before the deadline.
 *  @return 0, -VMEM_EINVAL, -VMEM_EIO (RESTORE: pages are lost; DISCARD: access could not be taken away;
 *          the region stays attached)
 *  @threads exclusive for the region, serial for the manager
 *  @since 1.0 */
VMEM_API int vmem_region_detach(vmem_region *region, uint32_t how);

/** The file of the memory, open until detach. @return the descriptor, -VMEM_ENOENT (private memory) @threads any @since 1.0 */
VMEM_API int vmem_region_file(const vmem_region *region);

/** Where the region is mapped; NULL if it is another process's (<vmem/foreign.h>). @threads any @since 1.0 */
VMEM_API void *vmem_region_hva(const vmem_region *region);

/** State of the page at @p gpa. @return enum vmem_page_state, -VMEM_ERANGE @threads any @since 1.0 */
VMEM_API int vmem_region_page_state(const vmem_region *region, uint64_t gpa);

/** Write into guest memory without faults, e.g. to load an image: whole pages, absent or stored ones too.
 *  Waits for free frames where needed. Not for pages that the guest uses at the same time.
 *  @param gpa,bytes  page-aligned
 *  @return 0, -VMEM_EINVAL, -VMEM_ERANGE, -VMEM_EIO, -VMEM_ENOSPC (the budget cannot hold it, even
 *          compressed: pages up to some point are written)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_region_write(vmem_region *region, uint64_t gpa, const void *data,
			       uint64_t bytes) VMEM_NODISCARD;

/** Read guest memory without making it resident, page by page; each page as it was at one moment, unless
 *  the guest writes to it at that moment. One that is on a swap device is read from there, and stays there.
 *  @param gpa,bytes  page-aligned
 *  @return 0, -VMEM_EINVAL, -VMEM_ERANGE, -VMEM_EIO (a poisoned page, or the source or a device failed)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_region_read(vmem_region *region, uint64_t gpa, void *data,
			      uint64_t bytes) VMEM_NODISCARD;

/** Bring pages back and hold them (DMA, emulated devices). Counted: each pin needs its unpin; 65535 a page.
 *  @param gpa,bytes  rounded outwards to pages
 *  @return 0, -VMEM_ERANGE, -VMEM_EIO (a poisoned page), -VMEM_ENOSPC (more than the budget can hold,
 *          reclaim was stuck for a second, or 65535 pins); on error nothing is pinned
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_region_pin(vmem_region *region, uint64_t gpa, uint64_t bytes) VMEM_NODISCARD;

/** Let go of them. @return 0, -VMEM_ERANGE, -VMEM_EINVAL (a page is not pinned; nothing changed) @threads any @since 1.0 */
VMEM_API int vmem_region_unpin(vmem_region *region, uint64_t gpa, uint64_t bytes);

/** Bring the page at @p gpa back, as a fault on it would: for a VMM that learns of faults by itself. Where KVM_RUN
 *  ends with KVM_EXIT_MEMORY_FAULT and the kernel fills in the address (KVM_CAP_MEMORY_FAULT_INFO), the VMM
 *  calls this with it and enters the guest again, whatever the region's fault_way; a kernel that
 *  leaves it empty does not tell which page, and then the region's own way must serve.
 *  @param write  1: for writing
 *  @return 0, -VMEM_ERANGE, -VMEM_EIO (poisoned), -VMEM_ENOSPC (reclaim was stuck for a second)
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_region_resolve(vmem_region *region, uint64_t gpa, int write) VMEM_NODISCARD;

/** Drop the contents of pages: they read as zero from then on. Pinned pages are left alone.
 *  @param gpa,bytes  rounded inwards to pages
 *  @param[out] ret_bytes  what was really released: resident, staged and stored bytes, as the budget counts them, which
 *              has pages that were only read, too; may be NULL
 *  @return 0, -VMEM_ERANGE, -VMEM_EBUSY (some pages are pinned; the others are dropped), -VMEM_EIO (the kernel kept
 *          some; poisoned ones stay so)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_region_discard(vmem_region *region, uint64_t gpa, uint64_t bytes,
				 uint64_t *ret_bytes);

/** Take resident pages out into staging now, whatever their age. Pinned pages stay.
 *  @param gpa,bytes  rounded inwards to pages
 *  @param[out] ret_pages  how many went; may be NULL
 *  @return 0, -VMEM_ERANGE, -VMEM_ENOTSUP (this kernel cannot without VMEM_REGION_DMA_PINNED), -VMEM_EBUSY
 *          (vmem_region_quiesce())
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_region_stage(vmem_region *region, uint64_t gpa, uint64_t bytes,
			       uint64_t *ret_pages);

/** vmem_region_stage() for single pages, each named by the guest physical address of its first byte, in
 *  ascending order: one batch, whichever way is cheaper.
 *  @return 0, -VMEM_ERANGE, -VMEM_EINVAL (unaligned or not ascending; nothing was done), -VMEM_ENOTSUP, -VMEM_EBUSY
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_region_stage_pages(vmem_region *region, const uint64_t *gpas, uint32_t count,
				     uint64_t *ret_pages);

/** Save staged pages into the store now.
 *  @param[out] ret_pages  how many went; may be NULL
 *  @return 0, -VMEM_ERANGE, -VMEM_ENOSPC (budget), -VMEM_ENOMEM, -VMEM_EBUSY
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_region_store(vmem_region *region, uint64_t gpa, uint64_t bytes,
			       uint64_t *ret_pages);

/** Take everything out and save it: the VM is idle. Pages that are pinned, that the kernel holds or that the store
 *  refuses stay, and so does what is touched meanwhile.
 *  @param[out] ret_left  pages of which there is more than a reference in the end; may be NULL
 *  @return 0, -VMEM_ENOTSUP (this kernel cannot without VMEM_REGION_DMA_PINNED), -VMEM_ENOSPC (the budget cannot
 *          hold more), -VMEM_ENOMEM, -VMEM_EBUSY (quiesced); what was done by then stays done
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_region_evict_all(vmem_region *region, uint64_t *ret_left);

/** Bring pages back before they are touched, many at a time: an idle VM is about to run, or a working set is known.
 *  Only what fits into free memory above the reserve. Absent pages stay absent; one whose load is slow
 *  comes in its own time, and one that is lost is left to who touches it.
 *  @param gpa,bytes  rounded outwards to pages
 *  @param[out] ret_pages  how many were brought; may be NULL
 *  @return 0, -VMEM_ERANGE, -VMEM_ENOSPC (not all fit), -VMEM_ENOMEM
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_region_fetch(vmem_region *region, uint64_t gpa, uint64_t bytes,
			       uint64_t *ret_pages);

/** Counters and gauges. @return 0, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_region_get_metrics(vmem_region *region, struct vmem_region_metrics *metrics);

/** What the store holds for the region's VM. @return 0, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_region_get_account(vmem_region *region, struct vmem_store_account *account);

VMEM_END_DECLS
#endif
