/* SPDX-License-Identifier: BSD-2-Clause */
/* Huge pages of private memory: made, split, made again, and seen from outside. */
#include "linux/failing_kernel.h"
#include "linux/guest.h"
#include "linux/huge_seen.h"
#include "support/rng.h"
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <vmem/grow.h>
#include <vmem/huge.h>
#include <vmem/snapshot.h>

#define PAGE VMEM_PAGE_SIZE
#define BLOCK VMEMI_HUGE_PAGES
#define MIB (UINT64_C(1) << 20)

static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static struct vmemt_cpu cpu;
static struct vmemt_page text[BLOCK];

/* --- A guest --- */

static void make(uint64_t budget, uint64_t gpa, uint64_t blocks)
{
	struct vmem_manager_opts mo = { .size = sizeof(mo), .budget_bytes = budget };

	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&manager, &mo, &vmemt_kernel_table));
	cpu.region = region = vmemt_region(manager, gpa, blocks * BLOCK, VMEM_REGION_HUGE);
	base = vmem_region_hva(region);
	assert(((uintptr_t)base - gpa) % VMEMI_HUGE_BYTES == 0);
}

static void make_text(uint64_t block, uint64_t version)
{
	for (uint64_t i = 0; i < BLOCK; i++)
		vmemt_make(&text[i], block * BLOCK + i, version);
}

/* Threads serve. */
static void fill(uint64_t block, uint64_t version)
{
	make_text(block, version);
	assert(!vmemt_touch(&cpu, VMEMT_WRITE, base + block * BLOCK * PAGE, text, sizeof(text)));
}

static bool holds(uint64_t block, uint64_t version)
{
	static struct vmemt_page got[BLOCK];

	make_text(block, version);
	assert(!vmemt_touch(&cpu, VMEMT_READ, base + block * BLOCK * PAGE, got, sizeof(got)));
	return !memcmp(got, text, sizeof(got));
}

static uint64_t whole(void)
{
	return vmemt_metrics(region).huge_bytes / VMEMI_HUGE_BYTES;
}

/* The next pass over the blocks may begin then. */
static void rest_until(uint64_t ns)
{
	vmemi_reclaim_enter(manager->reclaim);
	region->huge.pass_ns = 0;
	manager->reclaim->huge.rest_until_ns = ns;
	vmemi_reclaim_leave(manager->reclaim);
}

static void hurry(void)
{
	rest_until(0);
	vmemi_host_kick_reclaim(&manager->host);
	sched_yield();
}

static void step(unsigned n)
{
	while (n--) {
		hurry();
		assert(vmem_manager_step(manager, 1000, NULL) >= 0);
	}
}

/* No block is made huge meanwhile, nor after that without a step(): the last page may have come in a step before others. */
static void fill_by_steps(uint64_t block, uint64_t version)
{
	rest_until(UINT64_MAX);
	make_text(block, version);
	assert(!vmemt_touch_step(&cpu, VMEMT_WRITE, base + block * BLOCK * PAGE, text, sizeof(text),
				 manager));
}

static long tries(void)
{
	return atomic_load(&vmemt_kernel.calls[VMEMT_K_COLLAPSE]) - 1; /* the manager asked once */
}

static void end(void)
{
	vmemt_check(manager, region);
	vmemt_end(manager, region);
}

/* What is all in place is made huge; what is not is not; and bytes are what they were. */
static void is_made(void)
{
	make(0, 5 * PAGE, 3);
	assert(!vmem_manager_thread_start(manager));
	/* The first whole block begins behind the first pages; the last is not all there. */
	fill(0, 1);
	fill(1, 1);
	VMEMT_UNTIL((hurry(), whole() == 1 && vmemt_huge_mapped(base, 3 * BLOCK * PAGE) ==
						      VMEMI_HUGE_BYTES));
	fill(2, 1);
	VMEMT_UNTIL((hurry(), whole() == 2 && vmemt_huge_mapped(base, 3 * BLOCK * PAGE) ==
						      2 * VMEMI_HUGE_BYTES));
	for (uint64_t i = 0; i < 3; i++)
		assert(holds(i, 1));
	assert(vmemt_metrics(region).huge_collapsed >= 2); /* the kernel may have split some */
	fill(1, 2);
	assert(holds(0, 1) && holds(1, 2) && holds(2, 1));
	end();
}

