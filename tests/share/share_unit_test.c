/* SPDX-License-Identifier: BSD-2-Clause */
/* What the scanner finds and what it refuses. */
#include "share/share_tools.h"

static void open_host(void)
{
	host_open();
}

TestSuite(share, .init = open_host, .fini = host_close);

/* Pages that could be spared among @count from @first on. */
static uint64_t duplicates(uint64_t first, uint64_t count)
{
	uint64_t found = 0;

	for (uint64_t a = first; a < first + count; a++) {
		bool seen = false;

		for (uint64_t b = first; b < a && !seen; b++)
			seen = host.number[a] == host.number[b];
		found += seen;
	}
	return found;
}

/* Zero pages, many of one content, pairs, and single ones. */
static void fill(uint64_t first, uint64_t count)
{
	uint64_t state = vmemt_seed("share");

	for (uint64_t key = first; key < first + count; key++) {
		uint64_t r = vmemt_rand(&state);

		write_page(key, r % 8 < 2   ? 0
				: r % 8 < 4 ? 1 + (r >> 32) % 3
				: r % 8 < 6 ? 10 + (r >> 32) % 200
					    : 1000 + key);
	}
}

static void expect_all_found_in_one_pass(void)
{
	fill(0, PAGES);
	add_range(0, PAGES, 1);
	scan_passes(1);
	cr_assert_eq(host_stats().saved_pages, duplicates(0, PAGES));
	cr_assert_gt(duplicates(0, PAGES), PAGES / 2);
	cr_assert_eq(host_stats().visited, PAGES);
	expect_host_sound();
	scan_passes(3);
	cr_assert_eq(host_stats().saved_pages, duplicates(0, PAGES));
	cr_assert_eq(host_stats().changed, 0);
}

Test(share, first_pass_finds_all)
{
	expect_all_found_in_one_pass();
}

Test(share, first_pass_finds_all_by_copies)
{
	struct vmem_share_opts opts = host_opts();

	vmem_share_free(host.share);
	opts.page = NULL;
	opts.read = host_read;
	opts.object = NULL;
	opts.read_object = host_read_object;
	host_open_with(opts);
	expect_all_found_in_one_pass();
}

Test(share, first_pass_finds_all_with_vectors)
{
	struct vmem_share_opts opts = host_opts();

	vmem_share_free(host.share);
	opts.cpu = vmem_cpu_detect();
	opts.seed = 4711;
	host_open_with(opts);
	expect_all_found_in_one_pass();
}

/* Merged pages are not read again, others once a pass. */
Test(share, merged_pages_cost_nothing)
{
	write_page(1, 1);
	add_range(0, 4, 1);
	scan_passes(1);
	memset(host.reads, 0, sizeof(host.reads));
	scan_passes(10);
	cr_assert_eq(host.reads[1], 10);
	cr_assert_eq(host.reads[0] + host.reads[2] + host.reads[3], 0);
}

Test(share, domains_do_not_meet)
{
	fill(0, 100);
	for (uint64_t key = 0; key < 100; key++) /* the same once more */
		write_page(100 + key, host.number[key]);
	add_range(0, 100, 1);
	add_range(100, 100, 2);
	scan_passes(3);
	cr_assert_eq(host_stats().saved_pages, 2 * duplicates(0, 100));
	for (uint64_t a = 0; a < 100; a++)
		for (uint64_t b = 100; b < 200; b++)
			cr_assert(!host.object_of[a] || host.object_of[a] != host.object_of[b]);
}

