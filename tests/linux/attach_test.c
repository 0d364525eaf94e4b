/* SPDX-License-Identifier: BSD-2-Clause */
/* What can be attached and what cannot, what attaching keeps, and what detaching leaves behind. */
#define _GNU_SOURCE
#include "linux/failing_kernel.h"
#include "linux/guest.h"
#include "linux/kernel/uffd_abi.h"
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE VMEM_PAGE_SIZE
#define PAGES 64
#define BYTES (PAGES * (size_t)PAGE)

static struct vmemt_cpu cpu;
static vmem_manager *manager;

static unsigned char *map(size_t bytes, int protection, int flags, int fd)
{
	unsigned char *memory = mmap(NULL, bytes, protection, flags, fd, 0);

	assert(memory != MAP_FAILED);
	return memory;
}

static unsigned char *map_anonymous(size_t bytes)
{
	return map(bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static struct vmem_region_opts opts_of(void *memory)
{
	return (struct vmem_region_opts){
		.size = sizeof(struct vmem_region_opts),
		.hva = memory,
		.bytes = BYTES,
		.fault_around_pages = 1,
	};
}

static int attach(vmem_region **r, void *memory)
{
	struct vmem_region_opts o = opts_of(memory);

	return vmem_region_attach(r, manager, &o);
}

/* Whether memory can be read at all, without touching it: faults of the kernel come back as errors. */
static bool readable(const void *memory)
{
	char byte;
	struct iovec to = { &byte, 1 }, from = { (void *)(uintptr_t)memory, 1 };

	return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1;
}

static void keeps_contents(uint32_t how)
{
	unsigned char *memory = map_anonymous(BYTES);
	vmem_region *r;

	cpu.region = NULL;
	for (uint64_t i = 0; i < PAGES; i += 2)
		vmemt_put(&cpu, memory, i, 3);
	assert(!*vmem_region_why(memory, BYTES));
	assert(!attach(&r, memory));
	cpu.region = r;
	assert(vmem_region_hva(r) == memory);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_state(r, i) == (i % 2 ? VMEM_PAGE_ABSENT : VMEM_PAGE_RESIDENT));
	assert(vmemt_manager_metrics(manager).resident_bytes == BYTES / 2);
	for (uint64_t i = 0; i < 32; i++)
		assert(vmemt_is(&cpu, memory, i, i % 2 ? 0 : 3));
	vmemt_store(r, 0, 16);
	vmemt_stage(r, 8, 0);
	assert(!vmem_region_stage(r, 16 * PAGE, 48 * PAGE, NULL));
	for (uint64_t i = 0; i < 8; i++)
		assert(vmemt_is(&cpu, memory, i, i % 2 ? 0 : 3)); /* some are clean now */
	vmemt_check(manager, r);
	assert(vmem_region_detach(r, 2) == -VMEM_EINVAL);
	assert(!vmem_region_detach(r, how));
	cpu.region = NULL;
	if (how == VMEM_DETACH_RESTORE) {
		vmem_manager_thread_stop(manager); /* nobody is needed any more */
		for (uint64_t i = 0; i < PAGES; i++)
			assert(vmemt_is(&cpu, memory, i, i % 2 ? 0 : 3));
		for (uint64_t i = 0; i < PAGES; i++)
			vmemt_put(&cpu, memory, i, 4);
		assert(!vmem_manager_thread_start(manager));
		assert(!*vmem_region_why(memory, BYTES)); /* and could be attached again */
	} else {
		for (uint64_t i = 0; i < PAGES; i++) {
			uint64_t word = 0;

			assert(!readable(memory + i * PAGE));
			assert(vmemt_touch(&cpu, VMEMT_READ, memory + i * PAGE, &word, 8) ==
			       SIGSEGV);
		}
	}
	assert(!vmemt_manager_metrics(manager).resident_bytes);
	assert(!vmemt_manager_metrics(manager).staging_bytes);
	munmap(memory, BYTES);
}

static void alloc_is_unmapped(void)
{
	struct vmem_region_opts o = opts_of((void *)1); /* ignored */
	vmem_region *r;
	unsigned char *memory;

	assert(!vmem_region_alloc(&r, manager, &o));
	cpu.region = r;
	memory = vmem_region_hva(r);
	vmemt_put(&cpu, memory, 5, 1);
	assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
	cpu.region = NULL;
	assert(!readable(memory + 5 * PAGE));
	assert(!vmem_region_alloc(&r, manager, &o));
	cpu.region = r;
	memory = vmem_region_hva(r);
	vmemt_put(&cpu, memory, 5, 1);
	vmemt_stage(r, 5, 1);
	assert(!vmem_region_detach(r, VMEM_DETACH_RESTORE));
	cpu.region = NULL;
	assert(vmemt_is(&cpu, memory, 5, 1)); /* the caller's from now on */
	assert(!munmap(memory, BYTES));
}

static void refuse(void *memory, int error, const char *word)
{
	const char *why = vmem_region_why(memory, BYTES);
	vmem_region *r = NULL;

	if (!strstr(why, word))
		fprintf(stderr, "\"%s\" does not say \"%s\"\n", why, word);
	assert(strstr(why, word));
	assert(attach(&r, memory) == error && !r);
}

static int temporary_file(void)
{
	char name[] = "/tmp/vmem_attach_XXXXXX";
	int fd = mkstemp(name);

	assert(fd >= 0 && !unlink(name) && !ftruncate(fd, (off_t)BYTES));
	return fd;
}

static void other_kinds_of_memory(void)
{
	unsigned char *memory = map_anonymous(BYTES);
	int fd = temporary_file();

	/* Past libc, where sanitizers make it do nothing. */
	if (!syscall(SYS_mlock, memory, PAGE)) {
		refuse(memory, -VMEM_ENOTSUP, "mlocked");
		assert(!syscall(SYS_munlock, memory, PAGE));
	} else {
		fprintf(stderr, "not tried: mlocked memory (mlock: %m)\n");
	}
	assert(!mprotect(memory + 8 * PAGE, PAGE, PROT_READ));
	refuse(memory, -VMEM_ENOTSUP, "write access");
	assert(!munmap(memory + 8 * PAGE, PAGE));
	refuse(memory, -VMEM_ENOTSUP, "not mapped");
	munmap(memory, BYTES);
	refuse(memory, -VMEM_ENOTSUP, "not mapped");

	memory = map(BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
	refuse(memory, -VMEM_ENOTSUP, "private file mapping");
	munmap(memory, BYTES);
	memory = map(BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	refuse(memory, -VMEM_ENOTSUP, "shared");
	munmap(memory, BYTES);
	close(fd);
	memory = map(BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	refuse(memory, -VMEM_ENOTSUP, "shared");
	munmap(memory, BYTES);
	fd = memfd_create("vmem_attach_test", MFD_CLOEXEC);
	assert(fd >= 0 && !ftruncate(fd, (off_t)BYTES));
	memory = map(BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	refuse(memory, -VMEM_ENOTSUP, "memfd");
	munmap(memory, BYTES);
	close(fd);
}

static void foreign_userfaultfd(void)
{
	unsigned char *memory = map_anonymous(BYTES);
	struct vmemi_uffd u;
	uint64_t ioctls;
	vmem_region *r;

	assert(!vmemi_uffd_open(&u, &vmemi_kernel_linux, 0, 0));
	assert(!vmemi_uffd_register(&u, memory + 3 * PAGE, PAGE, false, &ioctls));
	refuse(memory, -VMEM_EBUSY, "another userfaultfd");
	vmemi_uffd_close(&u);
	assert(!attach(&r, memory));
	assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
	munmap(memory, BYTES);
}

/* A flag of the mapping at @memory, as two letters of smaps. */
static bool has_flag(const void *memory, const char *flag)
{
	unsigned long long start, stop;
	FILE *f = fopen("/proc/self/smaps", "r");
	bool inside = false, found = false;
	char line[512];

	assert(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%llx-%llx %*s", &start, &stop) == 2)
			inside = (uintptr_t)memory - start < stop - start;
		else if (inside && !strncmp(line, "VmFlags:", 8))
			found = strstr(line, flag);
	}
	fclose(f);
	return found;
}

/* Children and KSM are kept from the memory, and what was so before stays so. */
static void advice(void)
{
	unsigned char *memory = map_anonymous(BYTES);
	bool ksm = !madvise(memory, BYTES, MADV_MERGEABLE);
	vmem_region *r;

	assert(has_flag(memory, " mg") == ksm && !has_flag(memory, " dc"));
	assert(!attach(&r, memory));
	assert(!has_flag(memory, " mg") && has_flag(memory, " dc"));
	assert(!vmem_region_detach(r, VMEM_DETACH_RESTORE));
	assert(!has_flag(memory, " mg") && !has_flag(memory, " dc"));
	assert(!madvise(memory, BYTES, MADV_DONTFORK));
	assert(!attach(&r, memory));
	assert(!vmem_region_detach(r, VMEM_DETACH_RESTORE));
	assert(has_flag(memory, " dc"));
	munmap(memory, BYTES);
}

/* Without that the memory is not attached; what was done of it is undone. */
static void advice_refused(void)
{
	const enum vmemt_call calls[] = { VMEMT_K_MADVISE, VMEMT_K_MADVISE, VMEMT_K_MMAP,
					  VMEMT_K_REGISTER };
	const long after[] = { 0, 1, 0, 1 };
	unsigned char *memory = map_anonymous(BYTES);
	struct vmem_region_opts o = opts_of(memory);
	vmem_region *r = NULL;
	vmem_manager *m;

	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&m, NULL, &vmemt_kernel_table));
	for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		vmemt_kernel.fail = calls[i];
		vmemt_kernel.error = calls[i] == VMEMT_K_MADVISE ? -VMEM_EAGAIN : -VMEM_ENOMEM;
		vmemt_kernel.failed = vmemt_kernel.calls[calls[i]] = 0;
		vmemt_kernel.fail_after = after[i];
		assert(vmem_region_attach(&r, m, &o) == -VMEM_ENOMEM && !r);
		assert(vmemt_kernel.failed == 1);
		assert(!has_flag(memory, " dc"));
	}
	vmemt_kernel.fail_after = -1;
	assert(!vmem_region_attach(&r, m, &o));
	assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
	assert(!vmem_manager_free(m));
	munmap(memory, BYTES);
}

static void bad_options(void)
{
	struct {
		struct vmem_region_opts o;
		uint64_t newer;
	} large;
	unsigned char *memory = map_anonymous(BYTES);
	struct vmem_region_opts good = opts_of(memory), o;
	vmem_region *r = NULL;

	assert(vmem_region_attach(NULL, manager, &good) == -VMEM_EINVAL);
	assert(vmem_region_attach(&r, NULL, &good) == -VMEM_EINVAL);
	assert(vmem_region_attach(&r, manager, NULL) == -VMEM_EINVAL);
#define EXPECT(field, value, error)                                           \
	do {                                                                  \
		o = good;                                                     \
		o.field = value;                                              \
		assert(vmem_region_attach(&r, manager, &o) == (error) && !r); \
	} while (0)
	EXPECT(size, 4, -VMEM_EINVAL);
	EXPECT(flags, UINT64_C(1) << 62, -VMEM_EINVAL);
	EXPECT(gpa, 8, -VMEM_EINVAL);
	EXPECT(gpa, UINT64_MAX - PAGE + 1, -VMEM_EINVAL);
	EXPECT(hva, NULL, -VMEM_EINVAL);
	EXPECT(hva, memory + 8, -VMEM_EINVAL);
	EXPECT(bytes, 0, -VMEM_EINVAL);
	EXPECT(bytes, PAGE + 8, -VMEM_EINVAL);
	EXPECT(bytes, (UINT64_C(16) << 40) + PAGE, -VMEM_EINVAL);
	EXPECT(fault_way, 2, -VMEM_EINVAL);
	EXPECT(fault_around_pages, 3, -VMEM_EINVAL);
	EXPECT(fault_around_pages, 128, -VMEM_EINVAL);
	large.o = good;
	large.o.size = sizeof(large);
	large.newer = 1;
	assert(vmem_region_attach(&r, manager, &large.o) == -VMEM_E2BIG && !r);
	large.newer = 0;
	assert(!vmem_region_attach(&r, manager, &large.o));
	assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD));
	munmap(memory, BYTES);
	assert(*vmem_region_why(memory + 8, PAGE) && *vmem_region_why(memory, 0) &&
	       *vmem_region_why(memory, 8));
}

