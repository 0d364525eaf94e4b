/* SPDX-License-Identifier: BSD-2-Clause */
/* Faults as feeds: nobody needs to ask, who serves them notes what they bring back (fault/serve.c). */
#include "linux/backing/backing.h"
#include "linux/region/table.h"
#include <vmem/feed.h>

static int is_private(const struct vmem_region *r)
{
	return r->backing->one_frame ? -VMEM_ENOTSUP : 0;
}

static int is_file(const struct vmem_region *r)
{
	return r->backing->one_frame ? 0 : -VMEM_ENOTSUP;
}

static uint64_t told(const struct vmem_region *r)
{
	const struct vmemi_region_counters *c = &r->counters;

	return c->faults_staged + c->faults_stored + c->faults_source + c->faults_mapped;
}

const struct vmemi_feed_kind vmemi_feed_faults = { .name = "faults",
						   .number = VMEM_FEED_FAULTS,
						   .sees = VMEM_FEED_SEES_READS |
							   VMEM_FEED_SEES_WRITES,
						   .can = is_private,
						   .told = told };

const struct vmemi_feed_kind vmemi_feed_minor_faults = { .name = "minor faults",
							 .number = VMEM_FEED_MINOR_FAULTS,
							 .sees = VMEM_FEED_SEES_READS |
								 VMEM_FEED_SEES_WRITES,
							 .can = is_file,
							 .told = told };
