/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/source.h
 *  What the VMM knows about the bytes of pages that the guest has not got in place: that it has them itself
 *  (a snapshot, a migration stream, an image), or that nobody needs them any more. Linux only.
 *
 *  vmem_region_opts.read_source gives the bytes; VMEM_REGION_FROM_SOURCE and VMEM_REGION_SOURCE_STAYS say
 *  from when on, and whether more than once. */
#ifndef VMEM_SOURCE_H
#define VMEM_SOURCE_H
#include <vmem/region.h>
VMEM_BEGIN_DECLS

/** Say that the bytes of absent pages are with the source: who touches one waits until read_source() has
 *  given it. Other pages stay as they are. A page that is discarded is forgotten by its source.
 *  @param gpa,bytes  rounded inwards to pages
 *  @return 0, -VMEM_ERANGE, -VMEM_EINVAL (the region has no read_source)
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_region_set_source(vmem_region *region, uint64_t gpa, uint64_t bytes);

/** The same of pages, whatever they hold: that is dropped, and from then on they are with the source. For a read of a
 *  disk that the VMM does not do, because read_source() can do it when the page is touched. Before this is called
 *  read_source() must know what is going to be in them; it may be asked at once. Who touches a page meanwhile finds what it
 *  held before, or what the source has. So it need not be known where a page is, and none is lost between
 *  vmem_region_discard() and vmem_region_set_source(), where a touch would make a page of zeros.
 *  @param gpa,bytes  rounded inwards to pages
 *  @return 0, -VMEM_ERANGE, -VMEM_EINVAL (the region has no read_source), -VMEM_ENOTSUP (<vmem/foreign.h>), -VMEM_EBUSY (some
 *          pages are pinned), -VMEM_EIO (the kernel kept some). Pages that are pinned or kept hold what they held, and are not
 *          with the source: then the VMM must read them all
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_region_give_to_source(vmem_region *region, uint64_t gpa, uint64_t bytes);

/** Say that pages hold what the source would give for them: the VMM has just read those blocks into them, or has written
 *  them there. They are write-protected, and if they are not written they leave by being dropped, and take nothing in the store
 *  (VMEM_REGION_SOURCE_STAYS). Only pages in place are meant; others, pinned ones and those that somebody is at stay as
 *  they are, which costs nothing but that. Until this returns nothing else may write to them, no DMA either: the read must
 *  be over, and the guest not have been told. What is written all the same before they are protected may be
 *  lost, for the page may come back as the source has it.
 *  Before a block changes, pages that have come from it, or were said to be the same, must leave the source:
 *  vmem_region_resolve() for writing.
 *  @param gpa,bytes  rounded inwards to pages
 *  @param[out] ret_pages  how many are clean now because of this; may be NULL
 *  @return 0, -VMEM_ERANGE, -VMEM_EINVAL (no VMEM_REGION_SOURCE_STAYS), -VMEM_ENOTSUP (nothing waits for a write:
 *          VMEM_MANAGER_ASYNC_WP, a kernel without write-protection; <vmem/foreign.h>)
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_region_same_as_source(vmem_region *region, uint64_t gpa, uint64_t bytes,
					uint64_t *ret_pages);

/** The end of a read_source() that returned -VMEM_EINPROGRESS, or is about to. Where it says so (EAGAIN) it
 *  must be called again. While a region is being detached with VMEM_DETACH_DISCARD what is in progress is
 *  cancelled, and this must not be called any more.
 *  @param gpa  as in read_source()
 *  @param data  one page, any alignment, not guest memory; not looked at if there is an error
 *  @param error  0, or a negative error: the page is lost
 *  @return 0, -VMEM_EINVAL, -VMEM_ERANGE, -VMEM_ENOENT (the page is not in progress, or was given up by its
 *          deadline), -VMEM_EAGAIN (the kernel is short of memory: call again)
 *  @threads any, in read_source() too
 *  @since 1.0 */
VMEM_API int vmem_region_source_done(vmem_region *region, uint64_t gpa, const void *data,
				     int error);

/** Say that the guest is going to overwrite pages as wholes (it reads a disk into them). Those that are away
 *  (stored, or with the source) are forgotten, and so need not be brought back for that: they read as zero
 *  from now on. Those in place or in staging keep their bytes, and so do pinned and lost ones, and those
 *  that are coming back at the moment. So until it has overwritten it the guest may find in such a page what it had
 *  last written there, or zeros, and nothing else. A page that it does not overwrite after all is lost to it.
 *  @param gpa,bytes  rounded inwards to pages
 *  @param[out] ret_pages  how many were forgotten; may be NULL
 *  @return 0, -VMEM_ERANGE
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_region_will_overwrite(vmem_region *region, uint64_t gpa, uint64_t bytes,
					uint64_t *ret_pages);

VMEM_END_DECLS
#endif
