/* SPDX-License-Identifier: BSD-2-Clause */
/* Guest memory in a file: what the file holds at each step, what others have done to it before it was attached,
 * and what happens if somebody changes it past the library. */
#define _GNU_SOURCE
#include "linux/failing_kernel.h"
#include "linux/guest.h"
#include "linux/kernel/uffd_abi.h"
#include <fcntl.h>
#include <linux/memfd.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE VMEM_PAGE_SIZE
#define PAGES 64
#define BYTES (PAGES * PAGE)
#define FLAGS (VMEM_REGION_FILE | VMEM_REGION_DMA_PINNED)

static struct vmemt_cpu cpu;
static vmem_manager *manager;
static vmem_region *region;
static unsigned char *base;
static int fd;

/* Pages that the file holds. */
static uint64_t blocks(void)
{
	struct stat s;

	assert(!fstat(fd, &s));
	return (uint64_t)s.st_blocks / (PAGE / 512);
}

static void make_with(uint64_t flags)
{
	vmemt_kernel_reset();
	assert(!vmemi_manager_new(&manager, NULL, &vmemt_kernel_table));
	assert(!vmem_manager_thread_start(manager));
	cpu.region = region = vmemt_region(manager, 0, PAGES, flags);
	base = vmem_region_hva(region);
	fd = vmem_region_file(region);
	assert(fd >= 0);
}

static void put_all(uint64_t version)
{
	for (uint64_t i = 0; i < PAGES; i++)
		vmemt_put(&cpu, base, i, version);
}

static void expect_all(uint64_t version)
{
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_is(&cpu, base, i, version));
}

/* Nobody but reclaim frees what is not needed: it is done when no page has a copy any more. */
static void expect_frames(uint64_t pages)
{
	VMEMT_UNTIL(!vmemt_metrics(region).staging_copies);
	assert(blocks() == pages);
	assert(vmemt_manager_metrics(manager).resident_bytes +
		       vmemt_manager_metrics(manager).staging_bytes ==
	       pages * PAGE);
}

/* The budget counts what the file holds, wherever a page is. */
static void frames_are_the_files(void)
{
	struct vmem_region_metrics m;
	uint64_t released;

	make_with(FLAGS);
	assert(!blocks());
	put_all(1);
	expect_frames(PAGES);
	vmemt_stage(region, 0, 32);
	assert(vmemt_manager_metrics(manager).staging_bytes == 32 * PAGE);
	expect_frames(PAGES); /* unmapped, but not freed */
	assert(!vmemt_mapped(base));
	assert(!vmem_region_store(region, 0, 32 * PAGE, NULL));
	expect_frames(PAGES - 32);
	m = vmemt_metrics(region);
	assert(m.taken_unmapped == 32 && !m.taken_run && !m.taken_scattered && m.saved == 32);
	expect_all(1);
	expect_frames(PAGES);

	/* Clean pages leave without being saved again. */
	vmemt_stage(region, 0, 16);
	expect_frames(PAGES - 16);
	assert(vmemt_metrics(region).taken_clean == 16 && vmemt_metrics(region).saved == 32);
	expect_all(1);

	/* A discard gives the blocks back, from any state, and says how many. */
	vmemt_stage(region, 32, 16);
	assert(!vmem_region_store(region, 32 * PAGE, 8 * PAGE, NULL));
	expect_frames(PAGES - 8);
	assert(!vmem_region_discard(region, 0, BYTES, &released));
	assert(released >= (PAGES - 8) * PAGE);
	expect_frames(0);
	expect_all(0);
	expect_frames(PAGES); /* a read of a file in memory takes a page of it */
	vmemt_end(manager, region);
}

/* Staging costs no copy: the page comes back as the frame it was. */
static void comes_back_in_its_frame(void)
{
	make_with(FLAGS);
	put_all(1);
	vmemt_stage(region, 0, PAGES);
	for (uint64_t i = 0; i < PAGES; i += 2)
		vmemt_put(&cpu, base, i, 2);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_is(&cpu, base, i, i % 2 ? 1 : 2));
	assert(vmemt_metrics(region).faults_staged == PAGES);
	assert(vmemt_kernel.calls[VMEMT_K_CONTINUE] >= PAGES);
	assert(!vmemt_kernel.calls[VMEMT_K_COPY] && !vmemt_kernel.calls[VMEMT_K_MOVE]);
	assert(!vmemt_metrics(region).staging_copies);
	expect_frames(PAGES);
	vmemt_end(manager, region);
}

