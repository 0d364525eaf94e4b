/* SPDX-License-Identifier: BSD-2-Clause */
/* Sub-page write permissions (SDM 29.3.4): which writes the table is asked for, what each bit of its entries says, and
 * how it ends. Tables and expected values are written by hand. */
#include <criterion/criterion.h>
#include "ept/ept_walk_tools.h"

#define GPA UINT64_C(0x35a27654000)
#define BIT61 (UINT64_C(1) << 61)
#define ON VMEM_EPT_WALK_SUBPAGE

static struct vmemt_tables tables;
static struct vmemt_path path;
static struct vmem_ept_access access;
static uint64_t *entry[5]; /* of the sub-page permission table, by level */

/* A page that may be read and run, and its 32 permissions: none. */
static void setup(uint32_t levels, uint64_t gpa, uint32_t leaf)
{
	uint64_t table;

	vmemt_tables_begin(&tables, VMEM_EPT_INTEL, levels, VMEMT_ALL_CAPS | VMEM_EPT_CAP_EXEC_ONLY,
			   1);
	vmemt_path(&tables, &path, gpa, leaf);
	*path.entry[leaf] = (*path.entry[leaf] & ~UINT64_C(2)) | BIT61;
	access = vmemt_access_of(&tables, gpa, VMEMT_WRITE, ON);
	access.subpage_pointer = table = vmemt_new_table(&tables);
	for (unsigned level = 4; level; level--) {
		entry[level] = vmemt_entry_at(&tables, table + 8 * (gpa >> (3 + 9 * level) & 511));
		if (level > 1)
			*entry[level] = (table = vmemt_new_table(&tables)) | 1;
	}
}

static struct vmem_ept_walked walk(void)
{
	return vmemt_walk_access(&tables, &access);
}

static uint32_t outcome(void)
{
	return walk().outcome;
}

Test(ept_walk_subpages, each_by_its_bit)
{
	static const unsigned inside[] = { 0, 1, 64, 127 };

	for (unsigned allowed = 0; allowed < 32; allowed++)
		for (unsigned written = 0; written < 32; written++)
			for (unsigned i = 0; i < 4; i++) {
				struct vmem_ept_walked walked;

				setup(4, GPA, 1);
				*entry[1] = UINT64_C(1) << 2 * allowed;
				access.gpa = GPA + 128 * written + inside[i];
				walked = walk();
				cr_assert_eq(walked.outcome, allowed == written
								     ? VMEM_EPT_WALK_OK
								     : VMEM_EPT_WALK_VIOLATION);
				cr_assert_eq(walked.qualification, allowed == written ? 0 : 0x1aa);
				cr_assert_eq(walked.logged, allowed == written);
				cr_assert_eq(*path.entry[1] & 0x300,
					     allowed == written ? 0x300 : 0);
				cr_assert_eq(walked.subpage_level, 1);
				cr_assert_eq(walked.subpage_entry, *entry[1]);
				cr_assert_eq(walked.misconfig, VMEM_EPT_WELL);
			}
	cr_assert_eq(*entry[1], UINT64_C(1) << 62, "nothing is written there");
}

/* The way down: bits 47:39, 38:30, 29:21 and 20:12. */
Test(ept_walk_subpages, entries_by_the_address)
{
	for (unsigned bit = 12; bit < 48; bit++) {
		setup(4, GPA, 1);
		*entry[1] = 1;
		cr_assert_eq(outcome(), VMEM_EPT_WALK_OK);
		/* The same page elsewhere has other entries, which are not valid, or allow nothing. */
		vmemt_path(&tables, &path, GPA ^ UINT64_C(1) << bit, 1);
		*path.entry[1] = (*path.entry[1] & ~UINT64_C(2)) | BIT61;
		access.gpa = GPA ^ UINT64_C(1) << bit;
		cr_assert_eq(outcome(),
			     bit < 21 ? VMEM_EPT_WALK_VIOLATION : VMEM_EPT_WALK_SUBPAGE_MISS);
		cr_assert_eq(walk().subpage_level, 1 + (bit - 12) / 9);
	}
}

