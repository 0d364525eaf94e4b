/* SPDX-License-Identifier: BSD-2-Clause */
/* Peers come and go: what is refused; one that comes late, with two ranges, while a load of its is under way; what
 * becomes of them when their region is detached. */
#define _GNU_SOURCE
#include "linux/kernel/uffd_abi.h"
#include "linux/peer_guest.h"
#include "linux/stored.h"
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vmem/source.h>

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

	vmemt_peer_make();
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
	vmemt_peer_end();
#undef REFUSE
}

/* Each call that adding takes fails once: nothing is left of it. */
static void add_fails(void)
{
	static const enum vmemt_call call[] = { VMEMT_K_FCNTL,    VMEMT_K_OPEN,
						VMEMT_K_READ,     VMEMT_K_EPOLL_WATCH,
						VMEMT_K_REGISTER, VMEMT_K_PROTECT };

	vmemt_peer_make_manager();
	cpu.region = region = vmemt_region(manager, 0, PAGES, FLAGS);
	base = vmem_region_hva(region);
	assert(!vmem_manager_thread_start(manager));
	vmemt_peer_put_all(1);
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
	vmemt_peer_booked();
	vmemt_peer_leave(&peer);
	vmemt_peer_end();
}

/* By whatever descriptor; a kernel that does not tell is asked for the inode. */
static void handed_over_twice(void)
{
	struct vmemt_peer again;
	vmem_peer *p = NULL;
	int mine;

	vmemt_peer_make_with();
	vmem_manager_thread_stop(manager);
	vmemt_peer_start(&other, vmem_region_file(region), 0, BYTES, 0);
	again = peer;
	again.uffd = fcntl(peer.uffd, F_DUPFD_CLOEXEC, 3);
	mine = again.uffd;
	assert(mine >= 0);
	for (unsigned i = 0; i < 2; i++) {
		vmemt_kernel.fail = VMEMT_K_FCNTL;
		vmemt_kernel.error = -VMEM_EINVAL;
		atomic_store(&vmemt_kernel.calls[VMEMT_K_FCNTL], 0);
		vmemt_kernel.fail_after = i ? 0 : -1;
		again.peer = p;
		assert(vmemt_peer_add(&again, region) == -VMEM_EEXIST && !again.peer);
		again.address += BYTES; /* nor for another place */
		assert(vmemt_peer_add(&again, region) == -VMEM_EEXIST && !again.peer);
		again.address -= BYTES;
		/* What is another one is another one. */
		atomic_store(&vmemt_kernel.calls[VMEMT_K_FCNTL], 0);
		assert(!vmemt_peer_add(&other, region));
		assert(!vmem_region_remove_peer(other.peer));
		other.peer = NULL;
	}
	vmemt_kernel.fail_after = -1;
	assert(vmemt_metrics(region).peers == 1);
	assert(!vmem_manager_thread_start(manager));
	close(mine);
	vmemt_peer_put_all(3);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_peer_is(&peer, i, 3));
	vmemt_peer_leave(&other);
	vmemt_peer_leave(&peer);
	/* When it is let go of it may come again. */
	vmemt_peer_join(&peer, region);
	assert(!vmem_region_remove_peer(peer.peer) && !vmemt_peer_add(&peer, region));
	assert(vmemt_peer_is(&peer, 3, 3));
	vmemt_peer_leave(&peer);
	vmemt_peer_end();
}

/* What had left before it came is not writable there unseen. */
static void comes_late(void)
{
	struct vmemt_page p;
	volatile unsigned char *memory;
	struct vmem_peer_opts o = { .size = sizeof(o), .bytes = BYTES };
	vmem_peer *late;

	vmemt_peer_make();
	vmemt_peer_put_all(1);
	memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, vmem_region_file(region), 0);
	assert(memory != MAP_FAILED);
	for (uint64_t i = 0; i < PAGES; i++) /* in place, so this is harmless */
		memory[i * PAGE] = memory[i * PAGE];
	vmemt_peer_booked();
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
	vmemt_peer_booked();
	for (uint64_t i = 0; i < PAGES / 2; i++)
		assert(vmemt_state(region, i) == VMEM_PAGE_RESIDENT);
	cpu.region = region;
	vmemt_store(region, 0, PAGES);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_is(&cpu, base, i, 2));
	assert(!munmap((void *)(uintptr_t)memory, BYTES));
	assert(!vmem_region_remove_peer(late));
	close(o.userfaultfd);
	vmemt_peer_end();
}

