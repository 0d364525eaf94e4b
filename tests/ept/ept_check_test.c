/* SPDX-License-Identifier: BSD-2-Clause */
/* The check of whole trees: what it counts, and each defect that it names, found where it is. */
#include <criterion/criterion.h>
#include "ept/ept_walk_tools.h"

#define GPA UINT64_C(0x35a27654000)

static struct vmemt_tables tables;
static struct vmemt_path path;
static uint32_t seen_count[VMEMT_TABLES];
static uint64_t reads;

static int seen(void *context, uint64_t hpa)
{
	(void)context;
	if (hpa < VMEMT_TABLES_AT || hpa >= VMEMT_TABLES_AT + sizeof(tables.page))
		return 0;
	return seen_count[(hpa - VMEMT_TABLES_AT) / 4096]++ != 0;
}

static int counting_read(void *context, uint64_t hpa, uint64_t *ret_entry)
{
	cr_assert_leq(++reads, VMEMT_TABLES * 512, "tables are looked at again and again");
	return vmemt_read(context, hpa, ret_entry);
}

static struct vmem_ept_checked check_by(uint32_t flags, int (*by)(void *context, uint64_t hpa))
{
	struct vmem_ept_checked checked = { .size = sizeof(checked) };
	struct vmem_ept_view view = vmemt_view(&tables);

	memset(seen_count, 0, sizeof(seen_count));
	reads = 0;
	view.read = counting_read;
	cr_assert_eq(vmem_ept_check(&tables.processor, &view, tables.pointer, flags, by, &checked),
		     0);
	return checked;
}

static struct vmem_ept_checked check(uint32_t flags)
{
	return check_by(flags, seen);
}

static void begin(uint32_t format, uint32_t levels)
{
	vmemt_tables_begin(&tables, format, levels, VMEMT_ALL_CAPS, 1);
}

/* A leaf of each size. */
static void begin_with_leaves(void)
{
	begin(VMEM_EPT_INTEL, 4);
	vmemt_path(&tables, &path, GPA + 0x40000000, 3);
	vmemt_path(&tables, &path, GPA + 0x200000, 2);
	vmemt_path(&tables, &path, GPA, 1);
}

static void found(struct vmem_ept_checked checked, enum vmem_ept_defect defect, uint32_t level,
		  uint64_t gpa, uint64_t entry)
{
	cr_assert_eq(checked.defect, defect, "%u", checked.defect);
	cr_assert_eq(checked.level, level, "%u", checked.level);
	cr_assert_eq(checked.gpa, gpa, "%lx", (unsigned long)checked.gpa);
	cr_assert_eq(checked.entry, entry, "%lx", (unsigned long)checked.entry);
}

Test(ept_check, counts)
{
	struct vmem_ept_checked checked;

	begin_with_leaves();
	*path.entry[1] = UINT64_C(1) << 63; /* nothing but bit 63 */
	*(path.entry[1] + 1) = 0x123456000;
	*(path.entry[2] - 1) = UINT64_C(1) << 62;
	checked = check(VMEM_EPT_CHECK_TIGHT);
	cr_assert_eq(checked.defect, VMEM_EPT_SOUND);
	cr_assert_eq(checked.tables[3], 1);
	cr_assert_eq(checked.tables[2], 1);
	cr_assert_eq(checked.tables[1], 1);
	cr_assert_eq(checked.tables[0], 1);
	cr_assert_eq(checked.leaves[0], 0);
	cr_assert_eq(checked.leaves[1], 1);
	cr_assert_eq(checked.leaves[2], 1);
	cr_assert_eq(checked.noted, 2);
	cr_assert_eq(reads, 4 * 512);
}

Test(ept_check, empty_roots_of_all_formats)
{
	for (uint32_t levels = 3; levels <= 5; levels++)
		for (uint32_t format = 0; format < VMEM_EPT_FORMATS; format++) {
			if (levels == 3 && format != VMEM_EPT_VTD)
				continue;
			begin(format, levels);
			found(check(VMEM_EPT_CHECK_TIGHT |
				    (format == VMEM_EPT_AMD && levels == 5 ? VMEM_EPT_CHECK_5_LEVELS
									   : 0)),
			      VMEM_EPT_SOUND, 0, 0, 0);
		}
}

