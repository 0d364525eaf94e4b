/* SPDX-License-Identifier: BSD-2-Clause */
/* Which way of taking pages out is cheaper here and now: measured, not decreed.
 *
 * A moved run costs one call and one flush of the other cores' TLBs, however long it is; a page taken
 * by write-protect and copy costs a copy, but shares its flushes with hundreds. What a flush costs the
 * guests is not in our time; it is taken as much again as the call itself. Every 64th decision tries
 * runs of half the length, so that a figure for them exists.
 *
 * Protecting a range, and the end of that, take KVM's mappings of all of it away: the guest faults again on
 * each page that it uses there, about 1.2 us each time. So victims among hot pages are moved one by one. */
#include "linux/reclaim/reclaim.h"

#define FLUSH_WEIGHT 2
#define TRY_EVERY 64
#define RUN_SHORTEST 4
#define REMAP_NS (2 * 1200u)
/* Until there are figures of our own. */
#define SINGLE_NS 10000u
#define SCATTERED_NS 6000u

static unsigned class_of(unsigned run)
{
	unsigned log2 = 31u - (unsigned)__builtin_clz(run);

	return log2 < 6 ? log2 : 6;
}

static void average(_Atomic uint64_t *figure, uint64_t sample)
{
	uint64_t old = atomic_load_explicit(figure, memory_order_relaxed);

	if (!sample)
		sample = 1;
	atomic_store_explicit(figure, old ? (old * 7 + sample) / 8 : sample, memory_order_relaxed);
}

void vmemi_cost_book(struct vmemi_cost *c, unsigned run, unsigned pages, uint64_t ns)
{
	if (pages)
		average(run ? &c->run_ns[class_of(run)] : &c->scattered_ns, ns / pages);
}

unsigned vmemi_cost_run_min(struct vmemi_cost *c)
{
	uint64_t scattered = atomic_load_explicit(&c->scattered_ns, memory_order_relaxed);
	unsigned min = VMEMI_RUN_MIN;

	if (scattered) {
		for (unsigned run = RUN_SHORTEST; run <= VMEMI_RUN_MAX; run *= 2) {
			uint64_t ns = atomic_load_explicit(&c->run_ns[class_of(run)],
							   memory_order_relaxed);

			if (ns && ns * FLUSH_WEIGHT < scattered) {
				min = run;
				break;
			}
		}
	}
	atomic_store_explicit(&c->run_min, min, memory_order_relaxed);
	if (atomic_fetch_add_explicit(&c->decisions, 1, memory_order_relaxed) % TRY_EVERY == 0 &&
	    min > RUN_SHORTEST)
		return min / 2;
	return min;
}

bool vmemi_cost_prefers_moves(const struct vmemi_cost *c, uint64_t victims, uint64_t hot)
{
	uint64_t single = atomic_load_explicit(&c->run_ns[0], memory_order_relaxed);
	uint64_t scattered = atomic_load_explicit(&c->scattered_ns, memory_order_relaxed);

	if (!single)
		single = SINGLE_NS;
	if (!scattered)
		scattered = SCATTERED_NS;
	return victims * single * FLUSH_WEIGHT < victims * scattered + hot * REMAP_NS;
}
