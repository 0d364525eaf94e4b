/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages whose bytes are with the caller: they come when they are touched, once, and nobody else waits for
 * a source that takes its time; it may answer at once, later, with an error, too late, or never. */
#include "linux/guest.h"
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <vmem/source.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define GPA (UINT64_C(3) << 30)
#define MANY 200 /* more than loads that are under way at a time */
#define PAGES_MAX 2048

static struct vmemt_cpu cpu[MANY];
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;

/* What the source does with the pages that it is asked for. */
static _Atomic int answer;    /* atomic; 0: gives the bytes; else returned */
static _Atomic uint32_t hold; /* atomic; calls do not return while it is set */
static _Atomic uint32_t held; /* atomic; calls that do not return */
static _Atomic uint32_t asked[PAGES_MAX];
static _Atomic uint32_t lost; /* atomic; times that on_lost was called */
static _Atomic int lost_error;

static void on_lost(void *context, uint64_t gpa, int error)
{
	assert(context == &answer && gpa >= GPA);
	atomic_store(&lost_error, error);
	atomic_fetch_add(&lost, 1);
}

static int read_source(void *context, uint64_t gpa, void *buffer)
{
	int result = atomic_load(&answer);
	uint64_t page = (gpa - GPA) / PAGE;

	assert(context == &answer && gpa >= GPA && gpa % PAGE == 0);
	atomic_fetch_add(&asked[page], 1);
	atomic_fetch_add(&held, 1);
	while (atomic_load(&hold))
		sched_yield();
	atomic_fetch_sub(&held, 1);
	if (!result)
		vmemt_make(buffer, page, 1);
	return result;
}

struct how {
	uint64_t budget, pages;
	uint64_t flags; /* besides FROM_SOURCE */
	uint64_t deadline_ms;
	uint32_t way, source_threads;
	bool threads;
};

static void make(struct how how)
{
	struct vmem_manager_opts mo = { .size = sizeof(mo),
					.budget_bytes = how.budget,
					.source_threads = how.source_threads };
	struct vmem_region_opts o = {
		.size = sizeof(o),
		.flags = how.flags | VMEM_REGION_FROM_SOURCE,
		.gpa = GPA,
		.bytes = how.pages * PAGE,
		.fault_way = how.way,
		.fault_around_pages = 1,
		.fault_deadline_ms = how.deadline_ms ? how.deadline_ms : 3600000,
		.on_lost = on_lost,
		.context = &answer,
		.read_source = read_source,
	};

	atomic_store(&answer, 0);
	atomic_store(&hold, 0);
	atomic_store(&lost, 0);
	for (unsigned i = 0; i < PAGES_MAX; i++)
		atomic_store(&asked[i], 0);
	assert(!vmem_manager_new(&manager, &mo));
	vmemt_catch_signals(manager);
	if (how.threads)
		assert(!vmem_manager_thread_start(manager));
	assert(!vmem_region_alloc(&region, manager, &o));
	base = vmem_region_hva(region);
	assert(vmemt_metrics(region).pages[VMEM_PAGE_SOURCE] == how.pages);
	for (unsigned i = 0; i < MANY; i++)
		cpu[i].region = region;
}

static void end(void)
{
	vmemt_check(manager, region);
	vmem_manager_thread_stop(manager);
	assert(!atomic_load(&manager->host.buffer_busy));
	assert(!vmemt_metrics(region).pages[VMEM_PAGE_ARRIVING]);
	vmemt_end(manager, region);
}

static void read_begin(unsigned c, uint64_t page, struct vmemt_page *into)
{
	vmemt_touch_begin(&cpu[c], VMEMT_READ, base + page * PAGE, into, PAGE);
}

static void expect_read(unsigned c, uint64_t page, const struct vmemt_page *got)
{
	struct vmemt_page want;

	assert(!vmemt_touch_end(&cpu[c]));
	vmemt_make(&want, page, 1);
	assert(!memcmp(got, &want, PAGE));
}

static int done(uint64_t page, int error)
{
	struct vmemt_page p;

	vmemt_make(&p, page, 1);
	return vmem_region_source_done(region, GPA + page * PAGE, error ? NULL : &p, error);
}

