/* SPDX-License-Identifier: BSD-2-Clause */
/* The search for victims. It goes down in steps: the histogram of ages says down to which age there are
 * about as many pages as are wanted. Where that was not enough, because they are in no whole runs, the next
 * step has four times as many, and so on, to the threshold. Each step is two passes over all words, in a
 * circle from where the last pass ended: for clean pages, then for the others; less where all pages of these
 * ages that the histogram knows of have been named. A step leaves out what earlier steps have named. See track_internal.h. */
#include "track/track_internal.h"
#include "base/opts.h"

#define SCAN_PAGES (UINT64_C(1) << 20) /* the default bound of a call */
#define MORE 4u                        /* the next step wants that many times the pages */

#define NEARLY 8u /* of that many pages one may be younger than it had to be */

enum stage { BEGIN, CLEAN, WRITTEN }; /* all zero is before the first search */

struct search {
	const struct vmem_track *t;
	struct vmem_track_want want;
	struct vmem_track_cursor *at;
	struct vmem_track_run *runs;
	size_t max_runs, count;
	uint64_t firsts; /* the first bits of all aligned runs of a word */
	int full;        /* there is no room in `runs` for the next one */
};

/* The first bits of all aligned runs whose bits are all set. */
static uint64_t whole_runs(const struct search *s, uint64_t bits)
{
	for (uint32_t by = 1; by < s->want.run_pages; by *= 2)
		bits &= bits >> by;
	return bits & s->firsts;
}

/* All bits of the runs whose first bits are given. */
static uint64_t spread_runs(uint64_t firsts, uint32_t length)
{
	return length < 64 ? firsts * ((UINT64_C(1) << length) - 1) : 0 - (firsts & 1);
}

/* The pages of a word that this pass names. @param other  all ones: those that are not clean */
static inline uint64_t chosen(const struct search *s, const struct vmemi_track_matched *m,
			      uint64_t other)
{
	uint64_t able = m->able, before = m->able & m->older, clean = m->clean;

	if (s->want.run_pages == 1)
		return able & ~before & (clean ^ other);
	able = whole_runs(s, able);
	before = whole_runs(s, before);
	clean = whole_runs(s, clean);
	return spread_runs(able & ~before & (clean ^ other), s->want.run_pages);
}

/* So many of @pages as are wanted still, in whole runs. */
static uint64_t still_wanted(const struct search *s, uint64_t pages)
{
	uint64_t run = s->want.run_pages, left = s->want.pages - s->at->found;

	return pages <= left ? pages : (left + run - 1) / run * run;
}

/* Enters pages in a row. @return how many, 0: none is wanted or there is no room */
static uint64_t enter(struct search *s, uint64_t first, uint64_t length)
{
	struct vmem_track_run *last = &s->runs[s->count ? s->count - 1 : 0];

	if (s->at->found >= s->want.pages)
		return 0;
	length = still_wanted(s, length);
	if (s->count && last->first + last->count == first) {
		last->count += length;
	} else if (s->count < s->max_runs) {
		s->runs[s->count++] = (struct vmem_track_run){ first, length };
	} else {
		s->full = 1;
		return 0;
	}
	s->at->found += length;
	s->at->left -= length < s->at->left ? length : s->at->left;
	return length;
}

/* The first row of pages in a word. @return its length; @ret_rest: the pages after it */
static inline uint32_t first_row(uint64_t pages, uint32_t *ret_bit, uint64_t *ret_rest)
{
	uint32_t bit = (uint32_t)__builtin_ctzll(pages);
	uint64_t next = pages + (UINT64_C(1) << bit); /* carries over pages in a row */

	*ret_bit = bit;
	*ret_rest = pages & next;
	return (next ? (uint32_t)__builtin_ctzll(next) : VMEMI_TRACK_WORD) - bit;
}

/* Enters the pages of some words, all of which have some, and one more, which has not. How many rows a word
 * has cannot be guessed: there is no branch for it. What changes with each row is kept in registers.
 * @return the page where it had to stop, UINT64_MAX: at the end */
static uint64_t enter_words(struct search *s, const struct vmemi_track_matches *m, uint32_t count)
{
	const uint64_t before = s->at->found, most = s->want.pages, from = s->at->word;
	uint64_t pages = m->words[0].able, found = before, first = 0, rest, entered;
	struct vmem_track_run *run = s->runs + s->count, *const end = s->runs + s->max_runs;
	uint64_t last = run > s->runs ? run[-1].first + run[-1].count : UINT64_MAX;
	uint32_t i = 0, bit, length = 0;

	while (i < count) {
		length = first_row(pages, &bit, &rest);
		first = (from + m->at[i]) * VMEMI_TRACK_WORD + bit;
		if (found + length > most || run == end)
			break;
		if (first == last)
			run[-1].count += length;
		else
			*run++ = (struct vmem_track_run){ first, length };
		last = first + length;
		found += length;
		i += rest == 0;
		pages = rest ? rest : m->words[i].able;
	}
	s->count = (size_t)(run - s->runs);
	s->at->found = found;
	s->at->left -= found - before < s->at->left ? found - before : s->at->left;
	while (i < count) { /* there is an end to what is wanted, or to the room */
		length = first_row(pages, &bit, &rest);
		first = (from + m->at[i]) * VMEMI_TRACK_WORD + bit;
		entered = enter(s, first, length);
		if (entered < length)
			return first + entered;
		i += rest == 0;
		pages = rest ? rest : m->words[i].able;
	}
	return UINT64_MAX;
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
	s->at->left += sum;
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
		at->left = 0;
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
	if (s->at->stage == CLEAN && s->at->left) {
		s->at->stage = WRITTEN;
		return 1;
	}
	do {
		if (!next_step(s))
			return 0;
	} while (!worth_a_pass(s));
	return 1;
}

/* Whether this pass can name no more: all words were looked at, or all pages of its ages and above have been
 * named. */
static int passed(const struct search *s)
{
	return s->at->stage == BEGIN || !s->at->words_left || !s->at->left;
}

/* Chooses from words that match, and leaves out those without. @return how many are left */
static uint32_t choose(const struct search *s, struct vmemi_track_matches *m, uint32_t count)
{
	const uint64_t other = s->at->stage == CLEAN ? 0 : UINT64_MAX;
	uint32_t left = 0;

	if (count && m->at[0] == 0)
		m->words[0].able &= UINT64_MAX << s->at->part;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t pages = chosen(s, &m->words[i], other);

		m->at[left] = m->at[i];
		m->words[left].able = pages;
		left += pages != 0;
	}
	m->words[left].able = 0;
	return left;
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
	struct vmemi_track_matches matches;
	uint64_t in_group = VMEMI_TRACK_GROUP - at->word % VMEMI_TRACK_GROUP, stop;
	uint32_t count;

	if (words > in_group)
		words = in_group;
	if (words > at->words_left)
		words = at->words_left;
	if (words > s->t->words - at->word)
		words = s->t->words - at->word;
	count = s->t->scan->match(s->t, at->word, (uint32_t)words, &wanted, &matches);
	stop = enter_words(s, &matches, choose(s, &matches, count));
	at->part = 0;
	if (stop != UINT64_MAX) {
		words = stop / VMEMI_TRACK_WORD - at->word;
		at->part = stop % VMEMI_TRACK_WORD;
	}
	at->words_left -= words;
	at->word += words;
	if (at->word == s->t->words)
		at->word = 0;
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
	s->firsts = run < VMEMI_TRACK_WORD ? UINT64_MAX / ((UINT64_C(1) << run % 64) - 1) : 1;
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
		if (passed(&s) && !next_pass(&s))
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
