/* SPDX-License-Identifier: BSD-2-Clause */
/* Faults served in the faulting thread, by SIGBUS: first one by one, then by several threads while
 * another takes their pages out, and while other regions come and go. */
#include "linux/guest.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <vmem/fault.h>

#define PAGE VMEM_PAGE_SIZE
#define GPA UINT64_C(0x40000000)
#define THREADS 4
#define PAGES_EACH 64
#define OPERATIONS 6000
#define MEETINGS 200 /* faults on pages that were taken out, of each kind */

static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;

static void make(uint64_t pages, uint32_t around)
{
	struct vmem_region_opts o = {
		.size = sizeof(o),
		.flags = VMEM_REGION_DMA_PINNED,
		.gpa = GPA,
		.bytes = pages * PAGE,
		.fault_way = VMEM_FAULT_SIGBUS,
		.fault_around_pages = around,
	};

	manager = vmemt_manager(0);
	assert(!vmemt_alloc(&region, manager, &o));
	base = vmem_region_hva(region);
	vmemt_catch_signals(manager);
}

static void one_by_one(void)
{
	struct vmem_region_metrics m;
	struct vmemt_cpu cpu;

	make(32, 1);
	vmemt_cpu_start(&cpu);
	cpu.region = region;
	assert(vmemt_is(&cpu, base, 0, 0));
	for (uint64_t i = 0; i < 32; i++)
		vmemt_put(&cpu, base, i, 1);
	vmemt_store(region, 0, 16);
	vmemt_stage(region, 16, 16);
	m = vmemt_metrics(region);
	for (uint64_t i = 0; i < 8; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	for (uint64_t i = 0; i < 8; i++)
		assert(vmemt_state(region, i) == VMEM_PAGE_CLEAN);
	for (uint64_t i = 0; i < 32; i += 2)
		vmemt_put(&cpu, base, i, 2);
	for (uint64_t i = 0; i < 32; i++)
		assert(vmemt_is(&cpu, base, i, i % 2 ? 1 : 2));
	assert(vmemt_metrics(region).faults_stored - m.faults_stored == 16);
	assert(vmemt_metrics(region).faults_staged - m.faults_staged == 16);
#ifdef __x86_64__
	/* That a fault was a write is known: only pages that were read first cost a second one. */
	assert(vmemt_metrics(region).faults_write - m.faults_write == 4);
#endif
	assert(!vmemt_metrics(region).faults_redundant);
	vmemt_cpu_stop(&cpu);
	vmemt_end(manager, region);
}

/* The call itself, without a signal. */
static void by_call(void)
{
	struct vmem_region_opts o = { .size = sizeof(o), .bytes = PAGE };
	vmem_region *other;
	uint64_t gpa = 1;
	char outside;

	make(4, 1);
	errno = 77;
	assert(!vmem_fault_sigbus(manager, base + 2 * PAGE + 123, NULL, &gpa));
	assert(errno == 77 && gpa == GPA + 2 * PAGE);
	assert(vmemt_state(region, 2) == VMEM_PAGE_RESIDENT && vmemt_mapped(base + 2 * PAGE));
	assert(!base[2 * PAGE + 123]);
	assert(!vmem_fault_sigbus(manager, base + 3 * PAGE, NULL, NULL));
	gpa = 1;
	assert(vmem_fault_sigbus(manager, base + 4 * PAGE, NULL, &gpa) == -VMEM_ENOENT);
	assert(vmem_fault_sigbus(manager, &outside, NULL, &gpa) == -VMEM_ENOENT);
	/* Not a region of this way: the signal is not ours, unless the page is poisoned. */
	assert(!vmemt_alloc(&other, manager, &o));
	assert(vmem_fault_sigbus(manager, vmem_region_hva(other), NULL, &gpa) == -VMEM_ENOENT);
	assert(gpa == 1);
	assert(!vmem_region_detach(other, VMEM_DETACH_DISCARD));
	vmemt_end(manager, region);
}

struct toucher {
	pthread_t thread;
	uint64_t first, seed;
	uint64_t version[PAGES_EACH];
};

static _Atomic uint32_t done; /* atomic; threads that are through */

/* Touches and taking have met often enough, however the threads are scheduled. */
static bool have_met(void)
{
	struct vmem_region_metrics m = vmemt_metrics(region);

	return m.faults_staged >= MEETINGS && m.faults_stored >= MEETINGS;
}

static void *touch_randomly(void *argument)
{
	struct toucher *t = argument;
	uint64_t rng = t->seed;
	struct vmemt_page want;

	for (unsigned k = 0; k < OPERATIONS || !have_met(); k++) {
		uint64_t i = vmemt_rand(&rng) % PAGES_EACH, page = t->first + i;
		volatile uint64_t *words = (volatile uint64_t *)(void *)(base + page * PAGE);
		const uint64_t *expected = (const uint64_t *)(const void *)want.bytes;

		vmemt_make(&want, page, t->version[i]);
		for (unsigned w = 0; w < PAGE / 8; w += 7)
			assert(words[w] == expected[w]);
		if (vmemt_rand(&rng) % 2)
			continue;
		vmemt_make(&want, page, ++t->version[i]);
		for (unsigned w = 0; w < PAGE / 8; w++)
			words[w] = expected[w];
	}
	atomic_fetch_add(&done, 1);
	return NULL;
}

/* Takes pages out and puts them away, all over the region; other regions come and go meanwhile. */
static void disturb(uint64_t seed)
{
	struct vmem_region_opts o = { .size = sizeof(o), .bytes = 8 * PAGE };
	uint64_t deadline = vmemt_now_ms() + 4 * VMEMT_DEADLINE_MS;

	while (atomic_load(&done) < THREADS) {
		uint64_t pages = THREADS * PAGES_EACH, first = vmemt_rand(&seed) % pages;
		uint64_t count = 1 + vmemt_rand(&seed) % (pages - first);
		vmem_region *other;

		assert(!vmem_region_stage(region, GPA + first * PAGE, count * PAGE, NULL));
		if (vmemt_rand(&seed) % 2)
			assert(!vmem_region_store(region, GPA + first * PAGE, count * PAGE, NULL));
		if (vmemt_rand(&seed) % 8 == 0) {
			assert(!vmemt_alloc(&other, manager, &o));
			assert(!vmem_region_detach(other, VMEM_DETACH_DISCARD));
		}
		VMEMT_NOT_AFTER(deadline, "touches go on");
		sched_yield();
	}
}

static void several(uint64_t seed, uint32_t around)
{
	static struct toucher t[THREADS];
	struct vmem_region_metrics m;

	make(THREADS * PAGES_EACH, around);
	atomic_store(&done, 0);
	for (unsigned i = 0; i < THREADS; i++) {
		t[i] = (struct toucher){ .first = i * PAGES_EACH, .seed = seed + i };
		assert(!pthread_create(&t[i].thread, NULL, touch_randomly, &t[i]));
	}
	disturb(seed + THREADS);
	for (unsigned i = 0; i < THREADS; i++)
		assert(!pthread_join(t[i].thread, NULL));
	m = vmemt_metrics(region);
	assert(!m.lost);
	assert(m.saved && m.discarded == 0);
	assert(around > 1 ? m.prefetched > 0 : !m.prefetched);
	vmemt_end(manager, region);
}

int main(void)
{
	uint64_t seed = vmemt_seed("sigbus");

	vmemt_need(VMEM_KERNEL_SIGBUS | VMEM_KERNEL_MOVE | VMEM_KERNEL_WP);
	one_by_one();
	by_call();
	several(seed, 1);
	several(seed, 16);
	return 0;
}