/* All come, and each is asked for once. */
static void comes_when_touched(uint32_t way)
{
	const uint64_t pages = 256;

	make((struct how){ .pages = pages, .threads = true, .way = way });
	for (uint64_t i = 0; i < pages; i += 2)
		assert(vmemt_is(&cpu[0], base, i, 1));
	for (uint64_t i = 1; i < pages; i += 2) {
		vmemt_put(&cpu[1], base, i, 2);
		assert(vmemt_is(&cpu[1], base, i, 2));
	}
	for (uint64_t i = 0; i < pages; i++) {
		assert(atomic_load(&asked[i]) == 1);
		assert(vmemt_state(region, i) == VMEM_PAGE_RESIDENT);
	}
	VMEMT_UNTIL(vmemt_metrics(region).faults_source == pages);
	/* It is the guest's now: it goes as any other. */
	vmemt_store(region, 0, pages);
	assert(vmemt_metrics(region).pages[VMEM_PAGE_STORED] == pages);
	for (uint64_t i = 0; i < pages; i++) {
		assert(vmemt_is(&cpu[0], base, i, 1 + i % 2));
		assert(atomic_load(&asked[i]) == 1);
	}
	end();
}

/* The source hangs: everybody else goes on. Who waits for it, however many, is answered by one call. */
static void nobody_else_waits(uint32_t way)
{
	static struct vmemt_page got[4];

	make((struct how){ .pages = 64, .threads = true, .way = way });
	assert(!vmem_region_discard(region, GPA + 32 * PAGE, 32 * PAGE, NULL));
	atomic_store(&hold, 1);
	read_begin(0, 3, &got[0]);
	VMEMT_UNTIL(atomic_load(&held) == 1);
	read_begin(1, 3, &got[1]);
	read_begin(2, 9, &got[2]);
	for (uint64_t i = 32; i < 64; i++)
		vmemt_put(&cpu[3], base, i, 7);
	vmemt_stage(region, 40, 8);
	for (uint64_t i = 32; i < 64; i++)
		assert(vmemt_is(&cpu[3], base, i, 7));
	assert(!vmem_region_discard(region, GPA + 50 * PAGE, PAGE, NULL));
	assert(vmemt_is(&cpu[3], base, 50, 0));
	assert(vmemt_state(region, 3) == VMEM_PAGE_ARRIVING);
	assert(!vmemt_touch_over(&cpu[0]) && !vmemt_touch_over(&cpu[1]));
	atomic_store(&hold, 0);
	expect_read(0, 3, &got[0]);
	expect_read(1, 3, &got[1]);
	expect_read(2, 9, &got[2]);
	assert(atomic_load(&asked[3]) == 1 && atomic_load(&asked[9]) == 1);
	end();
}

/* In progress: any number of pages, ended in any order, by any thread; and only those. */
static void later(uint32_t way, uint32_t source_threads)
{
	static struct vmemt_page got[MANY];
	uint32_t over = 0;

	make((struct how){
		.pages = MANY, .threads = true, .way = way, .source_threads = source_threads });
	assert(done(5, 0) == -VMEM_ENOENT);
	atomic_store(&answer, -VMEM_EINPROGRESS);
	for (unsigned i = 0; i < MANY; i++)
		read_begin(i, i, &got[i]);
	while (over < MANY) /* as they are asked for: not all are at a time */
		for (unsigned i = MANY; i--;)
			if (atomic_load(&asked[i]) == 1 && !done(i, 0)) {
				assert(done(i, 0) == -VMEM_ENOENT);
				over++;
			}
	for (unsigned i = 0; i < MANY; i++) {
		expect_read(i, i, &got[i]);
		assert(atomic_load(&asked[i]) == 1);
	}
	end();
}

static void failed(bool in_progress, uint32_t way)
{
	static struct vmemt_page got;

	make((struct how){ .pages = 8, .threads = true, .way = way });
	atomic_store(&answer, in_progress ? -VMEM_EINPROGRESS : -VMEM_EIO);
	read_begin(0, 2, &got);
	if (in_progress)
		VMEMT_UNTIL(done(2, -VMEM_EIO) == 0);
	assert(vmemt_touch_end(&cpu[0]) == SIGBUS && cpu[0].answer == -VMEM_EIO);
	assert(atomic_load(&lost) == 1 && atomic_load(&lost_error) == -VMEM_EIO);
	assert(vmemt_state(region, 2) == VMEM_PAGE_POISONED);
	atomic_store(&answer, 0);
	assert(vmemt_is(&cpu[1], base, 3, 1)); /* others do not suffer */
	assert(!vmem_region_discard(region, GPA + 2 * PAGE, PAGE, NULL));
	assert(vmemt_is(&cpu[0], base, 2, 0));
	assert(vmemt_metrics(region).lost == 1);
	end();
}

