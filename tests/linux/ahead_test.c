/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that go ahead of need: those that are cold by the threshold, not before it is known, and only where
 * that was asked for. No thread of the library runs, and time is told. */
#include "linux/guest.h"

#define PAGE VMEM_PAGE_SIZE
#define PAGES UINT64_C(4096)
#define HALF (PAGES / 2)
#define SECOND UINT64_C(1000000000)
#define WAIT 300 /* seconds until there is a threshold */

static vmem_manager *manager;
static vmem_region *region;
static uint64_t now = SECOND;
static uint64_t hot; /* pages that are written all the time, from the first one on */

static uint64_t told_time(void)
{
	return now;
}

static int dirty_log(void *context, uint64_t gpa, uint64_t bytes, uint64_t *bitmap)
{
	(void)context;
	assert(!gpa && bytes == PAGES * PAGE);
	for (uint64_t page = 0; page < hot; page++)
		bitmap[page / 64] |= UINT64_C(1) << page % 64;
	return 0;
}

static void make(uint64_t flags, bool with_log)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = flags,
				      .bytes = PAGES * PAGE,
				      .dirty_log = with_log ? dirty_log : NULL };
	struct vmem_manager_opts mo = { .size = sizeof(mo) };
	static struct vmemi_kernel kernel;
	struct vmemt_page p;

	kernel = vmemi_kernel_linux;
	kernel.clock_ns = told_time;
	assert(!vmemi_manager_new(&manager, &mo, &kernel));
	assert(!vmem_region_alloc(&region, manager, &o));
	for (uint64_t page = 0; page < PAGES; page++) {
		vmemt_make(&p, page, 1);
		assert(!vmem_region_write(region, page * PAGE, &p, PAGE));
	}
	hot = HALF;
}

static void end(void)
{
	struct vmemt_page p, got;

	for (uint64_t page = 0; page < PAGES; page++) {
		vmemt_make(&p, page, 1);
		assert(!vmem_region_read(region, page * PAGE, &got, PAGE));
		assert(!memcmp(&p, &got, PAGE));
	}
	vmemt_check(manager, region);
	vmemt_end(manager, region);
}

/* So many seconds of an idle manager. */
static void pass(unsigned seconds)
{
	for (unsigned i = 0; i < seconds; i++) {
		now += SECOND;
		for (unsigned k = 0; k < 3; k++)
			assert(vmem_manager_step(manager, 1000, NULL) >= 0);
	}
}

static uint64_t in_place(uint64_t first, uint64_t count)
{
	uint64_t n = 0;

	for (uint64_t page = first; page < first + count; page++)
		n += vmemt_state(region, page) == VMEM_PAGE_RESIDENT;
	return n;
}

static void cold_pages_go(void)
{
	struct vmem_region_metrics m;

	make(VMEM_REGION_PROACTIVE, true);
	pass(WAIT - 60);
	assert(in_place(0, PAGES) == PAGES);
	assert(vmemt_metrics(region).cold_age == VMEM_TRACK_AGES);
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t before = vmemt_metrics(region).taken_ahead;

		pass(1);
		assert(vmemt_metrics(region).taken_ahead - before <= PAGES / 128);
	}
	m = vmemt_metrics(region);
	assert(m.cold_age < VMEM_TRACK_AGES && m.taken_ahead >= HALF);
	assert(m.working_set_pages == HALF && m.cold_pages == HALF);
	assert(in_place(0, HALF) == HALF && in_place(HALF, HALF) == 0);
	/* Most were saved: staging is not for what nobody misses. */
	assert(m.pages[VMEM_PAGE_STORED] >= HALF / 2);
	end();
}

/* Pages that come back from the store make it careful. */
static void promotions_raise_the_threshold(void)
{
	uint64_t page = HALF, before;

	make(VMEM_REGION_PROACTIVE, true);
	pass(WAIT + 600);
	before = vmemt_metrics(region).cold_age;
	assert(before < VMEM_TRACK_AGES && in_place(HALF, HALF) == 0);
	for (unsigned i = 0; i < 120; i++, page += 8) {
		for (unsigned k = 0; k < 8; k++)
			assert(!vmem_region_resolve(region, (page + k) * PAGE, 1));
		pass(1);
	}
	assert(vmemt_metrics(region).cold_age > before);
	end();
}

/* Nobody says what is in use: what is taken comes back, and so it is done slowly. */
static void slowly_where_all_come_back(void)
{
	uint64_t came_back = 0;

	make(VMEM_REGION_PROACTIVE, false);
	for (unsigned i = 0; i < WAIT + 200; i++) {
		for (uint64_t page = 0; page < PAGES; page++)
			if (vmemt_state(region, page) != VMEM_PAGE_RESIDENT) {
				assert(!vmem_region_resolve(region, page * PAGE, 1));
				came_back++;
			}
		pass(1);
	}
	assert(came_back && vmemt_metrics(region).taken_ahead < PAGES);
	assert(region->ages.pace < PAGES / 128);
	/* Those were no promotions. */
	assert(vmemt_metrics(region).cold_age < VMEM_TRACK_AGES);
	end();
}

static void not_unasked(void)
{
	make(0, true);
	pass(WAIT + 300);
	assert(vmemt_metrics(region).cold_age < VMEM_TRACK_AGES);
	assert(in_place(0, PAGES) == PAGES && !vmemt_metrics(region).taken_ahead);
	end();
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE);
	cold_pages_go();
	promotions_raise_the_threshold();
	slowly_where_all_come_back();
	not_unasked();
	return 0;
}
