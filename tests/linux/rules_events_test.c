/* SPDX-License-Identifier: BSD-2-Clause */
/* Rules of userfaultfd about messages, and about answers to them: see rules.h. */
#include "linux/kernel/uffd_abi.h"
#include "linux/rules.h"
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* Events besides faults: fork, mremap, madvise(DONTNEED), munmap. */
#define EVENT_FEATURES                                                                    \
	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | \
	 UFFD_FEATURE_EVENT_UNMAP)

static struct vmemt_rig rig;

/* A message is in the kernel, and nobody has read it. */
static bool somebody_waits(void)
{
	struct pollfd fd = { .fd = rig.manager->host.uffd[0].fd, .events = POLLIN };

	return poll(&fd, 1, 0) == 1;
}

/* While an event is unread each answer is EAGAIN, and who discards waits for it to be read. None is asked
 * for: a discard is over while nobody reads messages, and answers are given at once. */
static void rule_01_a_discard_holds_up_nobody(void)
{
	const struct vmemi_host *host;
	long before;

	vmemt_rig_make(&rig, 16, 0, NULL);
	host = &rig.manager->host;
	assert(!((host->uffd[0].features | host->uffd[1].features | host->staging.features) &
		 EVENT_FEATURES));
	vmemt_stage(rig.region, 8, 4);
	assert(!vmem_region_discard(rig.region, 0, 4 * PAGE, NULL)); /* no thread reads messages */
	before = vmemt_kernel.calls[VMEMT_K_COPY];
	assert(!vmem_region_resolve(rig.region, 8 * PAGE, 0));
	assert(vmemt_kernel.calls[VMEMT_K_COPY] == before + 1);
	vmemt_rig_threads(&rig);
	vmemt_rig_expect(&rig, 0, 4, 0);
	vmemt_rig_expect(&rig, 4, 12, 1);
	vmemt_rig_end(&rig);
}

/* A fault that was there before a discard is answered after it with zeros, not with what was. */
static void rule_02_a_fault_before_a_discard_finds_zeros_after_it(void)
{
	struct vmemt_page got, zeros;

	vmemt_rig_make(&rig, 4, 0, NULL);
	vmemt_store(rig.region, 0, 2);
	vmemt_stage(rig.region, 2, 2);
	vmemt_make(&zeros, 0, 0);
	for (uint64_t page = 0; page < 4; page++) {
		vmemt_touch_begin(&rig.cpu[0], VMEMT_READ, rig.base + page * PAGE, &got, PAGE);
		VMEMT_UNTIL(somebody_waits());
		assert(!vmem_region_discard(rig.region, page * PAGE, PAGE, NULL));
		VMEMT_UNTIL(vmem_manager_step(rig.manager, 0, NULL) >= 0 &&
			    vmemt_touch_over(&rig.cpu[0]));
		assert(!vmemt_touch_end(&rig.cpu[0]));
		assert(!memcmp(&got, &zeros, PAGE));
	}
	vmemt_rig_end(&rig);
}

static _Atomic long refusals; /* atomic; to come */
static _Atomic(unsigned char *) refused_page;

static bool copy_says_again(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	struct uffdio_copy *copy = argument;

	(void)fd;
	if (call != VMEMT_K_COPY ||
	    (unsigned char *)(uintptr_t)copy->dst != atomic_load(&refused_page) ||
	    atomic_load(&refusals) <= 0)
		return false;
	atomic_fetch_sub(&refusals, 1);
	copy->copy = -VMEM_EAGAIN;
	*ret_result = -VMEM_EAGAIN;
	return true;
}