Test(ept_check, pointer)
{
	struct vmem_ept_checked checked;

	begin_with_leaves();
	tables.pointer |= 0x800;
	checked = check(0);
	found(checked, VMEM_EPT_DEFECT_POINTER, 0, 0, 0);
	cr_assert_eq(checked.misconfig, VMEM_EPT_POINTER_RESERVED);
}

Test(ept_check, misconfigured_at_each_level)
{
	for (uint32_t level = 1; level <= 4; level++) {
		struct vmem_ept_checked checked;

		begin_with_leaves();
		*path.entry[level] = 2;
		checked = check(0);
		found(checked, VMEM_EPT_DEFECT_MISCONFIGURED, level,
		      GPA & ~(VMEM_EPT_LEVEL_BYTES(level) - 1), 2);
		cr_assert_eq(checked.misconfig, VMEM_EPT_WRITE_ONLY);
	}
}

/* Without MBEC bit 10 alone is nothing; with it, such an entry is looked at. */
Test(ept_check, mbec_counts_as_on)
{
	begin_with_leaves();
	*path.entry[1] = 0x400;
	found(check(0), VMEM_EPT_SOUND, 0, 0, 0);
	tables.processor.caps |= VMEM_EPT_CAP_MBEC;
	found(check(0), VMEM_EPT_DEFECT_MISCONFIGURED, 1, GPA, 0x400);
	tables.processor.caps |= VMEM_EPT_CAP_EXEC_ONLY;
	found(check(0), VMEM_EPT_SOUND, 0, 0, 0);
}

Test(ept_check, table_outside_memory)
{
	begin_with_leaves();
	*path.entry[2] = 0x1234567007;
	found(check(0), VMEM_EPT_DEFECT_NO_TABLE, 1, GPA & ~UINT64_C(0x1fffff), 0x1234567007);
	begin_with_leaves();
	tables.pointer = 0x123456701e;
	found(check(0), VMEM_EPT_DEFECT_NO_TABLE, 4, 0, 0);
}

Test(ept_check, shared_table)
{
	uint64_t link;

	begin_with_leaves();
	link = *path.entry[2];
	*(path.entry[2] + 7) = link;
	found(check(0), VMEM_EPT_DEFECT_SHARED_TABLE, 1,
	      (GPA & ~UINT64_C(0x1fffff)) + 7 * UINT64_C(0x200000), link);
	cr_assert_eq(check_by(0, NULL).defect, VMEM_EPT_SOUND);
	cr_assert_eq(check_by(0, NULL).tables[0], 2);
}

/* A table that refers to itself, or to one above it, is found without help. */
Test(ept_check, loops)
{
	for (uint32_t level = 2; level <= 4; level++)
		for (uint32_t to = level; to <= 4; to++) {
			uint64_t link = (to == 4 ? 0x40000000 : 0) | 7;

			begin_with_leaves();
			if (to < 4)
				link |= *path.entry[to + 1] & UINT64_C(0xffffffffff000);
			*path.entry[level] = link;
			found(check_by(0, NULL), VMEM_EPT_DEFECT_SHARED_TABLE, level - 1,
			      GPA & ~(VMEM_EPT_LEVEL_BYTES(level) - 1), link);
			found(check(0), VMEM_EPT_DEFECT_SHARED_TABLE, level - 1,
			      GPA & ~(VMEM_EPT_LEVEL_BYTES(level) - 1), link);
		}
}

/* Every entry of each table refers to the same table below: 512^3 ways, of which one is looked at. */
Test(ept_check, hostile_fan_ends)
{
	begin_with_leaves();
	for (uint32_t level = 2; level <= 4; level++)
		for (int i = 0; i < 512; i++) {
			uint64_t *table = path.entry[level] - (GPA >> (12 + 9 * (level - 1)) & 511);

			table[i] = *path.entry[level];
		}
	cr_assert_eq(check(0).defect, VMEM_EPT_DEFECT_SHARED_TABLE);
	cr_assert_lt(reads, 4 * 512 + 1);
}

