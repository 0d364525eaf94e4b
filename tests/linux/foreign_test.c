/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory of another process: it is served, from its source and as zeros; and either side may die, or end it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vmem/feed.h>
#include <vmem/foreign.h>
#include <vmem/grow.h>
#include <vmem/peer.h>
#include <vmem/snapshot.h>
#include <vmem/source.h>
#include <vmem/working_set.h>
#include "linux/failing_kernel.h"
#include "linux/foreign_rig.h"
#include "linux/hand_over.h"

#define PAGE VMEM_PAGE_SIZE
#define GPA VMEMT_FOREIGN_GPA
#define PAGES VMEMT_FOREIGN_PAGES
#define PAGES_MAX 2048
#define EVENTS VMEMT_FOREIGN_EVENTS

/* --- What is served --- */

static void bytes_come_and_stay(void)
{
	vmemt_foreign_make(0);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 100, 1);
	vmemt_foreign_expect(VMEMT_ORDER_WRITE, 50, 100, 2);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 50, 1);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 50, 100, 2);
	VMEMT_UNTIL(vmemt_metrics(vmemt_foreign.region).pages[VMEM_PAGE_RESIDENT] == 150);
	assert(atomic_load(&vmemt_foreign.asked) == 150);
	assert(vmemt_manager_metrics(vmemt_foreign.manager).foreign_bytes == 150 * PAGE);
	assert(!vmem_region_fetch(vmemt_foreign.region, GPA + 200 * PAGE, 10 * PAGE, NULL));
	assert(vmemt_state(vmemt_foreign.region, 205) == VMEM_PAGE_RESIDENT);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 200, 10, 1);
	vmemt_foreign_end();
}

/* A second range, without a source, and a file for the first. */
static void ranges_and_files(void)
{
	struct vmem_source_file file = { .fd = memfd_create("source", MFD_CLOEXEC),
					 .gpa = GPA,
					 .offset = 3 * PAGE };
	struct vmem_region_opts range[2];

	assert(file.fd >= 0);
	for (uint64_t i = 0; i < PAGES / 2 - 1; i++) {
		struct vmemt_page p;

		vmemt_make(&p, i, 1);
		assert(pwrite(file.fd, &p, PAGE, (off_t)((i + 3) * PAGE)) == PAGE);
	}
	vmemt_foreign_begin(vmemt_manager(0), PAGES, EVENTS);
	range[0] =
		vmemt_foreign_range(&vmemt_foreign.client, 0, PAGES / 2, VMEM_REGION_FROM_SOURCE);
	range[0].read_source = vmem_source_file_read;
	range[0].context = &file;
	range[1] = vmemt_foreign_range(&vmemt_foreign.client, PAGES / 2, PAGES / 2, 0);
	assert(!vmemt_foreign_attach(&vmemt_foreign.client, range, 2));
	vmemt_foreign.region = vmem_foreign_region(vmemt_foreign.foreign, 0);
	assert(!vmem_foreign_region(vmemt_foreign.foreign, 2));
	assert(!vmem_manager_thread_start(vmemt_foreign.manager));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, PAGES / 2 - 1, 1);
	vmemt_foreign_expect(VMEMT_ORDER_READ, PAGES / 2, PAGES / 2, 0);
	/* The file is too short by one page. */
	assert(vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_READ, PAGES / 2 - 1, 1, 0) ==
	       VMEMT_MET_ERROR);
	VMEMT_UNTIL(atomic_load(&vmemt_foreign.lost) == 1);
	assert(vmem_source_file_read(&file, GPA - PAGE, &range) == -VMEM_EINVAL);
	vmemt_foreign_end();
	close(file.fd);
}

static int never(void *context, const void *data, size_t bytes)
{
	(void)context;
	(void)data;
	(void)bytes;
	abort();
}

