/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads that touch and verify pages of two regions, one of each way of faults, under a budget of a
 * fraction of them, while the manager's threads take pages out, another thread does the same to pages of
 * its own and throws them away, pins, reads and writes them, and a last one attaches and detaches and
 * reads metrics. Then the same with all that a VMM may do besides: pages are with their source, forgotten because
 * they will be overwritten, fetched, and evicted all at once; a thread copies what is written, in rounds, as
 * migration does, one saves snapshots of regions that are quiesced or not, and one changes the budget. In the end
 * the copy, and what a last snapshot is loaded into, have each page as it was last written.
 * A plain program, for ThreadSanitizer. Argument: operations of each thread. */
#include "linux/guest.h"
#include "linux/snapshot_tape.h"
#include "support/slow.h"
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <vmem/source.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define TOUCHERS_MAX 8
#define AREA 320 /* pages of each thread in each region */
#define REGIONS 2

static long operations = VMEMT_SLOW ? 3000 : 6000;
static vmem_manager *manager;
static vmem_region *region[REGIONS];
static unsigned char *base[REGIONS];
static _Atomic uint64_t done;    /* atomic; operations of all, for the watch */
static _Atomic uint32_t working; /* atomic; threads that are not through */
static bool all_actors;
/* All of @area, which is the disturber's: what the source gives. */
static struct {
	uint64_t first;                          /* page of its area */
	_Atomic uint32_t version[REGIONS][AREA]; /* atomic */
} source;

struct worker {
	pthread_t thread;
	uint64_t first; /* page of its areas */
	uint64_t seed;
	uint32_t version[REGIONS][AREA];
};

/* 64 random bytes and one word. */
static uint64_t word_of(uint64_t page, uint32_t version, unsigned i)
{
	uint64_t state = page << 32 | version;

	return !version ? 0 : i < 8 ? vmemt_rand(&state) + i : state;
}

static volatile uint64_t *words_at(unsigned r, uint64_t page)
{
	return (volatile uint64_t *)(void *)(base[r] + page * PAGE);
}

/* Says which version a page has, and asserts. */
static void wrong(unsigned r, uint64_t page, uint32_t version, unsigned i, uint64_t word)
{
	uint32_t is = 0;

	while (is <= version && word_of(page, is, i) != word)
		is++;
	fprintf(stderr, "region %u, page %llu, word %u: %#llx, not version %u", r,
		(unsigned long long)page, i, (unsigned long long)word, version);
	fprintf(stderr, is <= version ? ", but %u; state %u\n" : " nor another; state %u %u\n",
		is <= version ? is : (unsigned)vmemt_state(region[r], page),
		(unsigned)vmemt_state(region[r], page));
	assert(false && "a page is as it was last written");
}

static void verify(unsigned r, uint64_t page, uint32_t version)
{
	volatile uint64_t *words = words_at(r, page);

	for (unsigned i = 0; i < PAGE / 8; i += 3) {
		uint64_t word = words[i];

		if (word != word_of(page, version, i))
			wrong(r, page, version, i, word);
	}
}

static void rewrite(unsigned r, uint64_t page, uint32_t version)
{
	volatile uint64_t *words = words_at(r, page);

	for (unsigned i = 0; i < PAGE / 8; i++)
		words[i] = word_of(page, version, i);
}

/* Mostly near the last place, so that fault-around and runs have their share. */
static uint64_t walk(uint64_t *rng, uint64_t *at)
{
	uint64_t dice = vmemt_rand(rng);

	*at = dice % 8 ? *at + 1 : dice / 8;
	return *at %= AREA;
}

static void *toucher(void *argument)
{
	struct worker *w = argument;
	uint64_t rng = w->seed, at = 0;

	for (long k = 0; k < operations; k++) {
		unsigned r = vmemt_rand(&rng) % REGIONS;
		uint64_t i = walk(&rng, &at);

		verify(r, w->first + i, w->version[r][i]);
		if (vmemt_rand(&rng) % 3 == 0)
			rewrite(r, w->first + i, ++w->version[r][i]);
		atomic_fetch_add(&done, 1);
	}
	atomic_fetch_sub(&working, 1);
	return NULL;
}

