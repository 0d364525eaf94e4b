/* SPDX-License-Identifier: BSD-2-Clause */
/* The part of bench-track about policy. */
#ifndef BENCH_TRACK_H
#define BENCH_TRACK_H
#include "harness.h"

/* Rows about the controller of the cold threshold. @return 0, or an error */
int bench_track_policy(struct bench *bench);

#endif
