/* SPDX-License-Identifier: BSD-2-Clause */
/* Working sets of real memory: what is recorded of faults, in which order; what a replay brings, and what not. */
#include "linux/guest.h"
#include "linux/snapshot_tape.h"
#include "support/fail_alloc.h"
#include "support/rng.h"
#include "support/slow.h"
#include <sched.h>
#include <stdlib.h>
#include <vmem/working_set.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define GPA (UINT64_C(5) << 32)
#define PAGES 4096
#define CPUS 4

static struct vmemt_cpu cpus[CPUS];
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;

static int give(void *context, uint64_t gpa, void *buffer)
{
	(void)context;
	vmemt_make(buffer, (gpa - GPA) / PAGE, 1);
	return 0;
}

static void make(uint32_t way, uint64_t budget, bool from_source, uint32_t around)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = from_source ? VMEM_REGION_FROM_SOURCE : 0,
				      .gpa = GPA,
				      .bytes = PAGES * PAGE,
				      .fault_way = way,
				      .fault_around_pages = around,
				      .fault_deadline_ms = 3600000,
				      .read_source = from_source ? give : NULL };

	manager = vmemt_manager(budget);
	vmemt_catch_signals(manager);
	assert(!vmemt_alloc(&region, manager, &o));
	assert(!vmem_manager_thread_start(manager));
	base = vmem_region_hva(region);
	for (unsigned i = 0; i < CPUS; i++)
		cpus[i].region = region;
}

static void end(void)
{
	vmemt_end(manager, region);
}

/* All pages have contents, and are in the store. */
static void fill(void)
{
	struct vmemt_page p;

	for (uint64_t i = 0; i < PAGES; i++) {
		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(region, GPA + i * PAGE, &p, PAGE));
	}
}

static void all_out(void)
{
	uint64_t left = 77;

	assert(!vmem_region_evict_all(region, &left) && !left);
}

static uint64_t in_place(void)
{
	struct vmem_region_metrics m = vmemt_metrics(region);

	return m.pages[VMEM_PAGE_RESIDENT] + m.pages[VMEM_PAGE_CLEAN];
}

static bool is_in_place(uint64_t page)
{
	enum vmem_page_state s = vmemt_state(region, page);

	return s == VMEM_PAGE_RESIDENT || s == VMEM_PAGE_CLEAN;
}

static void touch(struct vmemt_cpu *cpu, uint64_t page)
{
	uint64_t word;

	assert(!vmemt_touch(cpu, page % 2 ? VMEMT_READ : VMEMT_WRITE, base + page * PAGE + PAGE - 8,
			    &word, 8));
}

static void record(void)
{
	assert(!vmem_working_set_record_start(region, NULL));
}

static vmem_working_set *recorded(void)
{
	vmem_working_set *set = NULL;

	assert(!vmem_working_set_record_stop(region, &set) && set);
	return set;
}

static struct vmem_working_set_info info_of(const vmem_working_set *set)
{
	struct vmem_working_set_info i = { .size = sizeof(i) };

	assert(!vmem_working_set_get_info(set, &i));
	return i;
}

/* --- What is recorded --- */

struct list {
	uint64_t pages[PAGES];
	uint64_t count;
};

static int list_run(void *context, uint64_t gpa, uint64_t bytes)
{
	struct list *l = context;

	assert(gpa % PAGE == 0 && bytes && bytes % PAGE == 0);
	for (uint64_t at = gpa; at < gpa + bytes; at += PAGE) {
		assert(at >= GPA && at < GPA + PAGES * PAGE && l->count < PAGES);
		l->pages[l->count++] = (at - GPA) / PAGE;
	}
	return 0;
}

static void list_set(const vmem_working_set *set, struct list *ret_list)
{
	ret_list->count = 0;
	assert(!vmem_working_set_iterate(set, list_run, ret_list));
	assert(info_of(set).pages == ret_list->count);
}

static int refuse(void *context, uint64_t gpa, uint64_t bytes)
{
	(void)gpa;
	(void)bytes;
	++*(unsigned *)context;
	return -VMEM_ENOENT;
}

