/* SPDX-License-Identifier: BSD-2-Clause */
/* /proc/self/pagemap: which pages were written since they were last asked for, where the range is registered
 * with a userfaultfd that protects without asking (UFFD_FEATURE_WP_ASYNC). Linux 6.7. */
#ifndef VMEMI_PAGEMAP_H
#define VMEMI_PAGEMAP_H
#include "linux/kernel/kernel.h"

/* A descriptor, or -VMEM_ENOTSUP (the kernel cannot scan), -VMEM_EIO. */
int vmemi_pagemap_open(const struct vmemi_kernel *k);

/* Sets the bits of the pages of [start, start + pages) that were written, and protects them again: bit i of
 * word j is page 64 j + i. 0, or a negative error number: what was set then is so. */
int vmemi_pagemap_take_written(const struct vmemi_kernel *k, int fd, uintptr_t start,
			       uint64_t pages, uint64_t *bitmap);

/* Bytes of [start, start + bytes) that there are of no file, in memory or swapped out. @scan: it can scan; else the
 * kernel's page of zeros counts, too. 0, -VMEM_EIO. */
int vmemi_pagemap_count(const struct vmemi_kernel *k, int fd, bool scan, uintptr_t start,
			uint64_t bytes, uint64_t *ret_bytes);

/* Whether a page is there, in memory or swapped out. Opens the file, which a filter of system calls may not let it:
 * false. */
bool vmemi_pagemap_has(const struct vmemi_kernel *k, uintptr_t page);
/* Whether the 2 MiB at @start, which are aligned, are mapped as one huge page. */
bool vmemi_pagemap_is_huge(const struct vmemi_kernel *k, int fd, uintptr_t start);
/* Whether a page is the kernel's one page of zeros. */
bool vmemi_pagemap_is_zero(const struct vmemi_kernel *k, int fd, uintptr_t page);

#endif
