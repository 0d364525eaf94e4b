/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-ept: accessed and dirty bits read, faults answered by several threads. */
#include "harness.h"
#include "machine.h"
#include "bench_ept.h"
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
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
	const uint32_t *order; /* of its pages: each @step-th, up to @end */
	uint32_t self, step;
	const uint32_t *end;
	bool bare; /* only the atomic operation that there must be */
	int error;
};

static void *install(void *argument)
{
	struct worker *w = argument;
	struct vmem_ept_leaf leaf = { .rights = VMEM_EPT_READ | VMEM_EPT_WRITE,
				      .type = VMEM_EPT_WB };

	machine_pin(w->self);
	for (const uint32_t *page = w->order; page < w->end && !w->error; page += w->step) {
		uint64_t nothing = 0;

		if (*page % VMEM_EPT_ENTRIES == VMEM_EPT_ENTRIES - 1)
			continue;
		leaf.hpa = (uint64_t)*page << 12;
		if (!w->bare)
			w->error = vmem_ept_install(w->bench->ept, leaf.hpa, &leaf, NULL);
		else if (!__atomic_compare_exchange_n(&w->bench->bare[*page], &nothing,
						      leaf.hpa | 1, false, __ATOMIC_RELEASE,
						      __ATOMIC_RELAXED))
			w->error = -EEXIST;
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

/* How many threads, and whether each has a half of its own. */
struct faults {
	struct ept_bench *bench;
	uint32_t threads;
	bool halves;
};

static int run_threads(const struct faults *f, bool bare, double *values)
{
	struct ept_bench *b = f->bench;
	struct worker workers[THREADS];
	uint64_t start = machine_now_ns();
	int error = 0;

	for (uint32_t i = 0; i < f->threads; i++) {
		const uint32_t *half = b->halves + i * (PAGES / THREADS);

		workers[i] = (struct worker){ .bench = b, .self = i, .bare = bare };
		workers[i].order = f->halves ? half : b->order + i;
		workers[i].end = f->halves ? half + PAGES / THREADS : b->order + PAGES;
		workers[i].step = f->halves ? 1 : f->threads;
		if (pthread_create(&workers[i].thread, NULL, install, &workers[i]) != 0)
			return -EAGAIN;
	}
	for (uint32_t i = 0; i < f->threads; i++) {
		pthread_join(workers[i].thread, NULL);
		error = error ? error : workers[i].error;
	}
	values[0] = (double)FAULTS / ((double)(machine_now_ns() - start) / 1e9);
	return error;
}

static int ours_install(void *context, double *values)
{
	const struct faults *f = context;
	int error = run_threads(f, false, values);

	return error ? error : unmap_faults(f->bench);
}

static int bare_install(void *context, double *values)
{
	const struct faults *f = context;

	for (uint32_t i = 0; i < PAGES; i++)
		f->bench->bare[i] = 0;
	return run_threads(f, true, values);
}

static int compare_install(struct bench *bench, struct faults f, const char *condition)
{
	const struct bench_metric metric = { "fault_install_per_s", "1/s", condition, 1 };
	const struct bench_comparison comparison = {
		.metrics = &metric,
		.metric_count = 1,
		.context = &f,
		.ours = { "libvmem", ours_install, NULL },
		.limit = { "bare-compare-exchange", bare_install, NULL },
	};

	return bench_compare(bench, &comparison);
}

static int make_orders(struct ept_bench *b)
{
	uint32_t n = 0;

	b->order = malloc(PAGES * sizeof(*b->order));
	b->halves = malloc(PAGES * sizeof(*b->halves));
	if (!b->order || !b->halves)
		return -ENOMEM;
	machine_shuffle(b->order, PAGES, 7);
	for (uint32_t half = 0; half < THREADS; half++)
		for (uint32_t i = 0; i < PAGES; i++)
			if (b->order[i] / (PAGES / THREADS) == half)
				b->halves[n++] = b->order[i];
	return 0;
}

int ept_bench_track(struct bench *bench, struct ept_bench *b)
{
	const uint32_t all = VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY;
	int error;

	b->flags = VMEM_EPT_AD;
	if ((error = make_orders(b)) != 0 || (error = ept_bench_make(b)) != 0 ||
	    (error = compare_harvest(bench, b, "nothing set", 0)) != 0 ||
	    (error = compare_harvest(bench, b, "all set", all)) != 0 ||
	    (error = unmap_faults(b)) != 0)
		return error;
	if ((error = compare_install(bench, (struct faults){ b, 1, false }, "threads=1")) != 0 ||
	    (error = compare_install(bench, (struct faults){ b, 2, false }, "threads=2")) != 0)
		return error;
	return compare_install(bench, (struct faults){ b, 2, true }, "threads=2, halves");
}
