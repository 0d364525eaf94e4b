/* SPDX-License-Identifier: BSD-2-Clause */
/* The tracker: making it, the end of a period, states, and what is read from the histograms.
 * track_internal.h has the data structure; its guard is the caller's. */
#include "track/track_internal.h"
#include "base/mem.h"
#include "base/opts.h"

#define ALIGN 64u

void vmemi_track_count(struct vmem_track *t, uint64_t page, uint64_t by)
{
	uint8_t state = t->states[page];
	uint8_t at = vmemi_track_bucket(t, vmemi_track_age(t, t->stamps[page]));

	if (state & VMEM_TRACK_ABSENT)
		return;
	t->present[at] += by;
	if (state & VMEMI_TRACK_HELD)
		t->held[at] += by;
	if (state & VMEM_TRACK_AWAY)
		t->away += by;
}

/* Ages become one more when `now` does. What leaves the ages is poured into the oldest bucket. */
static void shift(uint64_t histogram[256], uint8_t oldest)
{
	uint8_t left = (uint8_t)(oldest - 1);

	histogram[oldest] += histogram[left];
	histogram[left] = 0;
}

void vmem_track_period(vmem_track *t)
{
	uint64_t slice, first, end;
	uint8_t oldest;

	t->periods++;
	oldest = vmemi_track_bucket(t, VMEMI_TRACK_OLDEST);
	shift(t->present, oldest);
	shift(t->held, oldest);
	slice = t->periods % VMEMI_TRACK_SLICES;
	first = t->words * slice / VMEMI_TRACK_SLICES;
	end = t->words * (slice + 1) / VMEMI_TRACK_SLICES;
	t->scan->settle(t, first, end - first);
	if (!t->sampler.long_samples)
		vmemi_track_sampler_period(&t->sampler);
}

static void mark_page(struct vmem_track *t, uint64_t page, uint8_t keep, uint8_t set)
{
	uint8_t before = t->states[page], after = (before & keep) | set;

	if ((before ^ after) & VMEMI_TRACK_SPECIAL) {
		vmemi_track_count(t, page, UINT64_MAX);
		t->states[page] = after;
		if (before & ~after & VMEM_TRACK_ABSENT)
			t->stamps[page] = vmemi_track_now(t);
		vmemi_track_count(t, page, 1);
	} else {
		t->states[page] = after;
	}
}

/* States have changed: looks anew at the words of these pages. */
static void note_words(struct vmem_track *t, uint64_t first, uint64_t count)
{
	uint64_t word = first / VMEMI_TRACK_WORD;

	if (count)
		t->scan->settle(t, word, (first + count - 1) / VMEMI_TRACK_WORD - word + 1);
}

int vmem_track_mark(vmem_track *t, uint64_t first, uint64_t count, uint32_t clear, uint32_t set)
{
	if ((clear | set) > UINT8_MAX)
		return -VMEM_EINVAL;
	if (!vmemi_track_within(t, first, count))
		return -VMEM_ERANGE;
	for (uint64_t page = first; page < first + count; page++)
		mark_page(t, page, (uint8_t)~clear, (uint8_t)set);
	note_words(t, first, count);
	return 0;
}

/* The clock of taken pages, as coarse as it must be to come round only after twice all pages
 * (after Linux, mm/workingset.c). */
static uint32_t shadow_now(const struct vmem_track *t)
{
	return (uint32_t)(t->taken >> t->shadow_shift) &
	       ((UINT32_C(1) << VMEM_TRACK_SHADOW_BITS) - 1);
}

int vmem_track_take(vmem_track *t, uint64_t first, uint64_t count, uint32_t *ret_shadow)
{
	if (!vmemi_track_within(t, first, count))
		return -VMEM_ERANGE;
	if (ret_shadow)
		*ret_shadow = shadow_now(t);
	for (uint64_t page = first; page < first + count; page++) {
		if (t->states[page] & (VMEM_TRACK_ABSENT | VMEM_TRACK_AWAY))
			continue;
		mark_page(t, page, UINT8_MAX, VMEM_TRACK_AWAY);
		t->taken++;
	}
	note_words(t, first, count);
	return 0;
}

