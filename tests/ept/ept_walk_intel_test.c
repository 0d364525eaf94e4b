/* SPDX-License-Identifier: BSD-2-Clause */
/* What else Intel's manual says of a walk: the EPTP, accessed and dirty bits, page-modification logging, virtualization
 * exceptions, which writes are for sub-pages, paging-write and verification, widths; and how the call itself is refused. */
#include <criterion/criterion.h>
#include "ept/ept_walk_tools.h"

#define GPA UINT64_C(0x35a27654000)

static struct vmemt_tables tables;
static struct vmemt_path path;

static void setup(uint64_t caps, int ad, uint32_t leaf)
{
	vmemt_tables_begin(&tables, VMEM_EPT_INTEL, 4, caps, ad);
	vmemt_path(&tables, &path, GPA, leaf);
}

/* The outcome for a pointer, and why. */
static struct vmem_ept_walked with_pointer(uint64_t caps, uint64_t pointer)
{
	setup(caps, 0, 1);
	tables.pointer = pointer;
	return vmemt_walk(&tables, GPA, VMEMT_READ, 0);
}

static void bad_pointer(uint64_t caps, uint64_t pointer, enum vmem_ept_misconfig why)
{
	struct vmem_ept_walked walked = with_pointer(caps, pointer);

	cr_assert_eq(walked.outcome, VMEM_EPT_WALK_BAD_POINTER, "%lx", (unsigned long)pointer);
	cr_assert_eq(walked.misconfig, why, "%lx: %u", (unsigned long)pointer, walked.misconfig);
}

static void good_pointer(uint64_t caps, uint64_t pointer)
{
	cr_assert_eq(with_pointer(caps, pointer).outcome, VMEM_EPT_WALK_OK, "%lx",
		     (unsigned long)pointer);
}

Test(ept_walk_eptp, memory_type)
{
	const uint64_t caps = VMEM_EPT_CAP_4_LEVELS;

	for (uint64_t type = 0; type < 8; type++) {
		const uint64_t pointer = 0x40000018 | type;

		if (type == 0)
			good_pointer(caps | VMEM_EPT_CAP_TABLES_UC, pointer);
		else
			bad_pointer(caps | VMEM_EPT_CAP_TABLES_UC, pointer, VMEM_EPT_POINTER_TYPE);
		if (type == 6)
			good_pointer(caps | VMEM_EPT_CAP_TABLES_WB, pointer);
		else
			bad_pointer(caps | VMEM_EPT_CAP_TABLES_WB, pointer, VMEM_EPT_POINTER_TYPE);
	}
}

Test(ept_walk_eptp, walk_length)
{
	const uint64_t caps = VMEM_EPT_CAP_TABLES_WB,
		       both = VMEM_EPT_CAP_4_LEVELS | VMEM_EPT_CAP_5_LEVELS;

	for (uint64_t length = 0; length < 8; length++) {
		const uint64_t pointer = 0x40000006 | length << 3;

		if (length == 3)
			good_pointer(caps | VMEM_EPT_CAP_4_LEVELS, pointer);
		else
			bad_pointer(caps | VMEM_EPT_CAP_4_LEVELS, pointer, VMEM_EPT_POINTER_LEVELS);
		if (length != 3 && length != 4)
			bad_pointer(caps | both, pointer, VMEM_EPT_POINTER_LEVELS);
	}
	/* With five levels the same tables are read one level higher up. */
	cr_assert_eq(with_pointer(caps | both, 0x40000026).level, 5);
	cr_assert_eq(with_pointer(caps | both, 0x40000026).outcome, VMEM_EPT_WALK_VIOLATION);
	bad_pointer(caps | VMEM_EPT_CAP_5_LEVELS, 0x4000001e, VMEM_EPT_POINTER_LEVELS);
}

Test(ept_walk_eptp, accessed_and_dirty)
{
	const uint64_t caps = VMEM_EPT_CAP_TABLES_WB | VMEM_EPT_CAP_4_LEVELS;

	bad_pointer(caps, 0x4000005e, VMEM_EPT_POINTER_AD);
	good_pointer(caps | VMEM_EPT_CAP_AD, 0x4000005e);
}

