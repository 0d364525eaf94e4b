/* SPDX-License-Identifier: BSD-2-Clause */
/* What each combination of rights allows, at each level, for each access: written by hand from the SDM (29.3.3.1 what is
 * misconfigured, 29.3.3.2 what is a violation, table 28-7 the exit qualification), and compared with the walker for
 * all levels, leaf sizes, capabilities, with accessed and dirty bits on and off. */
#include <criterion/criterion.h>
#include "ept/ept_walk_tools.h"

/* '.' allowed, V violation, M misconfiguration; for: read, write, fetch by supervisor and by user, a table of the guest read
 * without and with accessed and dirty bits. With MBEC the second column counts when bit 10 is set. */
struct row {
	const char *bits; /* r w x */
	const char *plain, *exec_only;
	const char *mbec[2], *mbec_exec_only[2]; /* [bit 10] */
};

static const struct row rows[8] = {
	{ "---", "VVVVVV", "VVVVVV", { "VVVVVV", "MMMMMM" }, { "VVVVVV", "VVV.VV" } },
	{ "r--", ".VVV.V", ".VVV.V", { ".VVV.V", ".VV..V" }, { ".VVV.V", ".VV..V" } },
	{ "-w-", "MMMMMM", "MMMMMM", { "MMMMMM", "MMMMMM" }, { "MMMMMM", "MMMMMM" } },
	{ "rw-", "..VV..", "..VV..", { "..VV..", "..V..." }, { "..VV..", "..V..." } },
	{ "--x", "MMMMMM", "VV..VV", { "MMMMMM", "MMMMMM" }, { "VV.VVV", "VV..VV" } },
	{ "r-x", ".V...V", ".V...V", { ".V.V.V", ".V...V" }, { ".V.V.V", ".V...V" } },
	{ "-wx", "MMMMMM", "MMMMMM", { "MMMMMM", "MMMMMM" }, { "MMMMMM", "MMMMMM" } },
	{ "rwx", "......", "......", { "...V..", "......" }, { "...V..", "......" } },
};

/* Bits 8, 7 and 2:0 of the qualification, for the same six accesses. */
static const uint64_t asked[6] = { 0x181, 0x182, 0x184, 0x184, 0x081, 0x083 };

struct variant {
	uint32_t mbec, exec_only, ad, levels;
};

static char expected(const struct variant *v, unsigned rights, unsigned column)
{
	const struct row *row = &rows[rights & 7];

	if (!v->mbec)
		return (v->exec_only ? row->exec_only : row->plain)[column];
	return (v->exec_only ? row->mbec_exec_only : row->mbec)[rights >> 3][column];
}

static int nothing(const struct variant *v, unsigned rights)
{
	return (rights & 7) == 0 && !(v->mbec && rights >> 3);
}

/* Bits 6:3 of the qualification. */
static uint64_t allowed(const struct variant *v, unsigned rights)
{
	return (rights & 7) << 3 | (v->mbec && rights >> 3 ? 0x40u : 0);
}

static uint64_t with_rights(uint64_t entry, unsigned rights)
{
	return (entry & ~UINT64_C(0x407)) | (rights & 7) | (rights >> 3 ? 0x400u : 0);
}

static struct vmemt_tables tables;

static void begin(const struct variant *v)
{
	uint64_t caps = VMEMT_ALL_CAPS | VMEM_EPT_CAP_MBEC;

	vmemt_tables_begin(&tables, VMEM_EPT_INTEL, v->levels,
			   caps | (v->exec_only ? VMEM_EPT_CAP_EXEC_ONLY : 0), (int)v->ad);
}

static unsigned column_of(const struct variant *v, enum vmemt_access access)
{
	if (access == VMEMT_TABLE)
		return v->ad ? 5 : 4;
	return access == VMEMT_TABLE_WRITE ? 5 : (unsigned)access;
}

static struct vmem_ept_walked walk(const struct variant *v, const struct vmemt_path *path,
				   enum vmemt_access access)
{
	struct vmem_ept_walked walked;

	walked = vmemt_walk(&tables, path->gpa | 0x123, access, v->mbec ? VMEM_EPT_WALK_MBEC : 0);
	cr_assert_neq(walked.outcome, UINT32_MAX);
	return walked;
}

static uint32_t outcome_of(char letter)
{
	return letter == 'V'   ? VMEM_EPT_WALK_VIOLATION
	       : letter == 'M' ? VMEM_EPT_WALK_MISCONFIG
			       : VMEM_EPT_WALK_OK;
}

/* After an access: accessed bits in all entries, the dirty bit in the leaf, or nothing at all. */
static void marks(const struct variant *v, const struct vmemt_path *path, const uint64_t *was,
		  char letter, int written)
{
	for (uint32_t level = path->leaf; level <= v->levels; level++) {
		uint64_t wanted = was[level];

		if (v->ad && letter == '.')
			wanted |= level == path->leaf && written ? 0x300u : 0x100u;
		cr_assert_eq(*path->entry[level], wanted, "level %u", level);
		*path->entry[level] = was[level];
	}
}