/* Who gets EAGAIN is put off, and neither forgotten nor in the way of others. */
static void rule_03_again_is_put_off_and_others_go_on(void)
{
	struct vmemt_page got, want;

	vmemt_rig_make(&rig, 8, 0, NULL);
	vmemt_stage(rig.region, 0, 8);
	atomic_store(&refused_page, rig.base + 3 * PAGE);
	atomic_store(&refusals, 1000000000);
	vmemt_kernel.before = copy_says_again;
	vmemt_rig_threads(&rig);
	vmemt_touch_begin(&rig.cpu[1], VMEMT_READ, rig.base + 3 * PAGE, &got, PAGE);
	VMEMT_UNTIL(atomic_load(&refusals) < 1000000000);
	vmemt_rig_expect(&rig, 0, 3, 1);
	vmemt_rig_expect(&rig, 4, 4, 1);
	assert(!vmemt_touch_over(&rig.cpu[1]));
	atomic_store(&refusals, 0);
	assert(!vmemt_touch_end(&rig.cpu[1]));
	vmemt_make(&want, 3, 1);
	assert(!memcmp(&got, &want, PAGE));
	vmemt_rig_end(&rig);
}

static void rule_04_a_discarded_page_is_zero_and_its_slot_is_free(void)
{
	vmemt_rig_make(&rig, 8, 0, NULL);
	vmemt_store(rig.region, 0, 8);
	assert(vmemt_account(rig.region).pages == 8);
	assert(!vmem_region_discard(rig.region, 2 * PAGE, 3 * PAGE, NULL));
	assert(vmemt_account(rig.region).pages == 5);
	vmemt_rig_threads(&rig);
	vmemt_rig_expect(&rig, 2, 3, 0);
	vmemt_rig_expect(&rig, 0, 2, 1);
	vmemt_rig_expect(&rig, 5, 3, 1);
	vmemt_rig_end(&rig);
}

/* Somebody else was faster, and has woken nobody. */
static bool installs_and_says_it_exists(enum vmemt_call call, void *argument, int fd,
					int *ret_result)
{
	struct uffdio_copy *copy = argument;

	if (call != VMEMT_K_COPY || atomic_fetch_sub(&refusals, 1) <= 0)
		return false;
	copy->mode |= UFFDIO_COPY_MODE_DONTWAKE;
	assert(!vmemi_kernel_linux.ioctl(fd, UFFDIO_COPY, copy));
	copy->copy = -VMEM_EEXIST;
	*ret_result = -VMEM_EEXIST;
	return true;
}

static void rule_05_who_waits_is_woken_though_the_page_is_there(void)
{
	vmemt_rig_make(&rig, 4, 0, NULL);
	vmemt_stage(rig.region, 0, 4);
	atomic_store(&refusals, 1);
	vmemt_kernel.before = installs_and_says_it_exists;
	vmemt_rig_threads(&rig);
	vmemt_rig_expect(&rig, 0, 4, 1);
	assert(atomic_load(&refusals) <= 0);
	vmemt_rig_end(&rig);
}

/* Says of a hole that there is a page, which kernels do while a page table goes. */
static bool says_it_exists(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	(void)fd;
	if ((call != VMEMT_K_COPY && call != VMEMT_K_ZEROPAGE) ||
	    atomic_fetch_sub(&refusals, 1) <= 0)
		return false;
	if (call == VMEMT_K_COPY)
		((struct uffdio_copy *)argument)->copy = -VMEM_EEXIST;
	else
		((struct uffdio_zeropage *)argument)->zeropage = -VMEM_EEXIST;
	*ret_result = -VMEM_EEXIST;
	return true;
}

static void rule_05_a_hole_is_no_page_though_the_kernel_says_so(void)
{
	vmemt_rig_make(&rig, 256, 0, NULL);
	vmemt_stage(rig.region, 0, 1);
	vmemt_store(rig.region, 100, 1);
	assert(!vmem_region_discard(rig.region, 200 * PAGE, PAGE, NULL));
	vmemt_kernel.before = says_it_exists;
	vmemt_rig_threads(&rig);
	for (uint64_t page = 0; page <= 200; page += 100) {
		atomic_store(&refusals, 2);
		vmemt_rig_expect(&rig, page, 1, page < 200);
		assert(atomic_load(&refusals) <= 0);
	}
	assert(!vmemt_metrics(rig.region).lost);
	vmemt_rig_end(&rig);
}

