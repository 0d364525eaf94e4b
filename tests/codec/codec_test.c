/* SPDX-License-Identifier: BSD-2-Clause */
/* The codecs: every kind of page comes back as it was, no room is overstepped, and what is not an
 * encoded page is refused. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <vmem/codec.h>
#include "support/pages.h"

#define GUARD 64 /* bytes around a buffer that must stay as they are */
#define GUARD_BYTE 0xc3

static struct vmemt_page page;
static struct {
	_Alignas(64) unsigned char before[GUARD], bytes[VMEM_PAGE_SIZE], after[GUARD];
} decoded;
static unsigned char encoded[VMEM_PAGE_SIZE + 512 + GUARD];

static const struct vmem_codec *codec_of(unsigned n)
{
	return n == 0 ? vmem_codec_raw() : n == 1 ? vmem_codec_fill() : vmem_codec_lz4();
}

static void *context_of(const struct vmem_codec *codec)
{
	void *context = codec->context_bytes
				? aligned_alloc(64, (codec->context_bytes + 63) & ~(size_t)63)
				: NULL;

	if (context)
		memset(context, 0, codec->context_bytes);
	if (codec->context_init)
		cr_assert_eq(codec->context_init(context), 0);
	return context;
}

static int guarded_decode(const struct vmem_codec *codec, void *context, size_t bytes)
{
	int err;

	memset(&decoded, GUARD_BYTE, sizeof(decoded));
	err = codec->decode(codec->flags & VMEM_CODEC_DECODE_WITHOUT_CONTEXT ? NULL : context,
			    decoded.bytes, encoded, bytes, NULL);
	for (size_t i = 0; i < GUARD; i++)
		cr_assert(decoded.before[i] == GUARD_BYTE && decoded.after[i] == GUARD_BYTE);
	return err;
}

/* Encodes with exactly @capacity, decodes. Returns the bytes; 0: it did not fit. */
static size_t round_trip(const struct vmem_codec *codec, void *context, size_t capacity)
{
	size_t bytes;

	memset(encoded, GUARD_BYTE, sizeof(encoded));
	bytes = codec->encode(context, encoded, capacity, page.bytes, NULL);
	cr_assert_leq(bytes, capacity);
	for (size_t i = capacity; i < sizeof(encoded); i++)
		cr_assert_eq(encoded[i], GUARD_BYTE, "%s wrote at %zu of %zu", codec->name, i,
			     capacity);
	if (bytes) {
		cr_assert_eq(guarded_decode(codec, context, bytes), 0, "%s", codec->name);
		cr_assert_arr_eq(decoded.bytes, page.bytes, VMEM_PAGE_SIZE);
	}
	return bytes;
}

Test(codec, tables)
{
	static const char *const names[] = { "raw", "fill", "lz4" };
	static const uint32_t ids[] = { VMEM_CODEC_RAW, VMEM_CODEC_FILL, VMEM_CODEC_LZ4 };

	for (unsigned n = 0; n < 3; n++) {
		cr_assert_eq(codec_of(n)->size, sizeof(struct vmem_codec));
		cr_assert_str_eq(codec_of(n)->name, names[n]);
		cr_assert_eq(codec_of(n)->id, ids[n]);
		cr_assert_eq(codec_of(n)->flags, VMEM_CODEC_DECODE_WITHOUT_CONTEXT);
	}
}

/* Every kind, at the smallest capacity that holds it, one less, and more than a page. */
Test(codec, round_trips)
{
	for (unsigned n = 0; n < 3; n++) {
		const struct vmem_codec *codec = codec_of(n);
		void *context = context_of(codec);

		for (uint64_t seed = 0; seed < 200; seed++) {
			enum vmemt_page_kind kind = (enum vmemt_page_kind)(seed % VMEMT_PAGE_KINDS);
			size_t bytes;

			vmemt_page_make(&page, kind, seed);
			bytes = round_trip(codec, context, VMEM_PAGE_SIZE + 512);
			if (n == 0)
				cr_assert_eq(bytes, VMEM_PAGE_SIZE);
			if (n == 1)
				cr_assert_eq(bytes, kind <= VMEMT_PAGE_WORD ? 8u : 0u);
			if (n == 2)
				cr_assert(bytes &&
					  (bytes > VMEM_PAGE_SIZE) == (kind == VMEMT_PAGE_NOISE));
			if (bytes) {
				cr_assert_eq(round_trip(codec, context, bytes - 1), 0);
				/* LZ4 may want a little more room than it ends up using. */
				cr_assert_eq(round_trip(codec, context, bytes + 16), bytes);
			}
		}
		free(context);
	}
}

