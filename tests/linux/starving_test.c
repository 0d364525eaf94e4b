/* SPDX-License-Identifier: BSD-2-Clause */
/* When there is no frame: who waits, in which order, who need not, and which calls end with an error
 * instead. Steps that do not reclaim keep it so. */
#include "linux/guest.h"
#include "linux/stored.h"
#include <sched.h>
#include <signal.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define BUDGET (8 * MIB)
#define PAGES 4096
#define CPUS 4
#define STAGED 0  /* the first of 16 pages */
#define STORED 16 /* likewise */
#define NOISE 64  /* from here on */

static struct vmemt_cpu cpu[CPUS];
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static uint64_t filled;             /* the first page of noise that found no frame */
static _Atomic uint64_t clock_skew; /* atomic; ns */
static _Atomic uint32_t told;       /* atomic; times that on_lost was called */

static uint64_t skewed_clock(void)
{
	return vmemi_kernel_linux.clock_ns() + atomic_load(&clock_skew);
}

/* Time flies where nothing can come any more: where one thread does it all, and reclaim is stuck. */
static uint64_t hurried_clock(void)
{
	if (manager && atomic_load(&manager->host.stuck))
		atomic_fetch_add(&clock_skew, 100000000);
	return skewed_clock();
}

static void on_lost(void *context, uint64_t gpa, int error)
{
	assert(!context && gpa == (STORED + 1) * PAGE && error == -VMEM_EIO);
	atomic_fetch_add(&told, 1);
}

static void step_until_over(struct vmemt_cpu *c)
{
	VMEMT_UNTIL(vmem_manager_step(manager, 0, NULL) >= 0 && vmemt_touch_over(c));
}

static void step_some(void)
{
	for (unsigned i = 0; i < 100; i++)
		assert(vmem_manager_step(manager, 0, NULL) >= 0);
}

/* A region with pages in staging and in the store, whose loads are held if @slow; the rest is to be
 * filled. */
static void make(bool slow)
{
	static struct vmemi_kernel kernel;
	struct vmem_manager_opts mo = { .size = sizeof(mo), .budget_bytes = BUDGET };
	struct vmem_region_opts o = { .size = sizeof(o),
				      .bytes = PAGES * PAGE,
				      .fault_around_pages = 1,
				      .on_lost = on_lost };

	kernel = vmemi_kernel_linux;
	kernel.clock_ns = skewed_clock;
	atomic_store(&told, 0);
	assert(!vmemi_manager_new(&manager, &mo, &kernel));
	vmemt_catch_signals(manager);
	assert(!vmemt_alloc(&region, manager, &o));
	base = vmem_region_hva(region);
	for (unsigned i = 0; i < CPUS; i++)
		cpu[i].region = region;
	for (uint64_t i = 0; i < STORED + 16; i++) {
		struct vmemt_page p;

		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(region, i * PAGE, &p, PAGE));
	}
	vmemt_store(region, STORED, 16);
	vmemt_stage(region, STAGED, 16);
	if (slow)
		vmemt_slow_start(manager->host.store);
}

/* Pages of noise, until the one that cpu[0] touches finds no frame. */
static void fill(void)
{
	static struct vmemt_page p;

	for (filled = NOISE; !vmemt_metrics(region).stalls; filled++) {
		assert(filled < PAGES);
		vmemt_page_make(&p, VMEMT_PAGE_NOISE, filled);
		vmemt_touch_begin(&cpu[0], VMEMT_WRITE, base + filled * PAGE, &p, PAGE);
		VMEMT_UNTIL(vmem_manager_step(manager, 0, NULL) >= 0 &&
			    (vmemt_touch_over(&cpu[0]) || vmemt_metrics(region).stalls));
		if (vmemt_touch_over(&cpu[0]))
			assert(!vmemt_touch_end(&cpu[0]));
	}
	filled--;
	step_some();
	assert(!vmemt_touch_over(&cpu[0]));
}

static void make_room(void)
{
	assert(!vmem_region_discard(region, NOISE * PAGE, 64 * PAGE, NULL));
}

static void end(bool slow)
{
	step_until_over(&cpu[0]);
	assert(!vmemt_touch_end(&cpu[0]));
	if (slow)
		vmemt_slow_stop();
	vmemt_end(manager, region);
}

