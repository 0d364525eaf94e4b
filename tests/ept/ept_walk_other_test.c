/* SPDX-License-Identifier: BSD-2-Clause */
/* AMD nested paging (APM vol. 2, 5.3, 15.25) and VT-d second stage (VT-d specification, 3.7, 9.8): rights, reserved
 * bits, fault information, pointers, AMD's guest mode execute trap. Expected values are written by hand. */
#include <criterion/criterion.h>
#include "ept/ept_walk_tools.h"

#define GPA UINT64_C(0x35a27654000)

#define P 1u
#define RW 2u
#define US 4u
#define NX (UINT64_C(1) << 63)

static struct vmemt_tables tables;
static struct vmemt_path path;

static void setup(uint32_t format, uint32_t levels, uint64_t caps, int ad, uint32_t leaf)
{
	vmemt_tables_begin(&tables, format, levels, caps, ad);
	vmemt_path(&tables, &path, levels == 3 ? GPA & 0x7fffffffff : GPA, leaf);
}

static void amd(uint64_t caps, uint32_t leaf)
{
	setup(VMEM_EPT_AMD, 4, caps, 1, leaf);
}

/* Letters as in ept_walk_rights_test.c, for read, write, fetch (both), and a table of the guest (both). */
static const struct {
	uint64_t bits;
	const char *letters;
} amd_rows[] = {
	{ 0, "VVVV" },
	{ RW, "VVVV" },
	{ US, "VVVV" },
	{ RW | US, "VVVV" },
	{ NX, "VVVV" },
	{ NX | RW | US, "VVVV" },
	{ P, "VVVV" },
	{ P | RW, "VVVV" },
	{ P | NX | RW, "VVVV" },
	{ P | US, ".V.V" },
	{ P | RW | US, "...." },
	{ P | NX | US, ".VVV" },
	{ P | NX | RW | US, "..V." },
};

Test(ept_walk_amd, rights)
{
	/* US, then RW, ID, and which address (bits 32 and 33). */
	static const uint64_t asked[] = { UINT64_C(0x100000004), UINT64_C(0x100000006),
					  UINT64_C(0x100000014), UINT64_C(0x200000006) };
	static const unsigned column[VMEMT_ACCESSES] = { 0, 1, 2, 2, 3, 3 };

	for (uint32_t leaf = 1; leaf <= 3; leaf++)
		for (uint32_t level = leaf; level <= 4; level++)
			for (size_t i = 0; i < sizeof(amd_rows) / sizeof(*amd_rows); i++)
				for (int a = 0; a < VMEMT_ACCESSES; a++) {
					const int fine = amd_rows[i].letters[column[a]] == '.';
					struct vmem_ept_walked walked;

					amd(VMEMT_ALL_CAPS, leaf);
					*path.entry[level] =
						(*path.entry[level] & ~(NX | 7)) | amd_rows[i].bits;
					walked = vmemt_walk(&tables, GPA, (enum vmemt_access)a, 0);
					cr_assert_eq(walked.outcome,
						     fine ? VMEM_EPT_WALK_OK
							  : VMEM_EPT_WALK_VIOLATION,
						     "row %zu column %u", i, column[a]);
					cr_assert_eq(walked.qualification,
						     fine ? 0
							  : asked[column[a]] |
								     (amd_rows[i].bits & P));
				}
}

static void amd_reserved(uint64_t caps, uint32_t leaf, uint32_t level, unsigned first,
			 unsigned last)
{
	for (unsigned bit = first; bit <= last; bit++) {
		struct vmem_ept_walked walked;

		amd(caps, leaf);
		*path.entry[level] |= UINT64_C(1) << bit;
		walked = vmemt_walk(&tables, GPA, VMEMT_READ, 0);
		cr_assert_eq(walked.outcome, VMEM_EPT_WALK_MISCONFIG, "leaf %u level %u bit %u",
			     leaf, level, bit);
		cr_assert_eq(walked.level, level);
		cr_assert_eq(walked.qualification, UINT64_C(0x10000000d));
	}
}

static void amd_ignored(uint32_t leaf, uint32_t level, unsigned bit)
{
	amd(VMEMT_ALL_CAPS, leaf);
	*path.entry[level] |= UINT64_C(1) << bit;
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_READ, 0).outcome, VMEM_EPT_WALK_OK,
		     "leaf %u level %u bit %u", leaf, level, bit);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_READ, 0).hpa >> 30, 7);
}

