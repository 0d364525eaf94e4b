/* SPDX-License-Identifier: BSD-2-Clause */
/* Stored bytes that change are never given back as a page: one after the other, each byte of a stored
 * object is changed where it lies, in the segments that the test itself handed out. */
#define _GNU_SOURCE /* memmem */
#include <criterion/criterion.h>
#include <stdlib.h>
#include "store/store_internal.h"
#include "support/pages.h"

enum { BLOCKS = 16 };

static struct block {
	unsigned char *memory, *before;
	size_t bytes;
} block[BLOCKS];

static uint64_t logged, logged_ref, logged_vm;

static vmem_store *store;
static uint32_t vm;

static void *segment_alloc(void *context, size_t bytes, size_t align)
{
	(void)context;
	for (int i = 0; i < BLOCKS; i++)
		if (!block[i].memory) {
			cr_assert_eq(posix_memalign((void **)&block[i].memory, align, bytes), 0);
			block[i].bytes = bytes;
			memset(block[i].memory, 0x3c, bytes);
			return block[i].memory;
		}
	return NULL;
}

static void segment_free(void *context, void *memory, size_t bytes, size_t align)
{
	(void)context;
	(void)bytes;
	(void)align;
	for (int i = 0; i < BLOCKS; i++)
		if (block[i].memory == memory)
			block[i].memory = NULL;
	free(memory);
}

static const struct vmem_allocator segments = { .size = sizeof(segments),
						.alloc = segment_alloc,
						.free = segment_free };

static void log_record(void *context, enum vmem_log_code code, uint64_t a, uint64_t b)
{
	(void)context;
	if (code != VMEM_LOG_CORRUPT_OBJECT)
		return;
	logged++;
	logged_ref = a;
	logged_vm = b;
}

static const struct vmem_env env = { .size = sizeof(env), .log = log_record };

static void make(void)
{
	struct vmem_store_opts opts = { .size = sizeof(opts), .segments = &segments, .env = &env };

	cr_assert_eq(vmem_store_new(&store, &opts), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
}

static void check_and_free(void)
{
	cr_assert_null(vmemi_store_check(store));
	vmem_store_free(store);
}

TestSuite(store_corrupt, .init = make, .fini = check_and_free);

static vmem_store_ref save(enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page page;
	vmem_store_ref ref = 0;

	vmemt_page_make(&page, kind, seed);
	cr_assert_eq(vmem_store_save(store, vm, seed, &page, &ref), 0);
	return ref;
}

static int load(vmem_store_ref ref, enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page page;
	int rc = vmem_store_load(store, vm, seed, ref, &page, NULL);

	cr_assert(rc || vmemt_page_is(&page, kind, seed), "wrong bytes came back");
	return rc;
}

static void remember(void)
{
	for (int i = 0; i < BLOCKS; i++)
		if (block[i].memory) {
			block[i].before = malloc(block[i].bytes);
			cr_assert_not_null(block[i].before);
			memcpy(block[i].before, block[i].memory, block[i].bytes);
		}
}

/* Changes each byte that was written since remember(); returns how many were noticed. */
static uint64_t change_each(vmem_store_ref ref, enum vmemt_page_kind kind, uint64_t *ret_bytes)
{
	uint64_t noticed = 0;

	*ret_bytes = 0;
	for (int i = 0; i < BLOCKS; i++) {
		const struct block *b = &block[i];

		for (size_t at = 0; b->before && at < b->bytes; at++) {
			int rc;

			if (b->memory[at] == b->before[at])
				continue;
			++*ret_bytes;
			b->memory[at] ^= (unsigned char)(1u << at % 8);
			rc = load(ref, kind, 99);
			cr_assert(!rc || rc == -VMEM_EBADMSG || rc == -VMEM_ENOENT);
			noticed += rc == -VMEM_EBADMSG;
			b->memory[at] ^= (unsigned char)(1u << at % 8);
		}
		free(b->before);
		block[i].before = NULL;
	}
	return noticed;
}

static void change_object_of(enum vmemt_page_kind kind, uint64_t least_bytes)
{
	struct vmem_store_account a = { .size = sizeof(a) };
	vmem_store_ref beside = save(VMEMT_PAGE_TEXT, 1), ref;
	uint64_t noticed, bytes;

	remember();
	ref = save(kind, 99);
	noticed = change_each(ref, kind, &bytes);
	cr_assert_geq(bytes, least_bytes);
	cr_assert_geq(noticed + 8, bytes, "all but a header is under the checksum");
	cr_assert_eq(vmem_store_vm_account(store, vm, &a), 0);
	cr_assert_eq(a.corrupt, noticed);
	cr_assert_eq(a.pages, 2);
	cr_assert_eq(load(ref, kind, 99), 0, "the bytes are as they were");
	cr_assert_eq(load(beside, VMEMT_PAGE_TEXT, 1), 0);
}

Test(store_corrupt, fill)
{
	change_object_of(VMEMT_PAGE_WORD, 8);
}

Test(store_corrupt, compressed)
{
	change_object_of(VMEMT_PAGE_TEXT, 512);
}

Test(store_corrupt, raw)
{
	change_object_of(VMEMT_PAGE_NOISE, 3900);
}

Test(store_corrupt, is_logged_by_work_not_by_load)
{
	vmem_store_ref ref = save(VMEMT_PAGE_NOISE, 99);
	struct vmemt_page page;
	unsigned char *at = NULL;

	vmemt_page_make(&page, VMEMT_PAGE_NOISE, 99);
	for (int i = 0; i < BLOCKS && !at; i++)
		if (block[i].memory)
			at = memmem(block[i].memory, block[i].bytes, &page, sizeof(page));
	cr_assert_not_null(at);
	at[4095] ^= 0x80;
	cr_assert_eq(vmem_store_peek(store, vm, 0, ref, &page, NULL), -VMEM_EBADMSG);
	cr_assert_eq(load(ref, VMEMT_PAGE_NOISE, 99), -VMEM_EBADMSG);
	cr_assert_eq(logged, 0);
	vmem_store_work(store, 0, 0);
	cr_assert_gt(logged, 0);
	cr_assert_eq(logged_ref, ref);
	cr_assert_eq(logged_vm, vm);
	cr_assert_eq(vmem_store_drop(store, vm, ref), 0);
}
