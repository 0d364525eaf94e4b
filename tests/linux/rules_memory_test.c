/* SPDX-License-Identifier: BSD-2-Clause */
/* Rules about kinds of memory, rights, and who else is in the process: see rules.h. */
#include "linux/hand_over.h"
#include "linux/kernel/uffd_abi.h"
#include "linux/rules.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define HUGE_PAGES 512 /* pages of a huge one */

static struct vmemt_rig rig;

static unsigned char *map_aligned(uint64_t bytes, uint64_t align)
{
	unsigned char *m = mmap(NULL, bytes + align, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t before;

	assert(m != MAP_FAILED);
	before = (align - (uintptr_t)m % align) % align;
	assert(!before || !munmap(m, before));
	assert(!munmap(m + before + bytes, align - before));
	return m + before;
}

static void fill(unsigned char *base, uint64_t pages, uint64_t version)
{
	for (uint64_t i = 0; i < pages; i++) {
		struct vmemt_page p;

		vmemt_make(&p, i, version);
		memcpy(base + i * PAGE, &p, PAGE);
	}
}

/* Pages are taken out of the middle of what was a huge page, discarded and brought back; what the library
 * knows and what the kernel has mapped agree. */
static void rule_10_parts_of_a_huge_page(void)
{
	const uint64_t pages = 2 * HUGE_PAGES;
	unsigned char *m = map_aligned(pages * PAGE, HUGE_PAGES * PAGE);

	madvise(m, pages * PAGE, MADV_HUGEPAGE);
	fill(m, pages, 1);
	if (!vmemt_smaps_kb(m, pages * PAGE, "AnonHugePages:"))
		VMEMT_NOT_HERE("huge pages (there are none for this process)");
	vmemt_rig_attach(&rig, m, pages, 0);
	vmemt_stage(rig.region, 5, 1);
	vmemt_stage(rig.region, 100, 40);
	assert(!vmem_region_discard(rig.region, 200 * PAGE, 7 * PAGE, NULL));
	vmemt_store(rig.region, HUGE_PAGES - 3, 6);
	for (uint64_t i = 0; i < pages; i++) {
		enum vmem_page_state s = vmemt_state(rig.region, i);

		assert(vmemt_mapped(m + i * PAGE) == (s == VMEM_PAGE_RESIDENT));
	}
	vmemt_rig_threads(&rig);
	vmemt_rig_expect(&rig, 0, 200, 1);
	vmemt_rig_expect(&rig, 200, 7, 0);
	vmemt_rig_expect(&rig, 207, pages - 207, 1);
	vmemt_rig_end(&rig);
	assert(!munmap(m, pages * PAGE));
}

/* A userfaultfd is of one process: a child that had the memory would read zeros where pages are away. It
 * has none of it. */
static void rule_11_a_child_has_no_such_memory(void)
{
	unsigned char present[8];
	pid_t child;
	int status;

	vmemt_rig_make(&rig, 8, 0, NULL);
	vmemt_stage(rig.region, 0, 4);
	child = vmemt_fork();
	if (!child)
		_exit(mincore(rig.base, 8 * PAGE, present) && errno == ENOMEM ? 0 : 1);
	status = vmemt_end_of(child);
	assert(WIFEXITED(status) && !WEXITSTATUS(status));
	vmemt_rig_threads(&rig);
	vmemt_rig_expect(&rig, 0, 8, 1);
	vmemt_rig_end(&rig);
}

/* A mapping made over the memory would not be registered: none is, whatever pages go through. */
static void rule_12_memory_stays_registered(void)
{
	const uint64_t bytes = 64 * PAGE;

	vmemt_rig_make(&rig, 64, VMEM_REGION_DMA_PINNED, NULL);
	vmemt_rig_threads(&rig);
	for (unsigned round = 0; round < 3; round++) {
		uint64_t gpas[8];

		assert(!vmem_region_stage(rig.region, 0, 16 * PAGE, NULL));
		assert(!vmem_region_store(rig.region, 0, 16 * PAGE, NULL));
		for (uint64_t i = 0; i < 8; i++)
			gpas[i] = (32 + 2 * i) * PAGE;
		assert(!vmem_region_stage_pages(rig.region, gpas, 8, NULL));
		assert(!vmem_region_discard(rig.region, 60 * PAGE, 4 * PAGE, NULL));
		assert(!vmem_region_pin(rig.region, 0, 2 * PAGE));
		assert(!vmem_region_unpin(rig.region, 0, 2 * PAGE));
		assert(vmemt_has_flag(rig.base, bytes, " um"));
		assert(vmemt_has_flag(rig.base, bytes, " uw"));
		assert(vmemt_has_flag(rig.region->staging, bytes, " um"));
		vmemt_rig_expect(&rig, 0, 60, 1);
	}
	vmemt_rig_end(&rig);
}

static int making_a_manager(void)
{
	vmem_manager *m;
	int error = vmemi_manager_new(&m, NULL, &vmemt_kernel_table);

	if (!error)
		assert(!vmem_manager_free(m));
	return error;
}

static int no_device(const char *path, int flags)
{
	return strcmp(path, "/dev/userfaultfd") ? vmemt_kernel_table.open(path, flags) : -13;
}

static int not_at_all(int flags)
{
	(void)flags;
	return -VMEM_EPERM;
}

/* The device first, which asks for a permission only; then the system call; then what anybody may. */
static void rule_13_three_ways_to_a_userfaultfd(void)
{
	struct vmemi_kernel k = vmemt_kernel_table;
	vmem_manager *m;

	vmemt_kernel_reset();
	if (access("/dev/userfaultfd", R_OK | W_OK)) {
		VMEMT_NOT_HERE("/dev/userfaultfd (no such device, or no right)");
	} else {
		assert(!making_a_manager());
		assert(vmemt_kernel.calls[VMEMT_K_NEW] > 0 &&
		       !vmemt_kernel.calls[VMEMT_K_USERFAULTFD]);
	}
	vmemt_kernel_reset();
	k.open = no_device;
	assert(!vmemi_manager_new(&m, NULL, &k));
	assert(vmemt_kernel.calls[VMEMT_K_USERFAULTFD] > 0 && !vmemt_kernel.calls[VMEMT_K_NEW]);
	assert(!vmem_manager_free(m));
	vmemt_kernel_reset();
	vmemt_kernel.only_user_mode = true;
	assert(!vmemi_manager_new(&m, NULL, &vmemt_kernel_table));
	assert(!(vmemt_manager_metrics(m).kernel_features & VMEM_KERNEL_KERNEL_FAULTS));
	assert(!vmem_manager_free(m));
	k.userfaultfd = not_at_all;
	assert(vmemi_manager_new(&m, NULL, &k) == -VMEM_EPERM);
}

static _Atomic unsigned areas; /* that there may still be; atomic */

static bool no_more_areas(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	(void)argument;
	(void)fd;
	if (call != VMEMT_K_REGISTER || (atomic_load(&areas) && atomic_fetch_sub(&areas, 1)))
		return false;
	*ret_result = -VMEM_ENOMEM;
	return true;
}

/* The kernel has no room for one of the areas of a region: that of the guest's memory, or of what is beside it. */
static void refuse_areas(uint64_t gpa)
{
	struct vmem_region_opts o = { .size = sizeof(o), .gpa = gpa, .bytes = PAGE };
	long mapped = vmemt_kernel.mapped_bytes;
	vmem_region *r = NULL;
	unsigned n = 0;
	int error;

	vmemt_kernel.before = no_more_areas;
	for (;; n++) {
		atomic_store(&areas, n);
		error = vmem_region_alloc(&r, rig.manager, &o);
		if (!error)
			break;
		assert(error == -VMEM_ENOMEM && !r && vmemt_kernel.mapped_bytes == mapped);
	}
	assert(n == 2);
	vmemt_kernel.before = NULL;
	assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
}

/* As many regions as there may be, each of them served; and no more areas in the kernel is an error that
 * leaves nothing behind. */
static void rule_14_many_regions(void)
{
	static vmem_region *many[VMEMI_REGIONS_MAX];
	struct vmem_region_opts o = { .size = sizeof(o), .bytes = PAGE };
	vmem_region *more = NULL;
	unsigned n = 0;
	int error;

	vmemt_rig_make(&rig, 4, 0, NULL);
	refuse_areas(UINT64_C(1) << 40);
	vmemt_rig_threads(&rig);
	for (;; n++) {
		o.gpa = (UINT64_C(1) << 40) + n * PAGE;
		o.same_vm_as = rig.region;
		error = vmem_region_alloc(&more, rig.manager, &o);
		if (error)
			break;
		many[n] = more;
	}
	assert(error == -VMEM_ENOSPC && n == VMEMI_REGIONS_MAX - 1);
	for (unsigned i = 0; i < n; i++) {
		uint64_t word = i;

		rig.cpu[1].region = many[i];
		assert(!vmemt_touch(&rig.cpu[1], VMEMT_WRITE, vmem_region_hva(many[i]), &word, 8));
		vmemt_stage(many[i], 0, 1);
	}
	for (unsigned i = 0; i < n; i++) {
		uint64_t word = 0;

		rig.cpu[1].region = many[i];
		assert(!vmemt_touch(&rig.cpu[1], VMEMT_READ, vmem_region_hva(many[i]), &word, 8));
		assert(word == i);
	}
	rig.cpu[1].region = NULL;
	for (unsigned i = 0; i < n; i++)
		assert(!vmem_region_detach(many[i], VMEM_DETACH_DISCARD));
	vmemt_rig_expect(&rig, 0, 4, 1);
	vmemt_rig_end(&rig);
}

struct piped {
	int fd[2];
	unsigned char *memory;
	_Atomic int over; /* atomic */
	ssize_t result;
};

/* A system call on guest memory: the kernel itself meets pages that are away. */
static void *read_into(void *argument)
{
	struct piped *p = argument;

	p->result = read(p->fd[0], p->memory, PAGE);
	atomic_store(&p->over, 1);
	return NULL;
}

static void rule_17_the_kernel_faults_too(void)
{
	struct vmemt_page p, got;
	struct piped piped = { .over = 0 };
	pthread_t thread;

	vmemt_rig_make(&rig, 8, 0, NULL);
	vmemt_store(rig.region, 0, 4);
	vmemt_stage(rig.region, 4, 4);
	vmemt_rig_threads(&rig);
	assert(!pipe(piped.fd));
	vmemt_make(&p, 2, 9);
	assert(write(piped.fd[1], &p, PAGE) == (ssize_t)PAGE);
	piped.memory = rig.base + 2 * PAGE;
	assert(!pthread_create(&thread, NULL, read_into, &piped));
	VMEMT_UNTIL(atomic_load(&piped.over));
	assert(!pthread_join(thread, NULL));
	assert(piped.result == (ssize_t)PAGE);
	vmemt_rig_expect(&rig, 2, 1, 9);
	/* And the other way; the reader of the pipe is not the one who serves. */
	assert(write(piped.fd[1], rig.base + 5 * PAGE, PAGE) == (ssize_t)PAGE);
	assert(read(piped.fd[0], &got, PAGE) == (ssize_t)PAGE);
	vmemt_make(&p, 5, 1);
	assert(!memcmp(&got, &p, PAGE));
	close(piped.fd[0]);
	close(piped.fd[1]);
	vmemt_rig_end(&rig);
}

/* A right that was not given costs the kernel's own faults, and no others. */
static void rule_26_without_rights_threads_are_served(void)
{
	uint64_t version = 1;
	int fd[2];

	vmemt_rig_make(&rig, 1, 0, NULL);
	vmemt_rig_end(&rig);
	vmemt_kernel.only_user_mode = true;
	assert(!vmemi_manager_new(&rig.manager, NULL, &vmemt_kernel_table));
	vmemt_rig_threads(&rig);
	rig.region = vmemt_region(rig.manager, 0, 4, 0);
	rig.base = vmem_region_hva(rig.region);
	vmemt_cpu_start(&rig.cpu[0]);
	rig.cpu[0].region = rig.region;
	for (uint64_t i = 0; i < 4; i++)
		vmemt_put(&rig.cpu[0], rig.base, i, version);
	vmemt_stage(rig.region, 0, 2);
	vmemt_store(rig.region, 2, 2);
	assert(!pipe(fd));
	assert(write(fd[1], rig.base, PAGE) == -1 && errno == EFAULT);
	assert(write(fd[1], rig.base + 2 * PAGE, PAGE) == -1 && errno == EFAULT);
	close(fd[0]);
	close(fd[1]);
	vmemt_rig_expect(&rig, 0, 4, version);
	vmemt_end(rig.manager, rig.region);
	vmemt_cpu_stop(&rig.cpu[0]);
}

/* What a metric says is known, not asked of smaps, which takes milliseconds a GiB. */
static void rule_28_metrics_do_not_read_smaps(void)
{
	long opened;

	vmemt_rig_make(&rig, 256, 0, NULL);
	vmemt_store(rig.region, 0, 64);
	opened = vmemt_kernel.calls[VMEMT_K_OPEN];
	for (unsigned i = 0; i < 10; i++) {
		assert(vmemt_manager_metrics(rig.manager).resident_bytes == 192 * PAGE);
		assert(vmemt_metrics(rig.region).pages[VMEM_PAGE_STORED] == 64);
	}
	assert(vmemt_kernel.calls[VMEMT_K_OPEN] == opened);
	/* And it is what smaps says. */
	assert(vmemt_smaps_kb(rig.base, 256 * PAGE, "Rss:") == 192 * PAGE / 1024);
	vmemt_rig_end(&rig);
}

/* Pages of a file that are not mapped are in no process's Pss; they are in the budget. */
static void rule_28_pages_of_a_file_count_though_nobody_maps_them(void)
{
	vmem_manager *m = vmemt_manager(0);
	struct vmemt_page p;
	uint64_t before;
	vmem_region *r;

	if (!(vmemt_manager_metrics(m).kernel_features & VMEM_KERNEL_FILES)) {
		VMEMT_NOT_HERE("memory in files (this kernel)");
		assert(!vmem_manager_free(m));
		return;
	}
	r = vmemt_region(m, 0, 64, VMEM_REGION_FILE | VMEM_REGION_DMA_PINNED);
	before = vmemt_manager_metrics(m).used_bytes;
	for (uint64_t i = 0; i < 64; i++) {
		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(r, i * PAGE, &p, PAGE));
	}
	vmemt_stage(r, 0, 64);
	assert(!vmemt_smaps_kb(vmem_region_hva(r), 64 * PAGE, "Pss:"));
	assert(vmemt_manager_metrics(m).used_bytes >= before + 64 * PAGE);
	vmemt_end(m, r);
}

