/* SPDX-License-Identifier: BSD-2-Clause */
/* Idle bits as a feed, which idle_kernel.h plays: what is told of a page, what it costs, and what is done where there are
 * none or they fail. No thread of the library runs. */
#include "linux/guest.h"
#include "linux/idle_kernel.h"
#include "support/fail_alloc.h"
#include "support/rng.h"
#include <vmem/feed.h>
#include <vmem/grow.h>

#define PAGE VMEM_PAGE_SIZE
#define PAGES UINT64_C(2050) /* not a multiple of 64 */
#define HALF UINT64_C(1025)
#define MANY VMEMT_FRAME_PAGES /* more than two pieces */
#define FIRST 4096

static vmem_manager *manager;
static vmem_region *region;
static struct vmemt_idle_kernel *const fake = &vmemt_idle_kernel;

/* --- Set-up --- */

static void new_manager(void)
{
	const struct vmem_manager_opts mo = { .size = sizeof(mo) };

	assert(!vmemi_manager_new(&manager, &mo, vmemt_idle_kernel_new()));
}

static void fill(uint64_t first)
{
	for (uint64_t page = first; page < fake->pages; page++) {
		fake->frame_of[page] = FIRST + page;
		assert(!vmem_region_resolve(region, page * PAGE, 1));
	}
}

static void make(uint64_t count)
{
	const struct vmem_region_opts o = { .size = sizeof(o),
					    .bytes = count * PAGE,
					    .fault_around_pages = 1 };

	new_manager();
	assert(!vmem_region_alloc(&region, manager, &o));
	assert(vmem_region_feed(region) == VMEM_FEED_IDLE_BITS);
	assert(!strcmp(vmem_region_feed_name(region), "idle bits"));
	fake->base = vmem_region_hva(region);
	fake->pages = count;
	fill(0);
}

static void end(void)
{
	assert(!fake->bad_calls);
	memset(&fake->is, 0, sizeof(fake->is));
	vmemt_check(manager, region);
	vmemt_end(manager, region);
	fake->base = NULL;
	assert(!vmemt_idle_kernel_files());
}

static void access_page(uint64_t page)
{
	fake->frame[fake->frame_of[page]].young = true;
}

/* The end of a period, with the feed asked whatever it cost before. Returns the pages that it told of. */
static uint64_t end_period(void)
{
	uint64_t seen = vmemt_metrics(region).feed_pages;

	vmemi_reclaim_enter(manager->reclaim);
	region->feed.next_ns = 0;
	region->ages.period_ns = 0;
	fake->now += UINT64_C(2000000000);
	vmemi_ages_tick(region, fake->now);
	vmemi_reclaim_leave(manager->reclaim);
	return vmemt_metrics(region).feed_pages - seen;
}

/* --- What it tells --- */

/* All are young when they come. Then those that are accessed stay, read or written, and the others go. */
static void used_pages_stay(void)
{
	struct vmem_feed_info info = { .size = sizeof(info) };
	uint64_t taken;

	make(PAGES);
	assert(end_period() == PAGES);
	for (unsigned i = 0; i < 3; i++) {
		for (uint64_t page = 0; page < HALF; page++)
			access_page(page);
		assert(end_period() == HALF);
	}
	for (uint64_t page = 0; page < PAGES; page++)
		assert(vmemt_age(region, page) == (page < HALF ? 1 : 4));
	assert(!vmem_region_feed_info(region, VMEM_FEED_IDLE_BITS, &info));
	assert(info.used && !info.error && info.asked == 4 && info.pages == PAGES + 3 * HALF);
	assert(info.sees ==
	       (VMEM_FEED_SEES_READS | VMEM_FEED_SEES_WRITES | VMEM_FEED_SEES_IN_PLACE));
	assert(!vmem_region_feed_info(region, VMEM_FEED_FAULTS, &info) && info.used);
	assert(vmemt_metrics(region).feed_asked == 4 && !vmemt_metrics(region).feed_failed);
	vmemi_reclaim_enter(manager->reclaim);
	region->feed.next_ns = UINT64_MAX;
	taken = vmemi_take_cold(manager->reclaim, region, PAGES - HALF, false);
	vmemi_reclaim_leave(manager->reclaim);
	assert(taken == PAGES - HALF);
	for (uint64_t page = 0; page < PAGES; page++)
		assert((vmemt_state(region, page) == VMEM_PAGE_STAGED) == (page >= HALF));
	/* Those that are away have no frame: nothing is told of them, nor marked. */
	for (uint64_t i = 0; i < VMEMT_FRAMES; i++)
		fake->frame[i].marked = false;
	assert(end_period() == 0);
	for (uint64_t i = 0; i < VMEMT_FRAMES; i++)
		assert(!fake->frame[i].marked);
	end();
}

