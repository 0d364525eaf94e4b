/* SPDX-License-Identifier: BSD-2-Clause */
/* What went wrong in other builders when they were run, by number: here it is an error that changes nothing and says why.
 * And what is refused in general: widths, alignment, sizes of structures. */
#include "ept/ept_fixture.h"

static struct vmem_ept_capabilities caps;
static uint8_t *copy;

static void begin(uint32_t format, uint32_t levels, uint64_t quota)
{
	caps = vmemt_ept_caps_of(format, levels);
	open_ept(1200, &caps, 0, levels, quota);
	copy = malloc(4096 * pool.count);
	cr_assert_not_null(copy);
}

static void end(void)
{
	close_ept();
	free(copy);
}

static int map(uint64_t gpa, uint64_t bytes, uint64_t hpa, uint32_t level)
{
	return map_at(gpa, bytes, hpa, level, 0);
}

static void remember(void)
{
	memcpy(copy, pool.pages, 4096 * pool.count);
}

/* All pages that are in use are as they were, and no others are. */
static void expect_unchanged(uint64_t in_use)
{
	cr_assert_eq(pool.out, in_use);
	for (uint64_t i = 0; i < pool.count; i++)
		if (pool.used[i])
			cr_assert_eq(memcmp(copy + 4096 * i, pool.pages + 4096 * i, 4096), 0);
}

static void expect_reason(uint32_t reason, uint64_t at)
{
	cr_assert_eq(change.reason, reason, "%u", change.reason);
	cr_assert_eq(change.at, at, "%lx", (unsigned long)change.at);
	cr_assert_eq(change.leaves, 0);
	cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
	cr_assert_eq(change.epoch, 0);
}

Test(ept_defects, number_1_rights_where_the_top_entry_is_absent)
{
	for (uint32_t levels = 4; levels <= 5; levels++) {
		begin(VMEM_EPT_INTEL, levels, 0);
		remember();
		cr_assert_eq(
			vmem_ept_protect(ept, 0, UINT64_C(1) << 48, VMEM_EPT_WRITE, 0, &change), 0);
		expect_reason(VMEM_EPT_FINE, 0);
		cr_assert_eq(vmem_ept_set_type(ept, 300 * GIB, 700 * GIB, VMEM_EPT_UC, 0, &change),
			     0);
		cr_assert_eq(vmem_ept_unmap(ept, 0, UINT64_C(1) << 48, &change), 0);
		cr_assert_eq(vmem_ept_split(ept, 0, UINT64_C(1) << 48, 1, &change), 0);
		cr_assert_eq(vmem_ept_merge(ept, 0, UINT64_C(1) << 48, 3, &change), 0);
		expect_unchanged(1);
		end();
	}
}

Test(ept_defects, number_2_no_memory_for_tables)
{
	begin(VMEM_EPT_INTEL, 4, 0);
	cr_assert_eq(map(0, 4096, 0, 0), 0);
	remember();
	pool.left = 254; /* of 2 + 511 */
	cr_assert_eq(map(4096, GIB + MIB2, GIB, 1), -VMEM_ENOMEM);
	expect_reason(VMEM_EPT_NO_MEMORY, 4096);
	expect_unchanged(4);
	end();
	begin(VMEM_EPT_INTEL, 4, 100);
	remember();
	cr_assert_eq(map(0, GIB, GIB, 1), -VMEM_ENOSPC);
	expect_reason(VMEM_EPT_QUOTA, 0);
	expect_unchanged(1);
	cr_assert_eq(map(0, 97 * MIB2, GIB, 1), 0, "root, two above, 97");
	cr_assert_eq(pool.out, 100);
	/* Those that wait are still the object's. */
	cr_assert_eq(vmem_ept_unmap(ept, 0, MIB2, &change), 0);
	cr_assert_eq(map(0, 4096, GIB, 1), -VMEM_ENOSPC);
	cr_assert_eq(vmem_ept_unmap(ept, 0, MIB2, &change), 0);
	vmem_ept_flushed(ept, 1);
	cr_assert_eq(map(0, 4096, GIB, 1), 0);
	end();
}

