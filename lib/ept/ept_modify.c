/* SPDX-License-Identifier: BSD-2-Clause */
/* Changing rights and memory types of what is mapped in a range: new = (old & keep) | give. Leaves that stick out are split
 * first. Guard: serial calls. */
#include "ept/ept_leaf.h"
#include "ept/ept_runs.h"

#define ALL_RIGHTS (VMEM_EPT_READ | VMEM_EPT_WRITE | VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER)

struct modify {
	struct vmemi_ept_call *c;
	uint64_t keep, give;
	uint64_t
		calm; /* with all these bits it is present, stays so, and no processor changes it */
	/* Of what is present, losing one of the first or getting one of the second owes an invalidation. */
	uint64_t owe_lost, owe_got;
	bool owe_present; /* becoming present, too */
};

/* What was done to a run. */
struct modified {
	uint64_t first, end; /* entries: what must be invalidated is between */
	uint64_t written;
	bool owes;
};

static void note(struct modified *m, uint64_t at, uint64_t count, bool owes)
{
	m->written += count;
	if (!owes)
		return;
	if (!m->owes)
		m->first = at;
	m->owes = true;
	m->end = at + count;
}

static bool is_owed(const struct modify *m, struct vmemi_ept_seen seen)
{
	return (seen.any & m->owe_lost) || (~seen.all & m->owe_got);
}

static void modify_entry(const struct modify *m, uint64_t *slots, uint64_t i, uint32_t level,
			 struct modified *done)
{
	vmem_ept *ept = m->c->ept;
	uint64_t entry = vmemi_ept_load(slots + i);
	bool before, after;

	if (!vmemi_ept_is_leaf(entry))
		return;
	entry = vmemi_ept_change(ept, slots + i, m->keep, m->give);
	before = entry & ept->present;
	after = ((entry & m->keep) | m->give) & ept->present;
	ept->leaves[level - 1] += (uint64_t)after - (uint64_t)before;
	note(done, i, 1,
	     before ? is_owed(m, (struct vmemi_ept_seen){ entry, entry })
		    : after && m->owe_present);
}

/* The leaves among entries of a table, up to the first that is a table itself. Returns how many were passed. */
static uint64_t modify_run(const struct modify *m, uint64_t *slots, uint64_t count, uint64_t gpa,
			   uint32_t level)
{
	uint32_t shift = vmemi_ept_shift(level);
	struct modified done = { .written = 0 };
	uint64_t i = 0, streak, end;
	struct vmemi_ept_seen seen;

	while (i < count) {
		streak = vmemi_ept_streak(slots + i, count - i, m->calm, m->keep, m->give, &seen);
		if (streak)
			note(&done, i, streak, is_owed(m, seen));
		i += streak;
		end = i + VMEMI_EPT_STREAK < count ? i + VMEMI_EPT_STREAK : count;
		for (; i < end; i++) {
			if (level > 1 && vmemi_ept_is_table(vmemi_ept_load(slots + i)))
				goto out;
			modify_entry(m, slots, i, level, &done);
		}
	}
out:
	m->c->change->leaves += done.written;
	if (done.written)
		vmemi_ept_written(m->c->ept, slots, i);
	if (done.owes)
		vmemi_ept_owe(m->c, gpa + (done.first << shift), (done.end - done.first) << shift);
	return i;
}

static uint64_t entries_at(uint64_t gpa, uint64_t end, uint32_t level)
{
	uint64_t touched = ((end - 1) >> vmemi_ept_shift(level)) - (gpa >> vmemi_ept_shift(level));
	uint64_t room = VMEM_EPT_ENTRIES - vmemi_ept_index(gpa, level);

	return touched + 1 < room ? touched + 1 : room;
}

static void modify_range(const struct modify *m, uint64_t gpa, uint64_t end)
{
	struct vmemi_ept_path path;

	while (gpa < end) {
		uint64_t count, base;

		vmemi_ept_descend(m->c->ept, gpa, 1, &path);
		base = gpa & ~(vmemi_ept_bytes(path.level) - 1);
		count = modify_run(m, path.slots[path.level], entries_at(gpa, end, path.level),
				   base, path.level);
		gpa = base + (count << vmemi_ept_shift(path.level));
	}
}

/* Whether rights of some leaf of a range would become what cannot be. @bad: bit r: from rights r. */
static int refuse_rights(struct vmemi_ept_call *c, uint64_t gpa, uint64_t end, uint32_t bad,
			 uint32_t clear, uint32_t set)
{
	const vmem_ept *ept = c->ept;
	struct vmemi_ept_path path;
	uint32_t rights, reason;
	int err;

	while (bad && gpa < end) {
		uint64_t count = 1;

		vmemi_ept_descend(ept, gpa, 1, &path);
		if (path.level == 1)
			count = entries_at(gpa, end, 1);
		for (uint64_t i = 0; i < count; i++) {
			uint64_t entry = vmemi_ept_load(path.slots[path.level] + i);

			rights = vmemi_ept_rights_of(ept, entry);
			if (!vmemi_ept_is_leaf(entry) || !(bad >> rights & 1))
				continue;
			err = vmemi_ept_rights_check(ept, (rights & ~clear) | set, &reason);
			return vmemi_ept_fail(c, err, reason, gpa + (i << VMEM_PAGE_SHIFT));
		}
		gpa = ((gpa + ((count - 1) << VMEM_PAGE_SHIFT)) |
		       (vmemi_ept_bytes(path.level) - 1)) +
		      1;
	}
	return 0;
}

