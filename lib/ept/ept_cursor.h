/* SPDX-License-Identifier: BSD-2-Clause */
/* Goes over the entries of a range, each once, upwards: down where a table is, and up again where it ends. Guard: the
 * call. */
#ifndef VMEMI_EPT_CURSOR_H
#define VMEMI_EPT_CURSOR_H
#include "ept/ept_internal.h"

struct vmemi_ept_cursor {
	uint64_t *table[VMEM_EPT_LEVELS + 1]; /* [level ... levels] are on the way */
	uint64_t at, end;
	uint32_t level, levels;
};

static inline void vmemi_ept_cursor_begin(struct vmemi_ept_cursor *cursor, const vmem_ept *ept,
					  uint64_t gpa, uint64_t bytes)
{
	cursor->level = cursor->levels = ept->levels;
	cursor->table[ept->levels] = ept->root;
	cursor->at = gpa;
	cursor->end = gpa + bytes;
}

static inline uint64_t *vmemi_ept_cursor_slot(const struct vmemi_ept_cursor *cursor)
{
	return cursor->table[cursor->level] + vmemi_ept_index(cursor->at, cursor->level);
}

/* Into the table that the entry there points to. */
static inline void vmemi_ept_cursor_down(struct vmemi_ept_cursor *cursor, const vmem_ept *ept,
					 uint64_t entry)
{
	cursor->table[--cursor->level] = vmemi_ept_at(ept, entry & VMEM_EPT_ADDRESS);
}

/* Entries from here to the end of the table or of the range; one that sticks out counts. */
static inline uint32_t vmemi_ept_cursor_entries(const struct vmemi_ept_cursor *cursor)
{
	uint32_t here = VMEM_EPT_ENTRIES - vmemi_ept_index(cursor->at, cursor->level);
	uint32_t shift = vmemi_ept_shift(cursor->level);
	uint64_t wanted = ((cursor->end - 1) >> shift) - (cursor->at >> shift) + 1;

	return wanted < here ? (uint32_t)wanted : here;
}

/* Past @entries, and up as far as tables end there. */
static inline void vmemi_ept_cursor_pass(struct vmemi_ept_cursor *cursor, uint32_t entries)
{
	uint32_t shift = vmemi_ept_shift(cursor->level);

	cursor->at = ((cursor->at >> shift) + entries) << shift;
	while (cursor->level < cursor->levels &&
	       !(cursor->at & (vmemi_ept_bytes(cursor->level + 1) - 1)))
		cursor->level++;
}

/* Whether the entry there lies in the range as a whole, which began at @gpa. */
static inline bool vmemi_ept_cursor_whole(const struct vmemi_ept_cursor *cursor, uint64_t gpa)
{
	uint64_t bytes = vmemi_ept_bytes(cursor->level), start = cursor->at & ~(bytes - 1);

	return start >= gpa && bytes <= cursor->end - start;
}

#endif
