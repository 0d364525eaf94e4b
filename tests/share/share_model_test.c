/* SPDX-License-Identifier: BSD-2-Clause */
/* Random writes, pins, absences and ranges beside a naive count. The host of share_tools.h checks each
 * merge, and that the guest sees what it wrote; here it is counted what must have been found, when the guest
 * has been quiet for long enough. */
#include "share/share_tools.h"

enum { ROUNDS = 60, STEPS = 400, NUMBERS = 300, QUIET_PASSES = 18, RANGE = PAGES / 8 };

static uint64_t state;
static uint64_t joined, broken_inside;
static bool in_range[PAGES / RANGE];

static uint32_t domain_of(uint64_t key)
{
	return 1 + (uint32_t)(key / RANGE) % 3;
}

/* Few contents are common, many are rare. */
static uint64_t any_number(void)
{
	uint64_t r = vmemt_rand(&state);

	return (r >> 32) % (r % 4 ? NUMBERS : 4);
}

/* From within the callbacks, now and then. */
static void write_any(uint64_t unused)
{
	uint64_t r = vmemt_rand(&state), breaks = host_stats().breaks;

	(void)unused;
	if (r % 16 == 0)
		write_page((r >> 32) % PAGES, any_number());
	broken_inside += host_stats().breaks - breaks;
}

static void set_hooks(host_hook hook)
{
	host.on_page = host.on_protect = host.on_object = host.on_make = host.on_merge = hook;
}

static void change_range(uint64_t n)
{
	uint64_t first = n * RANGE;

	if (!in_range[n]) {
		add_range(first, RANGE, domain_of(first));
		in_range[n] = true;
		return;
	}
	for (uint64_t key = first; key < first + RANGE; key++)
		if (host.object_of[key])
			leave(key);
	cr_assert_eq(vmem_share_remove_range(host.share, first), 0);
	in_range[n] = false;
}

static void step(void)
{
	uint64_t r = vmemt_rand(&state), key = (r >> 32) % PAGES;

	switch (r % 32) {
	case 0: host.pinned[key] = !host.pinned[key]; break;
	case 1: host.unmovable[key] = !host.unmovable[key]; break;
	case 2: host.no_more = (r >> 20) % 4 == 0; break;
	case 3:
		if (!host.object_of[key])
			host.absent[key] = !host.absent[key];
		break;
	case 4:
	case 5: vmem_share_scan(host.share, 0, 100 * 1000, NULL); break;
	default: write_page(key, any_number()); break;
	}
}

/* Pages that could be spared, of those that are scanned. */
static uint64_t duplicates(void)
{
	static bool seen[4][NUMBERS];
	uint64_t found = 0;

	memset(seen, 0, sizeof(seen));
	for (uint64_t key = 0; key < PAGES; key++) {
		bool *s = &seen[domain_of(key)][host.number[key]];

		if (!in_range[key / RANGE])
			continue;
		found += *s;
		*s = true;
	}
	return found;
}

static void quieten(void)
{
	set_hooks(NULL);
	memset(host.pinned, 0, sizeof(host.pinned));
	memset(host.unmovable, 0, sizeof(host.unmovable));
	memset(host.absent, 0, sizeof(host.absent));
	host.no_more = false;
	scan_passes(QUIET_PASSES);
}

static void run(uint32_t bits)
{
	struct vmem_share_opts opts = host_opts();

	state = vmemt_seed("share_model") + bits;
	if (bits % 8 == 0) {
		opts.page = NULL;
		opts.read = host_read;
	}
	host_open_with(opts);
	vmemi_dedup_truncate(host.share->dedup, bits);
	for (uint64_t n = 0; n < PAGES / RANGE; n++)
		change_range(n);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		set_hooks(write_any);
		for (uint32_t i = 0; i < STEPS; i++)
			step();
		expect_host_sound();
		if (round % 5 == 4)
			change_range(1 + vmemt_rand(&state) % (PAGES / RANGE - 1));
		if (round % 3 == 2) {
			quieten();
			joined += host_stats().saved_pages;
			cr_assert_leq(host_stats().saved_pages, duplicates());
			if (bits == 32)
				cr_assert_eq(host_stats().saved_pages, duplicates());
			expect_host_sound();
		}
	}
	cr_assert_gt(joined, 0);
	cr_assert_gt(broken_inside, 0);
	cr_assert_gt(host_stats().torn, 0);
	cr_assert_gt(host_stats().refused, 0);
	cr_assert_gt(host_stats().hints_stale, 0);
	host_close();
}

Test(share_model, hashes_as_they_are)
{
	run(32);
}

/* Few contents have a hash of their own. */
Test(share_model, hashes_that_collide)
{
	run(7);
}

Test(share_model, hashes_that_collide_all_the_time)
{
	run(2);
}