static int compare_mixes(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* A number whose page has this hash of 16 bits. */
static uint64_t number_of_hash(uint32_t hash)
{
	uint64_t words[WORDS], number = 1;

	do
		make_content(words, ++number);
	while ((vmem_dedup_hash(host.share->dedup, words) & 0xffff) != hash);
	return number;
}

/* The hint of one domain has the place in the table that another content has in another domain; and its
 * page has got just that content since. */
Test(share, domains_do_not_meet_by_stale_hints)
{
	enum { HASHES = 1 << 16 };
	static uint32_t mixes[HASHES];
	uint32_t domain = 1, mix, hash = 0;
	uint64_t number;

	vmemi_dedup_truncate(host.share->dedup, 16);
	for (uint32_t h = 0; h < HASHES; h++)
		mixes[h] = vmemi_dedup_mix(host.share->dedup, 1, h);
	qsort(mixes, HASHES, sizeof(*mixes), compare_mixes);
	do
		mix = vmemi_dedup_mix(host.share->dedup, ++domain, 0);
	while (!bsearch(&mix, mixes, HASHES, sizeof(*mixes), compare_mixes));
	while (vmemi_dedup_mix(host.share->dedup, 1, hash) != mix)
		hash++;
	number = number_of_hash(0);
	write_page(0, number_of_hash(hash));
	write_page(1, number);
	add_range(0, 1, 1);
	add_range(1, 1, domain);
	cr_assert_eq(vmem_share_switch_range(host.share, 1, 0), 0);
	scan_passes(1);
	write_page(0, number);
	cr_assert_eq(vmem_share_switch_range(host.share, 0, 0), 0);
	cr_assert_eq(vmem_share_switch_range(host.share, 1, 1), 0);
	scan_passes(1);
	cr_assert_eq(host_stats().merged, 0);
	/* It stays as it is on the other side too. */
	cr_assert_eq(vmem_share_switch_range(host.share, 0, 1), 0);
	scan_passes(9);
	cr_assert_eq(host_stats().merged, 0);
}

/* A hash of few bits, or of none: bytes decide all the same. */
static void expect_no_false_join(uint32_t bits)
{
	vmemi_dedup_truncate(host.share->dedup, bits);
	fill(0, PAGES);
	add_range(0, PAGES / 2, 1);
	add_range(PAGES / 2, PAGES / 2, 2);
	scan_passes(4);
	cr_assert_gt(host_stats().saved_pages, 0);
	cr_assert_gt(host_stats().compares_different, PAGES / 2);
	for (uint64_t a = 0; a < PAGES; a++) {
		for (uint64_t b = 0; b < a && host.object_of[a]; b++) {
			if (host.object_of[a] != host.object_of[b])
				continue;
			cr_assert_eq(host.number[a], host.number[b]);
			cr_assert_eq(a < PAGES / 2, b < PAGES / 2);
		}
	}
}

Test(share, collisions_never_join)
{
	expect_no_false_join(4);
	host_close();
	host_open();
	expect_no_false_join(0);
}

/* The last page leaves: the object goes. A page that has left is found again. */
Test(share, pages_leave_and_return)
{
	uint32_t left;

	add_range(0, 3, 1);
	scan_passes(1);
	cr_assert_eq(host_stats().merged, 3);
	cr_assert_eq(vmem_share_break(host.share, 0, 99, object[1].hash, &left), -VMEM_ENOENT);
	write_page(0, 5);
	expect_host_sound();
	cr_assert_eq(vmem_share_break(host.share, 0, 1, 0, &left), -VMEM_ENOENT);
	cr_assert_eq(vmem_share_break(host.share, 77, 1, 0, &left), -VMEM_ENOENT);
	cr_assert_eq(vmem_share_break(host.share, 1, 1, 0, NULL), -VMEM_EINVAL);
	write_page(1, 6);
	write_page(2, 7);
	cr_assert_eq(host_stats().objects, 0);
	cr_assert_eq(host_stats().breaks, 3);
	for (uint64_t key = 0; key < 3; key++)
		write_page(key, 8);
	scan_passes(20);
	cr_assert_eq(host_stats().merged, 3);
}

/* A page that cannot be protected, made an object of or merged is tried again in the next pass; its
 * equals are joined without it. */
Test(share, refusals)
{
	add_range(0, 2, 1);
	host.pinned[0] = true;
	scan_passes(2);
	cr_assert_eq(host_stats().merged, 0);
	host.pinned[0] = false;
	host.pinned[1] = true;
	scan_passes(2);
	cr_assert_eq(host_stats().merged, 0);
	host.pinned[1] = false;
	host.no_more = true;
	scan_passes(2);
	cr_assert_eq(host_stats().merged, 0);
	host.no_more = false;
	host.unmovable[0] = host.unmovable[1] = true;
	scan_passes(2);
	cr_assert_eq(host_stats().merged, 0);
	cr_assert_eq(host_stats().objects, 0);
	host.unmovable[0] = false;
	scan_passes(2);
	cr_assert_eq(host_stats().saved_pages, 0);
	cr_assert_geq(host_stats().refused, 8);
	expect_host_sound();
	host.unmovable[1] = false;
	scan_passes(2);
	cr_assert_eq(host_stats().saved_pages, 1);
}

Test(share, absent_pages)
{
	host.absent[1] = true;
	add_range(0, 3, 1);
	scan_passes(2);
	cr_assert_eq(host_stats().merged, 2);
	host.absent[1] = false;
	scan_passes(1);
	cr_assert_eq(host_stats().merged, 3);
	/* One that has a hint goes away: its equal does not find it. */
	write_page(0, 1);
	write_page(1, 2);
	write_page(2, 3);
	scan_passes(4);
	host.absent[0] = true;
	write_page(1, 1);
	scan_passes(9);
	cr_assert_eq(host_stats().merged, 0);
	host.absent[0] = false;
	scan_passes(9);
	cr_assert_eq(host_stats().merged, 2);
}

/* Hints of pages that have changed do not pile up. */
Test(share, stale_hints_go)
{
	uint64_t bytes, most = 0;

	for (uint64_t key = 0; key < PAGES; key++)
		write_page(key, 1 + key);
	add_range(0, PAGES, 1);
	scan_passes(1);
	bytes = host_stats().bytes;
	for (uint64_t turn = 1; turn < 100; turn++) {
		for (uint64_t key = turn % 4; key < PAGES; key += 4)
			write_page(key, turn * 10000 + key);
		scan_passes(1);
		most = host_stats().hints > most ? host_stats().hints : most;
	}
	cr_assert_leq(most, PAGES + PAGES / 2);
	cr_assert_leq(host_stats().bytes, 2 * bytes);
	scan_passes(20);
	cr_assert_leq(host_stats().hints, PAGES + PAGES / 16);
}

Test(share, ranges)
{
	cr_assert_eq(vmem_share_add_range(host.share, 10, 0, 1), -VMEM_EINVAL);
	cr_assert_eq(vmem_share_add_range(host.share, 10, 1, 0), -VMEM_EINVAL);
	cr_assert_eq(vmem_share_add_range(host.share, UINT64_MAX, 2, 1), -VMEM_EINVAL);
	cr_assert_eq(vmem_share_add_range(host.share, 0, UINT64_C(1) << 32, 1), -VMEM_ENOSPC);
	add_range(10, 10, 1);
	add_range(30, 10, 1);
	cr_assert_eq(vmem_share_add_range(host.share, 19, 1, 1), -VMEM_EEXIST);
	cr_assert_eq(vmem_share_add_range(host.share, 5, 6, 1), -VMEM_EEXIST);
	cr_assert_eq(vmem_share_add_range(host.share, 0, 1000, 1), -VMEM_EEXIST);
	add_range(20, 10, 1);
	cr_assert_eq(vmem_share_remove_range(host.share, 21), -VMEM_ENOENT);
	cr_assert_eq(vmem_share_switch_range(host.share, 21, 0), -VMEM_ENOENT);
	cr_assert_eq(vmem_share_switch_range(host.share, 20, 2), -VMEM_EINVAL);
	cr_assert_eq(vmem_share_switch_range(host.share, 20, 0), 0);
	scan_passes(2);
	cr_assert_eq(host_stats().merged, 20);
	cr_assert_eq(host.reads[25], 0);
	cr_assert_eq(vmem_share_switch_range(host.share, 20, 1), 0);
	scan_passes(1);
	cr_assert_eq(host_stats().merged, 30);
	cr_assert_eq(vmem_share_remove_range(host.share, 20), -VMEM_EBUSY);
	for (uint64_t key = 20; key < 30; key++)
		write_page(key, key);
	scan_passes(8); /* now they have hints */
	cr_assert_eq(vmem_share_remove_range(host.share, 20), 0);
	expect_host_sound();
	scan_passes(1);
	/* Others take their numbers in the table, and meet their hints. */
	for (uint64_t key = 100; key < 110; key++)
		write_page(key, key - 80);
	add_range(100, 10, 1);
	scan_passes(2);
	cr_assert_eq(host_stats().merged, 20);
}

/* Of keys at the end of all, and of many ranges. */
static const void *one_page(void *context, uint64_t key)
{
	static const uint64_t page[WORDS];

	(void)context;
	(void)key;
	return page;
}

static int refuse(void *context, uint64_t key)
{
	(void)context;
	(void)key;
	return -VMEM_EBUSY;
}

Test(share, last_keys)
{
	struct vmem_share_opts opts = host_opts();

	vmem_share_free(host.share);
	opts.page = one_page;
	opts.protect = refuse;
	host_open_with(opts);
	cr_assert_eq(vmem_share_scan(host.share, 0, UINT64_MAX, NULL), 0);
	add_range(UINT64_MAX, 1, 1);
	for (uint64_t n = 0; n < 50; n++)
		add_range(n * 3, 2, 1 + (uint32_t)n);
	scan_passes(2);
	cr_assert_eq(host_stats().visited, 202);
}

Test(share, bad_options)
{
	struct vmem_share_limits limits = { .size = sizeof(limits), .cpu_percent = 101 };
	struct vmem_share_opts opts = host_opts();
	struct vmem_share_stats stats = { .size = 4 };
	vmem_share *none = NULL;

	cr_assert_eq(vmem_share_new(NULL, &opts), -VMEM_EINVAL);
	cr_assert_eq(vmem_share_new(&none, NULL), -VMEM_EINVAL);
	opts.limits = &limits;
	cr_assert_eq(vmem_share_new(&none, &opts), -VMEM_EINVAL);
	opts = host_opts();
	opts.flags = 1;
	cr_assert_eq(vmem_share_new(&none, &opts), -VMEM_EINVAL);
#define WITHOUT(callback)                                                 \
	do {                                                              \
		opts = host_opts();                                       \
		opts.callback = NULL;                                     \
		cr_assert_eq(vmem_share_new(&none, &opts), -VMEM_EINVAL); \
	} while (0)
	WITHOUT(page);
	WITHOUT(object);
	WITHOUT(protect);
	WITHOUT(unprotect);
	WITHOUT(make);
	WITHOUT(merge);
	WITHOUT(release);
	cr_assert_null(none);
	vmem_share_free(NULL);
	cr_assert_eq(vmem_share_set_limits(host.share, &limits), -VMEM_EINVAL);
	cr_assert_eq(vmem_share_get_stats(host.share, &stats), -VMEM_EINVAL);
}
