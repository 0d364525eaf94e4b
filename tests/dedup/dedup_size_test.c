/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory for an entry at every size, growing and shrinking; and that one step of either is small. */
#include "dedup/dedup_tools.h"

enum {
	MOST = VMEMT_SLOW ? 120000 : 1200000,
	FIRST = 2048,     /* bytes when it is empty */
	FEW = 512,        /* up to here more for each */
	FEW_LIMIT = 32,   /* bytes an entry */
	FROM = 10000,     /* from here on there is a limit for all */
	LIMIT = 12,       /* bytes an entry */
	LIMIT_LARGE = 11, /* from 100,000 on, growing */
	EMPTY = 1 << 17,  /* what a table may keep that was large: pointers to chunks */
	STRIDE = 499
};

static void expect_small(vmem_dedup *d, uint32_t entries, uint64_t limit)
{
	uint64_t bytes = tools_stats(d).bytes;

	if (entries <= FEW)
		cr_assert_leq(bytes, FIRST + FEW_LIMIT * entries, "%u entries, %lu bytes", entries,
			      (unsigned long)bytes);
	if (entries > FROM && entries % STRIDE == 0)
		cr_assert_leq(bytes, limit * entries, "%u entries, %lu bytes", entries,
			      (unsigned long)bytes);
}

static void print(vmem_dedup *d, uint32_t entries)
{
	struct vmem_dedup_stats stats = tools_stats(d);

	fprintf(stderr, "%8u entries %6.2f bytes an entry, %.2f %% spilled\n", entries,
		(double)stats.bytes / entries, 100.0 * (double)stats.spilled / entries);
}

Test(dedup_size, curve)
{
	struct vmem_dedup_opts opts = tools_opts();
	uint32_t next = 1000, left;
	vmem_dedup *d;

	cr_assert_eq(vmem_dedup_new(&d, &opts), 0);
	cr_assert_leq(tools_stats(d).bytes, FIRST);
	for (uint32_t n = 1; n <= MOST; n++) {
		cr_assert_eq(vmem_dedup_add(d, 1, hash_of(n), n), 0);
		expect_small(d, n, n > 100000 ? LIMIT_LARGE : LIMIT);
		if (n >= next) {
			print(d, n);
			next += next / 4;
		}
	}
	expect_sound(d);
	next = MOST;
	for (uint32_t n = MOST; n; n--) {
		if (n <= next) {
			print(d, n);
			next -= next / 4;
		}
		cr_assert_eq(vmem_dedup_drop(d, 1, hash_of(n), n, &left), 0);
		cr_assert_eq(left, 0);
		while (n % STRIDE == 1 && vmem_dedup_work(d, 7))
			;
		if (n > FROM)
			expect_small(d, n - 1, LIMIT);
	}
	while (vmem_dedup_work(d, 1000))
		;
	expect_sound(d);
	cr_assert_lt(tools_stats(d).bytes, EMPTY);
	vmem_dedup_free(d);
}

/* No call takes more memory at once than a chunk, and only entering and work take any. */
static size_t largest;
static unsigned calls;

static void *watch_alloc(void *context, size_t bytes, size_t align)
{
	(void)context;
	calls++;
	largest = bytes > largest ? bytes : largest;
	return vmemi_alloc(vmemi_alloc_default(), bytes, align);
}

static void watch_free(void *context, void *memory, size_t bytes, size_t align)
{
	(void)context;
	calls++;
	vmemi_free(vmemi_alloc_default(), memory, bytes, align);
}

Test(dedup_size, small_steps)
{
	struct vmem_allocator watch = { .size = sizeof(watch),
					.alloc = watch_alloc,
					.free = watch_free };
	struct vmem_dedup_opts opts = tools_opts();
	vmem_dedup *d;
	uint32_t id;

	opts.allocator = &watch;
	cr_assert_eq(vmem_dedup_new(&d, &opts), 0);
	for (uint32_t n = 1; n <= MOST; n++) {
		unsigned before = calls;

		content[n % IDS] = n;
		cr_assert_eq(vmem_dedup_add(d, 1, hash_of(n), n), 0);
		cr_assert_leq(calls - before,
			      12); /* two steps, each at a chunk's edge, and a spill */
	}
	cr_assert_leq(largest, 64 * 1024);
	calls = 0;
	for (uint32_t n = 1; n <= MOST; n++)
		cr_assert_eq(vmem_dedup_drop(d, 1, hash_of(n), n, &id), 0);
	cr_assert_eq(calls, 0);
	while (vmem_dedup_work(d, 1000))
		;
	cr_assert_gt(calls, 0);
	vmem_dedup_free(d);
}
