/* SPDX-License-Identifier: BSD-2-Clause */
/* The walker in software and the check of whole trees, as judges of what the list of extents says. */
#include <string.h>
#include <vmem/ept_walk.h>
#include "ept/ept_model.h"

static int read_entry(void *context, uint64_t hpa, uint64_t *ret_entry)
{
	const struct vmemt_ept_memory *m = context;

	*ret_entry = vmemt_ept_table(m, hpa & ~UINT64_C(4095))[hpa % 4096 / 8];
	return 0;
}

static struct vmem_ept_view view_of(struct vmemt_ept_world *w)
{
	return (struct vmem_ept_view){ .size = sizeof(struct vmem_ept_view),
				       .context = &w->memory,
				       .read = read_entry };
}

static int allowed(const struct vmemt_ept_world *w, uint32_t rights, uint32_t kind, uint32_t user)
{
	if (kind == VMEM_EPT_ACCESS_READ)
		return (rights & VMEM_EPT_READ) != 0;
	if (kind == VMEM_EPT_ACCESS_WRITE)
		return (rights & VMEM_EPT_WRITE) != 0;
	if (user && w->caps.caps & VMEM_EPT_CAP_MBEC)
		return (rights & VMEM_EPT_EXEC_USER) != 0;
	return (rights & VMEM_EPT_EXEC) != 0;
}

static void judge_access(struct vmemt_ept_world *w, uint64_t gpa, uint32_t kind, uint32_t user)
{
	struct vmem_ept_view view = view_of(w);
	struct vmem_ept_access access = { .size = sizeof(access),
					  .gpa = gpa,
					  .kind = kind,
					  .user = user,
					  .pointer = vmem_ept_pointer(w->ept) };
	struct vmem_ept_walked walked = { .size = sizeof(walked) };
	uint32_t i = vmemt_ept_first(w, gpa);
	const struct vmemt_ept_extent *e = &w->extent[i];
	int there = i < w->extents && e->gpa <= gpa && e->level;

	if (w->caps.caps & VMEM_EPT_CAP_MBEC)
		access.context |= VMEM_EPT_WALK_MBEC;
	if (w->caps.format == VMEM_EPT_AMD && w->opts.levels == 5)
		access.context |= VMEM_EPT_WALK_5_LEVELS;
	VMEMT_HOLDS(vmem_ept_walk(&w->caps, &view, &access, &walked) == 0);
	if (!there || !allowed(w, e->rights, kind, user)) {
		VMEMT_HOLDS(walked.outcome == VMEM_EPT_WALK_VIOLATION);
		return;
	}
	VMEMT_HOLDS(walked.outcome == VMEM_EPT_WALK_OK);
	VMEMT_HOLDS(walked.hpa == e->value + (gpa - e->gpa));
	VMEMT_HOLDS(walked.bytes == VMEM_EPT_LEVEL_BYTES(e->level) && walked.level == e->level);
	VMEMT_HOLDS(walked.type == e->type);
	VMEMT_HOLDS(!walked.ignore_pat == !(e->flags & VMEM_EPT_LEAF_IGNORE_PAT));
}

void vmemt_ept_judge(struct vmemt_ept_world *w, uint64_t gpa)
{
	gpa += vmemt_rand(&w->rng) % 4096;
	judge_access(w, gpa, VMEM_EPT_ACCESS_READ, 0);
	judge_access(w, gpa, VMEM_EPT_ACCESS_WRITE, 0);
	if (w->caps.format == VMEM_EPT_VTD)
		return;
	judge_access(w, gpa, VMEM_EPT_ACCESS_FETCH, 0);
	judge_access(w, gpa, VMEM_EPT_ACCESS_FETCH, 1);
}

/* Marks in the copy of the states of pages, which is free between saving and comparing. */
static int seen(void *context, uint64_t hpa)
{
	struct vmemt_ept_memory *m = context;
	uint8_t *mark = &m->used_copy[(hpa - VMEMT_EPT_BASE) / 4096];
	int before = *mark;

	*mark = 1;
	return before;
}

void vmemt_ept_judge_all(struct vmemt_ept_world *w, const struct vmem_ept_stats *stats)
{
	struct vmem_ept_view view = view_of(w);
	struct vmem_ept_checked checked = { .size = sizeof(checked) };
	uint32_t flags = VMEM_EPT_CHECK_TIGHT;

	if (w->caps.format == VMEM_EPT_AMD && w->opts.levels == 5)
		flags |= VMEM_EPT_CHECK_5_LEVELS;
	memset(w->memory.used_copy, 0, w->memory.count);
	VMEMT_HOLDS(vmem_ept_check(&w->caps, &view, vmem_ept_pointer(w->ept), flags, seen,
				   &checked) == 0);
	if (checked.defect)
		fprintf(stderr, "defect %u, %u: %#llx at %#llx, level %u\n", checked.defect,
			checked.misconfig, (unsigned long long)checked.entry,
			(unsigned long long)checked.gpa, checked.level);
	VMEMT_HOLDS(checked.defect == VMEM_EPT_SOUND);
	VMEMT_HOLDS(memcmp(checked.tables, stats->tables, sizeof(checked.tables)) == 0);
	VMEMT_HOLDS(memcmp(checked.leaves, stats->leaves, sizeof(checked.leaves)) == 0);
}
