/* SPDX-License-Identifier: BSD-2-Clause */
/* Logging of writes by taking the right to write. A leaf in the log has a bit of ours set: with the right to write it
 * was written since it was last looked at, without it was not. Everything is in the entry, so that a violation needs
 * one compare-exchange and no memory. Guard: serial calls; vmem_ept_log_write() beside itself and other lock-free calls. */
#include "ept/ept_cursor.h"
#include <vmem/ept_track.h>

struct log {
	struct vmemi_ept_call call;
	struct vmemi_ept_cursor cursor;
	uint64_t gpa;
	uint64_t *bitmap; /* log_collect */
};

/* For each leaf, which may stick out of the range; it is at the cursor, and has @entry. */
typedef void (*log_leaf)(struct log *l, uint64_t *slot, uint64_t entry);

static void over_leaves(struct log *l, log_leaf leaf)
{
	struct vmemi_ept_cursor *cursor = &l->cursor;
	const vmem_ept *ept = l->call.ept;

	vmemi_ept_cursor_begin(cursor, ept, l->gpa, l->cursor.end - l->gpa);
	while (cursor->at < cursor->end) {
		uint64_t *slot = vmemi_ept_cursor_slot(cursor), entry = vmemi_ept_load(slot);

		if (cursor->level > 1 && vmemi_ept_is_table(entry)) {
			vmemi_ept_cursor_down(cursor, ept, entry);
			continue;
		}
		if (vmemi_ept_is_leaf(entry))
			leaf(l, slot, entry);
		vmemi_ept_cursor_pass(cursor, 1);
	}
}

/* Writes an entry; returns what it was. */
static uint64_t change(struct log *l, uint64_t *slot, uint64_t clear, uint64_t set)
{
	uint64_t entry = vmemi_ept_change(l->call.ept, slot, ~clear, set);

	vmemi_ept_written(l->call.ept, slot, 1);
	l->call.change->leaves++;
	return entry;
}

static void owe_leaf(struct log *l)
{
	uint64_t bytes = vmemi_ept_bytes(l->cursor.level);

	vmemi_ept_owe(&l->call, l->cursor.at & ~(bytes - 1), bytes);
}

/* --- Start --- */

/* What may be written without the right to: the log would miss it. */
static void refuse(struct log *l, uint64_t *slot, uint64_t entry)
{
	(void)slot;
	if ((entry & l->call.ept->writes & ~VMEMI_EPT_WRITE_BIT) &&
	    l->call.change->reason == VMEM_EPT_FINE)
		vmemi_ept_fail(&l->call, 0, VMEM_EPT_NO_CAPABILITY, l->cursor.at);
}

/* Whether there may be such leaves at all. */
static bool writes_beside(const vmem_ept *ept)
{
	return ept->leaf_flags_able &
	       (VMEM_EPT_LEAF_PAGING_WRITE | VMEM_EPT_LEAF_SHADOW_STACK | VMEM_EPT_LEAF_SUBPAGE);
}

static bool to_be_logged(uint64_t entry)
{
	return (entry & (VMEMI_EPT_WRITE_BIT | VMEMI_EPT_LOGGED)) == VMEMI_EPT_WRITE_BIT;
}

static void protect(struct log *l, uint64_t *slot, uint64_t entry)
{
	if (!to_be_logged(entry))
		return;
	change(l, slot, VMEMI_EPT_WRITE_BIT, VMEMI_EPT_LOGGED);
	owe_leaf(l);
}

static int begin(struct log *l, vmem_ept *ept, uint64_t gpa, uint64_t bytes,
		 struct vmem_ept_change *change_)
{
	l->gpa = gpa;
	l->cursor.end = gpa + bytes;
	return vmemi_ept_begin(&l->call, ept, gpa, bytes, change_);
}

int vmem_ept_log_start(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint32_t level,
		       struct vmem_ept_change *change_)
{
	struct log l = { .bitmap = NULL };
	int err = begin(&l, ept, gpa, bytes, change_);

