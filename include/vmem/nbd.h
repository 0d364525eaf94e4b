/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/nbd.h
 *  A swap device (vmem/device.h) on a server that speaks the NBD protocol: nbdkit, qemu-nbd, a clustered store behind
 *  either of them. Through libnbd, over one connection.
 *
 *  A server that goes away, or breaks off the connection, ends the device: what is in flight is -VMEM_ENODEV, and so is
 *  everything afterwards. A server that says nothing more is given up after a time (timeout_ms), which is looked at in
 *  complete() and wait(). Who only watches fd() calls complete() now and then as well.
 *
 *  Closing waits for what is in flight, but not longer than about a second.
 *  libnbd allocates a little for each request.
 *
 *  A second library, libvmem-nbd, so that libvmem itself does not depend on libnbd. */
#ifndef VMEM_NBD_H
#define VMEM_NBD_H
#include <vmem/allocator.h>
#include <vmem/common.h>
#include <vmem/device.h>
VMEM_BEGIN_DECLS

/** Options. Fields are only ever added at the end. */
struct vmem_nbd_opts {
	size_t size;                            /**< sizeof(*this) as the caller compiled it */
	uint64_t flags;                         /**< 0; an unknown bit is -VMEM_EINVAL */
	uint64_t timeout_ms;                    /**< for a request; 0: 30,000; UINT64_MAX: no end */
	uint32_t depth;                         /**< requests in flight at most, 1..1024; 0: 64 */
	uint32_t reserved;                      /**< 0 */
	const struct vmem_allocator *allocator; /**< NULL: libc */
	/** of the device at most, a multiple of 4096: what the server has beyond is not used. 0: 1 TiB. Who uses a device
	 *  keeps account of it (a store with 8 MiB for each TiB), whether it is there or only claimed */
	uint64_t size_bytes;
};

/** Connect to a server. Waits for it, for as long as it takes.
 *  @param[out] ret_device  set only on success; VMEM_DEVICE_OUTLIVES
 *  @param uri  nbd://host/export, nbd+unix:///export?socket=PATH, nbds://... as in nbd_connect_uri(3)
 *  @param opts  NULL: all defaults
 *  @return 0, -VMEM_EINVAL, -VMEM_E2BIG, -VMEM_ENODEV (no connection), -VMEM_EPERM (it may only be read), -VMEM_ENOTSUP
 *          (its blocks are larger than 4096 bytes, its requests smaller than 1 MiB), -VMEM_ENOMEM, -VMEM_EIO
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_nbd_open(struct vmem_device **ret_device, const char *uri,
			   const struct vmem_nbd_opts *opts) VMEM_NODISCARD;

VMEM_END_DECLS
#endif
