/* SPDX-License-Identifier: BSD-2-Clause */
/* Making small leaves of large ones, all bits kept. A table is filled before it is linked, and says the same as the leaf
 * that it replaces: nothing is owed. With accessed and dirty bits on it is linked by compare and exchange, and filled
 * again if a processor has set one meanwhile. Guard: serial calls. */
#include "ept/ept_internal.h"

/* What is read of a table at @level that replaces @entry, one level above: all of it begins so, and goes up by *step. */
static uint64_t child_of(uint64_t entry, uint32_t level, uint64_t *ret_step)
{
	*ret_step = 0;
	if (!vmemi_ept_is_leaf(entry))
		return entry;
	*ret_step = vmemi_ept_bytes(level);
	return level == 1 ? entry & ~VMEMI_EPT_LARGE_BIT : entry;
}

void vmemi_ept_push_down(struct vmemi_ept_call *c, uint64_t gpa, struct vmemi_ept_path *path)
{
	uint64_t entry = path->entry, hpa, step, first, *slot = path->slots[path->level];
	uint32_t level = path->level - 1;
	vmem_ept *ept = c->ept;
	uint64_t *table = vmemi_ept_table_new(ept, level, &hpa);

	do {
		first = child_of(entry, level, &step);
		vmemi_ept_fill(table, VMEM_EPT_ENTRIES, first, step);
		vmemi_ept_written(ept, table, VMEM_EPT_ENTRIES);
		if (!(entry & ept->present) || !vmemi_ept_is_restless(ept, entry)) {
			vmemi_ept_link(slot, vmemi_ept_table_entry(ept, hpa));
			break;
		}
	} while (!__atomic_compare_exchange_n(slot, &entry, vmemi_ept_table_entry(ept, hpa), false,
					      __ATOMIC_RELEASE, __ATOMIC_RELAXED));
	vmemi_ept_written(ept, slot, 1);
	if ((entry & ept->present) && vmemi_ept_is_leaf(entry)) {
		ept->leaves[level]--;
		ept->leaves[level - 1] += VMEM_EPT_ENTRIES;
	}
	path->slots[level] = table + vmemi_ept_index(gpa, level);
	path->entry = vmemi_ept_load(path->slots[level]);
	path->level = level;
}

/* Entries of a level that a range touches. */
static uint64_t touched(uint64_t gpa, uint64_t end, uint32_t level)
{
	return ((end - 1) >> vmemi_ept_shift(level)) - (gpa >> vmemi_ept_shift(level)) + 1;
}

static uint64_t next_entry(uint64_t gpa, uint32_t level)
{
	return (gpa | (vmemi_ept_bytes(level) - 1)) + 1;
}

static uint64_t tables_to_split(const vmem_ept *ept, uint64_t gpa, uint64_t end, uint32_t level)
{
	struct vmemi_ept_path path;
	uint64_t tables = 0, next;

	for (; gpa < end; gpa = next) {
		vmemi_ept_descend(ept, gpa, level, &path);
		if (path.level == level) {
			next = next_entry(gpa, level + 1);
			continue;
		}
		next = next_entry(gpa, path.level);
		if (vmemi_ept_is_leaf(path.entry))
			for (uint32_t l = path.level; l > level; l--)
				tables += touched(gpa, next < end ? next : end, l);
	}
	return tables;
}

int vmemi_ept_split_range(struct vmemi_ept_call *c, uint64_t gpa, uint64_t bytes, uint32_t level)
{
	uint64_t end = gpa + bytes, tables = tables_to_split(c->ept, gpa, end, level);
	struct vmemi_ept_path path;
	int err = tables ? vmemi_ept_take(c, tables, gpa) : 0;

	if (err || !tables)
		return err;
	while (gpa < end) {
		vmemi_ept_descend(c->ept, gpa, level, &path);
		while (path.level > level && vmemi_ept_is_leaf(path.entry)) {
			vmemi_ept_push_down(c, gpa, &path);
			c->change->leaves += VMEM_EPT_ENTRIES;
		}
		gpa = next_entry(gpa, path.level > level ? path.level : level + 1);
	}
	return 0;
}

/* An end of a range inside a large entry: levels above 1 up to @level, of which it is inside an entry. */
static uint32_t cut_level(const vmem_ept *ept, uint64_t gpa, bool payloads)
{
	struct vmemi_ept_path path;

	if (gpa >= ept->guest_end)
		return 0;
	vmemi_ept_descend(ept, gpa, 1, &path);
	return path.level > 1 && (vmemi_ept_is_leaf(path.entry) ||
				  (payloads && vmemi_ept_is_payload(path.entry)))
		       ? path.level
		       : 0;
}

static bool inside(uint64_t gpa, uint32_t level)
{
	return gpa & (vmemi_ept_bytes(level) - 1);
}

static void cut_at(struct vmemi_ept_call *c, uint64_t gpa, bool payloads)
{
	struct vmemi_ept_path path;

	if (!cut_level(c->ept, gpa, payloads))
		return;
	vmemi_ept_descend(c->ept, gpa, 1, &path);
	while (path.level > 1 && inside(gpa, path.level))
		vmemi_ept_push_down(c, gpa, &path);
}

int vmemi_ept_cut(struct vmemi_ept_call *c, uint64_t gpa, uint64_t bytes, bool payloads)
{
	uint64_t end = gpa + bytes, tables = 0;
	uint32_t low = cut_level(c->ept, gpa, payloads), high = cut_level(c->ept, end, payloads);
	int err;

	for (uint32_t l = 2; l <= low || l <= high; l++) {
		bool first = l <= low && inside(gpa, l), second = l <= high && inside(end, l);

		tables += first + second;
		if (first && second && gpa >> vmemi_ept_shift(l) == end >> vmemi_ept_shift(l))
			tables--;
	}
	if (!tables)
		return 0;
	if ((err = vmemi_ept_take(c, tables, low ? gpa : end)) != 0)
		return err;
	cut_at(c, gpa, payloads);
	cut_at(c, end, payloads);
	return 0;
}

int vmem_ept_split(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint32_t level,
		   struct vmem_ept_change *change)
{
	struct vmemi_ept_call c;
	int err = vmemi_ept_begin(&c, ept, gpa, bytes, change);

	if (!err && (level < 1 || level > 2))
		err = vmemi_ept_fail(&c, -VMEM_EINVAL, VMEM_EPT_BAD_CALL, gpa);
	if (!err)
		err = vmemi_ept_split_range(&c, gpa, bytes, level);
	return vmemi_ept_end(&c, err);
}
