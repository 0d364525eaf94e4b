/* SPDX-License-Identifier: BSD-2-Clause */
/* What bench-density measures is in two files. */
#ifndef BENCH_DENSITY_H
#define BENCH_DENSITY_H
#include "guest_pages.h"
#include "harness.h"
#include <vmem/store.h>

/* bench_churn.c. @param refs  room for one a page @param zram_reason  why that peer is missing, or NULL */
int density_compare_churn(struct bench *bench, const struct guest_pages *guests,
			  vmem_store_ref *refs, const char *zram_reason);

#endif
