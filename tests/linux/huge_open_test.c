/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors of regions with huge pages: what such a region has for its blocks is closed, also where it could not have
 * all, or did not come to be. */
#include "linux/failing_kernel.h"
#include "linux/guest.h"
#include <vmem/huge.h>

/* Refuses each call of a kind in turn, until none is left to be refused. */
static void refused(vmem_manager *manager, const struct vmem_region_opts *o, enum vmemt_call call)
{
	unsigned files = vmemt_open_files(), went_without = 0;
	long failed;

	vmemt_kernel.fail = call;
	vmemt_kernel.error = -VMEM_ENOMEM;
	for (long n = 0;; n++) {
		vmem_region *r = NULL;

		failed = atomic_load(&vmemt_kernel.failed);
		atomic_store(&vmemt_kernel.calls[call], 0);
		vmemt_kernel.fail_after = n;
		if (!vmem_region_alloc(&r, manager, o)) {
			went_without += r->huge.pagemap < 0;
			assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
		}
		vmemt_kernel.fail_after = -1;
		assert(vmemt_open_files() == files);
		if (atomic_load(&vmemt_kernel.failed) == failed)
			break;
	}
	assert(failed);
	assert((went_without > 0) == (call == VMEMT_K_OPEN)); /* of its blocks' pagemap */
}

int main(void)
{
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
	refused(manager, &o, VMEMT_K_OPEN);
	refused(manager, &o, VMEMT_K_REGISTER);
	assert(!vmem_manager_free(manager));
	assert(vmemt_open_files() == before && !vmemt_kernel.mapped_bytes);
	return 0;
}
