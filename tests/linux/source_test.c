/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages whose bytes are with the caller: they come when they are touched, once, and nobody else waits for
 * a source that takes its time; it may answer at once, later, with an error, too late, or never. */
#include "linux/source_guest.h"
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <vmem/source.h>

/* All come, and each is asked for once. */
static void comes_when_touched(uint32_t way)
{
	const uint64_t pages = 256;

	vmemt_source_make((struct vmemt_source){ .pages = pages, .threads = true, .way = way });
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
	vmemt_source_end();
}

/* The source hangs: everybody else goes on. Who waits for it, however many, is answered by one call. */
static void nobody_else_waits(uint32_t way)
{
	static struct vmemt_page got[4];

	vmemt_source_make((struct vmemt_source){ .pages = 64, .threads = true, .way = way });
	assert(!vmem_region_discard(region, GPA + 32 * PAGE, 32 * PAGE, NULL));
	atomic_store(&hold, 1);
	vmemt_source_touch(0, 3, &got[0]);
	VMEMT_UNTIL(atomic_load(&held) == 1);
	vmemt_source_touch(1, 3, &got[1]);
	vmemt_source_touch(2, 9, &got[2]);
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
	vmemt_source_expect(0, 3, &got[0]);
	vmemt_source_expect(1, 3, &got[1]);
	vmemt_source_expect(2, 9, &got[2]);
	assert(atomic_load(&asked[3]) == 1 && atomic_load(&asked[9]) == 1);
	vmemt_source_end();
}

/* In progress: any number of pages, ended in any order, by any thread; and only those. */
static void later(uint32_t way, uint32_t source_threads)
{
	static struct vmemt_page got[MANY];
	uint32_t over = 0;

	vmemt_source_make((struct vmemt_source){
		.pages = MANY, .threads = true, .way = way, .source_threads = source_threads });
	assert(vmemt_source_done(5, 0) == -VMEM_ENOENT);
	atomic_store(&answer, -VMEM_EINPROGRESS);
	for (unsigned i = 0; i < MANY; i++)
		vmemt_source_touch(i, i, &got[i]);
	while (over < MANY) /* as they are asked for: not all are at a time */
		for (unsigned i = MANY; i--;)
			if (atomic_load(&asked[i]) == 1 && !vmemt_source_done(i, 0)) {
				assert(vmemt_source_done(i, 0) == -VMEM_ENOENT);
				over++;
			}
	for (unsigned i = 0; i < MANY; i++) {
		vmemt_source_expect(i, i, &got[i]);
		assert(atomic_load(&asked[i]) == 1);
	}
	vmemt_source_end();
}

static void failed(bool in_progress, uint32_t way)
{
	static struct vmemt_page got;

	vmemt_source_make((struct vmemt_source){ .pages = 8, .threads = true, .way = way });
	atomic_store(&answer, in_progress ? -VMEM_EINPROGRESS : -VMEM_EIO);
	vmemt_source_touch(0, 2, &got);
	if (in_progress)
		VMEMT_UNTIL(vmemt_source_done(2, -VMEM_EIO) == 0);
	assert(vmemt_touch_end(&cpu[0]) == SIGBUS && cpu[0].answer == -VMEM_EIO);
	assert(atomic_load(&lost) == 1 && atomic_load(&lost_error) == -VMEM_EIO);
	assert(vmemt_state(region, 2) == VMEM_PAGE_POISONED);
	atomic_store(&answer, 0);
	assert(vmemt_is(&cpu[1], base, 3, 1)); /* others do not suffer */
	assert(!vmem_region_discard(region, GPA + 2 * PAGE, PAGE, NULL));
	assert(vmemt_is(&cpu[0], base, 2, 0));
	assert(vmemt_metrics(region).lost == 1);
	vmemt_source_end();
}

/* Too late: the page is an error when its time is up; what comes then is refused, and changes nothing. */
static void too_late(bool in_progress)
{
	static struct vmemt_page got;

	vmemt_source_make((struct vmemt_source){ .pages = 8, .threads = true, .deadline_ms = 30 });
	atomic_store(&answer, in_progress ? -VMEM_EINPROGRESS : 0);
	atomic_store(&hold, !in_progress);
	vmemt_source_touch(0, 2, &got);
	assert(vmemt_touch_end(&cpu[0]) == SIGBUS && cpu[0].answer == -VMEM_EIO);
	assert(atomic_load(&lost) == 1 && atomic_load(&asked[2]) == 1);
	assert(!vmem_region_discard(region, GPA + 2 * PAGE, PAGE, NULL));
	vmemt_put(&cpu[0], base, 2, 9);
	assert(vmemt_source_done(2, 0) == -VMEM_ENOENT);
	atomic_store(&hold, 0);
	VMEMT_UNTIL(!atomic_load(&held));
	assert(vmemt_is(&cpu[0], base, 2, 9));
	assert(vmemt_metrics(region).lost == 1);
	atomic_store(&answer, 0);
	/* Its time is short on a slow machine: then it is lost, too. */
	vmemt_source_touch(0, 3, &got);
	if (!vmemt_touch_end(&cpu[0]))
		assert(vmemt_is(&cpu[0], base, 3, 1));
	vmemt_source_end();
}

