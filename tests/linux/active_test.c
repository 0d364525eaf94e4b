/* SPDX-License-Identifier: BSD-2-Clause */
/* How much of a region is in use, by samples: each page that is touched counts, whenever that is; pages that say
 * nothing do not; nobody brings them unasked; and the interval holds. But for one test no thread of the library
 * runs: samples begin when they are told to, and pages are used by vmem_region_resolve(). */
#include "linux/failing_kernel.h"
#include "linux/guest.h"
#include "linux/kernel/uffd_abi.h"
#include "support/rng.h"
#include "track/track_internal.h"
#include <vmem/snapshot.h>

#define PAGE VMEM_PAGE_SIZE
#define PAGES UINT64_C(8192)
#define MOST 128 /* a 64th */
#define PERIOD_NS UINT64_C(30000000000)

static vmem_manager *manager;
static vmem_region *region;
static struct vmemi_active *active;
static uint64_t now_ns, seed;

static void use(uint64_t first, uint64_t count)
{
	for (uint64_t page = first; page < first + count; page++)
		assert(!vmem_region_resolve(region, page * PAGE, 1));
}

static void make_on(const struct vmemi_kernel *k, uint32_t around)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .bytes = PAGES * PAGE,
				      .fault_around_pages = around,
				      .active_samples = MOST };

	assert(!vmemi_manager_new(&manager, NULL, k));
	assert(!vmemt_alloc(&region, manager, &o));
	active = &region->ages.active;
	assert(active->period_ns == PERIOD_NS);
	active->begun_ns = now_ns = manager->host.k->clock_ns();
	region->ages.track->sampler.random = vmemt_rand(&seed);
	use(0, PAGES);
}

static void make(void)
{
	make_on(&vmemi_kernel_linux, 1);
}

static void end(void)
{
	vmemt_check(manager, region);
	vmemt_end(manager, region);
}

static void tick(uint64_t after_ns)
{
	now_ns += after_ns;
	vmemi_reclaim_enter(manager->reclaim);
	vmemi_tidy(manager->reclaim, region, 0, PAGES);
	vmemi_ages_harvest(region);
	vmemi_sample_tick(manager->reclaim, region, now_ns);
	vmemi_reclaim_leave(manager->reclaim);
}

static bool is_away(uint64_t page)
{
	enum vmem_page_state state = vmemt_state(region, page);

	return state == VMEM_PAGE_STAGED || state == VMEM_PAGE_STORED;
}

/* Pages of the sample in [first, first + count). */
static uint64_t sampled_in(uint64_t first, uint64_t count)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < active->count; i++)
		n += active->pages[i] >= first && active->pages[i] < first + count;
	return n;
}

static void the_share_that_is_touched(void)
{
	struct vmem_region_metrics m;
	uint64_t hot = 0;

	make();
	tick(PERIOD_NS - 1);
	assert(!vmemt_metrics(region).sampled && !active->count);
	tick(1);
	assert(active->count && active->count <= MOST);
	assert(vmemt_metrics(region).sampled == active->count);
	for (uint32_t i = 0; i < active->count; i++)
		assert(is_away(active->pages[i]));
	assert(vmemt_metrics(region).active_samples == 0);
	hot = sampled_in(0, PAGES / 4);
	use(0, PAGES / 4);
	assert(sampled_in(0, PAGES / 4) == hot);
	m = vmemt_metrics(region);
	assert(m.active_bytes == 0); /* nothing is known before the first period is over */
	tick(PERIOD_NS);
	m = vmemt_metrics(region);
	assert(m.sampled_touched == hot);
	assert(m.active_samples >= MOST / 2 && m.active_samples <= MOST);
	assert(m.active_now_bytes <= PAGES * PAGE * hot / m.active_samples);
	assert(m.active_now_bytes >= PAGES * PAGE / 10 * 9 * hot / m.active_samples);
	assert(m.active_low_bytes < m.active_now_bytes && m.active_now_bytes < m.active_high_bytes);
	assert(m.active_bytes > m.active_now_bytes - PAGE - PAGES * PAGE / 1000 &&
	       m.active_bytes < m.active_now_bytes + PAGE + PAGES * PAGE / 1000);
	assert(m.sampled_ns);
	end();
}

/* Over many samples, what is so is within the interval nearly always. (By chance this fails once in a billion.) */
static void the_interval_holds(void)
{
	unsigned held = 0;

	make();
	for (unsigned i = 0; i < 30; i++) {
		struct vmem_region_metrics m;

		tick(PERIOD_NS);
		use(0, PAGES / 2);
		tick(PERIOD_NS);
		use(PAGES / 2, PAGES / 2); /* none stays away, so that half is half */
		use(0, PAGES / 2);
		m = vmemt_metrics(region);
		held += m.active_low_bytes <= PAGES / 2 * PAGE &&
			PAGES / 2 * PAGE <= m.active_high_bytes + PAGES * PAGE / 64;
	}
	assert(held >= 20);
	end();
}

