/* SPDX-License-Identifier: BSD-2-Clause */
/* Each allocation, and the making of each lock, fails once in turn: no call does half of its work,
 * nothing leaks, and what is stored can be loaded. */
#include <criterion/criterion.h>
#include "store/model_pages.h"
#include "store/store_internal.h"
#include "support/fail_alloc.h"
#include "support/fail_locks.h"

enum { VMS = VMEMI_VM_CHUNK + 2, PAGES = 400 };

static void add_vm(vmem_store *store, uint32_t *vm)
{
	int rc;

	*vm = UINT32_MAX;
	rc = vmem_store_add_vm(store, NULL, vm);
	cr_assert(!rc || (rc == -VMEM_ENOMEM && *vm == UINT32_MAX));
	if (rc)
		cr_assert_eq(vmem_store_add_vm(store, NULL, vm), 0, "after one failure");
}

static void add_vms(vmem_store *store, uint32_t vm[VMS])
{
	for (uint32_t v = 0; v < VMS; v++)
		add_vm(store, &vm[v]);
}

static void save_pages(vmem_store *store, const uint32_t vm[VMS], vmem_store_ref ref[PAGES])
{
	struct vmemt_page page;

	for (uint32_t i = 0; i < PAGES; i++) {
		int rc;

		ref[i] = 0;
		vmemt_page_make(&page, i % VMEMT_PAGE_KINDS, i);
		rc = vmem_store_save(store, vm[i % 3], i, &page, &ref[i]);
		cr_assert(!rc || ((rc == -VMEM_ENOMEM || rc == -VMEM_ENOSPC) && !ref[i]));
	}
}

static void load_pages(vmem_store *store, const uint32_t vm[VMS], const vmem_store_ref ref[PAGES])
{
	struct vmemt_page page;

	for (uint32_t i = 0; i < PAGES; i++) {
		if (!ref[i])
			continue;
		cr_assert_eq(vmem_store_load(store, vm[i % 3], i, ref[i], &page, NULL), 0);
		cr_assert(vmemt_page_is(&page, i % VMEMT_PAGE_KINDS, i));
	}
}

/* Uses the store all over; returns how many pages could not be saved. */
static uint64_t exercise(vmem_store *store)
{
	static uint32_t vm[VMS];
	static vmem_store_ref ref[PAGES];
	struct vmem_store_account a = { .size = sizeof(a) };

	add_vms(store, vm);
	save_pages(store, vm, ref);
	for (uint32_t i = 0; i < PAGES; i++)
		if (ref[i] && i % 4 == 1) {
			cr_assert_eq(vmem_store_drop(store, vm[i % 3], ref[i]), 0);
			ref[i] = 0;
		}
	for (uint64_t t = 0; vmem_store_work(store, 50000, t * 50000); t++)
		cr_assert_lt(t, 1000);
	load_pages(store, vm, ref);
	cr_assert_eq(vmem_store_drop_vm(store, vm[2]), 0);
	add_vm(store, &vm[2]);
	save_pages(store, vm, ref);
	load_pages(store, vm, ref);
	cr_assert_null(vmemi_store_check(store));
	cr_assert_eq(vmem_store_total_account(store, &a), 0);
	return a.rejects;
}

Test(store_fault, allocations)
{
	struct vmemt_fail_alloc memory;
	uint64_t rejects = 0;
	long unborn = 0;

	for (long n = 0;; n++) {
		struct vmem_store_opts opts = { .size = sizeof(opts),
						.allocator = &memory.allocator };
		vmem_store *store = NULL;
		int rc;

		vmemt_fail_alloc_init(&memory);
		memory.fail_after = n;
		rc = vmem_store_new(&store, &opts);
		if (rc) {
			cr_assert_eq(rc, -VMEM_ENOMEM);
			cr_assert_null(store);
			unborn++;
		} else {
			rejects += exercise(store);
			vmem_store_free(store);
		}
		cr_assert_eq(memory.live_bytes, 0, "allocation %ld leaks %ld bytes", n,
			     memory.live_bytes);
		if (!memory.failed)
			break;
	}
	cr_assert_geq(unborn, 2);
	cr_assert_geq(rejects, 1, "no save saw a failure");
}

Test(store_fault, locks)
{
	for (long n = 0;; n++) {
		struct vmemt_fail_locks locks;
		struct vmem_store_opts opts = { .size = sizeof(opts), .env = &locks.env };
		vmem_store *store = NULL;
		int rc;

		vmemt_fail_locks_init(&locks);
		locks.fail_after = n;
		rc = vmem_store_new(&store, &opts);
		cr_assert(!rc || (rc == -VMEM_ENOMEM && !store));
		if (!rc)
			exercise(store);
		vmem_store_free(store);
		cr_assert_eq(locks.live, 0);
		if (!locks.failed)
			break;
		cr_assert(rc || n >= 2, "the store has two locks of its own");
	}
}

