/* SPDX-License-Identifier: BSD-2-Clause */
/* What can be asked of a page without a codec: whether it is one word repeated, and its checksum.
 * Pure functions. */
#include <vmem/codec.h>
#include "base/hash.h"

/* A page may have been written as anything. */
typedef uint64_t __attribute__((may_alias)) page_word;

#define PAGE_WORDS (VMEM_PAGE_SIZE / sizeof(page_word))
#define BLOCK_WORDS 16u

/* Without a branch, and written out: compilers do not unroll at -O2. */
static uint64_t block_differs(const page_word *w, uint64_t word)
{
	uint64_t a = (w[0] ^ word) | (w[1] ^ word) | (w[2] ^ word) | (w[3] ^ word);
	uint64_t b = (w[4] ^ word) | (w[5] ^ word) | (w[6] ^ word) | (w[7] ^ word);
	uint64_t c = (w[8] ^ word) | (w[9] ^ word) | (w[10] ^ word) | (w[11] ^ word);
	uint64_t d = (w[12] ^ word) | (w[13] ^ word) | (w[14] ^ word) | (w[15] ^ word);

	return a | b | c | d;
}

int vmem_page_same_filled(const void *page, uint64_t *ret_word)
{
	const page_word *w = page;
	uint64_t first = w[0];

	/* Most pages differ at their end, if not there then in the middle or near the start. */
	if (w[PAGE_WORDS - 1] != first || w[PAGE_WORDS / 2] != first || w[1] != first)
		return 0;
	for (size_t i = 0; i < PAGE_WORDS; i += BLOCK_WORDS)
		if (block_differs(w + i, first))
			return 0;
	*ret_word = first;
	return 1;
}

/* Without vector registers, which the core must not use, the string instruction is three times as fast as a loop,
 * ten times where the page is in a cache. */
void vmem_page_fill(void *page, uint64_t word)
{
	page_word *w = page;
#ifdef __x86_64__
	size_t left = PAGE_WORDS;

	__asm__ volatile("rep stosq" : "+D"(w), "+c"(left) : "a"(word) : "memory");
#else
	for (size_t i = 0; i < PAGE_WORDS; i++)
		w[i] = word;
#endif
}

uint32_t vmem_page_checksum(const void *page, uint32_t cpu)
{
	return (uint32_t)vmemi_hash_choose(cpu)(page, VMEM_PAGE_SIZE, 0);
}
