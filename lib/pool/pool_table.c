/* SPDX-License-Identifier: BSD-2-Clause */
/* A table that grows and whose entries never move: see pool_table.h. Growing takes no lock: whoever
 * puts a chunk in place first has made it, the others free theirs. */
#include "pool/pool_table.h"
#include "base/mem.h"

static size_t chunk_bytes(const struct vmemi_table *t)
{
	return (size_t)t->entry_bytes << t->chunk_shift;
}

static size_t root_bytes(const struct vmemi_table *t)
{
	return t->root_count * sizeof(*t->root);
}

int vmemi_table_init(struct vmemi_table *t, const struct vmem_allocator *allocator,
		     uint32_t entry_bytes, uint32_t chunk_shift, uint32_t number_bits)
{
	uint32_t covered = chunk_shift + VMEMI_TABLE_MIDDLE_SHIFT;

	t->allocator = allocator;
	t->entry_bytes = entry_bytes;
	t->chunk_shift = chunk_shift;
	t->root_count = 1u << (number_bits > covered ? number_bits - covered : 0);
	t->root = vmemi_zalloc(allocator, root_bytes(t), VMEMI_TABLE_ALIGN);
	if (!t->root)
		return -VMEM_ENOMEM;
	atomic_init(&t->bytes, root_bytes(t));
	return 0;
}

void vmemi_table_destroy(struct vmemi_table *t)
{
	if (!t->root)
		return;
	for (uint32_t i = 0; i < t->root_count; i++) {
		struct vmemi_table_middle *middle = atomic_load(&t->root[i]);

		for (uint32_t j = 0; middle && j < 1u << VMEMI_TABLE_MIDDLE_SHIFT; j++)
			vmemi_free(t->allocator, atomic_load(&middle->chunk[j]), chunk_bytes(t),
				   VMEMI_TABLE_ALIGN);
		vmemi_free(t->allocator, middle, sizeof(*middle), VMEMI_TABLE_ALIGN);
	}
	vmemi_free(t->allocator, t->root, root_bytes(t), VMEMI_TABLE_ALIGN);
	t->root = NULL;
}

static struct vmemi_table_middle *middle_of(struct vmemi_table *t, uint32_t root_number)
{
	struct vmemi_table_middle *middle = atomic_load(&t->root[root_number]), *fresh;

	if (middle)
		return middle;
	fresh = vmemi_zalloc(t->allocator, sizeof(*fresh), VMEMI_TABLE_ALIGN);
	if (!fresh)
		return NULL;
	if (!atomic_compare_exchange_strong(&t->root[root_number], &middle, fresh)) {
		vmemi_free(t->allocator, fresh, sizeof(*fresh), VMEMI_TABLE_ALIGN);
		return middle;
	}
	atomic_fetch_add_explicit(&t->bytes, sizeof(*fresh), memory_order_relaxed);
	return fresh;
}

int vmemi_table_grow(struct vmemi_table *t, uint32_t number)
{
	uint32_t chunk_number = number >> t->chunk_shift;
	struct vmemi_table_middle *middle;
	_Atomic(void *) *place;
	void *there = NULL, *fresh;

	middle = middle_of(t, chunk_number >> VMEMI_TABLE_MIDDLE_SHIFT);
	if (!middle)
		return -VMEM_ENOMEM;
	place = &middle->chunk[chunk_number & ((1u << VMEMI_TABLE_MIDDLE_SHIFT) - 1)];
	if (atomic_load(place))
		return 0;
	fresh = vmemi_zalloc(t->allocator, chunk_bytes(t), VMEMI_TABLE_ALIGN);
	if (!fresh)
		return -VMEM_ENOMEM;
	if (!atomic_compare_exchange_strong(place, &there, fresh)) {
		vmemi_free(t->allocator, fresh, chunk_bytes(t), VMEMI_TABLE_ALIGN);
		return 0;
	}
	atomic_fetch_add_explicit(&t->bytes, chunk_bytes(t), memory_order_relaxed);
	return 1;
}
