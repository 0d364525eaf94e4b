/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of features: lines of one cache line, grown and shrunk one at a time by linear hashing
 * (Litwin, VLDB 1980).
 *
 *     feature (32 bits)   ...  tag (level .. level+14)  line (0 .. level-1)
 *     line                10 ids, 10 tags, latest first; in a full one, one is crowded out
 *     chunks              of 256 lines; the first one grows to that
 *
 * With 2^level lines, the low bits of a feature choose its line. When line n is split, entries whose
 * next bit is 1 move to line n + 2^level, and both are of level + 1. That bit was the lowest of their tag,
 * which has one bit less then: a tag is as many bits as are known, with a 1 above them. So old entries
 * are known less well than new ones, but half of all entries are as new as the last doubling. Tags of
 * less than LEAST_KNOWN bits are dropped. Merging two lines gives the bit back.
 *
 * Guard: the caller's, all calls on one table are serial. */
#ifndef VMEMI_SIMILAR_TABLE_H
#define VMEMI_SIMILAR_TABLE_H
#include <stdbool.h>
#include <vmem/similar.h>
#include "base/alloc.h"

#define VMEMI_SIMILAR_LINE_BYTES 64u
#define VMEMI_SIMILAR_LINE_ENTRIES 10u
#define VMEMI_SIMILAR_LEAST_LINES 16u
#define VMEMI_SIMILAR_CHUNK_LINES 256u
#define VMEMI_SIMILAR_KNOWN_BITS 15u /* of a new tag, with the bits of the line at most 32 */
#define VMEMI_SIMILAR_LEAST_KNOWN 6u
#define VMEMI_SIMILAR_MOST_LINES (UINT32_C(1) << 26) /* a feature has 32 bits */

struct vmemi_similar_line {
	uint32_t id[VMEMI_SIMILAR_LINE_ENTRIES];
	uint16_t tag[VMEMI_SIMILAR_LINE_ENTRIES];
	uint32_t used;
};

struct vmem_similar {
	struct vmemi_counting_allocator memory;
	struct vmemi_similar_line **chunks;
	uint32_t chunk_room;  /* of `chunks` */
	uint32_t chunk_count; /* in `chunks` */
	uint32_t first_lines; /* in the first chunk; with more chunks, CHUNK_LINES */
	uint32_t lines;       /* in use */
	uint32_t want_lines;  /* that adds and forgets work towards; a power of two */
	uint32_t max_lines;   /* most of want_lines; a power of two */
	uint64_t entries;     /* in all lines */
	uint64_t crowded;     /* entries dropped for want of room since the start */
};

/* Where a feature is: its line, and the bits of the feature above those that chose the line. */
struct vmemi_similar_place {
	struct vmemi_similar_line *line;
	uint32_t rest;
	uint32_t level;
};

struct vmemi_similar_line *vmemi_similar_line_at(const struct vmem_similar *s, uint32_t line);
struct vmemi_similar_place vmemi_similar_place_of(const struct vmem_similar *s, uint32_t feature);

/* The first lines. 0, -VMEM_ENOMEM: what there is, vmemi_similar_table_free() frees. */
int vmemi_similar_table_init(struct vmem_similar *s);
void vmemi_similar_table_free(struct vmem_similar *s);

/* At most @steps lines towards as many as the entries want. True: there are more than that still. */
bool vmemi_similar_table_adapt(struct vmem_similar *s, uint32_t steps);

/* The limit for as many entries. */
void vmemi_similar_table_fit(struct vmem_similar *s, uint64_t entries);

void vmemi_similar_line_remove(struct vmemi_similar_line *line, uint32_t at);

/* Whether entry @at may be the place's feature. Of what is known of its tag all bits agree. */
static inline int vmemi_similar_is(const struct vmemi_similar_place *p, uint32_t at)
{
	uint32_t tag = p->line->tag[at];
	uint32_t known = 31u - (uint32_t)__builtin_clz(tag);

	return ((tag ^ p->rest) & ((UINT32_C(1) << known) - 1)) == 0;
}

/* Walks it all: for tests. The number of things that are wrong. */
uint64_t vmemi_similar_check(const struct vmem_similar *s);

#endif