static void what_cannot_be_done(void)
{
	struct vmem_snapshot_save_opts save = { .size = sizeof(save), .write = never };
	struct vmem_peer_opts peer = { .size = sizeof(peer), .gpa = GPA, .bytes = PAGE };
	struct vmemt_page page;
	vmem_peer *other;
	uint64_t gpa = GPA, n;

	vmemt_foreign_make(0);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 4, 1);
	assert(!vmem_region_hva(vmemt_foreign.region));
	assert(vmem_region_read(vmemt_foreign.region, GPA, &page, PAGE) == -VMEM_ENOTSUP);
	assert(vmem_region_write(vmemt_foreign.region, GPA, &page, PAGE) == -VMEM_ENOTSUP);
	assert(vmem_region_discard(vmemt_foreign.region, GPA, PAGE, NULL) == -VMEM_ENOTSUP);
	assert(vmem_region_stage(vmemt_foreign.region, GPA, PAGE, &n) == -VMEM_ENOTSUP);
	assert(vmem_region_stage_pages(vmemt_foreign.region, &gpa, 1, &n) == -VMEM_ENOTSUP);
	assert(vmem_region_store(vmemt_foreign.region, GPA, PAGE, &n) == -VMEM_ENOTSUP);
	assert(vmem_region_evict_all(vmemt_foreign.region, NULL) == -VMEM_ENOTSUP);
	assert(vmem_region_dirty_start(vmemt_foreign.region) == -VMEM_ENOTSUP);
	assert(vmem_region_grow(vmemt_foreign.region, (PAGES + 1) * PAGE) == -VMEM_ENOTSUP);
	assert(vmem_region_add_peer(&other, vmemt_foreign.region, &peer) == -VMEM_ENOTSUP);
	assert(vmem_region_set_source(vmemt_foreign.region, GPA, PAGE) == -VMEM_ENOTSUP);
	assert(vmem_region_feed(vmemt_foreign.region) == VMEM_FEED_FAULTS);
	assert(vmem_snapshot_save(vmemt_foreign.region, &save, NULL) == -VMEM_ENOTSUP);
	assert(vmem_region_detach(vmemt_foreign.region, VMEM_DETACH_RESTORE) == -VMEM_EINVAL);
	assert(vmem_manager_free(vmemt_foreign.manager) == -VMEM_EBUSY);
	assert(!vmem_region_pin(vmemt_foreign.region, GPA + 8 * PAGE, PAGE));
	assert(!vmem_region_unpin(vmemt_foreign.region, GPA + 8 * PAGE, PAGE));
	assert(!vmem_region_will_overwrite(vmemt_foreign.region, GPA + 9 * PAGE, PAGE, &n) &&
	       n == 1);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 8, 1, 1);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 9, 1, 0);
	vmemt_foreign_end();
}

/* What a VM touches after it was loaded, for the next one that is. */
static void working_set(void)
{
	struct vmem_working_set_info info = { .size = sizeof(info) };
	vmem_working_set *set;

	vmemt_foreign_make(0);
	assert(!vmem_working_set_record_start(vmemt_foreign.region, NULL));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 40, 5, 1);
	vmemt_foreign_expect(VMEMT_ORDER_WRITE, 3, 2, 2);
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_REMOVE, 100, 1, 0));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 100, 1, 0);
	assert(!vmem_working_set_record_stop(vmemt_foreign.region, &set));
	assert(!vmem_working_set_get_info(set, &info));
	assert(info.region_gpa == GPA && info.pages >= 8);
	vmemt_foreign_end();
	vmemt_foreign_make(0);
	assert(!vmem_working_set_replay(vmemt_foreign.region, set, NULL, NULL));
	for (uint64_t page = 40; page < 45; page++)
		assert(vmemt_state(vmemt_foreign.region, page) == VMEM_PAGE_RESIDENT);
	assert(vmemt_state(vmemt_foreign.region, 100) == VMEM_PAGE_RESIDENT);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 40, 5, 1);
	vmem_working_set_free(set);
	vmemt_foreign_end();
}

static void by_many_threads(void)
{
	vmemt_foreign_make(0);
	assert(vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_THREADS, 0, 0, 1) == 8 * PAGES);
	VMEMT_UNTIL(vmemt_metrics(vmemt_foreign.region).pages[VMEM_PAGE_RESIDENT] == PAGES);
	vmemt_foreign_end();
}

