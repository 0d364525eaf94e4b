/* SPDX-License-Identifier: BSD-2-Clause */
/* CPU time in the accounts, by a clock that goes on only when a codec is at work, or when it is looked at. */
#include <criterion/criterion.h>
#include "base/lock.h"
#include "store/store_internal.h"
#include "support/pages.h"

enum { TICK = 1000, SAMPLE = VMEMI_CPU_SAMPLE, PAGES = 10 * SAMPLE };

static vmem_store *store;
static uint32_t vm;
static uint64_t clock_ns;
static vmem_store_ref ref[PAGES];

static uint64_t looks, look_ns;
static bool encoded; /* since the save began: with a new segment, it is encoded again */

static uint64_t look(void *context)
{
	uint64_t *clock = context;

	looks++;
	return *clock += look_ns;
}

/* LZ4, for which the clock goes on by a tick. */
static size_t encode(void *context, void *dst, size_t capacity, const void *page,
		     const void *reference)
{
	clock_ns += encoded ? 0 : TICK;
	encoded = true;
	return vmem_codec_lz4()->encode(context, dst, capacity, page, reference);
}

static int decode(void *context, void *page, const void *src, size_t bytes, const void *reference)
{
	clock_ns += TICK;
	return vmem_codec_lz4()->decode(context, page, src, bytes, reference);
}

static void make_with(uint64_t (*cpu_time_ns)(void *))
{
	struct vmem_env env = *vmemi_env_default();
	struct vmem_codec slow = *vmem_codec_lz4();
	const struct vmem_codec *codecs[] = { &slow, vmem_codec_zstd(1) };
	const struct vmem_store_opts opts = {
		.size = sizeof(opts), .env = &env, .codecs = codecs, .codec_count = 2
	};

	slow.encode = encode;
	slow.decode = decode;
	env.context = &clock_ns;
	env.cpu_time_ns = cpu_time_ns;
	cr_assert_eq(vmem_store_new(&store, &opts), 0);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
	looks = 0;
}

static void make(void)
{
	make_with(look);
}

static void check_and_free(void)
{
	cr_assert_null(vmemi_store_check(store));
	vmem_store_free(store);
}

TestSuite(store_cpu, .init = make, .fini = check_and_free);
TestSuite(store_cpu_default, .fini = check_and_free);

static void save_all(enum vmemt_page_kind kind)
{
	struct vmemt_page page;

	for (uint64_t i = 0; i < PAGES; i++) {
		vmemt_page_make(&page, kind, i);
		encoded = false;
		cr_assert_eq(vmem_store_save(store, vm, i, &page, &ref[i]), 0);
	}
}

static void load_all(void)
{
	struct vmemt_page page;

	for (uint64_t i = 0; i < PAGES; i++)
		cr_assert_eq((i % 2 ? vmem_store_load : vmem_store_peek)(store, vm, i, ref[i],
									 &page, NULL),
			     0);
}

static struct vmem_store_account account_of(uint32_t number)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	cr_assert_eq(vmem_store_vm_account(store, number, &a), 0);
	return a;
}

static struct vmem_store_account total(void)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	cr_assert_eq(vmem_store_total_account(store, &a), 0);
	return a;
}

Test(store_cpu, one_in_64_stands_for_all)
{
	save_all(VMEMT_PAGE_TEXT);
	cr_assert_eq(looks, 2 * PAGES / SAMPLE);
	cr_assert_eq(account_of(vm).cpu_save_ns, PAGES * TICK);
	cr_assert_eq(account_of(vm).cpu_load_ns, 0);
	load_all();
	cr_assert_eq(looks, 4 * PAGES / SAMPLE);
	cr_assert_eq(account_of(vm).cpu_save_ns, PAGES * TICK);
	cr_assert_eq(account_of(vm).cpu_load_ns, PAGES * TICK);
	cr_assert_eq(account_of(vm).cpu_work_ns, 0);
	cr_assert_eq(total().cpu_save_ns, PAGES * TICK);
	cr_assert_eq(total().cpu_load_ns, PAGES * TICK);
}

Test(store_cpu_default, looking_at_the_clock_does_not_count)
{
	look_ns = 300;
	make_with(look);
	save_all(VMEMT_PAGE_TEXT);
	load_all();
	cr_assert_eq(looks, 4 * PAGES / SAMPLE);
	cr_assert_eq(account_of(vm).cpu_save_ns, PAGES * TICK);
	cr_assert_eq(account_of(vm).cpu_load_ns, PAGES * TICK);
}

Test(store_cpu, not_always_the_same_one_of_the_64)
{
	uint64_t at[PAGES / SAMPLE], before, seen = 0;
	struct vmemt_page page;
	uint32_t n = 0, places = 0;

	for (uint64_t i = 0; i < PAGES; i++) {
		before = looks;
		vmemt_page_make(&page, VMEMT_PAGE_TEXT, i);
		cr_assert_eq(vmem_store_save(store, vm, i, &page, &ref[i]), 0);
		if (looks != before)
			at[n++] = i % SAMPLE;
	}
	cr_assert_eq(n, PAGES / SAMPLE);
	for (uint32_t i = 0; i < n; i++)
		seen |= UINT64_C(1) << at[i];
	for (; seen; seen &= seen - 1)
		places++;
	cr_assert_gt(places, n / 2);
}

