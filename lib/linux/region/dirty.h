/* SPDX-License-Identifier: BSD-2-Clause */
/* Which pages were written: a bit a page, for each who watches; those that a migration has to tell again, and those
 * that the guest says are free and may have taken since (discard/discard_guard.c).
 *
 * The rule: a page that can be written without a fault has its bit set, of all who watch; in a file by whatever
 * mapping: the guest's, or a peer's. So whoever makes a page writable anywhere claims it, sets the bits, and changes
 * the mapping, before the claim ends; and who takes a bit away has claimed the page, and protected it in all mappings
 * before. A claimed page is waited for: no bit is taken away between those two steps. Of a page that is away, which is
 * writable nowhere, a bit may be taken away without a claim, if it is still away after: who brings it claims it later
 * than that, and sets the bits again. */
#ifndef VMEMI_DIRTY_H
#define VMEMI_DIRTY_H
#include "linux/region/table.h"

static inline bool vmemi_watch_has(const struct vmemi_watch *w, uint64_t page)
{
	return atomic_load(&w->bits[page / 64]) >> page % 64 & 1;
}

static inline void vmemi_watch_mark(struct vmemi_watch *w, uint64_t page)
{
	if (atomic_load(&w->on))
		atomic_fetch_or(&w->bits[page / 64], UINT64_C(1) << page % 64);
}

/* Whether anybody watches. */
static inline bool vmemi_dirty_on(const struct vmem_region *r)
{
	return atomic_load(&r->watch[VMEMI_WATCH_DIRTY].on) ||
	       atomic_load(&r->watch[VMEMI_WATCH_GUARD].on);
}

/* Whether a page must not be written without a fault. */
static inline bool vmemi_dirty_is_watched(const struct vmem_region *r, uint64_t page)
{
	for (unsigned i = 0; i < VMEMI_WATCHES; i++)
		if (atomic_load(&r->watch[i].on) && !vmemi_watch_has(&r->watch[i], page))
			return true;
	return false;
}

/* The page is claimed and about to be writable, or its bytes have changed. */
static inline void vmemi_dirty_mark(struct vmem_region *r, uint64_t page)
{
	for (unsigned i = 0; i < VMEMI_WATCHES; i++)
		vmemi_watch_mark(&r->watch[i], page);
}

/* The page is claimed and arrives; whether that must be write-protected. */
static inline bool vmemi_dirty_protects(struct vmem_region *r, uint64_t page, bool write)
{
	if (!write)
		return vmemi_dirty_on(r) || r->async_wp;
	vmemi_dirty_mark(r, page);
	return false;
}

/* Begins to watch, for @which, which nobody does. All pages that are not absent have their bits set. 0, -VMEM_EBUSY,
 * -VMEM_ENOTSUP, -VMEM_ENOMEM. */
int vmemi_watch_start(struct vmem_region *r, enum vmemi_watch_of which);
/* Takes the bits of [first, first + count) away, and tells of the pages that had one, in runs; @run may be NULL. 0,
 * -VMEM_EIO, or what @run returned. */
int vmemi_watch_round(struct vmem_region *r, enum vmemi_watch_of which, uint64_t first,
		      uint64_t count, int (*run)(void *context, uint64_t gpa, uint64_t bytes),
		      void *context, uint64_t *ret_pages);
/* Ends it; what nobody else watches becomes writable. False: it was not on. */
bool vmemi_watch_stop(struct vmem_region *r, enum vmemi_watch_of which);

#endif
