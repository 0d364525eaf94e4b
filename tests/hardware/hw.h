/* SPDX-License-Identifier: BSD-2-Clause */
/* A host on the bare machine, of one processor, that runs guests on second-stage tables made by lib/ept: what its parts
 * know of each other. Memory is mapped where it is, in the host and (by the tables' lowest entries) in guests, so that
 * a guest runs functions of this program. */
#ifndef HW_H
#define HW_H
#include <stddef.h>
#include <stdint.h>
#include <vmem/ept.h>
#include <vmem/ept_track.h>
#include <vmem/ept_walk.h>

/* --- hw_console.c: the first serial port, and the way out --- */

void hw_console_start(void);
/* %s %u %x, and with l: 64 bits. No widths. */
void hw_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends the emulator: Bochs by a port of its own, QEMU by isa-debug-exit. */
void hw_power_off(void);

/* Prints what does not hold, and counts the case as failed. Returns holds. */
int hw_check(int holds, const char *what, unsigned line, const char *file);
#define HW_CHECK(holds) hw_check(!!(holds), #holds, __LINE__, __FILE__)
/* Between these two: one case. */
void hw_case_begin(const char *format, ...) __attribute__((format(printf, 1, 2)));
void hw_case_end(void);

/* --- hw_memory.c: physical memory, which is mapped where it is --- */

#define HW_MIB (UINT64_C(1) << 20)
#define HW_GIB (UINT64_C(1) << 30)
#define HW_POOL (4 * HW_MIB) /* tables */
#define HW_POOL_END (16 * HW_MIB)
#define HW_SHADOW (16 * HW_MIB) /* a copy of them: see hw_shadow_take() */
#define HW_DATA (32 * HW_MIB)   /* what guests see beside the program: see hw_frame_fill() */
#define HW_DATA_END (48 * HW_MIB)
#define HW_RAM_END (64 * HW_MIB)

extern const struct vmem_allocator hw_allocator;
extern const struct vmem_ept_memory hw_tables;
/* Tables come back where this is not 0 only: by vmem_ept_flushed() and vmem_ept_free(), and by no other call. */
extern int hw_tables_may_go;
/* All of the object's memory and tables are given back. */
int hw_memory_idle(void);
/* The tables that there are now map the program: of them, only those have a copy that lead to other places as well. */
void hw_tables_are_base(uint64_t root, uint32_t levels);

/* The tables themselves, all of them, to be read. */
extern const struct vmem_ept_view hw_live;

/* A copy of all other tables, on which the software walker is at work while the processor uses the tables themselves. */
void hw_shadow_take(void);
extern const struct vmem_ept_view hw_shadow;
/* Are both alike again? In entries, bits of @may may be set that are not in the copy. */
int hw_shadow_compare(uint64_t may);

/* Each frame of the data begins with a word that tells its address, and has a function at HW_FRAME_CODE that returns it. */
#define HW_FRAME_CODE 0x800u
#define HW_FRAME_WRITTEN 0x10u /* where guests write */
void hw_frames_fill(void);
static inline uint64_t hw_frame_word(uint64_t hpa)
{
	return (hpa >> 12) * UINT64_C(0x100000001) ^ UINT64_C(0x5a5a0000a5a50000);
}
static inline uint32_t hw_frame_result(uint64_t hpa)
{
	return (uint32_t)(hpa >> 12) | 0x40000000u;
}

/* The guest's own tables: 1 TiB where it is, by leaves of 1 GiB, accessed and dirty, for supervisors. */
uint64_t hw_guest_tables(void);

static inline volatile uint64_t *hw_word(uint64_t address)
{
	return (volatile uint64_t *)(uintptr_t)address;
}

/* --- hw_vmx.c, hw_svm.c: guests --- */

struct hw_registers {
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15;
};

struct hw_guest {
	struct hw_registers registers;
	uint64_t rip, rsp, cr3;
	uint64_t pointer; /* vmem_ept_pointer() */
	uint64_t log;     /* Intel: a page for page-modification logging, or 0 */
	uint16_t log_index;
	int shadow_stack;  /* Intel: it may write to shadow stacks; see hw_guest_shadow_begin() */
	uint64_t subpages; /* Intel: a sub-page permission table, or 0 */
	int ve; /* Intel: violations become virtualization exceptions (#VE) where bit 63 is clear */
};

enum hw_exit_kind {
	HW_EXIT_DONE,      /* the guest's function has returned */
	HW_EXIT_PAUSE,     /* hw_guest_pause() */
	HW_EXIT_VIOLATION, /* AMD: nested page fault */
	HW_EXIT_MISCONFIG,
	HW_EXIT_LOG_FULL,
	HW_EXIT_SUBPAGE, /* Intel: SPP-related event */
	HW_EXIT_VE,      /* the guest has got one, with the same information as an exit */
	HW_EXIT_OTHER,
};
struct hw_exit {
	enum hw_exit_kind kind;
	uint64_t value;         /* what the guest says */
	uint64_t code;          /* as the processor says it */
	uint64_t qualification; /* AMD: EXITINFO1 */
	uint64_t gpa;           /* AMD: EXITINFO2 */
	uint64_t linear;        /* Intel */
};

