/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/store_device.h
 *  Devices of a store: where pages go that have been stored longest, when memory for them is short.
 *
 *  The pool's segments of 256 KiB leave as wholes, the oldest of a VM first, still compressed, in one write each.
 *  With a budget they do so ahead of need, in vmem_store_work(); without one, as vmem_store_write_out() asks for.
 *  References do not change. A page whose segment is out is loaded with a token: vmem_store_load() returns
 *  -VMEM_EINPROGRESS, or without a token -VMEM_EAGAIN. Its checksum has stayed in memory: bytes that are not
 *  what was written are -VMEM_EIO, and never a page; but first they are read again, twice, and so is what could not be
 *  read; what could not for want of memory (-VMEM_ENOMEM of the device), until its timeout_ms is over. Drops need no device. What is out counts as pages of its VM, and
 *  not as bytes of its account nor to its cap; 16 bytes of each page stay in memory.
 *
 *  A page that encodes to more than max_object_bytes is taken too, if a device has room: as it is, into a segment that leaves
 *  as soon as it is full, before all others. While four such segments wait to be written, there is -VMEM_ENOSPC for
 *  others; with no device that has room, -VMEM_EFBIG.
 *
 *  A read brings whole blocks, and with them pages that were stored next to the one that is loaded. After the end of
 *  a load, though not of a peek, up to eight of them are offered to the VM (VMEM_STORE_OFFER, with the key that they were
 *  saved by), unless half of the queue of events is in use: while they stay in the window that has read them, a load
 *  returns 0 at once, even without a token. An offer is a hint, and can be ignored: the page may have been dropped, or
 *  saved by another key since. For that each page that is saved from the first device on takes 8 bytes more, in a group
 *  12; those from before are loaded like others, and never offered.
 *
 *  What is on a device that is mapped (VMEM_DEVICE_MAPPED) is decoded where it lies: such a load returns 0 at once, with or
 *  without a token, unless very many run at once or the bytes are wrong there; then it goes on as from other devices.
 *  It offers nothing. */
#ifndef VMEM_STORE_DEVICE_H
#define VMEM_STORE_DEVICE_H
#include <vmem/common.h>
#include <vmem/device.h>
#include <vmem/store.h>
VMEM_BEGIN_DECLS

#define VMEM_STORE_DEVICES 32u /**< of a store at a time */

/** Pages may be read from the device by who has it when the process has ended. */
#define VMEM_STORE_DEVICE_PLAIN (UINT64_C(1) << 0)

/** Options of a device. Fields are only ever added at the end. */
struct vmem_store_device_opts {
	size_t size;       /**< sizeof(*this) as the caller compiled it */
	uint64_t flags;    /**< VMEM_STORE_DEVICE_*; an unknown bit is -VMEM_EINVAL */
	int32_t priority;  /**< the greater is filled first */
	uint32_t reserved; /**< 0 */
	/** most bytes that are written in a day of vmem_store_work()'s clock, those of failed writes included; 0: no
	 *  limit. Then it takes no more until the next day, and is read as before */
	uint64_t wear_bytes_per_day;
	/** most that it may take to answer, by vmem_store_work()'s clock; 0: 30000. Of what takes longer, a load ends with
	 *  -VMEM_EIO, as others from there do at once until the device answers anything, or has nothing in flight; after a
	 *  write it is_bad, and the segment stays in memory */
	uint32_t timeout_ms;
	uint32_t reserved2; /**< 0 */
};

/** Of one device. */
struct vmem_store_device_stats {
	size_t size;            /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t size_bytes;    /**< of it, in whole 2 MiB */
	uint64_t taken_bytes;   /**< of segments that are there, or on their way */
	uint64_t written_bytes; /**< since the start, as the next ones */
	uint64_t read_bytes;
	uint64_t write_errors;
	uint64_t read_errors;     /**< those that were made again, too */
	uint64_t wear_left_bytes; /**< today; UINT64_MAX: no limit */
	/** 1: no more is written there: writes have failed with -VMEM_EIO or -VMEM_EPERM four times in a row, or
	 *  one with -VMEM_ENODEV, or one was not answered in time */
	uint32_t is_bad;
	uint32_t is_worn; /**< 1: the limit of today is reached */
	uint32_t
		is_leaving; /**< 1: vmem_store_remove_device() was called, and it is not empty yet */
	uint32_t reserved;  /**< 0 */
	/** of segments that should have moved elsewhere, and could not be read: vmem_store_abandon_device(). They are
	 *  tried again each second */
	uint64_t unreadable_bytes;
	/** 1: a write found no space (-VMEM_ENOSPC), whatever size_bytes is. No more is written there until something is
	 *  given back, or for a second of vmem_store_work()'s clock */
	uint32_t is_full;
	uint32_t reserved2; /**< 0 */
};

