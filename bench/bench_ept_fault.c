/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-ept: faults answered by one thread and by two.
 *
 * In each round the pages are unmapped, each thread looks at all entries that it will write, so that they are in its
 * caches, and then all begin at once. The last page of each table stays mapped: the tables are there. */
#include "harness.h"
#include "machine.h"
#include "bench_ept.h"
#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define TABLE_BYTES (UINT64_C(2) << 20)
#define PAGES \
	(128u * VMEM_EPT_ENTRIES) /* their entries fit into the second cache of one processor */
#define FAULTS (PAGES - PAGES / VMEM_EPT_ENTRIES)
#define THREADS 2u
#define ROUNDS 8u /* for each turn */

struct faults {
	struct ept_bench *bench;
	uint32_t threads;
	bool bare;       /* only the atomic operation that there must be */
	uint32_t *order; /* pages by chance: those of the first thread, of the second ... */
	uint32_t met;    /* by all threads together */
	uint64_t ns;     /* of the rounds so far */
	int error;
};

struct worker {
	pthread_t thread;
	struct faults *faults;
	uint32_t self;
};

/* Until all threads are here. They spin, so that they go on at once. */
static void meet(struct faults *f)
{
	uint32_t before = __atomic_fetch_add(&f->met, 1, __ATOMIC_ACQ_REL);
	uint32_t all = (before / f->threads + 1) * f->threads;

	while (__atomic_load_n(&f->met, __ATOMIC_ACQUIRE) < all)
		sched_yield();
}

static void fail(struct faults *f, int error)
{
	__atomic_store_n(&f->error, error, __ATOMIC_RELAXED);
}

static void unmap(struct faults *f)
{
	struct ept_bench *b = f->bench;
	int error = 0;

	for (uint32_t page = 0; page < PAGES && f->bare; page++)
		b->bare[page] = 0;
	for (uint64_t gpa = 0; gpa < PAGES * UINT64_C(4096) && !f->bare && !error;
	     gpa += TABLE_BYTES)
		error = vmem_ept_unmap(b->ept, gpa, TABLE_BYTES - 4096, &b->change);
	if (error)
		fail(f, error);
}

static uint64_t look(const struct faults *f, const uint32_t *order, uint32_t count)
{
	const struct ept_bench *b = f->bench;
	struct vmem_ept_leaf leaf = { 0 };
	uint64_t sum = 0;

	for (uint32_t i = 0; i < count; i++)
		if (f->bare)
			sum += __atomic_load_n(&b->bare[order[i]], __ATOMIC_RELAXED);
		else
			sum += vmem_ept_translate(b->ept, (uint64_t)order[i] << 12, &leaf, NULL) ==
			       0;
	return sum;
}

static void install(struct faults *f, const uint32_t *order, uint32_t count)
{
	struct vmem_ept_leaf leaf = { .rights = VMEM_EPT_READ | VMEM_EPT_WRITE,
				      .type = VMEM_EPT_WB };

	for (uint32_t i = 0; i < count; i++) {
		leaf.hpa = (uint64_t)order[i] << 12;
		if (vmem_ept_install(f->bench->ept, leaf.hpa, &leaf, NULL))
			fail(f, -EEXIST);
	}
}

static void install_bare(struct faults *f, const uint32_t *order, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t nothing = 0, entry = (uint64_t)order[i] << 12 | 1;

		if (!__atomic_compare_exchange_n(&f->bench->bare[order[i]], &nothing, entry, false,
						 __ATOMIC_RELEASE, __ATOMIC_RELAXED))
			fail(f, -EEXIST);
	}
}

static void *work(void *argument)
{
	struct worker *w = argument;
	struct faults *f = w->faults;
	const uint32_t count = FAULTS / f->threads, *order = f->order + w->self * count;
	uint64_t sum = 0;

	machine_pin(w->self);
	for (uint32_t round = 0; round < ROUNDS * f->bench->turns; round++) {
		uint64_t start;

		if (!w->self)
			unmap(f);
		meet(f);
		sum += look(f, order, count);
		meet(f);
		start = machine_now_ns();
		(f->bare ? install_bare : install)(f, order, count);
		meet(f);
		if (!w->self)
			f->ns += machine_now_ns() - start;
	}
	__atomic_fetch_add(&f->bench->sink, sum, __ATOMIC_RELAXED);
	return NULL;
}

