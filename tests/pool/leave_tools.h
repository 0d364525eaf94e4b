/* SPDX-License-Identifier: BSD-2-Clause */
/* A device that is an array of copies of segments, for the tests of pools whose segments go out. */
#ifndef VMEMT_LEAVE_TOOLS_H
#define VMEMT_LEAVE_TOOLS_H
#include "pool/pool_tools.h"
#include "pool/pool_out.h"

enum { COPIES = 64 };

/* What a device would have. */
static struct {
	unsigned char *bytes; /* NULL: not in use */
	uint32_t blocks;
} copies[COPIES];

static _Alignas(4096) unsigned char scratch[SEGMENT];
static uint32_t hand;

static inline void vacate(void *context, uint64_t place, uint32_t blocks)
{
	cr_assert_eq(context, &copies);
	if (place == VMEMI_PLACE_LOST)
		return;
	cr_assert(place < COPIES && copies[place].bytes && copies[place].blocks == blocks);
	free(copies[place].bytes);
	copies[place].bytes = NULL;
}

static inline void with_devices(vmem_pool *pool)
{
	const struct vmemi_pool_devices devices = { vacate, &copies };

	vmemi_pool_set_devices(pool, &devices);
}

static inline uint64_t write_copy(const struct vmemi_leaving *l)
{
	uint64_t place = 0;

	while (place < COPIES && copies[place].bytes)
		place++;
	cr_assert_lt(place, COPIES);
	copies[place].bytes = malloc(l->bytes);
	copies[place].blocks = l->bytes / VMEMI_OUT_BLOCK;
	memcpy(copies[place].bytes, l->data, l->bytes);
	return place;
}

/* Writes one segment. False: there is none that can leave. */
static inline bool leave(vmem_pool *pool)
{
	struct vmemi_leaving l;

	if (!vmemi_pool_leave_begin(pool, &hand, scratch, &l))
		return false;
	cr_assert(vmemi_pool_leave_end(pool, &l, write_copy(&l)));
	cr_assert(vmemi_pool_leave_freed(pool, &l));
	return true;
}

/* Who saves the page of a seed, one in three without a name. */
static inline struct vmemi_origin origin_of(uint64_t seed)
{
	static const uint32_t extra[] = { VMEMI_EXTRA_NONE, VMEMI_EXTRA_KEY, VMEMI_EXTRA_KEY_VM };

	return (struct vmemi_origin){ .key = ~seed << 20, .vm = 7, .extra = extra[seed % 3] };
}

static inline vmem_pool_handle save_named(vmem_pool *pool, uint32_t stream,
					  enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page page;
	struct vmemi_page_save save = { .page = page.bytes,
					.max_bytes = VMEM_PAGE_SIZE,
					.origin = origin_of(seed) };
	vmem_pool_handle handle = 0;

	vmemt_page_make(&page, kind, seed);
	save.checksum = vmemi_pool_checksum(pool, page.bytes);
	cr_assert_eq(vmemi_pool_save_of(pool, stream, &save, &handle), 0);
	return handle;
}

#endif
