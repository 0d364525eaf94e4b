/* SPDX-License-Identifier: BSD-2-Clause */
/* Loads in progress, and events. */
#include <criterion/criterion.h>
#include <vmem/store.h>
#include "store/slow_tier.h"
#include "support/pages.h"

#define ENTRIES VMEMI_INFLIGHT_ENTRIES

static vmem_store *store;
static uint32_t vm;
static struct vmemt_slow_tier tier;
static struct vmemt_page page[ENTRIES + 1];
static struct vmem_store_event event[ENTRIES + 1];
static uint64_t logged, logged_ref, logged_vm;
static void *drop_at; /* when this lock is taken next, the VM is dropped first */

static void lock(void *context, void *mutex)
{
	if (drop_at == mutex) {
		drop_at = NULL;
		cr_assert_eq(vmem_store_drop_vm(store, vm), 0);
	}
	vmemi_env_default()->lock(context, mutex);
}

static void keep_log(void *context, enum vmem_log_code code, uint64_t a, uint64_t b)
{
	(void)context;
	if (code != VMEM_LOG_CORRUPT_OBJECT)
		return;
	logged++;
	logged_ref = a;
	logged_vm = b;
}

static void make(void)
{
	struct vmem_env env = *vmemi_env_default();
	struct vmem_store_opts opts = { .size = sizeof(opts), .env = &env };

	env.lock = lock;
	env.log = keep_log;
	cr_assert_eq(vmem_store_new(&store, &opts), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
	vmemt_slow_tier_init(&tier, store);
}

static void check_and_free(void)
{
	cr_assert_null(vmemi_store_check(store));
	vmemt_slow_tier_destroy(&tier);
	vmem_store_free(store);
}

TestSuite(inflight, .init = make, .fini = check_and_free);

static vmem_store_ref save(enum vmemt_page_kind kind, uint64_t seed)
{
	struct vmemt_page p;
	vmem_store_ref ref = 0;

	vmemt_page_make(&p, kind, seed);
	cr_assert_eq(vmem_store_save(store, vm, seed, &p, &ref), 0);
	return ref;
}

static vmem_store_token begin(uint64_t key, vmem_store_ref ref, struct vmemt_page *to)
{
	vmem_store_token token = 0;

	cr_assert_eq(vmem_store_load(store, vm, key, ref, to, &token), -VMEM_EINPROGRESS);
	cr_assert_neq(token, 0);
	return token;
}

static struct vmem_store_account account(void)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	cr_assert_eq(vmem_store_vm_account(store, vm, &a), 0);
	return a;
}

Test(inflight, only_pages_in_the_pool)
{
	vmem_store_token token = 9;

	cr_assert_eq(vmem_store_load(store, vm, 0, save(VMEMT_PAGE_SAME, 1), page, &token), 0);
	cr_assert_eq(token, 9);
	cr_assert_eq(vmem_store_load(store, vm, 0, save(VMEMT_PAGE_TEXT, 1), page, NULL),
		     -VMEM_EAGAIN);
	cr_assert_eq(vmemt_slow_tier_held(&tier), 0);
}

Test(inflight, events_come_as_loads_end)
{
	vmem_store_token token[3];
	vmem_store_ref ref[3];

	for (uint64_t i = 0; i < 3; i++) {
		ref[i] = save(VMEMT_PAGE_TEXT, i);
		token[i] = begin(100 + i, ref[i], &page[i]);
	}
	cr_assert_eq(vmem_store_poll(store, event, 3), 0);
	cr_assert_eq(account().loads, 0);
	cr_assert_eq(vmemt_slow_tier_finish(&tier, 2, 0), 0);
	cr_assert_eq(vmemt_slow_tier_finish(&tier, 0, 0), 0);
	cr_assert_eq(vmemt_slow_tier_finish(&tier, 0, 0), 0);
	cr_assert_eq(vmemt_slow_tier_finish(&tier, 0, 0), -VMEM_ENOENT);
	cr_assert_eq(account().loads, 3);
	cr_assert_eq(vmem_store_poll(store, event, 0), 0);
	cr_assert_eq(vmem_store_poll(store, event, 2), 2);
	cr_assert_eq(vmem_store_poll(store, event + 2, 2), 1);
	cr_assert_eq(vmem_store_poll(store, event, 2), 0);
	for (uint64_t i = 0; i < 3; i++) {
		static const uint64_t order[] = { 2, 0, 1 };
		uint64_t n = order[i];

		cr_assert_eq(event[i].type, VMEM_STORE_LOADED);
		cr_assert_eq(event[i].token, token[n]);
		cr_assert_eq(event[i].key, 100 + n);
		cr_assert_eq(event[i].vm, vm);
		cr_assert_eq(event[i].result, 0);
		cr_assert(vmemt_page_is(&page[n], VMEMT_PAGE_TEXT, n));
		cr_assert_eq(vmem_store_drop(store, vm, ref[n]), 0);
	}
}

