/* SPDX-License-Identifier: BSD-2-Clause */
/* Blocks of 2 MiB that are made whole, and pieces: see huge.h. */
#include "linux/huge/huge.h"
#include "base/opts.h"
#include "linux/kernel/pagemap.h"
#include "linux/region/dirty.h"
#include "linux/reclaim/reclaim.h"
#include <sys/mman.h>
#include <vmem/huge.h>

#ifndef MADV_COLLAPSE /* 6.1 */
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_POPULATE_WRITE /* 5.14 */
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLD /* 5.4 */
#define MADV_COLD 20
#endif

#define PASS_NS \
	UINT64_C(1000000000) /* from the beginning of a pass to that of the next, at least */
#define WORK_NS 4000000      /* of a spell of work; a collapse that was begun is finished */
#define REST_NS 100000000    /* from the end of a spell to the next, at least */
#define LOOKS 64             /* blocks looked at in a spell, of a region */
#define CHECKS 512           /* whole blocks checked in a round, of a region */
#define CHOICE 16            /* whole blocks of which the oldest is split */
#define FAULTS_FEW 32 /* reads of faults since the last round: nobody is kept from his core */
#define FAILS_MAX 6   /* 2^6 passes are a minute */
#define TRIAL_NS UINT64_C(1000000000)
#define TRIAL_BACK 2     /* of the pages taken, that show that a block is in use */
#define PRESS_PAGES 4096 /* taken from others, between two trials */
#define PROBES 16        /* pages by which a block is judged */

static uint64_t blocks_of(const struct vmem_region *r)
{
	uint64_t pages = atomic_load(&r->pages);

	return pages > r->huge.lead ? (pages - r->huge.lead) / VMEMI_HUGE_PAGES : 0;
}

static uint64_t first_page(const struct vmem_region *r, uint64_t block)
{
	return r->huge.lead + block * VMEMI_HUGE_PAGES;
}

/* The block that a page is in, or NULL. */
static struct vmemi_huge_block *block_of(const struct vmem_region *r, uint64_t page)
{
	uint64_t block = (page - r->huge.lead) / VMEMI_HUGE_PAGES;

	if (!r->huge.blocks || page < r->huge.lead || block >= blocks_of(r))
		return NULL;
	return &r->huge.blocks[block];
}

/* Of nothing, which the kernel does if it knows how. */
bool vmemi_huge_is_known(const struct vmemi_kernel *k, void *memory)
{
	return !k->madvise(memory, 0, MADV_COLLAPSE);
}

const char *vmemi_huge_why(const struct vmemi_host *host, const struct vmem_region_opts *o)
{
	if (o->flags & VMEM_REGION_FILE)
		return "memory in a file, which the kernel maps in pages of 4 KiB when they come back";
	if (!(host->features & VMEM_KERNEL_COLLAPSE))
		return "a kernel without MADV_COLLAPSE";
	if (host->features & VMEM_KERNEL_ASYNC_WP)
		return "a manager with VMEM_MANAGER_ASYNC_WP, whose first write to a huge page splits it";
	if (o->hva && vmemi_huge_shift((uintptr_t)o->hva, o->gpa))
		return "host and guest addresses that differ modulo 2 MiB";
	return "";
}

int vmemi_huge_init(struct vmem_region *r)
{
	r->huge.pagemap = -1;
	if (!(r->opts.flags & VMEM_REGION_HUGE))
		return 0;
	r->huge.lead = -(uintptr_t)r->base % VMEMI_HUGE_BYTES / VMEM_PAGE_SIZE;
	r->huge.blocks =
		vmemi_array_new(&r->arrays, VMEMI_HUGE_PAGES, sizeof(struct vmemi_huge_block));
	if (!r->huge.blocks)
		return -VMEM_ENOMEM;
	r->huge.pagemap = vmemi_pagemap_open(r->host->k);
	return 0;
}

void vmemi_huge_destroy(struct vmem_region *r)
{
	vmemi_array_free(&r->arrays, r->huge.blocks, VMEMI_HUGE_PAGES,
			 sizeof(struct vmemi_huge_block));
	if (r->huge.blocks && r->huge.pagemap >= 0)
		r->host->k->close(r->huge.pagemap);
	r->huge.blocks = NULL;
}

/* --- Whole or not --- */

