/* SPDX-License-Identifier: BSD-2-Clause */
/* Entries as a processor reads them, for the pretend processor and for what is known of upper entries. */
#include "ept/ept_model.h"

int vmemt_ept_present(const struct vmemt_ept_world *w, uint64_t entry)
{
	if (w->caps.format == VMEM_EPT_AMD)
		return (entry & VMEM_EPT_AMD_PRESENT) != 0;
	if (w->caps.format == VMEM_EPT_VTD)
		return (entry & (VMEM_EPT_VTD_READ | VMEM_EPT_VTD_WRITE)) != 0;
	return (entry & (VMEM_EPT_INTEL_READ | VMEM_EPT_INTEL_WRITE | VMEM_EPT_INTEL_EXEC |
			 (w->caps.caps & VMEM_EPT_CAP_MBEC ? VMEM_EPT_INTEL_EXEC_USER : 0))) != 0;
}

int vmemt_ept_is_table(const struct vmemt_ept_world *w, uint64_t entry, uint32_t level)
{
	const uint64_t large = VMEM_EPT_INTEL_LARGE; /* of all formats */

	return level > 1 && vmemt_ept_present(w, entry) && (level > 3 || !(entry & large));
}

uint32_t vmemt_ept_rights(const struct vmemt_ept_world *w, uint64_t entry)
{
	uint32_t rights = (uint32_t)(entry & 7);

	if (w->caps.format == VMEM_EPT_AMD) {
		rights = VMEM_EPT_READ | (uint32_t)(entry & VMEM_EPT_AMD_WRITE);
		return rights | (entry & VMEM_EPT_AMD_NO_EXEC ? 0 : VMEM_EPT_EXEC);
	}
	if (w->caps.format == VMEM_EPT_VTD)
		return rights & 3;
	if (w->caps.caps & VMEM_EPT_CAP_MBEC && entry & VMEM_EPT_INTEL_EXEC_USER)
		rights |= VMEM_EPT_EXEC_USER;
	return rights;
}

uint64_t vmemt_ept_address(uint64_t entry, uint32_t level)
{
	return entry & VMEM_EPT_ADDRESS & ~(VMEM_EPT_LEVEL_BYTES(level) - 1);
}

uint64_t *vmemt_ept_entry(const struct vmemt_ept_world *w, uint64_t table, uint64_t gpa,
			  uint32_t level)
{
	return vmemt_ept_table(&w->memory, table) + (gpa >> (12 + 9 * (level - 1)) & 511);
}

uint64_t *vmemt_ept_slot(const struct vmemt_ept_world *w, uint64_t gpa, uint32_t level)
{
	uint64_t *slot, table = vmem_ept_pointer(w->ept) & VMEM_EPT_ADDRESS;

	for (uint32_t l = w->opts.levels;; l--) {
		slot = vmemt_ept_entry(w, table, gpa, l);
		if (l == level)
			return slot;
		if (!vmemt_ept_is_table(w, *slot, l))
			return NULL;
		table = vmemt_ept_address(*slot, 1);
	}
}

/* Bits of an entry; none if they are off. */
uint64_t vmemt_ept_bits(const struct vmemt_ept_world *w, uint32_t leaf_flags)
{
	int amd = w->caps.format == VMEM_EPT_AMD;
	uint64_t bits = 0;

	if (!(w->opts.flags & VMEM_EPT_AD))
		return 0;
	if (leaf_flags & VMEM_EPT_LEAF_ACCESSED)
		bits |= amd ? VMEM_EPT_AMD_ACCESSED : VMEM_EPT_INTEL_ACCESSED;
	if (leaf_flags & VMEM_EPT_LEAF_DIRTY)
		bits |= amd ? VMEM_EPT_AMD_DIRTY : VMEM_EPT_INTEL_DIRTY;
	return bits;
}