static void overlaps(void)
{
	unsigned char *memory = map_anonymous(2 * BYTES);
	struct vmem_region_opts o = opts_of(memory);
	vmem_region *first, *second, *r = NULL;
	vmem_manager *stranger;

	o.gpa = 16 * PAGE;
	assert(!vmem_region_attach(&first, manager, &o));
	o.gpa = 0;
	o.hva = memory + BYTES - PAGE;
	assert(vmem_region_attach(&r, manager, &o) == -VMEM_EEXIST && !r);
	o.hva = memory;
	assert(vmem_region_attach(&r, manager, &o) == -VMEM_EEXIST && !r);
	o.hva = memory + BYTES;
	o.same_vm_as = first;
	for (unsigned gpa = 0; gpa < 80; gpa += 79) {
		o.gpa = gpa * PAGE;
		assert(vmem_region_attach(&r, manager, &o) == -VMEM_EEXIST && !r);
	}
	o.gpa = 80 * PAGE;
	assert(!vmem_region_attach(&second, manager, &o));
	assert(!vmem_manager_new(&stranger, NULL));
	o.hva = map_anonymous(BYTES);
	assert(vmem_region_attach(&r, stranger, &o) == -VMEM_EINVAL && !r);
	assert(vmem_region_alloc(&r, stranger, &o) == -VMEM_EINVAL && !r);
	munmap(o.hva, BYTES);
	assert(!vmem_manager_free(stranger));
	assert(!vmem_region_detach(first, VMEM_DETACH_DISCARD));
	o.hva = memory;
	o.gpa = 0;
	o.same_vm_as = second;
	o.bytes = BYTES;
	assert(vmem_region_attach(&r, manager, &o) == -VMEM_ENOTSUP); /* has no access any more */
	assert(!vmem_region_detach(second, VMEM_DETACH_DISCARD));
	munmap(memory, 2 * BYTES);
}

