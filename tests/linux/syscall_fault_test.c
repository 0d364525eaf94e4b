/* SPDX-License-Identifier: BSD-2-Clause */
/* Each system call and each allocation of a short life fails once, in turn: see life.h for what must
 * hold then. And what single operations of the kernel do when they are in a mood. */
#include "linux/failing_kernel.h"
#include "linux/guest.h"
#include "linux/kernel/uffd_abi.h"
#include "linux/life.h"
#include "support/slow.h"
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>

#define PAGE VMEM_PAGE_SIZE

struct failure {
	enum vmemt_call call;
	int error;
};

static const struct failure private_failures[] = {
	{ VMEMT_K_OPEN, -EMFILE },
	{ VMEMT_K_READ, -EAGAIN },
	{ VMEMT_K_READ, -EIO },
	{ VMEMT_K_PREAD, -EIO },
	{ VMEMT_K_WRITE, -EAGAIN },
	{ VMEMT_K_POLL, -EINTR },
	{ VMEMT_K_EVENTFD, -EMFILE },
	{ VMEMT_K_EPOLL, -ENOMEM },
	{ VMEMT_K_USERFAULTFD, -EMFILE },
	{ VMEMT_K_MMAP, -ENOMEM },
	{ VMEMT_K_MPROTECT, -ENOMEM },
	{ VMEMT_K_MADVISE, -EAGAIN },
	{ VMEMT_K_MADVISE_VECTOR, -EPERM },
	{ VMEMT_K_FUTEX_WAIT, -EINTR },
	{ VMEMT_K_NEW, -EPERM },
	{ VMEMT_K_API, -EINVAL },
	{ VMEMT_K_REGISTER, -ENOMEM },
	{ VMEMT_K_REGISTER, -EBUSY },
	{ VMEMT_K_UNREGISTER, -ENOMEM },
	{ VMEMT_K_COPY, -ENOMEM },
	{ VMEMT_K_COPY, -EAGAIN },
	{ VMEMT_K_COPY, -EIO },
	{ VMEMT_K_ZEROPAGE, -ENOMEM },
	{ VMEMT_K_ZEROPAGE, -EAGAIN },
	{ VMEMT_K_MOVE, -EBUSY },
	{ VMEMT_K_MOVE, -EAGAIN },
	{ VMEMT_K_MOVE, -ENOMEM },
	{ VMEMT_K_PROTECT, -EAGAIN },
	{ VMEMT_K_PROTECT, -ENOMEM },
};

/* Those of memory in files. */
static const struct failure file_failures[] = {
	{ VMEMT_K_PREAD, -EIO },
	{ VMEMT_K_LSEEK, -EIO },
	{ VMEMT_K_FSTAT, -EIO },
	{ VMEMT_K_FCNTL, -EMFILE },
	{ VMEMT_K_MEMFD, -EMFILE },
	{ VMEMT_K_FTRUNCATE, -ENOMEM },
	{ VMEMT_K_FALLOCATE, -ENOMEM },
	{ VMEMT_K_MAP_FILE, -ENOMEM },
	{ VMEMT_K_MADVISE_VECTOR, -EPERM },
	{ VMEMT_K_REGISTER, -ENOMEM },
	{ VMEMT_K_COPY, -ENOMEM },
	{ VMEMT_K_COPY, -EAGAIN },
	{ VMEMT_K_COPY, -EIO },
	{ VMEMT_K_ZEROPAGE, -EAGAIN },
	{ VMEMT_K_CONTINUE, -ENOMEM },
	{ VMEMT_K_CONTINUE, -EAGAIN },
	{ VMEMT_K_CONTINUE, -EIO },
	{ VMEMT_K_PROTECT, -EAGAIN },
};

static const struct failure *failures = private_failures;
static unsigned failure_count = sizeof(private_failures) / sizeof(private_failures[0]);

/* Only threads sleep: see each_call_under_pressure(). */
static bool needs_threads(enum vmemt_call call)
{
	return call == VMEMT_K_POLL || call == VMEMT_K_FUTEX_WAIT;
}

/* The call that fails next: long rows of the same kind are thinned out, and most of all where only races are looked
 * for, of which these lives have few. */
static long next(long n)
{
	return n + 1 + n / (VMEMT_RACES_ONLY ? 1 : VMEMT_SLOW ? 4 : 16);
}

