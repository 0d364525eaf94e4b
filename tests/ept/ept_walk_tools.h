/* SPDX-License-Identifier: BSD-2-Clause */
/* For tests of the walker: a small physical memory for tables, and tables written by hand, entry by entry, with the
 * numbers of the manuals. Nothing here is shared with the builder. */
#ifndef VMEMT_EPT_WALK_TOOLS_H
#define VMEMT_EPT_WALK_TOOLS_H
#include <string.h>
#include <vmem/ept_walk.h>

#define VMEMT_TABLES_AT UINT64_C(0x40000000)
#define VMEMT_PAGE_AT UINT64_C(0x1c0000000) /* what leaves refer to; a multiple of 1 GiB */

enum { VMEMT_TABLES = 48 };

struct vmemt_tables {
	uint64_t page[VMEMT_TABLES][512];
	uint32_t used;
	uint32_t sets;     /* calls of set */
	uint32_t changing; /* set says so many times that the entry has changed */
	struct vmem_ept_capabilities processor;
	uint64_t pointer;
	uint32_t levels;
};

/* One way down: the entries that translate an address. entry[level]; entry[0] is not used. */
struct vmemt_path {
	uint64_t gpa;
	uint32_t leaf; /* its level */
	uint64_t *entry[6];
};

#define VMEMT_ALL_CAPS                                                                             \
	(VMEM_EPT_CAP_2M | VMEM_EPT_CAP_1G | VMEM_EPT_CAP_3_LEVELS | VMEM_EPT_CAP_4_LEVELS |       \
	 VMEM_EPT_CAP_5_LEVELS | VMEM_EPT_CAP_AD | VMEM_EPT_CAP_TABLES_WB | VMEM_EPT_CAP_NO_EXEC | \
	 VMEM_EPT_CAP_SUPPRESS_VE | VMEM_EPT_CAP_PML | VMEM_EPT_CAP_SUBPAGE |                      \
	 VMEM_EPT_CAP_SHADOW_STACK | VMEM_EPT_CAP_PAGING_WRITE | VMEM_EPT_CAP_VERIFY |             \
	 VMEM_EPT_CAP_SNOOP)

static inline uint64_t *vmemt_entry_at(struct vmemt_tables *t, uint64_t hpa)
{
	if (hpa < VMEMT_TABLES_AT || hpa >= VMEMT_TABLES_AT + sizeof(t->page) || hpa % 8)
		return NULL;
	return &t->page[(hpa - VMEMT_TABLES_AT) / 4096][hpa % 4096 / 8];
}

static inline int vmemt_read(void *context, uint64_t hpa, uint64_t *ret_entry)
{
	const uint64_t *entry = vmemt_entry_at(context, hpa);

	if (!entry)
		return -1;
	*ret_entry = *entry;
	return 0;
}

static inline int vmemt_set(void *context, uint64_t hpa, uint64_t expected, uint64_t bits)
{
	struct vmemt_tables *t = context;
	uint64_t *entry = vmemt_entry_at(t, hpa);

	if (!entry)
		return -1;
	t->sets++;
	if (t->changing) {
		t->changing--;
		return 1;
	}
	if (*entry != expected)
		return 1;
	*entry |= bits;
	return 0;
}

static inline uint64_t vmemt_new_table(struct vmemt_tables *t)
{
	memset(t->page[t->used], 0, 4096);
	return VMEMT_TABLES_AT + 4096u * t->used++;
}

/* Empty tables of a format. The pointers are written by hand: Intel write-back, levels - 1 in 5:3, bit 6 A/D; AMD the
 * address alone; VT-d levels - 2, bit 9 A/D. */
