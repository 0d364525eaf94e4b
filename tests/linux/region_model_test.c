/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations on a region of real memory against an array of bytes: what the guest reads, what the
 * VMM reads, and what is pinned must be as in the array, whatever was taken out, stored, brought back or
 * thrown away in between. All invariants are walked after each block. */
#include "linux/guest.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <vmem/source.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
#define GPA (UINT64_C(5) << 30)
#define PAGES 2048
#define BLOCKS 10
#define BLOCK_OPERATIONS 250
#define PINNED_MAX 100

struct setting {
	uint64_t flags;
	uint32_t way, around;
	bool threads;
};

static struct vmemt_cpu cpu;
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static struct setting set;
static uint64_t rng;
static uint64_t said; /* pages that became clean because the source has them */

/* The model. */
static unsigned char contents[PAGES * PAGE];
static unsigned pins[PAGES], pinned;
static unsigned char
	image[PAGES * PAGE]; /* what the source has of pages that are with it, or clean by it */

static uint64_t below(uint64_t n)
{
	return vmemt_rand(&rng) % n;
}

static uint64_t gpa_of(uint64_t page)
{
	return GPA + page * PAGE;
}

/* A range of pages, often short, sometimes all. */
static uint64_t range(uint64_t *ret_first)
{
	uint64_t most = UINT64_C(1) << below(12), first = below(PAGES), count = 1 + below(most);

	*ret_first = first;
	return count < PAGES - first ? count : PAGES - first;
}

static void touch(enum vmemt_touch how, uint64_t offset, void *data, uint64_t bytes)
{
	if (set.threads)
		assert(!vmemt_touch(&cpu, how, base + offset, data, bytes));
	else
		assert(!vmemt_touch_step(&cpu, how, base + offset, data, bytes, manager));
}

static void make_contents(struct vmemt_page *p, uint64_t page)
{
	/* Noise cannot be stored: so much of it as always fits. */
	uint64_t kind = below(page % 16 ? VMEMT_PAGE_NOISE : VMEMT_PAGE_KINDS);

	vmemt_page_make(p, (enum vmemt_page_kind)kind, vmemt_rand(&rng));
}

static void guest_reads(void)
{
	static struct vmemt_page got[32];
	uint64_t first, count = range(&first);

	count = count < 32 ? count : 32;
	touch(VMEMT_READ, first * PAGE, got, count * PAGE);
	assert(!memcmp(got, contents + first * PAGE, count * PAGE));
}

static void guest_writes_a_word(void)
{
	uint64_t at = below(PAGES * PAGE / 8) * 8, word = vmemt_rand(&rng);

	if (at / PAGE % 16) /* keeps the page compressible */
		word &= 0xff;
	touch(VMEMT_WRITE, at, &word, 8);
	memcpy(contents + at, &word, 8);
}

static void guest_writes_a_page(void)
{
	uint64_t page = below(PAGES);
	struct vmemt_page p;

	make_contents(&p, page);
	touch(VMEMT_WRITE, page * PAGE, &p, PAGE);
	memcpy(contents + page * PAGE, &p, PAGE);
}

static void vmm_reads(void)
{
	static struct vmemt_page got[64];
	uint64_t first, count = range(&first);

	count = count < 64 ? count : 64;
	assert(!vmem_region_read(region, gpa_of(first), got, count * PAGE));
	assert(!memcmp(got, contents + first * PAGE, count * PAGE));
}

static void vmm_writes(void)
{
	static struct vmemt_page p[64];
	uint64_t first, count = range(&first);

	count = count < 64 ? count : 64;
	for (uint64_t i = 0; i < count; i++)
		make_contents(&p[i], first + i);
	assert(!vmem_region_write(region, gpa_of(first), p, count * PAGE));
	memcpy(contents + first * PAGE, p, count * PAGE);
}

static void stage(void)
{
	uint64_t first, count = range(&first), pages = 0;

	assert(!vmem_region_stage(region, gpa_of(first), count * PAGE, &pages));
	assert(pages <= count);
}

static void stage_pages(void)
{
	static uint64_t gpas[PAGES];
	uint64_t first, count = range(&first), pages = 0, step = 1 + below(9);
	uint32_t n = 0;

	for (uint64_t i = first; i < first + count; i += 1 + below(step))
		gpas[n++] = gpa_of(i);
	assert(!vmem_region_stage_pages(region, gpas, n, &pages));
	assert(pages <= n);
}

