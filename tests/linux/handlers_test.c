/* SPDX-License-Identifier: BSD-2-Clause */
/* Several handlers of faults on one userfaultfd: each takes what it reads to its end, whoever is told of
 * it; none takes frames from who waits at another; and a region leaves none of them behind. First step
 * by step, each handler in its turn, then with threads, and more faults than all of them can hold. */
#include "linux/guest.h"
#include "linux/stored.h"
#include <sched.h>
#include <signal.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define HANDLERS 4
#define CROWD (VMEMT_SANITIZED ? 120 : 400) /* threads that fault at once */
#define ROOM 16                             /* faults that each handler may hold then */

static struct vmemt_cpu cpu[400];
static struct vmemt_page got[400];
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;

static vmem_manager *make_manager(uint64_t budget)
{
	struct vmem_manager_opts o = { .size = sizeof(o),
				       .budget_bytes = budget,
				       .fault_threads = HANDLERS };
	vmem_manager *m;

	assert(!vmem_manager_new(&m, &o));
	return m;
}

/* All pages are stored, and their loads are held from now on. */
static void make_slow(uint64_t pages, bool threads)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .bytes = pages * PAGE,
				      .fault_around_pages = 1,
				      .fault_deadline_ms = 3600000 };

	manager = make_manager(0);
	assert(!vmem_region_alloc(&region, manager, &o));
	base = vmem_region_hva(region);
	for (uint64_t i = 0; i < pages; i++) {
		struct vmemt_page p;

		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(region, i * PAGE, &p, PAGE));
	}
	vmemt_store(region, 0, pages);
	if (threads)
		assert(!vmem_manager_thread_start(manager));
	vmemt_slow_start(manager->host.store);
}

static void end_slow(void)
{
	vmem_manager_thread_stop(manager);
	assert(!atomic_load(&manager->host.buffer_busy));
	assert(!atomic_load(&manager->host.loads.under_way));
	assert(!atomic_load(&manager->host.loads.count));
	assert(!vmemi_host_put_off(&manager->host));
	assert(!vmemi_region_check(region));
	vmemt_slow_stop();
	vmemt_end(manager, region);
}

static void read_begin(unsigned c, uint64_t page)
{
	cpu[c].region = region;
	vmemt_touch_begin(&cpu[c], VMEMT_READ, base + page * PAGE, &got[c], PAGE);
}

static void expect_read(unsigned c, uint64_t page)
{
	struct vmemt_page want;

	assert(!vmemt_touch_end(&cpu[c]));
	vmemt_make(&want, page, 1);
	assert(!memcmp(&got[c], &want, PAGE));
}

static uint32_t held_by(unsigned handler)
{
	return atomic_load(&manager->host.handler[handler].put_off);
}

/* A fault of cpu @c on @page that handler @h takes in, and cannot serve. */
static void held_at(unsigned h, unsigned c, uint64_t page)
{
	uint32_t before = held_by(h);

	read_begin(c, page);
	VMEMT_UNTIL(vmemi_handler_step(manager->handlers[h]) && held_by(h) == before + 1);
}

/* Each load comes to its end with the handler that began it, whoever hears of it first. */
static void loads_end_where_they_began(void)
{
	make_slow(8, false);
	for (unsigned h = 0; h < HANDLERS; h++)
		held_at(h, h, h);
	held_at(2, HANDLERS, 0); /* waits for the load of the first */
	assert(vmemt_slow_held() == HANDLERS);
	for (unsigned i = 0; i < HANDLERS; i++)
		assert(!vmemt_slow_finish(0, 0));
	vmemi_handler_step(manager->handlers[3]); /* hears of all */
	expect_read(3, 3);
	assert(atomic_load(&manager->host.loads.count) == HANDLERS - 1);
	assert(!vmemt_touch_over(&cpu[0]) && !vmemt_touch_over(&cpu[HANDLERS]));
	/* Whoever steps the manager works all that is held, wherever. */
	VMEMT_UNTIL(vmem_manager_step(manager, 0, NULL) >= 0 &&
		    !vmemi_host_put_off(&manager->host));
	for (unsigned h = 0; h < 3; h++)
		expect_read(h, h);
	expect_read(HANDLERS, 0);
	end_slow();
}

