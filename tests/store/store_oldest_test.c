/* SPDX-License-Identifier: BSD-2-Clause */
/* The order in which pages are to leave: all of them once, oldest first, whatever goes on beside. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include "pool/pool_internal.h"
#include "store/store_internal.h"
#include "support/pages.h"

enum { PAGES = 700, GROUP = 5 };

static vmem_store *store;
static uint32_t vm, other;
static vmem_store_ref ref[PAGES];

static void make(void)
{
	const struct vmem_store_opts opts = { .size = sizeof(opts), .flags = VMEM_STORE_AS_SAVED };

	cr_assert_eq(vmem_store_new(&store, &opts), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
}

static void check_and_free(void)
{
	cr_assert_null(vmemi_store_check(store));
	vmem_store_free(store);
}

TestSuite(store_oldest, .init = make, .fini = check_and_free);

static uint32_t add_vm(uint32_t sharing)
{
	const struct vmem_store_vm_opts opts = { .size = sizeof(opts),
						 .sharing = sharing,
						 .group = sharing == VMEM_STORE_SHARE_GROUP ? GROUP
											    : 0 };
	uint32_t number;

	cr_assert_eq(vmem_store_add_vm(store, &opts, &number), 0);
	return number;
}

static vmem_store_ref save_of(uint32_t number, uint64_t seed)
{
	struct vmemt_page page;
	vmem_store_ref result = 0;

	vmemt_page_make(&page, VMEMT_PAGE_NOISE, seed);
	cr_assert_eq(vmem_store_save(store, number, seed, &page, &result), 0);
	return result;
}

static void save_all(void)
{
	for (uint32_t i = 0; i < PAGES; i++)
		ref[i] = save_of(vm, i);
}

/* All refs of a VM, asked for @at_once at a time. Returns how many. */
static uint32_t all_of(uint32_t number, vmem_store_ref *refs, uint32_t capacity, uint32_t at_once)
{
	uint64_t cursor = 0;
	uint32_t count = 0, calls = 0;

	do {
		uint32_t left = capacity - count;

		cr_assert_leq(calls++, capacity, "it does not get on");
		count += vmem_store_oldest(store, number, &cursor, refs + count,
					   at_once < left ? at_once : left);
		cr_assert(count < capacity || !cursor);
	} while (cursor);
	return count;
}

Test(store_oldest, comes_in_the_order_of_saves)
{
	static const uint32_t at_once[] = { 1, 63, 64, 65, PAGES + 1 };
	vmem_store_ref found[PAGES + 1];

	save_all();
	for (size_t n = 0; n < sizeof(at_once) / sizeof(*at_once); n++) {
		cr_assert_eq(all_of(vm, found, PAGES + 1, at_once[n]), PAGES);
		cr_assert_eq(memcmp(found, ref, sizeof(ref)), 0, "%u at once", at_once[n]);
	}
}

Test(store_oldest, of_a_vm_that_shares_nothing)
{
	vmem_store_ref found[PAGES + 1];

	vm = add_vm(VMEM_STORE_SHARE_NONE);
	save_all();
	cr_assert_eq(all_of(vm, found, PAGES + 1, 100), PAGES);
	cr_assert_eq(memcmp(found, ref, sizeof(ref)), 0);
}

Test(store_oldest, of_nothing)
{
	struct vmemt_page page;
	uint64_t cursor = 77;
	vmem_store_ref found;

	cr_assert_eq(vmem_store_oldest(store, vm, &cursor, &found, 1), 0);
	cr_assert_eq(cursor, 0);
	cursor = 77;
	cr_assert_eq(vmem_store_oldest(store, vm + 1, &cursor, &found, 1), 0,
		     "there is no such VM");
	cr_assert_eq(cursor, 0);
	vmemt_page_make(&page, VMEMT_PAGE_SAME, 1);
	cr_assert_eq(vmem_store_save(store, vm, 0, &page, &found), 0);
	cr_assert_eq(vmem_store_oldest(store, vm, &cursor, &found, 1), 0, "it is in its ref");
	save_of(vm, 1);
	cr_assert_eq(vmem_store_oldest(store, vm, &cursor, &found, 0), 0);
	cr_assert_neq(cursor, 0, "there is more");
}

Test(store_oldest, goes_by_what_was_dropped)
{
	vmem_store_ref found[PAGES];
	uint32_t left = 0;

	save_all();
	for (uint32_t i = 0; i < PAGES; i++)
		if (i % 3 || (i > 200 && i < 400))
			cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
		else
			ref[left++] = ref[i];
	cr_assert_eq(all_of(vm, found, PAGES, 10), left);
	cr_assert_eq(memcmp(found, ref, left * sizeof(ref[0])), 0);
}

