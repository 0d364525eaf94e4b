/* SPDX-License-Identifier: BSD-2-Clause */
/* A store on files to which something really happens: a file system that is full, a file that somebody truncates, or
 * truncates and lets grow again, blocks that change behind the device's back, mapped or not. What is gone is an error, and nothing
 * else is: the rest stays in memory or goes to another device. */
#define _GNU_SOURCE
#include <assert.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>
#include <vmem/device_file.h>
#include "store/fault_store.h"
#include "support/small_fs.h"

#define BLOCK 4096u
#define DEVICE_BYTES (32 * VMEMT_MIB)

static char folder[] = "/tmp/vmem-faults-XXXXXX";
static char named[sizeof(folder) + 8];
static char small[sizeof(folder) + 8];
static struct vmemt_fault_store f;

/* How devices work, in turn. */
static const uint64_t ways[] = { 0, VMEM_DEVICE_FILE_CACHED, VMEM_DEVICE_FILE_THREADS };

static uint32_t add_file(const char *path, uint64_t flags, int32_t priority)
{
	const struct vmem_device_file_opts opts = { .size = sizeof(opts),
						    .flags = flags | VMEM_DEVICE_FILE_CREATE,
						    .size_bytes = DEVICE_BYTES };
	struct vmem_device *device;

	assert(!vmem_device_file_open(&device, path, &opts));
	return vmemt_fault_add(&f, device, priority);
}

static void open_with_file(uint64_t flags)
{
	vmemt_fault_open(&f);
	(void)add_file(named, flags, 0);
	assert(vmemt_fault_fill(&f) == VMEMT_FAULT_PAGES);
	assert(vmemt_fault_out(&f).segments > 8);
}

static void close_with_file(void)
{
	vmemt_fault_close(&f);
	assert(!unlink(named));
}

/* --- A file that is cut off --- */

static enum vmemt_fate gone_behind(const struct vmemt_place *place, void *context)
{
	uint64_t cut = *(uint64_t *)context;

	return place->device || place->block_end <= cut ? VMEMT_THERE : VMEMT_LOST;
}

/* In the middle of what is written, and not in that of a block or a segment. */
static uint64_t cut_place(void)
{
	uint64_t half = vmemt_fault_device(&f, 0).taken_bytes / 2;

	return half / VMEM_POOL_SEGMENT_BYTES * VMEM_POOL_SEGMENT_BYTES + 7 * BLOCK + 100;
}

/* What was lost is saved again, and whatever else comes. */
static void save_again(uint64_t cut)
{
	for (uint32_t i = 0; i < VMEMT_FAULT_PAGES; i++) {
		struct vmemt_place place;

		if (vmemt_fault_where(&f, i, &place) && gone_behind(&place, &cut) == VMEMT_LOST)
			vmemt_fault_drop(&f, i);
	}
	(void)vmemt_fault_fill(&f);
}

static void truncated(uint64_t flags)
{
	uint64_t cut;
	uint32_t second;

	open_with_file(flags);
	cut = cut_place();
	assert(!truncate(named, (off_t)cut));
	assert(vmemt_fault_check(&f, gone_behind, &cut) > VMEMT_FAULT_PAGES / 8);
	/* Growing does not bring it back. */
	assert(!truncate(named, (off_t)DEVICE_BYTES));
	assert(vmemt_fault_check(&f, gone_behind, &cut) > VMEMT_FAULT_PAGES / 8);
	save_again(cut);
	assert(vmemt_fault_device(&f, 0).write_errors);
	vmemt_fault_check_all(&f);
	second = add_file(folder, flags, -1);
	assert(vmemt_fault_fill(&f) == VMEMT_FAULT_PAGES);
	assert(vmemt_fault_device(&f, second).written_bytes);
	vmemt_fault_check_all(&f);
	close_with_file();
}

/* Nobody was told, and zeros can be read where the pages were. */
static void cut_and_grown(uint64_t flags)
{
	uint64_t cut;

	open_with_file(flags);
	cut = cut_place() / BLOCK * BLOCK;
	assert(!truncate(named, (off_t)cut) && !truncate(named, (off_t)DEVICE_BYTES));
	assert(vmemt_fault_check(&f, gone_behind, &cut) > VMEMT_FAULT_PAGES / 8);
	save_again(cut);
	vmemt_fault_check_all(&f);
	close_with_file();
}

static void cut_to_nothing(void)
{
	uint64_t cut = 0;

	open_with_file(0);
	assert(!truncate(named, 0));
	assert(vmemt_fault_check(&f, gone_behind, &cut) > VMEMT_FAULT_PAGES / 4);
	close_with_file();
}

/* --- Blocks that change --- */

static enum vmemt_fate gone_in(const struct vmemt_place *place, void *context)
{
	uint64_t begin = *(uint64_t *)context;

