/* SPDX-License-Identifier: BSD-2-Clause */
/* See life.h. Beside each page stands what it must contain; a call that failed in the middle leaves two
 * possibilities until the page is looked at. */
#define _GNU_SOURCE
#include "linux/life.h"
#include "linux/failing_kernel.h"
#include "linux/guest.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE VMEM_PAGE_SIZE
#define PAGES 40
#define BYTES ((uint64_t)PAGES * PAGE)
#define REGIONS 3

struct truth {
	uint64_t version; /* 0: zeros */
	uint64_t other;   /* what it may be instead */
	bool doubt;       /* it may */
	bool lost;
};

struct guest {
	vmem_region *region;
	unsigned char *base; /* NULL: none */
	uint64_t gpa;
	bool own; /* the memory is the test's */
	struct truth page[PAGES];
};

static struct vmemt_cpu cpu;
static struct vmemt_life *life;
static vmem_manager *manager;
static struct guest guest[REGIONS];

void vmemt_life_start(void)
{
	vmemt_cpu_start(&cpu);
}

void vmemt_life_stop(void)
{
	vmemt_cpu_stop(&cpu);
}

static void on_lost(void *context, uint64_t gpa, int error)
{
	struct guest *g = context;

	assert(error < 0 && gpa >= g->gpa && gpa - g->gpa < BYTES);
	g->page[(gpa - g->gpa) / PAGE].lost = true;
	life->lost++;
}

/* The error of a call must be one of these, given as a mask of 0 .. 63. -VMEM_ENOTSUP is 95. */
#define E(name) (UINT64_C(1) << VMEM_##name)

static bool ok(int error, uint64_t allowed)
{
	if (!error)
		return true;
	life->errors++;
	if (error == -VMEM_ENOTSUP)
		assert(life->cannot_take);
	else if (error < -63 || !(allowed >> -error & 1))
		fprintf(stderr, "a call returned %d\n", error);
	assert(!life->nothing_fails || error == -VMEM_ENOTSUP);
	assert(error == -VMEM_ENOTSUP || (error >= -63 && (allowed >> -error & 1)));
	return false;
}

/* --- The guest --- */

static int touch(struct guest *g, enum vmemt_touch how, uint64_t page, struct vmemt_page *data)
{
	int signal;

	cpu.region = g->region;
	signal = vmemt_touch_step(&cpu, how, g->base + page * PAGE, data, PAGE, manager);
	if (signal) {
		assert(signal == SIGBUS && cpu.answer == -VMEM_EIO);
		assert(g->page[page].lost && !life->nothing_fails);
	}
	return signal;
}

static void put(struct guest *g, uint64_t page, uint64_t version)
{
	struct vmemt_page p;

	vmemt_make(&p, page, version);
	if (!touch(g, VMEMT_WRITE, page, &p))
		g->page[page] = (struct truth){ .version = version };
}

static void compare(struct truth *t, uint64_t page, const struct vmemt_page *got)
{
	struct vmemt_page want;

	assert(!t->lost);
	vmemt_make(&want, page, t->version);
	if (memcmp(got, &want, PAGE) && t->doubt) {
		vmemt_make(&want, page, t->other);
		t->version = t->other;
	}
	t->doubt = false;
	assert(!memcmp(got, &want, PAGE));
}

static void expect(struct guest *g, uint64_t page)
{
	struct vmemt_page got;

	if (!touch(g, VMEMT_READ, page, &got)) {
		compare(&g->page[page], page, &got);
		life->back++;
	}
}

/* All of them in one go, which is quicker; if one is lost, one by one. */
static void expect_all(struct guest *g)
{
	static struct vmemt_page got[PAGES];

	cpu.region = g->region;
	if (vmemt_touch_step(&cpu, VMEMT_READ, g->base, got, BYTES, manager)) {
		for (uint64_t i = 0; i < PAGES; i++)
			expect(g, i);
		return;
	}
	for (uint64_t i = 0; i < PAGES; i++)
		compare(&g->page[i], i, &got[i]);
	life->back += PAGES;
}

