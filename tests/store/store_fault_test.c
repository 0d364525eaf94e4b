/* SPDX-License-Identifier: BSD-2-Clause */
/* Each allocation, and the making of each lock, fails once in turn: no call does half of its work,
 * nothing leaks, and what is stored can be loaded. */
#include <criterion/criterion.h>
#include "store/store_internal.h"
#include "support/pages.h"
#include "support/fail_alloc.h"
#include "support/fail_locks.h"

enum { VMS = VMEMI_VM_CHUNK + 2, PAGES = 400 };

static void add_vm(vmem_store *store, uint32_t *vm)
{
	int rc;

	*vm = UINT32_MAX;
	rc = vmem_store_add_vm(store, NULL, vm);
	cr_assert(!rc || (rc == -VMEM_ENOMEM && *vm == UINT32_MAX));
	if (rc)
		cr_assert_eq(vmem_store_add_vm(store, NULL, vm), 0, "after one failure");
}

static void add_vms(vmem_store *store, uint32_t vm[VMS])
{
	for (uint32_t v = 0; v < VMS; v++)
		add_vm(store, &vm[v]);
}

static void save_pages(vmem_store *store, const uint32_t vm[VMS], vmem_store_ref ref[PAGES])
{
	struct vmemt_page page;

	for (uint32_t i = 0; i < PAGES; i++) {
		int rc;

		ref[i] = 0;
		vmemt_page_make(&page, i % VMEMT_PAGE_KINDS, i);
		rc = vmem_store_save(store, vm[i % 3], i, &page, &ref[i]);
		cr_assert(!rc || ((rc == -VMEM_ENOMEM || rc == -VMEM_ENOSPC) && !ref[i]));
	}
}

static void load_pages(vmem_store *store, const uint32_t vm[VMS], const vmem_store_ref ref[PAGES])
{
	struct vmemt_page page;

	for (uint32_t i = 0; i < PAGES; i++) {
		if (!ref[i])
			continue;
		cr_assert_eq(vmem_store_load(store, vm[i % 3], i, ref[i], &page, NULL), 0);
		cr_assert(vmemt_page_is(&page, i % VMEMT_PAGE_KINDS, i));
	}
}

/* Uses the store all over; returns how many pages could not be saved. */
static uint64_t exercise(vmem_store *store)
{
	static uint32_t vm[VMS];
	static vmem_store_ref ref[PAGES];
	struct vmem_store_account a = { .size = sizeof(a) };

	add_vms(store, vm);
	save_pages(store, vm, ref);
	for (uint32_t i = 0; i < PAGES; i++)
		if (ref[i] && i % 4 == 1) {
			cr_assert_eq(vmem_store_drop(store, vm[i % 3], ref[i]), 0);
			ref[i] = 0;
		}
	for (uint64_t t = 0; vmem_store_work(store, 50000, t * 50000); t++)
		cr_assert_lt(t, 1000);
	load_pages(store, vm, ref);
	cr_assert_eq(vmem_store_drop_vm(store, vm[2]), 0);
	add_vm(store, &vm[2]);
	save_pages(store, vm, ref);
	load_pages(store, vm, ref);
	cr_assert_null(vmemi_store_check(store));
	cr_assert_eq(vmem_store_total_account(store, &a), 0);
	return a.rejects;
}

Test(store_fault, allocations)
{
	struct vmemt_fail_alloc memory;
	uint64_t rejects = 0;
	long unborn = 0;

	for (long n = 0;; n++) {
		struct vmem_store_opts opts = { .size = sizeof(opts),
						.allocator = &memory.allocator };
		vmem_store *store = NULL;
		int rc;

		vmemt_fail_alloc_init(&memory);
		memory.fail_after = n;
		rc = vmem_store_new(&store, &opts);
		if (rc) {
			cr_assert_eq(rc, -VMEM_ENOMEM);
			cr_assert_null(store);
			unborn++;
		} else {
			rejects += exercise(store);
			vmem_store_free(store);
		}
		cr_assert_eq(memory.live_bytes, 0, "allocation %ld leaks %ld bytes", n,
			     memory.live_bytes);
		if (!memory.failed)
			break;
	}
	cr_assert_geq(unborn, 2);
	cr_assert_geq(rejects, 1, "no save saw a failure");
}

Test(store_fault, locks)
{
	for (long n = 0;; n++) {
		struct vmemt_fail_locks locks;
		struct vmem_store_opts opts = { .size = sizeof(opts), .env = &locks.env };
		vmem_store *store = NULL;
		int rc;

		vmemt_fail_locks_init(&locks);
		locks.fail_after = n;
		rc = vmem_store_new(&store, &opts);
		cr_assert(!rc || (rc == -VMEM_ENOMEM && !store));
		if (!rc)
			exercise(store);
		vmem_store_free(store);
		cr_assert_eq(locks.live, 0);
		if (!locks.failed)
			break;
		cr_assert(rc || n >= 2, "the store has two locks of its own");
	}
}
