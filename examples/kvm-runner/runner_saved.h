/* SPDX-License-Identifier: BSD-2-Clause */
/* The memory of VMs in files, one each, and from there again. */
#ifndef RUNNER_SAVED_H
#define RUNNER_SAVED_H
#include "runner_vm.h"

/* Whether the files that --save names can be written. Returns 0, or -VMEM_EINVAL after a message. */
int saved_check(const struct runner_options *options);

/* Write the memory of a VM whose vCPUs have ended. Returns 0, or a negative VMEM error after a message; then the
 * file is as it was before. */
int vm_save(struct vm *vm);

/* Fill a VM that was just created from its file, or with --lazy have it filled as pages are touched. progress as
 * in <vmem/snapshot.h>, or not called. Returns 0, or a negative VMEM error after a message. */
int vm_restore(struct vm *vm,
	       int (*progress)(void *context, uint64_t done_bytes, uint64_t vm_bytes),
	       void *context);

/* Close what --lazy has open. The region is detached. */
void vm_saved_close(struct vm *vm);

#endif
