/* SPDX-License-Identifier: BSD-2-Clause */
/* Private mappings of files, as of a snapshot: what is given back is never the file's again; it costs mappings, but not
 * all that a process may have; and what the kernel says of a mapping stays so. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "linux/balloon_rig.h"
#include "linux/failing_kernel.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What the file has never comes back. */
static void image_memory(const struct vmemi_kernel *k)
{
	int fd = file_of(PAGES);
	unsigned char *source = mapped(PAGES, MAP_SHARED, fd, 0), *base;
	vmem_discard *d = made(k);
	uint64_t released;

	fill(source, PAGES, 1);
	base = mapped(PAGES, MAP_PRIVATE, fd, 0);
	for (unsigned i = 0; i < PAGES; i += 2)
		base[i * PAGE] = 0x55;
	add(d,
	    &(struct vmem_discard_piece){
		    .gpa = GPA, .bytes = PAGES * PAGE, .kind = VMEM_DISCARD_IMAGE, .hva = base });
	/* The others were only read: that memory is the file's. */
	for (unsigned i = 1; i < PAGES; i += 2)
		assert(is_filled(base + i * PAGE, i));
	assert(!discard(d, 8, 8, &released) && released == 4 * PAGE);
	assert(!discard(d, 32, 1, &released) && released == PAGE);
	/* A part is so already. */
	assert(!discard(d, 12, 8, &released) && released == 2 * PAGE);
	for (unsigned i = 0; i < PAGES; i++) {
		if ((i >= 8 && i < 20) || i == 32)
			assert(is_zero(base + i * PAGE));
		else
			assert(base[i * PAGE] == (i % 2 ? i % 255 + 1 : 0x55));
		assert(is_filled(source + i * PAGE, i));
	}
	/* The guest's own, in the place of the file's. */
	memset(base + 8 * PAGE, 7, 4 * PAGE);
	assert(!discard(d, 8, 4, &released) && released == 4 * PAGE);
	assert(is_zero(base + 8 * PAGE) && is_zero(base + 11 * PAGE));
	assert(!metrics(d).inflated.failed && !metrics(d).inflated.pinned);
	vmem_discard_free(d);
	assert(!munmap(base, PAGES * PAGE) && !munmap(source, PAGES * PAGE) && !close(fd));
}

/* Whether all mappings of [base, base + pages) have a flag, as /proc/self/smaps has it. Their number. */
static unsigned flagged(const unsigned char *base, uint64_t pages, const char *flag, bool *all)
{
	unsigned long long start, stop, at = 0;
	FILE *f = fopen("/proc/self/smaps", "re");
	bool inside = false;
	char line[1024];
	unsigned n = 0;

	assert(f);
	*all = true;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%llx-%llx %*7s %llx", &start, &stop, &at) == 3) {
			inside = stop > (uintptr_t)base && start < (uintptr_t)base + pages * PAGE;
			n += inside;
		} else if (inside && !strncmp(line, "VmFlags:", 8)) {
			*all &= strstr(line, flag) != NULL;
		}
	assert(!fclose(f));
	return n;
}

static unsigned mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned n = 0;
	int c;

	assert(f);
	while ((c = fgetc(f)) != EOF)
		n += c == '\n';
	assert(!fclose(f));
	return n;
}

#define HOLES 8192u /* that may be, of two mappings each */

/* A guest that takes every second page costs mappings. Filling the holes gives none back, once it has written to
 * both sides of each: it must not be allowed others for it. */
