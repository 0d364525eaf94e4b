/* SPDX-License-Identifier: BSD-2-Clause */
/* The search for victims. It goes down in steps: the histogram of ages says down to which age there are
 * about as many pages as are wanted. Where that was not enough, because they are in no whole runs, the next
 * step has four times as many, and so on, to the threshold. Each step is two passes over all words, in a
 * circle from where the last pass ended: for clean pages, then for the others. A step leaves out what
 * earlier steps have named. See track_internal.h. */
#include "track/track_internal.h"
#include "base/opts.h"

#define SCAN_PAGES (UINT64_C(1) << 20) /* the default bound of a call */
#define BLOCK 16u                      /* words that are matched together */
#define MORE 4u                        /* the next step wants that many times the pages */

#define NEARLY 8u /* of that many pages one may be younger than it had to be */

enum stage { BEGIN, CLEAN, WRITTEN }; /* all zero is before the first search */

struct search {
	const struct vmem_track *t;
	struct vmem_track_want want;
	struct vmem_track_cursor *at;
	struct vmem_track_run *runs;
	size_t max_runs, count;
	int full; /* there is no room in `runs` for the next one */
};

/* The first bits of all aligned runs of @length (a power of two) whose bits are all set. */
static uint64_t whole_runs(uint64_t bits, uint32_t length)
{
	uint64_t firsts = length < 64 ? UINT64_MAX / ((UINT64_C(1) << length) - 1) : 1;

	for (uint32_t by = 1; by < length; by *= 2)
		bits &= bits >> by;
	return bits & firsts;
}

/* All bits of the runs whose first bits are given. */
static uint64_t spread_runs(uint64_t firsts, uint32_t length)
{
	return length < 64 ? firsts * ((UINT64_C(1) << length) - 1) : 0 - (firsts & 1);
}

/* The pages of a word that this pass names. */
static uint64_t chosen(const struct search *s, const struct vmemi_track_matched *m)
{
	uint32_t run = s->want.run_pages;
	uint64_t able, before, clean;

	if (!m->able)
		return 0;
	able = whole_runs(m->able, run);
	before = whole_runs(m->able & m->older, run);
	clean = whole_runs(m->clean, run);
	return spread_runs(able & ~before & (s->at->stage == CLEAN ? clean : ~clean), run);
}

/* Enters pages of a word, from bit @part. @return the bit where it had to stop, 64 at the end */
static uint32_t enter(struct search *s, uint64_t word, uint64_t pages, uint32_t part)
{
	pages &= UINT64_MAX << part;
	while (pages) {
		uint32_t bit = (uint32_t)__builtin_ctzll(pages), length = s->want.run_pages;
		uint64_t first = word * VMEMI_TRACK_WORD + bit;
		struct vmem_track_run *last = s->count ? &s->runs[s->count - 1] : NULL;

		if (s->at->found >= s->want.pages)
			return bit;
		if (last && last->first + last->count == first) {
			last->count += length;
		} else {
			if (s->count == s->max_runs) {
				s->full = 1;
				return bit;
			}
			s->runs[s->count++] = (struct vmem_track_run){ first, length };
		}
		s->at->found += length;
		pages &= ~spread_runs(UINT64_C(1) << bit, length);
	}
	return VMEMI_TRACK_WORD;
}

static uint64_t takeable(const struct vmem_track *t, uint32_t age)
{
	uint8_t at = vmemi_track_bucket(t, age);

	return t->present[at] - t->held[at];
}

/* How many pages a step is to have: what is wanted still, or more, if earlier steps had that many but not
 * in whole runs or not in states that were wanted. */
static uint64_t target(const struct search *s)
{
	uint64_t left = s->want.pages - s->at->found, all = s->t->pages;

	return s->at->factor <= all / left ? left * s->at->factor : all;
}

/* From the ages below @end, down to where there are enough pages, but not below @least. The last bucket
 * waits for a step of its own, if there is much before it: its clean pages would be preferred to that. */
static void set_step(struct search *s, uint32_t end, uint32_t least)
{
	uint64_t sum = 0, older = 0, enough = target(s);
	uint32_t age = end;

	while (age > least && sum < enough) {
		older = sum;
		sum += takeable(s->t, --age);
	}
	if (sum >= enough && age + 1 < end && older > enough / NEARLY) {
		sum = older;
		age++;
	}
	s->at->partial = sum < enough;
	s->at->low = age;
	s->at->high = end < VMEM_TRACK_AGES ? end : 0;
	s->at->stage = CLEAN;
}