Test(store_oldest, goes_on_though_what_it_has_told_goes)
{
	vmem_store_ref found[10];
	uint64_t cursor = 0;
	uint32_t n, at = 0;

	save_all();
	do {
		n = vmem_store_oldest(store, vm, &cursor, found, 10);
		cr_assert_gt(n, 0);
		for (uint32_t i = 0; i < n; i++, at++) {
			cr_assert_lt(at, PAGES);
			cr_assert_eq(found[i], ref[at]);
			if (at % 5) /* some stay */
				cr_assert_eq(vmem_store_drop(store, vm, found[i]), 0);
		}
	} while (cursor);
	cr_assert_eq(at, PAGES);
}

Test(store_oldest, begins_anew_when_the_next_one_has_gone)
{
	vmem_store_ref found[10];
	uint64_t cursor = 0;

	save_all();
	cr_assert_eq(vmem_store_oldest(store, vm, &cursor, found, 10), 10);
	cr_assert_eq(vmem_store_drop(store, vm, ref[10]), 0);
	cr_assert_eq(vmem_store_oldest(store, vm, &cursor, found, 10), 10);
	cr_assert_eq(memcmp(found, ref, sizeof(found)), 0);
	cursor = UINT64_MAX; /* of somebody else */
	cr_assert_eq(vmem_store_oldest(store, vm, &cursor, found, 10), 10);
	cr_assert_eq(memcmp(found, ref, sizeof(found)), 0);
}

Test(store_oldest, another_vms_cursor_leads_to_none_of_its_pages)
{
	vmem_store_ref found[PAGES];
	uint64_t cursor = 0;

	other = add_vm(VMEM_STORE_SHARE_VM);
	save_all();
	for (uint64_t i = 0; i < 100; i++)
		save_of(other, i);
	cr_assert_eq(vmem_store_oldest(store, other, &cursor, found, 50), 50);
	cr_assert_eq(vmem_store_oldest(store, vm, &cursor, found, 10), 10);
	cr_assert_eq(memcmp(found, ref, 10 * sizeof(ref[0])), 0);
}

Test(store_oldest, equal_pages_are_told_once)
{
	vmem_store_ref found[10], again;
	uint64_t cursor = 0;

	for (uint64_t i = 0; i < 5; i++)
		ref[i] = save_of(vm, i);
	again = save_of(vm, 0);
	cr_assert_eq(again, ref[0]);
	cr_assert_eq(vmem_store_oldest(store, vm, &cursor, found, 10), 5);
	cr_assert_eq(vmem_store_drop(store, vm, again), 0);
	cr_assert_eq(vmem_store_oldest(store, vm, &cursor, found, 10), 5, "one use is left");
	cr_assert_eq(vmem_store_drop(store, vm, again), 0);
	cr_assert_eq(vmem_store_oldest(store, vm, &cursor, found, 10), 4);
	cr_assert_eq(found[0], ref[1]);
}

Test(store_oldest, in_a_group_each_vm_has_its_own)
{
	vmem_store_ref mine[PAGES], found[PAGES];
	uint32_t first = add_vm(VMEM_STORE_SHARE_GROUP);
	uint32_t n = 0;

	other = add_vm(VMEM_STORE_SHARE_GROUP);
	for (uint64_t i = 0; i < PAGES; i++) {
		(void)save_of(first, i);
		if (i % 7 == 0) /* also the other's: with a ref of its own */
			mine[n++] = save_of(other, i);
	}
	cr_assert_eq(all_of(other, found, PAGES, 3), n);
	cr_assert_eq(memcmp(found, mine, n * sizeof(mine[0])), 0);
	for (uint32_t i = 0; i < n; i++)
		cr_assert_eq(vmem_store_drop(store, other, mine[i]), 0);
	cr_assert_eq(all_of(other, found, PAGES, 3), 0);
	cr_assert_eq(all_of(first, found, PAGES, 100), PAGES);
}

