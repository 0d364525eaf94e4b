/* SPDX-License-Identifier: BSD-2-Clause */
/* Slow loads of all handlers of faults: how many there are, and the ends of those that are over, which the
 * store tells to whichever handler asks first. Whoever begins loads with a token does it by way of this. */
#ifndef VMEMI_LOADS_H
#define VMEMI_LOADS_H
#include "linux/region/host.h"

/* One load more, if there are less than @most. */
bool vmemi_loads_reserve(struct vmemi_host *host, uint32_t most);
/* It was not begun after all, or its buffer was given back. */
void vmemi_loads_release(struct vmemi_host *host);

/* Asks the store which are over, and goes on with what is being written. True: some are, perhaps a handler's; the only
 * handler is not told. */
bool vmemi_loads_poll(struct vmemi_host *host);
/* The store was asked for something else, and may know of some that are over by now. */
void vmemi_loads_tell(struct vmemi_host *host);
/* True, once, if the load is over; then *ret_result is how. */
bool vmemi_loads_take(struct vmemi_host *host, vmem_store_token token, int *ret_result);

#endif
