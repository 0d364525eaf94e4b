/* SPDX-License-Identifier: BSD-2-Clause */
/* Files: what is written comes back, each period of it; what is damaged, cut off or too large does not;
 * nothing is left of it. */
#include <string.h>
#include <vmem/trace.h>
#include "base/hash.h"
#include "track/track_tools.h"

enum { PAGES = 5000, FILE_BYTES = 1 << 20 };

static struct vmemt_fail_alloc memory, memory2;
static unsigned char file[FILE_BYTES];
static size_t file_end, file_at, file_room;
static uint64_t state;

static int write_file(void *context, const void *bytes, size_t count)
{
	(void)context;
	cr_assert_leq(count, 256);
	if (count > file_room - file_end)
		return -VMEM_ENOSPC;
	memcpy(file + file_end, bytes, count);
	file_end += count;
	return 0;
}

static int read_file(void *context, void *bytes, size_t count)
{
	if (context && file_at >= *(size_t *)context)
		return -VMEM_EIO;
	if (file_at == file_end)
		return 0;
	if (count > file_end - file_at)
		return -VMEM_EBADMSG;
	memcpy(bytes, file + file_at, count);
	file_at += count;
	return 1;
}

static const struct vmem_trace_writer writer = { .size = sizeof(writer), .write = write_file };
static const struct vmem_trace_reader reader = { .size = sizeof(reader), .read = read_file };

/* A tracker with all kinds of pages. */
static vmem_track *make(void)
{
	vmem_track *t = vmemt_track_new(&memory, PAGES, vmem_cpu_detect());

	file_at = file_end = 0;
	file_room = FILE_BYTES;
	for (uint32_t i = 0; i < 3000; i++) {
		uint64_t page = vmemt_rand(&state) % PAGES, r = vmemt_rand(&state);

		cr_assert_eq(vmem_track_feed_list(t, &page, 1, r & 1), 0);
		if (r % 3 == 0)
			cr_assert_eq(vmem_track_mark(t, page, 1, r >> 8 & 0xff, r >> 16 & 0xff), 0);
		if (r % 5 == 0)
			vmem_track_period(t);
	}
	return t;
}

static void same(const vmem_track *a, const vmem_track *b)
{
	struct vmem_track_histogram x = { .size = sizeof(x) }, y = x;
	struct vmem_track_stats s = vmemt_track_stats(a), r = vmemt_track_stats(b);

	cr_assert_eq(memcmp(&s, &r, sizeof(s)), 0);
	cr_assert_eq(vmem_track_get_promotions(a, &x), 0);
	cr_assert_eq(vmem_track_get_promotions(b, &y), 0);
	cr_assert_eq(memcmp(&x, &y, sizeof(x)), 0);
	for (uint64_t page = 0; page < s.pages; page++) {
		cr_assert_eq(vmemt_age(a, page), vmemt_age(b, page));
		cr_assert_eq(vmemt_state(a, page), vmemt_state(b, page));
	}
}

static int load(vmem_track **ret, const struct vmem_trace_reader *from)
{
	struct vmem_track_opts opts = { .size = sizeof(opts), .pages = PAGES };

	vmemt_fail_alloc_init(&memory2);
	opts.allocator = &memory2.allocator;
	file_at = 0;
	return vmem_trace_load(ret, &opts, from);
}

Test(trace, all_comes_back)
{
	vmem_track *t, *back;

	state = vmemt_seed("trace");
	t = make();
	cr_assert_eq(vmem_trace_save(t, &writer), 0);
	cr_assert_eq(load(&back, &reader), 0);
	cr_assert_eq(file_at, file_end);
	same(t, back);
	cr_assert_eq(vmem_trace_replay(back, &reader), 0);
	vmemt_track_done(back, &memory2);
	vmemt_track_done(t, &memory);
}

/* The same accesses give the same ages and promotions. */
Test(trace, periods_come_back)
{
	vmem_track *t, *back;
	uint64_t accessed[(PAGES + 63) / 64], written[(PAGES + 63) / 64];
	enum { PERIODS = 300 };
	static struct vmem_track_stats after[PERIODS];

	state = vmemt_seed("trace_periods");
	t = make();
	vmem_track_period(t);
	cr_assert_eq(vmem_trace_save(t, &writer), 0);
	for (uint32_t i = 0; i < PERIODS; i++) {
		for (uint32_t word = 0; word < (PAGES + 63) / 64; word++) {
			accessed[word] = word % 8 == i % 8 ? vmemt_rand(&state) : 0;
			written[word] = accessed[word] & vmemt_rand(&state);
		}
		cr_assert_eq(vmem_track_feed_bitmap(t, 0, PAGES, accessed, written), 0);
		cr_assert_eq(vmem_trace_save_period(t, &writer), 0);
		vmem_track_period(t);
		after[i] = vmemt_track_stats(t);
	}
	cr_assert_eq(load(&back, &reader), 0);
	for (uint32_t i = 0; i < PERIODS; i++) {
		struct vmem_track_stats now;

		cr_assert_eq(vmem_trace_replay(back, &reader), 1);
		vmem_track_period(back);
		now = vmemt_track_stats(back);
		cr_assert_eq(memcmp(&now, &after[i], sizeof(now)), 0);
	}
	cr_assert_eq(vmem_trace_replay(back, &reader), 0);
	same(t, back);
	vmemt_track_done(back, &memory2);
	vmemt_track_done(t, &memory);
}

