/* SPDX-License-Identifier: BSD-2-Clause */
/* AMD nested paging as processors read it: ordinary long-mode paging, in which every access of the guest is one by a
 * user (APM vol. 2, 5.3 formats, 15.25.5 rights, 15.25.6 faults). With the guest mode execute trap U says nothing of
 * data, and is for code what it is with SMEP, but that code at CPL 3 may also run where it is clear. Pure functions.
 * Bits that are left to software: 11:9, 58:52, and 62:59, which are protection keys elsewhere. */
#include "ept/ept_walk_rules.h"

#define GLOBAL (UINT64_C(1) << 8) /* must be 0 at the levels from 3 on, unless it is a leaf */

enum vmem_ept_misconfig vmemi_ept_amd_pointer(struct vmemi_ept_rules *rules, uint64_t pointer)
{
	const int five = (rules->context & VMEM_EPT_WALK_5_LEVELS) != 0;

	if (!(rules->processor.caps & (five ? VMEM_EPT_CAP_5_LEVELS : VMEM_EPT_CAP_4_LEVELS)))
		return VMEM_EPT_POINTER_LEVELS;
	if ((pointer & rules->too_wide) || pointer >> 52)
		return VMEM_EPT_POINTER_RESERVED;
	rules->levels = five ? 5 : 4;
	rules->ad = 1;
	rules->accessed = VMEM_EPT_AMD_ACCESSED;
	rules->dirty = VMEM_EPT_AMD_DIRTY;
	rules->root = pointer & VMEM_EPT_ADDRESS;
	return VMEM_EPT_WELL;
}

uint32_t vmemi_ept_amd_rights(const struct vmemi_ept_rules *rules, uint64_t entry)
{
	const int gmet = (rules->context & VMEM_EPT_WALK_GMET) != 0;
	uint32_t rights = VMEM_EPT_READ;

	if (!gmet && !(entry & VMEM_EPT_AMD_USER))
		return 0;
	if (entry & VMEM_EPT_AMD_WRITE)
		rights |= VMEM_EPT_WRITE;
	if (!(entry & VMEM_EPT_AMD_NO_EXEC))
		rights |= gmet ? VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER : VMEM_EPT_EXEC;
	return rights;
}

/* The PAT after a reset is WB, WT, UC-, UC, and the same again: the PAT bit, 7 or 12, does not matter. */
enum vmem_ept_type vmemi_ept_amd_type(uint64_t entry)
{
	if (entry & VMEM_EPT_AMD_PCD)
		return VMEM_EPT_UC;
	return entry & VMEM_EPT_AMD_PWT ? VMEM_EPT_WT : VMEM_EPT_WB;
}

enum vmem_ept_misconfig vmemi_ept_amd_misconfig(const struct vmemi_ept_rules *rules, uint32_t level,
						uint64_t entry)
{
	const int large = level > 1 && (entry & VMEM_EPT_AMD_LARGE);

	if ((entry & VMEM_EPT_AMD_NO_EXEC) && !(rules->processor.caps & VMEM_EPT_CAP_NO_EXEC))
		return VMEM_EPT_RESERVED_BITS;
	if (large && level > 3)
		return VMEM_EPT_RESERVED_BITS;
	if (large && !(rules->processor.caps & (level == 2 ? VMEM_EPT_CAP_2M : VMEM_EPT_CAP_1G)))
		return VMEM_EPT_LARGE_UNSUPPORTED;
	if (level > 2 && !large && (entry & GLOBAL))
		return VMEM_EPT_RESERVED_BITS;
	if (entry & rules->too_wide)
		return VMEM_EPT_ADDRESS_WIDTH;
	if (large && (entry & VMEM_EPT_ADDRESS & vmemi_ept_below(level) & ~VMEM_EPT_AMD_LARGE_PAT))
		return VMEM_EPT_RESERVED_BITS;
	return VMEM_EPT_WELL;
}
