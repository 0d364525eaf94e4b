/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations on a table and on a naive model of it: for each content and domain, the list of
 * objects and the list of hints. */
#include "dedup/dedup_tools.h"

enum {
	STEPS = VMEMT_SLOW ? 150000 : 3000000,
	CHECKS = VMEMT_SLOW ? 20 : 60,
	DOMAINS = 3,
	NUMBERS = 20000,
	LIST = 3, /* objects, and hints, of one content and domain */
	USERS = NUMBERS * DOMAINS * LIST
};

struct user {
	uint32_t place; /* number * DOMAINS + domain - 1 */
	uint32_t count; /* references; 0: a hint */
	bool used;
	bool changed; /* a hint whose page has another content now */
};

static struct user user[USERS + 1];               /* by id or key; both are of one set of numbers */
static uint32_t list[NUMBERS * DOMAINS][2][LIST]; /* of hints, of objects */
static uint32_t free_ids[USERS], free_count;
static uint32_t live[USERS], live_count, live_at[USERS + 1];
static uint64_t references_now, hints_now, hits, hint_hits, refused, stale;
static bool exact; /* hashes do not collide */
static vmem_dedup *d;
static uint64_t state;

static uint32_t domain_of(uint32_t place)
{
	return place % DOMAINS + 1;
}

static uint32_t hash_at(uint32_t place)
{
	return hash_of(place / DOMAINS + 1);
}

/* --- The model --- */

static uint32_t *slot_of(uint32_t place, bool object, uint32_t id)
{
	for (uint32_t i = 0; i < LIST; i++)
		if (list[place][object][i] == id)
			return &list[place][object][i];
	return NULL;
}

static uint32_t new_user(uint32_t place, uint32_t count)
{
	uint32_t id = free_ids[--free_count];

	user[id] = (struct user){ .place = place, .count = count, .used = true };
	*slot_of(place, count != 0, 0) = id;
	live_at[id] = live_count;
	live[live_count++] = id;
	references_now += count;
	hints_now += !count;
	return id;
}

static void end_user(uint32_t id)
{
	struct user *u = &user[id];

	*slot_of(u->place, u->count != 0, id) = 0;
	references_now -= u->count;
	hints_now -= !u->count;
	u->used = false;
	live[live_at[id]] = live[--live_count];
	live_at[live[live_at[id]]] = live_at[id];
	free_ids[free_count++] = id;
}

static int model_compare(void *context, uint32_t id, const void *page)
{
	(void)context;
	cr_assert(user[id].used && user[id].count);
	return user[id].place == *(const uint32_t *)page;
}

static int model_compare_hint(void *context, uint32_t key, const void *page)
{
	(void)context;
	cr_assert(user[key].used && !user[key].count);
	if (user[key].changed) {
		stale++;
		end_user(key);
		return -VMEM_ENOENT;
	}
	return user[key].place == *(const uint32_t *)page;
}

static void model_release(void *context, uint32_t id)
{
	(void)context;
	(void)id;
	cr_assert_fail("nobody drops while a find compares");
}

/* --- Operations --- */

static uint32_t any_place(void)
{
	uint64_t r = vmemt_rand(&state);

	/* Some are much more common than others. */
	return (uint32_t)((r >> 32) % (r % 4 ? NUMBERS * DOMAINS : 50));
}

static void check_found(uint32_t place, int found, uint32_t id)
{
	bool object = false, hint = false;

	for (uint32_t i = 0; i < LIST; i++) {
		object |= list[place][1][i] != 0;
		hint |= list[place][0][i] && !user[list[place][0][i]].changed;
	}
	if (found == VMEM_DEDUP_SHARED) {
		cr_assert(user[id].used && user[id].count && user[id].place == place);
		user[id].count++;
		references_now++;
		hits++;
	} else if (found == VMEM_DEDUP_HINT) {
		cr_assert(user[id].used && !user[id].count && user[id].place == place);
		cr_assert(!exact || !object);
		hint_hits++;
	} else {
		cr_assert_eq(found, VMEM_DEDUP_NONE);
		cr_assert(!exact || (!object && !hint));
	}
}

/* As a user would: finds, and enters what was not found. */
static void save(uint32_t place, bool as_hint)
{
	uint32_t id = 0;
	int found = vmem_dedup_find(d, domain_of(place), hash_at(place), &place, &id), err;

	check_found(place, found, id);
	if (found == VMEM_DEDUP_SHARED || !slot_of(place, !as_hint, 0))
		return;
	id = new_user(place, !as_hint);
	err = as_hint ? vmem_dedup_hint(d, domain_of(place), hash_at(place), id)
		      : vmem_dedup_add(d, domain_of(place), hash_at(place), id);
	if (err) {
		cr_assert_eq(err, -VMEM_ENOSPC);
		cr_assert(!exact);
		refused++;
		end_user(id);
	}
}

