/* SPDX-License-Identifier: BSD-2-Clause */
/* Two stores. In the first each VM is a domain of its own: its pages are read once, saved, and encoded anew
 * as if they had stayed cold. With more than one VM they then move, page by page, into the second, where
 * all are one group: what that takes less is what sharing across VMs would save. So the pages are kept
 * once, compressed; besides them a reference of 8 bytes each. */
#include "estimate_scan.h"

#include <stdlib.h>
#include <string.h>

#include <vmem/codec.h>
#include <vmem/store.h>

#include "common/split_random.h"
#include "estimate_probe.h"
#include "estimate_progress.h"

#define READ_PAGES 64u
#define COLD_AFTER_MS 1000u
#define WORK_NS 1000000u
#define GROUP 1u
#define FRESH_PAGES 8192u  /* least that passes are worth while for, ... */
#define FRESH_FRACTION 64u /* ... and as a part of all */

/* What is kept of a VM between the two. */
struct saved {
	uint32_t vm;       /* of the first */
	uint32_t group_vm; /* of the second */
	uint64_t count;
	vmem_store_ref *refs;
};

struct scanner {
	struct estimate *e;
	vmem_store *own, *group;
	uint64_t group_fixed_bytes;
	uint64_t clock_ns; /* of the stores: it goes only when a pass of theirs is to begin */
	uint64_t random;
	uint64_t fresh; /* pages saved since the last passes */
	struct prober prober;
	struct saved *saved; /* of each VM */
	_Alignas(64) unsigned char pages[READ_PAGES * VMEM_PAGE_SIZE];
};

static int fail(int error)
{
	say_error("%s%s", vmem_strerror(error),
		  error == -VMEM_ENOMEM ? ". The tool keeps all pages compressed: try --sample 10."
					: "");
	return -1;
}

static int new_store(vmem_store **ret_store)
{
	const struct vmem_store_opts opts = { .size = sizeof(opts),
					      .parallel = 1,
					      .cpu = vmem_cpu_detect(),
					      .cold_after_ms = COLD_AFTER_MS };
	int error = vmem_store_new(ret_store, &opts);

	return error ? fail(error) : 0;
}

static int add_vm(vmem_store *store, enum vmem_store_sharing sharing, uint32_t *ret_vm)
{
	const struct vmem_store_vm_opts opts = {
		.size = sizeof(opts),
		.sharing = sharing,
		.group = sharing == VMEM_STORE_SHARE_GROUP ? GROUP : 0,
	};
	int error = vmem_store_add_vm(store, &opts, ret_vm);

	return error ? fail(error) : 0;
}

static struct vmem_store_account account_of(vmem_store *store)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	(void)vmem_store_total_account(store, &a);
	return a;
}

/* Passes of the store: the first marks what is new, others encode what they find marked. A page that compaction
 * was just moving has to wait for one more. 0, or -1: interrupted. */
static int encode_anew(struct scanner *s, vmem_store *store)
{
	struct vmem_store_account a = account_of(store);
	uint64_t before = 0;

	s->fresh = 0;
	for (int pass = 0; pass < 2 || before != a.physical_bytes; pass++) {
		before = a.physical_bytes;
		s->clock_ns += UINT64_C(2000000) * COLD_AFTER_MS;
		while (vmem_store_work(store, WORK_NS, s->clock_ns))
			if (is_interrupted())
				return -1;
		a = account_of(store);
	}
	return 0;
}

/* While pages arrive: as LZ4 leaves them they take more. A pass looks at all pages, so that the more there are
 * the fewer passes are made. As above. */
static int encode_anew_if_due(struct scanner *s, vmem_store *store)
{
	if (s->fresh < FRESH_PAGES || s->fresh < account_of(store).pages / FRESH_FRACTION)
		return is_interrupted() ? -1 : 0;
	return encode_anew(s, store);
}

/* --- Each VM for itself --- */

static bool is_in_sample(struct scanner *s)
{
	double percent = s->e->options->sample_percent;

	return percent >= 100 || (double)(random_next(&s->random) >> 11) * 0x1p-53 * 100 < percent;
}

static int save_page(struct scanner *s, struct vm *vm, struct saved *saved, const void *page)
{
	vmem_store_ref *ref = &saved->refs[saved->count];
	uint64_t word;
	int error = vmem_store_save(s->own, saved->vm, saved->count, page, ref);

	if (error)
		return fail(error);
	saved->count++;
	s->fresh++;
	vm->tally.pages++;
	if (!vmem_page_same_filled(page, &word))
		prober_try(&s->prober, &vm->probe, page);
	else
		vm->tally.kind[word ? KIND_SAME : KIND_ZERO]++;
	return 0;
}

