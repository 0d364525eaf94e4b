/* SPDX-License-Identifier: BSD-2-Clause */
/* The reclaim loop's round: see reclaim.h. */
#include "linux/reclaim/reclaim.h"
#include "linux/fault/loads.h"
#include "base/mem.h"
#include <limits.h>
#include <vmem/pool.h>
#include <vmem/store_device.h>

#define WAIT_NS 1000000000
#define STORE_WORK_NS 1000000
#define SETTLE_LEAST 16
#define OUT_MOST (8 * (uint64_t)VMEM_POOL_SEGMENT_BYTES) /* asked for at a time */
/* Sweeps without a victim before hot pages are taken too. */
#define SWEEPS_BEFORE_HOT 2

int vmemi_reclaim_new(struct vmemi_reclaim **ret_reclaim, struct vmemi_host *host)
{
	struct vmemi_reclaim *rc = vmemi_zalloc(&host->metadata.allocator, sizeof(*rc),
						_Alignof(struct vmemi_reclaim));

	if (!rc)
		return -VMEM_ENOMEM;
	rc->host = host;
	atomic_init(&rc->cost.run_min, VMEMI_RUN_MIN);
	if (vmemi_savers_init(&rc->savers, host)) {
		vmemi_free(&host->metadata.allocator, rc, sizeof(*rc),
			   _Alignof(struct vmemi_reclaim));
		return -VMEM_ENOMEM;
	}
	*ret_reclaim = rc;
	return 0;
}

void vmemi_reclaim_free(struct vmemi_reclaim *rc)
{
	if (!rc)
		return;
	vmemi_savers_destroy(&rc->savers);
	vmemi_free(&rc->host->metadata.allocator, rc, sizeof(*rc), _Alignof(struct vmemi_reclaim));
}

bool vmemi_reclaim_try(struct vmemi_reclaim *rc)
{
	uint32_t ticket = atomic_load(&rc->serving);

	return atomic_compare_exchange_strong(&rc->next_ticket, &ticket, ticket + 1);
}

void vmemi_reclaim_enter(struct vmemi_reclaim *rc)
{
	uint32_t ticket = atomic_fetch_add(&rc->next_ticket, 1), serving;

	while ((serving = atomic_load(&rc->serving)) != ticket)
		rc->host->k->futex_wait(&rc->serving, serving, WAIT_NS);
}

void vmemi_reclaim_leave(struct vmemi_reclaim *rc)
{
	uint32_t serving = atomic_fetch_add(&rc->serving, 1) + 1;

	if (atomic_load(&rc->next_ticket) != serving)
		rc->host->k->futex_wake(&rc->serving, INT_MAX); /* only one of them has its turn */
}

struct totals {
	uint64_t resident, staged;
};

static uint64_t in_place(const struct vmem_region *r)
{
	return vmemi_region_count(r, VMEM_PAGE_RESIDENT) + vmemi_region_count(r, VMEM_PAGE_CLEAN);
}

static struct totals sum(const struct vmemi_host *host)
{
	uint32_t slots = atomic_load(&host->region_slots);
	struct totals t = { 0, 0 };

	for (uint32_t i = 0; i < slots; i++) {
		struct vmem_region *r = atomic_load(&host->regions[i]);

		if (!r || vmemi_region_is_quiet(r))
			continue;
		t.resident += in_place(r);
		t.staged += vmemi_region_count(r, VMEM_PAGE_STAGED);
	}
	return t;
}

static uint64_t share(uint64_t want, uint64_t part, uint64_t whole)
{
	return whole && part ? want * part / whole + 1 : 0;
}

/* Fills staging up to its limit, each region giving by its size in place. */
static uint64_t take(struct vmemi_reclaim *rc, uint64_t want)
{
	struct totals t = sum(rc->host);
	uint32_t slots = atomic_load(&rc->host->region_slots);
	bool emergency = rc->idle_sweeps >= SWEEPS_BEFORE_HOT;
	uint64_t taken = 0;

	for (uint32_t i = 0; i < slots; i++) {
		struct vmem_region *r = atomic_load(&rc->host->regions[i]);

		if (r && !vmemi_region_is_quiet(r) && in_place(r))
			taken += vmemi_take_cold(rc, r, share(want, in_place(r), t.resident),
						 emergency);
	}
	return taken;
}

