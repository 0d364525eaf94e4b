/* SPDX-License-Identifier: BSD-2-Clause */
/* What another process removes of its memory is zeros from then on, whenever that happens; and who removes without
 * pause, or fools us, harms nobody else. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux/failing_kernel.h"
#include "linux/foreign/foreign_events.h"
#include "linux/foreign_rig.h"

#define PAGE VMEM_PAGE_SIZE
#define PAGES VMEMT_FOREIGN_PAGES
#define EVENTS VMEMT_FOREIGN_EVENTS

static void removed_is_zeros(void)
{
	vmemt_foreign_make(0);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 20, 1);
	VMEMT_UNTIL(vmemt_metrics(vmemt_foreign.region).pages[VMEM_PAGE_RESIDENT] == 20);
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_REMOVE, 10, 20, 0));
	VMEMT_UNTIL(vmemt_foreign_metrics().removed_pages == 20);
	assert(vmemt_metrics(vmemt_foreign.region).pages[VMEM_PAGE_RESIDENT] == 10);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 10, 1);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 10, 20, 0);
	vmemt_foreign_expect(VMEMT_ORDER_WRITE, 15, 10, 3);
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_REMOVE, 20, 1, 0));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 20, 1, 0);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 21, 4, 3);
	assert(atomic_load(&vmemt_foreign.asked) == 20);
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_UNMAP, 100, 50, 0));
	VMEMT_UNTIL(vmemt_foreign_metrics().remove_events == 3);
	VMEMT_UNTIL(vmemt_state(vmemt_foreign.region, 120) == VMEM_PAGE_ABSENT);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 90, 10, 1);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 150, 10, 1);
	vmemt_foreign_end();
}

/* Much at a time is seen to in pieces, between which others are served; a page that is touched before its turn comes is
 * zeros at once, stays, and is counted. */
static void removed_in_pieces(void)
{
	const uint64_t pages = 3 * 4096, touched = 2 * 4096 + 7;
	struct vmemi_fault fault = { .page = touched, .force = true };
	struct vmemi_foreign_fault faults[8];

	vmemt_foreign_begin(vmemt_manager(0), pages, EVENTS);
	assert(!vmemt_foreign_whole(&vmemt_foreign.client));
	vmemt_order_begin(&vmemt_foreign.client, 0, VMEMT_ORDER_REMOVE, 0, pages, 0);
	do /* nobody else reads */
		assert(!vmemi_foreign_take(vmemt_foreign.foreign, faults, 8));
	while (!vmemt_order_over(&vmemt_foreign.client, 0));
	assert(vmemi_foreign_removed(vmemt_foreign.region, pages - 1));
	assert(vmemt_state(vmemt_foreign.region, 0) == VMEM_PAGE_SOURCE);
	assert(vmemi_foreign_heed(vmemt_foreign.foreign));
	assert(vmemt_state(vmemt_foreign.region, 0) == VMEM_PAGE_ABSENT);
	assert(vmemt_state(vmemt_foreign.region, touched) == VMEM_PAGE_SOURCE);
	assert(!vmemt_order_end(&vmemt_foreign.client, 0));
	VMEMT_UNTIL(vmemi_serve(vmemt_foreign.region, &fault) == VMEMI_SERVED);
	while (vmemi_foreign_heed(vmemt_foreign.foreign))
		;
	assert(vmemt_state(vmemt_foreign.region, pages - 1) == VMEM_PAGE_ABSENT);
	assert(vmemt_state(vmemt_foreign.region, touched) == VMEM_PAGE_RESIDENT);
	assert(vmemt_foreign_metrics().removed_pages == pages);
	assert(vmemt_manager_metrics(vmemt_foreign.manager).foreign_bytes == PAGE);
	assert(!vmem_manager_thread_start(vmemt_foreign.manager));
	vmemt_foreign_expect(VMEMT_ORDER_READ, touched - 9, 20, 0);
	vmemt_foreign_expect(VMEMT_ORDER_WRITE, touched, 1, 2);
	assert(!atomic_load(&vmemt_foreign.asked));
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_REMOVE, 0, pages, 0));
	VMEMT_UNTIL(!vmemt_manager_metrics(vmemt_foreign.manager).foreign_bytes);
	vmemt_foreign_expect(VMEMT_ORDER_READ, touched, 1, 0);
	vmemt_foreign_end();
}

static _Atomic uint32_t deaf; /* atomic; removals are not heard */

static ssize_t read_but_removals(int fd, void *buffer, size_t bytes)
{
	ssize_t n = vmemi_kernel_linux.read_now(fd, buffer, bytes);
	struct uffd_msg *m = buffer;

	for (ssize_t i = 0; i < n / (ssize_t)sizeof(*m); i++)
		if (m[i].event == UFFD_EVENT_REMOVE && atomic_load(&deaf))
			m[i].event = 0;
	return n;
}

