/* SPDX-License-Identifier: BSD-2-Clause */
/* Taking slots: from the cursor's cluster, or a new cluster for the cursor. See slots_internal.h. */
#include "slots/slots_internal.h"
#include "base/mem.h"
#include "base/prefetch.h"

/* One search for a run. */
struct search {
	vmem_slots *slots;
	struct vmem_slots_cursor *cursor;
	uint32_t count;
	uint32_t except; /* devices, a bit each */
	uint32_t device;
	struct vmemi_slots_device *at;
	struct vmemi_slots_table *fresh; /* for a cluster without one; NULL: there is none */
	bool wants_table;                /* one was missing */
	bool no_memory;                  /* for one */
	bool not_stopped;                /* somebody's cursor, which holds some */
	uint64_t slot;                   /* what was found */
};

/* --- One slot, without the lock --- */

/* The first slot of those that the cursor takes from, of which there are some. Others see that its bit has gone, or their
 * `stop` is seen here: @fences is s->fences. */
static inline bool take_next(struct vmem_slots_cursor *c, bool fences, uint64_t owner,
			     uint64_t *ret_slot)
{
	struct vmemi_slots_table *t = c->table;
	uint64_t bits = c->bits, rest = bits & (bits - 1);
	uint32_t at = c->word * 64 + (uint32_t)__builtin_ctzll(bits);

	if (fences) {
		atomic_exchange(&t->held[c->word], rest);
	} else {
		atomic_store_explicit(&t->held[c->word], rest, memory_order_relaxed);
		atomic_signal_fence(memory_order_seq_cst);
	}
	if (atomic_load(&t->stop))
		return false; /* and c->bits stay: leaving tells if it has been given to others */
	c->bits = rest;
	atomic_store_explicit(&t->owner[at], owner, memory_order_relaxed);
	/* Whoever gives a slot back waits for stores that are on their way: those to come find their line there. */
	vmemi_fetch_to_write(
		(const void *)&t->owner[(at + VMEMI_SLOTS_AHEAD) % VMEM_SLOTS_CLUSTER]);
	*ret_slot = c->first + at;
	return true;
}

/* The first slot that the cursor holds. What it holds in words behind its own has been taken. */
static bool take_one(const vmem_slots *s, struct vmem_slots_cursor *c, uint64_t owner,
		     uint64_t *ret_slot)
{
	const struct vmemi_slots_table *t = c->table;

	while (!c->bits) {
		if (!t || c->word + 1 >= VMEMI_SLOTS_WORDS)
			return false;
		c->word++;
		c->bits = atomic_load_explicit(&t->held[c->word], memory_order_relaxed);
	}
	return take_next(c, s->fences, owner, ret_slot);
}

/* --- A run in a table --- */

/* Bit i of @bits becomes bit i + @by of what it was. */
static void shift_down(uint64_t bits[VMEMI_SLOTS_WORDS], uint32_t by)
{
	uint32_t words = by / 64, rest = by % 64;

	for (uint32_t i = 0; i < VMEMI_SLOTS_WORDS; i++) {
		uint64_t low = i + words < VMEMI_SLOTS_WORDS ? bits[i + words] : 0;
		uint64_t high = i + words + 1 < VMEMI_SLOTS_WORDS ? bits[i + words + 1] : 0;

		bits[i] = rest ? low >> rest | high << (64 - rest) : low;
	}
}

/* The first of @count bits in a row; 512: none. A bit stays if those behind it are set, twice as many each time. */
static uint32_t find_run(const struct vmemi_slots_table *t, uint32_t count)
{
	uint64_t bits[VMEMI_SLOTS_WORDS], moved[VMEMI_SLOTS_WORDS];
	uint32_t step;

	for (uint32_t i = 0; i < VMEMI_SLOTS_WORDS; i++)
		bits[i] = ~atomic_load(&t->used[i]);
	for (uint32_t have = 1; have < count; have += step) {
		step = have < count - have ? have : count - have;
		memcpy(moved, bits, sizeof(bits));
		shift_down(moved, step);
		for (uint32_t i = 0; i < VMEMI_SLOTS_WORDS; i++)
			bits[i] &= moved[i];
	}
	for (uint32_t i = 0; i < VMEMI_SLOTS_WORDS; i++)
		if (bits[i])
			return i * 64 + (uint32_t)__builtin_ctzll(bits[i]);
	return VMEM_SLOTS_CLUSTER;
}

