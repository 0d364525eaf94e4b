/* SPDX-License-Identifier: BSD-2-Clause */
/* See huge_seen.h. */
#include "linux/huge_seen.h"
#include "linux/guest.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE /* 6.1 */
#define MADV_COLLAPSE 25
#endif
#define PROBE_TRIES 50

uint64_t vmemt_huge_mapped(const void *start, uint64_t bytes)
{
	unsigned long long first, end, kib, sum = 0;
	FILE *f = fopen("/proc/self/smaps", "re");
	bool inside = false;
	char line[256];

	assert(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%llx-%llx ", &first, &end) == 2)
			inside = first < (uintptr_t)start + bytes && end > (uintptr_t)start;
		else if (inside && sscanf(line, "AnonHugePages: %llu kB", &kib) == 1)
			sum += kib * 1024;
	}
	fclose(f);
	return sum;
}

int vmemt_huge_frames(const unsigned char *block)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int flags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC), huge = 0;

	assert(pagemap >= 0);
	for (unsigned i = 0; i < VMEMI_HUGE_PAGES && huge >= 0; i++) {
		uint64_t entry, flag, frame;

		assert(pread(pagemap, &entry, 8,
			     (off_t)(((uintptr_t)block / VMEM_PAGE_SIZE + i) * 8)) == 8);
		frame = entry & ((UINT64_C(1) << 55) - 1);
		if (!(entry >> 63))
			continue;
		if (!frame || flags < 0 || pread(flags, &flag, 8, (off_t)(frame * 8)) != 8)
			huge = -1;
		else
			huge += (int)(flag >> 22 & 1);
	}
	close(pagemap);
	if (flags >= 0)
		close(flags);
	return huge;
}

void vmemt_huge_need(unsigned blocks)
{
	const uint64_t bytes = (blocks + 1) * VMEMI_HUGE_BYTES;
	char *memory =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *block = memory + -(uintptr_t)memory % VMEMI_HUGE_BYTES;

	assert(memory != MAP_FAILED);
	for (unsigned i = 0; i < blocks; i++, block += VMEMI_HUGE_BYTES) {
		unsigned tried = 0;

		memset(block, 1, VMEMI_HUGE_BYTES);
		while (vmemi_kernel_linux.madvise(block, VMEMI_HUGE_BYTES, MADV_COLLAPSE))
			if (++tried == PROBE_TRIES)
				vmemt_skip("the kernel makes no huge pages now");
	}
	munmap(memory, bytes);
}