/* As if the page had been filled after the removal was heard of, and before it took place. */
static void missing_again(void)
{
	struct vmemi_kernel k = vmemi_kernel_linux;

	k.read_now = read_but_removals;
	assert(!vmemi_manager_new(&vmemt_foreign.manager, NULL, &k));
	vmemt_foreign_begin(vmemt_foreign.manager, PAGES, EVENTS);
	vmemt_foreign_serve();
	atomic_store(&deaf, 0);
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_REMOVE, 0, 2, 0));
	vmemt_foreign_expect(VMEMT_ORDER_WRITE, 0, 2, 2);
	VMEMT_UNTIL(vmemt_metrics(vmemt_foreign.region).pages[VMEM_PAGE_RESIDENT] == 2);
	atomic_store(&deaf, 1);
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_REMOVE, 0, 2, 0));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 2, 0);
	vmemt_foreign_expect(VMEMT_ORDER_WRITE, 0, 2, 3);
	/* What was never removed, as far as anybody heard, is not lost for zeros. */
	vmemt_foreign_expect(VMEMT_ORDER_READ, 5, 1, 1);
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_REMOVE, 5, 1, 0));
	assert(vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_READ, 5, 1, 0) == VMEMT_MET_ERROR);
	vmemt_foreign_end();
}

/* The bytes that its source is about to give are stale when they come. */
static void removed_while_it_arrives(void)
{
	uint32_t asked;

	vmemt_foreign_make(0);
	atomic_store(&vmemt_foreign.hold, 1);
	vmemt_order_begin(&vmemt_foreign.client, 0, VMEMT_ORDER_READ, 7, 1, 0);
	VMEMT_UNTIL(atomic_load(&vmemt_foreign.held) == 1);
	vmemt_order_begin(&vmemt_foreign.client, 1, VMEMT_ORDER_REMOVE, 5, 4, 0);
	assert(!vmemt_order_end(&vmemt_foreign.client, 1)); /* nobody else waits */
	assert(!vmemt_order_over(&vmemt_foreign.client, 0));
	atomic_store(&vmemt_foreign.hold, 0);
	assert(vmemt_order_end(&vmemt_foreign.client, 0) == 1);
	asked = atomic_load(&vmemt_foreign.asked);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 5, 4, 0);
	assert(atomic_load(&vmemt_foreign.asked) == asked);
	vmemt_foreign_end();
}

static void removed_all_the_time(void)
{
	const uint64_t quarter = PAGES / 4;

	vmemt_foreign_make(0);
	vmemt_order_begin(&vmemt_foreign.client, 1, VMEMT_ORDER_CHURN, 0, 16, 0);
	vmemt_order_begin(&vmemt_foreign.client, 2, VMEMT_ORDER_CHURN, 16, 16, 0);
	vmemt_foreign_expect(VMEMT_ORDER_READ, quarter, 3 * quarter, 1);
	assert(vmemt_order_end(&vmemt_foreign.client, 1) == 64 * 16);
	assert(vmemt_order_end(&vmemt_foreign.client, 2) == 64 * 16);
	vmemt_foreign_expect(VMEMT_ORDER_WRITE, quarter, 3 * quarter, 2);
	vmemt_foreign_expect(VMEMT_ORDER_READ, quarter, 3 * quarter, 2);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 32, quarter - 32, 1);
	vmemt_foreign_end();
}

static _Atomic int read_held, read_released; /* atomic; 1: a read has begun; it may end */

static ssize_t read_in_turn(int fd, void *buffer, size_t bytes)
{
	if (!atomic_exchange(&read_held, 1))
		VMEMT_UNTIL(atomic_load(&read_released));
	else if (atomic_load(&read_released))
		assert(!atomic_load(&vmemt_foreign.foreign->kept_out));
	return vmemi_kernel_linux.read_now(fd, buffer, bytes);
}

static void *read_on(void *context)
{
	struct vmemi_foreign_fault faults[8];

	while (!atomic_load((_Atomic int *)context))
		vmemi_foreign_take(vmemt_foreign.foreign, faults, 8);
	return NULL;
}

static void *fill(void *context)
{
	vmemi_foreign_enter(vmemt_foreign.foreign);
	vmemi_foreign_leave(vmemt_foreign.foreign);
	atomic_store((_Atomic int *)context, 1);
	return NULL;
}

