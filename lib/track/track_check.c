/* SPDX-License-Identifier: BSD-2-Clause */
/* Counts a tracker's pages again, at rest, for tests. */
#include "track/track_internal.h"
#include "base/check.h"

#define BUCKETS 64u /* that are counted in one walk: the stack may be small */

static const char *check_buckets(const struct vmem_track *t, uint32_t first)
{
	uint64_t present[BUCKETS] = { 0 }, held[BUCKETS] = { 0 };

	for (uint64_t page = 0; page < t->pages; page++) {
		uint8_t state = t->states[page];
		uint32_t at = vmemi_track_bucket(t, vmemi_track_age(t, t->stamps[page])) - first;

		if (state & VMEM_TRACK_ABSENT || at >= BUCKETS)
			continue;
		present[at]++;
		held[at] += (state & VMEMI_TRACK_HELD) != 0;
	}
	for (uint32_t at = 0; at < BUCKETS; at++) {
		VMEMI_REQUIRE(t->present[first + at] == present[at]);
		VMEMI_REQUIRE(t->held[first + at] == held[at]);
	}
	return NULL;
}

static const char *check_page(const struct vmem_track *t, uint64_t page)
{
	uint64_t word = page / VMEMI_TRACK_WORD;
	uint8_t age = (uint8_t)(vmemi_track_now(t) - t->stamps[page]);
	uint8_t oldest = (uint8_t)(vmemi_track_now(t) - t->oldest[word]);
	uint32_t kind = vmemi_track_kind(t, word);

	VMEMI_REQUIRE(t->states[page] & VMEMI_TRACK_SPECIAL || age <= oldest);
	VMEMI_REQUIRE(kind == VMEMI_TRACK_ANY || !(t->states[page] & VMEMI_TRACK_SPECIAL));
	VMEMI_REQUIRE(kind != VMEMI_TRACK_CLEAN || t->states[page] == 0);
	VMEMI_REQUIRE(kind != VMEMI_TRACK_DIRTY || t->states[page] == VMEM_TRACK_WRITTEN);
	return NULL;
}

/* What is known of words is so. */
static const char *check_words(const struct vmem_track *t)
{
	const char *wrong = NULL;

	for (uint64_t page = 0; page < t->words * VMEMI_TRACK_WORD && !wrong; page++)
		wrong = check_page(t, page);
	return wrong;
}

const char *vmemi_track_check(const struct vmem_track *t)
{
	const char *wrong_word = check_words(t);
	uint64_t away = 0;

	if (wrong_word)
		return wrong_word;
	for (uint32_t first = 0; first < 256; first += BUCKETS) {
		const char *wrong = check_buckets(t, first);

		if (wrong)
			return wrong;
	}
	for (uint32_t lane = 0; lane < VMEMI_TRACK_LANES; lane++)
		for (uint32_t at = 0; at < 256; at++)
			VMEMI_REQUIRE(t->moved[lane][at] == 0);
	for (uint64_t page = 0; page < t->pages; page++)
		away += (t->states[page] & (VMEM_TRACK_ABSENT | VMEM_TRACK_AWAY)) ==
			VMEM_TRACK_AWAY;
	VMEMI_REQUIRE(t->away == away);
	for (uint64_t page = t->pages; page < t->words * VMEMI_TRACK_WORD; page++)
		VMEMI_REQUIRE(t->states[page] == VMEM_TRACK_ABSENT);
	return NULL;
}
