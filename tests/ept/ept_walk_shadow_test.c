/* SPDX-License-Identifier: BSD-2-Clause */
/* Accesses to shadow stacks (SDM 29.3.3.2; bits 13 and 14 of table 28-7): what each combination of rights and of bit 60
 * allows, in the leaf and above it, written by hand, with bit 7 of the EPTP set and clear. */
#include <criterion/criterion.h>
#include "ept/ept_walk_tools.h"

#define GPA UINT64_C(0x35a27654000)
#define BIT60 (UINT64_C(1) << 60)

/* By the supervisor: read, write the shadow stack; by the user: likewise; other reads and writes. */
enum { COLUMNS = 6 };
static const struct column {
	uint32_t kind, user;
	uint64_t asked; /* bits 13, 8, 7 and 1:0 of the qualification */
	int writes;
} columns[COLUMNS] = {
	{ VMEM_EPT_ACCESS_SHADOW_STACK, 0, 0x2181, 0 },
	{ VMEM_EPT_ACCESS_SHADOW_STACK_WRITE, 0, 0x2182, 1 },
	{ VMEM_EPT_ACCESS_SHADOW_STACK, 1, 0x2181, 0 },
	{ VMEM_EPT_ACCESS_SHADOW_STACK_WRITE, 1, 0x2182, 1 },
	{ VMEM_EPT_ACCESS_READ, 0, 0x181, 0 },
	{ VMEM_EPT_ACCESS_WRITE, 0, 0x182, 1 },
};

/* '.' allowed, V violation, M misconfiguration; [bit 60 of the leaf] where bit 7 of the EPTP is set. */
struct row {
	const char *bits; /* r w x */
	const char *off, *leaf[2], *above[2];
};

static const struct row rows[8] = {
	{ "---", "VVVVVV", { "VVVVVV", "VVVVVV" }, { "VVVVVV", "VVVVVV" } },
	{ "r--", ".V.V.V", { "VV.V.V", "...V.V" }, { "VV.V.V", "VV.V.V" } },
	{ "-w-", "MMMMMM", { "MMMMMM", "MMMMMM" }, { "MMMMMM", "MMMMMM" } },
	{ "rw-", "......", { "VV....", "......" }, { "VV....", "......" } },
	{ "--x", "VVVVVV", { "VVVVVV", "VVVVVV" }, { "VVVVVV", "VVVVVV" } },
	{ "r-x", ".V.V.V", { "VV.V.V", "...V.V" }, { "VV.V.V", "VV.V.V" } },
	{ "-wx", "MMMMMM", { "MMMMMM", "MMMMMM" }, { "MMMMMM", "MMMMMM" } },
	{ "rwx", "......", { "VV....", "......" }, { "VV....", "......" } },
};

static struct vmemt_tables tables;
static struct vmemt_path path;

static void setup(uint32_t levels, uint32_t leaf, int on)
{
	vmemt_tables_begin(&tables, VMEM_EPT_INTEL, levels, VMEMT_ALL_CAPS | VMEM_EPT_CAP_EXEC_ONLY,
			   1);
	tables.pointer |= on ? 0x80u : 0;
	vmemt_path(&tables, &path, GPA, leaf);
}

static struct vmem_ept_walked walk(const struct column *c)
{
	struct vmem_ept_access access = vmemt_access_of(&tables, GPA, VMEMT_READ, 0);

	access.kind = c->kind;
	access.user = c->user;
	return vmemt_walk_access(&tables, &access);
}

