/* SPDX-License-Identifier: BSD-2-Clause */
/* The state as bytes, and back. */
#include "balloon/balloon_tools.h"

#define SECOND UINT64_C(1000000000)

struct bytes {
	uint8_t data[4096];
	size_t count, at;
	int err;
};

static int write_bytes(void *context, const void *data, size_t count)
{
	struct bytes *s = context;

	if (s->err)
		return s->err;
	cr_assert_leq(count, sizeof(s->data) - s->count);
	memcpy(s->data + s->count, data, count);
	s->count += count;
	return 0;
}

static int read_bytes(void *context, void *data, size_t count)
{
	struct bytes *s = context;

	if (count > s->count - s->at)
		return 0;
	memcpy(data, s->data + s->at, count);
	s->at += count;
	return 1;
}

/* A device of a guest that has given some pages. The driver has been told 700 pages of 2000, by 7 a second. */
static void make_used(struct vmemt_balloon *t, uint64_t features)
{
	const uint32_t poison = 0xaaaaaaaa;

	vmemt_balloon_make(t, ALL_FEATURES | MODERN, PAGE);
	cr_assert_eq(vmem_balloon_add_ram(t->b, 5120 * PAGE, 1024 * PAGE, 512 * PAGE), 0);
	cr_assert_eq(vmem_balloon_set_features(t->b, features), 0);
	vmem_balloon_set_status(t->b, 3 | VMEM_VIRTIO_FEATURES_OK, NULL);
	if (features & VMEM_BALLOON_F_PAGE_POISON)
		cr_assert_eq(
			vmem_balloon_config_write(t->b, VMEM_BALLOON_CONFIG_POISON, &poison, 4), 0);
	vmemt_balloon_start(t, features);
	cr_assert_eq(vmem_balloon_set_target(t->b, 2000, 7, t->now), 0);
	vmem_balloon_tick(t->b, t->now += 100 * SECOND);
	vmemt_move_pages(t, VMEM_BALLOON_INFLATE, 10, 700);
	vmemt_move_pages(t, VMEM_BALLOON_INFLATE, 5631, 513);
	vmemt_move_pages(t, VMEM_BALLOON_INFLATE, 4000, 96);
}

/* Queues have their numbers, the target goes on as fast, and poison is kept. */
static void works_as_before(struct vmemt_balloon *u)
{
	enum vmem_balloon_queue queue;

	for (uint32_t i = 0; i < VMEM_BALLOON_QUEUES; i++) {
		cr_assert_eq(vmem_balloon_queue_of(u->b, i, &queue), 0);
		cr_assert_eq(queue, i);
	}
	cr_assert_eq(vmemt_config(u, VMEM_BALLOON_CONFIG_TARGET), 700);
	vmem_balloon_tick(u->b, u->now);
	vmem_balloon_tick(u->b, u->now += SECOND);
	cr_assert_eq(vmemt_config(u, VMEM_BALLOON_CONFIG_TARGET), 707);
	cr_assert_eq(vmemt_config(u, VMEM_BALLOON_CONFIG_POISON), 0xaaaaaaaa);
	cr_assert_eq(vmemt_give_piece(u, VMEM_BALLOON_REPORT, 0, PAGE), 0);
	vmemt_no_range(u);
}

