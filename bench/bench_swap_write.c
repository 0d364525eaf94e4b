/* SPDX-License-Identifier: BSD-2-Clause */
/* bench-swap, writing segments out.
 * ours   vmem_store_write_out() and vmem_store_work() until the segments are out and their memory is free
 * peer   as many bytes by bare io_uring, in writes of 256 KiB, as many in flight
 * The two take turns every PIECE_SEGMENTS segments. Saving is not measured.
 * sparse: a random half of the pages has been dropped before, so that only live objects are written. */
#include "bench_swap.h"
#include "machine.h"
#include "../examples/common/split_random.h"
#include <errno.h>

#define PIECE_SEGMENTS 32u
#define ROUND_BYTES ((uint64_t)192 << 20)

struct write_case {
	struct swap_bench *swap;
	int is_sparse;
	uint64_t round_bytes;
	uint64_t left;         /* bytes of segments that are not out yet */
	struct swap_cost bare; /* of this round */
};

static int drop_half(struct swap_bench *s)
{
	uint64_t seed = 11;
	int result = 0;

	for (size_t guest = 0, at = 0; guest < s->guests.guests; guest++)
		for (size_t i = 0; i < s->guests.count[guest] && result == 0; i++, at++)
			if (random_next(&seed) & 1)
				result = vmem_store_drop(s->store.store, s->store.vm[guest],
							 s->refs[at]);
	return result;
}

static int fill(struct write_case *c)
{
	const struct swap_form form = { .flags = VMEM_STORE_AS_SAVED,
					.sharing = VMEM_STORE_SHARE_VM };
	struct vmem_store_account account = { .size = sizeof(account) };
	int result = swap_fill(c->swap, &form);

	if (result == 0 && c->is_sparse)
		result = drop_half(c->swap);
	if (result == 0)
		result = vmem_store_total_account(c->swap->store.store, &account);
	c->left = account.physical_bytes;
	return result;
}

static void give(const struct swap_cost *cost, double *values)
{
	values[0] = (double)cost->bytes * 1e9 / (double)cost->ns;
	values[1] = (double)cost->cpu_ns / 1e3 / ((double)cost->bytes / (1 << 20));
}

/* One round: pieces of ours and of the bare side in turn. A store with too little left for it is filled anew. */
static int measure_ours(void *context, double *values)
{
	struct write_case *c = context;
	struct swap_cost ours = { .bytes = 0 };
	int result = c->left < c->round_bytes ? fill(c) : 0;

	c->bare = (struct swap_cost){ .bytes = 0 };
	while (ours.bytes < c->round_bytes && result == 0) {
		const uint64_t before = ours.bytes;

		result = swap_write_out(c->swap, PIECE_SEGMENTS, &ours);
		if (result == 0 && ours.bytes == before)
			break; /* all are out */
		if (result == 0)
			result = swap_write_bare(c->swap, ours.bytes - before, &c->bare);
	}
	c->left = c->left > ours.bytes ? c->left - ours.bytes : 0;
	give(&ours, values);
	return ours.bytes ? result : -ENODATA;
}

static int measure_bare(void *context, double *values)
{
	struct write_case *c = context;

	give(&c->bare, values);
	return 0;
}

static int compare(struct swap_bench *s, const char *condition, int is_sparse)
{
	const struct bench_metric metrics[] = {
		{ "writeback_bytes_per_s", "B/s", condition, 1 },
		{ "writeback_cpu_us_per_mib", "us", condition, 0 },
	};
	struct write_case c = {
		.swap = s,
		.is_sparse = is_sparse,
		.round_bytes = bench_quick(s->bench) ? ROUND_BYTES / 4 : ROUND_BYTES,
	};
	const struct bench_comparison comparison = {
		.metrics = metrics,
		.metric_count = 2,
		.context = &c,
		.ours = { "libvmem", measure_ours, NULL },
		.peer = { "bare-io_uring", measure_bare, NULL },
	};

	return bench_compare(s->bench, &comparison);
}

int swap_compare_write(struct swap_bench *s)
{
	int result = compare(s, "full", 0);

	return result == 0 ? compare(s, "sparse", 1) : result;
}
