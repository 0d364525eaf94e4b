/* SPDX-License-Identifier: BSD-2-Clause */
/* Peers come and go, and misbehave: what is refused; pages that are lost, discarded, or with the caller; detaching; and
 * a hostile process, which hurts only itself. */
#define _GNU_SOURCE
#include "linux/failing_kernel.h"
#include "linux/kernel/uffd_abi.h"
#include "linux/peer_process.h"
#include "linux/stored.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vmem/source.h>

#define PAGE VMEM_PAGE_SIZE
#define PAGES 64
#define BYTES (PAGES * PAGE)
#define FLAGS (VMEM_REGION_FILE | VMEM_REGION_DMA_PINNED)

static struct vmemt_cpu cpu;
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static struct vmemt_peer peer, other;

static void make_manager(void)
{
	const char *threads = getenv("VMEM_TEST_FAULT_THREADS");
	struct vmem_manager_opts o = { .size = sizeof(o),
				       .fault_threads = threads ? (uint32_t)atoi(threads) : 0 };

	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&manager, &o, &vmemt_kernel_table));
}

static void make(void)
{
	make_manager();
	cpu.region = region = vmemt_region(manager, 0, PAGES, FLAGS);
	base = vmem_region_hva(region);
	assert(!vmem_manager_thread_start(manager));
}

static void make_with_peer(void)
{
	make();
	vmemt_peer_join(&peer, region);
}

static void end(void)
{
	vmemt_end(manager, region);
}

/* The kernel wakes who waits a moment before the library has booked it. */
static void booked(void)
{
	for (uint64_t i = 0; i < PAGES; i++)
		VMEMT_UNTIL(vmemt_state(region, i) != VMEM_PAGE_ARRIVING);
}

static void put_all(uint64_t version)
{
	for (uint64_t i = 0; i < PAGES; i++)
		vmemt_put(&cpu, base, i, version);
}

static void refused(void)
{
	static const uint64_t features[] = { VMEMI_UFFD_FEATURE_SIGBUS, VMEMI_UFFD_FEATURE_EVENTS,
					     VMEMI_UFFD_FEATURE_WP_ASYNC };
	struct vmem_peer_opts o = { .size = sizeof(o), .bytes = BYTES };
	vmem_region *private;
	vmem_peer *p = NULL, *more[VMEMI_PEERS_MAX + 1];
	unsigned char *memory;
	unsigned n = 0;
	int error;

	make();
	/* Nor can a peer seal the file so that nothing leaves it. */
	assert(fcntl(vmem_region_file(region), F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0);
	memory = mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, vmem_region_file(region),
		      0);
	assert(memory != MAP_FAILED);
#define REFUSE(error) assert(vmem_region_add_peer(&p, region, &o) == (error) && !p)
	for (unsigned i = 0; i < 3; i++) {
		o.userfaultfd = vmemt_peer_uffd(features[i]);
		o.address = (uintptr_t)memory;
		if (o.userfaultfd >= 0)
			REFUSE(-VMEM_ENOTSUP);
		close(o.userfaultfd);
	}
	o.userfaultfd = vmem_region_file(region);
	REFUSE(-VMEM_EINVAL);
	o.userfaultfd = -1;
	REFUSE(-VMEM_EINVAL);
	o.userfaultfd = vmemt_peer_uffd(0);
	o.address = PAGE;
	REFUSE(-VMEM_EINVAL); /* nothing is there */
	o.address = UINT64_MAX / PAGE * PAGE;
	REFUSE(-VMEM_EINVAL);
	o.address = (uintptr_t)memory + 8;
	REFUSE(-VMEM_EINVAL);
	o.address = (uintptr_t)memory;
	o.gpa = PAGE;
	REFUSE(-VMEM_ERANGE);
	o.gpa = UINT64_MAX / PAGE * PAGE;
	REFUSE(-VMEM_ERANGE);
	o.gpa = 0;
	o.flags = 1;
	REFUSE(-VMEM_EINVAL);
	o.flags = 0;
	assert(!mprotect(memory, PAGE, PROT_NONE)); /* it may be so */
	o.bytes = PAGE;
	assert(!vmem_region_add_peer(&more[n++], region, &o));
	o.same_process_as = more[0];
	REFUSE(-VMEM_EEXIST);
	for (; n < VMEMI_PEERS_MAX; n++) {
		o.address = (uintptr_t)memory + n * PAGE;
		o.gpa = n % PAGES * PAGE;
		assert(!vmem_region_add_peer(&more[n], region, &o));
	}
	o.address += PAGE;
	REFUSE(-VMEM_ENOSPC);
	assert(vmemt_metrics(region).peers == VMEMI_PEERS_MAX);
	while (n)
		assert(!vmem_region_remove_peer(more[--n]));
	assert(!vmemt_metrics(region).peers);
	o.same_process_as = NULL;
	private = vmemt_region(manager, 0, 1, 0);
	o.gpa = 0;
	assert(vmem_region_add_peer(&p, private, &o) == -VMEM_EINVAL);
	assert(!vmem_region_detach(private, VMEM_DETACH_DISCARD));
	assert(!munmap(memory, 2 * BYTES));
	close(o.userfaultfd);
	/* One that is dead. */
	vmemt_peer_start(&peer, vmem_region_file(region), 0, BYTES, 0);
	error = fcntl(peer.uffd, F_DUPFD_CLOEXEC, 3);
	assert(error >= 0);
	vmemt_peer_kill(&peer);
	o = (struct vmem_peer_opts){
		.size = sizeof(o), .bytes = BYTES, .address = peer.address, .userfaultfd = error
	};
	REFUSE(-VMEM_EINVAL);
	close(error);
	end();
#undef REFUSE
}

