/* SPDX-License-Identifier: BSD-2-Clause */
/* The sampler: random pages, what share of them was accessed, and what that says. Integers only. */
#include "track/track_internal.h"
#include "base/opts.h"

#define TRIES 16u /* for a page */
#define SHARE_BITS 24u
#define WHOLE (UINT64_C(1) << SHARE_BITS)
/* Weights of a new period, 2^-n: the averages follow within about 2 and 8 periods. */
#define FAST 1
#define SLOW 3
/* 1.96: 95 % of a normal distribution are within that many standard deviations; in 2^-12. */
#define Z_BITS 12u
#define Z UINT64_C(8028)
#define Z_SQUARE UINT64_C(15735)

/* SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static uint64_t share_of(uint32_t accessed, uint32_t samples)
{
	return ((uint64_t)accessed << SHARE_BITS) / samples;
}

/* The average after a period with @share, rounded towards the share. */
static uint64_t averaged(uint64_t average, uint64_t share, unsigned weight)
{
	uint64_t round = (UINT64_C(1) << weight) - 1;

	return share > average ? average + ((share - average + round) >> weight)
			       : average - ((average - share + round) >> weight);
}

void vmemi_track_sampler_period(struct vmemi_track_sampler *s)
{
	if (s->answered) {
		uint64_t share = share_of(s->accessed, s->samples);

		s->slow = s->averaged ? averaged(s->slow, share, SLOW) : share;
		s->fast = s->averaged ? averaged(s->fast, share, FAST) : share;
		s->last_samples = s->samples;
		s->last_accessed = s->accessed;
		s->averaged = 1;
	}
	s->samples = 0;
	s->answered = 0;
}

size_t vmem_track_sample(vmem_track *t, uint64_t *ret_pages, size_t count)
{
	struct vmemi_track_sampler *s = &t->sampler;
	size_t tries = count * TRIES;

	if (s->long_samples)
		vmemi_track_sampler_period(s);
	s->samples = s->accessed = 0;
	s->answered = 0;
	if (count > VMEM_TRACK_MAX_SAMPLE)
		return 0;
	while (s->samples < count && tries--) {
		uint64_t page = next_random(&s->random) % t->pages;

		if (!(t->states[page] & (VMEM_TRACK_ABSENT | VMEM_TRACK_AWAY)))
			ret_pages[s->samples++] = page;
	}
	return s->samples;
}

int vmem_track_sample_accessed(vmem_track *t, size_t accessed)
{
	struct vmemi_track_sampler *s = &t->sampler;

	if (!s->samples || accessed > s->samples)
		return -VMEM_EINVAL;
	s->accessed = (uint32_t)accessed;
	s->answered = 1;
	return 0;
}

int vmem_track_sample_spoiled(vmem_track *t, size_t count)
{
	struct vmemi_track_sampler *s = &t->sampler;

	if (count > s->samples - s->accessed)
		return -VMEM_EINVAL;
	s->samples -= (uint32_t)count;
	if (!s->samples)
		s->answered = 0;
	return 0;
}

static uint64_t square_root(uint64_t x)
{
	uint64_t root = 0;

	for (uint64_t bit = UINT64_C(1) << 31; bit; bit >>= 1)
		if ((root + bit) * (root + bit) <= x)
			root += bit;
	return root;
}

/* E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927: right also
 * for few samples and shares near 0 and 1. */
static void interval(uint64_t accessed, uint64_t samples, uint64_t *ret_low, uint64_t *ret_high)
{
	uint64_t spread = (accessed * (samples - accessed) << 2 * Z_BITS) / samples +
			  (Z_SQUARE << Z_BITS) / 4;
	uint64_t half = ((square_root(spread) + 1) * Z >> Z_BITS) + 1; /* rounded outwards */
	uint64_t centre = (accessed << Z_BITS) + Z_SQUARE / 2;
	uint64_t whole = (samples << Z_BITS) + Z_SQUARE;

	*ret_low = centre > half ? ((centre - half) << SHARE_BITS) / whole : 0;
	*ret_high = ((centre + half) << SHARE_BITS) / whole + 1;
	if (*ret_high > WHOLE)
		*ret_high = WHOLE;
}

int vmem_track_get_estimate(const vmem_track *t, struct vmem_track_estimate *estimate)
{
	const struct vmemi_track_sampler *s = &t->sampler;
	uint64_t pages = vmem_track_working_set(t, VMEM_TRACK_AGES) - t->away;
	uint64_t low, high, active = s->slow > s->fast ? s->slow : s->fast;
	struct vmem_track_estimate now = { .size = sizeof(now) };

	if (!s->averaged)
		return -VMEM_ENOENT;
	interval(s->last_accessed, s->last_samples, &low, &high);
	if (s->answered) {
		uint64_t so_far = averaged(s->fast, share_of(s->accessed, s->samples), FAST);

		active = so_far > active ? so_far : active;
	}
	now.working_set = pages * s->last_accessed / s->last_samples;
	now.low = pages * low >> SHARE_BITS;
	now.high = (pages * high + WHOLE - 1) >> SHARE_BITS;
	now.active = pages * active >> SHARE_BITS;
	now.samples = s->last_samples;
	return vmemi_opts_give(estimate, &now, sizeof(now));
}
