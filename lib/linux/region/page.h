/* SPDX-License-Identifier: BSD-2-Clause */
/* The state of a guest page: one word, and the one table by which it changes.
 *
 *   bits 0..55   ref of the store: valid (stored, clean), or stale, until reclaim drops it (resident,
 *                poisoned); arriving: as it was; else 0
 *   bits 56..59  enum vmem_page_state
 *   bits 60..63  flags, beside the state
 *
 * Everything that happens to a page is an event. An event is allowed in some states and flags, and
 * leads to one state; the table says which. A word changes only by compare-and-swap of a step, so
 * the winner of a race is whoever's event the table let through. ARRIVING is the claim of a thread
 * that is changing the page's mapping: while it lasts, every other event is refused. */
#ifndef VMEMI_PAGE_H
#define VMEMI_PAGE_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <vmem/region.h>

#define VMEMI_PAGE_REF_MASK ((UINT64_C(1) << 56) - 1)
#define VMEMI_PAGE_STATE_SHIFT 56
#define VMEMI_PAGE_LEAVING (UINT64_C(1) << 60)  /* the mapping is being taken away; wait */
#define VMEMI_PAGE_OCCUPIED (UINT64_C(1) << 61) /* its place in staging may hold a frame */
#define VMEMI_PAGE_READING (UINT64_C(1) << 62)  /* a worker is at its place in staging */
#define VMEMI_PAGE_PINNED (UINT64_C(1) << 63)   /* its pin count is not 0 */
#define VMEMI_PAGE_FLAGS (UINT64_C(15) << 60)

enum vmemi_page_event {
	/* taking out */
	VMEMI_PAGE_MARK, /* resident: it is going to be copied (READING); a write still cancels (LEAVING) */
	VMEMI_PAGE_UNMARK, /* let go of it, cancelled or not */
	VMEMI_PAGE_TAKE, /* marked or plain resident -> staged, LEAVING until the mapping is gone */
	VMEMI_PAGE_TAKE_DONE, /* the mapping is gone */
	VMEMI_PAGE_TAKE_UNDO, /* the kernel held the page: resident again, nothing in staging */
	VMEMI_PAGE_TAKE_HOLE, /* there was no page: absent */
	VMEMI_PAGE_DROP, /* clean -> stored, or source if it has no ref; LEAVING until the mapping is
	                    gone */
	VMEMI_PAGE_DROP_DONE,
	VMEMI_PAGE_DROP_UNDO,
	VMEMI_PAGE_DISTRUST, /* clean -> resident: what its ref names cannot be loaded; the ref is given to
	                        the caller. Protected still, as who writes to it finds */
	/* bringing back */
	VMEMI_PAGE_FETCH,  /* away -> arriving; the ref stays */
	VMEMI_PAGE_CLAIM,  /* resident or clean -> arriving, to change its protection or read it;
	                            cancels MARK; the ref stays */
	VMEMI_PAGE_ARRIVE, /* arriving -> resident; a ref is stale from now on */
	VMEMI_PAGE_ARRIVE_CLEAN, /* arriving -> clean; the ref stays, or the source has it still */
	VMEMI_PAGE_ARRIVE_SAME,  /* arriving -> clean; its source has it, and a ref is given back */
	VMEMI_PAGE_ARRIVE_MOVED, /* arriving -> resident, and its place in staging is empty */
	VMEMI_PAGE_RETURN,       /* arriving -> the state given: nothing came of it */
	VMEMI_PAGE_IMPORT, /* arriving, from absent -> stored with the ref given: its bytes came from outside */
	VMEMI_PAGE_LOSE,      /* arriving -> poisoned; a ref is stale from now on */
	VMEMI_PAGE_LOSE_LATE, /* the same; the ref is given to the caller: its load is not over */
	/* storing */
	VMEMI_PAGE_STORE,      /* staged -> storing, READING */
	VMEMI_PAGE_STORED,     /* storing -> stored with the ref given */
	VMEMI_PAGE_STORE_UNDO, /* storing -> staged */
	VMEMI_PAGE_RELEASE,    /* no longer storing: the worker lets go of staging */
	VMEMI_PAGE_FREED,      /* the frame in staging was freed */
	/* storing what lies in a file: away from all mappings, the page still has its frame there (OCCUPIED) */
	VMEMI_PAGE_PUNCH, /* stored or absent: it is going to be freed, LEAVING until it is */
	VMEMI_PAGE_PUNCH_DONE, /* the file has a hole there, no mapping has the page; ends a DROP or DISCARD too */
	VMEMI_PAGE_PUNCH_UNDO,
	VMEMI_PAGE_FREED_IN_PLACE, /* in place again: what it occupied is its one frame */
	VMEMI_PAGE_SHED,           /* a stale ref is given to the caller */
	/* by the VMM */
	VMEMI_PAGE_SET_SOURCE, /* absent -> source */
	VMEMI_PAGE_GIVE, /* whatever it is -> source; LEAVING until the mapping is gone, ended as DROP; the ref
	                    is given back */
	VMEMI_PAGE_FORGET, /* source or stored, and nothing in staging -> absent at once; the ref is
	                      given back */
	VMEMI_PAGE_PIN,    /* resident: PINNED */
	VMEMI_PAGE_UNPIN,
	VMEMI_PAGE_DISCARD, /* -> absent; LEAVING until the mapping is gone; the ref is given back */
	VMEMI_PAGE_DISCARD_DONE,
	VMEMI_PAGE_DISCARD_UNDO, /* the kernel kept the page: resident; of GIVE too */
	VMEMI_PAGE_DISCARD_LOST, /* the kernel kept the error of a poisoned one; of GIVE too */
	VMEMI_PAGE_DISCARD_CLAIMED, /* arriving -> absent, as DISCARD: it was claimed to look at what was said of it */
	VMEMI_PAGE_EVENTS
};

static inline enum vmem_page_state vmemi_page_state(uint64_t word)
{
	return (enum vmem_page_state)((word >> VMEMI_PAGE_STATE_SHIFT) & 15);
}

static inline uint64_t vmemi_page_ref(uint64_t word)
{
	return word & VMEMI_PAGE_REF_MASK;
}

static inline uint64_t vmemi_page_word(enum vmem_page_state state, uint64_t flags, uint64_t ref)
{
	return (uint64_t)state << VMEMI_PAGE_STATE_SHIFT | flags | ref;
}

/* One step. @argument: the ref for STORED, the word to go back to (its state counts) for RETURN.
 * True and the new word if the table allows it. Pure. */
bool vmemi_page_step(uint64_t word, enum vmemi_page_event event, uint64_t argument,
		     uint64_t *ret_word);

/* Whether a word can exist at all: state known, a ref where one belongs, flags that go together. */
bool vmemi_page_valid(uint64_t word);

#endif