/* Each call that adding takes fails once: nothing is left of it. */
static void add_fails(void)
{
	static const enum vmemt_call call[] = { VMEMT_K_FCNTL,    VMEMT_K_OPEN,
						VMEMT_K_READ,     VMEMT_K_EPOLL_WATCH,
						VMEMT_K_REGISTER, VMEMT_K_PROTECT };

	make_manager();
	cpu.region = region = vmemt_region(manager, 0, PAGES, FLAGS);
	base = vmem_region_hva(region);
	assert(!vmem_manager_thread_start(manager));
	put_all(1);
	vmemt_stage(region, 0, 8);
	vmem_manager_thread_stop(manager);
	vmemt_peer_start(&peer, vmem_region_file(region), 0, BYTES, 0);
	for (unsigned i = 0; i < sizeof(call) / sizeof(call[0]); i++) {
		uint64_t before = vmemt_manager_metrics(manager).metadata_bytes;

		atomic_store(&vmemt_kernel.calls[call[i]], 0);
		vmemt_kernel.fail = call[i];
		vmemt_kernel.error = -VMEM_ENOMEM;
		vmemt_kernel.fail_after = 0;
		assert(vmemt_peer_add(&peer, region) < 0 && !peer.peer);
		vmemt_kernel.fail_after = -1;
		assert(vmemt_manager_metrics(manager).metadata_bytes == before);
		assert(!vmemt_metrics(region).peers);
	}
	assert(!vmemt_peer_add(&peer, region));
	assert(!vmem_manager_thread_start(manager));
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_peer_is(&peer, i, 1));
	booked();
	vmemt_peer_leave(&peer);
	end();
}

/* What had left before it came is not writable there unseen. */
static void comes_late(void)
{
	struct vmemt_page p;
	volatile unsigned char *memory;
	struct vmem_peer_opts o = { .size = sizeof(o), .bytes = BYTES };
	vmem_peer *late;

	make();
	put_all(1);
	memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, vmem_region_file(region), 0);
	assert(memory != MAP_FAILED);
	for (uint64_t i = 0; i < PAGES; i++) /* in place, so this is harmless */
		memory[i * PAGE] = memory[i * PAGE];
	booked();
	vmemt_stage(region, 0, PAGES / 2);
	o.address = (uintptr_t)memory;
	o.userfaultfd = vmemt_peer_uffd(0);
	assert(!vmem_region_add_peer(&late, region, &o));
	cpu.region = NULL;
	for (uint64_t i = 0; i < PAGES; i++) {
		vmemt_make(&p, i, 2);
		assert(!vmemt_touch(&cpu, VMEMT_WRITE, (void *)(uintptr_t)(memory + i * PAGE), &p,
				    PAGE));
	}
	booked();
	for (uint64_t i = 0; i < PAGES / 2; i++)
		assert(vmemt_state(region, i) == VMEM_PAGE_RESIDENT);
	cpu.region = region;
	vmemt_store(region, 0, PAGES);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_is(&cpu, base, i, 2));
	assert(!munmap((void *)(uintptr_t)memory, BYTES));
	assert(!vmem_region_remove_peer(late));
	close(o.userfaultfd);
	end();
}

/* A page that is lost is an error on all sides, and zeros on all sides when it was given up. */
static void lost(void)
{
	make_with_peer();
	vmemt_catch_signals(manager);
	put_all(1);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_peer_is(&peer, i, 1));
	booked();
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
	end();
}

