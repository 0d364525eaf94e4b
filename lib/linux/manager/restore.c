/* SPDX-License-Identifier: BSD-2-Clause */
/* Bringing everything back before a region is detached. */
#include "linux/fault/source.h"
#include "linux/foreign/foreign_events.h"
#include "linux/manager/manager.h"

#define HANGS_MAX 4 /* of a source in a row */

/* A page of another process is lost: it must be an error to touch, also when nobody serves it any more. False: not
 * now. A source that did not answer in time, time and again, is not asked any more. */
static bool leave_lost(struct vmem_region *r, uint64_t page, uint64_t waited_ns, unsigned *hangs)
{
	int error = vmemi_foreign_mark(r, page);

	if (error == -VMEM_EAGAIN || error == -VMEM_ENOMEM)
		return false;
	*hangs = waited_ns < r->opts.fault_deadline_ms * 1000000 ? 0 : *hangs + 1;
	for (; *hangs >= HANGS_MAX && page < r->pages; page++)
		if (vmemi_page_state(vmemi_region_word(r, page)) == VMEM_PAGE_SOURCE)
			vmemi_source_give_up_page(r, page);
	return true;
}

bool vmemi_manager_restore(struct vmem_manager *m, struct vmem_region *r)
{
	uint64_t began_ns = 0; /* with this page; 0: it needs nothing */
	unsigned hangs = 0;
	bool lost = false;

	for (uint64_t page = 0; page < r->pages;) {
		struct vmemi_fault f = { .page = page, .force = true, .write = true };
		enum vmem_page_state state = vmemi_page_state(vmemi_region_word(r, page));

		if (state == VMEM_PAGE_ABSENT || state == VMEM_PAGE_RESIDENT) {
			page++;
			hangs = began_ns ? 0 : hangs;
			began_ns = 0;
			continue;
		}
		began_ns = began_ns ? began_ns : m->host.k->clock_ns();
		f.kind = state == VMEM_PAGE_CLEAN ? VMEMI_FAULT_PROTECTED : VMEMI_FAULT_MISSING;
		switch (vmemi_serve(r, &f)) {
		case VMEMI_SERVED: break;
		case VMEMI_POISONED:
			if (!r->foreign)
				return true;
			if (!leave_lost(r, page, m->host.k->clock_ns() - began_ns, &hangs)) {
				vmemi_host_wait(&m->host);
				break;
			}
			lost |= !vmemi_foreign_removed(r, page); /* else it reads as zeros */
			page++;
			began_ns = 0;
			break;
		case VMEMI_SLOW: vmemi_serve_want(r, page); /* fall through */
		default:
			/* Reclaim looks after them otherwise, and waits for us. */
			vmemi_source_give_up(&m->host);
			vmemi_host_wait(&m->host);
		}
	}
	return lost;
}