/* The bytes stand in <vmem/trace.h>; a file of today is read by each later version. */
Test(trace, bytes)
{
	static const unsigned char start[] = { 'V', 'M',  'E',  'M', 'T', 'R', 'K', '1',
					       'S', 0xac, 0x02, 1,   3,   0,   0 };
	static const unsigned char runs[] = { 1, 0, 0, 1, 1, 1, 0xaa, 0x02, 0, 2 };
	static const unsigned char period[] = { 'P', 1, 2, 0, 0 };
	vmem_track *t = vmemt_track_new(&memory, 300, 0);
	static const uint64_t pages[] = { 0, 1 }, one[] = { 0 };

	file_end = 0;
	file_room = FILE_BYTES;
	cr_assert_eq(vmem_track_feed_list(t, pages, 2, 0), 0);
	cr_assert_eq(vmem_track_feed_list(t, pages + 1, 1, VMEM_TRACK_WRITTEN), 0);
	vmem_track_period(t);
	cr_assert_eq(vmem_track_feed_list(t, one, 1, 0), 0);
	cr_assert_eq(vmem_trace_save(t, &writer), 0);
	cr_assert_eq(memcmp(file, start, sizeof(start)), 0);
	for (size_t at = sizeof(start); at < sizeof(start) + VMEM_TRACK_AGES; at++)
		cr_assert_eq(file[at], at == sizeof(start) + 1);
	/* Absent pages have some age, which says nothing. */
	cr_assert_eq(memcmp(file + sizeof(start) + VMEM_TRACK_AGES, runs, 7), 0);
	cr_assert_eq(file_end, sizeof(start) + VMEM_TRACK_AGES + sizeof(runs) + 8);
	vmem_track_period(t);
	cr_assert_eq(vmem_track_feed_list(t, pages + 1, 1, 0), 0);
	cr_assert_eq(vmem_track_mark(t, 1, 1, VMEM_TRACK_WRITTEN, 0), 0);
	file_end = 0;
	cr_assert_eq(vmem_trace_save_period(t, &writer), 0);
	cr_assert_eq(memcmp(file, period, sizeof(period)), 0);
	cr_assert_eq(file_end, sizeof(period) + 8);
	vmemt_track_done(t, &memory);
}

/* Any byte changed, any end too soon: refused. */
Test(trace, damaged)
{
	vmem_track *t, *back = NULL;
	size_t end, all;

	state = vmemt_seed("trace_damaged");
	t = make();
	cr_assert_eq(vmem_trace_save(t, &writer), 0);
	all = file_end;
	cr_assert_eq(vmem_trace_save_period(t, &writer), 0);
	end = file_end;
	for (size_t at = 0; at < end; at += at < 300 || at > end - 100 ? 1 : 37) {
		unsigned char before = file[at];
		int err;

		file[at] ^= (unsigned char)(1 << vmemt_rand(&state) % 8);
		err = load(&back, &reader);
		cr_assert_eq(!err, at >= all, "byte %zu of %zu", at, all);
		if (!err) {
			err = vmem_trace_replay(back, &reader);
			cr_assert_lt(err, 0);
			vmem_track_free(back);
		}
		cr_assert(err == -VMEM_EBADMSG || err == -VMEM_ERANGE);
		cr_assert_eq(memory2.live_bytes, 0);
		file[at] = before;

		file_end = at;
		err = load(&back, &reader);
		cr_assert_eq(err, at < all ? -VMEM_EBADMSG : 0);
		if (!err) {
			err = vmem_trace_replay(back, &reader);
			cr_assert_eq(err, at == all ? 0 : -VMEM_EBADMSG);
			vmem_track_free(back);
		}
		file_end = end;
	}
	vmemt_track_done(t, &memory);
}

/* A file of three pages whose last run, and the checksum with it, is made by somebody else. */
static void forge(const unsigned char *run, size_t bytes)
{
	uint64_t sum = 0;

	file_end -= 8 + 3;
	memcpy(file + file_end, run, bytes);
	file_end += bytes;
	for (size_t at = 8; at < file_end; at += 256) {
		size_t count = file_end - at < 256 ? file_end - at : 256;

		sum = vmemi_hash_scalar(file + at, count, sum);
	}
	for (int i = 0; i < 8; i++)
		file[file_end++] = (unsigned char)(sum >> 8 * i);
}

