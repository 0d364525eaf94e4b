/* SPDX-License-Identifier: BSD-2-Clause */
/* What each call of the store promises, one promise a test. */
#include <criterion/criterion.h>
#include <vmem/store.h>
#include "store/store_internal.h"
#include "support/pages.h"
#include "support/fail_alloc.h"

static vmem_store *store;
static uint32_t vm;

static void make(const struct vmem_store_opts *opts)
{
	cr_assert_eq(vmem_store_new(&store, opts), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
}

static void make_default(void)
{
	make(NULL);
}

static void check_and_free(void)
{
	if (store)
		cr_assert_null(vmemi_store_check(store));
	vmem_store_free(store);
}

TestSuite(store, .init = make_default, .fini = check_and_free);
TestSuite(store_opts, .fini = check_and_free);

static vmem_store_ref save(enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page page;
	vmem_store_ref ref = 0;

	vmemt_page_make(&page, kind, seed);
	cr_assert_eq(vmem_store_save(store, vm, seed, &page, &ref), 0);
	cr_assert(ref > 0 && ref < UINT64_C(1) << 56);
	return ref;
}

static void assert_loads(vmem_store_ref ref, enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page page;

	memset(&page, 0xee, sizeof(page));
	cr_assert_eq(vmem_store_load(store, vm, seed, ref, &page, NULL), 0);
	cr_assert(vmemt_page_is(&page, kind, seed));
}

static struct vmem_store_account account_of(uint32_t number)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	cr_assert_eq(vmem_store_vm_account(store, number, &a), 0);
	return a;
}

static struct vmem_store_account total(void)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	cr_assert_eq(vmem_store_total_account(store, &a), 0);
	return a;
}

Test(store_opts, refuses_bad_options)
{
	struct {
		struct vmem_store_opts known;
		uint64_t unknown;
	} newer = { .known.size = sizeof(newer), .unknown = 1 };
	struct vmem_store_opts flag = { .size = sizeof(flag), .flags = UINT64_C(1) << 63 };
	struct vmem_store_opts large = { .size = sizeof(large), .max_object_bytes = 4097 };
	struct vmem_store_opts small = { .size = 1 };
	struct vmem_allocator half = { .size = sizeof(half) };
	struct vmem_store_opts half_allocator = { .size = sizeof(half_allocator),
						  .allocator = &half };

	cr_assert_eq(vmem_store_new(&store, &newer.known), -VMEM_E2BIG);
	cr_assert_eq(vmem_store_new(&store, &flag), -VMEM_EINVAL);
	cr_assert_eq(vmem_store_new(&store, &large), -VMEM_EINVAL);
	cr_assert_eq(vmem_store_new(&store, &small), -VMEM_EINVAL);
	cr_assert_eq(vmem_store_new(&store, &half_allocator), -VMEM_EINVAL);
	cr_assert_null(store);
	vmem_store_free(NULL);
}

Test(store, each_kind_comes_back)
{
	vmem_store_ref ref[VMEMT_PAGE_KINDS];
	struct vmem_store_account a;

	for (uint32_t k = 0; k < VMEMT_PAGE_KINDS; k++)
		ref[k] = save(k, 7 + (uint64_t)k);
	a = account_of(vm);
	cr_assert_eq(a.pages, 5);
	cr_assert_eq(a.pages_same, 3);
	cr_assert_eq(a.pages_compressed, 1);
	cr_assert_eq(a.pages_raw, 1);
	cr_assert_eq(a.logical_bytes, 5 * VMEM_PAGE_SIZE);
	cr_assert_eq(a.saves, 5);
	for (uint32_t k = 0; k < VMEMT_PAGE_KINDS; k++) {
		assert_loads(ref[k], k, 7 + (uint64_t)k);
		assert_loads(ref[k], k, 7 + (uint64_t)k); /* a load does not consume */
	}
	cr_assert_eq(account_of(vm).loads, 10);
	for (uint32_t k = 0; k < VMEMT_PAGE_KINDS; k++)
		cr_assert_eq(vmem_store_drop(store, vm, ref[k]), 0);
	a = account_of(vm);
	cr_assert_eq(a.pages | a.pages_same | a.pages_compressed | a.pages_raw, 0);
	cr_assert_eq(a.logical_bytes | a.physical_bytes, 0);
	cr_assert_eq(a.saves, 5);
}

