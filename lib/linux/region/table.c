/* SPDX-License-Identifier: BSD-2-Clause */
/* Changing the state of a page, with all that is counted by state: see table.h. */
#include "linux/region/table.h"
#include "store/store_internal.h"

static bool holds_frame(enum vmem_page_state state)
{
	return state == VMEM_PAGE_RESIDENT || state == VMEM_PAGE_CLEAN ||
	       state == VMEM_PAGE_SHARED || state == VMEM_PAGE_ARRIVING;
}

/* Whether reclaim has something to give back: a copy in staging, or a ref. */
static bool is_waste(uint64_t word)
{
	uint64_t after;

	return vmemi_page_step(word, VMEMI_PAGE_FREED, 0, &after) ||
	       vmemi_page_step(word, VMEMI_PAGE_SHED, 0, &after);
}

/* A change of a page's word; of several pages whose words are counted alike, that of one. */
struct change {
	enum vmemi_page_event event;
	uint64_t old, new;
};

#define NO_WORD UINT64_MAX /* no page has it */

/* All that is counted of a word: its state, its flags, and whether it has a ref. */
static uint64_t counted(uint64_t word)
{
	return word >> VMEMI_PAGE_STATE_SHIFT << 1 | (vmemi_page_ref(word) != 0);
}

static bool is_alike(const struct change *a, const struct change *b)
{
	return counted(a->old) == counted(b->old) && counted(a->new) == counted(b->new);
}

/* @count, if the flag was set; less as much, if it was cleared. */
static void count_flag(_Atomic int64_t *counter, const struct change *c, uint64_t flag,
		       unsigned count)
{
	if ((c->old ^ c->new) & flag)
		atomic_fetch_add(counter, c->new &flag ? (int64_t)count : -(int64_t)count);
}

/* Of @count pages from @page on, all of one group of 64. */
static void account(struct vmem_region *r, uint64_t page, unsigned count, const struct change *c)
{
	enum vmem_page_state was = vmemi_page_state(c->old), is = vmemi_page_state(c->new);
	struct vmemi_region_counts *counts = &r->counts[page / 64 % VMEMI_STRIPES];
	struct vmemi_frames *frames = &r->host->frames;
	uint64_t flags = c->old ^ c->new, bits = UINT64_MAX >> (64 - count) << page % 64;

	if (was != is) {
		atomic_fetch_sub_explicit(&counts->state[was], count, memory_order_relaxed);
		atomic_fetch_add_explicit(&counts->state[is], count, memory_order_relaxed);
	}
	if (flags & VMEMI_PAGE_OCCUPIED) {
		count_flag(&counts->copies, c, VMEMI_PAGE_OCCUPIED, count);
		count_flag(&frames->staging_pages, c, VMEMI_PAGE_OCCUPIED, count);
	}
	/* The frame of a fetched page was taken from the budget before. */
	if (c->event != VMEMI_PAGE_FETCH && holds_frame(was) != holds_frame(is))
		atomic_fetch_add(&frames->resident_pages,
				 holds_frame(is) ? (int64_t)count : -(int64_t)count);
	count_flag(&counts->pinned, c, VMEMI_PAGE_PINNED, count);
	if ((was != is && is != VMEM_PAGE_STORING) || flags & VMEMI_PAGE_PINNED)
		vmemi_page_set_add_group(&r->ages.moved, page / 64, bits);
	if (is_waste(c->new) && !is_waste(c->old))
		vmemi_page_set_add_group(&r->waste, page / 64, bits);
}

/* Changes a word. @c is how the last one changed, by the same event without an argument, or has NO_WORD: what
 * was the same before is so after. */
static bool change(struct vmem_region *r, uint64_t page, uint64_t argument, struct change *c)
{
	uint64_t old = atomic_load(&r->words[page]);

	do {
		if (old != c->old && !vmemi_page_step(old, c->event, argument, &c->new))
			return false;
		c->old = old;
	} while (!atomic_compare_exchange_weak(&r->words[page], &old, c->new));
	return true;
}

bool vmemi_region_step(struct vmem_region *r, uint64_t page, enum vmemi_page_event event,
		       uint64_t argument, uint64_t *ret_old)
{
	struct change c = { .event = event, .old = NO_WORD };

	if (!change(r, page, argument, &c))
		return false;
	account(r, page, 1, &c);
	*ret_old = c.old;
	return true;
}

unsigned vmemi_region_step_run(struct vmem_region *r, uint64_t first, unsigned count,
			       enum vmemi_page_event event, uint64_t *ret_old)
{
	struct change c = { .event = event, .old = NO_WORD }, last = c;
	unsigned done, uncounted = 0;

	for (done = 0; done < count && change(r, first + done, 0, &c); done++, uncounted++) {
		if (uncounted && ((first + done) % 64 == 0 || !is_alike(&c, &last))) {
			account(r, first + done - uncounted, uncounted, &last);
			uncounted = 0;
		}
		last = c;
		if (ret_old)
			ret_old[done] = c.old;
	}
	if (uncounted)
		account(r, first + done - uncounted, uncounted, &last);
	return done;
}

void vmemi_region_end(struct vmem_region *r, uint64_t page, enum vmemi_page_event event,
		      uint64_t argument)
{
	uint64_t old;

	/* If it is not our claim the page stays as it is, and whoever touches it waits. */
	vmemi_region_step(r, page, event, argument, &old);
}

