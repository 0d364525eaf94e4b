/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads that save, load and drop pages, most of which are on a device, beside one that works and one that
 * polls; devices come and go meanwhile. A plain program, for ThreadSanitizer. Argument: operations of each thread, else 3000. */
#include <assert.h>
#include <sched.h>
#include "pool/pool_of.h"
#include "store/memory_device.h"
#include "store/model_pages.h"
#include "store/store_internal.h"
#include "support/deadline.h"
#include "support/rng.h"

enum { WORKERS = 3, PAGES = 500, MIB = 1 << 20, DEVICES = 16, TURNS = 48 };

static struct vmemt_memory_device device[DEVICES];
static vmem_store *store;
static uint32_t vms[WORKERS];
static uint64_t first_seed;
static long operations = 3000;
static _Atomic int left = WORKERS, added;
static uint32_t removed; /* of the background */
static _Atomic int late; /* devices did not answer in time */
static _Atomic uint64_t slow, now_ns = 1;

/* A load that its thread waits for; its address is the key. */
struct waiter {
	_Atomic int over;
	int result;
};

static void dispatch(void)
{
	struct vmem_store_event event[8];
	uint32_t n = vmem_store_poll(store, event, 8);

	for (uint32_t i = 0; i < n; i++) {
		struct waiter *w = (struct waiter *)(uintptr_t)event[i].key;

		if (event[i].type == VMEM_STORE_OFFER) {
			assert(event[i].key < PAGES);
			continue;
		}
		w->result = event[i].result;
		atomic_store(&w->over, 1);
	}
}

/* As vmem_store_load(), to its end. */
static int load_once(uint32_t vm, vmem_store_ref ref, enum vmemt_page_kind kind, uint64_t seed)
{
	struct waiter w = { .over = 0 };
	struct vmemt_page page;
	vmem_store_token token;
	int rc;

	while ((rc = vmem_store_load(store, vm, (uintptr_t)&w, ref, page.bytes, &token)) ==
	       -VMEM_EAGAIN)
		dispatch();
	if (rc == -VMEM_EINPROGRESS) {
		uint64_t end_ms = vmemt_now_ms() + VMEMT_DEADLINE_MS;

		while (!atomic_load(&w.over)) {
			VMEMT_NOT_AFTER(end_ms, "the end of a load");
			dispatch();
			sched_yield();
		}
		atomic_fetch_add(&slow, 1);
		rc = w.result;
	}
	assert(rc == -VMEM_EIO || (!rc && is_page(&page, kind, seed)));
	return rc;
}

/* Errors are of devices that do not answer for a while. */
static void load(uint32_t vm, vmem_store_ref ref, enum vmemt_page_kind kind, uint64_t seed)
{
	uint64_t end_ms = vmemt_now_ms() + VMEMT_DEADLINE_MS;

	while (load_once(vm, ref, kind, seed)) {
		VMEMT_NOT_AFTER(end_ms, "a device that answers again");
		assert(atomic_load(&late));
		sched_yield();
	}
}

static void *run(void *arg)
{
	uint32_t n = *(uint32_t *)arg, vm = vms[n];
	uint64_t state = first_seed + n, seed_of[PAGES];
	vmem_store_ref ref[PAGES] = { 0 };

	for (long i = 0; i < operations; i++) {
		uint32_t at = (uint32_t)(vmemt_rand(&state) % PAGES);
		enum vmemt_page_kind kind = at % 3 ? VMEMT_PAGE_NOISE : VMEMT_PAGE_TEXT;
		struct vmemt_page page;
		int rc = 0;

		if (!ref[at]) {
			seed_of[at] = vmemt_rand(&state) % 4000; /* some are versions of one text */
			make_page(&page, kind, seed_of[at]);
			rc = vmem_store_save(store, vm, at, page.bytes, &ref[at]);
			assert(!rc || rc == -VMEM_ENOSPC || rc == -VMEM_EFBIG);
		} else if (vmemt_rand(&state) % 4) {
			load(vm, ref[at], kind, seed_of[at]);
		} else {
			assert(!vmem_store_drop(store, vm, ref[at]));
			ref[at] = 0;
		}
		if (rc)
			sched_yield();
		if (i == operations / 4) /* so that there are slow loads */
			VMEMT_UNTIL(atomic_load_explicit(&added, memory_order_relaxed));
	}
	for (uint32_t at = 0; at < PAGES; at++)
		if (ref[at])
			load(vm, ref[at], at % 3 ? VMEMT_PAGE_NOISE : VMEMT_PAGE_TEXT, seed_of[at]);
	atomic_fetch_sub(&left, 1);
	return NULL;
}

