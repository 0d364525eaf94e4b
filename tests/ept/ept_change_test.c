/* SPDX-License-Identifier: BSD-2-Clause */
/* Unmapping, rights, memory types, merging: on the tables of each format. */
#include "ept/ept_fixture.h"

#define RW (VMEM_EPT_READ | VMEM_EPT_WRITE)
#define RWX (RW | VMEM_EPT_EXEC)

static void begin(uint32_t format, uint64_t flags)
{
	struct vmem_ept_capabilities caps = vmemt_ept_caps(format);

	open_ept(2048, &caps, flags, 4, 0);
}

static void map(uint64_t gpa, uint64_t bytes, uint64_t hpa, uint32_t level)
{
	cr_assert_eq(map_at(gpa, bytes, hpa, level, 0), 0);
}

static struct vmem_ept_leaf at(uint64_t gpa)
{
	struct vmem_ept_leaf leaf = { 0 };

	if (vmem_ept_translate(ept, gpa, &leaf, NULL))
		leaf.level = 0;
	return leaf;
}

static struct vmem_ept_stats stats(void)
{
	struct vmem_ept_stats s = { 0 };

	(void)expect_counted(&s);
	return s;
}

static void expect_owed(uint64_t gpa, uint64_t bytes)
{
	cr_assert_eq(change.flush, VMEM_EPT_FLUSH_RANGES);
	cr_assert_eq(change.range_count, 1);
	cr_assert_eq(change.ranges[0].gpa, gpa, "%lx", (unsigned long)change.ranges[0].gpa);
	cr_assert_eq(change.ranges[0].bytes, bytes, "%lx", (unsigned long)change.ranges[0].bytes);
}

Test(ept_unmap, middle_of_a_table)
{
	begin(VMEM_EPT_INTEL, 0);
	map(GIB, MIB2, GIB, 1);
	cr_assert_eq(vmem_ept_unmap(ept, GIB + 5 * 4096, 7 * 4096, &change), 0);
	expect_owed(GIB + 5 * 4096, 7 * 4096);
	cr_assert_eq(change.leaves, 7);
	cr_assert_eq(change.epoch, 0);
	cr_assert_eq(at(GIB + 4 * 4096).level, 1);
	cr_assert_eq(at(GIB + 5 * 4096).level, 0);
	cr_assert_eq(at(GIB + 11 * 4096).level, 0);
	cr_assert_eq(at(GIB + 12 * 4096).level, 1);
	cr_assert_eq(stats().leaves[0], 505);
	cr_assert_eq(vmem_ept_unmap(ept, GIB + 5 * 4096, 7 * 4096, &change), 0, "a hole");
	cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
	cr_assert_eq(change.leaves, 0);
	close_ept();
}

Test(ept_unmap, tables_that_become_empty_wait)
{
	begin(VMEM_EPT_INTEL, 0);
	map(GIB, 2 * MIB2, GIB, 1);
	cr_assert_eq(vmem_ept_unmap(ept, GIB, MIB2 - 4096, &change), 0);
	cr_assert_eq(change.epoch, 0);
	cr_assert_eq(vmem_ept_unmap(ept, GIB + MIB2 - 4096, 4096, &change), 0);
	cr_assert_eq(change.epoch, 1);
	expect_owed(GIB, MIB2);
	cr_assert_eq(vmem_ept_unmap(ept, GIB + MIB2, MIB2, &change), 0);
	cr_assert_eq(change.epoch, 2);
	cr_assert_eq(stats().waiting, 4, "two of level 1, those above them");
	cr_assert_eq(stats().tables[3], 1);
	vmem_ept_flushed(ept, 1);
	cr_assert_eq(stats().waiting, 3);
	vmem_ept_flushed(ept, 2);
	cr_assert_eq(stats().waiting, 0);
	cr_assert_eq(pool.out, 1);
	close_ept();
}

Test(ept_unmap, whole_tables_in_a_range)
{
	for (uint32_t format = 0; format < VMEM_EPT_FORMATS; format++) {
		begin(format, VMEM_EPT_AD);
		map(GIB - MIB2, 2 * GIB, 0, 1);
		cr_assert_eq(vmem_ept_set_payload(ept, 4 * GIB, 4096, 5, 0, 0, &change), 0);
		cr_assert_eq(stats().leaves[0], 2u << 18);
		cr_assert_eq(vmem_ept_unmap(ept, 0, 256 * GIB, &change), 0);
		expect_owed(0, 512 * GIB); /* with the table above them */
		cr_assert_eq(stats().leaves[0], 0);
		cr_assert_eq(stats().payloads, 0);
		cr_assert_eq(stats().tables[0] + stats().tables[1] + stats().tables[2], 0);
		vmem_ept_flushed(ept, change.epoch);
		cr_assert_eq(pool.out, 1);
		close_ept();
	}
}

