/* SPDX-License-Identifier: BSD-2-Clause */
/* One object of the builder in a pool of pages, for a file of Criterion tests: short names, as it is all that they are about. */
#ifndef VMEMT_EPT_FIXTURE_H
#define VMEMT_EPT_FIXTURE_H
#include <criterion/criterion.h>
#include "ept/ept_tools.h"

#define GIB VMEMT_EPT_GIB
#define MIB2 VMEMT_EPT_MIB2

static struct vmemt_ept_pool pool;
static struct vmem_ept_change change;
static vmem_ept *ept;

static inline void open_ept(uint64_t pages, const struct vmem_ept_capabilities *caps,
			    uint64_t flags, uint32_t levels, uint64_t quota)
{
	vmemt_ept_pool_init(&pool, pages);
	ept = vmemt_ept_make(&pool, caps, flags, levels, quota);
	cr_assert_not_null(ept);
	change = VMEMT_EPT_CHANGE;
}

static inline void close_ept(void)
{
	vmem_ept_free(ept);
	vmemt_ept_pool_destroy(&pool);
}

static inline int map_at(uint64_t gpa, uint64_t bytes, uint64_t hpa, uint32_t level, uint32_t flags)
{
	return vmem_ept_map(ept, gpa, bytes, &VMEMT_EPT_LEAF(.hpa = hpa, .level = level), flags,
			    &change);
}

/* The pages in use are those that are counted. @return how many tables there are */
static inline uint64_t expect_counted(struct vmem_ept_stats *ret_stats)
{
	uint64_t all = 0;

	ret_stats->size = sizeof(*ret_stats);
	cr_assert_eq(vmem_ept_get_stats(ept, ret_stats), 0);
	for (uint32_t l = 0; l < VMEM_EPT_LEVELS; l++)
		all += ret_stats->tables[l];
	cr_assert_eq(all + ret_stats->waiting, pool.out);
	return all;
}

#endif
