/* SPDX-License-Identifier: BSD-2-Clause */
/* Where tables are and how many: no direct map, estimates, units that do not snoop or that remember absence. */
#include <criterion/criterion.h>
#include <vmem/ept_track.h>
#include "ept/ept_internal.h"
#include "ept/ept_tools.h"
#include "support/rng.h"

#define GIB VMEMT_EPT_GIB
#define MIB2 VMEMT_EPT_MIB2

static struct vmemt_ept_pool pool;
static struct vmem_ept_change change;
static uint64_t mapped; /* calls of the callback */

static void *by_callback(void *context, uint64_t hpa)
{
	mapped++;
	return vmemt_ept_page(context, hpa);
}

static vmem_ept *make_mapped(uint32_t levels)
{
	const struct vmem_ept_memory memory = { .size = sizeof(memory),
						.context = &pool,
						.allocate = vmemt_ept_allocate,
						.free = vmemt_ept_give_back,
						.map = by_callback };
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL);
	const struct vmem_ept_opts opts = {
		.size = sizeof(opts), .capabilities = &caps, .memory = &memory, .levels = levels
	};
	vmem_ept *ept = NULL;

	change = VMEMT_EPT_CHANGE;
	cr_assert_eq(vmem_ept_new(&ept, &opts), 0);
	return ept;
}

Test(ept_memory, no_direct_map)
{
	for (uint32_t levels = 4; levels <= 5; levels++) {
		struct vmem_ept_leaf leaf;
		vmem_ept *ept;

		vmemt_ept_pool_init(&pool, 2048);
		ept = make_mapped(levels);
		for (uint64_t again = 0; again < 3; again++)
			cr_assert_eq(vmem_ept_map(ept, GIB + 4096 * again, 4096,
						  &VMEMT_EPT_LEAF(.hpa = 0x7000), 0, &change),
				     0);
		cr_assert_eq(
			vmem_ept_map(ept, 2 * GIB, GIB, &VMEMT_EPT_LEAF(.level = 1), 0, &change),
			0);
		cr_assert_eq(vmem_ept_translate(ept, GIB + 8191, &leaf, NULL), 0);
		cr_assert_eq(leaf.hpa, 0x7fff);
		cr_assert_eq(vmem_ept_merge(ept, 2 * GIB, GIB, 3, &change), 0);
		cr_assert_eq(vmem_ept_unmap(ept, 2 * GIB + 4096, GIB - 4096, &change), 0);
		cr_assert_eq(vmem_ept_translate(ept, 2 * GIB, &leaf, NULL), 0);
		cr_assert_gt(mapped, 1000);
		vmem_ept_free(ept);
		vmemt_ept_pool_destroy(&pool);
	}
}

static uint64_t tables_of(const vmem_ept *ept)
{
	struct vmem_ept_stats s = { .size = sizeof(s) };
	uint64_t tables = 0;

	cr_assert_eq(vmem_ept_get_stats(ept, &s), 0);
	for (uint32_t l = 0; l < VMEM_EPT_LEVELS; l++)
		tables += s.tables[l];
	return tables;
}

/* No mapping needs more than the estimate, and the worst one needs as many. Leaves that are executable, or have
 * sub-pages, may have to be small. */
