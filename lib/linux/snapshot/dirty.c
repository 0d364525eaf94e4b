/* SPDX-License-Identifier: BSD-2-Clause */
/* Rounds of a live migration: see <vmem/snapshot.h>, and region/dirty.h for the rule. Bits are taken away under the
 * lock of reclaim, so that no wide range is being made writable meanwhile, and told without it. */
#include "linux/region/dirty.h"
#include "base/mem.h"
#include "linux/backing/peers.h"
#include "linux/manager/manager.h"
#include <vmem/snapshot.h>

#define PIECE 512 /* pages whose bits are taken away between two calls of the caller's function */
#define STOP_PIECE 8192
#define REFUSALS_MAX \
	256 /* in a round, before a page that cannot be protected is told all the same */

struct piece {
	struct vmem_region *r;
	struct vmemi_watch *w;
	uint64_t base;            /* page of the first bit */
	uint64_t got[PIECE / 64]; /* bits taken */
	unsigned refusals;        /* in this round, by the kernel */
	uint64_t first;           /* page; of the claimed run */
	unsigned count;
	uint64_t old[PIECE];  /* its words before */
	uint64_t page[PIECE]; /* its pages */
};

static void get_bit(struct piece *p, uint64_t page)
{
	uint64_t at = page - p->base;

	p->got[at / 64] |= UINT64_C(1) << at % 64;
}

static void take_bit(struct piece *p, uint64_t page)
{
	atomic_fetch_and(&p->w->bits[page / 64], ~(UINT64_C(1) << page % 64));
	get_bit(p, page);
}

/* Protects the claimed run in all mappings, takes its bits, and gives it back. 0, -VMEM_EAGAIN, -VMEM_EIO: of what
 * could not be protected nothing was taken. What the kernel refuses time and again (it has no memory for that) is told,
 * and its bit stays, as it can be written without a fault. */
static int end_run(struct piece *p)
{
	struct vmem_region *r = p->r;
	unsigned taken = 0;
	bool tell_all = false;
	int error = 0;

	if (!p->count)
		return 0;
	error = vmemi_uffd_protect(r->uffd, vmemi_region_page(r, p->first),
				   (uint64_t)p->count * VMEM_PAGE_SIZE, true);
	if (!error) {
		taken = vmemi_peers_protect(r, p->page, p->count);
		error = taken < p->count ? -VMEM_EAGAIN : 0;
	}
	if (error == -VMEM_EAGAIN || error == -VMEM_ENOMEM) {
		tell_all = p->refusals == REFUSALS_MAX;
		p->refusals += !tell_all;
		error = tell_all ? 0 : -VMEM_EAGAIN;
	}
	for (unsigned i = 0; i < p->count; i++) {
		if (i < taken)
			take_bit(p, p->first + i);
		else if (tell_all)
			get_bit(p, p->first + i);
		vmemi_region_end(r, p->first + i, VMEMI_PAGE_RETURN, p->old[i]);
	}
	p->count = 0;
	return error && error != -VMEM_EAGAIN ? -VMEM_EIO : error;
}

static bool is_away(uint64_t word)
{
	switch (vmemi_page_state(word)) {
	case VMEM_PAGE_RESIDENT:
	case VMEM_PAGE_CLEAN:
	case VMEM_PAGE_SHARED:
	case VMEM_PAGE_ARRIVING: return false;
	default: return !(word & VMEMI_PAGE_LEAVING);
	}
}

/* Takes the bit of one page, or adds it to the run. 0, -VMEM_EAGAIN (somebody is at it, or nothing may be
 * held while that is done). */