void vmemi_region_end_run(struct vmem_region *r, uint64_t first, unsigned count,
			  enum vmemi_page_event event)
{
	for (unsigned i = 0; i < count; i++)
		i += vmemi_region_step_run(r, first + i, count - i, event, NULL);
}

static uint64_t sum(const struct vmem_region *r, const _Atomic int64_t *first)
{
	int64_t total = 0;

	for (unsigned i = 0; i < VMEMI_STRIPES; i++)
		total += atomic_load_explicit(first + i * (sizeof(r->counts[0]) / sizeof(*first)),
					      memory_order_relaxed);
	return total > 0 ? (uint64_t)total : 0;
}

uint64_t vmemi_region_count(const struct vmem_region *r, enum vmem_page_state state)
{
	return sum(r, &r->counts[0].state[state]);
}

uint64_t vmemi_region_copies(const struct vmem_region *r)
{
	return sum(r, &r->counts[0].copies);
}

uint64_t vmemi_region_pinned(const struct vmem_region *r)
{
	return sum(r, &r->counts[0].pinned);
}

/* Whether a page that is read back should stay clean. If it is written after all, that is one more
 * fault for the guest; if not, it leaves again without being compressed, and meanwhile its frame and
 * its object are both there. The fault costs a KVM guest more than it can save: so as soon as more than
 * about one clean page in eight is written, only every 16th arrival is clean, to see if that changed. */
#define CLEAN_WRITTEN_MAX 1024
#define CLEAN_TRY_EVERY 16

bool vmemi_region_prefers_clean(struct vmem_region *r)
{
	return atomic_load_explicit(&r->clean_written, memory_order_relaxed) <
		       CLEAN_WRITTEN_MAX / 2 ||
	       atomic_fetch_add_explicit(&r->arrivals, 1, memory_order_relaxed) % CLEAN_TRY_EVERY ==
		       0;
}

void vmemi_region_note_clean(struct vmem_region *r, int32_t written, int32_t dropped)
{
	int32_t v = atomic_load_explicit(&r->clean_written, memory_order_relaxed) + 8 * written -
		    dropped;

	/* Two notes at once may lose one: it is a tendency. */
	v = v < 0 ? 0 : v > CLEAN_WRITTEN_MAX ? CLEAN_WRITTEN_MAX : v;
	atomic_store_explicit(&r->clean_written, v, memory_order_relaxed);
}

void vmemi_region_drop_ref(struct vmem_region *r, uint64_t word)
{
	/* The page is not being loaded: others with the same ref may be, and do not keep it. */
	if (vmemi_page_ref(word))
		vmem_store_drop(r->host->store, r->vm, vmemi_page_ref(word));
}

bool vmemi_region_can_load(struct vmem_region *r, uint64_t word)
{
	return !vmemi_page_ref(word) ||
	       vmemi_store_can_load(r->host->store, r->vm, vmemi_page_ref(word));
}

void vmemi_region_drop_all(struct vmem_region *r)
{
	for (uint64_t page = 0; page < r->pages; page++)
		vmemi_region_drop_ref(r, vmemi_region_word(r, page));
}

int vmemi_region_span(const struct vmem_region *r, uint64_t gpa, uint64_t bytes, bool outwards,
		      uint64_t *ret_first, uint64_t *ret_count)
{
	uint64_t start, end, all = vmemi_region_bytes(r);

	if (gpa < r->opts.gpa || gpa - r->opts.gpa > all || bytes > all - (gpa - r->opts.gpa))
		return -VMEM_ERANGE;
	start = gpa - r->opts.gpa;
	end = start + bytes;
	if (outwards) {
		start /= VMEM_PAGE_SIZE;
		end = (end + VMEM_PAGE_SIZE - 1) / VMEM_PAGE_SIZE;
	} else {
		start = (start + VMEM_PAGE_SIZE - 1) / VMEM_PAGE_SIZE;
		end /= VMEM_PAGE_SIZE;
	}
	*ret_first = start;
	*ret_count = end > start ? end - start : 0;
	return 0;
}

uint64_t vmemi_region_check(struct vmem_region *r)
{
	uint64_t count[VMEM_PAGE_STATES] = { 0 }, copies = 0, pinned = 0, wrong = 0;

	for (uint64_t page = 0; page < r->pages; page++) {
		uint64_t word = vmemi_region_word(r, page);

		if (!vmemi_page_valid(word)) {
			wrong++;
			continue;
		}
		count[vmemi_page_state(word)]++;
		copies += (word & VMEMI_PAGE_OCCUPIED) != 0;
		pinned += (word & VMEMI_PAGE_PINNED) != 0;
		wrong += (word & VMEMI_PAGE_LEAVING) != 0;
		wrong += is_waste(word) && !vmemi_page_set_has(&r->waste, page);
		wrong += !(word & VMEMI_PAGE_PINNED) != !r->pins[page];
	}
	for (unsigned s = 0; s < VMEM_PAGE_STATES; s++)
		wrong += count[s] != vmemi_region_count(r, (enum vmem_page_state)s);
	wrong += copies != vmemi_region_copies(r);
	wrong += pinned != vmemi_region_pinned(r);
	return wrong;
}
