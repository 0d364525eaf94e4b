/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/crypto.h
 *  A swap device (vmem/device.h) over another one, on which nothing can be read without a key that only this process
 *  has: guest memory on a disk is a secret.
 *
 *  AES-256-XTS (IEEE 1619), by OpenSSL's libcrypto, in units of 4096 bytes; the tweak is the number of the unit on the
 *  device. The key is made when the device is opened, is written nowhere, and is wiped when the device is closed:
 *  what was written cannot be read by anybody afterwards, the library included. While the device is open, the key is in memory
 *  of libcrypto's, and so in core dumps of the process. XTS hides, it does not authenticate: who changes bytes on the
 *  medium is found out by the checksum of who reads.
 *
 *  What is written is enciphered within submit(), into memory of the device's; what was read is deciphered in place, within
 *  complete(). The caller's data is not changed.
 *
 *  A second library, libvmem-crypto, so that libvmem itself does not depend on libcrypto. */
#ifndef VMEM_CRYPTO_H
#define VMEM_CRYPTO_H
#include <vmem/allocator.h>
#include <vmem/common.h>
#include <vmem/device.h>
VMEM_BEGIN_DECLS

/** Options. Fields are only ever added at the end. */
struct vmem_crypto_opts {
	size_t size;    /**< sizeof(*this) as the caller compiled it */
	uint64_t flags; /**< 0; an unknown bit is -VMEM_EINVAL */
	/** for what is being written: a multiple of 4096, 2 MiB to 1 GiB; 0: 4 MiB. When it is used up, submit() takes no
	 *  more until some writes are completed. The largest request is half of it */
	uint64_t buffer_bytes;
	const struct vmem_allocator *allocator; /**< NULL: libc */
};

/** Open a device over another one. Its blocks are of 4096 bytes.
 *  @param[out] ret_device  set only on success; VMEM_DEVICE_ENCRYPTED, otherwise like @p inner
 *  @param inner  belongs to the new device, and is closed with it; not if this fails
 *  @param opts  NULL: all defaults
 *  @return 0, -VMEM_EINVAL (bad options or device; one of less than 4096 bytes), -VMEM_E2BIG, -VMEM_ENOMEM, -VMEM_ENOTSUP
 *          (this libcrypto has no such cipher), -VMEM_EIO (no random numbers)
 *  @threads any; exclusive for @p inner
 *  @since 1.0 */
VMEM_API int vmem_crypto_open(struct vmem_device **ret_device, struct vmem_device *inner,
			      const struct vmem_crypto_opts *opts) VMEM_NODISCARD;

VMEM_END_DECLS
#endif