static int take_page(struct piece *p, uint64_t page)
{
	struct vmem_region *r = p->r;
	uint64_t old, bit = UINT64_C(1) << page % 64;

	if (p->count && page != p->first + p->count)
		return -VMEM_EAGAIN;
	if (vmemi_region_step(r, page, VMEMI_PAGE_CLAIM, 0, &old)) {
		if (old & VMEMI_PAGE_PINNED) { /* written without faults: told each time */
			get_bit(p, page);
			vmemi_region_end(r, page, VMEMI_PAGE_RETURN, old);
			return 0;
		}
		if (!p->count)
			p->first = page;
		p->old[p->count] = old;
		p->page[p->count++] = page;
		return 0;
	}
	if (!is_away(vmemi_region_word(r, page)))
		return -VMEM_EAGAIN;
	take_bit(p, page);
	if (is_away(vmemi_region_word(r, page)))
		return 0;
	/* It came meanwhile, perhaps writable. */
	atomic_fetch_or(&p->w->bits[page / 64], bit);
	p->got[(page - p->base) / 64] &= ~(UINT64_C(1) << (page - p->base) % 64);
	return -VMEM_EAGAIN;
}

/* Takes the bits of [*page, end) until one has to be waited for. The caller has entered reclaim. */
static int take_some(struct piece *p, uint64_t *page, uint64_t end)
{
	int error = 0, run_error;

	for (; *page < end; ++*page) {
		if (!vmemi_watch_has(p->w, *page)) {
			error = end_run(p);
			if (error)
				return error;
			continue;
		}
		error = take_page(p, *page);
		if (error && p->count) {
			/* Not while others are claimed. */
			error = end_run(p);
			if (error)
				return error;
			error = take_page(p, *page);
		}
		if (error)
			break;
	}
	run_error = end_run(p);
	return error ? error : run_error;
}

/* Takes the bits of [first, end), all of one piece. */
static int take_piece(struct piece *p, uint64_t first, uint64_t end)
{
	struct vmemi_reclaim *rc = ((struct vmem_manager *)p->r->host)->reclaim;
	uint64_t page = first;
	int error;

	memset(p->got, 0, sizeof(p->got));
	p->base = first / 64 * 64;
	p->count = 0;
	for (;;) {
		vmemi_reclaim_enter(rc);
		error = take_some(p, &page, end);
		vmemi_reclaim_leave(rc);
		if (error != -VMEM_EAGAIN)
			return error;
		/* What was taken is taken; a run whose protection failed is asked for again. */
		page = first;
		vmemi_host_wait(p->r->host);
	}
}

/* Sets bits again that were taken and not told. */
static void put_bits(struct piece *p, uint64_t from)
{
	for (uint64_t at = from; at < PIECE; at++)
		if (p->got[at / 64] >> at % 64 & 1)
			vmemi_watch_mark(p->w, p->base + at);
}

static int tell(struct piece *p, int (*run)(void *, uint64_t, uint64_t), void *context,
		uint64_t *pages)
{
	uint64_t next;
	int error;

	for (uint64_t at = 0; at < PIECE; at = next) {
		next = at + 1;
		if (!(p->got[at / 64] >> at % 64 & 1))
			continue;
		while (next < PIECE && p->got[next / 64] >> next % 64 & 1)
			next++;
		error = run(context, vmemi_region_gpa(p->r, p->base + at),
			    (next - at) * VMEM_PAGE_SIZE);
		if (error) {
			put_bits(p, at);
			return error;
		}
		*pages += next - at;
	}
	return 0;
}

int vmemi_watch_round(struct vmem_region *r, enum vmemi_watch_of which, uint64_t first,
		      uint64_t count, int (*run)(void *context, uint64_t gpa, uint64_t bytes),
		      void *context, uint64_t *ret_pages)
{
	struct piece p = { .r = r, .w = &r->watch[which] };
	uint64_t end;
	int error = 0;

	for (uint64_t at = first; !error && at < first + count; at = end) {
		end = (at / 64 + PIECE / 64) * 64;
		if (end > first + count)
			end = first + count;
		error = take_piece(&p, at, end);
		if (error)
			put_bits(&p, 0);
		else if (run)
			error = tell(&p, run, context, ret_pages);
	}
	return error;
}

