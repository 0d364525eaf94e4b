/* SPDX-License-Identifier: BSD-2-Clause */
/* Several threads on one lock of the default environment and on one counting allocator. */
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include "base/alloc.h"
#include "base/lock.h"

#define THREADS 4
#define ROUNDS 20000

static struct vmemi_lock lock;
static struct vmemi_counting_allocator counting;
static unsigned long turns; /* guard: lock */

static void *work(void *argument)
{
	size_t bytes = 16 + (size_t)(uintptr_t)argument;

	for (int i = 0; i < ROUNDS; i++) {
		void *memory = vmemi_alloc(&counting.allocator, bytes, 16);

		assert(memory);
		vmemi_lock(&lock);
		turns++;
		vmemi_unlock(&lock);
		vmemi_free(&counting.allocator, memory, bytes, 16);
	}
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS];

	assert(!vmemi_lock_init(&lock, vmemi_env_default()));
	vmemi_counting_init(&counting, vmemi_alloc_default());
	for (uintptr_t i = 0; i < THREADS; i++)
		assert(!pthread_create(&threads[i], NULL, work, (void *)i));
	for (int i = 0; i < THREADS; i++)
		assert(!pthread_join(threads[i], NULL));
	printf("%lu turns, %lu bytes left\n", turns, (unsigned long)counting.bytes);
	assert(turns == THREADS * ROUNDS);
	assert(!counting.bytes);
	vmemi_lock_destroy(&lock);
	return 0;
}
