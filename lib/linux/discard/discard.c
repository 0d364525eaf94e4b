/* SPDX-License-Identifier: BSD-2-Clause */
/* Dropping the contents of guest pages: in place, in staging, in the store. What is dropped reads as
 * zero from then on, or is with the source. */
#include "linux/discard/discard.h"
#include "linux/backing/backing.h"
#include "linux/backing/peers.h"
#include "linux/region/dirty.h"
#include "store/store_internal.h"
#include <sys/mman.h>
#include <vmem/source.h>

/* Its frame is in the file, though it is not in place. */
static bool in_file(const struct vmem_region *r, uint64_t word)
{
	return r->backing->one_frame && (word & VMEMI_PAGE_OCCUPIED);
}

static bool has_frame(enum vmem_page_state was)
{
	return was == VMEM_PAGE_RESIDENT || was == VMEM_PAGE_CLEAN || was == VMEM_PAGE_SHARED;
}

/* A poisoned page of a file has no frame to free, which would take the error with it. False: it is an error still. */
static bool heal(struct vmem_region *r, uint64_t page)
{
	if (!r->backing->one_frame)
		return true;
	if (!vmemi_peers_heal(r, page))
		return false;
	r->host->k->madvise(vmemi_region_page(r, page), VMEM_PAGE_SIZE, MADV_DONTNEED);
	return true;
}

/* Takes the mappings of a batch away and ends it. */
static void flush(struct vmemi_discard_batch *b)
{
	struct vmem_region *r = b->r;
	enum vmemi_page_event done = r->backing->one_frame         ? VMEMI_PAGE_PUNCH_DONE
				     : b->event == VMEMI_PAGE_GIVE ? VMEMI_PAGE_DROP_DONE
								   : VMEMI_PAGE_DISCARD_DONE;
	uint64_t pages[VMEMI_DISCARD_BATCH];
	uint32_t n = 0, gone;

	for (unsigned i = 0; i < b->count; i++) {
		b->stuck[i] = b->was[i] == VMEM_PAGE_POISONED && !heal(r, b->page[i]);
		if (b->mapped[i] && !b->stuck[i])
			pages[n++] = b->page[i];
	}
	gone = r->backing->release(r, pages, n);
	vmemi_frames_untake(&r->host->frames, b->frames);
	b->frames = 0;
	for (unsigned i = 0; i < b->count; i++) {
		bool leaves = b->mapped[i] && !b->stuck[i];
		bool kept = b->stuck[i] || (leaves && !gone);

		gone -= leaves && gone;
		vmemi_region_end(r, b->page[i],
				 b->stuck[i] ? VMEMI_PAGE_DISCARD_LOST
				 : kept      ? VMEMI_PAGE_DISCARD_UNDO
					     : done,
				 0);
		/* Others who wait are served in their turn; its fault was answered. */
		if (b->was[i] == VMEM_PAGE_POISONED) {
			vmemi_uffd_wake(r->uffd, vmemi_region_page(r, b->page[i]), VMEM_PAGE_SIZE);
			vmemi_peers_wake(r, b->page[i]);
		}
		if (kept) {
			b->failed++;
			continue;
		}
		b->released += b->frame[i] ? VMEM_PAGE_SIZE : 0;
		vmemi_tally(&r->counters.discarded, 1);
	}
	b->count = 0;
}

static void add(struct vmemi_discard_batch *b, uint64_t page, uint64_t old)
{
	enum vmem_page_state was = vmemi_page_state(old);
	struct vmemi_host *host = b->r->host;
	bool staged = was == VMEM_PAGE_STAGED || was == VMEM_PAGE_STORING ||
		      (!has_frame(was) && in_file(b->r, old));

	/* Nobody may make a hinted page writable before its frame is gone: so the guard does not hear of it. */
	vmemi_watch_mark(&b->r->watch[VMEMI_WATCH_DIRTY], page);
	if (!b->hinted)
		vmemi_watch_mark(&b->r->watch[VMEMI_WATCH_GUARD], page);
	if (has_frame(was)) {
		vmemi_frames_force(&host->frames, 1); /* it is there until discarded */
		b->frames++;
	}
	b->staged |= staged;
	if (vmemi_page_ref(old)) {
		b->released += vmemi_store_ref_bytes(host->store, vmemi_page_ref(old));
		vmemi_region_drop_ref(b->r, old);
	}
	b->was[b->count] = was;
	b->frame[b->count] = has_frame(was) || staged;
	b->mapped[b->count] = has_frame(was) || was == VMEM_PAGE_POISONED || in_file(b->r, old);
	b->page[b->count++] = page;
	if (b->count == VMEMI_DISCARD_BATCH)
		flush(b);
}

/* Somebody is at it: not for long. What this batch holds must not wait with us. */
static void stand_back(struct vmemi_discard_batch *b)
{
	flush(b);
	vmemi_host_wait(b->r->host);
}

static void discard_page(struct vmemi_discard_batch *b, uint64_t page)
{
	uint64_t old, word;

	while (!vmemi_region_step(b->r, page, b->event, 0, &old)) {
		word = vmemi_region_word(b->r, page);
		if (word & VMEMI_PAGE_PINNED) {
			b->pinned++;
			return;
		}
		if (vmemi_page_state(word) == VMEM_PAGE_ABSENT && !(word & VMEMI_PAGE_LEAVING) &&
		    b->event == VMEMI_PAGE_DISCARD)
			return;
		stand_back(b);
	}
	add(b, page, old);
}

