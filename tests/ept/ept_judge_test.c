/* SPDX-License-Identifier: BSD-2-Clause */
/* The builder's trees judged by the walker, which shares no code with it: every leaf that it can make, in each format, on processors
 * that can much and little; and trees after random calls. What a processor would do must be what was asked for. */
#include <vmem/ept_walk.h>
#include "ept/ept_fixture.h"
#include "support/rng.h"

#define ALL_RIGHTS 15u

struct kind {
	uint32_t format, levels;
	uint64_t without; /* VMEM_EPT_CAP_* */
	uint64_t flags;   /* VMEM_EPT_AD ... */
};

static const struct kind kinds[] = {
	{ VMEM_EPT_INTEL, 4, 0, 0 },
	{ VMEM_EPT_INTEL, 4, 0, VMEM_EPT_AD | VMEM_EPT_SUPPRESS_ALL_VE },
	{ VMEM_EPT_INTEL, 5, 0, VMEM_EPT_AD },
	{ VMEM_EPT_INTEL, 4, VMEM_EPT_CAP_EXEC_ONLY | VMEM_EPT_CAP_MBEC | VMEM_EPT_CAP_1G, 0 },
	{ VMEM_EPT_INTEL, 4, VMEM_EPT_CAP_EXEC_ONLY, VMEM_EPT_NO_EXEC_LARGE },
	{ VMEM_EPT_INTEL, 4, VMEM_EPT_CAP_MBEC | VMEM_EPT_CAP_2M | VMEM_EPT_CAP_1G, VMEM_EPT_AD },
	{ VMEM_EPT_INTEL, 4,
	  VMEM_EPT_CAP_AD | VMEM_EPT_CAP_TABLES_WB | VMEM_EPT_CAP_PAGING_WRITE |
		  VMEM_EPT_CAP_VERIFY | VMEM_EPT_CAP_SUBPAGE | VMEM_EPT_CAP_SUPPRESS_VE,
	  0 },
	{ VMEM_EPT_AMD, 4, 0, 0 },
	{ VMEM_EPT_AMD, 5, 0, 0 },
	{ VMEM_EPT_AMD, 4, VMEM_EPT_CAP_NO_EXEC | VMEM_EPT_CAP_1G, 0 },
	{ VMEM_EPT_VTD, 3, 0, 0 },
	{ VMEM_EPT_VTD, 4, VMEM_EPT_CAP_SNOOP, VMEM_EPT_AD },
	{ VMEM_EPT_VTD, 5, VMEM_EPT_CAP_1G, 0 },
};

#define EACH_KIND(k) \
	for (const struct kind *k = kinds; k < kinds + sizeof(kinds) / sizeof(*kinds); k++)

static struct vmem_ept_capabilities processor;
static uint8_t *seen_pages;

static void begin(const struct kind *k)
{
	processor = vmemt_ept_caps_of(k->format, k->levels);
	processor.caps &= ~k->without;
	open_ept(2048, &processor, k->flags, k->levels, 0);
	seen_pages = calloc(pool.count, 1);
}

static void end(void)
{
	close_ept();
	free(seen_pages);
}

static int is_table(uint64_t hpa)
{
	return hpa >= VMEMT_EPT_BASE && hpa < VMEMT_EPT_BASE + 4096 * pool.count &&
	       pool.used[(hpa - VMEMT_EPT_BASE) / 4096];
}

static int read_entry(void *context, uint64_t hpa, uint64_t *ret_entry)
{
	(void)context;
	if (!is_table(hpa))
		return -1;
	*ret_entry = vmemt_ept_page(&pool, hpa & ~UINT64_C(4095))[hpa % 4096 / 8];
	return 0;
}

static int set_bits(void *context, uint64_t hpa, uint64_t expected, uint64_t bits)
{
	uint64_t *entry = &vmemt_ept_page(&pool, hpa & ~UINT64_C(4095))[hpa % 4096 / 8];

	(void)context;
	cr_assert_eq(*entry, expected);
	*entry |= bits;
	return 0;
}

static int seen(void *context, uint64_t hpa)
{
	(void)context;
	return is_table(hpa) && seen_pages[(hpa - VMEMT_EPT_BASE) / 4096]++;
}

static const struct vmem_ept_view view = { sizeof(view), NULL, read_entry, set_bits };

