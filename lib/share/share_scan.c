/* SPDX-License-Identifier: BSD-2-Clause */
/* The scan: passes over all ranges in the order of their keys, in batches of pages, at a pace. */
#include "share/share_internal.h"

#define NS_PER_SECOND UINT64_C(1000000000)
#define BURST_PER_SECOND \
	10u /* one call does no more than the limits allow in a tenth of a second */
#define SKIPPED_PER_VISIT 64u /* pages that cost together as much as one that is visited */
#define ORPHANS_TOLERATED 32u /* one in so many entries */
#define BATCHES_PER_SWEEP 4u
#define HINTS_PER_SWEEP (BATCHES_PER_SWEEP * VMEMI_SHARE_BATCH) /* as many as pages were visited */
#define GROUPS_PER_SWEEP 64u
#define LINES_TO_PREFETCH 8u
#define LINE_BYTES 64u
#define SHRINK_LINES 4u

/* --- Visiting a page --- */

/* What the last visit says of this one: the page goes up or down the ladder. Whether there is something
 * to look up. */
static bool note_visit(struct vmem_share *s, struct vmemi_share_visit *v)
{
	uint8_t state = vmemi_share_state(v->page);
	enum vmemi_share_kind kind = vmemi_share_kind_of(state);
	bool same = v->page.range->check[v->page.offset] == v->mix >> 16;
	uint32_t rung = vmemi_share_rung_of(state);

	/* Another page of this batch was joined with it or has dropped its hint, and it may have left
	 * again: what was read is not good any more. */
	if (state != v->state)
		return false;
	if (kind == VMEMI_SHARE_NEW || same) {
		rung = 0;
	} else {
		vmemi_share_count(&s->changed, 1);
		if (rung < VMEMI_SHARE_RUNGS - 1)
			rung++;
	}
	v->rung = rung;
	if (kind == VMEMI_SHARE_HINTED && !same)
		vmemi_share_unhint(s, v->page, VMEMI_SHARE_SEEN, rung, true);
	return kind != VMEMI_SHARE_HINTED || !same;
}

/* Nothing equal was found: the page is recorded, unless it keeps changing. */
static void settle(struct vmem_share *s, const struct vmemi_share_visit *v)
{
	struct vmemi_share_range *r = v->page.range;
	enum vmemi_share_kind kind = VMEMI_SHARE_SEEN;

	if (v->rung <= 1 && !v->over && !v->again) {
		int err = vmem_dedup_hint(s->dedup, r->domain, v->hash, vmemi_share_index(v->page));

		if (!err || err == -VMEM_EEXIST)
			kind = VMEMI_SHARE_HINTED;
		if (err == -VMEM_EEXIST) /* an orphan no more */
			s->orphans -= s->orphans > 0;
	}
	r->hinted += kind == VMEMI_SHARE_HINTED;
	atomic_store_explicit(&r->state[v->page.offset], vmemi_share_state_of(kind, v->rung),
			      memory_order_relaxed);
}

static void visit(struct vmem_share *s, struct vmemi_share_visit *v)
{
	uint32_t id = 0;
	int found;

	if (!note_visit(s, v))
		return;
	found = vmem_dedup_find(s->dedup, v->page.range->domain, v->hash, v, &id);
	v->page.range->check[v->page.offset] = (uint16_t)(v->mix >> 16);
	if (found <= 0)
		settle(s, v);
	vmemi_share_join(s, v, found, id);
}

/* --- Batches --- */

/* Passes a page by, if it is not to be visited now. */
static bool is_due(struct vmem_share *s, struct vmemi_share_page page)
{
	uint8_t state = vmemi_share_state(page);

	if (vmemi_share_kind_of(state) == VMEMI_SHARE_MERGED)
		return false;
	if (!vmemi_share_skip_of(state))
		return true;
	atomic_store_explicit(&page.range->state[page.offset],
			      (uint8_t)(state - VMEMI_SHARE_SKIP_ONE), memory_order_relaxed);
	vmemi_share_count(&s->skipped, 1);
	return false;
}

/* Pages that are due, and how many were passed by for them, at most @most of both. */
struct batch {
	uint32_t count;
	uint64_t passed;
};

