/* SPDX-License-Identifier: BSD-2-Clause */
/* A record of first touches: see touches.h. */
#include "linux/region/touches.h"
#include "base/lock.h"

static size_t bitmap_bytes(const struct vmemi_touches *t)
{
	return (size_t)((t->pages + 63) / 64) * sizeof(uint64_t);
}

static void free_arrays(struct vmemi_touches *t, const struct vmem_allocator *a)
{
	vmemi_free(a, t->seen, bitmap_bytes(t), 64);
	vmemi_free(a, t->order, (size_t)t->capacity * sizeof(*t->order), 64);
	t->seen = NULL;
	t->order = NULL;
}

static void add(struct vmemi_touches *t, uint64_t page)
{
	uint64_t bit = UINT64_C(1) << page % 64, at;

	if (atomic_load_explicit(&t->seen[page / 64], memory_order_relaxed) & bit ||
	    atomic_fetch_or_explicit(&t->seen[page / 64], bit, memory_order_relaxed) & bit)
		return;
	at = atomic_fetch_add_explicit(&t->count, 1, memory_order_relaxed);
	if (at < t->capacity)
		t->order[at] = (uint32_t)page;
}

void vmemi_touches_note(struct vmemi_touches *t, uint64_t page)
{
	/* First counted, then looked: who ends it does it the other way round. */
	atomic_fetch_add(&t->users, 1);
	if (atomic_load(&t->state) == VMEMI_TOUCHES_ON && page < t->pages)
		add(t, page);
	atomic_fetch_sub(&t->users, 1);
}

int vmemi_touches_start(struct vmemi_touches *t, const struct vmem_allocator *a, uint64_t pages,
			uint64_t capacity)
{
	uint32_t off = VMEMI_TOUCHES_OFF;

	if (!atomic_compare_exchange_strong(&t->state, &off, VMEMI_TOUCHES_CHANGING))
		return -VMEM_EBUSY;
	t->pages = pages;
	t->capacity = capacity;
	t->seen = vmemi_zalloc(a, bitmap_bytes(t), 64);
	t->order = vmemi_alloc(a, (size_t)capacity * sizeof(*t->order), 64);
	atomic_store(&t->count, 0);
	if (t->seen && t->order) {
		atomic_store(&t->state, VMEMI_TOUCHES_ON);
		return 0;
	}
	free_arrays(t, a);
	atomic_store(&t->state, VMEMI_TOUCHES_OFF);
	return -VMEM_ENOMEM;
}

bool vmemi_touches_hold(struct vmemi_touches *t, const struct vmem_env *env)
{
	uint32_t on = VMEMI_TOUCHES_ON;

	if (!atomic_compare_exchange_strong(&t->state, &on, VMEMI_TOUCHES_CHANGING))
		return false;
	while (atomic_load(&t->users))
		vmemi_relax(env);
	return true;
}

void vmemi_touches_go_on(struct vmemi_touches *t)
{
	atomic_store(&t->state, VMEMI_TOUCHES_ON);
}

void vmemi_touches_drop(struct vmemi_touches *t, const struct vmem_allocator *a)
{
	free_arrays(t, a);
	atomic_store(&t->state, VMEMI_TOUCHES_OFF);
}
