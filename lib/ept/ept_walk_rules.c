/* SPDX-License-Identifier: BSD-2-Clause */
/* The walker's view of a format, chosen by the capabilities. Pure functions. */
#include "ept/ept_walk_rules.h"
#include "base/opts.h"

/* What the processor must have for each control. */
static const struct {
	uint32_t context, format;
	uint64_t caps;
} controls[] = {
	{ VMEM_EPT_WALK_MBEC, VMEM_EPT_INTEL, VMEM_EPT_CAP_MBEC },
	{ VMEM_EPT_WALK_VE, VMEM_EPT_INTEL, VMEM_EPT_CAP_SUPPRESS_VE },
	{ VMEM_EPT_WALK_SUBPAGE, VMEM_EPT_INTEL, VMEM_EPT_CAP_SUBPAGE },
	{ VMEM_EPT_WALK_PAGING_WRITE, VMEM_EPT_INTEL, VMEM_EPT_CAP_PAGING_WRITE },
	{ VMEM_EPT_WALK_VERIFY, VMEM_EPT_INTEL, VMEM_EPT_CAP_VERIFY },
	{ VMEM_EPT_WALK_5_LEVELS, VMEM_EPT_AMD, VMEM_EPT_CAP_5_LEVELS },
	{ VMEM_EPT_WALK_GMET, VMEM_EPT_AMD, VMEM_EPT_CAP_GMET | VMEM_EPT_CAP_NO_EXEC },
};

int vmemi_ept_rules_take(struct vmemi_ept_rules *rules,
			 const struct vmem_ept_capabilities *capabilities, uint32_t context)
{
	struct vmem_ept_capabilities *p = &rules->processor;
	uint32_t left = context;
	int err;

	err = vmemi_callbacks_take(
		p, sizeof(*p), VMEMI_BYTES_TO(struct vmem_ept_capabilities, caps), capabilities);
	if (err)
		return err;
	if (p->format >= VMEM_EPT_FORMATS || p->physical_bits < 32 || p->physical_bits > 52)
		return -VMEM_EINVAL;
	for (size_t i = 0; i < sizeof(controls) / sizeof(*controls); i++)
		if (p->format == controls[i].format && !(controls[i].caps & ~p->caps))
			left &= ~controls[i].context;
	if (left)
		return -VMEM_EINVAL;
	rules->context = context;
	rules->guarded = 0;
	rules->too_wide = VMEM_EPT_ADDRESS & ~((UINT64_C(1) << p->physical_bits) - 1);
	return 0;
}

enum vmem_ept_misconfig vmemi_ept_rules_pointer(struct vmemi_ept_rules *rules, uint64_t pointer)
{
	switch (rules->processor.format) {
	case VMEM_EPT_AMD: return vmemi_ept_amd_pointer(rules, pointer);
	case VMEM_EPT_VTD: return vmemi_ept_vtd_pointer(rules, pointer);
	default: return vmemi_ept_intel_pointer(rules, pointer);
	}
}

static int present(const struct vmemi_ept_rules *rules, uint64_t entry)
{
	if (rules->processor.format == VMEM_EPT_AMD)
		return (entry & VMEM_EPT_AMD_PRESENT) != 0;
	return vmemi_ept_rules_rights(rules, entry) != 0;
}

static enum vmem_ept_misconfig misconfig(const struct vmemi_ept_rules *rules, uint32_t level,
					 uint64_t entry)
{
	switch (rules->processor.format) {
	case VMEM_EPT_AMD: return vmemi_ept_amd_misconfig(rules, level, entry);
	case VMEM_EPT_VTD: return vmemi_ept_vtd_misconfig(rules, level, entry);
	default: return vmemi_ept_intel_misconfig(rules, level, entry);
	}
}

enum vmemi_ept_entry vmemi_ept_rules_entry(const struct vmemi_ept_rules *rules, uint32_t level,
					   uint64_t entry, enum vmem_ept_misconfig *why)
{
	const uint64_t large = VMEM_EPT_INTEL_LARGE; /* bit 7 in all formats */

	*why = VMEM_EPT_WELL;
	if (!present(rules, entry))
		return VMEMI_EPT_ABSENT;
	*why = misconfig(rules, level, entry);
	if (*why != VMEM_EPT_WELL)
		return VMEMI_EPT_BAD;
	return level == 1 || (entry & large) ? VMEMI_EPT_LEAF : VMEMI_EPT_TABLE;
}

uint32_t vmemi_ept_rules_rights(const struct vmemi_ept_rules *rules, uint64_t entry)
{
	switch (rules->processor.format) {
	case VMEM_EPT_AMD: return vmemi_ept_amd_rights(rules, entry);
	case VMEM_EPT_VTD: return vmemi_ept_vtd_rights(entry);
	default: return vmemi_ept_intel_rights(rules, entry);
	}
}

uint32_t vmemi_ept_rules_withheld(const struct vmemi_ept_rules *rules, uint64_t common)
{
	return (rules->context & VMEM_EPT_WALK_GMET) && (common & VMEM_EPT_AMD_USER) ? VMEM_EPT_EXEC
										     : 0;
}

enum vmem_ept_type vmemi_ept_rules_type(const struct vmemi_ept_rules *rules, uint64_t entry)
{
	switch (rules->processor.format) {
	case VMEM_EPT_AMD: return vmemi_ept_amd_type(entry);
	case VMEM_EPT_VTD: return VMEM_EPT_WB;
	default: return (enum vmem_ept_type)(entry >> VMEM_EPT_INTEL_TYPE_SHIFT & 7);
	}
}
