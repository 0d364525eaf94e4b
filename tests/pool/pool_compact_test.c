/* SPDX-License-Identifier: BSD-2-Clause */
/* Compaction: what is lost after it and during churn, in exact numbers; which segment it takes, where
 * it puts things, how much it does in a call. Objects are bytes of random lengths, so that the numbers
 * do not depend on a codec. */
#include "pool/pool_tools.h"

#define MAX_OBJECTS 65536u

static struct {
	vmem_pool_handle handle;
	uint32_t bytes;
} objects[MAX_OBJECTS];

/* Lengths as compressed pages have them, now and then a whole page. */
static uint32_t random_length(uint64_t *state)
{
	uint64_t r = vmemt_rand(state);

	return r % 16 == 0 ? VMEM_PAGE_SIZE : (uint32_t)(200 + (r >> 8) % 2800);
}

static void save_object(vmem_pool *pool, uint32_t stream, uint32_t i, uint32_t bytes)
{
	unsigned char data[VMEM_PAGE_SIZE];

	memset(data, (int)(i % 251), bytes);
	memcpy(data, &i, sizeof(i));
	objects[i].bytes = bytes;
	cr_assert_eq(vmem_pool_save_bytes(pool, stream, data, bytes, &objects[i].handle), 0);
}

static void expect_object(vmem_pool *pool, uint32_t i)
{
	unsigned char data[VMEM_PAGE_SIZE];
	uint32_t bytes, number;

	cr_assert_eq(vmem_pool_load_bytes(pool, objects[i].handle, data, sizeof(data), &bytes), 0);
	cr_assert_eq(bytes, objects[i].bytes);
	memcpy(&number, data, sizeof(number));
	cr_assert_eq(number, i);
	for (uint32_t k = sizeof(number); k < bytes; k++)
		cr_assert_eq(data[k], i % 251);
}

static void drop_object(vmem_pool *pool, uint32_t i)
{
	cr_assert_eq(vmem_pool_drop(pool, objects[i].handle), 0);
	objects[i].handle = 0;
}

static uint32_t segment_of(vmem_pool *pool, uint32_t i)
{
	return vmemi_entry_segment(atomic_load(vmemi_index_at(pool, (uint32_t)objects[i].handle)));
}

/* Bytes that hold nothing and will not: of grain, tails and dead objects. */
static uint64_t lost_bytes(vmem_pool *pool)
{
	struct vmem_pool_stats stats = stats_of(pool);
	uint64_t lost = stats.live_bytes - stats.payload_bytes - stats.objects * HEADER;

	for (uint32_t id = 0; id < atomic_load(&pool->stream_count); id++)
		lost += vmemi_stream_at(pool, id)->lost * VMEMI_GRAIN_BYTES;
	return lost;
}

static double lost_percent(vmem_pool *pool)
{
	return 100.0 * (double)lost_bytes(pool) / (double)stats_of(pool).live_bytes;
}

/* However much was dropped: all that is lost afterwards is at most 2 % of what is stored. */
Test(pool_compact, leaves_two_percent)
{
	enum { COUNT = 40000 };
	static const struct {
		unsigned dropped_percent;
		uint64_t moved; /* bytes */
		uint64_t lost;
	} cases[] = {
		{ 1, 0, 1061137 },        { 3, 26169864, 1259250 }, { 10, 50663328, 1179401 },
		{ 50, 34810476, 589338 }, { 90, 7201080, 37257 },
	};

	for (size_t n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		vmem_pool *pool = pool_open(NULL);
		uint32_t stream = stream_open(pool);
		uint64_t state = n + 1;

		for (uint32_t i = 0; i < COUNT; i++)
			save_object(pool, stream, i, random_length(&state));
		for (uint32_t i = 0; i < COUNT; i++)
			if (vmemt_rand(&state) % 100 < cases[n].dropped_percent)
				drop_object(pool, i);
		while (vmem_pool_work(pool, 1 << 20))
			;
		expect_sound(pool);
		cr_assert_eq(stats_of(pool).moved_bytes, cases[n].moved, "%u %%: %" PRIu64,
			     cases[n].dropped_percent, stats_of(pool).moved_bytes);
		cr_assert_eq(lost_bytes(pool), cases[n].lost, "%u %%: %" PRIu64,
			     cases[n].dropped_percent, lost_bytes(pool));
		cr_assert_leq(lost_percent(pool), 2.0);
		for (uint32_t i = 0; i < COUNT; i++)
			if (objects[i].handle)
				expect_object(pool, i);
		pool_close(pool);
	}
}

