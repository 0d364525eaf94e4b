/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/snapshot.h
 *  For snapshots and migration: where the pages of a region are, without touching them, and a time in
 *  which they stay there. Linux only. */
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

VMEM_END_DECLS
#endif
