/* SPDX-License-Identifier: BSD-2-Clause */
/* Joining the tracker to a region's pages: see ages.h. All here is done by who holds the lock of reclaim. */
#include "linux/region/table.h"

/* A period ends with this part of the pages in place accessed, or with time. */
#define PERIOD_PART 3
#define PERIOD_NS UINT64_C(1000000000)
/* Pages that are stuck are tried again in as many periods, however fast those go by in so long. */
#define RELEASE_SLICES 1024
#define RELEASE_NS 10000000
/* Of so many results the older half counts half. */
#define RETURNS_MAX 256
/* By so many per cent of what is taken must the proven class return less, to be taken from. */
#define MARGIN_PERCENT 5
/* Pages are not cold before they were not used for so many periods, nor before so much is known. */
#define THRESHOLD_LEAST 30
#define THRESHOLD_WAIT_NS UINT64_C(300000000000)
#define WORKING_SET_PERIODS 60
#define SCAN_PAGES (UINT64_C(1) << 22) /* looked at in a call: about a millisecond */

#define CLASSES (VMEMI_AGES_NEW | VMEMI_AGES_PROVEN)
#define OURS (CLASSES | VMEMI_AGES_STORED)

int vmemi_ages_init(struct vmemi_ages *ages, const struct vmem_allocator *a,
		    struct vmemi_arrays *arrays, uint64_t pages, uint64_t now_ns)
{
	struct vmem_track_opts opts = {
		.size = sizeof(opts),
		.allocator = a,
		.pages = pages,
		.flags = VMEM_TRACK_LONG_SAMPLES,
		.seed = now_ns,
		.cpu = vmem_cpu_detect(),
	};

	const struct vmem_threshold_opts threshold = {
		.size = sizeof(threshold),
		.allocator = a,
		.wait_ns = THRESHOLD_WAIT_NS,
		.min_age = THRESHOLD_LEAST,
	};

	ages->period_ns = now_ns;
	if (vmemi_page_set_init(&ages->accessed, arrays, pages) ||
	    vmemi_page_set_init(&ages->moved, arrays, pages) ||
	    vmemi_page_set_init(&ages->stuck, arrays, pages))
		return -VMEM_ENOMEM;
	atomic_store(&ages->cold_age, VMEM_TRACK_AGES);
	if (vmem_track_new(&ages->track, &opts) ||
	    vmem_threshold_new(&ages->threshold, &threshold, now_ns))
		return -VMEM_ENOMEM;
	return 0;
}

void vmemi_ages_destroy(struct vmemi_ages *ages, const struct vmem_allocator *a,
			struct vmemi_arrays *arrays)
{
	vmem_threshold_free(ages->threshold);
	vmem_track_free(ages->track);
	ages->threshold = NULL;
	ages->track = NULL;
	vmemi_active_destroy(&ages->active, a, arrays);
	vmemi_page_set_destroy(&ages->stuck, arrays);
	vmemi_page_set_destroy(&ages->moved, arrays);
	vmemi_page_set_destroy(&ages->accessed, arrays);
}

int vmemi_ages_grow(struct vmemi_ages *ages, uint64_t pages)
{
	uint32_t age, state;
	/* One that has grown for a region that then could not is longer already. */
	bool is_shorter = vmem_track_page(ages->track, pages - 1, &age, &state);
	int error = is_shorter ? vmem_track_grow(ages->track, pages) : 0;

	if (error)
		return error;
	vmemi_active_grow(&ages->active, pages);
	vmemi_page_set_grow(&ages->accessed, pages);
	vmemi_page_set_grow(&ages->moved, pages);
	vmemi_page_set_grow(&ages->stuck, pages);
	return 0;
}

static uint32_t track_state(const struct vmemi_ages *ages, uint64_t page)
{
	uint32_t age, state = VMEM_TRACK_ABSENT;

	vmem_track_page(ages->track, page, &age, &state);
	return state;
}

