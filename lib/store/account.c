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
#include "pool/pool_of.h"

#define CHUNK_BYTES (VMEMI_VM_CHUNK * sizeof(struct vmemi_vm))
#define DEFAULT_CAP_PERCENT 10u

/* 0, -VMEM_EINVAL. */
static int cap_bytes(uint64_t vm_bytes, uint32_t percent, uint64_t *ret_bytes)
{
	if (percent == VMEM_STORE_NO_CAP)
		*ret_bytes = UINT64_MAX;
	else if (percent > 100 || (percent && !vm_bytes))
		return -VMEM_EINVAL;
	else
		*ret_bytes = vm_bytes / 100 * percent + vm_bytes % 100 * percent / 100;
	return 0;
}

/* As cap_bytes(). */
static int first_cap(const struct vmem_store_vm_opts *o, uint64_t *ret_bytes)
{
	uint32_t usual = o->vm_bytes ? DEFAULT_CAP_PERCENT : VMEM_STORE_NO_CAP;

	return cap_bytes(o->vm_bytes, o->cap_percent ? o->cap_percent : usual, ret_bytes);
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
	sum->corrupt += vmemi_counter(&vm->corrupt);
	sum->cpu_save_ns += vmemi_counter(&vm->saving.ns);
	sum->cpu_load_ns += vmemi_counter(&vm->loading.ns);
}

/* @whole * @part / @of, without more than 64 bits; @part and @of are numbers of pages. */
static uint64_t scaled(uint64_t whole, uint64_t part, uint64_t of)
{
	return of ? whole / of * part + whole % of * part / of : 0;
}

/* What the pages after the first @before of a domain, @count of them, have of @whole: parts of all pages
 * add up to it. */
static uint64_t part_of(uint64_t whole, uint64_t before, uint64_t count, uint64_t pages)
{
	return scaled(whole, before + count, pages) - scaled(whole, before, pages);
}

static uint64_t live_bytes(const struct vmemi_domain *d)
{
	struct vmem_pool_stats stats = { .size = sizeof(stats) };

	vmem_pool_stream_get_stats(d->store->pool, d->stream, &stats);
	return stats.live_bytes;
}

/* Adds what is stored now. @before: pages in the pool of VMs of the same group that come before it. Returns
 * those of this VM. All is read while it changes; the sums of one account are right all the same. */
static uint64_t add_pages(struct vmem_store_account *sum, const struct vmemi_vm *vm,
			  uint64_t before)
{
	const struct vmemi_domain *d = vm->domain;
	uint64_t same = vmemi_counter(&vm->same), in_pool = vmemi_counter(&vm->in_pool);
	uint64_t pages = vmemi_counter(&d->pages), objects = 0, left = in_pool, of;
	uint64_t form[VMEMI_FORMS];

	for (int f = 0; f < VMEMI_FORMS; f++)
		objects += form[f] = vmemi_counter(&d->objects[f]);
	if (pages < before + in_pool)
		pages = before + in_pool;
	of = objects > pages ? objects : pages; /* objects that only deltas use are nobody's page */
	for (int f = 0; f < VMEMI_FORMS; f++) {
		form[f] = part_of(form[f], before, in_pool, of);
		form[f] = form[f] < left ? form[f] : left;
		left -= form[f];
	}
	sum->pages_equal += left;
	sum->pages_same += same + form[VMEMI_FORM_FILL];
	sum->pages_raw += form[VMEMI_FORM_RAW];
	sum->pages_lz4 += form[VMEMI_FORM_LZ4];
	sum->pages_zstd += form[VMEMI_FORM_ZSTD];
	sum->pages_delta += form[VMEMI_FORM_DELTA];
	sum->pages_compressed += form[VMEMI_FORM_LZ4] + form[VMEMI_FORM_ZSTD] +
				 form[VMEMI_FORM_DELTA] + form[VMEMI_FORM_OTHER];
	sum->pages += same + in_pool;
	sum->logical_bytes += (same + in_pool) * VMEM_PAGE_SIZE;
	/* A VM alone has all of its domain, with what is damaged and nobody's page any more. */
	sum->physical_bytes +=
		d->is_group ? part_of(live_bytes(d), before, in_pool, pages) : live_bytes(d);
	sum->cpu_work_ns += d->is_group
				    ? part_of(vmemi_counter(&d->work_ns), before, in_pool, pages)
				    : vmemi_counter(&d->work_ns);
	return in_pool;
}

uint64_t vmemi_vm_physical_bytes(const struct vmemi_vm *vm)
{
	const struct vmemi_domain *d = vm->domain;
	uint64_t bytes = live_bytes(d);

	return d->is_group ? scaled(bytes, vmemi_counter(&vm->in_pool), vmemi_counter(&d->pages))
			   : bytes;
}