/* All of it, then nothing. What was touched in this period counts at once. */
static void up_fast_and_down_slowly(void)
{
	uint64_t before;

	make();
	tick(PERIOD_NS);
	tick(PERIOD_NS);
	assert(vmemt_metrics(region).active_bytes == 0 && vmemt_metrics(region).active_samples);
	use(0, PAGES);
	tick(1);
	before = vmemt_metrics(region).active_bytes;
	assert(before > PAGES * PAGE / 5 * 2 && vmemt_metrics(region).active_now_bytes == 0);
	for (unsigned i = 0; i < 24; i++) {
		tick(PERIOD_NS);
		use(0, PAGES);
	}
	tick(PERIOD_NS);
	before = vmemt_metrics(region).active_bytes;
	assert(before > PAGES * PAGE / 20 * 17);
	for (unsigned i = 0; i < 3; i++) {
		tick(PERIOD_NS);
		assert(vmemt_metrics(region).active_now_bytes == 0);
		assert(vmemt_metrics(region).active_bytes > before / 4 * 3);
		before = vmemt_metrics(region).active_bytes;
	}
	end();
}

/* What came back unasked, was discarded or could not go says nothing. What was saved says it later. */
static void pages_that_say_nothing(void)
{
	uint64_t samples, third, page;

	make();
	tick(PERIOD_NS);
	tick(PERIOD_NS);
	samples = vmemt_metrics(region).active_samples;
	assert(samples);
	third = active->count / 3;
	assert(third >= 8);
	for (uint32_t i = 0; i < active->count; i++) {
		page = active->pages[i];
		if (i < third)
			assert(!vmem_region_fetch(region, page * PAGE, PAGE, NULL));
		else if (i < 2 * third)
			assert(!vmem_region_discard(region, page * PAGE, PAGE, NULL));
		else
			assert(!vmem_region_store(region, page * PAGE, PAGE, NULL));
	}
	samples = active->count - 2 * third;
	page = active->pages[active->count - 1];
	use(page, 1);
	tick(PERIOD_NS);
	assert(vmemt_metrics(region).active_samples == samples);
	assert(vmemt_metrics(region).active_now_bytes >= PAGES * PAGE / 10 * 9 / samples);
	assert(vmemt_metrics(region).active_now_bytes <= PAGES * PAGE / samples);
	/* Those of a sample that is over do not count in the next one. */
	for (page = 0; page < PAGES; page++)
		if (vmemt_state(region, page) == VMEM_PAGE_STORED)
			use(page, 1);
	tick(PERIOD_NS);
	assert(vmemt_metrics(region).active_now_bytes == 0);
	/* Nothing goes: the last answer stays. */
	use(0, PAGES);
	assert(!vmem_region_pin(region, 0, PAGES * PAGE));
	tick(PERIOD_NS);
	samples = vmemt_metrics(region).active_samples;
	third = vmemt_metrics(region).sampled;
	tick(PERIOD_NS);
	assert(vmemt_metrics(region).sampled == third);
	assert(vmemt_metrics(region).active_samples == samples);
	assert(!vmem_region_unpin(region, 0, PAGES * PAGE));
	end();
}

static int read_source(void *context, uint64_t gpa, void *buffer)
{
	(void)context;
	vmemt_make(buffer, gpa / PAGE, 1);
	return 0;
}

/* What the source alone has stays: to see whether it is used would cost a load. */
static void what_the_source_has_stays(void)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = VMEM_REGION_FROM_SOURCE | VMEM_REGION_SOURCE_STAYS,
				      .bytes = PAGES * PAGE,
				      .fault_around_pages = 1,
				      .read_source = read_source,
				      .active_samples = MOST };

	manager = vmemt_manager(0);
	assert(!vmemt_alloc(&region, manager, &o));
	active = &region->ages.active;
	active->begun_ns = now_ns = manager->host.k->clock_ns();
	for (uint64_t page = 0; page < PAGES; page++)
		assert(!vmem_region_resolve(region, page * PAGE, page % 4 == 0));
	assert(vmemt_metrics(region).pages[VMEM_PAGE_CLEAN]);
	tick(PERIOD_NS);
	assert(active->count && vmemt_metrics(region).sampled);
	assert(vmemt_metrics(region).sampled < active->count);
	assert(vmemt_metrics(region).pages[VMEM_PAGE_SOURCE] == 0);
	for (uint32_t i = 0; i < active->count; i++)
		assert(is_away(active->pages[i]) == (active->pages[i] % 4 == 0));
	end();
}

/* They were no victims: what becomes of them says nothing of the classes of pages. */
static void no_victims(void)
{
	make();
	for (unsigned i = 0; i < 6; i++) {
		tick(PERIOD_NS);
		if (i % 2)
			use(0, PAGES);
		else
			assert(!vmem_region_store(region, active->pages[0] * PAGE, PAGE, NULL));
	}
	tick(1);
	for (unsigned i = 0; i < VMEMI_CLASSES; i++)
		assert(!region->ages.returns[i].ended);
	end();
}

