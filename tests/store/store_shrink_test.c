/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory of tables comes back when the pages have gone. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include "store/store_internal.h"
#include "support/pages.h"

enum { PAGES = 100000, CONTENTS = 60000 };

static vmem_store *store;
static vmem_store_ref *ref;

static void make(void)
{
	cr_assert_eq(vmem_store_new(&store, NULL), 0);
	ref = calloc(PAGES, sizeof(*ref));
	cr_assert_not_null(ref);
}

static void check_and_free(void)
{
	cr_assert_null(vmemi_store_check(store));
	vmem_store_free(store);
	free(ref);
}

TestSuite(store_shrink, .init = make, .fini = check_and_free);

static uint32_t add_vm(bool in_group)
{
	const struct vmem_store_vm_opts opts = { .size = sizeof(opts),
						 .sharing = in_group ? VMEM_STORE_SHARE_GROUP
								     : VMEM_STORE_SHARE_VM };
	uint32_t vm;

	cr_assert_eq(vmem_store_add_vm(store, &opts, &vm), 0);
	return vm;
}

/* Many pages of which some are equal, each only a word: what counts is how many. */
static void save_all(uint32_t vm)
{
	struct vmemt_page page;

	for (uint64_t i = 0; i < PAGES; i++) {
		vmemt_page_make(&page, VMEMT_PAGE_WORD, i % CONTENTS);
		cr_assert_eq(vmem_store_save(store, vm, i, &page, &ref[i]), 0);
	}
}

static void drop_all(uint32_t vm, uint32_t first)
{
	for (uint32_t i = first; i < PAGES; i++)
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
}

static void work(void)
{
	uint32_t pieces = 0;

	while (vmem_store_work(store, 0, 1))
		pieces++;
	cr_assert_lt(pieces, 1000000);
}

static uint64_t metadata(void)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	cr_assert_eq(vmem_store_total_account(store, &a), 0);
	return a.metadata_bytes;
}

/* Of the two tables of a VM: the uses of its domain's objects, and its own but one. */
static uint64_t tables(uint32_t number)
{
	struct vmemi_vm *vm = vmemi_store_vm(store, number);
	struct vmem_dedup_stats of_domain = { .size = sizeof(of_domain) };
	struct vmem_dedup_stats of_vm = { .size = sizeof(of_vm) };

	vmem_dedup_get_stats(vm->domain->dedup, &of_domain);
	vmem_dedup_get_stats(vm->holds.more, &of_vm);
	return of_domain.bytes + of_vm.bytes;
}

Test(store_shrink, when_a_vm_has_dropped_its_pages)
{
	uint32_t vm = add_vm(false);
	uint64_t empty = tables(vm), full, full_metadata;

	save_all(vm);
	work();
	full = tables(vm);
	full_metadata = metadata();
	cr_assert_gt(full, empty + 10 * PAGES / 2);
	drop_all(vm, 0);
	work();
	cr_assert_leq(tables(vm), empty + 4096);
	cr_assert_leq(metadata(), full_metadata - (full - tables(vm)));
}

Test(store_shrink, to_what_the_pages_need_that_are_left)
{
	uint32_t vm = add_vm(false);
	uint64_t full;
	enum { LEFT = 10000 };

	save_all(vm);
	full = tables(vm);
	drop_all(vm, LEFT);
	work();
	cr_assert_lt(tables(vm), full / 4);
	cr_assert_geq(tables(vm), 8 * LEFT, "the pages are there");
}

Test(store_shrink, when_a_vm_leaves_its_group)
{
	uint32_t vm = add_vm(true), stays = add_vm(true);
	uint64_t empty = tables(stays);

	save_all(vm);
	cr_assert_gt(tables(stays), empty + 8 * CONTENTS);
	cr_assert_eq(vmem_store_drop_vm(store, vm), 0);
	work();
	cr_assert_leq(tables(stays), empty + 4096);
}

Test(store_shrink, of_the_last_of_many_vms)
{
	uint32_t vm = 0;
	uint64_t empty;

	for (uint32_t i = 0; i < 5000; i++)
		vm = add_vm(false);
	empty = tables(vm);
	save_all(vm);
	drop_all(vm, 0);
	work();
	cr_assert_leq(tables(vm), empty + 4096);
}

Test(store_shrink, is_looked_for_only_if_there_may_be_some)
{
	uint32_t vm = add_vm(false);

	save_all(vm);
	drop_all(vm, 0);
	work();
	cr_assert_not(atomic_load(&store->loose));
	cr_assert_not(atomic_load(&vmemi_store_vm(store, vm)->loose));
	cr_assert_not(vmemi_store_shrink(store));
}
