/* SPDX-License-Identifier: BSD-2-Clause */
/* An index and sketches without pages. */
#ifndef VMEMT_SIMILAR_TOOLS_H
#define VMEMT_SIMILAR_TOOLS_H
#include <criterion/criterion.h>
#include <vmem/similar.h>
#include "similar/similar_table.h"
#include "support/fail_alloc.h"
#include "support/rng.h"

static inline vmem_similar *vmemt_similar_new(struct vmemt_fail_alloc *a, uint64_t max_bytes)
{
	struct vmem_similar_opts opts = { .size = sizeof(opts), .max_bytes = max_bytes };
	vmem_similar *s = NULL;

	vmemt_fail_alloc_init(a);
	opts.allocator = &a->allocator;
	cr_assert_eq(vmem_similar_new(&s, &opts), 0);
	return s;
}

/* The features of page @n: others than those of all other pages, as good as always. */
static inline struct vmem_similar_sketch vmemt_sketch(uint64_t n)
{
	struct vmem_similar_sketch sketch;
	uint64_t state = n * 8;

	for (uint32_t i = 0; i < VMEM_SIMILAR_FEATURES; i++)
		sketch.feature[i] = (uint32_t)(vmemt_rand(&state) % UINT32_MAX) + 1;
	return sketch;
}

static inline struct vmem_similar_stats vmemt_similar_stats(const vmem_similar *s)
{
	struct vmem_similar_stats stats = { .size = sizeof(stats) };

	cr_assert_eq(vmem_similar_get_stats(s, &stats), 0);
	return stats;
}

#endif
