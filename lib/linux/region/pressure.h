/* SPDX-License-Identifier: BSD-2-Clause */
/* How long a region's users are blocked on our faults, and for what share of the time at least one of them
 * is: what the kernel calls "some" pressure (Documentation/accounting/psi.rst), of a VM. Times are given.
 *
 * The number of those who are blocked and the time of its last change are one word, so that each interval in
 * which it was not 0 is counted once, by who ends it. */
#ifndef VMEMI_PRESSURE_H
#define VMEMI_PRESSURE_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define VMEMI_PRESSURE_PERIOD_NS UINT64_C(2000000000)

struct vmemi_pressure {
	/* atomic; bits 48..63: blocked now, 0..47: time of the last change, in units of 64 ns, modulo 2^48 */
	_Atomic uint64_t now;
	_Atomic uint64_t some_ns; /* atomic; in which somebody was blocked, up to the last change */
	_Atomic uint64_t blocked_ns;   /* atomic; summed over all */
	_Atomic uint32_t avg10, avg60; /* atomic; parts per million, times 2048 */
	_Atomic uint32_t ticking;      /* atomic; guards the next two */
	uint64_t period_ns;            /* when it began; 0: not yet */
	uint64_t some_then_ns;
};

/* Somebody is blocked from @now_ns on. */
void vmemi_pressure_begin(struct vmemi_pressure *p, uint64_t now_ns);
/* No longer. @began_ns as given at the begin. */
void vmemi_pressure_end(struct vmemi_pressure *p, uint64_t began_ns, uint64_t now_ns);
/* Somebody was blocked for so long, alone as far as is known. */
void vmemi_pressure_add(struct vmemi_pressure *p, uint64_t ns);

/* Up to now. */
uint64_t vmemi_pressure_some(const struct vmemi_pressure *p, uint64_t now_ns);

/* Brings the averages up to date, when a period of two seconds is over. Any thread. */
void vmemi_pressure_tick(struct vmemi_pressure *p, uint64_t now_ns);
/* In parts per million. */
uint32_t vmemi_pressure_avg(const _Atomic uint32_t *avg);

#endif