Test(ept_defects, number_3_over_a_leaf)
{
	begin(VMEM_EPT_INTEL, 4, 0);
	cr_assert_eq(map(GIB + 9 * 4096, 4096, 0, 0), 0);
	cr_assert_eq(map(2 * GIB, MIB2, 0, 0), 0);
	remember();
	cr_assert_eq(map(GIB + 9 * 4096, 4096, 4096, 0), -VMEM_EEXIST);
	expect_reason(VMEM_EPT_MAPPED, GIB + 9 * 4096);
	cr_assert_eq(map(GIB, MIB2, 0, 1), -VMEM_EEXIST, "one of 512");
	expect_reason(VMEM_EPT_MAPPED, GIB + 9 * 4096);
	cr_assert_eq(map(GIB, 2 * GIB, 0, 0), -VMEM_EEXIST, "below a table");
	expect_reason(VMEM_EPT_MAPPED, GIB);
	cr_assert_eq(map(2 * GIB - 4096, 2 * 4096, 0, 0), -VMEM_EEXIST, "in a large leaf");
	expect_reason(VMEM_EPT_MAPPED, 2 * GIB);
	expect_unchanged(5);
	end();
}

Test(ept_defects, number_4_alignment_and_widths)
{
	const uint64_t top = UINT64_C(1) << 48;

	begin(VMEM_EPT_INTEL, 4, 0);
	remember();
	cr_assert_eq(map(GIB + 1, 4096, 0, 0), -VMEM_EINVAL);
	expect_reason(VMEM_EPT_UNALIGNED, GIB + 1);
	cr_assert_eq(map(GIB, 4095, 0, 0), -VMEM_EINVAL);
	expect_reason(VMEM_EPT_UNALIGNED, GIB);
	cr_assert_eq(map(GIB, 4096, 512, 0), -VMEM_EINVAL);
	expect_reason(VMEM_EPT_UNALIGNED, GIB);
	cr_assert_eq(map(GIB, 0, 0, 0), -VMEM_EINVAL);
	expect_reason(VMEM_EPT_UNALIGNED, GIB);
	cr_assert_eq(map(top - 4096, 8192, 0, 0), -VMEM_ERANGE);
	expect_reason(VMEM_EPT_GUEST_WIDTH, top);
	cr_assert_eq(map(top, 4096, 0, 0), -VMEM_ERANGE);
	expect_reason(VMEM_EPT_GUEST_WIDTH, top);
	cr_assert_eq(map(UINT64_MAX - 4095, 4096, 0, 0), -VMEM_ERANGE);
	expect_reason(VMEM_EPT_GUEST_WIDTH, UINT64_MAX - 4095);
	cr_assert_eq(map(GIB, UINT64_MAX - 4095, 0, 0), -VMEM_ERANGE, "around 2^64");
	expect_reason(VMEM_EPT_GUEST_WIDTH, top);
	cr_assert_eq(map(GIB, 8192, (UINT64_C(1) << 46) - 4096, 0), -VMEM_ERANGE);
	expect_reason(VMEM_EPT_HOST_WIDTH, GIB + 4096);
	cr_assert_eq(map(GIB, 4096, UINT64_C(1) << 46, 0), -VMEM_ERANGE);
	expect_reason(VMEM_EPT_HOST_WIDTH, GIB);
	cr_assert_eq(map(GIB, 4096, UINT64_MAX - 4095, 0), -VMEM_ERANGE);
	cr_assert_eq(vmem_ept_unmap(ept, top - 4096, 8192, &change), -VMEM_ERANGE);
	cr_assert_eq(vmem_ept_protect(ept, top, 4096, 0, 1, &change), -VMEM_ERANGE);
	cr_assert_eq(vmem_ept_translate(ept, top, &(struct vmem_ept_leaf){ 0 }, NULL),
		     -VMEM_ERANGE);
	expect_unchanged(1);
	cr_assert_eq(map(top - 4096, 4096, (UINT64_C(1) << 46) - 4096, 0), 0, "the last");
	end();
}

Test(ept_defects, number_4_guest_narrower_than_the_levels)
{
	struct vmem_ept_memory memory = { .size = sizeof(memory),
					  .context = &pool,
					  .allocate = vmemt_ept_allocate,
					  .free = vmemt_ept_give_back };
	struct vmem_ept_opts opts = {
		.size = sizeof(opts), .capabilities = &caps, .memory = &memory, .guest_bits = 36
	};
	vmem_ept *narrow = NULL;

	begin(VMEM_EPT_INTEL, 4, 0);
	memory.offset = (uint64_t)(uintptr_t)pool.pages - VMEMT_EPT_BASE;
	cr_assert_eq(vmem_ept_new(&narrow, &opts), 0);
	for (int again = 0; again < 2; again++) {
		cr_assert_eq(vmem_ept_map(narrow, (UINT64_C(1) << 36) - 4096, 8192,
					  &VMEMT_EPT_LEAF(.hpa = 0), 0, &change),
			     -VMEM_ERANGE);
		expect_reason(VMEM_EPT_GUEST_WIDTH, UINT64_C(1) << 36);
		cr_assert_eq(vmem_ept_map(narrow, (UINT64_C(1) << 36) - 4096, 4096,
					  &VMEMT_EPT_LEAF(.hpa = 0), VMEM_EPT_REPLACE, &change),
			     0);
	}
	cr_assert_eq(
		vmem_ept_translate(narrow, UINT64_C(1) << 36, &(struct vmem_ept_leaf){ 0 }, NULL),
		-VMEM_ERANGE);
	vmem_ept_free(narrow);
	opts.guest_bits = 49;
	cr_assert_eq(vmem_ept_new(&narrow, &opts), -VMEM_EINVAL);
	end();
}

