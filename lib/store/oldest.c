/* SPDX-License-Identifier: BSD-2-Clause */
/* The pages of a VM that have been in the pool for longest. The pool knows the order of all objects of a domain,
 * the VM which of them are its own. */
#include "pool/pool_oldest.h"
#include "store/store_internal.h"

#define LOOKS 4096u /* in one call: below a millisecond */
#define BATCH 64u

uint32_t vmem_store_oldest(vmem_store *store, uint32_t vm_number, uint64_t *cursor,
			   vmem_store_ref *refs, uint32_t capacity)
{
	struct vmemi_vm *vm = vmemi_store_vm(store, vm_number);
	uint32_t handle[BATCH], looks = LOOKS, count = 0;

	if (!vm) {
		*cursor = 0;
		return 0;
	}
	do {
		uint32_t found = vmemi_pool_oldest(store->pool, vm->domain->stream, cursor, handle,
						   BATCH, &looks);

		for (uint32_t i = 0; i < found; i++) {
			if (!vmemi_vm_owns(vm, handle[i]))
				continue;
			if (count == capacity) {
				*cursor = handle[i];
				return count;
			}
			refs[count++] = vmemi_ref_make(VMEMI_REF_POOL, vm_number, handle[i]);
		}
	} while (*cursor && looks && count < capacity);
	return count;
}
