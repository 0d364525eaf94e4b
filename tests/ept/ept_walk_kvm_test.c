/* SPDX-License-Identifier: BSD-2-Clause */
/* The cases that kvm-unit-tests asks real processors (x86/vmx_tests.c: ept_access_test_*, test_ept_eptp, eptad, pml), each by its
 * name, at each level and with each leaf size, and the bits that it never tries (20 of 2M leaves, 29 of 1G leaves). The
 * expected values are written by hand. */
#include <criterion/criterion.h>
#include "ept/ept_walk_tools.h"

#define R 1u
#define W 2u
#define X 4u
#define XU 0x400u

#define GPA UINT64_C(0x35a27654000)
#define ROOT_AT 0x40000000u

static struct vmemt_tables tables;
static struct vmemt_path path;
static uint32_t context;

static void setup_caps(uint64_t caps, int ad)
{
	vmemt_tables_begin(&tables, VMEM_EPT_INTEL, 4, caps, ad);
	context = caps & VMEM_EPT_CAP_MBEC ? VMEM_EPT_WALK_MBEC : 0;
}

static void setup(uint64_t more_caps)
{
	setup_caps(VMEMT_ALL_CAPS | more_caps, 0);
}

/* Calls @check with the entry that is under test at each level of each leaf size. */
static void everywhere(void (*check)(uint64_t *entry, uint32_t level, const void *what),
		       const void *what)
{
	for (uint32_t leaf = 1; leaf <= 3; leaf++) {
		vmemt_path(&tables, &path, (uint64_t)leaf << 44 | GPA, leaf);
		for (uint32_t level = leaf; level <= 4; level++) {
			const uint64_t full = *path.entry[level];

			check(path.entry[level], level, what);
			*path.entry[level] = full;
		}
	}
}

struct expected {
	uint64_t rights;
	enum vmemt_access access;
	uint64_t qualification;
	enum vmem_ept_misconfig misconfig;
};

static void check_allowed(uint64_t *entry, uint32_t level, const void *what)
{
	const struct expected *e = what;
	struct vmem_ept_walked walked;

	*entry = (*entry & ~UINT64_C(0x407)) | e->rights;
	walked = vmemt_walk(&tables, path.gpa, e->access, context);
	cr_assert_eq(walked.outcome, VMEM_EPT_WALK_OK, "level %u", level);
}

static void check_violation(uint64_t *entry, uint32_t level, const void *what)
{
	const struct expected *e = what;
	struct vmem_ept_walked walked;

	*entry = (*entry & ~UINT64_C(0x407)) | e->rights;
	walked = vmemt_walk(&tables, path.gpa, e->access, context);
	cr_assert_eq(walked.outcome, VMEM_EPT_WALK_VIOLATION, "level %u", level);
	cr_assert_eq(walked.qualification, e->qualification, "level %u: %lx", level,
		     (unsigned long)walked.qualification);
}

static void check_misconfig(uint64_t *entry, uint32_t level, const void *what)
{
	const struct expected *e = what;

	*entry = (*entry & ~UINT64_C(0x407)) | e->rights;
	for (int access = 0; access < VMEMT_ACCESSES; access++) {
		struct vmem_ept_walked walked;

		walked = vmemt_walk(&tables, path.gpa, (enum vmemt_access)access, context);
		cr_assert_eq(walked.outcome, VMEM_EPT_WALK_MISCONFIG, "level %u", level);
		cr_assert_eq(walked.misconfig, e->misconfig);
		cr_assert_eq(walked.level, level);
	}
}

static void access_allowed(uint64_t rights, enum vmemt_access access)
{
	everywhere(check_allowed, &(struct expected){ .rights = rights, .access = access });
}

static void access_violation(uint64_t rights, enum vmemt_access access, uint64_t qualification)
{
	everywhere(check_violation, &(struct expected){ rights, access, qualification, 0 });
}

static void access_misconfig(uint64_t rights, enum vmem_ept_misconfig why)
{
	everywhere(check_misconfig, &(struct expected){ rights, 0, 0, why });
}

Test(ept_access, not_present)
{
	setup(0);
	access_violation(0, VMEMT_READ, 0x181);
	access_violation(0, VMEMT_WRITE, 0x182);
	access_violation(0, VMEMT_FETCH, 0x184);
	access_violation(XU, VMEMT_FETCH, 0x184); /* bit 10 is nothing without MBEC */
}

