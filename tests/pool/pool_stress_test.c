/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads that save, load and drop at once under a tight budget, one that compacts all the time, one
 * that loads whatever handle comes to its mind. Every load is verified. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <vmem/pool.h>
#include "pool/pool_internal.h"
#include "support/pages.h"
#include "support/fail_alloc.h"

enum { TENANTS = 4, OBJECTS = 400, TURNS = 12000, BUDGET_SEGMENTS = 18 };

#define CHECK(condition)                                                                \
	do {                                                                            \
		if (!(condition)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			exit(1);                                                        \
		}                                                                       \
	} while (0)

struct object {
	vmem_pool_handle handle;
	enum vmemt_page_kind kind;
	uint64_t seed;
};

struct tenant {
	pthread_t thread;
	uint64_t state;
	uint32_t stream;
	uint64_t saves, loads, refused, streams;
	struct object object[OBJECTS];
};

static vmem_pool *pool;
static uint32_t shared_stream; /* of all tenants */
static struct tenant tenants[TENANTS];
static _Atomic int running; /* tenants that are not done */

static void verify(const struct object *o)
{
	struct vmemt_page page;
	int err = vmem_pool_load_page(pool, o->handle, page.bytes);

	CHECK(err == 0);
	CHECK(vmemt_page_is(page.bytes, o->kind, o->seed));
}

static void save(struct tenant *t, struct object *o)
{
	uint64_t r = vmemt_rand(&t->state);
	uint32_t stream = r >> 32 & 1 ? shared_stream : t->stream;
	struct vmemt_page page;
	int err;

	o->seed = r;
	o->kind = (enum vmemt_page_kind)(r >> 8 & 3 ? VMEMT_PAGE_TEXT : r % VMEMT_PAGE_KINDS);
	vmemt_page_make(&page, o->kind, o->seed);
	err = vmem_pool_save_page(pool, stream, 0, page.bytes, VMEM_PAGE_SIZE, &o->handle);
	if (err) {
		CHECK(err == -VMEM_ENOSPC);
		o->handle = 0;
		t->refused++;
		return;
	}
	t->saves++;
}

/* A new stream for the old one, whose objects are dropped singly if they are not its own. */
static void change_stream(struct tenant *t)
{
	for (uint32_t i = 0; i < OBJECTS; i++) {
		struct object *o = &t->object[i];
		uint64_t entry;

		if (!o->handle)
			continue;
		verify(o);
		entry = atomic_load(vmemi_index_at(pool, (uint32_t)o->handle));
		if (atomic_load(&vmemi_segment_at(pool, vmemi_entry_segment(entry))->stream) !=
		    t->stream)
			CHECK(vmem_pool_drop(pool, o->handle) == 0);
		o->handle = 0;
	}
	CHECK(vmem_pool_stream_drop(pool, t->stream) == 0);
	CHECK(vmem_pool_stream_new(pool, &t->stream) == 0);
	t->streams++;
}

static void *tenant(void *arg)
{
	struct tenant *t = arg;

	for (uint32_t turn = 0; turn < TURNS; turn++) {
		struct object *o = &t->object[vmemt_rand(&t->state) % OBJECTS];

		if (!o->handle) {
			save(t, o);
		} else {
			verify(o);
			t->loads++;
			if (vmemt_rand(&t->state) % 2) {
				CHECK(vmem_pool_drop(pool, o->handle) == 0);
				o->handle = 0;
			}
		}
		if (turn % 3000 == 2999)
			change_stream(t);
	}
	atomic_fetch_sub(&running, 1);
	return NULL;
}

/* Any handle, while others drop and save it: a page, or no such object; never a wrong one. */
static void *intruder(void *arg)
{
	uint64_t state = *(uint64_t *)arg;
	struct vmemt_page page;

	while (atomic_load(&running)) {
		int err = vmem_pool_load_page(pool, vmemt_rand(&state) % (TENANTS * OBJECTS),
					      page.bytes);

		CHECK(err == 0 || err == -VMEM_ENOENT);
	}
	return NULL;
}

static void *worker(void *arg)
{
	struct vmem_pool_stats stats = { .size = sizeof(stats) };

	(void)arg;
	while (atomic_load(&running)) {
		if (!vmem_pool_work(pool, 20000))
			sched_yield();
		CHECK(vmem_pool_get_stats(pool, &stats) == 0);
		CHECK(stats.segment_bytes <= (uint64_t)BUDGET_SEGMENTS * VMEM_POOL_SEGMENT_BYTES);
	}
	return NULL;
}

int main(void)
{
	struct vmemt_fail_alloc heap, segments;
	struct vmem_pool_opts opts = { .size = sizeof(opts),
				       .parallel = 2,
				       .allocator = &heap.allocator,
				       .segments = &segments.allocator,
				       .budget_bytes = (uint64_t)BUDGET_SEGMENTS *
						       VMEM_POOL_SEGMENT_BYTES };
	struct vmem_pool_stats stats = { .size = sizeof(stats) };
	uint64_t seed = vmemt_seed("pool_stress"), saves = 0, loads = 0, refused = 0;
	pthread_t work, intrude;
	const char *wrong;

	vmemt_fail_alloc_init(&heap);
	vmemt_fail_alloc_init(&segments);
	CHECK(vmem_pool_new(&pool, &opts) == 0);
	CHECK(vmem_pool_stream_new(pool, &shared_stream) == 0);
	atomic_store(&running, TENANTS);
	for (uint32_t i = 0; i < TENANTS; i++) {
		tenants[i].state = seed + i;
		CHECK(vmem_pool_stream_new(pool, &tenants[i].stream) == 0);
		CHECK(pthread_create(&tenants[i].thread, NULL, tenant, &tenants[i]) == 0);
	}
	CHECK(pthread_create(&work, NULL, worker, NULL) == 0);
	CHECK(pthread_create(&intrude, NULL, intruder, &seed) == 0);
	for (uint32_t i = 0; i < TENANTS; i++) {
		CHECK(pthread_join(tenants[i].thread, NULL) == 0);
		saves += tenants[i].saves;
		loads += tenants[i].loads;
		refused += tenants[i].refused;
	}
	CHECK(pthread_join(work, NULL) == 0);
	CHECK(pthread_join(intrude, NULL) == 0);

	wrong = vmemi_pool_check(pool);
	if (wrong) {
		fprintf(stderr, "not so: %s\n", wrong);
		return 1;
	}
	for (uint32_t i = 0; i < TENANTS; i++)
		for (uint32_t k = 0; k < OBJECTS; k++)
			if (tenants[i].object[k].handle)
				verify(&tenants[i].object[k]);
	CHECK(vmem_pool_get_stats(pool, &stats) == 0);
	CHECK(stats.corrupt == 0);
	printf("%llu saves, %llu loads, %llu refused, %llu segments compacted\n",
	       (unsigned long long)saves, (unsigned long long)loads, (unsigned long long)refused,
	       (unsigned long long)stats.compactions);
	CHECK(stats.compactions > 0);
	vmem_pool_free(pool);
	CHECK(heap.live_bytes == 0 && segments.live_bytes == 0);
	return 0;
}
