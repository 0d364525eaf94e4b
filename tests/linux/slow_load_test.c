/* SPDX-License-Identifier: BSD-2-Clause */
/* Loads that take time, as from a device: whoever touches such a page waits for it, and nobody else;
 * loads that fail or take too long end in an error; and none leaves a buffer or a ref behind, however it
 * ends. */
#include "linux/guest.h"
#include "linux/stored.h"
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define MANY 100 /* more than slow loads are made at a time */

static struct vmemt_cpu cpu[MANY];
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static struct vmemt_losses told;

struct how {
	uint64_t budget;
	uint64_t pages;
	uint32_t way;
	bool threads;
	uint64_t deadline_ms; /* 0: none to speak of */
};

/* A region whose pages are all stored, with loads that are held from now on. */
static void make(struct how how)
{
	struct vmem_region_opts o = {
		.size = sizeof(o),
		.bytes = how.pages * PAGE,
		.fault_way = how.way,
		.fault_around_pages = 1,
		.fault_deadline_ms = how.deadline_ms ? how.deadline_ms : 3600000,
		.context = &told,
		.on_lost = vmemt_on_lost,
	};

	atomic_store(&told.count, 0);
	manager = vmemt_manager(how.budget);
	vmemt_catch_signals(manager);
	assert(!vmemt_alloc(&region, manager, &o));
	base = vmem_region_hva(region);
	for (uint64_t i = 0; i < how.pages; i++) {
		struct vmemt_page p;

		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(region, i * PAGE, &p, PAGE));
		if (how.budget && i % 64 == 63)
			vmemt_store(region, i - 63, 64);
	}
	if (!how.budget)
		vmemt_store(region, 0, how.pages);
	if (how.threads)
		assert(!vmem_manager_thread_start(manager));
	for (unsigned i = 0; i < MANY; i++)
		cpu[i].region = region;
	vmemt_slow_start(manager->host.store);
}

/* Nothing may be left of loads: no buffer, no claim, no ref but those of pages that are stored. */
static void expect_nothing_left(void)
{
	struct vmem_region_metrics m;

	vmem_manager_thread_stop(manager);
	m = vmemt_metrics(region);
	assert(!atomic_load(&manager->host.buffer_busy));
	assert(!m.pages[VMEM_PAGE_ARRIVING]);
	assert(vmemt_account(region).pages == m.pages[VMEM_PAGE_STORED] + m.pages[VMEM_PAGE_CLEAN]);
	assert(!vmemi_region_check(region));
	vmemt_stored_check(manager->host.store);
}

static void end(void)
{
	expect_nothing_left();
	vmemt_slow_stop();
	vmemt_end(manager, region);
}

static void read_begin(unsigned c, uint64_t page, struct vmemt_page *into)
{
	vmemt_touch_begin(&cpu[c], VMEMT_READ, base + page * PAGE, into, PAGE);
}

static void expect_read(unsigned c, uint64_t page, const struct vmemt_page *got)
{
	struct vmemt_page want;

	assert(!vmemt_touch_end(&cpu[c]));
	vmemt_make(&want, page, 1);
	assert(!memcmp(got, &want, PAGE));
}

static void finish(uint32_t nth, int result)
{
	assert(!vmemt_slow_finish(nth, result));
}

/* Others go on while a load is under way; all who wait for it are answered at its end. */
static void nobody_else_waits(void)
{
	static struct vmemt_page got[4];

	make((struct how){ .pages = 32, .threads = true });
	read_begin(0, 3, &got[0]);
	VMEMT_UNTIL(vmemt_slow_held() == 1);
	read_begin(1, 3, &got[1]);
	read_begin(2, 9, &got[2]);
	VMEMT_UNTIL(vmemt_slow_held() == 2);
	assert(vmemt_state(region, 3) == VMEM_PAGE_ARRIVING);
	vmemt_slow_hold(0);
	for (uint64_t i = 16; i < 32; i++)
		assert(vmemt_is(&cpu[3], base, i, 1));
	vmemt_put(&cpu[3], base, 20, 2);
	vmemt_stage(region, 20, 1);
	assert(vmemt_is(&cpu[3], base, 20, 2));
	assert(!vmem_region_discard(region, 21 * PAGE, PAGE, NULL));
	assert(vmemt_is(&cpu[3], base, 21, 0));
	assert(!vmemt_touch_over(&cpu[0]) && !vmemt_touch_over(&cpu[1]));
	finish(1, 0); /* the younger one first */
	expect_read(2, 9, &got[2]);
	assert(!vmemt_touch_over(&cpu[0]));
	finish(0, 0);
	expect_read(0, 3, &got[0]);
	expect_read(1, 3, &got[1]);
	assert(!atomic_load(&told.count));
	end();
}

static void expect_lost(unsigned c, int error)
{
	assert(vmemt_touch_end(&cpu[c]) == SIGBUS);
	assert(cpu[c].answer == -VMEM_EIO);
	assert(atomic_load(&told.error) == error);
}