/* A page that a peer holds pinned, or that is mapped by somebody who has no userfaultfd. */
static void pinned(void)
{
	unsigned char *memory;

	make_with_peer();
	put_all(1);
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
	end();
}

/* --- Bytes that are with the caller --- */

static _Atomic uint32_t asked; /* atomic */

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

/* A region with a source and one peer, served by threads. */
static void begin_with_source(uint64_t flags)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = FLAGS | flags,
				      .bytes = BYTES,
				      .fault_around_pages = 1,
				      .read_source = read_source };

	atomic_store(&asked, 0);
	make_manager();
	assert(!vmem_region_alloc(&region, manager, &o));
	assert(!vmem_manager_thread_start(manager));
	cpu.region = region;
	base = vmem_region_hva(region);
	vmemt_peer_join(&peer, region);
}

static void from_source(void)
{
	struct vmemt_page p;

	begin_with_source(VMEM_REGION_FROM_SOURCE);
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
	end();
}

/* --- The end --- */

static void restored(void)
{
	make_with_peer();
	put_all(1);
	vmemt_store(region, 0, 16);
	vmemt_stage(region, 16, 16);
	assert(!vmem_region_detach(region, VMEM_DETACH_RESTORE));
	cpu.region = NULL;
	peer.peer = NULL;
	for (uint64_t i = 0; i < PAGES; i++) {
		assert(vmemt_peer_is(&peer, i, 1));
		vmemt_peer_put(&peer, i, 2);
		assert(vmemt_is(&cpu, base, i, 2));
	}
	vmemt_peer_leave(&peer);
	assert(!vmem_manager_free(manager));
}

/* Never zeros, and who waits does not wait for good. */
static void given_up(bool waits)
{
	begin_with_source(0);
	vmemt_peer_join(&other, region);
	for (uint64_t i = 0; i < PAGES; i++)
		if (i % 4 != 2)
			vmemt_put(&cpu, base, i, 1);
	assert(!vmem_region_set_source(region, 2 * PAGE, PAGE));
	vmemt_store(region, 4, 2);
	vmemt_stage(region, 8, 2);
	for (uint64_t i = 0; i < 8; i += 4)
		assert(vmemt_peer_is(&peer, i, 1) && vmemt_peer_is(&other, i, 1));
	booked();
	if (waits) {
		vmemt_peer_begin(&peer, VMEMT_READ, 2, 0);
		VMEMT_UNTIL(atomic_load(&asked) == 1);
	}
	vmemt_peer_trick(&other, VMEMT_PEER_UNMAP, 1);
	assert(!vmem_region_detach(region, VMEM_DETACH_DISCARD));
	peer.peer = other.peer = NULL;
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_peer_read(&other, i) == (i == 1 ? SIGSEGV : SIGBUS));
	vmemt_peer_leave(&other);
	if (waits)
		assert(vmemt_peer_finish(&peer, NULL) == SIGBUS);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_peer_read(&peer, i) == SIGBUS);
	vmemt_peer_leave(&peer);
	assert(!vmem_manager_free(manager));
}

/* It goes while a fault of it is held back, and nothing is. */
static void removed(void)
{
	make_with_peer();
	put_all(1);
	vmemt_store(region, 0, PAGES);
	vmem_manager_thread_stop(manager);
	vmemt_peer_begin(&peer, VMEMT_READ, 3, 0);
	VMEMT_UNTIL(vmemt_peer_pending(&peer));
	vmemt_peer_kill(&peer);
	assert(vmem_peer_state(peer.peer) == VMEM_PEER_ENDED);
	vmemt_peer_leave(&peer);
	assert(!vmem_manager_thread_start(manager));
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	end();
}

/* It goes while a load that it has begun is under way. */
static void removed_in_a_load(void)
{
	make_with_peer();
	put_all(1);
	vmemt_store(region, 0, 8);
	vmemt_slow_start(manager->host.store);
	vmemt_peer_begin(&peer, VMEMT_READ, 3, 0);
	VMEMT_UNTIL(vmemt_slow_held() == 1);
	vmemt_peer_kill(&peer);
	vmemt_peer_leave(&peer);
	assert(!vmemt_slow_finish(0, 0));
	for (uint64_t i = 0; i < PAGES; i++)
		if (i == 3 || i >= 8)
			assert(vmemt_is(&cpu, base, i, 1));
	vmemt_slow_stop();
	end();
}

static unsigned char *two[2]; /* ranges of one process */
static bool detaching;        /* a touch meanwhile has begun */

/* Between the last look at a region's peers and their end. */
static void touch_the_detached(enum vmemt_call call)
{
	static uint64_t touched;

	if (call != VMEMT_K_UNREGISTER || detaching)
		return;
	detaching = true;
	vmemt_touch_begin(&cpu, VMEMT_READ, two[1] + (PAGES - 1) * PAGE, &touched, 8);
	usleep(20000); /* the handler hears of it; or not, and the test holds */
}