static void save_many(void)
{
	enum { ITEMS = 40 };
	static uint32_t places[ITEMS];
	static struct vmem_dedup_item items[ITEMS];

	for (uint32_t i = 0; i < ITEMS; i++) {
		places[i] = any_place();
		items[i] = (struct vmem_dedup_item){ .domain = domain_of(places[i]),
						     .hash = hash_at(places[i]),
						     .page = &places[i] };
		/* A hint that is dropped by one of them is not there for the next. */
		for (uint32_t n = 0; n < LIST; n++)
			user[list[places[i]][0][n]].changed = false;
	}
	vmem_dedup_find_many(d, items, ITEMS);
	for (uint32_t i = 0; i < ITEMS; i++)
		check_found(places[i], items[i].result, items[i].id);
}

static void drop(uint32_t id)
{
	struct user *u = &user[id];
	uint32_t left = UINT32_MAX;

	cr_assert_eq(vmem_dedup_drop(d, domain_of(u->place), hash_at(u->place), id, &left), 0);
	cr_assert_eq(left, u->count - 1);
	if (left) {
		u->count--;
		references_now--;
	} else {
		end_user(id);
	}
}

static void take(uint32_t id)
{
	struct user *u = &user[id];

	cr_assert_eq(vmem_dedup_take(d, domain_of(u->place), hash_at(u->place), id), 0);
	u->count++;
	references_now++;
}

/* Until there are more than fit into an entry, or none. */
static void many_at_once(uint32_t id)
{
	uint32_t times = 200 + (uint32_t)(vmemt_rand(&state) % 200);

	if (user[id].count < times)
		while (user[id].count < times)
			take(id);
	else
		while (user[id].used && user[id].count)
			drop(id);
}

static void move(uint32_t id)
{
	struct user *u = &user[id];
	uint32_t place = u->place, count = u->count, fresh;

	if (!free_count)
		return;
	fresh = free_ids[free_count - 1];
	cr_assert_eq(vmem_dedup_move(d, domain_of(place), hash_at(place), id, fresh, count + 1),
		     -VMEM_EBUSY);
	cr_assert_eq(vmem_dedup_move(d, domain_of(place), hash_at(place), id, fresh, count), 0);
	free_count--;
	end_user(id);
	free_ids[free_count++] = fresh;
	cr_assert_eq(new_user(place, count), fresh);
}

static void promote(uint32_t key)
{
	uint32_t place = user[key].place, id;

	if (!slot_of(place, true, 0) || !free_count)
		return;
	id = new_user(place, 1);
	cr_assert_eq(vmem_dedup_promote(d, domain_of(place), hash_at(place), key, id), 0);
	end_user(key);
}

static void forget(uint32_t key)
{
	uint32_t place = user[key].place;

	cr_assert_eq(vmem_dedup_forget_hint(d, domain_of(place), hash_at(place), key), 0);
	end_user(key);
}

static void change_hint(uint32_t key, uint32_t choice)
{
	if (choice == 0)
		promote(key);
	else if (choice == 1)
		user[key].changed = true;
	else
		forget(key);
}

static void step(bool growing)
{
	uint64_t r = vmemt_rand(&state);
	uint32_t choice = (uint32_t)(r % 100), id;

	if (choice < (growing ? 60u : 25u) || !live_count) {
		save(any_place(), r >> 32 & 1);
		return;
	}
	if (choice == 99 && r >> 32 % 20 == 0) {
		save_many();
		return;
	}
	id = live[(r >> 20) % live_count];
	if (!user[id].count)
		change_hint(id, (uint32_t)(r >> 60) % 4);
	else if (choice == 98)
		many_at_once(id);
	else if (choice > 92)
		move(id);
	else if (choice > 88)
		take(id);
	else
		drop(id);
	if (choice == 97)
		vmem_dedup_work(d, 3);
}

static void check(void)
{
	struct vmem_dedup_stats stats = tools_stats(d);

	expect_sound(d);
	cr_assert_eq(stats.entries, live_count);
	cr_assert_eq(stats.hints, hints_now);
	cr_assert_eq(stats.references, references_now);
	cr_assert_eq(stats.hints_stale, stale);
	cr_assert_eq(stats.refused, refused);
}

static void run(uint32_t bits)
{
	struct vmem_dedup_opts opts = { .size = sizeof(opts),
					.compare = model_compare,
					.compare_hint = model_compare_hint,
					.release = model_release };

	state = vmemt_seed("dedup_model") + bits;
	exact = bits == 32;
	for (uint32_t id = USERS; id; id--)
		free_ids[free_count++] = id;
	cr_assert_eq(vmem_dedup_new(&d, &opts), 0);
	vmemi_dedup_truncate(d, bits);
	for (uint32_t n = 0; n < CHECKS; n++) {
		for (uint32_t i = 0; i < STEPS / CHECKS; i++)
			step(n / 10 % 2 == 0);
		check();
	}
	cr_assert(hits && hint_hits && stale);
	cr_assert_eq(refused != 0, bits < 10); /* else the run has shown little */
	while (live_count)
		if (user[live[0]].count)
			drop(live[0]);
		else
			forget(live[0]);
	while (vmem_dedup_work(d, 100))
		;
	check();
	vmem_dedup_free(d);
}

Test(dedup_model, hashes_as_they_are)
{
	run(32);
}

/* About 20 contents share each hash, and many more each group. */
Test(dedup_model, hashes_that_collide)
{
	run(12);
}

Test(dedup_model, hashes_that_collide_all_the_time)
{
	run(4);
}