static void manager_options(void)
{
	struct {
		struct vmem_manager_opts o;
		uint64_t newer;
	} large = { .o = { .size = sizeof(large) }, .newer = 1 };
	struct vmem_manager_opts o = { .size = sizeof(o) };
	vmem_manager *m = NULL;

	assert(vmem_manager_new(NULL, &o) == -VMEM_EINVAL);
	assert(vmem_manager_new(&m, &large.o) == -VMEM_E2BIG && !m);
	o.flags = VMEM_MANAGER_ASYNC_WP << 1;
	assert(vmem_manager_new(&m, &o) == -VMEM_EINVAL && !m);
	o.flags = 0;
	o.max_object_bytes = PAGE + 1;
	assert(vmem_manager_new(&m, &o) == -VMEM_EINVAL && !m);
	o.max_object_bytes = 0;
	o.budget_bytes = 4096;
	assert(vmem_manager_new(&m, &o) == -VMEM_EINVAL && !m);
	assert(!vmem_manager_free(NULL));
	assert(vmem_manager_thread_start(manager) == -VMEM_EBUSY);
	assert(vmem_manager_step(manager, 0, NULL) == -VMEM_EBUSY);
	assert(vmem_manager_run(manager) == -VMEM_EBUSY);
}

/* What is pinned must fit into the budget, in whatever order the two are asked for. */
static void budget_and_pins(void)
{
	const uint64_t mib = 1 << 20;
	vmem_region *r;

	assert(!vmem_manager_set_budget(manager, 32 * mib));
	r = vmemt_region(manager, 0, 4096, 0);
	assert(!vmem_region_pin(r, 0, 12 * mib));
	assert(vmem_manager_set_budget(manager, 12 * mib) == -VMEM_EINVAL);
	assert(vmemt_manager_metrics(manager).budget_bytes == 32 * mib);
	assert(!vmem_manager_set_budget(manager, 20 * mib));
	assert(vmem_region_pin(r, 12 * mib, 2 * mib) == 0);
	assert(vmem_region_pin(r, 0, 16 * mib) == -VMEM_ENOSPC);
	assert(vmemt_metrics(r).pinned_pages == 14 * mib / PAGE);
	assert(vmem_manager_set_budget(manager, PAGE) == -VMEM_EINVAL);
	assert(!vmem_manager_set_budget(manager, 0));
	assert(vmemt_manager_metrics(manager).budget_bytes == 0);
	assert(!vmem_region_pin(r, 0, 16 * mib));
	assert(!vmem_region_detach(r, VMEM_DETACH_DISCARD)); /* pinned or not */
}

