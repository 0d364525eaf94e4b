/* SPDX-License-Identifier: BSD-2-Clause */
/* Where pages are, told in runs, against a look at each page; and a time in which they stay there while
 * reclaim is short of room, faults are served, and another region pays for it. */
#include "linux/guest.h"
#include "support/slow.h"
#include <sched.h>
#include <vmem/snapshot.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define GPA (UINT64_C(3) << 30)
#define PAGES 512
#define ALL_STATES ((1u << VMEM_PAGE_STATES) - 1)

static struct vmemt_cpu cpu;

/* --- Runs --- */

struct walk {
	vmem_region *region;
	uint32_t states;
	uint64_t next, end; /* page */
	unsigned runs, stop_after;
	enum vmem_page_state last;
};

/* Skips what is not told, which must not be of the states asked for. */
static void skip_to(struct walk *w, uint64_t page)
{
	for (; w->next < page; w->next++)
		assert(!(w->states >> vmemt_state(w->region, w->next) & 1));
}

static int on_run(void *context, uint64_t gpa, uint64_t bytes, enum vmem_page_state state)
{
	struct walk *w = context;
	uint64_t first = (gpa - GPA) / PAGE, count = bytes / PAGE;

	assert(gpa % PAGE == 0 && bytes % PAGE == 0 && count && (w->states >> state & 1));
	assert(first >= w->next && first + count <= w->end);
	if (w->runs && first == w->next)
		assert(state != w->last); /* else it is one run */
	skip_to(w, first);
	for (; w->next < first + count; w->next++)
		assert(vmemt_state(w->region, w->next) == state);
	w->last = state;
	return ++w->runs == w->stop_after ? -VMEM_ENOENT : 0;
}

static void walk(vmem_region *r, uint64_t first, uint64_t count, uint32_t states)
{
	struct walk w = { .region = r, .states = states, .next = first, .end = first + count };

	assert(!vmem_region_iterate(r, GPA + first * PAGE, count * PAGE, states, on_run, &w));
	skip_to(&w, w.end);
	if (w.runs < 2)
		return;
	w = (struct walk){ .region = r, .states = states, .next = first, .end = first + count };
	w.stop_after = 2;
	assert(vmem_region_iterate(r, GPA + first * PAGE, count * PAGE, states, on_run, &w) ==
	       -VMEM_ENOENT);
	assert(w.runs == 2);
}

static void runs_by_state(void)
{
	uint64_t rng = vmemt_seed("runs_by_state");
	vmem_manager *m = vmemt_manager(0);
	vmem_region *r = vmemt_region(m, GPA, PAGES, 0);
	struct walk none = { .region = r, .states = ALL_STATES };

	cpu.region = r;
	assert(!vmem_manager_thread_start(m));
	for (uint64_t first = 0; first < PAGES;) {
		uint64_t count = 1 + vmemt_rand(&rng) % 24, dice = vmemt_rand(&rng) % 4;

		if (count > PAGES - first)
			count = PAGES - first;
		for (uint64_t i = 0; i < count && dice; i++)
			vmemt_put(&cpu, vmem_region_hva(r), first + i, 1);
		if (dice == 2)
			vmemt_stage(r, first, count);
		if (dice == 3)
			vmemt_store(r, first, count);
		first += count;
	}
	for (unsigned k = 0; k < 200; k++) {
		uint64_t first = vmemt_rand(&rng) % PAGES;

		walk(r, first, 1 + vmemt_rand(&rng) % (PAGES - first),
		     (uint32_t)vmemt_rand(&rng) & ALL_STATES);
	}
	walk(r, 0, PAGES, ALL_STATES);
	walk(r, 0, PAGES, 0);
	assert(vmem_region_iterate(r, GPA, (PAGES + 1) * PAGE, 1, on_run, &none) == -VMEM_ERANGE);
	assert(vmem_region_iterate(r, GPA - PAGE, PAGE, 1, on_run, &none) == -VMEM_ERANGE);
	assert(vmem_region_iterate(r, GPA, PAGE, 1, NULL, NULL) == -VMEM_EINVAL);
	assert(!none.runs);
	vmemt_end(m, r);
}

/* --- Quiesce --- */

