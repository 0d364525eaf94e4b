/* SPDX-License-Identifier: BSD-2-Clause */
/* Numbers as bytes on their way to or from a caller's function, with a checksum of all of them: XXH3-64 of up
 * to 256 bytes at a time, each with the result before as its seed, the first with 0. Numbers have 7 bits a
 * byte, the lowest first, and the high bit set in all bytes but the last. What is read is not trusted: after
 * an error all that follows is 0, and the error stays. Guard: whose the stream is. */
#ifndef VMEMI_STREAM_H
#define VMEMI_STREAM_H
#include <stddef.h>
#include <stdint.h>

#define VMEMI_STREAM_BLOCK 256u /* bytes given to write at a time, at most */

struct vmemi_stream {
	int (*write)(void *context, const void *bytes, size_t count); /* one of the two */
	int (*read)(void *context, void *bytes, size_t count);
	void *context;
	int err;       /* the first; after it all else is idle */
	uint32_t used; /* bytes of the block */
	uint64_t sum;  /* of the blocks before */
	uint8_t block[VMEMI_STREAM_BLOCK];
};

/* Begin what has a checksum of its own. */
void vmemi_stream_write(struct vmemi_stream *s,
			int (*write)(void *context, const void *bytes, size_t count),
			void *context);
void vmemi_stream_read(struct vmemi_stream *s,
		       int (*read)(void *context, void *bytes, size_t count), void *context);

/* Bytes that the checksum leaves out. What is read must not end: -VMEM_EBADMSG. */
void vmemi_stream_put_bytes(struct vmemi_stream *s, const void *bytes, size_t count);
void vmemi_stream_get_bytes(struct vmemi_stream *s, void *bytes, size_t count);

/* A byte as it is, not as a number: same bytes for those below 128. */
void vmemi_stream_put_byte(struct vmemi_stream *s, uint8_t byte);
uint8_t vmemi_stream_get_byte(struct vmemi_stream *s);
/* The first byte, before which it may end: what the read function returned. */
int vmemi_stream_get_first(struct vmemi_stream *s, uint8_t *ret_byte);

void vmemi_stream_put(struct vmemi_stream *s, uint64_t number);
uint64_t vmemi_stream_get(struct vmemi_stream *s);

/* The checksum, 8 bytes, the least significant first. */
void vmemi_stream_put_end(struct vmemi_stream *s);
void vmemi_stream_get_end(struct vmemi_stream *s);

#endif