/* The pages are the tracker's own: nothing can fail. */
static void mark(struct vmemi_ages *ages, uint64_t page, uint32_t clear, uint32_t set)
{
	vmem_track_mark(ages->track, page, 1, clear, set);
}

static void book(struct vmemi_ages *ages, uint32_t state, bool came_back)
{
	struct vmemi_ages_return *ret =
		&ages->returns[state & VMEMI_AGES_PROVEN ? VMEMI_CLASS_PROVEN : VMEMI_CLASS_NEW];

	ret->ended++;
	ret->came_back += came_back;
	if (ret->ended >= RETURNS_MAX) {
		ret->ended /= 2;
		ret->came_back /= 2;
	}
}

/* What became of a page of a sample. */
static void end_sample(struct vmemi_ages *ages, uint64_t page, bool accessed)
{
	vmemi_active_saw(&ages->active, ages->track, page, accessed);
	if (accessed)
		vmemi_tally(&ages->active.touched, 1);
	mark(ages, page, VMEMI_AGES_SAMPLED, 0);
}

/* The guest used a page. One of a sample may have gone and come back since we looked. */
static void access_page(struct vmemi_ages *ages, uint64_t page)
{
	uint32_t state = track_state(ages, page);
	bool sampled = state & VMEMI_AGES_SAMPLED;
	bool from_staging = (sampled || state & VMEM_TRACK_AWAY) && !(state & VMEMI_AGES_STORED);

	ages->arrivals++;
	ages->fresh[page % VMEMI_AGES_FRESH] = (struct vmemi_ages_fresh){ page, ages->harvest_ns };
	if (sampled)
		end_sample(ages, page, true);
	if (from_staging) {
		/* No promotion: it was not saved, and to see whether it is in use it had to be taken. */
		if (!sampled) /* which were no victims */
			book(ages, state, true);
		mark(ages, page, 0, VMEM_TRACK_ABSENT);
		mark(ages, page, VMEM_TRACK_ABSENT | VMEM_TRACK_AWAY | OURS, VMEMI_AGES_PROVEN);
		return;
	}
	vmem_track_feed_list(ages->track, &page, 1, 0);
	if (state & (VMEM_TRACK_ABSENT | VMEM_TRACK_AWAY))
		mark(ages, page, OURS, VMEMI_AGES_NEW);
}

static void is_in_place(struct vmem_region *r, uint64_t page, uint64_t word)
{
	struct vmemi_ages *ages = &r->ages;
	uint32_t state = track_state(ages, page);
	uint32_t written = vmemi_page_state(word) == VMEM_PAGE_RESIDENT ? VMEM_TRACK_WRITTEN : 0;
	bool stays = word & VMEMI_PAGE_PINNED || vmemi_huge_keeps(r, page);
	uint32_t kept = stays ? VMEM_TRACK_KEPT : 0;

	if (state & VMEMI_AGES_SAMPLED)
		end_sample(ages, page, false);
	/* It came as a neighbour, or by the VMM: as if it came for the first time, now. */
	if (state & VMEM_TRACK_AWAY) {
		mark(ages, page, 0, VMEM_TRACK_ABSENT);
		ages->arrivals++;
	}
	mark(ages, page,
	     VMEM_TRACK_ABSENT | VMEM_TRACK_AWAY | VMEM_TRACK_WRITTEN | VMEM_TRACK_KEPT |
		     VMEMI_AGES_STORED,
	     written | kept | (state & CLASSES ? 0 : VMEMI_AGES_NEW));
}

/* It was taken, perhaps before it was ever seen in place. */
static void is_away(struct vmemi_ages *ages, uint64_t page, uint32_t state)
{
	if (state & VMEM_TRACK_ABSENT)
		mark(ages, page, VMEM_TRACK_ABSENT, VMEMI_AGES_NEW);
	vmem_track_take(ages->track, page, 1, NULL);
	mark(ages, page, VMEM_TRACK_KEPT | VMEMI_AGES_STORED, 0);
}

