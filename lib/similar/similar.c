/* SPDX-License-Identifier: BSD-2-Clause */
/* The index of features: making it, finding, adding, forgetting. similar_table.h says how the table
 * works; its guard is the caller's. */
#include "similar/similar_table.h"
#include "base/mem.h"
#include "base/opts.h"

#define STEPS 8u /* lines split or merged an add or forget */

/* The candidates of one find, by votes. */
struct poll {
	uint32_t count;
	uint32_t id[VMEM_SIMILAR_FEATURES];
	uint32_t votes[VMEM_SIMILAR_FEATURES];
};

_Static_assert(sizeof(struct vmemi_similar_line) == VMEMI_SIMILAR_LINE_BYTES, "one cache line");

static uint32_t new_tag(const struct vmemi_similar_place *p)
{
	uint32_t known = 32 - p->level;

	if (known > VMEMI_SIMILAR_KNOWN_BITS)
		known = VMEMI_SIMILAR_KNOWN_BITS;
	return (p->rest & ((UINT32_C(1) << known) - 1)) | UINT32_C(1) << known;
}

/* The latest entry of the feature; `used`: none. */
static uint32_t find_in(const struct vmemi_similar_place *p)
{
	uint32_t at = 0;

	while (at < p->line->used && !vmemi_similar_is(p, at))
		at++;
	return at;
}

static void prefetch(const struct vmem_similar *s, const struct vmem_similar_sketch *sketch,
		     uint32_t features)
{
	for (uint32_t i = 0; i < features; i++)
		__builtin_prefetch(vmemi_similar_place_of(s, sketch->feature[i]).line);
}

static void vote(struct poll *poll, uint32_t id)
{
	uint32_t at = 0;

	while (at < poll->count && poll->id[at] != id)
		at++;
	if (at == poll->count) {
		poll->id[poll->count++] = id;
		poll->votes[at] = 0;
	}
	/* Overtakes those that have fewer votes now. */
	for (uint32_t votes = poll->votes[at] + 1;; at--) {
		if (!at || poll->votes[at - 1] >= votes) {
			poll->id[at] = id;
			poll->votes[at] = votes;
			return;
		}
		poll->id[at] = poll->id[at - 1];
		poll->votes[at] = poll->votes[at - 1];
	}
}

uint32_t vmem_similar_find(const vmem_similar *s, const struct vmem_similar_sketch *sketch,
			   uint32_t ret_ids[VMEM_SIMILAR_CANDIDATES])
{
	struct poll poll;
	uint32_t count;

	poll.count = 0;
	prefetch(s, sketch, VMEM_SIMILAR_FEATURES);
	for (uint32_t i = 0; i < VMEM_SIMILAR_FEATURES && sketch->feature[i]; i++) {
		struct vmemi_similar_place p = vmemi_similar_place_of(s, sketch->feature[i]);
		uint32_t at = find_in(&p);

		if (at < p.line->used)
			vote(&poll, p.line->id[at]);
	}
	count = poll.count < VMEM_SIMILAR_CANDIDATES ? poll.count : VMEM_SIMILAR_CANDIDATES;
	memcpy(ret_ids, poll.id, count * sizeof(ret_ids[0]));
	return count;
}

/* In front of the others, in the place of an entry of the same feature, else, in a full line, of any
 * other one: if the oldest had to go, each doubling would take it first, and it may be as good as any. */
static void add_feature(struct vmem_similar *s, uint32_t feature, uint32_t id)
{
	struct vmemi_similar_place p = vmemi_similar_place_of(s, feature);
	struct vmemi_similar_line *line = p.line;
	uint32_t at = find_in(&p);

	if (at == VMEMI_SIMILAR_LINE_ENTRIES) {
		at = p.rest % VMEMI_SIMILAR_LINE_ENTRIES;
		s->crowded++;
	}
	if (at < line->used) {
		s->entries--;
		vmemi_similar_line_remove(line, at);
	}
	memmove(line->id + 1, line->id, line->used * sizeof(line->id[0]));
	memmove(line->tag + 1, line->tag, line->used * sizeof(line->tag[0]));
	line->id[0] = id;
	line->tag[0] = (uint16_t)new_tag(&p);
	line->used++;
	s->entries++;
}