	if (!err && (level < 1 || level > 2))
		err = vmemi_ept_fail(&l.call, -VMEM_EINVAL, VMEM_EPT_BAD_CALL, gpa);
	if (!err && ((gpa | bytes) & (vmemi_ept_bytes(level) - 1)))
		err = vmemi_ept_fail(&l.call, -VMEM_EINVAL, VMEM_EPT_UNALIGNED, gpa);
	if (!err && writes_beside(ept)) {
		over_leaves(&l, refuse);
		err = l.call.change->reason == VMEM_EPT_FINE ? 0 : -VMEM_ENOTSUP;
	}
	if (!err)
		err = vmemi_ept_split_range(&l.call, gpa, bytes, level);
	if (!err)
		over_leaves(&l, protect);
	return vmemi_ept_end(&l.call, err);
}

/* --- A write --- */

int vmem_ept_log_write(vmem_ept *ept, uint64_t gpa)
{
	struct vmemi_ept_path path;
	uint64_t *slot;

	if (gpa >= ept->guest_end)
		return -VMEM_ERANGE;
	vmemi_ept_descend(ept, gpa, 1, &path);
	slot = path.slots[path.level];
	do {
		if (!vmemi_ept_is_leaf(path.entry) || !(path.entry & VMEMI_EPT_LOGGED) ||
		    !(path.entry & VMEMI_EPT_PRESENT_BIT))
			return -VMEM_ENOENT;
		if (path.entry & VMEMI_EPT_WRITE_BIT)
			break; /* another gave it, and may not have written it back */
	} while (!__atomic_compare_exchange_n(slot, &path.entry, path.entry | VMEMI_EPT_WRITE_BIT,
					      true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	vmemi_ept_written(ept, slot, 1);
	return 0;
}

/* --- Collect --- */

static void collect(struct log *l, uint64_t *slot, uint64_t entry)
{
	const uint64_t written = VMEMI_EPT_WRITE_BIT | VMEMI_EPT_LOGGED;
	uint64_t bytes = vmemi_ept_bytes(l->cursor.level), at = l->cursor.at, end;

	if ((entry & written) != written)
		return;
	end = (at & ~(bytes - 1)) + bytes;
	end = end < l->cursor.end ? end : l->cursor.end;
	for (; at < end; at += VMEM_PAGE_SIZE) {
		uint64_t page = (at - l->gpa) >> VMEM_PAGE_SHIFT;

		l->bitmap[page / 64] |= UINT64_C(1) << page % 64;
	}
	/* One that sticks out stays as it is: its other pages were written, too. */
	if (vmemi_ept_cursor_whole(&l->cursor, l->gpa)) {
		change(l, slot, VMEMI_EPT_WRITE_BIT, 0);
		owe_leaf(l);
	}
}

int vmem_ept_log_collect(vmem_ept *ept, uint64_t gpa, uint64_t bytes, uint64_t *bitmap,
			 struct vmem_ept_change *change_)
{
	struct log l = { .bitmap = bitmap };
	int err = begin(&l, ept, gpa, bytes, change_);

	if (!err && !bitmap)
		err = vmemi_ept_fail(&l.call, -VMEM_EINVAL, VMEM_EPT_BAD_CALL, gpa);
	if (!err)
		over_leaves(&l, collect);
	return vmemi_ept_end(&l.call, err);
}

/* --- Stop --- */

static void stop(struct log *l, uint64_t *slot, uint64_t entry)
{
	if (!(entry & VMEMI_EPT_LOGGED) || !vmemi_ept_cursor_whole(&l->cursor, l->gpa))
		return;
	/* A DMA remapping unit need not look again before it faults. */
	if (!(change(l, slot, VMEMI_EPT_LOGGED, VMEMI_EPT_WRITE_BIT) & VMEMI_EPT_WRITE_BIT) &&
	    l->call.ept->format == VMEM_EPT_VTD)
		owe_leaf(l);
}

int vmem_ept_log_stop(vmem_ept *ept, uint64_t gpa, uint64_t bytes, struct vmem_ept_change *change_)
{
	struct log l = { .gpa = gpa };
	int err = begin(&l, ept, gpa, bytes, change_);

	if (!err)
		over_leaves(&l, stop);
	return vmemi_ept_end(&l.call, err);
}