/* False: somebody has taken one of them meanwhile. */
static bool claim(struct vmemi_slots_table *t, uint32_t first, uint32_t count)
{
	uint32_t word;

	for (word = first / 64; word < VMEMI_SLOTS_WORDS; word++) {
		uint64_t mask = vmemi_slots_mask(first, count, word);
		uint64_t bits = atomic_load(&t->used[word]);

		while (!(bits & mask) &&
		       !atomic_compare_exchange_weak(&t->used[word], &bits, bits | mask))
			;
		if (bits & mask)
			break;
	}
	if (word == VMEMI_SLOTS_WORDS)
		return true;
	while (word-- > first / 64)
		atomic_fetch_and(&t->used[word], ~vmemi_slots_mask(first, count, word));
	return false;
}

/* 512: there is no such run. The lock is held, so one that fails has met the cluster's cursor, which went on. */
static uint32_t take_run(struct vmemi_slots_cluster *c, uint32_t count)
{
	struct vmemi_slots_table *t = atomic_load(&c->table);
	uint32_t at;

	vmemi_slots_know(c, 0);
	do {
		at = find_run(t, count);
	} while (at < VMEM_SLOTS_CLUSTER && !claim(t, at, count));
	/* Who has freed one since then tells. */
	vmemi_slots_know(c, at < VMEM_SLOTS_CLUSTER ? VMEMI_SLOTS_LONGEST_UNKNOWN : count - 1);
	return at;
}

/* --- A cluster for the cursor. The lock is held --- */

static struct vmemi_slots_place place_of(const struct search *s, uint64_t cluster)
{
	struct vmemi_slots_place p = { .device = s->at, .number = cluster };

	p.chunk = atomic_load(&s->at->chunk[cluster / VMEMI_SLOTS_CHUNK]);
	p.cluster = &p.chunk->cluster[cluster % VMEMI_SLOTS_CHUNK];
	return p;
}

static void sit_down(struct search *s, const struct vmemi_slots_place *p)
{
	vmemi_slots_leave(s->slots, s->cursor);
	vmemi_slots_sit(s->cursor, p, VMEM_SLOT(s->device, p->number * VMEM_SLOTS_CLUSTER));
	s->at->hint = p->number + 1;
}

/* The run, in this cluster. */
static bool take_in(struct search *s, const struct vmemi_slots_place *p)
{
	uint32_t at;

	if (p->cluster->longest < s->count)
		return false;
	at = take_run(p->cluster, s->count);
	s->slot = VMEM_SLOT(s->device, p->number * VMEM_SLOTS_CLUSTER + at);
	return at < VMEM_SLOTS_CLUSTER;
}

/* A cluster without free slots is looked at no more, until one is freed: take_in() has asked to be told. */
static void forget_room(const struct vmemi_slots_place *p)
{
	if (!vmemi_slots_any_free(atomic_load(&p->cluster->table)))
		p->chunk->room &= ~(UINT64_C(1) << p->number % VMEMI_SLOTS_CHUNK);
}

/* In a cluster that no cursor has. This one gets it, but one slot of a cluster that many want is just taken. */
static bool take_left(struct search *s, const struct vmemi_slots_place *p)
{
	struct vmemi_slots_table *t = atomic_load(&p->cluster->table);

	if (s->count == 1 && !t->shy && vmemi_slots_any_free(t)) {
		sit_down(s, p);
		return take_one(s->slots, s->cursor, 0, &s->slot);
	}
	if (!take_in(s, p)) {
		forget_room(p);
		return false;
	}
	if (t->shy)
		t->shy--;
	else
		sit_down(s, p);
	return true;
}

/* In a cluster with a table: one that no cursor has; or, at last, one that some cursor has. */
static bool take_used(struct search *s, uint64_t cluster, bool others)
{
	struct vmemi_slots_place p = place_of(s, cluster);
	bool stopped, found;

	if (vmemi_slots_has(p.cluster, VMEMI_SLOTS_CURSOR) != others)
		return false;
	if (!others)
		return take_left(s, &p);
	if (p.cluster->longest < s->count)
		return false;
	stopped = vmemi_slots_stop(s->slots, &p);
	found = take_in(s, &p);
	if (!stopped) { /* what is free but for its cursor's says nothing */
		s->not_stopped = true;
		vmemi_slots_know(p.cluster, VMEMI_SLOTS_LONGEST_UNKNOWN);
	}
	return found;
}

static bool take_empty(struct search *s, uint64_t cluster)
{
	struct vmemi_slots_place p = place_of(s, cluster);
	struct vmemi_slots_table *t = s->fresh;

	for (uint32_t word = 0; word < VMEMI_SLOTS_WORDS; word++) {
		atomic_store(&t->used[word], 0);
		atomic_store(&t->held[word], 0);
		atomic_store(&t->discard[word], 0);
		atomic_store(&t->cut[word], 0);
	}
	atomic_store(&t->stop, VMEMI_SLOTS_RUNNING);
	t->shy = 0;
	s->fresh = NULL;
	s->at->tables++;
	p.chunk->empty &= ~(UINT64_C(1) << cluster % VMEMI_SLOTS_CHUNK);
	atomic_store(&p.cluster->table, t);
	vmemi_slots_room(&p);
	return take_left(s, &p);
}

