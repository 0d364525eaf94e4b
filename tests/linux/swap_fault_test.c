/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest on a device that fails, as it is told to or really: it reads what it has written, or meets an error that the
 * VMM is told of, and never waits for ever. */
#define _GNU_SOURCE
#include "linux/swap_guest.h"
#include "store/memory_device.h"
#include "support/small_fs.h"
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <vmem/device_file.h>

#define BUDGET (8 * VMEMT_MIB)
#define DEVICE_BYTES (64 * VMEMT_MIB)

static struct vmemt_swap_guest g;
static struct vmemt_memory_device memory;
static char folder[] = "/tmp/vmem-swap-XXXXXX";
static char named[sizeof(folder) + 8];

static void add_memory(void)
{
	vmemt_memory_device_init(&memory, DEVICE_BYTES, VMEMT_DEVICE_DEPTH);
	assert(!vmemt_swap_add(&g, &memory.device, 0));
}

static void begin(uint64_t fault_deadline_ms)
{
	vmemt_swap_begin(&g, BUDGET, fault_deadline_ms);
	add_memory();
	vmemt_swap_fill(&g, 1);
	vmemt_swap_settle(&g);
	assert(vmemt_swap_out(&g).segments > 4);
}

static void end(void)
{
	vmemt_swap_end(&g);
	assert(!atomic_load(&memory.wrong));
}

/* What is lost is what was there, and can be given away. */
static void lose(void)
{
	uint32_t lost;

	vmemt_swap_settle(&g);
	lost = vmemt_swap_check(&g, 1, 0);
	assert(lost && lost < VMEMT_SWAP_PAGES);
	assert(vmemt_swap_out(&g).lost);
	(void)vmemt_swap_add_file(&g, -1);
	vmemt_swap_heal(&g, 1, 0);
	end();
}

static void gone(void)
{
	begin(0);
	atomic_store(&memory.submit_error, -VMEM_ENODEV);
	lose();
}

/* The first page that is out, when the guest has gone elsewhere. */
static uint64_t one_that_is_out(void)
{
	for (uint64_t i = 0; i < VMEMT_SWAP_PAGES; i++) {
		if (vmemt_swap_is_out(&g, i))
			return i;
	}
	assert(false && "pages are out");
	return 0;
}

static bool is_in_place(uint64_t page)
{
	enum vmem_page_state state = vmemt_state(g.region, page);

	return state == VMEM_PAGE_RESIDENT || state == VMEM_PAGE_CLEAN;
}

/* What was in place when it was known that the device is gone, is not lost, however often it leaves and comes back. */
static void gone_behind_clean_pages(void)
{
	static bool kept[VMEMT_SWAP_PAGES];
	uint64_t word = 0;
	uint32_t count = 0;

	begin(0);
	for (uint64_t i = 0; i < VMEMT_SWAP_PAGES; i += 8) /* others come with them */
		assert(vmemt_is(&g.cpu, g.base, i, 1));
	atomic_store(&memory.submit_error, -VMEM_ENODEV);
	assert(vmemt_touch(&g.cpu, VMEMT_READ, g.base + one_that_is_out() * VMEM_PAGE_SIZE, &word,
			   8) == SIGBUS);
	for (uint64_t i = 0; i < VMEMT_SWAP_PAGES; i++)
		count += kept[i] = is_in_place(i);
	assert(count);
	(void)vmemt_swap_add_file(&g, -1);
	for (uint64_t i = 0; i < VMEMT_SWAP_PAGES; i++) {
		if (kept[i] || !vmemt_swap_is_out(&g, i))
			continue;
		assert(!vmem_region_discard(g.region, i * VMEM_PAGE_SIZE, VMEM_PAGE_SIZE, NULL));
		vmemt_put(&g.cpu, g.base, i, 1);
	}
	for (uint64_t i = 0; i < VMEMT_SWAP_PAGES; i++)
		if (kept[i])
			assert(vmemt_is(&g.cpu, g.base, i, 1));
	end();
}

static void unreadable(void)
{
	begin(0);
	atomic_store(&memory.read_error, -VMEM_EIO);
	atomic_store(&memory.write_error, -VMEM_EIO);
	lose();
}

