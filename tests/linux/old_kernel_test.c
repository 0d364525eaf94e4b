/* SPDX-License-Identifier: BSD-2-Clause */
/* Kernels that lack this or that: whatever still works is right, and what does not is refused by the
 * documented error. The real kernel, with features hidden. */
#include "linux/failing_kernel.h"
#include "linux/guest.h"
#include "linux/kernel/uffd_abi.h"
#include "linux/life.h"
#include "linux/stored.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)

/* Linux 6.1, as Debian 12 has it. */
#define HIDE_6_1 (VMEMI_UFFD_FEATURE_MOVE | VMEMI_UFFD_FEATURE_POISON)
/* Linux 5.6 */
#define HIDE_5_6 (HIDE_6_1 | VMEMI_UFFD_FEATURE_WP)

static void hide(uint64_t features, bool vector)
{
	vmemt_kernel_reset();
	vmemt_kernel.hide = features;
	vmemt_kernel.hide_vector = vector;
	vmemt_kernel.hide_collapse = true; /* huge_test.c sees to that */
}

/* A whole life. Where pages cannot be taken, nothing else may fail. */
static void lives(bool cannot_take, uint64_t features)
{
	struct vmemt_life life = { .nothing_fails = true, .cannot_take = cannot_take };

	vmemt_live(&life);
	assert(!life.lost && life.features == features);
	assert(!life.errors == !cannot_take);
	assert(life.back > 300);
}

/* The ways that are left are told apart by what they count. */
static void taking(bool run, bool scattered, bool clean)
{
	const bool pinned[2] = { false, true };

	for (unsigned i = 0; i < 2; i++) {
		struct vmem_region_opts o = { .size = sizeof(o),
					      .flags = pinned[i] ? VMEM_REGION_DMA_PINNED : 0,
					      .bytes = 64 * PAGE,
					      .fault_around_pages = 1 };
		bool can = run || (scattered && pinned[i]);
		struct vmem_region_metrics m;
		uint64_t gpa = 50 * PAGE, pages = 7;
		struct vmemt_cpu cpu;
		vmem_manager *manager;
		vmem_region *r;
		unsigned char *base;

		vmemt_cpu_start(&cpu);
		assert(!vmemi_manager_new(&manager, NULL, &vmemt_kernel_table));
		assert(!vmem_manager_thread_start(manager));
		assert(!vmem_region_alloc(&r, manager, &o));
		cpu.region = r;
		base = vmem_region_hva(r);
		for (uint64_t k = 0; k < 64; k++)
			vmemt_put(&cpu, base, k, 1);
		if (can) {
			vmemt_store(r, 0, 32);
			assert(!vmem_region_stage_pages(r, &gpa, 1, &pages) && pages == 1);
		} else {
			assert(vmem_region_stage(r, 0, PAGE, &pages) == -VMEM_ENOTSUP);
			assert(vmem_region_stage_pages(r, &gpa, 1, &pages) == -VMEM_ENOTSUP);
			assert(pages == 7); /* untouched */
		}
		for (uint64_t k = 0; k < 64; k++)
			assert(vmemt_is(&cpu, base, k, 1));
		m = vmemt_metrics(r);
		assert(!m.taken_run == !run || !can);
		assert(m.taken_run + m.taken_scattered == (can ? 33 : 0));
		assert((m.pages[VMEM_PAGE_CLEAN] > 0) == (can && clean));
		assert(m.pages[VMEM_PAGE_CLEAN] + m.pages[VMEM_PAGE_RESIDENT] == 64);
		vmemt_cpu_stop(&cpu);
		vmemt_end(manager, r);
	}
}

/* Noise comes first, more of it than staging holds, and has to go back into place. */
static enum vmemt_page_kind kind_of(uint64_t page)
{
	return page < 300 ? VMEMT_PAGE_NOISE : VMEMT_PAGE_SAME;
}