/* False: somebody split it since it was about to be. */
static bool become_whole(struct vmem_region *r, struct vmemi_huge_block *b)
{
	uint8_t soon = VMEMI_HUGE_SOON;

	if (!atomic_compare_exchange_strong(&b->whole, &soon, VMEMI_HUGE_WHOLE))
		return false;
	atomic_fetch_add(&r->huge.whole, 1);
	return true;
}

/* False: it is that already. */
static bool become_pieces(struct vmem_region *r, struct vmemi_huge_block *b)
{
	uint8_t was = atomic_exchange(&b->whole, VMEMI_HUGE_PIECES);

	if (was == VMEMI_HUGE_WHOLE)
		atomic_fetch_sub(&r->huge.whole, 1);
	return was != VMEMI_HUGE_PIECES;
}

/* MADV_COLD only makes the kernel more ready to swap pages out; but a huge frame that they are a part of is split for
 * that, mapped as one or not. If it cannot be, it is held by others, as what is taken out of it then is. Of pages
 * that are gone it splits nothing. */
static void split_frame(struct vmem_region *r, uint64_t page, uint64_t count)
{
	r->host->k->madvise(vmemi_region_page(r, page), count * VMEM_PAGE_SIZE, MADV_COLD);
}

/* Whichever pages are still there. */
static void split_block_frame(struct vmem_region *r, uint64_t block)
{
	const uint64_t half = VMEMI_HUGE_PAGES / 2; /* all of a huge page would be left as one */

	split_frame(r, first_page(r, block), half);
	split_frame(r, first_page(r, block) + half, half);
}

static void split(struct vmem_region *r, uint64_t block)
{
	if (!become_pieces(r, &r->huge.blocks[block]))
		return;
	split_block_frame(r, block);
	vmemi_tally(&r->huge.split, 1);
}

void vmemi_huge_break(struct vmem_region *r, const uint64_t *pages, uint32_t count)
{
	struct vmemi_huge_block *b;

	for (uint32_t i = 0; i < count && r->huge.blocks; i++) {
		b = block_of(r, pages[i]);
		if (!b || !atomic_load_explicit(&b->whole, memory_order_relaxed) ||
		    !become_pieces(r, b))
			continue;
		split_frame(r, pages[i], 1); /* which is the caller's, and so still there */
		vmemi_tally(&r->huge.split, 1);
	}
}

void vmemi_huge_left(struct vmem_region *r, uint64_t first, unsigned count)
{
	struct vmemi_huge_block *b;

	/* A run is shorter than a block. */
	for (unsigned i = 0; i < 2 && r->huge.blocks; i++) {
		b = block_of(r, i ? first + count - 1 : first);
		if (b && atomic_load_explicit(&b->whole, memory_order_relaxed) &&
		    become_pieces(r, b))
			vmemi_tally(&r->huge.split, 1);
	}
}

bool vmemi_huge_keeps(const struct vmem_region *r, uint64_t page)
{
	const struct vmemi_huge_block *b = block_of(r, page);

	return b && b->kept;
}

/* A plain page in place: what is pinned must not change its frame, what is clean is protected. */
static bool is_plain(uint64_t word)
{
	return vmemi_page_state(word) == VMEM_PAGE_RESIDENT &&
	       !(word & (VMEMI_PAGE_LEAVING | VMEMI_PAGE_PINNED));
}

static bool all_are(const struct vmem_region *r, uint64_t block, bool (*is)(uint64_t word))
{
	uint64_t first = first_page(r, block);

	for (uint64_t page = first; page < first + VMEMI_HUGE_PAGES; page++)
		if (!is(vmemi_region_word(r, page)))
			return false;
	return true;
}

/* Its pages are no victims, or are again but for those that are pinned. */
static void keep(struct vmem_region *r, uint64_t block, uint8_t why)
{
	struct vmemi_huge_block *b = &r->huge.blocks[block];
	uint64_t first = first_page(r, block);

	b->kept = why;
	for (uint64_t page = first; page < first + VMEMI_HUGE_PAGES; page++)
		if (is_plain(vmemi_region_word(r, page)))
			vmemi_ages_keep(&r->ages, page, why != VMEMI_HUGE_FREE);
}

/* --- Made whole --- */

