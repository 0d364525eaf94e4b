/* SPDX-License-Identifier: BSD-2-Clause */
/* The live table: a row for each VM, the total, and the library's own memory. */
#ifndef RUNNER_TABLE_H
#define RUNNER_TABLE_H
#include "runner_vm.h"

struct table; /* opaque */

/* Returns 0, or -VMEM_ENOMEM. */
int table_new(struct table **ret_table, struct runner *runner);
void table_free(struct table *table);

/* Print it if it is time to. */
void table_tick(struct table *table, uint64_t now_ns);

/* Print it for the last time. */
void table_end(struct table *table);

#endif