/* One page of what was asked for, and "again". */
static bool does_one_page(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	struct uffdio_copy copy;

	if (call != VMEMT_K_COPY)
		return false;
	memcpy(&copy, argument, sizeof(copy));
	if (copy.len == PAGE)
		return false;
	copy.len = PAGE;
	*ret_result = vmemi_kernel_linux.ioctl(fd, UFFDIO_COPY, &copy);
	((struct uffdio_copy *)argument)->copy = *ret_result ? *ret_result : (int64_t)PAGE;
	if (*ret_result)
		return true;
	*ret_result = -VMEM_EAGAIN;
	atomic_fetch_add(&refusals, 1);
	return true;
}

/* What was copied counts, the rest is asked for again, and a negative count is an error and no length. */
static void rule_06_partial_copies_go_on_where_they_stopped(void)
{
	struct vmemi_uffd u;
	size_t done = 0;

	vmemt_rig_make(&rig, 64, 0, NULL);
	vmemt_stage(rig.region, 0, 64);
	atomic_store(&refusals, 0);
	vmemt_kernel.before = does_one_page;
	u = *rig.region->uffd;
	assert(!vmem_region_discard(rig.region, 0, 16 * PAGE, NULL));
	assert(!vmemi_uffd_copy(&u, rig.base, vmemi_region_place(rig.region, 32), 16 * PAGE, false,
				&done));
	assert(done == 16 * PAGE && atomic_load(&refusals) == 15);
	for (uint64_t i = 0; i < 16; i++) {
		struct vmemt_page want;

		vmemt_make(&want, 32 + i, 1);
		assert(!memcmp(rig.base + i * PAGE, &want, PAGE));
	}
	/* A page is in the way. */
	assert(vmemi_uffd_copy(&u, rig.base + 16 * PAGE, vmemi_region_place(rig.region, 0), PAGE,
			       false, &done) == 0 &&
	       done == PAGE);
	assert(vmemi_uffd_copy(&u, rig.base + 16 * PAGE, vmemi_region_place(rig.region, 0),
			       4 * PAGE, false, &done) == -VMEM_EEXIST &&
	       done == 0);
	assert(!vmemi_region_check(rig.region));
	vmemt_kernel.before = NULL;
	/* The guest's memory was changed behind the library's back: it is not used any more. */
	assert(!vmem_region_detach(rig.region, VMEM_DETACH_DISCARD));
	rig.region = vmemt_region(rig.manager, 0, 1, 0);
	vmemt_rig_end(&rig);
}

/* Somebody waits while the rig's memory goes. */
static void close_memory(void)
{
	struct vmemt_page got;

	vmemt_stage(rig.region, 0, 4);
	memset(&got, 77, sizeof(got));
	vmemt_touch_begin(&rig.cpu[0], VMEMT_READ, rig.base, &got, PAGE);
	VMEMT_UNTIL(somebody_waits());
	assert(vmem_manager_free(rig.manager) == -VMEM_EBUSY);
	rig.cpu[0].region = NULL;
	assert(!vmem_region_detach(rig.region, VMEM_DETACH_DISCARD));
	assert(vmemt_touch_end(&rig.cpu[0]) == SIGSEGV && got.bytes[0] == 77);
	rig.region = vmemt_region(rig.manager, 0, 1, 0);
	vmemt_rig_end(&rig);
}

/* Where a descriptor is closed, or memory is unregistered, who waits reads zeros: so access goes first, and
 * descriptors stay while there is memory; that of the library, which is unmapped, and that of the VMM, which is not. */
static void rule_07_memory_is_closed_before_its_descriptor(void)
{
	void *memory;

	vmemt_rig_make(&rig, 4, 0, NULL);
	close_memory();
	memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert(memory != MAP_FAILED);
	memset(memory, 55, 4 * PAGE);
	vmemt_rig_attach(&rig, memory, 4, 0);
	close_memory();
	assert(!munmap(memory, 4 * PAGE));
}

