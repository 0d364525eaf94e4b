/* SPDX-License-Identifier: BSD-2-Clause */
/* Bringing everything back before a region is detached. Of memory of ours nothing leaves meanwhile, because the caller
 * has entered reclaim; of another process's nothing ever does, and its caller holds nothing: that process may keep us
 * for long. */
#include "linux/fault/source.h"
#include "linux/foreign/foreign_events.h"
#include "linux/manager/manager.h"

#define AHEAD_MOST 16 /* loads under way at a time */
#define HANGS_MAX 4   /* of a source in a row */

struct restoring {
	struct vmem_region *r;
	uint64_t began_ns; /* with this page; 0: it needs nothing */
	unsigned hangs;
	bool lost;
};

static uint64_t deadline_ns(const struct vmem_region *r)
{
	return r->opts.fault_deadline_ms * 1000000;
}

/* A page of another process is lost: it must be an error to touch, also when nobody serves it any more. False: not
 * now. A source that did not answer in time, time and again, is not asked any more. */
static bool leave_lost(struct restoring *x, uint64_t page)
{
	struct vmem_region *r = x->r;
	int error = vmemi_foreign_mark(r, page);

	if (error == -VMEM_EAGAIN || error == -VMEM_ENOMEM)
		return false;
	x->hangs = r->host->k->clock_ns() - x->began_ns < deadline_ns(r) ? 0 : x->hangs + 1;
	x->lost |= !vmemi_foreign_removed(r, page); /* else it reads as zeros */
	for (; x->hangs >= HANGS_MAX && page < r->pages; page++)
		if (vmemi_page_state(vmemi_region_word(r, page)) == VMEM_PAGE_SOURCE)
			vmemi_source_give_up_page(r, page);
	return true;
}

static void begin(struct restoring *x)
{
	x->began_ns = x->r->host->k->clock_ns();
	if (x->r->foreign)
		vmemi_foreign_await(x->r->foreign);
}

/* 0; -VMEM_EBUSY: its process has had pages refused for too long. */
static int wait_for_page(struct restoring *x)
{
	struct vmemi_host *host = x->r->host;
	bool refused = false;

	/* Reclaim looks after them otherwise, and waits for us. */
	vmemi_source_give_up(host);
	if (x->r->foreign && vmemi_foreign_is_worn_out(x->r->foreign, deadline_ns(x->r), &refused))
		return -VMEM_EBUSY;
	if (refused && !atomic_load(&host->serve_faults)) /* not sooner than it is tried again */
		host->k->futex_wait(&host->source_work, atomic_load(&host->source_work),
				    VMEMI_SOURCE_PACE_NS);
	else
		vmemi_host_wait(host);
	return 0;
}

/* Its load is slow: those behind it go along. */
static void want_some(struct vmem_region *r, uint64_t page)
{
	for (uint64_t i = 0; i < AHEAD_MOST && page + i < r->pages; i++)
		if (vmemi_page_state(vmemi_region_word(r, page + i)) == VMEM_PAGE_STORED)
			vmemi_serve_want(r, page + i);
}

/* One step towards having @page back. 1: it is lost, and that is all. */
static int bring(struct restoring *x, uint64_t page, enum vmem_page_state state)
{
	struct vmemi_fault f = { .page = page, .force = true, .write = true };

	f.kind = state == VMEM_PAGE_CLEAN ? VMEMI_FAULT_PROTECTED : VMEMI_FAULT_MISSING;
	switch (vmemi_serve(x->r, &f)) {
	case VMEMI_SERVED: return 0;
	case VMEMI_POISONED:
		x->lost |= !x->r->foreign;
		return !x->r->foreign || leave_lost(x, page) ? 1 : wait_for_page(x);
	case VMEMI_SLOW: want_some(x->r, page); /* fall through */
	default: return wait_for_page(x);
	}
}

int vmemi_manager_restore(struct vmem_region *r)
{
	struct restoring x = { .r = r };
	int result = 0;

	for (uint64_t page = 0; page < r->pages && result >= 0;) {
		enum vmem_page_state state = vmemi_page_state(vmemi_region_word(r, page));
		bool there = state == VMEM_PAGE_ABSENT || state == VMEM_PAGE_RESIDENT;

		if (!there && !x.began_ns)
			begin(&x);
		result = there ? 0 : bring(&x, page, state);
		if (result > 0 && !r->foreign) /* it stays attached */
			break;
		if (there && x.began_ns)
			x.hangs = 0;
		if (there || result > 0) {
			x.began_ns = 0;
			page++;
		}
	}
	return result < 0 ? result : x.lost;
}