/* Reads and saves pages that lie beside each other; leaves out what cannot be read. */
static int save_run(struct scanner *s, const struct source *source, struct vm *vm, uint64_t page,
		    uint32_t count)
{
	struct saved *saved = &s->saved[vm - s->e->vms];

	while (count) {
		uint32_t wanted = count < READ_PAGES ? count : READ_PAGES, done;
		int n = source_read(source, vm, page, wanted, s->pages);

		if (n < 0)
			return -1;
		for (int i = 0; i < n; i++)
			if (save_page(s, vm, saved, s->pages + (size_t)i * VMEM_PAGE_SIZE) != 0)
				return -1;
		done = (uint32_t)n;
		if (done < wanted) {
			vm->unreadable_pages++;
			done++;
		}
		page += done;
		count -= done;
	}
	return 0;
}

/* Which of these pages to read. */
static void choose(struct scanner *s, struct vm *vm, const enum source_state *states,
		   uint32_t count, bool *chosen)
{
	for (uint32_t i = 0; i < count; i++) {
		vm->untouched_pages += states[i] == PAGE_UNTOUCHED;
		vm->swapped_pages += states[i] == PAGE_SWAPPED;
		chosen[i] = states[i] == PAGE_PRESENT && is_in_sample(s);
	}
}

static int save_chunk(struct scanner *s, const struct source *source, struct vm *vm, uint64_t page,
		      uint32_t count)
{
	enum source_state states[SOURCE_CHUNK];
	bool chosen[SOURCE_CHUNK];

	if (source_states(source, vm, page, count, states) != 0)
		return -1;
	choose(s, vm, states, count, chosen);
	for (uint32_t i = 0, n; i < count; i += n ? n : 1) {
		for (n = 0; i + n < count && chosen[i + n]; n++)
			;
		if (n && save_run(s, source, vm, page + i, n) != 0)
			return -1;
	}
	return 0;
}

static int found_nothing(const struct scanner *s, const struct vm *vm)
{
	say_error(
		"%s: of its %llu pages none was read: %llu untouched, %llu on swap, %llu refused. "
		"Try %s.",
		vm->name, (unsigned long long)vm->memory_pages,
		(unsigned long long)vm->untouched_pages, (unsigned long long)vm->swapped_pages,
		(unsigned long long)vm->unreadable_pages,
		s->e->options->sample_percent < 100 ? "a larger --sample" : "another --mapping");
	return -1;
}

static int save_vm(struct scanner *s, const struct source *source, struct vm *vm)
{
	struct saved *saved = &s->saved[vm - s->e->vms];

	/* Memory is taken as they are filled in. */
	saved->refs = calloc(source->pages, sizeof(*saved->refs));
	if (!saved->refs)
		return fail(-VMEM_ENOMEM);
	progress_step("%s: reading and compressing", vm->name);
	for (uint64_t page = 0; page < source->pages; page += SOURCE_CHUNK) {
		uint64_t left = source->pages - page;

		progress_tell(page, source->pages);
		if (save_chunk(s, source, vm, page,
			       left < SOURCE_CHUNK ? (uint32_t)left : SOURCE_CHUNK) != 0 ||
		    encode_anew_if_due(s, s->own) != 0)
			return -1;
	}
	return vm->tally.pages ? encode_anew(s, s->own) : found_nothing(s, vm);
}

/* --- What came out --- */

/* From an account, for pages of which @t says already how many are one word: the store has those of 64 bits
 * among its objects, and such that are equal to them among the equal. */
static void take_account(struct tally *t, const struct vmem_store_account *a)
{
	uint64_t words = t->kind[KIND_ZERO] + t->kind[KIND_SAME];

	t->pages = a->pages;
	t->kind[KIND_EQUAL] = a->pages_equal - (words - a->pages_same);
	t->kind[KIND_ALIKE] = a->pages_delta;
	t->kind[KIND_ZSTD] = a->pages_zstd;
	t->kind[KIND_LZ4] = a->pages_lz4;
	t->kind[KIND_RAW] = a->pages_raw;
	t->stored_bytes = a->physical_bytes;
	t->cpu_save_ns = a->cpu_save_ns;
	t->cpu_work_ns = a->cpu_work_ns;
}

/* The store tells metadata in total: each VM has it by its number of pages that are not one word. */
static void divide_metadata(struct estimate *e)
{
	uint64_t words = e->total.kind[KIND_ZERO] + e->total.kind[KIND_SAME];
	double each = (double)e->total.metadata_bytes / (double)(e->total.pages - words);

	for (uint32_t i = 0; i < e->options->vm_count && e->total.pages > words; i++) {
		struct tally *t = &e->vms[i].tally;

		t->metadata_bytes = (uint64_t)(each * (double)(t->pages - t->kind[KIND_ZERO] -
							       t->kind[KIND_SAME]));
	}
}

/* What the pages made necessary. */
static uint64_t metadata_of(const struct vmem_store_account *a, uint64_t fixed_bytes)
{
	return a->metadata_bytes > fixed_bytes ? a->metadata_bytes - fixed_bytes : 0;
}

