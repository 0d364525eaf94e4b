/* SPDX-License-Identifier: BSD-2-Clause */
/* Peers that misbehave: one hurts only itself. */
#define _GNU_SOURCE
#include "linux/peer_guest.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The guest and another peer are served as before, and what they write is what they read. */
static void others_live(uint64_t version)
{
	for (uint64_t i = 8; i < 24; i++)
		vmemt_put(&cpu, base, i, version);
	vmemt_peer_booked();
	assert(!vmem_region_stage(region, 8 * PAGE, 16 * PAGE, NULL));
	assert(!vmem_region_store(region, 8 * PAGE, 8 * PAGE, NULL));
	for (uint64_t i = 8; i < 24; i++) {
		assert(vmemt_peer_is(&other, i, version));
		vmemt_peer_put(&other, i, version + 1);
		assert(vmemt_is(&cpu, base, i, version + 1));
	}
}

static void hostile(enum vmemt_peer_trick trick)
{
	vmemt_peer_make_with();
	vmemt_peer_join(&other, region);
	vmemt_peer_put_all(1);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_peer_is(&peer, i, 1));
	others_live(2);
	vmemt_peer_trick(&peer, trick, 41);
	if (trick != VMEMT_PEER_FLOOD) { /* what it has no more keeps nothing from leaving */
		vmemt_peer_booked();
		vmemt_stage(region, 40, 8);
	}
	others_live(4);
	if (trick == VMEMT_PEER_OTHER || trick == VMEMT_PEER_UNMAP) {
		/* Its faults there are not answered; others of it are as long as it does not go on like that. */
		vmemt_peer_begin(&peer, VMEMT_READ, trick == VMEMT_PEER_OTHER ? 0 : 41, 0);
		if (trick == VMEMT_PEER_OTHER)
			VMEMT_UNTIL(vmem_peer_state(peer.peer) == VMEM_PEER_DROPPED);
		else
			assert(vmemt_peer_finish(&peer, NULL) == SIGSEGV);
	} else if (trick == VMEMT_PEER_BLOCKING || trick == VMEMT_PEER_CLOSE ||
		   trick == VMEMT_PEER_DONTNEED) {
		vmemt_peer_put(&peer, 41, 9);
		assert(vmemt_is(&cpu, base, 41, 9));
	}
	if (trick ==
	    VMEMT_PEER_BLOCKING) /* a poll that is over for nothing would keep a core busy */
		VMEMT_UNTIL(fcntl(peer.uffd, F_GETFL) & O_NONBLOCK);
	others_live(6);
	if (trick == VMEMT_PEER_FLOOD)
		assert(!vmemt_peer_count_end(&peer)); /* it has had its answers, too */
	for (uint64_t i = 24; i < 32; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	assert(!vmemt_metrics(region).lost);
	vmemt_peer_leave(&other);
	if (trick == VMEMT_PEER_OTHER)
		vmemt_peer_kill(&peer);
	vmemt_peer_leave(&peer);
	vmemt_peer_end();
}

/* A file without F_SEAL_SEAL: a peer seals it against writing, and nothing can be freed any more. That costs memory, and
 * no byte: what has left comes back, what could not leave is where it was. */
static void sealed(void)
{
	struct vmem_region_opts o = { .size = sizeof(o), .flags = FLAGS, .bytes = BYTES };
	struct stat before, after;

	vmemt_peer_make_manager();
	o.file_fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert(o.file_fd >= 0 && !ftruncate(o.file_fd, BYTES));
	o.hva = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, o.file_fd, 0);
	assert(o.hva != MAP_FAILED && !vmem_region_attach(&region, manager, &o));
	cpu.region = region;
	base = o.hva;
	assert(!vmem_manager_thread_start(manager));
	vmemt_peer_join(&peer, region);
	for (uint64_t i = 0; i < PAGES - 8; i++) /* the last ones are absent */
		vmemt_put(&cpu, base, i, 1);
	for (uint64_t i = 0; i < 32; i++)
		assert(vmemt_peer_is(&peer, i, 1));
	vmemt_peer_booked();
	vmemt_store(region, 0, 16);
	vmemt_stage(region, 16, 8);
	vmemt_peer_trick(&peer, VMEMT_PEER_SEAL, 0);
	assert(!fstat(o.file_fd, &before));
	assert(!vmem_region_stage(region, 0, BYTES, NULL));
	assert(!vmem_region_store(region, 0, BYTES, NULL));
	assert(!fstat(o.file_fd, &after) && after.st_blocks == before.st_blocks);
	assert(vmem_region_discard(region, 40 * PAGE, PAGE, NULL) == -VMEM_EIO);
	for (uint64_t i = 0; i < PAGES; i++) {
		assert(vmemt_peer_is(&peer, i, i < PAGES - 8) &&
		       vmemt_is(&cpu, base, i, i < PAGES - 8));
		vmemt_peer_put(&peer, i, 2);
		assert(vmemt_is(&cpu, base, i, 2));
		vmemt_put(&cpu, base, i, 3);
		assert(vmemt_peer_is(&peer, i, 3));
	}
	assert(!vmemt_metrics(region).lost && vmem_peer_state(peer.peer) == VMEM_PEER_SERVED);
	vmemt_peer_leave(&peer);
	vmemt_peer_end();
	assert(!munmap(o.hva, BYTES));
	close(o.file_fd);
}

int main(void)
{
	vmemt_peers_begin();
	for (unsigned trick = VMEMT_PEER_UNMAP; trick <= VMEMT_PEER_FLOOD; trick++)
		hostile((enum vmemt_peer_trick)trick);
	sealed();
	vmemt_peers_over();
	return 0;
}
