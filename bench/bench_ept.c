/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-ept: second-stage tables, built and read.
 * ours   libvmem, Intel EPT with four levels
 * limit  a plain loop that writes, changes or reads the same number of entries, and nothing else: 8 bytes at a time in
 *        as many pages; for single pages and translations four loads, each with the address of the next, first
 * Time is that of the thread, but for faults by several. All tables are warm, and so are the pages that new ones are made of. What is mapped is unmapped again (and given back,
 * and merged what was split) outside the time. */
#include "harness.h"
#include "machine.h"
#include "bench_ept.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define POOL_PAGES 8192u
#define GIB (UINT64_C(1) << 30)
#define MIB2 (UINT64_C(2) << 20)
#define PAGES_1G (GIB / 4096)
#define RANGE_PAGES 256u
#define TRANSLATIONS 1000000u

static int pool_allocate(void *context, uint64_t *ret_hpa)
{
	struct ept_bench *b = context;
	int error = -VMEM_ENOMEM;

	pthread_spin_lock(&b->lock);
	if (b->free_count) {
		*ret_hpa = b->free[--b->free_count];
		error = 0;
	}
	pthread_spin_unlock(&b->lock);
	return error;
}

static void pool_free(void *context, uint64_t hpa)
{
	struct ept_bench *b = context;

	pthread_spin_lock(&b->lock);
	b->free[b->free_count++] = hpa;
	pthread_spin_unlock(&b->lock);
}

static void *warm_pages(size_t count)
{
	void *pages = aligned_alloc(MIB2, count * 4096);

	if (!pages)
		return NULL;
	madvise(pages, count * 4096, MADV_HUGEPAGE);
	memset(pages, 1, count * 4096);
	return pages;
}

int ept_bench_make(struct ept_bench *b)
{
	struct vmem_ept_capabilities caps = { .size = sizeof(caps) };
	struct vmem_ept_memory memory = {
		.size = sizeof(memory), .context = b, .allocate = pool_allocate, .free = pool_free
	};
	struct vmem_ept_opts opts = {
		.size = sizeof(opts), .flags = b->flags, .capabilities = &caps, .memory = &memory
	};
	int error = vmem_ept_capabilities_intel(&caps, ~UINT64_C(0), 0, 0, 46);

	vmem_ept_free(b->ept);
	b->ept = NULL;
	b->change.size = sizeof(b->change);
	b->pool = b->pool ? b->pool : warm_pages(POOL_PAGES);
	b->bare = b->bare ? b->bare : warm_pages(POOL_PAGES);
	b->free = b->free ? b->free : malloc(POOL_PAGES * sizeof(*b->free));
	if (!b->pool || !b->bare || !b->free)
		return -ENOMEM;
	memory.offset = (uint64_t)(uintptr_t)b->pool;
	for (b->free_count = 0; b->free_count < POOL_PAGES; b->free_count++)
		b->free[b->free_count] = 4096 * (POOL_PAGES - 1 - b->free_count);
	return error ? error : vmem_ept_new(&b->ept, &opts);
}

/* What is there goes, and the tables with it. */
static int clear(struct ept_bench *b)
{
	int error = vmem_ept_unmap(b->ept, 0, 16 * GIB, &b->change);

	vmem_ept_flushed(b->ept, b->change.epoch);
	return error;
}

static int map(struct ept_bench *b, uint64_t gpa, uint64_t bytes, uint32_t level)
{
	const struct vmem_ept_leaf leaf = {
		.hpa = gpa,
		.rights = VMEM_EPT_READ | VMEM_EPT_WRITE | VMEM_EPT_EXEC,
		.type = VMEM_EPT_WB,
		.level = level,
	};

	return vmem_ept_map(b->ept, gpa, bytes, &leaf, 0, &b->change);
}

