/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs of slots that were given back are discarded, where a device can: holes in a file, free blocks of a disk. Slots
 * keep them from being taken until that is over (vmem_slots_discard_next()); here they are asked for, a few in flight
 * at a time. What fails is free as well: discarding is for others' sake. */
#include "store/out_ways.h"
#include "store/store_internal.h"

static void set(struct vmemi_discard *x, enum vmemi_discard_state state)
{
	atomic_store_explicit(&x->state, state, memory_order_release);
}

/* Its slots are free. The device is held, or something of it is taken. */
void vmemi_discard_end(struct vmemi_out *out, struct vmemi_discard *x)
{
	vmemi_out_discarded(out, x->slot, x->count);
	set(x, VMEMI_DISCARD_IDLE);
}

static void submit(struct vmemi_out *out, struct vmemi_discard *x)
{
	uint32_t number = (uint32_t)(x - out->discard), device = VMEM_SLOT_DEVICE(x->slot);
	uint32_t use = vmemi_out_next_use(&x->use);
	int rc;

	set(x, VMEMI_DISCARD_FLYING); /* first: it may be over before this returns */
	atomic_store_explicit(&x->flight, use, memory_order_release);
	rc = vmemi_out_submit(out, device, VMEM_DEVICE_DISCARD,
			      VMEM_SLOT_NUMBER(x->slot) * VMEM_SLOT_BYTES,
			      (uint64_t)x->count * VMEM_SLOT_BYTES, NULL,
			      vmemi_out_tag(VMEMI_TAG_DISCARD, number, use));
	if (rc <= 0)
		atomic_store_explicit(&x->flight, 0, memory_order_relaxed);
	if (!rc)
		set(x, VMEMI_DISCARD_QUEUED);
	else if (rc < 0)
		vmemi_discard_end(out, x);
}

/* From a device that goes, or does not answer, nothing need be discarded. */
static void begin(struct vmemi_out *out, struct vmemi_discard *x)
{
	const struct vmemi_out_device *d = &out->device[VMEM_SLOT_DEVICE(x->slot)];

	x->since_ns = 0;
	if (atomic_load(&d->leaving) || atomic_load(&d->bad) || atomic_load(&d->silent))
		vmemi_discard_end(out, x);
	else
		submit(out, x);
}

void vmemi_out_discard(struct vmemi_out *out)
{
	for (uint32_t i = 0; i < VMEMI_DISCARDS; i++) {
		struct vmemi_discard *x = &out->discard[i];

		if (atomic_load_explicit(&x->state, memory_order_acquire) == VMEMI_DISCARD_QUEUED)
			submit(out, x);
		while (atomic_load_explicit(&x->state, memory_order_acquire) ==
			       VMEMI_DISCARD_IDLE &&
		       !vmem_slots_discard_next(out->slots, &x->slot, &x->count))
			begin(out, x);
	}
}

bool vmemi_out_is_discarding(const struct vmemi_out *out, uint32_t device)
{
	for (uint32_t i = 0; i < VMEMI_DISCARDS; i++)
		if (atomic_load_explicit(&out->discard[i].state, memory_order_acquire) !=
			    VMEMI_DISCARD_IDLE &&
		    VMEM_SLOT_DEVICE(out->discard[i].slot) == device)
			return true;
	return false;
}

void vmemi_out_has_discarded(struct vmemi_out *out, uint64_t tag)
{
	struct vmemi_discard *x = &out->discard[tag % VMEMI_DISCARDS];

	if (vmemi_out_landed(&x->flight, tag))
		vmemi_discard_end(out, x);
	else
		vmemi_out_is_late(out, tag);
}
