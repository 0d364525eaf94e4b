/* SPDX-License-Identifier: BSD-2-Clause */
/* A codec of deltas for tests: the places where a page differs from its reference, one after the other. */
#ifndef VMEMT_PATCH_CODEC_H
#define VMEMT_PATCH_CODEC_H
#include <string.h>
#include <vmem/codec.h>

struct vmemt_patch {
	uint16_t at;
	unsigned char value, zero;
};

static inline size_t vmemt_patch_encode(void *context, void *dst, size_t capacity, const void *page,
					const void *reference)
{
	const unsigned char *is = page, *was = reference;
	size_t bytes = 0;

	(void)context;
	if (!reference)
		return 0;
	for (unsigned at = 0; at < VMEM_PAGE_SIZE; at++) {
		struct vmemt_patch patch = { (uint16_t)at, is[at], 0 };

		if (is[at] == was[at])
			continue;
		if (bytes + sizeof(patch) > capacity)
			return 0;
		memcpy((unsigned char *)dst + bytes, &patch, sizeof(patch));
		bytes += sizeof(patch);
	}
	return bytes;
}

static inline int vmemt_patch_decode(void *context, void *page, const void *src, size_t bytes,
				     const void *reference)
{
	unsigned char *to = page;

	(void)context;
	if (!reference)
		return -VMEM_EBADMSG;
	memcpy(page, reference, VMEM_PAGE_SIZE);
	for (size_t i = 0; i + sizeof(struct vmemt_patch) <= bytes;
	     i += sizeof(struct vmemt_patch)) {
		struct vmemt_patch patch;

		memcpy(&patch, (const unsigned char *)src + i, sizeof(patch));
		to[patch.at % VMEM_PAGE_SIZE] = patch.value;
	}
	return 0;
}

static inline const struct vmem_codec *vmemt_patch_codec(void)
{
	static const struct vmem_codec codec = { .size = sizeof(codec),
						 .name = "patch",
						 .id = VMEM_CODEC_DELTA,
						 .encode = vmemt_patch_encode,
						 .decode = vmemt_patch_decode };

	return &codec;
}

#endif
