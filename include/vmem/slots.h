/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/slots.h
 *  Slots of 4 KiB on swap devices: which are free, and whose the others are. Does no I/O.
 *
 *  Add the devices, give each VM or processor a cursor, and take through it: a slot is a number that names the device
 *  (VMEM_SLOT_DEVICE()) and the place there (VMEM_SLOT_NUMBER()). It is taken until it is given back, and carries one
 *  word of the caller's meanwhile, its owner, by which whoever finds the slot finds what it is for.
 *
 *  A device is cut into clusters of 512 slots. A cluster of which a slot is taken has a table, made then and
 *  given up when its last slot is: one bit and one word, the owner, for each slot. Slots are taken one by one or
 *  in runs, which lie in one cluster. A cursor has a cluster to itself: as long as there is room, taking is a plain
 *  store, and what is taken through one cursor lies side by side. Giving back is one atomic operation, and the slot is
 *  free at once, for all; the cursor of a cluster sees what has been given back there when it comes round again.
 *
 *  What a cursor has not taken of its cluster is not lost to others: when nothing else is left they stop the cursor,
 *  wherever its thread is just now. That takes vmem_env.barrier, membarrier(2) by default: a seccomp filter that
 *  closes after vmem_slots_new() must let it pass, or the environment be given without it. Then each take
 *  does an atomic operation. vmem_slots_new() tries it, and does without it where it fails.
 *
 *  Memory: 0.04 bytes for each slot of clusters without a table, 8.7 for those in clusters with one. */
#ifndef VMEM_SLOTS_H
#define VMEM_SLOTS_H
#include <vmem/allocator.h>
#include <vmem/common.h>
#include <vmem/env.h>
VMEM_BEGIN_DECLS

#define VMEM_SLOT_BYTES 4096u      /**< of a slot */
#define VMEM_SLOTS_CLUSTER 512u    /**< slots of a cluster, and most of a run */
#define VMEM_SLOTS_DEVICES 32u     /**< of one object */
#define VMEM_SLOTS_NUMBER_BITS 36u /**< a device has at most 2^36 slots, 256 TiB */
#define VMEM_SLOTS_NONE UINT64_MAX /**< no slot */

/** The device of a slot, and its number there: byte number * 4096 of the device. */
#define VMEM_SLOT_DEVICE(slot) ((uint32_t)((slot) >> VMEM_SLOTS_NUMBER_BITS))
#define VMEM_SLOT_NUMBER(slot) ((slot) & ((UINT64_C(1) << VMEM_SLOTS_NUMBER_BITS) - 1))
#define VMEM_SLOT(device, number) ((uint64_t)(device) << VMEM_SLOTS_NUMBER_BITS | (number))

typedef struct vmem_slots vmem_slots; /* opaque */

/** Where one caller takes slots next. All zero before its first use; its fields are the library's. Each take writes
 *  to it: those of different threads belong on different lines of the cache. It may be
 *  copied elsewhere between calls. Thrown away without vmem_slots_cursor_end(), it loses no slots, but its cluster's
 *  table stays; and if vmem_env.barrier fails later on, what it had of its cluster is not taken by others any more. */
struct vmem_slots_cursor {
	void *table;    /**< of the cluster that it has, or NULL */
	uint64_t first; /**< slot of that cluster */
	uint64_t bits;  /**< free ones of the 64 slots that it takes from */
	uint32_t word;  /**< which 64 of the cluster these are */
	uint32_t turn;  /**< of devices with equal priorities */
};

/** Options. Fields are only ever added at the end. */
struct vmem_slots_opts {
	size_t size;                            /**< sizeof(*this) as the caller compiled it */
	uint64_t flags;                         /**< 0; an unknown bit is -VMEM_EINVAL */
	const struct vmem_allocator *allocator; /**< NULL: libc (freestanding: -VMEM_EINVAL) */
	const struct vmem_env *env;             /**< NULL: the library's (freestanding: no locks) */
};

/** A device. Fields are only ever added at the end. */
struct vmem_slots_device {
	size_t size;        /**< sizeof(*this) as the caller compiled it */
	uint64_t flags;     /**< 0; an unknown bit is -VMEM_EINVAL */
	uint64_t count;     /**< slots, a multiple of 512, 512..2^36 */
	uint64_t max_count; /**< that it may grow to; 0: count. 8 bytes for each 2^15 */
	int32_t priority;   /**< the greater is filled first; equal ones in turn, a cluster each */
	/** runs that are freed with so many slots or more are kept for vmem_slots_discard_next();
	 *  0: none, 1..512 */
	uint32_t discard_least;
};

/** Of one device, now; while others take and free, sums are of different moments. */
struct vmem_slots_stats {
	size_t size;       /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t count;    /**< slots */
	uint64_t taken;    /**< of them, those to be discarded included */
	uint64_t discards; /**< freed, and not discarded yet */
	uint64_t tables;   /**< clusters with a table */
	uint64_t bytes;    /**< memory of all devices and the object */
};

/** Make an object without devices.
 *  @param[out] ret_slots  set only on success
 *  @param opts  NULL: all defaults
 *  @return 0, -VMEM_EINVAL (bad options), -VMEM_E2BIG, -VMEM_ENOMEM
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_slots_new(vmem_slots **ret_slots,
			    const struct vmem_slots_opts *opts) VMEM_NODISCARD;

/** Free it, whatever is taken. Cursors mean nothing any more. NULL is fine. @threads exclusive @since 1.0 */
VMEM_API void vmem_slots_free(vmem_slots *slots);

