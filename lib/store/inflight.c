/* SPDX-License-Identifier: BSD-2-Clause */
/* Loads in progress and events: see inflight.h.
 *
 * An entry goes FREE -> LOADING -> CLAIMED -> QUEUED -> TAKEN -> FREE; an offer or a loss goes from
 * FREE to QUEUED. Free entries are a stack, queued ones a list in order. All of it is under one small
 * lock, which is never held while a page or the caller's array of events is touched. */
#include "store/inflight.h"

#define NONE UINT16_MAX

#define OFFER_SPARE (VMEMI_INFLIGHT_ENTRIES / 2) /* entries that offers leave to loads */

enum entry_state { FREE, LOADING, CLAIMED, QUEUED, TAKEN };

static uint32_t index_of(vmem_store_token token)
{
	return (uint32_t)token & (VMEMI_INFLIGHT_ENTRIES - 1);
}

/* Atomics that the lock guards: others only look whether they are 0. */
static void add(_Atomic uint32_t *count, uint32_t by)
{
	uint32_t old = atomic_load_explicit(count, memory_order_relaxed);

	atomic_store_explicit(count, old + by, memory_order_release);
}

static struct vmemi_inflight_entry *pop_free(struct vmemi_inflight *f)
{
	struct vmemi_inflight_entry *e;

	if (f->free_first == NONE)
		return NULL;
	e = &f->entry[f->free_first];
	f->free_first = e->next;
	f->free_count--;
	e->token += VMEMI_INFLIGHT_ENTRIES;
	return e;
}

static void push_free(struct vmemi_inflight *f, struct vmemi_inflight_entry *e)
{
	e->state = FREE;
	e->next = f->free_first;
	f->free_first = (uint16_t)(e - f->entry);
	f->free_count++;
}

static void push_queue(struct vmemi_inflight *f, struct vmemi_inflight_entry *e)
{
	uint16_t i = (uint16_t)(e - f->entry);

	e->state = QUEUED;
	e->next = NONE;
	if (f->queue_first == NONE)
		f->queue_first = i;
	else
		f->entry[f->queue_last].next = i;
	f->queue_last = i;
	add(&f->queued, 1);
}

int vmemi_inflight_init(struct vmemi_inflight *f, const struct vmem_env *env)
{
	f->free_first = NONE;
	f->free_count = 0;
	f->queue_first = NONE;
	f->queue_last = NONE;
	atomic_init(&f->loading, 0);
	atomic_init(&f->queued, 0);
	for (uint32_t i = VMEMI_INFLIGHT_ENTRIES; i-- > 0;) {
		f->entry[i].token = i;
		push_free(f, &f->entry[i]);
	}
	return vmemi_lock_init(&f->lock, env);
}

void vmemi_inflight_destroy(struct vmemi_inflight *f)
{
	vmemi_lock_destroy(&f->lock);
}

int vmemi_inflight_begin(struct vmemi_inflight *f, const struct vmemi_load *load,
			 vmem_store_token *ret_token)
{
	struct vmemi_inflight_entry *e;

	vmemi_lock(&f->lock);
	e = pop_free(f);
	if (e) {
		e->load = *load;
		e->event_type = VMEM_STORE_LOADED;
		e->state = LOADING;
		*ret_token = e->token;
		add(&f->loading, 1);
	}
	vmemi_unlock(&f->lock);
	return e ? 0 : -VMEM_EAGAIN;
}

int vmemi_inflight_claim(struct vmemi_inflight *f, vmem_store_token token,
			 struct vmemi_load *ret_load)
{
	struct vmemi_inflight_entry *e = &f->entry[index_of(token)];
	int rc = -VMEM_ENOENT;

	vmemi_lock(&f->lock);
	if (e->token == token && e->state == LOADING) {
		e->state = CLAIMED;
		*ret_load = e->load;
		rc = 0;
	}
	vmemi_unlock(&f->lock);
	return rc;
}

static void push_event(struct vmemi_inflight *f, struct vmemi_inflight_entry *e,
		       const struct vmem_store_event *event)
{
	e->load = (struct vmemi_load){ .key = event->key, .vm = event->vm };
	e->event_type = (uint8_t)event->type;
	e->result = event->result;
	push_queue(f, e);
}

void vmemi_inflight_end(struct vmemi_inflight *f, vmem_store_token token, int result,
			const struct vmemi_offers *offers)
{
	struct vmemi_inflight_entry *e = &f->entry[index_of(token)];
	struct vmem_store_event offer = { .type = VMEM_STORE_OFFER, .vm = e->load.vm };

	vmemi_lock(&f->lock);
	e->result = result;
	push_queue(f, e);
	add(&f->loading, UINT32_MAX);
	for (uint32_t i = 0; offers && i < offers->count && f->free_count > OFFER_SPARE; i++) {
		offer.key = offers->key[i];
		push_event(f, pop_free(f), &offer);
	}
	vmemi_unlock(&f->lock);
}

