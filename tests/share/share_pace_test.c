/* SPDX-License-Identifier: BSD-2-Clause */
/* How fast the scanner goes, and which pages it leaves out. The clock is a number, so all is exact. */
#include "share/share_tools.h"

#define SECOND UINT64_C(1000000000)
#define MS UINT64_C(1000000)

static uint64_t cpu_ns;  /* of the scanning thread, so far */
static uint64_t page_ns; /* what reading a page adds to it */

static uint64_t own_cpu_time(void *context)
{
	(void)context;
	return cpu_ns;
}

static void read_slowly(uint64_t key)
{
	(void)key;
	cpu_ns += page_ns;
}

static void open_host(void)
{
	const struct vmem_env env = { .size = sizeof(env), .cpu_time_ns = own_cpu_time };
	struct vmem_share_opts opts = host_opts();

	opts.env = &env;
	host_open_with(opts);
	host.on_page = read_slowly;
	cpu_ns = page_ns = 0;
	for (uint64_t key = 0; key < PAGES;
	     key++) /* nothing to merge: each is visited in each pass */
		write_page(key, 1 + key);
	add_range(0, PAGES, 1);
}

TestSuite(share_pace, .init = open_host, .fini = host_close);

static void set_limits(struct vmem_share_limits limits)
{
	limits.size = sizeof(limits);
	cr_assert_eq(vmem_share_set_limits(host.share, &limits), 0);
}

/* Scans whenever the scanner wants to, until a time. Returns how many pages were visited. */
static uint64_t scan_until(uint64_t *now_ns, uint64_t end_ns, uint64_t budget_ns)
{
	uint64_t visits = 0;

	while (*now_ns < end_ns) {
		uint64_t next, before = host_stats().visited;
		uint64_t found = vmem_share_scan(host.share, *now_ns, budget_ns, &next);

		cr_assert_eq(found, host_stats().visited - before);
		visits += found;
		/* Before its time it does nothing. */
		if (next > *now_ns)
			cr_assert_eq(vmem_share_scan(host.share, next - 1, budget_ns, NULL), 0);
		*now_ns = next;
	}
	return visits;
}

Test(share_pace, pages_a_second)
{
	uint64_t now = 5 * SECOND, budgets[] = { 1, MS, UINT64_MAX };

	set_limits((struct vmem_share_limits){ .pages_per_second = 1000 });
	for (size_t i = 0; i < 3; i++) {
		uint64_t start = now, visits = scan_until(&now, now + 100 * SECOND, budgets[i]);

		cr_assert_eq(visits * SECOND, (now - start) * 1000);
	}
	/* Never more at once than in a tenth of a second, but a batch. */
	cr_assert_eq(vmem_share_scan(host.share, now, UINT64_MAX, NULL), 100);
	set_limits((struct vmem_share_limits){ .pages_per_second = 3 });
	cr_assert_eq(vmem_share_scan(host.share, now, UINT64_MAX, NULL), VMEMI_SHARE_BATCH);
}

Test(share_pace, time_for_a_pass)
{
	uint64_t now = 5 * SECOND, start = now;

	set_limits((struct vmem_share_limits){ .pass_ns = 10 * SECOND });
	for (uint64_t pass = 1; pass <= 5; pass++) {
		uint64_t visits = scan_until(&now, start + pass * 10 * SECOND, MS);

		cr_assert_eq(visits, PAGES);
		cr_assert_eq(now, start + pass * 10 * SECOND);
		cr_assert_eq(host_stats().passes, pass);
	}
	/* At an even pace. */
	cr_assert_eq(scan_until(&now, now + 5 * SECOND, MS), PAGES / 2);
}

Test(share_pace, share_of_a_processor)
{
	uint64_t now = 5 * SECOND, start = now, visits;

	/* By the clock, not by what a page was said to take. */
	page_ns = 5000;
	set_limits((struct vmem_share_limits){ .cpu_percent = 10, .page_ns = 2000 });
	visits = scan_until(&now, now + 10 * SECOND, MS);
	cr_assert_eq(visits * 5000, cpu_ns);
	cr_assert_eq(cpu_ns * 10, now - start);
	/* Unless there is none, as without an operating system. */
	host.share->env.cpu_time_ns = NULL;
	start = now;
	visits = scan_until(&now, now + 10 * SECOND, MS);
	cr_assert_eq(visits * 2000 * 10, now - start);
}

