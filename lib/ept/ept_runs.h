/* SPDX-License-Identifier: BSD-2-Clause */
/* Loops over entries in a row of one table, eight at a time, with nothing else in them. Guard: serial calls. */
#ifndef VMEMI_EPT_RUNS_H
#define VMEMI_EPT_RUNS_H
#include "ept/ept_internal.h"

#define VMEMI_EPT_STREAK 8u

/* Bits that are set in all of some entries, and in any. */
struct vmemi_ept_seen {
	uint64_t all, any;
};

/* Changes entries to (old & keep) | give, as long as all bits of @want are set in the next eight. Returns how many.
 * @seen: NULL, or what was in them. */
static inline uint64_t vmemi_ept_streak(uint64_t *slots, uint64_t count, uint64_t want,
					uint64_t keep, uint64_t give, struct vmemi_ept_seen *seen)
{
	uint64_t *s = slots, *end = slots + (count & ~(uint64_t)(VMEMI_EPT_STREAK - 1));
	uint64_t all = UINT64_MAX, any = 0;

	for (; s < end; s += VMEMI_EPT_STREAK) {
		uint64_t a = vmemi_ept_load(s), b = vmemi_ept_load(s + 1);
		uint64_t c = vmemi_ept_load(s + 2), d = vmemi_ept_load(s + 3);
		uint64_t e = vmemi_ept_load(s + 4), f = vmemi_ept_load(s + 5);
		uint64_t g = vmemi_ept_load(s + 6), h = vmemi_ept_load(s + 7);
		uint64_t each = (a & b & c & d) & (e & f & g & h);

		if (want & ~each)
			break;
		all &= each;
		any |= (a | b | c | d) | (e | f | g | h);
		vmemi_ept_store(s, (a & keep) | give);
		vmemi_ept_store(s + 1, (b & keep) | give);
		vmemi_ept_store(s + 2, (c & keep) | give);
		vmemi_ept_store(s + 3, (d & keep) | give);
		vmemi_ept_store(s + 4, (e & keep) | give);
		vmemi_ept_store(s + 5, (f & keep) | give);
		vmemi_ept_store(s + 6, (g & keep) | give);
		vmemi_ept_store(s + 7, (h & keep) | give);
	}
	if (seen)
		*seen = (struct vmemi_ept_seen){ all, any };
	return (uint64_t)(s - slots);
}

/* All bits of eight entries. */
static inline uint64_t vmemi_ept_any_of_8(const uint64_t *s)
{
	return (vmemi_ept_load(s) | vmemi_ept_load(s + 1) | vmemi_ept_load(s + 2) |
		vmemi_ept_load(s + 3)) |
	       (vmemi_ept_load(s + 4) | vmemi_ept_load(s + 5) | vmemi_ept_load(s + 6) |
		vmemi_ept_load(s + 7));
}

/* All bits that are set in entries. */
static inline uint64_t vmemi_ept_any_of(const uint64_t *slots, uint64_t count)
{
	uint64_t any = 0;

	for (; count >= 8; slots += 8, count -= 8)
		any |= vmemi_ept_any_of_8(slots);
	for (; count; slots++, count--)
		any |= vmemi_ept_load(slots);
	return any;
}

/* Whether entries are all empty: ends at the first that are not. */
static inline bool vmemi_ept_all_empty(const uint64_t *slots, uint64_t count)
{
	for (; count >= 8; slots += 8, count -= 8)
		if (!vmemi_ept_is_empty(vmemi_ept_any_of_8(slots)))
			return false;
	for (; count; slots++, count--)
		if (!vmemi_ept_is_empty(vmemi_ept_load(slots)))
			return false;
	return true;
}

#endif