static void a_quiet_region_is_left_alone(void)
{
	make();
	assert(!vmem_region_quiesce(region));
	tick(PERIOD_NS);
	assert(!vmemt_metrics(region).sampled);
	assert(!vmem_region_resume(region));
	tick(1);
	assert(vmemt_metrics(region).sampled);
	end();
}

/* A page that is touched before reclaim has seen that it went. */
static uint64_t gone; /* page + 1 */

static bool touch_the_last_one(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	uint64_t page = gone;

	(void)fd;
	if (call != VMEMT_K_MOVE)
		return false;
	gone = 0;
	if (page)
		use(page - 1, 1);
	gone = (((struct vmemi_uffdio_move *)argument)->src - (uintptr_t)region->base) / PAGE + 1;
	*ret_result = 0;
	return false;
}

static void touched_at_once(void)
{
	uint64_t count;

	vmemt_kernel_reset();
	make_on(&vmemt_kernel_table, 1);
	vmemt_kernel.before = touch_the_last_one;
	gone = 0;
	tick(PERIOD_NS);
	vmemt_kernel.before = NULL;
	count = active->count;
	assert(count && is_away(gone - 1));
	tick(PERIOD_NS);
	assert(vmemt_metrics(region).sampled_touched == count - 1);
	assert(vmemt_metrics(region).active_samples == count);
	end();
}

/* Fault-around passes over them. */
static void neighbours_stay(void)
{
	struct vmemt_cpu cpu;
	unsigned char *base;
	uint64_t sampled, p, first;

	make_on(&vmemi_kernel_linux, 64);
	base = vmem_region_hva(region);
	vmemt_cpu_start(&cpu);
	cpu.region = region;
	tick(PERIOD_NS);
	active->period_ns = UINT64_MAX; /* steps have a clock of their own */
	p = active->pages[active->count / 2];
	first = p / 64 * 64;
	assert(!vmem_region_stage(region, first * PAGE, 64 * PAGE, NULL));
	sampled = sampled_in(first, 64);
	for (uint64_t page = first; page < first + 64; page++) {
		uint64_t word;

		if (!vmemi_active_has(active, page))
			assert(!vmemt_touch_step(&cpu, VMEMT_READ, base + page * PAGE, &word,
						 sizeof(word), manager));
	}
	assert(vmemt_metrics(region).prefetched); /* else this shows nothing */
	for (uint64_t page = first; page < first + 64; page++)
		sampled -= is_away(page);
	assert(sampled == 0);
	vmemt_cpu_stop(&cpu);
	end();
}

/* A guest that runs, and all threads. */
static void a_running_guest(void)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .bytes = PAGES * PAGE,
				      .active_samples = MOST,
				      .active_period_ms = 100 };
	struct vmemt_cpu cpu;
	struct vmem_region_metrics m = { 0 };
	unsigned char *base;

	manager = vmemt_manager(0);
	assert(!vmem_manager_thread_start(manager));
	assert(!vmemt_alloc(&region, manager, &o));
	base = vmem_region_hva(region);
	vmemt_cpu_start(&cpu);
	cpu.region = region;
	for (uint64_t page = 0; page < PAGES; page++)
		vmemt_put(&cpu, base, page, 1);
	for (uint64_t page = 0; m.sampled_touched < 10 || !m.active_bytes;
	     page = (page + 1) % (PAGES / 4)) {
		assert(vmemt_is(&cpu, base, page, 1));
		if (page % 256 == 0)
			m = vmemt_metrics(region);
	}
	for (uint64_t page = 0; page < PAGES; page++)
		assert(vmemt_is(&cpu, base, page, 1));
	m = vmemt_metrics(region);
	assert(m.sampled_touched <= m.sampled);
	assert(m.active_low_bytes <= m.active_high_bytes && m.active_high_bytes <= PAGES * PAGE);
	vmemt_cpu_stop(&cpu);
	end();
}

static void options(void)
{
	static const struct {
		uint32_t samples, period_ms;
		int error;
	} of[] = {
		{ 4097, 0, -VMEM_EINVAL },
		{ 100, 99, -VMEM_EINVAL },
		{ 100, 3600001, -VMEM_EINVAL },
		{ 4096, 3600000, 0 },
		{ 1, 100, 0 },
		{ 0, 0, 0 },
	};
	struct vmem_region_opts o = { .size = sizeof(o), .bytes = 64 * PAGE };

	manager = vmemt_manager(0);
	for (unsigned i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
		o.active_samples = of[i].samples;
		o.active_period_ms = of[i].period_ms;
		assert(vmemt_alloc(&region, manager, &o) == of[i].error);
		if (!of[i].error)
			assert(!vmem_region_detach(region, VMEM_DETACH_DISCARD));
	}
	assert(!vmem_manager_free(manager));
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE);
	seed = vmemt_seed("active");
	the_share_that_is_touched();
	the_interval_holds();
	up_fast_and_down_slowly();
	pages_that_say_nothing();
	what_the_source_has_stays();
	no_victims();
	a_quiet_region_is_left_alone();
	if (!vmemt_on_files()) /* there they go all at once */
		touched_at_once();
	neighbours_stay();
	a_running_guest();
	options();
	return 0;
}
