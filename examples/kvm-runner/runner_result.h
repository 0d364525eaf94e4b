/* SPDX-License-Identifier: BSD-2-Clause */
/* What came out of it: words for people, one JSON object for programs. */
#ifndef RUNNER_RESULT_H
#define RUNNER_RESULT_H
#include "runner_vm.h"

/* What the VMs were loaded with. */
void result_print_image(const struct vm *vm);

/* Say how a VM ended if not well: the frame, what it should have held, and what it holds. */
void result_print_end(struct vm *vm);

/* The totals. Returns what the process should end with. */
enum runner_exit result_print_totals(struct runner *runner, bool interrupted);

/* Whether `path` can be written at the end, with a message if not. Returns 0 or -VMEM_EINVAL. */
int result_check_json(const char *path);

/* Returns 0, or a negative VMEM error after a message. */
int result_write_json(struct runner *runner, enum runner_exit status, const char *path);

#endif
