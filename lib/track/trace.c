/* SPDX-License-Identifier: BSD-2-Clause */
/* Trackers as files: <vmem/trace.h> has the format. What is read is not trusted: each number is checked
 * before use, and a tracker is given out only after its checksum was right. Guard: the tracker's. */
#include <vmem/trace.h>
#include "base/hash.h"
#include "base/mem.h"
#include "base/opts.h"
#include "track/track_internal.h"

#define BLOCK 256u
#define SUM_BYTES 8u

static const uint8_t magic[8] = { 'V', 'M', 'E', 'M', 'T', 'R', 'K', '1' };

/* The bytes of a frame on their way, and the checksum of those before. After an error all else is idle. */
struct stream {
	struct vmem_trace_writer writer; /* one of the two */
	struct vmem_trace_reader reader;
	int err;
	uint32_t used; /* bytes of the block */
	uint64_t sum;
	uint8_t block[BLOCK];
};

static uint64_t checksum(const struct stream *s)
{
	return vmemi_hash_scalar(s->block, s->used, s->sum);
}

static void next_block(struct stream *s)
{
	s->sum = checksum(s);
	s->used = 0;
}

/* --- Writing --- */

static void write_block(struct stream *s)
{
	if (!s->err)
		s->err = s->writer.write(s->writer.context, s->block, s->used);
	next_block(s);
}

static void put(struct stream *s, uint64_t number)
{
	do {
		if (s->used == BLOCK)
			write_block(s);
		s->block[s->used++] = (uint8_t)((number & 0x7f) | (number > 0x7f ? 0x80 : 0));
		number >>= 7;
	} while (number);
}

static void put_end(struct stream *s)
{
	uint64_t sum = checksum(s);
	uint8_t bytes[SUM_BYTES];

	write_block(s);
	for (uint32_t i = 0; i < SUM_BYTES; i++)
		bytes[i] = (uint8_t)(sum >> 8 * i);
	if (!s->err)
		s->err = s->writer.write(s->writer.context, bytes, sizeof(bytes));
}

static int writing(struct stream *s, const struct vmem_trace_writer *writer, uint8_t kind)
{
	int err = vmemi_callbacks_take(&s->writer, sizeof(s->writer),
				       VMEMI_BYTES_TO(struct vmem_trace_writer, write), writer);

	if (err || !s->writer.write)
		return -VMEM_EINVAL;
	s->err = 0;
	s->sum = 0;
	s->block[0] = kind;
	s->used = 1;
	return 0;
}

int vmem_trace_save(const vmem_track *t, const struct vmem_trace_writer *writer)
{
	struct stream s;
	uint64_t end;

	if (writing(&s, writer, 'S'))
		return -VMEM_EINVAL;
	s.err = s.writer.write(s.writer.context, magic, sizeof(magic));
	put(&s, t->pages);
	put(&s, t->periods);
	put(&s, t->accesses);
	put(&s, t->taken);
	put(&s, t->returned);
	for (uint32_t age = 0; age < VMEM_TRACK_AGES; age++)
		put(&s, t->promotions[age]);
	for (uint64_t page = 0; page < t->pages && !s.err; page = end) {
		uint32_t age = vmemi_track_age(t, t->stamps[page]);

		end = page + 1;
		while (end < t->pages && t->states[end] == t->states[page] &&
		       vmemi_track_age(t, t->stamps[end]) == age)
			end++;
		put(&s, end - page);
		put(&s, age);
		put(&s, t->states[page]);
	}
	put_end(&s);
	return s.err;
}

/* 0: not accessed in this period; 2; 3: and written. */
static uint32_t accessed(const struct vmem_track *t, uint64_t page)
{
	uint8_t state = t->states[page];

	if (state & (VMEM_TRACK_ABSENT | VMEM_TRACK_AWAY) || t->stamps[page] != vmemi_track_now(t))
		return 0;
	return state & VMEM_TRACK_WRITTEN ? 3 : 2;
}

int vmem_trace_save_period(const vmem_track *t, const struct vmem_trace_writer *writer)
{
	struct stream s;
	uint64_t last = 0, end;

	if (writing(&s, writer, 'P'))
		return -VMEM_EINVAL;
	for (uint64_t page = 0; page < t->pages && !s.err; page = end) {
		uint32_t how = accessed(t, page);

		end = page + 1;
		if (!how)
			continue;
		while (end < t->pages && accessed(t, end) == how)
			end++;
		put(&s, page - last);
		put(&s, (end - page) * 2 + how % 2);
		last = end;
	}
	put(&s, 0);
	put(&s, 0);
	put_end(&s);
	return s.err;
}

/* --- Reading --- */

