/* SPDX-License-Identifier: BSD-2-Clause */
/* A program that uses libvmem-core.a. */
#include <vmem.h>

int main(void)
{
	vmem_pool *pool;

	/* Without an allocator there is no pool. */
	return vmem_pool_new(&pool, NULL) != -VMEM_EINVAL;
}