struct hw_processor {
	/* Turns virtualization on and finds out about it. NULL, or why it cannot be. */
	const char *(*start)(struct vmem_ept_capabilities *ret_capabilities);
	void (*enter)(struct hw_guest *guest, struct hw_exit *ret_exit);
	/* All that the processor remembers of these tables. */
	void (*invalidate)(uint64_t pointer);
};
extern const struct hw_processor hw_intel, hw_amd;
extern uint8_t hw_is_amd;

/* A guest that is to call function(a, b, c). */
typedef uint64_t hw_guest_function(uint64_t a, uint64_t b, uint64_t c);
void hw_guest_begin(struct hw_guest *guest, uint64_t pointer, hw_guest_function *function,
		    uint64_t a, uint64_t b, uint64_t c);
/* A guest that is to write to a shadow stack, once. Intel, with control-flow enforcement. */
void hw_guest_shadow_begin(struct hw_guest *guest, uint64_t pointer, uint64_t address,
			   uint64_t value);
/* In the guest: stop until the host enters it again. */
uint64_t hw_guest_pause(uint64_t value);

/* --- hw_world.c: tables of lib/ept with a guest on them --- */

#define HW_GUEST_BASE (512 * HW_GIB) /* below, the guest has the program */

struct hw_world {
	const struct hw_processor *processor;
	struct vmem_ept_capabilities capabilities;
	vmem_ept *ept;
	uint64_t ept_flags;
	struct hw_guest guest;
	unsigned quirks;
	uint32_t levels;   /* of the tables */
	uint32_t context;  /* VMEM_EPT_WALK_*: what is on in guests */
	uint64_t subpages; /* with VMEM_EPT_WALK_SUBPAGE: the sub-page permission table */
};
/* Where the processor is known not to do what its manual says. It is found out, and printed, before the cases. */
enum {
	HW_QUIRK_BIT_12 =
		1, /* Bochs 2.7: bit 12 of a large leaf may be set, as if it were a PAT bit */
	HW_QUIRK_TABLE = 2, /* Bochs 2.7: with VMEM_EPT_AD, access to a guest's table is no read */
	HW_QUIRK_BIT_8 = 4, /* QEMU 7.2: bit 8 of tables' entries from level 3 on may be set */
	HW_QUIRK_RESERVED = 8, /* QEMU 7.2: with reserved bits set, the fault is one of absence */
	HW_QUIRK_SUBPAGE = 16, /* Bochs 2.7: odd bits of sub-page permissions may be set */
	HW_QUIRK_SHADOW = 32,  /* Bochs 2.7: supervisor shadow-stack pages are like others */
};
extern struct hw_world hw_world; /* there is one at a time; the guest reaches it, too */

/* @flags: VMEM_EPT_AD or 0. */
void hw_world_open(uint64_t flags);
/* All that was taken is given back. */
void hw_world_close(void);
/* HW_CHECKs that a call on the tables went well, and invalidates what it owes; frees the tables that waited for it. */
void hw_settle(int error, const struct vmem_ept_change *change);
void hw_map(uint64_t gpa, uint64_t hpa, uint64_t bytes, uint32_t rights, uint32_t level);

/* What an access comes to, by the tables of a view. */
void hw_walk(const struct vmem_ept_view *view, uint32_t kind, uint64_t gpa,
	     struct vmem_ept_walked *ret_walked);
/* What the software walker says of an access, on a copy of the tables that is taken now. */
void hw_predict(uint32_t kind, uint64_t gpa, struct vmem_ept_walked *ret_walked);
/* A guest makes one access; all that comes of it is as the software walker has said of the same tables before:
 * what it reads, which exit there is with which qualification and address, and which bits are set in which entry.
 * @return 0: it was not tried, because the tables lead out of the memory that is there */
int hw_access(uint32_t kind, uint64_t gpa);
/* The exit is the one that was predicted. @linear: address of the access, which Intel tells */
void hw_judge_exit(const struct hw_exit *exit, const struct vmem_ept_walked *walked, uint64_t gpa,
		   uint64_t linear);

uint64_t hw_guest_read(uint64_t address, uint64_t unused, uint64_t unused2);
uint64_t hw_guest_write(uint64_t address, uint64_t value, uint64_t unused);

/* --- the cases --- */

/* If it is found, notes it and says so. hw_walks.c */
void hw_quirk(int found, unsigned bit, const char *text);

void hw_walk_cases(void);    /* hw_walks.c */
void hw_change_cases(void);  /* hw_changes.c */
void hw_log_cases(void);     /* hw_logs.c */
void hw_subpage_cases(void); /* hw_subpages.c */
void hw_shadow_cases(void);  /* hw_shadows.c */

void hw_main(void);

#endif
