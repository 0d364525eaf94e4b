/* SPDX-License-Identifier: BSD-2-Clause */
/* The object: made, freed, its pointer and its counters. ept_internal.h says how it works. */
#include "ept/ept_leaf.h"
#include "ept/ept_tree.h"
#include "base/mem.h"
#include "base/opts.h"

#define KNOWN_FLAGS                                                                            \
	(VMEM_EPT_AD | VMEM_EPT_NO_EXEC_LARGE | VMEM_EPT_WRITE_BACK | VMEM_EPT_CACHES_ABSENT | \
	 VMEM_EPT_SUPPRESS_ALL_VE | VMEM_EPT_SHADOW_STACK | VMEM_EPT_INVERT_PAYLOAD)
#define CACHE_LINE 64u

#ifdef __x86_64__
/* CLFLUSH is ordered with writes to its line and with itself: no fence. */
static void flush_lines(const void *at, size_t bytes)
{
	const char *line = (const char *)((uintptr_t)at & ~(uintptr_t)(CACHE_LINE - 1));

	for (; line < (const char *)at + bytes; line += CACHE_LINE)
		__asm__ volatile("clflush %0" : : "m"(*line) : "memory");
}
#endif

static int choose_levels(const struct vmem_ept_capabilities *caps, uint32_t asked, uint32_t *ret)
{
	const uint64_t both = VMEM_EPT_CAP_4_LEVELS | VMEM_EPT_CAP_5_LEVELS;
	static const uint32_t order[] = { 4, 3, 5 };

	if (asked && (asked < 3 || asked > 5))
		return -VMEM_EINVAL;
	/* nCR3 does not say which: tables of four levels, walked as five, would let the guest write its own. */
	if (!asked && caps->format == VMEM_EPT_AMD && (caps->caps & both) == both)
		return -VMEM_EINVAL;
	for (uint32_t i = 0; i < 3; i++)
		if ((!asked || asked == order[i]) &&
		    (caps->caps & VMEM_EPT_CAP_3_LEVELS << (order[i] - 3)) &&
		    (order[i] != 3 || caps->format == VMEM_EPT_VTD)) {
			*ret = order[i];
			return 0;
		}
	return -VMEM_ENOTSUP;
}

static int take_capabilities(struct vmem_ept_capabilities *caps,
			     const struct vmem_ept_capabilities *given)
{
	int err = vmemi_callbacks_take(caps, sizeof(*caps),
				       VMEMI_BYTES_TO(struct vmem_ept_capabilities, caps), given);

	if (err)
		return err;
	if (caps->format >= VMEM_EPT_FORMATS || caps->physical_bits < 32 ||
	    caps->physical_bits > 52)
		return -VMEM_EINVAL;
	if (caps->format == VMEM_EPT_AMD)
		caps->caps |= VMEM_EPT_CAP_AD;
	if (caps->format == VMEM_EPT_INTEL &&
	    !(caps->caps & (VMEM_EPT_CAP_TABLES_UC | VMEM_EPT_CAP_TABLES_WB)))
		return -VMEM_ENOTSUP;
	return 0;
}

/* What the options ask of the processor. */
static int check_flags(const struct vmem_ept_capabilities *caps, uint64_t flags)
{
	if (flags & ~KNOWN_FLAGS)
		return -VMEM_EINVAL;
	if ((flags & VMEM_EPT_AD) && !(caps->caps & VMEM_EPT_CAP_AD))
		return -VMEM_ENOTSUP;
	if ((flags & VMEM_EPT_SUPPRESS_ALL_VE) &&
	    (caps->format != VMEM_EPT_INTEL || !(caps->caps & VMEM_EPT_CAP_SUPPRESS_VE)))
		return -VMEM_ENOTSUP;
	if ((flags & VMEM_EPT_SHADOW_STACK) &&
	    (caps->format != VMEM_EPT_INTEL || !(caps->caps & VMEM_EPT_CAP_SHADOW_STACK)))
		return -VMEM_ENOTSUP;
#ifndef __x86_64__
	if (flags & VMEM_EPT_WRITE_BACK)
		return -VMEM_ENOTSUP;
#endif
	return 0;
}

