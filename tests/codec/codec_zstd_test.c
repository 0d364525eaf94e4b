/* SPDX-License-Identifier: BSD-2-Clause */
/* The codecs zstd, delta and lz4hc: every page comes back, no room is overstepped on either side, levels
 * decode each other, and what is damaged is refused or at least stays in its page. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <vmem/codec.h>
#include "codec/guard_pages.h"
#include "support/pages.h"

enum { LEVELS = 6 };

static const int levels[LEVELS] = { 1, 2, 3, 4, 5, 6 };
static struct vmemt_page page, reference;
static unsigned char *source, *decoded; /* guarded */
static unsigned char encoded[VMEM_PAGE_SIZE + 512];

static void set_up(void)
{
	source = vmemt_guarded_page();
	decoded = vmemt_guarded_page();
}

TestSuite(codec_zstd, .init = set_up);

static void *context_new(const struct vmem_codec *codec)
{
	size_t bytes = (codec->context_bytes + 63) / 64 * 64;
	void *context = aligned_alloc(64, bytes);

	cr_assert_not_null(context);
	memset(context, 0, bytes);
	if (codec->context_init)
		cr_assert_eq(codec->context_init(context), 0);
	return context;
}

static void context_free(const struct vmem_codec *codec, void *context)
{
	if (codec->context_end)
		codec->context_end(context);
	free(context);
}

/* A page of words, and one like it: @edits runs of bytes changed, moved by @shift bytes. */
static void make_pair(uint64_t seed, unsigned edits, unsigned shift)
{
	uint64_t state = seed;

	for (size_t at = 0; at < VMEM_PAGE_SIZE; at += 4) {
		uint32_t word = (uint32_t)(vmemt_rand(&state) % 100) * 2654435761u;

		memcpy(reference.bytes + at, &word, sizeof(word));
	}
	memcpy(page.bytes + shift, reference.bytes, VMEM_PAGE_SIZE - shift);
	memcpy(page.bytes, reference.bytes + VMEM_PAGE_SIZE - shift, shift);
	while (edits--) {
		uint64_t at = vmemt_rand(&state) % (VMEM_PAGE_SIZE - 8);
		uint64_t word = vmemt_rand(&state);

		memcpy(page.bytes + at, &word, sizeof(word));
	}
}

/* From the end of a guarded page, so that one byte too many is seen. */
static int decode(const struct vmem_codec *codec, void *context, size_t bytes, const void *against)
{
	unsigned char *at = source + VMEM_PAGE_SIZE - bytes;

	memcpy(at, encoded, bytes);
	return codec->decode(context, decoded, at, bytes, against);
}

static size_t round_trip(const struct vmem_codec *codec, void *context, size_t capacity,
			 const void *against)
{
	size_t bytes;

	memset(encoded, 0xc3, sizeof(encoded));
	bytes = codec->encode(context, encoded, capacity, page.bytes, against);
	cr_assert_leq(bytes, capacity);
	for (size_t i = capacity; i < sizeof(encoded); i++)
		cr_assert_eq(encoded[i], 0xc3, "%s wrote at %zu of %zu", codec->name, i, capacity);
	if (bytes) {
		cr_assert_eq(decode(codec, context, bytes, against), 0, "%s", codec->name);
		cr_assert_arr_eq(decoded, page.bytes, VMEM_PAGE_SIZE);
	}
	return bytes;
}

Test(codec_zstd, tables)
{
	for (int l = -7; l <= 22; l++) {
		const struct vmem_codec *zstd = vmem_codec_zstd(l), *delta = vmem_codec_delta(l);
		int there = l >= 1 && l <= 6;

		cr_assert_eq(zstd != NULL, there);
		cr_assert_eq(delta != NULL, there);
		if (!there)
			continue;
		cr_assert_str_eq(zstd->name, "zstd");
		cr_assert_str_eq(delta->name, "delta");
		cr_assert_eq(zstd->id, VMEM_CODEC_ZSTD);
		cr_assert_eq(delta->id, VMEM_CODEC_DELTA);
		cr_assert_eq(zstd->size, sizeof(struct vmem_codec));
		cr_assert_eq(zstd->flags | delta->flags, 0);
		cr_assert(zstd->context_end && delta->context_end);
	}
	cr_assert_str_eq(vmem_codec_lz4hc()->name, "lz4hc");
	cr_assert_eq(vmem_codec_lz4hc()->id, VMEM_CODEC_LZ4);
	cr_assert_eq(vmem_codec_lz4hc()->flags, VMEM_CODEC_DECODE_WITHOUT_CONTEXT);
}

