/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages of the store's model. */
#ifndef VMEMT_MODEL_PAGES_H
#define VMEMT_MODEL_PAGES_H
#include "support/pages.h"

#define EDITS 8u /* versions of a page of text, in the low bits of its seed */

/* Pages of one kind are equal if, and only if, their seeds are. Those of text are alike if all but the low
 * bits are: they differ in their first two blocks of 32 bytes, so that most have their features in common. */
static inline void make_page(struct vmemt_page *page, enum vmemt_page_kind kind, uint64_t seed)
{
	vmemt_page_make(page, kind, seed / EDITS);
	for (uint64_t i = 0; kind == VMEMT_PAGE_TEXT && i < seed % EDITS * 2; i++)
		page->bytes[i * 4 + 5] ^= (unsigned char)(seed % EDITS);
}

static inline int is_page(const struct vmemt_page *page, enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page expected;

	make_page(&expected, kind, seed);
	return memcmp(page, &expected, sizeof(expected)) == 0;
}

#endif
