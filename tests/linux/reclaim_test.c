/* SPDX-License-Identifier: BSD-2-Clause */
/* Reclaim from within: its lock, and what holds while a batch of pages is on its way out. */
#include "linux/failing_kernel.h"
#include "linux/guest.h"
#include "linux/kernel/uffd_abi.h"
#include "pool/pool_internal.h"
#include "store/store_internal.h"
#include <sched.h>
#include <sys/mman.h>

#define PAGE VMEM_PAGE_SIZE

static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static struct vmemt_cpu cpu;

static void make(uint64_t pages, uint64_t flags)
{
	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&manager, NULL, &vmemt_kernel_table));
	cpu.region = region = vmemt_region(manager, 0, pages, flags);
	base = vmem_region_hva(region);
}

static uint64_t rounds(void)
{
	return vmemt_manager_metrics(manager).reclaim_rounds;
}

/* While somebody else holds the lock of reclaim the loop sleeps, and it goes on when the lock is free. */
static void who_waits_for_the_lock_sleeps(void)
{
	uint64_t before;
	long waits;

	make(16, 0);
	assert(!vmem_manager_thread_start(manager));
	for (unsigned i = 0; i < 3; i++) {
		vmemi_reclaim_enter(manager->reclaim);
		before = rounds();
		waits = atomic_load(&vmemt_kernel.calls[VMEMT_K_FUTEX_WAIT]);
		vmemi_host_kick_reclaim(&manager->host);
		VMEMT_UNTIL(atomic_load(&vmemt_kernel.calls[VMEMT_K_FUTEX_WAIT]) > waits);
		assert(!vmemi_reclaim_try(manager->reclaim));
		assert(rounds() == before);
		vmemi_reclaim_leave(manager->reclaim);
		VMEMT_UNTIL(rounds() > before);
	}
	vmemt_end(manager, region);
}

#define COMERS 4
#define TURNS 500

static unsigned turns[COMERS]; /* the lock of reclaim */

static void *comer(void *argument)
{
	unsigned *mine = argument, all;

	for (unsigned i = 0; i < TURNS; i++) {
		vmemi_reclaim_enter(manager->reclaim);
		all = turns[0] + turns[1] + turns[2] + turns[3];
		sched_yield();
		assert(all == turns[0] + turns[1] + turns[2] + turns[3]);
		++*mine;
		vmemi_reclaim_leave(manager->reclaim);
	}
	return NULL;
}

/* One at a time, and a loop that comes back at once keeps nobody out. */
static void in_turn(void)
{
	pthread_t thread[COMERS];

	make(16, 0);
	assert(!vmem_manager_thread_start(manager));
	for (unsigned i = 0; i < COMERS; i++)
		assert(!pthread_create(&thread[i], NULL, comer, &turns[i]));
	for (unsigned i = 0; i < COMERS; i++)
		assert(!pthread_join(thread[i], NULL));
	for (unsigned i = 0; i < COMERS; i++)
		assert(turns[i] == TURNS);
	vmemt_end(manager, region);
}

/* --- A page that is given up while the batch that it was in is on its way out --- */

static _Atomic int gave_up, discarded, staged; /* atomic; once each */

static void *give_up_page_20(void *argument)
{
	(void)argument;
	assert(!vmem_region_discard(region, 20 * PAGE, PAGE, NULL));
	atomic_store(&discarded, 1);
	return NULL;
}

/* Between the marking of two pages and the copy of the second one the VMM reads it, which cancels its mark,
 * and gives it up. Until it has done so, or waits (and serves faults meanwhile), nothing goes on. */
static bool give_up_a_page(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	const struct uffdio_copy *c = argument;
	struct vmemt_page p;
	pthread_t thread;
	long reads;

	(void)fd;
	(void)ret_result;
	if (call != VMEMT_K_COPY || c->src != (uintptr_t)base + 20 * PAGE ||
	    atomic_exchange(&gave_up, 1))
		return false;
	assert(!vmem_region_read(region, 20 * PAGE, &p, PAGE));
	reads = atomic_load(&vmemt_kernel.calls[VMEMT_K_READ]);
	assert(!pthread_create(&thread, NULL, give_up_page_20, NULL));
	assert(!pthread_detach(thread));
	VMEMT_UNTIL(atomic_load(&discarded) ||
		    atomic_load(&vmemt_kernel.calls[VMEMT_K_READ]) > reads + 10);
	return false;
}

static void *stage_two(void *argument)
{
	const uint64_t gpas[2] = { 10 * PAGE, 20 * PAGE };

	(void)argument;
	assert(!vmem_region_stage_pages(region, gpas, 2, NULL));
	atomic_store(&staged, 1);
	return NULL;
}

