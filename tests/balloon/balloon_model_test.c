/* SPDX-License-Identifier: BSD-2-Clause */
/* Random buffers against flags for each page. */
#include "balloon/balloon_tools.h"

#define GFNS 12000u
#define STEPS 3000u
#define MOST 600u

static const struct {
	uint64_t first, pages, block;
} rams[] = { { 37, 1000, 1 }, { 1040, 808, 8 }, { 4096, 2048, 512 }, { 8192, 640, 64 } };

static struct model {
	bool owned[GFNS], due[GFNS], written[GFNS];
	bool remembers; /* pages of blocks that are not whole */
	uint64_t outside, twice, missing, in_use, unaligned, hints_written;
} m;

static int ram_of(uint64_t gfn)
{
	for (int i = 0; i < (int)(sizeof(rams) / sizeof(*rams)); i++)
		if (gfn >= rams[i].first && gfn < rams[i].first + rams[i].pages)
			return i;
	return -1;
}

static uint64_t block_of(uint64_t gfn)
{
	return gfn / rams[ram_of(gfn)].block * rams[ram_of(gfn)].block;
}

static void inflate(uint64_t gfn)
{
	uint64_t block, whole = 0;

	if (ram_of(gfn) < 0) {
		m.outside++;
		return;
	}
	if (m.owned[gfn]) {
		m.twice++;
		return;
	}
	m.owned[gfn] = true;
	block = block_of(gfn);
	for (uint64_t i = 0; i < rams[ram_of(gfn)].block; i++)
		whole += m.owned[block + i];
	if (!m.remembers && rams[ram_of(gfn)].block > 1)
		return;
	for (uint64_t i = 0; whole == rams[ram_of(gfn)].block && i < whole; i++)
		m.due[block + i] = true;
}

static void deflate(uint64_t gfn)
{
	if (ram_of(gfn) < 0)
		m.outside++;
	else if (!m.owned[gfn])
		m.missing++;
	else {
		m.owned[gfn] = false;
		m.due[gfn] = true;
	}
}

static void report(uint64_t first, uint64_t pages, bool hint)
{
	for (uint64_t gfn = first; gfn < first + pages;) {
		int ram = ram_of(gfn);
		uint64_t block, in_use = 0, written = 0;

		if (ram < 0) {
			m.outside++;
			gfn++;
			continue;
		}
		block = rams[ram].block;
		if (gfn % block || gfn + block > first + pages) {
			m.unaligned++;
			gfn++;
			continue;
		}
		for (uint64_t i = gfn; i < gfn + block; i++) {
			in_use += m.owned[i];
			written += hint && !m.owned[i] && m.written[i];
		}
		m.unaligned += in_use || written ? block - in_use - written : 0;
		m.in_use += in_use;
		m.hints_written += written;
		for (uint64_t i = 0; !in_use && !written && i < block; i++)
			m.due[gfn + i] = true;
		gfn += block;
	}
}

static uint64_t rng;

static uint64_t below(uint64_t n)
{
	return vmemt_rand(&rng) % n;
}

/* Runs up and down, single ones, and some far out; or of one RAM in any order. */
static uint32_t make_list(uint32_t *gfns)
{
	uint32_t count = (uint32_t)below(MOST), n = 0;
	uint64_t ram = below(8);

	for (; ram < sizeof(rams) / sizeof(*rams) && n < count; n++)
		gfns[n] = (uint32_t)(rams[ram].first + below(rams[ram].pages));
	while (n < count) {
		uint32_t at = (uint32_t)below(GFNS), run = 1 + (uint32_t)below(below(2) ? 3 : 200);
		uint32_t how = (uint32_t)below(8);

		for (uint32_t i = 0; i < run && n < count; i++, n++)
			gfns[n] = how == 0  ? (uint32_t)vmemt_rand(&rng) | UINT32_C(1) << 20
				  : how < 4 ? at - i
					    : at + i;
	}
	return count;
}

/* Entries for as many pages, that go on where the one before ended or do not. */
static uint32_t make_entries(uint64_t *entries, uint32_t *pages)
{
	uint32_t count = (uint32_t)below(20);
	uint64_t at = 0;

	for (uint32_t i = 0; i < count; i++) {
		pages[i] = (uint32_t)below(below(2) ? 3 : 600);
		if (below(3) == 0)
			at = below(4) ? below(GFNS) : below(GFNS) / 64 * 64;
		entries[i] = VMEM_BALLOON_RANGE(at, pages[i]);
		at += pages[i];
	}
	return count;
}

static void check_counters(const struct vmemt_balloon *t)
{
	struct vmem_balloon_counters c = vmemt_counters(t);

	cr_assert_eq(c.outside, m.outside);
	cr_assert_eq(c.inflated_twice, m.twice);
	cr_assert_eq(c.not_inflated, m.missing);
	cr_assert_eq(c.free_inflated, m.in_use);
	cr_assert_eq(c.unaligned, m.unaligned);
	cr_assert_eq(c.hints_written, m.hints_written);
}

/* Some of what is due, or all. */
static void take_ranges(struct vmemt_balloon *t, uint32_t operation, bool all)
{
	struct vmem_balloon_range r[3];
	uint64_t gfn = 0, end;
	size_t n;

	do {
		n = vmem_balloon_take_ranges(t->b, r, 1 + below(3));
		for (size_t i = 0; i < n; i++) {
			while (gfn < GFNS && !m.due[gfn])
				gfn++;
			cr_assert_eq(r[i].gpa, gfn * PAGE);
			cr_assert_eq(r[i].operation, operation);
			for (end = gfn; end < GFNS && m.due[end] && ram_of(end) == ram_of(gfn);
			     end++)
				m.due[end] = false;
			cr_assert_eq(r[i].bytes, (end - gfn) * PAGE);
			gfn = end;
		}
	} while (n && (all || below(3)));
	if (n)
		return;
	while (gfn < GFNS && !m.due[gfn])
		gfn++;
	cr_assert_eq(gfn, GFNS);
}

