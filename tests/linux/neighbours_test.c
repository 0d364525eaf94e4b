/* SPDX-License-Identifier: BSD-2-Clause */
/* What is brought beside faults, over a simulated memory: how many faults are left, and how much is brought
 * that nobody touches. */
#include "linux/region/neighbours.h"
#include <criterion/criterion.h>
#include <string.h>
#include "base/alloc.h"
#include "support/rng.h"

#define PAGES 65536u
#define MOST 16u
#define ROUND 4096u /* touches of a stream */

static struct vmemi_neighbours all;
static struct vmem_allocator allocator;
static struct vmemi_arrays arrays;
static uint8_t here[PAGES];     /* 1: touched, 2: brought */
static uint32_t queue[PAGES];   /* what came, in order */
static uint64_t came, capacity; /* pages that stay; 0: all */
static uint64_t faults, brought;

static void forget(void)
{
	memset(here, 0, sizeof(here));
	came = faults = brought = 0;
}

static void start(uint64_t stay)
{
	forget();
	capacity = stay;
	memset(&all, 0, sizeof(all));
	cr_assert_eq(vmemi_alloc_take(&allocator, NULL), 0);
	vmemi_arrays_init(&arrays, &allocator, PAGES);
	cr_assert_eq(vmemi_neighbours_init(&all, &arrays, PAGES, MOST), 0);
}

static void stop(void)
{
	vmemi_neighbours_destroy(&all, &arrays);
}

static void arrive(uint64_t page, uint8_t how)
{
	if (capacity && came >= capacity)
		here[queue[(came - capacity) % PAGES]] = 0;
	queue[came++ % PAGES] = (uint32_t)page;
	here[page] = how;
}

static void bring(const struct vmemi_neighbours_plan *plan)
{
	cr_assert(plan->count > 0 && plan->count <= MOST);
	for (uint64_t i = 0; i < plan->count; i++) {
		uint64_t page = plan->first + (uint64_t)plan->stride * i;

		cr_assert_lt(page, PAGES);
		if (here[page])
			continue;
		if (page == plan->left_out) {
			vmemi_neighbours_leave_out(&all, plan);
			continue;
		}
		brought++;
		arrive(page, 2);
	}
}

static void touch(uint64_t page)
{
	struct vmemi_neighbours_plan plan;

	if (here[page]) {
		here[page] = 1;
		return;
	}
	faults++;
	arrive(page, 1);
	if (vmemi_neighbours_fault(&all, page, &plan))
		bring(&plan);
}

static uint64_t untouched(void)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < PAGES; i++)
		n += here[i] == 2;
	return n;
}

Test(neighbours, a_stream_faults_once_a_window_and_brings_nothing_else)
{
	static const int strides[] = { 1, -1, 3, -3, 5, 7, 11, 15, -15 };

	for (unsigned s = 0; s < sizeof(strides) / sizeof(*strides); s++) {
		uint64_t page = strides[s] > 0 ? 0 : PAGES - 1;

		start(0);
		for (unsigned i = 0; i < ROUND; i++, page += (uint64_t)(int64_t)strides[s])
			touch(page);
		cr_assert_leq(faults, ROUND / 8, "stride %d: %u faults", strides[s],
			      (unsigned)faults);
		cr_assert_leq(untouched(), 4 * MOST, "stride %d", strides[s]);
		stop();
	}
}

Test(neighbours, wide_strides)
{
	static const int strides[] = { 16, -64, 100, 1000, -1024, 4096 };

	for (unsigned s = 0; s < sizeof(strides) / sizeof(*strides); s++) {
		uint64_t touches = 0;

		start(0);
		for (uint64_t lane = 0; lane < 4; lane++) {
			int64_t page =
				(int64_t)(strides[s] > 0 ? lane * 37 : PAGES - 1 - lane * 37);

			for (; page >= 0 && page < (int64_t)PAGES; page += strides[s], touches++)
				touch((uint64_t)page);
		}
		/* To begin with each lane has three faults, and windows grow from two. */
		cr_assert_leq(faults, touches / 4 + 4 * 6, "stride %d: %u faults of %u", strides[s],
			      (unsigned)faults, (unsigned)touches);
		stop();
	}
}

