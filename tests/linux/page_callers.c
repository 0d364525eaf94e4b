/* SPDX-License-Identifier: BSD-2-Clause */
/* Programs of page_world.h that the VMM calls: discard, pin, read and write. And what it must not do: take the
 * mapping away behind the library's back. */
#include "linux/page_world.h"
#include <string.h>

static void end_claim(struct vmemt_claim *c)
{
	memset(c, 0, sizeof(*c));
}

/* --- discard --- */

static bool has_frame(enum vmem_page_state state)
{
	return state == VMEM_PAGE_RESIDENT || state == VMEM_PAGE_CLEAN || state == VMEM_PAGE_SHARED;
}

static void take_away(struct vmemt_run *run, struct vmemt_claim *c)
{
	struct vmemt_world *w = &run->w;
	enum vmem_page_state was = vmemt_packed_state(c->old);

	if (has_frame(was) && w->mapped && vmemt_may(run, VMEMT_MAY_FAIL)) { /* it is still there */
		vmemt_must(run, VMEMI_PAGE_DISCARD_UNDO, 0);
		w->truth = w->guest;
		w->discarding = 0;
		end_claim(c);
		return;
	}
	if (was == VMEM_PAGE_POISONED &&
	    vmemt_may(run, VMEMT_MAY_FAIL)) { /* it is an error still */
		vmemt_must(run, VMEMI_PAGE_DISCARD_LOST, 0);
		w->discarding = 0;
		c->pc = 4;
		return;
	}
	if (w->mapped)
		vmemt_unmap(run);
	w->marker = 0;
	w->strayed = 0;
	c->pc = 3;
}

/* With @give it is with the caller from then on, who has other bytes for it. One of them ends before the other begins,
 * but for waking who waits. */
static void discard(struct vmemt_run *run, bool give)
{
	uint8_t waking = give ? 2 : 1;
	struct vmemt_world *w = &run->w;
	struct vmemt_claim *c = give ? &w->giver : &w->discarder;

	switch (c->pc) {
	case 0:
		run->began = true;
		if (!vmemt_event(run, give ? VMEMI_PAGE_GIVE : VMEMI_PAGE_DISCARD, 0, &c->old))
			return;
		vmemt_mark(run);
		w->truth = give ? (w->source = ++w->last_version) : 0;
		w->discarding = 1;
		w->waking |= vmemt_packed_state(c->old) == VMEM_PAGE_POISONED ? waking : 0;
		c->pc = 1;
		return;
	case 1:
		vmemt_store_drop(run, vmemt_unpack(c->old));
		c->old &= 255;
		c->pc = 2;
		return;
	case 2: take_away(run, c); return;
	case 3:
		vmemt_must(run, give ? VMEMI_PAGE_DROP_DONE : VMEMI_PAGE_DISCARD_DONE, 0);
		w->discarding = 0;
		c->pc = 4;
		return;
	default: /* who waits for a page that was poisoned has no message any more */
		if (vmemt_packed_state(c->old) == VMEM_PAGE_POISONED)
			vmemt_wake(run);
		w->waking &= (uint8_t)~waking;
		end_claim(c);
	}
}

void vmemt_discarder(struct vmemt_run *run)
{
	discard(run, false);
}

void vmemt_giver(struct vmemt_run *run)
{
	discard(run, true);
}

/* --- pin, let a device write, unpin --- */

enum { UNPINNED, RESOLVING, PINNED, HELD, DONE };

static void pin(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	uint16_t old;

	run->began |= w->pinner.pc == UNPINNED;
	if (vmemt_packed_state(w->word) == VMEM_PAGE_POISONED) {
		w->pinner.pc = UNPINNED;
	} else if (vmemt_event(run, VMEMI_PAGE_PIN, 0, &old)) {
		w->pinner.pc = PINNED;
	} else {
		vmemt_resolve(run, &w->pinner.server);
		w->pinner.pc = RESOLVING;
	}
}

