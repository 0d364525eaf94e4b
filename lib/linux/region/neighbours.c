/* SPDX-License-Identifier: BSD-2-Clause */
/* Which pages to bring beside one that faulted: see neighbours.h. (Windows that double: as the kernel's swap
 * read-ahead, by hits; here hits cannot be seen. Streams: stride prefetching, Chen and Baer, 1995.) */
#include "linux/region/neighbours.h"

#define PLACES (sizeof(((struct vmemi_neighbours *)0)->places) / sizeof(_Atomic uint64_t))
#define HISTORY (sizeof(((struct vmemi_neighbours *)0)->history) / sizeof(_Atomic uint32_t))
#define STREAMS (sizeof(((struct vmemi_neighbours *)0)->streams) / sizeof(_Atomic uint64_t))
#define LEFT_OUT (sizeof(((struct vmemi_neighbours *)0)->left_out) / sizeof(_Atomic uint64_t))

#define STRIDE_MAX 4096
#define ASK_EVERY 16    /* one window in so many leaves a page out */
#define ASK_FROM 4      /* pages of a window that can spare one */
#define PATIENCE 1024   /* faults until a page that was left out did not pay */
#define SCORE_FULL 96   /* from here on windows are whole; below they are smaller */
#define SCORE_OFF 40    /* below there are none */
#define TRIAL_EVERY 32  /* but one in so many */
#define DENSE_EXTRA 3   /* faults of a block over twice the mean */
#define DENSE_COUNT 15u /* its bits in a byte; the others are the epoch */

static uint64_t load(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static void store(_Atomic uint64_t *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_relaxed);
}

