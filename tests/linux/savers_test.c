/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads that save staged pages: what the others can do meanwhile, and who waits for them. A page that does
 * not compress is put back by who saves, with a system call in which the test can hold it. */
#include "linux/failing_kernel.h"
#include "linux/guest.h"
#include "linux/kernel/uffd_abi.h"
#include "pool/pool_internal.h"
#include "store/store_internal.h"
#include <sched.h>
#include <vmem/snapshot.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define PAGES 1024
#define NOISE 5 /* the page that does not compress */

static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static struct vmemt_cpu cpu;
static _Atomic int hold, held; /* atomic; by the page NOISE */

static bool is_saver(void)
{
	for (uint32_t i = 0; i < manager->opts.save_threads; i++)
		if (pthread_equal(pthread_self(), manager->save_thread[i]))
			return true;
	return false;
}

static bool hold_it(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	const struct vmemi_uffdio_move *m = argument;

	(void)fd;
	(void)ret_result;
	if (call != VMEMT_K_MOVE || m->dst != (uintptr_t)base + NOISE * PAGE)
		return false;
	if (atomic_load(&hold))
		assert(is_saver());
	atomic_store(&held, 1);
	VMEMT_UNTIL(!atomic_load(&hold));
	return false;
}

static struct vmemi_savers *savers(void)
{
	return &manager->reclaim->savers;
}

static void name(uint64_t first, uint32_t count)
{
	uint64_t pages[PAGES];

	for (uint32_t i = 0; i < count; i++)
		pages[i] = first + i;
	vmemi_reclaim_enter(manager->reclaim);
	vmemi_savers_add(savers(), region, pages, count);
	vmemi_reclaim_leave(manager->reclaim);
}

/* All pages are in staging, and one saver is held at NOISE. */
static void make(void)
{
	struct vmem_manager_opts o = { .size = sizeof(o), .save_threads = 2 };
	struct vmemt_page p;

	vmemt_kernel_reset();
	vmemt_kernel.before = hold_it;
	assert(!vmemi_manager_new(&manager, &o, &vmemt_kernel_table));
	cpu.region = region = vmemt_region(manager, 0, PAGES, 0);
	base = vmem_region_hva(region);
	assert(!vmem_manager_thread_start(manager));
	for (uint64_t i = 0; i < PAGES; i++)
		vmemt_put(&cpu, base, i, 1);
	vmemt_page_make(&p, VMEMT_PAGE_NOISE, NOISE);
	assert(!vmemt_touch(&cpu, VMEMT_WRITE, base + NOISE * PAGE, &p, PAGE));
	vmemt_stage(region, 0, PAGES);
	atomic_store(&held, 0);
	atomic_store(&hold, 1);
	name(0, 16);
	VMEMT_UNTIL(atomic_load(&held));
}

static void let_go(void)
{
	atomic_store(&hold, 0);
	VMEMT_UNTIL(!atomic_load(&savers()->pending));
}

static void check_all(void)
{
	struct vmemt_page got;

	for (uint64_t i = 0; i < PAGES; i++)
		if (i != NOISE)
			assert(vmemt_is(&cpu, base, i, 1));
	assert(!vmemt_touch(&cpu, VMEMT_READ, base + NOISE * PAGE, &got, PAGE));
	assert(vmemt_page_is(&got, VMEMT_PAGE_NOISE, NOISE));
}

/* It holds nothing that anybody else needs. */
static void nobody_waits_for_a_saver(void)
{
	make();
	VMEMT_UNTIL(vmemi_reclaim_try(manager->reclaim));
	vmemi_reclaim_leave(manager->reclaim);
	for (uint64_t i = 0; i < NOISE; i++)
		assert(vmemt_state(region, i) == VMEM_PAGE_STORED);
	assert(vmemt_is(&cpu, base, 3, 1));  /* saved */
	assert(vmemt_is(&cpu, base, 9, 1));  /* to be saved */
	assert(vmemt_is(&cpu, base, 40, 1)); /* staged */
	vmemt_put(&cpu, base, 10, 2);
	name(16, 8); /* for the other one */
	for (uint64_t i = 16; i < 24; i++)
		VMEMT_UNTIL(vmemt_state(region, i) == VMEM_PAGE_STORED);
	assert(!vmem_region_discard(region, 50 * PAGE, PAGE, NULL));
	let_go();
	/* Those that came back before their turn were left alone. */
	assert(vmemt_state(region, 9) == VMEM_PAGE_RESIDENT);
	assert(vmemt_state(region, 10) == VMEM_PAGE_RESIDENT);
	assert(vmemt_state(region, 11) == VMEM_PAGE_STORED);
	assert(vmemt_metrics(region).rejected == 1);
	assert(vmemt_is(&cpu, base, 10, 2) && vmemt_is(&cpu, base, 50, 0));
	vmemt_put(&cpu, base, 10, 1);
	vmemt_put(&cpu, base, 50, 1);
	check_all();
	vmemt_end(manager, region);
}