static struct batch gather(struct vmem_share *s, uint32_t most_visits, uint64_t most)
{
	struct batch b = { 0, 0 };

	while (s->in_pass && b.count < most_visits && b.passed < most) {
		uint32_t number = vmemi_share_range_from(s, s->cursor);
		struct vmemi_share_page page;

		if (number == s->range_count)
			break;
		page.range = s->ranges[number];
		page.offset = s->cursor > page.range->first ? s->cursor - page.range->first : 0;
		if (!page.range->on) {
			s->passed += page.range->pages - page.offset;
			page.offset = page.range->pages;
		}
		for (; page.offset < page.range->pages && b.count < most_visits && b.passed < most;
		     page.offset++, b.passed++)
			if (is_due(s, page))
				s->visits[b.count++].page = page;
		s->cursor = vmemi_share_key(page);
		if (!s->cursor) /* behind the last key that there is */
			s->in_pass = false;
	}
	if (vmemi_share_range_from(s, s->cursor) == s->range_count)
		s->in_pass = false;
	s->passed += b.passed;
	return b;
}

static void prefetch_page(const void *bytes)
{
	for (uint32_t i = 0; i < LINES_TO_PREFETCH; i++)
		__builtin_prefetch((const unsigned char *)bytes + i * LINE_BYTES);
}

/* Pages that are absent leave the batch. */
static void read_batch(struct vmem_share *s, struct batch *b)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < b->count; i++) {
		struct vmemi_share_visit *v = &s->visits[count];
		struct vmemi_share_page page = s->visits[i].page;

		*v = (struct vmemi_share_visit){ .page = page, .state = vmemi_share_state(page) };
		if (!s->opts.page)
			v->buffer = s->buffers + count * VMEM_PAGE_SIZE;
		v->bytes = vmemi_share_bytes(s, page, v->buffer);
		if (v->bytes) {
			count++;
			prefetch_page(v->bytes);
		} else if (vmemi_share_kind_of(vmemi_share_state(page)) == VMEMI_SHARE_HINTED) {
			vmemi_share_unhint(s, page, VMEMI_SHARE_NEW, 0, true);
		} else {
			atomic_store_explicit(&page.range->state[page.offset],
					      vmemi_share_state_of(VMEMI_SHARE_NEW, 0),
					      memory_order_relaxed);
		}
	}
	b->count = count;
}

static void visit_batch(struct vmem_share *s, struct batch *b)
{
	read_batch(s, b);
	for (uint32_t i = 0; i < b->count; i++) {
		struct vmemi_share_visit *v = &s->visits[i];
		uint32_t domain = v->page.range->domain;

		v->hash = vmem_dedup_hash(s->dedup, v->bytes);
		v->mix = vmemi_dedup_mix(s->dedup, domain, v->hash);
		vmem_dedup_prefetch(s->dedup, domain, v->hash);
	}
	for (uint32_t i = 0; i < b->count; i++)
		visit(s, &s->visits[i]);
	vmemi_share_count(&s->visited, b->count);
}

/* --- Orphans --- */

/* Searches a group of the table for them. Returns how many hints there were. */
static uint32_t sweep_group(struct vmem_share *s)
{
	uint32_t count = vmemi_dedup_hints(s->dedup, &s->sweep, s->hints);

	for (uint32_t i = 0; i < count; i++) {
		struct vmemi_dedup_hint h = s->hints[i];

		if (vmemi_share_hint_is_good(vmemi_share_page_at(s, h.key), h.mix))
			continue;
		vmemi_dedup_forget(s->dedup, h.mix, h.key);
		s->orphans -= s->orphans > 0;
	}
	return count;
}

/* Searches some groups, if they are many: about the whole table in a pass. */
static void sweep(struct vmem_share *s)
{
	uint64_t entries = atomic_load_explicit(&s->dedup->entries, memory_order_relaxed);
	uint32_t hints = 0;

	if (!s->orphans || s->orphans * ORPHANS_TOLERATED < entries)
		return;
	for (uint32_t n = 0; n < GROUPS_PER_SWEEP && hints < HINTS_PER_SWEEP; n++)
		hints += sweep_group(s);
	vmem_dedup_work(s->dedup, SHRINK_LINES);
}

