/* SPDX-License-Identifier: BSD-2-Clause */
/* Asynchronous write-protection as a feed: pages that are written stay, without a fault that reaches us; that a page
 * comes back is no write; nothing is lost where it meets reclaim; and where the kernel lacks it, everything is as
 * without. But for one test no thread of the library runs. */
#include "linux/failing_kernel.h"
#include "linux/guest.h"
#include "linux/kernel/uffd_abi.h"
#include "support/rng.h"
#include <vmem/feed.h>
#include <vmem/grow.h>
#include <vmem/snapshot.h>

#define PAGE VMEM_PAGE_SIZE
#define PAGES UINT64_C(2050) /* not a multiple of 64 */
#define HALF UINT64_C(1025)

static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static struct vmemt_cpu cpu;

static void make_on(const struct vmemi_kernel *k, bool on)
{
	const struct vmem_manager_opts mo = { .size = sizeof(mo), .flags = VMEM_MANAGER_ASYNC_WP };
	const struct vmem_region_opts o = { .size = sizeof(o),
					    .flags = VMEM_REGION_DMA_PINNED,
					    .bytes = PAGES * PAGE,
					    .fault_around_pages = 1 };

	assert(!vmemi_manager_new(&manager, &mo, k));
	assert(!vmem_region_alloc(&region, manager, &o));
	assert(!(vmemt_manager_metrics(manager).kernel_features & VMEM_KERNEL_ASYNC_WP) == !on);
	assert((vmem_region_feed(region) == VMEM_FEED_ASYNC_WP) == on);
	base = vmem_region_hva(region);
	cpu.region = region;
	for (uint64_t page = 0; page < PAGES; page++)
		assert(!vmem_region_resolve(region, page * PAGE, 1));
}

static void end(void)
{
	vmemt_check(manager, region);
	vmemt_end(manager, region);
}

/* Writes a word of each page where it is. A fault that reaches us would not be answered. */
static void write_in_place(uint64_t first, uint64_t count)
{
	for (uint64_t page = first; page < first + count; page++) {
		uint64_t word = page;

		assert(!vmemt_touch(&cpu, VMEMT_WRITE, base + page * PAGE, &word, sizeof(word)));
	}
}

static void read_in_place(uint64_t first, uint64_t count)
{
	for (uint64_t page = first; page < first + count; page++) {
		uint64_t word;

		assert(!vmemt_touch(&cpu, VMEMT_READ, base + page * PAGE, &word, sizeof(word)));
	}
}

/* The end of a period, with the feed asked whatever it cost before. */
static void end_period(void)
{
	vmemi_reclaim_enter(manager->reclaim);
	region->feed.next_ns = 0;
	region->ages.period_ns = 0;
	vmemi_ages_tick(region, manager->host.k->clock_ns());
	vmemi_reclaim_leave(manager->reclaim);
}

/* Pages are asked for in 3 periods; in two of them half of the pages are written, and all are read. */
static void written_pages_stay(void)
{
	struct vmem_feed_info info = { .size = sizeof(info) };
	uint64_t taken;

	make_on(&vmemi_kernel_linux, true);
	end_period(); /* all have just come, and were written */
	for (unsigned i = 0; i < 2; i++) {
		read_in_place(0, PAGES);
		write_in_place(0, HALF);
		end_period();
	}
	for (uint64_t page = 0; page < PAGES; page++)
		assert(vmemt_age(region, page) == (page < HALF ? 1 : 3));
	assert(!vmem_region_feed_info(region, VMEM_FEED_ASYNC_WP, &info));
	assert(info.used && info.asked == 3 && info.ns && info.pages == PAGES + 2 * HALF);
	assert(info.sees == (VMEM_FEED_SEES_WRITES | VMEM_FEED_SEES_IN_PLACE));
	assert(vmemt_metrics(region).faults_write == 0);
	assert(vmemt_metrics(region).feed_failed == 0);
	vmemi_reclaim_enter(manager->reclaim);
	region->feed.next_ns = UINT64_MAX;
	taken = vmemi_take_cold(manager->reclaim, region, PAGES - HALF, false);
	vmemi_reclaim_leave(manager->reclaim);
	assert(taken == PAGES - HALF);
	for (uint64_t page = 0; page < PAGES; page++)
		assert(vmemt_state(region, page) ==
		       (page < HALF ? VMEM_PAGE_RESIDENT : VMEM_PAGE_STAGED));
	assert(vmemt_metrics(region).taken_scattered == 0);
	end();
}

