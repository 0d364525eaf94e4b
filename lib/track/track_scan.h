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
 *	v64_equal(v, byte), v64_any(v, bits), v64_at_least(v, byte), v64_same(a, b)
 *	                                masks: the byte is equal, has one of the bits, is at least; all bytes */
#ifndef VMEMI_TRACK_SCAN_H
#define VMEMI_TRACK_SCAN_H
#include "track/track_internal.h"

#define AHEAD 24u
#define RECENT 8u /* ages that are looked for in all pages of a word at once */

/* Counts pages that are accessed by the periods since their last access, lane by lane. */
static inline void count_queue(struct vmem_track *t, uint32_t queued)
{
	uint8_t now = vmemi_track_now(t);

	for (uint32_t i = 0; i < queued; i++)
		t->moved[i % VMEMI_TRACK_LANES][(uint8_t)(now - t->queue[i])]++;
}

/* Appends the stamps of some pages of a word. The branches of a loop over the bits would be guessed wrong
 * for each word: always takes as many as there may well be. */
static inline uint32_t enqueue(struct vmem_track *t, uint32_t queued, const uint8_t *stamps,
			       uint64_t pages)
{
	uint32_t end = queued + vmemi_track_bits(pages);

	while (pages) {
		for (uint32_t i = 0; i < VMEMI_TRACK_STRIDE; i++) {
			t->queue[queued + i] = stamps[__builtin_ctzll(pages | UINT64_C(1) << 63)];
			pages &= pages - 1;
		}
		queued += VMEMI_TRACK_STRIDE;
	}
	return end;
}

/* Counts those that were accessed just before, without looking at each: most are, in most guests. @return
 * the others */
static inline uint64_t count_recent(struct vmem_track *t, struct v64 stamp, uint64_t pages)
{
	uint8_t now = vmemi_track_now(t);

	for (uint32_t age = 1; age <= RECENT; age++) {
		uint64_t same = v64_equal(stamp, (uint8_t)(now - age)) & pages;

		t->moved[0][age] += vmemi_track_bits(same);
		pages &= ~same;
		if (vmemi_track_bits(pages) <= VMEMI_TRACK_STRIDE * 3 / 2)
			break;
	}
	return pages;
}

/* @return how many are queued */
static inline uint32_t touch_word(struct vmem_track *t, uint64_t word, uint64_t accessed,
				  uint64_t written, uint32_t queued)
{
	uint8_t *stamps = t->stamps + word * VMEMI_TRACK_WORD;
	uint8_t *states = t->states + word * VMEMI_TRACK_WORD;
	uint8_t now = vmemi_track_now(t);
	struct v64 state = load(states), stamp;
	uint64_t special = v64_any(state, VMEMI_TRACK_SPECIAL) & accessed;

	if (special) {
		vmemi_track_touch_pages(t, word, special, written);
		accessed &= ~special;
		state = load(states);
	}
	written &= ~v64_any(state, VMEM_TRACK_WRITTEN);
	if (written)
		store(states, v64_or(state, v64_where(written, VMEM_TRACK_WRITTEN)));
	stamp = load(stamps);
	accessed &= ~v64_equal(stamp, now);
	if (!accessed)
		return queued;
	queued = enqueue(t, queued, stamps, count_recent(t, stamp, accessed));
	store(stamps, v64_select(accessed, v64_where(accessed, now), stamp));
	return queued;
}

/* May be beyond the end: only for hints. */
static inline uintptr_t ahead(uint64_t word)
{
	return (uintptr_t)((word + AHEAD) * VMEMI_TRACK_WORD);
}

static void touch(struct vmem_track *t, uint64_t word, uint64_t words, const uint64_t *accessed,
		  const uint64_t *written)
{
	uint32_t queued = 0;

	for (uint64_t i = 0; i < words; i++) {
		uint64_t w = written ? written[i] : 0;
		uint64_t a = accessed ? accessed[i] | w : w;

		/* The hardware stops at the end of a page, and does not see what is skipped. */
		__builtin_prefetch((const void *)((uintptr_t)t->stamps + ahead(word + i)), 1);
		__builtin_prefetch((const void *)((uintptr_t)t->states + ahead(word + i)));
		if (!a)
			continue;
		queued = touch_word(t, word + i, a, w, queued);
		if (queued > VMEMI_TRACK_QUEUE) {
			count_queue(t, queued);
			queued = 0;
		}
	}
	count_queue(t, queued);
}

static void settle(uint8_t *stamps, uint64_t words, uint8_t now)
{
	for (uint64_t i = 0; i < words; i++) {
		struct v64 before = load(stamps + i * VMEMI_TRACK_WORD);
		struct v64 age = v64_min(v64_less(before, now), VMEMI_TRACK_OLDEST);
		struct v64 after = v64_less(age, now);

		if (!v64_same(before, after))
			store(stamps + i * VMEMI_TRACK_WORD, after);
	}
}

static void match(const struct vmem_track *t, uint64_t word, uint64_t words,
		  const struct vmemi_track_match *wanted, struct vmemi_track_matched *ret)
{
	const uint8_t *stamps = t->stamps + word * VMEMI_TRACK_WORD;
	const uint8_t *states = t->states + word * VMEMI_TRACK_WORD;
	uint8_t now = vmemi_track_now(t);
	uint64_t any_older = wanted->high ? UINT64_MAX : 0;

	for (uint64_t i = 0; i < words; i++) {
		struct v64 age = v64_less(load(stamps + i * VMEMI_TRACK_WORD), now);
		struct v64 state = load(states + i * VMEMI_TRACK_WORD);

		ret[i].able = v64_at_least(age, wanted->low) & ~v64_any(state, wanted->skip);
		ret[i].older = v64_at_least(age, wanted->high) & any_older;
		ret[i].clean = ~v64_any(state, VMEM_TRACK_WRITTEN);
	}
}

const struct vmemi_track_scan VMEMI_SCAN = {
	.touch = touch,
	.settle = settle,
	.match = match,
};

#endif
