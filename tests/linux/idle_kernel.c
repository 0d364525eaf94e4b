/* SPDX-License-Identifier: BSD-2-Clause */
/* See idle_kernel.h. */
#include "linux/idle_kernel.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "linux/kernel/uffd_abi.h"

#define PAGE VMEM_PAGE_SIZE
#define OTHERS 7 /* the frame of all memory that is not the region's */

struct vmemt_idle_kernel vmemt_idle_kernel;

static struct vmemt_idle_kernel *const fake = &vmemt_idle_kernel;

static uint64_t told_time(void)
{
	return fake->now += fake->step;
}

static int fake_open(const char *path, int flags)
{
	int fd;

	if (!strcmp(path, "/sys/kernel/mm/page_idle/bitmap")) {
		assert((flags & O_ACCMODE) == O_RDWR);
		if (fake->is.absent || fake->is.forbidden)
			return fake->is.absent ? -VMEM_ENOENT : -VMEM_EPERM;
		fd = vmemi_kernel_linux.open("/dev/null", O_RDWR | O_CLOEXEC);
		assert(fd >= 0 && fd < 1024);
		fake->is_bitmap[fd] = true;
		return fd;
	}
	fd = vmemi_kernel_linux.open(path, flags);
	if (fd >= 0 && !strcmp(path, "/proc/self/pagemap")) {
		assert(fd < 1024);
		fake->is_pagemap[fd] = true;
	}
	return fd;
}

static int fake_close(int fd)
{
	fake->is_bitmap[fd] = fake->is_pagemap[fd] = false;
	return vmemi_kernel_linux.close(fd);
}

static bool is_ours(uint64_t address)
{
	return fake->base && address >= (uintptr_t)fake->base &&
	       address < (uintptr_t)fake->base + fake->pages * PAGE;
}

/* What is there is so; in which frame is told. */
static ssize_t pagemap_read(int fd, uint64_t *words, size_t bytes, off_t offset)
{
	ssize_t r = vmemi_kernel_linux.pread(fd, words, bytes, offset);

	fake->pagemap_reads++;
	if (fake->is.pagemap_error)
		return fake->is.pagemap_error;
	for (ssize_t i = 0; i < r / 8; i++) {
		uint64_t address = ((uint64_t)offset / 8 + (uint64_t)i) * PAGE, is_at = OTHERS;

		if (!(words[i] >> 62))
			continue;
		if (!(words[i] >> 63)) /* swapped: as if it were not */
			words[i] = UINT64_C(1) << 56;
		if (is_ours(address))
			is_at = fake->frame_of[(address - (uintptr_t)fake->base) / PAGE];
		words[i] &= ~((UINT64_C(1) << 55) - 1);
		words[i] |= UINT64_C(1) << 63;
		words[i] |= fake->is.hidden ? 0 : is_at;
	}
	return r;
}

/* How many bytes a call is for: none beyond the end, and no more than a page. */
static ssize_t size_of(size_t bytes, off_t offset)
{
	uint64_t end = (fake->end_of_bitmap + 63) / 64 * 8;

	if (offset % 8 || bytes % 8 || !bytes) {
		fake->bad_calls++;
		return -VMEM_EINVAL;
	}
	if ((uint64_t)offset >= end)
		return 0;
	bytes = bytes > PAGE ? PAGE : bytes;
	return (ssize_t)(bytes < end - (uint64_t)offset ? bytes : end - (uint64_t)offset);
}

/* Accesses that the page tables know of are taken from there. */
static void clear_references(struct vmemt_frame *f)
{
	if (f->young)
		f->idle = f->young = false;
}

static ssize_t bitmap_read(uint64_t *words, size_t bytes, off_t offset)
{
	ssize_t r = size_of(bytes, offset);

	if (fake->reads++ >= fake->is.read_fails_after && fake->is.read_error)
		return fake->is.read_error;
	for (ssize_t i = 0; i < r / 8; i++) {
		words[i] = 0;
		for (unsigned bit = 0; bit < 64; bit++) {
			struct vmemt_frame *f =
				&fake->frame[((uint64_t)offset / 8 + (uint64_t)i) * 64 + bit];

			if (f->no_lru || !f->idle)
				continue;
			clear_references(f);
			words[i] |= (uint64_t)f->idle << bit;
		}
	}
	return r;
}

static ssize_t bitmap_write(const uint64_t *words, size_t bytes, off_t offset)
{
	ssize_t r = size_of(bytes, offset);

	fake->writes++;
	if (fake->is.write_error)
		return fake->is.write_error;
	if (!r)
		return -ENXIO;
	for (ssize_t i = 0; i < r / 8; i++)
		for (unsigned bit = 0; bit < 64; bit++) {
			struct vmemt_frame *f =
				&fake->frame[((uint64_t)offset / 8 + (uint64_t)i) * 64 + bit];

			if (!(words[i] >> bit & 1))
				continue;
			f->marked = true;
			if (f->no_lru)
				continue;
			clear_references(f);
			f->idle = true;
		}
	return r;
}

static ssize_t fake_pread(int fd, void *buffer, size_t bytes, off_t offset)
{
	if (fake->is_bitmap[fd])
		return bitmap_read(buffer, bytes, offset);
	if (fake->is_pagemap[fd])
		return pagemap_read(fd, buffer, bytes, offset);
	return vmemi_kernel_linux.pread(fd, buffer, bytes, offset);
}

static ssize_t fake_pwrite(int fd, const void *buffer, size_t bytes, off_t offset)
{
	if (fake->is_bitmap[fd])
		return bitmap_write(buffer, bytes, offset);
	return vmemi_kernel_linux.pwrite(fd, buffer, bytes, offset);
}

/* PAGEMAP_SCAN for what is huge. */
static int fake_ioctl(int fd, unsigned long request, void *argument)
{
	struct vmemi_pm_scan *scan = argument;
	struct vmemi_page_region *run;

	if (request != VMEMI_PAGEMAP_SCAN || !fake->is_pagemap[fd] ||
	    scan->category_mask != VMEMI_PAGE_IS_HUGE)
		return vmemi_kernel_linux.ioctl(fd, request, argument);
	scan->walk_end = scan->end;
	if (fake->huge_at == UINT64_MAX ||
	    scan->start != (uintptr_t)fake->base + fake->huge_at * PAGE)
		return 0;
	run = (struct vmemi_page_region *)(uintptr_t)scan->vec;
	run->start = scan->start;
	run->end = scan->end;
	return 1;
}

const struct vmemi_kernel *vmemt_idle_kernel_new(void)
{
	static struct vmemi_kernel table;

	table = vmemi_kernel_linux;
	table.open = fake_open;
	table.close = fake_close;
	table.pread = fake_pread;
	table.pwrite = fake_pwrite;
	table.ioctl = fake_ioctl;
	table.clock_ns = told_time;
	memset(fake->frame, 0, sizeof(fake->frame));
	fake->base = NULL;
	fake->step = 0;
	fake->now = UINT64_C(1000000000);
	fake->end_of_bitmap = VMEMT_FRAMES;
	fake->huge_at = UINT64_MAX;
	fake->reads = fake->writes = fake->pagemap_reads = 0;
	return &table;
}

unsigned vmemt_idle_kernel_files(void)
{
	unsigned n = 0;

	for (unsigned fd = 0; fd < 1024; fd++)
		n += fake->is_bitmap[fd] || fake->is_pagemap[fd];
	return n;
}