enum kind { USED, EMPTY, OTHERS };

/* Bits of the clusters of a chunk that may have it. */
static uint64_t candidates(const struct search *s, uint64_t chunk, enum kind kind)
{
	const struct vmemi_slots_chunk *c = atomic_load(&s->at->chunk[chunk]);
	uint64_t first = chunk * VMEMI_SLOTS_CHUNK, clusters = atomic_load(&s->at->clusters);
	uint64_t bits = kind == EMPTY ? c->empty : c->room;

	return clusters - first < VMEMI_SLOTS_CHUNK
		       ? bits & ((UINT64_C(1) << (clusters - first)) - 1)
		       : bits;
}

static bool take_of_chunk(struct search *s, uint64_t chunk, uint64_t bits, enum kind kind)
{
	for (; bits; bits &= bits - 1) {
		uint64_t cluster = chunk * VMEMI_SLOTS_CHUNK + (unsigned)__builtin_ctzll(bits);

		if (kind == EMPTY ? take_empty(s, cluster) : take_used(s, cluster, kind == OTHERS))
			return true;
	}
	return false;
}

/* All clusters of a kind, from the hint on and round. */
static bool search_kind(struct search *s, enum kind kind)
{
	uint64_t clusters = atomic_load(&s->at->clusters);
	uint64_t chunks = (clusters + VMEMI_SLOTS_CHUNK - 1) / VMEMI_SLOTS_CHUNK;
	uint64_t hint = s->at->hint < clusters ? s->at->hint : 0;
	uint64_t behind = ~UINT64_C(0) << hint % VMEMI_SLOTS_CHUNK;

	for (uint64_t i = 0; i <= chunks && chunks; i++) {
		uint64_t chunk = (hint / VMEMI_SLOTS_CHUNK + i) % chunks;
		uint64_t bits = candidates(s, chunk, kind);

		bits &= !i ? behind : i == chunks ? ~behind : ~UINT64_C(0);
		if (bits && kind == EMPTY && !s->fresh) {
			s->wants_table = !s->no_memory;
			return false;
		}
		if (take_of_chunk(s, chunk, bits, kind))
			return true;
	}
	return false;
}

static bool search_kinds(struct search *s)
{
	/* Empty clusters are kept for runs as long as there are others, and others for single slots. */
	static const enum kind kinds[2][3] = { { USED, EMPTY, OTHERS }, { EMPTY, USED, OTHERS } };
	bool found = false;

	for (unsigned i = 0; i < 3 && !found && !s->wants_table; i++)
		found = search_kind(s, kinds[s->count > 1][i]);
	return found;
}

/* Where one slot cannot be found, it is known of each cluster that nothing is free, so that whoever gives one back
 * tells. */
static bool search_device(struct search *s, uint32_t device)
{
	bool found;

	s->device = device;
	s->at = atomic_load(&s->slots->device[device]);
	if (s->count == 1 && s->at->full)
		return false;
	found = search_kinds(s);
	if (s->count == 1)
		s->at->full = !found && !s->wants_table && !s->no_memory && !s->not_stopped;
	return found;
}

static bool is_left_out(const struct search *s, uint32_t device)
{
	return s->except >> device & 1;
}

/* Devices of one priority have their turn one after the other. */
static bool search_all(struct search *s)
{
	const vmem_slots *slots = s->slots;

	for (uint32_t i = 0, equal; i < slots->devices; i += equal) {
		int32_t priority = atomic_load(&slots->device[slots->order[i]])->priority;

		for (equal = 1; i + equal < slots->devices; equal++)
			if (atomic_load(&slots->device[slots->order[i + equal]])->priority !=
			    priority)
				break;
		for (uint32_t k = 0; k < equal; k++) {
			uint32_t turn = s->cursor->turn++ % equal;

			if (is_left_out(s, slots->order[i + turn]))
				continue;
			if (search_device(s, slots->order[i + turn]))
				return true;
			if (s->wants_table) {
				s->cursor->turn--; /* it is its turn still */
				return false;
			}
		}
	}
	return false;
}