/* The budget holds without UFFDIO_MOVE, too; without any way to take pages out, the VMM is told. */
static void budget(bool can_take)
{
	struct vmem_manager_opts mo = { .size = sizeof(mo), .budget_bytes = 6 * MIB };
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = VMEM_REGION_DMA_PINNED,
				      .bytes = 1400 * PAGE };
	struct vmemt_page p, got;
	struct vmemt_cpu cpu;
	vmem_manager *m;
	vmem_region *r;
	unsigned char *base;
	uint64_t i;

	assert(!vmemi_manager_new(&m, &mo, &vmemt_kernel_table));
	assert(!vmem_region_alloc(&r, m, &o));
	base = vmem_region_hva(r);
	vmemt_cpu_start(&cpu);
	cpu.region = r;
	for (i = 0; i < 1400 && !vmemt_manager_metrics(m).stuck; i++) {
		vmemt_page_make(&p, kind_of(i), i);
		vmemt_touch_begin(&cpu, VMEMT_WRITE, base + i * PAGE, &p, PAGE);
		VMEMT_UNTIL(vmem_manager_step(m, 100, NULL) >= 0 &&
			    (vmemt_touch_over(&cpu) || vmemt_manager_metrics(m).stuck));
		assert(!vmemt_touch_over(&cpu) || !vmemt_touch_end(&cpu));
		assert(vmemt_manager_metrics(m).used_bytes <= 6 * MIB + 16 * PAGE);
	}
	assert(can_take == (i == 1400));
	if (!can_take)
		assert(!vmem_manager_set_budget(m, 0));
	VMEMT_UNTIL(vmem_manager_step(m, 100, NULL) >= 0 && vmemt_touch_over(&cpu));
	for (uint64_t k = 0; k < i; k++) {
		assert(!vmemt_touch_step(&cpu, VMEMT_READ, base + k * PAGE, &got, PAGE, m));
		assert(vmemt_page_is(&got, kind_of(k), k));
	}
	/* Not all of it: what is missed comes back before it is saved. */
	assert(!can_take || vmemt_metrics(r).rejected >= 200);
	vmemt_cpu_stop(&cpu);
	vmemt_end(m, r);
}

static _Atomic uint32_t told; /* atomic; times that on_lost was called */

static void on_lost(void *context, uint64_t gpa, int error)
{
	assert(!context && gpa == 2 * PAGE && error == -VMEM_EBADMSG);
	atomic_fetch_add(&told, 1);
}

/* Without UFFDIO_POISON, who touches a lost page waits: never zeros. A discard answers. */
static void lost_without_poison(void)
{
	struct vmem_region_opts o = { .size = sizeof(o),
				      .flags = VMEM_REGION_DMA_PINNED,
				      .bytes = 8 * PAGE,
				      .fault_around_pages = 1,
				      .on_lost = on_lost };
	struct vmemt_page p;
	struct vmemt_cpu cpu;
	uint32_t bytes;
	vmem_manager *m;
	vmem_region *r;
	unsigned char *base;

	assert(!vmemi_manager_new(&m, NULL, &vmemt_kernel_table));
	assert(!vmem_region_alloc(&r, m, &o));
	base = vmem_region_hva(r);
	vmemt_cpu_start(&cpu);
	cpu.region = r;
	for (uint64_t i = 0; i < 8; i++) {
		vmemt_make(&p, i, 1);
		assert(!vmem_region_write(r, i * PAGE, &p, PAGE));
	}
	vmemt_store(r, 0, 8);
	vmemt_stored_bytes(m->host.store, vmemi_page_ref(vmemi_region_word(r, 2)), &bytes)[40] ^= 1;
	vmemt_touch_begin(&cpu, VMEMT_READ, base + 2 * PAGE, &p, PAGE);
	VMEMT_UNTIL(vmem_manager_step(m, 100, NULL) >= 0 && atomic_load(&told));
	for (unsigned i = 0; i < 1000; i++)
		assert(vmem_manager_step(m, 0, NULL) >= 0 && !vmemt_touch_over(&cpu));
	assert(vmem_region_resolve(r, 2 * PAGE, 0) == -VMEM_EIO);
	assert(vmemt_state(r, 2) == VMEM_PAGE_POISONED && atomic_load(&told) == 1);
	assert(!vmem_region_discard(r, 2 * PAGE, PAGE, NULL));
	VMEMT_UNTIL(vmem_manager_step(m, 100, NULL) >= 0 && vmemt_touch_over(&cpu));
	assert(!vmemt_touch_end(&cpu));
	assert(vmemt_page_is(&p, VMEMT_PAGE_ZERO, 0));
	vmemt_cpu_stop(&cpu);
	vmemt_end(m, r);
}

