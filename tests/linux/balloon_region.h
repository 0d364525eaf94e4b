/* SPDX-License-Identifier: BSD-2-Clause */
/* A region and what gives its pages back, for a file of tests: short names, as it is all that they are about. */
#ifndef VMEMT_BALLOON_REGION_H
#define VMEMT_BALLOON_REGION_H
#include "linux/guest.h"
#include <vmem/discard.h>

#define PAGE ((uint64_t)VMEM_PAGE_SIZE)

static struct vmemt_cpu cpu;
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static vmem_discard *discard;
static struct vmem_balloon_guard guard;
static uint64_t first_gpa;

/* The region, which begins at @gpa, is a guest's, and all that @discard has. */
static inline void join(uint64_t gpa)
{
	struct vmem_discard_piece p = { .size = sizeof(p), .kind = VMEM_DISCARD_REGION };

	first_gpa = gpa;
	base = vmem_region_hva(region);
	cpu.region = region;
	p.region = region;
	assert(!vmem_discard_add(discard, &p));
	guard.size = sizeof(guard);
	assert(!vmem_discard_get_guard(discard, &guard));
}

static inline void unmake(void)
{
	vmem_discard_free(discard);
	vmemt_check(manager, region);
	vmemt_end(manager, region);
}

static inline struct vmem_discard_metrics metrics(void)
{
	struct vmem_discard_metrics m = { .size = sizeof(m) };

	assert(!vmem_discard_get_metrics(discard, &m));
	return m;
}

/* Pages of the region that the guest has said are free. */
static inline int hint(uint64_t first, uint64_t count, uint64_t *released)
{
	const struct vmem_balloon_range r = { .gpa = first_gpa + first * PAGE,
					      .bytes = count * PAGE,
					      .operation = VMEM_BALLOON_DISCARD_HINTED };

	return vmem_discard_ranges(discard, &r, 1, released);
}

#endif
