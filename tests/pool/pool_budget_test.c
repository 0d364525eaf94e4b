/* SPDX-License-Identifier: BSD-2-Clause */
/* The budget in segments, the reserve, and what is left for compaction when both are used up. */
#include "pool/pool_tools.h"

#define RAW_IN_SEGMENT 63u /* 262144 / (12 + 4096) */
#define MAX_PAGES (16 * RAW_IN_SEGMENT)

static vmem_pool_handle handles[MAX_PAGES];

/* Saves noise until the budget is used up. Returns how many were saved. */
static uint32_t fill_up(vmem_pool *pool, uint32_t stream)
{
	for (uint32_t i = 0; i < MAX_PAGES; i++) {
		int err = try_save(pool, stream, VMEMT_PAGE_NOISE, i, &handles[i]);

		if (err) {
			cr_assert_eq(err, -VMEM_ENOSPC);
			return i;
		}
	}
	cr_assert_fail("no budget");
	return 0;
}

static vmem_pool *pool_with_budget(uint64_t bytes)
{
	struct vmem_pool_opts opts = { .size = sizeof(opts), .budget_bytes = bytes };

	return pool_open(&opts);
}

Test(pool_budget, small_ones_are_used_up_to_the_last_segment)
{
	for (uint32_t n = 1; n < VMEMI_HOLD_BACK_FROM; n++) {
		vmem_pool *pool = pool_with_budget(n * SEGMENT + SEGMENT / 2);
		uint32_t stream = stream_open(pool);

		cr_assert_eq(fill_up(pool, stream), n * RAW_IN_SEGMENT);
		cr_assert_eq(segments.live_bytes, n * SEGMENT);
		/* What fits beside the others is still taken. */
		for (uint64_t i = 0;
		     i < (SEGMENT - RAW_IN_SEGMENT * footprint(4096)) / footprint(8); i++)
			(void)save(pool, stream, VMEMT_PAGE_ZERO, i);
		cr_assert_eq(try_save(pool, stream, VMEMT_PAGE_ZERO, 0, &handles[0]), -VMEM_ENOSPC);
		pool_close(pool);
	}
}

Test(pool_budget, less_than_a_segment)
{
	vmem_pool *pool = pool_with_budget(SEGMENT - 1);

	cr_assert_eq(try_save(pool, stream_open(pool), VMEMT_PAGE_ZERO, 0, &handles[0]),
		     -VMEM_ENOSPC);
	cr_assert_eq(vmem_pool_work(pool, 1 << 20), 0);
	cr_assert_eq(segments.calls, 0);
	pool_close(pool);
}

Test(pool_budget, is_for_all_streams)
{
	vmem_pool *pool = pool_with_budget(4 * SEGMENT);
	uint32_t one = stream_open(pool), two = stream_open(pool);

	(void)save(pool, one, VMEMT_PAGE_NOISE, 1);
	cr_assert_eq(fill_up(pool, two), 3 * RAW_IN_SEGMENT);
	(void)save(pool, one, VMEMT_PAGE_NOISE, 2);
	pool_close(pool);
}

/* Of a larger budget one segment is held back, and with it compaction makes room out of dead objects
 * until all of the rest is in use again. */
Test(pool_budget, compaction_can_always_begin)
{
	enum { N = 10 };
	vmem_pool *pool = pool_with_budget(N * SEGMENT);
	uint32_t stream = stream_open(pool), saved = fill_up(pool, stream), dropped = 0;

	cr_assert_eq(saved, (N - 1) * RAW_IN_SEGMENT);
	for (uint32_t i = 0; i < saved; i += 3) {
		cr_assert_eq(vmem_pool_drop(pool, handles[i]), 0);
		dropped++;
	}
	while (vmem_pool_work(pool, 10000)) {
		expect_sound(pool);
		cr_assert_leq(segments.live_bytes, N * SEGMENT);
	}
	for (uint32_t i = 0; i < saved; i++)
		if (i % 3)
			expect_page(pool, handles[i], VMEMT_PAGE_NOISE, i);
	for (uint32_t i = 0; i < dropped; i++)
		(void)save(pool, stream, VMEMT_PAGE_NOISE, i);
	cr_assert_leq(segments.live_bytes, N * SEGMENT);
	pool_close(pool);
}