int vmem_track_refault(vmem_track *t, uint64_t page, uint32_t shadow, uint64_t *ret_distance)
{
	uint32_t ticks = (shadow_now(t) - shadow) & ((UINT32_C(1) << VMEM_TRACK_SHADOW_BITS) - 1);

	if (shadow >> VMEM_TRACK_SHADOW_BITS)
		return -VMEM_EINVAL;
	if (page >= t->pages)
		return -VMEM_ERANGE;
	vmemi_track_touch_page(t, page, 0);
	*ret_distance = (uint64_t)ticks << t->shadow_shift;
	return 0;
}

int vmem_track_page(const vmem_track *t, uint64_t page, uint32_t *ret_age, uint32_t *ret_state)
{
	if (page >= t->pages)
		return -VMEM_ERANGE;
	*ret_age = vmemi_track_age(t, t->stamps[page]);
	*ret_state = t->states[page];
	return 0;
}

int vmem_track_get_ages(const vmem_track *t, struct vmem_track_histogram *ages)
{
	struct vmem_track_histogram now;

	now.size = sizeof(now);
	for (uint32_t age = 0; age < VMEM_TRACK_AGES; age++)
		now.pages[age] = t->present[vmemi_track_bucket(t, age)];
	return vmemi_opts_give(ages, &now, sizeof(now));
}

int vmem_track_get_promotions(const vmem_track *t, struct vmem_track_histogram *promotions)
{
	struct vmem_track_histogram now;

	now.size = sizeof(now);
	memcpy(now.pages, t->promotions, sizeof(now.pages));
	return vmemi_opts_give(promotions, &now, sizeof(now));
}

uint64_t vmem_track_working_set(const vmem_track *t, uint32_t window_periods)
{
	uint64_t sum = 0;

	for (uint32_t age = 0; age < window_periods && age < VMEM_TRACK_AGES; age++)
		sum += t->present[vmemi_track_bucket(t, age)];
	return sum;
}

static uint64_t groups_of(uint64_t words)
{
	return (words + VMEMI_TRACK_GROUP - 1) / VMEMI_TRACK_GROUP;
}

static uint64_t bytes_of(uint64_t words)
{
	return words * VMEMI_TRACK_WORD * 2 +
	       groups_of(words) * (VMEMI_TRACK_GROUP + 2 * sizeof(uint64_t));
}

int vmem_track_get_stats(const vmem_track *t, struct vmem_track_stats *stats)
{
	struct vmem_track_stats now = {
		.size = sizeof(now),
		.pages = t->pages,
		.present = vmem_track_working_set(t, VMEM_TRACK_AGES),
		.away = t->away,
		.periods = t->periods,
		.accesses = t->accesses,
		.taken = t->taken,
		.returned = t->returned,
		.bytes = bytes_of(t->words) + sizeof(*t),
	};

	return vmemi_opts_give(stats, &now, sizeof(now));
}

static const struct vmemi_track_scan *choose(uint32_t cpu)
{
#if defined(__x86_64__) && !defined(VMEMI_CORE)
	if (cpu & VMEM_CPU_AVX512_VBMI2)
		return &vmemi_track_scan_vbmi2;
	if (cpu & VMEM_CPU_AVX512)
		return &vmemi_track_scan_avx512;
	if (cpu & VMEM_CPU_AVX2)
		return &vmemi_track_scan_avx2;
	if (cpu & VMEM_CPU_SSE2)
		return &vmemi_track_scan_sse2;
#endif
	(void)cpu;
	return &vmemi_track_scan_plain;
}

/* The arrays of a tracker, and what follows from its size. */
struct arrays {
	uint8_t *stamps, *states, *oldest;
	uint64_t *kinds;
	uint64_t pages, words;
	uint32_t shadow_shift;
};

static void use(struct vmem_track *t, const struct arrays *n)
{
	t->stamps = n->stamps;
	t->states = n->states;
	t->oldest = n->oldest;
	t->kinds = n->kinds;
	t->pages = n->pages;
	t->words = n->words;
	t->shadow_shift = n->shadow_shift;
}

