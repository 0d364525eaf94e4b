/* SPDX-License-Identifier: BSD-2-Clause */
/* Writes of a supervisor to a shadow stack, through leaves with all rights, with bit 60 and without, where bit 7 of the
 * EPTP is set and where it is not: the processor does what the software walker has said. */
#include "hw.h"

#define GPA (HW_GUEST_BASE + 5 * HW_MIB + 0x3000)
#define HPA (HW_DATA + 0x7000)
#define GUEST_WRITABLE UINT64_C(2)

/* The guest's own entry for HW_GUEST_BASE. To the guest, what is dirty and not writable is a shadow stack. */
static volatile uint64_t *guest_entry(void)
{
	return hw_word(hw_word(hw_guest_tables())[1] & VMEM_EPT_ADDRESS);
}

static void map(uint32_t rights, uint32_t leaf_flags)
{
	struct vmem_ept_change change = { .size = sizeof(change) };
	const struct vmem_ept_leaf leaf = {
		.hpa = HPA,
		.rights = rights,
		.type = VMEM_EPT_WB,
		.flags = leaf_flags,
	};

	hw_settle(vmem_ept_map(hw_world.ept, GPA, 4096, &leaf, 0, &change), &change);
}

static void write_shadow(void)
{
	const uint64_t value = UINT64_C(0x736861646f777300), gpa = GPA + HW_FRAME_WRITTEN;
	volatile uint64_t *word = hw_word(HPA + HW_FRAME_WRITTEN);
	struct vmem_ept_walked walked;
	struct hw_exit exit;
	int fine;

	*word = 0;
	hw_predict(VMEM_EPT_ACCESS_SHADOW_STACK_WRITE, gpa, &walked);
	fine = walked.outcome == VMEM_EPT_WALK_OK;
	hw_guest_shadow_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), gpa, value);
	hw_world.processor->enter(&hw_world.guest, &exit);
	if (fine)
		HW_CHECK(exit.kind == HW_EXIT_DONE && exit.value == value);
	else
		hw_judge_exit(&exit, &walked, gpa, gpa);
	HW_CHECK(*word == (fine ? value : 0));
	HW_CHECK(hw_shadow_compare(fine ? 0 : VMEM_EPT_INTEL_ACCESSED));
}

/* A page without bit 60 is written as a shadow stack where bit 60 is asked for. */
static void find_quirk(void)
{
	struct hw_exit exit;

	hw_case_begin("quirk of shadow stacks");
	hw_world_open(VMEM_EPT_SHADOW_STACK);
	map(VMEM_EPT_READ | VMEM_EPT_WRITE, 0);
	hw_guest_shadow_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept),
			      GPA + HW_FRAME_WRITTEN, 0);
	hw_world.processor->enter(&hw_world.guest, &exit);
	hw_quirk(exit.kind == HW_EXIT_DONE, HW_QUIRK_SHADOW,
		 "supervisor shadow-stack pages are like others");
	hw_world_close();
	hw_case_end();
}

/* The right to write decides here, and should not. */
static int is_misjudged(uint64_t flags, uint32_t rights, int bit60)
{
	const int writable = (rights & VMEM_EPT_WRITE) != 0;

	return hw_world.quirks & HW_QUIRK_SHADOW && flags & VMEM_EPT_SHADOW_STACK &&
	       rights & VMEM_EPT_READ && writable != bit60;
}

static void each_right(uint64_t flags, int bit60)
{
	static const uint32_t rights[] = { 1, 3, 4, 5, 7 };

	for (unsigned r = 0; r < 5; r++) {
		if (is_misjudged(flags, rights[r], bit60))
			continue;
		hw_case_begin("shadow stack, rights %u, bit 60 %u, flags %lx", rights[r],
			      (unsigned)bit60, flags);
		hw_world_open(flags);
		map(rights[r], bit60 ? VMEM_EPT_LEAF_SHADOW_STACK : 0);
		write_shadow();
		hw_world_close();
		hw_case_end();
	}
}

void hw_shadow_cases(void)
{
	static const uint64_t flags[] = { VMEM_EPT_AD | VMEM_EPT_SHADOW_STACK,
					  VMEM_EPT_SHADOW_STACK };

	*guest_entry() &= ~GUEST_WRITABLE;
	find_quirk();
	each_right(VMEM_EPT_AD, 0);
	each_right(0, 0);
	for (unsigned f = 0; f < 2; f++)
		for (int bit60 = 0; bit60 < 2; bit60++)
			each_right(flags[f], bit60);
	*guest_entry() |= GUEST_WRITABLE;
}