Test(store_cpu, is_not_for_pages_in_their_reference)
{
	save_all(VMEMT_PAGE_SAME);
	load_all();
	cr_assert_eq(looks, 0);
	cr_assert_eq(account_of(vm).cpu_save_ns, 0);
}

Test(store_cpu, counts_what_was_refused)
{
	struct vmemt_page page;

	cr_assert_eq(vmem_store_set_cap(store, vm, 0), 0);
	vmemt_page_make(&page, VMEMT_PAGE_TEXT, 1);
	for (uint64_t i = 0; i < PAGES; i++)
		cr_assert_eq(vmem_store_save(store, vm, i, &page, &ref[i]), -VMEM_ENOSPC);
	cr_assert_eq(looks, 2 * PAGES / SAMPLE);
}

Test(store_cpu, stays_in_the_total_when_a_vm_has_gone)
{
	save_all(VMEMT_PAGE_TEXT);
	load_all();
	cr_assert_eq(vmem_store_drop_vm(store, vm), 0);
	cr_assert_eq(total().cpu_save_ns, PAGES * TICK);
	cr_assert_eq(total().cpu_load_ns, PAGES * TICK);
	cr_assert_eq(vmem_store_add_vm(store, NULL, &vm), 0);
	cr_assert_eq(account_of(vm).cpu_save_ns, 0, "the number is another VM's");
	cr_assert_eq(account_of(vm).cpu_load_ns, 0);
}

Test(store_cpu, of_work_is_all_of_it_in_total)
{
	save_all(VMEMT_PAGE_TEXT);
	cr_assert_eq(total().cpu_work_ns, 0);
	clock_ns = 0;
	for (uint64_t now = 1; now < 5; now++)
		while (vmem_store_work(store, 1000000, now * UINT64_C(10000000000)))
			;
	cr_assert_gt(clock_ns, TICK, "pages were read, to be encoded anew");
	cr_assert_eq(total().cpu_work_ns, clock_ns);
	cr_assert_leq(account_of(vm).cpu_work_ns, clock_ns);
}

Test(store_cpu, of_work_is_its_domains)
{
	uint32_t other;

	cr_assert_eq(vmem_store_add_vm(store, NULL, &other), 0);
	vmemi_domain_charge_work(vmemi_store_vm(store, vm)->domain, 30);
	vmemi_domain_charge_work(vmemi_store_vm(store, vm)->domain, 12);
	cr_assert_eq(account_of(vm).cpu_work_ns, 42, "though it has no pages");
	cr_assert_eq(account_of(other).cpu_work_ns, 0);
}

Test(store_cpu, of_work_on_a_group_is_divided_by_pages)
{
	const struct vmem_store_vm_opts opts = { .size = sizeof(opts),
						 .sharing = VMEM_STORE_SHARE_GROUP };
	struct vmemt_page page;
	vmem_store_ref unused;
	uint32_t first, second;

	cr_assert_eq(vmem_store_add_vm(store, &opts, &first), 0);
	cr_assert_eq(vmem_store_add_vm(store, &opts, &second), 0);
	vmemi_domain_charge_work(vmemi_store_vm(store, first)->domain, 1001);
	cr_assert_eq(account_of(first).cpu_work_ns, 0, "a group without pages");
	for (uint64_t i = 0; i < 4; i++) {
		vmemt_page_make(&page, VMEMT_PAGE_NOISE, i);
		cr_assert_eq(vmem_store_save(store, i ? second : first, i, &page, &unused), 0);
	}
	cr_assert_eq(account_of(first).cpu_work_ns, 250);
	cr_assert_eq(account_of(second).cpu_work_ns, 751, "nothing is lost");
}

Test(store_cpu_default, is_the_threads_clock)
{
	make_with(NULL);
	save_all(VMEMT_PAGE_TEXT);
	load_all();
	for (uint64_t now = 0; now < 3; now++)
		(void)vmem_store_work(store, 1000000, now * UINT64_C(10000000000));
	cr_assert_eq(looks, 0);
	cr_assert_gt(total().cpu_work_ns, 0);
	cr_assert_gt(account_of(vm).cpu_save_ns, 0);
	cr_assert_gt(account_of(vm).cpu_load_ns, 0);
}

/* Also if their pages were saved in turn. */
Test(store_cpu, of_work_is_told_of_each_vm)
{
	uint32_t vms[2] = { vm, vm };
	struct vmemt_page page;

	cr_assert_eq(vmem_store_add_vm(store, NULL, &vms[1]), 0);
	for (uint64_t i = 0; i < 2 * PAGES; i++) {
		vmem_store_ref saved;

		vmemt_page_make(&page, VMEMT_PAGE_TEXT, i);
		cr_assert_eq(vmem_store_save(store, vms[i % 2], i, &page, &saved), 0);
	}
	for (uint64_t now = 1; now < 5; now++)
		while (vmem_store_work(store, 1000000, now * UINT64_C(10000000000)))
			;
	cr_assert_gt(account_of(vms[0]).cpu_work_ns, 0);
	cr_assert_gt(account_of(vms[1]).cpu_work_ns, 0);
	cr_assert_lt(account_of(vms[0]).cpu_work_ns, 2 * account_of(vms[1]).cpu_work_ns);
	cr_assert_lt(account_of(vms[1]).cpu_work_ns, 2 * account_of(vms[0]).cpu_work_ns);
}