static void is_stored(struct vmemi_ages *ages, uint64_t page)
{
	uint32_t state = track_state(ages, page);

	if (state & VMEMI_AGES_STORED)
		return;
	if ((state & VMEM_TRACK_AWAY) && !(state & VMEMI_AGES_SAMPLED))
		book(ages, state, false);
	is_away(ages, page, state);
	mark(ages, page, OURS, VMEMI_AGES_STORED);
}

/* Brings the tracker's state of a page in line with its word. */
static void place_page(struct vmem_region *r, uint64_t page)
{
	uint64_t word = vmemi_region_word(r, page);

	switch (vmemi_page_state(word)) {
	case VMEM_PAGE_RESIDENT:
	case VMEM_PAGE_CLEAN:
	case VMEM_PAGE_SHARED: is_in_place(r, page, word); break;
	case VMEM_PAGE_STAGED:
	case VMEM_PAGE_STORING: is_away(&r->ages, page, track_state(&r->ages, page)); break;
	case VMEM_PAGE_STORED: is_stored(&r->ages, page); break;
	case VMEM_PAGE_ARRIVING: break; /* comes here again with the end of that */
	default:
		if (track_state(&r->ages, page) & VMEMI_AGES_SAMPLED)
			end_sample(&r->ages, page, false);
		mark(&r->ages, page, UINT8_MAX, VMEM_TRACK_ABSENT);
	}
}

/* Of a group of 64. An access is booked before the change that came of it. */
static void harvest_group(struct vmem_region *r, uint64_t group, uint64_t moved, uint64_t accessed)
{
	for (uint64_t bits = moved | accessed; bits; bits &= bits - 1) {
		unsigned bit = (unsigned)__builtin_ctzll(bits);

		if (accessed >> bit & 1)
			access_page(&r->ages, group * 64 + bit);
		place_page(r, group * 64 + bit);
	}
}

static void harvest_stuck(struct vmem_region *r)
{
	struct vmemi_ages *ages = &r->ages;
	uint64_t bits;

	for (uint64_t group = 0;
	     (bits = vmemi_page_set_take(&ages->stuck, &group, ages->stuck.count)); group++)
		for (; bits; bits &= bits - 1)
			mark(ages, group * 64 + (unsigned)__builtin_ctzll(bits), 0,
			     VMEM_TRACK_KEPT);
}

void vmemi_ages_harvest(struct vmem_region *r)
{
	struct vmemi_ages *ages = &r->ages;
	uint64_t moved, accessed;

	ages->harvest_ns = r->host->k->clock_ns();
	/* Who was accessed is in that set before it is in this: so it is seen in both. */
	for (uint64_t group = 0;
	     (moved = vmemi_page_set_take(&ages->moved, &group, ages->moved.count)); group++) {
		accessed = vmemi_page_set_take_group(&ages->accessed, group);
		harvest_group(r, group, moved, accessed);
	}
	for (uint64_t group = 0;
	     (accessed = vmemi_page_set_take(&ages->accessed, &group, ages->accessed.count));
	     group++)
		harvest_group(r, group, 0, accessed);
	harvest_stuck(r);
}

/* Some of the stuck pages may be tried again. */
static void release_slice(struct vmem_region *r, uint64_t now_ns)
{
	struct vmemi_ages *ages = &r->ages;
	uint64_t slice = ages->release % RELEASE_SLICES;
	uint64_t size = (r->pages + RELEASE_SLICES - 1) / RELEASE_SLICES, first = slice * size;

	if (now_ns - ages->release_ns < RELEASE_NS)
		return;
	ages->release_ns = now_ns;
	ages->release++;
	for (uint64_t page = first; page < first + size && page < r->pages; page++)
		if ((track_state(ages, page) & VMEM_TRACK_KEPT) &&
		    !(vmemi_region_word(r, page) & VMEMI_PAGE_PINNED) && !vmemi_huge_keeps(r, page))
			mark(ages, page, VMEM_TRACK_KEPT, 0);
}

