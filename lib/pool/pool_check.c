/* SPDX-License-Identifier: BSD-2-Clause */
/* For tests: walks a pool at rest and says what is wrong in it. Takes no lock. */
#include "base/check.h"
#include "pool/pool_internal.h"

/* What a walk over a segment's headers adds up to. */
struct sums {
	uint64_t objects;
	uint64_t payload_bytes;
	uint64_t grains;
	uint64_t segments;
	uint64_t lost;
	uint64_t out;     /* segments */
	uint64_t waiting; /* of segments */
};

static const char *check_objects(const struct vmem_pool *p, uint32_t number, struct sums *sums)
{
	const struct vmemi_segment *seg = vmemi_segment_at(p, number);
	uint32_t at = 0, live = 0;

	while (at < seg->used) {
		struct vmemi_found found = vmemi_object_at(p, seg->memory, number, at);

		VMEMI_REQUIRE(found.grains);
		if (found.handle) {
			live += found.grains;
			sums->objects++;
			sums->payload_bytes += vmemi_entry_bytes(found.entry);
		}
		at += found.grains;
	}
	VMEMI_REQUIRE(at == seg->used);
	VMEMI_REQUIRE(live == seg->live);
	sums->grains += live;
	return NULL;
}

static bool in_class_list(const struct vmem_pool *p, const struct vmemi_stream *s, uint32_t number)
{
	uint32_t previous = 0, n = s->class_first[vmemi_segment_at(p, number)->class];

	while (n && n != number) {
		previous = n;
		n = vmemi_segment_at(p, n)->class_next;
	}
	return n && vmemi_segment_at(p, n)->class_previous == previous;
}

static const char *check_segment(const struct vmem_pool *p, const struct vmemi_stream *s,
				 uint32_t number)
{
	const struct vmemi_segment *seg = vmemi_segment_at(p, number);
	bool open = s->open[VMEMI_HEAD_NEW] == number || s->open[VMEMI_HEAD_MOVED] == number ||
		    s->open[VMEMI_HEAD_TRANSIT] == number;
	uint32_t end = open ? seg->used : VMEMI_SEGMENT_GRAINS;

	VMEMI_REQUIRE(atomic_load(&seg->pins) == 0);
	VMEMI_REQUIRE(seg->memory);
	VMEMI_REQUIRE(atomic_load(&seg->stream) == s->id);
	VMEMI_REQUIRE(seg->state == (open ? VMEMI_SEGMENT_OPEN : VMEMI_SEGMENT_SEALED));
	VMEMI_REQUIRE(seg->used <= VMEMI_SEGMENT_GRAINS);
	VMEMI_REQUIRE(seg->live && seg->live <= seg->used);
	VMEMI_REQUIRE(seg->lost == end - seg->live);
	VMEMI_REQUIRE(!seg->class || seg->class == seg->lost / VMEMI_CLASS_GRAINS);
	VMEMI_REQUIRE(seg->class || open || seg->lost < VMEMI_CLASS_GRAINS);
	VMEMI_REQUIRE(!seg->class || in_class_list(p, s, number));
	VMEMI_REQUIRE(seg->sequence <= s->sequence);
	VMEMI_REQUIRE(seg->waits == (seg->transit && !open && !seg->leaving && !seg->stays));
	VMEMI_REQUIRE(seg->transit || s->open[VMEMI_HEAD_TRANSIT] != number);
	return NULL;
}

static const char *check_classes(const struct vmem_pool *p, const struct vmemi_stream *s,
				 uint32_t listed)
{
	VMEMI_REQUIRE(!s->class_first[0]);
	for (uint32_t class = 0; class < VMEMI_CLASSES; class ++) {
		VMEMI_REQUIRE((s->classes >> class & 1) == (s->class_first[class] != 0));
		for (uint32_t n = s->class_first[class]; n;
		     n = vmemi_segment_at(p, n)->class_next) {
			VMEMI_REQUIRE(listed);
			listed--;
			VMEMI_REQUIRE(vmemi_segment_at(p, n)->class == class);
		}
	}
	VMEMI_REQUIRE(!listed);
	return NULL;
}

static const char *check_rank(const struct vmem_pool *p, const struct vmemi_stream *s)
{
	uint32_t worst = s->classes ? 63u - (uint32_t)__builtin_clzll(s->classes) : 0;
	uint32_t id = p->rank_first[s->rank];

	/* Too high until work() looks, never too low. */
	VMEMI_REQUIRE(s->rank >= (vmemi_stream_untidy(s) ? worst : 0));
	if (!s->rank)
		return NULL;
	while (id && id != s->id + 1)
		id = vmemi_stream_at(p, id - 1)->rank_next;
	VMEMI_REQUIRE(id);
	VMEMI_REQUIRE(p->ranks >> s->rank & 1);
	return NULL;
}

