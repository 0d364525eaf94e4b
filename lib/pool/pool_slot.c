/* SPDX-License-Identifier: BSD-2-Clause */
/* Slots: see pool_slot.h. */
#include "pool/pool_slot.h"

/* Makes the contexts of a slot, and counts them: those of the slots are made one after the other. */
static int make_contexts(struct vmem_pool *p, uint32_t slot)
{
	for (uint32_t id = 1; id <= VMEM_CODEC_MAX; id++) {
		const struct vmem_codec *codec = p->codec[id];
		bool decodes = slot && p->decoders >> id & 1;
		int err = 0;

		if (codec && codec->context_init)
			err = (decodes ? codec->decoder_init
				       : codec->context_init)(vmemi_slot_context(p, slot, codec));
		if (err)
			return err;
		if (codec && codec->taken_bytes)
			p->taken_bytes += codec->taken_bytes(vmemi_slot_context(p, slot, codec));
		p->contexts_made++;
	}
	return 0;
}

/* One slot is not for encoding: a save that waits, for its page or the allocator, shall not keep a load
 * waiting. Codecs without contexts need it too, for the reference of a delta. */
int vmemi_slots_make(struct vmem_pool *p)
{
	int err = 0;

	if (p->slot_count < VMEMI_SLOTS_MAX)
		p->slot_count++;
	p->encode_slots = ~UINT64_C(0) >> (64 - p->slot_count + 1);
	p->slots =
		vmemi_zalloc(&p->tables.allocator, p->slot_count * p->slot_bytes, VMEMI_SLOT_ALIGN);
	if (!p->slots)
		return -VMEM_ENOMEM;
	for (uint32_t slot = 0; slot < p->slot_count && !err; slot++)
		err = make_contexts(p, slot);
	atomic_init(&p->idle_slots, ~UINT64_C(0) >> (64 - p->slot_count));
	return err;
}

void vmemi_slots_free(struct vmem_pool *p)
{
	for (uint32_t made = 0; made < p->contexts_made; made++) {
		const struct vmem_codec *codec = p->codec[made % VMEM_CODEC_MAX + 1];

		if (codec && codec->context_end)
			codec->context_end(vmemi_slot_context(p, made / VMEM_CODEC_MAX, codec));
	}
	vmemi_free(&p->tables.allocator, p->slots, p->slot_count * p->slot_bytes, VMEMI_SLOT_ALIGN);
}

/* The first slot is left to those that need it. */
static uint64_t highest(uint64_t slots)
{
	return slots ? UINT64_C(1) << (63 - __builtin_clzll(slots)) : 0;
}

uint32_t vmemi_slot_take(struct vmem_pool *p, uint64_t usable)
{
	uint64_t idle = atomic_load_explicit(&p->idle_slots, memory_order_relaxed);

	for (;;) {
		uint64_t one = highest(idle & usable);

		if (!one) {
			vmemi_relax(&p->env);
			idle = atomic_load_explicit(&p->idle_slots, memory_order_relaxed);
		} else if (atomic_compare_exchange_weak_explicit(&p->idle_slots, &idle, idle & ~one,
								 memory_order_acquire,
								 memory_order_relaxed)) {
			return (uint32_t)__builtin_ctzll(one);
		}
	}
}

void vmemi_slot_give(struct vmem_pool *p, uint32_t slot)
{
	atomic_fetch_or_explicit(&p->idle_slots, UINT64_C(1) << slot, memory_order_release);
}
