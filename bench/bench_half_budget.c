/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-reclaim: how fast a guest is that has half the memory it uses. Its operations, each about
 * 1 us of work on one page, one in four with a write, fall on pages by Zipf's law (zipf), or 99.9 %
 * of them on 30 % of its memory (hot30).
 * ours   libvmem with the budget
 * peer   a memory cgroup and zram-lz4: what the guest has in memory and what zram uses for the rest
 *        make the budget together
 * The guests run in turn, each in a process of its own, and so does one without a budget, whose speed
 * is 1. All that a guest costs is measured from outside, by its cgroup. */
#include "bench_reclaim.h"
#include "memory_group.h"
#include "paged_memory.h"
#include "zram_peer.h"
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES ((size_t)65536)
#define BYTES (PAGES * PAGE)
#define BUDGET (BYTES / 2)
#define CLUSTER ((size_t)16) /* pages side by side that are about equally hot */
#define ZIPF_EXPONENT 0.99
#define REFRESH_MS 2
#define ADJUST_TURNS 25u
#define STEPS_LEAST 3
#define STEPS_MOST 40
#define SETTLED_BYTES ((int64_t)1 << 20)

enum kind { OURS, PEER, UNBUDGETED, KINDS };

struct command {
	unsigned ms; /* run for so long, then answer; 0: end */
};

struct answer {
	int error;
	double speed; /* operations a second */
};

/* A guest in its own process. */
struct machine {
	enum kind kind;
	pid_t process;
	int commands, answers; /* the parent's ends */
	struct memory_group group;
	int grouped;
};

struct half_bench {
	const uint8_t *contents;
	uint32_t *order;
	size_t order_count;
	unsigned window_ms;
	struct machine machines[KINDS];
};

/* Page of a rank, 0 the hottest: neighbours in rank are neighbours in memory. */
static uint32_t page_of_rank(const uint32_t *clusters, size_t rank)
{
	return clusters[rank / CLUSTER] * (uint32_t)CLUSTER + (uint32_t)(rank % CLUSTER);
}

static double uniform(uint64_t *state)
{
	return (double)(machine_random(state) >> 11) * 0x1p-53;
}