/* Who touches a staged page gets its own frame, and does not wait behind others. */
static void staged_need_not_wait(void)
{
	struct vmemt_page got, want;
	uint64_t used;

	make(false);
	fill();
	used = vmemt_manager_metrics(manager).used_bytes;
	for (uint64_t i = STAGED; i < STAGED + 16; i++) {
		vmemt_touch_begin(&cpu[1], VMEMT_READ, base + i * PAGE, &got, PAGE);
		step_until_over(&cpu[1]);
		assert(!vmemt_touch_end(&cpu[1]));
		vmemt_make(&want, i, 1);
		assert(!memcmp(&got, &want, PAGE));
	}
	assert(vmemt_manager_metrics(manager).used_bytes == used);
	assert(!vmemt_touch_over(&cpu[0]));
	/* Others do. */
	vmemt_touch_begin(&cpu[1], VMEMT_READ, base + STORED * PAGE, &got, PAGE);
	VMEMT_UNTIL(vmem_manager_step(manager, 0, NULL) >= 0 && vmemt_metrics(region).stalls == 2);
	make_room();
	step_until_over(&cpu[1]);
	assert(!vmemt_touch_end(&cpu[1]));
	end(false);
}

/* Who waits for another's slow load does not keep frames from those behind. */
static void busy_page_in_the_queue(void)
{
	static struct vmemt_page got[CPUS], want;

	make(true);
	vmemt_touch_begin(&cpu[1], VMEMT_READ, base + STORED * PAGE, &got[1], PAGE);
	VMEMT_UNTIL(vmem_manager_step(manager, 0, NULL) >= 0 && vmemt_slow_held() == 1);
	fill();
	vmemt_touch_begin(&cpu[2], VMEMT_READ, base + STORED * PAGE, &got[2], PAGE);
	VMEMT_UNTIL(vmem_manager_step(manager, 0, NULL) >= 0 &&
		    vmemi_host_put_off(&manager->host) == 3);
	vmemt_touch_begin(&cpu[3], VMEMT_READ, base + (PAGES - 1) * PAGE, &got[3], PAGE);
	VMEMT_UNTIL(vmem_manager_step(manager, 0, NULL) >= 0 &&
		    vmemi_host_put_off(&manager->host) == 4);
	make_room();
	step_until_over(&cpu[3]);
	assert(!vmemt_touch_end(&cpu[3]) && vmemt_page_is(&got[3], VMEMT_PAGE_ZERO, 0));
	step_some();
	assert(!vmemt_touch_over(&cpu[1]) && !vmemt_touch_over(&cpu[2]));
	assert(!vmemt_slow_finish(0, 0));
	vmemt_make(&want, STORED, 1);
	for (unsigned i = 1; i < 3; i++) {
		step_until_over(&cpu[i]);
		assert(!vmemt_touch_end(&cpu[i]) && !memcmp(&got[i], &want, PAGE));
	}
	end(true);
}

/* The time that a fault waited for a frame is not its load's: only a load that itself takes too long is
 * given up. */
static void slow_load_after_a_stall(void)
{
	static struct vmemt_page got, want;
	const uint64_t minute = UINT64_C(60000000000);

	make(true);
	fill();
	vmemt_touch_begin(&cpu[1], VMEMT_READ, base + STORED * PAGE, &got, PAGE);
	VMEMT_UNTIL(vmem_manager_step(manager, 0, NULL) >= 0 && vmemt_metrics(region).stalls == 2);
	atomic_fetch_add(&clock_skew, minute);
	step_some();
	make_room();
	VMEMT_UNTIL(vmem_manager_step(manager, 0, NULL) >= 0 && vmemt_slow_held() == 1);
	step_some();
	assert(!atomic_load(&told) && vmemt_state(region, STORED) == VMEM_PAGE_ARRIVING);
	assert(!vmemt_slow_finish(0, 0));
	step_until_over(&cpu[1]);
	vmemt_make(&want, STORED, 1);
	assert(!vmemt_touch_end(&cpu[1]) && !memcmp(&got, &want, PAGE));

	vmemt_touch_begin(&cpu[1], VMEMT_READ, base + (STORED + 1) * PAGE, &got, PAGE);
	VMEMT_UNTIL(vmem_manager_step(manager, 0, NULL) >= 0 && vmemt_slow_held() == 1);
	atomic_fetch_add(&clock_skew, minute);
	step_until_over(&cpu[1]);
	assert(vmemt_touch_end(&cpu[1]) == SIGBUS && cpu[1].answer == -VMEM_EIO);
	assert(atomic_load(&told) == 1);
	assert(!vmemt_slow_finish(0, 0));
	step_some();
	end(true);
}

