/* SPDX-License-Identifier: BSD-2-Clause */
/* Decoders against any bytes: the first byte chooses the codec; for a delta, the next 64 are the
 * reference, repeated. No decoder touches anything beside the page, the reference and the bytes, and what
 * decodes also encodes and comes back. */
#include <stdlib.h>
#include <string.h>
#include <vmem/codec.h>
#include "codec/guard_pages.h"

#define CODECS 5
#define REFERENCE_BYTES 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const struct vmem_codec *codecs[CODECS];
static void *contexts[CODECS];
static unsigned char *page, *back, *reference, *source;

static void require(int condition)
{
	if (!condition)
		abort();
}

static void set_up(void)
{
	codecs[0] = vmem_codec_raw();
	codecs[1] = vmem_codec_fill();
	codecs[2] = vmem_codec_lz4();
	codecs[3] = vmem_codec_zstd(1);
	codecs[4] = vmem_codec_delta(1);
	for (int i = 0; i < CODECS; i++) {
		size_t bytes = (codecs[i]->context_bytes + 63) / 64 * 64;

		contexts[i] = bytes ? aligned_alloc(64, bytes) : NULL;
		require(!bytes || contexts[i]);
		if (bytes)
			memset(contexts[i], 0, bytes);
		require(!codecs[i]->context_init || codecs[i]->context_init(contexts[i]) == 0);
	}
	page = vmemt_guarded_page();
	back = vmemt_guarded_page();
	reference = vmemt_guarded_page();
	source = vmemt_guarded_page();
}

static void encode_again(const struct vmem_codec *codec, void *context, const void *against)
{
	static unsigned char encoded[VMEM_PAGE_SIZE + 512];
	size_t bytes = codec->encode(context, encoded, sizeof(encoded), page, against);

	require(bytes <= sizeof(encoded));
	require(bytes > 0 || codec->id >= VMEM_CODEC_ZSTD); /* it does not compress */
	if (bytes) {
		require(codec->decode(context, back, encoded, bytes, against) == 0);
		require(memcmp(page, back, VMEM_PAGE_SIZE) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	const struct vmem_codec *codec;
	const unsigned char *against = NULL, *encoded;
	int which;

	if (!page)
		set_up();
	if (!bytes--)
		return 0;
	which = *data++ % CODECS;
	codec = codecs[which];
	if (codec->id == VMEM_CODEC_DELTA && bytes >= REFERENCE_BYTES) {
		for (size_t at = 0; at < VMEM_PAGE_SIZE; at += REFERENCE_BYTES)
			memcpy(reference + at, data, REFERENCE_BYTES);
		against = reference;
		data += REFERENCE_BYTES;
		bytes -= REFERENCE_BYTES;
	}
	/* At the end of its page, or where a sanitizer watches it. */
	encoded = data;
	if (bytes && bytes <= VMEM_PAGE_SIZE)
		encoded = memcpy(source + VMEM_PAGE_SIZE - bytes, data, bytes);
	if (codec->decode(contexts[which], page, encoded, bytes, against) == 0)
		encode_again(codec, contexts[which], against);
	return 0;
}
