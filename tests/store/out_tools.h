/* SPDX-License-Identifier: BSD-2-Clause */
/* A store with devices in memory, for a test program: one store, one VM, its pages. */
#ifndef VMEMT_OUT_TOOLS_H
#define VMEMT_OUT_TOOLS_H
#include <criterion/criterion.h>
#include "pool/pool_of.h"
#include "store/memory_device.h"
#include "store/model_pages.h"
#include "store/store_close.h"

enum { MIB = 1 << 20, BUDGET = 4 * MIB, PAGES = 3000, TURNS = 100000 };

static struct vmemt_fail_alloc heap;
static struct vmemt_memory_device device;
static __attribute__((unused)) struct vmemt_memory_device second;
static vmem_store *store;
static uint32_t vm;
static vmem_store_ref ref[PAGES]; /* 0: not stored */
static uint64_t now_ns;

static inline void open_store(uint64_t flags)
{
	const struct vmem_store_opts opts = { .size = sizeof(opts),
					      .flags = flags,
					      .allocator = &heap.allocator,
					      .budget_bytes = BUDGET,
					      .cold_after_ms = 1 };

	vmemt_fail_alloc_init(&heap);
	cr_assert_eq(vmem_store_new(&store, &opts), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
}

static inline void add(struct vmemt_memory_device *m, uint64_t bytes, int32_t priority)
{
	const struct vmem_store_device_opts opts = { .size = sizeof(opts), .priority = priority };

	vmemt_memory_device_init(m, bytes, 32);
	cr_assert_eq(vmem_store_add_device(store, &m->device, &opts, NULL), 0);
}

static inline void open_with_device(void)
{
	open_store(VMEM_STORE_AS_SAVED);
	add(&device, 32 * MIB, 0);
}

/* With one that takes one request at a time. */
static inline void open_with_narrow_device(void)
{
	open_store(VMEM_STORE_AS_SAVED);
	vmemt_memory_device_init(&device, 32 * MIB, 1);
	cr_assert_eq(vmem_store_add_device(store, &device.device, NULL, NULL), 0);
}

static inline struct vmem_store_out_stats out_stats(void)
{
	struct vmem_store_out_stats stats = { .size = sizeof(stats) };

	cr_assert_eq(vmem_store_get_out_stats(store, &stats), 0);
	return stats;
}

static inline struct vmem_store_device_stats stats_of(uint32_t number)
{
	struct vmem_store_device_stats stats = { .size = sizeof(stats) };

	cr_assert_eq(vmem_store_get_device_stats(store, number, &stats), 0);
	return stats;
}

static inline void work(void)
{
	now_ns += 1000000;
	(void)vmem_store_work(store, 1000000, now_ns);
}

/* Until no write is in flight. */
static inline void settle(void)
{
	for (int turn = 0; out_stats().writing; turn++) {
		cr_assert_lt(turn, TURNS);
		cr_assert_eq(vmem_store_poll(store, NULL, 0), 0);
	}
	vmemi_pool_maintain(store->pool); /* vmem_store_work() would begin others */
}

static inline void close_store(void)
{
	atomic_store(&device.hold, 0);
	settle();
	vmemt_store_close(store, &heap);
	cr_assert_eq(atomic_load(&device.wrong), 0);
	cr_assert(atomic_load(&device.closed));
}

static inline int save_page(uint32_t of, enum vmemt_page_kind kind, uint64_t seed,
			    vmem_store_ref *ret_ref)
{
	struct vmemt_page page;

	make_page(&page, kind, seed);
	return vmem_store_save(store, of, seed, page.bytes, ret_ref);
}

/* Goes on until it is saved. */
static inline vmem_store_ref save(uint32_t of, enum vmemt_page_kind kind, uint64_t seed)
{
	vmem_store_ref result = 0;
	int rc;

	for (int turn = 0; (rc = save_page(of, kind, seed, &result)) == -VMEM_ENOSPC; turn++) {
		cr_assert_lt(turn, TURNS);
		work();
	}
	cr_assert_eq(rc, 0);
	return result;
}

static inline void save_all(void)
{
	for (uint32_t i = 0; i < PAGES; i++)
		ref[i] = save(vm, VMEMT_PAGE_NOISE, i * EDITS);
}

/* More segments than are written at once, and less than the budget. */
static inline void save_some(void)
{
	memset(ref, 0, sizeof(ref));
	for (uint32_t i = 0; i < PAGES / 5; i++)
		ref[i] = save(vm, VMEMT_PAGE_NOISE, i * EDITS);
}

/* Pages of text, version by version, of which a part are deltas; all that is in full segments is out. */
enum { SOME = PAGES / 2, DELTAS = SOME / 4 };

static inline uint64_t version_of(uint32_t i)
{
	return i % (SOME / 2) * EDITS + i / (SOME / 2);
}

static inline void save_deltas(void)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	memset(ref, 0, sizeof(ref));
	for (uint32_t i = 0; i < SOME; i++)
		ref[i] = save(vm, VMEMT_PAGE_TEXT, version_of(i));
	for (int turn = 0; a.pages_delta < DELTAS; turn++) {
		cr_assert_lt(turn, TURNS);
		work();
		cr_assert_eq(vmem_store_total_account(store, &a), 0);
	}
	/* The segment that has them becomes full. */
	for (uint32_t i = 0; i < 2 * VMEM_POOL_SEGMENT_BYTES / VMEM_PAGE_SIZE; i++)
		(void)save(vm, VMEMT_PAGE_NOISE, (PAGES + i) * EDITS);
	vmem_store_write_out(store, 32 * MIB);
	for (int turn = 0; turn < 100; turn++) {
		work();
		settle();
	}
	vmem_store_write_out(store, 0);
	cr_assert_gt(out_stats().segments, 1);
}

