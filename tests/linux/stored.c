/* SPDX-License-Identifier: BSD-2-Clause */
/* See stored.h. */
#include "linux/stored.h"
#include <assert.h>
#include <stdio.h>
#include "pool/pool_internal.h"
#include "store/slow_tier.h"

static struct vmemt_slow_tier tier;

unsigned char *vmemt_stored_bytes(vmem_store *store, vmem_store_ref ref, uint32_t *ret_bytes)
{
	assert(vmemi_ref_tier(ref) == VMEMI_REF_POOL);
	return vmemi_pool_object_bytes(store->pool, vmemi_ref_payload(ref), ret_bytes);
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
