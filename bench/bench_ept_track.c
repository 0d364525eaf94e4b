/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-ept: accessed and dirty bits read. */
#include "harness.h"
#include "machine.h"
#include "bench_ept.h"
#include <vmem/ept_track.h>

#define GIB (UINT64_C(1) << 30)
#define PAGES ((uint32_t)(GIB / 4096))

/* --- Harvest of 1 GiB of 4 KiB --- */

static uint64_t accessed[PAGES / 64], dirty[PAGES / 64];

static int ours_harvest(void *context, double *values)
{
	struct vmem_ept_harvest harvest = { .size = sizeof(harvest),
					    .accessed = accessed,
					    .dirty = dirty };
	struct ept_bench *b = context;
	uint64_t start = machine_thread_cpu_ns();
	int error = 0;

	for (uint32_t i = 0; i < b->turns && !error; i++)
		error = vmem_ept_harvest(b->ept, 0, GIB, 0, &harvest, &b->change);
	values[0] = (double)(machine_thread_cpu_ns() - start) / b->turns / PAGES;
	return error;
}

static int bare_harvest(void *context, double *values)
{
	struct ept_bench *b = context;
	uint64_t all = 0, start = machine_thread_cpu_ns();

	for (uint32_t i = 0; i < b->turns; i++)
		for (uint32_t page = 0; page < PAGES; page++)
			all |= __atomic_load_n(&b->bare[page], __ATOMIC_RELAXED);
	values[0] = (double)(machine_thread_cpu_ns() - start) / b->turns / PAGES;
	b->sink = all;
	return 0;
}

static int compare_harvest(struct bench *bench, struct ept_bench *b, const char *condition,
			   uint32_t flags)
{
	const struct bench_metric metric = { "harvest_1g_4k_ns_per_page", "ns", condition, 0 };
	const struct bench_comparison comparison = {
		.metrics = &metric,
		.metric_count = 1,
		.context = b,
		.ours = { "libvmem", ours_harvest, NULL },
		.limit = { "plain-loop", bare_harvest, NULL },
	};
	const struct vmem_ept_leaf leaf = {
		.rights = VMEM_EPT_READ | VMEM_EPT_WRITE,
		.type = VMEM_EPT_WB,
		.flags = flags,
		.level = 1,
	};
	int error = vmem_ept_map(b->ept, 0, GIB, &leaf, VMEM_EPT_REPLACE, &b->change);

	return error ? error : bench_compare(bench, &comparison);
}

int ept_bench_track(struct bench *bench, struct ept_bench *b)
{
	const uint32_t all = VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY;
	int error;

	b->flags = VMEM_EPT_AD;
	if ((error = ept_bench_make(b)) != 0 ||
	    (error = compare_harvest(bench, b, "nothing set", 0)) != 0)
		return error;
	return compare_harvest(bench, b, "all set", all);
}
