/* SPDX-License-Identifier: BSD-2-Clause */
/* Entries, and groups of them: small hash tables of some cache lines in a row. Pure functions on memory
 * that the caller has to itself. */
#ifndef VMEMI_DEDUP_GROUP_H
#define VMEMI_DEDUP_GROUP_H
#include <stdbool.h>
#include <stdint.h>

/* id : 32 | bits 8 to 31 of the mix : 24 | count : 8. All zero: none. The mix is what a page's hash and
 * domain are made into; its lowest 8 bits follow from the group. Count 0: a hint. */
typedef uint64_t vmemi_dedup_entry;

#define VMEMI_DEDUP_LINE_BYTES 64u
#define VMEMI_DEDUP_LINE_ENTRIES 8u
#define VMEMI_DEDUP_COUNT_SPILLED 255u /* as count: it is in the spill */
#define VMEMI_DEDUP_LOW_BITS 8u
#define VMEMI_DEDUP_LOW_MASK ((1u << VMEMI_DEDUP_LOW_BITS) - 1)

static inline vmemi_dedup_entry vmemi_dedup_entry_of(uint32_t mix, uint32_t id, uint32_t count)
{
	return (uint64_t)id << 32 | (mix & ~VMEMI_DEDUP_LOW_MASK) | count;
}

static inline uint32_t vmemi_dedup_entry_id(vmemi_dedup_entry entry)
{
	return (uint32_t)(entry >> 32);
}

static inline uint32_t vmemi_dedup_entry_count(vmemi_dedup_entry entry)
{
	return (uint32_t)entry & VMEMI_DEDUP_LOW_MASK;
}

/* @low: a mix of the same group. */
static inline uint32_t vmemi_dedup_entry_mix(vmemi_dedup_entry entry, uint32_t low)
{
	return ((uint32_t)entry & ~VMEMI_DEDUP_LOW_MASK) | (low & VMEMI_DEDUP_LOW_MASK);
}

/* Each line is filled from its beginning. An entry is in its home line, or, if all lines from there on
 * are full, in the next one that is not, in a circle. */
struct vmemi_dedup_group {
	vmemi_dedup_entry *entries;
	uint32_t lines;
};

/* The home line of a mix. The multiplier is 2^32 divided by the golden ratio: the product's upper bits
 * depend on all bits of the mix (Knuth, TAOCP 3, 6.4). */
static inline uint32_t vmemi_dedup_home(uint32_t mix, uint32_t lines)
{
	return (mix * UINT32_C(0x9e3779b1) >> 16) * lines >> 16;
}

static inline uint32_t vmemi_dedup_line_after(uint32_t line, uint32_t lines)
{
	return line + 1 == lines ? 0 : line + 1;
}

/* Walks the entries of one mix. */
struct vmemi_dedup_walk {
	struct vmemi_dedup_group group;
	uint32_t mix;
	uint32_t line;
	uint32_t slot;
	uint32_t lines_left;
};

static inline struct vmemi_dedup_walk vmemi_dedup_walk_of(struct vmemi_dedup_group group,
							  uint32_t mix)
{
	return (struct vmemi_dedup_walk){ .group = group,
					  .mix = mix,
					  .line = vmemi_dedup_home(mix, group.lines),
					  .lines_left = group.lines };
}

/* The next one, or NULL. When that comes, lines_left is 0 if the group is full: only then can there be
 * more of them elsewhere. */
vmemi_dedup_entry *vmemi_dedup_walk_next(struct vmemi_dedup_walk *walk);

/* Whether there was room. */
bool vmemi_dedup_group_put(struct vmemi_dedup_group group, uint32_t mix, vmemi_dedup_entry entry);

/* @low: a mix of the group. Returns whether the group may have been full. */
bool vmemi_dedup_group_remove(struct vmemi_dedup_group group, uint32_t low,
			      vmemi_dedup_entry *entry);

#endif