/* It goes while a fault of it is held back, and nothing is. */
static void removed(void)
{
	vmemt_peer_make_with();
	vmemt_peer_put_all(1);
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
	vmemt_peer_end();
}

/* It goes while a load that it has begun is under way. */
static void removed_in_a_load(void)
{
	vmemt_peer_make_with();
	vmemt_peer_put_all(1);
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
	vmemt_peer_end();
}

/* --- Removing one --- */

#define PIECE 8192 /* pages that are protected while nothing leaves */
#define MANY (2 * PIECE + 100)

static uint64_t largest, protected; /* bytes of one call, and of all calls */

static bool look_at_protecting(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	const struct uffdio_writeprotect *w = argument;

	(void)fd;
	(void)ret_result;
	if (call == VMEMT_K_PROTECT && (w->mode & UFFDIO_WRITEPROTECT_MODE_WP)) {
		largest = w->range.len > largest ? w->range.len : largest;
		protected += w->range.len;
	}
	return false;
}

/* A large one is protected in pieces, all of it. */
static void removed_in_pieces(void)
{
	uint64_t bytes = MANY * PAGE;
	struct vmem_peer_opts o = { .size = sizeof(o), .bytes = bytes };
	unsigned char *memory, *data = calloc(PIECE, PAGE);
	vmem_peer *p;

	vmemt_peer_make_manager();
	region = vmemt_region(manager, 0, MANY, FLAGS);
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vmem_region_file(region), 0);
	assert(memory != MAP_FAILED && data);
	for (uint64_t i = 0; i < MANY; i += PIECE)
		assert(!vmem_region_write(region, i * PAGE, data,
					  (MANY - i < PIECE ? MANY - i : PIECE) * PAGE));
	o.address = (uintptr_t)memory;
	o.userfaultfd = vmemt_peer_uffd(0);
	assert(!vmem_region_add_peer(&p, region, &o));
	largest = protected = 0;
	vmemt_kernel.before = look_at_protecting;
	assert(!vmem_region_remove_peer(p));
	vmemt_kernel.before = NULL;
	assert(protected == bytes && largest == PIECE * PAGE);
	assert(!munmap(memory, bytes));
	close(o.userfaultfd);
	free(data);
	vmemt_peer_end();
}

static _Atomic bool has_touched; /* atomic; by a peer that is being removed */

static void touch_the_leaving(enum vmemt_call call)
{
	long before = atomic_load(&vmemt_kernel.peer_reads);

	if (call != VMEMT_K_PROTECT || has_touched)
		return;
	has_touched = true;
	vmemt_peer_begin(&peer, VMEMT_READ, 3, 0);
	VMEMT_UNTIL(atomic_load(&vmemt_kernel.peer_reads) > before);
}

/* While no thread runs that could be at it; they run afterwards. */
static void hook(void (*at_call)(enum vmemt_call call))
{
	vmem_manager_thread_stop(manager);
	vmemt_kernel.at_call = at_call;
	assert(!vmem_manager_thread_start(manager));
}

/* What it wants while it goes it does not get: nothing is made writable behind what is protected. */
static void left_while_it_goes(void)
{
	vmemt_peer_make_with();
	vmemt_peer_put_all(1);
	vmemt_peer_booked();
	vmemt_store(region, 0, 8);
	has_touched = false;
	hook(touch_the_leaving);
	assert(!vmem_region_remove_peer(peer.peer));
	hook(NULL);
	peer.peer = NULL;
	assert(has_touched && vmemt_state(region, 3) == VMEM_PAGE_STORED);
	assert(!vmemt_peer_over(&peer));
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	assert(!vmemt_peer_over(&peer));
	vmemt_peer_kill(&peer);
	vmemt_peer_leave(&peer);
	vmemt_peer_end();
}

