/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that share objects, and pages that are encoded anew: what they take, and what becomes of them. */
#include <criterion/criterion.h>
#include "pool/pool_internal.h"
#include "store/store_close.h"
#include "store/store_internal.h"
#include "support/fail_alloc.h"
#include "support/pages.h"

enum { PAGES = 600, EDITS = 5 };
#define PASS_NS UINT64_C(10000000)

static vmem_store *store;
static struct vmemt_fail_alloc heap;
static uint64_t now;

static void open_store(void)
{
	const struct vmem_codec *codecs[] = { vmem_codec_lz4(), vmem_codec_zstd(1),
					      vmem_codec_delta(1) };
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.allocator = &heap.allocator,
					.codecs = codecs,
					.codec_count = 3,
					.parallel = 2,
					.cold_after_ms = 10 };

	vmemt_fail_alloc_init(&heap);
	now = 1;
	cr_assert_eq(vmem_store_new(&store, &opts), 0);
}

static void close_store(void)
{
	vmemt_store_close(store, &heap);
}

TestSuite(store_cold, .init = open_store, .fini = close_store);
TestSuite(store_share, .init = open_store, .fini = close_store);

static uint32_t add_vm(enum vmem_store_sharing sharing, uint64_t group)
{
	struct vmem_store_vm_opts opts = { .size = sizeof(opts),
					   .sharing = sharing,
					   .group = group };
	uint32_t vm = UINT32_MAX;

	cr_assert_eq(vmem_store_add_vm(store, &opts, &vm), 0);
	return vm;
}

/* Half a page of letters, which zstd makes half as long as LZ4 does. Versions of a page are alike. */
static void make(struct vmemt_page *page, uint64_t seed, unsigned version)
{
	vmemt_page_make(page, VMEMT_PAGE_NOISE, seed);
	for (unsigned i = 0; i < VMEM_PAGE_SIZE; i++)
		page->bytes[i] = i < VMEM_PAGE_SIZE / 2 ? 'a' + page->bytes[i] % 16 : 0;
	for (unsigned i = 0; version && i < EDITS; i++)
		page->bytes[(i * 331 + 100) % VMEM_PAGE_SIZE] ^= (unsigned char)version;
}

static vmem_store_ref save(uint32_t vm, uint64_t seed, unsigned version)
{
	struct vmemt_page page;
	vmem_store_ref ref = 0;

	make(&page, seed, version);
	cr_assert_eq(vmem_store_save(store, vm, seed, &page, &ref), 0);
	return ref;
}

static void expect(uint32_t vm, vmem_store_ref ref, uint64_t seed, unsigned version)
{
	struct vmemt_page page, expected;

	make(&expected, seed, version);
	memset(&page, 0x5a, sizeof(page));
	cr_assert_eq(vmem_store_load(store, vm, seed, ref, &page, NULL), 0);
	cr_assert_eq(memcmp(&page, &expected, sizeof(page)), 0);
}

static struct vmem_store_account account(uint32_t vm)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	cr_assert_eq(vmem_store_vm_account(store, vm, &a), 0);
	cr_assert_eq(a.pages, a.pages_same + a.pages_compressed + a.pages_raw + a.pages_equal);
	return a;
}

static uint64_t total_bytes(void)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	cr_assert_eq(vmem_store_total_account(store, &a), 0);
	return a.physical_bytes;
}

/* @passes passes to their ends. */
static void work(unsigned passes)
{
	for (unsigned i = 0; i < passes; i++) {
		now += PASS_NS;
		while (vmem_store_work(store, 1000000, now))
			;
	}
}

/* Enough pages that the first are in full segments. */
static void save_fillers(uint32_t vm)
{
	for (uint64_t i = 0; i < PAGES; i++)
		save(vm, 100000 + i, 0);
}

/* --- Sharing --- */

