/* SPDX-License-Identifier: BSD-2-Clause */
/* What a region says of the time that its guest was blocked, on each way of faults. */
#include "linux/guest.h"
#include "linux/stored.h"
#include <signal.h>

#define PAGE VMEM_PAGE_SIZE
#define PAGES 64
#define MS UINT64_C(1000000)

static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static struct vmemt_cpu cpu;

static void make(uint32_t way)
{
	struct vmem_region_opts o = {
		.size = sizeof(o), .bytes = PAGES * PAGE, .fault_way = way, .fault_around_pages = 1
	};

	manager = vmemt_manager(0);
	vmemt_catch_signals(manager);
	assert(!vmem_region_alloc(&region, manager, &o));
	cpu.region = region;
	base = vmem_region_hva(region);
	vmemt_slow_start(manager->host.store);
	vmemt_slow_hold(0);
	assert(!vmem_manager_thread_start(manager));
	for (uint64_t i = 0; i < PAGES; i++)
		vmemt_put(&cpu, base, i, 1);
	vmemt_store(region, 0, PAGES);
}

static void end(void)
{
	vmem_manager_thread_stop(manager);
	vmemt_slow_stop();
	vmemt_end(manager, region);
	vmemt_catch_signals(NULL);
}

static uint64_t blocked_now(void)
{
	return atomic_load(&region->pressure.now) >> 48;
}

static void *resolve_page_0(void *argument)
{
	(void)argument;
	assert(!vmem_region_resolve(region, 0, 0));
	return NULL;
}

/* The time goes on while a load lasts, and stands still when nobody waits. */
static void a_slow_load_counts(uint32_t way, bool call)
{
	struct vmem_region_metrics before, after;
	uint64_t start, end_ms;
	struct vmemt_page got;
	pthread_t thread;

	make(way);
	vmemt_slow_hold(1);
	VMEMT_UNTIL(!blocked_now()); /* the guest goes on before the handler has noted it */
	before = vmemt_metrics(region);
	start = vmemt_now_ms();
	if (call)
		assert(!pthread_create(&thread, NULL, resolve_page_0, NULL));
	else
		vmemt_touch_begin(&cpu, VMEMT_READ, base, &got, PAGE);
	VMEMT_UNTIL(vmemt_slow_held() == 1);
	VMEMT_UNTIL(vmemt_metrics(region).pressure_ns > before.pressure_ns + 20 * MS);
	assert(blocked_now() == 1);
	vmemt_slow_hold(0);
	assert(!vmemt_slow_finish(0, 0));
	if (call)
		assert(!pthread_join(thread, NULL));
	else
		assert(!vmemt_touch_end(&cpu));
	VMEMT_UNTIL(!blocked_now());
	end_ms = vmemt_now_ms() + 1;
	/* The interval is added just after the count has changed. */
	VMEMT_UNTIL(vmemt_metrics(region).pressure_ns > before.pressure_ns + 20 * MS);
	after = vmemt_metrics(region);
	/* A fault that is a signal may be the one in eight that stands for others. */
	if (call || way == VMEM_FAULT_THREAD)
		assert(after.pressure_ns - before.pressure_ns <= (end_ms - start) * MS);
	assert(after.blocked_ns - before.blocked_ns > 20 * MS);
	assert(vmemt_metrics(region).pressure_ns == after.pressure_ns);
	assert(vmemt_is(&cpu, base, 0, 1));
	end();
}

/* Quick faults count too: each, or one in eight for eight. */
static void quick_faults_count(uint32_t way)
{
	struct vmem_region_metrics before, after;

	make(way);
	before = vmemt_metrics(region);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	VMEMT_UNTIL(!blocked_now());
	VMEMT_UNTIL(vmemt_metrics(region).pressure_ns > before.pressure_ns);
	after = vmemt_metrics(region);
	assert(after.faults_stored - before.faults_stored == PAGES);
	assert(after.blocked_ns > before.blocked_ns);
	end();
}

/* A fault that ends in an error has ended. */
static void a_lost_page_blocks_nobody(void)
{
	struct vmemt_page got;

	make(VMEM_FAULT_THREAD);
	vmemt_slow_hold(1);
	vmemt_touch_begin(&cpu, VMEMT_READ, base, &got, PAGE);
	VMEMT_UNTIL(vmemt_slow_held() == 1);
	vmemt_slow_hold(0);
	assert(!vmemt_slow_finish(0, -VMEM_EIO));
	assert(vmemt_touch_end(&cpu) == SIGBUS);
	VMEMT_UNTIL(!blocked_now());
	end();
}

/* The averages follow, with nobody looking but reclaim. */
static void averages_follow(void)
{
	struct vmemt_page got;
	uint64_t before;

	make(VMEM_FAULT_THREAD);
	before = vmemt_metrics(region).pressure_avg10_ppm;
	vmemt_slow_hold(1);
	vmemt_touch_begin(&cpu, VMEMT_READ, base, &got, PAGE);
	VMEMT_UNTIL(vmemi_pressure_avg(&region->pressure.avg10) > before + 50000);
	vmemt_slow_hold(0);
	assert(!vmemt_slow_finish(0, 0));
	assert(!vmemt_touch_end(&cpu));
	assert(vmemt_metrics(region).pressure_avg10_ppm <= 1000000);
	assert(vmemt_metrics(region).pressure_avg60_ppm <=
	       vmemt_metrics(region).pressure_avg10_ppm);
	end();
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_POISON);
	vmemt_cpu_start(&cpu);
	a_slow_load_counts(VMEM_FAULT_THREAD, false);
	a_slow_load_counts(VMEM_FAULT_THREAD, true);
	a_slow_load_counts(VMEM_FAULT_SIGBUS, false);
	quick_faults_count(VMEM_FAULT_THREAD);
	quick_faults_count(VMEM_FAULT_SIGBUS);
	a_lost_page_blocks_nobody();
	averages_follow();
	vmemt_cpu_stop(&cpu);
	return 0;
}
