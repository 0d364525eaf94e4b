/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices: they come, grow, shrink and go. See slots_internal.h. */
#include "slots/slots_internal.h"
#include "base/opts.h"

#define MOST_SLOTS (UINT64_C(1) << VMEM_SLOTS_NUMBER_BITS)

static size_t bytes_of(uint64_t most_clusters)
{
	uint64_t chunks = (most_clusters + VMEMI_SLOTS_CHUNK - 1) / VMEMI_SLOTS_CHUNK;

	return sizeof(struct vmemi_slots_device) +
	       (size_t)chunks * sizeof(_Atomic(struct vmemi_slots_chunk *));
}

static void free_chunks(vmem_slots *s, struct vmemi_slots_device *d)
{
	for (uint64_t i = 0; i * VMEMI_SLOTS_CHUNK < d->most; i++) {
		struct vmemi_slots_chunk *c = atomic_load(&d->chunk[i]);

		for (unsigned k = 0; c && k < VMEMI_SLOTS_CHUNK; k++)
			vmemi_free(&s->memory.allocator, atomic_load(&c->cluster[k].table),
				   sizeof(struct vmemi_slots_table),
				   _Alignof(struct vmemi_slots_table));
		vmemi_free(&s->memory.allocator, c, sizeof(*c), _Alignof(struct vmemi_slots_chunk));
	}
	vmemi_free(&s->memory.allocator, d, bytes_of(d->most), _Alignof(struct vmemi_slots_device));
}

/* Chunks for so many clusters. Those that are there already stay, and do no harm. */
static int make_chunks(vmem_slots *s, struct vmemi_slots_device *d, uint64_t clusters)
{
	for (uint64_t i = 0; i * VMEMI_SLOTS_CHUNK < clusters; i++) {
		struct vmemi_slots_chunk *c;

		if (atomic_load(&d->chunk[i]))
			continue;
		c = vmemi_zalloc(&s->memory.allocator, sizeof(*c),
				 _Alignof(struct vmemi_slots_chunk));
		if (!c)
			return -VMEM_ENOMEM;
		atomic_store(&d->chunk[i], c);
	}
	return 0;
}

static struct vmemi_slots_place place_of(struct vmemi_slots_device *d, uint64_t cluster)
{
	struct vmemi_slots_place p = { .device = d, .number = cluster };

	p.chunk = atomic_load(&d->chunk[cluster / VMEMI_SLOTS_CHUNK]);
	p.cluster = &p.chunk->cluster[cluster % VMEMI_SLOTS_CHUNK];
	return p;
}

static void set_clusters(struct vmemi_slots_device *d, uint64_t clusters)
{
	atomic_store(&d->clusters, clusters);
	atomic_store(&d->at_once, d->discard_least == 1 ? 0 : clusters);
}

/* Clusters from the present end up to @clusters are to be had. */
static void open_up(vmem_slots *s, struct vmemi_slots_device *d, uint64_t clusters)
{
	uint64_t old = atomic_load(&d->clusters);

	set_clusters(d, clusters);
	for (uint64_t i = old; i < clusters; i++) {
		struct vmemi_slots_place p = place_of(d, i);
		struct vmemi_slots_table *t = atomic_load(&p.cluster->table);

		for (uint32_t word = 0; t && word < VMEMI_SLOTS_WORDS; word++)
			atomic_fetch_and(&t->used[word], ~atomic_exchange(&t->cut[word], 0));
		if (t)
			vmemi_slots_room(&p);
		else
			p.chunk->empty |= UINT64_C(1) << i % VMEMI_SLOTS_CHUNK;
		/* Who gave back the last may have taken what was cut off for something that stays. */
		vmemi_slots_give_up(s, &p);
	}
	d->full = false;
}

void vmemi_slots_cut_off(vmem_slots *s, const struct vmemi_slots_place *p)
{
	struct vmemi_slots_table *t = atomic_load(&p->cluster->table);

	for (uint32_t word = 0; t && word < VMEMI_SLOTS_WORDS; word++)
		atomic_fetch_or(&t->cut[word], ~atomic_exchange(&t->used[word], ~UINT64_C(0)));
	vmemi_slots_give_up(s, p);
}

/* What is free from cluster @clusters on is no more. */
static void cut_off(vmem_slots *s, struct vmemi_slots_device *d, uint64_t clusters)
{
	set_clusters(d, clusters);
	for (uint64_t i = clusters; i < d->most; i++) {
		uint64_t bit = UINT64_C(1) << i % VMEMI_SLOTS_CHUNK;
		struct vmemi_slots_place p;

		if (!atomic_load(&d->chunk[i / VMEMI_SLOTS_CHUNK]))
			break;
		p = place_of(d, i);
		p.chunk->empty &= ~bit;
		p.chunk->room &= ~bit;
		vmemi_slots_know(p.cluster, 0);
		/* What a cursor that cannot be stopped holds is left there, until it goes on. */
		if (vmemi_slots_has(p.cluster, VMEMI_SLOTS_CURSOR))
			vmemi_slots_stop(s, &p);
		vmemi_slots_cut_off(s, &p);
	}
}

