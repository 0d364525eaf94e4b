/* SPDX-License-Identifier: BSD-2-Clause */
/* A page against a page that is like it. One byte says how: LZ4 with the reference as its dictionary where that
 * takes half the room there is or less, because it comes back three times as fast; else Zstandard with the
 * reference as what came before. What LZ4 makes of it tells whether Zstandard is worth the time: where
 * it does not fit into the room, that does not save enough either (docs/performance.md). zstd_frame.h
 * says what is kept of a frame. Tables of functions; a context keeps nothing from one call to the next. */
#include "base/mem.h"
#include "codec/zstd_frame.h"

enum { BY_LZ4, BY_ZSTD };

/* Of the stable functions only ZSTD_decompress_usingDict() takes a reference without allocating, and
 * it takes one that begins with the magic number of dictionaries for a dictionary. Such a page is no
 * reference for it. */
static int is_for_zstd(const void *page)
{
	static const unsigned char magic[] = { 0x37, 0xa4, 0x30, 0xec };

	return memcmp(page, magic, sizeof(magic)) != 0;
}

static size_t by_lz4(struct vmemi_zstd *c, size_t room, const void *page, const void *reference)
{
	int bytes;

	LZ4_loadDict(&c->table, reference, (int)VMEM_PAGE_SIZE);
	bytes = LZ4_compress_fast_continue(&c->table, page, c->probe, (int)VMEM_PAGE_SIZE,
					   (int)room, 1);
	return bytes > 0 ? (size_t)bytes : 0;
}

static size_t by_zstd(struct vmemi_zstd *c, void *dst, size_t room, const void *page,
		      const void *reference)
{
	/* The prefix is for the next frame only. */
	if (!is_for_zstd(reference) ||
	    ZSTD_isError(ZSTD_CCtx_refPrefix(c->encoder, reference, VMEM_PAGE_SIZE)))
		return 0;
	return vmemi_zstd_encode(c, dst, room, page);
}

static size_t delta_encode(void *context, void *dst, size_t capacity, const void *page,
			   const void *reference)
{
	size_t room = (capacity < VMEM_PAGE_SIZE ? capacity : VMEM_PAGE_SIZE) - 1, bytes, fewer;
	struct vmemi_zstd *c = context;
	unsigned char *to = dst;

	if (!capacity || !reference)
		return 0;
	bytes = by_lz4(c, room, page, reference);
	if (!bytes)
		return 0;
	if (bytes > room / 2) {
		fewer = by_zstd(c, to + 1, bytes - 1, page, reference);
		if (fewer) {
			*to = BY_ZSTD;
			return fewer + 1;
		}
	}
	*to = BY_LZ4;
	memcpy(to + 1, c->probe, bytes);
	return bytes + 1;
}

static int lz4_decode(void *page, const unsigned char *src, size_t bytes, const void *reference)
{
	return LZ4_decompress_safe_usingDict((const char *)src, page, (int)bytes,
					     (int)VMEM_PAGE_SIZE, reference,
					     (int)VMEM_PAGE_SIZE) == (int)VMEM_PAGE_SIZE;
}

static int zstd_decode(struct vmemi_zstd *z, void *page, const unsigned char *src, size_t bytes,
		       const void *reference)
{
	size_t framed = is_for_zstd(reference) ? vmemi_zstd_frame(z, src, bytes) : 0;

	return framed &&
	       ZSTD_decompress_usingDict(z->decoder, page, VMEM_PAGE_SIZE, z->frame, framed,
					 reference, VMEM_PAGE_SIZE) == VMEM_PAGE_SIZE;
}

static int delta_decode(void *context, void *page, const void *src, size_t bytes,
			const void *reference)
{
	struct vmemi_zstd *c = context;
	const unsigned char *from = src;
	int good = 0;

	if (!reference || bytes < 2 || bytes > VMEM_PAGE_SIZE)
		return -VMEM_EBADMSG;
	if (*from == BY_LZ4)
		good = lz4_decode(page, from + 1, bytes - 1, reference);
	else if (*from == BY_ZSTD)
		good = zstd_decode(c, page, from + 1, bytes - 1, reference);
	return good ? 0 : -VMEM_EBADMSG;
}

#define TABLE(init)                                                                            \
	{                                                                                      \
		.size = sizeof(struct vmem_codec), .name = "delta", .id = VMEM_CODEC_DELTA,    \
		.context_bytes = sizeof(struct vmemi_zstd), .context_init = (init),            \
		.encode = delta_encode, .decode = delta_decode, .context_end = vmemi_zstd_end, \
		.decoder_init = vmemi_zstd_init_decoder, .taken_bytes = vmemi_zstd_taken,      \
	}

static const struct vmem_codec levels[] = {
	TABLE(vmemi_zstd_init_1), TABLE(vmemi_zstd_init_2), TABLE(vmemi_zstd_init_3),
	TABLE(vmemi_zstd_init_4), TABLE(vmemi_zstd_init_5), TABLE(vmemi_zstd_init_6),
};

const struct vmem_codec *vmem_codec_delta(int level)
{
	return level < 1 || level > 6 ? NULL : &levels[level - 1];
}