/* A page of one byte more noise each: all lengths of LZ4 blocks up to the page. */
Test(codec, lz4_all_lengths)
{
	const struct vmem_codec *codec = vmem_codec_lz4();
	void *context = context_of(codec);
	uint64_t state = 1;

	memset(page.bytes, 0, sizeof(page.bytes));
	for (size_t i = 0; i < VMEM_PAGE_SIZE; i++) {
		page.bytes[i] = (unsigned char)vmemt_rand(&state);
		cr_assert_gt(round_trip(codec, context, VMEM_PAGE_SIZE + 512), i / 2);
	}
	free(context);
}

/* What one context encoded before does not change what it encodes next. */
Test(codec, lz4_context_keeps_nothing)
{
	const struct vmem_codec *codec = vmem_codec_lz4();
	void *used = context_of(codec);
	static unsigned char fresh_bytes[VMEM_PAGE_SIZE + 512];

	for (uint64_t seed = 0; seed < 100; seed++) {
		void *fresh = context_of(codec);
		size_t bytes;

		vmemt_page_make(&page, VMEMT_PAGE_TEXT, seed);
		bytes = codec->encode(fresh, fresh_bytes, sizeof(fresh_bytes), page.bytes, NULL);
		cr_assert_eq(round_trip(codec, used, VMEM_PAGE_SIZE + 512), bytes);
		cr_assert_arr_eq(encoded, fresh_bytes, bytes);
		free(fresh);
	}
	free(used);
}

Test(codec, refuses_other_lengths)
{
	for (unsigned n = 0; n < 2; n++) {
		const struct vmem_codec *codec = codec_of(n);
		size_t right = n == 0 ? VMEM_PAGE_SIZE : 8;

		for (size_t bytes = 0; bytes <= VMEM_PAGE_SIZE + 1; bytes++)
			cr_assert_eq(guarded_decode(codec, NULL, bytes),
				     bytes == right ? 0 : -VMEM_EBADMSG);
	}
}

/* Cut short or run on, an LZ4 block is not this page. */
Test(codec, lz4_refuses_other_lengths)
{
	const struct vmem_codec *codec = vmem_codec_lz4();
	void *context = context_of(codec);
	size_t right;

	vmemt_page_make(&page, VMEMT_PAGE_TEXT, 5);
	right = codec->encode(context, encoded, VMEM_PAGE_SIZE, page.bytes, NULL);
	for (size_t bytes = 0; bytes <= VMEM_PAGE_SIZE; bytes++)
		cr_assert_eq(guarded_decode(codec, NULL, bytes) == 0, bytes == right, "%zu", bytes);
	cr_assert_eq(codec->decode(NULL, decoded.bytes, encoded, SIZE_MAX, NULL), -VMEM_EBADMSG);
	free(context);
}

/* Same-filled but for one bit anywhere: no. */
Test(page, same_filled)
{
	uint64_t words[VMEM_PAGE_SIZE / sizeof(uint64_t)], word, untouched = 77;

	for (uint64_t seed = 0; seed < 4; seed++) {
		uint64_t state = seed, want = seed ? vmemt_rand(&state) : 0;

		vmem_page_fill(words, want);
		for (size_t i = 0; i < VMEM_PAGE_SIZE / sizeof(uint64_t); i++)
			cr_assert_eq(words[i], want);
		word = ~want;
		cr_assert_eq(vmem_page_same_filled(words, &word), 1);
		cr_assert_eq(word, want);
		for (size_t bit = 0; bit < VMEM_PAGE_SIZE * 8; bit++) {
			words[bit / 64] ^= UINT64_C(1) << bit % 64;
			cr_assert_eq(vmem_page_same_filled(words, &untouched), 0, "bit %zu", bit);
			cr_assert_eq(untouched, 77u);
			words[bit / 64] ^= UINT64_C(1) << bit % 64;
		}
	}
}

/* The low half of XXH3-64 by the xxHash library 0.8.1, whatever the processor may use. */
Test(page, checksum)
{
	uint32_t all = vmem_cpu_detect();

	for (uint32_t cpu = 0; cpu <= all; cpu++) {
		if (cpu & ~all)
			continue;
		memset(page.bytes, 0, sizeof(page.bytes));
		cr_assert_eq(vmem_page_checksum(page.bytes, cpu), 0x48c689bau);
		for (size_t i = 0; i < VMEM_PAGE_SIZE; i++)
			page.bytes[i] = (unsigned char)(i * 7 + (i >> 8));
		cr_assert_eq(vmem_page_checksum(page.bytes, cpu), 0xeb6f9064u);
	}
}
