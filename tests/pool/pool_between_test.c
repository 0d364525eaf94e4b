/* SPDX-License-Identifier: BSD-2-Clause */
/* What happens between the steps of a call, in one thread and always the same: whenever the pool is about
 * to take a lock while it holds none, another call is made. For each test the other call comes at the
 * first such moment, then at the second, until there are no more. */
#include "pool/pool_tools.h"
#include "pool/pool_of.h"

enum { OBJECTS = 63 * 4 };

static struct vmem_env env;
static vmem_pool *pool;
static uint32_t stream;
static vmem_pool_handle handles[OBJECTS];
static long moment;   /* locks until the other call; below 0: it was made */
static int held;      /* locks, but for the one of work() */
static bool working;  /* the one of work() is held */
static bool inside;   /* the other call takes locks too */
static bool for_work; /* the other call takes that of work() */
static void (*other_call)(void);

static void lock(void *context, void *mutex)
{
	if (!inside && !held && !(for_work && working) && moment-- == 0) {
		inside = true;
		other_call();
		inside = false;
	}
	vmemi_env_default()->lock(context, mutex);
	if (mutex == pool->work.lock)
		working = true;
	else
		held++;
}

static void unlock(void *context, void *mutex)
{
	if (mutex == pool->work.lock)
		working = false;
	else
		held--;
	vmemi_env_default()->unlock(context, mutex);
}

/* Some segments' worth of objects, every third of the first half dropped. */
static void set_up(void)
{
	struct vmem_pool_opts opts = { .size = sizeof(opts), .env = &env };

	env = *vmemi_env_default();
	env.lock = lock;
	env.unlock = unlock;
	moment = -1;
	pool = pool_open(&opts);
	stream = stream_open(pool);
	for (uint32_t i = 0; i < OBJECTS; i++)
		handles[i] = save(pool, stream, VMEMT_PAGE_NOISE, i);
	for (uint32_t i = 0; i < OBJECTS / 2; i += 3) {
		cr_assert_eq(vmem_pool_drop(pool, handles[i]), 0);
		handles[i] = 0;
	}
}

static void drop_if_there(uint32_t i)
{
	if (!handles[i])
		return;
	cr_assert_eq(vmem_pool_drop(pool, handles[i]), 0);
	handles[i] = 0;
}

static void expect_all(void)
{
	expect_sound(pool);
	for (uint32_t i = 0; i < OBJECTS; i++)
		if (handles[i])
			expect_page(pool, handles[i], VMEMT_PAGE_NOISE, i);
}

static void compact_while(void (*call)(void))
{
	other_call = call;
	for (long n = 0, left = -1; left < 0; n++) {
		set_up();
		moment = n;
		while (vmem_pool_work(pool, 1 << 20))
			;
		left = moment; /* still to come: work() has no more moments */
		expect_all();
		pool_close(pool);
	}
}

static void drop_one(void)
{
	drop_if_there(1);
}

static void drop_first_segment(void)
{
	for (uint32_t i = 0; i < 63; i++)
		drop_if_there(i);
}

static void drop_all(void)
{
	for (uint32_t i = 0; i < OBJECTS; i++)
		drop_if_there(i);
}

/* So that its place is taken by another object, with the same handle. */
static void drop_and_save(void)
{
	for (uint32_t i = 0; i < 63; i++) {
		drop_if_there(i);
		handles[i] = save(pool, stream, VMEMT_PAGE_NOISE, i);
	}
}

static void save_some(void)
{
	for (uint32_t i = 0; i < OBJECTS; i++)
		if (!handles[i])
			handles[i] = save(pool, stream, VMEMT_PAGE_NOISE, i);
}

static void load_all(void)
{
	for (uint32_t i = 0; i < OBJECTS; i++)
		if (handles[i])
			expect_page(pool, handles[i], VMEMT_PAGE_NOISE, i);
}

static void save_and_drop(void)
{
	vmem_pool_handle handle = save(pool, stream, VMEMT_PAGE_ZERO, 0);

	cr_assert_eq(vmem_pool_drop(pool, handle), 0);
}

Test(pool_between, compaction_and_a_drop)
{
	compact_while(drop_one);
}

Test(pool_between, compaction_and_the_end_of_a_segment)
{
	compact_while(drop_first_segment);
}

Test(pool_between, compaction_and_the_end_of_all)
{
	compact_while(drop_all);
}

Test(pool_between, compaction_and_handles_used_again)
{
	compact_while(drop_and_save);
}

Test(pool_between, compaction_and_saves)
{
	compact_while(save_some);
}

Test(pool_between, compaction_and_loads)
{
	compact_while(load_all);
}

Test(pool_between, compaction_and_an_object_that_comes_and_goes)
{
	compact_while(save_and_drop);
}

/* --- Compaction, and a stream that goes --- */

/* Another stream, worse than the one that is checked. */
static uint32_t doomed;

static void set_up_doomed(void)
{
	vmem_pool_handle own[3 * 63];

	for_work = true;
	set_up();
	doomed = stream_open(pool);
	for (uint32_t i = 0; i < 3 * 63; i++)
		own[i] = save(pool, doomed, VMEMT_PAGE_NOISE, i);
	for (uint32_t i = 0; i < 50; i++)
		cr_assert_eq(vmem_pool_drop(pool, own[i]), 0);
	cr_assert_gt(vmemi_stream_at(pool, doomed)->rank, vmemi_stream_at(pool, stream)->rank);
}

