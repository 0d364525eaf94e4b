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
#include "track/track_count.h"
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

/* Whether accesses of a word need its states: pages in special states, or what is written first. */
static inline int needs_states(const struct vmem_track *t, uint64_t word, uint64_t written)
{
	uint32_t kind = vmemi_track_kind(t, word);

	return kind == VMEMI_TRACK_ANY || (written && kind != VMEMI_TRACK_DIRTY);
}

/* Pages in special states, one by one; what was written. @return the bits of those that are special */
static uint64_t touch_states(struct vmem_track *t, uint64_t word, uint64_t accessed,
			     uint64_t written)
{
	uint8_t *states = t->states + word * VMEMI_TRACK_WORD;
	struct v64 state = load(states);
	uint64_t special = v64_any(state, VMEMI_TRACK_SPECIAL);

	if (special & accessed) {
		vmemi_track_touch_pages(t, word, special & accessed, written);
		state = load(states);
	}
	written &= ~v64_any(state, VMEM_TRACK_WRITTEN);
	if (written) {
		state = v64_or(state, v64_where(written, VMEM_TRACK_WRITTEN));
		store(states, state);
	}
	note_kind(t, word, state);
	return special;
}

/* @return how many are queued */
static inline uint32_t touch_word(struct vmem_track *t, uint64_t word, uint64_t accessed,
				  uint64_t written, uint32_t queued)
{
	uint8_t *stamps = t->stamps + word * VMEMI_TRACK_WORD;
	uint8_t now = vmemi_track_now(t), oldest = (uint8_t)(now - t->oldest[word]);
	uint64_t special = 0, alone;
	struct v64 stamp, age;

	if (needs_states(t, word, written))
		special = touch_states(t, word, accessed, written);
	stamp = load(stamps);
	accessed &= ~(special | v64_equal(stamp, now));
	if (!accessed)
		return queued;
	alone = count_alike(t, stamps, stamp, accessed);
	gather(t->queue + queued, stamps, stamp, alone);
	store(stamps, v64_select(accessed, v64_where(accessed, now), stamp));
	age = v64_less(stamp, now);
	if (v64_at_least(age, oldest) & accessed)
		note_oldest(t, word, age, accessed | special);
	return queued + vmemi_track_bits(alone);
}

/* Words with accesses, of up to a group. A branch for each word would be guessed wrong too often. */
struct touched {
	uint32_t count;
	uint8_t at[VMEMI_TRACK_GROUP];
};

static inline uint64_t bits_of(const uint64_t *bitmap, uint64_t word)
{
	return bitmap ? bitmap[word] : 0;
}

static inline void find_touched(struct touched *found, uint64_t word, uint64_t words,
				const uint64_t *accessed, const uint64_t *written)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < VMEMI_TRACK_GROUP && word + i < words; i++) {
		found->at[count] = (uint8_t)i;
		count += (bits_of(accessed, word + i) | bits_of(written, word + i)) != 0;
	}
	found->count = count;
}

/* The hardware stops at the end of a page, and does not see what is skipped. */
static inline void expect_touch(const struct vmem_track *t, uint64_t word, uint64_t written)
{
	__builtin_prefetch(t->stamps + word * VMEMI_TRACK_WORD, 1);
	if (needs_states(t, word, written))
		__builtin_prefetch(t->states + word * VMEMI_TRACK_WORD);
}

static void touch(struct vmem_track *t, uint64_t word, uint64_t words, const uint64_t *accessed,
		  const uint64_t *written)
{
	struct touched found[2]; /* of this group of words and of the next one */
	uint32_t queued = 0, which = 0;

	find_touched(&found[0], 0, words, accessed, written);
	for (uint64_t done = 0; done < words; done += VMEMI_TRACK_GROUP, which ^= 1) {
		const struct touched *here = &found[which], *next = &found[which ^ 1];
		uint64_t end = done + VMEMI_TRACK_GROUP;
		uint32_t i;

		find_touched(&found[which ^ 1], end, words, accessed, written);
		for (i = 0; i < here->count; i++) {
			uint64_t at = done + here->at[i], w = bits_of(written, at);

			if (i < next->count)
				expect_touch(t, word + end + next->at[i],
					     bits_of(written, end + next->at[i]));
			queued = touch_word(t, word + at, bits_of(accessed, at) | w, w, queued);
			if (queued > VMEMI_TRACK_QUEUE) {
				count_queue(t, queued);
				queued = 0;
			}
		}
		for (; i < next->count; i++)
			expect_touch(t, word + end + next->at[i],
				     bits_of(written, end + next->at[i]));
	}
	count_queue(t, queued);
}

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

/* @return whether there are pages that are able */
static inline int match_word(const struct vmem_track *t, uint64_t word,
			     const struct vmemi_track_match *wanted,
			     struct vmemi_track_matched *ret)
{
	struct v64 age = v64_less(load(t->stamps + word * VMEMI_TRACK_WORD), vmemi_track_now(t));
	uint32_t kind = vmemi_track_kind(t, word);
	uint64_t skip;

	if (kind >= VMEMI_TRACK_MIXED) {
		struct v64 state = load(t->states + word * VMEMI_TRACK_WORD);

		skip = v64_any(state, wanted->skip);
		ret->clean = ~v64_any(state, VMEM_TRACK_WRITTEN);
	} else {
		uint64_t dirty = 0 - (uint64_t)(kind == VMEMI_TRACK_DIRTY);

		skip = wanted->skip & VMEM_TRACK_WRITTEN ? dirty : 0;
		ret->clean = ~dirty;
	}
	ret->able = v64_at_least(age, wanted->low) & ~skip;
	ret->older = wanted->high ? v64_at_least(age, wanted->high) : 0;
	return ret->able != 0;
}

static uint32_t match(const struct vmem_track *t, uint64_t word, uint32_t words,
		      const struct vmemi_track_match *wanted, struct vmemi_track_matches *ret)
{
	uint64_t group = word / VMEMI_TRACK_GROUP;
	uint64_t next = old_words(t, group + 1, wanted->low);
	uint64_t old = old_words(t, group, wanted->low) >> word % VMEMI_TRACK_GROUP;
	uint32_t count = 0;

	if (words < VMEMI_TRACK_GROUP)
		old &= (UINT64_C(1) << words) - 1;
	for (; old; old &= old - 1) {
		uint32_t at = (uint32_t)__builtin_ctzll(old);

		next = expect_match(t, group + 1, next);
		ret->at[count] = (uint8_t)at;
		count += (uint32_t)match_word(t, word + at, wanted, &ret->words[count]);
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
