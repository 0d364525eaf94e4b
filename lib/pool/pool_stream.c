/* SPDX-License-Identifier: BSD-2-Clause */
/* Streams: their segments by age, what each segment has lost, and room for objects.
 *
 * A stream's segments are in one list by age, and those that have lost enough also in a list of their
 * class, the worst of which compaction takes. Everything here is guarded by the stream's lock; a
 * stream's rank among the streams by the pool's lock, taken inside it. */
#include "pool/pool_internal.h"

/* What is lost in a stream is left at 1/56 of what is stored (1.8 %): with the 1.6 % that a stream
 * without dead objects may lose in tails, compaction always reaches it. */
#define TIDY_FRACTION 56u

/* In a stream at rest at 1/256. While objects come and go that would cost the more moves the less it wins, so
 * rest is measured by what it costs: a number of drops, whatever the size of the stream. */
#define REST_FRACTION 256u
#define REST_DROPS 16u

/* Below this class an open segment is let be: it may still fill up. */
#define OPEN_CLASS_MIN 8u

/* Streams with fewer segments do not get a second open one for what compaction moves. */
#define SMALL_STREAM_SEGMENTS 16u

/* Of an object in transit: a page as it is. */
#define TRANSIT_GRAINS (VMEMI_OBJECT_MAX_BYTES / VMEMI_GRAIN_BYTES)

/* --- Classes --- */

static void class_unlink(struct vmem_pool *p, struct vmemi_stream *s, struct vmemi_segment *seg)
{
	if (seg->class_previous)
		vmemi_segment_at(p, seg->class_previous)->class_next = seg->class_next;
	else
		s->class_first[seg->class] = seg->class_next;
	if (seg->class_next)
		vmemi_segment_at(p, seg->class_next)->class_previous = seg->class_previous;
	if (!s->class_first[seg->class])
		s->classes &= ~(UINT64_C(1) << seg->class);
}

static void class_link(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number,
		       struct vmemi_segment *seg)
{
	seg->class_previous = 0;
	seg->class_next = s->class_first[seg->class];
	if (seg->class_next)
		vmemi_segment_at(p, seg->class_next)->class_previous = number;
	s->class_first[seg->class] = number;
	s->classes |= UINT64_C(1) << seg->class;
}

/* Counts one in transit while it waits. */
static void count_waiting(struct vmem_pool *p, struct vmemi_stream *s, struct vmemi_segment *seg,
			  bool waits)
{
	uint32_t by = (uint32_t)waits - seg->waits;

	seg->waits = waits;
	if (!by)
		return;
	atomic_fetch_add_explicit(&s->waiting, by, memory_order_relaxed);
	atomic_fetch_add_explicit(&p->waiting, by, memory_order_relaxed);
}

/* Counts anew what a segment has lost, and moves it to its class. */
static void settle(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number,
		   struct vmemi_segment *seg)
{
	bool open = seg->state == VMEMI_SEGMENT_OPEN;
	uint32_t lost = (open ? seg->used : VMEMI_SEGMENT_GRAINS) - seg->live;
	uint32_t class = lost / VMEMI_CLASS_GRAINS;

	count_waiting(p, s, seg, seg->transit && !open && !seg->leaving && !seg->stays);
	s->lost += (uint64_t)lost - seg->lost;
	atomic_fetch_add_explicit(&p->lost, (uint64_t)lost - seg->lost, memory_order_relaxed);
	seg->lost = lost;
	if ((open && class < OPEN_CLASS_MIN) || seg->leaving)
		class = 0;
	if (class == seg->class)
		return;
	if (seg->class)
		class_unlink(p, s, seg);
	seg->class = (uint8_t) class;
	if (class)
		class_link(p, s, number, seg);
}

/* --- Rank --- */

static uint32_t worst_class(const struct vmemi_stream *s)
{
	return s->classes ? 63u - (uint32_t)__builtin_clzll(s->classes) : 0;
}

static bool is_more_lost(const struct vmemi_stream *s)
{
	return s->lost * (s->at_rest ? REST_FRACTION : TIDY_FRACTION) > s->live;
}

void vmemi_stream_dropped(struct vmemi_stream *s)
{
	if (s->dropped > REST_DROPS)
		s->at_rest = false;
	else
		s->dropped++;
}

bool vmemi_stream_untidy(const struct vmemi_stream *s)
{
	return s->exists && s->classes && is_more_lost(s);
}