/* --- Groups, and pages that are encoded anew --- */

enum { GROUPS = 2, MEMBERS = 2, TWINS = 500, OTHERS = 500, PASSES = 4 };
#define PASS_NS UINT64_C(3000000000)

/* Which of the store's two allocators fails, and what it met. */
struct shortage {
	struct vmemt_fail_alloc tables, segments;
	uint64_t joins, saves, works; /* that saw a failure */
	uint64_t deltas;              /* without one */
	uint64_t now;
};

struct twins {
	uint32_t vm[GROUPS * MEMBERS];
	vmem_store_ref ref[TWINS + OTHERS];
};

static long failures(const struct shortage *s)
{
	return s->tables.failed + s->segments.failed;
}

/* First pages that are like others, then those that fill the index of such. */
static enum vmemt_page_kind kind_of(uint64_t i)
{
	return i < TWINS ? VMEMT_PAGE_TEXT : VMEMT_PAGE_NOISE;
}

static uint64_t seed_of(uint64_t i)
{
	return i < TWINS ? i : i * EDITS;
}

/* Versions of a page are of one group, and of all its VMs. */
static uint32_t vm_of(const struct twins *t, uint64_t i)
{
	return t->vm[i / EDITS % GROUPS * MEMBERS + i % MEMBERS];
}

static void join_groups(struct shortage *s, vmem_store *store, struct twins *t)
{
	for (uint32_t v = 0; v < GROUPS * MEMBERS; v++) {
		struct vmem_store_vm_opts opts = { .size = sizeof(opts),
						   .sharing = VMEM_STORE_SHARE_GROUP,
						   .group = v / MEMBERS };
		long before = failures(s);
		int rc = vmem_store_add_vm(store, &opts, &t->vm[v]);

		cr_assert(!rc || (rc == -VMEM_ENOMEM && failures(s) > before));
		if (!rc)
			continue;
		cr_assert_null(vmemi_store_check(store));
		cr_assert_eq(vmem_store_add_vm(store, &opts, &t->vm[v]), 0);
		s->joins++;
	}
}

static void save_twins(struct shortage *s, vmem_store *store, struct twins *t)
{
	struct vmemt_page page;

	for (uint64_t i = 0; i < TWINS + OTHERS; i++) {
		uint32_t vm = vm_of(t, i);
		int rc;

		make_page(&page, kind_of(i), seed_of(i));
		rc = vmem_store_save(store, vm, i, &page, &t->ref[i]);
		cr_assert(!rc || rc == -VMEM_ENOMEM || rc == -VMEM_ENOSPC);
		s->saves += rc != 0;
		if (rc)
			cr_assert_eq(vmem_store_save(store, vm, i, &page, &t->ref[i]), 0);
	}
}

static void load_twins(vmem_store *store, const struct twins *t)
{
	struct vmemt_page page;

	for (uint64_t i = 0; i < TWINS + OTHERS; i++) {
		if (!t->ref[i])
			continue;
		cr_assert_eq(vmem_store_load(store, vm_of(t, i), i, t->ref[i], &page, NULL), 0);
		cr_assert(is_page(&page, kind_of(i), seed_of(i)));
	}
	cr_assert_null(vmemi_store_check(store));
}

/* Returns how many deltas there are then. */
static uint64_t encode_anew(struct shortage *s, vmem_store *store)
{
	struct vmem_store_account a = { .size = sizeof(a) };
	long before = failures(s);

	for (int pass = 0; pass < PASSES; pass++) {
		s->now += PASS_NS;
		for (int t = 0; vmem_store_work(store, 50000, s->now); t++)
			cr_assert_lt(t, 100000);
	}
	s->works += failures(s) > before;
	cr_assert_eq(vmem_store_total_account(store, &a), 0);
	return a.pages_delta;
}

/* The first of each group goes, the others keep what they have. */
static void leave_groups(vmem_store *store, struct twins *t)
{
	struct vmem_store_account a = { .size = sizeof(a) };

	for (uint32_t v = 0; v < GROUPS * MEMBERS; v += MEMBERS) {
		for (uint64_t i = 0; i < TWINS + OTHERS; i++)
			if (vm_of(t, i) == t->vm[v])
				t->ref[i] = 0;
		cr_assert_eq(vmem_store_drop_vm(store, t->vm[v]), 0);
	}
	load_twins(store, t);
	for (uint32_t v = 1; v < GROUPS * MEMBERS; v += MEMBERS)
		cr_assert_eq(vmem_store_drop_vm(store, t->vm[v]), 0);
	cr_assert_eq(vmem_store_total_account(store, &a), 0);
	cr_assert(!a.pages && !a.physical_bytes);
}