/* Pages come one by one: there is never a huge page that only a part of is known of. */
static void rule_29_no_huge_pages_arrive(void)
{
	const uint64_t pages = 2 * HUGE_PAGES;
	unsigned char *m = map_aligned(pages * PAGE, HUGE_PAGES * PAGE);

	madvise(m, pages * PAGE, MADV_HUGEPAGE);
	vmemt_rig_attach(&rig, m, pages, 0);
	vmemt_rig_threads(&rig);
	for (uint64_t i = 0; i < pages; i++)
		vmemt_put(&rig.cpu[0], m, i, 1);
	vmemt_stage(rig.region, 0, pages);
	vmemt_rig_expect(&rig, 0, pages, 1);
	assert(!vmemt_smaps_kb(m, pages * PAGE, "AnonHugePages:"));
	assert(!vmemt_smaps_kb(rig.region->staging, pages * PAGE, "AnonHugePages:"));
	/* Nor does the kernel make them behind our back, later. */
	if (access("/sys/kernel/mm/transparent_hugepage", F_OK)) {
		VMEMT_NOT_HERE("memory without huge pages (the kernel has none at all)");
	} else {
		assert(vmemt_has_flag(m, pages * PAGE, " nh"));
		assert(vmemt_has_flag(rig.region->staging, pages * PAGE, " nh"));
	}
	vmemt_rig_end(&rig);
	assert(!munmap(m, pages * PAGE));
}

