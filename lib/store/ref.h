/* SPDX-License-Identifier: BSD-2-Clause */
/* A reference in one word: which tier holds the page, whose it is, and the tier's own name for it.
 *
 *     55    52 51   48 47      32 31       0
 *     | tier  |   0   |    vm    | payload |
 *
 * The VM is in it so that a reference which is not the caller's is told by one comparison. */
#ifndef VMEMI_REF_H
#define VMEMI_REF_H
#include <vmem/store.h>

enum vmemi_ref_tier {
	VMEMI_REF_SAME = 1, /* payload: the 32-bit value that the page repeats */
	VMEMI_REF_POOL = 2, /* payload: the handle in the pool */
			    /* 3..15 are for slots of devices, shared copies and deltas */
};

static inline vmem_store_ref vmemi_ref_make(enum vmemi_ref_tier tier, uint32_t vm, uint64_t payload)
{
	return (uint64_t)tier << 52 | (uint64_t)vm << 32 | (payload & UINT32_MAX);
}

/* The tier, or none of them when a bit is set that is 0 in every reference. */
static inline uint32_t vmemi_ref_tier(vmem_store_ref ref)
{
	uint64_t high = ref >> 48;

	return high & 0xf ? 0 : (uint32_t)(high >> 4);
}

static inline uint32_t vmemi_ref_vm(vmem_store_ref ref)
{
	return (uint32_t)(ref >> 32) & 0xffff;
}

static inline uint32_t vmemi_ref_payload(vmem_store_ref ref)
{
	return (uint32_t)ref;
}

#endif
