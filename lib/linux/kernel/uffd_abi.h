/* SPDX-License-Identifier: BSD-2-Clause */
/* The parts of Linux's user ABI that distributions' headers may be too old for: numbers and layouts
 * of linux/userfaultfd.h up to 6.8, and advice values. What the running kernel knows is probed. */
#ifndef VMEMI_UFFD_ABI_H
#define VMEMI_UFFD_ABI_H
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <sys/ioctl.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define VMEMI_UFFD_FEATURE_WP (UINT64_C(1) << 0)      /* PAGEFAULT_FLAG_WP, 5.7 */
#define VMEMI_UFFD_FEATURE_SIGBUS (UINT64_C(1) << 7)  /* 4.14 */
#define VMEMI_UFFD_FEATURE_POISON (UINT64_C(1) << 14) /* 6.6 */
#define VMEMI_UFFD_FEATURE_MOVE (UINT64_C(1) << 16)   /* 6.8 */

struct vmemi_uffdio_poison {
	struct uffdio_range range;
	uint64_t mode;
	int64_t updated;
};

struct vmemi_uffdio_move {
	uint64_t dst;
	uint64_t src;
	uint64_t len;
	uint64_t mode;
	int64_t move; /* bytes moved, or a negative error number */
};

#define VMEMI_UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct vmemi_uffdio_move)
#define VMEMI_UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct vmemi_uffdio_poison)

#endif
