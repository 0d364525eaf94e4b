/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory of tables comes back when the pages have gone, and is not more for pages that come and go. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include "store/store_internal.h"
#include "support/pages.h"

enum { PAGES = 100000, CONTENTS = 60000 };
enum { SETTLED_PAGES = 7000, TURNS = 10 };
#define PASS_NS UINT64_C(3000000000)

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

/* --- The index of similar pages --- */

/* Pages @first.. of which none is like another. */
static void save_unlike(uint32_t vm, enum vmemt_page_kind kind, uint64_t first)
{
	struct vmemt_page page;

	for (uint64_t i = 0; i < SETTLED_PAGES; i++) {
		if (first) /* in the place of others */
			cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
		vmemt_page_make(&page, kind, first + i);
		cr_assert_eq(vmem_store_save(store, vm, i, &page, &ref[i]), 0);
	}
}

/* All that passes of recompression do. */
static void settle(void)
{
	static uint64_t now_ns;
	uint32_t pieces = 0;

	for (uint32_t pass = 0; pass < 4; pass++) {
		now_ns += PASS_NS;
		while (vmem_store_work(store, 1000000, now_ns))
			pieces++;
	}
	cr_assert_lt(pieces, 1000000);
}

static struct vmem_similar_stats index_of(uint32_t vm)
{
	struct vmem_similar_stats stats = { .size = sizeof(stats) };

	cr_assert_eq(vmem_similar_get_stats(vmemi_store_vm(store, vm)->domain->similar, &stats), 0);
	return stats;
}

static void assert_turnovers_take_no_more(bool in_group)
{
	uint64_t fresh, index_bytes;
	uint32_t vm = add_vm(in_group);

	save_unlike(vm, VMEMT_PAGE_TEXT, 0);
	settle();
	fresh = metadata();
	index_bytes = index_of(vm).bytes;
	for (uint64_t turn = 1; turn <= TURNS; turn++) {
		save_unlike(vm, VMEMT_PAGE_TEXT, turn * SETTLED_PAGES);
		settle();
	}
	cr_assert_leq(metadata(), fresh + fresh / 5);
	cr_assert_leq(index_of(vm).bytes, 2 * index_bytes, "it grows in powers of two");
	for (uint32_t i = 0; i < SETTLED_PAGES; i++)
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
	settle();
	cr_assert_leq(index_of(vm).bytes, 2048);
	cr_assert_eq(vmemi_counter(&vmemi_store_vm(store, vm)->domain->similar_bytes),
		     index_of(vm).bytes);
}

Test(store_shrink, index_of_a_vm_whose_pages_come_and_go)
{
	assert_turnovers_take_no_more(false);
}

Test(store_shrink, index_of_a_group_whose_pages_come_and_go)
{
	assert_turnovers_take_no_more(true);
}

/* It is as large as one without a limit. */
Test(store_shrink, index_has_room_for_all_pages_that_are_there)
{
	uint32_t vm = add_vm(false);
	struct vmem_similar_sketch sketch;
	struct vmem_similar_stats unlimited = { .size = sizeof(unlimited) };
	struct vmemt_page page;
	vmem_similar *similar;

	cr_assert_eq(vmem_similar_new(&similar, NULL), 0);
	save_unlike(vm, VMEMT_PAGE_NOISE, 0);
	settle();
	for (uint64_t i = 0; i < SETTLED_PAGES; i++) {
		vmemt_page_make(&page, VMEMT_PAGE_NOISE, i);
		vmem_similar_sketch(&page, &sketch);
		vmem_similar_add(similar, &sketch, (uint32_t)i);
	}
	cr_assert_eq(vmem_similar_get_stats(similar, &unlimited), 0);
	cr_assert_eq(index_of(vm).bytes, unlimited.bytes);
	cr_assert_geq(index_of(vm).entries, unlimited.entries * 9 / 10);
	vmem_similar_free(similar);
}

Test(store_shrink, index_is_counted_when_pages_are_forgotten)
{
	struct vmemi_domain *d = vmemi_store_vm(store, add_vm(false))->domain;
	struct vmem_similar_sketch sketch = { { 0 } };
	struct vmem_similar_stats full, empty;

	save_unlike(d->stream, VMEMT_PAGE_TEXT, 0);
	for (uint32_t i = 1; i <= SETTLED_PAGES; i++) {
		sketch.feature[0] = i;
		vmemi_domain_learn(d, &sketch, i);
	}
	full = index_of(d->stream);
	cr_assert_eq(vmemi_counter(&d->similar_bytes), full.bytes);
	for (uint32_t i = 1; i <= SETTLED_PAGES; i++) {
		sketch.feature[0] = i;
		vmemi_domain_unlearn(d, &sketch, i);
	}
	empty = index_of(d->stream);
	cr_assert_lt(empty.bytes, full.bytes / 2);
	cr_assert_eq(vmemi_counter(&d->similar_bytes), empty.bytes);
}
