/* SPDX-License-Identifier: BSD-2-Clause */
/* Accounts add up: those of VMs to the total, and both to what the pool has, also where objects are damaged. */
#include <criterion/criterion.h>
#include "pool/pool_of.h"
#include "store/store_internal.h"
#include "support/pages.h"
#include "support/rng.h"

static vmem_store *store;

static void make(void)
{
	cr_assert_eq(vmem_store_new(&store, NULL), 0);
}

static void free_store(void)
{
	vmem_store_free(store);
}

TestSuite(store_account, .init = make, .fini = free_store);

/* @group 0: none. */
static uint32_t add_vm(uint64_t group)
{
	const struct vmem_store_vm_opts opts = { .size = sizeof(opts),
						 .sharing = group ? VMEM_STORE_SHARE_GROUP
								  : VMEM_STORE_SHARE_VM,
						 .group = group };
	uint32_t vm;

	cr_assert_eq(vmem_store_add_vm(store, &opts, &vm), 0);
	return vm;
}

static vmem_store_ref save(uint32_t vm, enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page page;
	vmem_store_ref ref = 0;

	vmemt_page_make(&page, kind, seed);
	cr_assert_eq(vmem_store_save(store, vm, seed, &page, &ref), 0);
	return ref;
}

static struct vmem_store_account account_of(uint32_t vm)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	cr_assert_eq(vmem_store_vm_account(store, vm, &a), 0);
	return a;
}

static struct vmem_store_account total(void)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	cr_assert_eq(vmem_store_total_account(store, &a), 0);
	return a;
}

/* Flips a bit of the page's object, counted from its header on. */
static void damage(vmem_store_ref ref, uint32_t at)
{
	uint32_t bytes;
	unsigned char *object =
		vmemi_pool_object_bytes(store->pool, vmemi_ref_payload(ref), &bytes);

	cr_assert_lt(at, bytes);
	object[at] ^= 1;
}

Test(store_account, those_of_vms_add_up_to_the_total)
{
	enum { VMS = 60, SAVES = 6000 };
	struct vmem_store_account t, a, sum = { 0 };
	uint64_t state = vmemt_seed("store_account");
	uint32_t vm[VMS];

	for (uint64_t i = 0; i < VMS; i++)
		vm[i] = add_vm(i % 4);
	for (uint32_t i = 0; i < SAVES; i++)
		save(vm[vmemt_rand(&state) % VMS],
		     (enum vmemt_page_kind)(vmemt_rand(&state) % VMEMT_PAGE_KINDS),
		     vmemt_rand(&state) % 100);
	t = total();
	for (uint32_t i = 0; i < VMS; i++) {
		a = account_of(vm[i]);
		sum.pages += a.pages;
		sum.pages_same += a.pages_same;
		sum.pages_compressed += a.pages_compressed;
		sum.pages_raw += a.pages_raw;
		sum.pages_lz4 += a.pages_lz4;
		sum.pages_equal += a.pages_equal;
		sum.physical_bytes += a.physical_bytes;
	}
	cr_assert_eq(t.pages, SAVES);
	cr_assert_eq(sum.pages, t.pages);
	cr_assert_eq(sum.pages_same, t.pages_same);
	cr_assert_eq(sum.pages_compressed, t.pages_compressed);
	cr_assert_eq(sum.pages_raw, t.pages_raw);
	cr_assert_eq(sum.pages_lz4, t.pages_lz4);
	cr_assert_eq(sum.pages_equal, t.pages_equal);
	cr_assert_eq(sum.physical_bytes, t.physical_bytes);
	cr_assert_eq(sum.pages,
		     sum.pages_same + sum.pages_compressed + sum.pages_raw + sum.pages_equal);
	cr_assert_null(vmemi_store_check(store));
}

/* If it took time by the square of their number, this would not end within the time of a test. */
Test(store_account, sum_over_very_many_vms_of_a_group)
{
	enum { VMS = 60000, SUMS = 40, EACH = VMS / SUMS };
	uint32_t vm[SUMS];

	for (uint32_t i = 0; i < VMS; i++)
		vm[i / EACH] = add_vm(1);
	for (uint32_t i = 0; i < SUMS; i++) {
		save(vm[i], VMEMT_PAGE_TEXT, i % 10);
		cr_assert_eq(total().pages, i + 1);
	}
	cr_assert_eq(total().pages_equal, SUMS - 10);
}

Test(store_account, damaged_object_that_stays_is_its_vms)
{
	uint32_t vm = add_vm(0), other = add_vm(0);
	vmem_store_ref ref = save(vm, VMEMT_PAGE_TEXT, 1);
	uint64_t bytes = account_of(vm).physical_bytes;

	save(other, VMEMT_PAGE_TEXT, 1);
	damage(ref, 0); /* in the header: who else uses it cannot be found out */
	cr_assert_eq(vmem_store_drop(store, vm, ref), 0);
	cr_assert_eq(account_of(vm).pages, 0);
	cr_assert_eq(account_of(vm).physical_bytes, bytes);
	cr_assert_eq(total().physical_bytes, 2 * bytes);
}

Test(store_account, damage_that_a_save_meets_is_no_failed_load)
{
	uint32_t vm = add_vm(0);
	vmem_store_ref ref = save(vm, VMEMT_PAGE_TEXT, 1), fresh;
	struct vmem_pool_stats stats = { .size = sizeof(stats) };
	struct vmemt_page page;

	damage(ref, 100);
	fresh = save(vm, VMEMT_PAGE_TEXT, 1);
	cr_assert_neq(fresh, ref, "a page is not kept by a damaged object");
	cr_assert_eq(vmem_store_load(store, vm, 1, fresh, &page, NULL), 0);
	cr_assert_eq(vmem_pool_get_stats(store->pool, &stats), 0);
	cr_assert_eq(stats.corrupt, 0);
	cr_assert_eq(total().corrupt, 0);
	cr_assert_eq(vmem_store_load(store, vm, 1, ref, &page, NULL), -VMEM_EBADMSG);
	cr_assert_eq(vmem_pool_get_stats(store->pool, &stats), 0);
	cr_assert_eq(stats.corrupt, 1);
	cr_assert_eq(account_of(vm).corrupt, 1);
	cr_assert_eq(total().corrupt, 1);
}

Test(store_account, pages_in_their_reference_are_only_counted)
{
	uint32_t vm = add_vm(0);
	vmem_store_ref first = save(vm, VMEMT_PAGE_SAME, 1);
	vmem_store_ref second = save(vm, VMEMT_PAGE_SAME, 2);
	struct vmemt_page page;

	cr_assert_neq(first, second);
	cr_assert_eq(vmem_store_drop(store, vm, first), 0);
	cr_assert_eq(vmem_store_load(store, vm, 1, first, &page, NULL), 0);
	cr_assert(vmemt_page_is(&page, VMEMT_PAGE_SAME, 1));
	cr_assert_eq(vmem_store_drop(store, vm, first), 0, "in the place of the second");
	cr_assert_eq(vmem_store_drop(store, vm, second), -VMEM_ENOENT);
	cr_assert_eq(account_of(vm).pages, 0);
}