Test(inflight, errors_leave_the_page_stored)
{
	vmem_store_ref ref = save(VMEMT_PAGE_TEXT, 1);

	begin(1, ref, page);
	begin(2, ref, page + 1);
	vmemt_slow_tier_finish(&tier, 0, -VMEM_EIO);
	vmemt_slow_tier_finish(&tier, 0, -VMEM_EBADMSG);
	cr_assert_eq(vmem_store_poll(store, event, 9), 2);
	cr_assert_eq(event[0].result, -VMEM_EIO);
	cr_assert_eq(event[1].result, -VMEM_EBADMSG);
	cr_assert_eq(account().corrupt, 1);
	cr_assert_eq(account().loads, 0);
	vmem_store_work(store, 0, 0);
	cr_assert_eq(logged, 1);
	cr_assert_eq(logged_ref, ref);
	cr_assert_eq(logged_vm, vm);
	atomic_store(&tier.hold, 0);
	cr_assert_eq(vmem_store_load(store, vm, 1, ref, page, NULL), 0);
	cr_assert(vmemt_page_is(page, VMEMT_PAGE_TEXT, 1));
}

Test(inflight, full_table_is_not_now)
{
	vmem_store_ref ref = save(VMEMT_PAGE_TEXT, 1);
	vmem_store_token token = 7;
	uint64_t spread = 0;

	for (uint64_t i = 0; i < ENTRIES; i++)
		begin(i, ref, &page[i]);
	cr_assert_eq(vmem_store_load(store, vm, 0, ref, &page[ENTRIES], &token), -VMEM_EAGAIN);
	cr_assert_eq(token, 7);
	/* A load that is over holds its place until it is polled. */
	vmemt_slow_tier_finish(&tier, 5, 0);
	cr_assert_eq(vmem_store_load(store, vm, 0, ref, &page[ENTRIES], &token), -VMEM_EAGAIN);
	cr_assert_eq(vmem_store_poll(store, event, 1), 1);
	cr_assert_eq(event[0].key, 5);
	begin(ENTRIES, ref, &page[ENTRIES]);
	for (uint32_t held = ENTRIES; held > 0; held--)
		vmemt_slow_tier_finish(&tier, (uint32_t)vmemt_rand(&spread) % held, 0);
	cr_assert_eq(vmem_store_poll(store, event, ENTRIES + 1), ENTRIES);
	for (uint64_t i = 0; i <= ENTRIES; i++)
		cr_assert(vmemt_page_is(&page[i], VMEMT_PAGE_TEXT, 1));
}

Test(inflight, tokens_are_not_used_again)
{
	vmem_store_ref ref = save(VMEMT_PAGE_TEXT, 1);
	vmem_store_token first = begin(1, ref, page), second;

	cr_assert_eq(vmemt_slow_tier_finish(&tier, 0, 0), 0);
	cr_assert_eq(vmemi_store_finish_load(store, first, 0), -VMEM_ENOENT, "finished twice");
	cr_assert_eq(vmem_store_poll(store, event, 1), 1);
	second = begin(2, ref, page);
	cr_assert_neq(first, second);
	cr_assert_eq(vmemi_store_finish_load(store, first, 0), -VMEM_ENOENT);
	cr_assert_eq(vmemi_store_finish_load(store, 0, 0), -VMEM_ENOENT);
	cr_assert_eq(vmemi_store_finish_load(store, UINT64_MAX, 0), -VMEM_ENOENT);
	cr_assert_eq(vmemt_slow_tier_finish(&tier, 0, 0), 0);
	cr_assert_eq(vmem_store_poll(store, event, 1), 1);
	cr_assert_eq(event[0].token, second);
}

Test(inflight, what_is_being_loaded_stays)
{
	vmem_store_ref ref = save(VMEMT_PAGE_TEXT, 1), other = save(VMEMT_PAGE_TEXT, 2);
	vmem_store_ref same = save(VMEMT_PAGE_SAME, 3);

	begin(1, ref, page);
	cr_assert_eq(vmem_store_drop(store, vm, ref), -VMEM_EBUSY);
	cr_assert_eq(vmem_store_drop(store, vm, other), 0);
	cr_assert_eq(vmem_store_drop(store, vm, same), 0);
	cr_assert_eq(vmem_store_drop_vm(store, vm), -VMEM_EBUSY);
	cr_assert_eq(vmemt_slow_tier_finish(&tier, 0, 0), 0);
	cr_assert(vmemt_page_is(page, VMEMT_PAGE_TEXT, 1));
	cr_assert_eq(vmem_store_drop(store, vm, ref), 0, "over, though not polled");
	cr_assert_eq(vmem_store_poll(store, event, 1), 1);
}

