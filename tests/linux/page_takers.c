/* SPDX-License-Identifier: BSD-2-Clause */
/* Programs of page_world.h that take the page out: by move, by write-protect, copy and discard, by dropping
 * a clean one; that save it, and free what it leaves behind. As lib/linux/reclaim does it; its lock
 * keeps takers and the freer apart. */
#include "linux/page_world.h"

enum {
	IDLE,
	/* a run */
	MOVE,
	/* scattered */
	BEGIN,
	PROTECT,
	LOOK,
	COPY,
	TAKE,
	TAKE_FRAME,
	TAKEN,
	LOOK_AGAIN,
	UNPROTECT,
	/* clean */
	DROP_FRAME,
	DROPPED
};

static bool locked(const struct vmemt_world *w)
{
	return w->freer != 0 || vmemt_hinter_locks(w);
}

void vmemt_take_run(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	uint16_t old;

	if (w->taker.pc == IDLE && !locked(w)) {
		run->began = true;
		if (!(vmemt_unpack(w->word) & VMEMI_PAGE_LEAVING) &&
		    vmemt_event(run, VMEMI_PAGE_TAKE, 0, &old))
			w->taker.pc = MOVE;
		return;
	}
	if (w->taker.pc != MOVE)
		return;
	w->taker.pc = IDLE;
	if (!w->mapped) {
		vmemt_expect(run, w->strayed, "a hole is moved");
		w->strayed = 0;
		vmemt_must(run, VMEMI_PAGE_TAKE_HOLE, 0);
	} else if (w->dma ||
		   vmemt_may(run, VMEMT_MAY_FAIL)) { /* the kernel refuses what is pinned */
		vmemt_must(run, VMEMI_PAGE_TAKE_UNDO, 0);
	} else {
		vmemt_expect(run, w->staging == VMEMT_NOTHING, "a page is moved over another");
		w->staging = (int8_t)vmemt_unmap(run);
		vmemt_must(run, VMEMI_PAGE_TAKE_DONE, 0);
	}
}

static void let_go(struct vmemt_run *run)
{
	vmemt_must(run, VMEMI_PAGE_UNMARK, 0);
	run->w.taker.pc = LOOK_AGAIN;
}

/* The range is protected, and what was not written since it was marked is copied, and taken. Cancelled or
 * not, the page stays mapped until the mark is let go of. */
static void copy(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	uint16_t old;

	switch (w->taker.pc) {
	case BEGIN:
		w->batching = 1;
		w->taker.pc = PROTECT;
		return;
	case PROTECT:
		w->taker.pc = LOOK;
		if (vmemt_may(run, VMEMT_MAY_FAIL))
			let_go(run);
		else
			w->is_protected |= w->mapped;
		return;
	case LOOK:
		w->taker.pc = COPY;
		if (!(vmemt_unpack(w->word) & VMEMI_PAGE_LEAVING) || vmemt_may(run, VMEMT_MAY_FAIL))
			let_go(run);
		return;
	case COPY:
		w->taker.pc = TAKE;
		vmemt_expect(run, w->mapped || w->strayed, "a batch copies from a hole");
		vmemt_expect(run, w->staging == VMEMT_NOTHING, "a page is copied over another");
		if (w->mapped)
			w->staging = w->guest;
		else /* the copy fails: whoever looks into the hole has made it an error */
			let_go(run);
		return;
	default:
		w->taker.pc = TAKE_FRAME;
		if (!vmemt_event(run, VMEMI_PAGE_TAKE, 0, &old))
			let_go(run);
	}
}

/* The frame is discarded, and the range made writable again. */
static void discard(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	enum vmem_page_state state = vmemt_packed_state(w->word);

	switch (w->taker.pc) {
	case TAKE_FRAME:
		w->taker.pc = TAKEN;
		if (!vmemt_may(run, VMEMT_MAY_FAIL)) {
			vmemt_unmap(run);
			return;
		}
		vmemt_must(run, VMEMI_PAGE_TAKE_UNDO, 0);
		w->taker.pc = LOOK_AGAIN;
		return;
	case TAKEN:
		vmemt_must(run, VMEMI_PAGE_TAKE_DONE, 0);
		w->taker.pc = LOOK_AGAIN;
		return;
	case LOOK_AGAIN:
		w->taker.writable = state != VMEM_PAGE_CLEAN && state != VMEM_PAGE_SHARED &&
				    state != VMEM_PAGE_ARRIVING && !(w->guarded && !w->marked);
		w->taker.pc = UNPROTECT;
		return;
	default:
		if (w->taker.writable) {
			w->is_protected = 0;
			vmemt_wake(run);
		}
		w->batching = 0;
		w->taker.pc = IDLE;
		w->taker.writable = 0;
	}
}

void vmemt_take_scattered(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	uint16_t old;

	if (w->taker.pc == IDLE && !locked(w)) {
		run->began = true;
		if (vmemt_event(run, VMEMI_PAGE_MARK, 0, &old))
			w->taker.pc = BEGIN;
	} else if (w->taker.pc >= BEGIN && w->taker.pc <= TAKE) {
		copy(run);
	} else if (w->taker.pc >= TAKE_FRAME && w->taker.pc <= UNPROTECT) {
		discard(run);
	}
}