/* --- Calls --- */

struct pinning {
	pthread_t thread;
	uint64_t first, count;
	int error;
};

static void *pin(void *argument)
{
	struct pinning *p = argument;

	p->error = vmem_region_pin(region, p->first * PAGE, p->count * PAGE);
	return NULL;
}

/* Two at once, each of which would fit: they do not wait for each other. */
static void pin_two(uint64_t first, uint64_t count)
{
	struct pinning p[2] = { { .first = first, .count = count },
				{ .first = first + count, .count = count } };
	uint64_t pinned = vmemt_metrics(region).pinned_pages;

	for (unsigned i = 0; i < 2; i++)
		assert(!pthread_create(&p[i].thread, NULL, pin, &p[i]));
	for (unsigned i = 0; i < 2; i++) {
		assert(!pthread_join(p[i].thread, NULL));
		assert(!p[i].error || p[i].error == -VMEM_ENOSPC);
		pinned += p[i].error ? 0 : count;
	}
	assert(p[0].error || p[1].error);
	assert(vmemt_metrics(region).pinned_pages == pinned);
	for (unsigned i = 0; i < 2; i++)
		if (!p[i].error)
			assert(!vmem_region_unpin(region, p[i].first * PAGE, count * PAGE));
}

/* Noise fills the budget, and a thousand pages that compress are in the store: whoever wants more of them
 * in place than there are frames is told so, and keeps nothing. */
static void calls_end(bool threads)
{
	struct vmem_manager_opts mo = { .size = sizeof(mo), .budget_bytes = BUDGET };
	struct vmemi_kernel kernel = vmemi_kernel_linux;
	const uint64_t stored = 1000;
	struct vmemt_page p;
	uint64_t i, pinned;
	int error = 0;

	if (!threads)
		kernel.clock_ns = hurried_clock;
	manager = NULL;
	assert(!vmemi_manager_new(&manager, &mo, &kernel));
	region = vmemt_region(manager, 0, PAGES, 0);
	if (threads)
		assert(!vmem_manager_thread_start(manager));
	for (i = 0; i < PAGES && !error; i++) {
		vmemt_page_make(&p, i < stored ? VMEMT_PAGE_TEXT : VMEMT_PAGE_NOISE, i);
		error = vmem_region_write(region, i * PAGE, &p, PAGE);
	}
	assert(error == -VMEM_ENOSPC && i > stored + 500);
	if (threads)
		pin_two(stored / 2, stored / 4);
	for (pinned = 0; !(error = vmem_region_pin(region, pinned * PAGE, PAGE)); pinned++)
		assert(pinned < stored);
	assert(error == -VMEM_ENOSPC);
	assert(vmem_region_resolve(region, 990 * PAGE, 1) == -VMEM_ENOSPC);
	assert(vmem_region_write(region, 991 * PAGE, &p, PAGE) == -VMEM_ENOSPC);
	assert(vmem_region_pin(region, 0, (pinned + 20) * PAGE) == -VMEM_ENOSPC);
	assert(vmemt_metrics(region).pinned_pages == pinned);
	assert(!vmem_region_unpin(region, 0, pinned * PAGE));
	assert(vmem_region_unpin(region, 0, PAGE) == -VMEM_EINVAL);
	/* It goes on when there is room again. */
	assert(!vmem_region_discard(region, stored * PAGE, 256 * PAGE, NULL));
	assert(!vmem_region_resolve(region, 990 * PAGE, 1));
	for (i = 0; i < stored; i++) {
		assert(!vmem_region_read(region, i * PAGE, &p, PAGE));
		assert(vmemt_page_is(&p, VMEMT_PAGE_TEXT, i));
	}
	vmemt_end(manager, region);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_POISON |
		   VMEM_KERNEL_KERNEL_FAULTS);
	for (unsigned i = 0; i < CPUS; i++)
		vmemt_cpu_start(&cpu[i]);
	staged_need_not_wait();
	busy_page_in_the_queue();
	slow_load_after_a_stall();
	calls_end(false);
	calls_end(true);
	for (unsigned i = 0; i < CPUS; i++)
		vmemt_cpu_stop(&cpu[i]);
	return 0;
}
