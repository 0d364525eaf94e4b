/* SPDX-License-Identifier: BSD-2-Clause */
/* The page store: one repeated 32-bit value lives in the reference, anything else in the pool.
 *
 * Saves, loads and drops take no lock here: they find their VM in a table that never moves
 * (account.c), count in its atomics, and leave the rest to the pool. Loads that take time are in
 * inflight.c; all calls here are for any thread unless the header says otherwise. */
#include "store/out_window.h"
#include "store/store_internal.h"
#include "base/opts.h"
#include "pool/pool_object.h"
#include "pool/pool_of.h"

/* Background work is cut into pieces of about 50 us. The clock is the caller's, so a piece is counted
 * in bytes: compaction moves 1.2 to 1.5 GB/s of them, a third of that where all objects are tiny. */
#define PIECE_NS 50000u
#define PIECE_BYTES 65536u
#define TIDY_NS (4 * PIECE_NS) /* with less time than this, it is for compaction */

#define LOOSE_PAGES 1024u /* a VM that has dropped so many may have memory to give back */

#define DEFAULT_LEVEL 2 /* of zstd: see docs/performance.md */

/* LZ4 when a page arrives, the others for pages that have stayed. */
static void use_default_codecs(struct vmem_pool_opts *p, const struct vmem_codec *table[3])
{
	(void)p;
	(void)table;
#ifndef VMEMI_CORE
	table[0] = vmem_codec_lz4();
	table[1] = vmem_codec_zstd(DEFAULT_LEVEL);
	table[2] = vmem_codec_delta(DEFAULT_LEVEL);
	p->codecs = table;
	p->codec_count = 3;
#endif
}

static int new_pool(vmem_store *store, const struct vmem_store_opts *o)
{
	const struct vmem_codec *table[3];
	struct vmem_pool_opts p = {
		.size = sizeof(p),
		.allocator = &store->allocator,
		.segments = o->segments,
		.env = &store->pool_env,
		.budget_bytes = o->budget_bytes,
		.codecs = o->codecs,
		.codec_count = o->codec_count,
		.parallel = o->parallel,
		.cpu = o->cpu,
	};

	if (!o->codecs && !o->codec_count)
		use_default_codecs(&p, table);
	return vmem_pool_new(&store->pool, &p);
}

int vmem_store_new(vmem_store **ret_store, const struct vmem_store_opts *opts)
{
	struct vmem_allocator allocator, segments;
	struct vmem_store_opts o;
	struct vmem_env env;
	vmem_store *store;
	int rc = vmemi_opts_take(&o, sizeof(o), opts);

	if (!rc &&
	    (o.flags & ~VMEM_STORE_AS_SAVED || o.reserved || o.max_object_bytes > VMEM_PAGE_SIZE))
		rc = -VMEM_EINVAL;
	if (!rc)
		rc = vmemi_alloc_take(&allocator, o.allocator);
	if (!rc)
		rc = vmemi_alloc_take(&segments, o.segments ? o.segments : &allocator);
	if (!rc)
		rc = vmemi_env_take(&env, o.env);
	if (rc)
		return rc;
	store = vmemi_zalloc(&allocator, sizeof(*store), 64);
	if (!store)
		return -VMEM_ENOMEM;
	store->allocator = allocator;
	store->segments = segments;
	store->env = env;
	vmemi_store_pool_env(store);
	vmemi_cpu_init(&store->clock, &store->env);
	store->cpu = o.cpu;
	store->seed = o.seed;
	store->max_object_bytes = o.max_object_bytes ? o.max_object_bytes : VMEM_PAGE_SIZE;
	store->gone.size = sizeof(store->gone);
	rc = vmemi_inflight_init(&store->inflight, &store->env);
	if (!rc)
		rc = vmemi_lock_init(&store->vm_lock, &store->env);
	if (!rc)
		rc = new_pool(store, &o);
	if (!rc)
		rc = vmemi_cold_init(store, &o);
	if (rc) {
		vmem_store_free(store);
		return rc;
	}
	*ret_store = store;
	return 0;
}

void vmem_store_free(vmem_store *store)
{
	if (!store)
		return;
	vmemi_out_free(store);
	vmemi_store_vms_free(store);
	vmem_pool_free(store->pool);
	vmemi_cold_destroy(store);
	vmemi_lock_destroy(&store->vm_lock);
	vmemi_inflight_destroy(&store->inflight);
	vmemi_free(&store->allocator, store, sizeof(*store), 64);
}

