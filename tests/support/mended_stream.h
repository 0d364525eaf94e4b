/* SPDX-License-Identifier: BSD-2-Clause */
/* Bytes given to a reader of checked numbers (base/stream.h) as they are, or with each checksum made the one that
 * the reader wants, so that a fuzzer reaches more. */
#ifndef VMEMT_MENDED_STREAM_H
#define VMEMT_MENDED_STREAM_H
#include <string.h>
#include "base/stream.h"
#include "base/hash.h"

/* Follows the checksum as the reader does. */
struct vmemt_mended {
	const uint8_t *data;
	size_t left;
	int mend; /* give the right sums */
	uint64_t sum;
	uint32_t used;
	uint8_t block[VMEMI_STREAM_BLOCK];
};

static inline int vmemt_mended_read(void *context, void *bytes, size_t count)
{
	struct vmemt_mended *s = context;
	uint8_t *to = bytes;

	if (count > s->left)
		return 0;
	memcpy(bytes, s->data, count);
	s->data += count;
	s->left -= count;
	if (count == 1) {
		if (s->used == sizeof(s->block)) {
			s->sum = vmemi_hash_scalar(s->block, s->used, s->sum);
			s->used = 0;
		}
		s->block[s->used++] = to[0];
	} else if (s->used) { /* a checksum; before it is the start of the file */
		uint64_t sum = vmemi_hash_scalar(s->block, s->used, s->sum);

		for (size_t i = 0; s->mend && i < count; i++)
			to[i] = (uint8_t)(sum >> 8 * i);
		s->sum = 0;
		s->used = 0;
	}
	return 1;
}

#endif