Test(ept_walk_amd, reserved_bits)
{
	const uint64_t all = VMEMT_ALL_CAPS;

	amd_reserved(all, 1, 4, 7, 8);
	amd_reserved(all, 1, 3, 8, 8);
	amd_reserved(all, 2, 2, 13, 20);
	amd_reserved(all, 3, 3, 13, 29);
	amd_reserved(all & ~VMEM_EPT_CAP_2M, 2, 2, 7, 7);
	amd_reserved(all & ~VMEM_EPT_CAP_1G, 3, 3, 7, 7);
	for (uint32_t leaf = 1; leaf <= 3; leaf++)
		for (uint32_t level = leaf; level <= 4; level++) {
			amd_reserved(all, leaf, level, 40, 51);
			amd_reserved(all & ~VMEM_EPT_CAP_NO_EXEC, leaf, level, 63, 63);
			for (unsigned bit = 52; bit <= 62; bit++)
				amd_ignored(leaf, level, bit);
			for (unsigned bit = 9; bit <= 11; bit++)
				amd_ignored(leaf, level, bit);
		}
	amd_ignored(1, 1, 8); /* global */
	amd_ignored(2, 2, 8);
	amd_ignored(1, 2, 8);
	amd_ignored(1, 1, 7); /* PAT */
	amd_ignored(2, 2, 12);
	amd_ignored(3, 3, 12);
}

/* The PAT after a reset: WB, WT, UC-, UC, twice. */
Test(ept_walk_amd, memory_types)
{
	static const uint32_t types[4] = { VMEM_EPT_WB, VMEM_EPT_WT, VMEM_EPT_UC, VMEM_EPT_UC };

	for (unsigned i = 0; i < 8; i++) {
		amd(VMEMT_ALL_CAPS, 1);
		*path.entry[1] |= (i & 1 ? 8u : 0) | (i & 2 ? 16u : 0) | (i & 4 ? 0x80u : 0);
		cr_assert_eq(vmemt_walk(&tables, GPA, 0, 0).type, types[i & 3]);
		amd(VMEMT_ALL_CAPS, 2);
		*path.entry[2] |= (i & 1 ? 8u : 0) | (i & 2 ? 16u : 0) | (i & 4 ? 0x1000u : 0);
		cr_assert_eq(vmemt_walk(&tables, GPA, 0, 0).type, types[i & 3]);
		cr_assert_eq(vmemt_walk(&tables, GPA, 0, 0).hpa, UINT64_C(0x1c0054000));
	}
}

Test(ept_walk_amd, accessed_and_dirty_always)
{
	static const uint64_t leaf_bits[VMEMT_ACCESSES] = { 0x20, 0x60, 0x20, 0x20, 0x60, 0x60 };

	for (int a = 0; a < VMEMT_ACCESSES; a++) {
		amd(VMEMT_ALL_CAPS & ~VMEM_EPT_CAP_AD, 2);
		cr_assert_eq(vmemt_walk(&tables, GPA, (enum vmemt_access)a, 0).logged,
			     leaf_bits[a] >> 6);
		cr_assert_eq(*path.entry[2] & 0x60, leaf_bits[a]);
		cr_assert_eq(*path.entry[3] & 0x60, 0x20);
		cr_assert_eq(*path.entry[4] & 0x60, 0x20);
	}
}

Test(ept_walk_amd, pointer)
{
	amd(VMEMT_ALL_CAPS, 1);
	tables.pointer |= 0x18; /* PWT and PCD */
	cr_assert_eq(vmemt_walk(&tables, GPA, 0, 0).outcome, VMEM_EPT_WALK_OK);
	for (unsigned bit = 40; bit < 64; bit++) {
		amd(VMEMT_ALL_CAPS, 1);
		tables.pointer |= UINT64_C(1) << bit;
		cr_assert_eq(vmemt_walk(&tables, GPA, 0, 0).misconfig, VMEM_EPT_POINTER_RESERVED);
		cr_assert_eq(vmemt_walk(&tables, GPA, 0, 0).outcome, VMEM_EPT_WALK_BAD_POINTER);
	}
	amd(VMEMT_ALL_CAPS & ~VMEM_EPT_CAP_4_LEVELS, 1);
	cr_assert_eq(vmemt_walk(&tables, GPA, 0, 0).misconfig, VMEM_EPT_POINTER_LEVELS);
}

