/* SPDX-License-Identifier: BSD-2-Clause */
/* Contexts and frames of zstd: see zstd_frame.h. */
#include "codec/zstd_frame.h"
#include "base/mem.h"

#define WINDOW_LOG 13
#define FRAME_HEADER_BYTES 6u
#define BLOCK_LAST_COMPRESSED 5u
#define BLOCK_LENGTH_SHIFT 3u

static const unsigned char frame_header[FRAME_HEADER_BYTES] = {
	0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x18
};
static const unsigned char window_of_page =
	0x10; /* what the encoder makes of it without a reference */

/* The one block's header in @frame, as a number. */
static size_t block_header(const unsigned char *frame)
{
	const unsigned char *b = frame + FRAME_HEADER_BYTES;

	return b[0] | (size_t)b[1] << 8 | (size_t)b[2] << 16;
}

static int is_one_block(const unsigned char *frame, size_t bytes)
{
	unsigned char window = frame[FRAME_HEADER_BYTES - 1];

	return bytes > VMEMI_ZSTD_HEADERS && !memcmp(frame, frame_header, FRAME_HEADER_BYTES - 1) &&
	       (window == frame_header[FRAME_HEADER_BYTES - 1] || window == window_of_page) &&
	       block_header(frame) ==
		       ((bytes - VMEMI_ZSTD_HEADERS) << BLOCK_LENGTH_SHIFT | BLOCK_LAST_COMPRESSED);
}

size_t vmemi_zstd_encode(struct vmemi_zstd *z, void *dst, size_t capacity, const void *page)
{
	size_t bytes = ZSTD_compress2(z->encoder, z->frame, sizeof(z->frame), page, VMEM_PAGE_SIZE);

	if (ZSTD_isError(bytes) || !is_one_block(z->frame, bytes))
		return 0;
	bytes -= VMEMI_ZSTD_HEADERS;
	if (bytes > capacity)
		return 0;
	memcpy(dst, z->frame + VMEMI_ZSTD_HEADERS, bytes);
	return bytes;
}

size_t vmemi_zstd_frame(struct vmemi_zstd *z, const void *src, size_t bytes)
{
	size_t block = bytes << BLOCK_LENGTH_SHIFT | BLOCK_LAST_COMPRESSED;
	unsigned char *b = z->frame + FRAME_HEADER_BYTES;

	if (!bytes || bytes > VMEM_PAGE_SIZE)
		return 0;
	memcpy(z->frame, frame_header, FRAME_HEADER_BYTES);
	b[0] = (unsigned char)block;
	b[1] = (unsigned char)(block >> 8);
	b[2] = (unsigned char)(block >> 16);
	memcpy(z->frame + VMEMI_ZSTD_HEADERS, src, bytes);
	return VMEMI_ZSTD_HEADERS + bytes;
}

static int set_up(struct vmemi_zstd *z, int level)
{
	return ZSTD_isError(ZSTD_CCtx_setParameter(z->encoder, ZSTD_c_compressionLevel, level)) ||
	       ZSTD_isError(ZSTD_CCtx_setParameter(z->encoder, ZSTD_c_windowLog, WINDOW_LOG)) ||
	       ZSTD_isError(ZSTD_CCtx_setParameter(z->encoder, ZSTD_c_contentSizeFlag, 0)) ||
	       ZSTD_isError(ZSTD_CCtx_setParameter(z->encoder, ZSTD_c_checksumFlag, 0)) ||
	       ZSTD_isError(ZSTD_CCtx_setParameter(z->encoder, ZSTD_c_dictIDFlag, 0));
}

/* A page and a delta, so that the encoder has taken all the memory that it will ever need. */
static int warm_up(struct vmemi_zstd *z)
{
	static const unsigned char zeros[VMEM_PAGE_SIZE];

	for (int delta = 0; delta < 2; delta++) {
		if (delta && ZSTD_isError(ZSTD_CCtx_refPrefix(z->encoder, zeros, sizeof(zeros))))
			return -VMEM_ENOMEM;
		if (ZSTD_isError(ZSTD_compress2(z->encoder, z->frame, sizeof(z->frame), zeros,
						sizeof(zeros))))
			return -VMEM_ENOMEM;
	}
	return 0;
}

int vmemi_zstd_init_decoder(void *context)
{
	struct vmemi_zstd *z = context;

	z->decoder = ZSTD_createDCtx();
	return z->decoder ? 0 : -VMEM_ENOMEM;
}

static int init(struct vmemi_zstd *z, int level)
{
	int err = vmemi_zstd_init_decoder(z);

	if (err)
		return err;
	z->encoder = ZSTD_createCCtx();
	err = !z->encoder || !LZ4_initStream(&z->table, sizeof(z->table)) || set_up(z, level)
		      ? -VMEM_ENOMEM
		      : warm_up(z);
	if (err)
		vmemi_zstd_end(z);
	return err;
}

int vmemi_zstd_init_1(void *context)
{
	return init(context, 1);
}

int vmemi_zstd_init_2(void *context)
{
	return init(context, 2);
}

int vmemi_zstd_init_3(void *context)
{
	return init(context, 3);
}

int vmemi_zstd_init_4(void *context)
{
	return init(context, 4);
}

int vmemi_zstd_init_5(void *context)
{
	return init(context, 5);
}

int vmemi_zstd_init_6(void *context)
{
	return init(context, 6);
}

void vmemi_zstd_end(void *context)
{
	struct vmemi_zstd *z = context;

	ZSTD_freeCCtx(z->encoder);
	ZSTD_freeDCtx(z->decoder);
	z->encoder = NULL;
	z->decoder = NULL;
}

size_t vmemi_zstd_taken(const void *context)
{
	const struct vmemi_zstd *z = context;

	return ZSTD_sizeof_CCtx(z->encoder) + ZSTD_sizeof_DCtx(z->decoder);
}