Test(codec_zstd, round_trips)
{
	for (int l = 0; l < LEVELS; l++) {
		const struct vmem_codec *codec = vmem_codec_zstd(levels[l]);
		void *context = context_new(codec);

		for (uint64_t seed = 0; seed < 200; seed++) {
			enum vmemt_page_kind kind = (enum vmemt_page_kind)(seed % VMEMT_PAGE_KINDS);
			size_t bytes;

			vmemt_page_make(&page, kind, seed);
			bytes = round_trip(codec, context, VMEM_PAGE_SIZE, NULL);
			cr_assert_eq(bytes == 0, kind == VMEMT_PAGE_NOISE);
			if (bytes) {
				cr_assert_eq(round_trip(codec, context, bytes - 1, NULL), 0);
				cr_assert_eq(round_trip(codec, context, bytes, NULL), bytes);
			}
		}
		context_free(codec, context);
	}
}

/* Noise grows by a byte each: all lengths of a block that compresses. */
Test(codec_zstd, all_lengths)
{
	const struct vmem_codec *codec = vmem_codec_zstd(1);
	void *context = context_new(codec);
	uint64_t state = 1;

	memset(page.bytes, 0, sizeof(page.bytes));
	for (size_t i = 0; i < VMEM_PAGE_SIZE - 100; i++) {
		page.bytes[i] = (unsigned char)vmemt_rand(&state);
		cr_assert_gt(round_trip(codec, context, VMEM_PAGE_SIZE, NULL), i / 2);
	}
	context_free(codec, context);
}

/* What is equal to the reference costs little, wherever it has moved to; what was changed costs
 * about what it has. */
Test(codec_zstd, deltas)
{
	for (int l = 0; l < LEVELS; l++) {
		const struct vmem_codec *delta = vmem_codec_delta(levels[l]);
		const struct vmem_codec *zstd = vmem_codec_zstd(levels[l]);
		void *context = context_new(delta), *plain_context = context_new(zstd);

		for (unsigned edits = 0; edits <= 64; edits += 4)
			for (unsigned shift = 0; shift < 512; shift = shift * 3 + 1) {
				size_t bytes, plain;

				make_pair(edits * 512 + shift, edits, shift);
				bytes = round_trip(delta, context, VMEM_PAGE_SIZE, reference.bytes);
				plain = round_trip(zstd, plain_context, VMEM_PAGE_SIZE, NULL);
				cr_assert(bytes && bytes < 256 + edits * 16, "%u edits: %zu", edits,
					  bytes);
				cr_assert(!plain || plain > 2 * bytes || edits > 16);
				/* With less room it may be the other way, or none. */
				round_trip(delta, context, bytes - 1, reference.bytes);
			}
		context_free(delta, context);
		context_free(zstd, plain_context);
	}
}

Test(codec_zstd, levels_decode_each_other)
{
	make_pair(7, 9, 32);
	for (int from = 0; from < LEVELS; from++)
		for (int to = 0; to < LEVELS; to++)
			for (int delta = 0; delta < 2; delta++) {
				const struct vmem_codec *encoder =
					delta ? vmem_codec_delta(levels[from])
					      : vmem_codec_zstd(levels[from]);
				const struct vmem_codec *decoder =
					delta ? vmem_codec_delta(levels[to])
					      : vmem_codec_zstd(levels[to]);
				const void *against = delta ? reference.bytes : NULL;
				void *a = context_new(encoder), *b = context_new(decoder);
				size_t bytes = encoder->encode(a, encoded, VMEM_PAGE_SIZE,
							       page.bytes, against);

				cr_assert(bytes);
				cr_assert_eq(decode(decoder, b, bytes, against), 0);
				cr_assert_arr_eq(decoded, page.bytes, VMEM_PAGE_SIZE);
				context_free(encoder, a);
				context_free(decoder, b);
			}
}

/* Without one nothing is made or read. */
Test(codec_zstd, no_reference)
{
	const struct vmem_codec *codec = vmem_codec_delta(1);
	void *context = context_new(codec);
	size_t bytes;

	make_pair(3, 3, 0);
	cr_assert_eq(codec->encode(context, encoded, sizeof(encoded), page.bytes, NULL), 0);
	bytes = round_trip(codec, context, VMEM_PAGE_SIZE, reference.bytes);
	cr_assert(bytes);
	cr_assert_eq(decode(codec, context, bytes, NULL), -VMEM_EBADMSG);
	cr_assert_eq(decode(codec, context, 1, reference.bytes), -VMEM_EBADMSG);
	context_free(codec, context);
}