/* That does not depend on saves keeping away from what compaction has begun with. */
Test(pool_budget, saves_leave_compaction_its_segment)
{
	enum { N = 10 };
	vmem_pool *pool = pool_with_budget(N * SEGMENT);
	uint32_t stream = stream_open(pool), saved = fill_up(pool, stream), again = 0;
	struct vmem_pool_stats stats;
	vmem_pool_handle handle;

	for (uint32_t i = 0; i < saved; i += 3)
		cr_assert_eq(vmem_pool_drop(pool, handles[i]), 0);
	do { /* as many saves as there is room for, at each step */
		while (!try_save(pool, stream, VMEMT_PAGE_NOISE, 0, &handle))
			again++;
		expect_sound(pool);
		cr_assert_leq(segments.live_bytes, N * SEGMENT);
	} while (vmem_pool_work(pool, 10000));
	stats = stats_of(pool);
	cr_assert_lt(stats.dead_bytes * 50, stats.live_bytes);
	cr_assert_geq(again + 63 / 2, (saved + 2) / 3, "%u of %u", again, saved / 3);
	for (uint32_t i = 0; i < saved; i++)
		if (i % 3)
			expect_page(pool, handles[i], VMEMT_PAGE_NOISE, i);
	pool_close(pool);
}

/* An open segment keeps its dead objects until they are an eighth of it, or a save finds no room. */
Test(pool_budget, a_refused_save_closes_the_open_segment)
{
	enum { N = 10, DEAD = 7 };
	vmem_pool *pool = pool_with_budget(N * SEGMENT);
	uint32_t stream = stream_open(pool), saved = fill_up(pool, stream);

	for (uint32_t i = saved - DEAD; i < saved; i++)
		cr_assert_eq(vmem_pool_drop(pool, handles[i]), 0);
	cr_assert_eq(vmem_pool_work(pool, 1 << 20), 0);
	cr_assert_eq(stats_of(pool).dead_bytes, DEAD * footprint(VMEM_PAGE_SIZE));
	cr_assert_eq(try_save(pool, stream, VMEMT_PAGE_NOISE, 0, &handles[saved - 1]),
		     -VMEM_ENOSPC);
	while (vmem_pool_work(pool, 1 << 20))
		;
	cr_assert_eq(stats_of(pool).dead_bytes, 0);
	for (uint32_t i = saved - DEAD; i < saved; i++)
		handles[i] = save(pool, stream, VMEMT_PAGE_NOISE, i);
	for (uint32_t i = 0; i < saved; i++)
		expect_page(pool, handles[i], VMEMT_PAGE_NOISE, i);
	cr_assert_leq(segments.live_bytes, N * SEGMENT);
	pool_close(pool);
}

/* Each stream takes a segment at least, of which most may be open. */
Test(pool_budget, open_ends_are_counted)
{
	enum { N = 12 };
	vmem_pool *pool = pool_with_budget(N * SEGMENT);
	struct vmem_pool_stats own = { .size = sizeof(own) };
	uint32_t stream = 0;

	for (uint32_t n = 0; n < N - 1; n++) {
		stream = stream_open(pool);
		(void)save(pool, stream, VMEMT_PAGE_NOISE, n);
	}
	cr_assert_eq(try_save(pool, stream_open(pool), VMEMT_PAGE_NOISE, 0, &handles[0]),
		     -VMEM_ENOSPC);
	cr_assert_eq(vmem_pool_stream_get_stats(pool, stream, &own), 0);
	cr_assert_eq(own.open_bytes, SEGMENT - footprint(VMEM_PAGE_SIZE));
	cr_assert_eq(stats_of(pool).open_bytes, (N - 1) * own.open_bytes);
	(void)save(pool, stream, VMEMT_PAGE_NOISE, 0);
	pool_close(pool);
}

/* Without room for a copy, work() says that there is nothing to do now. */
Test(pool_budget, compaction_without_room_gives_up)
{
	vmem_pool *pool = pool_with_budget(3 * SEGMENT);
	uint32_t stream = stream_open(pool), saved = fill_up(pool, stream);

	for (uint32_t i = 0; i < saved; i += 2)
		cr_assert_eq(vmem_pool_drop(pool, handles[i]), 0);
	cr_assert_eq(vmem_pool_work(pool, 1 << 20), 0);
	expect_sound(pool);
	vmem_pool_set_budget(pool, 4 * SEGMENT);
	while (vmem_pool_work(pool, 1 << 20))
		;
	cr_assert_eq(stats_of(pool).segments, 2);
	pool_close(pool);
}