Test(ept_unmap, part_of_a_large_leaf)
{
	begin(VMEM_EPT_INTEL, 0);
	map(GIB, GIB, 0, 0);
	cr_assert_eq(vmem_ept_unmap(ept, GIB + MIB2 + 4096, MIB2, &change), 0);
	expect_owed(GIB + MIB2 + 4096, MIB2);
	cr_assert_eq(at(GIB).level, 2);
	cr_assert_eq(at(GIB + MIB2).level, 1);
	cr_assert_eq(at(GIB + MIB2 + 4096).level, 0);
	cr_assert_eq(at(GIB + 2 * MIB2).level, 0);
	cr_assert_eq(at(GIB + 2 * MIB2 + 4096).hpa, 2 * MIB2 + 4096);
	cr_assert_eq(at(GIB + 3 * MIB2).level, 2);
	close_ept();
}

/* What processors read in a table that waits is what it was: old leaves, and nothing else that is present. */
Test(ept_unmap, retired_tables_hold_old_leaves_only)
{
	const uint64_t ours = UINT64_C(0x1f) << 52;
	uint64_t *old, before[512];

	for (uint32_t format = 0; format < VMEM_EPT_FORMATS; format++) {
		begin(format, 0);
		map(GIB, MIB2, 8 * GIB, 1);
		old = vmemt_ept_page(&pool, VMEMT_EPT_BASE);
		for (uint32_t level = 4; level > 1; level--)
			old = vmemt_ept_page(&pool,
					     old[GIB >> (3 + 9 * level) & 511] & VMEM_EPT_ADDRESS);
		memcpy(before, old, sizeof(before));
		cr_assert_eq(vmem_ept_unmap(ept, GIB, MIB2, &change), 0);
		map(3 * GIB, MIB2, 8 * GIB, 1);
		cr_assert_eq(vmem_ept_unmap(ept, 3 * GIB, MIB2, &change), 0);
		for (uint32_t i = 0; i < 512; i++)
			cr_assert_eq(old[i] & ~ours, before[i] & ~ours);
		vmem_ept_flushed(ept, change.epoch);
		close_ept();
	}
}

Test(ept_protect, rights)
{
	for (uint32_t format = 0; format < VMEM_EPT_FORMATS; format++) {
		begin(format, 0);
		map(GIB, GIB, 0, 0);
		map(2 * GIB, 3 * 4096, 0, 1);
		cr_assert_eq(vmem_ept_set_payload(ept, 2 * GIB + 3 * 4096, 4096, 9, 0, 0, &change),
			     0);
		cr_assert_eq(vmem_ept_protect(ept, GIB, GIB + 2 * MIB2, VMEM_EPT_WRITE, 0, &change),
			     0);
		expect_owed(GIB, GIB + 3 * 4096);
		cr_assert_eq(change.leaves, 4);
		cr_assert_eq(at(GIB).rights, VMEM_EPT_READ);
		cr_assert_eq(at(2 * GIB + 8192).rights, VMEM_EPT_READ);
		cr_assert_eq(vmem_ept_protect(ept, GIB, GIB, 0, VMEM_EPT_WRITE, &change), 0);
		cr_assert_eq(change.flush,
			     format == VMEM_EPT_VTD ? VMEM_EPT_FLUSH_RANGES : VMEM_EPT_FLUSH_NONE);
		cr_assert_eq(at(GIB).rights, RW);
		cr_assert_eq(at(GIB).level, 3);
		/* None left: it keeps its place. */
		cr_assert_eq(vmem_ept_protect(ept, GIB + MIB2, 4096, RWX, 0, &change), 0);
		cr_assert_eq(at(GIB + MIB2).level, 1);
		cr_assert_eq(at(GIB + MIB2).rights, 0);
		cr_assert_eq(at(GIB + MIB2).hpa, MIB2);
		cr_assert_eq(stats().leaves[0], 511 + 3);
		cr_assert_eq(
			vmem_ept_map(ept, GIB + MIB2, 4096, &VMEMT_EPT_LEAF(.hpa = 0), 0, &change),
			-VMEM_EEXIST, "it is still mapped");
		cr_assert_eq(vmem_ept_protect(ept, GIB + MIB2, 4096, 0, RW, &change), 0);
		cr_assert_eq(at(GIB + MIB2).rights, RW);
		cr_assert_eq(stats().leaves[0], 512 + 3);
		close_ept();
	}
}

