/* SPDX-License-Identifier: BSD-2-Clause */
/* What tests of regions do to the store below them, whose insides only stored.c knows. */
#ifndef VMEMT_STORED_H
#define VMEMT_STORED_H
#include <stdbool.h>
#include <vmem/store.h>

/* Where the bytes of a page in the pool are. The store must be at rest. */
unsigned char *vmemt_stored_bytes(vmem_store *store, vmem_store_ref ref, uint32_t *ret_bytes);

/* Whether some of what a page is made of - its bytes, or those of the page that it is a delta of - is on device 0, in
 * blocks that end behind @from. Any time. */
bool vmemt_stored_behind(vmem_store *store, vmem_store_ref ref, uint64_t from);

/* Pages that can be encoded or decoded at once. The store must be at rest. */
uint32_t vmemt_stored_at_once(vmem_store *store);

/* Asserts that the store is in order. It must be at rest. */
void vmemt_stored_check(vmem_store *store);

/* Loads of pages in the pool take time from now on: each is held until it is finished. See
 * store/slow_tier.h. One store at a time. */
void vmemt_slow_start(vmem_store *store);
void vmemt_slow_stop(void);           /* no load may be held */
void vmemt_slow_hold(int hold);       /* 0: later loads are done at once */
void vmemt_slow_at_poll(int at_poll); /* 1: each look for finished loads finishes the oldest */
uint32_t vmemt_slow_held(void);
/* Finishes the @nth oldest. 0, -VMEM_ENOENT. */
int vmemt_slow_finish(uint32_t nth, int result);

#endif
