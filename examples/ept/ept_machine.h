/* SPDX-License-Identifier: BSD-2-Clause */
/* A machine without hardware: physical memory in a block of the process, second-stage tables in it, and the software
 * walker as its processor. One thread. */
#ifndef EPT_MACHINE_H
#define EPT_MACHINE_H
#include <stddef.h>
#include <stdint.h>
#include <vmem/ept.h>
#include <vmem/ept_walk.h>

struct ept_machine {
	uint8_t *memory; /* frame n is at physical address 4096 * n; 0 is not used */
	uint32_t frames;
	uint32_t free_frames;
	uint32_t *free_list; /* [free_frames] */
	uint32_t levels;
	struct vmem_ept_capabilities processor;
	vmem_ept *ept;
	/* What the hypervisor does about a violation. 0: the guest tries again */
	int (*violation)(void *context, uint64_t gpa, const struct vmem_ept_walked *walked);
	void *context;
	uint64_t accesses; /* pages that the guest touched */
	uint64_t violations;
	uint64_t invalidations; /* that a real processor would have needed */
};

/* A processor of a format (enum vmem_ept_format) that can do all, and empty tables: levels 0 is 4. 0, or
 * a negative VMEM error. */
int ept_machine_begin(struct ept_machine *machine, uint32_t frames, uint32_t format,
		      uint32_t levels);
void ept_machine_end(struct ept_machine *machine);

/* A frame with any contents. 0, or -VMEM_ENOMEM. */
int ept_frame_take(struct ept_machine *machine, uint64_t *ret_hpa);
void ept_frame_give(struct ept_machine *machine, uint64_t hpa);
void *ept_frame(const struct ept_machine *machine, uint64_t hpa);

/* Does what a change owes. On a real machine: INVEPT (a new ASID, or TLB_CONTROL of the VMCB; the
 * IOTLB) on all processors that run the guest. */
void ept_machine_flush(struct ept_machine *machine, const struct vmem_ept_change *change);

/* One walk by the processor. */
struct vmem_ept_walked ept_machine_walk(const struct ept_machine *machine, uint64_t gpa,
					uint32_t kind);

/* The guest reads or writes its memory. 0, or what violation() said, or -VMEM_EIO (the tables are no good). */
int ept_guest_read(struct ept_machine *machine, uint64_t gpa, void *bytes, size_t count);
int ept_guest_write(struct ept_machine *machine, uint64_t gpa, const void *bytes, size_t count);

/* Whether the tables are sound; says on stderr what is not. */
int ept_machine_sound(const struct ept_machine *machine);

/* Prints an error that a call returned, and is 1: the exit status. */
int ept_failed(const char *what, int error);

/* Takes the number of an option, from @least to @most. 0, or 1: it is none, which is said on stderr. */
int ept_option_number(const char *option, const char *text, uint32_t least, uint32_t most,
		      uint32_t *ret_number);
/* Whether there is nothing but options, of which the next would be argv[next]. 0, or 1, likewise. */
int ept_options_end(int argc, char **argv, int next);

#endif
