/* SPDX-License-Identifier: BSD-2-Clause */
/* A page whose bytes are gone is an error to touch, never zeros and never other data; its neighbours do
 * not suffer; and a discard heals it. */
#define _GNU_SOURCE
#include "linux/failing_kernel.h"
#include "linux/guest.h"
#include "linux/stored.h"
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vmem/fault.h>

#define PAGE VMEM_PAGE_SIZE
#define GPA UINT64_C(0x80000000)
#define PAGES 16
#define BAD 5

static struct vmemt_cpu cpu;
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static _Atomic uint32_t told; /* atomic; times that on_lost was called */
static uint64_t told_gpa;
static int told_error;

static void on_lost(void *context, uint64_t gpa, int error)
{
	assert(context == &told);
	told_gpa = gpa;
	told_error = error;
	atomic_fetch_add(&told, 1);
}

/* Stored pages, one of which is damaged where it lies in the pool. */
static void make(uint32_t way, bool threads)
{
	struct vmem_region_opts o = {
		.size = sizeof(o),
		.gpa = GPA,
		.bytes = PAGES * PAGE,
		.fault_way = way,
		.fault_around_pages = 16,
		.on_lost = on_lost,
		.context = &told,
	};
	unsigned char *object;
	uint32_t bytes;

	atomic_store(&told, 0);
	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&manager, NULL, &vmemt_kernel_table));
	if (threads)
		assert(!vmem_manager_thread_start(manager));
	vmemt_catch_signals(manager);
	assert(!vmemt_alloc(&region, manager, &o));
	cpu.region = region;
	base = vmem_region_hva(region);
	for (uint64_t i = 0; i < PAGES; i++) {
		struct vmemt_page p;

		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(region, GPA + i * PAGE, &p, PAGE));
	}
	vmemt_store(region, 0, PAGES);
	object = vmemt_stored_bytes(manager->host.store,
				    vmemi_page_ref(vmemi_region_word(region, BAD)), &bytes);
	assert(object && bytes > 100);
	object[bytes / 2] ^= 0x10;
}

static void expect_poisoned(void)
{
	uint64_t word = 77;

	for (unsigned k = 0; k < 3; k++) {
		assert(vmemt_touch(&cpu, k == 1 ? VMEMT_WRITE : VMEMT_READ, base + BAD * PAGE,
				   &word, 8) == SIGBUS);
		assert(word == 77);
		assert(cpu.answer == -VMEM_EIO && cpu.gpa == GPA + BAD * PAGE);
		/* Kernels without CONFIG_MEMORY_FAILURE do not tell it from other errors. */
		assert(cpu.code == BUS_MCEERR_AR || cpu.code == BUS_ADRERR);
	}
	assert(vmemt_state(region, BAD) == VMEM_PAGE_POISONED);
	assert(atomic_load(&told) == 1 && told_gpa == GPA + BAD * PAGE);
	assert(told_error == -VMEM_EBADMSG);
	assert(vmemt_metrics(region).lost == 1);
}

static void expect_neighbours(void)
{
	for (uint64_t i = 0; i < PAGES; i++)
		if (i != BAD)
			assert(vmemt_is(&cpu, base, i, 1));
	assert(vmemt_metrics(region).lost == 1);
}

static void expect_calls_to_fail(void)
{
	char page[PAGE] __attribute__((aligned(8)));
	int fd[2];

	assert(vmem_region_read(region, GPA + BAD * PAGE, page, PAGE) == -VMEM_EIO);
	assert(vmem_region_write(region, GPA + BAD * PAGE, page, PAGE) == -VMEM_EIO);
	assert(vmem_region_resolve(region, GPA + BAD * PAGE, 0) == -VMEM_EIO);
	assert(vmem_region_pin(region, GPA, PAGES * PAGE) == -VMEM_EIO);
	assert(!vmemt_metrics(region).pinned_pages);
	assert(vmem_region_detach(region, VMEM_DETACH_RESTORE) == -VMEM_EIO);
	/* A system call that meets it gets an error too. */
	assert(!pipe(fd));
	assert(write(fd[1], base + BAD * PAGE, 1) == -1);
	close(fd[0]);
	close(fd[1]);
	assert(vmemt_state(region, BAD) == VMEM_PAGE_POISONED);
}

static void heal(void)
{
	assert(!vmem_region_discard(region, GPA + BAD * PAGE, PAGE, NULL));
	assert(vmemt_state(region, BAD) == VMEM_PAGE_ABSENT);
	assert(vmemt_is(&cpu, base, BAD, 0));
	vmemt_put(&cpu, base, BAD, 2);
	vmemt_store(region, BAD, 1);
	assert(vmemt_is(&cpu, base, BAD, 2));
	assert(atomic_load(&told) == 1);
}

