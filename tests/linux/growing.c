/* SPDX-License-Identifier: BSD-2-Clause */
/* See growing.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux/growing.h"
#include "linux/guest.h"
#include <sys/mman.h>
#include <unistd.h>

#define PAGE VMEM_PAGE_SIZE

struct vmem_region_opts vmemt_growing_options(uint64_t pages, uint64_t most)
{
	return (struct vmem_region_opts){ .size = sizeof(struct vmem_region_opts),
					  .gpa = VMEMT_GROWING_GPA,
					  .bytes = pages * PAGE,
					  .max_bytes = most * PAGE,
					  .fault_around_pages = 1 };
}

unsigned char *vmemt_growing_map(uint64_t pages, int *ret_fd)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	unsigned char *memory;

	*ret_fd = -1;
	if (vmemt_on_files()) {
		*ret_fd = memfd_create("vmem_growing", MFD_CLOEXEC);
		assert(*ret_fd >= 0 && !ftruncate(*ret_fd, (off_t)(pages * PAGE)));
		flags = MAP_SHARED;
	}
	memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags, *ret_fd, 0);
	assert(memory != MAP_FAILED);
	for (uint64_t page = 0; page < pages; page += 2)
		vmemt_make((struct vmemt_page *)(void *)(memory + page * PAGE), page, 1);
	return memory;
}

void vmemt_growing_unmap(unsigned char *memory, uint64_t pages, int fd)
{
	assert(!munmap(memory, pages * PAGE));
	if (fd >= 0)
		assert(!close(fd));
}

int vmemt_growing_attach(vmem_region **ret_region, vmem_manager *m, struct vmem_region_opts o,
			 unsigned char *memory, int fd)
{
	o.hva = memory;
	o.file_fd = fd;
	if (fd >= 0)
		o.flags |= VMEM_REGION_FILE | VMEM_REGION_DMA_PINNED;
	return vmem_region_attach(ret_region, m, &o);
}