static void drop_doomed(void)
{
	cr_assert_eq(vmem_pool_stream_drop(pool, doomed), 0);
}

/* Its place is taken at once, too. */
static void drop_and_make_stream(void)
{
	drop_doomed();
	cr_assert_eq(stream_open(pool), doomed);
	(void)save(pool, doomed, VMEMT_PAGE_NOISE, 1);
}

static void compact_while_it_goes(void (*call)(void))
{
	other_call = call;
	for (long n = 0, left = -1; left < 0; n++) {
		set_up_doomed();
		moment = n;
		while (vmem_pool_work(pool, 1 << 15))
			;
		left = moment;
		expect_all();
		pool_close(pool);
	}
}

Test(pool_between, compaction_and_the_end_of_a_stream)
{
	compact_while_it_goes(drop_doomed);
}

Test(pool_between, compaction_and_a_stream_that_begins_anew)
{
	compact_while_it_goes(drop_and_make_stream);
}

/* Whatever is left of a stream that is being dropped, compaction does the others and comes to an end. */
static void compact_the_other(void)
{
	struct vmem_pool_stats own = { .size = sizeof(own) };

	for (int calls = 0; vmem_pool_work(pool, 1 << 20); calls++)
		cr_assert_lt(calls, 100);
	cr_assert_eq(vmem_pool_stream_get_stats(pool, stream, &own), 0);
	cr_assert_eq(own.dead_bytes, 0);
}

static void drop_while_compacting(bool large_index)
{
	other_call = compact_the_other;
	for (long n = 0, left = -1; left < 0; n++) {
		set_up_doomed();
		if (large_index)
			make_index_large(pool);
		moment = n;
		drop_doomed();
		left = moment;
		expect_all();
		pool_close(pool);
	}
}

Test(pool_between, the_end_of_a_stream_and_compaction)
{
	drop_while_compacting(false);
	drop_while_compacting(true);
}

/* --- A drop, and compaction that moves its object --- */

static void compact_all(void)
{
	while (vmem_pool_work(pool, 1 << 20))
		;
}

Test(pool_between, a_drop_and_compaction)
{
	other_call = compact_all;
	for (long n = 0, left = -1; left < 0; n++) {
		set_up();
		moment = n;
		drop_if_there(1);
		left = moment;
		expect_all();
		pool_close(pool);
	}
}

/* The handle comes to lead to an object of another stream: that is dropped then, and nothing else. */
static void take_the_handle(void)
{
	vmem_pool_handle handle = handles[1];

	drop_if_there(1);
	cr_assert_eq(save(pool, stream_open(pool), VMEMT_PAGE_NOISE, 1), handle);
}

Test(pool_between, a_drop_of_what_was_dropped_and_saved)
{
	other_call = take_the_handle;
	for (long n = 0, left = -1; left < 0; n++) {
		set_up();
		moment = n;
		cr_assert_eq(vmem_pool_drop(pool, handles[1]), 0);
		left = moment;
		handles[1] = 0;
		expect_all();
		pool_close(pool);
	}
}

/* Asked for by its stream, the other is left alone; it was dropped before the call began, or after. */
Test(pool_between, a_drop_of_what_is_now_of_another_stream)
{
	struct vmemt_page page;

	other_call = take_the_handle;
	for (long n = 0, left = -1; left < 0; n++) {
		struct vmemi_dropped dropped = { 0 };
		vmem_pool_handle handle;
		int err;

		set_up();
		handle = handles[1];
		moment = n;
		err = vmemi_pool_drop_of(pool, stream, handle, &dropped);
		left = moment;
		cr_assert_eq(err, left < 0 ? -VMEM_ENOENT : 0);
		cr_assert_eq(dropped.codec, left < 0 ? 0 : VMEM_CODEC_RAW);
		cr_assert_eq(vmemi_pool_load_of(pool, stream, handle, page.bytes), -VMEM_ENOENT);
		if (left < 0)
			expect_page(pool, handle, VMEMT_PAGE_NOISE, 1);
		handles[1] = 0;
		expect_all();
		pool_close(pool);
	}
}

/* --- A save, and others that open the next segment first, or fill it --- */

static void save_into_new_segment(void)
{
	vmem_pool_handle handle = save(pool, stream, VMEMT_PAGE_NOISE, 7);

	expect_page(pool, handle, VMEMT_PAGE_NOISE, 7);
}

static void save_a_segment(void)
{
	for (int i = 0; i < 63; i++)
		save_into_new_segment();
}

static void drop_newest(void)
{
	for (uint32_t i = OBJECTS - 63; i < OBJECTS; i++)
		drop_if_there(i);
}

static void save_while(void (*call)(void))
{
	other_call = call;
	for (long n = 0, left = -1; left < 0; n++) {
		vmem_pool_handle handle;

		set_up(); /* the open segment is full */
		moment = n;
		handle = save(pool, stream, VMEMT_PAGE_NOISE, 9);
		left = moment;
		expect_page(pool, handle, VMEMT_PAGE_NOISE, 9);
		expect_all();
		pool_close(pool);
	}
}

Test(pool_between, a_save_and_another)
{
	save_while(save_into_new_segment);
}

Test(pool_between, a_save_and_many)
{
	save_while(save_a_segment);
}

Test(pool_between, a_save_and_the_end_of_the_open_segment)
{
	save_while(drop_newest);
}

Test(pool_between, a_save_and_compaction)
{
	save_while(compact_all);
}