static inline void vmemt_tables_begin(struct vmemt_tables *t, uint32_t format, uint32_t levels,
				      uint64_t caps, int ad)
{
	t->used = t->sets = t->changing = 0;
	t->levels = levels;
	t->processor = (struct vmem_ept_capabilities){
		.size = sizeof(t->processor), .format = format, .physical_bits = 40, .caps = caps
	};
	t->pointer = vmemt_new_table(t);
	if (format == VMEM_EPT_INTEL)
		t->pointer |= 6u | (levels - 1) << 3 | (ad ? 0x40u : 0);
	else if (format == VMEM_EPT_VTD)
		t->pointer |= (levels - 2) | (ad ? 0x200u : 0);
}

/* Entries with all rights, for one address and a leaf of the level. Tables that are there are used again. */
static inline void vmemt_path(struct vmemt_tables *t, struct vmemt_path *path, uint64_t gpa,
			      uint32_t leaf)
{
	static const uint64_t table_bits[] = { 0x407, 0x7, 0x3 }; /* Intel, AMD, VT-d */
	static const uint64_t leaf_bits[] = { 0x437, 0x7, 0x3 };  /* Intel: write-back */
	uint64_t table = t->pointer & UINT64_C(0xffffffffff000);

	memset(path, 0, sizeof(*path));
	path->gpa = gpa;
	path->leaf = leaf;
	for (uint32_t level = t->levels; level >= leaf; level--) {
		uint64_t index = gpa >> (12 + 9 * (level - 1)) & 511;
		uint64_t *entry = vmemt_entry_at(t, table + 8 * index);

		path->entry[level] = entry;
		if (level == leaf)
			*entry = VMEMT_PAGE_AT | leaf_bits[t->processor.format] |
				 (level > 1 ? 0x80u : 0);
		else if (!*entry)
			*entry = vmemt_new_table(t) | table_bits[t->processor.format];
		table = *entry & UINT64_C(0xffffffffff000);
	}
}

/* The accesses that tests make. */
enum vmemt_access {
	VMEMT_READ,
	VMEMT_WRITE,
	VMEMT_FETCH,
	VMEMT_FETCH_USER,
	VMEMT_TABLE,
	VMEMT_TABLE_WRITE,
	VMEMT_ACCESSES
};

static inline struct vmem_ept_access vmemt_access_of(const struct vmemt_tables *t, uint64_t gpa,
						     enum vmemt_access what, uint32_t context)
{
	static const uint32_t kinds[] = {
		VMEM_EPT_ACCESS_READ,        VMEM_EPT_ACCESS_WRITE,
		VMEM_EPT_ACCESS_FETCH,       VMEM_EPT_ACCESS_FETCH,
		VMEM_EPT_ACCESS_GUEST_TABLE, VMEM_EPT_ACCESS_GUEST_TABLE_WRITE
	};
	struct vmem_ept_access access = { .size = sizeof(access),
					  .gpa = gpa,
					  .kind = kinds[what],
					  .user = what == VMEMT_FETCH_USER,
					  .context = context,
					  .pointer = t->pointer };

	return access;
}

static inline struct vmem_ept_view vmemt_view(struct vmemt_tables *t)
{
	struct vmem_ept_view view = {
		.size = sizeof(view), .context = t, .read = vmemt_read, .set = vmemt_set
	};

	return view;
}

/* Walks; the outcome is -1 if the call fails. */
static inline struct vmem_ept_walked vmemt_walk_access(struct vmemt_tables *t,
						       const struct vmem_ept_access *access)
{
	struct vmem_ept_walked walked = { .size = sizeof(walked) };
	struct vmem_ept_view view = vmemt_view(t);

	if (vmem_ept_walk(&t->processor, &view, access, &walked) != 0)
		walked.outcome = UINT32_MAX;
	return walked;
}

static inline struct vmem_ept_walked vmemt_walk(struct vmemt_tables *t, uint64_t gpa,
						enum vmemt_access what, uint32_t context)
{
	struct vmem_ept_access access = vmemt_access_of(t, gpa, what, context);

	return vmemt_walk_access(t, &access);
}

#endif
