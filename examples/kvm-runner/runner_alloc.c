/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. One counter, atomic; any thread. */
#include "runner_alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static _Atomic uint64_t left_to_failure;

void alloc_fail_at(uint64_t n)
{
	atomic_store(&left_to_failure, n);
}

bool alloc_failure_waits(void)
{
	return atomic_load(&left_to_failure) != 0;
}

static bool fails_now(void)
{
	uint64_t left = atomic_load(&left_to_failure);

	while (left != 0 && !atomic_compare_exchange_weak(&left_to_failure, &left, left - 1))
		;
	return left == 1;
}

void *alloc_new(size_t bytes)
{
	return fails_now() ? NULL : calloc(1, bytes);
}

void alloc_free(void *memory)
{
	free(memory);
}

void *alloc_grow(void *memory, size_t bytes, size_t new_bytes)
{
	void *grown = alloc_new(new_bytes);

	if (!grown)
		return NULL;
	if (memory)
		memcpy(grown, memory, bytes);
	alloc_free(memory);
	return grown;
}

/* aligned_alloc() wants whole multiples of the alignment. */
static void *aligned(size_t bytes, size_t align)
{
	if (align < sizeof(void *))
		align = sizeof(void *);
	return fails_now() ? NULL : aligned_alloc(align, (bytes + align - 1) / align * align);
}

void *alloc_pages(size_t bytes)
{
	return aligned(bytes, 4096);
}

static void *library_alloc(void *context, size_t bytes, size_t align)
{
	(void)context;
	return aligned(bytes, align);
}

static void library_free(void *context, void *memory, size_t bytes, size_t align)
{
	(void)context;
	(void)bytes;
	(void)align;
	free(memory);
}

const struct vmem_allocator *alloc_for_library(void)
{
	static const struct vmem_allocator allocator = {
		.size = sizeof(allocator),
		.alloc = library_alloc,
		.free = library_free,
	};

	return &allocator;
}