/* What was only read is the kernel's one page of zeros, of which nothing can be made: it gets frames. */
static void zeros_too(void)
{
	static struct vmemt_page got[BLOCK];

	make(0, 0, 1);
	assert(!vmem_manager_thread_start(manager));
	assert(!vmemt_touch(&cpu, VMEMT_READ, base, got, sizeof(got)));
	/* Somebody was at that one when the others were unprotected. */
	assert(!vmemi_uffd_protect(region->uffd, base + 5 * PAGE, PAGE, true));
	if (region->huge.pagemap < 0) { /* before 6.7 nobody tells which pages those are */
		fill(0, 0);
		end();
		return;
	}
	VMEMT_UNTIL((hurry(), whole() == 1));
	assert(holds(0, 0));
	fill(0, 1);
	assert(holds(0, 1));
	end();
}

/* Taken, stored and brought back, it is pieces, and whole again when all are in place and writable. */
static void comes_and_goes(void)
{
	make(0, 0, 1);
	assert(!vmem_manager_thread_start(manager));
	fill(0, 1);
	VMEMT_UNTIL((hurry(), whole() == 1));
	vmemt_stage(region, 7, 1);
	assert(whole() == 0); /* who takes of it knows */
	assert(vmemt_huge_mapped(base, BLOCK * PAGE) == 0);
	assert(holds(0, 1));
	VMEMT_UNTIL((hurry(), whole() == 1));
	vmemt_store(region, 0, BLOCK);
	assert(holds(0, 1));
	VMEMT_UNTIL((hurry(), whole() == 0));
	fill(0, 2); /* what was read came back protected */
	VMEMT_UNTIL((hurry(), whole() == 1));
	assert(holds(0, 2) && vmemt_metrics(region).huge_split >= 2);
	end();
}

/* What is discarded out of a huge page gives memory back: its frame is split for that. */
static void discards(void)
{
	uint64_t released;

	make(0, 0, 2);
	assert(!vmem_manager_thread_start(manager));
	fill(0, 1);
	fill(1, 1);
	if (vmemt_huge_frames(base) < 0)
		printf("frames cannot be looked at here\n");
	VMEMT_UNTIL((hurry(), whole() == 2 && (vmemt_huge_frames(base) < 0 ||
					       vmemt_huge_frames(base) == BLOCK)));
	assert(!vmem_region_discard(region, 3 * PAGE, 2 * PAGE, &released));
	assert(released == 2 * PAGE && whole() <= 1);
	assert(vmemt_huge_frames(base) <= 0);
	assert(!vmem_region_discard(region, 0, BLOCK * PAGE, &released));
	assert(released == (BLOCK - 2) * PAGE);
	assert(holds(0, 0) && holds(1, 1));
	end();
}

static _Atomic int meanwhile; /* atomic; times that others shall be faster */

/* Somebody is about to discard a page when the block is about to be made huge. */
static void break_soon(enum vmemt_call call)
{
	const uint64_t page = 3;

	if (call == VMEMT_K_COLLAPSE)
		vmemi_huge_break(region, &page, 1);
}

/* Somebody discards the first half when the block is about to be split. */
static void discard_first(enum vmemt_call call)
{
	if (call == VMEMT_K_MADVISE && atomic_exchange(&meanwhile, 0))
		assert(!vmem_region_discard(region, 0, BLOCK / 2 * PAGE, NULL));
}

