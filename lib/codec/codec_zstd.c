/* SPDX-License-Identifier: BSD-2-Clause */
/* Zstandard, through libzstd. Its pages are a quarter smaller than LZ4's and take four times as long to
 * come back. zstd_frame.h says what is kept of a frame. Tables of functions; a context keeps nothing from
 * one call to the next. */
#include "codec/zstd_frame.h"

static size_t zstd_encode(void *context, void *dst, size_t capacity, const void *page,
			  const void *reference)
{
	(void)reference;
	return vmemi_zstd_encode(context, dst, capacity, page);
}

static int zstd_decode(void *context, void *page, const void *src, size_t bytes,
		       const void *reference)
{
	struct vmemi_zstd *z = context;
	size_t framed = vmemi_zstd_frame(z, src, bytes);

	(void)reference;
	if (!framed || ZSTD_decompressDCtx(z->decoder, page, VMEM_PAGE_SIZE, z->frame, framed) !=
			       VMEM_PAGE_SIZE)
		return -VMEM_EBADMSG;
	return 0;
}

#define TABLE(init)                                                                          \
	{                                                                                    \
		.size = sizeof(struct vmem_codec), .name = "zstd", .id = VMEM_CODEC_ZSTD,    \
		.context_bytes = sizeof(struct vmemi_zstd), .context_init = (init),          \
		.encode = zstd_encode, .decode = zstd_decode, .context_end = vmemi_zstd_end, \
		.decoder_init = vmemi_zstd_init_decoder, .taken_bytes = vmemi_zstd_taken,    \
	}

static const struct vmem_codec levels[] = {
	TABLE(vmemi_zstd_init_1), TABLE(vmemi_zstd_init_2), TABLE(vmemi_zstd_init_3),
	TABLE(vmemi_zstd_init_4), TABLE(vmemi_zstd_init_5), TABLE(vmemi_zstd_init_6),
};

const struct vmem_codec *vmem_codec_zstd(int level)
{
	return level < 1 || level > 6 ? NULL : &levels[level - 1];
}
