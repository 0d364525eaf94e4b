/* SPDX-License-Identifier: BSD-2-Clause */
/* The end of a test of a store: it is sound, and gives back all of its memory. */
#ifndef VMEMT_STORE_CLOSE_H
#define VMEMT_STORE_CLOSE_H
#include <assert.h>
#include <stdio.h>
#include "store/store_internal.h"
#include "support/fail_alloc.h"

/* With assert(): Criterion passes a test although what comes after it has failed. */
static inline void vmemt_store_close(vmem_store *store, const struct vmemt_fail_alloc *heap)
{
	const char *wrong = vmemi_store_check(store);

	if (wrong)
		fprintf(stderr, "%s\n", wrong);
	assert(!wrong);
	vmem_store_free(store);
	assert(!heap->live_bytes);
}

#endif
