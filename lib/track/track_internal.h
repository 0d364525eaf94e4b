/* SPDX-License-Identifier: BSD-2-Clause */
/* A tracker from inside.
 *
 * The byte of a page is not its age but the number of the period of its last access, modulo 256: its stamp.
 * So the end of a period changes one number, and not all pages. An age is now - stamp. Stamps would come
 * round after 256 periods: each period a sixteenth of them is settled, where ages above 239 become 239, so
 * that none is ever above 255. Between, what is above 239 counts as 239.
 *
 * Words of 64 pages are looked at together. Of each there is known how old its oldest page can be at most
 * (of those in no special state), and what kind of states it has. So a search passes over words without
 * victims by one byte each, and states are read only where they differ within a word or are special.
 *
 * Histograms are indexed by stamp too, and shift with the time in the same way: the bucket that leaves the
 * 240 ages is poured into the last one. Guard of all: the caller's, as for the object. */
#ifndef VMEMI_TRACK_INTERNAL_H
#define VMEMI_TRACK_INTERNAL_H
#include <vmem/track.h>
#include "base/alloc.h"
#include "base/bits.h"

#define VMEMI_TRACK_OLDEST (VMEM_TRACK_AGES - 1)
#define VMEMI_TRACK_SLICES \
	(256 - VMEM_TRACK_AGES) /* periods in which all stamps are settled once */
#define VMEMI_TRACK_WORD 64u    /* pages that are looked at together */
#define VMEMI_TRACK_LANES 8u    /* a word of the queue */
#define VMEMI_TRACK_QUEUE 1024u
#define VMEMI_TRACK_STRIDE 8u /* pages that are taken from a word without a branch */
#define VMEMI_TRACK_GROUP 64u /* words that are looked at together, by what is known of each */
/* Pages in these states are in other counts than the rest: touched one by one. */
#define VMEMI_TRACK_SPECIAL (VMEM_TRACK_ABSENT | VMEM_TRACK_AWAY | VMEM_TRACK_KEPT)
/* Present, but no victims. */
#define VMEMI_TRACK_HELD (VMEM_TRACK_AWAY | VMEM_TRACK_KEPT)

/* Of a word, by the states of its pages. That it is special may be said too long. */
enum vmemi_track_kind {
	VMEMI_TRACK_CLEAN, /* all are 0 */
	VMEMI_TRACK_DIRTY, /* all are VMEM_TRACK_WRITTEN and nothing else */
	VMEMI_TRACK_MIXED, /* none is special */
	VMEMI_TRACK_ANY,
};

/* What a search is after: see vmemi_track_scan.match. */
struct vmemi_track_match {
	uint8_t low, high; /* ages; high 0: none is that old */
	uint8_t skip;      /* states */
};

/* Of the 64 pages of a word: a bit for each. */
struct vmemi_track_matched {
	uint64_t able;  /* at least `low` old and in no state to skip */
	uint64_t older; /* at least `high` old */
	uint64_t clean;
};

/* Words of one group, and room for a last one. */
struct vmemi_track_matches {
	uint8_t at[VMEMI_TRACK_GROUP + 1]; /* from the first word that was looked at */
	struct vmemi_track_matched words[VMEMI_TRACK_GROUP + 1];
};

/* The passes over the arrays, in one build for each vector width (track_scan_*.c). All give the same
 * results. Places and lengths are in words of 64 pages. */
struct vmemi_track_scan {
	/* Sets the stamps of pages accessed, counts those in `moved`. Either bitmap may be NULL. */
	void (*touch)(struct vmem_track *t, uint64_t word, uint64_t words, const uint64_t *accessed,
		      const uint64_t *written);
	/* Settles stamps, and looks anew at what is known of each word. */
	void (*settle)(struct vmem_track *t, uint64_t word, uint64_t words);
	/* Looks at words of one group. @return how many have pages that are able; those are in `ret` */
	uint32_t (*match)(const struct vmem_track *t, uint64_t word, uint32_t words,
			  const struct vmemi_track_match *wanted, struct vmemi_track_matches *ret);
};