	if (place->end <= begin || place->begin >= begin + BLOCK)
		return VMEMT_THERE;
	return place->is_text ? VMEMT_EITHER : VMEMT_LOST;
}

static void flip(uint64_t offset)
{
	unsigned char block[BLOCK];
	int fd = open(named, O_RDWR | O_CLOEXEC);

	assert(fd >= 0 && pread(fd, block, BLOCK, (off_t)offset) == BLOCK);
	for (uint32_t i = 0; i < BLOCK; i++)
		block[i] ^= 0x5a;
	assert(pwrite(fd, block, BLOCK, (off_t)offset) == BLOCK && !fsync(fd));
	close(fd);
}

static void corrupted(uint64_t flags)
{
	uint64_t begin;

	open_with_file(flags);
	begin = cut_place() / BLOCK * BLOCK;
	flip(begin);
	/* Pages are about as long as a block. */
	assert(vmemt_fault_check(&f, gone_in, &begin));
	flip(begin);
	vmemt_fault_check_all(&f);
	close_with_file();
}

/* --- A file that is mapped --- */

/* Nobody can cut it off; but it can be written to, by whoever has it. */
static void mapped(void)
{
	const struct vmem_device_file_opts opts = { .size = sizeof(opts),
						    .flags = VMEM_DEVICE_FILE_MAPPED,
						    .size_bytes = DEVICE_BYTES };
	int fd = memfd_create("store-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	unsigned char *bytes;
	struct vmem_device *device;
	uint64_t begin;

	assert(fd >= 0 && !vmem_device_file_adopt(&device, fd, &opts));
	vmemt_fault_open(&f);
	(void)vmemt_fault_add(&f, device, 0);
	assert(vmemt_fault_fill(&f) == VMEMT_FAULT_PAGES && vmemt_fault_out(&f).segments > 8);
	assert(ftruncate(fd, 0) < 0);
	vmemt_fault_check_all(&f);
	assert(vmemt_fault_device(&f, 0).read_bytes);
	begin = cut_place() / BLOCK * BLOCK;
	bytes = mmap(NULL, DEVICE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert(bytes != MAP_FAILED);
	for (uint32_t i = 0; i < BLOCK; i++)
		bytes[begin + i] ^= 0x5a;
	assert(vmemt_fault_check(&f, gone_in, &begin));
	/* Bytes of zero, where there were others. */
	assert(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)begin, BLOCK));
	assert(vmemt_fault_check(&f, gone_in, &begin));
	assert(!munmap(bytes, DEVICE_BYTES));
	vmemt_fault_close(&f);
	close(fd);
}

/* --- A file system that is full --- */

/* The device says it has 32 MiB; 2 are there. */
static void full(uint64_t flags)
{
	uint32_t second, saved;
	uint64_t written;

	assert(!mount("store-test", small, "tmpfs", MS_REMOUNT, "size=2m"));
	vmemt_fault_open(&f);
	(void)add_file(small, flags, 1);
	saved = vmemt_fault_fill(&f);
	/* More than without a device, and not all. */
	assert(saved * UINT64_C(4096) > VMEMT_FAULT_BUDGET && saved < VMEMT_FAULT_PAGES);
	assert(vmemt_fault_out(&f).segments);
	assert(vmemt_fault_device(&f, 0).write_errors && !vmemt_fault_device(&f, 0).is_bad);
	vmemt_fault_check_all(&f);

	second = add_file(folder, flags, 0);
	assert(vmemt_fault_fill(&f) == VMEMT_FAULT_PAGES);
	assert(vmemt_fault_device(&f, second).written_bytes);
	vmemt_fault_check_all(&f);

	/* Room that is made is used, when the place on the other device that was begun is full. */
	written = vmemt_fault_device(&f, 0).written_bytes;
	assert(!mount("store-test", small, "tmpfs", MS_REMOUNT, "size=64m"));
	for (uint32_t i = 0; i < VMEMT_FAULT_PAGES; i++)
		vmemt_fault_drop(&f, i);
	assert(vmemt_fault_fill(&f) == VMEMT_FAULT_PAGES);
	assert(vmemt_fault_device(&f, 0).written_bytes > written);
	vmemt_fault_check_all(&f);
	vmemt_fault_close(&f);
}

int main(void)
{
	int error;

	assert(mkdtemp(folder));
	snprintf(named, sizeof(named), "%s/swap", folder);
	snprintf(small, sizeof(small), "%s/small", folder);
	error = vmemt_small_fs_begin(small, "size=2m");
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		truncated(ways[i]);
		cut_and_grown(ways[i]);
		corrupted(ways[i]);
		if (!error)
			full(ways[i]);
	}
	cut_to_nothing();
	mapped();
	vmemt_small_fs_end(small, error);
	assert(!rmdir(folder));
	return vmemt_small_fs_status(error);
}