/* One access through an entry at @level with @rights, the leaf with bit 60 or not. */
static void one(uint32_t level, unsigned rights, unsigned bit60, int on, unsigned column)
{
	const struct row *row = &rows[rights];
	const char *letters = !on                  ? row->off
			      : level == path.leaf ? row->leaf[bit60]
						   : row->above[bit60];
	const int at_leaf = rights != 0 || level == path.leaf;
	struct vmem_ept_walked walked;
	uint64_t expected;

	*path.entry[path.leaf] |= bit60 ? BIT60 : 0;
	*path.entry[level] = (*path.entry[level] & ~UINT64_C(7)) | rights;
	walked = walk(&columns[column]);
	if (letters[column] == 'M') {
		cr_assert_eq(walked.outcome, VMEM_EPT_WALK_MISCONFIG);
		cr_assert_eq(walked.qualification, 0);
		return;
	}
	cr_assert_eq(walked.outcome,
		     letters[column] == 'V' ? VMEM_EPT_WALK_VIOLATION : VMEM_EPT_WALK_OK,
		     "%s bit 60 %u on %d leaf %u level %u column %u: %u", row->bits, bit60, on,
		     path.leaf, level, column, walked.outcome);
	/* An entry without rights is not present, and no leaf. */
	expected = columns[column].asked | rights << 3;
	if (on && bit60 && at_leaf && rights)
		expected |= 0x4000;
	cr_assert_eq(walked.qualification, letters[column] == 'V' ? expected : 0, "%lx",
		     (unsigned long)walked.qualification);
	cr_assert_eq(*path.entry[path.leaf] & 0x300, letters[column] == 'V'   ? 0
						     : columns[column].writes ? 0x300
									      : 0x100);
	cr_assert_eq(walked.logged, letters[column] == '.' && columns[column].writes);
}

Test(ept_walk_shadow, rights)
{
	unsigned long count = 0;

	for (uint32_t levels = 4; levels <= 5; levels++)
		for (uint32_t leaf = 1; leaf <= 3; leaf++)
			for (uint32_t level = leaf; level <= levels; level++)
				for (unsigned i = 0; i < 8u * 2 * 2 * COLUMNS; i++, count++) {
					const int on = i >> 4 & 1;

					setup(levels, leaf, on);
					one(level, i & 7, i >> 3 & 1, on, i >> 5);
				}
	cr_assert_eq(count, (4ul + 3 + 2 + 5 + 4 + 3) * 32 * COLUMNS);
}

/* Bit 14 tells of the page, whatever the access is; bit 60 of tables means nothing. */
Test(ept_walk_shadow, bit_14_of_other_accesses)
{
	for (int on = 0; on < 2; on++) {
		const uint64_t bit14 = on ? 0x4000 : 0;

		setup(4, 1, on);
		*path.entry[1] = (*path.entry[1] & ~UINT64_C(6)) | BIT60;
		cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_TABLE, 0).qualification, 0x8b | bit14);
		cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_FETCH, 0).qualification, 0x18c | bit14);
		setup(4, 1, on);
		*path.entry[1] &= ~UINT64_C(6);
		for (uint32_t level = 2; level <= 4; level++)
			*path.entry[level] |= BIT60;
		cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_FETCH, 0).qualification, 0x18c);
		*path.entry[2] = BIT60; /* not present */
		cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_READ, 0).qualification, 0x181);
	}
}

/* On AMD they are reads and writes that are told apart; a device has no shadow stack. */
Test(ept_walk_shadow, other_formats)
{
	for (unsigned i = 0; i < 4; i++) {
		const struct column *c = &columns[i];

		vmemt_tables_begin(&tables, VMEM_EPT_AMD, 4, VMEMT_ALL_CAPS, 1);
		vmemt_path(&tables, &path, GPA, 1);
		cr_assert_eq(walk(c).outcome, VMEM_EPT_WALK_OK);
		*path.entry[1] &= ~UINT64_C(2);
		cr_assert_eq(walk(c).outcome,
			     c->writes ? VMEM_EPT_WALK_VIOLATION : VMEM_EPT_WALK_OK);
		*path.entry[1] = 0;
		cr_assert_eq(walk(c).qualification, UINT64_C(0x100000044) | (c->writes ? 2u : 0));
		vmemt_tables_begin(&tables, VMEM_EPT_VTD, 4, VMEMT_ALL_CAPS, 1);
		vmemt_path(&tables, &path, GPA, 1);
		cr_assert_eq(walk(c).outcome, UINT32_MAX);
	}
}
