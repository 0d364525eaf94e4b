/* SPDX-License-Identifier: BSD-2-Clause */
/* Ranges that are due: their order, and what becomes of them when something comes between two takes. */
#include "balloon/balloon_tools.h"

#define LISTS 5000u
#define LONE 200u /* pages without a neighbour: as many runs, which the list has room for */

static uint64_t rng;

static uint64_t bits_of(uint64_t count)
{
	return vmemt_rand(&rng) & ((UINT64_C(1) << count) - 1);
}

/* Beginnings differ in a few low bits, a few of them in more; or all are one of two. */
static void fill_list(struct vmemi_balloon_list *list)
{
	uint64_t most = vmemt_rand(&rng) % 33, near = vmemt_rand(&rng) % (most + 1);
	uint64_t place = bits_of(32), far = vmemt_rand(&rng) % 3, two = vmemt_rand(&rng) % 2;

	list->count = vmemt_rand(&rng) % 3 ? 1 + (uint32_t)bits_of(8) : VMEMI_BALLOON_LIST;
	list->at = vmemt_rand(&rng) % 3 ? 0 : (uint32_t)(vmemt_rand(&rng) % list->count);
	list->differ = 0;
	for (uint32_t i = 0; i < list->count; i++) {
		uint64_t first = bits_of(vmemt_rand(&rng) % 20 < far ? most : near);

		first = place ^ (near && two ? first & UINT64_C(1) << (near - 1) : first);
		list->runs[i] = vmemi_balloon_run(first, 1 + bits_of(2));
		list->differ |= first ^ vmemi_balloon_run_first(list->runs[0]);
	}
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

Test(balloon_due, sorts_any_list)
{
	static struct vmemi_balloon_list list, before;
	uint32_t falls = 0;

	rng = vmemt_seed("balloon_sort");
	for (uint32_t i = 0; i < LISTS; i++) {
		fill_list(&list);
		before = list;
		vmemi_balloon_sort(&list);
		cr_assert(list.sorted);
		for (uint32_t n = list.at + 1; n < list.count; n++)
			falls += vmemi_balloon_run_first(list.runs[n - 1]) >
				 vmemi_balloon_run_first(list.runs[n]);
		cr_assert_eq(falls, 0);
		qsort(list.runs + list.at, list.count - list.at, sizeof(uint64_t), compare);
		qsort(before.runs + list.at, list.count - list.at, sizeof(uint64_t), compare);
		cr_assert_arr_eq(list.runs, before.runs, list.count * sizeof(uint64_t));
	}
}

/* Numbers far apart whose neighbours come much later: into the balloon and out of it. */
Test(balloon_due, neighbours_far_apart)
{
	const uint32_t base = 8192, stride = 30000, pairs = 128;
	struct vmem_balloon_range r[129];
	struct vmemt_balloon t = { 0 };
	uint32_t gfns[256];

	vmemt_balloon_new(&t, MODERN);
	cr_assert_eq(vmem_balloon_add_ram(t.b, base * PAGE, (UINT64_C(1) << 22) * PAGE, PAGE), 0);
	for (uint32_t i = 0; i < pairs; i++) { /* neither stride has a divisor in common with 128 */
		gfns[i] = base + i * 37 % pairs * stride + 1;
		gfns[pairs + i] = base + i * 75 % pairs * stride;
	}
	for (uint32_t queue = VMEM_BALLOON_INFLATE; queue <= VMEM_BALLOON_DEFLATE; queue++) {
		cr_assert_eq(vmemt_give(&t, queue, gfns, sizeof(gfns)), 0);
		cr_assert_eq(vmem_balloon_take_ranges(t.b, r, 129), pairs);
		for (uint32_t i = 0; i < pairs; i++) {
			cr_assert_eq(r[i].gpa, (base + (uint64_t)i * stride) * PAGE);
			cr_assert_eq(r[i].bytes, 2 * PAGE);
		}
		vmemt_one_done(&t, queue);
	}
	cr_assert_eq(vmemt_counters(&t).deflated, 256);
	vmemt_balloon_end(&t);
}

static void give_lone(struct vmemt_balloon *t, uint32_t queue, uint32_t first)
{
	uint32_t gfns[LONE];

	for (uint32_t i = 0; i < LONE; i++)
		gfns[i] = first + i * 77 % LONE * 2;
	cr_assert_eq(vmemt_give(t, queue, gfns, sizeof(gfns)), 0);
}

/* @count of them, from the one numbered @from on. */
static void take_lone(struct vmemt_balloon *t, uint32_t first, uint32_t from, uint32_t count)
{
	struct vmem_balloon_range r[LONE + 1];

	cr_assert_eq(vmem_balloon_take_ranges(t->b, r, count == LONE - from ? LONE + 1 : count),
		     count);
	for (uint32_t i = 0; i < count; i++) {
		cr_assert_eq(r[i].gpa, (first + 2 * (from + i)) * PAGE);
		cr_assert_eq(r[i].bytes, PAGE);
	}
}

/* What was left of a list is not due after a reset, and the same pages are due anew. */
Test(balloon_due, reset_of_a_part)
{
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, MODERN);
	for (int i = 0; i < 3; i++) {
		give_lone(&t, VMEM_BALLOON_INFLATE, 1000);
		take_lone(&t, 1000, 0, 50);
		vmemt_balloon_sound(t.b);
		vmem_balloon_set_status(t.b, 0, NULL);
		vmemt_no_range(&t);
		vmemt_balloon_sound(t.b);
		cr_assert_eq(vmem_balloon_has(t.b, 1000 * PAGE), 0);
		cr_assert_eq(vmemt_progress(&t).pages, 0);
		vmemt_balloon_start(&t, MODERN);
	}
	give_lone(&t, VMEM_BALLOON_INFLATE, 1000);
	take_lone(&t, 1000, 0, LONE);
	vmemt_one_done(&t, VMEM_BALLOON_INFLATE);
	vmemt_balloon_end(&t);
}