static void doubt(struct guest *g, uint64_t first, uint64_t count, uint64_t version)
{
	for (uint64_t i = first; i < first + count; i++) {
		g->page[i].other = version;
		g->page[i].doubt = true;
	}
}

/* --- The VMM --- */

static void make_regions(void)
{
	const uint64_t allowed = E(ENOMEM) | E(EIO) | E(EBUSY) | E(EPERM) | E(ENODEV);
	bool cannot_take = life->cannot_take;

	for (unsigned i = 0; i < REGIONS; i++) {
		struct guest *g = &guest[i];
		struct vmem_region_opts o = {
			.size = sizeof(o),
			.flags = i == 1 ? 0 : VMEM_REGION_DMA_PINNED,
			.gpa = (i + 1) * 16 * BYTES,
			.bytes = BYTES,
			.fault_around_pages = i == 2 ? 8 : 1,
			.same_vm_as = i == 2 ? guest[0].region : NULL,
			.on_lost = on_lost,
			.context = g,
		};
		int error;

		memset(g, 0, sizeof(*g));
		g->gpa = o.gpa;
		g->own = i > 0;
		if (g->own) {
			g->base = mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			assert(g->base != MAP_FAILED);
			for (uint64_t k = 0; k < PAGES; k += 2) {
				vmemt_make((struct vmemt_page *)(void *)(g->base + k * PAGE), k, 1);
				g->page[k].version = 1;
			}
			o.hva = g->base;
			error = vmem_region_attach(&g->region, manager, &o);
		} else {
			error = vmemt_alloc(&g->region, manager, &o);
		}
		/* When smaps cannot be read, the kind of memory is not known. */
		life->cannot_take |= error == -VMEM_ENOTSUP && !life->nothing_fails;
		if (!ok(error, allowed)) {
			assert(!g->region);
			continue;
		}
		g->base = vmem_region_hva(g->region);
	}
	life->cannot_take = cannot_take;
}

static void stage(struct guest *g, uint64_t first, uint64_t count)
{
	uint64_t pages = 0;

	if (ok(vmem_region_stage(g->region, g->gpa + first * PAGE, count * PAGE, &pages), 0))
		life->staged += (unsigned)pages;
}

static void stage_scattered(struct guest *g)
{
	uint64_t gpas[PAGES / 2], pages = 0;

	for (unsigned i = 0; i < PAGES / 2; i++)
		gpas[i] = g->gpa + (2 * i + 1) * PAGE;
	if (ok(vmem_region_stage_pages(g->region, gpas, PAGES / 2, &pages), 0))
		life->staged += (unsigned)pages;
}

static void store(struct guest *g, uint64_t first, uint64_t count)
{
	uint64_t pages = 0;

	if (ok(vmem_region_store(g->region, g->gpa + first * PAGE, count * PAGE, &pages),
	       E(ENOMEM) | E(ENOSPC)))
		life->stored += (unsigned)pages;
}

static void discard(struct guest *g, uint64_t first, uint64_t count)
{
	int error = vmem_region_discard(g->region, g->gpa + first * PAGE, count * PAGE, NULL);

	if (ok(error, E(EIO)))
		for (uint64_t i = first; i < first + count; i++)
			g->page[i] = (struct truth){ 0 };
	else
		doubt(g, first, count, 0);
}

static void read_page(struct guest *g, uint64_t page)
{
	struct vmemt_page got;

	if (ok(vmem_region_read(g->region, g->gpa + page * PAGE, &got, PAGE), E(EIO)))
		compare(&g->page[page], page, &got);
}

static void write_pages(struct guest *g, uint64_t first, uint64_t count, uint64_t version)
{
	static struct vmemt_page p[PAGES];

	for (uint64_t i = 0; i < count; i++)
		vmemt_make(&p[i], first + i, version);
	if (!ok(vmem_region_write(g->region, g->gpa + first * PAGE, p, count * PAGE), E(EIO))) {
		doubt(g, first, count, version);
		return;
	}
	for (uint64_t i = first; i < first + count; i++)
		g->page[i] = (struct truth){ .version = version };
}

