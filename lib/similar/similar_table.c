/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of features, its growing and shrinking: see similar_table.h. */
#include "similar/similar_table.h"
#include "base/mem.h"

#define FULL_ENTRIES 9u  /* a line on average: above, twice the lines */
#define EMPTY_ENTRIES 2u /* below, half of them. Apart, so that no add and forget go to and fro */
#define FIRST_CHUNK_ROOM 4u

static uint32_t level_of(uint32_t lines)
{
	return 31u - (uint32_t)__builtin_clz(lines);
}

struct vmemi_similar_line *vmemi_similar_line_at(const struct vmem_similar *s, uint32_t line)
{
	return &s->chunks[line / VMEMI_SIMILAR_CHUNK_LINES][line % VMEMI_SIMILAR_CHUNK_LINES];
}

struct vmemi_similar_place vmemi_similar_place_of(const struct vmem_similar *s, uint32_t feature)
{
	uint32_t level = level_of(s->lines), line = feature & ((UINT32_C(2) << level) - 1);
	uint32_t split = s->lines - (UINT32_C(1) << level);

	/* Lines below `split` are split, and their other halves are the last ones. */
	if ((line & ((UINT32_C(1) << level) - 1)) < split)
		level++;
	else
		line &= (UINT32_C(1) << level) - 1;
	return (struct vmemi_similar_place){ vmemi_similar_line_at(s, line), feature >> level,
					     level };
}

void vmemi_similar_line_remove(struct vmemi_similar_line *line, uint32_t at)
{
	uint32_t after = --line->used - at;

	memmove(line->id + at, line->id + at + 1, after * sizeof(line->id[0]));
	memmove(line->tag + at, line->tag + at + 1, after * sizeof(line->tag[0]));
}

static void line_append(struct vmemi_similar_line *line, uint32_t tag, uint32_t id)
{
	line->tag[line->used] = (uint16_t)tag;
	line->id[line->used++] = id;
}

/* --- Chunks --- */

static size_t lines_bytes(uint32_t lines)
{
	return lines * sizeof(struct vmemi_similar_line);
}

static struct vmemi_similar_line *lines_new(struct vmem_similar *s, uint32_t lines)
{
	return vmemi_zalloc(&s->memory.allocator, lines_bytes(lines), VMEMI_SIMILAR_LINE_BYTES);
}

static void lines_free(struct vmem_similar *s, struct vmemi_similar_line *chunk, uint32_t lines)
{
	vmemi_free(&s->memory.allocator, chunk, lines_bytes(lines), VMEMI_SIMILAR_LINE_BYTES);
}

/* Gives the first chunk @lines lines, at least as many as are used. 0: no memory. */
static int first_chunk_resize(struct vmem_similar *s, uint32_t lines)
{
	struct vmemi_similar_line *chunk = lines_new(s, lines);

	if (!chunk)
		return 0;
	memcpy(chunk, s->chunks[0], lines_bytes(s->lines));
	lines_free(s, s->chunks[0], s->first_lines);
	s->chunks[0] = chunk;
	s->first_lines = lines;
	return 1;
}

/* Room for @room chunks, at least as many as there are. 0: no memory. */
static int chunks_resize(struct vmem_similar *s, uint32_t room)
{
	struct vmemi_similar_line **chunks =
		vmemi_alloc(&s->memory.allocator, room * sizeof(*chunks), sizeof(*chunks));

	if (!chunks)
		return 0;
	memcpy(chunks, s->chunks, s->chunk_count * sizeof(*chunks));
	vmemi_free(&s->memory.allocator, s->chunks, s->chunk_room * sizeof(*chunks),
		   sizeof(*chunks));
	s->chunks = chunks;
	s->chunk_room = room;
	return 1;
}

/* Room for one more line. 0: no memory. */
static int line_room(struct vmem_similar *s)
{
	struct vmemi_similar_line *chunk;

	if (s->lines < s->first_lines + (s->chunk_count - 1) * VMEMI_SIMILAR_CHUNK_LINES)
		return 1;
	if (s->first_lines < VMEMI_SIMILAR_CHUNK_LINES)
		return first_chunk_resize(s, 2 * s->first_lines);
	if (s->chunk_count == s->chunk_room && !chunks_resize(s, 2 * s->chunk_room))
		return 0;
	chunk = lines_new(s, VMEMI_SIMILAR_CHUNK_LINES);
	if (!chunk)
		return 0;
	s->chunks[s->chunk_count++] = chunk;
	return 1;
}

/* Frees what no line is in any more. */
static void line_give(struct vmem_similar *s)
{
	if (s->chunk_count > 1 && s->lines == (s->chunk_count - 1) * VMEMI_SIMILAR_CHUNK_LINES)
		lines_free(s, s->chunks[--s->chunk_count], VMEMI_SIMILAR_CHUNK_LINES);
	else if (s->chunk_count == 1 && s->lines <= s->first_lines / 2)
		first_chunk_resize(s, s->first_lines / 2);
	if (s->chunk_count < s->chunk_room / 4)
		chunks_resize(s, s->chunk_room / 2);
}

