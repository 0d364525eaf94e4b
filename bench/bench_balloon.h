/* SPDX-License-Identifier: BSD-2-Clause */
/* Parts of bench-balloon. */
#ifndef BENCH_BALLOON_H
#define BENCH_BALLOON_H
#include "harness.h"

/* A VM gives most of its memory and takes it back: by page numbers, and by ranges. */
int bench_balloon_vm(struct bench *bench);
/* The same for memory of regions, without a VM. */
int bench_balloon_region(struct bench *bench);
/* A guest with Linux's own driver, in User-Mode Linux: what comes back to the host, and how soon. */
int bench_balloon_uml(struct bench *bench);

#endif