static void read_back(unsigned r, uint64_t page, uint32_t version)
{
	struct vmemt_page got;
	const uint64_t *words = (const uint64_t *)(const void *)got.bytes;

	assert(!vmem_region_read(region[r], page * PAGE, &got, PAGE));
	for (unsigned i = 0; i < PAGE / 8; i += 5)
		assert(words[i] == word_of(page, version, i));
}

static void write_over(unsigned r, uint64_t page, uint32_t version)
{
	struct vmemt_page p;
	uint64_t *words = (uint64_t *)(void *)p.bytes;

	for (unsigned i = 0; i < PAGE / 8; i++)
		words[i] = word_of(page, version, i);
	assert(!vmem_region_write(region[r], page * PAGE, &p, PAGE));
}

/* --- The VMM --- */

/* Whether reclaim is told to keep off at the moment. */
static void expect_done(int error)
{
	assert(!error || (all_actors && error == -VMEM_EBUSY));
}

/* Gives @words as the source does. */
static int read_source(void *context, uint64_t gpa, void *buffer)
{
	unsigned r = context == &region[1];
	uint64_t page = gpa / PAGE, *words = buffer;
	uint32_t version;

	assert(page >= source.first && page < source.first + AREA);
	version = atomic_load(&source.version[r][page - source.first]);
	for (unsigned i = 0; i < PAGE / 8; i++)
		words[i] = word_of(page, version, i);
	return 0;
}

/* Pages whose bytes are with the VMM from now on. A fault of before, or one beside them, may have brought some as
 * zeros since they were discarded: these are not absent, and stay as they are. Others come from the source, or are just
 * being read: what a page holds is told by its bytes. */
static void give_to_source(struct worker *w, unsigned r, uint64_t i, uint64_t count)
{
	uint64_t gpa = (w->first + i) * PAGE;

	assert(!vmem_region_discard(region[r], gpa, count * PAGE, NULL));
	for (uint64_t k = i; k < i + count; k++)
		atomic_store(&source.version[r][k], ++w->version[r][k]);
	assert(!vmem_region_set_source(region[r], gpa, count * PAGE));
	for (uint64_t k = i; k < i + count; k++)
		if (vmemt_state(region[r], w->first + k) != VMEM_PAGE_SOURCE &&
		    words_at(r, w->first + k)[0] != word_of(w->first + k, w->version[r][k], 0))
			w->version[r][k] = 0;
}

static void overwrite(struct worker *w, unsigned r, uint64_t i, uint64_t count)
{
	assert(!vmem_region_will_overwrite(region[r], (w->first + i) * PAGE, count * PAGE, NULL));
	for (uint64_t k = i; k < i + count; k++)
		rewrite(r, w->first + k, ++w->version[r][k]);
}

/* What only comes up with all actors. */
static void disturb_more(struct worker *w, unsigned r, uint64_t i, uint64_t count, uint64_t *rng)
{
	uint64_t gpa = (w->first + i) * PAGE, bytes = count * PAGE;
	int error = 0;

	switch (vmemt_rand(rng) % 8) {
	case 0:
	case 1: overwrite(w, r, i, count); break;
	case 2:
	case 3:
	case 4: give_to_source(w, r, i, count); break;
	case 5: error = vmem_region_evict_all(region[r], NULL); break;
	default: error = vmem_region_fetch(region[r], gpa, bytes, NULL); break;
	}
	assert(!error || error == -VMEM_ENOSPC || error == -VMEM_ENOMEM || error == -VMEM_EBUSY);
}

/* One operation of the VMM on pages [first, first + count) of its own area. */
static void disturb(struct worker *w, unsigned r, uint64_t i, uint64_t count, uint64_t *rng)
{
	uint64_t gpa = (w->first + i) * PAGE, bytes = count * PAGE, gpas[AREA];
	uint32_t n = 0;
	int error;

	switch (vmemt_rand(rng) % 8) {
	case 0: expect_done(vmem_region_stage(region[r], gpa, bytes, NULL)); break;
	case 1:
		for (uint64_t k = 0; k < count; k += 2)
			gpas[n++] = gpa + k * PAGE;
		expect_done(vmem_region_stage_pages(region[r], gpas, n, NULL));
		break;
	case 2:
		error = vmem_region_store(region[r], gpa, bytes, NULL);
		if (error != -VMEM_ENOSPC && error != -VMEM_ENOMEM)
			expect_done(error);
		break;
	case 3:
		assert(!vmem_region_discard(region[r], gpa, bytes, NULL));
		memset(&w->version[r][i], 0, count * sizeof(w->version[r][0]));
		break;
	case 4:
		count = count < 16 ? count : 16;
		assert(!vmem_region_pin(region[r], gpa, count * PAGE));
		assert(vmem_region_discard(region[r], gpa, PAGE, NULL) == -VMEM_EBUSY);
		for (uint64_t k = 0; k < count; k++)
			verify(r, w->first + i + k, w->version[r][i + k]);
		assert(!vmem_region_unpin(region[r], gpa, count * PAGE));
		break;
	case 5: read_back(r, w->first + i, w->version[r][i]); break;
	case 6: write_over(r, w->first + i, ++w->version[r][i]); break;
	default: assert(!vmem_region_resolve(region[r], gpa, 1)); break;
	}
}