/* --- Splitting and merging --- */

/* 0: no memory. */
static int split_one(struct vmem_similar *s)
{
	uint32_t from = s->lines - (UINT32_C(1) << level_of(s->lines));
	struct vmemi_similar_line old, *line[2];

	if (!line_room(s))
		return 0;
	line[0] = vmemi_similar_line_at(s, from);
	line[1] = vmemi_similar_line_at(s, s->lines++);
	old = *line[0];
	line[0]->used = 0;
	line[1]->used = 0;
	for (uint32_t i = 0; i < old.used; i++) {
		uint32_t tag = old.tag[i];

		if (tag >> (VMEMI_SIMILAR_LEAST_KNOWN + 1)) {
			line_append(line[tag & 1], tag >> 1, old.id[i]);
		} else {
			s->entries--;
			s->crowded++;
		}
	}
	return 1;
}

/* The tag with its bit given back. Of too many the highest is forgotten. */
static uint32_t tag_longer(uint32_t tag, uint32_t bit)
{
	tag = tag << 1 | bit;
	if (tag >> (VMEMI_SIMILAR_KNOWN_BITS + 1))
		tag = (tag & ((UINT32_C(1) << VMEMI_SIMILAR_KNOWN_BITS) - 1)) |
		      UINT32_C(1) << VMEMI_SIMILAR_KNOWN_BITS;
	return tag;
}

static void merge_one(struct vmem_similar *s)
{
	uint32_t last = s->lines - 1, into = last - (UINT32_C(1) << level_of(last));
	struct vmemi_similar_line *merged = vmemi_similar_line_at(s, into);
	struct vmemi_similar_line half[2] = { *merged, *vmemi_similar_line_at(s, last) };

	/* By turns: how old entries of different lines are is not known. */
	s->entries -= half[0].used + half[1].used;
	merged->used = 0;
	for (uint32_t i = 0; i < 2 * VMEMI_SIMILAR_LINE_ENTRIES; i++) {
		const struct vmemi_similar_line *from = &half[i & 1];

		if (i / 2 >= from->used)
			continue;
		if (merged->used < VMEMI_SIMILAR_LINE_ENTRIES)
			line_append(merged, tag_longer(from->tag[i / 2], i & 1), from->id[i / 2]);
		else
			s->crowded++;
	}
	s->entries += merged->used;
	s->lines = last;
	line_give(s);
}

/* Powers of two: in between, the lines that are not split yet have twice as many entries as others. */
static void choose_lines(struct vmem_similar *s)
{
	if (s->entries > (uint64_t)FULL_ENTRIES * s->want_lines)
		s->want_lines *= 2;
	else if (s->entries < (uint64_t)EMPTY_ENTRIES * s->want_lines)
		s->want_lines /= 2;
	if (s->want_lines > s->max_lines)
		s->want_lines = s->max_lines;
	if (s->want_lines < VMEMI_SIMILAR_LEAST_LINES)
		s->want_lines = VMEMI_SIMILAR_LEAST_LINES;
}

void vmemi_similar_table_fit(struct vmem_similar *s, uint64_t entries)
{
	uint32_t lines = s->max_lines;

	while (lines > VMEMI_SIMILAR_LEAST_LINES &&
	       (uint64_t)FULL_ENTRIES * (lines / 2) >= entries + entries / 4)
		lines /= 2;
	while (lines < VMEMI_SIMILAR_MOST_LINES && (uint64_t)FULL_ENTRIES * lines < entries)
		lines *= 2;
	s->max_lines = lines;
}

bool vmemi_similar_table_adapt(struct vmem_similar *s, uint32_t steps)
{
	for (choose_lines(s); steps && s->lines != s->want_lines; steps--, choose_lines(s))
		if (s->lines > s->want_lines)
			merge_one(s);
		else if (!split_one(s))
			return false;
	return s->lines > s->want_lines;
}

int vmemi_similar_table_init(struct vmem_similar *s)
{
	s->chunks = vmemi_zalloc(&s->memory.allocator, FIRST_CHUNK_ROOM * sizeof(*s->chunks),
				 sizeof(*s->chunks));
	if (!s->chunks)
		return -VMEM_ENOMEM;
	s->chunk_room = FIRST_CHUNK_ROOM;
	s->chunks[0] = lines_new(s, VMEMI_SIMILAR_LEAST_LINES);
	if (!s->chunks[0])
		return -VMEM_ENOMEM;
	s->chunk_count = 1;
	s->first_lines = s->lines = s->want_lines = VMEMI_SIMILAR_LEAST_LINES;
	return 0;
}

void vmemi_similar_table_free(struct vmem_similar *s)
{
	for (uint32_t i = 0; i < s->chunk_count; i++)
		lines_free(s, s->chunks[i], i ? VMEMI_SIMILAR_CHUNK_LINES : s->first_lines);
	vmemi_free(&s->memory.allocator, s->chunks, s->chunk_room * sizeof(*s->chunks),
		   sizeof(*s->chunks));
}
