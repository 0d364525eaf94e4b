/* SPDX-License-Identifier: BSD-2-Clause */
/* A reference is never a delta itself, whatever the index of similar pages says of its handle: a handle that
 * was dropped may be another page's by now. Each test first brings the store to where that could happen. */
#include <criterion/criterion.h>
#include "dedup/dedup_internal.h"
#include "pool/pool_internal.h"
#include "store/store_close.h"
#include "store/store_internal.h"
#include "support/fail_alloc.h"
#include "support/pages.h"

enum { FILLERS = 20000, BLOCK = 32, BLOCKS = VMEM_PAGE_SIZE / BLOCK, PART = BLOCKS / 8 };
#define PASS_NS UINT64_C(10000000)
#define NEVER 1000000u /* of tries */

static vmem_store *store;
static struct vmemt_fail_alloc heap;
static uint32_t vm;
static uint64_t now, fillers;
static struct vmem_codec lz4; /* LZ4, but for a decode that calls on_decode after it */
static void (*on_decode)(const void *page);

static int decode_lz4(void *context, void *page, const void *src, size_t bytes,
		      const void *reference)
{
	int err = vmem_codec_lz4()->decode(context, page, src, bytes, reference);

	if (!err && on_decode)
		on_decode(page);
	return err;
}

static void open_store(void)
{
	const struct vmem_codec *codecs[] = { &lz4, vmem_codec_zstd(1), vmem_codec_delta(1) };
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.allocator = &heap.allocator,
					.codecs = codecs,
					.codec_count = 3,
					.parallel = 2,
					.cold_after_ms = 10 };

	lz4 = *vmem_codec_lz4();
	lz4.decode = decode_lz4;
	on_decode = NULL;
	vmemt_fail_alloc_init(&heap);
	now = 1;
	fillers = 0;
	cr_assert_eq(vmem_store_new(&store, &opts), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
}

static void close_store(void)
{
	vmemt_store_close(store, &heap);
}

TestSuite(store_one_deep, .init = open_store, .fini = close_store);

/* --- Pages of blocks that do not compress --- */

/* @count of them from block @at on, the first one by number. */
static void put(struct vmemt_page *page, unsigned at, uint64_t number, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		uint64_t state = (number + i) << 16;

		for (unsigned k = 0; k < BLOCK; k += sizeof(state)) {
			uint64_t word = vmemt_rand(&state);

			memcpy(page->bytes + (at + i) * BLOCK + k, &word, sizeof(word));
		}
	}
}

static struct vmem_similar_sketch sketch_of(const struct vmemt_page *page)
{
	struct vmem_similar_sketch sketch;

	vmem_similar_sketch(page, &sketch);
	return sketch;
}

/* Whether the index names the handle for a page, as the first or at all. */
static bool names(const vmem_similar *index, const struct vmemt_page *page, uint32_t handle,
		  bool first)
{
	struct vmem_similar_sketch sketch = sketch_of(page);
	uint32_t ids[VMEM_SIMILAR_CANDIDATES];
	uint32_t count = vmem_similar_find(index, &sketch, ids);

	for (uint32_t i = 0; i < count; i++)
		if (ids[i] == handle)
			return !first || !i;
	return false;
}

/* For choosing pages: an index that knows two, as 1 and 2, the second as the later one. */
static vmem_similar *index_of(const struct vmemt_page *one, const struct vmemt_page *two)
{
	struct vmem_similar_sketch sketch = sketch_of(one);
	vmem_similar *index;

	cr_assert_eq(vmem_similar_new(&index, NULL), 0);
	vmem_similar_add(index, &sketch, 1);
	sketch = sketch_of(two);
	vmem_similar_add(index, &sketch, 2);
	return index;
}

/* --- What is stored --- */

static vmem_store_ref save(const struct vmemt_page *page)
{
	vmem_store_ref ref = 0;

	cr_assert_eq(vmem_store_save(store, vm, 0, page, &ref), 0);
	return ref;
}

static void expect(vmem_store_ref ref, const struct vmemt_page *expected)
{
	struct vmemt_page page;

	cr_assert_eq(vmem_store_load(store, vm, 0, ref, &page, NULL), 0);
	cr_assert_eq(memcmp(&page, expected, sizeof(page)), 0);
}

