/* SPDX-License-Identifier: BSD-2-Clause */
/* A context takes all its memory when it is initialised: between that and its end nothing of zstd or lz4
 * calls malloc(), which is counted here, and the end gives all back. taken_bytes() is what was taken. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vmem/codec.h>
#include "support/pages.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define OWN_MALLOC 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
	__has_feature(memory_sanitizer)
#define OWN_MALLOC 0
#endif
#endif

#ifndef OWN_MALLOC

/* glibc's own names for its functions. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void __libc_free(void *memory);

/* malloc_usable_size() is what was asked for, rounded up: at most by a page, where it is mapped. */
#define ROUNDED_BY 4096

static long calls, live, live_bytes;

static void *count(void *memory)
{
	calls++;
	live += !!memory;
	live_bytes += (long)malloc_usable_size(memory);
	return memory;
}

void *malloc(size_t bytes)
{
	return count(__libc_malloc(bytes));
}

void *calloc(size_t elements, size_t bytes)
{
	return count(__libc_calloc(elements, bytes));
}

void *realloc(void *memory, size_t bytes)
{
	long before = (long)malloc_usable_size(memory);
	void *now = __libc_realloc(memory, bytes);

	if (now) {
		live -= !!memory;
		live_bytes -= before;
	}
	return count(now);
}

void free(void *memory)
{
	live -= !!memory;
	live_bytes -= (long)malloc_usable_size(memory);
	__libc_free(memory);
}

static struct vmemt_page pages[64];
static unsigned char encoded[VMEM_PAGE_SIZE + 512], back[VMEM_PAGE_SIZE];
static _Alignas(64) unsigned char context[1 << 19];

/* Pages of all kinds, each against the one before; more of one kind in a row than zstd waits before it
 * gives back a workspace that is too large. */
static int use(const struct vmem_codec *codec)
{
	size_t encodings = 0;

	for (unsigned i = 1; i < 2000; i++) {
		unsigned n = i % 400 < 200 ? i % 64 : 3;
		const void *against = pages[(n + 63) % 64].bytes;
		size_t bytes = codec->encode(context, encoded, i % 3 ? sizeof(encoded) : 100,
					     pages[n].bytes, against);

		encodings += bytes > 0;
		if (bytes && (codec->decode(context, back, encoded, bytes, against) ||
			      memcmp(back, pages[n].bytes, sizeof(back))))
			return 1;
		codec->decode(context, back, pages[n].bytes, 1000, against);
	}
	return encodings < 100;
}

/* Whether it tells what it has taken since there were so many @blocks and @bytes. */
static int tells(const struct vmem_codec *codec, long blocks, long bytes)
{
	long taken = codec->taken_bytes ? (long)codec->taken_bytes(context) : 0;

	return taken <= live_bytes - bytes &&
	       live_bytes - bytes <= taken + ROUNDED_BY * (live - blocks);
}

static int check_decoder(const struct vmem_codec *codec)
{
	long blocks = live, bytes = live_bytes, wrong;

	memset(context, 0, sizeof(context));
	if (!codec->decoder_init)
		return 0;
	wrong = codec->decoder_init(context) != 0;
	wrong += live == blocks || !tells(codec, blocks, bytes);
	codec->context_end(context);
	wrong += live != blocks;
	if (wrong)
		printf("%s: a decoder does not tell what it takes, or give it back\n", codec->name);
	return wrong != 0;
}

static int check(const struct vmem_codec *codec)
{
	long before = live, bytes = live_bytes, after_init, told, wrong;

	memset(context, 0, sizeof(context));
	if (codec->context_bytes > sizeof(context) ||
	    (codec->context_init && codec->context_init(context)))
		return 1;
	after_init = calls;
	wrong = use(codec);
	wrong += calls != after_init;
	told = tells(codec, before, bytes);
	wrong += !told;
	if (codec->context_end)
		codec->context_end(context);
	wrong += live != before;
	if (wrong)
		printf("%s: %ld calls while in use, %ld not given back, what it takes %s\n",
		       codec->name, calls - after_init, live - before, told ? "told" : "not told");
	return wrong != 0 || check_decoder(codec);
}

int main(void)
{
	int wrong = 0;
	void *volatile counted;

	for (unsigned n = 0; n < 64; n++)
		vmemt_page_make(&pages[n], (enum vmemt_page_kind)(n % VMEMT_PAGE_KINDS), n / 10);
	counted = malloc(1);
	free(counted);
	wrong += !calls || !vmem_codec_zstd(1);
	for (int level = 1; level <= 6; level++)
		if (vmem_codec_zstd(level))
			wrong += check(vmem_codec_zstd(level)) + check(vmem_codec_delta(level));
	wrong += check(vmem_codec_lz4()) + check(vmem_codec_lz4hc());
	return wrong != 0;
}

#else

int main(void)
{
	puts("needs a malloc() of its own: glibc, and no sanitizer");
	return 77;
}

#endif
