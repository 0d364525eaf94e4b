/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/manager_device.h
 *  Swap devices of a manager: where stored pages go that have been stored longest. Linux only.
 *
 *  The devices are those of the manager's store (<vmem/store_device.h>): segments of 256 KiB leave as wholes, still
 *  compressed, ahead of need. Stored pages then take a share of the budget (@ref vmem_manager_opts.store_bytes); where no
 *  device can take more they may take all of it again. A fault on a page that is out is a load: who touches it waits,
 *  and nobody else; one that fails, or takes longer than the region's fault_deadline_ms, is lost (on_lost), and the
 *  page poisoned. A page that was only read since leaves by being dropped, and is not written again.
 *
 *  A manager is stuck (VMEM_MANAGER_STUCK) only when no device is writing, either, or none has finished a write for a
 *  second. What a device waits with, its fd() or, once a millisecond, complete(), belongs to the threads of the manager,
 *  or to vmem_manager_step(): then vmem_manager_fd() is readable when a device that has an fd() may have something. */
#ifndef VMEM_MANAGER_DEVICE_H
#define VMEM_MANAGER_DEVICE_H
#include <vmem/common.h>
#include <vmem/device.h>
#include <vmem/manager.h>
#include <vmem/store_device.h>
VMEM_BEGIN_DECLS

/** Give a manager a device, which is the manager's from then on: vmem_manager_free() closes it, when what is in
 *  flight there has ended. At any time, whether threads run or not, but not in a callback.
 *
 *  The first one takes about 0.9 MiB of the budget for good; all of them together 256 KiB more for each sparse segment that is being
 *  written at a time: one to four were seen, eight is the most. With less than about 5 MiB, and what regions need for their
 *  metadata, a guest could not go on: then the first one is refused.
 *  @param device  in memory that it frees itself in close(); at least 2 MiB
 *  @param opts  NULL: all defaults
 *  @param[out] ret_device  its number; may be NULL
 *  @return as vmem_store_add_device(); -VMEM_EINVAL also for @p manager NULL, -VMEM_ENOSPC also for a budget that is too small
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_manager_add_device(vmem_manager *manager, struct vmem_device *device,
				     const struct vmem_store_device_opts *opts,
				     uint32_t *ret_device) VMEM_NODISCARD;

/** Take a device away again: as vmem_store_remove_device(), at any time. Reclaim, or vmem_manager_step(), empties it;
 *  so do the calls, each a little. Pages on it are served meanwhile. The last call waits for the device's close(), which
 *  holds up nobody else, however long it takes.
 *  @return 0 (it has been closed), -VMEM_EBUSY (call again), -VMEM_ENOENT, -VMEM_EINVAL
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_manager_remove_device(vmem_manager *manager, uint32_t device) VMEM_NODISCARD;

/** Take a broken device away: as vmem_store_abandon_device(). Pages that are lost with it are poisoned when they are
 *  touched.
 *  @return as vmem_manager_remove_device()
 *  @threads any, but not in a callback
 *  @since 1.0 */
VMEM_API int vmem_manager_abandon_device(vmem_manager *manager, uint32_t device) VMEM_NODISCARD;

/** Counters of one device: what was written and read, errors, what is left of the day's writes.
 *  @return 0, -VMEM_ENOENT, -VMEM_EINVAL
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_manager_get_device_stats(vmem_manager *manager, uint32_t device,
					   struct vmem_store_device_stats *stats);

/** Counters of all devices: what is out, loads, losses, and how often saves had to wait for a device. All 0
 *  without one.
 *  @return 0, -VMEM_EINVAL
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_manager_get_out_stats(vmem_manager *manager, struct vmem_store_out_stats *stats);

VMEM_END_DECLS
#endif