static void rank_unlink(struct vmem_pool *p, struct vmemi_stream *s)
{
	if (s->rank_previous)
		vmemi_stream_at(p, s->rank_previous - 1)->rank_next = s->rank_next;
	else
		p->rank_first[s->rank] = s->rank_next;
	if (s->rank_next)
		vmemi_stream_at(p, s->rank_next - 1)->rank_previous = s->rank_previous;
	if (!p->rank_first[s->rank])
		p->ranks &= ~(UINT64_C(1) << s->rank);
}

static void rank_link(struct vmem_pool *p, struct vmemi_stream *s)
{
	s->rank_previous = 0;
	s->rank_next = p->rank_first[s->rank];
	if (s->rank_next)
		vmemi_stream_at(p, s->rank_next - 1)->rank_previous = s->id + 1;
	p->rank_first[s->rank] = s->id + 1;
	p->ranks |= UINT64_C(1) << s->rank;
}

void vmemi_stream_rank(struct vmem_pool *p, struct vmemi_stream *s, bool lower)
{
	uint32_t rank = vmemi_stream_untidy(s) ? worst_class(s) : 0;

	if (rank == s->rank || (rank < s->rank && !lower))
		return;
	vmemi_lock(&p->lock);
	if (s->rank)
		rank_unlink(p, s);
	s->rank = rank;
	if (rank)
		rank_link(p, s);
	vmemi_unlock(&p->lock);
}

void vmemi_stream_look(struct vmem_pool *p, struct vmemi_stream *s)
{
	s->at_rest = s->dropped <= REST_DROPS;
	s->dropped = 0;
	vmemi_stream_rank(p, s, true);
}

/* --- Segments of a stream --- */

/* Puts a segment into the list of ages, before @younger, or at the young end for 0. */
static void age_link(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number, uint32_t younger)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);

	seg->younger = younger;
	if (younger) {
		struct vmemi_segment *next = vmemi_segment_at(p, younger);

		seg->older = next->older;
		seg->sequence = next->sequence;
		next->older = number;
	} else {
		seg->older = s->youngest;
		seg->sequence = ++s->sequence;
		s->youngest = number;
	}
	if (seg->older)
		vmemi_segment_at(p, seg->older)->younger = number;
	else
		s->oldest = number;
}

static void age_unlink(struct vmem_pool *p, struct vmemi_stream *s, struct vmemi_segment *seg)
{
	if (seg->older)
		vmemi_segment_at(p, seg->older)->younger = seg->younger;
	else
		s->oldest = seg->younger;
	if (seg->younger)
		vmemi_segment_at(p, seg->younger)->older = seg->older;
	else
		s->youngest = seg->older;
}

void vmemi_stream_seal(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);

	if (seg->state != VMEMI_SEGMENT_OPEN)
		return;
	for (int head = 0; head < VMEMI_HEADS; head++)
		if (s->open[head] == number)
			s->open[head] = 0;
	seg->state = VMEMI_SEGMENT_SEALED;
	settle(p, s, number, seg);
	vmemi_stream_rank(p, s, false);
}

/* Makes a spare segment, in hand, the open one. */
static void open_segment(struct vmem_pool *p, struct vmemi_stream *s, enum vmemi_head head,
			 uint32_t number, uint32_t younger)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);

	if (s->open[head])
		vmemi_stream_seal(p, s, s->open[head]);
	seg->state = VMEMI_SEGMENT_OPEN;
	seg->class = 0;
	seg->leaving = seg->stays = seg->waits = false;
	seg->transit = head == VMEMI_HEAD_TRANSIT;
	seg->born = atomic_fetch_add_explicit(&p->born, 1, memory_order_relaxed);
	seg->used = seg->live = seg->lost = 0;
	atomic_store_explicit(&seg->scanned, 0, memory_order_relaxed);
	atomic_store_explicit(&seg->stream, s->id, memory_order_relaxed);
	age_link(p, s, number, younger);
	s->open[head] = number;
	s->segments++;
}

/* Takes one with memory out of all lists and sums. */
static void unlink_segment(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);

	for (int head = 0; head < VMEMI_HEADS; head++)
		if (s->open[head] == number)
			s->open[head] = 0;
	if (seg->class)
		class_unlink(p, s, seg);
	count_waiting(p, s, seg, false);
	age_unlink(p, s, seg);
	s->used -= seg->used;
	s->live -= seg->live;
	s->lost -= seg->lost;
	atomic_fetch_sub_explicit(&p->lost, seg->lost, memory_order_relaxed);
	s->segments--;
}