/* NULL: an allocation failed. */
static vmem_store *new_store(const struct vmem_allocator *tables,
			     const struct vmem_allocator *segments)
{
	const struct vmem_codec *codecs[] = { vmem_codec_lz4(), vmem_codec_zstd(1),
					      vmem_codec_delta(1) };
	struct vmem_store_opts opts = { .size = sizeof(opts),
					.allocator = tables,
					.segments = segments,
					.codecs = codecs,
					.codec_count = 3,
					.parallel = 1 };
	vmem_store *store = NULL;

	return vmem_store_new(&store, &opts) ? NULL : store;
}

/* Returns whether an allocation failed. */
static bool exercise_groups(struct shortage *s, long tables_after, long segments_after)
{
	static struct twins t;
	vmem_store *store;

	vmemt_fail_alloc_init(&s->tables);
	vmemt_fail_alloc_init(&s->segments);
	s->tables.fail_after = tables_after;
	s->segments.fail_after = segments_after;
	store = new_store(&s->tables.allocator, &s->segments.allocator);
	if (store) {
		uint64_t deltas;

		join_groups(s, store, &t);
		save_twins(s, store, &t);
		deltas = encode_anew(s, store);
		if (!failures(s))
			s->deltas = deltas;
		/* What one shortage keeps from being made is little. */
		cr_assert_geq(deltas, s->deltas * 3 / 4);
		load_twins(store, &t);
		leave_groups(store, &t);
		vmem_store_free(store);
	}
	cr_assert_eq(s->tables.live_bytes + s->segments.live_bytes, 0);
	return failures(s) > 0;
}

Test(store_fault, tables_of_groups_and_deltas)
{
	struct shortage s = { 0 };

	exercise_groups(&s, -1, -1);
	cr_assert_gt(s.deltas, 100);
	for (long n = 0; exercise_groups(&s, n, -1); n++)
		;
	cr_assert_geq(s.joins, 2 * GROUPS * MEMBERS);
	cr_assert_geq(s.saves, 4);
	cr_assert_geq(s.works, 1, "the index of similar pages does not grow");
}

Test(store_fault, segments_of_groups_and_deltas)
{
	struct shortage s = { 0 };

	exercise_groups(&s, -1, -1);
	for (long n = 0; exercise_groups(&s, -1, n); n++)
		;
	cr_assert_geq(s.saves, 4);
	cr_assert_geq(s.works, 4, "nothing is replaced without memory");
}

/* Memory that somebody else may take for a while. */
struct gate {
	struct vmemt_fail_alloc memory;
	bool closed;
};

static void *gate_alloc(void *context, size_t bytes, size_t align)
{
	struct gate *g = context;
	const struct vmem_allocator *a = &g->memory.allocator;

	return g->closed ? NULL : a->alloc(a->context, bytes, align);
}

static void gate_free(void *context, void *memory, size_t bytes, size_t align)
{
	const struct vmem_allocator *a = &((struct gate *)context)->memory.allocator;

	a->free(a->context, memory, bytes, align);
}

/* Until there is no room in what the group has. Returns how many. */
static uint64_t fill(vmem_store *store, uint32_t vm, vmem_store_ref *refs, uint64_t seed)
{
	struct vmemt_page page;

	for (uint64_t n = 0;; n++) {
		int rc;

		cr_assert_lt(n, OTHERS * 10);
		vmemt_page_make(&page, VMEMT_PAGE_NOISE, seed + n);
		rc = vmem_store_save(store, vm, n, &page, &refs[n]);
		cr_assert(!rc || rc == -VMEM_ENOMEM || rc == -VMEM_ENOSPC);
		if (rc)
			return n;
	}
}

/* Pages stay as they are, and are encoded anew when there is memory again. */
Test(store_fault, no_segments_for_long)
{
	static vmem_store_ref more[GROUPS][OTHERS * 10];
	struct vmem_allocator allocator = { .size = sizeof(allocator),
					    .alloc = gate_alloc,
					    .free = gate_free };
	struct gate gate = { .closed = false };
	static struct twins t;
	struct shortage s = { 0 };
	uint64_t filled[GROUPS];
	vmem_store *store;

	vmemt_fail_alloc_init(&gate.memory);
	allocator.context = &gate;
	store = new_store(NULL, &allocator);
	cr_assert_not_null(store);
	join_groups(&s, store, &t);
	save_twins(&s, store, &t);
	gate.closed = true;
	for (uint32_t g = 0; g < GROUPS; g++)
		filled[g] = fill(store, t.vm[g * MEMBERS], more[g], 1000000 * (g + 1));
	cr_assert_lt(encode_anew(&s, store), 10, "there was memory");
	load_twins(store, &t);
	gate.closed = false;
	for (uint32_t g = 0; g < GROUPS; g++)
		for (uint64_t i = 0; i < filled[g]; i++)
			cr_assert_eq(vmem_store_drop(store, t.vm[g * MEMBERS], more[g][i]), 0);
	cr_assert_gt(encode_anew(&s, store), 100);
	load_twins(store, &t);
	leave_groups(store, &t);
	vmem_store_free(store);
	cr_assert_eq(gate.memory.live_bytes, 0);
}
