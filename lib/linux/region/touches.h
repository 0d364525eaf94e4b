/* SPDX-License-Identifier: BSD-2-Clause */
/* A record of the pages of a region that are touched, in the order in which they first are: a bit a page, by
 * which the first is known, and a list, to which whoever sets one adds the page. Bounded by its making; adding
 * neither allocates nor locks. Guard: all atomic; the arrays are there while `state` is ON, and while
 * somebody is counted in `users`. */
#ifndef VMEMI_TOUCHES_H
#define VMEMI_TOUCHES_H
#include "base/alloc.h"
#include <stdbool.h>
#include <vmem/env.h>

enum { VMEMI_TOUCHES_OFF, VMEMI_TOUCHES_ON, VMEMI_TOUCHES_CHANGING };

struct vmemi_touches {
	_Atomic uint32_t state; /* atomic */
	_Atomic uint32_t users; /* atomic; who is at the arrays */
	_Atomic uint64_t count; /* atomic; of first touches; may be more than capacity */
	uint64_t pages;         /* of the region; CHANGING */
	uint64_t capacity;      /* of order; CHANGING */
	_Atomic uint64_t *seen; /* bitmap */
	uint32_t *order; /* each entry by whom count gave it to; read when there are no users */
};

void vmemi_touches_note(struct vmemi_touches *t, uint64_t page);

/* Any thread, signal handlers too. */
static inline void vmemi_touched(struct vmemi_touches *t, uint64_t page)
{
	if (atomic_load_explicit(&t->state, memory_order_relaxed) == VMEMI_TOUCHES_ON)
		vmemi_touches_note(t, page);
}

/* 0, -VMEM_EBUSY (it is on), -VMEM_ENOMEM. */
int vmemi_touches_start(struct vmemi_touches *t, const struct vmem_allocator *a, uint64_t pages,
			uint64_t capacity);
/* Ends it, and waits for who is at it; then the caller reads the arrays, and says what comes next. False: it
 * is not on. */
bool vmemi_touches_hold(struct vmemi_touches *t, const struct vmem_env *env);
void vmemi_touches_go_on(struct vmemi_touches *t);
void vmemi_touches_drop(struct vmemi_touches *t, const struct vmem_allocator *a);

#endif