/* Entries in a row, from @entry on. */
static __attribute__((noinline)) void bare_write(uint64_t *slot, uint64_t count, uint64_t entry)
{
	for (uint64_t i = 0; i < count; i++, entry += 4096)
		__atomic_store_n(&slot[i], entry, __ATOMIC_RELAXED);
}

static __attribute__((noinline)) void bare_clear(uint64_t *slot, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		__atomic_store_n(&slot[i], 0, __ATOMIC_RELAXED);
}

static __attribute__((noinline)) void bare_change(uint64_t *slot, uint64_t count, uint64_t keep)
{
	for (uint64_t i = 0; i < count; i++)
		__atomic_store_n(&slot[i], __atomic_load_n(&slot[i], __ATOMIC_RELAXED) & keep,
				 __ATOMIC_RELAXED);
}

static __attribute__((noinline)) uint64_t bare_read(const uint64_t *slot, uint64_t count)
{
	uint64_t all = 0;

	for (uint64_t i = 0; i < count; i++)
		all |= __atomic_load_n(&slot[i], __ATOMIC_RELAXED);
	return all;
}

/* --- 1 GiB at once --- */

static int ours_1g(void *context, double *values)
{
	struct ept_bench *b = context;
	uint64_t start, map_ns = 0, protect_ns = 0, leaf_ns = 0;
	int error = 0;

	for (uint32_t i = 0; i < b->turns && !error; i++) {
		start = machine_thread_cpu_ns();
		error = map(b, 0, GIB, 1);
		map_ns += machine_thread_cpu_ns() - start;
		start = machine_thread_cpu_ns();
		error = error ? error
			      : vmem_ept_protect(b->ept, 0, GIB, VMEM_EPT_WRITE, 0, &b->change);
		protect_ns += machine_thread_cpu_ns() - start;
		error = error ? error : clear(b);
		start = machine_thread_cpu_ns();
		for (uint64_t j = 0; j < 16 && !error; j++)
			error = map(b, j * GIB, GIB, 2);
		leaf_ns += machine_thread_cpu_ns() - start;
		error = error ? error : clear(b);
	}
	values[0] = (double)map_ns / b->turns / (double)PAGES_1G;
	values[1] = (double)protect_ns / b->turns / (double)PAGES_1G;
	values[2] = (double)leaf_ns / b->turns / 16 / 512;
	return error;
}

static int bare_1g(void *context, double *values)
{
	struct ept_bench *b = context;
	uint64_t start, map_ns = 0, protect_ns = 0, leaf_ns = 0;

	for (uint32_t i = 0; i < b->turns; i++) {
		start = machine_thread_cpu_ns();
		bare_write(b->bare, PAGES_1G, 0x37);
		map_ns += machine_thread_cpu_ns() - start;
		start = machine_thread_cpu_ns();
		bare_change(b->bare, PAGES_1G, ~UINT64_C(2));
		protect_ns += machine_thread_cpu_ns() - start;
		start = machine_thread_cpu_ns();
		for (uint32_t j = 0; j < 16; j++)
			bare_write(b->bare + 512 * j, 512, 0xb7);
		leaf_ns += machine_thread_cpu_ns() - start;
	}
	values[0] = (double)map_ns / b->turns / (double)PAGES_1G;
	values[1] = (double)protect_ns / b->turns / (double)PAGES_1G;
	values[2] = (double)leaf_ns / b->turns / 16 / 512;
	return 0;
}

/* --- Ranges of 256 pages, and single ones, in tables that are there --- */

