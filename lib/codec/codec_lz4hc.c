/* SPDX-License-Identifier: BSD-2-Clause */
/* LZ4's high-compression encoder, for pages that are decoded more often than encoded. The encoder is
 * reset, not initialised, for each page: that clears 256 KiB less. Positions of earlier pages stay in its
 * tables but are out of reach, so that nothing in a context outlives a call. */
#include <lz4hc.h>
#include <vmem/codec.h>

#define LEVEL 9 /* the last that searches chains; above it takes several times longer for 1 % */
#define MOST_BYTES LZ4_COMPRESSBOUND((int)VMEM_PAGE_SIZE)

static int lz4hc_init(void *context)
{
	return LZ4_initStreamHC(context, sizeof(LZ4_streamHC_t)) ? 0 : -VMEM_EINVAL;
}

static size_t lz4hc_encode(void *context, void *dst, size_t capacity, const void *page,
			   const void *reference)
{
	int room = capacity < MOST_BYTES ? (int)capacity : MOST_BYTES;
	int bytes;

	(void)reference;
	LZ4_resetStreamHC_fast(context, LEVEL);
	bytes = LZ4_compress_HC_continue(context, page, dst, (int)VMEM_PAGE_SIZE, room);
	return bytes > 0 ? (size_t)bytes : 0;
}

static int lz4hc_decode(void *context, void *page, const void *src, size_t bytes,
			const void *reference)
{
	return vmem_codec_lz4()->decode(context, page, src, bytes, reference);
}

static const struct vmem_codec lz4hc_codec = {
	.size = sizeof(lz4hc_codec),
	.name = "lz4hc",
	.id = VMEM_CODEC_LZ4,
	.flags = VMEM_CODEC_DECODE_WITHOUT_CONTEXT,
	.context_bytes = sizeof(LZ4_streamHC_t),
	.context_init = lz4hc_init,
	.encode = lz4hc_encode,
	.decode = lz4hc_decode,
};

const struct vmem_codec *vmem_codec_lz4hc(void)
{
	return &lz4hc_codec;
}