static uint32_t codec_of(vmem_store_ref ref)
{
	uint32_t codec, bytes;

	cr_assert_eq(vmem_pool_describe(store->pool, vmemi_ref_payload(ref), &codec, &bytes), 0);
	return codec;
}

/* The handle that a delta is made against; 0: it is none. */
static uint32_t reference_of(vmem_store_ref ref)
{
	return vmemi_entry_reference(store->pool,
				     vmemi_entry_of(store->pool, vmemi_ref_payload(ref)));
}

/* The store's index. */
static bool is_named(const struct vmemt_page *page, vmem_store_ref ref, bool first)
{
	return names(vmemi_store_vm(store, vm)->domain->similar, page, vmemi_ref_payload(ref),
		     first);
}

/* So many that all that was saved before is in full segments: of one word each, which no index knows. */
static void save_fillers(void)
{
	for (int i = 0; i < FILLERS; i++) {
		struct vmemt_page page;

		vmem_page_fill(&page, UINT64_C(1) << 40 | ++fillers);
		save(&page);
	}
}

/* A page instead of another one, under its handle. */
static vmem_store_ref save_instead(vmem_store_ref old, const struct vmemt_page *page)
{
	vmem_store_ref ref;

	cr_assert_eq(vmem_store_drop(store, vm, old), 0);
	ref = save(page);
	cr_assert_eq(vmemi_ref_payload(ref), vmemi_ref_payload(old));
	return ref;
}

static void work(unsigned passes)
{
	for (unsigned i = 0; i < passes; i++) {
		now += PASS_NS;
		while (vmem_store_work(store, 1000000, now))
			;
	}
}

/* --- The tests --- */

/* Pages so that the index, which knows @old, would name @large for @base once it knows that too. All of base is
 * in large with much more: no delta against it is worth it, but one of it is. */
static void choose_large(struct vmemt_page *old, struct vmemt_page *base, struct vmemt_page *large)
{
	bool chosen = false;

	for (uint64_t n = 1000; !chosen; n += 2 * BLOCKS) {
		vmem_similar *index;

		cr_assert_lt(n, NEVER);
		memset(old, 0, sizeof(*old));
		put(old, 0, n, PART);
		*base = *old;
		put(base, 5 * PART, 300, 1);
		*large = *base;
		put(large, PART, n + PART, 4 * PART);
		put(large, 5 * PART + 1, n + 5 * PART, BLOCKS - 5 * PART - 1);
		index = index_of(old, large);
		chosen = names(index, base, 2, true);
		vmem_similar_free(index);
	}
}

/* A page under the handle of one that was settled becomes a reference before any pass has looked at it for its
 * own sake. Later one comes by which it could be made a delta. */
Test(store_one_deep, a_reference_is_settled)
{
	struct vmemt_page old, base, large, like, other = { { 0 } };
	vmem_store_ref of_old, of_other, of_like, of_base, of_large;

	choose_large(&old, &base, &large);
	like = old;
	put(&like, 3 * PART, 200, 1);
	put(&other, 0, 400, PART);
	of_other = save(&other);
	of_old = save(&old);
	save_fillers();
	work(2);
	of_like = save(&like);
	save_fillers();
	work(1);
	cr_assert(is_named(&like, of_old, true));
	of_large = save_instead(of_other, &large); /* its handle is looked at first */
	of_base = save_instead(of_old, &base);
	save_fillers();
	work(1);
	cr_assert_eq(reference_of(of_like), vmemi_ref_payload(of_base));
	work(1);
	cr_assert(is_named(&base, of_large, true));
	cr_assert_neq(codec_of(of_large), VMEM_CODEC_DELTA);
	work(2);
	cr_assert_neq(codec_of(of_base), VMEM_CODEC_DELTA);
	expect(of_like, &like);
	expect(of_base, &base);
	expect(of_large, &large);
}

/* Pages so that the index, which knows @r and @a, names @a first for @mixed, which has the blocks of both; and
 * names it still when it knows @mixed too. */
