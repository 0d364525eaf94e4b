/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/device.h
 *  A swap device: aligned runs of bytes are written to it and read back, many at a time, in no order.
 *
 *  A device is a structure that says what it can and a table of functions. libvmem has some (files and block
 *  devices, memory that is mapped); whoever has another fills the structure himself: what is said here of the
 *  functions is all that is asked of them, and vmem_device_check() looks at the rest.
 *
 *      struct vmem_device_request r = { .op = VMEM_DEVICE_READ, .offset = 8192, .bytes = 4096, .data = page };
 *      int taken = device->ops->submit(device->context, &r, 1);
 *      ...
 *      int done = device->ops->complete(device->context, completions, 16);
 *
 *  - Each request that was taken is completed once: read or written as a whole, or with an error. A device goes on
 *    by itself after a short transfer or an interruption, and never tells of one.
 *  - Requests in flight are done in any order, and completed in any order, those of one submit() as well: what
 *    depends on a request is submitted after its completion. Where two that overlap are in flight together and one
 *    of them writes, the bytes are those of either.
 *  - What was written is read back, or the read fails. What was never written, or was discarded, reads as any
 *    bytes. A device need not notice bytes that it, or somebody behind its back, has changed: who reads has a
 *    checksum. But a file that has become shorter fails, and does not read as zeros.
 *  - A device may do all of its work within submit(), complete() and wait(): somebody has to call one of the last two, or
 *    to watch fd(), while requests are in flight.
 *  - submit() and complete() are called where a fault is served: they allocate nothing and do not wait for the
 *    medium. */
#ifndef VMEM_DEVICE_H
#define VMEM_DEVICE_H
#include <vmem/common.h>
VMEM_BEGIN_DECLS

#define VMEM_DEVICE_BLOCK_MAX 4096u        /**< the largest block_bytes */
#define VMEM_DEVICE_BYTES_LEAST (1u << 20) /**< the least max_bytes */
#define VMEM_DEVICE_FOREVER UINT64_MAX     /**< for wait() */

/** What is to be done. */
enum vmem_device_op {
	VMEM_DEVICE_READ = 0,
	VMEM_DEVICE_WRITE = 1,
	/** what was completed before this was submitted is on the medium when this completes; bytes 0, offset 0 */
	VMEM_DEVICE_FLUSH = 2,
	/** the bytes are of no use any more: a hole in a file; any number of blocks; data NULL. Only with
	 *  VMEM_DEVICE_CAN_DISCARD, and may still complete with -VMEM_ENOTSUP */
	VMEM_DEVICE_DISCARD = 3
};

/** One request. Never grows. */
struct vmem_device_request {
	uint64_t offset; /**< of the device, a multiple of block_bytes */
	uint64_t
		bytes; /**< a multiple of block_bytes, not 0; of reads and writes at most max_bytes */
	/** reads: filled; writes: only read. At a multiple of block_bytes, and left alone until the completion has
	 *  been handed out, or close() has returned. After an error it holds any bytes */
	void *data;
	uint64_t tag;      /**< any word, which comes back */
	uint32_t op;       /**< enum vmem_device_op */
	uint32_t reserved; /**< 0 */
};

/** What has become of a request. Never grows. */
struct vmem_device_completion {
	uint64_t tag;
	/** 0; -VMEM_EIO (the medium failed, or the bytes are no longer there), -VMEM_ENOSPC (the device, or what it is
	 *  kept on, is full: nothing else is wrong), -VMEM_ENODEV (the device is gone for good), -VMEM_ENOTSUP (discard),
	 *  -VMEM_ENOMEM (the kernel's; the request may be tried again), -VMEM_EFAULT (data), -VMEM_EPERM */
	int32_t error;
	uint32_t reserved; /**< 0 */
};

/** The functions. New ones are only ever added at the end. Those marked "may be NULL" are then not there. */
struct vmem_device_ops {
	size_t size; /**< sizeof(*this) as the device compiled it */

	/** Take requests, the first ones first; they are copied, their data is not. Does not wait for the medium.
	 *  @return how many were taken: 0 if as many are in flight as can be, then complete() first; fewer than @p count
	 *          as well if the next one is refused. Only if the first one is: -VMEM_EINVAL (not aligned, unknown op, too
	 *          long), -VMEM_ERANGE (beyond size_bytes), -VMEM_ENOTSUP (discard), -VMEM_ENODEV (the device is gone),
	 *          -VMEM_EIO
	 *  @threads any */
	int (*submit)(void *context, const struct vmem_device_request *requests, uint32_t count);