/* Rights that nothing there has are not taken: nothing is owed. Where one page has, its place is. */
Test(ept_protect, nothing_to_take)
{
	for (uint32_t format = 0; format < VMEM_EPT_FORMATS; format++)
		for (uint32_t warm = 0; warm < 2; warm++) {
			const uint32_t ad = VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY;
			struct vmem_ept_leaf leaf = VMEMT_EPT_LEAF(.level = 1);

			leaf.rights = VMEM_EPT_READ;
			leaf.flags = warm ? ad : 0; /* by eights, or one by one */
			begin(format, VMEM_EPT_AD);
			cr_assert_eq(vmem_ept_map(ept, 0, MIB2, &leaf, 0, &change), 0);
			cr_assert_eq(vmem_ept_protect(ept, 0, MIB2, VMEM_EPT_WRITE, 0, &change), 0);
			cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
			cr_assert_eq(change.range_count, 0);
			cr_assert_eq(vmem_ept_protect(ept, 0, MIB2, VMEM_EPT_WRITE, VMEM_EPT_WRITE,
						      &change),
				     0);
			cr_assert_eq(change.flush, format == VMEM_EPT_VTD ? VMEM_EPT_FLUSH_RANGES
									  : VMEM_EPT_FLUSH_NONE);
			cr_assert_eq(vmem_ept_protect(ept, 0, MIB2, VMEM_EPT_WRITE, 0, &change), 0);
			expect_owed(0, MIB2);
			cr_assert_eq(vmem_ept_protect(ept, 4096, 4096, 0, VMEM_EPT_WRITE, &change),
				     0);
			cr_assert_eq(vmem_ept_protect(ept, 0, MIB2, VMEM_EPT_WRITE, 0, &change), 0);
			cr_assert_eq(change.range_count, 1);
			cr_assert(change.ranges[0].gpa <= 4096 && change.ranges[0].bytes >= 4096);
			cr_assert_eq(vmem_ept_protect(ept, 0, MIB2, RW, 0, &change), 0);
			expect_owed(0, MIB2);
			cr_assert_eq(vmem_ept_protect(ept, 0, MIB2, RW, 0, &change), 0);
			cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE, "none is present");
			close_ept();
		}
}

/* AMD's bit is the other way round. */
Test(ept_protect, no_execute_to_take)
{
	struct vmem_ept_leaf leaf = VMEMT_EPT_LEAF(.level = 1);

	begin(VMEM_EPT_AMD, 0);
	cr_assert_eq(vmem_ept_map(ept, 0, MIB2, &leaf, 0, &change), 0);
	cr_assert_eq(vmem_ept_protect(ept, 0, MIB2, VMEM_EPT_EXEC, 0, &change), 0);
	cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
	cr_assert_eq(vmem_ept_protect(ept, 0, MIB2, 0, VMEM_EPT_EXEC, &change), 0);
	cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
	cr_assert_eq(vmem_ept_protect(ept, 0, MIB2, VMEM_EPT_EXEC, 0, &change), 0);
	expect_owed(0, MIB2);
	close_ept();
}

Test(ept_protect, refused_rights_change_nothing)
{
	begin(VMEM_EPT_AMD, 0);
	map(GIB, 4 * 4096, 0, 1);
	cr_assert_eq(vmem_ept_protect(ept, GIB + 8192, 4096, RW, 0, &change), 0);
	cr_assert_eq(vmem_ept_protect(ept, GIB, 3 * 4096, VMEM_EPT_READ, 0, &change), -VMEM_EINVAL);
	cr_assert_eq(change.reason, VMEM_EPT_BAD_RIGHTS);
	cr_assert_eq(change.at, GIB);
	cr_assert_eq(vmem_ept_protect(ept, GIB + 8192, 4096, 0, VMEM_EPT_EXEC, &change),
		     -VMEM_ENOTSUP, "execute-only");
	cr_assert_eq(change.reason, VMEM_EPT_NO_RIGHTS);
	cr_assert_eq(change.at, GIB + 8192);
	cr_assert_eq(vmem_ept_protect(ept, GIB, 4096, 16, 0, &change), -VMEM_EINVAL);
	cr_assert_eq(vmem_ept_protect(ept, GIB, 4096, 0, VMEM_EPT_EXEC_USER, &change),
		     -VMEM_ENOTSUP);
	cr_assert_eq(at(GIB).rights, RW);
	close_ept();
}

