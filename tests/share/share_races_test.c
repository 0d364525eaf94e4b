/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads that write to pages and read them, while one scans: merged pages leave at any time, writes to
 * protected pages wait, and everybody reads what was written. A plain program, for ThreadSanitizer. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <vmem/share.h>
#include "share/share_internal.h"
#include "support/rng.h"

#define CHECK(condition)                                                                \
	do {                                                                            \
		if (!(condition)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			exit(1);                                                        \
		}                                                                       \
	} while (0)

enum {
	PAGES = 96, /* of each guest */
	GUESTS = 2,
	OBJECTS = 4096,
	TURNS = 100000,
	NUMBERS = 6,
	LEAST_MERGES = 500
};

/* A page has a content by its number, as do objects; for real memory they stand here. */
struct page {
	pthread_mutex_t lock; /* all else */
	uint64_t number;
	uint32_t id; /* 0: not merged */
	bool is_protected;
};

struct object {
	_Atomic uint64_t number; /* + 1; 0: there is none */
	uint32_t hash;
};

static struct page page[PAGES * GUESTS];
static struct object object[OBJECTS];
static uint32_t next_id; /* the scanner's */
static _Atomic uint64_t made, freed;
static _Atomic int writers_left = GUESTS;
static vmem_share *s;
static uint64_t seed;

static void make_bytes(void *buffer, uint64_t number)
{
	memset(buffer, (int)number, VMEM_PAGE_SIZE);
}

