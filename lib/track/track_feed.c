/* SPDX-License-Identifier: BSD-2-Clause */
/* The feeds: what was accessed, as bitmaps or as a list. See track_internal.h. */
#include "track/track_internal.h"
#include "base/mem.h"

/* Words that are fed before the counts are folded: fewer pages than a lane can count. */
#define FEED_WORDS (UINT64_C(1) << 20)

/* A word that was clean is mixed then, or written, if it is all of it; the former is as good. */
static void write_page(struct vmem_track *t, uint64_t page)
{
	uint64_t word = page / VMEMI_TRACK_WORD, *kinds = t->kinds + word / VMEMI_TRACK_GROUP * 2;

	t->states[page] |= VMEM_TRACK_WRITTEN;
	kinds[1] |= UINT64_C(1) << word % VMEMI_TRACK_GROUP;
}

void vmemi_track_touch_page(struct vmem_track *t, uint64_t page, int written)
{
	uint8_t state = t->states[page];
	uint32_t age = vmemi_track_age(t, t->stamps[page]);

	if (written && !(state & VMEM_TRACK_WRITTEN))
		write_page(t, page);
	if (!age && !(state & (VMEM_TRACK_ABSENT | VMEM_TRACK_AWAY)))
		return;
	vmemi_track_count(t, page, UINT64_MAX);
	if (age && !(state & VMEM_TRACK_ABSENT))
		t->promotions[age]++;
	if (state & VMEM_TRACK_AWAY && !(state & VMEM_TRACK_ABSENT))
		t->returned++;
	t->accesses++;
	t->states[page] &= (uint8_t) ~(VMEM_TRACK_ABSENT | VMEM_TRACK_AWAY);
	t->stamps[page] = vmemi_track_now(t);
	vmemi_track_count(t, page, 1);
}

void vmemi_track_touch_pages(struct vmem_track *t, uint64_t word, uint64_t accessed,
			     uint64_t written)
{
	for (; accessed; accessed &= accessed - 1) {
		unsigned bit = (unsigned)__builtin_ctzll(accessed);

		vmemi_track_touch_page(t, word * VMEMI_TRACK_WORD + bit, (int)(written >> bit & 1));
	}
}

/* Pages that have moved to age 0 go from their buckets to that of now. */
static void fold(struct vmem_track *t)
{
	uint64_t sum = 0;

	for (uint32_t stamp = 0; stamp < 256; stamp++) {
		uint32_t age = vmemi_track_age(t, (uint8_t)stamp);
		uint64_t pages = 0;

		for (uint32_t lane = 0; lane < VMEMI_TRACK_LANES; lane++)
			pages += t->moved[lane][stamp];
		t->present[vmemi_track_bucket(t, age)] -= pages;
		t->promotions[age] += pages;
		sum += pages;
	}
	t->present[vmemi_track_now(t)] += sum;
	t->accesses += sum;
	memset(t->moved, 0, sizeof(t->moved));
}

static void feed(struct vmem_track *t, uint64_t word, uint64_t words, const uint64_t *accessed,
		 const uint64_t *written)
{
	for (uint64_t done = 0; done < words; done += FEED_WORDS) {
		uint64_t now = words - done < FEED_WORDS ? words - done : FEED_WORDS;

		t->scan->touch(t, word + done, now, accessed ? accessed + done : NULL,
			       written ? written + done : NULL);
		fold(t);
	}
}

int vmem_track_feed_bitmap(vmem_track *t, uint64_t first, uint64_t count, const uint64_t *accessed,
			   const uint64_t *written)
{
	uint64_t word = first / VMEMI_TRACK_WORD, words = count / VMEMI_TRACK_WORD, rest;

	if (first % VMEMI_TRACK_WORD)
		return -VMEM_EINVAL;
	if (!vmemi_track_within(t, first, count))
		return -VMEM_ERANGE;
	feed(t, word, words, accessed, written);
	rest = (UINT64_C(1) << count % VMEMI_TRACK_WORD) - 1;
	if (rest) {
		uint64_t last_accessed = accessed ? accessed[words] & rest : 0;
		uint64_t last_written = written ? written[words] & rest : 0;

		feed(t, word + words, 1, &last_accessed, &last_written);
	}
	return 0;
}

int vmem_track_feed_list(vmem_track *t, const uint64_t *pages, size_t count, uint32_t state)
{
	if (state & ~VMEM_TRACK_WRITTEN)
		return -VMEM_EINVAL;
	for (size_t i = 0; i < count; i++)
		if (pages[i] >= t->pages)
			return -VMEM_ERANGE;
	for (size_t i = 0; i < count; i++)
		vmemi_track_touch_page(t, pages[i], state != 0);
	return 0;
}