Test(neighbours, streams_that_take_turns_and_random_faults_between)
{
	uint64_t seed = vmemt_seed("neighbours"), at[4] = { 0, 20000, 50000, 30000 }, random = 0;
	const int64_t by[4] = { 1, 5, -7, 3 };

	start(0);
	for (unsigned i = 0; i < 2048; i++) {
		uint64_t before;

		for (unsigned k = 0; k < 4; k++, at[k - 1] += (uint64_t)by[k - 1])
			touch(at[k]);
		before = faults;
		if (i % 4 == 0)
			touch(vmemt_rand(&seed) % PAGES);
		random += faults - before;
	}
	cr_assert_leq(faults - random, 4 * 2048 / 6, "%u faults", (unsigned)(faults - random));
	cr_assert_leq(untouched(), 8 * MOST + random, "%u", (unsigned)untouched());
	stop();
}

Test(neighbours, random_access_brings_next_to_nothing)
{
	uint64_t seed = vmemt_seed("neighbours");

	start(PAGES / 2);
	for (unsigned i = 0; i < 8 * PAGES; i++)
		touch(vmemt_rand(&seed) % PAGES);
	cr_assert_leq(brought, faults / 20, "%u brought beside %u faults", (unsigned)brought,
		      (unsigned)faults);
	stop();
}

/* Some pages near each other, and then never more. Returns what was brought for 100 faults. @unasked: as if
 * it had always paid. */
static uint64_t clusters(uint64_t *seed, unsigned count, bool unasked)
{
	forget();
	for (unsigned i = 0; i < count; i++) {
		uint64_t at = vmemt_rand(seed) % (PAGES / 64) * 64;

		for (unsigned kind = 0; unasked && kind < VMEMI_NEIGHBOURS_KINDS; kind++)
			atomic_store(&all.score[kind], 255);
		for (unsigned k = 0; k < 6; k++)
			touch(at + vmemt_rand(seed) % 64);
	}
	return brought * 100 / faults;
}

Test(neighbours, what_does_not_pay_ends_and_begins_again_when_it_does)
{
	uint64_t seed = vmemt_seed("neighbours"), asked, unasked;

	start(PAGES / 64);
	clusters(&seed, 20000, false);
	asked = clusters(&seed, 20000, false);
	unasked = clusters(&seed, 20000, true);
	cr_assert_leq(asked * 2, unasked, "%u, and %u unasked", (unsigned)asked, (unsigned)unasked);

	clusters(&seed, 20000, false);
	forget();
	for (unsigned i = 0; i < PAGES; i++)
		touch(i);
	cr_assert_leq(faults, PAGES / 4, "%u", (unsigned)faults);
	forget();
	for (unsigned i = 0; i < PAGES; i++)
		touch(i);
	cr_assert_leq(faults, PAGES / 12, "%u", (unsigned)faults);
	stop();
}

/* A guest that lives in a part of its memory, at random there, and moves on to another. */
static uint64_t moves(uint64_t seed, bool dense)
{
	const uint64_t hot = PAGES * 3 / 10;
	uint64_t total = 0;

	start(PAGES / 2);
	for (unsigned round = 0; round < 24; round++) {
		uint64_t first = vmemt_rand(&seed) % (PAGES - hot);

		faults = 0;
		for (unsigned i = 0; i < 300000; i++) {
			if (!dense)
				atomic_store(&all.score[VMEMI_NEIGHBOURS_DENSE], 0);
			touch(vmemt_rand(&seed) % 1000 ? first + vmemt_rand(&seed) % hot
						       : vmemt_rand(&seed) % PAGES);
		}
		total += faults;
	}
	stop();
	return total;
}

Test(neighbours, a_hot_part_that_moves_comes_by_blocks)
{
	uint64_t seed = vmemt_seed("neighbours"), with = moves(seed, true),
		 without = moves(seed, false);

	cr_assert_leq(with * 10, without * 7, "%u against %u", (unsigned)with, (unsigned)without);
}

Test(neighbours, pages_at_the_ends_of_memory)
{
	uint64_t seed = vmemt_seed("neighbours");

	for (uint64_t pages = 1; pages < 200; pages++) {
		struct vmemi_neighbours_plan plan;

		memset(&all, 0, sizeof(all));
		cr_assert_eq(vmemi_alloc_take(&allocator, NULL), 0);
		vmemi_arrays_init(&arrays, &allocator, pages);
		cr_assert_eq(vmemi_neighbours_init(&all, &arrays, pages, 64), 0);
		for (unsigned i = 0; i < 500; i++) {
			if (!vmemi_neighbours_fault(&all, vmemt_rand(&seed) % pages, &plan))
				continue;
			cr_assert(plan.count > 0 && plan.count <= 64);
			cr_assert_lt(plan.first, pages);
			cr_assert_lt(plan.first + (uint64_t)plan.stride * (plan.count - 1), pages);
		}
		stop();
	}
}