/* A few pages tell: those that came back from staging, and those that are younger than what is cold. */
static bool is_worth_it(const struct vmem_region *r, uint64_t block)
{
	uint64_t page = first_page(r, block);
	unsigned warm = 0;

	for (unsigned i = 0; i < PROBES; i++, page += VMEMI_HUGE_PAGES / PROBES)
		warm += vmemi_ages_is_hot(&r->ages, page) ||
			vmemi_ages_age(&r->ages, page) < atomic_load(&r->ages.cold_age);
	return warm >= PROBES / 2;
}

static void put_off(struct vmemi_huge_block *b)
{
	b->wait = (uint8_t)(1u << b->fails);
	if (b->fails < FAILS_MAX)
		b->fails++;
}

/* The block is no longer whole, or no longer spared. */
static void let_go(struct vmem_region *r, uint64_t block)
{
	struct vmemi_huge_block *b = &r->huge.blocks[block];

	split(r, block);
	keep(r, block, VMEMI_HUGE_FREE);
	put_off(b);
}

/* Whether the kernel maps it as one. Where it does not tell, what we have heard of is believed. */
static bool is_huge(const struct vmem_region *r, uint64_t block)
{
	return r->huge.pagemap < 0 ||
	       vmemi_pagemap_is_huge(r->host->k, r->huge.pagemap,
				     (uintptr_t)vmemi_region_page(r, first_page(r, block)));
}

/* Gives a claimed page that is the kernel's page of zeros a frame. It may have been left write-protected; a write would
 * wait then for who serves faults, and he for the claim. No bit of written pages is needed: none are asked for now, nor
 * before the lock is free. */
static int have_frame(struct vmem_region *r, void *address)
{
	int error = 0;

	if (r->can_write_protect)
		error = vmemi_uffd_protect(r->uffd, address, VMEM_PAGE_SIZE, false);
	return error ? error : r->host->k->madvise(address, VMEM_PAGE_SIZE, MADV_POPULATE_WRITE);
}

/* Pages that were only read are mapped to the kernel's one page of zeros, and so are those of a huge page that were zero
 * when it was split (6.12). They get frames of their own, which they have in the budget already. Claimed and mapped, a
 * page stays so: this does not wait for a fault. False: nothing came of it. */
static bool have_frames(struct vmem_region *r, uint64_t block)
{
	const struct vmemi_kernel *k = r->host->k;
	uint64_t first = first_page(r, block), old;
	unsigned zeros = 0;
	int error = 0;

	for (uint64_t page = first; page < first + VMEMI_HUGE_PAGES && !error; page++) {
		unsigned char *address = vmemi_region_page(r, page);

		if (r->huge.pagemap < 0 || !vmemi_region_step(r, page, VMEMI_PAGE_CLAIM, 0, &old))
			return false;
		if (is_plain(old) &&
		    vmemi_pagemap_is_zero(k, r->huge.pagemap, (uintptr_t)address)) {
			error = have_frame(r, address);
			zeros++;
		}
		vmemi_region_end(r, page, VMEMI_PAGE_RETURN, old);
	}
	return zeros && !error;
}

static int ask_kernel(struct vmem_region *r, uint64_t block)
{
	return r->host->k->madvise(vmemi_region_page(r, first_page(r, block)), VMEMI_HUGE_BYTES,
				   MADV_COLLAPSE);
}

/* The kernel does it if all 512 pages are there, none protected and none held by others, and takes and gives back
 * nothing else meanwhile: whoever takes, discards or protects one comes before or after. It is told first, for
 * those who come after. It copies into another frame, which is in the budget as long as both are there. */
static bool collapse(struct vmem_region *r, uint64_t block)
{
	struct vmemi_huge_block *b = &r->huge.blocks[block];
	struct vmemi_frames *frames = &r->host->frames;
	int error;

	if (!vmemi_frames_take(frames, VMEMI_HUGE_PAGES, atomic_load(&frames->reserve_bytes)))
		return false;
	atomic_store(&b->whole, VMEMI_HUGE_SOON);
	error = ask_kernel(r, block);
	if (error == -VMEM_EBUSY && have_frames(r, block))
		error = ask_kernel(r, block);
	vmemi_frames_untake(frames, VMEMI_HUGE_PAGES);
	if (error) {
		become_pieces(r, b);
		vmemi_tally(&r->huge.failed, 1);
		put_off(b);
		return true;
	}
	vmemi_tally(&r->huge.collapsed, 1);
	b->fails = 0;
	if (become_whole(r, b)) {
		keep(r, block, VMEMI_HUGE_KEPT);
	} else { /* split before it was huge, for pages that are gone or go now */
		split_block_frame(r, block);
		put_off(b);
	}
	return true;
}

