/* SPDX-License-Identifier: BSD-2-Clause */
/* The bytes of a fuzzer, as numbers; short names, for one file each. */
#ifndef VMEMT_FUZZ_INPUT_H
#define VMEMT_FUZZ_INPUT_H
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct input {
	const uint8_t *data;
	size_t left;
};

static inline void require(int condition)
{
	if (!condition)
		abort();
}

/* The next number; of bytes that are not there any more, 0. */
static inline uint64_t take(struct input *in, size_t bytes)
{
	uint64_t value = 0;

	for (size_t i = 0; i < bytes && in->left; i++, in->left--)
		value |= (uint64_t)*in->data++ << 8 * i;
	return value;
}

#endif