Test(store, same_filled_pages_take_no_pool)
{
	save(VMEMT_PAGE_ZERO, 1);
	save(VMEMT_PAGE_SAME, 2);
	cr_assert_eq(account_of(vm).physical_bytes, 0);
	cr_assert_eq(total().physical_bytes, 0);
	save(VMEMT_PAGE_WORD, 3);
	cr_assert_gt(account_of(vm).physical_bytes, 0);
	cr_assert_lt(account_of(vm).physical_bytes, 64);
}

Test(store, accounts_reconcile)
{
	uint32_t other;
	struct vmem_store_account a, b, sum;

	cr_assert_eq(vmem_store_add_vm(store, NULL, &other), 0);
	cr_assert_neq(vm, other);
	for (uint64_t i = 0; i < 100; i++) {
		save((enum vmemt_page_kind)(i % VMEMT_PAGE_KINDS), i);
		if (i % 3 == 0)
			vm ^= other, other ^= vm, vm ^= other;
	}
	a = account_of(vm);
	b = account_of(other);
	sum = total();
	cr_assert_eq(a.physical_bytes + b.physical_bytes, sum.physical_bytes);
	cr_assert_eq(a.pages + b.pages, sum.pages);
	cr_assert_eq(sum.pages, 100);
	cr_assert_eq(sum.pages_same, 60);
	cr_assert_eq(sum.pages_compressed, 20);
	cr_assert_eq(sum.pages_raw, 20);
	cr_assert_geq(sum.segment_bytes, sum.physical_bytes);
	cr_assert_gt(sum.metadata_bytes, sizeof(struct vmem_store));
	cr_assert_eq(a.metadata_bytes | a.segment_bytes, 0);
}

Test(store, accounts_of_other_sizes)
{
	struct {
		struct vmem_store_account known;
		uint64_t unknown;
	} newer = { .known.size = sizeof(newer), .unknown = 1 };
	struct vmem_store_account older = { .size = offsetof(struct vmem_store_account, pages_same),
					    .pages_same = 77 };
	struct vmem_store_account none = { .size = 0 };

	save(VMEMT_PAGE_ZERO, 0);
	cr_assert_eq(vmem_store_vm_account(store, vm, &newer.known), 0);
	cr_assert_eq(newer.unknown, 0);
	cr_assert_eq(vmem_store_vm_account(store, vm, &older), 0);
	cr_assert_eq(older.pages, 1);
	cr_assert_eq(older.pages_same, 77);
	cr_assert_eq(vmem_store_vm_account(store, vm, &none), -VMEM_EINVAL);
	cr_assert_eq(vmem_store_total_account(store, &none), -VMEM_EINVAL);
}

Test(store, cap_stops_saves_but_not_same_pages)
{
	struct vmem_store_vm_opts opts = { .size = sizeof(opts),
					   .vm_bytes = 64 * VMEM_PAGE_SIZE,
					   .cap_percent = 25 };
	const uint64_t cap = 16 * VMEM_PAGE_SIZE;
	struct vmemt_page page;
	vmem_store_ref first, ref = 0;
	uint64_t n = 1;
	int rc;

	cr_assert_eq(vmem_store_add_vm(store, &opts, &vm), 0);
	first = save(VMEMT_PAGE_NOISE, 0);
	do {
		vmemt_page_make(&page, VMEMT_PAGE_NOISE, n);
		rc = vmem_store_save(store, vm, n, &page, &ref);
	} while (!rc && n++ < 100);
	cr_assert_eq(rc, -VMEM_ENOSPC);
	cr_assert_geq(account_of(vm).physical_bytes, cap);
	cr_assert_lt(account_of(vm).physical_bytes, cap + VMEM_PAGE_SIZE + 64);
	cr_assert_eq(account_of(vm).rejects, 1);
	cr_assert_eq(account_of(vm).saves, n);
	save(VMEMT_PAGE_SAME, 5);
	assert_loads(first, VMEMT_PAGE_NOISE, 0);

	ref = 0;
	cr_assert_eq(vmem_store_set_cap(store, vm, 50), 0);
	cr_assert_eq(vmem_store_save(store, vm, n, &page, &ref), 0);
	cr_assert_eq(vmem_store_set_cap(store, vm, 1), 0);
	first = ref;
	vmemt_page_make(&page, VMEMT_PAGE_NOISE, n + 1);
	cr_assert_eq(vmem_store_save(store, vm, n, &page, &ref), -VMEM_ENOSPC);
	cr_assert_eq(ref, first, "a failed save set the ref");
	cr_assert_eq(vmem_store_set_cap(store, vm, VMEM_STORE_NO_CAP), 0);
	cr_assert_eq(vmem_store_save(store, vm, n, &page, &ref), 0);
}

