/* SPDX-License-Identifier: BSD-2-Clause */
/* A table for tests whose pages are numbers: a page is a pointer to its number, and object or hint n has
 * the number content[n]. */
#ifndef VMEMT_DEDUP_TOOLS_H
#define VMEMT_DEDUP_TOOLS_H
#include <criterion/criterion.h>
#include <vmem/dedup.h>
#include "dedup/dedup_internal.h"
#include "support/fail_alloc.h"
#include "support/rng.h"
#include "support/slow.h"

enum { IDS = 1 << 20 };

static uint32_t content[IDS];
static unsigned compared, hints_compared, prefetched, released;
static uint32_t last_released;

/* The same for the same number, else different. */
static inline uint32_t hash_of(uint32_t number)
{
	return number * UINT32_C(2654435761);
}

static inline int tools_compare(void *context, uint32_t id, const void *page)
{
	(void)context;
	compared++;
	return content[id] == *(const uint32_t *)page;
}

static inline int tools_compare_hint(void *context, uint32_t key, const void *page)
{
	(void)context;
	hints_compared++;
	return content[key] == *(const uint32_t *)page;
}

static inline void tools_prefetch(void *context, uint32_t id)
{
	(void)context;
	(void)id;
	prefetched++;
}

static inline void tools_release(void *context, uint32_t id)
{
	(void)context;
	released++;
	last_released = id;
}

static inline struct vmem_dedup_opts tools_opts(void)
{
	return (struct vmem_dedup_opts){ .size = sizeof(struct vmem_dedup_opts),
					 .compare = tools_compare,
					 .compare_hint = tools_compare_hint,
					 .prefetch = tools_prefetch,
					 .release = tools_release };
}

static inline struct vmem_dedup_stats tools_stats(vmem_dedup *d)
{
	struct vmem_dedup_stats stats = { .size = sizeof(stats) };

	cr_assert_eq(vmem_dedup_get_stats(d, &stats), 0);
	return stats;
}

static inline void expect_sound(vmem_dedup *d)
{
	const char *wrong = vmemi_dedup_check(d);

	cr_assert_null(wrong, "%s", wrong);
}

#endif
