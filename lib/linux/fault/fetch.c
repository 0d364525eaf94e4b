/* SPDX-License-Identifier: BSD-2-Clause */
/* Bringing pages back on request, many at a time, before somebody touches them: runs of pages that are in
 * the same place are claimed together, and installed by one copy. Only into frames that are free above the
 * reserve: what is fetched displaces nothing. */
#include "linux/backing/backing.h"
#include "linux/fault/fetch.h"
#include "linux/fault/serve.h"
#include "linux/fault/source.h"
#include "linux/manager/manager.h"
#include "linux/region/dirty.h"

#define RUN VMEMI_FETCH_RUN
#define CACHE_LINE 64
#define AHEAD_BYTES 1024 /* more, and the processor waits for it: so much it can fetch at once */

enum from { FROM_NOWHERE, FROM_STAGING, FROM_STORE, FROM_SOURCE };

static enum from where(const struct vmem_region *r, uint64_t word)
{
	if (word & VMEMI_PAGE_LEAVING)
		return FROM_NOWHERE;
	if (vmemi_backing_has_frame(r, word)) /* in its file still */
		return FROM_STAGING;
	switch (vmemi_page_state(word)) {
	case VMEM_PAGE_STAGED:
	case VMEM_PAGE_STORING: return FROM_STAGING;
	case VMEM_PAGE_STORED: return FROM_STORE;
	case VMEM_PAGE_SOURCE: return FROM_SOURCE;
	default: return FROM_NOWHERE;
	}
}

static bool has_frames(const struct vmem_region *r, uint64_t pages)
{
	const struct vmemi_frames *f = &r->host->frames;

	return atomic_load(&f->budget_bytes) == UINT64_MAX ||
	       vmemi_frames_free(f) >= atomic_load(&f->reserve_bytes) + pages * VMEM_PAGE_SIZE;
}

/* Gives back the claim on pages of a run. */
static void let_go(struct vmemi_fetch *f, uint64_t page, unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++)
		vmemi_region_end(f->r, page + i, VMEMI_PAGE_RETURN, f->old[i]);
}

/* Claims pages from @page on that are all @from, with frames for them. *@ret_full: there are no more. */
static unsigned claim_run(struct vmemi_fetch *f, uint64_t page, uint64_t end, enum from from,
			  bool *ret_full)
{
	struct vmem_region *r = f->r;
	struct vmemi_frames *frames = &r->host->frames;
	unsigned alike = 0, n, claimed, are = 0;

	while (alike < RUN && page + alike < end &&
	       where(r, vmemi_region_word(r, page + alike)) == from)
		alike++;
	n = alike; /* looked before taken: others shall not find too little meanwhile */
	while (n && !(has_frames(r, n) &&
		      vmemi_frames_take(frames, n, atomic_load(&frames->reserve_bytes))))
		n /= 2;
	*ret_full = alike && !n;
	claimed = vmemi_region_step_run(r, page, n, VMEMI_PAGE_FETCH, f->old);
	if (claimed < n)
		vmemi_frames_untake(frames, n - claimed);
	while (are < claimed && where(r, f->old[are]) == from)
		are++;
	let_go(f, page, are, claimed);
	return are;
}

/* Loads a claimed run into the buffer, up to the first page that cannot be had at once: a slow load, or one that
 * fails, which is left to the fault that meets it. */
static unsigned load_run(struct vmemi_fetch *f, uint64_t page, unsigned n)
{
	struct vmem_region *r = f->r;
	unsigned i;
	int error;

	for (i = 0; i < n; i++) {
		error = vmem_store_load(r->host->store, r->vm, vmemi_region_key(r, page + i),
					vmemi_page_ref(f->old[i]),
					f->buffer + (size_t)i * VMEM_PAGE_SIZE, NULL);
		f->slow = error == -VMEM_EAGAIN;
		if (error)
			break;
	}
	return i;
}

/* Fetches the beginning of a page in staging while another one is copied: it is seldom in a cache. */
static void look_ahead(const struct vmem_region *r, uint64_t page)
{
	if (page >= r->pages || r->backing->one_frame ||
	    where(r, vmemi_region_word(r, page)) != FROM_STAGING)
		return;
	for (unsigned at = 0; at < AHEAD_BYTES; at += CACHE_LINE)
		__builtin_prefetch(vmemi_region_place(r, page) + at, 0, 2);
}

/* Brings the first @have of a claimed run back, and lets go of the others. Returns how many are done. */
static unsigned install_run(struct vmemi_fetch *f, uint64_t page, unsigned n, unsigned have,
			    enum from from)
{
	struct vmem_region *r = f->r;
	size_t bytes = 0;
	bool wp = r->async_wp; /* that it comes is no write */
	unsigned done;