static void by_steps(void)
{
	vmemt_foreign_begin(vmemt_manager(0), PAGES, EVENTS);
	assert(!vmemt_foreign_whole(&vmemt_foreign.client));
	vmemt_order_begin(&vmemt_foreign.client, 0, VMEMT_ORDER_THREADS, 0, 0, 1);
	while (!vmemt_order_over(&vmemt_foreign.client, 0)) {
		struct pollfd p = { .fd = vmem_manager_fd(vmemt_foreign.manager),
				    .events = POLLIN };
		uint32_t next_ms;

		if (!vmem_manager_step(vmemt_foreign.manager, 100, &next_ms))
			poll(&p, 1, (int)next_ms);
	}
	assert(vmemt_order_end(&vmemt_foreign.client, 0) == 8 * PAGES);
	vmemt_order_begin(&vmemt_foreign.client, 1, VMEMT_ORDER_CHURN, 3, 4, 0);
	while (!vmemt_order_over(&vmemt_foreign.client, 1))
		vmem_manager_step(vmemt_foreign.manager, 100, NULL);
	vmemt_foreign_end();
}

/* --- The end of either side --- */

static void restored_and_left_alone(void)
{
	vmemt_foreign_make(0);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 10, 1);
	vmemt_foreign_expect(VMEMT_ORDER_WRITE, 10, 10, 2);
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_REMOVE, 30, 10, 0));
	assert(!vmem_foreign_detach(vmemt_foreign.foreign, VMEM_DETACH_RESTORE));
	assert(!vmem_manager_free(vmemt_foreign.manager));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 10, 1);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 10, 10, 2);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 20, 10, 1);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 30, 10, 0);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 40, PAGES - 40, 1);
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_REMOVE, 0, 10, 0));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 10, 0);
	vmemt_client_end(&vmemt_foreign.client, false);
}

/* What the source does not give is an error for good, and keeps nothing else from being brought. */
static void restored_but_for_losses(void)
{
	struct vmem_region_opts o[2];

	vmemt_foreign_begin(vmemt_manager(0), PAGES, EVENTS);
	o[0] = vmemt_foreign_range(&vmemt_foreign.client, 0, PAGES / 2, VMEM_REGION_FROM_SOURCE);
	o[1] = vmemt_foreign_range(&vmemt_foreign.client, PAGES / 2, PAGES / 2,
				   VMEM_REGION_FROM_SOURCE);
	assert(!vmem_manager_thread_start(vmemt_foreign.manager));
	assert(!vmemt_foreign_attach(&vmemt_foreign.client, o, 2));
	atomic_store(&vmemt_foreign.bad_first, PAGES / 2 - 2);
	atomic_store(&vmemt_foreign.bad_end, PAGES / 2 + 2);
	assert(vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_READ, PAGES / 2, 1, 0) ==
	       VMEMT_MET_ERROR);
	assert(vmem_foreign_detach(vmemt_foreign.foreign, VMEM_DETACH_RESTORE) == 1);
	assert(atomic_load(&vmemt_foreign.lost) == 4);
	assert(!vmem_manager_free(vmemt_foreign.manager));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, PAGES / 2 - 2, 1);
	vmemt_foreign_expect(VMEMT_ORDER_READ, PAGES / 2 + 2, PAGES / 2 - 2, 1);
	for (uint64_t page = PAGES / 2 - 2; page < PAGES / 2 + 2; page++)
		assert(vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_READ, page, 1, 0) ==
		       VMEMT_MET_ERROR);
	vmemt_client_end(&vmemt_foreign.client, false);
}

/* It is not waited for once a page: all that it has is lost soon. What is there, or zeros, is not. */
static void a_source_that_hangs(void)
{
	struct vmem_region_opts o;

	vmemt_foreign_begin(vmemt_manager(0), PAGES, EVENTS);
	o = vmemt_foreign_range(&vmemt_foreign.client, 0, PAGES, VMEM_REGION_FROM_SOURCE);
	o.fault_deadline_ms = 200;
	assert(!vmem_manager_thread_start(vmemt_foreign.manager));
	assert(!vmemt_foreign_attach(&vmemt_foreign.client, &o, 1));
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_REMOVE, PAGES - 10, 5, 0));
	atomic_store(&vmemt_foreign.answer, -VMEM_EINPROGRESS);
	assert(vmem_foreign_detach(vmemt_foreign.foreign, VMEM_DETACH_RESTORE) == 1);
	assert(atomic_load(&vmemt_foreign.asked) < PAGES / 4);
	assert(atomic_load(&vmemt_foreign.lost) == PAGES - 5);
	assert(!vmem_manager_free(vmemt_foreign.manager));
	vmemt_foreign_expect(VMEMT_ORDER_READ, PAGES - 10, 5, 0);
	for (uint64_t i = 0; i < PAGES; i += 50)
		assert(vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_READ, i, 1, 0) ==
		       VMEMT_MET_ERROR);
	vmemt_client_end(&vmemt_foreign.client, false);
}

