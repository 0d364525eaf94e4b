/* SPDX-License-Identifier: BSD-2-Clause */
/* LZ4 block format, through liblz4. A context is the compressor's table; nothing in it outlives a call.
 *
 * Of the stable functions, LZ4_compress_fast_extState() makes the smallest pages, the same bytes as
 * LZ4_compress_default(): below 64 KiB it hashes 4 bytes into 16-bit entries, the streaming calls
 * 5 bytes into 32-bit ones, which on 4 KiB pages gives 0.3-1.3 % more bytes. */
#include <lz4.h>
#include <vmem/codec.h>

#define ACCELERATION 1                                    /* LZ4's default */
#define MOST_BYTES LZ4_COMPRESSBOUND((int)VMEM_PAGE_SIZE) /* of any encoded page */

static size_t lz4_encode(void *context, void *dst, size_t capacity, const void *page,
			 const void *reference)
{
	int room = capacity < MOST_BYTES ? (int)capacity : MOST_BYTES;
	int bytes;

	(void)reference;
	bytes = LZ4_compress_fast_extState(context, page, dst, (int)VMEM_PAGE_SIZE, room,
					   ACCELERATION);
	return bytes > 0 ? (size_t)bytes : 0;
}

static int lz4_decode(void *context, void *page, const void *src, size_t bytes,
		      const void *reference)
{
	(void)context;
	(void)reference;
	if (bytes > MOST_BYTES ||
	    LZ4_decompress_safe(src, page, (int)bytes, (int)VMEM_PAGE_SIZE) != (int)VMEM_PAGE_SIZE)
		return -VMEM_EBADMSG;
	return 0;
}

static const struct vmem_codec lz4_codec = {
	.size = sizeof(lz4_codec),
	.name = "lz4",
	.id = VMEM_CODEC_LZ4,
	.flags = VMEM_CODEC_DECODE_WITHOUT_CONTEXT,
	.context_bytes = sizeof(LZ4_stream_t),
	.encode = lz4_encode,
	.decode = lz4_decode,
};

const struct vmem_codec *vmem_codec_lz4(void)
{
	return &lz4_codec;
}
