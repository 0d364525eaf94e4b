/* SPDX-License-Identifier: BSD-2-Clause */
/* Decayed sequentiality, as VSwapper (Amit, Tsafrir, Schuster: ASPLOS 2014, section 3) found it: what left in any order is
 * read back in order, and what lies beside it on the device is no longer what is wanted next. What left together comes
 * together: who takes up what is offered reads each block about once, whatever the orders are. */
#include "store/out_tools.h"
#include "store/store_internal.h"
#include "support/rng.h"

enum { EVENTS = 64 };

static bool have[PAGES]; /* the guest */

static bool is_out(uint32_t i)
{
	struct vmemi_located w;

	if (vmemi_pool_locate(store->pool, vm, vmemi_ref_payload(ref[i]), &w))
		return false;
	vmemi_pool_located_end(store->pool, &w);
	return true;
}

/* Saves all, in order or not, and has written out what can be. Returns how many pages are out. */
static uint32_t put_out(bool in_order, uint64_t *rng)
{
	static uint32_t order[PAGES];
	uint32_t out = 0;

	for (uint32_t i = 0; i < PAGES; i++) {
		uint32_t j = in_order ? i : (uint32_t)(vmemt_rand(rng) % (i + 1));

		order[i] = order[j];
		order[j] = i;
	}
	for (uint32_t i = 0; i < PAGES; i++)
		ref[order[i]] = save(vm, VMEMT_PAGE_TEXT, (uint64_t)order[i] * EDITS);
	vmem_store_write_out(store, BUDGET);
	for (int turn = 0; turn < 64; turn++) {
		work();
		settle();
	}
	for (uint32_t i = 0; i < PAGES; i++)
		out += is_out(i);
	return out;
}

/* 0, or -VMEM_EAGAIN: it is nowhere in memory. */
static int get_now(uint32_t i)
{
	struct vmemt_page page;
	int rc = vmem_store_load(store, vm, (uint64_t)i * EDITS, ref[i], page.bytes, NULL);

	if (!rc)
		cr_assert(is_page(&page, VMEMT_PAGE_TEXT, (uint64_t)i * EDITS));
	return rc;
}

/* A page that is read; and of those that are offered with it what is not there yet, if the guest takes them. */
static void get(uint32_t i, bool take)
{
	struct vmem_store_event event[EVENTS];
	struct vmemt_page page;
	vmem_store_token token;
	uint32_t n = 0;
	int rc = vmem_store_load(store, vm, (uint64_t)i * EDITS, ref[i], page.bytes, &token);

	have[i] = true;
	if (rc == -VMEM_EINPROGRESS) {
		for (int turn = 0; !(n = vmem_store_poll(store, event, EVENTS)); turn++)
			cr_assert_lt(turn, TURNS);
		cr_assert(event[0].type == VMEM_STORE_LOADED && !event[0].result);
		rc = 0;
	}
	cr_assert_eq(rc, 0);
	cr_assert(is_page(&page, VMEMT_PAGE_TEXT, (uint64_t)i * EDITS));
	for (uint32_t k = 1; k < n && take; k++) {
		uint32_t other = (uint32_t)(event[k].key / EDITS);

		cr_assert(event[k].type == VMEM_STORE_OFFER && other < PAGES);
		have[other] = have[other] || !get_now(other);
	}
}

/* Reads of the device in a thousand pages that are out, which all come back in order. */
static uint64_t reads_of_a_thousand(bool in_order, bool take, uint64_t *rng)
{
	uint64_t out, reads;

	open_with_device();
	add(&second, 32 * MIB, -1); /* where nothing goes while there is room */
	out = put_out(in_order, rng);
	cr_assert_gt(out, PAGES / 2);
	memset(have, 0, sizeof(have));
	for (uint32_t i = 0; i < PAGES; i++)
		if (!have[i])
			get(i, take);
	reads = atomic_load(&device.reads);
	cr_assert_eq(atomic_load(&second.writes), 0);
	close_store();
	return reads * 1000 / out;
}

Test(vswapper_order, decayed_sequentiality)
{
	uint64_t rng = vmemt_seed("vswapper_order");
	uint64_t in_order = reads_of_a_thousand(true, true, &rng);
	uint64_t mixed = reads_of_a_thousand(false, true, &rng);
	uint64_t mixed_untaken = reads_of_a_thousand(false, false, &rng);

	cr_log_info("reads of 1000 pages: %lu in order, %lu mixed, %lu mixed and nothing taken up",
		    (unsigned long)in_order, (unsigned long)mixed, (unsigned long)mixed_untaken);
	cr_assert_lt(in_order, 750);
	cr_assert_lt(mixed, 750);
	cr_assert_lt(mixed, mixed_untaken);
}