static void counts_are_checked(void)
{
	vmem_manager *m = vmemt_manager(0);
	vmem_region *r = vmemt_region(m, GPA, PAGES, 0);
	uint64_t gpa = GPA, pages = 77;

	assert(vmem_region_resume(r) == -VMEM_EINVAL);
	assert(vmem_region_quiesce(NULL) == -VMEM_EINVAL);
	assert(!vmem_region_quiesce(r) && !vmem_region_quiesce(r));
	assert(vmem_region_stage(r, GPA, PAGE, &pages) == -VMEM_EBUSY);
	assert(!vmem_region_resume(r));
	assert(vmem_region_stage_pages(r, &gpa, 1, &pages) == -VMEM_EBUSY);
	assert(vmem_region_store(r, GPA, PAGE, &pages) == -VMEM_EBUSY);
	assert(!vmem_region_resume(r) && vmem_region_resume(r) == -VMEM_EINVAL);
	assert(!vmem_region_stage(r, GPA, PAGE, &pages) && !pages);
	vmemt_end(m, r);
}

#define QUIET 1024 /* pages of the region that is quiesced */
#define BUSY 6144  /* of the one that pays */

static _Atomic uint32_t stop;
static _Atomic uint64_t rewritten; /* pages */

/* A guest that goes over more memory than there is. */
static void *busy_guest(void *base)
{
	for (uint64_t page = 0; !atomic_load(&stop); page = (page + 7) % BUSY) {
		volatile uint64_t *words =
			(volatile uint64_t *)(void *)((unsigned char *)base + page * PAGE);

		for (unsigned i = 0; i < 64; i++)
			words[i] = page * 1000003 + i + 1;
		atomic_fetch_add(&rewritten, 1);
	}
	return NULL;
}

static void states_of(vmem_region *r, uint8_t *states)
{
	for (uint64_t page = 0; page < QUIET; page++)
		states[page] = (uint8_t)vmemt_state(r, page);
}

static void pages_stay_where_they_are(void)
{
	vmem_manager *m = vmemt_manager(16 * MIB);
	vmem_region *r, *busy = vmemt_region(m, 0, BUSY, 0);
	struct vmem_region_opts o = {
		.size = sizeof(o), .gpa = GPA, .bytes = QUIET * PAGE, .fault_around_pages = 16
	};
	unsigned char *base;
	static uint8_t before[QUIET], after[QUIET];
	unsigned faults = 0, in_place = 0;
	pthread_t thread;

	assert(!vmem_region_alloc(&r, m, &o));
	base = vmem_region_hva(r);
	cpu.region = r;
	assert(!vmem_manager_thread_start(m));
	for (uint64_t page = 0; page < QUIET; page++)
		vmemt_put(&cpu, base, page, 1);
	vmemt_store(r, QUIET / 2, QUIET / 2);
	assert(!pthread_create(&thread, NULL, busy_guest, vmem_region_hva(busy)));
	for (unsigned round = 0; round < 2; round++) {
		vmemt_until_more(&rewritten, BUSY);
		for (uint64_t page = 0; page < QUIET / 2; page += 2)
			vmemt_put(&cpu, base, page, 1);
		assert(!vmem_region_quiesce(r) && !vmem_region_quiesce(r));
		states_of(r, before);
		assert(!vmem_region_resume(r));
		vmemt_until_more(&rewritten, VMEMT_SLOW ? BUSY / 4 : BUSY);
		states_of(r, after);
		for (uint64_t page = 0; page < QUIET; page++) {
			assert(before[page] == after[page] && before[page] != VMEM_PAGE_ARRIVING);
			in_place += before[page] == VMEM_PAGE_RESIDENT;
		}
		/* A few are wanted nevertheless, and bring no others. */
		for (uint64_t page = round; page < QUIET; page += 97) {
			faults += before[page] == VMEM_PAGE_STAGED ||
				  before[page] == VMEM_PAGE_STORED;
			assert(vmemt_is(&cpu, base, page, 1));
		}
		states_of(r, after);
		for (uint64_t page = 0; page < QUIET; page++)
			assert(page % 97 == round || before[page] == after[page]);
		assert(!vmem_region_resume(r));
	}
	assert(faults && in_place); /* else this has shown nothing */
	/* Left alone no longer, it gives what it has. */
	VMEMT_UNTIL(vmemt_metrics(r).pages[VMEM_PAGE_RESIDENT] < QUIET / 4);
	atomic_store(&stop, 1);
	assert(!pthread_join(thread, NULL));
	vmemt_check(m, busy);
	assert(!vmem_region_detach(busy, VMEM_DETACH_DISCARD));
	vmemt_end(m, r);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP);
	vmemt_cpu_start(&cpu);
	runs_by_state();
	counts_are_checked();
	pages_stay_where_they_are();
	vmemt_cpu_stop(&cpu);
	return 0;
}