/* Also who comes between gets memory back. */
static void discards_meanwhile(void)
{
	make(0, 0, 1);
	fill_by_steps(0, 1);
	vmemt_kernel.at_call = break_soon;
	VMEMT_UNTIL((step(1), vmemt_metrics(region).huge_collapsed));
	vmemt_kernel.at_call = NULL;
	assert(!whole() && !vmemt_huge_mapped(base, BLOCK * PAGE) && vmemt_huge_frames(base) <= 0);
	VMEMT_UNTIL((step(1), whole() == 1));
	vmemt_kernel.at_call = discard_first;
	atomic_store(&meanwhile, 1);
	vmemi_reclaim_enter(manager->reclaim);
	assert(vmemi_huge_give(region, 1) == BLOCK);
	vmemi_reclaim_leave(manager->reclaim);
	vmemt_kernel.at_call = NULL;
	assert(!atomic_load(&meanwhile) && !whole() && vmemt_huge_frames(base) <= 0);
	end();
}

/* Seen from other threads, nothing may be missing or old while blocks change all the time. */
struct writer {
	_Atomic int stop;
	_Atomic uint64_t rounds;
	uint64_t seed, wrong;
};

#define WRITTEN 64 /* pages of each block */

static void *write_on(void *argument)
{
	struct writer *w = argument;
	uint64_t count[2 * WRITTEN] = { 0 };
	uint64_t rng = w->seed;

	while (!atomic_load(&w->stop)) {
		uint64_t i = vmemt_rand(&rng) % (2 * WRITTEN);
		_Atomic uint64_t *word = (_Atomic uint64_t *)(base + i * (BLOCK / WRITTEN) * PAGE);

		w->wrong += atomic_fetch_add(word, 1) != count[i]++;
		w->rounds++;
	}
	return NULL;
}

static void under_writes(void)
{
	struct writer w = { .seed = vmemt_seed("huge") };
	uint64_t rng = w.seed + 1;
	pthread_t thread;

	make(0, 0, 2);
	assert(!vmem_manager_thread_start(manager));
	memset(text, 0, sizeof(text));
	for (uint64_t i = 0; i < 2; i++)
		assert(!vmemt_touch(&cpu, VMEMT_WRITE, base + i * sizeof(text), text,
				    sizeof(text)));
	assert(!pthread_create(&thread, NULL, write_on, &w));
	for (unsigned round = 0; round < 6; round++) {
		uint64_t first = vmemt_rand(&rng) % (2 * BLOCK - 64), collapsed;

		VMEMT_UNTIL((hurry(), whole() > 0 && atomic_load(&w.rounds)));
		collapsed = vmemt_metrics(region).huge_collapsed;
		assert(!vmem_region_stage(region, first * PAGE, 64 * PAGE, NULL));
		if (round % 2)
			assert(!vmem_region_store(region, first * PAGE, 64 * PAGE, NULL));
		/* All of it comes back, and writable. */
		for (uint64_t page = first; page < first + 64; page++)
			assert(!vmem_region_resolve(region, page * PAGE, 1));
		VMEMT_UNTIL((hurry(),
			     whole() == 2 || vmemt_metrics(region).huge_collapsed > collapsed));
	}
	atomic_store(&w.stop, 1);
	pthread_join(thread, NULL);
	assert(!w.wrong);
	end();
}

/* --- When it is not done --- */

static int told(void *context, uint64_t gpa, uint64_t bytes)
{
	uint64_t *pages = context;

	(void)gpa;
	*pages += bytes / PAGE;
	return 0;
}

