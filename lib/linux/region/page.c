/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of page states: see page.h. Pure functions, no memory of their own. */
#include "linux/region/page.h"

#define S(name) (1u << VMEM_PAGE_##name)
#define LEAVING VMEMI_PAGE_LEAVING
#define OCCUPIED VMEMI_PAGE_OCCUPIED
#define READING VMEMI_PAGE_READING
#define PINNED VMEMI_PAGE_PINNED
#define MARKED (LEAVING | OCCUPIED | READING)

enum ref_rule {
	KEEP,
	NONE,  /* there must be none */
	CLEAR, /* whoever made the step has the old word, and owns its ref now */
	GIVE,  /* the same, and there must be one */
	SET
};

#define SAME_STATE VMEM_PAGE_STATES /* the state does not change */

struct rule {
	uint32_t from;       /* states in which the event is allowed */
	uint32_t to;         /* enum vmem_page_state or SAME_STATE */
	uint64_t need;       /* flags that must be set */
	uint64_t forbid;     /* flags that must not be set */
	uint64_t set, clear; /* flags that change */
	enum ref_rule ref;
};

static const struct rule rules[VMEMI_PAGE_EVENTS] = {
	[VMEMI_PAGE_MARK] = { S(RESIDENT), SAME_STATE, 0, LEAVING | OCCUPIED | READING | PINNED,
			      LEAVING | OCCUPIED | READING, 0, NONE },
	[VMEMI_PAGE_UNMARK] = { S(RESIDENT) | S(ARRIVING) | S(POISONED), SAME_STATE, READING, 0, 0,
				LEAVING | READING, KEEP },
	/* From plain resident the place in staging must be empty; from marked it holds the copy. */
	[VMEMI_PAGE_TAKE] = { S(RESIDENT), VMEM_PAGE_STAGED, 0, PINNED, LEAVING | OCCUPIED, READING,
			      NONE },
	[VMEMI_PAGE_TAKE_DONE] = { S(STAGED), SAME_STATE, LEAVING, 0, 0, LEAVING, KEEP },
	/* Whether anything reached staging is not known: OCCUPIED stays, and is freed in time. */
	[VMEMI_PAGE_TAKE_UNDO] = { S(STAGED), VMEM_PAGE_RESIDENT, LEAVING, 0, 0, LEAVING, KEEP },
	[VMEMI_PAGE_TAKE_HOLE] = { S(STAGED), VMEM_PAGE_ABSENT, LEAVING, 0, 0, LEAVING, KEEP },
	/* Without a ref its bytes are with the caller: see vmemi_page_step(). */
	[VMEMI_PAGE_DROP] = { S(CLEAN), VMEM_PAGE_STORED, 0, LEAVING | PINNED, LEAVING, 0, KEEP },
	[VMEMI_PAGE_DROP_DONE] = { S(STORED) | S(SOURCE), SAME_STATE, LEAVING, 0, 0, LEAVING,
				   KEEP },
	[VMEMI_PAGE_DROP_UNDO] = { S(STORED) | S(SOURCE), VMEM_PAGE_CLEAN, LEAVING, 0, 0, LEAVING,
				   KEEP },

	[VMEMI_PAGE_DISTRUST] = { S(CLEAN), VMEM_PAGE_RESIDENT, 0, 0, 0, 0, GIVE },

	[VMEMI_PAGE_FETCH] = { S(ABSENT) | S(SOURCE) | S(STAGED) | S(STORING) | S(STORED),
			       VMEM_PAGE_ARRIVING, 0, LEAVING, 0, 0, KEEP },
	[VMEMI_PAGE_CLAIM] = { S(RESIDENT) | S(CLEAN) | S(SHARED), VMEM_PAGE_ARRIVING, 0, 0, 0,
			       LEAVING, KEEP },
	[VMEMI_PAGE_ARRIVE] = { S(ARRIVING), VMEM_PAGE_RESIDENT, 0, 0, 0, 0, KEEP },
	[VMEMI_PAGE_ARRIVE_CLEAN] = { S(ARRIVING), VMEM_PAGE_CLEAN, 0, PINNED | READING, 0, 0,
				      KEEP },
	[VMEMI_PAGE_ARRIVE_SAME] = { S(ARRIVING), VMEM_PAGE_CLEAN, 0, PINNED | READING, 0, 0,
				     CLEAR },
	[VMEMI_PAGE_ARRIVE_MOVED] = { S(ARRIVING), VMEM_PAGE_RESIDENT, OCCUPIED, READING, 0,
				      OCCUPIED, KEEP },
	[VMEMI_PAGE_RETURN] = { S(ARRIVING), SAME_STATE, 0, 0, 0, 0, KEEP },
	[VMEMI_PAGE_IMPORT] = { S(ARRIVING), VMEM_PAGE_STORED, 0, READING | PINNED, 0, 0, SET },
	[VMEMI_PAGE_LOSE] = { S(ARRIVING), VMEM_PAGE_POISONED, 0, 0, 0, 0, KEEP },
	[VMEMI_PAGE_LOSE_LATE] = { S(ARRIVING), VMEM_PAGE_POISONED, 0, 0, 0, 0, CLEAR },

	[VMEMI_PAGE_STORE] = { S(STAGED), VMEM_PAGE_STORING, 0, LEAVING | READING, READING, 0,
			       KEEP },
	[VMEMI_PAGE_STORED] = { S(STORING), VMEM_PAGE_STORED, READING, 0, 0, READING, SET },
	[VMEMI_PAGE_STORE_UNDO] = { S(STORING), VMEM_PAGE_STAGED, READING, 0, 0, READING, KEEP },
	[VMEMI_PAGE_RELEASE] = { ~S(STORING), SAME_STATE, READING, LEAVING, 0, READING, KEEP },
	[VMEMI_PAGE_FREED] = { ~(S(STAGED) | S(STORING) | S(ARRIVING)), SAME_STATE, OCCUPIED,
			       READING | LEAVING, 0, OCCUPIED, KEEP },
	[VMEMI_PAGE_PUNCH] = { S(ABSENT) | S(SOURCE) | S(STORED), SAME_STATE, OCCUPIED,
			       LEAVING | READING, LEAVING, 0, KEEP },
	[VMEMI_PAGE_PUNCH_DONE] = { S(ABSENT) | S(SOURCE) | S(STORED), SAME_STATE, LEAVING, 0, 0,
				    LEAVING | OCCUPIED, KEEP },
	[VMEMI_PAGE_PUNCH_UNDO] = { S(ABSENT) | S(SOURCE) | S(STORED), SAME_STATE,
				    LEAVING | OCCUPIED, 0, 0, LEAVING, KEEP },
	[VMEMI_PAGE_FREED_IN_PLACE] = { S(RESIDENT) | S(CLEAN) | S(SHARED) | S(POISONED),
					SAME_STATE, OCCUPIED, READING | LEAVING, 0, OCCUPIED,
					KEEP },
	[VMEMI_PAGE_SHED] = { S(RESIDENT) | S(POISONED), SAME_STATE, 0, 0, 0, 0, GIVE },

	[VMEMI_PAGE_SET_SOURCE] = { S(ABSENT), VMEM_PAGE_SOURCE, 0, LEAVING | READING, 0, 0, NONE },
	[VMEMI_PAGE_GIVE] = { S(ABSENT) | S(SOURCE) | S(RESIDENT) | S(CLEAN) | S(SHARED) |
				      S(STAGED) | S(STORING) | S(STORED) | S(POISONED),
			      VMEM_PAGE_SOURCE, 0, LEAVING | READING | PINNED, LEAVING, 0, CLEAR },
	[VMEMI_PAGE_FORGET] = { S(SOURCE) | S(STORED), VMEM_PAGE_ABSENT, 0,
				LEAVING | READING | OCCUPIED, 0, 0, CLEAR },
	[VMEMI_PAGE_PIN] = { S(RESIDENT), SAME_STATE, 0, LEAVING | PINNED, PINNED, 0, KEEP },
	[VMEMI_PAGE_UNPIN] = { S(RESIDENT) | S(ARRIVING) | S(POISONED), SAME_STATE, PINNED, 0, 0,
			       PINNED, KEEP },
	[VMEMI_PAGE_DISCARD] = { S(SOURCE) | S(RESIDENT) | S(CLEAN) | S(SHARED) | S(STAGED) |
					 S(STORING) | S(STORED) | S(POISONED),
				 VMEM_PAGE_ABSENT, 0, LEAVING | READING | PINNED, LEAVING, 0,
				 CLEAR },
	[VMEMI_PAGE_DISCARD_CLAIMED] = { S(ARRIVING), VMEM_PAGE_ABSENT, 0,
					 LEAVING | READING | PINNED, LEAVING, 0, CLEAR },
	[VMEMI_PAGE_DISCARD_DONE] = { S(ABSENT), SAME_STATE, LEAVING, 0, 0, LEAVING, KEEP },
	[VMEMI_PAGE_DISCARD_UNDO] = { S(ABSENT) | S(SOURCE), VMEM_PAGE_RESIDENT, LEAVING, 0, 0,
				      LEAVING, KEEP },
	[VMEMI_PAGE_DISCARD_LOST] = { S(ABSENT) | S(SOURCE), VMEM_PAGE_POISONED, LEAVING, 0, 0,
				      LEAVING, KEEP },
};