/* A kernel that cannot make errors: who touches what is lost waits, so somebody must go on serving it. */
static void not_left_alone_with_losses(void)
{
	vmemt_kernel_reset();
	vmemt_kernel.hide = VMEMI_UFFD_FEATURE_POISON;
	assert(!vmemi_manager_new(&vmemt_foreign.manager, NULL, &vmemt_kernel_table));
	vmemt_foreign_begin(vmemt_foreign.manager, PAGES, EVENTS);
	vmemt_foreign_serve();
	atomic_store(&vmemt_foreign.bad_first, 7);
	atomic_store(&vmemt_foreign.bad_end, 8);
	assert(vmem_foreign_detach(vmemt_foreign.foreign, VMEM_DETACH_RESTORE) == -VMEM_EIO);
	assert(atomic_load(&vmemt_foreign.asked) >= PAGES); /* more if the kernel said: not now */
	vmemt_order_begin(&vmemt_foreign.client, 1, VMEMT_ORDER_READ, 7, 1, 0);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 7, 1);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 8, PAGES - 8, 1);
	assert(!vmemt_order_over(&vmemt_foreign.client, 1));
	vmemt_client_end(&vmemt_foreign.client, true);
	assert(!vmem_foreign_detach(vmemt_foreign.foreign, VMEM_DETACH_RESTORE));
	assert(!vmem_manager_free(vmemt_foreign.manager));
}

/* What was not in place is an error, and what was stays. Who waits meets the error. */
static void discarded_is_an_error(void)
{
	vmemt_foreign_make(0);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 10, 1);
	atomic_store(&vmemt_foreign.answer, -VMEM_EINPROGRESS);
	vmemt_order_begin(&vmemt_foreign.client, 1, VMEMT_ORDER_READ, 20, 1, 1);
	VMEMT_UNTIL(atomic_load(&vmemt_foreign.asked) >= 11);
	assert(!vmemt_order_over(&vmemt_foreign.client, 1));
	assert(!vmem_foreign_detach(vmemt_foreign.foreign, VMEM_DETACH_DISCARD));
	assert(vmemt_order_end(&vmemt_foreign.client, 1) == VMEMT_MET_ERROR);
	assert(!vmem_manager_free(vmemt_foreign.manager));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 10, 1);
	for (uint64_t i = 10; i < PAGES; i += 50)
		assert(vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_READ, i, 1, 0) ==
		       VMEMT_MET_ERROR);
	vmemt_client_end(&vmemt_foreign.client, false);
}

static void process_dies(uint32_t how)
{
	unsigned files = vmemt_open_files();

	vmemt_foreign_make(0);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 10, 1);
	assert(!vmem_foreign_is_gone(vmemt_foreign.foreign));
	atomic_store(&vmemt_foreign.hold, 1);
	vmemt_order_begin(&vmemt_foreign.client, 1, VMEMT_ORDER_READ, 20, 1, 1);
	VMEMT_UNTIL(atomic_load(&vmemt_foreign.held) == 1);
	vmemt_client_end(&vmemt_foreign.client, true);
	VMEMT_UNTIL(vmem_foreign_is_gone(vmemt_foreign.foreign));
	atomic_store(&vmemt_foreign.hold, 0);
	VMEMT_UNTIL(!atomic_load(&vmemt_foreign.held));
	assert(vmemt_foreign_metrics().gone == 1);
	assert(!vmem_foreign_detach(vmemt_foreign.foreign, how));
	assert(!vmemt_manager_metrics(vmemt_foreign.manager).foreign_bytes);
	assert(!vmem_manager_free(vmemt_foreign.manager));
	assert(!atomic_load(&vmemt_foreign.lost) && atomic_load(&vmemt_foreign.asked) == 11);
	assert(vmemt_open_files() == files);
}

