/* SPDX-License-Identifier: BSD-2-Clause */
/* The index: what was added is found, best first, and is gone when forgotten; it is small when empty,
 * grows and shrinks a little at a time, and keeps its limit. */
#include "similar/similar_tools.h"

static struct vmemt_fail_alloc memory;

static void done(vmem_similar *s)
{
	cr_assert_eq(vmemi_similar_check(s), 0);
	vmem_similar_free(s);
	cr_assert_eq(memory.live_bytes, 0);
}

Test(similar, options)
{
	struct vmem_similar_opts opts = { .size = sizeof(opts), .flags = 1 };
	struct vmem_similar_stats small = { .size = 1 };
	vmem_similar *s = (vmem_similar *)&opts;

	cr_assert_eq(vmem_similar_new(&s, &opts), -VMEM_EINVAL);
	opts.flags = 0;
	opts.size = 1;
	cr_assert_eq(vmem_similar_new(&s, &opts), -VMEM_EINVAL);
	cr_assert_eq(vmem_similar_new(NULL, NULL), -VMEM_EINVAL);
	cr_assert_eq((void *)s, (void *)&opts);
	cr_assert_eq(vmem_similar_new(&s, NULL), 0);
	cr_assert_eq(vmem_similar_get_stats(s, NULL), -VMEM_EINVAL);
	cr_assert_eq(vmem_similar_get_stats(s, &small), -VMEM_EINVAL);
	vmem_similar_free(s);
	vmem_similar_free(NULL);
}

Test(similar, empty)
{
	vmem_similar *s = vmemt_similar_new(&memory, 0);
	struct vmem_similar_sketch sketch = vmemt_sketch(1), none = { { 0 } };
	uint32_t ids[VMEM_SIMILAR_CANDIDATES] = { 7, 7, 7, 7 };

	cr_assert_eq(vmem_similar_find(s, &sketch, ids), 0);
	cr_assert_eq(ids[0], 7);
	vmem_similar_forget(s, &sketch, 0);
	vmem_similar_add(s, &none, 3);
	cr_assert_eq(vmem_similar_find(s, &none, ids), 0);
	cr_assert_eq(vmemt_similar_stats(s).entries, 0);
	cr_assert_leq(vmemt_similar_stats(s).bytes, 2048);
	cr_assert_eq(vmemt_similar_stats(s).bytes, (uint64_t)memory.live_bytes);
	done(s);
}

/* Four features of a page are kept, and looked for in any place. Candidates are those that share most, then
 * by the place of the first of them; each once; of those with the same feature, the latest. */
Test(similar, best_first)
{
	vmem_similar *s = vmemt_similar_new(&memory, 0);
	struct vmem_similar_sketch page = vmemt_sketch(1), other = vmemt_sketch(2);
	uint32_t ids[VMEM_SIMILAR_CANDIDATES];

	vmem_similar_add(s, &page, 10);
	cr_assert_eq(vmemt_similar_stats(s).entries, VMEM_SIMILAR_KEPT);
	cr_assert_eq(vmem_similar_find(s, &page, ids), 1);
	cr_assert_eq(ids[0], 10);
	cr_assert_eq(vmem_similar_find(s, &other, ids), 0);

	/* One by one: 20, 21, .. have one of page's other features each. */
	for (uint32_t i = 2; i < VMEM_SIMILAR_FEATURES; i++) {
		other = vmemt_sketch(i);
		other.feature[i & 1] = page.feature[i];
		vmem_similar_add(s, &other, 18 + i);
	}
	cr_assert_eq(vmem_similar_find(s, &page, ids), 4);
	for (uint32_t i = 0; i < 4; i++)
		cr_assert_eq(ids[i], i ? 19 + i : 10);

	/* Two of them, the last ones: 30 is named before 20, and 10, of which one is left, after it. */
	other = vmemt_sketch(100);
	other.feature[0] = page.feature[7];
	other.feature[1] = page.feature[1];
	vmem_similar_add(s, &other, 30);
	cr_assert_eq(vmem_similar_find(s, &page, ids), 4);
	cr_assert_eq(ids[0], 30);
	cr_assert_eq(ids[1], 10);
	cr_assert_eq(ids[2], 20);

	/* A later page takes over the features that it has. */
	vmem_similar_add(s, &page, 40);
	cr_assert_eq(vmem_similar_find(s, &page, ids), 4);
	cr_assert_eq(ids[0], 40);
	cr_assert_eq(ids[1], 22);

	/* Only the first are kept. */
	other = vmemt_sketch(200);
	vmem_similar_add(s, &other, 50);
	for (uint32_t i = 0; i < VMEM_SIMILAR_KEPT; i++)
		other.feature[i] = other.feature[VMEM_SIMILAR_KEPT + i];
	cr_assert_eq(vmem_similar_find(s, &other, ids), 0);
	done(s);
}