static struct vmem_ept_walked walk(const struct kind *k, uint64_t gpa, uint32_t access_kind,
				   uint32_t user)
{
	struct vmem_ept_walked walked = { .size = sizeof(walked) };
	struct vmem_ept_access access = { .size = sizeof(access),
					  .gpa = gpa,
					  .kind = access_kind,
					  .user = user,
					  .pointer = vmem_ept_pointer(ept) };

	if (k->format == VMEM_EPT_INTEL && (processor.caps & VMEM_EPT_CAP_MBEC))
		access.context |= VMEM_EPT_WALK_MBEC;
	if (k->format == VMEM_EPT_INTEL && (processor.caps & VMEM_EPT_CAP_SUPPRESS_VE))
		access.context |= VMEM_EPT_WALK_VE;
	if (k->format == VMEM_EPT_AMD && k->levels == 5)
		access.context |= VMEM_EPT_WALK_5_LEVELS;
	cr_assert_eq(vmem_ept_walk(&processor, &view, &access, &walked), 0);
	return walked;
}

/* The whole tree is sound, has no table too many, and is what the builder counts. */
static void judge_tree(const struct kind *k)
{
	struct vmem_ept_checked checked = { .size = sizeof(checked) };
	struct vmem_ept_stats stats = { .size = sizeof(stats) };
	uint32_t flags = VMEM_EPT_CHECK_TIGHT;

	if (k->flags & VMEM_EPT_SUPPRESS_ALL_VE)
		flags |= VMEM_EPT_CHECK_VE;
	if (k->format == VMEM_EPT_AMD && k->levels == 5)
		flags |= VMEM_EPT_CHECK_5_LEVELS;
	memset(seen_pages, 0, pool.count);
	cr_assert_eq(
		vmem_ept_check(&processor, &view, vmem_ept_pointer(ept), flags, seen, &checked), 0);
	cr_assert_eq(checked.defect, VMEM_EPT_SOUND, "defect %u (%u) at level %u, gpa %lx: %lx",
		     checked.defect, checked.misconfig, checked.level, (unsigned long)checked.gpa,
		     (unsigned long)checked.entry);
	cr_assert_eq(vmem_ept_get_stats(ept, &stats), 0);
	for (uint32_t i = 0; i < VMEM_EPT_LEVELS; i++) {
		cr_assert_eq(checked.tables[i], stats.tables[i], "tables of level %u: %lu, %lu",
			     i + 1, (unsigned long)checked.tables[i],
			     (unsigned long)stats.tables[i]);
		cr_assert_eq(checked.leaves[i], stats.leaves[i], "leaves of level %u: %lu, %lu",
			     i + 1, (unsigned long)checked.leaves[i],
			     (unsigned long)stats.leaves[i]);
	}
}

/* nCR3 does not tell how many levels there are. Tables as the capabilities have them are walked in the mode of the host that
 * these are from: what a guest writes into its page is never taken for an entry. */
Test(ept_judge, amd_tables_are_of_the_hosts_mode)
{
	for (uint32_t levels = 4; levels <= 5; levels++) {
		const struct kind k = { VMEM_EPT_AMD, levels, 0, 0 };
		struct vmem_ept_walked walked;

		processor = vmemt_ept_caps_of(VMEM_EPT_AMD, levels);
		open_ept(16, &processor, 0, 0, 0);
		cr_assert_eq(map_at(0, 4096, 0x5000, 1, 0), 0);
		walked = walk(&k, 0, VMEM_EPT_ACCESS_WRITE, 0);
		cr_assert_eq(walked.outcome, VMEM_EPT_WALK_OK);
		cr_assert_eq(walked.hpa, 0x5000, "%u levels: %lx", levels,
			     (unsigned long)walked.hpa);
		close_ept();
	}
}

/* Which right an access needs: a fetch by a device is a read, and without MBEC there is one right to execute. */
static uint32_t needed(const struct kind *k, uint32_t access_kind, uint32_t user)
{
	if (access_kind == VMEM_EPT_ACCESS_READ)
		return VMEM_EPT_READ;
	if (access_kind == VMEM_EPT_ACCESS_WRITE)
		return VMEM_EPT_WRITE;
	if (k->format == VMEM_EPT_VTD)
		return VMEM_EPT_READ;
	return user && (processor.caps & VMEM_EPT_CAP_MBEC) ? VMEM_EPT_EXEC_USER : VMEM_EPT_EXEC;
}

