/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as a file. First with their checksums as they are; then, so that more is reached, as if they
 * had been right: the reader is told the sums that it wants. Whatever is loaded or replayed is sound. */
#include <stdlib.h>
#include <string.h>
#include <vmem/trace.h>
#include "base/hash.h"
#include "track/track_internal.h"

enum { MOST_PAGES = 1 << 14 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Follows the checksum of a frame as the reader does. */
struct source {
	const uint8_t *data;
	size_t left;
	int mend; /* give the right sums */
	uint64_t sum;
	uint32_t used;
	uint8_t block[256];
};

static void require(int condition)
{
	if (!condition)
		abort();
}

static int read_source(void *context, void *bytes, size_t count)
{
	struct source *s = context;
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

static void read_file(struct source *source)
{
	struct vmem_track_opts opts = { .size = sizeof(opts), .pages = MOST_PAGES };
	struct vmem_trace_reader reader = { .size = sizeof(reader),
					    .context = source,
					    .read = read_source };
	vmem_track *t = NULL;
	int err = vmem_trace_load(&t, &opts, &reader);

	require(!err == !!t);
	if (err)
		return;
	do {
		require(!vmemi_track_check(t));
		vmem_track_period(t);
		err = vmem_trace_replay(t, &reader);
	} while (err == 1);
	require(!vmemi_track_check(t));
	vmem_track_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	for (int mend = 0; mend < 2; mend++) {
		struct source source = { .data = data, .left = bytes, .mend = mend };

		read_file(&source);
	}
	return 0;
}
