/* SPDX-License-Identifier: BSD-2-Clause */
/* What a hostile guest does to the balloon's registers and rings, before the driver of vCPU 0 begins. */
#ifndef PAYLOAD_ABUSE_H
#define PAYLOAD_ABUSE_H
#include <stdbool.h>

#include "guest_abi.h"

/* Leaves the device reset, and the driver's memory full of anything. False: it took features that it did not
 * offer. */
bool payload_abuse(struct guest_params *params);

#endif
