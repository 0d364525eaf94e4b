/* SPDX-License-Identifier: BSD-2-Clause */
/* Guests by VMX (SDM vol. 3C, ch. 25 to 28), with EPT. One VMCS; guests are 64-bit, at privilege level 0, in the
 * segments and control registers of the host; each exception of theirs is a VM exit. */
#include "hw.h"
#include "hw_cpu.h"

#define MSR_FEATURE_CONTROL 0x3au
#define MSR_BASIC 0x480u
#define MSR_PIN 0x481u
#define MSR_PROC 0x482u
#define MSR_EXIT 0x483u
#define MSR_ENTRY 0x484u
#define MSR_CR0_FIXED0 0x486u
#define MSR_CR4_FIXED0 0x488u
#define MSR_PROC2 0x48bu
#define MSR_EPT_VPID_CAP 0x48cu
#define MSR_S_CET 0x6a2u
#define S_CET_SHADOW_STACK_WRITES 3u /* shadow stacks, and WRSS to them */
#define CR0_WP (UINT64_C(1) << 16)
#define CR4_CET (UINT64_C(1) << 23)
#define CR4_VMXE (UINT64_C(1) << 13)

#define PROC_SECONDARY (1u << 31)
#define PROC2_EPT (1u << 1)
#define PROC2_VPID (1u << 5)
#define PROC2_LOG (1u << 17)
#define PROC2_VE (1u << 18)
#define PROC2_MBEC (1u << 22)
#define PROC2_SUBPAGE (1u << 23)
#define VECTOR_VE 20u
#define EXIT_HOST_64 (1u << 9)
#define EXIT_SAVE_EFER (1u << 20)
#define EXIT_LOAD_EFER (1u << 21)
#define ENTRY_GUEST_64 (1u << 9)
#define ENTRY_LOAD_EFER (1u << 15)

/* Fields (SDM vol. 3D, app. B). Segments come as ES CS SS DS FS GS LDTR TR, 2 apart. */
enum {
	VPID = 0x0,
	GUEST_SELECTOR = 0x800,
	GUEST_LOG_INDEX = 0x812,
	HOST_SELECTOR = 0xc00,
	LOG_ADDRESS = 0x200e,
	EPT_POINTER = 0x201a,
	VE_INFORMATION = 0x202a,
	SUBPAGE_POINTER = 0x2030,
	GUEST_PHYSICAL = 0x2400,
	LINK = 0x2800,
	GUEST_DEBUGCTL = 0x2802,
	GUEST_EFER = 0x2806,
	HOST_EFER = 0x2c02,
	PIN_CONTROLS = 0x4000,
	PROC_CONTROLS = 0x4002,
	EXCEPTIONS = 0x4004,
	EXIT_CONTROLS = 0x400c,
	ENTRY_CONTROLS = 0x4012,
	PROC2_CONTROLS = 0x401e,
	INSTRUCTION_ERROR = 0x4400,
	EXIT_REASON = 0x4402,
	EXIT_INTERRUPTION = 0x4404,
	EXIT_LENGTH = 0x440c,
	GUEST_LIMIT = 0x4800,
	GUEST_GDT_LIMIT = 0x4810,
	GUEST_IDT_LIMIT = 0x4812,
	GUEST_RIGHTS = 0x4814,
	QUALIFICATION = 0x6400,
	GUEST_LINEAR = 0x640a,
	GUEST_CR0 = 0x6800,
	GUEST_CR3 = 0x6802,
	GUEST_CR4 = 0x6804,
	GUEST_GDT_BASE = 0x6816,
	GUEST_DR7 = 0x681a,
	GUEST_RSP = 0x681c,
	GUEST_RIP = 0x681e,
	GUEST_RFLAGS = 0x6820,
	HOST_CR0 = 0x6c00,
	HOST_CR3 = 0x6c02,
	HOST_CR4 = 0x6c04,
	HOST_TR_BASE = 0x6c0a,
	HOST_GDT_BASE = 0x6c0c,
	HOST_RIP = 0x6c16,
};
enum { ES, CS, SS, DS, FS, GS, LDTR, TR, SEGMENTS };

