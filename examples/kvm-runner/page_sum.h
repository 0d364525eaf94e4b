/* SPDX-License-Identifier: BSD-2-Clause */
/* A sum over the words of a page, each mixed with its position. It can be changed with the page, word
 * by word, without reading the rest: so the guest always knows the sum from what it wrote, not from
 * what memory says. Integers only: the payload has no vector registers. */
#ifndef PAGE_SUM_H
#define PAGE_SUM_H
#include "guest_abi.h"

#define PAGE_SUM_STEP UINT64_C(0x9e3779b97f4a7c15)

static inline uint64_t page_sum_word(uint64_t word, uint64_t key)
{
	uint64_t mixed = (word + key) * UINT64_C(0xc2b2ae3d27d4eb4f);

	return mixed ^ mixed >> 32;
}

/* What `word` at `index` adds to the sum. */
static inline uint64_t page_sum_part(uint64_t word, uint32_t index)
{
	return page_sum_word(word, (index + 1) * PAGE_SUM_STEP);
}

static inline uint64_t page_sum(const uint64_t *words)
{
	uint64_t key = PAGE_SUM_STEP;
	uint64_t a = 0;
	uint64_t b = 0;

	for (size_t i = 0; i < GUEST_PAGE_WORDS; i += 4) {
		a += page_sum_word(words[i], key) +
		     page_sum_word(words[i + 1], key + PAGE_SUM_STEP);
		key += 2 * PAGE_SUM_STEP;
		b += page_sum_word(words[i + 2], key) +
		     page_sum_word(words[i + 3], key + PAGE_SUM_STEP);
		key += 2 * PAGE_SUM_STEP;
	}
	return a + b;
}

#endif