static int ours_256(void *context, double *values)
{
	struct ept_bench *b = context;
	uint64_t map_ns = 0, unmap_ns = 0, start;
	int error = 0;

	for (uint64_t gpa = MIB2 - 4096; gpa < GIB && !error; gpa += MIB2)
		error = map(b, gpa, 4096, 1); /* which keeps the table */
	for (uint32_t i = 0; i < 8 * b->turns && !error; i++) {
		start = machine_thread_cpu_ns();
		for (uint64_t gpa = 0; gpa < GIB && !error; gpa += MIB2)
			error = map(b, gpa, RANGE_PAGES * 4096, 1);
		map_ns += machine_thread_cpu_ns() - start;
		start = machine_thread_cpu_ns();
		for (uint64_t gpa = 0; gpa < GIB && !error; gpa += MIB2)
			error = vmem_ept_unmap(b->ept, gpa, RANGE_PAGES * 4096, &b->change);
		unmap_ns += machine_thread_cpu_ns() - start;
	}
	values[0] = (double)map_ns / b->turns / 8 / 512;
	values[1] = (double)unmap_ns / b->turns / 8 / 512;
	return error ? error : clear(b);
}

static int bare_256(void *context, double *values)
{
	struct ept_bench *b = context;
	uint64_t map_ns = 0, unmap_ns = 0, start;

	for (uint32_t i = 0; i < 8 * b->turns; i++) {
		start = machine_thread_cpu_ns();
		for (uint64_t t = 0; t < 512; t++)
			bare_write(b->bare + 512 * t, RANGE_PAGES, t << 21 | 0x37);
		map_ns += machine_thread_cpu_ns() - start;
		start = machine_thread_cpu_ns();
		for (uint64_t t = 0; t < 512; t++)
			bare_clear(b->bare + 512 * t, RANGE_PAGES);
		unmap_ns += machine_thread_cpu_ns() - start;
	}
	values[0] = (double)map_ns / b->turns / 8 / 512;
	values[1] = (double)unmap_ns / b->turns / 8 / 512;
	return 0;
}

/* Four loads, each with the address of the next, as the processor goes. */
static inline uint64_t *bare_walk(const struct ept_bench *b, uint64_t root, uint64_t gpa)
{
	uint64_t *table = (uint64_t *)(void *)(b->pool + root);

	for (uint32_t shift = 39; shift > 12; shift -= 9) {
		uint64_t entry = __atomic_load_n(&table[gpa >> shift & 511], __ATOMIC_RELAXED);

		table = (uint64_t *)(void *)(b->pool + (entry & VMEM_EPT_ADDRESS));
	}
	return &table[gpa >> 12 & 511];
}

static int one_by_one(struct ept_bench *b, int bare, double *values)
{
	uint64_t root = vmem_ept_pointer(b->ept) & VMEM_EPT_ADDRESS, start,
		 pages = GIB / 4096 - 512;
	int error = 0;

	for (uint64_t gpa = MIB2 - 4096; gpa < GIB && !error; gpa += MIB2)
		error = map(b, gpa, 4096, 1);
	start = machine_thread_cpu_ns();
	for (uint64_t gpa = 0; gpa < GIB && !error; gpa += 4096) {
		if ((gpa & (MIB2 - 1)) == MIB2 - 4096)
			continue;
		if (bare)
			__atomic_store_n(bare_walk(b, root, gpa), gpa | 0x37, __ATOMIC_RELAXED);
		else
			error = map(b, gpa, 4096, 1);
	}
	values[0] = (double)(machine_thread_cpu_ns() - start) / (double)pages;
	for (uint64_t gpa = 0; gpa < GIB && bare; gpa += 4096)
		if ((gpa & (MIB2 - 1)) != MIB2 - 4096)
			*bare_walk(b, root, gpa) = 0;
	return error ? error : clear(b);
}

static int ours_one(void *context, double *values)
{
	return one_by_one(context, 0, values);
}

static int bare_one(void *context, double *values)
{
	return one_by_one(context, 1, values);
}

/* --- Splitting and merging --- */