static void in_holes(void)
{
	const uint64_t pages = 40000, window = 2000;
	unsigned before = mappings(), most = before + 2 * HOLES + 64;
	int fd = file_of(pages);
	unsigned char *base = mapped(pages, MAP_PRIVATE, fd, 0);
	vmem_discard *d = made(NULL);
	uint64_t kept = 0, released;

	add(d,
	    &(struct vmem_discard_piece){
		    .gpa = GPA, .bytes = pages * PAGE, .kind = VMEM_DISCARD_IMAGE, .hva = base });
	for (uint64_t first = 0; first < pages; first += window) {
		for (uint64_t i = first; i < first + window; i += 2) {
			base[i * PAGE] = 1;
			kept += discard(d, i, 1, &released) == -VMEM_EIO;
			assert(!released == !!base[i * PAGE]);
			base[i * PAGE] = 2; /* it comes back, and is used */
		}
		for (uint64_t i = first + 1; i < first + window; i += 2)
			kept += discard(d, i, 1, &released) == -VMEM_EIO;
		assert(mappings() < most);
	}
	assert(kept > pages / 4 && metrics(d).inflated.failed == kept * PAGE);
	/* What is beside a hole, and what was one before, can still be had. */
	assert(!discard(d, 0, window, &released) && released >= window / 2 * PAGE);
	assert(mappings() < most);
	vmem_discard_free(d);
	assert(!munmap(base, pages * PAGE) && !close(fd));
}

/* Those of other pieces count, too. */
static void in_holes_of_two(void)
{
	const uint64_t pages = 3 * HOLES;
	int fd = file_of(pages);
	unsigned char *base = mapped(pages, MAP_PRIVATE, fd, 0);
	struct vmem_discard_piece p = {
		.gpa = GPA, .bytes = pages / 2 * PAGE, .kind = VMEM_DISCARD_IMAGE, .hva = base
	};
	vmem_discard *d = made(NULL);
	uint64_t kept = 0, released;

	add(d, &p);
	p.gpa += pages / 2 * PAGE;
	p.hva = base + pages / 2 * PAGE;
	add(d, &p);
	for (uint64_t i = 0; i < pages; i += 2)
		kept += discard(d, i, 1, &released) == -VMEM_EIO;
	assert(kept == pages / 2 - HOLES);
	vmem_discard_free(d);
	assert(!munmap(base, pages * PAGE) && !close(fd));
}

/* What is mlocked stays, and so it is counted; all around it goes. And what children and dumps do not have, they do not
 * have afterwards. */
static void locked_and_kept(void)
{
	int fd = file_of(PAGES);
	unsigned char *source = mapped(PAGES, MAP_SHARED, fd, 0);
	unsigned char *base = mapped(PAGES, MAP_PRIVATE, fd, 0);
	vmem_discard *d = made(NULL);
	uint64_t released;
	bool all;

	fill(source, PAGES, 1);
	assert(!madvise(base, PAGES * PAGE, MADV_DONTFORK));
	assert(!madvise(base, PAGES * PAGE, MADV_DONTDUMP));
	for (unsigned i = 0; i < PAGES; i++)
		base[i * PAGE + 1] = 0x55;
	add(d,
	    &(struct vmem_discard_piece){
		    .gpa = GPA, .bytes = PAGES * PAGE, .kind = VMEM_DISCARD_IMAGE, .hva = base });
	assert(!discard(d, 200, 8, &released) && released == 8 * PAGE);
	assert(flagged(base, PAGES, " dc", &all) == 3 && all);
	assert(flagged(base, PAGES, " dd", &all) == 3 && all);
	/* Sanitizers make nothing of mlock(). */
	if (syscall(SYS_mlock, base + 100 * PAGE, 3 * PAGE)) {
		fprintf(stderr, "no memory may be locked\n");
	} else {
		assert(discard(d, 100, 3, &released) == -VMEM_EBUSY && !released);
		assert(metrics(d).inflated.pinned == 3 * PAGE && !metrics(d).inflated.failed);
		assert(discard(d, 64, 128, &released) == -VMEM_EBUSY && released == 125 * PAGE);
		assert(metrics(d).inflated.pinned == 6 * PAGE && !metrics(d).inflated.failed);
		for (unsigned i = 64; i < 192; i++)
			if (i >= 100 && i < 103)
				assert(base[i * PAGE] == i % 255 + 1 && base[i * PAGE + 1] == 0x55);
			else
				assert(is_zero(base + i * PAGE));
		assert(!syscall(SYS_munlock, base + 100 * PAGE, 3 * PAGE));
		assert(!discard(d, 100, 3, &released) && released == 3 * PAGE);
	}
	vmem_discard_free(d);
	assert(!munmap(base, PAGES * PAGE) && !munmap(source, PAGES * PAGE) && !close(fd));
}