/* Every now and then another device; of three, the first one goes. */
static void come_and_go(int turn)
{
	static uint32_t number[DEVICES], first, end;
	int rc;

	if (turn % TURNS == 8 && end < DEVICES && end - first < 3) {
		vmemt_memory_device_init(&device[end], (end % 2 ? 8 : 32) * MIB, 16);
		device[end].device.flags = (end % 2 ? VMEM_DEVICE_CAN_DISCARD : 0) |
					   (end % 4 > 1 ? VMEM_DEVICE_MAPPED : 0);
		assert(!vmem_store_add_device(store, &device[end].device, NULL, &number[end]));
		end++;
	}
	if (end - first == 3) {
		rc = vmem_store_remove_device(store, number[first]);
		assert(!rc || rc == -VMEM_EBUSY);
		first += !rc;
		removed += !rc;
	}
}

static void work(void)
{
	(void)vmem_store_work(store, 500000, atomic_fetch_add(&now_ns, 1000000));
}

/* All devices answer late: writes to them, reads from them. They are bad from then on. */
static void answer_late(void)
{
	atomic_store(&late, 1);
	for (int i = 0; i < DEVICES; i++)
		atomic_store(&device[i].hold, 1);
	for (int i = 0; i < 4; i++) {
		work();
		atomic_fetch_add(&now_ns, UINT64_C(31000000000));
		sched_yield();
	}
	for (int i = 0; i < DEVICES; i++)
		atomic_store(&device[i].hold, 0);
}

static void *background(void *arg)
{
	(void)arg;
	for (int turn = 0; atomic_load(&left); turn++) {
		come_and_go(turn);
		if (turn % 64 == 0) /* so that there is room for what is read often */
			vmem_store_set_budget(store, (uint64_t)(turn % 128 ? 16 : 3) * MIB);
		atomic_store_explicit(&added, turn >= 8, memory_order_relaxed);
		if (turn % 128 < 64)
			vmem_store_write_out(store, MIB / 4);
		if (turn % 256 == 200)
			answer_late();
		work();
		sched_yield();
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.budget_bytes = 3 * MIB,
					.cold_after_ms = 1 };
	const struct vmem_store_vm_opts group = { .size = sizeof(group),
						  .sharing = VMEM_STORE_SHARE_GROUP,
						  .group = 1 };
	struct vmem_store_out_stats stats = { .size = sizeof(stats) };
	pthread_t thread[WORKERS + 1];
	uint32_t number[WORKERS];
	const char *wrong;

	if (argc > 1)
		operations = atol(argv[1]);
	first_seed = vmemt_seed("store_out_stress");
	if (first_seed % 2) /* so that what does not compress passes through memory */
		opts.max_object_bytes = 3000;
	assert(!vmem_store_new(&store, &opts));
	for (uint32_t i = 0; i < WORKERS; i++) {
		number[i] = i;
		assert(!vmem_store_add_vm(store, i ? &group : NULL, &vms[i]));
		assert(!pthread_create(&thread[i], NULL, run, &number[i]));
	}
	assert(!pthread_create(&thread[WORKERS], NULL, background, NULL));
	for (uint32_t i = 0; i <= WORKERS; i++)
		assert(!pthread_join(thread[i], NULL));
	do {
		(void)vmem_store_poll(store, NULL, 0);
		assert(!vmem_store_get_out_stats(store, &stats));
	} while (stats.writing);
	/* What came late is given back. */
	(void)vmem_store_work(store, 500000, atomic_load(&now_ns));
	do {
		(void)vmem_store_poll(store, NULL, 0);
		assert(!vmem_store_get_out_stats(store, &stats));
	} while (stats.writing);
	vmemi_pool_maintain(store->pool);
	wrong = vmemi_store_check(store);
	if (wrong)
		fprintf(stderr, "%s\n", wrong);
	assert(!wrong && (!stats.lost || late) && slow);
	for (int i = 0; i < DEVICES; i++)
		assert(!atomic_load(&device[i].wrong));
	fprintf(stderr,
		"%u devices removed, %lu segments moved, %lu came home, %lu lost for a while\n",
		removed, (unsigned long)stats.moved, (unsigned long)stats.came_home,
		(unsigned long)stats.lost);
	vmem_store_free(store);
	return 0;
}
