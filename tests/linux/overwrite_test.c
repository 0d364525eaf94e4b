/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that the guest is going to overwrite: what is stored is forgotten, and is not loaded for that; what
 * is in place or in staging stays. */
#include "linux/guest.h"
#include "linux/stored.h"
#include <stdlib.h>
#include <vmem/source.h>

#define PAGE VMEM_PAGE_SIZE
#define PAGES 64

static struct vmemt_cpu cpu, other;
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;

static void make(uint32_t way)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .bytes = PAGES * PAGE,
				      .fault_way = way,
				      .fault_around_pages = 1,
				      .fault_deadline_ms = 3600000 };

	manager = vmemt_manager(0);
	vmemt_catch_signals(manager);
	assert(!vmem_region_alloc(&region, manager, &o));
	assert(!vmem_manager_thread_start(manager));
	base = vmem_region_hva(region);
	cpu.region = other.region = region;
	for (uint64_t i = 0; i < PAGES; i++)
		vmemt_put(&cpu, base, i, 1);
}

static uint64_t will_overwrite(uint64_t first, uint64_t count)
{
	uint64_t pages = 77;

	assert(!vmem_region_will_overwrite(region, first * PAGE, count * PAGE, &pages));
	return pages;
}

/* 0..15 stored, 16..31 staged, 32..39 pinned, 40..47 clean, the others in place. */
static void every_state(uint32_t way)
{
	make(way);
	vmemt_store(region, 0, 16);
	vmemt_store(region, 40, 8);
	vmemt_stage(region, 16, 16);
	assert(!vmem_region_pin(region, 32 * PAGE, 8 * PAGE));
	for (uint64_t i = 40; i < 48; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	assert(vmemt_account(region).pages >= 16);
	assert(will_overwrite(0, PAGES) == 16);
	assert(will_overwrite(0, PAGES) == 0);
	for (uint64_t i = 0; i < 16; i++)
		assert(vmemt_state(region, i) == VMEM_PAGE_ABSENT);
	assert(vmemt_account(region).pages == vmemt_metrics(region).pages[VMEM_PAGE_CLEAN]);
	for (uint64_t i = 0; i < PAGES; i++) {
		assert(vmemt_is(&cpu, base, i, i < 16 ? 0 : 1));
		vmemt_put(&cpu, base, i, 2);
		assert(vmemt_is(&cpu, base, i, 2));
	}
	/* The eight clean pages alone were ever loaded. */
	assert(vmemt_metrics(region).faults_stored == 8);
	assert(!vmem_region_unpin(region, 32 * PAGE, 8 * PAGE));
	/* Parts of pages are not meant. */
	vmemt_store(region, 0, 2);
	assert(!vmem_region_will_overwrite(region, 1, 2 * PAGE - 2, NULL));
	assert(vmem_region_will_overwrite(region, PAGES * PAGE, PAGE, NULL) == -VMEM_ERANGE);
	assert(vmemt_is(&cpu, base, 0, 2) && vmemt_is(&cpu, base, 1, 2));
	vmemt_end(manager, region);
}

/* A page that is coming back at the moment comes back. */
static void while_it_is_loaded(void)
{
	static struct vmemt_page got, want;

	make(VMEM_FAULT_THREAD);
	vmemt_store(region, 0, 8);
	vmemt_slow_start(manager->host.store);
	vmemt_touch_begin(&cpu, VMEMT_READ, base + 3 * PAGE, &got, PAGE);
	VMEMT_UNTIL(vmemt_slow_held() == 1);
	assert(will_overwrite(0, 8) == 7);
	assert(!vmemt_slow_finish(0, 0));
	assert(!vmemt_touch_end(&cpu));
	vmemt_make(&want, 3, 1);
	assert(!memcmp(&got, &want, PAGE));
	vmemt_slow_stop();
	assert(vmemt_is(&other, base, 2, 0));
	vmemt_end(manager, region);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_SIGBUS | VMEM_KERNEL_MOVE | VMEM_KERNEL_WP |
		   VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_cpu_start(&cpu);
	vmemt_cpu_start(&other);
	every_state(VMEM_FAULT_THREAD);
	every_state(VMEM_FAULT_SIGBUS);
	while_it_is_loaded();
	vmemt_cpu_stop(&cpu);
	vmemt_cpu_stop(&other);
	return 0;
}
