/* SPDX-License-Identifier: BSD-2-Clause */
/* See source_guest.h. */
#include "linux/source_guest.h"
#include <sched.h>

struct vmemt_cpu cpu[MANY];
vmem_manager *manager;
vmem_region *region;
unsigned char *base;
_Atomic int answer;
_Atomic uint32_t hold, let_go, hold_one, held;
_Thread_local bool held_alone;
_Atomic uint32_t asked[PAGES_MAX];
_Atomic uint32_t lost;
_Atomic int lost_error;

static void on_lost(void *context, uint64_t gpa, int error)
{
	assert(context == &answer && gpa >= GPA);
	atomic_store(&lost_error, error);
	atomic_fetch_add(&lost, 1);
}

static bool is_let_go(void)
{
	uint32_t count = atomic_load(&let_go);

	return count && atomic_compare_exchange_strong(&let_go, &count, count - 1);
}

int vmemt_source_read(void *context, uint64_t gpa, void *buffer)
{
	int result = atomic_load(&answer);
	uint64_t page = (gpa - GPA) / PAGE;

	assert(context == &answer && gpa >= GPA && gpa % PAGE == 0);
	atomic_fetch_add(&asked[page], 1);
	atomic_fetch_add(&held, 1);
	while ((atomic_load(&hold) && !is_let_go()) || (held_alone && atomic_load(&hold_one)))
		sched_yield();
	atomic_fetch_sub(&held, 1);
	if (!result)
		vmemt_make(buffer, page, 1);
	return result;
}

void vmemt_source_make(struct vmemt_source how)
{
	struct vmem_manager_opts mo = { .size = sizeof(mo),
					.budget_bytes = how.budget,
					.source_threads = how.source_threads };
	struct vmem_region_opts o = {
		.size = sizeof(o),
		.flags = how.flags | VMEM_REGION_FROM_SOURCE,
		.gpa = GPA,
		.bytes = how.pages * PAGE,
		.fault_way = how.way,
		.fault_around_pages = 1,
		.fault_deadline_ms = how.deadline_ms ? how.deadline_ms : 3600000,
		.on_lost = on_lost,
		.context = &answer,
		.read_source = vmemt_source_read,
	};

	atomic_store(&answer, 0);
	atomic_store(&hold, 0);
	atomic_store(&let_go, 0);
	atomic_store(&hold_one, 0);
	atomic_store(&lost, 0);
	for (unsigned i = 0; i < PAGES_MAX; i++)
		atomic_store(&asked[i], 0);
	assert(!vmem_manager_new(&manager, &mo));
	vmemt_catch_signals(manager);
	if (how.threads)
		assert(!vmem_manager_thread_start(manager));
	assert(!vmem_region_alloc(&region, manager, &o));
	base = vmem_region_hva(region);
	assert(vmemt_metrics(region).pages[VMEM_PAGE_SOURCE] == how.pages);
	for (unsigned i = 0; i < MANY; i++)
		cpu[i].region = region;
}

void vmemt_source_end(void)
{
	vmemt_check(manager, region);
	vmem_manager_thread_stop(manager);
	assert(!atomic_load(&manager->host.buffer_busy));
	assert(!vmemt_metrics(region).pages[VMEM_PAGE_ARRIVING]);
	vmemt_end(manager, region);
}

void vmemt_source_touch(unsigned c, uint64_t page, struct vmemt_page *into)
{
	vmemt_touch_begin(&cpu[c], VMEMT_READ, base + page * PAGE, into, PAGE);
}

void vmemt_source_expect(unsigned c, uint64_t page, const struct vmemt_page *got)
{
	struct vmemt_page want;

	assert(!vmemt_touch_end(&cpu[c]));
	vmemt_make(&want, page, 1);
	assert(!memcmp(got, &want, PAGE));
}

int vmemt_source_done(uint64_t page, int error)
{
	struct vmemt_page p;

	vmemt_make(&p, page, 1);
	return vmem_region_source_done(region, GPA + page * PAGE, error ? NULL : &p, error);
}

void vmemt_source_begin(void)
{
	vmemt_need(VMEM_KERNEL_POISON | VMEM_KERNEL_SIGBUS | VMEM_KERNEL_MOVE | VMEM_KERNEL_WP |
		   VMEM_KERNEL_KERNEL_FAULTS);
	for (unsigned i = 0; i < MANY; i++)
		vmemt_cpu_start(&cpu[i]);
}

void vmemt_source_over(void)
{
	for (unsigned i = 0; i < MANY; i++)
		vmemt_cpu_stop(&cpu[i]);
}
