/* SPDX-License-Identifier: BSD-2-Clause */
/* Damage on purpose, to see that it is found. By the library's public functions and what any process
 * can do to itself. */
#ifndef RUNNER_INJECT_H
#define RUNNER_INJECT_H
#include "runner_vm.h"

/* Discard a page of the VM that is not zero, behind the guest's back. Any time while it is loaded.
 * Returns 0, -VMEM_ENOENT if there is none, or another negative VMEM error after a message. */
int inject_drop_page(struct vm *vm);

/* Give a page of the VM contents of its own, have it stored, find its bytes in the memory of this
 * process and flip one bit of them. Before the VM starts. Returns 0, or a negative VMEM error after
 * a message. */
int inject_corrupt_page(struct vm *vm);

#endif
