/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages beside one that was read: offered to their VM, and loaded at once while they are in the window. */
#include "store/out_tools.h"
#include "store/store_internal.h"
#include "support/rng.h"

enum { OFFERS_MAX = 8, EVENTS = 64 };

static void open_text(void)
{
	open_with_device();
	for (uint32_t i = 0; i < PAGES; i++)
		ref[i] = save(vm, VMEMT_PAGE_TEXT, i * EDITS);
	vmem_store_write_out(store, BUDGET);
	while (out_stats().segments < 4) {
		work();
		settle();
	}
}

TestSuite(store_offer, .init = open_text, .fini = close_store);

/* Loads or peeks a page that takes time, until it is over. Returns how many offers came with it. */
static uint32_t read_out(uint32_t of, vmem_store_ref r, bool peek, struct vmemt_page *page,
			 struct vmem_store_event *offer)
{
	struct vmem_store_event event[EVENTS];
	vmem_store_token token;
	uint32_t n = 0;
	int rc = peek ? vmem_store_peek(store, of, 5, r, page->bytes, &token)
		      : vmem_store_load(store, of, 5, r, page->bytes, &token);

	cr_assert_eq(rc, -VMEM_EINPROGRESS);
	for (int turn = 0; !(n = vmem_store_poll(store, event, EVENTS)); turn++)
		cr_assert_lt(turn, TURNS);
	cr_assert(event[0].type == VMEM_STORE_LOADED && event[0].token == token);
	cr_assert(!event[0].result && event[0].key == 5);
	for (uint32_t i = 1; i < n; i++) {
		cr_assert(event[i].type == VMEM_STORE_OFFER && event[i].vm == of);
		cr_assert(!event[i].token && !event[i].result && !event[i].flags);
		offer[i - 1] = event[i];
	}
	return n - 1;
}

static int load_now(uint32_t i)
{
	struct vmemt_page page;
	int rc = vmem_store_load(store, vm, i, ref[i], page.bytes, NULL);

	if (!rc)
		cr_assert(is_page(&page, VMEMT_PAGE_TEXT, i * EDITS));
	return rc;
}

/* The next one that is out and in no window. PAGES: none. */
static uint32_t next_out(uint32_t i)
{
	while (i < PAGES && (!ref[i] || load_now(i) != -VMEM_EAGAIN))
		i++;
	return i;
}

static uint32_t warm_words(void)
{
	uint32_t warm = 0;

	for (uint32_t i = 0; i < VMEMI_WINDOWS * VMEMI_PIECES; i++)
		warm += atomic_load(&store->out->warm[i / VMEMI_PIECES][i % VMEMI_PIECES]) != 0;
	return warm;
}

Test(store_offer, what_was_read_too_is_offered_and_loaded_at_once)
{
	struct vmem_store_event offer[EVENTS];
	struct vmemt_page page;
	uint32_t i, offers = 0;

	for (i = next_out(0); i < PAGES; i = next_out(i + 1)) {
		uint32_t n = read_out(vm, ref[i], false, &page, offer);
		uint64_t reads = atomic_load(&device.reads), warm = out_stats().warm_loads;

		cr_assert(is_page(&page, VMEMT_PAGE_TEXT, i * EDITS));
		cr_assert_leq(n, OFFERS_MAX);
		for (uint32_t k = 0; k < n; k++) {
			uint32_t other = (uint32_t)(offer[k].key / EDITS);

			cr_assert(other != i && other < PAGES);
			cr_assert_eq(load_now(other), 0);
		}
		cr_assert_eq(atomic_load(&device.reads), reads);
		cr_assert_eq(out_stats().warm_loads, warm + n);
		offers += n;
	}
	cr_assert_gt(offers, 0);
	cr_assert_eq(out_stats().offers, offers);
	cr_assert_eq(out_stats().lost, 0);
}

/* One page after the other, as they were saved: most of them come with another. */
Test(store_offer, a_walk_reads_less_often_than_it_loads)
{
	struct vmem_store_event offer[EVENTS];
	struct vmemt_page page;
	uint64_t out = 0;

	for (uint32_t i = 0; i < PAGES; i++) {
		struct vmemi_located w;

		if (!vmemi_pool_locate(store->pool, vm, vmemi_ref_payload(ref[i]), &w)) {
			vmemi_pool_located_end(store->pool, &w);
			out++;
		}
	}
	for (uint32_t i = next_out(0); i < PAGES; i = next_out(i + 1))
		(void)read_out(vm, ref[i], false, &page, offer);
	cr_assert_gt(out, 100);
	cr_assert_lt(atomic_load(&device.reads), out / 2);
}

Test(store_offer, a_peek_offers_nothing)
{
	struct vmem_store_event offer[EVENTS];
	struct vmemt_page page;

	for (uint32_t i = 0; i < 8; i++)
		cr_assert_eq(read_out(vm, ref[next_out(i)], true, &page, offer), 0);
	cr_assert_eq(out_stats().offers, 0);
}

