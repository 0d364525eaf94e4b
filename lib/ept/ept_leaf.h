/* SPDX-License-Identifier: BSD-2-Clause */
/* What a leaf says, as the bits of its entry in each format, and back. Pure functions. */
#ifndef VMEMI_EPT_LEAF_H
#define VMEMI_EPT_LEAF_H
#include "ept/ept_internal.h"

/* Everything about the leaf but its address is possible here; if not, vmemi_ept_leaf_check() says why. */
static inline bool vmemi_ept_leaf_fits(const vmem_ept *ept, const struct vmem_ept_leaf *leaf)
{
	return leaf->rights < 16 && (ept->rights_able >> leaf->rights & 1) && leaf->rights &&
	       leaf->type < 8 && (ept->types_able >> leaf->type & 1) &&
	       !(leaf->flags & ~ept->leaf_flags_able);
}

static inline uint64_t vmemi_ept_amd_type(uint32_t type)
{
	return type == VMEM_EPT_UC   ? VMEM_EPT_AMD_PCD | VMEM_EPT_AMD_PWT
	       : type == VMEM_EPT_WT ? VMEM_EPT_AMD_PWT
				     : 0;
}

/* The entry for a leaf that fits, without its address. */
static inline uint64_t vmemi_ept_leaf_bits(const vmem_ept *ept, const struct vmem_ept_leaf *leaf,
					   uint32_t level)
{
	uint64_t rights = leaf->rights, flags = leaf->flags;
	uint64_t bits = VMEMI_EPT_LEAF | (level > 1 ? VMEMI_EPT_LARGE_BIT : 0);

	if (ept->format == VMEM_EPT_AMD) {
		bits |= VMEM_EPT_AMD_PRESENT | (rights & VMEM_EPT_WRITE) | VMEM_EPT_AMD_USER;
		if (!(rights & VMEM_EPT_EXEC))
			bits |= VMEM_EPT_AMD_NO_EXEC;
		return bits | vmemi_ept_amd_type(leaf->type) |
		       (flags & (VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY)) << 4;
	}
	bits |= (rights & 7) | (rights & VMEM_EPT_EXEC_USER) << 7;
	bits |= (flags & (VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY)) << 7;
	if (ept->format == VMEM_EPT_VTD)
		return bits | (flags & VMEM_EPT_LEAF_SNOOP) << 3;
	bits |= (uint64_t)leaf->type << VMEM_EPT_INTEL_TYPE_SHIFT;
	bits |= (flags & VMEM_EPT_LEAF_IGNORE_PAT) << 6;
	bits |= (flags & (VMEM_EPT_LEAF_VERIFY | VMEM_EPT_LEAF_PAGING_WRITE)) << 53;
	bits |= (flags & (VMEM_EPT_LEAF_SHADOW_STACK | VMEM_EPT_LEAF_SUBPAGE)) << 54;
	return flags & VMEM_EPT_LEAF_VE ? bits : bits | ept->absent;
}

static inline uint32_t vmemi_ept_rights_of(const vmem_ept *ept, uint64_t entry)
{
	if (ept->format == VMEM_EPT_INTEL)
		return (uint32_t)((entry & 7) |
				  (entry & ept->present & VMEM_EPT_INTEL_EXEC_USER) >> 7);
	if (ept->format == VMEM_EPT_VTD)
		return entry & 3;
	return entry & VMEM_EPT_AMD_PRESENT
		       ? (uint32_t)((entry & 3) | (~entry & VMEM_EPT_AMD_NO_EXEC) >> 61)
		       : 0;
}

static inline uint32_t vmemi_ept_type_of(const vmem_ept *ept, uint64_t entry)
{
	if (ept->format == VMEM_EPT_INTEL)
		return entry >> VMEM_EPT_INTEL_TYPE_SHIFT & 7;
	if (ept->format == VMEM_EPT_VTD)
		return VMEM_EPT_WB;
	return entry & VMEM_EPT_AMD_PCD   ? VMEM_EPT_UC
	       : entry & VMEM_EPT_AMD_PWT ? VMEM_EPT_WT
					  : VMEM_EPT_WB;
}

static inline uint32_t vmemi_ept_flags_of(const vmem_ept *ept, uint64_t entry)
{
	const uint32_t ad = VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY;
	uint32_t flags;

	if (ept->format == VMEM_EPT_AMD)
		return (uint32_t)(entry >> 4) & ad;
	flags = ept->accessed ? (uint32_t)(entry >> 7) & ad : 0;
	if (ept->format == VMEM_EPT_VTD)
		return flags | ((uint32_t)(entry >> 3) & VMEM_EPT_LEAF_SNOOP);
	flags |= (uint32_t)(entry >> 6) & VMEM_EPT_LEAF_IGNORE_PAT;
	flags |= (uint32_t)(entry >> 53) & (VMEM_EPT_LEAF_VERIFY | VMEM_EPT_LEAF_PAGING_WRITE);
	flags |= (uint32_t)(entry >> 54) & (VMEM_EPT_LEAF_SHADOW_STACK | VMEM_EPT_LEAF_SUBPAGE);
	return ~entry & ept->absent ? flags | VMEM_EPT_LEAF_VE : flags;
}

/* What an entry says of the place @inside it. */
static inline void vmemi_ept_leaf_read(const vmem_ept *ept, uint64_t entry, uint32_t level,
				       uint64_t inside, struct vmem_ept_leaf *ret_leaf)
{
	ret_leaf->hpa = (entry & VMEM_EPT_ADDRESS) + inside;
	ret_leaf->level = level;
	ret_leaf->rights = vmemi_ept_rights_of(ept, entry);
	ret_leaf->type = vmemi_ept_type_of(ept, entry);
	ret_leaf->flags = vmemi_ept_flags_of(ept, entry);
}

/* The largest leaves with these properties. */
static inline uint32_t vmemi_ept_largest(const vmem_ept *ept, const struct vmem_ept_leaf *leaf)
{
	uint32_t largest = leaf->level && leaf->level < ept->largest ? leaf->level : ept->largest;

	if ((leaf->flags & VMEM_EPT_LEAF_SUBPAGE) ||
	    ((ept->flags & VMEM_EPT_NO_EXEC_LARGE) &&
	     (leaf->rights & (VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER))))
		largest = 1;
	return largest;
}

/* ept_leaf.c: why a leaf does not fit. 0, or an error with its reason. */
int vmemi_ept_leaf_check(const vmem_ept *ept, const struct vmem_ept_leaf *leaf, uint32_t *reason);
/* Rights, of which there may be none. */
int vmemi_ept_rights_check(const vmem_ept *ept, uint32_t rights, uint32_t *reason);
int vmemi_ept_type_check(const vmem_ept *ept, uint32_t type, uint32_t *reason);
/* What is possible here, into the object. */
void vmemi_ept_leaf_init(vmem_ept *ept);
/* What takes and gives rights: new = (old & *and) | *or. */
void vmemi_ept_rights_masks(const vmem_ept *ept, uint32_t clear, uint32_t set, uint64_t *and,
			    uint64_t * or);

#endif
