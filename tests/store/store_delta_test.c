/* SPDX-License-Identifier: BSD-2-Clause */
/* Deltas whose memory is damaged: a page may be lost, but never does another one come in its place. */
#include <criterion/criterion.h>
#include "pool/pool_internal.h"
#include "store/store_internal.h"
#include "store/model_pages.h"
#include "support/fail_alloc.h"

enum { FAMILIES = 150, PAGES = FAMILIES * EDITS, NEW_PAGES = 500, DAMAGED = 120 };
#define HEADER sizeof(struct vmemi_object_header)

static vmem_store *store;
static uint32_t vm;
static struct vmemt_fail_alloc heap;
static vmem_store_ref ref[PAGES];
static uint64_t logs, logged_ref;

static void keep_log(void *context, enum vmem_log_code code, uint64_t a, uint64_t b)
{
	(void)context;
	(void)b;
	logs += code == VMEM_LOG_CORRUPT_OBJECT;
	logged_ref = a;
}

static vmem_store_ref save(uint64_t seed)
{
	struct vmemt_page page;
	vmem_store_ref r = 0;

	make_page(&page, VMEMT_PAGE_TEXT, seed);
	cr_assert_eq(vmem_store_save(store, vm, seed, &page, &r), 0);
	return r;
}

/* With deltas among its pages. */
static void make(void)
{
	static const struct vmem_env env = { .size = sizeof(env), .log = keep_log };
	const struct vmem_codec *codecs[] = { vmem_codec_lz4(), vmem_codec_zstd(1),
					      vmem_codec_delta(1) };
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.allocator = &heap.allocator,
					.env = &env,
					.codecs = codecs,
					.codec_count = 3,
					.cold_after_ms = 10 };

	logs = 0;
	vmemt_fail_alloc_init(&heap);
	cr_assert_eq(vmem_store_new(&store, &opts), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
	for (uint64_t i = 0; i < PAGES; i++)
		ref[i] = save(i);
	for (uint64_t pass = 1; pass < 8; pass++)
		while (vmem_store_work(store, 1000000, pass * 10000000))
			;
}

static void destroy(void)
{
	vmem_store_free(store);
	cr_assert_eq(heap.live_bytes, 0);
}

TestSuite(store_delta, .init = make, .fini = destroy);

static unsigned char *object_of(uint32_t handle)
{
	uint32_t bytes;
	unsigned char *object = vmemi_pool_object_bytes(store->pool, handle, &bytes);

	cr_assert_not_null(object);
	return object;
}

/* Of a delta; 0: it is none. */
static uint32_t reference_of(vmem_store_ref r)
{
	return vmemi_entry_reference(store->pool,
				     vmemi_entry_of(store->pool, vmemi_ref_payload(r)));
}

static int load(uint64_t i)
{
	struct vmemt_page page;
	int rc = vmem_store_load(store, vm, i, ref[i], &page, NULL);

	cr_assert(rc || is_page(&page, VMEMT_PAGE_TEXT, i), "another page");
	return rc;
}

Test(store_delta, a_damaged_reference_frees_no_other_page)
{
	uint32_t damaged = 0;

	for (uint64_t i = 0; i < PAGES && damaged < DAMAGED; i++) {
		unsigned bit = damaged % 10; /* low ones: there are pages with such handles */

		if (!reference_of(ref[i]))
			continue;
		object_of(vmemi_ref_payload(ref[i]))[HEADER + bit / 8] ^=
			(unsigned char)(1u << bit % 8);
		cr_assert_eq(load(i), -VMEM_EBADMSG);
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), -VMEM_ENOENT);
		ref[i] = 0;
		damaged++;
	}
	cr_assert_eq(damaged, DAMAGED);
	for (uint64_t i = 0; i < NEW_PAGES; i++) /* what was freed has new pages now */
		save(100000 * EDITS + i);
	for (uint64_t i = 0; i < PAGES; i++)
		cr_assert(!ref[i] || load(i) == 0, "page %lu", (unsigned long)i);
}

/* Its page is lost, and each that needs it is told to be. */
Test(store_delta, a_damaged_page_is_told_for_each_that_needs_it)
{
	struct vmem_store_account a = { .size = sizeof(a) };
	struct vmem_pool_stats stats = { .size = sizeof(stats) };
	uint64_t first = 0, needing = 0;
	uint32_t reference;

	while (first < PAGES && !reference_of(ref[first]))
		first++;
	cr_assert_lt(first, PAGES);
	reference = reference_of(ref[first]);
	object_of(reference)[HEADER + 50] ^= 4;
	for (uint64_t i = 0; i < PAGES; i++) {
		bool needs =
			reference_of(ref[i]) == reference || vmemi_ref_payload(ref[i]) == reference;

		cr_assert_eq(load(i), needs ? -VMEM_EBADMSG : 0);
		needing += needs;
	}
	cr_assert_gt(needing, 1);
	cr_assert_eq(vmem_store_vm_account(store, vm, &a), 0);
	cr_assert_eq(a.corrupt, needing);
	cr_assert_eq(vmem_pool_get_stats(store->pool, &stats), 0);
	cr_assert_eq(stats.corrupt, needing);
	vmem_store_work(store, 0, 0);
	cr_assert_eq(logs, needing < VMEMI_CORRUPT_NOTES ? needing : VMEMI_CORRUPT_NOTES);
	cr_assert_eq(vmemi_ref_payload(logged_ref), reference);
	object_of(reference)[HEADER + 50] ^= 4;
	for (uint64_t i = 0; i < PAGES; i++)
		cr_assert_eq(load(i), 0);
	cr_assert_null(vmemi_store_check(store));
}