/* Each page once, where it was touched first; those beyond the bound are only counted. */
static void in_the_order_of_touches(uint32_t way)
{
	static const uint64_t order[] = { 7, 100, 101, 102, 3, 100, 7, 4095, 0, 1, 2 };
	static const uint64_t want[] = { 7, 100, 101, 102, 3, 4095, 0, 1, 2 };
	struct vmem_working_set_record_opts few = { .size = sizeof(few), .max_pages = 4 };
	vmem_working_set *set;
	static struct list l;
	unsigned calls = 0;

	make(way, 0, false, 1);
	fill();
	all_out();
	record();
	assert(vmem_working_set_record_start(region, NULL) == -VMEM_EBUSY);
	for (unsigned i = 0; i < sizeof(order) / sizeof(*order); i++)
		touch(&cpus[0], order[i]);
	set = recorded();
	assert(vmem_working_set_record_stop(region, NULL) == -VMEM_EINVAL);
	list_set(set, &l);
	assert(l.count == 9 && !memcmp(l.pages, want, sizeof(want)));
	assert(info_of(set).runs == 5 && !info_of(set).missed_pages);
	assert(info_of(set).region_gpa == GPA && info_of(set).region_bytes == PAGES * PAGE);
	assert(vmem_working_set_iterate(set, refuse, &calls) == -VMEM_ENOENT && calls == 1);
	vmem_working_set_free(set);

	assert(!vmem_working_set_record_start(region, &few));
	for (uint64_t page = 500; page < 510; page++)
		touch(&cpus[0], page);
	set = recorded();
	list_set(set, &l);
	assert(l.count == 4 && l.pages[0] == 500 && l.pages[3] == 503);
	assert(info_of(set).missed_pages == 6);
	vmem_working_set_free(set);
	/* Thrown away; and one that is never ended. */
	record();
	assert(!vmem_working_set_record_stop(region, NULL));
	record();
	touch(&cpus[0], 1000);
	end();
}

/* What comes beside a fault is used without one: it is in the set, too. */
static void with_neighbours(void)
{
	vmem_working_set *set;
	static struct list l;
	bool in_set[PAGES] = { false };

	make(VMEM_FAULT_THREAD, 0, false, 64);
	fill();
	all_out();
	record();
	for (uint64_t page = 0; page < 1024; page++)
		touch(&cpus[0], page);
	set = recorded();
	list_set(set, &l);
	for (uint64_t i = 0; i < l.count; i++)
		in_set[l.pages[i]] = true;
	for (uint64_t page = 0; page < 1024; page++)
		assert(in_set[page]);
	vmem_working_set_free(set);
	end();
}

/* --- Replay --- */

static vmem_working_set *through_a_file(vmem_working_set *set)
{
	vmem_working_set *again = NULL;
	struct vmemt_tape tape;

	vmemt_tape_init(&tape);
	assert(!vmem_working_set_save(set, vmemt_tape_write, &tape));
	vmem_working_set_free(set);
	tape.at = 0;
	assert(!vmem_working_set_load(&again, NULL, vmemt_tape_read, &tape) && again);
	assert(tape.at == tape.size);
	vmemt_tape_free(&tape);
	return again;
}

struct walker {
	pthread_t thread;
	struct vmemt_cpu *cpu;
	uint64_t seed;
	uint64_t first, touches; /* pages [first, first + PAGES / CPUS) */
	bool touched[PAGES / CPUS];
};

static void *walk(void *argument)
{
	struct walker *w = argument;

	for (uint64_t i = 0; i < w->touches; i++) {
		uint64_t at = vmemt_rand(&w->seed) % (PAGES / CPUS);

		touch(w->cpu, w->first + at);
		w->touched[at] = true;
	}
	return NULL;
}

static void walk_all(struct walker *walkers, uint64_t seed, uint64_t touches)
{
	for (unsigned i = 0; i < CPUS; i++) {
		walkers[i] = (struct walker){ .cpu = &cpus[i],
					      .seed = seed + i,
					      .touches = touches,
					      .first = (uint64_t)i * (PAGES / CPUS) };
		assert(!pthread_create(&walkers[i].thread, NULL, walk, &walkers[i]));
	}
}