extern const struct vmemi_track_scan vmemi_track_scan_plain;
extern const struct vmemi_track_scan vmemi_track_scan_sse2;
extern const struct vmemi_track_scan vmemi_track_scan_avx2;
extern const struct vmemi_track_scan vmemi_track_scan_avx512;
extern const struct vmemi_track_scan vmemi_track_scan_vbmi2;

/* The samples of a period and their averages, in 2^-24 of the pages. */
struct vmemi_track_sampler {
	uint64_t random; /* state of the generator */
	uint64_t slow, fast;
	uint32_t samples, accessed; /* of this period */
	uint32_t last_samples, last_accessed;
	uint8_t answered, averaged; /* there was an answer in this period, ever before */
	uint8_t long_samples;       /* they end with the next sample, not with a period */
};

struct vmem_track {
	uint8_t *stamps, *states; /* of `words` * 64 pages; those beyond `pages` are absent */
	uint8_t *oldest;          /* of a word: no page in no special state has an older stamp */
	uint64_t *kinds; /* vmemi_track_kind: for each group its low bits, then its high ones */
	const struct vmemi_track_scan *scan;
	uint64_t pages, words;
	uint64_t periods; /* the low byte is the stamp of now */
	/* Of pages that are present, and of those that are held among them, by stamp. */
	uint64_t present[256], held[256];
	uint64_t promotions[VMEM_TRACK_AGES]; /* by age */
	/* Of a feed: pages by their stamps before, in lanes that do not wait for each other. Else all zero. */
	uint32_t moved[VMEMI_TRACK_LANES][256];
	/* Their stamps, until there are enough to be counted in one go; the last word of them may write
	 * beyond what it says. */
	uint8_t queue[VMEMI_TRACK_QUEUE + VMEMI_TRACK_WORD + VMEMI_TRACK_STRIDE];
	uint64_t accesses, away, taken, returned;
	uint32_t shadow_shift;
	struct vmemi_track_sampler sampler;
	struct vmem_allocator allocator;
};

static inline uint8_t vmemi_track_now(const struct vmem_track *t)
{
	return (uint8_t)t->periods;
}

static inline uint32_t vmemi_track_age(const struct vmem_track *t, uint8_t stamp)
{
	uint8_t age = (uint8_t)(vmemi_track_now(t) - stamp);

	return age < VMEMI_TRACK_OLDEST ? age : VMEMI_TRACK_OLDEST;
}

static inline uint32_t vmemi_track_kind(const struct vmem_track *t, uint64_t word)
{
	const uint64_t *kinds = t->kinds + word / VMEMI_TRACK_GROUP * 2;
	uint32_t bit = word % VMEMI_TRACK_GROUP;

	return (uint32_t)((kinds[0] >> bit & 1) | (kinds[1] >> bit & 1) << 1);
}

/* Where pages of an age are in the histograms. */
static inline uint8_t vmemi_track_bucket(const struct vmem_track *t, uint32_t age)
{
	return (uint8_t)(vmemi_track_now(t) - age);
}

static inline int vmemi_track_within(const struct vmem_track *t, uint64_t first, uint64_t count)
{
	return first <= t->pages && count <= t->pages - first;
}

/* Takes a page out of the counts (@by -1) before its stamp or state changes, and in again (1). */
void vmemi_track_count(struct vmem_track *t, uint64_t page, uint64_t by);
/* One page was accessed, whatever its state. */
void vmemi_track_touch_page(struct vmem_track *t, uint64_t page, int written);
/* Those of the pages of @word whose bits are set. */
void vmemi_track_touch_pages(struct vmem_track *t, uint64_t word, uint64_t accessed,
			     uint64_t written);
/* The samples of a period that ends. */
void vmemi_track_sampler_period(struct vmemi_track_sampler *s);
/* Walks all at rest, for tests: NULL, or what is wrong. */
const char *vmemi_track_check(const struct vmem_track *t);

#endif
