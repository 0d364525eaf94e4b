/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-reclaim: how fast a guest is that has half the memory it uses. Its operations, each about
 * 1 us of work on one page, one in four with a write, fall on pages by Zipf's law (zipf), or 99.9 %
 * of them on 30 % of its memory (hot30), which are other pages after each minute (hot30-moving).
 * ours   libvmem
 * peer   a memory cgroup and zram-lz4
 * In zipf the memory holds real pages as they come. In the other two it holds those that compress: of 100
 * pages 30 have to be in place, and with 5 in 70 that nobody can compress the rest is more than fits.
 * The guests run in turn, each in a process of its own, and so does one without a budget, whose speed
 * is 1; each round has accesses of its own, the same for all. What a guest costs is measured from
 * outside: all that its process uses, by its cgroup, and what zram uses for it. Both sides are steered
 * until that is the budget: ours by the library's budget, the peer by the limit of its cgroup. */
#include "bench_reclaim.h"
#include "memory_group.h"
#include "paged_memory.h"
#include "../examples/common/split_random.h"
#include "undo.h"
#include "zram_peer.h"
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES ((size_t)65536)
#define BYTES (PAGES * PAGE)
#define BUDGET ((int64_t)(BYTES / 2))
#define ORDER ((size_t)1 << 21)        /* more than a guest does in one window */
#define ORDER_MOVING ((size_t)1 << 26) /* in one of a minute */
#define MOVING_MS 60000u
#define SETTLING_MS 1500u
#define HOT (PAGES * 3 / 10)
#define CLUSTER ((size_t)16) /* pages side by side that are about equally hot */
#define CLUSTERS (PAGES / CLUSTER)
#define ZIPF_EXPONENT 0.99
#define REFRESH_NS 200000
#define STEER_NS 50000000u
#define STEER_BYTES ((int64_t)1 << 20) /* most that the peer's limit is lowered at once */
#define LIMIT_LEAST (BUDGET / 16)
#define STEPS_LEAST 3
#define STEPS_MOST 60
#define SETTLED_BYTES ((int64_t)1 << 20)
#define SETTLING_SEED 1000000u /* the rounds that count have the numbers from 0 on */
#define SETTLING_MOVING 2u     /* so that in round 0 the hot part is another one */

enum kind { OURS, PEER, UNBUDGETED, KINDS };

struct command {
	unsigned ms; /* run for so long; 0: compare the pages with what was there at first */
	int64_t budget_bytes; /* of the library, from then on */
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
	int64_t allowed; /* ours: the library's budget; peer: the limit of its cgroup */
	unsigned rounds; /* that it was measured in */
};

struct half_bench {
	uint8_t *contents;
	uint32_t *order; /* of all guests: shared with their processes, which do not pay for it */
	uint32_t *clusters;
	size_t order_count;
	double *cumulated; /* chance of the ranks up to each, times a constant; NULL: hot30 */
	int moving;        /* the hot part is another one in each window */
	unsigned window_ms, whole_ms; /* with a budget, and without */
	struct machine machines[KINDS];
	const char *peer_lost; /* why the peer is measured no more; NULL: it is */
};

/* Page of a rank, 0 the hottest: neighbours in rank are neighbours in memory. */
static uint32_t page_of_rank(const struct half_bench *state, size_t rank)
{
	return state->clusters[rank / CLUSTER] * (uint32_t)CLUSTER + (uint32_t)(rank % CLUSTER);
}

static double uniform(uint64_t *random)
{
	return (double)(random_next(random) >> 11) * 0x1p-53;
}

