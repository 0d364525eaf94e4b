/* SPDX-License-Identifier: BSD-2-Clause */
/* What VSwapper (Amit, Tsafrir, Schuster: ASPLOS 2014, section 3) found wrong with the swapping of guests by a host that
 * knows nothing of them, one test each. */
#include "linux/disk_guest.h"
#include "store/memory_device.h"
#include "support/slow.h"
#include <stdlib.h>
#include <vmem/manager_device.h>

#define BUDGET (6 * MIB)
#define FITS (BUDGET / PAGE)
#define DEVICE_BUDGET (8 * MIB) /* with a device */
#define STREAM ((VMEMT_SLOW ? 2 : 4) * FITS)

typedef void (*disk_read)(uint64_t page, uint64_t block, uint64_t count);

/* --- Silent swap writes: pages are written to swap though the disk has what is in them --- */

/* An image of up to four times the budget is read in order into memory of twice the budget, by requests of AT_ONCE
 * blocks; a page of every @dirty_every is written. */
static void stream_on(struct vmemt_disk how, disk_read read, uint64_t blocks, uint64_t dirty_every)
{
	vmemt_disk_make(how);
	for (uint64_t block = 0; block < blocks; block += AT_ONCE) {
		uint64_t page = block % how.pages;

		read(page, block, AT_ONCE);
		assert(vmemt_right(page, AT_ONCE));
		for (uint64_t i = page; dirty_every && i < page + AT_ONCE; i += dirty_every)
			vmemt_own(i, 1, block + 1);
	}
	vmemt_all_out();
}

static void stream(disk_read read, uint64_t flags, uint64_t blocks, uint64_t dirty_every)
{
	stream_on((struct vmemt_disk){ .budget = BUDGET, .pages = 2 * FITS, .flags = flags }, read,
		  blocks, dirty_every);
}

/* Of what the disk has. Where pages leave by write-protection, one that is read again comes writable if its range is
 * protected just then: it may have been written. */
static uint64_t saved_at_most(disk_read read, uint64_t flags)
{
	bool again = read == vmemt_disk_read && flags & VMEM_REGION_DMA_PINNED;

	return unsaid + (again ? atomic_load(&source_reads) : 0);
}

static void silent_swap_writes(disk_read read, uint64_t flags)
{
	uint64_t may_be;

	stream(read, flags, STREAM / 2, 0);
	may_be = saved_at_most(read, flags);
	assert(vmemt_silent_bytes() <= may_be * PAGE);
	assert(vmemt_metrics(region).saved <= may_be);
	assert(vmemt_account(region).pages <= may_be);
	assert(vmemt_right(0, 2 * FITS));
	vmemt_disk_end();
	stream(read, flags, STREAM, 8);
	assert(vmemt_silent_bytes() <= saved_at_most(read, flags) * PAGE);
	/* What was written is there, and so is all else. */
	assert(vmemt_pages_in(0, STREAM < 2 * FITS ? STREAM : 2 * FITS, VMEM_PAGE_STORED) >=
	       2 * FITS / 8);
	assert(vmemt_right(0, 2 * FITS));
	vmemt_disk_end();
}

/* By mapping: nothing that was not written is ever saved, whatever the budget. */
static void silent_swap_writes_mapped(uint64_t flags)
{
	silent_swap_writes(vmemt_disk_map, flags);
	assert(!unsaid);
}

static bool is_writing(void)
{
	struct vmem_store_out_stats s = { .size = sizeof(s) };

	assert(!vmem_manager_get_out_stats(manager, &s));
	return s.writing > 0;
}

/* What is stored goes to the device, but for segments that are not full. Returns the bytes that were written there. */
static uint64_t write_out(void)
{
	struct vmem_store_device_stats s = { .size = sizeof(s) };

	vmem_manager_thread_stop(manager);
	vmem_store_write_out(manager->host.store, 2 * DEVICE_BUDGET);
	for (int turn = 0; turn < 64; turn++) {
		assert(vmem_manager_step(manager, 1000, NULL) >= 0);
		VMEMT_STEP_UNTIL(manager, !is_writing());
	}
	assert(!vmem_manager_get_device_stats(manager, 0, &s));
	assert(!vmem_manager_thread_start(manager));
	return s.written_bytes;
}

static uint64_t bytes_written(disk_read read, uint64_t dirty_every)
{
	static struct vmemt_memory_device device;
	const struct vmemt_disk how = { .budget = DEVICE_BUDGET,
					.pages = 2 * DEVICE_BUDGET / PAGE,
					.device = &device.device };
	uint64_t bytes;

	vmemt_memory_device_init(&device, 64 * MIB, VMEMT_DEVICE_DEPTH);
	stream_on(how, read, VMEMT_SLOW ? how.pages : 2 * how.pages, dirty_every);
	bytes = write_out();
	assert(vmemt_right(0, how.pages));
	vmemt_disk_end();
	assert(atomic_load(&device.closed) && !atomic_load(&device.wrong));
	assert(bytes || !atomic_load(&device.writes));
	return bytes;
}

