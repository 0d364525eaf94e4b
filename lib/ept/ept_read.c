/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tables say: of a place, and of the next run from a place on. Writes nothing.
 * Guard: any thread; the entries are read atomically, and a table is whole before it is linked. */
#include "ept/ept_leaf.h"
#include "base/opts.h"

/* Entries that vmem_ept_translate_many() has on their way from memory: as many as a processor can, and some. */
#define AT_A_TIME 32u

/* What an entry says that is no small leaf as most are. */
static __attribute__((noinline)) int tell(const vmem_ept *ept, uint64_t entry, uint32_t level,
					  uint64_t gpa, struct vmem_ept_leaf *ret_leaf,
					  uint64_t *ret_payload)
{
	if (vmemi_ept_is_leaf(entry)) {
		vmemi_ept_leaf_read(ept, entry, level, gpa & (vmemi_ept_bytes(level) - 1),
				    ret_leaf);
		return 0;
	}
	if (ret_payload)
		*ret_payload = vmemi_ept_is_payload(entry) ? vmemi_ept_payload(ept, entry)
							   : VMEMI_EPT_NO_PAYLOAD;
	return -VMEM_ENOENT;
}

static __attribute__((noinline)) int translate(const vmem_ept *ept, uint64_t gpa,
					       struct vmem_ept_leaf *ret_leaf,
					       uint64_t *ret_payload)
{
	struct vmemi_ept_path path;

	if (gpa >= ept->guest_end)
		return -VMEM_ERANGE;
	vmemi_ept_descend(ept, gpa, 1, &path);
	return tell(ept, path.entry, path.level, gpa, ret_leaf, ret_payload);
}

/* An entry of level 1. Most are as common_mask says, and then few instructions need it: processors look up several
 * places at a time so. */
static inline int read_small(const vmem_ept *ept, uint64_t entry, uint64_t gpa,
			     struct vmem_ept_leaf *ret_leaf, uint64_t *ret_payload)
{
	if (__builtin_expect((entry & ept->common_mask) != ept->common_bits, 0))
		return tell(ept, entry, 1, gpa, ret_leaf, ret_payload);
	ret_leaf->hpa = (entry & VMEM_EPT_ADDRESS) + (gpa & (VMEM_PAGE_SIZE - 1));
	ret_leaf->rights = entry & 7;
	ret_leaf->type = (uint32_t)entry >> VMEM_EPT_INTEL_TYPE_SHIFT & 7;
	ret_leaf->flags = (uint32_t)(entry >> 7) & ept->common_flags;
	ret_leaf->level = 1;
	return 0;
}

int vmem_ept_translate(const vmem_ept *ept, uint64_t gpa, struct vmem_ept_leaf *ret_leaf,
		       uint64_t *ret_payload)
{
	const uint64_t *slot;

	if (__builtin_expect(gpa >= ept->quick_end, 0) || !(slot = vmemi_ept_quick_slot(ept, gpa)))
		return translate(ept, gpa, ret_leaf, ret_payload);
	return read_small(ept, vmemi_ept_load(slot), gpa, ret_leaf, ret_payload);
}

/* First the ways to all, then what is there. */
static size_t translate_some(const vmem_ept *ept, const uint64_t *gpas, size_t count,
			     struct vmem_ept_leaf *ret_leaves)
{
	const uint64_t *slots[AT_A_TIME];
	size_t mapped = 0;

	for (size_t i = 0; i < count; i++) {
		slots[i] = gpas[i] < ept->quick_end ? vmemi_ept_quick_slot(ept, gpas[i]) : NULL;
		__builtin_prefetch(slots[i]);
	}
	for (size_t i = 0; i < count; i++) {
		struct vmem_ept_leaf *leaf = &ret_leaves[i];
		int err = slots[i] ? read_small(ept, vmemi_ept_load(slots[i]), gpas[i], leaf, NULL)
				   : translate(ept, gpas[i], leaf, NULL);

		if (err)
			*leaf = (struct vmem_ept_leaf){ 0 };
		else
			mapped++;
	}
	return mapped;
}

size_t vmem_ept_translate_many(const vmem_ept *ept, const uint64_t *gpas, size_t count,
			       struct vmem_ept_leaf *ret_leaves)
{
	size_t mapped = 0;

