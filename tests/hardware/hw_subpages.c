/* SPDX-License-Identifier: BSD-2-Clause */
/* Sub-page write permissions: a page that a guest may write in part, each part of it, and each bit of the table that
 * says so turned over. The processor does what the software walker has said. */
#include "hw.h"

#define GPA (HW_GUEST_BASE + 5 * HW_MIB + 0x3000)
#define HPA (HW_DATA + 0x7000)
#define SUBPAGES 32u
#define LEVELS 4u

static uint64_t tables[LEVELS + 1]; /* [level] */

static volatile uint64_t *entry_of(unsigned level)
{
	return hw_word(tables[level]) + (GPA >> (3 + 9 * level) & (VMEM_EPT_ENTRIES - 1));
}

/* The page, readable and with sub-pages, and a table that allows nothing there. */
static void page_open(uint64_t flags)
{
	struct vmem_ept_change change = { .size = sizeof(change) };
	const struct vmem_ept_leaf leaf = {
		.hpa = HPA,
		.rights = VMEM_EPT_READ | VMEM_EPT_EXEC,
		.type = VMEM_EPT_WB,
		.flags = VMEM_EPT_LEAF_SUBPAGE,
	};

	hw_world_open(flags);
	hw_settle(vmem_ept_map(hw_world.ept, GPA, 4096, &leaf, 0, &change), &change);
	for (unsigned level = 1; level <= LEVELS; level++) {
		HW_CHECK(!hw_tables.allocate(hw_tables.context, &tables[level]));
		for (unsigned i = 0; i < VMEM_EPT_ENTRIES; i++)
			hw_word(tables[level])[i] = 0;
		if (level > 1)
			*entry_of(level) = tables[level - 1] | 1;
	}
	hw_world.subpages = tables[LEVELS];
}

static void page_close(void)
{
	hw_world.subpages = 0;
	hw_tables_may_go = 1; /* these are not the object's */
	for (unsigned level = 1; level <= LEVELS; level++)
		hw_tables.free(hw_tables.context, tables[level]);
	hw_tables_may_go = 0;
	hw_world_close();
}

/* The entry has a bit that this processor is known to ignore, and should not. */
static int is_misjudged(const struct vmem_ept_walked *walked)
{
	return hw_world.quirks & HW_QUIRK_SUBPAGE && walked->subpage_level == 1 &&
	       walked->outcome == VMEM_EPT_WALK_SUBPAGE_MISCONFIG;
}

/* @return 0: it was not tried; the table leads out of the memory that is there, say */
static int write_at(uint64_t gpa)
{
	const uint64_t value = gpa ^ UINT64_C(0x7375627061676573),
		       before = *hw_word(HPA + gpa % 4096);
	struct vmem_ept_walked walked;
	struct hw_exit exit;
	int fine;

	hw_world.processor->invalidate(vmem_ept_pointer(hw_world.ept));
	hw_predict(VMEM_EPT_ACCESS_WRITE, gpa, &walked);
	if (walked.outcome == VMEM_EPT_WALK_NO_TABLE || is_misjudged(&walked))
		return 0;
	fine = walked.outcome == VMEM_EPT_WALK_OK;
	hw_guest_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), hw_guest_write, gpa, value,
		       0);
	hw_world.processor->enter(&hw_world.guest, &exit);
	if (fine)
		HW_CHECK(exit.kind == HW_EXIT_DONE);
	else
		hw_judge_exit(&exit, &walked, gpa, gpa);
	HW_CHECK(*hw_word(HPA + gpa % 4096) == (fine ? value : before));
	HW_CHECK(hw_shadow_compare(fine ? 0 : VMEM_EPT_INTEL_ACCESSED));
	*hw_word(HPA + gpa % 4096) = before;
	return 1;
}

static void each_part(uint64_t flags)
{
	for (unsigned allowed = 0; allowed < SUBPAGES; allowed++) {
		hw_case_begin("sub-page %u, flags %lx", allowed, flags);
		page_open(flags);
		*entry_of(1) = UINT64_C(1) << 2 * allowed;
		/* Of the one that is allowed the first word and the last, of its neighbours what is next to it. */
		for (unsigned part = 0; part < SUBPAGES; part++)
			HW_CHECK(write_at(GPA + 128 * part + (part < allowed ? 120 : 0)));
		HW_CHECK(write_at(GPA + 128 * allowed + 120));
		HW_CHECK(hw_access(VMEM_EPT_ACCESS_READ, GPA));
		HW_CHECK(hw_access(VMEM_EPT_ACCESS_FETCH, GPA));
		page_close();
		hw_case_end();
	}
}

/* Does the processor look at the odd bits of permissions, which are reserved? */
static void find_quirk(void)
{
	struct hw_exit exit;

	hw_case_begin("quirk of sub-pages");
	page_open(0);
	*entry_of(1) = 3;
	hw_world.processor->invalidate(vmem_ept_pointer(hw_world.ept));
	hw_guest_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), hw_guest_write, GPA,
		       *hw_word(HPA), 0);
	hw_world.processor->enter(&hw_world.guest, &exit);
	hw_quirk(exit.kind == HW_EXIT_DONE, HW_QUIRK_SUBPAGE,
		 "odd bits of sub-page permissions are not checked");
	page_close();
	hw_case_end();
}

static void each_bit(uint64_t flags)
{
	for (unsigned level = 1; level <= LEVELS; level++) {
		unsigned tried = 0;

		page_open(flags);
		*entry_of(1) = UINT64_C(0x5555555555555555);
		for (unsigned bit = 0; bit < 64; bit++) {
			hw_case_begin("sub-page table, level %u, bit %u", level, bit);
			*entry_of(level) ^= UINT64_C(1) << bit;
			tried += (unsigned)write_at(GPA + 64 * bit);
			*entry_of(level) ^= UINT64_C(1) << bit;
			hw_case_end();
		}
		HW_CHECK(tried >= 32);
		page_close();
	}
}

void hw_subpage_cases(void)
{
	const uint64_t flags[] = { VMEM_EPT_AD, 0 };

	hw_world.context |= VMEM_EPT_WALK_SUBPAGE;
	find_quirk();
	each_part(flags[0]);
	for (unsigned f = 0; f < 2; f++)
		each_bit(flags[f]);
	hw_world.context &= ~VMEM_EPT_WALK_SUBPAGE;
}
