/* SPDX-License-Identifier: BSD-2-Clause */
/* What a hostile guest does to the balloon's registers and rings, before the driver of vCPU 0 begins. */
#ifndef PAYLOAD_ABUSE_H
#define PAYLOAD_ABUSE_H
#include <stdbool.h>

#include "guest_abi.h"

/* Leaves the device reset, and the driver's memory full of anything. False: it took features that it did not
 * offer. */
bool payload_abuse(struct guest_params *params);

/* Rings full of the longest buffers with the most work in them, full again at once, and one notification after the
 * other until time is up. Leaves the device reset. */
void payload_flood(struct guest_params *params);

#endif
