/* SPDX-License-Identifier: BSD-2-Clause */
/* The pages go into a store, as they would when a VM is overcommitted. */
#ifndef ESTIMATE_SCAN_H
#define ESTIMATE_SCAN_H
#include "estimate_source.h"

/* Looks at all VMs, whose sources are open, and fills in the rest of @e. 0, or -1: what went wrong was said,
 * or is_interrupted(). */
int scan(struct estimate *e, const struct source *sources);

#endif