static void one_access(const struct variant *v, const struct vmemt_path *path, uint32_t level,
		       unsigned rights, enum vmemt_access access)
{
	const unsigned column = column_of(v, access);
	const char letter = expected(v, rights, column);
	struct vmem_ept_walked walked;
	uint64_t was[6];

	for (uint32_t l = path->leaf; l <= v->levels; l++)
		was[l] = *path->entry[l];
	walked = walk(v, path, access);
	cr_assert_eq(walked.outcome, outcome_of(letter),
		     "mbec %u exec_only %u ad %u levels %u leaf %u at %u rights %x column %u: %u",
		     v->mbec, v->exec_only, v->ad, v->levels, path->leaf, level, rights, column,
		     walked.outcome);
	cr_assert_eq(walked.level, letter == 'M' || nothing(v, rights) ? level : path->leaf);
	if (letter == 'V')
		cr_assert_eq(walked.qualification, asked[column] | allowed(v, rights),
			     "rights %x column %u: %lx", rights, column,
			     (unsigned long)walked.qualification);
	else
		cr_assert_eq(walked.qualification, 0);
	if (letter == '.') {
		cr_assert_eq(walked.hpa, path->leaf == 1   ? UINT64_C(0x1c0000123)
					 : path->leaf == 2 ? UINT64_C(0x1c0054123)
							   : UINT64_C(0x1e7654123));
		cr_assert_eq(walked.type, VMEM_EPT_WB);
		cr_assert_eq(walked.logged, v->ad && (column == 1 || column == 5));
	}
	marks(v, path, was, letter, column == 1 || column == 5);
}

#define EACH_VARIANT(v)                                                                    \
	for (struct variant v = { 0, 0, 0, 4 }; v.levels < 6; v.levels++)                  \
		for (unsigned vmemt_i = 0;                                                 \
		     vmemt_i < 8 && (v.mbec = vmemt_i & 1, v.exec_only = vmemt_i >> 1 & 1, \
				    v.ad = vmemt_i >> 2, 1);                               \
		     vmemt_i++)

static uint64_t gpa_of(const struct variant *v)
{
	return v->levels == 5 ? UINT64_C(0x16e95a27654000) : UINT64_C(0x35a27654000);
}

/* Each of the 16 combinations in one entry, all rights in the others. */
Test(ept_walk_rights, one_entry)
{
	unsigned long count = 0;

	EACH_VARIANT(v)
	{
		for (uint32_t leaf = 1; leaf <= 3; leaf++) {
			struct vmemt_path path;

			begin(&v);
			vmemt_path(&tables, &path, gpa_of(&v), leaf);
			for (uint32_t level = leaf; level <= v.levels; level++) {
				const uint64_t full = *path.entry[level];

				for (unsigned rights = 0; rights < 16; rights++) {
					*path.entry[level] = with_rights(full, rights);
					for (int a = 0; a < VMEMT_ACCESSES; a++, count++)
						one_access(&v, &path, level, rights,
							   (enum vmemt_access)a);
				}
				*path.entry[level] = full;
			}
		}
	}
	cr_assert_eq(count, 8ul * (4 + 3 + 2 + 5 + 4 + 3) * 16 * VMEMT_ACCESSES);
}

/* Two entries, 16 x 16: what is absent or misconfigured above comes first, then what is so below, and then the rights
 * that both give. */
static void two(const struct variant *v, const struct vmemt_path *path, uint32_t upper,
		unsigned above, unsigned below)
{
	for (int a = 0; a < VMEMT_ACCESSES; a++) {
		const unsigned column = column_of(v, (enum vmemt_access)a);
		char letter = expected(v, above & below, column);
		uint64_t rights = allowed(v, above & below);
		uint32_t level = 1;
		struct vmem_ept_walked walked;

		if (expected(v, above, 0) == 'M' || nothing(v, above)) {
			letter = expected(v, above, column);
			level = upper;
			rights = 0;
		} else if (expected(v, below, 0) == 'M' || nothing(v, below)) {
			letter = expected(v, below, column);
			rights = 0;
		} else if (letter == 'M' || nothing(v, above & below)) {
			letter = 'V';
		}
		walked = walk(v, path, (enum vmemt_access)a);
		cr_assert_eq(walked.outcome, outcome_of(letter), "above %x below %x column %u: %u",
			     above, below, column, walked.outcome);
		cr_assert_eq(walked.level, level);
		if (letter == 'V')
			cr_assert_eq(walked.qualification, asked[column] | rights);
	}
}

Test(ept_walk_rights, two_entries)
{
	EACH_VARIANT(v)
	{
		struct vmemt_path path;

		begin(&v);
		vmemt_path(&tables, &path, gpa_of(&v), 1);
		for (uint32_t upper = 2; upper <= v.levels; upper++) {
			const uint64_t full = *path.entry[upper], page = *path.entry[1];

			for (unsigned pair = 0; pair < 256; pair++) {
				*path.entry[upper] = with_rights(full, pair & 15);
				*path.entry[1] = with_rights(page, pair >> 4);
				two(&v, &path, upper, pair & 15, pair >> 4);
			}
			*path.entry[upper] = full;
			*path.entry[1] = page;
		}
	}
}
