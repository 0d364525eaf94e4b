/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-fault: a KVM guest writes to memory that it has never touched, page after page.
 * ours   the manager's handler thread, with and without fault-around
 * peer   the kernel alone: the same guest on memory without userfaultfd */
#include "bench_fault.h"
#include "kvm_guest.h"
#include "paged_memory.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGES ((size_t)24576)

enum { SEQUENTIAL, RANDOM, ORDERS };

struct kvm_bench {
	size_t count;
	uint32_t *orders[ORDERS];
	struct paged_memory ours;
	struct kvm_guest *our_guest;
	uint8_t *peer_memory;
	struct kvm_guest *peer_guest;
};

static int make_guest(struct kvm_guest **ret_guest, void *memory, size_t bytes)
{
	int result = kvm_guest_new(ret_guest, memory, bytes, 1);

	if (result == 0)
		kvm_guest_box(*ret_guest)->write_every = 1;
	return result;
}

static int make(struct kvm_bench *state, uint32_t fault_around_pages)
{
	int result;

	state->orders[SEQUENTIAL] = calloc(state->count, sizeof(uint32_t));
	state->orders[RANDOM] = calloc(state->count, sizeof(uint32_t));
	state->peer_memory = machine_map(state->count * PAGE);
	if (!state->orders[SEQUENTIAL] || !state->orders[RANDOM] || !state->peer_memory)
		return -ENOMEM;
	for (size_t i = 0; i < state->count; i++)
		state->orders[SEQUENTIAL][i] = (uint32_t)i;
	machine_shuffle(state->orders[RANDOM], state->count, 4);
	state->ours = (struct paged_memory){ .bytes = state->count * PAGE,
					     .fault_way = VMEM_FAULT_THREAD,
					     .fault_around_pages = fault_around_pages,
					     .cpu = 1 };
	if ((result = paged_memory_new(&state->ours)) != 0 ||
	    (result = make_guest(&state->our_guest, state->ours.memory, state->ours.bytes)) != 0)
		return result;
	return make_guest(&state->peer_guest, state->peer_memory, state->ours.bytes);
}

static void unmake(struct kvm_bench *state)
{
	if (state->our_guest)
		kvm_guest_free(state->our_guest);
	if (state->peer_guest)
		kvm_guest_free(state->peer_guest);
	paged_memory_free(&state->ours);
	machine_unmap(state->peer_memory, state->count * PAGE);
	free(state->orders[SEQUENTIAL]);
	free(state->orders[RANDOM]);
}

/* Each page is zeros, and at its end what the guest wrote: how many operations it had done. */
static int check_pages(const struct kvm_bench *state, const uint8_t *memory, const uint32_t *order,
		       uint64_t operations)
{
	static const uint64_t zeros[512];

	for (size_t n = 0; n < state->count; n++) {
		const uint64_t *page = (const uint64_t *)(const void *)(memory + order[n] * PAGE);

		if (page[511] != operations + n || memcmp(page, zeros, PAGE - 8) != 0)
			return -EBADMSG;
	}
	return 0;
}

static int run_timed(const struct kvm_bench *state, struct kvm_guest *guest, int order,
		     double *value)
{
	const uint64_t operations = kvm_guest_operations(guest);
	uint64_t start;
	int result;

	kvm_guest_set_order(guest, state->orders[order], state->count);
	machine_pin(0);
	start = machine_now_ns();
	result = kvm_guest_run(guest);
	*value = (double)(machine_now_ns() - start) / (double)state->count;
	machine_unpin();
	return result != 0 ? result
			   : check_pages(state,
					 guest == state->our_guest ? state->ours.memory
								   : state->peer_memory,
					 state->orders[order], operations);
}

static int measure_ours(void *context, double *values)
{
	struct kvm_bench *state = context;
	int result = 0;

	for (int order = 0; order < ORDERS && result == 0; order++) {
		result = vmem_region_discard(state->ours.region, 0, state->ours.bytes, NULL);
		if (result == 0)
			result = run_timed(state, state->our_guest, order, &values[order]);
	}
	return result;
}

static int measure_kernel(void *context, double *values)
{
	struct kvm_bench *state = context;
	int result = 0;

	for (int order = 0; order < ORDERS && result == 0; order++) {
		if (madvise(state->peer_memory, state->ours.bytes, MADV_DONTNEED) != 0)
			return -errno;
		result = run_timed(state, state->peer_guest, order, &values[order]);
	}
	return result;
}

int bench_fault_kvm(struct bench *bench)
{
	static const struct {
		uint32_t fault_around_pages;
		const char *condition;
	} cases[] = { { 0, "faultaround=on" }, { 1, "faultaround=off" } };
	int result = 0;

	if (kvm_guest_missing()) {
		bench_note(bench, "no kvm rows: %s", kvm_guest_missing());
		return 0;
	}
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases) && result == 0; i++) {
		const struct bench_metric metrics[ORDERS] = {
			[SEQUENTIAL] = { "kvm_sequential_ns_per_page", "ns", cases[i].condition,
					 0 },
			[RANDOM] = { "kvm_random_ns_per_page", "ns", cases[i].condition, 0 }
		};
		struct kvm_bench state = { .count = bench_quick(bench) ? PAGES / 3 : PAGES };
		const struct bench_comparison comparison = {
			.metrics = metrics,
			.metric_count = ORDERS,
			.context = &state,
			.ours = { "libvmem", measure_ours, NULL },
			.peer = { "kernel", measure_kernel, NULL },
		};

		result = make(&state, cases[i].fault_around_pages);
		if (result == 0)
			result = bench_compare(bench, &comparison);
		unmake(&state);
	}
	return result;
}
