/* SPDX-License-Identifier: BSD-2-Clause */
/* The cluster that a cursor has: it comes, holds what is free there, is stopped, and leaves. All under the lock; what
 * it does without is take_one(). See slots_internal.h. */
#include "slots/slots_internal.h"
#include "base/prefetch.h"

#define SHY 64u /* slots: what stopping a cursor costs is shared by so many */

void vmemi_slots_hold(struct vmem_slots_cursor *c)
{
	struct vmemi_slots_table *t = c->table;

	for (uint32_t word = 0; word < VMEMI_SLOTS_WORDS; word++)
		if (~atomic_load_explicit(&t->used[word], memory_order_relaxed))
			atomic_store_explicit(&t->held[word],
					      ~atomic_exchange(&t->used[word], ~UINT64_C(0)),
					      memory_order_release);
	c->word = 0;
	c->bits = atomic_load_explicit(&t->held[0], memory_order_relaxed);
}

void vmemi_slots_put_back(struct vmem_slots_cursor *c)
{
	struct vmemi_slots_table *t = c->table;

	/* What it has failed to take, because it was to be stopped, is in c->bits only. */
	atomic_store_explicit(&t->held[c->word], c->bits, memory_order_relaxed);
	for (uint32_t word = c->word; word < VMEMI_SLOTS_WORDS; word++) {
		uint64_t bits = atomic_load_explicit(&t->held[word], memory_order_relaxed);

		if (bits)
			atomic_fetch_and(&t->used[word], ~bits);
		atomic_store_explicit(&t->held[word], 0, memory_order_release);
	}
	c->bits = 0;
	atomic_store_explicit(&t->stop, VMEMI_SLOTS_RUNNING, memory_order_release);
}

/* All that it held is free, but one that it had let go of before it saw that it was stopped. */
static void leave_stopped(struct vmem_slots_cursor *c)
{
	struct vmemi_slots_table *t = c->table;

	if (c->bits && t->seen != c->word * 64 + (uint32_t)__builtin_ctzll(c->bits))
		atomic_fetch_and(&t->used[c->word], ~(c->bits & -c->bits));
	for (uint32_t word = 0; word < VMEMI_SLOTS_WORDS; word++)
		atomic_store_explicit(&t->held[word], 0, memory_order_relaxed);
	atomic_store_explicit(&t->stop, VMEMI_SLOTS_RUNNING, memory_order_release);
}

void vmemi_slots_leave(vmem_slots *s, struct vmem_slots_cursor *c)
{
	struct vmemi_slots_table *t = c->table;
	struct vmemi_slots_place p;

	if (!t || !vmemi_slots_find(s, c->first, &p))
		return;
	if (atomic_load(&t->stop) == VMEMI_SLOTS_STOPPED)
		leave_stopped(c);
	else
		vmemi_slots_put_back(c);
	c->table = NULL;
	c->bits = 0;
	vmemi_slots_mark(p.cluster, 0, VMEMI_SLOTS_CURSOR);
	if (vmemi_slots_any_free(t) && p.number < atomic_load(&p.device->clusters))
		vmemi_slots_room(&p);
	vmemi_slots_give_up(s, &p);
}

void vmemi_slots_sit(struct vmem_slots_cursor *c, const struct vmemi_slots_place *p, uint64_t first)
{
	struct vmemi_slots_table *t = atomic_load(&p->cluster->table);

	vmemi_slots_mark(p->cluster, VMEMI_SLOTS_CURSOR, 0);
	c->table = t;
	c->first = first;
	/* For the slots that are taken first; take_next() looks after those behind them. */
	for (uint32_t at = 0; at < VMEMI_SLOTS_AHEAD; at += 8)
		vmemi_fetch_to_write((const void *)&t->owner[at]);
	vmemi_slots_hold(c);
}

static bool holds_any(const struct vmemi_slots_table *t)
{
	uint64_t bits = 0;

	for (uint32_t word = 0; word < VMEMI_SLOTS_WORDS; word++)
		bits |= atomic_load(&t->held[word]);
	return bits != 0;
}

bool vmemi_slots_stop(vmem_slots *s, const struct vmemi_slots_place *p)
{
	struct vmemi_slots_table *t = atomic_load(&p->cluster->table);

	if (atomic_load(&t->stop) == VMEMI_SLOTS_STOPPED || !holds_any(t))
		return true;
	atomic_exchange(&t->stop, VMEMI_SLOTS_STOPPING);
	if (!s->fences && s->env.barrier && s->env.barrier(s->env.context) != 0)
		return false;
	t->seen = VMEM_SLOTS_CLUSTER;
	for (uint32_t word = VMEMI_SLOTS_WORDS; word-- > 0;) {
		uint64_t bits = atomic_load(&t->held[word]);

		if (!bits)
			continue;
		atomic_fetch_and(&t->used[word], ~bits);
		t->seen = word * 64 + (uint32_t)__builtin_ctzll(bits);
	}
	t->shy = SHY;
	atomic_store_explicit(&t->stop, VMEMI_SLOTS_STOPPED, memory_order_release);
	return true;
}
