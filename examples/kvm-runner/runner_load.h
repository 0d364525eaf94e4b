/* SPDX-License-Identifier: BSD-2-Clause */
/* Filling the VMs' memory before they start. */
#ifndef RUNNER_LOAD_H
#define RUNNER_LOAD_H
#include "runner_vm.h"

/* Pin the low parts and fill all memory from the images. The manager's threads are running.
 * Returns 0, or a negative VMEM error after a message; -VMEM_EAGAIN: interrupted, or given up. */
int load_vms(struct runner *runner);

#endif
