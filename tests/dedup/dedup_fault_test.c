/* SPDX-License-Identifier: BSD-2-Clause */
/* Each allocation, and each lock that is made, fails once in turn until none fails any more: every call
 * works or changes nothing, and nothing leaks. */
#include "dedup/dedup_tools.h"
#include "support/fail_locks.h"

enum { ENTRIES = 3000, HOT = 300, SAME = 60, STRIPES = 16 };

static struct vmemt_fail_alloc heap;
static struct vmemt_fail_locks locks;
static long calls_refused;

static vmem_dedup *open_table(void)
{
	struct vmem_dedup_opts opts = tools_opts();
	vmem_dedup *d = NULL;
	int err;

	opts.allocator = &heap.allocator;
	opts.env = &locks.env;
	err = vmem_dedup_new(&d, &opts);
	cr_assert(err == 0 || err == -VMEM_ENOMEM);
	cr_assert_eq(err == 0, d != NULL);
	return d;
}

/* Tries again once: only one allocation fails. */
#define TWICE(call)                                       \
	do {                                              \
		int err_ = (call);                        \
                                                          \
		if (err_) {                               \
			cr_assert_eq(err_, -VMEM_ENOMEM); \
			calls_refused++;                  \
			expect_sound(d);                  \
			cr_assert_eq((call), 0);          \
		}                                         \
	} while (0)

static void enter_all(vmem_dedup *d)
{
	for (uint32_t n = 1; n <= ENTRIES; n++) {
		content[n] = n;
		if (n % 4)
			TWICE(vmem_dedup_add(d, 1, hash_of(n), n));
		else
			TWICE(vmem_dedup_hint(d, 1, hash_of(n), n));
	}
	/* More than a group has room for. */
	for (uint32_t n = 1; n <= SAME; n++)
		TWICE(vmem_dedup_add(d, 1, 0, ENTRIES + n));
}

/* References past 254, by both calls that take some; a find that cannot count does without. */
static void count_up(vmem_dedup *d, uint32_t number)
{
	uint32_t id, found = 0;

	while (found < HOT) {
		int result = vmem_dedup_find(d, 1, hash_of(number), &number, &id);

		cr_assert(result == VMEM_DEDUP_SHARED || result == VMEM_DEDUP_NONE);
		found += result == VMEM_DEDUP_SHARED;
		calls_refused += result == VMEM_DEDUP_NONE;
	}
	for (int n = 0; n < HOT; n++)
		TWICE(vmem_dedup_take(d, 1, hash_of(number + 1), number + 1));
}

static void drop_all(vmem_dedup *d)
{
	uint32_t left = 0;

	for (uint32_t n = 1; n <= ENTRIES; n++) {
		if (n % 4 == 0)
			cr_assert_eq(vmem_dedup_forget_hint(d, 1, hash_of(n), n), 0);
		else
			do
				cr_assert_eq(vmem_dedup_drop(d, 1, hash_of(n), n, &left), 0);
			while (left);
		if (n % 64 == 0)
			while (vmem_dedup_work(d, 10))
				;
	}
	for (uint32_t n = 1; n <= SAME; n++)
		cr_assert_eq(vmem_dedup_drop(d, 1, 0, ENTRIES + n, &left), 0);
}

static void scenario(vmem_dedup *d)
{
	enter_all(d);
	expect_sound(d);
	count_up(d, 1);
	expect_sound(d);
	drop_all(d);
	while (vmem_dedup_work(d, 10))
		;
	while (vmem_dedup_work(d, 10)) /* if the one failure has stopped it */
		;
	expect_sound(d);
	cr_assert_eq(tools_stats(d).entries, 0);
	cr_assert_lt(tools_stats(d).bytes, 4096);
}

static void run(long fail_at, long lock_fail_at)
{
	vmem_dedup *d;

	vmemt_fail_alloc_init(&heap);
	heap.fail_after = fail_at;
	vmemt_fail_locks_init(&locks);
	locks.fail_after = lock_fail_at;
	d = open_table();
	if (d)
		scenario(d);
	vmem_dedup_free(d);
	cr_assert_eq(heap.live_bytes, 0);
	cr_assert_eq(locks.live, 0);
}

Test(dedup_fault, every_allocation)
{
	long n = 0;

	do
		run(n++, -1);
	while (heap.failed);
	cr_assert_gt(n, 200, "%ld", n);
	cr_assert_gt(calls_refused, 10, "%ld", calls_refused);
}

Test(dedup_fault, every_lock)
{
	long n = 0;

	do
		run(-1, n++);
	while (locks.failed);
	cr_assert_eq(n, STRIPES + 1);
}