/* Objects come and go at random, and work() may move six times as many bytes as come in: never more
 * than 10 % are lost. */
Test(pool_compact, keeps_up_with_churn)
{
	enum { COUNT = 20000, TURNS = 100000, SHARE = 6 };
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool);
	double worst = 0;
	uint64_t state = 1, budget = 0;

	for (uint32_t i = 0; i < COUNT; i++)
		save_object(pool, stream, i, random_length(&state));
	for (uint32_t turn = 0; turn < TURNS; turn++) {
		uint32_t i = (uint32_t)(vmemt_rand(&state) % COUNT);

		drop_object(pool, i);
		save_object(pool, stream, i, random_length(&state));
		budget += SHARE * footprint(objects[i].bytes);
		if (stats_of(pool).moved_bytes < budget)
			(void)vmem_pool_work(pool, budget - stats_of(pool).moved_bytes);
		if (turn % 100 == 0 && lost_percent(pool) > worst)
			worst = lost_percent(pool);
	}
	expect_sound(pool);
	cr_assert_leq(worst, 10.0, "%f", worst);
	cr_assert_eq(lost_bytes(pool), 2838165u, "%" PRIu64, lost_bytes(pool));
	for (uint32_t i = 0; i < COUNT; i++)
		expect_object(pool, i);
	pool_close(pool);
}

/* Each call moves about what it may, one object more at the most, and every object is whole after it. */
Test(pool_compact, is_bounded_by_its_argument)
{
	enum { COUNT = 2000 };
	static const uint64_t limits[] = { 1, 100, 5000, 32768, 100000 };
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool), calls = 0;
	uint64_t state = 7;

	for (uint32_t i = 0; i < COUNT; i++)
		save_object(pool, stream, i, random_length(&state));
	for (uint32_t i = 0; i < COUNT; i++)
		if (i % 3 == 0)
			drop_object(pool, i);
	for (int more = 1; more; calls++) {
		uint64_t limit = limits[calls % 5], moved = stats_of(pool).moved_bytes;

		more = vmem_pool_work(pool, limit);
		moved = stats_of(pool).moved_bytes - moved;
		cr_assert_lt(moved, limit + VMEMI_OBJECT_MAX_BYTES);
		cr_assert(moved > 0 || !more);
		expect_sound(pool);
		for (uint32_t i = 0; i < COUNT; i++)
			if (objects[i].handle)
				expect_object(pool, i);
	}
	cr_assert_gt(calls, 20);
	pool_close(pool);
}

/* Fills @count segments with raw-sized objects; the first ones to come. */
static uint32_t fill_segments(vmem_pool *pool, uint32_t stream, uint32_t from, uint32_t count)
{
	for (uint32_t n = 0; n < count * 63; n++)
		save_object(pool, stream, from + n, VMEM_PAGE_SIZE);
	return from + count * 63;
}