/* Under these features only, and this id only. */
Test(similar, forget)
{
	vmem_similar *s = vmemt_similar_new(&memory, 0);
	struct vmem_similar_sketch page = vmemt_sketch(1), like = vmemt_sketch(2);
	uint32_t ids[VMEM_SIMILAR_CANDIDATES];

	like.feature[5] = page.feature[1];
	vmem_similar_add(s, &page, 10);
	vmem_similar_forget(s, &like, 11);
	cr_assert_eq(vmemt_similar_stats(s).entries, VMEM_SIMILAR_KEPT);
	vmem_similar_forget(s, &like, 10);
	cr_assert_eq(vmemt_similar_stats(s).entries, VMEM_SIMILAR_KEPT - 1);
	cr_assert_eq(vmem_similar_find(s, &like, ids), 0);
	cr_assert_eq(vmem_similar_find(s, &page, ids), 1);
	vmem_similar_forget(s, &page, 10);
	cr_assert_eq(vmem_similar_find(s, &page, ids), 0);
	cr_assert_eq(vmemt_similar_stats(s).entries, 0);
	done(s);
}

/* A few lines a call, both ways; empty, it is as small as it was. */
Test(similar, grows_and_shrinks)
{
	enum { PAGES = 100000 };
	vmem_similar *s = vmemt_similar_new(&memory, 0);
	uint64_t small = vmemt_similar_stats(s).bytes, most = 0;

	for (uint32_t n = 0; n < 2 * PAGES; n++) {
		struct vmem_similar_sketch sketch = vmemt_sketch(n % PAGES);
		uint32_t lines = s->lines, calls = (uint32_t)memory.calls;

		if (n < PAGES)
			vmem_similar_add(s, &sketch, n);
		else
			vmem_similar_forget(s, &sketch, n - PAGES);
		cr_assert(s->lines <= lines + 8 && lines <= s->lines + 8);
		cr_assert_leq((uint32_t)memory.calls, calls + 3);
		if (n % 5000 == 0)
			cr_assert_eq(vmemi_similar_check(s), 0);
		if (s->lines == s->want_lines && s->entries > 1000)
			cr_assert(s->entries <= 9u * s->lines + VMEM_SIMILAR_KEPT);
		if (vmemt_similar_stats(s).bytes > most)
			most = vmemt_similar_stats(s).bytes;
	}
	cr_assert_gt(most, PAGES * VMEM_SIMILAR_KEPT / 10 * 64);
	cr_assert_eq(vmemt_similar_stats(s).entries, 0);
	cr_assert_leq(vmemt_similar_stats(s).bytes, small + 64);
	done(s);
}