Test(ept_walk_amd, five_levels_are_the_hosts_choice)
{
	setup(VMEM_EPT_AMD, 5, VMEMT_ALL_CAPS, 1, 1);
	cr_assert_eq(vmemt_walk(&tables, GPA, 0, VMEM_EPT_WALK_5_LEVELS).outcome, VMEM_EPT_WALK_OK);
	cr_assert_eq(vmemt_walk(&tables, GPA, 0, 0).outcome, VMEM_EPT_WALK_VIOLATION);
	cr_assert_eq(vmemt_walk(&tables, GPA | UINT64_C(1) << 57, 0, VMEM_EPT_WALK_5_LEVELS)
			     .qualification,
		     UINT64_C(0x100000004));
	*path.entry[5] |= 0x80;
	cr_assert_eq(vmemt_walk(&tables, GPA, 0, VMEM_EPT_WALK_5_LEVELS).outcome,
		     VMEM_EPT_WALK_MISCONFIG);
}

/* The guest mode execute trap. Letters as above, for a read by the supervisor and by the user, a write and a fetch
 * by the supervisor, a fetch by the user, and a table of the guest; U is set in all other entries. */
static const struct {
	uint64_t bits;
	const char *letters;
} gmet_rows[] = {
	{ 0, "VVVVVV" },       { US | RW, "VVVVVV" },          { P, "..V..V" },
	{ P | RW, "......" },  { P | US, "..VV.V" },           { P | RW | US, "...V.." },
	{ P | NX, "..VVVV" },  { P | NX | RW, "...VV." },      { P | NX | US, "..VVVV" },
	{ NX | RW, "VVVVVV" }, { P | NX | RW | US, "...VV." },
};

static const struct {
	uint32_t kind, user;
	uint64_t asked; /* US is who it is, but for tables of the guest */
} gmet_columns[6] = {
	{ VMEM_EPT_ACCESS_READ, 0, UINT64_C(0x100000000) },
	{ VMEM_EPT_ACCESS_READ, 1, UINT64_C(0x100000004) },
	{ VMEM_EPT_ACCESS_WRITE, 0, UINT64_C(0x100000002) },
	{ VMEM_EPT_ACCESS_FETCH, 0, UINT64_C(0x100000010) },
	{ VMEM_EPT_ACCESS_FETCH, 1, UINT64_C(0x100000014) },
	{ VMEM_EPT_ACCESS_GUEST_TABLE, 0, UINT64_C(0x200000006) },
};

static void gmet_one(uint32_t leaf, uint32_t level, size_t row, unsigned column)
{
	const int fine = gmet_rows[row].letters[column] == '.';
	struct vmem_ept_access access;
	struct vmem_ept_walked walked;

	amd(VMEMT_ALL_CAPS | VMEM_EPT_CAP_GMET, leaf);
	*path.entry[level] = (*path.entry[level] & ~(NX | 7)) | gmet_rows[row].bits;
	access = vmemt_access_of(&tables, GPA, VMEMT_READ, VMEM_EPT_WALK_GMET);
	access.kind = gmet_columns[column].kind;
	access.user = gmet_columns[column].user;
	walked = vmemt_walk_access(&tables, &access);
	cr_assert_eq(walked.outcome, fine ? VMEM_EPT_WALK_OK : VMEM_EPT_WALK_VIOLATION,
		     "leaf %u level %u row %zu column %u", leaf, level, row, column);
	cr_assert_eq(walked.qualification,
		     fine ? 0 : gmet_columns[column].asked | (gmet_rows[row].bits & P));
}

Test(ept_walk_amd, guest_mode_execute_trap)
{
	for (uint32_t leaf = 1; leaf <= 3; leaf++)
		for (uint32_t level = leaf; level <= 4; level++)
			for (size_t row = 0; row < sizeof(gmet_rows) / sizeof(*gmet_rows); row++)
				for (unsigned column = 0; column < 6; column++)
					gmet_one(leaf, level, row, column);
}