Test(ept_memory, worst_case)
{
	uint64_t seed = vmemt_seed("worst_case");
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL);

	for (uint32_t i = 0; i < 300; i++) {
		uint32_t level = (uint32_t)(vmemt_rand(&seed) % 4); /* 0: as large as fits */
		uint64_t unit = VMEM_EPT_LEVEL_BYTES(level ? level : 3);
		uint64_t bytes = 4096 * (1 + vmemt_rand(&seed) % (1u << (1 + i % 17)));
		uint64_t border = VMEM_EPT_LEVEL_BYTES(1 + (uint32_t)(vmemt_rand(&seed) % 4)) *
				  (1 + vmemt_rand(&seed) % 300);
		uint64_t gpa =
			(border > bytes ? border - vmemt_rand(&seed) % bytes : 0) & ~UINT64_C(4095);
		const struct vmem_ept_leaf leaf = { .hpa = gpa % unit + unit,
						    .rights = i % 3 ? 1 : 5,
						    .type = VMEM_EPT_WB,
						    .flags = i % 5 ? 0 : VMEM_EPT_LEAF_SUBPAGE,
						    .level = level };
		uint64_t estimate, before;
		vmem_ept *ept;

		vmemt_ept_pool_init(&pool, 1200);
		change = VMEMT_EPT_CHANGE;
		ept = vmemt_ept_make(&pool, &caps, i & 8 ? VMEM_EPT_NO_EXEC_LARGE : 0, 4 + i % 2,
				     0);
		if (i & 4)
			cr_assert_eq(vmem_ept_set_payload(ept, 0, 1024 * GIB, 7, 0, 0, &change), 0);
		before = tables_of(ept);
		estimate = vmem_ept_worst_case(ept, bytes, &leaf);
		cr_assert_leq(estimate, vmem_ept_worst_case(ept, bytes, NULL));
		cr_assert_eq(vmem_ept_map(ept, gpa, bytes, &leaf, 0, &change), 0);
		cr_assert_leq(tables_of(ept) - before, estimate, "%lx + %lx by %u",
			      (unsigned long)gpa, (unsigned long)bytes, level);
		vmem_ept_free(ept);
		vmemt_ept_pool_destroy(&pool);
	}
}

Test(ept_memory, worst_case_is_met)
{
	const uint64_t border = UINT64_C(1) << 39;
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL);
	vmem_ept *ept, *less;

	vmemt_ept_pool_init(&pool, 64);
	change = VMEMT_EPT_CHANGE;
	ept = vmemt_ept_make(&pool, &caps, 0, 4, 0);
	cr_assert_eq(vmem_ept_worst_case(ept, 4096, NULL), 3);
	cr_assert_eq(vmem_ept_worst_case(ept, 8192, &VMEMT_EPT_LEAF(.level = 1)), 6);
	cr_assert_eq(vmem_ept_worst_case(ept, GIB, &VMEMT_EPT_LEAF(.level = 3)), 6);
	cr_assert_eq(vmem_ept_worst_case(ept, GIB, &VMEMT_EPT_LEAF(.level = 0)), 6);
	caps.caps &= ~VMEM_EPT_CAP_1G;
	less = vmemt_ept_make(&pool, &caps, 0, 4, 0);
	cr_assert_eq(vmem_ept_worst_case(less, 8 * GIB, &VMEMT_EPT_LEAF(.level = 3)),
		     vmem_ept_worst_case(less, 8 * GIB, &VMEMT_EPT_LEAF(.level = 2)));
	cr_assert_eq(vmem_ept_map(less, 0, 8 * GIB, &VMEMT_EPT_LEAF(.hpa = 0), 0, &change), 0);
	cr_assert_leq(tables_of(less) - 1,
		      vmem_ept_worst_case(less, 8 * GIB, &VMEMT_EPT_LEAF(.hpa = 0)));
	vmem_ept_free(less);
	cr_assert_eq(vmem_ept_map(ept, border - 4096, 8192, &VMEMT_EPT_LEAF(.hpa = 0), 0, &change),
		     0);
	cr_assert_eq(tables_of(ept), 7);
	vmem_ept_free(ept);
	vmemt_ept_pool_destroy(&pool);
}

/* With NO_EXEC_LARGE what is executable takes tables for 4 KiB leaves, and what is not does not. */
Test(ept_memory, worst_case_of_what_is_executable)
{
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL);
	const uint64_t small = 2 + 2 + 513; /* of levels 3, 2 and 1 */

	for (uint32_t rights = 1; rights < 16; rights++)
		for (int limited = 0; limited < 2; limited++) {
			const struct vmem_ept_leaf leaf = { .rights = rights, .level = 3 };
			vmem_ept *ept;

			vmemt_ept_pool_init(&pool, 1);
			ept = vmemt_ept_make(&pool, &caps, limited ? VMEM_EPT_NO_EXEC_LARGE : 0, 4,
					     0);
			cr_assert_eq(vmem_ept_worst_case(ept, GIB, &leaf),
				     limited && rights >= 4 ? small : 6, "rights %u", rights);
			cr_assert_eq(vmem_ept_worst_case(ept, GIB, NULL), small);
			vmem_ept_free(ept);
			vmemt_ept_pool_destroy(&pool);
		}
}