/* A guest whose handler is gone waits. It can be served again: by calls, by steps, by new threads. */
static void rule_08_without_a_handler_the_guest_waits(void)
{
	struct vmemt_page got, want;

	vmemt_rig_make(&rig, 4, 0, NULL);
	vmemt_rig_threads(&rig);
	vmemt_stage(rig.region, 0, 4);
	vmem_manager_thread_stop(rig.manager);
	memset(&got, 77, sizeof(got));
	vmemt_touch_begin(&rig.cpu[0], VMEMT_READ, rig.base, &got, PAGE);
	VMEMT_UNTIL(somebody_waits());
	assert(!vmemt_touch_over(&rig.cpu[0]));
	vmemt_rig_threads(&rig);
	assert(!vmemt_touch_end(&rig.cpu[0]));
	vmemt_make(&want, 0, 1);
	assert(!memcmp(&got, &want, PAGE));
	vmemt_rig_end(&rig);
}

static _Atomic uint32_t strange; /* atomic; messages to be invented */

/* Messages that the library has not asked for, of memory that it does not know, before true ones. */
static ssize_t read_strange(int fd, void *buffer, size_t bytes)
{
	struct uffd_msg m = { .event = UFFD_EVENT_REMOVE };

	if (rig.manager && fd == rig.manager->host.uffd[0].fd && bytes >= sizeof(m) &&
	    atomic_load(&strange)) {
		uint32_t n = atomic_fetch_sub(&strange, 1);

		m.arg.remove.start = n % 2 ? 0x1000 : (uintptr_t)rig.base;
		m.arg.remove.end = m.arg.remove.start + 4096;
		if (n % 3 == 0) {
			memset(&m, 0, sizeof(m));
			m.event = UFFD_EVENT_PAGEFAULT;
			m.arg.pagefault.address = 0x7777000;
		}
		memcpy(buffer, &m, sizeof(m));
		return sizeof(m);
	}
	return vmemt_kernel_table.read(fd, buffer, bytes);
}

static void rule_09_messages_of_what_is_gone_do_no_harm(void)
{
	static struct vmemi_kernel k;

	k = vmemt_kernel_table;
	k.read = read_strange;
	vmemt_rig_make(&rig, 8, 0, &k);
	vmemt_stage(rig.region, 0, 8);
	atomic_store(&strange, 100);
	vmemt_rig_threads(&rig);
	vmemt_rig_expect(&rig, 7, 1, 1);
	VMEMT_UNTIL(!atomic_load(&strange));
	vmemt_rig_expect(&rig, 6, 1, 1); /* the last of them was before this */
	for (uint64_t i = 0; i < 6; i++) /* none was taken for a fault */
		assert(vmemt_state(rig.region, i) == VMEM_PAGE_STAGED);
	vmemt_rig_expect(&rig, 0, 8, 1);
	assert(!vmemt_metrics(rig.region).discarded && !vmemt_metrics(rig.region).lost);
	vmemt_rig_end(&rig);
}

static _Atomic uint32_t flooding; /* atomic */
static _Atomic uint64_t floods;   /* atomic */

/* Gives up pages in place, in staging and stored, and takes them again. */
static void *flood(void *argument)
{
	(void)argument;
	for (uint64_t n = 0; atomic_load(&flooding); n++) {
		for (uint64_t i = 32; i < 64; i++)
			memcpy(rig.base + i * PAGE, &i, sizeof(i));
		assert(!vmem_region_stage(rig.region, (32 + n % 16) * PAGE, 16 * PAGE, NULL));
		assert(!vmem_region_store(rig.region, 40 * PAGE, 8 * PAGE, NULL));
		assert(!vmem_region_discard(rig.region, 32 * PAGE, 32 * PAGE, NULL));
		atomic_fetch_add(&floods, 1);
	}
	return NULL;
}

/* Whose balloon gives up pages without end takes its own time alone, and nothing that others need: a page of any kind
 * comes, and a region goes. */