/* What the threads hold when they are stopped goes on when they are started again. */
static void stopped_and_started(void)
{
	make_slow(8, false);
	for (unsigned h = 0; h < HANDLERS; h++)
		held_at(h, h, h);
	assert(!vmem_manager_thread_start(manager));
	assert(vmem_manager_thread_start(manager) == -VMEM_EBUSY);
	read_begin(HANDLERS, 6);
	VMEMT_UNTIL(vmemt_slow_held() == HANDLERS + 1);
	assert(!vmemt_slow_finish(1, 0));
	expect_read(1, 1);
	vmem_manager_thread_stop(manager);
	assert(!vmem_manager_thread_start(manager));
	while (vmemt_slow_held())
		assert(!vmemt_slow_finish(0, 0));
	for (unsigned c = 0; c <= HANDLERS; c++)
		if (c != 1)
			expect_read(c, c < HANDLERS ? c : 6);
	end_slow();
}

/* A region goes when all handlers hold faults on it: those that wait are forgotten, loads are waited for. */
static void detached(bool threads)
{
	struct vmemt_detaching d;

	make_slow(8, false);
	for (unsigned h = 0; h < HANDLERS; h++)
		held_at(h, h, h % 2); /* pages 0 and 1 are loaded, two handlers wait for that */
	assert(vmemt_slow_held() == 2);
	if (threads)
		assert(!vmem_manager_thread_start(manager));
	for (unsigned c = 0; c < HANDLERS; c++)
		cpu[c].region = NULL;
	vmemt_detach_begin(&d, region);
	VMEMT_UNTIL(!atomic_load(&manager->host.regions[0]));
	assert(!vmemt_slow_finish(1, 0));
	assert(!atomic_load(&d.over));
	assert(!vmemt_slow_finish(0, -VMEM_EIO));
	vmemt_detach_end(&d);
	for (unsigned c = 0; c < HANDLERS; c++)
		assert(vmemt_touch_end(&cpu[c]) == SIGSEGV);
	vmem_manager_thread_stop(manager);
	assert(!vmemi_host_put_off(&manager->host));
	assert(!atomic_load(&manager->host.buffer_busy));
	vmemt_slow_stop();
	assert(!vmem_manager_free(manager));
}

/* While somebody waits for a frame at one handler, who comes to another waits too. */
static void in_turn(void)
{
	const uint64_t pages = 4096;
	struct vmemt_page p;
	uint64_t i;

	manager = make_manager(8 * MIB);
	region = vmemt_region(manager, 0, pages, 0);
	base = vmem_region_hva(region);
	for (i = 0; !vmemt_metrics(region).stalls; i++) { /* noise, until there is no frame */
		assert(i < pages);
		vmemt_page_make(&p, VMEMT_PAGE_NOISE, i);
		cpu[0].region = NULL;
		vmemt_touch_begin(&cpu[0], VMEMT_WRITE, base + i * PAGE, &p, PAGE);
		VMEMT_UNTIL(vmemi_handler_step(manager->handlers[1]) >= 0 &&
			    (vmemt_touch_over(&cpu[0]) || held_by(1)));
		if (vmemt_touch_over(&cpu[0]))
			assert(!vmemt_touch_end(&cpu[0]));
	}
	assert(held_by(1) == 1);
	/* Frames are there again, but who came first has not been told yet. */
	assert(!vmem_region_discard(region, 0, 64 * PAGE, NULL));
	read_begin(1, pages - 1);
	VMEMT_UNTIL(vmemi_handler_step(manager->handlers[2]) >= 0 &&
		    vmemt_metrics(region).stalls == 2);
	vmemi_handler_step(manager->handlers[1]);
	assert(!vmemt_touch_end(&cpu[0]));
	vmemi_handler_step(manager->handlers[2]);
	assert(!vmemt_touch_end(&cpu[1]) && vmemt_page_is(&got[1], VMEMT_PAGE_ZERO, 0));
	vmemt_end(manager, region);
}

static unsigned all_over(unsigned first, unsigned end)
{
	unsigned over = 0;

	for (unsigned c = first; c < end; c++)
		over += vmemt_touch_over(&cpu[c]);
	return over == end - first;
}

/* More threads wait for slow pages than all handlers have room for. Pages of another VM come all the same,
 * and in the end all of theirs. */
