/* SPDX-License-Identifier: BSD-2-Clause */
/* Tables of lib/ept and a guest on them, and one access, judged by the software walker. */
#include "hw.h"

#define STACK_BYTES 16384u
#define WRITTEN UINT64_C(0x77726974746e0000)
/* Intel: bits 8:0, 13 and 14 are what table 28-7 gives for these accesses; AMD: all of them. */
#define QUALIFICATION_BITS UINT64_C(0x61ff)

struct hw_world hw_world;
uint8_t hw_is_amd;
static uint8_t guest_stack[STACK_BYTES] __attribute__((aligned(16)));

void hw_guest_entry(void);
void hw_guest_shadow_entry(void);

void hw_guest_begin(struct hw_guest *guest, uint64_t pointer, hw_guest_function *function,
		    uint64_t a, uint64_t b, uint64_t c)
{
	guest->registers = (struct hw_registers){
		.rbx = (uintptr_t)function,
		.rdi = a,
		.rsi = b,
		.rdx = c,
	};
	guest->rip = (uintptr_t)hw_guest_entry;
	guest->rsp = (uintptr_t)guest_stack + STACK_BYTES;
	guest->cr3 = hw_guest_tables();
	guest->pointer = pointer;
	guest->log = 0;
	guest->ve = !!(hw_world.context & VMEM_EPT_WALK_VE);
	guest->subpages = hw_world.subpages;
	guest->shadow_stack = 0;
}

void hw_guest_shadow_begin(struct hw_guest *guest, uint64_t pointer, uint64_t address,
			   uint64_t value)
{
	hw_guest_begin(guest, pointer, NULL, address, value, 0);
	guest->rip = (uintptr_t)hw_guest_shadow_entry;
	guest->shadow_stack = 1;
}

uint64_t hw_guest_read(uint64_t address, uint64_t unused, uint64_t unused2)
{
	(void)unused;
	(void)unused2;
	return *hw_word(address);
}

uint64_t hw_guest_write(uint64_t address, uint64_t value, uint64_t unused)
{
	(void)unused;
	*hw_word(address) = value;
	return value;
}

void hw_settle(int error, const struct vmem_ept_change *change)
{
	if (!HW_CHECK(!error))
		hw_printf("error %u, reason %u at %lx\n", (unsigned)-error, change->reason,
			  change->at);
	if (change->flush != VMEM_EPT_FLUSH_NONE)
		hw_world.processor->invalidate(vmem_ept_pointer(hw_world.ept));
	if (!change->epoch)
		return;
	hw_tables_may_go = 1;
	vmem_ept_flushed(hw_world.ept, change->epoch);
	hw_tables_may_go = 0;
}

void hw_map(uint64_t gpa, uint64_t hpa, uint64_t bytes, uint32_t rights, uint32_t level)
{
	struct vmem_ept_change change = { .size = sizeof(change) };
	struct vmem_ept_leaf leaf = {
		.hpa = hpa,
		.rights = rights,
		.type = VMEM_EPT_WB,
		.level = level,
	};

	hw_settle(vmem_ept_map(hw_world.ept, gpa, bytes, &leaf, 0, &change), &change);
}

void hw_world_open(uint64_t flags)
{
	const struct vmem_ept_opts opts = {
		.size = sizeof(opts),
		.flags = flags,
		.allocator = &hw_allocator,
		.capabilities = &hw_world.capabilities,
		.memory = &hw_tables,
		.levels = hw_world.levels,
	};

	hw_world.ept_flags = flags;
	HW_CHECK(!vmem_ept_new(&hw_world.ept, &opts));
	hw_map(0, 0, HW_RAM_END, VMEM_EPT_READ | VMEM_EPT_WRITE | VMEM_EPT_EXEC, 0);
	hw_tables_are_base(vmem_ept_pointer(hw_world.ept) & VMEM_EPT_ADDRESS, hw_world.levels);
	hw_world.processor->invalidate(vmem_ept_pointer(hw_world.ept));
}

void hw_world_close(void)
{
	hw_tables_may_go = 1;
	vmem_ept_free(hw_world.ept);
	hw_tables_may_go = 0;
	hw_world.ept = NULL;
	HW_CHECK(hw_memory_idle());
}

void hw_walk(const struct vmem_ept_view *view, uint32_t kind, uint64_t gpa,
	     struct vmem_ept_walked *ret_walked)
{
	const struct vmem_ept_access access = {
		.size = sizeof(access),
		.gpa = gpa,
		.kind = kind,
		.context = hw_world.context,
		.pointer = vmem_ept_pointer(hw_world.ept),
		.subpage_pointer = hw_world.subpages,
	};

