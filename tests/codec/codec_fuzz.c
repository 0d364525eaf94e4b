/* SPDX-License-Identifier: BSD-2-Clause */
/* Decoders against any bytes: the first byte chooses the codec. A page is written whole or not at all
 * beyond its end, and what decodes also encodes and comes back. */
#include <stdlib.h>
#include <string.h>
#include <vmem/codec.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void require(int condition)
{
	if (!condition)
		abort();
}

static void encode_again(const struct vmem_codec *codec, const unsigned char *page)
{
	static _Alignas(64) unsigned char context[32768], back[VMEM_PAGE_SIZE];
	static unsigned char encoded[VMEM_PAGE_SIZE + 512];
	size_t bytes;

	require(codec->context_bytes <= sizeof(context));
	memset(context, 0, sizeof(context));
	bytes = codec->encode(context, encoded, sizeof(encoded), page, NULL);
	require(bytes > 0 && bytes <= sizeof(encoded));
	require(codec->decode(NULL, back, encoded, bytes, NULL) == 0);
	require(memcmp(page, back, VMEM_PAGE_SIZE) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	/* A block of its own, so that a sanitizer sees each write outside the page. */
	unsigned char *page = aligned_alloc(64, VMEM_PAGE_SIZE);
	const struct vmem_codec *codec;

	if (bytes && page) {
		codec = data[0] % 3 == 0   ? vmem_codec_raw()
			: data[0] % 3 == 1 ? vmem_codec_fill()
					   : vmem_codec_lz4();
		if (codec->decode(NULL, page, data + 1, bytes - 1, NULL) == 0)
			encode_again(codec, page);
	}
	free(page);
	return 0;
}
