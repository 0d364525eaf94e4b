/* SPDX-License-Identifier: BSD-2-Clause */
/* Hand-overs of memory that are none: refused, with nothing left of them; the next one serves who waits. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vmem/foreign.h>
#include <vmem/peer.h>
#include "linux/failing_kernel.h"
#include "linux/foreign_rig.h"

#define PAGE VMEM_PAGE_SIZE
#define GPA VMEMT_FOREIGN_GPA
#define PAGES VMEMT_FOREIGN_PAGES
#define EVENTS VMEMT_FOREIGN_EVENTS

static void expect_refused(const struct vmem_region_opts *o, uint32_t count, int error)
{
	assert(vmemt_foreign_attach(&vmemt_foreign.client, o, count) == error);
}

static void other_descriptors(void)
{
	struct vmemt_client c = vmemt_foreign.client;
	struct vmem_region_opts o = vmemt_foreign_range(&vmemt_foreign.client, 0, PAGES, 0);
	int pipes[2];

	assert(!pipe(pipes));
	c.uffd = pipes[0];
	assert(vmemt_foreign_attach(&c, &o, 1) == -VMEM_EINVAL);
	c.uffd = memfd_create("none", MFD_CLOEXEC);
	assert(vmemt_foreign_attach(&c, &o, 1) == -VMEM_EINVAL);
	close(c.uffd);
	assert(vmemt_foreign_attach(&c, &o, 1) == -VMEM_EINVAL);
	c.uffd = -1;
	assert(vmemt_foreign_attach(&c, &o, 1) == -VMEM_EINVAL);
	close(pipes[0]);
	close(pipes[1]);
}

static void bad_ranges(void)
{
	struct vmem_region_opts o[VMEM_FOREIGN_RANGES_MAX + 1];
	struct vmem_region_opts good = vmemt_foreign_range(&vmemt_foreign.client, 0, PAGES, 0);

	for (unsigned i = 0; i < VMEM_FOREIGN_RANGES_MAX + 1; i++)
		o[i] = vmemt_foreign_range(&vmemt_foreign.client, i, 1, 0);
	expect_refused(o, 0, -VMEM_EINVAL);
	expect_refused(o, VMEM_FOREIGN_RANGES_MAX + 1, -VMEM_EINVAL);
	o[5] = vmemt_foreign_range(&vmemt_foreign.client, 4, 2, 0);
	expect_refused(o, 6, -VMEM_EEXIST);
	o[5] = vmemt_foreign_range(&vmemt_foreign.client, 5, 1, 0);
	o[5].gpa = o[4].gpa;
	expect_refused(o, 6, -VMEM_EEXIST);
	o[5] = good;
	o[5].hva = (void *)(UINTPTR_MAX - PAGE + 1);
	o[5].gpa = 0;
	expect_refused(&o[5], 1, -VMEM_EINVAL);
	o[5] = good;
	o[5].hva = (void *)(uintptr_t)PAGE; /* nothing is there */
	expect_refused(&o[5], 1, -VMEM_EINVAL);
	o[5] = good;
	o[5].hva = NULL;
	expect_refused(&o[5], 1, -VMEM_EINVAL);
	o[5] = good;
	o[5].bytes--;
	expect_refused(&o[5], 1, -VMEM_EINVAL);
	o[5] = good;
	o[5].flags = VMEM_REGION_SOURCE_STAYS;
	expect_refused(&o[5], 1, -VMEM_EINVAL);
	o[5] = good;
	o[5].max_bytes = (PAGES + 1) * PAGE;
	expect_refused(&o[5], 1, -VMEM_ENOTSUP);
	o[5] = good;
	o[5].active_samples = 100;
	expect_refused(&o[5], 1, -VMEM_ENOTSUP);
	o[5] = good;
	o[5].fault_way = VMEM_FAULT_SIGBUS;
	expect_refused(&o[5], 1, -VMEM_EINVAL);
}

