/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-store: what it costs to save a page and to load it again, for each class of pages.
 *        bench_store_all.c: all pages of all guests in order, and what background work makes of them
 *        bench_store_vms.c: whole VMs
 * ours   vmem_store_save, vmem_store_load
 * peer   page-out to and swap-in from zram-lz4, which also unmaps and maps the page
 * limit  saving: what reads and compresses the page; loading: the bare decoder and a memcpy of the page */
#include "bench_store.h"
#include "machine.h"
#include "real_pages.h"
#include "zram_peer.h"
#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <vmem/jemalloc.h>
#include <vmem/store.h>

#define PAGES ((size_t)24576)
#define PACKED_MAX 4096 /* of one page */

enum { SAVE_US, LOAD_CPU_US, LOAD_P50, LOAD_P99, METRICS };

struct store_bench {
	enum page_class class_measured;
	size_t count;
	uint8_t *source; /* the pages */
	uint8_t *paged;  /* copies, which the peer pages out */
	uint32_t *order; /* in which they are loaded */
	uint32_t *samples;
	vmem_store *store;
	uint32_t vm;
	vmem_store_ref *refs;
	uint8_t *packed; /* the limit's pages, one behind the other */
	uint32_t *packed_at;
	uint8_t page[4096] __attribute__((aligned(64)));
	uint8_t bounce[4096] __attribute__((aligned(64)));
};

static double cpu_us_per_page(const struct store_bench *bench, uint64_t since)
{
	return (double)(machine_thread_cpu_ns() - since) / (double)bench->count / 1e3;
}

static void set_percentiles(struct store_bench *bench, double *values)
{
	values[LOAD_P50] = bench_percentile(bench->samples, bench->count, 500);
	values[LOAD_P99] = bench_percentile(bench->samples, bench->count, 990);
}

static int check_and_drop(struct store_bench *bench, size_t i)
{
	int result = vmem_store_load(bench->store, bench->vm, i, bench->refs[i], bench->page, NULL);

	if (result == 0 && memcmp(bench->page, bench->source + i * PAGE, PAGE) != 0)
		result = -EBADMSG;
	return result != 0 ? result : vmem_store_drop(bench->store, bench->vm, bench->refs[i]);
}

static int measure_ours(void *context, double *values)
{
	struct store_bench *bench = context;
	uint64_t cpu_start = machine_thread_cpu_ns();
	int result = 0;

	for (size_t i = 0; i < bench->count && result == 0; i++)
		result = vmem_store_save(bench->store, bench->vm, i, bench->source + i * PAGE,
					 &bench->refs[i]);
	values[SAVE_US] = cpu_us_per_page(bench, cpu_start);
	cpu_start = machine_thread_cpu_ns();
	for (size_t n = 0; n < bench->count && result == 0; n++) {
		const uint32_t i = bench->order[n];
		const uint64_t start = machine_now_ns();

		result = vmem_store_load(bench->store, bench->vm, i, bench->refs[i], bench->page,
					 NULL);
		bench->samples[n] = (uint32_t)(machine_now_ns() - start);
	}
	values[LOAD_CPU_US] = cpu_us_per_page(bench, cpu_start);
	set_percentiles(bench, values);
	for (size_t i = 0; i < bench->count && result == 0; i++)
		result = check_and_drop(bench, i);
	return result;
}

static int measure_zram(void *context, double *values)
{
	struct store_bench *bench = context;
	uint64_t cpu_start = machine_thread_cpu_ns();
	int result = zram_page_out(bench->paged, bench->count * PAGE);
	size_t late = 0;

	values[SAVE_US] = cpu_us_per_page(bench, cpu_start);
	if (result == 0)
		result = zram_page_out_rest(bench->paged, bench->count * PAGE, &late);
	values[SAVE_US] *= (double)bench->count / (double)(bench->count - late);
	cpu_start = machine_thread_cpu_ns();
	for (size_t n = 0; n < bench->count && result == 0; n++) {
		const volatile uint8_t *page = bench->paged + bench->order[n] * PAGE;
		const uint64_t start = machine_now_ns();

		(void)*page;
		bench->samples[n] = (uint32_t)(machine_now_ns() - start);
	}
	values[LOAD_CPU_US] = cpu_us_per_page(bench, cpu_start);
	set_percentiles(bench, values);
	if (result == 0 && memcmp(bench->paged, bench->source, bench->count * PAGE) != 0)
		result = -EBADMSG;
	return result;
}

/* The least that saving a page of the class can do. @return bytes written */
static uint32_t pack(enum page_class class_packed, const uint8_t *page, uint8_t *to)
{
	switch (class_packed) {
	case PAGE_SAME:
		if (memcmp(page, page + 8, PAGE - 8) == 0)
			memcpy(to, page, 8);
		return 8;
	case PAGE_INCOMPRESSIBLE: /* to know that it is incompressible, one has to try */
		if (LZ4_compress_fast((const char *)page, (char *)to, (int)PAGE, (int)PAGE - 1,
				      1) == 0)
			memcpy(to, page, PAGE);
		return (uint32_t)PAGE;
	default:
		return (uint32_t)LZ4_compress_fast((const char *)page, (char *)to, (int)PAGE,
						   PACKED_MAX, 1);
	}
}