Test(similar, limit)
{
	enum { LIMIT = 65536, PAGES = 20000 };
	vmem_similar *s = vmemt_similar_new(&memory, LIMIT);
	uint32_t ids[VMEM_SIMILAR_CANDIDATES], found = 0;
	struct vmem_similar_sketch sketch;

	for (uint32_t n = 0; n < PAGES; n++) {
		sketch = vmemt_sketch(n);
		vmem_similar_add(s, &sketch, n);
		cr_assert_leq(s->lines * 64, LIMIT);
		/* What comes last is there, whatever has to go. */
		cr_assert_geq(vmem_similar_find(s, &sketch, ids), 1);
		cr_assert_eq(ids[0], n);
	}
	cr_assert_geq(vmemt_similar_stats(s).crowded + 100, PAGES * 2 - LIMIT / 64 * 10);
	cr_assert_eq(s->lines * 64, LIMIT);
	/* 10,240 entries, 2 for a page: the last 500 pages lose few of theirs. */
	for (uint32_t n = PAGES - 500; n < PAGES; n++) {
		sketch = vmemt_sketch(n);
		found += vmem_similar_find(s, &sketch, ids) && ids[0] == n;
	}
	cr_assert_gt(found, 450);

	vmem_similar_set_limit(s, 8192);
	for (uint32_t n = 0; n < 200; n++) {
		sketch = vmemt_sketch(n);
		vmem_similar_add(s, &sketch, n);
	}
	cr_assert_eq(s->lines * 64, 8192);
	vmem_similar_set_limit(s, 1);
	for (uint32_t n = 0; n < 200; n++)
		vmem_similar_forget(s, &sketch, n);
	cr_assert_eq(s->lines, 16);
	cr_assert_leq(vmemt_similar_stats(s).bytes, 2048);
	vmem_similar_set_limit(s, 0);
	for (uint32_t n = 0; n < 2000; n++) {
		sketch = vmemt_sketch(n);
		vmem_similar_add(s, &sketch, n);
	}
	cr_assert_gt(s->lines, 256);
	done(s);
}

static void add_pages(vmem_similar *s, uint32_t first, uint32_t count)
{
	struct vmem_similar_sketch sketch;

	for (uint32_t n = first; n < first + count; n++) {
		sketch = vmemt_sketch(n);
		vmem_similar_add(s, &sketch, n);
	}
}

/* With and without a limit in pages, at all sizes up to @pages. */
Test(similar, limit_in_pages_lets_as_many_in)
{
	enum { PAGES = 20000 };
	struct vmemt_fail_alloc other_memory;
	vmem_similar *s = vmemt_similar_new(&memory, 0);
	vmem_similar *other = vmemt_similar_new(&other_memory, 0);

	for (uint32_t n = 0; n < PAGES; n++) {
		vmem_similar_set_pages(s, n + 1);
		add_pages(s, n, 1);
		add_pages(other, n, 1);
		cr_assert_eq(s->lines, other->lines);
	}
	cr_assert_eq(vmemt_similar_stats(s).entries, vmemt_similar_stats(other).entries);
	vmem_similar_free(other);
	cr_assert_eq(other_memory.live_bytes, 0);
	done(s);
}

Test(similar, limit_in_pages_bounds_what_comes_and_goes)
{
	enum { PAGES = 5000 };
	vmem_similar *s = vmemt_similar_new(&memory, 0);
	uint64_t bytes;

	vmem_similar_set_pages(s, 0);
	vmem_similar_set_pages(s, PAGES);
	add_pages(s, 0, PAGES);
	bytes = vmemt_similar_stats(s).bytes;
	add_pages(s, PAGES, 10 * PAGES);
	cr_assert_leq(vmemt_similar_stats(s).bytes, 2 * bytes);
	/* To and fro by a sixth, at any size: what was cut down is not soon too little. */
	for (uint32_t pages = PAGES; pages > PAGES / 2; pages -= 100) {
		uint32_t lines;

		vmem_similar_set_pages(s, pages - pages / 6);
		lines = s->max_lines;
		vmem_similar_set_pages(s, pages);
		cr_assert_eq(s->max_lines, lines);
	}
	done(s);
}

Test(similar, work_gives_memory_back)
{
	vmem_similar *s = vmemt_similar_new(&memory, 0);
	uint32_t pieces = 0;

	add_pages(s, 0, 20000);
	cr_assert_not(vmem_similar_work(s, 32), "nothing is too many");
	vmem_similar_set_pages(s, 0);
	do {
		uint32_t lines = s->lines;

		vmem_similar_work(s, 32);
		cr_assert_geq(s->lines + 32, lines);
		cr_assert_lt(++pieces, 10000);
	} while (s->lines > 16);
	cr_assert_not(vmem_similar_work(s, 32));
	cr_assert_leq(vmemt_similar_stats(s).bytes, 2048);
	cr_assert_eq(vmemi_similar_check(s), 0);
	done(s);
}