/* What is removed there is not gone. One page of it is found, wherever it is; what is not given does not matter. */
static void shared_memory(void)
{
	struct vmem_region_opts o[2];

	vmemt_foreign.client.shared = 1;
	vmemt_foreign_begin(vmemt_manager(0), PAGES, EVENTS);
	vmemt_foreign.client.shared = 0;
	/* It is in its file, or not. */
	o[0] = vmemt_foreign_range(&vmemt_foreign.client, 0, PAGES, VMEM_REGION_FROM_SOURCE);
	expect_refused(o, 1, -VMEM_ENOTSUP);
	vmemt_order_begin(&vmemt_foreign.client, 1, VMEMT_ORDER_WRITE, PAGES - 2, 2, 2);
	expect_refused(o, 1, -VMEM_ENOTSUP);
	o[0].bytes = (PAGES - 1) * PAGE;
	o[1] = vmemt_foreign_range(&vmemt_foreign.client, PAGES - 1, 1, 0);
	expect_refused(o, 2, -VMEM_ENOTSUP);
	assert(!vmem_manager_thread_start(vmemt_foreign.manager));
	assert(!vmemt_foreign_attach(&vmemt_foreign.client, o, 1));
	vmemt_foreign.region = vmem_foreign_region(vmemt_foreign.foreign, 0);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, PAGES - 2, 1);
	vmemt_client_end(&vmemt_foreign.client, true);
	assert(!vmem_foreign_detach(vmemt_foreign.foreign, VMEM_DETACH_DISCARD));
	assert(!vmem_manager_free(vmemt_foreign.manager));
}

/* A removal that nobody has read yet does not keep memory from being judged, and is not forgotten. */
static void removing_as_it_is_attached(void)
{
	vmemt_foreign_begin(vmemt_manager(0), PAGES, EVENTS);
	vmemt_order_begin(&vmemt_foreign.client, 0, VMEMT_ORDER_REMOVE, 7, 2, 0);
	VMEMT_UNTIL(poll(&(struct pollfd){ .fd = vmemt_foreign.client.uffd, .events = POLLIN }, 1,
			 0) == 1);
	vmemt_foreign_serve();
	assert(!vmemt_order_end(&vmemt_foreign.client, 0));
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 7, 1);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 7, 2, 0);
	vmemt_foreign_end();
}

/* However an attach fails, nothing of it stays, and the next one serves who waits since before. */
static void refused_by(enum vmemt_call call)
{
	struct vmem_region_opts o[2];
	int error = -VMEM_EIO;
	unsigned files;

	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&vmemt_foreign.manager, NULL, &vmemt_kernel_table));
	vmemt_foreign_begin(vmemt_foreign.manager, PAGES, EVENTS);
	vmemt_order_begin(&vmemt_foreign.client, 0, VMEMT_ORDER_READ, 0, PAGES, 1);
	files = vmemt_open_files();
	o[0] = vmemt_foreign_range(&vmemt_foreign.client, 0, PAGES / 2, VMEM_REGION_FROM_SOURCE);
	o[1] = vmemt_foreign_range(&vmemt_foreign.client, PAGES / 2, PAGES / 2,
				   VMEM_REGION_FROM_SOURCE);
	vmemt_kernel.fail = call;
	vmemt_kernel.error = -VMEM_EIO;
	for (long n = 0; error; n++) {
		long failed = atomic_load(&vmemt_kernel.failed);

		atomic_store(&vmemt_kernel.calls[call], 0);
		vmemt_kernel.fail_after = n;
		error = vmemt_foreign_attach(&vmemt_foreign.client, o, 2);
		vmemt_kernel.fail_after = -1;
		assert(!error == (failed == atomic_load(&vmemt_kernel.failed)));
		assert(!error || vmemt_open_files() == files);
	}
	vmemt_foreign.region = vmem_foreign_region(vmemt_foreign.foreign, 0);
	assert(!vmem_manager_thread_start(vmemt_foreign.manager));
	assert(vmemt_order_end(&vmemt_foreign.client, 0) == PAGES);
	vmemt_foreign_end();
}

static void refused_hand_overs(void)
{
	static const enum vmemt_call calls[] = { VMEMT_K_OPEN, VMEMT_K_READ, VMEMT_K_FCNTL,
						 VMEMT_K_EPOLL_WATCH, VMEMT_K_REGISTER };

	vmemt_foreign_make(0);
	other_descriptors();
	vmemt_foreign_end();
	vmemt_foreign_begin(vmemt_manager(0), PAGES, EVENTS);
	bad_ranges();
	vmemt_foreign_serve();
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, PAGES, 1);
	vmemt_foreign_end();
	shared_memory();
	removing_as_it_is_attached();
	for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		refused_by(calls[i]);
}