static int is_page(const void *page)
{
	return page && (uintptr_t)page % sizeof(uint64_t) == 0;
}

/* @same: in its reference, else in the pool. */
static void count_save(struct vmemi_vm *vm, bool same)
{
	vmemi_count(same ? &vm->same : &vm->in_pool, 1);
	vmemi_count(&vm->saves, 1);
}

static bool is_over_cap(struct vmemi_vm *vm)
{
	uint64_t cap = vmemi_counter(&vm->cap_bytes);

	return cap != UINT64_MAX && vmemi_vm_physical_bytes(vm) >= cap;
}

/* A page on its way in. Whose it is, is kept for who reads it from a device. */
static struct vmemi_page_save page_save(struct vmemi_vm *vm, uint32_t codec, uint64_t key,
					const void *page)
{
	vmem_store *store = vm->domain->store;
	uint32_t extra = vm->domain->is_group ? VMEMI_EXTRA_KEY_VM : VMEMI_EXTRA_KEY;

	return (struct vmemi_page_save){
		.page = page,
		.checksum = vmemi_pool_checksum(store->pool, page),
		.max_bytes = store->max_object_bytes,
		.codec = codec,
		.origin = { .key = key,
			    .vm = vm->number,
			    .extra = store->out ? extra : VMEMI_EXTRA_NONE },
	};
}

/* An object for the page, with one use more. 0, or as vmem_pool_save_page(). */
static int object_for(struct vmemi_vm *vm, struct vmemi_page_save *page, uint32_t *ret_handle)
{
	struct vmemi_domain *d = vm->domain;
	int rc = 0;

	if (!vmemi_domain_find(d, page->checksum, page->page, ret_handle))
		rc = is_over_cap(vm) ? -VMEM_ENOSPC : vmemi_domain_add(d, page, ret_handle);
	if (rc || !d->dedup)
		return rc;
	rc = vmemi_holds_add(&vm->holds, *ret_handle);
	if (rc)
		(void)vmemi_domain_drop(d, *ret_handle);
	return rc;
}

static int save_in_pool(vmem_store *store, struct vmemi_vm *vm, uint32_t codec,
			const struct vmem_store_item *item, vmem_store_ref *ret_ref)
{
	uint64_t begun = vmemi_cpu_begin(&vm->saving, &store->clock);
	struct vmemi_page_save page = page_save(vm, codec, item->key, item->page);
	uint32_t handle;
	int rc;

	vmemi_cold_interrupt(&store->cold);
	rc = object_for(vm, &page, &handle);
	if (rc == -VMEM_ENOSPC && !is_over_cap(vm) && vmemi_out_relieve(store)) {
		page = page_save(vm, codec, item->key, item->page);
		rc = object_for(vm, &page, &handle);
	}
	if (!rc && page.transit)
		vmemi_out_push(store);
	vmemi_cpu_end(&vm->saving, &store->clock, begun);
	if (rc) {
		vmemi_count(&vm->rejects, 1);
		return rc;
	}
	count_save(vm, false);
	*ret_ref = vmemi_ref_make(VMEMI_REF_POOL, vm->number, handle);
	return 0;
}

static int save_page(vmem_store *store, struct vmemi_vm *vm, const struct vmem_store_item *item,
		     vmem_store_ref *ret_ref)
{
	uint64_t word;

	if (!is_page(item->page))
		return -VMEM_EINVAL;
	if (!vmem_page_same_filled(item->page, &word))
		return save_in_pool(store, vm, 0, item, ret_ref);
	if (word >> 32 != (uint32_t)word)
		return save_in_pool(store, vm, VMEM_CODEC_FILL, item, ret_ref);
	count_save(vm, true);
	*ret_ref = vmemi_ref_make(VMEMI_REF_SAME, vm->number, word);
	return 0;
}

static void count_load(struct vmemi_vm *vm, const struct vmemi_load *load, int result)
{
	if (result == -VMEM_EBADMSG)
		vmemi_count(&vm->corrupt, 1);
	if (!result && !load->peek)
		vmemi_count(&vm->loads, 1);
}

