/* SPDX-License-Identifier: BSD-2-Clause */
/* Background work seen from its codec: what it asks zstd to encode, and that it stops after the page that it
 * is at when somebody saves or loads meanwhile. */
#include <criterion/criterion.h>
#include "store/store_close.h"
#include "store/store_internal.h"
#include "support/fail_alloc.h"
#include "support/pages.h"

enum { PAGES = 600, DEMAND_PAGES = 8 };
#define LONG_NS UINT64_C(1000000000) /* time for all pages, if nothing stops it */

static vmem_store *store;
static struct vmemt_fail_alloc heap;
static uint32_t vm;
static uint64_t now;
static vmem_store_ref refs[PAGES];
static vmem_store_ref demand_refs[DEMAND_PAGES];
static struct vmem_codec zstd; /* zstd, but for an encode that counts, and calls on_encode */
static unsigned encoded;       /* by zstd */
static void (*on_encode)(void);

static size_t encode_zstd(void *context, void *dst, size_t capacity, const void *page,
			  const void *reference)
{
	encoded++;
	if (on_encode)
		on_encode();
	return vmem_codec_zstd(1)->encode(context, dst, capacity, page, reference);
}

static void open_store(void)
{
	const struct vmem_codec *codecs[] = { vmem_codec_lz4(), &zstd };
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.allocator = &heap.allocator,
					.codecs = codecs,
					.codec_count = 2,
					.parallel = 2,
					.cold_after_ms = 10 };

	zstd = *vmem_codec_zstd(1);
	zstd.encode = encode_zstd;
	on_encode = NULL;
	encoded = 0;
	now = 1;
	vmemt_fail_alloc_init(&heap);
	cr_assert_eq(vmem_store_new(&store, &opts), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
}

static void close_store(void)
{
	vmemt_store_close(store, &heap);
}

TestSuite(store_cold_codec, .init = open_store, .fini = close_store);

static vmem_store_ref save(enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page page;
	vmem_store_ref ref = 0;

	vmemt_page_make(&page, kind, seed);
	cr_assert_eq(vmem_store_save(store, vm, seed, &page, &ref), 0);
	return ref;
}

static void save_pages(enum vmemt_page_kind kind)
{
	for (uint64_t i = 0; i < PAGES; i++)
		refs[i] = save(kind, i);
}

static void expect(vmem_store_ref ref, enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page page;

	cr_assert_eq(vmem_store_load(store, vm, seed, ref, &page, NULL), 0);
	cr_assert(vmemt_page_is(&page, kind, seed));
}

/* Of passes that have begun. */
static void finish_passes(void)
{
	while (vmem_store_work(store, LONG_NS, now))
		;
}

static void begin_pass(void)
{
	now += 10000000;
}

/* --- Who comes meanwhile --- */

static void save_one(void)
{
	demand_refs[encoded % DEMAND_PAGES] = save(VMEMT_PAGE_TEXT, 100000 + encoded);
}

static void load_one(void)
{
	expect(refs[encoded % PAGES], VMEMT_PAGE_TEXT, encoded % PAGES);
}

static void peek_one(void)
{
	struct vmemt_page page;

	cr_assert_eq(vmem_store_peek(store, vm, 0, refs[encoded % PAGES], &page, NULL), 0);
}

/* That takes nothing more. */
static void save_equal(void)
{
	cr_assert_eq(save(VMEMT_PAGE_TEXT, encoded % PAGES), refs[encoded % PAGES]);
}

static void expect_stop(void (*demand)(void))
{
	save_pages(VMEMT_PAGE_TEXT);
	finish_passes();
	begin_pass();
	on_encode = demand;
	for (unsigned i = 1; i <= 3; i++) {
		cr_assert_eq(vmem_store_work(store, LONG_NS, now), 1, "nothing more to do");
		cr_assert_eq(encoded, i, "it goes on to another page");
	}
	on_encode = NULL; /* nobody: it does all others at once */
	cr_assert_eq(vmem_store_work(store, LONG_NS, now), 0);
	cr_assert_gt(encoded, PAGES / 2);
	for (uint64_t i = 0; i < PAGES; i++)
		expect(refs[i], VMEMT_PAGE_TEXT, i);
}

Test(store_cold_codec, a_save_stops_it)
{
	expect_stop(save_one);
	for (unsigned i = 1; i <= 3; i++)
		expect(demand_refs[i], VMEMT_PAGE_TEXT, 100000 + i);
}

Test(store_cold_codec, a_save_of_an_equal_page_stops_it)
{
	expect_stop(save_equal);
}

Test(store_cold_codec, a_load_stops_it)
{
	expect_stop(load_one);
}

Test(store_cold_codec, a_peek_stops_it)
{
	expect_stop(peek_one);
}

/* --- What is worth a try --- */

/* Pages that LZ4 left as they are and that look as if nothing helps are not tried, each other one once. */
Test(store_cold_codec, what_looks_incompressible_is_not_tried)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	save_pages(VMEMT_PAGE_NOISE);
	for (int pass = 0; pass < 4; pass++) {
		finish_passes();
		begin_pass();
	}
	cr_assert_eq(vmem_store_vm_account(store, vm, &a), 0);
	cr_assert_eq(a.pages_raw, PAGES);
	cr_assert_eq(encoded, 0);
	save_pages(VMEMT_PAGE_TEXT);
	for (int pass = 0; pass < 8; pass++) {
		finish_passes();
		begin_pass();
	}
	cr_assert_gt(encoded, PAGES / 2);
	cr_assert_leq(encoded, PAGES);
}
