/* SPDX-License-Identifier: BSD-2-Clause */
/* What there is to know of a VM at one moment. */
#ifndef RUNNER_SAMPLE_H
#define RUNNER_SAMPLE_H
#include "runner_vm.h"

struct sample {
	struct vm_progress progress;
	struct vmem_region_metrics region;
	struct vmem_store_account account;
	uint64_t resident_bytes;
	uint64_t staged_bytes;
	uint64_t stored_bytes;
};

void sample_vm(struct vm *vm, struct sample *sample);

/* Logical bytes in the store to physical ones; 0: nothing there. */
double sample_ratio(uint64_t logical_bytes, uint64_t physical_bytes);

#endif
