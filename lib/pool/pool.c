/* SPDX-License-Identifier: BSD-2-Clause */
/* The compression pool: making it, its streams, its counters. How it all fits together is said in
 * pool_internal.h. Streams are made and dropped under the lock `work`; a stream's place in its table is
 * used again, with its lock, and never goes away. */
#include "base/mem.h"
#include "base/opts.h"
#include "pool/pool_internal.h"
#include "pool/pool_slot.h"

#define DEFAULT_PARALLEL 8u
#define DEFAULT_RESERVE 2u
#define UNTIDY_FRACTION 14u
#define MAX_CONTEXT_BYTES (UINT32_C(1) << 30)

/* --- Making --- */

static bool have_one_context(const struct vmem_codec *a, const struct vmem_codec *b)
{
	return a->context_init == b->context_init && a->context_end == b->context_end &&
	       a->decoder_init == b->decoder_init && a->taken_bytes == b->taken_bytes &&
	       a->context_bytes == b->context_bytes;
}

/* @given: the first of its table, or another. */
static int add_codec(struct vmem_pool *p, const struct vmem_codec *given, bool first)
{
	struct vmem_codec codec;
	int err = vmemi_callbacks_take(&codec, sizeof(codec),
				       VMEMI_BYTES_TO(struct vmem_codec, decode), given);

	if (err)
		return err;
	if (!codec.id || codec.id > VMEM_CODEC_MAX ||
	    codec.flags & ~VMEM_CODEC_DECODE_WITHOUT_CONTEXT || !codec.encode || !codec.decode ||
	    codec.context_bytes > MAX_CONTEXT_BYTES || p->codec[codec.id] ||
	    (codec.decoder_init && !codec.context_init))
		return -VMEM_EINVAL;
	for (uint32_t id = 1; id <= VMEM_CODEC_MAX; id++) {
		const struct vmem_codec *other = p->codec[id];

		if (other && codec.context_init && have_one_context(other, &codec)) {
			p->context_at[codec.id] = p->context_at[id];
			p->decoders |= (p->decoders >> id & 1) << codec.id;
			codec.context_init = NULL; /* nor the others: one does it for both */
			codec.context_end = NULL;
			codec.taken_bytes = NULL;
		}
	}
	if (codec.decoder_init && !first && !p->context_at[codec.id])
		p->decoders |= UINT32_C(1) << codec.id;
	p->codec_copy[codec.id] = codec;
	p->codec[codec.id] = &p->codec_copy[codec.id];
	if (p->context_at[codec.id])
		return 0;
	p->context_at[codec.id] = p->slot_bytes;
	p->slot_bytes +=
		(codec.context_bytes + VMEMI_SLOT_ALIGN - 1) & ~(size_t)(VMEMI_SLOT_ALIGN - 1);
	return 0;
}

static int add_codecs(struct vmem_pool *p, const struct vmem_pool_opts *opts)
{
	const struct vmem_codec *const *codecs = opts->codecs;
	uint32_t count = opts->codec_count;
	int err;

	p->slot_bytes = VMEMI_SLOT_PAGES * VMEM_PAGE_SIZE;
	if (add_codec(p, vmem_codec_raw(), false) || add_codec(p, vmem_codec_fill(), false))
		return -VMEM_EINVAL;
	p->first_codec = p->codec[VMEM_CODEC_RAW];
	if (!codecs && count)
		return -VMEM_EINVAL;
#ifndef VMEMI_CORE
	const struct vmem_codec *lz4 = vmem_codec_lz4();

	if (!codecs) {
		codecs = &lz4;
		count = 1;
	}
#endif
	for (uint32_t i = 0; i < count; i++) {
		err = i > VMEM_CODEC_MAX ? -VMEM_EINVAL : add_codec(p, codecs[i], !i);
		if (err)
			return err;
	}
	if (count)
		p->first_codec = p->codec[codecs[0]->id];
	return 0;
}

static int take_opts(struct vmem_pool *p, const struct vmem_pool_opts *opts)
{
	int err;

	if (opts->flags || opts->parallel > VMEMI_SLOTS_MAX)
		return -VMEM_EINVAL;
	err = vmemi_env_take(&p->env, opts->env);
	if (!err)
		err = vmemi_alloc_take(&p->segment_allocator,
				       opts->segments ? opts->segments : &p->tables.inner);
	if (!err)
		err = add_codecs(p, opts);
	if (err)
		return err;
	p->hash = vmemi_hash_choose(opts->cpu);
	p->slot_count = opts->parallel ? opts->parallel : DEFAULT_PARALLEL;
	p->looked = UINT32_MAX;
	p->reserve_target = opts->reserve_segments ? opts->reserve_segments : DEFAULT_RESERVE;
	p->budget_bytes = opts->budget_bytes;
	return 0;
}

