/* SPDX-License-Identifier: BSD-2-Clause */
/* What each call does, and what it refuses. */
#include "dedup/dedup_tools.h"

static vmem_dedup *d;
static struct vmemt_fail_alloc heap;

static void open_with(struct vmem_dedup_opts opts)
{
	vmemt_fail_alloc_init(&heap);
	opts.allocator = &heap.allocator;
	cr_assert_eq(vmem_dedup_new(&d, &opts), 0);
}

static void open_table(void)
{
	open_with(tools_opts());
}

static void close_table(void)
{
	expect_sound(d);
	vmem_dedup_free(d);
	cr_assert_eq(heap.live_bytes, 0);
}

TestSuite(dedup, .init = open_table, .fini = close_table);

static int find_in(uint32_t domain, uint32_t number, uint32_t *ret_id)
{
	return vmem_dedup_find(d, domain, hash_of(number), &number, ret_id);
}

static void add(uint32_t number, uint32_t id)
{
	content[id] = number;
	cr_assert_eq(vmem_dedup_add(d, 1, hash_of(number), id), 0);
}

static uint32_t drop(uint32_t number, uint32_t id)
{
	uint32_t left = UINT32_MAX;

	cr_assert_eq(vmem_dedup_drop(d, 1, hash_of(number), id, &left), 0);
	return left;
}

static uint32_t references(uint32_t number, uint32_t id)
{
	cr_assert_eq(vmem_dedup_take(d, 1, hash_of(number), id), 0);
	return drop(number, id);
}

Test(dedup, counts_references)
{
	uint32_t id = 77;

	cr_assert_eq(find_in(1, 5, &id), VMEM_DEDUP_NONE);
	cr_assert_eq(id, 77);
	add(5, 9);
	cr_assert_eq(vmem_dedup_add(d, 1, hash_of(5), 9), -VMEM_EEXIST);
	cr_assert_eq(find_in(1, 5, &id), VMEM_DEDUP_SHARED);
	cr_assert_eq(id, 9);
	cr_assert_eq(tools_stats(d).references, 2);
	cr_assert_eq(tools_stats(d).saved_pages, 1);
	cr_assert_eq(drop(5, 9), 1);
	cr_assert_eq(drop(5, 9), 0);
	cr_assert_eq(vmem_dedup_drop(d, 1, hash_of(5), 9, &id), -VMEM_ENOENT);
	cr_assert_eq(vmem_dedup_take(d, 1, hash_of(5), 9), -VMEM_ENOENT);
	cr_assert_eq(find_in(1, 5, &id), VMEM_DEDUP_NONE);
	cr_assert_eq(tools_stats(d).entries, 0);
}

/* Past what the entry holds, past 16 bits, and down again. */
Test(dedup, counts_past_all_widths)
{
	enum { MOST = 70000 };
	uint32_t id;

	add(5, 9);
	add(6, 10);
	for (uint32_t n = 2; n <= MOST; n++) {
		cr_assert_eq(find_in(1, 5, &id), VMEM_DEDUP_SHARED);
		if (n < 600 || n % 1000 == 0)
			cr_assert_eq(references(5, 9), n);
		if (n < 600)
			expect_sound(d);
	}
	cr_assert_eq(tools_stats(d).saved_pages, MOST - 1);
	for (uint32_t n = MOST; n-- > 0;) {
		cr_assert_eq(drop(5, 9), n);
		if (n < 600)
			expect_sound(d);
	}
	cr_assert_eq(drop(6, 10), 0);
	while (vmem_dedup_work(d, 1000)) /* gives the spill's memory back too */
		;
}

