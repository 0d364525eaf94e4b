/* SPDX-License-Identifier: BSD-2-Clause */
/* The state as bytes, and back. */
#include "balloon/balloon_tools.h"

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

/* A device of a guest that has given some pages. */
static void make_used(struct vmemt_balloon *t, uint64_t features)
{
	vmemt_balloon_make(t, ALL_FEATURES | MODERN, PAGE);
	cr_assert_eq(vmem_balloon_add_ram(t->b, 5120 * PAGE, 1024 * PAGE, 512 * PAGE), 0);
	vmemt_balloon_start(t, features);
	cr_assert_eq(vmem_balloon_set_target(t->b, 2000, 7, t->now), 0);
	vmemt_move_pages(t, VMEM_BALLOON_INFLATE, 10, 700);
	vmemt_move_pages(t, VMEM_BALLOON_INFLATE, 5631, 513);
	vmemt_move_pages(t, VMEM_BALLOON_INFLATE, 4000, 96);
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
	vmemt_balloon_end(&u);
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
