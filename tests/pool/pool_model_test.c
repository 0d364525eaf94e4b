/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations on a pool and on its model. */
#include <criterion/criterion.h>
#include "pool/pool_model.h"

enum { BLOCKS = 60, STEPS = 500 };

static struct vmemt_pool_model model;

static void run(uint64_t budget_segments)
{
	uint64_t state = vmemt_seed("pool_model") + budget_segments, compactions = 0;
	struct vmem_pool_stats stats = { .size = sizeof(stats) };

	vmemt_pool_model_init(&model, budget_segments);
	for (uint64_t n = 0; n < VMEMT_MODEL_STREAMS; n++)
		vmemt_pool_model_step(&model, 14, n << 12);
	for (int block = 0; block < BLOCKS; block++) {
		/* Now growing, now shrinking. */
		uint8_t shift = block / 10 % 2 ? 5 : 0;

		for (int step = 0; step < STEPS; step++) {
			uint8_t operation = (uint8_t)(vmemt_rand(&state) % 16);

			if (operation < 5)
				operation = (uint8_t)(operation + shift);
			vmemt_pool_model_step(&model, operation, vmemt_rand(&state));
		}
		vmemt_pool_model_check(&model);
	}
	cr_assert_eq(vmem_pool_get_stats(model.pool, &stats), 0);
	compactions = stats.compactions;
	cr_assert_gt(compactions, 0); /* else the run has shown little */
	cr_assert_eq(model.refused > 0, budget_segments > 0);
	vmemt_pool_model_destroy(&model);
}

Test(pool_model, no_budget)
{
	run(0);
}

Test(pool_model, budget)
{
	run(12);
}