static void rule_15_a_flood_of_discards_stops_nobody(void)
{
	vmem_region *other;
	unsigned char *base;
	pthread_t thread;

	vmemt_rig_make(&rig, 64, 0, NULL);
	other = vmemt_region(rig.manager, UINT64_C(1) << 40, 32, 0);
	base = vmem_region_hva(other);
	vmemt_rig_threads(&rig);
	rig.cpu[1].region = other;
	for (uint64_t i = 0; i < 32; i++)
		vmemt_put(&rig.cpu[1], base, i, 5);
	vmemt_store(rig.region, 0, 16);
	vmemt_stage(rig.region, 16, 16);
	vmemt_store(other, 0, 16);
	vmemt_stage(other, 16, 16);
	atomic_store(&flooding, 1);
	assert(!pthread_create(&thread, NULL, flood, NULL));
	vmemt_until_more(&floods, 100);
	for (uint64_t i = 0; i < 32; i++) {
		assert(vmemt_is(&rig.cpu[1], base, i, 5));
		assert(vmemt_is(&rig.cpu[0], rig.base, i, 1));
	}
	rig.cpu[1].region = NULL;
	assert(!vmem_region_detach(other, VMEM_DETACH_DISCARD));
	vmemt_until_more(&floods, 1);
	atomic_store(&flooding, 0);
	assert(!pthread_join(thread, NULL));
	/* And what was given up is not missing. */
	assert(vmemt_manager_metrics(rig.manager).resident_bytes == 32 * PAGE);
	vmemt_rig_end(&rig);
}

static bool unprotect_says_again(enum vmemt_call call, void *argument, int fd, int *ret_result)
{
	const struct uffdio_writeprotect *wp = argument;

	(void)fd;
	if (call != VMEMT_K_PROTECT || (wp->mode & UFFDIO_WRITEPROTECT_MODE_WP) ||
	    atomic_fetch_sub(&refusals, 1) <= 0)
		return false;
	*ret_result = -VMEM_EAGAIN;
	return true;
}

/* A page that is clean: in place, read-only, as the store has it. */
static void make_clean(uint64_t page)
{
	assert(!vmem_region_resolve(rig.region, page * PAGE, 0));
	assert(vmemt_state(rig.region, page) == VMEM_PAGE_CLEAN);
}

/* A write to a protected page is let through however often the kernel says "again", and protection does not
 * outlive the page. */
static void rule_16_protection_is_neither_stuck_nor_stale(void)
{
	vmemt_rig_make(&rig, 4, 0, NULL);
	vmemt_store(rig.region, 0, 4);
	make_clean(0);
	make_clean(1);
	atomic_store(&refusals, 1000);
	vmemt_kernel.before = unprotect_says_again;
	vmemt_rig_threads(&rig);
	vmemt_put(&rig.cpu[0], rig.base, 0, 2);
	assert(atomic_load(&refusals) <= 0);
	assert(!vmem_region_discard(rig.region, PAGE, PAGE, NULL));
	vmemt_rig_expect(&rig, 1, 1, 0);
	vmemt_put(&rig.cpu[0], rig.base, 1, 3);
	vmemt_rig_expect(&rig, 0, 1, 2);
	vmemt_rig_expect(&rig, 1, 1, 3);
	vmemt_rig_expect(&rig, 2, 2, 1);
	vmemt_rig_end(&rig);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_KERNEL_FAULTS);
	VMEMT_RULE(rule_01_a_discard_holds_up_nobody);
	VMEMT_RULE(rule_02_a_fault_before_a_discard_finds_zeros_after_it);
	VMEMT_RULE(rule_03_again_is_put_off_and_others_go_on);
	VMEMT_RULE(rule_04_a_discarded_page_is_zero_and_its_slot_is_free);
	VMEMT_RULE(rule_05_who_waits_is_woken_though_the_page_is_there);
	VMEMT_RULE(rule_05_a_hole_is_no_page_though_the_kernel_says_so);
	VMEMT_RULE(rule_06_partial_copies_go_on_where_they_stopped);
	VMEMT_RULE(rule_07_memory_is_closed_before_its_descriptor);
	VMEMT_RULE(rule_08_without_a_handler_the_guest_waits);
	VMEMT_RULE(rule_09_messages_of_what_is_gone_do_no_harm);
	VMEMT_RULE(rule_15_a_flood_of_discards_stops_nobody);
	VMEMT_RULE(rule_16_protection_is_neither_stuck_nor_stale);
	return 0;
}
