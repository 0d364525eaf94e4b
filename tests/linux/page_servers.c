/* SPDX-License-Identifier: BSD-2-Clause */
/* Programs of page_world.h that serve faults, as lib/linux/fault/serve.c does: claim the page, change its
 * mapping, end the claim. One step is one access to the word, or one call of the kernel. */
#include "linux/page_world.h"
#include <string.h>

enum {
	LOOK,
	UNPROTECT,
	DOUBT,
	FIND_BYTES,
	LOAD,
	INSTALL,
	MOVE,
	POISON,
	ARRIVE,
	LOSE,
	GIVE_UP,
	LATE,
	RETURN
};

/* The message is answered. */
static void over(struct vmemt_server *s)
{
	memset(s, 0, sizeof(*s));
}

/* It is not, and comes again. */
static void put_off(struct vmemt_run *run, struct vmemt_server *s)
{
	if (s->message)
		run->w.message[s->message]++;
	over(s);
}

static void pick_up(struct vmemt_run *run, struct vmemt_server *s, unsigned message)
{
	run->w.message[message]--;
	s->message = (uint8_t)message;
	s->write = message != VMEMT_MISSED_READ;
}

/* The page is in place. What is not protected was answered meanwhile, or has lost its mapping. */
static void in_place(struct vmemt_run *run, struct vmemt_server *s)
{
	if (s->message == VMEMT_PROTECTED) {
		s->pc = UNPROTECT;
		vmemt_expect(run, vmemt_event(run, VMEMI_PAGE_CLAIM, 0, &s->old),
			     "a page in place cannot be claimed");
		return;
	}
	vmemt_wake(run);
	if (vmemt_may(run, VMEMT_MAY_DOUBT) && vmemt_event(run, VMEMI_PAGE_CLAIM, 0, &s->old))
		s->pc = DOUBT;
	else
		over(s);
}

static void serve(struct vmemt_run *run, struct vmemt_server *s)
{
	uint64_t word = vmemt_unpack(run->w.word);

	switch (vmemi_page_state(word)) {
	case VMEM_PAGE_RESIDENT:
	case VMEM_PAGE_CLEAN:
	case VMEM_PAGE_SHARED: in_place(run, s); return;
	case VMEM_PAGE_ARRIVING:
		if (run->w.loading) { /* it comes from the caller, and who waits will be woken */
			run->w.written |= s->write;
			over(s);
		} else {
			put_off(run, s);
		}
		return;
	case VMEM_PAGE_POISONED:
		if (run->may & VMEMT_MAY_POISON)
			vmemt_wake(run);
		over(s);
		return;
	default: break;
	}
	if (word & VMEMI_PAGE_LEAVING) {
		put_off(run, s);
	} else if (s->message == VMEMT_PROTECTED) { /* it has left since */
		vmemt_wake(run);
		over(s);
	} else if (vmemi_page_state(word) == VMEM_PAGE_SOURCE) {
		vmemt_want(run, s->write);
		over(s);
	} else {
		vmemt_expect(run, vmemt_event(run, VMEMI_PAGE_FETCH, 0, &s->old),
			     "a page that is away cannot be fetched");
		s->pc = FIND_BYTES;
	}
}

static void look(struct vmemt_run *run, struct vmemt_server *s)
{
	unsigned kinds[VMEMT_PROTECTED], n = 0, i;

	if (vmemt_may(run, VMEMT_MAY_PREFETCH)) {
		if (vmemt_packed_state(run->w.word) != VMEM_PAGE_SOURCE &&
		    vmemt_event(run, VMEMI_PAGE_FETCH, 0, &s->old)) {
			run->began = true;
			s->write = vmemt_choose(run, 2) != 0;
			s->pc = FIND_BYTES;
		}
		return;
	}
	for (i = 1; i <= VMEMT_PROTECTED; i++)
		if (run->w.message[i])
			kinds[n++] = i;
	if (!n)
		return;
	pick_up(run, s, kinds[vmemt_choose(run, n)]);
	serve(run, s);
}

/* As can_move_back(). */
static bool has_own_frame(uint16_t old)
{
	return vmemt_packed_state(old) == VMEM_PAGE_STAGED &&
	       !(vmemt_unpack(old) & VMEMI_PAGE_READING);
}

static void find_bytes(struct vmemt_run *run, struct vmemt_server *s)
{
	struct vmemt_world *w = &run->w;
	uint64_t old = vmemt_unpack(s->old);

	if (has_own_frame(s->old) && vmemt_may(run, VMEMT_MAY_STARVE)) {
		s->pc = MOVE;
		return;
	}
	s->clean = vmemi_page_ref(old) && !s->write && !w->batching && !vmemt_choose(run, 2);
	s->pc = INSTALL;
	switch (vmemi_page_state(old)) {
	case VMEM_PAGE_ABSENT: s->loaded = 0; break;
	case VMEM_PAGE_STAGED:
	case VMEM_PAGE_STORING: s->loaded = w->staging; break;
	default:
		s->loaded = (int8_t)vmemt_store_load(run, old);
		if (vmemt_may(run, VMEMT_MAY_LOSE))
			s->pc = POISON;
		else if (s->message && vmemt_may(run, VMEMT_MAY_BE_SLOW))
			s->pc = LOAD;
	}
	vmemt_expect(run, s->loaded != VMEMT_NOTHING, "the bytes of a page that is away are gone");
}

