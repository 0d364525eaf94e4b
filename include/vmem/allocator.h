/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/allocator.h
 *  Where an object takes its memory from. Given in options and copied from there; what its context
 *  points to must outlive every object made with it. */
#ifndef VMEM_ALLOCATOR_H
#define VMEM_ALLOCATOR_H
#include <vmem/common.h>
VMEM_BEGIN_DECLS

/** An allocator. Fields are only ever added at the end. The hosted library takes libc's where options have NULL; the freestanding
 *  one has no default and returns -VMEM_EINVAL.
 *  Both functions are called from any thread, never on a path that serves a fault. */
struct vmem_allocator {
	size_t size;   /**< sizeof(*this) as the caller compiled it */
	void *context; /**< handed to both functions */

	/** @p bytes (> 0) of memory aligned to @p align (a power of two), or NULL. Need not be zeroed. */
	void *(*alloc)(void *context, size_t bytes, size_t align);

	/** Takes back what alloc gave, with the same @p bytes and @p align. Never called with NULL. */
	void (*free)(void *context, void *memory, size_t bytes, size_t align);
};

VMEM_END_DECLS
#endif
