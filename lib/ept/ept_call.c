/* SPDX-License-Identifier: BSD-2-Clause */
/* What range calls begin and end with: arguments, results, what is owed. Guard: the call. */
#include "ept/ept_internal.h"
#include "base/opts.h"

#define LEAST VMEMI_BYTES_TO(struct vmem_ept_change, at)

int vmemi_ept_begin_checked(struct vmemi_ept_call *c, vmem_ept *ept, uint64_t gpa, uint64_t bytes,
			    struct vmem_ept_change *change)
{
	c->given = NULL;
	c->change = &c->ours; /* nothing is handed over */
	if (!change || change->size < LEAST)
		return -VMEM_EINVAL;
	c->given = change;
	c->change = change->size == sizeof(*change) ? change : &c->ours;
	vmemi_ept_change_init(c->change);
	if (((gpa | bytes) & (VMEM_PAGE_SIZE - 1)) || !bytes)
		return vmemi_ept_fail(c, -VMEM_EINVAL, VMEM_EPT_UNALIGNED, gpa);
	if (gpa >= ept->guest_end)
		return vmemi_ept_fail(c, -VMEM_ERANGE, VMEM_EPT_GUEST_WIDTH, gpa);
	if (bytes > ept->guest_end - gpa)
		return vmemi_ept_fail(c, -VMEM_ERANGE, VMEM_EPT_GUEST_WIDTH, ept->guest_end);
	return 0;
}

int vmemi_ept_end_given(struct vmemi_ept_call *c, int err)
{
	if (!c->given)
		return err;
	if (c->ept->reserve.total)
		vmemi_ept_give_back(c->ept);
	if (c->change != c->given) {
		for (uint32_t i = c->ours.range_count; i < VMEM_EPT_RANGES; i++)
			c->ours.ranges[i] = (struct vmem_ept_range){ 0, 0 };
		vmemi_opts_give(c->given, &c->ours, sizeof(c->ours));
	}
	return err;
}

int vmemi_ept_fail(struct vmemi_ept_call *c, int err, uint32_t reason, uint64_t at)
{
	c->change->reason = reason;
	c->change->at = at;
	return err;
}

/* Calls go upwards: the range is beyond the last one or touches it; that of a table that became empty may reach back
 * over several. */
void vmemi_ept_owe(struct vmemi_ept_call *c, uint64_t gpa, uint64_t bytes)
{
	struct vmem_ept_change *change = c->change;
	struct vmem_ept_range *ranges = change->ranges, *last;
	uint32_t count = change->range_count;
	uint64_t end = gpa + bytes;

	change->flush = VMEM_EPT_FLUSH_RANGES;
	while (count) {
		last = &ranges[count - 1];
		if (gpa > last->gpa + last->bytes && count < VMEM_EPT_RANGES)
			break;
		gpa = gpa < last->gpa ? gpa : last->gpa;
		end = end > last->gpa + last->bytes ? end : last->gpa + last->bytes;
		count--;
	}
	ranges[count] = (struct vmem_ept_range){ gpa, end - gpa };
	change->range_count = count + 1;
}

void vmemi_ept_descend_mapped(const vmem_ept *ept, uint64_t gpa, uint32_t stop,
			      struct vmemi_ept_path *path)
{
	uint64_t *table = ept->root;

	for (path->level = ept->levels;; path->level--) {
		path->slots[path->level] = table + vmemi_ept_index(gpa, path->level);
		path->entry = vmemi_ept_load_way(path->slots[path->level]);
		if (path->level <= stop || !vmemi_ept_is_table(path->entry))
			return;
		table = vmemi_ept_at(ept, path->entry & VMEM_EPT_ADDRESS);
	}
}