/** Add a device, all of its slots free.
 *  @param[out] ret_device  0..31, the least that is not in use
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_ENOSPC (32 devices), -VMEM_ENOMEM
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_slots_add(vmem_slots *slots, const struct vmem_slots_device *device,
			    uint32_t *ret_device) VMEM_NODISCARD;

/** Grow or shrink a device. What is cut off is not taken from from now on; it is gone once nothing there is
 *  taken: move what vmem_slots_next() finds there, free it, and call again. A greater count takes it back.
 *  @param count  slots, a multiple of 512, 0..max_count
 *  @param[out] ret_left  slots beyond that are still taken, or held by a cursor that cannot be stopped any more because
 *          vmem_env.barrier failed (vmem_slots_cursor_end() gives them back); may be NULL
 *  @return 0, -VMEM_EBUSY (some are; nothing new is taken there), -VMEM_EINVAL (device, count), -VMEM_ENOMEM
 *          (growing; nothing has changed)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_slots_resize(vmem_slots *slots, uint32_t device, uint64_t count,
			       uint64_t *ret_left);

/** Forget a device of which nothing is taken; its number may be given to another.
 *  @return 0, -VMEM_EBUSY (some slots are taken: vmem_slots_resize() to 0 first; or a cursor
 *          is there: vmem_slots_cursor_end()), -VMEM_EINVAL (device)
 *  @threads exclusive for the device: together with calls that concern others
 *  @since 1.0 */
VMEM_API int vmem_slots_remove(vmem_slots *slots, uint32_t device);

/** Take a run of slots. First from the cursor's cluster; then on the device of greatest priority that has such a run,
 *  there first in clusters of which something is taken, then in empty ones (for runs of two and more the
 *  other way round), and at last in those of other cursors. A run of @p count that is free within one cluster
 *  is found, wherever it is.
 *  @param count  1..512
 *  @param owner  any word; of all slots of the run
 *  @param[out] ret_slot  the first, set only on success
 *  @return 0, -VMEM_ENOSPC (no such run), -VMEM_EAGAIN (no such run, but there may be one
 *          after vmem_slots_discarded()), -VMEM_ENOMEM (no
 *          memory for a table), -VMEM_EINVAL (count)
 *  @threads any, serial for the cursor
 *  @since 1.0 */
VMEM_API int vmem_slots_take(vmem_slots *slots, struct vmem_slots_cursor *cursor, uint32_t count,
			     uint64_t owner, uint64_t *ret_slot) VMEM_NODISCARD;

/** As vmem_slots_take(), but not on some devices: because one has just failed, say.
 *  @param devices  bit i: not on device i
 *  @return as vmem_slots_take()
 *  @threads any, serial for the cursor
 *  @since 1.0 */
VMEM_API int vmem_slots_take_except(vmem_slots *slots, struct vmem_slots_cursor *cursor,
				    uint32_t devices, uint32_t count, uint64_t owner,
				    uint64_t *ret_slot) VMEM_NODISCARD;

/** Give slots back that were taken, whole runs or parts of them.
 *  @return 0, -VMEM_ENOENT (some of them are not taken: nothing is freed), -VMEM_EINVAL (count 0, or not in
 *          one cluster)
 *  @threads any; each slot once
 *  @since 1.0 */
VMEM_API int vmem_slots_give(vmem_slots *slots, uint64_t slot, uint32_t count);

/** Let go of the cursor's cluster; the cursor is as new. @threads any, serial for the cursor @since 1.0 */
VMEM_API void vmem_slots_cursor_end(vmem_slots *slots, struct vmem_slots_cursor *cursor);

/** Whose a taken slot is.
 *  @return 0, -VMEM_ENOENT (it is not taken)
 *  @threads any, while the slot is taken
 *  @since 1.0 */
VMEM_API int vmem_slots_owner(const vmem_slots *slots, uint64_t slot, uint64_t *ret_owner);

/** Give a taken slot another owner. @return 0, -VMEM_ENOENT (it is not taken)
 *  @threads any, while the slot is taken, serial for the slot
 *  @since 1.0 */
VMEM_API int vmem_slots_set_owner(vmem_slots *slots, uint64_t slot, uint64_t owner);

/** The first taken slot of a device, from @p slot on; those to be discarded are none.
 *  @param[out] ret_owner  may be NULL
 *  @return 0, -VMEM_ENOENT (there is no more)
 *  @threads any; one that is being taken meanwhile may have an owner of before
 *  @since 1.0 */
VMEM_API int vmem_slots_next(vmem_slots *slots, uint64_t slot, uint64_t *ret_slot,
			     uint64_t *ret_owner);

/** What the caller is to discard on its device (punch, trim) before it may be taken again: of the runs kept by
 *  discard_least, the one given back last. It is not offered again; tell vmem_slots_discarded().
 *  @return 0, -VMEM_ENOENT (there is none)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_slots_discard_next(vmem_slots *slots, uint64_t *ret_slot, uint32_t *ret_count);

/** The run has been discarded, or that has failed: its slots are free.
 *  @return as vmem_slots_give()
 *  @threads any; each run once
 *  @since 1.0 */
VMEM_API int vmem_slots_discarded(vmem_slots *slots, uint64_t slot, uint32_t count);

/** Free the tables that have been given up; they are kept for clusters to come until then, because slots are
 *  given back where no allocator may be called. @threads any @since 1.0 */
VMEM_API void vmem_slots_work(vmem_slots *slots);

/** @return 0, -VMEM_EINVAL (device; stats->size) @threads any @since 1.0 */
VMEM_API int vmem_slots_get_stats(vmem_slots *slots, uint32_t device,
				  struct vmem_slots_stats *stats);

VMEM_END_DECLS
#endif
