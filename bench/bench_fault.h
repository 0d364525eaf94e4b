/* SPDX-License-Identifier: BSD-2-Clause */
/* The parts of bench-fault. */
#ifndef BENCH_FAULT_H
#define BENCH_FAULT_H
#include "harness.h"
#include "machine.h"
#include "real_pages.h"

/* How the pages of an array are touched, one by one. */
struct touch {
	uint8_t *memory;
	const uint32_t *order;
	size_t count;
	int write;
	uint32_t *samples; /* ns of each, in the order of touching; NULL: not timed */
};
void touch_pages(const struct touch *touch);
/* What was touched must be what was there before, pages of @p contents (NULL: zeros), but for the byte that
 * was written. @return 0, -EBADMSG */
int touch_check(const struct touch *touch, const uint8_t *contents);
/* Median into values[0], 99th percentile into values[1]. */
void touch_values(const struct touch *touch, double *values);

int bench_fault_thread(struct bench *bench, const struct real_pages *pages);
int bench_fault_threads(struct bench *bench);
int bench_fault_inline_zero(struct bench *bench);
int bench_fault_inline_stored(struct bench *bench, const struct real_pages *pages);
int bench_fault_kvm(struct bench *bench);

#endif