/* The live objects of a segment that is out are those of its digest. */
static const char *check_out_segment(const struct vmem_pool *p, uint32_t number, struct sums *sums)
{
	const struct vmemi_segment *seg = vmemi_segment_at(p, number);
	uint32_t live = 0;

	VMEMI_REQUIRE(seg->state == VMEMI_SEGMENT_OUT);
	VMEMI_REQUIRE(!seg->memory && seg->digest && !seg->class && !seg->leaving);
	VMEMI_REQUIRE(atomic_load(&seg->pins) == 0);
	for (uint32_t i = 0; i < seg->digest->count; i++) {
		const struct vmemi_digest_entry *e = &seg->digest->entry[i];
		uint64_t entry = vmemi_entry_of(p, e->handle);

		VMEMI_REQUIRE(!i || e->grain > e[-1].grain);
		VMEMI_REQUIRE(vmemi_digest_find(seg->digest, e->grain) == e);
		if (!vmemi_digest_grains(p, number, e))
			continue;
		live += vmemi_entry_grains(entry);
		sums->objects++;
		sums->payload_bytes += vmemi_entry_bytes(entry);
	}
	VMEMI_REQUIRE(live && live == seg->live);
	sums->grains += live;
	return NULL;
}

static const char *check_out(const struct vmem_pool *p, const struct vmemi_stream *s,
			     struct sums *sums)
{
	uint64_t grains = sums->grains;
	uint32_t younger = 0;

	for (uint32_t n = s->out_first; n; n = vmemi_segment_at(p, n)->older) {
		const char *wrong = check_out_segment(p, n, sums);

		if (wrong)
			return wrong;
		VMEMI_REQUIRE(vmemi_segment_at(p, n)->younger == younger);
		VMEMI_REQUIRE(atomic_load(&vmemi_segment_at(p, n)->stream) == s->id);
		younger = n;
		sums->out++;
	}
	VMEMI_REQUIRE(sums->out == s->out_segments);
	VMEMI_REQUIRE(sums->grains - grains == s->out_live);
	sums->grains = grains;
	return NULL;
}

static const char *check_stream(const struct vmem_pool *p, const struct vmemi_stream *s,
				struct sums *sums)
{
	struct sums own = { .objects = 0 };
	uint64_t used = 0, lost = 0, sequence = 0;
	uint32_t listed = 0, older = 0, open = 0, waiting = 0;
	const char *wrong;

	for (uint32_t n = s->oldest; n; n = vmemi_segment_at(p, n)->younger) {
		const struct vmemi_segment *seg = vmemi_segment_at(p, n);

		wrong = check_segment(p, s, n);
		if (!wrong)
			wrong = check_objects(p, n, &own);
		if (wrong)
			return wrong;
		VMEMI_REQUIRE(seg->older == older);
		VMEMI_REQUIRE(seg->sequence >= sequence);
		sequence = seg->sequence;
		older = n;
		used += seg->used;
		lost += seg->lost;
		listed += seg->class != 0;
		waiting += seg->waits;
		open += seg->state == VMEMI_SEGMENT_OPEN;
		own.segments++;
	}
	wrong = check_out(p, s, &own);
	if (wrong)
		return wrong;
	VMEMI_REQUIRE(s->youngest == older);
	for (int head = 0; head < VMEMI_HEADS; head++)
		open -= s->open[head] != 0;
	VMEMI_REQUIRE(!open);
	VMEMI_REQUIRE(atomic_load(&s->waiting) == waiting);
	VMEMI_REQUIRE(s->exists || !own.segments);
	VMEMI_REQUIRE(s->segments == own.segments);
	VMEMI_REQUIRE(s->objects == own.objects);
	VMEMI_REQUIRE(s->payload_bytes == own.payload_bytes);
	VMEMI_REQUIRE(s->live == own.grains);
	VMEMI_REQUIRE(s->used == used);
	VMEMI_REQUIRE(s->lost == lost);
	sums->objects += own.objects;
	sums->segments += own.segments;
	sums->out += own.out;
	sums->waiting += waiting;
	sums->lost += lost;
	wrong = check_classes(p, s, listed);
	return wrong ? wrong : check_rank(p, s);
}

