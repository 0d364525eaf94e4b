/* SPDX-License-Identifier: BSD-2-Clause */
/* The sub-page permission table as processors read it (SDM vol. 3C, 29.3.4; 25.6.22 SPPTP): four levels, of which those
 * above the last have an address, a valid bit, and nothing else. An entry of the last is 32 permissions of 128 bytes each,
 * in its even bits. Pure functions. */
#include "ept/ept_walk_rules.h"

#define LEVELS 4u
#define VALID UINT64_C(1)
#define TABLE_RESERVED (~(VMEM_EPT_ADDRESS | VALID))
#define VECTOR_RESERVED UINT64_C(0xaaaaaaaaaaaaaaaa)

enum vmem_ept_misconfig vmemi_ept_subpage_pointer(const struct vmemi_ept_rules *rules,
						  uint64_t pointer)
{
	return (pointer & ~VMEM_EPT_ADDRESS) || (pointer & rules->too_wide)
		       ? VMEM_EPT_POINTER_RESERVED
		       : VMEM_EPT_WELL;
}

static enum vmem_ept_outcome misconfigured(struct vmem_ept_walked *walked,
					   enum vmem_ept_misconfig why)
{
	walked->misconfig = why;
	return VMEM_EPT_WALK_SUBPAGE_MISCONFIG;
}

/* An entry above the last level; WALK_OK: it refers to a table. */
static enum vmem_ept_outcome look(const struct vmemi_ept_rules *rules,
				  struct vmem_ept_walked *walked)
{
	const uint64_t entry = walked->subpage_entry;

	if (!(entry & VALID)) {
		walked->qualification = VMEM_EPT_QUAL_SUBPAGE_MISS;
		return VMEM_EPT_WALK_SUBPAGE_MISS;
	}
	if (entry & TABLE_RESERVED)
		return misconfigured(walked, VMEM_EPT_RESERVED_BITS);
	if (entry & rules->too_wide)
		return misconfigured(walked, VMEM_EPT_ADDRESS_WIDTH);
	return VMEM_EPT_WALK_OK;
}

static enum vmem_ept_outcome look_vector(struct vmem_ept_walked *walked, uint64_t gpa)
{
	const uint64_t subpage = gpa % VMEM_EPT_TABLE_BYTES / 128;

	if (walked->subpage_entry & VECTOR_RESERVED)
		return misconfigured(walked, VMEM_EPT_RESERVED_BITS);
	return walked->subpage_entry >> 2 * subpage & 1 ? VMEM_EPT_WALK_OK
							: VMEM_EPT_WALK_VIOLATION;
}

enum vmem_ept_outcome vmemi_ept_subpage_walk(const struct vmemi_ept_rules *rules,
					     const struct vmem_ept_view *view, uint64_t pointer,
					     uint64_t gpa, struct vmem_ept_walked *walked)
{
	uint64_t table = pointer;
	enum vmem_ept_outcome outcome;

	if (!pointer || gpa >> (12 + 9 * LEVELS))
		return VMEM_EPT_WALK_SUBPAGE_TABLE;
	for (uint32_t level = LEVELS;; level--) {
		const uint64_t index = gpa >> (3 + 9 * level) & (VMEM_EPT_ENTRIES - 1);

		walked->subpage_level = level;
		if (view->read(view->context, table + 8 * index, &walked->subpage_entry) != 0)
			return VMEM_EPT_WALK_NO_TABLE;
		if (level == 1)
			return look_vector(walked, gpa);
		outcome = look(rules, walked);
		if (outcome != VMEM_EPT_WALK_OK)
			return outcome;
		table = walked->subpage_entry & VMEM_EPT_ADDRESS;
	}
}