static void corrupt(void)
{
	begin(0);
	atomic_store(&memory.corrupt, 1);
	atomic_store(&memory.write_error, -VMEM_EIO);
	lose();
}

/* A touch of what never comes ends at its deadline, and the others go on meanwhile. */
static void silent(void)
{
	uint64_t word = 77, page;

	begin(500);
	atomic_store(&memory.hold, 1);
	page = one_that_is_out();
	assert(vmemt_touch(&g.cpu, VMEMT_READ, g.base + page * VMEM_PAGE_SIZE, &word, 8) == SIGBUS);
	assert(word == 77 && g.cpu.answer == -VMEM_EIO);
	assert(atomic_load(&g.told[page]) == -VMEM_EIO);
	atomic_store(&memory.hold, 0);
	assert(vmemt_swap_check(&g, 1, 0)); /* where the machine is busy, others too */
	assert(!vmem_region_discard(g.region, 0, VMEMT_SWAP_PAGES * VMEM_PAGE_SIZE, NULL));
	end();
}

/* What cannot be written stays. Where it does not fit, the VMM is told, and another device helps. */
static void unwritable(int error)
{
	vmemt_swap_begin(&g, BUDGET, 0);
	add_memory();
	atomic_store(&memory.write_error, error);
	assert(vmemt_swap_fill_helped(&g, 1));
	assert(vmemt_swap_device(&g, 0).write_errors && !vmemt_swap_device(&g, 0).written_bytes);
	assert(vmemt_swap_device(&g, 1).written_bytes);
	assert(!vmemt_swap_check(&g, 1, 0));
	end();
}

/* --- With the real thing --- */

static void add_file(const char *path)
{
	const struct vmem_device_file_opts o = { .size = sizeof(o),
						 .flags = VMEM_DEVICE_FILE_CREATE,
						 .size_bytes = DEVICE_BYTES };
	struct vmem_device *device;

	assert(!vmem_device_file_open(&device, path, &o));
	assert(!vmemt_swap_add(&g, device, 0));
}

/* Somebody cuts the file off. */
static void truncated(void)
{
	uint64_t cut;
	uint32_t lost;

	vmemt_swap_begin(&g, BUDGET, 0);
	add_file(named);
	vmemt_swap_fill(&g, 1);
	vmemt_swap_settle(&g);
	cut = vmemt_swap_device(&g, 0).taken_bytes / 2;
	assert(cut && !truncate(named, (off_t)cut));
	vmemt_swap_settle(&g);
	lost = vmemt_swap_check(&g, 1, cut);
	assert(lost && lost < VMEMT_SWAP_PAGES);
	(void)vmemt_swap_add_file(&g, -1);
	vmemt_swap_heal(&g, 1, cut);
	vmemt_swap_end(&g);
	assert(!unlink(named));
}

/* The device says that it has 64 MiB, and its file system has one. */
static void full(int error)
{
	if (!error) {
		vmemt_swap_begin(&g, BUDGET, 0);
		add_file(named);
		assert(vmemt_swap_fill_helped(&g, 1));
		assert(vmemt_swap_device(&g, 0).write_errors);
		assert(!vmemt_swap_device(&g, 0).is_bad);
		assert(vmemt_swap_device(&g, 1).written_bytes);
		assert(!vmemt_swap_check(&g, 1, 0));
		vmemt_swap_end(&g);
	}
	vmemt_small_fs_end(named, error);
}

int main(void)
{
	int error;

	vmemt_need(VMEM_KERNEL_POISON | VMEM_KERNEL_MOVE | VMEM_KERNEL_WP |
		   VMEM_KERNEL_KERNEL_FAULTS);
	assert(mkdtemp(folder));
	snprintf(named, sizeof(named), "%s/swap", folder);
	vmemt_cpu_start(&g.cpu);
	gone();
	gone_behind_clean_pages();
	unreadable();
	corrupt();
	silent();
	unwritable(-VMEM_EIO);
	unwritable(-VMEM_ENOSPC);
	truncated();
	error = vmemt_small_fs_begin(named, "size=1m");
	full(error);
	vmemt_cpu_stop(&g.cpu);
	assert(!rmdir(folder));
	return vmemt_small_fs_status(error);
}
