/* SPDX-License-Identifier: BSD-2-Clause */
/* All tables of a tree, without recursion. */
#ifndef VMEMI_EPT_TREE_H
#define VMEMI_EPT_TREE_H
#include "ept/ept_internal.h"

/* A walk over the tables of a tree, those below before those above. */
struct vmemi_ept_tree {
	uint64_t *table; /* out */
	uint64_t hpa;    /* out */
	uint32_t level;  /* out */
	uint32_t at;
	uint32_t top;
	uint64_t *tables[VMEM_EPT_LEVELS + 1];
	uint64_t hpas[VMEM_EPT_LEVELS + 1];
	uint32_t index[VMEM_EPT_LEVELS + 1];
};

static inline void vmemi_ept_tree_begin(const vmem_ept *ept, struct vmemi_ept_tree *t, uint64_t hpa,
					uint32_t level)
{
	t->top = level;
	t->at = level;
	t->hpas[level] = hpa;
	t->tables[level] = vmemi_ept_at(ept, hpa);
	t->index[level] = 0;
}

/* The next table; false: there are no more. The caller may do with it what it likes. */
static inline bool vmemi_ept_tree_next(const vmem_ept *ept, struct vmemi_ept_tree *t)
{
	uint32_t level = t->at;

	while (level <= t->top) {
		uint64_t entry;

		if (level == 1 || t->index[level] == VMEM_EPT_ENTRIES) {
			t->table = t->tables[level];
			t->hpa = t->hpas[level];
			t->level = level;
			t->at = level + 1;
			return true;
		}
		entry = vmemi_ept_load(&t->tables[level][t->index[level]++]);
		if (!vmemi_ept_is_table(entry))
			continue;
		level--;
		t->hpas[level] = entry & VMEM_EPT_ADDRESS;
		t->tables[level] = vmemi_ept_at(ept, t->hpas[level]);
		t->index[level] = 0;
	}
	return false;
}

#endif