/* What is encoded anew between two calls is younger then; what is older than that is told all the same. */
Test(store_oldest, goes_on_when_its_place_has_moved)
{
	const struct vmem_store_opts opts = { .size = sizeof(opts), .cold_after_ms = 1 };
	vmem_store_ref found[64];
	bool told[PAGES] = { false };
	uint64_t cursor = 0, now = 1;
	uint32_t calls = 0, n;

	vmem_store_free(store);
	cr_assert_eq(vmem_store_new(&store, &opts), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
	for (uint32_t i = 0; i < PAGES; i++) {
		struct vmemt_page page;

		vmemt_page_make(&page, VMEMT_PAGE_NOISE, i);
		memset(page.bytes + VMEM_PAGE_SIZE / 2, 0, VMEM_PAGE_SIZE / 2);
		for (uint32_t k = 0; k < VMEM_PAGE_SIZE / 2; k++)
			page.bytes[k] = 'a' + page.bytes[k] % 16;
		cr_assert_eq(vmem_store_save(store, vm, i, &page, &ref[i]), 0);
	}
	do {
		n = vmem_store_oldest(store, vm, &cursor, found, 64);
		for (uint32_t k = 0; k < n; k++)
			for (uint32_t i = 0; i < PAGES; i++)
				told[i] |= ref[i] == found[k];
		for (uint32_t k = 0; k < 10; k++)
			(void)vmem_store_work(store, 200000, now += 3000000);
	} while (cursor && ++calls < PAGES);
	cr_assert_gt(calls, 5);
	for (uint32_t i = 0; i < PAGES; i++)
		cr_assert(told[i], "%u", i);
}

Test(store_oldest, looks_at_so_many_at_once)
{
	enum { OTHERS = 9000 };
	vmem_store_ref mine, found = 0;
	uint64_t cursor = 0;
	uint32_t calls = 0, n = 0;

	vm = add_vm(VMEM_STORE_SHARE_GROUP);
	other = add_vm(VMEM_STORE_SHARE_GROUP);
	for (uint32_t i = 0; i < OTHERS; i++) {
		struct vmemt_page page;
		vmem_store_ref theirs;

		vmemt_page_make(&page, VMEMT_PAGE_WORD, i);
		cr_assert_eq(vmem_store_save(store, other, i, &page, &theirs), 0);
	}
	mine = save_of(vm, 1);
	do {
		cr_assert_eq(n, 0);
		n = vmem_store_oldest(store, vm, &cursor, &found, 1);
	} while (++calls < 10 && cursor);
	cr_assert_eq(n, 1);
	cr_assert_eq(found, mine);
	cr_assert(calls > 1 && calls < 5, "%u calls", calls);
}

static unsigned char *bytes_of(vmem_store_ref of)
{
	uint32_t bytes;

	return vmemi_pool_object_bytes(store->pool, vmemi_ref_payload(of), &bytes);
}

Test(store_oldest, goes_by_a_damaged_header)
{
	struct vmemi_object_header was, zero = { 0 };
	vmem_store_ref found[PAGES];

	save_all();
	memcpy(&was, bytes_of(ref[20]), sizeof(was));
	memcpy(bytes_of(ref[20]), &zero, sizeof(zero));
	cr_assert_eq(all_of(vm, found, PAGES, PAGES), PAGES - 1);
	cr_assert_eq(found[19], ref[19]);
	cr_assert_eq(found[20], ref[21]);
	memcpy(bytes_of(ref[20]), &was, sizeof(was));
}

Test(store_oldest, waits_for_no_writer)
{
	struct vmemi_segment *seg;
	vmem_store_ref found[PAGES];
	uint32_t n;

	save_all();
	seg = vmemi_segment_at(store->pool,
			       vmemi_entry_segment(vmemi_entry_of(
				       store->pool, vmemi_ref_payload(ref[PAGES - 1]))));
	atomic_fetch_add(&seg->pins, VMEMI_PIN_WRITER);
	n = all_of(vm, found, PAGES, 100);
	cr_assert(n < PAGES && n > PAGES - 100, "all but the last segment");
	cr_assert_eq(memcmp(found, ref, n * sizeof(ref[0])), 0);
	atomic_fetch_sub(&seg->pins, VMEMI_PIN_WRITER);
	cr_assert_eq(all_of(vm, found, PAGES, 100), PAGES);
	cr_assert_eq(atomic_load(&seg->pins), 0, "a pin was left");
}

/* Churn with compaction: each page once, those that nobody has moved in order, and in the end all leave. */
Test(store_oldest, has_all_pages_after_compaction)
{
	vmem_store_ref found[PAGES + 1];
	uint64_t state = vmemt_seed("store_oldest"), cursor = 0;
	uint32_t n;

	save_all();
	for (uint64_t i = 0; i < 5000; i++) {
		uint32_t at = (uint32_t)(vmemt_rand(&state) % PAGES);

		cr_assert_eq(vmem_store_drop(store, vm, ref[at]), 0);
		ref[at] = save_of(vm, PAGES + i);
		if (i % 50 == 0)
			(void)vmem_store_work(store, 50000, i);
	}
	n = all_of(vm, found, PAGES + 1, 9);
	cr_assert_eq(n, PAGES);
	for (uint32_t i = 0; i < PAGES; i++) {
		uint32_t times = 0;

		for (uint32_t j = 0; j < n; j++)
			times += found[j] == ref[i];
		cr_assert_eq(times, 1);
	}
	while ((n = vmem_store_oldest(store, vm, &cursor, found, 20)) != 0)
		for (uint32_t i = 0; i < n; i++)
			cr_assert_eq(vmem_store_drop(store, vm, found[i]), 0);
	for (uint32_t i = 0; i < PAGES; i++)
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), -VMEM_ENOENT);
}