/* Each entry that refuses a right takes it; the right that U takes is taken by all of them together. */
Test(ept_walk_amd, guest_mode_execute_trap_rights)
{
	for (unsigned set = 0; set < 16; set++) {
		amd(VMEMT_ALL_CAPS | VMEM_EPT_CAP_GMET, 1);
		for (uint32_t level = 1; level <= 4; level++)
			if (!(set >> (level - 1) & 1))
				*path.entry[level] &= ~(uint64_t)US;
		cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_FETCH_USER, VMEM_EPT_WALK_GMET).rights,
			     VMEM_EPT_READ | VMEM_EPT_WRITE | VMEM_EPT_EXEC_USER |
				     (set == 15 ? 0 : VMEM_EPT_EXEC));
		*path.entry[3] |= NX;
		cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_READ, VMEM_EPT_WALK_GMET).rights,
			     VMEM_EPT_READ | VMEM_EPT_WRITE);
	}
}

Test(ept_walk_amd, guest_mode_execute_trap_is_refused_without)
{
	static const struct {
		uint32_t format;
		uint64_t caps;
		uint32_t outcome;
	} processors[] = {
		{ VMEM_EPT_AMD, VMEMT_ALL_CAPS | VMEM_EPT_CAP_GMET, VMEM_EPT_WALK_OK },
		{ VMEM_EPT_AMD, VMEMT_ALL_CAPS, UINT32_MAX },
		{ VMEM_EPT_AMD, (VMEMT_ALL_CAPS | VMEM_EPT_CAP_GMET) & ~VMEM_EPT_CAP_NO_EXEC,
		  UINT32_MAX },
		{ VMEM_EPT_INTEL, VMEMT_ALL_CAPS | VMEM_EPT_CAP_GMET, UINT32_MAX },
		{ VMEM_EPT_VTD, VMEMT_ALL_CAPS | VMEM_EPT_CAP_GMET, UINT32_MAX },
	};

	for (size_t i = 0; i < sizeof(processors) / sizeof(*processors); i++) {
		setup(processors[i].format, 4, processors[i].caps, 1, 1);
		cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_READ, VMEM_EPT_WALK_GMET).outcome,
			     processors[i].outcome, "%zu", i);
	}
}

#define VTD_GPA (GPA & 0x7fffffffff)

Test(ept_walk_vtd, rights)
{
	/* For a read, a write, a fetch (which is a read), tables without and with accessed and dirty bits. */
	static const char *const letters[4] = { "VVVVV", ".V..V", "V.VVV", "....." };
	static const uint64_t asked[] = { 1, 2, 1, 1, 3 };

	for (uint32_t levels = 3; levels <= 5; levels++)
		for (uint32_t leaf = 1; leaf <= 3; leaf++)
			for (uint32_t level = leaf; level <= levels; level++)
				for (uint64_t rights = 0; rights < 4; rights++)
					for (unsigned column = 0; column < 5; column++) {
						static const enum vmemt_access kinds[] = {
							VMEMT_READ, VMEMT_WRITE, VMEMT_FETCH,
							VMEMT_TABLE, VMEMT_TABLE
						};
						struct vmem_ept_walked w;
						int ok = letters[rights][column] == '.';

						setup(VMEM_EPT_VTD, levels, VMEMT_ALL_CAPS,
						      column == 4, leaf);
						*path.entry[level] =
							(*path.entry[level] & ~UINT64_C(3)) |
							rights;
						w = vmemt_walk(&tables, path.gpa, kinds[column], 0);
						cr_assert_eq(w.outcome,
							     ok ? VMEM_EPT_WALK_OK
								: VMEM_EPT_WALK_VIOLATION);
						cr_assert_eq(w.qualification,
							     ok ? 0 : asked[column] | rights << 3);
						if (column == 4 && ok)
							cr_assert_eq(*path.entry[leaf] & 0x300,
								     0x300);
						else if (column != 4)
							cr_assert_eq(*path.entry[leaf] & 0x300, 0);
					}
}

static uint32_t vtd_with_bit(uint64_t caps, uint32_t leaf, uint32_t level, unsigned bit)
{
	setup(VMEM_EPT_VTD, 4, caps, 0, leaf);
	*path.entry[level] |= UINT64_C(1) << bit;
	return vmemt_walk(&tables, GPA, 0, 0).outcome;
}