Test(ept_access, read_only)
{
	setup(0);
	access_allowed(R, VMEMT_READ);
	access_violation(R, VMEMT_WRITE, 0x18a);
	access_violation(R, VMEMT_FETCH, 0x18c);
}

Test(ept_access, write_only)
{
	setup(VMEM_EPT_CAP_EXEC_ONLY);
	access_misconfig(W, VMEM_EPT_WRITE_ONLY);
	setup(VMEM_EPT_CAP_EXEC_ONLY | VMEM_EPT_CAP_MBEC);
	access_misconfig(W, VMEM_EPT_WRITE_ONLY);
}

Test(ept_access, read_write)
{
	setup(0);
	access_allowed(R | W, VMEMT_READ);
	access_allowed(R | W, VMEMT_WRITE);
	access_violation(R | W, VMEMT_FETCH, 0x19c);
}

Test(ept_access, execute_only)
{
	setup(VMEM_EPT_CAP_EXEC_ONLY);
	access_violation(X, VMEMT_READ, 0x1a1);
	access_violation(X, VMEMT_WRITE, 0x1a2);
	access_allowed(X, VMEMT_FETCH);
	access_allowed(X, VMEMT_FETCH_USER);
	setup(0);
	access_misconfig(X, VMEM_EPT_EXEC_ONLY);
	setup(VMEM_EPT_CAP_EXEC_ONLY | VMEM_EPT_CAP_MBEC);
	access_allowed(X, VMEMT_FETCH);
	access_violation(X, VMEMT_FETCH_USER, 0x1a4);
}

Test(ept_access, execute_user_only)
{
	setup(VMEM_EPT_CAP_EXEC_ONLY | VMEM_EPT_CAP_MBEC);
	access_violation(XU, VMEMT_READ, 0x1c1);
	access_violation(XU, VMEMT_WRITE, 0x1c2);
	access_violation(XU, VMEMT_FETCH, 0x1c4);
	access_allowed(XU, VMEMT_FETCH_USER);
	setup(VMEM_EPT_CAP_MBEC);
	access_misconfig(XU, VMEM_EPT_EXEC_ONLY);
}

Test(ept_access, execute_both)
{
	setup(VMEM_EPT_CAP_EXEC_ONLY | VMEM_EPT_CAP_MBEC);
	access_violation(X | XU, VMEMT_READ, 0x1e1);
	access_violation(X | XU, VMEMT_WRITE, 0x1e2);
	access_allowed(X | XU, VMEMT_FETCH);
	access_allowed(X | XU, VMEMT_FETCH_USER);
	setup(VMEM_EPT_CAP_MBEC);
	access_misconfig(X | XU, VMEM_EPT_EXEC_ONLY);
}

Test(ept_access, read_execute)
{
	setup(0);
	access_allowed(R | X, VMEMT_READ);
	access_violation(R | X, VMEMT_WRITE, 0x1aa);
	access_allowed(R | X, VMEMT_FETCH);
	setup(VMEM_EPT_CAP_MBEC);
	access_allowed(R | X, VMEMT_FETCH);
	access_violation(R | X, VMEMT_FETCH_USER, 0x1ac);
}

Test(ept_access, read_execute_user_only)
{
	setup(VMEM_EPT_CAP_MBEC);
	access_allowed(R | XU, VMEMT_READ);
	access_violation(R | XU, VMEMT_WRITE, 0x1ca);
	access_violation(R | XU, VMEMT_FETCH, 0x1cc);
	access_allowed(R | XU, VMEMT_FETCH_USER);
}

Test(ept_access, read_execute_both)
{
	setup(VMEM_EPT_CAP_MBEC);
	access_allowed(R | X | XU, VMEMT_READ);
	access_violation(R | X | XU, VMEMT_WRITE, 0x1ea);
	access_allowed(R | X | XU, VMEMT_FETCH);
	access_allowed(R | X | XU, VMEMT_FETCH_USER);
}

Test(ept_access, write_execute)
{
	setup(VMEM_EPT_CAP_EXEC_ONLY);
	access_misconfig(W | X, VMEM_EPT_WRITE_EXEC);
}

Test(ept_access, write_execute_user_only)
{
	setup(VMEM_EPT_CAP_EXEC_ONLY | VMEM_EPT_CAP_MBEC);
	access_misconfig(W | XU, VMEM_EPT_WRITE_EXEC);
}