Test(store_share, equal_pages_of_a_vm_are_one)
{
	uint32_t vm = add_vm(VMEM_STORE_SHARE_VM, 0);
	vmem_store_ref first = save(vm, 1, 0), second = save(vm, 1, 0), third = save(vm, 2, 0);
	uint64_t bytes = account(vm).physical_bytes;

	cr_assert_eq(first, second);
	cr_assert_neq(first, third);
	cr_assert(account(vm).pages == 3 && account(vm).pages_equal == 1);
	cr_assert_eq(save(vm, 1, 0), first);
	cr_assert_eq(account(vm).physical_bytes, bytes);
	for (int left = 3; left-- > 0;) {
		expect(vm, first, 1, 0);
		cr_assert_eq(vmem_store_drop(store, vm, first), 0);
	}
	cr_assert_eq(vmem_store_drop(store, vm, first), -VMEM_ENOENT);
	expect(vm, third, 2, 0);
	cr_assert(account(vm).pages == 1 && account(vm).pages_lz4 == 1);
}

/* More uses than a byte counts. */
Test(store_share, many_equal_pages)
{
	uint32_t vm = add_vm(VMEM_STORE_SHARE_VM, 0);
	vmem_store_ref ref = save(vm, 1, 0);

	for (int i = 0; i < 1000; i++)
		cr_assert_eq(save(vm, 1, 0), ref);
	cr_assert_eq(account(vm).pages_equal, 1000);
	for (int i = 0; i < 1000; i++)
		cr_assert_eq(vmem_store_drop(store, vm, ref), 0);
	expect(vm, ref, 1, 0);
	cr_assert_eq(vmem_store_drop(store, vm, ref), 0);
	cr_assert_eq(total_bytes(), 0);
}

Test(store_share, vms_share_nothing_unless_they_want_to)
{
	uint32_t a = add_vm(VMEM_STORE_SHARE_VM, 0), b = add_vm(VMEM_STORE_SHARE_VM, 0);
	uint32_t none = add_vm(VMEM_STORE_SHARE_NONE, 0);
	uint32_t first = add_vm(VMEM_STORE_SHARE_GROUP, 7),
		 other = add_vm(VMEM_STORE_SHARE_GROUP, 8);
	uint32_t vms[] = { a, b, none, none, first, other };
	vmem_store_ref refs[6];
	uint64_t bytes = 0;

	for (int i = 0; i < 6; i++) {
		uint64_t before = total_bytes();

		refs[i] = save(vms[i], 1, 0);
		cr_assert_gt(total_bytes(), before, "VM %d shares", i);
		bytes = bytes ? bytes : total_bytes();
		cr_assert_eq(total_bytes() - before, bytes);
		for (int k = 0; k < i; k++)
			cr_assert_neq(vmemi_ref_payload(refs[i]), vmemi_ref_payload(refs[k]));
	}
	cr_assert_eq(account(none).pages_equal, 0);
	cr_assert_eq(account(none).pages, 2);
}

Test(store_share, a_group_is_one_domain)
{
	uint32_t a = add_vm(VMEM_STORE_SHARE_GROUP, 7), b = add_vm(VMEM_STORE_SHARE_GROUP, 7);
	vmem_store_ref of_a = save(a, 1, 0), of_b = save(b, 1, 0), own = save(b, 2, 0);
	uint64_t bytes = total_bytes();
	struct vmemt_page page;

	cr_assert_neq(of_a, of_b);
	cr_assert_eq(vmemi_ref_payload(of_a), vmemi_ref_payload(of_b));
	cr_assert_eq(account(a).physical_bytes + account(b).physical_bytes, bytes);
	cr_assert_eq(account(a).pages_equal + account(b).pages_equal, 1);
	/* Each of them has its own page, and no other. */
	cr_assert_eq(vmem_store_load(store, a, 0, of_b, &page, NULL), -VMEM_ENOENT);
	cr_assert_eq(vmem_store_load(store, a, 0,
				     vmemi_ref_make(VMEMI_REF_POOL, a, vmemi_ref_payload(own)),
				     &page, NULL),
		     -VMEM_ENOENT);
	cr_assert_eq(vmem_store_drop(store, a, of_a), 0);
	cr_assert_eq(vmem_store_load(store, a, 0, of_a, &page, NULL), -VMEM_ENOENT);
	cr_assert_eq(vmem_store_drop(store, a, of_a), -VMEM_ENOENT);
	expect(b, of_b, 1, 0);
	cr_assert_eq(total_bytes(), bytes);
}