	for (size_t at = 0; at < count; at += AT_A_TIME)
		mapped += translate_some(ept, gpas + at,
					 count - at < AT_A_TIME ? count - at : AT_A_TIME,
					 ret_leaves + at);
	return mapped;
}

/* The entry for the first place from *gpa on that is not empty, or false. */
static bool find(const vmem_ept *ept, uint64_t *gpa, struct vmemi_ept_path *path)
{
	while (*gpa < ept->guest_end) {
		vmemi_ept_descend(ept, *gpa, 1, path);
		if (!vmemi_ept_is_empty(path->entry))
			return true;
		*gpa = (*gpa | (vmemi_ept_bytes(path->level) - 1)) + 1;
		if (path->level > 1)
			continue;
		for (uint64_t *slot = path->slots[1] + 1; vmemi_ept_index(*gpa, 1); slot++) {
			if (!vmemi_ept_is_empty(vmemi_ept_load(slot)))
				break;
			*gpa += VMEM_PAGE_SIZE;
		}
	}
	return false;
}

/* The run and its last entry. */
struct growing {
	struct vmem_ept_run run;
	uint64_t entry;
	uint32_t level;
	bool settled; /* the step of payloads is known */
};

/* Whether the entry after it belongs to the run. */
static bool goes_on(const vmem_ept *ept, struct growing *g, uint64_t entry, uint32_t level)
{
	uint64_t step;

	if (!g->settled) {
		g->settled = true;
		step = vmemi_ept_payload(ept, entry) - g->run.payload;
		g->run.step = level == 1 && step == 1 && vmemi_ept_is_payload(entry);
	}
	if (vmemi_ept_is_leaf(g->entry))
		return level == g->level && entry == g->entry + vmemi_ept_bytes(level);
	return vmemi_ept_is_payload(entry) && (!g->run.step || level == 1) &&
	       vmemi_ept_payload(ept, entry) ==
		       g->run.payload + g->run.step * (g->run.bytes >> VMEM_PAGE_SHIFT);
}

static void begin_run(const vmem_ept *ept, uint64_t gpa, const struct vmemi_ept_path *path,
		      struct growing *g)
{
	uint64_t inside = gpa & (vmemi_ept_bytes(path->level) - 1);

	*g = (struct growing){
		.run = { .size = sizeof(g->run),
			 .gpa = gpa,
			 .bytes = vmemi_ept_bytes(path->level) - inside,
			 .payload = VMEMI_EPT_NO_PAYLOAD },
		.entry = path->entry,
		.level = path->level,
		.settled = true,
	};
	if (vmemi_ept_is_payload(path->entry)) {
		g->run.payload = vmemi_ept_payload(ept, path->entry);
		g->settled = path->level > 1;
		return;
	}
	vmemi_ept_leaf_read(ept, path->entry, path->level, inside, &g->run.leaf);
}

int vmem_ept_next(const vmem_ept *ept, uint64_t gpa, struct vmem_ept_run *ret_run)
{
	struct vmemi_ept_path path;
	struct growing g;

	if (!ret_run || ret_run->size < VMEMI_BYTES_TO(struct vmem_ept_run, step))
		return -VMEM_EINVAL;
	gpa &= ~(uint64_t)(VMEM_PAGE_SIZE - 1);
	if (gpa >= ept->guest_end)
		return -VMEM_ERANGE;
	if (!find(ept, &gpa, &path))
		return -VMEM_ENOENT;
	begin_run(ept, gpa, &path, &g);
	for (;;) {
		uint64_t at = gpa + g.run.bytes;

		if (at >= ept->guest_end)
			break;
		/* The slot after the last, or another table. */
		if (vmemi_ept_index(at, path.level) && path.level == 1) {
			path.entry = vmemi_ept_load(++path.slots[1]);
		} else {
			vmemi_ept_descend(ept, at, 1, &path);
		}
		if (!goes_on(ept, &g, path.entry, path.level))
			break;
		g.entry = path.entry;
		g.run.bytes += vmemi_ept_bytes(path.level);
	}
	return vmemi_opts_give(ret_run, &g.run, sizeof(g.run));
}
