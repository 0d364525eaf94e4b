/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory through the caller's allocator: see alloc.h. */
#include "base/alloc.h"
#include "base/mem.h"
#include "base/opts.h"

#ifdef VMEMI_CORE
const struct vmem_allocator *vmemi_alloc_default(void)
{
	return NULL;
}
#else
#include <stdlib.h>

static void *libc_alloc(void *context, size_t bytes, size_t align)
{
	void *memory;

	(void)context;
	if (align <= _Alignof(max_align_t))
		return malloc(bytes);
	return posix_memalign(&memory, align, bytes) ? NULL : memory;
}

static void libc_free(void *context, void *memory, size_t bytes, size_t align)
{
	(void)context;
	(void)bytes;
	(void)align;
	free(memory);
}

static const struct vmem_allocator libc_allocator = {
	.size = sizeof(libc_allocator),
	.alloc = libc_alloc,
	.free = libc_free,
};

const struct vmem_allocator *vmemi_alloc_default(void)
{
	return &libc_allocator;
}
#endif

int vmemi_alloc_take(struct vmem_allocator *ret, const struct vmem_allocator *given)
{
	int err =
		vmemi_callbacks_take(ret, sizeof(*ret), VMEMI_BYTES_TO(struct vmem_allocator, free),
				     given ? given : vmemi_alloc_default());

	return !err && (!ret->alloc || !ret->free) ? -VMEM_EINVAL : err;
}

void *vmemi_zalloc(const struct vmem_allocator *a, size_t bytes, size_t align)
{
	void *memory = vmemi_alloc(a, bytes, align);

	if (memory)
		memset(memory, 0, bytes);
	return memory;
}

static void *counting_alloc(void *context, size_t bytes, size_t align)
{
	struct vmemi_counting_allocator *c = context;
	void *memory = vmemi_alloc(&c->inner, bytes, align);

	if (memory)
		atomic_fetch_add_explicit(&c->bytes, bytes, memory_order_relaxed);
	return memory;
}

static void counting_free(void *context, void *memory, size_t bytes, size_t align)
{
	struct vmemi_counting_allocator *c = context;

	atomic_fetch_sub_explicit(&c->bytes, bytes, memory_order_relaxed);
	vmemi_free(&c->inner, memory, bytes, align);
}

void vmemi_counting_init(struct vmemi_counting_allocator *c, const struct vmem_allocator *inner)
{
	c->allocator = (struct vmem_allocator){
		.size = sizeof(c->allocator),
		.context = c,
		.alloc = counting_alloc,
		.free = counting_free,
	};
	c->inner = *inner;
	atomic_init(&c->bytes, 0);
}
