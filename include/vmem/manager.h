/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/manager.h
 *  One budget of physical memory over the regions of one or more VMs, kept by a reclaim loop that
 *  works ahead of need. Linux only.
 *
 *  The budget counts guest pages that are resident, pages in staging, the segments of the pool and
 *  the library's metadata. Page tables, and KVM's own, are outside it.
 *
 *  Descriptors are opened by vmem_manager_new() and vmem_region_attach(); threads that serve faults
 *  and reclaim use only ioctl, read, write, poll, futex, madvise, process_madvise, mmap, munmap,
 *  mprotect, sched_yield and clock_gettime; for files also pread64, pwrite64 and fallocate; with peers and other
 *  processes preadv2, epoll_ctl and fcntl; with idle bits pread64 and pwrite64; with swap devices membarrier
 *  (<vmem/slots.h>) and what those use (of <vmem/device_file.h>: io_uring_enter, or pread64 and pwrite64, fallocate, and
 *  for a file with a name fstat, which is newfstatat in some libcs; of <vmem/nbd.h>: epoll_ctl, shutdown, and those of
 *  libnbd: sendto, recvfrom and close, and with TLS what its library needs); and what the allocator needs (libc's: brk).
 *  So a seccomp filter can close behind them. sched_getattr and sched_setattr, which ask for a short slice of time, are
 *  made by each thread that serves faults before vmem_manager_thread_start() returns: a filter that is
 *  installed for all threads after that may leave them out. */
#ifndef VMEM_MANAGER_H
#define VMEM_MANAGER_H
#include <vmem/allocator.h>
#include <vmem/common.h>
#include <vmem/env.h>
#include <vmem/store.h>
VMEM_BEGIN_DECLS

typedef struct vmem_manager vmem_manager; /* opaque */

/** What the manager tells the VMM. */
enum vmem_manager_event {
	/** For a tenth of a second reclaim has found nothing more to take, and the budget is used up: faults
	 *  wait until memory is discarded, unpinned or detached, or the budget grows.
	 *  a: bytes used, b: budget in bytes. */
	VMEM_MANAGER_STUCK = 1,
	/** It goes on again. a, b: as above. */
	VMEM_MANAGER_UNSTUCK = 2
};

/** Options. Fields are only ever added at the end. */
struct vmem_manager_opts {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t flags; /**< VMEM_MANAGER_*; an unknown bit is -VMEM_EINVAL */
	const struct vmem_allocator *allocator; /**< for metadata; NULL: libc */
	/** physical bytes of all regions with all that the library adds, at least 4 MiB; 0: no
	 *  limit */
	uint64_t budget_bytes;
	/** frames kept free ahead of need; 0: 1/64 of the budget, 1..64 MiB */
	uint64_t reserve_bytes;
	/** most of the budget that the second chance may hold; 0: 1/16 of the budget */
	uint64_t staging_bytes;
	uint32_t
		max_object_bytes; /**< a page that encodes to more is not stored in memory; 0: 3584 */
	/** how long the handler thread looks for the next fault before it sleeps, while faults come
	 *  faster than that; 0: 50 */
	uint32_t fault_spin_us;

	/** Called by who reclaims: the reclaim thread, or without threads a step or a call that waits for
	 *  room; one call at a time, with no lock held. It may call whatever is for any thread and does
	 *  not say "not in a callback": raise the budget, discard, read metrics. May be NULL. */
	void (*on_event)(void *context, enum vmem_manager_event event, uint64_t a, uint64_t b);
	void *context; /**< for on_event */

	/** a page that has stayed stored for so long is encoded anew, smaller, by who reclaims; see
	 *  struct vmem_store_opts. 0: 2000 */
	uint32_t cold_after_ms;
	uint32_t cold_pages_per_second; /**< most that are encoded anew; 0: no limit but the time */

	/** threads that serve faults, 1..16; 0: 1. The first is always there; each of the others sleeps
	 *  until faults come faster than those that are awake can serve them. A step of the VMM's own uses none
	 *  of them. Each takes a quarter of a MiB of the budget, those beyond the number of processors less. */
	uint32_t fault_threads;
	/** threads that save staged pages into the store while others reclaim, 1..16; 0: half as many as there
	 *  are processors that the caller may use, 1..4 */
	uint32_t save_threads;
	/** threads that call read_source() of regions; 1..16, 0: 1. They are there while the manager's threads
	 *  run and from the first region with a source on */
	uint32_t source_threads;
	uint32_t reserved; /**< 0 */
	/** most of the budget that stored pages may take in memory while swap devices take more
	 *  (<vmem/manager_device.h>), at least 2 MiB; 0: a quarter of the budget */
	uint64_t store_bytes;
};

/** Flags of a manager. */
#define VMEM_MANAGER_AS_SAVED (UINT64_C(1) << 0) /**< stored pages are never encoded anew */
/** Regions ask the kernel which of their pages were written (VMEM_FEED_ASYNC_WP of <vmem/feed.h>: asynchronous
 *  write-protection), so that those stay without having to be missed first. The price is a short fault in the
 *  kernel for each page that is written, once a period; and what needs write-protection that asks us is not to
 *  be had: no page is clean, pages leave by UFFDIO_MOVE alone, also with VMEM_REGION_DMA_PINNED,
 *  VMEM_REGION_SOURCE_STAYS does nothing, and VMEM_REGION_FILE and vmem_region_dirty_start() are
 *  -VMEM_ENOTSUP. Does nothing where the kernel has no VMEM_KERNEL_ASYNC_WP. */
#define VMEM_MANAGER_ASYNC_WP (UINT64_C(1) << 1)

/** All counters since the start, and gauges of now. */
struct vmem_manager_metrics {
	size_t size; /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t budget_bytes;
	uint64_t used_bytes;     /**< the sum of the next four */
	uint64_t resident_bytes; /**< guest pages in place */
	uint64_t staging_bytes;  /**< guest pages taken out, and copies not yet freed */
	uint64_t pool_bytes;     /**< segments */
	uint64_t metadata_bytes; /**< tables of all modules */
	uint64_t reserve_bytes;  /**< what reclaim keeps free */
	uint64_t stalls;         /**< faults that found the reserve empty */
	uint64_t stall_ns;       /**< how long they waited, summed */
	uint64_t reclaim_ns;     /**< CPU time of the reclaim loop */
	uint64_t reclaim_rounds;
	uint64_t stuck; /**< times that nothing more could be taken */
	/** measured cost of taking a page out in a run by UFFDIO_MOVE; 0: not yet */
	uint64_t run_ns_per_page;
	/** measured cost of taking a scattered page by write-protect and copy */
	uint64_t scattered_ns_per_page;
	/** VMEM_KERNEL_* that this kernel has and this process may use */
	uint64_t kernel_features;
	uint64_t save_ns;      /**< CPU time of the threads that save */
	uint64_t save_threads; /**< as many as there are, or would be */
	/** part of resident_bytes: in other processes (<vmem/foreign.h>), where nothing can be taken out */
	uint64_t foreign_bytes;
};

#define VMEM_KERNEL_MOVE (UINT64_C(1) << 0)   /**< UFFDIO_MOVE, Linux 6.8 */
#define VMEM_KERNEL_WP (UINT64_C(1) << 1)     /**< write-protect of anonymous memory, Linux 5.7 */
#define VMEM_KERNEL_POISON (UINT64_C(1) << 2) /**< UFFDIO_POISON, Linux 6.6 */
#define VMEM_KERNEL_SIGBUS (UINT64_C(1) << 3) /**< faults as SIGBUS, Linux 4.14 */
#define VMEM_KERNEL_VECTOR_DISCARD \
	(UINT64_C(1) << 4) /**< process_madvise(MADV_DONTNEED) on oneself, Linux 6.14 */
/** Faults on files in memory that are mapped already elsewhere, and write-protect of them, Linux 5.19: needed
 *  for VMEM_REGION_FILE */
#define VMEM_KERNEL_FILES (UINT64_C(1) << 6)
/** Asynchronous write-protection, PAGEMAP_SCAN and UFFDIO_MOVE, Linux 6.8; with VMEM_MANAGER_ASYNC_WP only */
#define VMEM_KERNEL_ASYNC_WP (UINT64_C(1) << 7)
/** Huge pages are made when they are asked for (MADV_COLLAPSE), Linux 6.1 */
#define VMEM_KERNEL_COLLAPSE (UINT64_C(1) << 8)
#define VMEM_KERNEL_KERNEL_FAULTS \
	(UINT64_C(1) << 5) /**< faults from inside the kernel too: needed for KVM
                                                           and for system calls on guest memory */

/** Make a manager and open its descriptors.
 *  @param[out] ret_manager  set only on success
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_ENOMEM, -VMEM_ENOTSUP (page size is not 4 KiB),
 *          -VMEM_ENODEV (kernel without userfaultfd), -VMEM_EPERM (no userfaultfd for this process: set
 *          vm.unprivileged_userfaultfd=1, give read and write permission on /dev/userfaultfd, or
 *          CAP_SYS_PTRACE), -VMEM_EIO
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_manager_new(vmem_manager **ret_manager,
			      const struct vmem_manager_opts *opts) VMEM_NODISCARD;

/** Stop the threads and free the manager. All regions must be detached.
 *  @return 0, -VMEM_EBUSY (regions are attached; nothing was freed)
 *  @threads exclusive
 *  @since 1.0 */
VMEM_API int vmem_manager_free(vmem_manager *manager);

/** Start the threads that serve faults (@ref vmem_manager_opts.fault_threads), one that reclaims, those that
 *  save (@ref vmem_manager_opts.save_threads), and, if a region has a source, those that ask it.
 *  @return 0, -VMEM_EBUSY (running), -VMEM_ENOMEM
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_manager_thread_start(vmem_manager *manager) VMEM_NODISCARD;

/** Stop them. Faults are not served from then on: whoever touches a page that is away waits.
 *  @threads serial
 *  @since 1.0 */
VMEM_API void vmem_manager_thread_stop(vmem_manager *manager);

/** A descriptor that is readable when vmem_manager_step() has something to do, for the VMM's own loop.
 *  @return the descriptor, owned by the manager
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_manager_fd(vmem_manager *manager);

/** The userfaultfds of guest memory, for a second holder: one for the regions of each enum vmem_fault_way. While
 *  any process has all of them open, whoever touches a page that is away waits (VMEM_FAULT_THREAD) or gets a
 *  SIGBUS (VMEM_FAULT_SIGBUS), whatever becomes of the manager; when the last copy of one is closed and the
 *  memory is still there, the kernel answers with zeros. So a supervisor that must not let a guest run on
 *  with zeros keeps duplicates of all (SCM_RIGHTS, or pidfd_getfd()) and, when the pager is gone, ends the
 *  guest's process or makes the pages errors (UFFDIO_POISON). A process that dies needs no holder: its memory
 *  dies with it.
 *  @param[out] fds  the first @p count of them, owned by the manager; they stay the same until it is freed
 *  @return how many there are, -VMEM_EINVAL
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_manager_descriptors(const vmem_manager *manager, int *fds, uint32_t count);

/** Serve the faults that wait, then reclaim for about @p reclaim_us. For VMMs that start no thread.
 *  @param[out] ret_next_ms  call again after this many milliseconds at the latest; may be NULL
 *  @return 1 if there is more to do now, else 0, -VMEM_EBUSY (threads are running)
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_manager_step(vmem_manager *manager, uint32_t reclaim_us, uint32_t *ret_next_ms);

/** vmem_manager_step() in a loop, until vmem_manager_stop().
 *  @return 0, -VMEM_EBUSY (threads are running), -VMEM_EIO
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_manager_run(vmem_manager *manager) VMEM_NODISCARD;

/** Make vmem_manager_run() return. Async-signal-safe.
 *  @threads any
 *  @since 1.0 */
VMEM_API void vmem_manager_stop(vmem_manager *manager);

/** Change the budget; reclaim follows in its own time.
 *  @return 0, -VMEM_EINVAL (below what is pinned and cannot shrink; nothing changed)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_manager_set_budget(vmem_manager *manager, uint64_t budget_bytes);

/** Counters and gauges. @return 0, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_manager_get_metrics(vmem_manager *manager, struct vmem_manager_metrics *metrics);

/** What the store holds for all regions. @return 0, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_manager_get_account(vmem_manager *manager, struct vmem_store_account *account);

VMEM_END_DECLS
#endif