static uint32_t next(_Atomic uint32_t *counter)
{
	return atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static uint64_t blocks(const struct vmemi_neighbours *a)
{
	return (load(&a->pages) + VMEMI_NEIGHBOURS_BLOCK - 1) / VMEMI_NEIGHBOURS_BLOCK;
}

int vmemi_neighbours_init(struct vmemi_neighbours *a, struct vmemi_arrays *arrays, uint64_t pages,
			  uint32_t most)
{
	vmemi_neighbours_grow(a, pages);
	a->most = most;
	a->density = vmemi_array_new(arrays, VMEMI_NEIGHBOURS_BLOCK, sizeof(*a->density));
	if (!a->density)
		return -VMEM_ENOMEM;
	for (unsigned i = 0; i < HISTORY; i++)
		atomic_init(&a->history[i], UINT32_MAX / 2 + i * 2 * STRIDE_MAX);
	for (unsigned kind = 0; kind < VMEMI_NEIGHBOURS_KINDS; kind++)
		atomic_init(&a->score[kind], SCORE_FULL);
	return 0;
}

void vmemi_neighbours_destroy(struct vmemi_neighbours *a, struct vmemi_arrays *arrays)
{
	vmemi_array_free(arrays, (void *)a->density, VMEMI_NEIGHBOURS_BLOCK, sizeof(*a->density));
}

/* --- What pays --- */

static uint64_t mix(uint64_t x)
{
	x *= UINT64_C(0x9e3779b97f4a7c15);
	return x ^ x >> 32;
}

static void judge(struct vmemi_neighbours *a, enum vmemi_neighbours_kind kind, bool paid)
{
	int score = atomic_load_explicit(&a->score[kind], memory_order_relaxed);

	score += paid ? (255 - score + 7) / 8 : -(score / 8);
	atomic_store_explicit(&a->score[kind], (uint8_t)score, memory_order_relaxed);
}

/* A page that was left out: valid, when, kind, page. */
static uint64_t note_of(uint64_t page, uint32_t now, enum vmemi_neighbours_kind kind)
{
	return UINT64_C(1) << 63 | (uint64_t)kind << 60 | (uint64_t)(now & 0xfffffff) << 32 | page;
}

static enum vmemi_neighbours_kind kind_of(uint64_t note)
{
	return (enum vmemi_neighbours_kind)(note >> 60 & 7);
}

static bool is_late(uint64_t note, uint32_t now)
{
	return ((now - (uint32_t)(note >> 32)) & 0xfffffff) > PATIENCE;
}

/* Whether the page faults because it was left out. */
static bool was_left_out(struct vmemi_neighbours *a, uint64_t page, uint32_t now)
{
	_Atomic uint64_t *slot = &a->left_out[mix(page) % LEFT_OUT];
	uint64_t note = load(slot);

	if (!(note >> 63) || (uint32_t)note != page ||
	    !atomic_compare_exchange_strong_explicit(slot, &note, 0, memory_order_relaxed,
						     memory_order_relaxed))
		return false;
	judge(a, kind_of(note), !is_late(note, now));
	return true;
}

void vmemi_neighbours_leave_out(struct vmemi_neighbours *a,
				const struct vmemi_neighbours_plan *plan)
{
	_Atomic uint64_t *slot = &a->left_out[mix(plan->left_out) % LEFT_OUT];
	uint32_t now = atomic_load_explicit(&a->faults, memory_order_relaxed);
	uint64_t note = load(slot);

	if (note >> 63) {
		if (!is_late(note, now))
			return;
		judge(a, kind_of(note), false);
	}
	store(slot, note_of(plan->left_out, now, plan->kind));
}

/* Makes no more of a plan than its kind has paid, and lets some show whether it does. */
static bool settle(struct vmemi_neighbours *a, struct vmemi_neighbours_plan *plan)
{
	unsigned score = atomic_load_explicit(&a->score[plan->kind], memory_order_relaxed);
	unsigned ask_every = score < SCORE_OFF ? TRIAL_EVERY : ASK_EVERY;
	bool ask =
		plan->count >= ASK_FROM && next(&a->plans[plan->kind]) % ask_every == ask_every - 1;

	plan->left_out = VMEMI_NEIGHBOURS_NONE;
	if (ask)
		plan->left_out =
			plan->first + (uint64_t)plan->stride * (mix(plan->first) % plan->count);
	return plan->count && (ask || score >= SCORE_OFF);
}

/* The binary logarithm of a window, as far as its kind has paid. */
static unsigned limited(const struct vmemi_neighbours *a, enum vmemi_neighbours_kind kind,
			unsigned log2)
{
	unsigned score = atomic_load_explicit(&a->score[kind], memory_order_relaxed);
	unsigned less = score >= SCORE_FULL ? 0 : score >= SCORE_FULL / 2 ? 1 : 2;

	return score < SCORE_OFF || log2 < 2 + less ? log2 : log2 - less;
}

/* --- Strides --- */

/* A stream: next page, stride, log2 of what was brought last. 0: none. */
static uint64_t stream_of(uint64_t next_page, int64_t stride, unsigned log2)
{
	return (uint64_t)(uint16_t)stride << 48 | (uint64_t)log2 << 40 | (next_page & 0xffffffff);
}

static int64_t stride_of(uint64_t stream)
{
	return (int16_t)(stream >> 48);
}

/* How far ahead of the page a window of the stream may go, in the region. */
static uint64_t room(const struct vmemi_neighbours *a, uint64_t page, int64_t stride)
{
	return stride > 0 ? (load(&a->pages) - 1 - page) / (uint64_t)stride
			  : page / (uint64_t)-stride;
}

static void follow(struct vmemi_neighbours *a, _Atomic uint64_t *slot, uint64_t page,
		   int64_t stride, unsigned log2, struct vmemi_neighbours_plan *plan)
{
	uint64_t count = UINT64_C(1) << limited(a, VMEMI_NEIGHBOURS_STRIDE, log2);
	uint64_t most = room(a, page, stride);

	count = count < most ? count : most;
	*plan = (struct vmemi_neighbours_plan){ .kind = VMEMI_NEIGHBOURS_STRIDE,
						.zero = log2 >= 3,
						.first = page + (uint64_t)stride,
						.stride = stride,
						.count = count };
	store(slot, stream_of(page + (uint64_t)stride * (count + 1), stride, log2));
}

/* A fault where a stream is expected to go on, or some steps further, if pages were there already. */
static bool goes_on(struct vmemi_neighbours *a, uint64_t page, struct vmemi_neighbours_plan *plan)
{
	for (unsigned i = 0; i < STREAMS; i++) {
		uint64_t stream = load(&a->streams[i]);
		int64_t stride = stride_of(stream),
			ahead = (int32_t)((uint32_t)page - (uint32_t)stream);
		unsigned log2 = stream >> 40 & 255;

		if (!stride || ahead % stride || ahead / stride < 0 ||
		    ahead / stride > INT64_C(1) << log2)
			continue;
		log2 += UINT64_C(1) << log2 < a->most;
		follow(a, &a->streams[i], page, stride, log2, plan);
		return true;
	}
	return false;
}

/* Whether two earlier faults lie behind it at equal distances. */
static bool begins_stream(struct vmemi_neighbours *a, uint64_t page,
			  struct vmemi_neighbours_plan *plan)
{
	uint32_t history[HISTORY];

	for (unsigned i = 0; i < HISTORY; i++)
		history[i] = atomic_load_explicit(&a->history[i], memory_order_relaxed);
	atomic_store_explicit(&a->history[next(&a->history_next) % HISTORY], (uint32_t)page,
			      memory_order_relaxed);
	for (unsigned i = 0; i < HISTORY; i++) {
		int64_t stride = (int32_t)((uint32_t)page - history[i]);

		if (stride < -STRIDE_MAX || stride > STRIDE_MAX || (stride >= -1 && stride <= 1))
			continue;
		for (unsigned k = 0; k < HISTORY; k++) {
			if (history[k] != history[i] - (uint32_t)stride)
				continue;
			follow(a, &a->streams[next(&a->streams_next) % STREAMS], page, stride, 1,
			       plan);
			return true;
		}
	}
	return false;
}

/* --- Neighbourhoods --- */

/* A place is a page and the binary logarithm of its window. */
static uint64_t place(uint64_t page, unsigned log2)
{
	return page << 8 | log2;
}

static unsigned log2_of(uint64_t place)
{
	return place & 255;
}

static bool is_near(uint64_t page, uint64_t place)
{
	/* Of a window that has hardly begun to grow, the next ones only: what is further away may be the next step
	 * of a stride. */
	uint64_t near = log2_of(place) < 2 ? 2 : UINT64_C(2) << log2_of(place);

	return page - (place >> 8) + near <= 2 * near;
}

/* The window of this fault: each of the last places has one, which doubles with each fault near it. A fault
 * elsewhere takes over the smallest, and halves it: random access soon has none, and takes none from those
 * who go in order beside it. *ret_near: it is near one. */
static unsigned window(struct vmemi_neighbours *a, uint64_t page, bool *ret_near)
{
	unsigned first = atomic_load_explicit(&a->places_next, memory_order_relaxed), least = first;
	uint64_t places[PLACES];
	unsigned log2;

	*ret_near = true;
	for (unsigned k = 0; k < PLACES; k++) {
		unsigned i = (first + k) % PLACES;

		places[i] = load(&a->places[i]);
		if (is_near(page, places[i])) {
			log2 = log2_of(places[i]);
			log2 += UINT64_C(1) << log2 < a->most;
			store(&a->places[i], place(page, log2));
			return log2;
		}
		if (log2_of(places[i]) < log2_of(places[least]))
			least = i;
	}
	*ret_near = false;
	log2 = log2_of(places[least]);
	log2 -= log2 > 0;
	store(&a->places[least], place(page, log2));
	atomic_store_explicit(&a->places_next, (least + 1) % PLACES, memory_order_relaxed);
	return log2;
}

/* The aligned window around the page. */
static void around(const struct vmemi_neighbours *a, uint64_t page, unsigned log2,
		   enum vmemi_neighbours_kind kind, struct vmemi_neighbours_plan *plan)
{
	uint64_t count = UINT64_C(1) << log2, first = page >> log2 << log2;
	uint64_t most = load(&a->pages) - first;

	*plan = (struct vmemi_neighbours_plan){
		.kind = kind,
		/* Only where memory is being filled in order: all around are there or fresh. */
		.zero = kind == VMEMI_NEIGHBOURS_NEAR && log2 >= 3,
		.first = first,
		.stride = 1,
		.count = count < most ? count : most,
	};
}

/* --- Density --- */

/* Counts a fault of the page's block. An epoch is as many faults as there are blocks; counts halve with
 * each, when they are next looked at. True: it stands out. */
static bool is_dense(struct vmemi_neighbours *a, uint64_t page, uint32_t now)
{
	uint64_t all = blocks(a);
	_Atomic uint8_t *slot = &a->density[page / VMEMI_NEIGHBOURS_BLOCK];
	uint8_t byte = atomic_load_explicit(slot, memory_order_relaxed);
	unsigned epoch = (unsigned)(now / all), past = (epoch - (byte >> 4)) & 15;
	unsigned count = (byte & DENSE_COUNT) >> past;
	/* The mean decays like the counts: as many again as in this epoch, and all of it halved. */
	uint64_t counted = now % all + (epoch ? all : 0);
	bool dense;

	count += count < DENSE_COUNT;
	dense = count >= DENSE_EXTRA + 2 * counted / all;
	if (dense)
		count = 0;
	atomic_store_explicit(slot, (uint8_t)((epoch & 15) << 4 | count), memory_order_relaxed);
	return dense;
}

bool vmemi_neighbours_fault(struct vmemi_neighbours *a, uint64_t page,
			    struct vmemi_neighbours_plan *plan)
{
	uint32_t now = next(&a->faults);
	unsigned log2, dense_log2 = 0;
	bool near;

	if (was_left_out(a, page, now))
		return false;
	if (goes_on(a, page, plan))
		return settle(a, plan);
	log2 = window(a, page, &near);
	if (!near && begins_stream(a, page, plan))
		return settle(a, plan);
	log2 = limited(a, VMEMI_NEIGHBOURS_NEAR, log2);
	while (dense_log2 < 4 && UINT64_C(1) << dense_log2 < a->most)
		dense_log2++;
	if (is_dense(a, page, now) && log2 < dense_log2) {
		around(a, page, dense_log2, VMEMI_NEIGHBOURS_DENSE, plan);
		return settle(a, plan);
	}
	around(a, page, log2, VMEMI_NEIGHBOURS_NEAR, plan);
	return plan->count > 1 && settle(a, plan);
}