Test(store, caps_that_mean_nothing)
{
	struct vmem_store_vm_opts opts = { .size = sizeof(opts), .vm_bytes = 4096 };
	uint32_t number = 99;

	opts.cap_percent = 101;
	cr_assert_eq(vmem_store_add_vm(store, &opts, &number), -VMEM_EINVAL);
	opts.cap_percent = 10;
	opts.vm_bytes = 0;
	cr_assert_eq(vmem_store_add_vm(store, &opts, &number), -VMEM_EINVAL);
	opts.vm_bytes = UINT64_MAX;
	opts.flags = 1;
	cr_assert_eq(vmem_store_add_vm(store, &opts, &number), -VMEM_EINVAL);
	cr_assert_eq(number, 99);
	opts.flags = 0;
	opts.cap_percent = 100;
	cr_assert_eq(vmem_store_add_vm(store, &opts, &number), 0);
	cr_assert_eq(vmem_store_set_cap(store, number, 101), -VMEM_EINVAL);
	cr_assert_eq(vmem_store_set_cap(store, number, 1), 0);
	cr_assert_eq(vmem_store_set_cap(store, number, VMEM_STORE_NO_CAP - 1), -VMEM_EINVAL);
	cr_assert_eq(vmem_store_set_cap(store, vm, 1), -VMEM_EINVAL, "the VM has no size");
	cr_assert_eq(vmem_store_set_cap(store, vm, VMEM_STORE_NO_CAP), 0);
	cr_assert_eq(vmem_store_set_cap(store, 65535, 1), -VMEM_ENOENT);
	vm = number;
	save(VMEMT_PAGE_NOISE, 1);
}

Test(store, caps_are_exact)
{
	struct vmem_store_vm_opts opts = { .size = sizeof(opts),
					   .vm_bytes = UINT64_C(1) << 63,
					   .cap_percent = 2 };
	struct vmemt_page page;
	vmem_store_ref ref;

	cr_assert_eq(vmem_store_add_vm(store, &opts, &vm), 0);
	save(VMEMT_PAGE_NOISE, 1);
	opts.vm_bytes = 99;
	opts.cap_percent = 50;
	cr_assert_eq(vmem_store_add_vm(store, &opts, &vm), 0);
	save(VMEMT_PAGE_NOISE, 1);
	vmemt_page_make(&page, VMEMT_PAGE_NOISE, 2);
	cr_assert_eq(vmem_store_save(store, vm, 2, &page, &ref), -VMEM_ENOSPC);
}

/* Saves noise until it is refused; returns how many were saved. */
static uint64_t fill_up(int expected)
{
	struct vmemt_page page;
	vmem_store_ref ref;
	uint64_t n = 0;
	int rc;

	do {
		vmemt_page_make(&page, VMEMT_PAGE_NOISE, n);
		rc = vmem_store_save(store, vm, n, &page, &ref);
		n += !rc;
	} while (!rc && n < 10000);
	cr_assert_eq(rc, expected);
	return n;
}

Test(store_opts, budget_bounds_segments)
{
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.budget_bytes = 8 * VMEM_POOL_SEGMENT_BYTES };
	uint64_t n;

	make(&opts);
	n = fill_up(-VMEM_ENOSPC);
	cr_assert_gt(n, 6 * 62);
	cr_assert_leq(total().segment_bytes, opts.budget_bytes);
	cr_assert_eq(total().rejects, 1);
	save(VMEMT_PAGE_ZERO, 0);
	vmem_store_set_budget(store, 2 * opts.budget_bytes);
	cr_assert_gt(fill_up(-VMEM_ENOSPC), n / 2);
	cr_assert_leq(total().segment_bytes, 2 * opts.budget_bytes);
}

Test(store_opts, large_objects_are_refused)
{
	struct vmem_store_opts opts = { .size = sizeof(opts), .max_object_bytes = 3000 };
	struct vmemt_page page;
	vmem_store_ref ref = 42;

	make(&opts);
	vmemt_page_make(&page, VMEMT_PAGE_NOISE, 1);
	cr_assert_eq(vmem_store_save(store, vm, 1, &page, &ref), -VMEM_EFBIG);
	cr_assert_eq(ref, 42);
	cr_assert_eq(account_of(vm).rejects, 1);
	cr_assert_eq(account_of(vm).pages, 0);
	assert_loads(save(VMEMT_PAGE_TEXT, 2), VMEMT_PAGE_TEXT, 2);
}

