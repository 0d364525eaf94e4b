/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-fault: how long a thread or a guest waits for a page that is away. Here: pages served by
 * another thread.
 * ours   the manager's handler thread, in some rows two; pages come from staging (round trip) or are absent (faults/s)
 * peer   bare-uffd: read and UFFDIO_COPY, spinning as long before it sleeps */
#include "bench_fault.h"
#include "bare_uffd.h"
#include "paged_memory.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES ((size_t)12288)
#define TOUCHING_CPU 0
#define SERVING_CPU 1
#define THREADS_MAX 8

void touch_pages(const struct touch *touch)
{
	for (size_t n = 0; n < touch->count; n++) {
		volatile uint8_t *page = touch->memory + touch->order[n] * PAGE;
		const uint64_t start = touch->samples ? machine_now_ns() : 0;

		if (touch->write)
			*page = 1;
		else
			(void)*page;
		if (touch->samples)
			touch->samples[n] = (uint32_t)(machine_now_ns() - start);
	}
}

int touch_check(const struct touch *touch, const uint8_t *contents)
{
	static const uint8_t zeros[4096];

	for (size_t n = 0; n < touch->count; n++) {
		const uint8_t *page = touch->memory + touch->order[n] * PAGE;
		const uint8_t *was = contents ? contents + touch->order[n] * PAGE : zeros;

		if (page[0] != (touch->write ? 1 : was[0]) ||
		    memcmp(page + 1, was + 1, PAGE - 1) != 0)
			return -EBADMSG;
	}
	return 0;
}

void touch_values(const struct touch *touch, double *values)
{
	values[0] = bench_percentile(touch->samples, touch->count, 500);
	values[1] = bench_percentile(touch->samples, touch->count, 990);
}

/* Ours and the peer's memory, touched by one or more threads. */
struct thread_bench {
	struct paged_memory ours;
	struct bare_handler bare;
	uint8_t *pages; /* what is in the memory; NULL: nothing yet */
	size_t count;
	uint32_t *order;
	uint32_t *samples;
	size_t threads;
	uint32_t handlers; /* ours; 0: 1 */
};

static int make(struct thread_bench *state, size_t count, int cpu)
{
	int result;

	state->count = count;
	state->order = calloc(count, sizeof(*state->order));
	state->samples = calloc(count, sizeof(*state->samples));
	state->bare = (struct bare_handler){ .uffd = -1,
					     .memory = machine_map(count * PAGE),
					     .bytes = count * PAGE,
					     .source = state->pages,
					     .spin_us = PAGED_SPIN_US,
					     .cpu = cpu };
	if (!state->order || !state->samples || !state->bare.memory)
		return -ENOMEM;
	machine_shuffle(state->order, count, 2);
	state->ours = (struct paged_memory){ .bytes = count * PAGE,
					     .fault_way = VMEM_FAULT_THREAD,
					     .fault_around_pages = 1,
					     .fault_threads = state->handlers,
					     .cpu = cpu };
	if ((result = paged_memory_new(&state->ours)) != 0)
		return result;
	state->bare.uffd = bare_uffd_open(0);
	if (state->bare.uffd < 0)
		return state->bare.uffd;
	result = bare_uffd_register(state->bare.uffd, state->bare.memory, state->bare.bytes);
	return result != 0 ? result : bare_handler_start(&state->bare);
}

static void unmake(struct thread_bench *state)
{
	bare_handler_stop(&state->bare);
	if (state->bare.uffd >= 0)
		close(state->bare.uffd);
	machine_unmap(state->bare.memory, state->bare.bytes);
	paged_memory_free(&state->ours);
	free(state->order);
	free(state->samples);
}

static int touch_timed(const struct thread_bench *state, uint8_t *memory, double *values)
{
	const struct touch touch = { memory, state->order, state->count, 1, state->samples };

	machine_pin(TOUCHING_CPU);
	touch_pages(&touch);
	machine_unpin();
	touch_values(&touch, values);
	return touch_check(&touch, state->pages);
}

static int measure_thread_ours(void *context, double *values)
{
	struct thread_bench *state = context;
	int result = vmem_region_write(state->ours.region, 0, state->pages, state->ours.bytes);

	if (result == 0)
		result = paged_memory_stage_all(&state->ours);
	return result != 0 ? result : touch_timed(state, state->ours.memory, values);
}

static int measure_thread_bare(void *context, double *values)
{
	struct thread_bench *state = context;

	if (madvise(state->bare.memory, state->bare.bytes, MADV_DONTNEED) != 0)
		return -errno;
	return touch_timed(state, state->bare.memory, values);
}