/* Another process serves; this one is its supervisor, and takes over. */
static void pager_dies(void)
{
	int ready[2], status;
	char byte;
	pid_t pager;

	vmemt_foreign_begin(NULL, PAGES, EVENTS);
	assert(!pipe(ready));
	pager = vmemt_fork(); /* no thread has been started here */
	if (!pager) {
		vmemt_foreign.stopped = ready[1];
		vmemt_foreign.manager = vmemt_manager(0);
		if (vmem_manager_thread_start(vmemt_foreign.manager) ||
		    vmemt_foreign_whole(&vmemt_foreign.client) || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert(read(ready[0], &byte, 1) == 1);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 10, 1);
	vmemt_order_begin(&vmemt_foreign.client, 1, VMEMT_ORDER_READ, 10, 1, 1);
	assert(read(ready[0], &byte, 1) == 1); /* it has read of that */
	assert(!kill(pager, SIGKILL));
	status = vmemt_end_of(pager);
	assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	vmemt_order_begin(&vmemt_foreign.client, 0, VMEMT_ORDER_READ, 0, PAGES, 1);
	VMEMT_UNTIL(poll(&(struct pollfd){ .fd = vmemt_foreign.client.uffd, .events = POLLIN }, 1,
			 0) == 1);
	assert(!vmemt_order_over(&vmemt_foreign.client, 0));
	vmemt_foreign.manager = vmemt_manager(0);
	vmemt_foreign_serve();
	assert(vmemt_order_end(&vmemt_foreign.client, 0) == PAGES);
	assert(vmemt_order_end(&vmemt_foreign.client, 1) == 1);
	vmemt_foreign_end();
	close(ready[0]);
	close(ready[1]);
}

/* --- The budget --- */

static void the_budget_holds(void)
{
	const uint64_t budget = 4 << 20, pages = PAGES_MAX;

	vmemt_foreign_begin(vmemt_manager(budget), pages, EVENTS);
	vmemt_foreign_serve();
	vmemt_order_begin(&vmemt_foreign.client, 0, VMEMT_ORDER_READ, 0, pages, 1);
	VMEMT_UNTIL(vmemt_manager_metrics(vmemt_foreign.manager).stuck);
	assert(!vmemt_order_over(&vmemt_foreign.client, 0));
	assert(vmemt_manager_metrics(vmemt_foreign.manager).used_bytes <= budget);
	assert(!vmemt_metrics(vmemt_foreign.region).lost);
	assert(!vmem_manager_set_budget(vmemt_foreign.manager, 4 * budget));
	assert(vmemt_order_end(&vmemt_foreign.client, 0) == (int64_t)pages);
	VMEMT_UNTIL(vmemt_manager_metrics(vmemt_foreign.manager).foreign_bytes == pages * PAGE);
	assert(vmem_manager_set_budget(vmemt_foreign.manager, 2 * budget) == -VMEM_EINVAL);
	vmemt_order_begin(&vmemt_foreign.client, 1, VMEMT_ORDER_REMOVE, 0, pages, 0);
	assert(!vmemt_order_end(&vmemt_foreign.client, 1));
	VMEMT_UNTIL(!vmemt_manager_metrics(vmemt_foreign.manager).foreign_bytes);
	vmemt_foreign_end();
}

int main(int argc, char **argv)
{
	vmemt_client_main(argc, argv);
	vmemt_need(VMEM_KERNEL_POISON);
	pager_dies(); /* it forks: first of all */
	bytes_come_and_stay();
	ranges_and_files();
	what_cannot_be_done();
	working_set();
	by_many_threads();
	by_steps();
	restored_and_left_alone();
	restored_but_for_losses();
	a_source_that_hangs();
	not_left_alone_with_losses();
	discarded_is_an_error();
	process_dies(VMEM_DETACH_DISCARD);
	process_dies(VMEM_DETACH_RESTORE);
	the_budget_holds();
	return 0;
}
