/* SPDX-License-Identifier: BSD-2-Clause */
/* How long a region's users are blocked: see pressure.h. */
#include "linux/region/pressure.h"

#define UNIT_NS 64
#define TIME_MASK ((UINT64_C(1) << 48) - 1)
#define ONE_BLOCKED (UINT64_C(1) << 48)
#define FIXED 2048u
/* exp(-2/10) and exp(-2/60), as the kernel has them */
#define KEEP10 1677u
#define KEEP60 1981u
#define PERIODS_MOST 512 /* after which nothing is left of what was before */

/* From the time in a word to @time; 0 if that is earlier, as it may be by a hair between threads. */
static uint64_t since(uint64_t word, uint64_t time)
{
	uint64_t units = (time - word) & TIME_MASK;

	return units > TIME_MASK / 2 ? 0 : units;
}

static void change(struct vmemi_pressure *p, uint64_t now_ns, uint64_t blocked)
{
	uint64_t time = now_ns / UNIT_NS & TIME_MASK, old = atomic_load(&p->now), passed, next;

	do {
		passed = since(old, time);
		next = (old & ~TIME_MASK) + blocked;
		/* From nothing it begins anew: the last change may be long ago. */
		next |= passed || !(old & ~TIME_MASK) ? time : old & TIME_MASK;
	} while (!atomic_compare_exchange_weak(&p->now, &old, next));
	if (old & ~TIME_MASK)
		atomic_fetch_add_explicit(&p->some_ns, passed * UNIT_NS, memory_order_relaxed);
}

void vmemi_pressure_begin(struct vmemi_pressure *p, uint64_t now_ns)
{
	change(p, now_ns, ONE_BLOCKED);
}

void vmemi_pressure_end(struct vmemi_pressure *p, uint64_t began_ns, uint64_t now_ns)
{
	/* Who sees that nobody waits any more finds the sum whole. */
	atomic_fetch_add_explicit(&p->blocked_ns, now_ns - began_ns, memory_order_relaxed);
	change(p, now_ns, -ONE_BLOCKED);
}

void vmemi_pressure_add(struct vmemi_pressure *p, uint64_t ns)
{
	atomic_fetch_add_explicit(&p->some_ns, ns, memory_order_relaxed);
	atomic_fetch_add_explicit(&p->blocked_ns, ns, memory_order_relaxed);
}

uint64_t vmemi_pressure_some(const struct vmemi_pressure *p, uint64_t now_ns)
{
	uint64_t word = atomic_load(&p->now);
	uint64_t open = word & ~TIME_MASK ? since(word, now_ns / UNIT_NS) * UNIT_NS : 0;

	return atomic_load(&p->some_ns) + open;
}

/* @share for so many periods, each of which keeps @keep of what was before. */
static void average(_Atomic uint32_t *avg, uint64_t share, uint64_t periods, uint32_t keep)
{
	uint64_t v = atomic_load_explicit(avg, memory_order_relaxed);

	for (; periods; periods--) {
		v = v * keep + share * FIXED * (FIXED - keep);
		v = (v + (share * FIXED * FIXED > v ? FIXED - 1 : 0)) / FIXED;
	}
	atomic_store_explicit(avg, (uint32_t)v, memory_order_relaxed);
}

void vmemi_pressure_tick(struct vmemi_pressure *p, uint64_t now_ns)
{
	uint64_t some, share, passed, periods;

	if (atomic_exchange(&p->ticking, 1))
		return;
	some = vmemi_pressure_some(p, now_ns);
	passed = p->period_ns && now_ns > p->period_ns ? now_ns - p->period_ns : 0;
	periods = passed / VMEMI_PRESSURE_PERIOD_NS;
	if (!p->period_ns) {
		p->period_ns = now_ns;
		p->some_then_ns = some;
	} else if (periods) {
		/* Over a million: of threads that were blocked at once and are not told apart. */
		share = some > p->some_then_ns ? (some - p->some_then_ns) / (passed / 1000000) : 0;
		share = share < 1000000 ? share : 1000000;
		periods = periods < PERIODS_MOST ? periods : PERIODS_MOST;
		average(&p->avg10, share, periods, KEEP10);
		average(&p->avg60, share, periods, KEEP60);
		p->period_ns = now_ns;
		p->some_then_ns = some;
	}
	atomic_store(&p->ticking, 0);
}

uint32_t vmemi_pressure_avg(const _Atomic uint32_t *avg)
{
	return atomic_load_explicit(avg, memory_order_relaxed) / FIXED;
}
