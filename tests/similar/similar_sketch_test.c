/* SPDX-License-Identifier: BSD-2-Clause */
/* Sketches: families of pages that are alike are found through them, and others are not. */
#include <math.h>
#include <string.h>
#include "similar/similar_tools.h"
#include "support/pages.h"

enum { FAMILIES = 1000 };

static struct vmemt_fail_alloc memory;
static struct vmemt_page page;
static uint64_t seed;

/* Its words occur again and again, in other pages too: its blocks do not. */
static void make(uint64_t family)
{
	uint64_t state = seed + family;

	for (size_t at = 0; at < VMEM_PAGE_SIZE; at += 8) {
		uint64_t word = vmemt_rand(&state) % 5000;

		memcpy(page.bytes + at, &word, sizeof(word));
	}
}

/* Moves the page up by @bytes; what is new at its start is of no family. */
static void shift(size_t bytes, uint64_t *state)
{
	memmove(page.bytes + bytes, page.bytes, VMEM_PAGE_SIZE - bytes);
	for (size_t at = 0; at < bytes; at++)
		page.bytes[at] = (unsigned char)vmemt_rand(state);
}

static void edit(unsigned runs, uint64_t *state)
{
	while (runs--) {
		uint64_t word = vmemt_rand(state);

		memcpy(page.bytes + vmemt_rand(state) % (VMEM_PAGE_SIZE - 8), &word, sizeof(word));
	}
}

/* An index of one page of each family. */
static vmem_similar *index_of_families(void)
{
	vmem_similar *s = vmemt_similar_new(&memory, 0);
	struct vmem_similar_sketch sketch;

	seed = vmemt_seed("similar_sketch");
	for (uint32_t family = 0; family < FAMILIES; family++) {
		make(family);
		vmem_similar_sketch(page.bytes, &sketch);
		vmem_similar_add(s, &sketch, family);
	}
	return s;
}

/* Of all families, those whose changed page names its family first. */
static unsigned recall(const vmem_similar *s, unsigned edits, size_t shifted)
{
	uint32_t ids[VMEM_SIMILAR_CANDIDATES];
	struct vmem_similar_sketch sketch;
	uint64_t state = ~seed;
	unsigned found = 0;

	for (uint32_t family = 0; family < FAMILIES; family++) {
		make(family);
		shift(shifted, &state);
		edit(edits, &state);
		vmem_similar_sketch(page.bytes, &sketch);
		found += vmem_similar_find(s, &sketch, ids) && ids[0] == family;
	}
	return found;
}

/* What recall() must be at least, if of a class of windows the page that was added has the same least one as the
 * one that is looked for with the probability @same: one of the four features that were kept of it is enough,
 * if it was not crowded out. Five deviations less, and a few for
 * those whose entry another one is taken for. */
static double expected(const vmem_similar *s, double same)
{
	struct vmem_similar_stats stats = vmemt_similar_stats(s);
	double there = (double)stats.entries / (double)(stats.entries + stats.crowded);
	double none = pow(1 - same * there, 4);

	return FAMILIES * (1 - none) - 5 * sqrt(FAMILIES * (1 - none) * none) - FAMILIES / 50;
}

/* An edit of 8 bytes at any place changes two words, or one with 1/8, which 9 or 8 of 505 windows hold. Two sets of
 * windows have the same least one with the probability (in both) / (in either). */
Test(similar_sketch, finds_edited_pages)
{
	vmem_similar *s = index_of_families();

	for (unsigned edits = 0; edits <= 128; edits += 16) {
		double unchanged = pow(1 - (9 - 1.0 / 8) / 505, edits);
		unsigned found = recall(s, edits, 0);

		cr_assert_gt(found, expected(s, unchanged / (2 - unchanged)), "%u edits: %u", edits,
			     found);
	}
	vmem_similar_free(s);
}

/* Moved by n words, a page has all of its windows still, but those that it has lost at its end. */
Test(similar_sketch, finds_moved_pages)
{
	vmem_similar *s = index_of_families();

	for (unsigned n = 0; n <= 256; n += n / 2 + 1) {
		unsigned found = recall(s, 0, n * 8);

		cr_assert_gt(found, expected(s, (505.0 - n) / (505 + n)), "%u words: %u", n, found);
	}
	vmem_similar_free(s);
}

/* A page of no family names one only where tags of entries happen to agree: for 8 features that is
 * 8 * 10 * 2^-13 or so. */
Test(similar_sketch, leaves_others_alone)
{
	vmem_similar *s = index_of_families();
	struct vmem_similar_sketch sketch;
	uint32_t ids[VMEM_SIMILAR_CANDIDATES];
	unsigned named = 0;

	for (uint64_t n = 0; n < FAMILIES; n++) {
		make(FAMILIES + n);
		vmem_similar_sketch(page.bytes, &sketch);
		named += vmem_similar_find(s, &sketch, ids) > 0;
	}
	cr_assert_lt(named, 30);
	vmem_similar_free(s);
	cr_assert_eq(memory.live_bytes, 0);
}

Test(similar_sketch, blocks_that_say_nothing)
{
	struct vmem_similar_sketch sketch, again;
	static const struct vmem_similar_sketch none;

	for (uint64_t n = 0; n < 100; n++) {
		vmemt_page_make(&page, (enum vmemt_page_kind)(n % VMEMT_PAGE_TEXT), n);
		memset(&sketch, 0xff, sizeof(sketch));
		vmem_similar_sketch(page.bytes, &sketch);
		cr_assert_eq(memcmp(&sketch, &none, sizeof(none)), 0);
	}
	/* One word among zeros is in eight windows; only one begins with it, if a sixteenth of all words do. */
	for (uint64_t word = 1, features = 0; word < 1000; word++) {
		memset(&page, 0, sizeof(page));
		memcpy(page.bytes + 2000, &word, sizeof(word));
		vmem_similar_sketch(page.bytes, &sketch);
		features += sketch.feature[0] != 0;
		cr_assert_eq(sketch.feature[1], 0);
		cr_assert(word < 999 || (features > 20 && features < 120));
	}
	/* Eight different ones: eight features, and the first two are the same if parts change places. */
	vmemt_page_make(&page, VMEMT_PAGE_NOISE, 3);
	vmem_similar_sketch(page.bytes, &sketch);
	for (int i = 0; i < 8; i++) {
		cr_assert_neq(sketch.feature[i], 0);
		for (int k = 0; k < i; k++)
			cr_assert_neq(sketch.feature[i], sketch.feature[k]);
	}
	for (size_t i = 0; i < 2048; i++) {
		unsigned char byte = page.bytes[i];

		page.bytes[i] = page.bytes[i + 2048];
		page.bytes[i + 2048] = byte;
	}
	vmem_similar_sketch(page.bytes, &again);
	cr_assert_eq(again.feature[0], sketch.feature[0]);
	cr_assert_eq(again.feature[1], sketch.feature[1]);
}

/* At any address. */
Test(similar_sketch, unaligned)
{
	static unsigned char room[VMEM_PAGE_SIZE + 8];
	struct vmem_similar_sketch sketch, want;

	vmemt_page_make(&page, VMEMT_PAGE_NOISE, 5);
	vmem_similar_sketch(page.bytes, &want);
	for (size_t at = 0; at < 8; at++) {
		memcpy(room + at, page.bytes, VMEM_PAGE_SIZE);
		vmem_similar_sketch(room + at, &sketch);
		cr_assert_eq(memcmp(&sketch, &want, sizeof(want)), 0);
	}
}
