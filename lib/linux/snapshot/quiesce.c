/* SPDX-License-Identifier: BSD-2-Clause */
/* Where pages are, and a time in which they stay there: see <vmem/snapshot.h>.
 *
 * Whoever would change states by itself looks at region->quiet: reclaim under its lock, before each piece
 * of work on the region, and before it names pages to the savers; who brings neighbours, or saves a range, after
 * having counted itself in region->bringing. So quiesce raises the count first, and then waits for those who did
 * not see it. */
#include <vmem/snapshot.h>
#include "linux/manager/manager.h"

int vmem_region_iterate(vmem_region *region, uint64_t gpa, uint64_t bytes, uint32_t states,
			int (*run)(void *context, uint64_t gpa, uint64_t bytes,
				   enum vmem_page_state state),
			void *context)
{
	uint64_t first, count, end, next;
	int error;

	if (!region || !run)
		return -VMEM_EINVAL;
	error = vmemi_region_span(region, gpa, bytes, true, &first, &count);
	if (error)
		return error;
	end = first + count;
	for (uint64_t page = first; page < end; page = next) {
		enum vmem_page_state state = vmemi_page_state(vmemi_region_word(region, page));

		next = page + 1;
		while (next < end && vmemi_page_state(vmemi_region_word(region, next)) == state)
			next++;
		if (!(states >> state & 1))
			continue;
		error = run(context, vmemi_region_gpa(region, page), (next - page) * VMEM_PAGE_SIZE,
			    state);
		if (error)
			return error;
	}
	return 0;
}

int vmem_region_quiesce(vmem_region *region)
{
	struct vmemi_reclaim *rc;
	uint32_t depth;

	if (!region)
		return -VMEM_EINVAL;
	depth = atomic_load(&region->quiet);
	do {
		if (depth == UINT32_MAX)
			return -VMEM_EINVAL;
	} while (!atomic_compare_exchange_weak(&region->quiet, &depth, depth + 1));
	rc = ((struct vmem_manager *)region->host)->reclaim;
	vmemi_reclaim_enter(rc);
	vmemi_reclaim_leave(rc);
	vmemi_savers_forget(&rc->savers, region);
	while (atomic_load(&region->bringing))
		vmemi_host_wait(region->host);
	return 0;
}

int vmem_region_resume(vmem_region *region)
{
	uint32_t depth;

	if (!region)
		return -VMEM_EINVAL;
	depth = atomic_load(&region->quiet);
	do {
		if (!depth)
			return -VMEM_EINVAL;
	} while (!atomic_compare_exchange_weak(&region->quiet, &depth, depth - 1));
	if (depth == 1)
		vmemi_host_kick_reclaim(region->host);
	return 0;
}
