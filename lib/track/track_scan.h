/* SPDX-License-Identifier: BSD-2-Clause */
/* The passes over stamps and states, written once over a vector of 64 bytes. The includer defines
 *
 *	VMEMI_SCAN                      the name of the table
 *	struct v64                      64 bytes, from a 64-byte boundary of memory
 *	load(at), store(at, v)
 *	v64_less(v, byte)               byte - v, each, modulo 256
 *	v64_min(v, byte)
 *	v64_where(mask, byte)           byte where the mask has a bit, else 0
 *	v64_select(mask, a, b)          a where the mask has a bit, else b
 *	v64_or(a, b)
 *	v64_max(v)                      the largest byte
 *	v64_equal(v, byte), v64_any(v, bits), v64_at_least(v, byte), v64_same(a, b)
 *	                                masks: the byte is equal, has one of the bits, is at least; all bytes
 *
 * and, if it also defines VMEMI_SCAN_GATHERS,
 *
 *	gather(to, from, v, mask)       writes the bytes of v, which are those at `from`, whose bit the mask
 *	                                has, in a row; may write up to a word more */
#ifndef VMEMI_TRACK_SCAN_H
#define VMEMI_TRACK_SCAN_H
#include "base/mem.h"
#include "track/track_internal.h"

#ifndef VMEMI_SCAN_GATHERS
/* The branches of a loop over the bits would be guessed wrong for each word: always takes as many as there
 * may well be. */
static inline void gather(uint8_t *to, const uint8_t *from, struct v64 v, uint64_t mask)
{
	(void)v;
	while (mask) {
		for (uint32_t i = 0; i < VMEMI_TRACK_STRIDE; i++) {
			*to++ = from[__builtin_ctzll(mask | UINT64_C(1) << 63)];
			mask &= mask - 1;
		}
	}
}
#endif

static inline void note_kind(struct vmem_track *t, uint64_t word, struct v64 state)
{
	uint64_t *kinds = t->kinds + word / VMEMI_TRACK_GROUP * 2;
	uint64_t bit = UINT64_C(1) << word % VMEMI_TRACK_GROUP;
	uint32_t kind = v64_any(state, VMEMI_TRACK_SPECIAL)                  ? VMEMI_TRACK_ANY
			: v64_equal(state, 0) == UINT64_MAX                  ? VMEMI_TRACK_CLEAN
			: v64_equal(state, VMEM_TRACK_WRITTEN) == UINT64_MAX ? VMEMI_TRACK_DIRTY
									     : VMEMI_TRACK_MIXED;

	kinds[0] = (kinds[0] & ~bit) | (kind & 1 ? bit : 0);
	kinds[1] = (kinds[1] & ~bit) | (kind & 2 ? bit : 0);
}

static inline void note_oldest(struct vmem_track *t, uint64_t word, struct v64 age,
			       uint64_t without)
{
	uint8_t oldest = v64_max(v64_select(without, v64_where(0, 0), age));

	t->oldest[word] = (uint8_t)(vmemi_track_now(t) - oldest);
}

#include "track/track_touch.h"

static void settle(struct vmem_track *t, uint64_t word, uint64_t words)
{
	uint8_t now = vmemi_track_now(t);

	for (uint64_t end = word + words; word < end; word++) {
		uint8_t *stamps = t->stamps + word * VMEMI_TRACK_WORD;
		struct v64 before = load(stamps);
		struct v64 age = v64_min(v64_less(before, now), VMEMI_TRACK_OLDEST);
		struct v64 after = v64_less(age, now);
		struct v64 state = load(t->states + word * VMEMI_TRACK_WORD);

		if (!v64_same(before, after))
			store(stamps, after);
		note_kind(t, word, state);
		note_oldest(t, word, age, v64_any(state, VMEMI_TRACK_SPECIAL));
	}
}

/* The words of a group whose oldest page may be that old. */
static inline uint64_t old_words(const struct vmem_track *t, uint64_t group, uint8_t low)
{
	if (group * VMEMI_TRACK_GROUP >= t->words)
		return 0;
	return v64_at_least(
		v64_less(load(t->oldest + group * VMEMI_TRACK_GROUP), vmemi_track_now(t)), low);
}

/* The first of some words of a group. @return the rest of them */
static inline uint64_t expect_match(const struct vmem_track *t, uint64_t group, uint64_t words)
{
	if (words) {
		uint64_t word = group * VMEMI_TRACK_GROUP + (uint32_t)__builtin_ctzll(words);

		__builtin_prefetch(t->stamps + word * VMEMI_TRACK_WORD);
		if (t->kinds[group * 2 + 1] & words & (0 - words))
			__builtin_prefetch(t->states + word * VMEMI_TRACK_WORD);
	}
	return words & (words - 1);
}

/* The pages of a word. @param dirty, mixed  whether it is of that kind, the latter or any */
static inline void match_word(const struct vmem_track *t, uint64_t word, uint64_t dirty,
			      uint64_t mixed, const struct vmemi_track_match *wanted,
			      struct vmemi_track_matched *ret)
{
	struct v64 age = v64_less(load(t->stamps + word * VMEMI_TRACK_WORD), vmemi_track_now(t));
	uint64_t skip, clean = dirty - 1;

	if (mixed) {
		struct v64 state = load(t->states + word * VMEMI_TRACK_WORD);

		skip = v64_any(state, wanted->skip);
		clean = ~v64_any(state, VMEM_TRACK_WRITTEN);
	} else {
		skip = wanted->skip & VMEM_TRACK_WRITTEN ? ~clean : 0;
	}
	ret->able = v64_at_least(age, wanted->low) & ~skip;
	ret->older = wanted->high ? v64_at_least(age, wanted->high) : 0;
	ret->clean = clean;
}

static uint32_t match(const struct vmem_track *t, uint64_t word, uint32_t words,
		      const struct vmemi_track_match *given, struct vmemi_track_matches *ret)
{
	const struct vmemi_track_match wanted = *given;
	const uint32_t by = word % VMEMI_TRACK_GROUP;
	const uint64_t group = word / VMEMI_TRACK_GROUP, *kinds = t->kinds + group * 2;
	const uint64_t mixed = kinds[1] >> by, dirty = kinds[0] >> by & ~mixed;
	uint64_t next = old_words(t, group + 1, wanted.low);
	uint64_t old = old_words(t, group, wanted.low) >> by;
	uint32_t count = 0;

	if (words < VMEMI_TRACK_GROUP)
		old &= (UINT64_C(1) << words) - 1;
	for (; old; old &= old - 1) {
		uint32_t at = (uint32_t)__builtin_ctzll(old);

		next = expect_match(t, group + 1, next);
		ret->at[count] = (uint8_t)at;
		match_word(t, word + at, dirty >> at & 1, mixed >> at & 1, &wanted,
			   &ret->words[count]);
		count += ret->words[count].able != 0;
	}
	while (next)
		next = expect_match(t, group + 1, next);
	return count;
}

const struct vmemi_track_scan VMEMI_SCAN = {
	.touch = touch,
	.settle = settle,
	.match = match,
};

#endif
