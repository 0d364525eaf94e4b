/* SPDX-License-Identifier: BSD-2-Clause */
/* Trackers as files: <vmem/trace.h> has the format. What is read is not trusted: each number is checked
 * before use, and a tracker is given out only after its checksum was right. Guard: the tracker's. */
#include <vmem/trace.h>
#include "base/mem.h"
#include "base/opts.h"
#include "base/stream.h"
#include "track/track_internal.h"

static const uint8_t magic[8] = { 'V', 'M', 'E', 'M', 'T', 'R', 'K', '1' };

/* --- Writing --- */

static int writing(struct vmemi_stream *s, const struct vmem_trace_writer *given, uint8_t kind)
{
	struct vmem_trace_writer writer;
	int err = vmemi_callbacks_take(&writer, sizeof(writer),
				       VMEMI_BYTES_TO(struct vmem_trace_writer, write), given);

	if (err || !writer.write)
		return -VMEM_EINVAL;
	vmemi_stream_write(s, writer.write, writer.context);
	if (kind == 'S')
		vmemi_stream_put_bytes(s, magic, sizeof(magic));
	vmemi_stream_put_byte(s, kind);
	return 0;
}

int vmem_trace_save(const vmem_track *t, const struct vmem_trace_writer *writer)
{
	struct vmemi_stream s;
	uint64_t end;

	if (writing(&s, writer, 'S'))
		return -VMEM_EINVAL;
	vmemi_stream_put(&s, t->pages);
	vmemi_stream_put(&s, t->periods);
	vmemi_stream_put(&s, t->accesses);
	vmemi_stream_put(&s, t->taken);
	vmemi_stream_put(&s, t->returned);
	for (uint32_t age = 0; age < VMEM_TRACK_AGES; age++)
		vmemi_stream_put(&s, t->promotions[age]);
	for (uint64_t page = 0; page < t->pages && !s.err; page = end) {
		uint32_t age = vmemi_track_age(t, t->stamps[page]);

		end = page + 1;
		while (end < t->pages && t->states[end] == t->states[page] &&
		       vmemi_track_age(t, t->stamps[end]) == age)
			end++;
		vmemi_stream_put(&s, end - page);
		vmemi_stream_put(&s, age);
		vmemi_stream_put(&s, t->states[page]);
	}
	vmemi_stream_put_end(&s);
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
	struct vmemi_stream s;
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
		vmemi_stream_put(&s, page - last);
		vmemi_stream_put(&s, (end - page) * 2 + how % 2);
		last = end;
	}
	vmemi_stream_put(&s, 0);
	vmemi_stream_put(&s, 0);
	vmemi_stream_put_end(&s);
	return s.err;
}

/* --- Reading --- */

static int reading(struct vmemi_stream *s, const struct vmem_trace_reader *given)
{
	struct vmem_trace_reader reader;
	int err = vmemi_callbacks_take(&reader, sizeof(reader),
				       VMEMI_BYTES_TO(struct vmem_trace_reader, read), given);

	if (err || !reader.read)
		return -VMEM_EINVAL;
	vmemi_stream_read(s, reader.read, reader.context);
	return 0;
}

/* The rest of an 'S' frame, after the number of pages. */
static void get_all(struct vmemi_stream *s, struct vmem_track *t)
{
	uint64_t end;

	t->periods = vmemi_stream_get(s);
	t->accesses = vmemi_stream_get(s);
	t->taken = vmemi_stream_get(s);
	t->returned = vmemi_stream_get(s);
	for (uint32_t age = 0; age < VMEM_TRACK_AGES; age++)
		t->promotions[age] = vmemi_stream_get(s);
	for (uint64_t page = 0; page < t->pages && !s->err; page = end) {
		uint64_t length = vmemi_stream_get(s), age = vmemi_stream_get(s),
			 state = vmemi_stream_get(s);

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
	vmemi_stream_get_end(s);
}

int vmem_trace_load(vmem_track **ret_track, const struct vmem_track_opts *given,
		    const struct vmem_trace_reader *reader)
{
	struct vmem_track_opts opts;
	struct vmem_track *t;
	struct vmemi_stream s;
	uint8_t start[sizeof(magic)];
	uint64_t pages;
	int err = ret_track ? vmemi_opts_take(&opts, sizeof(opts), given) : -VMEM_EINVAL;

	if (!err)
		err = reading(&s, reader);
	if (err)
		return err;
	vmemi_stream_get_bytes(&s, start, sizeof(start));
	if (!s.err && (memcmp(start, magic, sizeof(magic)) || vmemi_stream_get_byte(&s) != 'S'))
		s.err = s.err ? s.err : -VMEM_EBADMSG;
	pages = vmemi_stream_get(&s);
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
	struct vmemi_stream s;
	uint64_t page = 0;
	uint8_t kind;
	int err = reading(&s, reader), got;

	if (err)
		return err;
	got = vmemi_stream_get_first(&s, &kind);
	if (got <= 0)
		return got;
	if (kind != 'P')
		return -VMEM_EBADMSG;
	for (;;) {
		uint64_t gap = vmemi_stream_get(&s), how = vmemi_stream_get(&s), length = how / 2;

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
	vmemi_stream_get_end(&s);
	return s.err ? s.err : 1;
}