/* --- Domains --- */

static uint64_t vm_metadata(struct vmemi_vm *vm)
{
	return (vm->domain->dedup ? vmemi_holds_bytes(&vm->holds) : 0) +
	       (vm->domain->is_group ? 0 : vmemi_domain_bytes(vm->domain));
}

/* The group of that name, perhaps a new one, with one VM more. 0, or as vmemi_domain_new(). */
static int join(vmem_store *store, uint64_t group, struct vmemi_domain **ret_domain)
{
	struct vmemi_domain *d;
	int rc = 0;

	vmemi_lock(&store->vm_lock);
	for (d = store->groups; d && d->group != group; d = d->next)
		;
	if (!d) {
		rc = vmemi_domain_new(&d, store, &group, 0, true);
		if (!rc) {
			d->next = store->groups;
			store->groups = d;
		}
	}
	if (!rc) {
		d->vms++;
		*ret_domain = d;
	}
	vmemi_unlock(&store->vm_lock);
	return rc;
}

/* One of them stands for the group. VMs locked. */
static void loosen_group(vmem_store *store, const struct vmemi_domain *d)
{
	for (uint32_t i = 0; i < store->vm_high; i++) {
		struct vmemi_vm *vm = vmemi_store_vm(store, i);

		if (vm && vm->domain == d) {
			vmemi_store_loosen(store, vm);
			return;
		}
	}
}

/* Frees the group with its last VM. */
static void leave(vmem_store *store, struct vmemi_domain *d)
{
	struct vmemi_domain **at = &store->groups;
	bool last;

	vmemi_lock(&store->vm_lock);
	last = !--d->vms;
	while (last && *at != d)
		at = &(*at)->next;
	if (last)
		*at = d->next;
	else
		loosen_group(store, d);
	vmemi_unlock(&store->vm_lock);
	if (!last)
		return;
	/* Background work does not find it any more: once it has let go, it is in no object of it. */
	vmemi_lock(&store->cold.lock);
	vmemi_unlock(&store->cold.lock);
	vmemi_domain_free(d);
}

/* Gives a VM, whose number is that of a stream, its domain. */
static int enter_domain(vmem_store *store, struct vmemi_vm *vm, const struct vmem_store_vm_opts *o)
{
	int rc;

	if (o->sharing == VMEM_STORE_SHARE_NONE)
		return vmemi_domain_new(&vm->domain, store, NULL, vm->number, false);
	rc = vmemi_holds_init(&vm->holds, &store->allocator, &store->env);
	if (rc)
		return rc;
	if (o->sharing == VMEM_STORE_SHARE_GROUP)
		rc = join(store, o->group, &vm->domain);
	else
		rc = vmemi_domain_new(&vm->domain, store, NULL, vm->number, true);
	if (rc)
		vmemi_holds_destroy(&vm->holds);
	return rc;
}

/* Drops all that a VM uses of its group. */
static void drop_uses(struct vmemi_vm *vm, uint32_t end)
{
	uint32_t handle = 0;

	while ((handle = vmemi_holds_next(&vm->holds, handle, end)) != 0)
		while (!vmemi_holds_drop(&vm->holds, handle))
			(void)vmemi_domain_drop(vm->domain, handle);
}

/* With all its pages, and its number, which may be another VM's from then on. */
static void leave_domain(vmem_store *store, struct vmemi_vm *vm)
{
	struct vmemi_domain *d = vm->domain;
	uint32_t number = vm->number;

	/* Beside background work, as other drops: the group is there for as long as the VM is in it. */
	if (d->is_group)
		drop_uses(vm, vmemi_pool_handles_end(store->pool));
	vmemi_lock(&store->cold.lock); /* background work is in no object of it then */
	vmemi_holds_destroy(&vm->holds);
	vm->domain = NULL;
	vmemi_unlock(&store->cold.lock);
	if (!d->is_group) {
		vmemi_domain_free(d);
		return;
	}
	leave(store, d);
	vmem_pool_stream_drop(store->pool, number);
}

/* With all domains; the streams go with the pool. */
void vmemi_store_vms_free(vmem_store *store)
{
	for (uint32_t i = 0; i < store->vm_high; i++) {
		struct vmemi_vm *vm = vmemi_store_vm(store, i);

		if (!vm)
			continue;
		vmemi_holds_destroy(&vm->holds);
		if (!vm->domain->is_group)
			vmemi_domain_free(vm->domain);
	}
	while (store->groups) {
		struct vmemi_domain *d = store->groups;

		store->groups = d->next;
		vmemi_domain_free(d);
	}
	for (uint32_t i = 0; i < VMEMI_VM_CHUNKS; i++)
		vmemi_free(&store->allocator,
			   atomic_load_explicit(&store->chunk[i], memory_order_relaxed),
			   CHUNK_BYTES, 64);
}

