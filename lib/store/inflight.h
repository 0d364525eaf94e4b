/* SPDX-License-Identifier: BSD-2-Clause */
/* Loads in progress, and the queue of events. One fixed table serves both: a load that is over turns
 * into its event in place, so that completing never needs memory. */
#ifndef VMEMI_INFLIGHT_H
#define VMEMI_INFLIGHT_H
#include <stdatomic.h>
#include <vmem/store.h>
#include "base/lock.h"

#define VMEMI_INFLIGHT_ENTRIES 256u /* a power of two: the low bits of a token are the entry */

/* A load that has begun. */
struct vmemi_load {
	uint64_t key;
	vmem_store_ref ref;
	void *page;
	uint32_t vm;
	uint32_t peek; /* 1: not a use of the page */
};

/* Keys of pages that are cheap to load now. */
#define VMEMI_OFFERS 8u
struct vmemi_offers {
	uint32_t count;
	uint64_t key[VMEMI_OFFERS];
};

struct vmemi_inflight_entry {
	struct vmemi_load load;
	vmem_store_token token; /* of this use; grows by the table's size with each */
	int32_t result;
	uint16_t next;      /* in the free list or the queue */
	uint8_t state;      /* enum in inflight.c */
	uint8_t event_type; /* enum vmem_store_event_type */
};

struct vmemi_inflight {
	struct vmemi_lock lock;   /* guards all but the atomics; held for a few words only */
	_Atomic uint32_t loading; /* atomic, written under the lock: loads begun and not over */
	_Atomic uint32_t queued;  /* atomic, written under the lock: events that wait */
	uint32_t free_count;
	uint16_t free_first;
	uint16_t queue_first;
	uint16_t queue_last;
	struct vmemi_inflight_entry entry[VMEMI_INFLIGHT_ENTRIES];
};

/* 0, -VMEM_ENOMEM. */
int vmemi_inflight_init(struct vmemi_inflight *f, const struct vmem_env *env);
void vmemi_inflight_destroy(struct vmemi_inflight *f);

/* A load begins. 0, -VMEM_EAGAIN (the table is full). */
int vmemi_inflight_begin(struct vmemi_inflight *f, const struct vmemi_load *load,
			 vmem_store_token *ret_token);

/* Whoever completes the load claims it, puts the page in place, and then calls _end.
 * 0, -VMEM_ENOENT (not in progress, or claimed already). */
int vmemi_inflight_claim(struct vmemi_inflight *f, vmem_store_token token,
			 struct vmemi_load *ret_load);
/* With offers to its VM, which are told after it, as many as there is room for; NULL: none. */
void vmemi_inflight_end(struct vmemi_inflight *f, vmem_store_token token, int result,
			const struct vmemi_offers *offers);

/* Queues an offer or a loss. @live: 0 from when the VM is dropped, before its events are forgotten.
 * 0, -VMEM_ENOENT (not live), -VMEM_EAGAIN (full; for offers half full, so that they never keep loads
 * from beginning). */
int vmemi_inflight_post(struct vmemi_inflight *f, const struct vmem_store_event *event,
			const _Atomic uint32_t *live);

/* Whether a load of @ref is in progress, or with @ref 0 any load of @vm. */
int vmemi_inflight_busy(struct vmemi_inflight *f, uint32_t vm, vmem_store_ref ref);

/* Discards the events of @vm that wait. */
void vmemi_inflight_forget(struct vmemi_inflight *f, uint32_t vm);

/* Takes events in the order in which they were queued. Returns how many. */
uint32_t vmemi_inflight_take(struct vmemi_inflight *f, struct vmem_store_event *events,
			     uint32_t capacity);

/* For tests: walks the table. NULL, or what is wrong. No call may run. */
const char *vmemi_inflight_check(struct vmemi_inflight *f);

#endif
