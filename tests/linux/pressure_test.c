/* SPDX-License-Identifier: BSD-2-Clause */
/* The time that a region's users are blocked, and its averages, with times that are given. */
#include "linux/region/pressure.h"
#include <criterion/criterion.h>
#include <string.h>

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

static struct vmemi_pressure p;
static uint64_t now; /* a multiple of 64 */

static void start(uint64_t ns)
{
	memset(&p, 0, sizeof(p));
	now = ns;
	vmemi_pressure_tick(&p, now);
}

static uint64_t some(void)
{
	return vmemi_pressure_some(&p, now);
}

/* Blocked for @part_ms of each 100 ms. */
static void live(uint64_t seconds, uint64_t part_ms)
{
	for (uint64_t i = 0; i < seconds * 10; i++) {
		vmemi_pressure_begin(&p, now);
		vmemi_pressure_end(&p, now, now + part_ms * MS);
		now += 100 * MS;
		vmemi_pressure_tick(&p, now);
	}
}

static void assert_near(uint64_t value, uint64_t want, uint64_t off)
{
	cr_assert(value + off >= want && value <= want + off, "%lu is not %lu", value, want);
}

Test(pressure, one_after_the_other)
{
	start(SECOND);
	live(1, 10);
	cr_assert_eq(some(), 100 * MS);
	cr_assert_eq(p.blocked_ns, 100 * MS);
	vmemi_pressure_add(&p, 5 * MS);
	cr_assert_eq(some(), 105 * MS);
	cr_assert_eq(p.blocked_ns, 105 * MS);
}

Test(pressure, two_at_once_are_one_interval)
{
	start(0);
	vmemi_pressure_begin(&p, 64 * 100);
	vmemi_pressure_begin(&p, 64 * 150);
	vmemi_pressure_end(&p, 64 * 100, 64 * 300);
	now = 64 * 350;
	cr_assert_eq(some(), 64 * 250); /* it goes on */
	vmemi_pressure_end(&p, 64 * 150, 64 * 400);
	now = 64 * 900;
	cr_assert_eq(some(), 64 * 300);
	cr_assert_eq(p.blocked_ns, 64 * 450);
	vmemi_pressure_begin(&p, now);
	vmemi_pressure_end(&p, now, now + 64);
	now += 6400;
	cr_assert_eq(some(), 64 * 301);
}

/* Threads that look at the clock one after the other may come in another order. */
Test(pressure, time_does_not_go_back)
{
	start(0);
	vmemi_pressure_begin(&p, 64 * 200);
	vmemi_pressure_begin(&p, 64 * 190);
	now = 64 * 195;
	cr_assert_eq(some(), 0);
	vmemi_pressure_end(&p, 64 * 190, 64 * 260);
	vmemi_pressure_end(&p, 64 * 200, 64 * 250);
	now = 64 * 300;
	cr_assert_eq(some(), 64 * 60);
	/* Nor does the end of one interval reach into the next. */
	vmemi_pressure_begin(&p, 64 * 255);
	vmemi_pressure_end(&p, 64 * 255, 64 * 265);
	cr_assert_eq(some(), 64 * 70);
}

Test(pressure, the_time_in_the_word_comes_round)
{
	start((UINT64_C(1) << 54) - SECOND);
	vmemi_pressure_begin(&p, now);
	now += 3 * SECOND;
	cr_assert_eq(some(), 3 * SECOND);
	vmemi_pressure_end(&p, now - 3 * SECOND, now);
	cr_assert_eq(some(), 3 * SECOND);
	live(1, 10);
	cr_assert_eq(some(), 3 * SECOND + 100 * MS);
}

Test(pressure, averages_come_near_the_share_and_fade)
{
	start(SECOND);
	live(10, 25);
	assert_near(vmemi_pressure_avg(&p.avg10), 158000, 2000); /* 1 - 1/e of 250000 */
	assert_near(vmemi_pressure_avg(&p.avg60), 38400, 1000);  /* 1 - e^(-1/6) */
	live(600, 25);
	assert_near(vmemi_pressure_avg(&p.avg10), 250000, 500);
	assert_near(vmemi_pressure_avg(&p.avg60), 250000, 500);
	live(10, 0);
	assert_near(vmemi_pressure_avg(&p.avg10), 92000, 1500); /* 1/e */
	assert_near(vmemi_pressure_avg(&p.avg60), 211600, 2000);
	now += 100000 * SECOND;
	vmemi_pressure_tick(&p, now);
	cr_assert_leq(vmemi_pressure_avg(&p.avg10), 10);
	cr_assert_leq(vmemi_pressure_avg(&p.avg60), 10);
}

/* Whoever looks seldom sees the same. */
Test(pressure, a_long_time_counts_as_many_periods)
{
	start(SECOND);
	for (unsigned i = 0; i < 10; i++) {
		vmemi_pressure_begin(&p, now);
		vmemi_pressure_end(&p, now, now + 5 * SECOND);
		now += 20 * SECOND;
		vmemi_pressure_tick(&p, now);
	}
	assert_near(vmemi_pressure_avg(&p.avg10), 250000, 1000);
	assert_near(vmemi_pressure_avg(&p.avg60), 241000, 2000);
}

/* What is open counts, and more than all there is none. */
Test(pressure, all_the_time)
{
	start(SECOND);
	vmemi_pressure_begin(&p, now);
	for (unsigned i = 0; i < 600; i++, now += SECOND)
		vmemi_pressure_tick(&p, now);
	vmemi_pressure_add(&p, 100 * SECOND);
	vmemi_pressure_tick(&p, now);
	assert_near(vmemi_pressure_avg(&p.avg10), 1000000, 100);
	assert_near(vmemi_pressure_avg(&p.avg60), 1000000, 200);
	cr_assert_leq(vmemi_pressure_avg(&p.avg60), 1000000);
}
