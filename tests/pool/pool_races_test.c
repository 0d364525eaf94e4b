/* SPDX-License-Identifier: BSD-2-Clause */
/* Narrow places, entered very often: loads of an object whose segment comes and goes with it, handles
 * that come back at once, and chunks of a table that several threads make together. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <vmem/pool.h>
#include "pool/pool_internal.h"
#include "support/fail_alloc.h"
#include "support/rng.h"

#define CHECK(condition)                                                                \
	do {                                                                            \
		if (!(condition)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			exit(1);                                                        \
		}                                                                       \
	} while (0)

enum {
	READERS = 2,
	TURNS = 500000,
	LOADS = 200000,
	TAKERS = 4,
	TAKES = 500000,
	ROUNDS = 30,
	MANY = 20000,
	HANDLE_CHUNKS = 10, /* TAKERS * MANY + 1 handles */
	GROWERS = 2,
	CHUNKS = 20000
};

static vmem_pool *pool;
static _Atomic int done;
static _Atomic uint64_t loaded;
static _Atomic uint32_t arrived;

/* There are few handles, as each is used again at once. */
static void *reader(void *arg)
{
	uint64_t state = *(uint64_t *)arg;

	while (!atomic_load(&done)) {
		unsigned char data[256];
		uint32_t bytes;
		int err = vmem_pool_load_bytes(pool, 1 + vmemt_rand(&state) % 2, data, sizeof(data),
					       &bytes);

		CHECK(err == 0 || err == -VMEM_ENOENT);
		if (err)
			continue;
		atomic_fetch_add(&loaded, 1);
		for (uint32_t i = 0; i < bytes; i++)
			CHECK(data[i] == bytes);
	}
	return NULL;
}

