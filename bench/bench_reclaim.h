/* SPDX-License-Identifier: BSD-2-Clause */
/* The parts of bench-reclaim. */
#ifndef BENCH_RECLAIM_H
#define BENCH_RECLAIM_H
#include "harness.h"
#include "kvm_guest.h"
#include "machine.h"
#include "real_pages.h"

#define GUEST_CPU 0
#define RECLAIM_CPU 1

/* A guest on KVM, or, with a note, a thread. @return 0, -errno */
int reclaim_guest_new(struct kvm_guest **ret_guest, void *memory, size_t bytes);

int bench_reclaim_store(struct bench *bench, const struct real_pages *pages);
int bench_replay(struct bench *bench, const struct real_pages *pages);
int bench_half_budget(struct bench *bench, const struct real_pages *pages);

#endif
