/* SPDX-License-Identifier: BSD-2-Clause */
/** @file vmem/codec.h
 *  A page in, bytes out, and back. Codecs are tables of functions, so that a hypervisor without
 *  libc brings its own; the hosted library has LZ4, Zstandard, and deltas by both. */
#ifndef VMEM_CODEC_H
#define VMEM_CODEC_H
#include <vmem/common.h>
VMEM_BEGIN_DECLS

/** Ids of the codecs that come with the library; one's own start at VMEM_CODEC_USER. */
enum vmem_codec_id {
	VMEM_CODEC_RAW = 1,  /**< the page as it is */
	VMEM_CODEC_FILL = 2, /**< one 64-bit word, repeated */
	VMEM_CODEC_LZ4 = 3,
	VMEM_CODEC_ZSTD = 4,
	VMEM_CODEC_DELTA = 5,
	VMEM_CODEC_USER = 8, /**< 8..15 are the caller's */
	VMEM_CODEC_MAX = 15
};

/** Flag of a codec: decode needs no context and gets NULL. Loads then never wait for one: other loads
 *  take turns with theirs, though never with a save, which may have its own for as long as reading its
 *  page takes. */
#define VMEM_CODEC_DECODE_WITHOUT_CONTEXT (UINT32_C(1) << 0)

/** A codec. Copied when an object is made with it; fields are only ever added at the end. Codecs of one table
 *  with the same context_bytes and functions for contexts share one context. Functions are
 *  called from any thread, each thread with a context of its own, and must not allocate, block, or keep a
 *  pointer to what they were given. */
struct vmem_codec {
	size_t size;          /**< sizeof(*this) as the caller compiled it */
	const char *name;     /**< for reports: "lz4" */
	uint32_t id;          /**< enum vmem_codec_id; 1..15, unique in its table */
	uint32_t flags;       /**< VMEM_CODEC_DECODE_WITHOUT_CONTEXT; other bits 0 */
	size_t context_bytes; /**< bytes of one context; 0: none, functions get NULL */

	/** Prepares a context of context_bytes (aligned to 64, zeroed). NULL: nothing to do.
	 *  @return 0, or a negative VMEM error */
	int (*context_init)(void *context);

	/** Encodes the 4096 bytes at @p page. @p reference: the page that a delta is made against, else NULL.
	 *  @return bytes written (1..capacity), or 0 when the result would be larger than @p capacity */
	size_t (*encode)(void *context, void *dst, size_t capacity, const void *page,
			 const void *reference);

	/** Decodes exactly one page. @p src is untrusted: it may never write outside the 4096 bytes.
	 *  @return 0, -VMEM_EBADMSG */
	int (*decode)(void *context, void *page, const void *src, size_t bytes,
		      const void *reference);

	/** Ends a context that context_init or decoder_init has prepared. NULL: nothing to do. */
	void (*context_end)(void *context);

	/** As context_init, for a context that is only decoded with: where encoding takes more memory. NULL: as
	 *  context_init; only together with that. A pool encodes with its first codec in every context, with others in one. */
	int (*decoder_init)(void *context);

	/** Bytes that a prepared context has taken besides its context_bytes, such as from libc; for accounts. It
	 *  is asked once, when the context is made. NULL: none. */
	size_t (*taken_bytes)(const void *context);
};

/** The built-in codecs. @threads any @since 1.0 */
VMEM_API const struct vmem_codec *vmem_codec_raw(void);
/** One 64-bit word, repeated; encode gives 0 for any other page. @threads any @since 1.0 */
VMEM_API const struct vmem_codec *vmem_codec_fill(void);
/** LZ4 block format, through liblz4. Not in libvmem-core.a. @threads any @since 1.0 */
VMEM_API const struct vmem_codec *vmem_codec_lz4(void);
/** LZ4 again, its high-compression encoder at level 9: fewer bytes, for pages that are read more often
 *  than written, such as references. What it encodes decodes as LZ4 and has that id, so that one table
 *  holds one of the two. Not in libvmem-core.a. @threads any @since 1.0 */
VMEM_API const struct vmem_codec *vmem_codec_lz4hc(void);

/** Zstandard (RFC 8878), through libzstd. Contexts come from libc when they are initialised, and take no
 *  more after that. Not in libvmem-core.a.
 *  @param level  1..6; decoding is the same for all
 *  @return NULL: no such level
 *  @threads any
 *  @since 1.0 */
VMEM_API const struct vmem_codec *vmem_codec_zstd(int level);

/** A page against a reference page like it: by LZ4 where that takes at most half of the capacity, and loads three
 *  times as fast; else by Zstandard. Encode and decode need the same reference; with none, and where LZ4
 *  needs more than the capacity, encode gives 0, so that a capacity a sixth below what LZ4 makes of the page
 *  alone leaves out what is not worth the time. Contexts as with vmem_codec_zstd(). Not in libvmem-core.a.
 *  @param level  of Zstandard, 1..6; decoding is the same for all
 *  @return NULL: no such level
 *  @threads any
 *  @since 1.0 */
VMEM_API const struct vmem_codec *vmem_codec_delta(int level);

/** Whether a page is one 64-bit word repeated. Looks at the end first, where most pages differ.
 *  @param page  4096 bytes, aligned to 8
 *  @param[out] ret_word  the word; set only when it is
 *  @return 1 if so, else 0
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_page_same_filled(const void *page, uint64_t *ret_word);

/** Fills a page with one 64-bit word. @threads any @since 1.0 */
VMEM_API void vmem_page_fill(void *page, uint64_t word);

/** Whether encoding a page is most likely in vain, as with encrypted and compressed ones: a guess from 512
 *  of its bytes, that costs a twentieth of an LZ4 encode. Of pages of real guests that LZ4 makes smaller than
 *  3584 bytes it names less than 1 in 2000.
 *  @param page  4096 bytes
 *  @param cpu  VMEM_CPU_* that may be used
 *  @return 1: most likely, else 0
 *  @threads any
 *  @since 1.0 */
VMEM_API int vmem_page_looks_incompressible(const void *page, uint32_t cpu);

/** The checksum that goes with every stored page: the low 32 bits of XXH3-64 with seed 0
 *  (xxHash specification 0.8). The same with every @p cpu.
 *  @param cpu  VMEM_CPU_* that may be used
 *  @threads any
 *  @since 1.0 */
VMEM_API uint32_t vmem_page_checksum(const void *page, uint32_t cpu);

VMEM_END_DECLS
#endif