static void move_entries(struct vmemt_balloon *t, uint32_t queue)
{
	uint64_t entries[20];
	uint32_t pages[20], count = make_entries(entries, pages);

	for (uint32_t i = 0; i < count; i++)
		for (uint32_t k = 0; k < pages[i]; k++)
			(queue ? deflate : inflate)((entries[i] & ((UINT64_C(1) << 40) - 1)) + k);
	cr_assert_eq(vmemt_give(t, queue, entries, count * sizeof(*entries)), 0);
}

static void move_list(struct vmemt_balloon *t, uint32_t queue)
{
	uint32_t gfns[MOST], count = make_list(gfns);

	for (uint32_t k = 0; k < count; k++)
		(queue ? deflate : inflate)(gfns[k]);
	cr_assert_eq(vmemt_give(t, queue, gfns, count * sizeof(*gfns)), 0);
}

/* Some of what they make due is taken between them. The operation of what is left. */
static uint32_t some_buffers(struct vmemt_balloon *t, uint64_t features)
{
	uint32_t buffers = 1 + (uint32_t)below(4), operation = 0;
	uint32_t queue = (uint32_t)below(4);

	if (queue == 2) /* statistics are not pages */
		queue = VMEM_BALLOON_REPORT;
	for (uint32_t i = 0; i < buffers; i++) {
		if (queue <= VMEM_BALLOON_DEFLATE) {
			operation = queue ? VMEM_BALLOON_RETURN : VMEM_BALLOON_DISCARD;
			(features & VMEM_BALLOON_F_RANGES ? move_entries : move_list)(t, queue);
		} else {
			uint64_t first = below(GFNS), pages = 1 + below(1500);

			operation = queue == VMEM_BALLOON_HINT ? VMEM_BALLOON_DISCARD_HINTED
							       : VMEM_BALLOON_DISCARD_REPORTED;
			report(first, pages, queue == VMEM_BALLOON_HINT);
			cr_assert_eq(vmemt_give_piece(t, queue, first * PAGE, pages * PAGE), 0);
		}
		vmemt_balloon_sound(t->b);
		take_ranges(t, operation, below(3) == 0);
	}
	vmemt_balloon_sound(t->b);
	return operation;
}

static void one_step(struct vmemt_balloon *t, uint64_t features)
{
	take_ranges(t, some_buffers(t, features), true);
	while (vmem_balloon_take_done(t->b, &(struct vmem_balloon_done){ 0 }))
		;
}

static void begin_hints(struct vmemt_balloon *t)
{
	uint32_t id;

	cr_assert_eq(vmem_balloon_hint_start(t->b), 0);
	id = vmemt_config(t, VMEM_BALLOON_CONFIG_HINT_ID);
	cr_assert_eq(vmemt_give(t, VMEM_BALLOON_HINT, &id, sizeof(id)), 0);
	vmemt_no_range(t);
	vmemt_one_done(t, VMEM_BALLOON_HINT);
}

static void walk(uint64_t features)
{
	struct vmemt_balloon t = { 0 };

	rng = vmemt_seed("balloon_model");
	m.remembers = features & VMEM_BALLOON_F_MUST_TELL_HOST;
	vmemt_balloon_make(&t, features, PAGE);
	/* That one's RAM is not this one's. */
	vmem_balloon_free(t.b);
	cr_assert_eq(vmem_balloon_new(&t.b, &t.opts), 0);
	for (size_t i = sizeof(rams) / sizeof(*rams); i-- > 0;)
		cr_assert_eq(vmem_balloon_add_ram(t.b, rams[i].first * PAGE, rams[i].pages * PAGE,
						  rams[i].block * PAGE),
			     0);
	for (uint64_t gfn = 0; gfn < 4096; gfn++) /* as many as the guard knows of */
		if (below(50) == 0) {
			m.written[gfn] = true;
			t.watch.written[gfn / 64] |= UINT64_C(1) << gfn % 64;
		}
	vmemt_balloon_start(&t, features);
	begin_hints(&t);
	for (uint32_t i = 0; i < STEPS; i++) {
		one_step(&t, features);
		check_counters(&t);
		for (uint64_t gfn = 0; gfn < GFNS && i % 64 == 0; gfn++)
			cr_assert_eq(vmem_balloon_has(t.b, gfn * PAGE),
				     ram_of(gfn) < 0 ? -VMEM_ERANGE : m.owned[gfn]);
		if (below(100) == 0) {
			some_buffers(&t, features);
			vmem_balloon_set_status(t.b, 0, NULL);
			vmemt_no_range(&t);
			vmemt_balloon_sound(t.b);
			memset(m.owned, 0, sizeof(m.owned));
			memset(m.due, 0, sizeof(m.due));
			vmemt_balloon_start(&t, features);
			begin_hints(&t);
		}
	}
	vmem_balloon_hint_stop(t.b);
	vmemt_balloon_end(&t);
}

Test(balloon_model, random_buffers)
{
	walk(ALL_FEATURES | MODERN);
}

Test(balloon_model, random_entries)
{
	walk(ALL_FEATURES | VMEM_BALLOON_F_RANGES | MODERN);
}

Test(balloon_model, random_buffers_untold)
{
	walk((ALL_FEATURES & ~VMEM_BALLOON_F_MUST_TELL_HOST) | MODERN);
}

Test(balloon_model, random_entries_untold)
{
	walk((ALL_FEATURES & ~VMEM_BALLOON_F_MUST_TELL_HOST) | VMEM_BALLOON_F_RANGES | MODERN);
}
