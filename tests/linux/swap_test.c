/* SPDX-License-Identifier: BSD-2-Clause */
/* A manager with swap devices: guests of several times the budget, every page right, the budget held; with threads,
 * in a loop of the VMM, and by calls alone. */
#include "linux/guest.h"
#include "store/memory_device.h"
#include "support/slow.h"
#include <poll.h>
#include <stdlib.h>
#include <vmem/device_file.h>
#include <vmem/manager_device.h>

#define PAGE VMEM_PAGE_SIZE
#define MIB (UINT64_C(1) << 20)
/* Of its size only the part that is out matters. */
#define BUDGET ((VMEMT_RACES_ONLY ? 9 : 12) * MIB)
#define PAGES (VMEMT_RACES_ONLY ? 6144u : 8192u)
#define SLACK (16 * PAGE)
#define STORE_BYTES (BUDGET / 4)

static struct vmemt_memory_device memory;
static struct vmemt_cpu cpu;
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static bool may_pause;   /* the device is real: the manager may be stuck meanwhile */
static _Atomic int quit; /* atomic */

static void add_memory(void)
{
	uint32_t number = 77;

	vmemt_memory_device_init(&memory, 64 * MIB, VMEMT_DEVICE_DEPTH);
	assert(!vmem_manager_add_device(manager, &memory.device, NULL, &number) && !number);
	may_pause = false;
}

static void add_file(void)
{
	const struct vmem_device_file_opts o = { .size = sizeof(o), .size_bytes = 64 * MIB };
	struct vmem_device *device;
	const char *folder = getenv("TMPDIR");

	assert(!vmem_device_file_open(&device, folder ? folder : "/tmp", &o));
	assert(!vmem_manager_add_device(manager, device, NULL, NULL));
	may_pause = true;
}

static void begin(void)
{
	const struct vmem_manager_opts o = { .size = sizeof(o),
					     .budget_bytes = BUDGET,
					     .store_bytes = STORE_BYTES };

	manager = vmemt_manager_of(&o);
	cpu.region = region = vmemt_region(manager, 0, PAGES, VMEM_REGION_DMA_PINNED);
	base = vmem_region_hva(region);
}

static struct vmem_store_out_stats out_stats(void)
{
	struct vmem_store_out_stats s = { .size = sizeof(s) };

	assert(!vmem_manager_get_out_stats(manager, &s));
	return s;
}

static struct vmem_store_device_stats device_stats(void)
{
	struct vmem_store_device_stats s = { .size = sizeof(s) };

	assert(!vmem_manager_get_device_stats(manager, 0, &s));
	return s;
}

static void expect_budget(void)
{
	struct vmem_manager_metrics m = vmemt_manager_metrics(manager);

	assert(m.used_bytes <= BUDGET + SLACK);
	assert(!m.stuck || may_pause);
}

/* Most of it must be out: what compresses to a third does not fit. */
static void work(void)
{
	for (uint64_t i = 0; i < PAGES; i++) {
		vmemt_put(&cpu, base, i, 1);
		if (i % 64 == 0)
			expect_budget();
	}
	assert(out_stats().segments > 4 && out_stats().live_bytes > MIB);
	assert(device_stats().written_bytes > MIB);
	for (uint64_t i = 0; i < PAGES; i += 3)
		vmemt_put(&cpu, base, i, 2);
	for (uint64_t i = 0; i < PAGES; i++) {
		assert(vmemt_is(&cpu, base, i, i % 3 ? 1 : 2));
		if (i % 64 == 0)
			expect_budget();
	}
	assert(out_stats().loads > 0 && !out_stats().lost);
	assert(device_stats().read_bytes > 0);
	assert(!vmemt_metrics(region).lost);
	VMEMT_UNTIL(!atomic_load(&manager->host.stuck));
}

static void end(void)
{
	vmemt_check(manager, region);
	vmemt_end(manager, region);
}

static void with_threads(void (*add)(void), bool late)
{
	begin();
	if (!late)
		add();
	assert(!vmem_manager_thread_start(manager));
	if (late)
		add();
	work();
	end();
}

