/* SPDX-License-Identifier: BSD-2-Clause */
/* VT-d second stage as a DMA remapping unit reads it (VT-d specification, 3.7 and 9.8). Pure functions. Ignored: bits
 * 6:2, 10, 61:52 and 63, bit 7 of a page-table entry, and bits 8 and 9 with accessed and dirty off. Bit 62 was
 * "transient mapping" once and is reserved without it. */
#include "ept/ept_walk_rules.h"

#define TRANSIENT (UINT64_C(1) << 62)
#define POINTER_LEVELS UINT64_C(7)
#define POINTER_RESERVED UINT64_C(0xdf8) /* bits 11:3 but for 9 */

enum vmem_ept_misconfig vmemi_ept_vtd_pointer(struct vmemi_ept_rules *rules, uint64_t pointer)
{
	static const uint64_t wanted[] = { VMEM_EPT_CAP_3_LEVELS, VMEM_EPT_CAP_4_LEVELS,
					   VMEM_EPT_CAP_5_LEVELS };
	const uint64_t levels = (pointer & POINTER_LEVELS) + 2;

	if (levels < 3 || levels > 5 || !(rules->processor.caps & wanted[levels - 3]))
		return VMEM_EPT_POINTER_LEVELS;
	if ((pointer & VMEM_EPT_VTD_POINTER_AD) && !(rules->processor.caps & VMEM_EPT_CAP_AD))
		return VMEM_EPT_POINTER_AD;
	if ((pointer & POINTER_RESERVED) || (pointer & rules->too_wide) || pointer >> 52)
		return VMEM_EPT_POINTER_RESERVED;
	rules->levels = (uint32_t)levels;
	rules->ad = !!(pointer & VMEM_EPT_VTD_POINTER_AD);
	rules->accessed = VMEM_EPT_VTD_ACCESSED;
	rules->dirty = VMEM_EPT_VTD_DIRTY;
	rules->root = pointer & VMEM_EPT_ADDRESS;
	return VMEM_EPT_WELL;
}

uint32_t vmemi_ept_vtd_rights(uint64_t entry)
{
	uint32_t rights = 0;

	if (entry & VMEM_EPT_VTD_READ)
		rights |= VMEM_EPT_READ;
	if (entry & VMEM_EPT_VTD_WRITE)
		rights |= VMEM_EPT_WRITE;
	return rights;
}

enum vmem_ept_misconfig vmemi_ept_vtd_misconfig(const struct vmemi_ept_rules *rules, uint32_t level,
						uint64_t entry)
{
	const uint64_t caps = rules->processor.caps;
	const int large = level > 1 && (entry & VMEM_EPT_VTD_LARGE);
	const int leaf = level == 1 || large;

	if (large && level > 3)
		return VMEM_EPT_RESERVED_BITS;
	if (large && !(caps & (level == 2 ? VMEM_EPT_CAP_2M : VMEM_EPT_CAP_1G)))
		return VMEM_EPT_LARGE_UNSUPPORTED;
	if ((entry & VMEM_EPT_VTD_SNOOP) && !(leaf && (caps & VMEM_EPT_CAP_SNOOP)))
		return VMEM_EPT_RESERVED_BITS;
	if (entry & TRANSIENT)
		return VMEM_EPT_RESERVED_BITS;
	if (entry & rules->too_wide)
		return VMEM_EPT_ADDRESS_WIDTH;
	if (large && (entry & VMEM_EPT_ADDRESS & vmemi_ept_below(level)))
		return VMEM_EPT_RESERVED_BITS;
	return VMEM_EPT_WELL;
}