static void *disturber(void *argument)
{
	struct worker *w = argument;
	uint64_t rng = w->seed;

	for (long k = 0; k < operations / 4; k++) {
		unsigned r = vmemt_rand(&rng) % REGIONS;
		uint64_t i = vmemt_rand(&rng) % AREA, count = 1 + vmemt_rand(&rng) % 64;

		count = count < AREA - i ? count : AREA - i;
		if (all_actors && vmemt_rand(&rng) % 2)
			disturb_more(w, r, i, count, &rng);
		else
			disturb(w, r, i, count, &rng);
		verify(r, w->first + i, w->version[r][i]);
		atomic_fetch_add(&done, 1);
	}
	atomic_fetch_sub(&working, 1);
	return NULL;
}

static void *newcomers(void *argument)
{
	struct worker *w = argument;
	uint64_t rng = w->seed;

	for (long k = 0; k < operations / 64; k++) {
		struct vmem_region_opts o = {
			.size = sizeof(o),
			.bytes = 16 * PAGE,
			.gpa = (UINT64_C(1) << 40) + vmemt_rand(&rng) % 4 * 16 * PAGE,
			.fault_way = vmemt_rand(&rng) % 2 ? VMEM_FAULT_SIGBUS : VMEM_FAULT_THREAD,
			.same_vm_as = region[0],
		};
		volatile uint64_t *words;
		vmem_region *r;

		assert(!vmemt_alloc(&r, manager, &o));
		words = vmem_region_hva(r);
		for (unsigned i = 0; i < 16; i++)
			words[i * PAGE / 8] = (uint64_t)k + 1;
		assert(!vmem_region_stage(r, o.gpa, o.bytes, NULL));
		for (unsigned i = 0; i < 16; i++)
			assert(words[i * PAGE / 8] == (uint64_t)k + 1);
		assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
		assert(vmemt_manager_metrics(manager).used_bytes > 0);
		assert(!vmemt_metrics(region[k % REGIONS]).lost);
		assert(vmemt_account(region[0]).corrupt == 0);
		atomic_fetch_add(&done, 1);
	}
	atomic_fetch_sub(&working, 1);
	return NULL;
}

/* --- Those who go on until the others are through --- */

/* Leaves the others some time; false: they are through. */
static bool go_on(uint64_t operations_of_others)
{
	uint64_t until = atomic_load(&done) + operations_of_others;

	while (atomic_load(&working) && atomic_load(&done) < until)
		poll(NULL, 0, 1);
	return atomic_load(&working);
}

static _Atomic uint64_t rounds, saves, budgets; /* atomic */
static unsigned char *copied;                   /* region[0], as the migrator knows it */

static int copy_run(void *context, uint64_t gpa, uint64_t bytes)
{
	(void)context;
	return vmem_region_read(region[0], gpa, copied + gpa, bytes);
}

static void copy_round(uint64_t *ret_pages)
{
	assert(!vmem_region_dirty_round(region[0], 0, vmemt_metrics(region[0]).bytes, copy_run,
					NULL, ret_pages));
}

static void *migrator(void *argument)
{
	uint64_t pages;

	assert(!argument);
	while (go_on(300)) {
		copy_round(&pages);
		atomic_fetch_add(&rounds, 1);
	}
	return NULL;
}