static int begin_load(vmem_store *store, const struct vmemi_store_tier *tier,
		      const struct vmemi_load *load, vmem_store_token *ret_token)
{
	vmem_store_token token;
	int rc;

	if (!ret_token)
		return -VMEM_EAGAIN;
	rc = vmemi_inflight_begin(&store->inflight, load, &token);
	if (rc)
		return rc;
	/* First: whoever polls may know of the token's end before begin() returns. */
	*ret_token = token;
	tier->begin(tier->context, token);
	return -VMEM_EINPROGRESS;
}

/* Puts the page in place. As vmemi_pool_load_of(). */
static int read_page(vmem_store *store, struct vmemi_vm *vm, const struct vmemi_load *load)
{
	uint64_t begun = vmemi_cpu_begin(&vm->loading, &store->clock);
	int rc = -VMEM_ENOENT;

	if (vmemi_vm_owns(vm, vmemi_ref_payload(load->ref)))
		rc = vmemi_pool_load_of(store->pool, vm->domain->stream,
					vmemi_ref_payload(load->ref), load->page);
	vmemi_cpu_end(&vm->loading, &store->clock, begun);
	return rc;
}

static int load_from_pool(vmem_store *store, struct vmemi_vm *vm, const struct vmemi_load *load,
			  vmem_store_token *ret_token)
{
	const struct vmemi_store_tier *tier =
		atomic_load_explicit(&store->tier, memory_order_acquire);
	int rc;

	if (tier && tier->slow(tier->context, load->key, load->ref))
		return begin_load(store, tier, load, ret_token);
	vmemi_cold_interrupt(&store->cold);
	rc = read_page(store, vm, load);
	if (rc == -VMEM_EAGAIN)
		rc = vmemi_out_load(store, load, ret_token);
	count_load(vm, load, rc);
	return rc;
}

static int load_page(vmem_store *store, struct vmemi_vm *vm, const struct vmemi_load *load,
		     vmem_store_token *ret_token)
{
	uint32_t value = vmemi_ref_payload(load->ref);

	if (!is_page(load->page))
		return -VMEM_EINVAL;
	if (vmemi_ref_vm(load->ref) != vm->number)
		return -VMEM_ENOENT;
	switch (vmemi_ref_tier(load->ref)) {
	case VMEMI_REF_SAME:
		vmem_page_fill(load->page, (uint64_t)value << 32 | value);
		count_load(vm, load, 0);
		return 0;
	case VMEMI_REF_POOL: return load_from_pool(store, vm, load, ret_token);
	default: return -VMEM_ENOENT;
	}
}

/* What it needed in tables may be given back: not worth a look for each page. */
static void count_drop(vmem_store *store, struct vmemi_vm *vm)
{
	uint64_t before = atomic_fetch_sub_explicit(&vm->in_pool, 1, memory_order_relaxed);

	if (before % LOOSE_PAGES == 1)
		vmemi_store_loosen(store, vm);
}

static int drop_from_pool(vmem_store *store, struct vmemi_vm *vm, vmem_store_ref ref)
{
	uint32_t handle = vmemi_ref_payload(ref);
	bool loading = vmemi_inflight_busy(&store->inflight, vm->number, ref);
	int rc = loading ? -VMEM_EBUSY : 0;

	/* A load keeps one page of the ref: with the last one, the handle may be another page's. */
	if (vm->domain->dedup)
		rc = loading ? vmemi_holds_drop_spare(&vm->holds, handle)
			     : vmemi_holds_drop(&vm->holds, handle);
	if (!rc)
		rc = vmemi_domain_drop(vm->domain, handle);
	if (!rc)
		count_drop(store, vm);
	return rc;
}

/* All pages of one content have one ref: what there is of them is only counted. */
static int drop_same(struct vmemi_vm *vm)
{
	uint64_t pages = vmemi_counter(&vm->same);

	do {
		if (!pages)
			return -VMEM_ENOENT;
	} while (!atomic_compare_exchange_weak_explicit(
		&vm->same, &pages, pages - 1, memory_order_relaxed, memory_order_relaxed));
	return 0;
}

