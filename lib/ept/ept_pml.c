/* SPDX-License-Identifier: BSD-2-Clause */
/* The buffer of page-modification logging: 512 guest physical addresses, which the processor writes from the last
 * one down (SDM vol. 3C, 29.3.6). The processor may be a hypervisor below us, and the buffer guest-made: each address
 * is checked. No state. */
#include <vmem/ept_track.h>

uint32_t vmem_ept_pml_drain(const uint64_t *buffer, uint16_t index, uint64_t gpa, uint64_t bytes,
			    uint64_t *bitmap, uint32_t *ret_outside)
{
	uint64_t first = gpa >> VMEM_PAGE_SHIFT, pages = bytes >> VMEM_PAGE_SHIFT;
	uint32_t from = index < VMEM_EPT_PML_ENTRIES ? index + 1u : 0, outside = 0;

	for (uint32_t i = from; i < VMEM_EPT_PML_ENTRIES; i++) {
		uint64_t page = (buffer[i] >> VMEM_PAGE_SHIFT) - first; /* below first: huge */

		if (page < pages)
			bitmap[page / 64] |= UINT64_C(1) << page % 64;
		else
			outside++;
	}
	if (ret_outside)
		*ret_outside = outside;
	return VMEM_EPT_PML_ENTRIES - from;
}
