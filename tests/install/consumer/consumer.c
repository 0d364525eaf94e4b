/* SPDX-License-Identifier: BSD-2-Clause */
/* A program that uses libvmem: a page goes into a pool and comes back. Also compiled as C++. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdlib.h>
#include <string.h>
#include <vmem.h>
#ifdef WITH_JEMALLOC
#include <vmem/jemalloc.h>
#endif
#ifdef WITH_CRYPTO
#include <vmem/crypto.h>
#endif
#include "owner.h"

static const struct vmem_allocator *allocator(void)
{
#ifdef WITH_JEMALLOC
	static vmem_jemalloc *jemalloc;

	return jemalloc || !vmem_jemalloc_new(&jemalloc, NULL) ? vmem_jemalloc_allocator(jemalloc)
							       : NULL;
#else
	return NULL;
#endif
}

static int has_crypto(void)
{
#ifdef WITH_CRYPTO
	struct vmem_device *device;

	return vmem_crypto_open(&device, NULL, NULL) == -VMEM_EINVAL;
#else
	return 1;
#endif
}

int main(void)
{
	static uint64_t page[512], loaded[512];
	struct vmem_pool_opts opts;
	vmem_pool_handle handle;
	vmem_pool *pool;
	uint32_t stream;

	memset(&opts, 0, sizeof(opts));
	opts.size = sizeof(opts);
	opts.allocator = allocator();
	for (int i = 0; i < 512; i++)
		page[i] = (uint64_t)i / 8;
	if (vmem_pool_new(&pool, &opts) || vmem_pool_stream_new(pool, &stream) ||
	    vmem_pool_save_page(pool, stream, 0, page, VMEM_PAGE_SIZE, &handle) ||
	    vmem_pool_load_page(pool, handle, loaded) || memcmp(page, loaded, sizeof(page)))
		return 1;
	vmem_pool_free(pool);
	if (!has_crypto())
		return 2;
	return malloc_is_foreign();
}
