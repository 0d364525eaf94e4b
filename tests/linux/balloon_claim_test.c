/* SPDX-License-Identifier: BSD-2-Clause */
/* What becomes of a hinted page between the guard's look at it and the claim on it: what is written, or held, just
 * then stays. The linker lets each step of a page's state come here first. */
#include "linux/balloon_region.h"

#define PAGES 16u
#define HINTED 5u

static enum vmemi_page_event awaited; /* when this is about to happen to page HINTED ... */
static void (*_Atomic between)(void); /* ... this does before, once; atomic */

bool __real_vmemi_region_step(struct vmem_region *r, uint64_t page, enum vmemi_page_event event,
			      uint64_t argument, uint64_t *ret_old);
bool __wrap_vmemi_region_step(struct vmem_region *r, uint64_t page, enum vmemi_page_event event,
			      uint64_t argument, uint64_t *ret_old);

bool __wrap_vmemi_region_step(struct vmem_region *r, uint64_t page, enum vmemi_page_event event,
			      uint64_t argument, uint64_t *ret_old)
{
	void (*now)(void) = NULL;

	if (page == HINTED && atomic_load(&between) && event == awaited)
		now = atomic_exchange(&between, NULL);
	if (now)
		now();
	return __real_vmemi_region_step(r, page, event, argument, ret_old);
}

static void begin(void)
{
	manager = vmemt_manager(0);
	region = vmemt_region(manager, 0, PAGES, VMEM_REGION_DMA_PINNED);
	assert(!vmem_manager_thread_start(manager));
	assert(!vmem_discard_new(&discard, NULL));
	join(0);
	for (uint64_t i = 0; i < PAGES; i++)
		vmemt_put(&cpu, base, i, 1);
	assert(!guard.begin(guard.context));
}

static void end(void)
{
	guard.end(guard.context);
	unmake();
}

/* Hints pages up to HINTED: the others go, and this one is still there when @what happens. */
static int hint_and(enum vmemi_page_event event, void (*what)(void))
{
	uint64_t released = 0;
	int error;

	awaited = event;
	atomic_store(&between, what);
	error = hint(0, HINTED + 1, &released);
	assert(!atomic_load(&between) && released == HINTED * PAGE);
	return error;
}

static void write_it(void)
{
	vmemt_put(&cpu, base, HINTED, 2);
}

/* So it is where it was when it was looked at. */
static void write_it_and_stage(void)
{
	write_it();
	vmemt_stage(region, HINTED, 1);
}

static void hold(void)
{
	assert(!vmem_region_pin(region, HINTED * PAGE, PAGE));
}

static void written_in_place(void)
{
	begin();
	assert(!hint_and(VMEMI_PAGE_CLAIM, write_it) && metrics().hinted.written == PAGE);
	assert(vmemt_is(&cpu, base, HINTED, 2));
	end();
}

static void written_and_staged(void)
{
	begin();
	vmemt_stage(region, HINTED, 1);
	assert(!hint_and(VMEMI_PAGE_FETCH, write_it_and_stage));
	assert(metrics().hinted.written == PAGE);
	assert(vmemt_is(&cpu, base, HINTED, 2));
	end();
}

static void held(void)
{
	begin();
	assert(hint_and(VMEMI_PAGE_CLAIM, hold) == -VMEM_EBUSY);
	assert(metrics().hinted.pinned == PAGE && vmemt_is(&cpu, base, HINTED, 1));
	assert(!vmem_region_unpin(region, HINTED * PAGE, PAGE));
	end();
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_WP);
	vmemt_cpu_start(&cpu);
	written_in_place();
	written_and_staged();
	held();
	vmemt_cpu_stop(&cpu);
	return 0;
}
