/* SPDX-License-Identifier: BSD-2-Clause */
/* See peer_guest.h. */
#include "linux/peer_guest.h"
#include <stdlib.h>
#include <string.h>
#include <vmem/source.h>

struct vmemt_cpu cpu;
vmem_manager *manager;
vmem_region *region;
unsigned char *base;
struct vmemt_peer peer, other;
_Atomic uint32_t asked; /* atomic */

void vmemt_peers_begin(void)
{
	vmemt_peers_prepare();
	vmemt_need(VMEM_KERNEL_FILES | VMEM_KERNEL_POISON | VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_cpu_start(&cpu);
}

void vmemt_peers_over(void)
{
	vmemt_cpu_stop(&cpu);
	vmemt_peers_end();
}

void vmemt_peer_make_manager(void)
{
	const char *threads = getenv("VMEM_TEST_FAULT_THREADS");
	struct vmem_manager_opts o = { .size = sizeof(o),
				       .fault_threads = threads ? (uint32_t)atoi(threads) : 0 };

	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&manager, &o, &vmemt_kernel_table));
}

void vmemt_peer_make(void)
{
	vmemt_peer_make_manager();
	cpu.region = region = vmemt_region(manager, 0, PAGES, FLAGS);
	base = vmem_region_hva(region);
	assert(!vmem_manager_thread_start(manager));
}

void vmemt_peer_make_with(void)
{
	vmemt_peer_make();
	vmemt_peer_join(&peer, region);
}

void vmemt_peer_end(void)
{
	vmemt_end(manager, region);
}

void vmemt_peer_booked(void)
{
	for (uint64_t i = 0; i < PAGES; i++)
		VMEMT_UNTIL(vmemt_state(region, i) != VMEM_PAGE_ARRIVING);
}

void vmemt_peer_put_all(uint64_t version)
{
	for (uint64_t i = 0; i < PAGES; i++)
		vmemt_put(&cpu, base, i, version);
}

static int read_source(void *context, uint64_t gpa, void *buffer)
{
	struct vmemt_page p;

	(void)context;
	(void)buffer;
	vmemt_make(&p, gpa / PAGE, 5);
	if (gpa / PAGE % 4 == 3)
		return -VMEM_EIO;
	if (gpa / PAGE % 4 == 2) {
		atomic_fetch_add(&asked, 1);
		return -VMEM_EINPROGRESS;
	}
	memcpy(buffer, &p, PAGE);
	return 0;
}

void vmemt_peer_make_with_source(uint64_t flags)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = FLAGS | flags,
				      .bytes = BYTES,
				      .fault_around_pages = 1,
				      .read_source = read_source };

	atomic_store(&asked, 0);
	vmemt_peer_make_manager();
	assert(!vmem_region_alloc(&region, manager, &o));
	assert(!vmem_manager_thread_start(manager));
	cpu.region = region;
	base = vmem_region_hva(region);
	vmemt_peer_join(&peer, region);
}
