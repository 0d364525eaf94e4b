/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/discard.h
 *  Guest memory that the guest does not need: giving it back to the host, whatever it is made of, and telling what was
 *  really given back. What a balloon (<vmem/balloon.h>) hands out is carried out here:
 *
 *      while ((err = vmem_balloon_give(balloon, &buffer)) == -VMEM_EAGAIN)
 *              drain();
 *
 *  where drain() is vmem_discard_drain(discard, balloon), and then vmem_balloon_take_done() and the buffers' return.
 *  Linux only.
 *
 *  | memory                     | is given back by                          | afterwards                              |
 *  |----------------------------|-------------------------------------------|-----------------------------------------|
 *  | of a region                | vmem_region_discard(): in place, staged,  | zeros                                   |
 *  |                            | stored, on swap devices                   |                                         |
 *  | private anonymous          | MADV_DONTNEED                             | zeros                                   |
 *  | shared, of a file          | a hole in the file, and MADV_DONTNEED     | zeros, for all who map it               |
 *  | private, of a file         | MADV_DONTNEED, and other memory in its    | zeros, never what the file has          |
 *  |                            | place                                     |                                         |
 *  | huge pages of hugetlbfs    | the same, whole blocks only               | zeros                                   |
 *  | held by a device, mlocked  | not at all: it is left alone, and counted | as before                               |
 *
 *  Whoever else has a userfaultfd there is told by the kernel's REMOVE events, if he asked for them; he must read them
 *  in a thread of his own, because the call waits for that. Other memory in the place of a private mapping of a file
 *  keeps MADV_DONTFORK and MADV_DONTDUMP, and else is as new: not registered with a userfaultfd, not bound to nodes
 *  (mbind(2)), and without advice about huge pages. A VM has 8192 such holes that do not touch at most, what is more
 *  fails: each costs two mappings of the process.
 *
 *  What was really given back is what the kernel's page tables say. Before Linux 6.7 (PAGEMAP_SCAN) that includes
 *  private pages that were read and never written, of which there is nothing to be had. Of a region it is what its
 *  budget is relieved of: pages in place, among them those that were only read; pages in staging, which are freed a
 *  moment later; and what the store and its devices had, of pages in place, too. */
#ifndef VMEM_DISCARD_H
#define VMEM_DISCARD_H
#include <vmem/balloon.h>
#include <vmem/region.h>
VMEM_BEGIN_DECLS

#define VMEM_DISCARD_PIECES VMEM_BALLOON_RAMS /**< of one object */

/** The memory of a VM, in pieces. */
typedef struct vmem_discard vmem_discard; /* opaque */

/** Options. Fields are only ever added at the end. */
struct vmem_discard_opts {
	size_t size;                            /**< sizeof(*this) as the caller compiled it */
	uint64_t flags;                         /**< 0 */
	const struct vmem_allocator *allocator; /**< NULL: libc; must outlive the object */
	/** Which pages are held by a device (VFIO, vhost) or by the VMM: bit i is the page at gpa + i pages, of 64. They
	 *  are left alone. Not asked for regions, which know (vmem_region_pin()). Must not call back. NULL: none are. */
	uint64_t (*pinned)(void *context, uint64_t gpa);
	void *context; /**< for pinned */
	/** Of memory that is of no region, for vmem_discard_get_guard(): which pages were written since, as a dirty log
	 *  has it (KVM_GET_DIRTY_LOG; PAGEMAP_SCAN over asynchronous write-protection). Copied. Asked again in the call that
	 *  discards: until that returns nobody may write to a page of which it said that it is unwritten, so stop the
	 *  guest's processors, fetch the log, and then give buffers to the balloon and drain. NULL: where there is
	 *  such memory, hinting does not begin. */
	const struct vmem_balloon_guard *guard;
};

/** Make an object without memory.
 *  @param[out] ret_discard  set only on success
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_ENOMEM, -VMEM_ENOTSUP (pages are not of 4 KiB)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_discard_new(vmem_discard **ret_discard,
			      const struct vmem_discard_opts *opts) VMEM_NODISCARD;

/** Free it. The memory stays as it is. NULL is fine. @threads exclusive @since 1.0 */
VMEM_API void vmem_discard_free(vmem_discard *discard);

/** What a piece of guest memory is. */
enum vmem_discard_kind {
	VMEM_DISCARD_REGION = 1,  /**< attached to a manager */
	VMEM_DISCARD_PRIVATE = 2, /**< a private mapping without a file, at hva */
	VMEM_DISCARD_FILE = 3,    /**< a file that is mapped shared: at hva, elsewhere, or both */
	VMEM_DISCARD_IMAGE =
		4, /**< a private mapping of a file, at hva: of a snapshot, as a rule */
};

/** A piece of guest memory. Fields are only ever added at the end. */
struct vmem_discard_piece {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t gpa;   /**< of the first byte; page-aligned. Of a region: not used */
	uint64_t bytes; /**< page multiple. Of a region: not used; all of it, as it grows */
	uint32_t kind;  /**< enum vmem_discard_kind */
	int32_t fd; /**< FILE: open for writing; may be closed afterwards. Its position (lseek(2)) is moved. Else not used */
	uint64_t offset; /**< FILE: of the first byte in the file; page-aligned */
	void *hva;       /**< where it is mapped in this process; FILE: NULL, if it is not */
	vmem_region *
		region; /**< REGION: which. Must stay attached as long as the object is there. Else not used */
	uint64_t
		block_bytes; /**< of hugetlbfs: its page size, else 0 or 4 KiB. Parts of blocks are left alone */
};

