/* SPDX-License-Identifier: BSD-2-Clause */
/* What a VM uses of its domain: see holds.h. */
#include "store/holds.h"

#define WORD_SHIFT 6u   /* handles of a word */
#define CHUNK_SHIFT 9u  /* words of a chunk: 4 KiB, for 32768 handles */
#define NUMBER_BITS 26u /* words for all handles */
#define DOMAIN 1u       /* of the table beside, which has only one */

static int never_equal(void *context, uint32_t id, const void *page)
{
	(void)context;
	(void)id;
	(void)page;
	return 0; /* nothing is looked for by its bytes here */
}

static void nothing_to_release(void *context, uint32_t id)
{
	(void)context;
	(void)id;
}

int vmemi_holds_init(struct vmemi_holds *h, const struct vmem_allocator *allocator,
		     const struct vmem_env *env)
{
	const struct vmem_dedup_opts opts = { .size = sizeof(opts),
					      .allocator = allocator,
					      .env = env,
					      .compare = never_equal,
					      .release = nothing_to_release };
	int err = vmemi_lock_init(&h->lock, env);

	if (!err)
		err = vmemi_table_init(&h->bits, allocator, sizeof(_Atomic uint64_t), CHUNK_SHIFT,
				       NUMBER_BITS);
	if (!err)
		err = vmem_dedup_new(&h->more, &opts);
	if (err)
		vmemi_holds_destroy(h);
	return err;
}

void vmemi_holds_destroy(struct vmemi_holds *h)
{
	vmem_dedup_free(h->more);
	vmemi_table_destroy(&h->bits);
	vmemi_lock_destroy(&h->lock);
	h->more = NULL;
	h->bits = (struct vmemi_table){ 0 };
}

static _Atomic uint64_t *word_of(const struct vmemi_holds *h, uint32_t handle)
{
	return vmemi_table_at(&h->bits, handle >> WORD_SHIFT, sizeof(_Atomic uint64_t),
			      CHUNK_SHIFT);
}

static uint64_t bit_of(uint32_t handle)
{
	return UINT64_C(1) << (handle & ((1u << WORD_SHIFT) - 1));
}

/* Spreads handles, which come in a row. */
static uint32_t hash_of(uint32_t handle)
{
	return (uint32_t)(handle * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

static int add_more(struct vmemi_holds *h, uint32_t handle)
{
	int err = vmem_dedup_take(h->more, DOMAIN, hash_of(handle), handle);

	if (err == -VMEM_ENOENT)
		err = vmem_dedup_add(h->more, DOMAIN, hash_of(handle), handle);
	return err ? -VMEM_ENOMEM : 0;
}

int vmemi_holds_add(struct vmemi_holds *h, uint32_t handle)
{
	int err = vmemi_table_grow(&h->bits, handle >> WORD_SHIFT);
	_Atomic uint64_t *word = word_of(h, handle);

	if (err < 0)
		return err;
	err = 0;
	vmemi_lock(&h->lock);
	if (atomic_fetch_or(word, bit_of(handle)) & bit_of(handle))
		err = add_more(h, handle);
	vmemi_unlock(&h->lock);
	return err;
}

int vmemi_holds_drop(struct vmemi_holds *h, uint32_t handle)
{
	_Atomic uint64_t *word = word_of(h, handle);
	uint32_t left;
	int err;

	if (!word)
		return -VMEM_ENOENT;
	vmemi_lock(&h->lock);
	err = vmem_dedup_drop(h->more, DOMAIN, hash_of(handle), handle, &left);
	if (err && atomic_fetch_and(word, ~bit_of(handle)) & bit_of(handle))
		err = 0;
	vmemi_unlock(&h->lock);
	return err;
}

int vmemi_holds_drop_spare(struct vmemi_holds *h, uint32_t handle)
{
	uint32_t left;
	int err;

	vmemi_lock(&h->lock);
	err = vmem_dedup_drop(h->more, DOMAIN, hash_of(handle), handle, &left);
	if (err && vmemi_holds_has(h, handle))
		err = -VMEM_EBUSY;
	vmemi_unlock(&h->lock);
	return err;
}

bool vmemi_holds_has(const struct vmemi_holds *h, uint32_t handle)
{
	_Atomic uint64_t *word = word_of(h, handle);

	return word && atomic_load_explicit(word, memory_order_relaxed) & bit_of(handle);
}

uint32_t vmemi_holds_next(const struct vmemi_holds *h, uint32_t first, uint32_t end)
{
	const uint32_t chunk = 1u << (WORD_SHIFT + CHUNK_SHIFT);
	uint32_t handle = first;

	while (handle < end) {
		_Atomic uint64_t *word = word_of(h, handle);
		uint64_t bits;

		if (!word) { /* a chunk that is not there */
			if (handle > UINT32_MAX - chunk)
				return 0;
			handle = (handle | (chunk - 1)) + 1;
			continue;
		}
		bits = atomic_load_explicit(word, memory_order_relaxed) & -bit_of(handle);
		if (bits) {
			handle = (handle >> WORD_SHIFT << WORD_SHIFT) +
				 (uint32_t)__builtin_ctzll(bits);
			return handle < end ? handle : 0;
		}
		handle = (handle >> WORD_SHIFT << WORD_SHIFT) + (1u << WORD_SHIFT);
		if (!handle)
			return 0;
	}
	return 0;
}

uint64_t vmemi_holds_bytes(struct vmemi_holds *h)
{
	struct vmem_dedup_stats stats = { .size = sizeof(stats) };

	vmem_dedup_get_stats(h->more, &stats);
	return stats.bytes + atomic_load_explicit(&h->bits.bytes, memory_order_relaxed);
}