/* Reclaim never waits for a fault, which only it could make room for: here nobody serves any. */
static void a_batch_meets_no_hole(void)
{
	struct vmemt_page p;
	pthread_t thread;

	make(64, VMEM_REGION_DMA_PINNED);
	for (uint64_t i = 0; i < 64; i++) {
		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(region, i * PAGE, &p, PAGE));
	}
	vmemt_kernel.before = give_up_a_page;
	assert(!pthread_create(&thread, NULL, stage_two, NULL));
	VMEMT_UNTIL(atomic_load(&staged) && atomic_load(&discarded));
	assert(!pthread_join(thread, NULL));
	assert(vmemt_state(region, 10) == VMEM_PAGE_STAGED);
	assert(vmemt_state(region, 20) == VMEM_PAGE_ABSENT && !vmemt_mapped(base + 20 * PAGE));
	assert(!vmem_manager_thread_start(manager));
	for (uint64_t i = 0; i < 64; i++)
		assert(vmemt_is(&cpu, base, i, i != 20));
	vmemt_end(manager, region);
}

/* --- What the budget sees --- */

static struct vmemi_kernel watched;
static int64_t in_place;      /* frames of the region that are mapped until they are discarded */
static unsigned discards_met; /* of guest memory */

static void look(const struct iovec *ranges, size_t count, int advice)
{
	for (size_t i = 0; advice == MADV_DONTNEED && i < count; i++)
		if ((uintptr_t)ranges[i].iov_base - (uintptr_t)base < region->opts.bytes) {
			assert(atomic_load(&manager->host.frames.resident_pages) == in_place);
			discards_met++;
			return;
		}
}

static int watched_madvise(void *memory, size_t bytes, int advice)
{
	struct iovec range = { memory, bytes };

	if (base)
		look(&range, 1, advice);
	return vmemi_kernel_linux.madvise(memory, bytes, advice);
}

static ssize_t watched_madvise_vector(const struct iovec *ranges, size_t count, int advice)
{
	if (base)
		look(ranges, count, advice);
	return vmemi_kernel_linux.madvise_vector(ranges, count, advice);
}

static void expect_frames(int64_t resident, unsigned discards)
{
	assert(atomic_load(&manager->host.frames.resident_pages) == resident);
	assert(discards_met == discards);
	in_place = resident;
}

/* A frame counts until it is discarded, however it leaves. */
static void frames_count_until_they_are_gone(void)
{
	uint64_t gpas[16], pages;
	struct vmemt_page p;

	base = NULL;
	watched = vmemi_kernel_linux;
	watched.madvise = watched_madvise;
	watched.madvise_vector = watched_madvise_vector;
	assert(!vmemi_manager_new(&manager, NULL, &watched));
	region = vmemt_region(manager, 0, 64, VMEM_REGION_DMA_PINNED);
	base = vmem_region_hva(region);
	for (uint64_t i = 0; i < 64; i++) {
		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(region, i * PAGE, &p, PAGE));
	}
	expect_frames(64, 0);
	for (uint64_t i = 0; i < 16; i++)
		gpas[i] = 2 * i * PAGE;
	assert(!vmem_region_stage_pages(region, gpas, 16, &pages) && pages == 16);
	expect_frames(48, 1); /* by write-protect and copy */
	assert(!vmem_region_store(region, 0, 32 * PAGE, &pages) && pages == 16);
	for (uint64_t i = 0; i < 16; i++)
		assert(!vmem_region_resolve(region, gpas[i], 0));
	expect_frames(64, 1);
	assert(!vmem_region_stage_pages(region, gpas, 16, &pages) && pages == 16);
	expect_frames(48, 2); /* dropped: they were clean */
	assert(!vmem_region_discard(region, 0, 64 * PAGE, NULL));
	expect_frames(0, 3);
	vmemt_end(manager, region);
}

/* Every @step-th of many pages: by which way do they go? */
static struct vmem_region_metrics take_every(uint64_t step, bool others_are_hot, uint32_t way)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = VMEM_REGION_DMA_PINNED,
				      .bytes = 4096 * PAGE,
				      .fault_way = way };
	struct vmem_region_metrics m;
	uint64_t gpas[64], pages;
	struct vmemt_page p;

	manager = vmemt_manager(0);
	assert(!vmemt_alloc(&region, manager, &o));
	for (uint64_t i = 0; i < 4096; i++) {
		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(region, i * PAGE, &p, PAGE));
	}
	vmemi_ages_harvest(region);
	for (uint64_t i = 0; i < 4096; i++)
		if (others_are_hot && i % step)
			assert(!vmem_track_mark(region->ages.track, i, 1, VMEMI_AGES_NEW,
						VMEMI_AGES_PROVEN));
	for (uint64_t i = 0; i < 64; i++)
		gpas[i] = i * step * PAGE;
	assert(!vmem_region_stage_pages(region, gpas, 64, &pages) && pages == 64);
	m = vmemt_metrics(region);
	for (uint64_t i = 0; i < 4096; i++) {
		struct vmemt_page got;

		assert(!vmem_region_read(region, i * PAGE, &got, PAGE));
		vmemt_make(&p, i, 1);
		assert(!memcmp(&p, &got, PAGE));
	}
	vmemt_end(manager, region);
	return m;
}