static void choose_mixed(const struct vmemt_page *r, struct vmemt_page *a, struct vmemt_page *mixed)
{
	struct vmem_similar_sketch sketch;
	bool chosen = false;

	for (uint64_t n = 1000; !chosen; n += PART) {
		vmem_similar *index;

		cr_assert_lt(n, NEVER);
		memset(a, 0, sizeof(*a));
		put(a, 0, n, PART);
		*mixed = *r;
		memcpy(mixed->bytes + 4 * PART * BLOCK, a->bytes, PART * BLOCK);
		sketch = sketch_of(mixed);
		index = index_of(r, a);
		chosen = names(index, mixed, 2, true);
		vmem_similar_add(index, &sketch, 3);
		chosen = chosen && names(index, mixed, 2, false);
		vmem_similar_free(index);
	}
}

/* The index names a handle that is a delta's now: it is refused, and not named again. */
Test(store_one_deep, a_delta_is_no_reference)
{
	struct vmemt_page r = { { 0 } }, a, like, mixed;
	vmem_store_ref of_a, of_r, of_like, of_mixed;

	put(&r, 0, 100, 2 * PART);
	choose_mixed(&r, &a, &mixed);
	like = r;
	put(&like, 5 * PART, 300, 1);
	of_r = save(&r);
	of_a = save(&a);
	save_fillers();
	work(2);
	of_like = save_instead(of_a, &like);
	save_fillers();
	work(2);
	cr_assert_eq(reference_of(of_like), vmemi_ref_payload(of_r));
	of_mixed = save(&mixed);
	cr_assert(is_named(&mixed, of_like, true));
	save_fillers();
	work(2);
	cr_assert_neq(codec_of(of_mixed), VMEM_CODEC_DELTA);
	cr_assert(is_named(&mixed, of_mixed, true));
	cr_assert_not(is_named(&mixed, of_like, false));
	expect(of_r, &r);
	expect(of_like, &like);
	expect(of_mixed, &mixed);
}

/* For a_reference_that_changes_while_it_is_read. */
static struct vmemt_page going, coming;
static vmem_store_ref of_going, of_coming;

static void change_reference(const void *page)
{
	if (memcmp(page, &going, sizeof(going)))
		return;
	on_decode = NULL;
	of_coming = save_instead(of_going, &coming);
}

/* It is dropped, and its handle another page's that has the same hash, between reading and using it. */
Test(store_one_deep, a_reference_that_changes_while_it_is_read)
{
	enum { HASH_BITS = 8 };
	struct vmem_store_account a = { .size = sizeof(a) };
	struct vmemt_page like;
	vmem_store_ref of_like;
	uint64_t n = 1000;

	memset(&going, 0, sizeof(going));
	put(&going, 0, 100, 4 * PART); /* LZ4 does as well as zstd */
	like = going;
	put(&like, 5 * PART, 200, 1);
	vmemi_dedup_truncate(vmemi_store_vm(store, vm)->domain->dedup, HASH_BITS);
	do {
		memset(&coming, 0, sizeof(coming));
		put(&coming, 0, n++, PART);
	} while ((vmem_page_checksum(&coming, 0) ^ vmem_page_checksum(&going, 0)) &
		 ((1u << HASH_BITS) - 1));
	of_going = save(&going);
	save_fillers();
	work(2);
	cr_assert_eq(codec_of(of_going), VMEM_CODEC_LZ4);
	of_like = save(&like);
	save_fillers();
	cr_assert(is_named(&like, of_going, true));
	work(1);
	on_decode = change_reference;
	work(1);
	cr_assert_null(on_decode, "nobody read the reference");
	expect(of_like, &like);
	expect(of_coming, &coming);
	cr_assert_eq(vmem_store_drop(store, vm, of_coming), 0);
	cr_assert_eq(vmem_store_load(store, vm, 0, of_coming, &coming, NULL), -VMEM_ENOENT);
	expect(of_like, &like);
	cr_assert_eq(vmem_store_vm_account(store, vm, &a), 0);
	cr_assert_eq(a.pages_lz4 + a.pages_zstd, 1);
}
