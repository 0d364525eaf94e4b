/* SPDX-License-Identifier: BSD-2-Clause */
/* The VMs of a store and their accounts.
 *
 * A VM's number is that of its stream in the pool, which hands them out and uses them again. It is an
 * index into a table of chunks that grows and never moves, so that calls on pages find their VM without
 * a lock. Adding, dropping and summing up are under vm_lock; the counters are atomics of the VM's own
 * (store_internal.h). */
#include "store/store_internal.h"
#include "base/mem.h"
#include "base/opts.h"

#define CHUNK_BYTES (VMEMI_VM_CHUNK * sizeof(struct vmemi_vm))
#define NO_CAP UINT64_MAX

/* @percent 0: none. 0, -VMEM_EINVAL. */
static int cap_bytes(uint64_t vm_bytes, uint32_t percent, uint64_t *ret_bytes)
{
	if (percent > 100 || (percent && !vm_bytes))
		return -VMEM_EINVAL;
	*ret_bytes = percent ? vm_bytes / 100 * percent + vm_bytes % 100 * percent / 100 : NO_CAP;
	return 0;
}

/* The block of a number, whose VM is not live; makes its chunk if need be. 0, -VMEM_ENOMEM. */
static int block_of(vmem_store *store, uint32_t number, struct vmemi_vm **ret_vm)
{
	struct vmemi_vm *_Atomic *at = &store->chunk[number / VMEMI_VM_CHUNK];
	struct vmemi_vm *chunk;

	vmemi_lock(&store->vm_lock);
	chunk = atomic_load_explicit(at, memory_order_relaxed);
	if (!chunk) {
		chunk = vmemi_zalloc(&store->allocator, CHUNK_BYTES, 64);
		atomic_store_explicit(at, chunk, memory_order_release);
	}
	if (chunk && number >= store->vm_high)
		store->vm_high = number + 1;
	vmemi_unlock(&store->vm_lock);
	if (!chunk)
		return -VMEM_ENOMEM;
	*ret_vm = &chunk[number % VMEMI_VM_CHUNK];
	return 0;
}

/* Adds what counts since the start. */
static void add_counters(struct vmem_store_account *sum, const struct vmemi_vm *vm)
{
	sum->saves += vmemi_counter(&vm->saves);
	sum->loads += vmemi_counter(&vm->loads);
	sum->rejects += vmemi_counter(&vm->rejects);
}

/* Adds what is stored now. */
static void add_pages(struct vmem_store_account *sum, const struct vmemi_vm *vm)
{
	uint64_t same = vmemi_counter(&vm->pages[VMEMI_PAGE_SAME]) +
			vmemi_counter(&vm->pages[VMEMI_PAGE_FILL]);
	uint64_t compressed = vmemi_counter(&vm->pages[VMEMI_PAGE_COMPRESSED]);
	uint64_t raw = vmemi_counter(&vm->pages[VMEMI_PAGE_RAW]);

	sum->pages_same += same;
	sum->pages_compressed += compressed;
	sum->pages_raw += raw;
	sum->pages += same + compressed + raw;
	sum->logical_bytes += (same + compressed + raw) * VMEM_PAGE_SIZE;
}

struct vmem_pool_stats vmemi_vm_in_pool(vmem_store *store, const struct vmemi_vm *vm)
{
	struct vmem_pool_stats stats = { .size = sizeof(stats) };

	vmem_pool_stream_get_stats(store->pool, vm->number, &stats);
	return stats;
}

void vmemi_store_vms_free(vmem_store *store)
{
	for (uint32_t i = 0; i < VMEMI_VM_CHUNKS; i++)
		vmemi_free(&store->allocator,
			   atomic_load_explicit(&store->chunk[i], memory_order_relaxed),
			   CHUNK_BYTES, 64);
}

int vmem_store_add_vm(vmem_store *store, const struct vmem_store_vm_opts *opts, uint32_t *ret_vm)
{
	struct vmem_store_vm_opts o;
	struct vmemi_vm *vm;
	uint32_t number;
	uint64_t cap;
	int rc = vmemi_opts_take(&o, sizeof(o), opts);

	if (!rc && o.flags)
		rc = -VMEM_EINVAL;
	if (!rc)
		rc = cap_bytes(o.vm_bytes, o.cap_percent, &cap);
	if (!rc)
		rc = vmem_pool_stream_new(store->pool, &number);
	if (rc)
		return rc;
	rc = block_of(store, number, &vm);
	if (rc) {
		vmem_pool_stream_drop(store->pool, number);
		return rc;
	}
	vm->number = number;
	vm->bytes = o.vm_bytes;
	atomic_store_explicit(&vm->cap_bytes, cap, memory_order_relaxed);
	*ret_vm = number;
	atomic_store_explicit(&vm->live, 1, memory_order_release);
	return 0;
}