bool vmemi_watch_stop(struct vmem_region *r, enum vmemi_watch_of which)
{
	struct vmemi_reclaim *rc = ((struct vmem_manager *)r->host)->reclaim;

	if (!atomic_exchange(&r->watch[which].on, 0))
		return false;
	for (uint64_t at = 0; at < r->pages; at += STOP_PIECE) {
		uint64_t end = at + STOP_PIECE < r->pages ? at + STOP_PIECE : r->pages;

		vmemi_reclaim_enter(rc);
		atomic_store(&r->batching, 1);
		vmemi_take_unprotect(r, at, end - 1);
		atomic_store(&r->batching, 0);
		vmemi_reclaim_leave(rc);
	}
	return true;
}

int vmemi_watch_start(struct vmem_region *r, enum vmemi_watch_of which)
{
	struct vmemi_reclaim *rc = ((struct vmem_manager *)r->host)->reclaim;
	struct vmemi_watch *w = &r->watch[which];

	if (!r->can_write_protect)
		return -VMEM_ENOTSUP;
	if (atomic_load(&w->on))
		return -VMEM_EBUSY;
	if (!w->bits) {
		vmemi_reclaim_enter(rc);
		w->bits = vmemi_bitmap_new(&r->arrays);
		vmemi_reclaim_leave(rc);
	}
	if (!w->bits)
		return -VMEM_ENOMEM;
	for (uint64_t i = 0; i < (r->pages + 63) / 64; i++)
		atomic_store(&w->bits[i], 0);
	/* Before looking: what is claimed from now on sees it, what is claimed or there already is seen. Not while
	 * reclaim makes a range writable that it had looked through before. */
	vmemi_reclaim_enter(rc);
	atomic_store(&w->on, 1);
	vmemi_reclaim_leave(rc);
	/* One that is being discarded may be writable still, and be left so if the kernel refuses. */
	for (uint64_t page = 0; page < r->pages; page++) {
		uint64_t word = vmemi_region_word(r, page);

		if (vmemi_page_state(word) != VMEM_PAGE_ABSENT || (word & VMEMI_PAGE_LEAVING))
			vmemi_watch_mark(w, page);
	}
	return 0;
}

/* --- A migration's --- */

int vmem_region_dirty_round(vmem_region *region, uint64_t gpa, uint64_t bytes,
			    int (*run)(void *context, uint64_t gpa, uint64_t bytes), void *context,
			    uint64_t *ret_pages)
{
	uint64_t first, count, pages = 0;
	int error;

	if (!region || !run || !atomic_load(&region->watch[VMEMI_WATCH_DIRTY].on))
		return -VMEM_EINVAL;
	error = vmemi_region_span(region, gpa, bytes, true, &first, &count);
	if (!error)
		error = vmemi_watch_round(region, VMEMI_WATCH_DIRTY, first, count, run, context,
					  &pages);
	if (!error && ret_pages)
		*ret_pages = pages;
	return error;
}

int vmem_region_dirty_mark(vmem_region *region, uint64_t gpa, uint64_t bytes)
{
	uint64_t first, count;
	int error;

	if (!region || !vmemi_dirty_on(region))
		return -VMEM_EINVAL;
	error = vmemi_region_span(region, gpa, bytes, true, &first, &count);
	for (uint64_t i = 0; i < count && !error; i++)
		vmemi_dirty_mark(region, first + i);
	return error;
}

int vmem_region_dirty_start(vmem_region *region)
{
	return region ? vmemi_watch_start(region, VMEMI_WATCH_DIRTY) : -VMEM_EINVAL;
}

int vmem_region_dirty_stop(vmem_region *region)
{
	return region && vmemi_watch_stop(region, VMEMI_WATCH_DIRTY) ? 0 : -VMEM_EINVAL;
}
