/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. The main thread. */
#include "runner_sample.h"

void sample_vm(struct vm *vm, struct sample *sample)
{
	const uint64_t *pages = sample->region.pages;

	*sample = (struct sample){ .region.size = sizeof(sample->region),
				   .account.size = sizeof(sample->account) };
	vm_progress(vm, &sample->progress);
	(void)vmem_region_get_metrics(vm->region, &sample->region);
	(void)vmem_region_get_account(vm->region, &sample->account);
	sample->resident_bytes = (pages[VMEM_PAGE_RESIDENT] + pages[VMEM_PAGE_CLEAN] +
				  pages[VMEM_PAGE_SHARED] + pages[VMEM_PAGE_ARRIVING])
				 << GUEST_PAGE_SHIFT;
	sample->staged_bytes = (pages[VMEM_PAGE_STAGED] + pages[VMEM_PAGE_STORING])
			       << GUEST_PAGE_SHIFT;
	sample->stored_bytes = pages[VMEM_PAGE_STORED] << GUEST_PAGE_SHIFT;
}

double sample_ratio(uint64_t logical_bytes, uint64_t physical_bytes)
{
	return physical_bytes ? (double)logical_bytes / (double)physical_bytes : 0;
}