/* Keeps the first half of a page whose halves are equal. */
static size_t half_encode(void *context, void *dst, size_t capacity, const void *page,
			  const void *reference)
{
	const unsigned char *p = page;

	(void)context;
	(void)reference;
	if (capacity < 2048 || memcmp(p, p + 2048, 2048))
		return 0;
	memcpy(dst, p, 2048);
	return 2048;
}

static int half_decode(void *context, void *page, const void *src, size_t bytes,
		       const void *reference)
{
	(void)context;
	(void)reference;
	if (bytes != 2048)
		return -VMEM_EBADMSG;
	memcpy(page, src, 2048);
	memcpy((char *)page + 2048, src, 2048);
	return 0;
}

Test(store_opts, codecs_of_the_callers)
{
	const struct vmem_codec half = { .size = sizeof(half),
					 .name = "half",
					 .id = VMEM_CODEC_USER,
					 .encode = half_encode,
					 .decode = half_decode };
	const struct vmem_codec *const table[] = { &half };
	struct vmem_store_opts opts = { .size = sizeof(opts), .codecs = table, .codec_count = 1 };
	struct vmemt_page page, back;
	vmem_store_ref ref = 0;

	make(&opts);
	vmemt_page_make(&page, VMEMT_PAGE_NOISE, 1);
	memcpy(page.bytes + 2048, page.bytes, 2048);
	cr_assert_eq(vmem_store_save(store, vm, 1, &page, &ref), 0);
	cr_assert_eq(vmem_store_load(store, vm, 1, ref, &back, NULL), 0);
	cr_assert_eq(memcmp(&page, &back, sizeof(page)), 0);
	save(VMEMT_PAGE_TEXT, 2);
	cr_assert_eq(account_of(vm).pages_compressed, 1);
	cr_assert_eq(account_of(vm).pages_raw, 1);
}

static void assert_no_such(uint32_t number, vmem_store_ref ref)
{
	struct vmemt_page page;
	vmem_store_token token = 5;

	cr_assert_eq(vmem_store_load(store, number, 0, ref, &page, &token), -VMEM_ENOENT);
	cr_assert_eq(vmem_store_peek(store, number, 0, ref, &page, &token), -VMEM_ENOENT);
	cr_assert_eq(vmem_store_drop(store, number, ref), -VMEM_ENOENT);
	cr_assert_eq(token, 5);
}

Test(store, peek_is_no_use)
{
	struct vmemt_page page;

	for (uint32_t k = 0; k < VMEMT_PAGE_KINDS; k++) {
		vmem_store_ref ref = save(k, 3);

		cr_assert_eq(vmem_store_peek(store, vm, 3, ref, &page, NULL), 0);
		cr_assert(vmemt_page_is(&page, k, 3));
	}
	cr_assert_eq(account_of(vm).loads, 0);
}

Test(store, batches)
{
	struct vmemt_page page[10];
	struct vmem_store_item item[10] = { 0 };

	for (uint32_t i = 0; i < 10; i++) {
		vmemt_page_make(&page[i], i % VMEMT_PAGE_KINDS, i);
		item[i].page = &page[i];
		item[i].result = 1;
	}
	cr_assert_eq(vmem_store_save_batch(store, vm, item, 10), 10);
	cr_assert_eq(vmem_store_save_batch(store, vm, item, 0), 0);
	item[4].ref ^= UINT64_C(1) << 48;
	memset(page, 0xee, sizeof(page));
	cr_assert_eq(vmem_store_load_batch(store, vm, item, 10), 9);
	for (uint32_t i = 0; i < 10; i++) {
		cr_assert_eq(item[i].result, i == 4 ? -VMEM_ENOENT : 0);
		cr_assert(i == 4 || vmemt_page_is(&page[i], i % VMEMT_PAGE_KINDS, i));
	}
	item[4].ref ^= UINT64_C(1) << 48;
	memset(page, 0xee, sizeof(page));
	cr_assert_eq(vmem_store_peek_batch(store, vm, item, 10), 10);
	for (uint32_t i = 0; i < 10; i++)
		cr_assert(vmemt_page_is(&page[i], i % VMEMT_PAGE_KINDS, i));
	cr_assert_eq(account_of(vm).loads, 9);

	cr_assert_eq(vmem_store_drop_batch(store, vm + 1, item, 10), 0);
	cr_assert_eq(item[9].result, -VMEM_ENOENT);
	cr_assert_eq(vmem_store_load_batch(store, vm + 1, item, 10), 0);
	cr_assert_eq(item[9].result, -VMEM_ENOENT);
	cr_assert_eq(vmem_store_save_batch(store, vm + 1, item, 10), 0);
	cr_assert_eq(item[9].result, -VMEM_ENOENT);
	item[2].ref = item[7].ref; /* twice the same 64-bit word's: the second is not there */
	cr_assert_eq(vmem_store_drop_batch(store, vm, item, 10), 9);
	cr_assert_eq(item[7].result, -VMEM_ENOENT);
	cr_assert_eq(account_of(vm).pages, 1);
}

