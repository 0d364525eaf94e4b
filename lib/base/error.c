/* SPDX-License-Identifier: BSD-2-Clause */
/* Error numbers in words, and the version. */
#include <vmem/common.h>

const char *vmem_strerror(int error)
{
	switch (error < 0 ? 0u - (unsigned)error : (unsigned)error) {
	case 0: return "success";
	case VMEM_EPERM: return "not permitted";
	case VMEM_ENOENT: return "no such object";
	case VMEM_EIO: return "the device or kernel could not do it";
	case VMEM_E2BIG: return "options newer than the library";
	case VMEM_EAGAIN: return "not now, call again";
	case VMEM_ENOMEM: return "out of memory";
	case VMEM_EFAULT: return "bad address";
	case VMEM_EBUSY: return "in use";
	case VMEM_EEXIST: return "exists already or overlaps";
	case VMEM_ENODEV: return "no such facility on this machine";
	case VMEM_EINVAL: return "invalid argument";
	case VMEM_EFBIG: return "does not compress below the threshold";
	case VMEM_ENOSPC: return "budget used up";
	case VMEM_ERANGE: return "out of range";
	case VMEM_EBADMSG: return "stored bytes do not match their checksum";
	case VMEM_ENOTSUP: return "not supported";
	case VMEM_EINPROGRESS: return "in progress";
	default: return "unknown error";
	}
}

uint32_t vmem_version(void)
{
	return VMEM_VERSION_MAJOR << 16 | VMEM_VERSION_MINOR << 8 | VMEM_VERSION_PATCH;
}
