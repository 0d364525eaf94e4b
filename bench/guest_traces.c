/* SPDX-License-Identifier: BSD-2-Clause */
/* A tracker is fed by the habit and writes the file, as it would in a host. No guard: one thread. */
#include "guest_traces.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <vmem/trace.h>

#define WORDS (TRACE_PAGES / 64)
#define OCTAVES 13u /* of the mean time between accesses of a page */
#define RARER \
	46341u /* of 65536: of the pages of an octave and above, those above it; half for two octaves */

struct guest {
	uint64_t accessed[WORDS];
	uint64_t random;
	uint32_t minute;
};

/* SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
static uint64_t mix(uint64_t z)
{
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static uint32_t below(struct guest *g, uint32_t limit)
{
	g->random += UINT64_C(0x9e3779b97f4a7c15);
	return (uint32_t)((mix(g->random) >> 32) * limit >> 32);
}

static void touch(struct guest *g, uint32_t page)
{
	page %= TRACE_PAGES;
	g->accessed[page / 64] |= UINT64_C(1) << page % 64;
}

/* Of the even pages number n has a chance of about 1 / n, wherever it is; one odd page in two minutes. */
static void zipf(struct guest *g)
{
	for (uint32_t i = 0; i < 40000; i++) {
		uint32_t scale = below(g, 15), rank = (1u << scale) + below(g, 1u << scale) - 1;

		touch(g, rank * 40503u * 2);
	}
	if (g->minute % 2 == 0)
		touch(g, below(g, TRACE_PAGES) | 1);
}

static uint32_t octave_of(uint32_t page)
{
	uint64_t random = mix(page + 1);
	uint32_t octave = 0;

	while (octave < OCTAVES - 1 && (random & 0xffff) < RARER) {
		random = mix(random);
		octave++;
	}
	return octave;
}

/* A page of octave n with a chance of 1 in 2^n. */
static void heavy_tail(struct guest *g)
{
	for (uint32_t page = 0; page < TRACE_PAGES; page++)
		if (below(g, 1u << octave_of(page)) == 0)
			touch(g, page);
}

/* Nearly all pages of the set each minute. */
static void hot_set(struct guest *g, uint32_t first, uint32_t pages)
{
	for (uint32_t i = 0; i < pages * 6; i++)
		touch(g, first + below(g, pages));
}

static void phases(struct guest *g)
{
	hot_set(g, g->minute / 100 * 14000, 12000);
	if (g->minute % 2 == 0)
		touch(g, below(g, TRACE_PAGES));
}

static void scan(struct guest *g)
{
	hot_set(g, 0, 16000);
	for (uint32_t i = 0; i < 100; i++)
		touch(g, 16000 + (g->minute * 100 + i) % 4000);
	if (g->minute % 2 == 0)
		touch(g, below(g, TRACE_PAGES));
}

static int append(void *context, const void *bytes, size_t count)
{
	struct guest_trace *trace = context;

	if (count > trace->room - trace->count) {
		size_t room = trace->room ? 2 * trace->room : 1 << 20;
		void *larger = realloc(trace->bytes, room);

		if (!larger)
			return -ENOMEM;
		trace->bytes = larger;
		trace->room = room;
	}
	memcpy(trace->bytes + trace->count, bytes, count);
	trace->count += count;
	return 0;
}

int guest_trace_read(void *context, void *bytes, size_t count)
{
	struct guest_trace *trace = context;

	if (count > trace->count - trace->at)
		return 0;
	memcpy(bytes, trace->bytes + trace->at, count);
	trace->at += count;
	return 1;
}

static int record(struct guest_trace *trace, struct guest *g, void (*minute)(struct guest *g),
		  vmem_track *track)
{
	const struct vmem_trace_writer writer = { .size = sizeof(writer),
						  .context = trace,
						  .write = append };
	int result = vmem_track_mark(track, 0, TRACE_PAGES, VMEM_TRACK_ABSENT, 0);

	if (result == 0)
		result = vmem_trace_save(track, &writer);
	for (; g->minute < TRACE_MINUTES && result == 0; g->minute++) {
		memset(g->accessed, 0, sizeof(g->accessed));
		minute(g);
		vmem_track_period(track);
		result = vmem_track_feed_bitmap(track, 0, TRACE_PAGES, g->accessed, NULL);
		if (result == 0)
			result = vmem_trace_save_period(track, &writer);
	}
	return result;
}

int guest_trace_make(struct guest_trace *trace, enum guest_trace_habit habit)
{
	static void (*const habits[TRACE_HABITS])(struct guest * g) = {
		[TRACE_ZIPF] = zipf,
		[TRACE_HEAVY_TAIL] = heavy_tail,
		[TRACE_PHASES] = phases,
		[TRACE_SCAN] = scan,
	};
	const struct vmem_track_opts opts = { .size = sizeof(opts),
					      .pages = TRACE_PAGES,
					      .cpu = vmem_cpu_detect() };
	struct guest *g = calloc(1, sizeof(*g));
	vmem_track *track = NULL;
	int result = g ? vmem_track_new(&track, &opts) : -ENOMEM;

	*trace = (struct guest_trace){ 0 };
	if (result == 0) {
		g->random = (uint64_t)habit;
		result = record(trace, g, habits[habit], track);
	}
	vmem_track_free(track);
	free(g);
	return result;
}

void guest_trace_free(struct guest_trace *trace)
{
	free(trace->bytes);
}
