/* SPDX-License-Identifier: BSD-2-Clause */
/* The objects of a stream by age: from the oldest segment to the youngest, in each in the order in which they
 * lie there. */
#ifndef VMEMI_POOL_OLDEST_H
#define VMEMI_POOL_OLDEST_H
#include <vmem/pool.h>

/* Writes up to @capacity handles of live objects, and to @cursor where to go on, 0 at the end: the handle of
 * the next one; with 0, or if that is gone, it begins with the oldest. @looks: how many objects are looked
 * at, dead ones too; less by those that were; at 0 it ends at the next live one. An object that moves
 * meanwhile may come twice or not at all; those of a segment that is being written to, and of younger ones,
 * do not come. Holds no lock but to step from one segment to the next. Any thread. */
uint32_t vmemi_pool_oldest(vmem_pool *pool, uint32_t stream, uint64_t *cursor, uint32_t *handles,
			   uint32_t capacity, uint32_t *looks);

#endif