static void join_all(struct walker *walkers)
{
	for (unsigned i = 0; i < CPUS; i++)
		assert(!pthread_join(walkers[i].thread, NULL));
}

static uint64_t faults(void)
{
	struct vmem_region_metrics m = vmemt_metrics(region);

	return m.faults_stored + m.faults_staged + m.faults_zero;
}

/* The pages that four processors touched, and no other, come back, by no fault. */
static void exactly_these_pages(uint32_t way)
{
	uint64_t seed = vmemt_seed("exactly_these_pages"), touched = 0, before;
	static struct walker walkers[CPUS];
	struct vmem_working_set_stats stats = { .size = sizeof(stats) };
	vmem_working_set *set;

	make(way, 0, false, 1);
	fill();
	all_out();
	record();
	walk_all(walkers, seed, 400);
	join_all(walkers);
	set = through_a_file(recorded());
	for (uint64_t page = 0; page < PAGES; page++)
		touched += walkers[page / (PAGES / CPUS)].touched[page % (PAGES / CPUS)];
	assert(info_of(set).pages == touched && in_place() == touched);
	all_out();
	before = faults();
	assert(!vmem_working_set_replay(region, set, NULL, &stats));
	assert(stats.pages == touched && stats.brought == touched && faults() == before);
	for (uint64_t page = 0; page < PAGES; page++)
		assert(is_in_place(page) ==
		       walkers[page / (PAGES / CPUS)].touched[page % (PAGES / CPUS)]);
	/* Once more is nothing. */
	assert(!vmem_working_set_replay(region, set, NULL, &stats) && !stats.brought);
	vmem_working_set_free(set);
	for (uint64_t page = 0; page < PAGES; page += 7)
		assert(is_in_place(page) || vmemt_state(region, page) == VMEM_PAGE_STORED);
	end();
}

static vmem_working_set *set_of_all(void)
{
	assert(!vmem_region_evict_all(region, NULL)); /* what is in place is not seen */
	record();
	for (uint64_t page = 0; page < PAGES; page++)
		assert(!vmem_region_resolve(region, GPA + page * PAGE, 0));
	return recorded();
}

struct progress {
	unsigned calls, stop_after;
	uint64_t done;
};

static int on_progress(void *context, uint64_t done_pages, uint64_t set_pages)
{
	struct progress *p = context;

	assert(done_pages > p->done && done_pages <= set_pages && set_pages == PAGES);
	p->done = done_pages;
	return ++p->calls == p->stop_after ? 77 : 0;
}

static void can_be_cancelled(void)
{
	struct progress p = { .stop_after = 1 };
	struct vmem_working_set_replay_opts o = { .size = sizeof(o),
						  .progress = on_progress,
						  .context = &p };
	struct vmem_working_set_stats stats = { .size = sizeof(stats) };
	vmem_working_set *set;

	make(VMEM_FAULT_THREAD, 0, false, 1);
	fill();
	set = set_of_all();
	all_out();
	assert(vmem_working_set_replay(region, set, &o, &stats) == 77);
	assert(p.calls == 1 && stats.pages == p.done && stats.brought == p.done);
	assert(p.done < PAGES && in_place() == p.done);
	p = (struct progress){ 0 };
	assert(!vmem_working_set_replay(region, set, &o, &stats));
	assert(p.done == PAGES && in_place() == PAGES);
	o.flags = 1;
	assert(vmem_working_set_replay(region, set, &o, &stats) == -VMEM_EINVAL);
	assert(vmem_working_set_replay(region, NULL, NULL, NULL) == -VMEM_EINVAL);
	vmem_working_set_free(set);
	end();
}