/* Each access to a place gets what the leaf says; rights 0: nothing is there for processors. */
static void judge_place(const struct kind *k, uint64_t gpa, const struct vmem_ept_leaf *leaf)
{
	for (uint32_t i = 0; i < 4; i++) {
		const uint32_t access_kind = i < 2 ? i : VMEM_EPT_ACCESS_FETCH, user = i == 3;
		const uint32_t right = needed(k, access_kind, user);
		struct vmem_ept_walked w = walk(k, gpa, access_kind, user);

		cr_assert_eq(w.outcome,
			     leaf->rights & right ? VMEM_EPT_WALK_OK : VMEM_EPT_WALK_VIOLATION,
			     "format %u gpa %lx rights %x access %u: %u %u", k->format,
			     (unsigned long)gpa, leaf->rights, i, w.outcome, w.misconfig);
		if (w.outcome == VMEM_EPT_WALK_OK) {
			cr_assert_eq(w.hpa, leaf->hpa, "%lx %lx", (unsigned long)w.hpa,
				     (unsigned long)leaf->hpa);
			if (leaf->level)
				cr_assert_eq(w.level, leaf->level);
			if ((k->flags & VMEM_EPT_NO_EXEC_LARGE) &&
			    (w.rights & (VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER)))
				cr_assert_eq(w.level, 1);
			cr_assert_eq(w.type, leaf->type);
			cr_assert_eq(w.ignore_pat, !!(leaf->flags & VMEM_EPT_LEAF_IGNORE_PAT));
			cr_assert_eq(w.rights, leaf->rights);
		} else if (k->flags & VMEM_EPT_SUPPRESS_ALL_VE) {
			cr_assert_eq(w.virtualization_exception,
				     !!(leaf->flags & VMEM_EPT_LEAF_VE));
		}
		if (w.outcome != VMEM_EPT_WALK_OK && k->format != VMEM_EPT_AMD)
			cr_assert_eq(w.qualification >> 3 & 15, leaf->rights);
	}
}

/* What a processor of that kind can have: written from the manuals, not from the builder. */
static int possible(const struct kind *k, uint32_t rights)
{
	const uint32_t exec = rights & (VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER);

	if (!rights || ((rights & VMEM_EPT_WRITE) && !(rights & VMEM_EPT_READ)))
		return 0;
	if (k->format == VMEM_EPT_VTD)
		return !exec;
	if (k->format == VMEM_EPT_AMD)
		return (rights & VMEM_EPT_READ) && !(rights & VMEM_EPT_EXEC_USER) &&
		       (exec || (processor.caps & VMEM_EPT_CAP_NO_EXEC));
	if ((rights & VMEM_EPT_EXEC_USER) && !(processor.caps & VMEM_EPT_CAP_MBEC))
		return 0;
	return (rights & VMEM_EPT_READ) || (processor.caps & VMEM_EPT_CAP_EXEC_ONLY);
}

static int has_type(const struct kind *k, uint32_t type)
{
	if (type == VMEM_EPT_WB)
		return 1;
	if (k->format == VMEM_EPT_VTD)
		return 0;
	if (type == VMEM_EPT_UC || type == VMEM_EPT_WT)
		return 1;
	return k->format == VMEM_EPT_INTEL && (type == VMEM_EPT_WC || type == VMEM_EPT_WP);
}

static uint32_t level_of(const struct kind *k, uint32_t level, uint32_t rights)
{
	if ((k->flags & VMEM_EPT_NO_EXEC_LARGE) && (rights & (VMEM_EPT_EXEC | VMEM_EPT_EXEC_USER)))
		return 1;
	if (level == 3 && !(processor.caps & VMEM_EPT_CAP_1G))
		level = 2;
	return level == 2 && !(processor.caps & VMEM_EPT_CAP_2M) ? 1 : level;
}

/* One leaf that is mapped alone, and taken away again. */
static void judge_leaf(const struct kind *k, uint32_t level, uint32_t rights, uint32_t type,
		       uint32_t flags)
{
	const uint64_t gpa = 0x40000000 * UINT64_C(5), bytes = VMEM_EPT_LEVEL_BYTES(level);
	struct vmem_ept_leaf leaf = {
		.hpa = 11 * GIB, .rights = rights, .type = type, .flags = flags
	};
	int fits = possible(k, rights) && has_type(k, type);
	int err;

	err = vmem_ept_map(ept, gpa, bytes, &leaf, 0, &change);
	cr_assert_eq(err == 0, fits, "format %u rights %x type %u: %d", k->format, rights, type,
		     err);
	judge_tree(k);
	leaf.level = level_of(k, level, rights);
	if (err)
		leaf.rights = 0;
	for (uint64_t i = 0; i < 4; i++) {
		const uint64_t inside[] = { 0, 4095, bytes - 1, bytes / 2 };
		struct vmem_ept_leaf at = leaf;

		at.hpa += inside[i];
		judge_place(k, gpa + inside[i], &at);
	}
	leaf.rights = leaf.flags = 0;
	judge_place(k, gpa - 1, &leaf);
	judge_place(k, gpa + bytes, &leaf);
	cr_assert_eq(vmem_ept_unmap(ept, gpa, bytes, &change), 0);
	vmem_ept_flushed(ept, change.epoch);
	judge_place(k, gpa, &leaf);
	cr_assert_eq(pool.out, 1);
}

