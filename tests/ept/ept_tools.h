/* SPDX-License-Identifier: BSD-2-Clause */
/* Physical memory for tests of the builder: pages at made-up addresses, counted, that can run out. */
#ifndef VMEMT_EPT_TOOLS_H
#define VMEMT_EPT_TOOLS_H
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <vmem/ept.h>

#define VMEMT_EPT_BASE UINT64_C(0x40000000) /* where it begins, physically */
#define VMEMT_EPT_GIB (UINT64_C(1) << 30)
#define VMEMT_EPT_MIB2 (UINT64_C(2) << 20)

struct vmemt_ept_pool {
	uint8_t *pages;
	uint8_t *used; /* a byte each */
	uint64_t count;
	uint64_t out;  /* given and not taken back */
	uint64_t left; /* allocations until it fails */
	uint64_t asked;
};

static inline int vmemt_ept_allocate(void *context, uint64_t *ret_hpa)
{
	struct vmemt_ept_pool *p = context;

	p->asked++;
	if (!p->left)
		return -VMEM_ENOMEM;
	p->left--;
	for (uint64_t i = 0; i < p->count; i++)
		if (!p->used[i]) {
			p->used[i] = 1;
			p->out++;
			memset(p->pages + 4096 * i, 0xa5, 4096);
			*ret_hpa = VMEMT_EPT_BASE + 4096 * i;
			return 0;
		}
	return -VMEM_ENOMEM;
}

static inline void vmemt_ept_give_back(void *context, uint64_t hpa)
{
	struct vmemt_ept_pool *p = context;
	uint64_t i = (hpa - VMEMT_EPT_BASE) / 4096;

	assert(hpa % 4096 == 0 && i < p->count && p->used[i]);
	p->used[i] = 0;
	p->out--;
	memset(p->pages + 4096 * i, 0x5a, 4096);
}

static inline uint64_t *vmemt_ept_page(const struct vmemt_ept_pool *p, uint64_t hpa)
{
	assert(hpa >= VMEMT_EPT_BASE && hpa < VMEMT_EPT_BASE + 4096 * p->count);
	return (uint64_t *)(void *)(p->pages + (hpa - VMEMT_EPT_BASE));
}

static inline void vmemt_ept_pool_init(struct vmemt_ept_pool *p, uint64_t count)
{
	void *memory;

	assert(!posix_memalign(&memory, 4096, 4096 * count));
	*p = (struct vmemt_ept_pool){
		.pages = memory, .used = calloc(count, 1), .count = count, .left = UINT64_MAX
	};
	assert(p->used);
}

static inline void vmemt_ept_pool_destroy(struct vmemt_ept_pool *p)
{
	assert(!p->out);
	free(p->pages);
	free(p->used);
}

/* A processor of a format that can do all; on AMD the host's mode has so many levels. */
static inline struct vmem_ept_capabilities vmemt_ept_caps_of(uint32_t format, uint32_t levels)
{
	struct vmem_ept_capabilities c = { .size = sizeof(c) };

	if (format == VMEM_EPT_AMD)
		assert(!vmem_ept_capabilities_amd(&c, 1u << 26 | 1u << 20, 1, 1u << 11,
						  levels == 5 ? 1u << 12 : 0, 46));
	else if (format == VMEM_EPT_VTD)
		assert(!vmem_ept_capabilities_vtd(&c, 7u << 9 | UINT64_C(3) << 34,
						  1u << 7 | UINT64_C(1) << 45, 46));
	else
		assert(!vmem_ept_capabilities_intel(&c, ~UINT64_C(0), ~0u, ~UINT64_C(0), 46));
	return c;
}

static inline struct vmem_ept_capabilities vmemt_ept_caps(uint32_t format)
{
	return vmemt_ept_caps_of(format, 4);
}

/* An object with no optional flags. */
static inline vmem_ept *vmemt_ept_make(struct vmemt_ept_pool *p,
				       const struct vmem_ept_capabilities *caps, uint64_t flags,
				       uint32_t levels, uint64_t quota)
{
	const struct vmem_ept_memory memory = {
		.size = sizeof(memory),
		.context = p,
		.allocate = vmemt_ept_allocate,
		.free = vmemt_ept_give_back,
		.offset = (uint64_t)(uintptr_t)p->pages - VMEMT_EPT_BASE,
	};
	const struct vmem_ept_opts opts = {
		.size = sizeof(opts),
		.flags = flags,
		.capabilities = caps,
		.memory = &memory,
		.levels = levels,
		.max_tables = quota,
	};
	vmem_ept *ept = NULL;

	return vmem_ept_new(&ept, &opts) ? NULL : ept;
}

#define VMEMT_EPT_LEAF(...)      \
	((struct vmem_ept_leaf){ \
		.rights = VMEM_EPT_READ | VMEM_EPT_WRITE, .type = VMEM_EPT_WB, __VA_ARGS__ })
#define VMEMT_EPT_CHANGE ((struct vmem_ept_change){ .size = sizeof(struct vmem_ept_change) })

#endif