/* Only frames of the region are ever marked, and idle ones not again. */
static void it_marks_what_is_ours(void)
{
	make(PAGES);
	end_period();
	for (uint64_t i = 0; i < VMEMT_FRAMES; i++) {
		assert(fake->frame[i].marked == (i >= FIRST && i < FIRST + PAGES));
		fake->frame[i].marked = false;
	}
	access_page(3);
	access_page(700);
	assert(end_period() == 2);
	for (uint64_t i = 0; i < VMEMT_FRAMES; i++)
		assert(fake->frame[i].marked == (i == FIRST + 3 || i == FIRST + 700));
	end();
}

/* Neighbours share calls, in whatever order they have frames; frames that are far from each other do not. */
static void neighbours_share_calls(void)
{
	uint64_t seed = vmemt_seed("feed_idle: order");

	make(PAGES);
	for (uint64_t i = PAGES - 1; i; i--) {
		uint64_t k = vmemt_rand(&seed) % (i + 1), other = fake->frame_of[k];

		fake->frame_of[k] = fake->frame_of[i];
		fake->frame_of[i] = other;
	}
	fake->reads = fake->writes = fake->pagemap_reads = 0;
	assert(end_period() == PAGES);
	assert(fake->pagemap_reads == 1 && fake->reads == 1 && fake->writes == 1);
	assert(end_period() == 0);
	assert(fake->pagemap_reads == 2 && fake->reads == 2 && fake->writes == 1);
	for (uint64_t page = 0; page < 8; page++)
		fake->frame_of[page] = 20000 + 4096 * page;
	access_page(5);
	assert(end_period() == 8);
	assert(fake->reads == 2 + 1 + 8 && fake->writes == 1 + 8);
	end();
}

/* A page in another frame than before is young, once, whatever the bit of that frame says; with the same bits in the same
 * frame it is not. */
static void who_was_moved_is_young(void)
{
	make(PAGES);
	end_period();
	fake->frame_of[10] = 60000;
	fake->frame_of[11] = 60001;
	fake->frame[60001].idle = true; /* marked by somebody else */
	assert(end_period() == 2);
	assert(vmemt_age(region, 10) == 1 && vmemt_age(region, 11) == 1 &&
	       vmemt_age(region, 12) == 2);
	assert(end_period() == 0);
	/* Two exchange their frames. */
	fake->frame_of[10] = 60001;
	fake->frame_of[11] = 60000;
	assert(end_period() == 2 && end_period() == 0);
	/* One goes and comes back in its old frame, idle as it was: it was away when it was asked for. */
	vmemt_stage(region, 64, 64);
	assert(end_period() == 0);
	for (uint64_t page = 64; page < 128; page++)
		assert(!vmem_region_resolve(region, page * PAGE, 0));
	assert(end_period() == 64);
	assert(end_period() == 0);
	end();
}

/* Pages that were only read have no frame of their own. Nothing is told of them. */
static void zeros_have_no_bit(void)
{
	const struct vmem_region_opts o = { .size = sizeof(o),
					    .bytes = 128 * PAGE,
					    .fault_around_pages = 1 };

	new_manager();
	assert(!vmem_region_alloc(&region, manager, &o));
	fake->base = vmem_region_hva(region);
	fake->pages = 128;
	for (uint64_t page = 0; page < 128; page++) {
		fake->frame_of[page] = page < 64 ? 9999 : FIRST + page;
		assert(!vmem_region_resolve(region, page * PAGE, page >= 64));
	}
	assert(end_period() == 64);
	assert(!fake->frame[9999].marked && vmemt_age(region, 64) == 1);
	assert(end_period() == 0);
	end();
}