static int drop_page(vmem_store *store, struct vmemi_vm *vm, vmem_store_ref ref)
{
	if (vmemi_ref_vm(ref) != vm->number)
		return -VMEM_ENOENT;
	switch (vmemi_ref_tier(ref)) {
	case VMEMI_REF_SAME: return drop_same(vm);
	case VMEMI_REF_POOL: return drop_from_pool(store, vm, ref);
	default: return -VMEM_ENOENT;
	}
}

int vmem_store_save(vmem_store *store, uint32_t vm_number, uint64_t key, const void *page,
		    vmem_store_ref *ret_ref)
{
	struct vmemi_vm *vm = vmemi_store_vm(store, vm_number);
	/* It is only read; items have one kind of pointer. */
	const struct vmem_store_item item = { .key = key, .page = (void *)(uintptr_t)page };

	return vm ? save_page(store, vm, &item, ret_ref) : -VMEM_ENOENT;
}

int vmem_store_load(vmem_store *store, uint32_t vm_number, uint64_t key, vmem_store_ref ref,
		    void *page, vmem_store_token *ret_token)
{
	struct vmemi_vm *vm = vmemi_store_vm(store, vm_number);
	struct vmemi_load l = { .key = key, .ref = ref, .page = page, .vm = vm_number };

	return vm ? load_page(store, vm, &l, ret_token) : -VMEM_ENOENT;
}

int vmem_store_peek(vmem_store *store, uint32_t vm_number, uint64_t key, vmem_store_ref ref,
		    void *page, vmem_store_token *ret_token)
{
	struct vmemi_vm *vm = vmemi_store_vm(store, vm_number);
	struct vmemi_load l = { .key = key, .ref = ref, .page = page, .vm = vm_number, .peek = 1 };

	return vm ? load_page(store, vm, &l, ret_token) : -VMEM_ENOENT;
}

int vmem_store_drop(vmem_store *store, uint32_t vm_number, vmem_store_ref ref)
{
	struct vmemi_vm *vm = vmemi_store_vm(store, vm_number);

	return vm ? drop_page(store, vm, ref) : -VMEM_ENOENT;
}

uint64_t vmemi_store_ref_bytes(vmem_store *store, vmem_store_ref ref)
{
	uint32_t checksum;

	if (vmemi_ref_tier(ref) != VMEMI_REF_POOL ||
	    (store->out &&
	     !vmemi_out_checksum(store->pool, VMEMI_ANY_STREAM, vmemi_ref_payload(ref), &checksum)))
		return 0;
	return vmemi_pool_object_size(store->pool, vmemi_ref_payload(ref));
}

/* Whether a single call can do it: 0, -VMEM_ENOENT (vm), -VMEM_EINVAL. */
static int check_item(const struct vmemi_vm *vm, const struct vmem_store_item *item)
{
	if (!vm)
		return -VMEM_ENOENT;
	return item->flags || item->reserved[0] || item->reserved[1] ? -VMEM_EINVAL : 0;
}

uint32_t vmem_store_save_batch(vmem_store *store, uint32_t vm_number, struct vmem_store_item *items,
			       uint32_t count)
{
	struct vmemi_vm *vm = vmemi_store_vm(store, vm_number);
	uint32_t done = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct vmem_store_item *item = &items[i];

		item->result = check_item(vm, item);
		if (!item->result)
			item->result = save_page(store, vm, item, &item->ref);
		done += !item->result;
	}
	return done;
}

static uint32_t load_items(vmem_store *store, uint32_t vm_number, struct vmem_store_item *items,
			   uint32_t count, uint32_t peek)
{
	struct vmemi_vm *vm = vmemi_store_vm(store, vm_number);
	uint32_t done = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct vmem_store_item *item = &items[i];
		struct vmemi_load l = {
			.key = item->key,
			.ref = item->ref,
			.page = item->page,
			.vm = vm_number,
			.peek = peek,
		};

		item->result = check_item(vm, item);
		if (!item->result)
			item->result = load_page(store, vm, &l, &item->token);
		done += !item->result;
	}
	return done;
}

uint32_t vmem_store_load_batch(vmem_store *store, uint32_t vm, struct vmem_store_item *items,
			       uint32_t count)
{
	return load_items(store, vm, items, count, 0);
}

uint32_t vmem_store_peek_batch(vmem_store *store, uint32_t vm, struct vmem_store_item *items,
			       uint32_t count)
{
	return load_items(store, vm, items, count, 1);
}