static _Atomic int over; /* atomic */

static void *store_all(void *argument)
{
	uint64_t pages = 0;

	assert(!vmem_region_store(region, 0, PAGES * PAGE, &pages));
	*(uint64_t *)argument = pages;
	atomic_store(&over, 1);
	return NULL;
}

static void a_call_saves_beside_them(void)
{
	pthread_t thread;
	uint64_t pages;

	make();
	name(100, 400);
	atomic_store(&over, 0);
	assert(!pthread_create(&thread, NULL, store_all, &pages));
	VMEMT_UNTIL(atomic_load(&over));
	assert(!pthread_join(thread, NULL));
	for (uint64_t i = 0; i < PAGES; i++)
		assert(i == NOISE || vmemt_state(region, i) == VMEM_PAGE_STORED);
	let_go();
	check_all();
	vmemt_end(manager, region);
}

static void *store_one(void *argument)
{
	assert(!vmem_region_store(region, 0, PAGE, argument));
	atomic_store(&over, 1);
	return NULL;
}

/* A page that another is saving is stored when the call returns. */
static void a_call_waits_for_them(void)
{
	struct vmemi_lock *stream;
	uint64_t pages = 0;
	pthread_t thread;

	manager = vmemt_manager(0);
	cpu.region = region = vmemt_region(manager, 0, PAGES, 0);
	base = vmem_region_hva(region);
	stream = &vmemi_stream_at(manager->host.store->pool, region->vm)->lock;
	assert(!vmem_manager_thread_start(manager));
	vmemt_put(&cpu, base, 0, 1);
	vmemt_stage(region, 0, 1);
	vmemi_lock(stream); /* no save ends */
	name(0, 1);
	VMEMT_UNTIL(vmemt_state(region, 0) == VMEM_PAGE_STORING);
	atomic_store(&over, 0);
	assert(!pthread_create(&thread, NULL, store_one, &pages));
	for (unsigned i = 0; i < 2000 && !atomic_load(&over); i++)
		sched_yield();
	assert(!atomic_load(&over));
	vmemi_unlock(stream);
	assert(!pthread_join(thread, NULL));
	assert(pages <= 1 && vmemt_state(region, 0) == VMEM_PAGE_STORED);
	assert(vmemt_is(&cpu, base, 0, 1));
	vmemt_end(manager, region);
}

static void *quiesce(void *argument)
{
	assert(!vmem_region_quiesce(argument));
	atomic_store(&over, 1);
	return NULL;
}

static void *detach(void *argument)
{
	assert(!vmem_region_detach(argument, VMEM_DETACH_DISCARD));
	atomic_store(&over, 1);
	return NULL;
}

/* A region is at rest, or gone, when its savers have left it; what waits of it is forgotten. */
static void waits_for_a_saver(void *(*call)(void *))
{
	pthread_t thread;

	make();
	name(60, 1);
	VMEMT_UNTIL(vmemt_state(region, 60) == VMEM_PAGE_STORED);
	atomic_store(&over, 0);
	assert(!pthread_create(&thread, NULL, call, region));
	VMEMT_UNTIL(atomic_load(&savers()->waiters));
	assert(!atomic_load(&over));
	let_go();
	VMEMT_UNTIL(atomic_load(&over));
	assert(!pthread_join(thread, NULL));
	if (call == quiesce) {
		uint64_t pages;

		assert(vmem_region_store(region, 0, PAGES * PAGE, &pages) == -VMEM_EBUSY);
		assert(!vmem_region_resume(region));
		check_all();
		vmemt_end(manager, region);
	} else {
		assert(!vmem_manager_free(manager));
	}
}

static void *stop(void *argument)
{
	vmem_manager_thread_stop(argument);
	atomic_store(&over, 1);
	return NULL;
}