static void *saver(void *argument)
{
	struct vmemt_tape tape;

	assert(!argument);
	vmemt_tape_init(&tape);
	tape.error = -4711;
	for (unsigned k = 0; go_on(1500); k++) {
		unsigned r = k % REGIONS, quiet = k / REGIONS % 2;
		int error;

		if (quiet)
			assert(!vmem_region_quiesce(region[r]));
		tape.fail_after = k % 5 == 4 ? 7 : -1;
		error = vmemt_tape_save(&tape, region[r], 0, NULL);
		assert(!error || (tape.fail_after >= 0 && error == tape.error));
		if (quiet)
			assert(!vmem_region_resume(region[r]));
		atomic_fetch_add(&saves, 1);
	}
	vmemt_tape_free(&tape);
	return NULL;
}

static uint64_t most_budget;

static void *budgeter(void *argument)
{
	static const uint64_t quarters[] = { 3, 8, 5, 4 };

	assert(!argument);
	for (unsigned k = 0; go_on(700); k++) {
		int error = vmem_manager_set_budget(manager, most_budget / 4 * quarters[k % 4]);

		assert(!error || error == -VMEM_EINVAL); /* less than what is pinned */
		atomic_fetch_add(&budgets, 1);
	}
	assert(!vmem_manager_set_budget(manager, most_budget));
	return NULL;
}

static void *(*const others[])(void *) = { saver, budgeter, migrator };
#define OTHERS (sizeof(others) / sizeof(others[0]))

/* What was written is not known of files. */
static unsigned others_here(void)
{
	return !all_actors ? 0 : vmemt_on_files() ? OTHERS - 1 : OTHERS;
}

/* --- All of it --- */

/* Until all are through; if nothing is done for long, that is a failure. */
static void watch(void)
{
	uint64_t last = 0, deadline = vmemt_now_ms() + 2 * VMEMT_DEADLINE_MS;

	while (atomic_load(&working)) {
		uint64_t now = atomic_load(&done);

		if (now != last)
			deadline = vmemt_now_ms() + 2 * VMEMT_DEADLINE_MS;
		last = now;
		VMEMT_NOT_AFTER(deadline, "threads go on");
		sched_yield();
	}
}

/* Says that some pages were written, whether they are there or not. */
static int dirty_log(void *context, uint64_t gpa, uint64_t bytes, uint64_t *bitmap)
{
	static _Atomic uint64_t turns;
	uint64_t turn = atomic_fetch_add(&turns, 1);

	(void)context;
	(void)gpa;
	for (uint64_t i = 0; i < (bytes / PAGE + 63) / 64; i++)
		bitmap[i] = (i + turn) % 3 ? 0 : UINT64_C(0x9e3779b97f4a7c15) * (turn + i);
	return turn % 16 ? 0 : -VMEM_EIO;
}

static void make(unsigned touchers, uint64_t budget)
{
	struct vmem_manager_opts mo = {
		.size = sizeof(mo),
		.budget_bytes = budget,
		.fault_threads = all_actors ? 2 : 0,
		.save_threads = all_actors ? 2 : 0,
		.source_threads = all_actors ? 2 : 0,
	};

	manager = vmemt_manager_of(&mo);
	vmemt_catch_signals(manager);
	for (unsigned r = 0; r < REGIONS; r++) {
		struct vmem_region_opts o = {
			.size = sizeof(o),
			.flags = VMEM_REGION_DMA_PINNED | VMEM_REGION_PROACTIVE,
			.bytes = (touchers + 1) * AREA * PAGE,
			.fault_way = r ? VMEM_FAULT_SIGBUS : VMEM_FAULT_THREAD,
			.dirty_log = dirty_log,
			.read_source = read_source,
			.context = &region[r],
		};

		assert(!vmemt_alloc(&region[r], manager, &o));
		base[r] = vmem_region_hva(region[r]);
	}
	assert(!vmem_manager_thread_start(manager));
}

static void expect_everything_was_done(uint64_t budget)
{
	for (unsigned r = 0; r < REGIONS; r++) {
		struct vmem_region_metrics m = vmemt_metrics(region[r]);

		assert(m.faults_zero && m.faults_staged && m.faults_stored && m.prefetched);
		assert((vmemt_on_files() ? m.taken_unmapped : m.taken_run) && m.saved &&
		       m.discarded && !m.lost && !m.unmovable);
		assert(!m.pinned_pages);
		assert(!all_actors || m.faults_source);
	}
	/* With all actors the budget may have come down a moment ago, or to less than what is quiesced. */
	VMEMT_UNTIL(!all_actors || vmemt_manager_metrics(manager).used_bytes <= budget + 64 * PAGE);
	assert(vmemt_manager_metrics(manager).used_bytes <= budget + 64 * PAGE);
	assert(all_actors || !vmemt_manager_metrics(manager).stuck);
}