Test(ept_protect, no_large_leaf_is_executable)
{
	const struct vmem_ept_leaf executable = { .rights = RWX, .type = VMEM_EPT_WB };

	begin(VMEM_EPT_INTEL, VMEM_EPT_NO_EXEC_LARGE);
	map(GIB, 2 * MIB2, 0, 0);
	cr_assert_eq(at(GIB).level, 2);
	cr_assert_eq(vmem_ept_protect(ept, GIB + MIB2, 4096, 0, VMEM_EPT_EXEC, &change), 0);
	cr_assert_eq(change.leaves, 1);
	cr_assert_eq(at(GIB).level, 2);
	cr_assert_eq(at(GIB + MIB2).level, 1);
	cr_assert_eq(at(GIB + MIB2).rights, RWX);
	cr_assert_eq(vmem_ept_protect(ept, GIB + MIB2, MIB2, 0, VMEM_EPT_EXEC, &change), 0);
	cr_assert_eq(vmem_ept_merge(ept, GIB, GIB, 3, &change), 0);
	cr_assert_eq(change.leaves, 0);
	cr_assert_eq(change.reason, VMEM_EPT_UNLIKE);
	cr_assert_eq(vmem_ept_map(ept, 2 * GIB, MIB2, &executable, 0, &change), 0);
	cr_assert_eq(change.leaves, 512);
	close_ept();
}

Test(ept_type, set)
{
	static const uint32_t types[] = { VMEM_EPT_UC, VMEM_EPT_WT, VMEM_EPT_WB, VMEM_EPT_WC,
					  VMEM_EPT_WP };

	for (uint32_t format = 0; format < VMEM_EPT_FORMATS; format++) {
		begin(format, 0);
		map(GIB, MIB2, 0, 0);
		map(GIB + MIB2, 8192, MIB2, 1);
		for (uint32_t i = 0; i < 5; i++) {
			int able = format == VMEM_EPT_INTEL || types[i] == VMEM_EPT_WB ||
				   (format == VMEM_EPT_AMD && i < 3);

			cr_assert_eq(vmem_ept_set_type(ept, GIB, GIB, types[i], 0, &change),
				     able ? 0 : -VMEM_ENOTSUP);
			cr_assert_eq(change.reason, able ? VMEM_EPT_FINE : VMEM_EPT_BAD_TYPE);
			if (!able)
				continue;
			cr_assert_eq(at(GIB).type, types[i]);
			cr_assert_eq(at(GIB + MIB2).type, types[i]);
			cr_assert_eq(at(GIB).hpa, 0);
			cr_assert_eq(at(GIB).rights, RW);
			cr_assert_eq(change.flush, format == VMEM_EPT_VTD ? VMEM_EPT_FLUSH_NONE
									  : VMEM_EPT_FLUSH_RANGES);
			cr_assert_eq(vmem_ept_set_type(ept, GIB, GIB, types[i], 0, &change), 0);
			cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE, "it has it already");
		}
		cr_assert_eq(vmem_ept_set_type(ept, GIB, GIB, 2, 0, &change), -VMEM_EINVAL);
		cr_assert_eq(vmem_ept_set_type(ept, GIB, 4096, VMEM_EPT_WB,
					       VMEM_EPT_LEAF_IGNORE_PAT, &change),
			     format == VMEM_EPT_INTEL ? 0 : -VMEM_ENOTSUP);
		if (format == VMEM_EPT_INTEL) {
			cr_assert_eq(at(GIB).flags, VMEM_EPT_LEAF_IGNORE_PAT);
			cr_assert_eq(at(GIB + 4096).flags, 0);
		}
		close_ept();
	}
}

