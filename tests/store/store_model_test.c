/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations on a store and on a naive model of it. */
#include <criterion/criterion.h>
#include "store/store_model.h"
#include "support/slow.h"

static struct vmemt_store_model model;

/* Operations at random; in every other phase, most of those that drop save instead. */
static uint32_t random_op(int step, uint64_t *state)
{
	uint32_t op = (uint32_t)vmemt_rand(state) % 32;
	int drops = op == 13 || op >= 27;

	return drops && step / 10000 % 2 == 0 && vmemt_rand(state) % 8 ? 10 : op;
}

static void run_with(const char *name, const struct vmem_store_opts *opts, int steps,
		     uint32_t hash_bits)
{
	struct vmem_pool_stats stats = { .size = sizeof(stats) };
	uint64_t state = vmemt_seed(name);

	vmemt_store_model_init(&model, opts);
	model.hidden_bits = 32 - hash_bits;
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
	cr_assert(hash_bits == 32 || model.collisions);
}

static void run(const char *name, const struct vmem_store_opts *opts, int steps)
{
	run_with(name, opts, steps, 32);
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

/* Most pages have the hash of others in their domain: only their bytes tell them apart. */
Test(store_model, some_hashes_collide)
{
	run_with("store_model.some_hashes_collide", NULL, 100000, 5);
}

Test(store_model, most_hashes_collide)
{
	run_with("store_model.most_hashes_collide", NULL, 50000, 2);
}

/* The table has no room for all of them: there are objects that it does not know. */
Test(store_model, all_hashes_collide)
{
	run_with("store_model.all_hashes_collide", NULL, 50000, 0);
}

/* Objects change their form all the time. */
static void run_anew(const char *name, int steps, uint32_t hash_bits)
{
	const struct vmem_codec *codecs[] = { vmem_codec_lz4(), vmem_codec_zstd(1),
					      vmem_codec_delta(1) };
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.codecs = codecs,
					.codec_count = 3,
					.parallel = 2,
					.cold_after_ms = 1 };

	run_with(name, &opts, steps, hash_bits);
	cr_assert_gt(model.deltas_seen, 500);
}

Test(store_model, encoded_anew)
{
	run_anew("store_model.encoded_anew", VMEMT_SLOW ? 200000 : 3000000, 32);
}

Test(store_model, encoded_anew_with_colliding_hashes)
{
	run_anew("store_model.encoded_anew_with_colliding_hashes", 100000, 2);
}