static size_t draw_zipf(const double *cumulated, uint64_t *random)
{
	const double value = uniform(random) * cumulated[PAGES - 1];
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

static size_t draw_hot30(uint64_t *random)
{
	return uniform(random) < 0.999 ? random_below(random, HOT)
				       : HOT + random_below(random, PAGES - HOT);
}

/* The first @count of the order, for window @window. While no guest runs. */
static void draw_order(const struct half_bench *state, unsigned window, size_t count)
{
	const size_t shift = state->moving ? window * HOT % PAGES : 0;
	uint64_t seed = window;

	for (size_t i = 0; i < count; i++) {
		size_t rank =
			state->cumulated ? draw_zipf(state->cumulated, &seed) : draw_hot30(&seed);

		state->order[i] = page_of_rank(state, (rank + shift) % PAGES);
	}
}

static double *zipf_chances(void)
{
	double *cumulated = calloc(PAGES, sizeof(*cumulated)), sum = 0;

	for (size_t rank = 0; cumulated && rank < PAGES; rank++) {
		sum += pow((double)(rank + 1), -ZIPF_EXPONENT);
		cumulated[rank] = sum;
	}
	return cumulated;
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
	int result;

	kvm_guest_box(guest)->position = 0; /* a new order */
	result = kvm_guest_start(guest, GUEST_CPU);
	if (result != 0)
		return result;
	*ret_speed = kvm_guest_speed(guest, ms);
	return kvm_guest_stop(guest);
}

/* All pages are as they were, but for the last word of each, which the guest wrote to. */
static int check_pages(const struct half_bench *state, const struct paged_memory *paged,
		       const uint8_t *memory)
{
	for (size_t at = 0; at < BYTES; at += PAGE) {
		uint8_t page[4096];
		int result = paged ? vmem_region_read(paged->region, at, page, PAGE) : 0;

		if (result != 0)
			return result;
		if (memcmp(paged ? page : memory + at, state->contents + at, PAGE - 8) != 0)
			return -EBADMSG;
	}
	return 0;
}

/* The process of a guest; it answers its first time when the guest is made. */
static int run_machine(const struct half_bench *state, enum kind kind, int commands, int answers)
{
	struct paged_memory ours = { .bytes = BYTES,
				     .fault_way = VMEM_FAULT_THREAD,
				     .budget_bytes = (uint64_t)BUDGET,
				     .cpu = RECLAIM_CPU };
	struct paged_memory *const paged = kind == OURS ? &ours : NULL;
	struct kvm_guest *guest = NULL;
	struct command command;
	uint8_t *memory = NULL;
	struct answer answer = { .error = fill(state, paged, &memory) };

	if (answer.error == 0)
		answer.error = reclaim_guest_new(&guest, memory, BYTES);
	if (answer.error == 0)
		answer.error = kvm_guest_share_order(guest, state->order, state->order_count);
	for (;;) {
		if (write(answers, &answer, sizeof(answer)) != (ssize_t)sizeof(answer) ||
		    answer.error != 0 ||
		    read(commands, &command, sizeof(command)) != (ssize_t)sizeof(command))
			return answer.error != 0;
		if (paged)
			answer.error = vmem_manager_set_budget(ours.manager,
							       (uint64_t)command.budget_bytes);
		if (answer.error == 0 && command.ms > 0)
			answer.error = run_window(guest, command.ms, &answer.speed);
		else if (answer.error == 0)
			answer.error = check_pages(state, paged, memory);
	}
}

/* How many bytes more than the budget a guest really costs. */
static int64_t bytes_over(const struct machine *machine)
{
	const uint64_t outside = machine->kind == PEER ? zram_used() : 0;

	return (int64_t)(memory_group_usage(&machine->group) + outside) - BUDGET;
}

/* The more zram uses, the less the guest may have in memory. Lowered little by little: what has to go at
 * once goes past the guest's choice, and into the OOM killer when the kernel does not keep up. */
static void steer_peer(struct machine *peer)
{
	const int64_t wanted = BUDGET - (int64_t)zram_used();

	peer->allowed -= STEER_BYTES;
	if (peer->allowed < wanted)
		peer->allowed = wanted;
	if (peer->allowed < LIMIT_LEAST)
		peer->allowed = LIMIT_LEAST;
	/* It may not get there at once; the next time it will. */
	memory_group_limit(&peer->group, (uint64_t)peer->allowed);
}

/* With the next command. What it uses moves a little all the time, so by half of what it is off. */
static void steer_ours(struct machine *ours)
{
	ours->allowed -= bytes_over(ours) / 2;
	if (ours->allowed > BUDGET)
		ours->allowed = BUDGET;
}

static int wait_answer(struct machine *machine, double *ret_speed)
{
	const struct timespec refresh = { .tv_nsec = REFRESH_NS };
	struct pollfd waits = { .fd = machine->answers, .events = POLLIN };
	uint64_t steered = machine_now_ns();
	struct answer answer;

	while (ppoll(&waits, 1, machine->kind == PEER ? &refresh : NULL, NULL) == 0) {
		memory_group_refresh(&machine->group);
		if (machine_now_ns() - steered >= STEER_NS) {
			steer_peer(machine);
			steered = machine_now_ns();
		}
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
	machine->process = undo_fork();
	if (machine->process < 0)
		return -errno;
	if (machine->process == 0) {
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

static int run(struct machine *machine, unsigned ms, double *ret_speed)
{
	const struct command command = { .ms = ms, .budget_bytes = machine->allowed };
	ssize_t put = write(machine->commands, &command, sizeof(command));

	return put == (ssize_t)sizeof(command) ? wait_answer(machine, ret_speed) : -EPIPE;
}

/* Let a guest run until it has come to rest at the budget. */
static int settle(const struct half_bench *state, struct machine *machine)
{
	int64_t over = 0, before;

	for (unsigned step = 0; step < STEPS_MOST; step++) {
		double ignored;
		int result;

		draw_order(state, state->moving ? SETTLING_MOVING : SETTLING_SEED + step, ORDER);
		result = run(machine, state->moving ? SETTLING_MS : state->window_ms, &ignored);
		if (result != 0)
			return result;
		before = over;
		if (machine->grouped)
			over = bytes_over(machine);
		/* It may need less than it has. */
		if (step >= STEPS_LEAST && over < SETTLED_BYTES && over - before < SETTLED_BYTES &&
		    before - over < SETTLED_BYTES)
			return 0;
		if (machine->grouped && machine->kind == OURS)
			steer_ours(machine);
	}
	return -EBUSY;
}

/* values: share of the unbudgeted speed, bytes. */
static int measure(struct half_bench *state, enum kind kind, double *values)
{
	struct machine *machine = &state->machines[kind];
	double whole = 0, budgeted = 0;
	int result;

	draw_order(state, machine->rounds++, state->order_count);
	result = run(&state->machines[UNBUDGETED], state->whole_ms, &whole);
	if (result == 0)
		result = run(machine, state->window_ms, &budgeted);
	if (result != 0)
		return result;
	values[0] = budgeted / whole;
	if (machine->grouped)
		values[1] = (double)(BUDGET + bytes_over(machine));
	if (machine->grouped && kind == OURS)
		steer_ours(machine);
	return 0;
}

static int measure_ours(void *context, double *values)
{
	return measure(context, OURS, values);
}

/* The kernel's OOM killer, which is the peer's own affair. */
static int peer_result(struct half_bench *state, int result, const char *why)
{
	if (result != -EPIPE)
		return result;
	state->peer_lost = why;
	stop_machine(&state->machines[PEER]);
	return 0;
}

static int measure_peer(void *context, double *values)
{
	struct half_bench *state = context;

	if (state->peer_lost)
		return 0;
	return peer_result(state, measure(state, PEER, values),
			   "killed by the kernel, out of memory, while it was measured");
}

static int measure_limit(void *context, double *values)
{
	(void)context;
	values[0] = 1.0;
	return 0;
}

static int start_kind(struct half_bench *state, enum kind kind, int grouped)
{
	static const char *const names[] = { "ours", "peer", "whole" };
	struct machine *machine = &state->machines[kind];
	int result = 0;

	*machine = (struct machine){ .kind = kind, .grouped = grouped, .allowed = BUDGET };
	if (grouped)
		result = memory_group_new(&machine->group, names[kind]);
	/* From the start, so that it never has more. */
	if (result == 0 && kind == PEER)
		result = memory_group_limit(&machine->group, (uint64_t)BUDGET);
	return result != 0 ? result : start_machine(state, kind);
}

static int start_peer(struct half_bench *state)
{
	int result = start_kind(state, PEER, 1);

	if (result != 0)
		return peer_result(state, result,
				   "killed by the kernel, out of memory, at its start");
	result = settle(state, &state->machines[PEER]);
	if (result == -EBUSY) {
		state->peer_lost = "it does not come to rest at the budget";
		stop_machine(&state->machines[PEER]);
		return 0;
	}
	return peer_result(
		state, result,
		"it does not live with this budget: killed by the kernel, out of memory");
}

static int start_all(struct half_bench *state, int grouped)
{
	int result = start_kind(state, UNBUDGETED, grouped);

	if (result == 0)
		result = start_kind(state, OURS, grouped);
	if (result == 0)
		result = settle(state, &state->machines[OURS]);
	if (result == -EBUSY)
		fprintf(stderr, "bench: the library does not come to rest at the budget\n");
	return result != 0 || state->peer_lost ? result : start_peer(state);
}

/* All that was said of it counts only if its pages are right. */
static int check_all(struct half_bench *state)
{
	double ignored;
	int result = run(&state->machines[OURS], 0, &ignored);

	if (result != 0 || state->peer_lost)
		return result;
	return peer_result(state, run(&state->machines[PEER], 0, &ignored),
			   "killed by the kernel, out of memory, when its pages were compared");
}

static int compare_case(struct bench *bench, struct half_bench *state, const char *condition)
{
	const struct bench_metric metrics[] = {
		{ "guest_speed_at_half_budget", "share", condition, 1 },
		{ "guest_bytes_at_half_budget", "B", condition, 0 },
	};
	const char *no_groups = memory_group_missing();
	struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = 2,
		.rounds = state->moving ? 1 : 0, /* one is long */
		.context = state,
		.ours = { "libvmem", measure_ours, NULL },
		.peer = { "memcg+zram-lz4", measure_peer, NULL },
		.limit = { "unbudgeted", measure_limit, NULL },
	};
	int result;

	state->peer_lost = zram_missing() ? zram_missing() : no_groups;
	result = start_all(state, !no_groups);
	comparison.peer.missing = state->peer_lost;
	if (result == 0)
		result = bench_compare(bench, &comparison);
	if (result == 0)
		result = check_all(state);
	if (state->peer_lost && !comparison.peer.missing)
		bench_note(bench, "%s, %s: %s", comparison.peer.name, condition, state->peer_lost);
	for (int kind = 0; kind < KINDS; kind++)
		stop_machine(&state->machines[kind]);
	return result;
}

static int make(struct half_bench *state, const struct real_pages *pages)
{
	state->contents = machine_map(BYTES);
	state->order = mmap(NULL, ORDER_MOVING * sizeof(*state->order), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	state->clusters = calloc(CLUSTERS, sizeof(*state->clusters));
	if (!state->contents || state->order == MAP_FAILED || !state->clusters)
		return -ENOMEM;
	real_pages_mix(pages, state->contents, PAGES);
	machine_shuffle(state->clusters, CLUSTERS, 9);
	return zram_missing() ? 0 : zram_start();
}

int bench_half_budget(struct bench *bench, const struct real_pages *pages)
{
	struct half_bench state = { .order_count = ORDER,
				    .window_ms = bench_quick(bench) ? 600 : 1500 };
	double *const zipf = zipf_chances();
	int result = zipf ? make(&state, pages) : -ENOMEM;

	state.whole_ms = state.window_ms / 2;
	/* The peer's limit and statistics are kept up to date from here, whatever else runs. */
	machine_pin(RECLAIM_CPU);
	sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &(struct sched_param){ 1 });
	if (result == 0) {
		state.cumulated = zipf;
		result = compare_case(bench, &state, "zipf");
	}
	if (result == 0) {
		state.cumulated = NULL;
		real_pages_mix_compressible(pages, state.contents, PAGES);
		result = compare_case(bench, &state, "hot30");
	}
	if (result == 0) {
		state.moving = 1;
		state.order_count = ORDER_MOVING;
		state.window_ms = bench_quick(bench) ? MOVING_MS / 3 : MOVING_MS;
		state.whole_ms = state.window_ms / 6;
		result = compare_case(bench, &state, "hot30-moving");
	}
	machine_unmap(state.contents, BYTES);
	free(state.clusters);
	free(zipf);
	return result; /* the body ends, and with it the order */
}
