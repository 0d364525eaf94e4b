/* SPDX-License-Identifier: BSD-2-Clause */
/* The program of page_world.h that guards free page hints and discards what is hinted: as region/dirty.h and
 * snapshot/dirty.c have it for who watches writes, and discard/discard.c for the page. The guard's bit is `marked`;
 * whether the guest has really written is `rewritten`, and nobody but the check looks at that. */
#include "linux/page_world.h"
#include <string.h>

enum {
	OFF,
	MARK_ALL,
	TAKE_BIT,
	PROTECT,
	GIVE_BACK,
	LOOK_AGAIN,
	ISSUE,
	WATCH,
	CLAIM,
	CLAIMED,
	DROP_REF,
	TAKE_AWAY,
	GONE
};

static void go_to(struct vmemt_run *run, uint8_t pc)
{
	run->w.hinter.pc = pc;
}

static bool is_away(const struct vmemt_world *w)
{
	switch (vmemt_packed_state(w->word)) {
	case VMEM_PAGE_RESIDENT:
	case VMEM_PAGE_CLEAN:
	case VMEM_PAGE_SHARED:
	case VMEM_PAGE_ARRIVING: return false;
	default: return !(vmemt_unpack(w->word) & VMEMI_PAGE_LEAVING);
	}
}

/* Who takes bits away has the lock of reclaim. */
bool vmemt_hinter_locks(const struct vmemt_world *w)
{
	return w->hinter.pc == PROTECT || w->hinter.pc == GIVE_BACK || w->hinter.pc == LOOK_AGAIN;
}

static bool is_locked(const struct vmemt_world *w)
{
	return w->taker.pc || w->freer;
}

static void return_claim(struct vmemt_run *run, uint8_t pc)
{
	vmemt_must(run, VMEMI_PAGE_RETURN, vmemt_unpack(run->w.hinter.old));
	run->w.hinter.old = 0;
	go_to(run, pc);
}

static void take_bit(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;

	if (!w->marked) {
		go_to(run, ISSUE);
	} else if (is_locked(w)) {
		return;
	} else if (vmemt_event(run, VMEMI_PAGE_CLAIM, 0, &w->hinter.old)) {
		if (vmemt_unpack(w->hinter.old) & VMEMI_PAGE_PINNED)
			return_claim(run, ISSUE);
		else
			go_to(run, PROTECT);
	} else if (is_away(w)) {
		w->marked = 0;
		go_to(run, LOOK_AGAIN);
	}
}

static void protect(struct vmemt_run *run)
{
	if (vmemt_may(run, VMEMT_MAY_FAIL)) {
		return_claim(run, TAKE_BIT);
		return;
	}
	run->w.is_protected |= run->w.mapped;
	go_to(run, GIVE_BACK);
}

/* The guard begins. */
static void begin(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;

	switch (w->hinter.pc) {
	case OFF:
		run->began = true;
		if (is_locked(w))
			return;
		w->guarded = 1;
		go_to(run, MARK_ALL);
		return;
	case MARK_ALL:
		w->marked |= vmemt_packed_state(w->word) != VMEM_PAGE_ABSENT ||
			     (vmemt_unpack(w->word) & VMEMI_PAGE_LEAVING);
		go_to(run, TAKE_BIT);
		return;
	case TAKE_BIT: take_bit(run); return;
	case PROTECT: protect(run); return;
	case GIVE_BACK:
		w->marked = 0;
		return_claim(run, ISSUE);
		return;
	case LOOK_AGAIN: /* it may have come meanwhile, writable */
		w->marked = !is_away(w);
		go_to(run, w->marked ? TAKE_BIT : ISSUE);
		return;
	default: /* the guest is told of the command: what it writes from now on counts */
		w->rewritten = 0;
		go_to(run, WATCH);
	}
}

/* The guard ends; or the page is hinted, and may go as it looks now. */
static void watch(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	enum vmem_page_state state = vmemt_packed_state(w->word);

	if (!vmemt_choose(run, 2)) {
		w->guarded = w->marked = w->rewritten = 0;
		go_to(run, OFF);
		return;
	}
	run->began = true;
	if (w->marked || (vmemt_unpack(w->word) & VMEMI_PAGE_PINNED) || state == VMEM_PAGE_ABSENT ||
	    state == VMEM_PAGE_SOURCE || state == VMEM_PAGE_POISONED)
		return;
	go_to(run, CLAIM);
}

static void take_away(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	enum vmem_page_state was = vmemt_packed_state(w->hinter.old);

	vmemt_expect(run, !w->rewritten, "a write to a hinted page is lost");
	if (was == VMEM_PAGE_RESIDENT || was == VMEM_PAGE_CLEAN || was == VMEM_PAGE_SHARED) {
		if (vmemt_may(run, VMEMT_MAY_FAIL)) {
			vmemt_must(run, VMEMI_PAGE_DISCARD_UNDO, 0);
			memset(&w->hinter, 0, sizeof(w->hinter));
			go_to(run, WATCH);
			return;
		}
		vmemt_unmap(run);
	}
	w->truth = 0;
	go_to(run, GONE);
}

static void discard(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	uint16_t word;

	switch (w->hinter.pc) {
	case WATCH: watch(run); return;
	case CLAIM: /* if somebody else is at it, it is looked at again */
		go_to(run, vmemt_event(run, VMEMI_PAGE_CLAIM, 0, &w->hinter.old) ||
					   vmemt_event(run, VMEMI_PAGE_FETCH, 0, &w->hinter.old)
				   ? CLAIMED
				   : WATCH);
		return;
	case CLAIMED:
		if (!w->marked && vmemt_packed_state(w->hinter.old) != VMEM_PAGE_ABSENT &&
		    vmemt_packed_state(w->hinter.old) != VMEM_PAGE_SOURCE &&
		    vmemt_event(run, VMEMI_PAGE_DISCARD_CLAIMED, 0, &word))
			go_to(run, DROP_REF);
		else
			return_claim(run, WATCH);
		return;
	case DROP_REF:
		vmemt_store_drop(run, vmemt_unpack(w->hinter.old));
		w->hinter.old &= 255;
		go_to(run, TAKE_AWAY);
		return;
	case TAKE_AWAY: take_away(run); return;
	default:
		vmemt_must(run, VMEMI_PAGE_DISCARD_DONE, 0);
		w->hinter.old = 0;
		go_to(run, WATCH);
	}
}

void vmemt_hinter(struct vmemt_run *run)
{
	if (run->w.hinter.pc < WATCH)
		begin(run);
	else
		discard(run);
}