/* The last count of all is never passed: the object is then not found any more. */
Test(dedup, full_counter_refuses)
{
	struct vmemi_dedup_slot slot;
	struct vmemi_dedup_at at;
	uint32_t id;

	add(5, 9);
	for (int i = 0; i < 300; i++)
		cr_assert_eq(vmem_dedup_take(d, 1, hash_of(5), 9), 0);
	at = vmemi_dedup_lock(d, vmemi_dedup_mix(d, 1, hash_of(5)));
	cr_assert(vmemi_dedup_slot_find(&at, 9, false, &slot));
	at.stripe->references += UINT32_MAX - vmemi_dedup_slot_count(&at, slot);
	cr_assert_eq(vmemi_dedup_slot_set_count(&at, slot, UINT32_MAX), 0);
	vmemi_dedup_unlock(&at);
	cr_assert_eq(vmem_dedup_take(d, 1, hash_of(5), 9), -VMEM_ENOSPC);
	cr_assert_eq(find_in(1, 5, &id), VMEM_DEDUP_NONE);
	cr_assert_eq(drop(5, 9), UINT32_MAX - 1);
	cr_assert_eq(find_in(1, 5, &id), VMEM_DEDUP_SHARED);
}

Test(dedup, domains_do_not_meet)
{
	uint32_t id;

	add(5, 9);
	compared = 0;
	for (uint32_t domain = 2; domain < 1000; domain++)
		cr_assert_eq(find_in(domain, 5, &id), VMEM_DEDUP_NONE);
	cr_assert_eq(compared, 0);
	cr_assert_eq(vmem_dedup_drop(d, 2, hash_of(5), 9, &id), -VMEM_ENOENT);
	/* The same id in two domains is two entries. */
	cr_assert_eq(vmem_dedup_add(d, 2, hash_of(5), 9), 0);
	cr_assert_eq(tools_stats(d).shared, 2);
}

/* For one hash, no two domains have the same mix, whatever is left of the hash. */
Test(dedup, domains_have_places_of_their_own)
{
	enum { DOMAINS = 2000 };
	static uint32_t mixes[DOMAINS];
	uint64_t state = vmemt_seed("dedup");

	for (uint32_t bits = 0; bits <= 32; bits += 4) {
		uint32_t hash = (uint32_t)vmemt_rand(&state), first = (uint32_t)vmemt_rand(&state);

		vmemi_dedup_truncate(d, bits);
		for (uint32_t n = 0; n < DOMAINS; n++) {
			mixes[n] = vmemi_dedup_mix(d, first + n, hash);
			for (uint32_t m = 0; m < n; m++)
				cr_assert_neq(mixes[m], mixes[n]);
		}
	}
	vmemi_dedup_truncate(d, 32);
}

Test(dedup, seed_changes_places)
{
	struct vmem_dedup_opts opts = tools_opts();
	uint32_t without = vmemi_dedup_mix(d, 1, 1);

	vmem_dedup_free(d);
	opts.seed = 1;
	open_with(opts);
	cr_assert_neq(vmemi_dedup_mix(d, 1, 1), without);
}

Test(dedup, hints)
{
	uint32_t id;

	content[9] = content[10] = 5;
	cr_assert_eq(vmem_dedup_hint(d, 1, hash_of(5), 9), 0);
	cr_assert_eq(vmem_dedup_hint(d, 1, hash_of(5), 9), -VMEM_EEXIST);
	cr_assert_eq(tools_stats(d).hints, 1);
	cr_assert_eq(tools_stats(d).references, 0);
	cr_assert_eq(find_in(1, 5, &id), VMEM_DEDUP_HINT);
	cr_assert_eq(id, 9);
	cr_assert_eq(vmem_dedup_drop(d, 1, hash_of(5), 9, &id), -VMEM_ENOENT);
	cr_assert_eq(vmem_dedup_take(d, 1, hash_of(5), 9), -VMEM_ENOENT);

	/* An object of the same number is another entry, and comes first. */
	add(5, 9);
	cr_assert_eq(find_in(1, 5, &id), VMEM_DEDUP_SHARED);
	cr_assert_eq(vmem_dedup_promote(d, 1, hash_of(5), 9, 9), -VMEM_EEXIST);
	cr_assert_eq(vmem_dedup_promote(d, 1, hash_of(5), 8, 10), -VMEM_ENOENT);
	cr_assert_eq(vmem_dedup_promote(d, 1, hash_of(5), 9, 10), 0);
	cr_assert_eq(tools_stats(d).hints, 0);
	cr_assert_eq(tools_stats(d).shared, 2);
	cr_assert_eq(drop(5, 10), 0);
	cr_assert_eq(vmem_dedup_forget_hint(d, 1, hash_of(5), 9), -VMEM_ENOENT);
	cr_assert_eq(references(5, 9), 2);

	cr_assert_eq(vmem_dedup_hint(d, 1, hash_of(6), 9), 0);
	cr_assert_eq(vmem_dedup_forget_hint(d, 1, hash_of(6), 9), 0);
	cr_assert_eq(tools_stats(d).hints, 0);
}