/* Leaves it to the savers. What they have done comes to light one time later. */
static struct vmemi_settled name(struct vmemi_reclaim *rc, uint64_t want)
{
	uint32_t slots = atomic_load(&rc->host->region_slots);
	uint32_t pending = atomic_load(&rc->savers.pending);
	struct vmemi_settled done = vmemi_savers_done(&rc->savers);
	struct totals t = sum(rc->host);

	/* What is put back without a move needs a second frame until that is freed: see settle.c. */
	if (!(rc->host->features & VMEM_KERNEL_MOVE) && want > VMEMI_SCATTER_BATCH)
		want = VMEMI_SCATTER_BATCH;
	want = done.full || want < pending ? 0 : want - pending;
	for (uint32_t i = 0; i < slots && want; i++) {
		struct vmem_region *r = atomic_load(&rc->host->regions[i]);

		if (r && !vmemi_region_is_quiet(r))
			vmemi_settle_name(
				&rc->savers, r,
				share(want, vmemi_region_count(r, VMEM_PAGE_STAGED), t.staged));
	}
	return done;
}

static struct vmemi_settled settle(struct vmemi_reclaim *rc, uint64_t want)
{
	struct totals t = sum(rc->host);
	uint32_t slots = atomic_load(&rc->host->region_slots);
	struct vmemi_settled all = { 0 };

	for (uint32_t i = 0; i < slots && !all.full; i++) {
		struct vmem_region *r = atomic_load(&rc->host->regions[i]);
		struct vmemi_settled one;

		if (!r || vmemi_region_is_quiet(r))
			continue;
		one = vmemi_settle(r,
				   share(want, vmemi_region_count(r, VMEM_PAGE_STAGED), t.staged));
		vmemi_tidy(rc, r, 0, r->pages);
		all.saved += one.saved;
		all.refused += one.refused;
		all.full = one.full;
	}
	return all;
}

static uint64_t tidy(struct vmemi_reclaim *rc)
{
	uint32_t slots = atomic_load(&rc->host->region_slots);
	uint64_t freed = 0;

	for (uint32_t i = 0; i < slots; i++) {
		struct vmem_region *r = atomic_load(&rc->host->regions[i]);

		if (r)
			freed += vmemi_tidy(rc, r, 0, r->pages);
	}
	return freed;
}

/* Time goes on for all regions, whether they give pages or not. */
static void tick(struct vmemi_reclaim *rc)
{
	uint32_t slots = atomic_load(&rc->host->region_slots);
	uint64_t now = rc->host->k->clock_ns();

	for (uint32_t i = 0; i < slots; i++) {
		struct vmem_region *r = atomic_load(&rc->host->regions[i]);

		if (!r)
			continue;
		vmemi_ages_tick(r, now);
		vmemi_sample_tick(rc, r, now);
		vmemi_pressure_tick(&r->pressure, now);
	}
}

/* How many staged pages to save now: what the missing bytes ask for, at about 2:1, but never so many
 * that staging runs empty: a page that passes through it at once has no second chance. */
static uint64_t settle_share(const struct vmemi_host *host, uint64_t target, uint64_t staged)
{
	uint64_t free = vmemi_frames_free(&host->frames);
	uint64_t want = free < target ? (target - free) / (VMEM_PAGE_SIZE / 2) + 1 : 0;
	uint64_t most = staged / 4 > SETTLE_LEAST ? staged / 4 : SETTLE_LEAST;

	if (want > VMEMI_BATCH)
		want = VMEMI_BATCH;
	return want < most ? want : most;
}

/* Half of what faults may take of the reserve is gone: no time for second chances. */
bool vmemi_reclaim_is_urgent(const struct vmemi_host *host)
{
	uint64_t reserve = atomic_load(&host->frames.reserve_bytes);

	return vmemi_frames_free(&host->frames) <
	       (reserve + atomic_load(&host->frames.floor_bytes)) / 2;
}