	for (unsigned i = 0; i < have && from == FROM_STORE; i++)
		vmemi_dirty_mark(r, page + i); /* they come writable */
	look_ahead(r, page + n < f->end ? page + n : f->next);
	if (from == FROM_STAGING)
		r->backing->unstage(r, &r->own, page, n, vmemi_dirty_protects(r, page, false),
				    &bytes);
	else if (have)
		r->backing->fill(r, &r->own, page, have, f->buffer, &wp, &bytes);
	done = (unsigned)(bytes / VMEM_PAGE_SIZE);
	if (from == FROM_STAGING)
		vmemi_backing_returned_run(r, page, done, f->old);
	else
		vmemi_region_end_run(r, page, done, VMEMI_PAGE_ARRIVE);
	let_go(f, page, done, n);
	vmemi_tally(&r->counters.prefetched, done);
	f->fetched += done;
	return done;
}

static void ask(struct vmem_region *r, uint64_t page, enum from from)
{
	if (from == FROM_SOURCE)
		vmemi_source_want(r, page, false);
	else
		vmemi_serve_want(r, page);
}

/* Asks for a run of pages that are with the caller, or on a device, and waits for them. A lost one is passed over. */
static int ask_run(struct vmemi_fetch *f, uint64_t page, uint64_t end, enum from from,
		   uint64_t *ret_next)
{
	struct vmem_region *r = f->r;
	unsigned n = 0;

	while (n < RUN && page + n < end && where(r, vmemi_region_word(r, page + n)) == from &&
	       has_frames(r, n + 1))
		ask(r, page + n++, from);
	for (unsigned i = 0; i < n; i++) {
		int error = vmem_region_resolve(r, vmemi_region_gpa(r, page + i), 0);

		if (error == -VMEM_ENOSPC)
			return error;
		f->fetched += !error;
	}
	if (!n && !has_frames(r, 1))
		return -VMEM_ENOSPC;
	*ret_next = page + (n ? n : 1); /* none: somebody was faster */
	return 0;
}

/* One run, or one page that needs nothing. 0, -VMEM_ENOSPC. */
static int fetch_some(struct vmemi_fetch *f, uint64_t page, uint64_t end, uint64_t *ret_next)
{
	struct vmem_region *r = f->r;
	enum from from = where(r, vmemi_region_word(r, page));
	bool full = false;
	unsigned n, have, done;

	if (from == FROM_SOURCE)
		return ask_run(f, page, end, from, ret_next);
	f->slow = false;
	n = from ? claim_run(f, page, end, from, &full) : 0;
	if (full && !n)
		return -VMEM_ENOSPC;
	if (!n) {
		*ret_next = page + 1;
		return 0;
	}
	have = from == FROM_STORE ? load_run(f, page, n) : n;
	done = install_run(f, page, n, have, from);
	if (f->slow && done == have)
		return ask_run(f, page + done, end, FROM_STORE, ret_next);
	/* The page that stopped it is passed over; the others of the run come again. */
	*ret_next = page + (done < n ? done + 1 : n);
	return 0;
}

int vmemi_fetch_begin(struct vmemi_fetch *f, struct vmem_region *r)
{
	f->r = r;
	f->fetched = 0;
	f->buffer = vmemi_alloc(&r->host->metadata.allocator, (size_t)RUN * VMEM_PAGE_SIZE, 64);
	return f->buffer ? 0 : -VMEM_ENOMEM;
}

/* What came back from staging has left a frame there. False: none is to be had by that. */
static bool tidy(struct vmem_region *r)
{
	struct vmemi_reclaim *rc = ((struct vmem_manager *)r->host)->reclaim;
	uint64_t freed;

	if (vmemi_region_is_quiet(r) || !vmemi_region_copies(r))
		return false;
	vmemi_reclaim_enter(rc);
	freed = vmemi_tidy(rc, r, 0, r->pages);
	vmemi_reclaim_leave(rc);
	return freed > 0;
}

int vmemi_fetch_range(struct vmemi_fetch *f, uint64_t first, uint64_t count, uint64_t next)
{
	uint64_t end = first + count;
	int error = 0;

	f->end = end;
	f->next = next;
	while (first < end && !error) {
		error = fetch_some(f, first, end, &first);
		if (error == -VMEM_ENOSPC && tidy(f->r))
			error = 0;
	}
	return error;
}

void vmemi_fetch_end(struct vmemi_fetch *f)
{
	vmemi_free(&f->r->host->metadata.allocator, f->buffer, (size_t)RUN * VMEM_PAGE_SIZE, 64);
}

int vmem_region_fetch(vmem_region *region, uint64_t gpa, uint64_t bytes, uint64_t *ret_pages)
{
	struct vmemi_fetch f;
	uint64_t first, count;
	int error = vmemi_region_span(region, gpa, bytes, true, &first, &count);

	if (!error)
		error = vmemi_fetch_begin(&f, region);
	if (error)
		return error;
	error = vmemi_fetch_range(&f, first, count, VMEMI_FETCH_NOTHING);
	vmemi_fetch_end(&f);
	if (ret_pages)
		*ret_pages = f.fetched;
	return error;
}