Test(ept_walk_eptp, reserved_bits)
{
	const uint64_t caps = VMEM_EPT_CAP_TABLES_WB | VMEM_EPT_CAP_4_LEVELS;

	for (unsigned bit = 7; bit <= 11; bit++)
		bad_pointer(caps, 0x4000001e | UINT64_C(1) << bit, VMEM_EPT_POINTER_RESERVED);
	good_pointer(caps | VMEM_EPT_CAP_SHADOW_STACK, 0x4000009e);
	for (unsigned bit = 40; bit < 64; bit++)
		bad_pointer(caps, 0x4000001e | UINT64_C(1) << bit, VMEM_EPT_POINTER_RESERVED);
	/* Bit 39 is an address, of a table that is not there. */
	cr_assert_eq(with_pointer(caps, UINT64_C(0x804000001e)).outcome, VMEM_EPT_WALK_NO_TABLE);
}

/* eptad: reads, writes and fetches, and tables of the guest, which count as written. */
Test(ept_walk_ad, bits_by_access)
{
	static const uint64_t leaf_bits[VMEMT_ACCESSES] = {
		0x100, 0x300, 0x100, 0x100, 0x300, 0x300
	};

	for (int access = 0; access < VMEMT_ACCESSES; access++)
		for (uint32_t leaf = 1; leaf <= 3; leaf++) {
			setup(VMEMT_ALL_CAPS, 1, leaf);
			vmemt_walk(&tables, GPA, (enum vmemt_access)access, 0);
			cr_assert_eq(*path.entry[leaf] & 0x300, leaf_bits[access]);
			for (uint32_t level = leaf + 1; level <= 4; level++)
				cr_assert_eq(*path.entry[level] & 0x300, 0x100);
		}
}

Test(ept_walk_ad, bits_of_the_same_name_elsewhere_are_left)
{
	setup(VMEMT_ALL_CAPS, 0, 1);
	for (int access = 0; access < VMEMT_ACCESSES; access++)
		vmemt_walk(&tables, GPA, (enum vmemt_access)access, 0);
	cr_assert_eq(tables.sets, 0);
	for (uint32_t level = 1; level <= 4; level++)
		cr_assert_eq(*path.entry[level] & 0x300, 0);
}

Test(ept_walk_ad, nothing_is_set_twice)
{
	setup(VMEMT_ALL_CAPS, 1, 1);
	vmemt_walk(&tables, GPA, VMEMT_READ, 0);
	cr_assert_eq(tables.sets, 4);
	vmemt_walk(&tables, GPA, VMEMT_WRITE, 0);
	cr_assert_eq(tables.sets, 5);
	vmemt_walk(&tables, GPA, VMEMT_WRITE, 0);
	cr_assert_eq(tables.sets, 5);
}

Test(ept_walk_ad, entries_are_those_before)
{
	struct vmem_ept_walked walked;

	setup(VMEMT_ALL_CAPS, 1, 2);
	walked = vmemt_walk(&tables, GPA, VMEMT_WRITE, 0);
	for (uint32_t level = 2; level <= 4; level++)
		cr_assert_eq(walked.entries[level - 1] | (level == 2 ? 0x300u : 0x100u),
			     *path.entry[level]);
	cr_assert_eq(walked.entries[1] & 0x300, 0);
	cr_assert_eq(walked.entries[0], 0);
	cr_assert_eq(walked.entry_hpa[0], 0);
	/* The root is the first page; index 6 of it is 0x35a27654000 >> 39. */
	cr_assert_eq(walked.entry_hpa[3], 0x40000030);
}

/* pml: what sets a dirty bit is logged, once. */
Test(ept_walk_pml, logged_once)
{
	setup(VMEMT_ALL_CAPS, 1, 1);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_READ, 0).logged, 0);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, 0).logged, 1);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, 0).logged, 0);
	*path.entry[1] &= ~UINT64_C(0x200);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_TABLE, 0).logged, 1);
	*path.entry[1] &= ~UINT64_C(0x202);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, 0).logged, 0);
	setup(VMEMT_ALL_CAPS, 0, 1);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, 0).logged, 0);
}