static int make_tables(struct vmem_pool *p)
{
	const struct vmem_allocator *a = &p->tables.allocator;
	int err = vmemi_table_init(&p->index, a, sizeof(_Atomic uint64_t), VMEMI_INDEX_CHUNK_SHIFT,
				   32);

	if (!err)
		err = vmemi_table_init(&p->segments, a, sizeof(struct vmemi_segment),
				       VMEMI_SEGMENT_CHUNK_SHIFT, VMEMI_SEGMENT_BITS);
	if (!err)
		err = vmemi_table_init(&p->streams, a, sizeof(struct vmemi_stream),
				       VMEMI_STREAM_CHUNK_SHIFT, VMEMI_STREAM_BITS);
	return err;
}

int vmem_pool_new(vmem_pool **ret_pool, const struct vmem_pool_opts *given)
{
	struct vmem_allocator allocator;
	struct vmem_pool_opts opts;
	struct vmem_pool *p;
	int err = ret_pool ? vmemi_opts_take(&opts, sizeof(opts), given) : -VMEM_EINVAL;

	if (!err)
		err = vmemi_alloc_take(&allocator, opts.allocator);
	if (err)
		return err;
	p = vmemi_zalloc(&allocator, sizeof(*p), _Alignof(struct vmem_pool));
	if (!p)
		return -VMEM_ENOMEM;
	vmemi_counting_init(&p->tables, &allocator);
	err = take_opts(p, &opts);
	if (!err)
		err = vmemi_lock_init(&p->lock, &p->env);
	if (!err)
		err = vmemi_lock_init(&p->work, &p->env);
	if (!err)
		err = make_tables(p);
	if (!err)
		err = vmemi_slots_make(p);
	if (err)
		vmem_pool_free(p);
	else
		*ret_pool = p;
	return err;
}

void vmem_pool_free(vmem_pool *p)
{
	if (!p)
		return;
	for (uint32_t number = 1; number <= p->number_count; number++) {
		vmemi_free(&p->segment_allocator, vmemi_segment_at(p, number)->memory,
			   VMEM_POOL_SEGMENT_BYTES, VMEM_PAGE_SIZE);
		vmemi_digest_free(p, vmemi_segment_at(p, number)->digest);
	}
	for (uint32_t id = 0; id < atomic_load(&p->stream_count); id++)
		vmemi_lock_destroy(&vmemi_stream_at(p, id)->lock);
	vmemi_slots_free(p);
	vmemi_table_destroy(&p->streams);
	vmemi_table_destroy(&p->segments);
	vmemi_table_destroy(&p->index);
	vmemi_lock_destroy(&p->work);
	vmemi_lock_destroy(&p->lock);
	vmemi_free(&p->tables.inner, p, sizeof(*p), _Alignof(struct vmem_pool));
}

bool vmemi_pool_has_codec(const vmem_pool *p, uint32_t codec)
{
	return codec <= VMEM_CODEC_MAX && p->codec[codec];
}

bool vmemi_pool_is_untidy(vmem_pool *p)
{
	uint64_t lost = atomic_load_explicit(&p->lost, memory_order_relaxed), segments;

	vmemi_lock(&p->lock);
	segments = p->in_use;
	vmemi_unlock(&p->lock);
	return atomic_load_explicit(&p->refused, memory_order_relaxed) ||
	       lost * UNTIDY_FRACTION > segments * VMEMI_SEGMENT_GRAINS;
}

void vmemi_pool_maintain(vmem_pool *p)
{
	vmemi_segment_maintain(p);
}

uint32_t vmemi_pool_handles_end(const vmem_pool *p)
{
	return vmemi_index_end(p);
}

/* --- Streams --- */