void vmem_similar_add(vmem_similar *s, const struct vmem_similar_sketch *sketch, uint32_t id)
{
	prefetch(s, sketch, VMEM_SIMILAR_KEPT);
	for (uint32_t i = 0; i < VMEM_SIMILAR_KEPT && sketch->feature[i]; i++)
		add_feature(s, sketch->feature[i], id);
	vmemi_similar_table_adapt(s, STEPS);
}

void vmem_similar_forget(vmem_similar *s, const struct vmem_similar_sketch *sketch, uint32_t id)
{
	for (uint32_t i = 0; i < VMEM_SIMILAR_FEATURES && sketch->feature[i]; i++) {
		struct vmemi_similar_place p = vmemi_similar_place_of(s, sketch->feature[i]);

		for (uint32_t at = 0; at < p.line->used;) {
			if (p.line->id[at] == id && vmemi_similar_is(&p, at)) {
				vmemi_similar_line_remove(p.line, at);
				s->entries--;
			} else {
				at++;
			}
		}
	}
	vmemi_similar_table_adapt(s, STEPS);
}

int vmem_similar_work(vmem_similar *s, uint32_t max_lines)
{
	return vmemi_similar_table_adapt(s, max_lines);
}

void vmem_similar_set_pages(vmem_similar *s, uint64_t pages)
{
	vmemi_similar_table_fit(s, pages * VMEM_SIMILAR_KEPT);
}

void vmem_similar_set_limit(vmem_similar *s, uint64_t max_bytes)
{
	uint64_t most = max_bytes ? max_bytes / VMEMI_SIMILAR_LINE_BYTES : UINT64_MAX;

	s->max_lines = VMEMI_SIMILAR_MOST_LINES;
	while (s->max_lines > most && s->max_lines > VMEMI_SIMILAR_LEAST_LINES)
		s->max_lines /= 2;
}

int vmem_similar_get_stats(const vmem_similar *s, struct vmem_similar_stats *stats)
{
	struct vmem_similar_stats now = {
		.size = sizeof(now),
		.entries = s->entries,
		.bytes = atomic_load_explicit(&s->memory.bytes, memory_order_relaxed) + sizeof(*s),
		.crowded = s->crowded,
	};

	return vmemi_opts_give(stats, &now, sizeof(now));
}

int vmem_similar_new(vmem_similar **ret_similar, const struct vmem_similar_opts *given)
{
	struct vmem_similar_opts opts;
	struct vmem_allocator allocator;
	struct vmem_similar *s;
	int err = ret_similar ? vmemi_opts_take(&opts, sizeof(opts), given) : -VMEM_EINVAL;

	if (!err)
		err = opts.flags ? -VMEM_EINVAL : vmemi_alloc_take(&allocator, opts.allocator);
	if (err)
		return err;
	s = vmemi_zalloc(&allocator, sizeof(*s), _Alignof(struct vmem_similar));
	if (!s)
		return -VMEM_ENOMEM;
	vmemi_counting_init(&s->memory, &allocator);
	vmem_similar_set_limit(s, opts.max_bytes);
	err = vmemi_similar_table_init(s);
	if (err)
		vmem_similar_free(s);
	else
		*ret_similar = s;
	return err;
}

void vmem_similar_free(vmem_similar *s)
{
	struct vmem_allocator allocator;

	if (!s)
		return;
	allocator = s->memory.inner;
	vmemi_similar_table_free(s);
	vmemi_free(&allocator, s, sizeof(*s), _Alignof(struct vmem_similar));
}