static int ours_split(void *context, double *values)
{
	struct ept_bench *b = context;
	uint64_t split_ns = 0, merge_ns = 0, start, epoch = 0;
	int error = map(b, 0, GIB, 2);

	for (uint32_t i = 0; i < b->turns && !error; i++) {
		start = machine_thread_cpu_ns();
		for (uint64_t gpa = 0; gpa < GIB && !error; gpa += MIB2)
			error = vmem_ept_split(b->ept, gpa, MIB2, 1, &b->change);
		split_ns += machine_thread_cpu_ns() - start;
		start = machine_thread_cpu_ns();
		for (uint64_t gpa = 0; gpa < GIB && !error; gpa += MIB2) {
			error = vmem_ept_merge(b->ept, gpa, MIB2, 2, &b->change);
			epoch = b->change.epoch;
		}
		merge_ns += machine_thread_cpu_ns() - start;
		vmem_ept_flushed(b->ept, epoch);
	}
	values[0] = (double)split_ns / b->turns / 512;
	values[1] = (double)merge_ns / b->turns / 512;
	return error ? error : clear(b);
}

static int bare_split(void *context, double *values)
{
	struct ept_bench *b = context;
	uint64_t split_ns = 0, merge_ns = 0, start, all = 0;

	for (uint32_t i = 0; i < b->turns; i++) {
		start = machine_thread_cpu_ns();
		for (uint64_t t = 0; t < 512; t++)
			bare_write(b->bare + 512 * t, 512, t << 21 | 0x37);
		split_ns += machine_thread_cpu_ns() - start;
		start = machine_thread_cpu_ns();
		for (uint64_t t = 0; t < 512; t++)
			all |= bare_read(b->bare + 512 * t, 512);
		merge_ns += machine_thread_cpu_ns() - start;
	}
	b->sink = all;
	values[0] = (double)split_ns / b->turns / 512;
	values[1] = (double)merge_ns / b->turns / 512;
	return 0;
}

/* --- Translations, random over 4 GiB --- */

#define TRANSLATED_AT_A_TIME 64u

static inline uint64_t random_gpa(uint64_t x)
{
	return (x * UINT64_C(0x9e3779b97f4a7c15) + UINT64_C(0x632be59bd9b4e019)) >> 32 &
	       ~UINT64_C(0xfff);
}

static uint64_t translate_one_by_one(const struct ept_bench *b, uint64_t *mapped)
{
	struct vmem_ept_leaf leaf = { 0 };
	uint64_t sum = 0;

	for (uint64_t i = 0; i < TRANSLATIONS; i++) {
		*mapped += vmem_ept_translate(b->ept, random_gpa(i), &leaf, NULL) == 0;
		sum += leaf.hpa;
	}
	return sum;
}

static uint64_t translate_many(const struct ept_bench *b, uint64_t *mapped)
{
	struct vmem_ept_leaf leaves[TRANSLATED_AT_A_TIME];
	uint64_t gpas[TRANSLATED_AT_A_TIME], sum = 0;

	for (uint64_t i = 0; i < TRANSLATIONS; i += TRANSLATED_AT_A_TIME) {
		for (uint64_t j = 0; j < TRANSLATED_AT_A_TIME; j++)
			gpas[j] = random_gpa(i + j);
		*mapped += vmem_ept_translate_many(b->ept, gpas, TRANSLATED_AT_A_TIME, leaves);
		for (uint64_t j = 0; j < TRANSLATED_AT_A_TIME; j++)
			sum += leaves[j].hpa;
	}
	return sum;
}

static uint64_t translate_dependent(const struct ept_bench *b, uint64_t *mapped)
{
	struct vmem_ept_leaf leaf = { 0 };
	uint64_t gpa = 0;

	for (uint64_t i = 0; i < TRANSLATIONS; i++) {
		*mapped += vmem_ept_translate(b->ept, gpa, &leaf, NULL) == 0;
		gpa = random_gpa(leaf.hpa + i);
	}
	return gpa;
}

static int ours_translate(void *context, double *values)
{
	static uint64_t (*const ways[])(const struct ept_bench *,
					uint64_t *) = { translate_one_by_one, translate_many,
							translate_dependent };
	struct ept_bench *b = context;

	for (size_t i = 0; i < 3; i++) {
		uint64_t start = machine_thread_cpu_ns(), mapped = 0;

		b->sink = ways[i](b, &mapped);
		values[i] = (double)(machine_thread_cpu_ns() - start) / TRANSLATIONS;
		if (mapped != TRANSLATIONS)
			return -EINVAL;
	}
	return 0;
}