/* What was written back since the last look: a copy of all pages, as a unit that does not snoop sees them. */
static uint8_t *seen;

static void write_back(const void *at, size_t bytes)
{
	size_t from = (size_t)((const uint8_t *)at - pool.pages) & ~(size_t)63;
	size_t end = ((size_t)((const uint8_t *)at - pool.pages) + bytes + 63) & ~(size_t)63;

	memcpy(seen + from, pool.pages + from, end - from);
}

static void expect_seen(void)
{
	for (uint64_t i = 0; i < pool.count; i++)
		if (pool.used[i])
			cr_assert_eq(memcmp(seen + 4096 * i, pool.pages + 4096 * i, 4096), 0,
				     "page %lu", (unsigned long)i);
}

/* An object whose write-backs are seen. */
static void start_seen(const struct vmem_ept_capabilities *caps, vmem_ept **ret_ept)
{
	vmemt_ept_pool_init(&pool, 256);
	change = VMEMT_EPT_CHANGE;
	*ret_ept = vmemt_ept_make(&pool, caps, VMEM_EPT_AD, 4, 0);
	cr_assert_not_null(*ret_ept);
	seen = malloc(4096 * pool.count);
	cr_assert_not_null(seen);
	memcpy(seen, pool.pages, 4096 * pool.count);
	(*ret_ept)->flags |= VMEM_EPT_WRITE_BACK;
	(*ret_ept)->write_back = write_back;
}

static void stop_seen(vmem_ept *ept)
{
	vmem_ept_free(ept);
	vmemt_ept_pool_destroy(&pool);
	free(seen);
}

static int go_on(void *context, uint64_t gpa, uint64_t bytes, uint32_t bits)
{
	(void)context;
	(void)gpa;
	(void)bytes;
	(void)bits;
	return 0;
}

Test(ept_memory, all_that_changes_is_written_back)
{
	const struct vmem_ept_leaf small = { .rights = 1, .type = VMEM_EPT_WB, .level = 1 };
	const struct vmem_ept_leaf any = { .rights = 1, .type = VMEM_EPT_WB };
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_VTD);
	vmem_ept *ept;

	vmemt_ept_pool_init(&pool, 256);
	change = VMEMT_EPT_CHANGE;
	ept = vmemt_ept_make(&pool, &caps, VMEM_EPT_WRITE_BACK, 4, 0);
#ifdef __x86_64__
	cr_assert_not_null(ept);
	cr_assert_eq(vmem_ept_map(ept, 0, 8192, &small, 0, &change), 0, "by the processor's own");
	vmem_ept_free(ept);
#endif
	ept = vmemt_ept_make(&pool, &caps, 0, 4, 0);
	seen = malloc(4096 * pool.count);
	cr_assert_not_null(seen);
	memcpy(seen, pool.pages, 4096 * pool.count);
	ept->flags |= VMEM_EPT_WRITE_BACK;
	ept->write_back = write_back;
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(vmem_ept_map(ept, GIB - 4096, 3 * MIB2, &small, 0, &change), 0);
		expect_seen();
		cr_assert_eq(vmem_ept_map(ept, 4 * GIB, GIB, &any, 0, &change), 0);
		expect_seen();
		cr_assert_eq(vmem_ept_protect(ept, 4 * GIB + 4096, MIB2, 0, 3, &change), 0);
		expect_seen();
		cr_assert_eq(vmem_ept_split(ept, 4 * GIB + 9 * MIB2, MIB2, 1, &change), 0);
		expect_seen();
		cr_assert_eq(vmem_ept_merge(ept, 4 * GIB + 9 * MIB2, MIB2, 2, &change), 0);
		vmem_ept_flushed(ept, change.epoch);
		expect_seen();
		cr_assert_eq(vmem_ept_set_payload(ept, 2 * GIB, 8192, 5, 1, 0, &change), 0);
		expect_seen();
		cr_assert_eq(vmem_ept_install(ept, 2 * GIB + 8192, &small, NULL), 0);
		expect_seen();
		cr_assert_eq(vmem_ept_map(ept, GIB, 8192, &any, VMEM_EPT_REPLACE, &change), 0);
		expect_seen();
		cr_assert_eq(vmem_ept_unmap(ept, GIB, 4096, &change), 0);
		expect_seen();
		cr_assert_eq(vmem_ept_unmap(ept, 0, 64 * GIB, &change), 0);
		vmem_ept_flushed(ept, change.epoch);
		expect_seen();
	}
	vmem_ept_free(ept);
	vmemt_ept_pool_destroy(&pool);
	free(seen);
}