/* Hints are only looked at if there is a callback for them. */
Test(dedup, hints_without_callback)
{
	struct vmem_dedup_opts opts = tools_opts();
	uint32_t id;

	vmem_dedup_free(d);
	opts.compare_hint = NULL;
	open_with(opts);
	cr_assert_eq(vmem_dedup_hint(d, 1, hash_of(5), 9), 0);
	cr_assert_eq(find_in(1, 5, &id), VMEM_DEDUP_NONE);
}

static int answer;

static int give_answer(void *context, uint32_t id, const void *page)
{
	(void)context;
	(void)id;
	(void)page;
	return answer;
}

Test(dedup, errors_of_callbacks)
{
	struct vmem_dedup_opts opts = tools_opts();
	uint32_t id = 77;

	vmem_dedup_free(d);
	opts.compare = opts.compare_hint = give_answer;
	open_with(opts);
	cr_assert_eq(vmem_dedup_add(d, 1, 3, 9), 0);
	answer = -VMEM_EIO;
	cr_assert_eq(vmem_dedup_find(d, 1, 3, NULL, &id), -VMEM_EIO);
	cr_assert_eq(id, 77);
	cr_assert_eq(tools_stats(d).references, 1);
	answer = -VMEM_ENOENT; /* of an object it is an error like any other */
	cr_assert_eq(vmem_dedup_find(d, 1, 3, NULL, &id), -VMEM_ENOENT);
	cr_assert_eq(tools_stats(d).shared, 1);
	cr_assert_eq(vmem_dedup_drop(d, 1, 3, 9, &id), 0);
	cr_assert_eq(vmem_dedup_hint(d, 1, 3, 9), 0);
	cr_assert_eq(vmem_dedup_find(d, 1, 3, NULL, &id), VMEM_DEDUP_NONE);
	cr_assert_eq(tools_stats(d).hints, 0);
	cr_assert_eq(tools_stats(d).hints_stale, 1);
	cr_assert_eq(vmem_dedup_hint(d, 1, 3, 9), 0);
	answer = -VMEM_EFAULT;
	cr_assert_eq(vmem_dedup_find(d, 1, 3, NULL, &id), -VMEM_EFAULT);
	cr_assert_eq(tools_stats(d).hints, 1);
}

/* The owner's last drop comes while a find compares: the find's callback frees the object, if it is not
 * wanted, and the finder has it, if it is. */
static int drop_and_answer(void *context, uint32_t id, const void *page)
{
	uint32_t left;

	(void)context;
	(void)page;
	cr_assert_eq(vmem_dedup_drop(d, 1, 3, id, &left), 0);
	cr_assert_eq(left, 1);
	/* It cannot be given another id now. */
	cr_assert_eq(vmem_dedup_move(d, 1, 3, id, id + 1, 2), -VMEM_EBUSY);
	return answer;
}

