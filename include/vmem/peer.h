/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/peer.h
 *  Other processes that map the file of a region (VMEM_REGION_FILE): devices by vhost-user or virtiofs, an emulator beside the
 *  VMM. Linux only.
 *
 *  Such a process is a peer: it maps the file MAP_SHARED, makes a userfaultfd, and hands that over (SCM_RIGHTS) before
 *  it touches the memory for the first time. From then on its faults are served as those of the guest, a page that it
 *  uses counts once in the budget, and none of its writes is lost when a page leaves. A further mapping in
 *  the VMM's own process can be a peer, too.
 *
 *  The peer keeps its own descriptor of the userfaultfd open as long as it has the mapping: then it waits when the VMM
 *  dies. With the last descriptor its registration ends, and it would find zeros in pages that are away.
 *
 *  A peer does not grow with its region (<vmem/grow.h>): for the new part each process needs a peer more
 *  (same_process_as), before it or the guest touches that. A manager has room for 64 peers in all, of which each step of
 *  growing takes one for every process.
 *
 *  A range that is mapped by somebody without a userfaultfd must be pinned as long as it is mapped there
 *  (vmem_region_pin()); pinned_pages in the metrics tells how much that costs.
 *
 *  What a peer does to its own mapping, to its userfaultfd or to itself, it does to itself alone: where its faults
 *  cannot be answered it waits. It shares the guest's memory, though, and can write there what it likes. */
#ifndef VMEM_PEER_H
#define VMEM_PEER_H
#include <vmem/region.h>
VMEM_BEGIN_DECLS

typedef struct vmem_peer vmem_peer; /* opaque */

/** Options. Fields are only ever added at the end. */
struct vmem_peer_opts {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t flags; /**< 0 */
	uint64_t gpa;   /**< guest physical address of the first byte that it maps, page-aligned */
	uint64_t bytes; /**< page multiple; within the region */
	uint64_t address; /**< where that is in the peer's address space, page-aligned */
	/** The peer's, made there with userfaultfd(2); what the VMM has received may be closed afterwards. UFFDIO_API need not have been called; if it
	 *  was, without features for events, SIGBUS or asynchronous write-protection. Nobody else may read it. It is
	 *  made non-blocking. What the kernel touches for the peer (read(2) into the memory) needs one that is not
	 *  UFFD_USER_MODE_ONLY. Ignored with same_process_as. */
	int32_t userfaultfd;
	uint32_t reserved; /**< 0 */
	/** NULL, or another peer of this manager that is the same process: its userfaultfd serves this range too. Needed for
	 *  every range of a process but the first: a userfaultfd that is handed over twice is refused. */
	vmem_peer *same_process_as;
};

/** How it is with a peer. */
enum vmem_peer_state {
	VMEM_PEER_SERVED = 0,
	/** its process has ended, or has another memory (execve) */
	VMEM_PEER_ENDED = 1,
	/** its faults could not be answered, again and again (it is no mapping of the file, or no longer): they
	 *  are not looked at any more, and it waits. Pages leave as before. */
	VMEM_PEER_DROPPED = 2
};

/** Serve a mapping of a region's file in another process, or a second one here. It must not be touched before that
 *  has returned. The peer must not be inherited by a child of it (MADV_DONTFORK).
 *  @param[out] ret_peer  set only on success; ends with vmem_region_remove_peer(), or when the region is detached
 *  @return 0, -VMEM_EINVAL (bad options, private memory, no userfaultfd, no mapping of memory there,
 *          @c same_process_as is VMEM_PEER_DROPPED), -VMEM_E2BIG, -VMEM_ERANGE
 *          (not within the region), -VMEM_EEXIST (the process has another peer there; or its userfaultfd was
 *          handed over before, without @c same_process_as, or to vmem_foreign_attach()), -VMEM_EBUSY (it has another
 *          userfaultfd there), -VMEM_ENOTSUP (a userfaultfd with features that cannot be served), -VMEM_EPERM (a mapping
 *          that can never be written: its file was opened for reading), -VMEM_ENOSPC (64 peers), -VMEM_ENOMEM, -VMEM_EIO
 *  @threads serial for the manager
 *  @since 1.0 */
VMEM_API int vmem_region_add_peer(vmem_peer **ret_peer, vmem_region *region,
				  const struct vmem_peer_opts *opts) VMEM_NODISCARD;

/** Let go of a peer that has ended, or has unmapped the memory. One that goes on touching it waits for good, unless
 *  it is added again; its other ranges are served as before. If it has closed its own userfaultfd it finds zeros
 *  in pages that are away, and what it writes there is lost. What it has mapped is write-protected, which takes
 *  as long as that is large; others are served meanwhile, and reclaim goes on between pieces of 32 MiB.
 *  @return 0, -VMEM_EINVAL (NULL), -VMEM_ENOMEM (the kernel has no memory to write-protect it, such as that of the peer's own
 *          memory cgroup), -VMEM_EIO: it is a peer still, and served. It can always be removed when it
 *          has unmapped the memory, or has ended
 *  @threads serial for the manager
 *  @since 1.0 */
VMEM_API int vmem_region_remove_peer(vmem_peer *peer);

/** How it is with a peer; whether its process has ended is asked of the kernel now. Nobody is told when it does: ask when
 *  its socket or pidfd says so, or from time to time.
 *  @return enum vmem_peer_state, -VMEM_EINVAL (NULL) @threads any @since 1.0 */
VMEM_API int vmem_peer_state(const vmem_peer *peer);

VMEM_END_DECLS
#endif
