/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-ept: the tables, and the pages that they are made of. */
#ifndef BENCH_EPT_H
#define BENCH_EPT_H
#include <pthread.h>
#include <vmem/ept.h>

struct bench;

struct ept_bench {
	vmem_ept *ept;
	struct vmem_ept_change change;
	uint64_t flags; /* VMEM_EPT_* */
	uint8_t *pool;  /* pages for tables: those at pool + hpa */
	uint64_t *free; /* hpa */
	uint64_t free_count;
	pthread_spinlock_t lock; /* guards free: vmem_ept_install() takes pages from any thread */
	uint64_t *bare;          /* as many pages, for plain loops */
	uint32_t turns;
	uint64_t sink;
};

/* Tables that map nothing, in place of those that were there. */
int ept_bench_make(struct ept_bench *b);

int ept_bench_track(struct bench *bench, struct ept_bench *b);
int ept_bench_fault(struct bench *bench, struct ept_bench *b);

#endif