/* An entry that changes between being read and being marked: the walk begins again, and sees what is there now. */
Test(ept_walk_ad, begins_again_when_an_entry_changes)
{
	struct vmem_ept_walked walked;

	setup(VMEMT_ALL_CAPS, 1, 1);
	tables.changing = 3;
	walked = vmemt_walk(&tables, GPA, VMEMT_WRITE, 0);
	cr_assert_eq(walked.outcome, VMEM_EPT_WALK_OK);
	cr_assert_eq(walked.logged, 1);
	cr_assert_eq(tables.sets, 3 + 4);
	setup(VMEMT_ALL_CAPS, 1, 1);
	tables.changing = UINT32_MAX;
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, 0).outcome, VMEM_EPT_WALK_NO_TABLE);
	cr_assert_eq(*path.entry[1] & 0x300, 0);
}

static int set_fails(void *context, uint64_t hpa, uint64_t expected, uint64_t bits)
{
	(void)context, (void)hpa, (void)expected, (void)bits;
	return -1;
}

Test(ept_walk_ad, without_set_and_with_a_failing_one)
{
	struct vmem_ept_walked walked = { .size = sizeof(walked) };
	struct vmem_ept_access access;
	struct vmem_ept_view view;

	setup(VMEMT_ALL_CAPS, 1, 1);
	access = vmemt_access_of(&tables, GPA, VMEMT_WRITE, 0);
	view = vmemt_view(&tables);
	view.set = NULL;
	cr_assert_eq(vmem_ept_walk(&tables.processor, &view, &access, &walked), 0);
	cr_assert_eq(walked.outcome, VMEM_EPT_WALK_OK);
	cr_assert_eq(walked.logged, 1);
	cr_assert_eq(*path.entry[1] & 0x300, 0);
	view.set = set_fails;
	cr_assert_eq(vmem_ept_walk(&tables.processor, &view, &access, &walked), 0);
	cr_assert_eq(walked.outcome, VMEM_EPT_WALK_NO_TABLE);
}

/* SDM 26.5.7.1: the entry that is not present, or else the leaf, decides by its bit 63; tables do not. */
Test(ept_walk_ve, convertible)
{
	const uint64_t suppress = UINT64_C(1) << 63;

	for (uint32_t level = 1; level <= 4; level++) {
		setup(VMEMT_ALL_CAPS, 0, 1);
		*path.entry[level] = 0;
		cr_assert_eq(vmemt_walk(&tables, GPA, 0, VMEM_EPT_WALK_VE).virtualization_exception,
			     1);
		cr_assert_eq(vmemt_walk(&tables, GPA, 0, 0).virtualization_exception, 0);
		*path.entry[level] = suppress | 0x7ffffffffffff000;
		cr_assert_eq(vmemt_walk(&tables, GPA, 0, VMEM_EPT_WALK_VE).virtualization_exception,
			     0);
	}
	for (uint32_t leaf = 1; leaf <= 3; leaf++) {
		setup(VMEMT_ALL_CAPS, 0, leaf);
		for (uint32_t level = leaf + 1; level <= 4; level++)
			*path.entry[level] |= suppress;
		*path.entry[4] &= ~UINT64_C(2); /* not writable, by a table */
		cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, VMEM_EPT_WALK_VE)
				     .virtualization_exception,
			     1);
		*path.entry[leaf] |= suppress;
		cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, VMEM_EPT_WALK_VE)
				     .virtualization_exception,
			     0);
	}
}

Test(ept_walk_ve, not_of_a_misconfiguration_or_of_what_is_allowed)
{
	setup(VMEMT_ALL_CAPS, 0, 1);
	cr_assert_eq(vmemt_walk(&tables, GPA, 0, VMEM_EPT_WALK_VE).virtualization_exception, 0);
	*path.entry[1] = 2;
	cr_assert_eq(vmemt_walk(&tables, GPA, 0, VMEM_EPT_WALK_VE).outcome,
		     VMEM_EPT_WALK_MISCONFIG);
	cr_assert_eq(vmemt_walk(&tables, GPA, 0, VMEM_EPT_WALK_VE).virtualization_exception, 0);
}