/* The store's background part: compaction above all, in small pieces while faults may wait for us.
 * Returns the frames that it gave back. */
static uint64_t store_work(struct vmemi_reclaim *rc)
{
	struct vmemi_host *host = rc->host;
	uint64_t before = atomic_load(&host->frames.segment_bytes), after;
	bool haste = vmemi_reclaim_is_urgent(host) || atomic_load(&rc->savers.pending);

	rc->store_has_work =
		vmem_store_work(host->store, haste ? 0 : STORE_WORK_NS, host->k->clock_ns());
	vmemi_loads_tell(host); /* it has looked at devices */
	after = atomic_load(&host->frames.segment_bytes);
	return after < before ? (before - after) / VMEM_PAGE_SIZE : 0;
}

/* The store takes no more: what is oldest in it is to leave for a device. Returns frames as store_work(). */
static uint64_t make_room_in_store(struct vmemi_reclaim *rc, uint64_t target)
{
	struct vmemi_host *host = rc->host;
	uint64_t free = vmemi_frames_free(&host->frames);
	uint64_t want = free < target ? target - free : 0;

	rc->store_is_full = true;
	if (want)
		vmem_store_write_out(host->store, want < OUT_MOST ? want : OUT_MOST);
	return store_work(rc);
}

/* There is time: pages go ahead of need. */
static void work_ahead(struct vmemi_reclaim *rc)
{
	uint64_t want = vmemi_take_ahead(rc);

	if (!want)
		return;
	if (atomic_load(&rc->savers.threads))
		name(rc, want);
	else
		settle(rc, want);
}

uint64_t vmemi_reclaim_round(struct vmemi_reclaim *rc, uint64_t target, uint64_t max_pages)
{
	struct vmemi_host *host = rc->host;
	uint64_t progress = tidy(rc), handled = progress, limit = rc->staging_pages;
	bool alone = !atomic_load(&rc->savers.threads);

	rc->store_is_full = false;
	tick(rc);
	vmemi_huge_check(rc);
	if (!target) {
		work_ahead(rc);
		vmemi_huge_work(rc);
	}
	while (vmemi_frames_free(&host->frames) < target && handled < max_pages) {
		uint64_t staged = sum(host).staged, dropped = rc->dropped, taken = 0, gained;
		struct vmemi_settled settled = { 0 };

		if (staged < limit)
			taken = take(rc,
				     limit - staged < VMEMI_BATCH ? limit - staged : VMEMI_BATCH);
		staged = sum(host).staged;
		if (staged >= limit / 2 || !taken || vmemi_reclaim_is_urgent(host)) {
			uint64_t want = settle_share(host, target, staged);

			settled = alone ? settle(rc, want) : name(rc, want);
		}
		gained = settled.saved + rc->dropped - dropped + tidy(rc);
		if (settled.full)
			gained += make_room_in_store(rc, target);
		handled += taken + settled.saved + settled.refused;
		/* Taking frees nothing yet: it is progress until staging should have given something, and
		 * none where nothing more was to be had (since a sweep that found nothing, see below). */
		rc->since_gain = gained ? 0 : rc->since_gain + taken;
		if (rc->since_gain <= limit + VMEMI_BATCH && !atomic_load(&host->stuck))
			progress += taken;
		progress += gained;
		if (taken || settled.saved) {
			rc->idle_sweeps = 0;
			continue;
		}
		/* Theirs is the next word. */
		if (atomic_load(&rc->savers.pending) ||
		    (settled.full && vmemi_host_is_writing(host)))
			break;
		/* A sweep that found only young pages has aged them: the next may find some. */
		if (++rc->idle_sweeps > SWEEPS_BEFORE_HOT) {
			gained = make_room_in_store(rc, target);
			rc->since_gain = gained ? 0 : limit + VMEMI_BATCH + 1;
			progress += gained;
			break;
		}
	}
	progress += store_work(rc);
	/* Without progress nobody's turn has come: telling them would only bring them back here. */
	if (progress)
		vmemi_host_freed(host);
	return progress;
}
