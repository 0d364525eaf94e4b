/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-reclaim: what it costs to take pages out of a running guest. Here: into staging, while the
 * guest works on others, on the other processor.
 * ours   vmem_region_stage() of aligned runs, vmem_region_stage_pages() of scattered pages
 * peer   madvise(MADV_DONTNEED) of the same, which keeps nothing
 * limit  UFFDIO_MOVE of the same, and nothing else */
#include "bench_reclaim.h"
#include "bare_uffd.h"
#include "paged_memory.h"
#include "../examples/common/split_random.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES ((size_t)65536)
#define RUN ((size_t)64)
#define BATCH 512u            /* scattered pages taken by one call */
#define WINDOW ((size_t)2048) /* out of so many */
#define UNDISTURBED_MS 100

enum { BYTES_PER_S, GUEST_SPEED, METRICS };

struct side {
	uint8_t *memory;
	struct kvm_guest *guest;
};

struct stage_bench {
	const char *condition;
	size_t run;        /* pages of a victim: RUN, or 1 */
	size_t windows;    /* times that all victims are taken in one measurement */
	uint64_t *victims; /* offsets in bytes, ascending */
	size_t victim_count;
	uint32_t *order; /* of the guest: the other pages */
	size_t order_count;
	uint8_t *contents;
	struct paged_memory paged;
	struct side ours, move, discard;
	uint8_t *staging; /* of the limit */
	int uffd;
};

int reclaim_guest_new(struct kvm_guest **ret_guest, void *memory, size_t bytes)
{
	int result = kvm_guest_new(ret_guest, memory, bytes, kvm_guest_missing() == NULL);

	if (result == 0) {
		kvm_guest_box(*ret_guest)->words = 512;
		kvm_guest_box(*ret_guest)->write_every = 4;
	}
	return result;
}

/* All runs of the upper half; the guest works on the lower half. */
static void choose_runs(struct stage_bench *state)
{
	state->run = RUN;
	for (size_t page = 0; page < PAGES; page++) {
		if (page < PAGES / 2)
			state->order[state->order_count++] = (uint32_t)page;
		else if (page % RUN == 0)
			state->victims[state->victim_count++] = page * PAGE;
	}
}

/* A random quarter of each window, from a page on; the guest works on the pages before that, or, if
 * there are none, on those between the victims. */
static void choose_scattered(struct stage_bench *state, size_t first)
{
	uint32_t ranks[WINDOW];

	state->run = 1;
	for (size_t page = 0; page < PAGES; page++) {
		if (page % WINDOW == 0)
			machine_shuffle(ranks, WINDOW, page);
		if (page >= first && ranks[page % WINDOW] < BATCH)
			state->victims[state->victim_count++] = page * PAGE;
		else if (page < first || first == 0)
			state->order[state->order_count++] = (uint32_t)page;
	}
}

static void shuffle_order(struct stage_bench *state)
{
	uint64_t seed = 5;

	for (size_t i = state->order_count; i > 1; i--) {
		size_t other = (size_t)(random_next(&seed) % i);
		uint32_t page = state->order[i - 1];

		state->order[i - 1] = state->order[other];
		state->order[other] = page;
	}
}

static int make_side(const struct stage_bench *state, struct side *side, uint8_t *memory)
{
	int result;

	side->memory = memory;
	if (!memory)
		return -ENOMEM;
	result = reclaim_guest_new(&side->guest, memory, PAGES * PAGE);
	if (result == 0)
		kvm_guest_set_order(side->guest, state->order, state->order_count);
	return result;
}

static int make(struct stage_bench *state)
{
	int result;

	state->uffd = bare_uffd_open(UFFD_FEATURE_MOVE);
	state->staging = machine_map(PAGES * PAGE);
	state->paged = (struct paged_memory){ .bytes = PAGES * PAGE,
					      .fault_way = VMEM_FAULT_THREAD,
					      .cpu = RECLAIM_CPU };
	if (!state->staging)
		return -ENOMEM;
	if ((result = paged_memory_new(&state->paged)) != 0 ||
	    (result = vmem_region_write(state->paged.region, 0, state->contents, PAGES * PAGE)) !=
		    0 ||
	    (result = make_side(state, &state->ours, state->paged.memory)) != 0 ||
	    (result = make_side(state, &state->discard, machine_map(PAGES * PAGE))) != 0 ||
	    (result = make_side(state, &state->move, machine_map(PAGES * PAGE))) != 0)
		return result;
	memcpy(state->discard.memory, state->contents, PAGES * PAGE);
	memcpy(state->move.memory, state->contents, PAGES * PAGE);
	if (state->uffd >= 0 &&
	    ((result = bare_uffd_register(state->uffd, state->move.memory, PAGES * PAGE)) != 0 ||
	     (result = bare_uffd_register(state->uffd, state->staging, PAGES * PAGE)) != 0))
		return result;
	return 0;
}