/* Frames that take no mark look used, as is said; those beyond the end have no bit. */
static void frames_without_bits(void)
{
	make(PAGES);
	for (uint64_t page = 0; page < 64; page++)
		fake->frame[fake->frame_of[page]].no_lru = true;
	end_period();
	assert(end_period() == 64);
	for (uint64_t page = 0; page < 64; page++)
		fake->frame[fake->frame_of[page]].no_lru = false;
	assert(end_period() == 64 && end_period() == 0);
	/* The end is in the middle of what one call asks for. */
	fake->end_of_bitmap = FIRST + 1000;
	for (uint64_t page = 0; page < PAGES; page++)
		access_page(page);
	assert(end_period() == 1024 && !vmemt_metrics(region).feed_failed);
	fake->end_of_bitmap = VMEMT_FRAMES; /* memory was added */
	assert(end_period() == PAGES - 1024 && end_period() == 0);
	end();
}

/* One bit for all of a huge page: its first. What only looks like one is asked for page by page. */
static void huge_pages(void)
{
	uint64_t lead;

	make(PAGES);
	lead = -(uintptr_t)fake->base % (512 * PAGE) / PAGE;
	for (uint64_t page = 0; page < 1024; page++)
		fake->frame_of[lead + page] = 8192 + page;
	fake->huge_at = lead;
	for (uint64_t i = 1; i < 512; i++)
		fake->frame[8192 + i].no_lru = true;
	assert(end_period() == PAGES);
	assert(end_period() == 0);
	for (uint64_t i = 1; i < 512; i++)
		assert(!fake->frame[8192 + i].marked);
	fake->frame[8192].young = true;
	fake->frame[8192 + 512].young = true;
	assert(end_period() == 513 && end_period() == 0);
	assert(vmemt_age(region, lead) == 2 && vmemt_age(region, lead + 511) == 2);
	assert(vmemt_age(region, lead + 512) == 2 && vmemt_age(region, lead + 513) == 4);
	/* It is split: its first page is known, the others are new. */
	fake->huge_at = UINT64_MAX;
	for (uint64_t i = 1; i < 512; i++)
		fake->frame[8192 + i].no_lru = false;
	assert(end_period() == 511 && end_period() == 0);
	end();
}

/* A huge page where a piece could end is in one piece all the same: its bit is not asked for twice. */
static void a_huge_page_between_pieces(void)
{
	uint64_t lead, first;

	make(MANY);
	lead = -(uintptr_t)fake->base % (512 * PAGE) / PAGE;
	first = lead + (4095 - lead) / 512 * 512;
	for (uint64_t page = 0; page < 512; page++)
		fake->frame_of[first + page] = 20480 + page;
	fake->huge_at = first;
	assert(end_period() == MANY && end_period() == 0);
	fake->frame[20480].young = true;
	assert(end_period() == 512 && end_period() == 0);
	end();
}

/* --- What it costs --- */

/* A call goes on for so long and then leaves the rest to the next ones. */
static void work_is_bounded(void)
{
	uint64_t told = 0, hand = 0;
	unsigned calls = 0;

	make(MANY);
	fake->step = UINT64_C(21000000);
	do {
		told += end_period();
		calls++;
		assert(region->feed.hand <= hand + 4096);
		hand = region->feed.hand;
		assert(hand == told % MANY);
	} while (hand);
	assert(told == MANY && calls >= 3);
	assert(region->feed.next_ns >= fake->now + 20 * fake->step);
	end();
}