/* Equal pages have one ref: that one of them is being loaded keeps none of the others. */
Test(inflight, equal_pages_are_dropped_beside_a_load)
{
	vmem_store_ref ref = save(VMEMT_PAGE_TEXT, 1);

	for (int pages = 1; pages < 4; pages++)
		cr_assert_eq(save(VMEMT_PAGE_TEXT, 1), ref);
	begin(1, ref, page);
	for (int others = 3; others-- > 0;) {
		cr_assert_eq(vmem_store_drop(store, vm, ref), 0);
		cr_assert_eq(account().pages, 1 + (uint64_t)others);
	}
	cr_assert_eq(vmem_store_drop(store, vm, ref), -VMEM_EBUSY);
	cr_assert_eq(save(VMEMT_PAGE_TEXT, 1), ref);
	begin(2, ref, page + 1);
	cr_assert_eq(vmem_store_drop(store, vm, ref), 0);
	cr_assert_eq(vmemt_slow_tier_finish(&tier, 0, 0), 0);
	cr_assert_eq(vmem_store_drop(store, vm, ref), -VMEM_EBUSY);
	cr_assert_eq(vmemt_slow_tier_finish(&tier, 0, 0), 0);
	cr_assert(vmemt_page_is(page, VMEMT_PAGE_TEXT, 1));
	cr_assert(vmemt_page_is(page + 1, VMEMT_PAGE_TEXT, 1));
	cr_assert_eq(vmem_store_drop(store, vm, ref), 0);
	cr_assert_eq(vmem_store_drop(store, vm, ref), -VMEM_ENOENT);
	cr_assert_eq(account().pages, 0);
	cr_assert_eq(vmem_store_poll(store, event, 9), 2);
}

/* A VM that shares nothing has an object for each page. */
Test(inflight, a_page_alone_stays_beside_its_equal)
{
	struct vmem_store_vm_opts opts = { .size = sizeof(opts), .sharing = VMEM_STORE_SHARE_NONE };
	vmem_store_ref loading, other;

	cr_assert_eq(vmem_store_add_vm(store, &opts, &vm), 0);
	loading = save(VMEMT_PAGE_TEXT, 1);
	other = save(VMEMT_PAGE_TEXT, 1);
	begin(1, loading, page);
	cr_assert_eq(vmem_store_drop(store, vm, loading), -VMEM_EBUSY);
	cr_assert_eq(vmem_store_drop(store, vm, other), 0);
	cr_assert_eq(vmemt_slow_tier_finish(&tier, 0, 0), 0);
	cr_assert_eq(vmem_store_drop(store, vm, loading), 0);
}

Test(inflight, dropped_vm_takes_its_events_along)
{
	vmem_store_ref ref;
	uint32_t first = vm, other;

	cr_assert_eq(vmem_store_add_vm(store, NULL, &other), 0);
	for (uint64_t i = 0; i < 6; i++) {
		vm = i % 2 ? other : first;
		ref = save(VMEMT_PAGE_TEXT, i);
		begin(i, ref, &page[i]);
	}
	vm = first;
	while (!vmemt_slow_tier_finish(&tier, 0, 0))
		;
	cr_assert_eq(vmem_store_drop_vm(store, other), 0);
	cr_assert_null(vmemi_store_check(store));
	cr_assert_eq(vmem_store_poll(store, event, 9), 3);
	for (uint64_t i = 0; i < 3; i++)
		cr_assert_eq(event[i].key, 2 * i);
}

/* The tier knew the VM, and tells of it while it is being dropped. */
Test(inflight, dropped_vm_gets_no_more_events)
{
	struct vmem_store_event lost = { .type = VMEM_STORE_LOST, .vm = vm, .result = -VMEM_EIO };
	uint32_t again;

	drop_at = store->inflight.lock.lock;
	cr_assert_eq(vmemi_store_post(store, &lost), -VMEM_ENOENT);
	cr_assert_null(drop_at);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &again), 0);
	cr_assert_eq(again, vm);
	cr_assert_eq(vmem_store_poll(store, event, 9), 0);
}

