/* SPDX-License-Identifier: BSD-2-Clause */
/* The objects of a stream by age: from the oldest segment to the youngest, in each in the order in which they
 * lie there. */
#ifndef VMEMI_POOL_OLDEST_H
#define VMEMI_POOL_OLDEST_H
#include <stdbool.h>
#include <vmem/pool.h>

/* A walk, resumable. */
struct vmemi_oldest {
	uint32_t stream;
	uint32_t
		looks; /* how many objects may be looked at, dead ones too; at 0 it ends at the next live one */
	uint64_t
		cursor; /* 0 to begin with the oldest; where to go on, 0 at the end: the next object and its
	                    segment. If it lies elsewhere by now, the walk begins with the oldest. */
	bool (*is_wanted)(const void *context, uint32_t handle);
	const void *context;
};

/* Writes up to @capacity handles of live objects that are wanted. An object that moves meanwhile may come twice
 * or not at all; those of a segment that is being written to, and of younger ones, do not come. Holds no
 * lock but to step from one segment to the next. Any thread. */
uint32_t vmemi_pool_oldest(vmem_pool *pool, struct vmemi_oldest *walk, uint32_t *handles,
			   uint32_t capacity);

#endif