Test(store_offer, a_page_is_offered_only_to_whom_it_is)
{
	const struct vmem_store_vm_opts group = { .size = sizeof(group),
						  .sharing = VMEM_STORE_SHARE_GROUP,
						  .group = 5 };
	struct vmem_store_event offer[EVENTS];
	struct vmemt_page page;
	uint32_t of[2], offers = 0;

	add(&second, 32 * MIB, 1);
	for (uint32_t i = 0; i < PAGES; i++)
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
	for (uint32_t i = 0; i < 2; i++)
		cr_assert_eq(vmem_store_add_vm(store, &group, &of[i]), 0);
	/* Every fourth is the other's, too, under the first one's key. */
	for (uint32_t i = 0; i < PAGES; i++) {
		ref[i] = save(of[i % 2], VMEMT_PAGE_TEXT, i * EDITS);
		if (i % 4 == 0)
			(void)save(of[1], VMEMT_PAGE_TEXT, i * EDITS);
	}
	settle();
	vmem_store_write_out(store, BUDGET);
	work();
	settle();
	for (uint32_t i = 0; i < PAGES; i++) {
		uint32_t mine = of[i % 2], n;

		if (vmem_store_load(store, mine, i, ref[i], page.bytes, NULL) != -VMEM_EAGAIN)
			continue;
		n = read_out(mine, ref[i], false, &page, offer);
		for (uint32_t k = 0; k < n; k++)
			cr_assert_eq(offer[k].key / EDITS % 2, i % 2);
		offers += n;
	}
	cr_assert_gt(offers, 0);
}

/* Nobody kept their keys. */
Test(store_offer, pages_from_before_the_first_device_are_not_offered)
{
	struct vmem_store_event offer[EVENTS];
	struct vmemt_page page;
	uint32_t loads = 0;

	close_store();
	open_store(VMEM_STORE_AS_SAVED);
	for (uint32_t i = 0; i < PAGES; i++)
		ref[i] = i < 500 ? save(vm, VMEMT_PAGE_TEXT, i * EDITS) : 0;
	add(&device, 32 * MIB, 0);
	for (uint32_t i = 500; i < 1000; i++)
		ref[i] = save(vm, VMEMT_PAGE_TEXT, i * EDITS);
	for (int i = 0; i < 2; i++) {
		vmem_store_write_out(store, BUDGET);
		work();
		settle();
	}
	for (uint32_t i = next_out(0); i < PAGES; i = next_out(i + 1)) {
		uint32_t n = read_out(vm, ref[i], false, &page, offer);

		cr_assert(is_page(&page, VMEMT_PAGE_TEXT, i * EDITS));
		for (uint32_t k = 0; k < n; k++)
			cr_assert_geq(offer[k].key / EDITS, 500);
		loads++;
	}
	cr_assert_gt(loads, 0);
}

Test(store_offer, what_is_dropped_is_not_offered)
{
	struct vmem_store_event offer[EVENTS];
	struct vmemt_page page;

	for (uint32_t i = 1; i < PAGES; i += 2) {
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
		ref[i] = 0;
	}
	for (uint32_t i = next_out(0); i < PAGES; i = next_out(i + 1)) {
		uint32_t n = read_out(vm, ref[i], false, &page, offer);

		for (uint32_t k = 0; k < n; k++)
			cr_assert_eq(offer[k].key / EDITS % 2, 0);
	}
}

/* Others may lie there soon. */
Test(store_offer, windows_are_cold_once_the_copy_has_gone)
{
	struct vmem_store_event offer[EVENTS];
	struct vmemt_page page;

	for (uint32_t i = next_out(0); i < PAGES; i = next_out(i + 1))
		(void)read_out(vm, ref[i], false, &page, offer);
	cr_assert_gt(warm_words(), 0);
	for (uint32_t i = 0; i < PAGES; i++)
		cr_assert_eq(vmem_store_drop(store, vm, ref[i]), 0);
	work();
	cr_assert_eq(stats_of(0).taken_bytes, 0);
	cr_assert_eq(warm_words(), 0);
}

/* What was damaged in memory is read again. */
Test(store_offer, a_damaged_window_is_no_loss)
{
	struct vmem_store_event offer[EVENTS];
	struct vmemt_page page;
	uint32_t i, other;

	for (i = next_out(0); !read_out(vm, ref[i], false, &page, offer); i = next_out(i + 1))
		;
	other = (uint32_t)(offer[0].key / EDITS);
	memset(store->out->buffers, 0x5a, VMEMI_WINDOWS * VMEMI_WINDOW_BYTES);
	cr_assert_eq(load_now(other), -VMEM_EAGAIN);
	(void)read_out(vm, ref[other], false, &page, offer);
	cr_assert(is_page(&page, VMEMT_PAGE_TEXT, other * EDITS));
	cr_assert_eq(load_now(other), 0);
}

Test(store_offer, a_read_that_failed_leaves_nothing)
{
	uint32_t i = next_out(0);
	struct vmemt_page page;

	atomic_store(&device.corrupt, 1);
	cr_assert_eq(load(ref[i], page.bytes), -VMEM_EIO);
	cr_assert_eq(warm_words(), 0);
	cr_assert_eq(out_stats().offers, 0);
	atomic_store(&device.corrupt, 0);
	cr_assert_eq(load(ref[i], page.bytes), 0);
	cr_assert_gt(warm_words(), 0);
}

/* Offers leave half of the queue to loads. */
Test(store_offer, offers_are_forgotten_when_events_wait)
{
	const struct vmem_store_event lost = { .type = VMEM_STORE_LOST, .vm = vm };
	struct vmem_store_event event[VMEMI_INFLIGHT_ENTRIES];
	struct vmemt_page page;
	vmem_store_token token;
	uint32_t i = next_out(0), n;

	for (uint32_t k = 0; k < VMEMI_INFLIGHT_ENTRIES / 2; k++)
		cr_assert_eq(vmemi_store_post(store, &lost), 0);
	cr_assert_eq(vmem_store_load(store, vm, 5, ref[i], page.bytes, &token), -VMEM_EINPROGRESS);
	vmemi_out_poll(store);
	n = vmem_store_poll(store, event, VMEMI_INFLIGHT_ENTRIES);
	cr_assert_eq(n, VMEMI_INFLIGHT_ENTRIES / 2 + 1);
	cr_assert_eq(event[n - 1].type, VMEM_STORE_LOADED);
	cr_assert_eq(event[n - 1].token, token);
}
