/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as the list of ranges of a hand-over: what passes is within the memory file, in whole pages; and
 * where it is in files, each range has its own part of one of them. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pager_hand_over.h"

#define MEMORY_BYTES (UINT64_C(64) << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void require(int condition)
{
	if (!condition)
		abort();
}

/* It is in a file that comes with it, and no other range is there. */
static void check_file(const struct hand_over *h, uint32_t i)
{
	const struct hand_over_range *r = &h->range[i];

	if (!h->files)
		return;
	require(h->files <= HAND_OVER_FILES_MAX && r->file < h->files);
	require(!(r->file_offset % VMEM_PAGE_SIZE) && r->file_offset + r->bytes > r->file_offset);
	for (uint32_t k = 0; k < i; k++)
		require(h->range[k].file != r->file ||
			h->range[k].file_offset + h->range[k].bytes <= r->file_offset ||
			r->file_offset + r->bytes <= h->range[k].file_offset);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct hand_over h;

	if (hand_over_parse(&h, (const char *)data, bytes, MEMORY_BYTES))
		return 0;
	require(h.count && h.count <= VMEM_FOREIGN_RANGES_MAX);
	for (uint32_t i = 0; i < h.count; i++) {
		const struct hand_over_range *r = &h.range[i];

		require(r->base && r->bytes);
		require(!((r->base | r->bytes | r->offset) % VMEM_PAGE_SIZE));
		require(r->bytes <= MEMORY_BYTES && r->offset <= MEMORY_BYTES - r->bytes);
		check_file(&h, i);
	}
	return 0;
}