static int reading(struct stream *s, const struct vmem_trace_reader *reader)
{
	int err = vmemi_callbacks_take(&s->reader, sizeof(s->reader),
				       VMEMI_BYTES_TO(struct vmem_trace_reader, read), reader);

	s->err = 0;
	s->sum = 0;
	s->used = 0;
	return err || !s->reader.read ? -VMEM_EINVAL : 0;
}

/* What has begun must not end. */
static void get_bytes(struct stream *s, void *bytes, size_t count)
{
	int got = s->err ? 0 : s->reader.read(s->reader.context, bytes, count);

	if (!s->err && got != 1)
		s->err = got < 0 ? got : -VMEM_EBADMSG;
	if (s->err)
		memset(bytes, 0, count);
}

static uint8_t get_byte(struct stream *s)
{
	if (s->used == BLOCK)
		next_block(s);
	get_bytes(s, &s->block[s->used], 1);
	return s->block[s->used++];
}

static uint64_t get(struct stream *s)
{
	uint64_t number = 0;

	for (uint32_t shift = 0; shift < 64; shift += 7) {
		uint8_t byte = get_byte(s);

		number |= (uint64_t)(byte & 0x7f) << shift;
		if (shift == 63 && byte > 1)
			break;
		if (byte < 0x80)
			return number;
	}
	if (!s->err)
		s->err = -VMEM_EBADMSG;
	return 0;
}

static void get_end(struct stream *s)
{
	uint64_t sum = checksum(s);
	uint8_t bytes[SUM_BYTES];

	get_bytes(s, bytes, sizeof(bytes));
	for (uint32_t i = 0; i < SUM_BYTES && !s->err; i++)
		if (bytes[i] != (uint8_t)(sum >> 8 * i))
			s->err = -VMEM_EBADMSG;
}

/* The rest of an 'S' frame, after the number of pages. */
static void get_all(struct stream *s, struct vmem_track *t)
{
	uint64_t end;

	t->periods = get(s);
	t->accesses = get(s);
	t->taken = get(s);
	t->returned = get(s);
	for (uint32_t age = 0; age < VMEM_TRACK_AGES; age++)
		t->promotions[age] = get(s);
	for (uint64_t page = 0; page < t->pages && !s->err; page = end) {
		uint64_t length = get(s), age = get(s), state = get(s);

		if (!length || length > t->pages - page || age >= VMEM_TRACK_AGES ||
		    state > UINT8_MAX) {
			s->err = s->err ? s->err : -VMEM_EBADMSG;
			return;
		}
		end = page + length;
		memset(t->states + page, (int)state, (size_t)length);
		memset(t->stamps + page, vmemi_track_bucket(t, (uint32_t)age), (size_t)length);
		vmemi_track_count(t, page, length);
	}
	t->scan->settle(t, 0, t->words);
	get_end(s);
}

int vmem_trace_load(vmem_track **ret_track, const struct vmem_track_opts *given,
		    const struct vmem_trace_reader *reader)
{
	struct vmem_track_opts opts;
	struct vmem_track *t;
	struct stream s;
	uint8_t start[sizeof(magic)];
	uint64_t pages;
	int err = ret_track ? vmemi_opts_take(&opts, sizeof(opts), given) : -VMEM_EINVAL;

	if (!err)
		err = reading(&s, reader);
	if (err)
		return err;
	get_bytes(&s, start, sizeof(start));
	if (!s.err && (memcmp(start, magic, sizeof(magic)) || get_byte(&s) != 'S'))
		s.err = s.err ? s.err : -VMEM_EBADMSG;
	pages = get(&s);
	if (s.err)
		return s.err;
	if (!pages)
		return -VMEM_EBADMSG;
	if (pages > opts.pages)
		return -VMEM_ERANGE;
	opts.pages = pages;
	err = vmem_track_new(&t, &opts);
	if (err)
		return err;
	get_all(&s, t);
	if (s.err)
		vmem_track_free(t);
	else
		*ret_track = t;
	return s.err;
}

int vmem_trace_replay(vmem_track *t, const struct vmem_trace_reader *reader)
{
	struct stream s;
	uint64_t page = 0;
	int err = reading(&s, reader), got;

	if (err)
		return err;
	got = s.reader.read(s.reader.context, &s.block[0], 1);
	if (got <= 0)
		return got;
	s.used = 1;
	if (s.block[0] != 'P')
		return -VMEM_EBADMSG;
	for (;;) {
		uint64_t gap = get(&s), how = get(&s), length = how / 2;

		if (s.err || (!gap && !how))
			break;
		if (!length)
			return -VMEM_EBADMSG;
		if (!vmemi_track_within(t, page, gap) || !vmemi_track_within(t, page + gap, length))
			return -VMEM_ERANGE;
		page += gap;
		for (uint64_t i = 0; i < length; i++)
			vmemi_track_touch_page(t, page + i, (int)(how % 2));
		page += length;
	}
	get_end(&s);
	return s.err ? s.err : 1;
}
