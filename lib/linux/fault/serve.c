/* SPDX-License-Identifier: BSD-2-Clause */
/* Serving one fault: see serve.h. A fault first claims its page (ARRIVING), then changes the mapping,
 * then ends the claim; whoever loses the race for the claim is told to come again. Here is told apart what it
 * meets; what is done about that:
 *
 *   serve_bring.c     the page is away, and comes back
 *   serve_in_place.c  it is in place: protected, not mapped by who faults, or served meanwhile
 *   serve_lost.c      its bytes are gone
 *   serve_wait.c      for who can do nothing but wait until it is served
 *   source.c          its bytes are with the caller */
#include "linux/fault/serve_parts.h"
#include "linux/backing/backing.h"
#include "linux/fault/source.h"
#include "linux/foreign/foreign_events.h"

void vmemi_serve_count(struct vmem_region *r, struct vmemi_fault *f, enum vmem_page_state from)
{
	struct vmemi_region_counters *c = &r->counters;

	if (!f->demand) {
		vmemi_tally(&c->prefetched, 1);
		vmemi_touched(&r->touches, f->page); /* it is going to be, without a fault */
		return;
	}
	if (from == VMEM_PAGE_ABSENT)
		vmemi_tally(&c->faults_zero, 1);
	else if (from == VMEM_PAGE_STORED)
		vmemi_tally(&c->faults_stored, 1);
	else if (from == VMEM_PAGE_SOURCE)
		vmemi_tally(&c->faults_source, 1);
	else
		vmemi_tally(&c->faults_staged, 1);
}

enum vmemi_served vmemi_serve(struct vmem_region *r, struct vmemi_fault *f)
{
	uint64_t word = vmemi_region_word(r, f->page);
	bool leaving;

	if (r->foreign && vmemi_page_state(word) == VMEM_PAGE_SOURCE &&
	    vmemi_foreign_is_absent(r, f->page))
		word = vmemi_region_word(r, f->page);
	leaving = word & VMEMI_PAGE_LEAVING;
	if (f->demand)
		vmemi_touched(&r->touches, f->page);
	switch (vmemi_page_state(word)) {
	case VMEM_PAGE_RESIDENT:
	case VMEM_PAGE_CLEAN:
	case VMEM_PAGE_SHARED:
		return f->kind == VMEMI_FAULT_PROTECTED ? vmemi_serve_protected(r, f)
							: vmemi_serve_in_place(r, f);
	case VMEM_PAGE_ARRIVING:
		return vmemi_source_joins(r, f->page, f->write) ? VMEMI_ASKED : VMEMI_PUT_OFF;
	case VMEM_PAGE_POISONED:
		/* Who found nothing there before it was poisoned may have come to wait only after that. */
		vmemi_serve_meet_poison(r, f);
		return VMEMI_POISONED;
	default:
		if (leaving)
			return VMEMI_PUT_OFF;
		if (f->kind == VMEMI_FAULT_PROTECTED && !vmemi_backing_has_frame(r, word)) {
			/* It has left since. The access is repeated, and faults as missing. */
			vmemi_serve_wake(r, f);
			return VMEMI_SERVED;
		}
		if (vmemi_page_state(word) == VMEM_PAGE_SOURCE) {
			vmemi_source_want(r, f->page, f->write);
			return VMEMI_ASKED;
		}
		return vmemi_serve_bring(r, f, word);
	}
}
