/* SPDX-License-Identifier: BSD-2-Clause */
/* A region that grows: step by step while threads use it under a budget that is too small, as memory of the
 * library's and of the VMM's, with a source, a dirty log, rounds of a migration and snapshots; and refused where
 * it must be. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux/growing.h"
#include "linux/guest.h"
#include "linux/snapshot_tape.h"
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vmem/grow.h>
#include <vmem/source.h>
#include <vmem/working_set.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define GPA VMEMT_GROWING_GPA

static struct vmemt_cpu cpu;

static vmem_region *make(vmem_manager *m, const struct vmem_region_opts *o)
{
	vmem_region *r;

	assert(!vmemt_alloc(&r, m, o));
	cpu.region = r;
	return r;
}

static int grow(vmem_region *r, uint64_t pages)
{
	return vmem_region_grow(r, pages * PAGE);
}

/* --- What it may and may not --- */

static void sizes_are_checked(void)
{
	struct vmem_region_opts o = vmemt_growing_options(8, 7),
				other = vmemt_growing_options(1, 0);
	vmem_manager *m = vmemt_manager(0);
	vmem_region *r, *neighbour;

	assert(vmemt_alloc(&r, m, &o) == -VMEM_EINVAL);
	o.max_bytes = 8 * PAGE + 1;
	assert(vmemt_alloc(&r, m, &o) == -VMEM_EINVAL);
	o.max_bytes = (UINT64_C(16) << 40) + PAGE;
	assert(vmemt_alloc(&r, m, &o) == -VMEM_EINVAL);
	o.max_bytes = 0;
	r = make(m, &o);
	assert(!grow(r, 8) && grow(r, 9) == -VMEM_ERANGE);
	assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
	o.max_bytes = 100 * PAGE;
	r = make(m, &o);
	assert(vmem_region_grow(NULL, PAGE) == -VMEM_EINVAL);
	assert(vmem_region_grow(r, 9 * PAGE + 1) == -VMEM_EINVAL);
	assert(grow(r, 7) == -VMEM_EINVAL && grow(r, 101) == -VMEM_ERANGE && !grow(r, 8));
	/* What it may become is its own. */
	other.same_vm_as = r;
	other.gpa = GPA + 99 * PAGE;
	assert(vmemt_alloc(&neighbour, m, &other) == -VMEM_EEXIST);
	other.gpa = GPA + 100 * PAGE;
	assert(!vmemt_alloc(&neighbour, m, &other));
	assert(!grow(r, 100) && vmemt_metrics(r).bytes == 100 * PAGE);
	assert(!vmem_region_detach(neighbour, VMEM_DETACH_DISCARD));
	vmemt_end(m, r);
}

static void new_pages_are_like_others(uint32_t way)
{
	struct vmem_region_opts o = vmemt_growing_options(64, 300);
	vmem_manager *m = vmemt_manager(0);
	uint64_t word, metadata;
	unsigned char *base;
	vmem_region *r;

	o.fault_way = way;
	r = make(m, &o);
	base = vmem_region_hva(r);
	vmemt_catch_signals(way == VMEM_FAULT_SIGBUS ? m : NULL);
	assert(!vmem_manager_thread_start(m));
	for (uint64_t page = 0; page < 64; page++)
		vmemt_put(&cpu, base, page, 1);
	vmemt_store(r, 0, 32);
	metadata = vmemt_manager_metrics(m).metadata_bytes;
	/* Before it grows there is nothing to touch, and nothing that the kernel alone would answer. */
	cpu.region = NULL;
	assert(vmemt_touch(&cpu, VMEMT_READ, base + 64 * PAGE, &word, 8) == SIGSEGV);
	assert(vmem_region_page_state(r, GPA + 64 * PAGE) == -VMEM_ERANGE);
	assert(vmem_region_resolve(r, GPA + 64 * PAGE, 1) == -VMEM_ERANGE);
	cpu.region = r;
	for (uint64_t pages = 64; pages < 300; pages += 59) {
		assert(!grow(r, pages + 59));
		assert(vmemt_state(r, pages) == VMEM_PAGE_ABSENT);
		for (uint64_t page = pages; page < pages + 59; page++)
			vmemt_put(&cpu, base, page, 2);
		vmemt_store(r, pages - 5, 30);
		vmemt_stage(r, pages + 30, 20);
		vmemt_check(m, r);
	}
	assert(vmemt_manager_metrics(m).metadata_bytes > metadata);
	for (uint64_t page = 0; page < 300; page++)
		assert(vmemt_is(&cpu, base, page, page < 64 ? 1 : 2));
	assert(!vmem_region_discard(r, GPA + 200 * PAGE, 100 * PAGE, NULL));
	assert(vmemt_is(&cpu, base, 299, 0));
	vmemt_catch_signals(NULL);
	vmemt_end(m, r);
}

