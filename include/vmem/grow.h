/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/grow.h
 *  More memory for a guest that runs (hot-add). A region is attached or allocated with
 *  vmem_region_opts.max_bytes, and grows in steps up to that. It does not shrink; the balloon and
 *  vmem_region_discard() give memory back.
 *
 *  Memory of vmem_region_alloc() was mapped for the maximum, without access, and the part that is new gets
 *  access. To attached memory the VMM maps the new part itself, right behind what there is; the kernel makes one
 *  mapping of both if it can, and runs of pages are not moved across the border of two. Not by mremap(): what a
 *  mapping of the region is extended by has its userfaultfd at once, without being of the region; that is
 *  -VMEM_EBUSY, and to be unmapped and mapped again. A file must be as long as that by then. To find what is in it, the
 *  position of the VMM's descriptor is moved (SEEK_DATA) and set back: as at attach, nobody may depend on it meanwhile.
 *
 *  What the library knows of each page takes address space for the maximum and memory for what there is,
 *  which is in the budget. The ages (2 bytes a page, of all pages) are copied while reclaim waits, and a word of each new
 *  page is looked at if some are there already.
 *
 *  Peers (<vmem/peer.h>) do not follow: a peer may touch the new part only when a vmem_region_add_peer() of its own for
 *  that, after the region has grown, has returned; each part needs one. A working set (<vmem/working_set.h>) that is
 *  being recorded is one of the region as it is in the end; touches of what is new are not in it. */
#ifndef VMEM_GROW_H
#define VMEM_GROW_H
#include <vmem/region.h>
VMEM_BEGIN_DECLS

/** Make the region @p new_bytes long. The new pages are absent, or with the source (VMEM_REGION_FROM_SOURCE); what is
 *  in attached memory already is resident. Faults, reclaim and all calls go on meanwhile. Who keeps something about
 *  the region (a dirty log, a bitmap) must have room for them before the call.
 *  No thread may touch the new part before the call returns.
 *  @param new_bytes  page multiple; what it is already: nothing is done
 *  @return 0, -VMEM_EINVAL (unaligned, less than now; the file is shorter, or another is mapped), -VMEM_ERANGE (above
 *          max_bytes), -VMEM_ENOTSUP (memory of a kind that cannot be paged; see vmem_region_why()), -VMEM_EBUSY
 *          (vmem_region_quiesce(); or it has a userfaultfd, of somebody else or by mremap()), -VMEM_ENOMEM,
 *          -VMEM_EIO; on error nothing has changed
 *  @threads serial for the manager, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_region_grow(vmem_region *region, uint64_t new_bytes) VMEM_NODISCARD;

VMEM_END_DECLS
#endif
