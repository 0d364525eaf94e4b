/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as the list of ranges of a hand-over: what passes is within the memory file, in whole pages. */
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
	}
	return 0;
}