int bench_fault_thread(struct bench *bench, const struct real_pages *pages)
{
	static const struct bench_metric metrics[] = { { "thread_roundtrip_p50_ns", "ns", NULL, 0 },
						       { "thread_roundtrip_p99_ns", "ns", NULL,
							 0 } };
	struct thread_bench state = { .bare.uffd = -1, .threads = 1 };
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = 2,
		.context = &state,
		.ours = { "libvmem", measure_thread_ours, NULL },
		.peer = { "bare-uffd", measure_thread_bare, NULL },
	};
	const size_t count = bench_quick(bench) ? PAGES / 3 : PAGES;
	int result = -ENOMEM;

	state.pages = machine_map(count * PAGE);
	if (state.pages) {
		real_pages_pick(pages, PAGE_COMPRESSIBLE, state.pages, count);
		result = make(&state, count, SERVING_CPU);
	}
	if (result == 0)
		result = bench_compare(bench, &comparison);
	unmake(&state);
	machine_unmap(state.pages, count * PAGE);
	return result;
}

static void *touch_part(void *argument)
{
	touch_pages(argument);
	return NULL;
}

/* All threads at once, each on pages of its own. */
static int touch_by_threads(const struct thread_bench *state, uint8_t *memory, double *values)
{
	const size_t part = state->count / state->threads;
	struct touch touches[THREADS_MAX];
	pthread_t threads[THREADS_MAX];
	const uint64_t start = machine_now_ns();
	int result = 0;

	if (state->threads == 1)
		machine_pin(TOUCHING_CPU);
	for (size_t i = 0; i < state->threads; i++) {
		touches[i] = (struct touch){ memory, state->order + i * part, part, 1, NULL };
		if (pthread_create(&threads[i], NULL, touch_part, &touches[i]) != 0)
			return -EAGAIN;
	}
	for (size_t i = 0; i < state->threads; i++)
		pthread_join(threads[i], NULL);
	machine_unpin();
	values[0] = (double)(part * state->threads) * 1e9 / (double)(machine_now_ns() - start);
	for (size_t i = 0; i < state->threads && result == 0; i++)
		result = touch_check(&touches[i], state->pages);
	return result;
}

static int measure_threads_ours(void *context, double *values)
{
	struct thread_bench *state = context;
	int result = vmem_region_discard(state->ours.region, 0, state->ours.bytes, NULL);

	return result != 0 ? result : touch_by_threads(state, state->ours.memory, values);
}

static int measure_threads_bare(void *context, double *values)
{
	struct thread_bench *state = context;

	if (madvise(state->bare.memory, state->bare.bytes, MADV_DONTNEED) != 0)
		return -errno;
	return touch_by_threads(state, state->bare.memory, values);
}

static int compare_threads(struct bench *bench, size_t threads, uint32_t handlers)
{
	char *condition = NULL; /* kept: it goes into the row */
	struct thread_bench state = { .bare.uffd = -1, .threads = threads, .handlers = handlers };
	struct bench_metric metric = { "faults_per_s", "1/s", NULL, 1 };
	const struct bench_comparison comparison = {
		.metrics = &metric,
		.metric_count = 1,
		.context = &state,
		.ours = { "libvmem", measure_threads_ours, NULL },
		.peer = { "bare-uffd", measure_threads_bare, NULL },
	};
	int result;

	if (asprintf(&condition, handlers > 1 ? "threads=%zu handlers=%u" : "threads=%zu", threads,
		     handlers) < 0)
		return -ENOMEM;
	metric.condition = condition;
	result = make(&state, bench_quick(bench) ? PAGES / 3 : PAGES,
		      threads == 1 ? SERVING_CPU : -1);
	if (result == 0)
		result = bench_compare(bench, &comparison);
	unmake(&state);
	return result;
}

int bench_fault_threads(struct bench *bench)
{
	int result = 0;

	for (uint32_t handlers = 1; handlers <= 2; handlers++)
		for (size_t threads = 1; threads <= THREADS_MAX && result == 0; threads *= 2)
			result = compare_threads(bench, threads, handlers);
	return result;
}

static int body(struct bench *bench)
{
	struct real_pages pages;
	int result;

	machine_warm((size_t)1 << 30);
	if ((result = real_pages_load(&pages, 3 * PAGES, bench_images(bench))) != 0 ||
	    (result = bench_fault_thread(bench, &pages)) != 0 ||
	    (result = bench_fault_inline_zero(bench)) != 0 ||
	    (result = bench_fault_inline_stored(bench, &pages)) != 0 ||
	    (result = bench_fault_threads(bench)) != 0)
		return result;
	return bench_fault_kvm(bench);
}

int main(int argc, char **argv)
{
	return bench_main(argc, argv, "fault", body);
}