Test(ept_access, write_execute_both)
{
	setup(VMEM_EPT_CAP_EXEC_ONLY | VMEM_EPT_CAP_MBEC);
	access_misconfig(W | X | XU, VMEM_EPT_WRITE_EXEC);
}

Test(ept_access, read_write_execute)
{
	setup(0);
	access_allowed(R | W | X, VMEMT_READ);
	access_allowed(R | W | X, VMEMT_WRITE);
	access_allowed(R | W | X, VMEMT_FETCH);
	setup(VMEM_EPT_CAP_MBEC);
	access_violation(R | W | X, VMEMT_FETCH_USER, 0x1bc);
}

Test(ept_access, read_write_execute_user_only)
{
	setup(VMEM_EPT_CAP_MBEC);
	access_allowed(R | W | XU, VMEMT_READ);
	access_allowed(R | W | XU, VMEMT_WRITE);
	access_violation(R | W | XU, VMEMT_FETCH, 0x1dc);
	access_allowed(R | W | XU, VMEMT_FETCH_USER);
}

Test(ept_access, read_write_execute_both)
{
	setup(VMEM_EPT_CAP_MBEC);
	access_allowed(R | W | X | XU, VMEMT_READ);
	access_allowed(R | W | X | XU, VMEMT_WRITE);
	access_allowed(R | W | X | XU, VMEMT_FETCH);
	access_allowed(R | W | X | XU, VMEMT_FETCH_USER);
}

/* One bit in the entry at @level of a path with leaves of @leaf. */
static struct vmem_ept_walked with_bit(uint32_t leaf, uint32_t level, unsigned bit)
{
	struct vmem_ept_walked walked;
	uint64_t full;

	vmemt_path(&tables, &path, (uint64_t)leaf << 44 | GPA, leaf);
	full = *path.entry[level];
	*path.entry[level] |= UINT64_C(1) << bit;
	walked = vmemt_walk(&tables, path.gpa, VMEMT_READ, context);
	*path.entry[level] = full;
	return walked;
}

static void reserved(uint32_t leaf, uint32_t level, unsigned first, unsigned last,
		     enum vmem_ept_misconfig why)
{
	for (unsigned bit = first; bit <= last; bit++) {
		struct vmem_ept_walked walked = with_bit(leaf, level, bit);

		cr_assert_eq(walked.outcome, VMEM_EPT_WALK_MISCONFIG, "leaf %u level %u bit %u",
			     leaf, level, bit);
		cr_assert_eq(walked.misconfig, why, "leaf %u level %u bit %u", leaf, level, bit);
		cr_assert_eq(walked.level, level);
		cr_assert_eq(walked.qualification, 0);
	}
}

Test(ept_access, reserved_bits)
{
	setup(VMEM_EPT_CAP_MBEC);
	/* Tables: 6:3 at all levels, bit 7 of level 4 (at 2 and 3 it makes a leaf). */
	reserved(1, 4, 3, 7, VMEM_EPT_RESERVED_BITS);
	reserved(1, 3, 3, 6, VMEM_EPT_RESERVED_BITS);
	reserved(1, 2, 3, 6, VMEM_EPT_RESERVED_BITS);
	/* Large leaves: the address below their size, the last bits with it. */
	reserved(2, 2, 12, 20, VMEM_EPT_RESERVED_BITS);
	reserved(3, 3, 12, 29, VMEM_EPT_RESERVED_BITS);
	for (uint32_t leaf = 1; leaf <= 3; leaf++)
		for (uint32_t level = leaf; level <= 4; level++)
			reserved(leaf, level, 40, 51, VMEM_EPT_ADDRESS_WIDTH);
	/* The next bits up belong to the address. */
	cr_assert_eq(with_bit(2, 2, 21).hpa, UINT64_C(0x1c0254000));
	cr_assert_eq(with_bit(1, 1, 39).hpa, UINT64_C(0x81c0000000));
}

Test(ept_access, reserved_bits_of_five_levels)
{
	vmemt_tables_begin(&tables, VMEM_EPT_INTEL, 5, VMEMT_ALL_CAPS, 0);
	reserved(1, 5, 3, 7, VMEM_EPT_RESERVED_BITS);
	reserved(1, 4, 3, 7, VMEM_EPT_RESERVED_BITS);
}