/* A unit that may write: bits that are cleared, leaves that are logged, and what a flush takes over. */
Test(ept_memory, all_that_is_tracked_is_written_back)
{
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_VTD);
	const struct vmem_ept_leaf small = {
		.rights = 3, .type = VMEM_EPT_WB, .level = 1, .flags = 6
	};
	struct vmem_ept_harvest h = { .size = sizeof(h) };
	uint64_t bitmap[MIB2 / 4096 / 64] = { 0 }, epoch;
	struct vmemi_ept_path path;
	vmem_ept *ept;

	start_seen(&caps, &ept);
	cr_assert_eq(vmem_ept_map(ept, 0, 2 * MIB2, &small, 0, &change), 0);
	expect_seen();
	cr_assert_eq(vmem_ept_log_start(ept, 0, MIB2, 1, &change), 0);
	cr_assert_eq(change.leaves, 512);
	expect_seen();
	for (uint64_t page = 0; page < 512; page += 3) {
		cr_assert_eq(vmem_ept_log_write(ept, page * 4096), 0);
		expect_seen();
	}
	cr_assert_eq(vmem_ept_log_collect(ept, 0, MIB2, bitmap, &change), 0);
	cr_assert_eq(change.leaves, 171);
	expect_seen();
	cr_assert_eq(vmem_ept_log_stop(ept, 0, MIB2, &change), 0);
	cr_assert_eq(change.leaves, 512);
	expect_seen();
	cr_assert_eq(vmem_ept_harvest(ept, 0, MIB2, 3, &h, &change), 0);
	cr_assert_eq(change.leaves, 512);
	expect_seen();
	h.leaf = go_on;
	cr_assert_eq(vmem_ept_harvest(ept, MIB2, MIB2, 3, &h, &change), 0);
	cr_assert_eq(change.leaves, 512);
	expect_seen();
	cr_assert_eq(vmem_ept_harvest(ept, 0, 1024 * GIB, VMEM_EPT_PRUNE | 1, &h, &change), 0);
	expect_seen();
	vmemi_ept_descend(ept, 0, 1, &path);
	cr_assert(!(*path.slots[4] & ept->accessed));
	cr_assert_eq(vmem_ept_merge(ept, 0, MIB2, 2, &change), 0);
	epoch = change.epoch;
	*path.slots[1] |= ept->accessed; /* by a unit that reads the table still */
	vmem_ept_flushed(ept, epoch);
	cr_assert(*path.slots[2] & ept->accessed);
	cr_assert(*path.slots[4] & ept->accessed);
	expect_seen();
	cr_assert_eq(vmem_ept_install(ept, GIB, &small, NULL), 0);
	expect_seen();
	stop_seen(ept);
}

/* Who has seen the link must find the table: that is written back first, whole, and before it is linked. */
static vmem_ept *linking;
static uint64_t links; /* upper entries that were written back and point to a table */

static void is_whole_below(const uint64_t *slot)
{
	const uint8_t *table;

	if ((*slot & (VMEMI_EPT_PRESENT_BIT | VMEMI_EPT_LARGE_BIT | VMEMI_EPT_LEAF)) !=
	    VMEMI_EPT_PRESENT_BIT)
		return;
	links++;
	table = (const uint8_t *)vmemt_ept_page(&pool, *slot & VMEM_EPT_ADDRESS);
	cr_assert_eq(memcmp(seen + (table - pool.pages), table, 4096), 0);
}