static int resize(vmem_slots *s, struct vmemi_slots_device *d, uint64_t clusters,
		  uint64_t *ret_left)
{
	int err = 0;

	*ret_left = 0;
	if (clusters > atomic_load(&d->clusters)) {
		err = make_chunks(s, d, clusters);
		if (!err)
			open_up(s, d, clusters);
		return err;
	}
	cut_off(s, d, clusters);
	*ret_left = vmemi_slots_count_left(d, clusters);
	return *ret_left ? -VMEM_EBUSY : 0;
}

int vmem_slots_resize(vmem_slots *s, uint32_t device, uint64_t count, uint64_t *ret_left)
{
	struct vmemi_slots_device *d =
		device < VMEM_SLOTS_DEVICES ? atomic_load(&s->device[device]) : NULL;
	uint64_t left;
	int err;

	if (!d || count % VMEM_SLOTS_CLUSTER || count / VMEM_SLOTS_CLUSTER > d->most)
		return -VMEM_EINVAL;
	vmemi_lock(&s->lock);
	err = resize(s, d, count / VMEM_SLOTS_CLUSTER, &left);
	vmemi_unlock(&s->lock);
	if (ret_left)
		*ret_left = left;
	return err;
}

/* Into the order, behind those of the same priority. */
static void enlist(vmem_slots *s, uint32_t device, int32_t priority)
{
	uint32_t at = s->devices++;

	for (; at && atomic_load(&s->device[s->order[at - 1]])->priority < priority; at--)
		s->order[at] = s->order[at - 1];
	s->order[at] = device;
}

static int enter(vmem_slots *s, struct vmemi_slots_device *d, uint32_t *ret_device)
{
	uint32_t i = 0;

	while (i < VMEM_SLOTS_DEVICES && atomic_load(&s->device[i]))
		i++;
	if (i == VMEM_SLOTS_DEVICES)
		return -VMEM_ENOSPC;
	atomic_store(&s->device[i], d);
	enlist(s, i, d->priority);
	*ret_device = i;
	return 0;
}

int vmem_slots_add(vmem_slots *s, const struct vmem_slots_device *device, uint32_t *ret_device)
{
	struct vmem_slots_device o;
	struct vmemi_slots_device *d;
	int err = vmemi_opts_take(&o, sizeof(o), device);

	if (err)
		return err;
	if (!o.max_count)
		o.max_count = o.count;
	if (!ret_device || o.flags || !o.count || o.count % VMEM_SLOTS_CLUSTER ||
	    o.max_count % VMEM_SLOTS_CLUSTER || o.max_count < o.count || o.max_count > MOST_SLOTS ||
	    o.discard_least > VMEM_SLOTS_CLUSTER)
		return -VMEM_EINVAL;
	d = vmemi_zalloc(&s->memory.allocator, bytes_of(o.max_count / VMEM_SLOTS_CLUSTER),
			 _Alignof(struct vmemi_slots_device));
	if (!d)
		return -VMEM_ENOMEM;
	d->most = o.max_count / VMEM_SLOTS_CLUSTER;
	d->priority = o.priority;
	d->discard_least = o.discard_least;
	err = make_chunks(s, d, o.count / VMEM_SLOTS_CLUSTER);
	if (!err) {
		open_up(s, d, o.count / VMEM_SLOTS_CLUSTER);
		vmemi_lock(&s->lock);
		err = enter(s, d, ret_device);
		vmemi_unlock(&s->lock);
	}
	if (err)
		free_chunks(s, d);
	return err;
}

static bool has_cursor(const struct vmemi_slots_device *d)
{
	for (uint64_t i = 0; i < d->most; i++) {
		const struct vmemi_slots_chunk *c = atomic_load(&d->chunk[i / VMEMI_SLOTS_CHUNK]);

		if (c && vmemi_slots_has(&c->cluster[i % VMEMI_SLOTS_CHUNK], VMEMI_SLOTS_CURSOR))
			return true;
	}
	return false;
}

int vmem_slots_remove(vmem_slots *s, uint32_t device)
{
	struct vmemi_slots_device *d =
		device < VMEM_SLOTS_DEVICES ? atomic_load(&s->device[device]) : NULL;
	uint32_t at = 0;

	if (!d)
		return -VMEM_EINVAL;
	vmemi_lock(&s->lock);
	if (vmemi_slots_count_taken(d) || has_cursor(d)) {
		vmemi_unlock(&s->lock);
		return -VMEM_EBUSY;
	}
	while (s->order[at] != device)
		at++;
	for (s->devices--; at < s->devices; at++)
		s->order[at] = s->order[at + 1];
	atomic_store(&s->device[device], NULL);
	vmemi_unlock(&s->lock);
	free_chunks(s, d);
	return 0;
}

void vmem_slots_free(vmem_slots *s)
{
	struct vmem_allocator allocator;

	if (!s)
		return;
	allocator = s->memory.inner;
	for (uint32_t i = 0; i < VMEM_SLOTS_DEVICES; i++)
		if (atomic_load(&s->device[i]))
			free_chunks(s, atomic_load(&s->device[i]));
	vmem_slots_work(s);
	vmemi_lock_destroy(&s->lock);
	vmemi_free(&allocator, s, sizeof(*s), _Alignof(vmem_slots));
}
