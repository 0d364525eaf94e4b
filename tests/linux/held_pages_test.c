/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that the kernel holds by itself: those registered for DMA stay, and nothing else does, not even
 * after a fork, which makes all memory that the child inherits immovable. */
#include "linux/guest.h"
#include "linux/hand_over.h"
#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE VMEM_PAGE_SIZE
#define PAGES 64
#define HELD 5 /* the first of three */

static struct vmemt_cpu cpu;
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;

static void make(void)
{
	manager = vmemt_manager(0);
	assert(!vmem_manager_thread_start(manager));
	cpu.region = region = vmemt_region(manager, 0, PAGES, 0);
	base = vmem_region_hva(region);
	for (uint64_t i = 0; i < PAGES; i++)
		vmemt_put(&cpu, base, i, 1);
}

static void expect_all_and_end(void)
{
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	vmemt_end(manager, region);
}

/* Pages that the kernel may write to at any time: buffers of an io_uring. */
static void registered_for_dma(void)
{
	struct io_uring_params p = { 0 };
	struct iovec buffer;
	uint64_t pages = 0;
	int ring = (int)syscall(SYS_io_uring_setup, 4, &p);

	if (ring < 0) {
		fprintf(stderr, "not tried: pages registered for DMA (io_uring_setup: %m)\n");
		return;
	}
	make();
	buffer = (struct iovec){ base + HELD * PAGE, 3 * PAGE };
	assert(!syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buffer, 1));
	assert(!vmem_region_stage(region, 0, PAGES * PAGE, &pages));
	assert(pages == PAGES - 3 && vmemt_metrics(region).unmovable == 3);
	for (uint64_t i = 0; i < PAGES; i++) {
		bool held = i >= HELD && i < HELD + 3;

		assert(vmemt_state(region, i) == (held ? VMEM_PAGE_RESIDENT : VMEM_PAGE_STAGED));
		assert(vmemt_mapped(base + i * PAGE) == held);
	}
	assert(!syscall(SYS_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, NULL, 0));
	close(ring);
	/* The kernel lets go of them some time after. */
	VMEMT_UNTIL(!vmem_region_stage(region, 0, PAGES * PAGE, NULL) &&
		    vmemt_metrics(region).pages[VMEM_PAGE_STAGED] == PAGES);
	expect_all_and_end();
}

/* 0 if the child has no such memory. */
static int look_in_child(void)
{
	unsigned char present[PAGES];
	pid_t child = vmemt_fork();
	int status;

	if (!child)
		_exit(mincore(base, PAGES * PAGE, present) && errno == ENOMEM ? 0 : 1);
	status = vmemt_end_of(child);
	assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void after_fork(void)
{
	uint64_t pages = 0;

	make();
	vmemt_stage(region, 0, 16);
	vmemt_store(region, 16, 16);
	assert(!look_in_child());
	/* None of them has been written since. */
	assert(!vmem_region_stage(region, 0, PAGES * PAGE, &pages));
	assert(pages == PAGES - 32 && !vmemt_metrics(region).unmovable);
	assert(!look_in_child()); /* with pages in staging */
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	assert(!vmem_region_stage(region, 0, PAGES * PAGE, &pages));
	assert(pages == PAGES && !vmemt_metrics(region).unmovable);
	/* It is ordinary memory again when it was given back. */
	assert(!vmem_region_detach(region, VMEM_DETACH_RESTORE));
	cpu.region = NULL;
	assert(look_in_child());
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	assert(!munmap(base, PAGES * PAGE) && !vmem_manager_free(manager));
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP);
	vmemt_cpu_start(&cpu);
	registered_for_dma();
	after_fork();
	vmemt_cpu_stop(&cpu);
	return 0;
}