/* A segment, to the end. */
static inline void write_one(void)
{
	vmem_store_write_out(store, VMEM_POOL_SEGMENT_BYTES);
	work();
	settle();
}

/* Takes events until loads are over, and forgets offers. Returns how many are. */
static inline uint32_t poll_loaded(struct vmem_store_event *event, uint32_t capacity)
{
	uint32_t n, loaded = 0;

	do {
		n = vmem_store_poll(store, event + loaded, capacity - loaded);
		for (uint32_t i = loaded, end = loaded + n; i < end; i++)
			if (event[i].type != VMEM_STORE_OFFER)
				event[loaded++] = event[i];
	} while (n && !loaded);
	return loaded;
}

/* With the event of its token, if it takes time. */
static inline int load(vmem_store_ref r, void *page)
{
	struct vmem_store_event event = { .token = 0 };
	vmem_store_token token = 0;
	int rc = vmem_store_load(store, vm, 7, r, page, &token);

	if (rc != -VMEM_EINPROGRESS)
		return rc;
	for (int turn = 0; !poll_loaded(&event, 1); turn++) {
		cr_assert_lt(turn, TURNS);
		vmem_store_wait(store, 1000000);
	}
	cr_assert(event.token == token && event.type == VMEM_STORE_LOADED && event.key == 7);
	return event.result;
}

static inline void expect(vmem_store_ref r, enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page page;
	int rc;

	memset(&page, 0x77, sizeof(page));
	rc = load(r, page.bytes);
	cr_assert_eq(rc, 0, "page %lu: %d", (unsigned long)seed, rc);
	cr_assert(is_page(&page, kind, seed));
}

static __attribute__((unused))
uint64_t seed_of[PAGES]; /* of pages that were saved by random operations */

/* Page @i is saved if it is not there, as @seed; else it is dropped, or looked at. */
static inline void churn(uint32_t i, enum vmemt_page_kind kind, uint64_t seed, bool drop)
{
	if (!ref[i]) {
		seed_of[i] = seed;
		ref[i] = save(vm, kind, seed);
	} else if (drop) {
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
		ref[i] = 0;
	} else {
		expect(ref[i], kind, seed_of[i]);
	}
}

static inline void expect_all(void)
{
	for (uint32_t i = 0; i < PAGES; i++)
		if (ref[i])
			expect(ref[i], VMEMT_PAGE_NOISE, i * EDITS);
}

static inline void expect_deltas(void)
{
	for (uint32_t i = 0; i < SOME; i++)
		expect(ref[i], VMEMT_PAGE_TEXT, version_of(i));
}

/* One that is out. */
static inline vmem_store_ref first_out(void)
{
	struct vmemt_page page;

	for (uint32_t i = 0; i < PAGES; i++)
		if (ref[i] &&
		    vmem_store_load(store, vm, 0, ref[i], page.bytes, NULL) == -VMEM_EAGAIN)
			return ref[i];
	cr_assert_fail("nothing is out");
	return 0;
}

#endif
