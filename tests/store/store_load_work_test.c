/* SPDX-License-Identifier: BSD-2-Clause */
/* What a load does for a page does not tell what another domain has stored: codecs, locks and allocations
 * are counted while all pages of a VM are loaded, beside another VM that has equal pages, pages like them, or
 * others. store_load_time_test.c measures the same. */
#include <criterion/criterion.h>
#include "store/store_internal.h"
#include "support/fail_alloc.h"
#include "support/pages.h"

enum { FAMILIES = 200, VERSIONS = 3, PAGES = FAMILIES * VERSIONS };

/* What one load did. */
struct work {
	uint32_t decoded[VMEM_CODEC_MAX + 1]; /* times */
	uint32_t bytes[VMEM_CODEC_MAX + 1];   /* that went in */
	uint32_t locks;
	long allocations;
	uint32_t stored_codec, stored_bytes;
};

enum beside { EQUAL, ALIKE, OTHER, BESIDES };

static struct work work[BESIDES][PAGES], *counting;
static struct vmemt_fail_alloc heap;
static struct vmem_codec inner[VMEM_CODEC_MAX + 1];

static void count(uint32_t id, size_t bytes)
{
	if (counting) {
		counting->decoded[id]++;
		counting->bytes[id] += (uint32_t)bytes;
	}
}

#define COUNTING_DECODE(name, id)                                                 \
	static int name(void *context, void *page, const void *src, size_t bytes, \
			const void *reference)                                    \
	{                                                                         \
		count(id, bytes);                                                 \
		return inner[id].decode(context, page, src, bytes, reference);    \
	}

COUNTING_DECODE(decode_lz4, VMEM_CODEC_LZ4)
COUNTING_DECODE(decode_zstd, VMEM_CODEC_ZSTD)
COUNTING_DECODE(decode_delta, VMEM_CODEC_DELTA)

static struct vmem_codec counted(const struct vmem_codec *codec,
				 int (*decode)(void *, void *, const void *, size_t, const void *))
{
	struct vmem_codec c = *codec;

	inner[c.id] = c;
	c.decode = decode;
	return c;
}

static void count_lock(void *context, void *lock)
{
	if (counting)
		counting->locks++;
	vmemi_env_default()->lock(context, lock);
}

static vmem_store *open_store(uint64_t flags)
{
	static struct vmem_codec lz4, zstd, delta;
	const struct vmem_codec *const codecs[] = { &lz4, &zstd, &delta };
	struct vmem_env env = *vmemi_env_default();
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.flags = flags,
					.allocator = &heap.allocator,
					.env = &env,
					.codecs = codecs,
					.codec_count = 3,
					.cold_after_ms = 10 };
	vmem_store *store;

	lz4 = counted(vmem_codec_lz4(), decode_lz4);
	zstd = counted(vmem_codec_zstd(1), decode_zstd);
	delta = counted(vmem_codec_delta(1), decode_delta);
	env.lock = count_lock;
	vmemt_fail_alloc_init(&heap);
	cr_assert_eq(vmem_store_new(&store, &opts), 0);
	return store;
}

static uint32_t add_vm(vmem_store *store, uint32_t sharing)
{
	struct vmem_store_vm_opts opts = { .size = sizeof(opts), .sharing = sharing };
	uint32_t vm;

	cr_assert_eq(vmem_store_add_vm(store, &opts, &vm), 0);
	return vm;
}

/* All take the same when they are encoded alone. */
static void make_page(struct vmemt_page *page, uint64_t family, uint32_t version)
{
	vmemt_page_make(page, VMEMT_PAGE_NOISE, family);
	memset(page->bytes + 1024, (int)(family % 251), sizeof(page->bytes) - 1024);
	for (unsigned i = 0; i < 8; i++)
		page->bytes[i * 509 + 5] ^= (unsigned char)(version + 1);
}

static vmem_store_ref save(vmem_store *store, uint32_t vm, uint64_t family, uint32_t version)
{
	struct vmemt_page page;
	vmem_store_ref ref = 0;

	make_page(&page, family, version);
	cr_assert_eq(vmem_store_save(store, vm, family, &page, &ref), 0);
	return ref;
}

