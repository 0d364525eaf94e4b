/* SPDX-License-Identifier: BSD-2-Clause */
/* Private memory of which not all is given back, or not by one call: pages are pinned, the kernel refuses some, or it does
 * less at a time than it was asked. */
#include "linux/balloon_rig.h"
#include "linux/discard/discard_memory.h"
#include <sys/mman.h>

static uint64_t held(void *context, uint64_t gpa)
{
	uint64_t page = *(uint64_t *)context - gpa / PAGE; /* in 64 pages from there */

	return page < 64 ? UINT64_C(1) << page : 0;
}

static void pinned_memory(void)
{
	unsigned char *base = mapped(PAGES, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t pinned = GPA / PAGE + 100, released;
	struct vmem_discard_opts o = { .size = sizeof(o), .pinned = held, .context = &pinned };
	vmem_discard *d;

	assert(!vmem_discard_new(&d, &o));
	add(d,
	    &(struct vmem_discard_piece){
		    .gpa = GPA, .bytes = PAGES * PAGE, .kind = VMEM_DISCARD_PRIVATE, .hva = base });
	fill(base, PAGES, 1);
	assert(discard(d, 0, PAGES, &released) == -VMEM_EBUSY);
	assert(released == (PAGES - 1) * PAGE && metrics(d).inflated.pinned == PAGE);
	assert(is_filled(base + 100 * PAGE, 100) && present(base, PAGES) == 1);
	vmem_discard_free(d);
	assert(!munmap(base, PAGES * PAGE));
}

/* Of several errors the worst, whichever of them came last. */
static void worst_first(void)
{
	unsigned char *base = mapped(4, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t pinned = GPA / PAGE, released;
	struct vmem_discard_opts o = { .size = sizeof(o), .pinned = held, .context = &pinned };
	struct vmem_balloon_range r[] = {
		{ .gpa = GPA + 4 * PAGE, .bytes = PAGE, .operation = VMEM_BALLOON_DISCARD },
		{ .gpa = GPA, .bytes = PAGE, .operation = VMEM_BALLOON_DISCARD_REPORTED },
	};
	vmem_discard *d;

	assert(!vmem_discard_new(&d, &o));
	add(d, &(struct vmem_discard_piece){
		       .gpa = GPA, .bytes = 4 * PAGE, .kind = VMEM_DISCARD_PRIVATE, .hva = base });
	assert(vmem_discard_ranges(d, r, 2, &released) == -VMEM_ERANGE);
	assert(vmem_discard_ranges(d, r + 1, 1, &released) == -VMEM_EBUSY);
	/* One that wraps ends where addresses do. */
	r[0].bytes = UINT64_MAX;
	r[0].gpa = GPA;
	assert(vmem_discard_ranges(d, r, 1, &released) == -VMEM_ERANGE);
	assert(metrics(d).inflated.outside == PAGE + UINT64_MAX - GPA - 4 * PAGE);
	vmem_discard_free(d);
	assert(!munmap(base, 4 * PAGE));
}

/* Blocks of a few pages, one of them pinned, whichever: its block stays, all others go. */
static unsigned asked;

static uint64_t held_of_words(void *context, uint64_t gpa)
{
	asked++;
	return held(context, gpa);
}

static void pinned_in_blocks(uint64_t pages_of_block)
{
	const uint64_t block = pages_of_block * PAGE;
	unsigned char *room = mapped(2 * PAGES, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *base = room + (block - (uintptr_t)room % block) % block;
	uint64_t pinned, released, gone = PAGES - pages_of_block, turns = 0;
	struct vmem_discard_opts o = { .size = sizeof(o),
				       .pinned = held_of_words,
				       .context = &pinned };
	vmem_discard *d;

	assert(!vmem_discard_new(&d, &o));
	add(d, &(struct vmem_discard_piece){ .gpa = GPA,
					     .bytes = PAGES * PAGE,
					     .kind = VMEM_DISCARD_PRIVATE,
					     .hva = base,
					     .block_bytes = block });
	for (uint64_t page = 0; page < PAGES; page += 7) {
		uint64_t first = page / pages_of_block * pages_of_block;

		pinned = GPA / PAGE + page;
		asked = 0;
		fill(base, PAGES, 1);
		assert(discard(d, 0, PAGES, &released) == -VMEM_EBUSY);
		assert(released == gone * PAGE && present(base, PAGES) == pages_of_block);
		assert(metrics(d).inflated.pinned == ++turns * block);
		for (uint64_t i = first; i < first + pages_of_block; i++)
			assert(is_filled(base + i * PAGE, i));
		assert(asked <= PAGES / 64);
	}
	vmem_discard_free(d);
	assert(!munmap(room, 2 * PAGES * PAGE));
}

/* --- A kernel that refuses --- */

static unsigned char *bad; /* this page */
static int bad_error;
static size_t most; /* bytes that one call does */

static bool is_bad(const void *memory, size_t bytes)
{
	return (uintptr_t)bad - (uintptr_t)memory < bytes;
}

static int bad_madvise(void *memory, size_t bytes, int advice)
{
	return is_bad(memory, bytes) ? bad_error
				     : vmemi_kernel_linux.madvise(memory, bytes, advice);
}

static ssize_t bad_vector(const struct iovec *ranges, size_t count, int advice)
{
	size_t bytes = 0;

	for (size_t i = 0; i < count && bytes < most; i++) {
		void *at = ranges[i].iov_base;
		size_t n = ranges[i].iov_len < most - bytes ? ranges[i].iov_len : most - bytes;

		if (is_bad(at, n))
			return bytes ? (ssize_t)bytes : bad_error;
		assert(!vmemi_kernel_linux.madvise(at, n, advice));
		bytes += n;
	}
	return (ssize_t)bytes;
}

static ssize_t no_vector(const struct iovec *ranges, size_t count, int advice)
{
	(void)ranges;
	(void)count;
	(void)advice;
	return -VMEM_EINVAL;
}

/* One range of many, in the middle: the others go, and it is told as what it is. */
static void one_refused(bool vector, int error)
{
	unsigned char *base = mapped(PAGES, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vmemi_kernel k = vmemi_kernel_linux;
	struct vmem_balloon_range r[16];
	struct vmem_discard_counts c;
	uint64_t released;
	vmem_discard *d;

	k.madvise = bad_madvise;
	k.madvise_vector = vector ? bad_vector : no_vector;
	most = SIZE_MAX;
	bad = base + 71 * PAGE; /* of 70 to 72 */
	bad_error = error;
	d = made(&k);
	add(d,
	    &(struct vmem_discard_piece){
		    .gpa = GPA, .bytes = PAGES * PAGE, .kind = VMEM_DISCARD_PRIVATE, .hva = base });
	fill(base, PAGES, 1);
	for (uint64_t i = 0; i < 16; i++)
		r[i] = (struct vmem_balloon_range){ .gpa = GPA + i * 10 * PAGE,
						    .bytes = 3 * PAGE,
						    .operation = VMEM_BALLOON_DISCARD };
	assert(vmem_discard_ranges(d, r, 16, &released) ==
	       (error == -VMEM_EINVAL ? -VMEM_EBUSY : -VMEM_EIO));
	assert(released == 45 * PAGE && present(base, PAGES) == PAGES - 45);
	c = metrics(d).inflated;
	assert(c.asked == 48 * PAGE && c.released == released);
	assert(c.pinned == (error == -VMEM_EINVAL ? 3 * PAGE : 0));
	assert(c.failed == (error == -VMEM_EINVAL ? 0 : 3 * PAGE));
	for (uint64_t i = 70; i < 73; i++)
		assert(is_filled(base + i * PAGE, i));
	bad = NULL;
	assert(!vmem_discard_ranges(d, r, 16, &released) && released == 3 * PAGE);
	vmem_discard_free(d);
	assert(!munmap(base, PAGES * PAGE));
}

/* --- A kernel that does less at a time than it was asked, and stops inside a range --- */

#define RANGES 16u
#define RANGE_PAGES 3u

static int discard_ranges(vmem_discard *d, uint64_t *released)
{
	struct vmem_balloon_range r[RANGES];

	for (uint64_t i = 0; i < RANGES; i++)
		r[i] = (struct vmem_balloon_range){ .gpa = GPA + i * 10 * PAGE,
						    .bytes = RANGE_PAGES * PAGE,
						    .operation = VMEM_BALLOON_DISCARD };
	return vmem_discard_ranges(d, r, RANGES, released);
}

static void cut_anywhere(void)
{
	const uint64_t all = RANGES * RANGE_PAGES;
	unsigned char *base = mapped(PAGES, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vmemi_kernel k = vmemi_kernel_linux;
	uint64_t released;
	vmem_discard *d;

	k.madvise = bad_madvise;
	k.madvise_vector = bad_vector;
	bad = NULL;
	bad_error = -VMEM_ENOMEM;
	d = made(&k);
	add(d,
	    &(struct vmem_discard_piece){
		    .gpa = GPA, .bytes = PAGES * PAGE, .kind = VMEM_DISCARD_PRIVATE, .hva = base });
	for (uint64_t pages = 1; pages <= all; pages++) {
		most = pages * PAGE;
		fill(base, PAGES, 1);
		assert(!discard_ranges(d, &released));
		assert(released == all * PAGE && present(base, PAGES) == PAGES - all);
	}
	/* The rest of the range that it stopped in is refused. */
	most = (7 * RANGE_PAGES + 1) * PAGE;
	bad = base + 71 * PAGE; /* of 70 to 72 */
	fill(base, PAGES, 1);
	assert(discard_ranges(d, &released) == -VMEM_EIO);
	assert(released == (all - 2) * PAGE && metrics(d).inflated.failed == 2 * PAGE);
	assert(!vmemt_mapped(bad - PAGE) && is_filled(bad, 71) && is_filled(bad + PAGE, 72));
	bad = NULL;
	assert(!discard_ranges(d, &released) && released == 2 * PAGE);
	vmem_discard_free(d);
	assert(!munmap(base, PAGES * PAGE));
}

/* The kernel's own limit, of almost 2 GiB. */
static void more_than_one_call(void)
{
	enum { HUGE_RANGES = 5 };
	const uint64_t bytes = UINT64_C(3) << 29, step = bytes + PAGE, room = HUGE_RANGES * step;
	unsigned char *base =
		mapped(room / PAGE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct vmem_balloon_range r[HUGE_RANGES];
	vmem_discard *d = made(NULL);
	uint64_t released;

	add(d, &(struct vmem_discard_piece){
		       .gpa = GPA, .bytes = room, .kind = VMEM_DISCARD_PRIVATE, .hva = base });
	for (uint64_t i = 0; i < HUGE_RANGES; i++) {
		base[i * step] = base[i * step + bytes - PAGE] = 1;
		r[i] = (struct vmem_balloon_range){ .gpa = GPA + i * step,
						    .bytes = bytes,
						    .operation = VMEM_BALLOON_DISCARD };
	}
	assert(!vmem_discard_ranges(d, r, HUGE_RANGES, &released));
	for (uint64_t i = 0; i < HUGE_RANGES; i++)
		assert(!vmemt_mapped(base + i * step) &&
		       !vmemt_mapped(base + i * step + bytes - PAGE));
	assert(released == 2 * HUGE_RANGES * PAGE);
	vmem_discard_free(d);
	assert(!munmap(base, room));
}

int main(void)
{
	pinned_memory();
	for (uint64_t pages = 2; pages <= 128; pages *= 2)
		pinned_in_blocks(pages);
	worst_first();
	one_refused(true, -VMEM_ENOMEM);
	one_refused(false, -VMEM_ENOMEM);
	one_refused(true, -VMEM_EINVAL);
	cut_anywhere();
	more_than_one_call();
	return 0;
}
