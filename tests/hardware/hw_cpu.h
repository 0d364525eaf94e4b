/* SPDX-License-Identifier: BSD-2-Clause */
/* Instructions that C has no word for. */
#ifndef HW_CPU_H
#define HW_CPU_H
#include <stdint.h>

#define HW_MSR_EFER 0xc0000080u
#define HW_EFER_LONG_MODE (UINT64_C(1) << 10) /* active */
#define HW_EFER_SVM (UINT64_C(1) << 12)
#define HW_CR4_LA57 (UINT64_C(1) << 12)
#define HW_SELECTOR_DATA 0x10u
#define HW_SELECTOR_CODE 0x18u

struct hw_cpuid {
	uint32_t eax, ebx, ecx, edx;
};

static inline struct hw_cpuid hw_cpuid(uint32_t leaf)
{
	struct hw_cpuid out;

	__asm__ volatile("cpuid"
			 : "=a"(out.eax), "=b"(out.ebx), "=c"(out.ecx), "=d"(out.edx)
			 : "a"(leaf), "c"(0));
	return out;
}

static inline uint64_t hw_rdmsr(uint32_t msr)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}

static inline void hw_wrmsr(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
			 : "memory");
}

static inline void hw_outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static inline uint8_t hw_inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

#define HW_CONTROL_REGISTER(n)                                               \
	static inline uint64_t hw_read_cr##n(void)                           \
	{                                                                    \
		uint64_t value;                                              \
                                                                             \
		__asm__ volatile("mov %%cr" #n ", %0" : "=r"(value));        \
		return value;                                                \
	}                                                                    \
	static inline void hw_write_cr##n(uint64_t value)                    \
	{                                                                    \
		__asm__ volatile("mov %0, %%cr" #n ::"r"(value) : "memory"); \
	}
HW_CONTROL_REGISTER(0)
HW_CONTROL_REGISTER(3)
HW_CONTROL_REGISTER(4)

#endif
