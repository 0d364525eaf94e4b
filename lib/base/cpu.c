/* SPDX-License-Identifier: BSD-2-Clause */
/* Which vector instructions may be used: those that the processor has and whose registers the
 * operating system saves (Intel SDM vol. 1, 13.3: CPUID.1:ECX.OSXSAVE, XCR0). Keeps nothing. */
#include <vmem/common.h>

#if defined(VMEMI_CORE) || !defined(__x86_64__)
uint32_t vmem_cpu_detect(void)
{
	return 0;
}
#else
#include <cpuid.h>

#define XCR0_YMM UINT64_C(0x06) /* SSE and AVX state */
#define XCR0_ZMM UINT64_C(0xe6) /* and opmask, upper halves of zmm0-15, zmm16-31 */

#define LEAF7_EBX_AVX2 (1u << 5)
#define LEAF7_EBX_AVX512 (1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) /* F, DQ, BW, VL */
#define LEAF7_ECX_AVX512_VBMI2 (1u << 6)

static uint64_t read_xcr0(void)
{
	uint32_t low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (uint64_t)high << 32 | low;
}

uint32_t vmem_cpu_detect(void)
{
	uint32_t cpu = VMEM_CPU_SSE2; /* part of x86-64 */
	uint32_t eax, ebx, ecx, edx;
	uint64_t xcr0;

	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE))
		return cpu;
	xcr0 = read_xcr0();
	if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
		return cpu;
	if ((xcr0 & XCR0_YMM) == XCR0_YMM && ebx & LEAF7_EBX_AVX2)
		cpu |= VMEM_CPU_AVX2;
	if ((xcr0 & XCR0_ZMM) == XCR0_ZMM && (ebx & LEAF7_EBX_AVX512) == LEAF7_EBX_AVX512)
		cpu |= VMEM_CPU_AVX512;
	if (cpu & VMEM_CPU_AVX512 && ecx & LEAF7_ECX_AVX512_VBMI2)
		cpu |= VMEM_CPU_AVX512_VBMI2;
	return cpu;
}
#endif
