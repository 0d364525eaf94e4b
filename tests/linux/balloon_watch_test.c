/* SPDX-License-Identifier: BSD-2-Clause */
/* Writes that the guard of free page hints must know of, whoever makes them: the VMM, a device that holds pages, who else
 * maps the file; pages that a region grows by; and a page that the kernel kept while the guard began. */
#include "linux/balloon_region.h"
#include "linux/discard/discard_memory.h"
#include "linux/failing_kernel.h"
#include "linux/peer_process.h"
#include "linux/region/dirty.h"
#include <vmem/grow.h>
#include <vmem/snapshot.h>
#include <vmem/source.h>

#define GPA (UINT64_C(9) << 30)
#define PAGES 64u

static struct vmemt_cpu second_cpu;

static int give(void *context, uint64_t gpa, void *buffer)
{
	(void)context;
	vmemt_make(buffer, (gpa - GPA) / PAGE, 1);
	return 0;
}

/* The manager's threads do not run yet. */
static void make(uint64_t flags)
{
	const struct vmem_region_opts o = { .size = sizeof(o),
					    .flags = flags | VMEM_REGION_DMA_PINNED,
					    .gpa = GPA,
					    .bytes = PAGES * PAGE,
					    .max_bytes = 2 * PAGES * PAGE,
					    .fault_around_pages = 1,
					    .read_source =
						    flags & VMEM_REGION_FROM_SOURCE ? give : NULL };

	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&manager, NULL, &vmemt_kernel_table));
	assert(!vmem_region_alloc(&region, manager, &o));
	assert(!vmemi_discard_new(&discard, NULL, &vmemt_kernel_table));
	join(GPA);
}

/* Hints [first, first + count): all go, but page @kept. */
static void all_but(uint64_t first, uint64_t count, uint64_t kept)
{
	uint64_t released;

	assert(!hint(first, count, &released));
	for (uint64_t i = first; i < first + count; i++)
		assert((vmemt_state(region, i) == VMEM_PAGE_ABSENT) == (i != kept));
}

static void put_all(void)
{
	for (uint64_t i = 0; i < PAGES; i++)
		vmemt_put(&cpu, base, i, 1);
}

/* --- The VMM --- */

static void told_by_the_vmm(uint64_t flags)
{
	make(flags);
	assert(!vmem_manager_thread_start(manager));
	put_all();
	assert(vmem_region_dirty_mark(region, GPA, PAGE) == -VMEM_EINVAL);
	assert(!guard.begin(guard.context));
	assert(!vmem_region_dirty_mark(region, GPA + 3 * PAGE, PAGE));
	assert(vmem_region_dirty_mark(region, GPA + PAGES * PAGE, PAGE) == -VMEM_ERANGE);
	all_but(0, 8, 3);
	assert(vmemt_is(&cpu, base, 3, 1) && vmemt_is(&cpu, base, 4, 0));
	guard.end(guard.context);
	assert(vmem_region_dirty_mark(region, GPA, PAGE) == -VMEM_EINVAL);
	unmake();
}

/* A device writes without faults as long as it holds a page; afterwards what it wrote is there. */
static void held(uint64_t flags)
{
	struct vmemt_page want;
	uint64_t released;

	make(flags);
	assert(!vmem_manager_thread_start(manager));
	put_all();
	assert(!vmem_region_pin(region, GPA + 5 * PAGE, PAGE)); /* before it begins */
	assert(!guard.begin(guard.context));
	assert(!vmem_region_pin(region, GPA + 6 * PAGE, PAGE));
	/* It is known before anything is written, which need be no fault. */
	assert(vmemi_watch_has(&region->watch[VMEMI_WATCH_GUARD], 5));
	assert(vmemi_watch_has(&region->watch[VMEMI_WATCH_GUARD], 6));
	assert(hint(5, 2, &released) == -VMEM_EBUSY && !released);
	vmemt_make(&want, 5, 2);
	memcpy(base + 5 * PAGE, &want, PAGE);
	vmemt_make(&want, 6, 2);
	memcpy(base + 6 * PAGE, &want, PAGE);
	assert(!vmem_region_unpin(region, GPA + 5 * PAGE, 2 * PAGE));
	assert(!hint(5, 2, &released) && !released);
	assert(vmemt_is(&cpu, base, 5, 2) && vmemt_is(&cpu, base, 6, 2));
	/* What was neither held nor written goes. */
	assert(!hint(7, 4, &released) && released == 4 * PAGE);
	guard.end(guard.context);
	unmake();
}

/* --- Who else maps the file --- */