static void expect_page(const void *bytes, uint64_t page, uint32_t version)
{
	const uint64_t *words = bytes;

	for (unsigned i = 0; i < PAGE / 8; i += 3)
		assert(words[i] == word_of(page, version, i));
}

/* A region that a snapshot of another is loaded into has its pages. */
static void expect_snapshot(unsigned r, const struct worker *w, unsigned areas)
{
	struct vmemt_tape tape;
	struct vmemt_page got;
	vmem_manager *m = vmemt_manager(most_budget);
	vmem_region *copy = vmemt_region(m, 0, areas * AREA, 0);

	vmemt_tape_init(&tape);
	assert(!vmemt_tape_save(&tape, region[r], 0, NULL));
	assert(!vmemt_tape_load(&tape, copy, NULL));
	for (uint64_t page = 0; page < areas * AREA; page++) {
		assert(!vmem_region_read(copy, page * PAGE, &got, PAGE));
		expect_page(&got, page, w[page / AREA].version[r][page % AREA]);
	}
	vmemt_tape_free(&tape);
	vmemt_end(m, copy);
}

static void expect_copies(const struct worker *w, unsigned areas)
{
	uint64_t pages;

	for (unsigned r = 0; r < REGIONS; r++)
		expect_snapshot(r, w, areas);
	if (!copied)
		return;
	copy_round(&pages);
	for (uint64_t page = 0; page < areas * AREA; page++)
		expect_page(copied + page * PAGE, page, w[page / AREA].version[0][page % AREA]);
	assert(!vmem_region_dirty_stop(region[0]));
	free(copied);
	copied = NULL;
}

static void start_others(pthread_t *threads, unsigned areas)
{
	if (others_here() == OTHERS) {
		copied = calloc(areas * AREA, PAGE);
		assert(copied && !vmem_region_dirty_start(region[0]));
	}
	for (unsigned i = 0; i < others_here(); i++)
		assert(!pthread_create(&threads[i], NULL, others[i], NULL));
}

static void stress(uint64_t seed, unsigned touchers)
{
	static struct worker w[TOUCHERS_MAX + 2];
	const uint64_t budget = 6 * MIB + touchers * MIB / 2;
	pthread_t other[OTHERS];

	most_budget = budget;
	source.first = touchers * AREA;
	make(touchers, budget);
	memset(w, 0, sizeof(w));
	atomic_store(&working, touchers + 2);
	start_others(other, touchers + 1);
	for (unsigned i = 0; i < touchers + 2; i++) {
		w[i].first = i * AREA;
		w[i].seed = seed + i;
		assert(!pthread_create(&w[i].thread, NULL,
				       i < touchers    ? toucher
				       : i == touchers ? disturber
						       : newcomers,
				       &w[i]));
	}
	watch();
	for (unsigned i = 0; i < touchers + 2; i++)
		assert(!pthread_join(w[i].thread, NULL));
	for (unsigned i = 0; i < others_here(); i++)
		assert(!pthread_join(other[i], NULL));
	expect_everything_was_done(budget);
	if (all_actors) {
		fprintf(stderr, "%u rounds, %u saves, %u budgets\n", (unsigned)rounds,
			(unsigned)saves, (unsigned)budgets);
		assert(saves && budgets && (rounds || vmemt_on_files()));
		expect_copies(w, touchers + 1);
	}
	for (unsigned i = 0; i <= touchers; i++)
		for (unsigned r = 0; r < REGIONS; r++)
			for (unsigned k = 0; k < AREA; k++)
				verify(r, w[i].first + k, w[i].version[r][k]);
	vmemt_check(manager, region[0]);
	vmemt_check(manager, region[1]);
	assert(!vmem_region_detach(region[0], VMEM_DETACH_DISCARD));
	vmemt_end(manager, region[1]);
}

int main(int argc, char **argv)
{
	uint64_t seed = vmemt_seed("linux_stress");

	if (argc > 1)
		operations = atol(argv[1]);
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_SIGBUS |
		   VMEM_KERNEL_KERNEL_FAULTS);
	stress(seed, 4);
	stress(seed, TOUCHERS_MAX);
	all_actors = true;
	stress(seed, 3);
	return 0;
}
