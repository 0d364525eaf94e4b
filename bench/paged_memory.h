/* SPDX-License-Identifier: BSD-2-Clause */
/* Ours: one region of libvmem with its manager, and with an allocator on an arena of its own. */
#ifndef BENCH_PAGED_MEMORY_H
#define BENCH_PAGED_MEMORY_H
#include <stddef.h>
#include <stdint.h>
#include <vmem/fault.h>
#include <vmem/jemalloc.h>
#include <vmem/manager.h>
#include <vmem/region.h>

#define PAGED_SPIN_US 50 /* a handler thread's, ours and the peer's */

struct paged_memory {
	/* Set before paged_memory_new(). */
	size_t bytes;
	enum vmem_fault_way fault_way;
	uint32_t fault_around_pages; /* as in vmem_region_opts */
	uint64_t budget_bytes;       /* 0: more than it can use */
	uint32_t fault_threads;      /* as in vmem_manager_opts */
	int cpu;                     /* for the manager's threads; -1: any */
	/* Set by it. */
	vmem_jemalloc *jemalloc;
	vmem_manager *manager;
	vmem_region *region;
	uint8_t *memory;
};

/* Guest memory from gpa 0 on, absent, with threads that serve it. The calling thread may run on any
 * processor afterwards. @return 0, -VMEM_E* */
int paged_memory_new(struct paged_memory *paged);
void paged_memory_free(struct paged_memory *paged);

/* From now on a SIGBUS of this process is a fault of this region. */
void paged_memory_take_sigbus(const struct paged_memory *paged);

/* How many of its pages are in a state. */
uint64_t paged_memory_pages(const struct paged_memory *paged, enum vmem_page_state state);

/* Take all pages out into staging, and on into the store. @return 0, -EBUSY: some would not go */
int paged_memory_stage_all(const struct paged_memory *paged);
int paged_memory_store_all(const struct paged_memory *paged);

#endif
