/* SPDX-License-Identifier: BSD-2-Clause */
/* A table of equal entries that grows by chunks and whose entries never move or go away before the
 * table does, so that a reader needs no lock: root -> 512 chunks -> entries. Entries begin as zeros. */
#ifndef VMEMI_POOL_TABLE_H
#define VMEMI_POOL_TABLE_H
#include <stdatomic.h>
#include "base/alloc.h"

#define VMEMI_TABLE_MIDDLE_SHIFT 9u
#define VMEMI_TABLE_ALIGN 64u

struct vmemi_table_middle {
	_Atomic(void *) chunk[1u << VMEMI_TABLE_MIDDLE_SHIFT]; /* atomic; NULL until made */
};

struct vmemi_table {
	const struct vmem_allocator *allocator;
	uint32_t entry_bytes;
	uint32_t chunk_shift; /* log2 of the entries of a chunk */
	uint32_t root_count;
	_Atomic(struct vmemi_table_middle *) *root; /* each atomic; NULL until made */
	_Atomic uint64_t bytes;                     /* atomic; memory taken */
};

/* A table for numbers below 2^@number_bits. 0, -VMEM_ENOMEM. */
int vmemi_table_init(struct vmemi_table *t, const struct vmem_allocator *allocator,
		     uint32_t entry_bytes, uint32_t chunk_shift, uint32_t number_bits);

/* An all-zero table is fine. */
void vmemi_table_destroy(struct vmemi_table *t);

/* Makes the chunk of entry @number, unless it is there. Any thread.
 * 1 if this call made it, 0 if it was there, -VMEM_ENOMEM. */
int vmemi_table_grow(struct vmemi_table *t, uint32_t number);

/* The entry, or NULL if its chunk is not there or @number is too large. @entry_bytes and @chunk_shift:
 * as at init, given again so that they are constants where the call is inlined. */
static inline void *vmemi_table_at(const struct vmemi_table *t, uint32_t number,
				   uint32_t entry_bytes, uint32_t chunk_shift)
{
	uint32_t chunk_number = number >> chunk_shift;
	uint32_t root_number = chunk_number >> VMEMI_TABLE_MIDDLE_SHIFT;
	struct vmemi_table_middle *middle;
	unsigned char *chunk;

	if (root_number >= t->root_count)
		return NULL;
	middle = atomic_load_explicit(&t->root[root_number], memory_order_acquire);
	if (!middle)
		return NULL;
	chunk = atomic_load_explicit(
		&middle->chunk[chunk_number & ((1u << VMEMI_TABLE_MIDDLE_SHIFT) - 1)],
		memory_order_acquire);
	if (!chunk)
		return NULL;
	return chunk + (size_t)(number & ((1u << chunk_shift) - 1)) * entry_bytes;
}

#endif