Test(store_share, a_vm_that_ends_leaves_its_group_what_others_use)
{
	uint32_t a = add_vm(VMEM_STORE_SHARE_GROUP, 7), b = add_vm(VMEM_STORE_SHARE_GROUP, 7);
	vmem_store_ref shared, own;

	for (uint64_t i = 0; i < PAGES; i++)
		save(a, i, 0);
	for (int i = 0; i < 3; i++)
		save(a, 5, 0);
	shared = save(b, 5, 0);
	own = save(b, PAGES, 0);
	cr_assert_eq(vmem_store_drop_vm(store, a), 0);
	expect(b, shared, 5, 0);
	expect(b, own, PAGES, 0);
	cr_assert_eq(account(b).physical_bytes, total_bytes());
	cr_assert(account(b).pages == 2 && account(b).pages_equal == 0);
	cr_assert_eq(vmem_store_drop_vm(store, b), 0);
	cr_assert_eq(total_bytes(), 0);
	/* The group has gone with its last VM. */
	a = add_vm(VMEM_STORE_SHARE_GROUP, 7);
	save(a, 5, 0);
	cr_assert_eq(account(a).pages_equal, 0);
}

Test(store_share, what_cannot_be_is_refused)
{
	struct vmem_store_vm_opts wrong[] = { { .sharing = 3 },
					      { .group = 1 },
					      { .reserved = 1 },
					      { .sharing = VMEM_STORE_SHARE_NONE, .group = 1 } };
	uint32_t vm = 77;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		wrong[i].size = sizeof(wrong[i]);
		cr_assert_eq(vmem_store_add_vm(store, &wrong[i], &vm), -VMEM_EINVAL);
	}
	cr_assert_eq(vm, 77);
}

/* A checksum that was damaged in memory is found by its loads; dropping one page of it does not take the
 * object from the other. */
Test(store_share, a_damaged_object_is_kept_for_who_else_uses_it)
{
	uint32_t vm = add_vm(VMEM_STORE_SHARE_VM, 0), bytes;
	vmem_store_ref ref = save(vm, 1, 0);
	struct vmemt_page page;
	unsigned char *object;

	cr_assert_eq(save(vm, 1, 0), ref);
	object = vmemi_pool_object_bytes(store->pool, vmemi_ref_payload(ref), &bytes);
	object[offsetof(struct vmemi_object_header, checksum)] ^= 1;
	cr_assert_eq(vmem_store_load(store, vm, 0, ref, &page, NULL), -VMEM_EBADMSG);
	cr_assert_eq(vmem_store_drop(store, vm, ref), 0);
	cr_assert_eq(account(vm).corrupt, 1);
	object[offsetof(struct vmemi_object_header, checksum)] ^= 1;
	expect(vm, ref, 1, 0);
	cr_assert_eq(vmem_store_drop(store, vm, ref), 0);
	cr_assert_eq(vmem_store_drop_vm(store, vm), 0);
}

/* --- Recompression --- */

Test(store_cold, pages_that_stay_get_smaller)
{
	uint32_t vm = add_vm(VMEM_STORE_SHARE_VM, 0);
	vmem_store_ref refs[PAGES];
	uint64_t bytes;

	for (uint64_t i = 0; i < PAGES; i++)
		refs[i] = save(vm, i, 0);
	bytes = total_bytes();
	work(1); /* sees them */
	cr_assert_eq(account(vm).pages_lz4, PAGES);
	work(1);
	cr_assert_gt(account(vm).pages_zstd, PAGES / 2);
	cr_assert_lt(total_bytes(), bytes * 3 / 4);
	for (uint64_t i = 0; i < PAGES; i++)
		expect(vm, refs[i], i, 0);
	/* After some passes they are what they are. */
	work(5);
	bytes = total_bytes();
	work(1);
	cr_assert_eq(total_bytes(), bytes);
}

Test(store_cold, not_before_their_time)
{
	uint32_t vm = add_vm(VMEM_STORE_SHARE_VM, 0);

	save_fillers(vm);
	work(1);
	for (int i = 0; i < 100; i++)
		vmem_store_work(store, 1000000, now + PASS_NS - 1);
	cr_assert_eq(account(vm).pages_zstd, 0);
	work(1);
	cr_assert_gt(account(vm).pages_zstd, 0);
}