/* A region may be attached while its guest runs: a touch in the middle waits, and is answered. */
static void attached_under_fire(void)
{
	vmem_region *r;

	for (unsigned i = 0; i < 200; i++) {
		unsigned char *memory = map_anonymous(BYTES);
		uint64_t word = 1;

		cpu.region = NULL;
		vmemt_touch_begin(&cpu, VMEMT_READ, memory + (BYTES - PAGE), &word, 8);
		for (volatile unsigned spin = 0; spin < i * 20; spin++)
			;
		assert(!attach(&r, memory));
		assert(!vmemt_touch_end(&cpu) && !word);
		assert(!vmem_region_detach(r, VMEM_DETACH_RESTORE));
		munmap(memory, BYTES);
	}
}

static void many_regions(void)
{
	static vmem_region *r[VMEMI_REGIONS_MAX];
	struct vmem_region_opts o = { .size = sizeof(o), .bytes = PAGE };
	vmem_region *none = NULL;

	for (unsigned i = 0; i < VMEMI_REGIONS_MAX; i++)
		assert(!vmem_region_alloc(&r[i], manager, &o));
	assert(vmem_region_alloc(&none, manager, &o) == -VMEM_ENOSPC && !none);
	for (unsigned i = 0; i < VMEMI_REGIONS_MAX; i++) {
		cpu.region = r[i];
		vmemt_put(&cpu, vmem_region_hva(r[i]), 0, i + 1);
		vmemt_store(r[i], 0, 1);
	}
	for (unsigned i = 0; i < VMEMI_REGIONS_MAX; i++) {
		cpu.region = r[i];
		assert(vmemt_is(&cpu, vmem_region_hva(r[i]), 0, i + 1));
		assert(!vmem_region_detach(r[i], VMEM_DETACH_DISCARD));
	}
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP);
	vmemt_cpu_start(&cpu);
	manager = vmemt_manager(0);
	assert(!vmem_manager_thread_start(manager));
	vmemt_catch_signals(manager);
	keeps_contents(VMEM_DETACH_RESTORE);
	keeps_contents(VMEM_DETACH_DISCARD);
	alloc_is_unmapped();
	other_kinds_of_memory();
	foreign_userfaultfd();
	advice();
	advice_refused();
	bad_options();
	overlaps();
	manager_options();
	budget_and_pins();
	many_regions();
	attached_under_fire();
	assert(!vmem_manager_free(manager));
	vmemt_cpu_stop(&cpu);
	return 0;
}
