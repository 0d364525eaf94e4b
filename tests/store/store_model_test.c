/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations on a store and on a naive model of it. */
#include <criterion/criterion.h>
#include "store/store_model.h"

static struct vmemt_store_model model;

/* Operations at random; in every other phase, most of those that drop save instead. */
static uint32_t random_op(int step, uint64_t *state)
{
	uint32_t op = (uint32_t)vmemt_rand(state) % 32;
	int drops = op == 13 || op >= 27;

	return drops && step / 10000 % 2 == 0 && vmemt_rand(state) % 8 ? 10 : op;
}

static void run(const char *name, const struct vmem_store_opts *opts, int steps)
{
	struct vmem_pool_stats stats = { .size = sizeof(stats) };
	uint64_t state = vmemt_seed(name);

	vmemt_store_model_init(&model, opts);
	for (int i = 0; i < steps; i++) {
		uint32_t op = random_op(i, &state);

		vmemt_store_model_step(&model, op, vmemt_rand(&state));
		if (i % 500 == 0)
			vmemt_store_model_check(&model);
	}
	cr_assert_eq(vmem_pool_get_stats(model.store->pool, &stats), 0);
	cr_assert_gt(stats.compactions, 0);
	cr_assert_gt(model.refused, 0);
	cr_assert_gt(model.slow, 0);
	cr_assert_gt(model.reused, 0);
	cr_assert_gt(model.equal, 0);
	cr_assert(model.dropped_beside || model.equal < 100, "few VMs share");
	vmemt_store_model_destroy(&model);
}

Test(store_model, defaults)
{
	run("store_model.defaults", NULL, 200000);
}

Test(store_model, large_objects_refused)
{
	struct vmem_store_opts opts = { .size = sizeof(opts), .max_object_bytes = 3000 };

	run("store_model.large_objects_refused", &opts, 200000);
}

Test(store_model, no_locks)
{
	const struct vmem_env no_locks = { .size = sizeof(no_locks) };
	struct vmem_store_opts opts = { .size = sizeof(opts), .env = &no_locks };

	run("store_model.no_locks", &opts, 50000);
}

/* Objects change their form all the time. */
Test(store_model, encoded_anew)
{
	const struct vmem_codec *codecs[] = { vmem_codec_lz4(), vmem_codec_zstd(1),
					      vmem_codec_delta(1) };
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.codecs = codecs,
					.codec_count = 3,
					.parallel = 2,
					.cold_after_ms = 1 };

	run("store_model.encoded_anew", &opts, 200000);
	cr_assert_gt(model.deltas_seen, 0);
}