enum {
	REASON_EXCEPTION = 0,
	REASON_CALL = 18,
	REASON_VIOLATION = 48,
	REASON_MISCONFIG = 49,
	REASON_LOG_FULL = 62,
	REASON_SUBPAGE = 66
};

extern uint64_t hw_gdt[];
extern const char hw_vmx_exit[];
int hw_vmx_enter(struct hw_registers *registers, int launched);

static uint8_t vmxon_page[4096] __attribute__((aligned(4096)));
static uint8_t vmcs[4096] __attribute__((aligned(4096)));
static uint8_t task_state[104] __attribute__((aligned(128)));
/* SDM 25.5.7.2. The processor leaves it alone while busy is not 0. */
static struct {
	uint32_t reason, busy;
	uint64_t qualification, linear, physical;
} ve_information __attribute__((aligned(4096)));
static uint32_t controls2;
static int launched;

static void vmwrite(uint64_t field, uint64_t value)
{
	uint8_t failed;

	__asm__ volatile("vmwrite %2, %1; setna %0"
			 : "=q"(failed)
			 : "r"(field), "r"(value)
			 : "cc", "memory");
	if (failed)
		hw_printf("vmwrite of field %lx fails\n", field);
}

static uint64_t vmread(uint64_t field)
{
	uint64_t value = 0;

	__asm__ volatile("vmread %1, %0" : "=r"(value) : "r"(field) : "cc");
	return value;
}

/* What is wanted, with what must be 1, without what must be 0. */
static uint32_t controls(uint32_t msr, uint32_t wanted)
{
	uint64_t allowed = hw_rdmsr(msr);

	return (wanted | (uint32_t)allowed) & (uint32_t)(allowed >> 32);
}

static int vmx_on(void)
{
	uint64_t region = (uintptr_t)vmxon_page, table = (uintptr_t)vmcs;
	uint32_t revision = (uint32_t)hw_rdmsr(MSR_BASIC) & 0x7fffffffu;
	uint8_t failed;

	if (!(hw_rdmsr(MSR_FEATURE_CONTROL) & 1))
		hw_wrmsr(MSR_FEATURE_CONTROL, hw_rdmsr(MSR_FEATURE_CONTROL) | 5);
	hw_write_cr0(hw_read_cr0() | hw_rdmsr(MSR_CR0_FIXED0));
	hw_write_cr4(hw_read_cr4() | CR4_VMXE | hw_rdmsr(MSR_CR4_FIXED0));
	*(uint32_t *)(void *)vmxon_page = revision;
	*(uint32_t *)(void *)vmcs = revision;
	__asm__ volatile("vmxon %1; setna %0" : "=q"(failed) : "m"(region) : "cc", "memory");
	if (failed)
		return 0;
	__asm__ volatile("vmclear %0" ::"m"(table) : "cc", "memory");
	__asm__ volatile("vmptrld %1; setna %0" : "=q"(failed) : "m"(table) : "cc", "memory");
	return !failed;
}

static void write_host(void)
{
	static const unsigned data[] = { ES, SS, DS, FS, GS };

	for (unsigned i = 0; i < sizeof(data) / sizeof(data[0]); i++)
		vmwrite(HOST_SELECTOR + 2 * data[i], HW_SELECTOR_DATA);
	vmwrite(HOST_SELECTOR + 2 * CS, HW_SELECTOR_CODE);
	vmwrite(HOST_SELECTOR + 2 * (TR - 1), HW_SELECTOR_DATA); /* there is no LDTR here */
	vmwrite(HOST_TR_BASE, (uintptr_t)task_state);
	vmwrite(HOST_GDT_BASE, (uintptr_t)hw_gdt);
	vmwrite(HOST_CR0, hw_read_cr0());
	vmwrite(HOST_CR3, hw_read_cr3());
	vmwrite(HOST_CR4, hw_read_cr4());
	vmwrite(HOST_EFER, hw_rdmsr(HW_MSR_EFER));
	vmwrite(HOST_RIP, (uintptr_t)hw_vmx_exit);
}

