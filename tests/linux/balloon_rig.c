/* SPDX-License-Identifier: BSD-2-Clause */
/* See balloon_rig.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux/balloon_rig.h"
#include "linux/discard/discard_memory.h"
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

vmem_discard *made(const struct vmemi_kernel *k)
{
	vmem_discard *d = NULL;

	assert(!vmemi_discard_new(&d, NULL, k ? k : &vmemi_kernel_linux) && d);
	return d;
}

void add(vmem_discard *d, const struct vmem_discard_piece *of)
{
	struct vmem_discard_piece p = *of;

	p.size = sizeof(p);
	assert(!vmem_discard_add(d, &p));
}

struct vmem_discard_metrics metrics(const vmem_discard *d)
{
	struct vmem_discard_metrics m = { .size = sizeof(m) };

	assert(!vmem_discard_get_metrics(d, &m));
	return m;
}

int discard(vmem_discard *d, uint64_t first, uint64_t count, uint64_t *released)
{
	const struct vmem_balloon_range r = { .gpa = GPA + first * PAGE,
					      .bytes = count * PAGE,
					      .operation = VMEM_BALLOON_DISCARD };

	*released = 77;
	return vmem_discard_ranges(d, &r, 1, released);
}

unsigned char *mapped(uint64_t pages, int flags, int fd, uint64_t offset)
{
	void *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset);

	assert(p != MAP_FAILED);
	madvise(p, pages * PAGE, MADV_NOHUGEPAGE);
	return p;
}

uint64_t present(unsigned char *base, uint64_t pages)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < pages; i++)
		n += vmemt_mapped(base + i * PAGE);
	return n;
}

void fill(unsigned char *base, uint64_t pages, uint64_t step)
{
	for (uint64_t i = 0; i < pages; i += step)
		memset(base + i * PAGE, (int)(i % 255 + 1), PAGE);
}

bool is_filled(const unsigned char *page, uint64_t i)
{
	return page[0] == i % 255 + 1 && page[PAGE - 1] == i % 255 + 1;
}

bool is_zero(const unsigned char *page)
{
	for (uint64_t i = 0; i < PAGE; i++)
		if (page[i])
			return false;
	return true;
}

uint64_t blocks(int fd)
{
	struct stat st;

	assert(!fstat(fd, &st));
	return (uint64_t)st.st_blocks * 512;
}

int file_of(uint64_t pages)
{
	int fd = memfd_create("balloon", MFD_CLOEXEC);

	assert(fd >= 0 && !ftruncate(fd, (off_t)(pages * PAGE)));
	return fd;
}