/* The maximum of 1 TiB takes address space, and what is used of it memory. */
static void a_large_maximum_costs_nothing(void)
{
	struct vmem_region_opts o = vmemt_growing_options(64, MIB << 8);
	vmem_manager *m = vmemt_manager(0);
	uint64_t metadata;
	vmem_region *r;

	if (vmemt_alloc(&r, m, &o)) { /* the process may not have so much */
		fprintf(stderr, "no region that may become 1 TiB\n");
		assert(!vmem_manager_free(m));
		return;
	}
	metadata = vmemt_manager_metrics(m).metadata_bytes;
	assert(metadata < 2 * MIB);
	assert(!grow(r, 64 << 8));
	/* A word, a count of pins, an age and a state for each page at least. */
	assert(vmemt_manager_metrics(m).metadata_bytes - metadata >= ((64 << 8) - 4096) * 12);
	assert(!vmem_region_resolve(r, GPA + ((64 << 8) - 1) * PAGE, 1));
	assert(vmemt_manager_metrics(m).metadata_bytes < 4 * MIB);
	vmemt_end(m, r);
}

/* --- Attached memory --- */

/* The first @pages of 200 that are mapped. */
static vmem_region *attach_some(vmem_manager *m, uint64_t pages, unsigned char **ret_memory,
				int *ret_fd)
{
	vmem_region *r;

	*ret_memory = vmemt_growing_map(200, ret_fd);
	assert(!vmemt_growing_attach(&r, m, vmemt_growing_options(pages, 200), *ret_memory,
				     *ret_fd));
	cpu.region = r;
	return r;
}

static void attached_memory_keeps_its_contents(void)
{
	vmem_manager *m = vmemt_manager(0);
	unsigned char *memory;
	vmem_region *r;
	int fd;

	r = attach_some(m, 50, &memory, &fd);
	assert(!vmem_manager_thread_start(m));
	assert(!grow(r, 120) && !grow(r, 200));
	assert(vmemt_metrics(r).pages[VMEM_PAGE_RESIDENT] == 100);
	assert(vmemt_metrics(r).pages[VMEM_PAGE_ABSENT] == 100);
	vmemt_check(m, r);
	if (vmemt_on_files()) { /* scattered pages, and a hole in each range */
		uint64_t gpas[100], pages;

		for (uint64_t i = 0; i < 100; i++)
			gpas[i] = GPA + 2 * i * PAGE;
		assert(!vmem_region_stage_pages(r, gpas, 100, &pages) && pages == 100);
	} else {
		assert(!vmem_region_stage(r, GPA, 200 * PAGE, NULL));
	}
	assert(!vmem_region_store(r, GPA, 200 * PAGE, NULL));
	for (uint64_t page = 0; page < 200; page++)
		assert(vmemt_is(&cpu, memory, page, page % 2 ? 0 : 1));
	assert(!vmem_region_detach(r, VMEM_DETACH_RESTORE));
	cpu.region = NULL;
	for (uint64_t page = 0; page < 200; page++)
		assert(vmemt_is(&cpu, memory, page, page % 2 ? 0 : 1));
	assert(!vmem_manager_free(m));
	vmemt_growing_unmap(memory, 200, fd);
}

static void attached_memory_is_looked_at(void)
{
	vmem_manager *m = vmemt_manager(0);
	unsigned char *memory;
	vmem_region *r;
	int fd;

	memory = vmemt_growing_map(200, &fd);
	if (fd >= 0)
		assert(!ftruncate(fd, 60 * PAGE));
	assert(!vmemt_growing_attach(&r, m, vmemt_growing_options(50, 200), memory, fd));
	if (fd >= 0) {
		assert(grow(r, 61) == -VMEM_EINVAL && !grow(r, 60));
		assert(!ftruncate(fd, 200 * PAGE));
	}
	assert(!munmap(memory + 100 * PAGE, 100 * PAGE));
	assert(grow(r, 200) == -VMEM_ENOTSUP); /* not mapped */
	assert(!mprotect(memory + 90 * PAGE, PAGE, PROT_READ));
	assert(grow(r, 100) == -VMEM_ENOTSUP);
	assert(vmemt_metrics(r).bytes == (fd >= 0 ? 60 : 50) * PAGE);
	assert(!grow(r, 90));
	assert(vmemt_metrics(r).bytes == 90 * PAGE);
	vmemt_end(m, r);
	vmemt_growing_unmap(memory, 100, fd);
}