static void write_guest(void)
{
	for (unsigned i = 0; i < SEGMENTS; i++) {
		vmwrite(GUEST_SELECTOR + 2 * i, HW_SELECTOR_DATA);
		vmwrite(GUEST_LIMIT + 2 * i, 0xffffffff);
		vmwrite(GUEST_RIGHTS + 2 * i, 0xc093);
	}
	vmwrite(GUEST_SELECTOR + 2 * CS, HW_SELECTOR_CODE);
	vmwrite(GUEST_RIGHTS + 2 * CS, 0xa09b);
	vmwrite(GUEST_SELECTOR + 2 * LDTR, 0);
	vmwrite(GUEST_RIGHTS + 2 * LDTR, 0x10000); /* unusable */
	vmwrite(GUEST_LIMIT + 2 * TR, sizeof(task_state) - 1);
	vmwrite(GUEST_RIGHTS + 2 * TR, 0x8b);
	vmwrite(GUEST_GDT_BASE, (uintptr_t)hw_gdt);
	vmwrite(GUEST_GDT_LIMIT, 4 * 8 - 1);
	vmwrite(GUEST_IDT_LIMIT, 0);
	vmwrite(GUEST_EFER, hw_rdmsr(HW_MSR_EFER));
	vmwrite(GUEST_DR7, 0x400);
	vmwrite(GUEST_RFLAGS, 2);
	vmwrite(GUEST_DEBUGCTL, 0);
	vmwrite(LINK, UINT64_MAX);
}

static const char *start(struct vmem_ept_capabilities *ret_capabilities)
{
	uint32_t allowed2 = (uint32_t)(hw_rdmsr(MSR_PROC2) >> 32);
	uint64_t cap = hw_rdmsr(MSR_EPT_VPID_CAP);
	uint32_t wanted2 = PROC2_EPT | PROC2_VPID | PROC2_MBEC;

	hw_printf("Intel, EPT and VPID capabilities %lx, secondary controls %x\n", cap, allowed2);
	if (!(allowed2 & PROC2_EPT))
		return "no EPT";
	if (!vmx_on())
		return "VMXON fails";
	controls2 = controls(MSR_PROC2, wanted2);
	vmwrite(PIN_CONTROLS, controls(MSR_PIN, 0));
	vmwrite(PROC_CONTROLS, controls(MSR_PROC, PROC_SECONDARY));
	vmwrite(EXIT_CONTROLS, controls(MSR_EXIT, EXIT_HOST_64 | EXIT_SAVE_EFER | EXIT_LOAD_EFER));
	vmwrite(ENTRY_CONTROLS, controls(MSR_ENTRY, ENTRY_GUEST_64 | ENTRY_LOAD_EFER));
	vmwrite(EXCEPTIONS, 0xffffffff);
	if (allowed2 & PROC2_VE)
		vmwrite(VE_INFORMATION, (uintptr_t)&ve_information);
	vmwrite(VPID, controls2 & PROC2_VPID ? 1 : 0);
	write_host();
	write_guest();
	if (vmem_ept_capabilities_intel(ret_capabilities, cap,
					allowed2 &
						(PROC2_LOG | PROC2_VE | PROC2_MBEC | PROC2_SUBPAGE),
					0, hw_cpuid(0x80000008).eax & 0xff))
		return "capabilities that lib/ept refuses";
	return NULL;
}

/* It is a VM exit because all exceptions are. */
static int is_ve(struct hw_exit *exit)
{
	if (exit->code != REASON_EXCEPTION || (vmread(EXIT_INTERRUPTION) & 0xff) != VECTOR_VE)
		return 0;
	HW_CHECK(ve_information.reason == REASON_VIOLATION && ve_information.busy);
	exit->kind = HW_EXIT_VE;
	exit->qualification = ve_information.qualification;
	exit->gpa = ve_information.physical;
	exit->linear = ve_information.linear;
	ve_information.busy = 0;
	return 1;
}