/* To the next step. @return 0 if there is none */
static int next_step(struct search *s)
{
	struct vmem_track_cursor *at = s->at;
	uint32_t least = s->want.flags & VMEM_TRACK_EMERGENCY ? 0 : s->want.min_age;

	if (at->stage == BEGIN) {
		at->period = s->t->periods;
		at->found = 0;
		at->factor = 1;
		set_step(s, VMEM_TRACK_AGES, s->want.min_age);
		return 1;
	}
	if (at->low <= least)
		return 0;
	if (!at->partial && at->factor < s->t->pages)
		at->factor *= MORE;
	/* In an emergency too, what is above the threshold first. */
	set_step(s, at->low, at->low > s->want.min_age ? s->want.min_age : least);
	return 1;
}

/* Whether the histogram has anything for this step. */
static int worth_a_pass(const struct search *s)
{
	uint32_t end = s->at->high ? s->at->high : VMEM_TRACK_AGES;

	for (uint32_t age = s->at->low; age < end; age++)
		if (takeable(s->t, age))
			return 1;
	return 0;
}

/* To the next pass. @return 0 if there is none */
static int next_pass(struct search *s)
{
	s->at->words_left = s->t->words;
	s->at->part = 0;
	if (s->at->stage == CLEAN) {
		s->at->stage = WRITTEN;
		return 1;
	}
	do {
		if (!next_step(s))
			return 0;
	} while (!worth_a_pass(s));
	return 1;
}

/* Looks at up to @words of this pass. @return how many it has done with */
static uint64_t scan(struct search *s, uint64_t words)
{
	struct vmem_track_cursor *at = s->at;
	const struct vmemi_track_match wanted = {
		.low = (uint8_t)at->low,
		.high = (uint8_t)at->high,
		.skip = (uint8_t)(s->want.skip | VMEMI_TRACK_SPECIAL),
	};
	struct vmemi_track_matched matched[BLOCK];

	if (words > BLOCK)
		words = BLOCK;
	if (words > at->words_left)
		words = at->words_left;
	if (words > s->t->words - at->word)
		words = s->t->words - at->word;
	s->t->scan->match(s->t, at->word, words, &wanted, matched);
	for (uint64_t i = 0; i < words; i++) {
		at->part = enter(s, at->word, chosen(s, &matched[i]), at->part);
		if (at->part < VMEMI_TRACK_WORD)
			return i;
		at->part = 0;
		at->words_left--;
		if (++at->word == s->t->words)
			at->word = 0;
	}
	return words;
}

static int prepare(struct search *s, const struct vmem_track_want *want)
{
	struct vmem_track_cursor *at = s->at;
	uint32_t run;

	if (!want || !at || vmemi_opts_take(&s->want, sizeof(s->want), want))
		return -VMEM_EINVAL;
	if (s->want.pages > s->t->pages)
		s->want.pages = s->t->pages;
	if (!s->want.run_pages)
		s->want.run_pages = 1;
	if (!s->want.scan_pages)
		s->want.scan_pages = SCAN_PAGES;
	run = s->want.run_pages;
	if (s->want.flags & ~(uint64_t)VMEM_TRACK_EMERGENCY || !s->want.pages ||
	    s->want.min_age >= VMEM_TRACK_AGES || run & (run - 1) || run > VMEM_TRACK_MAX_RUN ||
	    s->want.skip > UINT8_MAX || !s->runs || !s->max_runs)
		return -VMEM_EINVAL;
	/* Of another tracker, or spoilt: only the place must be right, all else does no harm. */
	if (at->word >= s->t->words || at->part >= VMEMI_TRACK_WORD || at->part % run ||
	    at->low >= VMEM_TRACK_AGES || at->high >= VMEM_TRACK_AGES || at->stage > WRITTEN ||
	    at->words_left > s->t->words)
		*at = (struct vmem_track_cursor){ 0 };
	if (at->period != s->t->periods)
		at->stage = BEGIN;
	return 0;
}

int vmem_track_victims(const vmem_track *t, const struct vmem_track_want *want,
		       struct vmem_track_cursor *cursor, struct vmem_track_run *runs,
		       size_t max_runs, size_t *ret_runs)
{
	struct search s = { .t = t, .at = cursor, .runs = runs, .max_runs = max_runs };
	uint64_t words;
	int err = ret_runs ? prepare(&s, want) : -VMEM_EINVAL;

	if (err)
		return err;
	words = s.want.scan_pages / VMEMI_TRACK_WORD;
	if (!words)
		words = 1;
	for (;;) {
		if (cursor->stage != BEGIN && cursor->found >= s.want.pages)
			break;
		if ((cursor->stage == BEGIN || !cursor->words_left) && !next_pass(&s))
			break;
		if (!words || s.full) {
			*ret_runs = s.count;
			return 1;
		}
		words -= scan(&s, words);
	}
	cursor->stage = BEGIN;
	*ret_runs = s.count;
	return 0;
}