static void start_hints(struct vmemt_balloon *t)
{
	uint32_t id;

	cr_assert_eq(vmem_balloon_hint_start(t->b), 0);
	id = vmemt_config(t, VMEM_BALLOON_CONFIG_HINT_ID);
	cr_assert_eq(vmemt_give(t, VMEM_BALLOON_HINT, &id, sizeof(id)), 0);
	vmemt_one_done(t, VMEM_BALLOON_HINT);
}

/* The guest keeps what was hinted and not taken when hinting is stopped. */
Test(balloon_due, hints_stopped_in_a_part)
{
	const uint64_t features = ALL_FEATURES | MODERN;
	struct vmemt_balloon t = { 0 };
	struct vmem_balloon_done done;

	vmemt_balloon_new(&t, features);
	start_hints(&t);
	for (uint32_t i = 0; i < 40; i++)
		cr_assert_eq(vmemt_give_piece(&t, VMEM_BALLOON_HINT, (500 + i * 7 % 40 * 2) * PAGE,
					      PAGE),
			     0);
	take_lone(&t, 500, 0, 10);
	vmem_balloon_hint_stop(t.b);
	vmemt_no_range(&t);
	vmemt_balloon_sound(t.b);
	for (uint32_t i = 0; i < 40; i++)
		cr_assert_eq(vmem_balloon_take_done(t.b, &done), 1);
	give_lone(&t, VMEM_BALLOON_INFLATE, 500);
	take_lone(&t, 500, 0, LONE);
	cr_assert_eq(t.watch.ended, 1);
	vmemt_balloon_end(&t);
}

/* An entry of more pages than a call looks at, and entries that go on where it ends. */
Test(balloon_due, entries_behind_a_long_one)
{
	const uint64_t most = VMEM_BALLOON_WORK_PAGES, first = 5000;
	const uint64_t entries[] = { VMEM_BALLOON_RANGE(first, most + 100),
				     VMEM_BALLOON_RANGE(first + most + 100, 28),
				     VMEM_BALLOON_RANGE(first + most + 128, 1),
				     VMEM_BALLOON_RANGE(first + most + 130, 1) };
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .bytes = entries,
					      .count = sizeof(entries) };
	struct vmemt_balloon t = { 0 };
	struct vmem_balloon_range r[3];

	vmemt_balloon_new(&t, VMEM_BALLOON_F_RANGES | MODERN);
	cr_assert_eq(vmem_balloon_add_ram(t.b, 4096 * PAGE, 3 * most * PAGE, PAGE), 0);
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), -VMEM_EAGAIN);
	vmemt_one_range(&t, VMEM_BALLOON_DISCARD, first, most);
	cr_assert_eq(vmem_balloon_take_done(t.b, &(struct vmem_balloon_done){ 0 }), 0);
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), 0);
	cr_assert_eq(vmem_balloon_take_ranges(t.b, r, 3), 2);
	cr_assert_eq(r[0].gpa, (first + most) * PAGE);
	cr_assert_eq(r[0].bytes, 129 * PAGE);
	cr_assert_eq(r[1].gpa, (first + most + 130) * PAGE);
	cr_assert_eq(r[1].bytes, PAGE);
	cr_assert_eq(vmemt_counters(&t).inflated, most + 130);
	cr_assert_eq(vmemt_counters(&t).inflated_twice, 0);
	vmemt_one_done(&t, VMEM_BALLOON_INFLATE);
	vmemt_balloon_end(&t);
}

