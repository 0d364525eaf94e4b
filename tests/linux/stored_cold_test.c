/* SPDX-License-Identifier: BSD-2-Clause */
/* What the manager's options say of stored pages that have stayed arrives: when they are encoded anew, how
 * many, or never. And what the store takes from libc is in the metadata. The clock is the test's. */
#include "linux/guest.h"

#define PAGE VMEM_PAGE_SIZE
#define PAGES 1500

static struct vmemi_kernel kernel;
static uint64_t clock_ms;
static vmem_manager *manager;
static vmem_region *region;

static uint64_t own_clock_ns(void)
{
	return clock_ms * 1000000;
}

/* Zstandard makes it smaller than LZ4 does: half of it is random letters of 16. */
static void make_letters(struct vmemt_page *p, uint64_t page)
{
	uint64_t state = page;

	memset(p, 'x', PAGE);
	for (unsigned at = 0; at < PAGE / 2; at++)
		p->bytes[at] = (unsigned char)('a' + vmemt_rand(&state) % 16);
}

/* With all pages in the store, which has not looked at them yet. */
static void start(struct vmem_manager_opts opts)
{
	struct vmemt_page p;

	opts.size = sizeof(opts);
	kernel = vmemi_kernel_linux;
	kernel.clock_ns = own_clock_ns;
	clock_ms = 1;
	assert(!vmemi_manager_new(&manager, &opts, &kernel));
	region = vmemt_region(manager, 0, PAGES, 0);
	for (uint64_t i = 0; i < PAGES; i++) {
		make_letters(&p, i);
		assert(!vmem_region_write(region, i * PAGE, &p, PAGE));
	}
	vmemt_store(region, 0, PAGES);
}

/* Does all that is to be done by then. How many pages have another form now. */
static uint64_t anew_after(uint64_t ms)
{
	struct vmem_store_account a;

	clock_ms += ms;
	do
		assert(vmem_manager_step(manager, 1000, NULL) >= 0);
	while (manager->reclaim->store_has_work);
	a = vmemt_account(region);
	assert(a.pages == PAGES);
	return a.pages_zstd + a.pages_delta;
}

static void by_default(void)
{
	start((struct vmem_manager_opts){ 0 });
	assert(anew_after(0) == 0);
	assert(anew_after(1999) == 0);
	assert(anew_after(1) > PAGES * 2 / 3); /* not those in the last segment */
	vmemt_end(manager, region);
}

static void after_a_time(void)
{
	start((struct vmem_manager_opts){ .cold_after_ms = 7000 });
	assert(anew_after(0) == 0);
	assert(anew_after(6999) == 0);
	assert(anew_after(1) > PAGES * 2 / 3);
	vmemt_end(manager, region);
}

static void at_a_rate(void)
{
	start((struct vmem_manager_opts){ .cold_pages_per_second = 50 });
	assert(anew_after(0) == 0);
	for (uint64_t second = 1; second <= 10; second++)
		assert(anew_after(second == 1 ? 2000 : 1000) == second * 50);
	vmemt_end(manager, region);
}

static void as_saved(void)
{
	start((struct vmem_manager_opts){ .flags = VMEM_MANAGER_AS_SAVED });
	assert(anew_after(0) == 0);
	for (int turn = 0; turn < 5; turn++)
		assert(anew_after(60000) == 0);
	vmemt_end(manager, region);
}

/* All that the store tells, and what else the library has, is in the manager's metadata. */
static void metadata(void)
{
	struct vmem_store_account a = { .size = sizeof(a) };
	uint64_t ours, before_store;

	start((struct vmem_manager_opts){ 0 });
	assert(!vmem_manager_get_account(manager, &a));
	ours = atomic_load(&manager->host.metadata.bytes);
	before_store = (VMEMI_BUFFERS + 1) * PAGE;
	assert(vmemt_manager_metrics(manager).metadata_bytes > ours + before_store + (100 << 10));
	assert(vmemt_manager_metrics(manager).metadata_bytes > a.metadata_bytes + before_store);
	vmemt_end(manager, region);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_WP);
	by_default();
	after_a_time();
	at_a_rate();
	as_saved();
	metadata();
	return 0;
}