static bool search_own(struct search *s)
{
	struct vmemi_slots_place p;
	bool found;

	if (!s->cursor->table || !vmemi_slots_find(s->slots, s->cursor->first, &p) ||
	    p.number >= atomic_load(&p.device->clusters) ||
	    is_left_out(s, VMEM_SLOT_DEVICE(s->cursor->first)))
		return false;
	if (p.cluster->longest < s->count ||
	    atomic_load(&atomic_load(&p.cluster->table)->stop) == VMEMI_SLOTS_STOPPED)
		return false;
	s->device = VMEM_SLOT_DEVICE(s->cursor->first);
	s->at = p.device;
	vmemi_slots_put_back(s->cursor);
	found = take_in(s, &p);
	vmemi_slots_hold(s->cursor);
	return found;
}

static void pop_given_up(struct search *s)
{
	vmem_slots *slots = s->slots;

	if (s->fresh || !slots->given_up)
		return;
	s->fresh = slots->given_up;
	slots->given_up = (void *)(uintptr_t)atomic_load(&s->fresh->owner[0]);
}

static void push_given_up(struct search *s)
{
	vmem_slots *slots = s->slots;

	if (!s->fresh)
		return;
	atomic_store(&s->fresh->owner[0], (uintptr_t)slots->given_up);
	slots->given_up = s->fresh;
}

static bool any_discards(const struct search *s)
{
	const vmem_slots *slots = s->slots;

	for (uint32_t i = 0; i < slots->devices; i++)
		if (!is_left_out(s, slots->order[i]) &&
		    atomic_load(&slots->device[slots->order[i]])->discards)
			return true;
	return false;
}

/* 0, -VMEM_ENOSPC, -VMEM_EAGAIN, -VMEM_ENOMEM. */
static int search_once(struct search *s, uint64_t owner)
{
	vmem_slots *slots = s->slots;
	bool found;
	int result;

	s->wants_table = false;
	vmemi_lock(&slots->lock);
	pop_given_up(s);
	if (s->count == 1)
		vmemi_slots_leave(slots, s->cursor);
	found = (s->count > 1 && search_own(s)) || search_all(s);
	if (found) {
		struct vmemi_slots_place p;

		vmemi_slots_find(slots, s->slot, &p);
		for (uint32_t i = 0; i < s->count; i++)
			atomic_store_explicit(&atomic_load(&p.cluster->table)
						       ->owner[s->slot % VMEM_SLOTS_CLUSTER + i],
					      owner, memory_order_relaxed);
	}
	result = found                            ? 0
		 : s->wants_table || s->no_memory ? -VMEM_ENOMEM
		 : any_discards(s)                ? -VMEM_EAGAIN
						  : -VMEM_ENOSPC;
	if (!s->wants_table)
		push_given_up(s);
	vmemi_unlock(&slots->lock);
	return result;
}

static int take_slowly(vmem_slots *slots, struct vmem_slots_cursor *cursor, uint32_t devices,
		       uint32_t count, uint64_t owner, uint64_t *ret_slot)
{
	struct search s = { .slots = slots, .cursor = cursor, .count = count, .except = devices };
	int result;

	if (!count || count > VMEM_SLOTS_CLUSTER)
		return -VMEM_EINVAL;
	result = search_once(&s, owner);

	while (s.wants_table) {
		s.fresh = vmemi_alloc(&slots->memory.allocator, sizeof(*s.fresh),
				      _Alignof(struct vmemi_slots_table));
		s.no_memory = !s.fresh;
		result = search_once(&s, owner);
	}
	if (!result)
		*ret_slot = s.slot;
	return result;
}

int vmem_slots_take_except(vmem_slots *slots, struct vmem_slots_cursor *cursor, uint32_t devices,
			   uint32_t count, uint64_t owner, uint64_t *ret_slot)
{
	return take_slowly(slots, cursor, devices, count, owner, ret_slot);
}

/* Not inlined: who takes one of the slots at hand needs no room for a search. */
static __attribute__((noinline)) int take_further(vmem_slots *slots,
						  struct vmem_slots_cursor *cursor, uint32_t count,
						  uint64_t owner, uint64_t *ret_slot)
{
	if (count == 1 && take_one(slots, cursor, owner, ret_slot))
		return 0;
	return take_slowly(slots, cursor, 0, count, owner, ret_slot);
}

int vmem_slots_take(vmem_slots *slots, struct vmem_slots_cursor *cursor, uint32_t count,
		    uint64_t owner, uint64_t *ret_slot)
{
	if (count == 1 && cursor->bits && !slots->fences &&
	    take_next(cursor, false, owner, ret_slot))
		return 0;
	return take_further(slots, cursor, count, owner, ret_slot);
}

void vmem_slots_cursor_end(vmem_slots *slots, struct vmem_slots_cursor *cursor)
{
	vmemi_lock(&slots->lock);
	vmemi_slots_leave(slots, cursor);
	vmemi_unlock(&slots->lock);
	*cursor = (struct vmem_slots_cursor){ 0 };
}