static void failed(uint32_t way)
{
	static struct vmemt_page got;

	make((struct how){ .pages = 8, .threads = true, .way = way });
	for (unsigned i = 0; i < 4; i++) {
		read_begin(0, i, &got);
		VMEMT_UNTIL(vmemt_slow_held() == 1);
		finish(0, i % 2 ? -VMEM_EBADMSG : -VMEM_EIO);
		expect_lost(0, i % 2 ? -VMEM_EBADMSG : -VMEM_EIO);
		assert(vmemt_state(region, i) == VMEM_PAGE_POISONED);
		assert(atomic_load(&told.count) == i + 1 && vmemt_metrics(region).lost == i + 1);
	}
	vmemt_slow_hold(0);
	assert(vmemt_is(&cpu[1], base, 5, 1));
	assert(!vmem_region_discard(region, 0, 4 * PAGE, NULL));
	assert(vmemt_is(&cpu[0], base, 1, 0));
	end();
}

/* Too late: the page is an error when its time is up. The load's end, whichever it is, finds nobody. */
static void too_late(int result, bool healed_before)
{
	static struct vmemt_page got;

	make((struct how){ .pages = 8, .threads = true, .deadline_ms = 20 });
	read_begin(0, 2, &got);
	expect_lost(0, -VMEM_EIO);
	assert(vmemt_slow_held() == 1 && atomic_load(&told.count) == 1);
	assert(vmemt_state(region, 2) == VMEM_PAGE_POISONED);
	if (healed_before) {
		assert(!vmem_region_discard(region, 2 * PAGE, PAGE, NULL));
		vmemt_put(&cpu[0], base, 2, 9);
	}
	finish(0, result);
	VMEMT_UNTIL(!atomic_load(&manager->host.buffer_busy));
	assert(atomic_load(&told.count) == 1 && vmemt_metrics(region).lost == 1);
	if (!healed_before)
		assert(!vmem_region_discard(region, 2 * PAGE, PAGE, NULL));
	assert(vmemt_is(&cpu[0], base, 2, healed_before ? 9 : 0));
	assert(vmemt_account(region).pages == 7);
	end();
}

/* More loads at once than are made, and more faults than that behind them. */
static void many_at_once(uint32_t way)
{
	static struct vmemt_page got[MANY];
	uint64_t deadline;
	unsigned over;

	make((struct how){ .pages = MANY, .threads = true, .way = way });
	for (unsigned i = 0; i < MANY; i++)
		read_begin(i, i, &got[i]);
	VMEMT_UNTIL(vmemt_slow_held() == VMEMI_HANDLER_LOADS);
	deadline = vmemt_now_ms() + VMEMT_DEADLINE_MS;
	do {
		vmemt_slow_finish(vmemt_slow_held() / 2, 0);
		over = 0;
		for (unsigned i = 0; i < MANY; i++)
			over += vmemt_touch_over(&cpu[i]);
		VMEMT_NOT_AFTER(deadline, "all loads are over");
	} while (over < MANY);
	for (unsigned i = 0; i < MANY; i++)
		expect_read(i, i, &got[i]);
	assert(!atomic_load(&told.count));
	end();
}

/* As many loads hang as are made: those that are quick go on. */
static void hung(uint32_t way)
{
	static struct vmemt_page got[MANY];
	const unsigned hanging = MANY - 20;

	make((struct how){ .pages = MANY, .threads = true, .way = way });
	for (unsigned i = 0; i < VMEMI_HANDLER_LOADS; i++)
		read_begin(i, i, &got[i]);
	VMEMT_UNTIL(vmemt_slow_held() == VMEMI_HANDLER_LOADS);
	for (unsigned i = VMEMI_HANDLER_LOADS; i < hanging; i++)
		read_begin(i, i, &got[i]);
	if (way == VMEM_FAULT_THREAD)
		VMEMT_UNTIL(vmemi_host_put_off(&manager->host) == hanging);
	vmemt_slow_hold(0);
	for (unsigned i = VMEMI_HANDLER_LOADS; i < hanging; i++)
		expect_read(i, i, &got[i]);
	for (unsigned i = hanging; i < MANY; i++)
		assert(vmemt_is(&cpu[i], base, i, 1));
	assert(vmemt_slow_held() == VMEMI_HANDLER_LOADS);
	for (unsigned i = 0; i < VMEMI_HANDLER_LOADS; i++)
		finish(0, 0);
	for (unsigned i = 0; i < VMEMI_HANDLER_LOADS; i++)
		expect_read(i, i, &got[i]);
	end();
}