/* Without it nothing may be taken out: nobody knows who holds a page of a file. */
static void dma_must_be_pinned(void)
{
	make_with(VMEM_REGION_FILE);
	put_all(1);
	assert(vmem_region_stage(region, 0, BYTES, NULL) == -VMEM_ENOTSUP);
	assert(!vmem_region_discard(region, 0, BYTES / 2, NULL));
	expect_frames(PAGES / 2);
	vmemt_end(manager, region);
}

static struct vmem_region_opts opts_of(void *memory, uint64_t offset)
{
	return (struct vmem_region_opts){
		.size = sizeof(struct vmem_region_opts),
		.flags = FLAGS,
		.hva = memory,
		.bytes = BYTES,
		.fault_around_pages = 1,
		.file_fd = fd,
		.file_offset = offset,
	};
}

/* A file with something in it before, elsewhere in a larger one; and given back. */
static void attached(uint32_t how)
{
	struct vmem_region_opts o;
	struct vmemt_page p;
	unsigned char *memory;

	fd = memfd_create("guest", MFD_CLOEXEC);
	assert(fd >= 0 && !ftruncate(fd, 4 * BYTES));
	memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, BYTES);
	assert(memory != MAP_FAILED);
	for (uint64_t i = 0; i < PAGES; i += 2) { /* half of it by write(), half by touching */
		vmemt_make(&p, i, 1);
		if (i % 4)
			memcpy(memory + i * PAGE, &p, PAGE);
		else
			assert(pwrite(fd, &p, PAGE, (off_t)(BYTES + i * PAGE)) == PAGE);
	}
	assert(pwrite(fd, &p, PAGE, 0) == PAGE);       /* not of the region */
	assert(!fallocate(fd, 0, BYTES + PAGE, PAGE)); /* room that was never written */
	assert(blocks() == PAGES / 2 + 2);
	manager = vmemt_manager(0);
	assert(!vmem_manager_thread_start(manager));
	o = opts_of(memory, BYTES);
	assert(!vmem_region_attach(&region, manager, &o));
	cpu.region = region;
	base = memory;
	assert(vmem_region_file(region) >= 0 && vmem_region_file(region) != fd);
	assert(blocks() == PAGES / 2 + 1); /* that is free now, as the budget has it */
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_state(region, i) == (i % 2 ? VMEM_PAGE_ABSENT : VMEM_PAGE_RESIDENT));
	assert(vmemt_manager_metrics(manager).resident_bytes == BYTES / 2);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_is(&cpu, base, i, i % 2 ? 0 : 1));
	assert(vmemt_metrics(region).faults_mapped >= PAGES / 4); /* what nobody had touched here */
	vmemt_store(region, 0, 16);
	vmemt_stage(region, 16, 16);
	assert(!vmem_region_detach(region, how));
	cpu.region = NULL;
	vmem_manager_thread_stop(manager);
	if (how == VMEM_DETACH_RESTORE) {
		for (uint64_t i = 0; i < PAGES; i++)
			assert(vmemt_is(&cpu, base, i, i % 2 ? 0 : 1));
		put_all(2);
		assert(blocks() == PAGES + 1);
	} else {
		uint64_t word;

		assert(vmemt_touch(&cpu, VMEMT_READ, base, &word, 8) == SIGSEGV);
		assert(blocks() == 1);
	}
	assert(!vmemt_manager_metrics(manager).resident_bytes);
	assert(!vmem_manager_free(manager));
	munmap(memory, BYTES);
	close(fd);
}

/* What is given must be what is mapped. */
static void refused(void)
{
	unsigned char *memory, *other;
	struct vmem_region_opts o;
	vmem_region *r = NULL;
	int given;

	fd = memfd_create("guest", MFD_CLOEXEC);
	given = memfd_create("other", MFD_CLOEXEC);
	assert(fd >= 0 && !ftruncate(fd, 2 * BYTES) && given >= 0 && !ftruncate(given, 2 * BYTES));
	memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	other = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, BYTES / 2);
	manager = vmemt_manager(0);