static void no_thread(void)
{
	fputs("bench-ept: no thread can be started: raise the limit of processes (ulimit -u)\n",
	      stderr);
	exit(1);
}

static int run(const struct faults *of, double *values)
{
	struct faults f = *of;
	struct worker workers[THREADS];
	uint32_t started;

	for (started = 0; started < f.threads; started++) {
		workers[started] = (struct worker){ .faults = &f, .self = started };
		if (pthread_create(&workers[started].thread, NULL, work, &workers[started]) != 0)
			no_thread(); /* those who wait for it would wait for ever */
	}
	for (uint32_t i = 0; i < started; i++)
		pthread_join(workers[i].thread, NULL);
	values[0] = (double)(ROUNDS * f.bench->turns * FAULTS) / ((double)f.ns / 1e9);
	return f.error;
}

static int ours(void *context, double *values)
{
	return run(context, values);
}

static int one_thread(void *context, double *values)
{
	struct faults f = *(const struct faults *)context;

	f.threads = 1;
	return run(&f, values);
}

static int bare(void *context, double *values)
{
	struct faults f = *(const struct faults *)context;

	f.bare = true;
	return run(&f, values);
}

static int compare(struct bench *bench, struct faults f, const char *condition)
{
	const struct bench_metric metric = { "fault_install_per_s", "1/s", condition, 1 };
	struct bench_comparison comparison = {
		.metrics = &metric,
		.metric_count = 1,
		.context = &f,
		.ours = { "libvmem", ours, NULL },
		.limit = { "bare-compare-exchange", bare, NULL },
	};

	if (f.threads > 1)
		comparison.peer = (struct bench_side){ "one-thread", one_thread, NULL };
	return bench_compare(bench, &comparison);
}

/* The pages that are unmapped, by chance; then those of each half of the memory, each by chance. */
static int make_orders(uint32_t **ret_all, uint32_t **ret_halves)
{
	uint32_t *pages = malloc(PAGES * sizeof(*pages)), *all = malloc(FAULTS * sizeof(*all));
	uint32_t *halves = malloc(FAULTS * sizeof(*halves)), n = 0, m = 0;

	*ret_all = all;
	*ret_halves = halves;
	if (!pages || !all || !halves) {
		free(pages);
		return -ENOMEM;
	}
	machine_shuffle(pages, PAGES, 7);
	for (uint32_t i = 0; i < PAGES; i++)
		if (pages[i] % VMEM_EPT_ENTRIES != VMEM_EPT_ENTRIES - 1)
			all[n++] = pages[i];
	for (uint32_t half = 0; half < THREADS; half++)
		for (uint32_t i = 0; i < FAULTS; i++)
			if (all[i] / (PAGES / THREADS) == half)
				halves[m++] = all[i];
	free(pages);
	return 0;
}

int ept_bench_fault(struct bench *bench, struct ept_bench *b)
{
	const struct vmem_ept_leaf leaf = { .rights = VMEM_EPT_READ,
					    .type = VMEM_EPT_WB,
					    .level = 1 };
	uint32_t *all, *halves;
	int error = make_orders(&all, &halves);

	if (!error && (error = ept_bench_make(b)) == 0)
		error = vmem_ept_map(b->ept, 0, PAGES * UINT64_C(4096), &leaf, 0, &b->change);
	if (!error)
		error = compare(bench, (struct faults){ b, 1, .order = all }, "threads=1");
	if (!error)
		error = compare(bench, (struct faults){ b, 2, .order = all },
				"threads=2, same lines");
	if (!error)
		error = compare(bench, (struct faults){ b, 2, .order = halves }, "threads=2");
	free(all);
	free(halves);
	return error;
}
