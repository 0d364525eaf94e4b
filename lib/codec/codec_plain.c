/* SPDX-License-Identifier: BSD-2-Clause */
/* The codecs that need no other library: raw and fill. Tables of pure functions, without context. */
#include <vmem/codec.h>
#include "base/mem.h"

static size_t raw_encode(void *context, void *dst, size_t capacity, const void *page,
			 const void *reference)
{
	(void)context;
	(void)reference;
	if (capacity < VMEM_PAGE_SIZE)
		return 0;
	memcpy(dst, page, VMEM_PAGE_SIZE);
	return VMEM_PAGE_SIZE;
}

static int raw_decode(void *context, void *page, const void *src, size_t bytes,
		      const void *reference)
{
	(void)context;
	(void)reference;
	if (bytes != VMEM_PAGE_SIZE)
		return -VMEM_EBADMSG;
	memcpy(page, src, VMEM_PAGE_SIZE);
	return 0;
}

static size_t fill_encode(void *context, void *dst, size_t capacity, const void *page,
			  const void *reference)
{
	uint64_t word;

	(void)context;
	(void)reference;
	if (capacity < sizeof(word) || !vmem_page_same_filled(page, &word))
		return 0;
	memcpy(dst, &word, sizeof(word));
	return sizeof(word);
}

static int fill_decode(void *context, void *page, const void *src, size_t bytes,
		       const void *reference)
{
	uint64_t word;

	(void)context;
	(void)reference;
	if (bytes != sizeof(word))
		return -VMEM_EBADMSG;
	memcpy(&word, src, sizeof(word));
	vmem_page_fill(page, word);
	return 0;
}

static const struct vmem_codec raw_codec = {
	.size = sizeof(raw_codec),
	.name = "raw",
	.id = VMEM_CODEC_RAW,
	.flags = VMEM_CODEC_DECODE_WITHOUT_CONTEXT,
	.encode = raw_encode,
	.decode = raw_decode,
};

static const struct vmem_codec fill_codec = {
	.size = sizeof(fill_codec),
	.name = "fill",
	.id = VMEM_CODEC_FILL,
	.flags = VMEM_CODEC_DECODE_WITHOUT_CONTEXT,
	.encode = fill_encode,
	.decode = fill_decode,
};

const struct vmem_codec *vmem_codec_raw(void)
{
	return &raw_codec;
}

const struct vmem_codec *vmem_codec_fill(void)
{
	return &fill_codec;
}
