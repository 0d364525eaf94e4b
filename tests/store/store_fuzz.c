/* SPDX-License-Identifier: BSD-2-Clause */
/* Sequences of operations on a store and on its model: nine bytes each, an operation and its argument. */
#include "store/store_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct vmemt_store_model model;

	vmemt_store_model_init(&model, NULL);
	for (; bytes >= 9; data += 9, bytes -= 9) {
		uint64_t arg;

		memcpy(&arg, data + 1, sizeof(arg));
		vmemt_store_model_step(&model, data[0], arg);
	}
	vmemt_store_model_destroy(&model);
	return 0;
}
