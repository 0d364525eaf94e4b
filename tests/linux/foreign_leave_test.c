/* SPDX-License-Identifier: BSD-2-Clause */
/* Letting go of a process for which the kernel refuses everything, as it does while that removes memory without
 * pause: nobody else waits for it, it ends in time, and nothing is lost. */
#include "linux/foreign_rig.h"

#define PAGE VMEM_PAGE_SIZE
#define PAGES VMEMT_FOREIGN_PAGES
#define EVENTS VMEMT_FOREIGN_EVENTS
#define DEADLINE_MS 2000 /* far longer than a source takes to answer */
#define FLOODED_MS 4000  /* the same, where all threads are kept busy */

static struct {
	pthread_t thread;
	_Atomic int over; /* atomic */
	int result;       /* when it is over */
} leaving;

static void *leave(void *context)
{
	(void)context;
	leaving.result = vmem_foreign_detach(vmemt_foreign.foreign, VMEM_DETACH_RESTORE);
	atomic_store(&leaving.over, 1);
	return NULL;
}

static void leave_begin(void)
{
	atomic_store(&leaving.over, 0);
	assert(!pthread_create(&leaving.thread, NULL, leave, NULL));
}

static int leave_end(void)
{
	VMEMT_UNTIL(atomic_load(&leaving.over));
	pthread_join(leaving.thread, NULL);
	return leaving.result;
}

/* Its memory in two ranges, served by a manager whose kernel refuses what it is told to. */
static void begin(uint64_t deadline_ms, bool threads)
{
	static struct vmemi_kernel k;
	struct vmem_region_opts range[2];

	k = vmemi_kernel_linux;
	k.ioctl = vmemt_refuse_ioctl;
	assert(!vmemi_manager_new(&vmemt_foreign.manager, NULL, &k));
	vmemt_foreign_begin(vmemt_foreign.manager, PAGES, EVENTS);
	for (unsigned i = 0; i < 2; i++) {
		range[i] = vmemt_foreign_range(&vmemt_foreign.client, i * PAGES / 2, PAGES / 2,
					       VMEM_REGION_FROM_SOURCE);
		range[i].fault_deadline_ms = deadline_ms;
	}
	if (threads)
		assert(!vmem_manager_thread_start(vmemt_foreign.manager));
	assert(!vmemt_foreign_attach(&vmemt_foreign.client, range, 2));
}

/* Its process needs nobody any more. */
static void expect_left(void)
{
	assert(!atomic_load(&vmemt_foreign.lost));
	assert(!vmem_manager_free(vmemt_foreign.manager));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, PAGES, 1);
	vmemt_client_end(&vmemt_foreign.client, false);
}

/* The call is over after a while. What it did not bring is served as before, and a later one goes on. Ranges leave from
 * the last one on, and none is tried after one that is refused. */
static void refused_for_good(uint64_t page, bool threads)
{
	begin(DEADLINE_MS, threads);
	vmemt_refuse(&vmemt_foreign.client, page, 1);
	leave_begin();
	assert(leave_end() == -VMEM_EBUSY);
	assert(!atomic_load(&vmemt_foreign.lost));
	assert(!vmem_foreign_region(vmemt_foreign.foreign, 1) == (page < PAGES / 2));
	assert(vmemt_state(vmem_foreign_region(vmemt_foreign.foreign, page < PAGES / 2 ? 0 : 1),
			   page % (PAGES / 2)) != VMEM_PAGE_RESIDENT);
	assert(vmem_foreign_region(vmemt_foreign.foreign, 0));
	atomic_store(&vmemt_refused.end, 0);
	if (threads)
		vmemt_foreign_expect(VMEMT_ORDER_READ, 0, PAGES, 1);
	assert(!vmem_foreign_detach(vmemt_foreign.foreign, VMEM_DETACH_RESTORE));
	expect_left();
}