/* The kernel cannot protect it: it is a peer still, with all that it wanted meanwhile. */
static void cannot_be_removed(int error)
{
	struct vmemt_page got, want;

	vmemt_peer_make_with();
	vmemt_peer_put_all(1);
	vmemt_peer_booked();
	vmemt_store(region, 0, 8);
	has_touched = false;
	atomic_store(&vmemt_kernel.calls[VMEMT_K_PROTECT], 0);
	vmem_manager_thread_stop(manager);
	vmemt_kernel.fail = VMEMT_K_PROTECT;
	vmemt_kernel.error = error;
	vmemt_kernel.fail_after = 0;
	hook(touch_the_leaving);
	assert(vmem_region_remove_peer(peer.peer) ==
	       (error == -VMEM_ENOMEM ? -VMEM_ENOMEM : -VMEM_EIO));
	vmem_manager_thread_stop(manager);
	vmemt_kernel.fail_after = -1;
	hook(NULL);
	assert(has_touched && !vmemt_peer_finish(&peer, &got));
	vmemt_make(&want, 3, 1);
	assert(!memcmp(&got, &want, PAGE) && vmemt_metrics(region).peers == 1);
	for (uint64_t i = 0; i < PAGES; i++) {
		vmemt_peer_put(&peer, i, 2);
		assert(vmemt_is(&cpu, base, i, 2));
	}
	vmemt_peer_leave(&peer);
	assert(!vmemt_metrics(region).peers);
	vmemt_peer_end();
}

static unsigned char *two[2]; /* ranges of one process */
static bool detaching;        /* a touch meanwhile has begun */

/* Between the last look at a region's peers and their end. */
static void touch_the_detached(enum vmemt_call call)
{
	static uint64_t touched;
	long before = atomic_load(&vmemt_kernel.peer_reads);

	if (call != VMEMT_K_UNREGISTER || detaching)
		return;
	detaching = true;
	vmemt_touch_begin(&cpu, VMEMT_READ, two[1] + (PAGES - 1) * PAGE, &touched, 8);
	VMEMT_UNTIL(atomic_load(&vmemt_kernel.peer_reads) > before);
}

/* One process with two ranges, in two regions, and one userfaultfd. Where it was removed it waits, and nothing else. */
static void one_process(void)
{
	struct vmemt_cpu waiting = { 0 };
	uint64_t ones = 0x1111111111111111, at;
	vmem_region *second;
	struct vmem_peer_opts o = { .size = sizeof(o), .bytes = BYTES };
	vmem_peer *p[2];

	vmemt_peer_make();
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
	vmemt_peer_end();
}

static void restored(void)
{
	vmemt_peer_make_with();
	vmemt_peer_put_all(1);
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
	vmemt_peer_make_with_source(0);
	vmemt_peer_join(&other, region);
	for (uint64_t i = 0; i < PAGES; i++)
		if (i % 4 != 2)
			vmemt_put(&cpu, base, i, 1);
	assert(!vmem_region_set_source(region, 2 * PAGE, PAGE));
	vmemt_store(region, 4, 2);
	vmemt_stage(region, 8, 2);
	for (uint64_t i = 0; i < 8; i += 4)
		assert(vmemt_peer_is(&peer, i, 1) && vmemt_peer_is(&other, i, 1));
	vmemt_peer_booked();
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

int main(void)
{
	vmemt_peers_begin();
	refused();
	add_fails();
	handed_over_twice();
	comes_late();
	removed_in_pieces();
	left_while_it_goes();
	cannot_be_removed(-VMEM_ENOMEM);
	cannot_be_removed(-VMEM_EPERM);
	removed();
	removed_in_a_load();
	one_process();
	restored();
	given_up(false);
	given_up(true);
	vmemt_peers_over();
	return 0;
}
