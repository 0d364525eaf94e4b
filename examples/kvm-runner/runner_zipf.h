/* SPDX-License-Identifier: BSD-2-Clause */
/* The table from which the guest draws Zipf-distributed ranks. */
#ifndef RUNNER_ZIPF_H
#define RUNNER_ZIPF_H
#include "guest_abi.h"

#define ZIPF_CLASSES_MOST 2048u

/* Fills `classes` for ranks 0 .. ranks-1 with probability proportional to 1/(rank+1)^skew. Returns how many
 * classes there are: the first 1024 ranks have one each, those after share classes that grow with
 * the rank, of which all ranks are drawn alike. */
uint32_t zipf_fill(struct guest_zipf classes[ZIPF_CLASSES_MOST], uint64_t ranks, double skew);

#endif