/* Not what is held, what is to stay as it is, or what is protected to see writes; nor what is cold. */
static void is_left_alone(void)
{
	uint64_t pages = 0;

	make(0, 0, 1);
	step(1);
	assert(!vmem_region_pin(region, 0, BLOCK * PAGE));
	step(8);
	assert(!tries());
	assert(!vmem_region_quiesce(region));
	assert(!vmem_region_unpin(region, 0, BLOCK * PAGE));
	step(8);
	assert(!tries());
	assert(!vmem_region_resume(region));
	assert(!vmem_region_dirty_start(region));
	step(8);
	assert(!tries());
	assert(!vmem_region_dirty_stop(region));
	VMEMT_UNTIL((step(1), whole() == 1));
	/* A round of written pages protects a part of it, or all: a write is not missed. */
	assert(!vmem_region_dirty_start(region));
	assert(!vmem_region_dirty_round(region, 0, BLOCK * PAGE, told, &pages, NULL));
	assert(pages == BLOCK);
	fill_by_steps(0, 1);
	pages = 0;
	assert(!vmem_region_dirty_round(region, 0, BLOCK * PAGE, told, &pages, NULL));
	assert(pages == BLOCK);
	assert(!vmem_region_dirty_stop(region));
	end();
}

/* Between two spells of work nothing is done. */
static void rests(void)
{
	uint64_t before;

	make(0, 0, 1);
	fill_by_steps(0, 1);
	for (unsigned i = 0; i < 4; i++)
		assert(vmem_manager_step(manager, 1000, NULL) >= 0);
	assert(!tries());
	before = manager->host.k->clock_ns();
	VMEMT_UNTIL((step(1), tries()));
	assert(manager->reclaim->huge.rest_until_ns >= before + 100 * UINT64_C(1000000));
	end();
}

/* What the kernel refuses is tried again later. */
static void is_refused(void)
{
	static const int errors[] = { -VMEM_EAGAIN, -VMEM_EINVAL, -VMEM_ENOMEM };

	for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		struct vmem_region_metrics m;

		make(0, 0, 1);
		vmemt_kernel.fail = VMEMT_K_COLLAPSE;
		vmemt_kernel.error = errors[i];
		vmemt_kernel.fail_after = 1;
		assert(!vmem_manager_thread_start(manager));
		fill(0, 1);
		VMEMT_UNTIL((hurry(), vmemt_metrics(region).huge_failed));
		VMEMT_UNTIL((hurry(), whole() == 1));
		m = vmemt_metrics(region);
		assert(vmemt_kernel.failed == 1 && m.huge_failed >= 1 && m.huge_collapsed >= 1);
		assert(holds(0, 1));
		end();
	}
}

/* A short life where the kernel makes none: it is told, and nothing else is different. */
static void lives_without(void)
{
	struct vmem_region_metrics m;

	assert(!vmem_manager_thread_start(manager));
	fill(0, 1);
	VMEMT_UNTIL(vmemt_metrics(region).huge_failed);
	vmemt_store(region, 0, 100);
	vmemt_stage(region, 200, 100);
	assert(!vmem_region_discard(region, 400 * PAGE, PAGE, NULL));
	vmemt_put(&cpu, base, 400, 1);
	assert(holds(0, 1));
	m = vmemt_metrics(region);
	assert(!m.huge_bytes && !m.huge_collapsed && !m.huge_split);
	assert(!vmemt_huge_mapped(base, BLOCK * PAGE));
	end();
}

static void thp_is_off(void)
{
	make(0, 0, 1);
	assert(!madvise(base, BLOCK * PAGE, MADV_NOHUGEPAGE));
	lives_without();
	if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
		return;
	make(0, 0, 1);
	lives_without();
	assert(!prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0));
}

