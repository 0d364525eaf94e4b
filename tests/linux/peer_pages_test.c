/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages of a file that others map: lost, discarded, pinned, with the caller. */
#define _GNU_SOURCE
#include "linux/peer_guest.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <vmem/source.h>

/* A page that is lost is an error on all sides, and zeros on all sides when it was given up. */
static void lost(void)
{
	vmemt_peer_make_with();
	vmemt_catch_signals(manager);
	vmemt_peer_put_all(1);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_peer_is(&peer, i, 1));
	vmemt_peer_booked();
	vmemt_stage(region, 0, 4);
	assert(!fallocate(vmem_region_file(region), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			  4 * PAGE));
	for (uint64_t i = 0; i < 4; i++) {
		uint64_t word;

		if (i % 2)
			assert(vmemt_touch(&cpu, VMEMT_READ, base + i * PAGE, &word, 8) == SIGBUS);
		assert(vmemt_peer_read(&peer, i) == SIGBUS);
		assert(vmemt_touch(&cpu, VMEMT_READ, base + i * PAGE, &word, 8) == SIGBUS);
		assert(vmemt_state(region, i) == VMEM_PAGE_POISONED);
	}
	assert(vmemt_metrics(region).lost == 4);
	assert(!vmem_region_discard(region, 0, 8 * PAGE, NULL));
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_peer_is(&peer, i, i >= 8) && vmemt_is(&cpu, base, i, i >= 8));
	vmemt_catch_signals(NULL);
	assert(vmem_peer_state(peer.peer) == VMEM_PEER_SERVED);
	vmemt_peer_leave(&peer);
	vmemt_peer_end();
}

/* A page that a peer holds pinned, or that is mapped by somebody who has no userfaultfd. */
static void pinned(void)
{
	unsigned char *memory;

	vmemt_peer_make_with();
	vmemt_peer_put_all(1);
	assert(!vmem_region_pin(region, 0, 4 * PAGE));
	memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, vmem_region_file(region),
		      0);
	assert(memory != MAP_FAILED && vmemt_metrics(region).pinned_pages == 4);
	assert(!vmem_region_stage(region, 0, BYTES, NULL));
	assert(!vmem_region_store(region, 0, BYTES, NULL));
	cpu.region = NULL;
	for (uint64_t i = 0; i < 4; i++)
		vmemt_put(&cpu, memory, i, 2);
	cpu.region = region;
	assert(!munmap(memory, 4 * PAGE));
	assert(!vmem_region_unpin(region, 0, 4 * PAGE));
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_peer_is(&peer, i, 1 + (i < 4)));
	vmemt_peer_leave(&peer);
	vmemt_peer_end();
}

static void from_source(void)
{
	struct vmemt_page p;

	vmemt_peer_make_with_source(VMEM_REGION_FROM_SOURCE);
	vmemt_catch_signals(manager);
	assert(vmemt_peer_is(&peer, 0, 5) && vmemt_is(&cpu, base, 0, 5));
	vmemt_peer_put(&peer, 1, 6);
	assert(vmemt_is(&cpu, base, 1, 6));
	vmemt_peer_begin(&peer, VMEMT_READ, 2, 0);
	VMEMT_UNTIL(atomic_load(&asked) == 1);
	vmemt_make(&p, 2, 5);
	assert(!vmem_region_source_done(region, 2 * PAGE, &p, 0));
	assert(!vmemt_peer_finish(&peer, &p) && vmemt_is(&cpu, base, 2, 5));
	assert(vmemt_peer_read(&peer, 3) == SIGBUS);
	assert(vmemt_state(region, 3) == VMEM_PAGE_POISONED);
	/* Overwritten, or given up, while it waits. */
	vmemt_peer_begin(&peer, VMEMT_READ, 6, 0);
	VMEMT_UNTIL(atomic_load(&asked) == 2);
	assert(!vmem_region_source_done(region, 6 * PAGE, NULL, -VMEM_EIO));
	assert(vmemt_peer_finish(&peer, NULL) == SIGBUS);
	assert(!vmem_region_discard(region, 6 * PAGE, PAGE, NULL));
	assert(vmemt_peer_is(&peer, 6, 0) && vmemt_is(&cpu, base, 6, 0));
	vmemt_catch_signals(NULL);
	vmemt_peer_leave(&peer);
	vmemt_peer_end();
}

int main(void)
{
	vmemt_peers_begin();
	lost();
	pinned();
	from_source();
	vmemt_peers_over();
	return 0;
}
