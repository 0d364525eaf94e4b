/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-balloon: page numbers of a guest in, ranges out.
 * core_pfn_per_s       vmem_balloon_give() and all that comes of it, 256 numbers a buffer as Linux sends them, each
 *                      buffer returned before the next; range: entries of 2 MiB
 *   limit              a loop that reads each number and sets as many bits, and nothing else: those of each number,
 *                      shuffled; whole words, sequential and range, where it need not look at what it reads
 * inflate_bytes_per_s  the same, and the pages really discarded
 *   peer               one madvise(MADV_DONTNEED) for each number, which is what other devices do
 *   limit              one madvise for all
 * Cases kvm_*: bench_balloon_kvm.c; region_*: bench_balloon_region.c; uml_*: bench_balloon_uml.c. */
#include "bench_balloon.h"
#include "harness.h"
#include "machine.h"
#define VMEM_EXPERIMENTAL
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <vmem/balloon.h>

#define RAM_PAGES ((size_t)1 << 20) /* 4 GiB */
#define REAL_PAGES ((size_t)1 << 16)
#define BUFFER 256u      /* numbers */
#define RANGE_PAGES 512u /* of an entry */

struct balloon_bench {
	vmem_balloon *balloon;
	uint32_t *gfns;    /* RAM_PAGES of them */
	uint64_t *entries; /* RAM_PAGES / RANGE_PAGES of them */
	uint64_t *bits;    /* of the limit */
	uint64_t features;
	uint8_t *memory; /* REAL_PAGES, to be discarded; NULL: nothing is */
	uint32_t times;
	bool in_order; /* gfns are */
};

static int start(vmem_balloon *b, uint64_t features)
{
	const uint32_t ok = VMEM_VIRTIO_FEATURES_OK | VMEM_VIRTIO_DRIVER_OK;
	uint32_t status;

	vmem_balloon_set_status(b, 0, NULL);
	vmem_balloon_set_status(b, 3, NULL);
	(void)vmem_balloon_set_features(b, features);
	vmem_balloon_set_status(b, VMEM_VIRTIO_FEATURES_OK, NULL);
	vmem_balloon_set_status(b, VMEM_VIRTIO_DRIVER_OK, &status);
	return (status & ok) == ok ? 0 : -EINVAL;
}

/* What a transport does for each notification. */
static int drain(struct balloon_bench *b)
{
	struct vmem_balloon_range ranges[64];
	struct vmem_balloon_done done;
	size_t n;

	while ((n = vmem_balloon_take_ranges(b->balloon, ranges, 64)) != 0)
		for (size_t i = 0; b->memory && i < n; i++)
			if (madvise(b->memory + ranges[i].gpa, ranges[i].bytes, MADV_DONTNEED) != 0)
				return -errno;
	while (vmem_balloon_take_done(b->balloon, &done))
		;
	return 0;
}

static int inflate(struct balloon_bench *b, const void *numbers, size_t bytes, size_t buffer_bytes)
{
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer) };
	int error = 0;

	for (size_t at = 0; at < bytes && !error; at += buffer_bytes) {
		buffer.bytes = (const uint8_t *)numbers + at;
		buffer.count = bytes - at < buffer_bytes ? bytes - at : buffer_bytes;
		while ((error = vmem_balloon_give(b->balloon, &buffer)) == -VMEM_EAGAIN)
			if ((error = drain(b)) != 0)
				return error;
		error = error ? error : drain(b);
	}
	return error;
}

static int measure_core(void *context, double *values)
{
	struct balloon_bench *b = context;
	uint64_t ns = 0, started;
	int error = 0;

	for (uint32_t i = 0; i < b->times && !error; i++) {
		error = start(b->balloon, b->features);
		started = machine_now_ns();
		if (!error && (b->features & VMEM_BALLOON_F_RANGES))
			error = inflate(b, b->entries, RAM_PAGES / RANGE_PAGES * sizeof(uint64_t),
					BUFFER * sizeof(uint64_t));
		else if (!error)
			error = inflate(b, b->gfns, RAM_PAGES * sizeof(uint32_t),
					BUFFER * sizeof(uint32_t));
		ns += machine_now_ns() - started;
	}
	values[0] = (double)RAM_PAGES * b->times * 1e9 / (double)ns;
	return error;
}

static void set_ranges(const struct balloon_bench *b)
{
	for (size_t at = 0; at < RAM_PAGES / RANGE_PAGES; at++) {
		uint64_t *words = b->bits + (b->entries[at] & ((UINT64_C(1) << 40) - 1)) / 64;

		for (size_t word = 0; word < RANGE_PAGES / 64; word++)
			words[word] |= ~UINT64_C(0);
	}
}

static void set_words(const struct balloon_bench *b)
{
	for (size_t at = 0; at < RAM_PAGES; at += 64) {
		uint32_t all = 0;

		for (size_t i = 0; i < 64; i++)
			all |= b->gfns[at + i];
		__asm__ volatile("" : : "r"(all));
		b->bits[b->gfns[at] / 64] = ~UINT64_C(0);
	}
}

static void set_bits(const struct balloon_bench *b)
{
	for (size_t at = 0; at < RAM_PAGES; at++)
		b->bits[b->gfns[at] / 64] |= UINT64_C(1) << b->gfns[at] % 64;
}

