/* SPDX-License-Identifier: BSD-2-Clause */
#include "paged_memory.h"
#include "machine.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CHUNK ((uint64_t)1 << 20) /* stored at a time */

static vmem_manager *sigbus_manager; /* set while no other thread runs */

static int new_manager(struct paged_memory *paged)
{
	struct vmem_manager_opts opts = { .size = sizeof(opts), .fault_spin_us = PAGED_SPIN_US };
	int result = vmem_jemalloc_new(&paged->jemalloc, NULL);

	if (result != 0)
		return result;
	opts.allocator = vmem_jemalloc_allocator(paged->jemalloc);
	opts.fault_threads = paged->fault_threads;
	opts.budget_bytes = paged->budget_bytes;
	if (opts.budget_bytes == 0) { /* all of it resident, staged and stored at once */
		opts.budget_bytes = 4 * paged->bytes + ((uint64_t)64 << 20);
		opts.staging_bytes = 2 * paged->bytes;
	}
	return vmem_manager_new(&paged->manager, &opts);
}

int paged_memory_new(struct paged_memory *paged)
{
	/* No device writes to this memory. */
	struct vmem_region_opts opts = { .size = sizeof(opts), .flags = VMEM_REGION_DMA_PINNED };
	int result = new_manager(paged);

	opts.bytes = paged->bytes;
	opts.fault_way = paged->fault_way;
	opts.fault_around_pages = paged->fault_around_pages;
	if (result == 0)
		result = vmem_region_alloc(&paged->region, paged->manager, &opts);
	if (result == 0) {
		if (paged->cpu >= 0)
			machine_pin((unsigned)paged->cpu); /* threads inherit it */
		result = vmem_manager_thread_start(paged->manager);
		machine_unpin();
	}
	if (result != 0) {
		paged_memory_free(paged);
		return result;
	}
	paged->memory = vmem_region_hva(paged->region);
	return 0;
}

void paged_memory_free(struct paged_memory *paged)
{
	if (paged->region)
		vmem_region_detach(paged->region, VMEM_DETACH_DISCARD);
	if (paged->manager)
		vmem_manager_free(paged->manager);
	vmem_jemalloc_free(paged->jemalloc);
	paged->region = NULL;
	paged->manager = NULL;
	paged->jemalloc = NULL;
}

static void serve_sigbus(int number, siginfo_t *info, void *context)
{
	static const char text[] = "bench: SIGBUS that is no fault of the region\n";

	(void)number;
	if (vmem_fault_sigbus(sigbus_manager, info->si_addr, context, NULL) != 0) {
		if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
			_exit(2);
		_exit(1);
	}
}

void paged_memory_take_sigbus(const struct paged_memory *paged)
{
	struct sigaction action = { .sa_sigaction = serve_sigbus, .sa_flags = SA_SIGINFO };

	sigbus_manager = paged->manager;
	sigaction(SIGBUS, &action, NULL);
}

uint64_t paged_memory_pages(const struct paged_memory *paged, enum vmem_page_state state)
{
	struct vmem_region_metrics metrics = { .size = sizeof(metrics) };

	if (vmem_region_get_metrics(paged->region, &metrics) != 0)
		return 0;
	return metrics.pages[state];
}

int paged_memory_stage_all(const struct paged_memory *paged)
{
	int result = vmem_region_stage(paged->region, 0, paged->bytes, NULL);

	if (result == 0 && paged_memory_pages(paged, VMEM_PAGE_RESIDENT) +
					   paged_memory_pages(paged, VMEM_PAGE_CLEAN) >
				   0)
		result = -EBUSY;
	return result;
}

int paged_memory_store_all(const struct paged_memory *paged)
{
	int result = 0;

	for (uint64_t at = 0; at < paged->bytes && result == 0; at += CHUNK) {
		result = vmem_region_stage(paged->region, at, CHUNK, NULL);
		if (result == 0)
			result = vmem_region_store(paged->region, at, CHUNK, NULL);
	}
	if (result == 0 &&
	    paged_memory_pages(paged, VMEM_PAGE_STORED) != paged->bytes / VMEM_PAGE_SIZE)
		result = -EBUSY;
	return result;
}
