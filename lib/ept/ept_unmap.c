/* SPDX-License-Identifier: BSD-2-Clause */
/* Emptying a range. Large entries that stick out are split first; tables that lie in the range whole are unlinked as they
 * are, and so are those that become empty by it. Guard: serial calls. */
#include "ept/ept_internal.h"

struct emptied {
	uint64_t first, end; /* entries: what was present is between */
	uint64_t present;
	uint64_t written;
};

static void note_present(struct emptied *e, uint64_t at, uint64_t count)
{
	if (!e->present)
		e->first = at;
	e->end = at + count;
	e->present += count;
	e->written += count;
}

static void empty_entry(struct vmemi_ept_call *c, uint64_t *slots, uint64_t i, uint64_t gpa,
			uint32_t level, struct emptied *e)
{
	uint64_t entry = __atomic_exchange_n(slots + i, c->ept->absent, __ATOMIC_RELAXED);

	if (vmemi_ept_is_empty(entry))
		return;
	if (entry & c->ept->present & VMEMI_EPT_PRESENT_BIT && !(entry & VMEMI_EPT_LEAF)) {
		vmemi_ept_retire_tree(c, entry & VMEM_EPT_ADDRESS, level - 1,
				      gpa + (i << vmemi_ept_shift(level)));
		e->written++;
		return;
	}
	if (vmemi_ept_is_payload(entry))
		c->ept->payload_pages -= vmemi_ept_bytes(level) >> VMEM_PAGE_SHIFT;
	if (!vmemi_ept_is_payload(entry) && (entry & c->ept->present))
		note_present(e, i, 1);
	else
		e->written++;
}

/* Four at a time: all leaves that may be read, or all empty, which is what there is most of. */
static void empty_run(struct vmemi_ept_call *c, uint64_t *slots, uint64_t count, uint64_t gpa,
		      uint32_t level)
{
	const uint64_t leaf = VMEMI_EPT_PRESENT_BIT | VMEMI_EPT_LEAF, absent = c->ept->absent;
	uint32_t shift = vmemi_ept_shift(level);
	struct emptied e = { .present = 0 };
	uint64_t i = 0;

	for (; i + 4 <= count; i += 4) {
		uint64_t *s = slots + i, s0 = vmemi_ept_load(s), s1 = vmemi_ept_load(s + 1);
		uint64_t s2 = vmemi_ept_load(s + 2), s3 = vmemi_ept_load(s + 3);

		if ((s0 & s1 & s2 & s3 & leaf) == leaf) {
			vmemi_ept_store(s, absent);
			vmemi_ept_store(s + 1, absent);
			vmemi_ept_store(s + 2, absent);
			vmemi_ept_store(s + 3, absent);
			note_present(&e, i, 4);
		} else if (!vmemi_ept_is_empty(s0 | s1 | s2 | s3)) {
			for (uint64_t j = i; j < i + 4; j++)
				empty_entry(c, slots, j, gpa, level, &e);
		}
	}
	for (; i < count; i++)
		empty_entry(c, slots, i, gpa, level, &e);
	if (!e.written)
		return;
	vmemi_ept_written(c->ept, slots, count);
	c->change->leaves += e.written;
	c->ept->leaves[level - 1] -= e.present;
	if (e.present)
		vmemi_ept_owe(c, gpa + (e.first << shift), (e.end - e.first) << shift);
}

/* Whether all of a table is empty but for the @count entries from @index on, which are. Neighbours first. */
static bool rest_is_empty(const uint64_t *table, uint64_t index, uint64_t count)
{
	for (uint64_t i = index + count; i < VMEM_EPT_ENTRIES; i++)
		if (!vmemi_ept_is_empty(vmemi_ept_load(&table[i])))
			return false;
	for (uint64_t i = index; i-- > 0;)
		if (!vmemi_ept_is_empty(vmemi_ept_load(&table[i])))
			return false;
	return true;
}

/* Unlinks the tables on the path that are empty, of which these entries are. */
static void drop_empty_tables(struct vmemi_ept_call *c, const struct vmemi_ept_path *path,
			      uint64_t gpa, uint64_t count)
{
	for (uint32_t level = path->level; level < c->ept->levels; level++) {
		uint64_t index = vmemi_ept_index(gpa, level), entry,
			 *above = path->slots[level + 1];

		if (!rest_is_empty(path->slots[level] - index, index, count))
			return;
		entry = __atomic_exchange_n(above, c->ept->absent, __ATOMIC_RELAXED);
		vmemi_ept_written(c->ept, above, 1);
		vmemi_ept_retire(c, entry & VMEM_EPT_ADDRESS, level);
		vmemi_ept_owe(c, gpa & ~(vmemi_ept_bytes(level + 1) - 1),
			      vmemi_ept_bytes(level + 1));
		count = 1;
	}
}

/* The highest level of which a whole entry of the range is at @gpa. */
static uint32_t whole_level(const vmem_ept *ept, uint64_t gpa, uint64_t end)
{
	uint32_t level = 1;

	while (level < ept->levels && !(gpa & (vmemi_ept_bytes(level + 1) - 1)) &&
	       end - gpa >= vmemi_ept_bytes(level + 1))
		level++;
	return level;
}

static uint64_t entries_at(uint64_t gpa, uint64_t end, uint32_t level)
{
	uint64_t fit = (end - gpa) >> vmemi_ept_shift(level);
	uint64_t room = VMEM_EPT_ENTRIES - vmemi_ept_index(gpa, level);

	return fit < room ? fit : room;
}

static void empty_range(struct vmemi_ept_call *c, uint64_t gpa, uint64_t end)
{
	struct vmemi_ept_path path;

	while (gpa < end) {
		uint32_t level = whole_level(c->ept, gpa, end);
		uint64_t count;

		vmemi_ept_descend(c->ept, gpa, level, &path);
		if (path.level > level) { /* a hole: what is there does not stick out any more */
			gpa = (gpa | (vmemi_ept_bytes(path.level) - 1)) + 1;
			continue;
		}
		count = entries_at(gpa, end, level);
		empty_run(c, path.slots[level], count, gpa, level);
		drop_empty_tables(c, &path, gpa, count);
		gpa += count << vmemi_ept_shift(level);
	}
}

int vmem_ept_unmap(vmem_ept *ept, uint64_t gpa, uint64_t bytes, struct vmem_ept_change *change)
{
	struct vmemi_ept_path path;
	struct vmemi_ept_call c;
	int err = vmemi_ept_begin(&c, ept, gpa, bytes, change);

	if (err)
		return vmemi_ept_end(&c, err);
	vmemi_ept_descend(ept, gpa, 1, &path);
	/* Inside one table nothing sticks out. */
	if (path.level > 1 || entries_at(gpa, gpa + bytes, 1) != bytes >> VMEM_PAGE_SHIFT)
		err = vmemi_ept_cut(&c, gpa, bytes, true);
	if (!err)
		empty_range(&c, gpa, gpa + bytes);
	return vmemi_ept_end(&c, err);
}
