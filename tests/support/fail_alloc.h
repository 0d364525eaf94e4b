/* SPDX-License-Identifier: BSD-2-Clause */
/* An allocator whose n-th call fails, and which counts what is out: to let each allocation of an
 * operation fail once in turn, until none fails any more, and to see that nothing leaks:
 *
 *	for (long n = 0;; n++) {
 *		vmemt_fail_alloc_init(&a);
 *		a.fail_after = n;
 *		... the operation; it works, or fails and leaves nothing behind
 *		if (!a.failed)
 *			break;
 *	}
 *
 * Memory comes filled with 0xa5 and is filled with 0x5a when it goes. Freeing with another size or
 * alignment than was asked for ends the program. */
#ifndef VMEMT_FAIL_ALLOC_H
#define VMEMT_FAIL_ALLOC_H
#include <vmem/allocator.h>

struct vmemt_fail_alloc {
	struct vmem_allocator allocator; /* give this to the object under test */
	long fail_after; /* this many calls succeed and the next one fails; -1: none. Set before use. */
	long live_bytes; /* bytes that are out. Atomic. */
	long calls;      /* allocations asked for, with those that failed. Atomic. */
	long failed;     /* allocations that failed. Atomic. */
};

void vmemt_fail_alloc_init(struct vmemt_fail_alloc *a);

#endif