Test(ept_walk_subpage, only_writes_to_small_pages)
{
	const uint64_t subpage = UINT64_C(1) << 61;
	const uint32_t on = VMEM_EPT_WALK_SUBPAGE;

	setup(VMEMT_ALL_CAPS, 1, 1);
	*path.entry[1] = (*path.entry[1] & ~UINT64_C(2)) | subpage;
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, on).outcome,
		     VMEM_EPT_WALK_SUBPAGE_TABLE);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, on).hpa, UINT64_C(0x1c0000000));
	cr_assert_eq(*path.entry[1] & 0x300, 0); /* it may yet be refused */
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, 0).outcome, VMEM_EPT_WALK_VIOLATION);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_TABLE, on).outcome, VMEM_EPT_WALK_VIOLATION);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_READ, on).outcome, VMEM_EPT_WALK_OK);
	*path.entry[1] &= ~subpage;
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, on).outcome, VMEM_EPT_WALK_VIOLATION);
	setup(VMEMT_ALL_CAPS, 1, 2);
	*path.entry[2] = (*path.entry[2] & ~UINT64_C(2)) | subpage;
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, on).outcome, VMEM_EPT_WALK_VIOLATION);
}

/* Bit 58 lets the page walk of the guest write to a page that the guest itself may not write. */
Test(ept_walk_paging_write, for_tables_of_the_guest)
{
	const uint32_t on = VMEM_EPT_WALK_PAGING_WRITE;

	setup(VMEMT_ALL_CAPS, 1, 1);
	*path.entry[1] = (*path.entry[1] & ~UINT64_C(2)) | UINT64_C(1) << 58;
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_TABLE, on).outcome, VMEM_EPT_WALK_OK);
	cr_assert_eq(*path.entry[1] & 0x300, 0x300);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_TABLE_WRITE, on).outcome, VMEM_EPT_WALK_OK);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_TABLE, 0).qualification, 0x0ab);
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_WRITE, on).qualification, 0x1aa);
	/* Without the right to read nothing helps. */
	tables.processor.caps |= VMEM_EPT_CAP_EXEC_ONLY;
	*path.entry[2] = (*path.entry[2] & ~UINT64_C(7)) | 4;
	cr_assert_eq(vmemt_walk(&tables, GPA, VMEMT_TABLE, on).qualification, 0x0a3);
}

Test(ept_walk_verify, unverified_tables)
{
	const uint32_t on = VMEM_EPT_WALK_VERIFY;
	struct vmem_ept_access access;

	setup(VMEMT_ALL_CAPS, 0, 1);
	*path.entry[1] |= UINT64_C(1) << 57;
	access = vmemt_access_of(&tables, GPA, VMEMT_READ, on);
	cr_assert_eq(vmemt_walk_access(&tables, &access).outcome, VMEM_EPT_WALK_OK);
	access.unverified = 1;
	cr_assert_eq(vmemt_walk_access(&tables, &access).outcome, VMEM_EPT_WALK_VIOLATION);
	cr_assert_eq(vmemt_walk_access(&tables, &access).qualification, 0x81b9);
	access.kind = VMEM_EPT_ACCESS_GUEST_TABLE;
	cr_assert_eq(vmemt_walk_access(&tables, &access).outcome, VMEM_EPT_WALK_OK);
	access.kind = VMEM_EPT_ACCESS_READ;
	*path.entry[1] &= ~(UINT64_C(1) << 57);
	cr_assert_eq(vmemt_walk_access(&tables, &access).outcome, VMEM_EPT_WALK_OK);
}

Test(ept_walk_width, of_the_guest)
{
	const uint64_t beyond = UINT64_C(1) << 48;
	struct vmem_ept_walked walked;

	setup(VMEMT_ALL_CAPS, 0, 1);
	walked = vmemt_walk(&tables, GPA | beyond, VMEMT_WRITE, VMEM_EPT_WALK_VE);
	cr_assert_eq(walked.outcome, VMEM_EPT_WALK_VIOLATION);
	cr_assert_eq(walked.qualification, 0x182);
	cr_assert_eq(walked.level, 4);
	cr_assert_eq(walked.virtualization_exception, 0);
	vmemt_tables_begin(&tables, VMEM_EPT_INTEL, 5, VMEMT_ALL_CAPS, 0);
	vmemt_path(&tables, &path, GPA | beyond, 1);
	cr_assert_eq(vmemt_walk(&tables, GPA | beyond, 0, 0).outcome, VMEM_EPT_WALK_OK);
	cr_assert_eq(vmemt_walk(&tables, GPA, 0, 0).level, 5);
	cr_assert_eq(vmemt_walk(&tables, GPA | beyond << 9, 0, 0).outcome, VMEM_EPT_WALK_VIOLATION);
}

