/* SPDX-License-Identifier: BSD-2-Clause */
/* Taking pages out on request, past the ages: for VMMs that know better, for tests and benches. */
#include "linux/manager/manager.h"

#define PIECE 8192 /* pages between two chances for the reclaim loop */
#define GIVE_UP_NS 1000000000

static struct vmem_manager *manager_of(vmem_region *region)
{
	return (struct vmem_manager *)region->host;
}

static struct vmemi_reclaim *reclaim_of(vmem_region *region)
{
	return manager_of(region)->reclaim;
}

static bool is_full(int error)
{
	return error == -VMEM_ENOSPC || error == -VMEM_ENOMEM;
}

/* Enters reclaim for the region. -VMEM_EBUSY: it is to be left alone. */
static int enter(struct vmemi_reclaim *rc, const struct vmem_region *region)
{
	vmemi_reclaim_enter(rc);
	if (!vmemi_region_is_quiet(region))
		return 0;
	vmemi_reclaim_leave(rc);
	return -VMEM_EBUSY;
}

int vmem_region_stage(vmem_region *region, uint64_t gpa, uint64_t bytes, uint64_t *ret_pages)
{
	struct vmemi_reclaim *rc = reclaim_of(region);
	uint64_t first, count, taken = 0;
	int error = vmemi_region_span(region, gpa, bytes, false, &first, &count);

	if (error)
		return error;
	if (!region->can_move && !region->can_scatter)
		return -VMEM_ENOTSUP;
	for (uint64_t done = 0; done < count; done += PIECE) {
		uint64_t n = count - done < PIECE ? count - done : PIECE;

		error = enter(rc, region);
		if (error)
			break;
		/* A page whose copy is still there cannot leave. */
		vmemi_tidy(rc, region, first + done, n);
		taken += vmemi_take_range(rc, region, first + done, n);
		vmemi_reclaim_leave(rc);
	}
	if (ret_pages)
		*ret_pages = taken;
	return error;
}

int vmem_region_stage_pages(vmem_region *region, const uint64_t *gpas, uint32_t count,
			    uint64_t *ret_pages)
{
	struct vmemi_reclaim *rc = reclaim_of(region);
	uint64_t page, n, taken = 0;
	int error;

	if (!region->can_move && !region->can_scatter)
		return -VMEM_ENOTSUP;
	for (uint32_t i = 0; i < count; i++) {
		if (gpas[i] % VMEM_PAGE_SIZE || (i && gpas[i] <= gpas[i - 1]))
			return -VMEM_EINVAL;
		if (vmemi_region_span(region, gpas[i], VMEM_PAGE_SIZE, false, &page, &n))
			return -VMEM_ERANGE;
	}
	error = enter(rc, region);
	if (error)
		return error;
	if (count) {
		vmemi_region_span(region, gpas[0], gpas[count - 1] - gpas[0] + VMEM_PAGE_SIZE,
				  false, &page, &n);
		vmemi_tidy(rc, region, page, n);
	}
	for (uint32_t i = 0; i < count;) {
		uint32_t run = 1;

		vmemi_region_span(region, gpas[i], VMEM_PAGE_SIZE, false, &page, &n);
		while (i + run < count && gpas[i + run] == gpas[i] + run * VMEM_PAGE_SIZE)
			run++;
		taken += vmemi_take_offer(rc, region, page, run);
		i += run;
	}
	taken += vmemi_take_flush(rc, region);
	vmemi_reclaim_leave(rc);
	if (ret_pages)
		*ret_pages = taken;
	return 0;
}

/* Whether to try again what found the store full: devices make room. But others may take all that room. */
static bool goes_on(struct vmem_manager *m, bool progress, uint64_t *full_since_ns)
{
	uint64_t now = m->host.k->clock_ns();

	if (progress || !*full_since_ns)
		*full_since_ns = now;
	return now - *full_since_ns < GIVE_UP_NS && vmemi_devices_make_room(m);
}

int vmem_region_store(vmem_region *region, uint64_t gpa, uint64_t bytes, uint64_t *ret_pages)
{
	struct vmemi_reclaim *rc = reclaim_of(region);
	uint64_t first, count, saved, total = 0, full_since_ns = 0;
	int error;

	if (region->foreign)
		return -VMEM_ENOTSUP;
	error = vmemi_region_span(region, gpa, bytes, false, &first, &count);
	for (uint64_t n, done = 0; done < count && !error; done += n) {
		n = count - done < PIECE ? count - done : PIECE;
		/* First counted, then looked: quiesce does it the other way round. */
		atomic_fetch_add(&region->bringing, 1);
		if (vmemi_region_is_quiet(region)) {
			atomic_fetch_sub(&region->bringing, 1);
			error = -VMEM_EBUSY;
			break;
		}
		error = vmemi_settle_range(rc, region, first + done, n, &saved);
		atomic_fetch_sub(&region->bringing, 1);
		total += saved;
		if (is_full(error) && goes_on(manager_of(region), saved > 0, &full_since_ns)) {
			error = 0;
			n = 0; /* the same again */
		}
	}
	if (ret_pages && error != -VMEM_ERANGE)
		*ret_pages = total;
	return error;
}

#define EVICT_PIECE 1024 /* pages that are staged before they go on */

int vmem_region_evict_all(vmem_region *region, uint64_t *ret_left)
{
	static const enum vmem_page_state here[] = { VMEM_PAGE_RESIDENT, VMEM_PAGE_CLEAN,
						     VMEM_PAGE_SHARED,   VMEM_PAGE_STAGED,
						     VMEM_PAGE_STORING,  VMEM_PAGE_ARRIVING };
	uint64_t piece = (uint64_t)EVICT_PIECE * VMEM_PAGE_SIZE, left = 0;
	uint64_t all = vmemi_region_bytes(region);
	int error = 0;

	for (uint64_t done = 0; done < all && !error; done += piece) {
		uint64_t rest = all - done, gpa = region->opts.gpa + done;
		uint64_t bytes = rest < piece ? rest : piece;

		error = vmem_region_stage(region, gpa, bytes, NULL);
		if (!error)
			error = vmem_region_store(region, gpa, bytes, NULL);
	}
	for (size_t i = 0; i < sizeof(here) / sizeof(here[0]); i++)
		left += vmemi_region_count(region, here[i]);
	if (ret_left)
		*ret_left = left;
	return error;
}
