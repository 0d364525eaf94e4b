/* SPDX-License-Identifier: BSD-2-Clause */
/* Fault-around: what goes in order is brought ahead of need, whoever else touches memory at random; and
 * nobody who waits for a page waits for pages that nobody has asked for. */
#include "linux/failing_kernel.h"
#include "linux/guest.h"
#include "linux/kernel/uffd_abi.h"
#include <poll.h>

#define PAGE VMEM_PAGE_SIZE
#define PAGES 4096
#define IN_ORDER 1024
#define WINDOW 64

static struct vmemt_cpu cpu[2];
static vmem_manager *manager;
static vmem_region *region, *other;
static unsigned char *base, *other_base;

static vmem_region *make_region(uint64_t gpa, uint64_t pages, uint32_t around)
{
	struct vmem_region_opts o = {
		.size = sizeof(o),
		.gpa = gpa,
		.bytes = pages * PAGE,
		.fault_around_pages = around,
	};
	vmem_region *r;

	assert(!vmemt_alloc(&r, manager, &o));
	for (uint64_t i = 0; i < pages; i++) {
		struct vmemt_page p;

		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(r, gpa + i * PAGE, &p, PAGE));
	}
	return r;
}

/* Reads a page while the caller steps, so that its neighbours are there at the end. True: by a fault. */
static bool read_page(uint64_t page)
{
	uint64_t before = vmemt_metrics(region).faults;
	struct vmemt_page got, want;

	cpu[0].region = region;
	assert(!vmemt_touch_step(&cpu[0], VMEMT_READ, base + page * PAGE, &got, PAGE, manager));
	vmemt_make(&want, page, 1);
	assert(!memcmp(&got, &want, PAGE));
	return vmemt_metrics(region).faults > before;
}

static void beside_random(void)
{
	uint64_t in_order = 0, random = 0, start = IN_ORDER * 2, seed = vmemt_seed("around");

	manager = vmemt_manager(0);
	region = make_region(0, PAGES, 16);
	base = vmem_region_hva(region);
	vmemt_stage(region, 0, PAGES);
	for (uint64_t i = 0; i < IN_ORDER; i++) {
		in_order += read_page(i);
		/* One page of each other block, in no order. */
		if (i % 8 == 0)
			random += read_page(start + i / 8 * 13 % 128 * 16 + vmemt_rand(&seed) % 16);
	}
	assert(in_order <= IN_ORDER / 8);
	/* Nor does what goes in order bring others what they do not need. */
	assert(random >= IN_ORDER / 8 * 3 / 4);
	vmemt_end(manager, region);
}

static bool asked;      /* the other page was asked for, while neighbours were being brought */
static uint64_t before; /* pages that were brought from then on, until it came */
static bool came;

/* The first neighbour of page WINDOW is about to come. Somebody asks for a page elsewhere, ... */
static bool watch(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	static uint64_t word;
	const struct uffdio_copy *c = argument;
	const struct uffdio_range *range = argument; /* on files */
	uint64_t start = call == VMEMT_K_COPY ? c->dst : range->start;
	uint64_t bytes = call == VMEMT_K_COPY ? c->len : range->len;
	struct pollfd messages = { .fd = fd, .events = POLLIN };

	(void)ret_result;
	if ((call != VMEMT_K_COPY && call != VMEMT_K_CONTINUE) || came)
		return false;
	if (start == (uintptr_t)base + (WINDOW + 1) * PAGE) {
		asked = true;
		vmemt_touch_begin(&cpu[1], VMEMT_READ, other_base, &word, 8);
		vmemt_until_readable(messages.fd);
	}
	came = start == (uintptr_t)other_base;
	if (asked && !came)
		before += bytes / PAGE;
	return false;
}

/* ... and gets it before most of the neighbours. */
static void who_waits_comes_first(bool stored)
{
	uint64_t faults = 0;

	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&manager, NULL, &vmemt_kernel_table));
	region = make_region(0, 2 * WINDOW, WINDOW);
	other = make_region(UINT64_C(1) << 30, 1, 1);
	base = vmem_region_hva(region);
	other_base = vmem_region_hva(other);
	vmemt_stage(other, 0, 1);
	if (stored)
		vmemt_store(region, 0, 2 * WINDOW);
	else
		vmemt_stage(region, 0, 2 * WINDOW);
	for (uint64_t i = 0; i < WINDOW; i++)
		faults += read_page(i);
	assert(faults < WINDOW / 4);
	asked = came = false;
	before = 0;
	vmemt_kernel.before = watch;
	assert(read_page(WINDOW));
	VMEMT_UNTIL(vmem_manager_step(manager, 0, NULL) >= 0 && vmemt_touch_over(&cpu[1]));
	assert(!vmemt_touch_end(&cpu[1]));
	vmemt_kernel.before = NULL;
	assert(asked && came && before <= WINDOW / 2);
	/* The others came all the same. */
	for (uint64_t i = WINDOW; i < 2 * WINDOW; i++)
		assert(!read_page(i));
	assert(!vmem_region_detach(other, VMEM_DETACH_DISCARD));
	vmemt_end(manager, region);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP);
	for (unsigned i = 0; i < 2; i++)
		vmemt_cpu_start(&cpu[i]);
	beside_random();
	who_waits_comes_first(false);
	who_waits_comes_first(true);
	for (unsigned i = 0; i < 2; i++)
		vmemt_cpu_stop(&cpu[i]);
	return 0;
}