/* Calls of the VMM wait for slow loads; with threads, and by doing the work themselves. */
static void by_call(bool threads, uint32_t way)
{
	static struct vmemt_page got, want;

	make((struct how){ .pages = 64, .threads = threads, .way = way });
	vmemt_slow_at_poll(1);
	assert(!vmem_region_resolve(region, 0, 0));
	assert(!vmem_region_resolve(region, PAGE, 1));
	assert(!vmem_region_pin(region, 2 * PAGE, 10 * PAGE));
	assert(!vmem_region_unpin(region, 2 * PAGE, 10 * PAGE));
	for (uint64_t i = 0; i < 20; i++) {
		assert(!vmem_region_read(region, i * PAGE, &got, PAGE));
		vmemt_make(&want, i, 1);
		assert(!memcmp(&got, &want, PAGE));
	}
	vmemt_make(&want, 30, 7);
	assert(!vmem_region_write(region, 30 * PAGE, &want, PAGE));
	assert(!vmem_region_read(region, 30 * PAGE, &got, PAGE));
	assert(!memcmp(&got, &want, PAGE));
	assert(!vmem_region_discard(region, 40 * PAGE, 10 * PAGE, NULL));
	assert(!vmem_region_read(region, 40 * PAGE, &got, PAGE) && !got.bytes[99]);
	assert(!vmemt_slow_held());
	end();
}

/* One who serves everything alone discards and reads pages whose loads are under way. */
static void alone_with_loads(void)
{
	static struct vmemt_page got[2], page;

	make((struct how){ .pages = 8 });
	read_begin(0, 0, &got[0]);
	read_begin(1, 1, &got[1]);
	VMEMT_UNTIL(vmem_manager_step(manager, 100, NULL) >= 0 && vmemt_slow_held() == 2);
	vmemt_slow_at_poll(1);
	assert(!vmem_region_read(region, 0, &page, PAGE));
	expect_read(0, 0, &page);
	assert(!vmem_region_discard(region, PAGE, PAGE, NULL));
	VMEMT_UNTIL(vmem_manager_step(manager, 100, NULL) >= 0 && vmemt_touch_over(&cpu[1]));
	assert(!vmemt_touch_end(&cpu[1])); /* it came just before or just after */
	assert(!vmem_region_read(region, PAGE, &page, PAGE) && !page.bytes[0]);
	end();
}

/* Everything comes back although neither the loads are quick nor the budget allows it. */
static void restored(bool threads)
{
	const uint64_t pages = 2048;

	make((struct how){ .budget = 8 * MIB, .pages = pages, .threads = threads });
	vmemt_slow_at_poll(1);
	vmemt_restore(region, pages);
	assert(!atomic_load(&manager->host.buffer_busy));
	vmem_manager_thread_stop(manager);
	vmemt_slow_stop();
	assert(!vmem_manager_free(manager));
}

/* The region goes away under a load, and under somebody who waits for it: who finds no memory any more,
 * and not zeros. The buffer comes back, and the store forgets the VM. */
static void detached(bool threads)
{
	static struct vmemt_page got;
	struct vmem_store_account a = { .size = sizeof(a) };
	struct vmemt_detaching d;

	make((struct how){ .pages = 8, .threads = threads });
	read_begin(0, 2, &got);
	VMEMT_UNTIL((threads || vmem_manager_step(manager, 0, NULL) >= 0) &&
		    vmemt_slow_held() == 1);
	cpu[0].region = NULL;
	vmemt_detach_begin(&d, region);
	VMEMT_UNTIL(!atomic_load(&manager->host.regions[0]));
	assert(!atomic_load(&d.over)); /* the load writes into our buffer and needs its ref */
	finish(0, 0);
	vmemt_detach_end(&d);
	assert(vmemt_touch_end(&cpu[0]) == SIGSEGV);
	assert(!atomic_load(&manager->host.buffer_busy));
	assert(!vmem_manager_get_account(manager, &a) && !a.pages);
	vmem_manager_thread_stop(manager);
	vmemt_slow_stop();
	assert(!vmem_manager_free(manager));
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_POISON | VMEM_KERNEL_SIGBUS | VMEM_KERNEL_MOVE | VMEM_KERNEL_WP |
		   VMEM_KERNEL_KERNEL_FAULTS);
	for (unsigned i = 0; i < MANY; i++)
		vmemt_cpu_start(&cpu[i]);
	nobody_else_waits();
	failed(VMEM_FAULT_THREAD);
	failed(VMEM_FAULT_SIGBUS);
	too_late(0, false);
	too_late(-VMEM_EIO, false);
	too_late(0, true);
	many_at_once(VMEM_FAULT_THREAD);
	many_at_once(VMEM_FAULT_SIGBUS);
	hung(VMEM_FAULT_THREAD);
	hung(VMEM_FAULT_SIGBUS);
	by_call(true, VMEM_FAULT_THREAD);
	by_call(true, VMEM_FAULT_SIGBUS);
	by_call(false, VMEM_FAULT_THREAD);
	alone_with_loads();
	restored(true);
	restored(false);
	detached(true);
	detached(false);
	for (unsigned i = 0; i < MANY; i++)
		vmemt_cpu_stop(&cpu[i]);
	return 0;
}
