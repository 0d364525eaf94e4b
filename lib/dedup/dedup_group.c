/* SPDX-License-Identifier: BSD-2-Clause */
/* Groups of entries: see dedup_group.h. */
#include "dedup/dedup_group.h"
#include <stddef.h>

#define LINE VMEMI_DEDUP_LINE_ENTRIES

vmemi_dedup_entry *vmemi_dedup_walk_next(struct vmemi_dedup_walk *w)
{
	for (; w->lines_left; w->lines_left--) {
		vmemi_dedup_entry *line = w->group.entries + (size_t)w->line * LINE;

		while (w->slot < LINE) {
			vmemi_dedup_entry entry = line[w->slot];

			if (!entry)
				return NULL;
			w->slot++;
			if (((uint32_t)entry ^ w->mix) <= VMEMI_DEDUP_LOW_MASK)
				return &line[w->slot - 1];
		}
		w->slot = 0;
		w->line = vmemi_dedup_line_after(w->line, w->group.lines);
	}
	return NULL;
}

bool vmemi_dedup_group_put(struct vmemi_dedup_group group, uint32_t mix, vmemi_dedup_entry entry)
{
	uint32_t n = vmemi_dedup_home(mix, group.lines);

	for (uint32_t left = group.lines; left; left--) {
		vmemi_dedup_entry *line = group.entries + (size_t)n * LINE;

		for (uint32_t slot = 0; slot < LINE; slot++) {
			if (!line[slot]) {
				line[slot] = entry;
				return true;
			}
		}
		n = vmemi_dedup_line_after(n, group.lines);
	}
	return false;
}

/* Takes an entry out of its line, whose last one moves to its place. Whether the line was full. */
static bool take_out(vmemi_dedup_entry *line, uint32_t slot)
{
	uint32_t last = LINE - 1;

	while (!line[last])
		last--;
	line[slot] = line[last];
	line[last] = 0;
	return last == LINE - 1;
}

/* An entry of line @from that has passed by line @hole, or NULL. */
static vmemi_dedup_entry *passed_by(struct vmemi_dedup_group group, uint32_t low, uint32_t hole,
				    uint32_t from)
{
	vmemi_dedup_entry *line = group.entries + (size_t)from * LINE;
	uint32_t way = (from + group.lines - hole) % group.lines;

	for (uint32_t slot = 0; slot < LINE && line[slot]; slot++) {
		uint32_t home =
			vmemi_dedup_home(vmemi_dedup_entry_mix(line[slot], low), group.lines);

		if ((from + group.lines - home) % group.lines >= way)
			return &line[slot];
	}
	return NULL;
}

/* A hole in a line that was full is filled with an entry that has passed by it, which makes a hole
 * further on, and so forth until a line that was not full: nothing has passed by that one. */
bool vmemi_dedup_group_remove(struct vmemi_dedup_group group, uint32_t low,
			      vmemi_dedup_entry *entry)
{
	uint32_t at = (uint32_t)(entry - group.entries), hole = at / LINE;

	if (!take_out(group.entries + (size_t)hole * LINE, at % LINE))
		return false;
	for (uint32_t n = vmemi_dedup_line_after(hole, group.lines); n != hole;
	     n = vmemi_dedup_line_after(n, group.lines)) {
		vmemi_dedup_entry *line = group.entries + (size_t)n * LINE;
		vmemi_dedup_entry *moves = passed_by(group, low, hole, n);
		bool full = line[LINE - 1] != 0;

		if (moves) {
			group.entries[(size_t)hole * LINE + LINE - 1] = *moves;
			take_out(line, (uint32_t)(moves - line));
			hole = n;
		}
		if (!full)
			return true;
	}
	return true;
}