/* With a swap device nothing of what the disk has goes there; what the guest has written does. */
static void silent_swap_writes_to_a_device(void)
{
	uint64_t silent = bytes_written(vmemt_disk_copy, 0), read, dirty;

	assert(silent > MIB);
	assert(!bytes_written(vmemt_disk_map, 0));
	read = bytes_written(vmemt_disk_read, 0);
	assert(unsaid ? read < silent : !read);
	dirty = bytes_written(vmemt_disk_map, 8);
	printf("bytes written to a device: %llu if nothing is said, %llu if blocks are mapped and an eighth is "
	       "written\n",
	       (unsigned long long)silent, (unsigned long long)dirty);
	fflush(stdout);
	assert(dirty && dirty < silent / 2);
}

/* A block that changes: who had it from the disk keeps what it had, and whoever wrote it need not be saved. */
static void silent_swap_writes_after_write_back(void)
{
	vmemt_disk_make((struct vmemt_disk){ .pages = 64 });
	vmemt_disk_map(0, 100, 16);
	vmemt_disk_map(16, 100, 16);
	vmemt_disk_read(32, 100, 16);
	assert(vmemt_right(0, 8)); /* the others are with the source */
	for (uint64_t i = 0; i < 16; i++)
		vmemt_disk_write(48 + i, 100 + i);
	assert(vmemt_right(0, 64));
	vmemt_all_out();
	assert(vmemt_pages_in(0, 48, VMEM_PAGE_STORED) == 48);
	assert(vmemt_pages_in(48, 16, VMEM_PAGE_SOURCE) == 16);
	assert(!vmemt_silent_bytes());
	assert(vmemt_right(0, 64));
	/* What it writes after is its own, wherever it came from. */
	for (uint64_t i = 0; i < 64; i += 3)
		vmemt_own(i, 1, 3);
	vmemt_all_out();
	assert(vmemt_right(0, 64));
	vmemt_disk_end();
}

/* --- Stale swap reads: a page is loaded only to be overwritten by a read of the disk --- */

static void stale_swap_reads(void)
{
	const uint64_t n = 256;

	vmemt_disk_make((struct vmemt_disk){ .pages = n });
	vmemt_own(0, n, 1);
	vmemt_all_out();
	assert(vmemt_account(region).pages == n);
	vmemt_disk_map(0, 0, n / 2);
	assert(vmemt_account(region).pages == n / 2); /* dropped at once, before it is touched */
	vmemt_disk_read(n / 2, n / 2, n / 2);
	assert(!vmemt_account(region).pages);
	assert(vmemt_right(0, n));
	assert(!vmemt_metrics(region).faults_stored);
	/* The same by a VMM that says nothing: each is loaded. */
	vmemt_own(0, n, 2);
	vmemt_all_out();
	vmemt_own(0, n, 3);
	VMEMT_UNTIL(vmemt_metrics(region).faults_stored == n); /* a moment after */
	vmemt_disk_end();
}

/* --- False swap reads: the guest overwrites a page as a whole, but a word at a time --- */

/* What it has freed before, and told by its balloon or by free page hints, comes as zeros. What it has not is loaded:
 * a processor cannot say that it is going to write all of a page. */
static void false_swap_reads(void)
{
	const uint64_t n = 256;

	vmemt_disk_make((struct vmemt_disk){ .pages = n });
	vmemt_own(0, n, 1);
	vmemt_all_out();
	assert(!vmem_region_discard(region, GPA, n / 2 * PAGE, NULL));
	vmemt_own(0, n / 2, 0); /* the guest zeroes them, */
	vmemt_own(0, n / 2, 2); /* and copies into them */
	assert(!vmemt_metrics(region).faults_stored);
	assert(vmemt_account(region).pages == n / 2);
	vmemt_own(n / 2, n / 2, 2);
	VMEMT_UNTIL(vmemt_metrics(region).faults_stored == n / 2);
	assert(vmemt_right(0, n));
	/* Zeros are in the reference itself: such a load reads nothing. */
	vmemt_own(0, n, 0);
	vmemt_all_out();
	assert(!vmemt_account(region).physical_bytes);
	vmemt_disk_end();
}

/* --- False page anonymity: a host that takes a guest's page cache for anonymous memory keeps the wrong pages --- */

/* A file as large as the budget is read while a set of a quarter of that is in use all the time. The library sees
 * neither what is used in place nor whose pages they are: that they come back soon, or not, is what tells them apart. */