static void unmake(struct stage_bench *state)
{
	struct side *const sides[] = { &state->ours, &state->discard, &state->move };

	for (int i = 0; i < 3; i++)
		if (sides[i]->guest)
			kvm_guest_free(sides[i]->guest);
	paged_memory_free(&state->paged);
	if (state->uffd >= 0)
		close(state->uffd);
	machine_unmap(state->staging, PAGES * PAGE);
	machine_unmap(state->discard.memory, PAGES * PAGE);
	machine_unmap(state->move.memory, PAGES * PAGE);
}

static int take_ours(struct stage_bench *state)
{
	uint64_t pages, all = 0;
	int result = 0;

	for (size_t i = 0; i < state->victim_count && result == 0; all += pages) {
		pages = 0;
		if (state->run > 1) {
			result = vmem_region_stage(state->paged.region, state->victims[i],
						   state->run * PAGE, &pages);
			i++;
		} else {
			result = vmem_region_stage_pages(state->paged.region, state->victims + i,
							 BATCH, &pages);
			i += BATCH;
		}
	}
	return result == 0 && all != state->victim_count * state->run ? -EBUSY : result;
}

/* It must still be as it was; the guest does not touch it. */
static int check_victim(const struct stage_bench *state, size_t i, const uint8_t *found)
{
	return memcmp(found, state->contents + state->victims[i], state->run * PAGE) == 0
		       ? 0
		       : -EBADMSG;
}

static int check_staged(const struct stage_bench *state, size_t i)
{
	uint8_t found[RUN * PAGE];
	int result =
		vmem_region_read(state->paged.region, state->victims[i], found, state->run * PAGE);

	return result != 0 ? result : check_victim(state, i, found);
}

static int write_victim(const struct stage_bench *state, size_t i)
{
	return vmem_region_write(state->paged.region, state->victims[i],
				 state->contents + state->victims[i], state->run * PAGE);
}

/* The copies that stay in staging are freed by the manager's thread in its own time, or when their pages
 * are next taken or stored: let it be done before those are timed. Nothing is stored, as no page is staged. */
static int back_ours(struct stage_bench *state)
{
	uint64_t stored;
	int result = 0;

	for (size_t i = 0; i < state->victim_count && result == 0; i++) {
		result = check_staged(state, i);
		if (result == 0)
			result = write_victim(state, i);
	}
	if (result == 0)
		result = vmem_region_store(state->paged.region, 0, state->paged.bytes, &stored);
	return result == 0 && stored ? -EBADMSG : result;
}

static int take_move(struct stage_bench *state)
{
	int result = 0;

	for (size_t i = 0; i < state->victim_count && result == 0; i++)
		result = bare_uffd_move(state->uffd, state->staging + state->victims[i],
					state->move.memory + state->victims[i], state->run * PAGE);
	return result;
}

static int back_move(struct stage_bench *state)
{
	int result = 0;

	for (size_t i = 0; i < state->victim_count && result == 0; i++) {
		uint8_t *const victim = state->move.memory + state->victims[i];

		result = bare_uffd_move(state->uffd, victim, state->staging + state->victims[i],
					state->run * PAGE);
		if (result == 0)
			result = check_victim(state, i, victim);
	}
	return result;
}

static int take_discard(struct stage_bench *state)
{
	for (size_t i = 0; i < state->victim_count; i++)
		if (madvise(state->discard.memory + state->victims[i], state->run * PAGE,
			    MADV_DONTNEED) != 0)
			return -errno;
	return 0;
}

static int back_discard(struct stage_bench *state)
{
	for (size_t i = 0; i < state->victim_count; i++)
		memcpy(state->discard.memory + state->victims[i],
		       state->contents + state->victims[i], state->run * PAGE);
	return 0;
}

/* How a side takes its victims out, and how they come back, which is not measured. */
struct way {
	int (*take)(struct stage_bench *state);
	int (*back)(struct stage_bench *state);
};

