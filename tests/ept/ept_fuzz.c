/* SPDX-License-Identifier: BSD-2-Clause */
/* Each input is a kind of processor and a sequence of operations on tables, beside a list of plain extents and a
 * processor that remembers. */
#include "ept/ept_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct vmemt_ept_world *w = vmemt_ept_world_new(bytes, data, bytes, 4096);

	w->failing = bytes & 1;
	w->quota = bytes >> 1 & 1;
	w->processor = 1;
	for (uint32_t i = 0; w->left && i < 200; i++)
		vmemt_ept_step(w);
	vmemt_ept_world_free(w);
	return 0;
}