/* Of the domain of a VM. */
static uint64_t objects(uint32_t vm, enum vmemi_form form)
{
	return vmemi_counter(&vmemi_store_vm(store, vm)->domain->objects[form]);
}

/* A page and one like it: the second is a delta. */
static void make_delta(uint32_t vm, uint32_t other, vmem_store_ref *ret_base,
		       vmem_store_ref *ret_like)
{
	*ret_base = save(vm, 1, 0);
	*ret_like = save(other, 1, 1);
	save_fillers(vm);
	work(2);
	cr_assert_eq(objects(vm, VMEMI_FORM_DELTA), 1);
	expect(vm, *ret_base, 1, 0);
	expect(other, *ret_like, 1, 1);
}

static uint32_t bytes_of(vmem_store_ref ref, uint32_t *ret_codec)
{
	uint32_t bytes = 0;

	cr_assert_eq(vmem_pool_describe(store->pool, vmemi_ref_payload(ref), ret_codec, &bytes), 0);
	return bytes;
}

/* A page that zstd has made smaller goes back to LZ4 once deltas need it. */
Test(store_cold, a_reference_is_quick_to_decode)
{
	uint32_t vm = add_vm(VMEM_STORE_SHARE_VM, 0), codec, bytes;
	vmem_store_ref base = save(vm, 1, 0), like, other;

	bytes = bytes_of(base, &codec);
	save_fillers(vm);
	work(2);
	bytes_of(base, &codec);
	cr_assert_eq(codec, VMEM_CODEC_ZSTD);
	like = save(vm, 1, 1);
	other = save(vm, 1, 2);
	for (uint64_t i = 0; i < PAGES; i++)
		save(vm, 400000 + i, 0);
	work(2);
	cr_assert_eq(objects(vm, VMEMI_FORM_DELTA), 2);
	cr_assert_eq(bytes_of(base, &codec), bytes);
	cr_assert_eq(codec, VMEM_CODEC_LZ4);
	expect(vm, base, 1, 0);
	expect(vm, like, 1, 1);
	expect(vm, other, 1, 2);
}

Test(store_cold, a_delta_needs_its_reference)
{
	uint32_t vm = add_vm(VMEM_STORE_SHARE_VM, 0);
	vmem_store_ref base, like;
	struct vmemt_page page;
	uint64_t bytes;

	make_delta(vm, vm, &base, &like);
	/* Dropped by its VM, but there. */
	bytes = total_bytes();
	cr_assert_eq(vmem_store_drop(store, vm, base), 0);
	cr_assert_eq(total_bytes(), bytes);
	cr_assert_eq(vmem_store_load(store, vm, 0, base, &page, NULL), -VMEM_ENOENT);
	cr_assert_eq(vmem_store_drop(store, vm, base), -VMEM_ENOENT);
	expect(vm, like, 1, 1);
	/* Its VM may have it back. */
	cr_assert_eq(save(vm, 1, 0), base);
	cr_assert_eq(total_bytes(), bytes);
	expect(vm, base, 1, 0);
	cr_assert_eq(vmem_store_drop(store, vm, base), 0);
	/* It goes with its last delta. */
	cr_assert_eq(vmem_store_drop(store, vm, like), 0);
	cr_assert_eq(account(vm).pages, PAGES);
	cr_assert_null(vmemi_store_check(store));
}

Test(store_cold, a_damaged_reference_is_told_for_its_deltas_too)
{
	uint32_t vm = add_vm(VMEM_STORE_SHARE_VM, 0), bytes;
	vmem_store_ref base, like;
	struct vmemt_page page;
	unsigned char *object;

	make_delta(vm, vm, &base, &like);
	object = vmemi_pool_object_bytes(store->pool, vmemi_ref_payload(base), &bytes);
	object[bytes - 1] ^= 1;
	cr_assert_eq(vmem_store_load(store, vm, 0, base, &page, NULL), -VMEM_EBADMSG);
	cr_assert_eq(vmem_store_load(store, vm, 0, like, &page, NULL), -VMEM_EBADMSG);
	cr_assert_eq(account(vm).corrupt, 2);
	object[bytes - 1] ^= 1;
	expect(vm, like, 1, 1);
}

