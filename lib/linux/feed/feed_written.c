/* SPDX-License-Identifier: BSD-2-Clause */
/* Asynchronous write-protection: the kernel makes a protected page writable by itself when it is written, and tells
 * later that it was. A piece of the region is asked for at a time, which protects it again; a large region takes
 * several times. */
#include "base/mem.h"
#include "linux/kernel/pagemap.h"
#include "linux/region/table.h"
#include <vmem/feed.h>

#define PIECE (UINT64_C(1) << 18) /* pages: 1 GiB, some milliseconds */
#define ASK_NS UINT64_C(20000000) /* no further piece is begun after that */

/* Of the bitmap: room for what the region may grow to, too. */
static size_t bytes_of(const struct vmem_region *r)
{
	uint64_t pages = r->arrays.most < PIECE ? r->arrays.most : PIECE;

	return (size_t)((pages + 63) / 64 * sizeof(uint64_t));
}

static int can_watch(const struct vmem_region *r)
{
	return r->async_wp ? 0 : -VMEM_ENOTSUP;
}

static int open_watch(struct vmem_region *r)
{
	r->feed.bitmap = vmemi_zalloc(&r->host->metadata.allocator, bytes_of(r), 64);
	return r->feed.bitmap ? 0 : -VMEM_ENOMEM;
}

static void close_watch(struct vmem_region *r)
{
	vmemi_free(&r->host->metadata.allocator, r->feed.bitmap, bytes_of(r), 64);
	r->feed.bitmap = NULL;
}

static int ask_piece(struct vmem_region *r, uint64_t first, uint64_t count)
{
	int error;

	memset(r->feed.bitmap, 0, bytes_of(r));
	error = vmemi_pagemap_take_written(r->host->k, r->host->pagemap,
					   (uintptr_t)vmemi_region_page(r, first), count,
					   r->feed.bitmap);
	/* What it has told before it failed will not be told again. */
	vmemi_ages_saw(r, first, count, r->feed.bitmap);
	return error;
}

static int ask_watch(struct vmem_region *r)
{
	const struct vmemi_kernel *k = r->host->k;
	uint64_t start = k->clock_ns(), done = 0;
	int error;

	do {
		uint64_t first = r->feed.hand, rest = r->pages - first;
		uint64_t count = rest < PIECE ? rest : PIECE;

		error = ask_piece(r, first, count);
		r->feed.hand = first + count == r->pages ? 0 : first + count;
		done += count;
	} while (!error && done < r->pages && k->clock_ns() - start < ASK_NS);
	return error;
}

const struct vmemi_feed_kind vmemi_feed_written = { .name = "asynchronous write-protect",
						    .number = VMEM_FEED_ASYNC_WP,
						    .sees = VMEM_FEED_SEES_WRITES |
							    VMEM_FEED_SEES_IN_PLACE,
						    .guest_ns = 2000,
						    .can = can_watch,
						    .open = open_watch,
						    .close = close_watch,
						    .ask = ask_watch };