/* Threads of the process are served; what the kernel itself touches for them gets an error, not data. */
static void user_mode_only(void)
{
	struct vmem_region_opts o = { .size = sizeof(o), .bytes = 8 * PAGE };
	struct vmemt_cpu cpu;
	vmem_manager *m;
	vmem_region *r;
	unsigned char *base;
	int fd[2];

	assert(!vmemi_manager_new(&m, NULL, &vmemt_kernel_table));
	assert(!(vmemt_manager_metrics(m).kernel_features & VMEM_KERNEL_KERNEL_FAULTS));
	assert(!vmem_manager_thread_start(m));
	assert(!vmem_region_alloc(&r, m, &o));
	base = vmem_region_hva(r);
	vmemt_cpu_start(&cpu);
	cpu.region = r;
	vmemt_put(&cpu, base, 1, 1);
	vmemt_stage(r, 1, 1);
	assert(!pipe(fd));
	errno = 0;
	assert(write(fd[1], base + PAGE, 1) == -1 && errno == EFAULT);
	assert(vmemt_is(&cpu, base, 1, 1));
	assert(write(fd[1], base + PAGE, 1) == 1); /* it is there now */
	close(fd[0]);
	close(fd[1]);
	vmemt_cpu_stop(&cpu);
	vmemt_end(m, r);
}

static long large_pages(void)
{
	return 16384;
}

static int no_such_call(int flags)
{
	(void)flags;
	return -ENOSYS;
}

static int not_permitted(int flags)
{
	(void)flags;
	return -EPERM;
}

static int no_such_file(const char *path, int flags)
{
	(void)path;
	(void)flags;
	return -ENOENT;
}

static void refused(void)
{
	struct vmemi_kernel k = vmemi_kernel_linux;
	vmem_manager *m = NULL;

	k.page_size = large_pages;
	assert(vmemi_manager_new(&m, NULL, &k) == -VMEM_ENOTSUP && !m);
	k = vmemi_kernel_linux;
	k.open = no_such_file;
	k.userfaultfd = no_such_call;
	assert(vmemi_manager_new(&m, NULL, &k) == -VMEM_ENODEV && !m);
	k.userfaultfd = not_permitted;
	assert(vmemi_manager_new(&m, NULL, &k) == -VMEM_EPERM && !m);
	hide(VMEMI_UFFD_FEATURE_SIGBUS, false);
	assert(vmemi_manager_new(&m, NULL, &vmemt_kernel_table) == -VMEM_ENODEV && !m);
}

int main(void)
{
	const uint64_t all = VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_POISON |
			     VMEM_KERNEL_SIGBUS | VMEM_KERNEL_VECTOR_DISCARD |
			     VMEM_KERNEL_KERNEL_FAULTS | VMEM_KERNEL_FILES;

	vmemt_need(all);
	vmemt_life_start();
	vmemt_catch_signals(NULL);

	hide(0, true);
	lives(false, all & ~VMEM_KERNEL_VECTOR_DISCARD);
	taking(true, true, true);

	hide(VMEMI_UFFD_FEATURE_WP, false);
	lives(false, all & ~(VMEM_KERNEL_WP | VMEM_KERNEL_FILES));
	taking(true, false, false);

	hide(HIDE_6_1, true);
	lives(true,
	      VMEM_KERNEL_WP | VMEM_KERNEL_SIGBUS | VMEM_KERNEL_KERNEL_FAULTS | VMEM_KERNEL_FILES);
	taking(false, true, true);
	budget(true);
	lost_without_poison();

	hide(HIDE_5_6, true);
	lives(true, VMEM_KERNEL_SIGBUS | VMEM_KERNEL_KERNEL_FAULTS);
	taking(false, false, false);
	budget(false);

	hide(0, false);
	vmemt_kernel.only_user_mode = true;
	lives(false, all & ~VMEM_KERNEL_KERNEL_FAULTS);
	user_mode_only();
	vmemt_life_stop();
	refused();
	return 0;
}