/* A slow load ends, or it is given up: its end is waited for all the same. */
static void load(struct vmemt_run *run, struct vmemt_server *s)
{
	switch (vmemt_choose(run, 3)) {
	case 0: s->pc = INSTALL; return;
	case 1: s->pc = POISON; return;
	default: s->pc = GIVE_UP;
	}
}

bool vmemt_poison(struct vmemt_run *run)
{
	if (vmemt_may(run, VMEMT_MAY_FAIL))
		return false;
	if (run->may & VMEMT_MAY_POISON) {
		run->w.marker = 1;
		vmemt_wake(run);
	}
	return true;
}

static void install(struct vmemt_run *run, struct vmemt_server *s)
{
	if (vmemt_may(run, VMEMT_MAY_FAIL)) {
		s->pc = RETURN;
		return;
	}
	if (s->write)
		vmemt_mark(run);
	vmemt_map(run, s->loaded, s->clean || (run->w.guarded && !s->write));
	s->loaded = 0;
	vmemt_wake(run);
	s->pc = ARRIVE;
}

static void move(struct vmemt_run *run, struct vmemt_server *s)
{
	if (vmemt_may(run, VMEMT_MAY_FAIL)) {
		s->pc = RETURN;
		return;
	}
	vmemt_mark(run);
	vmemt_map(run, run->w.staging, false);
	vmemt_wake(run);
	run->w.staging = VMEMT_NOTHING;
	s->moves = 1;
	s->pc = ARRIVE;
}

static void unprotect(struct vmemt_run *run, struct vmemt_server *s)
{
	if (vmemt_may(run, VMEMT_MAY_FAIL)) {
		s->pc = RETURN;
		return;
	}
	vmemt_expect(run, run->w.mapped || run->w.strayed, "a claimed page has lost its mapping");
	vmemt_mark(run);
	run->w.is_protected = 0;
	vmemt_wake(run);
	s->pc = ARRIVE;
}

/* The kernel tells whether a page is there by refusing to poison it. */
static void doubt(struct vmemt_run *run, struct vmemt_server *s)
{
	if (run->w.mapped) {
		s->pc = RETURN;
		return;
	}
	s->pc = vmemt_poison(run) ? LOSE : RETURN;
}

static void end(struct vmemt_run *run, struct vmemt_server *s)
{
	uint16_t old;

	switch (s->pc) {
	case ARRIVE:
		vmemt_must(run,
			   s->moves   ? VMEMI_PAGE_ARRIVE_MOVED
			   : s->clean ? VMEMI_PAGE_ARRIVE_CLEAN
				      : VMEMI_PAGE_ARRIVE,
			   0);
		over(s);
		return;
	case LOSE:
		vmemt_must(run, VMEMI_PAGE_LOSE, 0);
		over(s);
		return;
	case GIVE_UP:
		if (!vmemt_poison(run)) {
			s->pc = LOAD;
			return;
		}
		if (vmemt_event(run, VMEMI_PAGE_LOSE_LATE, 0, &old))
			s->late_ref = (uint8_t)(old >> 8);
		s->pc = LATE;
		return;
	case LATE:
		vmemt_store_drop(run, s->late_ref);
		over(s);
		return;
	default: vmemt_must(run, VMEMI_PAGE_RETURN, vmemt_unpack(s->old)); put_off(run, s);
	}
}

static void go_on(struct vmemt_run *run, struct vmemt_server *s)
{
	switch (s->pc) {
	case UNPROTECT: unprotect(run, s); return;
	case DOUBT: doubt(run, s); return;
	case FIND_BYTES: find_bytes(run, s); return;
	case LOAD: load(run, s); return;
	case INSTALL: install(run, s); return;
	case MOVE: move(run, s); return;
	case POISON: s->pc = vmemt_poison(run) ? LOSE : RETURN; return;
	default: end(run, s);
	}
}

void vmemt_handler(struct vmemt_run *run, struct vmemt_server *s)
{
	if (s->pc == LOOK)
		look(run, s);
	else
		go_on(run, s);
}

void vmemt_resolve(struct vmemt_run *run, struct vmemt_server *s)
{
	if (s->pc != LOOK) {
		go_on(run, s);
		return;
	}
	s->write = 1;
	if (vmemt_packed_state(run->w.word) == VMEM_PAGE_SOURCE) {
		if (!(vmemt_unpack(run->w.word) & VMEMI_PAGE_LEAVING))
			vmemt_want(run, true);
		over(s);
	} else if (vmemt_event(run, VMEMI_PAGE_FETCH, 0, &s->old)) {
		s->pc = FIND_BYTES;
	} else if (vmemt_packed_state(run->w.word) != VMEM_PAGE_ARRIVING &&
		   vmemt_event(run, VMEMI_PAGE_CLAIM, 0, &s->old)) {
		s->pc = UNPROTECT;
	} else {
		over(s);
	}
}