static void set_masks(vmem_ept *ept)
{
	bool ad = ept->flags & VMEM_EPT_AD || ept->format == VMEM_EPT_AMD;

	ept->writes = VMEMI_EPT_WRITE_BIT;
	ept->absent = ept->flags & VMEM_EPT_SUPPRESS_ALL_VE ? VMEMI_EPT_NO_VE : 0;
	ept->payload_flip = ept->flags & VMEM_EPT_INVERT_PAYLOAD ? VMEM_EPT_ADDRESS : 0;
	ept->table_bits = ept->absent;
	if (ept->format == VMEM_EPT_AMD) {
		ept->present = VMEM_EPT_AMD_PRESENT;
		ept->table_bits |= VMEM_EPT_AMD_PRESENT | VMEM_EPT_AMD_WRITE | VMEM_EPT_AMD_USER;
		ept->accessed = VMEM_EPT_AMD_ACCESSED;
		ept->dirty = VMEM_EPT_AMD_DIRTY;
	} else if (ept->format == VMEM_EPT_VTD) {
		ept->present = VMEM_EPT_VTD_READ | VMEM_EPT_VTD_WRITE;
		ept->table_bits |= ept->present;
		ept->accessed = ad ? VMEM_EPT_VTD_ACCESSED : 0;
		ept->dirty = ad ? VMEM_EPT_VTD_DIRTY : 0;
	} else {
		ept->present = VMEM_EPT_INTEL_READ | VMEM_EPT_INTEL_WRITE | VMEM_EPT_INTEL_EXEC;
		if (ept->caps & VMEM_EPT_CAP_MBEC)
			ept->present |= VMEM_EPT_INTEL_EXEC_USER;
		ept->writes |= VMEMI_EPT_WRITES_BESIDE;
		ept->table_bits |= ept->present;
		ept->accessed = ad ? VMEM_EPT_INTEL_ACCESSED : 0;
		ept->dirty = ad ? VMEM_EPT_INTEL_DIRTY : 0;
	}
	ept->table_bits |= ept->accessed; /* saves the processor a write */
	if (ad)
		ept->flags |= VMEM_EPT_AD;
}

static int make_root(vmem_ept *ept)
{
	int err = vmemi_ept_page_new(ept, &ept->root_hpa);

	if (err)
		return err;
	ept->root = vmemi_ept_at(ept, ept->root_hpa);
	vmemi_ept_fill(ept->root, VMEM_EPT_ENTRIES, ept->absent, 0);
	vmemi_ept_written(ept, ept->root, VMEM_EPT_ENTRIES);
	ept->pages = 1;
	ept->tables[ept->levels - 1] = 1;
	return 0;
}

int vmem_ept_new(vmem_ept **ret_ept, const struct vmem_ept_opts *opts)
{
	struct vmem_ept_capabilities caps;
	struct vmem_allocator allocator;
	struct vmem_ept_memory memory;
	struct vmem_ept_opts o;
	uint32_t levels = 0;
	vmem_ept *ept;
	int err;

	if (!ret_ept)
		return -VMEM_EINVAL;
	if ((err = vmemi_opts_take(&o, sizeof(o), opts)) != 0 ||
	    (err = vmemi_alloc_take(&allocator, o.allocator)) != 0 ||
	    (err = vmemi_callbacks_take(&memory, sizeof(memory),
					VMEMI_BYTES_TO(struct vmem_ept_memory, offset),
					o.memory)) != 0 ||
	    (err = take_capabilities(&caps, o.capabilities)) != 0 ||
	    (err = check_flags(&caps, o.flags)) != 0 ||
	    (err = choose_levels(&caps, o.levels, &levels)) != 0)
		return err;
	if (!memory.allocate || !memory.free || o.guest_bits > 12 + 9 * levels ||
	    (o.guest_bits && o.guest_bits < 12))
		return -VMEM_EINVAL;
	ept = vmemi_zalloc(&allocator, sizeof(*ept), _Alignof(vmem_ept));
	if (!ept)
		return -VMEM_ENOMEM;
	ept->allocator = allocator;
	ept->memory = memory;
	ept->flags = o.flags;
	ept->caps = caps.caps;
	ept->format = caps.format;
	ept->levels = levels;
	ept->guest_end = UINT64_C(1) << (o.guest_bits ? o.guest_bits : 12 + 9 * levels);
	ept->quick_end = !memory.map && levels == 4 ? ept->guest_end : 0;
	ept->host_end = UINT64_C(1) << caps.physical_bits;
	ept->max_tables = o.max_tables ? o.max_tables : UINT64_MAX;
	ept->last_leaf[0] = UINT64_MAX; /* like none */
#ifdef __x86_64__
	if (o.flags & VMEM_EPT_WRITE_BACK)
		ept->write_back = flush_lines;
#endif
	set_masks(ept);
	vmemi_ept_leaf_init(ept);
	if ((err = make_root(ept)) != 0)
		vmemi_free(&allocator, ept, sizeof(*ept), _Alignof(vmem_ept));
	else
		*ret_ept = ept;
	return err;
}

