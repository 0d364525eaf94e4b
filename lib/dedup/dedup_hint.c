/* SPDX-License-Identifier: BSD-2-Clause */
/* Hints: entries of count 0. */
#include "dedup/dedup_internal.h"

int vmem_dedup_hint(vmem_dedup *d, uint32_t domain, uint32_t hash, uint32_t key)
{
	if (!domain || !key)
		return -VMEM_EINVAL;
	return vmemi_dedup_enter(d, vmemi_dedup_mix(d, domain, hash), key, 0);
}

int vmemi_dedup_forget(struct vmem_dedup *d, uint32_t mix, uint32_t key)
{
	struct vmemi_dedup_at at = vmemi_dedup_lock(d, mix);
	struct vmemi_dedup_slot slot;
	bool found = vmemi_dedup_slot_find(&at, key, true, &slot);

	if (found) {
		vmemi_dedup_slot_remove(d, &at, slot);
		at.stripe->hints--;
	}
	vmemi_dedup_unlock(&at);
	return found ? 0 : -VMEM_ENOENT;
}

int vmem_dedup_forget_hint(vmem_dedup *d, uint32_t domain, uint32_t hash, uint32_t key)
{
	if (!domain)
		return -VMEM_EINVAL;
	return vmemi_dedup_forget(d, vmemi_dedup_mix(d, domain, hash), key);
}

int vmem_dedup_promote(vmem_dedup *d, uint32_t domain, uint32_t hash, uint32_t key, uint32_t id)
{
	struct vmemi_dedup_slot slot, other;
	struct vmemi_dedup_at at;
	int err = 0;

	if (!domain || !id)
		return -VMEM_EINVAL;
	at = vmemi_dedup_lock(d, vmemi_dedup_mix(d, domain, hash));
	if (!vmemi_dedup_slot_find(&at, key, true, &slot)) {
		err = -VMEM_ENOENT;
	} else if (vmemi_dedup_slot_find(&at, id, false, &other)) {
		err = -VMEM_EEXIST;
	} else {
		vmemi_dedup_slot_set_id(&at, slot, id);
		err = vmemi_dedup_slot_set_count(&at, slot, 1);
		at.stripe->hints--;
		at.stripe->shared++;
		at.stripe->references++;
	}
	vmemi_dedup_unlock(&at);
	return err;
}

/* Those of a group that was split are met under their own number, which is above all others. */
uint32_t vmemi_dedup_hints(struct vmem_dedup *d, uint32_t *number,
			   struct vmemi_dedup_hint hints[VMEMI_DEDUP_HINTS])
{
	vmemi_dedup_geometry g = atomic_load_explicit(&d->geometry, memory_order_acquire);
	struct vmemi_dedup_at at = vmemi_dedup_lock(d, *number);
	struct vmemi_dedup_spilled *spilled = NULL;
	uint32_t found = 0;

	for (uint32_t i = 0;
	     at.where.number == *number && i < at.group.lines * VMEMI_DEDUP_LINE_ENTRIES; i++) {
		vmemi_dedup_entry e = at.group.entries[i];

		if (e && !vmemi_dedup_entry_count(e))
			hints[found++] =
				(struct vmemi_dedup_hint){ vmemi_dedup_entry_mix(e, *number),
							   vmemi_dedup_entry_id(e) };
	}
	while (at.where.number == *number && found < VMEMI_DEDUP_HINTS &&
	       (spilled = vmemi_dedup_spill_of_group(&at.stripe->spill, *number,
						     1u << at.where.level, spilled)))
		if (!spilled->count)
			hints[found++] = (struct vmemi_dedup_hint){ spilled->mix, spilled->id };
	vmemi_dedup_unlock(&at);
	if (++*number >=
	    1u << (vmemi_dedup_level(g) + (vmemi_dedup_lines(g) + 1 == VMEMI_DEDUP_LINES_SPLIT)))
		*number = 0;
	return found;
}