void vmemt_pinner(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	uint16_t old;

	switch (w->pinner.pc) {
	case UNPINNED: pin(run); return;
	case RESOLVING:
		if (w->pinner.server.pc)
			vmemt_resolve(run, &w->pinner.server);
		else
			pin(run);
		return;
	case PINNED:
		/* To hold the frame the kernel faults as a processor does: it waits while a batch
		 * protects the page. */
		if (vmemt_choose(run, 2)) {
			w->pinner.pc = DONE;
		} else if (w->mapped && !w->is_protected && !w->dma) {
			w->dma = 1;
			w->pinner.pc = HELD;
		}
		return;
	case HELD: /* whatever its protection is */
		if (vmemt_choose(run, 2)) {
			w->guest = w->truth = ++w->last_version;
			w->rewritten = w->guarded;
		} else {
			w->dma = 0;
			w->pinner.pc = DONE;
		}
		return;
	default:
		vmemt_expect(run, vmemt_event(run, VMEMI_PAGE_UNPIN, 0, &old), "a pin is lost");
		w->pinner.pc = UNPINNED;
	}
}

/* --- a device that the VMM does not tell the library about: the kernel knows that it holds the frame --- */

void vmemt_device(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;

	if (!w->dma) {
		run->began = true;
		if (w->mapped && !w->is_protected && !w->discarding)
			w->dma = 2;
	} else if (w->dma == 2 && vmemt_choose(run, 2)) {
		w->guest = ++w->last_version;
		if (!w->discarding)
			w->truth = w->guest;
	} else if (w->dma == 2) {
		w->dma = 0;
	}
}

/* --- read and write without a fault --- */

void vmemt_reader(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	struct vmemt_claim *c = &w->reader;
	int seen;

	bool from_source = vmemt_packed_state(c->old) == VMEM_PAGE_SOURCE;

	switch (c->pc) {
	case 0:
		run->began = true;
		c->pc = vmemt_event(run, VMEMI_PAGE_CLAIM, 0, &c->old) ||
			vmemt_event(run, VMEMI_PAGE_FETCH, 0, &c->old);
		return;
	case 1:
		switch (vmemt_packed_state(c->old)) {
		case VMEM_PAGE_ABSENT: seen = 0; break;
		case VMEM_PAGE_STORED: seen = vmemt_store_load(run, vmemt_unpack(c->old)); break;
		case VMEM_PAGE_SOURCE: seen = w->source; break;
		case VMEM_PAGE_STAGED:
		case VMEM_PAGE_STORING: seen = w->staging; break;
		default: seen = w->guest;
		}
		vmemt_expect(run, seen == w->truth, "the VMM reads what is not the last write");
		w->loading |= from_source;
		c->pc = from_source ? 2 : 3;
		return;
	case 2:
		w->loading = 0;
		c->pc = 3;
		return;
	case 3:
		vmemt_must(run, VMEMI_PAGE_RETURN, vmemt_unpack(c->old));
		c->pc = 4;
		if (!from_source)
			end_claim(c);
		return;
	default: /* who was told to wait tries again */ vmemt_wake(run); end_claim(c);
	}
}

static bool is_overwritten(uint16_t packed)
{
	enum vmem_page_state state = vmemt_packed_state(packed);

	return state == VMEM_PAGE_ABSENT || state == VMEM_PAGE_SOURCE || state == VMEM_PAGE_STORED;
}

/* As claim_away() and write_away(); a page that is there is pinned and written: see vmemt_pinner(). */
void vmemt_writer(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	struct vmemt_claim *c = &w->writer;

	switch (c->pc) {
	case 0:
		run->began = true;
		c->pc = is_overwritten(w->word);
		return;
	case 1:
		c->pc = vmemt_event(run, VMEMI_PAGE_FETCH, 0, &c->old) ? 2 : 0;
		if (c->pc && !is_overwritten(c->old))
			c->pc = 4;
		return;
	case 2:
		if (vmemt_may(run, VMEMT_MAY_FAIL)) {
			c->pc = 4;
			return;
		}
		w->truth = ++w->last_version;
		w->rewritten = w->guarded;
		vmemt_mark(run);
		vmemt_map(run, w->truth, false);
		vmemt_wake(run);
		c->pc = 3;
		return;
	case 3:
		vmemt_must(run, VMEMI_PAGE_ARRIVE, 0);
		end_claim(c);
		return;
	default: vmemt_must(run, VMEMI_PAGE_RETURN, vmemt_unpack(c->old)); end_claim(c);
	}
}

/* --- what nobody may do --- */

/* A discard past the library, of a page in place that nobody is at. Its contents are gone; what the guest may
 * meet from then on is zeros or an error. */
void vmemt_stray(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;

	run->began = true;
	if (vmemt_unpack(w->word) != vmemi_page_word(VMEM_PAGE_RESIDENT, 0, 0) || !w->mapped)
		return;
	vmemt_unmap(run);
	w->truth = 0;
	w->strayed = 1;
}
