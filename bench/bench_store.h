/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-store: what its sources share. */
#ifndef BENCH_STORE_H
#define BENCH_STORE_H
#include "guest_pages.h"
#include "harness.h"
#include <vmem/store.h>

/* All pages of all guests; measured last. @param count  how many pages of a form are loaded */
int store_compare_all(struct bench *bench, size_t count, const char *zram_reason);

/* Whole VMs. @param paged  room for all pages */
int store_compare_vms(struct bench *bench, const struct guest_pages *guests, vmem_store_ref *refs,
		      uint8_t *paged, const char *zram_reason);

#endif
