/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads that touch and verify pages of two regions, one of each way of faults, under a budget of a
 * fraction of them, while the manager's threads take pages out, another thread does the same to pages of
 * its own and throws them away, pins, reads and writes them, and a last one attaches and detaches and
 * reads metrics. A plain program, for ThreadSanitizer. Argument: operations of each thread. */
#include "linux/guest.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define TOUCHERS_MAX 8
#define AREA 320 /* pages of each thread in each region */
#define REGIONS 2

static long operations = 6000;
static vmem_manager *manager;
static vmem_region *region[REGIONS];
static unsigned char *base[REGIONS];
static _Atomic uint64_t done;    /* atomic; operations of all, for the watch */
static _Atomic uint32_t working; /* atomic; threads that are not through */

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

static void verify(unsigned r, uint64_t page, uint32_t version)
{
	volatile uint64_t *words = words_at(r, page);

	for (unsigned i = 0; i < PAGE / 8; i += 3)
		assert(words[i] == word_of(page, version, i));
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

/* One operation of the VMM on pages [first, first + count) of its own area. */
static void disturb(struct worker *w, unsigned r, uint64_t i, uint64_t count, uint64_t *rng)
{
	uint64_t gpa = (w->first + i) * PAGE, bytes = count * PAGE, gpas[AREA];
	uint32_t n = 0;
	int error;

	switch (vmemt_rand(rng) % 8) {
	case 0: assert(!vmem_region_stage(region[r], gpa, bytes, NULL)); break;
	case 1:
		for (uint64_t k = 0; k < count; k += 2)
			gpas[n++] = gpa + k * PAGE;
		assert(!vmem_region_stage_pages(region[r], gpas, n, NULL));
		break;
	case 2:
		error = vmem_region_store(region[r], gpa, bytes, NULL);
		assert(!error || error == -VMEM_ENOSPC || error == -VMEM_ENOMEM);
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

		disturb(w, r, i, count < AREA - i ? count : AREA - i, &rng);
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
	manager = vmemt_manager(budget);
	vmemt_catch_signals(manager);
	for (unsigned r = 0; r < REGIONS; r++) {
		struct vmem_region_opts o = {
			.size = sizeof(o),
			.flags = VMEM_REGION_DMA_PINNED | VMEM_REGION_PROACTIVE,
			.bytes = (touchers + 1) * AREA * PAGE,
			.fault_way = r ? VMEM_FAULT_SIGBUS : VMEM_FAULT_THREAD,
			.dirty_log = dirty_log,
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
	}
	assert(vmemt_manager_metrics(manager).used_bytes <= budget + 64 * PAGE);
	assert(!vmemt_manager_metrics(manager).stuck);
}

static void stress(uint64_t seed, unsigned touchers)
{
	static struct worker w[TOUCHERS_MAX + 2];
	const uint64_t budget = 6 * MIB + touchers * MIB / 2;

	make(touchers, budget);
	memset(w, 0, sizeof(w));
	atomic_store(&working, touchers + 2);
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
	expect_everything_was_done(budget);
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
	return 0;
}
