/* SPDX-License-Identifier: BSD-2-Clause */
/* Making large leaves of tables whose entries are all alike and in a row. The table waits for the flush; accessed and dirty
 * bits that processors set in it until then are taken over (ept_retire.c). Guard: serial calls. */
#include "ept/ept_leaf.h"

/* Whether the entries of a table are first, first + step ... but for @ignore; *other: bits of it that some have
 * and the first has not, or the first has and some have not. */
static inline bool in_a_row(const uint64_t *table, uint64_t first, uint64_t step, uint64_t ignore,
			    uint64_t *other)
{
	uint64_t unlike = 0;

	for (uint32_t i = 0; i < VMEM_EPT_ENTRIES; i += 8) {
		const uint64_t *s = table + i;
		uint64_t a = vmemi_ept_load(s), b = vmemi_ept_load(s + 1);
		uint64_t c = vmemi_ept_load(s + 2), d = vmemi_ept_load(s + 3);
		uint64_t e = vmemi_ept_load(s + 4), f = vmemi_ept_load(s + 5);
		uint64_t g = vmemi_ept_load(s + 6), h = vmemi_ept_load(s + 7);

		unlike |= (a ^ first) | (b ^ (first + step)) | (c ^ (first + 2 * step)) |
			  (d ^ (first + 3 * step));
		unlike |= (e ^ (first + 4 * step)) | (f ^ (first + 5 * step)) |
			  (g ^ (first + 6 * step)) | (h ^ (first + 7 * step));
		if (unlike & ~ignore)
			return false;
		first += 8 * step;
	}
	*other = unlike;
	return true;
}

/* The leaf of @level that a table below it can become, or 0. */
static uint64_t merged(const vmem_ept *ept, const uint64_t *table, uint32_t level)
{
	uint64_t ad = ept->accessed | ept->dirty, first = vmemi_ept_load(table), other;
	const uint32_t exec = VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER;

	if (!vmemi_ept_is_leaf(first) || (first & VMEMI_EPT_LOGGED) ||
	    (first & VMEM_EPT_ADDRESS & (vmemi_ept_bytes(level) - 1)) ||
	    (vmemi_ept_flags_of(ept, first) & VMEM_EPT_LEAF_SUBPAGE))
		return 0;
	if ((ept->flags & VMEM_EPT_NO_EXEC_LARGE) && (vmemi_ept_rights_of(ept, first) & exec))
		return 0;
	if (level == 2 ? !in_a_row(table, first, vmemi_ept_bytes(1), ad, &other)
		       : !in_a_row(table, first, vmemi_ept_bytes(2), ad, &other))
		return 0;
	return first | VMEMI_EPT_LARGE_BIT | other;
}

static void merge_at(struct vmemi_ept_call *c, uint64_t gpa, const struct vmemi_ept_path *path)
{
	uint64_t hpa = path->entry & VMEM_EPT_ADDRESS, leaf;
	uint32_t level = path->level;
	vmem_ept *ept = c->ept;

	leaf = merged(ept, vmemi_ept_at(ept, hpa), level);
	if (!leaf) {
		if (c->change->reason == VMEM_EPT_FINE)
			vmemi_ept_fail(c, 0, VMEM_EPT_UNLIKE, gpa);
		return;
	}
	vmemi_ept_store(path->slots[level], leaf);
	vmemi_ept_written(ept, path->slots[level], 1);
	vmemi_ept_retire_merged(c, hpa, level - 1, gpa);
	if (leaf & ept->present) {
		ept->leaves[level - 2] -= VMEM_EPT_ENTRIES;
		ept->leaves[level - 1]++;
	}
	c->change->leaves++;
	vmemi_ept_owe(c, gpa, vmemi_ept_bytes(level));
}

/* All tables below entries of @level that are in the range whole. */
static void merge_level(struct vmemi_ept_call *c, uint64_t gpa, uint64_t end, uint32_t level)
{
	uint64_t bytes = vmemi_ept_bytes(level);
	struct vmemi_ept_path path;

	gpa = (gpa + bytes - 1) & ~(bytes - 1);
	while (gpa < end && end - gpa >= bytes) {
		vmemi_ept_descend(c->ept, gpa, level, &path);
		if (path.level == level && vmemi_ept_is_table(path.entry))
			merge_at(c, gpa, &path);
		gpa = (gpa | (vmemi_ept_bytes(path.level) - 1)) + 1;
	}
}

int vmem_ept_merge(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint32_t level,
		   struct vmem_ept_change *change)
{
	struct vmemi_ept_call c;
	int err = vmemi_ept_begin(&c, ept, gpa, bytes, change);

	if (!err && (level < 2 || level > 3))
		err = vmemi_ept_fail(&c, -VMEM_EINVAL, VMEM_EPT_BAD_CALL, gpa);
	else if (!err && level > ept->largest)
		err = vmemi_ept_fail(&c, -VMEM_ENOTSUP, VMEM_EPT_NO_CAPABILITY, gpa);
	for (uint32_t l = 2; !err && l <= level; l++)
		merge_level(&c, gpa, gpa + bytes, l);
	return vmemi_ept_end(&c, err);
}
