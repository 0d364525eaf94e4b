/* SPDX-License-Identifier: BSD-2-Clause */
/* Slots: what a call needs to encode or decode, two pages and a context for each codec. A call takes an
 * idle one by its bit, and waits in turn if there is none. */
#ifndef VMEMI_POOL_SLOT_H
#define VMEMI_POOL_SLOT_H
#include "pool/pool_internal.h"

#define VMEMI_SLOTS_MAX 64u
#define VMEMI_SLOT_ALIGN 64u

/* For decoding any slot will do; for encoding those that are not kept for decoding, or the first, if only
 * that one has what the codec needs. */
#define VMEMI_SLOT_ANY UINT64_MAX

static inline uint64_t vmemi_slots_to_encode(const struct vmem_pool *p,
					     const struct vmem_codec *codec)
{
	return p->decoders >> codec->id & 1 ? 1 : p->encode_slots;
}

uint32_t vmemi_slot_take(struct vmem_pool *p, uint64_t usable);
void vmemi_slot_give(struct vmem_pool *p, uint32_t slot);

/* Makes p->slot_count slots, each of p->slot_bytes, and their contexts. 0, or a negative VMEM error. */
int vmemi_slots_make(struct vmem_pool *p);
void vmemi_slots_free(struct vmem_pool *p);

static inline unsigned char *vmemi_slot_at(const struct vmem_pool *p, uint32_t slot)
{
	return p->slots + slot * p->slot_bytes;
}

/* A page for a result, and one for the reference of a delta. */
#define VMEMI_SLOT_PAGES 2u

static inline unsigned char *vmemi_slot_result(const struct vmem_pool *p, uint32_t slot)
{
	return vmemi_slot_at(p, slot);
}

static inline unsigned char *vmemi_slot_reference(const struct vmem_pool *p, uint32_t slot)
{
	return vmemi_slot_at(p, slot) + VMEM_PAGE_SIZE;
}

static inline void *vmemi_slot_context(const struct vmem_pool *p, uint32_t slot,
				       const struct vmem_codec *codec)
{
	return codec->context_bytes ? vmemi_slot_at(p, slot) + p->context_at[codec->id] : NULL;
}

#endif