static void store(void)
{
	uint64_t first, count = range(&first), pages = 0;
	int error = vmem_region_store(region, gpa_of(first), count * PAGE, &pages);

	assert(!error || error == -VMEM_ENOSPC || error == -VMEM_ENOMEM);
	assert(pages <= count);
}

static void discard(void)
{
	uint64_t first, count = range(&first), from = below(2) * below(PAGE), released = 0;
	uint64_t bytes = count * PAGE - from;
	bool kept = false;
	int error;

	/* From the middle of a page: that page stays. */
	error = vmem_region_discard(region, gpa_of(first) + from, bytes, &released);
	for (uint64_t i = first + (from > 0); i < first + count; i++) {
		kept |= pins[i] > 0;
		if (!pins[i])
			memset(contents + i * PAGE, 0, PAGE);
	}
	assert(error == (kept ? -VMEM_EBUSY : 0));
	assert(released <= 2 * bytes); /* a clean page has a frame and an object */
}

/* What is away is zeros from then on, what is in place stays: which of them, the clock knows. */
static void will_overwrite(void)
{
	static const unsigned char zeros[PAGE];
	struct vmemt_page got;
	uint64_t first, count = range(&first), pages = 0, zeroed = 0;

	assert(!vmem_region_will_overwrite(region, gpa_of(first), count * PAGE, &pages));
	for (uint64_t i = first; i < first + count; i++) {
		assert(!vmem_region_read(region, gpa_of(i), &got, PAGE));
		if (!memcmp(&got, contents + i * PAGE, PAGE))
			continue;
		assert(!memcmp(&got, zeros, PAGE) && !pins[i]);
		memset(contents + i * PAGE, 0, PAGE);
		zeroed++;
	}
	assert(zeroed <= pages);
}

static int read_source(void *context, uint64_t gpa, void *buffer)
{
	(void)context;
	memcpy(buffer, image + (gpa - GPA), PAGE);
	return 0;
}

/* Reads of a disk that are not done. */
static void give_to_source(void)
{
	uint64_t first, count = range(&first);
	struct vmemt_page p;
	bool kept = false;
	int error;

	count = count < 64 ? count : 64;
	for (uint64_t i = first; i < first + count; i++) {
		make_contents(&p, i);
		memcpy(image + i * PAGE, &p, PAGE);
		kept |= pins[i] > 0;
		if (!pins[i])
			memcpy(contents + i * PAGE, &p, PAGE);
	}
	error = vmem_region_give_to_source(region, gpa_of(first), count * PAGE);
	assert(error == (kept ? -VMEM_EBUSY : 0));
}

/* And writes: the disk has what is in memory. What it had before is with nobody. */
static void same_as_source(void)
{
	uint64_t first, count = range(&first), pages = 0;
	int error;

	count = count < 64 ? count : 64;
	for (uint64_t i = first; i < first + count; i++)
		assert(!vmem_region_resolve(region, gpa_of(i), 1));
	memcpy(image + first * PAGE, contents + first * PAGE, count * PAGE);
	error = vmem_region_same_as_source(region, gpa_of(first), count * PAGE, &pages);
	assert(error == (region->can_write_protect ? 0 : -VMEM_ENOTSUP));
	assert(pages <= count);
	said += pages;
}

static void pin(void)
{
	uint64_t first, count = range(&first);

	count = count < 20 ? count : 20;
	if (pinned + count > PINNED_MAX)
		return;
	assert(!vmem_region_pin(region, gpa_of(first), count * PAGE));
	for (uint64_t i = first; i < first + count; i++) {
		pinned += !pins[i]++;
		assert(vmemt_state(region, i) == VMEM_PAGE_RESIDENT);
	}
}

static void unpin(void)
{
	uint64_t first = below(PAGES), count = 0;

	while (first < PAGES && !pins[first])
		first++;
	while (first + count < PAGES && pins[first + count])
		count++;
	if (first + count < PAGES)
		assert(vmem_region_unpin(region, gpa_of(first), (count + 1) * PAGE) ==
		       -VMEM_EINVAL);
	assert(!vmem_region_unpin(region, gpa_of(first), count * PAGE));
	for (uint64_t i = first; i < first + count; i++)
		pinned -= !--pins[i];
}

static void resolve(void)
{
	uint64_t page = below(PAGES);
	int write = (int)below(2);

	assert(!vmem_region_resolve(region, gpa_of(page) + below(PAGE), write));
}

static void set_budget(void)
{
	static const uint64_t budget[] = { 0, 6 * MIB, 7 * MIB, 9 * MIB };

	assert(!vmem_manager_set_budget(manager, budget[below(4)]));
}

