/* SPDX-License-Identifier: BSD-2-Clause */
/* A working set that is larger than a piece of its replay. */
#include "linux/guest.h"
#include "linux/working_set/working_set.h"

#define PAGE VMEM_PAGE_SIZE
#define GPA (UINT64_C(5) << 32)
#define MANY 40960 /* pages: some pieces of a replay */

static int on_many(void *context, uint64_t done_pages, uint64_t set_pages)
{
	uint64_t *done = context;

	assert(done_pages > *done && done_pages - *done <= 4096 && set_pages == MANY);
	*done = done_pages;
	return 0;
}

/* Runs that are cut where a piece ends, few pages of which there is anything to bring. */
int main(void)
{
	uint64_t done = 0, few = 0;
	struct vmem_working_set_replay_opts o = { .size = sizeof(o),
						  .progress = on_many,
						  .context = &done };
	struct vmem_working_set_stats stats = { .size = sizeof(stats) };
	vmem_working_set *set;
	struct vmemt_page p;
	vmem_manager *m;
	vmem_region *r;

	vmemt_need(VMEM_KERNEL_MOVE);
	m = vmemt_manager(0);
	r = vmemt_region(m, GPA, MANY, 0);

	for (uint64_t page = 5; page < MANY; page += 131, few++) {
		vmemt_make(&p, page, 1);
		assert(!vmem_region_write(r, GPA + page * PAGE, &p, PAGE));
	}
	assert(!vmem_region_evict_all(r, NULL));
	assert(!vmemi_working_set_new(&set, vmemi_alloc_default()));
	set->gpa = GPA;
	set->region_pages = MANY;
	assert(!vmemi_working_set_add(set, 20000, MANY - 20000));
	for (uint32_t page = 0; page < 20000; page += 2)
		assert(!vmemi_working_set_add(set, page ^ 2, 2));
	assert(!vmem_working_set_replay(r, set, &o, &stats));
	assert(done == MANY && stats.pages == MANY && stats.brought == few);
	for (uint64_t page = 5; page < MANY; page += 131)
		assert(vmemt_state(r, page) == VMEM_PAGE_RESIDENT);
	vmem_working_set_free(set);
	vmemt_end(m, r);
	return 0;
}