uint32_t vmem_store_drop_batch(vmem_store *store, uint32_t vm_number, struct vmem_store_item *items,
			       uint32_t count)
{
	struct vmemi_vm *vm = vmemi_store_vm(store, vm_number);
	uint32_t done = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct vmem_store_item *item = &items[i];

		item->result = check_item(vm, item);
		if (!item->result)
			item->result = drop_page(store, vm, item->ref);
		done += !item->result;
	}
	return done;
}

uint32_t vmem_store_poll(vmem_store *store, struct vmem_store_event *events, uint32_t capacity)
{
	const struct vmemi_store_tier *tier =
		atomic_load_explicit(&store->tier, memory_order_acquire);

	if (tier && tier->poll)
		tier->poll(tier->context);
	vmemi_out_poll(store);
	if (store->out)
		(void)vmemi_out_settle(store);
	return vmemi_inflight_take(&store->inflight, events, capacity);
}

/* Recompression goes before compaction as long as that is not urgent: it empties segments by itself, and
 * what compaction has just moved lies in an open segment, where it stays as it is for another pass. */
int vmem_store_work(vmem_store *store, uint64_t budget_ns, uint64_t now_ns)
{
	uint64_t begun = vmemi_store_cpu_ns(store), pieces = budget_ns / PIECE_NS;
	enum vmemi_cold_result cold = VMEMI_COLD_MORE;
	bool more, loose, out = false;

	if (store->out) {
		vmemi_out_poll(store);
		out = vmemi_out_write(store, now_ns);
		vmem_slots_work(store->out->slots);
	}
	vmemi_pool_maintain(store->pool);
	do {
		bool tidy = budget_ns < TIDY_NS || vmemi_pool_is_untidy(store->pool);

		more = loose = false;
		if (!tidy)
			cold = vmemi_cold_work(store, now_ns);
		if (tidy || cold == VMEMI_COLD_DONE)
			more = vmem_pool_work(store->pool, PIECE_BYTES);
		if (tidy && !more)
			cold = vmemi_cold_work(store, now_ns);
		if (!more && cold == VMEMI_COLD_DONE)
			loose = vmemi_store_shrink(store);
	} while ((more || loose || cold == VMEMI_COLD_MORE) && pieces-- > 1);
	atomic_fetch_add_explicit(&store->work_ns, vmemi_store_cpu_ns(store) - begun,
				  memory_order_relaxed);
	return more || loose || out || cold != VMEMI_COLD_DONE;
}

void vmem_store_set_budget(vmem_store *store, uint64_t budget_bytes)
{
	vmem_pool_set_budget(store->pool, budget_bytes);
}

int vmemi_store_finish_load(vmem_store *store, vmem_store_token token, int result)
{
	struct vmemi_load load;
	int rc = vmemi_inflight_claim(&store->inflight, token, &load);
	struct vmemi_vm *vm;

	if (rc)
		return rc;
	/* The VM is there: it is not dropped while a load is in progress. */
	vm = vmemi_store_vm(store, load.vm);
	if (!result)
		result = read_page(store, vm, &load);
	else if (result == -VMEM_EBADMSG)
		vmemi_pool_corrupt_of(store->pool, vm->domain->stream, vmemi_ref_payload(load.ref));
	count_load(vm, &load, result);
	vmemi_inflight_end(&store->inflight, token, result, NULL);
	return 0;
}

void vmemi_store_load_over(vmem_store *store, vmem_store_token token, int result,
			   const struct vmemi_offers *offers)
{
	struct vmemi_load load;

	if (vmemi_inflight_claim(&store->inflight, token, &load))
		return;
	count_load(vmemi_store_vm(store, load.vm), &load, result);
	vmemi_inflight_end(&store->inflight, token, result, offers);
}

int vmemi_store_post(vmem_store *store, const struct vmem_store_event *event)
{
	const struct vmemi_vm *vm = vmemi_store_vm(store, event->vm);

	return vm ? vmemi_inflight_post(&store->inflight, event, &vm->live) : -VMEM_ENOENT;
}

void vmemi_store_set_tier(vmem_store *store, const struct vmemi_store_tier *tier)
{
	atomic_store_explicit(&store->tier, tier, memory_order_release);
}
