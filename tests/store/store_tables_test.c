/* SPDX-License-Identifier: BSD-2-Clause */
/* The caller's tables of functions: they are copied, and may be of another version than the library's. */
#include <criterion/criterion.h>
#include <vmem/store.h>
#include "base/alloc.h"
#include "base/lock.h"
#include "store/store_internal.h"
#include "support/pages.h"

/* Tables as a newer caller has them. */
struct tables {
	struct {
		struct vmem_allocator known;
		uint64_t unknown;
	} allocator, segments;
	struct {
		struct vmem_env known;
		uint64_t unknown;
	} env;
	struct {
		struct vmem_codec known;
		uint64_t unknown;
	} codec;
	const struct vmem_codec *codecs[1];
	struct vmem_store_opts opts;
};

static void fill_tables(struct tables *t)
{
	memset(t, 0, sizeof(*t));
	t->allocator.known = t->segments.known = *vmemi_alloc_default();
	t->env.known = *vmemi_env_default();
	t->codec.known = *vmem_codec_raw();
	t->codec.known.id = VMEM_CODEC_USER;
	t->allocator.known.size = sizeof(t->allocator);
	t->segments.known.size = sizeof(t->segments);
	t->env.known.size = sizeof(t->env);
	t->codec.known.size = sizeof(t->codec);
	t->codecs[0] = &t->codec.known;
	t->opts = (struct vmem_store_opts){ .size = sizeof(t->opts),
					    .allocator = &t->allocator.known,
					    .segments = &t->segments.known,
					    .env = &t->env.known,
					    .codecs = t->codecs,
					    .codec_count = 1 };
}

static void use_and_free(vmem_store *store)
{
	struct vmemt_page page;
	vmem_store_ref ref;
	uint32_t vm;

	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
	vmemt_page_make(&page, VMEMT_PAGE_NOISE, 1);
	cr_assert_eq(vmem_store_save(store, vm, 0, &page, &ref), 0);
	memset(&page, 0, sizeof(page));
	cr_assert_eq(vmem_store_load(store, vm, 0, ref, &page, NULL), 0);
	cr_assert(vmemt_page_is(&page, VMEMT_PAGE_NOISE, 1));
	cr_assert_null(vmemi_store_check(store));
	vmem_store_free(store);
}

Test(store_tables, are_copied)
{
	vmem_store *store;
	struct tables t;

	fill_tables(&t);
	cr_assert_eq(vmem_store_new(&store, &t.opts), 0);
	memset(&t, 0xee, sizeof(t));
	use_and_free(store);
}

Test(store_tables, that_are_newer_are_refused_only_if_they_use_what_is_new)
{
	vmem_store *store = NULL;
	struct tables t;
	uint64_t *const unknown[] = { &t.allocator.unknown, &t.segments.unknown, &t.env.unknown,
				      &t.codec.unknown };

	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		fill_tables(&t);
		*unknown[i] = 1;
		cr_assert_eq(vmem_store_new(&store, &t.opts), -VMEM_E2BIG, "table %zu", i);
		cr_assert_null(store);
	}
}

Test(store_tables, shorter_than_the_first_version_are_refused)
{
	vmem_store *store = NULL;
	struct tables t;
	size_t *const size[] = { &t.allocator.known.size, &t.segments.known.size, &t.env.known.size,
				 &t.codec.known.size };

	for (size_t i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
		fill_tables(&t);
		*size[i] = 24;
		cr_assert_eq(vmem_store_new(&store, &t.opts), -VMEM_EINVAL, "table %zu", i);
		cr_assert_null(store);
	}
}
