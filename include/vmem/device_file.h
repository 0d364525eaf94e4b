/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/device_file.h
 *  A swap device (vmem/device.h) on a file or a block device. Linux only.
 *
 *  The path of a folder is enough: a file without a name is made there, which is gone with the process, even if it
 *  is killed. A file with a name, or a block device, is overwritten without being asked for, and still there
 *  afterwards.
 *
 *  Requests go through io_uring, past the page cache (O_DIRECT) where the file system and the device allow that.
 *  Where io_uring is refused (seccomp, kernel.io_uring_disabled, Linux before 5.6), a few threads of the library's
 *  read and write. Neither submit() nor complete() waits for the medium.
 *
 *  Memory that a file system offers can be mapped instead (VMEM_DEVICE_FILE_MAPPED).
 *
 *  Discarded runs become holes. Reading past the end of a file that somebody has truncated is -VMEM_EIO, and from then
 *  on every request beyond the place where it once ended is: what was there is gone, even if the file has grown
 *  again. (Between the truncation and the next submit() a write may hide it: who reads has a checksum.)
 *
 *  Requests that a thread has in flight are carried on when it ends. A process made by fork() must not use the
 *  device. */
#ifndef VMEM_DEVICE_FILE_H
#define VMEM_DEVICE_FILE_H
#include <vmem/allocator.h>
#include <vmem/common.h>
#include <vmem/device.h>
VMEM_BEGIN_DECLS

/** Make the file if it is not there, readable for its owner only. */
#define VMEM_DEVICE_FILE_CREATE (UINT64_C(1) << 0)
/** Take all of the space now: no write fails for want of it later, and discarding is not supported. */
#define VMEM_DEVICE_FILE_PREALLOCATE (UINT64_C(1) << 1)
/** Through the page cache, whatever is possible. */
#define VMEM_DEVICE_FILE_CACHED (UINT64_C(1) << 2)
/** By threads, whatever is possible. */
#define VMEM_DEVICE_FILE_THREADS (UINT64_C(1) << 3)

/** Mapped, for persistent memory (DAX) and files in memory (tmpfs, memfd); anything else is -VMEM_ENOTSUP. Requests are
 *  copies, done by submit(); map() gives the bytes themselves. All of the space is taken now, and only files are taken that nobody else
 *  can truncate, because touching what is not there would end the process: one without a name (the path of a folder), or a
 *  memfd that is sealed against shrinking, or can be (MFD_ALLOW_SEALING). */
#define VMEM_DEVICE_FILE_MAPPED (UINT64_C(1) << 4)

/** Options. Fields are only ever added at the end. */
struct vmem_device_file_opts {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t flags; /**< VMEM_DEVICE_FILE_*; an unknown bit is -VMEM_EINVAL */
	/** of the device, a multiple of 4096: a file that is shorter grows, with a hole; of one that is longer the rest
	 *  is left alone. 0: all that the file or the block device has */
	uint64_t size_bytes;
	uint32_t depth;                         /**< requests in flight at most, 1..4096; 0: 128 */
	uint32_t threads;                       /**< where io_uring is refused, 1..64; 0: 4 */
	const struct vmem_allocator *allocator; /**< NULL: libc */
};

/** How a device works. */
struct vmem_device_file_info {
	size_t size; /**< sizeof(*this) as the caller compiled it; set before the call */
	/** why io_uring is not used: an error number of the kernel's, negated; 0: it is, or need not be */
	int32_t ring_error;
	uint32_t threads; /**< of the library's; 0: io_uring */
};

/** Open a device.
 *  @param[out] ret_device  set only on success; to be closed with vmem_device_close()
 *  @param path  of a folder (opts->size_bytes is needed), a file (locked, as flock(2) does) or a block device (not if
 *               it is mounted)
 *  @param opts  NULL: all defaults
 *  @return 0, -VMEM_EINVAL (bad options, no size), -VMEM_E2BIG, -VMEM_ENOENT, -VMEM_EPERM, -VMEM_EBUSY (somebody
 *          else has it), -VMEM_ERANGE (a block device that is smaller), -VMEM_ENOSPC, -VMEM_ENOTSUP (neither
 *          a folder, a file, nor a block device; blocks of more than 4096 bytes; space that cannot be taken now),
 *          -VMEM_ENOMEM, -VMEM_EIO
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_device_file_open(struct vmem_device **ret_device, const char *path,
				   const struct vmem_device_file_opts *opts) VMEM_NODISCARD;

/** The same for a file or block device that is open for reading and writing, or a memfd. It is duplicated, not locked,
 *  and goes past the page cache if it was opened so.
 *  @return as vmem_device_file_open()
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_device_file_adopt(struct vmem_device **ret_device, int fd,
				    const struct vmem_device_file_opts *opts) VMEM_NODISCARD;

/** @param device  of one of the two functions above
 *  @return 0, -VMEM_EINVAL (another kind of device; info->size)
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_device_file_get_info(const struct vmem_device *device,
				       struct vmem_device_file_info *info);

VMEM_END_DECLS
#endif
