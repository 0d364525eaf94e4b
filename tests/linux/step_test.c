/* SPDX-License-Identifier: BSD-2-Clause */
/* The manager without threads of its own: its descriptor and steps in a loop of the VMM, and
 * vmem_manager_run() in a thread of the VMM. */
#include "linux/guest.h"
#include <poll.h>
#include <sched.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define PAGES 3000

static vmem_manager *manager;
static struct vmemt_cpu cpu;
static _Atomic int quit; /* atomic */

/* A VMM's own loop: sleeps until there is something to do, at most as long as the step said. */
static void *loop(void *argument)
{
	struct pollfd fd = { .fd = vmem_manager_fd(manager), .events = POLLIN };
	uint32_t next_ms = 1000;

	(void)argument;
	assert(fd.fd >= 0);
	while (!atomic_load(&quit)) {
		int more = vmem_manager_step(manager, 1000, &next_ms);

		assert(more == 0 || more == 1);
		assert(more || next_ms > 0);
		if (!more)
			assert(poll(&fd, 1, (int)next_ms) >= 0);
	}
	return NULL;
}

static void *run(void *argument)
{
	(void)argument;
	assert(!vmem_manager_run(manager));
	return NULL;
}

/* More than the budget holds: faults, reclaim and the store all work in the steps. */
static void work(void)
{
	vmem_region *r = vmemt_region(manager, 0, PAGES, 0);
	unsigned char *base = vmem_region_hva(r);
	uint64_t pinned = 0;

	cpu.region = r;
	for (uint64_t i = 0; i < PAGES; i++)
		vmemt_put(&cpu, base, i, 1);
	assert(vmemt_manager_metrics(manager).used_bytes <= 10 * MIB + 16 * PAGE);
	for (uint64_t i = 0; i < PAGES; i += 3)
		vmemt_put(&cpu, base, i, 2);
	/* Calls that wait for frames, from yet another thread. */
	for (uint64_t i = 0; i < PAGES; i += 10, pinned++)
		assert(!vmem_region_pin(r, i * PAGE, PAGE));
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_is(&cpu, base, i, i % 3 ? 1 : 2));
	assert(vmemt_metrics(r).pinned_pages == pinned);
	for (uint64_t i = 0; i < PAGES; i += 10)
		assert(vmemt_state(r, i) == VMEM_PAGE_RESIDENT && vmemt_mapped(base + i * PAGE));
	assert(vmemt_metrics(r).saved > 0);
	assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
}

static void own_loop(void)
{
	pthread_t thread;

	manager = vmemt_manager(10 * MIB);
	atomic_store(&quit, 0);
	assert(!pthread_create(&thread, NULL, loop, NULL));
	work();
	atomic_store(&quit, 1);
	vmem_manager_stop(manager); /* makes the descriptor readable */
	assert(!pthread_join(thread, NULL));
	assert(!vmem_manager_free(manager));
}

static void run_and_stop(void)
{
	pthread_t thread;

	manager = vmemt_manager(10 * MIB);
	assert(!pthread_create(&thread, NULL, run, NULL));
	work();
	vmem_manager_stop(manager);
	assert(!pthread_join(thread, NULL));
	vmem_manager_stop(manager); /* before it runs: it returns at once */
	run(NULL);
	assert(!pthread_create(&thread, NULL, run, NULL)); /* and it can run again */
	work();
	vmem_manager_stop(manager);
	assert(!pthread_join(thread, NULL));
	assert(!vmem_manager_free(manager));
}

/* Nobody but the thread that makes the calls: those that must wait make their room themselves. */
static void all_alone(void)
{
	vmem_region *r;
	uint32_t next_ms = 0;

	manager = vmemt_manager(10 * MIB);
	r = vmemt_region(manager, 0, PAGES, 0);
	vmemt_write_all(r, PAGES);
	assert(vmemt_manager_metrics(manager).used_bytes <= 10 * MIB + 16 * PAGE);
	vmemt_read_all(r, PAGES);
	assert(vmemt_metrics(r).stalls > 0);
	assert(!vmem_manager_step(manager, 0, &next_ms) && next_ms > 0);
	vmemt_check(manager, r);
	vmemt_restore(r, PAGES);
	assert(!vmem_manager_free(manager));
}

/* The descriptor says when there is work, and is quiet when there is none. */
static void descriptor(void)
{
	struct pollfd fd = { .events = POLLIN };
	unsigned char *base;
	vmem_region *r;
	uint64_t word = 1;

	manager = vmemt_manager(0);
	fd.fd = vmem_manager_fd(manager);
	r = vmemt_region(manager, 0, 16, 0);
	cpu.region = r;
	base = vmem_region_hva(r);
	while (vmem_manager_step(manager, 100, NULL))
		;
	assert(poll(&fd, 1, 0) == 0);
	vmemt_touch_begin(&cpu, VMEMT_READ, base, &word, 8);
	vmemt_until_readable(fd.fd);
	assert(!vmemt_touch_over(&cpu));
	while (!vmemt_touch_over(&cpu))
		assert(vmem_manager_step(manager, 0, NULL) >= 0);
	assert(!vmemt_touch_end(&cpu) && !word);
	while (vmem_manager_step(manager, 100, NULL))
		;
	assert(poll(&fd, 1, 0) == 0);
	vmem_manager_stop(manager);
	assert(poll(&fd, 1, 0) == 1);
	vmemt_end(manager, r);
}

/* Who serves faults in its steps does not wait for the lock of reclaim: its holder may wait for a fault. */
static void *stepper(void *argument)
{
	(void)argument;
	while (!atomic_load(&quit)) {
		assert(vmem_manager_step(manager, 1000, NULL) >= 0);
		sched_yield();
	}
	return NULL;
}

static void reclaim_elsewhere(void)
{
	unsigned char *base;
	pthread_t thread;
	vmem_region *r;

	manager = vmemt_manager(0);
	cpu.region = r = vmemt_region(manager, 0, 64, 0);
	base = vmem_region_hva(r);
	atomic_store(&quit, 0);
	assert(!pthread_create(&thread, NULL, stepper, NULL));
	for (uint64_t i = 0; i < 64; i++)
		vmemt_put(&cpu, base, i, 1);
	vmemt_stage(r, 0, 64);
	vmemi_reclaim_enter(manager->reclaim);
	for (uint64_t i = 0; i < 64; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	vmemi_reclaim_leave(manager->reclaim);
	atomic_store(&quit, 1);
	assert(!pthread_join(thread, NULL));
	vmemt_end(manager, r);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_cpu_start(&cpu);
	descriptor();
	own_loop();
	run_and_stop();
	cpu.region = NULL;
	all_alone();
	reclaim_elsewhere();
	vmemt_cpu_stop(&cpu);
	return 0;
}
