/* SPDX-License-Identifier: BSD-2-Clause */
/* See stored.h. */
#include "linux/stored.h"
#include <assert.h>
#include <stdio.h>
#include "pool/pool_internal.h"
#include "pool/pool_of.h"
#include "store/out.h"
#include "store/slow_tier.h"

static struct vmemt_slow_tier tier;

unsigned char *vmemt_stored_bytes(vmem_store *store, vmem_store_ref ref, uint32_t *ret_bytes)
{
	assert(vmemi_ref_tier(ref) == VMEMI_REF_POOL);
	return vmemi_pool_object_bytes(store->pool, vmemi_ref_payload(ref), ret_bytes);
}

static bool is_behind(vmem_store *store, uint32_t handle, uint64_t from, uint32_t *ret_reference)
{
	struct vmemi_located at;
	uint64_t end;

	if (vmemi_pool_locate(store->pool, VMEMI_ANY_STREAM, handle, &at))
		return false;
	vmemi_pool_located_end(store->pool, &at);
	end = VMEM_SLOT_NUMBER(at.place) * VMEMI_OUT_BLOCK + at.offset + at.bytes;
	*ret_reference = at.reference;
	return !VMEM_SLOT_DEVICE(at.place) &&
	       (end + VMEMI_OUT_BLOCK - 1) / VMEMI_OUT_BLOCK * VMEMI_OUT_BLOCK > from;
}

bool vmemt_stored_behind(vmem_store *store, vmem_store_ref ref, uint64_t from)
{
	uint32_t reference = 0;

	if (vmemi_ref_tier(ref) != VMEMI_REF_POOL)
		return false;
	return is_behind(store, (uint32_t)vmemi_ref_payload(ref), from, &reference) ||
	       (reference && is_behind(store, reference, from, &reference));
}

uint32_t vmemt_stored_at_once(vmem_store *store)
{
	return (uint32_t)__builtin_popcountll(atomic_load(&store->pool->idle_slots));
}

void vmemt_stored_check(vmem_store *store)
{
	const char *wrong = vmemi_store_check(store);

	if (wrong)
		fprintf(stderr, "%s\n", wrong);
	assert(!wrong);
}

void vmemt_slow_start(vmem_store *store)
{
	vmemt_slow_tier_init(&tier, store);
}

void vmemt_slow_stop(void)
{
	vmemt_slow_tier_destroy(&tier);
}

void vmemt_slow_hold(int hold)
{
	atomic_store(&tier.hold, hold);
}

void vmemt_slow_at_poll(int at_poll)
{
	atomic_store(&tier.at_poll, at_poll);
}

uint32_t vmemt_slow_held(void)
{
	return vmemt_slow_tier_held(&tier);
}

int vmemt_slow_finish(uint32_t nth, int result)
{
	return vmemt_slow_tier_finish(&tier, nth, result);
}