/* One call of each kind, one after the other. */
static void each_call(void)
{
	for (unsigned i = 0; i < failure_count; i++) {
		unsigned fired = 0, errors = 0, lost = 0;

		for (long n = 0;; n = next(n)) {
			struct vmemt_life life = { 0 };

			vmemt_kernel_reset();
			vmemt_kernel.fail = failures[i].call;
			vmemt_kernel.error = failures[i].error;
			vmemt_kernel.fail_after = n;
			/* Where the device cannot be opened, the system call is asked. */
			vmemt_kernel.only_user_mode = failures[i].call == VMEMT_K_USERFAULTFD;
			vmemt_live(&life);
			if (!vmemt_kernel.failed)
				break;
			fired++;
			errors += life.errors;
			lost += life.lost;
		}
		fprintf(stderr, "%s %d: failed in %u lives, %u errors, %u pages lost\n",
			vmemt_call_name(failures[i].call), failures[i].error, fired, errors, lost);
		assert(!lost || failures[i].call == VMEMT_K_COPY ||
		       failures[i].call == VMEMT_K_CONTINUE);
		assert(fired || needs_threads(failures[i].call));
	}
}

/* --- The same under a budget that is too small, so that reclaim and those who wait for it run --- */

#define PRESSED 1400

static void make_pressed(struct vmemt_page *p, uint64_t page)
{
	vmemt_page_make(p, page % 4 ? VMEMT_PAGE_SAME : VMEMT_PAGE_TEXT, page);
}

/* True if the call was made to fail. */
static bool live_pressed(bool threads)
{
	struct vmem_manager_opts mo = { .size = sizeof(mo), .budget_bytes = 6 << 20 };
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = VMEM_REGION_DMA_PINNED,
				      .bytes = PRESSED * PAGE };
	struct vmemt_page p, got;
	vmem_manager *m = NULL;
	vmem_region *r = NULL;
	int error = vmemi_manager_new(&m, &mo, &vmemt_kernel_table);

	if (!error)
		error = vmem_region_alloc(&r, m, &o);
	if (!error && threads)
		assert(!vmem_manager_thread_start(m));
	for (uint64_t i = 0; i < PRESSED && !error; i++) {
		make_pressed(&p, i);
		assert(!vmem_region_write(r, i * PAGE, &p, PAGE));
	}
	for (uint64_t i = 0; i < PRESSED && !error; i++) {
		if (i % 3)
			assert(!vmem_region_resolve(r, i * PAGE, i % 2 == 0));
		assert(!vmem_region_read(r, i * PAGE, &got, PAGE));
		make_pressed(&p, i);
		assert(!memcmp(&p, &got, PAGE));
	}
	if (r) {
		assert(!vmemt_metrics(r).lost && vmemt_metrics(r).saved > 100);
		vmemt_check(m, r);
		if (vmem_region_detach(r, VMEM_DETACH_DISCARD))
			assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
	}
	if (m)
		assert(!vmem_manager_free(m));
	assert(!vmemt_kernel.mapped_bytes);
	return vmemt_kernel.failed > 0;
}

static void each_call_under_pressure(bool threads)
{
	static const struct {
		enum vmemt_call call;
		int error;
	} pressed[] = {
		{ VMEMT_K_POLL, -EINTR },           { VMEMT_K_WRITE, -EAGAIN },
		{ VMEMT_K_FUTEX_WAIT, -EINTR },     { VMEMT_K_MMAP, -ENOMEM },
		{ VMEMT_K_MADVISE_VECTOR, -EPERM }, { VMEMT_K_COPY, -ENOMEM },
		{ VMEMT_K_MOVE, -ENOMEM },          { VMEMT_K_PROTECT, -ENOMEM },
	};

	for (unsigned i = 0; i < sizeof(pressed) / sizeof(pressed[0]); i++) {
		unsigned lives = 0;
		bool failed;

		for (long n = 0; n < 1000; n = 2 * n + 1) {
			vmemt_kernel_reset();
			vmemt_kernel.fail = pressed[i].call;
			vmemt_kernel.error = pressed[i].error;
			vmemt_kernel.fail_after = n;
			failed = live_pressed(threads);
			lives += failed;
			if (!failed)
				break;
		}
		fprintf(stderr, "%s %d: failed in %u lives %s\n", vmemt_call_name(pressed[i].call),
			pressed[i].error, lives, threads ? "with threads" : "alone");
		assert(lives || (!threads && needs_threads(pressed[i].call)));
	}
}

