/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that change while they are looked at: never joined with what they were. A hook writes to them
 * from within the callbacks, at each point where a guest could. */
#include "share/share_tools.h"

static uint64_t victim, partner, fresh;
static unsigned fired;

static void open_host(void)
{
	host_open();
	victim = partner = fired = 0;
}

TestSuite(share_torn, .init = open_host, .fini = host_close);

/* Writes once, when the page @key is touched. */
static void write_victim(uint64_t key)
{
	if (key == victim && !fired)
		fired += write_page(victim, fresh);
}

static void write_both(uint64_t key)
{
	if (key == victim && !fired) {
		fired += write_page(victim, fresh);
		fired += write_page(partner, fresh);
	}
}

static void expect_apart(uint64_t a, uint64_t b)
{
	cr_assert(!host.object_of[a] || host.object_of[a] != host.object_of[b]);
	expect_host_sound();
}

/* An object exists; the page is written to between being looked up and being protected. */
Test(share_torn, before_joining_an_object)
{
	add_range(0, 3, 1);
	write_page(2, 5);
	scan_passes(1);
	cr_assert_eq(host_stats().merged, 2);
	write_page(2, 0);
	victim = 2;
	fresh = 6;
	host.on_protect = write_victim;
	scan_passes(2);
	cr_assert_eq(fired, 1);
	cr_assert_eq(host_stats().torn, 1);
	expect_apart(2, 0);
	write_page(2, 0);
	scan_passes(9);
	cr_assert_eq(host_stats().merged, 3);
}

/* Two equal pages, and no object: the one, the other or both are written to before they are protected. */
static void two_equal(host_hook hook, uint64_t at, uint64_t number)
{
	write_page(0, 5);
	write_page(1, 5);
	add_range(0, 2, 1);
	victim = at;
	partner = 1 - at;
	fresh = number;
	host.on_protect = hook;
	scan_passes(1);
	cr_assert_gt(fired, 0);
}

Test(share_torn, visited_page)
{
	two_equal(write_victim, 1, 6);
	cr_assert_eq(host_stats().merged, 0);
	cr_assert_eq(host_stats().torn, 1);
	expect_apart(0, 1);
}

Test(share_torn, page_of_the_hint)
{
	two_equal(write_victim, 0, 6);
	cr_assert_eq(host_stats().merged, 0);
	expect_apart(0, 1);
}

/* Equal again, but not what was looked up: an object of them would be filed under another content. */
Test(share_torn, both_alike)
{
	two_equal(write_both, 1, 6);
	cr_assert_eq(fired, 2);
	cr_assert_eq(host_stats().merged, 0);
	cr_assert_eq(host_stats().torn, 1);
	scan_passes(9);
	cr_assert_eq(host_stats().merged, 2);
	cr_assert_eq(object[host.object_of[0]].hash,
		     vmem_dedup_hash(host.share->dedup, guest_bytes(0)));
}

/* A hint's page that has changed before it is compared loses its hint. */
Test(share_torn, before_comparing_with_a_hint)
{
	write_page(0, 5);
	write_page(1, 6);
	add_range(0, 1, 1);
	add_range(1, 1, 1);
	scan_passes(1);
	cr_assert_eq(vmem_share_switch_range(host.share, 0, 0), 0);
	write_page(0, 7);
	write_page(1, 5);
	scan_passes(1);
	cr_assert_eq(host_stats().hints_stale, 1);
	cr_assert_eq(host_stats().merged, 0);
	expect_host_sound();
}

/* A write during the comparison itself: protected pages cannot be written to. */
static unsigned waited;

static void try_write(uint64_t id)
{
	(void)id;
	for (uint64_t key = 0; key < 3; key++)
		waited += host.is_protected[key] && !write_page(key, 9);
}

Test(share_torn, writes_wait_while_bytes_are_compared)
{
	add_range(0, 3, 1);
	write_page(2, 5);
	scan_passes(1);
	write_page(2, 0);
	waited = 0;
	host.on_object = try_write;
	scan_passes(3);
	cr_assert_gt(waited, 0);
	cr_assert_eq(host_stats().merged, 3);
}

/* A page leaves as soon as it was joined, still inside the scan, and comes up again in the same batch. */
static void leave_at_once(uint64_t key)
{
	if (fired++ < 2)
		write_page(key, 10 + key);
}

Test(share_torn, leaves_within_merge)
{
	for (uint64_t key = 0; key < 4; key++)
		write_page(key, 5);
	add_range(0, 4, 1);
	host.on_merge = leave_at_once;
	scan_passes(1);
	expect_host_sound();
	cr_assert_eq(host_stats().breaks, 2);
	scan_passes(9);
	cr_assert_eq(host_stats().saved_pages, 1);
}

/* The page of a hint, later in the same batch, is joined and leaves before its turn: what was read of it
 * is not good any more. */
static void break_partner(uint64_t key)
{
	if (key == partner && !fired)
		fired += write_page(partner, 77);
}

Test(share_torn, leaves_before_its_turn)
{
	write_page(0, 1);
	write_page(1, 2);
	add_range(0, 2, 1);
	scan_passes(1); /* both have hints */
	write_page(0, 2);
	partner = 1;
	host.on_merge = break_partner;
	scan_passes(1);
	cr_assert_eq(fired, 1);
	expect_host_sound();
	write_page(0, 77);
	scan_passes(9);
	cr_assert_eq(host_stats().saved_pages, 1);
}
