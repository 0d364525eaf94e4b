/* SPDX-License-Identifier: BSD-2-Clause */
/* Emptying a range. Large entries that stick out are split first; tables that lie in the range whole are unlinked as they
 * are, and so are those that become empty by it. Guard: serial calls. */
#include "ept/ept_runs.h"

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

/* Most of what there is are leaves that may be read, or nothing. */
static void empty_run(struct vmemi_ept_call *c, uint64_t *slots, uint64_t count, uint64_t gpa,
		      uint32_t level)
{
	const uint64_t leaf = VMEMI_EPT_PRESENT_BIT | VMEMI_EPT_LEAF;
	uint32_t shift = vmemi_ept_shift(level);
	struct emptied e = { .present = 0 };
	uint64_t i = 0, streak, end;

	while (i < count) {
		streak = vmemi_ept_streak(slots + i, count - i, leaf, 0, c->ept->absent, NULL);
		if (streak)
			note_present(&e, i, streak);
		i += streak;
		end = i + VMEMI_EPT_STREAK < count ? i + VMEMI_EPT_STREAK : count;
		for (; i < end; i++)
			if (!vmemi_ept_is_empty(vmemi_ept_load(slots + i)))
				empty_entry(c, slots, i, gpa, level, &e);
	}
	if (!e.written)
		return;
	vmemi_ept_written(c->ept, slots, count);
	c->change->leaves += e.written;
	c->ept->leaves[level - 1] -= e.present;
	if (e.present)
		vmemi_ept_owe(c, gpa + (e.first << shift), (e.end - e.first) << shift);
}

/* Whether all of a table is empty but for the @count entries from @index on, which are. First the neighbours and the
 * ends, where there is something most often. */
static bool rest_is_empty(const uint64_t *table, uint64_t index, uint64_t count)
{
	uint64_t end = index + count, some = 0;

	if (index)
		some = vmemi_ept_load(table + index - 1) | vmemi_ept_load(table);
	if (end < VMEM_EPT_ENTRIES)
		some |= vmemi_ept_load(table + end) | vmemi_ept_load(table + VMEM_EPT_ENTRIES - 1);
	if (!vmemi_ept_is_empty(some))
		return false;
	return vmemi_ept_all_empty(table + end, VMEM_EPT_ENTRIES - end) &&
	       vmemi_ept_all_empty(table, index);
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

static void empty_at(struct vmemi_ept_call *c, const struct vmemi_ept_path *path, uint64_t gpa,
		     uint64_t count)
{
	empty_run(c, path->slots[path->level], count, gpa, path->level);
	drop_empty_tables(c, path, gpa, count);
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
		empty_at(c, &path, gpa, count);
		gpa += count << vmemi_ept_shift(level);
	}
}

int vmem_ept_unmap(vmem_ept *ept, uint64_t gpa, uint64_t bytes, struct vmem_ept_change *change)
{
	struct vmemi_ept_path path;
	struct vmemi_ept_call c;
	uint64_t pages;
	int err = vmemi_ept_begin(&c, ept, gpa, bytes, change);

	if (err)
		return vmemi_ept_end(&c, err);
	vmemi_ept_descend(ept, gpa, 1, &path);
	pages = bytes >> VMEM_PAGE_SHIFT;
	if (path.level == 1 && pages < VMEM_EPT_ENTRIES &&
	    entries_at(gpa, gpa + bytes, 1) == pages) {
		empty_at(&c, &path, gpa, pages); /* inside one table: nothing sticks out */
		return vmemi_ept_end(&c, 0);
	}
	err = vmemi_ept_cut(&c, gpa, bytes, true);
	if (!err)
		empty_range(&c, gpa, gpa + bytes);
	return vmemi_ept_end(&c, err);
}
