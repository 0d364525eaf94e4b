/* SPDX-License-Identifier: BSD-2-Clause */
/* Walks a store and compares its accounts with the pool's: for tests, when no call runs. */
#include "store/store_internal.h"
#include "pool/pool_internal.h"

_Static_assert(VMEMI_STREAMS <= VMEMI_STORE_VMS, "a stream's number is its VM's");

static struct vmem_pool_stats stats_of(vmem_store *store, uint32_t stream)
{
	struct vmem_pool_stats stats = { .size = sizeof(stats) };

	if (vmem_pool_stream_get_stats(store->pool, stream, &stats))
		stats.objects = UINT64_MAX;
	return stats;
}

/* @vms_pages: of all VMs in it. */
static const char *check_domain(vmem_store *store, struct vmemi_domain *d, uint64_t vms_pages,
				struct vmem_pool_stats *sum)
{
	struct vmem_pool_stats stats = stats_of(store, d->stream);
	struct vmem_dedup_stats table = { .size = sizeof(table) };
	uint64_t objects = 0;

	for (int f = 0; f < VMEMI_FORMS; f++)
		objects += vmemi_counter(&d->objects[f]);
	if (objects != stats.objects)
		return "store: a domain's objects are not those of its stream";
	if (vmemi_counter(&d->pages) != vms_pages)
		return "store: the VMs of a domain do not have its pages";
	if (d->dedup) {
		vmem_dedup_get_stats(d->dedup, &table);
		if (table.shared > objects || table.hints)
			return "store: a domain's table has objects that are not there";
		if (table.references + (objects - table.shared) !=
		    vms_pages + vmemi_counter(&d->objects[VMEMI_FORM_DELTA]))
			return "store: a domain's table has lost uses of objects";
	} else if (objects != vms_pages) {
		return "store: pages share objects, and may not";
	}
	sum->objects += stats.objects;
	sum->live_bytes += stats.live_bytes;
	return NULL;
}

static const char *check_group(vmem_store *store, struct vmemi_domain *d,
			       struct vmem_pool_stats *sum)
{
	uint64_t pages = 0;
	uint32_t vms = 0;

	for (uint32_t i = 0; i < store->vm_high; i++) {
		struct vmemi_vm *vm = vmemi_store_vm(store, i);

		if (!vm || vm->domain != d)
			continue;
		vms++;
		pages += vmemi_counter(&vm->in_pool);
		if (stats_of(store, i).objects)
			return "store: a VM of a group has objects of its own";
	}
	return vms != d->vms ? "store: a group's number of VMs is wrong"
			     : check_domain(store, d, pages, sum);
}

static const char *check_vm(vmem_store *store, struct vmemi_vm *vm, struct vmem_pool_stats *sum)
{
	if (vmemi_counter(&vm->same) + vmemi_counter(&vm->in_pool) > vmemi_counter(&vm->saves))
		return "store: a VM has more pages than it saved";
	if (vm->domain->is_group)
		return NULL;
	return check_domain(store, vm->domain, vmemi_counter(&vm->in_pool), sum);
}

/* Each delta has its reference, in the same domain, and that is no delta. */
static const char *check_deltas(const struct vmem_pool *p)
{
	for (uint32_t handle = 1, end = vmemi_index_end(p); handle < end; handle++) {
		uint64_t delta = vmemi_entry_of(p, handle), entry;

		if (!vmemi_entry_is_live(delta) || vmemi_entry_codec(delta) != VMEM_CODEC_DELTA)
			continue;
		entry = vmemi_entry_of(p, vmemi_entry_reference(p, delta));
		if (!vmemi_entry_is_live(entry))
			return "store: the reference of a delta is gone";
		if (vmemi_entry_codec(entry) == VMEM_CODEC_DELTA)
			return "store: the reference of a delta is one itself";
		if (vmemi_segment_at(p, vmemi_entry_segment(entry))->stream !=
		    vmemi_segment_at(p, vmemi_entry_segment(delta))->stream)
			return "store: the reference of a delta is of another domain";
	}
	return NULL;
}

const char *vmemi_store_check(vmem_store *store)
{
	struct vmem_pool_stats pool = { .size = sizeof(pool) };
	struct vmem_pool_stats sum = { 0 };
	const char *wrong = vmemi_inflight_check(&store->inflight);

	for (uint32_t i = 0; i < VMEMI_STORE_VMS && !wrong; i++) {
		struct vmemi_vm *vm = vmemi_store_vm(store, i);

		if (!vm)
			continue;
		if (i >= store->vm_high || vm->number != i)
			return "store: a VM has a wrong number";
		wrong = check_vm(store, vm, &sum);
	}
	for (struct vmemi_domain *d = store->groups; d && !wrong; d = d->next)
		wrong = check_group(store, d, &sum);
	if (wrong)
		return wrong;
	if (vmem_pool_get_stats(store->pool, &pool))
		return "store: no statistics of the pool";
	if (sum.objects != pool.objects || sum.live_bytes != pool.live_bytes)
		return "store: the VMs do not add up to the pool";
	wrong = check_deltas(store->pool);
	return wrong ? wrong : vmemi_pool_check(store->pool);
}