Test(store, items_keep_their_reserved_words_0)
{
	struct vmemt_page page;
	struct vmem_store_item item[4] = { 0 };

	vmemt_page_make(&page, VMEMT_PAGE_TEXT, 1);
	for (uint32_t i = 0; i < 4; i++)
		item[i].page = &page;
	item[0].ref = item[1].ref = item[2].ref = save(VMEMT_PAGE_TEXT, 2);
	item[0].flags = 1;
	item[1].reserved[0] = 1;
	item[2].reserved[1] = 1;
	cr_assert_eq(vmem_store_save_batch(store, vm, item, 4), 1);
	cr_assert_eq(vmem_store_load_batch(store, vm, item, 4), 1);
	cr_assert_eq(vmem_store_peek_batch(store, vm, item, 4), 1);
	cr_assert_eq(vmem_store_drop_batch(store, vm, item, 4), 1);
	for (uint32_t i = 0; i < 3; i++)
		cr_assert_eq(item[i].result, -VMEM_EINVAL);
	cr_assert_eq(account_of(vm).pages, 1);
}

Test(store, pages_are_aligned)
{
	static _Alignas(8) unsigned char place[VMEM_PAGE_SIZE + 8];

	for (uint32_t k = 0; k < VMEMT_PAGE_KINDS; k++) {
		vmem_store_ref ref = save(k, 1), none = 0;
		struct vmemt_page page;

		for (int by = 1; by < 8; by++) {
			vmemt_page_make(&page, k, 1);
			memcpy(place + by, &page, sizeof(page));
			cr_assert_eq(vmem_store_save(store, vm, 1, place + by, &none),
				     -VMEM_EINVAL);
			cr_assert_eq(vmem_store_load(store, vm, 1, ref, place + by, NULL),
				     -VMEM_EINVAL);
		}
		cr_assert_eq(vmem_store_save(store, vm, 1, NULL, &none), -VMEM_EINVAL);
		cr_assert_eq(vmem_store_load(store, vm, 1, ref, NULL, NULL), -VMEM_EINVAL);
		cr_assert_eq(none, 0);
	}
	cr_assert_eq(account_of(vm).rejects, 0);
}

Test(store, dropped_vm_leaves_nothing)
{
	struct vmem_store_account before, after;
	uint32_t other, again;
	vmem_store_ref ref[VMEMT_PAGE_KINDS];

	cr_assert_eq(vmem_store_add_vm(store, NULL, &other), 0);
	for (uint64_t i = 0; i < 200; i++)
		ref[i % VMEMT_PAGE_KINDS] = save(i % VMEMT_PAGE_KINDS, i);
	for (uint32_t k = 0; k < VMEMT_PAGE_KINDS; k++)
		assert_loads(ref[k], k, 195 + (uint64_t)k);
	before = total();
	cr_assert_eq(vmem_store_drop_vm(store, vm), 0);
	cr_assert_eq(vmem_store_drop_vm(store, vm), -VMEM_ENOENT);
	cr_assert_eq(vmem_store_set_cap(store, vm, 0), -VMEM_ENOENT);
	cr_assert_eq(vmem_store_vm_account(store, vm, &after), -VMEM_ENOENT);
	for (uint32_t k = 0; k < VMEMT_PAGE_KINDS; k++)
		assert_no_such(vm, ref[k]);
	after = total();
	cr_assert_eq(after.pages | after.physical_bytes, 0);
	cr_assert_eq(after.saves, before.saves, "counters since the start do not go back");
	cr_assert_eq(after.loads, before.loads);

	cr_assert_eq(vmem_store_add_vm(store, NULL, &again), 0);
	cr_assert_eq(again, vm, "its number is used again");
	cr_assert_eq(account_of(again).saves, 0);
	assert_no_such(again, ref[VMEMT_PAGE_NOISE]);
	cr_assert_eq(vmem_store_drop(store, again, ref[VMEMT_PAGE_ZERO]), -VMEM_ENOENT);
	assert_loads(save(VMEMT_PAGE_TEXT, 1), VMEMT_PAGE_TEXT, 1);
}