void vmemt_take_clean(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	uint16_t old;

	if (w->taker.pc == IDLE && !locked(w)) {
		run->began = true;
		if (vmemt_packed_state(w->word) == VMEM_PAGE_CLEAN &&
		    vmemt_may(run, VMEMT_MAY_DISTRUST)) {
			if (vmemt_event(run, VMEMI_PAGE_DISTRUST, 0, &old))
				vmemt_store_drop(run, vmemt_unpack(old));
			return;
		}
		if (vmemt_event(run, VMEMI_PAGE_DROP, 0, &old))
			w->taker.pc = DROP_FRAME;
	} else if (w->taker.pc == DROP_FRAME) {
		w->taker.pc = DROPPED;
		if (!vmemt_may(run, VMEMT_MAY_FAIL)) {
			vmemt_unmap(run);
			return;
		}
		vmemt_must(run, VMEMI_PAGE_DROP_UNDO, 0);
		w->taker.pc = IDLE;
	} else if (w->taker.pc == DROPPED) {
		vmemt_must(run, VMEMI_PAGE_DROP_DONE, 0);
		w->taker.pc = IDLE;
	}
}

/* --- the worker that saves --- */

enum { CHOOSE, READ, READ_ON, SAVE, BOOK, REFUSED, PUT_BACK };

static bool is_only_staged(uint16_t old)
{
	return vmemt_packed_state(old) == VMEM_PAGE_STAGED &&
	       !(vmemt_unpack(old) & VMEMI_PAGE_READING);
}

/* What the store refused goes back into place with its own frame; as put_back(). */
static void put_back(struct vmemt_run *run, struct vmemt_saver *s)
{
	struct vmemt_world *w = &run->w;

	if (s->pc == REFUSED) {
		s->pc = vmemt_event(run, VMEMI_PAGE_FETCH, 0, &s->old) ? PUT_BACK : CHOOSE;
		return;
	}
	s->pc = CHOOSE;
	if (!is_only_staged(s->old) || vmemt_may(run, VMEMT_MAY_FAIL)) {
		vmemt_must(run, VMEMI_PAGE_RETURN, vmemt_unpack(s->old));
	} else if (vmemt_choose(run, 2)) {
		vmemt_mark(run);
		vmemt_map(run, w->staging, false);
		w->staging = VMEMT_NOTHING;
		vmemt_wake(run);
		vmemt_must(run, VMEMI_PAGE_ARRIVE_MOVED, 0);
	} else {
		vmemt_mark(run);
		vmemt_map(run, w->staging, false);
		vmemt_wake(run);
		vmemt_must(run, VMEMI_PAGE_ARRIVE, 0);
	}
	s->old = 0;
}

static void save(struct vmemt_run *run, struct vmemt_saver *s)
{
	uint16_t old;

	if (!vmemt_may(run, VMEMT_MAY_REFUSE)) {
		s->ref = vmemt_store_save(run, s->read);
		s->pc = BOOK;
	} else if (!vmemt_event(run, VMEMI_PAGE_STORE_UNDO, 0, &old)) {
		vmemt_must(run, VMEMI_PAGE_RELEASE, 0);
		s->pc = CHOOSE;
	} else {
		s->pc = vmemt_choose(run, 2) ? REFUSED : CHOOSE;
	}
	s->read = 0;
}

static void book(struct vmemt_run *run, struct vmemt_saver *s)
{
	uint16_t old;

	if (!vmemt_event(run, VMEMI_PAGE_STORED, s->ref, &old)) {
		vmemt_store_drop(run, s->ref);
		vmemt_must(run, VMEMI_PAGE_RELEASE, 0);
	}
	s->ref = 0;
	s->pc = CHOOSE;
}

void vmemt_saver(struct vmemt_run *run, struct vmemt_saver *s)
{
	struct vmemt_world *w = &run->w;
	uint16_t old;

	switch (s->pc) {
	case CHOOSE:
		run->began = true;
		if (vmemt_event(run, VMEMI_PAGE_STORE, 0, &old))
			s->pc = READ;
		return;
	case READ:
		vmemt_expect(run, w->staging != VMEMT_NOTHING, "staging was freed under a reader");
		s->read = w->staging;
		s->pc = READ_ON;
		return;
	case READ_ON: /* nobody may have changed it meanwhile */
		vmemt_expect(run, w->staging == s->read, "staging changed under a reader");
		s->pc = SAVE;
		return;
	case SAVE: save(run, s); return;
	case BOOK: book(run, s); return;
	default: put_back(run, s);
	}
}

/* --- giving back what nobody needs: stale refs, and copies in staging --- */

void vmemt_freer(struct vmemt_run *run)
{
	struct vmemt_world *w = &run->w;
	uint64_t new;
	uint16_t old;

	switch (w->freer) {
	case 0:
		run->began = true;
		if (w->taker.pc != IDLE || vmemt_hinter_locks(w))
			return;
		if (vmemt_event(run, VMEMI_PAGE_SHED, 0, &old))
			vmemt_store_drop(run, vmemt_unpack(old));
		if (vmemi_page_step(vmemt_unpack(w->word), VMEMI_PAGE_FREED, 0, &new))
			w->freer = 1;
		return;
	case 1:
		w->staging = VMEMT_NOTHING;
		w->freer = 2;
		return;
	default: /* claimed meanwhile: it is freed again later, which does no harm */
		vmemt_event(run, VMEMI_PAGE_FREED, 0, &old);
		w->freer = 0;
	}
}
