/* SPDX-License-Identifier: BSD-2-Clause */
/* Where the arrays of a region's pages come from: see arrays.h. */
#include "linux/region/arrays.h"
#include <sys/mman.h>

#define ALIGN 64

static size_t bytes_of(const struct vmemi_arrays *a, uint32_t pages_per_entry, size_t entry_bytes)
{
	return (size_t)((a->most + pages_per_entry - 1) / pages_per_entry) * entry_bytes;
}

static uint64_t grains(uint64_t pages)
{
	return (pages + VMEMI_ARRAYS_GRAIN - 1) / VMEMI_ARRAYS_GRAIN;
}

void vmemi_arrays_init(struct vmemi_arrays *a, const struct vmem_allocator *allocator,
		       uint64_t pages)
{
	*a = (struct vmemi_arrays){ .allocator = allocator, .most = pages };
}

void vmemi_arrays_reserve(struct vmemi_arrays *a, const struct vmemi_kernel *k, uint64_t pages,
			  uint64_t most, _Atomic uint64_t *counted)
{
	*a = (struct vmemi_arrays){ .most = most, .k = k, .counted = counted, .used = pages };
}

static void *reserve(struct vmemi_arrays *a, size_t bytes)
{
	void *memory;

	if (a->k->mmap(&memory, bytes, PROT_READ | PROT_WRITE, MAP_NORESERVE))
		return NULL;
	/* A huge page would be there whole for the first entry. If it cannot be refused it is only less exact. */
	a->k->madvise(memory, bytes, MADV_NOHUGEPAGE);
	return memory;
}

void *vmemi_array_new(struct vmemi_arrays *a, uint32_t pages_per_entry, size_t entry_bytes)
{
	size_t bytes = bytes_of(a, pages_per_entry, entry_bytes);
	uint64_t grain = VMEMI_ARRAYS_GRAIN / pages_per_entry * entry_bytes;
	void *memory;

	if (!a->k)
		return vmemi_zalloc(a->allocator, bytes, ALIGN);
	memory = reserve(a, bytes);
	if (memory) {
		atomic_fetch_add(a->counted, grains(a->used) * grain);
		a->grain_bytes += grain;
	}
	return memory;
}

void vmemi_array_free(struct vmemi_arrays *a, void *array, uint32_t pages_per_entry,
		      size_t entry_bytes)
{
	size_t bytes = bytes_of(a, pages_per_entry, entry_bytes);
	uint64_t grain = VMEMI_ARRAYS_GRAIN / pages_per_entry * entry_bytes;

	if (!a->k) {
		vmemi_free(a->allocator, array, bytes, ALIGN);
	} else if (array) {
		a->k->munmap(array, bytes);
		atomic_fetch_sub(a->counted, grains(a->used) * grain);
		a->grain_bytes -= grain;
	}
}

void vmemi_arrays_grow(struct vmemi_arrays *a, uint64_t pages)
{
	if (a->k)
		atomic_fetch_add(a->counted, (grains(pages) - grains(a->used)) * a->grain_bytes);
	a->used = pages;
}
