/* SPDX-License-Identifier: BSD-2-Clause */
/* Numbers with a checksum, to and from bytes: see stream.h. */
#include "base/stream.h"
#include <vmem/common.h>
#include "base/hash.h"
#include "base/mem.h"

#define SUM_BYTES 8u

static uint64_t checksum(const struct vmemi_stream *s)
{
	return vmemi_hash_scalar(s->block, s->used, s->sum);
}

static void next_block(struct vmemi_stream *s)
{
	s->sum = checksum(s);
	s->used = 0;
}

static void begin(struct vmemi_stream *s, void *context)
{
	s->context = context;
	s->err = 0;
	s->used = 0;
	s->sum = 0;
}

/* --- Writing --- */

void vmemi_stream_write(struct vmemi_stream *s,
			int (*write)(void *context, const void *bytes, size_t count), void *context)
{
	begin(s, context);
	s->write = write;
	s->read = NULL;
}

void vmemi_stream_put_bytes(struct vmemi_stream *s, const void *bytes, size_t count)
{
	if (!s->err)
		s->err = s->write(s->context, bytes, count);
}

static void write_block(struct vmemi_stream *s)
{
	vmemi_stream_put_bytes(s, s->block, s->used);
	next_block(s);
}

void vmemi_stream_put_byte(struct vmemi_stream *s, uint8_t byte)
{
	if (s->used == VMEMI_STREAM_BLOCK)
		write_block(s);
	s->block[s->used++] = byte;
}

void vmemi_stream_put(struct vmemi_stream *s, uint64_t number)
{
	do {
		vmemi_stream_put_byte(s, (uint8_t)((number & 0x7f) | (number > 0x7f ? 0x80 : 0)));
		number >>= 7;
	} while (number);
}

void vmemi_stream_put_end(struct vmemi_stream *s)
{
	uint64_t sum = checksum(s);
	uint8_t bytes[SUM_BYTES];

	write_block(s);
	for (uint32_t i = 0; i < SUM_BYTES; i++)
		bytes[i] = (uint8_t)(sum >> 8 * i);
	vmemi_stream_put_bytes(s, bytes, sizeof(bytes));
}

/* --- Reading --- */

void vmemi_stream_read(struct vmemi_stream *s,
		       int (*read)(void *context, void *bytes, size_t count), void *context)
{
	begin(s, context);
	s->read = read;
	s->write = NULL;
}

void vmemi_stream_get_bytes(struct vmemi_stream *s, void *bytes, size_t count)
{
	int got = s->err ? 0 : s->read(s->context, bytes, count);

	if (!s->err && got != 1)
		s->err = got < 0 ? got : -VMEM_EBADMSG;
	if (s->err)
		memset(bytes, 0, count);
}

uint8_t vmemi_stream_get_byte(struct vmemi_stream *s)
{
	if (s->used == VMEMI_STREAM_BLOCK)
		next_block(s);
	vmemi_stream_get_bytes(s, &s->block[s->used], 1);
	return s->block[s->used++];
}

int vmemi_stream_get_first(struct vmemi_stream *s, uint8_t *ret_byte)
{
	int got = s->read(s->context, s->block, 1);

	s->used = 1;
	*ret_byte = s->block[0];
	return got;
}

uint64_t vmemi_stream_get(struct vmemi_stream *s)
{
	uint64_t number = 0;

	for (uint32_t shift = 0; shift < 64; shift += 7) {
		uint8_t byte = vmemi_stream_get_byte(s);

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

void vmemi_stream_get_end(struct vmemi_stream *s)
{
	uint64_t sum = checksum(s);
	uint8_t bytes[SUM_BYTES];

	vmemi_stream_get_bytes(s, bytes, sizeof(bytes));
	for (uint32_t i = 0; i < SUM_BYTES && !s->err; i++)
		if (bytes[i] != (uint8_t)(sum >> 8 * i))
			s->err = -VMEM_EBADMSG;
}
