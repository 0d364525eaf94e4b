/* SPDX-License-Identifier: BSD-2-Clause */
/* A short life of a manager over the table of failing_kernel.h: three regions, whose pages go through all
 * states and back, by one thread that also steps the manager. Whatever fails, each call returns an error
 * that its header lists, no byte is ever wrong, and in the end nothing is left: no descriptor, no memory,
 * no mapping. Asserts all of that. */
#ifndef VMEMT_LIFE_H
#define VMEMT_LIFE_H
#include <stdbool.h>
#include "support/fail_alloc.h"

struct vmemt_life {
	/* given */
	struct vmemt_fail_alloc *alloc; /* NULL: libc */
	bool cannot_take;               /* pages cannot be taken out of some regions */
	bool nothing_fails;             /* every call must work */
	/* what happened */
	unsigned errors; /* calls that returned an error */
	unsigned lost;   /* pages that were lost, with notice */
	unsigned staged, stored, back;
	uint64_t features;
};

void vmemt_live(struct vmemt_life *l);
/* Once for all lives: starts the virtual processor, and stops it. */
void vmemt_life_start(void);
void vmemt_life_stop(void);

#endif