static void reclaim(void)
{
	if (!set.threads)
		assert(vmem_manager_step(manager, (uint32_t)below(1000), NULL) >= 0);
}

static void (*const operations[])(void) = {
	guest_reads,
	guest_reads,
	guest_reads,
	guest_writes_a_word,
	guest_writes_a_word,
	vmm_reads,
	vmm_writes,
	stage,
	guest_writes_a_page,
	guest_writes_a_page,
	stage,
	stage_pages,
	stage_pages,
	store,
	store,
	discard,
	will_overwrite,
	give_to_source,
	same_as_source,
	pin,
	unpin,
	resolve,
	set_budget,
	reclaim,
};

static uint64_t refs(void)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < PAGES; i++)
		n += vmemi_page_ref(vmemi_region_word(region, i)) != 0;
	return n;
}

/* With nobody at work: counters and words agree, the kernel has what the words say, and every byte is
 * right. */
static void check(void)
{
	static struct vmemt_page got[64];
	struct vmem_region_metrics m;
	struct vmem_manager_metrics mm;

	vmemt_check(manager, region);
	if (set.threads)
		vmem_manager_thread_stop(manager);
	m = vmemt_metrics(region);
	mm = vmemt_manager_metrics(manager);
	assert(m.pinned_pages == pinned && !m.lost && !m.pages[VMEM_PAGE_ARRIVING]);
	assert(mm.resident_bytes ==
	       (m.pages[VMEM_PAGE_RESIDENT] + m.pages[VMEM_PAGE_CLEAN]) * PAGE);
	assert(mm.staging_bytes == (m.pages[VMEM_PAGE_STAGED] + m.staging_copies) * PAGE);
	assert(vmemt_account(region).pages == refs());
	for (unsigned i = 0; i < 100; i++) {
		uint64_t page = below(PAGES);
		enum vmem_page_state state = vmemt_state(region, page);

		assert(vmemt_mapped(base + page * PAGE) ==
		       (state == VMEM_PAGE_RESIDENT || state == VMEM_PAGE_CLEAN));
		assert(!pins[page] || state == VMEM_PAGE_RESIDENT);
	}
	for (uint64_t i = 0; i < PAGES; i += 64) {
		assert(!vmem_region_read(region, gpa_of(i), got, sizeof(got)));
		assert(!memcmp(got, contents + i * PAGE, sizeof(got)));
	}
	if (set.threads)
		assert(!vmem_manager_thread_start(manager));
}

static void run(struct setting setting)
{
	struct vmem_region_opts o = {
		.size = sizeof(o),
		.flags = setting.flags | VMEM_REGION_SOURCE_STAYS,
		.gpa = GPA,
		.bytes = PAGES * PAGE,
		.fault_way = setting.way,
		.fault_around_pages = setting.around,
		.read_source = read_source,
	};

	set = setting;
	memset(contents, 0, sizeof(contents));
	memset(pins, 0, sizeof(pins));
	pinned = 0;
	manager = vmemt_manager(6 * MIB);
	vmemt_catch_signals(manager);
	assert(!vmemt_alloc(&region, manager, &o));
	cpu.region = region;
	base = vmem_region_hva(region);
	if (set.threads)
		assert(!vmem_manager_thread_start(manager));
	for (unsigned block = 0; block < BLOCKS; block++) {
		for (unsigned i = 0; i < BLOCK_OPERATIONS; i++)
			operations[below(sizeof(operations) / sizeof(operations[0]))]();
		check();
	}
	/* Into the hands of the VMM, as it is. */
	assert(!vmem_region_detach(region, VMEM_DETACH_RESTORE));
	vmem_manager_thread_stop(manager);
	assert(!memcmp(base, contents, sizeof(contents)));
	manager->host.k->munmap(base, sizeof(contents));
	assert(!vmem_manager_free(manager));
}

int main(void)
{
	rng = vmemt_seed("region_model");
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_SIGBUS |
		   VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_cpu_start(&cpu);
	for (unsigned i = 0; i < 16; i++)
		run((struct setting){ .flags = i & 1 ? VMEM_REGION_DMA_PINNED : 0,
				      .way = i & 2 ? VMEM_FAULT_SIGBUS : VMEM_FAULT_THREAD,
				      .around = i & 4 ? 16 : 1,
				      .threads = i & 8 });
	assert(said || getenv("VMEM_TEST_ASYNC_WP"));
	vmemt_cpu_stop(&cpu);
	return 0;
}