Test(pool_compact, takes_the_worst_segment_of_the_worst_stream)
{
	vmem_pool *pool = pool_open(NULL);
	uint32_t one = stream_open(pool), two = stream_open(pool);
	uint32_t second = fill_segments(pool, one, 0, 4);
	uint32_t order[3], found = 0;

	(void)fill_segments(pool, two, second, 4);
	/* 10 objects of one's 1st segment, 40 of its 3rd, 30 of two's 2nd. */
	for (uint32_t i = 0; i < 10; i++)
		drop_object(pool, i);
	for (uint32_t i = 0; i < 40; i++)
		drop_object(pool, 2 * 63 + i);
	for (uint32_t i = 0; i < 30; i++)
		drop_object(pool, second + 63 + i);
	for (int more = 1; more && found < 3;) {
		uint32_t old[3] = { segment_of(pool, 62), segment_of(pool, 3 * 63 - 1),
				    segment_of(pool, second + 2 * 63 - 1) };

		more = vmem_pool_work(pool, 1);
		for (uint32_t k = 0; k < 3; k++) {
			static const uint32_t last[] = { 62, 3 * 63 - 1, 2 * 63 - 1 };

			/* Its last object is the last to leave. */
			if (segment_of(pool, k == 2 ? second + last[k] : last[k]) != old[k])
				order[found++] = k;
		}
	}
	cr_assert_eq(found, 3);
	cr_assert(order[0] == 1 && order[1] == 2 && order[2] == 0);
	pool_close(pool);
}

/* In a stream of many segments, what is moved goes to a segment of its own, which takes the age of the
 * one that it replaces; new objects do not mix with it. */
Test(pool_compact, keeps_ages_apart)
{
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool), next = fill_segments(pool, stream, 0, 20);
	uint32_t before = segment_of(pool, 4 * 63), after = segment_of(pool, 6 * 63), place;

	for (uint32_t i = 0; i < 60; i++)
		drop_object(pool, 5 * 63 + i);
	while (vmem_pool_work(pool, 1 << 20))
		;
	save_object(pool, stream, next, VMEM_PAGE_SIZE);
	place = segment_of(pool, 5 * 63 + 62);
	cr_assert_eq(vmemi_segment_at(pool, before)->younger, place);
	cr_assert_eq(vmemi_segment_at(pool, after)->older, place);
	cr_assert_eq(segment_of(pool, 5 * 63 + 60), place);
	cr_assert_neq(segment_of(pool, next), place);
	pool_close(pool);
}

/* In a small one there is one open segment only. */
Test(pool_compact, small_streams_have_one_open_segment)
{
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool), next = fill_segments(pool, stream, 0, 4);

	save_object(pool, stream, next, VMEM_PAGE_SIZE);
	for (uint32_t i = 0; i < 60; i++)
		drop_object(pool, i);
	while (vmem_pool_work(pool, 1 << 20))
		;
	cr_assert_eq(segment_of(pool, 62), segment_of(pool, next));
	cr_assert_eq(stats_of(pool).segments, 4);
	pool_close(pool);
}

/* A pin, as a save holds it that has not copied yet, keeps the segment where it is. */
Test(pool_compact, leaves_segments_with_writers)
{
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool), next = fill_segments(pool, stream, 0, 3), number;
	struct vmemi_segment *seg;

	(void)next;
	for (uint32_t i = 0; i < 60; i++)
		drop_object(pool, i);
	number = segment_of(pool, 62);
	seg = vmemi_segment_at(pool, number);
	atomic_fetch_add(&seg->pins, VMEMI_PIN_WRITER);
	cr_assert_eq(vmem_pool_work(pool, 1 << 20), 0);
	cr_assert_eq(segment_of(pool, 62), number);
	atomic_fetch_sub(&seg->pins, VMEMI_PIN_WRITER);
	while (vmem_pool_work(pool, 1 << 20))
		;
	cr_assert_neq(segment_of(pool, 62), number);
	pool_close(pool);
}

