/* SPDX-License-Identifier: BSD-2-Clause */
/* All worlds that programs can bring a page into, whatever the order of their steps and whatever happens that
 * may: breadth first, so that what is found wrong comes with a shortest way there. */
#ifndef VMEMT_PAGE_EXPLORE_H
#define VMEMT_PAGE_EXPLORE_H
#include "linux/page_world.h"

struct vmemt_exploration {
	uint32_t programs; /* bit by program */
	unsigned may;      /* VMEMT_MAY_* */
	uint32_t most;     /* worlds to look at */
	bool silent;       /* do not print the way to what is wrong */
	/* results */
	uint32_t worlds;
	bool complete;       /* there are no more */
	const char *failure; /* NULL: nothing is wrong */
	uint64_t events[VMEMI_PAGE_EVENTS];
};

/* Besides what must hold in each world: from each, what is under way ends without anything new being begun, and
 * nobody waits any more (looked at only if all worlds were). */
void vmemt_explore(struct vmemt_exploration *e);

#endif