static int take_windows(struct stage_bench *state, const struct side *side, const struct way *way,
			double *values)
{
	uint64_t ns = 0, operations = 0;
	double undisturbed;
	int result = 0;

	/* What the last round took from under it has come back by then. */
	kvm_guest_await(side->guest, 2 * state->order_count);
	undisturbed = kvm_guest_speed(side->guest, UNDISTURBED_MS);
	for (size_t i = 0; i < state->windows && result == 0; i++) {
		uint64_t operations_before = kvm_guest_operations(side->guest);
		uint64_t start = machine_now_ns();

		result = way->take(state);
		ns += machine_now_ns() - start;
		operations += kvm_guest_operations(side->guest) - operations_before;
		if (result == 0)
			result = way->back(state);
	}
	values[BYTES_PER_S] = (double)(state->windows * state->victim_count * state->run * PAGE) *
			      1e9 / (double)ns;
	values[GUEST_SPEED] = (double)operations * 1e9 / (double)ns / undisturbed;
	return result;
}

static int measure(struct stage_bench *state, const struct side *side, const struct way *way,
		   double *values)
{
	int result = kvm_guest_start(side->guest, GUEST_CPU), guest_result;

	if (result != 0)
		return result;
	machine_pin(RECLAIM_CPU);
	result = take_windows(state, side, way, values);
	machine_unpin();
	guest_result = kvm_guest_stop(side->guest);
	return result != 0 ? result : guest_result;
}

static int measure_ours(void *context, double *values)
{
	struct stage_bench *state = context;

	return measure(state, &state->ours, &(struct way){ take_ours, back_ours }, values);
}

static int measure_move(void *context, double *values)
{
	struct stage_bench *state = context;

	return measure(state, &state->move, &(struct way){ take_move, back_move }, values);
}

static int measure_discard(void *context, double *values)
{
	struct stage_bench *state = context;

	return measure(state, &state->discard, &(struct way){ take_discard, back_discard }, values);
}

static int compare_staging(struct bench *bench, struct stage_bench *state)
{
	const struct bench_metric metrics[METRICS] = {
		[BYTES_PER_S] = { "stage_bytes_per_s", "B/s", state->condition, 1 },
		[GUEST_SPEED] = { "guest_speed_while_staging", "share", state->condition, 1 },
	};
	struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = METRICS,
		.context = state,
		.ours = { "libvmem", measure_ours, NULL },
		.peer = { "madvise-dontneed", measure_discard, NULL },
		.limit = { "bare-move", measure_move, NULL },
	};
	int result;

	shuffle_order(state);
	result = make(state);
	if (state->uffd < 0)
		comparison.limit.missing = "no userfaultfd with UFFDIO_MOVE here";
	if (result == 0)
		result = bench_compare(bench, &comparison);
	unmake(state);
	return result;
}

static int bench_reclaim_stage(struct bench *bench, uint8_t *contents)
{
	static const struct {
		const char *condition;
		size_t run, first; /* first page of the scattered victims */
		size_t windows;
	} cases[] = { { "run=64", RUN, 0, 15 },
		      { "scattered", 1, PAGES / 2, 6 },
		      { "scattered-between", 1, 0, 3 } };
	struct stage_bench state = { .contents = contents };
	int result = 0;

	state.victims = calloc(PAGES, sizeof(*state.victims));
	state.order = calloc(PAGES, sizeof(*state.order));
	if (!state.victims || !state.order)
		return -ENOMEM;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases) && result == 0; i++) {
		state.condition = cases[i].condition;
		state.windows = bench_quick(bench) ? cases[i].windows / 3 : cases[i].windows;
		state.victim_count = state.order_count = 0;
		if (cases[i].run == RUN)
			choose_runs(&state);
		else
			choose_scattered(&state, cases[i].first);
		result = compare_staging(bench, &state);
	}
	free(state.victims);
	free(state.order);
	return result;
}

static int body(struct bench *bench)
{
	uint8_t *contents = machine_map(PAGES * PAGE);
	struct real_pages pages;
	int result;

	if (!contents)
		return -ENOMEM;
	machine_warm((size_t)2 << 30);
	if (kvm_guest_missing())
		bench_note(bench, "the guest is a thread: %s", kvm_guest_missing());
	if ((result = real_pages_load(&pages, PAGES, bench_images(bench))) != 0)
		return result;
	real_pages_mix(&pages, contents, PAGES);
	if ((result = bench_reclaim_stage(bench, contents)) != 0)
		return result;
	machine_unmap(contents, PAGES * PAGE);
	if ((result = bench_reclaim_store(bench, &pages)) != 0 ||
	    (result = bench_replay(bench, &pages)) != 0)
		return result;
	return bench_half_budget(bench, &pages);
}

int main(int argc, char **argv)
{
	return bench_main(argc, argv, "reclaim", body);
}