/** Of all that is out. */
struct vmem_store_out_stats {
	size_t size;         /**< sizeof(*this) as the caller compiled it; set before the call */
	uint64_t segments;   /**< that are out now */
	uint64_t live_bytes; /**< of pages in them */
	uint64_t writing;    /**< segments that are being written now */
	uint64_t loads;      /**< that were read from a device, since the start, as the next ones */
	uint64_t lost;       /**< of them those that failed: read errors and bad checksums */
	uint64_t
		saves_waited; /**< refused for the budget while segments were being written: the device
	                               is slower than what comes */
	uint64_t no_room;     /**< times that no device had room for a segment, or may be written */
	uint64_t warm_loads; /**< at once, from what was read with another page; not in loads */
	uint64_t offers;     /**< VMEM_STORE_OFFER events, and those that found the queue full */
	uint64_t
		moved; /**< segments, from a device that leaves to another one; since the start, as the next ones */
	uint64_t came_home; /**< segments, from a device into memory */
	uint64_t given_up;  /**< segments, with the device that they could not be read from */
	uint64_t
		passed; /**< pages over max_object_bytes, which were taken to go straight to a device */
	uint64_t
		packed; /**< segments on full devices, written anew without what was dead, so that others have room */
};

/** Give a store a device, which is the store's from then on: vmem_store_free() closes it.
 *  @param device  in memory that it frees itself in close(); at least 2 MiB
 *  @param opts  NULL: all defaults
 *  @param[out] ret_device  its number; may be NULL
 *  @return 0, or the device is still the caller's: -VMEM_EINVAL (opts, vmem_device_check(), too small), -VMEM_E2BIG,
 *          -VMEM_EPERM (VMEM_DEVICE_OUTLIVES without VMEM_DEVICE_ENCRYPTED or VMEM_STORE_DEVICE_PLAIN),
 *          -VMEM_ENOSPC (32 devices), -VMEM_ENOMEM
 *  @threads serial with itself, vmem_store_remove_device() and vmem_store_work(), together with any other call
 *  @since 1.0 */
VMEM_API int vmem_store_add_device(vmem_store *store, struct vmem_device *device,
				   const struct vmem_store_device_opts *opts,
				   uint32_t *ret_device) VMEM_NODISCARD;

/** Take a device away again. From the first call on nothing new is written to it, and vmem_store_work() empties it:
 *  what is there is read, in whole segments, and written to other devices, or stays in memory where those have no room
 *  and the budget has. Pages are loaded meanwhile as ever, and their references do not change. What a device reads
 *  wrong without an error moves as it is, and is found by the load. Call again until it is
 *  not -VMEM_EBUSY: with 0 the device has been closed, and its number is not used again. It may never be 0: if there
 *  is no room elsewhere (no_room grows), or if what is there cannot be read (unreadable_bytes).
 *  @return 0, -VMEM_EBUSY (something is there, or under way, or another thread waits for it), -VMEM_ENOENT
 *  @threads serial with itself, vmem_store_add_device() and vmem_store_work(), together with any other call
 *  @since 1.0 */
VMEM_API int vmem_store_remove_device(vmem_store *store, uint32_t device) VMEM_NODISCARD;

/** As vmem_store_remove_device(), but what cannot be read, three times in a row, is given up: for a device that is
 *  broken. Of one that does not answer (timeout_ms) nothing else is read until it does. Loads of pages that are lost with it are -VMEM_EIO until they are dropped, as of deltas that need them; a page
 *  that is saved again is stored anew. What can be read is moved first, and needs room elsewhere as there.
 *  @return as vmem_store_remove_device()
 *  @threads as vmem_store_remove_device()
 *  @since 1.0 */
VMEM_API int vmem_store_abandon_device(vmem_store *store, uint32_t device) VMEM_NODISCARD;

/** Ask that about so many bytes of segments leave memory, besides what the budget needs; vmem_store_work() writes
 *  them. Of several calls the last one counts. @threads any @since 1.0 */
VMEM_API void vmem_store_write_out(vmem_store *store, uint64_t bytes);

/** Wait until vmem_store_poll() may have something of a device, or the time is over; may return sooner. For who
 *  waits for a token and has nothing else to do. @threads any @since 1.0 */
VMEM_API void vmem_store_wait(vmem_store *store, uint64_t timeout_ns);

/** Counters of one device. @return 0, -VMEM_ENOENT, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_store_get_device_stats(vmem_store *store, uint32_t device,
					 struct vmem_store_device_stats *stats);

/** Counters of all. @return 0, -VMEM_EINVAL @threads any @since 1.0 */
VMEM_API int vmem_store_get_out_stats(vmem_store *store, struct vmem_store_out_stats *stats);

VMEM_END_DECLS
#endif