/* Claims a page, wherever it is but with a source, with a frame counted for it. */
static bool claim(struct vmem_region *r, uint64_t page, uint64_t *ret_old)
{
	if (vmemi_region_step(r, page, VMEMI_PAGE_CLAIM, 0, ret_old))
		return true;
	vmemi_frames_force(&r->host->frames, 1);
	if (vmemi_region_step(r, page, VMEMI_PAGE_FETCH, 0, ret_old))
		return true;
	vmemi_frames_untake(&r->host->frames, 1);
	return false;
}

static bool is_unwritten(const struct vmem_region *r, uint64_t page)
{
	const struct vmemi_watch *guard = &r->watch[VMEMI_WATCH_GUARD];

	return atomic_load(&guard->on) && !vmemi_watch_has(guard, page);
}

/* While the page is claimed nobody makes it writable, so what the guard says of it stays true until its frame is gone;
 * who writes to it then waits, and finds zeros. */
static void discard_hinted(struct vmemi_discard_batch *b, uint64_t page)
{
	struct vmem_region *r = b->r;
	uint64_t old, word;

	for (;; stand_back(b)) {
		word = vmemi_region_word(r, page);
		if (word & VMEMI_PAGE_PINNED) {
			b->pinned++;
			return;
		}
		if (!is_unwritten(r, page)) {
			b->written++;
			return;
		}
		switch (vmemi_page_state(word)) {
		case VMEM_PAGE_ABSENT:
		case VMEM_PAGE_SOURCE:
		case VMEM_PAGE_POISONED: return;
		default: break;
		}
		if (!claim(r, page, &old))
			continue;
		if (is_unwritten(r, page) && vmemi_page_state(old) != VMEM_PAGE_SOURCE &&
		    vmemi_region_step(r, page, VMEMI_PAGE_DISCARD_CLAIMED, 0, &word)) {
			add(b, page, old);
			return;
		}
		vmemi_region_end(r, page, VMEMI_PAGE_RETURN, old);
	}
}

void vmemi_discard_pages(struct vmemi_discard_batch *b, uint64_t first, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		if (b->hinted)
			discard_hinted(b, first + i);
		else
			discard_page(b, first + i);
}

void vmemi_discard_batch_end(struct vmemi_discard_batch *b)
{
	flush(b);
	if (b->staged)
		vmemi_host_kick_reclaim(b->r->host);
	vmemi_host_freed(b->r->host);
}

static int discard_range(struct vmemi_discard_batch *b, uint64_t gpa, uint64_t bytes,
			 uint64_t *ret_bytes)
{
	uint64_t first, count;
	int error = vmemi_region_span(b->r, gpa, bytes, false, &first, &count);

	if (error)
		return error;
	vmemi_discard_pages(b, first, count);
	vmemi_discard_batch_end(b);
	if (ret_bytes)
		*ret_bytes = b->released;
	return b->failed ? -VMEM_EIO : b->pinned ? -VMEM_EBUSY : 0;
}

int vmem_region_discard(vmem_region *region, uint64_t gpa, uint64_t bytes, uint64_t *ret_bytes)
{
	struct vmemi_discard_batch b = { .r = region, .event = VMEMI_PAGE_DISCARD };

	return region->foreign ? -VMEM_ENOTSUP : discard_range(&b, gpa, bytes, ret_bytes);
}

int vmem_region_give_to_source(vmem_region *region, uint64_t gpa, uint64_t bytes)
{
	struct vmemi_discard_batch b = { .r = region, .event = VMEMI_PAGE_GIVE };

	if (region->foreign)
		return -VMEM_ENOTSUP;
	return region->source ? discard_range(&b, gpa, bytes, NULL) : -VMEM_EINVAL;
}

/* True if it was away. What is in staging, or in its file, comes back for little: it stays as it is. */
static bool forget(struct vmem_region *r, uint64_t page)
{
	uint64_t old, word;

	while (!vmemi_region_step(r, page, VMEMI_PAGE_FORGET, 0, &old)) {
		word = vmemi_region_word(r, page);
		if (!(word & VMEMI_PAGE_LEAVING) || (vmemi_page_state(word) != VMEM_PAGE_SOURCE &&
						     vmemi_page_state(word) != VMEM_PAGE_STORED))
			return false;
		vmemi_host_wait(r->host); /* it is on its way out */
	}
	vmemi_dirty_mark(r, page); /* after the step: who is told of it reads what it reads now */
	vmemi_region_drop_ref(r, old);
	return true;
}

int vmem_region_will_overwrite(vmem_region *region, uint64_t gpa, uint64_t bytes,
			       uint64_t *ret_pages)
{
	uint64_t first, count, forgotten = 0;
	int error = vmemi_region_span(region, gpa, bytes, false, &first, &count);

	if (error)
		return error;
	for (uint64_t page = first; page < first + count; page++)
		forgotten += forget(region, page);
	if (forgotten)
		vmemi_host_freed(region->host);
	if (ret_pages)
		*ret_pages = forgotten;
	return 0;
}
