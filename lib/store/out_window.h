/* SPDX-License-Identifier: BSD-2-Clause */
/* Loads of what is on devices, and the windows that they read into: struct vmemi_window of out.h. */
#ifndef VMEMI_OUT_WINDOW_H
#define VMEMI_OUT_WINDOW_H
#include "store/out.h"

/* out_load.c: a load of what is out. As vmem_store_load(), but it does not count what is done at once. Any thread. */
int vmemi_out_load(vmem_store *store, const struct vmemi_load *load, vmem_store_token *ret_token);
/* A read of it was not answered in time, and has another buffer; or its device was full for as long. */
void vmemi_window_expired(vmem_store *store, struct vmemi_window *w, uint32_t piece);
/* A read has ended. */
void vmemi_out_has_read(vmem_store *store, uint64_t tag, int error);
/* Reads that found their device full are tried again. */
void vmemi_out_retry_reads(vmem_store *store);

/* out_warm.c: a window of the caller's, cold. NULL: none is idle. Any thread, as the next ones. */
struct vmemi_window *vmemi_window_take(struct vmemi_out *out);
void vmemi_window_give(struct vmemi_out *out, struct vmemi_window *w);
/* What it has read stays of use. The copies that it was read from are held. */
void vmemi_window_warm(struct vmemi_out *out, const struct vmemi_window *w);
/* These blocks are no copy any more. */
void vmemi_window_cool(struct vmemi_out *out, uint64_t place, uint32_t blocks);
/* A load from what was read before. 0, -VMEM_EAGAIN: it is not there. */
int vmemi_warm_load(vmem_store *store, const struct vmemi_load *load);
/* Pages of the same VM that can be loaded from a window that has been read. */
void vmemi_window_offers(vmem_store *store, const struct vmemi_window *w,
			 struct vmemi_offers *ret_offers);

/* Its object, when it has been read. */
static inline const unsigned char *vmemi_read_object(const struct vmemi_read *r,
						     const struct vmemi_located *at)
{
	return r->buffer + at->offset - r->first * VMEMI_OUT_BLOCK;
}

static inline uint32_t vmemi_read_number(const struct vmemi_out *out, const struct vmemi_window *w,
					 uint32_t piece)
{
	return (uint32_t)(w - out->window) * VMEMI_PIECES + piece;
}

/* Blocks of a copy that an object is in. */
static inline uint32_t vmemi_out_first(const struct vmemi_located *at)
{
	return at->offset / VMEMI_OUT_BLOCK;
}

static inline uint32_t vmemi_out_end(const struct vmemi_located *at)
{
	return (at->offset + at->bytes + VMEMI_OUT_BLOCK - 1) / VMEMI_OUT_BLOCK;
}

#endif
