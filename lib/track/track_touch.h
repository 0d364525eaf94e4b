/* SPDX-License-Identifier: BSD-2-Clause */
/* The pass of a feed over the words that were accessed, group by group: a part of track_scan.h, whose vectors
 * and notes it uses. Words whose states matter go by themselves; the others are one loop without a branch that
 * cannot be guessed. */
#ifndef VMEMI_TRACK_TOUCH_H
#define VMEMI_TRACK_TOUCH_H
#include "track/track_count.h"
#include "track/track_internal.h"

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
static uint32_t touch_with_states(struct vmem_track *t, uint64_t word, uint64_t accessed,
				  uint64_t written, uint32_t queued)
{
	uint8_t *stamps = t->stamps + word * VMEMI_TRACK_WORD;
	uint8_t now = vmemi_track_now(t), oldest = (uint8_t)(now - t->oldest[word]);
	uint64_t special = touch_states(t, word, accessed, written), alone;
	struct v64 stamp = load(stamps), age;

	accessed &= ~(special | v64_equal(stamp, now));
	if (!accessed)
		return queued;
	alone = count_alike(t, stamps, stamp, accessed);
	gather(t->queue + queued, stamps, stamp, alone);
	store(stamps, v64_select(accessed, v64_where(accessed, now), stamp));
	age = v64_less(stamp, now);
	if (v64_at_least(age, oldest) & accessed)
		note_oldest(t, word, age, accessed | special);
	return queued + vmemi_bits_set(alone);
}

/* Words with accesses, of up to a group. A branch for each word would be guessed wrong too often. */
struct touched {
	uint64_t states; /* a bit for each word: whether its states must be read */
	uint32_t count;
	uint8_t at[VMEMI_TRACK_GROUP];
	uint64_t accessed[VMEMI_TRACK_GROUP];
};

static inline uint64_t bits_of(const uint64_t *bitmap, uint64_t word)
{
	return bitmap ? bitmap[word] : 0;
}

/* Of 64 words from any: a bit for each that is of any kind, and for each that is not all written. */
static inline void kinds_of(const struct vmem_track *t, uint64_t word, uint64_t *ret_any,
			    uint64_t *ret_not_dirty)
{
	const uint64_t *kinds = t->kinds + word / VMEMI_TRACK_GROUP * 2;
	uint32_t by = word % VMEMI_TRACK_GROUP;

	*ret_any = (kinds[0] & kinds[1]) >> by;
	*ret_not_dirty = (kinds[1] | ~kinds[0]) >> by;
	if (by && (word / VMEMI_TRACK_GROUP + 1) * VMEMI_TRACK_GROUP < t->words) {
		*ret_any |= (kinds[2] & kinds[3]) << (VMEMI_TRACK_GROUP - by);
		*ret_not_dirty |= (kinds[3] | ~kinds[2]) << (VMEMI_TRACK_GROUP - by);
	}
}

/* Of the words from @word on, whose bitmaps these are, up to a group from @from on. */
static inline void find_touched(struct touched *found, const struct vmem_track *t, uint64_t word,
				uint64_t from, uint64_t words, const uint64_t *accessed,
				const uint64_t *written)
{
	uint64_t any, not_dirty, writes = 0;
	uint32_t count = 0;

	found->count = 0;
	if (from >= words)
		return;
	words = words - from < VMEMI_TRACK_GROUP ? words - from : VMEMI_TRACK_GROUP;
	for (uint32_t i = 0; i < words; i++) {
		uint64_t w = bits_of(written, from + i), both = bits_of(accessed, from + i) | w;

		found->at[count] = (uint8_t)i;
		found->accessed[count] = both;
		count += both != 0;
		writes |= (uint64_t)(w != 0) << i;
	}
	found->count = count;
	kinds_of(t, word + from, &any, &not_dirty);
	found->states = any | (writes & not_dirty);
}

/* The hardware stops at the end of a page, and does not see what is skipped. */
static inline void expect_touch(const struct vmem_track *t, uint64_t word,
				const struct touched *next, uint32_t i)
{
	uint64_t at = (word + next->at[i]) * VMEMI_TRACK_WORD;

	__builtin_prefetch(t->stamps + at, 1);
	if (next->states >> next->at[i] & 1)
		__builtin_prefetch(t->states + at);
}

/* The oldest page of these words was accessed. */
static inline void note_oldest_of(struct vmem_track *t, uint64_t word, const uint8_t *at,
				  uint32_t count)
{
	uint8_t now = vmemi_track_now(t);

	for (uint32_t i = 0; i < count; i++) {
		struct v64 stamp = load(t->stamps + (word + at[i]) * VMEMI_TRACK_WORD);

		t->oldest[word + at[i]] = (uint8_t)(now - v64_max(v64_less(stamp, now)));
	}
}

/* Words of up to a group from @word on; @next are those of the next one. @return how many are queued
 * Not inlined: a hypervisor's stack is small. */
static __attribute__((noinline)) uint32_t touch_group(struct vmem_track *t, uint64_t word,
						      const struct touched *here,
						      const struct touched *next,
						      const uint64_t *written, uint32_t queued)
{
	const uint8_t now = vmemi_track_now(t);
	uint8_t *const stamps = t->stamps, *const oldest = t->oldest;
	uint8_t was_oldest[VMEMI_TRACK_GROUP + 1];
	uint32_t count = 0, i;

	for (i = 0; i < here->count; i++) {
		uint64_t w = word + here->at[i], accessed = here->accessed[i], alone;
		uint8_t *at = stamps + w * VMEMI_TRACK_WORD;
		struct v64 stamp;

		if (i < next->count)
			expect_touch(t, word + VMEMI_TRACK_GROUP, next, i);
		if (queued > VMEMI_TRACK_QUEUE) {
			count_queue(t, queued);
			queued = 0;
		}
		if (here->states >> here->at[i] & 1) {
			queued = touch_with_states(t, w, accessed, bits_of(written, here->at[i]),
						   queued);
			continue;
		}
		stamp = load(at);
		accessed &= ~v64_equal(stamp, now);
		if (!accessed)
			continue;
		alone = count_alike(t, at, stamp, accessed);
		gather(t->queue + queued, at, stamp, alone);
		store(at, v64_select(accessed, v64_where(accessed, now), stamp));
		queued += vmemi_bits_set(alone);
		/* Whether it is the oldest cannot be guessed: is left for later. */
		was_oldest[count] = here->at[i];
		count += (v64_at_least(v64_less(stamp, now), (uint8_t)(now - oldest[w])) &
			  accessed) != 0;
	}
	for (; i < next->count; i++)
		expect_touch(t, word + VMEMI_TRACK_GROUP, next, i);
	note_oldest_of(t, word, was_oldest, count);
	return queued;
}

static void touch(struct vmem_track *t, uint64_t word, uint64_t words, const uint64_t *accessed,
		  const uint64_t *written)
{
	struct touched found[2]; /* of this group of words and of the next one */
	uint32_t queued = 0, which = 0;

	find_touched(&found[0], t, word, 0, words, accessed, written);
	for (uint64_t done = 0; done < words; done += VMEMI_TRACK_GROUP, which ^= 1) {
		find_touched(&found[which ^ 1], t, word, done + VMEMI_TRACK_GROUP, words, accessed,
			     written);
		queued = touch_group(t, word + done, &found[which], &found[which ^ 1],
				     written ? written + done : NULL, queued);
	}
	count_queue(t, queued);
}

#endif
