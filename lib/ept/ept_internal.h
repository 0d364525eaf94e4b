/* SPDX-License-Identifier: BSD-2-Clause */
/* What all calls are made of: entries, walks, tables taken and retired. ept_object.h says how they work together. */
#ifndef VMEMI_EPT_INTERNAL_H
#define VMEMI_EPT_INTERNAL_H
#include "ept/ept_object.h"

static inline uint64_t *vmemi_ept_at(const vmem_ept *ept, uint64_t hpa)
{
	if (ept->memory.map)
		return ept->memory.map(ept->memory.context, hpa);
	return (uint64_t *)(uintptr_t)(hpa + ept->memory.offset);
}

static inline uint64_t vmemi_ept_load(const uint64_t *slot)
{
	return __atomic_load_n(slot, __ATOMIC_RELAXED);
}

/* Of an entry on the way: the table behind it is seen whole. */
static inline uint64_t vmemi_ept_load_way(const uint64_t *slot)
{
	return __atomic_load_n(slot, __ATOMIC_ACQUIRE);
}

static inline void vmemi_ept_store(uint64_t *slot, uint64_t entry)
{
	__atomic_store_n(slot, entry, __ATOMIC_RELAXED);
}

/* The table behind the new entry is whole. */
static inline void vmemi_ept_link(uint64_t *slot, uint64_t entry)
{
	__atomic_store_n(slot, entry, __ATOMIC_RELEASE);
}

static inline uint32_t vmemi_ept_shift(uint32_t level)
{
	return 3 + 9 * level;
}

static inline uint64_t vmemi_ept_bytes(uint32_t level)
{
	return UINT64_C(1) << vmemi_ept_shift(level);
}

static inline uint32_t vmemi_ept_index(uint64_t gpa, uint32_t level)
{
	return (uint32_t)(gpa >> vmemi_ept_shift(level)) & (VMEM_EPT_ENTRIES - 1);
}

/* Of a level above 1. */
static inline bool vmemi_ept_is_table(uint64_t entry)
{
	return (entry & (VMEMI_EPT_PRESENT_BIT | VMEMI_EPT_LARGE_BIT | VMEMI_EPT_LEAF)) ==
	       VMEMI_EPT_PRESENT_BIT;
}

/* A leaf, with rights or without. */
static inline bool vmemi_ept_is_leaf(uint64_t entry)
{
	return (entry & (VMEMI_EPT_LEAF | VMEMI_EPT_MARK)) == VMEMI_EPT_LEAF;
}

static inline bool vmemi_ept_is_payload(uint64_t entry)
{
	return (entry & VMEMI_EPT_MARK) != 0;
}

static inline bool vmemi_ept_is_empty(uint64_t entry)
{
	return !(entry & ~VMEMI_EPT_NO_VE);
}

static inline uint64_t vmemi_ept_payload_entry(const vmem_ept *ept, uint64_t payload)
{
	return (VMEMI_EPT_MARK | (payload & 0x7f) << 3 | payload >> 7 << 11 | ept->absent) ^
	       ept->payload_flip;
}

static inline uint64_t vmemi_ept_payload(const vmem_ept *ept, uint64_t entry)
{
	entry ^= ept->payload_flip;
	return (entry >> 3 & 0x7f) | (entry & ~(VMEMI_EPT_MARK | VMEMI_EPT_NO_VE)) >> 11 << 7;
}

/* The processor may still set bits in it: then a change must be a compare and exchange. */
static inline bool vmemi_ept_is_restless(const vmem_ept *ept, uint64_t entry)
{
	return (~entry & ept->accessed) || ((~entry & ept->dirty) && (entry & ept->writes));
}

