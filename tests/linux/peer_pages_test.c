/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages of a file that others map: lost, discarded, pinned, with the caller, freed; and those by which a region
 * grows. */
#define _GNU_SOURCE
#include "linux/backing/peers.h"
#include "linux/peer_guest.h"
#include "linux/reclaim/reclaim.h"
#include "support/slow.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <vmem/grow.h>
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

/* Makes page @page an error on all sides. */
static void lose(uint64_t page)
{
	uint64_t word;

	vmemt_stage(region, page, 1);
	assert(!fallocate(vmem_region_file(region), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  (off_t)(page * PAGE), PAGE));
	assert(vmemt_peer_read(&peer, page) == SIGBUS);
	assert(vmemt_touch(&cpu, VMEMT_READ, base + page * PAGE, &word, 8) == SIGBUS);
	assert(vmemt_state(region, page) == VMEM_PAGE_POISONED);
}

static int refusing; /* the userfaultfd of which the kernel maps nothing */

static bool refuse_to_map(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	(void)argument;
	*ret_result = -VMEM_ENOMEM;
	return call == VMEMT_K_CONTINUE && fd == refusing;
}

/* An error that cannot be taken away, for all or for one of them, is told. */
static void lost_for_good(void)
{
	vmemt_peer_make_with();
	vmemt_catch_signals(manager);
	vmemt_peer_put_all(1);
	vmemt_peer_booked();
	lose(5);
	/* The file cannot be written: it stays the error that it was. */
	vmem_manager_thread_stop(manager);
	atomic_store(&vmemt_kernel.calls[VMEMT_K_PWRITE], 0);
	vmemt_kernel.fail = VMEMT_K_PWRITE;
	vmemt_kernel.error = -VMEM_ENOSPC;
	vmemt_kernel.fail_after = 0;
	assert(vmem_region_discard(region, 4 * PAGE, 3 * PAGE, NULL) == -VMEM_EIO);
	vmemt_kernel.fail_after = -1;
	assert(!vmem_manager_thread_start(manager));
	assert(vmemt_state(region, 5) == VMEM_PAGE_POISONED);
	assert(vmemt_peer_read(&peer, 5) == SIGBUS);
	assert(vmemt_is(&cpu, base, 4, 0) && vmemt_is(&cpu, base, 6, 0));
	assert(!vmem_region_discard(region, 5 * PAGE, PAGE, NULL));
	assert(vmemt_peer_is(&peer, 5, 0) && vmemt_is(&cpu, base, 5, 0));
	assert(!vmemt_metrics(region).peer_errors_left);
	/* A peer's kernel does not take its error away: it alone has it. */
	lose(9);
	vmem_manager_thread_stop(manager);
	refusing = peer.peer->process->uffd.fd;
	vmemt_kernel.before = refuse_to_map;
	assert(!vmem_region_discard(region, 9 * PAGE, PAGE, NULL));
	vmemt_kernel.before = NULL;
	assert(!vmem_manager_thread_start(manager));
	assert(vmemt_metrics(region).peer_errors_left == 1);
	assert(vmemt_is(&cpu, base, 9, 0) && vmemt_peer_read(&peer, 9) == SIGBUS);
	vmemt_put(&cpu, base, 9, 2);
	assert(vmemt_is(&cpu, base, 9, 2) && vmemt_peer_is(&peer, 10, 1));
	vmemt_catch_signals(NULL);
	vmemt_peer_leave(&peer);
	vmemt_peer_end();
}

/* --- What is freed --- */

/* Nobody reclaims here but the test. */
static void peer_put_step(uint64_t page, uint64_t version)
{
	vmemt_peer_begin(&peer, VMEMT_WRITE, page, version);
	VMEMT_UNTIL((vmemi_manager_step_faults(manager), vmemt_peer_over(&peer)));
	assert(!vmemt_peer_finish(&peer, NULL));
}

static uint64_t in_file(enum vmem_page_state state)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < PAGES; i++) {
		uint64_t word = vmemi_region_word(region, i);

		n += vmemi_page_state(word) == state && (word & VMEMI_PAGE_OCCUPIED);
	}
	return n;
}

static uint64_t blocks(void)
{
	struct stat st;

	assert(!fstat(vmem_region_file(region), &st));
	return (uint64_t)st.st_blocks * 512;
}