	/** Hand out completions, each of them once. Does not wait.
	 *  @return how many, 0..@p max
	 *  @threads any */
	int (*complete)(void *context, struct vmem_device_completion *completions, uint32_t max);

	/** Wait until complete() may have something, nothing is in flight, or the time is over. May return sooner. May be
	 *  NULL (nothing to wait with).
	 *  @param timeout_ns  from now; VMEM_DEVICE_FOREVER: no end
	 *  @return 0, -VMEM_EIO (waiting failed)
	 *  @threads any, several at a time */
	int (*wait)(void *context, uint64_t timeout_ns);

	/** A descriptor that can be read, as poll() means it, when complete() may have something. It is the device's:
	 *  only poll() is for others. May be NULL.
	 *  @return the descriptor, or -VMEM_ENOTSUP
	 *  @threads any */
	int (*fd)(void *context);

	/** The bytes themselves, to be read and written in place: until close(). Reading and writing them never raises
	 *  a signal. Requests see the same bytes. Called where a fault is served, as submit(). May be NULL. Only with
	 *  VMEM_DEVICE_MAPPED.
	 *  @return NULL (beyond the end, or not mapped)
	 *  @threads any */
	void *(*map)(void *context, uint64_t offset, uint64_t bytes);

	/** Say that the data of requests will often lie in this memory, which stays as it is until close(). A device
	 *  may hold all of its pages in place from now on: it counts as locked. Once for a device. May be NULL.
	 *  @return 0, or an error number, of no consequence for requests: -VMEM_ENOTSUP, -VMEM_ENOMEM (more than may be
	 *          locked), -VMEM_EEXIST (some was given before), -VMEM_EFAULT
	 *  @threads serial with itself; before requests whose data lies there, to have an effect */
	int (*register_buffers)(void *context, void *memory, uint64_t bytes);

	/** Wait until nothing is in flight, or make that so, and free the device, with the structure that has this
	 *  table. No data is touched after it. Completions that were not handed out are lost.
	 *  @threads exclusive */
	void (*close)(void *context);
};

/** What is written is still there when the process has ended: a file with a name, a block device, a server. */
#define VMEM_DEVICE_OUTLIVES (UINT32_C(1) << 0)
/** What is on the medium says nothing without a key that only this process has. */
#define VMEM_DEVICE_ENCRYPTED (UINT32_C(1) << 1)
#define VMEM_DEVICE_CAN_DISCARD (UINT32_C(1) << 2) /**< VMEM_DEVICE_DISCARD is taken */
#define VMEM_DEVICE_MAPPED (UINT32_C(1) << 3)      /**< map() gives the bytes */
/** Bytes go by a copy that the kernel keeps in its page cache, which no budget of ours counts. */
#define VMEM_DEVICE_CACHED (UINT32_C(1) << 4)

/** A device. Fields are only ever added at the end; nothing changes until close(). */
struct vmem_device {
	size_t size; /**< sizeof(*this) as the device compiled it */
	const struct vmem_device_ops *ops;
	void *context;        /**< handed to each function */
	uint64_t size_bytes;  /**< of the device, a multiple of block_bytes, not 0 */
	uint32_t block_bytes; /**< a power of two, 512..VMEM_DEVICE_BLOCK_MAX */
	uint32_t max_bytes;   /**< of a read or write; at least VMEM_DEVICE_BYTES_LEAST */
	uint32_t depth;       /**< requests in flight at most, not 0 */
	uint32_t flags;       /**< VMEM_DEVICE_*; others are 0 */
};

/** Look at a device that somebody made: whether its fields are in their ranges, and the functions there that
 *  must be. What takes a device calls it.
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG (newer than this library, and uses what is new)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_device_check(const struct vmem_device *device) VMEM_NODISCARD;

/** Look at a request as submit() must, for devices that others make.
 *  @return 0, or what submit() returns for it: -VMEM_EINVAL, -VMEM_ERANGE, -VMEM_ENOTSUP
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_device_check_request(const struct vmem_device *device,
				       const struct vmem_device_request *request) VMEM_NODISCARD;

/** Close a device: its close(). @param device  NULL: nothing
 *  @threads exclusive
 *  @since 1.0 */
VMEM_API void vmem_device_close(struct vmem_device *device);

VMEM_END_DECLS
#endif
