/* SPDX-License-Identifier: BSD-2-Clause */
/* Tables grow with the pages that come. Here they shrink when pages have gone: a VM that has
 * dropped many is marked, and a pass over all VMs, while there is nothing better to do, looks at those
 * that are.
 *
 * Only one thread is here: that of vmem_store_work(). */
#include "store/store_internal.h"

#define PIECE_LINES 32u /* that tables give up: about 30 us */
#define PIECE_VMS 16u   /* whose tables are looked at */
#define PIECE_STEPS 4096u

void vmemi_store_loosen(vmem_store *store, struct vmemi_vm *vm)
{
	if (!atomic_load_explicit(&vm->loose, memory_order_relaxed))
		atomic_store(&vm->loose, true);
	if (!atomic_load(&store->loose)) /* after the VM's: a pass that begins now sees that */
		atomic_store(&store->loose, true);
}

/* True: it has more to give. */
static bool shrink_vm(vmem_store *store, struct vmemi_vm *vm)
{
	bool more = false;

	vmemi_lock(
		&store->cold.lock); /* neither the VM's tables nor its domain go away meanwhile */
	if (atomic_load(&vm->live) && vm->domain->dedup)
		more = vmem_dedup_work(vm->holds.more, PIECE_LINES) ||
		       vmemi_domain_shrink(vm->domain, PIECE_LINES);
	vmemi_unlock(&store->cold.lock);
	return more;
}

static uint32_t vms_end(vmem_store *store)
{
	uint32_t end;

	vmemi_lock(&store->vm_lock);
	end = store->vm_high;
	vmemi_unlock(&store->vm_lock);
	return end;
}

bool vmemi_store_shrink(vmem_store *store)
{
	uint32_t end, vms = 0, steps = 0;

	if (!store->shrinking && !atomic_exchange(&store->loose, false))
		return false;
	store->shrinking = true;
	end = vms_end(store);
	for (; store->shrink_hand < end; store->shrink_hand++) {
		struct vmemi_vm *vm = vmemi_store_vm(store, store->shrink_hand);

		if (vms == PIECE_VMS || steps++ == PIECE_STEPS)
			return true;
		if (!vm || !atomic_exchange(&vm->loose, false))
			continue;
		vms++;
		if (shrink_vm(store, vm)) {
			atomic_store(&vm->loose, true); /* first in the next piece */
			return true;
		}
	}
	store->shrink_hand = 0;
	store->shrinking = false;
	return atomic_load(&store->loose);
}