static void out_unlink(struct vmem_pool *p, struct vmemi_stream *s, struct vmemi_segment *seg)
{
	if (seg->younger)
		vmemi_segment_at(p, seg->younger)->older = seg->older;
	else
		s->out_first = seg->older;
	if (seg->older)
		vmemi_segment_at(p, seg->older)->younger = seg->younger;
	s->out_live -= seg->live;
	s->out_segments--;
	atomic_store_explicit(&seg->is_out, false, memory_order_relaxed);
}

void vmemi_stream_detach(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);

	if (seg->state == VMEMI_SEGMENT_OUT)
		out_unlink(p, s, seg);
	else
		unlink_segment(p, s, number);
	seg->state = VMEMI_SEGMENT_DRAINING;
}

void vmemi_stream_leaving(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number,
			  bool leaving)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);

	if (seg->state != VMEMI_SEGMENT_SEALED)
		return;
	seg->leaving = leaving;
	settle(p, s, number, seg);
	vmemi_stream_rank(p, s, true);
}

void vmemi_stream_home(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number,
		       unsigned char *memory, bool is_young)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);

	out_unlink(p, s, seg);
	seg->state = VMEMI_SEGMENT_SEALED;
	seg->transit = false; /* somebody wants it here */
	atomic_store_explicit(&seg->scanned, 0, memory_order_relaxed);
	/* As young as the open one, which is the last in the order of ages for who walks along it. */
	if (is_young)
		seg->born = atomic_fetch_add_explicit(&p->born, 1, memory_order_relaxed);
	age_link(p, s, number, is_young ? s->open[VMEMI_HEAD_NEW] : s->oldest);
	s->used += seg->used;
	s->live += seg->live;
	s->segments++;
	settle(p, s, number, seg);
	vmemi_stream_rank(p, s, true);
	atomic_store(&seg->memory, memory);
}

void vmemi_stream_out(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);

	unlink_segment(p, s, number);
	seg->state = VMEMI_SEGMENT_OUT;
	seg->class = 0;
	seg->lost = 0;
	seg->leaving = false;
	seg->younger = 0;
	atomic_store_explicit(&seg->heat, 0, memory_order_relaxed);
	seg->older = s->out_first;
	if (s->out_first)
		vmemi_segment_at(p, s->out_first)->younger = number;
	s->out_first = number;
	s->out_live += seg->live;
	s->out_segments++;
	/* Release: who sees it sees whose it is. */
	atomic_store_explicit(&seg->is_out, true, memory_order_release);
	vmemi_stream_rank(p, s, true);
	atomic_store(&seg->memory, NULL); /* then its pins are read: pool_internal.h */
}

bool vmemi_stream_remove(struct vmem_pool *p, struct vmemi_stream *s, uint32_t number,
			 uint32_t grains)
{
	struct vmemi_segment *seg = vmemi_segment_at(p, number);
	bool empty;

	seg->live -= grains;
	if (seg->state == VMEMI_SEGMENT_OUT)
		s->out_live -= grains;
	else
		s->live -= grains;
	empty = !seg->live;
	if (empty)
		vmemi_stream_detach(p, s, number);
	else if (seg->state != VMEMI_SEGMENT_OUT)
		settle(p, s, number, seg);
	vmemi_stream_rank(p, s, false);
	return empty;
}

/* --- Room --- */

/* Takes room for as many of the objects as fit into the open segment. Stream locked. */
static bool take_room(struct vmem_pool *p, struct vmemi_stream *s, enum vmemi_head head,
		      const struct vmemi_request *request, struct vmemi_place *ret_place)
{
	uint32_t number = s->open[head], grains = 0, count = 0;
	struct vmemi_segment *seg = number ? vmemi_segment_at(p, number) : NULL;

	if (!seg)
		return false;
	while (count < request->count &&
	       seg->used + grains + request->grains[count] <= VMEMI_SEGMENT_GRAINS)
		grains += request->grains[count++];
	if (!count)
		return false;
	*ret_place = (struct vmemi_place){ seg, number, seg->used, count };
	seg->used += grains;
	seg->live += grains;
	s->used += grains;
	s->live += grains;
	if (!request->before) {
		s->objects += count;
		s->payload_bytes += request->payload_bytes;
	}
	/* The lock orders this after the segment was opened, and before it can be sealed. */
	atomic_fetch_add_explicit(&seg->pins, VMEMI_PIN_WRITER, memory_order_relaxed);
	if (head == VMEMI_HEAD_TRANSIT && seg->used + TRANSIT_GRAINS > VMEMI_SEGMENT_GRAINS)
		vmemi_stream_seal(p, s, number); /* it need not wait for another object */
	return true;
}