static void read_exit(struct hw_guest *guest, struct hw_exit *ret_exit)
{
	ret_exit->code = vmread(EXIT_REASON);
	ret_exit->qualification = vmread(QUALIFICATION);
	ret_exit->gpa = vmread(GUEST_PHYSICAL);
	ret_exit->linear = vmread(GUEST_LINEAR);
	guest->rip = vmread(GUEST_RIP);
	guest->rsp = vmread(GUEST_RSP);
	if (guest->log)
		guest->log_index = (uint16_t)vmread(GUEST_LOG_INDEX);
	switch (ret_exit->code) {
	case REASON_CALL:
		guest->rip += vmread(EXIT_LENGTH);
		ret_exit->kind = guest->registers.rcx ? HW_EXIT_PAUSE : HW_EXIT_DONE;
		ret_exit->value = guest->registers.rax;
		return;
	case REASON_VIOLATION: ret_exit->kind = HW_EXIT_VIOLATION; return;
	case REASON_MISCONFIG: ret_exit->kind = HW_EXIT_MISCONFIG; return;
	case REASON_LOG_FULL: ret_exit->kind = HW_EXIT_LOG_FULL; return;
	case REASON_SUBPAGE: ret_exit->kind = HW_EXIT_SUBPAGE; return;
	default:
		if (is_ve(ret_exit))
			return;
		ret_exit->kind = HW_EXIT_OTHER;
		hw_printf("VM exit %lx, interruption %lx, qualification %lx, at %lx\n",
			  ret_exit->code, vmread(EXIT_INTERRUPTION), ret_exit->qualification,
			  guest->rip);
	}
}

static void enter(struct hw_guest *guest, struct hw_exit *ret_exit)
{
	*ret_exit = (struct hw_exit){ .kind = HW_EXIT_OTHER };
	vmwrite(PROC2_CONTROLS, controls2 | (guest->log ? PROC2_LOG : 0) |
					(guest->ve ? PROC2_VE : 0) |
					(guest->subpages ? PROC2_SUBPAGE : 0));
	if (guest->subpages)
		vmwrite(SUBPAGE_POINTER, guest->subpages);
	if (guest->log) {
		vmwrite(LOG_ADDRESS, guest->log);
		vmwrite(GUEST_LOG_INDEX, guest->log_index);
	}
	vmwrite(EPT_POINTER, guest->pointer);
	vmwrite(GUEST_CR0, hw_read_cr0() | (guest->shadow_stack ? CR0_WP : 0));
	vmwrite(GUEST_CR3, guest->cr3);
	vmwrite(GUEST_CR4, hw_read_cr4() | (guest->shadow_stack ? CR4_CET : 0));
	if (guest->shadow_stack) /* nothing to the host, whose CR4.CET is clear */
		hw_wrmsr(MSR_S_CET, S_CET_SHADOW_STACK_WRITES);
	vmwrite(GUEST_RIP, guest->rip);
	vmwrite(GUEST_RSP, guest->rsp);
	if (hw_vmx_enter(&guest->registers, launched)) {
		hw_printf("VM entry fails with error %lu\n", vmread(INSTRUCTION_ERROR));
		return;
	}
	launched = 1;
	read_exit(guest, ret_exit);
}

/* INVEPT, single-context. */
static void invalidate(uint64_t pointer)
{
	const uint64_t descriptor[2] = { pointer, 0 };
	uint8_t failed;

	__asm__ volatile("invept %1, %2; setna %0"
			 : "=q"(failed)
			 : "m"(descriptor), "r"(UINT64_C(1))
			 : "cc", "memory");
	HW_CHECK(!failed);
}

const struct hw_processor hw_intel = {
	.start = start,
	.enter = enter,
	.invalidate = invalidate,
};