/* Whether a round may spend time on this: nobody waits, and room is not short. */
static bool has_time(struct vmemi_reclaim *rc)
{
	struct vmemi_host *host = rc->host;
	uint32_t reads = atomic_load(&host->fault_reads), before = rc->huge.fault_reads;

	rc->huge.fault_reads = reads;
	return host->k->clock_ns() >= rc->huge.rest_until_ns && reads - before <= FAULTS_FEW &&
	       !vmemi_host_put_off(host) && !atomic_load(&rc->savers.pending) &&
	       !vmemi_reclaim_is_urgent(host);
}

/* Goes on with the region's pass. False: the time of this spell is over. */
static bool work_on(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t end_ns)
{
	struct vmemi_huge *h = &r->huge;
	uint64_t now = rc->host->k->clock_ns(), blocks = blocks_of(r);

	if (h->hand >= blocks) {
		if (now - h->pass_ns < PASS_NS)
			return true;
		h->hand = 0;
	}
	if (!h->hand)
		h->pass_ns = now;
	for (unsigned i = 0; i < LOOKS && h->hand < blocks; i++) {
		uint64_t block = h->hand++;
		struct vmemi_huge_block *b = &h->blocks[block];

		if (b->kept == VMEMI_HUGE_KEPT && !is_huge(r, block))
			let_go(r, block);
		if (b->kept == VMEMI_HUGE_KEPT || b->kept == VMEMI_HUGE_TRIED ||
		    (b->wait && b->wait--))
			continue;
		if ((!b->kept && !is_worth_it(r, block)) || !all_are(r, block, is_plain))
			continue;
		if (!collapse(r, block) || rc->host->k->clock_ns() >= end_ns ||
		    atomic_load(&rc->host->fault_reads) - rc->huge.fault_reads > FAULTS_FEW)
			return false;
	}
	return true;
}

void vmemi_huge_work(struct vmemi_reclaim *rc)
{
	uint32_t slots = atomic_load(&rc->host->region_slots);
	uint64_t end = rc->host->k->clock_ns() + WORK_NS;
	bool goes_on = true;

	if (!has_time(rc))
		return;
	for (uint32_t i = 0; i < slots && goes_on; i++) {
		struct vmem_region *r;

		rc->huge.slot = (rc->huge.slot + 1) % slots;
		r = atomic_load(&rc->host->regions[rc->huge.slot]);
		/* What is asked for writes protects pages of 4 KiB. */
		if (!r || !r->huge.blocks || vmemi_region_is_quiet(r) || vmemi_dirty_on(r))
			continue;
		goes_on = work_on(rc, r, end);
	}
	rc->huge.rest_until_ns = rc->host->k->clock_ns() + REST_NS;
}

/* --- And pieces again --- */

/* Or somebody has a claim on it there: what goes is told. */
static bool is_in_place(uint64_t word)
{
	return vmemi_page_state(word) == VMEM_PAGE_RESIDENT ||
	       vmemi_page_state(word) == VMEM_PAGE_ARRIVING;
}

/* Page @i of the block that is on trial: each from another part of it. */
static uint64_t trial_page(const struct vmem_region *r, unsigned i)
{
	const unsigned part = VMEMI_HUGE_PAGES / VMEMI_HUGE_TRIAL;

	return first_page(r, r->huge.tried) + i * part + (r->huge.trial_seed >> 6 * i) % part;
}

static bool is_away(const struct vmem_region *r, uint64_t page)
{
	enum vmem_page_state s = vmemi_page_state(vmemi_region_word(r, page));

	return s == VMEM_PAGE_STAGED || s == VMEM_PAGE_STORING || s == VMEM_PAGE_STORED;
}