static bool is_small(const struct vmemi_stream *s)
{
	return s->segments < SMALL_STREAM_SEGMENTS;
}

/* In a small stream, saves go on where compaction was, once it can begin without that. Stream locked. */
static bool take_over_moved(struct vmem_pool *p, struct vmemi_stream *s)
{
	uint32_t number = s->open[VMEMI_HEAD_MOVED];

	if (!number || !is_small(s) || !vmemi_segment_is_left(p))
		return false;
	if (s->open[VMEMI_HEAD_NEW])
		vmemi_stream_seal(p, s, s->open[VMEMI_HEAD_NEW]);
	age_unlink(p, s, vmemi_segment_at(p, number));
	age_link(p, s, number, 0);
	s->open[VMEMI_HEAD_NEW] = number;
	s->open[VMEMI_HEAD_MOVED] = 0;
	return true;
}

/* Takes room in what is open. Stream locked. */
static bool take_open(struct vmem_pool *p, struct vmemi_stream *s,
		      const struct vmemi_request *request, struct vmemi_place *ret_place)
{
	if (request->before && (!request->replaces || vmemi_segment_is_left(p)) &&
	    take_room(p, s, VMEMI_HEAD_MOVED, request, ret_place))
		return true;
	if (request->before && !is_small(s))
		return false;
	if (request->transit)
		return take_room(p, s, VMEMI_HEAD_TRANSIT, request, ret_place);
	return take_room(p, s, VMEMI_HEAD_NEW, request, ret_place) ||
	       (!request->before && take_over_moved(p, s) &&
		take_room(p, s, VMEMI_HEAD_NEW, request, ret_place));
}

/* Takes room in a spare segment, in hand. What compaction moves in a small stream goes to where new
 * objects go, except if this was the last segment of the budget: with the next saves, compaction would
 * never make room again. Stream locked. */
static void take_spare(struct vmem_pool *p, struct vmemi_stream *s, uint32_t spare,
		       const struct vmemi_request *request, struct vmemi_place *ret_place)
{
	enum vmemi_head head = VMEMI_HEAD_NEW;

	if (request->before && (!is_small(s) || !vmemi_segment_is_left(p)))
		head = VMEMI_HEAD_MOVED;
	else if (request->transit)
		head = VMEMI_HEAD_TRANSIT;
	open_segment(p, s, head, spare, head == VMEMI_HEAD_MOVED ? request->before : 0);
	(void)take_room(p, s, head, request, ret_place);
}

/* There was no room for a new object. Dead objects of the open segment are let be while there is; now
 * compaction shall win theirs, if it can begin. What is in transit leaves although there is little of it. */
static void close_for_compaction(struct vmem_pool *p, struct vmemi_stream *s)
{
	uint32_t number;

	vmemi_lock(&s->lock);
	number = s->open[VMEMI_HEAD_NEW];
	if (number && vmemi_segment_at(p, number)->lost >= VMEMI_CLASS_GRAINS && is_more_lost(s) &&
	    vmemi_segment_is_left(p))
		vmemi_stream_seal(p, s, number);
	if (s->open[VMEMI_HEAD_TRANSIT])
		vmemi_stream_seal(p, s, s->open[VMEMI_HEAD_TRANSIT]);
	vmemi_unlock(&s->lock);
}

int vmemi_stream_reserve(struct vmem_pool *p, struct vmemi_stream *s,
			 const struct vmemi_request *request, struct vmemi_place *ret_place)
{
	uint32_t before = request->before, spare = 0;
	bool done = false;
	int err = 0;

	while (!err && !done) {
		vmemi_lock(&s->lock);
		if (!s->exists) {
			err = -VMEM_ENOENT;
		} else if (before && vmemi_segment_at(p, before)->state != VMEMI_SEGMENT_SEALED) {
			err = -VMEM_EAGAIN;
		} else {
			done = take_open(p, s, request, ret_place);
			if (!done && spare) {
				take_spare(p, s, spare, request, ret_place);
				spare = 0;
				done = true;
			}
		}
		vmemi_unlock(&s->lock);
		if (!err && !done)
			err = vmemi_segment_get(p,
						!before             ? VMEMI_FOR_SAVE
						: request->replaces ? VMEMI_FOR_REPLACEMENT
								    : VMEMI_FOR_COMPACTION,
						&spare);
	}
	if (spare) /* another thread opened one meanwhile */
		vmemi_segment_put(p, spare);
	if (err == -VMEM_ENOSPC && !before)
		close_for_compaction(p, s);
	return err;
}
