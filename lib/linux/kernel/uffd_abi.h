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

#define VMEMI_UFFD_FEATURE_WP (UINT64_C(1) << 0)           /* PAGEFAULT_FLAG_WP, 5.7 */
#define VMEMI_UFFD_FEATURE_EVENTS UINT64_C(0x4e)           /* of fork, remap, remove, unmap */
#define VMEMI_UFFD_FEATURE_SIGBUS (UINT64_C(1) << 7)       /* 4.14 */
#define VMEMI_UFFD_FEATURE_MINOR_SHMEM (UINT64_C(1) << 10) /* 5.14 */
#define VMEMI_UFFD_FEATURE_WP_SHMEM (UINT64_C(1) << 12)    /* WP_HUGETLBFS_SHMEM, 5.19 */
#define VMEMI_UFFD_FEATURE_POISON (UINT64_C(1) << 14)      /* 6.6 */
#define VMEMI_UFFD_FEATURE_WP_ASYNC (UINT64_C(1) << 15)    /* 6.7 */
#define VMEMI_UFFD_FEATURE_MOVE (UINT64_C(1) << 16)        /* 6.8 */

#ifndef UFFDIO_REGISTER_MODE_MINOR /* 5.13 */
#define UFFDIO_REGISTER_MODE_MINOR (UINT64_C(1) << 2)
#endif
#ifndef UFFD_PAGEFAULT_FLAG_MINOR /* 5.13 */
#define UFFD_PAGEFAULT_FLAG_MINOR (1 << 2)
#endif

struct vmemi_uffdio_continue {
	struct uffdio_range range;
	uint64_t mode;
	int64_t mapped; /* bytes mapped, or a negative error number */
};

#define VMEMI_UFFDIO_CONTINUE _IOWR(UFFDIO, 0x07, struct vmemi_uffdio_continue)
#define VMEMI_CONTINUE_DONTWAKE (UINT64_C(1) << 0)
#define VMEMI_CONTINUE_WP (UINT64_C(1) << 1) /* 6.4 */

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

#define VMEMI_F_DUPFD_QUERY 1027 /* whether two descriptors are one file, 6.10 */

/* linux/fs.h, 6.7 */
struct vmemi_page_region {
	uint64_t start, end;
	uint64_t categories;
};

struct vmemi_pm_scan {
	uint64_t size;
	uint64_t flags;
	uint64_t start, end;
	uint64_t walk_end; /* how far it came */
	uint64_t vec;      /* struct vmemi_page_region[vec_len] */
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask;
	uint64_t return_mask;
};

#define VMEMI_PAGEMAP_SCAN _IOWR('f', 16, struct vmemi_pm_scan)
#define VMEMI_PM_SCAN_WP_MATCHING (UINT64_C(1) << 0)
#define VMEMI_PM_SCAN_CHECK_WPASYNC (UINT64_C(1) << 1)
#define VMEMI_PAGE_IS_WRITTEN (UINT64_C(1) << 1)
#define VMEMI_PAGE_IS_FILE (UINT64_C(1) << 2)
#define VMEMI_PAGE_IS_PRESENT (UINT64_C(1) << 3)
#define VMEMI_PAGE_IS_SWAPPED (UINT64_C(1) << 4)
#define VMEMI_PAGE_IS_PFNZERO (UINT64_C(1) << 5)
#define VMEMI_PAGE_IS_HUGE (UINT64_C(1) << 6)

#define VMEMI_UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct vmemi_uffdio_move)
#define VMEMI_UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct vmemi_uffdio_poison)

#endif
