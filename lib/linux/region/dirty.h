/* SPDX-License-Identifier: BSD-2-Clause */
/* Which pages were written since they were last told: a bit a page, while region->dirty_on.
 *
 * The rule: a page that can be written without a fault has its bit set; in a file by whatever mapping: the guest's, or
 * a peer's. So whoever makes a page writable anywhere claims it, sets the bit, and changes the mapping, before the
 * claim ends; and who takes a bit away has claimed the page, and protected it in all mappings before. A claimed
 * page is waited for: no bit is taken away between those two steps. Of a page that is away, which is writable
 * nowhere, a bit may be taken away without a claim, if it is still away after: who brings it claims it later than
 * that, and sets the bit again. */
#ifndef VMEMI_DIRTY_H
#define VMEMI_DIRTY_H
#include "linux/region/table.h"

static inline bool vmemi_dirty_has(const struct vmem_region *r, uint64_t page)
{
	return atomic_load(&r->dirty[page / 64]) >> page % 64 & 1;
}

/* The page is claimed and about to be writable, or its bytes have changed. */
static inline void vmemi_dirty_mark(struct vmem_region *r, uint64_t page)
{
	if (atomic_load(&r->dirty_on))
		atomic_fetch_or(&r->dirty[page / 64], UINT64_C(1) << page % 64);
}

/* The page is claimed and arrives; whether that must be write-protected. */
static inline bool vmemi_dirty_protects(struct vmem_region *r, uint64_t page, bool write)
{
	if (!write)
		return atomic_load(&r->dirty_on) || r->async_wp;
	vmemi_dirty_mark(r, page);
	return false;
}

#endif
