/* SPDX-License-Identifier: BSD-2-Clause */
/* Nearly all of a guest is what the store refuses, and little is free: reclaim looks for more all the time, and time is
 * told it. It neither takes what a guest has only just got, nor tries the rest over and over, nor hopes for long. */
#include "linux/fault/serve.h"
#include "linux/guest.h"
#include "store/store_internal.h"

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define PAGES UINT64_C(4096)
#define CAME (PAGES - 8) /* from here on */
#define TICK_NS VMEMI_AGES_FRESH_NS

static struct vmemi_kernel kernel;
static uint64_t now;
static vmem_manager *manager;
static vmem_region *region;

static uint64_t told_time(void)
{
	return now;
}

static void steps(unsigned count)
{
	while (count--)
		assert(vmem_manager_step(manager, 1000, NULL) >= 0);
}

static void set_free(uint64_t bytes)
{
	assert(!vmem_manager_set_budget(manager,
					vmemt_manager_metrics(manager).used_bytes + bytes));
}

/* Noise, so that less is free than reclaim wants; it has tried all of it. Returns how many pages. */
static uint64_t make(void)
{
	const struct vmem_manager_opts o = { .size = sizeof(o), .budget_bytes = 8 * MIB };
	const struct vmemi_frames *f;
	struct vmemt_page p;
	uint64_t i;

	kernel = vmemi_kernel_linux;
	kernel.clock_ns = told_time;
	now = vmemi_kernel_linux.clock_ns();
	assert(!vmemi_manager_new(&manager, &o, &kernel));
	f = &manager->host.frames;
	region = vmemt_region(manager, 0, PAGES, 0);
	for (i = 0; vmemi_frames_free(f) > manager->floor_bytes + 64 * PAGE; i++) {
		assert(i < CAME);
		vmemt_page_make(&p, VMEMT_PAGE_NOISE, i);
		assert(!vmem_region_write(region, i * PAGE, &p, PAGE));
	}
	VMEMT_UNTIL(vmem_manager_step(manager, 1000, NULL) >= 0 &&
		    vmemt_metrics(region).rejected >= i);
	steps(100);
	assert(vmemt_metrics(region).pages[VMEM_PAGE_RESIDENT] == i);
	set_free(manager->floor_bytes + 64 * PAGE); /* the pool has taken some */
	assert(vmemi_frames_free(f) < atomic_load(&f->reserve_bytes));
	assert(!atomic_load(&manager->host.stuck));
	return i;
}

static void end(void)
{
	vmemt_check(manager, region);
	vmemt_end(manager, region);
}

static bool all_came(void)
{
	for (uint64_t i = CAME; i < PAGES; i++)
		if (vmemt_state(region, i) != VMEM_PAGE_RESIDENT)
			return false;
	return true;
}

/* Nothing else could go. A guest that needs longer to use a page than reclaim to take it would never come on. */
static void what_came_just_now_stays(void)
{
	make();
	for (uint64_t i = CAME; i < PAGES; i++)
		assert(!vmem_region_resolve(region, i * PAGE, 1));
	for (unsigned i = 0; i < 200; i++) {
		assert(all_came());
		steps(1);
	}
	now += TICK_NS;
	VMEMT_UNTIL(vmem_manager_step(manager, 1000, NULL) >= 0 &&
		    vmemt_metrics(region).pages[VMEM_PAGE_STORED] == PAGES - CAME);
	end();
}

/* However often reclaim looks, each is tried again once in many ticks; and then all are. */
static void what_was_refused_is_left_alone(void)
{
	uint64_t noise = make(), rejected = vmemt_metrics(region).rejected;

	steps(500);
	assert(vmemt_metrics(region).rejected - rejected < noise / 16);
	now += TICK_NS;
	steps(500);
	assert(vmemt_metrics(region).rejected - rejected < noise / 8);
	for (unsigned i = 0; i < 1100; i++) {
		now += TICK_NS;
		steps(1);
	}
	assert(vmemt_metrics(region).rejected - rejected >= noise);
	assert(vmemt_metrics(region).pages[VMEM_PAGE_RESIDENT] == noise);
	end();
}

/* There was something to be had a moment ago; what is tried again now and then is no reason to hope. */
static void told_in_time(void)
{
	uint64_t spare = 2 * VMEM_POOL_SEGMENT_BYTES;
	unsigned ticks = 0;

	make();
	assert(!vmem_region_resolve(region, CAME * PAGE, 1));
	set_free(manager->floor_bytes - spare - 8 * PAGE);
	for (; !atomic_load(&manager->host.stuck); now += TICK_NS) {
		assert(ticks++ < 100);
		steps(1);
	}
	assert(vmemt_state(region, CAME) == VMEM_PAGE_STORED && ticks > 10);
	end();
}

static bool goes_on(struct vmemi_hope *hope)
{
	struct vmemi_host *host = &manager->host;

	return vmemi_serve_wait_for_frame(host, atomic_load(&host->frames.sequence), hope);
}

/* Who waits for a frame gives up when a second has gone by and reclaim has looked meanwhile; or much later, if it does
 * not look at all. */
static void given_up(void)
{
	struct vmemi_hope hope = { 0 };
	struct vmemi_host *host;

	make();
	host = &manager->host;
	atomic_store(&host->make_room, NULL); /* nobody looks but this test */
	assert(goes_on(&hope) && !hope.stuck_since_ns);
	vmemi_manager_set_stuck(manager, true);
	assert(goes_on(&hope));
	now += 2000000000;
	assert(goes_on(&hope)); /* only time has gone by */
	vmemi_manager_set_stuck(manager, true);
	assert(goes_on(&hope)); /* that round may have begun before */
	vmemi_manager_set_stuck(manager, true);
	assert(!goes_on(&hope));

	/* It has found something meanwhile: all begins anew. */
	hope = (struct vmemi_hope){ 0 };
	assert(goes_on(&hope));
	now += 900000000;
	vmemi_manager_set_stuck(manager, false);
	vmemi_manager_set_stuck(manager, true);
	now += 900000000;
	vmemi_manager_set_stuck(manager, true);
	vmemi_manager_set_stuck(manager, true);
	assert(goes_on(&hope));

	hope = (struct vmemi_hope){ 0 };
	assert(goes_on(&hope));
	now += 9900000000;
	assert(goes_on(&hope));
	now += 100000000;
	assert(!goes_on(&hope));
	vmemi_manager_set_stuck(manager, false);
	end();
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_KERNEL_FAULTS);
	what_came_just_now_stays();
	what_was_refused_is_left_alone();
	told_in_time();
	given_up();
	return 0;
}