static int check_protect(struct vmemi_ept_call *c, uint64_t gpa, uint64_t end, uint32_t clear,
			 uint32_t set)
{
	const vmem_ept *ept = c->ept;
	uint32_t bad = 0, all = VMEM_EPT_READ, reason;
	int err;

	/* What is given must be possible for something; what is taken need not. */
	if (clear & ~ALL_RIGHTS)
		return vmemi_ept_fail(c, -VMEM_EINVAL, VMEM_EPT_BAD_RIGHTS, gpa);
	if (ept->format == VMEM_EPT_AMD)
		all |= VMEM_EPT_EXEC;
	err = set ? vmemi_ept_rights_check(ept, set | all, &reason) : 0;
	if (err)
		return vmemi_ept_fail(c, err, reason, gpa);
	for (uint32_t rights = 0; rights < 16; rights++)
		if ((ept->rights_able >> rights & 1) &&
		    !(ept->rights_able >> ((rights & ~clear) | set) & 1))
			bad |= UINT32_C(1) << rights;
	return refuse_rights(c, gpa, end, bad, clear, set);
}

static uint64_t calm_bits(const vmem_ept *ept, uint64_t keep)
{
	return keep & VMEMI_EPT_PRESENT_BIT
		       ? VMEMI_EPT_PRESENT_BIT | VMEMI_EPT_LEAF | ept->accessed | ept->dirty
		       : UINT64_MAX; /* of no entry: those that go absent are counted one by one */
}

/* By the masks of rights alone: all bits but AMD's NX give one. */
static void owe_rights(struct modify *m)
{
	m->owe_lost = ~m->keep & ~m->give & ~VMEM_EPT_AMD_NO_EXEC;
	m->owe_got = m->give & VMEM_EPT_AMD_NO_EXEC;
	/* A DMA remapping unit need not look again before it faults. */
	if (m->c->ept->format == VMEM_EPT_VTD)
		m->owe_got = m->give;
}

int vmem_ept_protect(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint32_t clear, uint32_t set,
		     struct vmem_ept_change *change)
{
	struct vmemi_ept_call c;
	struct modify m = { .c = &c };
	int err = vmemi_ept_begin(&c, ept, gpa, bytes, change);

	if (err || (err = check_protect(&c, gpa, gpa + bytes, clear, set)) != 0)
		return vmemi_ept_end(&c, err);
	if ((ept->flags & VMEM_EPT_NO_EXEC_LARGE) && (set & (VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER))) {
		err = vmemi_ept_split_range(&c, gpa, bytes, 1);
		c.change->leaves = 0;
	} else {
		err = vmemi_ept_cut(&c, gpa, bytes, false);
	}
	if (!err) {
		vmemi_ept_rights_masks(ept, clear, set, &m.keep, &m.give);
		owe_rights(&m);
		m.owe_present = ept->flags & VMEM_EPT_CACHES_ABSENT;
		/* What is taken is not to come back by the log, and what is given is not to go by it. */
		if ((clear & (VMEM_EPT_READ | VMEM_EPT_WRITE)) || (set & VMEM_EPT_WRITE))
			m.keep &= ~VMEMI_EPT_LOGGED;
		m.calm = calm_bits(ept, m.keep);
		modify_range(&m, gpa, gpa + bytes);
	}
	return vmemi_ept_end(&c, err);
}

static int check_type(struct vmemi_ept_call *c, uint64_t gpa, uint32_t type, uint32_t flags)
{
	uint32_t reason;
	int err = vmemi_ept_type_check(c->ept, type, &reason);

	if (err)
		return vmemi_ept_fail(c, err, reason, gpa);
	if (flags & ~VMEM_EPT_LEAF_IGNORE_PAT)
		return vmemi_ept_fail(c, -VMEM_EINVAL, VMEM_EPT_BAD_CALL, gpa);
	if (flags & ~c->ept->leaf_flags_able)
		return vmemi_ept_fail(c, -VMEM_ENOTSUP, VMEM_EPT_NO_CAPABILITY, gpa);
	return 0;
}

int vmem_ept_set_type(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint32_t type, uint32_t flags,
		      struct vmem_ept_change *change)
{
	struct vmemi_ept_call c;
	struct modify m = { .c = &c };
	int err = vmemi_ept_begin(&c, ept, gpa, bytes, change);

	if (err || (err = check_type(&c, gpa, type, flags)) != 0)
		return vmemi_ept_end(&c, err);
	if (ept->format == VMEM_EPT_VTD) /* has none: there is nothing to change */
		return vmemi_ept_end(&c, 0);
	err = vmemi_ept_cut(&c, gpa, bytes, false);
	if (err)
		return vmemi_ept_end(&c, err);
	if (ept->format == VMEM_EPT_AMD) {
		m.keep = ~(VMEM_EPT_AMD_PCD | VMEM_EPT_AMD_PWT);
		m.give = vmemi_ept_amd_type(type);
	} else {
		m.keep = ~(UINT64_C(7) << VMEM_EPT_INTEL_TYPE_SHIFT | VMEM_EPT_INTEL_IGNORE_PAT);
		m.give = (uint64_t)type << VMEM_EPT_INTEL_TYPE_SHIFT |
			 (flags & VMEM_EPT_LEAF_IGNORE_PAT ? VMEM_EPT_INTEL_IGNORE_PAT : 0);
	}
	m.owe_lost = ~m.keep & ~m.give;
	m.owe_got = m.give;
	m.calm = calm_bits(ept, m.keep);
	modify_range(&m, gpa, gpa + bytes);
	return vmemi_ept_end(&c, 0);
}