/* What was touched first comes; what does not fit stays out, and displaces nothing. */
static void as_far_as_it_fits(void)
{
	struct vmem_working_set_stats stats = { .size = sizeof(stats) };
	struct vmem_manager_metrics m;
	vmem_working_set *set;

	make(VMEM_FAULT_THREAD, 12 * MIB, false, 1);
	fill();
	set = set_of_all();
	VMEMT_UNTIL(vmem_region_evict_all(region, NULL) == 0 && in_place() < PAGES / 4);
	assert(vmem_working_set_replay(region, set, NULL, &stats) == -VMEM_ENOSPC);
	assert(stats.brought && stats.pages < PAGES);
	m = vmemt_manager_metrics(manager);
	assert(m.used_bytes <= m.budget_bytes);
	for (uint64_t page = 0; page < PAGES; page++)
		assert(vmemt_is(&cpus[0], base, page, 1));
	vmem_working_set_free(set);
	end();
}

/* What comes back from staging leaves frames there, which are given back on the way. */
static void from_staging_in_little_room(void)
{
	uint64_t budget = PAGES * PAGE + 8 * MIB, left = 0;
	struct vmem_working_set_stats stats = { .size = sizeof(stats) };
	vmem_working_set *set;

	make(VMEM_FAULT_THREAD, budget, false, 1);
	set = set_of_all(); /* before there is anything to be stored */
	fill();
	vmem_manager_thread_stop(manager); /* nobody else gives them back */
	assert(!vmem_region_stage(region, GPA, PAGES * PAGE, &left));
	assert(in_place() == 0);
	assert(!vmem_working_set_replay(region, set, NULL, &stats));
	assert(stats.brought == PAGES && in_place() == PAGES);
	assert(!vmem_manager_thread_start(manager));
	vmem_working_set_free(set);
	end();
}

static void of_another_region(void)
{
	vmem_manager *m = vmemt_manager(0);
	vmem_region *small = vmemt_region(m, GPA, PAGES / 2, 0);
	vmem_region *moved = vmemt_region(m, GPA + PAGES * PAGE, PAGES, 0);
	vmem_working_set *set;

	make(VMEM_FAULT_THREAD, 0, false, 1);
	set = set_of_all();
	assert(vmem_working_set_replay(small, set, NULL, NULL) == -VMEM_ERANGE);
	assert(vmem_working_set_replay(moved, set, NULL, NULL) == -VMEM_ERANGE);
	assert(!vmem_working_set_replay(region, set, NULL, NULL));
	end(); /* the set outlives its region and manager */
	assert(info_of(set).pages == PAGES);
	vmem_working_set_free(set);
	assert(!vmem_region_detach(moved, VMEM_DETACH_DISCARD));
	vmemt_end(m, small);
}

static void pages_that_are_gone_stay_so(void)
{
	struct vmem_working_set_stats stats = { .size = sizeof(stats) };
	vmem_working_set *set;

	make(VMEM_FAULT_THREAD, 0, false, 1);
	fill();
	set = set_of_all();
	all_out();
	assert(!vmem_region_discard(region, GPA + 100 * PAGE, 1000 * PAGE, NULL));
	assert(!vmem_working_set_replay(region, set, NULL, &stats));
	assert(stats.brought == PAGES - 1000 && stats.pages == PAGES);
	for (uint64_t page = 0; page < PAGES; page++) {
		bool gone = page >= 100 && page < 1100;

		assert(gone ? vmemt_state(region, page) == VMEM_PAGE_ABSENT : is_in_place(page));
		assert(vmemt_is(&cpus[0], base, page, !gone));
	}
	vmem_working_set_free(set);
	end();
}

static void from_the_source(void)
{
	vmem_working_set *set;
	static struct list l;

	make(VMEM_FAULT_THREAD, 0, true, 1);
	record();
	for (uint64_t page = 600; page > 500; page--)
		touch(&cpus[0], page);
	set = recorded();
	list_set(set, &l);
	assert(l.count == 100);
	for (uint64_t i = 0; i < 100; i++)
		assert(l.pages[i] == 600 - i);
	end();
	make(VMEM_FAULT_THREAD, 0, true, 1);
	assert(!vmem_working_set_replay(region, set, NULL, NULL));
	for (uint64_t page = 490; page < 610; page++)
		assert(is_in_place(page) == (page > 500 && page <= 600));
	for (uint64_t page = 490; page < 610; page++)
		assert(vmemt_is(&cpus[0], base, page, 1));
	vmem_working_set_free(set);
	end();
}

/* --- At the same time --- */