/* The controller's turn, and what the metrics show. */
static void set_threshold(struct vmemi_ages *ages, uint64_t now_ns)
{
	uint64_t working_set = vmem_track_working_set(ages->track, WORKING_SET_PERIODS), cold = 0;
	struct vmem_track_histogram h = { .size = sizeof(h) };
	uint32_t age;

	vmem_track_get_promotions(ages->track, &h);
	vmem_threshold_update(ages->threshold, &h, working_set, now_ns);
	age = vmem_threshold_age(ages->threshold);
	vmem_track_get_ages(ages->track, &h);
	for (uint32_t i = age; i < VMEM_TRACK_AGES; i++)
		cold += h.pages[i];
	atomic_store(&ages->working_set, working_set);
	atomic_store(&ages->cold_age, age);
	atomic_store(&ages->cold_pages, cold);
}

void vmemi_ages_hurry(struct vmem_region *r, uint64_t now_ns)
{
	vmem_track_period(r->ages.track);
	set_threshold(&r->ages, now_ns);
	release_slice(r, now_ns);
	r->ages.arrivals = 0;
	r->ages.period_ns = now_ns;
}

void vmemi_ages_tick(struct vmem_region *r, uint64_t now_ns)
{
	struct vmemi_ages *ages = &r->ages;
	uint64_t in_place =
		vmemi_region_count(r, VMEM_PAGE_RESIDENT) + vmemi_region_count(r, VMEM_PAGE_CLEAN);

	vmemi_ages_harvest(r);
	if (now_ns - ages->period_ns < PERIOD_NS &&
	    (!ages->arrivals || ages->arrivals < in_place / PERIOD_PART))
		return;
	vmemi_feed_ask(r);
	vmemi_ages_hurry(r, now_ns);
}

/* Of the 64 pages from @first on. */
static uint64_t in_place_of(const struct vmemi_ages *ages, uint64_t first, uint64_t bits)
{
	uint64_t all = bits;

	for (; bits; bits &= bits - 1)
		if (track_state(ages, first + (unsigned)__builtin_ctzll(bits)) &
		    (VMEM_TRACK_ABSENT | VMEM_TRACK_AWAY))
			all &= ~(bits & -bits);
	return all;
}

void vmemi_ages_saw(struct vmem_region *r, uint64_t first, uint64_t count, uint64_t *bits)
{
	struct vmemi_ages *ages = &r->ages;
	uint64_t words = (count + 63) / 64, seen = 0;

	for (uint64_t i = 0; i < words; i++) {
		if (i == count / 64)
			bits[i] &= (UINT64_C(1) << count % 64) - 1;
		bits[i] = in_place_of(ages, first + 64 * i, bits[i]);
		seen += (unsigned)__builtin_popcountll(bits[i]);
	}
	vmem_track_feed_bitmap(ages->track, first, count, bits, NULL);
	vmemi_tally(&ages->seen, seen);
}

void vmemi_ages_sample(struct vmem_region *r, uint64_t page)
{
	mark(&r->ages, page, 0, VMEMI_AGES_SAMPLED);
}

bool vmemi_ages_unsample(struct vmem_region *r, uint64_t page)
{
	if (!(track_state(&r->ages, page) & VMEMI_AGES_SAMPLED))
		return false;
	end_sample(&r->ages, page, false);
	return true;
}

unsigned vmemi_ages_return_percent(const struct vmemi_ages *ages, enum vmemi_ages_class of)
{
	const struct vmemi_ages_return *ret = &ages->returns[of];

	return 100 * (ret->came_back + 1) / (ret->ended + 2);
}

enum vmemi_ages_class vmemi_ages_choose(const struct vmemi_ages *ages)
{
	return vmemi_ages_return_percent(ages, VMEMI_CLASS_PROVEN) + MARGIN_PERCENT <
			       vmemi_ages_return_percent(ages, VMEMI_CLASS_NEW)
		       ? VMEMI_CLASS_PROVEN
		       : VMEMI_CLASS_NEW;
}

