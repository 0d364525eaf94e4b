/* SPDX-License-Identifier: BSD-2-Clause */
/* Recording a working set: the beginning and the end. What faults do meanwhile is in region/touches.h. */
#include "base/opts.h"
#include "linux/region/table.h"
#include "linux/working_set/working_set.h"

int vmem_working_set_record_start(vmem_region *region,
				  const struct vmem_working_set_record_opts *opts)
{
	struct vmem_working_set_record_opts o;
	int error = region ? vmemi_opts_take(&o, sizeof(o), opts) : -VMEM_EINVAL;

	if (error || o.flags)
		return error ? error : -VMEM_EINVAL;
	if (region->pages > VMEMI_WORKING_SET_PAGES_MAX)
		return -VMEM_ENOTSUP;
	if (!o.max_pages || o.max_pages > region->pages)
		o.max_pages = region->pages;
	return vmemi_touches_start(&region->touches, &region->host->metadata.allocator,
				   region->pages, o.max_pages);
}

/* From the record of a region that is held. 0, -VMEM_ENOMEM. */
static int make_set(const struct vmem_region *r, struct vmem_working_set **ret_set)
{
	const struct vmemi_touches *t = &r->touches;
	uint64_t count = atomic_load(&t->count);
	uint64_t kept = count < t->capacity ? count : t->capacity;
	struct vmem_working_set *set;
	int error = vmemi_working_set_new(&set, &r->host->metadata.inner);

	if (error)
		return error;
	set->gpa = r->opts.gpa;
	/* It may have grown since; beyond what fits into a set, replay refuses it. */
	set->region_pages = r->pages;
	if (set->region_pages > VMEMI_WORKING_SET_PAGES_MAX)
		set->region_pages = t->pages;
	set->missed = count - kept;
	for (uint64_t i = 0; i < kept && !error; i++)
		error = vmemi_working_set_add(set, t->order[i], 1);
	if (error)
		vmem_working_set_free(set);
	else
		*ret_set = set;
	return error;
}

int vmem_working_set_record_stop(vmem_region *region, vmem_working_set **ret_set)
{
	struct vmem_working_set *set = NULL;

	if (!region || !vmemi_touches_hold(&region->touches, region->host->env))
		return -VMEM_EINVAL;
	if (ret_set && make_set(region, &set)) {
		vmemi_touches_go_on(&region->touches);
		return -VMEM_ENOMEM;
	}
	vmemi_touches_drop(&region->touches, &region->host->metadata.allocator);
	if (ret_set)
		*ret_set = set;
	return 0;
}