/* The kernel has no other memory, after it dropped what there was: zeros all the same, and said to have failed. */
static void no_other_memory(void)
{
	int fd = file_of(8);
	unsigned char *source = mapped(8, MAP_SHARED, fd, 0);
	unsigned char *base = mapped(8, MAP_PRIVATE, fd, 0);
	uint64_t released;
	vmem_discard *d;

	fill(source, 8, 1);
	vmemt_kernel_reset();
	d = made(&vmemt_kernel_table);
	add(d, &(struct vmem_discard_piece){
		       .gpa = GPA, .bytes = 8 * PAGE, .kind = VMEM_DISCARD_IMAGE, .hva = base });
	base[PAGE] = 0x55;
	vmemt_kernel.fail = VMEMT_K_MAP_OVER;
	vmemt_kernel.fail_after = 0;
	vmemt_kernel.error = -VMEM_ENOMEM;
	assert(discard(d, 1, 2, &released) == -VMEM_EIO && !released);
	assert(metrics(d).inflated.failed == 2 * PAGE);
	assert(is_zero(base + PAGE) && is_zero(base + 2 * PAGE) && is_filled(base + 3 * PAGE, 3));
	assert(!discard(d, 1, 2, &released) && released == 2 * PAGE);
	assert(is_zero(base + PAGE) && is_zero(base + 2 * PAGE));
	vmem_discard_free(d);
	assert(!munmap(base, 8 * PAGE) && !munmap(source, 8 * PAGE) && !close(fd));
}

/* Private mappings of huge pages that are a file's: those would come back. No page of these is touched. */
static void huge_kinds(void)
{
	const uint64_t block = UINT64_C(2) << 20;
	const int flags = MAP_PRIVATE | MAP_NORESERVE;
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
	struct vmem_discard_piece p = { .size = sizeof(p),
					.gpa = GPA,
					.bytes = 2 * block,
					.kind = VMEM_DISCARD_PRIVATE,
					.block_bytes = block };
	void *file = MAP_FAILED, *anonymous;
	vmem_discard *d = made(NULL);

	if (fd >= 0 && !ftruncate(fd, 2 * (off_t)block))
		file = mmap(NULL, 2 * block, PROT_READ | PROT_WRITE, flags, fd, 0);
	anonymous = mmap(NULL, 2 * block, PROT_READ | PROT_WRITE,
			 flags | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (file == MAP_FAILED || anonymous == MAP_FAILED) {
		fprintf(stderr, "no memory of huge pages\n");
	} else {
		p.hva = file;
		assert(vmem_discard_add(d, &p) == -VMEM_ENOTSUP);
		p.hva = anonymous;
		p.block_bytes = 0;
		assert(vmem_discard_add(d, &p) == -VMEM_ENOTSUP);
		p.block_bytes = block;
		assert(!vmem_discard_add(d, &p));
	}
	vmem_discard_free(d);
	assert(file == MAP_FAILED || !munmap(file, 2 * block));
	assert(anonymous == MAP_FAILED || !munmap(anonymous, 2 * block));
	assert(fd < 0 || !close(fd));
}

int main(void)
{
	image_memory(NULL);
	vmemt_kernel_reset();
	vmemt_kernel.hide_scan = true;
	image_memory(&vmemt_kernel_table);
	in_holes();
	in_holes_of_two();
	locked_and_kept();
	no_other_memory();
	huge_kinds();
	return 0;
}