static void false_page_anonymity(disk_read read)
{
	const uint64_t fits = 2 * FITS, hot = fits / 4, blocks = VMEMT_SLOW ? fits / 2 : 2 * fits;
	uint64_t used = 0, kept = 0;
	struct vmem_region_metrics m;

	vmemt_disk_make((struct vmemt_disk){ .budget = 2 * BUDGET, .pages = hot + fits });
	vmemt_own(0, hot, 1);
	for (uint64_t block = 0; block < blocks; block += AT_ONCE) {
		uint64_t page = hot + block % fits;

		read(page, block, AT_ONCE);
		assert(vmemt_right(page, AT_ONCE));
		for (unsigned i = 0; i < 4; i++, used += AT_ONCE) {
			kept += AT_ONCE - vmemt_pages_in(used % hot, AT_ONCE, VMEM_PAGE_STORED);
			assert(vmemt_right(used % hot, AT_ONCE));
			vmemt_own(used % hot, AT_ONCE, 1 + used / hot);
		}
	}
	m = vmemt_metrics(region);
	printf("a hot set was kept to %.1f %%; %llu pages were saved, %llu dropped\n",
	       100.0 * (double)kept / (double)used, (unsigned long long)m.saved,
	       (unsigned long long)m.taken_clean);
	fflush(stdout);
	assert(kept > used / 4);
	vmemt_disk_end();
}

/* --- What is refused --- */

static int no_source(void *context, uint64_t gpa, void *buffer)
{
	(void)context;
	(void)gpa;
	(void)buffer;
	return -VMEM_EIO;
}

static void refused(void)
{
	struct vmem_region_opts o = { .size = sizeof(o), .bytes = 4 * PAGE };
	struct vmem_manager_opts mo = { .size = sizeof(mo), .flags = VMEM_MANAGER_ASYNC_WP };
	uint64_t got = 77;

	manager = vmemt_manager(0);
	assert(!vmem_region_alloc(&region, manager, &o));
	assert(vmem_region_give_to_source(region, 0, PAGE) == -VMEM_EINVAL);
	assert(vmem_region_same_as_source(region, 0, PAGE, &got) == -VMEM_EINVAL);
	assert(!vmem_region_detach(region, VMEM_DETACH_DISCARD));
	o.read_source = no_source;
	assert(!vmem_region_alloc(&region, manager, &o)); /* it is asked once only */
	assert(vmem_region_same_as_source(region, 0, PAGE, &got) == -VMEM_EINVAL);
	assert(!vmem_region_detach(region, VMEM_DETACH_DISCARD));
	o.flags = VMEM_REGION_SOURCE_STAYS;
	assert(!vmem_region_alloc(&region, manager, &o));
	assert(vmem_region_give_to_source(region, 0, 5 * PAGE) == -VMEM_ERANGE);
	assert(vmem_region_same_as_source(region, 4 * PAGE, PAGE, &got) == -VMEM_ERANGE);
	assert(got == 77);
	/* Parts of pages are not meant, nor what is pinned or not there. */
	assert(!vmem_region_give_to_source(region, 1, 2 * PAGE - 2));
	assert(!vmem_region_same_as_source(region, 0, 3 * PAGE, &got) && !got);
	assert(vmemt_state(region, 0) == VMEM_PAGE_ABSENT);
	assert(!vmem_region_pin(region, 0, PAGE));
	assert(vmem_region_give_to_source(region, 0, 2 * PAGE) == -VMEM_EBUSY);
	assert(!vmem_region_same_as_source(region, 0, 2 * PAGE, &got) && !got);
	assert(vmemt_state(region, 0) == VMEM_PAGE_RESIDENT);
	assert(vmemt_state(region, 1) == VMEM_PAGE_SOURCE);
	assert(!vmem_region_unpin(region, 0, PAGE));
	assert(!vmem_region_same_as_source(region, 0, 2 * PAGE, &got) && got == 1);
	vmemt_end(manager, region);
	if (vmem_manager_new(&manager, &mo)) /* this kernel has no such thing */
		return;
	assert(!vmem_region_alloc(&region, manager, &o));
	assert(vmem_region_same_as_source(region, 0, PAGE, &got) == -VMEM_ENOTSUP);
	assert(!vmem_region_give_to_source(region, 0, PAGE));
	assert(vmemt_state(region, 0) == VMEM_PAGE_SOURCE);
	vmemt_end(manager, region);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_SIGBUS | VMEM_KERNEL_MOVE | VMEM_KERNEL_WP |
		   VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_cpu_start(&cpu);
	refused();
	silent_swap_writes_mapped(0);
	silent_swap_writes(vmemt_disk_read, 0);
	silent_swap_writes(vmemt_disk_read, VMEM_REGION_DMA_PINNED);
	silent_swap_writes_after_write_back();
	silent_swap_writes_to_a_device();
	stale_swap_reads();
	false_swap_reads();
	false_page_anonymity(vmemt_disk_map);
	false_page_anonymity(vmemt_disk_read);
	vmemt_cpu_stop(&cpu);
	return 0;
}