static void take_own(struct scanner *s)
{
	struct estimate *e = s->e;
	struct vmem_store_account a = account_of(s->own);

	for (uint32_t i = 0; i < e->options->vm_count; i++) {
		struct vmem_store_account own = { .size = sizeof(own) };
		struct vm *vm = &e->vms[i];

		(void)vmem_store_vm_account(s->own, s->saved[i].vm, &own);
		take_account(&vm->tally, &own);
		e->total.kind[KIND_ZERO] += vm->tally.kind[KIND_ZERO];
		e->total.kind[KIND_SAME] += vm->tally.kind[KIND_SAME];
		e->probe.pages += vm->probe.pages;
		e->probe.lz4_bytes += vm->probe.lz4_bytes;
		e->probe.zstd_bytes += vm->probe.zstd_bytes;
	}
	take_account(&e->total, &a);
	e->total.metadata_bytes = metadata_of(&a, e->fixed_bytes);
	divide_metadata(e);
}

static void take_shared(struct scanner *s)
{
	struct estimate *e = s->e;
	struct vmem_store_account a = account_of(s->group);

	e->shared.kind[KIND_ZERO] = e->total.kind[KIND_ZERO];
	e->shared.kind[KIND_SAME] = e->total.kind[KIND_SAME];
	take_account(&e->shared, &a);
	e->shared.metadata_bytes = metadata_of(&a, s->group_fixed_bytes);
}

/* --- All VMs as one group --- */

static int move_page(struct scanner *s, const struct saved *from, uint64_t i)
{
	vmem_store_ref ref;
	int error = vmem_store_peek(s->own, from->vm, i, from->refs[i], s->pages, NULL);

	if (!error)
		error = vmem_store_drop(s->own, from->vm, from->refs[i]);
	if (!error)
		error = vmem_store_save(s->group, from->group_vm, i, s->pages, &ref);
	s->fresh++;
	return error ? fail(error) : 0;
}

static int move_vm(struct scanner *s, struct saved *from)
{
	for (uint64_t i = 0; i < from->count; i++) {
		if (move_page(s, from, i) != 0)
			return -1;
		if (i % SOURCE_CHUNK)
			continue;
		progress_tell(i, from->count);
		/* For compaction: what has moved leaves holes. */
		(void)vmem_store_work(s->own, WORK_NS, s->clock_ns);
		if (encode_anew_if_due(s, s->group) != 0)
			return -1;
	}
	(void)vmem_store_drop_vm(s->own, from->vm);
	free(from->refs);
	from->refs = NULL;
	return encode_anew(s, s->group);
}

static int move_all(struct scanner *s)
{
	for (uint32_t i = 0; i < s->e->options->vm_count; i++) {
		progress_step("%s: sharing with the others", s->e->vms[i].name);
		if (move_vm(s, &s->saved[i]) != 0)
			return -1;
	}
	return 0;
}

/* What a store takes that has no pages, when it has made its reserves. */
static uint64_t fixed_bytes(struct scanner *s, vmem_store *store)
{
	while (vmem_store_work(store, WORK_NS, s->clock_ns))
		;
	return account_of(store).metadata_bytes;
}

/* Both with their VMs. */
static int make_stores(struct scanner *s)
{
	uint32_t count = s->e->options->vm_count;

	if (new_store(&s->own) != 0 || (count > 1 && new_store(&s->group) != 0))
		return -1;
	for (uint32_t i = 0; i < count; i++) {
		struct saved *saved = &s->saved[i];

		if (add_vm(s->own, VMEM_STORE_SHARE_VM, &saved->vm) != 0 ||
		    (s->group && add_vm(s->group, VMEM_STORE_SHARE_GROUP, &saved->group_vm) != 0))
			return -1;
	}
	s->e->fixed_bytes = fixed_bytes(s, s->own);
	s->group_fixed_bytes = s->group ? fixed_bytes(s, s->group) : 0;
	return 0;
}

static int scan_all(struct scanner *s, const struct source *sources)
{
	if (make_stores(s) != 0)
		return -1;
	for (uint32_t i = 0; i < s->e->options->vm_count; i++)
		if (save_vm(s, &sources[i], &s->e->vms[i]) != 0)
			return -1;
	take_own(s);
	if (s->group && move_all(s) != 0)
		return -1;
	if (s->group)
		take_shared(s);
	return 0;
}

int scan(struct estimate *e, const struct source *sources)
{
	struct scanner *s = aligned_alloc(64, sizeof(*s));
	int error;

	if (!s)
		return fail(-VMEM_ENOMEM);
	*s = (struct scanner){ .e = e, .clock_ns = 1, .random = e->options->seed };
	s->saved = calloc(e->options->vm_count, sizeof(*s->saved));
	error = s->saved ? prober_init(&s->prober) : -VMEM_ENOMEM;
	error = error ? fail(error) : scan_all(s, sources);
	progress_end();
	prober_end(&s->prober);
	vmem_store_free(s->own);
	vmem_store_free(s->group);
	for (uint32_t i = 0; s->saved && i < e->options->vm_count; i++)
		free(s->saved[i].refs);
	free(s->saved);
	free(s);
	return error;
}