/* When the threads have ended nothing is left with them, and nothing is lost; then they start again. */
static void stop_and_start(void)
{
	pthread_t thread;

	make();
	name(0, PAGES); /* more than there is room for */
	assert(atomic_load(&savers()->pending) <= VMEMI_SAVERS_QUEUE + 2 * VMEMI_SAVERS_PIECE);
	atomic_store(&over, 0);
	assert(!pthread_create(&thread, NULL, stop, manager));
	VMEMT_UNTIL(atomic_load(&savers()->stop));
	assert(!atomic_load(&over));
	let_go();
	VMEMT_UNTIL(atomic_load(&over));
	assert(!pthread_join(thread, NULL));
	assert(!atomic_load(&savers()->pending) && !atomic_load(&savers()->threads));
	assert(!vmemi_savers_help(savers()));
	assert(vmemt_state(region, PAGES - 1) == VMEM_PAGE_STAGED);
	assert(!vmemi_region_check(region));
	assert(!vmem_manager_thread_start(manager));
	for (uint64_t i = 0; i < PAGES; i += 64) {
		name(i, 64);
		VMEMT_UNTIL(!atomic_load(&savers()->pending));
	}
	assert(vmemt_state(region, PAGES - 1) == VMEM_PAGE_STORED);
	check_all();
	vmemt_end(manager, region);
}

/* --- Under a budget --- */

static _Atomic int told;  /* atomic; enum vmem_manager_event */
static _Atomic int stuck; /* atomic; it was told, once */

static void on_event(void *context, enum vmem_manager_event event, uint64_t a, uint64_t b)
{
	assert(context == &told && a && b);
	if (event == VMEM_MANAGER_STUCK)
		atomic_store(&stuck, 1);
	atomic_store(&told, event);
}

/* All that is saved is saved by them, until the budget is full; then the VMM is told, and it goes on when
 * there is more. */
static void they_fill_the_budget(uint32_t threads)
{
	const struct vmem_manager_opts o = { .size = sizeof(o),
					     .budget_bytes = 5 * MIB,
					     .on_event = on_event,
					     .context = &told,
					     .cold_after_ms = 3600000,
					     .save_threads = threads };
	const uint64_t pages = 8192;
	bool pending = false;
	struct vmemt_page p;
	uint64_t i;

	assert(!vmem_manager_new(&manager, &o));
	assert(vmemt_manager_metrics(manager).save_threads == (threads ? threads : 1) ||
	       (!threads && vmemt_manager_metrics(manager).save_threads <= 4));
	cpu.region = region = vmemt_region(manager, 0, pages, 0);
	base = vmem_region_hva(region);
	assert(!vmem_manager_thread_start(manager));
	atomic_store(&stuck, 0);
	for (i = 0; i < pages && !atomic_load(&stuck); i++) {
		vmemt_make(&p, i, 1);
		vmemt_touch_begin(&cpu, VMEMT_WRITE, base + i * PAGE, &p, PAGE);
		VMEMT_UNTIL(vmemt_touch_over(&cpu) || atomic_load(&stuck));
		pending = !vmemt_touch_over(&cpu);
		if (!pending)
			assert(!vmemt_touch_end(&cpu));
	}
	assert(i < pages && atomic_load(&stuck));
	assert(vmemt_metrics(region).saved && vmemt_manager_metrics(manager).save_ns);
	assert(!vmem_manager_set_budget(manager, 64 * MIB));
	VMEMT_UNTIL((!pending || vmemt_touch_over(&cpu)) &&
		    atomic_load(&told) == VMEM_MANAGER_UNSTUCK);
	if (pending)
		assert(!vmemt_touch_end(&cpu));
	while (i-- > 0)
		assert(vmemt_is(&cpu, base, i, 1));
	vmemt_end(manager, region);
}

static void bad_options(void)
{
	struct vmem_manager_opts o = { .size = sizeof(o), .save_threads = VMEMI_SAVERS_MAX + 1 };

	assert(vmem_manager_new(&manager, &o) == -VMEM_EINVAL);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_cpu_start(&cpu);
	bad_options();
	nobody_waits_for_a_saver();
	a_call_saves_beside_them();
	a_call_waits_for_them();
	waits_for_a_saver(quiesce);
	waits_for_a_saver(detach);
	stop_and_start();
	they_fill_the_budget(0);
	they_fill_the_budget(3);
	vmemt_cpu_stop(&cpu);
	return 0;
}