/* Makes arrays of @pages pages, all absent. 0, -VMEM_ENOMEM. */
static int make_arrays(const struct vmem_track *t, uint64_t pages, struct arrays *n)
{
	uint64_t words = (pages + VMEMI_TRACK_WORD - 1) / VMEMI_TRACK_WORD, bytes = bytes_of(words);
	size_t stamps = (size_t)(words * VMEMI_TRACK_WORD);
	size_t oldest = (size_t)(groups_of(words) * VMEMI_TRACK_GROUP);

	n->pages = pages;
	n->words = words;
	n->shadow_shift = 0;
	while ((pages * 2 - 1) >> n->shadow_shift >> VMEM_TRACK_SHADOW_BITS)
		n->shadow_shift++;
	n->stamps = bytes > SIZE_MAX ? NULL : vmemi_alloc(&t->allocator, (size_t)bytes, ALIGN);
	if (!n->stamps)
		return -VMEM_ENOMEM;
	n->states = n->stamps + stamps;
	n->oldest = n->states + stamps;
	n->kinds = (uint64_t *)(void *)(n->oldest + oldest);
	memset(n->stamps, vmemi_track_now(t), stamps);
	memset(n->states, VMEM_TRACK_ABSENT, stamps);
	memset(n->oldest, vmemi_track_now(t), oldest);
	memset(n->kinds, 0xff, (size_t)groups_of(words) * 2 * sizeof(*n->kinds));
	return 0;
}

int vmem_track_grow(vmem_track *t, uint64_t pages)
{
	struct arrays n;
	int error;

	if (pages < t->pages || pages > VMEM_TRACK_MAX_PAGES)
		return -VMEM_EINVAL;
	if (pages == t->pages)
		return 0;
	error = make_arrays(t, pages, &n);
	if (error)
		return error;
	memcpy(n.stamps, t->stamps, (size_t)(t->words * VMEMI_TRACK_WORD));
	memcpy(n.states, t->states, (size_t)(t->words * VMEMI_TRACK_WORD));
	memcpy(n.oldest, t->oldest, (size_t)t->words);
	memcpy(n.kinds, t->kinds, (size_t)groups_of(t->words) * 2 * sizeof(*n.kinds));
	vmemi_free(&t->allocator, t->stamps, (size_t)bytes_of(t->words), ALIGN);
	use(t, &n);
	/* Slices are cut anew: the turn of a word may come only after it should have. */
	t->scan->settle(t, 0, t->words);
	return 0;
}

int vmem_track_new(vmem_track **ret_track, const struct vmem_track_opts *given)
{
	struct vmem_track_opts opts;
	struct vmem_allocator allocator;
	struct arrays arrays;
	struct vmem_track *t;
	int err = ret_track ? vmemi_opts_take(&opts, sizeof(opts), given) : -VMEM_EINVAL;

	if (!err && (opts.flags & ~VMEM_TRACK_LONG_SAMPLES || !opts.pages ||
		     opts.pages > VMEM_TRACK_MAX_PAGES))
		err = -VMEM_EINVAL;
	if (!err)
		err = vmemi_alloc_take(&allocator, opts.allocator);
	if (err)
		return err;
	t = vmemi_zalloc(&allocator, sizeof(*t), _Alignof(struct vmem_track));
	if (!t)
		return -VMEM_ENOMEM;
	t->allocator = allocator;
	t->scan = choose(opts.cpu);
	t->sampler.random = opts.seed;
	t->sampler.long_samples = opts.flags & VMEM_TRACK_LONG_SAMPLES ? 1 : 0;
	err = make_arrays(t, opts.pages, &arrays);
	if (err) {
		vmemi_free(&allocator, t, sizeof(*t), _Alignof(struct vmem_track));
		return err;
	}
	use(t, &arrays);
	*ret_track = t;
	return 0;
}

void vmem_track_free(vmem_track *t)
{
	struct vmem_allocator allocator;

	if (!t)
		return;
	allocator = t->allocator;
	vmemi_free(&allocator, t->stamps, (size_t)bytes_of(t->words), ALIGN);
	vmemi_free(&allocator, t, sizeof(*t), _Alignof(struct vmem_track));
}