/* Too late: the page is an error when its time is up; what comes then is refused, and changes nothing. */
static void too_late(bool in_progress)
{
	static struct vmemt_page got;

	make((struct how){ .pages = 8, .threads = true, .deadline_ms = 30 });
	atomic_store(&answer, in_progress ? -VMEM_EINPROGRESS : 0);
	atomic_store(&hold, !in_progress);
	read_begin(0, 2, &got);
	assert(vmemt_touch_end(&cpu[0]) == SIGBUS && cpu[0].answer == -VMEM_EIO);
	assert(atomic_load(&lost) == 1 && atomic_load(&asked[2]) == 1);
	assert(!vmem_region_discard(region, GPA + 2 * PAGE, PAGE, NULL));
	vmemt_put(&cpu[0], base, 2, 9);
	assert(done(2, 0) == -VMEM_ENOENT);
	atomic_store(&hold, 0);
	VMEMT_UNTIL(!atomic_load(&held));
	assert(vmemt_is(&cpu[0], base, 2, 9));
	assert(vmemt_metrics(region).lost == 1);
	atomic_store(&answer, 0);
	/* Its time is short on a slow machine: then it is lost, too. */
	read_begin(0, 3, &got);
	if (!vmemt_touch_end(&cpu[0]))
		assert(vmemt_is(&cpu[0], base, 3, 1));
	end();
}

/* What the guest gives up, or the VMM writes, is not asked for. */
static void forgotten(void)
{
	struct vmemt_page p[8];

	make((struct how){ .pages = 32, .threads = true });
	assert(!vmem_region_discard(region, GPA, 8 * PAGE, NULL));
	for (unsigned i = 0; i < 8; i++)
		vmemt_make(&p[i], 8 + i, 5);
	assert(!vmem_region_write(region, GPA + 8 * PAGE, p, sizeof(p)));
	for (uint64_t i = 0; i < 16; i++) {
		assert(vmemt_is(&cpu[0], base, i, i < 8 ? 0 : 5));
		assert(!atomic_load(&asked[i]));
	}
	/* And again with the source: only what is absent goes there. */
	assert(!vmem_region_discard(region, GPA + 4 * PAGE, 4 * PAGE, NULL));
	assert(!vmem_region_set_source(region, GPA, 16 * PAGE));
	for (uint64_t i = 0; i < 16; i++) {
		bool from_source = i >= 4 && i < 8;

		assert((vmemt_state(region, i) == VMEM_PAGE_SOURCE) == from_source);
		assert(vmemt_is(&cpu[0], base, i, i < 4 ? 0 : from_source ? 1 : 5));
		assert(atomic_load(&asked[i]) == from_source);
	}
	end();
}

/* Read by the VMM: it stays where it is. */
static void peeked(bool threads, bool in_progress)
{
	struct vmemt_page got, want;
	struct vmem_region_metrics m;

	make((struct how){ .pages = 16, .threads = threads });
	for (uint64_t i = 0; i < 8; i++) {
		assert(!vmem_region_read(region, GPA + i * PAGE, &got, PAGE));
		vmemt_make(&want, i, 1);
		assert(!memcmp(&got, &want, PAGE));
	}
	m = vmemt_metrics(region);
	assert(m.pages[VMEM_PAGE_SOURCE] == 16 && !m.faults_source);
	atomic_store(&answer, -VMEM_EIO);
	assert(vmem_region_read(region, GPA, &got, PAGE) == -VMEM_EIO);
	assert(vmemt_state(region, 0) == VMEM_PAGE_SOURCE && !atomic_load(&lost));
	atomic_store(&answer, 0);
	assert(!vmem_region_resolve(region, GPA, 1));
	assert(!vmem_region_pin(region, GPA + PAGE, 3 * PAGE));
	for (uint64_t i = 0; i < 4; i++) {
		vmemt_make(&want, i, 1);
		assert(!memcmp(base + i * PAGE, &want, PAGE));
	}
	assert(!vmem_region_unpin(region, GPA + PAGE, 3 * PAGE));
	if (in_progress) {
		assert(threads);
		atomic_store(&answer, -VMEM_EINPROGRESS);
		read_begin(0, 9, &got);
		VMEMT_UNTIL(!done(9, 0));
		expect_read(0, 9, &got);
	}
	end();
}

