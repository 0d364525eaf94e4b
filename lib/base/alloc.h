/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory through the caller's allocator, and an allocator that counts what goes through it. */
#ifndef VMEMI_ALLOC_H
#define VMEMI_ALLOC_H
#include <stdatomic.h>
#include <vmem/allocator.h>

/* libc's allocator, or NULL in the freestanding build. */
const struct vmem_allocator *vmemi_alloc_default(void);

/* Copies the caller's allocator, or the default for NULL. 0, -VMEM_EINVAL (none, incomplete),
 * -VMEM_E2BIG. */
int vmemi_alloc_take(struct vmem_allocator *ret, const struct vmem_allocator *given);

static inline void *vmemi_alloc(const struct vmem_allocator *a, size_t bytes, size_t align)
{
	return a->alloc(a->context, bytes, align);
}

/* As vmemi_alloc(), all bytes zero. */
void *vmemi_zalloc(const struct vmem_allocator *a, size_t bytes, size_t align);

static inline void vmemi_free(const struct vmem_allocator *a, void *memory, size_t bytes,
			      size_t align)
{
	if (memory)
		a->free(a->context, memory, bytes, align);
}

/* Wraps another allocator and counts the bytes that are out. */
struct vmemi_counting_allocator {
	struct vmem_allocator allocator; /* give this to others */
	struct vmem_allocator inner;     /* a copy */
	_Atomic uint64_t bytes;          /* atomic */
};

void vmemi_counting_init(struct vmemi_counting_allocator *c, const struct vmem_allocator *inner);

#endif