/* What mremap() adds to a mapping of the region has its userfaultfd before it is looked at. */
static void mremap_is_refused(void)
{
	vmem_manager *m = vmemt_manager(0);
	unsigned char *memory, *more;
	vmem_region *r;
	int fd, flags = MAP_PRIVATE | MAP_ANONYMOUS;

	memory = vmemt_growing_map(200, &fd);
	if (fd >= 0)
		flags = MAP_SHARED;
	/* So that nothing else comes there. For the same reason no thread of the library runs meanwhile. */
	more = mmap(memory + 50 * PAGE, 150 * PAGE, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	assert(more == memory + 50 * PAGE);
	assert(!vmemt_growing_attach(&r, m, vmemt_growing_options(50, 200), memory, fd));
	cpu.region = r;
	assert(!munmap(more, 150 * PAGE));
	assert(mremap(memory, 50 * PAGE, 200 * PAGE, 0) == memory);
	assert(grow(r, 200) == -VMEM_EBUSY && vmemt_metrics(r).bytes == 50 * PAGE);
	assert(!munmap(memory + 50 * PAGE, 150 * PAGE));
	more = mmap(memory + 50 * PAGE, 150 * PAGE, PROT_READ | PROT_WRITE,
		    flags | MAP_FIXED_NOREPLACE, fd, 50 * PAGE);
	assert(more == memory + 50 * PAGE && !grow(r, 200));
	assert(!vmem_manager_thread_start(m));
	vmemt_put(&cpu, memory, 199, 3);
	assert(vmemt_is(&cpu, memory, 199, 3));
	vmemt_end(m, r);
	vmemt_growing_unmap(memory, 200, fd);
}

/* --- Who else follows --- */

static void quiesced_regions_stay(void)
{
	vmem_manager *m = vmemt_manager(0);
	unsigned char *memory;
	vmem_region *r;
	int fd;

	r = attach_some(m, 70, &memory, &fd);
	assert(!vmem_manager_thread_start(m));
	assert(!vmem_region_quiesce(r));
	assert(grow(r, 150) == -VMEM_EBUSY && vmemt_metrics(r).bytes == 70 * PAGE);
	assert(vmem_region_page_state(r, GPA + 70 * PAGE) == -VMEM_ERANGE);
	assert(!vmem_region_resume(r));
	assert(!grow(r, 150));
	vmemt_put(&cpu, memory, 149, 3);
	assert(vmemt_is(&cpu, memory, 149, 3) && vmemt_is(&cpu, memory, 148, 1));
	vmemt_end(m, r);
	vmemt_growing_unmap(memory, 200, fd);
}

static void snapshots_have_the_new_size(void)
{
	struct vmem_region_opts o = vmemt_growing_options(70, 200);
	vmem_manager *m = vmemt_manager(0);
	vmem_region *r = make(m, &o);
	struct vmemt_tape tape;

	vmemt_tape_init(&tape);
	assert(!vmem_manager_thread_start(m) && !grow(r, 160));
	for (uint64_t page = 0; page < 160; page += 3)
		vmemt_put(&cpu, vmem_region_hva(r), page, 1);
	assert(!vmemt_tape_save(&tape, r, 0, NULL));
	assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
	r = make(m, &o);
	assert(vmemt_tape_load(&tape, r, NULL) == -VMEM_ERANGE);
	assert(!grow(r, 160) && !vmemt_tape_load(&tape, r, NULL));
	for (uint64_t page = 0; page < 160; page++)
		assert(vmemt_is(&cpu, vmem_region_hva(r), page, page % 3 ? 0 : 1));
	vmemt_tape_free(&tape);
	vmemt_end(m, r);
}

static int read_source(void *context, uint64_t gpa, void *buffer)
{
	assert(context == &cpu);
	vmemt_make(buffer, (gpa - GPA) / PAGE, 7);
	return 0;
}

static void sources_follow(void)
{
	struct vmem_region_opts o = vmemt_growing_options(70, 5000);
	vmem_manager *m = vmemt_manager(0);
	vmem_region *r;

	o.flags = VMEM_REGION_FROM_SOURCE;
	o.read_source = read_source;
	o.context = &cpu;
	r = make(m, &o);
	assert(!vmem_manager_thread_start(m) && !grow(r, 4999));
	assert(vmemt_metrics(r).pages[VMEM_PAGE_SOURCE] == 4999);
	assert(vmemt_is(&cpu, vmem_region_hva(r), 69, 7));
	assert(vmemt_is(&cpu, vmem_region_hva(r), 70, 7));
	assert(vmemt_is(&cpu, vmem_region_hva(r), 4998, 7));
	vmemt_end(m, r);
}

static _Atomic uint64_t logged_bytes; /* atomic; what the dirty log was asked for last */

static int dirty_log(void *context, uint64_t gpa, uint64_t bytes, uint64_t *bitmap)
{
	assert(context == &cpu && gpa == GPA);
	for (uint64_t i = 0; i < (bytes / PAGE + 63) / 64; i++) {
		assert(!bitmap[i]);
		bitmap[i] = UINT64_MAX;
	}
	atomic_store(&logged_bytes, bytes);
	return 0;
}

static void dirty_logs_follow(void)
{
	struct vmem_region_opts o = vmemt_growing_options(70, 1000);
	vmem_manager *m = vmemt_manager(0);
	vmem_region *r;

	o.dirty_log = dirty_log;
	o.context = &cpu;
	r = make(m, &o);
	for (uint64_t pages = 70; pages <= 1000; pages += 465) {
		assert(!grow(r, pages));
		assert(!vmem_region_resolve(r, GPA + (pages - 1) * PAGE, 1));
		vmemi_reclaim_enter(m->reclaim);
		r->feed.next_ns = 0;
		r->ages.period_ns = 0;
		vmemi_ages_tick(r, m->host.k->clock_ns());
		vmemi_reclaim_leave(m->reclaim);
		assert(atomic_load(&logged_bytes) == pages * PAGE);
	}
	assert(vmemt_metrics(r).feed_pages > 0);
	vmemt_end(m, r);
}

static int note(void *context, uint64_t gpa, uint64_t bytes)
{
	uint8_t *told = context;

	for (uint64_t page = (gpa - GPA) / PAGE; page < (gpa - GPA + bytes) / PAGE; page++)
		told[page] = 1;
	return 0;
}

static void rounds_tell_new_pages(void)
{
	vmem_manager *m = vmemt_manager(0);
	uint8_t told[200] = { 0 };
	unsigned char *memory;
	uint64_t pages;
	vmem_region *r;
	int fd;

	if (vmemt_on_files()) { /* there are no rounds */
		assert(!vmem_manager_free(m));
		return;
	}
	r = attach_some(m, 50, &memory, &fd);
	assert(!vmem_manager_thread_start(m) && !vmem_region_dirty_start(r));
	assert(!vmem_region_dirty_round(r, GPA, 50 * PAGE, note, told, &pages) && pages == 25);
	assert(!grow(r, 200));
	assert(!vmem_region_dirty_round(r, GPA, 200 * PAGE, note, told, &pages) && pages == 75);
	for (uint64_t page = 0; page < 200; page++)
		assert(told[page] == (page % 2 == 0));
	vmemt_put(&cpu, memory, 199, 4);
	vmemt_put(&cpu, memory, 198, 4);
	assert(!vmem_region_dirty_round(r, GPA, 200 * PAGE, note, told, &pages) && pages == 2);
	assert(!vmem_region_dirty_stop(r));
	vmemt_put(&cpu, memory, 198, 5);
	vmemt_end(m, r);
	vmemt_growing_unmap(memory, 200, fd);
}

/* A set that is recorded meanwhile is one of the region as it is then. */
static void working_sets_have_the_new_size(void)
{
	struct vmem_working_set_record_opts how = { .size = sizeof(how) };
	struct vmem_working_set_info info = { .size = sizeof(info) };
	struct vmem_region_opts o = vmemt_growing_options(70, 200);
	vmem_manager *m = vmemt_manager(0);
	vmem_region *r = make(m, &o);
	vmem_working_set *set;

	assert(!vmem_manager_thread_start(m) && !vmem_working_set_record_start(r, &how));
	vmemt_put(&cpu, vmem_region_hva(r), 69, 1);
	assert(!grow(r, 150));
	vmemt_put(&cpu, vmem_region_hva(r), 149, 1);
	assert(!vmem_working_set_record_stop(r, &set));
	assert(!vmem_working_set_get_info(set, &info));
	assert(info.region_bytes == 150 * PAGE && info.pages == 1);
	vmem_working_set_free(set);
	vmemt_end(m, r);
}

/* --- While it is used --- */

#define THREADS 4
#define FIRST 256
#define MOST 4096
#define STEP_OPERATIONS 60
#define LAST_OPERATIONS 4000

static unsigned char *base;
static _Atomic uint64_t usable; /* atomic; pages that have come to be */
static _Atomic uint64_t done;   /* atomic; operations of all */
static _Atomic uint32_t enough; /* atomic; threads end */

struct worker {
	pthread_t thread;
	uint64_t index, seed;
	uint32_t version[MOST / THREADS];
};

/* Reads the page, and now and then gives it another version. */
static void use(struct worker *w, uint64_t i, uint64_t dice)
{
	struct vmemt_page want;
	uint64_t page = i * THREADS + w->index;

	vmemt_make(&want, page, w->version[i]);
	assert(!memcmp(base + page * PAGE, &want, PAGE));
	if (dice % 3)
		return;
	vmemt_make(&want, page, ++w->version[i]);
	memcpy(base + page * PAGE, &want, PAGE);
}

static void *worker(void *argument)
{
	struct worker *w = argument;
	uint64_t rng = w->seed;

	while (!atomic_load(&enough)) {
		uint64_t own = atomic_load(&usable) / THREADS;
		/* Every other one near the end. */
		uint64_t i = vmemt_rand(&rng) % 2 ? vmemt_rand(&rng) % own
						  : own - 1 - vmemt_rand(&rng) % 32;

		use(w, i, vmemt_rand(&rng));
		atomic_fetch_add(&done, 1);
	}
	for (uint64_t i = 0; i < MOST / THREADS; i++)
		use(w, i, 1);
	return NULL;
}

static void while_threads_use_it(void)
{
	static struct worker w[THREADS];
	uint64_t rng = vmemt_seed("while_threads_use_it");
	struct vmem_region_opts o = vmemt_growing_options(FIRST, MOST);
	vmem_manager *m = vmemt_manager(10 * MIB);
	vmem_region *r;

	o.flags = VMEM_REGION_DMA_PINNED;
	o.fault_around_pages = 16;
	r = make(m, &o);
	base = vmem_region_hva(r);
	atomic_store(&usable, FIRST);
	assert(!vmem_manager_thread_start(m));
	for (unsigned i = 0; i < THREADS; i++) {
		w[i].index = i;
		w[i].seed = vmemt_rand(&rng);
		assert(!pthread_create(&w[i].thread, NULL, worker, &w[i]));
	}
	for (uint64_t pages = FIRST; pages < MOST;) {
		vmemt_until_more(&done, STEP_OPERATIONS);
		pages += 1 + vmemt_rand(&rng) % 128;
		pages = pages < MOST ? pages : MOST;
		assert(!grow(r, pages));
		atomic_store(&usable, pages);
	}
	vmemt_until_more(&done, LAST_OPERATIONS);
	atomic_store(&enough, 1);
	for (unsigned i = 0; i < THREADS; i++)
		assert(!pthread_join(w[i].thread, NULL));
	/* All were touched in the end, and do not fit. */
	assert(vmemt_metrics(r).pages[VMEM_PAGE_RESIDENT] < MOST);
	vmemt_end(m, r);
}

int main(void)
{
	vmemt_need(0);
	vmemt_cpu_start(&cpu);
	vmemt_catch_signals(NULL);
	sizes_are_checked();
	new_pages_are_like_others(VMEM_FAULT_THREAD);
	new_pages_are_like_others(VMEM_FAULT_SIGBUS);
	a_large_maximum_costs_nothing();
	attached_memory_keeps_its_contents();
	attached_memory_is_looked_at();
	mremap_is_refused();
	quiesced_regions_stay();
	snapshots_have_the_new_size();
	sources_follow();
	dirty_logs_follow();
	rounds_tell_new_pages();
	working_sets_have_the_new_size();
	while_threads_use_it();
	vmemt_cpu_stop(&cpu);
	return 0;
}
