/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/huge.h
 *  Huge pages of private guest memory. With VMEM_REGION_HUGE a block of 2 MiB, aligned in host and in guest physical
 *  addresses, whose 512 pages are all in place and not cold is made one huge page (MADV_COLLAPSE, Linux 6.1): by who
 *  reclaims, when no faults wait and room is not short, for about 4 ms (one collapse, if that takes longer) and then
 *  not for 100 ms. A collapse copies 2 MiB, for which the budget must have room for a moment above its reserve, and
 *  the kernel lets nobody change mappings of the process meanwhile. vmem_manager_step() may take that much longer.
 *
 *  A huge page is no victim while other pages are to be had, but now and then one is split to see whether it is in
 *  use. When too few others are, the oldest are split, and their pages go like others; what comes back and is all in place again is made whole later. Whoever pins, takes, discards or
 *  write-protects a part of one splits it, and so may the kernel at any time: that costs only speed.
 *
 *  Not made whole: blocks with pinned pages; with clean ones, which are write-protected (until they are written); and
 *  while written pages are tracked (vmem_region_dirty_start()). Pages that the guest has only read, which are the kernel's one
 *  page of zeros until then, take a frame each when their block is made whole (Linux 6.7; before, such blocks are not).
 *
 *  The library gives no advice on huge pages for such memory (other memory gets MADV_NOHUGEPAGE). Where the VMM has given
 *  MADV_NOHUGEPAGE itself, or the process has PR_SET_THP_DISABLE, none is made, all else works, and
 *  vmem_region_metrics.huge_failed counts. MADV_HUGEPAGE, or "always" in
 *  /sys/kernel/mm/transparent_hugepage/enabled, lets the kernel make some by itself, of which the library does not
 *  know: of what is discarded out of one of those, the memory comes back only when the kernel runs short. */
#ifndef VMEM_HUGE_H
#define VMEM_HUGE_H
#include <vmem/region.h>
VMEM_BEGIN_DECLS

/** Why a region with these options cannot have VMEM_REGION_HUGE, in words, or "" if it can: memory in a file, a kernel
 *  without VMEM_KERNEL_COLLAPSE, VMEM_MANAGER_ASYNC_WP, or (if hva is given) host and guest addresses that differ
 *  modulo 2 MiB. vmem_region_attach() and vmem_region_alloc() are -VMEM_ENOTSUP then.
 *  @threads any
 *  @since 1.0 */
VMEM_API const char *vmem_region_huge_why(const vmem_manager *manager,
					  const struct vmem_region_opts *opts);

VMEM_END_DECLS
#endif
