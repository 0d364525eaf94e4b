/* SPDX-License-Identifier: BSD-2-Clause */
/* Scanning the page tables: see pagemap.h. The numbers are those of linux/fs.h, 6.7. */
#include "linux/kernel/pagemap.h"
#include "linux/kernel/uffd_abi.h"
#include <fcntl.h>

#define RUNS 256 /* told by one call */
#define HUGE_BYTES (UINT64_C(2) << 20)

int vmemi_pagemap_open(const struct vmemi_kernel *k)
{
	int fd = k->open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), r;
	struct vmemi_pm_scan scan = {
		.size = sizeof(scan),
		.start = (uintptr_t)&scan & ~(uint64_t)(VMEM_PAGE_SIZE - 1),
		.category_mask = VMEMI_PAGE_IS_PRESENT,
		.return_mask = VMEMI_PAGE_IS_PRESENT,
	};

	if (fd < 0)
		return -VMEM_EIO;
	scan.end = scan.start + VMEM_PAGE_SIZE;
	r = k->ioctl(fd, VMEMI_PAGEMAP_SCAN, &scan); /* it asks nothing: whether it is there */
	if (r >= 0)
		return fd;
	k->close(fd);
	return -VMEM_ENOTSUP;
}

static void set(uint64_t *bitmap, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++)
		bitmap[page / 64] |= UINT64_C(1) << page % 64;
}

int vmemi_pagemap_take_written(const struct vmemi_kernel *k, int fd, uintptr_t start,
			       uint64_t pages, uint64_t *bitmap)
{
	struct vmemi_page_region runs[RUNS];
	uint64_t end = start + pages * VMEM_PAGE_SIZE, at = start;

	while (at < end) {
		/* Present too: what is not there would be protected for when it comes. */
		struct vmemi_pm_scan scan = {
			.size = sizeof(scan),
			.flags = VMEMI_PM_SCAN_WP_MATCHING | VMEMI_PM_SCAN_CHECK_WPASYNC,
			.start = at,
			.end = end,
			.vec = (uintptr_t)runs,
			.vec_len = RUNS,
			.category_mask = VMEMI_PAGE_IS_WRITTEN | VMEMI_PAGE_IS_PRESENT,
			.return_mask = VMEMI_PAGE_IS_WRITTEN,
		};
		int count = k->ioctl(fd, VMEMI_PAGEMAP_SCAN, &scan);

		if (count < 0)
			return count;
		for (int i = 0; i < count; i++)
			set(bitmap, (runs[i].start - start) / VMEM_PAGE_SIZE,
			    (runs[i].end - start) / VMEM_PAGE_SIZE);
		if (scan.walk_end <= at)
			return -VMEM_EIO;
		at = scan.walk_end;
	}
	return 0;
}

static int count_by_scan(const struct vmemi_kernel *k, int fd, uint64_t at, uint64_t end,
			 uint64_t *bytes)
{
	struct vmemi_page_region runs[RUNS];

	while (at < end) {
		struct vmemi_pm_scan scan = {
			.size = sizeof(scan),
			.start = at,
			.end = end,
			.vec = (uintptr_t)runs,
			.vec_len = RUNS,
			.category_inverted = VMEMI_PAGE_IS_PFNZERO | VMEMI_PAGE_IS_FILE,
			.category_mask = VMEMI_PAGE_IS_PFNZERO | VMEMI_PAGE_IS_FILE,
			.category_anyof_mask = VMEMI_PAGE_IS_PRESENT | VMEMI_PAGE_IS_SWAPPED,
			.return_mask = VMEMI_PAGE_IS_PRESENT,
		};
		int count = k->ioctl(fd, VMEMI_PAGEMAP_SCAN, &scan);

		if (count < 0 || scan.walk_end <= at)
			return -VMEM_EIO;
		for (int i = 0; i < count; i++)
			*bytes += runs[i].end - runs[i].start;
		at = scan.walk_end;
	}
	return 0;
}

/* Bit 63: present, 62: swapped, 61: a file's. The page of zeros looks like any other. */
static int count_by_entries(const struct vmemi_kernel *k, int fd, uint64_t page, uint64_t end,
			    uint64_t *bytes)
{
	uint64_t entries[512];

	while (page < end) {
		uint64_t n = end - page < 512 ? end - page : 512;
		ssize_t got = k->pread(fd, entries, n * 8, (off_t)(page * 8));

		if (got < 8)
			return -VMEM_EIO;
		for (uint64_t i = 0; i < (uint64_t)got / 8; i++, page++)
			*bytes += entries[i] >> 62 && !(entries[i] >> 61 & 1) ? VMEM_PAGE_SIZE : 0;
	}
	return 0;
}

int vmemi_pagemap_count(const struct vmemi_kernel *k, int fd, bool scan, uintptr_t start,
			uint64_t bytes, uint64_t *ret_bytes)
{
	*ret_bytes = 0;
	if (scan)
		return count_by_scan(k, fd, start, start + bytes, ret_bytes);
	return fd < 0 ? -VMEM_EIO
		      : count_by_entries(k, fd, start / VMEM_PAGE_SIZE,
					 (start + bytes) / VMEM_PAGE_SIZE, ret_bytes);
}

static bool all_is(const struct vmemi_kernel *k, int fd, uintptr_t start, uint64_t bytes,
		   uint64_t category)
{
	struct vmemi_page_region run = { 0 };
	struct vmemi_pm_scan scan = {
		.size = sizeof(scan),
		.start = start,
		.end = start + bytes,
		.vec = (uintptr_t)&run,
		.vec_len = 1,
		.category_mask = category,
		.return_mask = category,
	};

	return k->ioctl(fd, VMEMI_PAGEMAP_SCAN, &scan) == 1 && run.end - run.start == bytes;
}

bool vmemi_pagemap_has(const struct vmemi_kernel *k, uintptr_t page)
{
	uint64_t entry = 0;
	int fd = k->open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	if (k->pread(fd, &entry, sizeof(entry), (off_t)(page / VMEM_PAGE_SIZE * 8)) !=
	    (ssize_t)sizeof(entry))
		entry = 0;
	k->close(fd);
	return entry >> 62; /* bit 63: present, 62: swapped */
}

bool vmemi_pagemap_is_huge(const struct vmemi_kernel *k, int fd, uintptr_t start)
{
	return all_is(k, fd, start, HUGE_BYTES, VMEMI_PAGE_IS_HUGE);
}

bool vmemi_pagemap_is_zero(const struct vmemi_kernel *k, int fd, uintptr_t page)
{
	return all_is(k, fd, page, VMEM_PAGE_SIZE, VMEMI_PAGE_IS_PFNZERO);
}