static void write_back_in_order(const void *at, size_t bytes)
{
	const uint64_t *slot = at;

	write_back(at, bytes);
	for (size_t i = 0; i < bytes / 8; i++)
		is_whole_below(slot + i);
}

/* All that the unit sees on the way to @gpa is whole, at each time that it sees more. */
Test(ept_memory, tables_are_written_back_before_their_links)
{
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_VTD);
	const struct vmem_ept_leaf large = { .rights = 1, .type = VMEM_EPT_WB };

	start_seen(&caps, &linking);
	linking->write_back = write_back_in_order;
	links = 0;
	cr_assert_eq(vmem_ept_map(linking, 0, GIB, &large, 0, &change), 0);
	cr_assert_eq(links, 1, "a table for 1 GiB");
	cr_assert_eq(vmem_ept_split(linking, 0, MIB2, 1, &change), 0);
	cr_assert_eq(links, 3, "two by a split");
	cr_assert_eq(vmem_ept_unmap(linking, 64 * MIB2 + 4096, 4096, &change), 0);
	cr_assert_eq(links, 4, "one by a hole");
	cr_assert_eq(vmem_ept_map(linking, 600 * GIB, 4096, &large, 0, &change), 0);
	cr_assert_eq(links, 7, "the way to a page");
	expect_seen();
	stop_seen(linking);
}

/* An installer that comes second returns only when what the first has linked is visible to the unit. */
Test(ept_memory, way_of_another_is_written_back)
{
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_VTD);
	vmem_ept *ept;

	vmemt_ept_pool_init(&pool, 16);
	change = VMEMT_EPT_CHANGE;
	ept = vmemt_ept_make(&pool, &caps, VMEM_EPT_AD, 4, 0);
	seen = malloc(4096 * pool.count);
	cr_assert_not_null(seen);
	ept->flags |= VMEM_EPT_WRITE_BACK;
	for (uint64_t page = 0; page < 2; page++) {
		ept->write_back = NULL;
		memcpy(seen, pool.pages, 4096 * pool.count);
		cr_assert_eq(
			vmem_ept_install(ept, 512 * GIB * page, &VMEMT_EPT_LEAF(.hpa = 0), NULL),
			0);
		ept->write_back = write_back;
		if (page == 0)
			cr_assert_eq(vmem_ept_install(ept, MIB2, &VMEMT_EPT_LEAF(.hpa = 0), NULL),
				     0);
		else
			cr_assert_eq(
				vmem_ept_install(ept, 512 * GIB, &VMEMT_EPT_LEAF(.hpa = 0), NULL),
				-VMEM_EEXIST);
		cr_assert_eq(memcmp(seen, pool.pages, 4096), 0, "the root");
	}
	vmem_ept_free(ept);
	vmemt_ept_pool_destroy(&pool);
	free(seen);
}

/* --- Pages that cannot be tables, and the quota --- */

static uint64_t given, bad_address, bad_after;

static int allocate_bad(void *context, uint64_t *ret_hpa)
{
	if (bad_after--)
		return vmemt_ept_allocate(context, ret_hpa);
	*ret_hpa = bad_address;
	return 0;
}

static void take_back(void *context, uint64_t hpa)
{
	if (hpa == bad_address)
		given++;
	else
		vmemt_ept_give_back(context, hpa);
}

static int make_bad(vmem_ept **ret_ept, uint64_t bad, uint64_t after)
{
	struct vmem_ept_memory memory = { .size = sizeof(memory),
					  .context = &pool,
					  .allocate = allocate_bad,
					  .free = take_back };
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL);
	const struct vmem_ept_opts opts = { .size = sizeof(opts),
					    .capabilities = &caps,
					    .memory = &memory };

	memory.offset = (uint64_t)(uintptr_t)pool.pages - VMEMT_EPT_BASE;
	change = VMEMT_EPT_CHANGE;
	bad_address = bad;
	bad_after = after;
	given = 0;
	return vmem_ept_new(ret_ept, &opts);
}