static int bare_translate(void *context, double *values)
{
	struct ept_bench *b = context;
	uint64_t root = vmem_ept_pointer(b->ept) & VMEM_EPT_ADDRESS;
	uint64_t start = machine_thread_cpu_ns(), sum = 0, gpa = 0;

	for (uint64_t i = 0; i < TRANSLATIONS; i++)
		sum += *bare_walk(b, root, random_gpa(i)) & VMEM_EPT_ADDRESS;
	values[0] = (double)(machine_thread_cpu_ns() - start) / TRANSLATIONS;
	values[1] = values[0];
	start = machine_thread_cpu_ns();
	for (uint64_t i = 0; i < TRANSLATIONS; i++)
		gpa = random_gpa((*bare_walk(b, root, gpa) & VMEM_EPT_ADDRESS) + i);
	values[2] = (double)(machine_thread_cpu_ns() - start) / TRANSLATIONS;
	b->sink = sum + gpa;
	return 0;
}

static int compare(struct bench *bench, struct ept_bench *b, const struct bench_metric *metrics,
		   size_t count, int (*ours)(void *, double *), int (*bare)(void *, double *),
		   const char *limit)
{
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = count,
		.context = b,
		.ours = { "libvmem", ours, NULL },
		.limit = { limit, bare, NULL },
	};

	return bench_compare(bench, &comparison);
}

static const struct bench_metric of_1g[] = {
	{ "map_1g_4k_ns_per_page", "ns", NULL, 0 },
	{ "protect_1g_4k_ns_per_page", "ns", NULL, 0 },
	{ "map_1g_2m_ns_per_leaf", "ns", NULL, 0 },
};
static const struct bench_metric of_256[] = {
	{ "map_256_4k_ns", "ns", NULL, 0 },
	{ "unmap_256_4k_ns", "ns", NULL, 0 },
};
static const struct bench_metric of_one[] = { { "map_one_4k_ns", "ns", NULL, 0 } };
static const struct bench_metric of_split[] = {
	{ "split_2m_ns", "ns", NULL, 0 },
	{ "merge_2m_ns", "ns", NULL, 0 },
};
static const struct bench_metric of_translate[] = {
	{ "translate_ns", "ns", "independent", 0 },
	{ "translate_ns", "ns", "independent, 64 a call", 0 },
	{ "translate_ns", "ns", "dependent", 0 },
};

static int body(struct bench *bench)
{
	static struct ept_bench b;
	int error;

	pthread_spin_init(&b.lock, PTHREAD_PROCESS_PRIVATE);
	b.turns = bench_quick(bench) ? 2 : 6;
	machine_warm((size_t)1 << 27);
	if ((error = ept_bench_make(&b)) != 0 ||
	    (error = compare(bench, &b, of_1g, 3, ours_1g, bare_1g, "plain-loop")) != 0 ||
	    (error = compare(bench, &b, of_256, 2, ours_256, bare_256, "plain-loop")) != 0 ||
	    (error = compare(bench, &b, of_one, 1, ours_one, bare_one, "four-loads")) != 0 ||
	    (error = compare(bench, &b, of_split, 2, ours_split, bare_split, "plain-loop")) != 0 ||
	    (error = map(&b, 0, 4 * GIB, 1)) != 0)
		return error;
	if ((error = compare(bench, &b, of_translate, 3, ours_translate, bare_translate,
			     "four-loads")) != 0 ||
	    (error = ept_bench_track(bench, &b)) != 0)
		return error;
	return ept_bench_fault(bench, &b);
}

int main(int argc, char **argv)
{
	return bench_main(argc, argv, "ept", body);
}
