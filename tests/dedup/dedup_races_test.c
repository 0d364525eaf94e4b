/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads that find, enter and drop the same few contents, while others make the table grow and shrink:
 * no compare sees an object that is freed, each object is freed once, and all references add up. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <vmem/dedup.h>
#include "dedup/dedup_internal.h"
#include "support/rng.h"

#define CHECK(condition)                                                                \
	do {                                                                            \
		if (!(condition)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			exit(1);                                                        \
		}                                                                       \
	} while (0)

enum {
	SHARERS = 3,
	FILLERS = 2,
	TURNS = 60000,
	NUMBERS = 24,
	RARE = 2000,
	HELD = 400,
	OBJECTS = 4096,
	FILL = 6000,
	FILLS = 6
};

/* An object: its number + 1, or 0 while it does not exist. */
static _Atomic uint32_t object[OBJECTS];
static _Atomic uint32_t next_object;
static _Atomic uint64_t made, freed, joined;
static vmem_dedup *d;
static uint64_t seed;

static uint32_t hash_of(uint32_t number)
{
	return number / 2; /* two contents a hash */
}

static int compare(void *context, uint32_t id, const void *page)
{
	uint32_t number = atomic_load(&object[id]);

	(void)context;
	CHECK(number);
	sched_yield();
	CHECK(atomic_load(&object[id]) == number);
	return number - 1 == *(const uint32_t *)page;
}

static void free_object(void *context, uint32_t id)
{
	(void)context;
	CHECK(atomic_exchange(&object[id], 0));
	atomic_fetch_add(&freed, 1);
}

/* Ids are used again as soon as they can be. */
static uint32_t make_object(uint32_t number)
{
	for (;;) {
		uint32_t id = 1 + atomic_fetch_add(&next_object, 1) % (OBJECTS - 1), none = 0;

		if (atomic_compare_exchange_strong(&object[id], &none, number + 1)) {
			atomic_fetch_add(&made, 1);
			return id;
		}
	}
}

static void drop(uint32_t number, uint32_t id)
{
	uint32_t left;

	CHECK(atomic_load(&object[id]) == number + 1);
	CHECK(vmem_dedup_drop(d, 1, hash_of(number), id, &left) == 0);
	if (!left)
		free_object(NULL, id);
}

static uint32_t save(uint32_t number)
{
	uint32_t id;
	int found = vmem_dedup_find(d, 1, hash_of(number), &number, &id);

	CHECK(found == VMEM_DEDUP_SHARED || found == VMEM_DEDUP_NONE);
	if (found == VMEM_DEDUP_SHARED) {
		CHECK(atomic_load(&object[id]) == number + 1);
		atomic_fetch_add(&joined, 1);
		return id;
	}
	id = make_object(number);
	CHECK(vmem_dedup_add(d, 1, hash_of(number), id) == 0);
	return id;
}

static void *sharer(void *arg)
{
	uint64_t state = seed + (uintptr_t)arg;
	uint32_t number[HELD], id[HELD], held = 0;

	for (int turn = 0; turn < TURNS; turn++) {
		uint64_t r = vmemt_rand(&state);

		/* Now many, so that counts pass 255, now few, so that objects go. */
		if (held < HELD && (turn / 1000 % 2 ? r % 3 : !(r % 3))) {
			number[held] = (uint32_t)(r >> 32) % (r >> 60 ? NUMBERS : RARE);
			id[held] = save(number[held]);
			held++;
		} else if (held) {
			uint32_t n = (uint32_t)(r >> 32) % held--;

			drop(number[n], id[n]);
			number[n] = number[held];
			id[n] = id[held];
		}
	}
	while (held--)
		drop(number[held], id[held]);
	return NULL;
}

/* Many entries of another domain, in and out again. */
static void *filler(void *arg)
{
	uint32_t domain = 2 + (uint32_t)(uintptr_t)arg, left;

	for (uint32_t round = 0; round < FILLS; round++) {
		for (uint32_t n = 1; n <= FILL; n++) {
			vmem_dedup_prefetch(d, domain, n + 1);
			CHECK(vmem_dedup_hint(d, domain, n, n) == 0);
			CHECK(vmem_dedup_add(d, domain, n, n) == 0);
		}
		for (uint32_t n = 1; n <= FILL; n++) {
			CHECK(vmem_dedup_move(d, domain, n, n, n + 1, 1) == 0);
			CHECK(vmem_dedup_drop(d, domain, n, n + 1, &left) == 0 && !left);
			CHECK(vmem_dedup_promote(d, domain, n, n, n) == 0);
			CHECK(vmem_dedup_drop(d, domain, n, n, &left) == 0 && !left);
			if (n % 10 == 0)
				vmem_dedup_work(d, 4);
		}
	}
	return NULL;
}

int main(void)
{
	struct vmem_dedup_opts opts = { .size = sizeof(opts),
					.compare = compare,
					.release = free_object };
	struct vmem_dedup_stats stats = { .size = sizeof(stats) };
	pthread_t threads[SHARERS + FILLERS];
	const char *wrong;

	seed = vmemt_seed("dedup_races");
	CHECK(vmem_dedup_new(&d, &opts) == 0);
	for (uintptr_t n = 0; n < SHARERS + FILLERS; n++)
		CHECK(pthread_create(&threads[n], NULL, n < SHARERS ? sharer : filler, (void *)n) ==
		      0);
	for (int n = 0; n < SHARERS + FILLERS; n++)
		CHECK(pthread_join(threads[n], NULL) == 0);
	wrong = vmemi_dedup_check(d);
	if (wrong)
		fprintf(stderr, "%s\n", wrong);
	CHECK(!wrong);
	CHECK(vmem_dedup_get_stats(d, &stats) == 0);
	CHECK(stats.entries == 0 && stats.references == 0);
	CHECK(atomic_load(&made) == atomic_load(&freed));
	CHECK(atomic_load(&made) > 1000 && atomic_load(&joined) > TURNS / 10);
	while (vmem_dedup_work(d, 100))
		;
	CHECK(!vmemi_dedup_check(d));
	vmem_dedup_free(d);
	return 0;
}