Test(pool_budget, lowered_and_raised)
{
	vmem_pool *pool = pool_with_budget(0);
	uint32_t stream = stream_open(pool);

	for (uint32_t i = 0; i < 6 * RAW_IN_SEGMENT; i++)
		handles[i] = save(pool, stream, VMEMT_PAGE_NOISE, i);
	(void)vmem_pool_work(pool, 0);
	cr_assert_eq(segments.live_bytes, 8 * SEGMENT); /* 2 in the reserve */
	vmem_pool_set_budget(pool, 3 * SEGMENT);
	(void)vmem_pool_work(pool, 0);
	cr_assert_eq(segments.live_bytes, 6 * SEGMENT);
	cr_assert_eq(try_save(pool, stream, VMEMT_PAGE_NOISE, 0, &handles[MAX_PAGES - 1]),
		     -VMEM_ENOSPC);
	for (uint32_t i = 0; i < 4 * RAW_IN_SEGMENT; i++)
		cr_assert_eq(vmem_pool_drop(pool, handles[i]), 0);
	(void)vmem_pool_work(pool,
			     0); /* drops may serve faults: they give nothing back themselves */
	cr_assert_eq(segments.live_bytes, 3 * SEGMENT);
	for (uint32_t i = 0; i < RAW_IN_SEGMENT; i++)
		handles[i] = save(pool, stream, VMEMT_PAGE_NOISE, i);
	cr_assert_eq(try_save(pool, stream, VMEMT_PAGE_NOISE, 0, &handles[MAX_PAGES - 1]),
		     -VMEM_ENOSPC);
	vmem_pool_set_budget(pool, 0);
	handles[0] = save(pool, stream, VMEMT_PAGE_NOISE, 0);
	pool_close(pool);
}

Test(pool_budget, a_stream_that_goes_gives_its_memory_back)
{
	vmem_pool *pool = pool_with_budget(0);
	uint32_t stream = stream_open(pool);

	for (uint32_t i = 0; i < 6 * RAW_IN_SEGMENT; i++)
		(void)save(pool, stream, VMEMT_PAGE_NOISE, i);
	cr_assert_eq(vmem_pool_stream_drop(pool, stream), 0);
	cr_assert_eq(segments.live_bytes, 2 * SEGMENT); /* the reserve */
	pool_close(pool);
}

/* What work() has put aside, saves take without the allocator. */
Test(pool_budget, reserve_spares_saves_the_allocator)
{
	struct vmem_pool_opts opts = { .size = sizeof(opts), .reserve_segments = 3 };
	vmem_pool *pool = pool_open(&opts);
	uint32_t stream = stream_open(pool);

	cr_assert_eq(segments.calls, 0);
	(void)vmem_pool_work(pool, 0);
	cr_assert_eq(segments.calls, 3);
	cr_assert_eq(stats_of(pool).segment_bytes, 3 * SEGMENT);
	cr_assert_eq(stats_of(pool).segments, 0);
	for (uint32_t i = 0; i < 3 * RAW_IN_SEGMENT; i++)
		(void)save(pool, stream, VMEMT_PAGE_NOISE, i);
	cr_assert_eq(segments.calls, 3);
	segments.fail_after = 3;
	cr_assert_eq(try_save(pool, stream, VMEMT_PAGE_NOISE, 0, &handles[0]), -VMEM_ENOMEM);
	(void)save(pool, stream, VMEMT_PAGE_NOISE, 0);
	(void)vmem_pool_work(pool, 0);
	cr_assert_eq(segments.live_bytes, 7 * SEGMENT);
	pool_close(pool);
}

/* Neither for segments nor for handles. */
Test(pool_budget, saves_need_no_allocator_beside_work)
{
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool);
	vmem_pool_handle handle;

	for (uint32_t turn = 0; turn < 40; turn++) {
		long calls;

		(void)vmem_pool_work(pool, 0);
		calls = heap.calls + segments.calls;
		for (uint32_t i = 0; i < 1000; i++)
			cr_assert_eq(vmem_pool_save_bytes(pool, stream, &i, sizeof(i), &handle), 0);
		cr_assert_eq(heap.calls + segments.calls, calls);
	}
	pool_close(pool);
}

static uint64_t logged[8][3];
static unsigned logged_count;

static void keep_log(void *context, enum vmem_log_code code, uint64_t a, uint64_t b)
{
	(void)context;
	cr_assert_lt(logged_count, 8);
	logged[logged_count][0] = code;
	logged[logged_count][1] = a;
	logged[logged_count++][2] = b;
}

Test(pool_budget, refused_saves_are_logged_by_work)
{
	struct vmem_env env = *vmemi_env_default();
	struct vmem_pool_opts opts = { .size = sizeof(opts),
				       .env = &env,
				       .budget_bytes = 2 * SEGMENT + 5 };
	vmem_pool *pool;

	env.log = keep_log;
	pool = pool_open(&opts);
	(void)fill_up(pool, stream_open(pool));
	(void)fill_up(pool, stream_open(pool));
	cr_assert_eq(logged_count, 0);
	(void)vmem_pool_work(pool, 0);
	(void)vmem_pool_work(pool, 0);
	cr_assert_eq(logged_count, 1);
	cr_assert_eq(logged[0][0], VMEM_LOG_BUDGET_EXCEEDED);
	cr_assert_eq(logged[0][1], 2 * SEGMENT);
	cr_assert_eq(logged[0][2], 2 * SEGMENT + 5);
	pool_close(pool);
}
