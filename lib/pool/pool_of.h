/* SPDX-License-Identifier: BSD-2-Clause */
/* Calls on an object of one stream, for an owner of many streams that is given handles from outside: an
 * object of another stream, which the handle may lead to since its own was dropped, is none. */
#ifndef VMEMI_POOL_OF_H
#define VMEMI_POOL_OF_H
#include <vmem/pool.h>

/* As vmem_pool_load_page(). -VMEM_ENOENT too if the object is not in @stream. Any thread. */
int vmemi_pool_load_of(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle, void *page);

/* As vmem_pool_drop(). -VMEM_ENOENT too if the object is not in @stream: of several drops of one object
 * one succeeds. @ret_codec: what was dropped, set on success only; may be NULL. Any thread. */
int vmemi_pool_drop_of(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle,
		       uint32_t *ret_codec);

/* Counts and notes a corrupt object of a stream that exists, as a load that finds one does. Any thread. */
void vmemi_pool_corrupt_of(vmem_pool *pool, uint32_t stream, vmem_pool_handle handle);

#endif