Test(balloon_save, comes_back)
{
	const uint64_t features = (ALL_FEATURES & ~VMEM_BALLOON_F_MUST_TELL_HOST) | MODERN;
	struct vmemt_balloon t = { .opts.map = VMEM_BALLOON_MAP_NEGOTIATED };
	struct vmemt_balloon u = { .opts.map = VMEM_BALLOON_MAP_NEGOTIATED };
	struct bytes s = { 0 };
	struct vmem_balloon_done done;
	uint32_t gfn = 3, actual = 1300;
	uint8_t stat[10] = { 0 };

	make_used(&t, features);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_STATS, stat, sizeof(stat)), 0);
	cr_assert_eq(vmem_balloon_config_write(t.b, VMEM_BALLOON_CONFIG_ACTUAL, &actual, 4), 0);
	cr_assert_eq(vmem_balloon_hint_start(t.b), 0);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_INFLATE, &gfn, 4), 0);
	cr_assert_eq(vmem_balloon_save(t.b, write_bytes, &s), -VMEM_EBUSY);
	vmemt_one_range(&t, VMEM_BALLOON_DISCARD, 3, 1);
	vmemt_one_done(&t, VMEM_BALLOON_INFLATE);
	cr_assert_eq(vmem_balloon_save(t.b, write_bytes, &s), 0);

	vmemt_balloon_make(&u, ALL_FEATURES | MODERN, PAGE);
	cr_assert_eq(vmem_balloon_add_ram(u.b, 5120 * PAGE, 1024 * PAGE, 512 * PAGE), 0);
	cr_assert_eq(vmem_balloon_restore(u.b, read_bytes, &s), 0);
	vmemt_balloon_sound(u.b);
	vmemt_no_range(&u);
	for (uint64_t gfn64 = 0; gfn64 < 6200; gfn64++)
		cr_assert_eq(vmem_balloon_has(u.b, gfn64 * PAGE),
			     vmem_balloon_has(t.b, gfn64 * PAGE));
	cr_assert_eq(vmemt_progress(&u).partial, vmemt_progress(&t).partial);
	cr_assert_eq(vmemt_progress(&u).target, 2000);
	cr_assert_eq(vmemt_progress(&u).actual, 1300);
	cr_assert_eq(vmemt_progress(&u).features, features);
	cr_assert_eq(vmemt_counters(&u).inflated, 0);
	cr_assert(vmemt_event(&u, VMEM_BALLOON_EVENT_CONFIG));
	cr_assert_eq(vmemt_config(&u, VMEM_BALLOON_CONFIG_HINT_ID), VMEM_BALLOON_HINT_STOP);
	cr_assert_eq(vmem_balloon_ask_stats(u.b), 0);
	cr_assert_eq(vmem_balloon_take_done(u.b, &done), 1);
	cr_assert_eq(done.token, t.tokens - 1);
	cr_assert_eq(vmem_balloon_hint_start(u.b), 0);
	cr_assert_neq(vmemt_config(&u, VMEM_BALLOON_CONFIG_HINT_ID),
		      vmemt_config(&t, VMEM_BALLOON_CONFIG_HINT_ID));
	cr_assert_eq(vmem_balloon_restore(u.b, read_bytes, &s), -VMEM_EBUSY);
	vmemt_move_pages(&u, VMEM_BALLOON_DEFLATE, 3, 1);
	works_as_before(&u);
	vmemt_balloon_end(&u);
	vmemt_balloon_end(&t);
}

static void bring_over(const struct vmemt_balloon *t, struct vmemt_balloon *u)
{
	struct bytes s = { 0 };

	vmemt_balloon_make(u, ALL_FEATURES | MODERN, PAGE);
	cr_assert_eq(vmem_balloon_save(t->b, write_bytes, &s), 0);
	cr_assert_eq(vmem_balloon_restore(u->b, read_bytes, &s), 0);
}

/* A legacy driver that has given its first buffer for statistics, and is writing `actual`. */
Test(balloon_save, legacy)
{
	const uint8_t stat[10] = { VMEM_BALLOON_FREE, 0, 9 }, actual[] = { 1, 2, 3, 0 };
	struct vmem_balloon_guest g = { .size = sizeof(g) };
	struct vmemt_balloon t = { 0 }, u = { 0 };

	vmemt_balloon_make(&t, ALL_FEATURES | MODERN, PAGE);
	vmemt_balloon_start(&t, ALL_FEATURES);
	cr_assert_eq(vmemt_give(&t, VMEM_BALLOON_STATS, stat, sizeof(stat)), 0);
	cr_assert_eq(vmem_balloon_config_write(t.b, VMEM_BALLOON_CONFIG_ACTUAL, actual, 3), 0);
	bring_over(&t, &u);
	cr_assert_eq(vmemt_config(&u, VMEM_BALLOON_CONFIG_ACTUAL), 0x30201);
	cr_assert_eq(vmem_balloon_config_write(u.b, VMEM_BALLOON_CONFIG_ACTUAL + 3, actual + 3, 1),
		     0);
	cr_assert_eq(vmemt_progress(&u).actual, 0x30201);
	cr_assert_eq(vmem_balloon_ask_stats(u.b), 0);
	cr_assert_eq(vmem_balloon_take_done(u.b, &(struct vmem_balloon_done){ 0 }), 1);
	cr_assert_eq(vmemt_give(&u, VMEM_BALLOON_STATS, stat, sizeof(stat)), 0);
	cr_assert_eq(vmem_balloon_get_guest(u.b, &g), 0);
	cr_assert_eq(g.values[VMEM_BALLOON_FREE], 9);
	vmemt_balloon_end(&u);
	vmemt_balloon_end(&t);
}