Test(trace, forged)
{
	static const struct {
		size_t bytes;
		unsigned char run[6];
		int err;
	} cases[] = {
		{ 3, { 3, 0, 0 }, 0 },
		{ 4, { 3, 0xef, 1, 0 }, 0 },                /* the last age */
		{ 4, { 3, 0xf0, 1, 0 }, -VMEM_EBADMSG },    /* beyond it */
		{ 4, { 3, 0, 0x80, 2 }, -VMEM_EBADMSG },    /* no such state */
		{ 6, { 0, 0, 0, 3, 0, 0 }, -VMEM_EBADMSG }, /* a run of none */
		{ 3, { 4, 0, 0 }, -VMEM_EBADMSG },          /* too many */
		{ 3, { 2, 0, 0 }, -VMEM_EBADMSG },          /* too few */
	};
	vmem_track *t = vmemt_track_full(&memory, 3, 0), *back;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		file_end = 0;
		file_room = FILE_BYTES;
		cr_assert_eq(vmem_trace_save(t, &writer), 0);
		forge(cases[i].run, cases[i].bytes);
		cr_assert_eq(load(&back, &reader), cases[i].err, "case %zu", i);
		if (!cases[i].err)
			vmemt_track_done(back, &memory2);
	}
	vmemt_track_done(t, &memory);
}

Test(trace, errors)
{
	struct vmem_track_opts opts = { .size = sizeof(opts), .pages = PAGES - 1 };
	struct vmem_trace_writer bad_writer = { .size = sizeof(bad_writer) };
	struct vmem_trace_reader bad_reader = { .size = sizeof(bad_reader) };
	size_t break_at;
	struct vmem_trace_reader breaking = reader;
	vmem_track *t, *small, *back = NULL;

	state = vmemt_seed("trace_errors");
	t = make();
	cr_assert_eq(vmem_trace_save(t, NULL), -VMEM_EINVAL);
	cr_assert_eq(vmem_trace_save(t, &bad_writer), -VMEM_EINVAL);
	cr_assert_eq(vmem_trace_save_period(t, &bad_writer), -VMEM_EINVAL);
	cr_assert_eq(vmem_trace_save(t, &writer), 0);
	cr_assert_eq(load(&back, NULL), -VMEM_EINVAL);
	cr_assert_eq(load(&back, &bad_reader), -VMEM_EINVAL);
	cr_assert_eq(vmem_trace_replay(t, &bad_reader), -VMEM_EINVAL);
	file_at = 0;
	cr_assert_eq(vmem_trace_load(&back, &opts, &reader), -VMEM_ERANGE);
	/* An error of the callbacks is passed on, wherever it happens. */
	breaking.context = &break_at;
	for (break_at = 0; break_at < file_end - 8; break_at += 97)
		cr_assert_eq(load(&back, &breaking), -VMEM_EIO);
	for (file_room = 0; file_room < 3000; file_room += 13) {
		file_end = 0;
		cr_assert_eq(vmem_trace_save(t, &writer), -VMEM_ENOSPC);
	}
	file_room = FILE_BYTES;
	/* Periods of a larger tracker. */
	file_end = file_at = 0;
	cr_assert_eq(vmem_track_feed_list(t, &(uint64_t){ PAGES - 1 }, 1, 0), 0);
	cr_assert_eq(vmem_trace_save_period(t, &writer), 0);
	small = vmemt_track_full(&memory2, PAGES / 2, 0);
	cr_assert_eq(vmem_trace_replay(small, &reader), -VMEM_ERANGE);
	vmemt_track_done(small, &memory2);
	cr_assert_null(back);
	vmemt_track_done(t, &memory);
}

Test(trace, no_memory)
{
	struct vmem_track_opts opts = { .size = sizeof(opts), .pages = PAGES };
	vmem_track *t, *back = NULL;
	long n = 0;

	state = vmemt_seed("trace_no_memory");
	t = make();
	cr_assert_eq(vmem_trace_save(t, &writer), 0);
	for (;; n++) {
		int err;

		vmemt_fail_alloc_init(&memory2);
		memory2.fail_after = n;
		opts.allocator = &memory2.allocator;
		file_at = 0;
		err = vmem_trace_load(&back, &opts, &reader);
		cr_assert_eq(err, memory2.failed ? -VMEM_ENOMEM : 0);
		if (!err)
			break;
		cr_assert_eq(memory2.live_bytes, 0);
	}
	cr_assert_eq(n, 2);
	vmemt_track_done(back, &memory2);
	vmemt_track_done(t, &memory);
}