static size_t search(const double *cumulated, double value)
{
	size_t low = 0, high = PAGES - 1;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (cumulated[middle] < value)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void draw_zipf(struct half_bench *state, const uint32_t *clusters, double *cumulated)
{
	uint64_t seed = 7;
	double sum = 0;

	for (size_t rank = 0; rank < PAGES; rank++) {
		sum += pow((double)(rank + 1), -ZIPF_EXPONENT);
		cumulated[rank] = sum;
	}
	for (size_t i = 0; i < state->order_count; i++)
		state->order[i] = page_of_rank(clusters, search(cumulated, uniform(&seed) * sum));
}

static void draw_hot30(struct half_bench *state, const uint32_t *clusters)
{
	const size_t hot = PAGES * 3 / 10;
	uint64_t seed = 8;

	for (size_t i = 0; i < state->order_count; i++) {
		size_t rank = uniform(&seed) < 0.999
				      ? (size_t)(machine_random(&seed) % hot)
				      : hot + (size_t)(machine_random(&seed) % (PAGES - hot));

		state->order[i] = page_of_rank(clusters, rank);
	}
}

static int draw_order(struct half_bench *state, int zipf)
{
	uint32_t *clusters = calloc(PAGES / CLUSTER, sizeof(*clusters));
	double *cumulated = calloc(PAGES, sizeof(*cumulated));

	if (!clusters || !cumulated)
		return -ENOMEM;
	machine_shuffle(clusters, PAGES / CLUSTER, 9);
	if (zipf)
		draw_zipf(state, clusters, cumulated);
	else
		draw_hot30(state, clusters);
	free(clusters);
	free(cumulated);
	return 0;
}

static int fill(const struct half_bench *state, struct paged_memory *paged, uint8_t **ret_memory)
{
	int result;

	if (!paged) {
		*ret_memory = machine_map(BYTES);
		if (!*ret_memory)
			return -ENOMEM;
		memcpy(*ret_memory, state->contents, BYTES);
		return 0;
	}
	result = paged_memory_new(paged);
	*ret_memory = paged->memory;
	return result != 0 ? result : vmem_region_write(paged->region, 0, state->contents, BYTES);
}

static int run_window(struct kvm_guest *guest, unsigned ms, double *ret_speed)
{
	int result = kvm_guest_start(guest, GUEST_CPU);

	if (result != 0)
		return result;
	*ret_speed = kvm_guest_speed(guest, ms);
	return kvm_guest_stop(guest);
}

/* The process of a guest; it answers its first time when the guest is made. */
static int run_machine(const struct half_bench *state, enum kind kind, int commands, int answers)
{
	struct paged_memory paged = { .bytes = BYTES,
				      .fault_way = VMEM_FAULT_THREAD,
				      .budget_bytes = BUDGET,
				      .cpu = RECLAIM_CPU };
	struct kvm_guest *guest = NULL;
	struct command command;
	uint8_t *memory = NULL;
	struct answer answer = { .error = fill(state, kind == OURS ? &paged : NULL, &memory) };

	if (answer.error == 0)
		answer.error = reclaim_guest_new(&guest, memory, BYTES);
	if (answer.error == 0)
		kvm_guest_set_order(guest, state->order, state->order_count);
	for (;;) {
		if (write(answers, &answer, sizeof(answer)) != (ssize_t)sizeof(answer) ||
		    answer.error != 0 ||
		    read(commands, &command, sizeof(command)) != (ssize_t)sizeof(command) ||
		    command.ms == 0)
			return answer.error != 0;
		answer.error = run_window(guest, command.ms, &answer.speed);
	}
}

static int command(const struct machine *machine, unsigned ms)
{
	const struct command order = { .ms = ms };

	return write(machine->commands, &order, sizeof(order)) == (ssize_t)sizeof(order) ? 0
											 : -EPIPE;
}

/* Bytes that a guest really costs. */
static uint64_t bytes_of(const struct machine *machine)
{
	if (!machine->grouped)
		return 0;
	return memory_group_usage(&machine->group) + (machine->kind == PEER ? zram_used() : 0);
}

/* The more zram uses, the less the guest may have in memory. */
static void adjust_limit(const struct machine *peer)
{
	const uint64_t outside = zram_used();

	/* It may not get there at once; the next time it will. */
	memory_group_limit(&peer->group, outside < BUDGET ? BUDGET - outside : BUDGET / 16);
}

static int wait_answer(const struct machine *machine, double *ret_speed)
{
	struct pollfd waits = { .fd = machine->answers, .events = POLLIN };
	const int ms = machine->kind == PEER ? REFRESH_MS : -1;
	struct answer answer;

	for (unsigned turn = 1; poll(&waits, 1, ms) == 0; turn++) {
		memory_group_refresh(&machine->group);
		if (turn % ADJUST_TURNS == 0)
			adjust_limit(machine);
	}
	if (read(machine->answers, &answer, sizeof(answer)) != (ssize_t)sizeof(answer))
		return -EPIPE; /* the process has died */
	*ret_speed = answer.speed;
	return answer.error;
}

static int start_machine(struct half_bench *state, enum kind kind)
{
	struct machine *machine = &state->machines[kind];
	int commands[2], answers[2];
	double ignored;

	if (pipe(commands) != 0 || pipe(answers) != 0)
		return -errno;
	fflush(NULL);
	machine->process = fork();
	if (machine->process < 0)
		return -errno;
	if (machine->process == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(commands[1]);
		close(answers[0]);
		if (machine->grouped && memory_group_enter(&machine->group) != 0)
			_exit(1);
		_exit(run_machine(state, kind, commands[0], answers[1]));
	}
	close(commands[0]);
	close(answers[1]);
	machine->commands = commands[1];
	machine->answers = answers[0];
	return wait_answer(machine, &ignored);
}

static void stop_machine(struct machine *machine)
{
	if (machine->process <= 0)
		return;
	kill(machine->process, SIGKILL);
	waitpid(machine->process, NULL, 0);
	close(machine->commands);
	close(machine->answers);
	machine->process = 0;
}

static int run(const struct machine *machine, unsigned ms, double *ret_speed)
{
	int result = command(machine, ms);

	return result != 0 ? result : wait_answer(machine, ret_speed);
}

/* Let the peer run until its limit has come to rest where both parts make the budget. */
static int settle_peer(const struct machine *peer, unsigned step_ms)
{
	for (int step = 0; step < STEPS_MOST; step++) {
		double ignored;
		int result = run(peer, step_ms, &ignored);
		int64_t over = (int64_t)bytes_of(peer) - (int64_t)BUDGET;

		if (result != 0)
			return result;
		if (step >= STEPS_LEAST && over < SETTLED_BYTES && over > -SETTLED_BYTES)
			return 0;
	}
	fprintf(stderr, "bench: the peer does not settle at the budget\n");
	return -EBUSY;
}

/* values: share of the unbudgeted speed, bytes. */
static int measure(struct half_bench *state, enum kind kind, double *values)
{
	const struct machine *machine = &state->machines[kind];
	double whole = 0, budgeted = 0;
	int result = run(&state->machines[UNBUDGETED], state->window_ms / 2, &whole);

	if (result == 0)
		result = run(machine, state->window_ms, &budgeted);
	values[0] = budgeted / whole;
	values[1] = machine->grouped ? (double)bytes_of(machine) : NAN;
	return result;
}

static int measure_ours(void *context, double *values)
{
	return measure(context, OURS, values);
}

static int measure_peer(void *context, double *values)
{
	return measure(context, PEER, values);
}

static int measure_limit(void *context, double *values)
{
	(void)context;
	values[0] = 1.0;
	return 0;
}

static int start_machines(struct half_bench *state, const char *peer_missing, const char *no_groups)
{
	int result = 0;

	for (int kind = 0; kind < KINDS && result == 0; kind++) {
		static const char *const names[] = { "ours", "peer", "whole" };
		struct machine *machine = &state->machines[kind];

		*machine = (struct machine){ .kind = (enum kind)kind, .grouped = !no_groups };
		if (kind == PEER && peer_missing)
			continue;
		if (machine->grouped)
			result = memory_group_new(&machine->group, names[kind]);
		/* From the start, so that it never uses more than its budget. */
		if (result == 0 && kind == PEER)
			result = memory_group_limit(&machine->group, BUDGET / 2);
		if (result == 0)
			result = start_machine(state, (enum kind)kind);
	}
	return result;
}

static int settle(const struct half_bench *state, const char **peer_missing)
{
	double ignored;
	int result = run(&state->machines[OURS], STEPS_LEAST * state->window_ms, &ignored);

	if (result != 0 || *peer_missing)
		return result;
	result = settle_peer(&state->machines[PEER], state->window_ms);
	if (result == -EPIPE) {
		*peer_missing =
			"it does not live with this budget: killed by the kernel, out of memory";
		return 0;
	}
	return result;
}

static int compare_case(struct bench *bench, struct half_bench *state, const char *condition)
{
	const struct bench_metric metrics[] = {
		{ "guest_speed_at_half_budget", "share", condition, 1 },
		{ "guest_bytes_at_half_budget", "B", condition, 0 },
	};
	const char *no_groups = memory_group_missing();
	const char *peer_missing = zram_missing() ? zram_missing() : no_groups;
	struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = 2,
		.context = state,
		.ours = { "libvmem", measure_ours, NULL },
		.peer = { "memcg+zram-lz4", measure_peer, NULL },
		.limit = { "unbudgeted", measure_limit, NULL },
	};
	int result = start_machines(state, peer_missing, no_groups);

	if (result == 0)
		result = settle(state, &peer_missing);
	comparison.peer.missing = peer_missing;
	if (result == 0)
		result = bench_compare(bench, &comparison);
	for (int kind = 0; kind < KINDS; kind++)
		stop_machine(&state->machines[kind]);
	return result;
}

int bench_half_budget(struct bench *bench, const struct real_pages *pages)
{
	struct half_bench state = { .order_count = KVM_GUEST_ORDER_MAX,
				    .window_ms = bench_quick(bench) ? 600 : 1500 };
	uint8_t *contents = machine_map(BYTES);
	int result = 0;

	state.order = calloc(state.order_count, sizeof(*state.order));
	if (!contents || !state.order)
		return -ENOMEM;
	real_pages_mix(pages, contents, PAGES);
	state.contents = contents;
	/* The peer's limit and statistics are kept up to date from here, whatever else runs. */
	machine_pin(RECLAIM_CPU);
	sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &(struct sched_param){ 1 });
	if (!zram_missing())
		result = zram_start();
	for (int zipf = 1; zipf >= 0 && result == 0; zipf--) {
		result = draw_order(&state, zipf);
		if (result == 0)
			result = compare_case(bench, &state, zipf ? "zipf" : "hot30");
	}
	machine_unmap(contents, BYTES);
	free(state.order);
	return result;
}