static void begin_trial(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t block)
{
	struct vmemi_huge *h = &r->huge;

	h->tried = block;
	h->trial_end_ns = rc->host->k->clock_ns() + TRIAL_NS;
	h->trial_seed = h->trial_end_ns * UINT64_C(0x9e3779b97f4a7c15) >> 16;
	h->trial_taken = 0;
	split(r, block);
	keep(r, block, VMEMI_HUGE_TRIED);
	for (unsigned i = 0; i < VMEMI_HUGE_TRIAL; i++)
		vmemi_take_offer(rc, r, trial_page(r, i), 1);
	vmemi_take_flush(rc, r);
	for (unsigned i = 0; i < VMEMI_HUGE_TRIAL; i++)
		h->trial_taken |= (uint32_t)is_away(r, trial_page(r, i)) << i;
}

/* Pages that could not be taken, or were back at once, say that it is better left alone. */
static void judge(struct vmemi_reclaim *rc, struct vmem_region *r)
{
	struct vmemi_huge *h = &r->huge;
	unsigned back = 0, taken = 0;

	if (!h->trial_end_ns)
		return;
	for (unsigned i = 0; i < VMEMI_HUGE_TRIAL; i++) {
		if (!(h->trial_taken >> i & 1))
			continue;
		taken++;
		back += !is_away(r, trial_page(r, i));
	}
	if (taken < TRIAL_BACK || back >= TRIAL_BACK)
		keep(r, h->tried, VMEMI_HUGE_IN_USE);
	else if (rc->host->k->clock_ns() >= h->trial_end_ns)
		let_go(r, h->tried);
	else
		return;
	h->trial_end_ns = 0;
}

void vmemi_huge_check(struct vmemi_reclaim *rc)
{
	uint32_t slots = atomic_load(&rc->host->region_slots);

	for (uint32_t i = 0; i < slots; i++) {
		struct vmem_region *r = atomic_load(&rc->host->regions[i]);
		uint64_t blocks = r && r->huge.blocks ? blocks_of(r) : 0;

		if (blocks)
			judge(rc, r);
		for (uint64_t n = 0; n < blocks && n < CHECKS; n++) {
			uint64_t block = r->huge.check++ % blocks;
			struct vmemi_huge_block *b = &r->huge.blocks[block];

			if (b->kept == VMEMI_HUGE_KEPT &&
			    (!atomic_load(&b->whole) || !all_are(r, block, is_in_place)))
				let_go(r, block);
		}
	}
}

/* Since when the block was not used, as far as is known. */
static uint32_t age_of(const struct vmem_region *r, uint64_t block)
{
	uint64_t page = first_page(r, block);
	uint32_t least = VMEM_TRACK_AGES;

	for (unsigned i = 0; i < VMEMI_HUGE_PAGES; i++, page++) {
		uint32_t age = vmemi_ages_age(&r->ages, page);

		least = age < least ? age : least;
	}
	return least;
}

/* The oldest of the next few. */
static bool choose(struct vmem_region *r, uint64_t *ret_block)
{
	struct vmemi_huge *h = &r->huge;
	uint64_t blocks = blocks_of(r);
	unsigned found = 0;
	uint32_t best = 0;

	for (uint64_t n = 0; n < blocks && found < CHOICE; n++) {
		uint64_t block = h->victim++ % blocks;
		uint32_t age;

		if (!h->blocks[block].kept || h->blocks[block].kept == VMEMI_HUGE_TRIED)
			continue;
		age = age_of(r, block);
		if (!found++ || age > best) {
			best = age;
			*ret_block = block;
		}
	}
	return found;
}

void vmemi_huge_press(struct vmemi_reclaim *rc, struct vmem_region *r, uint64_t want)
{
	uint64_t block = 0;

	r->huge.pressed += want;
	if (r->huge.pressed < PRESS_PAGES || r->huge.trial_end_ns || !r->huge.blocks ||
	    vmemi_reclaim_is_urgent(rc->host))
		return;
	r->huge.pressed = 0;
	if (choose(r, &block))
		begin_trial(rc, r, block);
}

uint64_t vmemi_huge_give(struct vmem_region *r, uint64_t pages)
{
	uint64_t given = 0, block = 0;

	while (given < pages && r->huge.blocks && choose(r, &block)) {
		let_go(r, block);
		given += VMEMI_HUGE_PAGES;
	}
	return given;
}

const char *vmem_region_huge_why(const vmem_manager *manager, const struct vmem_region_opts *opts)
{
	struct vmem_region_opts o;

	if (!manager || !opts || vmemi_opts_take(&o, sizeof(o), opts))
		return "options that are not valid";
	return vmemi_huge_why((const struct vmemi_host *)manager, &o);
}