Test(ept_walk_width, of_the_host)
{
	for (uint32_t bits = 32; bits <= 52; bits++) {
		setup(VMEMT_ALL_CAPS, 0, 1);
		tables.processor.physical_bits = bits;
		*path.entry[1] = (*path.entry[1] & 0xfff) | UINT64_C(1) << (bits - 1);
		cr_assert_eq(vmemt_walk(&tables, GPA, 0, 0).hpa, UINT64_C(1) << (bits - 1));
		if (bits == 52)
			break;
		*path.entry[1] |= UINT64_C(1) << bits;
		cr_assert_eq(vmemt_walk(&tables, GPA, 0, 0).misconfig, VMEM_EPT_ADDRESS_WIDTH);
	}
}

Test(ept_walk_call, refused)
{
	struct vmem_ept_walked walked = { .size = sizeof(walked), .level = 99 };
	struct vmem_ept_capabilities processor;
	struct vmem_ept_access access;
	struct vmem_ept_view view;

	setup(VMEMT_ALL_CAPS, 0, 1);
	view = vmemt_view(&tables);
#define REFUSED(change)                                                                        \
	do {                                                                                   \
		access = vmemt_access_of(&tables, GPA, VMEMT_READ, 0);                         \
		view = vmemt_view(&tables);                                                    \
		processor = tables.processor;                                                  \
		change;                                                                        \
		cr_assert_eq(vmem_ept_walk(&processor, &view, &access, &walked), -VMEM_EINVAL, \
			     #change);                                                         \
		cr_assert_eq(walked.level, 99);                                                \
	} while (0)
	REFUSED(access.kind = 7);
	REFUSED(access.size = 8);
	REFUSED(view.size = 8);
	REFUSED(view.read = NULL);
	REFUSED(processor.size = 8);
	REFUSED(processor.format = VMEM_EPT_FORMATS);
	REFUSED(processor.physical_bits = 31);
	REFUSED(processor.physical_bits = 53);
	REFUSED(access.context = VMEM_EPT_WALK_MBEC);
	REFUSED(access.context = VMEM_EPT_WALK_5_LEVELS);
	REFUSED(access.context = 1u << 31);
	REFUSED((processor.caps &= ~VMEM_EPT_CAP_SUPPRESS_VE, access.context = VMEM_EPT_WALK_VE));
	access = vmemt_access_of(&tables, GPA, VMEMT_READ, 0);
	processor = tables.processor;
	walked.size = 4;
	cr_assert_eq(vmem_ept_walk(&processor, &view, &access, &walked), -VMEM_EINVAL);
	cr_assert_eq(vmem_ept_walk(&processor, &view, &access, NULL), -VMEM_EINVAL);
}

/* A caller that was compiled with an older, shorter result gets that much, and no more is written. */
Test(ept_walk_call, shorter_result)
{
	struct vmem_ept_walked walked;
	struct vmem_ept_access access;
	struct vmem_ept_view view;

	setup(VMEMT_ALL_CAPS, 0, 1);
	access = vmemt_access_of(&tables, GPA, VMEMT_READ, 0);
	view = vmemt_view(&tables);
	memset(&walked, 0x5a, sizeof(walked));
	walked.size = offsetof(struct vmem_ept_walked, entries);
	cr_assert_eq(vmem_ept_walk(&tables.processor, &view, &access, &walked), 0);
	cr_assert_eq(walked.hpa, UINT64_C(0x1c0000000));
	cr_assert_eq(walked.entries[0], UINT64_C(0x5a5a5a5a5a5a5a5a));
}

/* A caller that was compiled with a newer, longer access: fine as long as what is new is not used. */
Test(ept_walk_call, longer_access)
{
	struct {
		struct vmem_ept_access access;
		uint64_t more;
	} newer = { .more = 0 };
	struct vmem_ept_walked walked = { .size = sizeof(walked) };
	struct vmem_ept_view view;

	setup(VMEMT_ALL_CAPS, 0, 1);
	newer.access = vmemt_access_of(&tables, GPA, VMEMT_READ, 0);
	newer.access.size = sizeof(newer);
	view = vmemt_view(&tables);
	cr_assert_eq(vmem_ept_walk(&tables.processor, &view, &newer.access, &walked), 0);
	cr_assert_eq(walked.outcome, VMEM_EPT_WALK_OK);
	newer.more = 1;
	cr_assert_eq(vmem_ept_walk(&tables.processor, &view, &newer.access, &walked), -VMEM_E2BIG);
}