void vmem_ept_free(vmem_ept *ept)
{
	struct vmem_allocator allocator;
	struct vmemi_ept_tree tree;

	if (!ept)
		return;
	vmem_ept_flushed(ept, ept->epoch);
	vmemi_ept_tree_begin(ept, &tree, ept->root_hpa, ept->levels);
	while (vmemi_ept_tree_next(ept, &tree))
		ept->memory.free(ept->memory.context, tree.hpa);
	allocator = ept->allocator;
	vmemi_free(&allocator, ept, sizeof(*ept), _Alignof(vmem_ept));
}

uint64_t vmem_ept_pointer(const vmem_ept *ept)
{
	uint64_t shadow_stack =
		ept->flags & VMEM_EPT_SHADOW_STACK ? VMEM_EPT_INTEL_POINTER_SHADOW_STACK : 0;

	if (ept->format == VMEM_EPT_AMD)
		return ept->root_hpa;
	if (ept->format == VMEM_EPT_VTD)
		return ept->root_hpa | (ept->levels - 2) |
		       (ept->accessed ? VMEM_EPT_VTD_POINTER_AD : 0);
	return ept->root_hpa | shadow_stack |
	       (ept->caps & VMEM_EPT_CAP_TABLES_WB ? (uint64_t)VMEM_EPT_WB : VMEM_EPT_UC) |
	       (uint64_t)(ept->levels - 1) << 3 | (uint64_t)(ept->accessed != 0) << 6;
}

/* Most entries of @span bytes that a range touches. */
static uint64_t most_touched(const vmem_ept *ept, uint64_t bytes, uint64_t span)
{
	uint64_t touched = (bytes - VMEM_PAGE_SIZE + span - 1) / span + 1;
	uint64_t all = (ept->guest_end + span - 1) / span;

	return touched < all ? touched : all;
}

uint64_t vmem_ept_worst_case(const vmem_ept *ept, uint64_t bytes, const struct vmem_ept_leaf *leaf)
{
	const uint32_t level = leaf ? vmemi_ept_largest(ept, leaf) : 1;
	uint64_t tables = 0;

	if (bytes > ept->guest_end)
		bytes = ept->guest_end;
	if (bytes < VMEM_PAGE_SIZE)
		bytes = VMEM_PAGE_SIZE;
	for (uint32_t l = 1; l < ept->levels; l++) {
		uint64_t touched = most_touched(ept, bytes, vmemi_ept_bytes(l + 1));

		tables += l < level && touched > 2 ? 2 : touched;
	}
	return tables;
}

static void add_stripe(struct vmem_ept_stats *stats, const struct vmemi_ept_stripe *stripe)
{
	for (uint32_t level = 0; level < VMEM_EPT_LEVELS; level++)
		stats->leaves[level] += __atomic_load_n(&stripe->leaves[level], __ATOMIC_RELAXED);
	stats->payloads += __atomic_load_n(&stripe->payload_pages, __ATOMIC_RELAXED);
	stats->installs_lost += __atomic_load_n(&stripe->installs_lost, __ATOMIC_RELAXED);
}

int vmem_ept_get_stats(const vmem_ept *ept, struct vmem_ept_stats *stats)
{
	struct vmem_ept_stats found = {
		.size = sizeof(found),
		.payloads = ept->payload_pages,
		.waiting = ept->waiting,
	};

	for (uint32_t level = 0; level < VMEM_EPT_LEVELS; level++) {
		found.tables[level] = __atomic_load_n(&ept->tables[level], __ATOMIC_RELAXED);
		found.leaves[level] = ept->leaves[level];
	}
	for (uint32_t i = 0; i < 1u << VMEMI_EPT_STRIPE_BITS; i++)
		add_stripe(&found, &ept->stripes[i]);
	if (!stats || stats->size < VMEMI_BYTES_TO(struct vmem_ept_stats, installs_lost))
		return -VMEM_EINVAL;
	return vmemi_opts_give(stats, &found, sizeof(found));
}