static void ignored(uint32_t leaf, uint32_t level, unsigned bit)
{
	struct vmem_ept_walked walked = with_bit(leaf, level, bit);

	cr_assert_eq(walked.outcome, VMEM_EPT_WALK_OK, "leaf %u level %u bit %u", leaf, level, bit);
	cr_assert_eq(walked.hpa >> 30, 7, "leaf %u level %u bit %u", leaf, level, bit);
}

Test(ept_access, ignored_bits)
{
	static const unsigned everywhere_ignored[] = { 8,  9,  10, 11, 52, 53, 54, 55,
						       56, 57, 58, 59, 60, 61, 62, 63 };

	setup(0);
	for (uint32_t leaf = 1; leaf <= 3; leaf++)
		for (uint32_t level = leaf; level <= 4; level++)
			for (size_t i = 0; i < 16; i++)
				ignored(leaf, level, everywhere_ignored[i]);
	ignored(1, 1, 7); /* a page-table entry has no size */
}

Test(ept_access, force_2m_page)
{
	setup(0);
	vmemt_path(&tables, &path, GPA, 2);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, 0).bytes, 0x200000);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, 0).hpa, UINT64_C(0x1c0054000));
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, 0).level, 2);
	setup_caps(VMEMT_ALL_CAPS & ~VMEM_EPT_CAP_2M, 0);
	vmemt_path(&tables, &path, GPA, 2);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_READ, 0).misconfig, VMEM_EPT_LARGE_UNSUPPORTED);
	vmemt_path(&tables, &path, GPA + (UINT64_C(1) << 32), 3);
	cr_assert_eq(vmemt_walk(&tables, path.gpa, VMEMT_READ, 0).outcome, VMEM_EPT_WALK_OK);
	setup_caps(VMEMT_ALL_CAPS & ~VMEM_EPT_CAP_1G, 0);
	vmemt_path(&tables, &path, GPA, 3);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_READ, 0).misconfig, VMEM_EPT_LARGE_UNSUPPORTED);
}

Test(ept_access, memory_types)
{
	setup(0);
	for (uint64_t leaf = 1; leaf <= 3; leaf++)
		for (uint64_t type = 0; type < 8; type++) {
			struct vmem_ept_walked walked;

			vmemt_path(&tables, &path, leaf << 44 | GPA, (uint32_t)leaf);
			*path.entry[leaf] = (*path.entry[leaf] & ~UINT64_C(0x38)) | type << 3;
			walked = vmemt_walk(&tables, path.gpa, VMEMT_READ, 0);
			if (type == 2 || type == 3 || type == 7) {
				cr_assert_eq(walked.outcome, VMEM_EPT_WALK_MISCONFIG);
				cr_assert_eq(walked.misconfig, VMEM_EPT_RESERVED_TYPE);
			} else {
				cr_assert_eq(walked.type, type);
				cr_assert_eq(walked.ignore_pat, 0);
				*path.entry[leaf] |= 0x40;
				cr_assert_eq(vmemt_walk(&tables, path.gpa, 0, 0).ignore_pat, 1);
			}
		}
}

/* The guest reads, writes or runs a page through a table of its own, whose entry has its accessed and dirty bits set or not: the
 * processor reads the table, sets bits there if it must, then goes to the page. */
enum { NEITHER, GUEST_A, GUEST_AD };

static struct vmem_ept_walked guest(int marks, enum vmemt_access access)
{
	struct vmem_ept_walked walked = vmemt_walk(&tables, path.gpa, VMEMT_TABLE, 0);

	if (walked.outcome == VMEM_EPT_WALK_OK &&
	    (marks == NEITHER || (marks == GUEST_A && access == VMEMT_WRITE)))
		walked = vmemt_walk(&tables, path.gpa, VMEMT_TABLE_WRITE, 0);
	return walked;
}

static void paddr(uint64_t rights, int marks, enum vmemt_access access, uint64_t qualification)
{
	struct vmem_ept_walked walked;

	vmemt_path(&tables, &path, GPA, 1);
	*path.entry[1] = (*path.entry[1] & ~UINT64_C(0x407)) | rights;
	walked = guest(marks, access);
	cr_assert_eq(walked.outcome, qualification ? VMEM_EPT_WALK_VIOLATION : VMEM_EPT_WALK_OK);
	cr_assert_eq(walked.qualification, qualification, "%lx",
		     (unsigned long)walked.qualification);
}