Test(ept_walk_subpages, miss)
{
	static const uint64_t others[] = { 0, ~UINT64_C(1) };

	for (unsigned level = 2; level <= 4; level++)
		for (unsigned i = 0; i < 2; i++) {
			struct vmem_ept_walked walked;

			setup(4, GPA, 1);
			access.context |= VMEM_EPT_WALK_VE;
			*entry[level] = others[i]; /* without the valid bit no other counts */
			walked = walk();
			cr_assert_eq(walked.outcome, VMEM_EPT_WALK_SUBPAGE_MISS);
			cr_assert_eq(walked.qualification, 0x800);
			cr_assert_eq(walked.subpage_level, level);
			cr_assert_eq(walked.subpage_entry, others[i]);
			cr_assert_eq(walked.misconfig, VMEM_EPT_WELL);
			cr_assert_eq(walked.virtualization_exception, 0);
			cr_assert_eq(walked.logged, 0);
			cr_assert_eq(*path.entry[4] & 0x300, 0);
		}
}

static void misconfigured(unsigned level, unsigned bit, uint32_t why)
{
	struct vmem_ept_walked walked;

	setup(4, GPA, 1);
	access.context |= VMEM_EPT_WALK_VE;
	*entry[level] |= UINT64_C(1) << bit;
	walked = walk();
	cr_assert_eq(walked.outcome, VMEM_EPT_WALK_SUBPAGE_MISCONFIG, "level %u bit %u", level,
		     bit);
	cr_assert_eq(walked.misconfig, why, "level %u bit %u", level, bit);
	cr_assert_eq(walked.qualification, 0);
	cr_assert_eq(walked.subpage_level, level);
	cr_assert_eq(walked.virtualization_exception, 0);
	cr_assert_eq(*path.entry[4] & 0x300, 0);
}

Test(ept_walk_subpages, misconfiguration)
{
	for (unsigned level = 2; level <= 4; level++) {
		for (unsigned bit = 1; bit < 12; bit++)
			misconfigured(level, bit, VMEM_EPT_RESERVED_BITS);
		for (unsigned bit = 40; bit < 52; bit++)
			misconfigured(level, bit, VMEM_EPT_ADDRESS_WIDTH);
		for (unsigned bit = 52; bit < 64; bit++)
			misconfigured(level, bit, VMEM_EPT_RESERVED_BITS);
	}
	for (unsigned bit = 1; bit < 64; bit += 2)
		misconfigured(1, bit, VMEM_EPT_RESERVED_BITS);
	setup(4, GPA, 1);
	*entry[1] = UINT64_C(0x5555555555555555);
	cr_assert_eq(outcome(), VMEM_EPT_WALK_OK);
}

/* A violation that the table has decided is like any other: it may become #VE by bit 63 of the leaf. */
Test(ept_walk_subpages, denied_is_an_ept_violation)
{
	setup(4, GPA, 1);
	access.context |= VMEM_EPT_WALK_VE;
	cr_assert_eq(walk().virtualization_exception, 1);
	*path.entry[1] |= UINT64_C(1) << 63;
	cr_assert_eq(walk().virtualization_exception, 0);
	cr_assert_eq(outcome(), VMEM_EPT_WALK_VIOLATION);
}

static void not_asked(uint32_t expected)
{
	struct vmem_ept_walked walked;

	*entry[1] = 1;
	walked = walk();
	cr_assert_eq(walked.outcome, expected, "%u", walked.outcome);
	cr_assert_eq(walked.subpage_level, 0);
	cr_assert_eq(walked.subpage_entry, 0);
}

