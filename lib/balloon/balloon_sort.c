/* SPDX-License-Identifier: BSD-2-Clause */
/* Sorts the runs of the list, which are few, and joins them: by digits of where they begin, the lowest first, without
 * the bits that are the same in all: five times at most, whatever a guest sends. */
#include "balloon/balloon_internal.h"
#include "base/mem.h"

#define DIGIT 8u /* bits, at most */

static void sort_by(uint32_t shift, uint32_t bits, const struct vmemi_balloon_run *in,
		    struct vmemi_balloon_run *out, uint32_t count)
{
	const uint64_t mask = (UINT64_C(1) << bits) - 1;
	uint16_t places[1u << DIGIT];
	uint32_t place = 0, n;

	memset(places, 0, sizeof(*places) << bits);
	for (uint32_t i = 0; i < count; i++)
		places[in[i].first >> shift & mask]++;
	for (uint32_t i = 0; i <= mask; i++) {
		n = places[i];
		places[i] = (uint16_t)place;
		place += n;
	}
	for (uint32_t i = 0; i < count; i++)
		out[places[in[i].first >> shift & mask]++] = in[i];
}

/* Sorted ones to @out, joined. How many those are. */
static uint32_t join(const struct vmemi_balloon_run *in, uint32_t count,
		     struct vmemi_balloon_run *out)
{
	struct vmemi_balloon_run last = in[0];
	uint32_t n = 0;

	for (uint32_t i = 1; i < count; i++) {
		if (in[i].first > last.end) {
			out[n++] = last;
			last = in[i];
		} else if (in[i].end > last.end) {
			last.end = in[i].end;
		}
	}
	out[n++] = last;
	return n;
}

void vmemi_balloon_sort(struct vmemi_balloon_list *list)
{
	struct vmemi_balloon_run *runs = list->runs + list->at, *in = runs, *out = list->spare;
	uint32_t count = list->count - list->at, shift, end, bits;
	struct vmemi_balloon_run *other;
	uint64_t differ = 0;

	for (uint32_t i = 1; i < count; i++)
		differ |= runs[i].first ^ runs[0].first;
	if (differ) {
		shift = (uint32_t)__builtin_ctzll(differ);
		end = 64 - (uint32_t)__builtin_clzll(differ);
		bits = (end - shift + DIGIT - 1) / DIGIT; /* digits, */
		bits = (end - shift + bits - 1) / bits;   /* and as short as they may be */
		for (; shift < end; shift += bits) {
			sort_by(shift, bits, in, out, count);
			other = in;
			in = out;
			out = other;
		}
	}
	list->count = list->at + join(in, count, runs);
	list->sorted = true;
}