/* A place that was never used. Work locked. */
static int add_stream(struct vmem_pool *p, struct vmemi_stream **ret_stream)
{
	uint32_t id = atomic_load_explicit(&p->stream_count, memory_order_relaxed);
	struct vmemi_stream *s;
	int err;

	if (id == VMEMI_STREAMS)
		return -VMEM_ENOSPC;
	err = vmemi_table_grow(&p->streams, id);
	if (err < 0)
		return err;
	s = vmemi_table_at(&p->streams, id, sizeof(*s), VMEMI_STREAM_CHUNK_SHIFT);
	err = vmemi_lock_init(&s->lock, &p->env);
	if (err)
		return err;
	s->id = id;
	atomic_store_explicit(&p->stream_count, id + 1, memory_order_release);
	*ret_stream = s;
	return 0;
}

int vmem_pool_stream_new(vmem_pool *p, uint32_t *ret_stream)
{
	struct vmemi_stream *s = NULL;
	int err = 0;

	vmemi_lock(&p->work);
	if (p->stream_free) {
		s = vmemi_stream_at(p, p->stream_free - 1);
		p->stream_free = s->next_free;
	} else {
		err = add_stream(p, &s);
	}
	if (!err) {
		vmemi_lock(&s->lock);
		s->exists = true;
		s->sequence = s->compactions = s->moved_bytes = 0;
		s->dropped = 0;
		s->at_rest = false;
		atomic_store_explicit(&s->corrupt, 0, memory_order_relaxed);
		vmemi_unlock(&s->lock);
		*ret_stream = s->id;
	}
	vmemi_unlock(&p->work);
	return err;
}

static void forget(struct vmem_pool *p, uint32_t handle)
{
	atomic_store(vmemi_index_at(p, handle), VMEMI_ENTRY_TAKEN);
	vmemi_handle_free(p, handle);
}

/* Whether a stream is found faster in the index, which is read from end to end at about a nanosecond an
 * entry, than by walking its segments, where each header is a miss of the cache. Stream locked. */
static bool is_large_part(const struct vmem_pool *p, const struct vmemi_stream *s)
{
	return s->objects * 64 > vmemi_index_end(p);
}

/* Frees the index entries of all objects of a stream that does not exist any more. */
static void forget_stream(struct vmem_pool *p, struct vmemi_stream *s)
{
	const uint32_t chunk = 1u << VMEMI_INDEX_CHUNK_SHIFT;

	for (uint32_t first = 0, end = vmemi_index_end(p); first < end; first += chunk) {
		vmemi_lock(&s->lock); /* not for long: others may want to read its counters */
		for (uint32_t handle = first; handle < first + chunk; handle++) {
			uint64_t entry = atomic_load_explicit(vmemi_index_at(p, handle),
							      memory_order_acquire);
			struct vmemi_segment *seg;

			if (!vmemi_entry_is_live(entry))
				continue;
			seg = vmemi_segment_at(p, vmemi_entry_segment(entry));
			if (atomic_load_explicit(&seg->stream, memory_order_relaxed) == s->id)
				forget(p, handle);
		}
		vmemi_unlock(&s->lock);
	}
}

/* The same of one that is out. Stream locked. */
static void forget_out(struct vmem_pool *p, uint32_t number)
{
	const struct vmemi_digest *d = vmemi_segment_at(p, number)->digest;

	for (uint32_t i = 0; i < d->count; i++)
		if (vmemi_digest_grains(p, number, &d->entry[i]))
			forget(p, d->entry[i].handle);
}

/* Frees the index entries of all objects in a segment. Stream locked. */
static void forget_objects(struct vmem_pool *p, uint32_t number)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);
	uint32_t left = seg->live, at = 0;

	if (!seg->memory) {
		forget_out(p, number);
		return;
	}
	while (left && at < seg->used) {
		struct vmemi_found found = vmemi_object_at(p, seg->memory, number, at);

		if (!found.grains)
			break;
		if (found.handle) {
			left -= found.grains;
			forget(p, found.handle);
		}
		at += found.grains;
	}
	/* A header was damaged: the index tells what the walk did not. */
	for (uint32_t handle = 1, end = vmemi_index_end(p); left && handle < end; handle++) {
		uint64_t entry = atomic_load(vmemi_index_at(p, handle));

		if (vmemi_entry_is_live(entry) && vmemi_entry_segment(entry) == number) {
			left -= vmemi_entry_grains(entry);
			forget(p, handle);
		}
	}
}

