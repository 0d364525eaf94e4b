/* SPDX-License-Identifier: BSD-2-Clause */
/* What a processor can do, from its registers. Pure functions.
 * Intel: SDM vol. 3D A.10 (IA32_VMX_EPT_VPID_CAP), tables 25-7 and 25-8 (controls); AMD: APM vol. 3 E.4, 15.25;
 * VT-d: specification 11.4.2 and 11.4.3. */
#include "base/opts.h"
#include <vmem/ept_format.h>

#define LEAST VMEMI_BYTES_TO(struct vmem_ept_capabilities, caps)

struct bit_of {
	uint64_t bit;
	uint64_t cap;
};

static uint64_t caps_of(uint64_t value, const struct bit_of *bits, size_t count)
{
	uint64_t caps = 0;

	for (size_t i = 0; i < count; i++)
		if (value >> bits[i].bit & 1)
			caps |= bits[i].cap;
	return caps;
}
#define CAPS_OF(value, bits) caps_of(value, bits, sizeof(bits) / sizeof((bits)[0]))

static int begin(const struct vmem_ept_capabilities *c, uint32_t physical_bits)
{
	return !c || c->size < LEAST || physical_bits < 32 || physical_bits > 52 ? -VMEM_EINVAL : 0;
}

static int give(struct vmem_ept_capabilities *c, uint32_t format, uint32_t physical_bits,
		uint64_t caps)
{
	const struct vmem_ept_capabilities found = {
		.size = sizeof(found),
		.format = format,
		.physical_bits = physical_bits,
		.caps = caps,
	};

	if (!(caps & (VMEM_EPT_CAP_3_LEVELS | VMEM_EPT_CAP_4_LEVELS | VMEM_EPT_CAP_5_LEVELS)))
		return -VMEM_ENOTSUP;
	return vmemi_opts_give(c, &found, sizeof(found));
}

int vmem_ept_capabilities_intel(struct vmem_ept_capabilities *capabilities, uint64_t ept_vpid_cap,
				uint32_t procbased2, uint64_t procbased3, uint32_t physical_bits)
{
	static const struct bit_of ept[] = {
		{ 0, VMEM_EPT_CAP_EXEC_ONLY },
		{ 6, VMEM_EPT_CAP_4_LEVELS },
		{ 7, VMEM_EPT_CAP_5_LEVELS },
		{ 8, VMEM_EPT_CAP_TABLES_UC },
		{ 14, VMEM_EPT_CAP_TABLES_WB },
		{ 16, VMEM_EPT_CAP_2M },
		{ 17, VMEM_EPT_CAP_1G },
		{ 21, VMEM_EPT_CAP_AD },
		{ 23, VMEM_EPT_CAP_SHADOW_STACK },
		{ 25, VMEM_EPT_CAP_INVALIDATE_ONE },
		{ 26, VMEM_EPT_CAP_INVALIDATE_ALL },
	};
	static const struct bit_of second[] = {
		{ 17, VMEM_EPT_CAP_PML },
		{ 18, VMEM_EPT_CAP_SUPPRESS_VE },
		{ 22, VMEM_EPT_CAP_MBEC },
		{ 23, VMEM_EPT_CAP_SUBPAGE },
	};
	static const struct bit_of third[] = {
		{ 2, VMEM_EPT_CAP_PAGING_WRITE },
		{ 3, VMEM_EPT_CAP_VERIFY },
	};
	int err = begin(capabilities, physical_bits);

	return err ? err
		   : give(capabilities, VMEM_EPT_INTEL, physical_bits,
			  VMEM_EPT_CAP_NO_EXEC | CAPS_OF(ept_vpid_cap, ept) |
				  CAPS_OF(procbased2, second) | CAPS_OF(procbased3, third));
}

int vmem_ept_capabilities_amd(struct vmem_ept_capabilities *capabilities, uint32_t edx_1,
			      uint32_t edx_a, uint64_t efer, uint64_t cr4, uint32_t physical_bits)
{
	uint64_t caps = VMEM_EPT_CAP_2M | VMEM_EPT_CAP_AD;
	int err = begin(capabilities, physical_bits);

	if (err)
		return err;
	if (!(edx_a & 1))
		return -VMEM_ENOTSUP;
	if (edx_1 >> 26 & 1)
		caps |= VMEM_EPT_CAP_1G;
	if ((edx_1 >> 20 & 1) && (efer >> 11 & 1))
		caps |= VMEM_EPT_CAP_NO_EXEC;
	if (edx_a >> 17 & 1)
		caps |= VMEM_EPT_CAP_GMET;
	caps |= cr4 >> 12 & 1 ? VMEM_EPT_CAP_5_LEVELS : VMEM_EPT_CAP_4_LEVELS;
	return give(capabilities, VMEM_EPT_AMD, physical_bits, caps);
}

int vmem_ept_capabilities_vtd(struct vmem_ept_capabilities *capabilities, uint64_t cap,
			      uint64_t ecap, uint32_t physical_bits)
{
	static const struct bit_of levels[] = {
		{ 9, VMEM_EPT_CAP_3_LEVELS }, /* 12:8 is SAGAW: 39, 48 and 57 bits */
		{ 10, VMEM_EPT_CAP_4_LEVELS }, { 11, VMEM_EPT_CAP_5_LEVELS },
		{ 34, VMEM_EPT_CAP_2M }, /* 37:34 is SLLPS */
		{ 35, VMEM_EPT_CAP_1G },
	};
	static const struct bit_of extended[] = {
		{ 7, VMEM_EPT_CAP_SNOOP },
		{ 45, VMEM_EPT_CAP_AD },
	};
	int err = begin(capabilities, physical_bits);

	return err ? err
		   : give(capabilities, VMEM_EPT_VTD, physical_bits,
			  CAPS_OF(cap, levels) | CAPS_OF(ecap, extended));
}