/* A page much like its reference is left to LZ4, one that is less like it to Zstandard; what is like it in
 * too little is neither's. */
Test(codec_zstd, ways_of_a_delta)
{
	const struct vmem_codec *codec = vmem_codec_delta(3);
	void *context = context_new(codec);
	unsigned ways[2] = { 0 };

	for (unsigned edits = 0; edits < 512; edits += 8) {
		size_t bytes, fewer;

		make_pair(edits, edits, 0);
		bytes = round_trip(codec, context, VMEM_PAGE_SIZE, reference.bytes);
		cr_assert(bytes && encoded[0] <= 1);
		ways[encoded[0]]++;
		cr_assert(encoded[0] || bytes <= VMEM_PAGE_SIZE / 2);
		fewer = round_trip(codec, context, bytes, reference.bytes);
		cr_assert(fewer <= bytes);
	}
	cr_assert(ways[0] && ways[1], "%u by LZ4, %u by Zstandard", ways[0], ways[1]);
	context_free(codec, context);
}

/* One that zstd would take for a dictionary of its own format serves LZ4 alone. */
Test(codec_zstd, reference_like_a_dictionary)
{
	static const unsigned char magic[] = { 0x37, 0xa4, 0x30, 0xec };
	const struct vmem_codec *codec = vmem_codec_delta(1);
	void *context = context_new(codec);
	size_t bytes;

	make_pair(5, 400, 0);
	bytes = round_trip(codec, context, VMEM_PAGE_SIZE, reference.bytes);
	cr_assert(bytes && encoded[0] == 1);
	memcpy(reference.bytes, magic, sizeof(magic));
	cr_assert_eq(decode(codec, context, bytes, reference.bytes), -VMEM_EBADMSG);
	cr_assert(round_trip(codec, context, VMEM_PAGE_SIZE, reference.bytes));
	cr_assert_eq(encoded[0], 0);
	/* Short of the whole magic it is one like any other; as the page itself it may begin so. */
	reference.bytes[3] ^= 1;
	memcpy(page.bytes, magic, sizeof(magic));
	cr_assert(round_trip(codec, context, VMEM_PAGE_SIZE, reference.bytes));
	cr_assert_eq(encoded[0], 1);
	context_free(codec, context);
}

/* What one call left in a context does not change the next: deltas and failures in between. */
Test(codec_zstd, contexts_keep_nothing)
{
	const struct vmem_codec *all[] = { vmem_codec_zstd(6), vmem_codec_delta(6),
					   vmem_codec_lz4hc() };
	static unsigned char fresh_bytes[VMEM_PAGE_SIZE + 512];

	for (unsigned n = 0; n < 3; n++) {
		const struct vmem_codec *codec = all[n];
		const void *against = n == 1 ? reference.bytes : NULL;
		void *used = context_new(codec);

		for (uint64_t seed = 0; seed < 60; seed++) {
			void *fresh = context_new(codec);
			size_t bytes;

			make_pair(seed, (unsigned)seed * 2, 0);
			bytes = codec->encode(fresh, fresh_bytes, VMEM_PAGE_SIZE, page.bytes,
					      against);
			cr_assert_eq(round_trip(codec, used, VMEM_PAGE_SIZE, against), bytes);
			cr_assert_arr_eq(encoded, fresh_bytes, bytes);
			cr_assert_eq(round_trip(codec, used, 3, against), 0);
			encoded[0] ^= 0xff;
			decode(codec, used, bytes, against);
			context_free(codec, fresh);
		}
		context_free(codec, used);
	}
}

/* Cut short anywhere it is refused: there is less of the page in it. */
Test(codec_zstd, truncated)
{
	make_pair(5, 40, 0);
	for (int delta = 0; delta < 2; delta++) {
		const struct vmem_codec *codec = delta ? vmem_codec_delta(3) : vmem_codec_zstd(3);
		const void *against = delta ? reference.bytes : NULL;
		void *context = context_new(codec);
		size_t right = round_trip(codec, context, VMEM_PAGE_SIZE, against);

		cr_assert_gt(right, 100);
		for (size_t bytes = 0; bytes < right; bytes++)
			cr_assert_eq(decode(codec, context, bytes, against), -VMEM_EBADMSG, "%zu",
				     bytes);
		cr_assert_eq(codec->decode(context, decoded, encoded, SIZE_MAX, against),
			     -VMEM_EBADMSG);
		cr_assert_eq(decode(codec, context, right, against), 0);
		context_free(codec, context);
	}
}

