/* SPDX-License-Identifier: BSD-2-Clause */
/* Counting the pages of an access by the stamps that they had before: a part of track_scan.h, whose
 * vectors it uses. */
#ifndef VMEMI_TRACK_COUNT_H
#define VMEMI_TRACK_COUNT_H
#include "base/mem.h"
#include "track/track_internal.h"

/* Pages of a word are counted by stamps they share, as long as more than MANY are left and at least ALIKE
 * were alike. */
#define MANY 16u
#define ALIKE 10u

static inline void count_two(struct vmem_track *t, uint32_t lane, uint64_t stamps)
{
	t->moved[lane][stamps & 0xff]++;
	t->moved[lane + 1][stamps >> 8 & 0xff]++;
}

/* Counts pages that are accessed by their stamps before, lane by lane. */
static inline void count_queue(struct vmem_track *t, uint32_t queued)
{
	uint32_t i = 0;

	for (; i + VMEMI_TRACK_LANES <= queued; i += VMEMI_TRACK_LANES) {
		uint64_t eight;

		memcpy(&eight, t->queue + i, sizeof(eight));
		count_two(t, 0, eight);
		count_two(t, 2, eight >> 16);
		count_two(t, 4, eight >> 32);
		count_two(t, 6, eight >> 48);
	}
	for (; i < queued; i++)
		t->moved[0][t->queue[i]]++;
}

/* Counts those that are alike, without looking at each: pages that were accessed together are accessed
 * together again. @return the others */
static inline uint64_t count_alike(struct vmem_track *t, const uint8_t *stamps, struct v64 stamp,
				   uint64_t pages)
{
	while (vmemi_bits_set(pages) > MANY) {
		uint8_t one = stamps[__builtin_ctzll(pages)];
		uint64_t same = v64_equal(stamp, one) & pages;

		t->moved[0][one] += vmemi_bits_set(same);
		pages &= ~same;
		if (vmemi_bits_set(same) < ALIKE)
			break;
	}
	return pages;
}

#endif
