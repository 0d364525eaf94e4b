/* SPDX-License-Identifier: BSD-2-Clause */
/* One leaf where nothing is present, by any number of threads at a time. What is missing above it is made aside, leaf
 * included, and linked by one compare-exchange of the entry where the way ends: nobody sees half of it, and a call that
 * fails has changed nothing. Who comes second goes on below the other's table, with the pages that it has, and gives
 * back what is left.
 *
 * Counters are in stripes chosen by the caller's stack, so that threads seldom share a line. Guard: none;
 * not beside range calls, which is why no table that is seen here can go. */
#include "ept/ept_leaf.h"

#define SPARE_MOST (VMEM_EPT_LEVELS - 1)

struct install {
	vmem_ept *ept;
	uint64_t gpa;
	uint64_t entry; /* the leaf */
	uint32_t level;
	const uint64_t *expected;
	uint64_t spare[SPARE_MOST]; /* pages for tables */
	uint32_t spares;
};

/* Any will do: each thread has a stack, and its own pages of it nearly always mean its own stripe. */
static inline struct vmemi_ept_stripe *stripe_of(vmem_ept *ept)
{
	uint64_t stack = (uintptr_t)__builtin_frame_address(0) >> VMEM_PAGE_SHIFT;

	return &ept->stripes[stack * UINT64_C(0x9e3779b97f4a7c15) >> (64 - VMEMI_EPT_STRIPE_BITS)];
}

static void add(uint64_t *counter, uint64_t value)
{
	__atomic_fetch_add(counter, value, __ATOMIC_RELAXED);
}