static void pin_some(struct guest *g)
{
	uint64_t gpa = g->gpa + 3 * PAGE, pages = 0;

	if (!ok(vmem_region_pin(g->region, gpa, 6 * PAGE), E(EIO) | E(ENOSPC)))
		return;
	if (ok(vmem_region_stage(g->region, gpa, 6 * PAGE, &pages), 0))
		assert(!pages);
	assert(!vmem_region_unpin(g->region, gpa, 6 * PAGE));
}

static void live_in(struct guest *g)
{
	for (uint64_t i = 0; i < PAGES; i += 3)
		put(g, i, 2);
	expect_all(g);
	stage(g, 0, 16);
	stage_scattered(g);
	expect(g, 1);
	put(g, 3, 3);
	store(g, 0, 24);
	expect_all(g);
	stage(g, 0, PAGES); /* what came back clean goes for nothing */
	store(g, 0, 12);
	put(g, 5, 4);
	discard(g, 6, 4);
	discard(g, 30, 2);
	read_page(g, 2);
	read_page(g, 20);
	pin_some(g);
	write_pages(g, 8, 6, 5);
	expect_all(g);
	stage_scattered(g);
	store(g, 0, PAGES);
	while (vmem_manager_step(manager, 100, NULL) > 0)
		;
}

/* Whether memory can be read, without touching it. */
static bool readable(const void *memory)
{
	char byte;
	struct iovec to = { &byte, 1 }, from = { (void *)(uintptr_t)memory, 1 };

	return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1;
}

static void end_region(unsigned i)
{
	struct guest *g = &guest[i];
	bool restored = false;

	if (!vmemi_region_check(g->region) && i == 1)
		restored = ok(vmem_region_detach(g->region, VMEM_DETACH_RESTORE), E(EIO));
	assert(restored || !vmemi_region_check(g->region));
	/* What failed once works the next time. */
	if (!restored && !ok(vmem_region_detach(g->region, VMEM_DETACH_DISCARD), E(EIO)))
		assert(!vmem_region_detach(g->region, VMEM_DETACH_DISCARD));
	g->region = NULL;
	cpu.region = NULL;
	if (restored) {
		for (uint64_t k = 0; k < PAGES; k++)
			compare(&g->page[k], k, (struct vmemt_page *)(void *)(g->base + k * PAGE));
		return;
	}
	/* What the library had mapped is unmapped, and others may have mapped memory there since. */
	for (uint64_t k = 0; k < PAGES && g->own; k++)
		assert(!readable(g->base + k * PAGE)); /* never as zeros */
}

void vmemt_live(struct vmemt_life *l)
{
	struct vmem_manager_opts o = { .size = sizeof(o),
				       .allocator = l->alloc ? &l->alloc->allocator : NULL };
	unsigned descriptors = vmemt_open_files();
	int error;

	life = l;
	manager = NULL;
	error = vmemi_manager_new(&manager, &o, &vmemt_kernel_table);
	if (ok(error, E(ENOMEM) | E(EIO) | E(ENODEV) | E(EPERM))) {
		vmemt_catch_signals(manager);
		l->features = vmemt_manager_metrics(manager).kernel_features;
		make_regions();
		for (unsigned i = 0; i < REGIONS; i++)
			if (guest[i].region)
				live_in(&guest[i]);
		for (unsigned i = 0; i < REGIONS; i++) {
			if (guest[i].region)
				end_region(i);
			if (guest[i].own)
				munmap(guest[i].base, BYTES);
		}
		vmemt_catch_signals(NULL);
		assert(!vmem_manager_free(manager));
	} else {
		assert(!manager);
	}
	assert(vmemt_open_files() == descriptors);
	assert(!vmemt_kernel.mapped_bytes);
	assert(!l->alloc || !l->alloc->live_bytes);
}