/* --- Pace --- */

/* @part of @whole of @ns, without overflow. */
static uint64_t part_of(uint64_t ns, uint64_t part, uint64_t whole)
{
	return ns / whole * part + ns % whole * part / whole;
}

/* How many visits one call may make. */
static uint64_t visits_allowed(const struct vmem_share *s, uint64_t budget_ns)
{
	const struct vmem_share_limits *l = &s->limits;
	uint64_t most = budget_ns / l->page_ns;

	if (l->pages_per_second && most > l->pages_per_second / BURST_PER_SECOND)
		most = l->pages_per_second / BURST_PER_SECOND;
	if (l->pass_ns > NS_PER_SECOND / BURST_PER_SECOND) {
		uint64_t in_burst = part_of(s->pages, NS_PER_SECOND / BURST_PER_SECOND, l->pass_ns);

		if (most > in_burst)
			most = in_burst;
	}
	if (most > UINT32_MAX)
		most = UINT32_MAX;
	return most < VMEMI_SHARE_BATCH ? VMEMI_SHARE_BATCH : most;
}

/* What a call took that began at @begun, by the thread's clock or, without one, a guess. */
static uint64_t cost_of(const struct vmem_share *s, uint64_t begun, uint64_t visits,
			uint64_t passed)
{
	uint64_t page_ns = s->limits.page_ns;

	if (s->env.cpu_time_ns)
		return vmemi_cpu_ns(&s->env) - begun;
	return visits * page_ns + (passed - visits) * page_ns / SKIPPED_PER_VISIT;
}

/* After so much work, when the next may begin. */
static void set_pace(struct vmem_share *s, uint64_t now_ns, uint64_t visits, uint64_t cost)
{
	const struct vmem_share_limits *l = &s->limits;
	uint64_t next = now_ns, limit;

	if (l->pages_per_second)
		next = now_ns + part_of(NS_PER_SECOND, visits, l->pages_per_second);
	limit = now_ns + part_of(cost, 100, l->cpu_percent);
	if (l->cpu_percent < 100 && next < limit)
		next = limit;
	limit = s->pass_started_ns;
	if (s->in_pass && s->pages)
		limit += part_of(l->pass_ns, s->passed < s->pages ? s->passed : s->pages, s->pages);
	else
		limit += l->pass_ns;
	if (l->pass_ns && next < limit)
		next = limit;
	s->not_before_ns = next;
}

/* --- The scan --- */

static void begin_pass(struct vmem_share *s, uint64_t now_ns)
{
	s->in_pass = true;
	s->cursor = 0;
	s->passed = 0;
	s->pass_started_ns = now_ns;
}

static void end_pass(struct vmem_share *s, uint64_t now_ns)
{
	vmem_dedup_work(s->dedup, SHRINK_LINES);
	vmemi_share_count(&s->passes, 1);
	atomic_store_explicit(&s->pass_ns, now_ns - s->pass_started_ns, memory_order_relaxed);
}

uint64_t vmem_share_scan(vmem_share *s, uint64_t now_ns, uint64_t budget_ns, uint64_t *ret_next_ns)
{
	uint64_t left = visits_allowed(s, budget_ns), skips_left = left * SKIPPED_PER_VISIT;
	uint64_t visits = 0, passed = 0, batches = 0, begun = vmemi_cpu_ns(&s->env);

	if (s->range_count && now_ns >= s->not_before_ns) {
		if (!s->in_pass)
			begin_pass(s, now_ns);
		while (s->in_pass && left && skips_left) {
			struct batch b = gather(
				s, left < VMEMI_SHARE_BATCH ? (uint32_t)left : VMEMI_SHARE_BATCH,
				skips_left);

			left -= b.count;
			skips_left -= b.passed;
			passed += b.passed;
			visit_batch(s, &b);
			visits += b.count;
			if (++batches % BATCHES_PER_SWEEP == 0)
				sweep(s);
		}
		if (!s->in_pass)
			end_pass(s, now_ns);
		set_pace(s, now_ns, visits, cost_of(s, begun, visits, passed));
	}
	if (ret_next_ns)
		*ret_next_ns = s->range_count ? s->not_before_ns : UINT64_MAX;
	return visits;
}
