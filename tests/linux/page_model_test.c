/* SPDX-License-Identifier: BSD-2-Clause */
/* All programs of page_world.h at once, in random order, millions of steps: see there.
 * page_explore_test.c takes fewer programs at a time through all orders of their steps. */
#include "linux/page_world.h"
#include "support/rng.h"
#include <criterion/criterion.h>

/* What the kernel refuses, and what is lost, is seldom. */
static unsigned choose(void *context, unsigned n, bool rare)
{
	uint64_t *rng = context, dice = vmemt_rand(rng);

	return (unsigned)(rare && dice % 8 ? 0 : dice / 8 % n);
}

/* A device that nobody has announced, and taking by copy, exclude each other; and so do stray discards and all
 * that relies on what is in place, and such a device and a page that the guest says is free. */
static uint32_t programs_of(uint64_t seed)
{
	uint32_t all = (UINT32_C(1) << VMEMT_PROGRAMS) - 1;

	all &= ~(UINT32_C(1) << VMEMT_STRAY);
	if (seed % 2)
		return all & ~(UINT32_C(1) << VMEMT_DEVICE);
	return all & ~(UINT32_C(1) << VMEMT_TAKE_SCATTERED | UINT32_C(1) << VMEMT_HINTER);
}

static void run(uint64_t seed, unsigned steps)
{
	uint64_t rng = seed;
	struct vmemt_run r = {
		.may = VMEMT_MAY_ALL & ~(seed % 8 < 2 ? VMEMT_MAY_POISON : 0),
		.programs = programs_of(seed),
		.choose = choose,
		.context = &rng,
	};

	vmemt_world_make(&r);
	for (unsigned i = 0; i < steps; i++) {
		enum vmemt_program program = vmemt_rand(&rng) % VMEMT_PROGRAMS;

		vmemt_world_step(&r, program);
		cr_assert(!r.failure, "%s: %s, the page's word is %04x",
			  vmemt_program_name(program), r.failure, r.w.word);
		vmemt_world_normalize(&r); /* versions are small numbers */
	}
}

Test(page_model, any_order_of_steps_keeps_every_version)
{
	uint64_t seed = vmemt_seed("page_model");

	for (unsigned i = 0; i < 2000; i++)
		run(seed + i, 2000);
}
