/* SPDX-License-Identifier: BSD-2-Clause */
/* How much of the pool a VM may take, and that it can be brought under its cap: its oldest pages leave first. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include "store/store_internal.h"
#include "support/pages.h"

enum { VM_PAGES = 4000 };

static vmem_store *store;
static uint32_t vm;

static void make(void)
{
	/* As saved: what is old stays where it was put. */
	const struct vmem_store_opts opts = { .size = sizeof(opts), .flags = VMEM_STORE_AS_SAVED };

	cr_assert_eq(vmem_store_new(&store, &opts), 0);
}

static void check_and_free(void)
{
	cr_assert_null(vmemi_store_check(store));
	vmem_store_free(store);
}

TestSuite(store_caps, .init = make, .fini = check_and_free);

static void add_vm(uint64_t vm_bytes, uint32_t cap_percent)
{
	const struct vmem_store_vm_opts opts = { .size = sizeof(opts),
						 .vm_bytes = vm_bytes,
						 .cap_percent = cap_percent };

	cr_assert_eq(vmem_store_add_vm(store, &opts, &vm), 0);
}

static int save(enum vmemt_page_kind kind, uint64_t seed, vmem_store_ref *ret_ref)
{
	struct vmemt_page page;

	vmemt_page_make(&page, kind, seed);
	return vmem_store_save(store, vm, seed, &page, ret_ref);
}

static uint64_t physical(void)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	cr_assert_eq(vmem_store_vm_account(store, vm, &a), 0);
	return a.physical_bytes;
}

/* Saves noise up to @most pages; returns how many were not refused. */
static uint64_t fill(uint64_t most)
{
	vmem_store_ref ref;
	uint64_t n = 0;
	int rc = 0;

	while (n < most && !(rc = save(VMEMT_PAGE_NOISE, n, &ref)))
		n++;
	cr_assert(!rc || rc == -VMEM_ENOSPC);
	return n;
}

Test(store_caps, is_a_tenth_unless_told)
{
	const uint64_t cap = VM_PAGES * VMEM_PAGE_SIZE / 10;

	add_vm(VM_PAGES * VMEM_PAGE_SIZE, 0);
	cr_assert_lt(fill(VM_PAGES), VM_PAGES / 10 + 1);
	cr_assert_geq(physical(), cap);
	cr_assert_lt(physical(), cap + VMEM_PAGE_SIZE + 16);
}

Test(store_caps, is_none_without_the_size_of_the_vm)
{
	add_vm(0, 0);
	cr_assert_eq(fill(VM_PAGES / 8), VM_PAGES / 8);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
	cr_assert_eq(fill(VM_PAGES / 8), VM_PAGES / 8);
}

Test(store_caps, is_none_if_told)
{
	add_vm(64 * VMEM_PAGE_SIZE, VMEM_STORE_NO_CAP);
	cr_assert_eq(fill(128), 128);
}

Test(store_caps, of_zero_lets_in_only_what_takes_nothing)
{
	vmem_store_ref ref, equal;

	add_vm(VM_PAGES * VMEM_PAGE_SIZE, VMEM_STORE_NO_CAP);
	cr_assert_eq(save(VMEMT_PAGE_NOISE, 1, &ref), 0);
	cr_assert_eq(vmem_store_set_cap(store, vm, 0), 0);
	cr_assert_eq(save(VMEMT_PAGE_NOISE, 2, &equal), -VMEM_ENOSPC);
	cr_assert_eq(save(VMEMT_PAGE_TEXT, 2, &equal), -VMEM_ENOSPC);
	cr_assert_eq(save(VMEMT_PAGE_WORD, 2, &equal), -VMEM_ENOSPC);
	cr_assert_eq(save(VMEMT_PAGE_NOISE, 1, &equal), 0);
	cr_assert_eq(ref, equal);
	cr_assert_eq(save(VMEMT_PAGE_ZERO, 0, &ref), 0);
	cr_assert_eq(save(VMEMT_PAGE_SAME, 3, &ref), 0);
	cr_assert_eq(vmem_store_drop(store, vm, equal), 0);
	cr_assert_eq(vmem_store_drop(store, vm, equal), 0);
	cr_assert_eq(physical(), 0);
	cr_assert_eq(save(VMEMT_PAGE_NOISE, 1, &ref), -VMEM_ENOSPC, "also of a VM without pages");
	cr_assert_eq(vmem_store_set_cap(store, vm, 1), 0);
	cr_assert_eq(save(VMEMT_PAGE_NOISE, 1, &ref), 0);
}

Test(store_caps, of_zero_needs_no_size)
{
	vmem_store_ref ref;

	add_vm(0, 0);
	cr_assert_eq(vmem_store_set_cap(store, vm, 0), 0);
	cr_assert_eq(save(VMEMT_PAGE_NOISE, 1, &ref), -VMEM_ENOSPC);
	cr_assert_eq(vmem_store_set_cap(store, vm, 1), -VMEM_EINVAL);
	cr_assert_eq(save(VMEMT_PAGE_NOISE, 1, &ref), -VMEM_ENOSPC, "it was left as it was");
	cr_assert_eq(vmem_store_set_cap(store, vm, VMEM_STORE_NO_CAP), 0);
	cr_assert_eq(save(VMEMT_PAGE_NOISE, 1, &ref), 0);
}

Test(store_caps, a_vm_over_it_is_brought_under_it_by_its_oldest_pages)
{
	enum { PAGES = 1000, LEFT = 400, BATCH = 7 };
	vmem_store_ref ref[PAGES], oldest[BATCH];
	struct vmemt_page page;
	uint64_t cursor = 0;
	uint32_t left = 0, n;

	add_vm(VM_PAGES * VMEM_PAGE_SIZE, VMEM_STORE_NO_CAP);
	for (uint32_t i = 0; i < PAGES; i++)
		cr_assert_eq(save(VMEMT_PAGE_NOISE, i, &ref[i]), 0);
	cr_assert_eq(vmem_store_set_cap(store, vm, 10), 0);
	cr_assert_eq(save(VMEMT_PAGE_NOISE, PAGES, &ref[0]), -VMEM_ENOSPC);
	while (physical() >= LEFT * VMEM_PAGE_SIZE) {
		n = vmem_store_oldest(store, vm, &cursor, oldest, BATCH);
		cr_assert_eq(n, BATCH);
		for (uint32_t i = 0; i < n; i++, left++) {
			cr_assert_eq(vmem_store_peek(store, vm, 0, oldest[i], &page, NULL), 0);
			cr_assert(vmemt_page_is(&page, VMEMT_PAGE_NOISE, left),
				  "page %u was not the oldest", left);
			cr_assert_eq(vmem_store_drop(store, vm, oldest[i]), 0);
		}
	}
	cr_assert(left >= PAGES - LEFT && left < PAGES - LEFT + 2 * BATCH);
	cr_assert_eq(save(VMEMT_PAGE_NOISE, PAGES, &ref[0]), 0, "there is room again");
}