/* Who cannot have it is told why. */
static void is_not_to_be_had(void)
{
	struct vmem_manager_opts async = { .size = sizeof(async), .flags = VMEM_MANAGER_ASYNC_WP };
	struct vmem_region_opts o = { .size = sizeof(o), .flags = VMEM_REGION_HUGE };
	vmem_region *r = NULL;
	void *memory;

	o.bytes = 4 * MIB;
	make(0, 0, 1);
	assert(!strcmp(vmem_region_huge_why(manager, &o), ""));
	assert(*vmem_region_huge_why(manager, NULL) && *vmem_region_huge_why(NULL, &o));
	o.flags |= VMEM_REGION_FILE;
	assert(strstr(vmem_region_huge_why(manager, &o), "file"));
	assert(vmem_region_alloc(&r, manager, &o) == -VMEM_ENOTSUP);
	o.flags = VMEM_REGION_HUGE;
	o.gpa = 64 * MIB;
	memory = mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert(memory != MAP_FAILED);
	o.hva = (char *)memory + -(uintptr_t)memory % VMEMI_HUGE_BYTES + PAGE;
	assert(strstr(vmem_region_huge_why(manager, &o), "2 MiB"));
	assert(vmem_region_attach(&r, manager, &o) == -VMEM_ENOTSUP);
	o.gpa += PAGE;
	assert(!strcmp(vmem_region_huge_why(manager, &o), ""));
	assert(!vmem_region_attach(&r, manager, &o));
	assert(!vmem_region_detach(r, VMEM_DETACH_RESTORE));
	munmap(memory, 8 * MIB);
	o.hva = NULL;
	r = NULL;
	end();

	vmemt_kernel_reset();
	vmemt_kernel.hide_collapse = true;
	assert(!vmemi_manager_new(&manager, NULL, &vmemt_kernel_table));
	assert(!(vmemt_manager_metrics(manager).kernel_features & VMEM_KERNEL_COLLAPSE));
	assert(strstr(vmem_region_huge_why(manager, &o), "MADV_COLLAPSE"));
	assert(vmem_region_alloc(&r, manager, &o) == -VMEM_ENOTSUP && !r);
	assert(!vmem_manager_free(manager));

	assert(!vmem_manager_new(&manager, &async));
	if (vmemt_manager_metrics(manager).kernel_features & VMEM_KERNEL_ASYNC_WP) {
		assert(strstr(vmem_region_huge_why(manager, &o), "ASYNC_WP"));
		assert(vmem_region_alloc(&r, manager, &o) == -VMEM_ENOTSUP && !r);
	}
	assert(!vmem_manager_free(manager));
}

/* --- Room --- */

#define TIGHT 6 /* blocks */

/* When room is short huge pages are split, and their pages leave as others do. */
static void gives_way(void)
{
	make(64 * MIB, 0, TIGHT);
	assert(!vmem_manager_thread_start(manager));
	for (uint64_t i = 0; i < TIGHT; i++)
		fill(i, 1);
	VMEMT_UNTIL((hurry(), whole() == TIGHT));
	for (uint64_t budget = 15 * MIB; budget > 8 * MIB; budget -= MIB / 2) {
		assert(!vmem_manager_set_budget(manager, budget));
		/* So much is left to who makes room in the next step. */
		VMEMT_UNTIL(vmemt_manager_metrics(manager).used_bytes +
				    vmemt_manager_metrics(manager).reserve_bytes <=
			    budget);
	}
	assert(whole() < TIGHT && vmemt_metrics(region).huge_split);
	for (uint64_t i = 0; i < TIGHT; i++)
		assert(holds(i, 1));
	end();
}

/* Presses until a block is on trial. */
static void try_a_block(void)
{
	struct vmemi_huge *h = &region->huge;

	vmemi_reclaim_enter(manager->reclaim);
	for (unsigned i = 0; i < 64 && !h->trial_end_ns; i++)
		vmemi_huge_press(manager->reclaim, region, 128);
	assert(h->trial_end_ns && h->trial_taken == 0xff);
	assert(h->blocks[h->tried].kept == VMEMI_HUGE_TRIED);
	vmemi_reclaim_leave(manager->reclaim);
}

/* Brings a page of the trial back, and makes a round. */
static void bring_one_back(uint64_t block)
{
	uint64_t page = block * BLOCK;

	while (vmemt_state(region, page) == VMEM_PAGE_RESIDENT)
		page++;
	assert(page < (block + 1) * BLOCK);
	assert(!vmem_region_resolve(region, page * PAGE, 1));
	assert(vmem_manager_step(manager, 1000, NULL) >= 0);
}