static void each_allocation(void)
{
	struct vmemt_fail_alloc alloc;
	unsigned errors = 0, tried = 0;

	for (long n = 0;; n += VMEMT_RACES_ONLY ? 4 : 1, tried++) {
		struct vmemt_life life = { .alloc = &alloc };

		vmemt_kernel_reset();
		vmemt_fail_alloc_init(&alloc);
		alloc.fail_after = n;
		vmemt_live(&life);
		errors += life.errors;
		if (!alloc.failed)
			break;
	}
	fprintf(stderr, "%u allocations failed, %u errors\n", tried, errors);
	assert(tried > 20 && errors >= (VMEMT_RACES_ONLY ? 10 : 20));
}

static void nothing_fails(void)
{
	struct vmemt_life life = { .nothing_fails = true };

	vmemt_kernel_reset();
	vmemt_live(&life);
	assert(!life.errors && !life.lost);
	fprintf(stderr, "%u staged, %u stored, %u read\n", life.staged, life.stored, life.back);
	assert(life.staged > 150 && life.stored > 100 && life.back > 300);
	for (unsigned i = 0; i < failure_count; i++)
		assert(vmemt_kernel.calls[failures[i].call] || needs_threads(failures[i].call) ||
		       failures[i].call == VMEMT_K_USERFAULTFD);
}

/* --- Moods --- */

static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static struct vmemt_cpu cpu;

static void make_around(uint64_t flags, uint32_t fault_around_pages)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = flags,
				      .bytes = 64 * PAGE,
				      .fault_around_pages = fault_around_pages };

	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&manager, NULL, &vmemt_kernel_table));
	assert(!vmem_manager_thread_start(manager));
	assert(!vmem_region_alloc(&region, manager, &o));
	cpu.region = region;
	base = vmem_region_hva(region);
	for (uint64_t i = 0; i < 64; i++)
		vmemt_put(&cpu, base, i, 1);
}

static void make(uint64_t flags)
{
	make_around(flags, 1);
}

static void expect_all_and_end(void)
{
	for (uint64_t i = 0; i < 64; i++)
		assert(vmemt_is(&cpu, base, i, 1));
	vmemt_end(manager, region);
	assert(!vmemt_kernel.mapped_bytes);
}

static bool is_held(uint64_t address)
{
	uint64_t page = (address - (uintptr_t)base) / PAGE;

	return page == 5 || page == 6 || page == 40;
}

/* As the kernel does with pages that are pinned: it moves what stands before one, and says "again"; only
 * a call for that page alone says that it is busy. */
static bool hold_pages(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	struct vmemi_uffdio_move *m = argument;
	uint64_t n = 0;

	if (call != VMEMT_K_MOVE)
		return false;
	while (n < m->len && !is_held(m->src + n))
		n += PAGE;
	if (n == m->len)
		return false;
	m->move = -EBUSY;
	*ret_result = m->len == PAGE ? -EBUSY : -EAGAIN;
	if (n) {
		struct vmemi_uffdio_move part = { .dst = m->dst, .src = m->src, .len = n };

		assert(!vmemi_kernel_linux.ioctl(fd, VMEMI_UFFDIO_MOVE, &part));
		m->move = (int64_t)n;
	}
	return true;
}

static void unmovable_pages_stay(void)
{
	uint64_t pages = 0;

	make(0);
	vmemt_kernel.before = hold_pages;
	assert(!vmem_region_stage(region, 0, 64 * PAGE, &pages));
	assert(pages == 61 && vmemt_metrics(region).unmovable == 3);
	for (uint64_t i = 0; i < 64; i++) {
		bool held = i == 5 || i == 6 || i == 40;

		assert(vmemt_state(region, i) == (held ? VMEM_PAGE_RESIDENT : VMEM_PAGE_STAGED));
		assert(vmemt_mapped(base + i * PAGE) == held);
	}
	expect_all_and_end();
}

/* A page that is not there, though it should be, ends no batch. */
static void holes(void)
{
	uint64_t pages = 0;

	make(0);
	assert(!madvise(base + 9 * PAGE, PAGE, MADV_DONTNEED)); /* which nobody may do */
	assert(!vmem_region_stage(region, 0, 64 * PAGE, &pages));
	assert(pages == 63 && vmemt_state(region, 9) == VMEM_PAGE_ABSENT);
	assert(vmemt_is(&cpu, base, 9, 0));
	vmemt_put(&cpu, base, 9, 1);
	expect_all_and_end();
}