/* 0, -VMEM_EINVAL. */
static int check_opts(const struct vmem_store_vm_opts *o)
{
	if (o->flags || o->reserved || o->sharing > VMEM_STORE_SHARE_GROUP ||
	    (o->group && o->sharing != VMEM_STORE_SHARE_GROUP))
		return -VMEM_EINVAL;
	return 0;
}

int vmem_store_add_vm(vmem_store *store, const struct vmem_store_vm_opts *opts, uint32_t *ret_vm)
{
	struct vmem_store_vm_opts o;
	struct vmemi_vm *vm;
	uint32_t number;
	uint64_t cap;
	int rc = vmemi_opts_take(&o, sizeof(o), opts);

	if (!rc)
		rc = check_opts(&o);
	if (!rc)
		rc = first_cap(&o, &cap);
	if (!rc)
		rc = vmem_pool_stream_new(store->pool, &number);
	if (rc)
		return rc;
	rc = block_of(store, number, &vm);
	if (!rc) {
		vm->number = number;
		vm->bytes = o.vm_bytes;
		rc = enter_domain(store, vm, &o);
	}
	if (rc) {
		vmem_pool_stream_drop(store->pool, number);
		return rc;
	}
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
	_Atomic uint64_t *const counters[] = { &vm->same,      &vm->in_pool,   &vm->saves,
					       &vm->loads,     &vm->rejects,   &vm->corrupt,
					       &vm->saving.ns, &vm->loading.ns };

	for (size_t i = 0; i < sizeof(counters) / sizeof(*counters); i++)
		atomic_store_explicit(counters[i], 0, memory_order_relaxed);
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
	leave_domain(store, vm);
	return 0;
}

/* --- Accounts --- */

/* Pages in the pool of the VMs of a domain that have smaller numbers. VMs locked. */
static uint64_t pages_before(vmem_store *store, const struct vmemi_vm *vm)
{
	uint64_t pages = 0;

	for (uint32_t i = 0; vm->domain->is_group && i < vm->number; i++) {
		const struct vmemi_vm *other = vmemi_store_vm(store, i);

		if (other && other->domain == vm->domain)
			pages += vmemi_counter(&other->in_pool);
	}
	return pages;
}

int vmem_store_vm_account(vmem_store *store, uint32_t vm_number, struct vmem_store_account *account)
{
	struct vmem_store_account a = { .size = sizeof(a) };
	struct vmemi_vm *vm = vmemi_store_vm(store, vm_number);

	if (!vm)
		return -VMEM_ENOENT;
	vmemi_lock(&store->vm_lock);
	add_counters(&a, vm);
	(void)add_pages(&a, vm, pages_before(store, vm));
	vmemi_unlock(&store->vm_lock);
	return vmemi_opts_give(account, &a, sizeof(a));
}

/* Adds what belongs to no VM alone. VMs locked. */
static void add_own(vmem_store *store, struct vmem_store_account *a)
{
	a->metadata_bytes += sizeof(*store) + store->cold.bytes + vmemi_out_bytes(store);
	for (uint32_t i = 0; i < VMEMI_VM_CHUNKS; i++)
		if (atomic_load_explicit(&store->chunk[i], memory_order_relaxed))
			a->metadata_bytes += CHUNK_BYTES;
	for (struct vmemi_domain *d = store->groups; d; d = d->next)
		a->metadata_bytes += vmemi_domain_bytes(d);
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
	add_own(store, &a);
	for (struct vmemi_domain *d = store->groups; d; d = d->next)
		d->summed = 0;
	for (uint32_t i = 0; i < store->vm_high; i++) {
		struct vmemi_vm *vm = vmemi_store_vm(store, i);

		if (!vm)
			continue;
		a.metadata_bytes += vm_metadata(vm);
		add_counters(&a, vm);
		if (vm->domain->is_group)
			vm->domain->summed += add_pages(&a, vm, vm->domain->summed);
		else
			(void)add_pages(&a, vm, 0);
	}
	vmemi_unlock(&store->vm_lock);
	a.physical_bytes = stats.live_bytes;
	a.cpu_work_ns = vmemi_counter(&store->work_ns);
	a.metadata_bytes += stats.metadata_bytes + stats.index_bytes;
	a.segment_bytes = stats.segment_bytes;
	return vmemi_opts_give(account, &a, sizeof(a));
}
