/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages for tests: of a wanted kind, the same again for the same seed. */
#ifndef VMEMT_PAGES_H
#define VMEMT_PAGES_H
#include <string.h>
#include <vmem/common.h>
#include "support/rng.h"

enum vmemt_page_kind {
	VMEMT_PAGE_ZERO,  /* zeros */
	VMEMT_PAGE_SAME,  /* one 32-bit value, repeated */
	VMEMT_PAGE_WORD,  /* one 64-bit word of two different halves, repeated */
	VMEMT_PAGE_TEXT,  /* compresses, to 600 .. 2400 bytes with LZ4 */
	VMEMT_PAGE_NOISE, /* does not compress */
	VMEMT_PAGE_KINDS
};

struct vmemt_page {
	_Alignas(64) unsigned char bytes[VMEM_PAGE_SIZE];
};

static inline void vmemt_page_make(struct vmemt_page *page, enum vmemt_page_kind kind,
				   uint64_t seed)
{
	uint64_t state = seed, first = vmemt_rand(&state) | 1, noise = 0;
	size_t noisy = 512 + first % 1536;

	switch (kind) {
	case VMEMT_PAGE_ZERO: first = 0; break;
	case VMEMT_PAGE_SAME: first = (uint32_t)first * UINT64_C(0x100000001); break;
	case VMEMT_PAGE_WORD:
		first = (uint32_t)first * UINT64_C(0x100000001) ^ UINT64_C(1) << 40;
		break;
	case VMEMT_PAGE_TEXT: noise = noisy; break;
	default: noise = VMEM_PAGE_SIZE; break;
	}
	for (size_t at = 0; at < VMEM_PAGE_SIZE; at += sizeof(first)) {
		uint64_t word = at < noise ? vmemt_rand(&state) : first;

		memcpy(page->bytes + at, &word, sizeof(word));
	}
}

static inline int vmemt_page_is(const void *page, enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page want;

	vmemt_page_make(&want, kind, seed);
	return !memcmp(page, want.bytes, sizeof(want.bytes));
}

#endif
