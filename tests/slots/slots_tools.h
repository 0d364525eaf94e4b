/* SPDX-License-Identifier: BSD-2-Clause */
/* An allocator of slots for tests. */
#ifndef VMEMT_SLOTS_TOOLS_H
#define VMEMT_SLOTS_TOOLS_H
#include <assert.h>
#include <vmem/slots.h>
#include "slots/slots_internal.h"
#include "support/fail_alloc.h"
#include "support/rng.h"

#define CLUSTER VMEM_SLOTS_CLUSTER

static inline vmem_slots *vmemt_slots_new_in(struct vmemt_fail_alloc *a, const struct vmem_env *env)
{
	struct vmem_slots_opts opts = { .size = sizeof(opts), .env = env };
	vmem_slots *s = NULL;
	int err;

	vmemt_fail_alloc_init(a);
	opts.allocator = &a->allocator;
	err = vmem_slots_new(&s, &opts);
	assert(!err);
	return err ? NULL : s;
}

static inline vmem_slots *vmemt_slots_new(struct vmemt_fail_alloc *a)
{
	return vmemt_slots_new_in(a, NULL);
}

/* The library's environment, but that there is no barrier. */
static inline const struct vmem_env *vmemt_slots_no_barrier(struct vmem_env *ret)
{
	*ret = *vmemi_env_default();
	ret->barrier = NULL;
	return ret;
}

static inline uint32_t vmemt_slots_add(vmem_slots *s, uint64_t clusters, int32_t priority,
				       uint32_t discard_least)
{
	struct vmem_slots_device d = { .size = sizeof(d),
				       .count = clusters * CLUSTER,
				       .max_count = 4 * clusters * CLUSTER,
				       .priority = priority,
				       .discard_least = discard_least };
	uint32_t device = UINT32_MAX;
	int err = vmem_slots_add(s, &d, &device);

	assert(!err);
	return err ? UINT32_MAX : device;
}

static inline struct vmem_slots_stats vmemt_slots_stats(vmem_slots *s, uint32_t device)
{
	struct vmem_slots_stats stats = { .size = sizeof(stats) };
	int err = vmem_slots_get_stats(s, device, &stats);

	assert(!err);
	(void)err;
	return stats;
}

#endif