/* A source that gives the same bytes again: what was not written leaves for nothing and is asked for
 * again, what was written is stored. */
static void stays(void)
{
	const uint64_t pages = 64;

	make((struct how){ .pages = pages, .threads = true, .flags = VMEM_REGION_SOURCE_STAYS });
	for (uint64_t i = 0; i < pages; i++)
		assert(vmemt_is(&cpu[0], base, i, 1));
	assert(vmemt_metrics(region).pages[VMEM_PAGE_CLEAN] == pages);
	for (uint64_t i = 0; i < pages; i += 4)
		vmemt_put(&cpu[0], base, i, 2);
	vmemt_stage(region, 0, pages);
	assert(!vmem_region_store(region, GPA, pages * PAGE, NULL));
	for (uint64_t i = 0; i < pages; i++)
		assert(vmemt_state(region, i) == (i % 4 ? VMEM_PAGE_SOURCE : VMEM_PAGE_STORED));
	assert(vmemt_account(region).pages == pages / 4);
	for (uint64_t i = 0; i < pages; i++) {
		assert(vmemt_is(&cpu[0], base, i, i % 4 ? 1 : 2));
		assert(atomic_load(&asked[i]) == (i % 4 ? 2 : 1));
	}
	end();
}

/* More memory than budget, all of it with the source, by several threads of both. Every page, or with a
 * sanitizer each fourth. */
#define TOUCH_EVERY (VMEMT_SANITIZED ? 4 : 1)

struct toucher {
	pthread_t thread;
	unsigned cpu;
	uint64_t seed;
};

static void *touch_all(void *argument)
{
	struct toucher *t = argument;

	for (uint64_t k = 0; k < PAGES_MAX; k += TOUCH_EVERY)
		assert(vmemt_is(&cpu[t->cpu], base, (k * 37 + t->seed) % PAGES_MAX, 1));
	return NULL;
}

static void under_budget(uint64_t flags, uint32_t way)
{
	struct toucher t[3];

	make((struct how){ .budget = 6 * MIB,
			   .pages = PAGES_MAX,
			   .threads = true,
			   .flags = flags,
			   .way = way,
			   .source_threads = 3 });
	for (unsigned i = 0; i < 3; i++) {
		t[i] = (struct toucher){ .cpu = i, .seed = 700 * i };
		assert(!pthread_create(&t[i].thread, NULL, touch_all, &t[i]));
	}
	for (unsigned i = 0; i < 3; i++)
		assert(!pthread_join(t[i].thread, NULL));
	if (!(flags & VMEM_REGION_SOURCE_STAYS))
		for (unsigned i = 0; i < PAGES_MAX; i++)
			assert(atomic_load(&asked[i]) == !(i % TOUCH_EVERY));
	end();
}

/* Without threads: who steps the manager asks the source, too. */
static void stepped(void)
{
	struct vmemt_page got, want;

	make((struct how){ .pages = 32 });
	for (uint64_t i = 0; i < 16; i++) {
		assert(!vmemt_touch_step(&cpu[0], VMEMT_READ, base + i * PAGE, &got, PAGE,
					 manager));
		vmemt_make(&want, i, 1);
		assert(!memcmp(&got, &want, PAGE));
	}
	assert(!vmem_region_resolve(region, GPA + 20 * PAGE, 0));
	vmemt_make(&want, 20, 1);
	assert(!memcmp(base + 20 * PAGE, &want, PAGE));
	end();
}

/* Everything is asked for before the region goes. */
static void restored(bool threads)
{
	const uint64_t pages = 128;
	struct vmemt_page want;

	make((struct how){ .budget = 8 * MIB, .pages = pages, .threads = threads });
	for (unsigned i = 0; i < MANY; i++)
		cpu[i].region = NULL;
	assert(!vmem_region_detach(region, VMEM_DETACH_RESTORE));
	for (uint64_t i = 0; i < pages; i++) {
		vmemt_make(&want, i, 1);
		assert(!memcmp(base + i * PAGE, &want, PAGE));
		assert(atomic_load(&asked[i]) == 1);
	}
	munmap(base, pages * PAGE);
	vmem_manager_thread_stop(manager);
	assert(!vmem_manager_free(manager));
}