/* Between its features and DRIVER_OK, when it has written others too late. */
Test(balloon_save, features_under_way)
{
	struct vmemt_balloon t = { 0 }, u = { 0 }, v = { 0 };
	uint32_t status;

	vmemt_balloon_make(&t, ALL_FEATURES | MODERN, PAGE);
	vmem_balloon_set_status(t.b, 3, NULL);
	cr_assert_eq(vmem_balloon_set_features(t.b, 0), 0);
	bring_over(&t, &u);
	vmemt_move_pages(&u, VMEM_BALLOON_INFLATE, 0, 1);
	cr_assert_eq(vmem_balloon_set_features(u.b, MODERN), -VMEM_EBUSY);
	bring_over(&u, &v);
	vmem_balloon_set_status(v.b, 3 | VMEM_VIRTIO_FEATURES_OK, &status);
	cr_assert_eq(status, 3u);
	vmemt_balloon_end(&v);
	vmemt_balloon_end(&u);
	vmemt_balloon_end(&t);
}

/* Not while a buffer is worked off. */
Test(balloon_save, part_of_a_buffer)
{
	static uint32_t gfns[VMEM_BALLOON_WORK_ENTRIES + 1];
	struct vmem_balloon_buffer buffer = { .size = sizeof(buffer),
					      .bytes = gfns,
					      .count = sizeof(gfns) };
	struct vmemt_balloon t = { 0 };
	struct bytes s = { 0 };

	vmemt_balloon_new(&t, MODERN);
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), -VMEM_EAGAIN);
	vmemt_one_range(&t, VMEM_BALLOON_DISCARD, 0, 1);
	cr_assert_eq(vmem_balloon_save(t.b, write_bytes, &s), -VMEM_EBUSY);
	cr_assert_eq(vmem_balloon_give(t.b, &buffer), 0);
	cr_assert_eq(vmem_balloon_take_done(t.b, &(struct vmem_balloon_done){ 0 }), 1);
	cr_assert_eq(vmem_balloon_save(t.b, write_bytes, &s), 0);
	vmemt_balloon_end(&t);
}

Test(balloon_save, write_fails)
{
	struct vmemt_balloon t = { 0 };
	struct bytes s = { .err = -VMEM_EIO };

	make_used(&t, MODERN);
	cr_assert_eq(vmem_balloon_save(t.b, write_bytes, &s), -VMEM_EIO);
	vmemt_balloon_end(&t);
}

/* Cut off anywhere, or with a bit changed anywhere: refused, and the device is as new. */
Test(balloon_save, damaged)
{
	struct vmemt_balloon t = { 0 }, u = { 0 };
	struct bytes s = { 0 }, bad;

	make_used(&t, MODERN);
	cr_assert_eq(vmem_balloon_save(t.b, write_bytes, &s), 0);
	vmemt_balloon_make(&u, ALL_FEATURES | MODERN, PAGE);
	cr_assert_eq(vmem_balloon_add_ram(u.b, 5120 * PAGE, 1024 * PAGE, 512 * PAGE), 0);
	for (size_t i = 0; i < s.count * 9; i++) {
		bad = s;
		if (i < s.count)
			bad.count = i;
		else
			bad.data[(i - s.count) / 8] ^= (uint8_t)(1u << (i - s.count) % 8);
		cr_assert_eq(vmem_balloon_restore(u.b, read_bytes, &bad), -VMEM_EBADMSG);
		vmemt_balloon_sound(u.b);
		cr_assert_eq(vmemt_progress(&u).pages, 0);
		cr_assert_eq(vmemt_progress(&u).target, 0);
	}
	cr_assert_eq(vmem_balloon_restore(u.b, read_bytes, &s), 0);
	cr_assert_eq(vmemt_progress(&u).pages, vmemt_progress(&t).pages);
	vmemt_balloon_end(&u);
	vmemt_balloon_end(&t);
}

/* Of another machine. */
Test(balloon_save, other_ram_or_features)
{
	struct vmemt_balloon t = { 0 }, u = { 0 }, v = { 0 };
	struct bytes s = { 0 }, again;

	make_used(&t, MODERN);
	cr_assert_eq(vmem_balloon_save(t.b, write_bytes, &s), 0);
	again = s;
	vmemt_balloon_make(&u, ALL_FEATURES | MODERN, PAGE);
	cr_assert_eq(vmem_balloon_restore(u.b, read_bytes, &again), -VMEM_EBADMSG);
	vmemt_balloon_make(&v, MODERN, PAGE);
	cr_assert_eq(vmem_balloon_add_ram(v.b, 5120 * PAGE, 1024 * PAGE, 512 * PAGE), 0);
	cr_assert_eq(vmem_balloon_restore(v.b, read_bytes, &s), -VMEM_EBADMSG);
	vmemt_balloon_end(&v);
	vmemt_balloon_end(&u);
	vmemt_balloon_end(&t);
}