static void judge_leaves(const struct kind *k, uint32_t level, uint32_t rights)
{
	for (uint32_t type = 0; type < 8; type++)
		judge_leaf(k, level, rights, type, 0);
	if (k->format == VMEM_EPT_INTEL)
		judge_leaf(k, level, rights, VMEM_EPT_WC, VMEM_EPT_LEAF_IGNORE_PAT);
	if (k->flags & VMEM_EPT_AD)
		judge_leaf(k, level, rights, VMEM_EPT_WB,
			   VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY);
}

Test(ept_judge, each_leaf)
{
	EACH_KIND(k)
	{
		begin(k);
		for (uint32_t level = 1; level <= 3; level++)
			for (uint32_t rights = 0; rights <= ALL_RIGHTS; rights++)
				judge_leaves(k, level, rights);
		end();
	}
}

/* A payload is nothing to a processor, whatever its bits, and does not become #VE. */
Test(ept_judge, payloads)
{
	const struct vmem_ept_leaf nothing = { 0 };

	EACH_KIND(k)
	{
		begin(k);
		for (uint32_t bit = 0; bit < VMEM_EPT_PAYLOAD_BITS; bit++)
			cr_assert_eq(vmem_ept_set_payload(ept, bit * UINT64_C(4096), 4096,
							  UINT64_C(1) << bit, 0, 0, &change),
				     0);
		cr_assert_eq(vmem_ept_set_payload(ept, GIB, 3 * MIB2,
						  (UINT64_C(1) << VMEM_EPT_PAYLOAD_BITS) - 1, 0, 0,
						  &change),
			     0);
		judge_tree(k);
		for (uint32_t bit = 0; bit < VMEM_EPT_PAYLOAD_BITS; bit++)
			judge_place(k, bit * UINT64_C(4096), &nothing);
		judge_place(k, GIB + 5 * MIB2 / 2, &nothing);
		end();
	}
}

/* The pointer says whether processors mark what they use. */
Test(ept_judge, accessed_and_dirty)
{
	struct vmem_ept_leaf leaf = { .hpa = 11 * GIB, .type = VMEM_EPT_WB }, now;

	EACH_KIND(k)
	{
		const int marks = k->format == VMEM_EPT_AMD || (k->flags & VMEM_EPT_AD);

		begin(k);
		leaf.rights = k->format == VMEM_EPT_VTD ? 3 : 7;
		cr_assert_eq(vmem_ept_map(ept, GIB, 4096, &leaf, 0, &change), 0);
		walk(k, GIB, VMEM_EPT_ACCESS_READ, 0);
		cr_assert_eq(vmem_ept_translate(ept, GIB, &now, NULL), 0);
		cr_assert_eq(now.flags, marks ? VMEM_EPT_LEAF_ACCESSED : 0);
		walk(k, GIB, VMEM_EPT_ACCESS_WRITE, 0);
		cr_assert_eq(vmem_ept_translate(ept, GIB, &now, NULL), 0);
		cr_assert_eq(now.flags, marks ? VMEM_EPT_LEAF_ACCESSED | VMEM_EPT_LEAF_DIRTY : 0);
		end();
	}
}