/* The bitmap has room for all that a region grows to, and goes as it came: metadata that is there after a life, which
 * is the store's, is not more after another. */
static void it_follows_a_region_that_grows(void)
{
	const struct vmem_manager_opts mo = { .size = sizeof(mo), .flags = VMEM_MANAGER_ASYNC_WP };
	const struct vmem_region_opts o = { .size = sizeof(o),
					    .bytes = 70 * PAGE,
					    .max_bytes = 5000 * PAGE,
					    .fault_around_pages = 1 };
	uint64_t metadata[2];

	assert(!vmem_manager_new(&manager, &mo));
	for (unsigned life = 0; life < 2; life++) {
		assert(!vmem_region_alloc(&region, manager, &o));
		assert(vmem_region_feed(region) == VMEM_FEED_ASYNC_WP);
		base = vmem_region_hva(region);
		cpu.region = region;
		end_period();
		assert(!vmem_region_grow(region, 5000 * PAGE));
		for (uint64_t page = 0; page < 5000; page++)
			assert(!vmem_region_resolve(region, page * PAGE, 1));
		end_period(); /* all have just come, and were written */
		end_period();
		write_in_place(4000, 1000);
		end_period();
		for (uint64_t page = 0; page < 5000; page++)
			assert(vmemt_age(region, page) == (page < 4000 ? 3 : 1));
		vmemt_check(manager, region);
		assert(!vmem_region_detach(region, VMEM_DETACH_DISCARD));
		metadata[life] = vmemt_manager_metrics(manager).metadata_bytes;
	}
	assert(metadata[0] == metadata[1]);
	assert(!vmem_manager_free(manager));
}

/* What costs the guest is counted as if it cost us. */
static void it_rests(void)
{
	uint64_t before;

	make_on(&vmemi_kernel_linux, true);
	before = manager->host.k->clock_ns();
	end_period();
	assert(region->feed.next_ns >= before + PAGES * UINT64_C(2000) * 20);
	end();
}

/* Pages come back from staging and from the store, one by one, as neighbours and by request: protected, and the next
 * write is seen. */
static void to_come_back_is_no_write(void)
{
	uint64_t seen;

	make_on(&vmemi_kernel_linux, true);
	for (uint64_t page = 0; page < PAGES; page++)
		vmemt_put(&cpu, base, page, 1);
	end_period();
	vmemt_stage(region, 0, 512);
	assert(!vmem_region_store(region, 0, 256 * PAGE, NULL));
	for (uint64_t page = 0; page < 128; page++)
		assert(!vmem_region_resolve(region, page * PAGE, 0));
	assert(!vmem_region_fetch(region, 128 * PAGE, 256 * PAGE, NULL));
	for (uint64_t page = 384; page < 512; page++)
		assert(!vmem_region_resolve(region, page * PAGE, 0));
	seen = vmemt_metrics(region).feed_pages;
	end_period();
	assert(vmemt_metrics(region).feed_pages == seen);
	for (uint64_t page = 0; page < PAGES; page++)
		assert(vmemt_is(&cpu, base, page, 1));
	write_in_place(0, 512);
	end_period();
	assert(vmemt_metrics(region).feed_pages == seen + 512);
	assert(vmemt_metrics(region).pages[VMEM_PAGE_CLEAN] == 0);
	end();
}

static void refused(void)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = VMEM_REGION_FILE | VMEM_REGION_DMA_PINNED,
				      .bytes = 64 * PAGE };
	vmem_region *r = NULL;

	make_on(&vmemi_kernel_linux, true);
	assert(vmem_region_dirty_start(region) == -VMEM_ENOTSUP);
	assert(vmem_region_alloc(&r, manager, &o) == -VMEM_ENOTSUP && !r);
	end();
}