/* Every call does one page of what it was asked for, and says "again". */
static bool one_page(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	if (call == VMEMT_K_COPY) {
		struct uffdio_copy *c = argument, part = *c;

		if (c->len == PAGE)
			return false;
		part.len = PAGE;
		*ret_result = vmemi_kernel_linux.ioctl(fd, UFFDIO_COPY, &part);
		c->copy = part.copy;
		*ret_result = *ret_result ? *ret_result : -EAGAIN;
		return true;
	}
	if (call == VMEMT_K_MOVE) {
		struct vmemi_uffdio_move *m = argument, part = *m;

		if (m->len == PAGE)
			return false;
		part.len = PAGE;
		*ret_result = vmemi_kernel_linux.ioctl(fd, VMEMI_UFFDIO_MOVE, &part);
		m->move = part.move;
		*ret_result = *ret_result ? *ret_result : -EAGAIN;
		return true;
	}
	return false;
}

static void partial_results(void)
{
	static struct vmemt_page p[64];

	make_around(0, 16);
	vmemt_kernel.before = one_page;
	vmemt_store(region, 0, 64);
	assert(vmemt_metrics(region).taken_run == 64);
	assert(!vmem_region_discard(region, 0, 64 * PAGE, NULL));
	for (uint64_t i = 0; i < 64; i++)
		vmemt_make(&p[i], i, 1);
	assert(!vmem_region_write(region, 0, p, sizeof(p)));
	vmemt_check(manager, region);
	vmemt_stage(region, 0, 64);
	expect_all_and_end();
}

static _Atomic uint32_t storm; /* atomic; calls left that get nothing but "again" */

static bool again(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	uint32_t left = atomic_load(&storm);

	(void)argument;
	(void)fd;
	if (call < VMEMT_K_COPY)
		return false;
	while (left && !atomic_compare_exchange_weak(&storm, &left, left - 1))
		;
	*ret_result = -EAGAIN;
	return left > 0;
}

/* Long rows of EAGAIN, as while another thread is in the middle of a fork or an unmapping: who waits is
 * answered when they are over, and no page that stayed is taken for unmovable. */
static void storms(void)
{
	make(VMEM_REGION_DMA_PINNED);
	vmemt_kernel.before = again;
	for (uint32_t length = 1; length < 3000; length = length * 3 + 1) {
		uint64_t gpas[16], pages = 0;

		atomic_store(&storm, length);
		assert(!vmem_region_stage(region, 0, 32 * PAGE, &pages));
		for (uint64_t i = 0; i < 16; i++)
			gpas[i] = (33 + 2 * i - (i == 15)) * PAGE;
		assert(!vmem_region_stage_pages(region, gpas, 15, &pages));
		assert(!vmem_region_store(region, 0, 64 * PAGE, &pages));
		atomic_store(&storm, length);
		for (uint64_t i = 0; i < 64; i += 2)
			assert(vmemt_is(&cpu, base, i, 1));
		atomic_store(&storm, length);
		for (uint64_t i = 0; i < 64; i += 3)
			vmemt_put(&cpu, base, i, 1);
		atomic_store(&storm, 0);
	}
	assert(!vmemt_metrics(region).lost);
	assert(!vmem_region_stage(region, 0, 64 * PAGE, NULL));
	for (uint64_t i = 0; i < 64; i++)
		assert(!vmemt_mapped(base + i * PAGE)); /* all went that had stayed */
	expect_all_and_end();
}

/* Nor is it left alone for long, as one that the kernel holds. */
static void storm_over_a_run(void)
{
	uint64_t pages = 0;

	make(0);
	vmemt_kernel.before = again;
	atomic_store(&storm, 1000);
	assert(!vmem_region_stage(region, 0, 64 * PAGE, &pages));
	assert(pages < 64 && !atomic_load(&storm));
	assert(!vmemt_metrics(region).unmovable);
	for (uint64_t i = 0; i < 64; i++)
		assert(!vmemt_kept(region, i));
	expect_all_and_end();
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_POISON |
		   VMEM_KERNEL_KERNEL_FAULTS | VMEM_KERNEL_VECTOR_DISCARD);
	vmemt_life_start();
	vmemt_catch_signals(NULL);
	if (vmemt_on_files()) {
		failures = file_failures;
		failure_count = sizeof(file_failures) / sizeof(file_failures[0]);
		nothing_fails();
		each_call();
		vmemt_life_stop();
		return 0;
	}
	nothing_fails();
	each_call();
	each_allocation();
	each_call_under_pressure(false);
	each_call_under_pressure(true);
	vmemt_life_stop();
	vmemt_cpu_start(&cpu);
	unmovable_pages_stay();
	holes();
	partial_results();
	storms();
	storm_over_a_run();
	vmemt_cpu_stop(&cpu);
	return 0;
}