static vmem_store_ref save_beside(vmem_store *store, uint32_t vm, uint32_t i, enum beside beside)
{
	return save(store, vm, i / VERSIONS + (beside == OTHER ? FAMILIES : 0),
		    i % VERSIONS + (beside == ALIKE ? VERSIONS : 0));
}

static void load(vmem_store *store, uint32_t vm, vmem_store_ref ref, uint32_t i, struct work *w)
{
	struct vmemt_page page, expected;
	long before = heap.calls;
	int rc;

	*w = (struct work){ 0 };
	cr_assert_eq(vmem_pool_describe(store->pool, vmemi_ref_payload(ref), &w->stored_codec,
					&w->stored_bytes),
		     0);
	counting = w;
	rc = vmem_store_load(store, vm, i, ref, &page, NULL);
	counting = NULL;
	w->allocations = heap.calls - before;
	cr_assert_eq(rc, 0);
	make_page(&expected, i / VERSIONS, i % VERSIONS);
	cr_assert_eq(memcmp(&page, &expected, sizeof(page)), 0);
}

/* All of a VM beside another, after background work. */
static void run(uint64_t flags, uint32_t sharing, enum beside beside, struct work w[PAGES])
{
	static vmem_store_ref ref[PAGES];
	vmem_store *store = open_store(flags);
	uint32_t vm = add_vm(store, sharing), other = add_vm(store, sharing);

	for (uint32_t i = 0; i < PAGES; i++) {
		save_beside(store, other, i, beside);
		ref[i] = save(store, vm, i / VERSIONS, i % VERSIONS);
	}
	for (uint64_t pass = 1; pass < 6; pass++)
		while (vmem_store_work(store, 1000000, pass * 10000000))
			;
	for (uint32_t i = 0; i < PAGES; i++)
		load(store, vm, ref[i], i, &w[i]);
	vmem_store_free(store);
	cr_assert_eq(heap.live_bytes, 0);
}

static uint32_t differences(const struct work a[PAGES], const struct work b[PAGES])
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < PAGES; i++)
		n += memcmp(&a[i], &b[i], sizeof(a[i])) != 0;
	return n;
}

static uint32_t decoded_by(const struct work w[PAGES], uint32_t codec)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < PAGES; i++)
		n += w[i].decoded[codec] != 0;
	return n;
}

static void run_all(uint64_t flags, uint32_t sharing)
{
	for (int beside = 0; beside < BESIDES; beside++)
		run(flags, sharing, (enum beside)beside, work[beside]);
	for (uint32_t i = 0; i < PAGES; i++)
		cr_assert(!work[OTHER][i].locks && !work[OTHER][i].allocations);
}

Test(store_load_work, is_the_same_whatever_another_domain_has)
{
	run_all(VMEM_STORE_AS_SAVED, VMEM_STORE_SHARE_VM);
	cr_assert_eq(differences(work[EQUAL], work[OTHER]), 0);
	cr_assert_eq(differences(work[ALIKE], work[OTHER]), 0);
	cr_assert_eq(decoded_by(work[OTHER], VMEM_CODEC_LZ4), PAGES);
}

/* When a page is encoded anew depends on how much all have stored: so a few are deltas in one run that are
 * references in another. */
Test(store_load_work, is_the_same_after_background_work)
{
	run_all(0, VMEM_STORE_SHARE_VM);
	cr_assert_lt(differences(work[EQUAL], work[OTHER]), PAGES / 20);
	cr_assert_lt(differences(work[ALIKE], work[OTHER]), PAGES / 20);
	cr_assert_gt(decoded_by(work[OTHER], VMEM_CODEC_LZ4), PAGES / 8);
	cr_assert_gt(decoded_by(work[OTHER], VMEM_CODEC_DELTA), PAGES / 8);
}

/* That what is counted would tell: of those that it may share with, a VM learns. */
Test(store_load_work, tells_in_a_group)
{
	run_all(0, VMEM_STORE_SHARE_GROUP);
	cr_assert_gt(differences(work[ALIKE], work[OTHER]), PAGES / 8);
}
