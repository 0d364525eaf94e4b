/* SPDX-License-Identifier: BSD-2-Clause */
/* Log records name what the caller knows: a damaged object of a VM by its ref, one of a group by its handle. */
#include <criterion/criterion.h>
#include "base/lock.h"
#include "pool/pool_of.h"
#include "store/store_internal.h"
#include "support/pages.h"

static vmem_store *store;
static uint64_t logged, logged_a, logged_b;

static void log_record(void *context, enum vmem_log_code code, uint64_t a, uint64_t b)
{
	cr_assert_eq(context, &logged);
	cr_assert_eq(code, VMEM_LOG_CORRUPT_OBJECT);
	logged++;
	logged_a = a;
	logged_b = b;
}

static void make(void)
{
	struct vmem_env env = *vmemi_env_default();
	const struct vmem_store_opts opts = { .size = sizeof(opts), .env = &env };

	env.context = &logged;
	env.log = log_record;
	cr_assert_eq(vmem_store_new(&store, &opts), 0);
}

static void end(void)
{
	vmem_store_free(store);
}

TestSuite(store_log, .init = make, .fini = end);

/* A page of the VM whose object is damaged, and was found to be. */
static vmem_store_ref damage(uint32_t vm)
{
	struct vmemt_page page;
	vmem_store_ref ref;
	uint32_t bytes;

	vmemt_page_make(&page, VMEMT_PAGE_NOISE, vm);
	cr_assert_eq(vmem_store_save(store, vm, 0, &page, &ref), 0);
	vmemi_pool_object_bytes(store->pool, vmemi_ref_payload(ref), &bytes)[bytes - 1] ^= 1;
	cr_assert_eq(vmem_store_load(store, vm, 0, ref, &page, NULL), -VMEM_EBADMSG);
	return ref;
}

static uint32_t add_vm(uint64_t group)
{
	const struct vmem_store_vm_opts opts = { .size = sizeof(opts),
						 .sharing = group ? VMEM_STORE_SHARE_GROUP
								  : VMEM_STORE_SHARE_VM,
						 .group = group };
	uint32_t vm;

	cr_assert_eq(vmem_store_add_vm(store, &opts, &vm), 0);
	return vm;
}

Test(store_log, of_a_vm_says_ref_and_vm)
{
	uint32_t vm = (add_vm(8), add_vm(0));
	vmem_store_ref ref = damage(vm);

	(void)vmem_store_work(store, 0, 0);
	cr_assert_eq(logged, 1);
	cr_assert_eq(logged_a, ref);
	cr_assert_eq(logged_b, vm);
}

Test(store_log, of_a_group_says_the_handle)
{
	uint32_t vm = (add_vm(0), add_vm(7));
	vmem_store_ref ref;

	(void)add_vm(8);
	ref = damage(vm);
	(void)vmem_store_work(store, 0, 0);
	cr_assert_eq(logged, 1);
	cr_assert_eq(logged_a, vmemi_ref_payload(ref));
	cr_assert_eq(logged_b, UINT64_MAX);
}