static int measure_bits(void *context, double *values)
{
	struct balloon_bench *b = context;
	uint64_t ns = 0, started;

	for (uint32_t i = 0; i < b->times; i++) {
		memset(b->bits, 0, RAM_PAGES / 8);
		started = machine_now_ns();
		if (b->features & VMEM_BALLOON_F_RANGES)
			set_ranges(b);
		else if (b->in_order)
			set_words(b);
		else
			set_bits(b);
		__asm__ volatile("" : : "r"(b->bits) : "memory");
		ns += machine_now_ns() - started;
	}
	values[0] = (double)RAM_PAGES * b->times * 1e9 / (double)ns;
	return 0;
}

static int compare_core(struct bench *bench, struct balloon_bench *b, const char *condition)
{
	const struct bench_metric metric = { "core_pfn_per_s", "1/s", condition, 1 };
	const struct bench_comparison comparison = {
		.metrics = &metric,
		.metric_count = 1,
		.context = b,
		.ours = { "libvmem", measure_core, NULL },
		.limit = { "bits", measure_bits, NULL },
	};

	return bench_compare(bench, &comparison);
}

static double rate(uint64_t started)
{
	return (double)(REAL_PAGES * PAGE) * 1e9 / (double)(machine_now_ns() - started);
}

static void fill(const struct balloon_bench *b)
{
	for (size_t i = 0; i < REAL_PAGES; i++)
		b->memory[i * PAGE] = 1;
}

static int measure_inflate(void *context, double *values)
{
	struct balloon_bench *b = context;
	int error = start(b->balloon, b->features);
	uint64_t started;

	fill(b);
	started = machine_now_ns();
	error = error ? error
		      : inflate(b, b->gfns, REAL_PAGES * sizeof(uint32_t),
				BUFFER * sizeof(uint32_t));
	values[0] = rate(started);
	return error;
}

static int measure_each(void *context, double *values)
{
	struct balloon_bench *b = context;
	uint64_t started;

	fill(b);
	started = machine_now_ns();
	for (size_t i = 0; i < REAL_PAGES; i++)
		if (madvise(b->memory + b->gfns[i] * PAGE, PAGE, MADV_DONTNEED) != 0)
			return -errno;
	values[0] = rate(started);
	return 0;
}

static int measure_bulk(void *context, double *values)
{
	struct balloon_bench *b = context;
	uint64_t started;

	fill(b);
	started = machine_now_ns();
	if (madvise(b->memory, REAL_PAGES * PAGE, MADV_DONTNEED) != 0)
		return -errno;
	values[0] = rate(started);
	return 0;
}

static int compare_inflate(struct bench *bench, struct balloon_bench *b, const char *condition)
{
	const struct bench_metric metric = { "inflate_bytes_per_s", "B/s", condition, 1 };
	const struct bench_comparison comparison = {
		.metrics = &metric,
		.metric_count = 1,
		.context = b,
		.ours = { "libvmem", measure_inflate, NULL },
		.peer = { "madvise-per-pfn", measure_each, NULL },
		.limit = { "bulk MADV_DONTNEED", measure_bulk, NULL },
	};

	return bench_compare(bench, &comparison);
}

static int make(struct balloon_bench *b)
{
	const struct vmem_balloon_opts opts = {
		.size = sizeof(opts), .features = VMEM_BALLOON_F_RANGES | VMEM_VIRTIO_F_VERSION_1
	};
	int error = vmem_balloon_new(&b->balloon, &opts);

	if (!error)
		error = vmem_balloon_add_ram(b->balloon, 0, RAM_PAGES * PAGE, PAGE);
	b->gfns = malloc(RAM_PAGES * sizeof(*b->gfns));
	b->entries = malloc(RAM_PAGES / RANGE_PAGES * sizeof(*b->entries));
	b->bits = calloc(1, RAM_PAGES / 8);
	if (error || !b->gfns || !b->entries || !b->bits)
		return error ? error : -ENOMEM;
	for (size_t i = 0; i < RAM_PAGES; i++)
		b->gfns[i] = (uint32_t)i;
	for (size_t i = 0; i < RAM_PAGES / RANGE_PAGES; i++)
		b->entries[i] = VMEM_BALLOON_RANGE(i * RANGE_PAGES, RANGE_PAGES);
	return 0;
}

static int body(struct bench *bench)
{
	static struct balloon_bench b;
	int error;

	b.times = bench_quick(bench) ? 3 : 10;
	machine_warm(REAL_PAGES * PAGE * 2);
	b.features = VMEM_VIRTIO_F_VERSION_1;
	b.in_order = true;
	if ((error = make(&b)) != 0 || (error = compare_core(bench, &b, "sequential")) != 0)
		return error;
	b.features |= VMEM_BALLOON_F_RANGES;
	error = compare_core(bench, &b, "range");
	b.features &= ~VMEM_BALLOON_F_RANGES;
	b.memory = machine_map(REAL_PAGES * PAGE);
	if (!b.memory)
		return -ENOMEM;
	error = error ? error : compare_inflate(bench, &b, "sequential");
	machine_shuffle(b.gfns, REAL_PAGES, 11);
	error = error ? error : compare_inflate(bench, &b, "shuffled");
	machine_unmap(b.memory, REAL_PAGES * PAGE);
	b.memory = NULL;
	machine_shuffle(b.gfns, RAM_PAGES, 11);
	b.in_order = false;
	error = error ? error : compare_core(bench, &b, "shuffled");
	error = error ? error : bench_balloon_region(bench);
	error = error ? error : bench_balloon_vm(bench);
	return error ? error : bench_balloon_uml(bench);
}

int main(int argc, char **argv)
{
	return bench_main(argc, argv, "balloon", body);
}
