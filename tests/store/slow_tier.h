/* SPDX-License-Identifier: BSD-2-Clause */
/* A tier whose loads take as long as a test wants: it holds the loads of pages in the pool until it is
 * told to finish them, with success or with an error. */
#ifndef VMEMT_SLOW_TIER_H
#define VMEMT_SLOW_TIER_H
#include <pthread.h>
#include <stdatomic.h>
#include "store/store_internal.h"

struct vmemt_slow_tier {
	struct vmemi_store_tier tier;
	vmem_store *store;
	_Atomic int hold;    /* 1: loads are held from now on; 0: they are done at once. Atomic. */
	_Atomic int at_poll; /* 1: each poll finishes the oldest that is held. Atomic. */
	pthread_mutex_t lock;
	uint32_t held;                                  /* lock */
	vmem_store_token token[VMEMI_INFLIGHT_ENTRIES]; /* lock; oldest first */
};

/* Plugs it into the store, holding. */
void vmemt_slow_tier_init(struct vmemt_slow_tier *t, vmem_store *store);

/* Takes it out again. No load may be held. */
void vmemt_slow_tier_destroy(struct vmemt_slow_tier *t);

uint32_t vmemt_slow_tier_held(struct vmemt_slow_tier *t);

/* Finishes the load that is @nth oldest, with 0 or an error. 0, -VMEM_ENOENT (fewer are held). */
int vmemt_slow_tier_finish(struct vmemt_slow_tier *t, uint32_t nth, int result);

#endif