/* Records begin and end while four processors fault, and the same pages are taken out and replayed. */
static void begun_and_ended_meanwhile(uint32_t way)
{
	uint64_t seed = vmemt_seed("begun_and_ended_meanwhile");
	static struct walker walkers[CPUS];
	vmem_working_set *all;

	make(way, 0, false, 8);
	fill();
	all = set_of_all();
	walk_all(walkers, seed, VMEMT_SLOW ? 100 : 2000);
	for (unsigned round = 0; round < (VMEMT_SLOW ? 3 : 40); round++) {
		static struct list l;
		vmem_working_set *set;
		bool seen[PAGES] = { false };

		record();
		assert(!vmem_region_stage(region, GPA, PAGES * PAGE, NULL));
		assert(!vmem_working_set_replay(region, all, NULL, NULL));
		set = recorded();
		list_set(set, &l);
		for (uint64_t i = 0; i < l.count; i++) {
			assert(!seen[l.pages[i]]);
			seen[l.pages[i]] = true;
		}
		vmem_working_set_free(set);
	}
	join_all(walkers);
	vmem_working_set_free(all);
	end();
}

/* --- Without memory --- */

static void without_memory(void)
{
	struct vmem_manager_opts o = { .size = sizeof(o) };
	struct vmem_region_opts ro = { .size = sizeof(ro), .gpa = GPA, .bytes = PAGES * PAGE };
	struct vmemt_fail_alloc a;
	vmem_working_set *set = NULL;
	uint64_t metadata;
	int error;

	vmemt_fail_alloc_init(&a);
	o.allocator = &a.allocator;
	assert(!vmem_manager_new(&manager, &o));
	assert(!vmemt_alloc(&region, manager, &ro));
	metadata = atomic_load(&manager->host.metadata.bytes);
	for (long n = 0;; n++) {
		a.calls = a.failed = 0;
		a.fail_after = n;
		error = vmem_working_set_record_start(region, NULL);
		a.fail_after = -1;
		if (!error)
			break;
		assert(error == -VMEM_ENOMEM);
		assert(atomic_load(&manager->host.metadata.bytes) == metadata);
	}
	assert(atomic_load(&manager->host.metadata.bytes) >= metadata + PAGES * 4);
	assert(!vmem_region_resolve(region, GPA + 9 * PAGE, 1));
	for (long n = 0;; n++) {
		a.calls = a.failed = 0;
		a.fail_after = n;
		error = vmem_working_set_record_stop(region, &set);
		a.fail_after = -1;
		if (!error)
			break;
		assert(error == -VMEM_ENOMEM); /* it goes on */
		assert(!vmem_region_resolve(region, GPA + (10 + (uint64_t)n) * PAGE, 1));
	}
	assert(info_of(set).pages > 1);
	assert(atomic_load(&manager->host.metadata.bytes) == metadata);
	for (long n = 0;; n++) {
		a.calls = a.failed = 0;
		a.fail_after = n;
		error = vmem_working_set_replay(region, set, NULL, NULL);
		a.fail_after = -1;
		if (!error)
			break;
		assert(error == -VMEM_ENOMEM);
	}
	vmem_working_set_free(set);
	end();
	assert(!a.live_bytes);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_SIGBUS | VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_POISON |
		   VMEM_KERNEL_KERNEL_FAULTS);
	for (unsigned i = 0; i < CPUS; i++)
		vmemt_cpu_start(&cpus[i]);
	for (uint32_t way = 0; way < 2; way++) {
		uint32_t ways[] = { VMEM_FAULT_THREAD, VMEM_FAULT_SIGBUS };

		in_the_order_of_touches(ways[way]);
		if (VMEMT_SLOW && way)
			continue;
		exactly_these_pages(ways[way]);
		begun_and_ended_meanwhile(ways[way]);
	}
	with_neighbours();
	can_be_cancelled();
	as_far_as_it_fits();
	from_staging_in_little_room();
	of_another_region();
	pages_that_are_gone_stay_so();
	from_the_source();
	without_memory();
	for (unsigned i = 0; i < CPUS; i++)
		vmemt_cpu_stop(&cpus[i]);
	return 0;
}