/* A page that a peer has brought back while it was to be freed is not freed, and not counted. */
static void tidied(void)
{
	struct vmem_manager_metrics m;
	uint64_t away, freed;

	vmemt_peer_make_with();
	vmemt_peer_put_all(1);
	vmemt_peer_booked();
	vmem_manager_thread_stop(manager);
	vmemt_stage(region, 0, 32);
	atomic_store(&vmemt_kernel.calls[VMEMT_K_FALLOCATE], 0);
	vmemt_kernel.fail = VMEMT_K_FALLOCATE;
	vmemt_kernel.error = -VMEM_ENOMEM;
	vmemt_kernel.fail_after = 0;
	assert(!vmem_region_store(region, 0, 32 * PAGE, NULL));
	vmemt_kernel.fail_after = -1;
	assert(in_file(VMEM_PAGE_STORED) == 32 && blocks() == BYTES);
	for (uint64_t i = 0; i < 32; i += 3)
		peer_put_step(i, 2);
	away = in_file(VMEM_PAGE_STORED);
	assert(away && away < 32);
	vmemi_reclaim_enter(manager->reclaim);
	atomic_store(&vmemt_kernel.calls[VMEMT_K_FALLOCATE], 0);
	vmemt_kernel.fail_after = 0;
	assert(!vmemi_tidy(manager->reclaim, region, 0, PAGES));
	vmemt_kernel.fail_after = -1;
	freed = vmemi_tidy(manager->reclaim, region, 0, PAGES);
	assert(freed == away && !vmemi_tidy(manager->reclaim, region, 0, PAGES));
	vmemi_reclaim_leave(manager->reclaim);
	m = vmemt_manager_metrics(manager);
	assert(blocks() == BYTES - away * PAGE && blocks() == m.resident_bytes + m.staging_bytes);
	assert(!vmem_manager_thread_start(manager));
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_peer_is(&peer, i, i < 32 && !(i % 3) ? 2 : 1));
	vmemt_peer_leave(&peer);
	vmemt_peer_end();
}

/* --- A region that grows --- */

#define MOST (4 * PAGES)

/* The peer of what there was, while the region grows in steps; and of each step, when it is told. */
static void grown(void)
{
	struct vmem_region_opts o = {
		.size = sizeof(o), .flags = FLAGS, .bytes = BYTES, .max_bytes = MOST * PAGE
	};
	struct vmemt_count count = { .seed = 1, .rounds = VMEMT_SLOW ? 2000 : 20000, .word = 7 };
	struct vmem_peer_opts part = { .size = sizeof(part), .bytes = BYTES, .userfaultfd = -1 };
	vmem_peer *more[3];

	vmemt_peer_make_manager();
	assert(!vmem_region_alloc(&region, manager, &o));
	cpu.region = region;
	base = vmem_region_hva(region);
	assert(!vmem_manager_thread_start(manager));
	vmemt_peer_start(&other, vmem_region_file(region), 0, BYTES, 0);
	vmemt_peer_start(&peer, vmem_region_file(region), 0, MOST * PAGE, 0);
	assert(vmemt_peer_add(&peer, region) == -VMEM_ERANGE);
	peer.bytes = BYTES;
	assert(!vmemt_peer_add(&peer, region) && !vmemt_peer_add(&other, region));
	part.same_process_as = peer.peer;
	vmemt_peer_count_begin(&other, &count);
	for (uint64_t n = 1; n < 4; n++) {
		part.gpa = n * BYTES;
		part.address = peer.address + part.gpa;
		assert(vmem_region_add_peer(&more[n - 1], region, &part) == -VMEM_ERANGE);
		assert(!vmem_region_stage(region, 0, part.gpa, NULL));
		assert(!vmem_region_grow(region, (n + 1) * BYTES));
		assert(!vmem_region_store(region, 0, part.gpa, NULL));
		vmemt_put(&cpu, base, n * PAGES, 1); /* before it has a peer */
		assert(!vmem_region_stage(region, part.gpa, BYTES, NULL));
		assert(!vmem_region_add_peer(&more[n - 1], region, &part));
		assert(vmemt_metrics(region).peers == 2 + n);
		assert(vmemt_peer_is(&peer, n * PAGES, 1));
		for (uint64_t i = 1; i < PAGES; i++)
			vmemt_peer_put(&peer, n * PAGES + i, n);
	}
	assert(!vmemt_peer_count_end(&other));
	assert(!vmem_region_stage(region, 0, MOST * PAGE, NULL));
	assert(!vmem_region_store(region, 0, MOST * PAGE, NULL));
	for (uint64_t i = PAGES; i < MOST; i++) {
		uint64_t version = i % PAGES ? i / PAGES : 1;

		assert(i % 2 ? vmemt_peer_is(&peer, i, version) : vmemt_is(&cpu, base, i, version));
	}
	/* The middle one goes; the others do not notice. */
	assert(!vmem_region_remove_peer(more[1]));
	vmemt_peer_put(&peer, 3 * PAGES + 1, 9);
	vmemt_peer_put(&peer, PAGES + 1, 9);
	assert(vmemt_is(&cpu, base, 3 * PAGES + 1, 9) && vmemt_is(&cpu, base, PAGES + 1, 9));
	assert(!vmem_region_detach(region, VMEM_DETACH_RESTORE));
	peer.peer = other.peer = NULL;
	cpu.region = NULL;
	for (uint64_t i = PAGES + 2; i < 2 * PAGES; i++)
		assert(vmemt_peer_is(&peer, i, 1));
	vmemt_peer_leave(&other);
	vmemt_peer_leave(&peer);
	assert(!vmem_manager_free(manager));
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
	lost_for_good();
	pinned();
	from_source();
	tidied();
	grown();
	vmemt_peers_over();
	return 0;
}