Test(ept_defects, number_5_looking_up_writes_nothing)
{
	struct vmem_ept_run run = { .size = sizeof(run) };
	struct vmem_ept_leaf leaf;

	begin(VMEM_EPT_INTEL, 4, 0);
	cr_assert_eq(map(0, GIB + 5 * 4096, 0, 0), 0);
	remember();
	for (uint64_t gpa = 0; gpa < 3 * GIB; gpa += 7 * MIB2 + 4096)
		vmem_ept_translate(ept, gpa, &leaf, NULL);
	for (uint64_t gpa = 0; !vmem_ept_next(ept, gpa, &run); gpa = run.gpa + run.bytes)
		;
	expect_unchanged(4);
	/* Errors leave nothing behind, however many. */
	for (int i = 0; i < 5000; i++)
		cr_assert_eq(map(0, 4 * GIB, 0, 1), -VMEM_EEXIST);
	expect_unchanged(4);
	end();
}

Test(ept_defects, number_6_a_page_of_a_gibibyte)
{
	for (uint32_t tables = 0; tables < 2; tables++) {
		begin(VMEM_EPT_INTEL, 4, 0);
		cr_assert_eq(map(GIB, GIB, 0, 0), 0);
		remember();
		pool.left = tables;
		cr_assert_eq(vmem_ept_unmap(ept, GIB + 5 * 4096, 4096, &change), -VMEM_ENOMEM);
		expect_reason(VMEM_EPT_NO_MEMORY, GIB + 5 * 4096);
		pool.left = tables;
		cr_assert_eq(vmem_ept_protect(ept, GIB, 4096, VMEM_EPT_WRITE, 0, &change),
			     -VMEM_ENOMEM);
		pool.left = tables;
		cr_assert_eq(vmem_ept_split(ept, GIB, 4096, 1, &change), -VMEM_ENOMEM);
		expect_reason(VMEM_EPT_NO_MEMORY, GIB);
		expect_unchanged(2);
		pool.left = 2;
		cr_assert_eq(vmem_ept_unmap(ept, GIB + 5 * 4096, 4096, &change), 0);
		end();
	}
}

Test(ept_defects, sizes_of_structures)
{
	struct vmem_ept_change short_one = { .size = 8 };
	struct {
		struct vmem_ept_change change;
		uint64_t more;
	} longer = { .change = { .size = sizeof(longer) }, .more = 7 };

	begin(VMEM_EPT_INTEL, 4, 0);
	cr_assert_eq(vmem_ept_map(ept, 0, 4096, &VMEMT_EPT_LEAF(.hpa = 0), 0, NULL), -VMEM_EINVAL);
	cr_assert_eq(vmem_ept_map(ept, 0, 4096, &VMEMT_EPT_LEAF(.hpa = 0), 0, &short_one),
		     -VMEM_EINVAL);
	cr_assert_eq(vmem_ept_map(ept, 0, 4096, NULL, 0, &change), -VMEM_EINVAL);
	cr_assert_eq(vmem_ept_unmap(ept, 0, 4096, NULL), -VMEM_EINVAL);
	cr_assert_eq(map(0, 4096, 0, 0), 0);
	for (int again = 0; again < 2; again++)
		cr_assert_eq(vmem_ept_map(ept, 4096, 8192, &VMEMT_EPT_LEAF(.hpa = 0),
					  VMEM_EPT_REPLACE, &longer.change),
			     0);
	cr_assert_eq(longer.change.leaves, 2);
	cr_assert_eq(longer.change.ranges[0].gpa, 4096);
	cr_assert_eq(longer.change.ranges[0].bytes, 8192);
	cr_assert_eq(longer.more, 0);
	cr_assert_eq(longer.change.size, sizeof(longer));
	end();
}
