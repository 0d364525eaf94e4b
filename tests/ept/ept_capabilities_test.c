/* SPDX-License-Identifier: BSD-2-Clause */
/* What a processor can do, from its registers. */
#include <criterion/criterion.h>
#include <vmem/ept_format.h>

#define MAKE(...)                                                                      \
	((struct vmem_ept_capabilities){ .size = sizeof(struct vmem_ept_capabilities), \
					 __VA_ARGS__ })

struct pair {
	uint64_t bit;
	uint64_t cap;
};

Test(ept_capabilities, each_bit_of_intel)
{
	static const struct pair ept[] = {
		{ 0, VMEM_EPT_CAP_EXEC_ONLY },
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
	const uint64_t always = VMEM_EPT_CAP_NO_EXEC | VMEM_EPT_CAP_4_LEVELS;

	for (uint64_t bit = 0; bit < 64; bit++) {
		struct vmem_ept_capabilities c = MAKE(.caps = 0);
		uint64_t cap = 0;

		for (size_t i = 0; i < sizeof(ept) / sizeof(*ept); i++)
			if (ept[i].bit == bit)
				cap = ept[i].cap;
		cr_assert_eq(
			vmem_ept_capabilities_intel(&c, 1u << 6 | UINT64_C(1) << bit, 0, 0, 46), 0);
		cr_assert_eq(c.caps, always | cap, "bit %lu", (unsigned long)bit);
		cr_assert_eq(c.format, VMEM_EPT_INTEL);
		cr_assert_eq(c.physical_bits, 46);
	}
}

Test(ept_capabilities, each_control_of_intel)
{
	static const struct pair second[] = {
		{ 17, VMEM_EPT_CAP_PML },
		{ 18, VMEM_EPT_CAP_SUPPRESS_VE },
		{ 22, VMEM_EPT_CAP_MBEC },
		{ 23, VMEM_EPT_CAP_SUBPAGE },
	};
	static const struct pair third[] = {
		{ 2, VMEM_EPT_CAP_PAGING_WRITE },
		{ 3, VMEM_EPT_CAP_VERIFY },
	};
	const uint64_t always = VMEM_EPT_CAP_NO_EXEC | VMEM_EPT_CAP_4_LEVELS;

	for (uint32_t bit = 0; bit < 32; bit++) {
		struct vmem_ept_capabilities c = MAKE(.caps = 0);
		uint64_t cap2 = 0, cap3 = 0;

		for (size_t i = 0; i < sizeof(second) / sizeof(*second); i++)
			cap2 |= second[i].bit == bit ? second[i].cap : 0;
		for (size_t i = 0; i < sizeof(third) / sizeof(*third); i++)
			cap3 |= third[i].bit == bit ? third[i].cap : 0;
		cr_assert_eq(vmem_ept_capabilities_intel(&c, 1u << 6, UINT32_C(1) << bit, 0, 46),
			     0);
		cr_assert_eq(c.caps, always | cap2, "bit %u", bit);
		cr_assert_eq(vmem_ept_capabilities_intel(&c, 1u << 6, 0, UINT64_C(1) << bit, 46),
			     0);
		cr_assert_eq(c.caps, always | cap3, "bit %u", bit);
	}
}

Test(ept_capabilities, amd)
{
	const uint64_t others = VMEM_EPT_CAP_2M | VMEM_EPT_CAP_AD;
	const uint64_t always = others | VMEM_EPT_CAP_4_LEVELS;
	struct vmem_ept_capabilities c = MAKE(.caps = 0);

	cr_assert_eq(vmem_ept_capabilities_amd(&c, 0, 1, 0, 0, 48), 0);
	cr_assert_eq(c.caps, always);
	cr_assert_eq(c.format, VMEM_EPT_AMD);
	cr_assert_eq(vmem_ept_capabilities_amd(&c, 1u << 26, 1, 0, 0, 48), 0);
	cr_assert_eq(c.caps, always | VMEM_EPT_CAP_1G);
	cr_assert_eq(vmem_ept_capabilities_amd(&c, 0, 1, 0, 1u << 12, 48), 0);
	cr_assert_eq(c.caps, others | VMEM_EPT_CAP_5_LEVELS, "LA57");
	cr_assert_eq(vmem_ept_capabilities_amd(&c, 0, 1, 0, ~(UINT64_C(1) << 12), 48), 0);
	cr_assert_eq(c.caps, always, "any other bit of CR4");
	cr_assert_eq(vmem_ept_capabilities_amd(&c, 1u << 20, 1, 0, 0, 48), 0);
	cr_assert_eq(c.caps, always, "able, but EFER.NXE is clear");
	cr_assert_eq(vmem_ept_capabilities_amd(&c, 0, 1, 1u << 11, 0, 48), 0);
	cr_assert_eq(c.caps, always);
	cr_assert_eq(vmem_ept_capabilities_amd(&c, 1u << 20, 1, 1u << 11, 0, 48), 0);
	cr_assert_eq(c.caps, always | VMEM_EPT_CAP_NO_EXEC);
	for (uint32_t bit = 1; bit < 32; bit++) {
		cr_assert_eq(vmem_ept_capabilities_amd(&c, 0, 1u | 1u << bit, 0, 0, 48), 0);
		cr_assert_eq(c.caps, always | (bit == 17 ? VMEM_EPT_CAP_GMET : 0), "bit %u", bit);
	}
	cr_assert_eq(vmem_ept_capabilities_amd(&c, ~0u, ~1u, ~UINT64_C(0), ~UINT64_C(0), 48),
		     -VMEM_ENOTSUP);
}

Test(ept_capabilities, vtd)
{
	static const struct pair cap[] = {
		{ 9, VMEM_EPT_CAP_3_LEVELS },  { 10, VMEM_EPT_CAP_4_LEVELS },
		{ 11, VMEM_EPT_CAP_5_LEVELS }, { 34, VMEM_EPT_CAP_2M },
		{ 35, VMEM_EPT_CAP_1G },
	};
	struct vmem_ept_capabilities c = MAKE(.caps = 0);

	for (size_t i = 0; i < sizeof(cap) / sizeof(*cap); i++) {
		cr_assert_eq(
			vmem_ept_capabilities_vtd(&c, 1u << 10 | UINT64_C(1) << cap[i].bit, 0, 39),
			0);
		cr_assert_eq(c.caps, VMEM_EPT_CAP_4_LEVELS | cap[i].cap);
	}
	cr_assert_eq(vmem_ept_capabilities_vtd(&c, 1u << 10, 1u << 7 | UINT64_C(1) << 45, 39), 0);
	cr_assert_eq(c.caps, VMEM_EPT_CAP_4_LEVELS | VMEM_EPT_CAP_SNOOP | VMEM_EPT_CAP_AD);
	cr_assert_eq(c.format, VMEM_EPT_VTD);
}

Test(ept_capabilities, refused)
{
	struct vmem_ept_capabilities c = MAKE(.caps = 77);

	cr_assert_eq(vmem_ept_capabilities_intel(NULL, 1u << 6, 0, 0, 46), -VMEM_EINVAL);
	cr_assert_eq(vmem_ept_capabilities_intel(&c, 1u << 6, 0, 0, 31), -VMEM_EINVAL);
	cr_assert_eq(vmem_ept_capabilities_intel(&c, 1u << 6, 0, 0, 53), -VMEM_EINVAL);
	cr_assert_eq(vmem_ept_capabilities_intel(&c, ~(UINT64_C(3) << 6), 0, 0, 46), -VMEM_ENOTSUP);
	cr_assert_eq(vmem_ept_capabilities_vtd(&c, 0, 0, 46), -VMEM_ENOTSUP);
	c.size = 8;
	cr_assert_eq(vmem_ept_capabilities_intel(&c, 1u << 6, 0, 0, 46), -VMEM_EINVAL);
	cr_assert_eq(c.caps, 77, "untouched");
}
