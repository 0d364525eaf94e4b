/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/env.h
 *  What an object needs of its surroundings besides memory: locks, a pause, a log, a clock.
 *  Given in options and copied from there; what its context points to must outlive every object made
 *  with it. */
#ifndef VMEM_ENV_H
#define VMEM_ENV_H
#include <vmem/common.h>
VMEM_BEGIN_DECLS

/** What a log record is about; the numbers a and b are explained beside each code. */
enum vmem_log_code {
	/** an object is damaged; of a pool, a: handle, b: stream; of a store, a: ref, b: VM, or, where VMs of
	 *  a group share it, a: handle, b: UINT64_MAX */
	VMEM_LOG_CORRUPT_OBJECT = 1,
	VMEM_LOG_BUDGET_EXCEEDED = 2 /**< nothing more fits; a: bytes used, b: budget in bytes */
};

/** An environment. Fields are only ever added at the end.
 *  Locks are never held while guest or caller memory is read. lock_new == NULL: the caller
 *  promises that no two calls run together, and no lock is taken. */
struct vmem_env {
	size_t size;   /**< sizeof(*this) as the caller compiled it */
	void *context; /**< handed to each function */

	void *(*lock_new)(void *context); /**< NULL on failure */
	void (*lock_free)(void *context, void *lock);
	void (*lock)(void *context, void *lock); /**< not recursive */
	void (*unlock)(void *context, void *lock);

	/** Called in a loop while waiting for another thread; may be NULL (then the processor's pause). */
	void (*relax)(void *context);

	/** One record. Not called on a path that serves a fault. May be NULL. */
	void (*log)(void *context, enum vmem_log_code code, uint64_t a, uint64_t b);

	/** CPU time of the calling thread so far, for accounts; also called where a fault is served.
	 *  NULL: CLOCK_THREAD_CPUTIME_ID (freestanding: none, such times stay 0). */
	uint64_t (*cpu_time_ns)(void *context);

	/** All threads that may call the library pass a full memory barrier before it returns; no locks are
	 *  taken in it. Rare, so that what is frequent need not pay for one.
	 *  @return 0, or anything else: that is not to be had (any more)
	 *  NULL: there is none. The default environment has membarrier(2), where the system lets it. */
	int (*barrier)(void *context);
};

VMEM_END_DECLS
#endif