static void it_follows_a_region_that_grows(void)
{
	const struct vmem_region_opts o = { .size = sizeof(o),
					    .bytes = 70 * PAGE,
					    .max_bytes = 5000 * PAGE,
					    .fault_around_pages = 1 };
	uint64_t metadata[2];

	new_manager();
	for (unsigned life = 0; life < 2; life++) {
		assert(!vmem_region_alloc(&region, manager, &o));
		memset(fake->frame, 0, sizeof(fake->frame));
		fake->base = vmem_region_hva(region);
		fake->pages = 70;
		fill(0);
		assert(end_period() == 70);
		assert(!vmem_region_grow(region, 5000 * PAGE));
		fake->pages = 5000;
		fill(70);
		assert(end_period() == 4930 && end_period() == 0);
		access_page(4999);
		assert(end_period() == 1 && vmemt_age(region, 4999) == 1);
		vmemt_check(manager, region);
		assert(!vmem_region_detach(region, VMEM_DETACH_DISCARD));
		fake->base = NULL;
		metadata[life] = vmemt_manager_metrics(manager).metadata_bytes;
	}
	assert(metadata[0] == metadata[1]);
	assert(!vmem_manager_free(manager));
}

/* --- What goes wrong --- */

/* What cannot be had is not taken, and all is as without. */
static void next_one_then(void)
{
	const struct vmem_region_opts o = { .size = sizeof(o), .bytes = 64 * PAGE };
	struct vmem_feed_info info = { .size = sizeof(info) };

	for (unsigned i = 0; i < 6; i++) {
		memset(&fake->is, 0, sizeof(fake->is));
		fake->is.absent = i == 0;
		fake->is.forbidden = i == 1;
		fake->is.hidden = i == 2;
		fake->is.read_error = i == 3 ? -VMEM_EIO : 0;
		fake->is.write_error = i == 4 ? -VMEM_EPERM : 0;
		new_manager();
		if (i == 5)
			fake->end_of_bitmap = 0;
		assert(!vmem_region_alloc(&region, manager, &o));
		assert(vmem_region_feed(region) == VMEM_FEED_FAULTS);
		assert(!vmem_region_feed_info(region, VMEM_FEED_IDLE_BITS, &info));
		assert(info.error == -VMEM_ENOTSUP && !info.used && !info.asked);
		assert(!vmemt_idle_kernel_files()); /* nothing is kept open */
		assert(!vmem_region_resolve(region, 0, 1));
		assert(end_period() == 0 && !vmemt_metrics(region).feed_asked);
		end();
	}
}

static int no_writes(void *context, uint64_t gpa, uint64_t bytes, uint64_t *bitmap)
{
	(void)context, (void)gpa, (void)bytes, (void)bitmap;
	return 0;
}

/* A dirty log costs less; what else there is, is told all the same. */
static void the_cheapest_is_chosen(void)
{
	const struct vmem_region_opts o = { .size = sizeof(o),
					    .bytes = 64 * PAGE,
					    .dirty_log = no_writes };
	struct vmem_feed_info info = { .size = sizeof(info) };

	new_manager();
	assert(!vmem_region_alloc(&region, manager, &o));
	assert(vmem_region_feed(region) == VMEM_FEED_DIRTY_LOG);
	assert(!vmem_region_feed_info(region, VMEM_FEED_IDLE_BITS, &info));
	assert(!info.error && !info.used);
	assert(!vmemt_idle_kernel_files());
	end();
}

/* One that fails says nothing that time of what it did not read, and is asked again. What was not marked is young then. */
static void calls_that_fail(void)
{
	make(PAGES);
	end_period();
	access_page(1);
	fake->is.read_error = -VMEM_EIO;
	assert(end_period() == 0 && vmemt_metrics(region).feed_failed == 1);
	fake->is.read_error = 0;
	assert(end_period() == 1 && vmemt_metrics(region).feed_failed == 1);
	access_page(2);
	fake->is.write_error = -VMEM_EINVAL;
	assert(end_period() == 1 && vmemt_metrics(region).feed_failed == 2);
	fake->is.write_error = 0;
	assert(end_period() == 1 && end_period() == 0);
	fake->is.pagemap_error = -VMEM_EIO;
	access_page(3);
	assert(end_period() == 0 && vmemt_metrics(region).feed_failed == 3);
	fake->is.pagemap_error = 0;
	assert(end_period() == 1 && end_period() == 0);
	/* A later stretch fails: what was told before stays told. */
	fake->frame_of[5] = 60000;
	end_period();
	access_page(5);
	access_page(6);
	fake->reads = 0;
	fake->is.read_fails_after = 1;
	fake->is.read_error = -VMEM_EIO;
	assert(end_period() == 1 && vmemt_age(region, 6) == 1 && vmemt_age(region, 5) == 2);
	fake->is.read_error = 0;
	assert(end_period() == 1 && vmemt_age(region, 5) == 1 && vmemt_age(region, 6) == 2);
	end();
}

