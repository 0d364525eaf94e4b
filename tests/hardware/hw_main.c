/* SPDX-License-Identifier: BSD-2-Clause */
/* What the processor can do, and then all the cases. */
#include "hw.h"
#include "hw_cpu.h"

static const struct hw_processor *find_processor(void)
{
	if (hw_cpuid(1).ecx & 1u << 5)
		return &hw_intel;
	hw_is_amd = hw_cpuid(0x80000000).eax >= 0x8000000a && hw_cpuid(0x80000001).ecx & 1u << 2;
	return hw_is_amd ? &hw_amd : NULL;
}

static void print_untried(uint64_t caps)
{
	static const struct {
		uint64_t cap;
		const char *name;
		int intel, amd;
	} features[] = {
		{ VMEM_EPT_CAP_2M, "leaves of 2 MiB", 1, 1 },
		{ VMEM_EPT_CAP_1G, "leaves of 1 GiB", 1, 1 },
		{ VMEM_EPT_CAP_EXEC_ONLY, "execute-only", 1, 0 },
		{ VMEM_EPT_CAP_AD, "accessed and dirty bits", 1, 0 },
		{ VMEM_EPT_CAP_MBEC, "mode-based execute control", 1, 0 },
		{ VMEM_EPT_CAP_5_LEVELS, "five levels", 1, 0 },
		{ VMEM_EPT_CAP_SUPPRESS_VE, "virtualization exceptions", 1, 0 },
		{ VMEM_EPT_CAP_PML, "page-modification log", 1, 0 },
		{ VMEM_EPT_CAP_SUBPAGE, "sub-page write permissions", 1, 0 },
		{ VMEM_EPT_CAP_SHADOW_STACK, "supervisor shadow-stack control", 1, 0 },
	};

	for (unsigned i = 0; i < sizeof(features) / sizeof(features[0]); i++)
		if ((hw_is_amd ? features[i].amd : features[i].intel) && !(caps & features[i].cap))
			hw_printf("not tried, because this processor has it not: %s\n",
				  features[i].name);
	if (!hw_is_amd && caps & VMEM_EPT_CAP_MBEC)
		hw_printf("not tried, because guests are supervisors: execution by users\n");
	if (!hw_is_amd && caps & VMEM_EPT_CAP_5_LEVELS)
		hw_printf("not tried, because guests have four levels: five levels\n");
}

void hw_main(void)
{
	const char *reason = "no virtualization";

	hw_console_start();
	hw_world.processor = find_processor();
	hw_world.capabilities.size = sizeof(hw_world.capabilities);
	hw_case_begin("begin");
	if (hw_world.processor)
		reason = hw_world.processor->start(&hw_world.capabilities);
	if (!HW_CHECK(!reason)) {
		hw_printf("%s\n", reason);
		hw_case_end();
		return;
	}
	hw_case_end();
	hw_world.levels = hw_world.capabilities.caps & VMEM_EPT_CAP_4_LEVELS ? 4 : 5;
	if (hw_is_amd && hw_world.levels == 5)
		hw_world.context |= VMEM_EPT_WALK_5_LEVELS;
	if (!hw_is_amd && hw_world.capabilities.caps & VMEM_EPT_CAP_MBEC)
		hw_world.context |= VMEM_EPT_WALK_MBEC;
	hw_printf("capabilities %lx, %u bits of physical addresses, %u levels\n",
		  hw_world.capabilities.caps, hw_world.capabilities.physical_bits, hw_world.levels);
	print_untried(hw_world.capabilities.caps);
	hw_frames_fill();
	hw_change_cases();
	hw_log_cases();
	hw_walk_cases();
	if (hw_world.capabilities.caps & VMEM_EPT_CAP_SUBPAGE)
		hw_subpage_cases();
	if (hw_world.capabilities.caps & VMEM_EPT_CAP_SHADOW_STACK)
		hw_shadow_cases();
}