bool vmemi_page_step(uint64_t word, enum vmemi_page_event event, uint64_t argument,
		     uint64_t *ret_word)
{
	const struct rule *rule = &rules[event];
	enum vmem_page_state state = vmemi_page_state(word), to;
	uint64_t flags = word & VMEMI_PAGE_FLAGS, ref = vmemi_page_ref(word);

	if (!(rule->from >> state & 1) || (flags & rule->need) != rule->need ||
	    (flags & rule->forbid))
		return false;
	if ((rule->ref == NONE && ref) || (rule->ref == GIVE && !ref))
		return false;
	if (event == VMEMI_PAGE_TAKE && (flags & MARKED) && (flags & MARKED) != MARKED)
		return false;
	if (event == VMEMI_PAGE_RETURN) {
		to = vmemi_page_state(argument);
		if (to == VMEM_PAGE_STORING) /* its worker has been told to let go */
			to = VMEM_PAGE_STAGED;
	} else {
		to = rule->to == SAME_STATE ? state : (enum vmem_page_state)rule->to;
	}
	if (event == VMEMI_PAGE_DROP && !ref)
		to = VMEM_PAGE_SOURCE;
	if (rule->ref == CLEAR || rule->ref == GIVE)
		ref = 0;
	else if (rule->ref == SET)
		ref = vmemi_page_ref(argument);
	*ret_word = vmemi_page_word(to, (flags | rule->set) & ~rule->clear, ref);
	return true;
}

