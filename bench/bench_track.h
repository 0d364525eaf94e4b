/* SPDX-License-Identifier: BSD-2-Clause */
/* The parts of bench-track about policy and about feeds. */
#ifndef BENCH_TRACK_H
#define BENCH_TRACK_H
#include "harness.h"

/* Rows about the controller of the cold threshold. @return 0, or an error */
int bench_track_policy(struct bench *bench);
/* Rows about what each feed of a region costs and finds. @return 0, or an error */
int bench_track_feeds(struct bench *bench);

#endif