Test(inflight, peeks_and_batches_too)
{
	struct vmem_store_item item[4] = { 0 };

	for (uint64_t i = 0; i < 4; i++) {
		item[i].key = i;
		item[i].ref = save(i % 2 ? VMEMT_PAGE_TEXT : VMEMT_PAGE_SAME, i);
		item[i].page = &page[i];
	}
	cr_assert_eq(vmem_store_peek_batch(store, vm, item, 4), 2);
	cr_assert_eq(item[1].result, -VMEM_EINPROGRESS);
	cr_assert_eq(item[3].result, -VMEM_EINPROGRESS);
	while (!vmemt_slow_tier_finish(&tier, 0, 0))
		;
	cr_assert_eq(vmem_store_poll(store, event, 9), 2);
	cr_assert_eq(event[0].token, item[1].token);
	cr_assert_eq(event[1].token, item[3].token);
	cr_assert(vmemt_page_is(&page[3], VMEMT_PAGE_TEXT, 3));
	cr_assert_eq(account().loads, 0);
}

Test(inflight, poll_lets_the_tier_complete)
{
	vmem_store_ref ref = save(VMEMT_PAGE_NOISE, 1);

	begin(1, ref, page);
	begin(2, ref, page + 1);
	atomic_store(&tier.at_poll, 1);
	cr_assert_eq(vmem_store_poll(store, event, 9), 1);
	cr_assert_eq(event[0].key, 1);
	cr_assert_eq(vmem_store_poll(store, event, 9), 1);
	cr_assert_eq(event[0].key, 2);
}

static vmem_store_token eager_token;

/* A tier that has finished before begin returns. */
static void finish_at_once(void *context, vmem_store_token token)
{
	cr_assert_eq(eager_token, token, "the caller must know it by now");
	cr_assert_eq(vmemi_store_finish_load(context, token, 0), 0);
}

static int slow_with_key_4(void *context, uint64_t key, vmem_store_ref ref)
{
	(void)context;
	return key == 4 && ref;
}

Test(inflight, tier_may_finish_in_begin)
{
	struct vmemi_store_tier eager = { .context = store,
					  .slow = slow_with_key_4,
					  .begin = finish_at_once };
	vmem_store_ref ref = save(VMEMT_PAGE_TEXT, 1);

	vmemi_store_set_tier(store, &eager);
	cr_assert_eq(vmem_store_load(store, vm, 4, ref, page, &eager_token), -VMEM_EINPROGRESS);
	cr_assert_eq(vmem_store_poll(store, event, 9), 1);
	cr_assert_eq(event[0].token, eager_token);
	cr_assert(vmemt_page_is(page, VMEMT_PAGE_TEXT, 1));
	cr_assert_eq(vmem_store_load(store, vm, 3, ref, page, NULL), 0, "the key is asked too");
}

Test(inflight, offers_and_losses)
{
	struct vmem_store_event offer = { .type = VMEM_STORE_OFFER, .vm = vm, .key = 1 };
	struct vmem_store_event lost = {
		.type = VMEM_STORE_LOST, .vm = vm, .key = 2, .result = -VMEM_EIO
	};
	vmem_store_ref ref = save(VMEMT_PAGE_TEXT, 1);
	uint32_t n = 0;

	cr_assert_eq(vmemi_store_post(store, &lost), 0);
	begin(7, ref, page);
	cr_assert_eq(vmemi_store_post(store, &offer), 0);
	vmemt_slow_tier_finish(&tier, 0, 0);
	cr_assert_eq(vmem_store_poll(store, event, 9), 3);
	cr_assert_eq(event[0].type, VMEM_STORE_LOST);
	cr_assert_eq(event[0].key, 2);
	cr_assert_eq(event[0].vm, vm);
	cr_assert_eq(event[0].result, -VMEM_EIO);
	cr_assert_eq(event[0].token, 0);
	cr_assert_eq(event[1].type, VMEM_STORE_OFFER);
	cr_assert_eq(event[1].result, 0);
	cr_assert_eq(event[2].type, VMEM_STORE_LOADED);

	lost.vm = vm + 1;
	cr_assert_eq(vmemi_store_post(store, &lost), -VMEM_ENOENT);
	lost.vm = vm;
	while (!vmemi_store_post(store, &offer))
		n++;
	cr_assert_eq(n, ENTRIES / 2, "offers leave room for loads");
	while (!vmemi_store_post(store, &lost))
		n++;
	cr_assert_eq(n, ENTRIES);
	cr_assert_null(vmemi_store_check(store));
	cr_assert_eq(vmem_store_poll(store, event, ENTRIES + 1), ENTRIES);
}