	*ret_walked = (struct vmem_ept_walked){ .size = sizeof(*ret_walked) };
	HW_CHECK(!vmem_ept_walk(&hw_world.capabilities, view, &access, ret_walked));
}

void hw_predict(uint32_t kind, uint64_t gpa, struct vmem_ept_walked *ret_walked)
{
	hw_shadow_take();
	hw_walk(&hw_shadow, kind, gpa, ret_walked);
}

/* Bits of a qualification that the processor is known to get wrong. */
static uint64_t wrong_bits(uint64_t want)
{
	if (hw_world.quirks & HW_QUIRK_RESERVED && want & VMEM_EPT_NPF_RESERVED)
		return VMEM_EPT_NPF_PRESENT;
	if (hw_world.quirks & HW_QUIRK_TABLE && hw_world.ept_flags & VMEM_EPT_AD &&
	    !(want & VMEM_EPT_QUAL_TRANSLATED))
		return VMEM_EPT_QUAL_READ;
	return 0;
}

static enum hw_exit_kind kind_of(const struct vmem_ept_walked *walked)
{
	if (walked->virtualization_exception)
		return HW_EXIT_VE;
	if (walked->outcome == VMEM_EPT_WALK_MISCONFIG && !hw_is_amd)
		return HW_EXIT_MISCONFIG;
	if (walked->outcome == VMEM_EPT_WALK_SUBPAGE_MISS ||
	    walked->outcome == VMEM_EPT_WALK_SUBPAGE_MISCONFIG)
		return HW_EXIT_SUBPAGE;
	return HW_EXIT_VIOLATION;
}

void hw_judge_exit(const struct hw_exit *exit, const struct vmem_ept_walked *walked, uint64_t gpa,
		   uint64_t linear)
{
	uint64_t is = exit->qualification, want = walked->qualification;

	HW_CHECK(exit->kind == kind_of(walked));
	HW_CHECK(exit->gpa == gpa);
	if (exit->kind == HW_EXIT_MISCONFIG)
		return; /* it has no qualification */
	if (!hw_is_amd) {
		is &= exit->kind == HW_EXIT_SUBPAGE ? UINT64_MAX : QUALIFICATION_BITS;
		HW_CHECK(exit->linear == linear);
	}
	if (!HW_CHECK(!((is ^ want) & ~wrong_bits(want))))
		hw_printf("at %lx: %lx, predicted: %lx\n", gpa, is, want);
}

/* What the guest is to make of an access that succeeds; 0: it cannot tell there. */
static int expect(uint32_t kind, uint64_t hpa, uint64_t *ret_value)
{
	int data = hpa >= HW_DATA && hpa < HW_DATA_END;

	switch (kind) {
	case VMEM_EPT_ACCESS_READ: *ret_value = *hw_word(hpa); return hpa < HW_RAM_END;
	case VMEM_EPT_ACCESS_WRITE: *ret_value = WRITTEN | hpa >> 12; return data;
	default: *ret_value = hw_frame_result(hpa); return data;
	}
}

int hw_access(uint32_t kind, uint64_t gpa)
{
	static const uint64_t place[] = { 0, HW_FRAME_WRITTEN, HW_FRAME_CODE };
	hw_guest_function *const function[] = {
		hw_guest_read,
		hw_guest_write,
		(hw_guest_function *)(uintptr_t)(gpa + HW_FRAME_CODE),
	};
	struct vmem_ept_walked walked;
	struct hw_exit exit;
	uint64_t value = 0;
	int fine;

	gpa += place[kind];
	hw_predict(kind, gpa, &walked);
	fine = walked.outcome == VMEM_EPT_WALK_OK;
	if (walked.outcome == VMEM_EPT_WALK_NO_TABLE ||
	    (fine && (walked.hpa >= HW_RAM_END || !expect(kind, walked.hpa, &value))))
		return 0;
	hw_guest_begin(&hw_world.guest, vmem_ept_pointer(hw_world.ept), function[kind], gpa, value,
		       0);
	hw_world.processor->enter(&hw_world.guest, &exit);
	if (fine) {
		HW_CHECK(exit.kind == HW_EXIT_DONE);
		HW_CHECK(exit.value == value);
		if (kind == VMEM_EPT_ACCESS_WRITE)
			HW_CHECK(*hw_word(walked.hpa) == value);
	} else {
		hw_judge_exit(&exit, &walked, gpa, gpa);
	}
	/* Of a walk that ends in a fault, upper entries may be accessed (SDM 29.3.5, APM 5.4.2). */
	HW_CHECK(hw_shadow_compare(fine        ? 0
				   : hw_is_amd ? VMEM_EPT_AMD_ACCESSED
					       : VMEM_EPT_INTEL_ACCESSED));
	return 1;
}