int vmemi_inflight_post(struct vmemi_inflight *f, const struct vmem_store_event *event,
			const _Atomic uint32_t *live)
{
	uint32_t spare = event->type == VMEM_STORE_OFFER ? OFFER_SPARE : 0;
	struct vmemi_inflight_entry *e = NULL;
	int rc = -VMEM_EAGAIN;

	vmemi_lock(&f->lock);
	if (!atomic_load_explicit(live, memory_order_relaxed))
		rc = -VMEM_ENOENT;
	else if (f->free_count > spare)
		e = pop_free(f);
	if (e) {
		rc = 0;
		push_event(f, e, event);
	}
	vmemi_unlock(&f->lock);
	return rc;
}

int vmemi_inflight_busy(struct vmemi_inflight *f, uint32_t vm, vmem_store_ref ref)
{
	int busy = 0;

	if (!atomic_load_explicit(&f->loading, memory_order_acquire))
		return 0;
	vmemi_lock(&f->lock);
	for (uint32_t i = 0; i < VMEMI_INFLIGHT_ENTRIES && !busy; i++) {
		const struct vmemi_inflight_entry *e = &f->entry[i];

		busy = (e->state == LOADING || e->state == CLAIMED) &&
		       (ref ? e->load.ref == ref : e->load.vm == vm);
	}
	vmemi_unlock(&f->lock);
	return busy;
}

void vmemi_inflight_forget(struct vmemi_inflight *f, uint32_t vm)
{
	uint16_t i, next;

	vmemi_lock(&f->lock);
	i = f->queue_first;
	f->queue_first = NONE;
	f->queue_last = NONE;
	atomic_store_explicit(&f->queued, 0, memory_order_relaxed);
	for (; i != NONE; i = next) {
		struct vmemi_inflight_entry *e = &f->entry[i];

		next = e->next;
		if (e->load.vm == vm)
			push_free(f, e);
		else
			push_queue(f, e);
	}
	vmemi_unlock(&f->lock);
}

/* Cuts up to @capacity entries off the front of the queue: they are then the caller's alone. */
static uint16_t cut_queue(struct vmemi_inflight *f, uint32_t capacity, uint32_t *ret_count)
{
	uint16_t first = f->queue_first;
	uint32_t n = 0;

	while (n < capacity && f->queue_first != NONE) {
		struct vmemi_inflight_entry *e = &f->entry[f->queue_first];

		e->state = TAKEN;
		f->queue_first = e->next;
		n++;
	}
	if (f->queue_first == NONE)
		f->queue_last = NONE;
	add(&f->queued, 0 - n);
	*ret_count = n;
	return first;
}

uint32_t vmemi_inflight_take(struct vmemi_inflight *f, struct vmem_store_event *events,
			     uint32_t capacity)
{
	uint32_t n;
	uint16_t first, i;

	if (!atomic_load_explicit(&f->queued, memory_order_acquire))
		return 0;
	vmemi_lock(&f->lock);
	first = cut_queue(f, capacity, &n);
	vmemi_unlock(&f->lock);

	i = first;
	for (uint32_t k = 0; k < n; k++, i = f->entry[i].next) {
		const struct vmemi_inflight_entry *e = &f->entry[i];

		events[k] = (struct vmem_store_event){
			.type = (enum vmem_store_event_type)e->event_type,
			.result = e->result,
			.vm = e->load.vm,
			.key = e->load.key,
			.token = e->event_type == VMEM_STORE_LOADED ? e->token : 0,
		};
	}

	vmemi_lock(&f->lock);
	for (uint32_t k = 0; k < n; k++) {
		struct vmemi_inflight_entry *e = &f->entry[first];

		first = e->next;
		push_free(f, e);
	}
	vmemi_unlock(&f->lock);
	return n;
}

const char *vmemi_inflight_check(struct vmemi_inflight *f)
{
	uint32_t by_state[TAKEN + 1] = { 0 };
	uint32_t n = 0;
	uint16_t last = NONE;

	for (uint32_t i = 0; i < VMEMI_INFLIGHT_ENTRIES; i++) {
		if (index_of(f->entry[i].token) != i || f->entry[i].state > TAKEN)
			return "inflight: an entry is broken";
		by_state[f->entry[i].state]++;
	}
	for (uint16_t i = f->free_first; i != NONE; i = f->entry[i].next)
		if (n++ > VMEMI_INFLIGHT_ENTRIES || f->entry[i].state != FREE)
			return "inflight: the free list is broken";
	if (n != by_state[FREE] || n != f->free_count)
		return "inflight: entries are missing in the free list";
	n = 0;
	for (uint16_t i = f->queue_first; i != NONE; last = i, i = f->entry[i].next)
		if (n++ > VMEMI_INFLIGHT_ENTRIES || f->entry[i].state != QUEUED)
			return "inflight: the queue is broken";
	if (n != by_state[QUEUED] || n != atomic_load(&f->queued) || last != f->queue_last)
		return "inflight: events are missing in the queue";
	if (by_state[LOADING] + by_state[CLAIMED] != atomic_load(&f->loading) || by_state[TAKEN])
		return "inflight: loads are miscounted";
	return NULL;
}