Test(dedup, drop_during_compare)
{
	struct vmem_dedup_opts opts = tools_opts();
	uint32_t id;

	vmem_dedup_free(d);
	opts.compare = drop_and_answer;
	open_with(opts);
	released = 0;
	answer = 0;
	cr_assert_eq(vmem_dedup_add(d, 1, 3, 9), 0);
	cr_assert_eq(vmem_dedup_find(d, 1, 3, NULL, &id), VMEM_DEDUP_NONE);
	cr_assert_eq(released, 1);
	cr_assert_eq(last_released, 9);
	cr_assert_eq(tools_stats(d).entries, 0);
	answer = 1;
	cr_assert_eq(vmem_dedup_add(d, 1, 3, 9), 0);
	cr_assert_eq(vmem_dedup_find(d, 1, 3, NULL, &id), VMEM_DEDUP_SHARED);
	cr_assert_eq(released, 1);
	cr_assert_eq(vmem_dedup_drop(d, 1, 3, 9, &id), 0);
	cr_assert_eq(id, 0);
}

Test(dedup, move)
{
	uint32_t id;

	add(5, 9);
	add(5, 12);
	content[10] = content[11] = 5;
	cr_assert_eq(vmem_dedup_move(d, 1, hash_of(5), 8, 10, 1), -VMEM_ENOENT);
	cr_assert_eq(vmem_dedup_move(d, 1, hash_of(5), 9, 12, 1), -VMEM_EEXIST);
	cr_assert_eq(vmem_dedup_move(d, 1, hash_of(5), 9, 10, 2), -VMEM_EBUSY);
	cr_assert_eq(vmem_dedup_move(d, 1, hash_of(5), 9, 10, 1), 0);
	cr_assert_eq(vmem_dedup_drop(d, 1, hash_of(5), 9, &id), -VMEM_ENOENT);
	for (int i = 0; i < 400; i++) /* with a count that is elsewhere */
		cr_assert_eq(vmem_dedup_take(d, 1, hash_of(5), 10), 0);
	cr_assert_eq(vmem_dedup_move(d, 1, hash_of(5), 10, 11, 401), 0);
	expect_sound(d);
	for (uint32_t n = 401; n-- > 0;)
		cr_assert_eq(drop(5, 11), n);
}

Test(dedup, find_many)
{
	enum { ITEMS = 100 };
	static uint32_t numbers[ITEMS];
	static struct vmem_dedup_item items[ITEMS];

	prefetched = 0;
	for (uint32_t i = 0; i < ITEMS; i++) {
		numbers[i] = 1000 + i;
		items[i] = (struct vmem_dedup_item){ .domain = i != 50,
						     .hash = hash_of(numbers[i]),
						     .page = &numbers[i],
						     .id = 4711 };
		content[i + 1] = numbers[i];
		if (i % 3 == 0)
			add(numbers[i], i + 1);
		else if (i % 3 == 1)
			cr_assert_eq(vmem_dedup_hint(d, 1, hash_of(numbers[i]), i + 1), 0);
	}
	cr_assert_eq(vmem_dedup_find_many(d, items, ITEMS), 34);
	for (uint32_t i = 0; i < ITEMS; i++) {
		int want = i % 3 == 0   ? VMEM_DEDUP_SHARED
			   : i % 3 == 1 ? VMEM_DEDUP_HINT
					: VMEM_DEDUP_NONE;

		cr_assert_eq(items[i].result, i == 50 ? -VMEM_EINVAL : want);
		cr_assert_eq(items[i].id, want == VMEM_DEDUP_NONE ? 4711 : i + 1);
	}
	cr_assert_eq(prefetched, 34);
	cr_assert_eq(vmem_dedup_find_many(d, NULL, 0), 0);
}

/* One hash for all: no more than a fixed number is compared, entering is refused in the end, and what is
 * in can be dropped again. */
Test(dedup, collisions_are_bounded)
{
	uint32_t id, entered = 0;

	vmemi_dedup_truncate(d, 0);
	compared = 0;
	for (uint32_t n = 1; n < 5000; n++) {
		int err;

		content[n] = n;
		err = vmem_dedup_add(d, 1, hash_of(n), n);
		cr_assert(err == 0 || err == -VMEM_ENOSPC);
		if (err)
			break;
		entered = n;
	}
	cr_assert_gt(entered, 64);
	cr_assert_lt(entered, 1000);
	cr_assert_eq(find_in(1, 123456, &id), VMEM_DEDUP_NONE);
	cr_assert_eq(compared, VMEMI_DEDUP_CANDIDATES);
	cr_assert_eq(tools_stats(d).compares_different, VMEMI_DEDUP_CANDIDATES);
	cr_assert_gt(tools_stats(d).spilled, 0);
	expect_sound(d);
	for (uint32_t n = entered; n; n--) {
		cr_assert_eq(drop(n, n), 0);
		if (n % 16 == 0)
			expect_sound(d);
	}
	vmemi_dedup_truncate(d, 32);
}

