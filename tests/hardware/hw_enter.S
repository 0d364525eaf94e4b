/* SPDX-License-Identifier: BSD-2-Clause */
/* Into a guest and out again, and where guests begin. Offsets are those of struct hw_registers. */

#define HOST_RSP 0x6c14 /* a field of the VMCS */

	.macro save_callee
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	.endm

	.macro restore_callee
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	.endm

	/* From (%rdi), rax left out; flags stay. */
	.macro load_registers
	mov 8(%rdi), %rbx
	mov 16(%rdi), %rcx
	mov 24(%rdi), %rdx
	mov 32(%rdi), %rsi
	mov 48(%rdi), %rbp
	mov 56(%rdi), %r8
	mov 64(%rdi), %r9
	mov 72(%rdi), %r10
	mov 80(%rdi), %r11
	mov 88(%rdi), %r12
	mov 96(%rdi), %r13
	mov 104(%rdi), %r14
	mov 112(%rdi), %r15
	mov 40(%rdi), %rdi
	.endm

	/* The guest's into the structure whose address is on the stack, rax left out. rdi: that address. */
	.macro store_registers
	xchg %rdi, (%rsp)
	mov %rbx, 8(%rdi)
	mov %rcx, 16(%rdi)
	mov %rdx, 24(%rdi)
	mov %rsi, 32(%rdi)
	mov %rbp, 48(%rdi)
	mov %r8, 56(%rdi)
	mov %r9, 64(%rdi)
	mov %r10, 72(%rdi)
	mov %r11, 80(%rdi)
	mov %r12, 88(%rdi)
	mov %r13, 96(%rdi)
	mov %r14, 104(%rdi)
	mov %r15, 112(%rdi)
	pop 40(%rdi)
	.endm

	.text
	.code64
	/* int hw_vmx_enter(struct hw_registers *registers, int launched): 0, or 1: the entry failed */
	.globl hw_vmx_enter
hw_vmx_enter:
	save_callee
	push %rdi
	mov $HOST_RSP, %eax
	vmwrite %rsp, %rax
	test %esi, %esi
	mov (%rdi), %rax
	load_registers
	jz .Llaunch
	vmresume
	jmp .Lno_entry
.Llaunch:
	vmlaunch
.Lno_entry:
	pop %rdi
	mov $1, %eax
	restore_callee
	ret
	.globl hw_vmx_exit
hw_vmx_exit:
	xchg %rdi, (%rsp)
	mov %rax, (%rdi)
	xchg %rdi, (%rsp)
	store_registers
	xor %eax, %eax
	restore_callee
	ret

	/* void hw_svm_enter(struct hw_registers *registers, uint64_t vmcb): rax is in the VMCB */
	.globl hw_svm_enter
hw_svm_enter:
	save_callee
	push %rdi
	mov %rsi, %rax
	clgi
	load_registers
	vmrun %rax
	store_registers
	stgi
	restore_callee
	ret

	/* A guest begins here, with a function in rbx and its arguments in rdi, rsi and rdx. At its end the result is
	 * in rax, and rcx is 0. */
	.globl hw_guest_entry
hw_guest_entry:
	call *%rbx
	xor %ecx, %ecx
	call .Lcall_host
	ud2

	/* Or here, with shadow stacks on, for which it must not call: rsi goes to (rdi), as if that were one. */
	.globl hw_guest_shadow_entry
hw_guest_shadow_entry:
	wrssq %rsi, (%rdi)
	mov %rsi, %rax
	xor %ecx, %ecx
	vmcall
	ud2

	/* uint64_t hw_guest_pause(uint64_t value): rcx is 1; returns what the host puts into rax */
	.globl hw_guest_pause
hw_guest_pause:
	mov %rdi, %rax
	mov $1, %ecx
.Lcall_host:
	testb $1, hw_is_amd
	jnz .Lamd
	vmcall
	ret
.Lamd:
	vmmcall
	ret

	.section .note.GNU-stack, "", @progbits