#define EACH_OPERATION(op) \
	for (enum vmemt_access op = VMEMT_READ; op <= VMEMT_FETCH; op = (enum vmemt_access)(op + 1))

Test(ept_access, paddr_not_present_ad_disabled)
{
	setup_caps(VMEMT_ALL_CAPS, 0);
	EACH_OPERATION(op)
	paddr(0, GUEST_AD, op, 0x081);
}

Test(ept_access, paddr_not_present_ad_enabled)
{
	setup_caps(VMEMT_ALL_CAPS, 1);
	EACH_OPERATION(op)
	paddr(0, GUEST_AD, op, 0x083);
}

Test(ept_access, paddr_read_only_ad_disabled)
{
	setup_caps(VMEMT_ALL_CAPS, 0);
	EACH_OPERATION(op)
	{
		paddr(R, NEITHER, op, 0x08b);
		paddr(R, GUEST_AD, op, 0);
	}
	paddr(R, GUEST_A, VMEMT_READ, 0);
	paddr(R, GUEST_A, VMEMT_WRITE, 0x08b);
	paddr(R, GUEST_A, VMEMT_FETCH, 0);
}

Test(ept_access, paddr_read_only_ad_enabled)
{
	setup_caps(VMEMT_ALL_CAPS, 1);
	for (int marks = NEITHER; marks <= GUEST_AD; marks++)
		EACH_OPERATION(op)
	paddr(R, marks, op, 0x08b);
}

Test(ept_access, paddr_read_write)
{
	for (int ad = 0; ad < 2; ad++) {
		setup_caps(VMEMT_ALL_CAPS, ad);
		for (int marks = NEITHER; marks <= GUEST_AD; marks++)
			EACH_OPERATION(op)
		paddr(R | W, marks, op, 0);
	}
}

Test(ept_access, paddr_read_write_execute)
{
	for (int ad = 0; ad < 2; ad++) {
		setup_caps(VMEMT_ALL_CAPS, ad);
		for (int marks = NEITHER; marks <= GUEST_AD; marks++)
			EACH_OPERATION(op)
		paddr(R | W | X, marks, op, 0);
	}
}

Test(ept_access, paddr_read_execute_ad_disabled)
{
	setup_caps(VMEMT_ALL_CAPS, 0);
	EACH_OPERATION(op)
	{
		paddr(R | X, NEITHER, op, 0x0ab);
		paddr(R | X, GUEST_AD, op, 0);
	}
	paddr(R | X, GUEST_A, VMEMT_READ, 0);
	paddr(R | X, GUEST_A, VMEMT_WRITE, 0x0ab);
	paddr(R | X, GUEST_A, VMEMT_FETCH, 0);
}

Test(ept_access, paddr_read_execute_ad_enabled)
{
	setup_caps(VMEMT_ALL_CAPS, 1);
	for (int marks = NEITHER; marks <= GUEST_AD; marks++)
		EACH_OPERATION(op)
	paddr(R | X, marks, op, 0x0ab);
}

/* The guest's entry is not present: its table is read all the same, and that may be a violation first. */
Test(ept_access, paddr_not_present_page_fault)
{
	setup_caps(VMEMT_ALL_CAPS, 1);
	paddr(0, GUEST_AD, VMEMT_READ, 0x083);
	paddr(R | W | X, GUEST_AD, VMEMT_READ, 0); /* and so to the guest's own page fault */
}

/* Loading PDPTEs is a read, whatever the accessed and dirty bits, and has no linear address. */
Test(ept_access, pdptes)
{
	for (int ad = 0; ad < 2; ad++) {
		struct vmem_ept_access access;
		struct vmem_ept_walked walked;

		setup_caps(VMEMT_ALL_CAPS, ad);
		vmemt_path(&tables, &path, GPA, 1);
		*path.entry[1] &= ~UINT64_C(2);
		access = vmemt_access_of(&tables, GPA, VMEMT_TABLE, 0);
		access.no_linear = 1;
		walked = vmemt_walk_access(&tables, &access);
		cr_assert_eq(walked.outcome, VMEM_EPT_WALK_OK);
		cr_assert_eq(*path.entry[1] & 0x300, ad ? 0x100 : 0);
		*path.entry[1] = 0;
		walked = vmemt_walk_access(&tables, &access);
		cr_assert_eq(walked.qualification, 0x001);
	}
}