Test(dedup, hash_is_the_low_half_of_xxh3)
{
	static _Alignas(64) unsigned char page[VMEM_PAGE_SIZE];
	struct vmem_dedup_opts opts = tools_opts();

	page[4095] = 1;
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(vmem_dedup_hash(d, page),
			     (uint32_t)vmemi_hash_scalar(page, sizeof(page), 0));
		vmem_dedup_free(d);
		opts.cpu = vmem_cpu_detect();
		open_with(opts);
	}
}

Test(dedup, refuses)
{
	struct vmem_dedup_stats stats = { .size = 4 };
	struct vmem_dedup_opts opts = tools_opts();
	struct {
		struct vmem_dedup_opts opts;
		uint64_t more;
	} newer = { .opts = tools_opts(), .more = 1 };
	vmem_dedup *none = NULL;
	uint32_t id;

	cr_assert_eq(vmem_dedup_new(NULL, &opts), -VMEM_EINVAL);
	cr_assert_eq(vmem_dedup_new(&none, NULL), -VMEM_EINVAL);
	opts.flags = 1;
	cr_assert_eq(vmem_dedup_new(&none, &opts), -VMEM_EINVAL);
	opts = tools_opts();
	opts.compare = NULL;
	cr_assert_eq(vmem_dedup_new(&none, &opts), -VMEM_EINVAL);
	opts = tools_opts();
	opts.release = NULL;
	cr_assert_eq(vmem_dedup_new(&none, &opts), -VMEM_EINVAL);
	newer.opts.size = sizeof(newer);
	cr_assert_eq(vmem_dedup_new(&none, &newer.opts), -VMEM_E2BIG);
	cr_assert_null(none);
	vmem_dedup_free(NULL);

	cr_assert_eq(vmem_dedup_find(d, 0, 1, NULL, &id), -VMEM_EINVAL);
	cr_assert_eq(vmem_dedup_find(d, 1, 1, NULL, NULL), -VMEM_EINVAL);
	cr_assert_eq(vmem_dedup_add(d, 0, 1, 1), -VMEM_EINVAL);
	cr_assert_eq(vmem_dedup_add(d, 1, 1, 0), -VMEM_EINVAL);
	cr_assert_eq(vmem_dedup_take(d, 0, 1, 1), -VMEM_EINVAL);
	cr_assert_eq(vmem_dedup_drop(d, 0, 1, 1, &id), -VMEM_EINVAL);
	cr_assert_eq(vmem_dedup_drop(d, 1, 1, 1, NULL), -VMEM_EINVAL);
	cr_assert_eq(vmem_dedup_move(d, 0, 1, 1, 2, 1), -VMEM_EINVAL);
	cr_assert_eq(vmem_dedup_move(d, 1, 1, 1, 0, 1), -VMEM_EINVAL);
	cr_assert_eq(vmem_dedup_hint(d, 0, 1, 1), -VMEM_EINVAL);
	cr_assert_eq(vmem_dedup_hint(d, 1, 1, 0), -VMEM_EINVAL);
	cr_assert_eq(vmem_dedup_forget_hint(d, 0, 1, 1), -VMEM_EINVAL);
	cr_assert_eq(vmem_dedup_promote(d, 0, 1, 1, 1), -VMEM_EINVAL);
	cr_assert_eq(vmem_dedup_promote(d, 1, 1, 1, 0), -VMEM_EINVAL);
	cr_assert_eq(vmem_dedup_get_stats(d, &stats), -VMEM_EINVAL);
	cr_assert_eq(tools_stats(d).entries, 0);
}
