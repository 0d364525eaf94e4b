/* SPDX-License-Identifier: BSD-2-Clause */
/* Programs of page_world.h about pages whose bytes are with the caller: the caller, who gives bytes to an
 * absent page, or forgets one that is away; who says that the caller has what is in place; and who asks for what is wanted, as lib/linux/fault/source.c
 * does, or gives it up. A load that is in progress is ended by another thread, but by one: that is the same program. */
#include "linux/page_world.h"
#include <string.h>

void vmemt_owner(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	uint16_t old;

	run->began = true;
	if (vmemt_choose(run, 2)) {
		if (!vmemt_event(run, VMEMI_PAGE_SET_SOURCE, 0, &old))
			return;
		vmemt_mark(run);
		w->source = w->truth = ++w->last_version;
	} else if (vmemt_event(run, VMEMI_PAGE_FORGET, 0, &old)) {
		vmemt_mark(run);
		vmemt_store_drop(run, vmemt_unpack(old));
		w->truth = 0;
	}
}

enum { IDLE, CLAIM, WAKE, SAY, ASK, UNSAY, INSTALL, ARRIVE, POISON, LOSE };

void vmemt_want(struct vmemt_run *run, bool write)
{
	run->w.wanted = 1;
	run->w.written |= write;
}

bool vmemt_asker_wakes(const struct vmemt_run *run)
{
	const struct vmemt_world *w = &run->w;

	/* Who has read it without making it resident wakes, too. */
	if (w->reader.pc && vmemt_packed_state(w->reader.old) == VMEM_PAGE_SOURCE)
		return true;
	if (w->asker.pc == LOSE) /* without markers who waits does so for good */
		return !(run->may & VMEMT_MAY_POISON);
	return w->asker.pc != IDLE && w->asker.pc != ARRIVE;
}

static void claim(struct vmemt_run *run, struct vmemt_claim *c)
{
	struct vmemt_world *w = &run->w;
	uint64_t word = vmemt_unpack(w->word);

	if (vmemi_page_state(word) != VMEM_PAGE_SOURCE) {
		c->pc = WAKE;
	} else if ((word & VMEMI_PAGE_LEAVING) || vmemt_may(run, VMEMT_MAY_STARVE)) {
		w->wanted = 1;
		c->pc = IDLE;
	} else {
		vmemt_expect(run, vmemt_event(run, VMEMI_PAGE_FETCH, 0, &c->old),
			     "a page that is with the caller cannot be fetched");
		/* It may be for nothing: it was wanted for too long. */
		c->pc = vmemt_may(run, VMEMT_MAY_LOSE) ? POISON : SAY;
	}
}

static void install(struct vmemt_run *run, struct vmemt_claim *c)
{
	struct vmemt_world *w = &run->w;
	bool clean = !w->written && !w->batching && vmemt_choose(run, 2);

	if (vmemt_may(run, VMEMT_MAY_FAIL)) /* once more */
		return;
	w->written = 0;
	if (!clean)
		vmemt_mark(run);
	vmemt_map(run, w->source, clean);
	vmemt_wake(run);
	c->version = clean;
	c->pc = ARRIVE;
}

void vmemt_asker(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	struct vmemt_claim *c = &w->asker;

	switch (c->pc) {
	case IDLE:
		c->pc = w->wanted ? CLAIM : IDLE;
		w->wanted = 0;
		return;
	case CLAIM: claim(run, c); return;
	case WAKE: /* its bytes are not with the caller any more: who waits tries again */
		vmemt_wake(run);
		w->written = 0;
		memset(c, 0, sizeof(*c));
		return;
	case SAY:
		w->loading = 1;
		c->pc = ASK;
		return;
	case ASK: c->pc = UNSAY; return;
	case UNSAY:
		w->loading = 0;
		c->pc = vmemt_may(run, VMEMT_MAY_LOSE) ? POISON : INSTALL;
		return;
	case INSTALL: install(run, c); return;
	case POISON: c->pc = vmemt_poison(run) ? LOSE : POISON; return;
	case ARRIVE:
		vmemt_must(run, c->version ? VMEMI_PAGE_ARRIVE_CLEAN : VMEMI_PAGE_ARRIVE, 0);
		memset(c, 0, sizeof(*c));
		return;
	default: vmemt_must(run, VMEMI_PAGE_LOSE, 0); memset(c, 0, sizeof(*c));
	}
}

/* --- what is in place is said to be what the caller has --- */

enum { UNSAID, SAY_CLAIMED, SAY_LOOKED, SAY_PROTECTED, SAY_DROP, SAY_RETURN };

static bool may_be_clean(uint16_t packed)
{
	uint64_t word = vmemt_unpack(packed);

	return vmemi_page_state(word) == VMEM_PAGE_RESIDENT &&
	       !(word & (VMEMI_PAGE_PINNED | VMEMI_PAGE_READING));
}

/* As source_same.c. The VMM vouches for what is there when it is protected. */
void vmemt_sayer(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	struct vmemt_claim *c = &w->sayer;
	uint16_t old;

	switch (c->pc) {
	case UNSAID:
		run->began = true;
		if (may_be_clean(w->word) && vmemt_event(run, VMEMI_PAGE_CLAIM, 0, &c->old))
			c->pc = may_be_clean(c->old) ? SAY_CLAIMED : SAY_RETURN;
		return;
	case SAY_CLAIMED: c->pc = w->batching ? SAY_RETURN : SAY_LOOKED; return;
	case SAY_LOOKED:
		c->pc = SAY_RETURN;
		/* No device is at it, as the VMM says. */
		if (w->dma || vmemt_may(run, VMEMT_MAY_FAIL))
			return;
		w->is_protected = 1;
		w->source = w->guest;
		c->pc = SAY_PROTECTED;
		return;
	case SAY_PROTECTED:
		c->pc = SAY_RETURN;
		if (!vmemt_event(run, VMEMI_PAGE_ARRIVE_SAME, 0, &old))
			return;
		c->old = old;
		c->pc = SAY_DROP;
		return;
	case SAY_DROP: vmemt_store_drop(run, vmemt_unpack(c->old)); break;
	default: vmemt_must(run, VMEMI_PAGE_RETURN, vmemt_unpack(c->old));
	}
	memset(c, 0, sizeof(*c));
}