/* Leaves whose violations may become #VE, beside others of which none does. */
Test(ept_judge, virtualization_exceptions)
{
	const struct kind *k = &kinds[1];
	struct vmem_ept_leaf leaf = { .hpa = 11 * GIB,
				      .rights = VMEM_EPT_READ,
				      .type = VMEM_EPT_WB };

	begin(k);
	cr_assert_eq(vmem_ept_map(ept, GIB, 4096, &leaf, 0, &change), 0);
	leaf.flags = VMEM_EPT_LEAF_VE;
	cr_assert_eq(vmem_ept_map(ept, GIB + 4096, 4096, &leaf, 0, &change), 0);
	cr_assert_eq(walk(k, GIB, VMEM_EPT_ACCESS_WRITE, 0).virtualization_exception, 0);
	cr_assert_eq(walk(k, GIB + 4096, VMEM_EPT_ACCESS_WRITE, 0).virtualization_exception, 1);
	cr_assert_eq(walk(k, GIB + 4096, VMEM_EPT_ACCESS_READ, 0).virtualization_exception, 0);
	cr_assert_eq(walk(k, GIB + 8192, VMEM_EPT_ACCESS_READ, 0).virtualization_exception, 0);
	end();
}

/* Random calls on a window of 2 GiB, which ends and begins in the middle of a GiB, with a plain model of each page beside
 * it. Of a call that is refused nothing may be seen. */
#define WINDOW_PAGES 524288u

static struct page {
	uint64_t hpa;
	uint8_t mapped, rights, type, ignore_pat;
} pages[WINDOW_PAGES];

struct random_state {
	const struct kind *k;
	uint64_t rng;
	uint64_t window;
	unsigned done[10]; /* calls that were not refused */
};

static uint64_t random_page(struct random_state *s)
{
	/* Around the middle of each GiB and its ends, at large leaves, anywhere. */
	static const uint32_t at[] = { 0, 131072, 131072 + 262144 - 600, 3 * 512 };
	const uint64_t r = vmemt_rand(&s->rng);

	if ((r & 3) == 0)
		return (r >> 8) % (WINDOW_PAGES / 512) * 512;
	return (r & 3) == 1 ? (r >> 8) % WINDOW_PAGES
			    : at[r >> 2 & 3] + (r >> 8) % 4096 % (r >> 24 & 1 ? 8 : 1024);
}

static uint64_t random_pages(struct random_state *s, uint64_t first)
{
	const uint64_t r = vmemt_rand(&s->rng), left = WINDOW_PAGES - first;
	uint64_t count;

	switch (r & 7) {
	case 0: count = 262144 * (1 + (r >> 8 & 1)); break;
	case 1:
	case 2: count = 512 * (1 + (r >> 8) % 6); break;
	default: count = 1 + (r >> 8) % 700; break;
	}
	return count < left ? count : left;
}

static struct vmem_ept_leaf random_leaf(struct random_state *s, uint64_t gpa)
{
	const uint64_t r = vmemt_rand(&s->rng);
	struct vmem_ept_leaf leaf = { .hpa = gpa % (64 * GIB) + (r >> 32) % 7 * MIB2,
				      .rights = (uint32_t)r & ALL_RIGHTS,
				      .type = r >> 20 & 1 ? VMEM_EPT_WB : (uint32_t)(r >> 21) & 7,
				      .level = (uint32_t)(r >> 24) & 3 };

	if (!possible(s->k, leaf.rights))
		leaf.rights = s->k->format == VMEM_EPT_VTD ? 3 : 7;
	if (s->k->format == VMEM_EPT_INTEL && (r >> 26 & 1))
		leaf.flags = VMEM_EPT_LEAF_IGNORE_PAT;
	return leaf;
}

static void model_map(uint64_t first, uint64_t count, const struct vmem_ept_leaf *leaf)
{
	for (uint64_t i = 0; i < count; i++)
		pages[first + i] = (struct page){ .hpa = leaf->hpa + 4096 * i,
						  .mapped = 1,
						  .rights = (uint8_t)leaf->rights,
						  .type = (uint8_t)leaf->type,
						  .ignore_pat = leaf->flags != 0 };
}

static void model_rights(uint64_t first, uint64_t count, uint32_t clear, uint32_t set)
{
	for (struct page *p = pages + first; p < pages + first + count; p++)
		if (p->mapped)
			p->rights = (uint8_t)((p->rights & ~clear) | set);
}

static void model_type(uint64_t first, uint64_t count, const struct vmem_ept_leaf *leaf)
{
	for (struct page *p = pages + first; p < pages + first + count; p++) {
		p->type = (uint8_t)leaf->type;
		p->ignore_pat = leaf->flags != 0;
	}
}