/* Hot pages between the victims pay for a wide write-protection, if it is KVM that maps them. */
static void among_hot_pages(void)
{
	assert(take_every(2, true, VMEM_FAULT_THREAD).taken_scattered == 64);
	assert(take_every(64, true, VMEM_FAULT_THREAD).taken_run == 64);
	assert(take_every(64, false, VMEM_FAULT_THREAD).taken_scattered == 64);
	assert(take_every(64, true, VMEM_FAULT_SIGBUS).taken_scattered == 64);
}

/* --- What a fault leaves for reclaim to do --- */

/* A fault takes no lock of the store: it may come in a signal handler, over a thread that holds one. */
static void a_fault_waits_for_no_lock(uint32_t way)
{
	struct vmem_region_opts o = {
		.size = sizeof(o), .bytes = 64 * PAGE, .fault_way = way, .fault_around_pages = 1
	};
	struct vmem_pool *pool;

	manager = vmemt_manager(0);
	vmemt_catch_signals(manager);
	assert(!vmemt_alloc(&region, manager, &o));
	assert(!vmem_manager_thread_start(manager));
	cpu.region = region;
	base = vmem_region_hva(region);
	pool = manager->host.store->pool;
	for (uint64_t i = 0; i < 64; i++)
		vmemt_put(&cpu, base, i, 1);
	vmemt_store(region, 0, 64);
	for (uint64_t i = 0; i < 32; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	assert(vmemt_account(region).pages == 64);
	vmemi_lock(&vmemi_stream_at(pool, region->vm)->lock);
	vmemi_lock(&pool->lock);
	for (uint64_t i = 0; i < 64; i++) /* of clean pages, and of stored ones */
		vmemt_put(&cpu, base, i, 2);
	vmemi_unlock(&pool->lock);
	vmemi_unlock(&vmemi_stream_at(pool, region->vm)->lock);
	VMEMT_UNTIL(!vmemt_account(region).pages);
	for (uint64_t i = 0; i < 64; i++)
		assert(vmemt_is(&cpu, base, i, 2));
	vmemt_end(manager, region);
	vmemt_catch_signals(NULL);
}

/* A VM's other regions stay; what the store held for this one does not. */
static void a_region_leaves_nothing(uint32_t how)
{
	struct vmem_region_opts o = { .size = sizeof(o), .gpa = 64 * PAGE, .bytes = 64 * PAGE };
	unsigned char *other_base;
	vmem_region *other;

	make(64, 0);
	assert(!vmem_manager_thread_start(manager));
	o.same_vm_as = region;
	assert(!vmemt_alloc(&other, manager, &o));
	cpu.region = other;
	other_base = vmem_region_hva(other);
	for (uint64_t i = 0; i < 64; i++)
		vmemt_put(&cpu, other_base, i, 1);
	vmemt_store(other, 0, 64);
	for (uint64_t i = 0; i < 16; i++)
		assert(vmemt_is(&cpu, other_base, i, 1));
	assert(vmemt_account(region).pages == 64);
	assert(!vmem_region_detach(other, how));
	cpu.region = region;
	assert(!vmemt_account(region).pages);
	if (how == VMEM_DETACH_RESTORE) {
		for (uint64_t i = 0; i < 64; i++)
			assert(vmemt_is(&cpu, other_base, i, 1));
		assert(!munmap(other_base, 64 * PAGE));
	}
	vmemt_end(manager, region);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_cpu_start(&cpu);
	who_waits_for_the_lock_sleeps();
	in_turn();
	if (!vmemt_on_files()) { /* they ask for the ways of private memory */
		a_batch_meets_no_hole();
		frames_count_until_they_are_gone();
		among_hot_pages();
	}
	a_fault_waits_for_no_lock(VMEM_FAULT_THREAD);
	a_fault_waits_for_no_lock(VMEM_FAULT_SIGBUS);
	a_region_leaves_nothing(VMEM_DETACH_DISCARD);
	a_region_leaves_nothing(VMEM_DETACH_RESTORE);
	vmemt_cpu_stop(&cpu);
	return 0;
}
