/* SPDX-License-Identifier: BSD-2-Clause */
/* Hinted pages of regions: what was not written since the guard began is given back, in whatever state it is, and no
 * write is ever lost. */
#include "linux/balloon_region.h"
#include "linux/stored.h"
#include "support/slow.h"
#include <sys/mman.h>
#include <vmem/snapshot.h>

#define GPA (64 * PAGE * 3 + 5 * PAGE) /* not where a word of bits begins */
#define PAGES 256u

static void make(uint64_t flags)
{
	manager = vmemt_manager(0);
	region = vmemt_region(manager, GPA, PAGES, flags | VMEM_REGION_DMA_PINNED);
	assert(!vmem_manager_thread_start(manager));
	assert(!vmem_discard_new(&discard, NULL));
	join(GPA);
}

/* Whether the guard says that a page was not written. */
static bool is_unwritten(uint64_t page)
{
	uint64_t gfn = GPA / PAGE + page;

	return guard.unwritten(guard.context, gfn / 64 * 64) >> gfn % 64 & 1;
}

static struct vmem_discard_counts hinted(void)
{
	return metrics().hinted;
}

/* One page in each state; all but the one that is written go, and it stays whatever became of it meanwhile. */
static void states(void)
{
	uint64_t released = 0;

	make(0);
	for (uint64_t i = 0; i < 40; i++)
		vmemt_put(&cpu, base, i, 1);
	vmemt_stage(region, 8, 8);
	vmemt_store(region, 16, 8);
	vmemt_store(region, 24, 8);
	for (uint64_t i = 24; i < 32; i++) /* clean, if it can be */
		assert(vmemt_is(&cpu, base, i, 1));
	assert(!vmem_region_pin(region, GPA + 33 * PAGE, PAGE));
	assert(hint(0, 40, &released) == 0 && !released && hinted().written == 40 * PAGE);

	assert(!guard.begin(guard.context));
	assert(guard.begin(guard.context) == -VMEM_EBUSY);
	for (uint64_t i = 0; i < 40; i++)
		assert(is_unwritten(i) == (i != 33));
	assert(!is_unwritten(PAGES) && is_unwritten(PAGES - 1));
	for (uint64_t i = 2; i < 40; i += 8) /* one of each kind */
		vmemt_put(&cpu, base, i, 2);
	assert(vmemt_is(&cpu, base, 3, 1) &&
	       vmemt_is(&cpu, base, 11, 1)); /* reading is not writing */
	for (uint64_t i = 0; i < 40; i++)
		assert(is_unwritten(i) == (i % 8 != 2 && i != 33));
	vmemt_stage(region, 2, 1); /* it is written, wherever it is */
	assert(hint(0, 40, &released) == -VMEM_EBUSY && released >= 24 * PAGE);
	assert(hinted().written == 45 * PAGE && hinted().pinned == PAGE && !hinted().failed);
	for (uint64_t i = 0; i < 40; i++)
		assert(i == 33 || i % 8 == 2 || vmemt_state(region, i) == VMEM_PAGE_ABSENT);
	for (uint64_t i = 0; i < 40; i++)
		assert(vmemt_is(&cpu, base, i, i == 33 ? 1 : i % 8 == 2 ? 2 : 0));
	/* What is used again is no longer free. */
	vmemt_put(&cpu, base, 5, 3);
	assert(!hint(5, 1, &released) && !released && vmemt_is(&cpu, base, 5, 3));
	guard.end(guard.context);
	assert(!hint(6, 2, &released) && !released);
	assert(!vmem_region_unpin(region, GPA + 33 * PAGE, PAGE));
	unmake();
}

static uint64_t told;

static int tell(void *context, uint64_t gpa, uint64_t bytes)
{
	(void)context;
	(void)gpa;
	told += bytes / PAGE;
	return 0;
}

/* A migration goes on beside the guard, and neither takes the other's pages away. */
static void with_a_migration(void)
{
	uint64_t released;

	make(0);
	for (uint64_t i = 0; i < 16; i++)
		vmemt_put(&cpu, base, i, 1);
	assert(!vmem_region_dirty_start(region));
	assert(!vmem_region_dirty_round(region, GPA, PAGES * PAGE, tell, NULL, NULL) && told == 16);
	assert(!guard.begin(guard.context));
	told = 0;
	assert(!vmem_region_dirty_round(region, GPA, PAGES * PAGE, tell, NULL, NULL) && told == 0);
	vmemt_put(&cpu, base, 1, 2);
	assert(!vmem_region_dirty_round(region, GPA, PAGES * PAGE, tell, NULL, NULL) && told == 1);
	assert(!is_unwritten(1) && is_unwritten(2));
	/* What is dropped has changed, and is told. */
	assert(!hint(0, 8, &released) && released == 7 * PAGE && vmemt_is(&cpu, base, 1, 2));
	told = 0;
	assert(!vmem_region_dirty_round(region, GPA, PAGES * PAGE, tell, NULL, NULL) && told == 7);
	/* The migration ends, and the guard watches still. */
	assert(!vmem_region_dirty_stop(region));
	vmemt_put(&cpu, base, 9, 2);
	assert(!is_unwritten(9) && is_unwritten(10));
	assert(!hint(8, 4, &released) && released == 3 * PAGE && vmemt_is(&cpu, base, 9, 2));
	guard.end(guard.context);
	vmemt_put(&cpu, base, 10, 2);
	assert(vmemt_is(&cpu, base, 10, 2));
	unmake();
}

