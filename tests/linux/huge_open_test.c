/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors of regions with huge pages: what such a region has for its blocks is closed, also where it could not have
 * all, or did not come to be. */
#include "linux/failing_kernel.h"
#include "linux/guest.h"
#include <vmem/huge.h>

int main(void)
{
	static const enum vmemt_call call[] = { VMEMT_K_OPEN, VMEMT_K_REGISTER };
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = VMEM_REGION_HUGE,
				      .bytes = VMEMI_HUGE_BYTES };
	unsigned before = vmemt_open_files(), files;
	vmem_manager *manager;
	vmem_region *r = NULL;

	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_COLLAPSE);
	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&manager, NULL, &vmemt_kernel_table));
	files = vmemt_open_files();
	assert(!vmem_region_alloc(&r, manager, &o));
	assert(r->huge.blocks && r->huge.pagemap >= 0 && vmemt_open_files() == files + 1);
	assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
	assert(vmemt_open_files() == files);
	for (unsigned i = 0; i < sizeof(call) / sizeof(call[0]); i++) {
		r = NULL;
		vmemt_kernel.fail = call[i];
		vmemt_kernel.error = -VMEM_ENOMEM;
		atomic_store(&vmemt_kernel.calls[call[i]], 0);
		atomic_store(&vmemt_kernel.failed, 0);
		vmemt_kernel.fail_after = 0;
		if (!vmem_region_alloc(&r, manager, &o)) {
			assert(call[i] == VMEMT_K_OPEN); /* it can do without */
			assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
		}
		vmemt_kernel.fail_after = -1;
		assert(atomic_load(&vmemt_kernel.failed));
		assert(vmemt_open_files() == files);
	}
	assert(!vmem_manager_free(manager));
	assert(vmemt_open_files() == before && !vmemt_kernel.mapped_bytes);
	return 0;
}