/* RAM that comes below what is due moves it not. */
Test(balloon_due, ram_below)
{
	struct vmemt_balloon t = { 0 };
	struct vmem_balloon_range r[2];

	vmemt_balloon_make(&t, MODERN, PAGE);
	vmem_balloon_free(t.b);
	cr_assert_eq(vmem_balloon_new(&t.b, &t.opts), 0);
	cr_assert_eq(vmem_balloon_add_ram(t.b, 10000 * PAGE, 5000 * PAGE, PAGE), 0);
	vmemt_balloon_start(&t, MODERN);
	give_lone(&t, VMEM_BALLOON_INFLATE, 12000);
	take_lone(&t, 12000, 0, 50);
	cr_assert_eq(vmem_balloon_add_ram(t.b, 0, 64 * PAGE, PAGE), 0);
	vmemt_balloon_sound(t.b);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, &(uint32_t){ 63 }, 4), 0);
	cr_assert_eq(vmem_balloon_take_ranges(t.b, r, 1), 1);
	cr_assert_eq(r[0].gpa, 63 * PAGE);
	take_lone(&t, 12000, 50, 50);
	cr_assert_eq(vmem_balloon_add_ram(t.b, 5000 * PAGE, 64 * PAGE, PAGE), 0);
	take_lone(&t, 12000, 100, 100);
	vmemt_balloon_end(&t);
}

/* RAM that the guard does not watch is not added while it watches. */
Test(balloon_due, no_ram_while_hints_run)
{
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	start_hints(&t);
	cr_assert_eq(vmem_balloon_add_ram(t.b, 4096 * PAGE, PAGE, PAGE), -VMEM_EBUSY);
	cr_assert_eq(vmem_balloon_has(t.b, 4096 * PAGE), -VMEM_ERANGE);
	vmem_balloon_hint_stop(t.b);
	cr_assert_eq(vmem_balloon_add_ram(t.b, 4096 * PAGE, PAGE, PAGE), 0);
	vmemt_balloon_end(&t);
}

/* A piece that is another one when its second part is given takes nothing from the next. */
Test(balloon_due, piece_that_shrinks)
{
	const uint64_t most = VMEM_BALLOON_WORK_PAGES;
	const uint64_t shrunk[] = { 0, PAGE / 2, UINT64_MAX };
	struct vmem_balloon_piece pieces[2];
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .queue = VMEM_BALLOON_REPORT,
					      .pieces = pieces,
					      .piece_count = 2 };
	struct vmemt_balloon t = { 0 };

	vmemt_balloon_new(&t, ALL_FEATURES | MODERN);
	cr_assert_eq(vmem_balloon_add_ram(t.b, 4096 * PAGE, 2 * most * PAGE, PAGE), 0);
	for (size_t i = 0; i < sizeof(shrunk) / sizeof(*shrunk); i++) {
		pieces[0] = (struct vmem_balloon_piece){ 4096 * PAGE, (most + 1) * PAGE };
		pieces[1] = (struct vmem_balloon_piece){ PAGE, 4000 * PAGE };
		cr_assert_eq(vmem_balloon_give(t.b, &buffer), -VMEM_EAGAIN);
		vmemt_one_range(&t, VMEM_BALLOON_DISCARD_REPORTED, 4096, most);
		pieces[0].bytes = shrunk[i];
		cr_assert_eq(vmem_balloon_give(t.b, &buffer), 0);
		vmemt_one_range(&t, VMEM_BALLOON_DISCARD_REPORTED, 1, 4000);
		vmemt_one_done(&t, VMEM_BALLOON_REPORT);
	}
	vmemt_balloon_end(&t);
}