/* Each bit, and a wrong reference: refused, or another page, which its checksum tells; never beside the
 * page (it is guarded), and the context works on. */
Test(codec_zstd, damaged)
{
	static struct vmemt_page other;

	vmemt_page_make(&other, VMEMT_PAGE_NOISE, 9);
	make_pair(11, 30, 64);
	for (int delta = 0; delta < 2; delta++) {
		const struct vmem_codec *codec = delta ? vmem_codec_delta(1) : vmem_codec_zstd(1);
		const void *against = delta ? reference.bytes : NULL;
		void *context = context_new(codec);
		size_t bytes = round_trip(codec, context, VMEM_PAGE_SIZE, against);
		unsigned refused = 0;

		for (size_t bit = 0; bit < bytes * 8; bit++) {
			encoded[bit / 8] ^= (unsigned char)(1u << bit % 8);
			refused += decode(codec, context, bytes, against) != 0;
			encoded[bit / 8] ^= (unsigned char)(1u << bit % 8);
		}
		cr_assert_gt(refused, 0);
		if (delta && decode(codec, context, bytes, other.bytes) == 0)
			cr_assert_neq(memcmp(decoded, page.bytes, VMEM_PAGE_SIZE), 0);
		cr_assert_eq(decode(codec, context, bytes, against), 0);
		cr_assert_arr_eq(decoded, page.bytes, VMEM_PAGE_SIZE);
		context_free(codec, context);
	}
}

/* Plain LZ4 decodes it; it is never longer than LZ4's by more than a byte or two, mostly shorter. */
Test(codec_zstd, lz4hc)
{
	const struct vmem_codec *hc = vmem_codec_lz4hc(), *lz4 = vmem_codec_lz4();
	void *context = context_new(hc), *lz4_context = context_new(lz4);
	size_t sum = 0, lz4_sum = 0;

	for (uint64_t seed = 0; seed < 100; seed++) {
		size_t bytes;

		make_pair(seed, 0, 0);
		lz4_sum += lz4->encode(lz4_context, encoded, sizeof(encoded), page.bytes, NULL);
		bytes = round_trip(hc, context, sizeof(encoded), NULL);
		sum += bytes;
		cr_assert_gt(bytes, 0);
		cr_assert_eq(lz4->decode(NULL, decoded, encoded, bytes, NULL), 0);
		cr_assert_arr_eq(decoded, page.bytes, VMEM_PAGE_SIZE);
		cr_assert_eq(round_trip(hc, context, bytes - 1, NULL), 0);
	}
	cr_assert_lt(sum, lz4_sum);
	free(context);
	free(lz4_context);
}

/* Named: noise, whatever it is of. Not named: text, code, pointers, half of a page of noise. */
Test(page, looks_incompressible)
{
	uint64_t state = 1;

	for (uint64_t seed = 0; seed < 500; seed++) {
		vmemt_page_make(&page, VMEMT_PAGE_NOISE, seed);
		cr_assert_eq(vmem_page_looks_incompressible(page.bytes, 0), 1);
		cr_assert_eq(vmem_page_looks_incompressible(page.bytes, vmem_cpu_detect()), 1);
		vmemt_page_make(&page, (enum vmemt_page_kind)(seed % VMEMT_PAGE_NOISE), seed);
		cr_assert_eq(vmem_page_looks_incompressible(page.bytes, 0), 0);
		for (size_t i = 0; i < VMEM_PAGE_SIZE; i++) /* base 64 */
			page.bytes[i] = (unsigned char)(' ' + vmemt_rand(&state) % 64);
		cr_assert_eq(vmem_page_looks_incompressible(page.bytes, 0), 0);
	}
	for (size_t i = 0; i < VMEM_PAGE_SIZE; i++) /* each value as often as any other */
		page.bytes[i] = (unsigned char)(i % 64 * 4 + i / 64 % 4);
	for (size_t i = 0; i < VMEM_PAGE_SIZE; i += 64)
		for (size_t k = 0; k < 8; k++)
			page.bytes[i + k] = (unsigned char)(i / 64 * 8 + k);
	cr_assert_eq(vmem_page_looks_incompressible(page.bytes, 0),
		     1); /* all 256: no sum overflows */
}
