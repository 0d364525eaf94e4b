/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-slots: taking slots of a swap device and giving them back, one by one.
 * ours   libvmem
 * peer   one bit a slot, atomic, and a hint where to look; or malloc(16) and free() of as many objects
 * limit  one atomic operation on a bit of the slot, the same slots in the same order, and nothing else
 * At fill=90 nine slots in ten are taken, any of them: one of those, chosen beforehand by chance, is given
 * back and another taken. At fill=0 none is. Threads do that each with slots of their own. */
#include "harness.h"
#include "machine.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <vmem/slots.h>

#define SLOTS ((uint64_t)1 << 20) /* 4 GiB */
#define HELD (SLOTS / 10 * 9)
#define PAIRS 2000000u
#define THREADS 2
#define LINUX_6_18 \
	0.09375 /* bytes a free slot: 48 for 512, by the announcement of its swap table */

enum kind { OURS, BITMAP, MALLOC, BARE, KINDS };

struct slots_bench {
	unsigned threads;
	uint32_t pairs;
	int full;
	vmem_slots *slots;
	struct {
		_Alignas(128) struct vmem_slots_cursor cursor; /* on lines of its own */
	} of[THREADS];
	_Atomic uint64_t *bitmap; /* 1: free */
	_Atomic uint64_t hint;
	_Atomic uint64_t *bare; /* bits without a meaning */
	uint64_t *held[KINDS];  /* what is taken, in any order */
};

struct worker {
	pthread_t thread;
	struct slots_bench *bench;
	enum kind kind;
	unsigned self;
	int error;
};

static int bitmap_take(struct slots_bench *b, uint64_t *ret_slot)
{
	uint64_t start = atomic_load_explicit(&b->hint, memory_order_relaxed);

	for (uint64_t i = 0; i < SLOTS / 64; i++) {
		uint64_t word = (start + i) % (SLOTS / 64);
		uint64_t bits = atomic_load_explicit(&b->bitmap[word], memory_order_relaxed);

		while (bits)
			if (atomic_compare_exchange_weak(&b->bitmap[word], &bits,
							 bits & (bits - 1))) {
				*ret_slot = word * 64 + (unsigned)__builtin_ctzll(bits);
				if (i)
					atomic_store_explicit(&b->hint, word, memory_order_relaxed);
				return 0;
			}
	}
	return -ENOSPC;
}

static int take(struct slots_bench *b, enum kind kind, unsigned self, uint64_t *ret)
{
	if (kind == OURS)
		return vmem_slots_take(b->slots, &b->of[self].cursor, 1, self, ret);
	if (kind == BITMAP)
		return bitmap_take(b, ret);
	if (kind == BARE)
		return 0;
	*ret = (uintptr_t)malloc(16);
	return *ret ? 0 : -ENOMEM;
}

static int give(struct slots_bench *b, enum kind kind, uint64_t slot)
{
	if (kind == OURS)
		return vmem_slots_give(b->slots, slot, 1);
	if (kind == BITMAP)
		atomic_fetch_or(&b->bitmap[slot / 64], UINT64_C(1) << slot % 64);
	else if (kind == BARE)
		atomic_fetch_xor(&b->bare[slot / 64], UINT64_C(1) << slot % 64);
	else
		free((void *)(uintptr_t)slot);
	return 0;
}

/* Full: the worker's part of what is held is replaced, one by one. */
static inline int pairs_of(struct slots_bench *b, enum kind kind, unsigned self)
{
	uint64_t part = HELD / THREADS, *held = b->held[kind] + part * self, slot = part * self;
	int error = 0;

	for (uint32_t i = 0; i < b->pairs && !error; i++) {
		uint64_t *at = b->full ? &held[i % part] : &slot;

		if (b->full) {
			error = give(b, kind, *at);
			error = error ? error : take(b, kind, self, at);
		} else {
			error = take(b, kind, self, at);
			error = error ? error : give(b, kind, *at);
		}
	}
	return error;
}

/* The kind is a constant in each, so that nothing but it is in the loop. */
static void *work(void *argument)
{
	struct worker *w = argument;

	machine_pin(w->self % machine_cpus());
	switch (w->kind) {
	case OURS: w->error = pairs_of(w->bench, OURS, w->self); break;
	case BITMAP: w->error = pairs_of(w->bench, BITMAP, w->self); break;
	case BARE: w->error = pairs_of(w->bench, BARE, w->self); break;
	default: w->error = pairs_of(w->bench, MALLOC, w->self);
	}
	return NULL;
}

static int measure(struct slots_bench *b, enum kind kind, double *values)
{
	struct worker worker[THREADS];
	uint64_t start = machine_now_ns();
	int error = 0;

	for (unsigned i = 0; i < b->threads; i++) {
		worker[i] = (struct worker){ .bench = b, .kind = kind, .self = i };
		if (pthread_create(&worker[i].thread, NULL, work, &worker[i]) != 0)
			return -EAGAIN;
	}
	for (unsigned i = 0; i < b->threads; i++) {
		pthread_join(worker[i].thread, NULL);
		error = error ? error : worker[i].error;
	}
	values[0] = (double)(machine_now_ns() - start) / b->pairs;
	return error;
}

