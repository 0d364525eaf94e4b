/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as a file. First with their checksums as they are; then, so that more is reached, as if they
 * had been right: the reader is told the sums that it wants. Whatever is loaded or replayed is sound. */
#include <stdlib.h>
#include <vmem/trace.h>
#include "support/mended_stream.h"
#include "track/track_internal.h"

enum { MOST_PAGES = 1 << 14 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void require(int condition)
{
	if (!condition)
		abort();
}

static void read_file(struct vmemt_mended *source)
{
	struct vmem_track_opts opts = { .size = sizeof(opts), .pages = MOST_PAGES };
	struct vmem_trace_reader reader = { .size = sizeof(reader),
					    .context = source,
					    .read = vmemt_mended_read };
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
		struct vmemt_mended source = { .data = data, .left = bytes, .mend = mend };

		read_file(&source);
	}
	return 0;
}