bool vmemi_page_valid(uint64_t word)
{
	enum vmem_page_state state = vmemi_page_state(word);
	bool has_ref = vmemi_page_ref(word) != 0;

	if (state >= VMEM_PAGE_STATES)
		return false;
	if (!has_ref && state == VMEM_PAGE_STORED)
		return false;
	if (has_ref &&
	    !(1u << state & (S(STORED) | S(CLEAN) | S(ARRIVING) | S(RESIDENT) | S(POISONED))))
		return false;
	if ((word & PINNED) && !(1u << state & (S(RESIDENT) | S(ARRIVING) | S(POISONED))))
		return false;
	if ((word & LEAVING) &&
	    !(1u << state & (S(RESIDENT) | S(STAGED) | S(STORED) | S(SOURCE) | S(ABSENT))))
		return false;
	if ((word & LEAVING) && (word & PINNED))
		return false;
	if ((word & LEAVING) && !(word & READING) != (state != VMEM_PAGE_RESIDENT))
		return false;
	if ((state == VMEM_PAGE_STAGED || state == VMEM_PAGE_STORING) && !(word & OCCUPIED))
		return false;
	if (state == VMEM_PAGE_STORING && !(word & READING))
		return false;
	if ((word & READING) &&
	    (!(word & OCCUPIED) || has_ref || 1u << state & (S(CLEAN) | S(SOURCE))))
		return false;
	return true;
}