Test(ept_walk_vtd, reserved_and_ignored_bits)
{
	static const unsigned ignored[] = { 2,  3,  4,  5,  6,  8,  9,  10, 52, 53,
					    54, 55, 56, 57, 58, 59, 60, 61, 63 };
	const uint64_t all = VMEMT_ALL_CAPS, no_snoop = all & ~VMEM_EPT_CAP_SNOOP;

	for (uint32_t leaf = 1; leaf <= 3; leaf++)
		for (uint32_t level = leaf; level <= 4; level++) {
			for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
				cr_assert_eq(vtd_with_bit(all, leaf, level, ignored[i]),
					     VMEM_EPT_WALK_OK);
			for (unsigned bit = 40; bit <= 51; bit++)
				cr_assert_eq(vtd_with_bit(all, leaf, level, bit),
					     VMEM_EPT_WALK_MISCONFIG);
			cr_assert_eq(vtd_with_bit(all, leaf, level, 62), VMEM_EPT_WALK_MISCONFIG);
			cr_assert_eq(vtd_with_bit(no_snoop, leaf, level, 11),
				     VMEM_EPT_WALK_MISCONFIG);
			cr_assert_eq(vtd_with_bit(all, leaf, level, 11),
				     level == leaf ? VMEM_EPT_WALK_OK : VMEM_EPT_WALK_MISCONFIG);
		}
	cr_assert_eq(vtd_with_bit(all, 1, 4, 7), VMEM_EPT_WALK_MISCONFIG);
	cr_assert_eq(vtd_with_bit(all, 1, 1, 7), VMEM_EPT_WALK_OK);
	for (unsigned bit = 12; bit <= 20; bit++)
		cr_assert_eq(vtd_with_bit(all, 2, 2, bit), VMEM_EPT_WALK_MISCONFIG);
	for (unsigned bit = 12; bit <= 29; bit++)
		cr_assert_eq(vtd_with_bit(all, 3, 3, bit), VMEM_EPT_WALK_MISCONFIG);
	cr_assert_eq(vtd_with_bit(all & ~VMEM_EPT_CAP_2M, 2, 2, 2), VMEM_EPT_WALK_MISCONFIG);
	cr_assert_eq(vtd_with_bit(all & ~VMEM_EPT_CAP_1G, 3, 3, 2), VMEM_EPT_WALK_MISCONFIG);
}

Test(ept_walk_vtd, pointer)
{
	for (uint64_t levels = 0; levels < 8; levels++) {
		const uint64_t pointer = 0x40000000 | levels;

		setup(VMEM_EPT_VTD, 3, VMEMT_ALL_CAPS, 0, 1);
		tables.pointer = pointer;
		cr_assert_eq(vmemt_walk(&tables, VTD_GPA, 0, 0).outcome ==
				     VMEM_EPT_WALK_BAD_POINTER,
			     levels == 0 || levels > 3);
		tables.processor.caps &= ~VMEM_EPT_CAP_3_LEVELS;
		cr_assert_eq(vmemt_walk(&tables, VTD_GPA, 0, 0).outcome ==
				     VMEM_EPT_WALK_BAD_POINTER,
			     levels < 2 || levels > 3);
	}
	for (unsigned bit = 3; bit < 64; bit++) {
		uint32_t why;

		setup(VMEM_EPT_VTD, 3, VMEMT_ALL_CAPS & ~VMEM_EPT_CAP_AD, 0, 1);
		tables.pointer |= UINT64_C(1) << bit;
		why = vmemt_walk(&tables, VTD_GPA, 0, 0).misconfig;
		if (bit == 9)
			cr_assert_eq(why, VMEM_EPT_POINTER_AD);
		else if (bit < 12 || bit >= 40)
			cr_assert_eq(why, VMEM_EPT_POINTER_RESERVED, "%u", bit);
	}
}

/* Beyond what three levels reach. */
Test(ept_walk_vtd, width)
{
	setup(VMEM_EPT_VTD, 3, VMEMT_ALL_CAPS, 0, 1);
	cr_assert_eq(vmemt_walk(&tables, VTD_GPA, 0, 0).outcome, VMEM_EPT_WALK_OK);
	cr_assert_eq(vmemt_walk(&tables, VTD_GPA | UINT64_C(1) << 39, 0, 0).outcome,
		     VMEM_EPT_WALK_VIOLATION);
}