#define ASKED_COLLAPSE 25 /* MADV_COLLAPSE, which older headers do not have */

static _Atomic(void *) unripe; /* atomic; a block that is not all there */

static int collapse_of_whole_ones(void *memory, size_t bytes, int advice)
{
	assert(advice != ASKED_COLLAPSE || memory != atomic_load(&unripe));
	return vmemt_kernel_table.madvise(memory, bytes, advice);
}

/* What is asked to be made huge has all its 512 pages. */
static void rule_29_one_page_missing_is_no_huge_page(void)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = VMEM_REGION_HUGE,
				      .bytes = 2 * HUGE_PAGES * PAGE };
	const uint64_t missing = 7;
	struct vmemt_page p;
	struct vmemi_kernel k;
	vmem_manager *m;
	vmem_region *r;

	vmemt_kernel_reset();
	k = vmemt_kernel_table;
	k.madvise = collapse_of_whole_ones;
	assert(!vmemi_manager_new(&m, NULL, &k));
	if (vmem_region_alloc(&r, m, &o)) {
		VMEMT_NOT_HERE("blocks that are made huge (this kernel)");
		assert(!vmem_manager_free(m));
		return;
	}
	atomic_store(&unripe, vmem_region_hva(r));
	vmemt_make(&p, 0, 1);
	for (uint64_t i = 0; i < 2 * HUGE_PAGES; i++)
		assert(i == missing || !vmem_region_write(r, i * PAGE, &p, PAGE));
	assert(!vmem_manager_thread_start(m));
	VMEMT_UNTIL(vmemt_metrics(r).huge_bytes == HUGE_PAGES * PAGE);
	atomic_store(&unripe, NULL);
	assert(!vmem_region_write(r, missing * PAGE, &p, PAGE));
	VMEMT_UNTIL(vmemt_metrics(r).huge_bytes == 2 * HUGE_PAGES * PAGE);
	vmemt_end(m, r);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_KERNEL_FAULTS);
	VMEMT_RULE(rule_10_parts_of_a_huge_page);
	VMEMT_RULE(rule_11_a_child_has_no_such_memory);
	VMEMT_RULE(rule_12_memory_stays_registered);
	VMEMT_RULE(rule_13_three_ways_to_a_userfaultfd);
	VMEMT_RULE(rule_14_many_regions);
	VMEMT_RULE(rule_17_the_kernel_faults_too);
	VMEMT_RULE(rule_26_without_rights_threads_are_served);
	VMEMT_RULE(rule_28_metrics_do_not_read_smaps);
	VMEMT_RULE(rule_28_pages_of_a_file_count_though_nobody_maps_them);
	VMEMT_RULE(rule_29_no_huge_pages_arrive);
	VMEMT_RULE(rule_29_one_page_missing_is_no_huge_page);
	return 0;
}
