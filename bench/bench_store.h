/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-store: what its two sources share. */
#ifndef BENCH_STORE_H
#define BENCH_STORE_H
#include "harness.h"

/* All pages of all guests; measured last. @param count  how many pages of a form are loaded */
int store_compare_all(struct bench *bench, size_t count, const char *zram_reason);

#endif