/* And compaction goes on to the next worst stream, whether writers or the budget keep it from one. */
Test(pool_compact, one_stream_that_cannot_be_compacted)
{
	vmem_pool *pool = pool_open(NULL);
	uint32_t worst = stream_open(pool), other = stream_open(pool), number;
	uint32_t next = fill_segments(pool, worst, 0, 2);
	struct vmemi_segment *seg;

	(void)fill_segments(pool, other, next, 2);
	for (uint32_t i = 0; i < 60; i++)
		drop_object(pool, i);
	for (uint32_t i = 0; i < 40; i++)
		drop_object(pool, next + i);
	number = segment_of(pool, 62);
	seg = vmemi_segment_at(pool, number);
	atomic_fetch_add(&seg->pins, VMEMI_PIN_WRITER);
	while (vmem_pool_work(pool, 1 << 20))
		;
	cr_assert_eq(segment_of(pool, 62), number);
	cr_assert_eq(vmemi_stream_at(pool, other)->classes, 0);
	atomic_fetch_sub(&seg->pins, VMEMI_PIN_WRITER);
	while (vmem_pool_work(pool, 1 << 20))
		;
	cr_assert_neq(segment_of(pool, 62), number);
	pool_close(pool);
}

Test(pool_compact, one_stream_without_room)
{
	struct vmem_pool_opts opts = { .size = sizeof(opts), .budget_bytes = 4 * SEGMENT };
	vmem_pool *pool = pool_open(&opts);
	uint32_t worst = stream_open(pool), other = stream_open(pool);
	uint32_t next = fill_segments(pool, worst, 0, 2),
		 last = fill_segments(pool, other, next, 1);

	/* The other has an open segment, into which its sparse one fits. */
	save_object(pool, other, last, VMEM_PAGE_SIZE);
	for (uint32_t i = 0; i < 40; i++)
		drop_object(pool, i);
	for (uint32_t i = 0; i < 30; i++)
		drop_object(pool, next + i);
	while (vmem_pool_work(pool, 1 << 20))
		;
	/* What that sets free, the worst one takes. */
	cr_assert_eq(stats_of(pool).dead_bytes, 0);
	cr_assert_eq(segment_of(pool, next + 62), segment_of(pool, last));
	pool_close(pool);
}

/* A reader's does not, but the memory stays until it goes. */
Test(pool_compact, moves_objects_away_from_readers)
{
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool), bytes;
	struct vmemi_segment *seg;
	unsigned char *object;

	(void)fill_segments(pool, stream, 0, 3);
	for (uint32_t i = 0; i < 60; i++)
		drop_object(pool, i);
	seg = vmemi_segment_at(pool, segment_of(pool, 62));
	object = vmemi_pool_object_bytes(pool, objects[62].handle, &bytes);
	atomic_fetch_add(&seg->pins, 1);
	while (vmem_pool_work(pool, 1 << 20))
		;
	cr_assert_neq(vmemi_pool_object_bytes(pool, objects[62].handle, &bytes), object);
	cr_assert_eq(seg->state, VMEMI_SEGMENT_DRAINING);
	cr_assert_eq(object[bytes - 1], 62);
	expect_object(pool, 62);
	atomic_fetch_sub(&seg->pins, 1);
	(void)vmem_pool_work(pool, 0);
	cr_assert_neq(seg->state, VMEMI_SEGMENT_DRAINING);
	pool_close(pool);
}

/* An open segment with dead objects is let be until they are an eighth of it, which pool.h promises. */
Test(pool_compact, open_segments)
{
	vmem_pool *pool = pool_open(NULL);
	uint32_t stream = stream_open(pool), number;

	for (uint32_t i = 0; i < 20; i++)
		save_object(pool, stream, i, VMEM_PAGE_SIZE);
	number = segment_of(pool, 19);
	for (uint32_t i = 0; i < 8; i++)
		drop_object(pool, i);
	cr_assert_eq(vmem_pool_work(pool, 1 << 20), 0);
	cr_assert_eq(segment_of(pool, 19), number);
	drop_object(pool, 8);
	while (vmem_pool_work(pool, 1 << 20))
		;
	cr_assert_neq(segment_of(pool, 19), number);
	cr_assert_eq(stats_of(pool).dead_bytes, 0);
	pool_close(pool);
}
