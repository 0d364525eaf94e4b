/* SPDX-License-Identifier: BSD-2-Clause */
/* Intel EPT as processors read it (SDM vol. 3C, 29.3.2 formats, 29.3.3.1 misconfigurations, 25.6.11 EPTP). Pure
 * functions. Ignored whatever they are: bits 11 and 62:52, bit 7 of a page-table entry, bit 9 of entries that
 * refer to a table, bits 8, 9, 10, 57, 58, 60, 61 and 63 where nothing that is on gives them a meaning. */
#include "ept/ept_walk_rules.h"

#define POINTER_LEVELS (UINT64_C(7) << VMEM_EPT_INTEL_POINTER_LEVELS_SHIFT)
#define POINTER_TYPE UINT64_C(7)
#define POINTER_RESERVED UINT64_C(0xf00)
#define TABLE_RESERVED UINT64_C(0x78) /* bits 6:3 */

enum vmem_ept_misconfig vmemi_ept_intel_pointer(struct vmemi_ept_rules *rules, uint64_t pointer)
{
	const uint64_t caps = rules->processor.caps;
	const uint64_t type = pointer & POINTER_TYPE;
	const uint64_t levels =
		((pointer & POINTER_LEVELS) >> VMEM_EPT_INTEL_POINTER_LEVELS_SHIFT) + 1;

	if (!(type == VMEM_EPT_UC && (caps & VMEM_EPT_CAP_TABLES_UC)) &&
	    !(type == VMEM_EPT_WB && (caps & VMEM_EPT_CAP_TABLES_WB)))
		return VMEM_EPT_POINTER_TYPE;
	if (!(levels == 4 && (caps & VMEM_EPT_CAP_4_LEVELS)) &&
	    !(levels == 5 && (caps & VMEM_EPT_CAP_5_LEVELS)))
		return VMEM_EPT_POINTER_LEVELS;
	if ((pointer & VMEM_EPT_INTEL_POINTER_AD) && !(caps & VMEM_EPT_CAP_AD))
		return VMEM_EPT_POINTER_AD;
	if ((pointer & VMEM_EPT_INTEL_POINTER_SHADOW_STACK) && !(caps & VMEM_EPT_CAP_SHADOW_STACK))
		return VMEM_EPT_POINTER_RESERVED;
	if ((pointer & POINTER_RESERVED) || (pointer & rules->too_wide) || pointer >> 52)
		return VMEM_EPT_POINTER_RESERVED;
	rules->levels = (uint32_t)levels;
	rules->ad = !!(pointer & VMEM_EPT_INTEL_POINTER_AD);
	rules->guarded = !!(pointer & VMEM_EPT_INTEL_POINTER_SHADOW_STACK);
	rules->accessed = VMEM_EPT_INTEL_ACCESSED;
	rules->dirty = VMEM_EPT_INTEL_DIRTY;
	rules->root = pointer & VMEM_EPT_ADDRESS;
	return VMEM_EPT_WELL;
}

uint32_t vmemi_ept_intel_rights(const struct vmemi_ept_rules *rules, uint64_t entry)
{
	uint32_t rights = 0;

	if (entry & VMEM_EPT_INTEL_READ)
		rights |= VMEM_EPT_READ;
	if (entry & VMEM_EPT_INTEL_WRITE)
		rights |= VMEM_EPT_WRITE;
	if (entry & VMEM_EPT_INTEL_EXEC)
		rights |= VMEM_EPT_EXEC;
	if ((rules->context & VMEM_EPT_WALK_MBEC) && (entry & VMEM_EPT_INTEL_EXEC_USER))
		rights |= VMEM_EPT_EXEC_USER;
	return rights;
}

static enum vmem_ept_misconfig unreadable(const struct vmemi_ept_rules *rules, uint32_t rights)
{
	const int runs = (rights & (VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER)) != 0;

	if (rights & VMEM_EPT_WRITE)
		return runs ? VMEM_EPT_WRITE_EXEC : VMEM_EPT_WRITE_ONLY;
	if (runs && !(rules->processor.caps & VMEM_EPT_CAP_EXEC_ONLY))
		return VMEM_EPT_EXEC_ONLY;
	return VMEM_EPT_WELL;
}

static enum vmem_ept_misconfig bad_leaf(uint32_t level, uint64_t entry)
{
	const uint64_t type = entry >> VMEM_EPT_INTEL_TYPE_SHIFT & 7;

	if (entry & VMEM_EPT_ADDRESS & vmemi_ept_below(level))
		return VMEM_EPT_RESERVED_BITS;
	return type == 2 || type == 3 || type == 7 ? VMEM_EPT_RESERVED_TYPE : VMEM_EPT_WELL;
}

enum vmem_ept_misconfig vmemi_ept_intel_misconfig(const struct vmemi_ept_rules *rules,
						  uint32_t level, uint64_t entry)
{
	const uint32_t rights = vmemi_ept_intel_rights(rules, entry);
	const int large = level > 1 && (entry & VMEM_EPT_INTEL_LARGE);

	if (!(rights & VMEM_EPT_READ)) {
		enum vmem_ept_misconfig why = unreadable(rules, rights);

		if (why != VMEM_EPT_WELL)
			return why;
	}
	if (large && level > 3)
		return VMEM_EPT_RESERVED_BITS;
	if (large && !(rules->processor.caps & (level == 2 ? VMEM_EPT_CAP_2M : VMEM_EPT_CAP_1G)))
		return VMEM_EPT_LARGE_UNSUPPORTED;
	if (entry & rules->too_wide)
		return VMEM_EPT_ADDRESS_WIDTH;
	if (level == 1 || large)
		return bad_leaf(level, entry);
	return entry & TABLE_RESERVED ? VMEM_EPT_RESERVED_BITS : VMEM_EPT_WELL;
}

int vmemi_ept_intel_shadow_stack_page(uint64_t leaf, uint32_t above)
{
	const uint32_t all = VMEM_EPT_READ | VMEM_EPT_WRITE;

	return (above & all) == all && (leaf & VMEM_EPT_INTEL_READ) &&
	       (leaf & VMEM_EPT_INTEL_SHADOW_STACK);
}
