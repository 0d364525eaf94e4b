/* SPDX-License-Identifier: BSD-2-Clause */
/* Which devices can be read, as far as is known. One that is gone, or has not given a load what was written there, is
 * in doubt until some loads from it have succeeded; so is one that does not answer, and one that is given up. Who has
 * the bytes of a page still, asks here before it relies on those that are stored. */
#include "store/out.h"
#include "pool/pool_of.h"
#include "store/store_internal.h"

#define DOUBT 64u /* a device of which a part is bad, reads others well */

void vmemi_out_doubt(struct vmemi_out_device *d)
{
	atomic_store_explicit(&d->doubt, DOUBT, memory_order_relaxed);
}

void vmemi_out_trust(struct vmemi_out_device *d)
{
	uint32_t doubt = atomic_load_explicit(&d->doubt, memory_order_relaxed);

	/* A failure meanwhile counts more. */
	if (doubt)
		(void)atomic_compare_exchange_strong_explicit(
			&d->doubt, &doubt, doubt - 1, memory_order_relaxed, memory_order_relaxed);
}

static bool is_in_doubt(const struct vmemi_out_device *d)
{
	return atomic_load_explicit(&d->doubt, memory_order_relaxed) ||
	       atomic_load_explicit(&d->silent, memory_order_relaxed) ||
	       atomic_load_explicit(&d->gives_up, memory_order_relaxed);
}

/* Whether there is any, or a segment that was given up: mostly there is none, and nothing to look for. */
static bool is_any_in_doubt(const struct vmemi_out *out)
{
	uint32_t devices = atomic_load_explicit(&out->devices, memory_order_acquire);
	bool any = vmemi_counter(&out->given_up) != 0;

	for (uint32_t i = 0; i < devices && !any; i++)
		any = is_in_doubt(&out->device[i]);
	return any;
}

static bool can_read(vmem_store *store, uint32_t stream, uint32_t handle)
{
	struct vmemi_located at;
	int rc = vmemi_pool_locate(store->pool, stream, handle, &at);

	if (rc)
		return rc == -VMEM_EAGAIN; /* in memory */
	vmemi_pool_located_end(store->pool, &at);
	return !is_in_doubt(&store->out->device[VMEM_SLOT_DEVICE(at.place)]);
}

bool vmemi_store_can_load(vmem_store *store, uint32_t vm_number, vmem_store_ref ref)
{
	const struct vmemi_vm *vm = vmemi_store_vm(store, vm_number);
	uint32_t handle = vmemi_ref_payload(ref), reference;

	if (!vm || vmemi_ref_tier(ref) != VMEMI_REF_POOL || !store->out ||
	    !is_any_in_doubt(store->out))
		return true;
	reference = vmemi_pool_reference(store->pool, vm->domain->stream, handle);
	return can_read(store, vm->domain->stream, handle) &&
	       (!reference || can_read(store, vm->domain->stream, reference));
}