Test(ept_merge, split_and_back)
{
	struct vmem_ept_run run = { .size = sizeof(run) };

	for (uint32_t format = 0; format < VMEM_EPT_FORMATS; format++) {
		begin(format, VMEM_EPT_AD);
		map(GIB, GIB, 4 * GIB, 0);
		cr_assert_eq(vmem_ept_split(ept, GIB, GIB, 1, &change), 0);
		cr_assert_eq(stats().leaves[0], 1u << 18);
		cr_assert_eq(vmem_ept_merge(ept, GIB + 4096, GIB - 4096, 3, &change), 0);
		cr_assert_eq(change.leaves, 511, "the first sticks out");
		cr_assert_eq(change.reason, VMEM_EPT_FINE);
		expect_owed(GIB + MIB2, GIB - MIB2);
		vmem_ept_flushed(ept, change.epoch);
		cr_assert_eq(vmem_ept_merge(ept, 0, 4 * GIB, 3, &change), 0);
		cr_assert_eq(change.leaves, 2);
		expect_owed(GIB, GIB);
		cr_assert_eq(vmem_ept_next(ept, 0, &run), 0);
		cr_assert_eq(run.bytes, GIB);
		cr_assert_eq(run.leaf.level, 3);
		cr_assert_eq(run.leaf.hpa, 4 * GIB);
		vmem_ept_flushed(ept, change.epoch);
		cr_assert_eq(pool.out, 2);
		close_ept();
	}
}

static uint64_t *slot_of(uint64_t gpa)
{
	uint64_t *table = vmemt_ept_page(&pool, VMEMT_EPT_BASE);

	for (uint32_t level = 4; level > 1; level--) {
		uint64_t *slot = &table[gpa >> (3 + 9 * level) & 511];

		if ((*slot & 0x81) != 1)
			return slot;
		table = vmemt_ept_page(&pool, *slot & VMEM_EPT_ADDRESS);
	}
	return &table[gpa >> 12 & 511];
}

/* Accessed and dirty bits are joined; those that come after the merge are taken over at the flush. */
Test(ept_merge, accessed_and_dirty)
{
	for (int later = 0; later < 2; later++)
		for (int resplit = 0; resplit < 2; resplit++) {
			const uint32_t ad = VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY;
			uint64_t *slot;

			begin(VMEM_EPT_INTEL, VMEM_EPT_AD);
			map(GIB, MIB2, 0, 1);
			slot = slot_of(GIB + 77 * 4096);
			if (!later)
				*slot |= 0x300;
			cr_assert_eq(vmem_ept_merge(ept, GIB, MIB2, 2, &change), 0);
			cr_assert_eq(change.leaves, 1);
			cr_assert_eq(at(GIB).level, 2);
			cr_assert_eq(at(GIB).flags, later ? 0 : ad);
			if (later)
				*slot |= 0x300; /* a processor, by what it remembers */
			if (resplit) {
				struct vmem_ept_change other = VMEMT_EPT_CHANGE;

				cr_assert_eq(vmem_ept_split(ept, GIB, MIB2, 1, &other), 0);
			}
			vmem_ept_flushed(ept, change.epoch);
			cr_assert_eq(at(GIB + 77 * 4096).flags, ad);
			close_ept();
		}
}

Test(ept_merge, unlike_ones_stay)
{
	begin(VMEM_EPT_INTEL, 0);
	map(GIB, MIB2, 0, 1);
	map(GIB + MIB2, MIB2, 4096, 1);
	map(GIB + 2 * MIB2, MIB2 - 4096, 4 * MIB2, 1);
	cr_assert_eq(vmem_ept_protect(ept, GIB + 511 * 4096, 4096, VMEM_EPT_WRITE, 0, &change), 0);
	cr_assert_eq(vmem_ept_merge(ept, GIB, GIB, 3, &change), 0);
	cr_assert_eq(change.leaves, 0);
	cr_assert_eq(change.flush, VMEM_EPT_FLUSH_NONE);
	cr_assert_eq(change.reason, VMEM_EPT_UNLIKE);
	cr_assert_eq(change.at, GIB);
	cr_assert_eq(vmem_ept_protect(ept, GIB + 511 * 4096, 4096, 0, VMEM_EPT_WRITE, &change), 0);
	cr_assert_eq(vmem_ept_merge(ept, GIB, GIB, 2, &change), 0);
	cr_assert_eq(change.leaves, 1);
	cr_assert_eq(change.at, GIB + MIB2, "not aligned");
	close_ept();
}