/* Where writes cannot be held off there is no hinting. */
static void refused(void)
{
	struct vmem_discard_piece p = { .size = sizeof(p),
					.gpa = GPA + PAGES * PAGE,
					.bytes = PAGE,
					.kind = VMEM_DISCARD_PRIVATE };
	void *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	make(0);
	assert(memory != MAP_FAILED);
	p.hva = memory;
	assert(!guard.begin(guard.context));
	assert(vmem_discard_add(discard, &p) == -VMEM_EBUSY);
	guard.end(guard.context);
	assert(!vmem_discard_add(discard, &p));
	assert(guard.begin(guard.context) == -VMEM_ENOTSUP);
	assert(!is_unwritten(0));
	unmake();
	assert(!munmap(memory, PAGE));
}

/* All regions are watched, or none. */
static void second_refuses(void)
{
	struct vmem_balloon_guard its = { .size = sizeof(its) };
	struct vmem_discard_piece p = { .size = sizeof(p), .kind = VMEM_DISCARD_REGION };
	vmem_discard *other;

	make(0);
	p.region = vmemt_region(manager, GPA + PAGES * PAGE, PAGES, VMEM_REGION_DMA_PINNED);
	assert(!vmem_discard_new(&other, NULL) && !vmem_discard_add(other, &p));
	assert(!vmem_discard_add(discard, &p) && !vmem_discard_get_guard(other, &its));
	assert(!its.begin(its.context));
	assert(guard.begin(guard.context) == -VMEM_EBUSY && !is_unwritten(0));
	its.end(its.context);
	assert(!guard.begin(guard.context) && is_unwritten(0));
	guard.end(guard.context);
	vmem_discard_free(other);
	vmem_discard_free(discard);
	discard = NULL;
	assert(!vmem_region_detach(p.region, VMEM_DETACH_DISCARD));
	unmake();
}

/* --- Guests that write all the time --- */

#define GUESTS 2
#define ROUNDS (VMEMT_SLOW ? 15 : 150)

static _Atomic uint64_t issued; /* atomic; rounds of hints whose guard has begun */
static _Atomic int stop;        /* atomic */
static _Atomic uint64_t writes; /* atomic */

/* What a guest knows of its pages: the last number it wrote there, and the round in which. */
struct guest {
	pthread_t thread;
	unsigned first; /* of every GUESTS-th page */
	uint64_t seed;
	uint64_t number[PAGES], round[PAGES];
};

static void look(struct guest *g, unsigned page)
{
	uint64_t seen =
		atomic_load((_Atomic uint64_t *)(void *)(base + page * PAGE + 8 * (page % 512)));

	/* It may be gone only by a round that was begun after it was written. */
	assert(seen == g->number[page] || (!seen && atomic_load(&issued) > g->round[page]));
	if (!seen)
		g->number[page] = 0;
}

static void *guest(void *context)
{
	struct guest *g = context;
	uint64_t n = 0;

	while (!atomic_load(&stop)) {
		unsigned page = (unsigned)(vmemt_rand(&g->seed) % (PAGES / GUESTS)) * GUESTS;

		page += g->first;
		look(g, page);
		if (vmemt_rand(&g->seed) % 2)
			continue;
		g->round[page] = atomic_load(&issued);
		g->number[page] = ++n;
		atomic_store((_Atomic uint64_t *)(void *)(base + page * PAGE + 8 * (page % 512)),
			     n);
		look(g, page);
		atomic_fetch_add(&writes, 1);
	}
	for (unsigned page = g->first; page < PAGES; page += GUESTS)
		look(g, page);
	return NULL;
}

/* As the balloon does: what is not written is given out, and is discarded a moment later. */
static void a_round(uint64_t *seed)
{
	uint64_t first, count, released, before;

	assert(!guard.begin(guard.context));
	atomic_fetch_add(&issued, 1);
	for (unsigned i = 0; i < 24; i++) {
		if (i % 8 == 5) {
			before = atomic_load(&writes);
			VMEMT_UNTIL(atomic_load(&writes) > before + 8);
		}
		first = vmemt_rand(seed) % PAGES;
		count = 1 + vmemt_rand(seed) % 16;
		count = first + count > PAGES ? PAGES - first : count;
		if (i % 4 == 3)
			assert(!vmem_region_stage(region, GPA + first * PAGE, count * PAGE, NULL));
		else if (i % 8 == 6)
			assert(!vmem_region_store(region, GPA + first * PAGE, count * PAGE, NULL));
		else
			assert(!hint(first, count, &released));
	}
	guard.end(guard.context);
}

static void writers(void)
{
	static struct guest guests[GUESTS];
	uint64_t seed = vmemt_seed("balloon_guard");

	make(0);
	atomic_store(&stop, 0);
	for (unsigned i = 0; i < GUESTS; i++) {
		guests[i] = (struct guest){ .first = i, .seed = seed + i };
		assert(!pthread_create(&guests[i].thread, NULL, guest, &guests[i]));
	}
	for (unsigned i = 0; i < ROUNDS; i++) {
		a_round(&seed);
	}
	atomic_store(&stop, 1);
	for (unsigned i = 0; i < GUESTS; i++)
		assert(!pthread_join(guests[i].thread, NULL));
	fprintf(stderr, "%llu pages discarded, %llu left, %llu writes\n",
		(unsigned long long)(hinted().released / PAGE),
		(unsigned long long)(hinted().written / PAGE), (unsigned long long)writes);
	assert(hinted().released && hinted().written);
	unmake();
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_WP);
	vmemt_cpu_start(&cpu);
	states();
	with_a_migration();
	refused();
	second_refuses();
	writers();
	vmemt_cpu_stop(&cpu);
	return 0;
}