Test(store_cold, references_are_of_the_domain)
{
	uint32_t a = add_vm(VMEM_STORE_SHARE_VM, 0), b = add_vm(VMEM_STORE_SHARE_VM, 0);
	uint32_t none = add_vm(VMEM_STORE_SHARE_NONE, 0);

	save(a, 1, 0);
	save(b, 1, 1);
	save(none, 1, 2);
	save(none, 1, 3);
	save_fillers(a);
	for (uint64_t i = 0; i < PAGES; i++) {
		save(b, 200000 + i, 0);
		save(none, 300000 + i, 0);
	}
	work(3);
	cr_assert_gt(account(none).pages_zstd, 0);
	cr_assert_eq(account(a).pages_delta | account(b).pages_delta | account(none).pages_delta,
		     0);
}

Test(store_cold, a_group_has_references_together)
{
	uint32_t a = add_vm(VMEM_STORE_SHARE_GROUP, 7), b = add_vm(VMEM_STORE_SHARE_GROUP, 7);
	vmem_store_ref base, like;

	make_delta(a, b, &base, &like);
	cr_assert_eq(vmem_store_drop_vm(store, a), 0);
	expect(b, like, 1, 1);
	cr_assert_eq(account(b).physical_bytes, total_bytes());
	cr_assert_eq(vmem_store_drop_vm(store, b), 0);
	cr_assert_eq(total_bytes(), 0);
}

Test(store_cold, the_limit_of_pages_a_second)
{
	const struct vmem_codec *codecs[] = { vmem_codec_lz4(), vmem_codec_zstd(1) };
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.codecs = codecs,
					.codec_count = 2,
					.cold_after_ms = 10,
					.cold_pages_per_second = 10 };
	uint64_t before = 0;

	close_store();
	vmemt_fail_alloc_init(&heap);
	opts.allocator = &heap.allocator;
	cr_assert_eq(vmem_store_new(&store, &opts), 0);
	save_fillers(add_vm(VMEM_STORE_SHARE_VM, 0));
	now = 1000000000;
	work(1);
	for (int second = 1; second < 5; second++) {
		now = 1000000000 + (uint64_t)second * 1000000001;
		while (vmem_store_work(store, 1000000, now))
			;
		cr_assert_leq(account(0).pages_zstd, before + 10);
		cr_assert_gt(account(0).pages_zstd, before);
		before = account(0).pages_zstd;
	}
}

Test(store_cold, not_if_it_is_not_wanted)
{
	const struct vmem_codec *codecs[] = { vmem_codec_lz4(), vmem_codec_zstd(1) };
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.flags = VMEM_STORE_AS_SAVED,
					.codecs = codecs,
					.codec_count = 2,
					.cold_after_ms = 10 };

	close_store();
	vmemt_fail_alloc_init(&heap);
	opts.allocator = &heap.allocator;
	cr_assert_eq(vmem_store_new(&store, &opts), 0);
	save_fillers(add_vm(VMEM_STORE_SHARE_VM, 0));
	work(3);
	cr_assert_eq(account(0).pages_zstd, 0);
}

/* The budget is full of LZ4 before the first pass: there is room for what makes more of it. */
Test(store_cold, in_a_full_budget)
{
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.budget_bytes = 16 * VMEM_POOL_SEGMENT_BYTES,
					.cold_after_ms = 10 };
	struct vmemt_page page;
	uint64_t seed = 0;
	uint32_t vm;
	int err = 0;

	vmem_store_free(store);
	cr_assert_eq(vmem_store_new(&store, &opts), 0);
	vm = add_vm(VMEM_STORE_SHARE_VM, 0);
	while (!err) {
		vmem_store_ref ref;

		make(&page, seed++, 0);
		err = vmem_store_save(store, vm, seed, &page, &ref);
		cr_assert_lt(seed, 10000);
	}
	cr_assert_eq(err, -VMEM_ENOSPC);
	work(4);
	cr_assert_gt(account(vm).pages_zstd, seed / 2);
	save_fillers(vm);
}
