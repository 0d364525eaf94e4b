/* SPDX-License-Identifier: BSD-2-Clause */
/* The low part of guest memory: payload, parameters, page tables, stacks, tables. It is pinned. */
#ifndef RUNNER_LOW_H
#define RUNNER_LOW_H
#include "runner_vm.h"

/* Where things lie in the VMs of these options. */
void low_part_layout(struct low_layout *layout, const struct runner_options *options);

/* Write all of it but the truth of the pages, which comes with the image, or was restored with them. The part is
 * pinned. */
void low_part_fill(struct vm *vm, bool restored);

#endif
