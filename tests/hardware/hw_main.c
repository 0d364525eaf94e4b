/* SPDX-License-Identifier: BSD-2-Clause */
/* What the processor can do, and then all the cases. */
#include "hw.h"
#include "hw_cpu.h"

#define MSR_EPT_VPID_CAP 0x48cu
#define MSR_PROCBASED2 0x48bu

void hw_main(void)
{
	int intel = !!(hw_cpuid(1).ecx & 1u << 5);
	int amd = hw_cpuid(0x80000000).eax >= 0x8000000a && hw_cpuid(0x80000001).ecx & 1u << 2;

	hw_console_start();
	hw_case_begin("second-stage tables");
	if (intel) {
		uint64_t ept = hw_rdmsr(MSR_EPT_VPID_CAP);

		hw_printf("Intel, EPT and VPID capabilities %lx, secondary controls %lx\n", ept,
			  hw_rdmsr(MSR_PROCBASED2) >> 32);
		HW_CHECK(ept & 1u << 6);
	} else if (amd) {
		uint32_t features = hw_cpuid(0x8000000a).edx;

		hw_printf("AMD, virtualization features %x\n", features);
		HW_CHECK(features & 1);
	}
	HW_CHECK(intel != amd);
	hw_case_end();
}