static void flood(void)
{
	struct vmem_region_opts o = { .size = sizeof(o), .gpa = 0, .bytes = 64 * PAGE };
	unsigned char *slow_base;
	vmem_region *slow, *other;

	make_slow(CROWD, false);
	slow = region;
	slow_base = base;
	assert(!vmem_region_alloc(&other, manager, &o));
	for (uint64_t i = 0; i < 64; i++) {
		struct vmemt_page p;

		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(other, i * PAGE, &p, PAGE));
	}
	vmemt_stage(other, 0, 64);
	for (unsigned h = 0; h < HANDLERS; h++)
		manager->host.handler[h].most = ROOM;
	assert(!vmem_manager_thread_start(manager));
	for (unsigned c = 1; c < CROWD; c++)
		read_begin(c, c);
	VMEMT_UNTIL(vmemt_slow_held() >= ROOM && vmemi_host_put_off(&manager->host) >= ROOM);
	region = other;
	base = vmem_region_hva(other);
	for (uint64_t i = 0; i < 64; i++) {
		read_begin(0, i);
		expect_read(0, i);
	}
	region = slow;
	base = slow_base;
	vmemt_slow_hold(0);
	while (!all_over(1, CROWD))
		VMEMT_UNTIL(!vmemt_slow_finish(0, 0) || all_over(1, CROWD));
	for (unsigned c = 1; c < CROWD; c++)
		expect_read(c, c);
	assert(!vmemt_metrics(region).lost);
	assert(!vmem_region_detach(other, VMEM_DETACH_DISCARD));
	end_slow();
}

/* Hundreds of threads that fault on pages of their own and on common ones, at a budget that holds half. */
static void crowd(void)
{
	const uint64_t pages = 8 * CROWD, budget = 8 * MIB;
	struct vmemt_page p;

	manager = make_manager(budget);
	region = vmemt_region(manager, 0, pages, VMEM_REGION_DMA_PINNED);
	base = vmem_region_hva(region);
	assert(!vmem_manager_thread_start(manager));
	for (uint64_t i = 0; i < pages; i++) {
		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(region, i * PAGE, &p, PAGE));
	}
	for (uint64_t round = 0; round < 6; round++) {
		assert(!vmem_region_stage(region, 0, pages * PAGE, NULL));
		for (unsigned c = 0; c < CROWD; c++)
			read_begin(c, (c / 2 * 16 + round * 2 + c % 2) % pages);
		for (unsigned c = 0; c < CROWD; c++)
			expect_read(c, (c / 2 * 16 + round * 2 + c % 2) % pages);
		for (unsigned c = 0; c < CROWD; c++)
			read_begin(c, round);
		for (unsigned c = 0; c < CROWD; c++)
			expect_read(c, round);
	}
	assert(!vmemt_metrics(region).lost);
	vmemt_check(manager, region);
	vmemt_end(manager, region);
}

static void options(void)
{
	struct vmem_manager_opts o = { .size = sizeof(o), .fault_threads = 17 };

	assert(vmem_manager_new(&manager, &o) == -VMEM_EINVAL);
	o.fault_threads = 16;
	assert(!vmem_manager_new(&manager, &o));
	assert(!vmem_manager_thread_start(manager));
	assert(!vmem_manager_free(manager));
}

static long many_processors(void)
{
	return 64;
}

static long one_processor(void)
{
	return 1;
}

static uint32_t loads_at_once(uint32_t handlers, long (*processors)(void))
{
	struct vmem_manager_opts o = { .size = sizeof(o),
				       .fault_threads = handlers,
				       .save_threads = 3 };
	struct vmemi_kernel k = vmemi_kernel_linux;
	uint32_t n;

	k.processors = processors;
	assert(!vmemi_manager_new(&manager, &o, &k));
	n = vmemt_stored_at_once(manager->host.store);
	assert(!vmem_manager_free(manager));
	return n;
}

/* Handlers do not wait for each other's loads, where there are processors for all of them; nor for the savers, for
 * reclaim, or for a call. */
static void none_waits_for_a_context(void)
{
	for (uint32_t handlers = 1; handlers <= VMEMI_HANDLERS_MAX; handlers *= 2)
		assert(loads_at_once(handlers, many_processors) >= handlers + 3 + 2);
	assert(loads_at_once(16, one_processor) == loads_at_once(1, many_processors));
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_catch_signals(NULL);
	for (unsigned i = 0; i < CROWD; i++)
		vmemt_cpu_start(&cpu[i]);
	options();
	none_waits_for_a_context();
	loads_end_where_they_began();
	stopped_and_started();
	detached(false);
	detached(true);
	in_turn();
	flood();
	crowd();
	for (unsigned i = 0; i < CROWD; i++)
		vmemt_cpu_stop(&cpu[i]);
	return 0;
}
