/* SPDX-License-Identifier: BSD-2-Clause */
/* Each allocation fails once in turn until none fails any more, and each lock: a call works or changes
 * nothing, nothing leaks, and what was not joined for want of memory is joined later. */
#include "share/share_tools.h"
#include "support/fail_locks.h"

static struct vmemt_fail_locks locks;

/* Tries again once: only one allocation fails. */
static void add_range_twice(uint64_t first, uint64_t pages)
{
	int err = vmem_share_add_range(host.share, first, pages, 1);

	if (err) {
		cr_assert_eq(err, -VMEM_ENOMEM);
		expect_host_sound();
		add_range(first, pages, 1);
	}
}

static void scenario(void)
{
	for (uint64_t n = 0; n < 10; n++) /* more than the first arrays hold */
		add_range_twice(n * 100, 100);
	for (uint64_t key = 0; key < PAGES; key++)
		write_page(key, key < 400 ? 1 : key < 600 ? 1000 + key % 100 : key);
	scan_passes(2);
	expect_host_sound();
	cr_assert_eq(host_stats().saved_pages, 399 + 100);
	for (uint64_t key = 0; key < 1000; key++)
		write_page(key, 5000 + key);
	scan_passes(3);
	expect_host_sound();
	cr_assert_eq(vmem_share_remove_range(host.share, 500), 0);
	scan_passes(2);
	expect_host_sound();
}

static void run(long fail_at, long lock_fail_at)
{
	struct vmem_share_opts opts = host_opts();
	int err;

	host_reset();
	host.heap.fail_after = fail_at;
	vmemt_fail_locks_init(&locks);
	locks.fail_after = lock_fail_at;
	opts.env = &locks.env;
	opts.page = NULL;
	opts.read = host_read; /* with buffers */
	err = vmem_share_new(&host.share, &opts);
	cr_assert(err == 0 || err == -VMEM_ENOMEM);
	cr_assert_eq(err == 0, host.share != NULL);
	if (host.share)
		scenario();
	vmem_share_free(host.share);
	cr_assert_eq(host.heap.live_bytes, 0);
	cr_assert_eq(locks.live, 0);
}

Test(share_fault, every_allocation)
{
	long n = 0;

	do
		run(n++, -1);
	while (host.heap.failed);
	cr_assert_gt(n, 60, "%ld", n);
}

Test(share_fault, every_lock)
{
	long n = 0;

	do
		run(-1, n++);
	while (locks.failed);
	cr_assert_gt(n, 1);
}
