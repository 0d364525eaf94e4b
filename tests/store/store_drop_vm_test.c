/* SPDX-License-Identifier: BSD-2-Clause */
/* A VM that ends holds nobody up, however many pages it has: what background work waits for is given back
 * in between. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include "store/store_internal.h"
#include "support/pages.h"

enum { PAGES = 20000, AT_ONCE = 1000 };

static vmem_store *store;

/* While cold is locked: pages of the watched domain. */
static struct vmemi_domain *watched;
static uint64_t pages_when_locked;
static uint64_t most_at_once; /* that went away in between */

static void *lock_new(void *context)
{
	pthread_mutex_t *lock = malloc(sizeof(*lock));

	(void)context;
	cr_assert_not_null(lock);
	cr_assert_eq(pthread_mutex_init(lock, NULL), 0);
	return lock;
}

static void lock_free(void *context, void *lock)
{
	(void)context;
	cr_assert_eq(pthread_mutex_destroy(lock), 0);
	free(lock);
}

static bool is_watched(const void *lock)
{
	return watched && lock == store->cold.lock.lock;
}

static void lock(void *context, void *lock)
{
	(void)context;
	pthread_mutex_lock(lock);
	if (is_watched(lock))
		pages_when_locked = vmemi_counter(&watched->pages);
}

static void unlock(void *context, void *lock)
{
	uint64_t gone;

	(void)context;
	if (is_watched(lock)) {
		gone = pages_when_locked - vmemi_counter(&watched->pages);
		most_at_once = gone > most_at_once ? gone : most_at_once;
	}
	pthread_mutex_unlock(lock);
}

static void make(void)
{
	static const struct vmem_env env = { .size = sizeof(env),
					     .lock_new = lock_new,
					     .lock_free = lock_free,
					     .lock = lock,
					     .unlock = unlock };
	const struct vmem_store_opts opts = { .size = sizeof(opts), .env = &env };

	cr_assert_eq(vmem_store_new(&store, &opts), 0);
}

static void check_and_free(void)
{
	cr_assert_null(vmemi_store_check(store));
	watched = NULL;
	vmem_store_free(store);
}

TestSuite(store_drop_vm, .init = make, .fini = check_and_free);

static uint32_t add_vm_of_group(void)
{
	const struct vmem_store_vm_opts opts = { .size = sizeof(opts),
						 .sharing = VMEM_STORE_SHARE_GROUP };
	uint32_t vm;

	cr_assert_eq(vmem_store_add_vm(store, &opts, &vm), 0);
	return vm;
}

static void save_pages(uint32_t vm, uint64_t first)
{
	struct vmemt_page page;
	vmem_store_ref ref;

	for (uint64_t i = first; i < first + PAGES; i++) {
		vmemt_page_make(&page, VMEMT_PAGE_WORD, i);
		cr_assert_eq(vmem_store_save(store, vm, i, &page, &ref), 0);
	}
}

Test(store_drop_vm, background_work_waits_for_few_of_its_pages)
{
	uint32_t goes = add_vm_of_group(), stays = add_vm_of_group();

	save_pages(goes, 0);
	save_pages(stays, PAGES / 2);
	watched = vmemi_store_vm(store, goes)->domain;
	cr_assert_eq(vmemi_counter(&watched->pages), 2 * PAGES);
	cr_assert_eq(vmem_store_drop_vm(store, goes), 0);
	cr_assert_eq(vmemi_counter(&watched->pages), PAGES);
	cr_assert_leq(most_at_once, AT_ONCE);
}