static void mapped_by_others(void)
{
	struct vmemt_second second;
	struct vmemt_peer peer;

	make(VMEM_REGION_FILE);
	vmemt_peer_join(&peer, region);
	vmemt_second_join(&second, region);
	assert(!vmem_manager_thread_start(manager));
	put_all();
	for (uint64_t i = 0; i < 24; i++) { /* each can write to all of these without a fault */
		vmemt_peer_put(&peer, i, 1);
		vmemt_put(&second_cpu, second.memory, i, 1);
	}
	vmemt_stage(region, 16, 4);
	vmemt_store(region, 20, 4);
	assert(!guard.begin(guard.context));
	assert(vmemt_peer_is(&peer, 1, 1) && vmemt_is(&second_cpu, second.memory, 9, 1));
	vmemt_peer_put(&peer, 2, 2);
	vmemt_put(&second_cpu, second.memory, 10, 2);
	vmemt_peer_put(&peer, 17, 2);
	vmemt_put(&second_cpu, second.memory, 21, 2);
	all_but(0, 8, 2);
	all_but(8, 8, 10);
	all_but(16, 4, 17);
	all_but(20, 4, 21);
	for (uint64_t i = 0; i < 24; i++) {
		uint64_t version = i == 2 || i == 10 || i == 17 || i == 21 ? 2 : 0;

		assert(vmemt_peer_is(&peer, i, version) && vmemt_is(&cpu, base, i, version));
		assert(vmemt_is(&second_cpu, second.memory, i, version));
	}
	guard.end(guard.context);
	vmemt_second_leave(&second);
	vmemt_peer_leave(&peer);
	unmake();
}

/* --- A region that grows --- */

static void grown(uint64_t flags)
{
	make(flags);
	assert(!vmem_manager_thread_start(manager));
	assert(!guard.begin(guard.context));
	assert(!vmem_region_grow(region, 2 * PAGES * PAGE));
	/* New pages of a source are nobody's free pages. */
	if (flags & VMEM_REGION_FROM_SOURCE) {
		uint64_t released;

		assert(!hint(PAGES, 8, &released) && !released);
		assert(vmemt_is(&cpu, base, PAGES + 3, 1));
	}
	vmemt_put(&cpu, base, PAGES + 9, 2);
	vmemt_put(&cpu, base, 2 * PAGES - 1, 2);
	vmemt_stage(region, PAGES + 9, 1);
	guard.end(guard.context);
	/* Watched from now on, the new part as the old one. */
	vmemt_put(&cpu, base, PAGES + 10, 2);
	assert(!guard.begin(guard.context));
	vmemt_put(&cpu, base, 2 * PAGES - 1, 3);
	all_but(PAGES + 9, 2, UINT64_MAX);
	all_but(2 * PAGES - 1, 1, 2 * PAGES - 1);
	assert(vmemt_is(&cpu, base, 2 * PAGES - 1, 3));
	guard.end(guard.context);
	unmake();
}

/* --- A page that the kernel keeps --- */

static enum vmemi_watch_of begins;

/* Its discard is at its call, so that it is neither there nor away. */
static void begin_now(enum vmemt_call call)
{
	if (call != VMEMT_K_MADVISE && call != VMEMT_K_FALLOCATE)
		return;
	vmemt_kernel.at_call = NULL;
	assert(!vmemi_watch_start(region, begins));
}

/* It is writable without a fault afterwards, so it must not count as unwritten. */
static void kept(uint64_t flags, enum vmemi_watch_of which)
{
	bool file = flags & VMEM_REGION_FILE;
	uint64_t released = 77;
	struct vmemt_page p;

	make(flags);
	vmemt_make(&p, 7, 1);
	assert(!vmem_region_write(region, GPA + 7 * PAGE, &p, PAGE));
	begins = which;
	vmemt_kernel.fail = file ? VMEMT_K_FALLOCATE : VMEMT_K_MADVISE;
	vmemt_kernel.fail_after = vmemt_kernel.calls[vmemt_kernel.fail];
	vmemt_kernel.error = -VMEM_ENOMEM;
	vmemt_kernel.at_call = begin_now;
	assert(vmem_region_discard(region, GPA + 7 * PAGE, PAGE, &released) == -VMEM_EIO);
	assert(!released);
	assert(vmemt_kernel.failed == 1 && !vmemt_kernel.at_call);
	assert(vmemt_state(region, 7) != VMEM_PAGE_ABSENT);
	assert(vmemi_watch_has(&region->watch[which], 7));
	assert(!vmemi_watch_has(&region->watch[which], 8));
	assert(vmemi_watch_stop(region, which));
	unmake();
}

int main(void)
{
	vmemt_peers_prepare();
	vmemt_need(VMEM_KERNEL_WP);
	vmemt_cpu_start(&cpu);
	vmemt_cpu_start(&second_cpu);
	told_by_the_vmm(0);
	held(0);
	grown(0);
	grown(VMEM_REGION_FROM_SOURCE);
	kept(0, VMEMI_WATCH_DIRTY);
	kept(0, VMEMI_WATCH_GUARD);
	vmemt_need(VMEM_KERNEL_WP | VMEM_KERNEL_FILES | VMEM_KERNEL_POISON |
		   VMEM_KERNEL_KERNEL_FAULTS);
	told_by_the_vmm(VMEM_REGION_FILE);
	held(VMEM_REGION_FILE);
	grown(VMEM_REGION_FILE);
	kept(VMEM_REGION_FILE, VMEMI_WATCH_DIRTY);
	kept(VMEM_REGION_FILE, VMEMI_WATCH_GUARD);
	mapped_by_others();
	vmemt_cpu_stop(&cpu);
	vmemt_cpu_stop(&second_cpu);
	vmemt_peers_end();
	return 0;
}
