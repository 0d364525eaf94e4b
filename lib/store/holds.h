/* SPDX-License-Identifier: BSD-2-Clause */
/* Which objects of its domain a VM uses, and how often: so that a ref that it dropped is told, although the
 * object is there for others, and so that all that it uses can be dropped with it. A bit for each handle;
 * those that it uses more than once are counted in a table beside. */
#ifndef VMEMI_HOLDS_H
#define VMEMI_HOLDS_H
#include <stdbool.h>
#include <vmem/dedup.h>
#include "base/lock.h"
#include "pool/pool_table.h"

struct vmemi_holds {
	struct vmemi_lock lock;  /* held by those that change anything */
	struct vmemi_table bits; /* of _Atomic uint64_t, 64 handles each */
	vmem_dedup *more;        /* uses but one, of handles whose bit is set */
};

/* 0, -VMEM_ENOMEM. On failure nothing is left. */
int vmemi_holds_init(struct vmemi_holds *h, const struct vmem_allocator *allocator,
		     const struct vmem_env *env);
/* All zero is fine. */
void vmemi_holds_destroy(struct vmemi_holds *h);

/* One more use. 0, -VMEM_ENOMEM. Any thread. */
int vmemi_holds_add(struct vmemi_holds *h, uint32_t handle);
/* One less. 0, -VMEM_ENOENT. Any thread. */
int vmemi_holds_drop(struct vmemi_holds *h, uint32_t handle);
/* One less of several. 0, -VMEM_EBUSY (it is the only one), -VMEM_ENOENT. Any thread. */
int vmemi_holds_drop_spare(struct vmemi_holds *h, uint32_t handle);
/* Takes no lock. Any thread. */
bool vmemi_holds_has(const struct vmemi_holds *h, uint32_t handle);

/* The first handle from @first on, below @end, that is used; 0: none. */
uint32_t vmemi_holds_next(const struct vmemi_holds *h, uint32_t first, uint32_t end);

/* Bytes of memory. */
uint64_t vmemi_holds_bytes(struct vmemi_holds *h);

#endif