/* What the guest gives up, or the VMM writes, is not asked for. */
static void forgotten(void)
{
	struct vmemt_page p[8];

	vmemt_source_make((struct vmemt_source){ .pages = 32, .threads = true });
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
	vmemt_source_end();
}

/* Read by the VMM: it stays where it is. */
static void peeked(bool threads, bool in_progress)
{
	struct vmemt_page got, want;
	struct vmem_region_metrics m;

	vmemt_source_make((struct vmemt_source){ .pages = 16, .threads = threads });
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
		vmemt_source_touch(0, 9, &got);
		VMEMT_UNTIL(!vmemt_source_done(9, 0));
		vmemt_source_expect(0, 9, &got);
	}
	vmemt_source_end();
}

/* A source that gives the same bytes again: what was not written leaves for nothing and is asked for
 * again, what was written is stored. */
static void stays(void)
{
	const uint64_t pages = 64;

	vmemt_source_make((struct vmemt_source){
		.pages = pages, .threads = true, .flags = VMEM_REGION_SOURCE_STAYS });
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
	vmemt_source_end();
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

	vmemt_source_make((struct vmemt_source){ .budget = 7 * MIB,
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
	vmemt_source_end();
}

/* Without threads: who steps the manager asks the source, too. */
static void stepped(void)
{
	struct vmemt_page got, want;

	vmemt_source_make((struct vmemt_source){ .pages = 32 });
	for (uint64_t i = 0; i < 16; i++) {
		assert(!vmemt_touch_step(&cpu[0], VMEMT_READ, base + i * PAGE, &got, PAGE,
					 manager));
		vmemt_make(&want, i, 1);
		assert(!memcmp(&got, &want, PAGE));
	}
	assert(!vmem_region_resolve(region, GPA + 20 * PAGE, 0));
	vmemt_make(&want, 20, 1);
	assert(!memcmp(base + 20 * PAGE, &want, PAGE));
	vmemt_source_end();
}

/* Everything is asked for before the region goes. */
static void restored(bool threads)
{
	const uint64_t pages = 128;
	struct vmemt_page want;

	vmemt_source_make(
		(struct vmemt_source){ .budget = 8 * MIB, .pages = pages, .threads = threads });
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

	vmemt_source_make((struct vmemt_source){ .pages = 8, .threads = true });
	atomic_store(&answer, in_progress ? -VMEM_EINPROGRESS : 0);
	atomic_store(&hold, !in_progress);
	vmemt_source_touch(0, 2, &got);
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
	o.read_source = vmemt_source_read;
	assert(!vmem_region_alloc(&region, m, &o));
	assert(vmem_region_set_source(region, 0, 5 * PAGE) == -VMEM_ERANGE);
	assert(vmem_region_source_done(region, 1, &p, 0) == -VMEM_EINVAL);
	assert(vmem_region_source_done(region, 0, NULL, 0) == -VMEM_EINVAL);
	assert(vmem_region_source_done(region, 0, &p, 1) == -VMEM_EINVAL);
	assert(vmem_region_source_done(region, 4 * PAGE, &p, 0) == -VMEM_ERANGE);
	assert(vmem_region_source_done(region, 0, &p, 0) == -VMEM_ENOENT);
	vmemt_end(m, region);
}

static void *give_page_4(void *over)
{
	assert(!vmem_region_set_source(region, GPA + 4 * PAGE, PAGE));
	atomic_store((_Atomic uint32_t *)over, 1);
	return NULL;
}

static _Atomic uint32_t waits; /* atomic; times that somebody had to wait for a page */

static bool note_wait(struct vmemi_host *host)
{
	(void)host;
	atomic_fetch_add(&waits, 1);
	return false;
}

/* An absent page that somebody is reading just then is given to the source as soon as that is over. */
static void given_while_read(void)
{
	static struct vmemt_page got;
	static _Atomic uint32_t over;
	pthread_t giver;
	uint64_t old;

	vmemt_source_make((struct vmemt_source){ .pages = 16, .threads = true });
	assert(!vmem_region_discard(region, GPA + 4 * PAGE, PAGE, NULL));
	vmemi_frames_force(&manager->host.frames, 1); /* as vmem_region_read() does */
	assert(vmemi_region_step(region, 4, VMEMI_PAGE_FETCH, 0, &old));
	atomic_store(&waits, 0);
	atomic_store(&manager->host.serve_faults, note_wait);
	assert(!pthread_create(&giver, NULL, give_page_4, &over));
	VMEMT_UNTIL(atomic_load(&waits) || atomic_load(&over));
	assert(!atomic_load(&over));
	vmemi_region_end(region, 4, VMEMI_PAGE_RETURN, old);
	assert(!pthread_join(giver, NULL));
	atomic_store(&manager->host.serve_faults, NULL);
	vmemt_source_touch(0, 4, &got);
	vmemt_source_expect(0, 4, &got);
	vmemt_source_end();
}

int main(void)
{
	vmemt_source_begin();
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
	given_while_read();
	peeked(true, true);
	peeked(false, false);
	stays();
	stepped();
	restored(true);
	restored(false);
	detached(true);
	detached(false);
	vmemt_source_over();
	return 0;
}
