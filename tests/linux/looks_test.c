/* SPDX-License-Identifier: BSD-2-Clause */
/* Between two faults the handler's thread looks for the next, but not where others want its core. Its
 * clock is ours: it tells how much time went by between two looks. */
#include "linux/guest.h"

#define PAGE VMEM_PAGE_SIZE
#define FAULTS 8
#define SPIN_US 100000
#define ALONE_NS 1000 /* between two readings of the clock */
#define CROWDED_NS 30000

static struct vmemi_kernel kernel;
static _Thread_local bool serves; /* this is the handler's thread */
static uint64_t now;              /* the handler's */
static _Atomic uint64_t step_ns;
static _Atomic uint64_t reads, sleeps, slices;

static int time_slice(uint64_t ns)
{
	(void)ns;
	serves = true;
	atomic_fetch_add(&slices, 1);
	return -VMEM_EPERM; /* it is a help, no more */
}

static uint64_t told_time(void)
{
	return serves ? now += atomic_load(&step_ns) : vmemi_kernel_linux.clock_ns();
}

static ssize_t counted_read(int fd, void *buffer, size_t bytes)
{
	if (serves)
		atomic_fetch_add(&reads, 1);
	return vmemi_kernel_linux.read(fd, buffer, bytes);
}

static int counted_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	if (serves)
		atomic_fetch_add(&sleeps, 1);
	return vmemi_kernel_linux.poll(fds, count, timeout_ms);
}

/* How often the handler looked while one fault came after the other, each when it had gone to sleep. */
static uint64_t reads_of_faults(uint64_t between_looks_ns)
{
	struct vmem_manager_opts o = { .size = sizeof(o), .fault_spin_us = SPIN_US };
	struct vmem_region_opts ro = { .size = sizeof(ro),
				       .bytes = FAULTS * PAGE,
				       .fault_around_pages = 1 };
	struct vmem_manager *manager;
	struct vmem_region *region;
	struct vmemt_cpu cpu;
	uint64_t word;

	atomic_store(&step_ns, between_looks_ns);
	atomic_store(&reads, 0);
	atomic_store(&slices, 0);
	atomic_store(&sleeps, 0);
	assert(!vmemi_manager_new(&manager, &o, &kernel));
	assert(!vmem_region_alloc(&region, manager, &ro));
	assert(!vmem_manager_thread_start(manager));
	assert(atomic_load(&slices)); /* a filter may forbid that now */
	vmemt_cpu_start(&cpu);
	VMEMT_UNTIL(atomic_load(&sleeps));
	for (uint64_t page = 0; page < FAULTS; page++) {
		uint64_t before = atomic_load(&sleeps);

		assert(!vmemt_touch(&cpu, VMEMT_READ, (char *)vmem_region_hva(region) + page * PAGE,
				    &word, sizeof(word)));
		VMEMT_UNTIL(atomic_load(&sleeps) > before);
	}
	vmemt_cpu_stop(&cpu);
	vmem_manager_thread_stop(manager);
	vmemt_end(manager, region);
	return atomic_load(&reads);
}

int main(void)
{
	uint64_t alone, crowded;

	vmemt_need(0);
	kernel = vmemi_kernel_linux;
	kernel.time_slice = time_slice;
	kernel.clock_ns = told_time;
	kernel.read = counted_read;
	kernel.poll = counted_poll;
	alone = reads_of_faults(ALONE_NS);
	crowded = reads_of_faults(CROWDED_NS);
	printf("looks: alone %llu, crowded %llu\n", (unsigned long long)alone,
	       (unsigned long long)crowded);
	fflush(stdout);
	assert(alone > 1000);
	assert(crowded < 200);
	return 0;
}
