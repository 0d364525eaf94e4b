/* SPDX-License-Identifier: BSD-2-Clause */
/* The index: handles, given out and taken back. Looking one up is vmemi_index_at().
 *
 * Free entries form a stack (Treiber 1986) linked through the entries themselves; its head carries a
 * count of what came back, so that an entry which was taken and came back in between is noticed. No lock:
 * entries never go away. Handle 0 is never given out. */
#include "pool/pool_internal.h"

#define CHUNK_HANDLES (1u << VMEMI_INDEX_CHUNK_SHIFT)
#define CHUNKS_MAX ((1u << (32 - VMEMI_INDEX_CHUNK_SHIFT)) - 1)

/* In free_handles, above the first free handle. */
#define COUNT_ONE (UINT64_C(1) << 32)
#define COUNT_MASK (UINT64_MAX << 32)

/* Pushes entries @first to @last, linked already but for the last. */
static void push(struct vmem_pool *p, uint32_t first, _Atomic uint64_t *last)
{
	uint64_t head = atomic_load_explicit(&p->free_handles, memory_order_relaxed), next;

	do {
		atomic_store_explicit(last, VMEMI_ENTRY_FREE << 62 | (uint32_t)head,
				      memory_order_relaxed);
		next = ((head & COUNT_MASK) + COUNT_ONE) | first;
	} while (!atomic_compare_exchange_weak_explicit(
		&p->free_handles, &head, next, memory_order_release, memory_order_relaxed));
}

int vmemi_index_provide(struct vmem_pool *p)
{
	uint32_t chunk = atomic_load(&p->index_chunks);
	int made;

	if (chunk == CHUNKS_MAX)
		return -VMEM_ENOMEM;
	made = vmemi_table_grow(&p->index, chunk << VMEMI_INDEX_CHUNK_SHIFT);
	return made < 0 ? made : 0;
}

/* Makes all handles of the next chunk free. */
static void free_chunk(struct vmem_pool *p, uint32_t chunk)
{
	uint32_t first = chunk << VMEMI_INDEX_CHUNK_SHIFT, last = first + (CHUNK_HANDLES - 1);

	if (!first)
		first = 1;
	for (uint32_t handle = first; handle < last; handle++)
		atomic_store_explicit(vmemi_index_at(p, handle),
				      VMEMI_ENTRY_FREE << 62 | (handle + 1), memory_order_relaxed);
	/* Counted first: whoever looks at all handles has to come by one that was just taken. */
	atomic_store(&p->index_chunks, chunk + 1);
	push(p, first, vmemi_index_at(p, last));
}

/* There was no free handle: makes some, or waits in turn for another thread that does.
 * 0, -VMEM_ENOMEM. */
static int add_chunk(struct vmem_pool *p)
{
	/* Read in this order: a chunk that is counted while no thread adds one has been pushed. */
	uint32_t chunk = atomic_load(&p->index_chunks);
	int err;

	if (atomic_load(&p->index_adding)) {
		vmemi_relax(&p->env);
		return 0;
	}
	if ((uint32_t)atomic_load(&p->free_handles))
		return 0;
	err = vmemi_index_provide(p);
	if (err || atomic_exchange(&p->index_adding, true))
		return err;
	if (atomic_load(&p->index_chunks) == chunk) /* else another was faster */
		free_chunk(p, chunk);
	atomic_store(&p->index_adding, false);
	return 0;
}

int vmemi_handle_new(struct vmem_pool *p, uint32_t *ret_handle)
{
	uint64_t head = atomic_load_explicit(&p->free_handles, memory_order_acquire);

	for (;;) {
		uint32_t handle = (uint32_t)head;
		_Atomic uint64_t *entry;
		uint64_t next;

		if (!handle) {
			int err = add_chunk(p);

			if (err)
				return err;
			head = atomic_load_explicit(&p->free_handles, memory_order_acquire);
			continue;
		}
		/* If another thread takes it first, this reads whatever it is then. The exchange fails:
		 * the head is another, or the same after it came back, which has changed the count. */
		entry = vmemi_index_at(p, handle);
		next = (head & COUNT_MASK) |
		       (uint32_t)atomic_load_explicit(entry, memory_order_relaxed);
		if (atomic_compare_exchange_weak_explicit(&p->free_handles, &head, next,
							  memory_order_acquire,
							  memory_order_acquire)) {
			atomic_store_explicit(entry, VMEMI_ENTRY_TAKEN, memory_order_relaxed);
			*ret_handle = handle;
			return 0;
		}
	}
}

void vmemi_handle_free(struct vmem_pool *p, uint32_t handle)
{
	push(p, handle, vmemi_index_at(p, handle));
}

uint32_t vmemi_index_end(const struct vmem_pool *p)
{
	return atomic_load(&p->index_chunks) << VMEMI_INDEX_CHUNK_SHIFT;
}