static void random_call(struct random_state *s, uint64_t first, uint64_t count)
{
	const uint64_t gpa = s->window + 4096 * first, bytes = 4096 * count;
	const uint64_t r = vmemt_rand(&s->rng);
	const struct vmem_ept_leaf leaf = random_leaf(s, gpa);
	const uint32_t replace = r >> 30 & 3 ? VMEM_EPT_REPLACE : 0;
	const uint32_t clear = (uint32_t)(r >> 12) & ALL_RIGHTS;
	const uint32_t set = (uint32_t)(r >> 16) & (uint32_t)(r >> 36) & ALL_RIGHTS;
	const unsigned call = (unsigned)(r % 10);
	int err;

	switch (call) {
	case 0:
		err = vmem_ept_set_payload(ept, gpa, bytes, r >> 12, r >> 7 & 1, replace, &change);
		break;
	case 1: err = vmem_ept_split(ept, gpa, bytes, 1 + (r >> 7 & 1), &change); break;
	case 2: err = vmem_ept_unmap(ept, gpa, bytes, &change); break;
	case 3: err = vmem_ept_protect(ept, gpa, bytes, clear, set, &change); break;
	case 4: err = vmem_ept_set_type(ept, gpa, bytes, leaf.type, leaf.flags, &change); break;
	case 5: err = vmem_ept_merge(ept, gpa, bytes, 2 + (r >> 7 & 1), &change); break;
	case 6: err = vmem_ept_merge(ept, s->window, 2 * GIB, 3, &change); break;
	default: err = vmem_ept_map(ept, gpa, bytes, &leaf, replace, &change); break;
	}
	if (!err && call > 6)
		model_map(first, count, &leaf);
	if (!err && (call == 0 || call == 2))
		memset(pages + first, 0, count * sizeof(*pages));
	if (!err && call == 3)
		model_rights(first, count, clear, set);
	if (!err && call == 4)
		model_type(first, count, &leaf);
	s->done[call] += !err;
	if (change.epoch)
		vmem_ept_flushed(ept, change.epoch);
}

static void judge_page(struct random_state *s, uint64_t page)
{
	const struct page *p = &pages[page];
	const uint64_t inside = vmemt_rand(&s->rng) % 4096, gpa = s->window + 4096 * page + inside;
	const struct vmem_ept_leaf leaf = { .hpa = p->hpa + inside,
					    .rights = p->mapped ? p->rights : 0,
					    .type = p->type,
					    .flags = p->ignore_pat ? VMEM_EPT_LEAF_IGNORE_PAT : 0 };
	struct vmem_ept_leaf translated;
	int err = vmem_ept_translate(ept, gpa, &translated, NULL);

	judge_place(s->k, gpa, &leaf);
	cr_assert_eq(err, p->mapped ? 0 : -VMEM_ENOENT);
	if (err)
		return;
	cr_assert_eq(translated.hpa, leaf.hpa);
	cr_assert_eq(translated.rights, leaf.rights);
	cr_assert_eq(translated.type, leaf.type);
}

static void random_calls(struct random_state *s)
{
	const struct vmem_ept_leaf whole = { .hpa = 4 * GIB + GIB / 2,
					     .rights = 3,
					     .type = VMEM_EPT_WB };

	s->window = (s->k->levels == 3 ? 3 : 510) * GIB + GIB / 2;
	memset(pages, 0, sizeof(pages));
	begin(s->k);
	for (int i = 0; i < 90; i++) {
		const uint64_t first = random_page(s), count = random_pages(s, first);

		if (i % 30 == 0 && possible(s->k, whole.rights) &&
		    !vmem_ept_map(ept, s->window, 2 * GIB, &whole, VMEM_EPT_REPLACE, &change)) {
			model_map(0, WINDOW_PAGES, &whole);
			vmem_ept_flushed(ept, change.epoch);
		}
		random_call(s, first, count);
		for (int j = 0; j < 4; j++) {
			judge_page(s, random_page(s));
			judge_page(s, first + vmemt_rand(&s->rng) % count);
		}
		judge_page(s, first);
		judge_page(s, first + count - 1);
		judge_page(s, first ? first - 1 : 0);
		judge_page(s, first + count < WINDOW_PAGES ? first + count : first);
		if (i % 4 == 0)
			judge_tree(s->k);
	}
	judge_tree(s->k);
	end();
}

Test(ept_judge, random_calls)
{
	struct random_state s = { .rng = vmemt_seed("ept_judge") };

	for (s.k = kinds; s.k < kinds + sizeof(kinds) / sizeof(*kinds); s.k++)
		random_calls(&s);
	for (unsigned call = 0; call < 10; call++)
		cr_assert_gt(s.done[call], 0, "call %u was refused each time", call);
}
