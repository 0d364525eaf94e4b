/* SPDX-License-Identifier: BSD-2-Clause */
/* Steps of runs of pages against steps of one page after the other: the same words, and all that is counted by
 * them the same. */
#include "linux/region/table.h"
#include "support/rng.h"
#include <criterion/criterion.h>
#include <string.h>

#define PAGES 320u /* some groups of 64, and more than a run */
#define GROUPS (PAGES / 64)

/* A region with nothing but what steps change. */
struct pages {
	struct vmem_region region;
	struct vmemi_host host;
	_Atomic uint64_t words[PAGES];
	_Atomic uint64_t moved[GROUPS], moved_above[1], waste[GROUPS], waste_above[1];
};

static struct pages one_by_one, in_runs;

static void make(struct pages *p)
{
	memset(p, 0, sizeof(*p));
	p->region.host = &p->host;
	p->region.words = p->words;
	p->region.ages.moved =
		(struct vmemi_page_set){ .pages = p->moved, .groups = p->moved_above };
	p->region.waste = (struct vmemi_page_set){ .pages = p->waste, .groups = p->waste_above };
}

static uint64_t random_word(uint64_t *seed)
{
	uint64_t word;

	do {
		word = vmemi_page_word((enum vmem_page_state)(vmemt_rand(seed) % VMEM_PAGE_STATES),
				       vmemt_rand(seed) & VMEMI_PAGE_FLAGS, vmemt_rand(seed) % 3);
	} while (!vmemi_page_valid(word));
	return word;
}

/* Mostly alike, as neighbours are, with refs of their own, or none. */
static void fill(uint64_t *seed)
{
	uint64_t word = random_word(seed);

	for (unsigned page = 0; page < PAGES; page++) {
		uint64_t other = (word & ~VMEMI_PAGE_REF_MASK) | vmemt_rand(seed) % 4;

		if (vmemt_rand(seed) % 24 == 0)
			word = random_word(seed);
		else if (vmemi_page_valid(other))
			word = other;
		one_by_one.words[page] = in_runs.words[page] = word;
	}
}

static void check(enum vmemi_page_event event)
{
	const struct vmem_region *a = &one_by_one.region, *b = &in_runs.region;

	cr_assert(!memcmp(one_by_one.words, in_runs.words, sizeof(in_runs.words)), "%d", event);
	cr_assert(!memcmp(one_by_one.moved, in_runs.moved, sizeof(in_runs.moved)), "%d", event);
	cr_assert(!memcmp(one_by_one.waste, in_runs.waste, sizeof(in_runs.waste)), "%d", event);
	cr_assert(one_by_one.moved_above[0] == in_runs.moved_above[0], "%d", event);
	cr_assert(one_by_one.waste_above[0] == in_runs.waste_above[0], "%d", event);
	cr_assert(!memcmp(a->counts, b->counts, sizeof(a->counts)), "%d", event);
	cr_assert(a->host->frames.resident_pages == b->host->frames.resident_pages, "%d", event);
	cr_assert(a->host->frames.staging_pages == b->host->frames.staging_pages, "%d", event);
}

static unsigned step_one_by_one(unsigned first, unsigned count, enum vmemi_page_event event,
				uint64_t *old)
{
	unsigned done = 0;

	while (done < count &&
	       vmemi_region_step(&one_by_one.region, first + done, event, 0, &old[done]))
		done++;
	return done;
}

static void compare(enum vmemi_page_event event, uint64_t *seed)
{
	unsigned first = (unsigned)(vmemt_rand(seed) % PAGES);
	unsigned count = (unsigned)(vmemt_rand(seed) % (PAGES - first + 1)), done;
	uint64_t old[PAGES], old_of_run[PAGES];

	if (vmemt_rand(seed) % 2) {
		done = step_one_by_one(first, count, event, old);
		cr_assert(vmemi_region_step_run(&in_runs.region, first, count, event, old_of_run) ==
			  done);
		cr_assert(!memcmp(old, old_of_run, done * sizeof(*old)));
	} else {
		for (unsigned i = 0; i < count; i++)
			vmemi_region_end(&one_by_one.region, first + i, event, 0);
		vmemi_region_end_run(&in_runs.region, first, count, event);
	}
	check(event);
}

Test(page_run, steps_of_a_run_are_those_of_its_pages)
{
	uint64_t seed = vmemt_seed("page_run");

	make(&one_by_one);
	make(&in_runs);
	for (unsigned turn = 0; turn < 5000; turn++) {
		enum vmemi_page_event event =
			(enum vmemi_page_event)(vmemt_rand(&seed) % VMEMI_PAGE_EVENTS);

		if (event == VMEMI_PAGE_STORED || event == VMEMI_PAGE_IMPORT ||
		    event == VMEMI_PAGE_RETURN)
			continue; /* those have arguments */
		if (turn % 4 == 0)
			fill(&seed);
		compare(event, &seed);
	}
}