Test(ept_check, empty_table)
{
	begin_with_leaves();
	*path.entry[1] = 0;
	found(check(0), VMEM_EPT_SOUND, 0, 0, 0);
	found(check(VMEM_EPT_CHECK_TIGHT), VMEM_EPT_DEFECT_EMPTY_TABLE, 1,
	      GPA & ~UINT64_C(0x1fffff), *path.entry[2]);
	*path.entry[1] = UINT64_C(1) << 63;
	found(check(VMEM_EPT_CHECK_TIGHT), VMEM_EPT_DEFECT_EMPTY_TABLE, 1,
	      GPA & ~UINT64_C(0x1fffff), *path.entry[2]);
	*path.entry[1] = 8; /* a note */
	found(check(VMEM_EPT_CHECK_TIGHT), VMEM_EPT_SOUND, 0, 0, 0);
}

Test(ept_check, dirty_and_not_accessed)
{
	begin_with_leaves();
	*path.entry[1] |= 0x200;
	found(check(0), VMEM_EPT_SOUND, 0, 0, 0);
	found(check(VMEM_EPT_CHECK_DIRTY), VMEM_EPT_DEFECT_DIRTY_ONLY, 1, GPA, *path.entry[1]);
	tables.pointer &= ~UINT64_C(0x40);
	found(check(VMEM_EPT_CHECK_DIRTY), VMEM_EPT_SOUND, 0, 0, 0);
	begin(VMEM_EPT_AMD, 4);
	vmemt_path(&tables, &path, GPA, 2);
	*path.entry[2] |= 0x40;
	found(check(VMEM_EPT_CHECK_DIRTY), VMEM_EPT_DEFECT_DIRTY_ONLY, 2, GPA & ~UINT64_C(0x1fffff),
	      *path.entry[2]);
}

Test(ept_check, suppress_ve)
{
	const uint64_t suppress = UINT64_C(1) << 63;

	begin_with_leaves();
	for (uint32_t page = 0; page < tables.used; page++)
		for (int i = 0; i < 512; i++)
			tables.page[page][i] |= suppress;
	found(check(VMEM_EPT_CHECK_VE), VMEM_EPT_SOUND, 0, 0, 0);
	*path.entry[3] &= ~suppress; /* of a table nobody asks */
	found(check(VMEM_EPT_CHECK_VE), VMEM_EPT_SOUND, 0, 0, 0);
	*path.entry[1] &= ~suppress;
	found(check(VMEM_EPT_CHECK_VE), VMEM_EPT_DEFECT_VE, 1, GPA, *path.entry[1]);
	*path.entry[1] |= suppress;
	*(path.entry[1] + 1) = 0;
	found(check(VMEM_EPT_CHECK_VE), VMEM_EPT_DEFECT_VE, 1, GPA + 4096, 0);
}

Test(ept_check, refused)
{
	struct vmem_ept_checked checked = { .size = sizeof(checked) };
	struct vmem_ept_view view = vmemt_view(&tables);

	begin(VMEM_EPT_AMD, 4);
	cr_assert_eq(vmem_ept_check(&tables.processor, &view, tables.pointer, VMEM_EPT_CHECK_VE,
				    NULL, &checked),
		     -VMEM_EINVAL);
	cr_assert_eq(vmem_ept_check(&tables.processor, &view, tables.pointer, 16, NULL, &checked),
		     -VMEM_EINVAL);
	view.read = NULL;
	cr_assert_eq(vmem_ept_check(&tables.processor, &view, tables.pointer, 0, NULL, &checked),
		     -VMEM_EINVAL);
	cr_assert_eq(vmem_ept_check(&tables.processor, NULL, tables.pointer, 0, NULL, &checked),
		     -VMEM_EINVAL);
	begin(VMEM_EPT_INTEL, 4);
	view = vmemt_view(&tables);
	cr_assert_eq(vmem_ept_check(&tables.processor, &view, tables.pointer,
				    VMEM_EPT_CHECK_5_LEVELS, NULL, &checked),
		     -VMEM_EINVAL);
	checked.size = 0;
	cr_assert_eq(vmem_ept_check(&tables.processor, &view, tables.pointer, 0, NULL, &checked),
		     -VMEM_EINVAL);
}