static void segments_that_come_and_go(uint64_t seed)
{
	struct vmemt_fail_alloc heap, segments;
	struct vmem_pool_opts opts = { .size = sizeof(opts),
				       .reserve_segments = 1,
				       .allocator = &heap.allocator,
				       .segments = &segments.allocator };
	uint64_t states[READERS], state = seed;
	pthread_t threads[READERS];
	const char *wrong;
	uint32_t stream;

	vmemt_fail_alloc_init(&heap);
	vmemt_fail_alloc_init(&segments);
	CHECK(vmem_pool_new(&pool, &opts) == 0);
	CHECK(vmem_pool_stream_new(pool, &stream) == 0);
	for (int i = 0; i < READERS; i++) {
		states[i] = seed + 1 + (uint64_t)i;
		CHECK(pthread_create(&threads[i], NULL, reader, &states[i]) == 0);
	}
	for (int turn = 0; turn < TURNS || atomic_load(&loaded) < LOADS; turn++) {
		uint32_t bytes = 1 + (uint32_t)(vmemt_rand(&state) % 255);
		unsigned char data[256];
		vmem_pool_handle handle;

		memset(data, (int)bytes, bytes);
		CHECK(vmem_pool_save_bytes(pool, stream, data, bytes, &handle) == 0);
		CHECK(vmem_pool_drop(pool, handle) == 0);
		if (turn % 64 == 0)
			(void)vmem_pool_work(pool, 0);
	}
	atomic_store(&done, 1);
	for (int i = 0; i < READERS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	(void)vmem_pool_work(pool, 0);
	wrong = vmemi_pool_check(pool);
	if (wrong)
		fprintf(stderr, "not so: %s\n", wrong);
	CHECK(!wrong);
	CHECK(atomic_load(&pool->corrupt) == 0);
	vmem_pool_free(pool);
	CHECK(heap.live_bytes == 0 && segments.live_bytes == 0);
}

/* No handle is given to two. They are few, so that the same ones are always on top. */
static _Atomic unsigned char owned[1u << VMEMI_INDEX_CHUNK_SHIFT];

static void *taker(void *arg)
{
	uint32_t handle[3];

	(void)arg;
	for (int turn = 0; turn < TAKES; turn++) {
		for (int i = 0; i < 3; i++) {
			CHECK(vmemi_handle_new(pool, &handle[i]) == 0);
			CHECK(atomic_exchange(&owned[handle[i]], 1) == 0);
		}
		for (int i = 0; i < 3; i++) {
			CHECK(atomic_exchange(&owned[handle[(i + turn) % 3]], 0) == 1);
			vmemi_handle_free(pool, handle[(i + turn) % 3]);
		}
	}
	return NULL;
}

static void handles_that_come_back(void)
{
	pthread_t threads[TAKERS];
	const char *wrong;

	CHECK(vmem_pool_new(&pool, NULL) == 0);
	for (int i = 0; i < TAKERS; i++)
		CHECK(pthread_create(&threads[i], NULL, taker, NULL) == 0);
	for (int i = 0; i < TAKERS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	wrong = vmemi_pool_check(pool);
	if (wrong)
		fprintf(stderr, "not so: %s\n", wrong);
	CHECK(!wrong);
	vmem_pool_free(pool);
}

/* Handles that are kept, so that new ones are made again and again: each for one, and none too many. */
static void *keeper(void *arg)
{
	uint32_t *handles = arg;

	atomic_fetch_add(&arrived, 1);
	while (atomic_load(&arrived) < TAKERS)
		sched_yield();
	for (int i = 0; i < MANY; i++)
		CHECK(vmemi_handle_new(pool, &handles[i]) == 0);
	return NULL;
}

static void handles_made_at_once(void)
{
	static uint32_t handles[TAKERS][MANY];
	pthread_t threads[TAKERS];

	for (int round = 0; round < ROUNDS; round++) {
		static unsigned char seen[HANDLE_CHUNKS << VMEMI_INDEX_CHUNK_SHIFT];

		memset(seen, 0, sizeof(seen));
		atomic_store(&arrived, 0);
		CHECK(vmem_pool_new(&pool, NULL) == 0);
		for (int i = 0; i < TAKERS; i++)
			CHECK(pthread_create(&threads[i], NULL, keeper, handles[i]) == 0);
		for (int i = 0; i < TAKERS; i++)
			CHECK(pthread_join(threads[i], NULL) == 0);
		CHECK(vmemi_index_end(pool) == sizeof(seen));
		for (int i = 0; i < TAKERS * MANY; i++) {
			uint32_t handle = handles[i / MANY][i % MANY];

			CHECK(handle && handle < sizeof(seen) && !seen[handle]);
			seen[handle] = 1;
		}
		vmem_pool_free(pool);
	}
	atomic_store(&arrived, 0);
}

static struct vmemi_table table;
static _Atomic uint32_t made;

static void *grower(void *arg)
{
	(void)arg;
	for (uint32_t n = 0; n < CHUNKS; n++) {
		int err;

		atomic_fetch_add(&arrived, 1);
		while (atomic_load(&arrived) < (n + 1) * GROWERS) /* all begin together */
			sched_yield();
		err = vmemi_table_grow(&table, n);
		CHECK(err == 0 || err == 1);
		CHECK(vmemi_table_at(&table, n, sizeof(uint64_t), 0));
		atomic_fetch_add(&made, (uint32_t)err);
	}
	return NULL;
}

static void chunks_made_at_once(void)
{
	struct vmemt_fail_alloc heap;
	pthread_t threads[GROWERS];

	vmemt_fail_alloc_init(&heap);
	CHECK(vmemi_table_init(&table, &heap.allocator, sizeof(uint64_t), 0, 16) == 0);
	for (int i = 0; i < GROWERS; i++)
		CHECK(pthread_create(&threads[i], NULL, grower, NULL) == 0);
	for (int i = 0; i < GROWERS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	CHECK(made == CHUNKS);
	CHECK((uint64_t)heap.live_bytes == table.bytes);
	vmemi_table_destroy(&table);
	CHECK(heap.live_bytes == 0);
}

int main(void)
{
	segments_that_come_and_go(vmemt_seed("pool_races"));
	handles_that_come_back();
	handles_made_at_once();
	chunks_made_at_once();
	printf("%llu loads\n", (unsigned long long)loaded);
	return 0;
}