/* While others are to be had blocks are tried, one at a time: one that is in use is kept, and made whole again. */
static void is_tried(void)
{
	struct vmemi_huge *h;
	uint64_t tried;

	make(64 * MIB, 0, 2);
	h = &region->huge;
	fill_by_steps(0, 1);
	fill_by_steps(1, 1);
	VMEMT_UNTIL((step(1), whole() == 2));
	try_a_block();
	assert(whole() <= 1 && vmemt_metrics(region).huge_split >= 1);
	assert(vmemt_metrics(region).pages[VMEM_PAGE_STAGED] == VMEMI_HUGE_TRIAL);
	tried = h->tried;
	h->trial_end_ns = UINT64_MAX;
	bring_one_back(tried); /* which is not enough */
	assert(h->trial_end_ns && h->blocks[tried].kept == VMEMI_HUGE_TRIED);
	bring_one_back(tried);
	assert(!h->trial_end_ns && h->blocks[tried].kept == VMEMI_HUGE_IN_USE);
	assert(!vmem_region_fetch(region, 0, 2 * BLOCK * PAGE, NULL));
	VMEMT_UNTIL((step(1), whole() == 2));
	end();
}

/* One that is not gives its pages, and only that one. */
static void is_given_up(void)
{
	struct vmemi_huge *h;
	uint64_t tried, other;

	make(64 * MIB, 0, 2);
	h = &region->huge;
	fill_by_steps(0, 1);
	fill_by_steps(1, 1);
	VMEMT_UNTIL((step(1), whole() == 2));
	h->victim = 1; /* the other comes first in a search for victims */
	try_a_block();
	tried = h->tried;
	other = 1 - tried;
	h->trial_end_ns = 1; /* it is over */
	assert(vmem_manager_step(manager, 1000, NULL) >= 0);
	assert(!h->trial_end_ns && !h->blocks[tried].kept);
	vmemi_reclaim_enter(manager->reclaim);
	assert(vmemi_take_cold(manager->reclaim, region, 256, true));
	vmemi_reclaim_leave(manager->reclaim);
	assert(vmemt_metrics(region).pages[VMEM_PAGE_STAGED] > VMEMI_HUGE_TRIAL);
	assert(h->blocks[other].kept == VMEMI_HUGE_KEPT && whole() == 1);
	for (uint64_t page = other * BLOCK; page < (other + 1) * BLOCK; page++)
		assert(vmemt_state(region, page) == VMEM_PAGE_RESIDENT);
	end();
}

/* What is new is looked at, too. */
static void grows(void)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = VMEM_REGION_HUGE,
				      .bytes = 3 * PAGE,
				      .max_bytes = 4 * MIB,
				      .gpa = 4 * MIB };

	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&manager, NULL, &vmemt_kernel_table));
	assert(!vmem_region_alloc(&region, manager, &o));
	cpu.region = region;
	base = vmem_region_hva(region);
	assert(!vmem_manager_thread_start(manager));
	assert(!vmem_region_grow(region, 4 * MIB));
	fill(1, 1);
	VMEMT_UNTIL((hurry(), whole() == 1));
	assert(holds(1, 1));
	end();
	assert(!vmemt_kernel.mapped_bytes);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_COLLAPSE);
	vmemt_huge_need(TIGHT);
	vmemt_catch_signals(NULL);
	vmemt_cpu_start(&cpu);
	is_made();
	zeros_too();
	comes_and_goes();
	discards();
	discards_meanwhile();
	under_writes();
	is_left_alone();
	rests();
	is_refused();
	thp_is_off();
	is_not_to_be_had();
	gives_way();
	is_tried();
	is_given_up();
	grows();
	vmemt_cpu_stop(&cpu);
	return 0;
}
