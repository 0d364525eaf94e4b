/* SPDX-License-Identifier: BSD-2-Clause */
/* The budget in physical bytes: what is used of it, and who may take more.
 *
 *   0 ........ faults and writes may fill up to here ........ budget - floor ... budget
 *                              reclaim starts when less than `reserve` is free
 *
 * The floor is for reclaim alone: what it needs to make room (a segment, a batch of copies), so that
 * taking pages out never waits for itself. All counters are atomic; who finds too little waits on a
 * futex that each giving back wakes. */
#ifndef VMEMI_FRAMES_H
#define VMEMI_FRAMES_H
#include "base/alloc.h"
#include "linux/kernel/kernel.h"
#include <stdatomic.h>
#include <stdbool.h>

struct vmemi_frames {
	const struct vmemi_kernel *k;
	const struct vmemi_counting_allocator *metadata;
	_Atomic uint64_t budget_bytes;  /* UINT64_MAX: no limit */
	_Atomic uint64_t reserve_bytes; /* reclaim keeps this free */
	_Atomic uint64_t floor_bytes;   /* faults leave this free */
	/* Segments are made up to here: the budget, or what is in use still after it was lowered. */
	_Atomic uint64_t segments_most;
	_Atomic uint64_t segment_bytes; /* the pool's */
	_Atomic uint64_t other_bytes;   /* mapped by ourselves: buffers */
	/* What faults change, and what reclaim does, each in a cache line of its own. */
	_Alignas(64) _Atomic int64_t resident_pages; /* guest pages in place */
	_Alignas(64) _Atomic int64_t staging_pages;  /* frames in staging */
	_Alignas(64) _Atomic uint32_t waiters;
	_Atomic uint32_t sequence; /* futex; changes when frames were given back */
};

uint64_t vmemi_frames_used(const struct vmemi_frames *f);
/* Bytes free below the budget; 0 when over it. */
uint64_t vmemi_frames_free(const struct vmemi_frames *f);

/* Counts @pages more as resident if that leaves @floor bytes free. */
bool vmemi_frames_take(struct vmemi_frames *f, unsigned pages, uint64_t floor);
/* The same without asking. */
void vmemi_frames_force(struct vmemi_frames *f, unsigned pages);
/* Takes that back. */
void vmemi_frames_untake(struct vmemi_frames *f, unsigned pages);

/* Wakes who waits, if anybody does. Call after having given frames back. */
void vmemi_frames_wake(struct vmemi_frames *f);
/* Waits until something was given back since @sequence was read, or @timeout_ns. */
void vmemi_frames_wait(struct vmemi_frames *f, uint32_t sequence, uint64_t timeout_ns);

#endif