static int read_page(void *context, uint64_t key, void *buffer)
{
	struct page *p = &page[key];

	(void)context;
	pthread_mutex_lock(&p->lock);
	make_bytes(buffer, p->number);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

static int read_object(void *context, uint32_t id, void *buffer)
{
	uint64_t number = atomic_load(&object[id].number);

	(void)context;
	CHECK(number);
	sched_yield();
	CHECK(atomic_load(&object[id].number) == number);
	make_bytes(buffer, number - 1);
	return 0;
}

static int protect(void *context, uint64_t key)
{
	struct page *p = &page[key];

	(void)context;
	pthread_mutex_lock(&p->lock);
	CHECK(!p->is_protected && !p->id);
	p->is_protected = true;
	pthread_mutex_unlock(&p->lock);
	return 0;
}

static void unprotect(void *context, uint64_t key)
{
	struct page *p = &page[key];

	(void)context;
	pthread_mutex_lock(&p->lock);
	CHECK(p->is_protected);
	p->is_protected = false;
	pthread_mutex_unlock(&p->lock);
}

static int make(void *context, uint64_t key, uint32_t hash, uint32_t *ret_id)
{
	(void)context;
	do
		next_id = next_id % (OBJECTS - 1) + 1;
	while (atomic_load(&object[next_id].number));
	object[next_id].hash = hash;
	atomic_store(&object[next_id].number, page[key].number + 1);
	atomic_fetch_add(&made, 1);
	*ret_id = next_id;
	return 0;
}

static int merge(void *context, uint64_t key, uint32_t id)
{
	struct page *p = &page[key];

	(void)context;
	pthread_mutex_lock(&p->lock);
	CHECK(p->is_protected && p->number + 1 == atomic_load(&object[id].number));
	p->is_protected = false;
	p->id = id;
	pthread_mutex_unlock(&p->lock);
	return 0;
}

static void free_object(void *context, uint32_t id)
{
	(void)context;
	CHECK(atomic_exchange(&object[id].number, 0));
	atomic_fetch_add(&freed, 1);
}

/* Of a page that is locked and not protected. */
static void leave(uint64_t key)
{
	struct page *p = &page[key];
	uint32_t id = p->id, left = 1;

	if (!id)
		return;
	p->id = 0;
	CHECK(atomic_load(&object[id].number) == p->number + 1);
	CHECK(!vmem_share_break(s, key, id, object[id].hash, &left));
	if (!left)
		free_object(NULL, id);
}

static void write_page(uint64_t key, uint64_t number)
{
	struct page *p = &page[key];

	for (;;) {
		pthread_mutex_lock(&p->lock);
		if (!p->is_protected)
			break;
		pthread_mutex_unlock(&p->lock);
		sched_yield();
	}
	leave(key);
	p->number = number;
	pthread_mutex_unlock(&p->lock);
}

/* A guest has pages of its own, so it knows what they must be. */
static void *guest(void *arg)
{
	uint64_t number = (uint64_t)(uintptr_t)arg, state = seed + number, mine[PAGES];

	for (uint64_t i = 0; i < PAGES; i++)
		mine[i] = page[number * PAGES + i].number;
	for (uint64_t turn = 0; turn < TURNS || atomic_load(&made) < LEAST_MERGES; turn++) {
		uint64_t r = vmemt_rand(&state), i = r % PAGES, key = number * PAGES + i;

		if (r >> 62) {
			pthread_mutex_lock(&page[key].lock);
			CHECK(page[key].number == mine[i]);
			pthread_mutex_unlock(&page[key].lock);
		} else {
			mine[i] = (r >> 32) % NUMBERS;
			write_page(key, mine[i]);
		}
		if (r % 64 == 0)
			sched_yield();
	}
	atomic_fetch_sub(&writers_left, 1);
	return NULL;
}

static void *watcher(void *arg)
{
	struct vmem_share_stats stats = { .size = sizeof(stats) };

	(void)arg;
	while (atomic_load(&writers_left)) {
		CHECK(!vmem_share_get_stats(s, &stats));
		CHECK(stats.merged <= PAGES * GUESTS);
		sched_yield();
	}
	return NULL;
}

/* Ranges come and go beside the breaks. */
static void scan(void)
{
	uint64_t turn = 0;

	while (atomic_load(&writers_left)) {
		vmem_share_scan(s, 0, 50 * 1000, NULL);
		if (++turn % 64 == 0)
			CHECK(!vmem_share_add_range(s, 1000 + turn, 1, 9) &&
			      !vmem_share_switch_range(s, 1000 + turn, 0) &&
			      !vmem_share_remove_range(s, 1000 + turn));
	}
}

int main(void)
{
	struct vmem_share_opts opts = { .size = sizeof(opts),
					.read = read_page,
					.read_object = read_object,
					.protect = protect,
					.unprotect = unprotect,
					.make = make,
					.merge = merge,
					.release = free_object };
	struct vmem_share_stats stats = { .size = sizeof(stats) };
	pthread_t threads[GUESTS + 1];
	const char *wrong;

	seed = vmemt_seed("share_races");
	for (uint64_t key = 0; key < PAGES * GUESTS; key++)
		CHECK(!pthread_mutex_init(&page[key].lock, NULL));
	CHECK(!vmem_share_new(&s, &opts));
	CHECK(!vmem_share_add_range(s, 0, PAGES * GUESTS, 1));
	for (uintptr_t n = 0; n < GUESTS; n++)
		CHECK(!pthread_create(&threads[n], NULL, guest, (void *)n));
	CHECK(!pthread_create(&threads[GUESTS], NULL, watcher, NULL));
	scan();
	for (int n = 0; n <= GUESTS; n++)
		CHECK(!pthread_join(threads[n], NULL));
	wrong = vmemi_share_check(s);
	if (wrong)
		fprintf(stderr, "%s\n", wrong);
	CHECK(!wrong);
	/* At rest all is found, and when all have left, nothing is left. */
	for (int n = 0; n < 20; n++)
		vmem_share_scan(s, 0, UINT64_MAX, NULL);
	CHECK(!vmem_share_get_stats(s, &stats));
	CHECK(stats.saved_pages >= PAGES * GUESTS - NUMBERS);
	for (uint64_t key = 0; key < PAGES * GUESTS; key++)
		leave(key);
	CHECK(atomic_load(&made) == atomic_load(&freed));
	vmem_share_free(s);
	return 0;
}