uint32_t vmemi_ages_least(const struct vmem_region *r)
{
	/* A page that a feed has seen at the end of a period is of age 1 in the next. */
	return r->feed.kind->ask ? 2 : 1;
}

int vmemi_ages_victims(struct vmem_region *r, const struct vmemi_wanted *wanted,
		       struct vmem_track_run *runs, size_t max_runs, size_t *ret_runs)
{
	static const uint32_t others[VMEMI_CLASSES + 1] = { VMEMI_AGES_PROVEN, VMEMI_AGES_NEW, 0 };
	const struct vmem_track_want want = {
		.size = sizeof(want),
		.flags = wanted->emergency ? VMEM_TRACK_EMERGENCY : 0,
		.pages = wanted->pages,
		.scan_pages = SCAN_PAGES,
		.min_age = wanted->min_age,
		.skip = others[wanted->of],
	};

	return vmem_track_victims(r->ages.track, &want, &r->ages.cursor[wanted->of], runs, max_runs,
				  ret_runs);
}

static bool is_fresh(const struct vmemi_ages *ages, uint64_t page)
{
	const struct vmemi_ages_fresh *f = &ages->fresh[page % VMEMI_AGES_FRESH];

	return f->page == page && f->ns && ages->harvest_ns - f->ns < VMEMI_AGES_FRESH_NS;
}

uint64_t vmemi_ages_next_fresh(const struct vmemi_ages *ages, uint64_t first, uint64_t end)
{
	while (first < end && !is_fresh(ages, first))
		first++;
	return first;
}

uint32_t vmemi_ages_age(const struct vmemi_ages *ages, uint64_t page)
{
	uint32_t age = 0, state;

	vmem_track_page(ages->track, page, &age, &state);
	return age;
}

void vmemi_ages_keep(struct vmemi_ages *ages, uint64_t page, bool on)
{
	mark(ages, page, on ? 0 : VMEM_TRACK_KEPT, on ? VMEM_TRACK_KEPT : 0);
}

bool vmemi_ages_is_hot(const struct vmemi_ages *ages, uint64_t page)
{
	return (track_state(ages, page) & (VMEMI_AGES_PROVEN | VMEM_TRACK_AWAY)) ==
	       VMEMI_AGES_PROVEN;
}

static bool agrees(uint64_t word, uint32_t state)
{
	switch (vmemi_page_state(word)) {
	case VMEM_PAGE_RESIDENT:
	case VMEM_PAGE_CLEAN:
	case VMEM_PAGE_SHARED:
		return !(state & (VMEM_TRACK_ABSENT | VMEM_TRACK_AWAY | VMEMI_AGES_STORED)) &&
		       !(state & VMEMI_AGES_NEW) != !(state & VMEMI_AGES_PROVEN) &&
		       !(state & VMEM_TRACK_WRITTEN) ==
			       (vmemi_page_state(word) != VMEM_PAGE_RESIDENT) &&
		       (!(word & VMEMI_PAGE_PINNED) || state & VMEM_TRACK_KEPT);
	case VMEM_PAGE_STAGED: return (state & VMEM_TRACK_AWAY) && !(state & VMEMI_AGES_STORED);
	case VMEM_PAGE_STORED: return (state & VMEM_TRACK_AWAY) && (state & VMEMI_AGES_STORED);
	case VMEM_PAGE_ABSENT:
	case VMEM_PAGE_SOURCE:
	case VMEM_PAGE_POISONED: return state & VMEM_TRACK_ABSENT;
	default: return true; /* on its way */
	}
}

uint64_t vmemi_ages_check(struct vmem_region *r)
{
	uint64_t wrong = 0;

	vmemi_ages_harvest(r);
	for (uint64_t page = 0; page < r->pages; page++)
		wrong += !agrees(vmemi_region_word(r, page), track_state(&r->ages, page));
	return wrong;
}
