/* SPDX-License-Identifier: BSD-2-Clause */
/* A recorded working set: runs of pages in the order of their first touch. Does not change once it is made. */
#ifndef VMEMI_WORKING_SET_H
#define VMEMI_WORKING_SET_H
#include "base/stream.h"
#include <stdbool.h>
#include <vmem/working_set.h>

#define VMEMI_WORKING_SET_PAGES_MAX ((uint64_t)UINT32_MAX) /* of a region */

struct vmemi_working_run {
	uint32_t first, pages;
};

struct vmem_working_set {
	struct vmem_allocator allocator; /* a copy */
	uint64_t gpa;                    /* of the region */
	uint64_t region_pages;           /* at most VMEMI_WORKING_SET_PAGES_MAX */
	uint64_t missed;
	uint64_t pages; /* in all runs: at most region_pages */
	uint64_t count, capacity;
	struct vmemi_working_run *runs; /* each within the region */
};

/* An empty set. 0, -VMEM_ENOMEM. */
int vmemi_working_set_new(struct vmem_working_set **ret_set, const struct vmem_allocator *a);

/* Adds pages to the last run, if they continue it, or as a run. 0, -VMEM_ENOMEM. */
int vmemi_working_set_add(struct vmem_working_set *set, uint32_t first, uint32_t pages);

/* The file, from and to numbers. Pure. Getting: into an empty set, at most @max_pages (not 0); what came of it is
 * in s->err: also -VMEM_ENOMEM, -VMEM_ENOTSUP, -VMEM_ERANGE. */
void vmemi_working_set_put(const struct vmem_working_set *set, struct vmemi_stream *s);
void vmemi_working_set_get(struct vmem_working_set *set, uint64_t max_pages,
			   struct vmemi_stream *s);

#endif
