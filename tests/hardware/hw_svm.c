/* SPDX-License-Identifier: BSD-2-Clause */
/* Guests by SVM (APM vol. 2, ch. 15), with nested paging. Guests are 64-bit, at privilege level 0, in the segments
 * and control registers of the host; each exception of theirs is a #VMEXIT. */
#include "hw.h"
#include "hw_cpu.h"

#define MSR_HSAVE 0xc0010117u
#define FEATURE_NESTED_PAGING 1u

/* The VMCB (APM vol. 2, app. B). */
#define INTERCEPT_EXCEPTIONS 0x08
#define INTERCEPT_OTHERS 0x0c /* bit 31: shutdown */
#define INTERCEPT_SVM 0x10    /* bit 0: VMRUN, 1: VMMCALL */
#define IO_MAP 0x40
#define MSR_MAP 0x48
#define ASID 0x58
#define FLUSH 0x5c /* 0: nothing, 1: all */
#define EXIT_CODE 0x70
#define EXIT_INFO1 0x78
#define EXIT_INFO2 0x80
#define NESTED_PAGING 0x90
#define NESTED_CR3 0xb0
#define GUEST 0x400
#define ES (GUEST + 0x00)
#define CS (GUEST + 0x10)
#define SS (GUEST + 0x20)
#define DS (GUEST + 0x30)
#define GDTR (GUEST + 0x60)
#define IDTR (GUEST + 0x80)
#define EFER (GUEST + 0xd0)
#define CR4 (GUEST + 0x148)
#define CR3 (GUEST + 0x150)
#define CR0 (GUEST + 0x158)
#define DR7 (GUEST + 0x160)
#define DR6 (GUEST + 0x168)
#define RFLAGS (GUEST + 0x170)
#define RIP (GUEST + 0x178)
#define RSP (GUEST + 0x1d8)
#define RAX (GUEST + 0x1f8)
#define GUEST_PAT (GUEST + 0x268)

#define CODE_CALL 0x81
#define CODE_NESTED_FAULT 0x400

extern uint64_t hw_gdt[];
void hw_svm_enter(struct hw_registers *registers, uint64_t vmcb);

static uint8_t vmcb[4096] __attribute__((aligned(4096)));
static uint8_t host_save[4096] __attribute__((aligned(4096)));
static uint8_t io_map[3 * 4096] __attribute__((aligned(4096)));
static uint8_t msr_map[2 * 4096] __attribute__((aligned(4096)));

static uint64_t *field(unsigned offset)
{
	return (uint64_t *)(void *)(vmcb + offset);
}

static void write_segment(unsigned offset, unsigned selector, unsigned attributes)
{
	field(offset)[0] = selector | attributes << 16 | UINT64_C(0xffffffff) << 32;
	field(offset)[1] = 0;
}

static const char *start(struct vmem_ept_capabilities *ret_capabilities)
{
	uint32_t features = hw_cpuid(0x8000000a).edx;

	hw_printf("AMD, virtualization features %x\n", features);
	if (!(features & FEATURE_NESTED_PAGING))
		return "no nested paging";
	hw_wrmsr(HW_MSR_EFER, hw_rdmsr(HW_MSR_EFER) | HW_EFER_SVM);
	hw_wrmsr(MSR_HSAVE, (uintptr_t)host_save);
	*(uint32_t *)(void *)(vmcb + INTERCEPT_EXCEPTIONS) = 0xffffffff;
	*(uint32_t *)(void *)(vmcb + INTERCEPT_OTHERS) = 1u << 31;
	*(uint32_t *)(void *)(vmcb + INTERCEPT_SVM) = 3;
	*field(IO_MAP) = (uintptr_t)io_map;
	*field(MSR_MAP) = (uintptr_t)msr_map;
	*(uint32_t *)(void *)(vmcb + ASID) = 1;
	*field(NESTED_PAGING) = 1;
	write_segment(CS, HW_SELECTOR_CODE, 0xa9b);
	write_segment(ES, HW_SELECTOR_DATA, 0xc93);
	write_segment(SS, HW_SELECTOR_DATA, 0xc93);
	write_segment(DS, HW_SELECTOR_DATA, 0xc93);
	field(GDTR)[0] = UINT64_C(31) << 32; /* four descriptors */
	field(GDTR)[1] = (uintptr_t)hw_gdt;
	*field(EFER) = hw_rdmsr(HW_MSR_EFER);
	*field(CR0) = hw_read_cr0();
	*field(CR4) = hw_read_cr4();
	*field(DR6) = 0xffff0ff0;
	*field(DR7) = 0x400;
	*field(RFLAGS) = 2;
	*field(GUEST_PAT) = UINT64_C(0x0007040600070406);
	if (vmem_ept_capabilities_amd(ret_capabilities, hw_cpuid(0x80000001).edx, features,
				      hw_rdmsr(HW_MSR_EFER), hw_read_cr4(),
				      hw_cpuid(0x80000008).eax & 0xff))
		return "capabilities that lib/ept refuses";
	return NULL;
}

static void enter(struct hw_guest *guest, struct hw_exit *ret_exit)
{
	*ret_exit = (struct hw_exit){ .kind = HW_EXIT_OTHER };
	*field(NESTED_CR3) = guest->pointer;
	*field(CR3) = guest->cr3;
	*field(RIP) = guest->rip;
	*field(RSP) = guest->rsp;
	*field(RAX) = guest->registers.rax;
	hw_svm_enter(&guest->registers, (uintptr_t)vmcb);
	vmcb[FLUSH] = 0;
	guest->registers.rax = *field(RAX);
	guest->rip = *field(RIP);
	guest->rsp = *field(RSP);
	ret_exit->code = *field(EXIT_CODE);
	ret_exit->qualification = *field(EXIT_INFO1);
	ret_exit->gpa = *field(EXIT_INFO2);
	switch (ret_exit->code) {
	case CODE_CALL:
		guest->rip += 3; /* VMMCALL */
		ret_exit->kind = guest->registers.rcx ? HW_EXIT_PAUSE : HW_EXIT_DONE;
		ret_exit->value = guest->registers.rax;
		return;
	case CODE_NESTED_FAULT: ret_exit->kind = HW_EXIT_VIOLATION; return;
	default:
		hw_printf("#VMEXIT %lx, %lx, %lx, at %lx\n", ret_exit->code,
			  ret_exit->qualification, ret_exit->gpa, guest->rip);
	}
}

/* At the next entry. */
static void invalidate(uint64_t pointer)
{
	(void)pointer;
	vmcb[FLUSH] = 1;
}

const struct hw_processor hw_amd = {
	.start = start,
	.enter = enter,
	.invalidate = invalidate,
};
