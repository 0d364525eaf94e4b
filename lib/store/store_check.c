/* SPDX-License-Identifier: BSD-2-Clause */
/* Walks a store and compares its accounts with the pool's: for tests, when no call runs. */
#include "store/store_internal.h"
#include "pool/pool_internal.h"

_Static_assert(VMEMI_STREAMS <= VMEMI_STORE_VMS, "a stream's number is its VM's");

static const char *check_vm(vmem_store *store, struct vmemi_vm *vm, struct vmem_pool_stats *sum)
{
	struct vmem_pool_stats stats = { .size = sizeof(stats) };
	uint64_t in_pool = 0;

	if (vmem_pool_stream_get_stats(store->pool, vm->number, &stats))
		return "store: a VM has no stream";
	for (int c = 0; c < VMEMI_PAGE_CLASSES; c++)
		if (c != VMEMI_PAGE_SAME)
			in_pool += vmemi_counter(&vm->pages[c]);
	if (vmemi_counter(&vm->pages[VMEMI_PAGE_SAME]) > vmemi_counter(&vm->saves))
		return "store: a VM has more pages than it saved";
	if (in_pool != stats.objects)
		return "store: a VM's pages are not its objects in the pool";
	sum->objects += stats.objects;
	sum->live_bytes += stats.live_bytes;
	return NULL;
}

const char *vmemi_store_check(vmem_store *store)
{
	struct vmem_pool_stats pool = { .size = sizeof(pool) };
	struct vmem_pool_stats sum = { 0 };
	const char *wrong = vmemi_inflight_check(&store->inflight);

	for (uint32_t i = 0; i < VMEMI_STORE_VMS && !wrong; i++) {
		struct vmemi_vm *vm = vmemi_store_vm(store, i);

		if (!vm)
			continue;
		if (i >= store->vm_high || vm->number != i)
			return "store: a VM has a wrong number";
		wrong = check_vm(store, vm, &sum);
	}
	if (wrong)
		return wrong;
	if (vmem_pool_get_stats(store->pool, &pool))
		return "store: no statistics of the pool";
	if (sum.objects != pool.objects || sum.live_bytes != pool.live_bytes)
		return "store: the VMs do not add up to the pool";
	return vmemi_pool_check(store->pool);
}
