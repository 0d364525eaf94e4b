/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-ept: accessed and dirty bits read, faults answered by several threads. */
#include "harness.h"
#include "machine.h"
#include "bench_ept.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <vmem/ept_track.h>

#define GIB (UINT64_C(1) << 30)
#define PAGES ((uint32_t)(GIB / 4096))
#define THREADS 2u

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

/* --- Faults: each thread has as many pages of its own, all of them by chance. The last page of each table stays
 * mapped: the tables are there and warm --- */

#define TABLE_BYTES (UINT64_C(2) << 20)
#define FAULTS (PAGES - PAGES / VMEM_EPT_ENTRIES)

struct worker {
	pthread_t thread;
	struct ept_bench *bench;
	uint32_t *order;
	uint32_t self, threads;
	int error;
};

static void *install(void *argument)
{
	struct worker *w = argument;
	struct vmem_ept_leaf leaf = { .rights = VMEM_EPT_READ | VMEM_EPT_WRITE,
				      .type = VMEM_EPT_WB };

	machine_pin(w->self);
	for (uint32_t i = w->self; i < PAGES && !w->error; i += w->threads) {
		leaf.hpa = (uint64_t)w->order[i] << 12;
		if (w->order[i] % VMEM_EPT_ENTRIES == VMEM_EPT_ENTRIES - 1)
			continue;
		w->error = vmem_ept_install(w->bench->ept, leaf.hpa, &leaf, NULL);
	}
	return NULL;
}

static int unmap_faults(struct ept_bench *b)
{
	int error = 0;

	for (uint64_t gpa = 0; gpa < GIB && !error; gpa += TABLE_BYTES)
		error = vmem_ept_unmap(b->ept, gpa, TABLE_BYTES - 4096, &b->change);
	return error;
}

static int measure_install(struct ept_bench *b, uint32_t threads, double *values)
{
	struct worker workers[THREADS];
	uint64_t start = machine_now_ns();
	int error = 0;

	for (uint32_t i = 0; i < threads; i++) {
		workers[i] = (struct worker){
			.bench = b, .order = b->order, .self = i, .threads = threads
		};
		if (pthread_create(&workers[i].thread, NULL, install, &workers[i]) != 0)
			return -EAGAIN;
	}
	for (uint32_t i = 0; i < threads; i++) {
		pthread_join(workers[i].thread, NULL);
		error = error ? error : workers[i].error;
	}
	values[0] = (double)FAULTS / ((double)(machine_now_ns() - start) / 1e9);
	return error ? error : unmap_faults(b);
}

static int install_1(void *context, double *values)
{
	return measure_install(context, 1, values);
}

static int install_2(void *context, double *values)
{
	return measure_install(context, 2, values);
}

static int compare_install(struct bench *bench, struct ept_bench *b, const char *condition,
			   int (*measure)(void *, double *))
{
	const struct bench_metric metric = { "fault_install_per_s", "1/s", condition, 1 };
	const struct bench_comparison comparison = {
		.metrics = &metric,
		.metric_count = 1,
		.context = b,
		.ours = { "libvmem", measure, NULL },
	};

	return bench_compare(bench, &comparison);
}

int ept_bench_track(struct bench *bench, struct ept_bench *b)
{
	const uint32_t all = VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY;
	int error;

	b->flags = VMEM_EPT_AD;
	b->order = malloc(PAGES * sizeof(*b->order));
	if (!b->order)
		return -ENOMEM;
	machine_shuffle(b->order, PAGES, 7);
	if ((error = ept_bench_make(b)) != 0 ||
	    (error = compare_harvest(bench, b, "nothing set", 0)) != 0 ||
	    (error = compare_harvest(bench, b, "all set", all)) != 0 ||
	    (error = unmap_faults(b)) != 0)
		return error;
	if ((error = compare_install(bench, b, "threads=1", install_1)) != 0)
		return error;
	return compare_install(bench, b, "threads=2", install_2);
}