/* Changes an entry so that no bit that a processor sets meanwhile is lost; returns what it was. */
static inline uint64_t vmemi_ept_change(const vmem_ept *ept, uint64_t *slot, uint64_t and,
					uint64_t or)
{
	uint64_t entry = vmemi_ept_load(slot);

	if (!(entry & ept->present) || !vmemi_ept_is_restless(ept, entry)) {
		vmemi_ept_store(slot, (entry & and) | or);
		return entry;
	}
	while (!__atomic_compare_exchange_n(slot, &entry, (entry & and) | or, true,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	return entry;
}

/* After entries were written, before the next that relies on them. */
static inline void vmemi_ept_written(const vmem_ept *ept, const void *at, uint64_t entries)
{
	if (ept->write_back)
		ept->write_back(at, (size_t)(8 * entries));
}

/* ept_call.c: vmemi_ept_descend() where tables are reached by the caller's function. */
void vmemi_ept_descend_mapped(const vmem_ept *ept, uint64_t gpa, uint32_t stop,
			      struct vmemi_ept_path *path);

/* Goes down to @stop, or to the first entry above it that is no table. */
static inline void vmemi_ept_descend(const vmem_ept *ept, uint64_t gpa, uint32_t stop,
				     struct vmemi_ept_path *path)
{
	const uint64_t offset = ept->memory.offset;
	uint32_t level = ept->levels;
	uint64_t *slot, entry, *table = ept->root;

	if (__builtin_expect(ept->memory.map != NULL, 0)) {
		vmemi_ept_descend_mapped(ept, gpa, stop, path);
		return;
	}
	for (;; level--) {
		slot = table + vmemi_ept_index(gpa, level);
		path->slots[level] = slot;
		entry = vmemi_ept_load_way(slot);
		if (level <= stop || !vmemi_ept_is_table(entry))
			break;
		table = (uint64_t *)(uintptr_t)((entry & VMEM_EPT_ADDRESS) + offset);
	}
	path->entry = entry;
	path->level = level;
}

/* ept_call.c: the rest of vmemi_ept_begin() and vmemi_ept_end(). */
int vmemi_ept_begin_checked(struct vmemi_ept_call *c, vmem_ept *ept, uint64_t gpa, uint64_t bytes,
			    struct vmem_ept_change *change);
int vmemi_ept_end_given(struct vmemi_ept_call *c, int err);

/* From an entry above level 1 to the table below it; false: it is no table. */
static inline bool vmemi_ept_quick_table(uint64_t **table, uint32_t index, uint64_t offset)
{
	uint64_t entry = vmemi_ept_load_way(*table + index);

	*table = (uint64_t *)(uintptr_t)((entry & VMEM_EPT_ADDRESS) + offset);
	return __builtin_expect((entry & (VMEMI_EPT_PRESENT_BIT | VMEMI_EPT_LARGE_BIT)) ==
					VMEMI_EPT_PRESENT_BIT,
				1);
}

/* The entry of level 1 for a place below quick_end, by four loads with little between; NULL: there is none. */
static inline __attribute__((always_inline)) uint64_t *vmemi_ept_quick_slot(const vmem_ept *ept,
									    uint64_t gpa)
{
	const uint64_t offset = ept->memory.offset;
	uint64_t *table = ept->root;

	if (!vmemi_ept_quick_table(&table, vmemi_ept_index(gpa, 4), offset) ||
	    !vmemi_ept_quick_table(&table, vmemi_ept_index(gpa, 3), offset) ||
	    !vmemi_ept_quick_table(&table, vmemi_ept_index(gpa, 2), offset))
		return NULL;
	return table + vmemi_ept_index(gpa, 1);
}

static inline void vmemi_ept_change_init(struct vmem_ept_change *change)
{
	change->flush = VMEM_EPT_FLUSH_NONE;
	change->range_count = 0;
	change->epoch = 0;
	change->leaves = 0;
	change->reason = VMEM_EPT_FINE;
	change->at = 0;
}

/* Begins a range call: sizes, alignment, width. 0, -VMEM_EINVAL, -VMEM_ERANGE. */
static inline int vmemi_ept_begin(struct vmemi_ept_call *c, vmem_ept *ept, uint64_t gpa,
				  uint64_t bytes, struct vmem_ept_change *change)
{
	c->ept = ept;
	if (!change || change->size != sizeof(*change) || ((gpa | bytes) & (VMEM_PAGE_SIZE - 1)) ||
	    !bytes || gpa >= ept->guest_end || bytes > ept->guest_end - gpa)
		return vmemi_ept_begin_checked(c, ept, gpa, bytes, change);
	c->given = change;
	c->change = change;
	vmemi_ept_change_init(change);
	return 0;
}

/* Ends it: gives the rest of the reserve back, hands the results over. Returns @err. */
static inline int vmemi_ept_end(struct vmemi_ept_call *c, int err)
{
	return c->given == c->change && !c->ept->reserve.total ? err : vmemi_ept_end_given(c, err);
}

/* An error, with its reason and place; returns @err. */
int vmemi_ept_fail(struct vmemi_ept_call *c, int err, uint32_t reason, uint64_t at);
/* The range must be invalidated. */
void vmemi_ept_owe(struct vmemi_ept_call *c, uint64_t gpa, uint64_t bytes);

/* ept_reserve.c: a page from the caller, where tables can be. 0, what allocate returned, or -VMEM_ERANGE. */
int vmemi_ept_page_new(vmem_ept *ept, uint64_t *ret_hpa);
/* Takes @tables from the caller. 0, or an error: then none was taken. */
int vmemi_ept_take(struct vmemi_ept_call *c, uint64_t tables, uint64_t at);
/* One of those taken, for a table of @level. */
uint64_t *vmemi_ept_table_new(vmem_ept *ept, uint32_t level, uint64_t *ret_hpa);
void vmemi_ept_give_back(vmem_ept *ept);
/* The entry for a table. */
static inline uint64_t vmemi_ept_table_entry(const vmem_ept *ept, uint64_t hpa)
{
	return hpa | ept->table_bits;
}

/* ept_retire.c: the table of @level, that the caller has unlinked, waits for the flush. */
void vmemi_ept_retire(struct vmemi_ept_call *c, uint64_t table_hpa, uint32_t level);
/* As it is merged into the leaf at @gpa: bits that a processor sets in it until the flush go there. */
void vmemi_ept_retire_merged(struct vmemi_ept_call *c, uint64_t table_hpa, uint32_t level,
			     uint64_t gpa);
/* Retires the table and all below it, with what is mapped there. @gpa: where it begins. */
void vmemi_ept_retire_tree(struct vmemi_ept_call *c, uint64_t table_hpa, uint32_t level,
			   uint64_t gpa);

/* ept_split.c: makes a table of what is at @path->entry (leaf, payload or nothing) and goes down into it, towards
 * @gpa. One table of the reserve. */
void vmemi_ept_push_down(struct vmemi_ept_call *c, uint64_t gpa, struct vmemi_ept_path *path);
/* Splits what is mapped in a range by leaves of a level above @level: all of it, or an error and nothing. */
int vmemi_ept_split_range(struct vmemi_ept_call *c, uint64_t gpa, uint64_t bytes, uint32_t level);
/* Splits leaves (and payloads that stand for more than a page, if so told) that stick out of a range. Likewise. */
int vmemi_ept_cut(struct vmemi_ept_call *c, uint64_t gpa, uint64_t bytes, bool payloads);

/* Fills entries: first, first + step ... */
static inline void vmemi_ept_fill(uint64_t *slot, uint64_t count, uint64_t entry, uint64_t step)
{
	uint64_t *end = slot + count;

	for (; end - slot >= 4; slot += 4) {
		vmemi_ept_store(slot, entry);
		vmemi_ept_store(slot + 1, entry + step);
		vmemi_ept_store(slot + 2, entry + 2 * step);
		vmemi_ept_store(slot + 3, entry + 3 * step);
		entry += 4 * step;
	}
	for (; slot < end; slot++, entry += step)
		vmemi_ept_store(slot, entry);
}

#endif
