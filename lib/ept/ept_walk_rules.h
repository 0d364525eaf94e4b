/* SPDX-License-Identifier: BSD-2-Clause */
/* What the walker and the check know of the formats: what an entry is, what it allows, what a pointer says.
 * Written from the manuals and apart from the builder, which shares only the bits of vmem/ept_format.h. */
#ifndef VMEMI_EPT_WALK_RULES_H
#define VMEMI_EPT_WALK_RULES_H
#include <vmem/ept_walk.h>

struct vmemi_ept_rules {
	struct vmem_ept_capabilities processor;
	uint32_t context;  /* VMEM_EPT_WALK_* */
	uint32_t levels;   /* the pointer's */
	uint32_t ad;       /* accessed and dirty bits are on */
	uint32_t guarded;  /* Intel: supervisor shadow stacks are in pages of their own */
	uint64_t root;     /* where the first table is */
	uint64_t too_wide; /* bits of an address that the processor has not */
	uint64_t accessed; /* the bit, or 0 */
	uint64_t dirty;    /* likewise */
};

enum vmemi_ept_entry {
	VMEMI_EPT_ABSENT,
	VMEMI_EPT_TABLE,
	VMEMI_EPT_LEAF,
	VMEMI_EPT_BAD,
};

/* Takes in what a caller gave. 0, -VMEM_EINVAL (also: a context that the processor has not), -VMEM_E2BIG. */
int vmemi_ept_rules_take(struct vmemi_ept_rules *rules,
			 const struct vmem_ept_capabilities *capabilities, uint32_t context);

/* Reads the pointer into the rules; VMEM_EPT_WELL, or what is wrong with it. */
enum vmem_ept_misconfig vmemi_ept_rules_pointer(struct vmemi_ept_rules *rules, uint64_t pointer);

/* What an entry of a level is; of a bad one also why. */
enum vmemi_ept_entry vmemi_ept_rules_entry(const struct vmemi_ept_rules *rules, uint32_t level,
					   uint64_t entry, enum vmem_ept_misconfig *why);

/* What a present entry allows: VMEM_EPT_READ ... */
uint32_t vmemi_ept_rules_rights(const struct vmemi_ept_rules *rules, uint64_t entry);

/* What all entries together do not allow, though each does; @common: their AND. */
uint32_t vmemi_ept_rules_withheld(const struct vmemi_ept_rules *rules, uint64_t common);

/* The memory type of a leaf. */
enum vmem_ept_type vmemi_ept_rules_type(const struct vmemi_ept_rules *rules, uint64_t entry);

/* Of an address that is in a leaf of a large page, or of a table: the bits below its size. */
static inline uint64_t vmemi_ept_below(uint32_t level)
{
	return VMEM_EPT_LEVEL_BYTES(level) - 1;
}

enum vmem_ept_misconfig vmemi_ept_intel_pointer(struct vmemi_ept_rules *rules, uint64_t pointer);
enum vmem_ept_misconfig vmemi_ept_intel_misconfig(const struct vmemi_ept_rules *rules,
						  uint32_t level, uint64_t entry);
uint32_t vmemi_ept_intel_rights(const struct vmemi_ept_rules *rules, uint64_t entry);

/* A leaf lets a supervisor use a shadow stack in it; @above: the AND of what the entries above it allow. */
int vmemi_ept_intel_shadow_stack_page(uint64_t leaf, uint32_t above);
/* Whether an SPPTP can be loaded: VMEM_EPT_WELL, or what is wrong with it. */
enum vmem_ept_misconfig vmemi_ept_subpage_pointer(const struct vmemi_ept_rules *rules,
						  uint64_t pointer);
/* May @gpa be written, by the sub-page permission table? WALK_OK, WALK_VIOLATION, WALK_NO_TABLE, WALK_SUBPAGE_TABLE,
 * or an SPP-related event with its qualification and reason. */
enum vmem_ept_outcome vmemi_ept_subpage_walk(const struct vmemi_ept_rules *rules,
					     const struct vmem_ept_view *view, uint64_t pointer,
					     uint64_t gpa, struct vmem_ept_walked *walked);

enum vmem_ept_misconfig vmemi_ept_amd_pointer(struct vmemi_ept_rules *rules, uint64_t pointer);
enum vmem_ept_misconfig vmemi_ept_amd_misconfig(const struct vmemi_ept_rules *rules, uint32_t level,
						uint64_t entry);
uint32_t vmemi_ept_amd_rights(const struct vmemi_ept_rules *rules, uint64_t entry);
enum vmem_ept_type vmemi_ept_amd_type(uint64_t entry);

enum vmem_ept_misconfig vmemi_ept_vtd_pointer(struct vmemi_ept_rules *rules, uint64_t pointer);
enum vmem_ept_misconfig vmemi_ept_vtd_misconfig(const struct vmemi_ept_rules *rules, uint32_t level,
						uint64_t entry);
uint32_t vmemi_ept_vtd_rights(uint64_t entry);

#endif