Test(share_pace, budget_of_a_call)
{
	set_limits((struct vmem_share_limits){ .page_ns = 2000 });
	cr_assert_eq(vmem_share_scan(host.share, 0, 100 * 2000, NULL), 100);
	cr_assert_eq(vmem_share_scan(host.share, 0, 0, NULL), VMEMI_SHARE_BATCH);
}

/* The slowest of them counts. */
Test(share_pace, limits_together)
{
	struct vmem_share_limits limits = { .pages_per_second = 1000,
					    .pass_ns = SECOND,
					    .cpu_percent = 50 };
	uint64_t now = SECOND, start = now;
	uint64_t visits;

	set_limits(limits);
	visits = scan_until(&now, now + 50 * SECOND, UINT64_MAX);
	cr_assert_eq(visits * SECOND, (now - start) * 1000);
	page_ns = 5 * MS;
	set_limits(limits);
	start = now;
	visits = scan_until(&now, now + 50 * SECOND, UINT64_MAX);
	cr_assert_eq(visits * page_ns * 2, now - start);
}

/* Pages that are merged, skipped or absent cost little, but not nothing: a call over them is bounded. */
Test(share_pace, skipped_pages_are_bounded)
{
	uint64_t calls = 0;

	for (uint64_t key = 0; key < PAGES; key++)
		write_page(key, 0);
	scan_passes(20);
	cr_assert_eq(host_stats().merged, PAGES);
	for (uint64_t passes = host_stats().passes; host_stats().passes == passes; calls++)
		cr_assert_eq(vmem_share_scan(host.share, 0, 1, NULL), 0);
	cr_assert_eq(calls, PAGES / (64 * VMEMI_SHARE_BATCH));
}

Test(share_pace, without_pages)
{
	uint64_t next;

	cr_assert_eq(vmem_share_remove_range(host.share, 0), 0);
	cr_assert_eq(vmem_share_scan(host.share, 1, MS, &next), 0);
	cr_assert_eq(next, UINT64_MAX);
	add_range(0, 10, 1);
	cr_assert_eq(vmem_share_scan(host.share, 1, MS, &next), 10);
}

/* A page that changes all the time is read in pass 0, 1, 3, 7, 15, and every eighth from then on; when it
 * is found as it was, in every pass again. */
Test(share_pace, ladder)
{
	static const uint64_t want[] = { 0, 1, 3, 7, 15, 23, 31, 39, 47 };
	enum { KEY = 500, CALM = 40 };
	size_t at = 0;

	for (uint64_t pass = 0; pass < 60; pass++) {
		unsigned before = host.reads[KEY];
		bool due = at < sizeof(want) / sizeof(*want) ? pass == want[at] : true;

		if (pass < CALM)
			write_page(KEY, 100000 + pass);
		scan_passes(1);
		cr_assert_eq(host.reads[KEY] - before, due, "pass %lu", (unsigned long)pass);
		at += due;
	}
	/* No other page was left out. */
	cr_assert_eq(host_stats().visited, 60 * (PAGES - 1) + host.reads[KEY]);
	cr_assert_eq(host_stats().skipped, 60 - host.reads[KEY]);
	cr_assert_eq(host_stats().changed, 7);
}

/* One that is joined and broken again and again is visited less and less too. */
Test(share_pace, ladder_of_broken_pages)
{
	unsigned reads;

	write_page(0, 0);
	write_page(1, 0);
	write_page(2, 0);
	scan_passes(1);
	for (uint64_t turn = 0; turn < 40; turn++) {
		write_page(2, 200000 + turn);
		scan_passes(1);
	}
	reads = host.reads[2];
	for (uint64_t turn = 0; turn < 80; turn++) {
		write_page(2, 300000 + turn);
		scan_passes(1);
	}
	cr_assert_eq(host.reads[2] - reads, 10);
}