/* A VMM's own loop, which sleeps on the manager's descriptor. */
static void *loop(void *argument)
{
	struct pollfd fd = { .fd = vmem_manager_fd(manager), .events = POLLIN };
	uint32_t next_ms = 1000;

	(void)argument;
	while (!atomic_load(&quit)) {
		int more = vmem_manager_step(manager, 1000, &next_ms);

		assert(more == 0 || more == 1);
		if (!more)
			assert(poll(&fd, 1, (int)next_ms) >= 0);
	}
	return NULL;
}

static void in_a_loop(void (*add)(void))
{
	pthread_t thread;

	begin();
	add();
	atomic_store(&quit, 0);
	assert(!pthread_create(&thread, NULL, loop, NULL));
	work();
	atomic_store(&quit, 1);
	vmem_manager_stop(manager); /* makes the descriptor readable */
	assert(!pthread_join(thread, NULL));
	end();
}

/* Nobody but the thread that makes the calls. */
static void by_calls(void (*add)(void))
{
	begin();
	add();
	vmemt_write_all(region, PAGES);
	expect_budget();
	assert(out_stats().segments > 4);
	vmemt_read_all(region, PAGES);
	expect_budget();
	vmemt_check(manager, region);
	vmemt_restore(region, PAGES);
	assert(!vmem_manager_free(manager));
}

/* What is asked of the manager is asked of its store, and what is refused stays the caller's. */
static void arguments(void)
{
	struct vmem_store_out_stats out = { .size = sizeof(out), .segments = 9 };
	struct vmem_store_device_stats one = { .size = sizeof(one) };
	const struct vmem_store_device_opts bad = { .size = sizeof(bad), .flags = 1u << 30 };
	uint32_t number = 7;

	begin();
	assert(!vmem_manager_get_out_stats(manager, &out) && !out.segments);
	assert(vmem_manager_get_device_stats(manager, 0, &one) == -VMEM_ENOENT);
	assert(vmem_manager_get_out_stats(NULL, &out) == -VMEM_EINVAL);
	assert(vmem_manager_get_device_stats(NULL, 0, &one) == -VMEM_EINVAL);
	vmemt_memory_device_init(&memory, 64 * MIB, VMEMT_DEVICE_DEPTH);
	assert(vmem_manager_add_device(NULL, &memory.device, NULL, &number) == -VMEM_EINVAL);
	assert(vmem_manager_add_device(manager, NULL, NULL, &number) == -VMEM_EINVAL);
	assert(vmem_manager_add_device(manager, &memory.device, &bad, &number) == -VMEM_EINVAL);
	assert(number == 7 && !atomic_load(&memory.closed));
	assert(!vmem_manager_add_device(manager, &memory.device, NULL, NULL));
	assert(!vmem_manager_get_device_stats(manager, 0, &one) && one.size_bytes == 64 * MIB);
	end();
	assert(atomic_load(&memory.closed));
}

/* A budget in which no guest could go on beside it; with more it is taken, and one goes on. */
static void too_small(void)
{
	const struct vmem_manager_opts o = { .size = sizeof(o), .budget_bytes = 4 * MIB };
	const uint64_t pages = 3072;

	manager = vmemt_manager_of(&o);
	vmemt_memory_device_init(&memory, 64 * MIB, VMEMT_DEVICE_DEPTH);
	assert(vmem_manager_add_device(manager, &memory.device, NULL, NULL) == -VMEM_ENOSPC);
	assert(!atomic_load(&memory.closed) && !out_stats().segments);
	assert(!vmem_manager_set_budget(manager, 7 * MIB));
	assert(!vmem_manager_add_device(manager, &memory.device, NULL, NULL));
	cpu.region = region = vmemt_region(manager, 0, pages, 0);
	base = vmem_region_hva(region);
	assert(!vmem_manager_thread_start(manager));
	for (uint64_t i = 0; i < 2 * pages; i++)
		vmemt_put(&cpu, base, i * 37 % pages, 1 + i / pages);
	for (uint64_t i = 0; i < pages; i++)
		assert(vmemt_is(&cpu, base, i, 2));
	assert(out_stats().segments);
	end();
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_MOVE | VMEM_KERNEL_WP | VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_cpu_start(&cpu);
	arguments();
	too_small();
	with_threads(add_memory, false);
	with_threads(add_file, true);
	in_a_loop(add_memory);
	in_a_loop(add_file);
	cpu.region = NULL;
	by_calls(add_memory);
	by_calls(add_file);
	vmemt_cpu_stop(&cpu);
	return 0;
}
