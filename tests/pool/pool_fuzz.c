/* SPDX-License-Identifier: BSD-2-Clause */
/* Sequences of operations on a pool and on its model: the budget in the first byte, then nine bytes each,
 * an operation and its argument. */
#include "pool/pool_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct vmemt_pool_model model;

	vmemt_pool_model_init(&model, bytes ? data[0] % 16 : 0);
	if (bytes)
		data++, bytes--;
	for (; bytes >= 9; data += 9, bytes -= 9) {
		uint64_t arg;

		memcpy(&arg, data + 1, sizeof(arg));
		vmemt_pool_model_step(&model, data[0], arg);
	}
	vmemt_pool_model_destroy(&model);
	return 0;
}
