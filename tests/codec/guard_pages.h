/* SPDX-License-Identifier: BSD-2-Clause */
/* A page between two that may not be touched: also code without instrumentation, as in other libraries,
 * cannot leave it unseen. */
#ifndef VMEMT_GUARD_PAGES_H
#define VMEMT_GUARD_PAGES_H
#include <stdlib.h>
#include <sys/mman.h>
#include <vmem/common.h>

static inline unsigned char *vmemt_guarded_page(void)
{
	unsigned char *three =
		mmap(NULL, 3 * VMEM_PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (three == MAP_FAILED ||
	    mprotect(three + VMEM_PAGE_SIZE, VMEM_PAGE_SIZE, PROT_READ | PROT_WRITE))
		abort();
	return three + VMEM_PAGE_SIZE;
}

#endif