/** Add memory.
 *  @return 0, -VMEM_EINVAL (unaligned, kind, not a file that can be), -VMEM_E2BIG, -VMEM_EEXIST (overlaps a piece in
 *          guest addresses), -VMEM_ENOSPC (VMEM_DISCARD_PIECES), -VMEM_ENOTSUP (memory of another process; or what is
 *          mapped at hva is not memory of that kind, of that file at that offset, not all of it is mapped),
 *          -VMEM_EBUSY (the guard watches), -VMEM_ENOMEM, -VMEM_EIO
 *  @threads serial
 *  @since 1.0 */
VMEM_API int vmem_discard_add(vmem_discard *discard,
			      const struct vmem_discard_piece *piece) VMEM_NODISCARD;

/** Carry out what a balloon handed out: DISCARD and DISCARD_REPORTED at once, DISCARD_HINTED only under the guard of
 *  vmem_discard_get_guard(), and where nothing was written; RETURN is nothing, because pages come
 *  back when they are touched, and sooner would be memory that the guest may not use. A range that cannot be
 *  discarded does not keep the others from it.
 *  @param[out] ret_bytes  what was really given back to the host; may be NULL
 *  @return 0, -VMEM_EINVAL (an operation that is not known; nothing was done), -VMEM_EBUSY (some is pinned or mlocked),
 *          -VMEM_EIO (the kernel kept some), -VMEM_ERANGE (some is not of any piece). Of several, of whatever
 *          ranges, the last of these
 *  @threads serial, and serial with the balloon
 *  @since 1.0 */
VMEM_API int vmem_discard_ranges(vmem_discard *discard, const struct vmem_balloon_range *ranges,
				 size_t count, uint64_t *ret_bytes);

/** Take all ranges that a balloon has to give, and carry them out. What it takes is bounded as the balloon's work is.
 *  @return as vmem_discard_ranges(); the balloon's buffers are done all the same
 *  @threads serial, and serial with the balloon
 *  @since 1.0 */
VMEM_API int vmem_discard_drain(vmem_discard *discard, vmem_balloon *balloon);

/** Try again what the guest gave up and could not be given back then, because it was pinned or the kernel refused:
 *  from time to time, or when something was unpinned. Only what is in the balloon at this moment is discarded: by a
 *  call VMEM_BALLOON_WORK_PAGES at most, in VMEM_BALLOON_WORK_ENTRIES ranges. A guest without MUST_TELL_HOST may use
 *  its pages again before it tells, so there nothing is tried.
 *  @return 0 (nothing is left), -VMEM_EAGAIN (something may be: call again later), -VMEM_EPERM (no MUST_TELL_HOST)
 *  @threads serial, and serial with the balloon
 *  @since 1.0 */
VMEM_API int vmem_discard_retry(vmem_discard *discard, const vmem_balloon *balloon);

/** The guard of free page hints that vmem_balloon_new() wants. Regions are watched by it: while hinting runs, the
 *  first write to each page is a fault; and what was written is never discarded, because a hinted page is claimed as
 *  a fault claims it, and only then looked at. What writes without a fault of a processor, as devices do, is not seen
 *  unless the page is held (vmem_region_pin()) from before the write until after: such devices must hold what they
 *  write to, or hinting must be off. vmem_region_dirty_mark() tells the guard, too, but after the write, and a hint
 *  may come between. For other memory it asks vmem_discard_opts.guard. Its begin returns -VMEM_ENOTSUP (there is no
 *  memory, or some is of no region and there is no guard for it; the kernel cannot protect this memory;
 *  VMEM_MANAGER_ASYNC_WP), -VMEM_EBUSY (it watches already), -VMEM_ENOMEM, -VMEM_EIO, or what begin of
 *  vmem_discard_opts.guard did; then hinting does not begin. Rounds of a migration (<vmem/snapshot.h>) may run beside it.
 *  @param[out] guard  guard->size is set before the call; good while the object is there, which must outlive the balloon
 *  @return 0, -VMEM_EINVAL (guard->size)
 *  @threads any; the guard: serial
 *  @since 1.0 */
VMEM_API int vmem_discard_get_guard(vmem_discard *discard, struct vmem_balloon_guard *guard);

/** Counters of one operation, in bytes. What is pinned, failed, written, cut and outside are parts of `asked` that do not
 *  overlap. Of the rest some may not have been there; and what was both in place and in the store is released twice. */
struct vmem_discard_counts {
	uint64_t asked; /**< to be given back */
	uint64_t
		released; /**< really given back: memory, and what the store and its devices had of it */
	uint64_t pinned;  /**< left alone: held by a device or by the VMM, or mlocked */
	uint64_t failed;  /**< left alone: the kernel refused; of an image, some may be zeros */
	uint64_t written; /**< left alone: hinted, and its block written since; or no guard */
	uint64_t cut;     /**< left alone: a part of a block of hugetlbfs */
	uint64_t outside; /**< of no piece */
};

/** Counters, since the object was made. */
struct vmem_discard_metrics {
	size_t size; /**< sizeof(*this) as the caller compiled it; set before the call */
	struct vmem_discard_counts inflated, reported, hinted;
	struct vmem_discard_counts
		retried;   /**< by vmem_discard_retry(): of what is in `inflated` */
	uint64_t returned; /**< bytes that the guest took back */
};

/** @return 0, -VMEM_EINVAL (metrics->size) @threads serial @since 1.0 */
VMEM_API int vmem_discard_get_metrics(const vmem_discard *discard,
				      struct vmem_discard_metrics *metrics);

VMEM_END_DECLS
#endif
