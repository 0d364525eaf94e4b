/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory for the tables of the model: see ept_model.h. */
#include <string.h>
#include "ept/ept_model.h"

#define PAGE UINT64_C(4096)

static int allocate(void *context, uint64_t *ret_hpa)
{
	struct vmemt_ept_memory *m = context;

	if (m->fail_after >= 0 && m->fail_after-- == 0) {
		m->failed++;
		return -VMEM_ENOMEM;
	}
	VMEMT_HOLDS(m->live < m->count);
	while (m->used[m->cursor])
		m->cursor = (m->cursor + 1) % m->count;
	m->used[m->cursor] = 1;
	m->live++;
	memset(m->pages + m->cursor * PAGE, 0xa5, PAGE);
	*ret_hpa = VMEMT_EPT_BASE + m->cursor * PAGE;
	m->cursor = (m->cursor + 1) % m->count;
	return 0;
}

static void give_back(void *context, uint64_t hpa)
{
	struct vmemt_ept_memory *m = context;
	uint64_t at = (hpa - VMEMT_EPT_BASE) / PAGE;

	VMEMT_HOLDS(hpa % PAGE == 0 && at < m->count && m->used[at]);
	memset(m->pages + at * PAGE, 0x5a, PAGE);
	m->used[at] = 0;
	m->live--;
}

uint64_t *vmemt_ept_table(const struct vmemt_ept_memory *m, uint64_t hpa)
{
	uint64_t at = (hpa - VMEMT_EPT_BASE) / PAGE;

	VMEMT_HOLDS(hpa % PAGE == 0 && at < m->count && m->used[at]);
	return (uint64_t *)(void *)(m->pages + at * PAGE);
}

static void *map(void *context, uint64_t hpa)
{
	return vmemt_ept_table(context, hpa);
}

void vmemt_ept_memory_init(struct vmemt_ept_memory *m, uint32_t pages, int by_callback)
{
	memset(m, 0, sizeof(*m));
	m->pages = aligned_alloc(PAGE, pages * PAGE);
	m->copy = malloc(pages * PAGE);
	m->used = calloc(pages, 1);
	m->used_copy = calloc(pages, 1);
	VMEMT_HOLDS(m->pages && m->copy && m->used && m->used_copy);
	m->count = pages;
	m->fail_after = -1;
	m->memory.size = sizeof(m->memory);
	m->memory.context = m;
	m->memory.allocate = allocate;
	m->memory.free = give_back;
	m->memory.map = by_callback ? map : NULL;
	m->memory.offset = by_callback ? 0 : (uint64_t)(uintptr_t)m->pages - VMEMT_EPT_BASE;
}

void vmemt_ept_memory_done(struct vmemt_ept_memory *m)
{
	VMEMT_HOLDS(!m->live);
	free(m->pages);
	free(m->copy);
	free(m->used);
	free(m->used_copy);
}

void vmemt_ept_memory_save(struct vmemt_ept_memory *m)
{
	memcpy(m->used_copy, m->used, m->count);
	for (uint64_t i = 0; i < m->count; i++)
		if (m->used[i])
			memcpy(m->copy + i * PAGE, m->pages + i * PAGE, PAGE);
}

int vmemt_ept_memory_same(const struct vmemt_ept_memory *m)
{
	if (memcmp(m->used_copy, m->used, m->count) != 0)
		return 0;
	for (uint64_t i = 0; i < m->count; i++)
		if (m->used[i] && memcmp(m->copy + i * PAGE, m->pages + i * PAGE, PAGE) != 0)
			return 0;
	return 1;
}
