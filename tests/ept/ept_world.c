/* SPDX-License-Identifier: BSD-2-Clause */
/* A world for random operations: a processor and tables with random properties, and where the numbers come from. */
#include "ept/ept_model.h"

uint64_t vmemt_ept_draw(struct vmemt_ept_world *w, uint64_t limit)
{
	uint64_t value = 0;

	if (!w->data)
		return vmemt_rand(&w->rng) % limit;
	for (uint64_t reach = 1; reach && reach < limit && w->left; reach <<= 8, w->left--)
		value = value << 8 | *w->data++;
	return value % limit;
}

static void draw_processor(struct vmemt_ept_world *w)
{
	struct vmem_ept_capabilities *caps = &w->caps;

	caps->size = sizeof(*caps);
	caps->format = (uint32_t)vmemt_ept_draw(w, VMEM_EPT_FORMATS);
	caps->physical_bits = 36 + (uint32_t)vmemt_ept_draw(w, 17);
	caps->caps = VMEM_EPT_CAP_4_LEVELS | VMEM_EPT_CAP_5_LEVELS | VMEM_EPT_CAP_TABLES_WB |
		     VMEM_EPT_CAP_AD;
	if (!one_of(w, 4))
		caps->caps |= VMEM_EPT_CAP_2M;
	if (caps->caps & VMEM_EPT_CAP_2M && !one_of(w, 4))
		caps->caps |= VMEM_EPT_CAP_1G;
	if (one_of(w, 2))
		caps->caps |= caps->format == VMEM_EPT_INTEL
				      ? VMEM_EPT_CAP_EXEC_ONLY | VMEM_EPT_CAP_MBEC
				      : 0;
	if (caps->format != VMEM_EPT_VTD && !one_of(w, 4))
		caps->caps |= VMEM_EPT_CAP_NO_EXEC;
	if (caps->format == VMEM_EPT_INTEL)
		caps->caps |= VMEM_EPT_CAP_NO_EXEC;
	if (caps->format == VMEM_EPT_INTEL && one_of(w, 2))
		caps->caps |= VMEM_EPT_CAP_VERIFY | VMEM_EPT_CAP_PAGING_WRITE |
			      VMEM_EPT_CAP_SHADOW_STACK | VMEM_EPT_CAP_SUBPAGE |
			      VMEM_EPT_CAP_SUPPRESS_VE;
	if (caps->format == VMEM_EPT_VTD)
		caps->caps |= VMEM_EPT_CAP_3_LEVELS | (one_of(w, 2) ? VMEM_EPT_CAP_SNOOP : 0);
}

uint32_t vmemt_ept_draw_rights(struct vmemt_ept_world *w)
{
	uint32_t rights = VMEM_EPT_READ | (uint32_t)vmemt_ept_draw(w, 16);

	if (w->caps.format == VMEM_EPT_VTD)
		rights &= VMEM_EPT_READ | VMEM_EPT_WRITE;
	if (!(w->caps.caps & VMEM_EPT_CAP_MBEC) || w->caps.format != VMEM_EPT_INTEL)
		rights &= ~VMEM_EPT_EXEC_USER;
	return rights;
}

uint32_t vmemt_ept_draw_type(struct vmemt_ept_world *w)
{
	static const uint32_t intel[] = { VMEM_EPT_WB, VMEM_EPT_WB, VMEM_EPT_UC,
					  VMEM_EPT_WC, VMEM_EPT_WT, VMEM_EPT_WP };
	static const uint32_t amd[] = { VMEM_EPT_WB, VMEM_EPT_WB, VMEM_EPT_UC, VMEM_EPT_WT };

	if (w->caps.format == VMEM_EPT_VTD)
		return VMEM_EPT_WB;
	if (w->caps.format == VMEM_EPT_AMD)
		return amd[vmemt_ept_draw(w, 4)];
	return intel[vmemt_ept_draw(w, 6)];
}

