/* SPDX-License-Identifier: BSD-2-Clause */
/* Pools with deltas, for tests. */
#ifndef VMEMT_DELTA_TOOLS_H
#define VMEMT_DELTA_TOOLS_H
#include "pool/patch_codec.h"
#include "pool/pool_tools.h"

enum { FILLER = 1000 }; /* pages that seal the first segments */

static inline vmem_pool *open_with_deltas(void)
{
	const struct vmem_codec *codecs[] = { vmem_codec_lz4(), vmemt_patch_codec() };
	struct vmem_pool_opts opts = { .size = sizeof(opts), .codecs = codecs, .codec_count = 2 };

	return pool_open(&opts);
}

/* A page that differs from a page of text in some places. */
static inline void make_like(struct vmemt_page *page, uint64_t seed, unsigned edits)
{
	vmemt_page_make(page, VMEMT_PAGE_TEXT, seed);
	for (unsigned i = 0; i < edits; i++)
		page->bytes[i * 61 % VMEM_PAGE_SIZE] ^= (unsigned char)(i + 1);
}

static inline vmem_pool_handle save_page(vmem_pool *pool, uint32_t stream,
					 const struct vmemt_page *page)
{
	vmem_pool_handle handle;

	cr_assert_eq(vmem_pool_save_page(pool, stream, 0, page->bytes, VMEM_PAGE_SIZE, &handle), 0);
	return handle;
}

static inline void seal(vmem_pool *pool, uint32_t stream)
{
	for (uint64_t i = 0; i < FILLER; i++)
		save(pool, stream, VMEMT_PAGE_TEXT, i + 1000);
}

static inline void expect_like(vmem_pool *pool, vmem_pool_handle handle, uint64_t seed,
			       unsigned edits)
{
	struct vmemt_page expected, page;

	make_like(&expected, seed, edits);
	memset(page.bytes, 0x77, sizeof(page.bytes));
	cr_assert_eq(vmem_pool_load_page(pool, handle, page.bytes), 0);
	cr_assert_eq(memcmp(&page, &expected, sizeof(page)), 0);
}

/* Makes a delta of it, against a page like it without edits. What replace returns. */
static inline int make_delta(vmem_pool *pool, const struct vmemi_held *held, uint64_t seed,
			     unsigned edits, vmem_pool_handle reference)
{
	struct vmemt_page page, base;
	unsigned char payload[VMEM_PAGE_SIZE];
	struct vmemi_encoded e = { .codec = VMEM_CODEC_DELTA,
				   .payload = payload,
				   .reference = (uint32_t)reference };

	make_like(&page, seed, edits);
	make_like(&base, seed, 0);
	e.bytes = vmemi_pool_encode(pool, VMEM_CODEC_DELTA, page.bytes, base.bytes, payload, 2048);
	cr_assert_eq(e.bytes, edits * sizeof(struct vmemt_patch));
	return vmemi_pool_replace(pool, held, &e);
}

/* A page and a delta against it. */
struct pair {
	uint32_t stream;
	vmem_pool_handle base, like;
};

static inline struct pair make_pair(vmem_pool *pool)
{
	struct pair pair = { .stream = stream_open(pool) };
	struct vmemi_described d;
	struct vmemi_held held;
	struct vmemt_page page;

	make_like(&page, 1, 0);
	pair.base = save_page(pool, pair.stream, &page);
	make_like(&page, 1, 20);
	pair.like = save_page(pool, pair.stream, &page);
	seal(pool, pair.stream);
	cr_assert(vmemi_pool_hold(pool, pair.stream, pair.like, &held, &d));
	cr_assert(d.stream == pair.stream && d.codec == VMEM_CODEC_LZ4);
	cr_assert_eq(d.checksum, vmemi_pool_checksum(pool, page.bytes));
	cr_assert_eq(make_delta(pool, &held, 1, 20, pair.base), 0);
	vmemi_pool_let_go(pool, &held);
	return pair;
}

#endif