static const char *check_ranks(const struct vmem_pool *p)
{
	for (uint32_t rank = 0; rank < VMEMI_CLASSES; rank++) {
		uint32_t previous = 0;

		VMEMI_REQUIRE((p->ranks >> rank & 1) == (p->rank_first[rank] != 0));
		for (uint32_t id = p->rank_first[rank]; id;) {
			const struct vmemi_stream *s = vmemi_stream_at(p, id - 1);

			VMEMI_REQUIRE(s->rank == rank && rank);
			VMEMI_REQUIRE(s->rank_previous == previous);
			previous = id;
			id = s->rank_next;
		}
	}
	return NULL;
}

/* Live entries lead to objects, which the walk has counted; all others are in the list of free ones. */
static const char *check_index(const struct vmem_pool *p, uint64_t objects)
{
	uint32_t end = vmemi_index_end(p), handle = (uint32_t)atomic_load(&p->free_handles);
	uint64_t live = 0, unused = 0;

	for (uint32_t n = 1; n < end; n++)
		live += vmemi_entry_is_live(atomic_load(vmemi_index_at(p, n)));
	for (; handle; unused++) {
		uint64_t entry = atomic_load(vmemi_index_at(p, handle));

		VMEMI_REQUIRE(unused < end);
		VMEMI_REQUIRE(entry >> 62 == VMEMI_ENTRY_FREE);
		handle = (uint32_t)entry;
	}
	VMEMI_REQUIRE(live == objects);
	VMEMI_REQUIRE(live + unused + (end != 0) == end);
	return NULL;
}

static uint64_t list_length(const struct vmem_pool *p, uint32_t first,
			    enum vmemi_segment_state state)
{
	uint64_t length = 0;

	for (uint32_t n = first; n; n = vmemi_segment_at(p, n)->next)
		length += vmemi_segment_at(p, n)->state == state ? 1 : UINT32_MAX;
	return length;
}

static const char *check_memory(const struct vmem_pool *p, uint64_t segments, uint64_t out)
{
	uint64_t draining = list_length(p, p->draining_first, VMEMI_SEGMENT_DRAINING);
	uint64_t vacated = list_length(p, p->vacated_first, VMEMI_SEGMENT_DRAINING);
	uint64_t without = list_length(p, p->number_first, VMEMI_SEGMENT_NONE), drained_out = 0;

	VMEMI_REQUIRE(p->reserve_count == list_length(p, p->reserve_first, VMEMI_SEGMENT_SPARE));
	for (uint32_t n = p->draining_first; n; n = vmemi_segment_at(p, n)->next)
		drained_out += !vmemi_segment_at(p, n)->memory;
	VMEMI_REQUIRE(p->in_use == segments + draining - drained_out);
	VMEMI_REQUIRE(p->in_use + p->reserve_count + without + out + vacated + drained_out ==
		      p->number_count);
	for (uint32_t n = 1; n <= p->number_count; n++) {
		const struct vmemi_segment *seg = vmemi_segment_at(p, n);

		if (seg->state == VMEMI_SEGMENT_DRAINING) {
			VMEMI_REQUIRE(!seg->memory == (seg->digest != NULL));
			continue;
		}
		VMEMI_REQUIRE((seg->memory != NULL) == (seg->state != VMEMI_SEGMENT_NONE &&
							seg->state != VMEMI_SEGMENT_OUT));
		VMEMI_REQUIRE((seg->digest != NULL) == (seg->state == VMEMI_SEGMENT_OUT));
		VMEMI_REQUIRE(atomic_load(&seg->is_out) == (seg->state == VMEMI_SEGMENT_OUT));
	}
	return NULL;
}

const char *vmemi_pool_check(struct vmem_pool *p)
{
	struct sums sums = { .objects = 0 };
	const char *wrong = NULL;

	for (uint32_t id = 0; !wrong && id < atomic_load(&p->stream_count); id++)
		wrong = check_stream(p, vmemi_stream_at(p, id), &sums);
	VMEMI_REQUIRE(wrong || atomic_load(&p->lost) == sums.lost);
	VMEMI_REQUIRE(wrong || atomic_load(&p->waiting) == sums.waiting);
	if (!wrong)
		wrong = check_ranks(p);
	if (!wrong)
		wrong = check_index(p, sums.objects);
	if (!wrong)
		wrong = check_memory(p, sums.segments, sums.out);
	VMEMI_REQUIRE(atomic_load(&p->idle_slots) == ~UINT64_C(0) >> (64 - p->slot_count));
	return wrong;
}
