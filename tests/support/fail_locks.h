/* SPDX-License-Identifier: BSD-2-Clause */
/* An environment with pthread locks of which the n-th cannot be made, and which counts those that are there:
 * to let the making of each lock fail once in turn, until none fails any more, as fail_alloc.h does with
 * allocations. */
#ifndef VMEMT_FAIL_LOCKS_H
#define VMEMT_FAIL_LOCKS_H
#include <vmem/env.h>

struct vmemt_fail_locks {
	struct vmem_env env; /* give this to the object under test */
	long fail_after; /* this many are made and the next one is not; -1: all. Set before use. */
	long live;       /* Atomic. */
	long calls;      /* locks asked for, with those that were not made. Atomic. */
	long failed;     /* locks that were not made. Atomic. */
};

void vmemt_fail_locks_init(struct vmemt_fail_locks *f);

#endif