/* An error that cannot be put where a page is lost is waited for as long, and no longer. */
static void refused_to_make_an_error(void)
{
	begin(DEADLINE_MS, true);
	atomic_store(&vmemt_foreign.bad_first, 7);
	atomic_store(&vmemt_foreign.bad_end, 8);
	vmemt_refuse(&vmemt_foreign.client, 7, 1);
	leave_begin();
	assert(leave_end() == -VMEM_EBUSY);
	assert(!atomic_load(&vmemt_foreign.lost));
	atomic_store(&vmemt_refused.end, 0);
	assert(vmem_foreign_detach(vmemt_foreign.foreign, VMEM_DETACH_RESTORE) == 1);
	assert(atomic_load(&vmemt_foreign.lost) == 1);
	assert(!vmem_manager_free(vmemt_foreign.manager));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 8, PAGES - 8, 1);
	assert(vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_READ, 7, 1, 0) == VMEMT_MET_ERROR);
	vmemt_client_end(&vmemt_foreign.client, false);
}

/* The same where all that is missing is to be made errors: in a budget of tries for all of it. */
static void refused_to_be_closed(void)
{
	begin(DEADLINE_MS, true);
	vmemt_refuse(&vmemt_foreign.client, 7, 1);
	assert(vmem_foreign_detach(vmemt_foreign.foreign, VMEM_DETACH_DISCARD) == -VMEM_EBUSY);
	assert(vmem_foreign_region(vmemt_foreign.foreign, 0));
	atomic_store(&vmemt_refused.end, 0);
	assert(!vmem_foreign_detach(vmemt_foreign.foreign, VMEM_DETACH_DISCARD));
	assert(!vmem_manager_free(vmemt_foreign.manager));
	for (uint64_t page = 0; page < PAGES; page += 50)
		assert(vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_READ, page, 1, 0) ==
		       VMEMT_MET_ERROR);
	vmemt_client_end(&vmemt_foreign.client, false);
}

/* Reclaim of other memory goes on. */
static void others_are_reclaimed(void)
{
	vmem_region *own;
	struct vmemt_cpu cpu;

	begin(60000, true);
	own = vmemt_region(vmemt_foreign.manager, 0, PAGES, 0);
	vmemt_cpu_start(&cpu);
	cpu.region = own;
	for (uint64_t page = 0; page < 32; page++)
		vmemt_put(&cpu, vmem_region_hva(own), page, 2);
	atomic_store(&vmemt_refused.count, 0);
	vmemt_refuse(&vmemt_foreign.client, PAGES - 1, 1);
	leave_begin();
	VMEMT_UNTIL(atomic_load(&vmemt_refused.count) > 0);
	vmemt_stage(own, 0, 32);
	assert(!atomic_load(&leaving.over));
	atomic_store(&vmemt_refused.end, 0);
	assert(!leave_end());
	for (uint64_t page = 0; page < 32; page++)
		assert(vmemt_is(&cpu, vmem_region_hva(own), page, 2));
	vmemt_cpu_stop(&cpu);
	assert(!vmem_region_detach(own, VMEM_DETACH_DISCARD));
	expect_left();
}

/* By the kernel itself, as far as it does; either way what is not removed stays. */
static void flooded(void)
{
	int result;

	begin(FLOODED_MS, true);
	vmemt_order_begin(&vmemt_foreign.client, 1, VMEMT_ORDER_FLOOD, 0, 16, 0);
	vmemt_order_begin(&vmemt_foreign.client, 2, VMEMT_ORDER_FLOOD, 16, 16, 0);
	VMEMT_UNTIL(vmemt_foreign_metrics().remove_events >= 1000);
	leave_begin();
	result = leave_end();
	assert(!result || result == -VMEM_EBUSY);
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_STOP, 0, 0, 0));
	assert(vmemt_order_end(&vmemt_foreign.client, 1) > 0);
	assert(vmemt_order_end(&vmemt_foreign.client, 2) > 0);
	if (result)
		assert(!vmem_foreign_detach(vmemt_foreign.foreign, VMEM_DETACH_RESTORE));
	assert(!atomic_load(&vmemt_foreign.lost));
	assert(!vmem_manager_free(vmemt_foreign.manager));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 32, 0);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 32, PAGES - 32, 1);
	vmemt_client_end(&vmemt_foreign.client, false);
}

int main(int argc, char **argv)
{
	vmemt_client_main(argc, argv);
	vmemt_need(VMEM_KERNEL_POISON);
	refused_for_good(7, true);
	refused_for_good(PAGES - 1, false);
	refused_to_make_an_error();
	refused_to_be_closed();
	others_are_reclaimed();
	flooded();
	return 0;
}
