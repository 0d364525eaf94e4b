/* SPDX-License-Identifier: BSD-2-Clause */
/* Sorts the runs of the list, which are few: by digits, the lower one first, and two at a time, without the bits that
 * are the same in all. Where that is more than two digits have, the highest bits nearly always do: those below are
 * looked at only if the list is not in order then. */
#include "balloon/balloon_internal.h"
#include "base/mem.h"

#define BITS 9u /* of a digit */
#define DIGITS (1u << BITS)

_Static_assert(VMEMI_BALLOON_LIST <= 256, "places are of 8 bits");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "bytes of a word are in order");

static inline uint64_t high_of(uint64_t run)
{
	return run >> (64 - BITS);
}

static inline uint64_t low_of(uint64_t run)
{
	return run >> (64 - 2 * BITS) & (DIGITS - 1);
}

/* Numbers of runs for each digit become the places of those runs: how many have a lower one. Only behind the last run a
 * sum may be more than a byte has, and there it does not matter. */
static uint64_t place(uint8_t *counts, uint64_t before)
{
	uint64_t word, sums;

	memcpy(&word, counts, sizeof(word));
	sums = (word + before) * UINT64_C(0x0101010101010101);
	word = sums - word;
	memcpy(counts, &word, sizeof(word));
	return sums >> 56;
}

/* By the two highest digits of the runs, each times @scale. */
static void sort_by(uint64_t *runs, uint64_t *spare, uint32_t count, uint64_t scale)
{
	uint8_t highs[DIGITS] = { 0 }, lows[DIGITS] = { 0 };
	uint64_t before_high = 0, before_low = 0;

	for (uint32_t i = 0; i < count; i++) {
		highs[high_of(runs[i] * scale)]++;
		lows[low_of(runs[i] * scale)]++;
	}
	for (uint32_t i = 0; i < DIGITS; i += 8) {
		before_high = place(highs + i, before_high);
		before_low = place(lows + i, before_low);
	}
	for (uint32_t i = 0; i < count; i++)
		spare[lows[low_of(runs[i] * scale)]++] = runs[i];
	for (uint32_t i = 0; i < count; i++)
		runs[highs[high_of(spare[i] * scale)]++] = spare[i];
}

static bool rise(const uint64_t *runs, uint32_t count)
{
	uint32_t i = 1;

	while (i < count && runs[i - 1] <= runs[i])
		i++;
	return i >= count;
}

void vmemi_balloon_sort(struct vmemi_balloon_list *list)
{
	uint64_t *runs = list->runs + list->at, differ = list->differ << 32, scale;
	uint32_t count = list->count - list->at;

	list->sorted = true;
	scale = UINT64_C(1) << __builtin_clzll(differ | 1);
	sort_by(runs, list->spare, count, scale);
	if (!(differ * scale << 2 * BITS) || rise(runs, count))
		return;
	sort_by(runs, list->spare, count, scale << 2 * BITS);
	sort_by(runs, list->spare, count, scale);
}