/* Who reads without end lets those fill in between that it has kept waiting. */
static void reads_and_fills_take_turns(void)
{
	struct vmemi_kernel k = vmemi_kernel_linux;
	_Atomic int filled = 0;
	pthread_t thread[2];

	k.read_now = read_in_turn;
	atomic_store(&read_held, 1);
	assert(!vmemi_manager_new(&vmemt_foreign.manager, NULL, &k));
	vmemt_foreign_begin(vmemt_foreign.manager, PAGES, EVENTS);
	assert(!vmemt_foreign_whole(&vmemt_foreign.client));
	atomic_store(&read_held, 0);
	assert(!pthread_create(&thread[0], NULL, read_on, &filled));
	VMEMT_UNTIL(atomic_load(&read_held));
	assert(!pthread_create(&thread[1], NULL, fill, &filled));
	VMEMT_UNTIL(atomic_load(&vmemt_foreign.foreign->kept_out) == 1);
	atomic_store(&read_released, 1);
	VMEMT_UNTIL(atomic_load(&filled));
	pthread_join(thread[0], NULL);
	pthread_join(thread[1], NULL);
	vmemt_foreign_end();
}

/* As if its process removed pages without pause. The only thread that asks sources goes on to others. */
static void refused_for_long(void)
{
	struct vmem_manager_opts o = { .size = sizeof(o), .source_threads = 1 };
	struct vmemi_kernel k = vmemi_kernel_linux;

	k.ioctl = vmemt_refuse_ioctl;
	assert(!vmemi_manager_new(&vmemt_foreign.manager, &o, &k));
	vmemt_foreign_begin(vmemt_foreign.manager, PAGES, EVENTS);
	vmemt_foreign_serve();
	vmemt_refuse(&vmemt_foreign.client, 7, 1);
	vmemt_order_begin(&vmemt_foreign.client, 1, VMEMT_ORDER_READ, 7, 1, 1);
	VMEMT_UNTIL(atomic_load(&vmemt_foreign.asked) >= 1);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 50, 3, 1);
	assert(!vmemt_order_over(&vmemt_foreign.client, 1));
	VMEMT_UNTIL(atomic_load(&vmemt_foreign.asked) >= 10);
	atomic_store(&vmemt_refused.end, 0);
	assert(vmemt_order_end(&vmemt_foreign.client, 1) == 1);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, PAGES, 1);
	assert(!vmemt_metrics(vmemt_foreign.region).lost);
	vmemt_foreign_end();
}

/* Another process, of which much is wanted and nothing can be filled: others hardly wait for that. */
static void refused_alone(void)
{
	struct vmem_manager_opts o = { .size = sizeof(o), .source_threads = 1 };
	struct vmemi_kernel k = vmemi_kernel_linux;
	struct vmemt_client refused = { .shared = 0 };
	vmem_foreign *foreign;
	uint64_t began_ns;

	k.ioctl = vmemt_refuse_ioctl;
	assert(!vmemi_manager_new(&vmemt_foreign.manager, &o, &k));
	vmemt_foreign_begin(vmemt_foreign.manager, PAGES, EVENTS);
	vmemt_client_start(&refused, PAGES, EVENTS);
	assert(!vmemt_foreign_whole(&refused));
	foreign = vmemt_foreign.foreign;
	vmemt_foreign_serve();
	atomic_store(&vmemt_refused.fd, foreign->uffd.fd);
	vmemt_refuse(&refused, 0, PAGES);
	vmemt_order_begin(&refused, 0, VMEMT_ORDER_THREADS, 0, 0, 1);
	VMEMT_UNTIL(atomic_load(&vmemt_foreign.asked) >= 4);
	began_ns = k.clock_ns();
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, PAGES, 1);
	VMEMT_UNTIL(k.clock_ns() - began_ns > 300000000);
	/* About once in VMEMI_SOURCE_REFUSED_NS. */
	assert(atomic_load(&vmemt_foreign.asked) <
	       PAGES + 50 + (k.clock_ns() - began_ns) / 2500000);
	assert(!vmemt_order_over(&refused, 0));
	atomic_store(&vmemt_refused.end, 0);
	atomic_store(&vmemt_refused.fd, -1);
	assert(vmemt_order_end(&refused, 0) == 8 * PAGES);
	vmemt_client_end(&refused, false);
	assert(!vmem_foreign_detach(foreign, VMEM_DETACH_DISCARD));
	vmemt_foreign_end();
}

