/* SPDX-License-Identifier: BSD-2-Clause */
/* What the codecs zstd and delta share: a context, and how a page stands in a frame of Zstandard
 * (RFC 8878).
 *
 * A page fits one block, so that of the frame's and the block's header nothing but the length is not
 * known beforehand, and that the caller keeps. An encoded page is the block's content alone, 9 bytes less:
 *
 *     28 b5 2f fd   magic number
 *     00            no content size, dictionary or checksum (ours is of the page)
 *     18            a window of 8 KiB: the page, and the reference before it
 *     b0 b1 b2      length << 3 | compressed block << 1 | last block
 *
 * A page that zstd would not keep as one compressed block does not compress. */
#ifndef VMEMI_ZSTD_FRAME_H
#define VMEMI_ZSTD_FRAME_H
#include <lz4.h>
#include <zstd.h>
#include <vmem/codec.h>

#define VMEMI_ZSTD_HEADERS 9u

/* Contexts of zstd itself come from libc: the stable interface has no other. They are made, and grow to
 * what a page needs, in init. Guard: who has the context. */
struct vmemi_zstd {
	ZSTD_CCtx *encoder;
	ZSTD_DCtx *decoder;
	unsigned char frame[VMEMI_ZSTD_HEADERS + ZSTD_COMPRESSBOUND(VMEM_PAGE_SIZE)];
	/* For deltas alone; here, so that one context serves both codecs. */
	LZ4_stream_t table;
	char probe[VMEM_PAGE_SIZE];
};

/* context_init, by level, decoder_init, context_end and taken_bytes of both codecs. */
int vmemi_zstd_init_1(void *context);
int vmemi_zstd_init_2(void *context);
int vmemi_zstd_init_3(void *context);
int vmemi_zstd_init_4(void *context);
int vmemi_zstd_init_5(void *context);
int vmemi_zstd_init_6(void *context);
int vmemi_zstd_init_decoder(void *context);
void vmemi_zstd_end(void *context);
size_t vmemi_zstd_taken(const void *context);

/* Encodes with the encoder as it is set up, and copies the content of the block.
 * Its bytes, or 0: more than @capacity, or not one compressed block. */
size_t vmemi_zstd_encode(struct vmemi_zstd *z, void *dst, size_t capacity, const void *page);

/* Puts the headers back. Bytes of z->frame, or 0: too many. */
size_t vmemi_zstd_frame(struct vmemi_zstd *z, const void *src, size_t bytes);

#endif
