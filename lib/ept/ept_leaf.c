/* SPDX-License-Identifier: BSD-2-Clause */
/* Which leaves a processor can have. Pure functions. */
#include "ept/ept_leaf.h"

#define ALL_RIGHTS (VMEM_EPT_READ | VMEM_EPT_WRITE | VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER)
#define ALL_FLAGS ((VMEM_EPT_LEAF_SNOOP << 1) - 1)

static int refuse(int err, uint32_t why, uint32_t *reason)
{
	*reason = why;
	return err;
}

/* SDM 29.3.3.1; AMD has no pages that may be executed and not read; VT-d has no right to execute. */
int vmemi_ept_rights_check(const vmem_ept *ept, uint32_t rights, uint32_t *reason)
{
	const uint32_t exec = VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER;
	uint32_t able = VMEM_EPT_READ | VMEM_EPT_WRITE | VMEM_EPT_EXEC;

	if (rights & ~ALL_RIGHTS)
		return refuse(-VMEM_EINVAL, VMEM_EPT_BAD_RIGHTS, reason);
	if ((rights & VMEM_EPT_WRITE) && !(rights & VMEM_EPT_READ))
		return refuse(-VMEM_EINVAL, VMEM_EPT_BAD_RIGHTS, reason);
	if (ept->format == VMEM_EPT_VTD)
		able &= ~exec;
	if (ept->format == VMEM_EPT_INTEL && (ept->caps & VMEM_EPT_CAP_MBEC))
		able |= VMEM_EPT_EXEC_USER;
	if (rights & ~able)
		return refuse(-VMEM_ENOTSUP, VMEM_EPT_NO_RIGHTS, reason);
	if ((rights & exec) && !(rights & VMEM_EPT_READ) &&
	    (ept->format != VMEM_EPT_INTEL || !(ept->caps & VMEM_EPT_CAP_EXEC_ONLY)))
		return refuse(-VMEM_ENOTSUP, VMEM_EPT_NO_RIGHTS, reason);
	if (ept->format == VMEM_EPT_AMD && rights && !(rights & exec) &&
	    !(ept->caps & VMEM_EPT_CAP_NO_EXEC))
		return refuse(-VMEM_ENOTSUP, VMEM_EPT_NO_RIGHTS, reason);
	return 0;
}

int vmemi_ept_type_check(const vmem_ept *ept, uint32_t type, uint32_t *reason)
{
	if (type > VMEM_EPT_WB || type == 2 || type == 3)
		return refuse(-VMEM_EINVAL, VMEM_EPT_BAD_TYPE, reason);
	if (!(ept->types_able >> type & 1))
		return refuse(-VMEM_ENOTSUP, VMEM_EPT_BAD_TYPE, reason);
	return 0;
}

int vmemi_ept_leaf_check(const vmem_ept *ept, const struct vmem_ept_leaf *leaf, uint32_t *reason)
{
	int err;

	if (!leaf->rights)
		return refuse(-VMEM_EINVAL, VMEM_EPT_BAD_RIGHTS, reason);
	if ((err = vmemi_ept_rights_check(ept, leaf->rights, reason)) != 0 ||
	    (err = vmemi_ept_type_check(ept, leaf->type, reason)) != 0)
		return err;
	if (leaf->flags & ~ALL_FLAGS)
		return refuse(-VMEM_EINVAL, VMEM_EPT_BAD_CALL, reason);
	if (leaf->flags & ~ept->leaf_flags_able)
		return refuse(-VMEM_ENOTSUP, VMEM_EPT_NO_CAPABILITY, reason);
	return 0;
}

static uint32_t flags_able(const vmem_ept *ept)
{
	uint32_t able = 0;

	if (ept->accessed)
		able |= VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY;
	if (ept->format == VMEM_EPT_VTD && (ept->caps & VMEM_EPT_CAP_SNOOP))
		able |= VMEM_EPT_LEAF_SNOOP;
	if (ept->format != VMEM_EPT_INTEL)
		return able;
	able |= VMEM_EPT_LEAF_IGNORE_PAT;
	if (ept->absent)
		able |= VMEM_EPT_LEAF_VE;
	if (ept->caps & VMEM_EPT_CAP_VERIFY)
		able |= VMEM_EPT_LEAF_VERIFY;
	if (ept->caps & VMEM_EPT_CAP_PAGING_WRITE)
		able |= VMEM_EPT_LEAF_PAGING_WRITE;
	if (ept->flags & VMEM_EPT_SHADOW_STACK)
		able |= VMEM_EPT_LEAF_SHADOW_STACK;
	if (ept->caps & VMEM_EPT_CAP_SUBPAGE)
		able |= VMEM_EPT_LEAF_SUBPAGE;
	return able;
}

/* Bits of Intel's leaves besides address, rights, type, accessed and dirty. */
#define INTEL_RARE                                                                            \
	(VMEM_EPT_INTEL_IGNORE_PAT | VMEM_EPT_INTEL_EXEC_USER | VMEM_EPT_INTEL_VERIFY |       \
	 VMEM_EPT_INTEL_PAGING_WRITE | VMEM_EPT_INTEL_SHADOW_STACK | VMEM_EPT_INTEL_SUBPAGE | \
	 VMEM_EPT_INTEL_SUPPRESS_VE)

void vmemi_ept_leaf_init(vmem_ept *ept)
{
	uint32_t reason;

	ept->types_able = 1u << VMEM_EPT_WB;
	if (ept->format != VMEM_EPT_VTD)
		ept->types_able |= 1u << VMEM_EPT_UC | 1u << VMEM_EPT_WT;
	if (ept->format == VMEM_EPT_INTEL)
		ept->types_able |= 1u << VMEM_EPT_WC | 1u << VMEM_EPT_WP;
	for (uint32_t rights = 0; rights <= ALL_RIGHTS; rights++)
		if (!vmemi_ept_rights_check(ept, rights, &reason))
			ept->rights_able |= 1u << rights;
	ept->leaf_flags_able = flags_able(ept);
	/* Of Intel's leaves that have only what most have, few bits must be looked at. */
	ept->common_mask = VMEMI_EPT_LEAF | VMEMI_EPT_MARK | INTEL_RARE;
	ept->common_bits = VMEMI_EPT_LEAF | ept->absent;
	if (ept->format != VMEM_EPT_INTEL)
		ept->common_mask = 0;
	ept->common_flags = ept->leaf_flags_able & (VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY);
	ept->largest = 1;
	if (ept->caps & VMEM_EPT_CAP_2M)
		ept->largest = ept->caps & VMEM_EPT_CAP_1G ? 3 : 2;
}

/* The bits that give rights, where such bits are. */
static uint64_t giving(const vmem_ept *ept, uint32_t rights)
{
	if (ept->format == VMEM_EPT_INTEL)
		return (rights & 7) | (uint64_t)(rights & VMEM_EPT_EXEC_USER) << 7;
	return rights & (VMEM_EPT_READ | VMEM_EPT_WRITE);
}

void vmemi_ept_rights_masks(const vmem_ept *ept, uint32_t clear, uint32_t set, uint64_t *and,
			    uint64_t * or)
{
	*and = ~giving(ept, clear);
	* or = giving(ept, set);
	if (ept->format == VMEM_EPT_AMD) {
		*and &= ~(set & VMEM_EPT_EXEC ? VMEM_EPT_AMD_NO_EXEC : 0);
		* or |= clear & ~set & VMEM_EPT_EXEC ? VMEM_EPT_AMD_NO_EXEC : 0;
	}
}