static void touched(uint32_t way)
{
	make(way, way == VMEM_FAULT_THREAD);
	expect_poisoned();
	expect_neighbours();
	expect_calls_to_fail();
	heal();
	assert(vmemt_account(region).corrupt == 1);
	vmemt_end(manager, region);
}

static _Atomic int state_when_poisoned; /* atomic */

/* As a thread of the VMM that on_lost has told, and that is fast. */
static bool discard_if_booked(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	(void)argument;
	(void)fd;
	(void)ret_result;
	if (call == VMEMT_K_POISON) {
		atomic_store(&state_when_poisoned, (int)vmemt_state(region, BAD));
		if (vmemt_state(region, BAD) == VMEM_PAGE_POISONED)
			assert(!vmem_region_discard(region, GPA + BAD * PAGE, PAGE, NULL));
	}
	return false;
}

/* Who may heal a page finds it poisoned in the kernel, too: nothing is poisoned after a discard. */
static void poisoned_before_it_is_booked(uint32_t way)
{
	make(way, false);
	vmemt_kernel.before = discard_if_booked;
	if (way == VMEM_FAULT_THREAD)
		assert(!vmem_manager_thread_start(manager));
	expect_poisoned();
	assert(atomic_load(&state_when_poisoned) == VMEM_PAGE_ARRIVING);
	heal();
	vmemt_end(manager, region);
}

/* A kernel that has no memory for it just now is asked again. The VMM is told once. */
static void poisoned_at_the_second_try(uint32_t way)
{
	make(way, false);
	vmemt_kernel.error = -VMEM_ENOMEM;
	vmemt_kernel.fail = VMEMT_K_POISON;
	vmemt_kernel.fail_after = 0;
	if (way == VMEM_FAULT_THREAD)
		assert(!vmem_manager_thread_start(manager));
	expect_poisoned();
	assert(vmemt_kernel.failed == 1);
	heal();
	vmemt_end(manager, region);
}

/* Found beside a page that is touched: the toucher is not the one who pays. */
static void found_by_prefetch(void)
{
	make(VMEM_FAULT_THREAD, true);
	expect_neighbours(); /* in order, so that they come with each other */
	vmemt_check(manager, region);
	expect_poisoned();
	heal();
	vmemt_end(manager, region);
}

/* Found by a call of the VMM, before the guest touches it. */
static void found_by_call(void)
{
	char page[PAGE] __attribute__((aligned(8)));

	make(VMEM_FAULT_THREAD, true);
	assert(vmem_region_read(region, GPA + BAD * PAGE, page, PAGE) == -VMEM_EIO);
	assert(vmem_region_resolve(region, GPA + BAD * PAGE, 0) == -VMEM_EIO);
	expect_poisoned();
	assert(vmem_region_discard(region, GPA, PAGES * PAGE, NULL) == 0);
	assert(!vmem_region_detach(region, VMEM_DETACH_RESTORE)); /* nothing is lost any more */
	assert(!vmem_manager_free(manager));
}

/* A pinned page that loses its mapping behind the library's back is lost, not zero; and can be let go. */
static void mapping_lost(void)
{
	uint64_t word = 77;

	make(VMEM_FAULT_THREAD, true);
	assert(!vmem_region_discard(region, GPA + BAD * PAGE, PAGE, NULL));
	assert(!vmem_region_pin(region, GPA + 2 * PAGE, PAGE));
	if (vmemt_on_files()) /* which nobody may do */
		assert(!fallocate(vmem_region_file(region),
				  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * PAGE, PAGE));
	else
		assert(!madvise(base + 2 * PAGE, PAGE, MADV_DONTNEED));
	assert(vmemt_touch(&cpu, VMEMT_READ, base + 2 * PAGE, &word, 8) == SIGBUS);
	assert(word == 77 && cpu.answer == -VMEM_EIO && cpu.gpa == GPA + 2 * PAGE);
	assert(atomic_load(&told) == 1 && told_error == -VMEM_EFAULT);
	assert(!vmem_region_unpin(region, GPA + 2 * PAGE, PAGE));
	assert(!vmem_region_discard(region, GPA + 2 * PAGE, PAGE, NULL));
	assert(vmemt_is(&cpu, base, 2, 0));
	vmemt_end(manager, region);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_POISON | VMEM_KERNEL_SIGBUS | VMEM_KERNEL_MOVE | VMEM_KERNEL_WP |
		   VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_cpu_start(&cpu);
	touched(VMEM_FAULT_THREAD);
	touched(VMEM_FAULT_SIGBUS);
	poisoned_before_it_is_booked(VMEM_FAULT_THREAD);
	poisoned_before_it_is_booked(VMEM_FAULT_SIGBUS);
	poisoned_at_the_second_try(VMEM_FAULT_THREAD);
	poisoned_at_the_second_try(VMEM_FAULT_SIGBUS);
	found_by_prefetch();
	found_by_call();
	mapping_lost();
	vmemt_cpu_stop(&cpu);
	return 0;
}
