/* SPDX-License-Identifier: BSD-2-Clause */
/* Refs that lead to nothing of the caller's: bent, of another VM, or of a page that was dropped, while the
 * pool has given its handle to another VM. */
#include <criterion/criterion.h>
#include <vmem/store.h>
#include "store/slow_tier.h"
#include "support/pages.h"

static vmem_store *store;
static uint32_t mine, others;

static void make(void)
{
	cr_assert_eq(vmem_store_new(&store, NULL), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &mine), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &others), 0);
}

static void check_and_free(void)
{
	cr_assert_null(vmemi_store_check(store));
	vmem_store_free(store);
}

TestSuite(store_ref, .init = make, .fini = check_and_free);

static vmem_store_ref save(uint32_t vm, enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page page;
	vmem_store_ref ref = 0;

	vmemt_page_make(&page, kind, seed);
	cr_assert_eq(vmem_store_save(store, vm, seed, &page, &ref), 0);
	return ref;
}

static void assert_loads(uint32_t vm, vmem_store_ref ref, enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page page;

	cr_assert_eq(vmem_store_load(store, vm, 0, ref, &page, NULL), 0);
	cr_assert(vmemt_page_is(&page, kind, seed));
}

static uint64_t pages_of(uint32_t vm)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	cr_assert_eq(vmem_store_vm_account(store, vm, &a), 0);
	return a.pages;
}

static void assert_no_such(uint32_t vm, vmem_store_ref ref)
{
	struct vmemt_page page;
	vmem_store_token token = 5;

	cr_assert_eq(vmem_store_load(store, vm, 0, ref, &page, &token), -VMEM_ENOENT);
	cr_assert_eq(vmem_store_peek(store, vm, 0, ref, &page, &token), -VMEM_ENOENT);
	cr_assert_eq(vmem_store_drop(store, vm, ref), -VMEM_ENOENT);
	cr_assert_eq(token, 5);
}

Test(store_ref, of_others_and_bent_ones_are_refused)
{
	vmem_store_ref ref[2] = { save(mine, VMEMT_PAGE_SAME, 1), save(mine, VMEMT_PAGE_TEXT, 2) };

	for (int i = 0; i < 2; i++) {
		assert_no_such(others, ref[i]);
		assert_no_such(others + 1, ref[i]);
		assert_no_such(65535, ref[i]);
		assert_no_such(65536 + mine, ref[i]);
		assert_no_such(UINT32_MAX, ref[i]);
		for (int bit = 48; bit < 64; bit++)
			assert_no_such(mine, ref[i] ^ UINT64_C(1) << bit);
	}
	assert_no_such(mine, 0);
	assert_no_such(mine, UINT64_MAX);
	assert_no_such(mine, ref[1] + 100000);
	assert_loads(mine, ref[0], VMEMT_PAGE_SAME, 1);
	assert_loads(mine, ref[1], VMEMT_PAGE_TEXT, 2);
}

Test(store_ref, second_drop_is_refused)
{
	for (enum vmemt_page_kind kind = 0; kind < VMEMT_PAGE_KINDS; kind++) {
		vmem_store_ref ref = save(mine, kind, 3);

		cr_assert_eq(vmem_store_drop(store, mine, ref), 0);
		cr_assert_eq(vmem_store_drop(store, mine, ref), -VMEM_ENOENT);
		cr_assert_eq(pages_of(mine), 0);
	}
}

/* An old ref of mine whose handle is that of the page behind *ret_theirs now. */
static vmem_store_ref old_ref(enum vmemt_page_kind kind, vmem_store_ref *ret_theirs)
{
	vmem_store_ref old = save(mine, VMEMT_PAGE_NOISE, 1);

	cr_assert_eq(vmem_store_drop(store, mine, old), 0);
	*ret_theirs = save(others, kind, 2);
	cr_assert_eq(vmemi_ref_payload(old), vmemi_ref_payload(*ret_theirs), "no handle is reused");
	return old;
}

Test(store_ref, old_ones_lead_to_no_page_of_others)
{
	for (enum vmemt_page_kind kind = VMEMT_PAGE_WORD; kind < VMEMT_PAGE_KINDS; kind++) {
		struct vmemt_page page, before;
		vmem_store_ref theirs, old = old_ref(kind, &theirs);

		memset(&page, 0xee, sizeof(page));
		before = page;
		cr_assert_eq(vmem_store_load(store, mine, 0, old, &page, NULL), -VMEM_ENOENT);
		cr_assert_eq(vmem_store_peek(store, mine, 0, old, &page, NULL), -VMEM_ENOENT);
		cr_assert_eq(memcmp(&page, &before, sizeof(page)), 0, "another VM's bytes");
		assert_loads(others, theirs, kind, 2);
		cr_assert_eq(vmem_store_drop(store, others, theirs), 0);
	}
}

Test(store_ref, old_ones_drop_no_page_of_others)
{
	for (enum vmemt_page_kind kind = VMEMT_PAGE_WORD; kind < VMEMT_PAGE_KINDS; kind++) {
		vmem_store_ref theirs, old = old_ref(kind, &theirs);

		cr_assert_eq(vmem_store_drop(store, mine, old), -VMEM_ENOENT);
		cr_assert_eq(pages_of(mine), 0);
		cr_assert_eq(pages_of(others), 1);
		assert_loads(others, theirs, kind, 2);
		cr_assert_eq(vmem_store_drop(store, others, theirs), 0);
	}
}

/* A load that takes time looks again when it is over. */
Test(store_ref, old_ones_finish_no_load_of_others)
{
	struct vmemt_slow_tier tier;
	struct vmem_store_event event;
	struct vmemt_page page;
	vmem_store_ref theirs, old = old_ref(VMEMT_PAGE_TEXT, &theirs);
	vmem_store_token token;

	vmemt_slow_tier_init(&tier, store);
	cr_assert_eq(vmem_store_load(store, mine, 0, old, &page, &token), -VMEM_EINPROGRESS);
	cr_assert_eq(vmemt_slow_tier_finish(&tier, 0, 0), 0);
	cr_assert_eq(vmem_store_poll(store, &event, 1), 1);
	cr_assert_eq(event.result, -VMEM_ENOENT);
	vmemt_slow_tier_destroy(&tier);
	assert_loads(others, theirs, VMEMT_PAGE_TEXT, 2);
}