Test(ept_walk_subpages, only_for_some_writes)
{
	setup(4, GPA, 1);
	access.kind = VMEM_EPT_ACCESS_READ;
	not_asked(VMEM_EPT_WALK_OK);
	access.kind = VMEM_EPT_ACCESS_FETCH;
	not_asked(VMEM_EPT_WALK_OK);
	access.kind = VMEM_EPT_ACCESS_GUEST_TABLE;
	not_asked(VMEM_EPT_WALK_VIOLATION);
	access.kind = VMEM_EPT_ACCESS_GUEST_TABLE_WRITE;
	not_asked(VMEM_EPT_WALK_VIOLATION);
	access.kind = VMEM_EPT_ACCESS_WRITE;
	access.no_linear = 1;
	not_asked(VMEM_EPT_WALK_VIOLATION);
	access.no_linear = 0;
	access.context = 0;
	not_asked(VMEM_EPT_WALK_VIOLATION);
	access.context = ON;
	*path.entry[1] &= ~BIT61;
	not_asked(VMEM_EPT_WALK_VIOLATION);
	*path.entry[1] |= BIT61 | 2;
	not_asked(VMEM_EPT_WALK_OK);
	/* The right may be missing above; that to read must not. */
	*path.entry[3] &= ~UINT64_C(2);
	cr_assert_eq(outcome(), VMEM_EPT_WALK_OK);
	cr_assert_eq(walk().subpage_level, 1);
	*path.entry[3] &= ~UINT64_C(1);
	not_asked(VMEM_EPT_WALK_VIOLATION);
	for (uint32_t leaf = 2; leaf <= 3; leaf++) {
		setup(4, GPA, leaf);
		not_asked(VMEM_EPT_WALK_VIOLATION);
	}
}

/* A supervisor's shadow stack in a page of its own needs no permission, and gets none; others are written like all. */
Test(ept_walk_subpages, shadow_stacks)
{
	setup(4, GPA, 1);
	access.kind = VMEM_EPT_ACCESS_SHADOW_STACK_WRITE;
	*entry[1] = 1;
	cr_assert_eq(outcome(), VMEM_EPT_WALK_OK);
	cr_assert_eq(walk().subpage_level, 1);
	access.pointer |= 0x80;
	not_asked(VMEM_EPT_WALK_VIOLATION);
	*path.entry[1] |= UINT64_C(1) << 60;
	not_asked(VMEM_EPT_WALK_OK);
	access.user = 1;
	cr_assert_eq(walk().subpage_level, 1);
}

/* Guest-paging verification is asked as well. */
Test(ept_walk_subpages, verified_too)
{
	setup(4, GPA, 1);
	*entry[1] = 1;
	*path.entry[1] |= UINT64_C(1) << 57;
	access.context |= VMEM_EPT_WALK_VERIFY;
	cr_assert_eq(outcome(), VMEM_EPT_WALK_OK);
	access.unverified = 1;
	cr_assert_eq(walk().qualification, 0x81aa);
}

Test(ept_walk_subpages, pointer)
{
	for (unsigned bit = 0; bit < 64; bit++) {
		if (bit >= 12 && bit < 40)
			continue;
		setup(4, GPA, 1);
		access.subpage_pointer |= UINT64_C(1) << bit;
		access.kind = VMEM_EPT_ACCESS_READ; /* VM entry fails, whatever comes */
		cr_assert_eq(outcome(), VMEM_EPT_WALK_BAD_POINTER, "%u", bit);
		cr_assert_eq(walk().misconfig, VMEM_EPT_POINTER_RESERVED);
		access.context = 0;
		cr_assert_eq(outcome(), VMEM_EPT_WALK_OK);
	}
	setup(4, GPA, 1);
	access.subpage_pointer = 0;
	not_asked(VMEM_EPT_WALK_SUBPAGE_TABLE);
	access.subpage_pointer = 0x1000; /* nothing is there */
	cr_assert_eq(outcome(), VMEM_EPT_WALK_NO_TABLE);
	cr_assert_eq(walk().subpage_level, 4);
	setup(4, GPA, 1);
	*entry[3] = 0x1001;
	cr_assert_eq(outcome(), VMEM_EPT_WALK_NO_TABLE);
	cr_assert_eq(walk().subpage_level, 2);
}

Test(ept_walk_subpages, five_levels_reach_further_than_the_table)
{
	setup(5, GPA, 1);
	*entry[1] = 1;
	cr_assert_eq(outcome(), VMEM_EPT_WALK_OK);
	setup(5, GPA | UINT64_C(1) << 48, 1);
	not_asked(VMEM_EPT_WALK_SUBPAGE_TABLE);
}

/* A caller that was compiled before there was a pointer. */
Test(ept_walk_subpages, shorter_access)
{
	setup(4, GPA, 1);
	access.size = offsetof(struct vmem_ept_access, subpage_pointer);
	not_asked(VMEM_EPT_WALK_SUBPAGE_TABLE);
}
