/* SPDX-License-Identifier: BSD-2-Clause */
/* What has no room elsewhere: entries whose group is full, and counts that do not fit into 8 bits.
 *
 * Open addressing with linear probing, by the bits of the mix above those that name the stripe: so
 * entries of one group stand together. Guard: the lock of the stripe it belongs to. */
#ifndef VMEMI_DEDUP_SPILL_H
#define VMEMI_DEDUP_SPILL_H
#include <stdbool.h>
#include <stdint.h>

#define VMEMI_DEDUP_STRIPE_BITS 4u

enum vmemi_dedup_spilled_kind {
	VMEMI_DEDUP_NOTHING,
	VMEMI_DEDUP_WHOLE, /* an entry */
	VMEMI_DEDUP_COUNT, /* the count of an entry in its group */
};

struct vmemi_dedup_spilled {
	uint32_t mix;
	uint32_t id;
	uint32_t count;
	uint32_t kind; /* enum above */
};

struct vmemi_dedup_spill {
	struct vmemi_dedup_spilled *entries;
	uint32_t capacity; /* 0 or a power of two */
	uint32_t used;
	uint32_t whole; /* of used */
};

/* How many entries a capacity is enough for: an eighth stays empty, and one at least. */
static inline uint32_t vmemi_dedup_spill_holds(uint32_t capacity)
{
	return capacity - (capacity + 7) / 8;
}

/* How many more can be put. */
static inline uint32_t vmemi_dedup_spill_room(const struct vmemi_dedup_spill *s)
{
	return vmemi_dedup_spill_holds(s->capacity) - s->used;
}

/* The one after @previous (NULL: the first) of this mix and kind, or NULL. */
struct vmemi_dedup_spilled *vmemi_dedup_spill_next(const struct vmemi_dedup_spill *s, uint32_t mix,
						   enum vmemi_dedup_spilled_kind kind,
						   const struct vmemi_dedup_spilled *previous);

/* The count of an entry, or NULL. */
struct vmemi_dedup_spilled *vmemi_dedup_spill_count(const struct vmemi_dedup_spill *s, uint32_t mix,
						    uint32_t id);

/* The whole entry after @previous (NULL: the first) of group @number, of so many @groups; or NULL. */
struct vmemi_dedup_spilled *vmemi_dedup_spill_of_group(const struct vmemi_dedup_spill *s,
						       uint32_t number, uint32_t groups,
						       const struct vmemi_dedup_spilled *previous);

/* There must be room. */
void vmemi_dedup_spill_put(struct vmemi_dedup_spill *s, struct vmemi_dedup_spilled entry);

/* Of a whole entry only the count stays, and the reverse. */
static inline void vmemi_dedup_spill_only_count(struct vmemi_dedup_spill *s,
						struct vmemi_dedup_spilled *entry)
{
	entry->kind = VMEMI_DEDUP_COUNT;
	s->whole--;
}

static inline void vmemi_dedup_spill_all_of(struct vmemi_dedup_spill *s,
					    struct vmemi_dedup_spilled *entry)
{
	entry->kind = VMEMI_DEDUP_WHOLE;
	s->whole++;
}

void vmemi_dedup_spill_remove(struct vmemi_dedup_spill *s, struct vmemi_dedup_spilled *entry);

#endif
