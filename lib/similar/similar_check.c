/* SPDX-License-Identifier: BSD-2-Clause */
/* What holds between two calls, for tests: see similar_table.h. */
#include "similar/similar_table.h"

static uint64_t check_line(const struct vmemi_similar_line *line)
{
	uint64_t wrong = line->used > VMEMI_SIMILAR_LINE_ENTRIES;

	for (uint32_t i = 0; i < line->used && i < VMEMI_SIMILAR_LINE_ENTRIES; i++)
		wrong += !(line->tag[i] >> VMEMI_SIMILAR_LEAST_KNOWN);
	return wrong;
}

uint64_t vmemi_similar_check(const struct vmem_similar *s)
{
	uint32_t room = s->first_lines + (s->chunk_count - 1) * VMEMI_SIMILAR_CHUNK_LINES;
	uint64_t entries = 0, bytes, wrong = 0;

	wrong += s->lines > room || s->lines < VMEMI_SIMILAR_LEAST_LINES;
	wrong += s->chunk_count > s->chunk_room || !s->chunk_count;
	wrong += s->chunk_count > 1 && s->first_lines != VMEMI_SIMILAR_CHUNK_LINES;
	wrong += s->chunk_count > 1 && s->lines <= room - VMEMI_SIMILAR_CHUNK_LINES;
	wrong += (s->want_lines & (s->want_lines - 1)) || s->want_lines < VMEMI_SIMILAR_LEAST_LINES;
	for (uint32_t line = 0; line < s->lines; line++) {
		wrong += check_line(vmemi_similar_line_at(s, line));
		entries += vmemi_similar_line_at(s, line)->used;
	}
	bytes = (uint64_t)room * VMEMI_SIMILAR_LINE_BYTES + s->chunk_room * sizeof(*s->chunks);
	wrong += entries != s->entries;
	wrong += bytes != atomic_load_explicit(&s->memory.bytes, memory_order_relaxed);
	return wrong;
}
