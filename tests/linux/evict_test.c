/* SPDX-License-Identifier: BSD-2-Clause */
/* An idle VM leaves memory, and comes back by a call before it is touched. */
#include "linux/guest.h"
#include "linux/stored.h"
#include <stdlib.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define PAGES 4096

static struct vmemt_cpu cpu;
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;

static int give(void *context, uint64_t gpa, void *buffer)
{
	(void)context;
	vmemt_make(buffer, gpa / PAGE, 1);
	return 0;
}

static void make(uint32_t way, uint64_t budget, bool from_source)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = from_source ? VMEM_REGION_FROM_SOURCE : 0,
				      .bytes = PAGES * PAGE,
				      .fault_way = way,
				      .fault_around_pages = 1,
				      .fault_deadline_ms = 3600000,
				      .read_source = from_source ? give : NULL };

	manager = vmemt_manager(budget);
	vmemt_catch_signals(manager);
	assert(!vmem_region_alloc(&region, manager, &o));
	assert(!vmem_manager_thread_start(manager));
	base = vmem_region_hva(region);
	cpu.region = region;
}

static uint64_t gone(void)
{
	struct vmem_region_metrics m = vmemt_metrics(region);

	return m.pages[VMEM_PAGE_STORED];
}

static uint64_t in_place(void)
{
	struct vmem_region_metrics m = vmemt_metrics(region);

	return m.pages[VMEM_PAGE_RESIDENT] + m.pages[VMEM_PAGE_CLEAN];
}

/* Half of the pages have contents, every 16th is of one word. */
static void there_and_back(uint32_t way)
{
	struct vmemt_page p;
	uint64_t left = 77, pages = 77;

	make(way, 0, false);
	for (uint64_t i = 0; i < PAGES / 2; i++) {
		vmemt_make(&p, i, 1);
		if (i % 16 == 0)
			vmemt_page_make(&p, VMEMT_PAGE_SAME, i + 1);
		assert(!vmem_region_write(region, i * PAGE, &p, PAGE));
	}
	assert(!vmem_region_pin(region, 5 * PAGE, PAGE));
	assert(!vmem_region_evict_all(region, &left) && left == 1);
	assert(gone() == PAGES / 2 - 1);
	assert(!vmem_region_unpin(region, 5 * PAGE, PAGE));
	assert(!vmem_region_evict_all(region, &left) && !left);
	assert(gone() == PAGES / 2);
	/* A part, then all; what is absent stays so. */
	assert(!vmem_region_fetch(region, 100 * PAGE + 1, 50 * PAGE, &pages) && pages == 51);
	for (uint64_t i = 100; i < 151; i++)
		assert(vmemt_state(region, i) == VMEM_PAGE_RESIDENT);
	assert(vmemt_state(region, 99) == VMEM_PAGE_STORED);
	assert(vmemt_state(region, 151) == VMEM_PAGE_STORED);
	assert(!vmem_region_fetch(region, 0, PAGES * PAGE, &pages) && pages == PAGES / 2 - 51);
	assert(in_place() == PAGES / 2);
	assert(vmem_region_fetch(region, PAGES * PAGE, PAGE, NULL) == -VMEM_ERANGE);
	for (uint64_t i = 0; i < PAGES / 2; i++) {
		vmemt_make(&p, i, 1);
		if (i % 16 == 0)
			vmemt_page_make(&p, VMEMT_PAGE_SAME, i + 1);
		assert(!memcmp(base + i * PAGE, &p, PAGE));
	}
	assert(!vmemt_metrics(region).faults_stored && vmemt_metrics(region).lost == 0);
	/* From staging, too. */
	vmemt_stage(region, 0, 1000);
	assert(!vmem_region_fetch(region, 0, PAGES * PAGE, NULL));
	assert(in_place() == PAGES / 2);
	vmemt_end(manager, region);
}

/* What does not fit stays out, and takes nothing from who is in. */
static void as_far_as_it_fits(void)
{
	struct vmem_manager_metrics m;
	uint64_t pages = 0;

	make(VMEM_FAULT_THREAD, 12 * MIB, false);
	for (uint64_t i = 0; i < PAGES; i++)
		vmemt_put(&cpu, base, i, 1);
	VMEMT_UNTIL(vmem_region_evict_all(region, NULL) == 0 && gone() > PAGES / 2);
	assert(vmem_region_fetch(region, 0, PAGES * PAGE, &pages) == -VMEM_ENOSPC);
	assert(pages && in_place() < PAGES);
	m = vmemt_manager_metrics(manager);
	assert(m.used_bytes <= m.budget_bytes);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	vmemt_end(manager, region);
}

/* A page that is lost, and one whose load is slow, hold up nobody. */
static void with_a_lost_page(void)
{
	unsigned char *object;
	uint64_t pages = 0;
	uint32_t bytes;

	make(VMEM_FAULT_THREAD, 0, false);
	for (uint64_t i = 0; i < 64; i++)
		vmemt_put(&cpu, base, i, 1);
	assert(!vmem_region_evict_all(region, NULL));
	vmem_manager_thread_stop(manager); /* nobody moves the object meanwhile */
	object = vmemt_stored_bytes(manager->host.store,
				    vmemi_page_ref(vmemi_region_word(region, 20)), &bytes);
	assert(object && bytes > 100);
	object[bytes / 2] ^= 0x10;
	assert(!vmem_manager_thread_start(manager));
	assert(!vmem_region_fetch(region, 0, 64 * PAGE, &pages) && pages == 63);
	assert(vmemt_state(region, 20) == VMEM_PAGE_STORED);
	assert(vmem_region_resolve(region, 20 * PAGE, 0) == -VMEM_EIO);
	assert(!vmem_region_discard(region, 20 * PAGE, PAGE, NULL));
	vmemt_put(&cpu, base, 20, 1);
	for (uint64_t i = 0; i < 64; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	assert(!vmem_region_evict_all(region, NULL));
	vmemt_slow_start(manager->host.store);
	vmemt_slow_at_poll(1);
	assert(!vmem_region_fetch(region, 0, 64 * PAGE, NULL));
	VMEMT_UNTIL(in_place() == 64 && !vmemt_slow_held());
	vmemt_slow_stop();
	for (uint64_t i = 0; i < 64; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	vmemt_end(manager, region);
}

static void from_the_source(void)
{
	uint64_t pages = 0;

	make(VMEM_FAULT_THREAD, 0, true);
	assert(!vmem_region_fetch(region, 0, 300 * PAGE, &pages) && pages == 300);
	for (uint64_t i = 0; i < 301; i++) {
		assert(vmemt_state(region, i) == (i < 300 ? VMEM_PAGE_RESIDENT : VMEM_PAGE_SOURCE));
		assert(vmemt_is(&cpu, base, i, 1));
	}
	vmemt_end(manager, region);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_SIGBUS | VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_POISON |
		   VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_cpu_start(&cpu);
	there_and_back(VMEM_FAULT_THREAD);
	there_and_back(VMEM_FAULT_SIGBUS);
	as_far_as_it_fits();
	with_a_lost_page();
	from_the_source();
	vmemt_cpu_stop(&cpu);
	return 0;
}