Test(store, as_many_vms_as_promised)
{
	uint32_t last = 0;

	for (uint32_t n = 1; n < 65535; n++)
		cr_assert_eq(vmem_store_add_vm(store, NULL, &last), 0);
	cr_assert_eq(last, 65534);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &last), -VMEM_ENOSPC);
	vm = last;
	assert_loads(save(VMEMT_PAGE_SAME, 1), VMEMT_PAGE_SAME, 1);
	assert_loads(save(VMEMT_PAGE_TEXT, 1), VMEMT_PAGE_TEXT, 1);
	cr_assert_eq(vmem_store_drop_vm(store, 1234), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &last), 0);
	cr_assert_eq(last, 1234);
}

enum { MANY = 8000 };

/* Saves many pages and drops all but each eighth; returns the bytes of segments before that. */
static uint64_t make_sparse(vmem_store_ref ref[MANY], uint64_t seed)
{
	uint64_t full;

	for (uint64_t i = 0; i < MANY; i++)
		ref[i] = save(VMEMT_PAGE_NOISE, seed + i);
	full = total().segment_bytes;
	for (uint64_t i = 0; i < MANY; i++)
		if (i % 8)
			cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
	return full;
}

Test(store, work_gives_sparse_segments_back)
{
	static vmem_store_ref ref[MANY];
	uint64_t full, steps = 0;

	cr_assert_eq(vmem_store_work(store, 1000000, 0), 0, "there is nothing to do");
	full = make_sparse(ref, 0);
	while (vmem_store_work(store, 0, steps * 100000))
		cr_assert_lt(++steps, 1000, "work does not end");
	cr_assert_gt(steps, 4, "a piece is too large");
	cr_assert_lt(total().segment_bytes, full / 4);
	for (uint64_t i = 0; i < MANY; i += 8)
		assert_loads(ref[i], VMEMT_PAGE_NOISE, i);
}

Test(store, work_does_as_much_as_it_may)
{
	static vmem_store_ref ref[MANY];

	make_sparse(ref, 0);
	cr_assert_eq(vmem_store_work(store, 1000000000, 0), 0);
	make_sparse(ref, MANY);
	cr_assert_eq(vmem_store_work(store, 100000, 0), 1);
}

Test(store_opts, works_without_locks)
{
	const struct vmem_env no_locks = { .size = sizeof(no_locks) };
	struct vmem_store_opts opts = { .size = sizeof(opts), .env = &no_locks };

	make(&opts);
	for (uint32_t k = 0; k < VMEMT_PAGE_KINDS; k++)
		assert_loads(save(k, 1), k, 1);
}

Test(store_opts, metadata_is_what_the_allocator_gave)
{
	const struct vmem_codec *lz4 = vmem_codec_lz4(); /* all in its context */
	struct vmemt_fail_alloc tables, segments;
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.allocator = &tables.allocator,
					.segments = &segments.allocator,
					.codecs = &lz4,
					.codec_count = 1 };
	struct vmem_store_account a;

	vmemt_fail_alloc_init(&tables);
	vmemt_fail_alloc_init(&segments);
	make(&opts);
	for (uint64_t i = 0; i < 1000; i++)
		save(VMEMT_PAGE_TEXT, i);
	a = total();
	cr_assert_eq(a.segment_bytes, (uint64_t)segments.live_bytes);
	cr_assert_geq(a.metadata_bytes, (uint64_t)tables.live_bytes);
	cr_assert_leq(a.metadata_bytes, (uint64_t)tables.live_bytes + 16384,
		      "locks come from elsewhere");
	vmem_store_free(store);
	store = NULL;
	cr_assert_eq(tables.live_bytes, 0);
	cr_assert_eq(segments.live_bytes, 0);
}