/* Zeros, which need no source: their fault is tried again from time to time, and not all the time. */
static void refused_zeros(void)
{
	struct vmemi_kernel k = vmemi_kernel_linux;
	uint64_t began_ns, before;

	k.ioctl = vmemt_refuse_ioctl;
	assert(!vmemi_manager_new(&vmemt_foreign.manager, NULL, &k));
	vmemt_foreign_begin(vmemt_foreign.manager, PAGES, EVENTS);
	vmemt_foreign_serve();
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_REMOVE, 7, 1, 0));
	vmemt_order_begin(&vmemt_foreign.client, 2, VMEMT_ORDER_CHURN, 100, 32,
			  0); /* handlers work */
	began_ns = k.clock_ns();
	before = atomic_load(&vmemt_refused.count);
	vmemt_refuse(&vmemt_foreign.client, 7, 1);
	vmemt_order_begin(&vmemt_foreign.client, 1, VMEMT_ORDER_READ, 7, 1, 0);
	VMEMT_UNTIL(atomic_load(&vmemt_refused.count) >= before + 400);
	assert(atomic_load(&vmemt_refused.count) - before <
	       (k.clock_ns() - began_ns) / 50000 + 100);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 50, 3, 1);
	assert(vmemt_order_end(&vmemt_foreign.client, 2) == 64 * 32);
	atomic_store(&vmemt_refused.end, 0);
	assert(vmemt_order_end(&vmemt_foreign.client, 1) == 1);
	vmemt_foreign_end();
}

/* It is not asked for again, and is zeros when it can be. */
static void removed_while_refused(void)
{
	struct vmemi_kernel k = vmemi_kernel_linux;
	uint32_t asked;

	k.ioctl = vmemt_refuse_ioctl;
	assert(!vmemi_manager_new(&vmemt_foreign.manager, NULL, &k));
	vmemt_foreign_begin(vmemt_foreign.manager, PAGES, EVENTS);
	vmemt_foreign_serve();
	vmemt_refuse(&vmemt_foreign.client, 7, 1);
	vmemt_order_begin(&vmemt_foreign.client, 1, VMEMT_ORDER_READ, 7, 1, 0);
	VMEMT_UNTIL(atomic_load(&vmemt_foreign.asked) >= 2);
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_REMOVE, 7, 1, 0));
	VMEMT_UNTIL(vmemt_state(vmemt_foreign.region, 7) == VMEM_PAGE_ABSENT);
	asked = atomic_load(&vmemt_foreign.asked);
	atomic_store(&vmemt_refused.end, 0);
	assert(vmemt_order_end(&vmemt_foreign.client, 1) == 1);
	assert(atomic_load(&vmemt_foreign.asked) == asked);
	vmemt_foreign_end();
}

/* What its source fails to give is not missed any more. */
static void removed_while_it_fails(void)
{
	vmemt_foreign_make(0);
	atomic_store(&vmemt_foreign.answer, -VMEM_EIO);
	atomic_store(&vmemt_foreign.hold, 1);
	vmemt_order_begin(&vmemt_foreign.client, 0, VMEMT_ORDER_READ, 7, 1, 0);
	VMEMT_UNTIL(atomic_load(&vmemt_foreign.held) == 1);
	vmemt_order_begin(&vmemt_foreign.client, 1, VMEMT_ORDER_REMOVE, 5, 4, 0);
	assert(!vmemt_order_end(&vmemt_foreign.client, 1));
	atomic_store(&vmemt_foreign.hold, 0);
	assert(vmemt_order_end(&vmemt_foreign.client, 0) == 1);
	assert(!atomic_load(&vmemt_foreign.lost));
	assert(vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_READ, 20, 1, 0) == VMEMT_MET_ERROR);
	/* Heard of, the removal of an error heals it. */
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_REMOVE, 20, 1, 0));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 20, 1, 0);
	vmemt_foreign_end();
}

/* Without events nobody hears that an error was removed: it comes back. */
static void an_error_that_is_removed_unheard(void)
{
	vmemt_foreign_begin(vmemt_manager(0), PAGES, 0);
	vmemt_foreign_serve();
	atomic_store(&vmemt_foreign.answer, -VMEM_EIO);
	for (unsigned i = 0; i < 3; i++) {
		assert(vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_READ, 7, 1, 0) ==
		       VMEMT_MET_ERROR);
		assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_REMOVE, 7, 1, 0));
	}
	VMEMT_UNTIL(atomic_load(&vmemt_foreign.lost) == 1);
	vmemt_foreign_end();
}

/* Who may not hear of removals, and who makes reads wait. */
static void hostile_process(void)
{
	vmemt_foreign_make(0);
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_BLOCKING, 0, 0, 0));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 100, 1);
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_BLOCKING, 0, 0, 0));
	assert(!vmemt_order(&vmemt_foreign.client, VMEMT_ORDER_REMOVE, 0, 10, 0));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 10, 0);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 100, 100, 1);
	vmemt_foreign_end();
}

int main(int argc, char **argv)
{
	vmemt_client_main(argc, argv);
	vmemt_need(VMEM_KERNEL_POISON);
	removed_is_zeros();
	removed_in_pieces();
	missing_again();
	removed_while_it_arrives();
	removed_all_the_time();
	reads_and_fills_take_turns();
	refused_for_long();
	refused_alone();
	refused_zeros();
	removed_while_refused();
	removed_while_it_fails();
	an_error_that_is_removed_unheard();
	hostile_process();
	return 0;
}
