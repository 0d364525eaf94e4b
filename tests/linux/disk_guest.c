/* SPDX-License-Identifier: BSD-2-Clause */
/* See disk_guest.h. */
#include "linux/disk_guest.h"
#include <vmem/manager_device.h>

#define NO_BLOCK UINT64_MAX

struct vmemt_cpu cpu;
vmem_manager *manager;
vmem_region *region;
unsigned char *base;
_Atomic uint64_t source_reads;
uint64_t unsaid;

static _Atomic uint64_t block_of[PAGES_MAX]; /* atomic; as the VMM has mapped them */
static _Atomic uint64_t version_of[BLOCKS];  /* atomic; what the disk has */
static struct {
	uint64_t number, version;
} truth[PAGES_MAX]; /* what the guest has */
static uint64_t pages;

static int read_source(void *context, uint64_t gpa, void *buffer)
{
	uint64_t block = atomic_load(&block_of[(gpa - GPA) / PAGE]);

	assert(context == &region && gpa >= GPA && block < BLOCKS);
	atomic_fetch_add(&source_reads, 1);
	vmemt_make(buffer, DISK + block, atomic_load(&version_of[block]));
	return 0;
}

void vmemt_disk_make(struct vmemt_disk how)
{
	struct vmem_region_opts o = {
		.size = sizeof(o),
		.flags = how.flags | VMEM_REGION_SOURCE_STAYS,
		.gpa = GPA,
		.bytes = how.pages * PAGE,
		.fault_around_pages = how.around ? how.around : 1,
		.fault_deadline_ms = 3600000,
		.context = &region,
		.read_source = read_source,
	};

	assert(how.pages <= PAGES_MAX);
	pages = how.pages;
	memset(truth, 0, sizeof(truth));
	for (uint64_t i = 0; i < pages; i++)
		atomic_store(&block_of[i], NO_BLOCK);
	for (uint64_t i = 0; i < BLOCKS; i++)
		atomic_store(&version_of[i], 1);
	atomic_store(&source_reads, 0);
	unsaid = 0;
	manager = vmemt_manager(how.budget);
	if (how.device)
		assert(!vmem_manager_add_device(manager, how.device, NULL, NULL));
	assert(!vmemt_alloc(&region, manager, &o));
	assert(!vmem_manager_thread_start(manager));
	base = vmem_region_hva(region);
	cpu.region = region;
}

void vmemt_disk_end(void)
{
	assert(!vmemt_metrics(region).lost);
	vmemt_end(manager, region);
}

static void has(uint64_t page, uint64_t number, uint64_t version)
{
	truth[page].number = number;
	truth[page].version = version;
}

/* What the guest has, as far as it is touched at once. */
static uint64_t make_truth(struct vmemt_page *into, uint64_t page, uint64_t count)
{
	count = count < AT_ONCE ? count : AT_ONCE;
	for (uint64_t i = 0; i < count; i++)
		vmemt_make(&into[i], truth[page + i].number, truth[page + i].version);
	return count;
}

static void write_pages(uint64_t page, uint64_t count)
{
	static struct vmemt_page p[AT_ONCE];

	for (uint64_t done = 0, n; done < count; done += n) {
		n = make_truth(p, page + done, count - done);
		assert(!vmemt_touch(&cpu, VMEMT_WRITE, base + (page + done) * PAGE, p, n * PAGE));
	}
}

void vmemt_disk_map(uint64_t page, uint64_t block, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		atomic_store(&block_of[page + i], block + i);
		has(page + i, DISK + block + i, atomic_load(&version_of[block + i]));
	}
	assert(!vmem_region_give_to_source(region, GPA + page * PAGE, count * PAGE));
}

static void say(uint64_t page, uint64_t count)
{
	uint64_t said = 0;

	assert(!vmem_region_same_as_source(region, GPA + page * PAGE, count * PAGE, &said));
	assert(said <= count);
	unsaid += count - said;
}

void vmemt_disk_copy(uint64_t page, uint64_t block, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		has(page + i, DISK + block + i, atomic_load(&version_of[block + i]));
	write_pages(page, count);
}

void vmemt_disk_read(uint64_t page, uint64_t block, uint64_t count)
{
	assert(!vmem_region_will_overwrite(region, GPA + page * PAGE, count * PAGE, NULL));
	vmemt_disk_copy(page, block, count);
	for (uint64_t i = 0; i < count; i++)
		atomic_store(&block_of[page + i], block + i);
	say(page, count);
}

void vmemt_disk_write(uint64_t page, uint64_t block)
{
	/* Nobody may depend on what the block had. */
	for (uint64_t i = 0; i < pages; i++)
		if (atomic_load(&block_of[i]) == block) {
			assert(!vmem_region_resolve(region, GPA + i * PAGE, 1));
			atomic_store(&block_of[i], NO_BLOCK);
		}
	assert(!vmem_region_resolve(region, GPA + page * PAGE, 1));
	atomic_fetch_add(&version_of[block], 1);
	has(page, DISK + block, atomic_load(&version_of[block]));
	write_pages(page, 1);
	atomic_store(&block_of[page], block);
	say(page, 1);
}

void vmemt_own(uint64_t page, uint64_t count, uint64_t version)
{
	for (uint64_t i = page; i < page + count; i++)
		has(i, i, version);
	write_pages(page, count);
}

bool vmemt_right(uint64_t page, uint64_t count)
{
	static struct vmemt_page got[AT_ONCE], want[AT_ONCE];
	bool right = true;

	for (uint64_t done = 0, n; done < count; done += n) {
		n = make_truth(want, page + done, count - done);
		assert(!vmemt_touch(&cpu, VMEMT_READ, base + (page + done) * PAGE, got, n * PAGE));
		right &= !memcmp(got, want, n * PAGE);
	}
	return right;
}

void vmemt_all_out(void)
{
	uint64_t left;

	/* The kernel may refuse to move a page now and then. */
	VMEMT_UNTIL(!vmem_region_evict_all(region, &left) && !left);
}

/* Whether a page is in the store or about to be. What is clean by its ref has its bytes there, too. */
static bool is_saved(uint64_t page)
{
	uint64_t word = vmemi_region_word(region, page);

	switch (vmemi_page_state(word)) {
	case VMEM_PAGE_STAGED:
	case VMEM_PAGE_STORING:
	case VMEM_PAGE_STORED: return true;
	default: return vmemi_page_state(word) == VMEM_PAGE_CLEAN && vmemi_page_ref(word);
	}
}

uint64_t vmemt_silent_bytes(void)
{
	struct vmemt_page got, want;
	uint64_t bytes = 0;

	for (uint64_t i = 0; i < pages; i++) {
		uint64_t block = truth[i].number - DISK;

		if (truth[i].number < DISK || !is_saved(i) ||
		    atomic_load(&version_of[block]) != truth[i].version)
			continue;
		assert(!vmem_region_read(region, GPA + i * PAGE, &got, PAGE));
		vmemt_make(&want, truth[i].number, truth[i].version);
		bytes += memcmp(&got, &want, PAGE) ? 0 : PAGE;
	}
	return bytes;
}

uint64_t vmemt_pages_in(uint64_t first, uint64_t count, enum vmem_page_state state)
{
	uint64_t n = 0;

	for (uint64_t i = first; i < first + count; i++)
		n += vmemt_state(region, i) == state;
	return n;
}