static int measure_ours(void *context, double *values)
{
	return measure(context, OURS, values);
}

static int measure_bitmap(void *context, double *values)
{
	return measure(context, BITMAP, values);
}

static int measure_malloc(void *context, double *values)
{
	return measure(context, MALLOC, values);
}

static int measure_bare(void *context, double *values)
{
	return measure(context, BARE, values);
}

/* All are taken, and one in ten, by chance, is given back. */
static int fill(struct slots_bench *b, enum kind kind)
{
	uint64_t *all = malloc(SLOTS * sizeof(*all));
	uint32_t *order = malloc(SLOTS * sizeof(*order));
	int error = all && order ? 0 : -ENOMEM;

	for (uint64_t i = 0; i < SLOTS && !error; i++)
		error = take(b, kind, 0, &all[i]);
	if (!error)
		machine_shuffle(order, SLOTS, 7);
	for (uint64_t i = 0; i < SLOTS && !error; i++) {
		if (i < HELD)
			b->held[kind][i] = all[order[i]];
		else
			error = give(b, kind, all[order[i]]);
	}
	free(order);
	free(all);
	return error;
}

static int make(struct slots_bench *b)
{
	const struct vmem_slots_device device = { .size = sizeof(device), .count = SLOTS };
	uint32_t number;
	int error = vmem_slots_new(&b->slots, NULL);

	if (error == 0)
		error = vmem_slots_add(b->slots, &device, &number);
	b->bitmap = malloc(SLOTS / 8);
	b->bare = calloc(SLOTS / 64, sizeof(*b->bare));
	for (int i = 0; i < KINDS; i++)
		b->held[i] = malloc(HELD * sizeof(uint64_t));
	for (int i = 0; i < KINDS && error == 0; i++)
		error = b->held[i] ? 0 : -ENOMEM;
	if (error || !b->bitmap || !b->bare)
		return error ? error : -ENOMEM;
	for (uint64_t i = 0; i < SLOTS / 64; i++)
		atomic_store(&b->bitmap[i], ~UINT64_C(0));
	return 0;
}

static int compare(struct bench *bench, struct slots_bench *b, unsigned threads,
		   const char *condition)
{
	const struct bench_metric metric = { "pair_ns", "ns", condition, 0 };
	const struct bench_comparison comparison = {
		.metrics = &metric,
		.metric_count = 1,
		.context = b,
		.ours = { "libvmem", measure_ours, NULL },
		.peer = { "atomic-bitmap", measure_bitmap, NULL },
		.limit = { "bare-atomic", measure_bare, NULL },
	};

	b->threads = threads;
	return bench_compare(bench, &comparison);
}

static int compare_malloc(struct bench *bench, struct slots_bench *b)
{
	const struct bench_metric metric = { "pair_ns", "ns", "threads=1 fill=90 malloc", 0 };
	const struct bench_comparison comparison = {
		.metrics = &metric,
		.metric_count = 1,
		.context = b,
		.ours = { "libvmem", measure_ours, NULL },
		.peer = { "glibc-malloc", measure_malloc, NULL },
	};

	b->threads = 1;
	return bench_compare(bench, &comparison);
}

static int measure_bytes(void *context, double *values)
{
	struct vmem_slots_stats stats = { .size = sizeof(stats) };
	struct slots_bench *b = context;
	int error = vmem_slots_get_stats(b->slots, 0, &stats);

	values[0] = (double)stats.bytes / (double)stats.count;
	return error;
}

static int published_bytes(void *context, double *values)
{
	(void)context;
	values[0] = LINUX_6_18;
	return 0;
}

static int compare_bytes(struct bench *bench, struct slots_bench *b)
{
	const struct bench_metric metric = { "bytes_per_free_slot", "bytes", NULL, 0 };
	const struct bench_comparison comparison = {
		.metrics = &metric,
		.metric_count = 1,
		.rounds = 1,
		.context = b,
		.ours = { "libvmem", measure_bytes, NULL },
		.peer = { "linux-6.18 (published)", published_bytes, NULL },
	};

	return bench_compare(bench, &comparison);
}

static int body(struct bench *bench)
{
	static struct slots_bench b;
	int error;

	b.pairs = bench_quick(bench) ? PAIRS / 3 : PAIRS;
	machine_warm((size_t)1 << 27);
	if ((error = make(&b)) != 0 || (error = compare_bytes(bench, &b)) != 0 ||
	    (error = compare(bench, &b, 1, "threads=1 fill=0")) != 0)
		return error;
	for (unsigned kind = 0; kind < BARE && error == 0; kind++)
		error = fill(&b, (enum kind)kind);
	memcpy(b.held[BARE], b.held[BITMAP], HELD * sizeof(uint64_t));
	b.full = 1;
	if (error || (error = compare(bench, &b, 1, "threads=1 fill=90")) != 0 ||
	    (error = compare_malloc(bench, &b)) != 0)
		return error;
	return compare(bench, &b, THREADS, "threads=2 fill=90");
}

int main(int argc, char **argv)
{
	return bench_main(argc, argv, "slots", body);
}