static int unpack(struct store_bench *bench, const uint8_t *from, uint32_t bytes)
{
	uint64_t word;

	switch (bench->class_measured) {
	case PAGE_SAME:
		memcpy(&word, from, sizeof(word));
		for (size_t i = 0; i < PAGE; i += sizeof(word))
			memcpy(bench->page + i, &word, sizeof(word));
		return 0;
	case PAGE_INCOMPRESSIBLE: memcpy(bench->page, from, PAGE); return 0;
	default:
		if (LZ4_decompress_safe((const char *)from, (char *)bench->bounce, (int)bytes,
					(int)PAGE) != (int)PAGE)
			return -EBADMSG;
		memcpy(bench->page, bench->bounce, PAGE);
		return 0;
	}
}

static int measure_limit(void *context, double *values)
{
	struct store_bench *bench = context;
	uint64_t cpu_start = machine_thread_cpu_ns();
	uint32_t at = 0;
	int result = 0;

	for (size_t i = 0; i < bench->count; i++) {
		bench->packed_at[i] = at;
		at += pack(bench->class_measured, bench->source + i * PAGE, bench->packed + at);
	}
	bench->packed_at[bench->count] = at;
	values[SAVE_US] = cpu_us_per_page(bench, cpu_start);
	cpu_start = machine_thread_cpu_ns();
	for (size_t n = 0; n < bench->count && result == 0; n++) {
		const uint32_t i = bench->order[n];
		const uint64_t start = machine_now_ns();

		result = unpack(bench, bench->packed + bench->packed_at[i],
				bench->packed_at[i + 1] - bench->packed_at[i]);
		bench->samples[n] = (uint32_t)(machine_now_ns() - start);
	}
	values[LOAD_CPU_US] = cpu_us_per_page(bench, cpu_start);
	set_percentiles(bench, values);
	return result;
}

static int compare_class(struct bench *bench, struct store_bench *state,
			 const struct real_pages *pages, const char *condition,
			 const char *zram_reason)
{
	const struct bench_metric metrics[METRICS] = {
		[SAVE_US] = { "save_cpu_us_per_page", "us", condition, 0 },
		[LOAD_CPU_US] = { "load_cpu_us_per_page", "us", condition, 0 },
		[LOAD_P50] = { "load_p50_ns", "ns", condition, 0 },
		[LOAD_P99] = { "load_p99_ns", "ns", condition, 0 },
	};
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = METRICS,
		.context = state,
		.ours = { "libvmem", measure_ours, NULL },
		.peer = { "zram-lz4", measure_zram, zram_reason },
		.limit = { "bare-lz4", measure_limit, NULL },
	};

	real_pages_pick(pages, state->class_measured, state->source, state->count);
	memcpy(state->paged, state->source, state->count * PAGE);
	return bench_compare(bench, &comparison);
}

static int make_store(struct store_bench *state, vmem_jemalloc *jemalloc)
{
	const struct vmem_store_opts opts = { .size = sizeof(opts),
					      .allocator = vmem_jemalloc_allocator(jemalloc),
					      .cpu = vmem_cpu_detect() };
	/* Pages of a class with too few are used again: each is to be a page of its own. */
	const struct vmem_store_vm_opts vm = { .size = sizeof(vm),
					       .vm_bytes = state->count * PAGE,
					       .cap_percent = VMEM_STORE_NO_CAP,
					       .sharing = VMEM_STORE_SHARE_NONE };
	int result = vmem_store_new(&state->store, &opts);

	return result != 0 ? result : vmem_store_add_vm(state->store, &vm, &state->vm);
}

static int make_state(struct store_bench *state, int quick)
{
	state->count = quick ? PAGES / 3 : PAGES;
	state->source = machine_map(state->count * PAGE);
	state->paged = machine_map(state->count * PAGE);
	state->packed = machine_map((state->count + 1) * PAGE);
	state->order = calloc(state->count, sizeof(*state->order));
	state->samples = calloc(state->count, sizeof(*state->samples));
	state->refs = calloc(state->count, sizeof(*state->refs));
	state->packed_at = calloc(state->count + 1, sizeof(*state->packed_at));
	if (!state->source || !state->paged || !state->packed || !state->order || !state->samples ||
	    !state->refs || !state->packed_at)
		return -ENOMEM;
	machine_shuffle(state->order, state->count, 1);
	return 0;
}

static int body(struct bench *bench)
{
	static const struct {
		enum page_class class_measured;
		const char *condition;
	} cases[] = { { PAGE_SAME, "same" },
		      { PAGE_COMPRESSIBLE, "lz4" },
		      { PAGE_INCOMPRESSIBLE, "raw" } };
	static struct store_bench state;
	const char *zram_reason = zram_missing();
	vmem_jemalloc *jemalloc = NULL;
	struct real_pages pages;
	int result;

	machine_pin(1);
	machine_warm((size_t)1 << 30);
	if ((result = make_state(&state, bench_quick(bench))) != 0 ||
	    (result = real_pages_load(&pages, 2 * PAGES, bench_images(bench))) != 0 ||
	    (!zram_reason && (result = zram_start()) != 0) ||
	    (result = vmem_jemalloc_new(&jemalloc, NULL)) != 0 ||
	    (result = make_store(&state, jemalloc)) != 0)
		return result;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases) && result == 0; i++) {
		state.class_measured = cases[i].class_measured;
		result = compare_class(bench, &state, &pages, cases[i].condition, zram_reason);
	}
	vmem_store_free(state.store);
	vmem_jemalloc_free(jemalloc);
	return result != 0 ? result : store_compare_all(bench, state.count, zram_reason);
}

int main(int argc, char **argv)
{
	return bench_main(argc, argv, "store", body);
}