Test(ept_memory, pages_that_cannot_be_tables)
{
	const uint64_t bad[] = { VMEMT_EPT_BASE + 8, UINT64_C(1) << 46, UINT64_MAX };

	vmemt_ept_pool_init(&pool, 16);
	for (uint32_t i = 0; i < 3; i++) {
		vmem_ept *ept = NULL;

		cr_assert_eq(make_bad(&ept, bad[i], 0), -VMEM_ERANGE);
		cr_assert_null(ept);
		cr_assert_eq(given, 1);
		for (uint64_t after = 1; after < 4; after++) {
			cr_assert_eq(make_bad(&ept, bad[i], after), 0);
			cr_assert_eq(
				vmem_ept_map(ept, 0, 4096, &VMEMT_EPT_LEAF(.hpa = 0), 0, &change),
				-VMEM_ERANGE);
			cr_assert_eq(change.reason, VMEM_EPT_HOST_WIDTH);
			cr_assert_eq(given, 1);
			cr_assert_eq(pool.out, 1);
			bad_after = after - 1;
			cr_assert_eq(vmem_ept_install(ept, 0, &VMEMT_EPT_LEAF(.hpa = 0), NULL),
				     -VMEM_ERANGE);
			cr_assert_eq(given, 2);
			cr_assert_eq(pool.out, 1);
			cr_assert_eq(tables_of(ept), 1);
			vmem_ept_free(ept);
		}
	}
	vmemt_ept_pool_destroy(&pool);
}

static vmem_ept *watched;

/* All that an installer needs is its own before it has the first: none is left for one who comes between. */
static int allocate_between(void *context, uint64_t *ret_hpa)
{
	if (watched) {
		cr_assert_eq(watched->pages, 4);
		cr_assert_eq(vmem_ept_install(watched, GIB, &VMEMT_EPT_LEAF(.hpa = 0), NULL),
			     -VMEM_ENOSPC);
	}
	return vmemt_ept_allocate(context, ret_hpa);
}

Test(ept_memory, quota_is_taken_at_once)
{
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL);
	vmem_ept *ept;

	vmemt_ept_pool_init(&pool, 16);
	ept = vmemt_ept_make(&pool, &caps, 0, 4, 4);
	cr_assert_not_null(ept);
	ept->memory.allocate = allocate_between;
	watched = ept;
	cr_assert_eq(vmem_ept_install(ept, 0, &VMEMT_EPT_LEAF(.hpa = 0), NULL), 0);
	watched = NULL;
	cr_assert_eq(ept->pages, 4);
	vmem_ept_free(ept);
	vmemt_ept_pool_destroy(&pool);
}

Test(ept_memory, remembered_absence)
{
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_VTD);
	vmem_ept *ept;

	vmemt_ept_pool_init(&pool, 64);
	change = VMEMT_EPT_CHANGE;
	ept = vmemt_ept_make(&pool, &caps, VMEM_EPT_CACHES_ABSENT, 4, 0);
	for (uint64_t again = 0; again < 3; again++) {
		uint64_t gpa = GIB + 4096 * again;

		cr_assert_eq(vmem_ept_map(ept, gpa, 4096, &VMEMT_EPT_LEAF(.hpa = 0), 0, &change),
			     0);
		cr_assert_eq(change.flush, VMEM_EPT_FLUSH_RANGES);
		cr_assert_eq(change.ranges[0].gpa, gpa);
		cr_assert_eq(change.ranges[0].bytes, 4096);
	}
	cr_assert_eq(vmem_ept_protect(ept, GIB, 8192, 3, 0, &change), 0);
	cr_assert_eq(vmem_ept_protect(ept, GIB, 8192, 0, 3, &change), 0);
	cr_assert_eq(change.flush, VMEM_EPT_FLUSH_RANGES, "they were absent");
	vmem_ept_free(ept);
	vmemt_ept_pool_destroy(&pool);
}