uint32_t vmemt_ept_draw_rare(struct vmemt_ept_world *w)
{
	static const struct {
		uint32_t flag;
		uint64_t cap, needs;
	} rare[] = {
		{ VMEM_EPT_LEAF_VE, 0, VMEM_EPT_SUPPRESS_ALL_VE },
		{ VMEM_EPT_LEAF_VERIFY, VMEM_EPT_CAP_VERIFY, 0 },
		{ VMEM_EPT_LEAF_PAGING_WRITE, VMEM_EPT_CAP_PAGING_WRITE, 0 },
		{ VMEM_EPT_LEAF_SHADOW_STACK, 0, VMEM_EPT_SHADOW_STACK },
		{ VMEM_EPT_LEAF_SUBPAGE, VMEM_EPT_CAP_SUBPAGE, 0 },
		{ VMEM_EPT_LEAF_SNOOP, VMEM_EPT_CAP_SNOOP, 0 },
	};
	uint64_t i = vmemt_ept_draw(w, 4 * sizeof(rare) / sizeof(*rare));

	if (i >= sizeof(rare) / sizeof(*rare) || (rare[i].cap & ~w->caps.caps) ||
	    (rare[i].needs & ~w->opts.flags))
		return 0;
	return rare[i].flag;
}

struct vmemt_ept_world *vmemt_ept_world_new(uint64_t seed, const uint8_t *data, size_t bytes,
					    uint32_t pages)
{
	struct vmemt_ept_world *w = calloc(1, sizeof(*w));

	VMEMT_HOLDS(w);
	w->rng = seed;
	w->data = data;
	w->left = bytes;
	vmemt_fail_alloc_init(&w->allocator);
	w->allocator.fail_after = -1;
	draw_processor(w);
	vmemt_ept_memory_init(&w->memory, pages, one_of(w, 2));
	w->opts = (struct vmem_ept_opts){ .size = sizeof(w->opts),
					  .allocator = &w->allocator.allocator,
					  .capabilities = &w->caps,
					  .memory = &w->memory.memory,
					  .levels = 4 + (uint32_t)one_of(w, 2) };
	if (w->caps.format == VMEM_EPT_AMD || !one_of(w, 3))
		w->opts.flags |= VMEM_EPT_AD;
	if (w->caps.format != VMEM_EPT_VTD && one_of(w, 4))
		w->opts.flags |= VMEM_EPT_NO_EXEC_LARGE;
	if (one_of(w, 4))
		w->opts.flags |= VMEM_EPT_CACHES_ABSENT;
	if (w->caps.caps & VMEM_EPT_CAP_SHADOW_STACK && one_of(w, 2))
		w->opts.flags |= VMEM_EPT_SHADOW_STACK;
	if (w->caps.caps & VMEM_EPT_CAP_SUPPRESS_VE && one_of(w, 2))
		w->opts.flags |= VMEM_EPT_SUPPRESS_ALL_VE;
	if (w->caps.format == VMEM_EPT_VTD && one_of(w, 3))
		w->opts.levels = 3;
	if (one_of(w, 3))
		w->opts.flags |= VMEM_EPT_INVERT_PAYLOAD;
	if (one_of(w, 16)) /* slow */
		w->opts.flags |= VMEM_EPT_WRITE_BACK;
	w->top = UINT64_C(1) << (12 + 9 * w->opts.levels);
	w->pml_index = VMEM_EPT_PML_ENTRIES - 1;
	VMEMT_HOLDS(vmem_ept_new(&w->ept, &w->opts) == 0);
	return w;
}

void vmemt_ept_world_free(struct vmemt_ept_world *w)
{
	vmemt_ept_compare_all(w);
	vmem_ept_free(w->ept);
	vmemt_ept_memory_done(&w->memory);
	VMEMT_HOLDS(w->allocator.live_bytes == 0);
	free(w->cache);
	free(w);
}