/* The region goes away under a load: who waits finds no memory any more. A call that has not returned is
 * waited for; what is in progress is not. */
static void detached(bool in_progress)
{
	static struct vmemt_page got;
	struct vmemt_detaching d;

	make((struct how){ .pages = 8, .threads = true });
	atomic_store(&answer, in_progress ? -VMEM_EINPROGRESS : 0);
	atomic_store(&hold, !in_progress);
	read_begin(0, 2, &got);
	VMEMT_UNTIL(atomic_load(&asked[2]));
	for (unsigned i = 0; i < MANY; i++)
		cpu[i].region = NULL;
	vmemt_detach_begin(&d, region);
	VMEMT_UNTIL(!atomic_load(&manager->host.regions[0]));
	assert(in_progress || !atomic_load(&d.over));
	atomic_store(&hold, 0);
	vmemt_detach_end(&d);
	assert(vmemt_touch_end(&cpu[0]) == SIGSEGV);
	vmem_manager_thread_stop(manager);
	assert(!atomic_load(&manager->host.buffer_busy));
	assert(!vmem_manager_free(manager));
}

static void refused(void)
{
	struct vmem_region_opts o = { .size = sizeof(o), .bytes = 4 * PAGE };
	struct vmem_manager_opts mo = { .size = sizeof(mo), .source_threads = 17 };
	struct vmemt_page p;
	vmem_manager *m;

	assert(vmem_manager_new(&m, &mo) == -VMEM_EINVAL);
	m = vmemt_manager(0);
	o.flags = VMEM_REGION_FROM_SOURCE;
	assert(vmem_region_alloc(&region, m, &o) == -VMEM_EINVAL);
	o.flags = VMEM_REGION_SOURCE_STAYS;
	assert(vmem_region_alloc(&region, m, &o) == -VMEM_EINVAL);
	o.flags = 0;
	assert(!vmem_region_alloc(&region, m, &o));
	assert(vmem_region_set_source(region, 0, PAGE) == -VMEM_EINVAL);
	assert(vmem_region_source_done(region, 0, &p, 0) == -VMEM_EINVAL);
	assert(!vmem_region_detach(region, VMEM_DETACH_DISCARD));
	o.read_source = read_source;
	assert(!vmem_region_alloc(&region, m, &o));
	assert(vmem_region_set_source(region, 0, 5 * PAGE) == -VMEM_ERANGE);
	assert(vmem_region_source_done(region, 1, &p, 0) == -VMEM_EINVAL);
	assert(vmem_region_source_done(region, 0, NULL, 0) == -VMEM_EINVAL);
	assert(vmem_region_source_done(region, 0, &p, 1) == -VMEM_EINVAL);
	assert(vmem_region_source_done(region, 4 * PAGE, &p, 0) == -VMEM_ERANGE);
	assert(vmem_region_source_done(region, 0, &p, 0) == -VMEM_ENOENT);
	vmemt_end(m, region);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_POISON | VMEM_KERNEL_SIGBUS | VMEM_KERNEL_MOVE | VMEM_KERNEL_WP |
		   VMEM_KERNEL_KERNEL_FAULTS);
	for (unsigned i = 0; i < MANY; i++)
		vmemt_cpu_start(&cpu[i]);
	refused();
	for (uint32_t way = VMEM_FAULT_THREAD; way <= VMEM_FAULT_SIGBUS; way++) {
		comes_when_touched(way);
		nobody_else_waits(way);
		later(way, 1);
		failed(false, way);
		failed(true, way);
		under_budget(0, way);
	}
	later(VMEM_FAULT_THREAD, 4);
	under_budget(VMEM_REGION_SOURCE_STAYS, VMEM_FAULT_THREAD);
	too_late(true);
	too_late(false);
	forgotten();
	peeked(true, true);
	peeked(false, false);
	stays();
	stepped();
	restored(true);
	restored(false);
	detached(true);
	detached(false);
	for (unsigned i = 0; i < MANY; i++)
		vmemt_cpu_stop(&cpu[i]);
	return 0;
}