int vmem_store_set_cap(vmem_store *store, uint32_t vm_number, uint32_t cap_percent)
{
	struct vmemi_vm *vm = vmemi_store_vm(store, vm_number);
	uint64_t cap;
	int rc;

	if (!vm)
		return -VMEM_ENOENT;
	rc = cap_bytes(vm->bytes, cap_percent, &cap);
	if (!rc)
		atomic_store_explicit(&vm->cap_bytes, cap, memory_order_relaxed);
	return rc;
}

/* Takes the VM out of the table and the sums; its counters go to those of the dropped. */
static int retire(vmem_store *store, struct vmemi_vm *vm)
{
	int rc = -VMEM_ENOENT;

	vmemi_lock(&store->vm_lock);
	if (atomic_load_explicit(&vm->live, memory_order_relaxed)) {
		atomic_store_explicit(&vm->live, 0, memory_order_relaxed);
		add_counters(&store->gone, vm);
		rc = 0;
	}
	vmemi_unlock(&store->vm_lock);
	return rc;
}

static void clear_counters(struct vmemi_vm *vm)
{
	for (int c = 0; c < VMEMI_PAGE_CLASSES; c++)
		atomic_store_explicit(&vm->pages[c], 0, memory_order_relaxed);
	atomic_store_explicit(&vm->saves, 0, memory_order_relaxed);
	atomic_store_explicit(&vm->loads, 0, memory_order_relaxed);
	atomic_store_explicit(&vm->rejects, 0, memory_order_relaxed);
}

int vmem_store_drop_vm(vmem_store *store, uint32_t vm_number)
{
	struct vmemi_vm *vm = vmemi_store_vm(store, vm_number);

	if (!vm)
		return -VMEM_ENOENT;
	/* A load in progress would read a handle that may be another VM's by then. */
	if (vmemi_inflight_busy(&store->inflight, vm_number, 0))
		return -VMEM_EBUSY;
	if (retire(store, vm))
		return -VMEM_ENOENT;
	vmemi_inflight_forget(&store->inflight, vm_number);
	clear_counters(vm);
	/* Last: with it the number, and so the block, may be another VM's. */
	return vmem_pool_stream_drop(store->pool, vm_number);
}

int vmem_store_vm_account(vmem_store *store, uint32_t vm_number, struct vmem_store_account *account)
{
	struct vmem_store_account a = { .size = sizeof(a) };
	struct vmemi_vm *vm = vmemi_store_vm(store, vm_number);
	struct vmem_pool_stats stats;

	if (!vm)
		return -VMEM_ENOENT;
	add_counters(&a, vm);
	add_pages(&a, vm);
	stats = vmemi_vm_in_pool(store, vm);
	a.physical_bytes = stats.live_bytes;
	a.corrupt = stats.corrupt;
	return vmemi_opts_give(account, &a, sizeof(a));
}

int vmem_store_total_account(vmem_store *store, struct vmem_store_account *account)
{
	struct vmem_pool_stats stats = { .size = sizeof(stats) };
	struct vmem_store_account a;
	int rc = vmem_pool_get_stats(store->pool, &stats);

	if (rc)
		return rc;
	vmemi_lock(&store->vm_lock);
	a = store->gone;
	a.metadata_bytes = sizeof(*store);
	for (uint32_t i = 0; i < store->vm_high; i++) {
		struct vmemi_vm *vm = vmemi_store_vm(store, i);

		if (i % VMEMI_VM_CHUNK == 0 &&
		    atomic_load_explicit(&store->chunk[i / VMEMI_VM_CHUNK], memory_order_relaxed))
			a.metadata_bytes += CHUNK_BYTES;
		if (!vm)
			continue;
		add_counters(&a, vm);
		add_pages(&a, vm);
	}
	vmemi_unlock(&store->vm_lock);
	a.physical_bytes = stats.live_bytes;
	a.corrupt = stats.corrupt;
	a.metadata_bytes += stats.metadata_bytes + stats.index_bytes;
	a.segment_bytes = stats.segment_bytes;
	return vmemi_opts_give(account, &a, sizeof(a));
}