/* One process with two ranges, in two regions, and one userfaultfd. Where it was removed it waits, and nothing else. */
static void one_process(void)
{
	struct vmemt_cpu waiting = { 0 };
	uint64_t ones = 0x1111111111111111, at;
	vmem_region *second;
	struct vmem_peer_opts o = { .size = sizeof(o), .bytes = BYTES };
	vmem_peer *p[2];

	make();
	vmemt_cpu_start(&waiting);
	second = vmemt_region(manager, BYTES, PAGES, FLAGS);
	o.userfaultfd = vmemt_peer_uffd(0);
	for (unsigned i = 0; i < 2; i++) {
		two[i] = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			      vmem_region_file(i ? second : region), 0);
		assert(two[i] != MAP_FAILED);
		o.address = (uintptr_t)two[i];
		o.gpa = i * BYTES;
		assert(!vmem_region_add_peer(&p[i], i ? second : region, &o));
		o.same_process_as = p[0];
	}
	at = (uintptr_t)two[0];
	close(o.userfaultfd);
	cpu.region = NULL;
	for (unsigned turn = 0; turn < 2; turn++) {
		for (uint64_t i = 0; i < PAGES; i++) {
			vmemt_put(&cpu, two[0], i, 1 + turn);
			if (i < PAGES - 1)
				vmemt_put(&cpu, two[1], i, 3 + turn);
		}
		for (uint64_t i = 0; i < PAGES; i++) {
			assert(vmemt_is(&cpu, base, i, 1 + turn));
			assert(i == PAGES - 1 ||
			       vmemt_is(&cpu, vmem_region_hva(second), i, 3 + turn));
		}
		if (!turn) { /* the other goes on alone */
			assert(!vmem_region_remove_peer(p[0]));
			vmemt_touch_begin(&waiting, VMEMT_WRITE, two[0], &ones, 8);
			vmemt_store(region, 0, 1); /* it has it no more */
			assert(vmemt_is(&cpu, base, 0, 1) && !vmemt_touch_over(&waiting));
			two[0] = base;
		}
	}
	o = (struct vmem_peer_opts){ sizeof(o), 0, 0, BYTES, at, -1, 0, p[1] };
	assert(vmem_peer_state(p[1]) == VMEM_PEER_SERVED && !vmemt_touch_over(&waiting));
	assert(!vmem_region_add_peer(&p[0], region, &o));
	assert(!vmemt_touch_end(&waiting) && *(uint64_t *)base == ones);
	vmem_manager_thread_stop(manager);
	vmemt_kernel.at_call = touch_the_detached;
	assert(!vmem_manager_thread_start(manager));
	assert(!vmem_region_detach(second, VMEM_DETACH_RESTORE));
	assert(detaching && !vmemt_touch_end(&cpu) && !vmem_peer_state(p[0]));
	vmemt_put(&cpu, (unsigned char *)at, 3, 9);
	assert(vmemt_is(&cpu, base, 3, 9));
	assert(!munmap((void *)at, BYTES) && !munmap(two[1], BYTES));
	assert(!vmem_region_remove_peer(p[0]));
	vmemt_cpu_stop(&waiting);
	end();
}

/* --- Hostile ones --- */

/* The guest and another peer are served as before, and what they write is what they read. */
static void others_live(uint64_t version)
{
	for (uint64_t i = 8; i < 24; i++)
		vmemt_put(&cpu, base, i, version);
	booked();
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
	make_with_peer();
	vmemt_peer_join(&other, region);
	put_all(1);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_peer_is(&peer, i, 1));
	others_live(2);
	vmemt_peer_trick(&peer, trick, 41);
	if (trick != VMEMT_PEER_FLOOD) { /* what it has no more keeps nothing from leaving */
		booked();
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
	end();
}

int main(void)
{
	vmemt_peers_prepare();
	vmemt_need(VMEM_KERNEL_FILES | VMEM_KERNEL_POISON | VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_cpu_start(&cpu);
	refused();
	add_fails();
	comes_late();
	lost();
	pinned();
	from_source();
	restored();
	given_up(false);
	given_up(true);
	removed();
	removed_in_a_load();
	one_process();
	for (unsigned trick = VMEMT_PEER_UNMAP; trick <= VMEMT_PEER_FLOOD; trick++)
		hostile((enum vmemt_peer_trick)trick);
	vmemt_cpu_stop(&cpu);
	vmemt_peers_end();
	return 0;
}