int vmem_pool_stream_drop(vmem_pool *p, uint32_t stream)
{
	struct vmemi_stream *s = vmemi_stream_at(p, stream);
	bool existed, large;
	uint32_t number;

	if (!s)
		return -VMEM_ENOENT;
	vmemi_lock(
		&p->work); /* no compaction is in it now, and none finds it once exists is false */
	vmemi_lock(&s->lock);
	existed = s->exists;
	large = is_large_part(p, s);
	s->exists = false;
	vmemi_stream_rank(p, s, true);
	vmemi_unlock(&s->lock);
	vmemi_unlock(&p->work);
	if (!existed)
		return -VMEM_ENOENT;
	if (large)
		forget_stream(p, s);
	do {
		vmemi_lock(&s->lock);
		number = s->oldest ? s->oldest : s->out_first;
		if (number) {
			if (!large)
				forget_objects(p, number);
			vmemi_stream_detach(p, s, number);
		} else {
			s->objects = s->payload_bytes = 0;
		}
		vmemi_unlock(&s->lock);
		if (number)
			vmemi_segment_put(p, number);
	} while (number);
	vmemi_segment_trim(p);
	vmemi_lock(&p->work);
	s->next_free = p->stream_free;
	p->stream_free = s->id + 1;
	vmemi_unlock(&p->work);
	return 0;
}

/* --- Budget and counters --- */

void vmem_pool_set_budget(vmem_pool *p, uint64_t budget_bytes)
{
	vmemi_lock(&p->lock);
	p->budget_bytes = budget_bytes;
	vmemi_unlock(&p->lock);
}

/* Adds a stream's counters. Stream locked. */
static void add_stats(const struct vmem_pool *p, const struct vmemi_stream *s,
		      struct vmem_pool_stats *stats)
{
	for (int head = 0; head < VMEMI_HEADS; head++)
		if (s->open[head])
			stats->open_bytes +=
				(VMEMI_SEGMENT_GRAINS - vmemi_segment_at(p, s->open[head])->used) *
				VMEMI_GRAIN_BYTES;
	stats->objects += s->objects;
	stats->live_bytes += s->live * VMEMI_GRAIN_BYTES;
	stats->payload_bytes += s->payload_bytes;
	stats->dead_bytes += (s->used - s->live) * VMEMI_GRAIN_BYTES;
	stats->segments += s->segments;
}

int vmem_pool_get_stats(vmem_pool *p, struct vmem_pool_stats *ret_stats)
{
	struct vmem_pool_stats stats = { .size = sizeof(stats) };
	uint32_t streams = atomic_load_explicit(&p->stream_count, memory_order_acquire);

	for (uint32_t id = 0; id < streams; id++) {
		struct vmemi_stream *s = vmemi_stream_at(p, id);

		vmemi_lock(&s->lock);
		add_stats(p, s, &stats);
		vmemi_unlock(&s->lock);
	}
	vmemi_lock(&p->lock);
	stats.segment_bytes = (p->in_use + p->reserve_count) * VMEM_POOL_SEGMENT_BYTES;
	vmemi_unlock(&p->lock);
	stats.index_bytes = atomic_load_explicit(&p->index.bytes, memory_order_relaxed);
	stats.metadata_bytes = sizeof(*p) - stats.index_bytes + p->taken_bytes +
			       atomic_load_explicit(&p->tables.bytes, memory_order_relaxed);
	stats.compactions = atomic_load_explicit(&p->compactions, memory_order_relaxed);
	stats.moved_bytes = atomic_load_explicit(&p->moved_bytes, memory_order_relaxed);
	stats.corrupt = atomic_load_explicit(&p->corrupt, memory_order_relaxed);
	return vmemi_opts_give(ret_stats, &stats, sizeof(stats));
}

int vmem_pool_stream_get_stats(vmem_pool *p, uint32_t stream, struct vmem_pool_stats *ret_stats)
{
	struct vmem_pool_stats stats = { .size = sizeof(stats) };
	struct vmemi_stream *s = vmemi_stream_at(p, stream);
	bool exists;

	if (!s)
		return -VMEM_ENOENT;
	vmemi_lock(&s->lock);
	exists = s->exists;
	add_stats(p, s, &stats);
	stats.compactions = s->compactions;
	stats.moved_bytes = s->moved_bytes;
	vmemi_unlock(&s->lock);
	stats.corrupt = atomic_load_explicit(&s->corrupt, memory_order_relaxed);
	return exists ? vmemi_opts_give(ret_stats, &stats, sizeof(stats)) : -VMEM_ENOENT;
}
