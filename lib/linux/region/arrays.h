/* SPDX-License-Identifier: BSD-2-Clause */
/* Where the arrays of a region's pages come from. Those of a region that grows take address space for all
 * that it may become, so that they never move under those who read them without a lock; memory is taken by what
 * is used of them, and counted so.
 *
 * Guard: attaching and detaching; while the region is there, the lock of reclaim. */
#ifndef VMEMI_ARRAYS_H
#define VMEMI_ARRAYS_H
#include "base/alloc.h"
#include "linux/kernel/kernel.h"

#define VMEMI_ARRAYS_GRAIN 4096 /* pages that are counted together; a multiple of pages_per_entry */

struct vmemi_arrays {
	const struct vmem_allocator *allocator;
	uint64_t most; /* pages that there is room for */
	/* Of those that are reserved: */
	const struct vmemi_kernel *k; /* NULL: nothing is */
	_Atomic uint64_t *counted;    /* atomic; bytes in use */
	uint64_t used;                /* pages */
	uint64_t grain_bytes;         /* of all arrays together, of VMEMI_ARRAYS_GRAIN pages */
};

/* Arrays for @pages pages, once and for all. */
void vmemi_arrays_init(struct vmemi_arrays *a, const struct vmem_allocator *allocator,
		       uint64_t pages);
/* Arrays for @pages pages now, and for up to @most later. What is in use is added to *@counted. */
void vmemi_arrays_reserve(struct vmemi_arrays *a, const struct vmemi_kernel *k, uint64_t pages,
			  uint64_t most, _Atomic uint64_t *counted);

/* An array of zeros with @entry_bytes for each @pages_per_entry pages, or NULL. */
void *vmemi_array_new(struct vmemi_arrays *a, uint32_t pages_per_entry, size_t entry_bytes);
void vmemi_array_free(struct vmemi_arrays *a, void *array, uint32_t pages_per_entry,
		      size_t entry_bytes);

/* A bitmap of pages. */
static inline void *vmemi_bitmap_new(struct vmemi_arrays *a)
{
	return vmemi_array_new(a, 64, sizeof(uint64_t));
}

static inline void vmemi_bitmap_free(struct vmemi_arrays *a, void *bitmap)
{
	vmemi_array_free(a, bitmap, 64, sizeof(uint64_t));
}

/* So many pages are in use from now on, at most a->most. */
void vmemi_arrays_grow(struct vmemi_arrays *a, uint64_t pages);

#endif
