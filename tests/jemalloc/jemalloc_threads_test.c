/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads that allocate from one arena, free what another thread allocated, and end. */
#include <assert.h>
#include <pthread.h>
#include <string.h>
#include <vmem/jemalloc.h>
#include "support/rng.h"

#define THREADS 4
#define ROUNDS 4000
#define SLOTS 64
#define MAX_BYTES 20000

struct block {
	unsigned char *memory;
	size_t bytes;
};

static const struct vmem_allocator *allocator;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static struct block slots[SLOTS]; /* guard: guard */
static uint64_t seed;

/* Puts @b into a slot and returns what was there. */
static struct block exchange(size_t slot, struct block b)
{
	struct block old;

	pthread_mutex_lock(&guard);
	old = slots[slot];
	slots[slot] = b;
	pthread_mutex_unlock(&guard);
	return old;
}

static void drop(struct block b)
{
	if (!b.memory)
		return;
	assert(b.memory[0] == (unsigned char)b.bytes);
	assert(b.memory[b.bytes - 1] == (unsigned char)b.bytes);
	allocator->free(allocator->context, b.memory, b.bytes, 16);
}

static void *work(void *argument)
{
	uint64_t rng = seed + (uintptr_t)argument;

	for (int i = 0; i < ROUNDS; i++) {
		struct block b = { .bytes = 1 + vmemt_rand(&rng) % MAX_BYTES };

		b.memory = allocator->alloc(allocator->context, b.bytes, 16);
		assert(b.memory);
		memset(b.memory, (int)b.bytes & 0xff, b.bytes);
		drop(exchange(vmemt_rand(&rng) % SLOTS, b));
	}
	return NULL;
}

int main(void)
{
	struct vmem_jemalloc_stats stats = { .size = sizeof(stats) };
	pthread_t threads[THREADS];
	vmem_jemalloc *jemalloc;

	seed = vmemt_seed("jemalloc_threads");
	assert(!vmem_jemalloc_new(&jemalloc, NULL));
	allocator = vmem_jemalloc_allocator(jemalloc);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert(!pthread_create(&threads[i], NULL, work, (void *)i));
	for (int i = 0; i < THREADS; i++)
		assert(!pthread_join(threads[i], NULL));
	for (size_t i = 0; i < SLOTS; i++)
		drop(exchange(i, (struct block){ 0 }));
	assert(!vmem_jemalloc_get_stats(jemalloc, &stats));
	printf("%d rounds, %lu bytes left\n", THREADS * ROUNDS,
	       (unsigned long)stats.allocated_bytes);
	assert(!stats.allocated_bytes);
	vmem_jemalloc_free(jemalloc);
	return 0;
}
