/* SPDX-License-Identifier: BSD-2-Clause */
/* The pages of a VM that have been in the pool for longest. The pool knows the order of all objects of a domain,
 * the VM which of them are its own. */
#include "pool/pool_oldest.h"
#include "store/store_internal.h"

#define LOOKS 4096u /* in one call: below a millisecond */
#define BATCH 64u

static bool is_own(const void *context, uint32_t handle)
{
	return vmemi_vm_owns(context, handle);
}

uint32_t vmem_store_oldest(vmem_store *store, uint32_t vm_number, uint64_t *cursor,
			   vmem_store_ref *refs, uint32_t capacity)
{
	struct vmemi_vm *vm = vmemi_store_vm(store, vm_number);
	struct vmemi_oldest walk = {
		.looks = LOOKS, .cursor = *cursor, .is_wanted = is_own, .context = vm
	};
	uint32_t handle[BATCH], count = 0, found, room;

	*cursor = 0;
	if (!vm)
		return 0;
	walk.stream = vm->domain->stream;
	do {
		room = capacity - count < BATCH ? capacity - count : BATCH;
		found = vmemi_pool_oldest(store->pool, &walk, handle, room);
		for (uint32_t i = 0; i < found; i++)
			refs[count++] = vmemi_ref_make(VMEMI_REF_POOL, vm_number, handle[i]);
	} while (walk.cursor && walk.looks && count < capacity);
	*cursor = walk.cursor;
	return count;
}
