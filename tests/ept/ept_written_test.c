/* SPDX-License-Identifier: BSD-2-Clause */
/* Leaves that may be written without the right to (guest page walks, shadow stacks, parts of a page): no dirty bit of theirs
 * is lost, and the log does not take them. What a log owes to a DMA remapping unit. */
#include <vmem/ept_track.h>
#include "ept/ept_internal.h"
#include "ept/ept_fixture.h"

static const uint32_t beside[] = { VMEM_EPT_LEAF_PAGING_WRITE, VMEM_EPT_LEAF_SHADOW_STACK,
				   VMEM_EPT_LEAF_SUBPAGE };

static void begin(uint32_t format, uint64_t flags)
{
	struct vmem_ept_capabilities caps = vmemt_ept_caps(format);

	open_ept(64, &caps, flags, 4, 0);
}

Test(ept_written, may_become_dirty)
{
	struct vmemi_ept_path path;

	begin(VMEM_EPT_INTEL, VMEM_EPT_AD | VMEM_EPT_SHADOW_STACK);
	for (uint32_t i = 0; i < 3; i++) {
		const struct vmem_ept_leaf leaf = { .rights = VMEM_EPT_READ,
						    .type = VMEM_EPT_WB,
						    .flags = beside[i] | VMEM_EPT_LEAF_ACCESSED };

		cr_assert_eq(vmem_ept_map(ept, 0, 4096, &leaf, VMEM_EPT_REPLACE, &change), 0);
		vmemi_ept_descend(ept, 0, 1, &path);
		cr_assert(vmemi_ept_is_restless(ept, path.entry), "flag %x", beside[i]);
		*path.slots[1] |= ept->dirty;
		cr_assert(!vmemi_ept_is_restless(ept, *path.slots[1]));
	}
	close_ept();
}

/* Refused whole, in large and small leaves, with and without the right to write. */
Test(ept_written, not_logged)
{
	begin(VMEM_EPT_INTEL, VMEM_EPT_SHADOW_STACK);
	for (uint32_t i = 0; i < 12; i++) {
		struct vmem_ept_leaf leaf = VMEMT_EPT_LEAF(.flags = beside[i % 3],
							   .level = 1 + i / 3 % 2),
				     found;

		cr_assert_eq(vmem_ept_map(ept, 0, MIB2, &VMEMT_EPT_LEAF(.hpa = 0), 0, &change), 0);
		if (i >= 6)
			leaf.rights = VMEM_EPT_READ;
		cr_assert_eq(vmem_ept_map(ept, MIB2, MIB2, &leaf, 0, &change), 0);
		cr_assert_eq(vmem_ept_log_start(ept, 0, 2 * MIB2, 1, &change), -VMEM_ENOTSUP);
		cr_assert_eq(change.reason, VMEM_EPT_NO_CAPABILITY);
		cr_assert_eq(change.at, MIB2);
		cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
		cr_assert_eq(vmem_ept_translate(ept, 0, &found, NULL), 0);
		cr_assert_eq(found.level, 2);
		cr_assert_eq(found.rights, VMEM_EPT_READ | VMEM_EPT_WRITE);
		cr_assert_eq(vmem_ept_log_start(ept, 0, MIB2, 1, &change), 0);
		cr_assert_eq(vmem_ept_unmap(ept, 0, GIB, &change), 0);
		vmem_ept_flushed(ept, change.epoch);
	}
	close_ept();
}

Test(ept_written, shadow_stacks_are_asked_for)
{
	struct vmem_ept_capabilities caps = vmemt_ept_caps(VMEM_EPT_INTEL);

	begin(VMEM_EPT_INTEL, 0);
	cr_assert(!(vmem_ept_pointer(ept) & VMEM_EPT_INTEL_POINTER_SHADOW_STACK));
	close_ept();
	begin(VMEM_EPT_INTEL, VMEM_EPT_SHADOW_STACK);
	cr_assert(vmem_ept_pointer(ept) & VMEM_EPT_INTEL_POINTER_SHADOW_STACK);
	close_ept();
	vmemt_ept_pool_init(&pool, 2);
	caps.caps &= ~VMEM_EPT_CAP_SHADOW_STACK;
	cr_assert_null(vmemt_ept_make(&pool, &caps, VMEM_EPT_SHADOW_STACK, 4, 0));
	caps = vmemt_ept_caps(VMEM_EPT_AMD);
	cr_assert_null(vmemt_ept_make(&pool, &caps, VMEM_EPT_SHADOW_STACK, 4, 0));
	vmemt_ept_pool_destroy(&pool);
}

/* A unit may go on refusing what it may do again: the end of the log owes what it gives. */
Test(ept_written, end_of_a_log)
{
	for (uint32_t format = 0; format < VMEM_EPT_FORMATS; format++) {
		begin(format, 0);
		cr_assert_eq(vmem_ept_map(ept, 0, 8 * 4096, &VMEMT_EPT_LEAF(.hpa = 0), 0, &change),
			     0);
		cr_assert_eq(vmem_ept_log_start(ept, 0, 8 * 4096, 1, &change), 0);
		for (uint64_t page = 4; page < 8; page++)
			cr_assert_eq(vmem_ept_log_write(ept, page * 4096), 0);
		cr_assert_eq(vmem_ept_log_stop(ept, 0, 8 * 4096, &change), 0);
		if (format != VMEM_EPT_VTD) {
			cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
		} else {
			cr_assert_eq(change.flush, VMEM_EPT_FLUSH_RANGES);
			cr_assert_eq(change.range_count, 1);
			cr_assert_eq(change.ranges[0].gpa, 0);
			cr_assert_eq(change.ranges[0].bytes, 4 * 4096);
		}
		close_ept();
	}
}
