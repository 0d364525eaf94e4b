/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-ept: the tables, and the pages that they are made of. */
#ifndef BENCH_EPT_H
#define BENCH_EPT_H
#include <vmem/ept.h>

struct ept_bench {
	vmem_ept *ept;
	struct vmem_ept_change change;
	uint64_t flags; /* VMEM_EPT_* */
	uint8_t *pool;  /* pages for tables: those at pool + hpa */
	uint64_t *free; /* hpa */
	uint64_t free_count;
	uint64_t *bare; /* as many pages, for plain loops */
	uint32_t turns;
	uint64_t sink;
};

int ept_bench_make(struct ept_bench *b);

#endif
