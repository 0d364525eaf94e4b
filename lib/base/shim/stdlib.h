/* SPDX-License-Identifier: BSD-2-Clause */
/* For xxhash.h without libc: what its allocating functions call. They are never called. */
#ifndef VMEMI_SHIM_STDLIB_H
#define VMEMI_SHIM_STDLIB_H
#include <stddef.h>

static inline void *malloc(size_t bytes)
{
	(void)bytes;
	return NULL;
}

static inline void free(void *memory)
{
	(void)memory;
}

#endif
