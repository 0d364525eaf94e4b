/* SPDX-License-Identifier: BSD-2-Clause */
/* From the BIOS to C in long mode. The first 512 bytes are the boot sector, which loads the rest behind itself
 * (the addresses are hw_image.ld's); then the first 4 GiB are mapped where they are, by 2 MiB. */

#define CODE32 0x08
#define DATA 0x10
#define CODE64 0x18
#define CHUNK_SECTORS 32
#define CHUNK_PARAGRAPHS (CHUNK_SECTORS * 512 / 16)

	.section .boot, "ax"
	.code16
	.globl hw_start
hw_start:
	ljmp $0, $.Lloaded
.Lloaded:
	cli
	cld
	xor %ax, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov $0x7c00, %sp
	mov %dl, .Ldrive
	mov $hw_image_chunks, %cx
.Lload:
	push %cx
	mov $.Lpacket, %si
	mov $0x42, %ah
	mov .Ldrive, %dl
	int $0x13
	pop %cx
	jc .Lunreadable
	addw $CHUNK_PARAGRAPHS, .Lpacket_segment
	addl $CHUNK_SECTORS, .Lpacket_sector
	loop .Lload

	in $0x92, %al /* address line 20 */
	or $2, %al
	and $0xfe, %al
	out %al, $0x92
	lgdt .Lgdt_pointer
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	ljmp $CODE32, $.Lprotected
.Lunreadable:
	hlt
	jmp .Lunreadable

	.align 4
.Lpacket:
	.byte 16, 0
	.word CHUNK_SECTORS
	.word 0
.Lpacket_segment:
	.word 0x7e00 / 16
.Lpacket_sector:
	.quad 1
.Ldrive:
	.byte 0

	.align 8
	.globl hw_gdt
hw_gdt:
	.quad 0
	.quad 0x00cf9b000000ffff /* CODE32 */
	.quad 0x00cf93000000ffff /* DATA */
	.quad 0x00af9b000000ffff /* CODE64 */
.Lgdt_pointer:
	.word . - hw_gdt - 1
	.long hw_gdt

	.org 510
	.word 0xaa55

	.section .text.boot, "ax"
	.code32
.Lprotected:
	mov $DATA, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov %ax, %fs
	mov %ax, %gs
	mov $hw_bss, %edi
	mov $hw_bss_end, %ecx
	sub %edi, %ecx
	shr $2, %ecx
	xor %eax, %eax
	rep stosl

	/* present, writable, accessed, dirty; 0x80: 2 MiB */
	movl $hw_host_pdpt + 0x23, hw_host_pml4
	mov $hw_host_pdpt, %edi
	mov $hw_host_pd + 0x23, %eax
	mov $4, %ecx
.Lpdpt:
	mov %eax, (%edi)
	add $0x1000, %eax
	add $8, %edi
	loop .Lpdpt
	mov $hw_host_pd, %edi
	mov $0xe3, %eax
	mov $2048, %ecx
.Lpd:
	mov %eax, (%edi)
	add $0x200000, %eax
	add $8, %edi
	loop .Lpd

	movl $hw_host_pml4 + 0x23, hw_host_pml5
	mov $hw_host_pml4, %esi
	mov %cr4, %edi
	or $0x20, %edi /* PAE */
	xor %eax, %eax
	cpuid
	cmp $7, %eax
	jb .Lfour_levels
	mov $7, %eax
	xor %ecx, %ecx
	cpuid
	test $0x10000, %ecx
	jz .Lfour_levels
	or $0x1000, %edi /* LA57 */
	mov $hw_host_pml5, %esi
.Lfour_levels:
	mov %edi, %cr4
	mov %esi, %cr3
	mov $0xc0000080, %ecx /* EFER */
	rdmsr
	or $0x900, %eax /* long mode, no-execute */
	wrmsr
	mov %cr0, %eax
	and $0x9fffffff, %eax /* caches on */
	or $0x80010020, %eax  /* paging, write protection, native FPU errors (which VMX insists on) */
	mov %eax, %cr0
	ljmp $CODE64, $.Llong

	.code64
.Llong:
	mov $hw_stack_end, %rsp
	xor %ebp, %ebp
	call hw_main
	call hw_power_off
.Lforever:
	hlt
	jmp .Lforever

	.bss
	.align 4096
hw_host_pml5:
	.skip 4096
hw_host_pml4:
	.skip 4096
hw_host_pdpt:
	.skip 4096
hw_host_pd:
	.skip 4 * 4096
	.skip 65536
hw_stack_end:

	.section .note.GNU-stack, "", @progbits