/* @pages from the quota, at once: of two that want the last ones, one gets them. */
static int reserve(vmem_ept *ept, uint32_t pages)
{
	uint64_t out = __atomic_load_n(&ept->pages, __ATOMIC_RELAXED);

	do {
		if (pages > ept->max_tables - out)
			return -VMEM_ENOSPC;
	} while (!__atomic_compare_exchange_n(&ept->pages, &out, out + pages, true,
					      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	return 0;
}

/* As many as @pages from the caller, by the quota. */
static int have_spares(struct install *in, uint32_t pages)
{
	int err = in->spares < pages ? reserve(in->ept, pages - in->spares) : 0;

	while (!err && in->spares < pages) {
		err = vmemi_ept_page_new(in->ept, &in->spare[in->spares]);
		if (err)
			__atomic_fetch_sub(&in->ept->pages, pages - in->spares, __ATOMIC_RELAXED);
		else
			in->spares++;
	}
	return err;
}

static void give_spares(struct install *in)
{
	while (in->spares) {
		in->ept->memory.free(in->ept->memory.context, in->spare[--in->spares]);
		__atomic_fetch_sub(&in->ept->pages, 1, __ATOMIC_RELAXED);
	}
}

/* A payload, or nothing, that the caller does not expect there. */
static bool is_unexpected(const struct install *in, uint64_t entry)
{
	uint64_t payload = vmemi_ept_is_payload(entry) ? vmemi_ept_payload(in->ept, entry)
						       : VMEMI_EPT_NO_PAYLOAD;

	return in->expected && *in->expected != payload;
}

/* From the leaf up: tables below an entry of @level, which says @old for all that it spans. @return the entry for it */
static uint64_t make_way(struct install *in, uint32_t level, uint64_t old)
{
	const vmem_ept *ept = in->ept;
	uint64_t entry = in->entry;

	for (uint32_t l = in->level, i = in->spares; l < level; l++) {
		uint64_t hpa = in->spare[--i], *table = vmemi_ept_at(ept, hpa);

		vmemi_ept_fill(table, VMEM_EPT_ENTRIES, old, 0);
		vmemi_ept_store(table + vmemi_ept_index(in->gpa, l), entry);
		vmemi_ept_written(ept, table, VMEM_EPT_ENTRIES);
		entry = vmemi_ept_table_entry(ept, hpa);
	}
	return entry;
}

/* @old, at @level, has become the way to the leaf. */
static void count(struct install *in, uint32_t level, uint64_t old)
{
	vmem_ept *ept = in->ept;
	struct vmemi_ept_stripe *stripe = stripe_of(ept);

	for (uint32_t l = in->level; l < level; l++)
		add(&ept->tables[l - 1], 1);
	in->spares -= level - in->level;
	add(&stripe->leaves[in->level - 1], 1);
	if (vmemi_ept_is_payload(old))
		add(&stripe->payload_pages, 0 - (vmemi_ept_bytes(in->level) >> VMEM_PAGE_SHIFT));
}

/* As vmem_ept_map() does, for harvests that look only below entries that are accessed. */
static void mark_accessed(const struct install *in, const struct vmemi_ept_path *path)
{
	const vmem_ept *ept = in->ept;

	if (!(in->entry & (ept->accessed | ept->dirty)))
		return;
	for (uint32_t level = path->level + 1; level <= ept->levels; level++)
		if (!(vmemi_ept_load(path->slots[level]) & ept->accessed)) {
			__atomic_fetch_or(path->slots[level], ept->accessed, __ATOMIC_RELAXED);
			vmemi_ept_written(ept, path->slots[level], 1);
		}
}

/* What others have linked on the way, and perhaps not written back yet. */
static void write_back_way(const struct install *in, const struct vmemi_ept_path *path)
{
	if (!in->ept->write_back)
		return;
	for (uint32_t level = path->level; level <= in->ept->levels; level++)
		vmemi_ept_written(in->ept, path->slots[level], 1);
}

static int try(struct install *in)
{
	for (;;) {
		struct vmemi_ept_path path;
		uint64_t *slot;
		int err;

		vmemi_ept_descend(in->ept, in->gpa, in->level, &path);
		if (!vmemi_ept_is_payload(path.entry) && !vmemi_ept_is_empty(path.entry)) {
			write_back_way(in, &path);
			return -VMEM_EEXIST;
		}
		if (is_unexpected(in, path.entry))
			return -VMEM_EAGAIN;
		err = have_spares(in, path.level - in->level);
		if (err)
			return err;
		slot = path.slots[path.level];
		if (__atomic_compare_exchange_n(slot, &path.entry,
						make_way(in, path.level, path.entry), false,
						__ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
			write_back_way(in, &path);
			mark_accessed(in, &path);
			count(in, path.level, path.entry);
			return 0;
		}
	}
}

/* Whether it lies where the processor and the tables reach. */
static int check(const vmem_ept *ept, uint64_t gpa, const struct vmem_ept_leaf *leaf,
		 uint32_t level)
{
	uint64_t bytes = vmemi_ept_bytes(level);
	uint32_t reason;

	if ((gpa | leaf->hpa) & (bytes - 1))
		return -VMEM_EINVAL;
	if (gpa >= ept->guest_end || bytes > ept->guest_end - gpa)
		return -VMEM_ERANGE;
	if (leaf->hpa >= ept->host_end || bytes > ept->host_end - leaf->hpa)
		return -VMEM_ERANGE;
	if (!vmemi_ept_leaf_fits(ept, leaf))
		return vmemi_ept_leaf_check(ept, leaf, &reason);
	return level > 1 && level > vmemi_ept_largest(ept, leaf) ? -VMEM_ENOTSUP : 0;
}

/* As most are: a page on nothing, the tables there and caches coherent. Few instructions around the two atomic
 * operations that there must be; false: it is not so, nothing is done. */
static inline bool install_quick(vmem_ept *ept, uint64_t gpa, const struct vmem_ept_leaf *leaf)
{
	uint64_t *slot, entry;

	if (leaf->level > 1 || ((gpa | leaf->hpa) & (VMEM_PAGE_SIZE - 1)) ||
	    gpa >= ept->quick_end || leaf->hpa >= ept->host_end ||
	    !vmemi_ept_leaf_fits(ept, leaf) ||
	    (leaf->flags & (VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY)) || ept->write_back)
		return false;
	slot = vmemi_ept_quick_slot(ept, gpa);
	if (!slot)
		return false;
	entry = vmemi_ept_load(slot);
	if (!vmemi_ept_is_empty(entry) ||
	    !__atomic_compare_exchange_n(slot, &entry,
					 vmemi_ept_leaf_bits(ept, leaf, 1) | leaf->hpa, false,
					 __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		return false;
	add(&stripe_of(ept)->leaves[0], 1);
	return true;
}

static __attribute__((noinline)) int install_any(vmem_ept *ept, uint64_t gpa,
						 const struct vmem_ept_leaf *leaf,
						 const uint64_t *expected)
{
	struct install in = { .ept = ept, .gpa = gpa, .expected = expected };
	int err;

	in.level = leaf->level ? leaf->level : 1;
	err = check(ept, gpa, leaf, in.level);
	if (err)
		return err;
	in.entry = vmemi_ept_leaf_bits(ept, leaf, in.level) | leaf->hpa;
	err = try(&in);
	if (err == -VMEM_EEXIST)
		add(&stripe_of(ept)->installs_lost, 1);
	if (in.spares)
		give_spares(&in);
	return err;
}

int vmem_ept_install(vmem_ept *ept, uint64_t gpa, const struct vmem_ept_leaf *leaf,
		     const uint64_t *expected)
{
	if (!leaf || leaf->level > 3)
		return -VMEM_EINVAL;
	if ((!expected || *expected == VMEMI_EPT_NO_PAYLOAD) && install_quick(ept, gpa, leaf))
		return 0;
	return install_any(ept, gpa, leaf, expected);
}
