/* SPDX-License-Identifier: BSD-2-Clause */
/* See the header. */
#include "estimate_probe.h"

#include <stdlib.h>
#include <string.h>

#include <vmem/codec.h>

#define TRY_EVERY 8u
#define CONTEXT_ALIGN 64u

static int new_context(const struct vmem_codec *codec, void **ret_context)
{
	size_t bytes = (codec->context_bytes + CONTEXT_ALIGN) / CONTEXT_ALIGN * CONTEXT_ALIGN;
	void *context = aligned_alloc(CONTEXT_ALIGN, bytes);
	int error = context ? 0 : -VMEM_ENOMEM;

	if (context)
		memset(context, 0, bytes);
	if (context && codec->context_init)
		error = codec->context_init(context);
	if (error)
		free(context);
	else
		*ret_context = context;
	return error;
}

static void end_context(const struct vmem_codec *codec, void *context)
{
	if (context && codec->context_end)
		codec->context_end(context);
	free(context);
}

int prober_init(struct prober *p)
{
	int error;

	*p = (struct prober){ 0 };
	error = new_context(vmem_codec_lz4(), &p->lz4);
	if (!error)
		error = new_context(vmem_codec_zstd(5), &p->zstd);
	return error;
}

void prober_end(struct prober *p)
{
	end_context(vmem_codec_lz4(), p->lz4);
	end_context(vmem_codec_zstd(5), p->zstd);
}

/* A page that does not become smaller stays as it is. */
static uint64_t encoded_bytes(const struct vmem_codec *codec, void *context, const void *page)
{
	unsigned char bytes[VMEM_PAGE_SIZE];
	size_t n = codec->encode(context, bytes, sizeof(bytes) - 1, page, NULL);

	return n ? n : VMEM_PAGE_SIZE;
}

void prober_try(struct prober *p, struct probe *probe, const void *page)
{
	if (p->pages++ % TRY_EVERY)
		return;
	probe->pages++;
	probe->lz4_bytes += encoded_bytes(vmem_codec_lz4(), p->lz4, page);
	probe->zstd_bytes += encoded_bytes(vmem_codec_zstd(5), p->zstd, page);
}
