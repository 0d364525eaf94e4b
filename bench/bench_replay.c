/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-reclaim: bringing a recorded working set back, by one thread, before the guest runs.
 * ours   vmem_working_set_replay()
 * limit  UFFDIO_COPY of as many pages, in runs of 64 or one by one, and nothing else
 * The set is all of the memory, recorded in ascending order (in-order) or in a random one (shuffled), or every
 * second page of it, so that no two pages make a run (scattered). The pages are of one repeated word each, and in
 * the store (same); in staging (staged); or in the store by LZ4 (lz4). What counts is the processor time of the
 * thread: pages a second of one core. */
#include "bench_reclaim.h"
#include "bare_uffd.h"
#include "paged_memory.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vmem/working_set.h>

#define RUN ((size_t)64)

enum from { SAME, STAGED, LZ4 };
enum order { IN_ORDER, SHUFFLED, SCATTERED };

struct replay_bench {
	const char *condition;
	enum from from;
	enum order how;
	size_t pages;
	uint32_t *order; /* of the set */
	size_t count;    /* pages of it */
	uint8_t *contents, *found;
	struct paged_memory paged;
	vmem_working_set *set;
	uint8_t *bare_memory;
	int uffd;
};

/* Records a set by touching its pages while none is there. */
static int record(struct replay_bench *state)
{
	int result = vmem_working_set_record_start(state->paged.region, NULL);

	for (size_t i = 0; i < state->count && result == 0; i++)
		result = vmem_region_resolve(state->paged.region, state->order[i] * PAGE, 0);
	return result != 0 ? result
			   : vmem_working_set_record_stop(state->paged.region, &state->set);
}

static void make_contents(struct replay_bench *state, const struct real_pages *pages)
{
	uint64_t *words = (uint64_t *)state->contents;

	if (state->from != SAME) {
		real_pages_pick(pages, PAGE_COMPRESSIBLE, state->contents, state->pages);
		return;
	}
	for (size_t i = 0; i < state->pages * PAGE / 8; i++)
		words[i] = (i / (PAGE / 8) + 1) * 0x100000001u; /* as most are: 32 bits twice */
}

static void choose(struct replay_bench *state)
{
	state->count = state->how == SCATTERED ? state->pages / 2 : state->pages;
	if (state->how == IN_ORDER)
		for (size_t i = 0; i < state->count; i++)
			state->order[i] = (uint32_t)i;
	else
		machine_shuffle(state->order, state->count, 11);
	for (size_t i = 0; i < state->count && state->how == SCATTERED; i++)
		state->order[i] *= 2;
}

static int make(struct replay_bench *state, const struct real_pages *pages)
{
	int result;

	state->uffd = bare_uffd_open(0);
	state->contents = machine_map(state->pages * PAGE);
	state->found = machine_map(state->pages * PAGE);
	state->bare_memory = machine_map(state->pages * PAGE);
	state->order = calloc(state->pages, sizeof(*state->order));
	state->paged = (struct paged_memory){ .bytes = state->pages * PAGE,
					      .fault_way = VMEM_FAULT_THREAD,
					      .cpu = RECLAIM_CPU };
	if (!state->contents || !state->found || !state->bare_memory || !state->order)
		return -ENOMEM;
	make_contents(state, pages);
	choose(state);
	if ((result = paged_memory_new(&state->paged)) != 0 || (result = record(state)) != 0)
		return result;
	return state->uffd < 0
		       ? 0
		       : bare_uffd_register(state->uffd, state->bare_memory, state->pages * PAGE);
}

static void unmake(struct replay_bench *state)
{
	vmem_working_set_free(state->set);
	paged_memory_free(&state->paged);
	if (state->uffd >= 0)
		close(state->uffd);
	machine_unmap(state->contents, state->pages * PAGE);
	machine_unmap(state->found, state->pages * PAGE);
	machine_unmap(state->bare_memory, state->pages * PAGE);
	free(state->order);
}

/* Written anew, so that no page has a copy anywhere, and taken out. */
static int put_away(struct replay_bench *state)
{
	int result = vmem_region_write(state->paged.region, 0, state->contents, state->paged.bytes);

	if (result != 0)
		return result;
	return state->from == STAGED ? paged_memory_stage_all(&state->paged)
				     : paged_memory_store_all(&state->paged);
}

static int measure_ours(void *context, double *values)
{
	struct replay_bench *state = context;
	struct vmem_working_set_stats stats = { .size = sizeof(stats) };
	int result = put_away(state);
	uint64_t start;

	if (result != 0)
		return result;
	machine_pin(GUEST_CPU);
	start = machine_thread_cpu_ns();
	result = vmem_working_set_replay(state->paged.region, state->set, NULL, &stats);
	values[0] = (double)state->count * 1e9 / (double)(machine_thread_cpu_ns() - start);
	machine_unpin();
	if (result == 0 && stats.brought != state->count)
		result = -EBUSY;
	if (result == 0)
		result = vmem_region_read(state->paged.region, 0, state->found, state->paged.bytes);
	if (result == 0 && memcmp(state->found, state->contents, state->paged.bytes) != 0)
		result = -EBADMSG;
	return result;
}

static int measure_bare(void *context, double *values)
{
	struct replay_bench *state = context;
	const size_t run = state->how == SCATTERED ? 1 : RUN;
	int result = 0;
	uint64_t start;

	madvise(state->bare_memory, state->pages * PAGE, MADV_DONTNEED);
	machine_pin(GUEST_CPU);
	start = machine_thread_cpu_ns();
	for (size_t i = 0; i < state->count && result == 0; i += run) {
		const size_t at = (state->how == SCATTERED ? state->order[i] : i) * PAGE;
		/* A page of one word is made where the last one was. */
		const uint8_t *from =
			state->contents + (state->from == SAME ? at % (RUN * PAGE) : at);

		result = bare_uffd_copy(state->uffd, state->bare_memory + at, from, run * PAGE);
	}
	values[0] = (double)state->count * 1e9 / (double)(machine_thread_cpu_ns() - start);
	machine_unpin();
	return result;
}

static int compare_replay(struct bench *bench, const struct real_pages *pages,
			  struct replay_bench *state)
{
	const struct bench_metric metric = { "replay_pages_per_s", "pages/s", state->condition, 1 };
	struct bench_comparison comparison = {
		.metrics = &metric,
		.metric_count = 1,
		.context = state,
		.ours = { "libvmem", measure_ours, NULL },
		.limit = { "bare-copy", measure_bare, NULL },
	};
	int result = make(state, pages);

	if (state->uffd < 0)
		comparison.limit.missing = "no userfaultfd here";
	if (result == 0)
		result = bench_compare(bench, &comparison);
	unmake(state);
	return result;
}

int bench_replay(struct bench *bench, const struct real_pages *pages)
{
	static const struct {
		const char *condition;
		enum from from;
		enum order how;
	} cases[] = {
		{ "same in-order", SAME, IN_ORDER },     { "same shuffled", SAME, SHUFFLED },
		{ "same scattered", SAME, SCATTERED },   { "staged in-order", STAGED, IN_ORDER },
		{ "staged shuffled", STAGED, SHUFFLED }, { "staged scattered", STAGED, SCATTERED },
		{ "lz4 in-order", LZ4, IN_ORDER },
	};
	int result = 0;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases) && result == 0; i++) {
		struct replay_bench state = { .condition = cases[i].condition,
					      .from = cases[i].from,
					      .how = cases[i].how,
					      .pages = bench_quick(bench) ? 8192 : 32768 };

		result = compare_replay(bench, pages, &state);
	}
	return result;
}