static vmem_peer *peer_of(vmem_region *r, void *address, int uffd, int error)
{
	struct vmem_peer_opts o = {
		.size = sizeof(o), .bytes = PAGE, .address = (uintptr_t)address, .userfaultfd = uffd
	};
	vmem_peer *peer = NULL;

	assert(vmem_region_add_peer(&peer, r, &o) == error);
	return peer;
}

/* Neither of two that read its messages would hear of all of them, whatever each has it for. */
static void handed_over_twice(void)
{
	struct vmemt_client c;
	struct vmem_region_opts half[2];
	struct vmemi_uffd uffd;
	vmem_region *file;
	vmem_peer *peer;
	void *memory;

	vmemt_foreign_begin(vmemt_manager(0), PAGES, EVENTS);
	assert(!vmem_manager_thread_start(vmemt_foreign.manager));
	c = vmemt_foreign.client;
	c.uffd = fcntl(vmemt_foreign.client.uffd, F_DUPFD_CLOEXEC, 3);
	assert(c.uffd >= 0);
	for (unsigned i = 0; i < 2; i++)
		half[i] =
			vmemt_foreign_range(&c, i * PAGES / 2, PAGES / 2, VMEM_REGION_FROM_SOURCE);
	assert(!vmemt_foreign_attach(&vmemt_foreign.client, &half[0], 1));
	assert(vmemt_foreign_attach(&c, &half[1], 1) == -VMEM_EEXIST);
	file = vmemt_region(vmemt_foreign.manager, 0, PAGES,
			    VMEM_REGION_FILE | VMEM_REGION_DMA_PINNED);
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
		      vmem_region_file(file), 0);
	assert(memory != MAP_FAILED);
	peer_of(file, memory, c.uffd, -VMEM_EEXIST);
	assert(!vmemi_uffd_open(&uffd, &vmemi_kernel_linux, 0, 0));
	peer = peer_of(file, memory, uffd.fd, 0);
	close(c.uffd);
	c.uffd = uffd.fd;
	assert(vmemt_foreign_attach(&c, &half[1], 1) == -VMEM_EEXIST);
	assert(!vmem_region_remove_peer(peer));
	assert(!munmap(memory, PAGES * PAGE));
	vmemi_uffd_close(&uffd);
	assert(!vmem_region_detach(file, VMEM_DETACH_DISCARD));
	/* When it is let go it may come again. */
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 3, 1);
	assert(!vmem_foreign_detach(vmemt_foreign.foreign, VMEM_DETACH_RESTORE));
	assert(!vmemt_foreign_attach(&vmemt_foreign.client, &half[1], 1));
	vmemt_foreign.region = vmem_foreign_region(vmemt_foreign.foreign, 0);
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, PAGES, 1);
	vmemt_foreign_end();
}

/* Each question is answered in the end, but all of them are too many. */
static bool say_it_again(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	static unsigned questions;

	(void)argument;
	(void)fd;
	if (call != VMEMT_K_CONTINUE || ++questions % 1000 == 0)
		return false;
	*ret_result = -VMEM_EAGAIN;
	return true;
}

static bool map_each_page_alone(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	const struct vmemi_uffdio_continue *c = argument;

	(void)fd;
	if (call != VMEMT_K_CONTINUE)
		return false;
	*ret_result = c->range.len > PAGE ? -VMEM_ENOENT : -VMEM_EINVAL;
	return true;
}

/* Who keeps his memory from being judged is refused in time, and is no worse off for that. */
static void not_to_be_judged(uint64_t pages, bool (*before)(enum vmemt_call call, void *argument,
							    int fd, int *ret_result))
{
	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&vmemt_foreign.manager, NULL, &vmemt_kernel_table));
	vmemt_foreign_begin(vmemt_foreign.manager, pages, EVENTS);
	vmemt_kernel.before = before;
	assert(vmemt_foreign_whole(&vmemt_foreign.client) == -VMEM_EBUSY);
	vmemt_kernel.before = NULL;
	vmemt_foreign_serve();
	vmemt_foreign_expect(VMEMT_ORDER_READ, 0, 20, 1);
	vmemt_foreign_end();
}

int main(int argc, char **argv)
{
	vmemt_client_main(argc, argv);
	vmemt_need(VMEM_KERNEL_POISON | VMEM_KERNEL_FILES);
	refused_hand_overs();
	handed_over_twice();
	not_to_be_judged(PAGES, say_it_again);
	assert(atomic_load(&vmemt_kernel.calls[VMEMT_K_CONTINUE]) < 20000);
	not_to_be_judged(70000, map_each_page_alone);
	return 0;
}
