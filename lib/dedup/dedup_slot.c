/* SPDX-License-Identifier: BSD-2-Clause */
/* Entries wherever they are: in their group, with the count perhaps in the spill, or spilled whole.
 * All under the lock of the stripe. */
#include "dedup/dedup_internal.h"

bool vmemi_dedup_slot_find(const struct vmemi_dedup_at *at, uint32_t id, bool hint,
			   struct vmemi_dedup_slot *ret_slot)
{
	struct vmemi_dedup_walk walk = vmemi_dedup_walk_of(at->group, at->mix);
	struct vmemi_dedup_spilled *spilled = NULL;
	vmemi_dedup_entry *entry;

	while ((entry = vmemi_dedup_walk_next(&walk))) {
		if (vmemi_dedup_entry_id(*entry) == id &&
		    !vmemi_dedup_entry_count(*entry) == hint) {
			*ret_slot = (struct vmemi_dedup_slot){ .entry = entry };
			return true;
		}
	}
	if (walk.lines_left)
		return false;
	do {
		spilled = vmemi_dedup_spill_next(&at->stripe->spill, at->mix, VMEMI_DEDUP_WHOLE,
						 spilled);
	} while (spilled && (spilled->id != id || !spilled->count != hint));
	*ret_slot = (struct vmemi_dedup_slot){ .spilled = spilled };
	return spilled != NULL;
}

uint32_t vmemi_dedup_slot_count(const struct vmemi_dedup_at *at, struct vmemi_dedup_slot slot)
{
	uint32_t count;

	if (slot.spilled)
		return slot.spilled->count;
	count = vmemi_dedup_entry_count(*slot.entry);
	if (count == VMEMI_DEDUP_COUNT_SPILLED)
		count = vmemi_dedup_spill_count(&at->stripe->spill, at->mix,
						vmemi_dedup_entry_id(*slot.entry))
				->count;
	return count;
}

int vmemi_dedup_slot_set_count(const struct vmemi_dedup_at *at, struct vmemi_dedup_slot slot,
			       uint32_t count)
{
	struct vmemi_dedup_spill *spill = &at->stripe->spill;
	struct vmemi_dedup_spilled *spilled = slot.spilled;
	uint32_t id;

	if (spilled) {
		spilled->count = count;
		return 0;
	}
	id = vmemi_dedup_entry_id(*slot.entry);
	if (vmemi_dedup_entry_count(*slot.entry) == VMEMI_DEDUP_COUNT_SPILLED) {
		spilled = vmemi_dedup_spill_count(spill, at->mix, id);
		if (count >= VMEMI_DEDUP_COUNT_SPILLED) {
			spilled->count = count;
			return 0;
		}
		vmemi_dedup_spill_remove(spill, spilled);
	} else if (count >= VMEMI_DEDUP_COUNT_SPILLED) {
		if (!vmemi_dedup_spill_room(spill))
			return -VMEM_EAGAIN;
		vmemi_dedup_spill_put(spill, (struct vmemi_dedup_spilled){ at->mix, id, count,
									   VMEMI_DEDUP_COUNT });
		count = VMEMI_DEDUP_COUNT_SPILLED;
	}
	*slot.entry = vmemi_dedup_entry_of(at->mix, id, count);
	return 0;
}

void vmemi_dedup_slot_set_id(const struct vmemi_dedup_at *at, struct vmemi_dedup_slot slot,
			     uint32_t id)
{
	uint32_t count;

	if (slot.spilled) {
		slot.spilled->id = id;
		return;
	}
	count = vmemi_dedup_entry_count(*slot.entry);
	if (count == VMEMI_DEDUP_COUNT_SPILLED)
		vmemi_dedup_spill_count(&at->stripe->spill, at->mix,
					vmemi_dedup_entry_id(*slot.entry))
			->id = id;
	*slot.entry = vmemi_dedup_entry_of(at->mix, id, count);
}

void vmemi_dedup_slot_remove(struct vmem_dedup *d, const struct vmemi_dedup_at *at,
			     struct vmemi_dedup_slot slot)
{
	if (slot.spilled)
		vmemi_dedup_spill_remove(&at->stripe->spill, slot.spilled);
	else if (vmemi_dedup_group_remove(at->group, at->mix, slot.entry))
		vmemi_dedup_refill(at->stripe, at->group, at->where);
	atomic_fetch_sub_explicit(&d->entries, 1, memory_order_relaxed);
}

/* As long as the group is full, an entry of its may be spilled; so none is when it is not. */
void vmemi_dedup_refill(struct vmemi_dedup_stripe *s, struct vmemi_dedup_group group,
			struct vmemi_dedup_where where)
{
	for (;;) {
		struct vmemi_dedup_spilled *spilled = vmemi_dedup_spill_of_group(
			&s->spill, where.number, 1u << where.level, NULL);
		bool large;

		if (!spilled)
			return;
		large = spilled->count >= VMEMI_DEDUP_COUNT_SPILLED;
		if (!vmemi_dedup_group_put(group, spilled->mix,
					   vmemi_dedup_entry_of(spilled->mix, spilled->id,
								large ? VMEMI_DEDUP_COUNT_SPILLED
								      : spilled->count)))
			return;
		if (large)
			vmemi_dedup_spill_only_count(&s->spill, spilled);
		else
			vmemi_dedup_spill_remove(&s->spill, spilled);
	}
}