#define REFUSE(error)                                                         \
	do {                                                                  \
		assert(vmem_region_attach(&r, manager, &o) == (error) && !r); \
	} while (0)
	o = opts_of(memory, PAGE);
	REFUSE(-VMEM_EINVAL); /* another place of it */
	o = opts_of(memory, 8);
	REFUSE(-VMEM_EINVAL);
	o = opts_of(memory, 2 * BYTES);
	REFUSE(-VMEM_EINVAL); /* past its end */
	o = opts_of(memory, 0);
	o.file_fd = given;
	REFUSE(-VMEM_EINVAL); /* another file */
	o.file_fd = -1;
	REFUSE(-VMEM_EINVAL);
	o = opts_of(memory, 0);
	o.flags = 0;
	REFUSE(-VMEM_ENOTSUP); /* not said that it is a file */
	o = opts_of(memory, 0);
	assert(!vmem_region_attach(&region, manager, &o));
	o = opts_of(other, BYTES / 2);
	REFUSE(-VMEM_EEXIST); /* half of it is attached */
	assert(!vmem_region_detach(region, VMEM_DETACH_RESTORE));
	o = opts_of(other, BYTES / 2);
	assert(!vmem_region_attach(&region, manager, &o));
	assert(!vmem_region_detach(region, VMEM_DETACH_RESTORE));
	assert(!vmem_manager_free(manager));
	munmap(memory, BYTES);
	munmap(other, BYTES);
	close(fd);
	close(given);
}

/* Somebody read a hole through a mapping of his own, and so filled it with zeros: they are not served. */
static void hole_was_filled(void)
{
	unsigned char *stray;

	make_with(FLAGS);
	put_all(1);
	vmemt_store(region, 0, PAGES);
	expect_frames(0);
	stray = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, fd, 0);
	assert(stray != MAP_FAILED);
	for (uint64_t i = 0; i < PAGES; i++)
		assert(!stray[i * PAGE]);
	assert(blocks() == PAGES);
	expect_all(1);
	munmap(stray, BYTES);
	vmemt_end(manager, region);
}

/* Somebody punched holes: what was only there is lost, and said so; what the store has is not. */
static void hole_was_punched(void)
{
	uint64_t word = 77;

	make_with(FLAGS);
	vmemt_catch_signals(manager);
	put_all(1);
	vmemt_stage(region, 0, 2);
	vmemt_store(region, 2, 1);
	assert(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4 * PAGE));
	for (uint64_t i = 0; i < 4; i++) {
		if (i == 2)
			continue;
		assert(vmemt_touch(&cpu, VMEMT_READ, base + i * PAGE, &word, 8) == SIGBUS);
		assert(word == 77 && cpu.answer == -VMEM_EIO);
		assert(vmemt_state(region, i) == VMEM_PAGE_POISONED);
	}
	assert(vmemt_is(&cpu, base, 2, 1));
	assert(vmemt_metrics(region).lost == 3);
	assert(!vmem_region_discard(region, 0, 4 * PAGE, NULL));
	for (uint64_t i = 0; i < PAGES; i++)
		assert(vmemt_is(&cpu, base, i, i >= 4));
	vmemt_end(manager, region);
	vmemt_catch_signals(NULL);
}

/* The file cannot shrink, or grow, under a region that made it. */
static void sealed(void)
{
	make_with(FLAGS);
	assert(ftruncate(fd, PAGE) && ftruncate(fd, 2 * BYTES));
	vmemt_end(manager, region);
}

/* A kernel without minor faults of memory in files refuses the region, and nothing is left of it. */
static void older_kernel(void)
{
	struct vmem_region_opts o = { .size = sizeof(o), .flags = FLAGS, .bytes = BYTES };

	vmemt_kernel_reset();
	vmemt_kernel.hide = VMEMI_UFFD_FEATURE_MINOR_SHMEM;
	assert(!vmemi_manager_new(&manager, NULL, &vmemt_kernel_table));
	assert(!(vmemt_manager_metrics(manager).kernel_features & VMEM_KERNEL_FILES));
	region = NULL;
	assert(vmem_region_alloc(&region, manager, &o) == -VMEM_ENOTSUP && !region);
	assert(!vmem_manager_free(manager));
	assert(!vmemt_kernel.mapped_bytes);
}

int main(void)
{
	vmemt_need(VMEM_KERNEL_FILES | VMEM_KERNEL_POISON | VMEM_KERNEL_KERNEL_FAULTS);
	vmemt_cpu_start(&cpu);
	frames_are_the_files();
	comes_back_in_its_frame();
	dma_must_be_pinned();
	vmemt_catch_signals(NULL);
	attached(VMEM_DETACH_RESTORE);
	attached(VMEM_DETACH_DISCARD);
	refused();
	hole_was_filled();
	hole_was_punched();
	sealed();
	older_kernel();
	vmemt_cpu_stop(&cpu);
	return 0;
}