/* Each allocation of attaching fails once: nothing is left then, and no file open. */
static void no_memory(void)
{
	const struct vmem_region_opts o = { .size = sizeof(o), .bytes = 64 * PAGE };
	int error = -VMEM_ENOMEM;

	for (long n = 0; error; n++) {
		struct vmemt_fail_alloc a;
		struct vmem_manager_opts mo = { .size = sizeof(mo), .allocator = &a.allocator };

		vmemt_fail_alloc_init(&a);
		assert(!vmemi_manager_new(&manager, &mo, vmemt_idle_kernel_new()));
		a.fail_after = a.calls + n;
		error = vmem_region_alloc(&region, manager, &o);
		assert(!error == !a.failed && (!error || error == -VMEM_ENOMEM));
		if (error) {
			assert(!vmemt_idle_kernel_files());
			assert(!vmem_manager_free(manager));
		} else {
			assert(vmem_region_feed(region) == VMEM_FEED_IDLE_BITS);
			end();
		}
		assert(!a.live_bytes);
	}
}

/* --- At random, against a model --- */

/* Pages are accessed, get other frames (which may be idle), are migrated with their flags, taken out and brought back. Told
 * of is exactly who is in place and was not in this frame, idle, all the time since it was asked for last. */
static void at_random(void)
{
	uint64_t seed = vmemt_seed("feed_idle");
	static uint64_t marked_in[PAGES]; /* 0: no longer idle */
	uint64_t spare = 20000;

	make(PAGES);
	memset(marked_in, 0, sizeof(marked_in));
	for (unsigned round = 0; round < 60; round++) {
		uint64_t expected = 0, kept[PAGES] = { 0 };

		for (unsigned i = 0; i < 200; i++) {
			uint64_t page = vmemt_rand(&seed) % PAGES, run = 1 + vmemt_rand(&seed) % 8;

			switch (vmemt_rand(&seed) % 5) {
			case 0:
				fake->frame_of[page] = 20000 + spare++ % 40000;
				fake->frame[fake->frame_of[page]] =
					(struct vmemt_frame){ .idle = vmemt_rand(&seed) % 2 };
				break;
			case 1:
				for (; run && page < PAGES; page++, run--)
					if (vmemt_state(region, page) != VMEM_PAGE_STAGED)
						vmemt_stage(region, page, 1);
				break;
			case 2:
				if (!vmem_region_resolve(region, page * PAGE, 0))
					access_page(page);
				break;
			default: access_page(page);
			}
		}
		for (uint64_t page = 0; page < PAGES; page++) {
			bool there = vmemt_state(region, page) != VMEM_PAGE_STAGED;
			struct vmemt_frame *f = &fake->frame[fake->frame_of[page]];

			kept[page] = there && marked_in[page] == fake->frame_of[page] && !f->young;
			expected += there && !kept[page];
		}
		assert(end_period() == expected);
		for (uint64_t page = 0; page < PAGES; page++) {
			bool there = vmemt_state(region, page) != VMEM_PAGE_STAGED;

			assert(!there || (vmemt_age(region, page) == 1) >= !kept[page]);
			marked_in[page] = there ? fake->frame_of[page] : 0;
		}
	}
	end();
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE);
	next_one_then();
	the_cheapest_is_chosen();
	used_pages_stay();
	it_marks_what_is_ours();
	neighbours_share_calls();
	who_was_moved_is_young();
	zeros_have_no_bit();
	frames_without_bits();
	huge_pages();
	a_huge_page_between_pieces();
	work_is_bounded();
	it_follows_a_region_that_grows();
	calls_that_fail();
	no_memory();
	at_random();
	return 0;
}