/* One that fails says nothing more, and is asked again. */
static void a_scan_that_fails(void)
{
	vmemt_kernel_reset();
	make_on(&vmemt_kernel_table, true);
	end_period();
	vmemt_kernel.fail = VMEMT_K_SCAN;
	vmemt_kernel.error = -VMEM_EIO;
	vmemt_kernel.fail_after = atomic_load(&vmemt_kernel.calls[VMEMT_K_SCAN]);
	write_in_place(0, HALF);
	end_period();
	assert(vmemt_metrics(region).feed_failed == 1);
	assert(vmemt_age(region, 0) == 2);
	end_period();
	assert(vmemt_metrics(region).feed_failed == 1);
	assert(vmemt_age(region, 0) == 1 && vmemt_age(region, HALF) == 3);
	end();
	vmemt_kernel_reset();
}

/* Kernels without one of the three parts. All else works. */
static void older_kernels(void)
{
	static const struct {
		uint64_t hide;
		bool scan;
	} of[] = {
		{ VMEMI_UFFD_FEATURE_WP_ASYNC, false },
		{ VMEMI_UFFD_FEATURE_MOVE, false },
		{ VMEMI_UFFD_FEATURE_WP, false },
		{ 0, true },
	};

	for (unsigned i = 0; i < sizeof(of) / sizeof(of[0]); i++) {
		vmemt_kernel_reset();
		vmemt_kernel.hide = of[i].hide;
		vmemt_kernel.hide_scan = of[i].scan;
		make_on(&vmemt_kernel_table, false);
		for (uint64_t page = 0; page < 64; page++)
			assert(!vmem_region_resolve(region, page * PAGE, 1));
		vmemt_store(region, 0, 64);
		for (uint64_t page = 0; page < 64; page++)
			assert(!vmem_region_resolve(region, page * PAGE, 0));
		/* As always: some come back clean, where writes are noticed. */
		assert(!vmemt_metrics(region).pages[VMEM_PAGE_CLEAN] ==
		       !!(of[i].hide & VMEMI_UFFD_FEATURE_WP));
		end();
	}
	vmemt_kernel_reset();
}

/* A guest that writes while all threads take its pages, ask and bring them back: no write is lost. */
static void a_running_guest(void)
{
	const struct vmem_manager_opts mo = { .size = sizeof(mo),
					      .flags = VMEM_MANAGER_ASYNC_WP,
					      .budget_bytes = 5 << 20 };
	const struct vmem_region_opts o = { .size = sizeof(o), .bytes = PAGES * PAGE };
	uint64_t seed = vmemt_seed("feed_written"), version[PAGES] = { 0 };
	struct vmem_region_metrics m = { 0 };

	assert(!vmem_manager_new(&manager, &mo));
	assert(!vmem_manager_thread_start(manager));
	assert(!vmem_region_alloc(&region, manager, &o));
	base = vmem_region_hva(region);
	cpu.region = region;
	for (unsigned i = 0; i < 4000 || !m.feed_pages || m.faults_staged < 100; i++) {
		uint64_t page = vmemt_rand(&seed) % (i % 4 ? PAGES / 8 : PAGES);

		if (vmemt_rand(&seed) % 2)
			assert(vmemt_is(&cpu, base, page, version[page]));
		else
			vmemt_put(&cpu, base, page, ++version[page]);
		if (i % 64 == 0)
			m = vmemt_metrics(region);
	}
	for (uint64_t page = 0; page < PAGES; page++)
		assert(vmemt_is(&cpu, base, page, version[page]));
	end();
}

int main(void)
{
	const struct vmem_manager_opts mo = { .size = sizeof(mo), .flags = VMEM_MANAGER_ASYNC_WP };
	vmem_manager *m;
	uint64_t have;

	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP);
	vmemt_cpu_start(&cpu);
	older_kernels();
	assert(!vmem_manager_new(&m, &mo));
	have = vmemt_manager_metrics(m).kernel_features;
	assert(!vmem_manager_free(m));
	if (!(have & VMEM_KERNEL_ASYNC_WP))
		vmemt_skip("this kernel has no asynchronous write-protection");
	written_pages_stay();
	it_follows_a_region_that_grows();
	it_rests();
	to_come_back_is_no_write();
	refused();
	a_scan_that_fails();
	a_running_guest();
	vmemt_cpu_stop(&cpu);
	return 0;
}
